/* Products by panels of any format: what is called for one, and what it needs done first.
 *
 * Weights of f32 meet f32 in a routine of register tiles. Weights in words have a routine that makes floats of them in
 * registers, which is what few rows take; more rows have a panel made f32 first, once for all of them: each weight's product is
 * the same by either way. Where the left operand is rounded, words meet words, whatever the number of rows.
 *
 * A machine that multiplies bytes does so with an f32 operand and weights of bytes as well: every number becomes three digits,
 * which are exact products' (tile.h). That is less work than to make floats of weights, and than to multiply by those. */
#include "lower_panel.h"

#include <string.h>

enum { DIRECT = 8 }; /* rows that go down panels in words: one tile */

/* ---- functions of the vocabulary ------------------------------------------------------------------------ */

static const LRoutine expand[WEIGHT_FORMATS] = {
    [WEIGHT_BF16] = {.name = "moec_expand_bf16", .n_args = 2, .n_params = 2, .written = 1 << 1},
    [WEIGHT_INT8] = {.name = "moec_expand_int8", .n_args = 3, .n_params = 2, .written = 1 << 1},
    [WEIGHT_INT4] = {.name = "moec_expand_int4", .n_args = 3, .n_params = 2, .written = 1 << 1},
};

static const LRoutine quantize[WEIGHT_FORMATS] = {
    [WEIGHT_BF16] = {.name = "moec_quantize_bf16", .n_args = 2, .n_params = 3, .written = 1 << 1},
    [WEIGHT_INT8] = {.name = "moec_quantize_int8", .n_args = 4, .n_params = 5, .written = 7 << 1},
};

static const LRoutine digits = {.name = "moec_digits", .n_args = 4, .n_params = 5, .written = 7 << 1};

/* ---- what a product is of -------------------------------------------------------------------------------- */

bool panels_of_weight(const Lower *l, const Node *u, Panels *p) {
    if (!u || u->op != OP_unpack || l->f->value[u->in[0]].kind != VK_INPUT)
        return false;
    const Type *t = &l->f->value[u->in[0]].type, *matrix = &l->f->value[u->out].type;
    int64_t dim[MOEC_MAX_RANK] = {0};
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(l->t, t->dim[i], &dim[i]))
            return false;
    *p = (Panels){.from = u->in[0], .scales = u->n_in > 1 ? u->in[1] : NONE, .format = node_format(u), .batch = 1,
                  .panels = dim[t->rank - 3], .rows = dim[t->rank - 2], .width = dim[t->rank - 1]};
    for (int i = 0; i < t->rank - 3; i++)
        p->batch *= dim[i];
    if (p->format && (p->width != PANEL_COLUMNS || t->rank != 3))
        return false;
    return dim_is_const(l->t, matrix->dim[matrix->rank - 2], &p->depth) && dim_is_const(l->t, matrix->dim[matrix->rank - 1], &p->columns);
}

bool panels_of(const Lower *l, const Node *n, Panels *p) {
    if (n->op != OP_matmul || !l->n_row || !l->row[n->out] || node_int(n, AT_ta, 0) || !panels_of_weight(l, value_node(l->f, n->in[1]), p))
        return false;
    const Node *rounded = value_node(l->f, n->in[0]);
    p->left = n->in[0];
    p->transposed = node_int(n, AT_tb, 0);
    if (p->format && rounded && rounded->op == OP_quantize) {
        p->rounded = node_format(rounded);
        p->left = rounded->in[0];
        bool meet = p->rounded == WEIGHT_BF16 ? p->format == WEIGHT_BF16 : p->rounded == WEIGHT_INT8 && weight_formats[p->format].block;
        if (!meet || p->transposed || lower_rank(l, p->left) != 2)
            return false;
    }
    p->digits = weight_formats[p->format].block && !p->rounded && !p->transposed && lower_rank(l, p->left) == 2;
    if (!p->transposed)
        return true;
    p->columns = p->depth;
    return l->f->value[p->from].type.rank == 3 && lower_rank(l, n->out) == 2 && lower_rank(l, n->in[0]) == 2;
}

const LBuf *panel_scratch(Lower *l, int64_t rows, int64_t columns) {
    int64_t bytes;
    LBuf *b = mul_i64(rows, columns * 4, &bytes) ? loop_own_scratch(l->k, DT_F32, bytes, str_c("tile")) : NULL;
    if (!b)
        BUG("a block of %lld columns has no bound", (long long)columns);
    return b;
}

/* ---- the left operand in words ------------------------------------------------------------------------------- */

static int64_t blocks_of(const Panels *p) {
    int64_t block = weight_formats[p->format].block;
    return block ? (p->depth + block - 1) / block : 0;
}

