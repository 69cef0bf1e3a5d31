/* Import rules of constants and of operators that make, read or change extents, or move elements. Nearly all
 * become dynamic ops: negative axes and computed extents are resolved by `bind`. */
#include "onnx_impl.h"

#include <string.h>

static bool plain(NodeCtx *c)
{
    c->out[0] = emit(c, (Op)c->row->arg, c->in, c->n_in, NULL, 0);
    return true;
}

/* An operand that holds extents, axes or positions. */
static bool need_ints(NodeCtx *c, uint32_t i)
{
    DType t = i < c->n_in && c->in[i] != NONE ? value_dtype(c, c->in[i]) : DT_I64;
    return t == DT_I64 || t == DT_I32 ||
           ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "input %u is %s, not int64", i, dtype_name(t));
}

static bool indexed(NodeCtx *c)
{
    for (uint32_t i = 1; i < c->n_in; i++)
        if (!need_ints(c, i))
            return false;
    return plain(c);
}

static bool constant_tensor(NodeCtx *c, Tensor *t)
{
    int64_t n = 0;
    CHECK(tensor_count(t, &n));
    if (n > ONNX_SMALL) {
        ParamId p = onnx_param(c->m, c->im->file->owner, t, onnx_str(c->m, c->node->output[0]),
                               dtype_is_float(t->dtype) ? PK_FROZEN : PK_CONST, str_c(c->im->file->path));
        c->out[0] = func_param(c->m, c->f, p);
        return true;
    }
    Attr at = attr_t(AT_value, *t);
    c->out[0] = emit(c, OP_const, NULL, 0, &at, 1);
    return true;
}

static bool constant(NodeCtx *c)
{
    Tensor t = {0};
    if (c->node->n_attribute != 1)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "needs exactly one attribute, its value");
    const Onnx__AttributeProto *a = c->node->attribute[0];
    if (a->t != NULL)
        return onnx_tensor(c->im->file, a->t, c->m->arena, &t, c->im->d) ? constant_tensor(c, &t)
                                                                         : (c->failed = true, false);
    bool ints = strncmp(a->name, "value_int", 9) == 0, list = a->name[strlen(a->name) - 1] == 's';
    t.dtype = ints ? DT_I64 : DT_F32;
    t.rank = list;
    t.dim[0] = (int64_t)(ints ? a->n_ints : a->n_floats);
    if (!tensor_alloc(c->m->arena, &t))
        return ctx_error(c, DIAG_SHAPE_SIZE, "is too large");
    for (int64_t i = 0; i < (list ? t.dim[0] : 1); i++)
        if (ints)
            tensor_set_i64(&t, i, list ? a->ints[i] : a->i);
        else
            tensor_set_f64(&t, i, (double)(list ? a->floats[i] : a->f));
    return constant_tensor(c, &t);
}

static bool constant_of_shape(NodeCtx *c)
{
    Tensor t = {.dtype = DT_F32};
    int64_t n = 1;
    const Onnx__AttributeProto *a = ctx_attr(c, "value");
    if (!need_ints(c, 0))
        return false;
    if (a == NULL)
        CHECK(tensor_alloc(c->m->arena, &t));
    else if (!onnx_tensor(c->im->file, a->t, c->m->arena, &t, c->im->d))
        return c->failed = true, false;
    CHECK(tensor_count(&t, &n));
    if (n != 1)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "the value has %lld elements, not one", (long long)n);
    Attr at = attr_t(AT_value, t);
    c->out[0] = emit(c, OP_dyn_fill, c->in, 1, &at, 1);
    return true;
}

/* `start` and `end` clamp as Slice does. */
static bool shape(NodeCtx *c)
{
    ValueId v = emit1(c, OP_shape, c->in[0]);
    if (ctx_has(c, "start") || ctx_has(c, "end")) {
        int64_t start = ctx_int(c, "start", 0), end = ctx_int(c, "end", INT64_MAX);
        v = emit3(c, OP_dyn_slice, v, emit_ints(c, &start, 1), emit_ints(c, &end, 1));
    }
    c->out[0] = v;
    return true;
}

static bool size(NodeCtx *c)
{
    c->out[0] = emit_reduce(c, "prod", emit1(c, OP_shape, c->in[0]), NULL, 0, false);
    return true;
}

