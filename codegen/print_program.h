/* The pieces of a program's C text, between print_program.c and sources.c. */
#ifndef MOEC_PRINT_PROGRAM_H
#define MOEC_PRINT_PROGRAM_H

#include "print_c.h"
#include "program.h"

typedef struct ProgramText {
    const Program *p;
    SymbolNames names;
    bool shared; /* among several files: what they share is global and named PREFIX_...; else all is static */
} ProgramText;

/* The comment at the head of the model; then what kernels and functions are written with. */
void print_banner(ProgramText *w, Text *c);
void print_includes(const ProgramText *w, Text *c);

/* A function whole; or calls `from` to `to` of it as the global function PREFIX_SYMBOL_part, ended before `to` when its text
 * has passed `most` bytes: returns the first call that is left. And the function that calls its parts 1 to `parts`. */
void print_calls(const ProgramText *w, const CallList *l, LineMarks *marks, Text *c);
uint32_t print_calls_part(const ProgramText *w, const CallList *l, uint32_t part, uint32_t from, uint32_t to, size_t most,
                          LineMarks *marks, Text *c);
void print_calls_parts(const ProgramText *w, const CallList *l, uint32_t parts, LineMarks *marks, Text *c);

/* Tables that refer to no other are shared among files. */
bool table_is_shared(const ProgramText *w, const Table *t);
void print_table(const ProgramText *w, const Table *t, Text *c);
void print_table_declaration(const ProgramText *w, const Table *t, Text *c);
/* Size rules, the tables that are not shared, and the function PREFIX_program. */
void print_tables(ProgramText *w, Text *c);

#endif
