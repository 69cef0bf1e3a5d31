/* Encode and decode of a compiled T5 against the machine's limits, all measured in one run.
 *
 *     bench MODEL.so MODEL.weights PREFIX CONFIG.json [--threads N]
 *
 * The limits: a register-only loop of multiply-adds (FMA peak) and a read of memory far larger than the caches. Work is
 * counted from the model's configuration: multiply-adds of every matrix product, and for decode the bytes of every
 * weight a token has to read. Times are the best of several runs. */
#include "../../frontends/config.h"
#include "../../runtime/moec_rt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, LANES = 16, CHAINS = 12 };

typedef float Vec16 __attribute__((vector_size(64)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- limits ------------------------------------------------------------------------------------ */

typedef struct Worker {
    pthread_t thread;
    const float *data;
    size_t count;
    double seconds;
    float sink;
} Worker;

enum { FMA_ROUNDS = 20000000 };

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) static float fma_rounds(float start) {
    Vec16 x[CHAINS], a = {0}, b = {0};
    for (int i = 0; i < LANES; i++) a[i] = 0.999f, b[i] = start;
    for (int i = 0; i < CHAINS; i++) x[i] = b + (float)i;
    for (int r = 0; r < FMA_ROUNDS; r++)
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;
    float sum = 0;
    for (int i = 0; i < CHAINS; i++)
        for (int l = 0; l < LANES; l++) sum += x[i][l];
    return sum;
}

static void *fma_worker(void *arg) {
    Worker *w = arg;
    double t = now();
    w->sink = fma_rounds((float)w->count * 1e-9f);
    w->seconds = now() - t;
    return NULL;
}

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) static float read_all(const float *p, size_t n) {
    Vec16 s[8];
    memset(s, 0, sizeof s);
    for (size_t i = 0; i + 8 * LANES <= n; i += 8 * LANES)
        for (int k = 0; k < 8; k++) s[k] += *(const Vec16 *)(const void *)(p + i + (size_t)k * LANES);
    float sum = 0;
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < LANES; l++) sum += s[k][l];
    return sum;
}

static void *read_worker(void *arg) {
    Worker *w = arg;
    double t = now();
    w->sink = read_all(w->data, w->count);
    w->seconds = now() - t;
    return NULL;
}

static double slowest(Worker *w, int n, void *(*run)(void *)) {
    double s = 0;
    for (int i = 0; i < n; i++)
        if (pthread_create(&w[i].thread, NULL, run, &w[i]) != 0) exit(1);
    for (int i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        if (w[i].seconds > s) s = w[i].seconds;
    }
    return s;
}

static double fma_peak(int threads) {
    Worker w[MAX_THREADS] = {0};
    double best = 1e9;
    for (int r = 0; r < 3; r++) {
        double s = slowest(w, threads, fma_worker);
        if (s < best) best = s;
    }
    return 2.0 * FMA_ROUNDS * CHAINS * LANES * threads / best;
}

static double read_bandwidth(int threads) {
    Worker w[MAX_THREADS] = {0};
    size_t count = (size_t)1 << 28; /* 1 GiB of floats in all */
    float *data = aligned_alloc(64, count * sizeof *data);
    if (!data) exit(1);
    memset(data, 0, count * sizeof *data);
    for (int i = 0; i < threads; i++) {
        w[i].count = count / (size_t)threads;
        w[i].data = data + (size_t)i * w[i].count;
    }
    double best = 1e9;
    for (int r = 0; r < 3; r++) {
        double s = slowest(w, threads, read_worker);
        if (s < best) best = s;
    }
    free(data);
    return (double)count * sizeof(float) / best;
}

/* ---- work ------------------------------------------------------------------------------------------ */

static double layer_weights(const T5Config *c, bool cross) {
    double inner = (double)(c->heads * c->d_kv), d = (double)c->d_model;
    return 4 * d * inner * (cross ? 2 : 1) + (c->gated ? 3 : 2) * d * (double)c->d_ff;
}

static double encode_flops(const T5Config *c, double batch, double length) {
    double attention = 4 * length * length * (double)(c->heads * c->d_kv);
    return batch * (double)c->enc_layers * (2 * length * layer_weights(c, false) + attention);
}

/* Weights a decoded token reads: all of the decoder but cross keys and values, and the head. */
static double decode_bytes(const T5Config *c) {
    double inner = (double)(c->heads * c->d_kv), d = (double)c->d_model;
    double layers = (double)c->dec_layers * (layer_weights(c, true) - 2 * d * inner);
    return 4 * (layers + d * (double)c->vocab);
}

/* ---- runs ------------------------------------------------------------------------------------------- */

typedef struct Model {
    const moec_program *program;
    moec_instance *instance;
    moec_status (*run)(moec_instance *, uint32_t, const int64_t *, void *const *);
    moec_status (*generate)(moec_instance *, int64_t, int64_t, const int64_t *, const int64_t *, const float *,
                            const moec_generate_options *, int64_t *, int64_t *,
                            int (*)(void *, int64_t, const int64_t *), void *);
} Model;

static void *find(void *library, const char *name) {
    void *p = dlsym(library, name);
    if (p) return p;
    fprintf(stderr, "bench: error: the library lacks %s\n", name);
    exit(1);
}

