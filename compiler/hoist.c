/* Hoisting: what depends on parameters alone leaves the entry functions. Each such value that run-time nodes use becomes
 * a parameter with an init function; equal ones, also of different functions, share a parameter. */
#include "fuse_impl.h"
#include "remark.h"

#include <string.h>

static bool constant_type(const Module *m, const Type *t) {
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(m->dims, t->dim[i], NULL)) return false;
    return t->rank >= 0;
}

bool *param_only(const Module *m, const Func *f, Arena *a) {
    bool *only = arena_array(a, f->n_values + 1, sizeof *only), *literal = arena_array(a, f->n_values + 1, sizeof *literal);
    for (ValueId v = 0; v < f->n_values; v++) only[v] = f->value[v].kind == VK_PARAM;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->n_out != 1 || n->op == OP_dim || n->op == OP_call || n->op == OP_if || n->op == OP_attention) continue;
        bool fixed = constant_type(m, &f->value[n->out].type), any = false;
        for (uint32_t j = 0; j < n->n_in && fixed; j++) {
            if (n->in[j] == NONE) continue;
            any = any || only[n->in[j]];
            fixed = only[n->in[j]] || literal[n->in[j]];
        }
        only[n->out] = fixed && any;
        literal[n->out] = fixed && !any;
    }
    return only;
}

bool *adapter_only(const Module *m, const Func *f, const bool *only, Arena *a) {
    bool *adapts = arena_array(a, f->n_values + 1, sizeof *adapts);
    for (ValueId v = 0; v < f->n_values; v++)
        adapts[v] = f->value[v].kind == VK_PARAM && param_adapts(m, f->value[v].def);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (only[f->node[i].out] && f->node[i].in[j] != NONE && adapts[f->node[i].in[j]]) adapts[f->node[i].out] = true;
    return adapts;
}

/* ---- equality ------------------------------------------------------------------------------------- */

static bool attr_same(const Attr *a, const Attr *b) {
    if (a->key != b->key) return false;
    switch (attr_kind(a->key)) {
    case AK_FLOAT: return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case AK_DIM: return a->d == b->d;
    case AK_STR: return str_eq(a->s, b->s);
    case AK_INTS: return a->ints.n == b->ints.n && (!a->ints.n || memcmp(a->ints.v, b->ints.v, a->ints.n * sizeof(int64_t)) == 0);
    case AK_DIMS: return a->dims.n == b->dims.n && (!a->dims.n || memcmp(a->dims.v, b->dims.v, a->dims.n * sizeof(Dim)) == 0);
    case AK_TENSOR: {
        size_t n, m;
        return a->t.dtype == b->t.dtype && a->t.rank == b->t.rank && tensor_bytes(&a->t, &n) && tensor_bytes(&b->t, &m) &&
               n == m && memcmp(a->t.dim, b->t.dim, (size_t)a->t.rank * sizeof(int64_t)) == 0 &&
               (n == 0 || memcmp(a->t.data, b->t.data, n) == 0);
    }
    default: return a->i == b->i;
    }
}

static uint32_t next_attr(const Node *n, uint32_t i) {
    while (i < n->n_attrs && attr_annotates(n->attrs[i].key)) i++;
    return i;
}

static bool node_same(const Node *a, const Node *b) {
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out || a->out != b->out) return false;
    if (a->n_in && memcmp(a->in, b->in, a->n_in * sizeof *a->in) != 0) return false;
    uint32_t i = next_attr(a, 0), j = next_attr(b, 0);
    for (; i < a->n_attrs && j < b->n_attrs; i = next_attr(a, i + 1), j = next_attr(b, j + 1))
        if (!attr_same(&a->attrs[i], &b->attrs[j])) return false;
    return i == a->n_attrs && j == b->n_attrs;
}

bool func_same(const Func *a, const Func *b) {
    if (a->n_values != b->n_values || a->n_nodes != b->n_nodes || a->n_inputs != b->n_inputs || a->n_outputs != b->n_outputs)
        return false;
    for (ValueId v = 0; v < a->n_values; v++)
        if (a->value[v].kind != b->value[v].kind || a->value[v].def != b->value[v].def || !type_eq(&a->value[v].type, &b->value[v].type))
            return false;
    for (uint32_t i = 0; i < a->n_nodes; i++)
        if (!node_same(&a->node[i], &b->node[i])) return false;
    return memcmp(a->output, b->output, a->n_outputs * sizeof *a->output) == 0;
}

