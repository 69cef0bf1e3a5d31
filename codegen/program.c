/* From a planned module to the program as data: kernels lowered, calls resolved to places, tables filled. */
#include "program.h"

#include "program_tables.h"
#include "tile.h"

#include "../compiler/fuse_impl.h"
#include "../compiler/plan.h"

#include <string.h>

enum { DEFAULT_TILE = 128 };

typedef struct Lowering {
    Program *p;
    Diag *d;
    LoopKernel **kernel; /* by FuncId */
    FuncId *derive;      /* kernel of each derived parameter */
    Routines routines;
} Lowering;

/* ---- kernels --------------------------------------------------------------------------------------- */

static bool is_clean(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '_')) return false;
    return s.n > 0 && s.n < 48;
}

/* Lines of the IR file; 0 and NULL where there is none. */
static uint32_t func_line(const Program *p, FuncId id) {
    return p->lines.func && id < p->lines.n_funcs ? p->lines.func[id] : 0;
}

static const uint32_t *node_lines(const Program *p, FuncId id) {
    return p->lines.node && id < p->lines.n_funcs ? p->lines.node[id] : NULL;
}

/* `shown`: what the IR file has of the kernel. */
static bool lower_one(Lowering *l, FuncId id, FuncId shown) {
    Program *p = l->p;
    if (l->kernel[id]) return true;
    const Func *f = module_func(p->m, id);
    LowerOptions lo = {p->o->tile_rows ? p->o->tile_rows : DEFAULT_TILE, &l->routines, func_line(p, shown), node_lines(p, shown)};
    LoopKernel *k = lower_kernel(p->m, f, &lo, p->arena, l->d);
    if (!k) return false;
    k->name = str_c(is_clean(f->name) ? arena_printf(p->arena, "k%u_%.*s", p->n_kernels, (int)f->name.n, f->name.p)
                                      : arena_printf(p->arena, "k%u", p->n_kernels));
    l->kernel[id] = k;
    for (uint32_t i = 0; i < p->n_kernels && !k->as; i++)
        if (!p->kernel[i]->as && loop_same_rows(p->kernel[i], k)) {
            k->as = p->kernel[i];
            p->kernel[i]->lent = true;
        }
    p->kernel_func[p->n_kernels] = f;
    p->kernel[p->n_kernels++] = k;
    if (k->scratch > p->scratch) p->scratch = k->scratch;
    return true;
}

/* An init function whose parameters have become inputs, so that it lowers like any kernel. */
static FuncId derive_kernel(Program *p, ParamId param) {
    Module *m = p->m;
    const Func *init = module_func(m, m->param[param].init);
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, init);
    r.f->role = FR_KERNEL;
    r.f->name = str_c("prepare");
    for (ValueId v = 0; v < init->n_values; v++)
        if (init->value[v].kind == VK_PARAM) r.map[v] = func_input(m, r.f, init->value[v].name, init->value[v].type);
    for (uint32_t i = 0; i < init->n_nodes; i++) remap_node(&r, &init->node[i]);
    func_output(m, r.f, remap_value(&r, init->output[0]), init->output_name[0]);
    FuncId id = func_end(m, r.f, NONE);
    arena_free(scratch);
    return id;
}

static FuncId callee_of(const Node *n) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    if (!a) BUG("'%s' outside a kernel", op_info(n->op)->name);
    return (FuncId)a->i;
}

