/* Regular expressions of PEFT configs: what is understood means what Python's `re` makes of it. */
#include "frontends/regexp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static bool matches(const char *text, const char *s, bool tail) {
    Arena *a = arena_new();
    const char *why = NULL;
    int64_t steps = 100000000;
    Regexp *r = regexp_new(a, str_c(text), &why);
    if (r == NULL)
        fail_msg("'%s': %s", text, why);
    bool yes = regexp_match(r, str_c(s), tail, &steps);
    assert_true(steps >= 0);
    assert_int_equal(regexp_match(r, str_c(s), tail, &steps),
                     yes); /* nothing is left over from the first time */
    arena_free(a);
    return yes;
}

static void test_meaning(void **state) {
    (void)state;
    static const struct {
        const char *text, *s;
        bool whole, tail;
    } cases[] = {
        {"q", "q", true, true},
        {"q", "a.q", false, true},
        {"q", "aq", false, false},
        {"q", "q.a", false, false},
        {"", "", true, true},
        {"", "a", false, false},
        {"", "a.", false, true},
        {"a.c", "abc", true, true},
        {"a.c", "ac", false, false},
        {"a\\.c", "abc", false, false},
        {"a\\.c", "x.a.c", false, true},
        {"ab*c", "ac", true, true},
        {"ab*c", "abbbc", true, true},
        {"ab+c", "ac", false, false},
        {"ab+?c", "abbc", true, true},
        {"ab?c", "abbc", false, false},
        {"(ab)*", "ababab", true, true},
        {"(ab)*", "ababa", false, false},
        {"(?:ab|cd)+e", "abcdabe", true, true},
        {"a|bc|d", "bc", true, true},
        {"a|bc|d", "d", true, true},
        {"a|bc|d", "ad", false, false},
        {"x(a|b|)y", "xy", true, true},
        {"x(a|(b|c)*d)y", "xbcbdy", true, true},
        {"()*a", "a", true, true},
        {"(a*)*b", "aaaaab", true, true},
        {"(a*)*b", "aaaaac", false, false},
        {"[abc]+", "cab", true, true},
        {"[a-c1]+", "b1d", false, false},
        {"[^a-c]+", "xyz", true, true},
        {"[^a-c]+", "xbz", false, false},
        {"[]a]", "]", true, true},
        {"[\\d.]+", "1.2", true, true},
        {"[a-]", "-", true, true},
        {"\\w+", "a_9Z", true, true},
        {"\\d", "a", false, false},
        {"^q$", "q", true, true},
        {"^q", "a.q", false, false},
        {"^a|b", "x.b", false, true},
        {"decoder\\..*\\.EncDecAttention\\.v", "decoder.block.1.layer.1.EncDecAttention.v", true, true},
        {"decoder\\..*\\.EncDecAttention\\.v", "encoder.block.1.layer.0.SelfAttention.v", false, false},
        {".*(SelfAttention|EncDecAttention)\\.(q|v)$", "encoder.block.0.layer.0.SelfAttention.q", true, true},
        {".*block\\.[0-3]\\..*", "encoder.block.4.layer.0.SelfAttention.q", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (matches(cases[i].text, cases[i].s, false) != cases[i].whole)
            fail_msg("'%s' on '%s'", cases[i].text, cases[i].s);
        if (matches(cases[i].text, cases[i].s, true) != cases[i].tail)
            fail_msg("'%s' on a tail of '%s'", cases[i].text, cases[i].s);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const char *const cases[] = {"(",    ")",   "(a",  "a)",      "*a",       "a**",        "a|*",
                                        "a{2}", "[a",  "[",   "[z-a]",   "(?=a)",    "(?!a)b",     "(?P<x>a)",
                                        "\\",   "\\b", "\\1", "[\\x41]", "\xc3\xa9", "[\xc3\xa9]", "^*"};
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *why = NULL;
        if (regexp_new(a, str_c(cases[i]), &why) != NULL || why == NULL)
            fail_msg("'%s' is taken", cases[i]);
    }
    char deep[200], longer[LIMIT_REGEXP + 1];
    const char *why = NULL;
    memset(deep, '(', 100);
    memset(deep + 100, ')', 100);
    assert_null(regexp_new(a, (Str){deep, sizeof deep}, &why));
    memset(longer, 'a', sizeof longer);
    assert_null(regexp_new(a, (Str){longer, sizeof longer}, &why));
    assert_non_null(regexp_new(a, (Str){longer, sizeof longer - 1}, &why));
    arena_free(a);
}

/* What takes a backtracking matcher 2^40 steps takes few, and a budget that is spent ends the search. */
static void test_steps(void **state) {
    (void)state;
    Arena *a = arena_new();
    const char *why = NULL;
    Str s = str_c("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
    Regexp *r = regexp_new(a, str_c("((((a*)*)*)*)*(a|a)*(a?a?a?a?a?a?)*c"), &why);
    assert_non_null(r);
    int64_t steps = 10000;
    assert_false(regexp_match(r, s, true, &steps));
    assert_true(steps > 0);
    r = regexp_new(a, str_c("a*b"), &why);
    assert_true(regexp_match(r, s, false, &steps));
    steps = 20;
    assert_false(regexp_match(r, s, false, &steps));
    assert_true(steps < 0);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_meaning), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
