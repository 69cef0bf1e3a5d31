/* What attention and its gradient are lowered from: operands, bias, dropout. */
#include "lower_attention.h"

ValueId attend_operand(const Attend *t, uint32_t i) {
    return t->first + i < t->n->n_in ? t->n->in[t->first + i] : NONE;
}

bool attend_rows(Lower *l, ValueId v, View *out) {
    if (!lower_stored(l, v, out))
        return false;
    return dim_is(l->t, out->stride[2], 1) || (lower_scratch(l, v, out) && lower_into(l, v, out));
}

/* The same of keys or values. Attention alone reads heads that lie apart, [B,heads,S,width], as they are: what it sees is
 * [B,S,heads,width] as [B,S,heads * width]. *head: from one to the next. */
static bool stored_heads(Lower *l, const Attend *t, ValueId v, View *out, Dim *head) {
    const Node *n = value_node(l->f, v);
    Dim heads = dim_const(l->t, node_int(t->n, AT_heads, 1));
    View w;
    if (t->n->op == OP_attention && n && n->op == OP_reshape && !l->view[v].buf) {
        const Type *from = &l->f->value[n->in[0]].type;
        if (from->rank == 4 && from->dim[1] == l->f->value[v].type.dim[1] && from->dim[2] == heads && lower_view(l, n->in[0], &w) &&
            dim_is(l->t, w.stride[3], 1)) {
            *out = (View){.buf = w.buf, .offset = w.offset, .rank = 3, .stride = {w.stride[0], w.stride[1], w.stride[3]}, .origin = w.origin};
            *head = w.stride[2];
            return true;
        }
    }
    *head = dim_floordiv(l->t, l->f->value[v].type.dim[2], heads);
    return attend_rows(l, v, out);
}

bool attend_open(Lower *l, const Node *n, uint32_t first, Attend *t) {
    LoopKernel *k = l->k;
    *t = (Attend){.n = n, .first = first};
    ValueId q = attend_operand(t, 0), key = attend_operand(t, 1), value = attend_operand(t, 2), bias = attend_operand(t, 3);
    t->keep = attend_operand(t, 4);
    t->q_segment = attend_operand(t, 5);
    t->k_segment = attend_operand(t, 6);
    t->spans = first ? NONE : attend_operand(t, 9);
    DType dtype = l->f->value[q].type.dtype;
    if (dtype != DT_F32)
        return diag_error(l->d, DIAG_LOWER_OP, NULL, "attention in %s is not supported: only f32",
                          dtype_name(dtype));
    if (k->parallel)
        return diag_error(l->d, DIAG_LOWER_OP, NULL, "kernel '%.*s' holds more than one attention",
                          (int)l->f->name.n, l->f->name.p);
    if (!attend_rows(l, q, &t->q) || !stored_heads(l, t, key, &t->k, &t->k_head) ||
        !stored_heads(l, t, value, &t->v, &t->v_head))
        return false;
    if (bias != NONE && !lower_stored(l, bias, &t->bias))
        return false;
    t->heads = le_int(k, node_int(n, AT_heads, 1));
    t->batch = lower_extent(l, t->spans == NONE ? q : t->spans, 0);
    t->packed = t->spans != NONE && l->f->value[q].type.dim[0] != l->f->value[t->spans].type.dim[0];
    t->queries = lower_extent(l, q, 1);
    t->keys = lower_extent(l, key, 1);
    t->width = li_div(k, lower_extent(l, q, 2), t->heads);
    t->value_width = li_div(k, lower_extent(l, value, 2), t->heads);
    return true;
}

const LExpr *attend_bias_column(Lower *l, const Attend *t, const LExpr *distance) {
    LoopKernel *k = l->k;
    const LExpr *last = li_sub(k, lower_extent(l, attend_operand(t, 3), 1), le_int(k, 1));
    const LExpr *d = li_add(k, distance, le_int(k, node_int(t->n, AT_center, 0)));
    return li_max(k, li_min(k, d, last), le_int(k, 0));
}

const LExpr *attend_lowest(Lower *l) {
    return le_num(l->k, DT_F32, -3.4028234663852886e+38);
}

/* ---- dropout --------------------------------------------------------------------------------------------- */

void attend_dropout(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    ValueId seed = attend_operand(t, 7), drop = attend_operand(t, 8);
    if (seed == NONE)
        return;
    t->seed = le_var(k, ls_let(k, l->block, DT_I64, lower_pull(l, seed, NULL), "seed"));
    t->drop = le_var(k, ls_let(k, l->block, DT_F32, lower_pull(l, drop, NULL), "drop"));
    const LExpr *one = le_num(k, DT_F32, 1), *kept = le_op2(k, LO_SUB, DT_F32, one, t->drop);
    t->scale = le_var(k, ls_let(k, l->block, DT_F32, le_op2(k, LO_DIV, DT_F32, one, kept), "scale"));
}

const LExpr *attend_dropped(Lower *l, const Attend *t, const LExpr *index, const LExpr *x) {
    if (!t->seed)
        return x;
    LoopKernel *k = l->k;
    const LExpr *u = le_op2(k, LO_UNIFORM, DT_F32, t->seed, index);
    return le_select(k, le_op2(k, LO_GE, DT_BOOL, u, t->drop), le_op2(k, LO_MUL, DT_F32, x, t->scale),
                     le_num(k, DT_F32, 0));
}

/* ---- packed keys --------------------------------------------------------------------------------- */

void attend_span(Lower *l, Attend *t) {
    LoopKernel *k = l->k;
    const LExpr *from[2] = {t->b, le_int(k, 0)}, *to[2] = {t->b, le_int(k, 1)}, *beyond = li_add(k, t->keys, le_int(k, 1));
    t->k_first = le_var(k, ls_check(k, l->block, lower_pull(l, t->spans, from), beyond, "first"));
    const LExpr *n = le_op2(k, LO_SUB, DT_I64, lower_pull(l, t->spans, to), t->k_first);
    t->keys = le_var(k, ls_check(k, l->block, n, li_sub(k, beyond, t->k_first), "n"));
}

/* ---- attention ------------------------------------------------------------------------------------------- */

bool lower_attention(Lower *l, const Node *n, const View *to) {
    Attend t;
    if (!attend_open(l, n, 0, &t))
        return false;
    return attend_is_one(&t) ? lower_attention_one(l, &t, to) : lower_attention_tiles(l, &t, to);
}
