/* Pass `bind`: extents become constants or bounded symbols, and shape arithmetic is evaluated away.
 *
 * A forward walk of every entry function builds a new one from abstract values (bind_impl.h). Dynamic ops
 * turn into static ones, the body that an `if` takes is put in place (both, and a select, when only the run
 * knows), f16 is computed in f32 with casts at the function's boundary, inputs with a given value become
 * constants. Where two symbols must agree, the later one is replaced by the other and the walk starts again;
 * each restart removes a symbol, so there are few, and gives back the memory of what was built.
 *
 * Bounds of symbols nobody bounded: 1..64 for a symbol that is axis 0 of two or more inputs of one function
 * (a batch), else 1..1024. */
#include "bind_impl.h"

#include <string.h>

enum { BATCH_MAX = 64, EXTENT_MAX = 1024 };

static BindRule *const bind_rules[OP_COUNT] = {
#undef BIND_SOURCE
#undef BIND_POINTWISE
#undef BIND_MOVE
#undef BIND_REDUCE
#undef BIND_CONTRACT
#undef BIND_GATHER
#undef BIND_RANDOM
#undef BIND_CALL
#define BIND_SOURCE(name)
#define BIND_POINTWISE(name)
#define BIND_MOVE(name)
#define BIND_REDUCE(name)
#define BIND_CONTRACT(name)
#define BIND_GATHER(name)
#define BIND_RANDOM(name)
#define BIND_CALL(name)
#define BIND_DYNAMIC(name)                                                     [OP_##name] = bind_##name,
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) BIND_##klass(name)
#include "ops.def"
};

static bool bind_body(Binder *b, const Func *old, const BVal *args, BVal *out);

/* ---- bounds ---- */

/* Symbols that are axis 0 of two or more inputs of one function: a flag a symbol. */
static bool *find_batches(const Module *m) {
    size_t count = dim_sym_count(m->dims);
    bool *batch = mem_alloc(count + 1);
    FuncId *seen =
        mem_alloc((count + 1) * sizeof *seen); /* 1 + the last function that has the symbol there */
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        for (uint32_t k = 0; f && f->role == FR_ENTRY && k < f->n_inputs; k++) {
            const Type *ty = &f->value[f->input[k]].type;
            uint32_t s;
            if (ty->rank < 1 || !dim_as_sym(m->dims, ty->dim[0], &s))
                continue;
            batch[s] |= seen[s] == i + 1;
            seen[s] = i + 1;
        }
    }
    mem_free(seen);
    return batch;
}

/* Names that `derive` gives the extents of any T5, whatever an exporter calls them. It bounds them itself; here the
 * bounds of extents that nobody named are widened for them. */
static bool is_canonical(Str name) {
    return str_is(name, "B") || str_is(name, "S") || str_is(name, "T");
}

/* A T5's graphs, by the names import gives them: `derive` is to come. */
static bool is_t5(const Binder *b) {
    return module_find(b->m, "model") || (module_find(b->m, "encoder") && module_find(b->m, "decoder"));
}

static int64_t default_bound(const Binder *b, bool batch) {
    int64_t hi = batch ? BATCH_MAX : EXTENT_MAX;
    for (uint32_t i = 0; i < b->o->n_dims && is_t5(b); i++)
        if (is_canonical(b->o->dim[i].name) && str_is(b->o->dim[i].name, "B") == batch && b->o->dim[i].hi > hi)
            hi = b->o->dim[i].hi;
    return hi;
}

