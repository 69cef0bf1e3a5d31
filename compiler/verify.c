/* Checks every invariant of ir.h. Takes nothing for granted: parsed text and broken passes come here alike.
 *
 * Order matters: ids are range-checked before anything is looked up through them, so that a function found
 * malformed is not inspected any further. */
#include "ir.h"
#include "namemap.h"
#include "pack.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLES = 5 };

typedef struct Verifier {
    const Module *m;
    Diag *d;
    bool bound;
    Arena *scratch;
} Verifier;

static bool bad(Verifier *v, DiagCode code, const char *fmt, ...) MOEC_PRINTF(3, 4);
static bool bad(Verifier *v, DiagCode code, const char *fmt, ...)
{
    char message[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    return diag_error(v->d, code, NULL, "%s", message);
}

static const char *const infer_rule[] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) #infer,
#include "ops.def"
};

static const char *show_type(Verifier *v, const Type *t)
{
    Text text = {0};
    text_printf(&text, "%s[", dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++) {
        text_printf(&text, "%s", i ? "," : "");
        dim_print(v->m->dims, t->dim[i], &text);
    }
    text_printf(&text, "%s]", t->rank == UNRANKED ? "*" : "");
    const char *s = arena_strndup(v->scratch, text.p, text.n);
    text_free(&text);
    return s;
}

/* ---- Dims that may or may not be equal ------------------------------------------------------------- */

/* True when a and b differ wherever they were tried: symbols at a few places inside their bounds. Opaque parts
 * (floor divisions) make canonical forms differ that are equal in use, so ids alone do not decide. */
static bool dims_differ(Verifier *v, Dim a, Dim b)
{
    if (a == b)
        return false;
    const DimTable *t = v->m->dims;
    size_t n = dim_sym_count(t);
    int64_t *syms = arena_array(v->scratch, n + 1, sizeof *syms);
    bool tried = false;
    for (int sample = 0; sample < SAMPLES; sample++) {
        int64_t x, y;
        for (size_t i = 0; i < n; i++) {
            const DimSym *s = dim_sym_at(t, (uint32_t)i);
            int64_t span = s->hi == DIM_UNBOUNDED ? 64 : s->hi - s->lo;
            syms[i] = s->lo + (int64_t)((uint64_t)(7 * sample + 3 * (int64_t)i + sample * (int64_t)i) %
                                        ((uint64_t)(span > 64 ? 64 : span) + 1));
        }
        if (!dim_eval(t, a, syms, &x) || !dim_eval(t, b, syms, &y))
            continue;
        if (x == y)
            return false;
        tried = true;
    }
    return tried;
}

static bool check_type(Verifier *v, const Type *t, const char *what)
{
    if ((unsigned)t->dtype >= DT_COUNT)
        return bad(v, DIAG_IR_TYPE, "%s: unknown element type", what);
    if (t->rank == UNRANKED)
        return !v->bound || bad(v, DIAG_IR_UNBOUND, "%s: unranked after bind", what);
    if (t->rank < 0 || t->rank > MOEC_MAX_RANK)
        return bad(v, DIAG_IR_TYPE, "%s: rank %d", what, t->rank);
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] == DIM_BAD)
            return bad(v, DIAG_IR_TYPE, "%s: axis %d has an extent that overflows", what, i);
        if (dim_upper(v->m->dims, t->dim[i]) < 0)
            return bad(v, DIAG_IR_TYPE, "%s: axis %d has a negative extent", what, i);
        if (dim_lower(v->m->dims, t->dim[i]) >= MOEC_MAX_TENSOR)
            return bad(v, DIAG_IR_TYPE, "%s: axis %d is too large", what, i);
    }
    return true;
}

/* ---- attributes ----------------------------------------------------------------------------------------- */

static bool attr_permitted(const OpInfo *info, AttrKey key)
{
    if (attr_annotates(key))
        return true;
    for (uint32_t i = 0; i < info->n_attrs; i++)
        if (info->attrs[i] == key)
            return true;
    return false;
}

