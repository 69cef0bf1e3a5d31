/* Site patterns: `*` is any run of bytes, dots included; `{a,b}` is one of the alternatives. */
#ifndef MOEC_PATTERN_H
#define MOEC_PATTERN_H

#include "base.h"

typedef struct Pattern Pattern;

/* NULL with a short reason in *why: too long, empty, a brace without its partner. */
Pattern *pattern_new(Arena *a, Str text, const char **why);
/* Whether the whole of s matches. Time is at most proportional to both lengths' product. */
bool pattern_match(Pattern *p, Str s);

#endif
