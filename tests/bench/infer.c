/* Encode against the FMA peak, decode against the bandwidth of reading. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Distinct tokens all over the vocabulary. */
static void fill_ids(int64_t *ids, int64_t n, int64_t vocab) {
    for (int64_t i = 0; i < n; i++)
        ids[i] = (3 + i * 7919) % vocab;
}

static const moec_seq2seq *seq2seq_of(const Model *m) {
    if (!m->program->seq2seq)
        bench_fail("%s: no encoder and decoder", m->name);
    return m->program->seq2seq;
}

/* ---- encode -------------------------------------------------------------------------------------------- */

/* One call of all rows, padded or not; a call for each row, of its own length. */
typedef enum EncodeWay { ENCODE_PADDED, ENCODE_PACKED, ENCODE_BY_ROWS, ENCODE_WAYS } EncodeWay;

typedef struct Encode {
    const Model *m;
    int64_t rows, longest;
    int64_t *sym, *length, *ids, *mask; /* [rows], [rows, longest] */
    int64_t *spans;                     /* [rows, 2]; the tokens of ids are those of the rows, one behind the other */
    float *hidden;
    EncodeWay way;
} Encode;

/* Runs a function whose three values are known by name. */
static void encode_run(Encode *e, int function, const char *const name[3], void *const known[3]) {
    if (function < 0)
        bench_fail("%s: no function to encode rows without padding", e->m->name);
    const moec_function *f = &e->m->program->function[function];
    void *arg[3];
    if (f->n_inputs + f->n_outputs != 3)
        bench_fail("%s: encode takes more than tokens and their mask", e->m->name);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            if (strcmp(f->value[i].name, name[k]) == 0)
                arg[i] = known[k];
    bench_check(e->m->run(e->m->instance, (uint32_t)function, e->sym, arg), "encode");
}

static void encode_padded(Encode *e, int64_t rows, int64_t length, int64_t from) {
    static const char *const name[3] = {"input_ids", "attention_mask", "hidden"};
    const moec_seq2seq *s = seq2seq_of(e->m);
    void *const known[3] = {e->ids + from * e->longest, e->mask + from * e->longest,
                            e->hidden + from * e->longest * s->width};
    model_symbol_set(e->m, e->sym, s->batch, rows, "batch");
    model_symbol_set(e->m, e->sym, s->source, length, "length");
    encode_run(e, s->encode, name, known);
}

static void encode_packed(Encode *e) {
    static const char *const name[3] = {"packed_ids", "spans", "packed_hidden"};
    const moec_seq2seq *s = seq2seq_of(e->m);
    void *const known[3] = {e->ids, e->spans, e->hidden};
    model_symbol_set(e->m, e->sym, s->batch, e->rows, "batch");
    model_symbol_set(e->m, e->sym, s->tokens, e->spans[2 * e->rows - 1], "tokens");
    encode_run(e, s->encode_packed, name, known);
}

static Spent encode_once(void *context) {
    Encode *e = context;
    Spent start = spent_now();
    if (e->way == ENCODE_PADDED)
        encode_padded(e, e->rows, e->longest, 0);
    if (e->way == ENCODE_PACKED)
        encode_packed(e);
    for (int64_t i = 0; e->way == ENCODE_BY_ROWS && i < e->rows; i++)
        encode_padded(e, 1, e->length[i], i);
    return spent_since(start);
}

/* Mixed: lengths in even steps up to the longest. */
static void encode_open(Encode *e, const Model *m, const Item *item, EncodeWay way) {
    *e = (Encode){.m = m, .rows = item->batch, .longest = item->length, .sym = model_symbols(m), .way = way};
    int64_t n = e->rows * e->longest, at = 0;
    e->length = bench_room((size_t)e->rows, sizeof *e->length);
    e->spans = bench_room((size_t)e->rows, 2 * sizeof *e->spans);
    e->ids = bench_room((size_t)n, sizeof *e->ids);
    e->mask = bench_room((size_t)n, sizeof *e->mask);
    e->hidden = bench_room((size_t)(n * seq2seq_of(m)->width), sizeof *e->hidden);
    fill_ids(e->ids, n, seq2seq_of(m)->vocab);
    for (int64_t i = 0; i < e->rows; i++) {
        e->length[i] = item->mixed ? (e->longest * (i + 1) + e->rows - 1) / e->rows : e->longest;
        for (int64_t j = 0; j < e->length[i]; j++)
            e->mask[i * e->longest + j] = 1;
        e->spans[2 * i] = at;
        e->spans[2 * i + 1] = at += e->length[i];
    }
}

static void encode_close(Encode *e) {
    free(e->sym);
    free(e->length);
    free(e->spans);
    free(e->ids);
    free(e->mask);
    free(e->hidden);
}

static double encode_flops(const T5Config *c, const Encode *e) {
    double sum = 0;
    for (int64_t i = 0; i < e->rows; i++)
        sum += work_encode(c, (double)e->length[i]);
    return sum;
}

/* ---- decode -------------------------------------------------------------------------------------------- */