static bool set_bounds(Binder *b) {
    DimTable *t = b->m->dims;
    size_t count = dim_sym_count(t);
    for (uint32_t i = 0; i < b->o->n_dims; i++) {
        const DimBound *want = &b->o->dim[i];
        uint32_t s = 0;
        while (s < count && !str_eq(dim_sym_at(t, s)->name, want->name))
            s++;
        bool canonical = s == count && is_t5(b) && is_canonical(want->name);
        if (s == count && !canonical)
            return diag_error(b->d, DIAG_DIM_BOUNDS, b->file,
                              "--dim %s: the model has no such symbolic extent", diag_show(b->d, want->name));
        if (want->lo < 0 || want->hi < want->lo || want->hi > MOEC_MAX_TENSOR)
            return diag_error(b->d, DIAG_DIM_BOUNDS, b->file, "--dim %s: the bounds are not 0 <= lo <= hi",
                              diag_show(b->d, want->name));
        if (canonical)
            continue;
        dim_sym_at(t, s)->lo = want->lo;
        dim_sym_at(t, s)->hi = want->hi;
    }
    bool *batch = find_batches(b->m);
    for (uint32_t s = 0; s < count; s++) {
        DimSym *sym = dim_sym_at(t, s);
        Dim by = DIM_BAD;
        if (sym->hi == DIM_UNBOUNDED) {
            sym->lo = sym->lo > 1 ? sym->lo : 1;
            sym->hi = default_bound(b, batch[s]);
            sym->hi = sym->hi < sym->lo ? sym->lo : sym->hi;
        }
        if (sym->lo == sym->hi)
            by = dim_const(t, sym->lo);
        vec_push(&b->subst, by);
    }
    mem_free(batch);
    return true;
}

/* ---- nodes ---- */

static Tensor widened(Binder *b, Tensor t) {
    Tensor w = t;
    int64_t n;
    w.dtype = DT_F32;
    CHECK(tensor_alloc(b->m->arena, &w) && tensor_count(&t, &n));
    for (int64_t i = 0; i < n; i++)
        tensor_set_f64(&w, i, tensor_get_f64(&t, i));
    return w;
}

/* Attributes with the substitution applied and f16 promoted. */
static const Attr *attrs_now(Binder *b, const Node *n) {
    Attr *a = bind_copy(b, n->attrs, n->n_attrs, sizeof *a);
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (attr_kind(a[i].key) == AK_DIM)
            a[i].d = bind_canon(b, a[i].d);
        if (attr_kind(a[i].key) == AK_DIMS) {
            Dim *d = bind_copy(b, a[i].dims.v, a[i].dims.n, sizeof *d);
            for (uint32_t k = 0; k < a[i].dims.n; k++)
                d[k] = bind_canon(b, d[k]);
            a[i].dims.v = d;
        }
        if (attr_kind(a[i].key) == AK_TENSOR && a[i].t.dtype == DT_F16)
            a[i].t = widened(b, a[i].t);
        if (attr_kind(a[i].key) == AK_DTYPE && a[i].i == DT_F16)
            a[i].i = DT_F32;
    }
    return a;
}

static const Func *callee(const Binder *b, const Node *n, AttrKey key) {
    const Attr *a = node_attr(n, key);
    CHECK(a && a->i >= 0 && (uint64_t)a->i < b->m->n_funcs);
    const Func *f = b->m->func[a->i];
    CHECK(f);
    return f;
}

static bool inline_body(Binder *b, const Func *f, const BVal *args, uint32_t n_args, BVal *out,
                        uint32_t n_out) {
    if (f->n_inputs != n_args || f->n_outputs != n_out)
        return diag_error(b->d, DIAG_ONNX_BRANCH, b->file,
                          "the body takes %u values and gives %u, not %u and %u", f->n_inputs, f->n_outputs,
                          n_args, n_out);
    return bind_body(b, f, args, out);
}

