/* One node: its operator's row, its attributes, and the short forms rules build with.
 *
 * Attributes are checked against the row before the rule runs: unknown names, wrong types and second
 * occurrences are errors, so rules may ask for what the row lists without further care. */
#include "onnx_impl.h"

#include <stdio.h>
#include <string.h>

/* ---- the tables ---------------------------------------------------------------------------------- */

static bool row_is(const OpRow *r, Str domain, Str name)
{
    return str_is(name, r->name) && str_is(domain, r->domain);
}

const OpRow *onnx_op_find(Str domain, Str name, int opset)
{
    static const OpRow *const tables[] = {onnx_ops_math, onnx_ops_shape, onnx_ops_reduce, onnx_ops_nn,
                                          onnx_ops_quant};
    if (str_is(domain, "ai.onnx"))
        domain = (Str){0};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const OpRow *r = tables[t]; r->name != NULL; r++)
            if (row_is(r, domain, name) && (domain.n > 0 || (opset >= r->since && opset <= r->until)))
                return r;
    return NULL;
}

/* ---- attributes ------------------------------------------------------------------------------------ */

typedef struct AttrForm {
    char code;
    int type; /* AttributeProto.type */
    const char *name;
} AttrForm;
static const AttrForm attr_forms[] = {{'f', 1, "a float"},   {'i', 2, "an int"},     {'s', 3, "a string"},
                                      {'t', 4, "a tensor"},  {'g', 5, "a graph"},    {'F', 6, "floats"},
                                      {'I', 7, "ints"},      {'S', 8, "strings"},    {0, 0, NULL}};

static bool form_present(const Onnx__AttributeProto *a, char code)
{
    switch (code) {
    case 'f':
        return a->has_f;
    case 'i':
        return a->has_i;
    case 's':
        return a->has_s;
    case 't':
        return a->t != NULL;
    case 'g':
        return a->g != NULL;
    default:
        return true; /* an empty list has no trace on the wire */
    }
}

/* The form code the row gives an attribute, 0 when it has none. *required tells of `!`. */
static char form_code(const char *attrs, Str name, bool *required)
{
    for (const char *p = attrs; *p != 0;) {
        const char *end = strchr(p, ':');
        CHECK(end && end[1]);
        size_t n = (size_t)(end - p);
        *required = end[2] == '!';
        if (n == name.n && memcmp(p, name.p, n) == 0)
            return end[1];
        p = end + 2 + (*required ? 1 : 0);
        p += *p == ' ';
    }
    return 0;
}

static bool attrs_check(NodeCtx *c)
{
    const Onnx__NodeProto *n = c->node;
    if (n->n_attribute > LIMIT_NODE_ATTRS)
        return ctx_error(c, DIAG_LIMIT, "has %zu attributes; the limit is %d", n->n_attribute,
                         LIMIT_NODE_ATTRS);
    bool required = false;
    for (size_t i = 0; i < n->n_attribute; i++) {
        const Onnx__AttributeProto *a = n->attribute[i];
        const char *name = a->name != NULL ? a->name : "";
        char code = form_code(c->row->attrs, str_c(name), &required);
        if (code == 0)
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "attribute '%s' is not one of %s",
                             diag_show(c->im->d, str_c(name)), c->row->name);
        if (a->ref_attr_name != NULL && a->ref_attr_name[0] != 0)
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE,
                             "attribute '%s' refers to a function's attribute outside of a function", name);
        const AttrForm *form = attr_forms;
        while (form->code != code)
            form++;
        bool type_good = a->has_type && a->type != 0 ? (int)a->type == form->type : form_present(a, code);
        if (!type_good || !form_present(a, code))
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "attribute '%s' must be %s", name, form->name);
        for (size_t j = 0; j < i; j++)
            if (n->attribute[j]->name != NULL && strcmp(n->attribute[j]->name, name) == 0)
                return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "attribute '%s' stands twice", name);
    }
    for (const char *p = strchr(c->row->attrs, '!'); p != NULL; p = strchr(p + 1, '!')) {
        const char *begin = p - 2;
        while (begin > c->row->attrs && begin[-1] != ' ')
            begin--;
        char name[32] = {0};
        memcpy(name, begin, (size_t)(p - 2 - begin));
        if (!ctx_has(c, name))
            return ctx_error(c, DIAG_ONNX_ATTRIBUTE, "attribute '%s' is missing", name);
    }
    return true;
}

