/* From a kernel's graph to one loop nest after another: decides what is stored, where, and over which tile. */
#include "lower_ops.h"

#include "../compiler/remark.h"

#include <inttypes.h>
#include <string.h>

/* ---- lines of the IR file: statements between the two compute n ---------------------------------------- */

static uint32_t enter(Lower *l, const Node *n) {
    uint32_t outer = l->k->line;
    if (l->o->node_line) l->k->line = l->o->node_line[n - l->f->node];
    return outer;
}

static bool leave(Lower *l, uint32_t outer, bool ok) {
    l->k->line = outer;
    return ok;
}

/* ---- sums with matmuls in them: the accumulator starts as everything else ------------------------------ */

static bool deferred(const Lower *l, ValueId v) {
    const Node *n = value_node(l->f, v);
    return n && l->uses[v] == 1 && lower_is_gemm(l, n) && !l->streamed[v];
}

static bool same_shape(const Lower *l, ValueId a, ValueId b) {
    return type_eq(&l->f->value[a].type, &l->f->value[b].type);
}

static bool same_extents(const Lower *l, ValueId a, ValueId b) {
    Type t = l->f->value[a].type;
    t.dtype = l->f->value[b].type.dtype;
    return type_eq(&t, &l->f->value[b].type);
}

/* Terms of the sum tree below v: single-use adds of v's own shape are opened. */
static uint32_t sum_terms(const Lower *l, ValueId v, ValueId *term, uint32_t room) {
    uint32_t n = 0, open = 0;
    ValueId stack[16];
    stack[open++] = v;
    while (open) {
        ValueId x = stack[--open];
        const Node *node = value_node(l->f, x);
        bool opens = node && node->op == OP_add && !l->view[x].buf && same_shape(l, x, v) && (x == v || l->uses[x] == 1);
        if (opens && open + 2 <= 16 && n + open + 2 <= room) {
            stack[open++] = node->in[1];
            stack[open++] = node->in[0];
        } else
            term[n++] = x;
    }
    return n;
}

static bool is_sum(const Lower *l, ValueId v) {
    const Node *n = value_node(l->f, v);
    if (!n || n->op != OP_add || l->f->value[v].type.dtype != DT_F32) return false;
    ValueId term[16];
    uint32_t count = sum_terms(l, v, term, 16);
    for (uint32_t i = 0; i < count; i++)
        if (deferred(l, term[i]) && same_shape(l, term[i], v)) return true;
    return false;
}

static bool store_elements(Lower *l, ValueId v, const View *to) {
    const LExpr *idx[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, v, 0, lower_rank(l, v), idx);
    const LExpr *e = lower_pull(l, v, idx);
    ls_store(l->k, l->block, to->buf, view_index(l, to, idx), e);
    l->block = back;
    return true;
}

static void tell_sum(const Lower *l, ValueId v, uint32_t products, uint32_t others) {
    Text t = {0};
    if (!l->m->remarks)
        return;
    node_print(l->m, l->f, value_node(l->f, v), &t);
    remark(l->m, R_accumulated, l->f, NULL, "in place, %u product%s onto %u other term%s: %.*s", products,
           products == 1 ? "" : "s", others, others == 1 ? "" : "s", (int)t.n, t.p);
    text_free(&t);
}

static bool lower_sum(Lower *l, ValueId v, const View *to) {
    ValueId term[16];
    uint32_t count = sum_terms(l, v, term, 16), rest = 0;
    bool started = false;
    const LExpr *idx[MOEC_MAX_RANK], *sum = NULL;
    LBlock *back = l->block, *inner = NULL;
    for (uint32_t i = 0; i < count; i++) {
        if (deferred(l, term[i]) && same_shape(l, term[i], v)) continue;
        if (!rest++) {
            lower_loops(l, v, 0, lower_rank(l, v), idx);
            inner = l->block;
        }
        const LExpr *at[MOEC_MAX_RANK];
        lower_broadcast_index(l, term[i], v, idx, at);
        const LExpr *e = lower_pull(l, term[i], at);
        sum = sum ? le_op2(l->k, LO_ADD, DT_F32, sum, e) : e;
    }
    if (rest) {
        ls_store(l->k, inner, to->buf, view_index(l, to, idx), sum);
        started = true;
    }
    l->block = back;
    if (rest < count)
        tell_sum(l, v, count - rest, rest);
    for (uint32_t i = 0; i < count; i++) {
        if (!deferred(l, term[i]) || !same_shape(l, term[i], v)) continue;
        const Node *n = value_node(l->f, term[i]);
        uint32_t outer = enter(l, n);
        if (!leave(l, outer, lower_matmul(l, n, to, started))) return false;
        started = true;
    }
    return true;
}

