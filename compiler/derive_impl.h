/* What the files of `derive` share. */
#ifndef MOEC_DERIVE_IMPL_H
#define MOEC_DERIVE_IMPL_H

#include "pass.h"

enum { MAX_RENAMES = 8, KEEP_OPERAND = 4, SPANS_OPERAND = 9 /* operands of attention */ };

typedef struct Renames {
    uint32_t from[MAX_RENAMES];
    Dim mid[MAX_RENAMES], to[MAX_RENAMES];
    uint32_t n;
} Renames;

typedef struct Inputs {
    ValueId ids, mask, hidden, sentence; /* NONE where there is none */
} Inputs;

typedef struct Deriver {
    Module *m;
    Diag *d;
    Arena *a;
    const Func *enc, *dec;
    Inputs ein, din;
    Renames enc_names, dec_names, enc_packed, dec_packed; /* packed: the source tokens of all rows are one row */
    Dim B, S, P, N;
    int64_t cross_heads; /* of a cross attention */
    int *tag; /* of the decoder's values: the axis that runs over target tokens, or -1 */
} Deriver;

/* One value of a site's router, found by its attribute `router` while a function is copied. */
typedef struct RouterValue {
    const Node *n; /* of the old function */
    ValueId now;
    bool target; /* one a target token, else one a source token */
} RouterValue;

/* What the copies of encoder and decoder that a training function is made of share. */
typedef struct Training {
    ValueId segments[2]; /* i64 [B,S] of the encoder, [B,T] of the decoder */
    ValueId real[2];     /* tokens that router statistics count, f32 of the same extents */
    ValueId drop;        /* probability, f32[]; NONE: no noise, as in inference */
    ValueId kept;        /* 1 / (1 - drop) */
    ValueId seed;        /* the next of `seeds` to be used */
    ValueId sentence;    /* NONE without */
    Vec(RouterValue) router;
} Training;

/* A function being made from an old one. */
typedef struct Copy {
    const Func *old;
    Func *f;
    const Renames *names;
    ValueId *map;
    const int *tag;
    bool one; /* one token: token axes have extent 1 */
    ValueId *past, *grown;
    ValueId spans; /* of the packed keys; NONE: they are padded */
    Training *train;     /* NULL: for inference */
    bool decoder;        /* train: which of the two this is */
    const bool *dropped; /* train: values of the old function that dropout is applied to */
} Copy;

Dim rename_dim(const Renames *r, DimTable *t, Dim d);
Type rename_type(Deriver *dv, Type t, const Renames *r);
Attr rename_attr(Deriver *dv, Attr a, const Renames *r);
Copy copy_begin(Deriver *dv, const Func *old, const char *name, const Renames *names);
/* The same into a function that has been begun. */
Copy copy_into(Deriver *dv, const Func *old, Func *f, const Renames *names);
/* `now` stands for `v` of the old function, cast where element types differ. */
void copy_bind(Deriver *dv, Copy *c, ValueId v, ValueId now);
/* Marks what `out` needs, not looking behind values that are mapped already. */
bool *needed(Deriver *dv, const Copy *c, const ValueId *out, uint32_t n_out);
void copy_body(Deriver *dv, Copy *c, const bool *mark);
ValueId copied(Deriver *dv, Copy *c, ValueId v);
ValueId unrounded(const Func *f, ValueId v); /* a result in f32, whatever the model's files round it to */
/* An input that is needed and stands for nothing: reported, true. */
bool stray_input(Deriver *dv, const Copy *c, const bool *mark);

void rename_add(Renames *r, DimTable *t, Dim from, Dim to);
void rename_finish(Renames *r, DimTable *t); /* when all have been added */

/* derive_packed.c: whether the four functions can do without padding; sets dv's packed renames and N. */
bool packing_find(Deriver *dv, const ValueId *kv, uint32_t n_kv, ValueId logits);
ValueId spans_input(Deriver *dv, Func *f);
/* n over packed keys; in: its operands as copied. */
void packed_attention(Deriver *dv, Copy *c, const Node *n, const ValueId *in);

/* derive_train.c */
bool make_train(Deriver *dv, const PassOptions *o, ValueId logits);
bool make_routers(Deriver *dv, ValueId logits);
/* What copy_body does otherwise in a training function: dropout and jitter, attention, and a node just copied. */
ValueId train_noise(Deriver *dv, Copy *c, const Node *n, ValueId x);
void train_attention(Deriver *dv, Copy *c, const Node *n, const ValueId *in);
void train_node(Deriver *dv, Copy *c, const Node *n);

/* derive_tokens.c: fills dv->tag; false after reporting a node that lets one position depend on another. */
bool tokens_find(Deriver *dv);

#endif
