/* The reference interpreter against results worked out by hand.
 *
 * A case is the body of a function without inputs that returns what was computed and what it should be:
 * element type and extents must agree exactly, floats within 1e-6 of their size, NaN equals NaN. */
#include "compiler/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct Run {
    Diag *d;
    Module *m;
    Arena *a;
    Tensor out[16];
    uint32_t n;
    bool ok;
} Run;

/* `text` is a whole module; function `main` without inputs is evaluated. */
static Run run_module(const char *text) {
    Run r = {.d = diag_new(), .a = arena_new()};
    r.m = module_parse(r.d, "case", text, strlen(text));
    if (!r.m) {
        diag_flush(r.d);
        fail_msg("the case does not parse: %s", text);
    }
    if (!module_verify(r.m, r.d, false)) {
        diag_flush(r.d);
        fail_msg("the case does not verify: %s", text);
    }
    Func *f = module_find(r.m, "main");
    assert_non_null(f);
    assert_in_range(f->n_outputs, 1, 16);
    r.n = f->n_outputs;
    int64_t syms[8] = {0};
    r.ok = func_eval(r.m, f->id, syms, NULL, r.out, r.a, r.d);
    return r;
}

static void run_free(Run *r) {
    module_free(r->m);
    arena_free(r->a);
    diag_free(r->d);
}

static void assert_same(const char *text, const Tensor *got, const Tensor *want) {
    int64_t n;
    if (got->dtype != want->dtype || got->rank != want->rank)
        fail_msg("%s of rank %d, expected %s of rank %d: %s", dtype_name(got->dtype), got->rank,
                 dtype_name(want->dtype), want->rank, text);
    for (int i = 0; i < got->rank; i++)
        if (got->dim[i] != want->dim[i])
            fail_msg("extent %d is %lld, expected %lld: %s", i, (long long)got->dim[i],
                     (long long)want->dim[i], text);
    assert_true(tensor_count(got, &n));
    for (int64_t i = 0; i < n; i++) {
        if (!dtype_is_float(got->dtype)) {
            if (tensor_get_i64(got, i) != tensor_get_i64(want, i))
                fail_msg("element %lld is %lld, expected %lld: %s", (long long)i,
                         (long long)tensor_get_i64(got, i), (long long)tensor_get_i64(want, i), text);
            continue;
        }
        double g = tensor_get_f64(got, i), w = tensor_get_f64(want, i);
        if (g == w || (g != g && w != w))
            continue;
        if (!(fabs(g - w) <= 1e-6 * (1 + fabs(w))))
            fail_msg("element %lld is %.9g, expected %.9g: %s", (long long)i, g, w, text);
    }
}

static void check_module(const char *text) {
    Run r = run_module(text);
    if (!r.ok) {
        diag_flush(r.d);
        fail_msg("does not evaluate: %s", text);
    }
    assert_int_equal(r.n % 2, 0);
    for (uint32_t i = 0; i < r.n; i += 2)
        assert_same(text, &r.out[i], &r.out[i + 1]);
    run_free(&r);
}

static const char *in_main(const char *body) {
    static char text[4096];
    assert_true(snprintf(text, sizeof text, "func @main entry () {\n%s}\n", body) < (int)sizeof text);
    return text;
}

static void check(const char *body) {
    check_module(in_main(body));
}

/* Evaluation must be refused, with a message. */
static void check_refused(const char *body) {
    Run r = run_module(in_main(body));
    assert_false(r.ok);
    assert_true(diag_errors(r.d) > 0);
    run_free(&r);
}

#define F32(name, extents, values)                                                                           \
    "%" name " = const {value = f32[" extents "] [" values "]} : f32[" extents "]\n"
#define I64(name, extents, values)                                                                           \
    "%" name " = const {value = i64[" extents "] [" values "]} : i64[" extents "]\n"
#define BOOLS(name, extents, values)                                                                         \
    "%" name " = const {value = bool[" extents "] [" values "]} : bool[" extents "]\n"
#define CONST(name, type, values) "%" name " = const {value = " type " [" values "]} : " type "\n"
#define RETURN                    "return %y \"y\", %w \"w\"\n"
#define RETURN_X                  "return %y \"y\", %x \"x\"\n"