static bool check_attr(Verifier *v, const Attr *a)
{
    int64_t count;
    const char *name = attr_name(a->key);
    switch (attr_kind(a->key)) {
    case AK_FUNC:
        return module_func(v->m, a->i < 0 || a->i > UINT32_MAX ? NONE : (FuncId)a->i) ||
               bad(v, DIAG_IR_NODE, "%s names no function", name);
    case AK_DTYPE:
        return (a->i >= 0 && a->i < DT_COUNT) || bad(v, DIAG_IR_NODE, "%s is no element type", name);
    case AK_DIM:
        return a->d != DIM_BAD || bad(v, DIAG_IR_NODE, "%s overflows", name);
    case AK_DIMS:
        for (uint32_t i = 0; i < a->dims.n; i++)
            if (a->dims.v[i] == DIM_BAD)
                return bad(v, DIAG_IR_NODE, "%s overflows", name);
        return true;
    case AK_TENSOR:
        if (a->t.rank < 0 || a->t.rank > MOEC_MAX_RANK || !tensor_count(&a->t, &count))
            return bad(v, DIAG_IR_NODE, "%s has impossible extents", name);
        return !count || a->t.data || bad(v, DIAG_IR_NODE, "%s has no data", name);
    case AK_INT:
    case AK_FLOAT:
    case AK_INTS:
    case AK_STR: return true;
    }
    return bad(v, DIAG_IR_NODE, "attribute of unknown kind");
}

static bool check_attrs(Verifier *v, const Node *n)
{
    bool seen[AT_COUNT] = {false};
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        AttrKey key = n->attrs[i].key;
        if ((unsigned)key >= AT_COUNT)
            return bad(v, DIAG_IR_NODE, "unknown attribute");
        if (!attr_permitted(op_info(n->op), key))
            return bad(v, DIAG_IR_NODE, "attribute %s does not belong here", attr_name(key));
        if (seen[key])
            return bad(v, DIAG_IR_TWICE, "attribute %s stands twice", attr_name(key));
        seen[key] = true;
        if (!check_attr(v, &n->attrs[i]))
            return false;
    }
    const Attr *place = node_attr(n, AT_place);
    return !place || place->ints.n == n->n_out || bad(v, DIAG_IR_NODE, "place needs one number a result");
}

/* ---- types of results --------------------------------------------------------------------------------------- */

static bool given_iota(Verifier *v, const Func *f, const Node *n)
{
    const Type *t = &f->value[n->out].type;
    int64_t axis = node_int(n, AT_axis, 0);
    if (t->dtype != DT_I64)
        return bad(v, DIAG_IR_TYPE, "the result is not i64");
    return (axis >= 0 && axis < t->rank) ||
           bad(v, DIAG_IR_TYPE, "axis %" PRId64 " of a rank %d result", axis, t->rank);
}

static bool given_reshape(Verifier *v, const Func *f, const Node *n)
{
    const Type *from = &f->value[n->in[0]].type, *to = &f->value[n->out].type;
    Dim a = type_count(v->m->dims, from), b = type_count(v->m->dims, to);
    if (a != DIM_BAD && b != DIM_BAD && dims_differ(v, a, b))
        return bad(v, DIAG_SHAPE_MISFIT, "%s cannot be reshaped to %s: element counts differ",
                   show_type(v, from), show_type(v, to));
    return true;
}

static bool given_broadcast(Verifier *v, const Func *f, const Node *n)
{
    const Type *from = &f->value[n->in[0]].type, *to = &f->value[n->out].type;
    int lead = to->rank - from->rank;
    for (int i = 0; lead >= 0 && i < from->rank; i++)
        if (!dim_is(v->m->dims, from->dim[i], 1) && dims_differ(v, from->dim[i], to->dim[lead + i]))
            lead = -1;
    return lead >= 0 ||
           bad(v, DIAG_SHAPE_MISFIT, "%s does not broadcast to %s", show_type(v, from), show_type(v, to));
}

