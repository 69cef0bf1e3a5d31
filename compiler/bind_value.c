/* Abstract values of `bind`: types, contents, and how they enter the function being built. */
#include "bind_impl.h"
#include "const_eval.h"

#include <string.h>

void *bind_copy(Binder *b, const void *src, size_t count, size_t size) {
    void *p = arena_array(b->scratch, count ? count : 1, size);
    if (count)
        memcpy(p, src, count * size);
    return p;
}

Bound *bound_at(Binder *b, BVal v) {
    CHECK(v < b->vals->count);
    return &b->vals->item[v];
}

BVal bound_new(Binder *b, Type type, ValueId id) {
    Bound v = {.type = type, .id = id, .elem = NULL, .splat = BV_NONE, .half = false};
    vec_push(b->vals, v);
    return (BVal)(b->vals->count - 1);
}

int64_t type_small_count(const DimTable *t, const Type *ty) {
    int64_t n = 1, v;
    if (ty->rank == UNRANKED)
        return -1;
    for (int i = 0; i < ty->rank; i++) {
        if (!dim_is_const(t, ty->dim[i], &v) || v < 0)
            return -1;
        n *= v > CONTENT_MAX ? CONTENT_MAX + 1 : v;
        if (n > CONTENT_MAX)
            n = CONTENT_MAX + 1;
    }
    return n > CONTENT_MAX ? -1 : n;
}

BVal bound_content(Binder *b, Type type, const Dim *elem) {
    int64_t n = type_small_count(b->m->dims, &type);
    CHECK(n >= 0);
    BVal v = bound_new(b, type, NONE);
    bound_at(b, v)->elem = bind_copy(b, elem, (size_t)n, sizeof *elem);
    return v;
}

BVal bound_ints(Binder *b, const int64_t *v, uint32_t n) {
    Dim elem[CONTENT_MAX], extent = dim_const(b->m->dims, n);
    CHECK(n <= CONTENT_MAX);
    for (uint32_t i = 0; i < n; i++)
        elem[i] = dim_const(b->m->dims, v[i]);
    return bound_content(b, type_ranked(DT_I64, 1, &extent), elem);
}

bool bound_known(Binder *b, BVal v) {
    const Bound *x = bound_at(b, v);
    if (!x->elem)
        return false;
    int64_t n = type_small_count(b->m->dims, &x->type);
    for (int64_t i = 0; i < n; i++)
        if (x->elem[i] == ELEM_UNKNOWN)
            return false;
    return true;
}

static Tensor tensor_of_type(Binder *b, const Type *ty) {
    Tensor t = {.dtype = ty->dtype, .rank = ty->rank};
    for (int i = 0; i < ty->rank; i++)
        CHECK(dim_is_const(b->m->dims, ty->dim[i], &t.dim[i]));
    CHECK(tensor_alloc(b->m->arena, &t));
    return t;
}

bool bound_constant(Binder *b, BVal v, Tensor *t) {
    const Bound *x = bound_at(b, v);
    if (x->id != NONE && const_of(b->m, b->f, x->id, CONTENT_MAX, t))
        return true;
    if (x->elem) {
        int64_t n = type_small_count(b->m->dims, &x->type), c;
        for (int64_t i = 0; i < n; i++)
            if (x->elem[i] == ELEM_UNKNOWN || !dim_is_const(b->m->dims, x->elem[i], NULL))
                return false;
        *t = tensor_of_type(b, &x->type);
        for (int64_t i = 0; i < n; i++) {
            dim_is_const(b->m->dims, x->elem[i], &c);
            tensor_set_i64(t, i, c);
        }
        return true;
    }
    return false;
}

/* A content with symbols: one `dim` an element, side by side. */
static ValueId content_node(Binder *b, const Bound *x, int64_t n) {
    Module *m = b->m;
    ValueId part[CONTENT_MAX] = {0};
    Dim one = dim_const(m->dims, 1);
    for (int64_t i = 0; i < n; i++) {
        Attr a = attr_d(AT_dim, x->elem[i]);
        part[i] = func_node(m, b->f, OP_dim, NULL, 0, &a, 1, b->origin);
        if (x->type.rank > 0)
            part[i] = build_reshape(m, b->f, part[i], 1, &one, b->origin);
    }
    ValueId v = part[0];
    if (x->type.rank > 0) {
        if (n > 1)
            v = build_concat(m, b->f, part, (uint32_t)n, 0, b->origin);
        v = build_reshape(m, b->f, v, x->type.rank, x->type.dim, b->origin);
    }
    return build_cast(m, b->f, v, x->type.dtype, b->origin);
}

