/* Ops whose element positions are data, and concatenation. Every index is checked where the loop that fixes it opens;
 * a bad one faults the run and reads element 0. */
#include "lower_ops.h"

#include <string.h>

/* A data index e into an axis of `extent`: negative ones count from the end. */
static const LExpr *checked(Lower *l, const LExpr *e, const LExpr *extent) {
    LoopKernel *k = l->k;
    e = le_var(k, ls_let(k, l->block, DT_I64, le_cast(k, DT_I64, e), "e"));
    const LExpr *wrapped = le_select(k, le_op2(k, LO_LT, DT_BOOL, e, le_int(k, 0)), li_add(k, e, extent), e);
    return le_var(k, ls_check(k, l->block, wrapped, extent, "g"));
}

bool lower_gather(Lower *l, const Node *n, const View *to) {
    ValueId data = n->in[0], where = n->in[1];
    int axis = (int)node_int(n, AT_axis, 0) - (l->row[data] ? l->n_row - 1 : 0);
    int n_where = lower_rank(l, where), rank = lower_rank(l, n->out);
    const LExpr *idx[MOEC_MAX_RANK], *at[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, n->out, 0, axis + n_where, idx);
    const LExpr *g = checked(l, lower_pull(l, where, idx + axis), lower_extent(l, data, axis));
    lower_loops(l, n->out, axis + n_where, rank, idx);
    for (int a = 0; a < axis; a++) at[a] = idx[a];
    at[axis] = g;
    for (int a = axis + n_where; a < rank; a++) at[a - n_where + 1] = idx[a];
    ls_store(l->k, l->block, to->buf, view_index(l, to, idx), lower_pull(l, data, at));
    l->block = back;
    return true;
}

/* The data position named by row idx of an index tensor: its last axis holds `q` indices, into axes from..from+q. */
static void indices_at(Lower *l, ValueId where, const LExpr **idx, ValueId data, int from, int q, const LExpr **at) {
    int last = lower_rank(l, where) - 1;
    for (int i = 0; i < q; i++) {
        idx[last] = le_int(l->k, i);
        at[from + i] = checked(l, lower_pull(l, where, idx), lower_extent(l, data, from + i));
    }
}

static int index_width(const Lower *l, ValueId where) {
    const Type *t = &l->f->value[where].type;
    int64_t q = 0;
    if (!dim_is_const(l->t, t->dim[t->rank - 1], &q)) BUG("index width is not constant");
    return (int)q;
}

bool lower_gather_nd(Lower *l, const Node *n, const View *to) {
    ValueId data = n->in[0], where = n->in[1];
    int batch = (int)node_int(n, AT_batch, 0) - (l->row[data] ? l->n_row - 1 : 0), q = index_width(l, where), outer = lower_rank(l, where) - 1;
    int rank = lower_rank(l, n->out);
    const LExpr *idx[MOEC_MAX_RANK], *row[MOEC_MAX_RANK], *at[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, n->out, 0, outer, idx);
    memcpy(row, idx, sizeof row);
    for (int a = 0; a < batch; a++) at[a] = idx[a];
    indices_at(l, where, row, data, batch, q, at);
    lower_loops(l, n->out, outer, rank, idx);
    for (int a = outer; a < rank; a++) at[a - outer + batch + q] = idx[a];
    ls_store(l->k, l->block, to->buf, view_index(l, to, idx), lower_pull(l, data, at));
    l->block = back;
    return true;
}

bool lower_scatter_nd(Lower *l, const Node *n, const View *to) {
    ValueId data = n->in[0], where = n->in[1], updates = n->in[2];
    int q = index_width(l, where), outer = lower_rank(l, where) - 1, rank = lower_rank(l, updates);
    const LExpr *idx[MOEC_MAX_RANK], *row[MOEC_MAX_RANK], *at[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, data, 0, lower_rank(l, data), idx);
    ls_store(l->k, l->block, to->buf, view_index(l, to, idx), lower_pull(l, data, idx));
    l->block = back;
    lower_loops(l, updates, 0, outer, idx);
    memcpy(row, idx, sizeof row);
    indices_at(l, where, row, data, 0, q, at);
    lower_loops(l, updates, outer, rank, idx);
    for (int a = outer; a < rank; a++) at[a - outer + q] = idx[a];
    const LExpr *spot = view_index(l, to, at), *e = lower_pull(l, updates, idx);
    const Attr *kind = node_attr(n, AT_kind);
    if (kind) {
        LOp op = str_is(kind->s, "sum") ? LO_ADD : str_is(kind->s, "prod") ? LO_MUL : str_is(kind->s, "max") ? LO_MAX : LO_MIN;
        DType t = l->f->value[updates].type.dtype;
        e = le_op2(l->k, op, t == DT_BOOL ? DT_I64 : t, le_load(l->k, to->buf, spot), e);
    }
    ls_store(l->k, l->block, to->buf, spot, e);
    l->block = back;
    return true;
}

bool lower_concat(Lower *l, const Node *n, const View *to) {
    int axis = (int)node_int(n, AT_axis, 0) - (l->row[n->out] ? l->n_row - 1 : 0);
    const LExpr *from = le_int(l->k, 0);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const LExpr *idx[MOEC_MAX_RANK];
        LBlock *back = lower_loops(l, n->in[i], 0, lower_rank(l, n->in[i]), idx);
        const LExpr *e = lower_pull(l, n->in[i], idx);
        idx[axis] = li_add(l->k, idx[axis], from);
        ls_store(l->k, l->block, to->buf, view_index(l, to, idx), e);
        l->block = back;
        from = li_add(l->k, from, lower_extent(l, n->in[i], axis));
    }
    return true;
}
