/* fuse: rewrites that let matmuls absorb what stands around them, then kernels.
 *
 *   norms into matmuls    norm(x) W = rsqrt(mean x^2 + eps) (x (g W)): the gain goes into the weight, the row factor is
 *                         applied to the product; the normalised x is never stored
 *   side by side          matmuls that share their left operand become one over concatenated columns; frozen weights
 *                         and adapter tensors apart, since the latter change with the adapter; so are the forward and the
 *                         backward pass, or what is computed again would be kept
 *                         no frozen weight is stored twice: one that something else reads as well, as the backward pass
 *                         does, stays as it is
 *   caches                appends that are none become concatenations
 *   hoist                 what depends on parameters alone is computed once, not in a kernel
 *   outline               nodes become kernels, equal kernels one */
#include "fuse_impl.h"
#include "remark.h"

#include <inttypes.h>
#include <string.h>

/* ---- norms into matmuls ---------------------------------------------------------------------------- */

/* lhs = rms_norm(x, g) times scalars: finds the norm and the product of the scalars. */
static const Node *norm_behind(const Module *m, const Func *f, ValueId v, double *scale) {
    *scale = 1;
    for (int i = 0; i < 4; i++) {
        const Node *n = value_node(f, v);
        double c;
        if (!n) return NULL;
        if (n->op == OP_rms_norm) return n;
        if (n->op != OP_mul) return NULL;
        if (value_scalar(m, f, n->in[1], &c)) v = n->in[0];
        else if (value_scalar(m, f, n->in[0], &c)) v = n->in[1];
        else return NULL;
        *scale *= c;
    }
    return NULL;
}

static bool is_product(const Func *f, const Node *n) {
    return n->op == OP_matmul && !node_attr(n, AT_ta) && !node_attr(n, AT_tb) && f->value[n->in[1]].type.rank == 2 &&
           f->value[n->in[0]].type.rank >= 2;
}

/* Frozen weights that something else reads than products with them of the forward pass. */
static bool *find_shared(const Module *m, Arena *a) {
    bool *shared = arena_array(a, m->n_params + 1, sizeof *shared);
    for (uint32_t i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        for (uint32_t j = 0; f && f->role == FR_ENTRY && j < f->n_nodes; j++)
            for (uint32_t k = 0; k < f->node[j].n_in; k++) {
                ParamId p;
                bool plain = k == 1 && is_product(f, &f->node[j]) && !node_int(&f->node[j], AT_adjoint, 0);
                if (value_param(f, f->node[j].in[k], &p) && !plain) shared[p] = m->param[p].kind == PK_FROZEN;
            }
    }
    return shared;
}

static bool is_linear(const Func *f, const Node *n, const bool *only, const bool *shared) {
    ParamId p;
    return is_product(f, n) && only[n->in[1]] && !only[n->in[0]] && !(value_param(f, n->in[1], &p) && shared[p]);
}

/* Why a value's uses do not all end, through scalar products, in the left side of a linear: OTHER_NONE where
 * they do, the node that reads it otherwise. */
enum { OTHER_NONE = NONE, OTHER_OUTPUT = NONE - 1 };

static NodeId *other_readers(const Module *m, const Func *f, const bool *only, const bool *shared, Arena *a) {
    NodeId *other = arena_array(a, f->n_values + 1, sizeof *other);
    memset(other, 0xff, (f->n_values + 1) * sizeof *other);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        other[f->output[i]] = OTHER_OUTPUT;
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        for (uint32_t j = 0; j < n->n_in; j++) {
            double c;
            if (n->in[j] == NONE) continue;
            bool scaled = n->op == OP_mul && value_scalar(m, f, n->in[1 - j], &c);
            if (j == 0 && is_linear(f, n, only, shared))
                continue;
            if (!scaled)
                other[n->in[j]] = i;
            else if (other[n->out] != OTHER_NONE)
                other[n->in[j]] = other[n->out];
        }
    }
    return other;
}

/* Why a product with a weight cannot change it; NULL when it can. */
static const char *not_linear(const Func *f, const Node *n, const bool *only, const bool *shared) {
    ParamId p;
    if (!is_product(f, n))
        return "the product reads an operand transposed, or its right one has more than two axes";
    if (!only[n->in[1]])
        return "the right operand of the product is computed, no weight";
    if (only[n->in[0]])
        return "a product of weights alone";
    if (value_param(f, n->in[1], &p) && shared[p])
        return "something else reads the weight as it is, the backward pass for one, and it is not stored "
               "twice";
    return NULL;
}

