/* --opt-report and --memory-report: where they go and in which form. */
#include "memory.h"

#include <string.h>

static bool ends_in(const char *path, const char *suffix) {
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && strcmp(path + n - k, suffix) == 0;
}

static bool is_stdout(const char *path) {
    return path && strcmp(path, "-") == 0;
}

bool reports_check(const Options *o, bool printed, int *exit_code) {
    int times = printed + is_stdout(o->opt_report) + is_stdout(o->memory_report);
    *exit_code = EXIT_USAGE;
    if (o->opt_report_format != REPORT_AUTO && !o->opt_report)
        usage_error(o, DIAG_USAGE_TOGETHER, "--opt-report-format needs --opt-report FILE");
    else if (times > 1 && (is_stdout(o->opt_report) || is_stdout(o->memory_report)))
        usage_error(o, DIAG_USAGE_TOGETHER, "standard output takes one thing at a time: give the others files");
    else
        return true;
    return false;
}

/* Nothing but calls with places is left. */
static bool is_planned(const Module *m) {
    uint32_t entries = 0;
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY)
            continue;
        entries++;
        for (uint32_t k = 0; k < f->n_nodes; k++)
            if (f->node[k].op != OP_call || !node_attr(&f->node[k], AT_place))
                return false;
    }
    return entries > 0;
}

static bool write_remarks(const Options *o, const Model *model, Diag *d) {
    Text t = {0};
    bool json =
        o->opt_report_format != REPORT_AUTO ? o->opt_report_format == REPORT_JSON : ends_in(o->opt_report, ".json");
    (json ? remarks_json : remarks_text)(model->remarks, &t);
    bool ok = text_write(o->opt_report, &t, d);
    text_free(&t);
    return ok;
}

static bool write_memory(const Options *o, const Build *b, Diag *d) {
    Memory x;
    Text t = {0};
    if (!memory_read(b, &x, d))
        return false;
    (ends_in(o->memory_report, ".html") ? memory_html : memory_text)(&x, &t);
    bool ok = text_write(o->memory_report, &t, d);
    text_free(&t);
    return ok;
}

bool reports_write(const Options *o, Model *model, Build *b, Diag *d) {
    Build trial = {0};
    bool ok = true, planned = is_planned(model->m);
    if (!o->opt_report && !o->memory_report)
        return true;
    if (!b && planned && o->command != COMMAND_run) {
        b = &trial;
        ok = build_open(b, o, model, "model", d) && build_program(b);
    }
    if (ok && o->memory_report && (!b || !planned))
        ok = diag_error(d, DIAG_USAGE_TOGETHER, NULL, "--memory-report needs every pass up to `plan` to be run");
    ok = ok && (!o->memory_report || write_memory(o, b, d)) && (!o->opt_report || write_remarks(o, model, d));
    if (b == &trial)
        build_close(b);
    return ok;
}
