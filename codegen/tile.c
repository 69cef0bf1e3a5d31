/* Routines of register tiles, one version a kind of vectors: loop IR, all unrolled but the loops over k and over tiles. */
#include "tile.h"

#include "../compiler/pack.h"

#include <string.h>

/* Registers: tile rows times vectors hold sums, as many as vectors hold a row of B. */
const VectorKind vector_kinds[VECTOR_KINDS] = {
    {"AVX-512", "defined(__AVX512F__)", 16, 8, 2},
    {"AVX2", "defined(__AVX2__) && defined(__FMA__)", 8, 6, 2},
    {"NEON", "defined(__ARM_NEON) && defined(__aarch64__)", 4, 6, 4},
    {"plain C", NULL, 16, 4, 1},
};

enum {
    MAX_TILE = 64, /* sums */
    LINE = 16,     /* floats of a cache line */
    SEVERAL = 4,   /* tiles that make a panel worth keeping */
    AHEAD = 192    /* steps of k, about what memory is late by */
};

/* A routine while its statements are made. */
typedef struct Maker {
    LoopKernel *k;
    const LBuf *a, *b, *c;
    const LExpr *rows, *depth, *lda, *ldc, *add;
    uint32_t width, lanes, vectors;
    Left left;
    bool asks;  /* for what it reads next of B: where there are vectors, and B is a weight */
    bool leads; /* the same where A is the weight, in panels */
    const LExpr *column; /* first column of the tile */
    const LExpr *next;   /* where of the next panel what this tile asks for begins; NULL: it asks for nothing */
    const LExpr *step;   /* how far a step of k goes in it */
} Maker;

const LExpr *routine_number(LoopKernel *k, const char *name) {
    LVar v = {DT_I64, 1, str_c(name)};
    vec_push(&k->var, v);
    return le_var(k, k->n_params++);
}

static const LExpr *let(LoopKernel *k, LBlock *b, const LExpr *e, const char *hint) {
    return le_var(k, ls_let(k, b, e->type, e, hint));
}

/* ---- a tile ----------------------------------------------------------------------------------------- */

static const LExpr *in_row(const Maker *x, const LExpr *row, uint32_t v) {
    LoopKernel *k = x->k;
    return li_add(k, li_add(k, row, x->column), le_int(k, v * x->lanes));
}

/* Steps of k in a panel of A; 0: it has none. */
static uint32_t panel_steps(Left left) {
    return left == LEFT_PANELS ? PANEL_COLUMNS : left == LEFT_NARROW ? PANEL_NARROW : 0;
}

/* sum[r][v] += a[r] b[v], one step of k a turn: step `at` of all, `along` elements from a row's first in A. */
static void step(const Maker *x, LBlock *block, uint32_t n, const LExpr *const *a, const uint32_t *sum,
                 const LExpr *at, const LExpr *along) {
    LoopKernel *k = x->k;
    const LExpr *b[MAX_TILE];
    for (uint32_t line = 0; x->next && line < x->width; line += LINE)
        ls_prefetch(k, block, x->b, li_add(k, li_add(k, x->next, li_mul(k, at, x->step)), le_int(k, line)));
    for (uint32_t v = 0; v < x->vectors; v++) {
        const LExpr *row = li_mul(k, at, le_int(k, x->width));
        b[v] = let(k, block, le_load_lanes(k, x->b, in_row(x, row, v), x->lanes), "b");
    }
    for (uint32_t r = 0; r < n; r++) {
        const LExpr *e = let(k, block, le_load(k, x->a, li_add(k, a[r], along)), "x");
        for (uint32_t v = 0; v < x->vectors; v++) {
            const LExpr *product = le_op2(k, LO_MUL, DT_F32, le_splat(k, e, x->lanes), b[v]);
            uint32_t s = sum[r * x->vectors + v];
            ls_set(k, block, s, le_op2(k, LO_ADD, DT_F32, le_var(k, s), product));
        }
    }
}