static bool given_slice(Verifier *v, const Func *f, const Node *n)
{
    DimTable *t = v->m->dims;
    const Type *from = &f->value[n->in[0]].type, *to = &f->value[n->out].type;
    const Attr *start = node_attr(n, AT_start), *step = node_attr(n, AT_step);
    if (to->rank != from->rank)
        return bad(v, DIAG_SHAPE_MISFIT, "operand and result differ in rank");
    if (!start || start->dims.n != (uint32_t)to->rank || (step && step->ints.n != (uint32_t)to->rank))
        return bad(v, DIAG_SHAPE_MISFIT, "start and step need one entry an axis");
    for (int i = 0; i < to->rank; i++) {
        int64_t s = step ? step->ints.v[i] : 1;
        if (s == 0)
            return bad(v, DIAG_SHAPE_MISFIT, "step 0 on axis %d", i);
        if (dim_upper(t, to->dim[i]) < 1)
            continue; /* empty: nothing is read */
        Dim first = start->dims.v[i];
        Dim last = dim_add(t, first, dim_mul(t, dim_const(t, s), dim_sub(t, to->dim[i], dim_const(t, 1))));
        Dim low = s > 0 ? first : last, high = s > 0 ? last : first;
        if (last == DIM_BAD || dim_upper(t, low) < 0 || dim_lower(t, dim_sub(t, high, from->dim[i])) >= 0)
            return bad(v, DIAG_SHAPE_MISFIT, "axis %d reaches outside the operand %s", i, show_type(v, from));
    }
    return true;
}

/* `along` elements along K, at most, stand for one of the operand. */
static bool are_panels(DimTable *t, const Type *from, const Type *to, int along)
{
    int r = to->rank;
    Dim deep = r < 2 ? DIM_BAD : dim_add(t, to->dim[r - 2], dim_const(t, along - 1));
    bool fits = r >= 2 && from->rank == r + 1 && from->dim[r - 1] == dim_floordiv(t, deep, dim_const(t, along));
    for (int i = 0; fits && i < r - 2; i++)
        fits = from->dim[i] == to->dim[i];
    if (fits) { /* the last panel has a column at least */
        Dim room = dim_mul(t, from->dim[r - 2], from->dim[r]), spare = dim_sub(t, room, to->dim[r - 1]);
        fits = spare != DIM_BAD && dim_lower(t, spare) >= 0 && dim_upper(t, dim_sub(t, spare, from->dim[r])) < 0;
    }
    return fits;
}

static bool given_unpack(Verifier *v, const Func *f, const Node *n)
{
    const WeightFormatInfo *w = &weight_formats[node_format(n)];
    const Attr *format = node_attr(n, AT_format);
    WeightFormat known;
    if (format && !weight_format_parse(format->s, &known))
        return bad(v, DIAG_IR_NODE, "there is no format '%s'", diag_show(v->d, format->s));
    const Type *from = &f->value[n->in[0]].type, *to = &f->value[n->out].type;
    DType word = w->per_word ? DT_I32 : to->dtype;
    if (from->dtype != word || (w->per_word && to->dtype != DT_F32))
        return bad(v, DIAG_IR_TYPE, "operand is %s, result %s", dtype_name(from->dtype), dtype_name(to->dtype));
    if ((n->n_in == 2) != (w->block > 0))
        return bad(v, DIAG_IR_TYPE, "%s weights have %s", w->name, w->block ? "scales" : "no scales");
    if (!are_panels(v->m->dims, from, to, w->per_word ? w->per_word : 1))
        return bad(v, DIAG_SHAPE_MISFIT, "%s are no panels of %s", show_type(v, from), show_type(v, to));
    if (n->n_in < 2)
        return true;
    from = &f->value[n->in[1]].type;
    return (from->dtype == DT_F32 && are_panels(v->m->dims, from, to, w->block)) ||
           bad(v, DIAG_SHAPE_MISFIT, "%s are no scales of %s", show_type(v, from), show_type(v, to));
}

