/* match: what is added to attention scores.
 *
 * The sum of the added values at position (b, h, i, j) is taken apart as an index function. It has to be a
 * function of h, of the distance d = j - i and of one element mask[b, j]; then evaluating it for every head
 * and every distance the bounds allow, with the mask element 1 and 0, says all there is to know: where it is
 * hugely negative the key is hidden, elsewhere its value is the bias. Nothing depends on how exporters spell
 * the masks. */
#include "match_impl.h"

#include <math.h>
#include <string.h>

/* Scores below this are hidden keys: exporters write -FLT_MAX, -65504 or -10000. */
#define HIDDEN (-5000.0)

enum { MAX_DISTANCES = 1 << 21, MAX_SAMPLES = 1 << 26 };

typedef struct Sums {
    Matcher *mt;
    Additive *ad;
    Index *x;
    IxId root; /* in terms of d instead of j */
    IxPlan plan;
    int64_t dlo, dhi, heads, rows, cols;
    uint32_t b_sym, h_sym, i_sym, d_sym; /* NONE: a constant 0 */
    bool by_row;                         /* depends on i too: every row has to be looked at */
    bool by_batch;                       /* and on b */
    int64_t batches;
    ValueId mask;        /* input, or NONE */
    IxId table;          /* an element of a parameter [bucket, h], or IX_FAIL */
    double *open, *shut; /* [distance][head], mask element 1 and 0 */
    int64_t *bucket;     /* [distance] */
    bool from_table;
} Sums;

static bool refuse(Additive *ad, const Node *where, const char *why) {
    ad->why = why;
    ad->where = where;
    return false;
}

IxId match_axis(Matcher *mt, int axis, Dim extent) {
    if (mt->axis[axis].extent != extent || mt->axis[axis].at == IX_FAIL) {
        mt->axis[axis].extent = extent;
        mt->axis[axis].at = index_var(mt->x, extent);
    }
    return mt->axis[axis].at;
}

/* The symbol of an axis variable; NONE where the extent is 1. */
static uint32_t axis_sym(Index *x, IxId at) {
    uint32_t s;
    return dim_as_sym(index_dims(x), index_expr(x, at)->d, &s) ? s : NONE;
}

/* The sum of the leaves at (b, h, i, j). */
static IxId pull_sum(Sums *s, const IxId *at) {
    Matcher *mt = s->mt;
    IxId sum = IX_FAIL;
    for (uint32_t k = 0; k < s->ad->n_leaf; k++) {
        const Type *t = &mt->f->value[s->ad->leaf[k]].type;
        IxId mine[4] = {0};
        for (int i = 0; i < t->rank; i++)
            mine[i] = dim_is(mt->m->dims, t->dim[i], 1) ? index_int(s->x, dim_const(index_dims(s->x), 0))
                                                        : at[4 - t->rank + i];
        IxId e = index_pull(s->x, s->ad->leaf[k], mine, IX_WHOLE);
        if (e == IX_FAIL)
            return e;
        sum = sum == IX_FAIL ? e : index_op(s->x, OP_add, t->dtype, (IxId[]){sum, e}, 2);
    }
    return sum;
}

typedef struct Seen {
    const Sums *s;
    bool row, batch, other;
} Seen;

static void see_symbol(void *ctx, uint32_t sym) {
    Seen *seen = ctx;
    if (sym == seen->s->i_sym)
        seen->row = true;
    else if (sym == seen->s->b_sym)
        seen->batch = true;
    else if (sym != seen->s->h_sym && sym != seen->s->d_sym)
        seen->other = true;
}

