/* Import rules of layers and activations, composed of primitive ops in the way exporters compose them, so that
 * `match` needs one form of each. */
#include "onnx_impl.h"

#include <math.h>

static ValueId scalar_like(NodeCtx *c, ValueId v, double x)
{
    return emit_scalar(c, value_dtype(c, v), x);
}

static bool need_floats(NodeCtx *c)
{
    DType t = value_dtype(c, c->in[0]);
    return dtype_is_float(t) || ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes floats, not %s", dtype_name(t));
}

/* ---- norms over the axes from `axis` on ----------------------------------------------------------------------- */

typedef struct Norm {
    ValueId x; /* in the type it is computed in */
    DType type;
    int64_t axes[MOEC_MAX_RANK];
    uint32_t n;
    double eps;
} Norm;

static bool norm_begin(NodeCtx *c, Norm *o)
{
    int64_t axis = ctx_int(c, "axis", -1);
    int rank = value_rank(c, c->in[0]);
    if (!need_floats(c))
        return false;
    if (axis >= 0 && rank == UNRANKED)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "axis %lld counts from the front of a value of unknown rank",
                         (long long)axis);
    if (axis >= 0)
        axis -= rank;
    if (axis >= 0 || axis < -(rank == UNRANKED ? (int64_t)MOEC_MAX_RANK : rank))
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "axis is out of range");
    o->n = (uint32_t)-axis;
    for (uint32_t i = 0; i < o->n; i++)
        o->axes[i] = axis + (int64_t)i;
    o->type = value_dtype(c, c->in[0]);
    o->x = o->type == DT_F16 && ctx_int(c, "stash_type", 1) == 1 ? emit_cast(c, c->in[0], DT_F32) : c->in[0];
    o->eps = ctx_float(c, "epsilon", (double)1e-5f);
    return true;
}

/* 1 / sqrt(mean(d^2) + eps) */
static ValueId norm_factor(NodeCtx *c, const Norm *o, ValueId d)
{
    ValueId square = emit2(c, OP_pow, d, scalar_like(c, d, 2));
    ValueId m = emit_reduce(c, "mean", square, o->axes, o->n, true);
    return emit1(c, OP_recip, emit1(c, OP_sqrt, emit2(c, OP_add, m, scalar_like(c, d, o->eps))));
}

static bool layer_norm(NodeCtx *c)
{
    Norm o = {0};
    if (!norm_begin(c, &o))
        return false;
    ValueId mean = emit_reduce(c, "mean", o.x, o.axes, o.n, true);
    ValueId d = emit2(c, OP_sub, o.x, mean), factor = norm_factor(c, &o, d);
    ValueId y = emit2(c, OP_mul, emit_cast(c, emit2(c, OP_mul, d, factor), o.type), c->in[1]);
    c->out[0] = c->in[2] != NONE ? emit2(c, OP_add, y, c->in[2]) : y;
    if (c->n_out > 1)
        c->out[1] = mean;
    if (c->n_out > 2)
        c->out[2] = factor;
    return true;
}

static ValueId rms(NodeCtx *c, const Norm *o, ValueId gain)
{
    ValueId y = emit_cast(c, emit2(c, OP_mul, o->x, norm_factor(c, o, o->x)), o->type);
    return emit2(c, OP_mul, y, emit_cast(c, gain, o->type));
}

static bool rms_norm(NodeCtx *c)
{
    Norm o = {0};
    if (!norm_begin(c, &o))
        return false;
    c->out[0] = rms(c, &o, c->in[1]);
    return true;
}

/* onnxruntime's: outputs are the norm, two that inference leaves out, and the sum that was normalised. */
static bool skip_rms_norm(NodeCtx *c)
{
    Norm o = {0};
    if (!need_floats(c))
        return false;
    ValueId sum = emit2(c, OP_add, c->in[0], c->in[1]);
    if (c->in[3] != NONE)
        sum = emit2(c, OP_add, sum, c->in[3]);
    c->in[0] = sum;
    if (c->failed || !norm_begin(c, &o))
        return false;
    c->out[0] = rms(c, &o, c->in[2]);
    if (c->n_out > 3)
        c->out[3] = sum;
    return true;
}

static bool batch_norm(NodeCtx *c)
{
    ValueId v[5] = {c->in[0]};
    if (!need_floats(c))
        return false;
    if (ctx_int(c, "training_mode", 0) != 0)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "training_mode is not supported");
    for (int i = 1; i < 5; i++) {
        Attr at = attr_i(AT_axis, 1);
        v[i] = emit(c, OP_dyn_axis, (ValueId[]){c->in[i], c->in[0]}, 2, &at, 1);
    }
    double eps = ctx_float(c, "epsilon", (double)1e-5f);
    ValueId root = emit1(c, OP_sqrt, emit2(c, OP_add, v[4], scalar_like(c, v[4], eps)));
    ValueId unit = emit2(c, OP_div, emit2(c, OP_sub, v[0], v[3]), root);
    c->out[0] = emit2(c, OP_add, emit2(c, OP_mul, unit, v[1]), v[2]);
    return true;
}