/* A condition without a value: both branches are computed and one result is chosen. */
static bool bind_if(Binder *b, const Node *n, const BVal *in, BVal *out) {
    static const AttrKey keys[2] = {AT_then_func, AT_else_func};
    Tensor cond;
    uint32_t n_args = n->n_in - 1, n_out = n->n_out;
    if (bound_constant(b, in[0], &cond))
        return inline_body(b, callee(b, n, keys[tensor_get_i64(&cond, 0) == 0]), in + 1, n_args, out, n_out);

    BVal *branch[2], scalar;
    const Dims none = {.n = 0};
    for (int k = 0; k < 2; k++) {
        branch[k] = arena_array(b->scratch, n_out + 1, sizeof(BVal));
        if (!inline_body(b, callee(b, n, keys[k]), in + 1, n_args, branch[k], n_out))
            return false;
    }
    if ((scalar = bind_to_shape(b, in[0], &none)) == BV_NONE)
        return false;
    for (uint32_t i = 0; i < n_out; i++) {
        BVal pair[3] = {scalar, branch[0][i], branch[1][i]};
        const Type x = bound_at(b, pair[1])->type, y = bound_at(b, pair[2])->type;
        bool half = bound_at(b, pair[1])->half && bound_at(b, pair[2])->half;
        if (x.dtype != y.dtype || x.rank != y.rank)
            return diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file,
                              "the branches give result %u different types; give the condition a value", i);
        for (int k = 0; k < x.rank; k++)
            if (!bind_unify(b, x.dim[k], y.dim[k], "the branches of a condition without a value"))
                return false;
        if (!bind_static(b, OP_select, pair, 3, NULL, 0, NULL, half, &out[i], 1))
            return false;
    }
    return true;
}

static bool bind_call(Binder *b, const Node *n, const BVal *in, BVal *out) {
    const Func *f = callee(b, n, AT_func);
    if (f->role == FR_BODY)
        return inline_body(b, f, in, n->n_in, out, n->n_out);
    Type *types = arena_array(b->scratch, n->n_out + 1, sizeof *types);
    ValueId *ids = arena_array(b->scratch, n->n_in + 1, sizeof *ids);
    for (uint32_t i = 0; i < n->n_in; i++)
        ids[i] = in[i] == BV_NONE ? NONE : bound_id(b, in[i]);
    for (uint32_t i = 0; i < n->n_out; i++)
        types[i] = bind_canon_type(b, f->value[f->output[i]].type);
    ValueId v =
        func_node_typed(b->m, b->f, OP_call, ids, n->n_in, n->attrs, n->n_attrs, types, n->n_out, b->origin);
    for (uint32_t i = 0; i < n->n_out; i++)
        out[i] = bound_new(b, types[i], v + i);
    return true;
}

/* Whether a result counts as computed in f16 (see bind_static.c). */
static bool computed_half(Binder *b, const Func *old, const Node *n, const BVal *in) {
    bool moved = op_info(n->op)->klass == OC_MOVE || n->op == OP_cast || op_info(n->op)->klass == OC_DYNAMIC;
    if (moved && n->n_in && in[0] != BV_NONE && dtype_is_float(bound_at(b, in[0])->type.dtype))
        return bound_at(b, in[0])->half;
    return n->n_out == 1 && old->value[n->out].type.dtype == DT_F16;
}

static bool bind_node(Binder *b, const Func *old, const Node *n, const BVal *in, BVal *out) {
    if (n->op == OP_if || n->op == OP_call)
        return n->op == OP_if ? bind_if(b, n, in, out) : bind_call(b, n, in, out);
    Node now = *n;
    now.attrs = attrs_now(b, n);
    if (bind_rules[n->op])
        return bind_rules[n->op](b, &now, in, out);
    Type given = bind_canon_type(b, old->value[n->out].type);
    bool stated = n->op == OP_iota || n->op == OP_reshape || n->op == OP_broadcast || n->op == OP_slice || n->op == OP_random ||
                  n->op == OP_unpack;
    bool half = computed_half(b, old, n, in);
    return bind_static(b, n->op, in, n->n_in, now.attrs, n->n_attrs, stated ? &given : NULL, half, out,
                       n->n_out);
}

