/* .npy: magic, version, header length, a Python dict literal with three keys, raw data. The literal is read by a
 * scanner for just that dict; anything else in it is refused. */
#include "npy.h"
#include "file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PREFIX = 10 };

static const struct {
    const char *code;
    DType dtype;
} codes[] = {{"|b1", DT_BOOL}, {"|u1", DT_U8},  {"|i1", DT_I8},  {"<u2", DT_U16}, {"<i2", DT_I16},
             {"<i4", DT_I32},  {"<i8", DT_I64}, {"<f2", DT_F16}, {"<f4", DT_F32}, {"<f8", DT_F64}};
enum { N_CODES = sizeof codes / sizeof *codes };

/* ---- the header's dict ------------------------------------------------------------------------------- */

typedef struct Scan {
    const char *p, *end;
} Scan;

static bool take(Scan *s, const char *word)
{
    size_t n = strlen(word);
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n'))
        s->p++;
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

static bool take_int(Scan *s, int64_t *out)
{
    int64_t v = 0;
    take(s, "");
    const char *start = s->p;
    while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
        if (!mul_i64(v, 10, &v) || !add_i64(v, *s->p++ - '0', &v))
            return false;
    *out = v;
    return s->p > start;
}

static bool take_shape(Scan *s, Tensor *t)
{
    if (!take(s, "("))
        return false;
    while (!take(s, ")")) {
        if (t->rank == MOEC_MAX_RANK || !take_int(s, &t->dim[t->rank++]))
            return false;
        if (!take(s, ","))
            return take(s, ")");
    }
    return true;
}

static bool take_descr(Scan *s, Tensor *t)
{
    char quoted[8];
    for (size_t i = 0; i < N_CODES; i++) {
        snprintf(quoted, sizeof quoted, "'%s'", codes[i].code);
        if (take(s, quoted)) {
            t->dtype = codes[i].dtype;
            return true;
        }
    }
    return false;
}

/* NULL, or what is wrong. */
static const char *scan_header(Scan *s, Tensor *t)
{
    bool descr = false, order = false, shape = false;
    *t = (Tensor){0};
    if (!take(s, "{"))
        return "the header is no dict";
    while (!take(s, "}")) {
        if (!descr && take(s, "'descr':")) {
            descr = true;
            if (!take_descr(s, t))
                return "the element type is not supported";
        } else if (!order && take(s, "'fortran_order':")) {
            order = true;
            if (!take(s, "False"))
                return "column-major arrays are not supported";
        } else if (!shape && take(s, "'shape':")) {
            shape = true;
            if (!take_shape(s, t))
                return "the shape cannot be read";
        } else {
            return "the header is malformed";
        }
        if (!take(s, ",") && !(s->p < s->end && *s->p == '}'))
            return "the header is malformed";
    }
    take(s, "");
    return descr && order && shape && s->p == s->end ? NULL : "the header is malformed";
}

bool npy_read(const char *path, Arena *a, Tensor *out, Diag *d)
{
    unsigned char prefix[12];
    int64_t size;
    size_t header, bytes;
    int fd = file_open(path, &size, d);
    if (fd < 0)
        return false;
    bool ok = size >= PREFIX && file_pread(fd, prefix, size < 12 ? PREFIX : 12, 0) && !memcmp(prefix, "\x93NUMPY", 6) &&
              prefix[6] >= 1 && prefix[6] <= 3 && (prefix[6] == 1 || size >= 12);
    const char *why = "not an .npy file";
    if (ok) {
        size_t at = prefix[6] == 1 ? 10 : 12;
        header = prefix[8] | (size_t)prefix[9] << 8;
        if (at == 12)
            header |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
        char *text = header <= LIMIT_NPY_HEADER ? mem_alloc(header + 1) : NULL;
        Scan s = {text, text ? text + header : NULL};
        why = !text                                             ? "the header is too long"
              : !file_pread(fd, text, header, (int64_t)at)      ? "the file ends inside the header"
                                                                : scan_header(&s, out);
        if (!why && (!tensor_bytes(out, &bytes) || (uint64_t)size - at - header != bytes))
            why = "shape and file size do not agree";
        if (!why && !tensor_alloc(a, out))
            why = "the array is too large";
        if (!why && bytes && !file_pread(fd, out->data, bytes, (int64_t)(at + header)))
            why = "the file cannot be read";
        mem_free(text);
    }
    close(fd);
    return !why || diag_error(d, DIAG_ARRAY_FILE, path, "%s", why);
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static void head_text(const Tensor *t, Text *head)
{
    size_t i = 0;
    while (i < N_CODES && codes[i].dtype != t->dtype)
        i++;
    CHECK(i < N_CODES);
    text_add(head, "\x93NUMPY\x01\x00\x00\x00", PREFIX);
    text_printf(head, "{'descr': '%s', 'fortran_order': False, 'shape': (", codes[i].code);
    for (int k = 0; k < t->rank; k++)
        text_printf(head, "%" PRId64 ",%s", t->dim[k], k + 1 < t->rank ? " " : "");
    text_printf(head, "), }");
    while ((head->n + 1) % 64)
        text_add(head, " ", 1);
    text_add(head, "\n", 1);
    head->p[8] = (char)((head->n - PREFIX) & 255);
    head->p[9] = (char)((head->n - PREFIX) >> 8);
}

bool npy_open(OutFile *o, const char *path, const Tensor *t, Arena *a, Diag *d)
{
    Text head = {0};
    size_t bytes = 0;
    CHECK(tensor_bytes(t, &bytes));
    head_text(t, &head);
    bool ok = outfile_open(o, path, 0666, a, d) && outfile_write(o, head.p, head.n) && outfile_write(o, t->data, bytes);
    text_free(&head);
    return ok;
}

bool npy_write(const char *path, const Tensor *t, Diag *d)
{
    Arena *a = arena_new();
    OutFile o;
    bool ok = npy_open(&o, path, t, a, d) && outfile_commit(&o);
    arena_free(a);
    return ok;
}
