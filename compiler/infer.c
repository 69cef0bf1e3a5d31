/* Result types from operand types: one rule a row of ops.def names. A rule sees ranked operands only, unless
 * it is one of those that work on element types alone; a node with an unranked operand has unranked results.
 */
#include "ir.h"
#include "pack.h"

#include <string.h>

typedef struct Infer {
    Module *m;
    const Func *f;
    Op op;
    const ValueId *in;
    uint32_t n_in;
    const Attr *attrs;
    uint32_t n_attrs;
    Type *out;
    uint32_t n_out, room;
    const char *why;
} Infer;

static bool fail(Infer *x, const char *why) {
    x->why = why;
    return false;
}

/* NULL: left out. */
static const Type *optional(const Infer *x, uint32_t i) {
    return i < x->n_in && x->in[i] != NONE ? &x->f->value[x->in[i]].type : NULL;
}

/* One that the op must have: whether all of them are there is asked before any rule is. */
static const Type *operand(const Infer *x, uint32_t i) {
    const Type *t = optional(x, i);
    CHECK(t);
    return t;
}

static const Attr *attr(const Infer *x, AttrKey k) {
    for (uint32_t i = 0; i < x->n_attrs; i++)
        if (x->attrs[i].key == k)
            return &x->attrs[i];
    return NULL;
}

static int64_t integer(const Infer *x, AttrKey k, int64_t otherwise) {
    const Attr *a = attr(x, k);
    return a ? a->i : otherwise;
}

static bool one(Infer *x, Type t) {
    x->out[0] = t;
    x->n_out = 1;
    return true;
}

static bool has_unranked(const Infer *x) {
    for (uint32_t i = 0; i < x->n_in; i++)
        if (optional(x, i) && optional(x, i)->rank == UNRANKED)
            return true;
    return false;
}

static Type unranked_or(const Infer *x, Type t) {
    return has_unranked(x) ? type_unranked(t.dtype) : t;
}

/* ---- sources, element types ----------------------------------------------------------------------- */

static bool infer_const(Infer *x) {
    const Attr *a = attr(x, AT_value);
    if (!a)
        return fail(x, "needs a value");
    Type t = {.dtype = a->t.dtype, .rank = a->t.rank};
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = dim_const(x->m->dims, a->t.dim[i]);
    return one(x, t);
}

static bool infer_dim(Infer *x) {
    return attr(x, AT_dim) ? one(x, type_scalar(DT_I64)) : fail(x, "needs a dim");
}

static bool infer_given(Infer *x) {
    return fail(x, "the result type must be stated");
}

static bool infer_same(Infer *x) {
    return one(x, *operand(x, 0));
}

static bool infer_along(Infer *x) {
    int64_t axis = integer(x, AT_axis, -1);
    if (axis < 0 || axis >= operand(x, 0)->rank)
        return fail(x, "axis is out of range");
    return one(x, *operand(x, 0));
}

static bool infer_split_seed(Infer *x) {
    const Type *seed = operand(x, 0);
    int64_t parts = integer(x, AT_k, 0);
    if (seed->dtype != DT_I64 || seed->rank > 0)
        return fail(x, "the seed is not i64[]");
    if (parts < 1 || parts > x->room)
        return fail(x, "k is not the number of results");
    x->n_out = (uint32_t)parts;
    for (uint32_t i = 0; i < x->n_out; i++)
        x->out[i] = type_scalar(DT_I64);
    return true;
}

static bool infer_predicate(Infer *x) {
    Type t = *operand(x, 0);
    t.dtype = DT_BOOL;
    return one(x, t);
}

static bool infer_top_k(Infer *x) {
    if (operand(x, 0)->rank == 0)
        return fail(x, "a scalar has no last axis");
    return integer(x, AT_k, 0) < 1 ? fail(x, "k is not positive") : infer_predicate(x);
}

static bool infer_cast(Infer *x) {
    const Attr *a = attr(x, AT_to);
    if (!a || a->i < 0 || a->i >= DT_COUNT)
        return fail(x, "needs the element type to cast to");
    Type t = *operand(x, 0);
    t.dtype = (DType)a->i;
    return one(x, t);
}

