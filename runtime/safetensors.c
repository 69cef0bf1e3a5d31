/* Tensors of a known table (an adapter's, an optimiser's state) from a safetensors file.
 *
 * Everything the format promises is checked before a byte of data is read: header length, strict JSON, no
 * duplicate keys, known dtypes, shape product equal to the byte range, ranges that cover the data without
 * hole or overlap. Names, dtypes and shapes must be exactly the table's: no tensor missing, none left over.
 *
 * Nothing is allocated: the caller gives room for the entries, the header's text and the table of its keys,
 * which bounds both. qsort of the C library may allocate, so entries are sorted here. */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"

#include <string.h>

#define HEADER_LIMIT ((uint64_t)100000000) /* the format's own */

enum { SPEC_VERSION = 1 }; /* of what `moec_adapter` holds */

/* What a header may hold beyond the table's tensors: metadata, blanks. */
enum { FOREIGN_BYTES = 64 << 10, FOREIGN_KEYS = 255 };

/* Names of the format's element types; those without a moec_dtype cannot belong to an adapter. */
static const struct {
    const char *name;
    int dtype;
} known[] = {
    {"F32", MOEC_F32}, {"F16", MOEC_F16}, {"F64", MOEC_F64},   {"BF16", -1},    {"I64", MOEC_I64},
    {"I32", MOEC_I32}, {"I16", MOEC_I16}, {"I8", MOEC_I8},     {"U8", MOEC_U8}, {"U16", MOEC_U16},
    {"U32", -1},       {"U64", -1},       {"BOOL", MOEC_BOOL}, {"F8_E4M3", -1}, {"F8_E5M2", -1},
};

typedef struct Entry {
    const moec_tensor *tensor;
    int seen;
    int64_t begin, end;
} Entry;

typedef struct Reader {
    const moec_program *program; /* NULL: they are no adapter */
    const moec_tensor *tensor;   /* what the file has to hold */
    uint32_t n;
    const char *path;
    moec_sink sink;
    moec_json json;
    Entry *entry; /* sorted by name, later by begin */
    char *keys;   /* table of the header's keys */
    unsigned char *header;
    uint64_t header_limit;
    int64_t data; /* bytes of data in the file */
    const char *within; /* the tensor whose entry is being read; NULL: none */
    int cut, broken;    /* the header is read in part; it is no JSON, which goes without saying then */
    char *spec; /* the adapter that the file says it is, in the header; NULL: it does not */
    size_t spec_length;
    char shown[MOEC_SHOW];
} Reader;

static int name_precedes(const Entry *a, const Entry *b) {
    return strcmp(a->tensor->name, b->tensor->name) < 0;
}

static int begin_precedes(const Entry *a, const Entry *b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
}

/* Heapsort. */
static void sort(Entry *e, uint32_t n, int (*precedes)(const Entry *a, const Entry *b)) {
    for (uint32_t built = n / 2, end = n; end > 1;) {
        if (built > 0) {
            built--;
        } else {
            Entry last = e[--end];
            e[end] = e[0];
            e[0] = last;
        }
        for (uint64_t at = built, child; (child = 2 * at + 1) < end; at = child) {
            child += child + 1 < end && precedes(&e[child], &e[child + 1]);
            if (!precedes(&e[at], &e[child]))
                break;
            Entry swap = e[at];
            e[at] = e[child];
            e[child] = swap;
        }
    }
}

