/* The tokenizer: ids and text as Hugging Face's T5 tokenizer gives them, and what is refused as a vocabulary.
 */
#include "runtime/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIXTURES MOEC_SOURCE_DIR "/tests/fixtures/tokenizer/"

enum { ROWS = 256 };

static const moec_text_api *const api = &moec_text_sentencepiece;
static const moec_sink silent = {NULL, 0};

static unsigned char *load(const char *path, size_t *n) {
    unsigned char *p;
    return moec_file_load(path, MOEC_SPIECE_LIMIT, &p, n, silent) ? NULL : p;
}

static moec_text *open_small(void) {
    size_t n;
    char message[256];
    unsigned char *p = load(FIXTURES "spiece.model", &n);
    assert_non_null(p);
    moec_text *t = api->open(p, n, "spiece.model", ROWS, message, sizeof message);
    if (!t)
        fail_msg("%s", message);
    moec_mem_free(p);
    return t;
}

static void encodes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n;
        int64_t ids[12];
    } cases[] = {
        {"", 1, {1}},
        {" ", 2, {3, 1}},
        {"a", 2, {4, 1}},
        {"a b zq abc", 8, {4, 6, 54, 37, 4, 7, 9, 1}},
        {"a ", 3, {4, 3, 1}},
        {" a", 2, {4, 1}},
        {"a <extra_id_0> b", 5, {4, 3, 175, 6, 1}},
        {"<extra_id_99><extra_id_10>", 3, {76, 165, 1}},
        {"</s>a<pad>", 4, {1, 4, 0, 1}},
        {"A", 3, {3, 2, 1}},
    };
    moec_text *t = open_small();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t ids[12];
        assert_int_equal(api->encode(t, cases[i].text, strlen(cases[i].text), NULL, 0), cases[i].n);
        assert_int_equal(api->encode(t, cases[i].text, strlen(cases[i].text), ids, 12), cases[i].n);
        assert_memory_equal(ids, cases[i].ids, (size_t)cases[i].n * sizeof *ids);
    }
    int64_t ids[64];
    /* No sentinels: three digits, a leading zero, no bracket. */
    assert_true(api->encode(t, "<extra_id_100>", 14, ids, 64) > 2);
    assert_true(api->encode(t, "<extra_id_01>", 13, ids, 64) > 2);
    assert_true(api->encode(t, "<extra_id_1", 11, ids, 64) > 2);
    assert_int_equal(api->encode(t, "\xff", 1, ids, 64), -1);
    assert_true(api->encode(t, "a\0b", 3, ids, 64) > 1);
    api->close(t);
}

static void decodes(void **state) {
    (void)state;
    moec_text *t = open_small();
    const int64_t ids[] = {0, 4, 6, 175, 54, 37, 2, 1, 255, 5000, -7};
    char out[16];
    assert_int_equal(api->decode(t, ids, 11, NULL, 0), 6);
    assert_int_equal(api->decode(t, ids, 11, out, sizeof out), 6);
    assert_memory_equal(out, "a b zq", 6);
    assert_int_equal(api->decode(t, ids, 0, out, sizeof out), 0);
    api->close(t);
}

/* ---- refusals: a model written field by field ---- */

typedef struct Proto {
    unsigned char p[8192];
    size_t n;
} Proto;

