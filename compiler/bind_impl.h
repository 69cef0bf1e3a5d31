/* What the files of `bind` share: abstract values and the function being built.
 *
 * An abstract value (index BVal) is what bind knows of one value: its ranked type, its id in the new function
 * once it has one, and, for small integer-valued tensors, its content as one Dim an element. A value whose
 * content is known in full is put into the function only when a run-time node asks for it.
 *
 * Every function that can fail returns false (or BV_NONE) after reporting, or after asking for a restart:
 * two symbols that meet are made one by walking the module again with the substitution in force. */
#ifndef MOEC_BIND_IMPL_H
#define MOEC_BIND_IMPL_H

#include "ir.h"
#include "pass.h"

typedef uint32_t BVal;
#define BV_NONE      ((BVal)UINT32_MAX)
#define ELEM_UNKNOWN ((Dim)(UINT32_MAX - 1)) /* an element that only the run knows */
enum { CONTENT_MAX = 64 };                   /* larger tensors have no tracked content */

typedef struct Bound {
    Type type;
    ValueId id;      /* NONE: not yet put into the function */
    const Dim *elem; /* content, type_count elements, or NULL */
    BVal splat;      /* all elements equal this one-element value, or BV_NONE */
    bool half;       /* computed in f16 by the model: finite where the model's authors trusted it */
} Bound;

typedef Vec(Bound) BoundVec;

typedef struct Binder {
    Module *m;
    const PassOptions *o;
    Diag *d;
    Arena *scratch;
    Vec(Dim) subst; /* symbol -> the Dim that stands for it, or DIM_BAD */
    bool restart;
    Func *f;          /* being built */
    BoundVec *vals;   /* of f */
    Str origin;       /* of the node being bound */
    const char *file; /* of the function being bound */
    uint32_t depth;   /* of bodies being bound */
    uint64_t work;     /* nodes bound in this walk, against explosive inlining */
    uint64_t all_work; /* in all walks */
} Binder;

typedef struct Dims {
    int n;
    Dim d[MOEC_MAX_RANK];
} Dims;

/* ---- bind_value.c ---- */

void *bind_copy(Binder *b, const void *src, size_t count, size_t size); /* in scratch; never NULL */
Bound *bound_at(Binder *b, BVal v);
BVal bound_new(Binder *b, Type type, ValueId id);
BVal bound_content(Binder *b, Type type, const Dim *elem);   /* elem is copied; all known: id stays NONE */
BVal bound_ints(Binder *b, const int64_t *v, uint32_t n);    /* an i64[n] constant */
ValueId bound_id(Binder *b, BVal v);                         /* puts v into the function if need be */
bool bound_constant(Binder *b, BVal v, Tensor *t);           /* concrete data of a small value, when known */
bool bound_known(Binder *b, BVal v);                         /* the whole content is known */
int64_t type_small_count(const DimTable *t, const Type *ty); /* elements, or -1 when not in 0..CONTENT_MAX */

/* The symbol substitution in force. */
Dim bind_canon(Binder *b, Dim d);
Type bind_canon_type(Binder *b, Type t); /* extents substituted, f16 becomes f32 */
/* a == b, if need be by making symbols one. False: restart asked for, or reported with `what`. */
bool bind_unify(Binder *b, Dim x, Dim y, const char *what);
bool bind_broadcast_dims(Binder *b, const BVal *in, uint32_t n, Dims *out);

/* Appends a node with inferred or stated result type. */
BVal bind_emit(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs);
BVal bind_emit_typed(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                     Type type);
bool bind_emit_many(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                    BVal *out);
BVal bind_scalar(Binder *b, DType dtype, double v);
BVal bind_dim(Binder *b, Dim d); /* i64 scalar */

/* Static forms that keep content and drop what does nothing. */
BVal bind_to_shape(Binder *b, BVal x, const Dims *s);
BVal bind_to_broadcast(Binder *b, BVal x, const Dims *s);
BVal bind_transposed(Binder *b, BVal x, const int64_t *perm);
BVal bind_sliced(Binder *b, BVal x, const Dim *start, const int64_t *step, const Dims *extent);
BVal bind_joined(Binder *b, const BVal *in, uint32_t n, int axis);
BVal bind_cast_to(Binder *b, BVal x, DType to);
BVal bind_binary(Binder *b, Op op, BVal x, BVal y);

/* The content of an operand that decides a shape; reports which input hides it. */
const Dim *bind_need(Binder *b, BVal v, uint32_t *n, const char *what);
bool bind_need_ints(Binder *b, BVal v, uint32_t *n, const int64_t **out, const char *what);
bool bind_axis(Binder *b, int64_t axis, int rank, int *out);

/* ---- bind_content.c: what is known of a static node's result ---- */

/* Writes the content of a result of `type` to elem[CONTENT_MAX], elements possibly unknown. False: nothing is
 * known. */
bool content_of(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                const Type *type, Dim *elem);
const Attr *attr_in(const Attr *attrs, uint32_t n, AttrKey k); /* NULL when absent */
const Attr *attr_must(const Attr *attrs, uint32_t n, AttrKey k); /* of an op that cannot be without */

/* ---- bind_static.c ---- */

/* Binds a static op on abstract values: content, known clean-ups, else a node. `given` is the result type
 * where operands do not imply it. */
bool bind_static(Binder *b, Op op, const BVal *in, uint32_t n, const Attr *attrs, uint32_t n_attrs,
                 const Type *given, bool half, BVal *out, uint32_t n_out);

/* ---- bind_ops.c, bind_ops2.c: one handler a dynamic op, bind_<op> ---- */

typedef bool BindRule(Binder *b, const Node *n, const BVal *in, BVal *out);
#define BIND_SOURCE(name)
#define BIND_POINTWISE(name)
#define BIND_MOVE(name)
#define BIND_REDUCE(name)
#define BIND_CONTRACT(name)
#define BIND_GATHER(name)
#define BIND_RANDOM(name)
#define BIND_CALL(name)
#define BIND_DYNAMIC(name)                                                     BindRule bind_##name;
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) BIND_##klass(name)
#include "ops.def"
#undef BIND_DYNAMIC

#endif