ValueId bound_id(Binder *b, BVal v) {
    Bound x = *bound_at(b, v);
    if (x.id != NONE)
        return x.id;
    CHECK(bound_known(b, v));
    Tensor t;
    if (bound_constant(b, v, &t)) {
        Attr a = attr_t(AT_value, t);
        x.id = func_node(b->m, b->f, OP_const, NULL, 0, &a, 1, b->origin);
    } else {
        x.id = content_node(b, &x, type_small_count(b->m->dims, &x.type));
    }
    bound_at(b, v)->id = x.id;
    return x.id;
}

/* ---- symbols that meet ------------------------------------------------------------------------- */

typedef struct SymSet {
    Vec(uint32_t) sym;
} SymSet;

static void collect(void *ctx, uint32_t sym) {
    SymSet *s = ctx;
    for (size_t i = 0; i < s->sym.count; i++)
        if (s->sym.item[i] == sym)
            return;
    vec_push(&s->sym, sym);
}

Dim bind_canon(Binder *b, Dim d) {
    SymSet set = {{0}};
    dim_visit(b->m->dims, d, collect, &set);
    for (size_t i = 0; i < set.sym.count; i++) {
        uint32_t s = set.sym.item[i];
        if (s < b->subst.count && b->subst.item[s] != DIM_BAD)
            d = dim_subst(b->m->dims, d, s, b->subst.item[s]);
    }
    vec_free(&set.sym);
    return d;
}

Type bind_canon_type(Binder *b, Type t) {
    if (t.dtype == DT_F16)
        t.dtype = DT_F32;
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = bind_canon(b, t.dim[i]);
    return t;
}

static bool mentions(Binder *b, Dim d, uint32_t sym) {
    SymSet set = {{0}};
    bool found = false;
    dim_visit(b->m->dims, d, collect, &set);
    for (size_t i = 0; i < set.sym.count; i++)
        found |= set.sym.item[i] == sym;
    vec_free(&set.sym);
    return found;
}

/* Solves x == y for symbol s where the difference is linear in it; DIM_BAD when that gives no extent. */
static Dim solve_for(Binder *b, Dim x, Dim y, uint32_t s) {
    DimTable *t = b->m->dims;
    Dim zero = dim_const(t, 0), one = dim_const(t, 1), sym = dim_sym(t, dim_sym_at(t, s)->name);
    Dim e = dim_sub(t, x, y);
    Dim e0 = dim_subst(t, e, s, zero);
    Dim c = dim_sub(t, dim_subst(t, e, s, one), e0);
    if (c == zero || mentions(b, c, s) || mentions(b, e0, s) || dim_add(t, e0, dim_mul(t, c, sym)) != e)
        return DIM_BAD;
    Dim rest = dim_sub(t, zero, e0);
    Dim by = dim_floordiv(t, rest, c);
    if (by == DIM_BAD || dim_mul(t, by, c) != rest || dim_upper(t, by) < 0)
        return DIM_BAD;
    return by;
}

static void substitute(Binder *b, uint32_t s, Dim by) {
    DimTable *t = b->m->dims;
    while (b->subst.count < dim_sym_count(t))
        vec_push(&b->subst, DIM_BAD);
    for (size_t i = 0; i < b->subst.count; i++)
        if (b->subst.item[i] != DIM_BAD)
            b->subst.item[i] = dim_subst(t, b->subst.item[i], s, by);
    b->subst.item[s] = by;

    uint32_t other;
    if (dim_as_sym(t, by, &other)) { /* one symbol keeps both bounds */
        DimSym *p = dim_sym_at(t, s), *q = dim_sym_at(t, other);
        q->lo = p->lo > q->lo ? p->lo : q->lo;
        q->hi = p->hi < q->hi ? p->hi : q->hi;
    }
}

