/* remat: which values of the forward pass are kept for the backward pass, and which it computes again.
 *
 * A value that the backward pass (nodes with the attribute `adjoint`) needs is either kept from the forward pass or made
 * again from others that are. What to keep is a minimum cut: every forward value is an edge whose capacity is its
 * bytes, results of expensive ops flow from the source, values the backward pass reads flow into the sink, and the values
 * cut are kept (as in PyTorch's min-cut partitioner; of equal cuts the latest one, which computes least again). Inputs
 * and parameters are there anyway. What norms read, the residual stream, is always kept where it is needed, so that no
 * recomputation reaches past one block.
 *
 * Under --max-memory, expensive ops are given up one after another, those first that save most bytes an operation, until
 * the plan of the whole function fits: every try runs the passes behind this one on a copy of the module. */
#include "fuse_impl.h"
#include "mincut.h"
#include "plan.h"
#include "remark.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct Remat {
    Module *m;
    const Func *f;
    Arena *a;
    bool *backward;  /* by NodeId */
    bool *stream;    /* by ValueId: a norm reads it */
    bool *expensive; /* by NodeId: not computed again */
    bool *kept;      /* by ValueId */
} Remat;

/* ---- what an op costs ---- */

static int64_t bounded(int64_t n) {
    return n == DIM_UNBOUNDED || n > (int64_t)1 << 50 ? (int64_t)1 << 50 : n < 1 ? 1 : n;
}

static int64_t value_bytes(const Remat *r, ValueId v) {
    const Type *t = &r->f->value[v].type;
    int64_t n = (int64_t)dtype_bytes(t->dtype), all;
    return mul_i64(n, bounded(dim_upper(r->m->dims, type_count(r->m->dims, t))), &all)
               ? bounded(all)
               : bounded(DIM_UNBOUNDED);
}

/* Products over a short axis, as those of experts and ranks, cost no more than reading their result back. */
enum { SHORT_AXIS = 64 };

/* Multiplications for each element of the result. */
static int64_t node_work(const Remat *r, const Node *n) {
    const Type *a = &r->f->value[n->in[0]].type;
    if (n->op == OP_matmul)
        return bounded(dim_upper(r->m->dims, a->dim[a->rank - (node_int(n, AT_ta, 0) ? 2 : 1)]));
    if (op_info(n->op)->klass == OC_POINTWISE)
        return 1;
    if (n->op == OP_attention)
        return 2 * bounded(dim_upper(r->m->dims, r->f->value[n->in[1]].type.dim[1]));
    return INT64_MAX; /* never given up */
}

static bool is_expensive(const Remat *r, const Node *n) {
    switch (op_info(n->op)->klass) {
    case OC_POINTWISE:
    case OC_MOVE:
    case OC_REDUCE:
    case OC_SOURCE:
        return false;
    case OC_CONTRACT:
        return node_work(r, n) >= SHORT_AXIS;
    default:
        return n->op != OP_random;
    }
}

/* Queries, keys and values: attention has them stored, and its gradient would have them stored a second time. */
static void keep_operands(Remat *r, const Node *attention) {
    for (uint32_t k = 0; k < 3; k++) {
        const Node *n = value_node(r->f, attention->in[k]);
        while (n && n->op == OP_reshape)
            n = value_node(r->f, n->in[0]);
        if (n && op_info(n->op)->klass == OC_POINTWISE)
            r->expensive[n - r->f->node] = true;
    }
}

static void examine(Remat *r) {
    const Func *f = r->f;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        r->backward[i] = node_int(n, AT_adjoint, 0) != 0;
        r->expensive[i] = is_expensive(r, n);
        if (n->op == OP_rms_norm || n->op == OP_rms_factor)
            r->stream[n->in[0]] = true;
        if (n->op == OP_attention)
            keep_operands(r, n);
    }
}

/* ---- what is kept ---- */