static void test_broadcasting(void **state) {
    (void)state;
    check(F32("a", "2,1,3", "1, 2, 3, 4, 5, 6")
              F32("b", "2,1", "10, 20") "%y = add %a, %b : f32[2,2,3]\n" F32(
                  "w", "2,2,3", "11, 12, 13, 21, 22, 23, 14, 15, 16, 24, 25, 26") RETURN);
    check(F32("a", "", "2")
              F32("b", "3", "1, -4, 0") "%y = div %a, %b : f32[3]\n" F32("w", "3", "2, -0.5, inf") RETURN);
    check(F32("a", "0,3", "") F32("b", "3", "1, 2, 3") "%y = mul %a, %b : f32[0,3]\n" F32("w", "0,3", "")
              RETURN);
    check(F32("a", "2,1", "1, 2") "%y = broadcast %a : f32[2,2,3]\n" F32(
        "w", "2,2,3", "1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2") RETURN);
    check(BOOLS("c", "2,1", "1, 0") F32("a", "3", "1, 2, 3") F32(
        "b", "", "-1") "%y = select %c, %a, %b : f32[2,3]\n" F32("w", "2,3", "1, 2, 3, -1, -1, -1") RETURN);
}

static void test_integers(void **state) {
    (void)state;
    check(CONST("a", "i32[2]", "2147483647, -2147483648") CONST(
        "b", "i32[2]", "1, -1") "%y = add %a, %b : i32[2]\n" CONST("w", "i32[2]", "-2147483648, 2147483647")
              RETURN);
    check(CONST("a", "i32[4]", "7, -7, 5, -2147483648")
              CONST("b", "i32[4]", "2, 2, 0, -1") "%y = div %a, %b : i32[4]\n" CONST(
                  "w", "i32[4]", "3, -3, 0, -2147483648") RETURN);
    check(I64("a", "3", "-9223372036854775808, 9, -9") I64(
        "b", "3", "-1, 0, 4") "%y = div %a, %b : i64[3]\n" I64("w", "3", "-9223372036854775808, 0, -2")
              RETURN);
    check(I64("a", "5", "7, -7, 7, -7, 3") I64("b", "5", "3, 3, -3, -3, 0") "%y = mod %a, %b : i64[5]\n" I64(
        "w", "5", "1, 2, -2, -1, 0") RETURN);
    check(I64("a", "4", "7, -7, 7, -7") I64("b", "4", "3, 3, -3, -3") "%y = fmod %a, %b : i64[4]\n" I64(
        "w", "4", "1, -1, 1, -1") RETURN);
    check(CONST("a", "u8[2]", "200, 3")
              CONST("b", "u8[2]", "100, 5") "%y = add %a, %b : u8[2]\n" CONST("w", "u8[2]", "44, 8") RETURN);
    check(CONST("a", "u8[2]", "3, 5")
              CONST("b", "u8[2]", "5, 3") "%y = sub %a, %b : u8[2]\n" CONST("w", "u8[2]", "254, 2") RETURN);
    check(I64("a", "3", "2, -1, 2")
              I64("b", "3", "10, -3, -1") "%y = pow %a, %b : i64[3]\n" I64("w", "3", "1024, -1, 0") RETURN);
}