static BVal bind_param(Binder *b, ParamId p) {
    const Param *param = &b->m->param[p];
    ValueId id = func_param(b->m, b->f, p);
    BVal v = bound_new(b, b->f->value[id].type, id);
    Tensor t;
    if (param->dtype == DT_F16)
        return bind_cast_to(b, v, DT_F32);
    if (!dtype_is_float(param->dtype) && bound_constant(b, v, &t)) {
        int64_t n;
        Dim elem[CONTENT_MAX];
        CHECK(tensor_count(&t, &n));
        for (int64_t i = 0; i < n; i++)
            elem[i] = dim_const(b->m->dims, tensor_get_i64(&t, i));
        bound_at(b, v)->elem = bind_copy(b, elem, (size_t)n, sizeof *elem);
    }
    return v;
}

static void name_value(Binder *b, BVal v, Str name) {
    ValueId id = bound_at(b, v)->id;
    if (id != NONE && b->f->value[id].kind == VK_NODE && !b->f->value[id].name.n)
        b->f->value[id].name = name;
}

static bool too_many_nodes(Binder *b) {
    return diag_error(b->d, DIAG_LIMIT, b->file, "the model has more than %d nodes after inlining", LIMIT_NODES);
}

/* One more node. */
static bool count_work(Binder *b) {
    if (++b->work > LIMIT_NODES)
        return too_many_nodes(b);
    return ++b->all_work <= LIMIT_NODES_AGAIN ||
           diag_error(b->d, DIAG_LIMIT, b->file, "more than %d nodes are bound since symbolic extents must be equal", LIMIT_NODES_AGAIN);
}

/* At least so many nodes are walked in f, counted up to the limit: a few functions that call each other twice are more than
 * any memory holds, and are refused before the walk. least[]: by FuncId, 0: not known. */
static uint64_t least_work(const Binder *b, const Func *f, uint64_t *least, uint32_t depth) {
    static const AttrKey keys[2] = {AT_then_func, AT_else_func};
    uint64_t n = least[f->id] = f->n_nodes;
    for (uint32_t i = 0; i < f->n_nodes && n <= LIMIT_NODES && depth < LIMIT_CALL_DEPTH; i++) {
        const Node *x = &f->node[i];
        uint64_t in[2] = {0, 0};
        for (int k = 0; k < 2 && (x->op == OP_call || x->op == OP_if); k++) {
            const Func *to = callee(b, x, x->op == OP_call ? AT_func : keys[k]);
            if (to->role == FR_BODY)
                in[k] = least[to->id] ? least[to->id] : least_work(b, to, least, depth + 1);
        }
        n += in[0] < in[1] ? in[0] : in[1];
    }
    return least[f->id] = n;
}

static bool is_small_enough(Binder *b, const Func *f) {
    uint64_t *least = mem_alloc(((size_t)b->m->n_funcs + 1) * sizeof *least);
    bool ok = least_work(b, f, least, 0) <= LIMIT_NODES;
    mem_free(least);
    return ok || too_many_nodes(b);
}

/* The walk. `args` stand for the inputs of old; out gets its outputs. */
static bool bind_body(Binder *b, const Func *old, const BVal *args, BVal *out) {
    Str outer = b->origin;
    if (++b->depth > LIMIT_CALL_DEPTH)
        return diag_error(b->d, DIAG_LIMIT, b->file, "functions are nested more than %d deep", LIMIT_CALL_DEPTH);
    BVal *map = mem_alloc((old->n_values + 1) * sizeof *map);
    bool ok = true;
    for (uint32_t v = 0; v < old->n_values; v++)
        map[v] = BV_NONE;
    for (uint32_t i = 0; i < old->n_inputs; i++)
        map[old->input[i]] = args[i];
    for (uint32_t i = 0; ok && i <= old->n_nodes; i++) {
        const Node *n = i < old->n_nodes ? &old->node[i] : NULL;
        const ValueId *use = n ? n->in : old->output;
        uint32_t n_use = n ? n->n_in : old->n_outputs;
        BVal *in = arena_array(b->scratch, n_use + 1, sizeof *in);
        BVal *now = arena_array(b->scratch, n ? n->n_out + 1 : 1, sizeof *now);
        b->origin = n ? n->origin : outer;
        for (uint32_t k = 0; ok && k < n_use; k++) {
            ParamId p;
            if (use[k] != NONE && map[use[k]] == BV_NONE) {
                CHECK(value_param(old, use[k], &p));
                map[use[k]] = bind_param(b, p);
            }
            in[k] = use[k] == NONE ? BV_NONE : map[use[k]];
        }
        if (!n) {
            memcpy(out, in, n_use * sizeof *in);
            break;
        }
        if (!(ok = count_work(b)))
            break;
        diag_push(b->d, "node '%s'", n->origin.n ? diag_show(b->d, n->origin) : op_info(n->op)->name);
        ok = bind_node(b, old, n, in, now);
        diag_pop(b->d);
        for (uint32_t k = 0; ok && k < n->n_out; k++) {
            map[n->out + k] = now[k];
            name_value(b, now[k], old->value[n->out + k].name);
        }
    }
    mem_free(map);
    b->origin = outer;
    b->depth--;
    return ok;
}

