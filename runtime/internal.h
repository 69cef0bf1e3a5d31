/* What the runtime's files share with each other and with nobody else.
 *
 * Messages: every function that can explain a failure takes a moec_sink; what it writes there is one line of
 * printable ASCII, `FILE: error: what is wrong`, with bytes of input passed through moec_show. */
#ifndef MOEC_INTERNAL_H
#define MOEC_INTERNAL_H

#include "moec_rt.h"

#if defined(__GNUC__)
#define MOEC_FORMAT(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MOEC_FORMAT(fmt, args)
#endif

/* ---- mem.c: the only file that allocates ---- */

void *moec_mem_new(size_t count, size_t size); /* zeroed; checked product; NULL when there is no memory */
void *moec_mem_grow(void *p, size_t bytes);    /* as realloc */
void moec_mem_free(void *p);
/* Zeroed pages that cost memory only when touched: sizes may come from upper bounds. NULL when refused. */
void *moec_mem_reserve(uint64_t bytes);
/* Pages that will all be touched, large ones where the system has them: memory that cannot hold them is refused. NULL then. */
void *moec_mem_take(uint64_t bytes);
void moec_mem_protect(void *p, uint64_t bytes); /* from writing, from now on */
void moec_mem_release(void *p, uint64_t bytes);
/* What is there no longer counts: MemorySanitizer finds who reads it before it is written again. Nothing without. */
void moec_mem_forget(void *p, uint64_t bytes);
/* To a multiple of 64: blocks laid out one after the other stay aligned. */
static inline uint64_t moec_round_up(uint64_t n) {
    return (n + 63) & ~(uint64_t)63;
}

/* ---- message.c ---- */

typedef struct moec_sink {
    char *p; /* may be NULL */
    size_t room;
} moec_sink;

enum { MOEC_SHOW = 256 }; /* room for a shown name */

/* Printable, one-line form of n bytes of input in out[MOEC_SHOW]: cut at 200 bytes, the rest escaped. Returns
 * out. */
const char *moec_show(char *out, const void *s, size_t n);
const char *moec_show_c(char *out, const char *s);
const char *moec_show_path(char *out, const char *path); /* a long one loses its beginning, not its end */
/* Writes `FILE: error: ...` (file NULL: the text alone) and returns s. The first message wins. */
moec_status moec_fail(moec_sink sink, moec_status s, const char *file, const char *fmt, ...)
    MOEC_FORMAT(4, 5);
/* Adds to the text of a failure. */
void moec_fail_more(moec_sink sink, const char *fmt, ...) MOEC_FORMAT(2, 3);
/* The same with a line: `FILE:LINE: error: ...` (line 0: none). */
moec_status moec_fail_at(moec_sink sink, moec_status s, const char *file, int64_t line, const char *fmt, ...)
    MOEC_FORMAT(5, 6);

/* ---- file.c ---- */

/* Opens a regular file of at most `limit` bytes for reading, never blocking on what is none; *fd is the
 * caller's. */
moec_status moec_file_open(const char *path, uint64_t limit, int *fd, uint64_t *size, moec_sink sink);
/* Reads exactly n bytes at an offset. */
moec_status moec_file_read(int fd, const char *path, uint64_t offset, void *to, uint64_t n, moec_sink sink);
/* The whole of a regular file in memory of moec_mem_new, with one zero byte behind it. */
moec_status moec_file_load(const char *path, uint64_t limit, unsigned char **bytes, size_t *size,
                           moec_sink sink);
void moec_file_close(int fd);
/* All n bytes of a file, to be read; another process may still change or cut it, which nothing here protects from. */
moec_status moec_file_map(int fd, const char *path, uint64_t n, unsigned char **at, moec_sink sink);
void moec_file_unmap(unsigned char *at, uint64_t n);

/* FNV-1a (64 bit) of n more bytes. */
#define MOEC_FNV_START 0xcbf29ce484222325u
uint64_t moec_fnv(uint64_t hash, const void *p, size_t n);
/* Makes the names in a folder last. */
moec_status moec_folder_sync(const char *path, moec_sink sink);

/* A file that appears under its name only when complete: written beside it, synced, renamed, the folder
 * synced. */
typedef struct moec_output {
    int fd;
    char *path, *temporary, *aside; /* aside: what is at `path` has this name until the file is in its place */
    uint64_t bytes, hash; /* of what was written so far: moec_fnv from its start */
} moec_output;
moec_status moec_output_open(const char *path, moec_output *f, moec_sink sink);
moec_status moec_output_write(moec_output *f, const void *p, uint64_t n, moec_sink sink);
moec_status moec_output_commit(moec_output *f, moec_sink sink); /* closes in any case */
void moec_output_abandon(moec_output *f);
/* A file that grows under its own name; made where there is none. moec_output_write adds to it, moec_output_abandon
 * closes it. */
moec_status moec_output_append(const char *path, moec_output *f, moec_sink sink);
moec_status moec_output_sync(moec_output *f, moec_sink sink);

/* ---- json.c: a strict pull reader ---- */

enum { MOEC_JSON_DEPTH = 64 };

