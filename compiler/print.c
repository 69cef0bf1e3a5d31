/* IR to text. compiler/README.md has the grammar; parse.c is the exact inverse.
 *
 * Invariant: printing what parse.c read from a print gives the same bytes. For names this holds because generated
 * names are already sanitised and unique, so they are kept the second time. */
#include "namemap.h"
#include "print.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Parameters print their data when they are this small; integers (tables, shapes) up to the second limit. */
enum { INLINE_FLOATS = 16, INLINE_INTS = 1 << 16, SPLAT_ABOVE = 16, HINT_MAX = 60 };

static const char *const param_kind_name[] = {"frozen", "adapter", "const"};
static const char *const func_role_name[] = {"entry", "body", "kernel", "init"};

/* ---- names ---------------------------------------------------------------------------------- */

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_name_char(char c)
{
    return is_alpha(c) || (c >= '0' && c <= '9') || c == '.';
}

static bool is_plain_name(Str s)
{
    if (!s.n || !is_alpha(s.p[0]))
        return false;
    for (size_t i = 1; i < s.n; i++)
        if (!is_name_char(s.p[i]))
            return false;
    return true;
}

void name_print(char sigil, Str s, Text *out)
{
    text_add(out, &sigil, 1);
    if (is_plain_name(s))
        text_str(out, s);
    else
        text_quoted(out, s);
}

/* The names of one function's values, made in printing order. */
typedef struct Names {
    Arena *arena;
    Str *name; /* by ValueId, as print.h says */
    NameMap taken; /* with the last number that was put behind each, so that many of one name take no search */
    unsigned unnamed;
} Names;

/* A readable identifier from a hint: the end of long ONNX paths says most. */
static Str name_sanitised(Arena *a, Str hint)
{
    if (hint.n > HINT_MAX) {
        hint.p += hint.n - HINT_MAX;
        hint.n = HINT_MAX;
    }
    char *s = arena_alloc(a, hint.n + 2);
    size_t n = 0;
    for (size_t i = 0; i < hint.n; i++) {
        char c = is_name_char(hint.p[i]) ? hint.p[i] : '_';
        if (n == 0 && !is_alpha(c))
            s[n++] = '_';
        s[n++] = c;
    }
    return (Str){s, n};
}

/* `name.i`, cut at the front to what name_sanitised lets through: printing what was parsed changes nothing. */
static Str name_numbered(Arena *a, Str name, unsigned i)
{
    size_t digits = 1;
    for (unsigned v = i; v >= 10; v /= 10)
        digits++;
    size_t cut = name.n + 1 + digits > HINT_MAX ? name.n + 1 + digits - HINT_MAX : 0;
    char *s = arena_printf(a, "%.*s.%u", (int)(name.n - cut), name.p + cut, i);
    if (cut && !is_alpha(s[0]))
        s[0] = '_';
    return str_c(s);
}

static void name_value(Names *names, ValueId v, Str wanted)
{
    Str name = wanted;
    if (!wanted.n) {
        do
            name = str_c(arena_printf(names->arena, "%u", names->unnamed++));
        while (!namemap_add(&names->taken, name, 0));
    } else {
        while (!namemap_add(&names->taken, name, 0))
            name = name_numbered(names->arena, wanted, ++*namemap_at(&names->taken, wanted));
    }
    Text text = {0};
    if (wanted.n) /* quotes for odd input names, a digit string among them */
        name_print('%', name, &text);
    else
        text_printf(&text, "%%%.*s", (int)name.n, name.p);
    names->name[v] = (Str){arena_strndup(names->arena, text.p, text.n), text.n};
    text_free(&text);
}

Str *value_names(const Func *f, Arena *a)
{
    Names names = {.arena = a, .name = arena_array(a, f->n_values + 1, sizeof(Str))};
    for (uint32_t i = 0; i < f->n_inputs; i++)
        name_value(&names, f->input[i], f->value[f->input[i]].name); /* exact: inputs are known by name */
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_out; k++) {
            ValueId v = f->node[i].out + k;
            Str hint = f->value[v].name;
            name_value(&names, v, hint.n ? name_sanitised(a, hint) : hint);
        }
    namemap_free(&names.taken);
    return names.name;
}