typedef struct Decode {
    const Model *m;
    moec_status (*generate)(moec_instance *, int64_t, int64_t, const int64_t *, const int64_t *,
                            const float *, const moec_generate_options *, int64_t *, int64_t *,
                            int (*)(void *, int64_t, const int64_t *), void *);
    int64_t rows, source, steps;
    int64_t *ids, *mask, *tokens;
    Spent first, since; /* when the first token was there; from then to the last */
} Decode;

static int each_step(void *context, int64_t step, const int64_t *token) {
    Decode *d = context;
    (void)token;
    if (step == 0)
        d->first = spent_now();
    if (step == d->steps - 1)
        d->since = spent_since(d->first);
    return 0;
}

/* A position of all rows; no sequence ends early, and neither encoder nor first step count. */
static Spent decode_once(void *context) {
    Decode *d = context;
    int64_t made;
    moec_generate_options o = {.max_length = d->steps, .eos = seq2seq_of(d->m)->vocab};
    bench_check(d->generate(d->m->instance, d->rows, d->source, d->ids, d->mask, NULL, &o, d->tokens, &made,
                            each_step, d),
                "decode");
    return spent_each(d->since, (double)(made - 1));
}

static void decode_open(Decode *d, const Model *m, const Options *o, int64_t rows) {
    *d = (Decode){.m = m, .rows = rows, .source = o->source, .steps = o->steps};
    *(void **)&d->generate = model_find(m, "moec_generate");
    int64_t n = rows * d->source;
    d->ids = bench_room((size_t)n, sizeof *d->ids);
    d->mask = bench_room((size_t)n, sizeof *d->mask);
    d->tokens = bench_room((size_t)(rows * d->steps), sizeof *d->tokens);
    fill_ids(d->ids, n, seq2seq_of(m)->vocab);
    for (int64_t i = 0; i < n; i++)
        d->mask[i] = 1;
}

static void decode_close(Decode *d) {
    free(d->ids);
    free(d->mask);
    free(d->tokens);
}

/* ---- all of them ------------------------------------------------------------------------------------------
 */

typedef struct Bench {
    const Options *o;
    Machine machine;
    Model model[MAX_MODELS];
    int n;
} Bench;

static void measure(Bench *b, const char *work, const char *function, LimitKind kind, const Run *run) {
    Result r[MAX_MODELS];
    rounds_measure(&b->machine, kind, (int)b->o->rounds, run, b->n, r);
    rounds_print(&b->machine, kind, work, run, b->n, r);
    for (int i = 0; b->o->shares != SHARES_NONE && i < b->n; i++) {
        Profile *p = profile_open(&b->model[i], &run[i], function);
        profile_print(p, kind, r[i].limit.wall, (SharesKind)b->o->shares);
        profile_close(p);
    }
}

static Run run_of(const Model *m, double amount, Spent (*once)(void *), void *context) {
    return (Run){
        .variant = m->name, .against = m->against, .amount = amount, .once = once, .context = context};
}

static void bench_encode(Bench *b, const Item *item, EncodeWay way) {
    static const char *const ways[ENCODE_WAYS] = {" padded", " packed", " by rows"};
    Encode e[MAX_MODELS];
    Run run[MAX_MODELS];
    char work[64];
    for (int i = 0; i < b->n; i++) {
        encode_open(&e[i], &b->model[i], item, way);
        run[i] = run_of(&b->model[i], encode_flops(&b->o->config, &e[i]), encode_once, &e[i]);
    }
    snprintf(work, sizeof work, "encode %lldx%s%lld%s", (long long)item->batch, item->mixed ? "~" : "",
             (long long)item->length, item->mixed ? ways[way] : "");
    measure(b, work, way == ENCODE_PACKED ? "encode_packed" : "encode", LIMIT_FMA, run);
    for (int i = 0; i < b->n; i++)
        encode_close(&e[i]);
}

static void bench_decode(Bench *b, const Item *item) {
    Decode d[MAX_MODELS];
    Run run[MAX_MODELS];
    char work[64];
    for (int i = 0; i < b->n; i++) {
        decode_open(&d[i], &b->model[i], b->o, item->batch);
        if (b->model[i].read_by_step <= 0)
            bench_fail("%s: what a token reads is not known", b->model[i].name);
        run[i] = run_of(&b->model[i], b->model[i].read_by_step, decode_once, &d[i]);
    }
    snprintf(work, sizeof work, "decode %lld", (long long)item->batch);
    measure(b, work, seq2seq_of(&b->model[0])->step_packed < 0 ? "step" : "step_packed", LIMIT_READ, run);
    for (int i = 0; i < b->n; i++)
        decode_close(&d[i]);
}

int infer_main(const Options *o) {
    Bench *b = bench_room(1, sizeof *b);
    b->o = o;
    b->n = o->n_models;
    machine_open(&b->machine, o);
    machine_print(&b->machine);
    models_open(b->model, o);
    rounds_head();
    for (int k = 0; k < o->encode.n; k++)
        for (EncodeWay way = ENCODE_PADDED; way < (o->encode.item[k].mixed ? ENCODE_WAYS : ENCODE_PACKED); way++)
            bench_encode(b, &o->encode.item[k], way);
    for (int k = 0; k < o->decode.n; k++)
        bench_decode(b, &o->decode.item[k]);
    free(b);
    return 0;
}
