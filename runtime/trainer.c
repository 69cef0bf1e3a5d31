/* Training: runs the program's function `train`, adds up gradients, and lets the optimiser change the
 * adapter.
 *
 * Arguments of `train` are bound by name, gradients by moec_tensor.gradient. All buffers have their sizes
 * from open on: the symbols only set how much of a batch is read. The second gradient set takes memory only
 * in runs whose steps have several micro-batches. */
#include "train_impl.h"

#include <math.h>
#include <string.h>

typedef enum Role {
    ROLE_SCALAR, /* in the trainer: at `place` */
    ROLE_IDS,    /* in the batch */
    ROLE_ENCODER_SEGMENTS,
    ROLE_DECODER_IDS,
    ROLE_DECODER_SEGMENTS,
    ROLE_LABELS,
    ROLE_WEIGHT,
    ROLE_SENTENCE,
    ROLE_COUNT
} Role;

/* Extent of axis 1; axis 0 is the rows. */
typedef enum Axis { AXIS_NONE, AXIS_SOURCE, AXIS_TARGET, AXIS_SENTENCE } Axis;

#define AT(field) offsetof(struct moec_trainer, field)
static const struct {
    const char *name;
    Role role;
    moec_dtype dtype;
    Axis axis;
    size_t place;
} inputs[] = {
    {"input_ids", ROLE_IDS, MOEC_I64, AXIS_SOURCE, 0},
    {"encoder_segments", ROLE_ENCODER_SEGMENTS, MOEC_I64, AXIS_SOURCE, 0},
    {"decoder_input_ids", ROLE_DECODER_IDS, MOEC_I64, AXIS_TARGET, 0},
    {"decoder_segments", ROLE_DECODER_SEGMENTS, MOEC_I64, AXIS_TARGET, 0},
    {"labels", ROLE_LABELS, MOEC_I64, AXIS_TARGET, 0},
    {"weight", ROLE_WEIGHT, MOEC_F32, AXIS_TARGET, 0},
    {"sentence", ROLE_SENTENCE, MOEC_F32, AXIS_SENTENCE, 0},
    {"smoothing", ROLE_SCALAR, MOEC_F32, AXIS_NONE, AT(smoothing)},
    {"z_loss", ROLE_SCALAR, MOEC_F32, AXIS_NONE, AT(z_loss)},
    {"dropout", ROLE_SCALAR, MOEC_F32, AXIS_NONE, AT(dropout)},
    {"router_share", ROLE_SCALAR, MOEC_F32, AXIS_NONE, AT(share)},
    {"seed", ROLE_SCALAR, MOEC_I64, AXIS_NONE, AT(seed)},
};
enum { INPUTS = sizeof inputs / sizeof *inputs };

static const char *const losses[MOEC_LOSSES] = {"loss", "token_loss", "balance_loss", "router_z_loss"};

static moec_status no_memory(moec_sink sink) {
    return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
}

static moec_status bind_inputs(moec_trainer *t, moec_sink sink) {
    const moec_function *f = t->function;
    char shown[MOEC_SHOW];
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const moec_value *v = &f->value[i];
        int k = 0;
        while (k < INPUTS && strcmp(inputs[k].name, v->name))
            k++;
        if (k == INPUTS || v->dtype != inputs[k].dtype || v->rank != (inputs[k].axis == AXIS_NONE ? 0 : 2))
            return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                             "error: function 'train' has an input '%s' that training does not know",
                             moec_show_c(shown, v->name));
        t->role[i] = (uint8_t)inputs[k].role;
        if (inputs[k].role == ROLE_SCALAR)
            t->arg[i] = (unsigned char *)t + inputs[k].place;
    }
    return MOEC_OK;
}

static moec_status bind_losses(moec_trainer *t, moec_sink sink) {
    for (int k = 0; k < MOEC_LOSSES; k++) {
        int i = moec_find_output(t->function, losses[k]);
        if (i < 0 && k > 0)
            continue;
        if (i < 0 || t->function->value[i].dtype != MOEC_F32 || t->function->value[i].rank != 0)
            return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: function 'train' has no scalar '%s'",
                             losses[k]);
        t->arg[i] = &t->loss[k];
    }
    return MOEC_OK;
}

