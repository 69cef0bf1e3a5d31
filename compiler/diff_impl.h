/* What the files of the diff share. */
#ifndef MOEC_DIFF_IMPL_H
#define MOEC_DIFF_IMPL_H

#include "diff.h"
#include "namemap.h"
#include "print.h"

/* One of the two modules. */
typedef struct Side {
    const Module *m;
    uint32_t *class; /* by FuncId: functions of one class are the same to their callers */
    FuncId *pair;    /* by FuncId: its counterpart, or NONE */
    bool *same;      /* by FuncId: equal to its counterpart but for names */
} Side;

typedef struct Differ {
    Side a, b;
    const DiffOptions *o;
    Arena *arena;
    NameMap classes; /* texts to numbers; keys in the arena */
    Text *out;
    bool differs;
} Differ;

/* The number of a text: equal numbers, equal texts. */
uint32_t diff_class(Differ *x, const Text *t);
/* A node without its origin: values are called as `names` says, functions by their class. */
void diff_node_key(const Side *s, const Func *f, const Str *names, const Node *n, Text *out);

/* Lines to be shown: what stands in a, in b, or in both. */
typedef struct DiffRow {
    char kind; /* '-', '+', ' ' */
    Str text;
} DiffRow;
typedef Vec(DiffRow) DiffRows;

/* Shows changed rows with three around them, under a heading; counts them. Nothing without a change. */
void diff_show(Differ *x, const char *heading, const DiffRows *rows);

/* f and g are counterparts that differ, or one of them is NULL (diff_func.c). */
void diff_funcs(Differ *x, const Func *f, const Func *g);

#endif