static void choose_kept(Remat *r) {
    const Func *f = r->f;
    uint32_t source = 2 * f->n_values, sink = source + 1;
    MinCut *c = mincut_new(r->a, sink + 1);
    bool *side = arena_array(r->a, sink + 1, sizeof *side);
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != NONE && f->value[n->in[k]].kind == VK_NODE &&
                !r->backward[f->value[n->in[k]].def]) {
                if (r->backward[i])
                    mincut_edge(c, 2 * n->in[k] + 1, sink, MINCUT_INFINITE);
                else
                    for (uint32_t j = 0; j < n->n_out; j++)
                        mincut_edge(c, 2 * n->in[k] + 1, 2 * (n->out + j), MINCUT_INFINITE);
            }
        for (uint32_t j = 0; j < n->n_out && !r->backward[i]; j++) {
            ValueId v = n->out + j;
            if (r->expensive[i] || r->stream[v])
                mincut_edge(c, source, 2 * v, MINCUT_INFINITE);
            mincut_edge(c, 2 * v, 2 * v + 1, r->stream[v] ? 0 : value_bytes(r, v));
        }
    }
    mincut_sink_side(c, source, sink, side);
    for (ValueId v = 0; v < f->n_values; v++)
        r->kept[v] = side[2 * v + 1] && !side[2 * v];
    mincut_free(c);
}

/* ---- the new function ---- */

typedef struct Again {
    Remat *r;
    Remap map;      /* forward values as they were */
    ValueId *again; /* by ValueId: computed again in the backward pass, or NONE */
    Vec(NodeId) todo;
    bool *listed; /* by NodeId */
} Again;

static bool available(const Again *x, ValueId v) {
    const Value *d = &x->r->f->value[v];
    return d->kind != VK_NODE || x->r->backward[d->def] || x->r->kept[v] || x->again[v] != NONE;
}

static ValueId value_now(Again *x, ValueId v) {
    return v != NONE && x->again[v] != NONE ? x->again[v] : remap_value(&x->map, v);
}

static int by_id(const void *a, const void *b) {
    NodeId x = *(const NodeId *)a, y = *(const NodeId *)b;
    return x < y ? -1 : x > y;
}

static void list_missing(Again *x, const Node *n) {
    for (uint32_t k = 0; k < n->n_in; k++) {
        ValueId v = n->in[k];
        if (v == NONE || available(x, v) || x->listed[x->r->f->value[v].def])
            continue;
        x->listed[x->r->f->value[v].def] = true;
        vec_push(&x->todo, x->r->f->value[v].def);
    }
}

static ValueId copy_now(Again *x, const Node *n, bool again) {
    const Func *f = x->r->f;
    Module *m = x->r->m;
    Arena *a = arena_new();
    ValueId *in = arena_array(a, n->n_in + 1, sizeof *in);
    Type *types = arena_array(a, n->n_out + 1, sizeof *types);
    Attr *attrs = arena_array(a, n->n_attrs + 1, sizeof *attrs);
    uint32_t n_attrs = n->n_attrs;
    for (uint32_t k = 0; k < n->n_in; k++)
        in[k] = value_now(x, n->in[k]);
    for (uint32_t k = 0; k < n->n_out; k++)
        types[k] = f->value[n->out + k].type;
    for (uint32_t k = 0; k < n_attrs; k++)
        attrs[k] = n->attrs[k];
    if (again)
        attrs[n_attrs++] = attr_i(AT_adjoint, 1);
    ValueId v = func_node_typed(m, x->map.f, n->op, in, n->n_in, attrs, n_attrs, types, n->n_out, n->origin);
    arena_free(a);
    return v;
}