/* The output that is the gradient of a tensor; NULL unless it has the tensor's extents. */
static const moec_value *gradient_of(const moec_trainer *t, const moec_tensor *x, const int64_t *sym) {
    if ((uint32_t)x->gradient >= t->function->n_outputs)
        return NULL;
    uint32_t i = t->function->n_inputs + (uint32_t)x->gradient;
    const moec_value *v = &t->function->value[i];
    int64_t e[MOEC_RANK];
    if (v->dtype != MOEC_F32 || v->rank != x->rank)
        return NULL;
    t->function->shape(sym, i, e);
    return memcmp(e, x->extent, x->rank * sizeof *e) ? NULL : v;
}

/* Points the gradients' arguments at a set; the first time also checks that no two share an output. */
static moec_status bind_gradients(moec_trainer *t, const int64_t *sym, moec_sink sink) {
    char shown[MOEC_SHOW];
    for (uint32_t k = 0; k < t->optimizer.n_params; k++) {
        const moec_param *p = &t->optimizer.param[k];
        const moec_value *v = gradient_of(t, p->tensor, sym);
        if (!v || t->arg[v - t->function->value])
            return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                             "error: function 'train' has no gradient of tensor '%s'",
                             moec_show_c(shown, p->tensor->name));
        t->arg[v - t->function->value] = t->gradient + p->offset;
    }
    return MOEC_OK;
}

static void aim_gradients(moec_trainer *t, unsigned char *set) {
    for (uint32_t k = 0; k < t->optimizer.n_params; k++) {
        const moec_param *p = &t->optimizer.param[k];
        t->arg[t->function->n_inputs + (uint32_t)p->tensor->gradient] = set + p->offset;
    }
}

static int is_read(const moec_program *p, const moec_function *f, uint32_t output) {
    for (int k = 0; k < MOEC_LOSSES; k++)
        if (!strcmp(f->value[output].name, losses[k]))
            return 1;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        if (p->tensor[i].gradient == (int)(output - f->n_inputs))
            return 1;
    return 0;
}

/* Counts buffers for the largest extents of the outputs that nobody reads; with arg, also gives each its
 * place. */
static int lay_out_rest(const moec_program *p, const moec_function *f, const int64_t *hi, void **arg,
                        unsigned char *own, uint64_t *at) {
    uint64_t bytes;
    *at = 0;
    for (uint32_t i = f->n_inputs; i < f->n_inputs + f->n_outputs; i++) {
        if (is_read(p, f, i))
            continue;
        if (!moec_value_bytes(f, i, hi, &bytes) || bytes > ((uint64_t)1 << 46) - *at)
            return 0;
        if (arg)
            arg[i] = own + *at;
        *at += moec_round_up(bytes);
    }
    return 1;
}

static moec_status bind_rest(moec_trainer *t, const int64_t *hi, moec_sink sink) {
    const moec_function *f = t->function;
    for (uint32_t i = f->n_inputs; i < f->n_inputs + f->n_outputs; i++)
        if (f->value[i].alias >= 0)
            return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: function 'train' changes its inputs");
    if (!lay_out_rest(t->m->program, f, hi, NULL, NULL, &t->own_bytes) ||
        (t->own_bytes && !(t->own = moec_mem_reserve(t->own_bytes))))
        return no_memory(sink);
    lay_out_rest(t->m->program, f, hi, t->arg, t->own, &t->own_bytes);
    return MOEC_OK;
}

