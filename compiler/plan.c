/* The pass `plan`: liveness of an entry function's storages and their places in the arena.
 *
 * Storages are placed greedily, largest first, each into the smallest gap between those already placed that
 * are alive at the same time ("greedy by size": Pisarchyk and Lee, arXiv 2001.03288). A node's results are
 * alive together with its operands, so a kernel never writes what it reads. The order of placing depends on
 * sizes and positions alone: the same function gives the same plan. */
#include "plan.h"
#include "pass.h"
#include "remark.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Planner {
    const Module *m;
    const Func *f;
    Arena *scratch;
    Diag *d;
    ValueId *root;  /* by value: whose storage it has; its own id where it has one itself */
    bool *output;   /* by value */
    PlanItem *item; /* by root; bytes < 0: not in the arena */
} Planner;

/* ---- storages ---------------------------------------------------------------------------------- */

/* The operand whose storage result k of n takes, NONE when it has its own. */
static ValueId shared_operand(const Module *m, const Node *n, uint32_t k) {
    if (n->op == OP_reshape || n->op == OP_append)
        return n->in[0];
    if (n->op != OP_call)
        return NONE;
    const Attr *a = node_attr(n, AT_func);
    const Func *callee = a ? module_func(m, (FuncId)a->i) : NULL;
    if (!callee || k >= callee->n_outputs)
        return NONE;
    const Node *append = value_node(callee, callee->output[k]);
    if (!append || append->op != OP_append)
        return NONE;
    for (uint32_t i = 0; i < callee->n_inputs && i < n->n_in; i++)
        if (callee->input[i] == append->in[0])
            return n->in[i];
    return NONE;
}

static void show_unbounded(void *ctx, uint32_t sym) {
    const Planner *p = ((void **)ctx)[0];
    Text *names = ((void **)ctx)[1];
    const DimSym *s = dim_sym_at(p->m->dims, sym);
    if (s->hi != DIM_UNBOUNDED)
        return;
    const char *name = diag_show(p->d, s->name);
    if (!names->p || !strstr(names->p, name))
        text_printf(names, " --dim %s=%" PRId64 "..N", name, s->lo);
}

static bool complain(const Planner *p, ValueId v) {
    const Type *t = &p->f->value[v].type;
    Text names = {0};
    void *ctx[2] = {(void *)(uintptr_t)p, &names};
    for (int i = 0; i < t->rank; i++)
        dim_visit(p->m->dims, t->dim[i], show_unbounded, ctx);
    if (names.n)
        diag_error(p->d, DIAG_SHAPE_UNBOUNDED, NULL,
                   "function '%s': the size of a value has no upper bound; give%s",
                   diag_show(p->d, p->f->name), names.p);
    else
        diag_error(p->d, DIAG_SHAPE_SIZE, NULL,
                   "function '%s': a value exceeds 2^47 bytes; lower the bounds with --dim",
                   diag_show(p->d, p->f->name));
    text_free(&names);
    return false;
}

/* Bytes of v at its symbols' upper bounds. */
static bool value_bytes(const Planner *p, ValueId v, int64_t *bytes) {
    const Type *t = &p->f->value[v].type;
    CHECK(t->rank != UNRANKED);
    int64_t n = (int64_t)dtype_bytes(t->dtype);
    for (int i = 0; i < t->rank; i++) {
        int64_t extent = dim_upper(p->m->dims, t->dim[i]);
        if (extent == DIM_UNBOUNDED || !mul_i64(n, extent < 0 ? 0 : extent, &n) || n >= MOEC_MAX_TENSOR)
            return complain(p, v);
    }
    *bytes = n;
    return true;
}

static bool find_storages(Planner *p) {
    const Func *f = p->f;
    for (ValueId v = 0; v < f->n_values; v++) {
        p->root[v] = v;
        p->item[v] = (PlanItem){.value = v, .bytes = -1};
    }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        p->output[f->output[i]] = true;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t j = 0; j < n->n_in; j++)
            if (n->in[j] != NONE)
                p->item[p->root[n->in[j]]].last = i;
        for (uint32_t j = 0; j < n->n_out; j++) {
            ValueId v = n->out + j, from = shared_operand(p->m, n, j);
            if (from != NONE)
                p->root[v] = p->root[from];
            PlanItem *x = &p->item[p->root[v]];
            if (p->root[v] == v)
                x->first = i;
            x->last = i;
            int64_t bytes;
            if (p->output[v] || f->value[p->root[v]].kind != VK_NODE)
                continue;
            if (!value_bytes(p, v, &bytes))
                return false;
            if (bytes > x->bytes)
                x->bytes = bytes;
        }
    }
    return true;
}

