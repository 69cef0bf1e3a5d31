/* Arithmetic of symbolic dimensions: interned canonical polynomials.
 *
 * Atoms refer to older Dims only, so recursion through them ends; how deep and how wide it can become is
 * bounded by refusing (DIM_BAD) to make an atom of an expression that is too large. Order is by structure,
 * never by age, so that text read back into a fresh table prints the same. */
#include "dim_impl.h"

#include <string.h>

enum { MAX_DEPTH = 32, MAX_SIZE = 1024 };

/* ---- interning ------------------------------------------------------------------------------- */

static uint64_t poly_hash(const Poly *p) {
    uint64_t h = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        h = hash_bytes(h, &p->term[i].coef, sizeof p->term[i].coef);
        h = hash_bytes(h, p->term[i].atom, p->term[i].degree * sizeof(uint32_t));
    }
    return h;
}

static bool term_same(const Term *a, const Term *b) {
    return a->degree == b->degree && memcmp(a->atom, b->atom, a->degree * sizeof(uint32_t)) == 0;
}

static bool poly_same(const Poly *a, const Poly *b) {
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->term[i].coef != b->term[i].coef || !term_same(&a->term[i], &b->term[i]))
            return false;
    return true;
}

static void rehash(DimTable *t) {
    size_t room = t->room ? t->room * 2 : 256;
    uint32_t *bucket = arena_array(t->arena, room, sizeof *bucket);
    memset(bucket, 0xff, room * sizeof *bucket);
    for (uint32_t d = 0; d < t->poly.count; d++) {
        size_t at = poly_hash(&t->poly.item[d]) & (room - 1);
        while (bucket[at] != UINT32_MAX)
            at = (at + 1) & (room - 1);
        bucket[at] = d;
    }
    t->bucket = bucket;
    t->room = room;
}

/* Room for one more item in a table that lives in the arena. */
static void *more(DimTable *t, void *items, size_t count, size_t *room, size_t size) {
    if (count < *room)
        return items;
    *room = *room ? *room * 2 : 32;
    void *p = arena_array(t->arena, *room, size);
    if (count)
        memcpy(p, items, count * size);
    return p;
}

#define push(t, v, x)                                                                                        \
    ((v)->item = more((t), (v)->item, (v)->count, &(v)->room, sizeof *(v)->item),                            \
     (v)->item[(v)->count++] = (x))

static void measure(const DimTable *t, Poly *p) {
    p->size = 1;
    p->depth = 0;
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t j = 0; j < p->term[i].degree; j++) {
            const Atom *x = &t->atom.item[p->term[i].atom[j]];
            p->size++;
            if (x->kind == ATOM_SYM)
                continue;
            const Poly *a = dim_poly(t, x->a), *b = dim_poly(t, x->b);
            uint32_t deeper = a->depth > b->depth ? a->depth : b->depth;
            p->size += a->size + b->size;
            if (p->depth <= deeper)
                p->depth = deeper + 1;
        }
}

static Dim intern(DimTable *t, const Poly *p) {
    if ((t->poly.count + 1) * 2 > t->room)
        rehash(t);
    size_t at = poly_hash(p) & (t->room - 1);
    for (; t->bucket[at] != UINT32_MAX; at = (at + 1) & (t->room - 1))
        if (poly_same(&t->poly.item[t->bucket[at]], p))
            return t->bucket[at];
    Poly copy = {.n = p->n, .term = arena_copy(t->arena, p->term, p->n * sizeof *p->term)};
    measure(t, &copy);
    push(t, &t->poly, copy);
    return t->bucket[at] = (Dim)(t->poly.count - 1);
}

DimTable *dim_table_new(Arena *a) {
    DimTable *t = arena_alloc(a, sizeof *t);
    t->arena = a;
    dim_const(t, 0);
    return t;
}

/* ---- polynomials -------------------------------------------------------------------------------- */

static int dim_order(const DimTable *t, Dim a, Dim b);