bool bind_unify(Binder *b, Dim x, Dim y, const char *what) {
    DimTable *t = b->m->dims;
    if (x == DIM_BAD || y == DIM_BAD)
        return diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "%s: an extent is out of range", what);
    if (x == y)
        return true;
    SymSet set = {{0}};
    dim_visit(t, x, collect, &set);
    dim_visit(t, y, collect, &set);
    uint32_t best = NONE;
    Dim by = DIM_BAD;
    for (size_t i = 0; i < set.sym.count && set.sym.count == 2; i++) { /* min(S, T) == T holds where S == T */
        uint32_t s = set.sym.item[i], other = set.sym.item[1 - i];
        Dim d = dim_sym(t, dim_sym_at(t, other)->name);
        if (s > other && dim_subst(t, x, s, d) == dim_subst(t, y, s, d)) {
            best = s;
            by = d;
        }
    }
    for (size_t i = 0; i < set.sym.count; i++) {
        uint32_t s = set.sym.item[i];
        if (best != NONE && s < best)
            continue; /* the symbol met last gives way */
        Dim d = solve_for(b, x, y, s);
        const DimSym *sym = dim_sym_at(t, s);
        if (d == DIM_BAD || dim_upper(t, d) < sym->lo || dim_lower(t, d) > sym->hi)
            continue;
        best = s;
        by = d;
    }
    vec_free(&set.sym);
    if (best != NONE) {
        substitute(b, best, by);
        b->restart = true;
        return false;
    }
    Text tx = {0}, ty = {0};
    dim_print(t, x, &tx);
    dim_print(t, y, &ty);
    diag_error(b->d, DIAG_SHAPE_MISFIT, b->file, "%s: extents %s and %s do not agree", what,
               diag_show(b->d, (Str){tx.p, tx.n}), diag_show(b->d, (Str){ty.p, ty.n}));
    text_free(&tx);
    text_free(&ty);
    return false;
}

bool bind_broadcast_dims(Binder *b, const BVal *in, uint32_t n, Dims *out) {
    DimTable *t = b->m->dims;
    Dim one = dim_const(t, 1);
    out->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        int r = bound_at(b, in[i])->type.rank;
        out->n = r > out->n ? r : out->n;
    }
    for (int k = 0; k < out->n; k++) {
        Dim d = one;
        for (uint32_t i = 0; i < n; i++) {
            const Type *ty = &bound_at(b, in[i])->type;
            int axis = k - (out->n - ty->rank);
            if (axis < 0 || ty->dim[axis] == one)
                continue;
            if (d == one)
                d = ty->dim[axis];
            else if (!bind_unify(b, d, ty->dim[axis], "broadcast"))
                return false;
        }
        out->d[k] = d;
    }
    return true;
}

/* ---- nodes --------------------------------------------------------------------------------------- */

/* Content of a literal that has just become a node: integers, and floats with integer values. */
static void learn_content(Binder *b, BVal v) {
    Bound x = *bound_at(b, v);
    Tensor t;
    int64_t n = type_small_count(b->m->dims, &x.type);
    if (x.elem || n < 0 || x.id == NONE || !const_of(b->m, b->f, x.id, CONTENT_MAX, &t))
        return;
    Dim elem[CONTENT_MAX];
    for (int64_t i = 0; i < n; i++) {
        int64_t c = tensor_get_i64(&t, i);
        if (dtype_is_float(t.dtype) &&
            ((double)c != tensor_get_f64(&t, i) || c > (1 << 24) || c < -(1 << 24)))
            return;
        elem[i] = dim_const(b->m->dims, c);
    }
    bound_at(b, v)->elem = bind_copy(b, elem, (size_t)n, sizeof *elem);
}

static const ValueId *operand_ids(Binder *b, const BVal *in, uint32_t n) {
    ValueId *ids = arena_array(b->scratch, n ? n : 1, sizeof *ids);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = in[i] == BV_NONE ? NONE : bound_id(b, in[i]);
    return ids;
}

