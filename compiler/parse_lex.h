/* Cursor and tokens of the text IR: what parse.c is written in. Every function either advances past what it
 * wanted or reports where it stood (file:line:col) and returns false. */
#ifndef MOEC_PARSE_LEX_H
#define MOEC_PARSE_LEX_H

#include "ir.h"

typedef struct Lex {
    const char *file;
    const char *p, *end;    /* what is left */
    const char *line_start; /* of the line p is in */
    unsigned line;
    Module *m;
    Diag *d;
    unsigned errors;
    size_t splat_budget; /* bytes `splat` may still make: text this short must not ask for more */
} Lex;

bool lex_fail(Lex *x, DiagCode code, const char *fmt, ...) MOEC_PRINTF(3, 4);

void lex_space(Lex *x);      /* blanks, not newlines */
bool lex_at_end(Lex *x);     /* nothing but a comment (`#`) until the newline */
bool lex_end_line(Lex *x);   /* requires lex_at_end and goes to the next line */
void lex_skip_line(Lex *x);
bool lex_next_line(Lex *x);  /* to the first character of the next line with content; false at the end of text */

bool lex_peek(Lex *x, char c);   /* after blanks */
bool lex_take(Lex *x, char c);   /* if it is there */
bool lex_want(Lex *x, char c);   /* reports when it is not */
bool lex_word(Lex *x, Str *out); /* [A-Za-z_][A-Za-z0-9_]* */
bool lex_keyword(Lex *x, const char *word); /* if it is there */

bool lex_quoted(Lex *x, Str *out);
/* A name after a sigil: quoted or [A-Za-z0-9_.]+. *bare_digits: written as digits without quotes. */
bool lex_name(Lex *x, char sigil, Str *out, bool *bare_digits);
bool lex_symbol(Lex *x, Str *out); /* quoted or [A-Za-z_][A-Za-z0-9_.]* */
bool lex_int(Lex *x, int64_t *out);
bool lex_f64(Lex *x, double *out);
bool lex_dim(Lex *x, Dim *out);
bool lex_dtype(Lex *x, DType *out);
bool lex_type(Lex *x, Type *out);
/* `f32[2,3]` with constant extents, checked against the limits of tensors. */
bool lex_extents(Lex *x, Tensor *out);
/* `[1, 2]` or `splat 1`: the data of a tensor whose extents are known. */
bool lex_elements(Lex *x, Tensor *t);

#endif