/* A norm that stays in front of product n: why. */
static void tell_norm(const Module *m, const Func *f, const Node *n, const Node *norm, const bool *only,
                      const bool *shared, NodeId other) {
    const char *why = not_linear(f, n, only, shared);
    if (why)
        remark(m, R_norm_not_folded, f, n, "the norm in front of it stays: %s", why);
    else if (!only[norm->in[1]])
        remark(m, R_norm_not_folded, f, n,
               "the norm in front of it stays: its gain is computed, no parameter");
    else if (other == OTHER_OUTPUT)
        remark(m, R_norm_not_folded, f, n, "the norm in front of it stays: it is an output as well");
    else {
        Str at = node_place(&f->node[other]);
        const char *again = not_linear(f, &f->node[other], only, shared);
        bool product = f->node[other].op == OP_matmul && f->node[other].in[0] == norm->out;
        remark(m, R_norm_not_folded, f, n,
               "the norm in front of it stays: %s reads it as well (\"%.*s\")%s%s",
               op_info(f->node[other].op)->name, (int)at.n, at.p, product && again ? ", and " : "",
               product && again ? again : "");
    }
}

static ValueId folded_linear(Remap *r, const Node *n, const Node *norm, double scale) {
    Module *m = r->m;
    ValueId x = remap_value(r, norm->in[0]), g = remap_value(r, norm->in[1]), w = remap_value(r, n->in[1]);
    Dim column[2] = {r->f->value[g].type.dim[0], dim_const(m->dims, 1)};
    ValueId gw = build_binary(m, r->f, OP_mul, build_reshape(m, r->f, g, 2, column, norm->origin), w, n->origin);
    Attr eps = attr_f(AT_eps, node_float(norm, AT_eps, 0));
    ValueId factor = func_node(m, r->f, OP_rms_factor, &x, 1, &eps, 1, norm->origin);
    if (scale != 1) factor = build_binary(m, r->f, OP_mul, factor, build_scalar(m, r->f, r->f->value[factor].type.dtype, scale), norm->origin);
    ValueId in[2] = {x, gw};
    ValueId y = func_node(m, r->f, OP_matmul, in, 2, n->attrs, n->n_attrs, n->origin);
    return build_binary(m, r->f, OP_mul, y, factor, norm->origin);
}

static void fold_norms(Module *m, Func *f, const bool *shared) {
    Arena *scratch = arena_new();
    bool *only = param_only(m, f, scratch);
    const NodeId *other = other_readers(m, f, only, shared, scratch);
    Remap r = remap_begin(m, scratch, f);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i], *norm;
        double scale;
        norm = n->op == OP_matmul ? norm_behind(m, f, n->in[0], &scale) : NULL;
        if (norm && is_linear(f, n, only, shared) && other[norm->out] == OTHER_NONE && only[norm->in[1]]) {
            Str at = node_place(norm);
            remark(m, R_norm_folded, f, n, "gain of \"%.*s\" in the weight, row factor behind the product%s",
                   (int)at.n, at.p, scale != 1 ? ", with a scale" : "");
            remap_set(&r, n->out, folded_linear(&r, n, norm, scale));
            continue;
        }
        if (norm && m->remarks)
            tell_norm(m, f, n, norm, only, shared, other[norm->out]);
        remap_node(&r, n);
    }
    remap_end(&r);
    arena_free(scratch);
}

/* ---- side by side ------------------------------------------------------------------------------------- */

typedef struct Bundle {
    ValueId x;
    bool adapter, adjoint;
    Vec(const Node *) member;
    ValueId product; /* in the new function */
    Dim width;
} Bundle;

typedef Vec(Bundle) Bundles;

static bool is_adjoint(const Node *n) {
    return node_int(n, AT_adjoint, 0) != 0;
}

static Bundle *bundle_of(Bundles *b, const Node *n, const bool *adapts) {
    for (size_t i = 0; i < b->count; i++)
        if (b->item[i].x == n->in[0] && b->item[i].adapter == adapts[n->in[1]] && b->item[i].adjoint == is_adjoint(n))
            return &b->item[i];
    return NULL;
}

static ValueId bundle_product(Remap *r, Bundle *b) {
    Module *m = r->m;
    Vec(ValueId) w = {0};
    for (size_t i = 0; i < b->member.count; i++) vec_push(&w, remap_value(r, b->member.item[i]->in[1]));
    ValueId all = build_concat(m, r->f, w.item, (uint32_t)w.count, 1, b->member.item[0]->origin);
    vec_free(&w);
    const Node *first = b->member.item[0];
    ValueId in[2] = {remap_value(r, b->x), all};
    return func_node(m, r->f, OP_matmul, in, 2, first->attrs, first->n_attrs, first->origin);
}

