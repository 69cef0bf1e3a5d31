/* Results of nodes as outputs. */
#include "expose.h"
#include "print.h"

/* Whether result k of n has no storage of its own: an append, or a call of what hands one out. */
static bool is_appended(const Module *m, const Node *n, uint32_t k) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    const Func *callee = a ? module_func(m, (FuncId)a->i) : NULL;
    return n->op == OP_append || (callee && value_is(callee, callee->output[k], OP_append));
}

static void expose(Module *m, Func *f, Arena *scratch) {
    bool *is_output = arena_array(scratch, f->n_values + 1, sizeof *is_output);
    const Str *names = value_names(f, scratch);
    Remap r = remap_begin(m, scratch, f);
    for (NodeId i = 0; i < f->n_nodes; i++)
        remap_node(&r, &f->node[i]);
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        is_output[f->output[i]] = true;
        func_output(m, r.f, remap_value(&r, f->output[i]), f->output_name[i]);
    }
    for (NodeId i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_out; k++) {
            ValueId v = f->node[i].out + k;
            if (!is_output[v] && !is_appended(m, &f->node[i], k))
                func_output(m, r.f, remap_value(&r, v), names[v]);
        }
    func_end(m, r.f, f->id);
}

void expose_results(Module *m) {
    for (FuncId i = 0; i < m->n_funcs; i++) {
        Arena *scratch = arena_new();
        if (m->func[i] && m->func[i]->role == FR_ENTRY)
            expose(m, m->func[i], scratch);
        arena_free(scratch);
    }
}
