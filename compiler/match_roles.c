/* match: the parts of a T5.
 *
 * A whole-model function is split at the value that all cross attentions read. Then, by structure: an
 * attention whose queries, keys and values are projections of one value is self attention, any other cross
 * attention; a linear layer whose input is pointwise in one or two linear layers of one value closes a
 * feed-forward block. Layers are numbered in execution order, which is the order along the residual stream.
 */
#include "match_impl.h"

#include <string.h>

typedef struct Roles {
    Module *m;
    Diag *d;
    const Func *f;
    Arena *a;
    const char *stack; /* "encoder", "decoder" */
    Str *site;         /* by NodeId */
    uint32_t self, cross, ffn;
    ValueId memory; /* what cross attention reads, or NONE */
    int64_t heads, inner;
} Roles;

/* A linear layer: matmul by a parameter. Its input, or NONE. */
static ValueId linear_input(const Func *f, ValueId v) {
    const Node *n = value_node(f, match_strip(f, v));
    if (!n || n->op != OP_matmul || f->value[n->in[1]].kind != VK_PARAM || node_int(n, AT_ta, 0))
        return NONE;
    return match_strip(f, n->in[0]);
}

static bool is_cross(const Func *f, const Node *n) {
    return linear_input(f, n->in[0]) != linear_input(f, n->in[1]);
}

/* ---- splitting a whole model -----------------------------------------------------------------------------
 */

/* Copies what `out` needs of r->old into r->f; values already mapped are not looked behind. */
static void copy_slice(Remap *r, const ValueId *out, uint32_t n_out, Arena *a) {
    const Func *f = r->old;
    bool *mark = arena_array(a, f->n_values + 1, sizeof *mark);
    for (uint32_t i = 0; i < n_out; i++)
        mark[out[i]] = true;
    for (NodeId i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= mark[n->out + k] && r->map[n->out + k] == NONE;
        for (uint32_t k = 0; wanted && k < n->n_in; k++)
            if (n->in[k] != NONE)
                mark[n->in[k]] = true;
    }
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (mark[f->input[i]] && r->map[f->input[i]] == NONE) {
            const Value *v = &f->value[f->input[i]];
            remap_set(r, f->input[i], func_input(r->m, r->f, v->name, v->type));
        }
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= mark[n->out + k] && r->map[n->out + k] == NONE;
        if (wanted)
            remap_node(r, n);
    }
}

static Remap begin_part(Module *m, const Func *f, const char *name, Arena *a) {
    Remap r = {m, f, func_begin(m, str_c(name), FR_ENTRY), arena_array(a, f->n_values + 1, sizeof(ValueId))};
    for (uint32_t i = 0; i < f->n_values; i++)
        r.map[i] = NONE;
    return r;
}

/* The value that the keys of all cross attentions are projections of; NONE when there is no such value. */
static ValueId find_memory(const Func *f) {
    ValueId memory = NONE;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->op != OP_attention || !is_cross(f, n))
            continue;
        ValueId k = linear_input(f, n->in[1]), v = linear_input(f, n->in[2]);
        if (k == NONE || k != v || (memory != NONE && memory != k))
            return NONE;
        memory = k;
    }
    return memory;
}

static void split_model(Module *m, Func *f, ValueId memory) {
    Arena *a = arena_new();
    Remap e = begin_part(m, f, "encoder", a);
    copy_slice(&e, &memory, 1, a);
    func_output(m, e.f, remap_value(&e, memory), str_c("last_hidden_state"));

    /* The logits: the first output of rank 3 that is not the memory itself. */
    ValueId logits = f->output[0];
    for (uint32_t i = f->n_outputs; i-- > 0;)
        if (f->value[f->output[i]].type.rank == 3 && match_strip(f, f->output[i]) != memory)
            logits = f->output[i];
    Remap d = begin_part(m, f, "decoder", a);
    Type t = f->value[memory].type;
    remap_set(&d, memory, func_input(m, d.f, str_c("encoder_hidden_states"), t));
    copy_slice(&d, &logits, 1, a);
    func_output(m, d.f, remap_value(&d, logits), str_c("logits"));
    FuncId old = f->id;
    func_end(m, e.f, old);
    func_end(m, d.f, NONE);
    arena_free(a);
}

/* ---- sites -----------------------------------------------------------------------------------------------
 */

static void set_site(Roles *r, ValueId v, uint32_t layer, const char *what) {
    const Value *val = &r->f->value[match_strip(r->f, v)];
    if (val->kind == VK_NODE)
        r->site[val->def] = str_c(arena_printf(r->m->arena, "%s.%u.%s", r->stack, layer, what));
}

static void tell(Roles *r, uint32_t layer, const char *part, const char *what) {
    if (r->m->remarks)
        remark_at(r->m, R_role, r->f, str_c(arena_printf(r->a, "%s.%u.%s", r->stack, layer, part)), "%s",
                  what);
}

