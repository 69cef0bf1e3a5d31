/* cross_entropy in the interpreter against its formula, and its gradients against finite differences, in f64.
 */
#include "compiler/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { B = 2, T = 3, D = 4, V = 7, N = B * T, IGNORED = -100 };

/* Operands in the order of the ops'; dloss is what the sum of the losses is weighted by. */
typedef struct Case {
    double x[N * D], w[D * V], smoothing, z, dloss[N];
    int64_t label[N];
    bool tb;
} Case;

typedef struct Results {
    double loss[N], log_z[N], dx[N * D], dw[D * V];
    bool ok;
} Results;

static double number(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1;
}

static Case some(bool tb, double smoothing, double z) {
    static const int64_t label[N] = {3, IGNORED, 0, 6, 3, IGNORED};
    Case c = {.smoothing = smoothing, .z = z, .tb = tb};
    uint32_t state = 7;
    for (int i = 0; i < N * D; i++)
        c.x[i] = 2 * number(&state);
    for (int i = 0; i < D * V; i++)
        c.w[i] = 2 * number(&state);
    for (int i = 0; i < N; i++)
        c.dloss[i] = number(&state);
    memcpy(c.label, label, sizeof label);
    return c;
}

static Results run(const Case *c) {
    char text[1500];
    const char *w = c->tb ? "7,4" : "4,7", *tb = c->tb ? " {tb = 1}" : "";
    snprintf(text, sizeof text,
             "func @main entry (%%x : f64[2,3,4], %%w : f64[%s], %%l : i64[2,3], %%s : f64[], %%z : f64[], "
             "%%d : f64[2,3]) {\n"
             "  %%loss, %%log_z = cross_entropy %%x, %%w, %%l, %%s, %%z%s : f64[2,3], f64[2,3]\n"
             "  %%dx = cross_entropy_dx %%x, %%w, %%l, %%s, %%z, %%log_z, %%d%s : f64[2,3,4]\n"
             "  %%dw = cross_entropy_dw %%x, %%w, %%l, %%s, %%z, %%log_z, %%d%s : f64[%s]\n"
             "  return %%loss \"loss\", %%log_z \"log_z\", %%dx \"dx\", %%dw \"dw\"\n}\n",
             w, tb, tb, tb, w);
    Diag *d = diag_new();
    Arena *a = arena_new();
    Module *m = module_parse(d, "case", text, strlen(text));
    assert_non_null(m);
    assert_true(module_verify(m, d, true));
    Tensor in[6] = {{.dtype = DT_F64, .rank = 3, .dim = {B, T, D}, .data = (void *)c->x},
                    {.dtype = DT_F64, .rank = 2, .dim = {c->tb ? V : D, c->tb ? D : V}, .data = (void *)c->w},
                    {.dtype = DT_I64, .rank = 2, .dim = {B, T}, .data = (void *)c->label},
                    {.dtype = DT_F64, .rank = 0, .data = (void *)&c->smoothing},
                    {.dtype = DT_F64, .rank = 0, .data = (void *)&c->z},
                    {.dtype = DT_F64, .rank = 2, .dim = {B, T}, .data = (void *)c->dloss}};
    Tensor out[4];
    Results r = {.ok = func_eval(m, module_find(m, "main")->id, NULL, in, out, a, d)};
    if (r.ok) {
        memcpy(r.loss, out[0].data, sizeof r.loss);
        memcpy(r.log_z, out[1].data, sizeof r.log_z);
        memcpy(r.dx, out[2].data, sizeof r.dx);
        memcpy(r.dw, out[3].data, sizeof r.dw);
    } else
        assert_int_equal(diag_errors(d), 1);
    module_free(m);
    arena_free(a);
    diag_free(d);
    return r;
}

static double weighted(const Case *c) {
    Results r = run(c);
    double sum = 0;
    assert_true(r.ok);
    for (int i = 0; i < N; i++)
        sum += c->dloss[i] * r.loss[i];
    return sum;
}

/* Central differences of fourth order over one number of the case. */
static double slope(Case *c, double *at) {
    const double h = 1e-3, old = *at;
    double f[4];
    for (int i = 0; i < 4; i++) {
        *at = old + h * (i < 2 ? i - 2 : i - 1);
        f[i] = weighted(c);
    }
    *at = old;
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h);
}

