/* Instances: a program joined with its mapped weights, an adapter, an arena and a pool.
 *
 * The weights file is recognised by its header (magic, ABI, size, hash), which costs nothing at any size; its
 * contents are not hashed again. Arena, scratch and buffers are reserved for the bounds of the program and
 * cost memory only as far as they are touched. */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static const char weights_magic[8] = {'M', 'O', 'E', 'C', 'W', 'T', 'S', '\n'};

static moec_status check_header(const moec_program *p, const char *path, const moec_weights_header *h,
                                moec_sink sink) {
    if (memcmp(h->magic, weights_magic, sizeof h->magic))
        return moec_fail(sink, MOEC_E_FORMAT, path, "is not a moec weights file");
    if (h->abi != MOEC_ABI)
        return moec_fail(sink, MOEC_E_MISMATCH, path, "was written for ABI %u, this program has ABI %d",
                         (unsigned)h->abi, MOEC_ABI);
    if (h->hash != p->weights_hash || h->bytes != p->weights_bytes)
        return moec_fail(sink, MOEC_E_MISMATCH, path,
                         "belongs to another compilation: compile again or name the right file");
    return MOEC_OK;
}

static moec_status map_weights(moec_instance *m, const char *path, moec_sink sink) {
    const moec_program *p = m->program;
    moec_weights_header h;
    if (!path && p->embedded) {
        memcpy(&h, p->embedded, sizeof h);
        m->weights = p->embedded;
        return check_header(p, "embedded weights", &h, sink);
    }
    if (!path && p->weights_bytes == 0)
        return MOEC_OK;
    if (!path)
        return moec_fail(sink, MOEC_E_OPEN, NULL, "error: no weights file was given");
    int fd;
    uint64_t size = 0;
    moec_status s = moec_file_open(path, (uint64_t)1 << 62, &fd, &size, sink);
    if (s)
        return s;
    if (size < sizeof h)
        s = moec_fail(sink, MOEC_E_FORMAT, path, "is too short for a moec weights file");
    if (!s)
        s = moec_file_read(fd, path, 0, &h, sizeof h, sink);
    if (!s)
        s = check_header(p, path, &h, sink);
    if (!s && (size != p->weights_bytes || (uint64_t)(size_t)size != size))
        s = moec_fail(sink, MOEC_E_FORMAT, path, "has %llu bytes where %llu belong: it was cut or added to",
                      (unsigned long long)size, (unsigned long long)p->weights_bytes);
    if (!s) {
        void *at = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) {
            s = moec_fail(sink, MOEC_E_MEMORY, path, "cannot be mapped: %s", strerror(errno));
        } else {
            m->weights = at;
            m->mapped = size;
        }
    }
    moec_file_close(fd);
    return s;
}

