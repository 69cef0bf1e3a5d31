/* NumPy's .npy files, versions 1 and 2: little-endian, C order, the element types of moec_dtype. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static const char *const descr[] = {
    [MOEC_BOOL] = "|b1", [MOEC_U8] = "|u1",  [MOEC_I8] = "|i1",  [MOEC_U16] = "<u2", [MOEC_I16] = "<i2",
    [MOEC_I32] = "<i4",  [MOEC_I64] = "<i8", [MOEC_F16] = "<f2", [MOEC_F32] = "<f4", [MOEC_F64] = "<f8",
};

typedef struct Cursor {
    const char *p, *end;
} Cursor;

static void blanks(Cursor *c) {
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n'))
        c->p++;
}

static int take(Cursor *c, const char *s) {
    size_t n = strlen(s);
    blanks(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, s, n))
        return 0;
    c->p += n;
    return 1;
}

static int take_string(Cursor *c, const char **s, size_t *n) {
    if (!take(c, "'"))
        return 0;
    const char *end = memchr(c->p, '\'', (size_t)(c->end - c->p));
    if (!end)
        return 0;
    *s = c->p;
    *n = (size_t)(end - c->p);
    c->p = end + 1;
    return 1;
}

static int take_extent(Cursor *c, int64_t *v) {
    blanks(c);
    if (c->p == c->end || *c->p < '0' || *c->p > '9')
        return 0;
    for (*v = 0; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++) {
        *v = *v * 10 + (*c->p - '0');
        if (*v >> 47)
            return 0;
    }
    return 1;
}

static int take_shape(Cursor *c, moec_npy *a) {
    if (!take(c, "("))
        return 0;
    for (a->rank = 0; !take(c, ")"); a->rank++) {
        if (a->rank == MOEC_RANK || !take_extent(c, &a->extent[a->rank]))
            return 0;
        if (!take(c, ",")) {
            a->rank++;
            return take(c, ")");
        }
    }
    return 1;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } with the keys in any order */
static const char *parse_header(Cursor *c, moec_npy *a) {
    int have = 0;
    if (!take(c, "{"))
        return "its header is no dictionary";
    while (!take(c, "}")) {
        const char *key, *value;
        size_t n, value_n;
        if (!take_string(c, &key, &n) || !take(c, ":"))
            return "its header is malformed";
        if (n == 5 && !memcmp(key, "descr", n) && !(have & 1)) {
            if (!take_string(c, &value, &value_n))
                return "its element type is not supported";
            for (a->dtype = 0; a->dtype <= MOEC_F64; a->dtype++)
                if (value_n == 3 && !memcmp(value, descr[a->dtype], 3))
                    break;
            if (a->dtype > MOEC_F64)
                return "its element type is not supported";
            have |= 1;
        } else if (n == 13 && !memcmp(key, "fortran_order", n) && !(have & 2)) {
            if (!take(c, "False"))
                return "it is not in C order";
            have |= 2;
        } else if (n == 5 && !memcmp(key, "shape", n) && !(have & 4)) {
            if (!take_shape(c, a))
                return "its shape is malformed";
            have |= 4;
        } else {
            return "its header has an unknown or repeated key";
        }
        if (!take(c, ",")) {
            if (!take(c, "}"))
                return "its header is malformed";
            break;
        }
    }
    blanks(c);
    return have == 7 && c->p == c->end ? NULL : "its header is incomplete";
}

static const char *parse(moec_npy *a, size_t size) {
    static const char magic[] = "\x93NUMPY";
    const unsigned char *p = a->file;
    if (size < 10 || memcmp(p, magic, 6) || p[6] < 1 || p[6] > 2 || (p[6] == 2 && size < 12))
        return "it is no .npy file of version 1 or 2";
    size_t start = p[6] == 1 ? 10 : 12;
    size_t n = p[6] == 1 ? p[8] | (size_t)p[9] << 8
                         : p[8] | (size_t)p[9] << 8 | (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (n > size - start)
        return "its header is cut";
    Cursor c = {(const char *)p + start, (const char *)p + start + n};
    const char *wrong = parse_header(&c, a);
    if (wrong)
        return wrong;
    uint64_t bytes = moec_dtype_bytes(a->dtype);
    for (int i = 0; i < a->rank; i++) {
        if (a->extent[i] > 0 && bytes > ((uint64_t)1 << 47) / (uint64_t)a->extent[i])
            return "its shape is too large";
        bytes *= (uint64_t)a->extent[i];
    }
    if (bytes != size - start - n)
        return "its data do not have the size its shape tells";
    a->data = p + start + n;
    a->bytes = bytes;
    return NULL;
}

moec_status moec_npy_read(const char *path, moec_npy *a, moec_sink sink) {
    size_t size = 0;
    memset(a, 0, sizeof *a);
    moec_status s = moec_file_load(path, (uint64_t)1 << 40, &a->file, &size, sink);
    if (s)
        return s;
    const char *wrong = parse(a, size);
    if (!wrong)
        return MOEC_OK;
    moec_mem_free(a->file);
    a->file = NULL;
    return moec_fail(sink, MOEC_E_FORMAT, path, "%s", wrong);
}

moec_status moec_npy_begin(moec_output *f, unsigned dtype, int rank, const int64_t *extent, moec_sink sink) {
    char h[512];
    size_t n = 10;
    n += (size_t)snprintf(h + n, sizeof h - n, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                          descr[dtype]);
    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(h + n, sizeof h - n, i || rank > 1 ? "%lld%s" : "%lld,%s", (long long)extent[i],
                              i + 1 < rank ? ", " : "");
    n += (size_t)snprintf(h + n, sizeof h - n, "), }");
    while ((n + 1) % 64)
        h[n++] = ' ';
    h[n++] = '\n';
    memcpy(h, "\x93NUMPY\x01\x00", 8);
    h[8] = (char)((n - 10) & 255);
    h[9] = (char)((n - 10) >> 8);
    return moec_output_write(f, h, n, sink);
}
