/* An expression becomes a program of the kind of Thompson's automaton, run without backtracking: all threads
 * read a byte together, and none is at one instruction twice, so hostile expressions cost no more than long
 * ones.
 *
 * Jumps are relative, so that a finished part of the program may be moved to make room for the instruction
 * that repeats it or chooses it. */
#include "regexp.h"

#include <string.h>

typedef enum RegexpOp {
    RO_SET,   /* a byte of `set` */
    RO_SPLIT, /* both x and y */
    RO_JUMP,  /* x */
    RO_BEGIN, /* at the first byte only */
    RO_END,   /* after the last byte only */
    RO_DONE
} RegexpOp;

typedef struct Instr {
    RegexpOp op;
    int32_t x, y;
    uint64_t set[2]; /* ASCII */
} Instr;

struct Regexp {
    Instr *code;
    uint32_t n;
    uint32_t *now, *then, *stack;
    int64_t *mark; /* the last position at which a thread was at the instruction */
};

enum { MAX_DEPTH = 32 };

/* An open group, or the whole. */
typedef struct Group {
    uint32_t begin, branch; /* its first instruction, and that of its last alternative */
    int64_t jumps;          /* chain of the jumps at the ends of the others; -1 ends it */
} Group;

typedef struct Parse {
    Str text;
    size_t at;
    Regexp *r;
    Group group[MAX_DEPTH];
    int depth;
    uint32_t atom; /* what a quantifier would repeat, if has_atom */
    bool has_atom;
    const char *why;
} Parse;

static bool fail(Parse *p, const char *why) {
    p->why = why;
    return false;
}

static Instr *append(Parse *p, RegexpOp op, int32_t x, int32_t y) {
    Instr *i = &p->r->code[p->r->n++];
    *i = (Instr){.op = op, .x = x, .y = y};
    return i;
}

static void insert_split(Parse *p, uint32_t at, int32_t x, int32_t y) {
    Instr *code = p->r->code;
    memmove(code + at + 1, code + at, (p->r->n - at) * sizeof *code);
    code[at] = (Instr){.op = RO_SPLIT, .x = x, .y = y};
    p->r->n++;
}

/* ---- sets ----------------------------------------------------------------------------------------- */

static void set_add(uint64_t set[2], unsigned lo, unsigned hi) {
    for (unsigned c = lo; c <= hi; c++)
        set[c >> 6] |= (uint64_t)1 << (c & 63);
}

