/* Pieces of a dump, for those who show parts of one. None adds the newline that ends its line, but
 * facts_print, which adds whole lines. */
#ifndef MOEC_PRINT_H
#define MOEC_PRINT_H

#include "ir.h"

/* What a dump calls f's values, sigil and quotes included, by ValueId, in `a`; p == NULL for parameters,
 * which are called by their own names whatever stands here. */
Str *value_names(const Func *f, Arena *a);

/* `func @f entry (%x : f32[B]) {`, a node without indentation, `return %y "y"`: values under the given names.
 */
void func_head_print(const Module *m, const Func *f, const Str *names, Text *out);
void node_print_as(const Module *m, const Func *f, const Str *names, const Node *n, Text *out);
void return_print(const Module *m, const Func *f, const Str *names, Text *out);

/* `@name`, with quotes where the name needs them. */
void name_print(char sigil, Str name, Text *out);
void type_print(const Module *m, const Type *t, Text *out);
void param_print(const Module *m, const Param *p, Text *out);
void symbol_print(const DimSym *s, Text *out);
/* The lines `seq2seq` and `spec`, where there are any. */
void facts_print(const Module *m, Text *out);

#endif
