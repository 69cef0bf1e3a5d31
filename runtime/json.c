/* A strict JSON pull reader (RFC 8259): UTF-8 checked, no duplicate keys, depth bounded, no recursion.
 *
 * Integers without fraction or exponent that fit 64 bits are INTEGER, all other numbers REAL; a number that
 * is not finite in double is an error. Keys of all objects share one hash table keyed by (object's serial
 * number, name). */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct moec_json_key {
    uint64_t object, hash; /* object 0: empty slot */
    const char *p;
    size_t n;
};

/* What may come next. */
enum { WANT_VALUE, WANT_FIRST_VALUE, WANT_FIRST_KEY, WANT_KEY, WANT_COMMA, WANT_NOTHING };

void moec_json_open(moec_json *j, void *bytes, size_t n) {
    memset(j, 0, sizeof *j);
    j->p = bytes;
    j->n = n;
    j->expect = WANT_VALUE;
}

/* The power of two of slots for a table that never grows. */
static size_t key_slots(size_t keys) {
    size_t slots = 64;
    while (slots / 2 <= keys)
        slots *= 2;
    return slots;
}

size_t moec_json_keys_bytes(size_t keys) {
    return key_slots(keys) * sizeof(struct moec_json_key);
}

void moec_json_open_in(moec_json *j, void *bytes, size_t n, void *table, size_t keys) {
    moec_json_open(j, bytes, n);
    memset(table, 0, moec_json_keys_bytes(keys));
    j->key = table;
    j->key_room = key_slots(keys);
    j->key_is_callers = 1;
}

void moec_json_close(moec_json *j) {
    if (!j->key_is_callers)
        moec_mem_free(j->key);
    j->key = NULL;
}

static moec_json_event fail(moec_json *j, const char *what) {
    j->error = what;
    return MOEC_JSON_ERROR;
}

static void skip_blanks(moec_json *j) {
    while (j->at < j->n &&
           (j->p[j->at] == ' ' || j->p[j->at] == '\t' || j->p[j->at] == '\n' || j->p[j->at] == '\r'))
        j->at++;
}

static moec_json_event after_value(moec_json *j, moec_json_event e) {
    j->expect = j->depth ? WANT_COMMA : WANT_NOTHING;
    return e;
}

/* ---- strings ---- */

static int hex4(const unsigned char *p, size_t left, unsigned *out) {
    unsigned v = 0;
    if (left < 4)
        return 0;
    for (int i = 0; i < 4; i++) {
        unsigned c = p[i];
        unsigned d = c >= '0' && c <= '9'                 ? c - '0'
                     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                          : 16;
        if (d > 15)
            return 0;
        v = v * 16 + d;
    }
    *out = v;
    return 1;
}