static Entry *find_entry(Reader *r, const char *name, size_t n) {
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const char *have = r->entry[mid].tensor->name;
        size_t have_n = strlen(have);
        int order = memcmp(have, name, have_n < n ? have_n : n);
        if (!order)
            order = (have_n > n) - (have_n < n);
        if (!order)
            return &r->entry[mid];
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static moec_status bad_json(Reader *r) {
    r->broken = 1;
    if (r->cut)
        return MOEC_E_FORMAT;
    return moec_fail(r->sink, MOEC_E_FORMAT, r->path, "the header is wrong at byte %llu: %s",
                     (unsigned long long)r->json.at + 8, r->json.error);
}

#define BAD(...)   moec_fail(r->sink, MOEC_E_FORMAT, r->path, __VA_ARGS__)
#define OTHER(...) moec_fail(r->sink, MOEC_E_MISMATCH, r->path, __VA_ARGS__)

static int string_is(const moec_json *j, const char *s) {
    return strlen(s) == j->length && !memcmp(s, j->string, j->length);
}

static moec_status read_metadata(Reader *r) {
    moec_json_event e = moec_json_next(&r->json);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    if (e != MOEC_JSON_OBJECT)
        return BAD("__metadata__ is not an object");
    while ((e = moec_json_next(&r->json)) == MOEC_JSON_KEY) {
        int is_spec = string_is(&r->json, "moec_adapter");
        e = moec_json_next(&r->json);
        if (e == MOEC_JSON_ERROR)
            return bad_json(r);
        if (e != MOEC_JSON_STRING)
            return BAD("a value of __metadata__ is not a string");
        if (is_spec) {
            r->spec = (char *)r->header + (r->json.string - (const char *)r->header);
            r->spec_length = r->json.length;
        }
    }
    return e == MOEC_JSON_ERROR ? bad_json(r) : MOEC_OK;
}

static moec_status read_dtype(Reader *r, const moec_tensor *t) {
    moec_json_event e = moec_json_next(&r->json);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    if (e != MOEC_JSON_STRING)
        return BAD("tensor '%s': its dtype is not a string", t->name);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != r->json.length || memcmp(known[i].name, r->json.string, r->json.length))
            continue;
        return known[i].dtype == (int)t->dtype ? MOEC_OK
                                               : OTHER("tensor '%s' has dtype %s, the model needs %s",
                                                       t->name, known[i].name, moec_dtype_name(t->dtype));
    }
    return BAD("tensor '%s': unknown dtype '%s'", t->name,
               moec_show(r->shown, r->json.string, r->json.length));
}

/* Reads an array of at most `room` non-negative integers; *n counts all of them. */
static moec_status read_integers(Reader *r, const moec_tensor *t, const char *key, int64_t *v, int room,
                                 int *n) {
    moec_json_event e = moec_json_next(&r->json);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    if (e != MOEC_JSON_ARRAY)
        return BAD("tensor '%s': %s is not an array", t->name, key);
    for (*n = 0; (e = moec_json_next(&r->json)) == MOEC_JSON_INTEGER; ++*n) {
        if (r->json.integer < 0)
            return BAD("tensor '%s': %s holds a negative number", t->name, key);
        if (*n == room)
            return OTHER("tensor '%s': %s has more than %d numbers", t->name, key, room);
        v[*n] = r->json.integer;
    }
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    return e == MOEC_JSON_ARRAY_END ? MOEC_OK
                                    : BAD("tensor '%s': %s holds something that is no integer", t->name, key);
}

static size_t shape_text(char *out, size_t room, const int64_t *v, int n) {
    size_t used = 0;
    out[0] = 0;
    for (int i = 0; i < n && used < room - 24; i++) {
        char digits[24];
        size_t k = sizeof digits;
        uint64_t u = (uint64_t)v[i];
        do
            digits[--k] = (char)('0' + u % 10);
        while (u /= 10);
        if (i)
            out[used++] = ',';
        memcpy(out + used, digits + k, sizeof digits - k);
        used += sizeof digits - k;
    }
    out[used] = 0;
    return used;
}

static moec_status read_shape(Reader *r, const moec_tensor *t) {
    int64_t v[4] = {0};
    int n = 0;
    moec_status s = read_integers(r, t, "shape", v, 4, &n);
    if (s)
        return s;
    if (n == t->rank && !memcmp(v, t->extent, (size_t)n * sizeof *v))
        return MOEC_OK;
    char have[128], want[128];
    shape_text(have, sizeof have, v, n);
    shape_text(want, sizeof want, t->extent, t->rank);
    return OTHER("tensor '%s' has shape [%s], the model needs [%s]", t->name, have, want);
}

static moec_status read_offsets(Reader *r, Entry *entry) {
    int64_t v[2] = {0};
    int n = 0;
    const moec_tensor *t = entry->tensor;
    moec_status s = read_integers(r, t, "data_offsets", v, 2, &n);
    if (s)
        return s;
    if (n != 2)
        return BAD("tensor '%s': data_offsets has %d numbers instead of 2", t->name, n);
    if (v[0] > v[1] || v[1] > r->data)
        return BAD("tensor '%s': data_offsets lie outside the %lld bytes of data", t->name,
                   (long long)r->data);
    if ((uint64_t)(v[1] - v[0]) != t->bytes)
        return BAD("tensor '%s' has %lld bytes, its shape needs %llu", t->name, (long long)(v[1] - v[0]),
                   (unsigned long long)t->bytes);
    entry->begin = v[0];
    entry->end = v[1];
    return MOEC_OK;
}

