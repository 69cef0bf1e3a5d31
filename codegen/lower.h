/* Shared by the files that lower a kernel's graph to loop IR.
 *
 * A value of the kernel is either stored (it has a View) or inlined into its consumers by lower_pull, which computes
 * one element as an expression. Contractions, reductions, gathers, concatenations and the kernel's outputs are
 * stored; pointwise and movement ops are inlined unless that would repeat work.
 *
 * A row-local kernel is one all of whose values either share the same leading extents (the rows: tokens) and depend
 * row by row on each other, or do not depend on rows at all (weights). It runs over tiles of rows, its inner values in
 * scratch. In such a kernel the row axes of a value are collapsed to one: axis 0 of its "collapsed" shape. Other
 * kernels run once over whole tensors, with nothing collapsed.
 *
 * A row-local kernel is made of phases (loop.h). Nodes are lowered into serial phases; a product by panels is a phase of its
 * own whose blocks are columns. */
#ifndef MOEC_LOWER_H
#define MOEC_LOWER_H

#include "../compiler/rows.h"
#include "tile.h"

typedef struct View {
    const LBuf *buf; /* NULL: not stored */
    const LExpr *offset;
    int rank;                    /* collapsed */
    Dim stride[MOEC_MAX_RANK];   /* in elements */
    const LExpr *origin; /* elements in front of the first one that is there; NULL: none */
    const LExpr *run;    /* rows come in runs of so many, `apart` from one to the next; NULL: all rows are stride[0] apart */
    Dim apart;
} View;

/* A value in words, with what products of integers need of its rows (tile.h); words NULL: not there. */
typedef struct Rounded {
    const LBuf *words, *scale, *sum;
} Rounded;

typedef struct Lower {
    LoopKernel *k;
    Module *m;
    DimTable *t;
    const Func *f;
    Diag *d;
    const LowerOptions *o;
    uint32_t *uses;
    View *view;
    Rounded *rounded[WEIGHT_FORMATS]; /* value in words, for products by weights of a format (panel_product.c) */
    Rounded *digits[WEIGHT_FORMATS];  /* the same of a value that is f32, where the machine multiplies bytes */
    const LBuf **left;    /* value as panels of rows, where it is there (lower_panel.c) */
    bool *streamed;       /* product that is computed where it is read (lower_panel.c) */
    bool *row;            /* value carries the row axes */
    bool *scattered;      /* value that an output is made of which has its rows elsewhere (rows_output) */
    int n_row;            /* row axes, 0 when not row-local */
    Dim rows;             /* their product */
    const LExpr *row0;    /* first row of the tile */
    const LExpr *tile;    /* rows in this tile */
    int64_t tile_max;
    LBlock *block;        /* where statements go */
} Lower;

/* Collapsed shape. */
int lower_rank(const Lower *l, ValueId v);
const LExpr *lower_extent(const Lower *l, ValueId v, int axis);
/* Extent as a Dim; DIM_BAD for the collapsed row axis. */
Dim lower_dim(const Lower *l, ValueId v, int axis);
View lower_contiguous(const Lower *l, ValueId v, const LBuf *buf, const LExpr *offset);
/* Scratch for the whole of v (a tile of it in a row-local kernel). */
bool lower_scratch(Lower *l, ValueId v, View *out);
const LExpr *view_index(const Lower *l, const View *w, const LExpr *const *idx);
/* The storage of v, looking through reshapes, transposes and slices. False when there is none. */
bool lower_view(Lower *l, ValueId v, View *out);
/* The same, storing v first when it has none. */
bool lower_stored(Lower *l, ValueId v, View *out);

/* One element of v at collapsed index idx. */
const LExpr *lower_pull(Lower *l, ValueId v, const LExpr *const *idx);
/* Index of an operand's element under broadcasting to result r at index idx. */
void lower_broadcast_index(const Lower *l, ValueId operand, ValueId r, const LExpr *const *idx, const LExpr **out);
/* Loops over all of v's collapsed axes, innermost `lanes`; fills idx and moves l->block inside. Returns the block to
 * restore. */
LBlock *lower_loops(Lower *l, ValueId v, int from, int to, const LExpr **idx);

/* Whether the next loop may be the kernel's parallel one: it stands at the top of a kernel that is not row-local, nothing
 * but notes in front of it, and makes the one output. */
bool lower_may_spread(const Lower *l);

/* The body of a phase without blocks that follows all there is: the last one, if it is one. */
LBlock *lower_serial(Lower *l);
/* A new phase of as many blocks; *block: the one at hand. */
LStmt *lower_blocks(Lower *l, const LExpr *blocks, const LExpr **block);

/* Reads of v by nodes and outputs, through other views of it. */
uint32_t lower_reads(const Lower *l, ValueId v);
/* Computed again wherever it is read. */
bool lower_is_cheap(const Node *n);

/* ---- products by panels (lower_panel.c) */

bool lower_by_panels(const Lower *l, const Node *n);
/* All that reads v are products by panels that round it themselves. */
bool lower_is_rounded(const Lower *l, ValueId v);
/* Fills l->streamed. */
void lower_find_streams(Lower *l);
/* v's elements are made of streamed products. */
bool lower_has_sources(const Lower *l, ValueId v);
/* Stores such a v. */
bool lower_streams(Lower *l, ValueId v, const View *to);
/* Stores a product by panels as a whole. */
bool lower_panels(Lower *l, const Node *n, const View *to, bool accumulate);

/* ---- routines over lines, [n,PANEL_COLUMNS] or narrow ones (lower_routine.c) */

/* C[columns,rows] = A[rows,columns] turned around. */
void lower_turn(Lower *l, const LMatrix *a, const LMatrix *c, const LExpr *rows, const LExpr *columns);
/* Lines of b from `line` on. */
LMatrix lower_lines(Lower *l, const LBuf *b, const LExpr *line);
/* Lines C[rows] (+)= A[rows,depth] times lines B[depth]; how A is stored, `left` says, and B's ld how wide lines are. */
void lower_multiply_lines(Lower *l, Left left, const LMatrix *a, const LMatrix *b, const LMatrix *c, const LExpr *rows,
                          const LExpr *depth, bool add);

/* Stores v, the only result of its node. `to` is its storage. */
bool lower_into(Lower *l, ValueId v, const View *to);
bool lower_matmul(Lower *l, const Node *n, const View *to, bool accumulate);
bool lower_attention(Lower *l, const Node *n, const View *to);

#endif