static void test_floats(void **state) {
    (void)state;
    check(F32("a", "5", "-1.5, 0.5, 1.5, 2.5, -2.5") "%y = round %a : f32[5]\n" F32(
        "w", "5", "-2, 0, 2, 2, -2") RETURN);
    check(F32("a", "4", "0, 1, inf, -1") "%y = log %a : f32[4]\n" F32("w", "4", "-inf, 0, inf, nan") RETURN);
    check(F32("a", "3", "nan, 1, 2")
              F32("b", "3", "1, nan, 1") "%y = max %a, %b : f32[3]\n" F32("w", "3", "nan, nan, 2") RETURN);
    check(F32("a", "3", "nan, -3, 2") "%y = relu %a : f32[3]\n" F32("w", "3", "nan, 0, 2") RETURN);
    check(F32("a", "2", "-7, 7") F32("b", "2", "3, -3") "%y = mod %a, %b : f32[2]\n" F32("w", "2", "2, -2")
              RETURN);
    check(F32("a", "3", "inf, nan, 1") "%y = isinf %a : bool[3]\n" BOOLS("w", "3", "1, 0, 0") RETURN);
    check(F32("a", "2", "1, -1") "%y = gelu %a : f32[2]\n" F32("w", "2", "0.841191990608, -0.158808009392")
              RETURN);
    check(F32("a", "7", "-2, -0.75, 0, 0.5, 1, 1e30, nan") "%y = gelu_grad %a : f32[7]\n" F32(
        "w", "7", "-0.08609926, 0.00106174, 0.5, 0.86737036, 1.08296408, 1, nan") RETURN);
    check(F32("a", "2", "1, -2") "%b = dropout %a : f32[2]\n%y = jitter %b {eps = 0.5} : f32[2]\n"
                                 "return %y \"y\", %a \"w\"\n");
    /* f16: computed in f32, rounded once; 2048 + 1 is halfway and goes to even */
    check(CONST("a", "f16[3]", "2048, 2050, 60000") CONST(
        "b", "f16[3]", "1, 1, 60000") "%y = add %a, %b : f16[3]\n" CONST("w", "f16[3]", "2048, 2052, inf")
              RETURN);
    /* f32 division is C's, not a double's: 1/3*3 style rounding would show in the last bit */
    Run r = run_module(in_main(F32("a", "2", "16777217, 1")
                                   F32("b", "2", "3, 49") "%y = div %a, %b : f32[2]\nreturn %y \"y\"\n"));
    assert_true(r.ok);
    volatile float x = 16777216.0f, y = 3.0f, one = 1.0f, z = 49.0f;
    float want[2] = {x / y, one / z};
    assert_memory_equal(r.out[0].data, want, sizeof want);
    run_free(&r);
}

static void test_casts(void **state) {
    (void)state;
    check(F32("a", "6", "-1.9, 1.9, 300, -300, nan, inf") "%y = cast %a {to = i8} : i8[6]\n" CONST(
        "w", "i8[6]", "-1, 1, 127, -128, 0, 127") RETURN);
    check(F32("a", "4", "1e30, -1e30, nan, 5.5") "%y = cast %a {to = i64} : i64[4]\n" I64(
        "w", "4", "9223372036854775807, -9223372036854775808, 0, 5") RETURN);
    check(I64("a", "3", "300, -1, 255") "%y = cast %a {to = u8} : u8[3]\n" CONST("w", "u8[3]", "44, 255, 255")
              RETURN);
    check(F32("a", "4", "0, -0.0, nan, 0.25") "%y = cast %a {to = bool} : bool[4]\n" BOOLS(
        "w", "4", "0, 0, 1, 1") RETURN);
    check(I64("a", "1", "16777217") "%y = cast %a {to = f32} : f32[1]\n" F32("w", "1", "16777216") RETURN);
    check(F32("a", "2", "65520, 5.9604644775390625e-08") "%y = cast %a {to = f16} : f16[2]\n" CONST(
        "w", "f16[2]", "inf, 5.9604644775390625e-08") RETURN);
}

static void test_movement(void **state) {
    (void)state;
    check(I64("a", "5", "0, 1, 2, 3, 4") "%y = slice %a {start = [4], step = [-2]} : i64[3]\n" I64(
        "w", "3", "4, 2, 0") RETURN);
    check(I64("a", "2,3", "0, 1, 2, 3, 4, 5") "%y = slice %a {start = [1, 2], step = [-1, -1]} : "
                                              "i64[2,3]\n" I64("w", "2,3", "5, 4, 3, 2, 1, 0") RETURN);
    check(I64("a", "2,3", "0, 1, 2, 3, 4, 5") "%y = transpose %a {perm = [1, 0]} : i64[3,2]\n" I64(
        "w", "3,2", "0, 3, 1, 4, 2, 5") RETURN);
    check(I64("a", "1,2,2", "1, 2, 3, 4")
              I64("b", "1,1,2", "5, 6") "%y = concat %a, %b {axis = 1} : i64[1,3,2]\n" I64(
                  "w", "1,3,2", "1, 2, 3, 4, 5, 6") RETURN);
    check("%y = iota {axis = 1} : i64[2,3]\n" I64("w", "2,3", "0, 1, 2, 0, 1, 2") RETURN);
    /* a transpose beyond one tile, there and back */
    check("%i = iota {axis = 0} : i64[70,33]\n%j = iota {axis = 1} : i64[70,33]\n" I64(
        "k", "", "33") "%b = mul %i, %k : i64[70,33]\n%w = add %b, %j : i64[70,33]\n"
                       "%t = transpose %w {perm = [1, 0]} : i64[33,70]\n%y = transpose %t {perm = [1, 0]} : "
                       "i64[70,33]\n"
                       "%s = slice %t {start = [32, 69], step = [1, 1]} : i64[1,1]\n" I64(
                           "v", "1,1", "2309") "return %y \"y\", %w \"w\", %s \"s\", %v \"v\"\n");
}

