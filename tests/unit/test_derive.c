/* derive on the example model: encode, cross and score agree with the exported encoder and decoder, and one
 * step after another with score; the interpreter is the judge. */
#include "compiler/pass.h"
#include "frontends/onnx.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODEL MOEC_SOURCE_DIR "/examples/t5-tiny/"

enum { ROWS = 2, SOURCE = 5, TARGET = 4 };

typedef struct Loaded {
    Module *m;
    OnnxFiles *files;
} Loaded;

static Diag *diag;

static Loaded load(int passes) {
    static bool (*const pass[])(Module *, const PassOptions *, Diag *) = {pass_bind, pass_fold, pass_match,
                                                                          pass_derive};
    Loaded l = {module_new(), onnx_files_new()};
    PassOptions o = {0};
    bool ok = onnx_import(l.m, MODEL "encoder_model.onnx", "encoder", l.files, diag) &&
              onnx_import(l.m, MODEL "decoder_model.onnx", "decoder", l.files, diag);
    for (int i = 0; ok && i < passes; i++)
        ok = pass[i](l.m, &o, diag) && module_verify(l.m, diag, true);
    diag_flush(diag);
    assert_true(ok);
    return l;
}

static void unload(Loaded l) {
    module_free(l.m);
    onnx_files_free(l.files);
}

static Tensor make(Arena *a, DType t, int rank, const int64_t *dim) {
    Tensor x = {.dtype = t, .rank = rank};
    memcpy(x.dim, dim, (size_t)rank * sizeof *dim);
    assert_true(tensor_alloc(a, &x));
    return x;
}

static Tensor ids_of(Arena *a, int64_t len, unsigned seed) {
    Tensor x = make(a, DT_I64, 2, (int64_t[]){ROWS, len});
    for (int64_t i = 0; i < ROWS * len; i++) {
        seed = seed * 1103515245u + 12345u;
        tensor_set_i64(&x, i, 2 + (seed >> 16) % 30);
    }
    return x;
}

static void run(Module *m, const char *name, const Tensor *in, Tensor *out, Arena *a) {
    Func *f = module_find(m, name);
    assert_non_null(f);
    int64_t syms[64] = {0};
    assert_true(dim_sym_count(m->dims) <= 64);
    bool ok = func_bind_dims(m, f, in, syms, diag) && func_eval(m, f->id, syms, in, out, a, diag);
    diag_flush(diag);
    assert_true(ok);
}

static void assert_close(const Tensor *x, int64_t x0, const Tensor *y, int64_t y0, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(tensor_get_f64(x, x0 + i) - tensor_get_f64(y, y0 + i)) < 2e-5))
            fail_msg("element %d: %g and %g", (int)i, tensor_get_f64(x, x0 + i), tensor_get_f64(y, y0 + i));
}

/* The decoder's inputs in the order its exporter chose. */
static void decoder_inputs(const Func *f, Tensor ids, Tensor mask, Tensor hidden, Tensor *in) {
    assert_int_equal(f->n_inputs, 3);
    for (uint32_t i = 0; i < 3; i++) {
        const Value *v = &f->value[f->input[i]];
        in[i] = v->type.rank == 3 ? hidden : str_is(v->name, "encoder_attention_mask") ? mask : ids;
    }
}

static void test_same_results(void **state) {
    (void)state;
    Arena *a = arena_new();
    Loaded before = load(1), after = load(4);
    assert_null(module_find(after.m, "encoder"));
    assert_null(module_find(after.m, "decoder"));
    const Seq2Seq *s2s = &after.m->s2s;
    assert_true(s2s->present);
    int64_t vocab = s2s->vocab;

    Tensor src = ids_of(a, SOURCE, 1), tgt = ids_of(a, TARGET, 2);
    Tensor mask = make(a, DT_I64, 2, (int64_t[]){ROWS, SOURCE});
    for (int64_t i = 0; i < ROWS * SOURCE; i++)
        tensor_set_i64(&mask, i, i != SOURCE - 1 && i != SOURCE + 1); /* padded, and with a hole */
    Tensor hidden[1], logits[64], encoded[1], kv[1], scored[2];
    run(before.m, "encoder", (Tensor[]){src, mask}, hidden, a);
    run(after.m, "encode", (Tensor[]){src, mask}, encoded, a);
    assert_close(hidden, 0, encoded, 0, (int64_t)ROWS * SOURCE * s2s->width);

    Tensor in[3];
    decoder_inputs(module_find(before.m, "decoder"), tgt, mask, hidden[0], in);
    run(before.m, "decoder", in, logits, a);
    run(after.m, "cross", encoded, kv, a);
    assert_int_equal(kv->dim[1], 2 * s2s->dec_layers * s2s->heads);
    Tensor labels = ids_of(a, TARGET, 3);
    tensor_set_i64(&labels, 1, -100);
    run(after.m, "score", (Tensor[]){tgt, kv[0], mask, labels}, scored, a);
    assert_close(logits, 0, &scored[1], 0, ROWS * TARGET * vocab);
    for (int64_t i = 0; i < ROWS * TARGET; i++) {
        int64_t label = tensor_get_i64(&labels, i);
        double sum = 0, top = -INFINITY;
        for (int64_t v = 0; v < vocab; v++)
            top = fmax(top, tensor_get_f64(logits, i * vocab + v));
        for (int64_t v = 0; v < vocab; v++)
            sum += exp(tensor_get_f64(logits, i * vocab + v) - top);
        double want = label == -100 ? 0 : tensor_get_f64(logits, i * vocab + label) - top - log(sum);
        assert_true(fabs(tensor_get_f64(scored, i) - want) < 1e-4);
    }

    uint32_t caches = 2 * s2s->dec_layers;
    Tensor step[64] = {{0}}, out[64] = {{0}};
    assert_true(caches + 3 <= 64);
    for (uint32_t k = 0; k < caches; k++)
        step[3 + k] = make(a, DT_F32, 4, (int64_t[]){ROWS, s2s->heads, 0, s2s->head_width});
    for (int64_t t = 0; t < TARGET; t++) {
        step[0] = make(a, DT_I64, 2, (int64_t[]){ROWS, 1});
        step[1] = kv[0];
        step[2] = mask;
        for (int64_t b = 0; b < ROWS; b++)
            tensor_set_i64(&step[0], b, tensor_get_i64(&tgt, b * TARGET + t));
        run(after.m, "step", step, out, a);
        for (int64_t b = 0; b < ROWS; b++) {
            assert_close(&out[0], b * vocab, &scored[1], (b * TARGET + t) * vocab, vocab);
            int64_t best = 0;
            for (int64_t v = 1; v < vocab; v++)
                if (tensor_get_f64(&out[0], b * vocab + v) > tensor_get_f64(&out[0], b * vocab + best))
                    best = v;
            assert_int_equal(tensor_get_i64(&out[1], b), best);
        }
        for (uint32_t k = 0; k < caches; k++) {
            assert_int_equal(out[2 + k].dim[2], t + 1);
            step[3 + k] = out[2 + k];
        }
    }
    unload(before);
    unload(after);
    arena_free(a);
}

