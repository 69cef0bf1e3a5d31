/* Modules, parameters and functions: tables from ops.def, building, and the skeleton of passes.
 *
 * A Func grows in its module's arena. func_end compacts: it keeps nodes whose results reach an output and
 * renumbers values in order of definition, inputs first. */
#include "ir.h"

#include <string.h>

/* ---- tables ------------------------------------------------------------------------------------- */

static const OpInfo infos[OP_COUNT] = {
#define LIST(...)                                                                                            \
    { __VA_ARGS__ }
#define COUNT(...) (uint32_t)(sizeof((AttrKey[]){AT_COUNT, __VA_ARGS__}) / sizeof(AttrKey)) - 1
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc)                               \
    {#name, in_min, in_max, outs, COUNT attrs, LIST attrs, OC_##klass, GRAD_##grad, doc},
#include "ops.def"
#undef LIST
#undef COUNT
};

const OpInfo *op_info(Op op) {
    return &infos[op];
}

bool op_find(Str name, Op *out) {
    for (int i = 0; i < OP_COUNT; i++)
        if (str_is(name, infos[i].name)) {
            *out = (Op)i;
            return true;
        }
    return false;
}

typedef struct AttrInfo {
    const char *name;
    AttrKind kind;
} AttrInfo;

static const AttrInfo attr_infos[AT_COUNT] = {
#define ATTR(name, kind, doc) {#name, AK_##kind},
#include "ops.def"
};

const char *attr_name(AttrKey k) {
    return attr_infos[k].name;
}

bool attr_annotates(AttrKey k) {
    return k == AT_site || k == AT_place || k == AT_adjoint || k == AT_router || k == AT_balance || k == AT_z;
}

AttrKind attr_kind(AttrKey k) {
    return attr_infos[k].kind;
}

bool attr_find(Str name, AttrKey *out) {
    for (int i = 0; i < AT_COUNT; i++)
        if (str_is(name, attr_infos[i].name)) {
            *out = (AttrKey)i;
            return true;
        }
    return false;
}

/* ---- module ---------------------------------------------------------------------------------------- */

Module *module_new(void) {
    Arena *a = arena_new();
    Module *m = arena_alloc(a, sizeof *m);
    m->arena = a;
    m->dim_arena = arena_new();
    m->dims = dim_table_new(m->dim_arena);
    return m;
}

void module_free(Module *m) {
    if (!m)
        return;
    arena_free(m->dim_arena);
    arena_free(m->arena);
}

/* Doubles an arena array; the old one is left behind. */
static void *more(Arena *a, void *items, uint32_t count, uint32_t *room, size_t size) {
    if (count < *room)
        return items;
    *room = *room ? *room * 2 : 16;
    void *p = arena_array(a, *room, size);
    if (count)
        memcpy(p, items, count * size);
    return p;
}

Func *module_func(const Module *m, FuncId id) {
    return id < m->n_funcs ? m->func[id] : NULL;
}

Func *module_find(const Module *m, const char *name) {
    for (uint32_t i = 0; i < m->n_funcs; i++)
        if (m->func[i] && str_is(m->func[i]->name, name))
            return m->func[i];
    return NULL;
}

/* Where a name is in the table of names, or would be. Open addressing, at most half full. */
static uint32_t param_slot(const Module *m, Str name) {
    uint32_t i = (uint32_t)hash_bytes(0, name.p, name.n) & (m->n_slots - 1);
    while (m->param_slot[i] && !str_eq(m->param[m->param_slot[i] - 1].name, name))
        i = (i + 1) & (m->n_slots - 1);
    return i;
}

bool module_find_param(const Module *m, Str name, ParamId *out) {
    uint32_t found = m->n_slots ? m->param_slot[param_slot(m, name)] : 0;
    if (found)
        *out = found - 1;
    return found != 0;
}

