/* derive: which axis of each value of the decoder runs over the target tokens, and the proof that outside
 * attention element t of a value depends on element t of others only. Then the body can be run for one token
 * at a time. */
#include "derive_impl.h"

typedef struct Tokens {
    Deriver *dv;
    const Func *f;
    const bool *live;
    Dim T;
    bool symbolic; /* T is a symbol: an axis of that extent is a token axis */
    int *tag;
} Tokens;

enum { MIXED = -2 }; /* depends on several positions in a way that cannot be split */

static const Type *type_of(const Tokens *k, ValueId v) {
    return &k->f->value[v].type;
}

/* The axis of extent T of a value that is the same for every token. */
static int plain_axis(const Tokens *k, const Type *t) {
    int found = -1;
    for (int i = 0; k->symbolic && i < t->rank; i++)
        if (t->dim[i] == k->T)
            found = found == -1 ? i : MIXED;
    return found;
}

/* Operands aligned at the right: all tagged ones agree, and untagged ones do not vary along the token axis.
 */
static int aligned(const Tokens *k, const Node *n, int skip_last) {
    DimTable *t = k->dv->m->dims;
    const Type *out = type_of(k, n->out);
    int tag = -1;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int g = k->tag[n->in[i]];
        if (g == MIXED)
            return MIXED;
        if (g < 0)
            continue;
        g += out->rank - type_of(k, n->in[i])->rank;
        if (tag >= 0 && tag != g)
            return MIXED;
        tag = g;
    }
    if (tag < 0)
        return plain_axis(k, out);
    if (tag >= out->rank - skip_last)
        return MIXED;
    for (uint32_t i = 0; i < n->n_in; i++) {
        const Type *ty = type_of(k, n->in[i]);
        int axis = tag - (out->rank - ty->rank);
        if (k->tag[n->in[i]] < 0 && axis >= 0 && !dim_is(t, ty->dim[axis], 1))
            return MIXED;
    }
    return tag;
}

static int through_reshape(const Tokens *k, const Node *n, int tag) {
    DimTable *t = k->dv->m->dims;
    const Type *from = type_of(k, n->in[0]), *to = type_of(k, n->out);
    Dim before = dim_const(t, 1), here = before;
    if (tag < 0)
        return plain_axis(k, to);
    for (int i = 0; i < tag; i++)
        before = dim_mul(t, before, from->dim[i]);
    for (int i = 0; i < to->rank; i++) {
        if (here == before && to->dim[i] == from->dim[tag])
            return i;
        here = dim_mul(t, here, to->dim[i]);
    }
    return MIXED;
}

static int through_slice(const Tokens *k, const Node *n, int tag) {
    const Attr *start = node_attr(n, AT_start), *step = node_attr(n, AT_step);
    if (tag < 0)
        return tag;
    bool whole = dim_is(k->dv->m->dims, start->dims.v[tag], 0) && (!step || step->ints.v[tag] == 1) &&
                 type_of(k, n->in[0])->dim[tag] == type_of(k, n->out)->dim[tag];
    return whole ? tag : MIXED;
}

static int through_concat(const Tokens *k, const Node *n) {
    int64_t axis = node_int(n, AT_axis, 0);
    int tag = -1;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int g = k->tag[n->in[i]];
        if (g == MIXED || g == axis || (tag >= 0 && g >= 0 && g != tag))
            return MIXED;
        if (g >= 0)
            tag = g;
    }
    for (uint32_t i = 0; tag >= 0 && i < n->n_in; i++)
        if (k->tag[n->in[i]] < 0)
            return MIXED;
    return tag;
}

static int through_gather(const Tokens *k, const Node *n) {
    int data = k->tag[n->in[0]], idx = k->tag[n->in[1]];
    int axis = (int)node_int(n, AT_axis, 0), wide = type_of(k, n->in[1])->rank;
    if (data == MIXED || idx == MIXED || (data >= 0 && idx >= 0) || data == axis)
        return MIXED;
    if (idx >= 0)
        return axis + idx;
    return data < 0 ? -1 : data < axis ? data : data - 1 + wide;
}

static int through_reduce(const Node *n, int tag, int rank) {
    const Attr *axes = node_attr(n, AT_axes);
    int64_t one = node_int(n, AT_axis, rank - 1);
    uint32_t count = axes ? axes->ints.n : 1;
    const int64_t *axis = axes ? axes->ints.v : &one;
    bool gone = axes || n->op == OP_argmax;
    int below = 0;
    if (tag < 0)
        return tag;
    for (uint32_t i = 0; i < count; i++) {
        if (axis[i] == tag)
            return MIXED;
        below += axis[i] < tag;
    }
    return gone && !node_int(n, AT_keep, 0) ? tag - below : tag;
}

static int through_matmul(const Tokens *k, const Node *n) {
    int a = k->tag[n->in[0]], b = k->tag[n->in[1]];
    const Type *ta = type_of(k, n->in[0]), *tb = type_of(k, n->in[1]), *out = type_of(k, n->out);
    if (a == MIXED || b == MIXED)
        return MIXED;
    if (a < 0 && b < 0)
        return -1;
    int row = ta->rank - (node_int(n, AT_ta, 0) ? 1 : 2), col = tb->rank - (node_int(n, AT_tb, 0) ? 2 : 1);
    if (b < 0 && a == row)
        return out->rank - 2;
    if (a < 0 && b == col)
        return out->rank - 1;
    if ((a >= 0 && a >= ta->rank - 2) || (b >= 0 && b >= tb->rank - 2))
        return MIXED; /* the summed axis, or rows against columns */
    return aligned(k, n, 2);
}

