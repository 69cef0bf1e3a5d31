/* Content of static ops: integer arithmetic on Dims, and movement of small tensors.
 *
 * A float tensor whose values are integers has content too, so shapes that pass through floats stay known. */
#include "bind_impl.h"

const Attr *attr_in(const Attr *attrs, uint32_t n, AttrKey k) {
    for (uint32_t i = 0; i < n; i++)
        if (attrs[i].key == k)
            return &attrs[i];
    return NULL;
}

const Attr *attr_must(const Attr *attrs, uint32_t n, AttrKey k) {
    const Attr *a = attr_in(attrs, n, k);
    CHECK(a);
    return a;
}

/* ---- one element ------------------------------------------------------------------------------- */

static Dim truth(DimTable *t, int known) /* 1, 0, -1: unknown */
{
    return known < 0 ? ELEM_UNKNOWN : dim_const(t, known);
}

/* a < b, a <= b and a == b as far as bounds tell. */
static int is_less(DimTable *t, Dim a, Dim b) {
    Dim d = dim_sub(t, a, b);
    return d == DIM_BAD ? -1 : dim_upper(t, d) < 0 ? 1 : dim_lower(t, d) >= 0 ? 0 : -1;
}

static int is_less_eq(DimTable *t, Dim a, Dim b) {
    int r = is_less(t, b, a);
    return r < 0 ? -1 : !r;
}

static int is_equal(DimTable *t, Dim a, Dim b) {
    if (a == b)
        return 1;
    Dim d = dim_sub(t, a, b);
    return d == DIM_BAD ? -1 : dim_lower(t, d) > 0 || dim_upper(t, d) < 0 ? 0 : -1;
}

static int negated(int known) {
    return known < 0 ? -1 : !known;
}

static Dim quotient(DimTable *t, Dim a, Dim b, bool is_float) {
    if (is_equal(t, b, dim_const(t, 0)) != 0)
        return ELEM_UNKNOWN;
    Dim q = dim_floordiv(t, a, b);
    if (q != DIM_BAD && dim_mul(t, q, b) == a)
        return q;
    return !is_float && dim_lower(t, a) >= 0 && dim_lower(t, b) > 0 ? q : ELEM_UNKNOWN;
}

static Dim unary(DimTable *t, Op op, Dim a) {
    Dim zero = dim_const(t, 0);
    switch (op) {
    case OP_neg:
        return dim_sub(t, zero, a);
    case OP_abs:
        return dim_lower(t, a) >= 0 ? a : dim_max(t, a, dim_sub(t, zero, a));
    case OP_relu:
        return dim_max(t, a, zero);
    case OP_floor:
    case OP_ceil:
    case OP_round:
        return a;
    case OP_not:
        return truth(t, is_equal(t, a, zero));
    case OP_isinf:
    case OP_isnan:
        return zero;
    default:
        return ELEM_UNKNOWN;
    }
}

static Dim binary(DimTable *t, Op op, Dim a, Dim b, bool is_float) {
    Dim zero = dim_const(t, 0), one = dim_const(t, 1);
    if (a == ELEM_UNKNOWN || b == ELEM_UNKNOWN) {
        bool has_zero = a == zero || b == zero, has_one = a == one || b == one;
        return op == OP_and && has_zero ? zero : op == OP_or && has_one ? one : ELEM_UNKNOWN;
    }
    switch (op) {
    case OP_add:
        return dim_add(t, a, b);
    case OP_sub:
        return dim_sub(t, a, b);
    case OP_mul:
        return dim_mul(t, a, b);
    case OP_div:
        return quotient(t, a, b, is_float);
    case OP_mod:
    case OP_fmod:
        return dim_lower(t, a) >= 0 && dim_lower(t, b) > 0 ? dim_mod(t, a, b) : ELEM_UNKNOWN;
    case OP_min:
        return dim_min(t, a, b);
    case OP_max:
        return dim_max(t, a, b);
    case OP_eq:
        return truth(t, is_equal(t, a, b));
    case OP_ne:
        return truth(t, negated(is_equal(t, a, b)));
    case OP_lt:
        return truth(t, is_less(t, a, b));
    case OP_le:
        return truth(t, is_less_eq(t, a, b));
    case OP_gt:
        return truth(t, is_less(t, b, a));
    case OP_ge:
        return truth(t, is_less_eq(t, b, a));
    case OP_and:
        return dim_mul(t, a, b);
    case OP_or:
        return dim_max(t, a, b);
    case OP_xor:
        return truth(t, negated(is_equal(t, a, b)));
    default:
        return ELEM_UNKNOWN;
    }
}

