/* Variants of a program: the same model compiled for several CPUs of one machine, of which one binary holds all and runs
 * the best that there is (--dispatch). The runtime's dispatch.c has the same names and asks the CPU. */
#ifndef MOEC_VARIANT_H
#define MOEC_VARIANT_H

#include "program.h"

typedef struct CodeVariant {
    const char *name;     /* [a-z0-9_]: a part of symbols */
    const char *march;    /* for both backends, NULL: that of the options, what every CPU that the binary is for has */
    const char *flags;    /* besides it for a C compiler, NULL: none */
    const char *features; /* for LLVM */
} CodeVariant;

enum { MOST_VARIANTS = 8 };

/* How far a CPU's name goes on the way from "generic" (1) over x86-64-v2 and v3 to v4 (4): the levels of which variants
 * can be told apart. 0: it is none of these. */
int variant_level(const char *march);
/* Whether routines of it use DOT_ operations, for which machines have instructions. */
bool program_uses_dots(const Program *p);
/* The variants of a program over a base of a level, the best first and the base last; how many. */
uint32_t variants_of(const Program *p, int level, const CodeVariant **out);

/* PREFIX_program as C: it gives the program of one of these. */
void print_variants(const char *prefix, const CodeVariant *const *v, uint32_t n, Text *c);

#endif
