/* Greedy decoding through encode, cross and step.
 *
 * Buffers for the program's bounds are laid out once, at open, in reserved pages; a call to moec_generate
 * only sets symbols and runs functions. Arguments are bound by the names of the functions' values: encode
 * (input_ids, attention_mask) -> hidden         cross (hidden) -> cross_kv step (token, cross_kv,
 * attention_mask, self_*...) -> logits, token, self_*... (in the storage of their inputs) and `sentence`
 * wherever a function has an input of that name. Rows whose masks are plain padding go through the functions without it
 * (packed.c), where the program has them: encode_packed (packed_ids, spans) -> packed_hidden, and so on. */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"

#include <string.h>

typedef enum Role {
    ROLE_OWN, /* a buffer of the value's own: the caches of step, logits nobody reads */
    ROLE_IDS,
    ROLE_MASK,
    ROLE_SENTENCE,
    ROLE_PACKED_IDS,
    ROLE_SPANS,
    ROLE_HIDDEN,
    ROLE_CROSS,
    ROLE_TOKEN_IN,
    ROLE_TOKEN_OUT,
    ROLE_COUNT
} Role;

static const struct {
    const char *name;
    Role input, output;
} roles[] = {
    {"input_ids", ROLE_IDS, ROLE_OWN},     {"attention_mask", ROLE_MASK, ROLE_OWN},
    {"sentence", ROLE_SENTENCE, ROLE_OWN}, {"hidden", ROLE_HIDDEN, ROLE_HIDDEN},
    {"cross_kv", ROLE_CROSS, ROLE_CROSS},  {"token", ROLE_TOKEN_IN, ROLE_TOKEN_OUT},
    {"spans", ROLE_SPANS, ROLE_OWN},       {"packed_ids", ROLE_PACKED_IDS, ROLE_OWN},
    {"packed_kv", ROLE_CROSS, ROLE_CROSS}, {"packed_hidden", ROLE_HIDDEN, ROLE_HIDDEN},
};

/* One of the three functions with its argument list. `role` says which arguments are set for each call. */
typedef struct Call {
    const moec_function *function;
    uint32_t index, n;
    void **arg;
    uint8_t *role;
} Call;

enum { ENCODE, CROSS, STEP, CALLS };
enum { PADDED, PACKED, WAYS }; /* of the rows' inputs; the second where moec_packs */

struct moec_generator {
    const moec_program *program;
    int ways;
    Call call[WAYS][CALLS];
    unsigned char *block; /* all buffers */
    uint64_t bytes;
    void *shared[ROLE_COUNT];
    int64_t *token_in, *token_out;
    unsigned char *finished; /* a flag a row */
    int64_t most_rows, most_steps;
};

static Role role_of(const char *name, int output) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(roles[i].name, name))
            return output ? roles[i].output : roles[i].input;
    return ROLE_OWN;
}

static int role_is_callers(Role r) {
    return r == ROLE_IDS || r == ROLE_MASK || r == ROLE_SENTENCE;
}

/* Indices of the functions of a way. */
static void find_functions(const moec_program *p, int way, int index[CALLS]) {
    const moec_seq2seq *q = p->seq2seq;
    index[ENCODE] = way == PACKED ? q->encode_packed : q->encode;
    index[CROSS] = way == PACKED ? q->cross_packed : q->cross;
    index[STEP] = way == PACKED ? q->step_packed : q->step;
}

static int ways_of(const moec_program *p) {
    return moec_packs(p) ? WAYS : PACKED;
}

static moec_status bind_call(moec_generator *g, Call *c, int index, moec_sink sink) {
    const moec_program *p = g->program;
    if (index < 0 || (uint32_t)index >= p->n_functions)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: the program lacks a function for decoding");
    c->index = (uint32_t)index;
    c->function = &p->function[index];
    c->n = c->function->n_inputs + c->function->n_outputs;
    c->arg = moec_mem_new(c->n, sizeof *c->arg);
    c->role = moec_mem_new(c->n, 1);
    if (!c->arg || !c->role)
        return MOEC_E_MEMORY;
    for (uint32_t i = 0; i < c->n; i++) {
        const moec_value *v = &c->function->value[i];
        int output = i >= c->function->n_inputs;
        c->role[i] = (uint8_t)role_of(v->name, output);
        if (!output && c->role[i] == ROLE_OWN && v->grow_axis < 0)
            return moec_fail(sink, MOEC_E_MISMATCH, NULL,
                             "error: function '%s' has an input '%s' that decoding does not know",
                             c->function->name, v->name);
    }
    return MOEC_OK;
}

