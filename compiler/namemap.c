/* Names to numbers. Invariant: a free slot follows every probe sequence. */
#include "namemap.h"

static size_t slot_of(const NameMap *map, Str key)
{
    size_t i = (size_t)hash_bytes(0, key.p, key.n) & (map->room - 1);
    while (map->slot[i].key.p && !str_eq(map->slot[i].key, key))
        i = (i + 1) & (map->room - 1);
    return i;
}

static void namemap_grow(NameMap *map)
{
    NameMap old = *map;
    map->room = old.room ? 2 * old.room : 64;
    map->slot = mem_alloc(map->room * sizeof *map->slot);
    for (size_t i = 0; i < old.room; i++)
        if (old.slot[i].key.p)
            map->slot[slot_of(map, old.slot[i].key)] = old.slot[i];
    mem_free(old.slot);
}

bool namemap_add(NameMap *map, Str key, uint32_t value)
{
    if (4 * (map->count + 1) > 3 * map->room)
        namemap_grow(map);
    if (!key.p)
        key.p = "";
    struct NameSlot *s = &map->slot[slot_of(map, key)];
    if (s->key.p)
        return false;
    s->key = key;
    s->value = value;
    map->count++;
    return true;
}

uint32_t *namemap_at(NameMap *map, Str key)
{
    struct NameSlot *s = map->room ? &map->slot[slot_of(map, key)] : NULL;
    return s && s->key.p ? &s->value : NULL;
}

bool namemap_find(const NameMap *map, Str key, uint32_t *value)
{
    if (!map->room)
        return false;
    const struct NameSlot *s = &map->slot[slot_of(map, key)];
    if (!s->key.p)
        return false;
    if (value)
        *value = s->value;
    return true;
}

void namemap_free(NameMap *map)
{
    mem_free(map->slot);
    *map = (NameMap){0};
}