static ValueId member_slice(Remap *r, Bundle *b, const Node *n) {
    Module *m = r->m;
    Dim start = dim_const(m->dims, 0);
    for (size_t i = 0; b->member.item[i] != n; i++) start = dim_add(m->dims, start, r->old->value[b->member.item[i]->in[1]].type.dim[1]);
    int axis = r->f->value[b->product].type.rank - 1;
    return build_slice(m, r->f, b->product, axis, start, r->old->value[n->in[1]].type.dim[1], n->origin);
}

/* By node: whether weights are computed by it, from parameters and literals alone. */
static bool *makes_weights(const Func *f, const bool *only, Arena *a) {
    bool *makes = arena_array(a, f->n_nodes + 1, sizeof *makes), *used = arena_array(a, f->n_values + 1, sizeof *used);
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        makes[i] = only[n->out] || used[n->out] || op_info(n->op)->klass == OC_SOURCE;
        for (uint32_t k = 0; makes[i] && k < n->n_in; k++)
            if (n->in[k] != NONE) used[n->in[k]] = true;
    }
    return makes;
}

/* What reads x beside product n and is not side by side with it. */
static void tell_apart(const Module *m, const Func *f, const Bundles *bundles, const bool *only,
                       const bool *shared, const bool *adapts) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->op != OP_matmul || only[n->out] || f->value[n->in[1]].type.rank != 2)
            continue;
        const char *why = not_linear(f, n, only, shared);
        for (size_t k = 0; k < bundles->count; k++) {
            const Bundle *b = &bundles->item[k];
            if (b->x != n->in[0] || b->member.item[0] == n)
                continue;
            Str at = node_place(b->member.item[0]);
            if (why)
                remark(m, R_not_side_by_side, f, n, "not beside \"%.*s\", whose input it reads: %s",
                       (int)at.n, at.p, why);
            else if (b->adapter != adapts[n->in[1]] && adapts[n->in[1]])
                remark(m, R_not_side_by_side, f, n,
                       "not beside \"%.*s\", whose input it reads: its weight comes with the adapter, the "
                       "other is frozen",
                       (int)at.n, at.p);
        }
    }
}

static void tell_bundle(const Module *m, const Func *f, const Bundle *b) {
    Text names = {0};
    int64_t width = 0, one;
    for (size_t i = 0; i < b->member.count; i++) {
        Str at = node_place(b->member.item[i]);
        text_printf(&names, "%s\"%.*s\"", i ? " | " : "", (int)at.n, at.p);
        if (dim_is_const(m->dims, f->value[b->member.item[i]->in[1]].type.dim[1], &one))
            width += one;
    }
    remark(m, R_side_by_side, f, b->member.item[0], "one product of %" PRId64 " columns%s: %s", width,
           b->adapter ? " of adapter tensors" : "", names.p);
    text_free(&names);
}

static void side_by_side(Module *m, Func *f, const bool *shared) {
    Arena *scratch = arena_new();
    bool *only = param_only(m, f, scratch), *adapts = adapter_only(m, f, only, scratch);
    const bool *weights = makes_weights(f, only, scratch);
    Bundles bundles = {0};
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (!is_linear(f, n, only, shared)) continue;
        Bundle *b = bundle_of(&bundles, n, adapts);
        if (!b) {
            Bundle fresh = {.x = n->in[0], .adapter = adapts[n->in[1]], .adjoint = is_adjoint(n), .product = NONE};
            vec_push(&bundles, fresh);
            b = &bundles.item[bundles.count - 1];
        }
        vec_push(&b->member, n);
    }
    if (m->remarks) {
        for (size_t i = 0; i < bundles.count; i++)
            if (bundles.item[i].member.count > 1)
                tell_bundle(m, f, &bundles.item[i]);
        tell_apart(m, f, &bundles, only, shared, adapts);
    }
    Remap r = remap_begin(m, scratch, f);
    /* weights first: a bundle stands at its first member and needs the last one's */
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (weights[i]) remap_node(&r, &f->node[i]);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (weights[i]) continue;
        Bundle *b = is_linear(f, n, only, shared) ? bundle_of(&bundles, n, adapts) : NULL;
        if (!b || b->member.count < 2) {
            remap_node(&r, n);
            continue;
        }
        if (b->product == NONE) b->product = bundle_product(&r, b);
        remap_set(&r, n->out, member_slice(&r, b, n));
    }
    for (size_t i = 0; i < bundles.count; i++) vec_free(&bundles.item[i].member);
    vec_free(&bundles);
    remap_end(&r);
    arena_free(scratch);
}

