/* Index functions in numbers: scalar arithmetic in the element type's own precision, and evaluation of plans.
 *
 * f32 is computed in float, operation by operation: a position bucket is an integer cut out of a logarithm,
 * and one rounding more or less moves it. Casts follow tensor.h: truncation, saturation, NaN gives 0. */
#include "indexfn.h"

#include <math.h>

static double round_to(DType t, double v) {
    if (t == DT_F64)
        return v;
    return t == DT_F16 ? f16_to_f32(f16_from_f32((float)v)) : (float)v;
}

static int64_t wrap_to(DType t, int64_t v) {
    switch (t) {
    case DT_BOOL:
        return v != 0;
    case DT_U8:
        return (uint8_t)v;
    case DT_I8:
        return (int8_t)v;
    case DT_U16:
        return (uint16_t)v;
    case DT_I16:
        return (int16_t)v;
    case DT_I32:
        return (int32_t)v;
    default:
        return v;
    }
}

static int64_t truncated(DType t, double v) {
    if (v != v)
        return 0;
    if (t == DT_BOOL)
        return v != 0;
    static const double lo[DT_COUNT] = {
        [DT_I8] = INT8_MIN, [DT_I16] = INT16_MIN, [DT_I32] = INT32_MIN, [DT_I64] = -9223372036854775808.0};
    static const double hi[DT_COUNT] = {
        [DT_U8] = UINT8_MAX,  [DT_I8] = INT8_MAX,   [DT_U16] = UINT16_MAX,
        [DT_I16] = INT16_MAX, [DT_I32] = INT32_MAX, [DT_I64] = 9223372036854775808.0};
    if (v <= lo[t])
        return t == DT_I64 ? INT64_MIN : (int64_t)lo[t];
    if (v >= hi[t])
        return t == DT_I64 ? INT64_MAX : (int64_t)hi[t];
    return (int64_t)v;
}

static bool float_unary(Op op, DType t, double a, double *out) {
    bool wide = t == DT_F64;
    float s = (float)a;
    switch (op) {
    case OP_neg:
        *out = -a;
        return true;
    case OP_abs:
        *out = fabs(a);
        return true;
    case OP_sqrt:
        *out = wide ? sqrt(a) : sqrtf(s);
        return true;
    case OP_rsqrt:
        *out = wide ? 1 / sqrt(a) : 1.0f / sqrtf(s);
        return true;
    case OP_recip:
        *out = wide ? 1 / a : 1.0f / s;
        return true;
    case OP_exp:
        *out = wide ? exp(a) : expf(s);
        return true;
    case OP_log:
        *out = wide ? log(a) : logf(s);
        return true;
    case OP_tanh:
        *out = wide ? tanh(a) : tanhf(s);
        return true;
    case OP_relu:
        *out = a < 0 ? 0 : a;
        return true;
    case OP_floor:
        *out = floor(a);
        return true;
    case OP_ceil:
        *out = ceil(a);
        return true;
    case OP_round:
        *out = nearbyint(a);
        return true;
    case OP_sign:
        *out = a > 0 ? 1 : a < 0 ? -1 : a;
        return true;
    default:
        return false;
    }
}

static bool float_binary(Op op, DType t, double a, double b, double *out) {
    bool wide = t == DT_F64;
    float s = (float)a, r = (float)b;
    switch (op) {
    case OP_add:
        *out = wide ? a + b : s + r;
        return true;
    case OP_sub:
        *out = wide ? a - b : s - r;
        return true;
    case OP_mul:
        *out = wide ? a * b : s * r;
        return true;
    case OP_div:
        *out = wide ? a / b : s / r;
        return true;
    case OP_pow:
        *out = wide ? pow(a, b) : powf(s, r);
        return true;
    case OP_fmod:
        *out = fmod(a, b);
        return true;
    case OP_min:
        *out = a != a || b != b ? NAN : a < b ? a : b;
        return true;
    case OP_max:
        *out = a != a || b != b ? NAN : a > b ? a : b;
        return true;
    default:
        return false;
    }
}

