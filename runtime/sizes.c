/* What a program takes in bytes, before anything is opened. Sums and products that leave 64 bits, or what
 * memory can hold, come out as UINT64_MAX, which no allocation grants. */
#include "internal.h"

uint64_t moec_size_plus(uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t moec_size_times(uint64_t a, uint64_t b) {
    return a && b > UINT64_MAX / a ? UINT64_MAX : a * b;
}

static uint64_t rounded(uint64_t n) {
    return n > UINT64_MAX - 63 ? UINT64_MAX : moec_round_up(n);
}

/* ---- of an instance ---- */

uint64_t moec_weights_bytes(const moec_program *p) {
    return p ? p->weights_bytes : 0;
}

uint64_t moec_adapter_bytes(const moec_program *p) {
    return p ? rounded(p->adapter_bytes) : 0;
}

uint64_t moec_derived_bytes(const moec_program *p) {
    return p ? rounded(p->derived_bytes) : 0;
}

uint64_t moec_scratch_bytes(const moec_program *p, int threads) {
    return p ? moec_size_times(p->scratch_bytes, (uint64_t)moec_pool_threads(threads)) : 0;
}

uint64_t moec_open_bytes(const moec_program *p, const moec_options *o) {
    static const moec_options none;
    moec_slot_bytes part;
    if (!p)
        return 0;
    if (!o)
        o = &none;
    if (moec_slots_check(o->adapters, (moec_sink){NULL, 0}))
        return UINT64_MAX;
    uint64_t bytes = !o->weights_of && (o->weights || !p->embedded) ? p->weights_bytes : 0;
    bytes = moec_size_plus(bytes, p->arena_bytes);
    bytes = moec_size_plus(bytes, moec_scratch_bytes(p, o->threads));
    bytes = moec_size_plus(bytes, moec_slots_bytes(p, o->adapters, &part));
    return moec_size_plus(bytes, moec_generate_bytes(p));
}

/* ---- of a function ---- */

/* The symbols asked for (NULL: the upper bounds) with those that play no part at their lower bounds; false
 * where one is outside its bounds or has none above. */
static int symbols(const moec_program *p, const moec_function *f, const int64_t *sym, int64_t *out) {
    uint64_t used = moec_symbols_used(p, f);
    moec_symbols_low(p, out);
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        if (!(used >> i & 1))
            continue;
        out[i] = sym ? sym[i] : p->symbol[i].hi;
        if (out[i] < p->symbol[i].lo || out[i] > p->symbol[i].hi || out[i] > (int64_t)1 << 47)
            return 0;
    }
    return 1;
}

uint64_t moec_argument_bytes(const moec_program *p, uint32_t function, uint32_t i, const int64_t *sym) {
    const moec_function *f = p && function < p->n_functions ? &p->function[function] : NULL;
    int64_t at[MOEC_SYMBOLS];
    uint64_t bytes;
    return f && i < (uint64_t)f->n_inputs + f->n_outputs && symbols(p, f, sym, at) &&
                   moec_value_bytes(f, i, at, &bytes)
               ? bytes
               : UINT64_MAX;
}

uint64_t moec_cache_bytes(const moec_program *p, uint32_t function, const int64_t *sym) {
    uint64_t bytes = 0;
    if (!p || function >= p->n_functions)
        return UINT64_MAX;
    for (uint32_t i = 0; i < p->function[function].n_inputs; i++)
        if (p->function[function].value[i].grow_axis >= 0)
            bytes = moec_size_plus(bytes, moec_argument_bytes(p, function, i, sym));
    return bytes;
}

/* ---- of the arena ---- */

uint64_t moec_arena_bytes(const moec_program *p, const int64_t *const *sym) {
    if (!p || !sym || !p->n_places || !p->place_sizes)
        return 0;
    size_t n = p->n_sizes;
    uint64_t *bytes = moec_mem_new((size_t)p->n_functions * n, sizeof *bytes), total = 0, end = 0;
    if (!bytes)
        return p->arena_bytes;
    for (uint32_t f = 0; f < p->n_functions; f++)
        if (sym[f])
            p->place_sizes(sym[f], bytes + f * n);
    for (uint32_t i = 0; i < p->n_places; i++) {
        const moec_place *place = &p->place[i];
        if (!sym[place->function])
            continue;
        uint64_t from = place->offset, to = from + bytes[place->function * n + place->size];
        from = from > end ? from : end;
        if (to > from)
            total += to - from;
        end = to > end ? to : end;
    }
    moec_mem_free(bytes);
    return total;
}

uint64_t moec_activation_bytes(const moec_program *p, uint32_t function, const int64_t *sym) {
    int64_t at[MOEC_SYMBOLS];
    if (!p || function >= p->n_functions || !symbols(p, &p->function[function], sym, at))
        return UINT64_MAX;
    const int64_t **of = p->n_places ? moec_mem_new(p->n_functions, sizeof *of) : NULL;
    if (!of)
        return p->arena_bytes;
    of[function] = at;
    uint64_t bytes = moec_arena_bytes(p, of);
    moec_mem_free(of);
    return bytes;
}
