/* Instances: a program joined with its weights, adapters, an arena and a pool; running its functions.
 *
 * Arena, scratch and buffers are reserved for the bounds of the program and cost memory only as far as they are
 * touched. */
#include "internal.h"

#include <string.h>

static moec_frame frame_of(const moec_instance *m, int slot, const int64_t *sym, void *const *arg,
                           int *fault) {
    return (moec_frame){.pool = m->pool,
                        .weights = m->weights,
                        .adapter = m->slot[slot].adapter,
                        .derived = m->slot[slot].derived,
                        .arena = m->arena,
                        .scratch = m->scratch,
                        .sym = sym,
                        .arg = arg,
                        .fault = fault,
                        .profile = moec_profile_running(m)};
}

static moec_status fault_status(int fault) {
    return fault > 0 && fault < MOEC_E_STATUS_COUNT ? (moec_status)fault : fault ? MOEC_E_ARGUMENT : MOEC_OK;
}

/* Before the program runs: it finds nothing in its memory. */
static void forget(moec_instance *m) {
    moec_mem_forget(m->arena, m->program->arena_bytes);
    moec_mem_forget(m->scratch, moec_scratch_bytes(m->program, moec_pool_workers(m->pool)));
}

moec_status moec_prepare(moec_instance *m, int slot) {
    if (!m->program->prepare)
        return MOEC_OK;
    int fault = 0;
    int64_t sym[MOEC_SYMBOLS];
    moec_symbols_low(m->program, sym);
    moec_frame f = frame_of(m, slot, sym, NULL, &fault);
    forget(m);
    m->program->prepare(&f);
    return fault_status(fault);
}

moec_status moec_reserve(unsigned char **at, uint64_t bytes, const char *what, moec_sink sink) {
    *at = bytes ? moec_mem_reserve(bytes) : NULL;
    return *at || !bytes
               ? MOEC_OK
               : moec_fail(sink, MOEC_E_MEMORY, NULL,
                           "error: cannot reserve %llu bytes of %s: compile with smaller bounds (--dim)",
                           (unsigned long long)bytes, what);
}

static moec_status reserve_all(moec_instance *m, const moec_options *o, moec_sink sink) {
    const moec_program *p = m->program;
    m->pool = moec_pool_new(o->threads);
    if (!m->pool)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: cannot start %d threads", o->threads);
    moec_status s = moec_reserve(&m->arena, p->arena_bytes, "arena", sink);
    if (!s)
        s = moec_reserve(&m->scratch, moec_scratch_bytes(p, moec_pool_workers(m->pool)), "scratch space",
                         sink);
    return s ? s : moec_slots_open(m, o->adapters, sink);
}

/* What is asked of functions' shapes at every call. */
static moec_status look_up(moec_instance *m) {
    const moec_program *p = m->program;
    size_t most = 0;
    m->used = moec_mem_new(p->n_functions, sizeof *m->used);
    m->row_symbol = moec_mem_new(p->n_functions, sizeof *m->row_symbol);
    if (!m->used || !m->row_symbol)
        return MOEC_E_MEMORY;
    for (uint32_t i = 0; i < p->n_functions; i++) {
        size_t values = (size_t)p->function[i].n_inputs + p->function[i].n_outputs;
        m->used[i] = moec_symbols_used(p, &p->function[i]);
        m->row_symbol[i] = moec_row_symbol(p, &p->function[i]);
        most = values > most ? values : most;
    }
    m->row_arg = moec_mem_new(most, sizeof *m->row_arg);
    int batch = moec_packs(p) ? p->seq2seq->batch : -1;
    m->row_spans = moec_mem_new(batch >= 0 ? (size_t)p->symbol[batch].hi : 1, 2 * sizeof *m->row_spans);
    return m->row_arg && m->row_spans ? MOEC_OK : MOEC_E_MEMORY;
}