uint64_t moec_trainer_bytes(const moec_program *p, moec_optimizer o) {
    int index = p && p->seq2seq ? p->seq2seq->train : -1;
    int64_t hi[MOEC_SYMBOLS];
    uint64_t own;
    if (index < 0 || (uint32_t)index >= p->n_functions)
        return 0;
    moec_symbols_high(p, hi);
    if (!lay_out_rest(p, &p->function[index], hi, NULL, NULL, &own))
        return UINT64_MAX;
    uint64_t gradients = moec_size_times(2, moec_train_gradient_bytes(p));
    return moec_size_plus(moec_size_plus(gradients, moec_train_state_bytes(p, o)), own);
}

static moec_status open_trainer(moec_trainer *t, const moec_train_options *o, moec_sink sink) {
    const moec_program *p = t->m->program;
    int index = p->seq2seq ? p->seq2seq->train : -1;
    moec_status s = moec_options_check(o, sink);
    if (s)
        return s;
    if (index < 0 || (uint32_t)index >= p->n_functions)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                         "error: the program was compiled without training: compile it again with --train");
    t->index = (uint32_t)index;
    t->function = &p->function[index];
    uint32_t n = t->function->n_inputs + t->function->n_outputs;
    t->arg = moec_mem_new(n, sizeof *t->arg);
    t->role = moec_mem_new(n, 1);
    if (!t->arg || !t->role)
        return no_memory(sink);
    t->smoothing = (float)o->label_smoothing;
    t->z_loss = (float)o->z_loss;
    t->dropout = (float)o->dropout;
    if ((s = moec_optimizer_open(p, o, &t->optimizer, sink)))
        return s;
    if (!(t->gradient = moec_mem_reserve(2 * t->optimizer.set_bytes)))
        return no_memory(sink);
    int64_t hi[MOEC_SYMBOLS];
    moec_symbols_high(p, hi);
    if ((s = bind_inputs(t, sink)) || (s = bind_losses(t, sink)) || (s = bind_gradients(t, hi, sink)))
        return s;
    return bind_rest(t, hi, sink);
}

moec_status moec_trainer_open(moec_instance *m, const moec_train_options *o, moec_trainer **out,
                              char *message, size_t room) {
    moec_sink sink = {message, room};
    if (message && room)
        message[0] = 0;
    if (!m || !o || !out)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    *out = NULL;
    moec_trainer *t = moec_mem_new(1, sizeof *t);
    if (!t)
        return no_memory(sink);
    t->m = m;
    moec_status s = open_trainer(t, o, sink);
    if (s)
        moec_trainer_close(t);
    else
        *out = t;
    return s;
}

void moec_trainer_close(moec_trainer *t) {
    if (!t)
        return;
    moec_mem_release(t->gradient, 2 * t->optimizer.set_bytes);
    moec_mem_release(t->own, t->own_bytes);
    moec_optimizer_close(&t->optimizer);
    moec_mem_free(t->arg);
    moec_mem_free(t->role);
    moec_mem_free(t);
}

const void *moec_trainer_tensor(const moec_trainer *t, uint32_t i) {
    return t && i < t->m->program->n_tensors ? t->m->slot[0].adapter + t->m->program->tensor[i].offset : NULL;
}

int64_t moec_trainer_steps(const moec_trainer *t) {
    return t ? t->steps : 0;
}

/* ---- a micro-batch ---- */

static moec_status set_symbols(const moec_program *p, const moec_batch *b, int64_t *sym) {
    moec_symbols_of(p, b->rows, b->source, b->target, sym);
    for (uint32_t i = 0; i < p->n_symbols; i++)
        if (sym[i] < p->symbol[i].lo || sym[i] > p->symbol[i].hi)
            return MOEC_E_RANGE;
    return MOEC_OK;
}

