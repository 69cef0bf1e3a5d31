/* What attention and its gradient have in common: operands as they are stored, the task at hand, what a query sees. */
#ifndef MOEC_LOWER_ATTENTION_H
#define MOEC_LOWER_ATTENTION_H

#include "../compiler/pack.h"
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
    const LExpr *seed, *drop, *scale; /* NULL: no dropout; scale: of what it keeps */
    const LExpr *query, *linear;      /* of query i0: i0 + offset, and the first linear index of its probabilities */
    const LBuf *segments;             /* of a tile's queries */
} Attend;

/* v's storage with unit stride along its last axis. */
bool attend_rows(Lower *l, ValueId v, View *out);
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

/* ---- by tiles of queries, a vector lane each (lower_attention_tiles.c) ---- */

enum { QUERIES = PANEL_COLUMNS };

/* Lines of a tile hold a number for each of its queries. */
typedef struct Tile {
    Attend *t;
    const LBuf *q, *s, *o, *bias;   /* Q^T, S^T and P^T, O^T, and the bias of a block of keys by its diagonals */
    const LBuf *max, *sum, *shrink; /* of each query: m, sum, and what m shrinks the sum by */
    const LExpr *j0, *keys;         /* the block */
} Tile;

/* Loops; l->block moves inside. */
const LExpr *attend_each_query(Lower *l);
const LExpr *attend_each(Lower *l, const LExpr *extent, const char *hint);
/* A variable with e's value. */
const LExpr *attend_let(Lower *l, const LExpr *e, const char *hint);
const LExpr *attend_in_line(Lower *l, const LExpr *line, const LExpr *q);
const LExpr *attend_line(Lower *l, const LBuf *b, const LExpr *line, const LExpr *q);

/* A number for each query, and for each of `n` lines; NULL after reporting that n has no bound. */
const LBuf *attend_array(Lower *l, const char *hint);
void attend_fill(Lower *l, const LBuf *b, double value);
int64_t attend_most(const Lower *l, const LExpr *n);
const LBuf *attend_lines(Lower *l, int64_t n, const char *hint);
/* Places for Q^T, and for scores and bias of so many keys. */
bool attend_tile(Lower *l, Tile *x, int64_t keys);

/* A head's rows: from query i of the tile on, of the queries or the result; from key j on, `apart` from the next head's. */
LMatrix attend_query_head(Lower *l, const Attend *t, const View *w, const LExpr *i, const LExpr *width);
LMatrix attend_key_head(Lower *l, const Attend *t, const View *w, const LExpr *j, Dim apart);

/* What follows from t->i0, the first query of the tile: how many it has, where they stand. */
void attend_place(Lower *l, Attend *t);
/* Segments of its queries; behind the last one its own again. */
void attend_pack_segments(Lower *l, Attend *t);
/* The head's rows of these queries as lines, zeros behind the last query. */
void attend_pack(Lower *l, const Attend *t, const View *w, const LExpr *width, const LBuf *to);
/* The bias of key j and query q stands at q - j + keys - 1: what is the same along a diagonal is looked up once. */
void attend_pack_bias(Lower *l, const Tile *x);
/* Scores in full, and each query's m so far. */
void attend_find_max(Lower *l, const Tile *x);
/* 1 / sum; 0 without keys. */
const LExpr *attend_share(Lower *l, const LExpr *sum);

/* Attention of any number. */
bool lower_attention_tiles(Lower *l, Attend *t, const View *to);

#endif
