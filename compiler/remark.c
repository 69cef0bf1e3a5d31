/* The collector of remarks and its two printers. */
#include "remark.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Remark {
    RemarkId id;
    Str func, place, origin, text;
} Remark;

struct Remarks {
    Arena *arena;
    Vec(Remark) list;
};

static const struct {
    const char *name, *pass;
    RemarkKind kind;
} rows[] = {
#define REMARK(name, pass, kind, doc) {#name, #pass, REMARK_##kind},
#include "remarks.def"
};

static const char *const kinds[] = {
    [REMARK_applied] = "applied", [REMARK_missed] = "missed", [REMARK_note] = "note"};

Remarks *remarks_new(void) {
    Remarks *r = mem_alloc(sizeof *r);
    r->arena = arena_new();
    return r;
}

void remarks_free(Remarks *r) {
    if (!r)
        return;
    vec_free(&r->list);
    arena_free(r->arena);
    mem_free(r);
}

size_t remarks_count(const Remarks *r) {
    return r->list.count;
}

Str node_place(const Node *n) {
    const Attr *site = node_attr(n, AT_site);
    return site ? site->s : n->origin.n ? n->origin : str_c(op_info(n->op)->name);
}

static Str kept(Remarks *r, Str s) {
    return (Str){arena_strndup(r->arena, s.p, s.n), s.n};
}