static void test_gather(void **state) {
    (void)state;
    check(F32("a", "3,2", "1, 2, 3, 4, 5, 6") I64(
        "i", "2", "-1, 0") "%y = gather %a, %i {axis = 0} : f32[2,2]\n" F32("w", "2,2", "5, 6, 1, 2") RETURN);
    check(F32("a", "2,3", "1, 2, 3, 4, 5, 6") I64(
        "i", "2,1", "2, -3") "%y = gather %a, %i {axis = 1} : f32[2,2,1]\n" F32("w", "2,2,1", "3, 1, 6, 4")
              RETURN);
    check_refused(F32("a", "3", "1, 2, 3")
                      I64("i", "", "3") "%y = gather %a, %i {axis = 0} : f32[]  !\"emb\"\nreturn %y \"y\"\n");
    check(F32("a", "2,2,2", "0, 1, 2, 3, 4, 5, 6, 7") I64(
        "i", "2,1", "1, 0") "%y = gather_nd %a, %i {batch = 1} : f32[2,2]\n" F32("w", "2,2", "2, 3, 4, 5")
              RETURN);
    check(F32("a", "2,2", "0, 1, 2, 3")
              I64("i", "2,2", "0, 0, 1, -1") "%y = gather_nd %a, %i : f32[2]\n" F32("w", "2", "0, 3") RETURN);
    check(F32("a", "4", "1, 2, 3, 4") I64("i", "3,1", "1, -1, 1") F32(
        "u", "3", "9, 8, 7") "%y = scatter_nd %a, %i, %u : f32[4]\n" F32("w", "4", "1, 7, 3, 8") RETURN);
    check(F32("a", "3", "1, 2, 3") I64("i", "3,1", "1, -1, 1") F32(
        "u", "3", "9, -8, 7") "%y = scatter_nd %a, %i, %u {kind = \"sum\"} : f32[3]\n"
                              "%z = scatter_nd %a, %i, %u {kind = \"max\"} : f32[3]\n" F32("w", "3",
                                                                                           "1, 18, -5")
                                  F32("v", "3", "1, 9, 3") "return %y \"y\", %w \"w\", %z \"z\", %v \"v\"\n");
    check_refused(F32("a", "2", "1, 2") I64("i", "1,1", "-3")
                      F32("u", "1", "9") "%y = scatter_nd %a, %i, %u : f32[2]\nreturn %y \"y\"\n");
}

