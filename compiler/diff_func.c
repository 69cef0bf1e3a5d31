/* Two functions compared: nodes that are alike but for their operands are aligned, what stands between
 * aligned ones is paired by its results, and then a node is the same when its operands correspond. So a node
 * that is put in or changed shows as that and does not change all that depends on it; one that reads another
 * value shows, too. */
#include "diff_impl.h"
#include "lcs.h"

#include <string.h>

typedef struct Pairing {
    Differ *x;
    const Func *f, *g;
    uint32_t *of;   /* by NodeId of f: the node of g that is alike, or NONE */
    ValueId *value; /* by ValueId of f: what stands for it in g, or NONE */
    Str *f_name, *g_name;
} Pairing;

/* ---- what corresponds ------------------------------------------------------------------------ */

static uint32_t *node_classes(Differ *x, const Side *s, const Func *f) {
    uint32_t *class = arena_array(x->arena, f->n_nodes + 1, sizeof *class);
    Str *alike = arena_array(x->arena, f->n_values + 1, sizeof *alike);
    for (ValueId v = 0; v < f->n_values; v++)
        alike[v] = str_c("%");
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        Text key = {0};
        diff_node_key(s, f, alike, &f->node[i], &key);
        class[i] = diff_class(x, &key);
        text_free(&key);
    }
    return class;
}

/* Nodes by their results alone: what one in the place of another has in common with it. */
static uint32_t *result_classes(Differ *x, const Side *s, const Func *f) {
    uint32_t *class = arena_array(x->arena, f->n_nodes + 1, sizeof *class);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        Text key = {0};
        text_printf(&key, "results");
        for (uint32_t k = 0; k < f->node[i].n_out; k++)
            type_print(s->m, &f->value[f->node[i].out + k].type, &key);
        class[i] = diff_class(x, &key);
        text_free(&key);
    }
    return class;
}

static void pair_results(Pairing *p, uint32_t i, uint32_t j) {
    for (uint32_t k = 0; k < p->f->node[i].n_out && k < p->g->node[j].n_out; k++)
        p->value[p->f->node[i].out + k] = p->g->node[j].out + k;
}

/* Inputs of entries go by name, those of other functions by position. */
static void pair_inputs(Pairing *p) {
    for (uint32_t i = 0; i < p->f->n_inputs; i++)
        for (uint32_t j = 0; j < p->g->n_inputs; j++) {
            Str a = p->f->value[p->f->input[i]].name, b = p->g->value[p->g->input[j]].name;
            if (p->f->role == FR_ENTRY ? str_eq(a, b) : i == j)
                p->value[p->f->input[i]] = p->g->input[j];
        }
}

static void pair_nodes(Pairing *p) {
    Differ *x = p->x;
    uint32_t *a = node_classes(x, &x->a, p->f), *b = node_classes(x, &x->b, p->g);
    uint32_t *between = arena_array(x->arena, p->f->n_nodes + 1, sizeof *between);
    p->of = arena_array(x->arena, p->f->n_nodes + 1, sizeof *p->of);
    lcs_match(a, p->f->n_nodes, b, p->g->n_nodes, p->of);
    a = result_classes(x, &x->a, p->f);
    b = result_classes(x, &x->b, p->g);
    for (uint32_t i = 0, j = 0; i < p->f->n_nodes || j < p->g->n_nodes;) {
        uint32_t i_end = i, j_end;
        while (i_end < p->f->n_nodes && p->of[i_end] == NONE)
            i_end++;
        j_end = i_end < p->f->n_nodes ? p->of[i_end] : p->g->n_nodes;
        lcs_match(a + i, i_end - i, b + j, j_end - j, between);
        for (uint32_t k = i; k < i_end; k++)
            if (between[k - i] != NONE)
                pair_results(p, k, j + between[k - i]);
        if (i_end < p->f->n_nodes)
            pair_results(p, i_end, j_end);
        i = i_end + 1;
        j = j_end + 1;
    }
}

static bool operands_correspond(const Pairing *p, const ValueId *a, const ValueId *b, uint32_t n) {
    for (uint32_t k = 0; k < n; k++) {
        bool param =
            a[k] != NONE && p->f->value[a[k]].kind == VK_PARAM; /* parameters are part of the class */
        if (a[k] == NONE ? b[k] != NONE : !param && p->value[a[k]] != b[k])
            return false;
    }
    return true;
}

/* ---- names ----------------------------------------------------------------------------------- */

