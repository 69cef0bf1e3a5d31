/* Routines of register tiles, one version a kind of vectors: loop IR, all unrolled but the loops over k and over tiles. */
#include "tile.h"

#include <string.h>

/* Registers: tile rows times vectors hold sums, as many as vectors hold a row of B. Sums of integers stand beside those that
 * they are scaled into: fewer rows. */
const VectorKind vector_kinds[VECTOR_KINDS] = {
    {"AVX-512", "defined(__AVX512F__)", 16, 8, 2, 6, 4},
    {"AVX2", "defined(__AVX2__) && defined(__FMA__)", 8, 6, 2, 2, 2},
    {"SSE2", "defined(__SSE2__)", 4, 6, 2, 2, 1},
    {"NEON", "defined(__ARM_NEON) && defined(__aarch64__)", 4, 6, 4, 2, 1},
    {"plain C", NULL, 16, 4, 1, 2, 1},
};

enum {
    MAX_TILE = 64, /* sums */
    LINE = 16,     /* words of a cache line */
    SEVERAL = 4,   /* tiles that make a panel worth keeping */
    AHEAD = 192    /* rows of a panel, about what memory is late by */
};

/* A routine while its statements are made. A row of a panel is a step of k, or as many as stand in a word. */
typedef struct Maker {
    LoopKernel *k;
    PanelProduct p;
    const WeightFormatInfo *format;
    const LBuf *a, *b, *c;
    const LBuf *scale;                /* of B, by blocks: f32[panels,blocks,width] */
    const LBuf *row_scale, *row_sum;  /* of A: f32[rows], i32[rows,blocks,digits] */
    const LExpr *rows, *depth, *lda, *ldc, *add, *panels;
    const LExpr *blocks;
    const LExpr *part;  /* from a step of A to the same one of the columns' next part */
    const LExpr *digit; /* words from one digit of a row of A to the next */
    uint32_t lanes, vectors;
    bool asks;  /* for what it reads next of B: where there are vectors, and B is a weight */
    bool leads; /* the same of A: where it is the weight, in panels, or lies by columns, as far as the depth away */
    const LExpr *column; /* first column of the tile in a panel */
    const LExpr *panel;  /* the tile's first panel */
    const LExpr *next;   /* where of the next panel what this tile asks for begins; NULL: it asks for nothing */
    const LExpr *step;   /* how far a row of a panel goes in it */
} Maker;

/* Rows by panels, and the sums that stay in registers: of row r, panel p and vector v. */
typedef struct Tile {
    uint32_t rows, panels;
    const LExpr *a[MAX_TILE], *c[MAX_TILE], *b[PANEL_STREAMS], *scale[PANEL_STREAMS], *sums[MAX_TILE];
    uint32_t sum[MAX_TILE];
} Tile;

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

static const LExpr *times_width(const Maker *x, const LExpr *row) {
    return li_mul(x->k, row, le_int(x->k, x->p.width));
}

static uint32_t *sum_of(const Maker *x, Tile *t, uint32_t r, uint32_t p, uint32_t v) {
    return &t->sum[(r * t->panels + p) * x->vectors + v];
}

/* Where of C the sums go: panels lie side by side. */
static const LExpr *place_of(const Maker *x, const Tile *t, uint32_t r, uint32_t p, uint32_t v) {
    return in_row(x, li_add(x->k, t->c[r], le_int(x->k, p * x->p.width)), v);
}

/* Visits all sums of a tile. */
#define EACH_SUM(x, t, r, p, v)                      \
    for (uint32_t r = 0; r < (t)->rows; r++)         \
        for (uint32_t p = 0; p < (t)->panels; p++)   \
            for (uint32_t v = 0; v < (x)->vectors; v++)

static void ask(const Maker *x, LBlock *block, const Tile *t, const LExpr *at) {
    LoopKernel *k = x->k;
    for (uint32_t p = 0; x->next && p < t->panels; p++)
        for (uint32_t line = 0; line < x->p.width; line += LINE)
            ls_prefetch(k, block, x->b,
                        li_add(k, li_add(k, t->b[p], li_add(k, x->next, li_mul(k, at, x->step))), le_int(k, line)));
}