/* Symbols in order of their numbers, then opaque atoms by kind and operands. */
static int atom_order(const DimTable *t, uint32_t i, uint32_t j) {
    if (i == j)
        return 0;
    const Atom *a = &t->atom.item[i], *b = &t->atom.item[j];
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->kind == ATOM_SYM)
        return a->a < b->a ? -1 : 1;
    int first = dim_order(t, a->a, b->a);
    return first ? first : dim_order(t, a->b, b->b);
}

static int term_order(const DimTable *t, const Term *a, const Term *b) {
    if (a->degree != b->degree)
        return a->degree > b->degree ? -1 : 1;
    for (uint32_t i = 0; i < a->degree; i++)
        if (a->atom[i] != b->atom[i])
            return atom_order(t, a->atom[i], b->atom[i]);
    return 0;
}

static int dim_order(const DimTable *t, Dim a, Dim b) {
    if (a == b)
        return 0;
    const Poly *x = dim_poly(t, a), *y = dim_poly(t, b);
    for (uint32_t i = 0; i < x->n && i < y->n; i++) {
        int order = term_order(t, &x->term[i], &y->term[i]);
        if (order)
            return order;
        if (x->term[i].coef != y->term[i].coef)
            return x->term[i].coef < y->term[i].coef ? -1 : 1;
    }
    return x->n < y->n ? -1 : 1;
}

/* Adds a term into an ordered list in place. False on overflow or when the list is full. */
static bool put_term(const DimTable *t, Term *list, uint32_t *n, const Term *x) {
    uint32_t i = 0;
    while (i < *n && term_order(t, &list[i], x) < 0)
        i++;
    if (i < *n && term_order(t, &list[i], x) == 0) {
        if (!add_i64(list[i].coef, x->coef, &list[i].coef))
            return false;
        if (list[i].coef == 0)
            memmove(&list[i], &list[i + 1], (--*n - i) * sizeof *list);
        return true;
    }
    if (x->coef == 0)
        return true;
    if (*n == DIM_MAX_TERMS)
        return false;
    memmove(&list[i + 1], &list[i], (*n - i) * sizeof *list);
    list[i] = *x;
    ++*n;
    return true;
}

Dim dim_const(DimTable *t, int64_t v) {
    Term one = {.coef = v};
    Poly p = {.n = v != 0, .term = &one};
    return intern(t, &p);
}

static Dim atom_dim(DimTable *t, AtomKind kind, uint32_t a, uint32_t b) {
    uint32_t i = 0;
    for (; i < t->atom.count; i++)
        if (t->atom.item[i].kind == kind && t->atom.item[i].a == a && t->atom.item[i].b == b)
            break;
    if (i == t->atom.count) {
        Atom x = {kind, a, b};
        push(t, &t->atom, x);
    }
    Term one = {.coef = 1, .degree = 1, .atom = {i}};
    Poly p = {.n = 1, .term = &one};
    return intern(t, &p);
}

Dim dim_sym(DimTable *t, Str name) {
    for (uint32_t i = 0; i < t->sym.count; i++)
        if (str_eq(t->sym.item[i].name, name))
            return atom_dim(t, ATOM_SYM, i, 0);
    DimSym s = {{arena_strndup(t->arena, name.p, name.n), name.n}, 0, DIM_UNBOUNDED};
    push(t, &t->sym, s);
    return atom_dim(t, ATOM_SYM, (uint32_t)(t->sym.count - 1), 0);
}

size_t dim_sym_count(const DimTable *t) {
    return t->sym.count;
}

DimSym *dim_sym_at(const DimTable *t, uint32_t sym) {
    return &t->sym.item[sym];
}

Dim dim_add(DimTable *t, Dim a, Dim b) {
    if (a == DIM_BAD || b == DIM_BAD)
        return DIM_BAD;
    Term list[DIM_MAX_TERMS + 1];
    uint32_t n = dim_poly(t, a)->n;
    memcpy(list, dim_poly(t, a)->term, n * sizeof *list);
    const Poly *pb = dim_poly(t, b);
    for (uint32_t i = 0; i < pb->n; i++)
        if (!put_term(t, list, &n, &pb->term[i]))
            return DIM_BAD;
    Poly p = {.n = n, .term = list};
    return intern(t, &p);
}

