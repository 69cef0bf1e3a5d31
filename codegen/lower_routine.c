/* Calls of routines over lines: [n,32] or [n,16], a vector lane for each of so many rows or columns of something. */
#include "lower.h"

#include "../compiler/pack.h"

void lower_turn(Lower *l, const LMatrix *a, const LMatrix *c, const LExpr *rows, const LExpr *columns) {
    const LArg arg[] = {{a->buf, a->offset}, {c->buf, c->offset}, {NULL, rows}, {NULL, columns}, {NULL, a->ld}, {NULL, c->ld}};
    ls_call(l->k, l->block, turn_routine(l->o->routines), arg);
}

LMatrix lower_lines(Lower *l, const LBuf *b, const LExpr *line) {
    const LExpr *lanes = le_int(l->k, PANEL_COLUMNS);
    return (LMatrix){b, li_mul(l->k, line, lanes), lanes, false};
}

void lower_multiply_lines(Lower *l, Left left, const LMatrix *a, const LMatrix *b, const LMatrix *c, const LExpr *rows,
                          const LExpr *depth, bool add) {
    const LArg arg[] = {
        {a->buf, a->offset}, {b->buf, b->offset}, {c->buf, c->offset}, {NULL, rows}, {NULL, depth}, {NULL, a->ld}, {NULL, c->ld},
        {NULL, le_int(l->k, add)}, {NULL, le_int(l->k, 1)},
    };
    PanelProduct p = {(uint32_t)b->ld->i, left, WEIGHT_F32, false, 0};
    ls_call(l->k, l->block, panel_routine(l->o->routines, p), arg);
}