/* Checks what the sum depends on, and finds its mask and its table. */
static bool survey(Sums *s, IxId b, IxId key) {
    Index *x = s->x;
    const Func *f = s->mt->f;
    Seen seen = {s, false, false, false};
    for (uint32_t k = 0; k < s->plan.n; k++) {
        IxId id = s->plan.id[k];
        const IxExpr *e = index_expr(x, id);
        if (e->kind == IX_INT)
            dim_visit(index_dims(x), e->d, see_symbol, &seen);
        if (e->kind != IX_ELEM)
            continue;
        const Value *v = &f->value[e->value];
        if (v->kind == VK_INPUT) {
            if (e->n_arg != 2 || index_arg(x, id, 0) != b || index_arg(x, id, 1) != key)
                return refuse(s->ad, NULL, "an input is read at a position other than [batch, key]");
            if (s->mask != NONE && s->mask != e->value)
                return refuse(s->ad, NULL, "two inputs decide which keys are seen");
            s->mask = e->value;
        } else if (v->kind == VK_PARAM && e->n_arg == 2 && dtype_is_float(e->dtype) && s->table == IX_FAIL) {
            const IxExpr *head = index_expr(x, index_arg(x, id, 1));
            uint32_t sym;
            bool zero = head->kind == IX_INT && dim_is(index_dims(x), head->d, 0) && s->heads == 1;
            if (zero || (head->kind == IX_INT && dim_as_sym(index_dims(x), head->d, &sym) && sym == s->h_sym))
                s->table = id;
        }
    }
    if (seen.other)
        return refuse(s->ad, NULL,
                      "what is added to the scores depends on more than head, distance and key mask");
    s->by_row = seen.row;
    s->by_batch = seen.batch;
    return true;
}

/* Which expressions change with the head: the others are computed once a distance. */
static bool *depends_on_head(Sums *s) {
    Index *x = s->x;
    bool *dep = arena_array(s->mt->a, index_count(x), sizeof *dep);
    for (uint32_t k = 0; k < s->plan.n; k++) {
        IxId id = s->plan.id[k];
        const IxExpr *e = index_expr(x, id);
        if (e->kind == IX_INT) {
            Seen seen = {&(Sums){.b_sym = NONE, .h_sym = NONE, .i_sym = s->h_sym, .d_sym = NONE}, false,
                         false, false};
            if (s->h_sym != NONE)
                dim_visit(index_dims(x), e->d, see_symbol, &seen);
            dep[id] = seen.row;
        }
        if (e->kind == IX_ELEM && s->mt->f->value[e->value].kind == VK_INPUT)
            continue;
        for (uint32_t i = 0; i < e->n_arg; i++)
            dep[id] |= dep[index_arg(x, id, i)];
    }
    return dep;
}

/* One value of the sum: query row i of batch b at distance d. `first`: nothing to compare with yet. */
static bool sample_one(Sums *s, int64_t d, int64_t h, bool on, bool first, const bool *changed,
                       const int64_t *syms, IxNum *num) {
    Additive *ad = s->ad;
    if (!index_eval(s->x, &s->plan, syms, on, changed, num)) {
        ad->why = index_why(s->x, &ad->where);
        return false;
    }
    double v = index_number(s->x, s->root, num);
    if (num[s->root].bad || v != v)
        return refuse(ad, NULL, "what is added to the scores is not a number for some distance");
    double *cell = (on ? s->open : s->shut) + (d - s->dlo) * s->heads + h;
    if (!first && *cell != v)
        return refuse(ad, NULL, "what is added to the scores depends on more than the distance");
    *cell = v;
    if (!on || s->table == IX_FAIL || v < HIDDEN)
        return true;
    const IxNum *at = &num[index_arg(s->x, s->table, 0)];
    int64_t *bucket = &s->bucket[d - s->dlo];
    if (num[s->table].bad || num[s->table].f != v || (h && *bucket != at->i) || !first)
        s->from_table = false;
    *bucket = at->i;
    return true;
}

static void set_sym(int64_t *syms, uint32_t sym, int64_t v) {
    if (sym != NONE)
        syms[sym] = v;
}

/* Fills open, shut and bucket. */
static bool sample(Sums *s) {
    Index *x = s->x;
    int64_t n = s->dhi - s->dlo + 1, work = n * s->heads, again = 1;
    if (!mul_i64(s->by_row ? s->rows : 1, s->by_batch ? s->batches : 1, &again) || n > MAX_DISTANCES ||
        s->heads > MAX_SAMPLES || work > MAX_SAMPLES || again > MAX_SAMPLES || work > MAX_SAMPLES / again)
        return refuse(s->ad, NULL, "the bounds of the sequence length are too large: give smaller ones");
    size_t n_syms = dim_sym_count(index_dims(x));
    int64_t *syms = arena_array(s->mt->a, n_syms + 1, sizeof *syms);
    IxNum *num = arena_array(s->mt->a, index_count(x), sizeof *num);
    bool *dep = depends_on_head(s);
    s->open = arena_array(s->mt->a, (size_t)work, sizeof *s->open);
    s->shut = arena_array(s->mt->a, (size_t)work, sizeof *s->shut);
    s->bucket = arena_array(s->mt->a, (size_t)n, sizeof *s->bucket);
    s->from_table = s->table != IX_FAIL;
    for (int64_t d = s->dlo; d <= s->dhi; d++) {
        int64_t i0 = 0, i1 = 0, batches = s->by_batch ? s->batches : 1;
        if (s->by_row) {
            i0 = d < 0 ? -d : 0;
            i1 = s->cols - 1 - d < s->rows - 1 ? s->cols - 1 - d : s->rows - 1;
        }
        set_sym(syms, s->d_sym, d);
        for (int64_t k = 0; k < (i1 - i0 + 1) * batches; k++) {
            set_sym(syms, s->i_sym, i0 + k / batches);
            set_sym(syms, s->b_sym, k % batches);
            for (int on = 1; on >= (s->mask == NONE ? 1 : 0); on--)
                for (int64_t h = 0; h < s->heads; h++) {
                    set_sym(syms, s->h_sym, h);
                    if (!sample_one(s, d, h, on, k == 0, h ? dep : NULL, syms, num))
                        return false;
                }
        }
    }
    return true;
}

