/* What the files of `match` share. */
#ifndef MOEC_MATCH_IMPL_H
#define MOEC_MATCH_IMPL_H

#include "indexfn.h"
#include "remark.h"

/* An additive term of attention scores, understood: shared by all layers that add the same values. */
typedef struct Additive {
    ValueId leaf[16]; /* of the old function, in operand order */
    Type scores;
    uint32_t n_leaf;
    bool ok;
    const char *why; /* when not ok */
    const Node *where;
    ValueId bias; /* of the new function: f32[H,R] or NONE */
    ValueId keep; /* bool[B,S] or NONE */
    bool causal;
    int64_t center;
} Additive;

/* What a pattern is about, the softmax of an attention or the root of a norm, and why it did not become one.
 * It is told if the node is still there in the end. */
typedef struct Missed {
    RemarkId id;
    const Node *core;
    const char *why;
    const Node *where; /* NULL: at the core */
} Missed;

/* A pattern found; told if its result is read in the end: larger patterns take in smaller ones. */
typedef struct Found {
    RemarkId id;
    const Node *root;
    ValueId now; /* of the new function */
    const char *text;
} Found;

typedef struct Matcher {
    Module *m;
    const Func *f; /* being read */
    Remap r;       /* being written: r.f */
    Arena *a;
    Index *x; /* made when the first softmax is met */
    Vec(Additive *) additive;
    Vec(Missed) missed;
    Vec(Found) found;
    struct {
        Dim extent;
        IxId at;
    } axis[5]; /* b h i j e of the last scores seen */
} Matcher;

/* Each looks whether node n is the root of its pattern; true: the result is mapped. */
bool match_rms_norm(Matcher *mt, const Node *n);
bool match_gelu(Matcher *mt, const Node *n);
bool match_linear(Matcher *mt, const Node *n);
bool match_attention(Matcher *mt, const Node *n);
bool match_quantised(Matcher *mt, const Node *n);

/* The result of n's pattern. The text is arena_printf's, or NULL when nobody asks for remarks. */
void match_found(Matcher *mt, RemarkId id, const Node *n, ValueId now, const char *text);
/* Returns false. The first reason for a core stands; `where` may be NULL. */
bool match_missed(Matcher *mt, RemarkId id, const Node *core, const char *why, const Node *where);

Additive *match_additive(Matcher *mt, const ValueId *leaf, uint32_t n, const Type *scores);
/* The variable of axis 0..3 of the scores (b h i j) or 4 (position within a head). */
IxId match_axis(Matcher *mt, int axis, Dim extent);

/* v without casts that change nothing. */
ValueId match_strip(const Func *f, ValueId v);
bool match_const(const Matcher *mt, ValueId v, double *out);

/* match_roles.c */
bool match_roles(Module *m, Diag *d);

#endif
