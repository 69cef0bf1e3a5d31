/* Reference interpreter: the driver.
 *
 * Runs a function's nodes in order, one rule a node, and lets every value go after its last use. What
 * will leave the function is made in its final place (the caller's arena or buffer) from the start, so a
 * function over one large array holds that array, its result and little else. */
#include "interp.h"

#include <stdio.h>
#include <string.h>


/* Value v of function f is taken as `instead`. */
typedef struct Probe {
    const Func *f;
    ValueId v;
    const Tensor *instead;
} Probe;

/* One function being evaluated. */
struct Frame {
    Held *held;     /* by ValueId */
    uint32_t *uses; /* uses to come, by ValueId */
    bool *leaving;  /* made in the final place, by ValueId */
    bool *unused;   /* by NodeId: nothing that is asked for depends on it; NULL: all nodes are evaluated */
    const Held **in;
    const Probe *probe; /* NULL: every value is computed */
    Arena *arena;       /* final place of results, or */
    void *into;         /* ... the one result's buffer, or neither: results stay counted */
    size_t into_bytes;
};

typedef bool RuleFn(Step *s);

static RuleFn *const rules[OP_COUNT] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) [OP_##name] = interp_##interp,
#include "ops.def"
};

/* ---- values --------------------------------------------------------------------------------------- */

static void held_drop(Held *h) {
    if (h->store && --h->store->refs == 0) {
        mem_free(h->store->data);
        mem_free(h->store);
    }
    memset(h, 0, sizeof *h);
}

static void held_share(Held *to, const Held *from) {
    *to = *from;
    if (to->store)
        to->store->refs++;
}

static void *held_alloc(Held *h, size_t bytes) {
    h->store = mem_alloc(sizeof *h->store);
    h->store->refs = 1;
    h->store->data = mem_alloc(bytes ? bytes : 1);
    return h->store->data;
}

/* ---- what rules use --------------------------------------------------------------------------------- */

bool step_error(Step *s, DiagCode code, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    Diag *d = s->run->d;
    const char *op = op_info(s->n->op)->name;
    if (s->n->origin.n > 0)
        return diag_error(d, code, NULL, "node '%s': %s: %s", diag_show(d, s->n->origin), op, text);
    return diag_error(d, code, NULL, "function '%s': %s: %s", diag_show(d, s->f->name), op, text);
}

const Tensor *step_in(const Step *s, uint32_t i) {
    return i < s->n->n_in && s->in[i] ? &s->in[i]->t : NULL;
}

Tensor *step_out(Step *s, uint32_t i, DType dtype, int rank, const int64_t *dim) {
    CHECK(i < s->n->n_out);
    if (rank < 0 || rank > MOEC_MAX_RANK) {
        step_error(s, DIAG_LIMIT, "the result would have %d axes, at most %d are supported", rank,
                   MOEC_MAX_RANK);
        return NULL;
    }
    Held *h = &s->out[i];
    CHECK(!h->set);
    h->t.dtype = dtype;
    h->t.rank = rank;
    for (int k = 0; k < rank; k++)
        h->t.dim[k] = dim[k];
    size_t bytes;
    if (!tensor_bytes(&h->t, &bytes)) {
        step_error(s, DIAG_SHAPE_SIZE, "the result would be too large");
        return NULL;
    }
    if (!mem_fits(bytes)) {
        step_error(s, DIAG_NO_MEMORY, "the result takes %zu bytes, more memory than there is", bytes);
        return NULL;
    }
    Frame *fr = s->frame;
    bool leaves = fr->leaving && fr->leaving[s->n->out + i];
    if (leaves && fr->into && fr->into_bytes == bytes)
        h->t.data = memset(fr->into, 0, bytes);
    else if (leaves && fr->arena)
        h->t.data = arena_alloc(fr->arena, bytes ? bytes : 1), h->placed = true;
    else
        h->t.data = held_alloc(h, bytes);
    h->set = true;
    return &h->t;
}

