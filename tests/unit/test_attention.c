/* Attention with segments and dropout, and its gradient, in the reference interpreter: the forward against
 * the formula written out, the gradient against central differences of the forward. All in f64. */
#include "compiler/ir.h"
#include "compiler/random.h"
#include "runtime/moec_kernel.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, T = 4, S = 5, HEADS = 2, D = 3, DV = 2, R = 6, OPERANDS = 9, INPUTS = 10 };

/* Which operands a case has; the rest is left out. */
typedef struct Case {
    const char *name;
    bool bias, keep, segment, drop;
    int causal, offset, center;
} Case;

static const Case cases[] = {
    {"plain", false, false, false, false, 0, 0, 0},
    {"bias, clamped at both ends", true, false, false, false, 0, 0, 2},
    {"keep", false, true, false, false, 0, 0, 0},
    {"segments", false, false, true, false, 0, 0, 0},
    {"causal with an offset", false, false, false, false, 1, 1, 0},
    {"dropout", false, false, false, true, 0, 0, 0},
    {"all", true, true, true, true, 1, 2, 3},
};

typedef struct Setup {
    const Case *c;
    Diag *d;
    Arena *a;
    Module *m;
    Tensor in[INPUTS]; /* dy, q, k, v, bias, keep, segments of queries and keys, seed, drop */
} Setup;

static bool has(const Case *c, int operand) {
    const bool present[OPERANDS] = {true,       true,       true,    c->bias, c->keep,
                                    c->segment, c->segment, c->drop, c->drop};
    return present[operand];
}

static const char *module_text(const Case *c) {
    static const char *const name[OPERANDS] = {"%q",  "%k",  "%v",    "%bias", "%keep",
                                               "%qs", "%ks", "%seed", "%drop"};
    static char text[4096];
    char in[256] = "", attrs[128];
    for (int i = 0; i < OPERANDS; i++)
        snprintf(in + strlen(in), sizeof in - strlen(in), "%s%s", i ? ", " : "", has(c, i) ? name[i] : "_");
    snprintf(attrs, sizeof attrs, "heads = %d, causal = %d, offset = %d, center = %d", HEADS, c->causal,
             c->offset, c->center);
    const char *inputs =
        "%dy : f64[2,4,4], %q : f64[2,4,6], %k : f64[2,5,6], %v : f64[2,5,4], %bias : f64[2,6], "
        "%keep : bool[2,5], %qs : i64[2,4], %ks : i64[2,5], %seed : i64[], %drop : f32[]";
    snprintf(text, sizeof text,
             "func @forward entry (%s) {\n%%y = attention %s {%s} : f64[2,4,4]\nreturn %%y \"y\"\n}\n"
             "func @backward entry (%s) {\n%%dq, %%dk, %%dv%s = attention_grad %%dy, %s {%s, k = %d} : "
             "f64[2,4,6], f64[2,5,6], "
             "f64[2,5,4]%s\nreturn %%dq \"q\", %%dk \"k\", %%dv \"v\"%s\n}\n",
             inputs, in, attrs, inputs, c->bias ? ", %db" : "", in, attrs, c->bias ? 4 : 3,
             c->bias ? ", f64[2,2,6]" : "", c->bias ? ", %db \"bias\"" : "");
    return text;
}

static Tensor filled(Arena *a, DType t, int rank, const int64_t *dim, int salt) {
    Tensor x = {.dtype = t, .rank = rank};
    int64_t n;
    memcpy(x.dim, dim, (size_t)rank * sizeof *dim);
    assert_true(tensor_alloc(a, &x) && tensor_count(&x, &n));
    for (int64_t i = 0; i < n; i++) {
        double u = (double)uniform_f32(77 + salt, i);
        if (t == DT_F64)
            tensor_set_f64(&x, i, 2 * u - 1);
        else
            tensor_set_i64(&x, i, t == DT_BOOL ? u > 0.3 : (int64_t)(u * 3));
    }
    return x;
}

static void setup(Setup *s, const Case *c) {
    *s = (Setup){.c = c, .d = diag_new(), .a = arena_new()};
    const char *text = module_text(c);
    s->m = module_parse(s->d, "case", text, strlen(text));
    bool ok = s->m && module_verify(s->m, s->d, true);
    diag_flush(s->d);
    assert_true(ok);
    static const DType type[INPUTS] = {DT_F64,  DT_F64, DT_F64, DT_F64, DT_F64,
                                       DT_BOOL, DT_I64, DT_I64, DT_I64, DT_F32};
    static const int rank[INPUTS] = {3, 3, 3, 3, 2, 2, 2, 2, 0, 0};
    static const int64_t dim[INPUTS][3] = {{B, T, HEADS * DV},
                                           {B, T, HEADS * D},
                                           {B, S, HEADS * D},
                                           {B, S, HEADS * DV},
                                           {HEADS, R},
                                           {B, S},
                                           {B, T},
                                           {B, S}};
    for (int i = 0; i < INPUTS; i++)
        s->in[i] = filled(s->a, type[i], rank[i], dim[i], i);
    for (int j = 0; j < S && c->keep && !c->segment; j++)
        tensor_set_i64(&s->in[5], S + j, 0); /* example 1 sees nothing */
    tensor_set_i64(&s->in[8], 0, INT64_C(0x123456789abcdef));
    tensor_set_f64(&s->in[9], 0, 0.375);
}

