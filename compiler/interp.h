/* Inside the reference interpreter: what its files share. Nothing else includes this.
 *
 * A rule interp_<name>(Step *) computes one node: it reads operands with step_in, asks for results with
 * step_out (or step_alias for the same bytes under other extents) and fills them. Results are tensors
 * with concrete extents whatever the IR's types say, so rules serve the IR before and after bind.
 * Values are counted heap blocks that go as soon as their last user has run. */
#ifndef MOEC_INTERP_H
#define MOEC_INTERP_H

#include "ir.h"

/* ---- values --------------------------------------------------------------------------------- */

typedef struct Store {
    uint32_t refs;
    void *data;
} Store;

typedef struct Held {
    Tensor t;
    Store *store; /* NULL: the data belong to somebody who outlives the evaluation */
    bool set;
    bool placed; /* lives where the function's result has to be */
} Held;

typedef struct Interp {
    const Module *m;
    const int64_t *syms; /* may be NULL when no Dim of the function has a symbol */
    Diag *d;
    uint32_t depth;      /* of calls and parameter inits, bounded */
    const struct Probe *probe; /* a value to be replaced, NULL: none */
} Interp;

typedef struct Frame Frame;

typedef struct Step {
    Interp *run;
    const Func *f;
    const Node *n;
    const Held **in; /* n->n_in entries, NULL = left out */
    Held *out;
    Frame *frame;
} Step;

/* Located at the node's origin; false. */
bool step_error(Step *s, DiagCode code, const char *fmt, ...) MOEC_PRINTF(3, 4);
const Tensor *step_in(const Step *s, uint32_t i);                 /* NULL when left out */
/* Result i with fresh zeroed data, NULL after reporting. Data of an empty tensor may be any pointer. */
Tensor *step_out(Step *s, uint32_t i, DType dtype, int rank, const int64_t *dim);
/* Result i is operand `operand` under other extents; the count has to agree. */
bool step_alias(Step *s, uint32_t i, uint32_t operand, int rank, const int64_t *dim);
bool step_dim(Step *s, Dim d, int64_t *out);
/* Extents of result i as its type states them. */
bool step_extents(Step *s, uint32_t i, int *rank, int64_t *dim);
bool step_axis(Step *s, int64_t axis, int rank, int *out); /* negative counts from the end */

/* Applies function `id` to operands first.. of the step. */
bool step_call(Step *s, FuncId id, uint32_t first);
/* The scalar `result` of the step's function, made before the step, were value v `instead`. */
bool step_probe(Step *s, ValueId result, ValueId v, const Tensor *instead, double *out);

#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) bool interp_##interp(Step *s);
#include "ops.def"

/* ---- walking strided arrays (interp_walk.c) --------------------------------------------------- */

enum { WALK_MAX = 4 };

/* Visits the runs of up to four arrays of the same extents but different strides (in elements), adjacent axes
 * merged where all strides allow:
 *   if (walk_begin(...)) do { run of w.run elements at w.off[k], w.step[k] apart } while (walk_next(&w)); */
typedef struct Walk {
    int n, rank;
    int64_t dim[MOEC_MAX_RANK], pos[MOEC_MAX_RANK];
    int64_t stride[WALK_MAX][MOEC_MAX_RANK];
    int64_t run, off[WALK_MAX], step[WALK_MAX];
} Walk;

typedef int64_t Strides[MOEC_MAX_RANK];

bool walk_begin(Walk *w, int n, int rank, const int64_t *dim, Strides *stride); /* false: nothing to visit */
bool walk_next(Walk *w);

void strides_dense(int rank, const int64_t *dim, int64_t *stride);
/* Strides of t seen under wider extents, 0 along broadcast axes; false when they do not broadcast. */
bool strides_broadcast(const Tensor *t, int rank, const int64_t *dim, int64_t *stride);
/* Widens rank and dim (start with rank 0) so that t broadcasts with them. */
bool extents_broadcast(const Tensor *t, int *rank, int64_t *dim);
int64_t extents_count(const int64_t *dim, int from, int to);

/* dst[..] = src[..] over extents dim; strides in elements, of either sign. */
void copy_strided(void *dst, const int64_t *dst_stride, const void *src, const int64_t *src_stride, int rank,
                  const int64_t *dim, size_t elem);

/* ---- runs of elements as one arithmetic type ---------------------------------------------------- */

enum { RUN_MAX = 512 };

/* Element kinds compute as: f16 and f32 in float, f64 in double, integers and bool in int64. */
typedef enum Arith { AR_F32, AR_F64, AR_I64 } Arith;
Arith dtype_arith(DType t);

void load_f32(const Tensor *t, int64_t off, int64_t step, int64_t n, float *out);   /* float kinds; others convert */
void load_f64(const Tensor *t, int64_t off, int64_t step, int64_t n, double *out);
void load_i64(const Tensor *t, int64_t off, int64_t step, int64_t n, int64_t *out); /* integer kinds and bool only */
/* To consecutive elements; rounding, wrapping, and != 0 for bool as the type of t asks. */
void store_f32(Tensor *t, int64_t off, int64_t n, const float *v);
void store_f64(Tensor *t, int64_t off, int64_t n, const double *v);
void store_i64(Tensor *t, int64_t off, int64_t n, const int64_t *v);

#endif
