/* One node as a function of literals, run by the interpreter: folding has no arithmetic of its own. */
#include "const_eval.h"

#include <string.h>

bool const_eval(Module *m, Op op, const Tensor *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs,
                const Type *types, uint32_t n_out, Tensor *out) {
    Str none = {"", 0};
    Func *f = func_begin(m, str_c("const_eval"), FR_INIT);
    ValueId *ids = arena_array(m->arena, n_in ? n_in : 1, sizeof *ids);
    for (uint32_t i = 0; i < n_in; i++) {
        Attr value = attr_t(AT_value, in[i]);
        ids[i] = func_node(m, f, OP_const, NULL, 0, &value, 1, none);
    }
    ValueId first = func_node_typed(m, f, op, ids, n_in, attrs, n_attrs, types, n_out, none);
    for (uint32_t i = 0; i < n_out; i++)
        func_output(m, f, first + i, none);
    FuncId id = func_end(m, f, NONE);

    Diag *quiet = diag_new();
    int64_t *syms = mem_alloc((dim_sym_count(m->dims) + 1) * sizeof *syms);
    bool ok = func_eval(m, id, syms, NULL, out, m->arena, quiet);
    mem_free(syms);
    diag_free(quiet);
    m->func[id] = NULL;
    if (id + 1 == m->n_funcs)
        m->n_funcs--;
    return ok;
}

bool const_of(const Module *m, const Func *f, ValueId v, int64_t max_count, Tensor *out) {
    const Node *n = value_node(f, v);
    ParamId id;
    int64_t count;
    if (n) {
        if (n->op != OP_const)
            return false;
        *out = node_attr(n, AT_value)->t;
    } else if (value_param(f, v, &id)) {
        const Param *p = &m->param[id];
        if (!p->data || p->kind == PK_ADAPTER)
            return false;
        *out = (Tensor){.dtype = p->dtype, .rank = p->rank, .data = (void *)(uintptr_t)p->data};
        memcpy(out->dim, p->dim, sizeof out->dim);
    } else {
        return false;
    }
    return tensor_count(out, &count) && count <= max_count;
}