typedef enum moec_json_event {
    MOEC_JSON_END, /* the document is over; nothing but blanks followed */
    MOEC_JSON_OBJECT,
    MOEC_JSON_OBJECT_END,
    MOEC_JSON_ARRAY,
    MOEC_JSON_ARRAY_END,
    MOEC_JSON_KEY,
    MOEC_JSON_STRING,
    MOEC_JSON_INTEGER,
    MOEC_JSON_REAL,
    MOEC_JSON_BOOL,
    MOEC_JSON_NULL,
    MOEC_JSON_ERROR /* final: j->error says what, j->at where */
} moec_json_event;

/* Strings are decoded in place, so the document's bytes are changed and must outlive what is read from them.
 */
typedef struct moec_json {
    unsigned char *p;
    size_t n, at;
    const char *error;
    int no_memory;      /* the error is ours, not the document's */
    const char *string; /* of the last KEY or STRING: UTF-8, may hold NUL */
    size_t length;
    int64_t integer; /* of the last INTEGER; BOOL: 0 or 1 */
    double real;     /* of the last INTEGER or REAL */
    int depth, expect;
    unsigned char in_object[MOEC_JSON_DEPTH];
    uint64_t object[MOEC_JSON_DEPTH]; /* serial numbers of the open objects, for the key table */
    uint64_t objects;
    struct moec_json_key *key;
    size_t keys, key_room;
    int key_is_callers;
} moec_json;

void moec_json_open(moec_json *j, void *bytes, size_t n);
/* The same without allocating: a document has at most `keys` keys, whose table, of moec_json_keys_bytes, is the
 * caller's. */
void moec_json_open_in(moec_json *j, void *bytes, size_t n, void *table, size_t keys);
size_t moec_json_keys_bytes(size_t keys);
void moec_json_close(moec_json *j);
moec_json_event moec_json_next(moec_json *j);
/* Skips the value that begins with event e; false on an error. */
int moec_json_skip(moec_json *j, moec_json_event e);
/* Bytes of the UTF-8 character at p, 0 when it is none; left > 0. */
size_t moec_utf8_length(const unsigned char *p, size_t left);

/* ---- tables.c: questions about a program's tables ---- */

enum { MOEC_RANK = 16, MOEC_SYMBOLS = 64 };

size_t moec_dtype_bytes(unsigned dtype);
const char *moec_dtype_name(unsigned dtype);

/* One axis of a value as scale * symbol + base. symbol: -1 constant (base), -2 of another form. */
typedef struct moec_axis {
    int symbol;
    int64_t scale, base;
} moec_axis;
moec_axis moec_axis_of(const moec_program *p, const moec_function *f, uint32_t value, int axis);
/* Symbols that extents of f depend on, as a mask. */
uint64_t moec_symbols_used(const moec_program *p, const moec_function *f);
/* Bytes a value's storage takes for the given symbols (a grown axis counts its capacity); false on overflow.
 */
int moec_value_bytes(const moec_function *f, uint32_t value, const int64_t *sym, uint64_t *bytes);
/* Index of a named value among f's inputs (or outputs; counted from the first input), -1 when there is none.
 */
int moec_find_input(const moec_function *f, const char *name);
/* Every symbol at its lower bound, at its upper one. */
void moec_symbols_low(const moec_program *p, int64_t *sym);
void moec_symbols_high(const moec_program *p, int64_t *sym);
/* Whether a value holds the tokens of all rows, one behind the other. */
int moec_is_packed(const moec_program *p, const moec_function *f, uint32_t value);
/* The symbol that is the leading extent of every argument of f, but of those that are packed, and no part of another; -1 when
 * there is none. */
int moec_row_symbol(const moec_program *p, const moec_function *f);
/* Likewise, but for those of a seq2seq model's batch and lengths, where it has such. */
void moec_symbols_of(const moec_program *p, int64_t rows, int64_t source, int64_t target, int64_t *sym);
int moec_find_output(const moec_function *f, const char *name);

/* ---- pool.c ---- */

moec_pool *moec_pool_new(int threads); /* 0: one a core */
void moec_pool_free(moec_pool *pool);
int moec_pool_threads(int threads); /* what moec_pool_new makes of it */

/* ---- safetensors.c ---- */

/* Reads the tensors of a table from a safetensors file into `block`, which is touched only by a file whose header is
 * right in every respect; after MOEC_E_IO its contents are undefined. room: 64-byte aligned, moec_tensors_room bytes.
 * p: whose adapter they are, for what is said of another's; NULL: nobody's. */
moec_status moec_tensors_read(const moec_program *p, const moec_tensor *tensor, uint32_t n, const char *path,
                              unsigned char *block, void *room, uint64_t bytes, moec_sink sink);
/* What reading takes; it bounds the header: that of these tensors with the spec (NULL: none), and 64 KiB. */
uint64_t moec_tensors_room(const moec_tensor *tensor, uint32_t n, const char *spec);

/* ---- safetensors_write.c ---- */

/* Writes the program's adapter tensors from a block laid out as its table says, with the spec as metadata
 * `moec_adapter`. The bytes depend on table, spec and values alone. */
