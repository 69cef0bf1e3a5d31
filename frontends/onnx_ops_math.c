/* Import rules of operators that work element by element. `since` is the opset from which the operator has the
 * meaning implemented here: before opset 7 broadcasting was an attribute. */
#include "onnx_impl.h"

#include <float.h>
#include <math.h>

static bool need_float(NodeCtx *c, ValueId v)
{
    return dtype_is_float(value_dtype(c, v)) ||
           ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes floats, not %s", dtype_name(value_dtype(c, v)));
}

static bool unary(NodeCtx *c)
{
    if (value_dtype(c, c->in[0]) == DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes numbers, not bool");
    c->out[0] = emit1(c, (Op)c->row->arg, c->in[0]);
    return true;
}

static bool unary_float(NodeCtx *c)
{
    return need_float(c, c->in[0]) && unary(c);
}

static bool identity(NodeCtx *c)
{
    c->out[0] = c->in[0];
    return true;
}

static bool logical_not(NodeCtx *c)
{
    if (value_dtype(c, c->in[0]) != DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes bool, not %s",
                         dtype_name(value_dtype(c, c->in[0])));
    c->out[0] = emit1(c, OP_not, c->in[0]);
    return true;
}

static bool same_types(NodeCtx *c)
{
    for (uint32_t i = 1; i < c->n_in; i++)
        if (value_dtype(c, c->in[i]) != value_dtype(c, c->in[0]))
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "operands of types %s and %s",
                             dtype_name(value_dtype(c, c->in[0])), dtype_name(value_dtype(c, c->in[i])));
    return true;
}

static bool logical(NodeCtx *c)
{
    if (value_dtype(c, c->in[0]) != DT_BOOL || value_dtype(c, c->in[1]) != DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes two bools");
    c->out[0] = emit2(c, (Op)c->row->arg, c->in[0], c->in[1]);
    return true;
}

static bool arithmetic(NodeCtx *c)
{
    if (!same_types(c))
        return false;
    if (value_dtype(c, c->in[0]) == DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes numbers, not bool");
    c->out[0] = emit2(c, (Op)c->row->arg, c->in[0], c->in[1]);
    return true;
}

static bool equal(NodeCtx *c)
{
    if (same_types(c))
        c->out[0] = emit2(c, OP_eq, c->in[0], c->in[1]);
    return true;
}

/* Min and Max took integers only from opset 12 on. */
static bool variadic(NodeCtx *c)
{
    Op op = (Op)c->row->arg;
    if (!same_types(c))
        return false;
    DType t = value_dtype(c, c->in[0]);
    if (!dtype_is_float(t) && (t == DT_BOOL || op == OP_add || c->opset < 12))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "does not take %s in opset %d", dtype_name(t), c->opset);
    ValueId v = c->in[0];
    for (uint32_t i = 1; i < c->n_in; i++)
        v = emit2(c, op, v, c->in[i]);
    c->out[0] = v;
    return true;
}

static bool mean(NodeCtx *c)
{
    if (!need_float(c, c->in[0]) || !variadic(c))
        return false;
    if (c->n_in > 1)
        c->out[0] = emit2(c, OP_div, c->out[0], emit_scalar(c, value_dtype(c, c->in[0]), c->n_in));
    return true;
}

static bool power(NodeCtx *c)
{
    DType a = value_dtype(c, c->in[0]), b = value_dtype(c, c->in[1]);
    if (a == DT_BOOL || b == DT_BOOL || (c->opset < 12 && a != b))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "operands of types %s and %s", dtype_name(a),
                         dtype_name(b));
    c->out[0] = emit2(c, OP_pow, c->in[0], c->in[1]);
    return true;
}

static bool modulo(NodeCtx *c)
{
    bool c_style = ctx_int(c, "fmod", 0) != 0;
    if (!same_types(c))
        return false;
    if (!c_style && dtype_is_float(value_dtype(c, c->in[0])))
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "of floats needs fmod = 1");
    c->out[0] = emit2(c, c_style ? OP_fmod : OP_mod, c->in[0], c->in[1]);
    return true;
}

