/* The graph IR: one Module, several functions, one parameter table.
 *
 *   Module   symbols (DimTable), parameters, functions, facts about a seq2seq model
 *   Param    a named array: frozen weight, adapter tensor or constant; bytes by reference
 *   Func     inputs, nodes in execution order, outputs
 *   Node     op, operands, attributes, results, origin
 *   Value    a typed operand: function input, node result, or a use of a parameter
 *
 * Ids, not pointers. A node's operands are defined before it. Passes never edit: they build a new
 * Func from the old one (func_begin .. func_node .. func_end) and swap it in. Analyses are side
 * arrays indexed by ValueId or NodeId. Ops and their attributes are the rows of ops.def.
 *
 * Before `bind`, results may be unranked (`f32[*]`) and dynamic ops take extents as operands; after
 * it every value has a ranked type whose extents are Dims, and no dynamic op is left. */
#ifndef MOEC_IR_H
#define MOEC_IR_H

#include "base.h"
#include "dim.h"
#include "tensor.h"

/* ---- types -------------------------------------------------------------------------------- */

typedef struct Type {
    DType dtype;
    int rank; /* UNRANKED, or 0..MOEC_MAX_RANK */
    Dim dim[MOEC_MAX_RANK];
} Type;
enum { UNRANKED = -1 };

Type type_scalar(DType dtype);
Type type_ranked(DType dtype, int rank, const Dim *dim);
Type type_unranked(DType dtype);
bool type_eq(const Type *a, const Type *b);
/* The common broadcast of two ranked types' extents (NumPy's rule), dtype of a. A symbol against 1 gives the
 * symbol; two different non-1 Dims are an error unless bounds prove otherwise: false. */
bool type_broadcast(DimTable *t, const Type *a, const Type *b, Type *out);
Dim type_count(DimTable *t, const Type *a); /* product of extents */

/* ---- ops ---------------------------------------------------------------------------------- */

typedef enum Op {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) OP_##name,
#include "ops.def"
    OP_COUNT
} Op;

/* How an op treats elements: what most passes ask instead of naming ops. */
typedef enum OpClass {
    OC_SOURCE,    /* no tensor operands: const, iota, dim */
    OC_POINTWISE, /* element by element under broadcasting */
    OC_MOVE,      /* rearranges elements: reshape, transpose, slice, ... */
    OC_REDUCE,    /* folds axes: reduce_*, softmax, argmax, rms_norm */
    OC_CONTRACT,  /* matmul, attention */
    OC_GATHER,    /* element positions are data: gather, scatter_nd, ... */
    OC_RANDOM,    /* numbers made from a counter: random, split_seed */
    OC_DYNAMIC,   /* before bind only: extents are operands */
    OC_CALL       /* call, if, gradient: of whole graphs */
} OpClass;

typedef enum GradKind { GRAD_vjp, GRAD_nograd, GRAD_expand } GradKind;

typedef enum AttrKind { AK_INT, AK_FLOAT, AK_INTS, AK_DIM, AK_DIMS, AK_STR, AK_TENSOR, AK_FUNC, AK_DTYPE } AttrKind;

typedef enum AttrKey {
#define ATTR(name, kind, doc) AT_##name,
#include "ops.def"
    AT_COUNT
} AttrKey;

typedef struct Attr {
    AttrKey key;
    union {
        int64_t i;    /* AK_INT, AK_DTYPE (DType), AK_FUNC (FuncId) */
        double f;     /* AK_FLOAT; printed %.17g */
        Dim d;        /* AK_DIM */
        Str s;        /* AK_STR */
        Tensor t;     /* AK_TENSOR; data in the module's arena */
        struct {
            uint32_t n;
            const int64_t *v;
        } ints;       /* AK_INTS */
        struct {
            uint32_t n;
            const Dim *v;
        } dims;       /* AK_DIMS */
    };
} Attr;