static bool name_attention(Roles *r, NodeId id) {
    static const char *const self_name[] = {"self.q", "self.k", "self.v", "self.o"};
    static const char *const cross_name[] = {"cross.q", "cross.k", "cross.v", "cross.o"};
    const Func *f = r->f;
    const Node *n = &f->node[id];
    bool cross = is_cross(f, n);
    ValueId k = linear_input(f, n->in[1]), v = linear_input(f, n->in[2]), q = linear_input(f, n->in[0]);
    const char *why = NULL;
    if (q == NONE || k == NONE || k != v)
        why = "queries, keys and values are not linear layers of one value, or of two";
    else if (cross && (r->memory == NONE || k != r->memory))
        why = "it reads neither its own stack nor the encoder's output";
    if (why)
        return diag_error(r->d, DIAG_MATCH_ATTENTION, NULL, "function %s: attention '%s': %s",
                          diag_show(r->d, f->name), diag_show(r->d, n->origin), why);
    uint32_t layer = cross ? r->cross++ : r->self++;
    const char *const *name = cross ? cross_name : self_name;
    for (int i = 0; i < 3; i++)
        set_site(r, n->in[i], layer, name[i]);
    for (NodeId j = id + 1; j < f->n_nodes; j++)
        if (f->node[j].op == OP_matmul && linear_input(f, f->node[j].out) == n->out)
            set_site(r, f->node[j].out, layer, name[3]);
    r->heads = node_int(n, AT_heads, 1);
    dim_is_const(r->m->dims, f->value[n->out].type.dim[2], &r->inner);
    tell(r, layer, cross ? "cross" : "self",
         cross ? "cross attention: q reads the decoder, k and v the encoder's output"
               : "self attention: q, k and v read one value");
    return true;
}

/* The linear layers that v is pointwise in; false when it is anything else. */
static bool pointwise_in(const Func *f, ValueId v, ValueId *leaf, uint32_t *n_leaf, bool *between) {
    ValueId work[64] = {match_strip(f, v)}, seen[64] = {0};
    uint32_t left = 1, n_seen = 0;
    *n_leaf = 0;
    *between = false;
    while (left) {
        ValueId w = match_strip(f, work[--left]);
        const Node *n = value_node(f, w);
        bool again = false;
        for (uint32_t i = 0; i < n_seen; i++)
            again |= seen[i] == w;
        if (again || f->value[w].kind == VK_PARAM || (n && n->op == OP_const))
            continue;
        if (n_seen == 64)
            return false;
        seen[n_seen++] = w;
        if (linear_input(f, w) != NONE) {
            if (*n_leaf == 2)
                return false;
            leaf[(*n_leaf)++] = w;
            continue;
        }
        if (!n || op_info(n->op)->klass != OC_POINTWISE || left + n->n_in > 64)
            return false;
        *between = true;
        for (uint32_t i = 0; i < n->n_in; i++)
            work[left++] = n->in[i];
    }
    return *n_leaf > 0;
}

/* Is this linear layer the end of a feed-forward block? */
static void name_ffn(Roles *r, const Node *wo) {
    const Func *f = r->f;
    ValueId h = linear_input(f, wo->out), leaf[2], act = h, wi, wi_1 = NONE;
    uint32_t n_leaf;
    bool between;
    if (h == NONE || !pointwise_in(f, h, leaf, &n_leaf, &between) || !between)
        return;
    wi = leaf[0];
    if (n_leaf == 2) {
        const Node *mul = value_node(f, h);
        if (linear_input(f, leaf[0]) != linear_input(f, leaf[1]) || !mul || mul->op != OP_mul) {
            remark(r->m, R_no_role, f, wo,
                   "no feed-forward block: what it reads is made of two linear layers, but not the product "
                   "of two of one value");
            return;
        }
        ValueId a = match_strip(f, mul->in[0]), b = match_strip(f, mul->in[1]);
        bool a_gate = a == leaf[0] || a == leaf[1], b_gate = b == leaf[0] || b == leaf[1];
        if (a_gate == b_gate) {
            remark(r->m, R_no_role, f, wo,
                   "no feed-forward block: of two linear layers either both or none have an activation");
            return;
        }
        wi_1 = a_gate ? a : b;
        act = a_gate ? b : a;
        wi = wi_1 == leaf[0] ? leaf[1] : leaf[0];
    }
    uint32_t layer = r->ffn++;
    set_site(r, wi, layer, "ffn.wi");
    if (wi_1 != NONE)
        set_site(r, wi_1, layer, "ffn.wi_1");
    set_site(r, act, layer, "ffn.act");
    set_site(r, wo->out, layer, "ffn.wo");
    tell(r, layer, "ffn",
         wi_1 != NONE ? "gated feed-forward block: wi, act, wi_1, wo" : "feed-forward block: wi, act, wo");
}

