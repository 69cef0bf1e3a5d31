/* The graph of a module. Node names of the graph are made of numbers: n<function>_<node>, i and o with the
 * position for inputs and outputs, p<function>_<node>_<operand> for parameters. */
#include "dot.h"
#include "namemap.h"
#include "print.h"
#include "repeat.h"

#include <string.h>

enum { LABEL_MOST = 60, MANY = 8 };

typedef struct Graph {
    const Module *m;
    const Func *f;
    bool fold;
    Repeats repeats;
    Arena *a; /* of one function */
    NameMap edges;
    uint32_t *input, *output;   /* by position: the first of those it stands with */
    uint32_t *inputs, *outputs; /* by position: how many stand there */
    Text *out;
} Graph;

/* ---- labels ---------------------------------------------------------------------------------- */

/* Inside a quoted label, where backslashes and entities have a meaning; the end of long names says most. */
static void add_label(Text *out, Str s) {
    if (s.n > LABEL_MOST) {
        s.p += s.n - LABEL_MOST;
        s.n = LABEL_MOST;
        text_printf(out, "...");
    }
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            text_printf(out, "\\%c", c);
        else if (c == '&')
            text_printf(out, "&amp;");
        else if (c < 32 || c > 126)
            text_printf(out, "\\\\%03o", c);
        else
            text_add(out, (const char *)&c, 1);
    }
}

static void add_type(const Module *m, const Type *t, Text *out) {
    Text text = {0};
    type_print(m, t, &text);
    add_label(out, (Str){text.p, text.n});
    text_free(&text);
}

static void add_times(Text *out, uint32_t n) {
    if (n > 1)
        text_printf(out, "\\nx%u", n);
}

/* ---- what stands for what -------------------------------------------------------------------- */

static bool in_repeat(const Graph *g, NodeId n) {
    return g->repeats.run[n] != NONE;
}

/* What outputs that are shown as one have in common: the result of a node in a repeat, or the type of results
 * of a node with very many; empty for one that stands alone. */
static Str output_key(const Graph *g, const Value *v) {
    if (v->kind != VK_NODE)
        return (Str){NULL, 0};
    if (in_repeat(g, v->def))
        return str_c(arena_printf(g->a, "o%u.%u", g->repeats.like[v->def], v->index));
    if (!g->fold || g->f->node[v->def].n_out <= MANY)
        return (Str){NULL, 0};
    Text type = {0};
    type_print(g->m, &v->type, &type);
    Str key = str_c(arena_printf(g->a, "m%u %s", v->def, type.p));
    text_free(&type);
    return key;
}

/* Inputs with the same uses by nodes of repeats are one, too. */
static void fold_ends(Graph *g) {
    const Func *f = g->f;
    Text *uses = mem_alloc((f->n_values + 1) * sizeof *uses);
    bool *alone = arena_array(g->a, f->n_values + 1, sizeof *alone);
    NameMap seen = {0};
    for (NodeId i = 0; i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_in; k++) {
            ValueId v = f->node[i].in[k];
            if (v == NONE || f->value[v].kind != VK_INPUT)
                continue;
            alone[v] |= !in_repeat(g, i);
            text_printf(&uses[v], "%u.%u ", g->repeats.like[i], k);
        }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        alone[f->output[i]] |= f->value[f->output[i]].kind == VK_INPUT;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        ValueId v = f->input[i];
        Str key = {uses[v].p, uses[v].n};
        g->input[i] = i;
        if (!alone[v] && key.n && !namemap_add(&seen, key, i))
            namemap_find(&seen, key, &g->input[i]);
        g->inputs[g->input[i]]++;
    }
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        Str key = output_key(g, &f->value[f->output[i]]);
        g->output[i] = i;
        if (key.n && !namemap_add(&seen, key, i))
            namemap_find(&seen, key, &g->output[i]);
        g->outputs[g->output[i]]++;
    }
    for (ValueId v = 0; v < f->n_values; v++)
        text_free(&uses[v]);
    mem_free(uses);
    namemap_free(&seen);
}

/* ---- nodes ----------------------------------------------------------------------------------- */

static void node_box(const Graph *g, NodeId i) {
    const Node *n = &g->f->node[i];
    const Attr *site = node_attr(n, AT_site);
    text_printf(g->out, "      n%u_%u [label=\"%s", g->f->id, i, op_info(n->op)->name);
    for (uint32_t k = 0; k < n->n_attrs; k++)
        if (attr_kind(n->attrs[k].key) == AK_FUNC) {
            text_printf(g->out, " @");
            add_label(g->out, g->m->func[n->attrs[k].i]->name);
        }
    if (site) {
        text_printf(g->out, "\\n");
        add_label(g->out, site->s);
    }
    text_printf(g->out, "\"];\n");
}