/* Vector i of row `at` of the tile's panels. */
static const LExpr *load_vector(const Maker *x, LBlock *block, const Tile *t, const LExpr *at, uint32_t i, const char *hint) {
    LoopKernel *k = x->k;
    const LExpr *row = li_add(k, t->b[i / x->vectors], times_width(x, at));
    return let(k, block, le_load_lanes(k, x->b, in_row(x, row, i % x->vectors), x->lanes), hint);
}

static void load_row(const Maker *x, LBlock *block, const Tile *t, const LExpr *at, const LExpr **to, const char *hint) {
    for (uint32_t i = 0; i < t->panels * x->vectors; i++)
        to[i] = load_vector(x, block, t, at, i, hint);
}

/* sum[r] += a[r] b, b a vector for each panel and vector. */
static void add_products(const Maker *x, LBlock *block, Tile *t, const LExpr *along, const LExpr *const *b) {
    LoopKernel *k = x->k;
    for (uint32_t r = 0; r < t->rows; r++) {
        const LExpr *e = let(k, block, le_load(k, x->a, li_add(k, t->a[r], along)), "x");
        for (uint32_t p = 0; p < t->panels; p++)
            for (uint32_t v = 0; v < x->vectors; v++) {
                const LExpr *product = le_op2(k, LO_MUL, DT_F32, le_splat(k, e, x->lanes), b[p * x->vectors + v]);
                uint32_t s = *sum_of(x, t, r, p, v);
                ls_set(k, block, s, le_op2(k, LO_ADD, DT_F32, le_var(k, s), product));
            }
    }
}

/* Steps of k in a panel of A; 0: it has none. */
static uint32_t panel_steps(Left left) {
    return left == LEFT_PANELS ? PANEL_COLUMNS : left == LEFT_NARROW ? PANEL_NARROW : 0;
}

/* The next panel of A is far away in memory: its rows are asked for while this one's are multiplied. */
static void ask_for_rows(const Maker *x, LBlock *block, const Tile *t, const LExpr *along, uint32_t steps) {
    LoopKernel *k = x->k;
    const LExpr *next = let(k, block, li_add(k, along, x->lda), "next");
    for (uint32_t r = 0; r < t->rows; r++)
        for (uint32_t line = 0; line < steps; line += LINE)
            ls_prefetch(k, block, x->a, li_add(k, li_add(k, t->a[r], next), le_int(k, line)));
}

/* Both of f32. */
static void multiply_f32(const Maker *x, LBlock *block, Tile *t) {
    LoopKernel *k = x->k;
    const LExpr *b[MAX_TILE];
    uint32_t steps = panel_steps(x->p.left);
    LStmt *loop = ls_for(k, block, x->depth, steps ? "panel" : "k");
    const LExpr *at = le_var(k, loop->var), *along = at;
    block = &loop->body;
    if (x->p.left != LEFT_ROWS)
        along = let(k, block, li_mul(k, at, x->lda), "along");
    if (steps) {
        const LExpr *first = let(k, block, li_mul(k, at, le_int(k, steps)), "first");
        if (x->leads)
            ask_for_rows(x, block, t, along, steps);
        LStmt *inner = ls_for(k, block, le_int(k, steps), "k");
        block = &inner->body;
        at = li_add(k, first, le_var(k, inner->var));
        along = li_add(k, along, le_var(k, inner->var));
    }
    if (x->leads && !steps)
        ls_prefetch(k, block, x->a, li_add(k, t->a[0], li_add(k, along, x->part)));
    ask(x, block, t, at);
    load_row(x, block, t, at, b, "b");
    add_products(x, block, t, along, b);
}

/* ---- B in words ------------------------------------------------------------------------------------------ */