static bool given_random(Verifier *v, const Func *f, const Node *n)
{
    const Type *seed = &f->value[n->in[0]].type;
    if (seed->dtype != DT_I64 || seed->rank > 0)
        return bad(v, DIAG_IR_TYPE, "the seed is %s, not i64[]", show_type(v, seed));
    return f->value[n->out].type.dtype == DT_F32 || bad(v, DIAG_IR_TYPE, "the result is not f32");
}

static bool check_given(Verifier *v, const Func *f, const Node *n)
{
    static const struct {
        Op op;
        bool (*check)(Verifier *, const Func *, const Node *);
    } rules[] = {{OP_iota, given_iota},
                 {OP_reshape, given_reshape},
                 {OP_broadcast, given_broadcast},
                 {OP_slice, given_slice},
                 {OP_unpack, given_unpack},
                 {OP_random, given_random}};
    const Type *out = &f->value[n->out].type;
    if (n->n_in && n->op != OP_random) {
        const Type *in = &f->value[n->in[0]].type;
        if (in->dtype != out->dtype && n->op != OP_unpack)
            return bad(v, DIAG_IR_TYPE, "operand is %s, result %s", dtype_name(in->dtype),
                       dtype_name(out->dtype));
        if (in->rank == UNRANKED)
            return true;
    }
    if (out->rank == UNRANKED)
        return bad(v, DIAG_IR_TYPE, "the result's type has to be stated");
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].op == n->op)
            return rules[i].check(v, f, n);
    return true;
}

static bool type_agrees(const Type *stated, const Type *inferred, bool dynamic)
{
    if (type_eq(stated, inferred))
        return true;
    /* Before bind, importers may know more than the rule of a dynamic op tells. */
    return dynamic && stated->dtype == inferred->dtype && inferred->rank == UNRANKED;
}

static bool check_results(Verifier *v, const Func *f, const Node *n)
{
    if (strcmp(infer_rule[n->op], "given") == 0)
        return check_given(v, f, n);
    uint32_t n_out = n->n_out;
    Type *types = arena_array(v->scratch, (size_t)n->n_out + 8, sizeof *types);
    const char *why = "types do not fit";
    if (!node_infer((Module *)v->m, f, n->op, n->in, n->n_in, n->attrs, n->n_attrs, types, &n_out, &why))
        return bad(v, DIAG_SHAPE_MISFIT, "%s", why);
    if (n_out != n->n_out)
        return bad(v, DIAG_IR_NODE, "%u results where %u are due", n->n_out, n_out);
    bool any_unranked = false;
    for (uint32_t i = 0; i < n->n_in; i++)
        any_unranked |= n->in[i] != NONE && f->value[n->in[i]].type.rank == UNRANKED;
    bool dynamic = any_unranked || op_info(n->op)->klass == OC_DYNAMIC || n->op == OP_if;
    for (uint32_t i = 0; i < n_out; i++) {
        const Type *stated = &f->value[n->out + i].type;
        if (!type_agrees(stated, &types[i], dynamic))
            return bad(v, DIAG_IR_TYPE, "result %u is stated as %s but is %s", i, show_type(v, stated),
                       show_type(v, &types[i]));
    }
    return true;
}

/* ---- nodes --------------------------------------------------------------------------------------------------- */

static bool check_arity(Verifier *v, const Func *f, const Node *n, NodeId id, const bool *defined)
{
    const OpInfo *info = op_info(n->op);
    if (n->n_in < (uint32_t)info->in_min || (info->in_max >= 0 && n->n_in > (uint32_t)info->in_max))
        return bad(v, DIAG_IR_NODE, "%u operands", n->n_in);
    if (info->outs >= 0 && n->n_out != (uint32_t)info->outs)
        return bad(v, DIAG_IR_NODE, "%u results where %d are due", n->n_out, info->outs);
    for (uint32_t i = 0; i < n->n_in; i++) {
        ValueId in = n->in[i];
        if (in == NONE) {
            if (i < (uint32_t)info->in_min || info->in_max < 0)
                return bad(v, DIAG_IR_NODE, "operand %u may not be left out", i);
        } else if (in >= f->n_values || !defined[in])
            return bad(v, DIAG_IR_NODE, "operand %u is not defined before it is used", i);
    }
    if (n->out > f->n_values || n->n_out > f->n_values - n->out)
        return bad(v, DIAG_IR_NODE, "results outside the value table");
    for (uint32_t i = 0; i < n->n_out; i++) {
        const Value *out = &f->value[n->out + i];
        if (defined[n->out + i] || out->kind != VK_NODE || out->def != id || out->index != i)
            return bad(v, DIAG_IR_NODE, "result %u and its value do not agree", i);
    }
    return true;
}

