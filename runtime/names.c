/* Byte strings and their numbers: a list, and a hash table of numbers over it that is at most half full. */
#include "internal.h"

#include <string.h>

struct moec_name {
    char *p;
    size_t n;
    uint64_t hash;
};

static int grow(moec_names *s) {
    size_t room = s->room ? s->room * 2 : 16, slots = room * 2;
    struct moec_name *item = moec_mem_grow(s->item, room * sizeof *item);
    if (!item)
        return 0;
    s->item = item;
    size_t *slot = moec_mem_new(slots, sizeof *slot);
    if (!slot)
        return 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t at = item[i].hash & (slots - 1);
        while (slot[at])
            at = (at + 1) & (slots - 1);
        slot[at] = i + 1;
    }
    moec_mem_free(s->slot);
    s->slot = slot;
    s->slots = slots;
    s->room = room;
    return 1;
}

int moec_names_add(moec_names *s, const void *p, size_t n, size_t *number) {
    if (s->count == s->room && !grow(s))
        return 0;
    uint64_t hash = moec_fnv(MOEC_FNV_START, p, n);
    hash ^= hash >> 29;
    size_t at = hash & (s->slots - 1);
    for (; s->slot[at]; at = (at + 1) & (s->slots - 1)) {
        const struct moec_name *x = &s->item[s->slot[at] - 1];
        if (x->hash == hash && x->n == n && !memcmp(x->p, p, n)) {
            *number = s->slot[at] - 1;
            return 1;
        }
    }
    struct moec_name name = {moec_mem_new(n + 1, 1), n, hash};
    if (!name.p)
        return 0;
    memcpy(name.p, p, n);
    *number = s->count++;
    s->item[*number] = name;
    s->slot[at] = *number + 1;
    return 1;
}

const char *moec_names_get(const moec_names *s, size_t number, size_t *n) {
    *n = s->item[number].n;
    return s->item[number].p;
}

void moec_names_free(moec_names *s) {
    for (size_t i = 0; i < s->count; i++)
        moec_mem_free(s->item[i].p);
    moec_mem_free(s->item);
    moec_mem_free(s->slot);
    *s = (moec_names){0};
}
