/* Which phases of a kernel by rows run side by side, and what they wait for.
 *
 * A phase waits for those in front of it that it shares a written buffer with, and for no other. Where it shares no more than
 * matrices that both have by the same columns, each block waits for its own columns alone: it is the end of the block in front,
 * which has them in cache (a chain). Phases that wait for the same step are one phase, the blocks of each behind those of the one
 * before. Results do not change: each block computes what it did.
 *
 * Where rows are few, the phases are a job, their blocks its tasks, in order. Workers take tasks in that order and do not
 * meet between phases: a block waits where it first needs what others compute, and what it can do before it does: of x W + (x A) B
 * the product by W, which takes longer than x A. Every block of a phase waits for the phase before it somewhere, so tasks are
 * done phase by phase and their number tells which. */
#include "loop.h"

typedef struct Access {
    bool *reads, *writes; /* by buffer */
    bool whole;           /* products that are split over all threads */
} Access;

typedef struct Phase {
    LStmt *s;
    Access a;
    uint32_t step;
    struct Phase *chain; /* the first of those whose blocks it is the end of: itself, where it begins one */
} Phase;

static Access access_new(const LoopKernel *k) {
    Access a = {0};
    a.reads = arena_array(k->arena, k->buf.count + 1, sizeof *a.reads);
    a.writes = arena_array(k->arena, k->buf.count + 1, sizeof *a.writes);
    return a;
}

static void see_expr(Access *p, const LExpr *e) {
    if (!e)
        return;
    if (e->kind == LE_LOAD)
        p->reads[e->buf->id] = true;
    see_expr(p, e->a);
    see_expr(p, e->b);
    see_expr(p, e->c);
}

static void see_product(Access *p, const LStmt *s) {
    p->reads[s->ma.buf->id] = p->reads[s->mb.buf->id] = p->writes[s->mc.buf->id] = true;
    p->whole = true;
}

static void see_call(Access *p, const LStmt *s) {
    for (uint32_t i = 0; i < s->routine->n_args; i++) {
        if (s->routine->written >> i & 1)
            p->writes[s->arg[i].buf->id] = true;
        else
            p->reads[s->arg[i].buf->id] = true;
    }
}

static void see_block(Access *p, const LBlock *b);

static void see_stmt(Access *p, const LStmt *s) {
    see_expr(p, s->a);
    see_expr(p, s->index);
    see_expr(p, s->extent);
    if (s->kind == LS_STORE)
        p->writes[s->buf->id] = true;
    if (s->kind == LS_MATMUL)
        see_product(p, s);
    if (s->kind == LS_CALL)
        see_call(p, s);
    for (uint32_t i = 0; i < ls_arguments(s); i++)
        see_expr(p, s->arg[i].at);
    see_block(p, &s->body);
    see_block(p, &s->other);
}

static void see_block(Access *p, const LBlock *b) {
    for (const LStmt *s = b->first; s; s = s->next)
        see_stmt(p, s);
}

/* What a block has to itself, no other sees. */
static bool is_own(const LBuf *b) {
    return b->own || b->kind == LB_LOCAL;
}

static bool shares(const LBuf *b, const Access *later, const Access *first) {
    uint32_t i = b->id;
    return !is_own(b) && ((first->writes[i] && (later->reads[i] || later->writes[i])) || (first->reads[i] && later->writes[i]));
}

static bool waits_for(const LoopKernel *k, const Access *later, const Access *first) {
    for (size_t i = 0; i < k->buf.count; i++)
        if (shares(k->buf.item[i], later, first))
            return true;
    return false;
}

/* ---- chains --------------------------------------------------------------------------------------------- */

static const LColumns *columns_of(const LStmt *phase, const LBuf *b) {
    for (const LColumns *c = phase->columns; c; c = c->next)
        if (c->buf == b)
            return c;
    return NULL;
}

static bool same_columns(const LStmt *x, const LStmt *y, const LBuf *b) {
    const LColumns *c = columns_of(x, b), *d = columns_of(y, b);
    return c && d && c->width == d->width && c->row == d->row && loop_same_expr(c->offset, d->offset);
}

