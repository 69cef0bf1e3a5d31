/* Constructors of the loop IR. Index arithmetic folds here, so lowering code may be written plainly and the printed
 * kernels still read as if by hand. */
#include "loop.h"

#include <string.h>

const char *const loop_op_name[LO_COUNT] = {
#define X(id, name) #name,
    LOOP_OPS(X)
#undef X
};

LoopKernel *loop_kernel_new(Module *m, Arena *a, Str name) {
    LoopKernel *k = arena_alloc(a, sizeof *k);
    k->m = m;
    k->arena = a;
    k->name = name;
    return k;
}

void loop_kernel_free(LoopKernel *k) {
    if (!k) return;
    vec_free(&k->buf);
    vec_free(&k->var);
}

LBuf *loop_buf(LoopKernel *k, LBufKind kind, DType t, Str hint) {
    LBuf *b = arena_alloc(k->arena, sizeof *b);
    b->kind = kind;
    b->dtype = t;
    b->id = (uint32_t)k->buf.count;
    b->hint = hint;
    vec_push(&k->buf, b);
    return b;
}

/* `bytes` more behind *end. */
static LBuf *scratch_behind(LoopKernel *k, int64_t *end, DType t, int64_t bytes, Str hint) {
    int64_t rounded, next;
    if (bytes < 0 || !add_i64(bytes, 63, &rounded) || !add_i64(*end, rounded & ~(int64_t)63, &next) ||
        next >= MOEC_MAX_TENSOR)
        return NULL;
    LBuf *b = loop_buf(k, LB_SCRATCH, t, hint);
    b->offset = *end;
    b->end = *end = next;
    return b;
}

LBuf *loop_scratch(LoopKernel *k, DType t, int64_t bytes, Str hint) {
    return scratch_behind(k, &k->scratch, t, bytes, hint);
}

LBuf *loop_own_scratch(LoopKernel *k, DType t, int64_t bytes, Str hint) {
    LBuf *b = scratch_behind(k, &k->own, t, bytes, hint);
    if (b) b->own = true;
    if (k->own > k->own_end) k->own_end = k->own;
    return b;
}

/* ---- expressions ------------------------------------------------------------------------------ */

static LExpr *expr(LoopKernel *k, LExprKind kind, DType t) {
    LExpr *e = arena_alloc(k->arena, sizeof *e);
    e->kind = kind;
    e->type = t;
    e->lanes = 1;
    return e;
}

const LExpr *le_int(LoopKernel *k, int64_t v) {
    LExpr *e = expr(k, LE_INT, DT_I64);
    e->i = v;
    return e;
}

const LExpr *le_num(LoopKernel *k, DType t, double v) {
    LExpr *e = expr(k, dtype_is_float(t) ? LE_FLOAT : LE_INT, t);
    e->f = v;
    e->i = dtype_is_float(t) ? 0 : (int64_t)v;
    return e;
}

const LExpr *le_dim(LoopKernel *k, Dim d) {
    int64_t v;
    if (dim_is_const(k->m->dims, d, &v)) return le_int(k, v);
    LExpr *e = expr(k, LE_DIM, DT_I64);
    e->dim = d;
    return e;
}

const LExpr *le_dots(LoopKernel *k) {
    return expr(k, LE_DOTS, DT_BOOL);
}

const LExpr *le_var(LoopKernel *k, uint32_t var) {
    LExpr *e = expr(k, LE_VAR, k->var.item[var].type);
    e->lanes = k->var.item[var].lanes;
    e->var = var;
    return e;
}

const LExpr *le_op1(LoopKernel *k, LOp op, DType t, const LExpr *a) {
    LExpr *e = expr(k, LE_OP, t);
    e->lanes = a->lanes;
    e->op = op;
    e->a = a;
    return e;
}

const LExpr *le_op2(LoopKernel *k, LOp op, DType t, const LExpr *a, const LExpr *b) {
    LExpr *e = (LExpr *)le_op1(k, op, t, a);
    e->b = b;
    return e;
}

const LExpr *le_op3(LoopKernel *k, LOp op, DType t, const LExpr *a, const LExpr *b, const LExpr *c) {
    LExpr *e = (LExpr *)le_op2(k, op, t, a, b);
    e->c = c;
    return e;
}

bool loop_op_of_words(LOp op) {
    return op >= LO_OF_BF16 && op <= LO_DOT_INT8;
}

