/* Shared by lower_panel.c, which decides where products by panels are computed, and panel_product.c, which computes them. */
#ifndef MOEC_LOWER_PANEL_H
#define MOEC_LOWER_PANEL_H

#include "lower_ops.h"

#include "tile.h"

/* The constant extents of a product's right operand, stored as [batch,panels,rows,width], a row for so many of K as its format
 * has in a word; columns: of the result, for each batch. Transposed, the panels hold what is summed up, and their depth is
 * the result's columns. */
typedef struct Panels {
    ValueId from, scales; /* scales: NONE of formats without */
    WeightFormat format;
    WeightFormat rounded; /* what the left operand is rounded to, and left: what it is before */
    ValueId left;
    bool digits; /* the left operand is f32, and bytes may stand for it */
    int64_t batch, panels, depth, rows, width, columns;
    bool transposed;
} Panels;

/* What `unpack` is of; false: of nothing that lies in memory so. */
bool panels_of_weight(const Lower *l, const Node *unpack, Panels *p);
/* False: n is no such product. */
bool panels_of(const Lower *l, const Node *n, Panels *p);

/* Scratch of a block of the phase at hand. */
const LBuf *panel_scratch(Lower *l, int64_t rows, int64_t columns);

/* Makes the left operand what products of its format read, once for all of them; a: where it is stored, its rows the tile's. */
bool panel_left_words(Lower *l, const Panels *p, const View *a);

/* C[rows,count width] (+)= A B for `count` panels from `panel` on; row: the first one's in the tile. */
void panel_multiply(Lower *l, const Panels *p, const LMatrix *a, const LExpr *row, const LExpr *panel, const LExpr *count,
                    const LMatrix *c, const LExpr *rows, bool add);

/* `words` rows of a panel in words from row `first` on, as f32 to `at` of a buffer. */
void panel_expand(Lower *l, const Panels *p, const LExpr *panel, const LExpr *first, const LExpr *words, const LBuf *to,
                  const LExpr *at);

/* A weight's rows `first` on, at most `most`, of all its panels, where they are read as a left operand: from `offset` of a buffer
 * on, `apart` between panels. */
typedef struct PanelRows {
    const LBuf *buf;
    const LExpr *offset, *apart;
} PanelRows;
PanelRows panel_rows(Lower *l, const Panels *p, const LExpr *first, const LExpr *count, int64_t most);

#endif
