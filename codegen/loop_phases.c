/* Which phases of a kernel by rows run side by side.
 *
 * A phase waits for those in front of it that it shares a written buffer with, and for no other. Phases that wait for the same
 * step are one phase, the blocks of each behind those of the one before: threads meet once, and a phase of one block, where all but
 * one thread would have nothing to do, costs nothing beside blocks of others. Results do not change: each block computes what it
 * did. */
#include "loop.h"

typedef struct Phase {
    LStmt *s;
    bool *reads, *writes; /* by buffer */
    bool whole;           /* one block, whose products are split over all threads */
    uint32_t step;
} Phase;

static void see_expr(Phase *p, const LExpr *e) {
    if (!e)
        return;
    if (e->kind == LE_LOAD)
        p->reads[e->buf->id] = true;
    see_expr(p, e->a);
    see_expr(p, e->b);
    see_expr(p, e->c);
}

static void see_product(Phase *p, const LStmt *s) {
    p->reads[s->ma.buf->id] = p->reads[s->mb.buf->id] = p->writes[s->mc.buf->id] = true;
    p->whole = true;
}

static void see_call(Phase *p, const LStmt *s) {
    for (uint32_t i = 0; i < s->routine->n_args; i++) {
        if (s->routine->written >> i & 1)
            p->writes[s->arg[i].buf->id] = true;
        else
            p->reads[s->arg[i].buf->id] = true;
    }
}

static void see_block(Phase *p, const LBlock *b) {
    for (const LStmt *s = b->first; s; s = s->next) {
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
}

/* What a block has to itself, no other sees. */
static bool is_own(const LBuf *b) {
    return b->own || b->kind == LB_LOCAL;
}

static bool waits_for(const LoopKernel *k, const Phase *later, const Phase *first) {
    for (size_t i = 0; i < k->buf.count; i++)
        if (!is_own(k->buf.item[i]) && ((first->writes[i] && (later->reads[i] || later->writes[i])) || (first->reads[i] && later->writes[i])))
            return true;
    return false;
}

static bool is_serial(const Phase *p) {
    return le_is_int(p->s->extent, 1);
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

/* A phase that is alone in its step. */
static void keep(LoopKernel *k, LStmt *s) {
    s->next = NULL;
    LBlock one = {s, s};
    append(&k->body, &one);
}

/* The phases at[0..n-1], one block each, as one of one block. */
static void join_serial(LoopKernel *k, Phase *const *at, uint32_t n) {
    LStmt *s = ls_phase(k, le_int(k, 1));
    for (uint32_t i = 0; i < n; i++) {
        ls_bind(k, &s->body, at[i]->s->var, le_int(k, 0));
        append(&s->body, &at[i]->s->body);
    }
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
        any = any || (phase[i].step == step && !is_serial(&phase[i]));
    for (uint32_t i = 0; i < n; i++) {
        if (phase[i].step != step)
            continue;
        if (is_serial(&phase[i]) && (phase[i].whole || !any))
            serial[n_serial++] = &phase[i];
        else
            blocks[n_blocks++] = &phase[i];
    }
    if (n_serial == 1)
        keep(k, serial[0]->s);
    else if (n_serial)
        join_serial(k, serial, n_serial);
    if (n_blocks == 1)
        keep(k, blocks[0]->s);
    else if (n_blocks)
        join_blocks(k, blocks, n_blocks);
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
        *p = (Phase){.s = s};
        p->reads = arena_array(k->arena, k->buf.count + 1, sizeof *p->reads);
        p->writes = arena_array(k->arena, k->buf.count + 1, sizeof *p->writes);
        see_block(p, &s->body);
        for (Phase *q = phase; q < p; q++)
            if (q->step >= p->step && waits_for(k, p, q))
                p->step = q->step + 1;
        if (p->step + 1 > steps)
            steps = p->step + 1;
    }
    k->body = (LBlock){NULL, NULL};
    k->line = k->func_line;
    for (uint32_t i = 0; i < steps; i++)
        join_step(k, phase, n, i);
    k->line = line;
}
