/* Shared by the files of the C printer. */
#ifndef MOEC_PRINT_C_IMPL_H
#define MOEC_PRINT_C_IMPL_H

#include "print_c.h"

typedef struct CPrinter {
    const LoopKernel *k;
    Text *out;
    SymbolNames *names;
    LineMarks *marks;
    bool *declared; /* local arrays, by buffer id */
    int depth;
    bool vectors;   /* of the compiler; else several lanes are an array */
    bool lane;      /* an expression of several lanes is printed for lane l */
} CPrinter;

/* How tightly an expression binds as it will be printed. Operands of & | ^ are always bracketed unless atoms: compilers
 * warn otherwise, and rightly. */
enum { BIND_ANY, BIND_BITS, BIND_COMPARE, BIND_SUM, BIND_PRODUCT, BIND_UNARY, BIND_ATOM };

/* Buffers are NAME_3, variables name3: they never meet. */
void c_buf_name(CPrinter *p, const LBuf *b);
void c_var_name(CPrinter *p, uint32_t v);
void c_vector_type(CPrinter *p, const LExpr *e);
void c_print_int(Text *out, int64_t v);
void c_print_float(Text *out, DType t, double v);
void c_print_expr(CPrinter *p, const LExpr *e);
/* e as an operand that must bind at least as tightly as `least`. */
void c_print_operand(CPrinter *p, const LExpr *e, int least);
/* The element at an index, or as many from there on as e has lanes. */
void c_print_element(CPrinter *p, const LBuf *b, const LExpr *index, const LExpr *e);

#endif