static void test_reductions(void **state) {
    (void)state;
    check(F32("a", "2,3", "1, 2, 3, 4, 5, 6") "%y = reduce_mean %a {axes = [0], keep = 1} : f32[1,3]\n" F32(
        "w", "1,3", "2.5, 3.5, 4.5") RETURN);
    check(F32("a", "2,3",
              "1, 2, 3, 4, 5, 6") "%y = reduce_sum %a {axes = [0, 1]} : f32[]\n" F32("w", "", "21") RETURN);
    check(F32("a", "2,2", "1, nan, 4, 2") "%y = reduce_max %a {axes = [1]} : f32[2]\n" F32("w", "2", "nan, 4")
              RETURN);
    check(F32("a", "0,2", "") "%y = reduce_max %a {axes = [0]} : f32[2]\n" F32("w", "2", "-inf, -inf")
              RETURN);
    check(CONST("a", "i32[2,0]", "") "%y = reduce_min %a {axes = [1]} : i32[2]\n" CONST(
        "w", "i32[2]", "2147483647, 2147483647") RETURN);
    check(CONST("a", "i32[3]", "65536, 65536, 2") "%y = reduce_prod %a {axes = [0]} : i32[]\n" CONST(
        "w", "i32[]", "0") RETURN);
    check(F32("a", "3", "1, 1e8, -1e8") "%y = reduce_sum %a {axes = [0]} : f32[]\n" F32("w", "", "1") RETURN);
    check(F32("a", "3", "0, -inf, 0") "%y = softmax %a {axis = 0} : f32[3]\n" F32("w", "3", "0.5, 0, 0.5")
              RETURN);
    check(F32("a", "2,2", "1000, 0, 1000, 1") "%y = softmax %a {axis = 0} : f32[2,2]\n" F32(
        "w", "2,2", "0.5, 0.2689414214, 0.5, 0.7310585786") RETURN);
    check(F32("a", "2", "0, -inf") "%y = log_softmax %a {axis = 0} : f32[2]\n" F32("w", "2", "0, -inf")
              RETURN);
    check(F32("a", "3", "1, 2, 3") "%y = cumsum %a {axis = 0, exclusive = 1, reverse = 1} : f32[3]\n" F32(
        "w", "3", "5, 3, 0") RETURN);
    check(F32("a", "1,2", "3, 4")
              F32("g", "2", "1, 2") "%y = rms_norm %a, %g {eps = 0.5} : f32[1,2]\n"
                                    "%f = rms_factor %a {eps = 0.5} : f32[1,1]\n%m = mul %a, %f : "
                                    "f32[1,2]\n%w = mul %m, %g : f32[1,2]\n" RETURN);
    check(F32("a", "1,2", "3, 4") "%y = rms_factor %a {eps = 0} : f32[1,1]\n" F32("w", "1,1", "0.282842712")
              RETURN);
}

static void test_ties(void **state) {
    (void)state;
    check(F32("a", "2,4", "1, 3, 3, 2, 0, nan, 5, nan") "%y = argmax %a {axis = 1} : i64[2]\n" I64(
        "w", "2", "1, 1") RETURN);
    check(F32(
        "a", "2,4",
        "1, 3, 3, 2, 0, nan, 5, nan") "%y = argmax %a {axis = 1, keep = 1, last = 1} : i64[2,1]\n" I64("w",
                                                                                                       "2,1",
                                                                                                       "2, 3")
              RETURN);
    check(I64("a", "2", "9223372036854775806, 9223372036854775807") "%y = argmax %a {axis = 0} : i64[]\n" I64(
        "w", "", "1") RETURN);
    check(F32("a", "2,4", "1, 2, 2, 2, 5, 5, 1, 6") "%y = top_k_mask %a {k = 2} : bool[2,4]\n" BOOLS(
        "w", "2,4", "0, 1, 1, 0, 1, 0, 0, 1") RETURN);
}

static void test_matmul(void **state) {
    (void)state;
    check(F32("a", "2,3", "1, 2, 3, 4, 5, 6") F32(
        "b", "3,2", "1, 0, 0, 1, 1, 1") "%y = matmul %a, %b : f32[2,2]\n" F32("w", "2,2", "4, 5, 10, 11")
              RETURN);
    check(F32("a", "3,2", "1, 4, 2, 5, 3, 6")
              F32("b", "2,3", "1, 0, 1, 0, 1, 1") "%y = matmul %a, %b {ta = 1, tb = 1} : f32[2,2]\n" F32(
                  "w", "2,2", "4, 5, 10, 11") RETURN);
    check(F32("a", "2,1,1,2", "1, 2, 3, 4")
              F32("b", "2,2,1", "1, 1, 0, 1") "%y = matmul %a, %b : f32[2,2,1,1]\n" F32("w", "2,2,1,1",
                                                                                        "3, 2, 7, 4") RETURN);
    check(CONST("a", "i32[1,2]", "65536, 1") CONST(
        "b", "i32[2,1]", "65536, 7") "%y = matmul %a, %b : i32[1,1]\n" CONST("w", "i32[1,1]", "7") RETURN);
    check(F32("a", "2,0", "") F32("b", "0,1", "") "%y = matmul %a, %b : f32[2,1]\n" F32("w", "2,1", "0, 0")
              RETURN);
}

