/* Tokens of the text IR. Hostile text costs time and memory linear in its length: element counts are checked
 * against the text that is left before anything is allocated. */
#include "parse_lex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool lex_fail(Lex *x, DiagCode code, const char *fmt, ...)
{
    char message[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    DiagPlace at = {x->file ? x->file : "<text>", x->line, (uint32_t)(x->p - x->line_start) + 1};
    x->errors++;
    return diag_error_at(x->d, code, at, "%s", message);
}

void lex_space(Lex *x)
{
    while (x->p < x->end && (*x->p == ' ' || *x->p == '\t' || *x->p == '\r'))
        x->p++;
}

bool lex_at_end(Lex *x)
{
    lex_space(x);
    return x->p == x->end || *x->p == '\n' || *x->p == '#';
}

void lex_skip_line(Lex *x)
{
    const char *nl = x->p < x->end ? memchr(x->p, '\n', (size_t)(x->end - x->p)) : NULL;
    x->p = nl ? nl + 1 : x->end;
    x->line += nl != NULL;
    x->line_start = x->p;
}

bool lex_end_line(Lex *x)
{
    if (!lex_at_end(x))
        return lex_fail(x, DIAG_IR_SYNTAX, "unexpected text at the end of the line");
    lex_skip_line(x);
    return true;
}

bool lex_next_line(Lex *x)
{
    while (x->p < x->end && lex_at_end(x))
        lex_skip_line(x);
    return x->p < x->end;
}

bool lex_peek(Lex *x, char c)
{
    lex_space(x);
    return x->p < x->end && *x->p == c;
}

bool lex_take(Lex *x, char c)
{
    if (!lex_peek(x, c))
        return false;
    x->p++;
    return true;
}

bool lex_want(Lex *x, char c)
{
    return lex_take(x, c) || lex_fail(x, DIAG_IR_SYNTAX, "expected `%c`", c);
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool lex_word(Lex *x, Str *out)
{
    lex_space(x);
    const char *s = x->p;
    if (s == x->end || !is_alpha(*s))
        return lex_fail(x, DIAG_IR_SYNTAX, "expected a word");
    while (x->p < x->end && (is_alpha(*x->p) || is_digit(*x->p)))
        x->p++;
    *out = (Str){s, (size_t)(x->p - s)};
    return true;
}

bool lex_keyword(Lex *x, const char *word)
{
    lex_space(x);
    size_t n = strlen(word);
    if ((size_t)(x->end - x->p) < n || memcmp(x->p, word, n) != 0)
        return false;
    if (x->p + n < x->end && (is_alpha(x->p[n]) || is_digit(x->p[n])))
        return false;
    x->p += n;
    return true;
}

bool lex_quoted(Lex *x, Str *out)
{
    if (!lex_want(x, '"'))
        return false;
    const char *s = x->p;
    while (s < x->end && *s != '"' && *s != '\n')
        s++;
    if (s == x->end || *s != '"')
        return lex_fail(x, DIAG_IR_SYNTAX, "unterminated string");
    char *buf = arena_alloc(x->m->arena, (size_t)(s - x->p) + 1);
    size_t n = 0;
    while (x->p < s) {
        if (*x->p != '\\') {
            buf[n++] = *x->p++;
            continue;
        }
        unsigned v = 0;
        for (int i = 1; i <= 3; i++) {
            if (x->p + i >= s || x->p[i] < '0' || x->p[i] > '7')
                return lex_fail(x, DIAG_IR_SYNTAX, "a backslash is followed by three octal digits");
            v = 8 * v + (unsigned)(x->p[i] - '0');
        }
        if (v > 255)
            return lex_fail(x, DIAG_IR_SYNTAX, "octal escape above \\377");
        buf[n++] = (char)v;
        x->p += 4;
    }
    x->p++;
    *out = (Str){buf, n};
    return true;
}

/* The longest run of name characters, possibly none. *digits: nothing but digits in it. */
static Str name_run(Lex *x, bool *digits)
{
    const char *s = x->p;
    *digits = true;
    while (x->p < x->end && (is_alpha(*x->p) || is_digit(*x->p) || *x->p == '.'))
        *digits &= is_digit(*x->p++);
    return (Str){s, (size_t)(x->p - s)};
}

bool lex_symbol(Lex *x, Str *out)
{
    bool digits;
    if (lex_peek(x, '"'))
        return lex_quoted(x, out);
    *out = name_run(x, &digits);
    return (out->n && is_alpha(out->p[0])) || lex_fail(x, DIAG_IR_SYNTAX, "expected a symbol's name");
}

bool lex_name(Lex *x, char sigil, Str *out, bool *bare_digits)
{
    *bare_digits = false;
    if (!lex_want(x, sigil))
        return false;
    if (x->p < x->end && *x->p == '"')
        return lex_quoted(x, out);
    *out = name_run(x, bare_digits);
    return out->n || lex_fail(x, DIAG_IR_SYNTAX, "expected a name after `%c`", sigil);
}

bool lex_int(Lex *x, int64_t *out)
{
    lex_space(x);
    bool negative = x->p < x->end && *x->p == '-';
    const char *s = x->p + negative;
    int64_t v = 0;
    if (s == x->end || !is_digit(*s))
        return lex_fail(x, DIAG_IR_SYNTAX, "expected an integer");
    for (; s < x->end && is_digit(*s); s++)
        if (!mul_i64(v, 10, &v) || !sub_i64(v, *s - '0', &v)) /* negative throughout: INT64_MIN has no positive */
            return lex_fail(x, DIAG_IR_SYNTAX, "integer out of range");
    if (!negative && !sub_i64(0, v, &v))
        return lex_fail(x, DIAG_IR_SYNTAX, "integer out of range");
    x->p = s;
    *out = v;
    return true;
}

/* A number of the given type as bits; `nan:HEX` gives a NaN by its bits. */
static bool lex_float(Lex *x, DType dtype, uint64_t *bits)
{
    char token[48] = {0};
    lex_space(x);
    size_t n = 0;
    while (x->p + n < x->end && n < sizeof token - 1 &&
           (is_alpha(x->p[n]) || is_digit(x->p[n]) || (x->p[n] && strchr("+-.:", x->p[n])))) {
        token[n] = x->p[n];
        n++;
    }
    token[n] = 0;
    char *stop = token;
    static const uint64_t plain_nan[DT_COUNT] = {
        [DT_F16] = 0x7e00, [DT_F32] = 0x7fc00000u, [DT_F64] = 0x7ff8000000000000u};
    if (strncmp(token, "nan", 3) == 0) {
        *bits = plain_nan[dtype];
        stop = token + 3;
        if (*stop == ':')
            *bits = strtoull(token + 4, &stop, 16);
    } else if (dtype == DT_F64) {
        double v = strtod(token, &stop);
        memcpy(bits, &v, sizeof v);
    } else {
        float v = strtof(token, &stop); /* not by way of double: rounds once */
        uint32_t b;
        memcpy(&b, &v, sizeof b);
        *bits = dtype == DT_F16 ? f16_from_f32(v) : b;
    }
    if (!n || *stop)
        return lex_fail(x, DIAG_IR_SYNTAX, "expected a number");
    x->p += n;
    return true;
}

bool lex_f64(Lex *x, double *out)
{
    uint64_t bits;
    if (!lex_float(x, DT_F64, &bits))
        return false;
    memcpy(out, &bits, sizeof bits);
    return true;
}

bool lex_dim(Lex *x, Dim *out)
{
    lex_space(x);
    const char *p = x->p;
    size_t known = dim_sym_count(x->m->dims);
    if (!dim_parse(x->m->dims, &p, x->end, out) || *out == DIM_BAD)
        return lex_fail(x, DIAG_IR_SYNTAX, "expected an extent");
    if (dim_sym_count(x->m->dims) != known)
        return lex_fail(x, DIAG_IR_UNKNOWN, "symbol %s is not declared: add a line `sym NAME = LO..HI`",
                        diag_show(x->d, dim_sym_at(x->m->dims, (uint32_t)known)->name));
    x->p = p;
    return true;
}

bool lex_dtype(Lex *x, DType *out)
{
    Str word = {0};
    const char *at = x->p;
    if (!lex_word(x, &word))
        return false;
    if (dtype_parse(word, out))
        return true;
    x->p = at;
    return lex_fail(x, DIAG_IR_UNKNOWN, "`%s` is no element type", diag_show(x->d, word));
}

bool lex_type(Lex *x, Type *out)
{
    DType dtype;
    if (!lex_dtype(x, &dtype) || !lex_want(x, '['))
        return false;
    *out = type_unranked(dtype);
    if (lex_take(x, '*'))
        return lex_want(x, ']');
    out->rank = 0;
    if (lex_take(x, ']'))
        return true;
    do {
        if (out->rank == MOEC_MAX_RANK)
            return lex_fail(x, DIAG_LIMIT, "rank above %d", MOEC_MAX_RANK);
        if (!lex_dim(x, &out->dim[out->rank++]))
            return false;
    } while (lex_take(x, ','));
    return lex_want(x, ']');
}

bool lex_extents(Lex *x, Tensor *out)
{
    int64_t count;
    *out = (Tensor){0};
    if (!lex_dtype(x, &out->dtype) || !lex_want(x, '['))
        return false;
    if (!lex_take(x, ']')) {
        do {
            if (out->rank == MOEC_MAX_RANK)
                return lex_fail(x, DIAG_LIMIT, "rank above %d", MOEC_MAX_RANK);
            if (!lex_int(x, &out->dim[out->rank++]))
                return false;
        } while (lex_take(x, ','));
        if (!lex_want(x, ']'))
            return false;
    }
    return tensor_count(out, &count) || lex_fail(x, DIAG_IR_TYPE, "extents are negative or too large");
}

static bool lex_element(Lex *x, Tensor *t, int64_t i)
{
    if (dtype_is_float(t->dtype)) {
        uint64_t bits;
        if (!lex_float(x, t->dtype, &bits))
            return false;
        uint16_t b16 = (uint16_t)bits;
        uint32_t b32 = (uint32_t)bits;
        size_t n = dtype_bytes(t->dtype);
        memcpy((char *)t->data + (size_t)i * n, n == 2 ? (void *)&b16 : n == 4 ? (void *)&b32 : (void *)&bits, n);
        return true;
    }
    int64_t v = 0;
    if (!lex_int(x, &v))
        return false;
    tensor_set_i64(t, i, v);
    return tensor_get_i64(t, i) == v ||
           lex_fail(x, DIAG_IR_SYNTAX, "%lld does not fit %s", (long long)v, dtype_name(t->dtype));
}

bool lex_elements(Lex *x, Tensor *t)
{
    int64_t count;
    size_t bytes;
    if (!tensor_count(t, &count) || !tensor_bytes(t, &bytes))
        return lex_fail(x, DIAG_IR_TYPE, "extents are negative or too large");
    if (lex_keyword(x, "splat")) {
        if (bytes > x->splat_budget)
            return lex_fail(x, DIAG_LIMIT, "too many bytes made by `splat`");
        x->splat_budget -= bytes;
        Tensor one = {.dtype = t->dtype};
        if (!tensor_alloc(x->m->arena, t) || !tensor_alloc(x->m->arena, &one))
            return lex_fail(x, DIAG_LIMIT, "extents are too large");
        if (!lex_element(x, &one, 0))
            return false;
        size_t n = dtype_bytes(t->dtype);
        for (int64_t i = 0; i < count; i++)
            memcpy((char *)t->data + (size_t)i * n, one.data, n);
        return true;
    }
    if (!lex_want(x, '['))
        return false;
    if (count > x->end - x->p)
        return lex_fail(x, DIAG_IR_SYNTAX, "fewer elements than the type has");
    if (!tensor_alloc(x->m->arena, t))
        return lex_fail(x, DIAG_LIMIT, "extents are too large");
    for (int64_t i = 0; i < count; i++)
        if ((i && !lex_want(x, ',')) || !lex_element(x, t, i))
            return false;
    return lex_want(x, ']');
}
