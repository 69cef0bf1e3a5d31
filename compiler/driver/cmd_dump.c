/* moec dump: the text IR after the passes. moec opt: text in, chosen passes, text out. */
#include "build.h"

#include <string.h>

enum { MAX_LIST = 64 };

/* Graphviz: one box a node, in a cluster a function. Labels go through text_quoted, whose escapes dot shows as is. */
static void print_dot(const Module *m, Text *out)
{
    text_printf(out, "digraph moec {\n  node [shape=box, fontname=monospace];\n");
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f)
            continue;
        text_printf(out, "  subgraph cluster_%u {\n    label=", i);
        text_quoted(out, f->name);
        text_printf(out, ";\n");
        for (uint32_t k = 0; k < f->n_inputs; k++) {
            text_printf(out, "    v%u_%u [shape=ellipse, label=", i, f->input[k]);
            text_quoted(out, f->value[f->input[k]].name);
            text_printf(out, "];\n");
        }
        for (uint32_t k = 0; k < f->n_nodes; k++) {
            const Node *n = &f->node[k];
            const Attr *site = node_attr(n, AT_site), *callee = node_attr(n, AT_func);
            text_printf(out, "    n%u_%u [label=\"%s", i, k, op_info(n->op)->name);
            text_printf(out, "\"");
            if (site || callee) {
                text_printf(out, ", xlabel=");
                text_quoted(out, site ? site->s : m->func[callee->i]->name);
            }
            text_printf(out, "];\n");
        }
        for (uint32_t k = 0; k < f->n_nodes; k++)
            for (uint32_t j = 0; j < f->node[k].n_in; j++) {
                ValueId v = f->node[k].in[j];
                if (v == NONE || f->value[v].kind == VK_PARAM)
                    continue;
                text_printf(out, "    %c%u_%u -> n%u_%u;\n", f->value[v].kind == VK_INPUT ? 'v' : 'n', i,
                            f->value[v].kind == VK_INPUT ? v : f->value[v].def, i, k);
            }
        text_printf(out, "  }\n");
    }
    text_printf(out, "}\n");
}

static bool write_module(const Options *o, const Module *m, Diag *d)
{
    Text text = {0};
    if (o->dot)
        print_dot(m, &text);
    else
        module_print(m, &text);
    bool ok = text_write(o->output, &text, d);
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
