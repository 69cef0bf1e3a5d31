/* Index functions: following a position backwards through one op after another.
 *
 * The walk keeps its own stack: a pull whose operands are not known yet pushes them and is tried again later,
 * so depth is bounded by memory alone and every (value, position) is worked out once. */
#include "indexfn_impl.h"

#include <string.h>

/* ---- memo ---------------------------------------------------------------------------------------- */

static uint64_t pull_hash(ValueId v, IxDepth depth, const IxId *at, uint32_t n) {
    uint64_t k[2] = {v, (uint64_t)depth};
    return hash_bytes(hash_bytes(n, k, sizeof k), at, n * sizeof *at);
}

static void memo_rehash(Index *x) {
    size_t room = x->memo_room ? x->memo_room * 2 : 256;
    mem_free(x->memo_hash);
    x->memo_hash = mem_alloc(room * sizeof *x->memo_hash);
    x->memo_room = room;
    for (uint32_t i = 0; i < x->memo.count; i++) {
        const IxPull *p = &x->memo.item[i];
        size_t s = pull_hash(p->v, p->depth, x->ids.item + p->at, p->n) & (room - 1);
        while (x->memo_hash[s])
            s = (s + 1) & (room - 1);
        x->memo_hash[s] = i + 1;
    }
}

/* The memo entry of a pull, made when new. */
static uint32_t memo_at(Index *x, ValueId v, IxDepth depth, const IxId *at, uint32_t n) {
    if (x->memo.count * 2 >= x->memo_room)
        memo_rehash(x);
    size_t s = pull_hash(v, depth, at, n) & (x->memo_room - 1);
    for (; x->memo_hash[s]; s = (s + 1) & (x->memo_room - 1)) {
        const IxPull *p = &x->memo.item[x->memo_hash[s] - 1];
        if (p->v == v && p->depth == depth && p->n == n &&
            (n == 0 || memcmp(x->ids.item + p->at, at, n * sizeof *at) == 0))
            return x->memo_hash[s] - 1;
    }
    IxPull p = {v, (uint32_t)x->ids.count, n, depth, IX_FAIL};
    for (uint32_t i = 0; i < n; i++)
        vec_push(&x->ids, at[i]);
    x->memo_hash[s] = (uint32_t)x->memo.count + 1;
    vec_push(&x->memo, p);
    return (uint32_t)x->memo.count - 1;
}

/* ---- one step -------------------------------------------------------------------------------------- */

typedef enum Step { STEP_FAIL, STEP_WAIT, STEP_DONE } Step;

typedef struct Frame {
    Index *x;
    IxDepth depth;
    const Node *n;
    Type type; /* of the value pulled */
    IxId at[MOEC_MAX_RANK];
    IxId *out;
} Frame;

static Step done(Frame *r, IxId e) {
    *r->out = e;
    if (e != IX_FAIL)
        return STEP_DONE;
    if (!r->x->where)
        r->x->where = r->n;
    return STEP_FAIL;
}

static Step fail(Frame *r, const char *why) {
    index_fail(r->x, r->n, why);
    return STEP_FAIL;
}

/* The element of v at `at`; STEP_WAIT when it has to be worked out first. */
static Step need(Frame *r, ValueId v, const IxId *at, IxId *out) {
    Index *x = r->x;
    int rank = x->f->value[v].type.rank;
    *out = IX_FAIL;
    for (int i = 0; i < rank; i++)
        if (at[i] == IX_FAIL)
            return done(r, IX_FAIL);
    uint32_t k = memo_at(x, v, r->depth, at, (uint32_t)rank);
    *out = x->memo.item[k].result;
    if (*out != IX_FAIL)
        return STEP_DONE;
    if (++x->pulls > IX_MAX_PULLS)
        return fail(r, "too many positions to follow");
    vec_push(&x->stack, k);
    return STEP_WAIT;
}

static Step forward(Frame *r, ValueId v, const IxId *at) {
    IxId e;
    Step s = need(r, v, at, &e);
    return s == STEP_DONE ? done(r, e) : s;
}

static IxId zero(Index *x) {
    return index_int(x, dim_const(x->dims, 0));
}

/* Positions in an operand that is broadcast to the result. */
static Step broadcast_at(Frame *r, ValueId v, IxId *at) {
    const Type *t = &r->x->f->value[v].type;
    int skip = r->type.rank - t->rank;
    if (skip < 0)
        return fail(r, "a broadcast to fewer axes");
    for (int i = 0; i < t->rank; i++) {
        if (dim_is(r->x->m->dims, t->dim[i], 1))
            at[i] = zero(r->x);
        else if (t->dim[i] == r->type.dim[skip + i])
            at[i] = r->at[skip + i];
        else
            return fail(r, "a broadcast between extents that are not known to be equal");
    }
    return STEP_DONE;
}

