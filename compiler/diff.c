/* Modules compared: functions are paired, then whatever differs is shown. */
#include "diff_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

enum { CONTEXT = 3 };

uint32_t diff_class(Differ *x, const Text *t) {
    uint32_t class = (uint32_t)x->classes.count;
    Str key = {t->n ? t->p : "", t->n};
    if (namemap_find(&x->classes, key, &class))
        return class;
    key.p = arena_strndup(x->arena, key.p, key.n);
    namemap_add(&x->classes, key, class);
    return class;
}

void diff_node_key(const Side *s, const Func *f, const Str *names, const Node *n, Text *out) {
    Arena *scratch = arena_new();
    Node plain = *n;
    Attr *attrs = arena_array(scratch, n->n_attrs + 1, sizeof *attrs);
    plain.origin = (Str){NULL, 0};
    plain.attrs = attrs;
    plain.n_attrs = 0;
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        if (attr_kind(n->attrs[i].key) == AK_FUNC)
            text_printf(out, "%s=%u ", attr_name(n->attrs[i].key), s->class[n->attrs[i].i]);
        else
            attrs[plain.n_attrs++] = n->attrs[i];
    }
    node_print_as(s->m, f, names, &plain, out);
    arena_free(scratch);
}

/* ---- pairs of functions ---------------------------------------------------------------------- */

/* The text of f with values by number. Entries are known by the names of their inputs, others are not. */
static void func_key(const Side *s, const Func *f, Text *out) {
    Arena *scratch = arena_new();
    Str *names = arena_array(scratch, f->n_values + 1, sizeof *names);
    uint32_t number = 0;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        names[f->input[i]] = str_c(arena_printf(scratch, "%%%u", number++));
        if (f->role == FR_ENTRY)
            text_quoted(out, v->name);
        type_print(s->m, &v->type, out);
        text_add(out, " ", 1);
    }
    text_printf(out, "%d\n", (int)f->role);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        for (uint32_t k = 0; k < f->node[i].n_out; k++)
            names[f->node[i].out + k] = str_c(arena_printf(scratch, "%%%u", number++));
        diff_node_key(s, f, names, &f->node[i], out);
        text_add(out, "\n", 1);
    }
    return_print(s->m, f, names, out);
    arena_free(scratch);
}

/* Callees first; calls are free of cycles and nest a bounded number deep. */
static void classify(Differ *x, Side *s, const Func *f) {
    if (s->class[f->id] != NONE)
        return;
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_attrs; k++)
            if (attr_kind(f->node[i].attrs[k].key) == AK_FUNC)
                classify(x, s, s->m->func[f->node[i].attrs[k].i]);
    Text key = {0};
    func_key(s, f, &key);
    s->class[f->id] = diff_class(x, &key);
    text_free(&key);
}

static void side_open(Differ *x, Side *s, const Module *m) {
    *s = (Side){.m = m};
    s->class = arena_array(x->arena, m->n_funcs + 1u, sizeof *s->class);
    s->pair = arena_array(x->arena, m->n_funcs + 1u, sizeof *s->pair);
    s->same = arena_array(x->arena, m->n_funcs + 1u, sizeof *s->same);
    memset(s->class, 0xff, (m->n_funcs + 1u) * sizeof *s->class);
    memset(s->pair, 0xff, (m->n_funcs + 1u) * sizeof *s->pair);
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (m->func[i])
            classify(x, s, m->func[i]);
}

/* Without the number that makes it unique. */
static Str stem(Str name) {
    while (name.n > 1 && isdigit((unsigned char)name.p[name.n - 1]))
        name.n--;
    return name;
}

typedef bool PairTest(const Differ *x, const Func *f, const Func *g);

static bool same_entry(const Differ *x, const Func *f, const Func *g) {
    (void)x;
    return f->role == FR_ENTRY && str_eq(f->name, g->name);
}

static bool equal(const Differ *x, const Func *f, const Func *g) {
    return f->role != FR_ENTRY && x->a.class[f->id] == x->b.class[g->id];
}

static bool equal_and_named(const Differ *x, const Func *f, const Func *g) {
    return equal(x, f, g) && str_eq(f->name, g->name);
}

static bool same_init(const Differ *x, const Func *f, const Func *g) {
    ParamId q;
    if (f->role != FR_INIT)
        return false;
    for (ParamId p = 0; p < x->a.m->n_params; p++)
        if (x->a.m->param[p].init == f->id && module_find_param(x->b.m, x->a.m->param[p].name, &q) &&
            x->b.m->param[q].init == g->id)
            return true;
    return false;
}

static bool named(const Differ *x, const Func *f, const Func *g) {
    (void)x;
    return f->role != FR_ENTRY && f->role != FR_INIT && str_eq(f->name, g->name);
}