/* Whether two aligned extents are different constants: no binding of symbols can make these types broadcast.
 */
static bool never_broadcast(const Infer *x, const Type *a, const Type *b) {
    int64_t p, q;
    for (int i = 1; i <= a->rank && i <= b->rank; i++)
        if (dim_is_const(x->m->dims, a->dim[a->rank - i], &p) &&
            dim_is_const(x->m->dims, b->dim[b->rank - i], &q) && p != q && p != 1 && q != 1)
            return true;
    return false;
}

/* Extents that only `bind` can prove equal leave the result unranked. */
static bool broadcast_all(Infer *x, uint32_t from, DType dtype) {
    Type t = *operand(x, from);
    if (has_unranked(x))
        return one(x, type_unranked(dtype));
    for (uint32_t i = 0; i < x->n_in; i++)
        if (i != from && !type_broadcast(x->m->dims, &t, operand(x, i), &t))
            return never_broadcast(x, &t, operand(x, i)) ? fail(x, "the operands' extents do not broadcast")
                                                         : one(x, type_unranked(dtype));
    t.dtype = dtype;
    return one(x, t);
}

static bool infer_numeric(Infer *x) {
    if (operand(x, 0)->dtype != operand(x, 1)->dtype)
        return fail(x, "the operands have different element types");
    return broadcast_all(x, 0, operand(x, 0)->dtype);
}

static bool infer_logical(Infer *x) {
    for (uint32_t i = 0; i < x->n_in; i++)
        if (operand(x, i)->dtype != DT_BOOL)
            return fail(x, "an operand is not bool");
    return broadcast_all(x, 0, DT_BOOL);
}

static bool infer_power(Infer *x) {
    return broadcast_all(x, 0, operand(x, 0)->dtype);
}

static bool infer_compare(Infer *x) {
    if (operand(x, 0)->dtype != operand(x, 1)->dtype)
        return fail(x, "the operands have different element types");
    return broadcast_all(x, 0, DT_BOOL);
}

static bool infer_select(Infer *x) {
    if (operand(x, 0)->dtype != DT_BOOL)
        return fail(x, "the condition is not bool");
    if (operand(x, 1)->dtype != operand(x, 2)->dtype)
        return fail(x, "the operands have different element types");
    return broadcast_all(x, 1, operand(x, 1)->dtype);
}

/* ---- movement ----------------------------------------------------------------------------------------- */

static bool infer_transpose(Infer *x) {
    const Attr *p = attr(x, AT_perm);
    const Type *a = operand(x, 0);
    Type t = *a;
    bool seen[MOEC_MAX_RANK] = {false};
    if (!p || p->ints.n != (uint32_t)a->rank)
        return fail(x, "perm does not fit the operand's rank");
    for (int i = 0; i < a->rank; i++) {
        int64_t from = p->ints.v[i];
        if (from < 0 || from >= a->rank || seen[from])
            return fail(x, "perm is not a permutation");
        seen[from] = true;
        t.dim[i] = a->dim[from];
    }
    return one(x, t);
}

static bool format_of(const Infer *x, WeightFormat *out) {
    const Attr *a = attr(x, AT_format);
    *out = WEIGHT_F32;
    return !a || weight_format_parse(a->s, out);
}

/* [..,K,N] in panels of words, or of scales: so many along K for one. */
static bool infer_panels(Infer *x, DType type, int along) {
    DimTable *d = x->m->dims;
    Type t = *operand(x, 0);
    int64_t width = integer(x, AT_width, 0);
    if (t.rank < 2 || t.rank >= MOEC_MAX_RANK)
        return fail(x, "the operand is no matrix");
    if (width < 1)
        return fail(x, "width is not positive");
    Dim columns = t.dim[t.rank - 1], wide = dim_const(d, width);
    if (along > 1 && t.dtype != DT_F32)
        return fail(x, "weights in a format are made of f32");
    t.dtype = type;
    t.dim[t.rank] = wide;
    t.dim[t.rank - 1] = dim_floordiv(d, dim_add(d, t.dim[t.rank - 2], dim_const(d, along - 1)), dim_const(d, along));
    t.dim[t.rank - 2] = dim_floordiv(d, dim_add(d, columns, dim_const(d, width - 1)), wide);
    t.rank++;
    return one(x, t);
}