const LExpr *le_cast(LoopKernel *k, DType t, const LExpr *a) {
    if (a->type == t) return a;
    /* a float literal, as long as it is exact */
    if (a->kind == LE_INT && (t == DT_F32 || t == DT_F64) && a->i >= -(1 << 24) && a->i <= 1 << 24) return le_num(k, t, (double)a->i);
    LExpr *e = expr(k, LE_CAST, t);
    e->lanes = a->lanes;
    e->a = a;
    return e;
}

const LExpr *le_select(LoopKernel *k, const LExpr *c, const LExpr *a, const LExpr *b) {
    LExpr *e = expr(k, LE_SELECT, a->type);
    e->a = c;
    e->b = a;
    e->c = b;
    return e;
}

const LExpr *le_load(LoopKernel *k, const LBuf *b, const LExpr *index) {
    LExpr *e = expr(k, LE_LOAD, b->dtype);
    e->buf = b;
    e->a = index;
    return e;
}

const LExpr *le_load_lanes(LoopKernel *k, const LBuf *b, const LExpr *index, uint32_t lanes) {
    LExpr *e = (LExpr *)le_load(k, b, index);
    e->lanes = lanes;
    return e;
}

const LExpr *le_splat(LoopKernel *k, const LExpr *a, uint32_t lanes) {
    LExpr *e = expr(k, LE_SPLAT, a->type);
    e->lanes = lanes;
    e->a = a;
    return e;
}

const LExpr *le_zip(LoopKernel *k, const LExpr *a, const LExpr *b, bool second) {
    CHECK(a->kind == LE_VAR && b->kind == LE_VAR && a->lanes == b->lanes);
    LExpr *e = expr(k, LE_ZIP, a->type);
    e->lanes = a->lanes;
    e->i = second;
    e->a = a;
    e->b = b;
    return e;
}

bool le_is_int(const LExpr *e, int64_t v) {
    return e->kind == LE_INT && e->i == v;
}

/* Literals and Dims, the operands index arithmetic can compute with at compile time. */
static bool as_dim(LoopKernel *k, const LExpr *e, Dim *d) {
    if (e->kind == LE_DIM) *d = e->dim;
    else if (e->kind == LE_INT) *d = dim_const(k->m->dims, e->i);
    else return false;
    return true;
}

typedef Dim DimRule(DimTable *t, Dim a, Dim b);

static const LExpr *index_op(LoopKernel *k, LOp op, DimRule *rule, const LExpr *a, const LExpr *b) {
    Dim x, y;
    if (as_dim(k, a, &x) && as_dim(k, b, &y)) {
        Dim r = rule(k->m->dims, x, y);
        if (r != DIM_BAD) return le_dim(k, r);
    }
    LExpr *e = expr(k, LE_INDEX, DT_I64);
    e->op = op;
    e->a = a;
    e->b = b;
    return e;
}

const LExpr *li_add(LoopKernel *k, const LExpr *a, const LExpr *b) {
    if (le_is_int(a, 0)) return b;
    if (le_is_int(b, 0)) return a;
    return index_op(k, LO_ADD, dim_add, a, b);
}

static bool same_index(const LExpr *a, const LExpr *b) {
    if (!a || !b) return a == b;
    return a->kind == b->kind && a->op == b->op && a->i == b->i && a->var == b->var && a->dim == b->dim && a->kind != LE_LOAD &&
           same_index(a->a, b->a) && same_index(a->b, b->b);
}

/* e without the term t of its sum; NULL: it has no such term. */
static const LExpr *without(LoopKernel *k, const LExpr *e, const LExpr *t) {
    if (same_index(e, t)) return le_int(k, 0);
    if (e->kind == LE_INT && t->kind == LE_INT) return le_int(k, e->i - t->i);
    if (e->kind != LE_INDEX || e->op != LO_ADD) return NULL;
    const LExpr *a = without(k, e->a, t), *b = a ? e->b : without(k, e->b, t);
    return b ? li_add(k, a ? a : e->a, b) : NULL;
}

const LExpr *li_sub(LoopKernel *k, const LExpr *a, const LExpr *b) {
    if (le_is_int(b, 0)) return a;
    if (b->kind == LE_INDEX && b->op == LO_ADD) {
        const LExpr *left = without(k, a, b->a);
        return left ? li_sub(k, left, b->b) : li_sub(k, li_sub(k, a, b->b), b->a);
    }
    const LExpr *left = a->kind == LE_INDEX ? without(k, a, b) : NULL;
    return left ? left : index_op(k, LO_SUB, dim_sub, a, b);
}

const LExpr *li_mul(LoopKernel *k, const LExpr *a, const LExpr *b) {
    if (le_is_int(a, 0) || le_is_int(b, 1)) return a;
    if (le_is_int(b, 0) || le_is_int(a, 1)) return b;
    return index_op(k, LO_MUL, dim_mul, a, b);
}