typedef struct OpInfo {
    const char *name;
    int in_min, in_max; /* in_max < 0: any number */
    int outs;           /* < 0: as many as the node says */
    uint32_t n_attrs;
    AttrKey attrs[8];   /* permitted keys; which are required is the infer rule's business */
    OpClass klass;
    GradKind grad;
    const char *doc;
} OpInfo;

const OpInfo *op_info(Op op);
bool op_find(Str name, Op *out);
const char *attr_name(AttrKey k);
AttrKind attr_kind(AttrKey k);
bool attr_find(Str name, AttrKey *out);
/* Notes for passes and readers (site, place, adjoint, router, balance, z): any node may carry them, and they do not
 * change what it computes. */
bool attr_annotates(AttrKey k);

/* ---- values, nodes, functions --------------------------------------------------------------- */

typedef uint32_t ValueId, NodeId, FuncId, ParamId;
#define NONE ((uint32_t)UINT32_MAX) /* also: an operand left out */

typedef enum ValueKind { VK_INPUT, VK_NODE, VK_PARAM } ValueKind;

typedef struct Value {
    Type type;
    ValueKind kind;
    uint32_t def;   /* input index, NodeId or ParamId */
    uint32_t index; /* which result of the node */
    Str name;       /* a hint, kept where it helps readers; unique after printing, not here */
} Value;

typedef struct Node {
    Op op;
    uint32_t n_in, n_out, n_attrs;
    const ValueId *in; /* may hold NONE for an optional operand left out */
    ValueId out;       /* results are out .. out + n_out - 1 */
    const Attr *attrs;
    Str origin;        /* ONNX node name or adapter line, printed after `!` */
} Node;

/* What a function is for. Kernels are outlined by `fuse`, inits compute a parameter from others. */
typedef enum FuncRole { FR_ENTRY, FR_BODY, FR_KERNEL, FR_INIT } FuncRole;

typedef struct Func {
    FuncId id;
    Str name;
    FuncRole role;
    uint32_t n_values, n_nodes, n_inputs, n_outputs;
    Value *value;
    Node *node;
    ValueId *input; /* value ids; kind VK_INPUT */
    ValueId *output;
    Str *output_name;
    const char *file; /* what it was imported from, for diagnostics of bind; NULL when unknown */
    uint32_t room_values, room_nodes, room_inputs, room_outputs;
    ValueId *param_value; /* func_param's own: ParamId -> ValueId + 1, or 0 */
    uint32_t room_params;
} Func;

/* ---- parameters ------------------------------------------------------------------------------- */

typedef enum ParamKind {
    PK_FROZEN,  /* a base weight: goes to the weights file */
    PK_ADAPTER, /* an adapter tensor: swappable at run time, trainable */
    PK_CONST    /* a constant the compiler made: goes to the weights file too */
} ParamKind;

typedef struct Param {
    Str name;
    ParamKind kind;
    DType dtype;
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    const void *data; /* borrowed (mapped file or arena), or NULL: then `init` computes it, or it is unknown */
    Str site;         /* the site whose product reads it, empty when none does: for what is chosen by site */
    FuncId init;      /* NONE, or an FR_INIT function without inputs and with one result of this type. When any
                         parameter it reads (transitively) is PK_ADAPTER it runs whenever an adapter is loaded */
    Str origin;       /* file it came from, for diagnostics */
    uint32_t namesakes; /* module_param's own: the last number it put behind this name for a later one */
} Param;

/* ---- facts about a seq2seq model, filled by frontends and derive ---------------------------- */

typedef struct Seq2Seq {
    bool present;
    int64_t pad, eos, start, vocab;   /* token ids; vocab = rows of the embedding */
    uint32_t enc_layers, dec_layers, heads, head_width, width; /* width = d_model */
} Seq2Seq;

/* ---- module ------------------------------------------------------------------------------------ */

