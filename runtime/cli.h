/* What the files of the command line share (main.c, cli_*.c, npy.c). Nothing here is needed to embed a model.
 * With MOEC_NO_TRAINING defined it has no command train and needs none of the files of training. */
#ifndef MOEC_CLI_H
#define MOEC_CLI_H

#include "internal.h"
#include "moec_main.h"
#ifndef MOEC_NO_TRAINING
#include "moec_train.h"
#endif

enum { EXIT_DONE = 0, EXIT_INPUT = 1, EXIT_USAGE = 2, EXIT_BUG = 70 };

enum { MOEC_MESSAGE = 1000 };

typedef struct moec_strings {
    const char **item; /* borrowed from argv */
    size_t count;
} moec_strings;

typedef struct moec_cli_options {
    const char *weights, *tokenizer, *jsonl, *sentence, *eval_sentence, *out, *normalize, *json,
        *checkpoint, *profile_json;
    moec_strings ids, targets, text, in, data, eval, adapter, positional;
    int64_t threads, max_length, eos, batch, limit;
    int64_t accumulate, eval_every, save_every, keep, log_every, router_metrics;
    unsigned reduce; /* 0: examples, 1: tokens */
    int input_eos, skip_bad, pack, truncate, no_shuffle, resume, dry_run, base, profile, profile_calls, map,
        check, help, version;
#ifndef MOEC_NO_TRAINING
    moec_train_options train;
#endif
} moec_cli_options;

typedef struct moec_cli {
    const moec_program *program;
    const moec_tokenizer *tokenizer; /* NULL without one */
    const char *self, *name;         /* the executable: argv[0]; its printable last component */
    moec_cli_options o;
    moec_instance *instance;
    moec_text *text; /* opened when first needed */
    moec_output profile_file; /* of --profile-json while it is written; path NULL: none */
    char message[MOEC_MESSAGE];
    char shown[MOEC_SHOW];
} moec_cli;

/* Prints `NAME: error: ...` (file NULL: the executable; line 0: none) and returns EXIT_INPUT. */
int moec_cli_error(const moec_cli *c, const char *file, int64_t line, const char *fmt, ...) MOEC_FORMAT(4, 5);
int moec_cli_usage(const moec_cli *c, const char *fmt, ...) MOEC_FORMAT(2, 3); /* returns EXIT_USAGE */
/* Prints the message a runtime function left, or the status' own, and returns the exit code. */
int moec_cli_status(const moec_cli *c, moec_status s);
moec_sink moec_cli_sink(moec_cli *c); /* c->message, emptied */
int moec_cli_no_memory(const moec_cli *c);
static inline int64_t moec_larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}
/* A moec_warn: a line to standard error. */
void moec_cli_warn(void *ctx, const char *line);
/* --map: from now on a page of the weights that is gone ends the program with a message in place of a signal. */
void moec_cli_guard(const moec_cli *c, const char *weights);
/* Opens the instance (and the tokenizer); return an exit code. */
int moec_cli_open(moec_cli *c);
int moec_cli_open_text(moec_cli *c);
/* Parses a decimal integer that takes all of s. */
int moec_cli_integer(const char *s, int64_t *out);
/* The same for a decimal number with fraction and exponent. */
int moec_cli_real(const char *s, double *out);
/* Prints text with control characters, bidi marks and bytes that are no UTF-8 escaped. */
void moec_cli_print_text(const char *s, size_t n);

/* ---- cli_examples.c: the sequences a command works on ---- */

typedef struct moec_ids {
    int64_t *id;
    int64_t n;
} moec_ids;

typedef struct moec_example {
    moec_ids input, target;
    int64_t line; /* of the JSONL file, 0 from the command line */
    int is_text;
    int32_t adapter; /* its slot */
} moec_example;

typedef struct moec_examples {
    moec_example *item;
    size_t count, room;
} moec_examples;

/* From --ids, --text and --jsonl, in that order, all checked; with_targets: each needs one. Returns an exit
 * code. */
int moec_examples_read(moec_cli *c, int with_targets, moec_examples *out);
void moec_examples_free(moec_examples *e);
/* [rows, n] of `fill`; NULL without memory. */
int64_t *moec_cli_ids(int64_t rows, int64_t n, int64_t fill);
/* Bounds of an axis of a function's input: the symbol's, or the constant extent twice when symbol is -1. */
void moec_cli_range(const moec_cli *c, int symbol, int function, const char *input, int axis, int64_t *lo,
                    int64_t *hi);

/* ---- cli_call.c ---- */

/* Progress on a terminal, for work that takes more than a second. NULL for moec_progress: nobody is told. */
typedef struct moec_progress {
    int shown, tty;
    size_t done, total; /* inputs; total 0: not known */
    int64_t next;       /* when to tell again, milliseconds */
} moec_progress;

