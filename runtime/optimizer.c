/* Adafactor, AdamW and SGD over all trained tensors of a program, in passes of tasks over spans.
 *
 * State and elementwise arithmetic are f32, as in PyTorch's float32 optimisers; sums and everything that is
 * one number a tensor or a step are double. A pass never reads what another span of the same pass writes. */
#include "train_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SPAN = 1 << 14, SLOTS = 2, LANES = 8 };

/* What a step's passes share. */
typedef struct Step {
    moec_optimizer_state *x;
    unsigned char *adapter;
    const unsigned char *gradient;
    unsigned char *sum; /* moec_optimizer_add: the set that is added to */
    float scale;        /* of the gradient: clipping */
    double rate;
    int64_t done;
    void (*pass)(const struct Step *step, moec_param *p, moec_span *s);
} Step;

typedef void Pass(const Step *step, moec_param *p, moec_span *s);

static float *set_at(const unsigned char *set, const moec_param *p, const moec_span *s) {
    return (float *)(void *)(uintptr_t)(set + p->offset) + s->begin;
}

static float *theta_at(const Step *step, const moec_param *p, const moec_span *s) {
    return (float *)(void *)(step->adapter + p->tensor->offset) + s->begin;
}

static float *slot_at(const Step *step, int slot, const moec_param *p, const moec_span *s) {
    return set_at(step->x->state + (uint64_t)slot * step->x->set_bytes, p, s);
}

/* Lanes keep additions independent of each other; their order is fixed. */
static double sum_squares(const float *a, int64_t n) {
    double lane[LANES] = {0}, total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (double)a[i + k] * (double)a[i + k];
    for (; i < n; i++)
        lane[0] += (double)a[i] * (double)a[i];
    for (int k = 0; k < LANES; k++)
        total += lane[k];
    return total;
}

static void run_span(void *arg, int64_t i, int worker) {
    (void)worker;
    const Step *step = arg;
    moec_span *s = &step->x->span[i];
    step->pass(step, &step->x->param[s->param], s);
}

static void run_pass(Step *step, moec_pool *pool, Pass *pass) {
    step->pass = pass;
    moec_parallel(pool, step->x->n_spans, run_span, step);
}

/* Sum `which` of one tensor's spans. */
static double param_sum(const moec_optimizer_state *x, uint32_t param, int which) {
    double total = 0;
    for (uint32_t i = x->param[param].span; i < x->n_spans && x->span[i].param == param; i++)
        total += x->span[i].sum[which];
    return total;
}

/* ---- Adafactor (arXiv 1804.04235, algorithm 4 without factoring) ----
 *
 * d = 1 - (t+1)^-0.8, t = step_offset + steps done      v = d v + (1-d)(g^2 + 1e-30)      u = g / sqrt(v)
 * theta -= rate * max(RMS(theta), 1e-3) * u / max(1, RMS(u)), RMS over the whole tensor */

static double adafactor_keep(const Step *step) {
    return pow((double)step->x->o.step_offset + (double)step->done + 1, -0.8);
}

static void adafactor_moment(const Step *step, moec_param *p, moec_span *s) {
    const float *g = set_at(step->gradient, p, s), scale = step->scale;
    float *v = slot_at(step, 0, p, s);
    double keep = adafactor_keep(step), lane[LANES] = {0}, total = 0;
    float fresh = (float)keep, old = (float)(1 - keep);
    int64_t n = s->end - s->begin;
    for (int64_t i = 0; i < n; i++) {
        float x = g[i] * scale;
        v[i] = old * v[i] + fresh * (x * x + 1e-30f);
        float u = x / sqrtf(v[i]);
        lane[i % LANES] += (double)u * (double)u;
    }
    for (int k = 0; k < LANES; k++)
        total += lane[k];
    s->sum[0] = total;
    s->sum[1] = sum_squares(theta_at(step, p, s), n);
}

static void adafactor_factors(Step *step) {
    for (uint32_t i = 0; i < step->x->n_params; i++) {
        moec_param *p = &step->x->param[i];
        double n = (double)p->n;
        double update = sqrt(param_sum(step->x, i, 0) / n), size = sqrt(param_sum(step->x, i, 1) / n);
        p->factor = step->rate * fmax(size, 1e-3) / fmax(1, update);
    }
}

static void adafactor_move(const Step *step, moec_param *p, moec_span *s) {
    const float *g = set_at(step->gradient, p, s), *v = slot_at(step, 0, p, s), scale = step->scale;
    float *theta = theta_at(step, p, s), factor = (float)p->factor;
    for (int64_t i = 0; i < s->end - s->begin; i++)
        theta[i] -= factor * (g[i] * scale / sqrtf(v[i]));
}

