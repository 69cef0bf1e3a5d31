/* Import rules of operators that fold axes: reductions, softmax, arg-max, running sums, matrix products. */
#include "onnx_impl.h"

/* ---- reductions: axes are an attribute at first, an operand from opset 13 (ReduceSum) or 18 on ------------- */

static ValueId reduce_as(NodeCtx *c, const char *kind, ValueId v, bool keep)
{
    const int64_t *axes;
    uint32_t n, n_at = 3;
    bool given = ctx_ints(c, "axes", &axes, &n) && n > 0; /* an empty list is none */
    Attr at[4] = {attr_s(AT_kind, str_c(kind)), attr_i(AT_keep, keep), attr_i(AT_noop, ctx_int(c, "noop_with_empty_axes", 0) != 0)};
    if (given)
        at[n_at++] = attr_ints(AT_axes, axes, n);
    return emit(c, OP_dyn_reduce, (ValueId[]){v, c->in[1]}, c->in[1] != NONE ? 2 : 1, at, n_at);
}

enum { R_SUM, R_MEAN, R_MAX, R_MIN, R_PROD, R_L1, R_L2, R_SQUARE, R_LOGSUM, R_LOGSUMEXP };

static bool reduce(NodeCtx *c)
{
    static const char *const kinds[] = {"sum", "mean", "max", "min", "prod"};
    bool keep = ctx_int(c, "keepdims", 1) != 0;
    ValueId x = c->in[0];
    DType t = value_dtype(c, x);
    int how = c->row->arg;
    if (c->in[1] != NONE && value_dtype(c, c->in[1]) != DT_I64)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "axes are %s, not int64",
                         dtype_name(value_dtype(c, c->in[1])));
    if ((t == DT_BOOL && (c->opset < 20 || (how != R_MAX && how != R_MIN))) ||
        (how >= R_LOGSUM && !dtype_is_float(t)))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "does not take %s", dtype_name(t));
    switch (how) {
    case R_L1:
        c->out[0] = reduce_as(c, "sum", emit1(c, OP_abs, x), keep);
        break;
    case R_L2:
        c->out[0] = emit1(c, OP_sqrt, reduce_as(c, "sum", emit2(c, OP_mul, x, x), keep));
        break;
    case R_SQUARE:
        c->out[0] = reduce_as(c, "sum", emit2(c, OP_mul, x, x), keep);
        break;
    case R_LOGSUM:
        c->out[0] = emit1(c, OP_log, reduce_as(c, "sum", x, keep));
        break;
    case R_LOGSUMEXP: {
        /* the maximum is taken out so that nothing overflows, unless it is infinite itself */
        ValueId top = reduce_as(c, "max", x, true);
        top = emit3(c, OP_select, emit1(c, OP_isinf, top), emit_scalar(c, t, 0), top);
        ValueId sum = reduce_as(c, "sum", emit1(c, OP_exp, emit2(c, OP_sub, x, top)), keep);
        ValueId back = keep ? top : reduce_as(c, "sum", top, false); /* extents are 1: drops the axes */
        c->out[0] = emit2(c, OP_add, emit1(c, OP_log, sum), back);
        break;
    }
    default:
        c->out[0] = reduce_as(c, kinds[how], x, keep);
    }
    return true;
}

/* ---- softmax: before opset 13 the axes from `axis` on are one ---------------------------------------------- */

static bool softmax(NodeCtx *c)
{
    bool old = c->opset < 13;
    if (!dtype_is_float(value_dtype(c, c->in[0])))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes floats, not %s",
                         dtype_name(value_dtype(c, c->in[0])));
    Attr at[2] = {attr_i(AT_axis, ctx_int(c, "axis", old ? 1 : -1)), attr_i(AT_keep, 1)};
    c->out[0] = emit(c, OP_dyn_softmax, c->in, 1, at, old ? 2 : 1);
    return true;
}

static bool log_softmax(NodeCtx *c)
{
    bool old = c->opset < 13;
    int64_t axis = ctx_int(c, "axis", old ? 1 : -1);
    ValueId x = c->in[0], shape = NONE;
    if (!dtype_is_float(value_dtype(c, x)))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes floats, not %s", dtype_name(value_dtype(c, x)));
    if (old) {
        shape = emit1(c, OP_shape, x);
        x = emit1_int(c, OP_dyn_flatten, x, AT_axis, axis);
        axis = 1;
    }
    ValueId d = emit2(c, OP_sub, x, emit_reduce(c, "max", x, &axis, 1, true));
    ValueId sum = emit_reduce(c, "sum", emit1(c, OP_exp, d), &axis, 1, true);
    ValueId y = emit2(c, OP_sub, d, emit1(c, OP_log, sum));
    if (old) {
        Attr at = attr_i(AT_allowzero, 1);
        y = emit(c, OP_dyn_reshape, (ValueId[]){y, shape}, 2, &at, 1);
    }
    c->out[0] = y;
    return true;
}

/* ---- positions ------------------------------------------------------------------------------------------------ */

