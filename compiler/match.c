/* match: primitive ops become rms_norm, gelu and attention, and the parts of a T5 get their names.
 *
 * Works by structure alone; every rewrite is local and exact up to rounding, and what is not recognised stays
 * as it is. Nodes are visited in execution order; the first pattern whose root a node is replaces it, what
 * that leaves unused disappears when the function is closed. In a model with functions `encoder` and
 * `decoder` every attention must be recognised; what cannot be understood is reported. */
#include "match_impl.h"
#include "pass.h"

static bool (*const patterns[])(Matcher *mt, const Node *n) = {match_attention, match_quantised, match_gelu,
                                                               match_rms_norm, match_linear};

/* A function with cross attention is a whole model: it will be split, so all of it has to be understood. */
static bool has_cross_attention(const Func *f) {
    for (NodeId i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_attention &&
            f->value[f->node[i].in[0]].type.dim[1] != f->value[f->node[i].in[1]].type.dim[1])
            return true;
    return false;
}

void match_found(Matcher *mt, RemarkId id, const Node *n, ValueId now, const char *text) {
    Found one = {id, n, now, text};
    remap_set(&mt->r, n->out, now);
    if (mt->m->remarks)
        vec_push(&mt->found, one);
}

bool match_missed(Matcher *mt, RemarkId id, const Node *core, const char *why, const Node *where) {
    Missed one = {id, core, why, where};
    for (size_t i = 0; i < mt->missed.count; i++)
        if (mt->missed.item[i].core == core)
            return false;
    vec_push(&mt->missed, one);
    return false;
}

/* By value of the new function: whether an output needs it. */
static bool *needed_values(Matcher *mt) {
    const Func *f = mt->r.f;
    for (uint32_t i = 0; i < mt->f->n_outputs; i++)
        remap_value(&mt->r, mt->f->output[i]);
    bool *needed = arena_array(mt->a, f->n_values + 1, sizeof *needed);
    for (uint32_t i = 0; i < mt->f->n_outputs; i++)
        needed[remap_value(&mt->r, mt->f->output[i])] = true;
    for (NodeId i = f->n_nodes; i-- > 0;) {
        bool any = false;
        for (uint32_t k = 0; k < f->node[i].n_out; k++)
            any |= needed[f->node[i].out + k];
        for (uint32_t k = 0; any && k < f->node[i].n_in; k++)
            if (f->node[i].in[k] != NONE)
                needed[f->node[i].in[k]] = true;
    }
    return needed;
}

/* What no pattern was tried on. */
static const struct {
    Op op;
    RemarkId id;
    const char *why;
} bare[] = {
    {OP_softmax, R_no_attention,
     "a softmax, but not between products of queries, keys and values whose heads are merged behind it"},
    {OP_erf, R_no_gelu, "erf: the exact form of gelu stays pointwise operations, gelu is the tanh form"},
    {OP_tanh, R_no_gelu, "tanh, but not in a product of x, 1/2 and 1 + tanh of a polynomial of x"},
};

static void tell(Matcher *mt) {
    if (!mt->m->remarks)
        return;
    const bool *needed = needed_values(mt);
    for (size_t i = 0; i < mt->found.count; i++)
        if (needed[mt->found.item[i].now])
            remark(mt->m, mt->found.item[i].id, mt->f, mt->found.item[i].root, "%s", mt->found.item[i].text);
    for (NodeId i = 0; i < mt->f->n_nodes; i++)
        for (size_t k = 0; k < sizeof bare / sizeof *bare; k++)
            if (mt->f->node[i].op == bare[k].op)
                match_missed(mt, bare[k].id, &mt->f->node[i], bare[k].why, NULL);
    for (size_t i = 0; i < mt->missed.count; i++) {
        const Missed *x = &mt->missed.item[i];
        ValueId now = mt->r.map[x->core->out];
        if (now == NONE || !needed[now])
            continue;
        Str at = x->where ? node_place(x->where) : str_c("");
        remark(mt->m, x->id, mt->f, x->core, x->where && x->where != x->core ? "%s: \"%.*s\"" : "%s", x->why,
               (int)at.n, at.p);
    }
}

/* Rewrites one function. In a T5 every softmax has to be part of an attention; `plain`: it is not taken for
 * one. */
static bool match_func(Module *m, Func *f, bool t5, bool plain, Diag *d) {
    Arena *a = arena_new();
    Matcher mt = {.m = m, .f = f, .r = remap_begin(m, a, f), .a = a};
    for (int i = 0; i < 5; i++)
        mt.axis[i].at = IX_FAIL;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        bool done = false;
        for (size_t k = 0; k < sizeof patterns / sizeof *patterns && !done && n->n_out == 1; k++)
            done = patterns[k](&mt, n);
        if (!done)
            remap_node(&mt.r, n);
    }
    bool ok = true, strict = t5 || (!plain && has_cross_attention(mt.r.f));
    for (size_t i = 0; strict && i < mt.missed.count; i++) {
        const Missed *x = &mt.missed.item[i];
        const Node *at = x->where ? x->where : x->core;
        if (x->id != R_no_attention)
            continue;
        ok = diag_error(d, DIAG_MATCH_ATTENTION, NULL, "function %s: node '%s' (%s), added to or part of the attention at '%s': %s",
                        diag_show(d, f->name), diag_show(d, at->origin), op_info(at->op)->name,
                        diag_show(d, x->core->origin), x->why);
    }
    tell(&mt);
    remap_end(&mt.r);
    vec_free(&mt.additive);
    vec_free(&mt.missed);
    vec_free(&mt.found);
    index_free(mt.x);
    arena_free(a);
    return ok;
}

bool pass_match(Module *m, const PassOptions *o, Diag *d) {
    bool plain = o && o->plain, t5 = !plain && module_find(m, "encoder") && module_find(m, "decoder"),
         ok = true;
    uint32_t n = m->n_funcs;
    for (FuncId i = 0; i < n; i++)
        if (m->func[i] && (m->func[i]->role == FR_ENTRY || m->func[i]->role == FR_BODY))
            ok = match_func(m, m->func[i], t5, plain, d) && ok;
    return ok && (plain || match_roles(m, d));
}
