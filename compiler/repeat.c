/* Repeats in a function: for every period the stretches of nodes that are like the ones a period on; the one
 * that covers most becomes a repeat, and what stands before and behind it is searched again. */
#include "repeat.h"
#include "namemap.h"
#include "print.h"

#include <string.h>

enum {
    WORTH = 3, /* nodes that a repeat has to save */
    INDEPENDENT_MIN =
        3, /* groups that do not depend on each other are no layers: two of a kind stay as they are */
};
/* Pairs of nodes that are looked at, in one search and in all: time for graphs of any size. */
#define SEARCH_CHECKS ((uint64_t)1 << 26)
#define MOST_CHECKS   ((uint64_t)1 << 29)

/* ---- likeness -------------------------------------------------------------------------------- */

typedef struct Likeness {
    const Module *m;
    Arena *a;
    NameMap numbers; /* texts to numbers */
    uint32_t *func;
} Likeness;

static uint32_t number(Likeness *l, const Text *t) {
    uint32_t n = (uint32_t)l->numbers.count;
    Str key = {t->p, t->n};
    if (namemap_find(&l->numbers, key, &n))
        return n;
    key.p = arena_strndup(l->a, key.p, key.n);
    namemap_add(&l->numbers, key, n);
    return n;
}

/* What a node is, operands by their types alone. */
static void node_key(const Likeness *l, const Func *f, const Node *n, Text *out) {
    static const Str no_names[1];
    Attr few[16], *attrs = n->n_attrs <= 16 ? few : mem_alloc(n->n_attrs * sizeof *attrs);
    Node plain = {.op = n->op, .attrs = attrs};
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        AttrKey key = n->attrs[i].key;
        if (attr_kind(key) == AK_FUNC)
            text_printf(out, "%s=%u ", attr_name(key), l->func[n->attrs[i].i]);
        else if (key == AT_adjoint || (!attr_annotates(key) && key != AT_start))
            attrs[plain.n_attrs++] = n->attrs[i];
    }
    node_print_as(l->m, f, no_names, &plain, out);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const Value *v = n->in[i] == NONE ? NULL : &f->value[n->in[i]];
        text_printf(out, v ? v->kind == VK_PARAM ? "@" : "%%" : "_");
        if (v)
            type_print(l->m, &v->type, out);
    }
    for (uint32_t i = 0; i < n->n_out; i++) {
        text_add(out, ">", 1);
        type_print(l->m, &f->value[n->out + i].type, out);
    }
    if (attrs != few)
        mem_free(attrs);
}

/* Callees first; calls are free of cycles and nest a bounded number deep. */
static void func_number(Likeness *l, const Func *f) {
    Text t = {0};
    if (l->func[f->id] != NONE)
        return;
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_attrs; k++)
            if (attr_kind(f->node[i].attrs[k].key) == AK_FUNC)
                func_number(l, l->m->func[f->node[i].attrs[k].i]);
    text_printf(&t, "%d %u\n", (int)f->role, f->n_inputs);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        node_key(l, f, &f->node[i], &t);
        for (uint32_t k = 0; k < f->node[i].n_in; k++) {
            if (f->node[i].in[k] == NONE)
                continue;
            const Value *v = &f->value[f->node[i].in[k]];
            if (v->kind != VK_PARAM)
                text_printf(&t, " %d.%u.%u", (int)v->kind, v->def, v->index);
        }
        text_add(&t, "\n", 1);
    }
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        const Value *v = &f->value[f->output[i]];
        if (v->kind != VK_PARAM)
            text_printf(&t, " %d.%u.%u", (int)v->kind, v->def, v->index);
    }
    l->func[f->id] = number(l, &t);
    text_free(&t);
}

