/* Training data: examples read from files of JSON lines, the order they are drawn in, and the batches made of
 * them.
 *
 *   moec_dataset_open -> moec_data_open -> { moec_data_step -> moec_data_batch for each micro-batch } ->
 * close both
 *
 * A dataset does not change once it is open; several iterators (one to train, one to evaluate) may read one.
 * Where an iterator stands is a few integers, and the same options and integers give the same batches on
 * every machine. */
#ifndef MOEC_DATASET_H
#define MOEC_DATASET_H

#include "internal.h"
#include "moec_train.h"

/* ---- dataset.c: reading ----
 *
 * A line is a JSON object:
 *   "input_ids" [ints], or "inputs" (text)      the input; one of the two
 *   "labels" [ints], or "targets" (text)        the target; one of the two
 *   "attention_mask" [0 or 1, an entry a token] with input_ids: 0 is padding, at the end or as a hole
 *   "task" (string), "weight" (number > 0)      optional; weight 1 unless given
 * Other keys are ignored. -100 in labels: at the end padding, elsewhere a token whose loss is ignored. Text
 * gets an end of sequence as a target; as an input only where asked for. */

typedef struct moec_data_file {
    const char *path; /* borrowed until the dataset is closed; "-": standard input */
    double weight;    /* of its examples in a mixture; 0: 1 */
    int64_t cap;      /* examples that count for its share of a mixture, at most; 0: all */
} moec_data_file;

enum { MOEC_DATA_NO_TEXT = -2 };
/* As moec_text_api.encode; MOEC_DATA_NO_TEXT: there is no tokenizer, and the callback has told why. */
typedef int64_t moec_data_encode(void *ctx, const char *s, size_t n, int64_t *ids, int64_t room);

typedef struct moec_dataset_options {
    int64_t vocab, eos;
    int64_t source, target; /* most tokens of an input, of a target */
    int truncate_inputs,
        truncate_targets;     /* cut what is longer at its end; a target keeps its end of sequence */
    int input_eos;            /* text as an input gets an end of sequence too */
    int skip_bad;             /* leave bad lines out and count them */
    moec_data_encode *encode; /* NULL: text is an error */
    void *encode_ctx;
} moec_dataset_options;

typedef struct moec_data_example {
    int64_t at;             /* in moec_dataset.token: the input, then the target */
    int32_t source, target; /* tokens; > 0 */
    float weight;
    int32_t task; /* index of its name, -1 without one */
} moec_data_example;

typedef struct moec_data_span {
    int64_t first, count; /* the examples of a file */
    double weight;
    int64_t cap;
} moec_data_span;

typedef struct moec_dataset {
    moec_data_example *example;
    int64_t examples, example_room;
    int32_t *token; /* inputs: a token the mask hides is stored as -1 - id */
    int64_t tokens, token_room;
    moec_data_span *file;
    int64_t files;
    moec_names task;
    uint64_t hash; /* of all examples in order */
    int64_t bad;   /* lines skipped, and why the first one was */
    char first_bad[512];
    int64_t cut_inputs, cut_targets; /* examples truncated */
} moec_dataset;

/* Reads all files; bad lines are told as `FILE:LINE: error: ...`. A file that holds no example is an error.
 * Free with moec_dataset_close whatever came back. */
moec_status moec_dataset_open(const moec_data_file *file, int64_t files, const moec_dataset_options *o,
                              moec_dataset *d, moec_sink sink);
void moec_dataset_close(moec_dataset *d);
/* Distinct task names in order of appearance; any bytes of UTF-8, not ended by a NUL. */
int64_t moec_dataset_tasks(const moec_dataset *d);
const char *moec_dataset_task(const moec_dataset *d, int64_t task, size_t *n);

/* ---- data_order.c: which example comes next ---- */

/* How often each file was drawn from. The next draw depends on nothing else. */
typedef struct moec_data_cursor {
    int64_t draws; /* sum of taken */
    int64_t *taken;
} moec_data_cursor;