static moec_status bind_batch(moec_trainer *t, const moec_batch *b, const int64_t *sym) {
    const int64_t width = t->m->program->seq2seq->sentence_width;
    const void *const given[ROLE_COUNT] = {
        [ROLE_IDS] = b->input_ids,
        [ROLE_ENCODER_SEGMENTS] = b->encoder_segments,
        [ROLE_DECODER_IDS] = b->decoder_input_ids,
        [ROLE_DECODER_SEGMENTS] = b->decoder_segments,
        [ROLE_LABELS] = b->labels,
        [ROLE_WEIGHT] = b->weight,
        [ROLE_SENTENCE] = b->sentence,
    };
    const int64_t columns[ROLE_COUNT] = {
        [ROLE_IDS] = b->source,         [ROLE_ENCODER_SEGMENTS] = b->source,
        [ROLE_DECODER_IDS] = b->target, [ROLE_DECODER_SEGMENTS] = b->target,
        [ROLE_LABELS] = b->target,      [ROLE_WEIGHT] = b->target,
        [ROLE_SENTENCE] = width,
    };
    for (uint32_t i = 0; i < t->function->n_inputs; i++) {
        int64_t e[MOEC_RANK];
        Role r = (Role)t->role[i];
        if (r == ROLE_SCALAR)
            continue;
        if (!given[r])
            return MOEC_E_ARGUMENT;
        t->function->shape(sym, i, e);
        if (e[0] != b->rows || e[1] != columns[r])
            return MOEC_E_RANGE; /* constant extents */
        t->arg[i] = (void *)(uintptr_t)given[r];
    }
    return MOEC_OK;
}

/* splitmix64's finaliser, once for each of the three numbers. */
static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) + 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9u;
    h = (h ^ h >> 27) * 0x94D049BB133111EBu;
    return h ^ h >> 31;
}

moec_status moec_trainer_batch(moec_trainer *t, const moec_batch *b, double share) {
    if (!t || !b)
        return MOEC_E_ARGUMENT;
    int64_t sym[MOEC_SYMBOLS];
    moec_status s = set_symbols(t->m->program, b, sym);
    if (s || (s = bind_batch(t, b, sym)))
        return s;
    uint64_t seed = mix(mix(mix(0, t->optimizer.o.seed), (uint64_t)t->steps), (uint64_t)t->batches);
    memcpy(&t->seed, &seed, sizeof seed);
    t->share = (float)share;
    memset(t->loss, 0, sizeof t->loss); /* those the program does not have */
    unsigned char *set = t->gradient + (t->batches ? t->optimizer.set_bytes : 0);
    aim_gradients(t, set);
    if ((s = moec_run(t->m, t->index, sym, t->arg)))
        return s;
    if (t->batches)
        moec_optimizer_add(&t->optimizer, t->m->pool, t->gradient, set);
    else
        memset(t->sum, 0, sizeof t->sum);
    for (int k = 0; k < MOEC_LOSSES; k++)
        t->sum[k] +=
            (double)t->loss[k] * (k < 2 ? 1 : share); /* router losses are means over a micro-batch */
    t->batches++;
    return MOEC_OK;
}

/* ---- a step ---- */

/* A larger gradient's squares would leave f32, where the optimisers keep them. */
#define MOST 1e19

moec_status moec_trainer_step(moec_trainer *t, moec_step_report *r) {
    if (!t || !r || !t->batches)
        return MOEC_E_ARGUMENT;
    const moec_train_options *o = &t->optimizer.o;
    double norm = moec_optimizer_norm(&t->optimizer, t->m->pool, t->gradient), scale = 1;
    *r = (moec_step_report){.loss = t->sum[0],
                            .token_loss = t->sum[1],
                            .balance_loss = t->sum[2],
                            .router_z_loss = t->sum[3],
                            .gradient_norm = norm,
                            .learning_rate = moec_schedule_rate(o, t->steps)};
    t->batches = 0;
    if (o->clip_norm > 0 && o->clip_norm < norm + 1e-6)
        scale = o->clip_norm / (norm + 1e-6); /* as torch.nn.utils.clip_grad_norm_ */
    if (!isfinite(r->loss) || !isfinite(norm) || norm * scale > MOST)
        return MOEC_E_NUMERIC;
    moec_optimizer_update(&t->optimizer, t->m->pool, t->m->slot[0].adapter, t->gradient, scale,
                          r->learning_rate, t->steps);
    t->steps++;
    return moec_prepare(t->m, 0);
}