static Step pull_pointwise(Frame *r) {
    IxId arg[3] = {0};
    Step waiting = STEP_DONE;
    if (r->n->n_in > 3)
        return fail(r, "an op with unexpected operands");
    for (uint32_t i = 0; i < r->n->n_in; i++) {
        IxId at[MOEC_MAX_RANK] = {0};
        Step s = broadcast_at(r, r->n->in[i], at);
        if (s == STEP_DONE)
            s = need(r, r->n->in[i], at, &arg[i]);
        if (s == STEP_FAIL)
            return s;
        if (s == STEP_WAIT)
            waiting = s;
    }
    if (waiting == STEP_WAIT)
        return waiting;
    return done(r, index_op(r->x, r->n->op, r->type.dtype, arg, r->n->n_in));
}

static Step pull_broadcast(Frame *r) {
    IxId at[MOEC_MAX_RANK] = {0};
    Step s = broadcast_at(r, r->n->in[0], at);
    return s == STEP_DONE ? forward(r, r->n->in[0], at) : s;
}

static Step pull_transpose(Frame *r) {
    const Attr *perm = node_attr(r->n, AT_perm);
    IxId at[MOEC_MAX_RANK] = {0};
    for (uint32_t i = 0; i < perm->ints.n; i++)
        at[perm->ints.v[i]] = r->at[i];
    return forward(r, r->n->in[0], at);
}

static IxId affine(Index *x, IxId at, int64_t step, Dim start) {
    IxId k = index_int(x, dim_const(x->dims, step)), s = index_int(x, start);
    IxId scaled = index_op(x, OP_mul, DT_I64, (IxId[]){at, k}, 2);
    return index_op(x, OP_add, DT_I64, (IxId[]){scaled, s}, 2);
}

static Step pull_slice(Frame *r) {
    const Attr *start = node_attr(r->n, AT_start), *step = node_attr(r->n, AT_step);
    IxId at[MOEC_MAX_RANK] = {0};
    for (int i = 0; i < r->type.rank; i++)
        at[i] = affine(r->x, r->at[i], step ? step->ints.v[i] : 1, index_dim(r->x, start->dims.v[i]));
    return forward(r, r->n->in[0], at);
}

/* Splits a flat position into quotient and remainder by `ext`. The remainder has to be recognised: one of the
 * lower digits of the position (`digit`, `below` = extent it runs through), or a variable of just that
 * extent. */
static bool divide(Index *x, Dim flat, Dim ext, const Dim *digit, const Dim *below, int n, Dim *q,
                   Dim *rest) {
    DimTable *t = x->dims;
    for (int i = 0; i <= n; i++) {
        Dim rem = i < n ? digit[i] : dim_const(t, 0);
        if (i < n && below[i] != ext)
            continue;
        Dim high = dim_sub(t, flat, rem), quo = dim_floordiv(t, high, ext);
        if (high != DIM_BAD && quo != DIM_BAD && dim_mul(t, quo, ext) == high)
            return *q = quo, *rest = rem, true;
    }
    for (size_t i = 0; i < x->vars.count; i++) {
        if (x->vars.item[i].extent != ext)
            continue;
        Dim high = dim_sub(t, flat, x->vars.item[i].d), quo = dim_floordiv(t, high, ext);
        if (high != DIM_BAD && quo != DIM_BAD && dim_mul(t, quo, ext) == high)
            return *q = quo, *rest = x->vars.item[i].d, true;
    }
    *q = dim_floordiv(t, flat, ext);
    *rest = dim_mod(t, flat, ext);
    return *q != DIM_BAD && *rest != DIM_BAD;
}