/* The next panel is far away in memory: its rows are asked for while this one's are multiplied. */
static void ask_for_rows(const Maker *x, LBlock *block, uint32_t n, const LExpr *const *a, const LExpr *along, uint32_t steps) {
    LoopKernel *k = x->k;
    const LExpr *next = let(k, block, li_add(k, along, x->lda), "next");
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t line = 0; line < steps; line += LINE)
            ls_prefetch(k, block, x->a, li_add(k, li_add(k, a[r], next), le_int(k, line)));
}

static void multiply(const Maker *x, LBlock *block, uint32_t n, const LExpr *const *a, const uint32_t *sum) {
    LoopKernel *k = x->k;
    uint32_t steps = panel_steps(x->left);
    LStmt *loop = ls_for(k, block, x->depth, steps ? "panel" : "k");
    const LExpr *at = le_var(k, loop->var), *along = at;
    block = &loop->body;
    if (x->left != LEFT_ROWS)
        along = let(k, block, li_mul(k, at, x->lda), "along");
    if (steps) {
        const LExpr *first = let(k, block, li_mul(k, at, le_int(k, steps)), "first");
        if (x->leads)
            ask_for_rows(x, block, n, a, along, steps);
        LStmt *inner = ls_for(k, block, le_int(k, steps), "k");
        block = &inner->body;
        at = li_add(k, first, le_var(k, inner->var));
        along = li_add(k, along, le_var(k, inner->var));
    }
    step(x, block, n, a, sum, at, along);
}

/* Rows from `first` on, n of them. */
static void tile(const Maker *x, LBlock *block, const LExpr *first, uint32_t n) {
    LoopKernel *k = x->k;
    const LExpr *a[MAX_TILE], *c[MAX_TILE];
    uint32_t sum[MAX_TILE], sums = n * x->vectors;
    CHECK(sums <= MAX_TILE);
    for (uint32_t r = 0; r < n; r++) {
        const LExpr *row = li_add(k, first, le_int(k, r));
        uint32_t steps = panel_steps(x->left);
        const LExpr *apart = x->left == LEFT_ROWS ? x->lda : le_int(k, steps ? steps : 1);
        a[r] = let(k, block, li_mul(k, row, apart), "a");
        c[r] = let(k, block, li_mul(k, row, x->ldc), "c");
    }
    for (uint32_t i = 0; i < sums; i++)
        sum[i] = ls_let(k, block, DT_F32, le_splat(k, le_num(k, DT_F32, 0), x->lanes), "s");
    LStmt *from = ls_if(k, block, x->add);
    for (uint32_t i = 0; i < sums; i++)
        ls_set(k, &from->body, sum[i],
               le_load_lanes(k, x->c, in_row(x, c[i / x->vectors], i % x->vectors), x->lanes));
    multiply(x, block, n, a, sum);
    for (uint32_t i = 0; i < sums; i++)
        ls_store(k, block, x->c, in_row(x, c[i / x->vectors], i % x->vectors), le_var(k, sum[i]));
}

/* ---- the routine -------------------------------------------------------------------------------------- */

/* A panel that several tiles go down stays in cache: each of them asks for its share of the next panel, for which the
 * first of them would wait otherwise. One that few go down is asked for a little ahead. */
static void ask_for_next(Maker *x, LBlock *block, const LExpr *whole, const LExpr *tile) {
    LoopKernel *k = x->k;
    const LExpr *width = le_int(k, x->width), *several = le_op2(k, LO_GE, DT_BOOL, whole, le_int(k, SEVERAL));
    const LExpr *share = li_div(k, li_sub(k, li_add(k, whole, width), le_int(k, 1)), whole);
    const LExpr *panel = li_mul(k, x->depth, width), *ahead = le_int(k, AHEAD * x->width);
    x->step = let(k, block, le_select(k, several, share, width), "step");
    const LExpr *own = li_add(k, panel, li_mul(k, li_mul(k, tile, x->depth), x->step));
    x->next = let(k, block, le_select(k, several, own, ahead), "next");
}

static void ask_ahead(Maker *x) {
    x->step = le_int(x->k, x->width);
    x->next = le_int(x->k, AHEAD * x->width);
}