static moec_status open_instance(moec_instance *m, const moec_options *o, moec_sink sink) {
    const moec_program *p = m->program;
    if (p->abi != MOEC_ABI)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: the program has ABI %u, the runtime ABI %d",
                         (unsigned)p->abi, MOEC_ABI);
    if (p->n_symbols > MOEC_SYMBOLS)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: the program has %u symbols, %d are possible",
                         (unsigned)p->n_symbols, MOEC_SYMBOLS);
    moec_status s = moec_slots_check(o->adapters, sink);
    if (s || (s = moec_weights_open(p, o, &m->held, sink)))
        return s;
    m->weights = moec_weights_at(m->held);
    if ((s = reserve_all(m, o, sink)) || (s = look_up(m)))
        return s;
    if (moec_profile_rows(p) && !(m->profile = moec_profile_new(p)))
        return MOEC_E_MEMORY;
    if (p->seq2seq && (s = moec_generator_new(p, &m->generator, sink)))
        return s;
    for (int i = o->adapter ? 1 : 0; i < m->slots && !s; i++)
        s = moec_prepare(m, i);
    return s || !o->adapter ? s : moec_load_adapter(m, o->adapter, sink.p, sink.room);
}

moec_status moec_open(const moec_program *p, const moec_options *o, moec_instance **out) {
    static const moec_options none;
    if (!o)
        o = &none;
    moec_sink sink = {o->message, o->message_room};
    if (sink.p && sink.room)
        sink.p[0] = 0;
    if (!p || !out)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    *out = NULL;
    moec_instance *m = moec_mem_new(1, sizeof *m);
    if (!m)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    m->program = p;
    moec_status s = open_instance(m, o, sink);
    if (s) {
        moec_fail(sink, s, NULL, "error: %s", moec_status_text(s));
        moec_close(m);
        return s;
    }
    *out = m;
    return MOEC_OK;
}

void moec_close(moec_instance *m) {
    if (!m)
        return;
    const moec_program *p = m->program;
    int workers = m->pool ? moec_pool_workers(m->pool) : 1;
    moec_pool_free(m->pool);
    moec_generator_free(m->generator);
    moec_mem_release(m->arena, p->arena_bytes);
    moec_mem_release(m->scratch, moec_scratch_bytes(p, workers));
    moec_slots_close(m);
    moec_weights_close(m->held);
    moec_mem_free(m->used);
    moec_profile_free(m->profile);
    moec_mem_free(m->row_symbol);
    moec_mem_free(m->row_arg);
    moec_mem_free(m->row_spans);
    moec_mem_free(m);
}

/* ---- running ---- */

static moec_status check_call(const moec_instance *m, uint32_t function, const int64_t *sym,
                              void *const *arg) {
    if (!m || function >= m->program->n_functions || !arg || (!sym && m->program->n_symbols))
        return MOEC_E_ARGUMENT;
    const moec_program *p = m->program;
    const moec_function *f = &p->function[function];
    for (uint32_t i = 0; i < p->n_symbols; i++)
        if (m->used[function] >> i & 1 && (sym[i] < p->symbol[i].lo || sym[i] > p->symbol[i].hi))
            return MOEC_E_RANGE;
    for (uint32_t i = 0; i < f->n_inputs + f->n_outputs; i++)
        if (!arg[i])
            return MOEC_E_ARGUMENT;
    for (uint32_t i = f->n_inputs; i < f->n_inputs + f->n_outputs; i++)
        if (f->value[i].alias >= 0 && arg[i] != arg[f->value[i].alias])
            return MOEC_E_ARGUMENT;
    return MOEC_OK;
}

static moec_status run_slot(moec_instance *m, const moec_function *f, int slot, const int64_t *sym,
                            void *const *arg) {
    int fault = 0;
    moec_frame frame = frame_of(m, slot, sym, arg, &fault);
    forget(m);
    f->run(&frame);
    return fault_status(fault);
}

moec_status moec_run(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg) {
    moec_status s = check_call(m, function, sym, arg);
    return s ? s : run_slot(m, &m->program->function[function], 0, sym, arg);
}

/* The batch; where it is none, or a constant, leading extent of the first argument. */
static int64_t rows_of(const moec_instance *m, uint32_t function, const int64_t *sym) {
    const moec_function *f = &m->program->function[function];
    int64_t e[MOEC_RANK] = {1};
    if (m->row_symbol[function] >= 0)
        return sym[m->row_symbol[function]];
    if (f->n_inputs + f->n_outputs > 0 && f->value[0].rank > 0)
        f->shape(sym, 0, e);
    return e[0];
}

