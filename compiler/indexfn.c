/* Index functions: the expression store, its smart constructors, substitution, plans. */
#include "indexfn_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- life and symbols ------------------------------------------------------------------------- */

Index *index_new(Module *m, const Func *f) {
    Arena *a = arena_new();
    Index *x = arena_alloc(a, sizeof *x);
    x->m = m;
    x->f = f;
    x->arena = a;
    x->dims = dim_table_new(a);
    for (uint32_t i = 0; i < dim_sym_count(m->dims); i++) {
        const DimSym *s = dim_sym_at(m->dims, i);
        uint32_t sym;
        CHECK(dim_as_sym(x->dims, dim_sym(x->dims, s->name), &sym));
        DimSym *mine = dim_sym_at(x->dims, sym);
        mine->lo = s->lo;
        mine->hi = s->hi;
    }
    x->n_param = m->n_params;
    x->param = arena_array(a, m->n_params + 1, sizeof *x->param);
    return x;
}

void index_free(Index *x) {
    if (!x)
        return;
    vec_free(&x->imported);
    vec_free(&x->expr);
    vec_free(&x->ids);
    vec_free(&x->memo);
    vec_free(&x->stack);
    vec_free(&x->vars);
    vec_free(&x->scatters);
    mem_free(x->expr_hash);
    mem_free(x->memo_hash);
    arena_free(x->arena);
}

DimTable *index_dims(Index *x) {
    return x->dims;
}

/* Tables share nothing, text is the way from one to the other. */
Dim index_dim(Index *x, Dim of_module) {
    if (of_module == DIM_BAD)
        return DIM_BAD;
    while (x->imported.count <= of_module)
        vec_push(&x->imported, 0);
    if (x->imported.item[of_module])
        return x->imported.item[of_module] - 1;
    Text t = {0};
    dim_print(x->m->dims, of_module, &t);
    Dim d = DIM_BAD;
    const char *p = t.p;
    if (!dim_parse(x->dims, &p, t.p + t.n, &d))
        BUG("a printed Dim does not parse");
    text_free(&t);
    x->imported.item[of_module] = d + 1;
    return d;
}

Dim index_symbol(Index *x, int64_t lo, int64_t hi) {
    for (;;) {
        const char *name = arena_printf(x->arena, "#%u", x->n_fresh++);
        bool taken = false;
        for (uint32_t i = 0; i < dim_sym_count(x->dims) && !taken; i++)
            taken = str_is(dim_sym_at(x->dims, i)->name, name);
        if (taken)
            continue;
        Dim d = dim_sym(x->dims, str_c(name));
        uint32_t sym;
        CHECK(dim_as_sym(x->dims, d, &sym));
        DimSym *s = dim_sym_at(x->dims, sym);
        s->lo = lo;
        s->hi = hi;
        return d;
    }
}

IxId index_var(Index *x, Dim extent) {
    if (dim_is(x->m->dims, extent, 1))
        return index_int(x, dim_const(x->dims, 0));
    int64_t hi = dim_upper(x->m->dims, extent);
    Dim d = index_symbol(x, 0, hi == DIM_UNBOUNDED ? DIM_UNBOUNDED : hi > 0 ? hi - 1 : 0);
    IxVar v = {d, index_dim(x, extent)};
    vec_push(&x->vars, v);
    return index_int(x, d);
}

IxId index_fail(Index *x, const Node *where, const char *why) {
    x->why = why;
    x->where = where;
    return IX_FAIL;
}

const char *index_why(const Index *x, const Node **node) {
    if (node)
        *node = x->where;
    return x->why ? x->why : "too complex";
}

/* ---- hash-consing -------------------------------------------------------------------------------- */

const IxExpr *index_expr(const Index *x, IxId e) {
    return &x->expr.item[e];
}

IxId index_arg(const Index *x, IxId e, uint32_t i) {
    return x->ids.item[x->expr.item[e].arg + i];
}

uint32_t index_count(const Index *x) {
    return (uint32_t)x->expr.count;
}

static uint64_t expr_hash(const IxExpr *e, const IxId *arg) {
    uint64_t bits;
    memcpy(&bits, &e->num, sizeof bits);
    uint64_t k[6] = {
        (uint64_t)e->kind, (uint64_t)e->dtype, e->kind == IX_OP ? (uint64_t)e->op : 0, e->d, bits, e->value};
    uint64_t h = hash_bytes(e->n_arg, k, sizeof k);
    return hash_bytes(h, arg, e->n_arg * sizeof *arg);
}

