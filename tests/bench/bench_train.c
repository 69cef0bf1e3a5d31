/* A training step of a compiled T5 against the machine's FMA peak, all measured in one run.
 *
 *     bench_train MODEL.weights PREFIX CONFIG.json THREADS NAME=MODEL.so
 *
 * The model is compiled with --train. Work is what the base model's products need, counted from its
 * configuration: in the forward pass every product of a token with a weight, scores and values of attention;
 * in the backward pass the adjoint of every product's left side but those at the bottom of both stacks, and
 * four products for the two of attention. Gradients of frozen weights do not exist; the adapter's own
 * products and everything computed again are not counted, so that the ratio is what training pays for them as
 * well. A pass's share of the time is read from function `train` itself: its forward part ends when the loss
 * stands in its place. Times are the best of several runs.
 *
 * Memory is the most that was resident, beside what the program says it needs for these extents. */
#include "../../runtime/moec_train.h"
#include "bench.h"

#include <math.h>
#include <sys/resource.h>

enum { ROWS = 8, SOURCE = 256, TARGET = 64, STEPS = 3, MIB = 1 << 20 };

/* ---- work ------------------------------------------------------------------------------------------ */

typedef struct Work {
    double forward, backward;
} Work;

static Work work(const T5Config *c) {
    double d = (double)c->d_model, inner = (double)(c->heads * c->d_kv), s = SOURCE, t = TARGET;
    double encoder = 2 * s * layer_weights(c, false), cross = 2 * s * 2 * d * inner;
    double decoder = 2 * t * (layer_weights(c, true) - 2 * d * inner);
    double layers = (double)c->enc_layers * encoder + (double)c->dec_layers * (decoder + cross);
    double attention = 4 * inner * ((double)c->enc_layers * s * s + (double)c->dec_layers * (t * t + t * s));
    double logits = 2 * t * d * (double)c->vocab, bottom = 2 * (s + t) * 3 * d * inner;
    return (Work){ROWS * (layers + attention + logits), ROWS * (layers - bottom + 2 * attention + logits)};
}

/* ---- runs ------------------------------------------------------------------------------------------- */

typedef struct Train {
    const Bench *b;
    moec_status (*run)(moec_instance *, uint32_t, const int64_t *, void *const *);
    moec_status (*open)(moec_instance *, const moec_train_options *, moec_trainer **, char *, size_t);
    moec_status (*batch)(moec_trainer *, const moec_batch *, double);
    moec_status (*step)(moec_trainer *, moec_step_report *);
    void (*defaults)(moec_train_options *);
    uint64_t (*arena_bytes)(const moec_program *, const int64_t *const *);
    uint64_t (*gradient_bytes)(const moec_program *);
    uint64_t (*state_bytes)(const moec_program *, moec_optimizer);
    int64_t *sym;
    moec_batch data;
} Train;

static void *room(size_t bytes) {
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p)
        exit(1);
    return p;
}

static void check(moec_status s) {
    if (s == MOEC_OK)
        return;
    fprintf(stderr, "bench: error: training failed (%d)\n", (int)s);
    exit(1);
}

static int64_t *numbers(int64_t count, int64_t first, int64_t step, int64_t below) {
    int64_t *v = room((size_t)count * sizeof *v);
    for (int64_t i = 0; i < count; i++)
        v[i] = first + (i * step) % below;
    return v;
}