typedef struct moec_data_order {
    const moec_dataset *set;
    int shuffle, once;
    uint64_t seed;
    double *upto; /* [files] shares of the files, added up */
    uint32_t *
        *permutation; /* [files] of the file's examples in the epoch beside it; unused without shuffle */
    int64_t *epoch;
} moec_data_order;

/* once: every example once, in file order. Otherwise a draw takes a file with probability proportional to
 * weight * min(examples, cap), and the file's next example: in file order or, with shuffle, in an order of
 * each epoch's own; either way each epoch of a file holds each of its examples once. */
moec_status moec_data_order_open(const moec_dataset *set, int shuffle, int once, uint64_t seed,
                                 moec_data_order *o, moec_sink sink);
void moec_data_order_close(moec_data_order *o);
/* The next example; -1 behind the last one (once). */
int64_t moec_data_draw(moec_data_order *o, moec_data_cursor *c);
/* Moves a cursor on by a draw. */
void moec_data_pass(const moec_data_order *o, moec_data_cursor *c);

/* What the seed's random numbers are for, so that no two uses share them. */
enum { MOEC_DATA_KEY_FILE, MOEC_DATA_KEY_EPOCH, MOEC_DATA_KEY_BATCHES };
/* Counter-based random bits (the finaliser of splitmix64): a function of its arguments alone. */
uint64_t moec_data_bits(uint64_t key, uint64_t counter);
/* A random order of 0..n-1, n < 2^32, by key. */
void moec_data_permute(uint32_t *p, int64_t n, uint64_t key);

/* ---- data_batch.c: batches ---- */

typedef struct moec_data_options {
    int64_t rows, accumulation;   /* rows of a micro-batch; micro-batches of a step */
    int64_t rows_least;           /* fewer are filled up with rows that count for nothing */
    int64_t source_least, source; /* bounds of a batch's extents; no example may be longer: */
    int64_t target_least, target; /* what the dataset was opened with, or more */
    int64_t multiple;             /* lengths are rounded up to it within the bounds; 0: 8 */
    int64_t pad, start;
    int pack;          /* several examples a row */
    int per_example;   /* each example's mean, then the mean over examples; else over all tokens */
    int shuffle, once; /* as moec_data_order_open */
    uint64_t seed;
    /* [examples of the dataset, sentence_width] in its order, which skipped lines would shift; or NULL. Not
     * with pack. */
    const float *sentence;
    int64_t sentence_width;
} moec_data_options;

typedef struct moec_data_step_info {
    int64_t batches; /* micro-batches; 0: an iterator with `once` is at its end */
    int64_t examples;
    int64_t source_tokens, target_tokens; /* real ones: without padding, and without ignored labels */
    double mass;                          /* what the weights were divided by: for means over several steps */
    double epoch;                         /* draws before this step / examples of the dataset */
} moec_data_step_info;

typedef struct moec_data moec_data;

/* Padded (unless packed): with shuffle, examples of like length share a micro-batch, whose order is random
 * again. The dataset must outlive the iterator. Nothing is allocated after this. */
moec_status moec_data_open(const moec_dataset *set, const moec_data_options *o, moec_data **out,
                           moec_sink sink);
void moec_data_close(moec_data *d);
/* Chooses the examples of the next step. */
moec_data_step_info moec_data_step(moec_data *d);
/* Micro-batch i of the step; its arrays last until the next call. The weights of a step's micro-batches add
 * up to 1. */
moec_batch moec_data_batch(moec_data *d, int64_t i);
/* Examples of micro-batch i of the step, row by row, the segments of a row in order; at most `room` are
 * stored. */
int64_t moec_data_batch_examples(const moec_data *d, int64_t i, int64_t *example, int64_t room);

/* Where the iterator stands between two steps, as integers to keep in a checkpoint. Set refuses what another
 * dataset or other options have left, and numbers that are no position. */
int64_t moec_data_position_count(const moec_data *d);
void moec_data_position_get(const moec_data *d, int64_t *position);
moec_status moec_data_position_set(moec_data *d, const int64_t *position, int64_t n, moec_sink sink);

#endif