/* ---- one value into its place ---------------------------------------------------------------------------- */

static bool lower_matmul_store(Lower *l, const Node *n, const View *to) {
    return lower_matmul(l, n, to, false);
}

static bool lower_append(Lower *l, const Node *n, const View *to) {
    int axis = (int)node_int(n, AT_axis, 0);
    const LExpr *idx[MOEC_MAX_RANK];
    LBlock *back = lower_loops(l, n->in[1], 0, lower_rank(l, n->in[1]), idx);
    const LExpr *e = lower_pull(l, n->in[1], idx);
    idx[axis] = li_add(l->k, idx[axis], lower_extent(l, n->in[0], axis));
    ls_store(l->k, l->block, to->buf, view_index(l, to, idx), e);
    l->block = back;
    return true;
}

static bool lower_split_seed(Lower *l, const Node *n, const View *to) {
    const LExpr *seed = lower_pull(l, n->in[0], NULL);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (to[i].buf) ls_store(l->k, l->block, to[i].buf, to[i].offset, le_op2(l->k, LO_SPLIT_SEED, DT_I64, seed, le_int(l->k, i)));
    return true;
}

typedef struct StoreRule {
    Op op;
    bool (*lower)(Lower *l, const Node *n, const View *to);
} StoreRule;

static const StoreRule store_rules[] = {
    {OP_matmul, lower_matmul_store}, {OP_attention, lower_attention}, {OP_reduce_sum, lower_reduce},
    {OP_reduce_mean, lower_reduce},  {OP_reduce_max, lower_reduce},   {OP_reduce_min, lower_reduce},
    {OP_reduce_prod, lower_reduce},  {OP_softmax, lower_softmax},     {OP_log_softmax, lower_softmax},
    {OP_argmax, lower_argmax},       {OP_top_k_mask, lower_top_k_mask}, {OP_cumsum, lower_cumsum},
    {OP_rms_norm, lower_rms},        {OP_rms_factor, lower_rms},      {OP_gather, lower_gather},
    {OP_gather_nd, lower_gather_nd}, {OP_scatter_nd, lower_scatter_nd}, {OP_concat, lower_concat},
    {OP_append, lower_append},       {OP_cross_entropy_dx, lower_cross_entropy_dx},
    {OP_cross_entropy_dw, lower_cross_entropy_dw},
};

/* Rules of nodes with several results: `to` has a View a result, without a buffer where nobody reads it. */
static const StoreRule several_rules[] = {
    {OP_split_seed, lower_split_seed},
    {OP_attention_grad, lower_attention_grad},
    {OP_cross_entropy, lower_cross_entropy},
};

static const StoreRule *find_rule(const StoreRule *table, size_t n, Op op) {
    for (size_t i = 0; i < n; i++)
        if (table[i].op == op) return &table[i];
    return NULL;
}

static const StoreRule *store_rule(Op op) {
    return find_rule(store_rules, sizeof store_rules / sizeof *store_rules, op);
}

static const StoreRule *several_rule(Op op) {
    return find_rule(several_rules, sizeof several_rules / sizeof *several_rules, op);
}

static void note(Lower *l, const Node *n) {
    Text t = {0};
    node_print(l->m, l->f, n, &t);
    ls_note(l->k, l->block, (Str){arena_strndup(l->k->arena, t.p, t.n), t.n});
    text_free(&t);
}

bool lower_into(Lower *l, ValueId v, const View *to) {
    const Node *n = value_node(l->f, v);
    if (!n) return store_elements(l, v, to);
    View contiguous = lower_contiguous(l, v, to->buf, to->offset);
    bool dense = memcmp(contiguous.stride, to->stride, (size_t)to->rank * sizeof(Dim)) == 0;
    View old;
    if (n->op == OP_reshape && dense && !lower_view(l, n->in[0], &old) && l->uses[n->in[0]] == 1) {
        View inner = lower_contiguous(l, n->in[0], to->buf, to->offset);
        if (!lower_into(l, n->in[0], &inner)) return false;
        l->view[n->in[0]] = inner;
        return true;
    }
    uint32_t outer = enter(l, n);
    note(l, n);
    const StoreRule *r = store_rule(n->op);
    if (is_sum(l, v)) return leave(l, outer, lower_sum(l, v, to));
    if (r) return leave(l, outer, r->lower(l, n, to));
    return leave(l, outer, lower_has_sources(l, v) ? lower_streams(l, v, to) : store_elements(l, v, to));
}

/* ---- what is stored ------------------------------------------------------------------------------------------ */