static bool alike_named(const Differ *x, const Func *f, const Func *g) {
    (void)x;
    return f->role != FR_ENTRY && f->role != FR_INIT && str_eq(stem(f->name), stem(g->name));
}

/* The strongest reason first; a changed function is the same one to those that call it. */
static void pair_funcs(Differ *x) {
    static PairTest *const tests[] = {same_entry, equal_and_named, equal, same_init, named, alike_named};
    for (size_t t = 0; t < sizeof tests / sizeof *tests; t++)
        for (FuncId i = 0; i < x->a.m->n_funcs; i++)
            for (FuncId j = 0; j < x->b.m->n_funcs && x->a.m->func[i] && x->a.pair[i] == NONE; j++) {
                const Func *f = x->a.m->func[i], *g = x->b.m->func[j];
                if (!g || x->b.pair[j] != NONE || f->role != g->role || !tests[t](x, f, g))
                    continue;
                x->a.pair[i] = j;
                x->b.pair[j] = i;
            }
    for (FuncId i = 0; i < x->a.m->n_funcs; i++) {
        FuncId j = x->a.pair[i];
        if (!x->a.m->func[i] || j == NONE)
            continue;
        x->a.same[i] = x->b.same[j] = x->a.class[i] == x->b.class[j];
    }
    for (FuncId i = 0; i < x->a.m->n_funcs; i++)
        if (x->a.m->func[i] && x->a.pair[i] != NONE)
            x->b.class[x->a.pair[i]] = x->a.class[i];
}

/* ---- what is shown --------------------------------------------------------------------------- */

static void count_rows(const DiffRows *rows, uint32_t *removed, uint32_t *added) {
    *removed = *added = 0;
    for (size_t i = 0; i < rows->count; i++) {
        *removed += rows->item[i].kind == '-';
        *added += rows->item[i].kind == '+';
    }
}

/* Whether row i is changed or has a change close by. */
static bool near_change(const DiffRows *rows, size_t i) {
    size_t from = i < CONTEXT ? 0 : i - CONTEXT;
    for (size_t k = from; k < rows->count && k <= i + CONTEXT; k++)
        if (rows->item[k].kind != ' ')
            return true;
    return false;
}

static void show_hunk(Differ *x, const char *heading, const DiffRows *rows, size_t from, size_t to,
                      uint32_t a, uint32_t b) {
    uint32_t in_a = 0, in_b = 0;
    for (size_t i = from; i < to; i++) {
        in_a += rows->item[i].kind != '+';
        in_b += rows->item[i].kind != '-';
    }
    text_printf(x->out, "@@ -%u,%u +%u,%u @@ %s\n", in_a ? a : a - 1, in_a, in_b ? b : b - 1, in_b, heading);
    for (size_t i = from; i < to; i++) {
        text_add(x->out, &rows->item[i].kind, 1);
        text_str(x->out, rows->item[i].text);
        text_add(x->out, "\n", 1);
    }
}

void diff_show(Differ *x, const char *heading, const DiffRows *rows) {
    uint32_t removed, added, a = 1, b = 1;
    count_rows(rows, &removed, &added);
    if (!removed && !added)
        return;
    x->differs = true;
    if (x->o->stat) {
        text_printf(x->out, "%6u -  %6u +  %6zu =  %s\n", removed, added, rows->count - removed - added,
                    heading);
        return;
    }
    for (size_t i = 0; i < rows->count;) {
        size_t end = i;
        while (end < rows->count && near_change(rows, end))
            end++;
        if (end > i)
            show_hunk(x, heading, rows, i, end, a, b);
        for (end += end == i; i < end; i++) {
            a += rows->item[i].kind != '+';
            b += rows->item[i].kind != '-';
        }
    }
}

static void add_row(Differ *x, DiffRows *rows, char kind, const Text *t) {
    DiffRow r = {kind, {arena_strndup(x->arena, t->n ? t->p : "", t->n), t->n}};
    vec_push(rows, r);
}

/* A symbol, the facts or a parameter, by position; an empty text where there is none. */
typedef void Line(const Side *s, uint32_t i, Text *key, Text *shown);

static void symbol_line(const Side *s, uint32_t i, Text *key, Text *shown) {
    symbol_print(dim_sym_at(s->m->dims, i), shown);
    text_add(key, shown->p, shown->n);
}

static void param_line(const Side *s, uint32_t i, Text *key, Text *shown) {
    Param p = s->m->param[i];
    param_print(s->m, &p, shown);
    if (p.init != NONE)
        text_printf(key, "init=%u ", s->class[p.init]);
    p.init = NONE;
    p.origin = (Str){NULL, 0};
    param_print(s->m, &p, key);
}