/* What follows a backslash. */
static bool escape_read(Parse *p, uint64_t set[2]) {
    if (p->at == p->text.n)
        return fail(p, "it ends in a backslash");
    unsigned char c = (unsigned char)p->text.p[p->at++];
    if (c == 'd' || c == 'w')
        set_add(set, '0', '9');
    if (c == 'w') {
        set_add(set, 'a', 'z');
        set_add(set, 'A', 'Z');
        set_add(set, '_', '_');
    }
    if (c == 'd' || c == 'w')
        return true;
    if (c >= 0x80 || c < 0x20 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return fail(p, "an escape that is not understood");
    set_add(set, c, c);
    return true;
}

/* Behind the `[`. A `]` that comes first is a byte like others. */
static bool class_read(Parse *p, uint64_t set[2]) {
    bool negated = p->at < p->text.n && p->text.p[p->at] == '^';
    p->at += negated;
    for (size_t first = p->at; p->at < p->text.n;) {
        unsigned char c = (unsigned char)p->text.p[p->at++];
        if (c == ']' && p->at - 1 > first) {
            set[0] ^= negated ? ~(uint64_t)0 : 0;
            set[1] ^= negated ? ~(uint64_t)0 : 0;
            return true;
        }
        if (c == '\\') {
            if (!escape_read(p, set))
                return false;
            continue;
        }
        unsigned char hi = c;
        if (p->at + 1 < p->text.n && p->text.p[p->at] == '-' && p->text.p[p->at + 1] != ']') {
            hi = (unsigned char)p->text.p[p->at + 1];
            p->at += 2;
        }
        if (c >= 0x80 || hi >= 0x80 || hi < c || hi == '\\')
            return fail(p, "a class that is not understood");
        set_add(set, c, hi);
    }
    return fail(p, "a '[' is never closed");
}

/* ---- parsing -------------------------------------------------------------------------------------- */

static void alternative_end(Parse *p) {
    Group *g = &p->group[p->depth];
    insert_split(p, g->branch, 1, (int32_t)(p->r->n - g->branch) + 2);
    append(p, RO_JUMP, (int32_t)g->jumps, 0);
    g->jumps = p->r->n - 1;
    g->branch = p->r->n;
}

static void group_end(Parse *p) {
    Instr *code = p->r->code;
    for (int64_t j = p->group[p->depth].jumps; j >= 0;) {
        int64_t next = code[j].x;
        code[j].x = (int32_t)(p->r->n - j);
        j = next;
    }
}

static bool group_begin(Parse *p) {
    if (p->at < p->text.n && p->text.p[p->at] == '?') {
        if (p->at + 1 >= p->text.n || p->text.p[p->at + 1] != ':')
            return fail(p, "a group that is not understood");
        p->at += 2;
    }
    if (p->depth + 1 == MAX_DEPTH)
        return fail(p, "groups are nested too deep");
    p->group[++p->depth] = (Group){p->r->n, p->r->n, -1};
    return true;
}

static bool repeat(Parse *p, char c) {
    if (!p->has_atom)
        return fail(p, "there is nothing to repeat");
    int32_t length = (int32_t)(p->r->n - p->atom);
    if (c == '+') {
        append(p, RO_SPLIT, -length, 1);
    } else {
        insert_split(p, p->atom, 1, length + (c == '*' ? 2 : 1));
        if (c == '*')
            append(p, RO_JUMP, -(length + 1), 0);
    }
    if (p->at < p->text.n && p->text.p[p->at] == '?')
        p->at++; /* lazy: the same words match as a whole */
    return true;
}

static bool byte_read(Parse *p, unsigned char c) {
    p->atom = p->r->n;
    if (c == '^' || c == '$') {
        append(p, c == '^' ? RO_BEGIN : RO_END, 0, 0);
        return true;
    }
    Instr *i = append(p, RO_SET, 0, 0);
    if (c == '.')
        set_add(i->set, 0, 127);
    else if (c == '[')
        return class_read(p, i->set);
    else if (c == '\\')
        return escape_read(p, i->set);
    else if (c >= 0x80 || c == '{' || c == '}')
        return fail(p, c >= 0x80 ? "it is not ASCII" : "braces are not understood");
    else
        set_add(i->set, c, c);
    return true;
}

static bool item_read(Parse *p) {
    char c = p->text.p[p->at++];
    bool atom = false, ok = true;
    if (c == '(') {
        ok = group_begin(p);
    } else if (c == ')') {
        if (p->depth == 0)
            return fail(p, "a ')' without its '('");
        group_end(p);
        p->atom = p->group[p->depth--].begin;
        atom = true;
    } else if (c == '|') {
        alternative_end(p);
    } else if (c == '*' || c == '+' || c == '?') {
        ok = repeat(p, c);
    } else {
        ok = byte_read(p, (unsigned char)c);
        atom = c != '^' && c != '$';
    }
    p->has_atom = atom;
    return ok;
}

Regexp *regexp_new(Arena *a, Str text, const char **why) {
    if (text.n > LIMIT_REGEXP) {
        *why = "it is longer than 1024 bytes"; /* LIMIT_REGEXP */
        return NULL;
    }
    size_t room = 2 * text.n + 2; /* no byte makes more than two instructions */
    Regexp *r = arena_alloc(a, sizeof *r);
    r->code = arena_array(a, room, sizeof *r->code);
    Parse p = {.text = text, .r = r, .group = {{0, 0, -1}}};
    bool ok = true;
    while (ok && p.at < text.n)
        ok = item_read(&p);
    if (ok && p.depth > 0)
        ok = fail(&p, "a '(' is never closed");
    if (!ok) {
        *why = p.why;
        return NULL;
    }
    group_end(&p);
    append(&p, RO_DONE, 0, 0);
    r->now = arena_array(a, r->n, sizeof *r->now);
    r->then = arena_array(a, r->n, sizeof *r->then);
    r->stack = arena_array(a, 2 * (size_t)r->n + 1, sizeof *r->stack);
    r->mark = arena_array(a, r->n, sizeof *r->mark);
    return r;
}

/* ---- matching ------------------------------------------------------------------------------------- */

/* Adds the threads that `start` leads to without reading; true when one of them is done at the end of s. */
static bool threads_add(const Regexp *r, Str s, size_t at, uint32_t start, uint32_t *list, uint32_t *n,
                        int64_t *steps) {
    uint32_t depth = 0;
    bool done = false;
    r->stack[depth++] = start;
    while (depth > 0) {
        uint32_t i = r->stack[--depth];
        const Instr *c = &r->code[i];
        if (r->mark[i] == (int64_t)at + 1)
            continue;
        r->mark[i] = (int64_t)at + 1;
        --*steps;
        if (c->op == RO_SET)
            list[(*n)++] = i;
        done |= c->op == RO_DONE && at == s.n;
        if (c->op == RO_SPLIT)
            r->stack[depth++] = (uint32_t)((int64_t)i + c->y);
        if (c->op == RO_SPLIT || c->op == RO_JUMP)
            r->stack[depth++] = (uint32_t)((int64_t)i + c->x);
        if ((c->op == RO_BEGIN && at == 0) || (c->op == RO_END && at == s.n))
            r->stack[depth++] = i + 1;
    }
    return done;
}

bool regexp_match(const Regexp *r, Str s, bool tail, int64_t *steps) {
    uint32_t *now = r->now, *then = r->then, n_now = 0;
    memset(r->mark, 0, r->n * sizeof *r->mark);
    *steps -= r->n;
    bool done = threads_add(r, s, 0, 0, now, &n_now, steps);
    for (size_t at = 0; at < s.n && *steps >= 0; at++) {
        unsigned char c = (unsigned char)s.p[at];
        uint32_t n_then = 0;
        done = tail && c == '.' && threads_add(r, s, at + 1, 0, then, &n_then, steps);
        *steps -= n_now;
        for (uint32_t i = 0; i < n_now; i++) {
            const Instr *instr = &r->code[now[i]];
            if (c < 0x80 && (instr->set[c >> 6] >> (c & 63) & 1) != 0)
                done |= threads_add(r, s, at + 1, now[i] + 1, then, &n_then, steps);
        }
        uint32_t *swap = now;
        now = then;
        then = swap;
        n_now = n_then;
    }
    return done && *steps >= 0;
}