static bool infer_pack(Infer *x) {
    WeightFormat f;
    if (!format_of(x, &f))
        return fail(x, "there is no such format");
    int per_word = weight_formats[f].per_word;
    return per_word ? infer_panels(x, DT_I32, per_word) : infer_panels(x, operand(x, 0)->dtype, 1);
}

static bool infer_pack_scales(Infer *x) {
    WeightFormat f;
    if (!format_of(x, &f) || !weight_formats[f].block)
        return fail(x, "there is no such format with scales");
    return infer_panels(x, DT_F32, weight_formats[f].block);
}

static bool infer_quantize(Infer *x) {
    WeightFormat f;
    Type t = *operand(x, 0);
    if (!format_of(x, &f) || (f != WEIGHT_BF16 && f != WEIGHT_INT8))
        return fail(x, "a value is rounded to bf16 or int8");
    if (t.dtype != DT_F32 || t.rank < 1)
        return fail(x, "what is rounded is f32 along an axis");
    return one(x, t);
}

static bool infer_concat(Infer *x) {
    Type t = *operand(x, 0);
    int64_t axis = integer(x, AT_axis, -1);
    if (axis < 0 || axis >= t.rank)
        return fail(x, "axis is out of range");
    for (uint32_t i = 1; i < x->n_in; i++) {
        const Type *b = operand(x, i);
        if (b->dtype != t.dtype || b->rank != t.rank)
            return fail(x, "the operands differ in element type or rank");
        for (int a = 0; a < t.rank; a++)
            if (a != axis && t.dim[a] != b->dim[a])
                return fail(x, "the operands differ in an extent other than axis");
        t.dim[axis] = dim_add(x->m->dims, t.dim[axis], b->dim[axis]);
    }
    return one(x, t);
}

static bool is_index(const Type *t) {
    return t->dtype == DT_I64 || t->dtype == DT_I32;
}

static bool infer_gather(Infer *x) {
    const Type *a = operand(x, 0), *i = operand(x, 1);
    int64_t axis = integer(x, AT_axis, 0);
    if (!is_index(i))
        return fail(x, "the indices are not integers");
    if (axis < 0 || axis >= a->rank)
        return fail(x, "axis is out of range");
    if (a->rank - 1 + i->rank > MOEC_MAX_RANK)
        return fail(x, "the result's rank is above 16");
    Type t = {.dtype = a->dtype, .rank = a->rank - 1 + i->rank};
    int at = 0;
    for (int k = 0; k < axis; k++)
        t.dim[at++] = a->dim[k];
    for (int k = 0; k < i->rank; k++)
        t.dim[at++] = i->dim[k];
    for (int k = (int)axis + 1; k < a->rank; k++)
        t.dim[at++] = a->dim[k];
    return one(x, t);
}

/* *q = -1: not known before bind. */
static bool index_width(Infer *x, const Type *i, int64_t *q) {
    if (i->dtype != DT_I64)
        return fail(x, "the indices are not i64");
    if (i->rank < 1)
        return fail(x, "the indices are a scalar");
    if (!dim_is_const(x->m->dims, i->dim[i->rank - 1], q))
        *q = -1;
    return true;
}

/* Different constants. Anything else that differs may still turn out equal in bind. */
static bool never_equal(Infer *x, Dim a, Dim b) {
    int64_t p, q;
    return dim_is_const(x->m->dims, a, &p) && dim_is_const(x->m->dims, b, &q) && p != q;
}

static bool infer_gather_nd(Infer *x) {
    const Type *a = operand(x, 0), *i = operand(x, 1);
    int64_t batch = integer(x, AT_batch, 0), q;
    if (!index_width(x, i, &q))
        return false;
    if (q < 0)
        return one(x, type_unranked(a->dtype));
    if (batch < 0 || batch >= i->rank || q < 1 || batch + q > a->rank)
        return fail(x, "the indices do not fit the data's rank");
    for (int k = 0; k < batch; k++)
        if (never_equal(x, a->dim[k], i->dim[k]))
            return fail(x, "data and indices differ in a batch extent");
    if (i->rank - 1 + a->rank - batch - q > MOEC_MAX_RANK)
        return fail(x, "the result's rank is above 16");
    Type t = {.dtype = a->dtype};
    for (int k = 0; k < i->rank - 1; k++)
        t.dim[t.rank++] = i->dim[k];
    for (int k = (int)(batch + q); k < a->rank; k++)
        t.dim[t.rank++] = a->dim[k];
    return one(x, t);
}