static void make_batch(Train *t) {
    const moec_seq2seq *s = t->b->program->seq2seq;
    int64_t ns = ROWS * SOURCE, nt = ROWS * TARGET, range = s->vocab - 3;
    float *weight = room((size_t)nt * sizeof *weight);
    for (int64_t i = 0; i < nt; i++)
        weight[i] = 1.0f / (float)nt;
    t->data = (moec_batch){.rows = ROWS,
                           .source = SOURCE,
                           .target = TARGET,
                           .weight = weight,
                           .input_ids = numbers(ns, 3, 7919, range),
                           .encoder_segments = numbers(ns, 1, 0, 1),
                           .decoder_input_ids = numbers(nt, 3, 104729, range),
                           .decoder_segments = numbers(nt, 1, 0, 1),
                           .labels = numbers(nt, 3, 1299709, range)};
    t->sym = room((t->b->program->n_symbols + 1) * sizeof *t->sym);
    for (uint32_t i = 0; i < t->b->program->n_symbols; i++)
        t->sym[i] = t->b->program->symbol[i].lo;
    t->sym[s->batch] = ROWS;
    t->sym[s->source] = SOURCE;
    t->sym[s->target] = TARGET;
}

/* Of one run, and the least of several. */
typedef struct Spent {
    double wall, cpu;
} Spent;

static const Spent endless = {1e9, 1e9};

