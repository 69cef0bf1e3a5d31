/* attach, method full: the base weights themselves are what is trained.
 *
 * Every weight that a T5 learns (a table that is gathered from, the right side of a product, a norm's gain), seen
 * through views of it, becomes a parameter of kind PK_ADAPTER under its own name, so that all that is true of adapter
 * tensors is true of it: gradients, optimiser, checkpoints, swapping. What earlier passes made of weights is taken back
 * into the functions, for gradients to flow through, and a weight that is stored twice, once transposed, as exporters do
 * with a tied head, is one weight again. */
#include "attach_impl.h"
#include "remark.h"

#include <string.h>

enum { MAX_NESTING = 16, TENSOR_RANK = 4 };

typedef struct Full {
    Module *m;
    const PassOptions *o;
    Diag *d;
    Arena *a;
    ParamId *tied; /* by ParamId: what it is the transpose of, or NONE */
    bool *trained;
} Full;

/* ---- one weight, stored once ---- */

static bool is_matrix(const Param *p) {
    return p->kind == PK_FROZEN && p->data && p->dtype == DT_F32 && p->rank == 2 && p->dim[0] > 1 &&
           p->dim[1] > 1;
}

static bool is_transpose(const Param *a, const Param *b) {
    if (!is_matrix(a) || !is_matrix(b) || a->dim[0] != b->dim[1] || a->dim[1] != b->dim[0])
        return false;
    const unsigned char *x = a->data, *y = b->data;
    for (int64_t i = 0; i < a->dim[0]; i++)
        for (int64_t j = 0; j < a->dim[1]; j++)
            if (memcmp(x + 4 * (i * a->dim[1] + j), y + 4 * (j * a->dim[0] + i), 4) != 0)
                return false;
    return true;
}

static void find_ties(Full *x) {
    const Module *m = x->m;
    for (ParamId p = 0; p < m->n_params; p++) {
        x->tied[p] = NONE;
        for (ParamId q = 0; q < p && x->tied[p] == NONE; q++)
            if (x->tied[q] == NONE && is_transpose(&m->param[q], &m->param[p]))
                x->tied[p] = q;
        const Param *q = x->tied[p] == NONE ? NULL : &m->param[x->tied[p]];
        if (q)
            remark_at(m, R_tied, NULL, m->param[p].name, "the transpose of \"%.*s\": one weight",
                      (int)q->name.n, q->name.p);
    }
}

/* ---- what was made of weights, back in the functions ---- */

static ValueId inline_init(Full *x, Remap *r, const Func *init) {
    ValueId *map = arena_array(x->a, init->n_values + 1, sizeof *map);
    for (ValueId v = 0; v < init->n_values; v++)
        if (init->value[v].kind == VK_PARAM)
            map[v] = func_param(x->m, r->f, init->value[v].def);
    for (NodeId i = 0; i < init->n_nodes; i++) {
        const Node *n = &init->node[i];
        ValueId *in = arena_array(x->a, n->n_in + 1, sizeof *in);
        Type *types = arena_array(x->a, n->n_out + 1, sizeof *types);
        for (uint32_t k = 0; k < n->n_in; k++)
            in[k] = n->in[k] == NONE ? NONE : map[n->in[k]];
        for (uint32_t k = 0; k < n->n_out; k++)
            types[k] = init->value[n->out + k].type;
        ValueId v =
            func_node_typed(x->m, r->f, n->op, in, n->n_in, n->attrs, n->n_attrs, types, n->n_out, n->origin);
        for (uint32_t k = 0; k < n->n_out; k++)
            map[n->out + k] = v + k;
    }
    return map[init->output[0]];
}

/* Whether anything was taken back. */
static bool unfold(Full *x, const Func *f) {
    static const int64_t swap[] = {1, 0};
    Remap r = remap_begin(x->m, x->a, f);
    bool any = false;
    for (ValueId v = 0; v < f->n_values; v++) {
        if (f->value[v].kind != VK_PARAM)
            continue;
        ParamId id = f->value[v].def;
        const Param *p = &x->m->param[id];
        if (!p->data && p->init != NONE)
            r.map[v] = inline_init(x, &r, module_func(x->m, p->init));
        else if (x->tied[id] != NONE)
            r.map[v] = build_transpose(x->m, r.f, func_param(x->m, r.f, x->tied[id]), swap, p->name);
        else
            continue;
        any = true;
    }
    for (NodeId i = 0; any && i < f->n_nodes; i++)
        remap_node(&r, &f->node[i]);
    if (any)
        remap_end(&r);
    return any;
}