/* A loop over the words of a block where B has blocks, else over all of them; *block moves inside. Word: which of all. */
static const LExpr *open_words(const Maker *x, LBlock **block, const LExpr *at_block) {
    LoopKernel *k = x->k;
    if (!x->format->block) {
        LStmt *s = ls_for(k, *block, x->depth, "word");
        *block = &s->body;
        return le_var(k, s->var);
    }
    const LExpr *words = le_int(k, x->format->block / x->format->per_word);
    const LExpr *first = let(k, *block, li_mul(k, at_block, words), "first");
    LStmt *s = ls_for(k, *block, let(k, *block, li_min(k, words, li_sub(k, x->depth, first)), "words"), "word");
    *block = &s->body;
    return li_add(k, first, le_var(k, s->var));
}

/* The scales of B's block. */
static void load_scales(const Maker *x, LBlock *block, const Tile *t, const LExpr *at, const LExpr **to) {
    LoopKernel *k = x->k;
    for (uint32_t p = 0; p < t->panels; p++)
        for (uint32_t v = 0; v < x->vectors; v++) {
            const LExpr *row = li_add(k, t->scale[p], times_width(x, at));
            to[p * x->vectors + v] = let(k, block, le_load_lanes(k, x->scale, in_row(x, row, v), x->lanes), "scale");
        }
}

const LOp weight_element[WEIGHT_FORMATS] = {[WEIGHT_BF16] = LO_OF_BF16, [WEIGHT_INT8] = LO_OF_INT8, [WEIGHT_INT4] = LO_OF_INT4};

/* A of f32: every weight becomes what `unpack` makes of it, and then its product is added, in the order of k. */
static void multiply_words(const Maker *x, LBlock *block, Tile *t) {
    LoopKernel *k = x->k;
    const LExpr *word[MAX_TILE], *b[MAX_TILE], *scale[MAX_TILE], *at_block = NULL;
    uint32_t n = t->panels * x->vectors, per_word = x->format->per_word;
    if (x->format->block) {
        LStmt *s = ls_for(k, block, x->blocks, "block");
        block = &s->body;
        at_block = le_var(k, s->var);
        load_scales(x, block, t, at_block, scale);
    }
    const LExpr *at = open_words(x, &block, at_block), *first = let(k, block, li_mul(k, at, le_int(k, per_word)), "k");
    ask(x, block, t, at);
    load_row(x, block, t, at, word, "w");
    for (uint32_t j = 0; j < per_word; j++) {
        for (uint32_t i = 0; i < n; i++) {
            const LExpr *e = le_op2(k, weight_element[x->p.format], DT_F32, word[i], le_int(k, j));
            b[i] = let(k, block, at_block ? le_op2(k, LO_MUL, DT_F32, e, scale[i]) : e, "b");
        }
        add_products(x, block, t, li_add(k, first, le_int(k, j)), b);
    }
}

/* A of bf16, two of them a word as in B. */
static void dot_bf16(const Maker *x, LBlock *block, Tile *t) {
    LoopKernel *k = x->k;
    const LExpr *b[MAX_TILE], *at = open_words(x, &block, NULL);
    ask(x, block, t, at);
    load_row(x, block, t, at, b, "b");
    for (uint32_t r = 0; r < t->rows; r++) {
        const LExpr *e = let(k, block, le_load(k, x->a, li_add(k, t->a[r], at)), "x");
        for (uint32_t i = 0; i < t->panels * x->vectors; i++) {
            uint32_t s = t->sum[r * t->panels * x->vectors + i];
            ls_set(k, block, s, le_op3(k, LO_DOT_BF16, DT_F32, le_var(k, s), b[i], le_splat(k, e, x->lanes)));
        }
    }
}

/* Sums of a block, integers: of digit d, row r and vector i of all panels. */
typedef struct BlockSums {
    uint32_t of[DIGITS * MAX_TILE];
} BlockSums;