/* What the later one waits for is the same block of the first. */
static bool waits_by_block(const LoopKernel *k, const Phase *later, const Phase *first) {
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (shares(b, &later->a, &first->a) && !same_columns(later->s, first->s, b))
            return false;
    }
    return loop_same_expr(later->s->extent, first->s->extent);
}

/* The chain of all in that step that p waits for, made one; NULL: there is more that it waits for than blocks. */
static Phase *chain_of(const LoopKernel *k, Phase *phase, const Phase *p, uint32_t step) {
    Phase *chain = NULL;
    for (Phase *q = phase; q < p; q++)
        if (q->step == step && waits_for(k, &p->a, &q->a)) {
            if (!waits_by_block(k, p, q))
                return NULL;
            chain = chain && chain < q->chain ? chain : q->chain;
        }
    for (Phase *q = phase; q < p; q++)
        if (q->step == step && waits_for(k, &p->a, &q->a) && q->chain != chain)
            for (Phase *r = phase, *old = q->chain; r < p; r++)
                r->chain = r->chain == old ? chain : r->chain;
    return chain;
}

/* Its step, and its chain. */
static void place(const LoopKernel *k, Phase *phase, Phase *p) {
    p->chain = p;
    for (Phase *q = phase; q < p; q++)
        if (q->step >= p->step && waits_for(k, &p->a, &q->a))
            p->step = q->step + 1;
    Phase *chain = p->step ? chain_of(k, phase, p, p->step - 1) : NULL;
    if (chain) {
        p->chain = chain;
        p->step--;
    }
}

static bool is_serial(const LStmt *phase) {
    return le_is_int(phase->extent, 1);
}

static void append(LBlock *to, const LBlock *b) {
    if (!b->first)
        return;
    if (to->last)
        to->last->next = b->first;
    else
        to->first = b->first;
    to->last = b->last;
}

/* What `later` has to itself lies behind what `first` has, as they are one. */
static void part_own(LoopKernel *k, const Access *later, const Access *first) {
    int64_t end = 0;
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->own && (first->reads[i] || first->writes[i]) && b->end > end)
            end = b->end;
    }
    for (size_t i = 0; i < k->buf.count; i++) {
        LBuf *b = k->buf.item[i];
        if (!b->own || !(later->reads[i] || later->writes[i]))
            continue;
        b->offset += end;
        b->end += end;
        if (b->end > k->own_end)
            k->own_end = b->end;
    }
}

/* What the first of two phases that are one does, it does from now on. */
static void merge_access(const LoopKernel *k, Access *to, const Access *a) {
    for (size_t i = 0; i < k->buf.count; i++) {
        to->reads[i] = to->reads[i] || a->reads[i];
        to->writes[i] = to->writes[i] || a->writes[i];
    }
    to->whole = to->whole || a->whole;
}

/* The blocks of `later`, a phase of as many, at the end of those of `first`. */
static void join_ends(LoopKernel *k, Phase *first, const Phase *later) {
    part_own(k, &later->a, &first->a);
    merge_access(k, &first->a, &later->a);
    ls_bind(k, &first->s->body, later->s->var, le_var(k, first->s->var));
    append(&first->s->body, &later->s->body);
}

/* A phase that is alone in its step. */
static void keep(LoopKernel *k, LStmt *s) {
    s->next = NULL;
    LBlock one = {s, s};
    append(&k->body, &one);
}

/* The phases at[0..n-1], one block each, as one of one block. */
static void join_serial(LoopKernel *k, Phase *const *at, uint32_t n) {
    for (uint32_t i = 1; i < n; i++)
        join_ends(k, at[0], at[i]);
    keep(k, at[0]->s);
}