static bool extents_ok(Binder *b, Op op, const Type *type) {
    int64_t bytes = (int64_t)dtype_bytes(type->dtype);
    bool fits = true, empty = false;
    for (int i = 0; i < type->rank; i++) {
        if (type->dim[i] == DIM_BAD || dim_upper(b->m->dims, type->dim[i]) < 0 ||
            dim_lower(b->m->dims, type->dim[i]) >= MOEC_MAX_TENSOR)
            return diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "an extent of the result of %s is out of range",
                              op_info(op)->name);
        int64_t least = dim_lower(b->m->dims, type->dim[i]);
        empty |= least <= 0;
        fits = fits && (least <= 0 || mul_i64(bytes, least, &bytes)) && bytes <= LIMIT_VALUE_BYTES;
    }
    return fits || empty ||
           diag_error(b->d, DIAG_SHAPE_SIZE, b->file, "the result of %s needs more than %lld GiB",
                      op_info(op)->name, (long long)(LIMIT_VALUE_BYTES >> 30));
}

BVal bind_emit_typed(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                     Type type) {
    const ValueId *ids = operand_ids(b, in, n);
    if (!extents_ok(b, op, &type))
        return BV_NONE;
    ValueId v = func_node_typed(b->m, b->f, op, ids, n, attrs, n_attrs, &type, 1, b->origin);
    BVal r = bound_new(b, type, v);
    if (op == OP_const)
        learn_content(b, r);
    return r;
}

bool bind_emit_many(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                    BVal *out) {
    const ValueId *ids = operand_ids(b, in, n);
    const char *why = "operands do not fit";
    int outs = op_info(op)->outs;
    uint32_t n_out = outs >= 0 ? (uint32_t)outs : op_outs(b->m, attrs, n_attrs);
    Type *types = arena_array(b->scratch, n_out > 8 ? n_out : 8, sizeof *types);
    if (!node_infer(b->m, b->f, op, ids, n, attrs, n_attrs, types, &n_out, &why))
        return diag_error(b->d, DIAG_SHAPE_MISFIT, b->file, "%s: %s", op_info(op)->name, why);
    for (uint32_t i = 0; i < n_out; i++)
        if (!extents_ok(b, op, &types[i]))
            return false;
    ValueId v = func_node(b->m, b->f, op, ids, n, attrs, n_attrs, b->origin);
    for (uint32_t i = 0; i < n_out; i++)
        out[i] = bound_new(b, types[i], v + i);
    if (op == OP_const)
        learn_content(b, out[0]);
    return true;
}

BVal bind_emit(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs) {
    BVal out[8] = {BV_NONE};
    return bind_emit_many(b, op, in, n, attrs, n_attrs, out) ? out[0] : BV_NONE;
}

BVal bind_scalar(Binder *b, DType dtype, double v) {
    Tensor t = {.dtype = dtype, .rank = 0};
    CHECK(tensor_alloc(b->m->arena, &t));
    tensor_set_f64(&t, 0, v);
    Attr a = attr_t(AT_value, t);
    return bind_emit(b, OP_const, NULL, 0, &a, 1);
}

BVal bind_dim(Binder *b, Dim d) {
    return bound_content(b, type_scalar(DT_I64), &d);
}

/* ---- short forms that keep what is known ---------------------------------------------------------- */

static bool same_dims(const Type *ty, const Dims *s) {
    return ty->rank == s->n && memcmp(ty->dim, s->d, (size_t)s->n * sizeof(Dim)) == 0;
}

static BVal static_typed(Binder *b, Op op, BVal x, const Attr *attrs, uint32_t n_attrs, const Dims *s) {
    Type type = type_ranked(bound_at(b, x)->type.dtype, s->n, s->d);
    BVal out;
    return bind_static(b, op, &x, 1, attrs, n_attrs, &type, bound_at(b, x)->half, &out, 1) ? out : BV_NONE;
}

BVal bind_to_shape(Binder *b, BVal x, const Dims *s) {
    return same_dims(&bound_at(b, x)->type, s) ? x : static_typed(b, OP_reshape, x, NULL, 0, s);
}

BVal bind_to_broadcast(Binder *b, BVal x, const Dims *s) {
    return same_dims(&bound_at(b, x)->type, s) ? x : static_typed(b, OP_broadcast, x, NULL, 0, s);
}

BVal bind_transposed(Binder *b, BVal x, const int64_t *perm) {
    Bound v = *bound_at(b, x);
    Attr a = attr_ints(AT_perm, perm, (uint32_t)v.type.rank);
    BVal out;
    bool moves = false;
    for (int i = 0; i < v.type.rank; i++)
        moves |= perm[i] != i;
    if (!moves)
        return x;
    return bind_static(b, OP_transpose, &x, 1, &a, 1, NULL, v.half, &out, 1) ? out : BV_NONE;
}

