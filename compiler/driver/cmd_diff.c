/* moec diff: what two modules differ in. Exit codes are diff's: 0 nothing, 1 something, 2 trouble. */
#include "driver.h"
#include "../diff.h"

enum { DIFF_NONE = 0, DIFF_SOME = 1, DIFF_TROUBLE = 2 };

static bool has_func(const Module *a, const Module *b, const Options *o, Diag *d) {
    return !o->func || module_find(a, o->func) || module_find(b, o->func) ||
           diag_error(d, DIAG_RUN_FUNCTION, NULL, "neither module has a function '%s'", diag_show(d, str_c(o->func)));
}

int cmd_diff(const Options *o) {
    if (o->argument.count != 2)
        return usage_error(o, DIAG_USAGE_ARGUMENT, "two models to compare were expected");
    Diag *d = diag_new();
    Model a = {0}, b = {0};
    Options second = *o;
    Text listing = {0};
    second.model = o->argument.item[1];
    bool ok = model_load(o, &a, d) && model_load(&second, &b, d) && has_func(a.m, b.m, o, d), same = true;
    if (ok) {
        DiffOptions options = {.func = o->func, .stat = o->stat};
        Text lines = {0};
        same = module_diff(a.m, b.m, &options, &lines);
        if (!same && !o->stat)
            text_printf(&listing, "--- %s\n+++ %s\n", diag_show(d, str_c(o->argument.item[0])),
                        diag_show(d, str_c(o->argument.item[1])));
        text_add(&listing, lines.n ? lines.p : "", lines.n);
        ok = text_write(NULL, &listing, d);
        text_free(&lines);
    }
    text_free(&listing);
    int code = diag_finish(d, ok);
    model_close(&a);
    model_close(&b);
    return code != EXIT_DONE ? DIFF_TROUBLE : same ? DIFF_NONE : DIFF_SOME;
}