static bool reshape(NodeCtx *c)
{
    if (!need_ints(c, 1))
        return false;
    Attr at = attr_i(AT_allowzero, ctx_int(c, "allowzero", 0) != 0);
    c->out[0] = emit(c, OP_dyn_reshape, c->in, 2, &at, 1);
    return true;
}

static bool range(NodeCtx *c)
{
    for (int i = 1; i < 3; i++)
        if (value_dtype(c, c->in[i]) != value_dtype(c, c->in[0]))
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "operands of different types");
    return plain(c);
}

static bool slice_attrs(NodeCtx *c)
{
    const int64_t *v;
    uint32_t n;
    static const char *const names[] = {"starts", "ends", "axes"};
    ValueId in[4] = {c->in[0], NONE, NONE, NONE};
    uint32_t n_in = 3, first = 0;
    for (uint32_t i = 0; i < 3; i++) {
        if (!ctx_ints(c, names[i], &v, &n))
            continue;
        if (i == 0)
            first = n;
        else if (n != first)
            return ctx_error(c, DIAG_SHAPE_VALUE, "%s has %u entries, starts %u", names[i], n, first);
        in[i + 1] = emit_ints(c, v, n);
        n_in = i + 2;
    }
    c->out[0] = emit(c, OP_dyn_slice, in, n_in, NULL, 0);
    return true;
}

/* Axes as attribute (squeeze: may be absent) or as operand. */
static bool axes(NodeCtx *c)
{
    const int64_t *v;
    uint32_t n;
    if (!need_ints(c, 1))
        return false;
    bool given = ctx_ints(c, "axes", &v, &n);
    Attr at = attr_ints(AT_axes, v, n);
    c->out[0] = emit(c, (Op)c->row->arg, c->in, c->n_in, &at, given);
    return true;
}

static bool transpose(NodeCtx *c)
{
    const int64_t *v;
    uint32_t n;
    bool given = ctx_ints(c, "perm", &v, &n);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (n > MOEC_MAX_RANK || v[i] < 0 || v[i] >= n || (seen >> v[i] & 1) != 0)
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "perm is not a permutation");
        seen |= 1u << v[i];
    }
    Attr at = attr_ints(AT_perm, v, n);
    c->out[0] = emit(c, OP_dyn_transpose, c->in, 1, &at, given);
    return true;
}

static bool concat(NodeCtx *c)
{
    for (uint32_t i = 1; i < c->n_in; i++)
        if (c->in[i] == NONE || value_dtype(c, c->in[i]) != value_dtype(c, c->in[0]))
            return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "input %u is left out or has another element type",
                             i);
    Attr at = attr_i(AT_axis, ctx_int(c, "axis", 1));
    c->out[0] = emit(c, OP_dyn_concat, c->in, c->n_in, &at, 1);
    return true;
}

static bool flatten(NodeCtx *c)
{
    c->out[0] = emit1_int(c, OP_dyn_flatten, c->in[0], AT_axis, ctx_int(c, "axis", 1));
    return true;
}

static bool gather(NodeCtx *c)
{
    if (!need_ints(c, 1))
        return false;
    Attr at = attr_i(AT_axis, ctx_int(c, "axis", 0));
    c->out[0] = emit(c, OP_dyn_gather, c->in, 2, &at, 1);
    return true;
}

static bool gather_nd(NodeCtx *c)
{
    if (!need_ints(c, 1))
        return false;
    int64_t batch = ctx_int(c, "batch_dims", 0);
    if (batch < 0 || batch >= MOEC_MAX_RANK)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "batch_dims is out of range");
    Attr at = attr_i(AT_batch, batch);
    c->out[0] = emit(c, OP_gather_nd, c->in, 2, &at, 1);
    return true;
}

