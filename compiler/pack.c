/* pack: the weights of matrix products in panels of columns, the order in which kernels read them
 * (codegen/tile.h).
 *
 * An input of a kernel by rows that is the right operand of products and nothing else, or one that the loss multiplies by, and a
 * parameter in every call, becomes panels, and the kernel begins with `unpack`, which code generation looks through. The
 * panels are a parameter with an init function: written to the weights file once, or made whenever an adapter
 * is loaded. Widths depend on the number of columns alone, so one weights file serves machines of all vector
 * widths. */
#include "pack.h"
#include "pass.h"
#include "remark.h"
#include "rows.h"

#include <string.h>

typedef struct Packer {
    Module *m;
    Arena *a;
    ParamId *packed; /* by ParamId: its panels; itself where it stays as it is; or NONE */
    uint32_t n_params;
    const char ***why; /* by FuncId, by input: of kernels, why it is not in panels, or NULL */
    bool changed;
} Packer;

/* ---- which ------------------------------------------------------------------------------------------- */

static bool constant_extents(const Module *m, const Type *t) {
    int64_t n;
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(m->dims, t->dim[i], &n) || n < 1)
            return false;
    return true;
}

/* The loss and its gradients multiply by a weight [d,V] themselves, over whole tensors. */
static bool is_loss(const Node *n, uint32_t operand) {
    bool loss = n->op == OP_cross_entropy || n->op == OP_cross_entropy_dx || n->op == OP_cross_entropy_dw;
    return loss && operand == 1 && !node_int(n, AT_tb, 0);
}

static const char *why_no_use(const Func *f, const Node *n, uint32_t operand, int n_row) {
    if (is_loss(n, operand))
        return NULL;
    if (n->op != OP_matmul)
        return "something else reads the weight, too";
    if (!n_row)
        return "its kernel runs once over whole tensors";
    if (operand != 1 || n->in[0] == n->in[1])
        return "the weight is a left operand, too";
    if (node_int(n, AT_ta, 0))
        return "the left operand is read transposed";
    bool rows = f->value[n->in[1]].type.rank == 2 && f->value[n->in[0]].type.rank == n_row + 1;
    return node_int(n, AT_tb, 0) && !rows ? "the weight is read transposed, by several rows of a row" : NULL;
}

/* Why v is not the right operand of products, as it stands or transposed, and nothing else. */
static const char *why_no_weight(const Module *m, const Func *f, int n_row, ValueId v) {
    const Type *t = &f->value[v].type;
    bool used = false;
    if (t->dtype != DT_F32)
        return "the weight is not f32";
    if (t->rank < 2 || t->rank >= MOEC_MAX_RANK || !constant_extents(m, t))
        return "the weight has no constant extents of a matrix";
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++) {
            const char *why = f->node[i].in[j] == v ? why_no_use(f, &f->node[i], j, n_row) : NULL;
            used = used || f->node[i].in[j] == v;
            if (why)
                return why;
        }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (f->output[i] == v)
            return "the kernel returns the weight";
    return used ? NULL : "nothing reads the weight";
}

static const Func *kernel_called(const Module *m, const Node *n) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    const Func *k = a ? module_func(m, (FuncId)a->i) : NULL;
    return k && k->role == FR_KERNEL ? k : NULL;
}

/* A function that names parameters and calls kernels. */
static bool is_caller(const Func *f) {
    return f && (f->role == FR_ENTRY || f->role == FR_BODY);
}

/* Visits every operand of every call of a kernel. */
typedef void Visit(Packer *p, const Func *f, const Node *call, const Func *kernel, uint32_t input);

static void visit_calls(Packer *p, Visit *visit) {
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        for (uint32_t j = 0; is_caller(f) && j < f->n_nodes; j++) {
            const Func *k = kernel_called(p->m, &f->node[j]);
            for (uint32_t in = 0; k && in < k->n_inputs; in++)
                visit(p, f, &f->node[j], k, in);
        }
    }
}

static void must_be_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (!value_param(f, call->in[in], &id) && !p->why[k->id][in])
        p->why[k->id][in] = "it is no parameter in every call";
}

static void keep(Packer *p, const Func *f, ValueId v) {
    ParamId id;
    if (!value_param(f, v, &id) || p->packed[id] == id)
        return;
    p->packed[id] = id;
    p->changed = true;
}

/* What is read by other nodes than calls of kernels, and what a function returns. */
static void keep_read(Packer *p, const Func *f) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; !kernel_called(p->m, &f->node[i]) && j < f->node[i].n_in; j++)
            keep(p, f, f->node[i].in[j]);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        keep(p, f, f->output[i]);
}

/* A parameter that somebody reads as it is stays as it is for all: it is stored once. */
static void keep_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    if (p->why[k->id][in])
        keep(p, f, call->in[in]);
}

static void keep_input(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (!value_param(f, call->in[in], &id) || p->packed[id] != id || p->why[k->id][in])
        return;
    p->why[k->id][in] = "something else reads the parameter as it is";
    p->changed = true;
}