typedef struct Module {
    Arena *arena, *dim_arena; /* extents stay when a pass begins again */
    DimTable *dims;
    Param *param;
    uint32_t n_params, room_params;
    uint32_t *param_slot; /* names hashed: ParamId + 1, or 0; module_param's own */
    uint32_t n_slots;
    Func **func; /* indexed by FuncId; NULL where a function was removed */
    uint32_t n_funcs, room_funcs;
    Seq2Seq s2s;
    Str spec;    /* the adapter spec's canonical JSON; empty without one */
    struct Remarks
        *remarks; /* borrowed, not part of what is printed or parsed: remark.h; NULL: nobody asks */
} Module;

Module *module_new(void);
void module_free(Module *m);
Func *module_func(const Module *m, FuncId id);
Func *module_find(const Module *m, const char *name); /* NULL when there is none */
ParamId module_param(Module *m, Param p);              /* name made unique by a suffix when taken */
bool module_find_param(const Module *m, Str name, ParamId *out);

/* ---- building ------------------------------------------------------------------------------------ */

/* A new empty function, not yet in the module. */
Func *func_begin(Module *m, Str name, FuncRole role);
ValueId func_input(Module *m, Func *f, Str name, Type type);
ValueId func_param(Module *m, Func *f, ParamId p); /* the same value for the same parameter */
/* Appends a node; results are typed by the op's infer rule. Attributes and operands are copied. A type error
 * here is moec's bug: frontends check first with node_infer. Returns the first result. */
ValueId func_node(Module *m, Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs,
                  Str origin);
/* As func_node, for ops whose result types are not implied by operands (OPs with infer rule `given`). */
ValueId func_node_typed(Module *m, Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs,
                        uint32_t n_attrs, const Type *types, uint32_t n_out, Str origin);
void func_output(Module *m, Func *f, ValueId v, Str name);
/* Puts f into the module under a new id, or in the place of function `replace`. Drops dead nodes. */
FuncId func_end(Module *m, Func *f, FuncId replace);

/* Result types of a node that is about to be made; false with a message in *why. `out` has room for *n_out types on
 * entry, and for 8 at least. */
bool node_infer(Module *m, const Func *f, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs,
                Type *out, uint32_t *n_out, const char **why);

/* How many results a node of an op with any number of them has by its attributes: its callee's, or k. */
uint32_t op_outs(const Module *m, const Attr *attrs, uint32_t n_attrs);

/* Short forms over func_node for passes. */
ValueId build_unary(Module *m, Func *f, Op op, ValueId a, Str origin);
ValueId build_binary(Module *m, Func *f, Op op, ValueId a, ValueId b, Str origin);
ValueId build_scalar(Module *m, Func *f, DType dtype, double v); /* `const` of rank 0 */
ValueId build_cast(Module *m, Func *f, ValueId a, DType to, Str origin);  /* a itself when nothing changes */
ValueId build_reshape(Module *m, Func *f, ValueId a, int rank, const Dim *dim, Str origin);
ValueId build_broadcast(Module *m, Func *f, ValueId a, int rank, const Dim *dim, Str origin);
ValueId build_transpose(Module *m, Func *f, ValueId a, const int64_t *perm, Str origin);
ValueId build_slice(Module *m, Func *f, ValueId a, int axis, Dim start, Dim extent, Str origin); /* step 1 */
ValueId build_concat(Module *m, Func *f, const ValueId *in, uint32_t n, int axis, Str origin);
ValueId build_matmul(Module *m, Func *f, ValueId a, ValueId b, Str origin);

Attr attr_i(AttrKey k, int64_t v);
Attr attr_f(AttrKey k, double v);
Attr attr_d(AttrKey k, Dim v);
Attr attr_s(AttrKey k, Str v);
Attr attr_t(AttrKey k, Tensor v);
Attr attr_ints(AttrKey k, const int64_t *v, uint32_t n);
Attr attr_dims(AttrKey k, const Dim *v, uint32_t n);
/* NULL when the node does not have it. */
const Attr *node_attr(const Node *n, AttrKey k);
int64_t node_int(const Node *n, AttrKey k, int64_t otherwise);
double node_float(const Node *n, AttrKey k, double otherwise);

