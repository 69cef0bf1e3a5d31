/* Counting and averaging for evaluation: pure functions, and counters by task and prompt. */
#ifndef MOEC_METRICS_H
#define MOEC_METRICS_H

#include "internal.h"

/* ---- single examples ---- */

/* The first of the largest scores; one that is no number never wins. -1 when none is a number. */
int64_t moec_rank(const double *score, int64_t n);

/* What decoding made of one example. */
typedef struct moec_made {
    const int64_t *token;
    int64_t n; /* tokens before the end of sequence */
    int ended; /* an end of sequence follows them, or the model has no room for more */
} moec_made;

/* Tokens of a reference without the end of sequence, if it has one. */
int64_t moec_body(const int64_t *reference, int64_t n, int64_t eos);
/* Whether what was made is the reference, ends of sequence apart. */
int moec_exact(const moec_made *m, const int64_t *reference, int64_t n, int64_t eos);
/* Places of the reference, its end of sequence included, at which the same token was made; *of: places that
 * count. */
int64_t moec_token_hits(const moec_made *m, const int64_t *reference, int64_t n, int64_t eos, int64_t *of);
/* Whether two texts are the same but for blanks at their ends. */
int moec_same_text(const char *a, size_t n, const char *b, size_t m);

/* ---- many ---- */

double moec_mean(const double *v, size_t n); /* 0 of none */
double moec_median(double *v, size_t n); /* sorts v; of an even number the mean of the two in the middle */

/* Counters of the examples of one prompt of one task. */
typedef struct moec_group {
    size_t task, prompt;          /* numbers of their names */
    size_t next;                  /* the task's next group + 1; 0: none */
    int64_t examples, right;      /* choices: the label was chosen; pairs: exact matches */
    int64_t tokens, right_tokens; /* pairs */
    double loss;                  /* pairs: minus the log-probability of all tokens */
} moec_group;

typedef struct moec_tally {
    moec_names task, prompt, key; /* key: both their numbers; its own are those of the groups */
    moec_group *group;
    size_t *first, *last; /* group of each task + 1 */
    size_t groups, group_room, task_room;
} moec_tally;

/* The counters of a prompt of a task, NULL without memory or when there are MOEC_TALLY_GROUPS others; they
 * move when another is added. */
moec_group *moec_tally_at(moec_tally *t, const char *task, size_t task_n, const char *prompt,
                          size_t prompt_n);
void moec_tally_free(moec_tally *t);

enum { MOEC_TALLY_GROUPS = 100000 };

/* Sums over the prompts of a task, or over all; of the prompts' accuracies (right / examples) median and
 * mean. Over all: the means over tasks of the tasks' medians and means. */
typedef struct moec_summary {
    moec_group sum;
    size_t members; /* prompts; over all: tasks */
    double median, mean;
} moec_summary;

double moec_accuracy(const moec_group *g);
/* room: `groups` doubles to work in. */
moec_summary moec_tally_task(const moec_tally *t, size_t task, double *room);
moec_summary moec_tally_all(const moec_tally *t, double *room);

#endif
