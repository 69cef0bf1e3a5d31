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
    bool strict = t5 || (!plain && has_cross_attention(mt.r.f));
    for (size_t i = 0; strict && i < mt.missed.count; i++) {
        const Missed *x = &mt.missed.item[i];
        const Node *at = x->where ? x->where : x->softmax;
        diag_error(d, DIAG_MATCH_ATTENTION, NULL,
                   "function %s: node '%s' (%s), added to or part of the attention at '%s': %s",
                   diag_show(d, f->name), diag_show(d, at->origin), op_info(at->op)->name,
                   diag_show(d, x->softmax->origin), x->why);
    }
    bool ok = !strict || mt.missed.count == 0;
    remap_end(&mt.r);
    vec_free(&mt.additive);
    vec_free(&mt.missed);
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