static uint32_t *block_sum(const Maker *x, const Tile *t, BlockSums *s, uint32_t d, uint32_t r, uint32_t i) {
    return &s->of[(d * t->rows + r) * t->panels * x->vectors + i];
}

/* They begin with what B's zero makes of A. */
static void begin_sums(const Maker *x, LBlock *block, const Tile *t, const LExpr *at_block, BlockSums *s) {
    LoopKernel *k = x->k;
    const LExpr *at = li_mul(k, at_block, le_int(k, x->p.digits));
    for (uint32_t r = 0; r < t->rows; r++)
        for (uint32_t d = 0; d < x->p.digits; d++) {
            const LExpr *first = le_load(k, x->row_sum, li_add(k, t->sums[r], li_add(k, at, le_int(k, d))));
            first = let(k, block, first, "zero");
            for (uint32_t i = 0; i < t->panels * x->vectors; i++)
                *block_sum(x, t, s, d, r, i) = ls_let(k, block, DT_I32, le_splat(k, first, x->lanes), "d");
        }
}

/* Four bytes a word: part j of those in w. */
static const LExpr *bytes_of(const Maker *x, LBlock *block, const LExpr *w, uint32_t j) {
    LoopKernel *k = x->k;
    return x->format->per_word == 4 ? w : let(k, block, le_op2(k, LO_NIBBLES, DT_I32, w, le_int(k, j)), "b");
}

/* Word `along` of digit d of row r of A. */
static const LExpr *load_digit(const Maker *x, LBlock *block, const Tile *t, const LExpr *along, uint32_t d, uint32_t r) {
    LoopKernel *k = x->k;
    const LExpr *at = li_add(k, li_add(k, t->a[r], along), li_mul(k, le_int(k, d), x->digit));
    return let(k, block, le_load(k, x->a, at), "x");
}

static void add_dot(const Maker *x, LBlock *block, uint32_t sum, const LExpr *b, const LExpr *a) {
    LoopKernel *k = x->k;
    ls_set(k, block, sum, le_op3(k, LO_DOT_INT8, DT_I32, le_var(k, sum), b, le_splat(k, a, x->lanes)));
}

/* sum[d][r] += a[d][r] b for part j of the words in row `at` of B, `along` in a row of A. Of vectors of B and words of A, those
 * that are fewer stay in registers while the others come one by one. */
static void add_dots(const Maker *x, LBlock *block, const Tile *t, const LExpr *at, const LExpr *along, uint32_t j, BlockSums *s) {
    const LExpr *held[DIGITS * MAX_TILE] = {NULL};
    uint32_t vectors = t->panels * x->vectors, words = t->rows * x->p.digits;
    if (vectors <= words) {
        load_row(x, block, t, at, held, "w");
        for (uint32_t i = 0; i < vectors; i++)
            held[i] = bytes_of(x, block, held[i], j);
        for (uint32_t w = 0; w < words; w++) {
            const LExpr *a = load_digit(x, block, t, along, w % x->p.digits, w / x->p.digits);
            for (uint32_t i = 0; i < vectors; i++)
                add_dot(x, block, *block_sum(x, t, s, w % x->p.digits, w / x->p.digits, i), held[i], a);
        }
        return;
    }
    for (uint32_t w = 0; w < words; w++)
        held[w] = load_digit(x, block, t, along, w % x->p.digits, w / x->p.digits);
    for (uint32_t i = 0; i < vectors; i++) {
        const LExpr *b = bytes_of(x, block, load_vector(x, block, t, at, i, "w"), j);
        for (uint32_t w = 0; w < words; w++)
            add_dot(x, block, *block_sum(x, t, s, w % x->p.digits, w / x->p.digits, i), b, held[w]);
    }
}