static void add(Remarks *r, RemarkId id, const Func *f, Str place, Str origin, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    CHECK(n >= 0);
    char *text = arena_alloc(r->arena, (size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    Remark x = {id, f ? kept(r, f->name) : str_c(""), kept(r, place), kept(r, origin), {text, (size_t)n}};
    vec_push(&r->list, x);
}

void remark(const Module *m, RemarkId id, const Func *f, const Node *n, const char *fmt, ...) {
    if (!m->remarks)
        return;
    va_list ap;
    va_start(ap, fmt);
    add(m->remarks, id, f, n ? node_place(n) : str_c(""), n ? n->origin : str_c(""), fmt, ap);
    va_end(ap);
}

void remark_at(const Module *m, RemarkId id, const Func *f, Str place, const char *fmt, ...) {
    if (!m->remarks)
        return;
    va_list ap;
    va_start(ap, fmt);
    add(m->remarks, id, f, place, str_c(""), fmt, ap);
    va_end(ap);
}

/* ---- JSON lines --------------------------------------------------------------------------------------- */

void remarks_json(const Remarks *r, Text *out) {
    for (size_t i = 0; i < r->list.count; i++) {
        const Remark *x = &r->list.item[i];
        const struct {
            const char *key;
            Str value;
        } fields[] = {{"pass", str_c(rows[x->id].pass)},
                      {"kind", str_c(kinds[rows[x->id].kind])},
                      {"name", str_c(rows[x->id].name)},
                      {"function", x->func},
                      {"place", x->place},
                      {"origin", x->origin},
                      {"message", x->text}};
        for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
            text_printf(out, "%s\"%s\":", k ? "," : "{", fields[k].key);
            text_json(out, fields[k].value);
        }
        text_printf(out, "}\n");
    }
}

/* ---- text: lines that layers repeat are one ---------------------------------------------------------------
 */

/* Where s's first number stands: [*from, *to). False without one that fits. */
static bool first_number(Str s, size_t *from, size_t *to, long *value) {
    size_t i = 0, k;
    while (i < s.n && !isdigit((unsigned char)s.p[i]))
        i++;
    for (k = i, *value = 0; k < s.n && k - i < 9 && isdigit((unsigned char)s.p[k]); k++)
        *value = *value * 10 + (s.p[k] - '0');
    *from = i;
    *to = k;
    return k > i && (k == s.n || !isdigit((unsigned char)s.p[k]));
}

/* a with b's numbers in names put out of sight; NULL when they differ in anything else. `wild` gets the
 * common text. */
static bool same_message(Str a, Str b, Text *wild) {
    size_t i = 0, k = 0;
    bool name = false;
    while (i < a.n && k < b.n) {
        if (name && isdigit((unsigned char)a.p[i]) && isdigit((unsigned char)b.p[k])) {
            size_t i0 = i, k0 = k;
            while (i < a.n && isdigit((unsigned char)a.p[i]))
                i++;
            while (k < b.n && isdigit((unsigned char)b.p[k]))
                k++;
            bool same = i - i0 == k - k0 && memcmp(a.p + i0, b.p + k0, i - i0) == 0;
            if (same)
                text_add(wild, a.p + i0, i - i0);
            else
                text_add(wild, "*", 1);
            continue;
        }
        if (name && (a.p[i] == '*' || b.p[k] == '*') && a.p[i] != b.p[k]) { /* a folded before */
            while (i < a.n && (a.p[i] == '*' || isdigit((unsigned char)a.p[i])))
                i++;
            while (k < b.n && (b.p[k] == '*' || isdigit((unsigned char)b.p[k])))
                k++;
            text_add(wild, "*", 1);
            continue;
        }
        if (a.p[i] != b.p[k])
            return false;
        name ^= a.p[i] == '"';
        text_add(wild, a.p + i, 1);
        i++;
        k++;
    }
    return i == a.n && k == b.n;
}

typedef struct Line {
    const Remark *first;
    Text message;
    Vec(long) number; /* of the place, one for each remark */
    bool numbered;
} Line;

static bool same_place(const Remark *a, const Remark *b, long *number) {
    size_t i0, i1, k0, k1;
    long x;
    if (!first_number(a->place, &i0, &i1, &x) || !first_number(b->place, &k0, &k1, number)) {
        *number = -1;
        return str_eq(a->place, b->place);
    }
    Str ah = {a->place.p, i0}, bh = {b->place.p, k0}, at = {a->place.p + i1, a->place.n - i1},
        bt = {b->place.p + k1, b->place.n - k1};
    return str_eq(ah, bh) && str_eq(at, bt);
}

static bool line_takes(Line *l, const Remark *x) {
    long number;
    Text wild = {0};
    if (l->first->id != x->id || !str_eq(l->first->func, x->func) || !same_place(l->first, x, &number))
        return false;
    if (!same_message((Str){l->message.p, l->message.n}, x->text, &wild)) {
        text_free(&wild);
        return false;
    }
    text_free(&l->message);
    l->message = wild;
    vec_push(&l->number, number);
    return true;
}

static int by_value(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

/* {0..11}, {0,2,5}, or the number itself; how often each stands is told apart. */
static void print_numbers(Line *l, Text *out) {
    size_t n = 0;
    qsort(l->number.item, l->number.count, sizeof *l->number.item, by_value);
    for (size_t i = 0; i < l->number.count; i++)
        if (!n || l->number.item[n - 1] != l->number.item[i])
            l->number.item[n++] = l->number.item[i];
    long lo = l->number.item[0], hi = l->number.item[n - 1];
    if (n == 1)
        text_printf(out, "%ld", lo);
    else if ((size_t)(hi - lo) == n - 1 && n > 2)
        text_printf(out, "{%ld..%ld}", lo, hi);
    else
        for (size_t i = 0; i < n; i++)
            text_printf(out, "%s%ld%s", i ? "," : "{", l->number.item[i], i + 1 == n ? "}" : "");
    l->number.count = n;
}

static void print_line(Line *l, Text *out) {
    const Remark *x = l->first;
    size_t from, to, all = l->number.count;
    long value;
    text_printf(out, "  %-6s %-7s  ", rows[x->id].pass, kinds[rows[x->id].kind]);
    if (first_number(x->place, &from, &to, &value)) {
        text_shown(out, (Str){x->place.p, from});
        print_numbers(l, out);
        text_shown(out, (Str){x->place.p + to, x->place.n - to});
    } else {
        text_shown(out, x->place);
        l->number.count = 1;
    }
    text_printf(out, "%s", x->place.n ? ": " : "");
    text_shown(out, (Str){l->message.p, l->message.n});
    if (all > l->number.count)
        text_printf(out, " (%zu times)", all);
    text_printf(out, "\n");
}

static void print_group(const Remarks *r, Str func, bool *told, Text *out) {
    Vec(Line) lines = {0};
    for (size_t i = 0; i < r->list.count; i++) {
        const Remark *x = &r->list.item[i];
        if (told[i] || !str_eq(x->func, func))
            continue;
        told[i] = true;
        bool taken = false;
        for (size_t k = 0; k < lines.count && !taken; k++)
            taken = line_takes(&lines.item[k], x);
        if (taken)
            continue;
        size_t from, to;
        long number = -1;
        Line l = {.first = x};
        first_number(x->place, &from, &to, &number);
        text_add(&l.message, x->text.p, x->text.n);
        vec_push(&l.number, number);
        vec_push(&lines, l);
    }
    if (func.n)
        text_printf(out, "@");
    text_shown(out, func.n ? func : str_c("the module"));
    text_printf(out, "\n");
    for (size_t k = 0; k < lines.count; k++) {
        print_line(&lines.item[k], out);
        text_free(&lines.item[k].message);
        vec_free(&lines.item[k].number);
    }
    vec_free(&lines);
}

void remarks_text(const Remarks *r, Text *out) {
    size_t count[3] = {0};
    bool *told = mem_alloc(r->list.count);
    for (size_t i = 0; i < r->list.count; i++)
        count[rows[r->list.item[i].id].kind]++;
    text_printf(out, "# %zu applied, %zu missed, %zu notes\n", count[REMARK_applied], count[REMARK_missed],
                count[REMARK_note]);
    for (size_t i = 0; i < r->list.count; i++)
        if (!told[i]) {
            text_printf(out, "\n");
            print_group(r, r->list.item[i].func, told, out);
        }
    mem_free(told);
}