static void choose_inputs(Packer *p, const Func *f) {
    const Node *node;
    const char *why;
    int rows = rows_choose(p->m, f, arena_array(p->a, f->n_values + 1, sizeof(bool)), &node, &why);
    p->why[f->id] = arena_array(p->a, f->n_inputs + 1, sizeof **p->why);
    for (uint32_t i = 0; i < f->n_inputs; i++)
        p->why[f->id][i] = why_no_weight(p->m, f, rows, f->input[i]);
}

static void choose(Packer *p) {
    p->why = arena_array(p->a, p->m->n_funcs + 1, sizeof *p->why);
    p->packed = arena_array(p->a, p->n_params + 1, sizeof *p->packed);
    memset(p->packed, 0xff, (p->n_params + 1) * sizeof *p->packed);
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        if (f && f->role == FR_KERNEL)
            choose_inputs(p, f);
        else if (is_caller(f))
            keep_read(p, f);
    }
    visit_calls(p, must_be_parameter);
    do { /* as inputs fall out, parameters do, and with those other kernels' inputs */
        p->changed = false;
        visit_calls(p, keep_parameter);
        visit_calls(p, keep_input);
    } while (p->changed);
}

/* ---- panels -------------------------------------------------------------------------------------------- */

static ValueId pack(Module *m, Func *f, ValueId w) {
    const Type *t = &f->value[w].type;
    int64_t columns = 0;
    dim_is_const(m->dims, t->dim[t->rank - 1], &columns);
    Attr width = attr_i(AT_width, columns <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS);
    return func_node(m, f, OP_pack, &w, 1, &width, 1, (Str){NULL, 0});
}

/* After the parameter it makes; a number behind that where a function has the name. */
static Str init_name(const Module *m, Str param) {
    Str name = param;
    for (uint32_t i = 0, n = 0; i < m->n_funcs; i++)
        if (m->func[i] && str_eq(m->func[i]->name, name)) {
            name = str_c(arena_printf(m->arena, "%.*s.%u", (int)param.n, param.p, ++n));
            i = UINT32_MAX; /* from the first one again */
        }
    return name;
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
    x.name = str_c(arena_printf(m->arena, "%.*s.panels", (int)m->param[id].name.n, m->param[id].name.p));
    init->name = init_name(m, x.name);
    x.init = func_end(m, init, NONE);
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
        if (!p->why[old->id][i]) { /* the type that `pack` gives it */
            Func *probe = func_begin(m, str_c("pack"), FR_KERNEL);
            ValueId w = pack(m, probe, func_input(m, probe, v->name, t));
            t = probe->value[w].type;
        }
        r.map[old->input[i]] = func_input(m, r.f, v->name, t);
    }
    for (uint32_t i = 0; i < old->n_inputs; i++)
        if (!p->why[old->id][i]) {
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
    if (!p->why[k->id][in] && value_param(f, call->in[in], &id))
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

/* ---- what is told -------------------------------------------------------------------------------------- */

/* Of a kernel as it is now; `why` is of its inputs. */
static void tell_product(const Module *m, const Func *f, const Node *n, const char *const *why) {
    const Node *u = value_node(f, n->in[1]);
    const char *reason = "the weight is computed in the kernel";
    int64_t width = 0;
    Text t = {0};
    node_print(m, f, n, &t);
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (f->input[i] == n->in[1])
            reason = why[i];
    if (u && u->op == OP_unpack) {
        const Type *panels = &f->value[u->in[0]].type;
        dim_is_const(m->dims, panels->dim[panels->rank - 1], &width);
        remark(m, R_panels, f, NULL, "weight in panels of %lld columns: %.*s", (long long)width, (int)t.n,
               t.p);
    } else
        remark(m, R_no_panels, f, NULL, "weight not in panels, %s: %.*s", reason, (int)t.n, t.p);
    text_free(&t);
}

static void tell(const Packer *p, const Func *f) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_matmul)
            tell_product(p->m, f, &f->node[i], p->why[f->id]);
}

static bool has_panels(const Packer *p, const Func *f) {
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (!p->why[f->id][i])
            return true;
    return false;
}

bool pass_pack(Module *m, const PassOptions *o, Diag *d) {
    (void)d;
    if (o->library) {
        remark(m, R_no_panels, NULL, NULL, "no weight in panels, products are a library's");
        return true;
    }
    Packer p = {.m = m, .a = arena_new(), .n_params = m->n_params};
    uint32_t n = m->n_funcs;
    choose(&p);
    visit_calls(&p, make_panels);
    for (uint32_t i = 0; i < n; i++) {
        if (p.why[i] && has_panels(&p, m->func[i]))
            remake_kernel(&p, m->func[i]);
        if (p.why[i] && m->remarks)
            tell(&p, m->func[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        if (is_caller(m->func[i]))
            remake_calls(&p, m->func[i]);
    arena_free(p.a);
    return true;
}