/* Bytes that stand for a number of the left operand. */
static uint32_t digits_of(const Panels *p) {
    return p->digits ? DIGITS : p->rounded == WEIGHT_INT8 ? 1 : 0;
}

/* Words of a row of the left operand. */
static int64_t left_words(const Panels *p) {
    return p->rounded == WEIGHT_BF16 ? p->rows : digits_of(p) * blocks_of(p) * weight_formats[p->format].block / 4;
}

/* The left operand in words; NULL: it is none. */
static Rounded *left_of(const Lower *l, const Panels *p) {
    return p->digits ? &l->digits[p->format][p->left] : p->rounded ? &l->rounded[p->format][p->left] : NULL;
}

static LBuf *left_scratch(Lower *l, DType t, int64_t a_row, const char *hint) {
    int64_t bytes;
    return mul_i64(l->tile_max, a_row * 4, &bytes) ? loop_scratch(l->k, t, bytes, str_c(hint)) : NULL;
}

bool panel_left_words(Lower *l, const Panels *p, const View *a) {
    LoopKernel *k = l->k;
    Rounded *r = left_of(l, p);
    const WeightFormatInfo *f = &weight_formats[p->format];
    if (!r || r->words)
        return true;
    LBuf *words = left_scratch(l, DT_I32, left_words(p), "words"), *scale = NULL, *sum = NULL;
    if (f->block) {
        scale = left_scratch(l, DT_F32, 1, "scale");
        sum = left_scratch(l, DT_I32, blocks_of(p) * digits_of(p), "zero");
    }
    if (!words || (f->block && (!scale || !sum)))
        return diag_error(l->d, DIAG_SHAPE_SIZE, NULL, "the rows of a product are too large");
    const LExpr *zero = le_int(k, 0);
    const LArg bf16[] = {{a->buf, a->offset}, {words, zero}, {NULL, l->tile}, {NULL, le_int(k, p->depth)}, {NULL, le_dim(k, a->stride[0])}};
    const LArg int8[] = {
        {a->buf, a->offset}, {words, zero}, {scale, zero}, {sum, zero}, {NULL, l->tile}, {NULL, le_int(k, p->depth)},
        {NULL, le_dim(k, a->stride[0])}, {NULL, le_int(k, f->block)}, {NULL, le_int(k, f->zero)},
    };
    LBlock *block = p->digits ? &ls_if(k, l->block, le_dots(k))->body : l->block;
    ls_call(k, block, p->digits ? &digits : &quantize[p->rounded], f->block ? int8 : bf16);
    *r = (Rounded){words, scale, sum};
    return true;
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static const LExpr *elements(Lower *l, const LExpr *panel, int64_t rows, const Panels *p) {
    return li_mul(l->k, panel, le_int(l->k, rows * p->width));
}

static void call(Lower *l, PanelProduct product, const LArg *buffers, uint32_t n, const LArg *numbers) {
    LArg arg[16];
    for (uint32_t i = 0; i < n; i++)
        arg[i] = buffers[i];
    for (uint32_t i = 0; i < 6; i++)
        arg[n + i] = numbers[i];
    ls_call(l->k, l->block, panel_routine(l->o->routines, product), arg);
}

void panel_expand(Lower *l, const Panels *p, const LExpr *panel, const LExpr *first, const LExpr *words, const LBuf *to,
                        const LExpr *at) {
    LoopKernel *k = l->k;
    const LArg b = {l->view[p->from].buf, elements(l, panel, p->rows, p)}, target = {to, at}, from = {NULL, first}, count = {NULL, words};
    LArg scaled[] = {b, target, {NULL, NULL}, from, count};
    const LArg plain[] = {b, target, from, count};
    if (p->scales != NONE)
        scaled[2] = (LArg){l->view[p->scales].buf, elements(l, panel, blocks_of(p), p)};
    ls_call(k, l->block, &expand[p->format], p->scales == NONE ? plain : scaled);
}

/* Panel by panel, each made f32 first. */
static void multiply_expanded(Lower *l, const Panels *p, const LArg *buffers, const LArg *numbers, const LExpr *panel,
                              const LExpr *count) {
    LoopKernel *k = l->k;
    const LExpr *zero = le_int(k, 0);
    LBlock *back = l->block;
    LStmt *loop = ls_for(k, l->block, count, "panel");
    const LExpr *i = le_var(k, loop->var);
    l->block = &loop->body;
    const LBuf *b = panel_scratch(l, p->depth, p->width);
    panel_expand(l, p, li_add(k, panel, i), zero, le_int(k, p->rows), b, zero);
    const LArg f32[] = {buffers[0], {b, zero}, {buffers[2].buf, li_add(k, buffers[2].at, li_mul(k, i, le_int(k, p->width)))}};
    const LArg one[] = {numbers[0], {NULL, le_int(k, p->depth)}, numbers[2], numbers[3], numbers[4], {NULL, le_int(k, 1)}};
    call(l, (PanelProduct){(uint32_t)p->width, LEFT_ROWS, WEIGHT_F32, false, 0}, f32, 3, one);
    l->block = back;
}

/* Both f32: few rows, or a panel made f32 first. */
static void multiply_floats(Lower *l, const Panels *p, const LArg *buffers, uint32_t n, const LArg *numbers, const LExpr *panel,
                            const LExpr *count) {
    LoopKernel *k = l->k;
    LBlock *back = l->block;
    LStmt *few = ls_if(k, l->block, le_op2(k, LO_LE, DT_BOOL, numbers[0].at, le_int(k, DIRECT)));
    l->block = &few->body;
    call(l, (PanelProduct){(uint32_t)p->width, LEFT_ROWS, p->format, false, 0}, buffers, n, numbers);
    if (l->tile_max > DIRECT) {
        l->block = &few->other;
        multiply_expanded(l, p, buffers, numbers, panel, count);
    }
    l->block = back;
}

/* Words by words, from row `row` of the left ones on. */
static void multiply_words(Lower *l, const Panels *p, const LExpr *row, const LArg *buffers, uint32_t n, const LArg *numbers) {
    LoopKernel *k = l->k;
    const Rounded *r = left_of(l, p);
    CHECK(r);
    LArg b[6], m[6];
    memcpy(b, buffers, n * sizeof *b);
    memcpy(m, numbers, sizeof m);
    m[2].at = le_int(k, left_words(p));
    b[0] = (LArg){r->words, li_mul(k, row, m[2].at)};
    if (r->scale) {
        b[n++] = (LArg){r->scale, row};
        b[n++] = (LArg){r->sum, li_mul(k, row, le_int(k, blocks_of(p) * digits_of(p)))};
    }
    call(l, (PanelProduct){(uint32_t)p->width, LEFT_ROWS, p->format, true, digits_of(p)}, b, n, m);
}

void panel_multiply(Lower *l, const Panels *p, const LMatrix *a, const LExpr *row, const LExpr *panel, const LExpr *count,
                    const LMatrix *c, const LExpr *rows, bool add) {
    LoopKernel *k = l->k;
    LArg buffers[4] = {{a->buf, a->offset}, {l->view[p->from].buf, elements(l, panel, p->rows, p)}, {c->buf, c->offset}};
    LArg numbers[] = {{NULL, rows}, {NULL, le_int(k, p->rows)}, {NULL, a->ld}, {NULL, c->ld}, {NULL, le_int(k, add)}, {NULL, count}};
    uint32_t n = 3;
    if (p->scales != NONE)
        buffers[n++] = (LArg){l->view[p->scales].buf, elements(l, panel, blocks_of(p), p)};
    if (!p->format) {
        call(l, (PanelProduct){(uint32_t)p->width, LEFT_ROWS, WEIGHT_F32, false, 0}, buffers, n, numbers);
        return;
    }
    if (!p->digits && p->rounded) {
        multiply_words(l, p, row, buffers, n, numbers);
        return;
    }
    LBlock *back = l->block;
    if (p->digits) {
        LStmt *dots = ls_if(k, l->block, le_dots(k));
        l->block = &dots->body;
        multiply_words(l, p, row, buffers, n, numbers);
        l->block = &dots->other;
    }
    multiply_floats(l, p, buffers, n, numbers, panel, count);
    l->block = back;
}

PanelRows panel_rows(Lower *l, const Panels *p, const LExpr *first, const LExpr *count, int64_t most) {
    LoopKernel *k = l->k;
    if (!p->format)
        return (PanelRows){l->view[p->from].buf, li_mul(k, first, le_int(k, p->width)), le_int(k, p->depth * p->width)};
    const LExpr *in_word = le_int(k, weight_formats[p->format].per_word), *apart = le_int(k, most * p->width);
    const LBuf *b = panel_scratch(l, most, p->panels * p->width);
    LBlock *back = l->block;
    LStmt *loop = ls_for(k, l->block, le_int(k, p->panels), "panel");
    const LExpr *i = le_var(k, loop->var);
    l->block = &loop->body;
    panel_expand(l, p, i, li_div(k, first, in_word), li_div(k, count, in_word), b, li_mul(k, i, apart));
    l->block = back;
    return (PanelRows){b, le_int(k, 0), apart};
}