const LExpr *li_div(LoopKernel *k, const LExpr *a, const LExpr *b) {
    if (le_is_int(b, 1) || le_is_int(a, 0)) return a;
    return index_op(k, LO_DIV, dim_floordiv, a, b);
}

const LExpr *li_mod(LoopKernel *k, const LExpr *a, const LExpr *b) {
    if (le_is_int(b, 1)) return le_int(k, 0);
    if (le_is_int(a, 0)) return a;
    return index_op(k, LO_MOD, dim_mod, a, b);
}

const LExpr *li_min(LoopKernel *k, const LExpr *a, const LExpr *b) {
    return index_op(k, LO_MIN, dim_min, a, b);
}

const LExpr *li_max(LoopKernel *k, const LExpr *a, const LExpr *b) {
    return index_op(k, LO_MAX, dim_max, a, b);
}

/* ---- statements -------------------------------------------------------------------------------- */

static LStmt *stmt(LoopKernel *k, LBlock *b, LStmtKind kind) {
    LStmt *s = arena_alloc(k->arena, sizeof *s);
    s->kind = kind;
    s->line = k->line;
    if (b->last) b->last->next = s;
    else b->first = s;
    b->last = s;
    return s;
}

uint32_t loop_var(LoopKernel *k, DType t, const char *hint) {
    vec_push(&k->var, ((LVar){t, 1, str_c(hint)}));
    return (uint32_t)(k->var.count - 1);
}

static uint32_t var_new(LoopKernel *k, DType t, uint32_t lanes, const char *hint) {
    LVar v = {t, lanes, str_c(arena_strndup(k->arena, hint, strlen(hint)))};
    vec_push(&k->var, v);
    return (uint32_t)(k->var.count - 1);
}

static LStmt *loop(LoopKernel *k, LBlock *b, LStmtKind kind, const LExpr *extent, const char *hint) {
    LStmt *s = stmt(k, b, kind);
    s->extent = extent;
    s->var = var_new(k, DT_I64, 1, hint);
    return s;
}

LStmt *ls_for(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint) {
    return loop(k, b, LS_FOR, extent, hint);
}

LStmt *ls_lanes(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint) {
    LStmt *s = loop(k, b, LS_FOR, extent, hint);
    s->lanes = true;
    return s;
}

LStmt *ls_parallel(LoopKernel *k, LBlock *b, const LExpr *extent, const char *hint) {
    if (k->parallel) BUG("kernel '%.*s' has two parallel loops", (int)k->name.n, k->name.p);
    k->parallel = true;
    for (size_t i = 0; i < k->buf.count; i++) k->buf.item[i]->shared = k->buf.item[i]->kind == LB_SCRATCH && k->buf.item[i]->written;
    return loop(k, b, LS_PARALLEL, extent, hint);
}

uint32_t ls_let(LoopKernel *k, LBlock *b, DType t, const LExpr *a, const char *hint) {
    LStmt *s = stmt(k, b, LS_LET);
    s->var = var_new(k, t, a->lanes, hint);
    s->a = a;
    return s->var;
}

void ls_bind(LoopKernel *k, LBlock *b, uint32_t var, const LExpr *a) {
    LStmt *s = stmt(k, b, LS_LET);
    s->var = var;
    s->a = a;
}

void ls_set(LoopKernel *k, LBlock *b, uint32_t var, const LExpr *a) {
    LStmt *s = stmt(k, b, LS_SET);
    s->var = var;
    s->a = a;
}

void ls_store(LoopKernel *k, LBlock *b, const LBuf *buf, const LExpr *index, const LExpr *a) {
    LStmt *s = stmt(k, b, LS_STORE);
    s->buf = buf;
    s->index = index;
    s->a = le_cast(k, buf->dtype, a);
    ((LBuf *)buf)->written = true;
}

LStmt *ls_if(LoopKernel *k, LBlock *b, const LExpr *cond) {
    LStmt *s = stmt(k, b, LS_IF);
    s->a = cond;
    return s;
}

LStmt *ls_matmul(LoopKernel *k, LBlock *b, LMatrix a, LMatrix w, LMatrix c, const LExpr *m, const LExpr *n,
                 const LExpr *kk, bool accumulate) {
    LStmt *s = stmt(k, b, LS_MATMUL);
    s->ma = a;
    s->mb = w;
    s->mc = c;
    s->m = m;
    s->n = n;
    s->k = kk;
    s->accumulate = accumulate;
    ((LBuf *)c.buf)->written = true;
    k->uses_matmul = true;
    return s;
}