const Onnx__AttributeProto *ctx_attr(const NodeCtx *c, const char *name)
{
    for (size_t i = 0; i < c->node->n_attribute; i++)
        if (c->node->attribute[i]->name != NULL && strcmp(c->node->attribute[i]->name, name) == 0)
            return c->node->attribute[i];
    return NULL;
}

bool ctx_has(const NodeCtx *c, const char *name)
{
    return ctx_attr(c, name) != NULL;
}

int64_t ctx_int(const NodeCtx *c, const char *name, int64_t otherwise)
{
    const Onnx__AttributeProto *a = ctx_attr(c, name);
    return a != NULL ? a->i : otherwise;
}

double ctx_float(const NodeCtx *c, const char *name, double otherwise)
{
    const Onnx__AttributeProto *a = ctx_attr(c, name);
    return a != NULL ? (double)a->f : otherwise;
}

Str ctx_str(const NodeCtx *c, const char *name, const char *otherwise)
{
    const Onnx__AttributeProto *a = ctx_attr(c, name);
    return a != NULL ? (Str){(const char *)a->s.data, a->s.len} : str_c(otherwise);
}

bool ctx_ints(const NodeCtx *c, const char *name, const int64_t **v, uint32_t *n)
{
    const Onnx__AttributeProto *a = ctx_attr(c, name);
    *v = a != NULL ? a->ints : NULL;
    *n = a != NULL ? (uint32_t)a->n_ints : 0;
    return a != NULL;
}

bool ctx_error(NodeCtx *c, DiagCode code, const char *fmt, ...)
{
    c->failed = true;
    va_list ap;
    va_start(ap, fmt);
    char line[600];
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    return diag_error(c->im->d, code, c->im->file->path, "%s: %s", c->node->op_type, line);
}

/* ---- building --------------------------------------------------------------------------------------- */

ValueId emit(NodeCtx *c, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs)
{
    if (c->failed)
        return NONE;
    uint32_t room = c->node->n_output > 8 ? (uint32_t)c->node->n_output : 8, n_out = room;
    Type few[8], *types = room > 8 ? arena_array(c->m->arena, room, sizeof *types) : few;
    const char *why = NULL;
    if (!node_infer(c->m, c->f, op, in, n_in, attrs, n_attrs, types, &n_out, &why)) {
        ctx_error(c, DIAG_SHAPE_MISFIT, "%s", why != NULL ? why : "operands do not fit");
        return NONE;
    }
    return func_node_typed(c->m, c->f, op, in, n_in, attrs, n_attrs, types, n_out, c->origin);
}

ValueId emit1(NodeCtx *c, Op op, ValueId a)
{
    return emit(c, op, &a, 1, NULL, 0);
}

ValueId emit2(NodeCtx *c, Op op, ValueId a, ValueId b)
{
    return emit(c, op, (ValueId[]){a, b}, 2, NULL, 0);
}

ValueId emit3(NodeCtx *c, Op op, ValueId a, ValueId b, ValueId d)
{
    return emit(c, op, (ValueId[]){a, b, d}, 3, NULL, 0);
}

ValueId emit1_int(NodeCtx *c, Op op, ValueId a, AttrKey key, int64_t v)
{
    Attr at = attr_i(key, v);
    return emit(c, op, &a, 1, &at, 1);
}

ValueId emit_cast(NodeCtx *c, ValueId a, DType to)
{
    if (c->failed || value_dtype(c, a) == to)
        return a;
    return emit1_int(c, OP_cast, a, AT_to, to);
}