/* ---- AdamW (arXiv 1711.05101), arithmetic of torch.optim.AdamW ---- */

static void adamw_move(const Step *step, moec_param *p, moec_span *s) {
    const moec_train_options *o = &step->x->o;
    const float *g = set_at(step->gradient, p, s), scale = step->scale;
    float *theta = theta_at(step, p, s), *m = slot_at(step, 0, p, s), *v = slot_at(step, 1, p, s);
    double t = (double)step->done + 1;
    float fresh1 = (float)(1 - o->beta1), beta2 = (float)o->beta2, fresh2 = (float)(1 - o->beta2);
    float size = (float)(step->rate / (1 - pow(o->beta1, t)));
    float root = (float)sqrt(1 - pow(o->beta2, t)), epsilon = (float)o->epsilon;
    float decay = (float)(1 - step->rate * o->weight_decay);
    for (int64_t i = 0; i < s->end - s->begin; i++) {
        float x = g[i] * scale;
        m[i] += fresh1 * (x - m[i]);
        v[i] = beta2 * v[i] + fresh2 * x * x;
        theta[i] = theta[i] * decay - size * (m[i] / (sqrtf(v[i]) / root + epsilon));
    }
}

/* ---- SGD with momentum, the rule of torch.optim.SGD ---- */

static void sgd_move(const Step *step, moec_param *p, moec_span *s) {
    const moec_train_options *o = &step->x->o;
    const float *g = set_at(step->gradient, p, s), scale = step->scale;
    float *theta = theta_at(step, p, s), *velocity = slot_at(step, 0, p, s);
    float momentum = (float)o->momentum, decay = (float)o->weight_decay, rate = (float)step->rate;
    for (int64_t i = 0; i < s->end - s->begin; i++) {
        velocity[i] = momentum * velocity[i] + (g[i] * scale + decay * theta[i]);
        theta[i] -= rate * velocity[i];
    }
}

static const struct {
    int slots;
    const char *slot[SLOTS];
    Pass *first;
    void (*between)(Step *step);
    Pass *last;
} rules[MOEC_OPTIMIZER_COUNT] = {
    [MOEC_ADAFACTOR] = {1, {"v"}, adafactor_moment, adafactor_factors, adafactor_move},
    [MOEC_ADAMW] = {2, {"m", "v"}, NULL, NULL, adamw_move},
    [MOEC_SGD] = {1, {"velocity"}, NULL, NULL, sgd_move},
};

void moec_optimizer_update(moec_optimizer_state *x, moec_pool *pool, unsigned char *adapter,
                           const unsigned char *gradient, double scale, double rate, int64_t done) {
    Step step = {
        .x = x, .adapter = adapter, .gradient = gradient, .scale = (float)scale, .rate = rate, .done = done};
    if (rules[x->o.optimizer].first) {
        run_pass(&step, pool, rules[x->o.optimizer].first);
        rules[x->o.optimizer].between(&step);
    }
    run_pass(&step, pool, rules[x->o.optimizer].last);
}

/* ---- gradient sets ---- */

static void add_span(const Step *step, moec_param *p, moec_span *s) {
    const float *from = set_at(step->gradient, p, s);
    float *to = set_at(step->sum, p, s);
    for (int64_t i = 0; i < s->end - s->begin; i++)
        to[i] += from[i];
}

void moec_optimizer_add(moec_optimizer_state *x, moec_pool *pool, unsigned char *to,
                        const unsigned char *from) {
    Step step = {.x = x, .gradient = from, .sum = to};
    run_pass(&step, pool, add_span);
}

static void square_span(const Step *step, moec_param *p, moec_span *s) {
    s->sum[0] = sum_squares(set_at(step->gradient, p, s), s->end - s->begin);
}

double moec_optimizer_norm(moec_optimizer_state *x, moec_pool *pool, const unsigned char *gradient) {
    Step step = {.x = x, .gradient = gradient};
    double total = 0;
    run_pass(&step, pool, square_span);
    for (uint32_t i = 0; i < x->n_params; i++)
        total += param_sum(x, i, 0);
    return sqrt(total);
}

/* ---- memory ---- */

uint64_t moec_train_gradient_bytes(const moec_program *p) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; p && i < p->n_tensors; i++)
        if (p->tensor[i].gradient >= 0)
            bytes = moec_size_plus(bytes, moec_round_up(p->tensor[i].bytes));
    return bytes;
}

