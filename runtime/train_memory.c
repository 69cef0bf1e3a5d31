/* How much of the arena function `train` touches. */
#include "internal.h"
#include "moec_train.h"

uint64_t moec_train_arena_bytes(const moec_program *p, const int64_t *sym) {
    if (!p || !sym || !p->n_places || !p->train_sizes)
        return 0;
    uint64_t *bytes = moec_mem_new(p->n_sizes, sizeof *bytes), total = 0, end = 0;
    if (!bytes)
        return p->arena_bytes;
    p->train_sizes(sym, bytes);
    for (uint32_t i = 0; i < p->n_places; i++) {
        uint64_t from = p->place[i].offset, to = from + bytes[p->place[i].size];
        from = from > end ? from : end;
        if (to > from)
            total += to - from;
        end = to > end ? to : end;
    }
    moec_mem_free(bytes);
    return total;
}