static bool infer_scatter_nd(Infer *x) {
    const Type *a = operand(x, 0), *i = operand(x, 1), *u = operand(x, 2);
    int64_t q;
    if (!index_width(x, i, &q))
        return false;
    if (u->dtype != a->dtype)
        return fail(x, "data and updates differ in element type");
    if (q < 0)
        return one(x, type_unranked(a->dtype));
    if (q < 1 || q > a->rank || u->rank != i->rank - 1 + a->rank - (int)q)
        return fail(x, "the updates do not fit indices and data");
    for (int k = 0; k < u->rank; k++) {
        Dim want = k < i->rank - 1 ? i->dim[k] : a->dim[k - (i->rank - 1) + q];
        if (never_equal(x, u->dim[k], want))
            return fail(x, "the updates do not fit indices and data");
    }
    return one(x, *a);
}

/* ---- reductions -----------------------------------------------------------------------------------------
 */

static bool infer_reduce(Infer *x) {
    const Type *a = operand(x, 0);
    const Attr *axes = attr(x, AT_axes);
    bool keep = integer(x, AT_keep, 0) != 0, drop[MOEC_MAX_RANK] = {false};
    if (!axes)
        return fail(x, "needs axes");
    for (uint32_t i = 0; i < axes->ints.n; i++) {
        int64_t k = axes->ints.v[i];
        if (k < 0 || k >= a->rank || drop[k])
            return fail(x, "an axis is out of range or repeated");
        drop[k] = true;
    }
    Type t = {.dtype = a->dtype};
    for (int k = 0; k < a->rank; k++)
        if (!drop[k])
            t.dim[t.rank++] = a->dim[k];
        else if (keep)
            t.dim[t.rank++] = dim_const(x->m->dims, 1);
    return one(x, t);
}

static bool infer_arg(Infer *x) {
    const Type *a = operand(x, 0);
    int64_t axis = integer(x, AT_axis, -1);
    if (axis < 0 || axis >= a->rank)
        return fail(x, "axis is out of range");
    Type t = {.dtype = DT_I64};
    for (int k = 0; k < a->rank; k++)
        if (k != axis)
            t.dim[t.rank++] = a->dim[k];
        else if (integer(x, AT_keep, 0))
            t.dim[t.rank++] = dim_const(x->m->dims, 1);
    return one(x, t);
}

static bool infer_rms_norm(Infer *x) {
    const Type *a = operand(x, 0), *g = operand(x, 1);
    if (!dtype_is_float(a->dtype) || g->dtype != a->dtype)
        return fail(x, "operand and gain are not of one float type");
    if (a->rank < 1 || g->rank != 1 || g->dim[0] != a->dim[a->rank - 1])
        return fail(x, "the gain does not fit the last axis");
    return one(x, *a);
}

static bool infer_rms_factor(Infer *x) {
    Type t = *operand(x, 0);
    if (t.rank < 1)
        return fail(x, "the operand has no axis");
    if (!dtype_is_float(t.dtype))
        return fail(x, "the operand is not of a float type");
    t.dim[t.rank - 1] = dim_const(x->m->dims, 1);
    return one(x, t);
}

/* ---- contractions
 * ------------------------------------------------------------------------------------------ */