/* One group of axes with equal products: operand axes a0..a1, result axes b0..b1. */
static Step regroup(Frame *r, const Type *a, int a0, int a1, int b0, int b1, IxId *at) {
    Index *x = r->x;
    DimTable *t = x->dims;
    if (a1 - a0 == 1 && b1 - b0 == 1) {
        at[a0] = r->at[b0];
        return STEP_DONE;
    }
    Dim flat = dim_const(t, 0), digit[MOEC_MAX_RANK], below[MOEC_MAX_RANK];
    Dim span = dim_const(t, 1);
    int n = 0;
    for (int i = b1; i-- > b0;) {
        Dim p;
        if (!index_poly(x, r->at[i], &p))
            return fail(r, "a reshape of positions that are data");
        flat = dim_add(t, flat, dim_mul(t, p, span));
        span = dim_mul(t, span, index_dim(x, r->type.dim[i]));
        digit[n] = flat;
        below[n++] = span;
    }
    for (int i = a1; i-- > a0 + 1;) {
        Dim q, rest;
        if (!divide(x, flat, index_dim(x, a->dim[i]), digit, below, n, &q, &rest))
            return fail(r, "integer arithmetic overflows");
        at[i] = index_int(x, rest);
        /* What was taken off the position is taken off its digits too. */
        for (int k = 0; k < n; k++) {
            Dim high = dim_sub(t, digit[k], rest), ext = index_dim(x, a->dim[i]);
            digit[k] = dim_floordiv(t, high, ext);
            below[k] = dim_floordiv(t, below[k], ext);
            if (digit[k] == DIM_BAD || below[k] == DIM_BAD)
                return fail(r, "integer arithmetic overflows");
        }
        flat = q;
    }
    at[a0] = index_int(x, flat);
    return STEP_DONE;
}

static bool divides(DimTable *t, Dim small, Dim big) {
    Dim q = dim_floordiv(t, big, small);
    return q != DIM_BAD && dim_mul(t, q, small) == big;
}

static Step pull_reshape(Frame *r) {
    Index *x = r->x;
    DimTable *t = x->m->dims;
    const Type *a = &x->f->value[r->n->in[0]].type, *b = &r->type;
    Dim one = dim_const(t, 1);
    IxId at[MOEC_MAX_RANK] = {0};
    int i = 0, j = 0;
    while (i < a->rank || j < b->rank) {
        if (i < a->rank && a->dim[i] == one) {
            at[i++] = zero(x);
            continue;
        }
        if (j < b->rank && b->dim[j] == one) {
            j++;
            continue;
        }
        if (i == a->rank || j == b->rank)
            return fail(r, "a reshape whose extents do not pair up");
        int a0 = i, b0 = j;
        Dim pa = a->dim[i++], pb = b->dim[j++];
        while (pa != pb) {
            bool grow_a = divides(t, pa, pb) && i < a->rank;
            if (!grow_a && j == b->rank) {
                if (i == a->rank)
                    return fail(r, "a reshape whose extents do not pair up");
                grow_a = true;
            }
            if (grow_a)
                pa = dim_mul(t, pa, a->dim[i++]);
            else
                pb = dim_mul(t, pb, b->dim[j++]);
            if (pa == DIM_BAD || pb == DIM_BAD)
                return fail(r, "integer arithmetic overflows");
        }
        Step s = regroup(r, a, a0, i, b0, j, at);
        if (s != STEP_DONE)
            return s;
    }
    return forward(r, r->n->in[0], at);
}

static Step pull_concat(Frame *r) {
    Index *x = r->x;
    int64_t axis = node_int(r->n, AT_axis, 0);
    Dim off = dim_const(x->dims, 0), p;
    bool poly = index_poly(x, r->at[axis], &p);
    IxId result = IX_FAIL, until = IX_FAIL; /* built from the last operand to the first */
    Vec(IxId) piece = {0};
    Vec(IxId) bound = {0};
    Step s = STEP_DONE;
    for (uint32_t i = 0; i < r->n->n_in && s != STEP_FAIL; i++) {
        Dim ext = index_dim(x, x->f->value[r->n->in[i]].type.dim[axis]);
        Dim next = dim_add(x->dims, off, ext);
        bool last = i + 1 == r->n->n_in;
        if (poly && dim_lower(x->dims, dim_sub(x->dims, p, next)) >= 0 && !last) {
            off = next; /* surely behind this operand */
            continue;
        }
        IxId at[MOEC_MAX_RANK] = {0}, e;
        memcpy(at, r->at, sizeof at);
        IxId o = index_int(x, off);
        at[axis] = index_op(x, OP_sub, DT_I64, (IxId[]){r->at[axis], o}, 2);
        Step now = need(r, r->n->in[i], at, &e);
        if (now == STEP_FAIL || (now == STEP_WAIT && s == STEP_DONE))
            s = now;
        vec_push(&piece, e);
        vec_push(&bound, index_int(x, next));
        if (poly && dim_upper(x->dims, dim_sub(x->dims, p, next)) < 0)
            break; /* surely within it */
        off = next;
    }
    if (s == STEP_DONE && piece.count) {
        result = piece.item[piece.count - 1];
        for (size_t i = piece.count - 1; i-- > 0;) {
            until = index_op(x, OP_lt, DT_BOOL, (IxId[]){r->at[axis], bound.item[i]}, 2);
            result = index_op(x, OP_select, r->type.dtype, (IxId[]){until, piece.item[i], result}, 3);
        }
        s = done(r, result);
    }
    vec_free(&piece);
    vec_free(&bound);
    return s;
}