static moec_status read_entry(Reader *r) {
    Entry *entry = find_entry(r, r->json.string, r->json.length);
    if (!entry)
        return OTHER("tensor '%s' belongs to no site of this model's adapter",
                     moec_show(r->shown, r->json.string, r->json.length));
    const moec_tensor *t = entry->tensor;
    moec_json_event e = moec_json_next(&r->json);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    if (e != MOEC_JSON_OBJECT)
        return BAD("tensor '%s': its entry is not an object", t->name);
    entry->seen = 1;
    r->within = t->name;
    int have = 0;
    while ((e = moec_json_next(&r->json)) == MOEC_JSON_KEY) {
        moec_status s;
        if (string_is(&r->json, "dtype"))
            have |= 1, s = read_dtype(r, t);
        else if (string_is(&r->json, "shape"))
            have |= 2, s = read_shape(r, t);
        else if (string_is(&r->json, "data_offsets"))
            have |= 4, s = read_offsets(r, entry);
        else
            s = BAD("tensor '%s': unknown key '%s'", t->name,
                    moec_show(r->shown, r->json.string, r->json.length));
        if (s)
            return s;
    }
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    if (have != 7)
        return BAD("tensor '%s': no %s", t->name,
                   !(have & 1)   ? "dtype"
                   : !(have & 2) ? "shape"
                                 : "data_offsets");
    r->within = NULL;
    return MOEC_OK;
}

static moec_status read_header(Reader *r) {
    moec_json_event e = moec_json_next(&r->json);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r);
    while ((e = moec_json_next(&r->json)) == MOEC_JSON_KEY) {
        moec_status s = string_is(&r->json, "__metadata__") ? read_metadata(r) : read_entry(r);
        if (s)
            return s;
    }
    if (e == MOEC_JSON_ERROR || moec_json_next(&r->json) != MOEC_JSON_END)
        return bad_json(r);
    return MOEC_OK;
}

static moec_status check_cover(Reader *r) {
    uint32_t n = r->n;
    for (uint32_t i = 0; i < n; i++)
        if (!r->entry[i].seen)
            return OTHER("tensor '%s' is missing", r->entry[i].tensor->name);
    sort(r->entry, n, begin_precedes);
    int64_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        const Entry *x = &r->entry[i];
        if (x->begin != at)
            return BAD("tensor '%s': its data %s byte %lld of the data", x->tensor->name,
                       x->begin < at ? "overlaps what lies before" : "leaves a hole at", (long long)at);
        at = x->end;
    }
    return at == r->data ? MOEC_OK : BAD("%lld bytes follow the last tensor", (long long)(r->data - at));
}

/* Of __metadata__, and of each tensor its name and three more. */
static size_t key_limit(uint32_t n) {
    return 4 * (size_t)n + 1 + FOREIGN_KEYS;
}

/* What the file is and what the program takes, behind the text of a failure. */
static void tell_both(Reader *r) {
    char file[MOEC_SHOW], ours[MOEC_SHOW], name[MOEC_SHOW];
    moec_fail_more(r->sink, ": the file %s%s; this program, '%s', takes %s", r->spec ? "is " : "does not say what it is",
                   r->spec ? moec_show(file, r->spec, r->spec_length) : "", moec_show_c(name, r->program->name),
                   moec_show_c(ours, r->program->spec));
}

/* The version of the adapter that the file says it is, SPEC_VERSION where it says none; decodes it. */
static int64_t spec_version(Reader *r) {
    int64_t version = SPEC_VERSION;
    moec_json j;
    moec_json_open_in(&j, r->spec, r->spec_length, r->keys, key_limit(r->n));
    if (moec_json_next(&j) != MOEC_JSON_OBJECT)
        return version;
    while (moec_json_next(&j) == MOEC_JSON_KEY) {
        int is_version = string_is(&j, "moec_adapter");
        moec_json_event e = moec_json_next(&j);
        if (is_version && e == MOEC_JSON_INTEGER)
            version = j.integer;
        if (!moec_json_skip(&j, e))
            break;
    }
    return version;
}

static moec_status check_version(Reader *r) {
    char spec[MOEC_SHOW];
    if (!r->program || !r->spec)
        return MOEC_OK;
    moec_show(spec, r->spec, r->spec_length);
    int64_t version = spec_version(r);
    return version == SPEC_VERSION ? MOEC_OK
                                   : OTHER("is an adapter of version %lld, %s; this program reads version %d", (long long)version,
                                           spec, (int)SPEC_VERSION);
}