static moec_frame frame_of(const moec_instance *m, const int64_t *sym, void *const *arg, int *fault) {
    return (moec_frame){.pool = m->pool,
                        .weights = m->weights,
                        .adapter = m->adapter,
                        .derived = m->derived,
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

moec_status moec_prepare(moec_instance *m) {
    if (!m->program->prepare)
        return MOEC_OK;
    int fault = 0;
    int64_t sym[MOEC_SYMBOLS];
    moec_symbols_low(m->program, sym);
    moec_frame f = frame_of(m, sym, NULL, &fault);
    m->program->prepare(&f);
    return fault_status(fault);
}

static moec_status reserve(unsigned char **at, uint64_t bytes, const char *what, moec_sink sink) {
    *at = moec_mem_reserve(bytes);
    return *at ? MOEC_OK
               : moec_fail(sink, MOEC_E_MEMORY, NULL,
                           "error: cannot reserve %llu bytes of %s: compile with smaller bounds (--dim)",
                           (unsigned long long)bytes, what);
}

static moec_status reserve_all(moec_instance *m, int threads, moec_sink sink) {
    const moec_program *p = m->program;
    m->pool = moec_pool_new(threads);
    if (!m->pool)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: cannot start %d threads", threads);
    uint64_t workers = (uint64_t)moec_pool_workers(m->pool);
    if (p->scratch_bytes > ((uint64_t)1 << 47) / workers)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: too many threads");
    moec_status s = reserve(&m->arena, p->arena_bytes, "arena", sink);
    if (!s)
        s = reserve(&m->scratch, p->scratch_bytes * workers, "scratch space", sink);
    if (!s)
        s = reserve(&m->adapter, p->adapter_bytes, "adapter", sink);
    if (!s)
        s = reserve(&m->spare, p->adapter_bytes, "adapter", sink);
    if (!s)
        s = reserve(&m->derived, p->derived_bytes, "derived weights", sink);
    return s;
}

static moec_status open_instance(moec_instance *m, const moec_options *o, moec_sink sink) {
    const moec_program *p = m->program;
    if (p->abi != MOEC_ABI)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: the program has ABI %u, the runtime ABI %d",
                         (unsigned)p->abi, MOEC_ABI);
    if (p->n_symbols > MOEC_SYMBOLS)
        return moec_fail(sink, MOEC_E_MISMATCH, NULL, "error: the program has %u symbols, %d are possible",
                         (unsigned)p->n_symbols, MOEC_SYMBOLS);
    moec_status s = map_weights(m, o->weights, sink);
    if (!s)
        s = reserve_all(m, o->threads, sink);
    if (s)
        return s;
    m->used = moec_mem_new(p->n_functions, sizeof *m->used);
    if (!m->used)
        return MOEC_E_MEMORY;
    if (moec_profile_rows(p) && !(m->profile = moec_profile_new(p)))
        return MOEC_E_MEMORY;
    for (uint32_t i = 0; i < p->n_functions; i++)
        m->used[i] = moec_symbols_used(p, &p->function[i]);
    if (p->adapter_bytes) {
        if (!m->weights || p->adapter_init > p->weights_bytes ||
            p->adapter_bytes > p->weights_bytes - p->adapter_init)
            return moec_fail(sink, MOEC_E_FORMAT, NULL, "error: the adapter lies outside the weights file");
        memcpy(m->adapter, m->weights + p->adapter_init, (size_t)p->adapter_bytes);
    }
    if (p->seq2seq && (s = moec_generator_new(p, &m->generator, sink)))
        return s;
    if (o->adapter)
        return moec_load_adapter(m, o->adapter, sink.p, sink.room);
    return moec_prepare(m);
}

moec_status moec_open(const moec_program *p, const moec_options *o, moec_instance **out) {
    if (!p || !out)
        return MOEC_E_ARGUMENT;
    static const moec_options none;
    if (!o)
        o = &none;
    *out = NULL;
    moec_sink sink = {o->message, o->message_room};
    if (sink.p && sink.room)
        sink.p[0] = 0;
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
    uint64_t workers = m->pool ? (uint64_t)moec_pool_workers(m->pool) : 1;
    moec_pool_free(m->pool);
    moec_generator_free(m->generator);
    moec_mem_release(m->arena, p->arena_bytes);
    moec_mem_release(m->scratch, p->scratch_bytes * workers);
    moec_mem_release(m->adapter, p->adapter_bytes);
    moec_mem_release(m->spare, p->adapter_bytes);
    moec_mem_release(m->derived, p->derived_bytes);
    if (m->mapped)
        munmap((void *)(uintptr_t)m->weights, (size_t)m->mapped);
    moec_mem_free(m->used);
    moec_profile_free(m->profile);
    moec_mem_free(m);
}

moec_status moec_load_adapter(moec_instance *m, const char *path, char *message, size_t room) {
    moec_sink sink = {message, room};
    if (message && room)
        message[0] = 0;
    if (!m || !path)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    if (!m->program->n_tensors)
        return moec_fail(sink, MOEC_E_MISMATCH, path, "the model was compiled without an adapter");
    moec_status s = moec_safetensors_read(m->program, path, m->spare, sink);
    if (s)
        return s;
    unsigned char *old = m->adapter;
    m->adapter = m->spare;
    m->spare = old;
    if (!(s = moec_prepare(m)))
        return MOEC_OK;
    m->spare = m->adapter;
    m->adapter = old;
    moec_prepare(m); /* it succeeded with these tensors before */
    return moec_fail(sink, s, path, "%s", moec_status_text(s));
}

moec_status moec_run(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg) {
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
    int fault = 0;
    moec_frame frame = frame_of(m, sym, arg, &fault);
    f->run(&frame);
    return fault_status(fault);
}