uint32_t *func_likeness(const Module *m, Arena *a) {
    Arena *scratch = arena_new();
    Likeness l = {.m = m, .a = scratch, .func = arena_array(a, m->n_funcs + 1u, sizeof(uint32_t))};
    memset(l.func, 0xff, (m->n_funcs + 1u) * sizeof *l.func);
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (m->func[i])
            func_number(&l, m->func[i]);
    namemap_free(&l.numbers);
    arena_free(scratch);
    return l.func;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* Positions count nodes that are like another one, the others left out. */
typedef struct Search {
    const Func *f;
    NodeId *node;   /* by position */
    int64_t *at;    /* by NodeId: its position, or -1 */
    uint32_t *like; /* by position: the node's number */
    int64_t *lo,
        *hi; /* by position i, for one period: the run that holds i as well as i + period starts in lo..hi */
    int64_t *all_lo, *all_hi; /* the same of all positions from i to the end of a stretch */
    uint64_t checks;
} Search;

typedef struct Found {
    int64_t start, period, times;
    bool chained;
} Found;

/* The position that makes v, or -1. */
static int64_t maker(const Search *s, ValueId v) {
    return s->f->value[v].kind == VK_NODE ? s->at[s->f->value[v].def] : -1;
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Operands a of position i and b of i + period: narrows where a run may start. False: no run holds both. */
static bool operand_fits(Search *s, int64_t i, int64_t period, ValueId a, ValueId b) {
    if (a == NONE || (s->f->value[a].kind == VK_PARAM && s->f->value[b].kind == VK_PARAM))
        return true;
    int64_t from = maker(s, a), to = maker(s, b), *lo = &s->lo[i], *hi = &s->hi[i];
    bool same_result = s->f->value[a].index == s->f->value[b].index;
    if (from >= 0 && to - from == period)
        return same_result;
    bool alike = from >= 0 && to >= 0 && same_result && s->like[from] == s->like[to];
    if (to < 0 || (alike && to < i)) /* both from outside */
        *lo = larger(*lo, larger(from, to) + 1);
    else { /* into the first group from outside, into the next from the first */
        *lo = larger(*lo, larger(larger(from, to - period), i - period) + 1);
        if (to < *hi)
            *hi = to;
    }
    return *lo <= *hi;
}

static bool fits(Search *s, int64_t i, int64_t period) {
    const Node *a = &s->f->node[s->node[i]], *b = &s->f->node[s->node[i + period]];
    if (s->like[i] != s->like[i + period])
        return false;
    s->lo[i] = 0;
    s->hi[i] = i;
    for (uint32_t k = 0; k < a->n_in; k++)
        if (!operand_fits(s, i, period, a->in[k], b->in[k]))
            return false;
    return true;
}

/* Whether some operand of the second group comes from the first. */
static bool is_chained(const Search *s, int64_t start, int64_t period) {
    for (int64_t i = start + period; i < start + 2 * period; i++) {
        const Node *n = &s->f->node[s->node[i]];
        for (uint32_t k = 0; k < n->n_in; k++) {
            int64_t at = n->in[k] == NONE ? -1 : maker(s, n->in[k]);
            if (at >= start && at < start + period)
                return true;
        }
    }
    return false;
}

static bool worth(const Found *x) {
    return (x->times - 1) * x->period >= WORTH && (x->chained || x->times >= INDEPENDENT_MIN);
}

/* How many values the second group takes from the first. */
static uint32_t crossing(const Search *s, int64_t start, int64_t period, Arena *scratch) {
    bool *seen = arena_array(scratch, s->f->n_values + 1, sizeof *seen);
    uint32_t n = 0;
    for (int64_t i = start + period; i < start + 2 * period; i++) {
        const Node *x = &s->f->node[s->node[i]];
        for (uint32_t k = 0; k < x->n_in; k++) {
            int64_t at = x->in[k] == NONE ? -1 : maker(s, x->in[k]);
            if (at < start || at >= start + period || seen[x->in[k]])
                continue;
            seen[x->in[k]] = true;
            n++;
        }
    }
    return n;
}

/* Positions begin..end - 1 fit with those a period on. */
static void gather_bounds(Search *s, int64_t begin, int64_t end) {
    for (int64_t i = end - 1; i >= begin; i--) {
        bool last = i == end - 1;
        s->all_lo[i] = last ? s->lo[i] : larger(s->lo[i], s->all_lo[i + 1]);
        s->all_hi[i] = last || s->hi[i] < s->all_hi[i + 1] ? s->hi[i] : s->all_hi[i + 1];
    }
}

static bool may_start(const Search *s, int64_t i) {
    return s->all_lo[i] <= i && s->all_hi[i] >= i;
}

/* Where a group begins is a matter of taste when there is room: where the fewest values pass from group to
 * group. */
static void align(const Search *s, Found *x, int64_t end) {
    uint32_t best = UINT32_MAX;
    int64_t first = x->start, last = end + x->period - x->times * x->period;
    for (int64_t start = first; start <= last && start < end; start++) {
        if (!may_start(s, start))
            continue;
        Arena *scratch = arena_new();
        uint32_t n = crossing(s, start, x->period, scratch);
        arena_free(scratch);
        if (n < best) {
            best = n;
            x->start = start;
        }
    }
}

/* The run of this period in the stretch begin..end - 1, if it beats *best. */
static void try_stretch(Search *s, int64_t begin, int64_t end, int64_t period, Found *best) {
    if (end - begin < period || (end - begin) / period * period + period <= best->times * best->period)
        return;
    gather_bounds(s, begin, end);
    int64_t start = begin;
    while (start + period <= end && !may_start(s, start))
        start++;
    Found x = {start, period, (end - start) / period + 1, false};
    if (start + period > end || x.times * period <= best->times * best->period)
        return;
    x.chained = is_chained(s, start, period);
    if (!worth(&x))
        return;
    align(s, &x, end);
    *best = x;
}

/* Also without the tail that keeps a run from starting at the front. */
static void try_both(Search *s, int64_t begin, int64_t end, int64_t period, Found *best) {
    int64_t tail = begin;
    while (tail < end && s->lo[tail] <= begin)
        tail++;
    try_stretch(s, begin, tail, period, best);
    if (tail < end)
        try_stretch(s, begin, end, period, best);
}

static Found search(Search *s, int64_t from, int64_t to) {
    Found best = {0};
    uint64_t most = s->checks + SEARCH_CHECKS < MOST_CHECKS ? s->checks + SEARCH_CHECKS : MOST_CHECKS;
    for (int64_t period = 1; 2 * period <= to - from && s->checks < most; period++) {
        int64_t begin = from;
        for (int64_t i = from; i + period <= to; i++) {
            if (i + period < to && fits(s, i, period))
                continue;
            try_both(s, begin, i, period, &best);
            begin = i + 1;
        }
        s->checks += (uint64_t)(to - from - period);
    }
    return best;
}

static void record(Search *s, const Found *x, Repeats *out) {
    for (int64_t i = 0; i < x->times * x->period; i++) {
        NodeId n = s->node[x->start + i];
        out->run[n] = out->n;
        out->turn[n] = (uint32_t)(i / x->period);
        out->like[n] = s->node[x->start + i % x->period];
    }
    out->item[out->n++] = (Repeat){(uint32_t)x->period, (uint32_t)x->times, x->chained};
}

void repeats_none(const Func *f, Arena *a, Repeats *out) {
    *out = (Repeats){.run = arena_array(a, f->n_nodes + 1, sizeof *out->run),
                     .turn = arena_array(a, f->n_nodes + 1, sizeof *out->turn),
                     .like = arena_array(a, f->n_nodes + 1, sizeof *out->like),
                     .item = arena_array(a, f->n_nodes / WORTH + 1, sizeof *out->item)};
    for (NodeId i = 0; i < f->n_nodes; i++) {
        out->run[i] = NONE;
        out->like[i] = i;
    }
}

void repeats_find(const Module *m, const Func *f, const uint32_t *likeness, Arena *a, Repeats *out) {
    Arena *scratch = arena_new();
    Likeness l = {.m = m, .a = scratch, .func = (uint32_t *)(uintptr_t)likeness};
    Search s = {.f = f};
    size_t room = f->n_nodes + 1u;
    s.node = arena_array(scratch, room, sizeof *s.node);
    s.at = arena_array(scratch, room, sizeof *s.at);
    s.like = arena_array(scratch, room, sizeof *s.like);
    s.lo = arena_array(scratch, room, sizeof *s.lo);
    s.hi = arena_array(scratch, room, sizeof *s.hi);
    s.all_lo = arena_array(scratch, room, sizeof *s.all_lo);
    s.all_hi = arena_array(scratch, room, sizeof *s.all_hi);
    uint32_t *count = arena_array(scratch, room, sizeof *count),
             *number_of = arena_array(scratch, room, sizeof *number_of);
    repeats_none(f, a, out);
    for (NodeId i = 0; i < f->n_nodes; i++) {
        Text key = {0};
        node_key(&l, f, &f->node[i], &key);
        number_of[i] = number(&l, &key);
        count[number_of[i]]++;
        text_free(&key);
    }
    int64_t n = 0;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        s.at[i] = count[number_of[i]] > 1 ? n : -1;
        if (s.at[i] < 0)
            continue;
        s.like[n] = number_of[i];
        s.node[n++] = i;
    }
    Vec(int64_t) todo = {0}; /* ends of stretches without a repeat, pairs */
    vec_push(&todo, 0);
    vec_push(&todo, n);
    while (todo.count) {
        int64_t to = todo.item[--todo.count], from = todo.item[--todo.count];
        Found x = search(&s, from, to);
        if (!x.times)
            continue;
        record(&s, &x, out);
        vec_push(&todo, from);
        vec_push(&todo, x.start);
        vec_push(&todo, x.start + x.times * x.period);
        vec_push(&todo, to);
    }
    vec_free(&todo);
    namemap_free(&l.numbers);
    arena_free(scratch);
}