/* A length whose bytes stand the other way round, in front of a header. */
static int is_backwards(Reader *r, int fd, const unsigned char raw[8], uint64_t size) {
    unsigned char first = 0;
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | raw[i];
    return n > 0 && n <= size - 8 && !moec_file_read(fd, r->path, 8, &first, 1, (moec_sink){NULL, 0}) && first == '{';
}

/* Names and spec may be escaped, a byte as six. */
static uint64_t header_limit(const moec_tensor *tensor, uint32_t n, const char *spec) {
    uint64_t bytes = FOREIGN_BYTES + 6 * (spec ? strlen(spec) : 0);
    for (uint32_t i = 0; i < n; i++)
        bytes += 256 + 6 * strlen(tensor[i].name);
    return bytes < HEADER_LIMIT ? bytes : HEADER_LIMIT;
}

/* A header of n bytes, too long for the room there is: what is wrong with it mostly stands before its end. */
static moec_status read_excess(Reader *r, int fd, uint64_t n) {
    moec_status s = moec_file_read(fd, r->path, 8, r->header, r->header_limit, r->sink);
    if (s)
        return s;
    moec_json_open_in(&r->json, r->header, (size_t)r->header_limit, r->keys, key_limit(r->n));
    r->cut = 1;
    s = read_header(r);
    if (s && !r->broken)
        return s;
    return r->within ? BAD("tensor '%s': in its entry the header, of %llu bytes, passes the %llu that these tensors need", r->within,
                           (unsigned long long)n, (unsigned long long)r->header_limit)
                     : BAD("the header has %llu bytes, more than the %llu that these tensors need", (unsigned long long)n,
                           (unsigned long long)r->header_limit);
}

static moec_status read_file(Reader *r, int fd, uint64_t size, unsigned char *block) {
    unsigned char raw[8];
    if (size < 8)
        return BAD("is too short for a safetensors file");
    moec_status s = moec_file_read(fd, r->path, 0, raw, 8, r->sink);
    if (s)
        return s;
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | raw[i];
    if ((n > HEADER_LIMIT || n > size - 8) && is_backwards(r, fd, raw, size))
        return OTHER("has big-endian numbers, safetensors files little-endian ones");
    if (n > HEADER_LIMIT || n > size - 8)
        return BAD("the header's length %llu does not fit the file of %llu bytes", (unsigned long long)n,
                   (unsigned long long)size);
    for (uint32_t i = 0; i < r->n; i++)
        r->entry[i] = (Entry){.tensor = &r->tensor[i]};
    sort(r->entry, r->n, name_precedes);
    r->data = (int64_t)(size - 8 - n);
    if (n > r->header_limit)
        return read_excess(r, fd, n);
    s = moec_file_read(fd, r->path, 8, r->header, n, r->sink);
    if (s)
        return s;
    if (n == 0 || r->header[0] != '{')
        return BAD("the header does not begin with '{'");
    moec_json_open_in(&r->json, r->header, (size_t)n, r->keys, key_limit(r->n));
    if ((s = read_header(r)) || (s = check_cover(r))) {
        if (s == MOEC_E_MISMATCH && r->program)
            tell_both(r);
        return s;
    }
    if ((s = check_version(r)))
        return s;
    for (uint32_t i = 0; i < r->n; i++) {
        const Entry *x = &r->entry[i];
        s = moec_file_read(fd, r->path, 8 + n + (uint64_t)x->begin, block + x->tensor->offset,
                           x->tensor->bytes, r->sink);
        if (s)
            return s;
    }
    return MOEC_OK;
}

uint64_t moec_tensors_room(const moec_tensor *tensor, uint32_t n, const char *spec) {
    return moec_round_up(n * sizeof(Entry)) + moec_round_up(moec_json_keys_bytes(key_limit(n))) +
           header_limit(tensor, n, spec);
}

moec_status moec_tensors_read(const moec_program *p, const moec_tensor *tensor, uint32_t n, const char *path,
                              unsigned char *block, void *room, uint64_t bytes, moec_sink sink) {
    Reader r = {.program = p, .tensor = tensor, .n = n, .path = path, .sink = sink, .entry = room};
    r.keys = (char *)room + moec_round_up(n * sizeof(Entry));
    r.header = (unsigned char *)r.keys + moec_round_up(moec_json_keys_bytes(key_limit(n)));
    r.header_limit = bytes - (uint64_t)(r.header - (unsigned char *)room);
    int fd;
    uint64_t size = 0;
    moec_status s = moec_file_open(path, (uint64_t)1 << 62, &fd, &size, sink);
    if (s)
        return s;
    s = read_file(&r, fd, size, block);
    moec_file_close(fd);
    return s;
}