static size_t put_utf8(unsigned char *to, unsigned c) {
    if (c < 0x80) {
        to[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (unsigned char)(0xC0 | c >> 6);
        to[1] = (unsigned char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (unsigned char)(0xE0 | c >> 12);
        to[1] = (unsigned char)(0x80 | (c >> 6 & 63));
        to[2] = (unsigned char)(0x80 | (c & 63));
        return 3;
    }
    to[0] = (unsigned char)(0xF0 | c >> 18);
    to[1] = (unsigned char)(0x80 | (c >> 12 & 63));
    to[2] = (unsigned char)(0x80 | (c >> 6 & 63));
    to[3] = (unsigned char)(0x80 | (c & 63));
    return 4;
}

size_t moec_utf8_length(const unsigned char *p, size_t left) {
    unsigned c = p[0];
    size_t n = c < 0x80                ? 1
               : c >= 0xC2 && c < 0xE0 ? 2
               : c >= 0xE0 && c < 0xF0 ? 3
               : c >= 0xF0 && c < 0xF5 ? 4
                                       : 0;
    if (!n || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F) || (c == 0xF0 && p[1] < 0x90) ||
        (c == 0xF4 && p[1] > 0x8F))
        return 0; /* overlong, surrogate, above U+10FFFF */
    return n;
}

/* After the opening quote; decodes in place, which never needs more room than the source. */
static const char *read_string(moec_json *j) {
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    unsigned char *to = j->p + j->at;
    j->string = (char *)to;
    for (;;) {
        if (j->at >= j->n)
            return "a string has no end";
        unsigned c = j->p[j->at];
        if (c == '"') {
            j->at++;
            j->length = (size_t)(to - (unsigned char *)j->string);
            return NULL;
        }
        if (c < 0x20)
            return "a control character in a string";
        if (c != '\\') {
            size_t n = moec_utf8_length(j->p + j->at, j->n - j->at);
            if (!n)
                return "a string is not UTF-8";
            memmove(to, j->p + j->at, n);
            to += n;
            j->at += n;
            continue;
        }
        if (j->at + 1 >= j->n)
            return "a string has no end";
        c = j->p[j->at + 1];
        const char *known = c ? strchr(from, (int)c) : NULL;
        if (known) {
            *to++ = (unsigned char)into[known - from];
            j->at += 2;
            continue;
        }
        unsigned u, low;
        if (c != 'u' || !hex4(j->p + j->at + 2, j->n - j->at - 2, &u))
            return "an unknown escape in a string";
        j->at += 6;
        if (u >= 0xDC00 && u < 0xE000)
            return "a lone surrogate in a string";
        if (u >= 0xD800 && u < 0xDC00) {
            if (j->n - j->at < 6 || j->p[j->at] != '\\' || j->p[j->at + 1] != 'u' ||
                !hex4(j->p + j->at + 2, 4, &low) || low < 0xDC00 || low > 0xDFFF)
                return "a lone surrogate in a string";
            u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
            j->at += 6;
        }
        to += put_utf8(to, u);
    }
}

/* ---- keys ---- */

static int key_table_grow(moec_json *j) {
    size_t room = j->key_room ? j->key_room * 2 : 64;
    struct moec_json_key *table = moec_mem_new(room, sizeof *table);
    if (!table)
        return 0;
    for (size_t i = 0; i < j->key_room; i++) {
        if (!j->key[i].object)
            continue;
        size_t at = j->key[i].hash & (room - 1);
        while (table[at].object)
            at = (at + 1) & (room - 1);
        table[at] = j->key[i];
    }
    moec_mem_free(j->key);
    j->key = table;
    j->key_room = room;
    return 1;
}

/* Remembers the current string as a key of the innermost object; returns what is wrong. */
static const char *key_remember(moec_json *j) {
    if (j->keys * 2 >= j->key_room && j->key_is_callers)
        return "too many keys";
    if (j->keys * 2 >= j->key_room && !key_table_grow(j)) {
        j->no_memory = 1;
        return "out of memory";
    }
    uint64_t object = j->object[j->depth - 1], hash = 0xcbf29ce484222325u ^ object * 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < j->length; i++)
        hash = (hash ^ (unsigned char)j->string[i]) * 0x100000001b3u;
    hash ^= hash >> 29;
    size_t at = hash & (j->key_room - 1);
    for (; j->key[at].object; at = (at + 1) & (j->key_room - 1))
        if (j->key[at].object == object && j->key[at].hash == hash && j->key[at].n == j->length &&
            !memcmp(j->key[at].p, j->string, j->length))
            return "a key occurs twice in one object";
    j->key[at] = (struct moec_json_key){object, hash, j->string, j->length};
    j->keys++;
    return NULL;
}

/* ---- numbers ---- */

static int is_digit(const moec_json *j, size_t at) {
    return at < j->n && j->p[at] >= '0' && j->p[at] <= '9';
}

static moec_json_event read_number(moec_json *j) {
    size_t start = j->at, at = start;
    int negative = j->p[at] == '-', real = 0, fits = 1;
    uint64_t v = 0;
    at += (size_t)negative;
    if (!is_digit(j, at) || (j->p[at] == '0' && is_digit(j, at + 1)))
        return fail(j, "a number is malformed");
    for (; is_digit(j, at); at++) {
        unsigned d = j->p[at] - '0';
        if (v > ((uint64_t)INT64_MAX + (uint64_t)negative - d) / 10)
            fits = 0;
        else
            v = v * 10 + d;
    }
    if (at < j->n && j->p[at] == '.') {
        real = 1;
        if (!is_digit(j, ++at))
            return fail(j, "a number is malformed");
        while (is_digit(j, at))
            at++;
    }
    if (at < j->n && (j->p[at] | 32) == 'e') {
        real = 1;
        at++;
        if (at < j->n && (j->p[at] == '+' || j->p[at] == '-'))
            at++;
        if (!is_digit(j, at))
            return fail(j, "a number is malformed");
        while (is_digit(j, at))
            at++;
    }
    j->at = at;
    if (!real && fits) {
        j->integer = !negative ? (int64_t)v : v > (uint64_t)INT64_MAX ? INT64_MIN : -(int64_t)v;
        j->real = (double)j->integer;
        return after_value(j, MOEC_JSON_INTEGER);
    }
    char text[128];
    if (at - start >= sizeof text)
        return fail(j, "a number has more than 127 characters");
    memcpy(text, j->p + start, at - start);
    text[at - start] = 0;
    j->real = strtod(text, NULL);
    if (!(j->real - j->real == 0))
        return fail(j, "a number is out of range");
    return after_value(j, MOEC_JSON_REAL);
}