static void name_sides(Pairing *p) {
    Arena *arena = p->x->arena;
    NameMap taken = {0};
    p->f_name = value_names(p->f, arena);
    p->g_name = value_names(p->g, arena);
    for (ValueId v = 0; v < p->f->n_values; v++)
        if (p->f_name[v].p)
            namemap_add(&taken, p->f_name[v], v);
    for (ValueId v = 0; v < p->g->n_values; v++)
        if (p->g_name[v].p && namemap_find(&taken, p->g_name[v], NULL))
            p->g_name[v] = str_c(arena_printf(arena, "%.*s'", (int)p->g_name[v].n, p->g_name[v].p));
    for (ValueId v = 0; v < p->f->n_values; v++)
        if (p->value[v] != NONE)
            p->g_name[p->value[v]] = p->f_name[v];
    namemap_free(&taken);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void row_text(Differ *x, DiffRows *rows, char kind, Text *t) {
    DiffRow r = {kind, {arena_strndup(x->arena, t->p, t->n), t->n}};
    vec_push(rows, r);
    text_free(t);
}

static void row_node(Differ *x, DiffRows *rows, char kind, const Func *f, const Str *names, uint32_t i) {
    Text t = {0};
    text_printf(&t, "  ");
    node_print_as(kind == '+' ? x->b.m : x->a.m, f, names, &f->node[i], &t);
    row_text(x, rows, kind, &t);
}

static void row_head(Differ *x, DiffRows *rows, char kind, const Func *f, const Str *names) {
    Text t = {0};
    func_head_print(kind == '+' ? x->b.m : x->a.m, f, names, &t);
    row_text(x, rows, kind, &t);
}

static void row_return(Differ *x, DiffRows *rows, char kind, const Func *f, const Str *names) {
    Text t = {0};
    text_printf(&t, "  ");
    return_print(kind == '+' ? x->b.m : x->a.m, f, names, &t);
    row_text(x, rows, kind, &t);
}

/* All of a function that the other module lacks. */
static void rows_whole(Differ *x, DiffRows *rows, char kind, const Func *f) {
    const Str *names = value_names(f, x->arena);
    row_head(x, rows, kind, f, names);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        row_node(x, rows, kind, f, names, i);
    row_return(x, rows, kind, f, names);
}

static bool same_head(const Pairing *p) {
    if (p->f->n_inputs != p->g->n_inputs)
        return false;
    for (uint32_t i = 0; i < p->f->n_inputs; i++) {
        const Value *v = &p->f->value[p->f->input[i]], *w = &p->g->value[p->g->input[i]];
        Text a = {0}, b = {0};
        type_print(p->x->a.m, &v->type, &a);
        type_print(p->x->b.m, &w->type, &b);
        bool same =
            a.n == b.n && memcmp(a.p, b.p, a.n) == 0 && (p->f->role != FR_ENTRY || str_eq(v->name, w->name));
        text_free(&a);
        text_free(&b);
        if (!same)
            return false;
    }
    return true;
}

static bool same_return(const Pairing *p) {
    if (p->f->n_outputs != p->g->n_outputs)
        return false;
    for (uint32_t i = 0; i < p->f->n_outputs; i++) {
        const Value *v = &p->f->value[p->f->output[i]], *w = &p->g->value[p->g->output[i]];
        bool params = v->kind == VK_PARAM && w->kind == VK_PARAM &&
                      str_eq(p->x->a.m->param[v->def].name, p->x->b.m->param[w->def].name);
        if ((!params && p->value[p->f->output[i]] != p->g->output[i]) ||
            !str_eq(p->f->output_name[i], p->g->output_name[i]))
            return false;
    }
    return true;
}

static void rows_paired(Pairing *p, DiffRows *rows) {
    Differ *x = p->x;
    bool head = same_head(p), tail = same_return(p);
    row_head(x, rows, head ? ' ' : '-', p->f, p->f_name);
    if (!head)
        row_head(x, rows, '+', p->g, p->g_name);
    for (uint32_t i = 0, j = 0; i < p->f->n_nodes || j < p->g->n_nodes;) {
        const Node *n = i < p->f->n_nodes ? &p->f->node[i] : NULL;
        uint32_t to = n ? p->of[i] : p->g->n_nodes;
        if (!n || (to != NONE && j < to)) {
            row_node(x, rows, '+', p->g, p->g_name, j++);
        } else if (to == NONE) {
            row_node(x, rows, '-', p->f, p->f_name, i++);
        } else {
            bool same = operands_correspond(p, n->in, p->g->node[j].in, n->n_in);
            row_node(x, rows, same ? ' ' : '-', p->f, p->f_name, i++);
            if (!same)
                row_node(x, rows, '+', p->g, p->g_name, j);
            j++;
        }
    }
    row_return(x, rows, tail ? ' ' : '-', p->f, p->f_name);
    if (!tail)
        row_return(x, rows, '+', p->g, p->g_name);
}

void diff_funcs(Differ *x, const Func *f, const Func *g) {
    DiffRows rows = {0};
    Text heading = {0};
    text_printf(&heading, "func ");
    name_print('@', (f ? f : g)->name, &heading);
    if (f && g && !str_eq(f->name, g->name)) {
        text_printf(&heading, " -> ");
        name_print('@', g->name, &heading);
    }
    if (f && g) {
        Pairing p = {
            .x = x, .f = f, .g = g, .value = arena_array(x->arena, f->n_values + 1, sizeof(ValueId))};
        memset(p.value, 0xff, (f->n_values + 1) * sizeof *p.value);
        pair_inputs(&p);
        pair_nodes(&p);
        name_sides(&p);
        rows_paired(&p, &rows);
    } else {
        text_printf(&heading, f ? " (removed)" : " (added)");
        rows_whole(x, &rows, f ? '-' : '+', f ? f : g);
    }
    diff_show(x, heading.p, &rows);
    vec_free(&rows);
    text_free(&heading);
}
