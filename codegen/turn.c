/* The routine that turns a matrix around: in blocks of as many rows and columns as vectors have lanes, by rounds in which the
 * rows of the block's two halves are zipped. After as many rounds as halves can be halved, row i is column i. */
#include "tile.h"

typedef struct Turner {
    LoopKernel *k;
    const LBuf *a, *c;
    const LExpr *rows, *columns, *lda, *ldc;
    uint32_t lanes;
} Turner;

static const LExpr *let(LoopKernel *k, LBlock *b, const LExpr *e, const char *hint) {
    return le_var(k, ls_let(k, b, e->type, e, hint));
}

static const LExpr *at(const Turner *x, const LExpr *row, const LExpr *ld, const LExpr *column) {
    return li_add(x->k, li_mul(x->k, row, ld), column);
}

static void whole_block(const Turner *x, LBlock *b, const LExpr *row, const LExpr *column) {
    LoopKernel *k = x->k;
    uint32_t n = x->lanes;
    const LExpr *v[MAX_LANES], *zipped[MAX_LANES];
    for (uint32_t i = 0; i < n; i++)
        v[i] = let(k, b, le_load_lanes(k, x->a, at(x, li_add(k, row, le_int(k, i)), x->lda, column), n), "v");
    for (uint32_t half = n / 2; half; half /= 2) {
        for (uint32_t i = 0; i < n; i++)
            zipped[i] = let(k, b, le_zip(k, v[i / 2], v[i / 2 + n / 2], i % 2), "v");
        for (uint32_t i = 0; i < n; i++)
            v[i] = zipped[i];
    }
    for (uint32_t i = 0; i < n; i++)
        ls_store(k, b, x->c, at(x, li_add(k, column, le_int(k, i)), x->ldc, row), v[i]);
}

/* Elements one by one: rows and columns from these on. */
static void elements(const Turner *x, LBlock *b, const LExpr *row, const LExpr *rows, const LExpr *column, const LExpr *columns) {
    LoopKernel *k = x->k;
    LStmt *i = ls_for(k, b, rows, "i"), *j = ls_for(k, &i->body, columns, "j");
    const LExpr *r = li_add(k, row, le_var(k, i->var)), *c = li_add(k, column, le_var(k, j->var));
    ls_store(k, &j->body, x->c, at(x, c, x->ldc, r), le_load(k, x->a, at(x, r, x->lda, c)));
}

/* Rows in bands of as many as there are lanes, then the rest. */
static void bands(const Turner *x) {
    LoopKernel *k = x->k;
    const LExpr *lanes = le_int(k, x->lanes), *zero = le_int(k, 0);
    LBlock *b = &k->body;
    const LExpr *across = let(k, b, li_mul(k, li_div(k, x->columns, lanes), lanes), "across");
    const LExpr *down = let(k, b, li_mul(k, li_div(k, x->rows, lanes), lanes), "down");
    LStmt *band = ls_for(k, b, li_div(k, x->rows, lanes), "band");
    const LExpr *row = let(k, &band->body, li_mul(k, le_var(k, band->var), lanes), "row");
    LStmt *block = ls_for(k, &band->body, li_div(k, x->columns, lanes), "block");
    whole_block(x, &block->body, row, let(k, &block->body, li_mul(k, le_var(k, block->var), lanes), "column"));
    elements(x, &band->body, row, lanes, across, li_sub(k, x->columns, across));
    elements(x, b, down, li_sub(k, x->rows, down), zero, x->columns);
}

static LoopKernel *turn_version(Routines *r, const char *name, const VectorKind *kind) {
    LoopKernel *k = loop_kernel_new(r->m, r->arena, str_c(name));
    Turner x = {.k = k, .lanes = kind->lanes};
    x.a = loop_buf(k, LB_ARG, DT_F32, str_c("a"));
    x.c = loop_buf(k, LB_ARG, DT_F32, str_c("c"));
    k->n_args = 2;
    x.rows = routine_number(k, "rows");
    x.columns = routine_number(k, "columns");
    x.lda = routine_number(k, "lda");
    x.ldc = routine_number(k, "ldc");
    if (kind->condition)
        bands(&x);
    else
        elements(&x, &k->body, le_int(k, 0), x.rows, le_int(k, 0), x.columns);
    return k;
}

const LRoutine *turn_routine(Routines *r) {
    LRoutine x = {.name = "turn", .what = "C[columns,rows] = A[rows,columns] turned around"};
    const LRoutine *old = routine_find(r, x.name);
    if (old)
        return old;
    for (uint32_t i = 0; i < VECTOR_KINDS; i++)
        x.version[i] = turn_version(r, x.name, &vector_kinds[i]);
    return routine_new(r, x);
}