static bool lower_all(Lowering *l) {
    Program *p = l->p;
    Module *m = p->m;
    uint32_t funcs = m->n_funcs + p->im->n_derived;
    l->kernel = arena_array(p->arena, funcs + 1, sizeof *l->kernel);
    l->derive = arena_array(p->arena, p->im->n_derived + 1, sizeof *l->derive);
    p->kernel = arena_array(p->arena, funcs + 1, sizeof *p->kernel);
    p->kernel_func = arena_array(p->arena, funcs + 1, sizeof *p->kernel_func);
    for (uint32_t i = 0; i < p->im->n_derived; i++) {
        l->derive[i] = derive_kernel(p, p->im->derived[i]);
        for (uint32_t j = 0; j < i; j++)
            if (func_same(module_func(m, l->derive[j]), module_func(m, l->derive[i]))) {
                l->derive[i] = l->derive[j]; /* layers of one kind share */
                break;
            }
        if (!lower_one(l, l->derive[i], m->param[p->im->derived[i]].init)) return false; /* made of it, node by node */
    }
    for (uint32_t i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY) continue;
        for (uint32_t j = 0; j < f->n_nodes; j++)
            if (!lower_one(l, callee_of(&f->node[j]), callee_of(&f->node[j]))) return false;
    }
    return plan_arena_bytes(m, &p->arena_bytes, l->d);
}

/* ---- calls -------------------------------------------------------------------------------------------- */

static Place param_place(const Program *p, ParamId id) {
    static const PlaceWhere where[] = {[SLOT_WEIGHTS] = PLACE_WEIGHTS, [SLOT_ADAPTER] = PLACE_ADAPTER, [SLOT_DERIVED] = PLACE_DERIVED};
    const Slot *s = &p->im->slot[id];
    if (s->where == SLOT_UNUSED) BUG("a parameter in use has no place");
    return (Place){where[s->where], p->m->param[id].dtype, s->offset, p->m->param[id].name};
}

static Place value_place(const Program *p, const Func *f, ValueId v) {
    ParamId id;
    if (value_param(f, v, &id)) return param_place(p, id);
    Place x = {.where = PLACE_ARG, .dtype = f->value[v].type.dtype};
    if (f->value[v].kind == VK_INPUT) {
        x.at = f->value[v].def;
        x.name = f->value[v].name;
        return x;
    }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (f->output[i] == v) {
            x.at = f->n_inputs + i;
            x.name = f->output_name[i];
            return x;
        }
    const Attr *place = node_attr(value_node(f, v), AT_place);
    int64_t at = place ? place->ints.v[f->value[v].index] : -1;
    if (at < 0) BUG("value %u of '%.*s' has no place", v, (int)f->name.n, f->name.p);
    x.where = PLACE_ARENA;
    x.at = (uint64_t)at;
    return x;
}

static CallList entry_calls(const Lowering *l, const Func *f, uint32_t index, uint32_t first) {
    const Program *p = l->p;
    KernelCall *call = arena_array(p->arena, f->n_nodes + 1, sizeof *call);
    const uint32_t *line = node_lines(p, f->id);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        Place *place = arena_array(p->arena, n->n_in + n->n_out + 1, sizeof *place);
        for (uint32_t j = 0; j < n->n_in; j++) place[j] = value_place(p, f, n->in[j]);
        for (uint32_t j = 0; j < n->n_out; j++) place[n->n_in + j] = value_place(p, f, n->out + j);
        call[i] = (KernelCall){l->kernel[callee_of(n)], place, n->n_in + n->n_out, n->origin, line ? line[i] : 0};
    }
    return (CallList){arena_printf(p->arena, "run_%u", index), f->name, call, f->n_nodes, first, func_line(p, f->id)};
}

static CallList *prepare_calls(const Lowering *l, uint32_t first) {
    const Program *p = l->p;
    uint32_t n = p->im->n_derived;
    if (!n) return NULL;
    KernelCall *call = arena_array(p->arena, n, sizeof *call);
    for (uint32_t i = 0; i < n; i++) {
        ParamId id = p->im->derived[i];
        const Func *init = module_func(p->m, p->m->param[id].init);
        Place *place = arena_array(p->arena, init->n_values + 1, sizeof *place);
        uint32_t k = 0;
        for (ValueId v = 0; v < init->n_values; v++)
            if (init->value[v].kind == VK_PARAM) place[k++] = param_place(p, init->value[v].def);
        place[k++] = param_place(p, id);
        call[i] = (KernelCall){l->kernel[l->derive[i]], place, k, p->m->param[id].name, func_line(p, init->id)};
    }
    CallList *c = arena_alloc(p->arena, sizeof *c);
    *c = (CallList){"prepare", str_c("prepare"), call, n, first, 0};
    return c;
}

