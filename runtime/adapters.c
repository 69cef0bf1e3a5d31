/* The adapters of an instance: slots of tensors and of what is derived from them, all reserved at open.
 *
 * A file is read into a block that belongs to no slot; blocks change places only when all of it was right. */
#include "internal.h"

#include <string.h>

enum { MOST_SLOTS = 1 << 20 };

moec_status moec_slots_check(int adapters, moec_sink sink) {
    return adapters >= 0 && adapters <= MOST_SLOTS
               ? MOEC_OK
               : moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %d adapters: at most %d are possible",
                           adapters, (int)MOST_SLOTS);
}

uint64_t moec_slots_bytes(const moec_program *p, int adapters, moec_slot_bytes *part) {
    uint64_t n = adapters ? (uint64_t)adapters : 1;
    *part = (moec_slot_bytes){0, 0, 0};
    if (p->n_tensors)
        part->room = moec_tensors_room(p->tensor, p->n_tensors, p->spec);
    part->adapters = moec_size_times(moec_adapter_bytes(p), n + 1);
    part->derived = moec_size_times(moec_derived_bytes(p), n);
    return moec_size_plus(moec_size_plus(part->adapters, part->derived), part->room);
}

moec_status moec_slots_open(moec_instance *m, int adapters, moec_sink sink) {
    const moec_program *p = m->program;
    moec_status s;
    m->slots = adapters ? adapters : 1;
    moec_slots_bytes(p, adapters, &m->slot_bytes);
    if (!(m->slot = moec_mem_new((size_t)m->slots, sizeof *m->slot)))
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    if ((s = moec_reserve(&m->adapters, m->slot_bytes.adapters, "adapters", sink)) ||
        (s = moec_reserve(&m->derived, m->slot_bytes.derived, "derived weights", sink)) ||
        (s = moec_reserve(&m->room, m->slot_bytes.room, "room to read adapters in", sink)))
        return s;
    if (p->adapter_bytes && (!m->weights || p->adapter_init > p->weights_bytes ||
                             p->adapter_bytes > p->weights_bytes - p->adapter_init))
        return moec_fail(sink, MOEC_E_FORMAT, NULL, "error: the adapter lies outside the weights file");
    for (int i = 0; i < m->slots; i++) {
        if (p->adapter_bytes) {
            m->slot[i].adapter = m->adapters + (uint64_t)i * moec_adapter_bytes(p);
            memcpy(m->slot[i].adapter, m->weights + p->adapter_init, (size_t)p->adapter_bytes);
        }
        if (p->derived_bytes)
            m->slot[i].derived = m->derived + (uint64_t)i * moec_derived_bytes(p);
    }
    if (p->adapter_bytes)
        m->spare = m->adapters + (uint64_t)m->slots * moec_adapter_bytes(p);
    return MOEC_OK;
}

void moec_slots_close(moec_instance *m) {
    moec_mem_release(m->adapters, m->slot_bytes.adapters);
    moec_mem_release(m->derived, m->slot_bytes.derived);
    moec_mem_release(m->room, m->slot_bytes.room);
    moec_mem_free(m->slot);
}

/* Checks the arguments of a load or save, and that there are tensors. */
static moec_status check(const moec_instance *m, int slot, const char *path, moec_sink sink) {
    if (sink.p && sink.room)
        sink.p[0] = 0;
    if (!m || !path || slot < 0 || slot >= m->slots)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    return m->program->n_tensors
               ? MOEC_OK
               : moec_fail(sink, MOEC_E_MISMATCH, path, "the model was compiled without an adapter");
}

static void change_places(moec_instance *m, int slot) {
    unsigned char *old = m->slot[slot].adapter;
    m->slot[slot].adapter = m->spare;
    m->spare = old;
}

moec_status moec_load_adapter_slot(moec_instance *m, int slot, const char *path, char *message, size_t room) {
    moec_sink sink = {message, room};
    moec_status s = check(m, slot, path, sink);
    if (s || (s = moec_tensors_read(m->program, m->program->tensor, m->program->n_tensors, path, m->spare, m->room,
                                    m->slot_bytes.room, sink)))
        return s;
    change_places(m, slot);
    if (!(s = moec_prepare(m, slot)))
        return MOEC_OK;
    change_places(m, slot);
    moec_prepare(m, slot); /* it succeeded with these tensors before */
    return moec_fail(sink, s, path, "%s", moec_status_text(s));
}

moec_status moec_load_adapter(moec_instance *m, const char *path, char *message, size_t room) {
    return moec_load_adapter_slot(m, 0, path, message, room);
}

moec_status moec_save_adapter(moec_instance *m, int slot, const char *path, char *message, size_t room) {
    moec_sink sink = {message, room};
    moec_status s = check(m, slot, path, sink);
    return s ? s : moec_safetensors_write(m->program, m->slot[slot].adapter, path, sink);
}