static bool expr_same(const Index *x, IxId id, const IxExpr *e, const IxId *arg) {
    const IxExpr *o = index_expr(x, id);
    return o->kind == e->kind && o->dtype == e->dtype && (e->kind != IX_OP || o->op == e->op) &&
           o->d == e->d && memcmp(&o->num, &e->num, sizeof e->num) == 0 && o->value == e->value &&
           o->n_arg == e->n_arg &&
           (e->n_arg == 0 || memcmp(x->ids.item + o->arg, arg, e->n_arg * sizeof *arg) == 0);
}

static void expr_rehash(Index *x) {
    size_t room = x->expr_room ? x->expr_room * 2 : 256;
    mem_free(x->expr_hash);
    x->expr_hash = mem_alloc(room * sizeof *x->expr_hash);
    x->expr_room = room;
    for (uint32_t i = 0; i < x->expr.count; i++) {
        const IxExpr *e = index_expr(x, i);
        size_t s = expr_hash(e, x->ids.item + e->arg) & (room - 1);
        while (x->expr_hash[s])
            s = (s + 1) & (room - 1);
        x->expr_hash[s] = i + 1;
    }
}

static IxId expr_put(Index *x, IxExpr e, const IxId *arg) {
    if (x->expr.count * 2 >= x->expr_room)
        expr_rehash(x);
    size_t s = expr_hash(&e, arg) & (x->expr_room - 1);
    for (; x->expr_hash[s]; s = (s + 1) & (x->expr_room - 1))
        if (expr_same(x, x->expr_hash[s] - 1, &e, arg))
            return x->expr_hash[s] - 1;
    if (x->expr.count >= IX_MAX_EXPRS)
        return index_fail(x, NULL, "the expression is too large");
    e.arg = (uint32_t)x->ids.count;
    for (uint32_t i = 0; i < e.n_arg; i++)
        vec_push(&x->ids, arg[i]);
    x->expr_hash[s] = (uint32_t)x->expr.count + 1;
    vec_push(&x->expr, e);
    return (IxId)x->expr.count - 1;
}

/* ---- constructors --------------------------------------------------------------------------------- */

IxId index_int(Index *x, Dim d) {
    if (d == DIM_BAD)
        return index_fail(x, NULL, "integer arithmetic overflows");
    return expr_put(x, (IxExpr){.kind = IX_INT, .dtype = DT_I64, .d = d, .value = NONE}, NULL);
}

IxId index_bool(Index *x, bool v) {
    return expr_put(x, (IxExpr){.kind = IX_INT, .dtype = DT_BOOL, .d = dim_const(x->dims, v), .value = NONE},
                    NULL);
}

IxId index_num(Index *x, DType t, double v) {
    return expr_put(x, (IxExpr){.kind = IX_NUM, .dtype = t, .num = v, .value = NONE}, NULL);
}

IxId index_elem(Index *x, ValueId v, DType t, const IxId *at, uint32_t n) {
    return expr_put(x, (IxExpr){.kind = IX_ELEM, .dtype = t, .value = v, .n_arg = n}, at);
}

bool index_known(const Index *x, IxId e, IxNum *out) {
    const IxExpr *p = index_expr(x, e);
    *out = (IxNum){0};
    if (p->kind == IX_NUM) {
        out->f = p->num;
        return true;
    }
    return p->kind == IX_INT && dim_is_const(x->dims, p->d, &out->i);
}

bool index_poly(const Index *x, IxId e, Dim *out) {
    const IxExpr *p = index_expr(x, e);
    if (p->kind != IX_INT || p->dtype == DT_BOOL)
        return false;
    *out = p->d;
    return true;
}

static IxId known_to_expr(Index *x, DType t, IxNum v) {
    if (dtype_is_float(t))
        return index_num(x, t, v.f);
    if (t == DT_BOOL)
        return index_bool(x, v.i != 0);
    return index_int(x, dim_const(x->dims, v.i));
}

/* a op b on polynomials: decided by the bounds of their difference, else kept as `difference op 0`. */
static IxId compare_polys(Index *x, Op op, Dim a, Dim b) {
    Dim diff = dim_sub(x->dims, a, b);
    if (diff == DIM_BAD)
        return index_fail(x, NULL, "integer arithmetic overflows");
    int64_t lo = dim_lower(x->dims, diff), hi = dim_upper(x->dims, diff);
    switch (op) {
    case OP_lt:
        if (hi < 0)
            return index_bool(x, true);
        if (lo >= 0)
            return index_bool(x, false);
        break;
    case OP_le:
        if (hi <= 0)
            return index_bool(x, true);
        if (lo > 0)
            return index_bool(x, false);
        break;
    case OP_gt:
        if (lo > 0)
            return index_bool(x, true);
        if (hi <= 0)
            return index_bool(x, false);
        break;
    case OP_ge:
        if (lo >= 0)
            return index_bool(x, true);
        if (hi < 0)
            return index_bool(x, false);
        break;
    default:
        if (lo > 0 || hi < 0)
            return index_bool(x, op == OP_ne);
        if (lo == 0 && hi == 0)
            return index_bool(x, op == OP_eq);
    }
    IxId arg[2] = {index_int(x, diff), index_int(x, dim_const(x->dims, 0))};
    return expr_put(x, (IxExpr){.kind = IX_OP, .dtype = DT_BOOL, .op = op, .value = NONE, .n_arg = 2}, arg);
}