/* The function again, with sites. */
static void rebuild_with_sites(Roles *r) {
    Remap map = remap_begin(r->m, r->a, r->f);
    for (NodeId i = 0; i < r->f->n_nodes; i++) {
        Node n = r->f->node[i];
        Attr attrs[10];
        if (r->site[i].n && n.n_attrs < 9 && !node_attr(&n, AT_site)) {
            if (n.n_attrs)
                memcpy(attrs, n.attrs, n.n_attrs * sizeof *attrs);
            attrs[n.n_attrs++] = attr_s(AT_site, r->site[i]);
            n.attrs = attrs;
        }
        remap_node(&map, &n);
    }
    remap_end(&map);
}

static bool name_stack(Module *m, Diag *d, Func *f, const char *stack, Roles *r) {
    Arena *a = arena_new();
    *r = (Roles){.m = m, .d = d, .f = f, .a = a, .stack = stack, .memory = NONE};
    r->site = arena_array(a, f->n_nodes + 1, sizeof *r->site);
    r->memory = find_memory(f);
    bool ok = true;
    for (NodeId i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_attention)
            ok = name_attention(r, i) && ok;
    for (NodeId i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_matmul)
            name_ffn(r, &f->node[i]);
    bool decoder = strcmp(stack, "decoder") == 0;
    if (ok && (r->self == 0 || r->ffn != r->self || r->cross != (decoder ? r->self : 0)))
        ok = diag_error(d, DIAG_MATCH_T5, NULL,
                        "function %s: not the layers of a T5 %s: %u self attentions, %u cross attentions, %u "
                        "feed-forward "
                        "blocks",
                        diag_show(d, f->name), stack, r->self, r->cross, r->ffn);
    if (ok)
        rebuild_with_sites(r);
    r->site = NULL;
    r->f = NULL;
    arena_free(a);
    return ok;
}

/* Rows of the embedding table that an integer input looks up. */
static int64_t vocabulary(const Module *m, const Func *f) {
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        ParamId p;
        if (n->op != OP_gather || node_int(n, AT_axis, 0) != 0 || !value_param(f, n->in[0], &p) ||
            m->param[p].rank != 2)
            continue;
        ValueId v = n->in[1];
        const Node *b;
        while ((b = value_node(f, v)) && (b->op == OP_reshape || b->op == OP_cast))
            v = b->in[0];
        if (f->value[v].kind == VK_INPUT)
            return m->param[p].dim[0];
    }
    return 0;
}

bool match_roles(Module *m, Diag *d) {
    Func *enc = module_find(m, "encoder"), *dec = module_find(m, "decoder");
    if (!enc || !dec) {
        Func *only = NULL;
        uint32_t entries = 0;
        for (FuncId i = 0; i < m->n_funcs; i++)
            if (m->func[i] && m->func[i]->role == FR_ENTRY) {
                only = m->func[i];
                entries++;
            }
        ValueId memory = entries == 1 && only->n_outputs ? find_memory(only) : NONE;
        if (memory == NONE || only->value[memory].kind == VK_INPUT || only->value[memory].type.rank != 3) {
            remark_at(
                m, R_no_role, only, str_c(""),
                "no value that all cross attentions read: not the whole of a T5, functions stay as they are");
            return true;
        }
        split_model(m, only, memory);
        enc = module_find(m, "encoder");
        dec = module_find(m, "decoder");
    }
    int64_t width = 0, vocab = vocabulary(m, dec);
    const Value *hidden = &enc->value[enc->output[0]];
    bool known = hidden->type.rank == 3 && dim_is_const(m->dims, hidden->type.dim[2], &width);
    Roles re, rd;
    bool ok = name_stack(m, d, enc, "encoder", &re);
    ok = name_stack(m, d, dec, "decoder", &rd) && ok;
    if (!ok)
        return false;
    if (!known || width < 1 || width > INT32_MAX || vocab < 1)
        return diag_error(d, DIAG_MATCH_T5, NULL,
                          "the encoder's output or the decoder's embedding does not look like a T5's");
    if (rd.inner != re.inner || rd.heads != re.heads)
        return diag_error(d, DIAG_MATCH_T5, NULL,
                          "encoder and decoder differ in heads (%lld and %lld) or their width",
                          (long long)re.heads, (long long)rd.heads);
    m->s2s.present = true;
    m->s2s.vocab = vocab;
    m->s2s.enc_layers = re.self;
    m->s2s.dec_layers = rd.self;
    m->s2s.heads = (uint32_t)re.heads;
    m->s2s.head_width = (uint32_t)(re.inner / re.heads);
    m->s2s.width = (uint32_t)width;
    return true;
}