ValueId emit_scalar(NodeCtx *c, DType t, double v)
{
    Tensor x = {.dtype = t};
    CHECK(tensor_alloc(c->m->arena, &x));
    tensor_set_f64(&x, 0, v);
    Attr at = attr_t(AT_value, x);
    return emit(c, OP_const, NULL, 0, &at, 1);
}

ValueId emit_ints(NodeCtx *c, const int64_t *v, uint32_t n)
{
    Tensor x = {.dtype = DT_I64, .rank = 1, .dim = {n}};
    CHECK(tensor_alloc(c->m->arena, &x));
    for (uint32_t i = 0; i < n; i++)
        tensor_set_i64(&x, i, v[i]);
    Attr at = attr_t(AT_value, x);
    return emit(c, OP_const, NULL, 0, &at, 1);
}

ValueId emit_reduce(NodeCtx *c, const char *kind, ValueId a, const int64_t *axes, uint32_t n_axes, bool keep)
{
    Attr at[3] = {attr_s(AT_kind, str_c(kind)), attr_ints(AT_axes, axes, n_axes), attr_i(AT_keep, keep)};
    if (axes == NULL)
        at[1] = at[2];
    return emit(c, OP_dyn_reduce, &a, 1, at, axes == NULL ? 2 : 3);
}

DType value_dtype(const NodeCtx *c, ValueId v)
{
    return v == NONE ? DT_F32 : c->f->value[v].type.dtype;
}

int value_rank(const NodeCtx *c, ValueId v)
{
    return v == NONE ? UNRANKED : c->f->value[v].type.rank;
}

bool value_literal(const NodeCtx *c, ValueId v, Tensor *out)
{
    if (v == NONE)
        return false;
    ParamId p;
    if (value_param(c->f, v, &p)) {
        const Param *x = &c->m->param[p];
        *out = (Tensor){.dtype = x->dtype, .rank = x->rank, .data = (void *)(uintptr_t)x->data};
        memcpy(out->dim, x->dim, sizeof out->dim);
        return x->data != NULL;
    }
    const Node *n = value_node(c->f, v);
    if (n == NULL || n->op != OP_const)
        return false;
    *out = node_attr(n, AT_value)->t;
    return true;
}

Str onnx_str(Module *m, const char *s)
{
    if (s == NULL)
        return (Str){0};
    size_t n = strlen(s);
    return (Str){arena_strndup(m->arena, s, n), n};
}

/* ---- a node --------------------------------------------------------------------------------------------- */

static Str node_label(Module *m, const Onnx__NodeProto *n)
{
    if (n->name != NULL && n->name[0] != 0)
        return onnx_str(m, n->name);
    for (size_t i = 0; i < n->n_output; i++)
        if (n->output[i][0] != 0)
            return onnx_str(m, n->output[i]);
    return onnx_str(m, n->op_type);
}

static bool arity_check(NodeCtx *c, uint32_t n_in)
{
    const OpRow *r = c->row;
    size_t name = c->node->name != NULL ? strlen(c->node->name) : 0;
    if (name > LIMIT_NAME)
        return ctx_error(c, DIAG_LIMIT, "a name of %zu bytes; the limit is %d", name, LIMIT_NAME);
    if (n_in > LIMIT_NODE_INPUTS)
        return ctx_error(c, DIAG_LIMIT, "has %u inputs; the limit is %d", n_in, LIMIT_NODE_INPUTS);
    if (n_in < (uint32_t)r->in_min)
        return ctx_error(c, DIAG_ONNX_ARITY, "has %u inputs, needs %d", n_in, r->in_min);
    if (r->in_max >= 0 && n_in > (uint32_t)r->in_max)
        return ctx_error(c, DIAG_ONNX_ARITY, "has %u inputs, takes %d", n_in, r->in_max);
    if (c->n_out == 0)
        return ctx_error(c, DIAG_ONNX_ARITY, "has no outputs");
    if (r->out_max >= 0 && c->n_out > (uint32_t)r->out_max)
        return ctx_error(c, DIAG_ONNX_ARITY, "has %u outputs; %d are supported", c->n_out, r->out_max);
    return true;
}

