/* Pointwise rules of the interpreter: one table row an op and arithmetic.
 *
 * Runs of at most RUN_MAX elements are brought to the arithmetic of their type (interp.h), computed there
 * and stored back, so f32 gives exactly what C float code gives, f16 is f32 arithmetic rounded once, and
 * integers wrap. */
#include "interp.h"

#include <math.h>
#include <string.h>

typedef void F32Fn(int64_t n, const float *a, const float *b, float *o);
typedef void F64Fn(int64_t n, const double *a, const double *b, double *o);
typedef void I64Fn(int64_t n, const int64_t *a, const int64_t *b, int64_t *o);
typedef void F32Test(int64_t n, const float *a, const float *b, int64_t *o);
typedef void F64Test(int64_t n, const double *a, const double *b, int64_t *o);

/* ---- scalars ---------------------------------------------------------------------------------------- */

#define U(x)   ((uint64_t)(x))
#define GELU_C 0.7978845608028654 /* sqrt(2 / pi) */

static float mod_f32(float a, float b) {
    float r = fmodf(a, b);
    return r == 0 ? copysignf(0, b) : (r < 0) != (b < 0) ? r + b : r;
}

static double mod_f64(double a, double b) {
    double r = fmod(a, b);
    return r == 0 ? copysign(0, b) : (r < 0) != (b < 0) ? r + b : r;
}

static int64_t div_i64(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? (int64_t)(0 - U(a)) : a / b;
}

static int64_t fmod_i64(int64_t a, int64_t b) {
    return b == 0 || b == -1 ? 0 : a % b;
}