/* ---- places -------------------------------------------------------------------------------------- */

static int larger_first(const void *a, const void *b) {
    const PlanItem *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

static int64_t round_up(int64_t n) {
    return (n + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
}

/* Places x beside `n` items already there, ordered by offset; keeps the order. */
static bool put_item(const Planner *p, PlanItem *list, uint32_t n, PlanItem x) {
    int64_t end = 0, best = -1, best_gap = INT64_MAX; /* end: of all so far that are alive with x */
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].first > x.last || list[i].last < x.first)
            continue;
        int64_t gap = list[i].offset - end;
        if (gap >= x.bytes && gap < best_gap) {
            best = end;
            best_gap = gap;
        }
        int64_t after = list[i].offset + round_up(list[i].bytes);
        if (after > end)
            end = after;
    }
    x.offset = best >= 0 ? best : end;
    if (x.offset + round_up(x.bytes) >= MOEC_MAX_TENSOR)
        return diag_error(p->d, DIAG_SHAPE_SIZE, NULL,
                          "function '%s': the arena exceeds 2^47 bytes; lower the bounds with --dim",
                          diag_show(p->d, p->f->name));
    uint32_t at = n;
    for (; at > 0 && list[at - 1].offset > x.offset; at--)
        list[at] = list[at - 1];
    list[at] = x;
    return true;
}

/* Sums over the items, all of them placed. */
static void measure(const Planner *p, Plan *out) {
    int64_t *rise = arena_array(p->scratch, p->f->n_nodes + 1, sizeof *rise), alive = 0;
    for (uint32_t i = 0; i < out->n_items; i++) {
        const PlanItem *x = &out->item[i];
        int64_t bytes = round_up(x->bytes);
        if (!add_i64(out->sum, bytes, &out->sum))
            out->sum = INT64_MAX;
        rise[x->first] += bytes;
        rise[x->last + 1] -= bytes;
        if (x->offset + bytes > out->bytes)
            out->bytes = x->offset + bytes;
    }
    for (NodeId i = 0; i < p->f->n_nodes; i++) {
        alive += rise[i];
        if (alive > out->peak) {
            out->peak = alive;
            out->worst = i;
        }
    }
}

static bool place_all(Planner *p, Arena *a, Plan *out) {
    const Func *f = p->f;
    PlanItem *todo = arena_array(p->scratch, f->n_values + 1, sizeof *todo);
    uint32_t n = 0;
    for (ValueId v = 0; v < f->n_values; v++)
        if (p->item[v].bytes >= 0)
            todo[n++] = p->item[v];
    if (n)
        qsort(todo, n, sizeof *todo, larger_first);
    out->item = arena_array(a, n + 1, sizeof *out->item);
    out->offset = arena_array(a, f->n_values + 1, sizeof *out->offset);
    for (; out->n_items < n; out->n_items++) {
        if (!put_item(p, out->item, out->n_items, todo[out->n_items]))
            return false;
    }
    for (uint32_t i = 0; i < n; i++)
        p->item[out->item[i].value].offset = out->item[i].offset;
    measure(p, out);
    for (ValueId v = 0; v < f->n_values; v++) {
        const PlanItem *x = &p->item[p->root[v]];
        out->offset[v] = x->bytes >= 0 && !p->output[v] ? x->offset : -1;
    }
    return true;
}