static Spent spent(void) {
    return (Spent){now(), seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

static void keep_least(Spent *best, Spent from, Spent to) {
    if (to.wall - from.wall < best->wall)
        best->wall = to.wall - from.wall;
    if (to.cpu - from.cpu < best->cpu)
        best->cpu = to.cpu - from.cpu;
}

/* Forward, backward and the optimiser's update. */
static Spent time_steps(const Train *t) {
    moec_train_options o;
    moec_trainer *trainer;
    moec_step_report r;
    Spent best = endless;
    t->defaults(&o);
    check(t->open(t->b->instance, &o, &trainer, NULL, 0));
    for (int i = 0; i < STEPS; i++) {
        Spent start = spent();
        check(t->batch(trainer, &t->data, 1));
        check(t->step(trainer, &r));
        keep_least(&best, start, spent());
    }
    return best;
}

/* The other arguments of `train`: noise of the paper's strength, buffers for gradients. */
static void *argument(const Train *t, const moec_function *f, uint32_t i) {
    static float dropout = 0.1f, z_loss = 1e-4f, share = 1, zero;
    static int64_t seed = 17;
    const struct {
        const char *name;
        const void *p;
    } known[] = {{"input_ids", t->data.input_ids},
                 {"encoder_segments", t->data.encoder_segments},
                 {"decoder_input_ids", t->data.decoder_input_ids},
                 {"decoder_segments", t->data.decoder_segments},
                 {"labels", t->data.labels},
                 {"weight", t->data.weight},
                 {"dropout", &dropout},
                 {"z_loss", &z_loss},
                 {"router_share", &share},
                 {"smoothing", &zero},
                 {"seed", &seed}};
    for (size_t k = 0; i < f->n_inputs && k < sizeof known / sizeof *known; k++)
        if (strcmp(known[k].name, f->value[i].name) == 0)
            return (void *)(uintptr_t)known[k].p;
    int64_t e[16];
    size_t count = 1;
    f->shape(t->sym, i, e);
    for (int a = 0; a < f->value[i].rank; a++)
        count *= (size_t)e[a];
    return room(count * sizeof(float));
}

typedef struct Watch {
    pthread_t thread;
    float *loss;
    int stop;
    Spent seen;
} Watch;

static void *watch_loss(void *arg) {
    Watch *w = arg;
    struct timespec pause = {0, 1000000};
    while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
        float loss;
        __atomic_load(w->loss, &loss, __ATOMIC_RELAXED);
        if (!isnan(loss)) {
            w->seen = spent();
            break;
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* Up to the loss, and behind it. */
static void time_passes(const Train *t, Spent *forward, Spent *backward) {
    uint32_t index = (uint32_t)t->b->program->seq2seq->train;
    const moec_function *f = &t->b->program->function[index];
    uint32_t n = f->n_inputs + f->n_outputs, loss = 0;
    void **arg = room(n * sizeof *arg);
    for (uint32_t i = 0; i < n; i++) {
        arg[i] = argument(t, f, i);
        if (strcmp(f->value[i].name, "loss") == 0)
            loss = i;
    }
    *forward = *backward = endless;
    for (int r = 0; r < STEPS; r++) {
        Watch w = {.loss = arg[loss]};
        *w.loss = NAN;
        if (pthread_create(&w.thread, NULL, watch_loss, &w) != 0)
            exit(1);
        Spent start = spent();
        check(t->run(t->b->instance, index, t->sym, arg));
        Spent end = spent();
        __atomic_store_n(&w.stop, 1, __ATOMIC_RELEASE);
        pthread_join(w.thread, NULL);
        if (w.seen.wall == 0)
            w.seen = end;
        keep_least(forward, start, w.seen);
        keep_least(backward, w.seen, end);
    }
}

/* ---- memory ------------------------------------------------------------------------------------------- */

/* KiB */
static long most_resident(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

static void print_memory(const Train *t, long resident) {
    const moec_program *p = t->b->program;
    const int64_t **called = room(p->n_functions * sizeof *called);
    called[p->seq2seq->train] = t->sym;
    double arena = (double)t->arena_bytes(p, called);
    free(called);
    double fixed = (double)(p->weights_bytes + p->adapter_bytes + p->derived_bytes);
    double training = (double)(t->gradient_bytes(p) + t->state_bytes(p, MOEC_ADAFACTOR));
    double scratch = (double)p->scratch_bytes * t->b->threads;
    printf("\nmost resident %.0f MiB; planned: weights and adapter %.0f, gradients and state %.0f, "
           "activations %.0f, scratch %.0f: "
           "%.0f MiB\n",
           (double)resident / 1024, fixed / MIB, training / MIB, arena / MIB, scratch / MIB,
           (fixed + training + arena + scratch) / MIB);
}

/* The second ratio is that of the processors' time: it leaves out waiting, for other programs too. */
static void print_pass(const char *name, Spent s, double flops, double peak, int threads) {
    printf("%-34s %9.2f ms %9.2f ms %9.1f %-8s %9.1f %6.1f %% %6.1f %%\n", name, s.wall * 1e3, s.cpu * 1e3,
           flops / s.wall / 1e9, "GFLOP/s", peak / 1e9, 100 * flops / s.wall / peak,
           100 * flops / s.cpu / (peak / threads));
}

int main(int argc, char **argv) {
    Bench b;
    bench_open(argc, argv, &b, 1);
    if (!b.program->seq2seq || b.program->seq2seq->train < 0) {
        fprintf(stderr, "bench: error: the model was compiled without --train\n");
        return 1;
    }
    Train t = {.b = &b};
    *(void **)&t.run = find(b.library, "moec_run");
    *(void **)&t.open = find(b.library, "moec_trainer_open");
    *(void **)&t.batch = find(b.library, "moec_trainer_batch");
    *(void **)&t.step = find(b.library, "moec_trainer_step");
    *(void **)&t.defaults = find(b.library, "moec_train_defaults");
    *(void **)&t.arena_bytes = find(b.library, "moec_arena_bytes");
    *(void **)&t.gradient_bytes = find(b.library, "moec_train_gradient_bytes");
    *(void **)&t.state_bytes = find(b.library, "moec_train_state_bytes");
    make_batch(&t);
    double peak = fma_peak(b.threads);
    Spent step = time_steps(&t), forward, backward;
    long resident = most_resident();
    time_passes(&t, &forward, &backward);
    Work w = work(&b.config);
    printf("%s: %d threads; FMA peak %.1f GFLOP/s\n\n", b.name, b.threads, peak / 1e9);
    printf("%-34s %12s %12s %9s %-8s %9s %8s %8s\n", "train batch 8, 256 to 64 tokens", "time", "CPU", "rate",
           "", "limit", "ratio", "of CPU");
    print_pass("step", step, w.forward + w.backward, peak, b.threads);
    print_pass("forward", forward, w.forward, peak, b.threads);
    print_pass("backward", backward, w.backward, peak, b.threads);
    print_memory(&t, resident);
    arena_free(b.arena);
    return 0;
}
