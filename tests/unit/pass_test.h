/* Helps tests of passes: IR text in, passes with every check on, one function's text out. */
#ifndef MOEC_PASS_TEST_H
#define MOEC_PASS_TEST_H

#include "compiler/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a run gave: the text of the module after the passes, or what was reported. To be freed. */
static char *pass_run(const char *passes, const char *text, const PassOptions *options, bool *ok) {
    PassOptions none = {0};
    PassId list[PASS_COUNT];
    PassRun run = {.options = options ? options : &none, .list = list, .paranoid = true};
    run.bound = strncmp(passes, "bind", 4) != 0;
    Diag *d = diag_new();
    Module *m = module_parse(d, "test.ir", text, strlen(text));
    Text out = {0};
    *ok = m != NULL;
    while (*ok && *passes) {
        size_t n = strcspn(passes, " ");
        *ok = run.n_list < PASS_COUNT && pass_find((Str){passes, n}, &list[run.n_list++]);
        passes += n + (passes[n] == ' ');
    }
    *ok = *ok && passes_run(m, &run, d);
    if (*ok)
        module_print(m, &out);
    else
        diag_flush(d);
    char *copy = calloc(1, out.n + 1);
    if (out.n)
        memcpy(copy, out.p, out.n);
    text_free(&out);
    module_free(m);
    diag_free(d);
    return copy;
}

#endif
