/* Ground floor of the compiler: arenas, checked arithmetic, interned names, diagnostics.
 *
 * Everything the compiler allocates lives in an Arena and dies with it; malloc is called in base.c
 * only. Diagnostics are collected, not thrown: a function that can fail on input returns false and
 * has reported. */
#ifndef MOEC_BASE_H
#define MOEC_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

#if defined(__GNUC__)
#define MOEC_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MOEC_NEVER_NULL __attribute__((returns_nonnull))
#else
#define MOEC_PRINTF(fmt, args)
#define MOEC_NEVER_NULL
#endif

/* ---- arena ------------------------------------------------------------------------------- */

typedef struct Arena Arena;

Arena *arena_new(void);
void arena_free(Arena *a);                                /* NULL is fine */
/* Zeroed, 64-byte aligned above 64 bytes, else 16. */
MOEC_NEVER_NULL void *arena_alloc(Arena *a, size_t bytes);
MOEC_NEVER_NULL void *arena_array(Arena *a, size_t count, size_t size); /* checked product, zeroed */
MOEC_NEVER_NULL void *arena_copy(Arena *a, const void *src, size_t bytes);
char *arena_strndup(Arena *a, const char *s, size_t len); /* NUL appended */
char *arena_printf(Arena *a, const char *fmt, ...) MOEC_PRINTF(2, 3);
size_t arena_bytes(const Arena *a);

/* How far an arena is filled; rewinding gives back what was taken since. Marks are rewound to from the last to the first. */
typedef struct ArenaMark {
    void *block, *behind;
    size_t used, bytes;
} ArenaMark;
ArenaMark arena_mark(const Arena *a);
void arena_rewind(Arena *a, ArenaMark to);

/* Growable array on the heap for the length of a pass: `Vec(int) v = {0}; vec_push(&v, 3); vec_free(&v)`.
 * Items are at v.item[0 .. v.count). */
#define Vec(T)       \
    struct {         \
        T *item;     \
        size_t count; \
        size_t room; \
    }
#define vec_push(v, x)                                                                       \
    ((v)->item = vec_room((v)->item, &(v)->room, (v)->count + 1, sizeof *(v)->item),          \
     (v)->item[(v)->count++] = (x))
#define vec_free(v) (mem_free((v)->item), (v)->item = NULL, (v)->count = (v)->room = 0)
void *vec_room(void *items, size_t *room, size_t need, size_t size);
MOEC_NEVER_NULL void *mem_alloc(size_t bytes); /* zeroed; running out of memory is a diagnostic and exit 1 */
MOEC_NEVER_NULL void *mem_grow(void *p, size_t bytes);
void mem_free(void *p);
bool mem_fits(size_t bytes); /* whether so many would be given now: for sizes that the input chose */
size_t mem_used(void);       /* by all of the above, arenas included */
/* At most so many from now on, as `option`, which stays the caller's, says; 0: as many as there are. */
void mem_limit(const char *option, size_t most);
/* What memory is taken for from now on, "pass" and "fold": told when there is no more. */
void mem_doing(const char *what, const char *of);
/* An allocation of others' code has failed: ends as one of ours does. */
_Noreturn void mem_gone(void);

/* ---- checked arithmetic: the only way sizes that come from files are combined ------------- */

bool add_i64(int64_t a, int64_t b, int64_t *out);
bool sub_i64(int64_t a, int64_t b, int64_t *out);
bool mul_i64(int64_t a, int64_t b, int64_t *out);
bool add_size(size_t a, size_t b, size_t *out);
bool mul_size(size_t a, size_t b, size_t *out);

/* Limits that hold for every tensor whatever its origin. */
enum { MOEC_MAX_RANK = 16 };
#define MOEC_MAX_TENSOR ((int64_t)1 << 47) /* dims, elements and bytes are below this */

/* ---- strings ------------------------------------------------------------------------------ */

/* A byte string with a length: names come from files and may hold any byte. */
typedef struct Str {
    const char *p;
    size_t n;
} Str;

