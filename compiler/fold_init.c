/* Big known results: a cone of nodes over frozen parameters and literals becomes a parameter with an init
 * function.
 *
 * Nothing is evaluated here: weights are streamed through their init functions when the weights file is
 * written. A cone never grows data past LIMIT_FOLD_ONE unless its operands are that big themselves. Equal cones
 * share a parameter. */
#include "fold_impl.h"

#include <string.h>

enum { LITERAL_MAX = 64, GROWTH = 8 /* of a cast from the narrowest to the widest type */ };

typedef struct Known {
    uint64_t hash;
    ParamId param;
    Text text; /* the init function without its head: equal text, equal value */
} Known;

typedef struct Inits {
    Module *m;
    const Func *old;
    Arena *scratch;
    bool *fixed;  /* per value of old: known before the run */
    bool *moving; /* per parameter there was at the start: depends on an adapter */
    uint32_t n_moving;
    int64_t *source; /* per value of old: bytes of the largest parameter or literal it is made of */
    int64_t grown;   /* bytes of parameters that are more than GROWTH times larger than that */
    ParamId *made; /* per value of old: the parameter that holds it, or NONE */
    Vec(Known) known;
    uint32_t *slot; /* hash table of indices into known, NONE free */
    size_t room;
} Inits;

/* Parameters made here depend on frozen ones only. */
static bool param_frozen(const Inits *x, ParamId p) {
    return p >= x->n_moving || !x->moving[p];
}

static void find_moving(Inits *x) {
    const Module *m = x->m;
    x->n_moving = m->n_params;
    x->moving = mem_alloc(m->n_params + 1);
    for (ParamId p = 0; p < m->n_params; p++)
        x->moving[p] = m->param[p].kind == PK_ADAPTER;
    for (bool more = true; more;) {
        more = false;
        for (ParamId p = 0; p < m->n_params; p++) {
            const Func *f = m->param[p].init == NONE ? NULL : module_func(m, m->param[p].init);
            for (ValueId v = 0; f && !x->moving[p] && v < f->n_values; v++)
                if (f->value[v].kind == VK_PARAM && x->moving[f->value[v].def])
                    more = x->moving[p] = true;
        }
    }
}

static bool type_bytes(const Module *m, const Type *t, int64_t *bytes) {
    int64_t d;
    *bytes = (int64_t)dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(m->dims, t->dim[i], &d) || !mul_i64(*bytes, d, bytes) || *bytes > MOEC_MAX_TENSOR)
            return false;
    return true;
}

static bool node_fixed(const Inits *x, const Node *n) {
    OpClass klass = op_info(n->op)->klass;
    int64_t bytes, operand, sum = 0;
    if (n->n_out != 1 || klass == OC_CALL || klass == OC_DYNAMIC || n->op == OP_dim || n->op == OP_append ||
        node_attr(n, AT_site) || !type_bytes(x->m, &x->old->value[n->out].type, &bytes))
        return false;
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == NONE)
            continue;
        if (!x->fixed[n->in[i]] || !type_bytes(x->m, &x->old->value[n->in[i]].type, &operand))
            return false;
        sum += operand;
        if (x->source[n->in[i]] > x->source[n->out])
            x->source[n->out] = x->source[n->in[i]];
    }
    if (n->op == OP_const)
        x->source[n->out] = bytes;
    return n->op == OP_const || bytes <= LIMIT_FOLD_ONE || bytes <= sum;
}

/* ---- one cone ---------------------------------------------------------------------------------------- */

typedef struct Cone {
    Vec(NodeId) node;
    Vec(ParamId) param;
} Cone;