static bool clip_attrs(NodeCtx *c)
{
    if (!need_float(c, c->in[0]))
        return false;
    DType t = value_dtype(c, c->in[0]);
    ValueId v = c->in[0];
    if (ctx_has(c, "min"))
        v = emit2(c, OP_max, v, emit_scalar(c, t, ctx_float(c, "min", -FLT_MAX)));
    if (ctx_has(c, "max"))
        v = emit2(c, OP_min, v, emit_scalar(c, t, ctx_float(c, "max", FLT_MAX)));
    c->out[0] = v;
    return true;
}

static bool clip_inputs(NodeCtx *c)
{
    ValueId v = c->in[0];
    DType t = value_dtype(c, v);
    for (int i = 1; i <= 2; i++)
        if (c->in[i] != NONE && value_dtype(c, c->in[i]) != t)
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "bounds of type %s for data of type %s",
                             dtype_name(value_dtype(c, c->in[i])), dtype_name(t));
    if (t == DT_BOOL || (c->opset < 12 && !dtype_is_float(t)))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "does not take %s in opset %d", dtype_name(t), c->opset);
    if (c->in[1] != NONE)
        v = emit2(c, OP_max, v, c->in[1]);
    if (c->in[2] != NONE)
        v = emit2(c, OP_min, v, c->in[2]);
    c->out[0] = v;
    return true;
}

static bool cast(NodeCtx *c)
{
    int64_t to = ctx_int(c, "to", 0);
    DType t;
    if (to < INT32_MIN || to > INT32_MAX || !onnx_dtype((int32_t)to, &t))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "to element type %lld (%s) is not supported",
                         (long long)to,
                         to > 0 && to < 100 ? onnx_dtype_name((int32_t)to) : "unknown to ONNX");
    c->out[0] = emit_cast(c, c->in[0], t);
    return true;
}

static bool cast_like(NodeCtx *c)
{
    c->out[0] = emit_cast(c, c->in[0], value_dtype(c, c->in[1]));
    return true;
}

static bool is_inf(NodeCtx *c)
{
    bool low = ctx_int(c, "detect_negative", 1) != 0, high = ctx_int(c, "detect_positive", 1) != 0;
    ValueId x = c->in[0];
    DType t = value_dtype(c, x);
    if (!need_float(c, x))
        return false;
    if (low == high) {
        ValueId v = emit1(c, OP_isinf, x);
        c->out[0] = low ? v : emit2(c, OP_and, v, emit1(c, OP_not, v));
    } else {
        c->out[0] = emit2(c, OP_eq, x, emit_scalar(c, t, high ? (double)INFINITY : -(double)INFINITY));
    }
    return true;
}

static bool where(NodeCtx *c)
{
    if (value_dtype(c, c->in[0]) != DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "the condition is %s, not bool",
                         dtype_name(value_dtype(c, c->in[0])));
    if (value_dtype(c, c->in[1]) != value_dtype(c, c->in[2]))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "operands of types %s and %s",
                         dtype_name(value_dtype(c, c->in[1])), dtype_name(value_dtype(c, c->in[2])));
    c->out[0] = emit3(c, OP_select, c->in[0], c->in[1], c->in[2]);
    return true;
}

#define UNARY(name, since, rule, op) {"", name, since, OPSET_ANY, 1, 1, 1, "", rule, op}
/* The same before broadcasting was the rule and results could overwrite operands: operands of equal extents only. */
#define OLD(name, until, n, rule, op) {"", name, 1, until, n, n, 1, "consumed_inputs:I", rule, op}
#define BINARY(name, since, rule, op) {"", name, since, OPSET_ANY, 2, 2, 1, "", rule, op}