static bool scatter_nd(NodeCtx *c)
{
    static const char *const how_kind[][2] = {{"add", "sum"}, {"mul", "prod"}, {"max", "max"}, {"min", "min"}};
    Str how = ctx_str(c, "reduction", "none");
    size_t k = 0;
    if (!need_ints(c, 1))
        return false;
    if (value_dtype(c, c->in[2]) != value_dtype(c, c->in[0]))
        return ctx_error(c, DIAG_ONNX_ELEMENT_TYPE, "data and updates have different element types");
    if (str_is(how, "none"))
        return plain(c);
    while (k < 4 && !str_is(how, how_kind[k][0]))
        k++;
    if (k == 4)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "reduction '%s' is not supported", diag_show(c->im->d, how));
    Attr kind = attr_s(AT_kind, str_c(how_kind[k][1]));
    c->out[0] = emit(c, OP_scatter_nd, c->in, 3, &kind, 1);
    return true;
}

static bool trilu(NodeCtx *c)
{
    if (!need_ints(c, 1))
        return false;
    Attr at = attr_i(AT_upper, ctx_int(c, "upper", 1) != 0);
    c->out[0] = emit(c, OP_dyn_trilu, c->in, c->n_in, &at, 1);
    return true;
}

static bool split(NodeCtx *c)
{
    enum { PARTS_MAX = 1024 };
    uint32_t parts = (uint32_t)c->node->n_output, n = 0;
    const int64_t *v = NULL;
    if (!need_ints(c, 1))
        return false;
    if (parts > PARTS_MAX)
        return ctx_error(c, DIAG_ONNX_ARITY, "into %u parts; the limit is %d", parts, PARTS_MAX);
    if (ctx_has(c, "num_outputs") && ctx_int(c, "num_outputs", 0) != (int64_t)parts)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "num_outputs is not the number of outputs");
    if (ctx_has(c, "num_outputs") && c->in[1] != NONE)
        return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "has both sizes and num_outputs");
    ValueId in[2] = {c->in[0], c->in[1]};
    if (ctx_ints(c, "split", &v, &n)) {
        if (n != parts)
            return ctx_error(c, DIAG_ONNX_ARITY, "split has %u entries for %u outputs", n, parts);
        in[1] = emit_ints(c, v, n);
    }
    Attr at[2] = {attr_i(AT_axis, ctx_int(c, "axis", 0)), attr_i(AT_k, parts)};
    ValueId first = emit(c, OP_dyn_split, in, in[1] != NONE ? 2 : 1, at, 2);
    for (uint32_t i = 0; i < c->n_out && !c->failed; i++)
        c->out[i] = first + i;
    return true;
}

/* on where the index, counted from the end if negative, is the position along the new axis. */
static bool one_hot(NodeCtx *c)
{
    ValueId depth = emit_cast(c, c->in[1], DT_I64), index = emit_cast(c, c->in[0], DT_I64);
    int64_t axis = ctx_int(c, "axis", -1), zero = 0;
    Tensor known;
    int64_t n;
    if (value_literal(c, c->in[1], &known) && tensor_count(&known, &n) && n == 1 && tensor_get_f64(&known, 0) < 0)
        return ctx_error(c, DIAG_SHAPE_VALUE, "depth %g is negative", tensor_get_f64(&known, 0));
    if (value_rank(c, c->in[1]) == 1) {
        Attr sq = attr_ints(AT_axes, &zero, 1);
        depth = emit(c, OP_dyn_squeeze, &depth, 1, &sq, 1);
    }
    ValueId none = emit_scalar(c, DT_I64, 0), one = emit_scalar(c, DT_I64, 1);
    index = emit3(c, OP_select, emit2(c, OP_lt, index, none), emit2(c, OP_add, index, depth), index);
    Attr un = attr_ints(AT_axes, &axis, 1), first = attr_i(AT_axis, 0);
    index = emit(c, OP_dyn_unsqueeze, &index, 1, &un, 1);
    ValueId place = emit3(c, OP_dyn_range, none, depth, one);
    if (axis != -1) {
        /* as many trailing ones as the axis has axes behind it: known when the rank is */
        int rank = value_rank(c, c->in[0]);
        int behind = axis >= 0 ? rank - (int)axis : (int)-axis - 1;
        if ((axis >= 0 && rank == UNRANKED) || behind < 0 || behind > MOEC_MAX_RANK)
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE,
                             "axis is out of range, or the indices' rank is not known");
        int64_t ones[MOEC_MAX_RANK + 1];
        for (int i = 0; i < behind; i++)
            ones[i] = i + 1;
        Attr more = attr_ints(AT_axes, ones, (uint32_t)behind);
        place = emit(c, OP_dyn_unsqueeze, &place, 1, &more, 1);
    }
    ValueId off = emit(c, OP_dyn_gather, (ValueId[]){c->in[2], none}, 2, &first, 1);
    ValueId on = emit(c, OP_dyn_gather, (ValueId[]){c->in[2], one}, 2, &first, 1);
    c->out[0] = emit3(c, OP_select, emit2(c, OP_eq, index, place), on, off);
    return true;
}

