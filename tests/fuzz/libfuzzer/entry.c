/* One harness as a libFuzzer program: FUZZ_ENTRY, the harness, and FUZZ_MUTATE_..., who changes its inputs: bytes is libFuzzer,
 * the others are below. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void FUZZ_ENTRY(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
size_t LLVMFuzzerMutate(uint8_t *p, size_t n, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *p, size_t n, size_t room, unsigned seed);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    FUZZ_ENTRY(p, n);
    return 0;
}

#ifndef FUZZ_MUTATE_bytes

static uint32_t draw(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#endif

#ifdef FUZZ_MUTATE_safetensors

/* The header's length says what follows it. */
size_t LLVMFuzzerCustomMutator(uint8_t *p, size_t n, size_t room, unsigned seed) {
    uint64_t length = 0;
    if (n > 8) memcpy(&length, p, 8);
    if (draw(&seed) % 8 == 0 || n <= 8 || length > n - 8 || room <= n) return LLVMFuzzerMutate(p, n, room);
    size_t data = n - 8 - (size_t)length;
    uint8_t *tail = malloc(data + 1);
    memcpy(tail, p + 8 + length, data);
    length = LLVMFuzzerMutate(p + 8, (size_t)length, room - 8 - data);
    memcpy(p, &length, 8);
    memcpy(p + 8 + length, tail, data);
    free(tail);
    return 8 + (size_t)length + data;
}

#endif

/* ---- messages in messages, as protobuf writes them ---- */

#ifdef FUZZ_MUTATE_proto

typedef struct Span {
    size_t begin, end;
} Span;

enum { FIELDS = 256, DEPTH = 8 };

static size_t varint_at(const uint8_t *p, size_t n, size_t at, uint64_t *v) {
    *v = 0;
    for (unsigned shift = 0; at < n && shift < 64; shift += 7) {
        *v |= (uint64_t)(p[at] & 127) << shift;
        if (p[at++] < 128) return at;
    }
    return 0;
}

/* The fields of a message, at most FIELDS: where each is, and where its contents are if they have a length. 0: it is none. */
static size_t split(const uint8_t *p, size_t begin, size_t end, Span field[FIELDS], Span inside[FIELDS]) {
    size_t n = 0;
    for (size_t at = begin; at < end && n < FIELDS; n++) {
        uint64_t tag, length = 0;
        field[n].begin = at;
        inside[n] = (Span){0, 0};
        at = varint_at(p, end, at, &tag);
        if (!at || tag >> 3 == 0) return 0;
        if ((tag & 7) == 0) at = varint_at(p, end, at, &length);
        else if ((tag & 7) == 1) at += 8;
        else if ((tag & 7) == 5) at += 4;
        else if ((tag & 7) == 2) {
            at = varint_at(p, end, at, &length);
            if (!at || length > end - at) return 0;
            inside[n] = (Span){at, at + (size_t)length};
            at += (size_t)length;
        } else return 0;
        if (!at || at > end) return 0;
        field[n].end = at;
    }
    return n;
}

/* Puts `n` bytes in the place of a span; the buffer's new size, or its old one where there is no room. */
static size_t replace(uint8_t *p, size_t size, size_t room, Span s, const uint8_t *with, size_t n) {
    if (size - (s.end - s.begin) + n > room) return size;
    memmove(p + s.begin + n, p + s.end, size - s.end);
    memcpy(p + s.begin, with, n);
    return size - (s.end - s.begin) + n;
}

static size_t put_varint(uint8_t *to, uint64_t v) {
    size_t n = 0;
    for (; v > 127; v >>= 7) to[n++] = (uint8_t)(v | 128);
    to[n++] = (uint8_t)v;
    return n;
}

/* Writes the lengths on the way again, the innermost first; contents changed by `more` bytes. */
static size_t mend(uint8_t *p, size_t n, size_t room, const Span *way, size_t depth, ptrdiff_t more) {
    while (depth > 0 && more != 0) {
        Span s = way[--depth]; /* contents as they were */
        uint8_t length[10];
        size_t at = s.begin - 1; /* the length's first byte */
        while (at > 0 && p[at - 1] >= 128 && s.begin - at < 9) at--;
        /* the tag's last byte is below 128, so the bytes before, if not, are the length's */
        size_t k = put_varint(length, (uint64_t)((ptrdiff_t)(s.end - s.begin) + more)), before = n;
        n = replace(p, n, room, (Span){at, s.begin}, length, k);
        if (n == before && k != s.begin - at) return n;
        more += (ptrdiff_t)k - (ptrdiff_t)(s.begin - at);
    }
    return n;
}

/* A field some levels down is changed, doubled, dropped, or takes the place of another. */
size_t LLVMFuzzerCustomMutator(uint8_t *p, size_t n, size_t room, unsigned seed) {
    static Span field[FIELDS], inside[FIELDS];
    Span way[DEPTH], at = {0, n};
    uint8_t *copy = malloc(room);
    size_t depth = 0, fields, size = n;
    if (draw(&seed) % 8 == 0) {
        free(copy);
        return LLVMFuzzerMutate(p, n, room);
    }
    for (;;) {
        fields = split(p, at.begin, at.end, field, inside);
        size_t k = fields ? draw(&seed) % fields : 0;
        if (!fields || depth == DEPTH || inside[k].end == inside[k].begin || draw(&seed) % 4 == 0) break;
        at = way[depth++] = inside[k];
    }
    if (!fields || draw(&seed) % 3 == 0) {
        memcpy(copy, p + at.begin, at.end - at.begin);
        size_t k = LLVMFuzzerMutate(copy, at.end - at.begin, at.end - at.begin + (room - n) / 2);
        size = replace(p, n, room, at, copy, k);
    } else {
        Span from = field[draw(&seed) % fields], to = field[draw(&seed) % fields];
        unsigned what = draw(&seed) % 4; /* 0: drop; 1: before another; else in its place */
        memcpy(copy, p + from.begin, from.end - from.begin);
        if (what == 1) to.end = to.begin;
        size = replace(p, n, room, to, copy, what ? from.end - from.begin : 0);
    }
    free(copy);
    return mend(p, size, room, way, depth, (ptrdiff_t)size - (ptrdiff_t)n);
}

#endif