/* Buffers of a way's calls that are their own, from the block's start on; size: the largest of each role. */
static int lay_out_own(const moec_program *p, const int64_t *sym, moec_generator *g, int way, uint64_t *size, uint64_t *at) {
    unsigned char *block = g ? g->block : NULL;
    uint64_t bytes;
    int index[CALLS];
    find_functions(p, way, index);
    *at = 0;
    for (int k = 0; k < CALLS; k++) {
        const moec_function *f = &p->function[index[k]];
        void **arg = g ? g->call[way][k].arg : NULL;
        for (uint32_t i = 0; i < f->n_inputs + f->n_outputs; i++) {
            const moec_value *v = &f->value[i];
            Role r = role_of(v->name, i >= f->n_inputs);
            if (!moec_value_bytes(f, i, sym, &bytes))
                return 0;
            if (v->alias >= 0) {
                if (arg)
                    arg[i] = arg[v->alias];
            } else if (r != ROLE_OWN) {
                size[r] = bytes > size[r] ? bytes : size[r];
            } else {
                if (arg && block)
                    arg[i] = block + *at;
                *at += moec_round_up(bytes);
            }
        }
    }
    return 1;
}

/* Counts the buffers of all calls; with a generator, whose calls are bound, also gives each its place in the
 * block, where it has one. Only one way's are in use at a time. */
static int lay_out(const moec_program *p, const int64_t *sym, moec_generator *g, uint64_t *at) {
    uint64_t size[ROLE_COUNT] = {0}, own;
    unsigned char *block = g ? g->block : NULL;
    *at = 0;
    for (int way = 0; way < ways_of(p); way++) {
        if (!lay_out_own(p, sym, g, way, size, &own))
            return 0;
        *at = own > *at ? own : *at;
    }
    for (int r = 0; r < ROLE_COUNT; r++) {
        if (r == ROLE_OWN || role_is_callers((Role)r))
            continue;
        if (block)
            g->shared[r] = block + *at;
        *at += moec_round_up(size[r] ? size[r] : 64);
    }
    return *at < (uint64_t)1 << 47;
}

uint64_t moec_generate_bytes(const moec_program *p) {
    int64_t sym[MOEC_SYMBOLS];
    uint64_t bytes;
    if (!p || !p->seq2seq)
        return 0;
    for (int way = 0; way < ways_of(p); way++) {
        int index[CALLS];
        find_functions(p, way, index);
        for (int k = 0; k < CALLS; k++)
            if (index[k] < 0 || (uint32_t)index[k] >= p->n_functions)
                return UINT64_MAX;
    }
    moec_symbols_high(p, sym);
    return lay_out(p, sym, NULL, &bytes) ? bytes : UINT64_MAX;
}

static int64_t highest(const moec_program *p, int symbol, int64_t otherwise) {
    return symbol >= 0 ? p->symbol[symbol].hi : otherwise;
}

static moec_status set_up(moec_generator *g, moec_sink sink) {
    const moec_program *p = g->program;
    const moec_seq2seq *q = p->seq2seq;
    g->ways = ways_of(p);
    for (int way = 0; way < g->ways; way++) {
        int index[CALLS];
        find_functions(p, way, index);
        for (int k = 0; k < CALLS; k++) {
            moec_status s = bind_call(g, &g->call[way][k], index[k], sink);
            if (s)
                return s;
        }
    }
    int64_t sym[MOEC_SYMBOLS], e[MOEC_RANK];
    moec_symbols_high(p, sym);
    if (!lay_out(p, sym, g, &g->bytes))
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: the buffers for decoding are too large");
    g->block = moec_mem_reserve(g->bytes);
    if (!g->block)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: cannot reserve %llu bytes for decoding",
                         (unsigned long long)g->bytes);
    lay_out(p, sym, g, &g->bytes);
    for (Call *c = g->call[0]; c < g->call[0] + g->ways * CALLS; c++)
        for (uint32_t i = 0; i < c->n; i++)
            if (c->role[i] != ROLE_OWN)
                c->arg[i] = g->shared[c->role[i]];
    g->token_in = g->shared[ROLE_TOKEN_IN];
    g->token_out = g->shared[ROLE_TOKEN_OUT];
    const moec_function *encode = g->call[PADDED][ENCODE].function;
    int ids = moec_find_input(encode, "input_ids");
    if (ids < 0 || encode->value[ids].rank != 2)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: function 'encode' has no matrix input_ids");
    encode->shape(sym, (uint32_t)ids, e);
    g->most_rows = highest(p, q->batch, e[0]);
    g->most_steps = highest(p, q->past, 0) + 1;
    g->finished = moec_mem_new((size_t)g->most_rows, 1);
    return g->finished ? MOEC_OK : MOEC_E_MEMORY;
}

moec_status moec_generator_new(const moec_program *p, moec_generator **out, moec_sink sink) {
    moec_generator *g = moec_mem_new(1, sizeof *g);
    if (!g)
        return MOEC_E_MEMORY;
    *out = g; /* freed with the instance, whatever happens below */
    g->program = p;
    return set_up(g, sink);
}

void moec_generator_free(moec_generator *g) {
    if (!g)
        return;
    for (Call *c = g->call[0]; c < g->call[0] + g->ways * CALLS; c++) {
        moec_mem_free(c->arg);
        moec_mem_free(c->role);
    }
    moec_mem_release(g->block, g->bytes);
    moec_mem_free(g->finished);
    moec_mem_free(g);
}

