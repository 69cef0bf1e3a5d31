/* pack: the weights of matrix products in panels of columns, the order in which kernels read them (codegen/tile.h).
 *
 * An input of a kernel by rows that is the right operand of products and nothing else, and a parameter in every call, becomes panels,
 * and the kernel begins with `unpack`, which code generation looks through. The panels are a parameter with an init
 * function: written to the weights file once, or made whenever an adapter is loaded. Widths depend on the number of columns
 * alone, so one weights file serves machines of all vector widths. */
#include "pack.h"
#include "pass.h"
#include "remark.h"
#include "rows.h"

#include <string.h>

typedef struct Packer {
    Module *m;
    Arena *a;
    ParamId *packed; /* by ParamId: its panels, or NONE */
    uint32_t n_params;
    bool **panels; /* by FuncId, by input: of kernels; NULL: none */
} Packer;

/* ---- which ------------------------------------------------------------------------------------------- */

static bool constant_extents(const Module *m, const Type *t) {
    int64_t n;
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(m->dims, t->dim[i], &n) || n < 1)
            return false;
    return true;
}

/* v is the right operand of products as it stands, and nothing else. */
static bool only_multiplied(const Module *m, const Func *f, int n_row, ValueId v) {
    const Type *t = &f->value[v].type;
    bool used = false;
    if (t->dtype != DT_F32 || t->rank < 2 || t->rank >= MOEC_MAX_RANK || !constant_extents(m, t))
        return false;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (n->op != OP_matmul || j != 1 || n->in[0] == v)
                return false;
            if (node_int(n, AT_tb, 0) && (t->rank != 2 || f->value[n->in[0]].type.rank != n_row + 1))
                return false;
            used = true;
        }
    }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        used = used && f->output[i] != v;
    return used;
}

static const Func *callee(const Module *m, const Node *n) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    return a ? module_func(m, (FuncId)a->i) : NULL;
}

/* Visits every operand of every call of a kernel by an entry function. */
typedef void Visit(Packer *p, const Func *f, const Node *call, const Func *kernel, uint32_t input);

static void visit_calls(Packer *p, Visit *visit) {
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        for (uint32_t j = 0; f && f->role == FR_ENTRY && j < f->n_nodes; j++) {
            const Func *k = callee(p->m, &f->node[j]);
            for (uint32_t in = 0; k && k->role == FR_KERNEL && in < k->n_inputs; in++)
                visit(p, f, &f->node[j], k, in);
        }
    }
}

static void must_be_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (!value_param(f, call->in[in], &id))
        p->panels[k->id][in] = false;
}

/* A parameter that somebody reads as it is stays as it is for all: it is stored once. */
static void keep_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (value_param(f, call->in[in], &id) && !p->panels[k->id][in])
        p->packed[id] = id;
}

static void keep_input(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (value_param(f, call->in[in], &id) && p->packed[id] == id)
        p->panels[k->id][in] = false;
}

static void choose(Packer *p) {
    p->panels = arena_array(p->a, p->m->n_funcs + 1, sizeof *p->panels);
    p->packed = arena_array(p->a, p->n_params + 1, sizeof *p->packed);
    memset(p->packed, 0xff, (p->n_params + 1) * sizeof *p->packed);
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        if (!f || f->role != FR_KERNEL)
            continue;
        p->panels[i] = arena_array(p->a, f->n_inputs + 1, sizeof **p->panels);
        const Node *node;
        const char *why;
        int rows = rows_choose(p->m, f, arena_array(p->a, f->n_values + 1, sizeof(bool)), &node, &why);
        if (!rows)
            continue; /* computed once over whole tensors, as they are */
        for (uint32_t k = 0; k < f->n_inputs; k++)
            p->panels[i][k] = only_multiplied(p->m, f, rows, f->input[k]);
    }
    visit_calls(p, must_be_parameter);
    /* as inputs fall out, parameters do, and with those other kernels' inputs: kernels share few, twice is enough */
    for (int turn = 0; turn < 2; turn++) {
        visit_calls(p, keep_parameter);
        visit_calls(p, keep_input);
    }
}