Str str_c(const char *s);
bool str_eq(Str a, Str b);
bool str_is(Str a, const char *s);
uint64_t hash_bytes(uint64_t seed, const void *p, size_t n); /* FNV-1a, stable across machines */

/* Text that grows: used by every printer. */
typedef struct Text {
    char *p;
    size_t n, room;
} Text;
void text_add(Text *t, const char *s, size_t n);
void text_printf(Text *t, const char *fmt, ...) MOEC_PRINTF(2, 3);
void text_str(Text *t, Str s);
/* Adds s in double quotes: printable ASCII but `"`, `\` and `?` as is, the rest as \ooo (three octal digits). */
void text_quoted(Text *t, Str s);
/* Adds s as one line for a terminal: all bytes but printable ASCII as \ooo. */
void text_shown(Text *t, Str s);
/* Adds s as a JSON string of printable ASCII: UTF-8 as \uXXXX, bytes that are none as U+FFFD. */
void text_json(Text *t, Str s);
void text_free(Text *t);

/* Counts lines of a text that grows; starts as {0}. */
typedef struct LineCount {
    size_t seen;
    uint32_t newlines;
} LineCount;
uint32_t text_line(LineCount *c, const Text *t); /* 1-based line on which the next byte will stand */

/* ---- diagnostics (diag.c) ------------------------------------------------------------------ */

/* What kinds of mistake there are: diag.def. Shown as M and four digits. */
typedef enum DiagCode {
#define DIAG_GROUP(first, title)
#define DIAG(number, name, ...) DIAG_##name = number,
#include "diag.def"
} DiagCode;
#define DIAG_CODE "M%04d"

typedef struct DiagPlace {
    const char *file;      /* NULL: none of its own */
    uint32_t line, column; /* from 1; 0: not known */
} DiagPlace;

/* How this process prints its diagnostics; text until it is set. */
typedef enum DiagFormat { DIAG_FORMAT_TEXT, DIAG_FORMAT_JSON } DiagFormat;
void diag_set_format(DiagFormat format);

/* Collects located one-line messages; printed by the driver at the end of a phase, eight at most, each at
 * most 1000 bytes that end in its code, every byte of input shown through diag_show. */
typedef struct Diag Diag;

Diag *diag_new(void);
void diag_free(Diag *d);
/* `file` may be NULL. The message must tell what is wrong and, where it helps, what to do. Returns false. */
bool diag_error(Diag *d, DiagCode code, const char *file, const char *fmt, ...) MOEC_PRINTF(4, 5);
bool diag_error_at(Diag *d, DiagCode code, DiagPlace at, const char *fmt, ...) MOEC_PRINTF(4, 5);
void diag_warn(Diag *d, DiagCode code, const char *file, const char *fmt, ...) MOEC_PRINTF(4, 5);
/* What messages without a file of their own name; NULL: the program. The text must outlive its use. */
void diag_default_file(Diag *d, const char *file);
/* Context of all messages until popped, e.g. "node 'X'": `file: error: node 'X': message [M0204]`. */
void diag_push(Diag *d, const char *fmt, ...) MOEC_PRINTF(2, 3);
void diag_pop(Diag *d);
size_t diag_errors(const Diag *d);
void diag_flush(Diag *d); /* prints to stderr and forgets */
/* A printable, one-line, at most 200 byte form of input bytes; lives in the Diag. */
const char *diag_show(Diag *d, Str s);
/* An error like any other, exit 1: `wanted` more bytes for what is done were not there, or more than `option` allows. */
_Noreturn void diag_out_of_memory(const char *doing, size_t wanted, size_t used, const char *option);
/* An error like any other, exit 1, where others' code does not come back: `WHAT: WHY`. Takes no memory. */
_Noreturn void diag_end(DiagCode code, const char *what, const char *why);

/* A broken invariant of moec itself: prints and exits 70. */
_Noreturn void moec_bug(const char *file, int line, const char *fmt, ...) MOEC_PRINTF(3, 4);
#define BUG(...) moec_bug(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(cond) \
    do { \
        if (!(cond)) BUG("check failed: %s", #cond); \
    } while (0)

#endif