LStmt *ls_phase(LoopKernel *k, const LExpr *blocks) {
    k->own = 0;
    return loop(k, &k->body, LS_PHASE, blocks, "block");
}

void ls_columns(LoopKernel *k, LStmt *phase, LColumns matrix) {
    LColumns *c = arena_alloc(k->arena, sizeof *c);
    *c = matrix;
    c->next = phase->columns;
    phase->columns = c;
}

void ls_call(LoopKernel *k, LBlock *b, const LRoutine *r, const LArg *arg) {
    uint32_t n = r->n_args + r->n_params;
    LStmt *s = stmt(k, b, LS_CALL);
    LArg *own = arena_array(k->arena, n, sizeof *own);
    memcpy(own, arg, n * sizeof *own);
    s->routine = r;
    s->arg = own;
    for (uint32_t i = 0; i < r->n_args; i++)
        if (r->written >> i & 1) ((LBuf *)arg[i].buf)->written = true;
}

void ls_prefetch(LoopKernel *k, LBlock *b, const LBuf *buf, const LExpr *index) {
    LStmt *s = stmt(k, b, LS_PREFETCH);
    s->buf = buf;
    s->index = index;
}

LStmt *ls_wait(LoopKernel *k, LBlock *b, const LExpr *tasks) {
    LStmt *s = stmt(k, b, LS_WAIT);
    s->a = tasks;
    return s;
}

uint32_t ls_arguments(const LStmt *s) {
    return s->kind == LS_CALL ? s->routine->n_args + s->routine->n_params : 0;
}

uint32_t ls_check(LoopKernel *k, LBlock *b, const LExpr *a, const LExpr *extent, const char *hint) {
    LStmt *s = stmt(k, b, LS_CHECK);
    s->var = var_new(k, DT_I64, 1, hint);
    s->a = a;
    s->extent = extent;
    k->may_fault = true;
    return s->var;
}

void ls_note(LoopKernel *k, LBlock *b, Str text) {
    stmt(k, b, LS_NOTE)->note = text;
}

/* ---- variables nobody reads ---------------------------------------------------------------------- */

static void read_expr(const LExpr *e, bool *read) {
    if (!e) return;
    if (e->kind == LE_VAR) read[e->var] = true;
    read_expr(e->a, read);
    read_expr(e->b, read);
    read_expr(e->c, read);
}

static void prune(LBlock *b, bool *read);

/* From the end, so that what only an unread variable reads is unread too. Returns what is left from s on. */
static LStmt *prune_from(LStmt *s, bool *read) {
    if (!s) return NULL;
    s->next = prune_from(s->next, read);
    prune(&s->other, read);
    prune(&s->body, read);
    if ((s->kind == LS_LET && !read[s->var]) || (s->kind == LS_PHASE && !s->body.first)) return s->next;
    if (s->kind == LS_SET) read[s->var] = true;
    const LExpr *all[] = {s->a,         s->index,  s->extent,    s->m,      s->n,         s->k,
                          s->ma.offset, s->ma.ld, s->mb.offset, s->mb.ld, s->mc.offset, s->mc.ld};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) read_expr(all[i], read);
    for (uint32_t i = 0; i < ls_arguments(s); i++) read_expr(s->arg[i].at, read);
    return s;
}

static void prune(LBlock *b, bool *read) {
    b->first = prune_from(b->first, read);
    b->last = NULL;
    for (LStmt *s = b->first; s; s = s->next) b->last = s;
}

/* Notes of a phase that does nothing stand in the next one. */
static void join_notes(LBlock *b) {
    for (LStmt **at = &b->first; *at;) {
        LStmt *s = *at, *last = s->body.first;
        while (last && last->kind == LS_NOTE && last->next) last = last->next;
        bool only_notes = s->kind == LS_PHASE && s->next && last && last->kind == LS_NOTE;
        if (!only_notes) {
            at = &s->next;
            continue;
        }
        last->next = s->next->body.first;
        s->next->body.first = s->body.first;
        *at = s->next;
    }
}

void loop_finish(LoopKernel *k) {
    prune(&k->body, arena_array(k->arena, k->var.count + 1, sizeof(bool)));
    join_notes(&k->body);
    loop_join_phases(k);
    prune(&k->body, arena_array(k->arena, k->var.count + 1, sizeof(bool)));
    for (size_t i = 0; i < k->buf.count; i++)
        if (k->buf.item[i]->own) k->buf.item[i]->offset += k->scratch;
    k->scratch += k->own_end;
}