static void teardown(Setup *s) {
    module_free(s->m);
    arena_free(s->a);
    diag_free(s->d);
}

static void run(Setup *s, const char *func, Tensor *out) {
    int64_t syms[1] = {0};
    bool ok = func_eval(s->m, module_find(s->m, func)->id, syms, s->in, out, s->a, s->d);
    diag_flush(s->d);
    assert_true(ok);
}

static double at(const Tensor *t, int64_t i) {
    return tensor_get_f64(t, i);
}

/* Element (b, i, h, c) of the result, from the definition. */
static double formula(const Setup *s, int b, int i, int h, int c) {
    const Tensor *q = &s->in[1], *k = &s->in[2], *v = &s->in[3], *bias = &s->in[4];
    double score[S], total = 0, most = -INFINITY, y = 0;
    for (int j = 0; j < S; j++) {
        score[j] = 0;
        for (int d = 0; d < D; d++)
            score[j] += at(q, ((b * T + i) * HEADS + h) * D + d) * at(k, ((b * S + j) * HEADS + h) * D + d);
        int column = j - (i + s->c->offset) + s->c->center;
        if (s->c->bias)
            score[j] += at(bias, h * R + (column < 0 ? 0 : column > R - 1 ? R - 1 : column));
        bool seen = !(s->c->keep && at(&s->in[5], b * S + j) == 0);
        seen = seen && !(s->c->segment && at(&s->in[6], b * T + i) != at(&s->in[7], b * S + j));
        seen = seen && !(s->c->causal && j > i + s->c->offset);
        if (!seen)
            score[j] = -1.7976931348623157e308;
        if (score[j] > most)
            most = score[j];
    }
    for (int j = 0; j < S; j++)
        total += exp(score[j] - most);
    for (int j = 0; j < S; j++) {
        double p = exp(score[j] - most) / total;
        float u = uniform_f32(tensor_get_i64(&s->in[8], 0), ((b * HEADS + h) * T + i) * S + j);
        if (s->c->drop)
            p = u >= 0.375f ? p / (1 - 0.375) : 0;
        y += p * at(v, ((b * S + j) * HEADS + h) * DV + c);
    }
    return y;
}

static void forward_is_the_formula(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        Setup s;
        Tensor y;
        setup(&s, &cases[n]);
        run(&s, "forward", &y);
        for (int b = 0; b < B; b++)
            for (int i = 0; i < T; i++)
                for (int h = 0; h < HEADS; h++)
                    for (int c = 0; c < DV; c++) {
                        double got = at(&y, ((b * T + i) * HEADS + h) * DV + c),
                               want = formula(&s, b, i, h, c);
                        if (!(fabs(got - want) < 1e-12))
                            fail_msg("%s: %.15g, expected %.15g", cases[n].name, got, want);
                    }
        teardown(&s);
    }
}

static double loss(Setup *s) {
    Tensor y;
    int64_t n;
    double sum = 0;
    run(s, "forward", &y);
    assert_true(tensor_count(&y, &n));
    for (int64_t i = 0; i < n; i++)
        sum += at(&s->in[0], i) * at(&y, i);
    return sum;
}

static double difference(Setup *s, int input, int64_t i) {
    double x = at(&s->in[input], i), h = 1e-5;
    tensor_set_f64(&s->in[input], i, x + h);
    double up = loss(s);
    tensor_set_f64(&s->in[input], i, x - h);
    double down = loss(s);
    tensor_set_f64(&s->in[input], i, x);
    return (up - down) / (2 * h);
}

static void gradient_is_the_difference(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof cases / sizeof *cases; n++) {
        Setup s;
        Tensor grad[4];
        setup(&s, &cases[n]);
        run(&s, "backward", grad);
        double largest = 0;
        for (int g = 0; g < (cases[n].bias ? 4 : 3); g++) {
            int64_t count;
            assert_true(tensor_count(&s.in[1 + g], &count));
            for (int64_t i = 0; i < count; i++) {
                double got = at(&grad[g], i), want = difference(&s, 1 + g, i);
                if (g == 3)
                    got += at(&grad[g], count + i); /* the bias row is shared by both examples */
                if (!(fabs(got - want) < 1e-8))
                    fail_msg("%s: result %d[%d] is %.12g, expected %.12g", cases[n].name, g, (int)i, got,
                             want);
                if (fabs(want) > largest)
                    largest = fabs(want);
            }
        }
        assert_true(largest > 0.1); /* something flows */
        teardown(&s);
    }
}

