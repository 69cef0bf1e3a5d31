/* Arenas, checked arithmetic, strings, growing text and diagnostics. The only file of the compiler that calls
 * malloc.
 *
 * An arena is a list of zeroed blocks; what is larger than a block gets one of its own. A Diag keeps its
 * messages as finished lines, so that a flush is a loop over strings. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory -------------------------------------------------------------------------------- */

static _Noreturn void out_of_memory(void) {
    fputs("moec: error: out of memory\n", stderr);
    exit(1);
}

void *mem_alloc(size_t bytes) {
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *mem_grow(void *p, size_t bytes) {
    p = realloc(p, bytes ? bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

void mem_free(void *p) {
    free(p);
}

void *vec_room(void *items, size_t *room, size_t need, size_t size) {
    if (need <= *room)
        return items;
    size_t more = *room ? *room : 8, bytes;
    while (more < need)
        more *= 2;
    if (!mul_size(more, size, &bytes))
        out_of_memory();
    *room = more;
    return mem_grow(items, bytes);
}

typedef struct Block {
    struct Block *next;
    size_t used, room;
    unsigned char *data;
} Block;

struct Arena {
    Block *block;
    size_t bytes;
};

enum { BLOCK_BYTES = 1 << 16 };

Arena *arena_new(void) {
    return mem_alloc(sizeof(Arena));
}

void arena_free(Arena *a) {
    if (!a)
        return;
    for (Block *b = a->block, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    mem_free(a);
}

static Block *block_new(size_t bytes) {
    size_t all;
    if (!add_size(bytes, sizeof(Block) + 64, &all))
        out_of_memory();
    Block *b = mem_alloc(all);
    b->data = (unsigned char *)b + sizeof(Block);
    b->data += -(uintptr_t)b->data & 63;
    b->room = bytes;
    return b;
}

void *arena_alloc(Arena *a, size_t bytes) {
    size_t align = bytes > 64 ? 64 : 16;
    if (bytes > BLOCK_BYTES / 4) {
        Block *b = block_new(bytes); /* behind the current block, which still has room */
        b->used = bytes;
        if (a->block) {
            b->next = a->block->next;
            a->block->next = b;
        } else
            a->block = b;
        a->bytes += bytes;
        return b->data;
    }
    size_t at = a->block ? (a->block->used + align - 1) & ~(align - 1) : 0;
    if (!a->block || at + bytes > a->block->room) {
        Block *b = block_new(BLOCK_BYTES);
        b->next = a->block;
        a->block = b;
        at = 0;
    }
    a->block->used = at + bytes;
    a->bytes += bytes;
    return a->block->data + at;
}

void *arena_array(Arena *a, size_t count, size_t size) {
    size_t bytes;
    if (!mul_size(count, size, &bytes))
        out_of_memory();
    return arena_alloc(a, bytes);
}

void *arena_copy(Arena *a, const void *src, size_t bytes) {
    void *p = arena_alloc(a, bytes);
    if (bytes)
        memcpy(p, src, bytes);
    return p;
}

char *arena_strndup(Arena *a, const char *s, size_t len) {
    char *p = arena_alloc(a, len + 1);
    if (len)
        memcpy(p, s, len);
    return p;
}

char *arena_printf(Arena *a, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1);
    vsnprintf(p, (size_t)(n < 0 ? 0 : n) + 1, fmt, again);
    va_end(again);
    return p;
}

size_t arena_bytes(const Arena *a) {
    return a->bytes;
}

/* ---- checked arithmetic ----------------------------------------------------------------------- */

bool add_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

bool sub_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_sub_overflow(a, b, out);
}

bool mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

bool add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

bool mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

/* ---- strings ------------------------------------------------------------------------------------ */

Str str_c(const char *s) {
    return (Str){s, s ? strlen(s) : 0};
}

bool str_eq(Str a, Str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_is(Str a, const char *s) {
    return str_eq(a, str_c(s));
}

uint64_t hash_bytes(uint64_t seed, const void *p, size_t n) {
    const unsigned char *s = p;
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ s[i]) * 0x100000001b3u;
    return h;
}

void text_add(Text *t, const char *s, size_t n) {
    if (t->n + n + 1 > t->room)
        t->p = vec_room(t->p, &t->room, t->n + n + 1, 1);
    if (n)
        memcpy(t->p + t->n, s, n);
    t->n += n;
    t->p[t->n] = 0;
}

void text_printf(Text *t, const char *fmt, ...) {
    char small[256];
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof small)
        text_add(t, small, (size_t)n);
    else if (n >= 0) {
        char *big = mem_alloc((size_t)n + 1);
        vsnprintf(big, (size_t)n + 1, fmt, again);
        text_add(t, big, (size_t)n);
        mem_free(big);
    }
    va_end(again);
}

void text_str(Text *t, Str s) {
    text_add(t, s.p, s.n);
}

void text_quoted(Text *t, Str s) {
    text_add(t, "\"", 1);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 32 && c < 127 && c != '"' && c != '\\' && c != '?')
            text_add(t, s.p + i, 1);
        else
            text_printf(t, "\\%03o", c);
    }
    text_add(t, "\"", 1);
}