/* As many tiles of `rows` rows as there are, then what is left in tiles of 4, 2 and 1. */
static void tiles(Maker *x, LBlock *block, uint32_t rows) {
    LoopKernel *k = x->k;
    const LExpr *whole = let(k, block, li_div(k, x->rows, le_int(k, rows)), "whole");
    LStmt *loop = ls_for(k, block, whole, "tile");
    const LExpr *at = le_var(k, loop->var);
    if (x->asks)
        ask_for_next(x, &loop->body, whole, at);
    tile(x, &loop->body, let(k, &loop->body, li_mul(k, at, le_int(k, rows)), "row"), rows);
    if (x->asks)
        ask_ahead(x);
    uint32_t row = ls_let(k, block, DT_I64, li_mul(k, whole, le_int(k, rows)), "row");
    for (uint32_t n = 4; n; n /= 2) {
        if (n >= rows)
            continue;
        const LExpr *left = li_sub(k, x->rows, le_var(k, row));
        LStmt *some = ls_if(k, block, le_op2(k, LO_GE, DT_BOOL, left, le_int(k, n)));
        tile(x, &some->body, le_var(k, row), n);
        ls_set(k, &some->body, row, li_add(k, le_var(k, row), le_int(k, n)));
    }
}

static LoopKernel *panel_version(Routines *r, const char *name, uint32_t width, Left left, const VectorKind *kind) {
    LoopKernel *k = loop_kernel_new(r->m, r->arena, str_c(name));
    Maker x = {.k = k, .width = width, .lanes = kind->lanes, .left = left};
    x.asks = left == LEFT_ROWS && kind->condition;
    x.leads = panel_steps(left) && kind->condition;
    x.a = loop_buf(k, LB_ARG, DT_F32, str_c("a"));
    x.b = loop_buf(k, LB_ARG, DT_F32, str_c("b"));
    x.c = loop_buf(k, LB_ARG, DT_F32, str_c("c"));
    k->n_args = 3;
    x.rows = routine_number(k, "rows");
    x.depth = routine_number(k, "depth");
    x.lda = routine_number(k, "lda");
    x.ldc = routine_number(k, "ldc");
    x.add = routine_number(k, "add");
    uint32_t vectors = width / kind->lanes;
    x.vectors = vectors < kind->vectors ? vectors : kind->vectors;
    uint32_t columns = x.vectors * x.lanes;
    LBlock *block = &k->body;
    if (columns == width)
        x.column = le_int(k, 0);
    else {
        LStmt *loop = ls_for(k, block, le_int(k, width / columns), "part");
        block = &loop->body;
        x.column = let(k, block, li_mul(k, le_var(k, loop->var), le_int(k, columns)), "column");
    }
    tiles(&x, block, kind->rows);
    return k;
}

static const struct {
    const char *name, *what;
} lefts[] = {
    [LEFT_ROWS] = {"panel_", "rows,depth"},
    [LEFT_COLUMNS] = {"panel_t", "depth,rows"},
    [LEFT_PANELS] = {"panel_w", "depth,.,32"},
    [LEFT_NARROW] = {"panel_n", "depth,.,16"},
};

const LRoutine *routine_find(const Routines *r, const char *name) {
    for (size_t i = 0; i < r->item.count; i++)
        if (strcmp(r->item.item[i]->name, name) == 0)
            return r->item.item[i];
    return NULL;
}

LRoutine *routine_new(Routines *r, const char *name, const char *what) {
    LRoutine *x = arena_alloc(r->arena, sizeof *x);
    x->name = name;
    x->what = what;
    vec_push(&r->item, x);
    return x;
}

const LRoutine *panel_routine(Routines *r, uint32_t width, Left left) {
    const char *name = arena_printf(r->arena, "%s%u", lefts[left].name, width);
    const LRoutine *old = routine_find(r, name);
    if (old)
        return old;
    LRoutine *x = routine_new(r, name, arena_printf(r->arena, "C[rows,%u] (+)= A B[.,%u], A stored as [%s]: tiles of rows in registers",
                                                    width, width, lefts[left].what));
    for (uint32_t i = 0; i < VECTOR_KINDS; i++)
        x->version[i] = panel_version(r, name, width, left, &vector_kinds[i]);
    return x;
}