/* ---- functions ---- */

static const InputValue *given_value(const Binder *b, const Func *f, Str input) {
    for (uint32_t i = 0; i < b->o->n_values; i++) {
        const InputValue *v = &b->o->value[i];
        if ((v->func.n == 0 || str_eq(v->func, f->name)) && str_eq(v->input, input))
            return v;
    }
    return NULL;
}

static BVal bind_given(Binder *b, const InputValue *v, const Type *declared) {
    const char *name = diag_show(b->d, v->input);
    Type type = bind_canon_type(b, *declared);
    Tensor t = v->value;
    if (t.dtype != declared->dtype || (type.rank != UNRANKED && type.rank != t.rank))
        return diag_error(b->d, DIAG_VALUE_INPUT, b->file,
                          "the value given for input '%s' is %s of rank %d, not %s of rank %d", name,
                          dtype_name(t.dtype), t.rank, dtype_name(declared->dtype), type.rank),
               BV_NONE;
    for (int i = 0; i < type.rank; i++)
        if (!bind_unify(b, type.dim[i], dim_const(b->m->dims, t.dim[i]), "the value given for an input"))
            return BV_NONE;
    if (t.dtype == DT_F16)
        t = widened(b, t);
    Attr a = attr_t(AT_value, t);
    return bind_emit(b, OP_const, NULL, 0, &a, 1);
}

static BVal bind_input(Binder *b, const Func *old, uint32_t i) {
    const Value *value = &old->value[old->input[i]];
    const InputValue *given = old->role == FR_ENTRY ? given_value(b, old, value->name) : NULL;
    if (given)
        return bind_given(b, given, &value->type);
    if (value->type.rank == UNRANKED)
        return diag_error(b->d, DIAG_SHAPE_UNKNOWN, b->file, "input '%s' has no declared rank",
                          diag_show(b->d, value->name)),
               BV_NONE;
    Type type = bind_canon_type(b, value->type);
    type.dtype = value->type.dtype;
    BVal v = bound_new(b, type, func_input(b->m, b->f, value->name, type));
    return type.dtype == DT_F16 ? bind_cast_to(b, v, DT_F32) : v;
}

static Func *bind_func(Binder *b, const Func *old) {
    BoundVec vals = {0};
    BVal *args = arena_array(b->scratch, old->n_inputs + 1, sizeof *args);
    BVal *out = arena_array(b->scratch, old->n_outputs + 1, sizeof *out);
    bool ok = true;
    b->f = func_begin(b->m, old->name, old->role);
    b->vals = &vals;
    b->depth = 0;
    b->origin = (Str){"", 0};
    b->file = old->file;
    ok = is_small_enough(b, old);
    b->all_work += old->n_inputs;
    for (uint32_t i = 0; ok && i < old->n_inputs; i++)
        ok = (args[i] = bind_input(b, old, i)) != BV_NONE;
    ok = ok && bind_body(b, old, args, out);
    for (uint32_t i = 0; ok && i < old->n_outputs; i++) {
        ValueId id = bound_id(b, out[i]);
        if (old->value[old->output[i]].type.dtype == DT_F16)
            id = build_cast(b->m, b->f, id, DT_F16, b->origin);
        func_output(b->m, b->f, id, old->output_name[i]);
    }
    vec_free(&vals);
    b->vals = NULL;
    return ok ? b->f : NULL;
}

