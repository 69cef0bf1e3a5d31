/* Training of a compiled model's adapter (or, compiled with method full, of all its weights): the part of the runtime's
 * contract that programs compiled with --train add to moec_rt.h.
 *
 *   moec_trainer_open -> { moec_trainer_batch for each micro-batch -> moec_trainer_step } for each step -> close
 *
 * A trainer works on an open instance and changes its adapter, that of slot 0, in place; between two steps the instance
 * generates and scores with what has been learnt so far, and moec_save_adapter(m, 0, ...) writes it. The rules of
 * moec_rt.h hold: status codes, no output; everything is allocated by moec_trainer_open, nothing by batches and steps;
 * batches are the caller's and read only during the call. A call of a trainer is a call of its instance: one at a time,
 * and the trainer is closed first. Same options and batches give the same bits with every thread count.
 *
 * Symbols: B rows, S source tokens, T target tokens; the extents of a batch stay within the program's bounds. */
#ifndef MOEC_TRAIN_H
#define MOEC_TRAIN_H

#include "moec_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum moec_optimizer {
    MOEC_ADAFACTOR, /* Shazeer and Stern, arXiv 1804.04235, unfactored, update clipped at RMS 1, relative step */
    MOEC_ADAMW,     /* Loshchilov and Hutter, arXiv 1711.05101 */
    MOEC_SGD,       /* with momentum */
    MOEC_OPTIMIZER_COUNT
} moec_optimizer;

typedef enum moec_schedule {
    MOEC_CONSTANT,
    MOEC_LINEAR,       /* to 0 when all steps are done */
    MOEC_COSINE,       /* half a period, to 0 when all steps are done */
    MOEC_INVERSE_SQRT, /* sqrt(warm-up / steps done) behind the warm-up */
    MOEC_SCHEDULE_COUNT
} moec_schedule;

typedef struct moec_train_options {
    moec_optimizer optimizer;
    moec_schedule schedule;
    double learning_rate;  /* at the top of the schedule; n steps done: n / warmup of it while n < warmup */
    int64_t warmup, steps; /* linear warm-up from 0; length of the run, for linear and cosine */
    double beta1, beta2, epsilon; /* adamw */
    double momentum;              /* sgd */
    double weight_decay;          /* adamw: decoupled; sgd: added to the gradient */
    int64_t step_offset;          /* adafactor: t = step_offset + steps done */
    double clip_norm;             /* of the whole gradient; 0: none */
    double dropout;               /* [0, 1) */
    double label_smoothing, z_loss;
    uint64_t seed; /* of dropout and jitter */
} moec_train_options;

/* The paper's: adafactor, 3e-4 constant, dropout 0.1, z_loss 1e-4; adamw's betas 0.9 and 0.999, epsilon 1e-8;
 * momentum 0.9. */
void moec_train_defaults(moec_train_options *o);

/* One micro-batch, row-major. Segments number the examples packed into a row from 1; 0 is padding. Without packing
 * encoder_segments is the attention mask and decoder_segments is 1 everywhere. Targets are shifted right behind the
 * start token, at the beginning of every segment. */
typedef struct moec_batch {
    int64_t rows, source, target;
    const int64_t *input_ids, *encoder_segments;                  /* [B,S] */
    const int64_t *decoder_input_ids, *decoder_segments, *labels; /* [B,T]; labels -100: ignored */
    const float *weight;   /* [B,T] what each target token's loss counts for in the step's loss; 0 where ignored */
    const float *sentence; /* [B,width], NULL where no router reads a sentence vector */
} moec_batch;

/* What a step did. The losses are sums over its micro-batches, router losses by their shares; `loss` is all of them
 * together. */
typedef struct moec_step_report {
    double loss, token_loss, balance_loss, router_z_loss; /* the last two before their weights */
    double gradient_norm;                                 /* before clipping */
    double learning_rate;
} moec_step_report;

typedef struct moec_trainer moec_trainer;

/* *out: NULL unless MOEC_OK; message: room bytes for a line about a failure, may be NULL. */
moec_status moec_trainer_open(moec_instance *m, const moec_train_options *o, moec_trainer **out, char *message, size_t room);
void moec_trainer_close(moec_trainer *t); /* NULL: nothing */
/* Forward and backward of one micro-batch; its gradient is added to the step's. `share`: the micro-batch's share in
 * the step's router losses, which are means over a micro-batch (1 / number of micro-batches). A batch that fails
 * (MOEC_E_RANGE, MOEC_E_INDEX) leaves the step as it was. */
moec_status moec_trainer_batch(moec_trainer *t, const moec_batch *b, double share);
/* Updates the adapter with the gradients added up since the last step, and prepares it. MOEC_E_NUMERIC: the loss or
 * the gradient is not finite; *r says which, adapter and state are as before, the gradient is dropped. */
moec_status moec_trainer_step(moec_trainer *t, moec_step_report *r);
/* The values of the program's tensor i as they are now; moves with no step. */
const void *moec_trainer_tensor(const moec_trainer *t, uint32_t i);
int64_t moec_trainer_steps(const moec_trainer *t); /* done so far, those before a resumed checkpoint included */

/* ---- sizes, in bytes, as in moec_rt.h; 0 for a program that does not train ---- */

/* Gradients of a step: touched once, or twice where steps have several micro-batches. */
uint64_t moec_train_gradient_bytes(const moec_program *p);
uint64_t moec_train_state_bytes(const moec_program *p, moec_optimizer o); /* the optimiser's */
/* All that moec_trainer_open maps: two sets of gradients, the state, outputs of `train` that nobody reads. */
uint64_t moec_trainer_bytes(const moec_program *p, moec_optimizer o);

#ifdef __cplusplus
}
#endif
#endif