/* A position taken from data: negative ones count from the end. */
static IxId from_end(Index *x, IxId at, Dim extent) {
    Dim p;
    if (at == IX_FAIL || (index_poly(x, at, &p) && dim_lower(x->dims, p) >= 0))
        return at;
    DType t = index_expr(x, at)->dtype;
    IxId e = index_int(x, extent);
    IxId less = index_op(x, OP_lt, DT_BOOL, (IxId[]){at, zero(x)}, 2);
    IxId back = index_op(x, OP_add, t, (IxId[]){at, e}, 2);
    return index_op(x, OP_select, t, (IxId[]){less, back, at}, 3);
}

static Step pull_gather(Frame *r) {
    Index *x = r->x;
    int64_t axis = node_int(r->n, AT_axis, 0);
    const Type *data = &x->f->value[r->n->in[0]].type, *idx = &x->f->value[r->n->in[1]].type;
    IxId pos, at[MOEC_MAX_RANK] = {0};
    Step s = need(r, r->n->in[1], r->at + axis, &pos);
    if (s != STEP_DONE)
        return s;
    for (int i = 0; i < data->rank; i++)
        at[i] = i < axis    ? r->at[i]
                : i == axis ? from_end(x, pos, index_dim(x, data->dim[i]))
                            : r->at[i - 1 + idx->rank];
    return forward(r, r->n->in[0], at);
}

static Step pull_gather_nd(Frame *r) {
    Index *x = r->x;
    int64_t batch = node_int(r->n, AT_batch, 0), k;
    const Type *data = &x->f->value[r->n->in[0]].type, *idx = &x->f->value[r->n->in[1]].type;
    int lead = idx->rank - 1;
    if (!dim_is_const(x->m->dims, idx->dim[lead], &k) || batch + k > data->rank)
        return fail(r, "positions of unknown rank");
    IxId at[MOEC_MAX_RANK] = {0}, where[MOEC_MAX_RANK];
    Step waiting = STEP_DONE;
    memcpy(where, r->at, sizeof where);
    for (int i = 0; i < data->rank; i++) {
        Step s = STEP_DONE;
        if (i < batch)
            at[i] = r->at[i];
        else if (i < batch + k) {
            where[lead] = index_int(x, dim_const(x->dims, i - batch));
            s = need(r, r->n->in[1], where, &at[i]);
            if (s == STEP_DONE)
                at[i] = from_end(x, at[i], index_dim(x, data->dim[i]));
        } else
            at[i] = r->at[lead + i - (batch + k)];
        if (s == STEP_FAIL)
            return s;
        if (s == STEP_WAIT)
            waiting = s;
    }
    return waiting == STEP_WAIT ? waiting : forward(r, r->n->in[0], at);
}

/* Only one kind of scatter is followed: every position of the data is written, by the update at that
 * position. */
static Step pull_scatter_nd(Frame *r) {
    Index *x = r->x;
    const Type *data = &x->f->value[r->n->in[0]].type, *idx = &x->f->value[r->n->in[1]].type;
    int lead = idx->rank - 1;
    if (node_attr(r->n, AT_kind) || !dim_is(x->m->dims, idx->dim[lead], lead) || lead > data->rank)
        return fail(r, "writes to computed positions");
    for (int i = 0; i < lead; i++)
        if (idx->dim[i] != data->dim[i])
            return fail(r, "writes to computed positions that may leave some out");
    IxScatter *sc = NULL;
    for (size_t i = 0; i < x->scatters.count; i++)
        if (x->scatters.item[i].indices == r->n->in[1])
            sc = &x->scatters.item[i];
    if (!sc) {
        IxScatter fresh = {.indices = r->n->in[1]};
        for (int i = 0; i < lead; i++)
            fresh.at[i] = index_var(x, data->dim[i]);
        vec_push(&x->scatters, fresh);
        sc = &x->scatters.item[x->scatters.count - 1];
    }
    IxId at[MOEC_MAX_RANK] = {0}, e;
    memcpy(at, sc->at, sizeof at);
    Step waiting = STEP_DONE;
    for (int i = 0; i < lead; i++) {
        at[lead] = index_int(x, dim_const(x->dims, i));
        Step s = need(r, r->n->in[1], at, &e);
        if (s == STEP_FAIL)
            return s;
        if (s == STEP_WAIT)
            waiting = s;
        else if (e != at[i])
            return fail(r, "writes to positions that are not each element's own");
    }
    return waiting == STEP_WAIT ? waiting : forward(r, r->n->in[2], r->at);
}