uint32_t text_line(LineCount *c, const Text *t) {
    for (; c->seen < t->n; c->seen++) c->newlines += t->p[c->seen] == '\n';
    return c->newlines + 1;
}

void text_free(Text *t) {
    mem_free(t->p);
    *t = (Text){0};
}

/* ---- diagnostics ---------------------------------------------------------------------------------- */

enum { SHOWN_ERRORS = 8, LINE_BYTES = 1000, SHOW_BYTES = 200 };

typedef struct Message {
    bool error;
    char *line;
} Message;

struct Diag {
    Arena *arena;
    Vec(Message) message;
    Vec(char *) prefix;
    size_t errors;
    const char *file; /* of messages that name none */
};

Diag *diag_new(void) {
    Diag *d = mem_alloc(sizeof *d);
    d->arena = arena_new();
    return d;
}

void diag_free(Diag *d) {
    if (!d)
        return;
    vec_free(&d->message);
    vec_free(&d->prefix);
    arena_free(d->arena);
    mem_free(d);
}

/* Whatever reaches the terminal is one line of printable ASCII: UTF-8 of a path or name is escaped with the
 * rest. */
static char *clean(Arena *a, const char *s, size_t n, size_t limit) {
    char *p = arena_alloc(a, limit + 8);
    size_t at = 0, i = 0;
    for (; i < n && at + 4 <= limit; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 32 && c < 127)
            p[at++] = (char)c;
        else
            at += (size_t)snprintf(p + at, 5, "\\%03o", c);
    }
    if (i < n)
        memcpy(p + at, "...", 4);
    return p;
}

static void report(Diag *d, bool error, const char *file, const char *fmt, va_list ap) {
    Text t = {0};
    file = file ? file : d->file;
    text_printf(&t, "%s: %s: ", file ? file : "moec", error ? "error" : "warning");
    for (size_t i = 0; i < d->prefix.count; i++)
        text_printf(&t, "%s: ", d->prefix.item[i]);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *body = mem_alloc((size_t)(n < 0 ? 0 : n) + 1);
    vsnprintf(body, (size_t)(n < 0 ? 0 : n) + 1, fmt, ap);
    text_add(&t, body, (size_t)(n < 0 ? 0 : n));
    mem_free(body);
    Message m = {error, clean(d->arena, t.p, t.n, LINE_BYTES - 8)};
    vec_push(&d->message, m);
    text_free(&t);
}

bool diag_error(Diag *d, const char *file, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(d, true, file, fmt, ap);
    va_end(ap);
    d->errors++;
    return false;
}

void diag_warn(Diag *d, const char *file, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(d, false, file, fmt, ap);
    va_end(ap);
}

void diag_default_file(Diag *d, const char *file) {
    d->file = file;
}

void diag_push(Diag *d, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char line[512];
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    vec_push(&d->prefix, arena_strndup(d->arena, line, strlen(line)));
}

void diag_pop(Diag *d) {
    CHECK(d->prefix.count > 0);
    d->prefix.count--;
}

size_t diag_errors(const Diag *d) {
    return d->errors;
}

void diag_flush(Diag *d) {
    size_t shown = 0;
    for (size_t i = 0; i < d->message.count; i++) {
        const Message *m = &d->message.item[i];
        /* the last line tells how many are left */
        if (m->error && ++shown >= SHOWN_ERRORS && d->errors > SHOWN_ERRORS) {
            fprintf(stderr, "moec: error: and %zu more errors\n", d->errors - (SHOWN_ERRORS - 1));
            break;
        }
        fprintf(stderr, "%s\n", m->line);
    }
    d->message.count = 0;
    d->errors = 0;
}

const char *diag_show(Diag *d, Str s) {
    return clean(d->arena, s.p ? s.p : "", s.n, SHOW_BYTES);
}

void moec_bug(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "moec: internal error at %s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(70);
}