void moec_progress_start(moec_progress *p, size_t total);
void moec_progress_tell(moec_progress *p,
                        int64_t tokens); /* tokens made of the inputs at hand, 0: not shown */
void moec_progress_clear(moec_progress *p);

typedef struct moec_bind {
    const char *name;
    int output;
    void *at; /* outputs: NULL, then what the call allocated, the caller's to free */
} moec_bind;

/* The inputs of a batch as encode, cross and score take them: without padding where the program has the functions and no mask
 * has holes. Arrays are borrowed but those of packing. */
typedef struct moec_inputs {
    int64_t rows, length;      /* of ids and mask */
    int64_t *ids, *mask;
    float *sentence;           /* NULL without */
    const int32_t *adapter;    /* slot of each row; NULL: 0 */
    int64_t *sym;
    int64_t *packed, *spans;   /* NULL: padded */
    int encode, cross, score;  /* the functions to be called */
} moec_inputs;

/* Decides how; then in->packed and in->spans are to be freed. Returns an exit code. */
int moec_inputs_make(const moec_cli *c, moec_inputs *in);
void moec_inputs_free(moec_inputs *in);
/* Where the states of row i begin, in tokens. */
int64_t moec_inputs_at(const moec_inputs *in, int64_t i);
/* States, to be freed; keys and values of them, likewise. */
int moec_inputs_encode(moec_cli *c, const moec_inputs *in, float **hidden);
int moec_inputs_cross(moec_cli *c, const moec_inputs *in, float *hidden, void **cross);

/* Runs a function of the model with inputs and outputs bound by name; outputs not named are thrown away.
 * adapter_of_row as for moec_run_rows. Returns an exit code. */
int moec_cli_call(moec_cli *c, int index, const int64_t *sym, moec_bind *bind, int n,
                  const int32_t *adapter_of_row);

/* ---- cli_eval.c ---- */

enum { MOEC_NORMALIZE_NONE, MOEC_NORMALIZE_LENGTH };

typedef struct moec_eval_options {
    int64_t batch;        /* inputs encoded, references scored together; 0: 8, or fewer if bound */
    int64_t limit;        /* most examples of a file; 0: all */
    int normalize;        /* how a choice's score is: the sum of log-probabilities, or their mean */
    int input_eos;        /* inputs that are text keep their end of sequence */
    int skip_bad;         /* count bad lines and go on */
    int loss_only;        /* pairs: generate nothing; exact match and token accuracy stay 0 */
    const void *sentence; /* f32 [sentences, width], a vector for each line; NULL where no router reads one */
    int64_t sentences;
    int (*stop)(void); /* asked now and then: nonzero ends the work; may be NULL */
} moec_eval_options;

typedef struct moec_eval_result {
    int64_t choices, pairs, tokens,
        skipped;                   /* examples of each kind, tokens of the pairs' targets; bad lines */
    double accuracy, median, mean; /* choices: over all; means over tasks of medians, means over prompts */
    double loss, exact_match,
        token_accuracy; /* pairs: mean per target token, per example, per target token */
    int stopped;        /* not all examples were taken: options.stop said so */
} moec_eval_result;

/* Evaluates the open instance, as it is, on one file of choices or pairs. Prints nothing but errors; returns
 * an exit code. */
int moec_eval_run(moec_cli *c, const moec_eval_options *o, const char *path, moec_eval_result *out);

/* ---- cli_profile.c: the options --profile, --profile-calls, --profile-json ---- */

/* Each returns an exit code: whether the program can; from here on; what was measured, where the command ended well or a
 * signal ended it, `code` being what it returned. */
int moec_cli_profile_check(const moec_cli *c);
int moec_cli_profile_start(moec_cli *c);
int moec_cli_profile_end(moec_cli *c, int code);

/* ---- npy.c ---- */

typedef struct moec_npy {
    unsigned dtype;
    int rank;
    int64_t extent[MOEC_RANK];
    unsigned char *file; /* to free */
    const unsigned char *data;
    uint64_t bytes;
} moec_npy;

moec_status moec_npy_read(const char *path, moec_npy *a, moec_sink sink);
/* Writes the header of an array to come. */
moec_status moec_npy_begin(moec_output *f, unsigned dtype, int rank, const int64_t *extent, moec_sink sink);

/* ---- commands ---- */

int moec_cmd_generate(moec_cli *c);
int moec_cmd_encode(moec_cli *c);
int moec_cmd_score(moec_cli *c);
int moec_cmd_eval(moec_cli *c);
int moec_cmd_train(moec_cli *c);
int moec_cmd_export(moec_cli *c);
int moec_cmd_run(moec_cli *c);
int moec_cmd_info(moec_cli *c);

#endif