static void param_slots_grow(Module *m) {
    if (2 * (m->n_params + 1) <= m->n_slots)
        return;
    m->n_slots = m->n_slots ? 2 * m->n_slots : 64;
    m->param_slot = arena_array(m->arena, m->n_slots, sizeof *m->param_slot);
    for (uint32_t i = 0; i < m->n_params; i++)
        m->param_slot[param_slot(m, m->param[i].name)] = i + 1;
}

ParamId module_param(Module *m, Param p) {
    ParamId first, other;
    Str name = {arena_strndup(m->arena, p.name.p, p.name.n), p.name.n};
    bool taken = module_find_param(m, name, &first);
    while (taken) {
        name = str_c(arena_printf(m->arena, "%.*s.%u", (int)p.name.n, p.name.p, ++m->param[first].namesakes));
        taken = module_find_param(m, name, &other);
    }
    p.name = name;
    p.namesakes = 0;
    m->param = more(m->arena, m->param, m->n_params, &m->room_params, sizeof *m->param);
    param_slots_grow(m);
    m->param_slot[param_slot(m, name)] = m->n_params + 1;
    m->param[m->n_params] = p;
    return m->n_params++;
}

/* ---- functions ---------------------------------------------------------------------------------------- */

Func *func_begin(Module *m, Str name, FuncRole role) {
    Func *f = arena_alloc(m->arena, sizeof *f);
    f->id = NONE;
    f->name = (Str){arena_strndup(m->arena, name.p, name.n), name.n};
    f->role = role;
    return f;
}

static ValueId value_new(Module *m, Func *f, Type type, ValueKind kind, uint32_t def, uint32_t index,
                         Str name) {
    f->value = more(m->arena, f->value, f->n_values, &f->room_values, sizeof *f->value);
    f->value[f->n_values] = (Value){type, kind, def, index, name};
    return f->n_values++;
}

ValueId func_input(Module *m, Func *f, Str name, Type type) {
    Str copy = {arena_strndup(m->arena, name.p, name.n), name.n};
    ValueId v = value_new(m, f, type, VK_INPUT, f->n_inputs, 0, copy);
    f->input = more(m->arena, f->input, f->n_inputs, &f->room_inputs, sizeof *f->input);
    f->input[f->n_inputs++] = v;
    return v;
}

/* Makes room for p; after func_end, which renumbers, the table is made anew. */
static void param_values_grow(Module *m, Func *f, ParamId p) {
    if (p < f->room_params)
        return;
    uint32_t room = f->room_params ? f->room_params : 16;
    while (room <= p)
        room *= 2;
    ValueId *table = arena_array(m->arena, room, sizeof *table);
    for (ValueId v = 0; v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM && f->value[v].def < room)
            table[f->value[v].def] = v + 1;
    f->param_value = table;
    f->room_params = room;
}

ValueId func_param(Module *m, Func *f, ParamId p) {
    param_values_grow(m, f, p);
    if (f->param_value[p])
        return f->param_value[p] - 1;
    f->param_value[p] = f->n_values + 1;
    const Param *x = &m->param[p];
    Type t = {.dtype = x->dtype, .rank = x->rank};
    for (int i = 0; i < x->rank; i++)
        t.dim[i] = dim_const(m->dims, x->dim[i]);
    return value_new(m, f, t, VK_PARAM, p, 0, x->name);
}

static const Attr *copy_attrs(Module *m, const Attr *attrs, uint32_t n) {
    if (n == 0)
        return NULL;
    Attr *copy = arena_copy(m->arena, attrs, n * sizeof *attrs);
    for (uint32_t i = 0; i < n; i++) {
        Attr *a = &copy[i];
        switch (attr_kind(a->key)) {
        case AK_STR:
            a->s.p = arena_strndup(m->arena, a->s.p, a->s.n);
            break;
        case AK_INTS:
            a->ints.v = arena_copy(m->arena, a->ints.v, a->ints.n * sizeof *a->ints.v);
            break;
        case AK_DIMS:
            a->dims.v = arena_copy(m->arena, a->dims.v, a->dims.n * sizeof *a->dims.v);
            break;
        default:
            break;
        }
    }
    return copy;
}