/* Rows of different lengths, one behind the other, give what they give padded. */
static void test_packed(void **state) {
    (void)state;
    static const int64_t length[ROWS] = {SOURCE, 2};
    Arena *a = arena_new();
    Loaded l = load(4);
    int64_t width = l.m->s2s.width, vocab = l.m->s2s.vocab, tokens = 0;
    Tensor src = ids_of(a, SOURCE, 1), tgt = ids_of(a, TARGET, 2), labels = ids_of(a, TARGET, 3);
    Tensor mask = make(a, DT_I64, 2, (int64_t[]){ROWS, SOURCE}), spans = make(a, DT_I64, 2, (int64_t[]){ROWS, 2});
    Tensor ids = make(a, DT_I64, 2, (int64_t[]){1, length[0] + length[1]});
    Tensor hidden[1], packed[1], kv[1], packed_kv[1], scored[2], packed_scored[2];
    for (int64_t b = 0; b < ROWS; b++) {
        tensor_set_i64(&spans, 2 * b, tokens);
        for (int64_t i = 0; i < SOURCE; i++) {
            tensor_set_i64(&mask, b * SOURCE + i, i < length[b]);
            if (i < length[b])
                tensor_set_i64(&ids, tokens++, tensor_get_i64(&src, b * SOURCE + i));
        }
        tensor_set_i64(&spans, 2 * b + 1, tokens);
    }
    run(l.m, "encode", (Tensor[]){src, mask}, hidden, a);
    run(l.m, "encode_packed", (Tensor[]){ids, spans}, packed, a);
    assert_int_equal(packed->dim[0], 1);
    assert_int_equal(packed->dim[1], tokens);
    for (int64_t b = 0; b < ROWS; b++)
        assert_close(packed, tensor_get_i64(&spans, 2 * b) * width, hidden, b * SOURCE * width, length[b] * width);
    run(l.m, "cross", hidden, kv, a);
    run(l.m, "cross_packed", (Tensor[]){packed[0], spans}, packed_kv, a);
    run(l.m, "score", (Tensor[]){tgt, kv[0], mask, labels}, scored, a);
    run(l.m, "score_packed", (Tensor[]){tgt, packed_kv[0], spans, labels}, packed_scored, a);
    assert_close(&packed_scored[0], 0, &scored[0], 0, ROWS * TARGET);
    assert_close(&packed_scored[1], 0, &scored[1], 0, ROWS * TARGET * vocab);
    unload(l);
    arena_free(a);
}

/* Every site of the configuration is there once. */
static void test_sites(void **state) {
    (void)state;
    Loaded l = load(3);
    uint32_t n = 0;
    static const char *const stacks[] = {"encoder", "decoder"};
    for (int s = 0; s < 2; s++) {
        const Func *f = module_find(l.m, stacks[s]);
        for (NodeId i = 0; i < f->n_nodes; i++) {
            const Attr *site = node_attr(&f->node[i], AT_site);
            if (!site)
                continue;
            n++;
            assert_true(site->s.n > 8 && memcmp(site->s.p, stacks[s], 7) == 0);
            for (NodeId j = 0; j < i; j++) {
                const Attr *other = node_attr(&f->node[j], AT_site);
                assert_false(other && str_eq(other->s, site->s));
            }
        }
    }
    /* q k v o, wi wi_1 wo act; cross q k v o in the decoder */
    assert_int_equal(n, l.m->s2s.enc_layers * 8 + l.m->s2s.dec_layers * 12);
    unload(l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_results), cmocka_unit_test(test_packed),
                                       cmocka_unit_test(test_sites)};
    diag = diag_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    diag_free(diag);
    return failed;
}
