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
bool lower_cross_entropy(Lower *l, const Node *n, const View *to); /* both results */
bool lower_cross_entropy_dx(Lower *l, const Node *n, const View *to);
bool lower_cross_entropy_dw(Lower *l, const Node *n, const View *to);
bool lower_attention_grad(Lower *l, const Node *n, const View *to); /* all results */
bool lower_concat(Lower *l, const Node *n, const View *to);

/* Softmax in place along one row of `to`; idx are the other axes' positions. `score` gives the value to store at
 * position j before the softmax. */
typedef const LExpr *RowScore(Lower *l, void *ctx, const LExpr *j);
void lower_softmax_of(Lower *l, const View *to, const LExpr *const *idx, int axis, const LExpr *extent, RowScore *score,
                      void *ctx);

/* The sum (LO_ADD) or maximum (LO_MAX) of `extent` elements in lanes joined in a fixed order: a variable. */
const LExpr *lower_fold(Lower *l, LOp op, DType t, const LExpr *extent, RowScore *element, void *ctx);

/* A matrix with distances `down` and `across` between its elements; false unless one of them is 1. */
bool lower_matrix(Lower *l, const LBuf *buf, const LExpr *offset, Dim down, Dim across, LMatrix *out);

/* A matmul that may be deferred into the sum it is an operand of. */
bool lower_is_gemm(const Lower *l, const Node *n);

#endif