static ValueId node_new(Module *m, Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs,
                        uint32_t n_attrs, const Type *types, uint32_t n_out, Str origin) {
    f->node = more(m->arena, f->node, f->n_nodes, &f->room_nodes, sizeof *f->node);
    Node *n = &f->node[f->n_nodes];
    *n = (Node){.op = op, .n_in = n_in, .n_out = n_out, .n_attrs = n_attrs, .origin = origin};
    n->in = n_in ? arena_copy(m->arena, in, n_in * sizeof *in) : NULL;
    n->attrs = copy_attrs(m, attrs, n_attrs);
    n->out = f->n_values;
    for (uint32_t i = 0; i < n_out; i++)
        value_new(m, f, types[i], VK_NODE, f->n_nodes, i, (Str){NULL, 0});
    f->n_nodes++;
    return n->out;
}

enum { MAX_OUTS = 65536 };

uint32_t op_outs(const Module *m, const Attr *attrs, uint32_t n_attrs) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < n_attrs; i++) {
        uint32_t n = 0;
        if (attr_kind(attrs[i].key) == AK_FUNC) {
            const Func *callee = module_func(m, (FuncId)attrs[i].i);
            n = callee ? callee->n_outputs : 0;
        } else if (attrs[i].key == AT_k && attrs[i].i > 0)
            n = attrs[i].i < MAX_OUTS ? (uint32_t)attrs[i].i : MAX_OUTS;
        if (n > most)
            most = n;
    }
    return most;
}

ValueId func_node(Module *m, Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs,
                  uint32_t n_attrs, Str origin) {
    Type few[8], *types = few;
    const char *why = NULL;
    uint32_t n_out = op_info(op)->outs < 0 ? op_outs(m, attrs, n_attrs) : 0;
    Arena *scratch = n_out > 8 ? arena_new() : NULL;
    if (scratch)
        types = arena_array(scratch, n_out, sizeof *types);
    if (!node_infer(m, f, op, in, n_in, attrs, n_attrs, types, &n_out, &why))
        BUG("building '%s' in '%.*s': %s", op_info(op)->name, (int)f->name.n, f->name.p, why);
    ValueId v = node_new(m, f, op, in, n_in, attrs, n_attrs, types, n_out, origin);
    arena_free(scratch);
    return v;
}

ValueId func_node_typed(Module *m, Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs,
                        uint32_t n_attrs, const Type *types, uint32_t n_out, Str origin) {
    return node_new(m, f, op, in, n_in, attrs, n_attrs, types, n_out, origin);
}

void func_output(Module *m, Func *f, ValueId v, Str name) {
    uint32_t room = f->room_outputs;
    f->output = more(m->arena, f->output, f->n_outputs, &room, sizeof *f->output);
    f->output_name = more(m->arena, f->output_name, f->n_outputs, &f->room_outputs, sizeof *f->output_name);
    f->output[f->n_outputs] = v;
    f->output_name[f->n_outputs++] = (Str){arena_strndup(m->arena, name.p, name.n), name.n};
}

/* Marks what outputs need, walking nodes backwards. */
static bool *live_values(Arena *a, const Func *f) {
    bool *live = arena_array(a, f->n_values + 1, sizeof *live);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        live[f->output[i]] = true;
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        bool any = false;
        for (uint32_t j = 0; j < n->n_out; j++)
            any = any || live[n->out + j];
        for (uint32_t j = 0; any && j < n->n_in; j++)
            if (n->in[j] != NONE)
                live[n->in[j]] = true;
        if (any)
            for (uint32_t j = 0; j < n->n_out; j++)
                live[n->out + j] = true;
    }
    return live;
}