/* ---- structure ---- */

static moec_json_event read_word(moec_json *j, const char *word, moec_json_event e, int64_t value) {
    size_t n = strlen(word);
    if (j->n - j->at < n || memcmp(j->p + j->at, word, n))
        return fail(j, "an unknown word");
    j->at += n;
    j->integer = value;
    return after_value(j, e);
}

static moec_json_event open_level(moec_json *j, int object) {
    if (j->depth == MOEC_JSON_DEPTH)
        return fail(j, "nested too deeply");
    j->at++;
    j->in_object[j->depth] = (unsigned char)object;
    j->object[j->depth] = ++j->objects;
    j->depth++;
    j->expect = object ? WANT_FIRST_KEY : WANT_FIRST_VALUE;
    return object ? MOEC_JSON_OBJECT : MOEC_JSON_ARRAY;
}

static moec_json_event close_level(moec_json *j) {
    int object = j->in_object[--j->depth];
    j->at++;
    return after_value(j, object ? MOEC_JSON_OBJECT_END : MOEC_JSON_ARRAY_END);
}

static moec_json_event read_key(moec_json *j) {
    const char *wrong;
    if (j->at >= j->n || j->p[j->at] != '"')
        return fail(j, "a key was expected");
    j->at++;
    if ((wrong = read_string(j)) || (wrong = key_remember(j)))
        return fail(j, wrong);
    skip_blanks(j);
    if (j->at >= j->n || j->p[j->at] != ':')
        return fail(j, "':' was expected");
    j->at++;
    j->expect = WANT_VALUE;
    return MOEC_JSON_KEY;
}

moec_json_event moec_json_next(moec_json *j) {
    if (j->error)
        return MOEC_JSON_ERROR;
    skip_blanks(j);
    if (j->expect == WANT_NOTHING)
        return j->at < j->n ? fail(j, "text follows the document") : MOEC_JSON_END;
    if (j->at >= j->n)
        return fail(j, "the text ends too early");
    if (j->expect == WANT_COMMA) {
        int object = j->in_object[j->depth - 1];
        if (j->p[j->at] == (object ? '}' : ']'))
            return close_level(j);
        if (j->p[j->at] != ',')
            return fail(j, object ? "',' or '}' was expected" : "',' or ']' was expected");
        j->at++;
        j->expect = object ? WANT_KEY : WANT_VALUE;
        skip_blanks(j);
        if (j->at >= j->n)
            return fail(j, "the text ends too early");
    }
    unsigned c = j->p[j->at];
    if ((j->expect == WANT_FIRST_KEY && c == '}') || (j->expect == WANT_FIRST_VALUE && c == ']'))
        return close_level(j);
    if (j->expect == WANT_FIRST_KEY || j->expect == WANT_KEY)
        return read_key(j);
    if (c == '{' || c == '[')
        return open_level(j, c == '{');
    if (c == '"') {
        j->at++;
        const char *wrong = read_string(j);
        return wrong ? fail(j, wrong) : after_value(j, MOEC_JSON_STRING);
    }
    if (c == '-' || (c >= '0' && c <= '9'))
        return read_number(j);
    if (c == 't')
        return read_word(j, "true", MOEC_JSON_BOOL, 1);
    if (c == 'f')
        return read_word(j, "false", MOEC_JSON_BOOL, 0);
    if (c == 'n')
        return read_word(j, "null", MOEC_JSON_NULL, 0);
    return fail(j, "a value was expected");
}

int moec_json_skip(moec_json *j, moec_json_event e) {
    int outer = j->depth - (e == MOEC_JSON_OBJECT || e == MOEC_JSON_ARRAY);
    while (e != MOEC_JSON_ERROR && j->depth > outer)
        e = moec_json_next(j);
    return e != MOEC_JSON_ERROR;
}
