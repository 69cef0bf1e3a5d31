/* What attention and its gradient have in common: operands as they are stored, the task at hand, what a query sees. */
#ifndef MOEC_LOWER_ATTENTION_H
#define MOEC_LOWER_ATTENTION_H

#include "lower_ops.h"

/* One block: queries i0 .. i0 + rows of head h in example b. */
typedef struct Attend {
    const Node *n;
    uint32_t first; /* operand that is q */
    View q, k, v, bias; /* k and v: of [B,S,width], one head */
    Dim k_head, v_head; /* from one head to the next */
    ValueId keep, q_segment, k_segment, spans; /* NONE: without */
    bool packed; /* the queries, as the keys are with spans */
    const LExpr *heads, *batch, *queries, *keys, *width, *value_width;
    const LExpr *blocks, *b, *h, *i0, *rows;
    const LExpr *q_example, *q_first, *k_example, *k_first; /* where those of the example begin: places along axes 0 and 1 */
    const LBuf *scores;
    const LExpr *seed, *drop, *scale; /* NULL: no dropout; scale: of what it keeps */
    /* where a row of the block is being worked on: its number, i + offset, its segment, its first linear
     * index */
    const LExpr *row, *query, *segment, *linear;
} Attend;

/* Operand i of the node's attention; NONE: left out. */
ValueId attend_operand(const Attend *t, uint32_t i);
bool attend_open(Lower *l, const Node *n, uint32_t first, Attend *t);
/* Sets t->seed, drop and scale where there is dropout. */
void attend_dropout(Lower *l, Attend *t);
/* x times the mask of the probability of element `index` of all; x without dropout. */
const LExpr *attend_dropped(Lower *l, const Attend *t, const LExpr *index, const LExpr *x);
/* The place in the bias row of distance key - query. */
const LExpr *attend_bias_column(Lower *l, const Attend *t, const LExpr *distance);
/* The lowest finite float: the score of a key that is not seen. */
const LExpr *attend_lowest(Lower *l);

/* Finds the keys of example t->b in its span. */
void attend_span(Lower *l, Attend *t);

/* Attention of one query (lower_attention_one.c). */
bool attend_is_one(const Attend *t);
bool lower_attention_one(Lower *l, Attend *t, const View *to);
/* Attention of any number (lower_attention_tiles.c). */
bool lower_attention_tiles(Lower *l, Attend *t, const View *to);

#endif