/* Attention against the same from primitive ops: two heads, causal, a bias row that is cut at both ends. */
static void test_attention(void **state) {
    (void)state;
    static const char qkv[] = F32("q", "1,2,4", "0.1, -0.4, 0.9, 0.3, -0.7, 0.2, 0.5, -0.1")
        F32("k", "1,3,4", "0.5, 0.3, -0.2, 0.8, -0.6, 0.9, 0.4, 0.1, 0.2, -0.3, 0.7, -0.5")
            F32("v", "1,3,4", "1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4");
    char text[4096];
    /* distances j - i - offset are -2..1 for T = 2, S = 3, offset 1; R = 3 and center 1 clamp -2 to column 0
     */
    snprintf(text, sizeof text, "%s%s", qkv,
             F32("row", "2,3", "0.5, -0.25, 1, 0, 2, -1")
                 BOOLS("keep", "1,3", "1, 0, 1") "%y = attention %q, %k, %v, %row, %keep {heads = 2, causal "
                                                 "= 1, offset = 1, center = 1} : f32[1,2,4]\n"
                                                 "%q4 = reshape %q : f32[1,2,2,2]\n%k4 = reshape %k : "
                                                 "f32[1,3,2,2]\n%v4 = reshape %v : f32[1,3,2,2]\n"
                                                 "%qt = transpose %q4 {perm = [0, 2, 1, 3]} : f32[1,2,2,2]\n"
                                                 "%kt = transpose %k4 {perm = [0, 2, 1, 3]} : f32[1,2,3,2]\n"
                                                 "%vt = transpose %v4 {perm = [0, 2, 1, 3]} : f32[1,2,3,2]\n"
                                                 "%s = matmul %qt, %kt {tb = 1} : f32[1,2,2,3]\n"
             /* bias[h, i, j]: column clamp(j - i - 1 + 1, 0, 2) */
             F32("bias", "1,2,2,3",
                 "0.5, -0.25, 1, 0.5, 0.5, -0.25, 0, 2, -1, 0, 0, 2") "%sb = add %s, %bias : "
                                                                      "f32[1,2,2,3]\n" BOOLS("mas"
                                                                                             "k",
                                                                                             "1,1,"
                                                                                             "2,3",
                                                                                             "1, "
                                                                                             "0, "
                                                                                             "0, "
                                                                                             "1, "
                                                                                             "0, "
                                                                                             "1")
                                                                          F32("low", "",
                                                                              "-3."
                                                                              "4028234663852886e3"
                                                                              "8") "%sm = select "
                                                                                   "%mask, %sb, "
                                                                                   "%low : "
                                                                                   "f32[1,2,2,3]"
                                                                                   "\n%p = "
                                                                                   "softmax %sm "
                                                                                   "{axis = 3} : "
                                                                                   "f32[1,2,2,3]\n"
                                                                                   "%c = matmul "
                                                                                   "%p, %vt : "
                                                                                   "f32[1,2,2,2]"
                                                                                   "\n%ct = "
                                                                                   "transpose %c "
                                                                                   "{perm = [0, "
                                                                                   "2, 1, 3]} : "
                                                                                   "f32[1,2,2,2]\n"
                                                                                   "%w = reshape "
                                                                                   "%ct : "
                                                                                   "f32[1,2,4]"
                                                                                   "\n" RETURN);
    check(text);
    /* everything masked: all keys alike */
    snprintf(
        text, sizeof text, "%s%s", qkv,
        BOOLS("keep", "1,3", "0, 0, 0") "%y = attention %q, %k, %v, _, %keep {heads = 2} : f32[1,2,4]\n" F32(
            "w", "1,2,4",
            "1.6666666667, 2, 2.3333333333, 2.6666666667, 1.6666666667, 2, 2.3333333333, 2.6666666667")
            RETURN);
    check(text);
}

