/* The weights of instances: read from their file, mapped from it, or linked in; several instances may share them.
 *
 * A file that was read may change, shrink or go afterwards: nothing of it is used any more. One that is mapped must stay as
 * it is. Either is recognised by its header (magic, byte order, ABI, hash, size), which costs nothing at any size; the
 * contents are hashed on request. */
#include "internal.h"

#include "atomic.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = {'M', 'O', 'E', 'C', 'W', 'T', 'S', '\n'};

struct moec_weights {
    const moec_program *program;
    unsigned char *at;
    uint64_t bytes; /* to give back; 0: linked in, or none */
    int mapped;
    moec_atomic users;
};

/* ---- whose they are ---- */

static uint32_t backwards(uint32_t v) {
    return v << 24 | (v & 0xff00) << 8 | (v >> 8 & 0xff00) | v >> 24;
}

static uint64_t backwards64(uint64_t v) {
    return (uint64_t)backwards((uint32_t)v) << 32 | backwards((uint32_t)(v >> 32));
}

/* The byte order of this machine, or of the other ones. */
static const char *order_name(int other) {
    const uint32_t order = MOEC_ORDER;
    return (*(const unsigned char *)&order == 4) != other ? "little-endian" : "big-endian";
}

/* Room for what a file or program is, in words. */
enum { WHO = 400 };

static const char *who(char out[WHO], const char *name, size_t n, uint32_t abi, uint64_t hash, uint64_t bytes, int other_order) {
    char shown[MOEC_SHOW];
    size_t k = 0;
    while (k < n && name[k])
        k++;
    snprintf(out, WHO, "'%s', hash %016llx, %llu bytes, ABI %u, %s", moec_show(shown, name, k), (unsigned long long)hash,
              (unsigned long long)bytes, (unsigned)abi, order_name(other_order));
    return out;
}

/* Whether a header is that of a file this runtime reads; who it is for if not. p: the program that asks; NULL: none. */
static moec_status check_kind(const moec_program *p, const char *path, const moec_weights_header *h, moec_sink sink) {
    char file[WHO], ours[WHO] = "";
    if (memcmp(h->magic, magic, sizeof h->magic))
        return moec_fail(sink, MOEC_E_FORMAT, path, "is not a moec weights file");
    if (p)
        who(ours, p->name, strlen(p->name), MOEC_ABI, p->weights_hash, p->weights_bytes, 0);
    else
        snprintf(ours, WHO, "ABI %d, %s", MOEC_ABI, order_name(0));
    if (h->order == backwards(MOEC_ORDER)) {
        who(file, h->name, sizeof h->name, backwards(h->abi), backwards64(h->hash), backwards64(h->bytes), 1);
        return moec_fail(sink, MOEC_E_MISMATCH, path, "is of another byte order: it is %s; this program is %s", file, ours);
    }
    if (h->abi != MOEC_ABI) {
        who(file, h->name, sizeof h->name, h->abi, h->hash, h->bytes, 0);
        return moec_fail(sink, MOEC_E_MISMATCH, path, "is of another version: it is %s; this program is %s", file, ours);
    }
    return h->order == MOEC_ORDER ? MOEC_OK
                                  : moec_fail(sink, MOEC_E_FORMAT, path, "has a damaged header: its byte order is %08x, not %08x",
                                              (unsigned)h->order, (unsigned)MOEC_ORDER);
}

static moec_status check_header(const moec_program *p, const char *path, const moec_weights_header *h, moec_sink sink) {
    char file[WHO], ours[WHO];
    moec_status s = check_kind(p, path, h, sink);
    if (s || (h->hash == p->weights_hash && h->bytes == p->weights_bytes))
        return s;
    return moec_fail(sink, MOEC_E_MISMATCH, path,
                     "belongs to another compilation: it is %s; this program is %s: compile again or name the right file",
                     who(file, h->name, sizeof h->name, h->abi, h->hash, h->bytes, 0),
                     who(ours, p->name, strlen(p->name), MOEC_ABI, p->weights_hash, p->weights_bytes, 0));
}

static moec_status compare(const char *path, uint64_t hash, uint64_t want, moec_sink sink) {
    return hash == want ? MOEC_OK
                        : moec_fail(sink, MOEC_E_FORMAT, path, "is damaged: its contents have hash %016llx, its header says %016llx",
                                    (unsigned long long)hash, (unsigned long long)want);
}

static moec_status check_contents(const char *path, const unsigned char *at, uint64_t bytes, uint64_t want, moec_sink sink) {
    const size_t header = sizeof(moec_weights_header);
    return compare(path, moec_fnv(MOEC_FNV_START, at + header, (size_t)bytes - header), want, sink);
}