bool step_alias(Step *s, uint32_t i, uint32_t operand, int rank, const int64_t *dim) {
    const Held *from = s->in[operand];
    if (rank < 0 || rank > MOEC_MAX_RANK)
        return step_error(s, DIAG_LIMIT, "the result would have %d axes, at most %d are supported", rank,
                          MOEC_MAX_RANK);
    Tensor t = {.dtype = from->t.dtype, .rank = rank};
    for (int k = 0; k < rank; k++)
        t.dim[k] = dim[k];
    int64_t have, want;
    CHECK(tensor_count(&from->t, &have));
    if (!tensor_count(&t, &want) || have != want)
        return step_error(s, DIAG_SHAPE_VALUE, "cannot see %lld elements under the new extents",
                          (long long)have);
    Held *h = &s->out[i];
    CHECK(!h->set);
    held_share(h, from);
    t.data = from->t.data;
    h->t = t;
    h->set = true;
    return true;
}

static bool dim_now(const Interp *r, Dim d, int64_t *out) {
    if (d == DIM_BAD)
        return false;
    if (dim_is_const(r->m->dims, d, out))
        return true;
    return r->syms && dim_eval(r->m->dims, d, r->syms, out);
}

bool step_dim(Step *s, Dim d, int64_t *out) {
    return dim_now(s->run, d, out) || step_error(s, DIAG_SHAPE_UNKNOWN, "an extent has no value here");
}

bool step_extents(Step *s, uint32_t i, int *rank, int64_t *dim) {
    const Type *t = &s->f->value[s->n->out + i].type;
    if (t->rank < 0)
        return step_error(s, DIAG_SHAPE_UNKNOWN, "the result's extents are not stated");
    *rank = t->rank;
    for (int k = 0; k < t->rank; k++) {
        if (!step_dim(s, t->dim[k], &dim[k]))
            return false;
        if (dim[k] < 0)
            return step_error(s, DIAG_SHAPE_VALUE, "extent %d of the result is %lld", k, (long long)dim[k]);
    }
    return true;
}

bool step_axis(Step *s, int64_t axis, int rank, int *out) {
    if (axis < -(int64_t)rank || axis >= rank)
        return step_error(s, DIAG_SHAPE_AXIS, "axis %lld does not fit a tensor of %d axes", (long long)axis,
                          rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return true;
}

/* ---- running ------------------------------------------------------------------------------------------ */

static bool run_func(Interp *r, const Func *f, const Held **in, Held *out, Arena *arena, void *into,
                     size_t into_bytes);

static bool held_param(Interp *r, ParamId id, Held *out, Arena *arena, void *into, size_t into_bytes) {
    const Param *p = &r->m->param[id];
    if (p->data) {
        out->t.dtype = p->dtype;
        out->t.rank = p->rank;
        memcpy(out->t.dim, p->dim, sizeof out->t.dim);
        out->t.data = (void *)(uintptr_t)p->data;
        out->set = true;
        return true;
    }
    const char *name = diag_show(r->d, p->name);
    if (p->init == NONE) {
        size_t bytes;
        Tensor t = {.dtype = p->dtype, .rank = p->rank};
        memcpy(t.dim, p->dim, sizeof t.dim);
        if (tensor_bytes(&t, &bytes) && bytes == 0) {
            out->t = t;
            out->t.data = held_alloc(out, 1);
            out->set = true;
            return true;
        }
        return diag_error(r->d, DIAG_RUN_NO_DATA, NULL, "parameter '%s' has no data", name);
    }
    const Func *f = module_func(r->m, p->init);
    if (f->n_inputs != 0 || f->n_outputs != 1)
        return diag_error(r->d, DIAG_IR_MODULE, NULL,
                          "parameter '%s': its init function takes operands or has several results", name);
    if (!run_func(r, f, NULL, out, arena, into, into_bytes))
        return false;
    bool fits = out->t.dtype == p->dtype && out->t.rank == p->rank;
    for (int i = 0; fits && i < p->rank; i++)
        fits = out->t.dim[i] == p->dim[i];
    if (fits)
        return true;
    held_drop(out);
    return diag_error(r->d, DIAG_IR_MODULE, NULL, "parameter '%s': its init function makes another type",
                      name);
}

/* A value is made in its final place when it is a result, or reshapes into one. */
static void mark_leaving(const Func *f, bool *leaving) {
    for (uint32_t i = 0; i < f->n_outputs; i++)
        leaving[f->output[i]] = true;
    for (uint32_t i = f->n_nodes; i-- > 0;)
        if (f->node[i].op == OP_reshape && leaving[f->node[i].out])
            leaving[f->node[i].in[0]] = true;
}

/* The result must be what the IR says it is: a rule or an infer rule is wrong otherwise, or a symbol's value.
 */
static bool check_results(Step *s) {
    for (uint32_t i = 0; i < s->n->n_out; i++) {
        const Type *t = &s->f->value[s->n->out + i].type;
        const Tensor *v = &s->out[i].t;
        CHECK(s->out[i].set);
        if (v->dtype != t->dtype)
            return step_error(s, DIAG_IR_TYPE, "result %u is %s where the type says %s", i,
                              dtype_name(v->dtype), dtype_name(t->dtype));
        if (t->rank < 0)
            continue;
        if (t->rank != v->rank)
            return step_error(s, DIAG_IR_TYPE, "result %u has %d axes where the type says %d", i, v->rank,
                              t->rank);
        for (int k = 0; k < t->rank; k++) {
            int64_t want;
            if (dim_now(s->run, t->dim[k], &want) && want >= 0 && want != v->dim[k])
                return step_error(s, DIAG_IR_TYPE, "extent %d of result %u is %lld where the type says %lld",
                                  k, i, (long long)v->dim[k], (long long)want);
        }
    }
    return true;
}

static void use(Frame *fr, ValueId v) {
    if (--fr->uses[v] == 0)
        held_drop(&fr->held[v]);
}

static void replace_value(Frame *fr) {
    Held *h = &fr->held[fr->probe->v];
    held_drop(h);
    h->t = *fr->probe->instead;
    h->set = true;
}

static bool run_node(Interp *r, const Func *f, const Node *n, Frame *fr, const Held **operands) {
    if (fr->unused && fr->unused[n - f->node])
        return true;
    if (fr->probe && n->op == OP_gradient) {
        if (n->out != fr->probe->v)
            return diag_error(
                r->d, DIAG_GRAD_RULE, NULL,
                "function '%s': a gradient through another one is not estimated: run `grad` first",
                diag_show(r->d, f->name));
        replace_value(fr);
        return true;
    }
    for (uint32_t i = 0; i < n->n_in; i++) {
        ValueId v = n->in[i];
        operands[i] = NULL;
        if (v == NONE)
            continue;
        Held *h = &fr->held[v];
        if (!h->set && f->value[v].kind == VK_PARAM && !held_param(r, f->value[v].def, h, NULL, NULL, 0))
            return false;
        CHECK(h->set);
        operands[i] = h;
    }
    Step s = {.run = r, .f = f, .n = n, .in = operands, .out = &fr->held[n->out], .frame = fr};
    if (!rules[n->op](&s) || !check_results(&s))
        return false;
    if (fr->probe && fr->probe->v >= n->out && fr->probe->v < n->out + n->n_out)
        replace_value(fr);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE)
            use(fr, n->in[i]);
    for (uint32_t i = 0; i < n->n_out; i++)
        if (fr->uses[n->out + i] == 0)
            held_drop(&fr->held[n->out + i]);
    return true;
}