/* Is every head hidden at distance d, or every one seen? */
static bool hidden(const Sums *s, const double *of, int64_t d, bool *out) {
    const double *v = of + (d - s->dlo) * s->heads;
    *out = v[0] < HIDDEN;
    for (int64_t h = 1; h < s->heads; h++)
        if ((v[h] < HIDDEN) != *out)
            return false;
    return true;
}

static bool find_masks(Sums *s) {
    Additive *ad = s->ad;
    bool h;
    for (int64_t d = s->dlo; d <= s->dhi; d++) {
        if (!hidden(s, s->open, d, &h) || (h && d <= 0) || (d > 1 && h != ad->causal))
            return refuse(ad, NULL, "keys are hidden by distance, but not just the later ones");
        if (d == 1)
            ad->causal = h;
    }
    if (s->mask == NONE)
        return true;
    for (int64_t d = s->dlo; d <= s->dhi; d++)
        if (!hidden(s, s->shut, d, &h) || !h)
            return refuse(ad, NULL, "an input is added to the scores that does not hide keys where it is 0");
    return true;
}

static bool same_column(const Sums *s, int64_t a, int64_t b) {
    if (s->from_table)
        return s->bucket[a] == s->bucket[b];
    return memcmp(s->open + a * s->heads, s->open + b * s->heads, (size_t)s->heads * sizeof *s->open) == 0;
}

/* The row of biases by distance, its constant ends cut off. */
static void make_row(Sums *s) {
    Matcher *mt = s->mt;
    Module *m = mt->m;
    int64_t zero = -s->dlo, n = s->ad->causal ? zero + 1 : s->dhi - s->dlo + 1, lo = 0, hi = n - 1;
    bool any = false;
    for (int64_t i = 0; i < n * s->heads && !any; i++)
        any = s->open[i] != 0;
    s->ad->bias = NONE;
    if (!any)
        return;
    while (lo < zero && same_column(s, lo, lo + 1))
        lo++;
    while (hi > zero && same_column(s, hi, hi - 1))
        hi--;
    s->ad->center = zero - lo;
    int64_t width = hi - lo + 1;
    if (s->from_table) {
        Tensor idx = {DT_I64, 1, {width}, NULL};
        CHECK(tensor_alloc(m->arena, &idx));
        for (int64_t i = 0; i < width; i++)
            tensor_set_i64(&idx, i, s->bucket[lo + i]);
        Attr value = attr_t(AT_value, idx), axis = attr_i(AT_axis, 0);
        ValueId in[2] = {remap_value(&mt->r, index_expr(s->x, s->table)->value), NONE};
        Str origin = {0};
        in[1] = func_node(m, mt->r.f, OP_const, NULL, 0, &value, 1, origin);
        ValueId row = func_node(m, mt->r.f, OP_gather, in, 2, &axis, 1, origin);
        row = build_cast(m, mt->r.f, row, DT_F32, origin);
        s->ad->bias = build_transpose(m, mt->r.f, row, (int64_t[]){1, 0}, origin);
        return;
    }
    Tensor t = {DT_F32, 2, {s->heads, width}, NULL};
    CHECK(tensor_alloc(m->arena, &t));
    for (int64_t h = 0; h < s->heads; h++)
        for (int64_t i = 0; i < width; i++)
            tensor_set_f64(&t, h * width + i, s->open[(lo + i) * s->heads + h]);
    Param p = {.name = str_c("bias_row"),
               .kind = PK_CONST,
               .dtype = DT_F32,
               .rank = 2,
               .dim = {s->heads, width},
               .data = t.data,
               .init = NONE};
    s->ad->bias = func_param(m, mt->r.f, module_param(m, p));
}

