/* What the files of the eval command share: cli_eval_read.c (lines to examples), cli_eval.c (examples to
 * counters), cli_eval_report.c (counters to a table and JSON). */
#ifndef MOEC_CLI_EVAL_H
#define MOEC_CLI_EVAL_H

#include "cli.h"
#include "jsonl.h"
#include "metrics.h"

typedef enum moec_eval_kind { MOEC_EVAL_UNKNOWN, MOEC_EVAL_CHOICES, MOEC_EVAL_PAIRS } moec_eval_kind;

enum { MOEC_EVAL_NAME = 1024 }; /* bytes of the name of a task or prompt */

typedef struct moec_numbers {
    int64_t *at;
    int64_t n, room;
} moec_numbers;

/* One question: an input with several choices, or with the one reference of a pair. Its arrays are used again
 * for the examples that follow. */
typedef struct moec_eval_example {
    int64_t line, ordinal; /* ordinal: among the lines of all files, from 0 */
    int is_text;           /* the references are text */
    moec_numbers input, mask;
    moec_numbers token, end; /* choice k: token[end[k - 1]] to token[end[k]] */
    int64_t label;
    char task[MOEC_EVAL_NAME], prompt[MOEC_EVAL_NAME];
    size_t task_n, prompt_n;
} moec_eval_example;

void moec_eval_example_free(moec_eval_example *x);

/* The examples of one file. */
typedef struct moec_eval_reader {
    moec_cli *c;
    const moec_eval_options *o;
    moec_progress *progress; /* cleared before an error is told */
    moec_jsonl lines;
    moec_eval_kind kind;    /* of the file; known with its first example */
    int64_t source, target; /* most tokens of an input, of a reference */
    int64_t taken, skipped, ordinal;
    char first[MOEC_MESSAGE]; /* why the first line was skipped */
    char why[MOEC_MESSAGE];   /* what is wrong with the line at hand */
} moec_eval_reader;

/* The examples at hand, and what they make of the model. */
typedef struct moec_window {
    moec_cli *c;
    const moec_eval_options *o;
    moec_eval_example *x; /* the window: `count` of at most `batch` examples */
    int64_t count, batch;
    moec_progress *progress;

    /* The window, encoded: rows >= count, as many as the program wants. */
    int64_t rows, length, sym[MOEC_SYMBOLS];
    int64_t *ids, *mask; /* [rows, length] */
    float *sentence;     /* [rows, width], NULL without */
    moec_inputs in;      /* these, as they were encoded */
    void *cross;         /* keys and values; where they are padded [rows, ...]: row_bytes each */
    size_t row_bytes;

    double *score; /* of every reference of the window */
} moec_window;

int moec_window_open(moec_window *w, moec_cli *c, const moec_eval_options *o, moec_progress *progress);
/* Encodes the inputs of x[0..count) and scores their references: ids, mask, sentence, score until it is
 * forgotten. */
int moec_window_score(moec_window *w);
void moec_window_forget(moec_window *w);
void moec_window_close(moec_window *w);
/* Where choice k begins in x->token. */
int64_t moec_eval_from(const moec_eval_example *x, int64_t k);

/* Counters over all files. */
typedef struct moec_eval {
    moec_tally choices, pairs;
    int64_t skipped, ordinal;
    char first[MOEC_MESSAGE];
} moec_eval;

/* All return exit codes, having reported. */
int moec_eval_reader_open(moec_eval_reader *r, moec_cli *c, const moec_eval_options *o, const char *path);
int moec_eval_reader_next(moec_eval_reader *r, moec_eval_example *x, int *got); /* *got 0: no more */
void moec_eval_reader_close(moec_eval_reader *r);
/* Prints the table, or JSON with --json -; writes JSON to `file` unless NULL. */
int moec_eval_report(moec_cli *c, const moec_eval *e, const moec_eval_options *o, moec_output *file);

#endif