static bool infer_matmul(Infer *x) {
    const Type *a = operand(x, 0), *b = operand(x, 1);
    if (a->dtype != b->dtype)
        return fail(x, "the operands have different element types");
    if (a->rank < 2 || b->rank < 2)
        return fail(x, "the operands need two axes");
    bool ta = integer(x, AT_ta, 0) != 0, tb = integer(x, AT_tb, 0) != 0;
    Dim m = a->dim[a->rank - (ta ? 1 : 2)], ka = a->dim[a->rank - (ta ? 2 : 1)];
    Dim kb = b->dim[b->rank - (tb ? 1 : 2)], n = b->dim[b->rank - (tb ? 2 : 1)];
    if (ka != kb)
        return fail(x, "the inner extents differ");
    Type la = *a, lb = *b, t;
    la.rank -= 2;
    lb.rank -= 2;
    if (!type_broadcast(x->m->dims, &la, &lb, &t))
        return fail(x, "the leading extents do not broadcast");
    t.dim[t.rank++] = m;
    t.dim[t.rank++] = n;
    return one(x, t);
}

static bool is_rows(const Type *t, DType dtype, const Type *of) {
    return t->rank == 2 && t->dtype == dtype && t->dim[0] == of->dim[0] && t->dim[1] == of->dim[1];
}

static bool is_scalar(const Type *t, DType dtype) {
    return t->rank == 0 && t->dtype == dtype;
}

/* Operands first.. are attention's; its result's type. */
static bool attention_type(Infer *x, uint32_t first, Type *result) {
    const Type *q = operand(x, first), *k = operand(x, first + 1), *v = operand(x, first + 2);
    const Type *bias = optional(x, first + 3), *keep = optional(x, first + 4);
    const Type *q_segment = optional(x, first + 5), *k_segment = optional(x, first + 6);
    const Type *seed = optional(x, first + 7), *drop = optional(x, first + 8);
    const Type *spans = first ? NULL : optional(x, 9);
    int64_t heads = integer(x, AT_heads, 0), width, deep;
    if (q->rank != 3 || k->rank != 3 || v->rank != 3)
        return fail(x, "q, k and v need the axes [B,T,H*D]");
    if ((!spans && q->dim[0] != k->dim[0]) || k->dim[0] != v->dim[0] || k->dim[1] != v->dim[1] ||
        q->dim[2] != k->dim[2])
        return fail(x, "q, k and v do not fit each other");
    if (!dtype_is_float(q->dtype) || k->dtype != q->dtype || v->dtype != q->dtype)
        return fail(x, "q, k and v need one float type");
    if (heads < 1 || !dim_is_const(x->m->dims, q->dim[2], &width) || width % heads ||
        !dim_is_const(x->m->dims, v->dim[2], &deep) || deep % heads)
        return fail(x, "heads do not divide the width");
    if (bias && (bias->rank != 2 || bias->dtype != q->dtype || !dim_is(x->m->dims, bias->dim[0], heads)))
        return fail(x, "the bias row is not [H,R]");
    if (keep && !is_rows(keep, DT_BOOL, k))
        return fail(x, "keep is not bool[B,S]");
    if (!q_segment != !k_segment)
        return fail(x, "segments of queries and of keys go together");
    if (q_segment && (!is_rows(q_segment, DT_I64, q) || !is_rows(k_segment, DT_I64, k)))
        return fail(x, "the segments are not i64[B,T] and i64[B,S]");
    if (!seed != !drop)
        return fail(x, "seed and drop go together");
    if (seed && (!is_scalar(seed, DT_I64) || !is_scalar(drop, DT_F32)))
        return fail(x, "seed and drop are not i64[] and f32[]");
    if (spans && (keep || q_segment || seed))
        return fail(x, "packed keys have neither mask nor segments nor dropout");
    if (spans && (spans->rank != 2 || spans->dtype != DT_I64 || !dim_is(x->m->dims, spans->dim[1], 2)))
        return fail(x, "the spans are not i64[B,2]");
    if (spans && (!dim_is(x->m->dims, k->dim[0], 1) ||
                  (q->dim[0] != spans->dim[0] && (q->dim[0] != k->dim[0] || q->dim[1] != k->dim[1]))))
        return fail(x, "packed keys are [1,N,H*D], queries [B,T,H*D] or packed like them");
    *result = *q;
    result->dim[2] = v->dim[2];
    return true;
}

static bool infer_attention(Infer *x) {
    Type t;
    return attention_type(x, 0, &t) && one(x, t);
}