/* A drop of 0 is no dropout, to the bit. */
static void no_drop(void **state) {
    (void)state;
    Case with = {"with", true, true, true, true, 1, 0, 0}, without = with;
    without.drop = false;
    Setup a, b;
    Tensor y, z, gy[4], gz[4];
    setup(&a, &with);
    setup(&b, &without);
    tensor_set_f64(&a.in[9], 0, 0);
    run(&a, "forward", &y);
    run(&b, "forward", &z);
    assert_memory_equal(y.data, z.data, B * T * HEADS * DV * sizeof(double));
    run(&a, "backward", gy);
    run(&b, "backward", gz);
    assert_memory_equal(gy[1].data, gz[1].data, B * S * HEADS * D * sizeof(double));
    teardown(&a);
    teardown(&b);
}

static void uniform(void **state) {
    (void)state;
    double sum = 0;
    enum { N = 4096 };
    for (int64_t i = 0; i < N; i++) {
        float u = uniform_f32(5, i);
        assert_true(u >= 0 && u < 1);
        sum += (double)u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.02);
    static const int64_t far[] = {0, 1, -1, INT64_MAX, INT64_MIN, INT64_C(1) << 32, INT64_C(0xfedcba987654)};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++)
        for (size_t j = 0; j < sizeof far / sizeof *far; j++)
            assert_true(uniform_f32(far[i], far[j]) == moec_uniform_f32(far[i], far[j]));
    assert_true(uniform_f32(0, 1) != uniform_f32(0, INT64_C(1) << 32) &&
                uniform_f32(1, 0) != uniform_f32(INT64_C(1) << 32, 0));
    assert_true(uniform_f32(0, 0) == 0); /* the hash keeps 0 */
}

static void refused(const char *node, const char *why) {
    char text[2048];
    snprintf(text, sizeof text,
             "func @f entry (%%q : f32[2,4,6], %%k : f32[2,5,6], %%half : f16[2,5,6], %%bias : f32[2,6], "
             "%%qs : i64[2,4], "
             "%%ks : i64[2,5], %%is : i32[2,5], %%seed : i64[], %%drop : f32[], %%wide : f32[1], "
             "%%one : f32[1,5,6], %%spans : i64[2,2], %%three : i64[3,2]) "
             "{\n%s\nreturn %%q \"q\"\n}\n",
             node);
    Diag *d = diag_new();
    Module *m = module_parse(d, "case", text, strlen(text));
    if (!m)
        diag_flush(d);
    assert_non_null(m);
    const char *said = NULL;
    uint32_t n_out = 4;
    Type out[8];
    const Func *f = module_find(m, "f");
    const Node *n = &f->node[0];
    assert_false(node_infer(m, f, n->op, n->in, n->n_in, n->attrs, n->n_attrs, out, &n_out, &said));
    assert_string_equal(said, why);
    assert_false(module_verify(m, d, true));
    module_free(m);
    diag_free(d);
}

static void what_is_refused(void **state) {
    (void)state;
#define QKV "%y = attention %q, %k, %k, _, _, "
#define END " {heads = 2} : f32[2,4,6]"
    refused("%y = attention %q, %half, %k {heads = 2} : f32[2,4,6]", "q, k and v need one float type");
    refused(QKV "%qs, _, _, _" END, "segments of queries and of keys go together");
    refused(QKV "_, %ks" END, "segments of queries and of keys go together");
    refused(QKV "%ks, %ks" END, "the segments are not i64[B,T] and i64[B,S]");
    refused(QKV "%qs, %is" END, "the segments are not i64[B,T] and i64[B,S]");
    refused(QKV "_, _, %seed" END, "seed and drop go together");
    refused(QKV "_, _, %seed, %wide" END, "seed and drop are not i64[] and f32[]");
#define PACKED "%y = attention %q, %one, %one, _, _, "
    refused(PACKED "_, _, %seed, %drop, %spans" END, "packed keys have neither mask nor segments nor dropout");
    refused(PACKED "_, _, _, _, %qs" END, "the spans are not i64[B,2]");
    refused(PACKED "_, _, _, _, %three" END, "packed keys are [1,N,H*D], queries [B,T,H*D] or packed like them");
    refused(QKV "_, _, _, _, %spans" END, "packed keys are [1,N,H*D], queries [B,T,H*D] or packed like them");
#define GRADS " : f32[2,4,6], f32[2,5,6], f32[2,5,6]"
    refused("%a, %b, %c = attention_grad %k, %q, %k, %k {heads = 2, k = 3}" GRADS,
            "the gradient is not of the type of attention's result");
    refused("%a, %b, %c, %e = attention_grad %q, %q, %k, %k {heads = 2, k = 4}" GRADS ", f32[2,2,6]",
            "k is not 3, nor 4 with a bias row");
    refused("%a, %b = attention_grad %q, %q, %k, %k, %bias {heads = 2, k = 2} : f32[2,4,6], f32[2,5,6]",
            "k is not 3, nor 4 with a bias row");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_is_the_formula),
        cmocka_unit_test(gradient_is_the_difference),
        cmocka_unit_test(no_drop),
        cmocka_unit_test(uniform),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