/* A block's sum as f32: what its digits stand for. */
static const LExpr *sum_of_digits(const Maker *x, const Tile *t, BlockSums *s, uint32_t r, uint32_t i) {
    LoopKernel *k = x->k;
    const LExpr *e = le_cast(k, DT_F32, le_var(k, *block_sum(x, t, s, 0, r, i))), *base = le_splat(k, le_num(k, DT_F32, 256), x->lanes);
    for (uint32_t d = 1; d < x->p.digits; d++) {
        const LExpr *digit = le_cast(k, DT_F32, le_var(k, *block_sum(x, t, s, d, r, i)));
        e = le_op2(k, LO_ADD, DT_F32, digit, le_op2(k, LO_MUL, DT_F32, e, base));
    }
    return e;
}

/* A of bytes, four of them a word, a scale a row. */
static void dot_int(const Maker *x, LBlock *outer, Tile *t) {
    LoopKernel *k = x->k;
    const LExpr *scale[MAX_TILE];
    uint32_t n = t->panels * x->vectors, parts = x->format->per_word / 4;
    BlockSums sums = {0};
    LStmt *loop = ls_for(k, outer, x->blocks, "block");
    const LExpr *at_block = le_var(k, loop->var);
    outer = &loop->body;
    begin_sums(x, outer, t, at_block, &sums);
    LBlock *block = outer;
    const LExpr *at = open_words(x, &block, at_block), *along = let(k, block, li_mul(k, at, le_int(k, parts)), "along");
    ask(x, block, t, at);
    for (uint32_t j = 0; j < parts; j++)
        add_dots(x, block, t, at, li_add(k, along, le_int(k, j)), j, &sums);
    load_scales(x, outer, t, at_block, scale);
    for (uint32_t r = 0; r < t->rows; r++)
        for (uint32_t i = 0; i < n; i++) {
            const LExpr *e = le_op2(k, LO_MUL, DT_F32, sum_of_digits(x, t, &sums, r, i), scale[i]);
            ls_set(k, outer, t->sum[r * n + i], le_op2(k, LO_ADD, DT_F32, le_var(k, t->sum[r * n + i]), e));
        }
}

/* ---- rows of tiles ------------------------------------------------------------------------------------------ */

static void addresses(const Maker *x, LBlock *block, const LExpr *first, Tile *t) {
    LoopKernel *k = x->k;
    for (uint32_t r = 0; r < t->rows; r++) {
        const LExpr *row = li_add(k, first, le_int(k, r));
        uint32_t steps = panel_steps(x->p.left);
        const LExpr *apart = x->p.left == LEFT_ROWS ? x->lda : le_int(k, steps ? steps : 1);
        t->a[r] = let(k, block, li_mul(k, row, apart), "a");
        t->c[r] = let(k, block, li_add(k, li_mul(k, row, x->ldc), times_width(x, x->panel)), "c");
        if (x->row_sum)
            t->sums[r] = let(k, block, li_mul(k, row, li_mul(k, x->blocks, le_int(k, x->p.digits))), "sums");
    }
    const LExpr *deep = x->depth;
    if (panel_steps(x->p.left))
        deep = li_mul(k, deep, le_int(k, panel_steps(x->p.left)));
    for (uint32_t p = 0; p < t->panels; p++) {
        const LExpr *panel = li_add(k, x->panel, le_int(k, p));
        t->b[p] = let(k, block, times_width(x, li_mul(k, panel, deep)), "panel");
        if (x->scale)
            t->scale[p] = let(k, block, times_width(x, li_mul(k, panel, x->blocks)), "scales");
    }
}