/* In how many groups node i has a parameter of its own as operand k. */
static uint32_t own_params(const Graph *g, NodeId i, uint32_t k) {
    uint32_t n = 1;
    for (NodeId j = i + 1; j < g->f->n_nodes && in_repeat(g, i); j++)
        if (g->repeats.like[j] == i && g->f->node[j].in[k] != g->f->node[i].in[k])
            n++;
    return n;
}

static void param_box(const Graph *g, NodeId i, uint32_t k) {
    const Node *n = &g->f->node[i];
    const Value *v = &g->f->value[n->in[k]];
    text_printf(
        g->out,
        "      p%u_%u_%u [shape=box, style=filled, fillcolor=lightgrey, fontsize=9, height=0.2, label=\"@",
        g->f->id, i, k);
    add_label(g->out, g->m->param[v->def].name);
    add_times(g->out, own_params(g, i, k));
    text_printf(g->out, "\"];\n      p%u_%u_%u -> n%u_%u [label=\"", g->f->id, i, k, g->f->id, i);
    add_type(g->m, &v->type, g->out);
    text_printf(g->out, "\"];\n");
}

/* Parameters belong to the node that reads them: one box each, or one for all of very many. */
static void param_boxes(const Graph *g, NodeId i) {
    const Node *n = &g->f->node[i];
    uint32_t count = 0, first = 0, last = 0;
    for (uint32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] == NONE || g->f->value[n->in[k]].kind != VK_PARAM)
            continue;
        first = count++ ? first : k;
        last = k;
    }
    for (uint32_t k = 0; k < n->n_in && count <= MANY; k++)
        if (n->in[k] != NONE && g->f->value[n->in[k]].kind == VK_PARAM)
            param_box(g, i, k);
    if (count <= MANY)
        return;
    text_printf(g->out,
                "      p%u_%u_0 [shape=box, style=filled, fillcolor=lightgrey, fontsize=9, height=0.2, "
                "label=\"%u parameters\\n@",
                g->f->id, i, count);
    add_label(g->out, g->m->param[g->f->value[n->in[first]].def].name);
    text_printf(g->out, " ...\\n@");
    add_label(g->out, g->m->param[g->f->value[n->in[last]].def].name);
    text_printf(g->out, "\"];\n      p%u_%u_0 -> n%u_%u;\n", g->f->id, i, g->f->id, i);
}

/* ---- edges ----------------------------------------------------------------------------------- */

/* From what makes v to `to`; once for each `way`, however many groups have it. */
static void edge(Graph *g, ValueId v, const char *to, uint32_t way, bool onward) {
    const Func *f = g->f;
    const Value *x = &f->value[v];
    const char *from = x->kind == VK_INPUT ? arena_printf(g->a, "i%u_%u", f->id, g->input[x->def])
                                           : arena_printf(g->a, "n%u_%u", f->id, g->repeats.like[x->def]);
    Str key = str_c(arena_printf(g->a, "%s %s %u %d", from, to, way, onward));
    if (!namemap_add(&g->edges, key, 0))
        return;
    text_printf(g->out, "    %s -> %s [label=\"", from, to);
    add_type(g->m, &x->type, g->out);
    text_printf(g->out, "\"%s];\n", onward ? ", style=dashed, constraint=false" : "");
}