/* Consumers read v's elements more often than once each. */
static bool repeats(const Lower *l, ValueId v, const ValueId *user_of) {
    if (user_of[v] == NONE || l->uses[v] != 1) return false;
    const Node *u = &l->f->node[user_of[v]];
    if (op_info(u->op)->klass != OC_POINTWISE && u->op != OP_broadcast) return false;
    return !same_extents(l, u->out, v) && l->f->value[v].type.rank > 0 && l->f->value[u->out].type.dtype != DT_BOOL;
}

bool lower_is_cheap(const Node *n) {
    return n->op == OP_cast || n->op == OP_neg || n->op == OP_not || n->op == OP_dropout || n->op == OP_jitter || op_info(n->op)->klass == OC_SOURCE;
}

/* Why n's value is stored; NULL: it is computed where it is read, or added onto a sum. */
static const char *why_stored(const Lower *l, const Node *n, const ValueId *user_of) {
    ValueId v = n->out;
    if (l->streamed[v])
        return NULL;
    if (n->op == OP_matmul && deferred(l, v) && user_of[v] != NONE) {
        const Node *u = &l->f->node[user_of[v]];
        if (u->op == OP_add && same_shape(l, u->out, v))
            return NULL;
    }
    if (store_rule(n->op))
        return "each element is made of many";
    if (op_info(n->op)->klass != OC_POINTWISE)
        return NULL;
    if (is_sum(l, v)) {
        const Node *u = user_of[v] == NONE ? NULL : &l->f->node[user_of[v]];
        bool part = u && l->uses[v] == 1 && u->op == OP_add && same_shape(l, u->out, v) && is_sum(l, u->out);
        return part ? NULL : "products are added onto it";
    }
    if (lower_is_cheap(n))
        return NULL;
    if (lower_reads(l, v) > 1)
        return "it is read more than once";
    return repeats(l, v, user_of) ? "what reads it would compute an element several times" : NULL;
}

static void tell_stored(const Lower *l, const Node *n, const char *why) {
    Text t = {0};
    if (!l->m->remarks)
        return;
    node_print(l->m, l->f, n, &t);
    remark(l->m, R_stored, l->f, NULL, "stored, %s: %.*s", why, (int)t.n, t.p);
    text_free(&t);
}

static void table_for_const(Lower *l, const Node *n) {
    const Tensor *t = &node_attr(n, AT_value)->t;
    int64_t count;
    if (!tensor_count(t, &count) || count == 1) return;
    LBuf *b = loop_buf(l->k, LB_TABLE, t->dtype, str_c("table"));
    b->data = t;
    b->count = count;
    l->view[n->out] = lower_contiguous(l, n->out, b, le_int(l->k, 0));
}

/* All results of a node at once: outputs in their places, others in scratch. */
static bool lower_several(Lower *l, const Node *n, const StoreRule *r, const View *out) {
    View *to = arena_array(l->k->arena, n->n_out, sizeof *to);
    for (uint32_t i = 0; i < n->n_out; i++) {
        ValueId v = n->out + i;
        if (out[v].buf) to[i] = out[v];
        else if (l->uses[v] && !lower_scratch(l, v, &to[i])) return false;
    }
    uint32_t outer = enter(l, n);
    note(l, n);
    if (!leave(l, outer, r->lower(l, n, to))) return false;
    for (uint32_t i = 0; i < n->n_out; i++) l->view[n->out + i] = to[i];
    return true;
}

/* Whether there is a way for n, which is not stored. Weights are put into formats when a model is compiled. */
static bool is_lowered(const Lower *l, const Node *n) {
    OpClass c = op_info(n->op)->klass;
    if (n->op == OP_quantize)
        return lower_is_rounded(l, n->out);
    return c != OC_DYNAMIC && c != OC_CALL && n->op != OP_pack_scales && (n->op != OP_pack || !node_format(n));
}

