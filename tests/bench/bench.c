/* Encode and decode of a compiled T5 against the machine's limits, all measured in one run.
 *
 *     bench MODEL.so MODEL.weights PREFIX CONFIG.json [--threads N]
 *
 * Work is counted from the model's configuration: multiply-adds of every matrix product, and for decode the bytes of every
 * weight a token has to read. Times are the best of several runs. */
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

int main(int argc, char **argv) {
    Bench b;
    bench_open(argc, argv, &b);
    const T5Config *c = &b.config;
    Model m = {.program = b.program, .instance = b.instance};
    *(void **)&m.run = find(b.library, "moec_run");
    *(void **)&m.generate = find(b.library, "moec_generate");
    double peak = fma_peak(b.threads), bandwidth = read_bandwidth(b.threads);
    printf("%d threads; FMA peak %.1f GFLOP/s, memory read %.1f GB/s\n\n", b.threads, peak / 1e9, bandwidth / 1e9);
    head("work");
    row("encode batch 1 x 512", time_encode(&m, 1, 512), encode_flops(c, 1, 512), peak, "GFLOP/s");
    row("encode batch 8 x 128", time_encode(&m, 8, 128), encode_flops(c, 8, 128), peak, "GFLOP/s");
    row("decode batch 1, one token", time_decode(&m, 1, 32, 48), decode_bytes(c), bandwidth, "GB/s");
    row("decode batch 8, one position", time_decode(&m, 8, 32, 48), decode_bytes(c), bandwidth, "GB/s");
    arena_free(b.arena);
    return 0;
}
