/* What the files of the ONNX importer share. */
#ifndef MOEC_ONNX_IMPL_H
#define MOEC_ONNX_IMPL_H

#include "../compiler/namemap.h"
#include "onnx.h"
#include "onnx.pb-c.h"

#include <sys/types.h>

/* ---- limits --------------------------------------------------------------------------------------- */

enum {
    ONNX_SMALL = 64, /* elements up to which an integer constant is a literal */
    ONNX_MIN_OPSET = 1,
    ONNX_MAX_OPSET = 28
};

/* ---- wire format (onnx_scan.c) ---------------------------------------------------------------------- */

typedef enum OnnxRoot { ONNX_MODEL, ONNX_TENSOR } OnnxRoot;

/* Walks the message without recursion, checks it against ONNX's schema and the limits, and writes to `slim` an
 * equivalent message without unknown fields, documentation and value infos, in which the bytes of each raw_data
 * are replaced by `segment {begin, end}`: their place in p. *cost estimates the bytes unpacking will take. */
bool onnx_scan(const uint8_t *p, size_t n, OnnxRoot root, Text *slim, size_t *cost, const char *file, Diag *d);

/* ---- files (onnx_file.c) ----------------------------------------------------------------------------- */

typedef struct OnnxMap {
    const uint8_t *p; /* NULL for an empty file */
    size_t n;
    dev_t dev;
    ino_t ino;
} OnnxMap;

typedef struct OnnxOutput {
    Str func;
    uint32_t index;
    Type type;                   /* extents unused */
    int64_t dim[MOEC_MAX_RANK];  /* -1: not constant */
    const char *file;
} OnnxOutput;

typedef struct OnnxWeight {
    uint64_t hash;
    ParamId param;
    uint32_t next; /* another weight with this hash; NONE ends the chain */
} OnnxWeight;

struct OnnxFiles {
    Arena *arena;
    Vec(OnnxMap) map;
    Vec(OnnxWeight) weight;
    NameMap by_hash; /* the hash's bytes -> first of weight[] with it */
    Vec(OnnxOutput) output;
};

typedef struct OnnxFile {
    OnnxFiles *owner;
    const char *path, *dir;
    const uint8_t *p;
    size_t n;
    Arena *arena; /* the unpacked message; freed by onnx_file_close */
    Onnx__ModelProto *model;
    Onnx__TensorProto *tensor;
} OnnxFile;

/* Maps, scans and unpacks. */
bool onnx_file_open(OnnxFiles *files, const char *path, OnnxRoot root, OnnxFile *out, Diag *d);
void onnx_file_close(OnnxFile *f);
/* Maps (or finds mapped) an open descriptor, which it closes. */
bool onnx_map(OnnxFiles *files, int fd, int64_t size, const char *file, OnnxMap *out, Diag *d);

/* ---- tensors (onnx_tensor.c) -------------------------------------------------------------------------- */

bool onnx_dtype(int32_t onnx, DType *out);
const char *onnx_dtype_name(int32_t onnx);
/* The tensor's type, extents and data: in a mapping when aligned there, else in `a`. Errors are prefixed by
 * whatever is pushed on d. */
bool onnx_tensor(const OnnxFile *file, const Onnx__TensorProto *t, Arena *a, Tensor *out, Diag *d);
/* As a parameter of the module, shared with an identical one. */
ParamId onnx_param(Module *m, OnnxFiles *files, const Tensor *t, Str name, ParamKind kind, Str origin);

/* ---- graphs (onnx_graph.c) ------------------------------------------------------------------------------ */

typedef enum BindingKind { BIND_VALUE, BIND_PARAM, BIND_CONST, BIND_POISON } BindingKind;

/* What a name stands for in a scope. Constants and parameters are made in each function that uses them. */
typedef struct Binding {
    BindingKind kind;
    ValueId value; /* in the scope's function; NONE: not made yet there (const) */
    ParamId param;
    Tensor tensor;
    Str name;
} Binding;

typedef struct Scope Scope;
struct Scope {
    Scope *outer;
    Func *f;
    NameMap names;
    Vec(Binding) bind;
    int depth;
};