static bool lower_nodes(Lower *l, const View *out) {
    const Func *f = l->f;
    ValueId *user_of = arena_array(l->k->arena, f->n_values, sizeof *user_of);
    memset(user_of, 0xff, f->n_values * sizeof *user_of);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (f->node[i].in[j] != NONE) user_of[f->node[i].in[j]] = i;
    const char *inlined = "";
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        const char *why;
        const StoreRule *r = several_rule(n->op);
        if (l->n_row) l->block = lower_serial(l);
        if (r) {
            if (!lower_several(l, n, r, out)) return false;
            continue;
        }
        if (n->n_out != 1)
            return diag_error(l->d, DIAG_LOWER_OP, NULL, "'%s' has no lowering", op_info(n->op)->name);
        if (n->op == OP_const) table_for_const(l, n);
        if (n->op == OP_append && !out[n->out].buf) { /* lives on in the cache it was appended to */
            View w = l->view[n->in[0]];
            uint32_t outer = enter(l, n);
            if (!leave(l, outer, lower_append(l, n, &w))) return false;
            l->view[n->out] = w;
            continue;
        }
        if (out[n->out].buf) {
            if (l->view[n->out].buf) continue; /* a reshape of it has stored it in place */
            if (!lower_into(l, n->out, &out[n->out])) return false;
            l->view[n->out] = out[n->out];
        } else if ((why = why_stored(l, n, user_of))) {
            View w;
            tell_stored(l, n, why);
            if (!lower_stored(l, n->out, &w)) return false;
        } else if (!is_lowered(l, n))
            return diag_error(l->d, DIAG_LOWER_OP, NULL, "'%s' has no lowering", op_info(n->op)->name);
        else if (l->m->remarks && op_info(n->op)->klass != OC_SOURCE && n->op != OP_matmul && n->op != OP_unpack)
            inlined =
                arena_printf(l->k->arena, "%s%s%s", inlined, *inlined ? ", " : "", op_info(n->op)->name);
    }
    if (*inlined)
        remark(l->m, R_inlined, l->f, NULL, "not stored, computed or seen through where they are read: %s",
               inlined);
    return true;
}

/* ---- the kernel ------------------------------------------------------------------------------------------------ */

/* Storage of a cache: the grown axis has room for as many elements as the appended result can ever have. */
static void cache_view(Lower *l, ValueId cache, const Node *append) {
    View *w = &l->view[cache];
    int axis = (int)node_int(append, AT_axis, 0);
    Dim room = dim_const(l->t, dim_upper(l->t, l->f->value[append->out].type.dim[axis]));
    Dim step = dim_const(l->t, 1);
    for (int a = w->rank - 1; a >= 0; a--) {
        w->stride[a] = step;
        step = dim_mul(l->t, step, a == axis ? room : l->f->value[cache].type.dim[a]);
    }
}

static bool has_attention(const Func *f) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_attention || f->node[i].op == OP_attention_grad || f->node[i].op == OP_append) return true;
    return false;
}

static int choose_rows(Lower *l) {
    const Node *node;
    const char *why;
    int n = rows_choose(l->m, l->f, l->row, &node, &why);
    if (n || has_attention(l->f)) return n;
    if (node)
        remark(l->m, R_no_rows, l->f, NULL, "once over whole tensors: %s: %s", op_info(node->op)->name, why);
    else
        remark(l->m, R_no_rows, l->f, NULL, "once over whole tensors: %s", why);
    return 0;
}

static void bind_args(Lower *l, View *out) {
    const Func *f = l->f;
    const LExpr *zero = le_int(l->k, 0);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        ValueId v = f->input[i];
        LBuf *b = loop_buf(l->k, LB_ARG, f->value[v].type.dtype, f->value[v].name);
        l->view[v] = lower_contiguous(l, v, b, zero);
    }
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        ValueId v = f->output[i];
        LBuf *b = loop_buf(l->k, LB_ARG, f->value[v].type.dtype, f->value[v].name);
        b->written = true;
        if (!out[v].buf) out[v] = lower_contiguous(l, v, b, zero);
    }
    l->k->n_args = f->n_inputs + f->n_outputs;
}

static void bind_caches(Lower *l, View *out) {
    const Func *f = l->f;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->op != OP_append) continue;
        cache_view(l, n->in[0], n);
        if (out[n->out].buf) memcpy(out[n->out].stride, l->view[n->in[0]].stride, sizeof out[n->out].stride);
    }
}

/* What output i is made of is stored where the transpose in front of it puts it; nothing is left to do for the output. */
static void scatter_output(Lower *l, uint32_t i, View *out) {
    ValueId from = rows_output(l->f, i);
    View *w = &out[l->f->output[i]], *to = &out[from];
    const Type *t = &l->f->value[from].type;
    bool several = !dim_is(l->t, t->dim[0], 1);
    *to = (View){.buf = w->buf, .offset = w->offset, .rank = lower_rank(l, from), .stride = {w->stride[2], w->stride[1]}};
    for (int a = 2; a < to->rank; a++) to->stride[a] = w->stride[a + 1];
    to->run = several ? le_dim(l->k, t->dim[1]) : NULL;
    to->apart = w->stride[0];
    if (!several) to->offset = li_mul(l->k, l->row0, le_dim(l->k, to->stride[0]));
    l->view[l->f->output[i]] = *w;
    l->scattered[from] = true;
}