/* Moves a result to where the caller wants it, unless it was made there. */
static bool deliver(Interp *r, const Func *f, Frame *fr, ValueId v, Held *out) {
    Held *h = &fr->held[v];
    if (!h->set && f->value[v].kind == VK_PARAM && !held_param(r, f->value[v].def, h, NULL, NULL, 0))
        return false;
    CHECK(h->set);
    held_share(out, h);
    size_t bytes;
    CHECK(tensor_bytes(&h->t, &bytes));
    void *to = NULL;
    if (fr->into && h->t.data != fr->into) {
        if (bytes != fr->into_bytes)
            return diag_error(r->d, DIAG_SHAPE_SIZE, NULL, "the result does not fit the buffer given for it");
        to = fr->into;
    } else if (fr->arena && !h->placed) {
        to = arena_alloc(fr->arena, bytes ? bytes : 1);
    }
    if (to) {
        if (bytes)
            memcpy(to, h->t.data, bytes);
        Tensor t = h->t;
        held_drop(out);
        out->t = t;
        out->t.data = to;
        out->set = out->placed = true;
    }
    return true;
}

/* Nodes come last one first, so that it is known whether node i is used. */
static void count_uses(Frame *fr, const Func *f, NodeId i, uint32_t *most) {
    const Node *n = &f->node[i];
    if (fr->unused) {
        bool used = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            used |= fr->uses[n->out + k] > 0;
        fr->unused[i] = !used;
        if (!used)
            return;
    }
    *most = n->n_in > *most ? n->n_in : *most;
    for (uint32_t k = 0; k < n->n_in; k++)
        if (n->in[k] != NONE)
            fr->uses[n->in[k]]++;
}

