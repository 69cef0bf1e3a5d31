/* plan: every value of an entry function gets its place in an arena.
 *
 * Values are the results of kernel calls. Sizes are those at the upper bounds of the symbols. A value lives from the call
 * that makes it to the last one that reads it; places are found greedily, largest first, each at the lowest offset that
 * is free during its whole life. Outputs, and caches appended to in place, are the caller's buffers: -1. */
#include "pass.h"

#include <stdlib.h>
#include <string.h>

typedef struct Life {
    ValueId v;
    uint32_t first, last;
    int64_t bytes, at;
} Life;

enum { ALIGN = 64 };

static bool value_bytes(const Module *m, const Value *v, int64_t *bytes) {
    int64_t n = dim_upper(m->dims, type_count(m->dims, &v->type));
    return n != DIM_UNBOUNDED && mul_i64(n, (int64_t)dtype_bytes(v->type.dtype), &n) && add_i64(n, ALIGN - 1, &n) &&
           n < MOEC_MAX_TENSOR && ((*bytes = n & ~(int64_t)(ALIGN - 1)), true);
}

static int by_size(const void *a, const void *b) {
    const Life *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->v < y->v ? -1 : 1;
}

static int by_place(const void *a, const void *b) {
    const Life *x = *(const Life *const *)a, *y = *(const Life *const *)b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The lowest gap between the places of lives[0..n) that overlap x in time. */
static int64_t lowest_gap(const Life *lives, size_t n, const Life *x, const Life **busy) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (lives[i].first <= x->last && x->first <= lives[i].last) busy[k++] = &lives[i];
    qsort(busy, k, sizeof *busy, by_place);
    int64_t at = 0;
    for (size_t i = 0; i < k; i++) {
        if (busy[i]->at - at >= x->bytes) break;
        int64_t end = busy[i]->at + busy[i]->bytes;
        if (end > at) at = end;
    }
    return at;
}

static bool plan_func(Module *m, Func *f, Diag *d) {
    Arena *scratch = arena_new();
    uint32_t *last = arena_array(scratch, f->n_values + 1, sizeof *last);
    bool *theirs = arena_array(scratch, f->n_values + 1, sizeof *theirs), ok = true;
    for (uint32_t i = 0; i < f->n_outputs; i++) theirs[f->output[i]] = true;
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (f->node[i].in[j] != NONE) last[f->node[i].in[j]] = i;
    Vec(Life) lives = {0};
    for (uint32_t i = 0; i < f->n_nodes && ok; i++)
        for (uint32_t j = 0; j < f->node[i].n_out; j++) {
            Life x = {.v = f->node[i].out + j, .first = i};
            if (theirs[x.v]) continue;
            x.last = last[x.v] > i ? last[x.v] : i;
            if (!value_bytes(m, &f->value[x.v], &x.bytes)) {
                ok = diag_error(d, NULL, "a value of function '%s' has no bound on its size; give its extents bounds with --dim NAME=1..N",
                                diag_show(d, f->name));
                break;
            }
            vec_push(&lives, x);
        }
    int64_t *at = arena_array(scratch, f->n_values + 1, sizeof *at);
    for (ValueId v = 0; v < f->n_values; v++) at[v] = -1;
    if (lives.count) qsort(lives.item, lives.count, sizeof *lives.item, by_size);
    const Life **busy = arena_array(scratch, lives.count + 1, sizeof *busy);
    for (size_t i = 0; i < lives.count; i++) at[lives.item[i].v] = lives.item[i].at = lowest_gap(lives.item, i, &lives.item[i], busy);

    Remap r = remap_begin(m, scratch, f);
    for (uint32_t i = 0; i < f->n_nodes && ok; i++) {
        Node n = f->node[i];
        Attr *attrs = arena_array(scratch, n.n_attrs + 1, sizeof *attrs);
        uint32_t kept = 0;
        for (uint32_t j = 0; j < n.n_attrs; j++)
            if (n.attrs[j].key != AT_place) attrs[kept++] = n.attrs[j];
        attrs[kept++] = attr_ints(AT_place, at + n.out, n.n_out);
        n.attrs = attrs;
        n.n_attrs = kept;
        remap_node(&r, &n);
    }
    if (ok) remap_end(&r);
    vec_free(&lives);
    arena_free(scratch);
    return ok;
}

bool pass_plan(Module *m, const PassOptions *o, Diag *d) {
    (void)o;
    for (uint32_t i = 0; i < m->n_funcs; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY && !plan_func(m, m->func[i], d)) return false;
    return true;
}