/* ---- hoisting --------------------------------------------------------------------------------------- */

/* The backward slice of v as an init function. */
static Func *init_of(Module *m, const Func *f, ValueId v, Arena *scratch) {
    Remap r = {.m = m, .old = f, .f = func_begin(m, str_c("init"), FR_INIT)};
    r.map = arena_array(scratch, f->n_values + 1, sizeof *r.map);
    memset(r.map, 0xff, (f->n_values + 1) * sizeof *r.map);
    bool *need = arena_array(scratch, f->n_values + 1, sizeof *need);
    need[v] = true;
    for (uint32_t i = f->n_nodes; i-- > 0;)
        for (uint32_t j = 0; need[f->node[i].out] && j < f->node[i].n_in; j++)
            if (f->node[i].in[j] != NONE) need[f->node[i].in[j]] = true;
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (need[f->node[i].out]) remap_node(&r, &f->node[i]);
    func_output(m, r.f, r.map[v], str_c("value"));
    return r.f;
}

static ParamId param_for(Module *m, const Func *f, ValueId v, Arena *scratch) {
    FuncId id = func_end(m, init_of(m, f, v, scratch), NONE);
    Func *init = module_func(m, id);
    for (uint32_t p = 0; p < m->n_params; p++) {
        const Func *other = m->param[p].init == NONE ? NULL : module_func(m, m->param[p].init);
        if (!other || !func_same(init, other)) continue;
        m->func[id] = NULL;
        return p;
    }
    const Value *x = &f->value[v];
    Param p = {.kind = PK_CONST, .dtype = x->type.dtype, .rank = x->type.rank, .init = id};
    for (int i = 0; i < x->type.rank; i++) dim_is_const(m->dims, x->type.dim[i], &p.dim[i]);
    /* named after the first matrix that went in */
    Str base = str_c("w");
    for (ValueId u = 0; u < init->n_values; u++)
        if (init->value[u].kind == VK_PARAM && (init->value[u].type.rank > 1 || str_is(base, "w"))) {
            base = m->param[init->value[u].def].name;
            if (init->value[u].type.rank > 1) break;
        }
    p.name = str_c(arena_printf(m->arena, "%.*s.fused", (int)base.n, base.p));
    init->name = str_c(arena_printf(m->arena, "init.%u", id));
    return module_param(m, p);
}

static void tell_not_hoisted(const Module *m, const Func *f, const bool *only) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        bool weights = n->n_in > 0 && n->n_out == 1 && !only[n->out];
        for (uint32_t k = 0; weights && k < n->n_in; k++)
            weights = n->in[k] != NONE && only[n->in[k]];
        if (weights)
            remark(m, R_not_hoisted, f, n, "%s of parameters alone is computed in a kernel: %s",
                   op_info(n->op)->name,
                   constant_type(m, &f->value[n->out].type) ? "no init function may hold it"
                                                            : "its extents are known at run time only");
    }
}

void hoist(Module *m, Func *f) {
    Arena *scratch = arena_new();
    bool *only = param_only(m, f, scratch), *used = arena_array(scratch, f->n_values + 1, sizeof *used);
    const bool *adapts = m->remarks ? adapter_only(m, f, only, scratch) : NULL;
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (f->node[i].in[j] != NONE && !only[f->node[i].out]) used[f->node[i].in[j]] = true;
    for (uint32_t i = 0; i < f->n_outputs; i++) used[f->output[i]] = true;
    Remap r = remap_begin(m, scratch, f);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (!only[n->out]) remap_node(&r, n);
        else if (used[n->out]) {
            ParamId p = param_for(m, f, n->out, scratch);
            remark(m, R_hoisted, f, n, "parameter \"%.*s\", computed %s", (int)m->param[p].name.n,
                   m->param[p].name.p,
                   adapts && adapts[n->out] ? "whenever an adapter is loaded" : "when weights are written");
            r.map[n->out] = func_param(m, r.f, p);
        }
    }
    if (m->remarks)
        tell_not_hoisted(m, f, only);
    remap_end(&r);
    arena_free(scratch);
}