static int by_id(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void sort_ids(uint32_t *v, size_t n) {
    for (size_t gap = n / 2; gap > 0; gap /= 2) /* shell sort */
        for (size_t i = gap; i < n; i++)
            for (size_t j = i; j >= gap && by_id(&v[j - gap], &v[j]) > 0; j -= gap) {
                uint32_t t = v[j];
                v[j] = v[j - gap];
                v[j - gap] = t;
            }
}

/* A parameter, or a value that one holds already: cones end there, so that long chains stay linear. */
static bool leaf(const Inits *x, ValueId v, ParamId *p) {
    *p = x->made[v];
    return *p != NONE || value_param(x->old, v, p);
}

static void cone_of(const Inits *x, ValueId root, bool *seen, Cone *c) {
    Vec(ValueId) todo = {0};
    Vec(ValueId) touched = {0};
    vec_push(&todo, root);
    while (todo.count) {
        ValueId v = todo.item[--todo.count];
        const Node *n = value_node(x->old, v);
        ParamId p;
        if (seen[v])
            continue;
        seen[v] = true;
        vec_push(&touched, v);
        if (leaf(x, v, &p))
            vec_push(&c->param, p);
        if (!n || leaf(x, v, &p))
            continue;
        vec_push(&c->node, x->old->value[v].def);
        for (uint32_t i = 0; i < n->n_in; i++)
            if (n->in[i] != NONE)
                vec_push(&todo, n->in[i]);
    }
    for (size_t i = 0; i < touched.count; i++)
        seen[touched.item[i]] = false;
    sort_ids(c->node.item, c->node.count);
    sort_ids(c->param.item, c->param.count);
    vec_free(&todo);
    vec_free(&touched);
}

static Func *init_func(Inits *x, const Cone *c, ValueId root, Str name, ValueId *map) {
    Func *f = func_begin(x->m, name, FR_INIT);
    for (size_t i = 0; i < c->node.count; i++) {
        const Node *n = &x->old->node[c->node.item[i]];
        ValueId *in = arena_array(x->scratch, n->n_in ? n->n_in : 1, sizeof *in);
        ParamId p;
        for (uint32_t k = 0; k < n->n_in; k++)
            in[k] = n->in[k] == NONE ? NONE : leaf(x, n->in[k], &p) ? func_param(x->m, f, p) : map[n->in[k]];
        map[n->out] = func_node_typed(x->m, f, n->op, in, n->n_in, n->attrs, n->n_attrs,
                                      &x->old->value[n->out].type, 1, n->origin);
    }
    func_output(x->m, f, map[root], str_c("value"));
    return f;
}

static Param param_for(const Inits *x, const Type *type, Str name) {
    Param p = {.name = name, .kind = PK_CONST, .dtype = type->dtype, .rank = type->rank, .init = NONE};
    for (int i = 0; i < type->rank; i++)
        CHECK(dim_is_const(x->m->dims, type->dim[i], &p.dim[i]));
    return p;
}

static Str cone_name(const Inits *x, const Cone *c, const Node *root) {
    if (!c->param.count)
        return str_c(arena_printf(x->m->arena, "const.%s", op_info(root->op)->name));
    Str base = x->m->param[c->param.item[0]].name;
    Text t = {0};
    text_str(&t, base);
    text_printf(&t, ".%s", op_info(root->op)->name);
    Str s = {arena_copy(x->m->arena, t.p, t.n), t.n};
    text_free(&t);
    return s;
}

/* The body of f as text: what its value is, whatever it is called. */
static Text body_text(const Inits *x, const Func *f) {
    Text all = {0}, body = {0};
    func_print(x->m, f, &all);
    const char *nl = memchr(all.p, '\n', all.n);
    size_t skip = nl ? (size_t)(nl - all.p) + 1 : 0;
    for (size_t i = skip, line = skip; i < all.n; i++) /* origins do not count */
        if (all.p[i] == '\n') {
            const char *at = all.p + line;
            size_t n = i - line;
            for (size_t k = 0; k + 3 < n; k++)
                if (!memcmp(at + k, "  !\"", 4)) {
                    n = k;
                    break;
                }
            text_add(&body, at, n);
            text_add(&body, "\n", 1);
            line = i + 1;
        }
    text_free(&all);
    return body;
}

/* The slot of an equal body, or a free one. */
static size_t find_known(Inits *x, const Known *k) {
    if (2 * x->known.count >= x->room) {
        x->room = x->room ? 2 * x->room : 64;
        mem_free(x->slot);
        x->slot = mem_alloc(x->room * sizeof *x->slot);
        memset(x->slot, 0xff, x->room * sizeof *x->slot);
        for (size_t i = 0; i < x->known.count; i++) {
            size_t at = x->known.item[i].hash & (x->room - 1);
            while (x->slot[at] != NONE)
                at = (at + 1) & (x->room - 1);
            x->slot[at] = (uint32_t)i;
        }
    }
    size_t at = k->hash & (x->room - 1);
    for (; x->slot[at] != NONE; at = (at + 1) & (x->room - 1)) {
        const Known *o = &x->known.item[x->slot[at]];
        if (o->hash == k->hash && str_eq((Str){o->text.p, o->text.n}, (Str){k->text.p, k->text.n}))
            break;
    }
    return at;
}

/* The parameter that holds a fixed value. */
static ParamId param_of(Inits *x, ValueId root, bool *seen, ValueId *map) {
    const Value *value = &x->old->value[root];
    const Node *n = value_node(x->old, root);
    Cone c = {{0}, {0}};
    if (n->op == OP_const) {
        Param p = param_for(x, &value->type, value->name.n ? value->name : str_c("const"));
        p.data = node_attr(n, AT_value)->t.data;
        return module_param(x->m, p);
    }
    cone_of(x, root, seen, &c);
    Str name = cone_name(x, &c, n);
    Param p = param_for(x, &value->type, name);
    for (size_t i = 0; i < c.param.count; i++)
        if (x->m->param[c.param.item[i]].kind == PK_FROZEN)
            p.kind = PK_FROZEN;
    Func *f = init_func(x, &c, root, name, map);
    vec_free(&c.node);
    vec_free(&c.param);
    Known k = {.text = body_text(x, f)};
    k.hash = hash_bytes(0, k.text.p, k.text.n);
    size_t at = find_known(x, &k);
    if (x->slot[at] != NONE) {
        text_free(&k.text);
        return x->known.item[x->slot[at]].param;
    }
    p.init = func_end(x->m, f, NONE);
    k.param = module_param(x->m, p);
    f->name = x->m->param[k.param].name; /* no other parameter has it */
    x->slot[at] = (uint32_t)x->known.count;
    vec_push(&x->known, k);
    return k.param;
}

/* ---- a function --------------------------------------------------------------------------------------- */

/* Fixed values that stay nodes: small literals, and what costs nothing to make. */
static bool stays_node(const Inits *x, const Node *n) {
    int64_t bytes, one = (int64_t)dtype_bytes(x->old->value[n->out].type.dtype);
    if (n->op == OP_iota || n->op == OP_broadcast)
        return true;
    return n->op == OP_const && type_bytes(x->m, &x->old->value[n->out].type, &bytes) &&
           bytes <= LITERAL_MAX * one;
}

static ValueId use(Inits *x, Remap *r, ValueId v, bool *seen, ValueId *map) {
    const Node *n = v == NONE ? NULL : value_node(x->old, v);
    if (!n || !x->fixed[v] || r->map[v] != NONE)
        return v == NONE ? NONE : remap_value(r, v);
    if (!stays_node(x, n)) {
        x->made[v] = param_of(x, v, seen, map);
        remap_set(r, v, func_param(x->m, r->f, x->made[v]));
        return remap_value(r, v);
    }
    if (n->n_in) /* a broadcast: its operand is not one */
        use(x, r, n->in[0], seen, map);
    remap_node(r, n);
    return remap_value(r, v);
}

static void count_growth(Inits *x, ValueId v, bool *counted) {
    const Node *n = v == NONE || !x->fixed[v] || counted[v] ? NULL : value_node(x->old, v);
    int64_t bytes;
    if (!n || stays_node(x, n) || !type_bytes(x->m, &x->old->value[v].type, &bytes) || bytes / GROWTH <= x->source[v])
        return;
    counted[v] = true;
    x->fixed[v] = x->grown + bytes <= LIMIT_FOLD_ALL;
    x->grown += x->fixed[v] ? bytes : 0;
}

/* What this function adds to LIMIT_FOLD_ALL, in the order that parameters are made backwards: a value beyond it stays a node,
 * and what it is made of comes next. */
static void limit_growth(Inits *x) {
    const Func *f = x->old;
    bool *counted = arena_array(x->scratch, f->n_values + 1, sizeof *counted);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        count_growth(x, f->output[i], counted);
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        for (uint32_t k = 0; k < n->n_in && !(n->n_out == 1 && x->fixed[n->out]); k++)
            count_growth(x, n->in[k], counted);
    }
}

