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

static const char *pointwise(const Rows *r, const Node *n) {
    const Type *res = type_of(r, n->out);
    if (!leads(r, res))
        return "its extents do not begin with those of the rows";
    for (uint32_t i = 0; i < n->n_in; i++) {
        ValueId v = n->in[i];
        if (r->row[v] && type_of(r, v)->rank != res->rank)
            return "an operand that has a value for each row has fewer axes than the result";
        if (!r->row[v] && !flat(r, v, res->rank))
            return "an operand that is no row's own varies along the rows";
    }
    return NULL;
}

static const char *move(const Rows *r, const Node *n) {
    static const char moved[] = "it moves elements from row to row";
    const Type *a = type_of(r, n->in[0]), *res = type_of(r, n->out);
    if (!leads(r, res))
        return "its extents do not begin with those of the rows";
    switch (n->op) {
    case OP_reshape:
        return NULL;
    case OP_broadcast:
        return a->rank == res->rank ? NULL : "it repeats rows";
    case OP_transpose: {
        const Attr *p = node_attr(n, AT_perm);
        for (int i = 0; i < r->n; i++)
            if (p->ints.v[i] != i)
                return moved;
        return NULL;
    }
    case OP_slice: {
        const Attr *s = node_attr(n, AT_start), *st = node_attr(n, AT_step);
        for (int i = 0; i < r->n; i++)
            if (!dim_is(r->m->dims, s->dims.v[i], 0) || (st && st->ints.v[i] != 1))
                return moved;
        return NULL;
    }
    case OP_concat:
        for (uint32_t i = 0; i < n->n_in; i++)
            if (!r->row[n->in[i]])
                return "a part of it is no row's own";
        return node_int(n, AT_axis, 0) >= r->n ? NULL : "it joins rows";
    default:
        return moved;
    }
}

static const char *reduce(const Rows *r, const Node *n) {
    static const char folds[] = "it folds values of several rows into one";
    int rank = type_of(r, n->in[0])->rank;
    const Attr *axes = node_attr(n, AT_axes);
    if (!r->row[n->in[0]])
        return "its second operand alone is the rows' own";
    if (axes) {
        for (uint32_t i = 0; i < axes->ints.n; i++)
            if (axes->ints.v[i] < r->n)
                return folds;
    } else if (node_int(n, AT_axis, rank - 1) < r->n)
        return folds;
    if (n->n_in > 1 && r->row[n->in[1]])
        return "its second operand differs from row to row";
    return leads(r, type_of(r, n->out)) ? NULL : "its extents do not begin with those of the rows";
}

static const char *contract(const Rows *r, const Node *n) {
    if (n->op != OP_matmul)
        return "it reads many rows for each";
    if (r->row[n->in[1]] || !r->row[n->in[0]])
        return "the right operand of the product differs from row to row";
    if (!leads(r, type_of(r, n->out)))
        return "its extents do not begin with those of the rows";
    const Type *a = type_of(r, n->in[0]), *b = type_of(r, n->in[1]), *res = type_of(r, n->out);
    if (a->rank != res->rank)
        return "the product repeats its left operand";
    if (node_int(n, AT_ta, 0) && a->rank - 2 < r->n)
        return "the product sums over rows";
    for (int i = 0; i < b->rank - 2; i++)
        if (i + res->rank - b->rank < r->n && !dim_is(r->m->dims, b->dim[i], 1))
            return "each row has a right operand of its own";
    return NULL;
}

static const char *gather(const Rows *r, const Node *n) {
    if (n->op == OP_gather_nd) /* each row picks from itself */
        return r->row[n->in[0]] && r->row[n->in[1]] && node_int(n, AT_batch, 0) >= r->n &&
                       leads(r, type_of(r, n->out))
                   ? NULL
                   : "rows pick from others";
    return n->op == OP_gather && node_int(n, AT_axis, 0) == 0 && !r->row[n->in[0]] &&
                   leads(r, type_of(r, n->out))
               ? NULL
               : "it picks rows by number";
}

/* Why n, of whose operands one at least is the rows' own, does not work row by row. */
static const char *not_local(const Rows *r, const Node *n) {
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE:
        return pointwise(r, n);
    case OC_MOVE:
        return move(r, n);
    case OC_REDUCE:
        return reduce(r, n);
    case OC_CONTRACT:
        return contract(r, n);
    case OC_GATHER:
        return gather(r, n);
    case OC_SOURCE:
        return NULL;
    default:
        return "nothing is known of it row by row";
    }
}