static void compact(Module *m, Func *f) {
    Arena *scratch = arena_new();
    bool *live = live_values(scratch, f);
    ValueId *map = arena_array(scratch, f->n_values + 1, sizeof *map);
    Value *value = arena_array(m->arena, f->n_values + 1, sizeof *value);
    Node *node = arena_array(m->arena, f->n_nodes + 1, sizeof *node);
    uint32_t values = 0, nodes = 0;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        map[f->input[i]] = values;
        value[values] = f->value[f->input[i]];
        f->input[i] = values++;
    }
    for (ValueId v = 0; v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM && live[v]) {
            map[v] = values;
            value[values++] = f->value[v];
        }
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        Node n = f->node[i];
        if (n.n_out && !live[n.out])
            continue;
        ValueId *in = (ValueId *)n.in;
        for (uint32_t j = 0; j < n.n_in; j++)
            if (in[j] != NONE)
                in[j] = map[in[j]];
        for (uint32_t j = 0; j < n.n_out; j++) {
            map[n.out + j] = values + j;
            value[values + j] = f->value[n.out + j];
            value[values + j].def = nodes;
        }
        n.out = values;
        values += n.n_out;
        node[nodes++] = n;
    }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        f->output[i] = map[f->output[i]];
    f->value = value;
    f->node = node;
    f->n_values = f->room_values = values;
    f->n_nodes = f->room_nodes = nodes;
    f->room_params = 0;
    arena_free(scratch);
}

FuncId func_end(Module *m, Func *f, FuncId replace) {
    compact(m, f);
    if (replace != NONE) {
        CHECK(replace < m->n_funcs);
        f->id = replace;
        m->func[replace] = f;
        return replace;
    }
    m->func = more(m->arena, m->func, m->n_funcs, &m->room_funcs, sizeof *m->func);
    f->id = m->n_funcs;
    m->func[m->n_funcs] = f;
    return m->n_funcs++;
}

/* ---- reading ---------------------------------------------------------------------------------------------
 */

const Attr *node_attr(const Node *n, AttrKey k) {
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (n->attrs[i].key == k)
            return &n->attrs[i];
    return NULL;
}

int64_t node_int(const Node *n, AttrKey k, int64_t otherwise) {
    const Attr *a = node_attr(n, k);
    return a ? a->i : otherwise;
}

double node_float(const Node *n, AttrKey k, double otherwise) {
    const Attr *a = node_attr(n, k);
    return a ? a->f : otherwise;
}

const Node *value_node(const Func *f, ValueId v) {
    return v != NONE && f->value[v].kind == VK_NODE ? &f->node[f->value[v].def] : NULL;
}

bool value_is(const Func *f, ValueId v, Op op) {
    const Node *n = value_node(f, v);
    return n && n->op == op;
}

bool value_param(const Func *f, ValueId v, ParamId *p) {
    if (v == NONE || f->value[v].kind != VK_PARAM)
        return false;
    *p = f->value[v].def;
    return true;
}

bool value_scalar(const Module *m, const Func *f, ValueId v, double *out) {
    ParamId p;
    int64_t count;
    Tensor t;
    if (value_is(f, v, OP_const))
        t = node_attr(value_node(f, v), AT_value)->t;
    else if (value_param(f, v, &p) && m->param[p].data && m->param[p].kind != PK_ADAPTER) {
        t = (Tensor){.dtype = m->param[p].dtype, .rank = m->param[p].rank, .data = (void *)m->param[p].data};
        memcpy(t.dim, m->param[p].dim, sizeof t.dim);
    } else
        return false;
    if (!tensor_count(&t, &count) || count != 1)
        return false;
    *out = tensor_get_f64(&t, 0);
    return true;
}

