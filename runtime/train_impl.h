/* What training's files share: optimizer.c, trainer.c, checkpoint.c.
 *
 * Gradients and every slot of the optimiser's state are one set of f32 tensors each, laid out alike: the
 * trained tensors in the order of the program, each at a 64-byte aligned offset (moec_param.offset). */
#ifndef MOEC_TRAIN_IMPL_H
#define MOEC_TRAIN_IMPL_H

#include "internal.h"
#include "moec_train.h"

/* ---- train_options.c ---- */

typedef enum moec_option_kind {
    MOEC_OPT_REAL,
    MOEC_OPT_COUNT,
    MOEC_OPT_WORD,
    MOEC_OPT_BITS
} moec_option_kind;

/* A field of moec_train_options: its place, what it may hold, and whether a run that goes on has to agree. */
typedef struct moec_option_field {
    const char *name;
    moec_option_kind kind; /* double, int64_t, an enumeration (4 bytes), uint64_t */
    size_t offset;
    double lo, hi;
    int below;                /* hi itself is out */
    const char *const *words; /* of an enumeration */
} moec_option_field;

extern const moec_option_field moec_option_fields[];
extern const size_t moec_option_field_count;

/* MOEC_E_ARGUMENT names the first field that is out of its bounds. */
moec_status moec_options_check(const moec_train_options *o, moec_sink sink);
/* Whether the learning rate of some step depends on the length of the run. */
int moec_schedule_ends(moec_schedule s);
/* Learning rate of the step after `done` steps. */
double moec_schedule_rate(const moec_train_options *o, int64_t done);

/* ---- optimizer.c ---- */

typedef struct moec_param {
    const moec_tensor *tensor;
    int64_t n;       /* elements */
    uint64_t offset; /* in a gradient set and in a state slot */
    uint32_t span;   /* the first of its spans */
    double factor;   /* adafactor: of the step under way */
} moec_param;

/* A run of elements of one tensor: what one task works on. Its sums are added up in the order of the spans,
 * so that no result depends on the number of threads. */
typedef struct moec_span {
    uint32_t param;
    int64_t begin, end;
    double sum[2];
} moec_span;

typedef struct moec_optimizer_state {
    moec_train_options o;
    moec_param *param;
    moec_span *span;
    uint32_t n_params, n_spans;
    uint64_t set_bytes;        /* of a gradient set or a slot */
    unsigned char *state;      /* the slots, zero before the first step */
    moec_tensor *state_tensor; /* n_params * slots: the state as named tensors, TENSOR.SLOT */
    uint32_t n_state_tensors;
    char *names;
} moec_optimizer_state;

/* MOEC_E_MISMATCH where a trained tensor is not f32 or nothing is trained. moec_optimizer_close in any case.
 */
moec_status moec_optimizer_open(const moec_program *p, const moec_train_options *o, moec_optimizer_state *x,
                                moec_sink sink);
void moec_optimizer_close(moec_optimizer_state *x);
uint64_t moec_optimizer_state_bytes(const moec_optimizer_state *x);
/* to += from, gradient sets. */
void moec_optimizer_add(moec_optimizer_state *x, moec_pool *pool, unsigned char *to,
                        const unsigned char *from);
/* Euclidean norm of a whole set; not finite where an element is not. */
double moec_optimizer_norm(moec_optimizer_state *x, moec_pool *pool, const unsigned char *gradient);
/* Changes the adapter block in place by the step after `done` steps; the gradient counts times `scale`. */
void moec_optimizer_update(moec_optimizer_state *x, moec_pool *pool, unsigned char *adapter,
                           const unsigned char *gradient, double scale, double rate, int64_t done);

/* ---- trainer.c ---- */

enum { MOEC_LOSSES = 4 }; /* loss, token_loss, balance_loss, router_z_loss */

struct moec_trainer {
    moec_instance *m;
    moec_optimizer_state optimizer;
    const moec_function *function;
    uint32_t index; /* of `train` */
    void **arg;
    uint8_t *role;
    unsigned char *gradient; /* two sets: the step's sum, and where the second and later micro-batches go */
    unsigned char *own;      /* outputs nobody reads */
    uint64_t own_bytes;
    float smoothing, z_loss, dropout, share;
    int64_t seed;
    float loss[MOEC_LOSSES];
    double sum[MOEC_LOSSES];
    int64_t steps, batches; /* done; micro-batches of the step under way */
};

#endif