moec_status moec_safetensors_write(const moec_program *p, const unsigned char *block, const char *path,
                                   moec_sink sink);
/* The same for any table; spec "": no metadata. *bytes, *hash (may be NULL): of the file. */
moec_status moec_tensors_write(const moec_tensor *tensor, uint32_t n, const char *spec,
                               const unsigned char *block, const char *path, uint64_t *bytes, uint64_t *hash,
                               moec_sink sink);

/* ---- chars.c: text that grows ---- */

typedef struct moec_chars {
    char *p; /* moec_mem_free it; NULL before the first */
    size_t n, room;
    int failed; /* out of memory: p, n are what came before */
} moec_chars;
void moec_chars_put(moec_chars *c, const char *fmt, ...) MOEC_FORMAT(2, 3);
void moec_chars_json(moec_chars *c, const char *s); /* as a JSON string, quotes included */

/* ---- packed.c: batches without padding ---- */

/* Whether the program has the functions for them. */
int moec_packs(const moec_program *p);
/* Puts the tokens of rows one behind the other into packed, [rows * length], and where those of each row are into spans,
 * [rows, 2]. Their number; 0 where a row's mask is anything but ones, at least one, and zeros behind them. */
int64_t moec_pack(int64_t rows, int64_t length, const int64_t *ids, const int64_t *mask, int64_t *packed, int64_t *spans);

/* ---- generate.c ---- */

typedef struct moec_generator moec_generator;
moec_status moec_generator_new(const moec_program *p, moec_generator **out, moec_sink sink);
void moec_generator_free(moec_generator *g);

/* ---- profile.c ---- */

moec_profile *moec_profile_new(const moec_program *p);      /* NULL: no memory */
void moec_profile_free(moec_profile *r);
moec_profile *moec_profile_running(const moec_instance *m); /* what frames carry: NULL while nothing is measured */

/* ---- sizes.c: sums and products that end at UINT64_MAX ---- */

uint64_t moec_size_plus(uint64_t a, uint64_t b);
uint64_t moec_size_times(uint64_t a, uint64_t b);

/* ---- weights_file.c: of one or several instances ---- */

typedef struct moec_weights moec_weights;
/* Read, mapped, linked in or another instance's, as the options say. *out: NULL unless MOEC_OK. */
moec_status moec_weights_open(const moec_program *p, const moec_options *o, moec_weights **out, moec_sink sink);
void moec_weights_close(moec_weights *w); /* NULL: nothing */
const unsigned char *moec_weights_at(const moec_weights *w); /* NULL: the program has none */

/* ---- rt.c ---- */

typedef struct moec_slot {
    unsigned char *adapter, *derived; /* NULL where the program has none */
} moec_slot;

typedef struct moec_slot_bytes {
    uint64_t adapters, derived, room;
} moec_slot_bytes;

struct moec_instance {
    const moec_program *program;
    moec_weights *held;
    const unsigned char *weights; /* where they lie */
    unsigned char *arena, *scratch;
    moec_slot *slot; /* slot[0] is the one that training changes */
    int slots;
    unsigned char *adapters, *derived, *room; /* what slots lie in; what reading a file takes */
    unsigned char *spare;                     /* where a file is read to: changes places with a slot's */
    moec_slot_bytes slot_bytes;
    uint64_t *used;   /* of each function: the symbols its extents depend on, a mask */
    int *row_symbol;  /* of each function: the symbol of the rows of all its arguments; -1: none */
    void **row_arg;   /* the arguments of a run of rows */
    int64_t *row_spans; /* and its spans, where they are packed */
    moec_pool *pool;
    moec_generator *generator;
    moec_profile *profile; /* NULL where the program takes none */
};

/* moec_mem_reserve with a message; NULL and MOEC_OK for 0 bytes. */
moec_status moec_reserve(unsigned char **at, uint64_t bytes, const char *what, moec_sink sink);
/* Computes what the program derives from a slot's tensors; after every change of them. */
moec_status moec_prepare(moec_instance *m, int slot);

/* ---- adapters.c ---- */

moec_status moec_slots_check(int adapters, moec_sink sink); /* moec_options.adapters */
/* Bytes of all slots of a program, in all and by part. */
uint64_t moec_slots_bytes(const moec_program *p, int adapters, moec_slot_bytes *part);
/* Reserves the slots and fills them with the compiled-in adapter, not prepared. moec_slots_close in any case. */
moec_status moec_slots_open(moec_instance *m, int adapters, moec_sink sink);
void moec_slots_close(moec_instance *m);

enum { MOEC_IGNORED = -100 }; /* a target token that counts for nothing */

/* ---- names.c ---- */

/* Byte strings, numbered from 0 in the order in which they came. */
typedef struct moec_names {
    struct moec_name *item;
    size_t *slot; /* hash table of numbers + 1 */
    size_t count, room, slots;
} moec_names;

int moec_names_add(moec_names *s, const void *p, size_t n, size_t *number); /* copies; 0: no memory */
const char *moec_names_get(const moec_names *s, size_t number, size_t *n);
void moec_names_free(moec_names *s);

#endif
