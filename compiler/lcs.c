/* Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), in linear space: the furthest reaching
 * paths from both ends meet in the middle of a shortest edit script, and both halves are solved alike. */
#include "lcs.h"

#include <string.h>

typedef struct Lcs {
    const uint32_t *a, *b;
    uint32_t *match;
    int64_t *forward, *backward; /* by diagonal x - y, shifted to be positive */
    int64_t zero;                /* where diagonal 0 is */
} Lcs;

/* The two halves of the sequences at hand: sizes n and m, and elements counted from the front or from the
 * back. */
typedef struct Box {
    const uint32_t *a, *b;
    int64_t n, m;
} Box;

/* Follows diagonal k from the furthest point that d edits reach; x of the new one. */
static int64_t extend(const Box *s, int64_t *v, int64_t k, int64_t d, bool back) {
    int64_t x = k == -d || (k != d && v[k - 1] < v[k + 1]) ? v[k + 1] : v[k - 1] + 1, y = x - k;
    while (x < s->n && y < s->m && (back ? s->a[s->n - 1 - x] == s->b[s->m - 1 - y] : s->a[x] == s->b[y])) {
        x++;
        y++;
    }
    v[k] = x;
    return x;
}

/* A point that a shortest edit script passes, both ends differing; false when it is too far away. */
static bool middle(Lcs *l, const Box *s, int64_t *at_x, int64_t *at_y) {
    int64_t delta = s->n - s->m, *f = l->forward + l->zero, *g = l->backward + l->zero;
    f[1] = g[1] = 0;
    for (int64_t d = 0; d <= (s->n + s->m + 1) / 2 && d < LCS_MOST; d++) {
        for (int64_t k = -d; k <= d; k += 2) {
            int64_t x = extend(s, f, k, d, false), y = x - k, other = delta - k;
            if (delta % 2 && other > -d && other < d && x <= s->n && y <= s->m && y >= 0 &&
                x + g[other] >= s->n) {
                *at_x = x;
                *at_y = y;
                return true;
            }
        }
        for (int64_t k = -d; k <= d; k += 2) {
            int64_t x = extend(s, g, k, d, true), y = x - k, other = delta - k;
            if (delta % 2 == 0 && other >= -d && other <= d && x <= s->n && y <= s->m && y >= 0 &&
                x + f[other] >= s->n) {
                *at_x = s->n - x;
                *at_y = s->m - y;
                return true;
            }
        }
    }
    return false;
}

static void solve(Lcs *l, uint32_t a, uint32_t a_end, uint32_t b, uint32_t b_end) {
    while (a < a_end && b < b_end && l->a[a] == l->b[b])
        l->match[a++] = b++;
    while (a < a_end && b < b_end && l->a[a_end - 1] == l->b[b_end - 1])
        l->match[--a_end] = --b_end;
    if (a == a_end || b == b_end)
        return;
    Box s = {l->a + a, l->b + b, a_end - a, b_end - b};
    int64_t x, y;
    if (!middle(l, &s, &x, &y))
        return;
    solve(l, a, a + (uint32_t)x, b, b + (uint32_t)y); /* halves of the edits: deep as their logarithm */
    solve(l, a + (uint32_t)x, a_end, b + (uint32_t)y, b_end);
}

void lcs_match(const uint32_t *a, uint32_t n, const uint32_t *b, uint32_t m, uint32_t *match) {
    int64_t reach = ((int64_t)n + m + 1) / 2 + 1;
    Lcs l = {.a = a, .b = b, .match = match, .zero = (reach < LCS_MOST ? reach : LCS_MOST) + 1};
    size_t room = (size_t)(2 * l.zero + 3);
    if (n)
        memset(match, 0xff, n * sizeof *match);
    l.forward = mem_alloc(room * sizeof *l.forward);
    l.backward = mem_alloc(room * sizeof *l.backward);
    solve(&l, 0, n, 0, m);
    mem_free(l.forward);
    mem_free(l.backward);
}
