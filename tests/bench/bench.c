/* Encode and decode of a compiled T5 against the machine's limits, all measured in one run.
 *
 *     bench MODEL.weights PREFIX CONFIG.json THREADS NAME=MODEL.so...
 *
 * Several libraries are one model by several backends: they take turns at the same work, and the last column compares the
 * time of each with the first's.
 *
 * Work is counted from the model's configuration: multiply-adds of every matrix product, and for decode the bytes of every
 * weight a token has to read. Times are the best of several
 * runs. */
#include "bench.h"

/* ---- work ------------------------------------------------------------------------------------------ */

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
    double t = now();
    if (m->run(m->instance, (uint32_t)s->encode, sym, arg) != MOEC_OK) exit(1);
    t = now() - t;
    free(ids), free(mask), free(hidden), free(sym);
    return t;
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
static double time_decode(const Model *m, int64_t batch, int64_t length) {
    enum { steps = 48 };
    const moec_seq2seq *s = m->program->seq2seq;
    int64_t n = batch * length, made;
    int64_t *ids = malloc((size_t)n * sizeof *ids), *mask = malloc((size_t)n * sizeof *mask);
    int64_t *tokens = malloc((size_t)(batch * steps) * sizeof *tokens);
    for (int64_t i = 0; i < n; i++) ids[i] = 3 + (i * 7919) % (s->vocab - 3), mask[i] = 1;
    moec_generate_options o = {.max_length = steps, .eos = s->vocab};
    Steps t = {0};
    if (m->generate(m->instance, batch, length, ids, mask, NULL, &o, tokens, &made, each_step, &t) != MOEC_OK) exit(1);
    free(ids), free(mask), free(tokens);
    return t.n ? (t.last - t.first) / (double)t.n : 0;
}

enum { MAX_MODELS = 4, ROUNDS = 6 };

typedef struct Work {
    const char *name;
    double (*time)(const Model *m, int64_t batch, int64_t length);
    int64_t batch, length;
    double amount, limit; /* operations or bytes; a second's */
    const char *unit;
} Work;

static void measure(const Work *w, const Bench *b, const Model *m, int n) {
    double best[MAX_MODELS];
    for (int i = 0; i < n; i++) best[i] = 1e9;
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < n; i++) {
            double t = w->time(&m[i], w->batch, w->length);
            if (t < best[i]) best[i] = t;
        }
    for (int i = 0; i < n; i++) {
        row(w->name, b[i].name, best[i], w->amount, w->limit, w->unit);
        if (i > 0) printf("  %.3f of %s", best[i] / best[0], b[0].name);
        printf("\n");
    }
}

int main(int argc, char **argv) {
    Bench b[MAX_MODELS];
    Model m[MAX_MODELS];
    int n = bench_open(argc, argv, b, MAX_MODELS);
    const T5Config *c = &b->config;
    for (int i = 0; i < n; i++) {
        m[i] = (Model){.program = b[i].program, .instance = b[i].instance};
        *(void **)&m[i].run = find(b[i].library, "moec_run");
        *(void **)&m[i].generate = find(b[i].library, "moec_generate");
    }
    double peak = fma_peak(b->threads), bandwidth = read_bandwidth(b->threads);
    printf("%d threads; FMA peak %.1f GFLOP/s, memory read %.1f GB/s\n\n", b->threads, peak / 1e9, bandwidth / 1e9);
    const Work work[] = {
        {"encode batch 1 x 512", time_encode, 1, 512, encode_flops(c, 1, 512), peak, "GFLOP/s"},
        {"encode batch 8 x 128", time_encode, 8, 128, encode_flops(c, 8, 128), peak, "GFLOP/s"},
        {"decode batch 1, one token", time_decode, 1, 32, decode_bytes(c), bandwidth, "GB/s"},
        {"decode batch 8, one position", time_decode, 8, 32, decode_bytes(c), bandwidth, "GB/s"},
    };
    head("work");
    for (size_t k = 0; k < sizeof work / sizeof *work; k++) measure(&work[k], b, m, n);
    arena_free(b->arena);
    return 0;
}