uint64_t moec_train_state_bytes(const moec_program *p, moec_optimizer o) {
    return (unsigned)o < MOEC_OPTIMIZER_COUNT ? moec_size_times((uint64_t)rules[o].slots, moec_train_gradient_bytes(p)) : 0;
}

uint64_t moec_optimizer_state_bytes(const moec_optimizer_state *x) {
    return (uint64_t)rules[x->o.optimizer].slots * x->set_bytes;
}

static moec_status count(const moec_program *p, moec_optimizer_state *x, moec_sink sink) {
    uint64_t spans = 0;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const moec_tensor *t = &p->tensor[i];
        char shown[MOEC_SHOW];
        if (t->gradient < 0)
            continue;
        if (t->dtype != MOEC_F32 || t->bytes % sizeof(float) || !t->bytes || t->bytes > p->adapter_bytes ||
            t->offset > p->adapter_bytes - t->bytes)
            return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                             "error: tensor '%s' cannot be trained: it is not f32",
                             moec_show_c(shown, t->name));
        spans += (t->bytes / sizeof(float) + SPAN - 1) / SPAN;
        x->n_params++;
    }
    x->n_spans = (uint32_t)spans;
    if (!x->n_params)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                         "error: the program has no tensor to train: compile it with an adapter and --train");
    return spans < UINT32_MAX ? MOEC_OK
                              : moec_fail(sink, MOEC_E_MEMORY, NULL, "error: too many trained tensors");
}

static void lay_out(const moec_program *p, moec_optimizer_state *x) {
    uint32_t k = 0, span = 0;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const moec_tensor *t = &p->tensor[i];
        if (t->gradient < 0)
            continue;
        moec_param *q = &x->param[k];
        *q = (moec_param){t, (int64_t)(t->bytes / sizeof(float)), x->set_bytes, span, 0};
        x->set_bytes += moec_round_up(t->bytes);
        for (int64_t at = 0; at < q->n; at += SPAN)
            x->span[span++] = (moec_span){k, at, at + SPAN < q->n ? at + SPAN : q->n, {0, 0}};
        k++;
    }
}

/* The state as tensors TENSOR.SLOT, each of its tensor's extents. */
static int name_state(moec_optimizer_state *x) {
    int slots = rules[x->o.optimizer].slots;
    size_t room = 0, used = 0;
    for (uint32_t i = 0; i < x->n_params; i++)
        for (int k = 0; k < slots; k++)
            room += strlen(x->param[i].tensor->name) + strlen(rules[x->o.optimizer].slot[k]) + 2;
    x->names = moec_mem_new(room, 1);
    x->state_tensor = moec_mem_new(x->n_params, (size_t)slots * sizeof *x->state_tensor);
    if (!x->names || !x->state_tensor)
        return 0;
    for (uint32_t i = 0; i < x->n_params; i++) {
        for (int k = 0; k < slots; k++) {
            moec_tensor *t = &x->state_tensor[x->n_state_tensors++];
            *t = *x->param[i].tensor;
            t->name = x->names + used;
            t->offset = (uint64_t)k * x->set_bytes + x->param[i].offset;
            used += (size_t)snprintf(x->names + used, room - used, "%s.%s", x->param[i].tensor->name,
                                     rules[x->o.optimizer].slot[k]) +
                    1;
        }
    }
    return 1;
}

moec_status moec_optimizer_open(const moec_program *p, const moec_train_options *o, moec_optimizer_state *x,
                                moec_sink sink) {
    *x = (moec_optimizer_state){.o = *o};
    moec_status s = count(p, x, sink);
    if (s)
        return s;
    x->param = moec_mem_new(x->n_params, sizeof *x->param);
    x->span = moec_mem_new(x->n_spans, sizeof *x->span);
    if (!x->param || !x->span)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    lay_out(p, x);
    x->state = moec_mem_reserve(moec_optimizer_state_bytes(x));
    if (!x->state || !name_state(x))
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: cannot reserve %llu bytes of optimiser state",
                         (unsigned long long)moec_optimizer_state_bytes(x));
    return MOEC_OK;
}

void moec_optimizer_close(moec_optimizer_state *x) {
    moec_mem_release(x->state, moec_optimizer_state_bytes(x));
    moec_mem_free(x->param);
    moec_mem_free(x->span);
    moec_mem_free(x->state_tensor);
    moec_mem_free(x->names);
}