static bool op_is_compare(Op op) {
    return op == OP_eq || op == OP_ne || op == OP_lt || op == OP_le || op == OP_gt || op == OP_ge;
}

/* Integer ops that stay polynomials. False: no such form. */
static bool poly_op(Index *x, Op op, DType dtype, const IxId *arg, uint32_t n, IxId *out) {
    Dim d[3] = {0};
    if (n > 2)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (!index_poly(x, arg[i], &d[i]))
            return false;
    if (op_is_compare(op)) {
        *out = compare_polys(x, op, d[0], d[1]);
        return true;
    }
    if (op == OP_cast && dtype == DT_BOOL) {
        *out = compare_polys(x, OP_ne, d[0], dim_const(x->dims, 0));
        return true;
    }
    if (dtype != DT_I64 && dtype != DT_I32)
        return false;
    Dim r;
    switch (op) {
    case OP_add:
        r = dim_add(x->dims, d[0], d[1]);
        break;
    case OP_sub:
        r = dim_sub(x->dims, d[0], d[1]);
        break;
    case OP_mul:
        r = dim_mul(x->dims, d[0], d[1]);
        break;
    case OP_neg:
        r = dim_sub(x->dims, dim_const(x->dims, 0), d[0]);
        break;
    case OP_min:
        r = dim_min(x->dims, d[0], d[1]);
        break;
    case OP_max:
        r = dim_max(x->dims, d[0], d[1]);
        break;
    case OP_cast:
        r = d[0];
        break;
    default:
        return false;
    }
    if (r != DIM_BAD && dtype == DT_I32 &&
        (dim_lower(x->dims, r) < INT32_MIN || dim_upper(x->dims, r) > INT32_MAX))
        return false;
    *out = index_int(x, r);
    return true;
}

/* Simplifications that do not need every operand to be known. */
static bool partial_op(Index *x, Op op, const IxId *arg, IxId *out) {
    IxNum c;
    if (op == OP_select) {
        if (index_known(x, arg[0], &c))
            return *out = arg[c.i ? 1 : 2], true;
        if (arg[1] == arg[2])
            return *out = arg[1], true;
    }
    if (op == OP_and || op == OP_or)
        for (int i = 0; i < 2; i++)
            if (index_known(x, arg[i], &c))
                return *out = (c.i != 0) == (op == OP_and) ? arg[1 - i] : arg[i], true;
    return false;
}

IxId index_op(Index *x, Op op, DType dtype, const IxId *arg, uint32_t n) {
    IxNum v[3], r;
    bool known = true;
    if (n == 0 || n > 3)
        return index_fail(x, NULL, "an op with unexpected operands");
    for (uint32_t i = 0; i < n; i++) {
        if (arg[i] == IX_FAIL)
            return IX_FAIL;
        known = index_known(x, arg[i], &v[i]) && known;
    }
    IxId out;
    if (partial_op(x, op, arg, &out))
        return out;
    DType from = index_expr(x, arg[op == OP_select ? 1 : 0])->dtype;
    if (op == OP_cast && from == dtype)
        return arg[0];
    if (known && index_apply(op, dtype, from, v, &r))
        return known_to_expr(x, dtype, r);
    if (poly_op(x, op, dtype, arg, n, &out))
        return out;
    IxNum probe[3] = {{0}};
    if (!index_apply(op, dtype, from, probe, &r))
        return index_fail(x, NULL, "an op that positions are not followed through");
    return expr_put(x, (IxExpr){.kind = IX_OP, .dtype = dtype, .op = op, .value = NONE, .n_arg = n}, arg);
}

/* ---- walking expressions -------------------------------------------------------------------------- */

static bool is_input_elem(const Index *x, IxId e) {
    const IxExpr *p = index_expr(x, e);
    return p->kind == IX_ELEM && x->f->value[p->value].kind == VK_INPUT;
}