typedef struct Import {
    Module *m;
    OnnxFile *file;
    Diag *d;
    int opset; /* of the default domain */
    bool failed;
} Import;

/* ---- operators (onnx_node.c, onnx_ops_*.c) ----------------------------------------------------------------- */

typedef struct NodeCtx NodeCtx;
typedef bool (*NodeRule)(NodeCtx *c);

/* One row an operator and range of opsets. Attributes: "name:kind" separated by spaces; kinds i f s t g I F S,
 * `!` after it: required. */
typedef struct OpRow {
    const char *domain, *name;
    int since, until; /* opset versions, inclusive */
    int in_min, in_max, out_max; /* -1: any number */
    const char *attrs;
    NodeRule rule;
    int arg; /* for rules that serve several rows */
} OpRow;
/* One node on its way in. A rule reads in[] and attributes and sets out[]; building with a NONE operand that is
 * not an optional one yields NONE and marks the node failed, so rules need no checks in between. */
struct NodeCtx {
    Import *im;
    const OpRow *row;
    Module *m;
    Func *f;
    Scope *scope;
    const Onnx__NodeProto *node;
    Str origin;
    int opset;
    ValueId *in; /* NONE: left out */
    uint32_t n_in;
    ValueId *out;
    uint32_t n_out; /* results the node names, trailing empty ones not counted */
    bool failed;
};

enum { OPSET_ANY = 1 << 20 };

/* Each ends with a row without a name. */
extern const OpRow onnx_ops_math[], onnx_ops_shape[], onnx_ops_reduce[], onnx_ops_nn[], onnx_ops_quant[];

const OpRow *onnx_op_find(Str domain, Str name, int opset);
bool onnx_node_import(Import *im, Scope *scope, const Onnx__NodeProto *n);
/* Value of a name as an operand in scope's function: NONE with *poisoned when its definition failed. */
bool scope_value(Import *im, Scope *scope, Str name, ValueId *out, bool *poisoned);
const Binding *scope_find(const Scope *scope, Str name); /* in this scope or an outer one */
bool scope_define(Scope *scope, Binding b);
bool onnx_graph_body(Import *im, Scope *scope, const Onnx__GraphProto *g);
bool onnx_if(NodeCtx *c);

Str onnx_str(Module *m, const char *s); /* a copy in the module's arena; NULL is empty */

/* attributes */
const Onnx__AttributeProto *ctx_attr(const NodeCtx *c, const char *name);
bool ctx_has(const NodeCtx *c, const char *name);
int64_t ctx_int(const NodeCtx *c, const char *name, int64_t otherwise);
double ctx_float(const NodeCtx *c, const char *name, double otherwise);
Str ctx_str(const NodeCtx *c, const char *name, const char *otherwise);
bool ctx_ints(const NodeCtx *c, const char *name, const int64_t **v, uint32_t *n); /* false when absent */

/* reporting: sets c->failed and returns false */
bool ctx_error(NodeCtx *c, DiagCode code, const char *fmt, ...) MOEC_PRINTF(3, 4);

/* building */
ValueId emit(NodeCtx *c, Op op, const ValueId *in, uint32_t n_in, const Attr *attrs, uint32_t n_attrs);
ValueId emit1(NodeCtx *c, Op op, ValueId a);
ValueId emit2(NodeCtx *c, Op op, ValueId a, ValueId b);
ValueId emit3(NodeCtx *c, Op op, ValueId a, ValueId b, ValueId d);
ValueId emit1_int(NodeCtx *c, Op op, ValueId a, AttrKey key, int64_t v);
ValueId emit_cast(NodeCtx *c, ValueId a, DType to);
ValueId emit_scalar(NodeCtx *c, DType t, double v);
ValueId emit_ints(NodeCtx *c, const int64_t *v, uint32_t n); /* i64[n] literal */
ValueId emit_reduce(NodeCtx *c, const char *kind, ValueId a, const int64_t *axes, uint32_t n_axes, bool keep);
DType value_dtype(const NodeCtx *c, ValueId v);
int value_rank(const NodeCtx *c, ValueId v); /* UNRANKED when not known */
/* The literal behind an operand, when there is one. */
bool value_literal(const NodeCtx *c, ValueId v, Tensor *out);

#endif