const OpRow onnx_ops_shape[] = {
    {"", "Constant", 1, 11, 0, 0, 1, "value:t!", constant, 0},
    {"", "Constant", 12, OPSET_ANY, 0, 0, 1, "value:t value_float:f value_floats:F value_int:i value_ints:I",
     constant, 0},
    {"", "ConstantOfShape", 9, OPSET_ANY, 1, 1, 1, "value:t", constant_of_shape, 0},
    {"", "Shape", 1, 14, 1, 1, 1, "", shape, 0},
    {"", "Shape", 15, OPSET_ANY, 1, 1, 1, "start:i end:i", shape, 0},
    {"", "Size", 1, OPSET_ANY, 1, 1, 1, "", size, 0},
    {"", "Reshape", 5, 13, 2, 2, 1, "", reshape, 0},
    {"", "Reshape", 14, OPSET_ANY, 2, 2, 1, "allowzero:i", reshape, 0},
    {"", "Expand", 8, OPSET_ANY, 2, 2, 1, "", indexed, OP_dyn_broadcast},
    {"", "Range", 11, OPSET_ANY, 3, 3, 1, "stash_type:i", range, OP_dyn_range},
    {"", "Slice", 1, 9, 1, 1, 1, "starts:I! ends:I! axes:I", slice_attrs, 0},
    {"", "Slice", 10, OPSET_ANY, 3, 5, 1, "", indexed, OP_dyn_slice},
    {"", "Tile", 6, OPSET_ANY, 2, 2, 1, "", indexed, OP_dyn_tile},
    {"", "Squeeze", 1, 12, 1, 1, 1, "axes:I", axes, OP_dyn_squeeze},
    {"", "Squeeze", 13, OPSET_ANY, 1, 2, 1, "", axes, OP_dyn_squeeze},
    {"", "Unsqueeze", 1, 12, 1, 1, 1, "axes:I!", axes, OP_dyn_unsqueeze},
    {"", "Unsqueeze", 13, OPSET_ANY, 2, 2, 1, "", axes, OP_dyn_unsqueeze},
    {"", "Transpose", 1, OPSET_ANY, 1, 1, 1, "perm:I", transpose, 0},
    {"", "Concat", 4, OPSET_ANY, 1, -1, 1, "axis:i!", concat, 0},
    {"", "Flatten", 1, OPSET_ANY, 1, 1, 1, "axis:i", flatten, 0},
    {"", "Gather", 1, OPSET_ANY, 2, 2, 1, "axis:i", gather, 0},
    {"", "GatherND", 11, 11, 2, 2, 1, "", gather_nd, 0},
    {"", "GatherND", 12, OPSET_ANY, 2, 2, 1, "batch_dims:i", gather_nd, 0},
    {"", "ScatterND", 11, 15, 3, 3, 1, "", scatter_nd, OP_scatter_nd},
    {"", "ScatterND", 16, OPSET_ANY, 3, 3, 1, "reduction:s", scatter_nd, OP_scatter_nd},
    {"", "Trilu", 14, OPSET_ANY, 1, 2, 1, "upper:i", trilu, 0},
    {"", "Split", 2, 12, 1, 1, -1, "axis:i split:I", split, 0},
    {"", "Split", 13, 17, 1, 2, -1, "axis:i", split, 0},
    {"", "Split", 18, OPSET_ANY, 1, 2, -1, "axis:i num_outputs:i", split, 0},
    {"", "OneHot", 9, OPSET_ANY, 3, 3, 1, "axis:i", one_hot, 0},
    {"", "If", 1, OPSET_ANY, 1, 1, -1, "then_branch:g! else_branch:g!", onnx_if, 0},
    {0},
};
