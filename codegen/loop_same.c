/* Whether two kernels by rows are the same code: the extents of a graph's tensors differ, those of a row do not. So the layers of
 * encoder and decoder that are alike, and functions with padding and without, have one machine code. */
#include "loop.h"

#include <string.h>

bool loop_same_expr(const LExpr *a, const LExpr *b) {
    if (!a || !b)
        return a == b;
    bool buffers = a->buf && b->buf ? a->buf->id == b->buf->id : a->buf == b->buf;
    return a->kind == b->kind && a->type == b->type && a->lanes == b->lanes && a->op == b->op && a->i == b->i &&
           memcmp(&a->f, &b->f, sizeof a->f) == 0 && a->var == b->var && a->dim == b->dim && buffers && loop_same_expr(a->a, b->a) &&
           loop_same_expr(a->b, b->b) && loop_same_expr(a->c, b->c);
}

static bool same_buf(const LBuf *a, const LBuf *b) {
    if (!a || !b)
        return a == b;
    return a->kind == b->kind && a->kind != LB_TABLE && a->dtype == b->dtype && a->written == b->written && a->shared == b->shared &&
           a->own == b->own && a->id == b->id && a->count == b->count && a->offset == b->offset;
}

static bool same_matrix(const LMatrix *a, const LMatrix *b) {
    return same_buf(a->buf, b->buf) && loop_same_expr(a->offset, b->offset) && loop_same_expr(a->ld, b->ld) &&
           a->transposed == b->transposed;
}

static bool same_block(const LBlock *a, const LBlock *b);

/* Notes and lines are for readers. */
static bool same_stmt(const LStmt *a, const LStmt *b) {
    if (a->kind != b->kind || a->kind == LS_NOTE)
        return a->kind == b->kind;
    if (a->routine != b->routine || a->var != b->var || a->lanes != b->lanes || a->accumulate != b->accumulate)
        return false;
    for (uint32_t i = 0; i < ls_arguments(a); i++)
        if (!same_buf(a->arg[i].buf, b->arg[i].buf) || !loop_same_expr(a->arg[i].at, b->arg[i].at))
            return false;
    return same_buf(a->buf, b->buf) && loop_same_expr(a->a, b->a) && loop_same_expr(a->index, b->index) &&
           loop_same_expr(a->extent, b->extent) && loop_same_expr(a->m, b->m) && loop_same_expr(a->n, b->n) &&
           loop_same_expr(a->k, b->k) && same_matrix(&a->ma, &b->ma) && same_matrix(&a->mb, &b->mb) &&
           same_matrix(&a->mc, &b->mc) && same_block(&a->body, &b->body) && same_block(&a->other, &b->other);
}

static bool same_block(const LBlock *a, const LBlock *b) {
    const LStmt *x = a->first, *y = b->first;
    for (; x && y; x = x->next, y = y->next)
        if (!same_stmt(x, y))
            return false;
    return x == y;
}

bool loop_same_rows(const LoopKernel *a, const LoopKernel *b) {
    if (!a->rows.all || !b->rows.all || a->rows.tile != b->rows.tile || (a->rows.most > a->rows.tile) != (b->rows.most > b->rows.tile) ||
        a->rows.row0 != b->rows.row0 || a->rows.count != b->rows.count || a->n_args != b->n_args || a->scratch != b->scratch ||
        a->may_fault != b->may_fault || a->uses_matmul != b->uses_matmul || a->buf.count != b->buf.count || a->var.count != b->var.count)
        return false;
    for (size_t i = 0; i < a->buf.count; i++)
        if (!same_buf(a->buf.item[i], b->buf.item[i]))
            return false;
    for (size_t i = 0; i < a->var.count; i++)
        if (a->var.item[i].type != b->var.item[i].type || a->var.item[i].lanes != b->var.item[i].lanes)
            return false;
    return same_block(&a->body, &b->body);
}