IxPlan index_plan(Index *x, IxId root, bool leaves) {
    uint8_t *mark = mem_alloc((size_t)root + 1);
    uint32_t n = 0;
    mark[root] = 1;
    for (IxId e = root + 1; e-- > 0;) {
        if (!mark[e])
            continue;
        n++;
        if (leaves && is_input_elem(x, e))
            continue;
        for (uint32_t i = 0; i < index_expr(x, e)->n_arg; i++)
            mark[index_arg(x, e, i)] = 1;
    }
    IxPlan p = {arena_array(x->arena, n, sizeof(IxId)), 0};
    for (IxId e = 0; e <= root; e++)
        if (mark[e])
            p.id[p.n++] = e;
    mem_free(mark);
    return p;
}

IxId index_subst(Index *x, IxId root, uint32_t sym, Dim by) {
    IxPlan p = index_plan(x, root, false);
    IxId *now = mem_alloc(((size_t)root + 1) * sizeof *now);
    IxId result = IX_FAIL;
    for (uint32_t k = 0; k < p.n; k++) {
        IxExpr e = *index_expr(x, p.id[k]);
        IxId arg[MOEC_MAX_RANK] = {0}, r;
        if (e.n_arg > MOEC_MAX_RANK)
            BUG("an expression with %u operands", e.n_arg);
        for (uint32_t i = 0; i < e.n_arg; i++)
            arg[i] = now[index_arg(x, p.id[k], i)];
        switch (e.kind) {
        case IX_INT:
            r = e.dtype == DT_BOOL ? p.id[k] : index_int(x, dim_subst(x->dims, e.d, sym, by));
            break;
        case IX_NUM:
            r = p.id[k];
            break;
        case IX_OP:
            r = index_op(x, e.op, e.dtype, arg, e.n_arg);
            break;
        default:
            r = index_elem(x, e.value, e.dtype, arg, e.n_arg);
            break;
        }
        if (r == IX_FAIL)
            break;
        now[p.id[k]] = r;
        if (k + 1 == p.n)
            result = r;
    }
    mem_free(now);
    return result;
}

/* ---- evaluation ------------------------------------------------------------------------------------ */

static const Tensor *leaf_tensor(Index *x, ValueId v) {
    const Value *val = &x->f->value[v];
    if (val->kind == VK_NODE) {
        const Attr *a = node_attr(&x->f->node[val->def], AT_value);
        return a ? &a->t : NULL;
    }
    if (val->kind != VK_PARAM || val->def >= x->n_param)
        return NULL;
    if (x->param[val->def])
        return x->param[val->def];
    Tensor t;
    Diag *quiet = diag_new();
    bool ok = param_eval(x->m, val->def, &t, x->arena, quiet);
    diag_free(quiet);
    return ok ? (x->param[val->def] = arena_copy(x->arena, &t, sizeof t)) : NULL;
}

static bool eval_elem(Index *x, IxId id, double input, IxNum *num) {
    const IxExpr *e = index_expr(x, id);
    IxNum *out = &num[id];
    *out = (IxNum){0};
    if (is_input_elem(x, id)) {
        out->f = input;
        out->i = (int64_t)input;
        return true;
    }
    const Tensor *t = leaf_tensor(x, e->value);
    if (!t || (uint32_t)t->rank != e->n_arg) {
        index_fail(x, value_node(x->f, e->value), "a value whose elements are not known at compile time");
        return false;
    }
    int64_t at = 0;
    for (uint32_t i = 0; i < e->n_arg; i++) {
        const IxNum *p = &num[index_arg(x, id, i)];
        if (p->bad || p->i < 0 || p->i >= t->dim[i]) {
            out->bad = true;
            return true;
        }
        at = at * t->dim[i] + p->i;
    }
    if (dtype_is_float(t->dtype))
        out->f = tensor_get_f64(t, at);
    else
        out->i = tensor_get_i64(t, at);
    return true;
}

bool index_eval(Index *x, const IxPlan *p, const int64_t *syms, double input, const bool *changed,
                IxNum *num) {
    for (uint32_t k = 0; k < p->n; k++) {
        IxId id = p->id[k];
        if (changed && !changed[id])
            continue;
        const IxExpr *e = index_expr(x, id);
        IxNum arg[3];
        switch (e->kind) {
        case IX_INT:
            num[id] = (IxNum){0};
            num[id].bad = !dim_eval(x->dims, e->d, syms, &num[id].i);
            break;
        case IX_NUM:
            num[id] = (IxNum){.f = e->num};
            break;
        case IX_ELEM:
            if (!eval_elem(x, id, input, num))
                return false;
            break;
        case IX_OP:
            for (uint32_t i = 0; i < e->n_arg; i++)
                arg[i] = num[index_arg(x, id, i)];
            index_apply(e->op, e->dtype, index_expr(x, index_arg(x, id, e->op == OP_select ? 1 : 0))->dtype,
                        arg, &num[id]);
            break;
        }
    }
    return true;
}