/* Offsets of row-carrying arguments move with the tile. */
static void tile_args(Lower *l, View *out) {
    const Func *f = l->f;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        View *w = &l->view[f->input[i]];
        if (l->row[f->input[i]]) w->offset = li_mul(l->k, l->row0, le_dim(l->k, w->stride[0]));
    }
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        View *w = &out[f->output[i]];
        if (!l->row[f->output[i]]) {
            scatter_output(l, i, out);
            continue;
        }
        w->offset = li_mul(l->k, l->row0, le_dim(l->k, w->stride[0]));
    }
}

/* Up to so many rows run as one job, by blocks of columns; from there on tiles of rows do. */
static void open_rows(Lower *l, View *out) {
    LoopKernel *k = l->k;
    const Type *t = &l->f->value[rows_output(l->f, 0)].type;
    l->rows = dim_const(l->t, 1);
    for (int i = 0; i < l->n_row; i++) l->rows = dim_mul(l->t, l->rows, t->dim[i]);
    int64_t most = dim_upper(l->t, l->rows), tile = l->o->tile_rows;
    l->tile_max = most < tile ? most : tile;
    k->rows.all = le_dim(k, l->rows);
    k->rows.most = most;
    k->rows.tile = tile;
    k->rows.row0 = loop_var(k, DT_I64, "row0");
    k->rows.count = loop_var(k, DT_I64, "rows");
    k->rows.job = loop_var(k, DT_I64, "job");
    remark(l->m, R_rows, l->f, NULL, "up to %" PRId64 " rows column by column, more in parallel over tiles of rows", tile);
    l->row0 = le_var(k, k->rows.row0);
    l->tile = le_var(k, k->rows.count);
    l->block = lower_serial(l);
    tile_args(l, out);
}

LBlock *lower_serial(Lower *l) {
    LStmt *last = l->k->body.last;
    return last && le_is_int(last->extent, 1) ? &last->body : &ls_phase(l->k, le_int(l->k, 1))->body;
}

LStmt *lower_blocks(Lower *l, const LExpr *blocks, const LExpr **block) {
    LStmt *s = ls_phase(l->k, blocks);
    *block = le_var(l->k, s->var);
    return s;
}

/* How the kernel is parallel, where it is not by rows, which open_rows tells. */
static void tell_parallel(const Lower *l) {
    if (l->n_row)
        return;
    for (const LStmt *s = l->k->body.first; s; s = s->next)
        if (s->kind == LS_PARALLEL) {
            remark(l->m, R_spread, l->f, NULL, "in parallel over %s",
                   has_attention(l->f) ? "batch, heads and blocks of tokens" : "one axis of its result");
            return;
        }
    remark(l->m, R_serial, l->f, NULL, "%s",
           l->k->uses_matmul ? "one thread, but for products, which are split over all" : "one thread");
}

/* Outputs that are inputs, or that stand twice in the list. */
static bool store_outputs(Lower *l, const View *out) {
    for (uint32_t i = 0; i < l->f->n_outputs; i++) {
        ValueId v = l->f->output[i];
        LBuf *b = l->k->buf.item[l->f->n_inputs + i];
        if (out[v].buf == b && l->view[v].buf == b) continue;
        if (l->n_row) l->block = lower_serial(l);
        View to = out[v];
        to.buf = b;
        if (!store_elements(l, v, &to)) return false;
    }
    return true;
}

LoopKernel *lower_kernel(Module *m, const Func *f, const LowerOptions *o, Arena *a, Diag *d) {
    Lower l = {.k = loop_kernel_new(m, a, f->name), .m = m, .t = m->dims, .f = f, .d = d, .o = o};
    l.k->func_line = l.k->line = o->func_line;
    l.uses = func_uses(a, f);
    l.view = arena_array(a, f->n_values, sizeof *l.view);
    l.row = arena_array(a, f->n_values, sizeof *l.row);
    l.scattered = arena_array(a, f->n_values, sizeof *l.scattered);
    l.block = &l.k->body;
    View *out = arena_array(a, f->n_values, sizeof *out);
    l.n_row = choose_rows(&l);
    bind_args(&l, out);
    if (l.n_row) open_rows(&l, out);
    bind_caches(&l, out);
    lower_find_streams(&l);
    if (!lower_nodes(&l, out) || !store_outputs(&l, out)) {
        loop_kernel_free(l.k);
        return NULL;
    }
    loop_finish(l.k);
    tell_parallel(&l);
    if (l.k->scratch)
        remark(m, R_scratch, f, NULL, "%" PRId64 " bytes of scratch a thread", l.k->scratch);
    return l.k;
}
