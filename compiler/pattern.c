/* Patterns as a nondeterministic automaton that is run without backtracking.
 *
 * A pattern of n bytes has states 0..n (about to read byte i; n accepts) and n more, n + 1 + c, for
 * "an alternative begins after the brace or comma at c". All edges between bytes are empty moves, so a
 * step costs at most the number of states, whatever the pattern. Braces may nest; a comma outside
 * braces is an ordinary byte. */
#include "pattern.h"

#include <string.h>

struct Pattern {
    Str text;
    uint32_t *next;  /* for `{` and `,` in braces: position of the next comma or the closing brace */
    uint32_t *close; /* for `,` in braces: position of the closing brace */
    uint8_t *kind;   /* ByteKind of each position */
    uint32_t *now, *then, *mark, *stack;
    uint32_t stamp;
};

typedef enum ByteKind { BK_PLAIN, BK_STAR, BK_OPEN, BK_COMMA, BK_CLOSE } ByteKind;

static bool pattern_braces(Pattern *p, const char **why) {
    uint32_t n = (uint32_t)p->text.n, depth = 0;
    uint32_t *open = p->stack; /* last `{` or `,` of each open brace */
    uint32_t *first = p->now;  /* the `{` itself */
    for (uint32_t i = 0; i < n; i++) {
        char c = p->text.p[i];
        if (c == '*') {
            p->kind[i] = BK_STAR;
        } else if (c == '{') {
            p->kind[i] = BK_OPEN;
            open[depth] = i;
            first[depth++] = i;
        } else if (c == ',' && depth > 0) {
            p->kind[i] = BK_COMMA;
            p->next[open[depth - 1]] = i;
            open[depth - 1] = i;
        } else if (c == '}') {
            if (depth == 0) {
                *why = "a '}' without its '{'";
                return false;
            }
            p->kind[i] = BK_CLOSE;
            p->next[open[--depth]] = i;
            for (uint32_t at = first[depth]; at != i; at = p->next[at])
                p->close[at] = i;
        }
    }
    if (depth > 0)
        *why = "a '{' is never closed";
    return depth == 0;
}

Pattern *pattern_new(Arena *a, Str text, const char **why) {
    if (text.n == 0 || text.n > LIMIT_PATTERN) {
        *why = text.n == 0 ? "it is empty" : "it is longer than 4096 bytes";
        return NULL;
    }
    size_t states = 2 * text.n + 1;
    Pattern *p = arena_alloc(a, sizeof *p);
    p->text = (Str){arena_strndup(a, text.p, text.n), text.n};
    p->next = arena_array(a, text.n, sizeof *p->next);
    p->close = arena_array(a, text.n, sizeof *p->close);
    p->kind = arena_array(a, text.n, sizeof *p->kind);
    p->now = arena_array(a, states, sizeof *p->now);
    p->then = arena_array(a, states, sizeof *p->then);
    p->mark = arena_array(a, states, sizeof *p->mark);
    p->stack = arena_array(a, states, sizeof *p->stack);
    return pattern_braces(p, why) ? p : NULL;
}

/* Adds `state` and all that empty moves reach from it; only states that wait for a byte are listed. */
static void pattern_add(Pattern *p, uint32_t state, uint32_t *set, uint32_t *count) {
    uint32_t n = (uint32_t)p->text.n, depth = 0;
    p->stack[depth++] = state;
    p->mark[state] = p->stamp;
    while (depth > 0) {
        uint32_t at = p->stack[--depth], to[2], edges = 0;
        if (at > n) {
            uint32_t from = at - n - 1;
            to[edges++] = from + 1;
            if (p->kind[p->next[from]] == BK_COMMA)
                to[edges++] = n + 1 + p->next[from];
        } else if (at == n || p->kind[at] == BK_PLAIN || p->kind[at] == BK_STAR) {
            set[(*count)++] = at;
            if (at < n && p->kind[at] == BK_STAR)
                to[edges++] = at + 1;
        } else if (p->kind[at] == BK_OPEN) {
            to[edges++] = n + 1 + at;
        } else {
            to[edges++] = (p->kind[at] == BK_COMMA ? p->close[at] : at) + 1;
        }
        for (uint32_t e = 0; e < edges; e++) {
            if (p->mark[to[e]] != p->stamp) {
                p->mark[to[e]] = p->stamp;
                p->stack[depth++] = to[e];
            }
        }
    }
}

bool pattern_match(Pattern *p, Str s) {
    uint32_t n = (uint32_t)p->text.n, count = 0;
    p->stamp++;
    pattern_add(p, 0, p->now, &count);
    for (size_t i = 0; i < s.n && count > 0; i++) {
        uint32_t found = 0;
        p->stamp++;
        for (uint32_t k = 0; k < count; k++) {
            uint32_t at = p->now[k];
            if (at == n)
                continue;
            uint32_t to = p->kind[at] == BK_STAR ? at : at + 1;
            if ((p->kind[at] == BK_STAR || p->text.p[at] == s.p[i]) && p->mark[to] != p->stamp)
                pattern_add(p, to, p->then, &found);
        }
        uint32_t *swap = p->now;
        p->now = p->then;
        p->then = swap;
        count = found;
    }
    for (uint32_t k = 0; k < count; k++) {
        if (p->now[k] == n)
            return true;
    }
    return false;
}