static bool term_mul(const DimTable *t, const Term *a, const Term *b, Term *out) {
    if (a->degree + b->degree > DIM_MAX_DEGREE || !mul_i64(a->coef, b->coef, &out->coef))
        return false;
    uint32_t i = 0, j = 0;
    out->degree = 0;
    while (i < a->degree || j < b->degree) {
        bool take = j == b->degree || (i < a->degree && atom_order(t, a->atom[i], b->atom[j]) <= 0);
        out->atom[out->degree++] = take ? a->atom[i++] : b->atom[j++];
    }
    return true;
}

Dim dim_mul(DimTable *t, Dim a, Dim b) {
    if (a == DIM_BAD || b == DIM_BAD)
        return DIM_BAD;
    Term list[DIM_MAX_TERMS + 1], x = {0};
    uint32_t n = 0;
    const Poly *pa = dim_poly(t, a), *pb = dim_poly(t, b);
    for (uint32_t i = 0; i < pa->n; i++)
        for (uint32_t j = 0; j < pb->n; j++)
            if (!term_mul(t, &pa->term[i], &pb->term[j], &x) || !put_term(t, list, &n, &x))
                return DIM_BAD;
    Poly p = {.n = n, .term = list};
    return intern(t, &p);
}

Dim dim_sub(DimTable *t, Dim a, Dim b) {
    return dim_add(t, a, dim_mul(t, dim_const(t, -1), b));
}

bool dim_is_const(const DimTable *t, Dim d, int64_t *v) {
    if (d == DIM_BAD)
        return false;
    const Poly *p = dim_poly(t, d);
    if (p->n > 1 || (p->n == 1 && p->term[0].degree > 0))
        return false;
    if (v)
        *v = p->n ? p->term[0].coef : 0;
    return true;
}

bool dim_is(const DimTable *t, Dim d, int64_t v) {
    int64_t x;
    return dim_is_const(t, d, &x) && x == v;
}

bool dim_as_sym(const DimTable *t, Dim d, uint32_t *sym) {
    if (d == DIM_BAD)
        return false;
    const Poly *p = dim_poly(t, d);
    if (p->n != 1 || p->term[0].coef != 1 || p->term[0].degree != 1)
        return false;
    const Atom *a = &t->atom.item[p->term[0].atom[0]];
    if (a->kind != ATOM_SYM)
        return false;
    *sym = a->a;
    return true;
}

/* ---- division, remainder, minimum, maximum --------------------------------------------------------- */

static Dim opaque(DimTable *t, AtomKind kind, Dim a, Dim b) {
    const Poly *x = dim_poly(t, a), *y = dim_poly(t, b);
    if (x->depth >= MAX_DEPTH || y->depth >= MAX_DEPTH || x->size + y->size > MAX_SIZE)
        return DIM_BAD;
    return atom_dim(t, kind, a, b);
}

