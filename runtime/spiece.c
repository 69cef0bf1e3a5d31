/* Checks a SentencePiece model before libsentencepiece sees it.
 *
 * The library trusts its file: it reads outside a noisy character map, recurses over long pieces and accepts
 * scores that are no numbers. This walk over the wire format (sentencepiece_model.proto, two levels deep,
 * iterative) admits only what it can digest. */
#include "text.h"
#include "internal.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3, MODEL_DENORMALIZER = 5 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, NORMALIZER_MAP = 2 };
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_LAST = 6 };

typedef struct Span {
    const unsigned char *p;
    size_t n;
} Span;

typedef struct Field {
    uint64_t number;
    unsigned wire;
    uint64_t value; /* VARINT, FIXED32, FIXED64 */
    Span bytes;
} Field;

static int read_varint(Span *s, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && s->n > 0; shift += 7) {
        unsigned c = *s->p;
        s->p++;
        s->n--;
        if (shift == 63 && c > 1)
            return 0;
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128) {
            *out = v;
            return 1;
        }
    }
    return 0;
}

static uint64_t little_endian(const unsigned char *p, int n) {
    uint64_t v = 0;
    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

/* Takes one field off the front; 0 when the bytes are no message. */
static int next_field(Span *s, Field *f) {
    uint64_t tag, n;
    if (!read_varint(s, &tag) || tag >> 32)
        return 0;
    f->number = tag >> 3;
    f->wire = tag & 7;
    f->bytes = (Span){NULL, 0};
    f->value = 0;
    if (!f->number)
        return 0;
    switch (f->wire) {
    case VARINT:
        return read_varint(s, &f->value);
    case FIXED32:
    case FIXED64:
        n = f->wire == FIXED32 ? 4 : 8;
        if (s->n < n)
            return 0;
        f->value = little_endian(s->p, (int)n);
        break;
    case BYTES:
        if (!read_varint(s, &n) || n > s->n)
            return 0;
        f->bytes = (Span){s->p, (size_t)n};
        break;
    default:
        return 0; /* groups are not used by the schema */
    }
    s->p += n;
    s->n -= (size_t)n;
    return 1;
}

/* ---- character maps (darts-clone double arrays) ---- */

static uint32_t unit_at(const unsigned char *trie, size_t i) {
    return (uint32_t)little_endian(trie + 4 * i, 4);
}

static size_t unit_offset(uint32_t u) {
    return (size_t)(u >> 10) << ((u & (1u << 9)) >> 6);
}

/* Follows every reachable unit of the trie once. */
static const char *check_trie(const unsigned char *trie, size_t units, size_t text_bytes, unsigned char *seen,
                              uint32_t *stack) {
    size_t depth = 0;
    seen[0] = 1;
    stack[depth++] = 0;
    while (depth > 0) {
        size_t at = stack[--depth];
        uint32_t unit = unit_at(trie, at);
        size_t base = at ^ unit_offset(unit);
        if ((base | 255) >= units)
            return "its trie points outside itself";
        if (unit >> 8 & 1 && (unit_at(trie, base) & 0x7fffffff) >= text_bytes)
            return "its trie points outside the replacement text";
        for (uint32_t c = 0; c < 256; c++) {
            size_t child = base ^ c;
            if (seen[child] || (unit_at(trie, child) & (1u << 31 | 255)) != c)
                continue;
            seen[child] = 1;
            stack[depth++] = (uint32_t)child;
        }
    }
    return NULL;
}

static const char *check_map(Span map) {
    if (map.n == 0)
        return NULL;
    if (map.n <= 4)
        return "it is too short";
    uint64_t trie_bytes = little_endian(map.p, 4);
    if (trie_bytes == 0 || trie_bytes % 4 || trie_bytes >= map.n - 4)
        return "the size of its trie is wrong";
    size_t text_bytes = map.n - 4 - (size_t)trie_bytes, units = (size_t)trie_bytes / 4;
    if (map.p[map.n - 1] != 0)
        return "its replacement text has no end";
    unsigned char *seen = moec_mem_new(units, 1);
    uint32_t *stack = moec_mem_new(units, sizeof *stack);
    const char *wrong =
        seen && stack ? check_trie(map.p + 4, units, text_bytes, seen, stack) : "out of memory";
    moec_mem_free(seen);
    moec_mem_free(stack);
    return wrong;
}

/* ---- messages of the model ---- */

typedef struct Checker {
    Span *piece; /* open-addressing set of the pieces seen */
    size_t room, pieces, unknowns;
    int64_t limit;
    const char *name;
    moec_sink sink;
} Checker;

#define REFUSE(c, ...) (moec_fail((c)->sink, MOEC_E_FORMAT, (c)->name, __VA_ARGS__), -1)

static int set_insert(Checker *c, Span s) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ s.p[i]) * 0x100000001b3u;
    h ^= h >> 31;
    size_t at = (size_t)h & (c->room - 1);
    for (; c->piece[at].p; at = (at + 1) & (c->room - 1))
        if (c->piece[at].n == s.n && !memcmp(c->piece[at].p, s.p, s.n))
            return 0;
    c->piece[at] = s;
    return 1;
}

