/* Arenas, checked arithmetic, strings and growing text. The only file of the compiler that calls malloc.
 *
 * An arena is a list of zeroed blocks; what is larger than a block gets one of its own. */
#include "base.h"

#include "undo.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory -------------------------------------------------------------------------------- */

enum { DOING_BYTES = 160 };

/* Blocks count with the bytes that the allocator gave them. The compiler has one thread. */
static struct {
    size_t used, most; /* most 0: as much as there is */
    const char *option; /* who says so */
    char doing[DOING_BYTES];
} memory;

void mem_limit(const char *option, size_t most) {
    memory.option = option;
    memory.most = most;
}

size_t mem_used(void) {
    return memory.used;
}

void mem_doing(const char *what, const char *of) {
    int n = snprintf(memory.doing, sizeof memory.doing, "%.20s '%.120s'", what, of);
    for (int i = 0; i < n; i++) /* one line of printable ASCII, without taking memory */
        if (memory.doing[i] < 32 || memory.doing[i] > 126)
            memory.doing[i] = '?';
}

_Noreturn static void mem_refuse(size_t bytes) {
    diag_out_of_memory(memory.doing, bytes, memory.used, NULL);
}

void mem_gone(void) {
    mem_refuse(SIZE_MAX);
}

/* Before `bytes` more are taken. */
static void mem_ask(size_t bytes) {
    if (memory.most && (bytes > memory.most || memory.used > memory.most - bytes))
        diag_out_of_memory(memory.doing, bytes, memory.used, memory.option);
}

bool mem_fits(size_t bytes) {
    if (memory.most && (bytes > memory.most || memory.used > memory.most - bytes))
        return false;
    void *p = bytes < (size_t)1 << 28 ? NULL : malloc(bytes); /* smaller ones are not worth asking for */
    bool fits = p || bytes < (size_t)1 << 28;
    free(p);
    return fits;
}

void *mem_alloc(size_t bytes) {
    mem_ask(bytes);
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p)
        mem_refuse(bytes);
    memory.used += malloc_usable_size(p);
    return p;
}

void *mem_grow(void *p, size_t bytes) {
    size_t before = p ? malloc_usable_size(p) : 0;
    if (bytes > before)
        mem_ask(bytes - before);
    p = realloc(p, bytes ? bytes : 1);
    if (!p)
        mem_refuse(bytes);
    memory.used += malloc_usable_size(p) - before;
    return p;
}

void mem_free(void *p) {
    memory.used -= p ? malloc_usable_size(p) : 0;
    free(p);
}

void *vec_room(void *items, size_t *room, size_t need, size_t size) {
    if (need <= *room)
        return items;
    size_t more = *room ? *room : 8, bytes;
    while (more < need)
        more *= 2;
    if (!mul_size(more, size, &bytes))
        mem_refuse(SIZE_MAX);
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
        mem_refuse(SIZE_MAX);
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

ArenaMark arena_mark(const Arena *a) {
    const Block *b = a->block;
    return b ? (ArenaMark){a->block, b->next, b->used, a->bytes} : (ArenaMark){0};
}

static void free_until(Block *b, const Block *end) {
    for (Block *next; b != end; b = next) {
        next = b->next;
        mem_free(b);
    }
}

/* Newer blocks stand in front of the one that was the current one, large ones behind it too. */
void arena_rewind(Arena *a, ArenaMark to) {
    Block *b = to.block;
    free_until(a->block, b);
    a->block = b;
    a->bytes = to.bytes;
    if (!b)
        return;
    free_until(b->next, to.behind);
    b->next = to.behind;
    memset(b->data + to.used, 0, b->used - to.used);
    b->used = to.used;
}

void *arena_array(Arena *a, size_t count, size_t size) {
    size_t bytes;
    if (!mul_size(count, size, &bytes))
        mem_refuse(SIZE_MAX);
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

void text_shown(Text *t, Str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 32 && c < 127)
            text_add(t, s.p + i, 1);
        else
            text_printf(t, "\\%03o", c);
    }
}

/* The character at s and how many of the n bytes it takes; U+FFFD for one byte that is no UTF-8. */
static uint32_t utf8_next(const unsigned char *s, size_t n, size_t *took) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t bytes = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    uint32_t c = bytes == 1 ? s[0] : s[0] & (0x7fu >> bytes);
    *took = 1;
    if (s[0] >= 0xf8 || (s[0] >= 0x80 && s[0] < 0xc0) || bytes > n)
        return 0xfffd;
    for (size_t i = 1; i < bytes; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0xfffd;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (bytes > 1 && (c < least[bytes] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)))
        return 0xfffd;
    *took = bytes;
    return c;
}

void text_json(Text *t, Str text) {
    const unsigned char *s = (const unsigned char *)text.p;
    text_add(t, "\"", 1);
    for (size_t n = text.n, i = 0, took; i < n; i += took) {
        uint32_t c = utf8_next(s + i, n - i, &took);
        if (c == '"' || c == '\\')
            text_printf(t, "\\%c", (int)c);
        else if (c >= 32 && c < 127)
            text_printf(t, "%c", (int)c);
        else if (c < 0x10000)
            text_printf(t, "\\u%04x", c);
        else
            text_printf(t, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                        0xdc00 + ((c - 0x10000) & 0x3ff));
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

/* ---- bugs -------------------------------------------------------------------------------------------- */

void moec_bug(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "moec: internal error at %s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    undo_all();
    exit(70);
}
