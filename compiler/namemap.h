/* A hash map from byte strings to 32-bit numbers, for the length of one pass.
 *
 * Keys are borrowed: they must outlive the map. Open addressing, linear probing, at most 3/4 full. */
#ifndef MOEC_NAMEMAP_H
#define MOEC_NAMEMAP_H

#include "base.h"

typedef struct NameMap {
    struct NameSlot {
        Str key; /* p == NULL: free */
        uint32_t value;
    } *slot;
    size_t count, room; /* room is a power of two */
} NameMap;

/* False when the key is there already: its value stays. */
bool namemap_add(NameMap *map, Str key, uint32_t value);
bool namemap_find(const NameMap *map, Str key, uint32_t *value); /* value may be NULL */
uint32_t *namemap_at(NameMap *map, Str key);                     /* until the next namemap_add; NULL: not there */
void namemap_free(NameMap *map);

#endif