static bool check_node(Verifier *v, const Func *f, NodeId id, bool *defined)
{
    const Node *n = &f->node[id];
    if ((unsigned)n->op >= OP_COUNT)
        return bad(v, DIAG_IR_NODE, "node %u: unknown op", id);
    if (n->origin.n)
        diag_push(v->d, "node %u (%s, from '%s')", id, op_info(n->op)->name, diag_show(v->d, n->origin));
    else
        diag_push(v->d, "node %u (%s)", id, op_info(n->op)->name);
    bool ok = check_arity(v, f, n, id, defined) && check_attrs(v, n);
    for (uint32_t i = 0; ok && i < n->n_out; i++)
        ok = check_type(v, &f->value[n->out + i].type, "result");
    if (ok && v->bound && op_info(n->op)->klass == OC_DYNAMIC)
        ok = bad(v, DIAG_IR_UNBOUND, "dynamic op after bind");
    if (ok && v->bound && node_int(n, AT_axis, 0) < 0)
        ok = bad(v, DIAG_IR_UNBOUND, "negative axis after bind");
    ok = ok && check_results(v, f, n);
    for (uint32_t i = 0; ok && i < n->n_out; i++)
        defined[n->out + i] = true;
    diag_pop(v->d);
    return ok;
}

/* ---- functions ------------------------------------------------------------------------------------------------- */

static bool check_inputs(Verifier *v, const Func *f, bool *defined)
{
    NameMap names = {0};
    bool ok = true;
    for (uint32_t i = 0; ok && i < f->n_inputs; i++) {
        ValueId in = f->input[i];
        if (in >= f->n_values || defined[in] || f->value[in].kind != VK_INPUT || f->value[in].def != i)
            ok = bad(v, DIAG_IR_MODULE, "input %u and its value do not agree", i);
        else {
            defined[in] = true;
            ok = check_type(v, &f->value[in].type, "input");
            if (ok && f->role == FR_ENTRY && !namemap_add(&names, f->value[in].name, i))
                ok = bad(v, DIAG_IR_TWICE, "two inputs are named '%s'", diag_show(v->d, f->value[in].name));
        }
    }
    namemap_free(&names);
    return ok;
}

static bool check_param_value(Verifier *v, const Func *f, ValueId id, ValueId *of_param)
{
    const Value *value = &f->value[id];
    if (value->def >= v->m->n_params)
        return bad(v, DIAG_IR_MODULE, "value %u is of no parameter", id);
    const Param *p = &v->m->param[value->def];
    if (of_param[value->def] != NONE)
        return bad(v, DIAG_IR_TWICE, "parameter @%s has two values", diag_show(v->d, p->name));
    of_param[value->def] = id;
    if (f->role == FR_KERNEL)
        return bad(v, DIAG_IR_MODULE, "a kernel names parameter @%s", diag_show(v->d, p->name));
    bool ok = value->type.dtype == p->dtype && value->type.rank == p->rank;
    for (int i = 0; ok && i < p->rank; i++)
        ok = dim_is(v->m->dims, value->type.dim[i], p->dim[i]);
    return ok || bad(v, DIAG_IR_MODULE, "value and parameter @%s differ in type", diag_show(v->d, p->name));
}