static int check_piece(Checker *c, Span s) {
    Field f;
    Span text = {NULL, 0};
    uint64_t type = TYPE_NORMAL;
    size_t id = c->pieces++;
    if ((int64_t)c->pieces > c->limit)
        return REFUSE(c, "has more pieces than the %lld the model's embedding has rows for",
                      (long long)c->limit);
    while (s.n > 0) {
        if (!next_field(&s, &f))
            return REFUSE(c, "piece %zu is malformed", id);
        if (f.number == PIECE_TEXT && f.wire == BYTES)
            text = f.bytes;
        else if (f.number == PIECE_SCORE && f.wire == FIXED32 && (f.value >> 23 & 255) == 255)
            return REFUSE(c, "piece %zu has a score that is no finite number", id);
        else if (f.number == PIECE_TYPE && f.wire == VARINT)
            type = f.value;
        else if (f.number <= PIECE_TYPE && !(f.number == PIECE_SCORE && f.wire == FIXED32))
            return REFUSE(c, "piece %zu has a field of the wrong type", id);
    }
    if (text.n < 1 || text.n > MOEC_SPIECE_PIECE)
        return REFUSE(c, "piece %zu has %zu bytes; 1 to %d are possible", id, text.n, MOEC_SPIECE_PIECE);
    for (size_t i = 0, n; i < text.n; i += n)
        if (!(n = moec_utf8_length(text.p + i, text.n - i)))
            return REFUSE(c, "piece %zu is not UTF-8", id);
    if (type < TYPE_NORMAL || type > TYPE_LAST)
        return REFUSE(c, "piece %zu has the unknown type %llu", id, (unsigned long long)type);
    c->unknowns += type == TYPE_UNKNOWN;
    char shown[MOEC_SHOW];
    return set_insert(c, text)
               ? 0
               : REFUSE(c, "piece %zu, '%s', occurs twice", id, moec_show(shown, text.p, text.n));
}

static int check_normalizer(Checker *c, Span s, const char *what) {
    Field f;
    while (s.n > 0) {
        if (!next_field(&s, &f))
            return REFUSE(c, "its %s is malformed", what);
        const char *wrong;
        if (f.number == NORMALIZER_MAP &&
            (wrong = f.wire == BYTES ? check_map(f.bytes) : "it is no byte string"))
            return REFUSE(c, "the character map of its %s cannot be used: %s", what, wrong);
    }
    return 0;
}

static int check_trainer(Checker *c, Span s) {
    Field f;
    while (s.n > 0) {
        if (!next_field(&s, &f))
            return REFUSE(c, "its trainer_spec is malformed");
        if (f.number == TRAINER_MODEL_TYPE && (f.wire != VARINT || f.value < 1 || f.value > 2))
            return REFUSE(c, "its model type %llu is not supported (1, unigram, and 2, BPE, are)",
                          (unsigned long long)f.value);
    }
    return 0;
}

static int check_model(Checker *c, Span s) {
    unsigned once = 0;
    Field f;
    while (s.n > 0) {
        if (!next_field(&s, &f))
            return REFUSE(c, "is not a SentencePiece model (malformed at byte %llu from its end)",
                          (unsigned long long)s.n);
        if (f.number > MODEL_DENORMALIZER)
            continue;
        if (f.wire != BYTES || (f.number != MODEL_PIECE && once >> f.number & 1))
            return REFUSE(c, "is not a SentencePiece model (field %llu)", (unsigned long long)f.number);
        once |= 1u << f.number;
        int bad = f.number == MODEL_PIECE          ? check_piece(c, f.bytes)
                  : f.number == MODEL_TRAINER      ? check_trainer(c, f.bytes)
                  : f.number == MODEL_NORMALIZER   ? check_normalizer(c, f.bytes, "normalizer_spec")
                  : f.number == MODEL_DENORMALIZER ? check_normalizer(c, f.bytes, "denormalizer_spec")
                                                   : 0;
        if (bad)
            return -1;
    }
    if (c->pieces == 0)
        return REFUSE(c, "is not a SentencePiece model: it has no pieces");
    if (c->unknowns != 1)
        return REFUSE(c, "has %zu pieces of type UNKNOWN instead of one", c->unknowns);
    return 0;
}

int moec_spiece_check(const unsigned char *bytes, size_t size, const char *name, int64_t vocab_rows,
                      char *message, size_t room) {
    Checker c = {
        .name = name, .sink = {message, room}, .limit = vocab_rows < MOEC_SPIECE_PIECES ? vocab_rows : MOEC_SPIECE_PIECES};
    if (message && room)
        message[0] = 0;
    if (size > MOEC_SPIECE_LIMIT)
        return REFUSE(&c, "has %zu bytes, more than the %d allowed", size, MOEC_SPIECE_LIMIT);
    for (c.room = 64; (int64_t)c.room < 2 * c.limit;)
        c.room *= 2;
    c.piece = moec_mem_new(c.room, sizeof *c.piece);
    if (!c.piece)
        return REFUSE(&c, "out of memory");
    int bad = check_model(&c, (Span){bytes, size});
    moec_mem_free(c.piece);
    return bad;
}