/* What is stored of a sum: of integers' products times the scale of its row, and with what has been there. */
static void store_sums(const Maker *x, LBlock *block, const LExpr *first, Tile *t) {
    LoopKernel *k = x->k;
    for (uint32_t r = 0; x->row_scale && r < t->rows; r++) {
        const LExpr *s = let(k, block, le_load(k, x->row_scale, li_add(k, first, le_int(k, r))), "scale");
        for (uint32_t i = 0; i < t->panels * x->vectors; i++) {
            uint32_t sum = t->sum[r * t->panels * x->vectors + i];
            ls_set(k, block, sum, le_op2(k, LO_MUL, DT_F32, le_var(k, sum), le_splat(k, s, x->lanes)));
        }
    }
    if (x->row_scale) { /* what is there is not scaled */
        LStmt *there = ls_if(k, block, x->add);
        EACH_SUM(x, t, r, p, v) {
            uint32_t s = *sum_of(x, t, r, p, v);
            const LExpr *was = le_load_lanes(k, x->c, place_of(x, t, r, p, v), x->lanes);
            ls_set(k, &there->body, s, le_op2(k, LO_ADD, DT_F32, le_var(k, s), was));
        }
    }
    EACH_SUM(x, t, r, p, v)
        ls_store(k, block, x->c, place_of(x, t, r, p, v), le_var(k, *sum_of(x, t, r, p, v)));
}

/* n rows from `first` on by `panels` panels from x->panel on. */
static void tile(const Maker *x, LBlock *block, const LExpr *first, uint32_t n, uint32_t panels) {
    LoopKernel *k = x->k;
    Tile t = {.rows = n, .panels = panels};
    CHECK(n * panels * x->vectors <= MAX_TILE);
    addresses(x, block, first, &t);
    EACH_SUM(x, &t, r, p, v)
        *sum_of(x, &t, r, p, v) = ls_let(k, block, DT_F32, le_splat(k, le_num(k, DT_F32, 0), x->lanes), "s");
    if (!x->row_scale) {
        LStmt *from = ls_if(k, block, x->add);
        EACH_SUM(x, &t, r, p, v)
            ls_set(k, &from->body, *sum_of(x, &t, r, p, v), le_load_lanes(k, x->c, place_of(x, &t, r, p, v), x->lanes));
    }
    if (x->row_scale)
        dot_int(x, block, &t);
    else if (x->p.dot)
        dot_bf16(x, block, &t);
    else if (x->format->per_word)
        multiply_words(x, block, &t);
    else
        multiply_f32(x, block, &t);
    store_sums(x, block, first, &t);
}

/* A panel that several tiles go down stays in cache: each of them asks for its share of the next panel, for which the
 * first of them would wait otherwise. One that few go down is asked for a little ahead. */
static void ask_for_next(Maker *x, LBlock *block, const LExpr *whole, const LExpr *tile) {
    LoopKernel *k = x->k;
    const LExpr *width = le_int(k, x->p.width), *several = le_op2(k, LO_GE, DT_BOOL, whole, le_int(k, SEVERAL));
    const LExpr *share = li_div(k, li_sub(k, li_add(k, whole, width), le_int(k, 1)), whole);
    const LExpr *panel = li_mul(k, x->depth, width), *ahead = le_int(k, AHEAD * x->p.width);
    x->step = let(k, block, le_select(k, several, share, width), "step");
    const LExpr *own = li_add(k, panel, li_mul(k, li_mul(k, tile, x->depth), x->step));
    x->next = let(k, block, le_select(k, several, own, ahead), "next");
}

static void ask_ahead(Maker *x) {
    if (!x->asks)
        return;
    x->step = le_int(x->k, x->p.width);
    x->next = le_int(x->k, AHEAD * x->p.width);
}

/* As many tiles of `rows` rows as there are, then what is left in tiles of 8, 4, 2 and 1. */
static void tiles(Maker *x, LBlock *block, uint32_t rows) {
    LoopKernel *k = x->k;
    const LExpr *whole = let(k, block, li_div(k, x->rows, le_int(k, rows)), "whole");
    LStmt *loop = ls_for(k, block, whole, "tile");
    const LExpr *at = le_var(k, loop->var);
    if (x->asks)
        ask_for_next(x, &loop->body, whole, at);
    tile(x, &loop->body, let(k, &loop->body, li_mul(k, at, le_int(k, rows)), "row"), rows, 1);
    ask_ahead(x);
    uint32_t row = ls_let(k, block, DT_I64, li_mul(k, whole, le_int(k, rows)), "row");
    for (uint32_t n = 8; n; n /= 2) {
        if (n >= rows)
            continue;
        const LExpr *left = li_sub(k, x->rows, le_var(k, row));
        LStmt *some = ls_if(k, block, le_op2(k, LO_GE, DT_BOOL, left, le_int(k, n)));
        tile(x, &some->body, le_var(k, row), n, 1);
        ls_set(k, &some->body, row, li_add(k, le_var(k, row), le_int(k, n)));
    }
}