static bool dropout(NodeCtx *c)
{
    Tensor t;
    if (c->in[2] != NONE && (!value_literal(c, c->in[2], &t) || tensor_get_i64(&t, 0) != 0))
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "training_mode must be constant and false");
    c->out[0] = c->in[0];
    if (c->n_out > 1) {
        Tensor yes = {.dtype = DT_BOOL};
        CHECK(tensor_alloc(c->m->arena, &yes));
        tensor_set_i64(&yes, 0, 1);
        Attr at = attr_t(AT_value, yes);
        ValueId shape = emit1(c, OP_shape, c->in[0]);
        c->out[1] = emit(c, OP_dyn_fill, &shape, 1, &at, 1);
    }
    return true;
}

/* ---- activations -------------------------------------------------------------------------------------------------- */

static ValueId gelu_exact(NodeCtx *c, ValueId x)
{
    ValueId e = emit1(c, OP_erf, emit2(c, OP_mul, x, scalar_like(c, x, sqrt(0.5))));
    ValueId half = emit2(c, OP_mul, x, scalar_like(c, x, 0.5));
    return emit2(c, OP_mul, half, emit2(c, OP_add, e, scalar_like(c, x, 1)));
}

static bool gelu(NodeCtx *c)
{
    Str how = ctx_str(c, "approximate", c->row->arg != 0 ? "tanh" : "none");
    bool approx = str_is(how, "tanh");
    ValueId x = c->in[0];
    if (!need_floats(c))
        return false;
    if (!approx && !str_is(how, "none"))
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "approximate is '%s', neither none nor tanh",
                         diag_show(c->im->d, how));
    if (c->in[1] != NONE)
        x = emit2(c, OP_add, x, c->in[1]); /* FastGelu's bias */
    c->out[0] = approx ? emit1(c, OP_gelu, x) : gelu_exact(c, x);
    return true;
}

/* y where x > 0, else n */
static ValueId split_at_zero(NodeCtx *c, ValueId x, ValueId y, ValueId n)
{
    return emit3(c, OP_select, emit2(c, OP_gt, x, scalar_like(c, x, 0)), y, n);
}

static ValueId scaled(NodeCtx *c, ValueId x, double by)
{
    return by == 1 ? x : emit2(c, OP_mul, x, scalar_like(c, x, by));
}

/* log(1 + e^x) without overflow */
static ValueId softplus_of(NodeCtx *c, ValueId x)
{
    ValueId small = emit1(c, OP_exp, emit1(c, OP_neg, emit1(c, OP_abs, x)));
    ValueId tail = emit1(c, OP_log, emit2(c, OP_add, small, scalar_like(c, x, 1)));
    return emit2(c, OP_add, emit1(c, OP_relu, x), tail);
}

/* max(0, min(1, a x + b)) */
static ValueId hard_sigmoid_of(NodeCtx *c, ValueId x, double a, double b)
{
    ValueId line = emit2(c, OP_add, scaled(c, x, a), scalar_like(c, x, b));
    return emit2(c, OP_max, emit2(c, OP_min, line, scalar_like(c, x, 1)), scalar_like(c, x, 0));
}

static ValueId exp_minus_1(NodeCtx *c, ValueId x)
{
    return emit2(c, OP_sub, emit1(c, OP_exp, x), scalar_like(c, x, 1));
}

enum { A_LEAKY, A_ELU, A_SELU, A_CELU, A_SOFTPLUS, A_SOFTSIGN, A_HARD_SIGMOID, A_HARD_SWISH, A_MISH, A_SWISH,
       A_THRESHOLD, A_PRELU };

