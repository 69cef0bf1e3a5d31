/* How much of the arena training touches. */
#include "internal.h"
#include "moec_train.h"

uint64_t moec_train_arena_bytes(const moec_program *p, const int64_t *const *sym) {
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
