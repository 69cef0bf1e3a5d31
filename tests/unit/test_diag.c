/* Diagnostics: the table of codes, and both forms of the lines that are printed. */
#include "compiler/base.h"
#include "frontends/foreign.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const struct {
    int number;
    const char *name, *summary, *means, *remedy, *wrong, *right;
} rows[] = {
#define DIAG(number, name, summary, means, remedy, wrong, right)                                             \
    {number, #name, summary, means, remedy, wrong, right},
#include "compiler/diag.def"
};
enum { N_ROWS = sizeof rows / sizeof *rows };

static const int groups[] = {
#define DIAG_GROUP(first, title) first,
#include "compiler/diag.def"
};
enum { N_GROUPS = sizeof groups / sizeof *groups };

/* ---- the table ---- */

static bool is_sentences(const char *s, size_t least) {
    size_t n = strlen(s);
    return n >= least && s[0] != ' ' && (s[n - 1] == '.' || s[n - 1] == ')') && !strstr(s, "  ") &&
           !strchr(s, '\n');
}

static void test_rows(void **state) {
    (void)state;
    for (size_t i = 0; i < N_ROWS; i++) {
        if (i > 0 && rows[i].number <= rows[i - 1].number)
            fail_msg("%s: numbers do not ascend", rows[i].name);
        bool grouped = false;
        for (size_t g = 0; g < N_GROUPS; g++)
            grouped |= groups[g] == rows[i].number / 100 * 100;
        if (!grouped || rows[i].number % 100 == 0 || rows[i].number > 9999)
            fail_msg("%s: number %d is in no group", rows[i].name, rows[i].number);
        size_t n = strlen(rows[i].summary);
        if (n < 8 || n > 70 || rows[i].summary[n - 1] == '.' || strchr(rows[i].summary, '\n'))
            fail_msg("%s: its line is '%s'", rows[i].name, rows[i].summary);
        if (!is_sentences(rows[i].means, 80))
            fail_msg("%s: what it means is no text: %s", rows[i].name, rows[i].means);
        if (!is_sentences(rows[i].remedy, 25))
            fail_msg("%s: what to do is no text: %s", rows[i].name, rows[i].remedy);
        if (!*rows[i].wrong || !*rows[i].right || !strcmp(rows[i].wrong, rows[i].right))
            fail_msg("%s: its examples do not differ", rows[i].name);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(rows[i].means, rows[k].means) || !strcmp(rows[i].summary, rows[k].summary))
                fail_msg("%s and %s have one text", rows[i].name, rows[k].name);
    }
}

/* ---- lines ---- */

static char out[65536];

/* What flushing d prints, in `out`; frees d. */
static void printed(Diag *d, DiagFormat format) {
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(stderr);
    int saved = dup(2);
    dup2(fileno(f), 2);
    diag_set_format(format);
    diag_flush(d);
    diag_set_format(DIAG_FORMAT_TEXT);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    out[fread(out, 1, sizeof out - 1, f)] = 0;
    fclose(f);
    diag_free(d);
}

static void test_text(void **state) {
    (void)state;
    Diag *d = diag_new();
    diag_push(d, "node '%s'", "a\nb");
    assert_false(diag_error_at(d, DIAG_ONNX_OPERATOR, (DiagPlace){"x.ir", 3, 7}, "operator %s", "Loop"));
    diag_pop(d);
    diag_warn(d, DIAG_TOKENS_ASSUMED, NULL, "assumed");
    diag_error_at(d, DIAG_JSON_KEY, (DiagPlace){.file = "y", .line = 9}, "key");
    diag_default_file(d, "z");
    diag_error(d, DIAG_FILE_READ, NULL, "here");
    assert_int_equal(diag_errors(d), 3);
    printed(d, DIAG_FORMAT_TEXT);
    assert_string_equal(out, "x.ir:3:7: error: node 'a\\012b': operator Loop [M0204]\n"
                             "moec: warning: assumed [M0308]\n"
                             "y:9: error: key [M0302]\n"
                             "z: error: here [M0101]\n");
}

/* However long its parts are, a line has at most 1000 bytes and ends in its code. */
static void test_long_lines(void **state) {
    (void)state;
    char text[3000];
    for (size_t n = 900; n < 1100; n++) {
        memset(text, n % 2 ? 'x' : '\1', n);
        text[n] = 0;
        for (int where = 0; where < 3; where++) {
            Diag *d = diag_new();
            if (where == 1)
                diag_push(d, "%s", text);
            diag_error(d, DIAG_ONNX_NAME, where == 2 ? text : "f", "%s", where == 0 ? text : "m");
            printed(d, DIAG_FORMAT_TEXT);
            size_t length = strlen(out);
            assert_true(length <= 1000);
            assert_string_equal(out + length - 9, " [M0209]\n");
            assert_ptr_equal(strchr(out, '\n'), out + length - 1);
        }
    }
}