static bool activation(NodeCtx *c)
{
    ValueId x = c->in[0];
    if (!need_floats(c))
        return false;
    double alpha = ctx_float(c, "alpha", 1), gamma;
    switch (c->row->arg) {
    case A_LEAKY:
        c->out[0] = split_at_zero(c, x, x, scaled(c, x, ctx_float(c, "alpha", (double)0.01f)));
        break;
    case A_ELU:
        c->out[0] = split_at_zero(c, x, x, scaled(c, exp_minus_1(c, x), alpha));
        break;
    case A_SELU:
        alpha = ctx_float(c, "alpha", (double)1.67326319217681884765625f);
        gamma = ctx_float(c, "gamma", (double)1.05070102214813232421875f);
        c->out[0] = scaled(c, split_at_zero(c, x, x, scaled(c, exp_minus_1(c, x), alpha)), gamma);
        break;
    case A_CELU:
        c->out[0] = split_at_zero(
            c, x, x, scaled(c, exp_minus_1(c, emit2(c, OP_div, x, scalar_like(c, x, alpha))), alpha));
        break;
    case A_SOFTPLUS:
        c->out[0] = softplus_of(c, x);
        break;
    case A_SOFTSIGN:
        c->out[0] = emit2(c, OP_div, x, emit2(c, OP_add, emit1(c, OP_abs, x), scalar_like(c, x, 1)));
        break;
    case A_HARD_SIGMOID:
        c->out[0] = hard_sigmoid_of(c, x, ctx_float(c, "alpha", (double)0.2f), ctx_float(c, "beta", 0.5));
        break;
    case A_HARD_SWISH:
        c->out[0] = emit2(c, OP_mul, x, hard_sigmoid_of(c, x, 1.0 / 6, 0.5));
        break;
    case A_MISH:
        c->out[0] = emit2(c, OP_mul, x, emit1(c, OP_tanh, softplus_of(c, x)));
        break;
    case A_SWISH:
        c->out[0] = emit2(c, OP_mul, x, emit1(c, OP_sigmoid, scaled(c, x, alpha)));
        break;
    case A_THRESHOLD:
        c->out[0] = emit3(c, OP_select, emit2(c, OP_gt, x, scalar_like(c, x, alpha)), x, scalar_like(c, x, 0));
        break;
    default:
        c->out[0] = emit3(c, OP_select, emit2(c, OP_lt, x, scalar_like(c, x, 0)), emit2(c, OP_mul, x, c->in[1]), x);
    }
    return true;
}

#define NORM_ATTRS "axis:i epsilon:f stash_type:i"
#define ACTIVATION(name, since, attrs, arg) {"", name, since, OPSET_ANY, 1, 1, 1, attrs, activation, arg}

const OpRow onnx_ops_nn[] = {
    {"", "LayerNormalization", 17, OPSET_ANY, 2, 3, 3, NORM_ATTRS, layer_norm, 0},
    {"", "RMSNormalization", 23, OPSET_ANY, 2, 2, 1, NORM_ATTRS, rms_norm, 0},
    {"", "SimplifiedLayerNormalization", 1, OPSET_ANY, 2, 2, 1, NORM_ATTRS, rms_norm, 0}, /* onnxruntime's */
    {"com.microsoft", "SimplifiedLayerNormalization", 1, OPSET_ANY, 2, 2, 1, NORM_ATTRS, rms_norm, 0},
    {"com.microsoft", "SkipSimplifiedLayerNormalization", 1, OPSET_ANY, 3, 4, 4, "epsilon:f", skip_rms_norm, 0},
    {"", "BatchNormalization", 9, 13, 5, 5, 1, "epsilon:f momentum:f", batch_norm, 0},
    {"", "BatchNormalization", 14, OPSET_ANY, 5, 5, 1, "epsilon:f momentum:f training_mode:i", batch_norm, 0},
    {"", "Dropout", 7, 11, 1, 1, 2, "ratio:f", dropout, 0},
    {"", "Dropout", 12, OPSET_ANY, 1, 3, 2, "seed:i", dropout, 0},
    {"", "Gelu", 20, OPSET_ANY, 1, 1, 1, "approximate:s", gelu, 0},
    {"com.microsoft", "Gelu", 1, OPSET_ANY, 1, 1, 1, "", gelu, 0},
    {"com.microsoft", "FastGelu", 1, OPSET_ANY, 1, 2, 1, "", gelu, 1},
    ACTIVATION("LeakyRelu", 6, "alpha:f", A_LEAKY),
    ACTIVATION("Elu", 6, "alpha:f", A_ELU),
    ACTIVATION("Selu", 6, "alpha:f gamma:f", A_SELU),
    ACTIVATION("Celu", 12, "alpha:f", A_CELU),
    ACTIVATION("Softplus", 1, "", A_SOFTPLUS),
    ACTIVATION("Softsign", 1, "", A_SOFTSIGN),
    ACTIVATION("HardSigmoid", 6, "alpha:f beta:f", A_HARD_SIGMOID),
    ACTIVATION("HardSwish", 14, "", A_HARD_SWISH),
    ACTIVATION("Mish", 18, "", A_MISH),
    ACTIVATION("Swish", 24, "alpha:f", A_SWISH),
    ACTIVATION("ThresholdedRelu", 10, "alpha:f", A_THRESHOLD),
    {"", "PRelu", 7, OPSET_ANY, 2, 2, 1, "", activation, A_PRELU},
    {0},
};
