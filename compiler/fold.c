/* Pass `fold`: nothing known is computed at run time, and nothing is done that does nothing.
 *
 * One forward walk a function: operands are simple before a node is looked at, so every rule is local. Small
 * results of literals become literals; what is computed from frozen parameters becomes a parameter with an
 * init function (fold_init.c), evaluated when weights are written. Broadcasts sink below pointwise ops. */
#include "const_eval.h"
#include "fold_impl.h"
#include "remark.h"

#include <string.h>

enum { LITERAL_MAX = 64, OPERAND_MAX = 4096, RULE_DEPTH = 64 };

const Type *fold_type(const Folder *x, ValueId v) {
    return &x->f->value[v].type;
}

bool fold_is_one(const Folder *x, Dim d) {
    return dim_is(x->m->dims, d, 1);
}

const Attr *make_attr(const Make *k, AttrKey key) {
    for (uint32_t i = 0; i < k->n_attrs; i++)
        if (k->attrs[i].key == key)
            return &k->attrs[i];
    return NULL;
}

bool fold_number(const Folder *x, ValueId v, double *out) {
    const Node *n = value_node(x->f, v);
    Tensor t;
    int64_t count;
    if (n && n->op == OP_broadcast)
        v = n->in[0];
    if (!const_of(x->m, x->f, v, 1, &t) || !tensor_count(&t, &count) || count != 1)
        return false;
    *out = tensor_get_f64(&t, 0);
    return true;
}

static ValueId emit(Folder *x, const Make *k) {
    ValueId v = func_node_typed(x->m, x->f, k->op, k->in, k->n, k->attrs, k->n_attrs, &k->type, 1, k->origin);
    fold_learn(x, v);
    return v;
}

static ValueId literal(Folder *x, Tensor t, Str origin) {
    Dim dim[MOEC_MAX_RANK];
    Attr a = attr_t(AT_value, t);
    for (int i = 0; i < t.rank; i++)
        dim[i] = dim_const(x->m->dims, t.dim[i]);
    return emit(x, &(Make){OP_const, NULL, 0, &a, 1, type_ranked(t.dtype, t.rank, dim), origin});
}

ValueId fold_const(Folder *x, const Type *type, double v, Str origin) {
    Tensor t = {.dtype = type->dtype, .rank = 0};
    CHECK(tensor_alloc(x->m->arena, &t));
    tensor_set_f64(&t, 0, v);
    return fold_to(x, OP_broadcast, literal(x, t, origin), type->dim, type->rank, origin);
}

ValueId fold_to(Folder *x, Op op, ValueId a, const Dim *dim, int rank, Str origin) {
    Make k = {op, &a, 1, NULL, 0, type_ranked(fold_type(x, a)->dtype, rank, dim), origin};
    return fold_make(x, &k);
}

ValueId fold_unary(Folder *x, Op op, ValueId a, const Make *k) {
    Make now = {op, &a, 1, NULL, 0, k->type, k->origin};
    return fold_make(x, &now);
}

ValueId fold_binary(Folder *x, Op op, ValueId a, ValueId b, const Make *k) {
    ValueId in[2] = {a, b};
    Make now = {op, in, 2, NULL, 0, k->type, k->origin};
    return fold_make(x, &now);
}

static int64_t small_count(const Folder *x, const Type *type) {
    int64_t n = 1, v;
    for (int i = 0; i < type->rank; i++) {
        if (!dim_is_const(x->m->dims, type->dim[i], &v) || v < 0 || v > LITERAL_MAX)
            return -1;
        n *= v;
        if (n > LITERAL_MAX)
            return -1;
    }
    return n;
}

/* Float vectors that are parameters stay visible as such: a tiny model must fold to the same form as a large
 * one. */
