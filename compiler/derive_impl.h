/* What the files of `derive` share. */
#ifndef MOEC_DERIVE_IMPL_H
#define MOEC_DERIVE_IMPL_H

#include "ir.h"

enum { MAX_RENAMES = 8 };

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
    Renames enc_names, dec_names;
    Dim B, S, P;
    int *tag; /* of the decoder's values: the axis that runs over target tokens, or -1 */
} Deriver;

/* A function being made from an old one. */
typedef struct Copy {
    const Func *old;
    Func *f;
    const Renames *names;
    ValueId *map;
    const int *tag;
    bool one; /* one token: token axes have extent 1 */
    ValueId *past, *grown;
} Copy;

Dim rename_dim(const Renames *r, DimTable *t, Dim d);
Copy copy_begin(Deriver *dv, const Func *old, const char *name, const Renames *names);

/* derive_tokens.c: fills dv->tag; false after reporting a node that lets one position depend on another. */
bool tokens_find(Deriver *dv);

#endif