static bool infer_attention_grad(Infer *x) {
    const Type *dy = operand(x, 0), *bias = optional(x, 4);
    int64_t results = integer(x, AT_k, 3);
    Type t;
    if (!attention_type(x, 1, &t))
        return false;
    if (!type_eq(dy, &t))
        return fail(x, "the gradient is not of the type of attention's result");
    if (results != 3 && (results != 4 || !bias))
        return fail(x, "k is not 3, nor 4 with a bias row");
    for (uint32_t i = 0; i < 3; i++)
        x->out[i] = *operand(x, i + 1);
    if (results == 4) {
        Dim dim[3] = {dy->dim[0], bias->dim[0], bias->dim[1]};
        x->out[3] = type_ranked(bias->dtype, 3, dim);
    }
    x->n_out = (uint32_t)results;
    return true;
}

/* Operands 0..4 of cross_entropy and its gradients, and of the latter log_z and dloss. */
static bool loss_operands(Infer *x) {
    const Type *h = operand(x, 0), *w = operand(x, 1), *labels = operand(x, 2);
    bool tb = integer(x, AT_tb, 0) != 0;
    if (h->rank != 3 || w->rank != 2 || h->dim[2] != w->dim[tb ? 1 : 0])
        return fail(x, "x and w do not fit [B,T,d] and [d,V]");
    if ((h->dtype != DT_F32 && h->dtype != DT_F64) || w->dtype != h->dtype)
        return fail(x, "x and w are not of one floating type");
    if (labels->dtype != DT_I64 || labels->rank != 2 || labels->dim[0] != h->dim[0] ||
        labels->dim[1] != h->dim[1])
        return fail(x, "labels are not i64[B,T]");
    for (uint32_t i = 3; i < x->n_in; i++) {
        const Type *t = operand(x, i);
        if (t->dtype != h->dtype || t->rank != (i < 5 ? 0 : 2))
            return fail(x, "smoothing and z are scalars of x's type, log_z and dloss are [B,T]");
        if (i >= 5 && (t->dim[0] != h->dim[0] || t->dim[1] != h->dim[1]))
            return fail(x, "log_z and dloss are not [B,T]");
    }
    return true;
}

static bool infer_cross_entropy(Infer *x) {
    if (!loss_operands(x))
        return false;
    x->out[0] = x->out[1] = type_ranked(operand(x, 0)->dtype, 2, operand(x, 2)->dim);
    x->n_out = 2;
    return true;
}

static bool infer_cross_entropy_dx(Infer *x) {
    return loss_operands(x) && one(x, *operand(x, 0));
}

static bool infer_cross_entropy_dw(Infer *x) {
    return loss_operands(x) && one(x, *operand(x, 1));
}

/* ---- gradients ---------------------------------------------------------------------------------------- */

static bool infer_gradient(Infer *x) {
    const Type *loss = operand(x, 0), *of = operand(x, 1);
    if (loss->rank != 0 || !dtype_is_float(loss->dtype) || !dtype_is_float(of->dtype))
        return fail(x, "a float scalar and a float value are needed");
    return one(x, *of);
}

/* ---- calls
 * --------------------------------------------------------------------------------------------------- */

static bool callee_types(Infer *x, AttrKey key, const Func **callee) {
    const Attr *a = attr(x, key);
    *callee = a ? module_func(x->m, (FuncId)a->i) : NULL;
    if (!*callee)
        return fail(x, "no such function");
    if ((*callee)->n_outputs > x->room)
        return fail(x, "the callee has more results than the node");
    x->n_out = (*callee)->n_outputs;
    for (uint32_t i = 0; i < x->n_out; i++)
        x->out[i] = (*callee)->value[(*callee)->output[i]].type;
    return true;
}

static bool infer_call(Infer *x) {
    const Func *f;
    if (!callee_types(x, AT_func, &f))
        return false;
    return f->n_inputs == x->n_in ? true : fail(x, "the number of operands is not the callee's");
}