static int64_t run_end(const int32_t *slot, int64_t from, int64_t rows) {
    int64_t end = from + 1;
    while (end < rows && slot[end] == slot[from])
        end++;
    return end;
}

/* Whether all slots exist and all runs lie within the bounds. */
static moec_status check_rows(const moec_instance *m, uint32_t function, const int32_t *slot, int64_t rows) {
    const int symbol = m->row_symbol[function];
    for (int64_t i = 0, end; i < rows; i = end) {
        end = run_end(slot, i, rows);
        if (slot[i] < 0 || slot[i] >= m->slots || (symbol < 0 && end - i < rows))
            return MOEC_E_ARGUMENT;
        if (symbol >= 0 && end - i < m->program->symbol[symbol].lo)
            return MOEC_E_RANGE;
    }
    return MOEC_OK;
}

/* The tokens that spans from..end say, into *first and *n, and these spans counted from there on. */
static moec_status some_spans(moec_instance *m, const int64_t *span, int64_t from, int64_t end, int64_t tokens, int64_t *first,
                              int64_t *n) {
    int64_t last = 0;
    *first = tokens;
    for (int64_t i = from; i < end; i++) {
        if (span[2 * i] < 0 || span[2 * i] > span[2 * i + 1] || span[2 * i + 1] > tokens)
            return MOEC_E_INDEX;
        *first = span[2 * i] < *first ? span[2 * i] : *first;
        last = span[2 * i + 1] > last ? span[2 * i + 1] : last;
    }
    *n = last - *first;
    for (int64_t i = 2 * from; i < 2 * end; i++)
        m->row_spans[i - 2 * from] = span[i] - *first;
    return *n < m->program->symbol[m->program->seq2seq->tokens].lo ? MOEC_E_RANGE : MOEC_OK;
}

/* Rows from `from` to `end` of a call, as a call of their own; of what is packed, their tokens. */
static moec_status run_some(moec_instance *m, uint32_t function, int slot, const int64_t *sym,
                            void *const *arg, int64_t from, int64_t end) {
    const moec_program *p = m->program;
    const moec_function *f = &p->function[function];
    const int rows = m->row_symbol[function], spans = moec_packs(p) ? moec_find_input(f, "spans") : -1;
    int64_t some[MOEC_SYMBOLS], first = 0, n = 0;
    memcpy(some, sym, p->n_symbols * sizeof *some);
    moec_status s = spans < 0 ? MOEC_OK : some_spans(m, arg[spans], from, end, sym[p->seq2seq->tokens], &first, &n);
    for (uint32_t i = 0; i < f->n_inputs + f->n_outputs && !s; i++) {
        uint64_t stride;
        int packed = spans >= 0 && moec_is_packed(p, f, i);
        some[rows] = 1;
        if (packed)
            some[p->seq2seq->tokens] = 1;
        if (!moec_value_bytes(f, i, some, &stride))
            return MOEC_E_RANGE;
        m->row_arg[i] = (unsigned char *)arg[i] + (uint64_t)(packed ? first : from) * stride;
    }
    if (s)
        return s;
    some[rows] = end - from;
    if (spans >= 0) {
        m->row_arg[spans] = m->row_spans;
        some[p->seq2seq->tokens] = n;
    }
    return run_slot(m, f, slot, some, m->row_arg);
}

moec_status moec_run_rows(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg,
                          const int32_t *adapter_of_row) {
    moec_status s = check_call(m, function, sym, arg);
    if (s)
        return s;
    const moec_function *f = &m->program->function[function];
    int64_t rows = adapter_of_row ? rows_of(m, function, sym) : 0;
    if (rows < 1)
        return run_slot(m, f, 0, sym, arg);
    if ((s = check_rows(m, function, adapter_of_row, rows)))
        return s;
    if (run_end(adapter_of_row, 0, rows) == rows)
        return run_slot(m, f, adapter_of_row[0], sym, arg);
    for (int64_t i = 0, end; i < rows && !s; i = end) {
        end = run_end(adapter_of_row, i, rows);
        s = run_some(m, function, adapter_of_row[i], sym, arg, i, end);
    }
    return s;
}

int moec_abi(void) {
    return MOEC_ABI;
}