static Step pull_const(Frame *r) {
    const Tensor *t = &node_attr(r->n, AT_value)->t;
    int64_t n, at = 0;
    bool known = tensor_count(t, &n), same = known && n > 0;
    for (int i = 0; i < t->rank && known; i++) {
        IxNum p;
        known = index_known(r->x, r->at[i], &p) && p.i >= 0 && p.i < t->dim[i];
        at = known ? at * t->dim[i] + p.i : 0;
    }
    for (int64_t i = 1; same && !known && i < n; i++)
        same = dtype_is_float(t->dtype) ? tensor_get_f64(t, i) == tensor_get_f64(t, 0)
                                        : tensor_get_i64(t, i) == tensor_get_i64(t, 0);
    if (!known && !same)
        return done(r, index_elem(r->x, r->n->out, t->dtype, r->at, (uint32_t)t->rank));
    if (dtype_is_float(t->dtype))
        return done(r, index_num(r->x, t->dtype, tensor_get_f64(t, known ? at : 0)));
    int64_t v = tensor_get_i64(t, known ? at : 0);
    return done(r,
                t->dtype == DT_BOOL ? index_bool(r->x, v != 0) : index_int(r->x, dim_const(r->x->dims, v)));
}

static Step pull_step(Frame *r, ValueId v) {
    Index *x = r->x;
    if (!r->n) {
        double s;
        if (x->f->value[v].kind == VK_PARAM && dtype_is_float(r->type.dtype) &&
            value_scalar(x->m, x->f, v, &s))
            return done(r, index_num(x, r->type.dtype, s));
        return done(r, index_elem(x, v, r->type.dtype, r->at, (uint32_t)r->type.rank));
    }
    switch (r->n->op) {
    case OP_reshape:
        return pull_reshape(r);
    case OP_transpose:
        return pull_transpose(r);
    case OP_broadcast:
        return pull_broadcast(r);
    case OP_slice:
        return pull_slice(r);
    default:
        break;
    }
    if (r->depth == IX_MOVES)
        return done(r, index_elem(x, v, r->type.dtype, r->at, (uint32_t)r->type.rank));
    switch (r->n->op) {
    case OP_const:
        return pull_const(r);
    case OP_dim:
        return done(r, index_int(x, index_dim(x, node_attr(r->n, AT_dim)->d)));
    case OP_iota:
        return done(r, r->at[node_int(r->n, AT_axis, 0)]);
    case OP_concat:
        return pull_concat(r);
    case OP_gather:
        return pull_gather(r);
    case OP_gather_nd:
        return pull_gather_nd(r);
    case OP_scatter_nd:
        return pull_scatter_nd(r);
    default:
        break;
    }
    if (op_info(r->n->op)->klass == OC_POINTWISE)
        return pull_pointwise(r);
    return fail(r, "positions are not followed through this op");
}

IxId index_pull(Index *x, ValueId v, const IxId *at, IxDepth depth) {
    x->where = NULL;
    x->why = NULL;
    x->stack.count = 0;
    uint32_t root = memo_at(x, v, depth, at, (uint32_t)x->f->value[v].type.rank);
    if (x->memo.item[root].result != IX_FAIL)
        return x->memo.item[root].result;
    vec_push(&x->stack, root);
    while (x->stack.count) {
        uint32_t k = x->stack.item[x->stack.count - 1];
        const IxPull p = x->memo.item[k];
        if (p.result != IX_FAIL) {
            x->stack.count--;
            continue;
        }
        IxId out = IX_FAIL;
        Frame r = {x, depth, value_node(x->f, p.v), x->f->value[p.v].type, {0}, &out};
        if (p.n)
            memcpy(r.at, x->ids.item + p.at, p.n * sizeof *r.at);
        Step s = pull_step(&r, p.v);
        if (s == STEP_FAIL)
            return IX_FAIL;
        if (s == STEP_WAIT)
            continue;
        x->memo.item[k].result = out;
        x->stack.count--;
    }
    return x->memo.item[root].result;
}