static void print_value(const Module *m, const Func *f, const Str *names, ValueId v, Text *out)
{
    if (v == NONE) {
        text_add(out, "_", 1);
        return;
    }
    if (v >= f->n_values) { /* malformed: printed so that the verifier's dump can be read */
        text_printf(out, "%%?%u", v);
        return;
    }
    const Value *value = &f->value[v];
    if (value->kind == VK_PARAM && value->def < m->n_params)
        name_print('@', m->param[value->def].name, out);
    else if (!names[v].p)
        text_printf(out, "%%?%u", v);
    else
        text_str(out, names[v]);
}

/* ---- types and literals ------------------------------------------------------------------------ */

void type_print(const Module *m, const Type *t, Text *out)
{
    text_printf(out, "%s[", dtype_name(t->dtype));
    if (t->rank == UNRANKED)
        text_add(out, "*", 1);
    for (int i = 0; i < t->rank; i++) {
        if (i)
            text_add(out, ",", 1);
        dim_print(m->dims, t->dim[i], out);
    }
    text_add(out, "]", 1);
}

static void print_extents(DType dtype, int rank, const int64_t *dim, Text *out)
{
    text_printf(out, "%s[", dtype_name(dtype));
    for (int i = 0; i < rank; i++)
        text_printf(out, "%s%" PRId64, i ? "," : "", dim[i]);
    text_add(out, "]", 1);
}

/* NaNs other than the default quiet one show their bits. */
static void print_nan(uint64_t bits, uint64_t plain, Text *out)
{
    if (bits == plain)
        text_printf(out, "nan");
    else
        text_printf(out, "nan:%" PRIx64, bits);
}

static void print_f64(double v, Text *out)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    if (isnan(v))
        print_nan(bits, 0x7ff8000000000000u, out);
    else
        text_printf(out, "%.17g", v);
}

static void print_element(const Tensor *t, int64_t i, Text *out)
{
    if (t->dtype == DT_F64) {
        print_f64(((const double *)t->data)[i], out);
    } else if (t->dtype == DT_F32) {
        float v = ((const float *)t->data)[i];
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        if (isnan(v))
            print_nan(bits, 0x7fc00000u, out);
        else
            text_printf(out, "%.9g", (double)v);
    } else if (t->dtype == DT_F16) {
        uint16_t bits = ((const uint16_t *)t->data)[i];
        float v = f16_to_f32(bits);
        if (isnan(v))
            print_nan(bits, 0x7e00, out);
        else
            text_printf(out, "%.9g", (double)v);
    } else {
        text_printf(out, "%" PRId64, tensor_get_i64(t, i));
    }
}

static bool all_equal(const Tensor *t, int64_t count)
{
    size_t n = dtype_bytes(t->dtype);
    const char *p = t->data;
    for (int64_t i = 1; i < count; i++)
        if (memcmp(p, p + (size_t)i * n, n) != 0)
            return false;
    return true;
}

/* `[1, 2, 3]`, or `splat 0` for many equal elements. */
static void print_elements(const Tensor *t, Text *out)
{
    int64_t count = 0;
    if (!tensor_count(t, &count) || (count && !t->data)) {
        text_printf(out, "?");
        return;
    }
    if (count > SPLAT_ABOVE && all_equal(t, count)) {
        text_printf(out, "splat ");
        print_element(t, 0, out);
        return;
    }
    text_add(out, "[", 1);
    for (int64_t i = 0; i < count; i++) {
        if (i)
            text_add(out, ", ", 2);
        print_element(t, i, out);
    }
    text_add(out, "]", 1);
}

/* ---- attributes ----------------------------------------------------------------------------------- */

static void print_func_ref(const Module *m, FuncId id, Text *out)
{
    const Func *f = id < m->n_funcs ? m->func[id] : NULL;
    if (f)
        name_print('@', f->name, out);
    else
        text_printf(out, "@?%u", id);
}