/* Opens a weights file and reads its header, which is right for p (NULL: any) as far as its size. */
static moec_status open_file(const moec_program *p, const char *path, int *fd, moec_weights_header *h, moec_sink sink) {
    uint64_t size = 0;
    moec_status s = moec_file_open(path, (uint64_t)1 << 62, fd, &size, sink);
    if (s)
        return s;
    if (size < sizeof *h)
        s = moec_fail(sink, MOEC_E_FORMAT, path, "is too short for a moec weights file");
    if (!s)
        s = moec_file_read(*fd, path, 0, h, sizeof *h, sink);
    if (!s)
        s = p ? check_header(p, path, h, sink) : check_kind(p, path, h, sink);
    if (!s && (size != h->bytes || (uint64_t)(size_t)size != size))
        s = moec_fail(sink, MOEC_E_FORMAT, path, "has %llu bytes where %llu belong: it was cut or added to",
                      (unsigned long long)size, (unsigned long long)h->bytes);
    if (!s)
        return MOEC_OK;
    moec_file_close(*fd);
    *fd = -1;
    return s;
}

/* ---- where they come from ---- */

static moec_status read_file(moec_weights *w, int fd, const char *path, const moec_weights_header *h, moec_sink sink) {
    w->at = moec_mem_take(h->bytes);
    if (!w->at)
        return moec_fail(sink, MOEC_E_MEMORY, path, "has %llu bytes, for which there is no memory: mapped it needs less (--map)",
                         (unsigned long long)h->bytes);
    w->bytes = h->bytes;
    moec_status s = moec_file_read(fd, path, 0, w->at, h->bytes, sink);
    if (!s && memcmp(w->at, h, sizeof *h))
        s = moec_fail(sink, MOEC_E_IO, path, "changed while it was read");
    moec_mem_protect(w->at, w->bytes);
    return s;
}

static moec_status map_file(moec_weights *w, int fd, const char *path, const moec_weights_header *h, moec_sink sink) {
    moec_status s = moec_file_map(fd, path, h->bytes, &w->at, sink);
    w->mapped = !s;
    w->bytes = s ? 0 : h->bytes;
    return s;
}

static moec_status open_weights(moec_weights *w, const moec_options *o, moec_sink sink) {
    const moec_program *p = w->program;
    const char *path = o->weights ? o->weights : "embedded weights";
    moec_weights_header h;
    moec_status s = MOEC_OK;
    int fd;
    if (!o->weights && !p->embedded)
        return p->weights_bytes ? moec_fail(sink, MOEC_E_OPEN, NULL, "error: no weights file was given") : MOEC_OK;
    if (o->weights) {
        if ((s = open_file(p, path, &fd, &h, sink)))
            return s;
        s = (o->map ? map_file : read_file)(w, fd, path, &h, sink);
        moec_file_close(fd);
    } else {
        w->at = (unsigned char *)(uintptr_t)p->embedded;
        memcpy(&h, w->at, sizeof h);
        s = check_header(p, path, &h, sink);
    }
    return s || !o->check ? s : check_contents(path, w->at, h.bytes, h.hash, sink);
}

moec_status moec_weights_open(const moec_program *p, const moec_options *o, moec_weights **out, moec_sink sink) {
    moec_weights *w = o->weights_of ? o->weights_of->held : NULL;
    *out = NULL;
    if (o->weights_of && (!w || w->program != p || o->weights))
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL,
                         w && w->program == p ? "error: weights of a file and of an instance"
                                              : "error: the weights of an instance of another program");
    if (w) {
        moec_atomic_add(&w->users, 1);
        *out = w;
        return MOEC_OK;
    }
    if (!(w = moec_mem_new(1, sizeof *w)))
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    moec_atomic_init(&w->users);
    moec_atomic_add(&w->users, 1);
    w->program = p;
    moec_status s = open_weights(w, o, sink);
    if (s)
        moec_weights_close(w);
    else
        *out = w;
    return s;
}

void moec_weights_close(moec_weights *w) {
    if (!w || moec_atomic_add(&w->users, -1) > 1)
        return;
    if (w->mapped)
        moec_file_unmap(w->at, w->bytes);
    else if (w->bytes)
        moec_mem_release(w->at, w->bytes);
    moec_atomic_drop(&w->users);
    moec_mem_free(w);
}

const unsigned char *moec_weights_at(const moec_weights *w) {
    return w->at;
}

/* ---- for people ---- */

moec_status moec_weights_info(const char *path, int check, moec_weights_header *out, char *message, size_t room) {
    enum { CHUNK = 1 << 14 };
    moec_sink sink = {message, room};
    uint64_t hash = MOEC_FNV_START;
    unsigned char chunk[CHUNK];
    int fd;
    if (message && room)
        message[0] = 0;
    if (!path || !out)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    moec_status s = open_file(NULL, path, &fd, out, sink);
    if (s)
        return s;
    for (uint64_t at = sizeof *out; at < out->bytes && check && !s; at += CHUNK) {
        size_t n = out->bytes - at < CHUNK ? (size_t)(out->bytes - at) : CHUNK;
        if (!(s = moec_file_read(fd, path, at, chunk, n, sink)))
            hash = moec_fnv(hash, chunk, n);
    }
    moec_file_close(fd);
    return s || !check ? s : compare(path, hash, out->hash, sink);
}