static bool arg_extreme(NodeCtx *c)
{
    ValueId x = c->in[0];
    DType t = value_dtype(c, x);
    if (t == DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes numbers, not bool");
    if (c->row->arg != 0) { /* the least: the greatest of what is negated, in a type that can be */
        if (!dtype_is_float(t) && t != DT_I64)
            x = emit_cast(c, x, t == DT_I32 ? DT_I64 : DT_I32);
        /* for integers -1 - x, which has no overflow */
        x = dtype_is_float(t) ? emit1(c, OP_neg, x) : emit2(c, OP_sub, emit_scalar(c, value_dtype(c, x), -1), x);
    }
    Attr at[3] = {attr_i(AT_axis, ctx_int(c, "axis", 0)), attr_i(AT_keep, ctx_int(c, "keepdims", 1) != 0),
                  attr_i(AT_last, ctx_int(c, "select_last_index", 0) != 0)};
    c->out[0] = emit(c, OP_dyn_argmax, &x, 1, at, 3);
    return true;
}

static bool cumsum(NodeCtx *c)
{
    Attr at[2] = {attr_i(AT_exclusive, ctx_int(c, "exclusive", 0) != 0),
                  attr_i(AT_reverse, ctx_int(c, "reverse", 0) != 0)};
    c->out[0] = emit(c, OP_dyn_cumsum, c->in, 2, at, 2);
    return true;
}

/* ---- products -------------------------------------------------------------------------------------------------- */

static bool product_types(NodeCtx *c)
{
    DType a = value_dtype(c, c->in[0]), b = value_dtype(c, c->in[1]);
    if (a != b || a == DT_BOOL)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "operands of types %s and %s", dtype_name(a),
                         dtype_name(b));
    return true;
}

static bool matmul(NodeCtx *c)
{
    if (!product_types(c))
        return false;
    c->out[0] = emit2(c, OP_dyn_matmul, c->in[0], c->in[1]);
    return true;
}

static ValueId scaled(NodeCtx *c, ValueId v, double by)
{
    return by == 1 ? v : emit2(c, OP_mul, v, emit_scalar(c, value_dtype(c, v), by));
}

static bool gemm(NodeCtx *c)
{
    static const int64_t swap[2] = {1, 0};
    Attr perm = attr_ints(AT_perm, swap, 2);
    ValueId side[2] = {c->in[0], c->in[1]};
    if (!product_types(c))
        return false;
    for (int i = 0; i < 2; i++) {
        int rank = value_rank(c, side[i]);
        if (rank != UNRANKED && rank != 2)
            return ctx_error(c, DIAG_SHAPE_AXIS, "input %d has rank %d, not 2", i, rank);
        if (ctx_int(c, i == 0 ? "transA" : "transB", 0) != 0)
            side[i] = emit(c, OP_dyn_transpose, &side[i], 1, &perm, 1);
    }
    ValueId y = scaled(c, emit2(c, OP_matmul, side[0], side[1]), ctx_float(c, "alpha", 1));
    if (c->in[2] != NONE && ctx_float(c, "beta", 1) != 0)
        y = emit2(c, OP_add, y, scaled(c, c->in[2], ctx_float(c, "beta", 1)));
    c->out[0] = y;
    return true;
}

static bool fused_matmul(NodeCtx *c)
{
    if (ctx_int(c, "transBatchA", 0) != 0 || ctx_int(c, "transBatchB", 0) != 0)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "transBatchA and transBatchB are not supported");
    if (!product_types(c))
        return false;
    Attr at[2] = {attr_i(AT_ta, ctx_int(c, "transA", 0) != 0), attr_i(AT_tb, ctx_int(c, "transB", 0) != 0)};
    c->out[0] = scaled(c, emit(c, OP_matmul, c->in, 2, at, 2), ctx_float(c, "alpha", 1));
    return true;
}

#define REDUCE(name, arg)                                                                                       \
    {"", name, 1, 17, 1, 1, 1, "axes:I keepdims:i", reduce, arg},                                                 \
    {                                                                                                            \
        "", name, 18, OPSET_ANY, 1, 2, 1, "keepdims:i noop_with_empty_axes:i", reduce, arg                         \
    }

const OpRow onnx_ops_reduce[] = {
    {"", "ReduceSum", 1, 12, 1, 1, 1, "axes:I keepdims:i", reduce, R_SUM},
    {"", "ReduceSum", 13, OPSET_ANY, 1, 2, 1, "keepdims:i noop_with_empty_axes:i", reduce, R_SUM},
    REDUCE("ReduceMean", R_MEAN),
    REDUCE("ReduceMax", R_MAX),
    REDUCE("ReduceMin", R_MIN),
    REDUCE("ReduceProd", R_PROD),
    REDUCE("ReduceL1", R_L1),
    REDUCE("ReduceL2", R_L2),
    REDUCE("ReduceSumSquare", R_SQUARE),
    REDUCE("ReduceLogSum", R_LOGSUM),
    REDUCE("ReduceLogSumExp", R_LOGSUMEXP),
    {"", "Softmax", 1, OPSET_ANY, 1, 1, 1, "axis:i", softmax, 0},
    {"", "LogSoftmax", 1, OPSET_ANY, 1, 1, 1, "axis:i", log_softmax, 0},
    {"", "ArgMax", 1, 11, 1, 1, 1, "axis:i keepdims:i", arg_extreme, 0},
    {"", "ArgMax", 12, OPSET_ANY, 1, 1, 1, "axis:i keepdims:i select_last_index:i", arg_extreme, 0},
    {"", "ArgMin", 1, 11, 1, 1, 1, "axis:i keepdims:i", arg_extreme, 1},
    {"", "ArgMin", 12, OPSET_ANY, 1, 1, 1, "axis:i keepdims:i select_last_index:i", arg_extreme, 1},
    {"", "CumSum", 11, OPSET_ANY, 2, 2, 1, "exclusive:i reverse:i", cumsum, 0},
    {"", "MatMul", 1, OPSET_ANY, 2, 2, 1, "", matmul, 0},
    {"", "Gemm", 7, 10, 3, 3, 1, "alpha:f beta:f transA:i transB:i", gemm, 0},
    {"", "Gemm", 11, OPSET_ANY, 2, 3, 1, "alpha:f beta:f transA:i transB:i", gemm, 0},
    {"com.microsoft", "FusedMatMul", 1, OPSET_ANY, 2, 2, 1,
     "alpha:f transA:i transB:i transBatchA:i transBatchB:i", fused_matmul, 0},
    {0},
};