static Dim converted(DimTable *t, Dim a, DType from, DType to) {
    if (to == DT_BOOL && from != DT_BOOL)
        return truth(t, negated(is_equal(t, a, dim_const(t, 0))));
    bool wide = to == DT_I32 || to == DT_I64 || to == DT_BOOL || dtype_is_float(to);
    return wide || from == DT_BOOL ? a : ELEM_UNKNOWN;
}

/* ---- positions ------------------------------------------------------------------------------------ */

typedef struct Shape {
    int n;
    int64_t d[MOEC_MAX_RANK];
} Shape;

static Shape shape_of(Binder *b, const Type *ty) {
    Shape s = {.n = ty->rank};
    for (int i = 0; i < s.n; i++)
        CHECK(dim_is_const(b->m->dims, ty->dim[i], &s.d[i]));
    return s;
}

static void unravel(const Shape *s, int64_t i, int64_t *at) {
    for (int k = s->n; k-- > 0;) {
        at[k] = i % s->d[k];
        i /= s->d[k];
    }
}

/* Element of an operand of shape s for result position at[rank], NumPy broadcasting. */
static int64_t ravel_broadcast(const Shape *s, const int64_t *at, int rank) {
    int64_t i = 0;
    for (int k = 0; k < s->n; k++)
        i = i * s->d[k] + (s->d[k] == 1 ? 0 : at[rank - s->n + k]);
    return i;
}

static int64_t ravel(const Shape *s, const int64_t *at) {
    int64_t i = 0;
    for (int k = 0; k < s->n; k++)
        i = i * s->d[k] + at[k];
    return i;
}

/* ---- ops --------------------------------------------------------------------------------------------- */

typedef struct Work {
    Binder *b;
    Op op;
    uint32_t n, n_attrs;
    const Bound *in[3];
    Shape shape[3];
    const Attr *attrs;
    const Type *type;
    Shape out;
    int64_t count;
    Dim *elem;
} Work;

static bool content_pointwise(Work *w) {
    DimTable *t = w->b->m->dims;
    for (int64_t i = 0; i < w->count; i++) {
        int64_t at[MOEC_MAX_RANK] = {0};
        Dim x[3] = {0};
        unravel(&w->out, i, at);
        for (uint32_t k = 0; k < w->n; k++)
            x[k] = w->in[k]->elem[ravel_broadcast(&w->shape[k], at, w->out.n)];
        Dim r = ELEM_UNKNOWN;
        if (w->op == OP_select) {
            int64_t c;
            if (x[1] == x[2])
                r = x[1];
            else if (x[0] != ELEM_UNKNOWN && dim_is_const(t, x[0], &c))
                r = c ? x[1] : x[2];
        } else if (w->n == 2) {
            r = binary(t, w->op, x[0], x[1], dtype_is_float(w->in[0]->type.dtype));
        } else if (x[0] != ELEM_UNKNOWN) {
            r = w->op == OP_cast ? converted(t, x[0], w->in[0]->type.dtype, w->type->dtype)
                                 : unary(t, w->op, x[0]);
        }
        w->elem[i] = r == DIM_BAD ? ELEM_UNKNOWN : r;
    }
    return true;
}

static bool content_move(Work *w) {
    const Attr *perm = attr_in(w->attrs, w->n_attrs, AT_perm),
               *start = attr_in(w->attrs, w->n_attrs, AT_start);
    const Attr *step = attr_in(w->attrs, w->n_attrs, AT_step);
    for (int64_t i = 0; i < w->count; i++) {
        int64_t at[MOEC_MAX_RANK] = {0}, from[MOEC_MAX_RANK] = {0}, s;
        unravel(&w->out, i, at);
        switch (w->op) {
        case OP_reshape:
            w->elem[i] = w->in[0]->elem[i];
            continue;
        case OP_broadcast:
            w->elem[i] = w->in[0]->elem[ravel_broadcast(&w->shape[0], at, w->out.n)];
            continue;
        case OP_transpose:
            for (int k = 0; k < w->out.n; k++)
                from[perm->ints.v[k]] = at[k];
            break;
        default:
            for (int k = 0; k < w->out.n; k++) {
                if (!dim_is_const(w->b->m->dims, start->dims.v[k], &s))
                    return false;
                from[k] = s + at[k] * (step ? step->ints.v[k] : 1);
                if (from[k] < 0 || from[k] >= w->shape[0].d[k])
                    return false;
            }
        }
        w->elem[i] = w->in[0]->elem[ravel(&w->shape[0], from)];
    }
    return true;
}