/* Computes again what n needs and is not there, in the order of the forward pass. */
static void supply(Again *x, const Node *n) {
    x->todo.count = 0;
    list_missing(x, n);
    for (size_t i = 0; i < x->todo.count; i++)
        list_missing(x, &x->r->f->node[x->todo.item[i]]);
    if (x->todo.count)
        qsort(x->todo.item, x->todo.count, sizeof *x->todo.item, by_id);
    for (size_t i = 0; i < x->todo.count; i++) {
        const Node *k = &x->r->f->node[x->todo.item[i]];
        OpClass klass = op_info(k->op)->klass;
        if (klass == OC_POINTWISE || klass == OC_REDUCE || klass == OC_CONTRACT)
            remark(x->r->m, R_again, x->r->f, k, "%s: computed again by the backward pass",
                   op_info(k->op)->name);
        ValueId v = copy_now(x, k, true);
        for (uint32_t j = 0; j < k->n_out; j++)
            x->again[k->out + j] = v + j;
    }
}

static void rebuild(Remat *r) {
    const Func *f = r->f;
    Again x = {.r = r, .map = remap_begin(r->m, r->a, f)};
    x.again = arena_array(r->a, f->n_values + 1, sizeof *x.again);
    memset(x.again, 0xff, (f->n_values + 1) * sizeof *x.again);
    x.listed = arena_array(r->a, f->n_nodes + 1, sizeof *x.listed);
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (!r->backward[i]) {
            remap_node(&x.map, n);
            continue;
        }
        supply(&x, n);
        ValueId v = copy_now(&x, n, false);
        for (uint32_t k = 0; k < n->n_out; k++)
            remap_set(&x.map, n->out + k, v + k);
    }
    remap_end(&x.map);
    vec_free(&x.todo);
}

/* ---- a budget ---- */

typedef struct Candidate {
    NodeId node;
    int64_t work;
} Candidate;

static int cheap_first(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->work != y->work)
        return x->work < y->work ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

/* Forward products, and what attention reads, in the order in which they are given up; their number. */
static uint32_t candidates(const Remat *r, Candidate *list) {
    uint32_t n = 0;
    for (NodeId i = 0; i < r->f->n_nodes; i++) {
        const Node *k = &r->f->node[i];
        if (!r->backward[i] && r->expensive[i] && node_work(r, k) < INT64_MAX)
            list[n++] = (Candidate){i, node_work(r, k)};
    }
    if (n)
        qsort(list, n, sizeof *list, cheap_first);
    return n;
}

static Remat remat_new(Module *m, const Func *f) {
    CHECK(f);
    Remat r = {.m = m, .f = f, .a = arena_new()};
    r.backward = arena_array(r.a, f->n_nodes + 1, sizeof *r.backward);
    r.expensive = arena_array(r.a, f->n_nodes + 1, sizeof *r.expensive);
    r.stream = arena_array(r.a, f->n_values + 1, sizeof *r.stream);
    r.kept = arena_array(r.a, f->n_values + 1, sizeof *r.kept);
    examine(&r);
    return r;
}

static void tell_kept(const Remat *r) {
    for (NodeId i = 0; r->m->remarks && i < r->f->n_nodes; i++)
        for (uint32_t k = 0; k < r->f->node[i].n_out; k++)
            if (r->kept[r->f->node[i].out + k] && !r->backward[i])
                remark(r->m, R_kept, r->f, &r->f->node[i],
                       "%s: kept for the backward pass, %" PRId64 " bytes at the bounds",
                       op_info(r->f->node[i].op)->name, value_bytes(r, r->f->node[i].out + k));
}

static void func_remat(Module *m, const Func *f, uint32_t given_up) {
    Remat r = remat_new(m, f);
    Candidate *list = arena_array(r.a, f->n_nodes + 1, sizeof *list);
    uint32_t n = candidates(&r, list);
    for (uint32_t i = 0; i < given_up && i < n; i++)
        r.expensive[list[i].node] = false;
    choose_kept(&r);
    tell_kept(&r);
    if (given_up)
        remark(m, R_given_up, f, NULL, "%u values of %u are computed again, to stay under --max-memory",
               given_up < n ? given_up : n, n);
    rebuild(&r);
    arena_free(r.a);
}

