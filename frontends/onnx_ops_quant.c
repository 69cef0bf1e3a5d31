/* Import rules of 8-bit arithmetic. Scales and zero points are scalars, vectors along one axis, or one value a
 * block of elements along it. */
#include "onnx_impl.h"

static ValueId along(NodeCtx *c, ValueId v, ValueId data, int64_t axis)
{
    Attr at = attr_i(AT_axis, axis);
    return emit(c, OP_dyn_axis, (ValueId[]){v, data}, 2, &at, 1);
}

/* A scale or zero point under the data: element i of the axis takes entry i / block. */
static ValueId spread(NodeCtx *c, ValueId v, ValueId data, int64_t axis)
{
    int64_t block = ctx_int(c, "block_size", 0);
    int rank = value_rank(c, data);
    if (block == 0)
        return along(c, v, data, axis);
    if (block < 0 || rank == UNRANKED || axis < -(int64_t)rank || axis >= rank) {
        ctx_error(c, DIAG_ONNX_ATTRIBUTE, "block_size or axis does not fit the data");
        return NONE;
    }
    axis += axis < 0 ? rank : 0;
    Dim from = dim_const(c->m->dims, axis);
    Attr one_axis[2] = {attr_dims(AT_start, &from, 1), attr_i(AT_k, 1)}, at = attr_i(AT_axis, axis);
    Attr first = attr_ints(AT_axes, &(int64_t){0}, 1);
    ValueId extent = emit(c, OP_shape, &data, 1, one_axis, 2);
    extent = emit(c, OP_dyn_squeeze, &extent, 1, &first, 1);
    ValueId i = emit3(c, OP_dyn_range, emit_scalar(c, DT_I64, 0), extent, emit_scalar(c, DT_I64, 1));
    i = emit2(c, OP_div, i, emit_scalar(c, DT_I64, (double)block));
    return emit(c, OP_dyn_gather, (ValueId[]){v, i}, 2, &at, 1);
}

static bool dynamic_quantize(NodeCtx *c)
{
    if (value_dtype(c, c->in[0]) != DT_F32)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes float, not %s",
                         dtype_name(value_dtype(c, c->in[0])));
    ValueId first = emit(c, OP_dyn_quantize, c->in, 1, NULL, 0);
    for (uint32_t i = 0; i < c->n_out && !c->failed; i++)
        c->out[i] = first + i;
    return true;
}

static bool byte_type(DType t)
{
    return t == DT_U8 || t == DT_I8;
}

static bool matmul_integer(NodeCtx *c)
{
    ValueId side[2];
    for (int i = 0; i < 2; i++) {
        if (!byte_type(value_dtype(c, c->in[i])))
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "input %d is %s, not an 8-bit integer", i,
                             dtype_name(value_dtype(c, c->in[i])));
        side[i] = emit_cast(c, c->in[i], DT_I32);
        ValueId zero = c->in[2 + i];
        if (zero == NONE)
            continue;
        if (value_dtype(c, zero) != value_dtype(c, c->in[i]))
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "zero point of another type than its operand's");
        zero = along(c, zero, c->in[i], i == 0 ? -2 : -1); /* by rows of A, by columns of B */
        side[i] = emit2(c, OP_sub, side[i], emit_cast(c, zero, DT_I32));
    }
    c->out[0] = emit2(c, OP_dyn_matmul, side[0], side[1]);
    return true;
}

static bool dequantize(NodeCtx *c)
{
    ValueId x = c->in[0];
    int64_t axis = ctx_int(c, "axis", 1), to = ctx_int(c, "output_dtype", 0);
    DType t = value_dtype(c, c->in[1]), out = t;
    if (dtype_is_float(value_dtype(c, x)) || value_dtype(c, x) == DT_BOOL || value_dtype(c, x) == DT_I64)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "takes 8, 16 or 32-bit integers, not %s",
                         dtype_name(value_dtype(c, x)));
    if (!dtype_is_float(t) || (to != 0 && (to > INT32_MAX || !onnx_dtype((int32_t)to, &out) || !dtype_is_float(out))))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "the scale or output_dtype is not a float");
    if (c->in[2] != NONE && value_dtype(c, c->in[2]) != value_dtype(c, x))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "zero point of another type than the data");
    ValueId v = emit_cast(c, x, DT_I32);
    if (c->in[2] != NONE)
        v = emit2(c, OP_sub, v, emit_cast(c, spread(c, c->in[2], x, axis), DT_I32));
    v = emit2(c, OP_mul, emit_cast(c, v, t), spread(c, c->in[1], x, axis));
    c->out[0] = emit_cast(c, v, out);
    return true;
}

static bool quantize(NodeCtx *c)
{
    static const struct {
        double lo, hi;
    } range[DT_COUNT] = {
        [DT_U8] = {0, UINT8_MAX},
        [DT_I8] = {INT8_MIN, INT8_MAX},
        [DT_U16] = {0, UINT16_MAX},
        [DT_I16] = {INT16_MIN, INT16_MAX},
    };
    ValueId x = c->in[0];
    int64_t axis = ctx_int(c, "axis", 1), to = ctx_int(c, "output_dtype", 0);
    DType out = c->in[2] != NONE ? value_dtype(c, c->in[2]) : DT_U8, given = out;
    if (to != 0 && (to > INT32_MAX || !onnx_dtype((int32_t)to, &given) || (c->in[2] != NONE && given != out)))
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "output_dtype is not supported or not the zero point's");
    out = given;
    if (range[out].hi == 0)
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "to %s is not supported", dtype_name(out));
    DType t = value_dtype(c, x) == DT_F64 ? DT_F64 : DT_F32;
    ValueId scale = emit_cast(c, spread(c, c->in[1], x, axis), t);
    ValueId v = emit1(c, OP_round, emit2(c, OP_div, emit_cast(c, x, t), scale));
    if (c->in[2] != NONE)
        v = emit2(c, OP_add, v, emit_cast(c, spread(c, c->in[2], x, axis), t));
    v = emit2(c, OP_max, v, emit_scalar(c, t, range[out].lo));
    v = emit2(c, OP_min, v, emit_scalar(c, t, range[out].hi));
    c->out[0] = emit_cast(c, v, out);
    return true;
}

const OpRow onnx_ops_quant[] = {
    {"", "DynamicQuantizeLinear", 11, OPSET_ANY, 1, 1, 3, "", dynamic_quantize, 0},
    {"", "MatMulInteger", 10, OPSET_ANY, 2, 4, 1, "", matmul_integer, 0},
    {"", "DequantizeLinear", 10, 12, 2, 3, 1, "", dequantize, 0},
    {"", "DequantizeLinear", 13, OPSET_ANY, 2, 3, 1, "axis:i block_size:i output_dtype:i", dequantize, 0},
    {"", "QuantizeLinear", 10, 12, 2, 3, 1, "", quantize, 0},
    {"", "QuantizeLinear", 13, OPSET_ANY, 2, 3, 1,
     "axis:i saturate:i block_size:i output_dtype:i precision:i", quantize, 0},
    {0},
};