uint32_t *func_uses(Arena *a, const Func *f) {
    uint32_t *uses = arena_array(a, f->n_values + 1, sizeof *uses);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (f->node[i].in[j] != NONE)
                uses[f->node[i].in[j]]++;
    for (uint32_t i = 0; i < f->n_outputs; i++)
        uses[f->output[i]]++;
    return uses;
}

/* ---- copying
 * ------------------------------------------------------------------------------------------------ */

Remap remap_begin(Module *m, Arena *scratch, const Func *old) {
    Remap r = {.m = m, .old = old, .f = func_begin(m, old->name, old->role)};
    r.map = arena_array(scratch, old->n_values + 1, sizeof *r.map);
    memset(r.map, 0xff, (old->n_values + 1) * sizeof *r.map);
    for (uint32_t i = 0; i < old->n_inputs; i++) {
        const Value *v = &old->value[old->input[i]];
        r.map[old->input[i]] = func_input(m, r.f, v->name, v->type);
    }
    return r;
}

ValueId remap_value(Remap *r, ValueId v) {
    if (v == NONE)
        return NONE;
    if (r->map[v] == NONE && r->old->value[v].kind == VK_PARAM)
        r->map[v] = func_param(r->m, r->f, r->old->value[v].def);
    return r->map[v];
}

void remap_set(Remap *r, ValueId old_value, ValueId now) {
    r->map[old_value] = now;
    if (now != NONE && r->f->value[now].name.n == 0)
        r->f->value[now].name = r->old->value[old_value].name;
}

ValueId remap_node(Remap *r, const Node *n) {
    Arena *scratch = arena_new();
    ValueId *in = arena_array(scratch, n->n_in + 1, sizeof *in);
    for (uint32_t i = 0; i < n->n_in; i++)
        in[i] = remap_value(r, n->in[i]);
    uint32_t room = n->n_out > 8 ? n->n_out : 8, n_out = room;
    Type *types = arena_array(scratch, room, sizeof *types);
    for (uint32_t i = 0; i < n->n_out; i++)
        types[i] = r->old->value[n->out + i].type;
    const char *why;
    /* results keep their types where operands do; where operands were retyped, infer again if the op can */
    bool retyped = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE && !type_eq(&r->old->value[n->in[i]].type, &r->f->value[in[i]].type))
            retyped = true;
    ValueId v;
    Type *again = arena_array(scratch, room, sizeof *again);
    if (retyped &&
        node_infer(r->m, r->f, n->op, in, n->n_in, n->attrs, n->n_attrs, again, &n_out, &why) &&
        n_out == n->n_out)
        v = func_node_typed(r->m, r->f, n->op, in, n->n_in, n->attrs, n->n_attrs, again, n_out, n->origin);
    else
        v = func_node_typed(r->m, r->f, n->op, in, n->n_in, n->attrs, n->n_attrs, types, n->n_out, n->origin);
    for (uint32_t i = 0; i < n->n_out; i++)
        remap_set(r, n->out + i, v + i);
    arena_free(scratch);
    return v;
}

FuncId remap_end(Remap *r) {
    for (uint32_t i = 0; i < r->old->n_outputs; i++)
        func_output(r->m, r->f, remap_value(r, r->old->output[i]), r->old->output_name[i]);
    return func_end(r->m, r->f, r->old->id);
}

static bool made_of(const Module *m, ParamId p, ParamTest *is, int depth) {
    const Param *q = &m->param[p];
    if (is(q))
        return true;
    const Func *f = q->data || q->init == NONE || depth > 16 ? NULL : module_func(m, q->init);
    for (ValueId v = 0; f && v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM && made_of(m, f->value[v].def, is, depth + 1))
            return true;
    return false;
}

bool param_made_of(const Module *m, ParamId p, ParamTest *is) {
    return made_of(m, p, is, 0);
}

static bool is_adapter(const Param *p) {
    return p->kind == PK_ADAPTER;
}

bool param_adapts(const Module *m, ParamId p) {
    return param_made_of(m, p, is_adapter);
}