static int by_offset(const void *a, const void *b) {
    const PlanItem *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

/* The places that nodes carry. */
static bool read_all(Planner *p, Arena *a, Plan *out) {
    const Func *f = p->f;
    out->item = arena_array(a, f->n_values + 1, sizeof *out->item);
    out->offset = arena_array(a, f->n_values + 1, sizeof *out->offset);
    for (ValueId v = 0; v < f->n_values; v++) {
        const Node *n = value_node(f, v);
        const Attr *place = n ? node_attr(n, AT_place) : NULL;
        uint32_t k = n ? v - n->out : 0;
        PlanItem x = p->item[v];
        int64_t end;
        out->offset[v] = place && k < place->ints.n ? place->ints.v[k] : -1;
        if (x.bytes < 0)
            continue;
        x.offset = out->offset[v];
        if (x.offset < 0)
            return diag_error(p->d, DIAG_SHAPE_SIZE, NULL,
                              "function '%s' is not planned: a value has no place; run the pass `plan`",
                              diag_show(p->d, f->name));
        if (x.offset % PLAN_ALIGN || !add_i64(x.offset, x.bytes, &end) || end >= MOEC_MAX_TENSOR)
            return diag_error(
                p->d, DIAG_SHAPE_SIZE, NULL, "function '%s': the place of a value is not %d-byte aligned or beyond 2^47 bytes",
                diag_show(p->d, f->name), (int)PLAN_ALIGN);
        out->item[out->n_items++] = x;
    }
    if (out->n_items)
        qsort(out->item, out->n_items, sizeof *out->item, by_offset);
    measure(p, out);
    return true;
}

static bool with_storages(const Module *m, const Func *f, bool (*then)(Planner *p, Arena *a, Plan *out),
                          Arena *a, Plan *out, Diag *d) {
    *out = (Plan){0};
    Arena *scratch = arena_new();
    Planner p = {.m = m, .f = f, .scratch = scratch, .d = d};
    p.root = arena_array(scratch, f->n_values + 1, sizeof *p.root);
    p.output = arena_array(scratch, f->n_values + 1, sizeof *p.output);
    p.item = arena_array(scratch, f->n_values + 1, sizeof *p.item);
    bool ok = find_storages(&p) && then(&p, a, out);
    arena_free(scratch);
    return ok;
}

bool plan_func(const Module *m, const Func *f, Arena *a, Plan *out, Diag *d) {
    return with_storages(m, f, place_all, a, out, d);
}

bool plan_read(const Module *m, const Func *f, Arena *a, Plan *out, Diag *d) {
    return with_storages(m, f, read_all, a, out, d);
}

bool plan_value_bytes(const Module *m, const Func *f, ValueId v, int64_t *bytes, Diag *d) {
    Planner p = {.m = m, .f = f, .d = d};
    return value_bytes(&p, v, bytes);
}

/* ---- the pass --------------------------------------------------------------------------------------- */

static void plan_apply(Module *m, const Func *f, const Plan *plan) {
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, f);
    for (NodeId i = 0; i < f->n_nodes; i++) {
        Node n = f->node[i];
        Attr *attrs = arena_array(scratch, n.n_attrs + 1, sizeof *attrs);
        uint32_t n_attrs = 0;
        for (uint32_t j = 0; j < n.n_attrs; j++)
            if (n.attrs[j].key != AT_place)
                attrs[n_attrs++] = n.attrs[j];
        attrs[n_attrs++] = attr_ints(AT_place, plan->offset + n.out, n.n_out);
        n.attrs = attrs;
        n.n_attrs = n_attrs;
        remap_node(&r, &n);
    }
    remap_end(&r);
    arena_free(scratch);
}

bool pass_plan(Module *m, const PassOptions *o, Diag *d) {
    (void)o;
    bool ok = true;
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY)
            continue;
        Arena *scratch = arena_new();
        Plan plan;
        if (plan_func(m, f, scratch, &plan, d)) {
            remark(m, R_arena, f, NULL,
                   "%u values in %" PRId64 " bytes: %" PRId64 " without sharing, %" PRId64 " alive at once",
                   plan.n_items, plan.bytes, plan.sum, plan.peak);
            plan_apply(m, f, &plan);
        } else
            ok = false;
        arena_free(scratch);
    }
    return ok;
}

bool plan_arena_bytes(const Module *m, int64_t *bytes, Diag *d) {
    bool ok = true;
    *bytes = 0;
    for (FuncId i = 0; i < m->n_funcs && ok; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY)
            continue;
        Arena *scratch = arena_new();
        Plan plan;
        ok = plan_read(m, f, scratch, &plan, d);
        if (ok && plan.bytes > *bytes)
            *bytes = plan.bytes;
        arena_free(scratch);
    }
    return ok;
}