static bool content_gather(Work *w) {
    CHECK(w->in[0] && w->in[1]);
    int axis = (int)attr_must(w->attrs, w->n_attrs, AT_axis)->i;
    int64_t extent = w->shape[0].d[axis];
    for (int64_t i = 0; i < w->count; i++) {
        int64_t at[MOEC_MAX_RANK] = {0}, from[MOEC_MAX_RANK] = {0}, c;
        unravel(&w->out, i, at);
        for (int k = 0; k < axis; k++)
            from[k] = at[k];
        for (int k = axis + 1; k < w->shape[0].n; k++)
            from[k] = at[k - 1 + w->shape[1].n];
        Dim index = w->in[1]->elem[ravel(&w->shape[1], at + axis)];
        if (index == ELEM_UNKNOWN || !dim_is_const(w->b->m->dims, index, &c) || c < -extent || c >= extent)
            return false;
        from[axis] = c < 0 ? c + extent : c;
        w->elem[i] = w->in[0]->elem[ravel(&w->shape[0], from)];
    }
    return true;
}

static bool content_reduce(Work *w) {
    static const Op fold_by[OP_COUNT] = {[OP_reduce_sum] = OP_add,
                                         [OP_reduce_prod] = OP_mul,
                                         [OP_reduce_max] = OP_max,
                                         [OP_reduce_min] = OP_min};
    const Attr *axes = attr_in(w->attrs, w->n_attrs, AT_axes), *keep = attr_in(w->attrs, w->n_attrs, AT_keep);
    DimTable *t = w->b->m->dims;
    Op by = fold_by[w->op];
    int64_t n = type_small_count(t, &w->in[0]->type);
    if (!by || !axes || (n == 0 && by != OP_add && by != OP_mul))
        return false;
    bool started[CONTENT_MAX] = {false};
    for (int64_t i = 0; i < w->count; i++)
        w->elem[i] = dim_const(t, by == OP_mul);
    for (int64_t i = 0; i < n; i++) {
        int64_t at[MOEC_MAX_RANK] = {0}, to[MOEC_MAX_RANK] = {0};
        int rank = 0;
        unravel(&w->shape[0], i, at);
        for (int k = 0; k < w->shape[0].n; k++) {
            bool folded = false;
            for (uint32_t a = 0; a < axes->ints.n; a++)
                folded |= axes->ints.v[a] == k;
            if (!folded)
                to[rank++] = at[k];
            else if (keep && keep->i)
                to[rank++] = 0;
        }
        int64_t o = ravel(&w->out, to);
        Dim x = w->in[0]->elem[i];
        w->elem[o] = started[o] ? binary(t, by, w->elem[o], x, false) : x;
        w->elem[o] = w->elem[o] == DIM_BAD ? ELEM_UNKNOWN : w->elem[o];
        started[o] = true;
    }
    return true;
}

static bool content_concat(Binder *b, const BVal *in, uint32_t n, int axis, const Type *type, Dim *elem) {
    Shape out = shape_of(b, type);
    int64_t before = 0;
    for (uint32_t p = 0; p < n; p++) {
        const Bound *x = bound_at(b, in[p]);
        Shape s = shape_of(b, &x->type);
        int64_t count = type_small_count(b->m->dims, &x->type);
        for (int64_t i = 0; i < count; i++) {
            int64_t at[MOEC_MAX_RANK] = {0};
            unravel(&s, i, at);
            at[axis] += before;
            elem[ravel(&out, at)] = x->elem ? x->elem[i] : ELEM_UNKNOWN;
        }
        before += s.d[axis];
    }
    return true;
}

bool content_of(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                const Type *type, Dim *elem) {
    int64_t count = type_small_count(b->m->dims, type);
    if (count < 0)
        return false;
    if (op == OP_dim) {
        elem[0] = attr_must(attrs, n_attrs, AT_dim)->d;
        return true;
    }
    if (op == OP_concat && type->dtype != DT_BOOL && !dtype_is_float(type->dtype))
        return content_concat(b, in, n, (int)attr_must(attrs, n_attrs, AT_axis)->i, type, elem);

    Work w = {.b = b,
              .op = op,
              .n = n,
              .n_attrs = n_attrs,
              .attrs = attrs,
              .type = type,
              .count = count,
              .elem = elem};
    if (n == 0 || n > 3)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        w.in[i] = bound_at(b, in[i]);
        if (!w.in[i]->elem)
            return false;
        w.shape[i] = shape_of(b, &w.in[i]->type);
    }
    w.out = shape_of(b, type);
    switch (op_info(op)->klass) {
    case OC_POINTWISE:
        return content_pointwise(&w);
    case OC_MOVE:
        return (op == OP_reshape || op == OP_broadcast || op == OP_transpose || op == OP_slice) && content_move(&w);
    case OC_REDUCE:
        return content_reduce(&w);
    case OC_GATHER:
        return op == OP_gather && content_gather(&w);
    default:
        return false;
    }
}
