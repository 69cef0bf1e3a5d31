/* Metrics of evaluation: ranks, matches, medians and means, counters by task and prompt. */
#include "runtime/metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { EOS = 1 };

static void the_first_of_the_largest_wins(void **state) {
    (void)state;
    const double a[] = {-3, -1, -2, -1}, b[] = {NAN, -5, NAN, -4}, c[] = {-INFINITY, -INFINITY},
                 d[] = {NAN, NAN};
    assert_int_equal(moec_rank(a, 4), 1);
    assert_int_equal(moec_rank(b, 4), 3);
    assert_int_equal(moec_rank(c, 2), 0);
    assert_int_equal(moec_rank(d, 2), -1);
    assert_int_equal(moec_rank(a, 1), 0);
}

static void matches(void **state) {
    (void)state;
    static const int64_t whole[] = {7, 8, EOS}, open_[] = {7, 8}, ignoring[] = {7, MOEC_IGNORED, EOS},
                         end[] = {EOS};
    static const struct {
        int64_t token[4], n;
        int ended;
        const int64_t *reference;
        int64_t length;
        int exact;
        int64_t hits, of;
    } cases[] = {
        {{7, 8}, 2, 1, whole, 3, 1, 3, 3},    {{7, 8}, 2, 0, whole, 3, 0, 2, 3},
        {{7, 8}, 2, 1, open_, 2, 1, 2, 2},    {{7, 9}, 2, 1, whole, 3, 0, 2, 3},
        {{7}, 1, 1, whole, 3, 0, 1, 3},       {{8, 7}, 2, 1, whole, 3, 0, 1, 3},
        {{7, 8, 9}, 3, 1, whole, 3, 0, 2, 3}, {{7, 8, 9}, 3, 1, open_, 2, 0, 2, 2},
        {{7, 5}, 2, 1, ignoring, 3, 1, 2, 2}, {{0}, 0, 1, end, 1, 1, 1, 1},
        {{0}, 0, 1, whole, 3, 0, 0, 3},       {{0}, 0, 0, end, 1, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moec_made m = {cases[i].token, cases[i].n, cases[i].ended};
        int64_t of;
        assert_int_equal(moec_exact(&m, cases[i].reference, cases[i].length, EOS), cases[i].exact);
        assert_int_equal(moec_token_hits(&m, cases[i].reference, cases[i].length, EOS, &of), cases[i].hits);
        assert_int_equal(of, cases[i].of);
    }
}

static int same(const char *a, const char *b) {
    return moec_same_text(a, strlen(a), b, strlen(b));
}

static void blanks_at_the_ends_do_not_count(void **state) {
    (void)state;
    assert_true(same("a b", " a b\n") && same("", " \t\r\n") && same("", ""));
    assert_false(same("a b", "a  b") || same("a", "A") || same("a", "") || same("ab", "a"));
}

static void medians_and_means(void **state) {
    (void)state;
    double one[] = {3}, two[] = {4, 1}, five[] = {5, -1, 3, 3, 0}, six[] = {6, 1, 5, 2, 4, 8};
    assert_true(moec_median(one, 0) == 0 && moec_mean(one, 0) == 0);
    assert_true(moec_median(one, 1) == 3 && moec_mean(one, 1) == 3);
    assert_true(moec_mean(two, 2) == 2.5 && moec_median(two, 2) == 2.5);
    assert_true(moec_mean(five, 5) == 2 && moec_median(five, 5) == 3);
    assert_true(moec_median(six, 6) == 4.5);
}

static void count(moec_tally *t, const char *task, const char *prompt, int right) {
    moec_group *g = moec_tally_at(t, task, strlen(task), prompt, strlen(prompt));
    assert_non_null(g);
    g->examples++;
    g->right += right;
    g->tokens += 2;
    g->loss += 0.5;
}

static void counts_by_task_and_prompt(void **state) {
    (void)state;
    moec_tally t = {0};
    double room[8];
    count(&t, "b", "x", 1);
    count(&t, "a", "x", 1);
    count(&t, "b", "y", 0);
    count(&t, "b", "x", 0);
    count(&t, "b", "", 1);
    count(&t, "a", "x", 1);
    count(&t, "", "", 0);
    assert_int_equal(t.task.count, 3);
    assert_int_equal(t.groups, 5);
    moec_summary b = moec_tally_task(&t, 0, room), a = moec_tally_task(&t, 1, room),
                 all = moec_tally_all(&t, room);
    assert_int_equal(b.members, 3);
    assert_int_equal(b.sum.examples, 4);
    assert_int_equal(b.sum.right, 2);
    assert_true(b.median == 0.5 && b.mean == 0.5 && a.median == 1 && a.members == 1);
    assert_int_equal(all.members, 3);
    assert_int_equal(all.sum.examples, 7);
    assert_int_equal(all.sum.tokens, 14);
    assert_true(all.sum.loss == 3.5 && all.median == 0.5 && all.mean == 0.5);
    size_t n;
    assert_string_equal(moec_names_get(&t.task, 0, &n), "b");
    assert_int_equal(n, 1);
    moec_tally_free(&t);
    assert_true(moec_tally_all(&t, room).median == 0);
}

/* Names are bytes with a length; there may be many, but not without end. */
static void names(void **state) {
    (void)state;
    moec_tally t = {0};
    char name[16];
    moec_group *first = moec_tally_at(&t, "a\0b", 3, "p", 1);
    assert_ptr_not_equal(moec_tally_at(&t, "a\0c", 3, "p", 1), first);
    assert_int_equal(t.groups, 2);
    for (int i = t.groups; i < MOEC_TALLY_GROUPS; i++) {
        snprintf(name, sizeof name, "%d", i);
        moec_group *g = moec_tally_at(&t, name, strlen(name), name, strlen(name));
        assert_non_null(g);
        g->right = i;
    }
    assert_null(moec_tally_at(&t, "more", 4, "", 0));
    assert_int_equal(moec_tally_at(&t, "777", 3, "777", 3)->right, 777);
    assert_int_equal(moec_tally_at(&t, "a\0b", 3, "p", 1)->right, 0);
    assert_int_equal(t.groups, MOEC_TALLY_GROUPS);
    moec_tally_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_of_the_largest_wins),   cmocka_unit_test(matches),
        cmocka_unit_test(blanks_at_the_ends_do_not_count), cmocka_unit_test(medians_and_means),
        cmocka_unit_test(counts_by_task_and_prompt),       cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