/* ---- what is trained ---- */

/* The parameter v is a view of, NONE when it is none. */
static ParamId param_behind(const Func *f, ValueId v) {
    ParamId p;
    for (const Node *n; v != NONE && (n = value_node(f, v));) {
        if (op_info(n->op)->klass != OC_MOVE && n->op != OP_cast)
            return NONE;
        v = n->in[0];
    }
    return value_param(f, v, &p) ? p : NONE;
}

static ValueId weight_operand(const Node *n) {
    switch (n->op) {
    case OP_gather:
        return n->in[0];
    case OP_matmul:
    case OP_rms_norm:
        return n->in[1];
    default:
        return NONE;
    }
}

static bool is_plain_name(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return s.n > 0;
}

static bool find_trained(Full *x, const Func *f) {
    bool ok = true;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        ValueId v = weight_operand(&f->node[i]);
        ParamId id = v == NONE ? NONE : param_behind(f, v);
        const Param *p = id == NONE ? NULL : &x->m->param[id];
        if (!p || p->kind != PK_FROZEN || !dtype_is_float(p->dtype) || x->trained[id])
            continue;
        const char *name = diag_show(x->d, p->name);
        x->trained[id] = true;
        remark_at(x->m, R_trained, NULL, p->name, "trained");
        if (p->dtype != DT_F32)
            ok = diag_error(x->d, DIAG_ADAPTER_SITE, x->o->adapter->file,
                            "method 'full' trains f32 weights, '%s' is %s: export the model in f32", name,
                            dtype_name(p->dtype));
        else if (p->rank > TENSOR_RANK || !is_plain_name(p->name))
            ok = diag_error(x->d, DIAG_ADAPTER_SITE, x->o->adapter->file,
                            "method 'full': weight '%s' has a name or a rank that cannot be saved", name);
    }
    return ok;
}

/* Values somebody loaded take the place of the model's own, all of them. */
static bool take_values(Full *x) {
    const AdapterSpec *spec = x->o->adapter;
    bool ok = true;
    uint32_t missing = 0, found = 0;
    if (!spec->loaded)
        return true;
    bool *given = arena_array(x->a, x->m->n_params + 1, sizeof *given);
    for (uint32_t i = 0; i < spec->n_tensors; i++) {
        ParamId p;
        if (module_find_param(x->m, spec->tensor[i].name, &p) && x->trained[p]) {
            ok = param_take(&x->m->param[p], &spec->tensor[i], spec->tensor_file, x->m->arena, x->d) && ok;
            given[p] = true;
            found++;
        } else {
            ok = diag_error(x->d, DIAG_ADAPTER_SURPLUS, spec->tensor_file,
                            "tensor '%s' is no trained weight of this model",
                            diag_show(x->d, spec->tensor[i].name));
        }
    }
    for (ParamId p = 0; p < x->m->n_params; p++)
        if (x->trained[p] && !given[p] && missing++ == 0)
            ok = diag_error(x->d, DIAG_ADAPTER_MISSING, spec->tensor_file, "tensor '%s' is missing",
                            diag_show(x->d, x->m->param[p].name));
    return ok;
}

static bool full_run(Full *x) {
    Module *m = x->m;
    find_ties(x);
    for (FuncId id = 0; id < m->n_funcs; id++)
        for (int i = 0; m->func[id] && m->func[id]->role == FR_ENTRY && unfold(x, m->func[id]); i++)
            if (i == MAX_NESTING)
                BUG("parameters of '%.*s' compute each other", (int)m->func[id]->name.n, m->func[id]->name.p);
    bool ok = true, any = false;
    for (FuncId id = 0; id < m->n_funcs; id++)
        if (m->func[id] && m->func[id]->role == FR_ENTRY)
            ok = find_trained(x, m->func[id]) && ok;
    if (!ok || !take_values(x))
        return false;
    for (ParamId p = 0; p < m->n_params; p++)
        if (x->trained[p]) {
            m->param[p].kind = PK_ADAPTER;
            any = true;
        }
    return any || diag_error(x->d, DIAG_ADAPTER_SITE, x->o->adapter->file,
                             "method 'full': the model has no weights that are trained");
}

bool attach_full(Module *m, const PassOptions *o, Diag *d) {
    Full x = {.m = m, .o = o, .d = d, .a = arena_new()};
    x.tied = arena_array(x.a, m->n_params + 1, sizeof *x.tied);
    x.trained = arena_array(x.a, m->n_params + 1, sizeof *x.trained);
    bool ok = full_run(&x);
    arena_free(x.a);
    return ok;
}
