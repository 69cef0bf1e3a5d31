/* A failing graph made small: edits are tried one after another and kept while the graph goes on failing. What is left is
 * written as text IR with the inputs it failed on. */
#include "graphs.h"

#include "compiler/outfile.h"
#include "frontends/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum EditKind {
    EDIT_SYMBOL, /* symbol `at` has the value `to` */
    EDIT_OUTPUT, /* only output `at` */
    EDIT_CUT,    /* node `at` is gone, its results are inputs */
    EDIT_BYPASS, /* node `at` is its operand `to`, of the same type */
    EDIT_PRUNE   /* inputs that nothing reads are gone */
} EditKind;

typedef struct Edit {
    EditKind kind;
    uint32_t at;
    int64_t to;
} Edit;

enum { EDITS_MAX = 200, SYMBOLS_MAX = 8 };

typedef struct Shrink {
    const Settings *s;
    uint32_t index;
    int binding;
    Edit edit[EDITS_MAX];
    uint32_t n;
    int64_t syms[SYMBOLS_MAX];
    bool bound;   /* syms are set */
    bool applied; /* all edits could be made */
} Shrink;

/* ---- edits ---- */

/* The results of node n under the graph's binding. */
static bool node_values(const Graph *g, const Node *n, Tensor *out, Arena *a) {
    Module *m = g->m;
    const Func *f = module_func(m, g->id);
    Remap r = remap_begin(m, a, f);
    for (const Node *k = f->node; k <= n; k++) remap_node(&r, k);
    for (uint32_t k = 0; k < n->n_out; k++) func_output(m, r.f, r.map[n->out + k], str_c("v"));
    FuncId id = func_end(m, r.f, NONE);
    int64_t *syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *syms);
    Tensor *in = arena_array(a, f->n_inputs + 1u, sizeof *in);
    Diag *quiet = diag_new();
    symbols_bind(g, m, g->binding, syms);
    bool ok = inputs_fill(g, m, f, g->binding, syms, in, a) && func_eval(m, id, syms, in, out, m->arena, quiet);
    diag_free(quiet);
    m->func[id] = NULL;
    return ok;
}

static bool cut(Graph *g, Remap *r, const Node *n, uint32_t number, Arena *a) {
    Tensor *value = arena_array(a, n->n_out + 1u, sizeof *value);
    Exact *of = exact_func(g, g->m, r->old, a);
    if (!node_values(g, n, value, a)) return false;
    for (uint32_t k = 0; k < n->n_out; k++) {
        InputSource s = {.name = str_c(arena_printf(g->m->arena, "c%u_%u", number, k)), .fill = FILL_TENSOR, .range = DIM_BAD, .value = value[k],
                    .known = of[n->out + k]};
        remap_set(r, n->out + k, func_input(g->m, r->f, s.name, r->old->value[n->out + k].type));
        vec_push(&g->source, s);
    }
    return true;
}

static bool bypass(Remap *r, const Node *n, int64_t operand) {
    if (n->n_out != 1 || operand >= (int64_t)n->n_in || n->in[operand] == NONE) return false;
    if (!type_eq(&r->old->value[n->out].type, &r->old->value[n->in[operand]].type)) return false;
    remap_set(r, n->out, remap_value(r, n->in[operand]));
    return true;
}

static bool apply(Graph *g, const Edit *e, uint32_t number) {
    Arena *a = arena_new();
    Module *m = g->m;
    const Func *f = module_func(m, g->id);
    uint32_t *uses = func_uses(a, f);
    Remap r = {.m = m, .old = f, .f = func_begin(m, f->name, f->role), .map = arena_array(a, f->n_values + 1, sizeof(ValueId))};
    memset(r.map, 0xff, (f->n_values + 1) * sizeof *r.map);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        ValueId v = f->input[i];
        if (e->kind != EDIT_PRUNE || uses[v]) r.map[v] = func_input(m, r.f, f->value[v].name, f->value[v].type);
    }
    bool ok = true, here;
    for (uint32_t i = 0; ok && i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        here = (e->kind == EDIT_CUT || e->kind == EDIT_BYPASS) && e->at == i;
        if (!here) remap_node(&r, n);
        else ok = e->kind == EDIT_CUT ? cut(g, &r, n, number, a) : bypass(&r, n, e->to);
    }
    for (uint32_t i = 0; ok && i < f->n_outputs; i++)
        if (e->kind != EDIT_OUTPUT || e->at == i) func_output(m, r.f, remap_value(&r, f->output[i]), f->output_name[i]);
    if (ok) func_end(m, r.f, f->id);
    arena_free(a);
    return ok;
}

static void make_edited(void *ctx, Graph *g, Module *m) {
    Shrink *x = ctx;
    graph_make(g, m, x->s->seed + x->index, focus_of(x->s, x->index));
    g->binding = x->binding;
    if (!x->bound) {
        int64_t *syms = arena_array(m->arena, SYMBOLS_MAX + dim_sym_count(m->dims), sizeof *syms);
        symbols_bind(g, m, x->binding, syms);
        memcpy(x->syms, syms, sizeof x->syms);
    }
    int64_t *syms = arena_array(m->arena, SYMBOLS_MAX, sizeof *syms);
    memcpy(syms, x->syms, sizeof x->syms);
    for (uint32_t i = 0; i < x->n; i++)
        if (x->edit[i].kind == EDIT_SYMBOL) syms[x->edit[i].at] = x->edit[i].to;
    g->syms = syms;
    x->applied = true;
    for (uint32_t i = 0; i < x->n && x->applied; i++) x->applied = x->edit[i].kind == EDIT_SYMBOL || apply(g, &x->edit[i], i);
}