/* ---- concat of the slices of one value, in order and complete, is the value ------------------------------ */

/* The slice that part v of a concatenation is, or whose columns it has in another axis behind them: [..,H*D] as [..,H,D]. */
static const Node *slice_behind(const Func *f, ValueId v) {
    const Node *n = value_node(f, v);
    if (n && n->op == OP_reshape) {
        const Type *t = &f->value[v].type, *from = &f->value[n->in[0]].type;
        if (from->rank < 1 || t->rank != from->rank + 1 || memcmp(t->dim, from->dim, (size_t)(from->rank - 1) * sizeof *t->dim) != 0)
            return NULL;
        n = value_node(f, n->in[0]);
    }
    return n && n->op == OP_slice ? n : NULL;
}

static ValueId whole_behind(const Module *m, const Func *f, const Node *n) {
    const Type *t = &f->value[n->out].type;
    int64_t axis = node_int(n, AT_axis, 0);
    ValueId whole = NONE;
    Dim at = dim_const(m->dims, 0), count = dim_const(m->dims, 1);
    for (uint32_t i = 0; i < n->n_in; i++) {
        const Node *s = slice_behind(f, n->in[i]);
        if (!s || (whole != NONE && s->in[0] != whole)) return NONE;
        whole = s->in[0];
        if (f->value[whole].type.rank != t->rank && (f->value[whole].type.rank != axis + 1 || axis + 2 != t->rank)) return NONE;
        const Attr *start = node_attr(s, AT_start), *step = node_attr(s, AT_step);
        for (uint32_t a = 0; a < start->dims.n; a++)
            if ((step && step->ints.v[a] != 1) || start->dims.v[a] != ((int64_t)a == axis ? at : dim_const(m->dims, 0))) return NONE;
        at = dim_add(m->dims, at, f->value[s->out].type.dim[axis]);
    }
    if (whole == NONE) return NONE;
    for (int a = (int)axis; a < t->rank; a++) count = dim_mul(m->dims, count, t->dim[a]);
    const Type *w = &f->value[whole].type;
    if (w->rank == t->rank) return type_eq(w, t) ? whole : NONE;
    return w->dim[axis] == count && memcmp(w->dim, t->dim, (size_t)axis * sizeof *t->dim) == 0 ? whole : NONE;
}

static void join_slices(Module *m, Func *f, const bool *shared) {
    (void)shared;
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, f);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        ValueId whole = n->op == OP_concat ? whole_behind(m, f, n) : NONE;
        if (whole != NONE) {
            remark(m, R_whole, f, n, "a concatenation of all slices of a value is that value");
            ValueId v = remap_value(&r, whole);
            const Type *t = &f->value[n->out].type;
            remap_set(&r, n->out, f->value[whole].type.rank == t->rank ? v : build_reshape(m, r.f, v, t->rank, t->dim, n->origin));
        } else
            remap_node(&r, n);
    }
    remap_end(&r);
    arena_free(scratch);
}

bool pass_fuse(Module *m, const PassOptions *o, Diag *d) {
    uint32_t n = m->n_funcs;
    typedef void Step(Module *m, Func *f, const bool *shared);
    Arena *scratch = arena_new();
    bool *shared = find_shared(m, scratch);
    static Step *const steps[] = {fold_norms, side_by_side, join_slices};
    bool ok = true;
    for (size_t s = 0; ok && o->opt_level > 0 && s < sizeof steps / sizeof *steps; s++) {
        for (uint32_t i = 0; i < n; i++)
            if (m->func[i] && m->func[i]->role == FR_ENTRY) steps[s](m, m->func[i], shared);
        ok = pass_cse(m, o, d);
    }
    arena_free(scratch);
    if (!ok) return false;
    for (uint32_t i = 0; i < n; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY) keep_caches(m, m->func[i]);
    for (uint32_t i = 0; i < n; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY) hoist(m, m->func[i]);
    for (uint32_t i = 0; i < n; i++)
        if (m->func[i] && m->func[i]->role == FR_ENTRY && !outline(m, m->func[i], d)) return false;
    return true;
}