static bool run_func(Interp *r, const Func *f, const Held **in, Held *out, Arena *arena, void *into,
                     size_t into_bytes) {
    if (r->depth >= LIMIT_INTERP_DEPTH)
        return diag_error(r->d, DIAG_LIMIT, NULL, "function '%s': calls nest deeper than %d",
                          diag_show(r->d, f->name), LIMIT_INTERP_DEPTH);
    r->depth++;
    Frame fr = {.in = in, .arena = arena, .into = into, .into_bytes = into_bytes};
    fr.probe = r->probe && r->probe->f == f ? r->probe : NULL;
    uint32_t most = 1;
    fr.held = mem_alloc((f->n_values + 1) * sizeof *fr.held);
    fr.uses = mem_alloc((f->n_values + 1) * sizeof *fr.uses);
    fr.leaving = mem_alloc(f->n_values + 1);
    fr.unused = fr.probe ? mem_alloc(f->n_nodes + 1) : NULL;
    for (uint32_t i = 0; i < f->n_outputs; i++)
        fr.uses[f->output[i]]++;
    for (uint32_t i = f->n_nodes; i-- > 0;)
        count_uses(&fr, f, i, &most);
    if (arena || into)
        mark_leaving(f, fr.leaving);
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (fr.uses[f->input[i]])
            held_share(&fr.held[f->input[i]], in[i]);
    if (fr.probe && f->value[fr.probe->v].kind != VK_NODE && fr.uses[fr.probe->v])
        replace_value(&fr);
    const Held **operands = mem_alloc(most * sizeof(void *));

    bool ok = true;
    for (uint32_t i = 0; ok && i < f->n_nodes; i++)
        ok = run_node(r, f, &f->node[i], &fr, operands);
    for (uint32_t i = 0; ok && i < f->n_outputs; i++)
        ok = deliver(r, f, &fr, f->output[i], &out[i]);
    if (!ok)
        for (uint32_t i = 0; i < f->n_outputs; i++)
            held_drop(&out[i]);
    for (uint32_t i = 0; i < f->n_values; i++)
        held_drop(&fr.held[i]);
    mem_free(operands);
    mem_free(fr.held);
    mem_free(fr.uses);
    mem_free(fr.leaving);
    mem_free(fr.unused);
    r->depth--;
    return ok;
}

bool step_call(Step *s, FuncId id, uint32_t first) {
    const Func *f = module_func(s->run->m, id);
    if (!f)
        return step_error(s, DIAG_IR_MODULE, "there is no function %u", id);
    if (f->n_inputs != s->n->n_in - first || f->n_outputs != s->n->n_out)
        return step_error(s, DIAG_IR_MODULE, "'%s' takes %u operands and has %u results",
                          diag_show(s->run->d, f->name), f->n_inputs, f->n_outputs);
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (!s->in[first + i])
            return step_error(s, DIAG_IR_NODE, "operand %u is left out", first + i);
    return run_func(s->run, f, s->in + first, s->out, NULL, NULL, 0);
}

bool step_probe(Step *s, ValueId result, ValueId v, const Tensor *instead, double *out) {
    Func before = *s->f;
    before.n_nodes = (uint32_t)(s->n - s->f->node);
    before.output = &result;
    before.n_outputs = 1;
    Probe p = {&before, v, instead};
    Interp r = *s->run;
    Held h = {0};
    r.probe = &p;
    if (!run_func(&r, &before, s->frame->in, &h, NULL, NULL, 0))
        return false;
    *out = tensor_get_f64(&h.t, 0);
    held_drop(&h);
    return true;
}

bool interp_call(Step *s) {
    const Attr *func = node_attr(s->n, AT_func);
    CHECK(func);
    return step_call(s, (FuncId)func->i, 0);
}

bool interp_if(Step *s) {
    const Tensor *cond = step_in(s, 0);
    int64_t count;
    if (!cond || !tensor_count(cond, &count) || count != 1)
        return step_error(s, DIAG_SHAPE_MISFIT, "the condition is not one element");
    const Attr *func = node_attr(s->n, tensor_get_i64(cond, 0) != 0 ? AT_then_func : AT_else_func);
    CHECK(func);
    return step_call(s, (FuncId)func->i, 1);
}

/* ---- entries ------------------------------------------------------------------------------------------ */

