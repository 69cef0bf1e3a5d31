/* Text to IR: the exact inverse of print.c. compiler/README.md has the grammar.
 *
 * The result has the shape of a module but is not trusted: module_verify decides whether it is one. Functions may be
 * named before they stand in the text, so their names are collected first. An error ends the function it is in;
 * the rest of the text is still read, to report more than one. Nothing recurses but dim_parse, which is bounded. */
#include "namemap.h"
#include "parse_lex.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ERRORS = 20 };

typedef struct Parser {
    Lex x;
    NameMap funcs;  /* name -> FuncId */
    NameMap params; /* name -> ParamId */
    /* the function being read */
    NameMap names; /* value name -> ValueId */
    Vec(Value) values;
    Vec(Node) nodes;
    Vec(ValueId) inputs;
    Vec(ValueId) outputs;
    Vec(Str) output_names;
    Vec(ValueId) param_value; /* by ParamId: the value it has in this function */
    Vec(ParamId) params_used;
    /* one line's lists */
    Vec(ValueId) operands;
    Vec(Str) results;
    Vec(bool) result_unnamed;
    Vec(int64_t) ints;
    Vec(Dim) dims;
} Parser;

/* ---- header lines ------------------------------------------------------------------------------ */

static bool parse_sym(Parser *p)
{
    Lex *x = &p->x;
    Str name;
    int64_t lo, hi = DIM_UNBOUNDED;
    if (!lex_symbol(x, &name))
        return false;
    if (!lex_want(x, '=') || !lex_int(x, &lo) || !lex_want(x, '.') || !lex_want(x, '.'))
        return false;
    if (!lex_take(x, '*') && !lex_int(x, &hi))
        return false;
    if (lo > hi || lo < 0)
        return lex_fail(x, DIAG_IR_SYNTAX, "bounds of symbol %s: need 0 <= low <= high",
                        diag_show(x->d, name));
    size_t known = dim_sym_count(x->m->dims);
    uint32_t id;
    Dim d = dim_sym(x->m->dims, name);
    if (dim_sym_count(x->m->dims) == known || !dim_as_sym(x->m->dims, d, &id))
        return lex_fail(x, DIAG_IR_TWICE, "symbol %s is declared twice", diag_show(x->d, name));
    dim_sym_at(x->m->dims, id)->lo = lo;
    dim_sym_at(x->m->dims, id)->hi = hi;
    return lex_end_line(x);
}