static void test_calls(void **state) {
    (void)state;
    check_module("func @twice body (%a : f32[2]) {\n%b = add %a, %a : f32[2]\nreturn %b \"b\", %a \"a\"\n}\n"
                 "func @none body (%a : f32[2]) {\n%b = sub %a, %a : f32[2]\nreturn %b \"b\"\n}\n"
                 "func @same body (%a : f32[2]) {\nreturn %a \"a\"\n}\n"
                 "func @main entry () {\n" F32("x", "2", "1, 2") BOOLS("t", "", "1") BOOLS(
                     "f", "", "0") "%y, %z = call %x {func = @twice} : f32[2], f32[2]\n"
                                   "%i = if %t, %y {then_func = @same, else_func = @none} : f32[2]\n"
                                   "%j = if %f, %y {then_func = @same, else_func = @none} : f32[2]\n" F32(
                                       "w", "2", "2, 4")
                                       F32("v", "2", "0, 0") "return %y \"y\", %w \"w\", %z \"z\", %x \"x\", "
                                                             "%i \"i\", %w \"w2\", %j \"j\", %v \"v\"\n}\n");
}

/* By differences: other gradients in front are neither estimated again nor seen through. */
static void test_gradients(void **state) {
    (void)state;
#define SQUARES                                                                                              \
    CONST("x", "f64[2]", "1, 2")                                                                             \
    "%q = mul %x, %x : f64[2]\n%s = reduce_sum %q {axes = [0], keep = 0} : f64[]\n"                          \
    "%g = gradient %s, %x : f64[2]\n%m = mul %g, %x : f64[2]\n"
    check(SQUARES CONST("w", "f64[2]", "2, 8") "return %m \"m\", %w \"w\"\n");
    check(SQUARES "%t = reduce_sum %x {axes = [0], keep = 0} : f64[]\n%y = gradient %t, %x : f64[2]\n" CONST(
        "w", "f64[2]", "1, 1") RETURN);
    check(SQUARES "%t = reduce_sum %m {axes = [0], keep = 0} : f64[]\n%y = gradient %t, %g : f64[2]\n" RETURN_X);
    check_refused(SQUARES "%t = reduce_sum %m {axes = [0], keep = 0} : f64[]\n%y = gradient %t, %x : f64[2]\n"
                          "return %y \"y\"\n");
}

static void test_dynamic(void **state) {
    (void)state;
    check(I64("a", "2,3", "0, 1, 2, 3, 4, 5") I64("s", "2", "0, -1") "%y = dyn_reshape %a, %s : i64[*]\n" I64(
        "w", "2,3", "0, 1, 2, 3, 4, 5") RETURN);
    check(I64("a", "5", "0, 1, 2, 3, 4") I64("s", "1", "-1") I64("e", "1", "-9223372036854775808")
              I64("x", "1", "0")
                  I64("t", "1", "-2") "%y = dyn_slice %a, %s, %e, %x, %t : i64[*]\n" I64("w", "3", "4, 2, 0")
                      RETURN);
    check(I64("a", "5", "0, 1, 2, 3, 4") I64("s", "1", "1") I64(
        "e", "1", "9223372036854775807") "%y = dyn_slice %a, %s, %e : i64[*]\n" I64("w", "4", "1, 2, 3, 4")
              RETURN);
    check(I64("a", "2,1", "1, 2") I64("s", "2", "1, 3") "%y = dyn_broadcast %a, %s : i64[*]\n" I64(
        "w", "2,3", "1, 1, 1, 2, 2, 2") RETURN);
    check(I64("a", "", "10") I64("b", "", "4")
              I64("c", "", "-3") "%y = dyn_range %a, %b, %c : i64[*]\n" I64("w", "2", "10, 7") RETURN);
    check(I64("a", "2,2", "1, 2, 3, 4") I64("r", "2", "1, 2") "%y = dyn_tile %a, %r : i64[*]\n" I64(
        "w", "2,4", "1, 2, 1, 2, 3, 4, 3, 4") RETURN);
    check(F32("a", "2", "1, 2") F32("b", "2,2", "1, 2, 3, 4") "%y = dyn_matmul %a, %b : f32[*]\n" F32(
        "w", "2", "7, 10") RETURN);
    check(I64("a", "5", "1, 2, 3, 4, 5") "%y, %z = dyn_split %a {axis = -1, k = 2} : i64[*], i64[*]\n" I64(
        "w", "3", "1, 2, 3") I64("v", "2", "4, 5") "return %y \"y\", %w \"w\", %z \"z\", %v \"v\"\n");
    check(
        F32("a", "4", "0, 2, -3, -2.5") "%y, %s, %z = dyn_quantize %a : u8[4], f32[], u8[]\n" CONST(
            "w", "u8[4]", "153, 255, 0, 26") F32("t", "", "0.0196078438")
            CONST("x", "u8[]", "153") "return %y \"y\", %w \"w\", %s \"s\", %t \"t\", %z \"z\", %x \"x\"\n");
    check_refused(I64("a", "3", "1, 2, 3")
                      I64("s", "2", "2, -1") "%y = dyn_reshape %a, %s : i64[*]\nreturn %y \"y\"\n");
}