/* ---- search ---- */

typedef struct Size {
    uint32_t nodes, outputs, symbols;
    int64_t lo[SYMBOLS_MAX];
} Size;

static Size size_of(Shrink *x) {
    Module *m = module_new();
    Graph g;
    Size s = {0};
    symbols_declare(m);
    make_edited(x, &g, m);
    s.nodes = module_func(m, g.id)->n_nodes;
    s.outputs = module_func(m, g.id)->n_outputs;
    s.symbols = (uint32_t)dim_sym_count(m->dims);
    for (uint32_t i = 0; i < s.symbols && i < SYMBOLS_MAX; i++) s.lo[i] = dim_sym_at(m->dims, i)->lo;
    graph_free(&g);
    module_free(m);
    return s;
}

static bool fails(Shrink *x, char *why, size_t room) {
    char text[400];
    size_of(x);
    bool ok = x->applied && check_one(x->s, make_edited, x, text, sizeof text) == V_FAILED;
    if (ok) snprintf(why, room, "%s", text);
    return ok;
}

static bool try_edit(Shrink *x, EditKind kind, uint32_t at, int64_t to, char *why, size_t room) {
    if (x->n == EDITS_MAX) return false;
    x->edit[x->n++] = (Edit){kind, at, to};
    if (fails(x, why, room)) return true;
    x->n--;
    return false;
}

static void search(Shrink *x, char *why, size_t room) {
    Size s = size_of(x);
    for (uint32_t i = 0; i < s.symbols && i < SYMBOLS_MAX; i++)
        for (int64_t v = s.lo[i]; v < x->syms[i] && v < s.lo[i] + 4; v++)
            if (try_edit(x, EDIT_SYMBOL, i, v, why, room)) break;
    for (uint32_t i = 0; s.outputs > 1 && i < s.outputs; i++)
        if (try_edit(x, EDIT_OUTPUT, i, 0, why, room)) break;
    for (uint32_t at = size_of(x).nodes; at-- > 0;) {
        if (at >= size_of(x).nodes) continue;
        if (try_edit(x, EDIT_CUT, at, 0, why, room)) continue;
        for (int64_t k = 0; k < 3; k++)
            if (try_edit(x, EDIT_BYPASS, at, k, why, room)) break;
    }
    try_edit(x, EDIT_PRUNE, 0, 0, why, room);
}

/* ---- files ---- */

/* The backend that fails is named first in `why`; else any. */
static const char *backend_of(const Settings *s, const char *why) {
    for (uint32_t k = 0; k < s->n_backends; k++)
        if (strncmp(why, s->backend[k], strlen(s->backend[k])) == 0) return s->backend[k];
    return s->n_backends ? s->backend[0] : "interp";
}

static bool write_files(Shrink *x, const char *why) {
    Module *m = module_new();
    Arena *a = arena_new();
    Diag *d = diag_new();
    Graph g;
    symbols_declare(m);
    make_edited(x, &g, m);
    const Func *f = module_func(m, g.id);
    int64_t *syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *syms);
    Tensor *in = arena_array(a, f->n_inputs + 1u, sizeof *in);
    symbols_bind(&g, m, g.binding, syms);
    const char *base = arena_printf(a, "%s/g%" PRIu64, x->s->out, g.seed);
    Text text = {0}, command = {0};
    text_printf(&command, "moec run %s.ir --func g%" PRIu64 " --backend=%s --matmul=native -O%d --passes=%sfold,match,grad,cse,remat,fuse,plan", base,
                g.seed, backend_of(x->s, why), x->s->build.level, g.half ? "bind," : "");
    for (uint32_t i = 0; i < dim_sym_count(m->dims) && !g.half; i++)
        text_printf(&command, " --dim %.*s=%" PRId64, (int)dim_sym_at(m->dims, i)->name.n, dim_sym_at(m->dims, i)->name.p, syms[i]);
    bool ok = inputs_fill(&g, m, f, g.binding, syms, in, a);
    for (uint32_t i = 0; ok && i < f->n_inputs; i++) {
        Str name = f->value[f->input[i]].name;
        const char *file = arena_printf(a, "%s.%.*s.npy", base, (int)name.n, name.p);
        ok = npy_write(file, &in[i], d);
        text_printf(&command, " --input %.*s=%s", (int)name.n, name.p, file);
    }
    text_printf(&text, "# %s\n# %.*s\n# and without --backend and --passes, for the interpreter\n", why, (int)command.n, command.p);
    module_print(m, &text);
    ok = ok && outfile_text(arena_printf(a, "%s.ir", base), &text, d);
    printf("    %s\n    %.*s\n", why, (int)command.n, command.p);
    diag_flush(d);
    text_free(&text);
    text_free(&command);
    graph_free(&g);
    diag_free(d);
    arena_free(a);
    module_free(m);
    return ok;
}

void shrink(const Settings *s, uint32_t index, const char *why) {
    static Shrink x;
    char text[400];
    x = (Shrink){.s = s, .index = index};
    snprintf(text, sizeof text, "%s", why);
    const char *binding = strstr(why, "binding ");
    x.binding = binding ? atoi(binding + strlen("binding ")) : 0;
    size_of(&x);
    x.bound = true;
    if (fails(&x, text, sizeof text)) search(&x, text, sizeof text);
    write_files(&x, text);
    fflush(stdout);
}
