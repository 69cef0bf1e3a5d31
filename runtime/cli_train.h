/* What the files of the train command share: cli_train.c (the run), cli_train_data.c (its data),
 * cli_train_eval.c (evaluation), cli_train_log.c (metrics.jsonl, what a person sees), cli_train_memory.c (the
 * plan). */
#ifndef MOEC_CLI_TRAIN_H
#define MOEC_CLI_TRAIN_H

#include "checkpoint.h"
#include "cli.h"
#include "dataset.h"

/* One --eval file: what a look through it before training has found. */
typedef struct moec_eval_file {
    const char *path;
    int64_t first;                     /* of its lines among those of all files: its first sentence vector */
    int64_t source, target, generated; /* the longest input and reference, most tokens to make */
} moec_eval_file;

typedef struct moec_run_log {
    moec_output metrics; /* metrics.jsonl */
    moec_chars line;     /* of it, being written; its room is used again */
    int bar, lines;      /* a bar on a terminal; a line every --log-every steps */
    int shown;           /* the bar stands on the screen */
    double start, next;  /* seconds: when the loop began, when the bar moves again */
    int64_t first;       /* steps that were done then */
    int64_t tokens;      /* since then */
    size_t evaluated;    /* files whose evaluation after the steps done is told already */
    double away;         /* seconds since then in which no step was made: evaluation, checkpoints */
} moec_run_log;

/* What memory is for. */
typedef enum moec_memory_kind {
    MOEC_MEMORY_WEIGHTS,
    MOEC_MEMORY_ADAPTER,
    MOEC_MEMORY_ACTIVATIONS,
    MOEC_MEMORY_SCRATCH,
    MOEC_MEMORY_GRADIENTS,
    MOEC_MEMORY_OPTIMIZER,
    MOEC_MEMORY_DATA,
    MOEC_MEMORY_EVALUATION,
    MOEC_MEMORY_PROCESS,
    MOEC_MEMORY_KINDS
} moec_memory_kind;

typedef struct moec_memory_plan {
    uint64_t bytes[MOEC_MEMORY_KINDS], total;
} moec_memory_plan;

typedef struct moec_train_run {
    moec_cli *c;
    const moec_train_options *o;
    char **path; /* of the data files, without weight and cap */
    moec_data_file *file;
    int64_t files;
    moec_dataset set;
    moec_npy sentence, eval_sentence;
    moec_data_options data_options;
    moec_data *data;
    int text_failed;              /* no tokenizer: told already */
    int64_t rows, source, target; /* the largest extents of a batch */
    moec_eval_file *eval;         /* one for each --eval */
    int cut;                      /* evaluation was ended by a signal */
    moec_trainer *trainer;
    moec_agree *agree;
    moec_standing standing;
    int lock;      /* of the folder; -1: none */
    int64_t saved; /* steps of the newest checkpoint; -1: none */
    moec_memory_plan plan;
    moec_run_log log;
} moec_train_run;

/* ---- cli_train.c ---- */

int moec_train_stopped(void); /* whether a signal has asked for the end */

/* ---- cli_train_data.c: all return exit codes, having reported ---- */

/* Reads --data and --sentence, and opens the iterator over their batches. */
int moec_train_data_open(moec_train_run *r);
void moec_train_data_close(moec_train_run *r);
/* Reads an .npy file of sentence vectors, [rows, width]. */
int moec_train_sentences(moec_train_run *r, const char *path, int64_t rows, moec_npy *out);

/* ---- cli_train_eval.c ---- */

/* Looks through the --eval files, so that a bad line is told before training, not after. */
int moec_train_eval_open(moec_train_run *r);
/* Evaluates what has been learnt so far on every file from `first` on; results go to log and metrics. A
 * signal ends it: r->cut. */
int moec_train_eval(moec_train_run *r, size_t first);

/* ---- cli_train_memory.c ---- */

/* process: bytes in memory before anything was opened. */
void moec_train_plan(moec_train_run *r, uint64_t process);
void moec_train_plan_print(const moec_memory_plan *p);
/* Bytes this process has in memory; the most it ever had. 0 where the system does not say. */
uint64_t moec_memory_now(void);
uint64_t moec_memory_peak(void);
/* Bytes as a person reads them. Returns out. */
enum { MOEC_BYTES_TEXT = 32 };
const char *moec_bytes_text(char out[MOEC_BYTES_TEXT], uint64_t bytes);

/* ---- cli_train_log.c ---- */

double moec_seconds(void); /* of a clock that never goes back */
/* Opens metrics.jsonl and forgets the lines of steps beyond those done. */
int moec_train_log_open(moec_train_run *r);
void moec_train_log_close(moec_train_run *r);
/* A step's line in metrics.jsonl, and on the terminal. */
int moec_train_log_step(moec_train_run *r, const moec_step_report *s, const moec_data_step_info *info,
                        double seconds, const char *routers);
int moec_train_log_eval(moec_train_run *r, const char *path, const moec_eval_result *e);
void moec_train_log_clear(moec_train_run *r); /* takes the bar off the screen */

/* Load and entropy of every router over a micro-batch, as a member of a JSON object. */
int moec_train_routers(moec_train_run *r, const moec_batch *b, moec_chars *out);

#endif
