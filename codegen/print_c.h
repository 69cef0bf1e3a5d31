/* The C printer: loop IR and literals as C99 text. */
#ifndef MOEC_PRINT_C_H
#define MOEC_PRINT_C_H

#include "loop.h"

typedef struct SymbolNames {
    const DimTable *dims;
    const uint32_t *slot; /* position of each symbol in moec_frame.sym; UINT32_MAX: the program does not use it */
    char text[4][16];
    unsigned turn;
} SymbolNames;

/* From these bytes of the text on it belongs to this line of the IR file; 0: to none. */
typedef struct LineMark {
    size_t at;
    uint32_t line;
} LineMark;
typedef Vec(LineMark) LineMarks;
void c_mark(LineMarks *marks, const Text *out, uint32_t line);

const char *c_type(DType t);
/* How generated code spells symbol i: a single capital letter, else d<i>. ctx is a SymbolNames. */
const char *c_symbol(void *ctx, uint32_t i);
/* Bytes inside a comment, or as a string literal with its quotes: nothing in them can end either. */
void c_comment(Text *out, Str s);
void c_string(Text *out, Str s);
/* The kernel as a function, and static ones that it uses; scratch_stride: bytes of scratch between workers. prefix: the
 * function is global and called PREFIX_NAME; NULL: static and called NAME. */
void c_print_kernel(const LoopKernel *k, SymbolNames *names, int64_t scratch_stride, const char *prefix, LineMarks *marks, Text *out);
/* Routines, in versions that the C preprocessor chooses from; without vectors in plain C alone. */
void c_print_routines(LRoutine *const *r, uint32_t n, bool vectors, Text *out);
/* Its declaration where it is global. */
void c_print_prototype(const LoopKernel *k, const char *prefix, Text *out);
/* Appends the text with #line in front of every line that belongs to one of ir_file, and where the others, those of c_file,
 * go on; out holds c_file from its first line. */
void c_print_lines(const Text *text, const LineMarks *marks, const char *ir_file, const char *c_file, Text *out);

#endif