static int64_t mod_i64(int64_t a, int64_t b) {
    int64_t r = fmod_i64(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* Wraps; a negative exponent gives the truncated quotient 1 / a^|b|, and 0 for a = 0. */
static int64_t pow_i64(int64_t a, int64_t b) {
    if (b < 0)
        return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    uint64_t r = 1, x = U(a);
    for (uint64_t e = U(b); e; e >>= 1, x *= x)
        if (e & 1)
            r *= x;
    return (int64_t)r;
}

/* Beyond 10 the derivative is 0 or 1 to the last bit, and a * a no longer overflows. NaN passes. */
static double gelu_grad_f64(double a) {
    a = a < -10 ? -10 : a > 10 ? 10 : a;
    double t = tanh(GELU_C * (a + 0.044715 * (a * a * a)));
    return 0.5 * (1 + t) + 0.5 * a * (1 - t * t) * GELU_C * (1 + 3 * 0.044715 * (a * a));
}

#define MIN2(a, b) ((a) != (a) ? (a) : (b) != (b) ? (b) : (a) < (b) ? (a) : (b))
#define MAX2(a, b) ((a) != (a) ? (a) : (b) != (b) ? (b) : (a) > (b) ? (a) : (b))
#define SIGN(a)    ((a) > 0 ? 1 : (a) < 0 ? -1 : (a) != (a) ? (a) : 0)

/* op, float, double; no meaning for integers */
#define FLOAT_OPS(X)                                                                                         \
    X(sqrt, sqrtf(a), sqrt(a))                                                                               \
    X(rsqrt, 1.0f / sqrtf(a), 1.0 / sqrt(a))                                                                 \
    X(recip, 1.0f / a, 1.0 / a)                                                                              \
    X(exp, expf(a), exp(a))                                                                                  \
    X(log, logf(a), log(a))                                                                                  \
    X(tanh, tanhf(a), tanh(a))                                                                               \
    X(erf, erff(a), erf(a))                                                                                  \
    X(sigmoid, 1.0f / (1.0f + expf(-a)), 1.0 / (1.0 + exp(-a)))                                              \
    X(gelu, 0.5f * a * (1.0f + tanhf((float)GELU_C * (a + 0.044715f * (a * a * a)))),                        \
      0.5 * a * (1.0 + tanh(GELU_C * (a + 0.044715 * (a * a * a)))))                                         \
    X(gelu_grad, (float)gelu_grad_f64(a), gelu_grad_f64(a))

/* op, float, double, int64 */
#define NUMBER_OPS(X)                                                                                        \
    X(neg, -a, -a, (int64_t)(0 - U(a)))                                                                      \
    X(abs, fabsf(a), fabs(a), a < 0 ? (int64_t)(0 - U(a)) : a)                                               \
    X(relu, a < 0 ? 0 : a, a < 0 ? 0 : a, a < 0 ? 0 : a)                                                     \
    X(floor, floorf(a), floor(a), a)                                                                         \
    X(ceil, ceilf(a), ceil(a), a)                                                                            \
    X(round, rintf(a), rint(a), a)                                                                           \
    X(sign, SIGN(a), SIGN(a), (a > 0) - (a < 0))                                                             \
    X(add, a + b, a + b, (int64_t)(U(a) + U(b)))                                                             \
    X(sub, a - b, a - b, (int64_t)(U(a) - U(b)))                                                             \
    X(mul, a *b, a *b, (int64_t)(U(a) * U(b)))                                                               \
    X(div, a / b, a / b, div_i64(a, b))                                                                      \
    X(mod, mod_f32(a, b), mod_f64(a, b), mod_i64(a, b))                                                      \
    X(fmod, fmodf(a, b), fmod(a, b), fmod_i64(a, b))                                                         \
    X(pow, powf(a, b), pow(a, b), pow_i64(a, b))                                                             \
    X(min, MIN2(a, b), MIN2(a, b), a < b ? a : b)                                                            \
    X(max, MAX2(a, b), MAX2(a, b), a > b ? a : b)

/* op, int64; bool only */
#define LOGIC_OPS(X)                                                                                         \
    X(not, !a)                                                                                               \
    X(and, a != 0 && b != 0)                                                                                 \
    X(or, a != 0 || b != 0)                                                                                  \
    X(xor, (a != 0) != (b != 0))

/* op, test for any arithmetic; the result is bool */
#define TEST_OPS(X)                                                                                          \
    X(isinf, isinf((double)a) != 0)                                                                          \
    X(isnan, a != a)                                                                                         \
    X(eq, a == b)                                                                                            \
    X(ne, a != b)                                                                                            \
    X(lt, a < b)                                                                                             \
    X(le, a <= b)                                                                                            \
    X(gt, a > b)                                                                                             \
    X(ge, a >= b)

/* One loop: `a` and `b` name the elements; unary ops are given the first operand twice. */
#define LOOP(name, T, R, expr)                                                                               \
    static void name(int64_t n, const T *pa, const T *pb, R *o) {                                            \
        for (int64_t i = 0; i < n; i++) {                                                                    \
            T a = pa[i], b = pb[i];                                                                          \
            (void)a, (void)b;                                                                                \
            o[i] = (expr);                                                                                   \
        }                                                                                                    \
    }
#define FLOAT_LOOPS(op, f32, f64)                                                                            \
    LOOP(op##_loop_f32, float, float, f32) LOOP(op##_loop_f64, double, double, f64)
#define NUMBER_LOOPS(op, f32, f64, i64) FLOAT_LOOPS(op, f32, f64) LOOP(op##_loop_i64, int64_t, int64_t, i64)
#define LOGIC_LOOPS(op, i64)            LOOP(op##_loop_i64, int64_t, int64_t, i64)
#define TEST_LOOPS(op, test)                                                                                 \
    LOOP(op##_test_f32, float, int64_t, test)                                                                \
    LOOP(op##_test_f64, double, int64_t, test)                                                               \
    LOOP(op##_loop_i64, int64_t, int64_t, test)
FLOAT_OPS(FLOAT_LOOPS)
NUMBER_OPS(NUMBER_LOOPS)
LOGIC_OPS(LOGIC_LOOPS)
TEST_OPS(TEST_LOOPS)

static const struct Loops {
    F32Fn *f32;
    F64Fn *f64;
    I64Fn *i64;
    F32Test *test_f32;
    F64Test *test_f64;
} loops[OP_COUNT] = {
#define FLOAT_ROW(op, f32_, f64_) [OP_##op] = {.f32 = op##_loop_f32, .f64 = op##_loop_f64},
#define NUMBER_ROW(op, f32_, f64_, i64_)                                                                     \
    [OP_##op] = {.f32 = op##_loop_f32, .f64 = op##_loop_f64, .i64 = op##_loop_i64},
#define LOGIC_ROW(op, i64_) [OP_##op] = {.i64 = op##_loop_i64},
#define TEST_ROW(op, t_)                                                                                     \
    [OP_##op] = {.test_f32 = op##_test_f32, .test_f64 = op##_test_f64, .i64 = op##_loop_i64},
    FLOAT_OPS(FLOAT_ROW) NUMBER_OPS(NUMBER_ROW) LOGIC_OPS(LOGIC_ROW) TEST_OPS(TEST_ROW)};

/* ---- runs -------------------------------------------------------------------------------------------- */

typedef union Run {
    float f32[RUN_MAX];
    double f64[RUN_MAX];
    int64_t i64[RUN_MAX];
} Run;

/* The elements as the given arithmetic: the tensor's own bytes where they are that already. */
static const void *run_load(Arith as, const Tensor *t, int64_t off, int64_t step, int64_t n, Run *tmp) {
    if (as == AR_I64) {
        if (t->dtype == DT_I64 && step == 1)
            return (const int64_t *)t->data + off;
        load_i64(t, off, step, n, tmp->i64);
    } else if (as == AR_F64) {
        if (t->dtype == DT_F64 && step == 1)
            return (const double *)t->data + off;
        load_f64(t, off, step, n, tmp->f64);
    } else {
        if (t->dtype == DT_F32 && step == 1)
            return (const float *)t->data + off;
        load_f32(t, off, step, n, tmp->f32);
    }
    return tmp;
}

static void run_store(Arith as, Tensor *t, int64_t off, int64_t n, const void *v) {
    if (as == AR_I64)
        store_i64(t, off, n, v);
    else if (as == AR_F64)
        store_f64(t, off, n, v);
    else
        store_f32(t, off, n, v);
}

static int64_t run_part(int64_t left) {
    return left < RUN_MAX ? left : RUN_MAX;
}

static void run_op(const struct Loops *l, Arith as, const void *a, const void *b, Tensor *out, int64_t off,
                   int64_t n) {
    Run o;
    bool test = l->test_f32 != NULL;
    if (as == AR_I64) {
        l->i64(n, a, b, o.i64);
    } else if (as == AR_F64) {
        if (test)
            l->test_f64(n, a, b, o.i64);
        else
            l->f64(n, a, b, o.f64);
    } else if (test) {
        l->test_f32(n, a, b, o.i64);
    } else if (out->dtype == DT_F32) {
        l->f32(n, a, b, (float *)out->data + off);
        return;
    } else {
        l->f32(n, a, b, o.f32);
    }
    run_store(test ? AR_I64 : as, out, off, n, &o);
}

/* Extents of the result and every operand's strides under it; the result's own strides come first. */
static bool spread(Step *s, int *rank, int64_t *dim, Strides *stride) {
    *rank = 0;
    for (uint32_t i = 0; i < s->n->n_in; i++)
        if (!extents_broadcast(step_in(s, i), rank, dim))
            return step_error(s, DIAG_SHAPE_MISFIT, "operand %u does not broadcast with the others", i);
    strides_dense(*rank, dim, stride[0]);
    for (uint32_t i = 0; i < s->n->n_in; i++)
        strides_broadcast(step_in(s, i), *rank, dim, stride[1 + i]);
    return true;
}

static bool select_eval(Step *s) {
    const Tensor *c = step_in(s, 0), *a = step_in(s, 1), *b = step_in(s, 2);
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    Strides stride[4];
    if (a->dtype != b->dtype)
        return step_error(s, DIAG_OPERAND_TYPE, "the alternatives are %s and %s", dtype_name(a->dtype),
                          dtype_name(b->dtype));
    if (c->dtype != DT_BOOL)
        return step_error(s, DIAG_OPERAND_TYPE, "the condition is not bool");
    if (!spread(s, &rank, dim, stride))
        return false;
    Tensor *out = step_out(s, 0, a->dtype, rank, dim);
    Walk w;
    if (!out)
        return false;
    if (!walk_begin(&w, 4, rank, dim, stride))
        return true;
    size_t e = dtype_bytes(a->dtype);
    do {
        for (int64_t i = 0; i < w.run; i++) {
            bool yes = ((const uint8_t *)c->data)[w.off[1] + i * w.step[1]] != 0;
            const char *from = yes ? (const char *)a->data + (size_t)(w.off[2] + i * w.step[2]) * e
                                   : (const char *)b->data + (size_t)(w.off[3] + i * w.step[3]) * e;
            memcpy((char *)out->data + (size_t)(w.off[0] + i * w.step[0]) * e, from, e);
        }
    } while (walk_next(&w));
    return true;
}

/* An integer base and a float exponent (or the other way round) meet in double, or in float for a float base.
 */
static Arith common_arith(const Tensor *a, const Tensor *b) {
    Arith x = dtype_arith(a->dtype), y = dtype_arith(b->dtype);
    return x == y ? x : x == AR_F32 ? AR_F32 : AR_F64;
}

bool interp_pointwise(Step *s) {
    for (uint32_t i = 0; i < s->n->n_in; i++)
        if (!step_in(s, i))
            return step_error(s, DIAG_IR_NODE, "operand %u is left out", i);
    if (s->n->op == OP_select)
        return select_eval(s);
    const struct Loops *l = &loops[s->n->op];
    const Tensor *a = step_in(s, 0), *b = step_in(s, s->n->n_in - 1);
    if (s->n->op != OP_pow && a->dtype != b->dtype)
        return step_error(s, DIAG_OPERAND_TYPE, "the operands are %s and %s", dtype_name(a->dtype),
                          dtype_name(b->dtype));
    Arith as = common_arith(a, b);
    if (as == AR_I64 ? !l->i64 : !l->f32 && !l->test_f32)
        return step_error(s, DIAG_OPERAND_TYPE, "not defined for %s", dtype_name(a->dtype));
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    Strides stride[4];
    if (!spread(s, &rank, dim, stride))
        return false;
    bool test = l->test_f32 != NULL;
    Tensor *out = step_out(s, 0, test ? DT_BOOL : a->dtype, rank, dim);
    Walk w;
    if (!out)
        return false;
    if (!walk_begin(&w, 1 + (int)s->n->n_in, rank, dim, stride))
        return true;
    int second = (int)s->n->n_in;
    do {
        for (int64_t at = 0; at < w.run; at += RUN_MAX) {
            int64_t n = run_part(w.run - at);
            Run ta, tb;
            const void *pa = run_load(as, a, w.off[1] + at * w.step[1], w.step[1], n, &ta);
            const void *pb = second == 1 ? pa : run_load(as, b, w.off[2] + at * w.step[2], w.step[2], n, &tb);
            run_op(l, as, pa, pb, out, w.off[0] + at, n);
        }
    } while (walk_next(&w));
    return true;
}

bool interp_cast(Step *s) {
    const Tensor *a = step_in(s, 0);
    const Attr *to = node_attr(s->n, AT_to);
    CHECK(a && to);
    Tensor *out = step_out(s, 0, (DType)to->i, a->rank, a->dim);
    int64_t count;
    if (!out)
        return false;
    CHECK(tensor_count(a, &count));
    Arith from = dtype_arith(a->dtype), into = dtype_arith(out->dtype);
    /* Floats stay in the wider of the two; integers go to a float type in one rounding. */
    Arith as = from == AR_F64 || (from == AR_F32 && into == AR_F64) ? AR_F64 : from;
    for (int64_t at = 0; at < count; at += RUN_MAX) {
        Run tmp;
        int64_t n = run_part(count - at);
        run_store(as, out, at, n, run_load(as, a, at, 1, n, &tmp));
    }
    return true;
}