static bool has_backward(const Func *f) {
    for (NodeId i = 0; f && i < f->n_nodes; i++)
        if (node_int(&f->node[i], AT_adjoint, 0))
            return true;
    return false;
}

/* Bytes of the arena when `given_up` products of every training function are computed again. */
static bool arena_with(const Module *m, const PassOptions *o, uint32_t given_up, int64_t *bytes, Diag *d) {
    Text text = {0};
    module_print(m, &text);
    Module *copy = module_parse(d, "<remat>", text.p, text.n);
    CHECK(copy);
    text_free(&text);
    for (FuncId i = 0; i < copy->n_funcs; i++) {
        if (copy->func[i] && copy->func[i]->role == FR_ENTRY && !has_backward(copy->func[i]))
            copy->func[i] = NULL;
        else if (has_backward(copy->func[i]))
            func_remat(copy, copy->func[i], given_up);
    }
    bool ok = pass_fuse(copy, o, d) && pass_plan(copy, o, d) && plan_arena_bytes(copy, bytes, d);
    module_free(copy);
    return ok;
}

static uint32_t most_candidates(Module *m) {
    uint32_t most = 0;
    for (FuncId i = 0; i < m->n_funcs; i++) {
        if (!has_backward(m->func[i]))
            continue;
        Remat r = remat_new(m, m->func[i]);
        uint32_t n = candidates(&r, arena_array(r.a, m->func[i]->n_nodes + 1, sizeof(Candidate)));
        most = n > most ? n : most;
        arena_free(r.a);
    }
    return most;
}

/* Bytes that parameters take while training: as they are, and for trained ones a gradient and two numbers of the
 * optimiser's. */
static int64_t fixed_bytes(const Module *m) {
    int64_t sum = 0;
    for (ParamId p = 0; p < m->n_params; p++) {
        const Param *x = &m->param[p];
        int64_t n = (int64_t)dtype_bytes(x->dtype);
        if (x->init != NONE)
            continue;
        for (int i = 0; i < x->rank; i++)
            n *= x->dim[i];
        if (!add_i64(sum, x->kind == PK_ADAPTER ? 5 * n : n, &sum))
            return INT64_MAX;
    }
    return sum;
}

enum { MIB = 1 << 20 };

/* The fewest products given up for which everything fits. */
static bool fit(Module *m, const PassOptions *o, uint32_t *given_up, Diag *d) {
    int64_t fixed = fixed_bytes(m), room = o->max_memory - fixed, bytes = 0;
    uint32_t lo = 0, hi = most_candidates(m);
    if (!arena_with(m, o, lo, &bytes, d))
        return false;
    if (bytes <= room) {
        *given_up = lo;
        return true;
    }
    if (!arena_with(m, o, hi, &bytes, d))
        return false;
    if (bytes > room)
        return diag_error(d, DIAG_MEMORY_BUDGET, NULL,
                          "--max-memory: training needs at least %" PRId64 "M (%" PRId64
                          "M of weights, gradients and "
                          "optimiser state, %" PRId64 "M of activations); lower the bounds with --dim",
                          (fixed + bytes) / MIB + 1, fixed / MIB, bytes / MIB + 1);
    while (hi - lo > 1) { /* lo does not fit, hi does */
        uint32_t mid = lo + (hi - lo) / 2;
        if (!arena_with(m, o, mid, &bytes, d))
            return false;
        *(bytes <= room ? &hi : &lo) = mid;
    }
    *given_up = hi;
    return true;
}

bool pass_remat(Module *m, const PassOptions *o, Diag *d) {
    uint32_t given_up = 0;
    bool any = false;
    for (FuncId i = 0; i < m->n_funcs; i++)
        any |= has_backward(m->func[i]);
    if (!any)
        return true;
    if (o->max_memory > 0 && !fit(m, o, &given_up, d))
        return false;
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (has_backward(m->func[i]))
            func_remat(m, m->func[i], given_up);
    return true;
}