static void print_attr(const Module *m, const Attr *a, Text *out)
{
    text_printf(out, "%s = ", attr_name(a->key));
    switch (attr_kind(a->key)) {
    case AK_INT: text_printf(out, "%" PRId64, a->i); break;
    case AK_FLOAT: print_f64(a->f, out); break;
    case AK_DIM: dim_print(m->dims, a->d, out); break;
    case AK_STR: text_quoted(out, a->s); break;
    case AK_FUNC: print_func_ref(m, (FuncId)a->i, out); break;
    case AK_DTYPE: text_printf(out, "%s", a->i >= 0 && a->i < DT_COUNT ? dtype_name((DType)a->i) : "?"); break;
    case AK_INTS:
        text_add(out, "[", 1);
        for (uint32_t i = 0; i < a->ints.n; i++)
            text_printf(out, "%s%" PRId64, i ? ", " : "", a->ints.v[i]);
        text_add(out, "]", 1);
        break;
    case AK_DIMS:
        text_add(out, "[", 1);
        for (uint32_t i = 0; i < a->dims.n; i++) {
            if (i)
                text_add(out, ", ", 2);
            dim_print(m->dims, a->dims.v[i], out);
        }
        text_add(out, "]", 1);
        break;
    case AK_TENSOR:
        print_extents(a->t.dtype, a->t.rank, a->t.dim, out);
        text_add(out, " ", 1);
        print_elements(&a->t, out);
        break;
    }
}

/* In the order of the op's row, then by key: one order whatever order a pass added them in. */
static void print_attrs(const Module *m, const Node *n, Text *out)
{
    const OpInfo *info = op_info(n->op);
    bool done[AT_COUNT] = {false};
    const char *lead = " {";
    for (uint32_t i = 0; i < info->n_attrs + AT_COUNT; i++) {
        AttrKey key = i < info->n_attrs ? info->attrs[i] : (AttrKey)(i - info->n_attrs);
        const Attr *a = done[key] ? NULL : node_attr(n, key);
        done[key] = true;
        if (!a)
            continue;
        text_printf(out, "%s", lead);
        print_attr(m, a, out);
        lead = ", ";
    }
    if (lead[0] == ',')
        text_add(out, "}", 1);
}

/* ---- nodes, functions, module ----------------------------------------------------------------------- */

void node_print_as(const Module *m, const Func *f, const Str *names, const Node *n, Text *out)
{
    for (uint32_t k = 0; k < n->n_out; k++) {
        if (k)
            text_add(out, ", ", 2);
        print_value(m, f, names, n->out + k, out);
    }
    text_printf(out, "%s%s", n->n_out ? " = " : "", op_info(n->op)->name);
    for (uint32_t i = 0; i < n->n_in; i++) {
        text_printf(out, "%s", i ? ", " : " ");
        print_value(m, f, names, n->in[i], out);
    }
    print_attrs(m, n, out);
    for (uint32_t k = 0; k < n->n_out; k++) {
        text_printf(out, "%s", k ? ", " : " : ");
        if (n->out + k < f->n_values)
            type_print(m, &f->value[n->out + k].type, out);
    }
    if (n->origin.n) {
        text_printf(out, "  !");
        text_quoted(out, n->origin);
    }
}

/* A print that remembers lines; where it is NULL nobody asks for them. */
typedef struct Marks {
    Arena *arena;
    LineCount count;
    ModuleLines lines;
} Marks;

static void mark_func(Marks *k, const Func *f, const Text *out)
{
    if (!k)
        return;
    k->lines.func[f->id] = text_line(&k->count, out);
    k->lines.node[f->id] = arena_array(k->arena, f->n_nodes + 1, sizeof(uint32_t));
}

static void mark_node(Marks *k, const Func *f, uint32_t i, const Text *out)
{
    if (k)
        k->lines.node[f->id][i] = text_line(&k->count, out);
}

void func_head_print(const Module *m, const Func *f, const Str *names, Text *out)
{
    text_printf(out, "func ");
    name_print('@', f->name, out);
    text_printf(out, " %s (", func_role_name[f->role]);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        if (i)
            text_add(out, ", ", 2);
        print_value(m, f, names, f->input[i], out);
        text_printf(out, " : ");
        type_print(m, &f->value[f->input[i]].type, out);
    }
    text_printf(out, ") {");
}

void return_print(const Module *m, const Func *f, const Str *names, Text *out)
{
    text_printf(out, "return");
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        text_printf(out, "%s", i ? ", " : " ");
        print_value(m, f, names, f->output[i], out);
        text_add(out, " ", 1);
        text_quoted(out, f->output_name[i]);
    }
}