static bool check_func(Verifier *v, const Func *f, FuncId id)
{
    if (f->id != id)
        return bad(v, DIAG_IR_MODULE, "its id is %u, its place %u", f->id, id);
    if (!f->name.n)
        return bad(v, DIAG_IR_MODULE, "a function without a name");
    if ((unsigned)f->role > FR_INIT)
        return bad(v, DIAG_IR_MODULE, "unknown role");
    bool *defined = mem_alloc((size_t)f->n_values + 1);
    ValueId *of_param = mem_alloc(((size_t)v->m->n_params + 1) * sizeof *of_param);
    memset(of_param, 0xff, ((size_t)v->m->n_params + 1) * sizeof *of_param);
    bool ok = check_inputs(v, f, defined);
    for (ValueId i = 0; ok && i < f->n_values; i++)
        if (f->value[i].kind == VK_PARAM) {
            ok = check_param_value(v, f, i, of_param);
            defined[i] = true;
        }
    for (NodeId i = 0; ok && i < f->n_nodes; i++)
        ok = check_node(v, f, i, defined);
    NameMap names = {0};
    for (uint32_t i = 0; ok && i < f->n_outputs; i++) {
        if (f->output[i] >= f->n_values || !defined[f->output[i]])
            ok = bad(v, DIAG_IR_MODULE, "output %u is not defined", i);
        else if (f->role == FR_ENTRY && !namemap_add(&names, f->output_name[i], i))
            ok = bad(v, DIAG_IR_TWICE, "two outputs are named '%s'", diag_show(v->d, f->output_name[i]));
    }
    namemap_free(&names);
    for (ValueId i = 0; ok && i < f->n_values; i++)
        if (!defined[i])
            ok = bad(v, DIAG_IR_MODULE, "value %u has no definition", i);
    mem_free(of_param);
    mem_free(defined);
    return ok;
}

/* ---- parameters and the call graph ------------------------------------------------------------------------------- */

static bool check_param(Verifier *v, const Param *p)
{
    int64_t count;
    size_t bytes;
    Tensor t = {.dtype = p->dtype, .rank = p->rank};
    if ((unsigned)p->dtype >= DT_COUNT || (unsigned)p->kind > PK_CONST || p->rank < 0 || p->rank > MOEC_MAX_RANK)
        return bad(v, DIAG_IR_MODULE, "unknown kind, element type or rank");
    memcpy(t.dim, p->dim, sizeof t.dim);
    if (!tensor_count(&t, &count) || !tensor_bytes(&t, &bytes))
        return bad(v, DIAG_IR_MODULE, "impossible extents");
    if (p->init == NONE)
        return true;
    const Func *f = module_func(v->m, p->init);
    if (!f || f->role != FR_INIT)
        return bad(v, DIAG_IR_MODULE, "its init is no init function");
    if (f->n_inputs || f->n_outputs != 1)
        return bad(v, DIAG_IR_MODULE, "its init has inputs, or not one output");
    if (f->output[0] >= f->n_values)
        return bad(v, DIAG_IR_MODULE, "its init's output is not defined");
    const Type *out = &f->value[f->output[0]].type;
    bool ok = out->dtype == p->dtype && out->rank == p->rank;
    for (int i = 0; ok && i < p->rank; i++)
        ok = dim_is(v->m->dims, out->dim[i], p->dim[i]);
    return ok || bad(v, DIAG_IR_MODULE, "its init computes %s", show_type(v, out));
}

/* Who calls whom, parameter inits included, must be free of cycles and not too deep: functions are visited when all
 * they reach has been, an explicit stack standing in for recursion. */

/* What f calls, `calls` of them, then the functions its parameters are made by. */
static void func_calls(const Module *m, const Func *f, FuncId **out, uint32_t *calls, uint32_t *n)
{
    Vec(FuncId) list = {0};
    for (NodeId i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_attrs; k++)
            if (attr_kind(f->node[i].attrs[k].key) == AK_FUNC)
                vec_push(&list, (FuncId)f->node[i].attrs[k].i);
    *calls = (uint32_t)list.count;
    for (ValueId i = 0; i < f->n_values; i++)
        if (f->value[i].kind == VK_PARAM && m->param[f->value[i].def].init != NONE)
            vec_push(&list, m->param[f->value[i].def].init);
    *out = list.item;
    *n = (uint32_t)list.count;
}