/* ---- panels -------------------------------------------------------------------------------------------- */

static ValueId pack(Module *m, Func *f, ValueId w) {
    const Type *t = &f->value[w].type;
    int64_t columns = 0;
    dim_is_const(m->dims, t->dim[t->rank - 1], &columns);
    Attr width = attr_i(AT_width, columns <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS);
    return func_node(m, f, OP_pack, &w, 1, &width, 1, (Str){NULL, 0});
}

static ParamId panels_of(Packer *p, ParamId id) {
    Module *m = p->m;
    if (p->packed[id] != NONE)
        return p->packed[id];
    Func *init = func_begin(m, str_c("init"), FR_INIT);
    ValueId v = pack(m, init, func_param(m, init, id));
    Param x = {.kind = PK_CONST, .dtype = DT_F32, .rank = init->value[v].type.rank};
    for (int i = 0; i < x.rank; i++)
        dim_is_const(m->dims, init->value[v].type.dim[i], &x.dim[i]);
    func_output(m, init, v, str_c("value"));
    x.init = func_end(m, init, NONE);
    init->name = str_c(arena_printf(m->arena, "init.%u", x.init));
    x.name = str_c(arena_printf(m->arena, "%.*s.panels", (int)m->param[id].name.n, m->param[id].name.p));
    return p->packed[id] = module_param(m, x);
}

static void remake_kernel(Packer *p, const Func *old) {
    Module *m = p->m;
    Remap r = {.m = m, .old = old, .f = func_begin(m, old->name, old->role)};
    r.map = arena_array(p->a, old->n_values + 1, sizeof *r.map);
    memset(r.map, 0xff, (old->n_values + 1) * sizeof *r.map);
    for (uint32_t i = 0; i < old->n_inputs; i++) {
        const Value *v = &old->value[old->input[i]];
        Type t = v->type;
        if (p->panels[old->id][i]) { /* the type that `pack` gives it */
            Func *probe = func_begin(m, str_c("pack"), FR_KERNEL);
            ValueId w = pack(m, probe, func_input(m, probe, v->name, t));
            t = probe->value[w].type;
        }
        r.map[old->input[i]] = func_input(m, r.f, v->name, t);
    }
    for (uint32_t i = 0; i < old->n_inputs; i++)
        if (p->panels[old->id][i]) {
            ValueId *at = &r.map[old->input[i]];
            *at = func_node_typed(m, r.f, OP_unpack, at, 1, NULL, 0, &old->value[old->input[i]].type, 1,
                                  (Str){NULL, 0});
        }
    for (uint32_t i = 0; i < old->n_nodes; i++)
        remap_node(&r, &old->node[i]);
    remap_end(&r);
}

static void make_panels(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (p->panels[k->id][in] && value_param(f, call->in[in], &id))
        panels_of(p, id);
}

static void remake_calls(Packer *p, const Func *old) {
    Remap r = remap_begin(p->m, p->a, old);
    ParamId id;
    for (ValueId v = 0; v < old->n_values; v++)
        if (value_param(old, v, &id) && p->packed[id] != NONE)
            remap_set(&r, v, func_param(p->m, r.f, p->packed[id]));
    for (uint32_t i = 0; i < old->n_nodes; i++)
        remap_node(&r, &old->node[i]);
    remap_end(&r);
}

bool pass_pack(Module *m, const PassOptions *o, Diag *d) {
    (void)d;
    if (o->library)
        return true;
    Packer p = {.m = m, .a = arena_new(), .n_params = m->n_params};
    uint32_t n = m->n_funcs;
    choose(&p);
    visit_calls(&p, make_panels);
    for (uint32_t i = 0; i < n; i++)
        if (p.panels[i] && memchr(p.panels[i], true, m->func[i]->n_inputs))
            remake_kernel(&p, m->func[i]);
    for (uint32_t i = 0; i < n; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY)
            remake_calls(&p, m->func[i]);
    arena_free(p.a);
    return true;
}