static void print_func(const Module *m, const Func *f, Marks *k, Text *out)
{
    Arena *scratch = arena_new();
    const Str *names = value_names(f, scratch);
    mark_func(k, f, out);
    func_head_print(m, f, names, out);
    text_add(out, "\n", 1);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        mark_node(k, f, i, out);
        text_printf(out, "  ");
        node_print_as(m, f, names, &f->node[i], out);
        text_add(out, "\n", 1);
    }
    text_printf(out, "  ");
    return_print(m, f, names, out);
    text_printf(out, "\n}\n");
    arena_free(scratch);
}

void func_print(const Module *m, const Func *f, Text *out)
{
    print_func(m, f, NULL, out);
}

void node_print(const Module *m, const Func *f, const Node *n, Text *out)
{
    Arena *scratch = arena_new();
    node_print_as(m, f, value_names(f, scratch), n, out);
    arena_free(scratch);
}

void param_print(const Module *m, const Param *p, Text *out)
{
    Tensor t = {.dtype = p->dtype, .rank = p->rank};
    memcpy(t.dim, p->dim, sizeof t.dim);
    t.data = (void *)p->data; /* read only below */
    int64_t count = 0;
    text_printf(out, "param ");
    name_print('@', p->name, out);
    text_printf(out, " : ");
    print_extents(p->dtype, p->rank, p->dim, out);
    text_printf(out, " %s", param_kind_name[p->kind]);
    if (p->data && tensor_count(&t, &count) && count <= (dtype_is_float(p->dtype) ? INLINE_FLOATS : INLINE_INTS)) {
        text_printf(out, " = ");
        print_elements(&t, out);
    }
    if (p->init != NONE) {
        text_printf(out, " init ");
        print_func_ref(m, p->init, out);
    }
    if (p->site.n) {
        text_printf(out, " site ");
        text_quoted(out, p->site);
    }
    if (p->origin.n) {
        text_printf(out, " from ");
        text_quoted(out, p->origin);
    }
}

void symbol_print(const DimSym *s, Text *out)
{
    text_printf(out, "sym ");
    if (is_plain_name(s->name))
        text_str(out, s->name);
    else
        text_quoted(out, s->name);
    text_printf(out, " = %" PRId64 "..", s->lo);
    if (s->hi == DIM_UNBOUNDED)
        text_add(out, "*", 1);
    else
        text_printf(out, "%" PRId64, s->hi);
}

void facts_print(const Module *m, Text *out)
{
    const Seq2Seq *s = &m->s2s;
    if (s->present)
        text_printf(out,
                    "seq2seq {pad = %" PRId64 ", eos = %" PRId64 ", start = %" PRId64 ", vocab = %" PRId64
                    ", enc_layers = %u, dec_layers = %u, heads = %u, head_width = %u, width = %u}\n",
                    s->pad, s->eos, s->start, s->vocab, s->enc_layers, s->dec_layers, s->heads, s->head_width,
                    s->width);
    if (m->spec.n) {
        text_printf(out, "spec ");
        text_quoted(out, m->spec);
        text_add(out, "\n", 1);
    }
}

static void print_module(const Module *m, Marks *k, Text *out)
{
    for (size_t i = 0; i < dim_sym_count(m->dims); i++) {
        symbol_print(dim_sym_at(m->dims, (uint32_t)i), out);
        text_add(out, "\n", 1);
    }
    facts_print(m, out);
    for (uint32_t i = 0; i < m->n_params; i++) {
        param_print(m, &m->param[i], out);
        text_add(out, "\n", 1);
    }
    for (uint32_t i = 0; i < m->n_funcs; i++)
        if (m->func[i]) {
            text_add(out, "\n", 1);
            print_func(m, m->func[i], k, out);
        }
}

void module_print(const Module *m, Text *out)
{
    print_module(m, NULL, out);
}

ModuleLines module_print_lines(const Module *m, Text *out, Arena *a)
{
    Marks k = {.arena = a, .lines = {.n_funcs = m->n_funcs}};
    k.lines.func = arena_array(a, m->n_funcs + 1, sizeof *k.lines.func);
    k.lines.node = arena_array(a, m->n_funcs + 1, sizeof *k.lines.node);
    print_module(m, &k, out);
    return k.lines;
}