/* The phases at[0..n-1] as one, their blocks one behind the other. */
static void join_blocks(LoopKernel *k, Phase *const *at, uint32_t n) {
    const LExpr *all = le_int(k, 0), *first = all;
    for (uint32_t i = 0; i < n; i++)
        all = li_add(k, all, at[i]->s->extent);
    LStmt *s = ls_phase(k, all);
    const LExpr *block = le_var(k, s->var);
    LBlock *to = &s->body;
    for (uint32_t i = 0; i < n; i++) {
        const LExpr *end = li_add(k, first, at[i]->s->extent);
        if (i + 1 < n) {
            LStmt *mine = ls_if(k, to, le_op2(k, LO_LT, DT_BOOL, block, end));
            ls_bind(k, &mine->body, at[i]->s->var, li_sub(k, block, first));
            append(&mine->body, &at[i]->s->body);
            to = &mine->other;
        } else {
            ls_bind(k, to, at[i]->s->var, li_sub(k, block, first));
            append(to, &at[i]->s->body);
        }
        first = end;
    }
}

/* The phases of one step: those that use all threads by themselves first, then all others. */
static void join_step(LoopKernel *k, Phase *phase, uint32_t n, uint32_t step) {
    Phase **serial = arena_array(k->arena, n, sizeof *serial), **blocks = arena_array(k->arena, n, sizeof *blocks);
    uint32_t n_serial = 0, n_blocks = 0;
    bool any = false;
    for (uint32_t i = 0; i < n; i++)
        any = any || (phase[i].step == step && !is_serial(phase[i].s));
    for (uint32_t i = 0; i < n; i++) {
        if (phase[i].step != step || phase[i].chain != &phase[i])
            continue;
        if (is_serial(phase[i].s) && (phase[i].a.whole || !any))
            serial[n_serial++] = &phase[i];
        else
            blocks[n_blocks++] = &phase[i];
    }
    if (n_serial)
        join_serial(k, serial, n_serial);
    if (n_blocks == 1)
        keep(k, blocks[0]->s);
    else if (n_blocks)
        join_blocks(k, blocks, n_blocks);
}

/* ---- jobs --------------------------------------------------------------------------------------------- */

int64_t loop_blocks(const LStmt *phase) {
    CHECK(phase->extent->kind == LE_INT);
    return phase->extent->i;
}

const LStmt *loop_job(const LStmt *first, int64_t *tasks) {
    const LStmt *s = first;
    *tasks = 0;
    do {
        *tasks += loop_blocks(s);
        s = s->next;
    } while (s && !s->whole && !first->whole);
    return s;
}

/* The phases of a job in front of the one at hand. */
typedef struct Job {
    LoopKernel *k;
    Access *before;
    int64_t *done; /* tasks up to the end of each */
    uint32_t n;
} Job;

/* How many of them must be done for what `a` says. */
static uint32_t needs(const Job *j, const Access *a) {
    uint32_t n = j->n;
    while (n > 0 && !waits_for(j->k, a, &j->before[n - 1]))
        n--;
    return n;
}

static uint32_t stmt_needs(const Job *j, const LStmt *s) {
    Access a = access_new(j->k);
    see_stmt(&a, s);
    return needs(j, &a);
}

/* Its bounds or condition alone. */
static uint32_t head_needs(const Job *j, const LStmt *s) {
    Access a = access_new(j->k);
    see_expr(&a, s->a);
    see_expr(&a, s->extent);
    return needs(j, &a);
}

/* Whether a routine runs in it before `level` phases must be done. */
static bool works_before(const Job *j, const LBlock *b, uint32_t level) {
    for (const LStmt *s = b->first; s; s = s->next) {
        if (works_before(j, &s->body, level) || works_before(j, &s->other, level))
            return true;
        if (stmt_needs(j, s) >= level)
            return false;
        if (s->kind == LS_CALL)
            return true;
    }
    return false;
}

/* Whether s waits inside for what it needs, since there is work to do before; else it waits as a whole. */
static bool waits_inside(const Job *j, const LStmt *s) {
    uint32_t all = stmt_needs(j, s);
    return works_before(j, &s->body, all) || works_before(j, &s->other, all);
}

