/* Minimum cuts. Edges stand in pairs, edge i ^ 1 is the way back of edge i. Nothing recurses. */
#include "mincut.h"

#include <string.h>

typedef struct Edge {
    uint32_t to, next; /* next edge of the same vertex, or UINT32_MAX */
    int64_t room;
} Edge;

struct MinCut {
    uint32_t n;
    Vec(Edge) edge;
    uint32_t *first, *turn, *queue, *path; /* by vertex; turn: where the search for paths goes on */
    int32_t *level;                        /* distance from the source, -1: out of reach */
};

enum { NO_EDGE = UINT32_MAX };

MinCut *mincut_new(Arena *a, uint32_t vertices) {
    MinCut *c = arena_alloc(a, sizeof *c);
    c->n = vertices;
    c->first = arena_array(a, vertices, sizeof *c->first);
    c->turn = arena_array(a, vertices, sizeof *c->turn);
    c->queue = arena_array(a, vertices, sizeof *c->queue);
    c->path = arena_array(a, vertices, sizeof *c->path);
    c->level = arena_array(a, vertices, sizeof *c->level);
    memset(c->first, 0xff, vertices * sizeof *c->first);
    return c;
}

void mincut_free(MinCut *c) {
    vec_free(&c->edge);
}

void mincut_edge(MinCut *c, uint32_t from, uint32_t to, int64_t capacity) {
    Edge there = {to, c->first[from], capacity}, back = {from, c->first[to], 0};
    c->first[from] = (uint32_t)c->edge.count;
    vec_push(&c->edge, there);
    back.next = c->first[to];
    c->first[to] = (uint32_t)c->edge.count;
    vec_push(&c->edge, back);
}

static bool find_levels(MinCut *c, uint32_t source, uint32_t sink) {
    uint32_t head = 0, tail = 0;
    memset(c->level, 0xff, c->n * sizeof *c->level);
    c->level[source] = 0;
    c->queue[tail++] = source;
    while (head < tail) {
        uint32_t v = c->queue[head++];
        for (uint32_t e = c->first[v]; e != NO_EDGE; e = c->edge.item[e].next) {
            const Edge *x = &c->edge.item[e];
            if (x->room > 0 && c->level[x->to] < 0) {
                c->level[x->to] = c->level[v] + 1;
                c->queue[tail++] = x->to;
            }
        }
    }
    return c->level[sink] >= 0;
}

/* Sends as much as fits along path[0 .. n); returns the position of the first edge that is full. */
static uint32_t send(MinCut *c, uint32_t n) {
    int64_t least = MINCUT_INFINITE;
    uint32_t full = 0;
    for (uint32_t i = 0; i < n; i++)
        if (c->edge.item[c->path[i]].room < least)
            least = c->edge.item[c->path[i]].room;
    for (uint32_t i = n; i-- > 0;) {
        c->edge.item[c->path[i]].room -= least;
        c->edge.item[c->path[i] ^ 1].room += least;
        if (c->edge.item[c->path[i]].room == 0)
            full = i;
    }
    return full;
}

/* Fills every path along which the levels rise by one. */
static void block(MinCut *c, uint32_t source, uint32_t sink) {
    uint32_t depth = 0, v = source;
    memcpy(c->turn, c->first, c->n * sizeof *c->turn);
    for (;;) {
        if (v == sink) {
            depth = send(c, depth);
            v = depth ? c->edge.item[c->path[depth - 1]].to : source;
            continue;
        }
        uint32_t e = c->turn[v];
        while (e != NO_EDGE && !(c->edge.item[e].room > 0 && c->level[c->edge.item[e].to] == c->level[v] + 1))
            e = c->edge.item[e].next;
        c->turn[v] = e;
        if (e != NO_EDGE) {
            c->path[depth++] = e;
            v = c->edge.item[e].to;
        } else if (v == source) {
            return;
        } else {
            c->level[v] = -1; /* a dead end */
            depth--;
            v = depth ? c->edge.item[c->path[depth - 1]].to : source;
        }
    }
}

void mincut_sink_side(MinCut *c, uint32_t source, uint32_t sink, bool *side) {
    while (find_levels(c, source, sink))
        block(c, source, sink);
    uint32_t head = 0, tail = 0;
    memset(side, 0, c->n * sizeof *side);
    side[sink] = true;
    c->queue[tail++] = sink;
    while (head < tail) { /* backwards: v reaches the sink through an edge that has room */
        uint32_t v = c->queue[head++];
        for (uint32_t e = c->first[v]; e != NO_EDGE; e = c->edge.item[e].next) {
            uint32_t from = c->edge.item[e].to;
            if (c->edge.item[e ^ 1].room > 0 && !side[from]) {
                side[from] = true;
                c->queue[tail++] = from;
            }
        }
    }
}