static void inits_func(Inits *x, const Func *old) {
    Remap r = remap_begin(x->m, x->scratch, old);
    bool *seen = arena_array(x->scratch, old->n_values + 1, sizeof *seen);
    ValueId *map = arena_array(x->scratch, old->n_values + 1, sizeof *map);
    x->old = old;
    x->fixed = arena_array(x->scratch, old->n_values + 1, sizeof *x->fixed);
    x->made = arena_array(x->scratch, old->n_values + 1, sizeof *x->made);
    x->source = arena_array(x->scratch, old->n_values + 1, sizeof *x->source);
    for (ValueId v = 0; v < old->n_values; v++) {
        ParamId p;
        x->made[v] = NONE;
        x->fixed[v] = value_param(old, v, &p) && param_frozen(x, p);
        if (x->fixed[v])
            type_bytes(x->m, &old->value[v].type, &x->source[v]);
    }
    for (uint32_t i = 0; i < old->n_nodes; i++)
        if (node_fixed(x, &old->node[i]))
            x->fixed[old->node[i].out] = true;
    limit_growth(x);
    for (uint32_t i = 0; i < old->n_nodes; i++) {
        const Node *n = &old->node[i];
        if (n->n_out == 1 && x->fixed[n->out])
            continue;
        for (uint32_t k = 0; k < n->n_in; k++)
            use(x, &r, n->in[k], seen, map);
        remap_node(&r, n);
    }
    for (uint32_t i = 0; i < old->n_outputs; i++)
        use(x, &r, old->output[i], seen, map);
    remap_end(&r);
}

void fold_inits(Module *m, const FuncId *funcs, uint32_t n_funcs) {
    Inits x = {.m = m};
    find_moving(&x);
    for (uint32_t i = 0; i < n_funcs; i++) {
        x.scratch = arena_new();
        inits_func(&x, m->func[funcs[i]]);
        arena_free(x.scratch);
    }
    for (size_t i = 0; i < x.known.count; i++)
        text_free(&x.known.item[i].text);
    vec_free(&x.known);
    mem_free(x.slot);
    mem_free(x.moving);
}
