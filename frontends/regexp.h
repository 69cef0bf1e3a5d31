/* Regular expressions as PEFT configs hold them: the part of Python's `re` that module names need. */
#ifndef MOEC_REGEXP_H
#define MOEC_REGEXP_H

#include "../compiler/base.h"

typedef struct Regexp Regexp;

/* Understood: literals, `.`, escaped punctuation, \d and \w, classes, groups, `|`, `*`, `+`, `?`, `^`, `$`;
 * of ASCII. NULL with a short reason in *why for everything else. */
Regexp *regexp_new(Arena *a, Str text, const char **why);
/* Whether the whole of s matches; with `tail` it is enough that what follows one of its dots does. Linear in
 * both lengths' product; the work is taken off *steps, and where that falls below 0 the answer is false. */
bool regexp_match(const Regexp *r, Str s, bool tail, int64_t *steps);

#endif