static bool int_unary(Op op, int64_t a, int64_t *out) {
    switch (op) {
    case OP_neg:
        *out = (int64_t)(0 - (uint64_t)a);
        return true;
    case OP_abs:
        *out = a < 0 ? (int64_t)(0 - (uint64_t)a) : a;
        return true;
    case OP_sign:
        *out = (a > 0) - (a < 0);
        return true;
    case OP_relu:
        *out = a < 0 ? 0 : a;
        return true;
    case OP_not:
        *out = !a;
        return true;
    case OP_floor:
    case OP_ceil:
    case OP_round:
        *out = a;
        return true;
    default:
        return false;
    }
}

static bool int_binary(Op op, int64_t a, int64_t b, int64_t *out) {
    switch (op) {
    case OP_add:
        *out = (int64_t)((uint64_t)a + (uint64_t)b);
        return true;
    case OP_sub:
        *out = (int64_t)((uint64_t)a - (uint64_t)b);
        return true;
    case OP_mul:
        *out = (int64_t)((uint64_t)a * (uint64_t)b);
        return true;
    case OP_div:
        *out = b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
        return true;
    case OP_fmod:
        *out = b == 0 || b == -1 ? 0 : a % b;
        return true;
    case OP_mod:
        *out = b == 0 || b == -1 ? 0 : a % b;
        if (*out != 0 && (*out < 0) != (b < 0))
            *out += b;
        return true;
    case OP_min:
        *out = a < b ? a : b;
        return true;
    case OP_max:
        *out = a > b ? a : b;
        return true;
    case OP_and:
        *out = a && b;
        return true;
    case OP_or:
        *out = a || b;
        return true;
    case OP_xor:
        *out = !a != !b;
        return true;
    default:
        return false;
    }
}

#define COMPARE(op, a, b)                                                                                    \
    ((op) == OP_eq   ? (a) == (b)                                                                            \
     : (op) == OP_ne ? (a) != (b)                                                                            \
     : (op) == OP_lt ? (a) < (b)                                                                             \
     : (op) == OP_le ? (a) <= (b)                                                                            \
     : (op) == OP_gt ? (a) > (b)                                                                             \
                     : (a) >= (b))

bool index_apply(Op op, DType to, DType from, const IxNum *arg, IxNum *out) {
    const OpInfo *info = op_info(op);
    *out = (IxNum){0};
    if (op == OP_select) {
        const IxNum *arm = &arg[arg[0].i ? 1 : 2];
        *out = *arm;
        out->bad = arg[0].bad || arm->bad;
        return true;
    }
    for (int i = 0; i < info->in_min; i++)
        out->bad |= arg[i].bad;
    bool real = dtype_is_float(from);
    switch (op) {
    case OP_cast:
        if (dtype_is_float(to))
            out->f = round_to(to, real ? arg[0].f : (double)arg[0].i);
        else
            out->i = real ? truncated(to, arg[0].f) : wrap_to(to, arg[0].i);
        return true;
    case OP_isinf:
        out->i = real && isinf(arg[0].f);
        return true;
    case OP_isnan:
        out->i = real && isnan(arg[0].f);
        return true;
    case OP_eq:
    case OP_ne:
    case OP_lt:
    case OP_le:
    case OP_gt:
    case OP_ge:
        out->i = real ? COMPARE(op, arg[0].f, arg[1].f) : COMPARE(op, arg[0].i, arg[1].i);
        return true;
    default:
        break;
    }
    bool ok;
    if (real) {
        ok = info->in_min == 1 ? float_unary(op, from, arg[0].f, &out->f)
                               : float_binary(op, from, arg[0].f, arg[1].f, &out->f);
        out->f = round_to(to, out->f);
    } else {
        ok = info->in_min == 1 ? int_unary(op, arg[0].i, &out->i)
                               : int_binary(op, arg[0].i, arg[1].i, &out->i);
        out->i = wrap_to(to, out->i);
    }
    return ok;
}

double index_number(const Index *x, IxId e, const IxNum *num) {
    return dtype_is_float(index_expr(x, e)->dtype) ? num[e].f : (double)num[e].i;
}