static void make_keep(Sums *s) {
    Matcher *mt = s->mt;
    s->ad->keep = NONE;
    if (s->mask == NONE)
        return;
    ValueId v = remap_value(&mt->r, s->mask);
    DType t = mt->r.f->value[v].type.dtype;
    Str origin = {0};
    s->ad->keep =
        t == DT_BOOL ? v : build_binary(mt->m, mt->r.f, OP_ne, v, build_scalar(mt->m, mt->r.f, t, 0), origin);
}

static bool analyse(Matcher *mt, Additive *ad) {
    DimTable *md = mt->m->dims;
    Sums s = {.mt = mt, .ad = ad, .x = mt->x, .mask = NONE, .table = IX_FAIL};
    if (!dim_is_const(md, ad->scores.dim[1], &s.heads) || s.heads < 1)
        return refuse(ad, NULL, "the number of heads is not a constant");
    int64_t rows = dim_upper(md, ad->scores.dim[2]), cols = dim_upper(md, ad->scores.dim[3]);
    if (rows > MAX_DISTANCES || cols > MAX_DISTANCES || rows < 1 || cols < 1)
        return refuse(ad, NULL, "a sequence length has no usable bound: give one");
    s.rows = rows;
    s.cols = cols;
    s.dlo = 1 - rows;
    s.dhi = cols - 1;
    IxId at[4];
    for (int i = 0; i < 4; i++)
        at[i] = match_axis(mt, i, ad->scores.dim[i]);
    if (ad->n_leaf == 0) {
        ad->bias = ad->keep = NONE;
        return true;
    }
    IxId sum = pull_sum(&s, at);
    if (sum == IX_FAIL) {
        ad->why = index_why(mt->x, &ad->where);
        return false;
    }
    s.b_sym = axis_sym(mt->x, at[0]);
    s.h_sym = axis_sym(mt->x, at[1]);
    s.i_sym = axis_sym(mt->x, at[2]);
    uint32_t j = axis_sym(mt->x, at[3]);
    IxId key = at[3];
    s.root = sum;
    s.d_sym = NONE;
    if (j != NONE) {
        Dim d = index_symbol(mt->x, s.dlo, s.dhi);
        CHECK(dim_as_sym(index_dims(mt->x), d, &s.d_sym));
        Dim by = dim_add(index_dims(mt->x), d, index_expr(mt->x, at[2])->d);
        s.root = index_subst(mt->x, sum, j, by);
        key = index_subst(mt->x, key, j, by);
    }
    if (s.root == IX_FAIL || key == IX_FAIL) {
        ad->why = index_why(mt->x, &ad->where);
        return false;
    }
    s.plan = index_plan(mt->x, s.root, true);
    if (!survey(&s, at[0], key))
        return false;
    if (s.by_batch && !dim_is_const(md, ad->scores.dim[0], &s.batches))
        return refuse(ad, NULL,
                      "what is added to the scores depends on more than head, distance and key mask");
    if (s.by_row &&
        (!dim_is_const(md, ad->scores.dim[2], NULL) || !dim_is_const(md, ad->scores.dim[3], NULL)))
        return refuse(ad, NULL,
                      "what is added to the scores depends on more than the distance of query and key");
    if (!sample(&s) || !find_masks(&s))
        return false;
    make_row(&s);
    make_keep(&s);
    return true;
}

Additive *match_additive(Matcher *mt, const ValueId *leaf, uint32_t n, const Type *scores) {
    for (size_t i = 0; i < mt->additive.count; i++) {
        Additive *ad = mt->additive.item[i];
        if (ad->n_leaf == n && type_eq(&ad->scores, scores) && memcmp(ad->leaf, leaf, n * sizeof *leaf) == 0)
            return ad;
    }
    Additive *ad = arena_alloc(mt->a, sizeof *ad);
    memcpy(ad->leaf, leaf, n * sizeof *leaf);
    ad->n_leaf = n;
    ad->scores = *scores;
    ad->bias = ad->keep = NONE;
    ad->ok = analyse(mt, ad);
    vec_push(&mt->additive, ad);
    return ad;
}