static bool parse_seq2seq(Parser *p)
{
    static const struct {
        const char *name;
        size_t offset;
        bool wide;
    } field[] = {{"pad", offsetof(Seq2Seq, pad), true},
                 {"eos", offsetof(Seq2Seq, eos), true},
                 {"start", offsetof(Seq2Seq, start), true},
                 {"vocab", offsetof(Seq2Seq, vocab), true},
                 {"enc_layers", offsetof(Seq2Seq, enc_layers), false},
                 {"dec_layers", offsetof(Seq2Seq, dec_layers), false},
                 {"heads", offsetof(Seq2Seq, heads), false},
                 {"head_width", offsetof(Seq2Seq, head_width), false},
                 {"width", offsetof(Seq2Seq, width), false}};
    enum { N_FIELDS = sizeof field / sizeof *field };
    Lex *x = &p->x;
    Seq2Seq *s = &x->m->s2s;
    s->present = true;
    if (!lex_want(x, '{'))
        return false;
    do {
        Str key;
        int64_t v;
        size_t i = 0;
        if (!lex_word(x, &key) || !lex_want(x, '=') || !lex_int(x, &v))
            return false;
        while (i < N_FIELDS && !str_is(key, field[i].name))
            i++;
        if (i == N_FIELDS)
            return lex_fail(x, DIAG_IR_UNKNOWN, "seq2seq has no field %s", diag_show(x->d, key));
        if (!field[i].wide && (v < 0 || v > UINT32_MAX))
            return lex_fail(x, DIAG_IR_SYNTAX, "%s is out of range", field[i].name);
        if (field[i].wide)
            memcpy((char *)s + field[i].offset, &v, sizeof v);
        else
            memcpy((char *)s + field[i].offset, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
    } while (lex_take(x, ','));
    return lex_want(x, '}') && lex_end_line(x);
}

static bool parse_func_ref(Parser *p, FuncId *out)
{
    Str name;
    bool digits;
    if (!lex_name(&p->x, '@', &name, &digits))
        return false;
    return namemap_find(&p->funcs, name, out) ||
           lex_fail(&p->x, DIAG_IR_UNKNOWN, "there is no function %s", diag_show(p->x.d, name));
}

static bool parse_param(Parser *p)
{
    static const char *const kinds[] = {"frozen", "adapter", "const"};
    Lex *x = &p->x;
    Param param = {.init = NONE};
    Tensor t;
    bool digits;
    size_t kind = 0;
    if (!lex_name(x, '@', &param.name, &digits) || !lex_want(x, ':') || !lex_extents(x, &t))
        return false;
    while (kind < 3 && !lex_keyword(x, kinds[kind]))
        kind++;
    if (kind == 3)
        return lex_fail(x, DIAG_IR_SYNTAX, "expected frozen, adapter or const");
    param.kind = (ParamKind)kind;
    if (lex_take(x, '=')) {
        if (!lex_elements(x, &t))
            return false;
        param.data = t.data;
    }
    if (lex_keyword(x, "init") && !parse_func_ref(p, &param.init))
        return false;
    if (lex_keyword(x, "site") && !lex_quoted(x, &param.site))
        return false;
    if (lex_keyword(x, "from") && !lex_quoted(x, &param.origin))
        return false;
    if (namemap_find(&p->params, param.name, NULL))
        return lex_fail(x, DIAG_IR_TWICE, "parameter %s stands twice", diag_show(x->d, param.name));
    param.dtype = t.dtype;
    param.rank = t.rank;
    memcpy(param.dim, t.dim, sizeof param.dim);
    ParamId id = module_param(x->m, param);
    namemap_add(&p->params, x->m->param[id].name, id);
    vec_push(&p->param_value, NONE);
    return lex_end_line(x);
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

static bool parse_attr_value(Parser *p, Attr *a)
{
    Lex *x = &p->x;
    Arena *arena = x->m->arena;
    switch (attr_kind(a->key)) {
    case AK_INT: return lex_int(x, &a->i);
    case AK_FLOAT: return lex_f64(x, &a->f);
    case AK_DIM: return lex_dim(x, &a->d);
    case AK_STR: return lex_quoted(x, &a->s);
    case AK_TENSOR: return lex_extents(x, &a->t) && lex_elements(x, &a->t);
    case AK_DTYPE: {
        DType t;
        if (!lex_dtype(x, &t))
            return false;
        a->i = t;
        return true;
    }
    case AK_FUNC: {
        FuncId id;
        if (!parse_func_ref(p, &id))
            return false;
        a->i = id;
        return true;
    }
    case AK_INTS:
        p->ints.count = 0;
        if (!lex_want(x, '['))
            return false;
        while (!lex_peek(x, ']')) {
            int64_t v;
            if ((p->ints.count && !lex_want(x, ',')) || !lex_int(x, &v))
                return false;
            vec_push(&p->ints, v);
        }
        a->ints.n = (uint32_t)p->ints.count;
        a->ints.v = arena_copy(arena, p->ints.item, p->ints.count * sizeof(int64_t));
        return lex_want(x, ']');
    case AK_DIMS:
        p->dims.count = 0;
        if (!lex_want(x, '['))
            return false;
        while (!lex_peek(x, ']')) {
            Dim v;
            if ((p->dims.count && !lex_want(x, ',')) || !lex_dim(x, &v))
                return false;
            vec_push(&p->dims, v);
        }
        a->dims.n = (uint32_t)p->dims.count;
        a->dims.v = arena_copy(arena, p->dims.item, p->dims.count * sizeof(Dim));
        return lex_want(x, ']');
    }
    BUG("attribute kind");
}

static bool parse_attrs(Parser *p, Node *n)
{
    Lex *x = &p->x;
    Attr attrs[AT_COUNT];
    bool seen[AT_COUNT] = {false};
    if (!lex_take(x, '{'))
        return true;
    do {
        Str key;
        Attr a = {0};
        if (!lex_word(x, &key))
            return false;
        if (!attr_find(key, &a.key))
            return lex_fail(x, DIAG_IR_UNKNOWN, "there is no attribute %s", diag_show(x->d, key));
        if (seen[a.key])
            return lex_fail(x, DIAG_IR_TWICE, "attribute %s stands twice", attr_name(a.key));
        seen[a.key] = true;
        if (!lex_want(x, '=') || !parse_attr_value(p, &a))
            return false;
        attrs[n->n_attrs++] = a;
    } while (lex_take(x, ','));
    n->attrs = arena_copy(x->m->arena, attrs, n->n_attrs * sizeof(Attr));
    return lex_want(x, '}');
}

static bool add_value(Parser *p, Value v, bool unnamed, Str name)
{
    if (!namemap_add(&p->names, name, (ValueId)p->values.count))
        return lex_fail(&p->x, DIAG_IR_TWICE, "value %s is defined twice", diag_show(p->x.d, name));
    v.name = name;
    if (unnamed)
        v.name = (Str){0};
    vec_push(&p->values, v);
    return true;
}

static bool param_operand(Parser *p, ValueId *out)
{
    Lex *x = &p->x;
    Str name;
    bool digits;
    ParamId id;
    if (!lex_name(x, '@', &name, &digits))
        return false;
    if (!namemap_find(&p->params, name, &id))
        return lex_fail(x, DIAG_IR_UNKNOWN, "there is no parameter %s", diag_show(x->d, name));
    if (p->param_value.item[id] == NONE) {
        const Param *param = &x->m->param[id];
        Value v = {.kind = VK_PARAM, .def = id, .name = param->name};
        v.type = (Type){.dtype = param->dtype, .rank = param->rank};
        for (int i = 0; i < param->rank; i++)
            v.type.dim[i] = dim_const(x->m->dims, param->dim[i]);
        p->param_value.item[id] = (ValueId)p->values.count;
        vec_push(&p->params_used, id);
        vec_push(&p->values, v);
    }
    *out = p->param_value.item[id];
    return true;
}

static bool parse_operand(Parser *p, ValueId *out)
{
    Lex *x = &p->x;
    Str name;
    bool digits;
    *out = NONE;
    if (lex_keyword(x, "_"))
        return true;
    if (lex_peek(x, '@'))
        return param_operand(p, out);
    if (!lex_name(x, '%', &name, &digits))
        return false;
    return namemap_find(&p->names, name, out) ||
           lex_fail(x, DIAG_IR_UNKNOWN, "value %s is not defined above", diag_show(x->d, name));
}

static bool parse_operands(Parser *p, Node *n)
{
    Lex *x = &p->x;
    p->operands.count = 0;
    if (!lex_peek(x, '%') && !lex_peek(x, '@') && !lex_peek(x, '_'))
        return true;
    do {
        ValueId v;
        if (!parse_operand(p, &v))
            return false;
        if (p->operands.count == LIMIT_IR_OPERANDS)
            return lex_fail(x, DIAG_LIMIT, "more than %d operands", LIMIT_IR_OPERANDS);
        vec_push(&p->operands, v);
    } while (lex_take(x, ','));
    n->n_in = (uint32_t)p->operands.count;
    n->in = arena_copy(x->m->arena, p->operands.item, n->n_in * sizeof(ValueId));
    return true;
}

static bool parse_results(Parser *p)
{
    Lex *x = &p->x;
    p->results.count = p->result_unnamed.count = 0;
    if (!lex_peek(x, '%'))
        return true;
    do {
        Str name;
        bool digits;
        if (!lex_name(x, '%', &name, &digits))
            return false;
        if (p->results.count == LIMIT_IR_OPERANDS)
            return lex_fail(x, DIAG_LIMIT, "more than %d results", LIMIT_IR_OPERANDS);
        vec_push(&p->results, name);
        vec_push(&p->result_unnamed, digits);
    } while (lex_take(x, ','));
    return lex_want(x, '=');
}

static bool parse_node(Parser *p)
{
    Lex *x = &p->x;
    Node n = {0};
    Str op;
    if (!parse_results(p) || !lex_word(x, &op))
        return false;
    if (!op_find(op, &n.op))
        return lex_fail(x, DIAG_IR_UNKNOWN, "there is no op %s", diag_show(x->d, op));
    if (!parse_operands(p, &n) || !parse_attrs(p, &n))
        return false;
    n.n_out = (uint32_t)p->results.count;
    n.out = (ValueId)p->values.count;
    for (uint32_t i = 0; i < n.n_out; i++) {
        Value v = {.kind = VK_NODE, .def = (NodeId)p->nodes.count, .index = i};
        if (!lex_want(x, i ? ',' : ':') || !lex_type(x, &v.type) ||
            !add_value(p, v, p->result_unnamed.item[i], p->results.item[i]))
            return false;
    }
    if (lex_take(x, '!') && !lex_quoted(x, &n.origin))
        return false;
    vec_push(&p->nodes, n);
    return lex_end_line(x);
}

/* ---- functions ------------------------------------------------------------------------------------------ */

static bool parse_signature(Parser *p, Str *name, FuncRole *role)
{
    static const char *const roles[] = {"entry", "body", "kernel", "init"};
    Lex *x = &p->x;
    bool digits;
    size_t r = 0;
    if (!lex_name(x, '@', name, &digits))
        return false;
    while (r < 4 && !lex_keyword(x, roles[r]))
        r++;
    if (r == 4)
        return lex_fail(x, DIAG_IR_SYNTAX, "expected entry, body, kernel or init");
    *role = (FuncRole)r;
    if (!lex_want(x, '('))
        return false;
    while (!lex_peek(x, ')')) {
        Str input;
        Value v = {.kind = VK_INPUT, .def = (uint32_t)p->inputs.count};
        if (p->inputs.count && !lex_want(x, ','))
            return false;
        if (!lex_name(x, '%', &input, &digits) || !lex_want(x, ':') || !lex_type(x, &v.type))
            return false;
        vec_push(&p->inputs, (ValueId)p->values.count);
        if (!add_value(p, v, digits, input))
            return false;
    }
    return lex_want(x, ')') && lex_want(x, '{') && lex_end_line(x);
}

static bool parse_return(Parser *p)
{
    Lex *x = &p->x;
    while (!lex_at_end(x)) {
        ValueId v;
        Str name = {0};
        if ((p->outputs.count && !lex_want(x, ',')) || !parse_operand(p, &v))
            return false;
        if (lex_peek(x, '"') && !lex_quoted(x, &name))
            return false;
        vec_push(&p->outputs, v);
        vec_push(&p->output_names, name);
    }
    if (!lex_end_line(x) || !lex_next_line(x))
        return false;
    return lex_want(x, '}') && lex_end_line(x);
}

static void func_reset(Parser *p)
{
    for (size_t i = 0; i < p->params_used.count; i++)
        p->param_value.item[p->params_used.item[i]] = NONE;
    p->values.count = p->nodes.count = p->inputs.count = p->outputs.count = 0;
    p->output_names.count = p->params_used.count = 0;
    namemap_free(&p->names);
}

/* Arrays as they stand in the text: func_end would drop dead nodes, and dumps are to be read back exactly. */
static void func_finish(Parser *p, Str name, FuncRole role)
{
    Module *m = p->x.m;
    Func *f = func_begin(m, name, role);
    f->n_values = f->room_values = (uint32_t)p->values.count;
    f->value = arena_copy(m->arena, p->values.item, p->values.count * sizeof(Value));
    f->n_nodes = f->room_nodes = (uint32_t)p->nodes.count;
    f->node = arena_copy(m->arena, p->nodes.item, p->nodes.count * sizeof(Node));
    f->n_inputs = f->room_inputs = (uint32_t)p->inputs.count;
    f->input = arena_copy(m->arena, p->inputs.item, p->inputs.count * sizeof(ValueId));
    f->n_outputs = f->room_outputs = (uint32_t)p->outputs.count;
    f->output = arena_copy(m->arena, p->outputs.item, p->outputs.count * sizeof(ValueId));
    f->output_name = arena_copy(m->arena, p->output_names.item, p->outputs.count * sizeof(Str));
    CHECK(namemap_find(&p->funcs, name, &f->id));
    m->func[f->id] = f;
}

static bool parse_func(Parser *p)
{
    Lex *x = &p->x;
    Str name;
    FuncRole role = FR_ENTRY;
    if (!parse_signature(p, &name, &role))
        return false;
    for (;;) {
        if (!lex_next_line(x))
            return lex_fail(x, DIAG_IR_SYNTAX, "function %s has no end", diag_show(x->d, name));
        if (lex_keyword(x, "return"))
            break;
        if (!parse_node(p))
            return false;
    }
    if (!parse_return(p))
        return x->errors > 0 ? false : lex_fail(x, DIAG_IR_SYNTAX, "expected `}` after return");
    func_finish(p, name, role);
    return true;
}

/* Names of all functions, so that calls may precede definitions. */
static bool collect_funcs(Parser *p)
{
    Lex saved = p->x;
    Lex *x = &p->x;
    bool ok = true;
    while (ok && lex_next_line(x)) {
        Str name;
        bool digits;
        if (lex_keyword(x, "func")) {
            ok = lex_name(x, '@', &name, &digits);
            if (ok && !namemap_add(&p->funcs, name, (uint32_t)p->funcs.count))
                ok = lex_fail(x, DIAG_IR_TWICE, "function %s stands twice", diag_show(x->d, name));
        }
        lex_skip_line(x);
    }
    saved.errors = x->errors;
    p->x = saved;
    Module *m = x->m;
    m->n_funcs = m->room_funcs = (uint32_t)p->funcs.count;
    m->func = arena_array(m->arena, m->n_funcs + 1u, sizeof(Func *));
    return ok;
}

static void parse_lines(Parser *p)
{
    static const struct {
        const char *keyword;
        bool (*parse)(Parser *);
    } lines[] = {{"sym", parse_sym}, {"param", parse_param}, {"func", parse_func}, {"seq2seq", parse_seq2seq}};
    enum { N_LINES = sizeof lines / sizeof *lines };
    Lex *x = &p->x;
    while (x->errors < MAX_ERRORS && lex_next_line(x)) {
        size_t i = 0;
        bool ok;
        if (lex_keyword(x, "spec")) {
            ok = lex_quoted(x, &x->m->spec) && lex_end_line(x);
        } else {
            while (i < N_LINES && !lex_keyword(x, lines[i].keyword))
                i++;
            ok = i < N_LINES ? lines[i].parse(p)
                             : lex_fail(x, DIAG_IR_SYNTAX, "expected sym, seq2seq, spec, param or func");
        }
        if (!ok) {
            lex_skip_line(x);
            if (i < N_LINES && lines[i].parse == parse_func)
                while (lex_next_line(x) && *x->p != '}' && !(x->end - x->p > 5 && !memcmp(x->p, "func ", 5)))
                    lex_skip_line(x);
            if (x->p < x->end && *x->p == '}')
                lex_skip_line(x);
        }
        func_reset(p);
    }
}

Module *module_parse(Diag *d, const char *file, const char *text, size_t n)
{
    Module *m = module_new();
    Parser p = {.x = {.file = file,
                      .line = 1,
                      .m = m,
                      .d = d,
                      .splat_budget = LIMIT_IR_SPLAT}};
    /* names point into the copy */
    p.x.p = p.x.line_start = arena_copy(m->arena, text, n);
    p.x.end = p.x.p + n;
    if (n > LIMIT_IR_TEXT)
        lex_fail(&p.x, DIAG_LIMIT, "more than %d bytes of text", LIMIT_IR_TEXT);
    else if (collect_funcs(&p))
        parse_lines(&p);
    func_reset(&p);
    namemap_free(&p.funcs);
    namemap_free(&p.params);
    vec_free(&p.values);
    vec_free(&p.nodes);
    vec_free(&p.inputs);
    vec_free(&p.outputs);
    vec_free(&p.output_names);
    vec_free(&p.param_value);
    vec_free(&p.params_used);
    vec_free(&p.operands);
    vec_free(&p.results);
    vec_free(&p.result_unnamed);
    vec_free(&p.ints);
    vec_free(&p.dims);
    if (p.x.errors) {
        module_free(m);
        return NULL;
    }
    return m;
}
