/* A strict safetensors reader and a writer.
 *
 * The header is refused unless: its length fits the file and the format's limit; it begins with `{`; no
 * key stands twice; every dtype is known; the bytes of a shape, multiplied with checks, are end - begin;
 * and the ranges, sorted, start at 0, neither overlap nor leave a hole, and end at the end of the file. */
#include "safetensors.h"

#include "../compiler/mapped.h"
#include "../compiler/outfile.h"
#include "file.h"
#include "json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int64_t bytes;
    FloatKind kind;
} dtypes[] = {{"F32", 4, FK_F32},     {"F16", 2, FK_F16},  {"BF16", 2, FK_BF16},    {"F64", 8, FK_F64},
              {"BOOL", 1, FK_NONE},   {"U8", 1, FK_NONE},  {"I8", 1, FK_NONE},      {"U16", 2, FK_NONE},
              {"I16", 2, FK_NONE},    {"U32", 4, FK_NONE}, {"I32", 4, FK_NONE},     {"U64", 8, FK_NONE},
              {"I64", 8, FK_NONE},    {"C64", 8, FK_NONE}, {"F8_E4M3", 1, FK_NONE}, {"F8_E5M2", 1, FK_NONE},
              {"F8_E8M0", 1, FK_NONE}};


typedef struct Range {
    int64_t begin, end;
    uint32_t tensor;
} Range;

static int range_order(const void *a, const void *b) {
    const Range *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end != y->end ? (x->end < y->end ? -1 : 1) : (x->tensor > y->tensor) - (x->tensor < y->tensor);
}

/* ---- header ------------------------------------------------------------------------------------- */

static bool metadata_read(const JsonDoc *doc, json_t *meta, SafeFile *out) {
    const char *key;
    json_t *v;
    if (!json_is_object(meta))
        return diag_error(doc->d, DIAG_SAFETENSORS_HEADER, doc->file, "__metadata__ is not an object");
    json_object_foreach(meta, key, v) {
        if (!json_is_string(v))
            return diag_error(doc->d, DIAG_SAFETENSORS_HEADER, doc->file,
                              "__metadata__: the value of '%s' is not a string",
                              diag_show(doc->d, str_c(key)));
        if (strcmp(key, "moec_adapter") == 0) {
            size_t n = json_string_length(v);
            out->spec = (Str){arena_strndup(doc->arena, json_string_value(v), n), n};
        }
    }
    return true;
}

/* Reads "shape" and "dtype"; *bytes is what they take. */
static bool entry_shape(const JsonDoc *doc, json_t *entry, AdapterTensor *t, int64_t *bytes) {
    const char *name = diag_show(doc->d, t->name);
    json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape");
    if (!json_is_string(dtype))
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file, "tensor '%s': dtype is not a string",
                          name);
    t->dtype = (Str){arena_strndup(doc->arena, json_string_value(dtype), json_string_length(dtype)),
                     json_string_length(dtype)};
    *bytes = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (str_is(t->dtype, dtypes[i].name)) {
            *bytes = dtypes[i].bytes;
            t->kind = dtypes[i].kind;
        }
    }
    if (*bytes == 0)
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file, "tensor '%s': unknown dtype '%s'", name,
                          diag_show(doc->d, t->dtype));
    if (!json_is_array(shape) || json_array_size(shape) > MOEC_MAX_RANK)
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "tensor '%s': shape is not an array of at most %d extents", name, MOEC_MAX_RANK);
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        json_t *v = json_array_get(shape, (size_t)i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                              "tensor '%s': shape has an extent that is no size", name);
        t->dim[i] = json_integer_value(v);
        if (!mul_i64(*bytes, t->dim[i], bytes) || t->dim[i] > MOEC_MAX_TENSOR || *bytes > MOEC_MAX_TENSOR)
            return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file, "tensor '%s': shape is too large",
                              name);
    }
    return true;
}