static bool infer_if(Infer *x) {
    const Func *no, *yes;
    if (!callee_types(x, AT_else_func, &no) || !callee_types(x, AT_then_func, &yes))
        return false;
    if (yes->n_outputs != no->n_outputs)
        return fail(x, "the branches have different numbers of results");
    for (uint32_t i = 0; i < x->n_out; i++) {
        const Type *other = &no->value[no->output[i]].type;
        if (!type_eq(&x->out[i], other))
            x->out[i] = type_unranked(x->out[i].dtype);
    }
    return true;
}

/* ---- dynamic ops: ranks and extents are bind's business
 * ---------------------------------------------------------- */

static bool infer_shape(Infer *x) {
    const Type *a = operand(x, 0);
    const Attr *s = attr(x, AT_start);
    int64_t start = 0, count;
    if (a->rank == UNRANKED)
        return one(x, type_unranked(DT_I64));
    if (s && s->dims.n)
        dim_is_const(x->m->dims, s->dims.v[0], &start);
    if (start < 0 || start > a->rank)
        return fail(x, "axes are out of range");
    count = integer(x, AT_k, a->rank - start);
    if (count < 0 || count > a->rank - start)
        return fail(x, "axes are out of range");
    Dim n = dim_const(x->m->dims, count);
    return one(x, type_ranked(DT_I64, 1, &n));
}

static bool infer_unranked(Infer *x) {
    DType t = operand(x, 0)->dtype;
    if (x->op != OP_dyn_split)
        return one(x, type_unranked(x->op == OP_dyn_argmax ? DT_I64 : t));
    int64_t parts = integer(x, AT_k, 1);
    if (parts < 1 || parts > x->room)
        return fail(x, "k is not the number of results");
    x->n_out = (uint32_t)parts;
    for (uint32_t i = 0; i < x->n_out; i++)
        x->out[i] = type_unranked(t);
    return true;
}

static bool infer_fill(Infer *x) {
    const Attr *a = attr(x, AT_value);
    return one(x, type_unranked(a ? a->t.dtype : DT_F32));
}

static bool infer_dyn_quantize(Infer *x) {
    x->out[0] = unranked_or(x, *operand(x, 0));
    x->out[0].dtype = DT_U8;
    x->out[1] = type_scalar(DT_F32);
    x->out[2] = type_scalar(DT_U8);
    x->n_out = 3;
    return true;
}

/* ---- the table
 * ----------------------------------------------------------------------------------------------------- */

typedef bool Rule(Infer *x);

static Rule *const rules[OP_COUNT] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) infer_##infer,
#include "ops.def"
};

/* Rules that look at element types only, or deal with unranked operands themselves. */
static bool takes_unranked(Rule *r) {
    return r == infer_same || r == infer_predicate || r == infer_top_k || r == infer_cast || r == infer_numeric ||
           r == infer_logical || r == infer_power || r == infer_compare || r == infer_select || r == infer_call ||
           r == infer_if || r == infer_shape || r == infer_split_seed || r == infer_unranked || r == infer_fill || r == infer_dyn_quantize;
}

bool node_infer(Module *m, const Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs,
                uint32_t n_attrs, Type *out, uint32_t *n_out, const char **why) {
    Infer x = {m, f, op, in, n_in, attrs, n_attrs, out, 0, *n_out > 8 ? *n_out : 8, NULL};
    const OpInfo *o = op_info(op);
    bool ok = true;
    if ((int64_t)n_in < o->in_min || (o->in_max >= 0 && (int64_t)n_in > o->in_max))
        ok = fail(&x, "wrong number of operands");
    /* attention's last operands and the optional ones of dynamic ops may be left out */
    for (uint32_t i = 0; ok && i < n_in; i++)
        if (in[i] == NONE && ((int)i < o->in_min || o->in_max < 0))
            ok = fail(&x, "an operand is missing");
    if (ok && has_unranked(&x) && !takes_unranked(rules[op]))
        ok = one(&x, type_unranked(op == OP_argmax ? DT_I64 : operand(&x, 0)->dtype));
    else if (ok)
        ok = rules[op](&x);
    for (uint32_t i = 0; ok && i < x.n_out; i++)
        for (int k = 0; k < out[i].rank; k++)
            if (out[i].dim[k] == DIM_BAD)
                ok = fail(&x, "an extent overflows");
    *n_out = x.n_out;
    *why = x.why;
    return ok;
}
