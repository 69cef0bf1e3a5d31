/* moec dump: the text IR after the passes. moec opt: text in, chosen passes, text out. */
#include "build.h"
#include "svg.h"
#include "../dot.h"

#include <string.h>

enum { MAX_LIST = 64 };

static bool write_module(const Options *o, const Module *m, Diag *d)
{
    Text text = {0};
    if (o->func && !(o->dot || o->svg))
        return diag_error(d, DIAG_USAGE_TOGETHER, NULL, "--func draws one function: it goes with --dot and --svg");
    if (o->func && !module_find(m, o->func))
        return diag_error(d, DIAG_RUN_FUNCTION, o->model, "there is no function '%s'", diag_show(d, str_c(o->func)));
    if (o->dot || o->svg)
        module_dot(m, !o->no_fold, o->func, &text);
    else
        module_print(m, &text);
    bool ok = (!o->svg || svg_render(&text, o->verbose, d)) && text_write(o->output, &text, d);
    text_free(&text);
    return ok;
}

int cmd_dump(const Options *o)
{
    int exit_code;
    if (!reports_check(o, !o->output || !strcmp(o->output, "-"), &exit_code))
        return exit_code;
    Diag *d = diag_new();
    Model model;
    bool ok = model_load(o, &model, d) && model_passes(&model, o, NULL, NULL, 0, d) &&
              write_module(o, model.m, d) && reports_write(o, &model, NULL, d);
    model_close(&model);
    return diag_finish(d, ok);
}

int cmd_opt(const Options *o)
{
    int exit_code;
    if (!reports_check(o, !o->output || !strcmp(o->output, "-"), &exit_code))
        return exit_code;
    Diag *d = diag_new();
    Model model = {0};
    PassId list[MAX_LIST];
    uint32_t n = 0;
    bool ok = pass_list_parse(o->passes ? o->passes : "", list, MAX_LIST, &n, d) &&
              model_load(o, &model, d) && model_passes(&model, o, NULL, list, n, d) &&
              write_module(o, model.m, d) && reports_write(o, &model, NULL, d);
    model_close(&model);
    return diag_finish(d, ok);
}