BVal bind_sliced(Binder *b, BVal x, const Dim *start, const int64_t *step, const Dims *extent) {
    bool all = same_dims(&bound_at(b, x)->type, extent);
    for (int i = 0; i < extent->n; i++)
        all &= step[i] == 1;
    if (all) /* as many as there are: they start at 0 */
        return x;
    Attr a[2] = {attr_dims(AT_start, start, (uint32_t)extent->n),
                 attr_ints(AT_step, step, (uint32_t)extent->n)};
    return static_typed(b, OP_slice, x, a, 2, extent);
}

BVal bind_joined(Binder *b, const BVal *in, uint32_t n, int axis) {
    Attr a = attr_i(AT_axis, axis);
    BVal out;
    if (n == 1)
        return in[0];
    return bind_static(b, OP_concat, in, n, &a, 1, NULL, bound_at(b, in[0])->half, &out, 1) ? out : BV_NONE;
}

BVal bind_cast_to(Binder *b, BVal x, DType to) {
    Bound v = *bound_at(b, x);
    Attr a = attr_i(AT_to, to);
    BVal out;
    if (v.type.dtype == to)
        return x;
    return bind_static(b, OP_cast, &x, 1, &a, 1, NULL, v.half, &out, 1) ? out : BV_NONE;
}

BVal bind_binary(Binder *b, Op op, BVal x, BVal y) {
    BVal in[2] = {x, y}, out;
    return bind_static(b, op, in, 2, NULL, 0, NULL, false, &out, 1) ? out : BV_NONE;
}

/* ---- operands that decide shapes --------------------------------------------------------------------- */

/* The function input that v's value comes from: the first found walking back; its name is empty when there is
 * none. */
static Str culprit(Binder *b, ValueId v) {
    Vec(ValueId) todo = {0};
    Str found = {"", 0};
    if (v != NONE)
        vec_push(&todo, v);
    for (uint32_t steps = 0; todo.count && !found.n && steps < 10000; steps++) {
        v = todo.item[--todo.count];
        const Node *n = value_node(b->f, v);
        if (b->f->value[v].kind == VK_INPUT)
            found = b->f->value[v].name;
        for (uint32_t i = n ? n->n_in : 0; i-- > 0;)
            if (n->in[i] != NONE)
                vec_push(&todo, n->in[i]);
    }
    vec_free(&todo);
    return found;
}

static void report_hidden(Binder *b, BVal v, const char *what) {
    if (type_small_count(b->m->dims, &bound_at(b, v)->type) < 0) {
        diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file,
                   "%s comes from a value of more than %d elements, or of unknown extent", what, CONTENT_MAX);
        return;
    }
    Str name = culprit(b, bound_at(b, v)->id);
    const char *shown = diag_show(b->d, name);
    if (name.n)
        diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file,
                   "input '%s' decides %s; give its value with --value %s=FILE", shown, what, shown);
    else
        diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file, "%s depends on values that only the run knows", what);
}

const Dim *bind_need(Binder *b, BVal v, uint32_t *n, const char *what) {
    if (!bound_known(b, v)) {
        report_hidden(b, v, what);
        return NULL;
    }
    *n = (uint32_t)type_small_count(b->m->dims, &bound_at(b, v)->type);
    return bound_at(b, v)->elem;
}

bool bind_need_ints(Binder *b, BVal v, uint32_t *n, const int64_t **out, const char *what) {
    const Dim *elem = bind_need(b, v, n, what);
    if (!elem)
        return false;
    int64_t *ints = arena_array(b->scratch, *n ? *n : 1, sizeof *ints);
    for (uint32_t i = 0; i < *n; i++)
        if (!dim_is_const(b->m->dims, elem[i], &ints[i]))
            return diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file, "%s must not depend on a symbolic extent",
                              what);
    *out = ints;
    return true;
}

bool bind_axis(Binder *b, int64_t axis, int rank, int *out) {
    if (axis < -rank || axis >= rank)
        return diag_error(b->d, DIAG_SHAPE_AXIS, b->file, "axis %lld is outside rank %d", (long long)axis,
                          rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}