static LStmt *wait_for(const Job *j, uint32_t level) {
    LoopKernel *k = j->k;
    LBlock none = {NULL, NULL};
    return ls_wait(k, &none, li_mul(k, le_var(k, k->rows.job), le_int(k, j->done[level - 1])));
}

/* Waits in front of what needs them. level: of the phases in front so many are done; returns how many are behind it. */
static uint32_t place_waits(const Job *j, LBlock *b, uint32_t level) {
    for (LStmt **at = &b->first; *at; at = &(*at)->next) {
        LStmt *s = *at;
        if (stmt_needs(j, s) <= level)
            continue;
        bool inside = waits_inside(j, s);
        uint32_t now = inside ? head_needs(j, s) : stmt_needs(j, s);
        if (now > level) {
            *at = wait_for(j, level = now);
            (*at)->next = s;
            at = &(*at)->next;
        }
        if (inside) {
            place_waits(j, &s->body, level);
            place_waits(j, &s->other, level);
        }
    }
    return level;
}

/* How many phases must be done before the block begins. */
static uint32_t first_wait(const Job *j, const LBlock *b) {
    for (const LStmt *s = b->first; s; s = s->next) {
        uint32_t n = stmt_needs(j, s);
        if (n > 0)
            return waits_inside(j, s) ? head_needs(j, s) : n;
        if (s->kind != LS_NOTE && s->kind != LS_LET)
            return 0;
    }
    return 0;
}

/* What the phase reads behind waits of its own. */
static void mark_awaited(const Job *j, const Access *a, uint32_t level) {
    for (size_t i = 0; i < j->k->buf.count; i++)
        for (uint32_t q = level; q < j->n; q++)
            if (a->reads[i] && shares(j->k->buf.item[i], a, &j->before[q]))
                j->k->buf.item[i]->awaited = true;
}

/* The phase as the next one of the job. */
static void enter_job(Job *j, LStmt *phase) {
    Access a = access_new(j->k);
    see_block(&a, &phase->body);
    uint32_t first = first_wait(j, &phase->body);
    phase->done = first ? j->done[first - 1] : 0;
    mark_awaited(j, &a, first);
    if (place_waits(j, &phase->body, first) < j->n) {
        LStmt *w = wait_for(j, j->n);
        append(&phase->body, &(LBlock){w, w});
    }
    j->before[j->n] = a;
    j->done[j->n] = loop_blocks(phase) + (j->n ? j->done[j->n - 1] : 0);
    j->n++;
}

static void make_jobs(LoopKernel *k, uint32_t n) {
    Job j = {k, arena_array(k->arena, n, sizeof *j.before), arena_array(k->arena, n, sizeof *j.done), 0};
    for (LStmt *s = k->body.first; s; s = s->next) {
        Access a = access_new(k);
        see_block(&a, &s->body);
        s->whole = a.whole && is_serial(s);
        if (s->whole)
            j.n = 0;
        else
            enter_job(&j, s);
    }
}

void loop_join_phases(LoopKernel *k) {
    uint32_t n = 0, steps = 0, line = k->line;
    if (!k->rows.all)
        return;
    for (LStmt *s = k->body.first; s; s = s->next)
        n++;
    Phase *phase = arena_array(k->arena, n + 1, sizeof *phase);
    n = 0;
    for (LStmt *s = k->body.first; s; s = s->next) {
        Phase *p = &phase[n++];
        *p = (Phase){.s = s, .a = access_new(k)};
        see_block(&p->a, &s->body);
        place(k, phase, p);
        if (p->step + 1 > steps)
            steps = p->step + 1;
    }
    k->body = (LBlock){NULL, NULL};
    k->line = k->func_line;
    for (uint32_t i = 0; i < n; i++)
        if (phase[i].chain != &phase[i])
            join_ends(k, phase[i].chain, &phase[i]);
    for (uint32_t i = 0; i < steps; i++)
        join_step(k, phase, n, i);
    make_jobs(k, 2 * n + 1);
    k->line = line;
}