/* ---- symbols ------------------------------------------------------------------------------------------- */

static void use_symbol(void *ctx, uint32_t sym) {
    ((uint32_t *)ctx)[sym] = 0;
}

static void number_attrs(const Program *p, const Node *n, uint32_t *slot) {
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const Attr *a = &n->attrs[i];
        if (attr_kind(a->key) == AK_DIM) dim_visit(p->m->dims, a->d, use_symbol, slot);
        for (uint32_t k = 0; attr_kind(a->key) == AK_DIMS && k < a->dims.n; k++) dim_visit(p->m->dims, a->dims.v[k], use_symbol, slot);
    }
}

/* Numbers the symbols that stand in a type or an attribute of an entry function or kernel; passes leave others behind. */
static void number_symbols(Lowering *l) {
    Program *p = l->p;
    uint32_t n = (uint32_t)dim_sym_count(p->m->dims);
    uint32_t *slot = arena_array(p->arena, n + 1, sizeof *slot), *symbol = arena_array(p->arena, n + 1, sizeof *symbol);
    memset(slot, 0xff, (n + 1) * sizeof *slot);
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        if (!f || (f->role != FR_ENTRY && !l->kernel[i])) continue;
        for (ValueId v = 0; v < f->n_values; v++)
            for (int a = 0; a < f->value[v].type.rank; a++) dim_visit(p->m->dims, f->value[v].type.dim[a], use_symbol, slot);
        for (uint32_t k = 0; k < f->n_nodes; k++) number_attrs(p, &f->node[k], slot);
    }
    for (uint32_t i = 0; i < n; i++)
        if (slot[i] == 0) {
            slot[i] = p->n_symbols;
            symbol[p->n_symbols++] = i;
        }
    p->slot = slot;
    p->symbol = symbol;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

Program *program_lower(Module *m, Image *im, const CodegenOptions *o, Diag *d) {
    Arena *a = arena_new();
    Program *p = arena_alloc(a, sizeof *p);
    *p = (Program){.m = m, .im = im, .o = o, .arena = a};
    if (o->ir_file) p->lines = module_print_lines(m, &p->ir, a);
    Lowering l = {.p = p, .d = d, .routines = {.m = m, .arena = a}};
    bool ok = lower_all(&l);
    p->n_routines = (uint32_t)l.routines.item.count;
    p->routine = arena_array(a, p->n_routines + 1, sizeof *p->routine);
    for (uint32_t i = 0; i < p->n_routines; i++) p->routine[i] = l.routines.item.item[i];
    vec_free(&l.routines.item);
    if (!ok) {
        program_free(p);
        return NULL;
    }
    im->scratch_bytes = p->scratch = (p->scratch + 63) & ~(int64_t)63;
    number_symbols(&l);
    const Func **entry = arena_array(a, m->n_funcs + 1, sizeof *entry);
    uint32_t calls = 0;
    p->function = arena_array(a, m->n_funcs + 1, sizeof *p->function);
    for (uint32_t i = 0; i < m->n_funcs; i++) {
        if (!m->func[i] || m->func[i]->role != FR_ENTRY) continue;
        entry[p->n_functions] = m->func[i];
        p->function[p->n_functions] = entry_calls(&l, m->func[i], p->n_functions, calls);
        calls += p->function[p->n_functions++].n_calls;
    }
    p->prepare = prepare_calls(&l, calls);
    if (o->embed_weights) p->weights = arena_printf(a, "%s_weights", o->prefix);
    program_fill_tables(p, entry);
    return p;
}

void program_free(Program *p) {
    for (uint32_t i = 0; i < p->n_kernels; i++) loop_kernel_free(p->kernel[i]);
    for (uint32_t i = 0; i < p->n_routines; i++)
        for (uint32_t k = 0; k < VECTOR_KINDS; k++) loop_kernel_free(p->routine[i]->version[k]);
    text_free(&p->ir);
    arena_free(p->arena);
}
