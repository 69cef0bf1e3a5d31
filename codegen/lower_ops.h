/* The lowering rules of ops that are stored. Each fills `to` with node n's result. */
#ifndef MOEC_LOWER_OPS_H
#define MOEC_LOWER_OPS_H

#include "lower.h"

bool lower_reduce(Lower *l, const Node *n, const View *to);
bool lower_softmax(Lower *l, const Node *n, const View *to);
bool lower_rms(Lower *l, const Node *n, const View *to);
bool lower_argmax(Lower *l, const Node *n, const View *to);
bool lower_top_k_mask(Lower *l, const Node *n, const View *to);
bool lower_cumsum(Lower *l, const Node *n, const View *to);
bool lower_gather(Lower *l, const Node *n, const View *to);
bool lower_gather_nd(Lower *l, const Node *n, const View *to);
bool lower_scatter_nd(Lower *l, const Node *n, const View *to);
bool lower_concat(Lower *l, const Node *n, const View *to);

/* Softmax in place along one row of `to`; idx are the other axes' positions. `score` gives the value to store at
 * position j before the softmax. */
typedef const LExpr *RowScore(Lower *l, void *ctx, const LExpr *j);
void lower_softmax_of(Lower *l, const View *to, const LExpr *const *idx, int axis, const LExpr *extent, RowScore *score,
                      void *ctx);

/* A matmul that may be deferred into the sum it is an operand of. */
bool lower_is_gemm(const Lower *l, const Node *n);

#endif