static void check_gradients(bool tb, double smoothing, double z) {
    Case c = some(tb, smoothing, z);
    Results r = run(&c);
    assert_true(r.ok);
    for (int i = 0; i < N * D; i++)
        assert_true(fabs(r.dx[i] - slope(&c, &c.x[i])) < 1e-8);
    for (int i = 0; i < D * V; i++)
        assert_true(fabs(r.dw[i] - slope(&c, &c.w[i])) < 1e-8);
    for (int i = 0; i < N; i++)
        for (int k = 0; c.label[i] == IGNORED && k < D; k++)
            assert_true(r.dx[i * D + k] == 0);
}

static void test_gradients(void **state) {
    (void)state;
    check_gradients(false, 0, 0);
    check_gradients(false, 0.1, 0);
    check_gradients(false, 0, 0.05);
    check_gradients(true, 0.1, 0.05);
}

static void check_formula(bool tb, double smoothing, double z) {
    Case c = some(tb, smoothing, z);
    Results r = run(&c);
    assert_true(r.ok);
    for (int i = 0; i < N; i++) {
        double logit[V], sum = 0, mean = 0;
        for (int v = 0; v < V; v++) {
            logit[v] = 0;
            for (int k = 0; k < D; k++)
                logit[v] += c.x[i * D + k] * c.w[tb ? v * D + k : k * V + v];
            sum += exp(logit[v]);
            mean += logit[v] / V;
        }
        if (c.label[i] == IGNORED) {
            assert_true(r.loss[i] == 0 && r.log_z[i] == 0);
            continue;
        }
        double log_z = log(sum), nll = log_z - logit[c.label[i]];
        double want = (1 - smoothing) * nll + smoothing * (log_z - mean) + z * log_z * log_z;
        assert_true(fabs(r.log_z[i] - log_z) < 1e-12);
        assert_true(fabs(r.loss[i] - want) < 1e-12);
    }
}

static void test_formula(void **state) {
    (void)state;
    check_formula(false, 0, 0);
    check_formula(false, 0.3, 0.02);
    check_formula(true, 0.3, 0.02);
}

static void test_labels_are_checked(void **state) {
    (void)state;
    static const int64_t wrong[] = {V, -1, -99, -101, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Case c = some(false, 0, 0);
        c.label[4] = wrong[i];
        assert_false(run(&c).ok);
    }
}

static void test_types_are_checked(void **state) {
    (void)state;
    static const char *const operands[] = {
        "%x : f32[2,3,5], %w : f32[4,7], %l : i64[2,3], %s : f32[], %z : f32[]",
        "%x : f32[2,3,4], %w : f64[4,7], %l : i64[2,3], %s : f32[], %z : f32[]",
        "%x : i32[2,3,4], %w : i32[4,7], %l : i64[2,3], %s : i32[], %z : i32[]",
        "%x : f32[2,3,4], %w : f32[4,7], %l : i32[2,3], %s : f32[], %z : f32[]",
        "%x : f32[2,3,4], %w : f32[4,7], %l : i64[3,2], %s : f32[], %z : f32[]",
        "%x : f32[2,3,4], %w : f32[4,7], %l : i64[2,3], %s : f32[1], %z : f32[]",
        "%x : f32[6,4], %w : f32[4,7], %l : i64[2,3], %s : f32[], %z : f32[]",
        "%x : f32[2,3,4], %w : f32[4,7], %l : i64[2,3], %s : f32[], %z : f32[]", /* this one is right */
    };
    size_t n = sizeof operands / sizeof *operands;
    for (size_t i = 0; i < n; i++) {
        char text[600];
        Diag *d = diag_new();
        snprintf(text, sizeof text,
                 "func @main entry (%s) {\n  %%y, %%v = cross_entropy %%x, %%w, %%l, %%s, %%z : f32[2,3], "
                 "f32[2,3]\n"
                 "  return %%y \"y\"\n}\n",
                 operands[i]);
        Module *m = module_parse(d, "case", text, strlen(text));
        assert_non_null(m);
        assert_int_equal(module_verify(m, d, true), i == n - 1);
        module_free(m);
        diag_free(d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_labels_are_checked),
        cmocka_unit_test(test_types_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