static bool entry_read(const JsonDoc *doc, json_t *entry, AdapterTensor *t, Range *range,
                       int64_t data_bytes) {
    static const char *const known[] = {"dtype", "shape", "data_offsets", NULL};
    const char *name = diag_show(doc->d, t->name);
    int64_t bytes = 0;
    if (!json_is_object(entry))
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "tensor '%s': the entry is not an object", name);
    const char *key;
    json_t *v;
    json_object_foreach(entry, key, v) {
        bool found = false;
        for (int i = 0; known[i] != NULL; i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file, "tensor '%s': unknown key '%s'",
                              name, diag_show(doc->d, str_c(key)));
    }
    if (!entry_shape(doc, entry, t, &bytes))
        return false;
    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "tensor '%s': data_offsets is not two integers", name);
    range->begin = json_integer_value(begin);
    range->end = json_integer_value(end);
    if (range->begin < 0 || range->end < range->begin || range->end > data_bytes)
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "tensor '%s': data_offsets [%" PRId64 ",%" PRId64 "] lie outside the %" PRId64
                          " bytes of data",
                          name, range->begin, range->end, data_bytes);
    if (range->end - range->begin != bytes)
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "tensor '%s': shape and dtype take %" PRId64 " bytes, data_offsets give %" PRId64,
                          name, bytes, range->end - range->begin);
    return true;
}

static bool ranges_fill(const JsonDoc *doc, const SafeFile *f, Range *range, int64_t data_bytes) {
    int64_t at = 0;
    qsort(range, f->n, sizeof *range, range_order);
    for (uint32_t i = 0; i < f->n; i++) {
        if (range[i].begin != at)
            return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                              "tensor '%s': its data %s (offset %" PRId64 ", expected %" PRId64 ")",
                              diag_show(doc->d, f->tensor[range[i].tensor].name),
                              range[i].begin < at ? "overlap another tensor's" : "leave a hole before them",
                              range[i].begin, at);
        at = range[i].end;
    }
    if (at != data_bytes)
        return diag_error(doc->d, DIAG_SAFETENSORS_TENSOR, doc->file,
                          "%" PRId64 " bytes after the last tensor", data_bytes - at);
    return true;
}

static bool header_read(const JsonDoc *doc, const char *data, int64_t data_bytes, SafeFile *out) {
    size_t keys = json_object_size(doc->root);
    Range *range = arena_array(doc->arena, keys + 1, sizeof *range);
    out->tensor = arena_array(doc->arena, keys + 1, sizeof *out->tensor);
    const char *key;
    json_t *v;
    json_object_foreach(doc->root, key, v) {
        if (strcmp(key, "__metadata__") == 0) {
            if (!metadata_read(doc, v, out))
                return false;
            continue;
        }
        AdapterTensor *t = &out->tensor[out->n];
        t->name = (Str){arena_strndup(doc->arena, key, strlen(key)), strlen(key)};
        range[out->n].tensor = out->n;
        if (!entry_read(doc, v, t, &range[out->n], data_bytes))
            return false;
        t->data = data + range[out->n].begin;
        out->n++;
    }
    return ranges_fill(doc, out, range, data_bytes);
}