static bool find_symbol(const Side *s, const Side *other, uint32_t i, uint32_t *at) {
    Str name = dim_sym_at(s->m->dims, i)->name;
    for (uint32_t k = 0; k < dim_sym_count(other->m->dims); k++)
        if (str_eq(dim_sym_at(other->m->dims, k)->name, name)) {
            *at = k;
            return true;
        }
    return false;
}

static bool find_param(const Side *s, const Side *other, uint32_t i, uint32_t *at) {
    return module_find_param(other->m, s->m->param[i].name, at);
}

/* Data that both know and that are not part of the text. */
static bool data_differ(const Param *p, const Param *q) {
    Tensor t = {.dtype = p->dtype, .rank = p->rank};
    size_t bytes;
    memcpy(t.dim, p->dim, sizeof t.dim);
    return p->data && q->data && p->data != q->data && tensor_bytes(&t, &bytes) &&
           memcmp(p->data, q->data, bytes) != 0;
}

typedef bool Find(const Side *s, const Side *other, uint32_t i, uint32_t *at);

/* Things found by name: those of a in their order, what b has instead beside each, then what else b has. */
static void diff_lines(Differ *x, const char *heading, uint32_t n, uint32_t m, Line *line, Find *find) {
    DiffRows rows = {0};
    for (uint32_t i = 0; i < n; i++) {
        Text key[2] = {{0}, {0}}, shown[2] = {{0}, {0}};
        uint32_t at;
        bool there = find(&x->a, &x->b, i, &at), same = false;
        line(&x->a, i, &key[0], &shown[0]);
        if (there) {
            line(&x->b, at, &key[1], &shown[1]);
            same = key[0].n == key[1].n && memcmp(key[0].p, key[1].p, key[0].n) == 0;
            if (same && line == param_line && data_differ(&x->a.m->param[i], &x->b.m->param[at])) {
                same = false;
                text_printf(&shown[1], "  # other data");
            }
        }
        add_row(x, &rows, same ? ' ' : '-', &shown[0]);
        if (there && !same)
            add_row(x, &rows, '+', &shown[1]);
        for (int k = 0; k < 2; k++) {
            text_free(&key[k]);
            text_free(&shown[k]);
        }
    }
    for (uint32_t i = 0; i < m; i++) {
        Text key = {0}, shown = {0};
        uint32_t at;
        line(&x->b, i, &key, &shown);
        if (!find(&x->b, &x->a, i, &at))
            add_row(x, &rows, '+', &shown);
        text_free(&key);
        text_free(&shown);
    }
    diff_show(x, heading, &rows);
    vec_free(&rows);
}

/* Two lines at most, the end of each cut off. */
static void diff_facts(Differ *x) {
    Text a = {0}, b = {0};
    facts_print(x->a.m, &a);
    facts_print(x->b.m, &b);
    DiffRows rows = {0};
    if (a.n != b.n || (a.n && memcmp(a.p, b.p, a.n) != 0)) {
        const Text *side[2] = {&a, &b};
        for (int k = 0; k < 2; k++)
            for (size_t i = 0, end; i < side[k]->n; i = end + 1) {
                end = i + strcspn(side[k]->p + i, "\n");
                DiffRow r = {"-+" [k], { arena_strndup(x->arena, side[k]->p + i, end - i), end - i }};
                vec_push(&rows, r);
            }
    }
    diff_show(x, "facts", &rows);
    vec_free(&rows);
    text_free(&a);
    text_free(&b);
}

static bool wanted(const Differ *x, const Func *f) {
    return !x->o->func || str_is(f->name, x->o->func);
}

bool module_diff(const Module *a, const Module *b, const DiffOptions *o, Text *out) {
    Differ x = {.o = o, .arena = arena_new(), .out = out};
    side_open(&x, &x.a, a);
    side_open(&x, &x.b, b);
    pair_funcs(&x);
    if (!o->func) {
        diff_lines(&x, "symbols", (uint32_t)dim_sym_count(a->dims), (uint32_t)dim_sym_count(b->dims),
                   symbol_line, find_symbol);
        diff_facts(&x);
        diff_lines(&x, "parameters", a->n_params, b->n_params, param_line, find_param);
    }
    for (FuncId i = 0; i < a->n_funcs; i++)
        if (a->func[i] && wanted(&x, a->func[i]) && !x.a.same[i])
            diff_funcs(&x, a->func[i], x.a.pair[i] == NONE ? NULL : b->func[x.a.pair[i]]);
    for (FuncId i = 0; i < b->n_funcs; i++)
        if (b->func[i] && wanted(&x, b->func[i]) && x.b.pair[i] == NONE)
            diff_funcs(&x, NULL, b->func[i]);
    namemap_free(&x.classes);
    arena_free(x.arena);
    return !x.differs;
}
