/* The text form of symbolic dimensions: printer, parser (recursive over a bounded depth) and C source. */
#include "dim_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static const char *const atom_names[] = {[ATOM_SYM] = "",
                                         [ATOM_FLOORDIV] = "floordiv",
                                         [ATOM_MOD] = "mod",
                                         [ATOM_MIN] = "min",
                                         [ATOM_MAX] = "max"};

/* How atoms are spelled differs between IR text and C; the polynomial around them does not. */
typedef struct Speller {
    const DimTable *t;
    Text *out;
    const char *(*c_sym)(void *ctx, uint32_t i); /* NULL: IR text */
    void *ctx;
} Speller;

static void spell(Speller *s, Dim d);

static bool plain_name(Str n) {
    if (n.n == 0 || !(isalpha((unsigned char)n.p[0]) || n.p[0] == '_'))
        return false;
    for (size_t i = 0; i < n.n; i++) {
        unsigned char c = (unsigned char)n.p[i];
        if (c >= 128 || !(isalnum(c) || c == '_' || c == '.'))
            return false;
    }
    for (int k = ATOM_FLOORDIV; k <= ATOM_MAX; k++)
        if (str_is(n, atom_names[k]))
            return false;
    return true;
}

static void spell_call(Speller *s, const char *name, Dim a, Dim b) {
    text_printf(s->out, "%s(", name);
    spell(s, a);
    text_printf(s->out, ", ");
    spell(s, b);
    text_printf(s->out, ")");
}

static void spell_atom(Speller *s, uint32_t atom) {
    const Atom *a = &s->t->atom.item[atom];
    if (a->kind == ATOM_SYM) {
        Str n = s->t->sym.item[a->a].name;
        if (s->c_sym)
            text_printf(s->out, "%s", s->c_sym(s->ctx, a->a));
        else if (plain_name(n))
            text_str(s->out, n);
        else
            text_quoted(s->out, n);
    } else if (!s->c_sym)
        spell_call(s, atom_names[a->kind], a->a, a->b);
    else if (a->kind == ATOM_MIN || a->kind == ATOM_MAX)
        spell_call(s, a->kind == ATOM_MIN ? "moec_min_i64" : "moec_max_i64", a->a, a->b);
    else {
        text_printf(s->out, "((");
        spell(s, a->a);
        text_printf(s->out, ") %c (", a->kind == ATOM_FLOORDIV ? '/' : '%');
        spell(s, a->b);
        text_printf(s->out, "))");
    }
}

static void spell_coef(Speller *s, uint64_t v) {
    if (s->c_sym && v > INT32_MAX)
        text_printf(s->out, "INT64_C(%" PRIu64 ")", v);
    else
        text_printf(s->out, "%" PRIu64, v);
}

static void spell(Speller *s, Dim d) {
    if (d == DIM_BAD) {
        text_printf(s->out, "bad");
        return;
    }
    const Poly *p = dim_poly(s->t, d);
    if (p->n == 0)
        text_printf(s->out, "0");
    for (uint32_t i = 0; i < p->n; i++) {
        const Term *x = &p->term[i];
        uint64_t size = x->coef < 0 ? 0 - (uint64_t)x->coef : (uint64_t)x->coef;
        text_printf(s->out, "%s", i == 0 ? (x->coef < 0 ? "-" : "") : x->coef < 0 ? " - " : " + ");
        if (size != 1 || x->degree == 0)
            spell_coef(s, size);
        for (uint32_t j = 0; j < x->degree; j++) {
            if (j || size != 1)
                text_printf(s->out, "*");
            spell_atom(s, x->atom[j]);
        }
    }
}

void dim_print(const DimTable *t, Dim d, Text *out) {
    Speller s = {t, out, NULL, NULL};
    spell(&s, d);
}

void dim_print_c(const DimTable *t, Dim d, Text *out, const char *(*sym)(void *ctx, uint32_t i), void *ctx) {
    Speller s = {t, out, sym, ctx};
    spell(&s, d);
}

/* ---- parsing ------------------------------------------------------------------------------------- */