static void test_many(void **state) {
    (void)state;
    for (int format = DIAG_FORMAT_TEXT; format <= DIAG_FORMAT_JSON; format++) {
        Diag *d = diag_new();
        for (int i = 0; i < 20; i++)
            diag_error(d, DIAG_IR_SYNTAX, "f", "error %d", i);
        printed(d, (DiagFormat)format);
        int lines = 0;
        for (const char *s = out; *s; s++)
            lines += *s == '\n';
        assert_int_equal(lines, 8);
        assert_non_null(strstr(out, "error 6"));
        assert_null(strstr(out, "error 7"));
        assert_non_null(strstr(out, format == DIAG_FORMAT_TEXT
                                        ? "moec: error: and 13 more errors [M0001]\n"
                                        : "\"M0001\",\"file\":null,\"message\":\"and 13 more errors\"}\n"));
    }
}

static json_t *parsed(void) {
    json_error_t e = {0};
    json_set_alloc_funcs(mem_alloc, mem_free);
    foreign_begin();
    json_t *o = json_loads(out, JSON_REJECT_DUPLICATES, &e);
    foreign_end();
    if (!o)
        fail_msg("not JSON: %s: %s", e.text, out);
    for (const char *s = out; *s; s++)
        assert_true((*s >= 32 && *s < 127) || (*s == '\n' && !s[1]));
    return o;
}

static void test_json(void **state) {
    (void)state;
    Diag *d = diag_new();
    diag_push(d, "function '%s'", "f\"\\");
    diag_push(d, "node '%s'", "n");
    diag_error_at(d, DIAG_ONNX_OPERATOR, (DiagPlace){"dir/\xc3\xa9\xf0\x9f\x98\x80\n\"\\.ir", 3, 7},
                  "a \"%s\"", "Loop");
    printed(d, DIAG_FORMAT_JSON);
    json_t *o = parsed();
    assert_string_equal(json_string_value(json_object_get(o, "severity")), "error");
    assert_string_equal(json_string_value(json_object_get(o, "code")), "M0204");
    assert_string_equal(json_string_value(json_object_get(o, "file")),
                        "dir/\xc3\xa9\xf0\x9f\x98\x80\n\"\\.ir");
    assert_int_equal(json_integer_value(json_object_get(o, "line")), 3);
    assert_int_equal(json_integer_value(json_object_get(o, "column")), 7);
    assert_int_equal(json_array_size(json_object_get(o, "context")), 2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(o, "context"), 0)),
                        "function 'f\"\\'");
    assert_string_equal(json_string_value(json_object_get(o, "message")), "a \"Loop\"");
    json_decref(o);

    d = diag_new();
    diag_warn(d, DIAG_RUN_NO_DATA, NULL, "w");
    printed(d, DIAG_FORMAT_JSON);
    o = parsed();
    assert_string_equal(json_string_value(json_object_get(o, "severity")), "warning");
    assert_true(json_is_null(json_object_get(o, "file")));
    assert_int_equal(json_object_size(o), 4); /* neither line nor column nor context */
    json_decref(o);
}

/* Any bytes make valid JSON; what is no UTF-8 becomes U+FFFD. */
static void test_json_bytes(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"\x80", "\xef\xbf\xbd"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xc3x", "\xef\xbf\xbdx"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"\x7f\x1b\t", "\x7f\x1b\t"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Diag *d = diag_new();
        diag_error(d, DIAG_FILE_READ, cases[i].bytes, "m");
        printed(d, DIAG_FORMAT_JSON);
        json_t *o = parsed();
        assert_string_equal(json_string_value(json_object_get(o, "file")), cases[i].want);
        json_decref(o);
    }
    unsigned seed = 1;
    for (int i = 0; i < 2000; i++) {
        char bytes[17] = "";
        for (int k = 0; k < 16; k++)
            bytes[k] = (char)(1 + ((seed = seed * 1103515245u + 12345u) >> 16) % 255);
        Diag *d = diag_new();
        diag_push(d, "%s", bytes);
        diag_error(d, DIAG_FILE_READ, bytes, "%s", bytes);
        printed(d, DIAG_FORMAT_JSON);
        json_decref(parsed());
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows), cmocka_unit_test(test_text), cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_many), cmocka_unit_test(test_json), cmocka_unit_test(test_json_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