bool safetensors_map(Arena *a, int fd, int64_t size, const char *file, SafeFile *out, Diag *d) {
    *out = (SafeFile){.file = file};
    unsigned char prefix[8];
    if (size < 8 || !file_pread(fd, prefix, 8, 0))
        return diag_error(d, DIAG_SAFETENSORS_HEADER, file,
                          "not a safetensors file: shorter than its 8 bytes of header length");
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | prefix[i];
    uint64_t backwards = __builtin_bswap64(n);
    bool too_long = n > (uint64_t)LIMIT_SAFETENSORS_HEADER || (int64_t)n > size - 8;
    if (too_long && backwards > 0 && backwards <= (uint64_t)size - 8 && file_pread(fd, prefix, 1, 8) && prefix[0] == '{')
        return diag_error(d, DIAG_SAFETENSORS_HEADER, file, "has big-endian numbers, safetensors files little-endian ones");
    if (too_long)
        return diag_error(d, DIAG_SAFETENSORS_HEADER, file,
                          "not a safetensors file: header length %" PRIu64 " in a file of %" PRId64 " bytes",
                          n, size);
    if (size > MOEC_MAX_TENSOR)
        return diag_error(d, DIAG_FILE_SIZE, file, "is too large");
    if (!mapped_open(fd, (size_t)size, file, &out->map, d))
        return false;
    const char *text = (const char *)out->map + 8;
    size_t braces = 0;
    for (size_t i = 0; i < n; i++)
        braces += text[i] == '{';
    bool ok = n > 0 && text[0] == '{';
    if (!ok)
        diag_error(d, DIAG_SAFETENSORS_HEADER, file,
                   "not a safetensors file: the header does not begin with '{'");
    else if (braces > LIMIT_SAFETENSORS_TENSORS)
        ok = diag_error(d, DIAG_LIMIT, file, "more than %d tensors", LIMIT_SAFETENSORS_TENSORS);
    if (ok) {
        JsonDoc doc;
        ok = json_open_text(a, file, (Str){text, (size_t)n}, LIMIT_JSON_DEPTH, &doc, d) &&
             header_read(&doc, text + n, size - 8 - (int64_t)n, out);
        json_close(&doc);
    }
    if (!ok)
        safetensors_unmap(out);
    return ok;
}

void safetensors_unmap(SafeFile *f) {
    mapped_close(f->map);
    f->map = NULL;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void json_text(Text *t, Str s) {
    text_printf(t, "\"");
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\' || c < 0x20 || c == 0x7f)
            text_printf(t, "\\u%04x", c);
        else
            text_add(t, s.p + i, 1);
    }
    text_printf(t, "\"");
}

static bool header_text(const AdapterTensor *tensor, uint32_t n, Str spec, Text *t) {
    int64_t at = 0;
    text_printf(t, "{\"__metadata__\":{\"%s\":", spec.p != NULL ? "moec_adapter" : "format");
    json_text(t, spec.p != NULL ? spec : str_c("pt"));
    text_printf(t, "}");
    for (uint32_t i = 0; i < n; i++) {
        int64_t bytes = 4;
        text_printf(t, ",");
        json_text(t, tensor[i].name);
        text_printf(t, ":{\"dtype\":\"F32\",\"shape\":[");
        for (int k = 0; k < tensor[i].rank; k++) {
            text_printf(t, "%s%" PRId64, k > 0 ? "," : "", tensor[i].dim[k]);
            if (!mul_i64(bytes, tensor[i].dim[k], &bytes))
                return false;
        }
        text_printf(t, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", at, at + bytes);
        if (!add_i64(at, bytes, &at))
            return false;
    }
    text_printf(t, "}");
    while (t->n % 8 != 0)
        text_printf(t, " "); /* data begin at a multiple of 8, as the format's own writer does */
    return true;
}

static bool body_write(OutFile *o, const Text *header, const AdapterTensor *tensor, uint32_t n) {
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)header->n >> (8 * i));
    bool ok = outfile_write(o, prefix, 8) && outfile_write(o, header->p, header->n);
    for (uint32_t i = 0; ok && i < n; i++) {
        size_t bytes = 4;
        for (int k = 0; k < tensor[i].rank; k++)
            bytes *= (size_t)tensor[i].dim[k];
        ok = outfile_write(o, tensor[i].data, bytes);
    }
    return ok;
}

bool safetensors_write(const char *path, const AdapterTensor *tensor, uint32_t n, Str spec, Diag *d) {
    Arena *a = arena_new();
    Text header = {0};
    OutFile o;
    bool ok = header_text(tensor, n, spec, &header) || diag_error(d, DIAG_LIMIT, path, "tensors of more than 2^63 bytes");
    ok = ok && outfile_open(&o, path, 0666, a, d) && body_write(&o, &header, tensor, n) && outfile_commit(&o);
    text_free(&header);
    arena_free(a);
    return ok;
}