static bool operands_find(NodeCtx *c, bool *poisoned)
{
    for (uint32_t i = 0; i < c->n_in; i++) {
        const char *name = c->node->input[i];
        if (name[0] == 0) {
            c->in[i] = NONE;
            if (i < (uint32_t)c->row->in_min)
                return ctx_error(c, DIAG_ONNX_ARITY, "input %u must not be left out", i);
            continue;
        }
        bool poison = false;
        if (!scope_value(c->im, c->scope, str_c(name), &c->in[i], &poison))
            return ctx_error(c, DIAG_ONNX_NAME, "input '%s' is not defined before it is used",
                             diag_show(c->im->d, str_c(name)));
        *poisoned |= poison;
    }
    return true;
}

static bool results_define(NodeCtx *c)
{
    bool ok = true;
    for (uint32_t i = 0; i < c->n_out; i++) {
        const char *name = c->node->output[i];
        if (name[0] == 0)
            continue;
        Binding b = {.kind = BIND_POISON, .value = NONE, .name = onnx_str(c->m, name)};
        if (!c->failed && c->out[i] == NONE)
            ctx_error(c, DIAG_ONNX_ARITY, "output %u is not supported", i);
        if (!c->failed) {
            b.kind = BIND_VALUE;
            b.value = c->out[i];
            Value *v = &c->f->value[c->out[i]];
            if (v->kind == VK_NODE && v->name.n == 0)
                v->name = b.name;
        }
        if (!scope_define(c->scope, b))
            ok = ctx_error(c, DIAG_ONNX_NAME, "output '%s' is the name of another value",
                           diag_show(c->im->d, b.name));
    }
    return ok;
}

bool onnx_node_import(Import *im, Scope *scope, const Onnx__NodeProto *n)
{
    Str domain = str_c(n->domain != NULL ? n->domain : ""), op = str_c(n->op_type != NULL ? n->op_type : "");
    NodeCtx c = {.im = im, .m = im->m, .f = scope->f, .scope = scope, .node = n, .opset = im->opset};
    c.row = onnx_op_find(domain, op, im->opset);
    CHECK(c.row != NULL); /* the graph was looked through before */
    c.origin = node_label(im->m, n);
    c.n_out = (uint32_t)n->n_output;
    while (c.n_out > 0 && n->output[c.n_out - 1][0] == 0)
        c.n_out--;
    diag_push(im->d, "node '%s'", diag_show(im->d, c.origin));
    bool poisoned = false;
    Arena *scratch = arena_new();
    uint32_t n_in = (uint32_t)n->n_input;
    c.out = arena_array(scratch, c.n_out + 1, sizeof *c.out);
    for (uint32_t i = 0; i < c.n_out; i++)
        c.out[i] = NONE;
    if (arity_check(&c, n_in) && attrs_check(&c)) {
        uint32_t room = n_in > 16 ? n_in : 16; /* rules read in[i] of the few operands an operator can have */
        c.in = arena_array(scratch, room, sizeof *c.in);
        for (uint32_t i = 0; i < room; i++)
            c.in[i] = NONE;
        c.n_in = n_in;
        if (operands_find(&c, &poisoned)) {
            while (c.n_in > 0 && c.in[c.n_in - 1] == NONE && !poisoned)
                c.n_in--;
            if (!poisoned)
                c.row->rule(&c);
        }
    }
    bool reported = c.failed;
    c.failed |= poisoned;
    bool defined = results_define(&c);
    diag_pop(im->d);
    arena_free(scratch);
    if (reported || !defined || c.failed)
        im->failed = true;
    return !im->failed;
}
