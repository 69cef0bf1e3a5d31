/* Lines of a file, whatever it holds: numbers and blanks counted, bad lines refused alone, long ones in
 * bounded memory. */
#include "runtime/jsonl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_NAME "test_jsonl.jsonl"

static char message[256];
static const moec_sink sink = {message, sizeof message};

static void put(const void *p, size_t n) {
    FILE *f = fopen(FILE_NAME, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    message[0] = 0;
}

static moec_jsonl opened(const void *p, size_t n) {
    moec_jsonl r;
    put(p, n);
    assert_int_equal(moec_jsonl_open(&r, FILE_NAME, sink), MOEC_OK);
    return r;
}

static void expect(moec_jsonl *r, const char *want, int64_t line, int64_t blank) {
    unsigned char *text;
    size_t n;
    assert_int_equal(moec_jsonl_next(r, &text, &n, sink), MOEC_OK);
    assert_non_null(text);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(text, want, n);
    assert_int_equal(r->line, line);
    assert_int_equal(r->blank, blank);
}

static void expect_end(moec_jsonl *r) {
    unsigned char *text;
    size_t n;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(moec_jsonl_next(r, &text, &n, sink), MOEC_OK);
        assert_null(text);
    }
    moec_jsonl_close(r);
}

static void expect_bad(moec_jsonl *r, const char *where) {
    unsigned char *text;
    size_t n;
    message[0] = 0;
    assert_int_equal(moec_jsonl_next(r, &text, &n, sink), MOEC_E_FORMAT);
    assert_null(text);
    if (!strstr(message, where))
        fail_msg("'%s' lacks '%s'", message, where);
}

static void numbers_and_blanks(void **state) {
    (void)state;
    static const char text[] = "{}\n[1]\r\n \t\n\n  {}  \nlast\n\n\r\n";
    moec_jsonl r = opened(text, sizeof text - 1);
    expect(&r, "{}", 1, 0);
    expect(&r, "[1]\r", 2, 0);
    expect(&r, "  {}  ", 5, 3);
    expect(&r, "last", 6, 0);
    expect_end(&r);
    r = opened("a\nb", 3); /* no end of line at the end */
    expect(&r, "a", 1, 0);
    expect(&r, "b", 2, 0);
    expect_end(&r);
    r = opened("", 0);
    expect_end(&r);
    r = opened("\n\n\n", 3);
    expect_end(&r);
}

static void bad_lines_alone(void **state) {
    (void)state;
    static const char text[] = "\xEF\xBB\xBFone\ntwo\nth\0ree\nfour\n\0";
    moec_jsonl r = opened(text, sizeof text - 1);
    expect_bad(&r, FILE_NAME ":1: error: begins with a byte order mark");
    expect(&r, "two", 2, 0);
    expect_bad(&r, FILE_NAME ":3: error: the line holds a NUL byte");
    expect(&r, "four", 4, 0);
    expect_bad(&r, FILE_NAME ":5: error: the line holds a NUL byte");
    expect_end(&r);
}

/* Lines of every length around the window's size and the limit, so that ends fall everywhere. */
static void long_lines(void **state) {
    (void)state;
    enum { MOST = MOEC_JSONL_LINE };
    static const size_t length[] = {1, 65535, 262143, 262144, 262145, 700000, MOST - 1, MOST};
    size_t n = 0;
    char *p = malloc(3 * (size_t)MOST);
    assert_non_null(p);
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        memset(p + n, 'a' + (int)i, length[i]);
        n += length[i];
        p[n++] = '\n';
    }
    moec_jsonl r = opened(p, n);
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        unsigned char *text;
        size_t got;
        assert_int_equal(moec_jsonl_next(&r, &text, &got, sink), MOEC_OK);
        assert_int_equal(got, length[i]);
        assert_int_equal(text[0], 'a' + (int)i);
        assert_int_equal(text[got - 1], 'a' + (int)i);
    }
    expect_end(&r);
    memset(p, ' ', 2 * (size_t)MOST); /* too long, though it is blank; what follows is read */
    memcpy(p + 2 * (size_t)MOST, "\nnext\n", 6);
    r = opened(p, 2 * (size_t)MOST + 6);
    expect_bad(&r, ":1: error: the line has more than 16777216 bytes");
    expect(&r, "next", 2, 0);
    assert_true(r.room <= 2 * (size_t)MOST);
    expect_end(&r);
    r = opened(p, 2 * (size_t)MOST); /* and has no end */
    expect_bad(&r, ":1: error: the line has more than 16777216 bytes");
    expect_end(&r);
    free(p);
}

static void what_is_no_file(void **state) {
    (void)state;
    moec_jsonl r;
    message[0] = 0;
    assert_int_equal(moec_jsonl_open(&r, ".", sink), MOEC_E_OPEN);
    assert_string_equal(message, ".: error: is not a regular file");
    message[0] = 0;
    unlink(FILE_NAME);
    assert_int_equal(moec_jsonl_open(&r, FILE_NAME, sink), MOEC_E_OPEN);
    assert_int_equal(mkfifo(FILE_NAME, 0600), 0);
    assert_int_equal(moec_jsonl_open(&r, FILE_NAME, sink), MOEC_E_OPEN);
    unlink(FILE_NAME);
    put("", 0);
    assert_int_equal(truncate(FILE_NAME, (off_t)MOEC_JSONL_FILE + 1), 0);
    assert_int_equal(moec_jsonl_open(&r, FILE_NAME, sink), MOEC_E_FORMAT);
    assert_int_equal(truncate(FILE_NAME, (off_t)MOEC_JSONL_FILE), 0);
    assert_int_equal(moec_jsonl_open(&r, FILE_NAME, sink), MOEC_OK);
    expect_bad(&r, ":1: error: the line has more than");
    moec_jsonl_close(&r);
}

static int clean(void **state) {
    (void)state;
    unlink(FILE_NAME);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(numbers_and_blanks, clean),
                                       cmocka_unit_test_teardown(bad_lines_alone, clean),
                                       cmocka_unit_test_teardown(long_lines, clean),
                                       cmocka_unit_test_teardown(what_is_no_file, clean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