static int through_attention(const Tokens *k, const Node *n) {
    int q = k->tag[n->in[0]], key = k->tag[n->in[1]], value = k->tag[n->in[2]];
    for (uint32_t i = 3; i < n->n_in; i++)
        if (n->in[i] != NONE && k->tag[n->in[i]] != -1)
            return MIXED;
    if (q != 1 || key != value || (key != -1 && key != 1))
        return MIXED;
    if (key == 1 && (!node_int(n, AT_causal, 0) || (n->n_in > 4 && n->in[4] != NONE)))
        return dim_is(k->dv->m->dims, k->T, 1) ? 1 : MIXED;
    return 1;
}

static int tag_of(const Tokens *k, const Node *n) {
    int first = n->n_in && n->in[0] != NONE ? k->tag[n->in[0]] : -1;
    const Type *out = type_of(k, n->out);
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        any |= n->in[i] != NONE && k->tag[n->in[i]] != -1;
    if (first == MIXED)
        return MIXED;
    switch (n->op) {
    case OP_iota:
        return plain_axis(k, out) == (int)node_int(n, AT_axis, 0) ? MIXED : plain_axis(k, out);
    case OP_attention:
        return through_attention(k, n);
    case OP_reshape:
        return through_reshape(k, n, first);
    case OP_broadcast:
        return aligned(k, n, 0);
    case OP_slice:
        return through_slice(k, n, first);
    case OP_concat:
        return through_concat(k, n);
    case OP_gather:
        return through_gather(k, n);
    case OP_matmul:
        return through_matmul(k, n);
    case OP_transpose: {
        const Attr *perm = node_attr(n, AT_perm);
        for (uint32_t i = 0; first >= 0 && i < perm->ints.n; i++)
            if (perm->ints.v[i] == first)
                return (int)i;
        return first;
    }
    default:
        break;
    }
    if (!any)
        return plain_axis(k, out);
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE:
        return aligned(k, n, 0);
    case OC_REDUCE:
        for (uint32_t i = 1; i < n->n_in; i++)
            if (k->tag[n->in[i]] != -1)
                return MIXED;
        return through_reduce(n, first, type_of(k, n->in[0])->rank);
    default:
        return MIXED;
    }
}

/* Attributes may not speak of the number of tokens: it is 1 in the copy. */
static void see_sym(void *ctx, uint32_t sym) {
    uint32_t *wanted = ctx;
    if (sym == wanted[0])
        wanted[1] = 1;
}

static bool attrs_mention(const Tokens *k, const Node *n) {
    uint32_t ask[2] = {0, 0};
    if (!dim_as_sym(k->dv->m->dims, k->T, &ask[0]))
        return false;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const Attr *a = &n->attrs[i];
        if (attr_kind(a->key) == AK_DIM)
            dim_visit(k->dv->m->dims, a->d, see_sym, ask);
        for (uint32_t j = 0; attr_kind(a->key) == AK_DIMS && j < a->dims.n; j++)
            dim_visit(k->dv->m->dims, a->dims.v[j], see_sym, ask);
    }
    return ask[1] != 0;
}

/* What the first [batch, token, vocabulary] output needs: caches and the like are not derived from. */
static bool *live_values(Deriver *dv) {
    const Func *f = dv->dec;
    bool *live = arena_array(dv->a, f->n_values + 1, sizeof *live);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (f->value[f->output[i]].type.rank == 3)
            live[f->output[i]] = true;
    for (NodeId i = f->n_nodes; i-- > 0;)
        for (uint32_t k = 0; k < f->node[i].n_out; k++)
            for (uint32_t j = 0; live[f->node[i].out + k] && j < f->node[i].n_in; j++)
                if (f->node[i].in[j] != NONE)
                    live[f->node[i].in[j]] = true;
    return live;
}

bool tokens_find(Deriver *dv) {
    const Func *f = dv->dec;
    Tokens k = {.dv = dv, .f = f, .live = live_values(dv), .T = f->value[dv->din.ids].type.dim[1]};
    k.symbolic = !dim_is_const(dv->m->dims, k.T, NULL);
    k.tag = dv->tag = arena_array(dv->a, f->n_values + 1, sizeof *k.tag);
    for (uint32_t i = 0; i < f->n_values; i++)
        k.tag[i] = -1;
    k.tag[dv->din.ids] = 1;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        int tag = tag_of(&k, n);
        if (attrs_mention(&k, n))
            tag = MIXED;
        for (uint32_t j = 0; j < n->n_out; j++)
            k.tag[n->out + j] = tag;
        if (tag == MIXED && k.live[n->out])
            return diag_error(
                dv->d, DIAG_DERIVE_TOKENS, NULL,
                "function %s: node '%s' (%s): a target position depends on others outside causal attention, "
                "so the model cannot be run token by token",
                diag_show(dv->d, f->name), diag_show(dv->d, n->origin), op_info(n->op)->name);
    }
    return true;
}