bool func_eval(const Module *m, FuncId id, const int64_t *syms, const Tensor *in, Tensor *out, Arena *a,
               Diag *d) {
    const Func *f = module_func(m, id);
    CHECK(f);
    Interp r = {.m = m, .syms = syms, .d = d};
    Held *held_in = mem_alloc((f->n_inputs + 1) * sizeof *held_in);
    Held *held_out = mem_alloc((f->n_outputs + 1) * sizeof *held_out);
    const Held **operands = mem_alloc((f->n_inputs + 1) * sizeof *operands);
    bool ok = true;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (in[i].dtype != v->type.dtype)
            ok = diag_error(d, DIAG_RUN_INPUT, NULL, "input '%s' of '%s' is %s, expected %s",
                            diag_show(d, v->name), diag_show(d, f->name), dtype_name(in[i].dtype),
                            dtype_name(v->type.dtype));
        held_in[i].t = in[i];
        held_in[i].set = true;
        operands[i] = &held_in[i];
    }
    ok = ok && run_func(&r, f, operands, held_out, a, NULL, 0);
    for (uint32_t i = 0; ok && i < f->n_outputs; i++)
        out[i] = held_out[i].t;
    mem_free(operands);
    mem_free(held_out);
    mem_free(held_in);
    return ok;
}

bool param_eval(const Module *m, ParamId p, Tensor *out, Arena *a, Diag *d) {
    Interp r = {.m = m, .d = d};
    Held h = {0};
    CHECK(p < m->n_params);
    if (!held_param(&r, p, &h, a, NULL, 0))
        return false;
    *out = h.t;
    if (h.store) { /* an empty parameter */
        out->data = arena_alloc(a, 1);
        held_drop(&h);
    }
    return true;
}

bool param_eval_into(const Module *m, ParamId p, void *dst, size_t bytes, Diag *d) {
    Interp r = {.m = m, .d = d};
    Held h = {0};
    size_t have;
    CHECK(p < m->n_params);
    if (!held_param(&r, p, &h, NULL, dst, bytes))
        return false;
    CHECK(tensor_bytes(&h.t, &have) && have == bytes && (h.t.data || !bytes));
    if (bytes && h.t.data != dst)
        memcpy(dst, h.t.data, bytes);
    held_drop(&h);
    return true;
}

/* ---- symbols --------------------------------------------------------------------------------------------
 */

bool func_bind_dims(const Module *m, const Func *f, const Tensor *in, int64_t *syms, Diag *d) {
    size_t n_syms = dim_sym_count(m->dims);
    for (size_t i = 0; i < n_syms; i++) {
        const DimSym *s = dim_sym_at(m->dims, (uint32_t)i);
        syms[i] = s->lo == s->hi ? s->lo : -1;
    }
    bool ok = true;
    for (int pass = 0; pass < 2; pass++) /* first bind the plain symbols, then check everything */
        for (uint32_t i = 0; i < f->n_inputs; i++) {
            const Value *v = &f->value[f->input[i]];
            const Tensor *t = &in[i];
            if (v->type.rank == UNRANKED)
                continue;
            if (t->rank != v->type.rank) {
                if (pass == 0)
                    ok = diag_error(d, DIAG_RUN_INPUT, NULL, "input '%s' has %d axes, expected %d",
                                    diag_show(d, v->name), t->rank, v->type.rank);
                continue;
            }
            for (int k = 0; k < t->rank; k++) {
                uint32_t sym;
                int64_t want;
                bool plain = dim_as_sym(m->dims, v->type.dim[k], &sym);
                if (pass == 0) {
                    if (plain && syms[sym] < 0)
                        syms[sym] = t->dim[k];
                    continue;
                }
                if (!dim_eval(m->dims, v->type.dim[k], syms, &want) || want != t->dim[k]) {
                    ok = diag_error(d, DIAG_RUN_INPUT, NULL,
                                    "extent %d of input '%s' is %lld, which does not agree with its type", k,
                                    diag_show(d, v->name), (long long)t->dim[k]);
                    continue;
                }
                const DimSym *s = plain ? dim_sym_at(m->dims, sym) : NULL;
                if (s && (want < s->lo || want > s->hi))
                    ok = diag_error(
                        d, DIAG_RUN_INPUT, NULL, "extent %d of input '%s' is %lld, allowed are %lld..%lld", k,
                        diag_show(d, v->name), (long long)want, (long long)s->lo, (long long)s->hi);
            }
        }
    return ok;
}