/* ---- reading --------------------------------------------------------------------------------------- */

/* The parameter is such a one, or its init function reads one that is, however far behind. */
typedef bool ParamTest(const Param *p);
bool param_made_of(const Module *m, ParamId p, ParamTest *is);
/* The parameter changes with an adapter: it is one's, or made of one's. */
bool param_adapts(const Module *m, ParamId p);
/* The node that defines v, NULL for inputs and parameters. */
const Node *value_node(const Func *f, ValueId v);
bool value_is(const Func *f, ValueId v, Op op);
bool value_param(const Func *f, ValueId v, ParamId *p);
/* A scalar or one-element constant (node `const`, or a one-element parameter with data). */
bool value_scalar(const Module *m, const Func *f, ValueId v, double *out);
/* How often each value is used as operand or output; array of n_values in `a`. */
uint32_t *func_uses(Arena *a, const Func *f);

/* Copying with substitution: the skeleton of every pass. map has old n_values entries, NONE = not yet there. */
typedef struct Remap {
    Module *m;
    const Func *old;
    Func *f;
    ValueId *map;
} Remap;
/* Starts a function of the same name, role and inputs. */
Remap remap_begin(Module *m, Arena *scratch, const Func *old);
ValueId remap_value(Remap *r, ValueId old_value);     /* params are made on demand; NONE stays NONE */
ValueId remap_node(Remap *r, const Node *n);          /* copies n with mapped operands; maps its results */
void remap_set(Remap *r, ValueId old_value, ValueId now);
FuncId remap_end(Remap *r);                           /* outputs, func_end in place of old */

/* ---- text, checks, execution (print.c parse.c verify.c interp.c) ------------------------------------ */

void module_print(const Module *m, Text *out);
/* Where module_print puts things: 1-based lines, 0 for what is not there. */
typedef struct ModuleLines {
    uint32_t n_funcs;
    uint32_t *func;  /* by FuncId: its first line */
    uint32_t **node; /* by FuncId, by node */
} ModuleLines;
/* The same text; the lines are allocated in `a`. */
ModuleLines module_print_lines(const Module *m, Text *out, Arena *a);
void func_print(const Module *m, const Func *f, Text *out);
void type_print(const Module *m, const Type *t, Text *out);
/* One node as it stands in a dump, without newline: for comments and diagnostics. */
void node_print(const Module *m, const Func *f, const Node *n, Text *out);
Module *module_parse(Diag *d, const char *file, const char *text, size_t n); /* NULL after reporting */
/* Checks every invariant of this header. `bound`: also that nothing dynamic or unranked is left. */
bool module_verify(const Module *m, Diag *d, bool bound);

/* Reference interpreter: slow and obvious, sums in double. syms[i] is symbol i. `in` and `out` are tensors whose
 * extents agree with the function's types; out data are allocated in `a`. False after reporting (an index out of
 * range, an unknown parameter). */
bool func_eval(const Module *m, FuncId f, const int64_t *syms, const Tensor *in, Tensor *out, Arena *a, Diag *d);
/* Evaluates a parameter: its data, or its init function. */
bool param_eval(const Module *m, ParamId p, Tensor *out, Arena *a, Diag *d);
/* The same straight into the caller's buffer; `bytes` is what the parameter's type takes. */
bool param_eval_into(const Module *m, ParamId p, void *dst, size_t bytes, Diag *d);
/* Binds symbols from input tensors' extents (a Dim that is a plain symbol); checks all the others. */
bool func_bind_dims(const Module *m, const Func *f, const Tensor *in, int64_t *syms, Diag *d);

#endif