static bool evaluate(Folder *x, const Make *k, ValueId *out) {
    Tensor in[4], r;
    OpClass klass = op_info(k->op)->klass;
    if (k->op == OP_const || k->op == OP_dim || klass == OC_CALL || klass == OC_DYNAMIC || k->n > 4 ||
        small_count(x, &k->type) < 0)
        return false;
    for (uint32_t i = 0; i < k->n; i++) {
        int64_t count = 0;
        if (k->in[i] == NONE || !const_of(x->m, x->f, k->in[i], OPERAND_MAX, &in[i]) ||
            !tensor_count(&in[i], &count))
            return false;
        if (dtype_is_float(in[i].dtype) && count > 1 && x->f->value[k->in[i]].kind == VK_PARAM)
            return false;
    }
    if (!const_eval(x->m, k->op, in, k->n, k->attrs, k->n_attrs, &k->type, 1, &r))
        return false;
    *out = literal(x, r, k->origin);
    return true;
}

/* op(broadcast a, b) = broadcast(op(a, b)), and no broadcast at all where b has the extents. */
static ValueId sink_broadcasts(Folder *x, const Make *k) {
    ValueId in[3];
    bool any = false;
    for (uint32_t i = 0; i < k->n; i++) {
        const Node *n = value_node(x->f, k->in[i]);
        bool spread = n && n->op == OP_broadcast;
        in[i] = spread ? n->in[0] : k->in[i];
        any |= spread;
    }
    if (!any)
        return NONE;
    Make now = *k;
    now.in = in;
    now.type = *fold_type(x, in[0]);
    for (uint32_t i = 1; i < k->n; i++) {
        Type wide;
        if (!type_broadcast(x->m->dims, &now.type, fold_type(x, in[i]), &wide))
            return NONE;
        now.type = wide;
    }
    now.type.dtype = k->type.dtype;
    return fold_to(x, OP_broadcast, fold_make(x, &now), k->type.dim, k->type.rank, k->origin);
}

ValueId fold_make(Folder *x, const Make *k) {
    ValueId v = NONE;
    if (x->depth >= RULE_DEPTH || make_attr(k, AT_site))
        return emit(x, k);
    x->depth++;
    if (!evaluate(x, k, &v)) {
        v = fold_rule(x, k);
        if (v == NONE && op_info(k->op)->klass == OC_POINTWISE)
            v = sink_broadcasts(x, k);
    }
    x->depth--;
    if (v == NONE)
        return emit(x, k);
    CHECK(type_eq(fold_type(x, v), &k->type));
    return v;
}

static void fold_func(Module *m, const Func *old) {
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, old);
    Folder x = {.m = m, .f = r.f};
    for (uint32_t i = 0; i < old->n_nodes; i++) {
        const Node *n = &old->node[i];
        if (n->n_out != 1 || op_info(n->op)->klass == OC_CALL) {
            remap_node(&r, n);
            continue;
        }
        ValueId *in = arena_array(scratch, n->n_in ? n->n_in : 1, sizeof *in);
        for (uint32_t k = 0; k < n->n_in; k++) {
            in[k] = remap_value(&r, n->in[k]);
            if (in[k] != NONE && in[k] >= x.range.count)
                fold_learn(&x, in[k]);
        }
        Make k = {n->op, in, n->n_in, n->attrs, n->n_attrs, old->value[n->out].type, n->origin};
        ValueId v = fold_make(&x, &k);
        if (x.f->value[v].kind == VK_NODE && !x.f->value[v].name.n)
            x.f->value[v].name = old->value[n->out].name;
        remap_set(&r, n->out, v);
    }
    uint32_t before = old->n_nodes;
    const Func *now = module_func(m, remap_end(&r));
    if (now->n_nodes != before && now->role == FR_ENTRY)
        remark(m, R_folded, now, NULL, "%u nodes of %u are left", now->n_nodes, before);
    vec_free(&x.range);
    arena_free(scratch);
}

bool pass_fold(Module *m, const PassOptions *o, Diag *d) {
    (void)o;
    (void)d;
    uint32_t n_funcs = m->n_funcs;
    for (FuncId i = 0; i < n_funcs; i++)
        if (m->func[i])
            fold_func(m, m->func[i]);
    Vec(FuncId) run = {0};
    for (FuncId i = 0; i < n_funcs; i++)
        if (m->func[i] && (m->func[i]->role == FR_ENTRY || m->func[i]->role == FR_BODY))
            vec_push(&run, i);
    fold_inits(m, run.item, (uint32_t)run.count);
    vec_free(&run);
    return true;
}
