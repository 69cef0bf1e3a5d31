/* Numbers made from a counter: known values (computed apart from the definitions), the compiler's functions
 * against the runtime's, and the ops made of them. */
#include "compiler/interp.h"
#include "compiler/random.h"
#include "pass_test.h"
#include "runtime/moec_kernel.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_known(void **state) {
    (void)state;
    static const struct {
        int64_t seed, index, numerator;
    } u[] = {{0, 0, 0},
             {1, 0, 5829961},
             {0, 1, 5829961},
             {-1, 7, 968742},
             {81985529216486895, 8589934597, 7009618}};
    for (size_t i = 0; i < sizeof u / sizeof *u; i++)
        assert_true(uniform_f32(u[i].seed, u[i].index) == (float)u[i].numerator * 0x1p-24f);
    assert_true(split_seed_i64(0, 0) == -2152535657050944081);
    assert_true(split_seed_i64(0, 1) == 7960286522194355700);
    assert_true(split_seed_i64(-5, 2) == -2167467587980096447);
}

static void test_runtime_agrees(void **state) {
    (void)state;
    double sum = 0, squares = 0;
    enum { N = 100000 };
    for (int64_t i = 0; i < N; i++) {
        int64_t seed = split_seed_i64(i, 1), index = i % 3 ? i : split_seed_i64(7, i);
        float u = uniform_f32(seed, index);
        assert_true(u >= 0 && u < 1);
        assert_true(u == moec_uniform_f32(seed, index));
        assert_true(split_seed_i64(seed, i) == moec_split_seed_i64(seed, i));
        sum += u;
        squares += (double)u * u;
    }
    assert_true(fabs(sum / N - 0.5) < 0.005);
    assert_true(fabs(squares / N - 1.0 / 3) < 0.005);
}

static void test_gelu_grad(void **state) {
    (void)state;
    for (int i = -1200; i <= 1200; i++) {
        double x = i / 100.0, h = 1e-4;
        double slope = (moec_gelu_f64(x + h) - moec_gelu_f64(x - h)) / (2 * h);
        assert_true(fabs(moec_gelu_grad_f64(x) - slope) < 1e-7);
        assert_true(fabs((double)moec_gelu_grad_f32((float)x) - moec_gelu_grad_f64((float)x)) < 1e-6);
    }
    assert_true(moec_gelu_grad_f32(INFINITY) == 1 && moec_gelu_grad_f32(-INFINITY) == 0);
    assert_true(isnan(moec_gelu_grad_f32(NAN)));
}

/* A T5-xxl needs about 500 seeds. */
static void test_many_seeds(void **state) {
    (void)state;
    enum { K = 500 };
    Text t = {0};
    text_printf(&t, "func @main entry (%%seed : i64[]) {\n  ");
    for (int i = 0; i < K; i++)
        text_printf(&t, "%s%%s%d", i ? ", " : "", i);
    text_printf(&t, " = split_seed %%seed {k = %d} : i64[]", K);
    for (int i = 1; i < K; i++)
        text_printf(&t, ", i64[]");
    text_printf(&t, "\n  %%a = random %%s499 : f32[3,4]\n  %%b = random %%s0 : f32[3,4]\n  %%y = add %%a, "
                    "%%b : f32[3,4]\n"
                    "  return %%y \"y\", %%s77 \"s\"\n}\n");
    bool ok;
    char *out = pass_run("bind fold cse fuse plan", t.p, NULL, &ok);
    assert_true(ok);
    assert_non_null(strstr(out, "split_seed %seed {k = 500}"));
    free(out);
    text_free(&t);
}

/* Masks are made where they are used: no call passes one on. */
static void test_masks_are_not_stored(void **state) {
    (void)state;
    static const char text[] =
        "sym B = 1..4\n"
        "func @main entry (%seed : i64[], %p : f32[], %x : f32[B,8], %w : f32[B,8,8]) {\n"
        "  %u = random %seed : f32[B,8]\n"
        "  %m = lt %u, %p : bool[B,8]\n"
        "  %f = cast %m {to = f32} : f32[B,8]\n"
        "  %d = mul %x, %f : f32[B,8]\n"
        "  %s = reduce_sum %w {axes = [0], keep = 0} : f32[8,8]\n"
        "  %y = matmul %d, %s : f32[B,8]\n"
        "  %z = mul %f, %y : f32[B,8]\n"
        "  return %z \"z\"\n}\n";
    bool ok;
    char *out = pass_run("bind fold cse fuse plan", text, NULL, &ok);
    assert_true(ok);
    char *kernels = strstr(out, " kernel ");
    assert_non_null(kernels);
    *kernels = 0;
    assert_null(strstr(out, "bool["));
    free(out);
}

static void check_refused(const char *body) {
    Diag *d = diag_new();
    char text[512];
    snprintf(text, sizeof text, "func @main entry (%%s : i64[], %%v : i64[2], %%f : f32[]) {\n%s}\n", body);
    Module *m = module_parse(d, "case", text, strlen(text));
    assert_non_null(m);
    assert_false(module_verify(m, d, true));
    module_free(m);
    diag_free(d);
}

static void test_refused(void **state) {
    (void)state;
    check_refused("%y = random %f : f32[2]\nreturn %y \"y\"\n");
    check_refused("%y = random %v : f32[2]\nreturn %y \"y\"\n");
    check_refused("%y = random %s : f64[2]\nreturn %y \"y\"\n");
    check_refused("%y = split_seed %s {k = 2} : i64[]\nreturn %y \"y\"\n");
    check_refused("%y = split_seed %s {k = 0} : i64[]\nreturn %y \"y\"\n");
    check_refused("%y, %z = split_seed %s {k = 2} : i64[], f32[]\nreturn %y \"y\"\n");
    check_refused("%y, %z = split_seed %v {k = 2} : i64[], i64[]\nreturn %y \"y\"\n");
    check_refused("%y, %z = split_seed %s : i64[], i64[]\nreturn %y \"y\"\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_runtime_agrees),
        cmocka_unit_test(test_gelu_grad),
        cmocka_unit_test(test_many_seeds),
        cmocka_unit_test(test_masks_are_not_stored),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