static int64_t floor_div(int64_t a, int64_t b) {
    CHECK(b != 0);
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

/* a / b when b is one term and divides every term of a. */
static bool exact_div(DimTable *t, Dim a, Dim b, Dim *out) {
    const Poly *pa = dim_poly(t, a), *pb = dim_poly(t, b);
    if (pb->n != 1)
        return false;
    const Term *d = &pb->term[0];
    Term list[DIM_MAX_TERMS + 1];
    uint32_t n = 0;
    for (uint32_t i = 0; i < pa->n; i++) {
        const Term *x = &pa->term[i];
        Term q = {0};
        if (d->coef == -1 ? x->coef == INT64_MIN : x->coef % d->coef != 0)
            return false;
        q.coef = x->coef / d->coef;
        uint32_t k = 0;
        for (uint32_t j = 0; j < x->degree; j++)
            if (k < d->degree && d->atom[k] == x->atom[j])
                k++;
            else
                q.atom[q.degree++] = x->atom[j];
        if (k != d->degree || !put_term(t, list, &n, &q))
            return false;
    }
    Poly p = {.n = n, .term = list};
    *out = intern(t, &p);
    return true;
}

Dim dim_floordiv(DimTable *t, Dim a, Dim b) {
    int64_t x, y;
    Dim q;
    if (a == DIM_BAD || b == DIM_BAD || dim_is(t, b, 0))
        return DIM_BAD;
    if (dim_is_const(t, a, &x) && dim_is_const(t, b, &y))
        return y == -1 && x == INT64_MIN ? DIM_BAD : dim_const(t, floor_div(x, y));
    if (a == b)
        return dim_const(t, 1);
    if (exact_div(t, a, b, &q))
        return q;
    /* a multi-term divisor that is a factor: try the quotient of the leading terms */
    const Poly *pa = dim_poly(t, a), *pb = dim_poly(t, b);
    if (pa->n && pb->n > 1) {
        Poly la = {.n = 1, .term = pa->term}, lb = {.n = 1, .term = pb->term};
        Dim lead;
        if (exact_div(t, intern(t, &la), intern(t, &lb), &lead) && dim_mul(t, lead, b) == a)
            return lead;
    }
    return opaque(t, ATOM_FLOORDIV, a, b);
}

Dim dim_mod(DimTable *t, Dim a, Dim b) {
    int64_t x, y;
    Dim q;
    if (a == DIM_BAD || b == DIM_BAD || dim_is(t, b, 0))
        return DIM_BAD;
    if (dim_is_const(t, a, &x) && dim_is_const(t, b, &y))
        return y == -1 ? dim_const(t, 0) : dim_const(t, x - floor_div(x, y) * y);
    if (a == b || exact_div(t, a, b, &q))
        return dim_const(t, 0);
    return opaque(t, ATOM_MOD, a, b);
}

/* Which of a, b is provably not above the other: -1 a, 1 b, 0 unknown. */
static int smaller(DimTable *t, Dim a, Dim b) {
    Dim d = dim_sub(t, a, b);
    if (d == DIM_BAD)
        return 0;
    if (dim_upper(t, d) <= 0)
        return -1;
    return dim_lower(t, d) >= 0 ? 1 : 0;
}

Dim dim_min(DimTable *t, Dim a, Dim b) {
    if (a == DIM_BAD || b == DIM_BAD)
        return DIM_BAD;
    int s = smaller(t, a, b);
    if (s)
        return s < 0 ? a : b;
    return dim_order(t, a, b) < 0 ? opaque(t, ATOM_MIN, a, b) : opaque(t, ATOM_MIN, b, a);
}

Dim dim_max(DimTable *t, Dim a, Dim b) {
    if (a == DIM_BAD || b == DIM_BAD)
        return DIM_BAD;
    int s = smaller(t, a, b);
    if (s)
        return s < 0 ? b : a;
    return dim_order(t, a, b) < 0 ? opaque(t, ATOM_MAX, a, b) : opaque(t, ATOM_MAX, b, a);
}

/* ---- evaluation --------------------------------------------------------------------------------------- */

static bool eval_atom(const DimTable *t, uint32_t atom, const int64_t *syms, int64_t *out) {
    const Atom *a = &t->atom.item[atom];
    int64_t x, y;
    if (a->kind == ATOM_SYM) {
        *out = syms[a->a];
        return true;
    }
    if (!dim_eval(t, a->a, syms, &x) || !dim_eval(t, a->b, syms, &y))
        return false;
    bool divides = a->kind == ATOM_FLOORDIV || a->kind == ATOM_MOD;
    if (divides && (y == 0 || (y == -1 && x == INT64_MIN)))
        return false;
    switch (a->kind) {
    case ATOM_FLOORDIV:
        *out = floor_div(x, y);
        break;
    case ATOM_MOD:
        *out = x - floor_div(x, y) * y;
        break;
    case ATOM_MIN:
        *out = x < y ? x : y;
        break;
    default:
        *out = x > y ? x : y;
    }
    return true;
}

bool dim_eval(const DimTable *t, Dim d, const int64_t *syms, int64_t *out) {
    if (d == DIM_BAD)
        return false;
    const Poly *p = dim_poly(t, d);
    int64_t sum = 0, x;
    for (uint32_t i = 0; i < p->n; i++) {
        int64_t product = p->term[i].coef;
        for (uint32_t j = 0; j < p->term[i].degree; j++)
            if (!eval_atom(t, p->term[i].atom[j], syms, &x) || !mul_i64(product, x, &product))
                return false;
        if (!add_i64(sum, product, &sum))
            return false;
    }
    *out = sum;
    return true;
}

static void *fold_atom(const DimTable *t, uint32_t atom, const DimAlgebra *how, void *ctx) {
    static const DimOp op[] = {[ATOM_FLOORDIV] = DIM_FLOORDIV, [ATOM_MOD] = DIM_MOD, [ATOM_MIN] = DIM_MIN, [ATOM_MAX] = DIM_MAX};
    const Atom *a = &t->atom.item[atom];
    if (a->kind == ATOM_SYM)
        return how->symbol(ctx, a->a);
    void *x = dim_fold(t, a->a, how, ctx);
    return how->op(ctx, op[a->kind], x, dim_fold(t, a->b, how, ctx));
}

void *dim_fold(const DimTable *t, Dim d, const DimAlgebra *how, void *ctx) {
    CHECK(d != DIM_BAD);
    const Poly *p = dim_poly(t, d);
    void *sum = NULL;
    for (uint32_t i = 0; i < p->n; i++) {
        const Term *x = &p->term[i];
        void *product = x->coef != 1 || x->degree == 0 ? how->constant(ctx, x->coef) : NULL;
        for (uint32_t j = 0; j < x->degree; j++) {
            void *a = fold_atom(t, x->atom[j], how, ctx);
            product = product ? how->op(ctx, DIM_MUL, product, a) : a;
        }
        sum = sum ? how->op(ctx, DIM_ADD, sum, product) : product;
    }
    return sum ? sum : how->constant(ctx, 0);
}

/* ---- bounds: interval arithmetic where INT64_MIN and DIM_UNBOUNDED stand for infinities ------------------
 */

typedef struct Range {
    int64_t lo, hi;
} Range;

static bool infinite(int64_t v) {
    return v == INT64_MIN || v == DIM_UNBOUNDED;
}

static int64_t sat_mul(int64_t a, int64_t b) {
    int64_t r;
    if (a == 0 || b == 0)
        return 0;
    if (!infinite(a) && !infinite(b) && mul_i64(a, b, &r))
        return r;
    return (a < 0) != (b < 0) ? INT64_MIN : DIM_UNBOUNDED;
}

static int64_t sat_add(int64_t a, int64_t b, int64_t toward) {
    int64_t r;
    if (infinite(a) || infinite(b))
        return a == toward || b == toward ? toward : infinite(a) ? a : b;
    return add_i64(a, b, &r) ? r : a < 0 ? INT64_MIN : DIM_UNBOUNDED;
}

static Range range_mul(Range a, Range b) {
    int64_t c[4] = {sat_mul(a.lo, b.lo), sat_mul(a.lo, b.hi), sat_mul(a.hi, b.lo), sat_mul(a.hi, b.hi)};
    Range r = {c[0], c[0]};
    for (int i = 1; i < 4; i++) {
        if (c[i] < r.lo)
            r.lo = c[i];
        if (c[i] > r.hi)
            r.hi = c[i];
    }
    return r;
}

static Range dim_range(const DimTable *t, Dim d);

static int64_t sat_floor_div(int64_t a, int64_t b) {
    return infinite(a) ? a : infinite(b) ? (a < 0 ? -1 : 0) : floor_div(a, b);
}

static Range atom_range(const DimTable *t, uint32_t atom) {
    const Atom *a = &t->atom.item[atom];
    if (a->kind == ATOM_SYM)
        return (Range){t->sym.item[a->a].lo, t->sym.item[a->a].hi};
    Range x = dim_range(t, a->a), y = dim_range(t, a->b), r = {INT64_MIN, DIM_UNBOUNDED};
    switch (a->kind) {
    case ATOM_FLOORDIV:
        if (y.lo < 1)
            return r;
        r.lo = sat_floor_div(x.lo, x.lo < 0 ? y.lo : y.hi);
        r.hi = sat_floor_div(x.hi, x.hi < 0 ? y.hi : y.lo);
        return r;
    case ATOM_MOD:
        if (y.lo < 1)
            return r;
        return (Range){0, infinite(y.hi) ? DIM_UNBOUNDED : y.hi - 1};
    case ATOM_MIN:
        return (Range){x.lo < y.lo ? x.lo : y.lo, x.hi < y.hi ? x.hi : y.hi};
    default:
        return (Range){x.lo > y.lo ? x.lo : y.lo, x.hi > y.hi ? x.hi : y.hi};
    }
}

static Range dim_range(const DimTable *t, Dim d) {
    if (d == DIM_BAD)
        return (Range){INT64_MIN, DIM_UNBOUNDED};
    const Poly *p = dim_poly(t, d);
    Range sum = {0, 0};
    for (uint32_t i = 0; i < p->n; i++) {
        Range product = {p->term[i].coef, p->term[i].coef};
        for (uint32_t j = 0; j < p->term[i].degree; j++)
            product = range_mul(product, atom_range(t, p->term[i].atom[j]));
        sum.lo = sat_add(sum.lo, product.lo, INT64_MIN);
        sum.hi = sat_add(sum.hi, product.hi, DIM_UNBOUNDED);
    }
    return sum;
}

int64_t dim_lower(const DimTable *t, Dim d) {
    return dim_range(t, d).lo;
}

int64_t dim_upper(const DimTable *t, Dim d) {
    return dim_range(t, d).hi;
}

/* ---- substitution
 * ------------------------------------------------------------------------------------------ */

Dim dim_subst(DimTable *t, Dim d, uint32_t sym, Dim by) {
    if (d == DIM_BAD)
        return d;
    Dim sum = dim_const(t, 0);
    uint32_t n = dim_poly(t, d)->n;
    for (uint32_t i = 0; i < n; i++) {
        Term x = dim_poly(t, d)->term[i];
        Dim product = dim_const(t, x.coef);
        for (uint32_t j = 0; j < x.degree; j++) {
            Atom a = t->atom.item[x.atom[j]];
            Dim f;
            if (a.kind == ATOM_SYM)
                f = a.a == sym ? by : atom_dim(t, ATOM_SYM, a.a, 0);
            else {
                Dim l = dim_subst(t, a.a, sym, by), r = dim_subst(t, a.b, sym, by);
                f = a.kind == ATOM_FLOORDIV ? dim_floordiv(t, l, r)
                    : a.kind == ATOM_MOD    ? dim_mod(t, l, r)
                    : a.kind == ATOM_MIN    ? dim_min(t, l, r)
                                            : dim_max(t, l, r);
            }
            product = dim_mul(t, product, f);
        }
        sum = dim_add(t, sum, product);
    }
    return sum;
}

void dim_visit(const DimTable *t, Dim d, void (*visit)(void *ctx, uint32_t sym), void *ctx) {
    if (d == DIM_BAD)
        return;
    const Poly *p = dim_poly(t, d);
    for (uint32_t i = 0; i < p->n; i++)
        for (uint32_t j = 0; j < p->term[i].degree; j++) {
            const Atom *a = &t->atom.item[p->term[i].atom[j]];
            if (a->kind == ATOM_SYM)
                visit(ctx, a->a);
            else {
                dim_visit(t, a->a, visit, ctx);
                dim_visit(t, a->b, visit, ctx);
            }
        }
}
