/* Contractions: matmul in plain loops with double sums (int64 for integers). */
#include "interp.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- matmul ------------------------------------------------------------------------------------------- */

/* One operand as a stack of matrices; strides in elements. */
typedef struct Matrices {
    const Tensor *t;
    int64_t rows, cols, row_step, col_step;
} Matrices;

static Matrices matrices(const Tensor *t, bool swap) {
    int64_t r = t->dim[t->rank - 2], c = t->dim[t->rank - 1];
    return swap ? (Matrices){t, c, r, 1, c} : (Matrices){t, r, c, c, 1};
}

/* out[i, :] = sum over k of a[i, k] b[k, :], row by row so that b is read along its rows. */
static void product_f64(const Matrices *a, int64_t a0, const Matrices *b, int64_t b0, Tensor *out,
                        int64_t o0) {
    int64_t K = a->cols, N = b->cols;
    double *row = mem_alloc((size_t)(K + 2 * N + 1) * sizeof *row), *acc = row + K, *line = acc + N;
    for (int64_t i = 0; i < a->rows; i++) {
        load_f64(a->t, a0 + i * a->row_step, a->col_step, K, row);
        memset(acc, 0, (size_t)N * sizeof *acc);
        for (int64_t k = 0; k < K; k++) {
            int64_t at = b0 + k * b->row_step;
            if (b->t->dtype == DT_F32 && b->col_step == 1) {
                const float *p = (const float *)b->t->data + at;
                for (int64_t j = 0; j < N; j++)
                    acc[j] += row[k] * (double)p[j];
                continue;
            }
            load_f64(b->t, at, b->col_step, N, line);
            for (int64_t j = 0; j < N; j++)
                acc[j] += row[k] * line[j];
        }
        store_f64(out, o0 + i * N, N, acc);
    }
    mem_free(row);
}

static void product_i64(const Matrices *a, int64_t a0, const Matrices *b, int64_t b0, Tensor *out,
                        int64_t o0) {
    int64_t K = a->cols, N = b->cols;
    int64_t *row = mem_alloc((size_t)(K + 2 * N + 1) * sizeof *row), *acc = row + K, *line = acc + N;
    for (int64_t i = 0; i < a->rows; i++) {
        load_i64(a->t, a0 + i * a->row_step, a->col_step, K, row);
        memset(acc, 0, (size_t)N * sizeof *acc);
        for (int64_t k = 0; k < K; k++) {
            load_i64(b->t, b0 + k * b->row_step, b->col_step, N, line);
            for (int64_t j = 0; j < N; j++)
                acc[j] = (int64_t)((uint64_t)acc[j] + (uint64_t)row[k] * (uint64_t)line[j]);
        }
        store_i64(out, o0 + i * N, N, acc);
    }
    mem_free(row);
}

/* out has the broadcast leading extents and the two of the product; drop_* leave one of the two away. */
static bool matmul(Step *s, const Tensor *ta, bool swap_a, const Tensor *tb, bool swap_b, bool drop_row,
                   bool drop_col) {
    Matrices a = matrices(ta, swap_a), b = matrices(tb, swap_b);
    if (a.cols != b.rows)
        return step_error(s, DIAG_SHAPE_MISFIT, "inner extents %lld and %lld differ", (long long)a.cols,
                          (long long)b.rows);
    if (ta->dtype != tb->dtype)
        return step_error(s, DIAG_OPERAND_TYPE, "the operands are %s and %s", dtype_name(ta->dtype),
                          dtype_name(tb->dtype));
    Tensor lead_a = *ta, lead_b = *tb;
    lead_a.rank -= 2;
    lead_b.rank -= 2;
    int rank = 0;
    int64_t dim[MOEC_MAX_RANK + 2];
    if (!extents_broadcast(&lead_a, &rank, dim) || !extents_broadcast(&lead_b, &rank, dim))
        return step_error(s, DIAG_SHAPE_MISFIT, "the leading extents do not broadcast");
    Strides stride[3];
    strides_broadcast(&lead_a, rank, dim, stride[0]);
    strides_broadcast(&lead_b, rank, dim, stride[1]);
    strides_dense(rank, dim, stride[2]);
    int full = rank;
    if (!drop_row)
        dim[full++] = a.rows;
    if (!drop_col)
        dim[full++] = b.cols;
    Tensor *out = step_out(s, 0, ta->dtype, full, dim);
    Walk w;
    int64_t count;
    if (!out)
        return false;
    CHECK(tensor_count(out, &count));
    if (count == 0 || !walk_begin(&w, 3, rank, dim, stride))
        return true;
    do
        for (int64_t i = 0; i < w.run; i++) {
            int64_t a0 = (w.off[0] + i * w.step[0]) * a.rows * a.cols;
            int64_t b0 = (w.off[1] + i * w.step[1]) * b.rows * b.cols;
            int64_t o0 = (w.off[2] + i * w.step[2]) * a.rows * b.cols;
            if (dtype_arith(ta->dtype) == AR_I64)
                product_i64(&a, a0, &b, b0, out, o0);
            else
                product_f64(&a, a0, &b, b0, out, o0);
        }
    while (walk_next(&w));
    return true;
}

bool interp_matmul(Step *s) {
    const Tensor *a = step_in(s, 0), *b = step_in(s, 1);
    if (a->rank < 2 || b->rank < 2)
        return step_error(s, DIAG_SHAPE_AXIS, "an operand has fewer than two axes");
    return matmul(s, a, node_int(s->n, AT_ta, 0) != 0, b, node_int(s->n, AT_tb, 0) != 0, false, false);
}

bool interp_dyn_matmul(Step *s) {
    Tensor a = *step_in(s, 0), b = *step_in(s, 1);
    bool row = a.rank == 1, col = b.rank == 1;
    if (a.rank < 1 || b.rank < 1)
        return step_error(s, DIAG_SHAPE_AXIS, "an operand has no axes");
    if (row)
        a.dim[1] = a.dim[0], a.dim[0] = 1, a.rank = 2;
    if (col)
        b.dim[1] = 1, b.rank = 2;
    return matmul(s, &a, false, &b, false, row, col);
}