/* n rows by `count` panels from the variable `done` on, `together` of them at a time; moves it on. */
static void stream(Maker *x, LBlock *block, uint32_t n, const LExpr *count, uint32_t together, uint32_t done) {
    LoopKernel *k = x->k;
    const LExpr *all = le_int(k, together), *first = let(k, block, le_var(k, done), "first");
    LStmt *loop = ls_for(k, block, let(k, block, li_div(k, count, all), "groups"), "group");
    x->panel = let(k, &loop->body, li_add(k, first, li_mul(k, le_var(k, loop->var), all)), "panel");
    tile(x, &loop->body, le_int(k, 0), n, together);
    ls_set(k, block, done, li_add(k, first, li_sub(k, count, li_mod(k, count, all))));
}

/* Where rows are so few that registers hold the sums of several panels, these are read side by side, what is left one by one.
 * Nothing is asked for ahead: processors follow streams by themselves, and a line asked for by hand holds a place in the first
 * cache's queue for as long as memory takes. Returns the variable of panels that are done. */
static uint32_t streams(Maker *x, LBlock *block, uint32_t rows) {
    LoopKernel *k = x->k;
    uint32_t done = ls_let(k, block, DT_I64, le_int(k, 0), "done");
    x->next = NULL;
    for (uint32_t n = 1; x->asks && n * PANEL_STREAMS <= rows; n++) {
        LStmt *few = ls_if(k, block, le_op2(k, LO_EQ, DT_BOOL, x->rows, le_int(k, n)));
        stream(x, &few->body, n, x->panels, PANEL_STREAMS, done);
        stream(x, &few->body, n, li_sub(k, x->panels, le_var(k, done)), 1, done);
    }
    return done;
}

/* ---- the routine -------------------------------------------------------------------------------------- */

static void open_parameters(Maker *x) {
    LoopKernel *k = x->k;
    x->a = loop_buf(k, LB_ARG, x->p.dot ? DT_I32 : DT_F32, str_c("a"));
    x->b = loop_buf(k, LB_ARG, x->format->per_word ? DT_I32 : DT_F32, str_c("b"));
    x->c = loop_buf(k, LB_ARG, DT_F32, str_c("c"));
    if (x->format->block)
        x->scale = loop_buf(k, LB_ARG, DT_F32, str_c("scale"));
    if (x->p.digits) {
        x->row_scale = loop_buf(k, LB_ARG, DT_F32, str_c("row"));
        x->row_sum = loop_buf(k, LB_ARG, DT_I32, str_c("zero"));
    }
    k->n_args = (uint32_t)k->buf.count;
    x->rows = routine_number(k, "rows");
    x->depth = routine_number(k, "depth");
    x->lda = routine_number(k, "lda");
    x->ldc = routine_number(k, "ldc");
    x->add = routine_number(k, "add");
    x->panels = routine_number(k, "panels");
    if (x->format->block) {
        const LExpr *words = le_int(k, x->format->block / x->format->per_word);
        const LExpr *most = li_add(k, x->depth, li_sub(k, words, le_int(k, 1)));
        x->blocks = let(k, &k->body, li_div(k, most, words), "blocks");
    }
    if (x->p.digits)
        x->digit = let(k, &k->body, li_div(k, x->lda, le_int(k, x->p.digits)), "digit");
}