/* A parameter computed by an init function: by value, into a buffer, and through a chain. */
static void test_init(void **state) {
    (void)state;
    static const char text[] = "param @half : f16[2,3] frozen = [1, 2, 3, 4, 5, 6]\n"
                               "param @wide : f32[3,2] frozen init @make\n"
                               "param @twin : f32[3,4] frozen init @pair\n"
                               "func @make init () {\n%a = cast @half {to = f32} : f32[2,3]\n"
                               "%b = transpose %a {perm = [1, 0]} : f32[3,2]\nreturn %b \"w\"\n}\n"
                               "func @pair init () {\n%a = concat @wide, @wide {axis = 1} : f32[3,4]\n%b = "
                               "reshape %a : f32[3,4]\nreturn %b \"w\"\n}\n";
    static const float want[12] = {1, 4, 1, 4, 2, 5, 2, 5, 3, 6, 3, 6};
    Diag *d = diag_new();
    Arena *a = arena_new();
    Module *m = module_parse(d, "case", text, sizeof text - 1);
    if (!m)
        diag_flush(d);
    assert_non_null(m);
    ParamId p;
    Tensor t;
    float buffer[12];
    assert_true(module_find_param(m, str_c("twin"), &p));
    assert_true(param_eval(m, p, &t, a, d));
    assert_memory_equal(t.data, want, sizeof want);
    assert_true(param_eval_into(m, p, buffer, sizeof buffer, d));
    assert_memory_equal(buffer, want, sizeof want);
    module_free(m);
    arena_free(a);
    diag_free(d);
}

static void test_symbols(void **state) {
    (void)state;
    static const char text[] = "sym B = 1..4\nsym S = 1..8\n"
                               "func @main entry (%a : f32[B,S], %b : f32[B,S + 1]) {\n"
                               "%d = dim {dim = B*S} : i64[]\nreturn %d \"d\"\n}\n";
    Diag *d = diag_new();
    Arena *a = arena_new();
    Module *m = module_parse(d, "case", text, sizeof text - 1);
    if (!m)
        diag_flush(d);
    assert_non_null(m);
    Func *f = module_find(m, "main");
    int64_t syms[2];
    float data[32] = {0};
    Tensor in[2] = {{.dtype = DT_F32, .rank = 2, .dim = {2, 5}, .data = data},
                    {.dtype = DT_F32, .rank = 2, .dim = {2, 6}, .data = data}};
    Tensor out;
    assert_true(func_bind_dims(m, f, in, syms, d));
    assert_true(func_eval(m, f->id, syms, in, &out, a, d));
    assert_int_equal(tensor_get_i64(&out, 0), 10);
    in[1].dim[1] = 5;
    assert_false(func_bind_dims(m, f, in, syms, d));
    in[0].dim[1] = 9, in[1].dim[1] = 10;
    assert_false(func_bind_dims(m, f, in, syms, d));
    module_free(m);
    arena_free(a);
    diag_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broadcasting), cmocka_unit_test(test_integers), cmocka_unit_test(test_floats),
        cmocka_unit_test(test_casts),        cmocka_unit_test(test_movement), cmocka_unit_test(test_gather),
        cmocka_unit_test(test_reductions),   cmocka_unit_test(test_ties),     cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_attention),    cmocka_unit_test(test_calls),    cmocka_unit_test(test_dynamic),
        cmocka_unit_test(test_init),         cmocka_unit_test(test_symbols),  cmocka_unit_test(test_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