static void node_edges(Graph *g, NodeId i) {
    const Node *n = &g->f->node[i];
    const char *to = arena_printf(g->a, "n%u_%u", g->f->id, g->repeats.like[i]);
    for (uint32_t k = 0; k < n->n_in; k++) {
        const Value *v = n->in[k] == NONE ? NULL : &g->f->value[n->in[k]];
        if (!v || v->kind == VK_PARAM)
            continue;
        bool onward = v->kind == VK_NODE && in_repeat(g, i) && g->repeats.run[i] == g->repeats.run[v->def] &&
                      g->repeats.turn[i] != g->repeats.turn[v->def];
        /* groups may read results of their own of a node; a node may read that of every group */
        edge(g, n->in[k], to, in_repeat(g, i) ? k : v->index, onward);
    }
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void input_ellipses(const Graph *g) {
    for (uint32_t i = 0; i < g->f->n_inputs; i++) {
        if (g->input[i] != i)
            continue;
        text_printf(g->out, "    i%u_%u [shape=ellipse, label=\"", g->f->id, i);
        add_label(g->out, g->f->value[g->f->input[i]].name);
        add_times(g->out, g->inputs[i]);
        text_printf(g->out, "\"];\n");
    }
}

static void output_ellipses(Graph *g) {
    for (uint32_t i = 0; i < g->f->n_outputs; i++) {
        const Value *v = &g->f->value[g->f->output[i]];
        const char *name = arena_printf(g->a, "o%u_%u", g->f->id, i);
        if (g->output[i] != i)
            continue;
        text_printf(g->out, "    %s [shape=ellipse, style=bold, label=\"", name);
        add_label(g->out, g->f->output_name[i]);
        add_times(g->out, g->outputs[i]);
        if (v->kind == VK_PARAM) {
            text_printf(g->out, " = @");
            add_label(g->out, g->m->param[v->def].name);
        }
        text_printf(g->out, "\"];\n");
        if (v->kind != VK_PARAM)
            edge(g, g->f->output[i], name, 0, false);
    }
}

/* ---- functions ------------------------------------------------------------------------------- */

static void func_nodes(const Graph *g) {
    for (uint32_t r = 0; r <= g->repeats.n; r++) {
        uint32_t run = r < g->repeats.n ? r : NONE;
        if (run != NONE)
            text_printf(g->out, "    subgraph cluster_%u_%u {\n      style=dashed; label=\"x%u\";\n",
                        g->f->id, run, g->repeats.item[run].times);
        for (NodeId i = 0; i < g->f->n_nodes; i++)
            if (g->repeats.run[i] == run && g->repeats.turn[i] == 0) {
                node_box(g, i);
                param_boxes(g, i);
            }
        if (run != NONE)
            text_printf(g->out, "    }\n");
    }
}

static void func_cluster(const Module *m, const Func *f, const uint32_t *likeness, bool fold, uint32_t times,
                         Text *out) {
    static const char *const role[] = {"entry", "body", "kernel", "init"};
    Graph g = {.m = m, .f = f, .fold = fold, .a = arena_new(), .out = out};
    g.input = arena_array(g.a, f->n_inputs + 1u, sizeof *g.input);
    g.inputs = arena_array(g.a, f->n_inputs + 1u, sizeof *g.inputs);
    g.output = arena_array(g.a, f->n_outputs + 1u, sizeof *g.output);
    g.outputs = arena_array(g.a, f->n_outputs + 1u, sizeof *g.outputs);
    if (fold)
        repeats_find(m, f, likeness, g.a, &g.repeats);
    else
        repeats_none(f, g.a, &g.repeats);
    fold_ends(&g);
    text_printf(out, "  subgraph cluster_%u {\n    label=\"@", f->id);
    add_label(out, f->name);
    text_printf(out, " %s", role[f->role]);
    if (times > 1)
        text_printf(out, " and %u like it", times - 1);
    text_printf(out, "\";\n");
    input_ellipses(&g);
    func_nodes(&g);
    for (NodeId i = 0; i < f->n_nodes; i++)
        node_edges(&g, i);
    output_ellipses(&g);
    text_printf(out, "  }\n");
    namemap_free(&g.edges);
    arena_free(g.a);
}

/* Whether f stands for itself, and for how many; entries always do. */
static bool stands(const Module *m, const Func *f, const uint32_t *likeness, uint32_t *times) {
    *times = 1;
    for (FuncId i = 0; f->role != FR_ENTRY && i < m->n_funcs; i++) {
        if (i == f->id || !m->func[i] || likeness[i] != likeness[f->id])
            continue;
        if (i < f->id)
            return false;
        ++*times;
    }
    return true;
}

void module_dot(const Module *m, bool fold, const char *func, Text *out) {
    Arena *a = arena_new();
    const uint32_t *likeness = func_likeness(m, a);
    text_printf(out, "digraph moec {\n  node [shape=box, fontname=monospace];\n  edge [fontname=monospace, "
                     "fontsize=8];\n");
    for (FuncId i = 0; i < m->n_funcs; i++) {
        uint32_t times = 1;
        if (!m->func[i] || (func && !str_is(m->func[i]->name, func)))
            continue;
        if (func || !fold || stands(m, m->func[i], likeness, &times))
            func_cluster(m, m->func[i], likeness, fold, times, out);
    }
    text_printf(out, "}\n");
    arena_free(a);
}