static bool check_calls(Verifier *v)
{
    enum { WHITE, GREY, BLACK };
    const Module *m = v->m;
    struct Visit {
        FuncId id;
        FuncId *callee;
        uint32_t calls, n, next;
    } *stack = mem_alloc((LIMIT_CALL_DEPTH + 1) * sizeof *stack);
    char *colour = mem_alloc((size_t)m->n_funcs + 1);
    uint32_t *height = mem_alloc(((size_t)m->n_funcs + 1) * sizeof *height); /* calls inside each other below it */
    bool ok = true;
    for (FuncId root = 0; ok && root < m->n_funcs; root++) {
        int depth = 0;
        if (!m->func[root] || colour[root] != WHITE)
            continue;
        stack[0] = (struct Visit){.id = root};
        func_calls(m, m->func[root], &stack[0].callee, &stack[0].calls, &stack[0].n);
        colour[root] = GREY;
        while (depth >= 0) {
            struct Visit *top = &stack[depth];
            if (!ok || top->next == top->n) {
                colour[top->id] = BLACK;
                for (uint32_t i = 0; ok && i < top->calls; i++)
                    height[top->id] = height[top->id] > height[top->callee[i]] ? height[top->id] : height[top->callee[i]] + 1;
                if (height[top->id] > LIMIT_CALL_DEPTH)
                    ok = bad(v, DIAG_IR_MODULE, "function @%s: calls nest deeper than %d", diag_show(v->d, m->func[top->id]->name),
                             LIMIT_CALL_DEPTH);
                mem_free(top->callee);
                depth--;
                continue;
            }
            FuncId to = top->callee[top->next++];
            if (colour[to] == GREY)
                ok = bad(v, DIAG_IR_MODULE, "function @%s calls itself", diag_show(v->d, m->func[to]->name));
            else if (colour[to] == WHITE && depth == LIMIT_CALL_DEPTH)
                ok = bad(v, DIAG_IR_MODULE, "calls nest deeper than %d", LIMIT_CALL_DEPTH);
            else if (colour[to] == WHITE) {
                colour[to] = GREY;
                stack[++depth] = (struct Visit){.id = to};
                func_calls(m, m->func[to], &stack[depth].callee, &stack[depth].calls, &stack[depth].n);
            }
        }
    }
    mem_free(colour);
    mem_free(height);
    mem_free(stack);
    return ok;
}

static bool check_symbols(Verifier *v)
{
    bool ok = true;
    for (size_t i = 0; i < dim_sym_count(v->m->dims); i++) {
        const DimSym *s = dim_sym_at(v->m->dims, (uint32_t)i);
        if (s->lo < 0 || s->lo > s->hi)
            ok = bad(v, DIAG_IR_MODULE, "symbol %s has impossible bounds", diag_show(v->d, s->name));
    }
    return ok;
}

bool module_verify(const Module *m, Diag *d, bool bound)
{
    Verifier v = {.m = m, .d = d, .bound = bound, .scratch = arena_new()};
    NameMap params = {0}, funcs = {0};
    bool ok = check_symbols(&v);
    for (ParamId i = 0; i < m->n_params; i++) {
        diag_push(d, "parameter @%s", diag_show(d, m->param[i].name));
        if (!namemap_add(&params, m->param[i].name, i))
            ok = bad(&v, DIAG_IR_TWICE, "the name stands twice");
        ok = check_param(&v, &m->param[i]) && ok;
        diag_pop(d);
    }
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f)
            continue;
        diag_push(d, "function @%s", diag_show(d, f->name));
        if (!namemap_add(&funcs, f->name, i))
            ok = bad(&v, DIAG_IR_TWICE, "the name stands twice");
        ok = check_func(&v, f, i) && ok;
        diag_pop(d);
    }
    ok = ok && check_calls(&v);
    namemap_free(&params);
    namemap_free(&funcs);
    arena_free(v.scratch);
    return ok;
}