typedef struct Reader {
    DimTable *t;
    const char *p, *end;
    int depth;
} Reader;

static void skip(Reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t'))
        r->p++;
}

static bool accept(Reader *r, char c) {
    skip(r);
    if (r->p >= r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static bool read_sum(Reader *r, Dim *out);

static bool read_number(Reader *r, Dim *out) {
    int64_t v = 0;
    for (; r->p < r->end && isdigit((unsigned char)*r->p); r->p++)
        if (!mul_i64(v, 10, &v) || !add_i64(v, *r->p - '0', &v))
            return false;
    *out = dim_const(r->t, v);
    return true;
}

static bool read_quoted(Reader *r, Dim *out) {
    Text name = {0};
    bool ok = false;
    text_add(&name, "", 0);
    for (r->p++; r->p < r->end;) {
        char c = *r->p++;
        if (c == '"') {
            ok = true;
            break;
        }
        if (c == '\\') {
            int v = 0, i = 0;
            for (; i < 3 && r->p < r->end && *r->p >= '0' && *r->p <= '7'; i++)
                v = v * 8 + (*r->p++ - '0');
            if (i != 3 || v > 255)
                break;
            c = (char)v;
        }
        text_add(&name, &c, 1);
    }
    if (ok)
        *out = dim_sym(r->t, (Str){name.p, name.n});
    text_free(&name);
    return ok;
}

static bool read_call(Reader *r, AtomKind kind, Dim *out) {
    typedef Dim Rule(DimTable * t, Dim a, Dim b);
    static Rule *const rules[] = {
        [ATOM_FLOORDIV] = dim_floordiv, [ATOM_MOD] = dim_mod, [ATOM_MIN] = dim_min, [ATOM_MAX] = dim_max};
    Dim a, b;
    if (!accept(r, '(') || !read_sum(r, &a) || !accept(r, ',') || !read_sum(r, &b) || !accept(r, ')'))
        return false;
    *out = rules[kind](r->t, a, b);
    return *out != DIM_BAD;
}

static bool read_atom(Reader *r, Dim *out) {
    skip(r);
    if (r->p >= r->end)
        return false;
    if (isdigit((unsigned char)*r->p))
        return read_number(r, out);
    if (*r->p == '"')
        return read_quoted(r, out);
    const char *start = r->p;
    /* a dot belongs to the name, two are a range's */
    while (r->p < r->end && (isalnum((unsigned char)*r->p) || *r->p == '_' ||
                             (*r->p == '.' && !(r->p + 1 < r->end && r->p[1] == '.'))))
        r->p++;
    Str name = {start, (size_t)(r->p - start)};
    for (int k = ATOM_FLOORDIV; k <= ATOM_MAX; k++)
        if (str_is(name, atom_names[k]))
            return read_call(r, (AtomKind)k, out);
    if (!plain_name(name))
        return false;
    *out = dim_sym(r->t, name);
    return true;
}

static bool read_product(Reader *r, Dim *out) {
    if (!read_atom(r, out))
        return false;
    while (accept(r, '*')) {
        Dim f;
        if (!read_atom(r, &f))
            return false;
        *out = dim_mul(r->t, *out, f);
    }
    return *out != DIM_BAD;
}

static bool read_sum(Reader *r, Dim *out) {
    if (++r->depth > 64)
        return false;
    Dim sum = dim_const(r->t, 0), x;
    bool minus = accept(r, '-');
    do {
        if (!read_product(r, &x))
            return false;
        sum = minus ? dim_sub(r->t, sum, x) : dim_add(r->t, sum, x);
        skip(r);
        minus = r->p < r->end && *r->p == '-';
    } while (minus ? accept(r, '-') : accept(r, '+'));
    r->depth--;
    *out = sum;
    return sum != DIM_BAD;
}

bool dim_parse(DimTable *t, const char **p, const char *end, Dim *out) {
    Reader r = {t, *p, end, 0};
    if (!read_sum(&r, out))
        return false;
    *p = r.p;
    return true;
}