const OpRow onnx_ops_math[] = {
    UNARY("Neg", 6, unary, OP_neg),
    UNARY("Abs", 6, unary, OP_abs),
    UNARY("Relu", 6, unary, OP_relu),
    UNARY("Sign", 9, unary, OP_sign),
    UNARY("Sqrt", 6, unary_float, OP_sqrt),
    UNARY("Reciprocal", 6, unary_float, OP_recip),
    UNARY("Exp", 6, unary_float, OP_exp),
    UNARY("Log", 6, unary_float, OP_log),
    UNARY("Tanh", 6, unary_float, OP_tanh),
    UNARY("Erf", 9, unary_float, OP_erf),
    UNARY("Sigmoid", 6, unary_float, OP_sigmoid),
    UNARY("Floor", 6, unary_float, OP_floor),
    UNARY("Ceil", 6, unary_float, OP_ceil),
    UNARY("Round", 11, unary_float, OP_round),
    UNARY("IsNaN", 9, unary_float, OP_isnan),
    UNARY("Not", 1, logical_not, 0),
    UNARY("Identity", 1, identity, 0),
    BINARY("Add", 7, arithmetic, OP_add),
    BINARY("Sub", 7, arithmetic, OP_sub),
    BINARY("Mul", 7, arithmetic, OP_mul),
    BINARY("Div", 7, arithmetic, OP_div),
    BINARY("Less", 7, arithmetic, OP_lt),
    BINARY("Greater", 7, arithmetic, OP_gt),
    BINARY("LessOrEqual", 12, arithmetic, OP_le),
    BINARY("GreaterOrEqual", 12, arithmetic, OP_ge),
    BINARY("Equal", 7, equal, 0),
    BINARY("And", 7, logical, OP_and),
    BINARY("Or", 7, logical, OP_or),
    BINARY("Xor", 7, logical, OP_xor),
    BINARY("Pow", 7, power, 0),
    OLD("Neg", 5, 1, unary, OP_neg),
    OLD("Abs", 5, 1, unary, OP_abs),
    OLD("Relu", 5, 1, unary, OP_relu),
    OLD("Sqrt", 5, 1, unary_float, OP_sqrt),
    OLD("Reciprocal", 5, 1, unary_float, OP_recip),
    OLD("Exp", 5, 1, unary_float, OP_exp),
    OLD("Log", 5, 1, unary_float, OP_log),
    OLD("Tanh", 5, 1, unary_float, OP_tanh),
    OLD("Sigmoid", 5, 1, unary_float, OP_sigmoid),
    OLD("Floor", 5, 1, unary_float, OP_floor),
    OLD("Ceil", 5, 1, unary_float, OP_ceil),
    OLD("Add", 6, 2, arithmetic, OP_add),
    OLD("Sub", 6, 2, arithmetic, OP_sub),
    OLD("Mul", 6, 2, arithmetic, OP_mul),
    OLD("Div", 6, 2, arithmetic, OP_div),
    OLD("Less", 6, 2, arithmetic, OP_lt),
    OLD("Greater", 6, 2, arithmetic, OP_gt),
    OLD("And", 6, 2, logical, OP_and),
    OLD("Or", 6, 2, logical, OP_or),
    OLD("Xor", 6, 2, logical, OP_xor),
    OLD("Pow", 6, 2, power, 0),
    OLD("Equal", 6, 2, equal, 0),
    {"", "Mod", 10, OPSET_ANY, 2, 2, 1, "fmod:i", modulo, 0},
    {"", "Min", 6, OPSET_ANY, 1, -1, 1, "", variadic, OP_min},
    {"", "Max", 6, OPSET_ANY, 1, -1, 1, "", variadic, OP_max},
    {"", "Sum", 6, OPSET_ANY, 1, -1, 1, "", variadic, OP_add},
    {"", "Mean", 6, OPSET_ANY, 1, -1, 1, "", mean, OP_add},
    {"", "Clip", 6, 10, 1, 1, 1, "min:f max:f", clip_attrs, 0},
    {"", "Clip", 11, OPSET_ANY, 1, 3, 1, "", clip_inputs, 0},
    {"", "Cast", 6, 18, 1, 1, 1, "to:i!", cast, 0},
    {"", "Cast", 19, OPSET_ANY, 1, 1, 1, "to:i! saturate:i round_mode:s", cast, 0},
    {"", "CastLike", 15, OPSET_ANY, 2, 2, 1, "saturate:i round_mode:s", cast_like, 0},
    {"", "IsInf", 10, OPSET_ANY, 1, 1, 1, "detect_negative:i detect_positive:i", is_inf, 0},
    {"", "Where", 9, OPSET_ANY, 3, 3, 1, "", where, 0},
    {0},
};
