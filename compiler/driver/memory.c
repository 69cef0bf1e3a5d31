/* The numbers of --memory-report and `moec info --train`. */
#include "memory.h"

#include <string.h>
#include <unistd.h>

static const struct {
    const char *name, *note;
} parts[] = {
#define X(name, title, note) {title, note},
    MEMORY_PART_LIST(X)
#undef X
};

static const char *const kinds[] = {
#define X(name, title, day, night) title,
    MEMORY_KIND_LIST(X)
#undef X
};

const char *memory_part_name(int part) {
    return parts[part].name;
}

const char *memory_part_note(int part) {
    return parts[part].note;
}

const char *memory_kind_name(int kind) {
    return kinds[kind];
}

int64_t memory_total(const Memory *x) {
    int64_t sum = 0;
    for (int i = 0; i < MEMORY_PARTS; i++)
        sum += x->part[i];
    return sum;
}

Str memory_value_name(Arena *a, const Func *f, ValueId v) {
    return f->value[v].name.n ? f->value[v].name : str_c(arena_printf(a, "%u", v));
}

bool memory_at_peak(const Plan *p, const PlanItem *x) {
    return x->first <= p->worst && x->last >= p->worst;
}

/* ---- what a value is -------------------------------------------------------------------------------- */

static const Func *callee_of(const Module *m, const Node *n) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    return a ? module_func(m, (FuncId)a->i) : NULL;
}

Str memory_node_place(const Memory *x, const Node *n) {
    const Func *c = callee_of(x->m, n);
    return c && !n->origin.n && !node_attr(n, AT_site) ? c->name : node_place(n);
}

Str memory_value_place(const Memory *x, const Func *f, ValueId v) {
    return memory_node_place(x, value_node(f, v));
}

static bool is_adjoint(const Node *n) {
    return node_int(n, AT_adjoint, 0) != 0;
}

/* Whether node n hands its operand k to a norm. */
static bool reads_norm(const Module *m, const Node *n, uint32_t k) {
    const Func *c = callee_of(m, n);
    for (uint32_t i = 0; c && k < c->n_inputs && i < c->n_nodes; i++)
        if ((c->node[i].op == OP_rms_factor || c->node[i].op == OP_rms_norm) &&
            c->node[i].in[0] == c->input[k])
            return true;
    return false;
}

static bool has_attention(const Func *c) {
    for (uint32_t i = 0; c && i < c->n_nodes; i++)
        if (c->node[i].op == OP_attention)
            return true;
    return false;
}

static bool site_has(const Node *n, const char *part) {
    const Attr *site = node_attr(n, AT_site);
    return site && memmem(site->s.p, site->s.n, part, strlen(part));
}

static MemoryKind kind_of(const Module *m, const Func *f, const PlanItem *x) {
    const Node *n = value_node(f, x->value);
    bool kept = false, stream = false;
    for (NodeId i = x->first; i <= x->last && i < f->n_nodes; i++)
        for (uint32_t k = 0; k < f->node[i].n_in; k++) {
            if (f->node[i].in[k] != x->value)
                continue;
            kept = kept || is_adjoint(&f->node[i]);
            stream = stream || reads_norm(m, &f->node[i], k);
        }
    if (is_adjoint(n))
        return KIND_backward;
    if (kept)
        return KIND_kept;
    if (stream)
        return KIND_stream;
    if (has_attention(callee_of(m, n)))
        return KIND_attention;
    if (site_has(n, ".self.") || site_has(n, ".cross."))
        return KIND_projection;
    return site_has(n, ".ffn.") ? KIND_ffn : KIND_other;
}

/* ---- the caller's memory ------------------------------------------------------------------------------- */

/* The input that output `out` is appended to in place, NONE when there is none. */
static ValueId cache_behind(const Module *m, const Func *f, ValueId out) {
    const Node *n = value_node(f, out);
    const Func *c = n ? callee_of(m, n) : NULL;
    uint32_t k = n ? out - n->out : 0;
    const Node *append = c && k < c->n_outputs ? value_node(c, c->output[k]) : NULL;
    for (uint32_t i = 0; append && append->op == OP_append && i < c->n_inputs; i++)
        if (c->input[i] == append->in[0] && f->value[n->in[i]].kind == VK_INPUT)
            return n->in[i];
    return NONE;
}

static bool add_bytes(const Module *m, const Func *f, ValueId v, int64_t *sum, Diag *d) {
    int64_t bytes;
    return plan_value_bytes(m, f, v, &bytes, d) &&
           (add_i64(*sum, bytes, sum) || diag_error(d, DIAG_SHAPE_SIZE, NULL, "the memory of a function exceeds 2^63 bytes"));
}

