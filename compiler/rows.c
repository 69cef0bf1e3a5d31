/* Row-locality: whether a kernel can run over tiles of its leading axes with everything between its inputs and
 * outputs staying inside a tile. One rule an op class; what no rule covers is not row-local. */
#include "rows.h"

#include <string.h>

static const Type *type_of(const Rows *r, ValueId v) {
    return &r->f->value[v].type;
}

static bool leads(const Rows *r, const Type *t) {
    if (t->rank < r->n) return false;
    for (int i = 0; i < r->n; i++)
        if (t->dim[i] != r->dim[i]) return false;
    return true;
}

/* v, aligned at the last axis with a result of rank `rank`, does not vary along the rows. */
static bool flat(const Rows *r, ValueId v, int rank) {
    const Type *t = type_of(r, v);
    for (int a = 0; a < t->rank; a++)
        if (a + rank - t->rank < r->n && !dim_is(r->m->dims, t->dim[a], 1)) return false;
    return !r->row[v];
}

static bool pointwise(const Rows *r, const Node *n, bool any) {
    const Type *res = type_of(r, n->out);
    if (!any) return true;
    if (!leads(r, res)) return false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        ValueId v = n->in[i];
        if (r->row[v] ? type_of(r, v)->rank != res->rank : !flat(r, v, res->rank)) return false;
    }
    return true;
}

static bool move(const Rows *r, const Node *n) {
    const Type *a = type_of(r, n->in[0]), *res = type_of(r, n->out);
    if (!leads(r, res)) return false;
    switch (n->op) {
    case OP_reshape: return true;
    case OP_broadcast: return a->rank == res->rank;
    case OP_transpose: {
        const Attr *p = node_attr(n, AT_perm);
        for (int i = 0; i < r->n; i++)
            if (p->ints.v[i] != i) return false;
        return true;
    }
    case OP_slice: {
        const Attr *s = node_attr(n, AT_start), *st = node_attr(n, AT_step);
        for (int i = 0; i < r->n; i++)
            if (!dim_is(r->m->dims, s->dims.v[i], 0) || (st && st->ints.v[i] != 1)) return false;
        return true;
    }
    case OP_concat:
        for (uint32_t i = 0; i < n->n_in; i++)
            if (!r->row[n->in[i]]) return false;
        return node_int(n, AT_axis, 0) >= r->n;
    default: return false;
    }
}

static bool reduce(const Rows *r, const Node *n) {
    int rank = type_of(r, n->in[0])->rank;
    const Attr *axes = node_attr(n, AT_axes);
    if (axes) {
        for (uint32_t i = 0; i < axes->ints.n; i++)
            if (axes->ints.v[i] < r->n) return false;
    } else if (node_int(n, AT_axis, rank - 1) < r->n)
        return false;
    if (n->n_in > 1 && r->row[n->in[1]]) return false;
    return leads(r, type_of(r, n->out));
}

static bool contract(const Rows *r, const Node *n) {
    if (n->op != OP_matmul || r->row[n->in[1]] || !leads(r, type_of(r, n->out))) return false;
    const Type *a = type_of(r, n->in[0]), *b = type_of(r, n->in[1]), *res = type_of(r, n->out);
    if (a->rank != res->rank) return false;
    if (node_int(n, AT_ta, 0) && a->rank - 2 < r->n) return false;
    for (int i = 0; i < b->rank - 2; i++)
        if (i + res->rank - b->rank < r->n && !dim_is(r->m->dims, b->dim[i], 1)) return false;
    return true;
}

bool rows_node(Rows *r, const Node *n) {
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE && r->row[n->in[i]]) any = true;
    if (op_info(n->op)->klass == OC_RANDOM) { /* an element follows from its position in the whole */
        for (uint32_t i = 0; i < n->n_out; i++) r->row[n->out + i] = !any && leads(r, type_of(r, n->out + i));
        return !any;
    }
    bool ok;
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE: ok = pointwise(r, n, any); break;
    case OC_MOVE: ok = !any || move(r, n); break;
    case OC_REDUCE: ok = !any || (r->row[n->in[0]] && reduce(r, n)); break;
    case OC_CONTRACT: ok = !any ? n->op == OP_matmul : r->row[n->in[0]] && contract(r, n); break;
    case OC_GATHER:
        if (n->op == OP_gather_nd && any) { /* each row picks from itself */
            ok = r->row[n->in[0]] && r->row[n->in[1]] && node_int(n, AT_batch, 0) >= r->n && leads(r, type_of(r, n->out));
            break;
        }
        ok = !any || (n->op == OP_gather && node_int(n, AT_axis, 0) == 0 && !r->row[n->in[0]] && leads(r, type_of(r, n->out)));
        break;
    case OC_SOURCE: ok = true; break;
    default: ok = false;
    }
    if (!ok) return false;
    for (uint32_t i = 0; i < n->n_out; i++) r->row[n->out + i] = any;
    return true;
}

bool rows_invariant_use(const Func *f, ValueId v) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        bool second = n->op == OP_matmul || n->op == OP_rms_norm;
        if (second && n->in[1] == v) return true;
        if (n->op == OP_gather && n->in[0] == v) return true;
    }
    return false;
}

bool rows_lead(const Rows *r, ValueId v) {
    return leads(r, type_of(r, v));
}

bool rows_local(const Module *m, const Func *f, int n_row, bool *row) {
    Rows r = {.m = m, .f = f, .n = n_row, .row = row};
    memset(row, 0, f->n_values * sizeof *row);
    const Type *first = &f->value[f->output[0]].type;
    if (n_row < 1 || first->rank < n_row) return false;
    memcpy(r.dim, first->dim, (size_t)n_row * sizeof(Dim));
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        ValueId v = f->input[i];
        row[v] = leads(&r, type_of(&r, v)) && !rows_invariant_use(f, v);
    }
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (!rows_node(&r, &f->node[i])) return false;
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (!row[f->output[i]]) return false;
    return true;
}