/* The same where no operand is the rows' own: one value for all. */
static const char *not_invariant(const Node *n) {
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE:
    case OC_MOVE:
    case OC_REDUCE:
    case OC_GATHER:
    case OC_SOURCE:
        return NULL;
    case OC_CONTRACT:
        return n->op == OP_matmul ? NULL : "it reads many rows for each";
    default:
        return "nothing is known of it row by row";
    }
}

static bool swaps_rows(const Func *f, const Node *n) {
    const Attr *p = n->op == OP_transpose ? node_attr(n, AT_perm) : NULL;
    if (!p || f->value[n->out].type.rank < 4 || p->ints.v[1] != 2 || p->ints.v[2] != 1)
        return false;
    for (uint32_t i = 0; i < p->ints.n; i++)
        if (i != 1 && i != 2 && p->ints.v[i] != i)
            return false;
    return true;
}

bool rows_scatters(const Rows *r, const Node *n) {
    return r->n == 2 && swaps_rows(r->f, n) && r->row[n->in[0]];
}

ValueId rows_output(const Func *f, uint32_t i) {
    ValueId v = f->output[i];
    const Node *n = value_node(f, v);
    uint32_t reads = 0;
    if (!n || !swaps_rows(f, n) || !value_node(f, n->in[0]))
        return v;
    for (uint32_t k = 0; k < f->n_nodes; k++)
        for (uint32_t j = 0; j < f->node[k].n_in; j++) {
            if (f->node[k].in[j] == v)
                return v;
            reads += f->node[k].in[j] == n->in[0];
        }
    for (uint32_t k = 0; k < f->n_outputs; k++)
        if (f->output[k] == n->in[0] || (k != i && f->output[k] == v))
            return v;
    return reads == 1 ? n->in[0] : v;
}

/* n is the last node of output i, which scatters what the output is made of. */
static bool ends_scattered(const Rows *r, const Node *n) {
    for (uint32_t i = 0; i < r->f->n_outputs; i++)
        if (r->f->output[i] == n->out)
            return rows_output(r->f, i) != n->out && rows_scatters(r, n);
    return false;
}

bool rows_node(Rows *r, const Node *n) {
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE && r->row[n->in[i]]) any = true;
    if (op_info(n->op)->klass == OC_RANDOM) { /* an element follows from its position in the whole */
        for (uint32_t i = 0; i < n->n_out; i++) r->row[n->out + i] = !any && leads(r, type_of(r, n->out + i));
        r->why = "random numbers of a row's own";
        return !any;
    }
    r->why = any ? not_local(r, n) : not_invariant(n);
    if (r->why)
        return false;
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

bool rows_local(const Module *m, const Func *f, int n_row, bool *row, const Node **node, const char **why) {
    Rows r = {.m = m, .f = f, .n = n_row, .row = row};
    memset(row, 0, f->n_values * sizeof *row);
    *node = NULL;
    *why = "its result has no axes that could be rows";
    const Type *first = &f->value[rows_output(f, 0)].type;
    if (n_row < 1 || first->rank < n_row) return false;
    memcpy(r.dim, first->dim, (size_t)n_row * sizeof(Dim));
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        ValueId v = f->input[i];
        row[v] = leads(&r, type_of(&r, v)) && !rows_invariant_use(f, v);
    }
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (!rows_node(&r, &f->node[i]) && !ends_scattered(&r, &f->node[i])) {
            *node = &f->node[i];
            *why = r.why;
            return false;
        }
    *why = "its results have no rows in common";
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (!row[rows_output(f, i)]) return false;
    return true;
}

static bool moves_rows(Op op) {
    return op == OP_attention || op == OP_attention_grad || op == OP_append;
}

int rows_choose(const Module *m, const Func *f, bool *row, const Node **node, const char **why) {
    *node = NULL;
    *why = "its result has one axis or none";
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (moves_rows(f->node[i].op)) {
            *node = &f->node[i];
            *why = "it reads many rows for each";
            memset(row, 0, f->n_values * sizeof *row);
            return 0;
        }
    for (int n = f->value[rows_output(f, 0)].type.rank - 1; n > 0; n--)
        if (rows_local(m, f, n, row, node, why))
            return n;
    memset(row, 0, f->n_values * sizeof *row);
    return 0;
}