static bool read_func(const Module *m, MemoryFunc *x, Arena *a, Diag *d) {
    const Func *f = x->f;
    bool *cache = arena_array(a, f->n_values + 1, sizeof *cache), ok = plan_read(m, f, a, &x->plan, d);
    for (uint32_t i = 0; i < f->n_outputs && ok; i++) {
        ValueId in = cache_behind(m, f, f->output[i]);
        if (in != NONE)
            cache[in] = true;
        ok = add_bytes(m, f, f->output[i], in != NONE ? &x->caches : &x->outputs, d);
    }
    for (uint32_t i = 0; i < f->n_inputs && ok; i++)
        if (!cache[f->input[i]])
            ok = add_bytes(m, f, f->input[i], &x->inputs, d);
    if (!ok)
        return false;
    x->kind = arena_array(a, x->plan.n_items + 1, 1);
    for (uint32_t i = 0; i < x->plan.n_items; i++)
        x->kind[i] = (unsigned char)kind_of(m, f, &x->plan.item[i]);
    return true;
}

/* ---- all of it --------------------------------------------------------------------------------------------
 */

/* Bytes of the tensors that `train` has a gradient of. */
static bool gradient_bytes(const Module *m, int64_t *sum, Diag *d) {
    const Func *f = module_find(m, "train");
    for (uint32_t i = 0; f && i < f->n_outputs; i++)
        if (f->output_name[i].n > 5 && memcmp(f->output_name[i].p, "grad.", 5) == 0 &&
            !add_bytes(m, f, f->output[i], sum, d))
            return false;
    return true;
}

static void use_symbol(void *ctx, uint32_t sym) {
    ((bool *)ctx)[sym] = true;
}

static void find_bounds(Memory *x, Arena *a) {
    uint32_t n = (uint32_t)dim_sym_count(x->m->dims);
    bool *used = arena_array(a, n + 1, sizeof *used);
    x->bound = arena_array(a, n + 1, sizeof *x->bound);
    for (uint32_t i = 0; i < x->n_funcs; i++)
        for (ValueId v = 0; v < x->func[i].f->n_values; v++)
            for (int k = 0; k < x->func[i].f->value[v].type.rank; k++)
                dim_visit(x->m->dims, x->func[i].f->value[v].type.dim[k], use_symbol, used);
    for (uint32_t i = 0; i < n; i++)
        if (used[i])
            x->bound[x->n_bounds++] = *dim_sym_at(x->m->dims, i);
}

/* Training is one of the functions; without it the largest one counts, for they share the arena. */
static int64_t largest_arena(const Memory *x) {
    int64_t most = 0;
    for (uint32_t i = 0; i < x->n_funcs; i++) {
        if (str_is(x->func[i].f->name, "train"))
            return x->func[i].plan.bytes;
        if (x->func[i].plan.bytes > most)
            most = x->func[i].plan.bytes;
    }
    return most;
}

bool memory_read(const Build *b, Memory *out, Diag *d) {
    const Module *m = b->model->m;
    const Image *im = &b->image;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    *out = (Memory){.m = m, .scratch_bytes = im->scratch_bytes};
    out->threads = b->o->threads > 0 ? b->o->threads : cores > 0 ? cores : 1;
    out->func = arena_array(b->a, m->n_funcs + 1, sizeof *out->func);
    for (FuncId i = 0; i < m->n_funcs; i++) {
        if (!m->func[i] || m->func[i]->role != FR_ENTRY)
            continue;
        MemoryFunc *x = &out->func[out->n_funcs++];
        x->f = m->func[i];
        if (!read_func(m, x, b->a, d))
            return false;
    }
    find_bounds(out, b->a);
    int64_t gradients = 0;
    if (!gradient_bytes(m, &gradients, d))
        return false;
    out->adapter_bytes = (int64_t)im->adapter_bytes;
    out->derived_bytes = (int64_t)im->derived_bytes;
    out->part[MEMORY_weights] = (int64_t)im->weights_bytes;
    out->part[MEMORY_adapter] = out->adapter_bytes + out->derived_bytes;
    out->part[MEMORY_gradients] = out->part[MEMORY_optimiser] = gradients;
    out->part[MEMORY_activations] = largest_arena(out);
    out->part[MEMORY_scratch] = out->scratch_bytes * out->threads;
    return true;
}