static double time_encode(const Model *m, int64_t batch, int64_t length) {
    const moec_seq2seq *s = m->program->seq2seq;
    int64_t *sym = calloc(m->program->n_symbols, sizeof *sym), n = batch * length;
    for (uint32_t i = 0; i < m->program->n_symbols; i++) sym[i] = m->program->symbol[i].lo;
    sym[s->batch] = batch;
    sym[s->source] = length;
    int64_t *ids = malloc((size_t)n * sizeof *ids), *mask = malloc((size_t)n * sizeof *mask);
    float *hidden = malloc((size_t)(n * s->width) * sizeof *hidden);
    for (int64_t i = 0; i < n; i++) ids[i] = 3 + (i * 7919) % (s->vocab - 3), mask[i] = 1;
    void *arg[3] = {ids, mask, hidden};
    double best = 1e9;
    for (int r = 0; r < 5; r++) {
        double t = now();
        if (m->run(m->instance, (uint32_t)s->encode, sym, arg) != MOEC_OK) exit(1);
        t = now() - t;
        if (t < best) best = t;
    }
    free(ids), free(mask), free(hidden), free(sym);
    return best;
}

typedef struct Steps {
    double first, last;
    int64_t n;
} Steps;

static int each_step(void *ctx, int64_t step, const int64_t *token) {
    Steps *s = ctx;
    (void)token;
    if (step == 0) s->first = now();
    s->last = now();
    s->n = step;
    return 0;
}

/* Seconds a decoded position takes; no sequence ends early. */
static double time_decode(const Model *m, int64_t batch, int64_t length, int64_t steps) {
    const moec_seq2seq *s = m->program->seq2seq;
    int64_t n = batch * length, made;
    int64_t *ids = malloc((size_t)n * sizeof *ids), *mask = malloc((size_t)n * sizeof *mask);
    int64_t *tokens = malloc((size_t)(batch * steps) * sizeof *tokens);
    for (int64_t i = 0; i < n; i++) ids[i] = 3 + (i * 7919) % (s->vocab - 3), mask[i] = 1;
    moec_generate_options o = {.max_length = steps, .eos = s->vocab};
    double best = 1e9;
    for (int r = 0; r < 3; r++) {
        Steps t = {0};
        if (m->generate(m->instance, batch, length, ids, mask, NULL, &o, tokens, &made, each_step, &t) != MOEC_OK) exit(1);
        double each = t.n ? (t.last - t.first) / (double)t.n : 0;
        if (each < best) best = each;
    }
    free(ids), free(mask), free(tokens);
    return best;
}

static void row(const char *work, double seconds, double amount, double limit, const char *unit) {
    printf("%-34s %9.2f ms %9.1f %-8s %9.1f %6.1f %%\n", work, seconds * 1e3, amount / seconds / 1e9, unit, limit / 1e9,
           100 * amount / seconds / limit);
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: bench MODEL.so MODEL.weights PREFIX CONFIG.json [--threads N]\n");
        return 2;
    }
    int threads = argc > 6 && strcmp(argv[5], "--threads") == 0 ? atoi(argv[6]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < 1 || threads > MAX_THREADS) threads = 1;
    Arena *a = arena_new();
    Diag *d = diag_new();
    T5Config c;
    if (!config_load(a, argv[4], &c, d)) {
        diag_flush(d);
        return 1;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) {
        fprintf(stderr, "bench: error: %s\n", dlerror());
        return 1;
    }
    const moec_program *(*program)(void);
    moec_status (*open)(const moec_program *, const moec_options *, moec_instance **);
    Model m = {0};
    *(void **)&program = find(library, arena_printf(a, "%s_program", argv[3]));
    *(void **)&open = find(library, "moec_open");
    *(void **)&m.run = find(library, "moec_run");
    *(void **)&m.generate = find(library, "moec_generate");
    m.program = program();
    char message[256] = "";
    moec_options o = {.weights = argv[2], .threads = threads, .message = message, .message_room = sizeof message};
    if (open(m.program, &o, &m.instance) != MOEC_OK) {
        fprintf(stderr, "bench: %s\n", message);
        return 1;
    }
    double peak = fma_peak(threads), bandwidth = read_bandwidth(threads);
    printf("%d threads; FMA peak %.1f GFLOP/s, memory read %.1f GB/s\n\n", threads, peak / 1e9, bandwidth / 1e9);
    printf("%-34s %12s %9s %-8s %9s %8s\n", "work", "time", "rate", "", "limit", "ratio");
    row("encode batch 1 x 512", time_encode(&m, 1, 512), encode_flops(&c, 1, 512), peak, "GFLOP/s");
    row("encode batch 8 x 128", time_encode(&m, 8, 128), encode_flops(&c, 8, 128), peak, "GFLOP/s");
    row("decode batch 1, one token", time_decode(&m, 1, 32, 48), decode_bytes(&c), bandwidth, "GB/s");
    row("decode batch 8, one position", time_decode(&m, 8, 32, 48), decode_bytes(&c), bandwidth, "GB/s");
    diag_free(d);
    arena_free(a);
    return 0;
}