static LoopKernel *panel_version(Routines *r, const char *name, PanelProduct p, const VectorKind *kind) {
    LoopKernel *k = loop_kernel_new(r->m, r->arena, str_c(name));
    Maker x = {.k = k, .p = p, .format = &weight_formats[p.format], .lanes = kind->lanes};
    x.asks = p.left == LEFT_ROWS && kind->condition;
    x.leads = p.left != LEFT_ROWS && kind->condition;
    open_parameters(&x);
    if (x.leads && p.left == LEFT_COLUMNS)
        x.part = let(k, &k->body, li_mul(k, x.depth, x.lda), "part");
    uint32_t vectors = p.width / kind->lanes, rows = p.digits > 1 ? kind->digit_rows : p.digits ? kind->dot_rows : kind->rows;
    x.vectors = vectors < kind->vectors ? vectors : kind->vectors;
    rows *= kind->vectors / x.vectors;
    uint32_t columns = x.vectors * x.lanes;
    LBlock *block = &k->body;
    if (columns == p.width)
        x.column = le_int(k, 0);
    else {
        LStmt *loop = ls_for(k, block, le_int(k, p.width / columns), "part");
        block = &loop->body;
        x.column = let(k, block, li_mul(k, le_var(k, loop->var), le_int(k, columns)), "column");
    }
    const LExpr *done = le_var(k, streams(&x, block, rows));
    LStmt *loop = ls_for(k, block, let(k, block, li_sub(k, x.panels, done), "left"), "panel");
    x.panel = let(k, &loop->body, li_add(k, done, le_var(k, loop->var)), "at");
    tiles(&x, &loop->body, rows);
    return k;
}

/* How a routine of f32 is called, and how its left operand is stored. */
static const struct {
    const char *name, *what;
} lefts[] = {
    [LEFT_ROWS] = {"panel_", "rows,depth"},
    [LEFT_COLUMNS] = {"panel_t", "depth,rows"},
    [LEFT_PANELS] = {"panel_w", "depth,.,32"},
    [LEFT_NARROW] = {"panel_n", "depth,.,16"},
};

static const char *routine_name(Routines *r, PanelProduct p) {
    if (p.format == WEIGHT_F32)
        return arena_printf(r->arena, "%s%u", lefts[p.left].name, p.width);
    return arena_printf(r->arena, "%s_%s", p.digits > 1 ? "digits" : p.dot ? "dot" : "panel", weight_formats[p.format].name);
}

const LRoutine *routine_find(const Routines *r, const char *name) {
    for (size_t i = 0; i < r->item.count; i++)
        if (strcmp(r->item.item[i]->name, name) == 0)
            return r->item.item[i];
    return NULL;
}

const LRoutine *routine_new(Routines *r, LRoutine made) {
    LRoutine *x = arena_alloc(r->arena, sizeof *x);
    *x = made;
    x->n_args = x->version[0]->n_args;
    x->n_params = x->version[0]->n_params;
    for (uint32_t i = 0; i < VECTOR_KINDS; i++)
        loop_finish(x->version[i]);
    for (uint32_t i = 0; i < x->n_args; i++)
        x->written |= (uint32_t)x->version[0]->buf.item[i]->written << i;
    vec_push(&r->item, x);
    return x;
}

const LRoutine *panel_routine(Routines *r, PanelProduct p) {
    const char *name = routine_name(r, p), *format = weight_formats[p.format].name;
    CHECK(p.format == WEIGHT_F32 ? !p.dot : p.left == LEFT_ROWS && p.width == PANEL_COLUMNS);
    const LRoutine *old = routine_find(r, name);
    if (old)
        return old;
    LRoutine x = {.name = name, .dots = p.dot};
    x.what = arena_printf(r->arena, "C[rows,panels %u] (+)= A B[panels,.,%u]: tiles of rows in registers; A %sstored as [%s], B %s", p.width,
                          p.width, p.digits > 1 ? "in digits " : p.dot ? "in words " : "", lefts[p.left].what, format);
    for (uint32_t i = 0; i < VECTOR_KINDS; i++)
        x.version[i] = panel_version(r, name, p, &vector_kinds[i]);
    return routine_new(r, x);
}