static void put(Proto *m, const void *p, size_t n) {
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void put_varint(Proto *m, uint64_t v) {
    for (; v > 127; v >>= 7)
        m->p[m->n++] = (unsigned char)(v | 128);
    m->p[m->n++] = (unsigned char)v;
}

static void put_bytes(Proto *m, int field, const void *p, size_t n) {
    put_varint(m, (uint64_t)field << 3 | 2);
    put_varint(m, n);
    put(m, p, n);
}

static void put_piece(Proto *m, const char *text, size_t n, float score, int type) {
    Proto piece = {.n = 0};
    put_bytes(&piece, 1, text, n);
    put_varint(&piece, 2 << 3 | 5);
    put(&piece, &score, 4);
    put_varint(&piece, 3 << 3);
    put_varint(&piece, (uint64_t)type);
    put_bytes(m, 1, piece.p, piece.n);
}

static void put_map(Proto *m, const void *map, size_t n) {
    Proto normalizer = {.n = 0};
    put_bytes(&normalizer, 2, map, n);
    put_bytes(m, 3, normalizer.p, normalizer.n);
}

static Proto base(void) {
    Proto m = {.n = 0};
    put_piece(&m, "<unk>", 5, 0, 2);
    put_piece(&m, "a", 1, -1, 1);
    return m;
}

static void refuse(const Proto *m, const char *word) {
    char message[256];
    assert_int_equal(moec_spiece_check(m->p, m->n, "v/spiece.model", 4, message, sizeof message), -1);
    if (!strstr(message, word) || !strstr(message, "v/spiece.model: error: "))
        fail_msg("'%s' lacks '%s'", message, word);
}

static void put_unit(unsigned char *trie, int i, uint32_t v) {
    for (int b = 0; b < 4; b++)
        trie[4 * i + b] = (unsigned char)(v >> 8 * b);
}

static void refuses(void **state) {
    (void)state;
    char message[256], big[1100];
    memset(big, 'x', sizeof big);
    Proto m = base();
    assert_int_equal(moec_spiece_check(m.p, m.n, "x", 4, message, sizeof message), 0);
    assert_int_equal(moec_spiece_check(m.p, m.n, "x", 1, message, sizeof message), -1);
    for (size_t n = 0; n < m.n;
         n++) { /* cut anywhere but between the two pieces: no model, or no unknown piece */
        Proto cut = m;
        cut.n = n;
        int bad = moec_spiece_check(cut.p, cut.n, "x", 4, message, sizeof message);
        assert_int_equal(bad, n == (size_t)m.p[1] + 2 ? 0 : -1);
    }
    m = base(), put_piece(&m, "a", 1, 0, 1), refuse(&m, "twice");
    m = base(), put_piece(&m, "", 0, 0, 1), refuse(&m, "0 bytes");
    m = base(), put_piece(&m, big, MOEC_SPIECE_PIECE + 1, 0, 1), refuse(&m, "1025 bytes; 1 to 1024");
    m = base(), put_piece(&m, big, MOEC_SPIECE_PIECE, 0, 1);
    assert_int_equal(moec_spiece_check(m.p, m.n, "x", 4, message, sizeof message), 0);
    m = base(), put_piece(&m, "\xc0\x80", 2, 0, 1), refuse(&m, "UTF-8");
    m = base(), put_piece(&m, "b", 1, (float)strtod("nan", NULL), 1), refuse(&m, "finite");
    m = base(), put_piece(&m, "b", 1, 0, 9), refuse(&m, "type 9");
    m = base(), put_piece(&m, "b", 1, 0, 2), refuse(&m, "2 pieces of type UNKNOWN");
    m = base(), put_map(&m, "abc", 3), refuse(&m, "too short");
    m = base(), put_bytes(&m, 2, "", 0), put_bytes(&m, 2, "", 0), refuse(&m, "field 2");
    m = base(), put_bytes(&m, 2, "\x18\x63", 2), refuse(&m, "type 99");
    /* A trie of one block: a root, a leaf value, and the letter `a` with that value. */
    enum { UNITS = 512, MAP = 4 + 4 * UNITS + 2 };
    static unsigned char map[MAP];
    map[1] = 4 * UNITS >> 8;
    map[MAP - 2] = 'b';
    for (int i = 1; i < UNITS; i++)
        put_unit(map + 4, i, 1u << 31);
    put_unit(map + 4, 0, 256u << 10);
    put_unit(map + 4, 256 ^ 'a', 'a' | 1u << 8 | (uint32_t)('a' ^ 1) << 10);
    m = base(), put_map(&m, map, MAP);
    assert_int_equal(moec_spiece_check(m.p, m.n, "x", 4, message, sizeof message), 0);
    put_unit(map + 4, 256 ^ 1, 1u << 31 | 2);
    m = base(), put_map(&m, map, MAP), refuse(&m, "outside the replacement text");
    put_unit(map + 4, 256 ^ 'a', 'a' | 4096u << 10);
    m = base(), put_map(&m, map, MAP), refuse(&m, "outside itself");
    map[MAP - 1] = 'c';
    m = base(), put_map(&m, map, MAP), refuse(&m, "no end");
    map[0] = 2;
    m = base(), put_map(&m, map, MAP), refuse(&m, "size of its trie");
}

/* n pieces of all, in a vocabulary of as many rows as one likes. */
static int check_pieces(uint32_t n, char *message, size_t room) {
    size_t at = 0, most = (size_t)n * 16;
    unsigned char *all = test_malloc(most);
    for (uint32_t i = 0; i < n; i++) {
        Proto m = {.n = 0};
        char text[8];
        put_piece(&m, text, (size_t)snprintf(text, sizeof text, "%x", i), 0, i ? 1 : 2);
        assert_true(at + m.n <= most || !"more than 16 bytes a piece");
        memcpy(all + at, m.p, m.n);
        at += m.n;
    }
    int bad = moec_spiece_check(all, at, "v/spiece.model", INT64_MAX, message, room);
    test_free(all);
    return bad;
}

static void has_limits(void **state) {
    (void)state;
    char message[256];
    static const unsigned char none[1];
    assert_int_equal(check_pieces(MOEC_SPIECE_PIECES, message, sizeof message), 0);
    assert_int_equal(check_pieces(MOEC_SPIECE_PIECES + 1, message, sizeof message), -1);
    if (!strstr(message, "more pieces than the 1000000"))
        fail_msg("'%s'", message);
    /* told by the size alone, before a byte is read */
    assert_int_equal(moec_spiece_check(none, MOEC_SPIECE_LIMIT + 1, "x", 4, message, sizeof message), -1);
    if (!strstr(message, "has 67108865 bytes, more than the 67108864 allowed"))
        fail_msg("'%s'", message);
}

/* ---- T5's own vocabulary ---- */

typedef struct Golden {
    char text[8192], decoded[8192];
    size_t text_n, decoded_n;
    int64_t ids[2048];
    int n;
} Golden;

static void read_golden(unsigned char *line, size_t n, Golden *g) {
    moec_json j;
    moec_json_open(&j, line, n);
    assert_int_equal(moec_json_next(&j), MOEC_JSON_OBJECT);
    while (moec_json_next(&j) == MOEC_JSON_KEY) {
        int is_text = j.length == 4 && !memcmp(j.string, "text", 4);
        int is_ids = j.length == 6 && !memcmp(j.string, "hf_ids", 6);
        int is_decoded = j.length == 22 && !memcmp(j.string, "hf_decode_skip_special", 22);
        moec_json_event e = moec_json_next(&j);
        if (is_ids) {
            for (g->n = 0; moec_json_next(&j) == MOEC_JSON_INTEGER; g->n++)
                g->ids[g->n] = j.integer;
        } else if (is_text || is_decoded) {
            assert_true(j.length < sizeof g->text);
            memcpy(is_text ? g->text : g->decoded, j.string, j.length);
            *(is_text ? &g->text_n : &g->decoded_n) = j.length;
        } else {
            assert_true(moec_json_skip(&j, e));
        }
    }
    assert_int_equal(moec_json_next(&j), MOEC_JSON_END);
    moec_json_close(&j);
}

static void agrees_with_t5(void **state) {
    (void)state;
    const char *shared = getenv("MOEC_SHARED");
    char path[1024], message[256];
    snprintf(path, sizeof path, "%s/vocab/spiece.model", shared ? shared : MOEC_SOURCE_DIR "/../shared/data");
    size_t n, lines_n;
    unsigned char *p = load(path, &n), *lines = load(FIXTURES "tokenizer_golden.jsonl", &lines_n),
                  *at = lines;
    if (!p) {
        moec_mem_free(lines);
        skip();
    }
    moec_text *t = api->open(p, n, path, 32128, message, sizeof message);
    if (!t)
        fail_msg("%s", message);
    static Golden g;
    int count = 0;
    for (unsigned char *end; (end = memchr(at, '\n', (size_t)(lines + lines_n - at)));
         at = end + 1, count++) {
        read_golden(at, (size_t)(end - at), &g);
        static int64_t ids[2048];
        static char text[8192];
        assert_int_equal(api->encode(t, g.text, g.text_n, ids, 2048), g.n);
        assert_memory_equal(ids, g.ids, (size_t)g.n * sizeof *ids);
        assert_int_equal(api->decode(t, ids, g.n, text, sizeof text), g.decoded_n);
        assert_memory_equal(text, g.decoded, g.decoded_n);
    }
    assert_int_equal(count, 40);
    api->close(t);
    moec_mem_free(p);
    moec_mem_free(lines);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes),
        cmocka_unit_test(decodes),
        cmocka_unit_test(refuses),
        cmocka_unit_test(has_limits),
        cmocka_unit_test(agrees_with_t5),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