int64_t moec_generate_limit(const moec_program *p) {
    return p && p->seq2seq ? highest(p, p->seq2seq->past, 0) + 1 : 0;
}

static moec_status run(moec_instance *m, Call *c, const int64_t *sym, const int32_t *adapter_of_row) {
    return moec_run_rows(m, c->index, sym, c->arg, adapter_of_row);
}

/* Points the arguments that belong to the caller at what this call brought. */
static moec_status bind_callers(moec_generator *g, const int64_t *ids, const int64_t *mask,
                                const float *sentence) {
    void *const given[ROLE_COUNT] = {[ROLE_IDS] = (void *)(uintptr_t)ids,
                                     [ROLE_MASK] = (void *)(uintptr_t)mask,
                                     [ROLE_SENTENCE] = (void *)(uintptr_t)sentence};
    for (Call *c = g->call[PADDED]; c < g->call[PADDED] + CALLS; c++)
        for (uint32_t i = 0; i < c->n; i++)
            if (role_is_callers((Role)c->role[i]) && !(c->arg[i] = given[c->role[i]]))
                return MOEC_E_ARGUMENT;
    return MOEC_OK;
}

/* The way this batch goes, its tokens packed where it is theirs. */
static int choose_way(const moec_generator *g, int64_t batch, int64_t length, const int64_t *ids, const int64_t *mask,
                      int64_t *sym) {
    if (g->ways == PACKED)
        return PADDED;
    int64_t tokens = moec_pack(batch, length, ids, mask, g->shared[ROLE_PACKED_IDS], g->shared[ROLE_SPANS]);
    if (tokens)
        sym[g->program->seq2seq->tokens] = tokens;
    return tokens ? PACKED : PADDED;
}

static moec_status decode(moec_instance *m, Call *step, int64_t *sym, int64_t batch, int64_t most, int64_t eos,
                          const int32_t *adapter_of_row, int64_t *tokens, int64_t *steps,
                          int (*each)(void *ctx, int64_t step, const int64_t *token), void *ctx) {
    moec_generator *g = m->generator;
    const moec_seq2seq *q = m->program->seq2seq;
    int64_t open = batch;
    memset(g->finished, 0, (size_t)batch);
    for (int64_t i = 0; i < batch; i++)
        g->token_in[i] = q->start;
    for (int64_t i = 0; i < batch * most; i++)
        tokens[i] = q->pad;
    for (int64_t t = 0; t < most && open > 0; t++) {
        if (q->past >= 0)
            sym[q->past] = t;
        moec_status s = run(m, step, sym, adapter_of_row);
        if (s)
            return s;
        for (int64_t i = 0; i < batch; i++) {
            int64_t token = g->finished[i] ? q->pad : g->token_out[i];
            tokens[i * most + t] = g->token_in[i] = token;
            if (!g->finished[i] && token == eos) {
                g->finished[i] = 1;
                open--;
            }
        }
        *steps = t + 1;
        if (each && each(ctx, t, g->token_in))
            break;
    }
    return MOEC_OK;
}

moec_status moec_generate(moec_instance *m, int64_t batch, int64_t length, const int64_t *ids,
                          const int64_t *mask, const float *sentence, const moec_generate_options *o,
                          int64_t *tokens, int64_t *steps,
                          int (*each)(void *ctx, int64_t step, const int64_t *token), void *ctx) {
    if (!m || !m->generator || !ids || !mask || !tokens || !steps)
        return MOEC_E_ARGUMENT;
    moec_generator *g = m->generator;
    const moec_program *p = m->program;
    const moec_seq2seq *q = p->seq2seq;
    int64_t most = o && o->max_length ? o->max_length : g->most_steps;
    int64_t eos = o && o->eos >= 0 ? o->eos : q->eos;
    *steps = 0;
    if (batch < 1 || batch > g->most_rows || length < 0 || most < 1 || most > g->most_steps)
        return MOEC_E_RANGE;
    moec_status s = bind_callers(g, ids, mask, sentence);
    if (s)
        return s;
    int64_t sym[MOEC_SYMBOLS], e[MOEC_RANK];
    moec_symbols_low(p, sym);
    if (q->batch >= 0)
        sym[q->batch] = batch;
    if (q->source >= 0)
        sym[q->source] = length;
    const moec_function *encode = g->call[PADDED][ENCODE].function;
    encode->shape(sym, (uint32_t)moec_find_input(encode, "input_ids"), e);
    if (e[0] != batch || e[1] != length)
        return MOEC_E_RANGE; /* constant extents */
    if (q->source >= 0 && (length < p->symbol[q->source].lo || length > p->symbol[q->source].hi))
        return MOEC_E_RANGE;
    const int32_t *slot = o ? o->adapter_of_row : NULL;
    Call *call = g->call[choose_way(g, batch, length, ids, mask, sym)];
    if ((s = run(m, &call[ENCODE], sym, slot)) || (s = run(m, &call[CROSS], sym, slot)))
        return s;
    return decode(m, &call[STEP], sym, batch, most, eos, slot, tokens, steps, each, ctx);
}