static bool is_walked(const Func *f) {
    return f && f->role == FR_ENTRY;
}

/* One walk of all entry functions. False: restart, or reported. */
static bool bind_all(Binder *b, Func **now, uint32_t n_funcs) {
    bool ok = true;
    b->restart = false;
    b->work = 0;
    for (uint32_t i = 0; i < n_funcs; i++) {
        const Func *old = b->m->func[i];
        if (!is_walked(old))
            continue;
        diag_push(b->d, "function '%s'", diag_show(b->d, old->name));
        now[i] = bind_func(b, old);
        diag_pop(b->d);
        ok &= now[i] != NULL;
        if (b->restart)
            break;
    }
    return ok;
}

/* Bodies that nothing calls any more go. */
static void drop_bodies(Binder *b) {
    static const AttrKey keys[] = {AT_func, AT_then_func, AT_else_func};
    Module *m = b->m;
    bool *used = mem_alloc(m->n_funcs + 1);
    Vec(FuncId) todo = {0};
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (m->func[i] && m->func[i]->role != FR_BODY) {
            used[i] = true;
            vec_push(&todo, i);
        }
    while (todo.count) {
        const Func *f = m->func[todo.item[--todo.count]];
        for (uint32_t k = 0; k < f->n_nodes; k++)
            for (size_t j = 0; op_info(f->node[k].op)->klass == OC_CALL && j < 3; j++) {
                const Attr *a = node_attr(&f->node[k], keys[j]);
                if (a && !used[a->i]) {
                    used[a->i] = true;
                    vec_push(&todo, (FuncId)a->i);
                }
            }
    }
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (!used[i])
            m->func[i] = NULL;
    vec_free(&todo);
    mem_free(used);
}

static bool check_values(Binder *b) {
    bool ok = true;
    for (uint32_t i = 0; i < b->o->n_values; i++) {
        const InputValue *v = &b->o->value[i];
        bool found = false;
        for (uint32_t k = 0; k < b->m->n_funcs; k++) {
            const Func *f = b->m->func[k];
            for (uint32_t j = 0; is_walked(f) && j < f->n_inputs; j++)
                found |= given_value(b, f, f->value[f->input[j]].name) == v;
        }
        if (!found)
            ok = diag_error(b->d, DIAG_VALUE_INPUT, b->file, "--value %s: the model has no such input",
                            diag_show(b->d, v->input));
    }
    return ok;
}

bool pass_bind(Module *m, const PassOptions *o, Diag *d) {
    Binder b = {.m = m, .o = o, .d = d};
    uint32_t n_funcs = m->n_funcs;
    Func **now = mem_alloc((n_funcs + 1) * sizeof *now);
    bool ok = set_bounds(&b) && check_values(&b);
    for (int tries = 0; ok; tries++) {
        const Module before = *m;
        ArenaMark mark = arena_mark(m->arena);
        b.scratch = arena_new();
        ok = bind_all(&b, now, n_funcs);
        arena_free(b.scratch);
        if (!b.restart || tries == LIMIT_EQUAL_SYMBOLS)
            break;
        CHECK(m->n_params == before.n_params);
        *m = before;
        arena_rewind(m->arena, mark);
        ok = true;
    }
    if (b.restart)
        ok = diag_error(d, DIAG_LIMIT, NULL, "more than %d symbolic extents must be equal", LIMIT_EQUAL_SYMBOLS);
    for (FuncId i = 0; ok && i < n_funcs; i++)
        if (is_walked(m->func[i]))
            func_end(m, now[i], i);
    if (ok)
        drop_bodies(&b);
    mem_free(now);
    vec_free(&b.subst);
    return ok;
}
