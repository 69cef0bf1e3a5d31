/* lcs.h against the plain table of lengths; diff.h on small modules: what is a difference and what is not, and how much of
 * a function shows. */
#include "compiler/diff.h"
#include "compiler/lcs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- sequences -------------------------------------------------------------------------------------- */

enum { MOST = 60 };

static uint32_t lcs_length(const uint32_t *a, uint32_t n, const uint32_t *b, uint32_t m)
{
    uint32_t best[MOST + 1][MOST + 1] = {{0}};
    for (uint32_t i = 1; i <= n; i++)
        for (uint32_t j = 1; j <= m; j++) {
            uint32_t up = best[i - 1][j], left = best[i][j - 1];
            best[i][j] = a[i - 1] == b[j - 1] ? best[i - 1][j - 1] + 1 : up > left ? up : left;
        }
    return best[n][m];
}

static void sequences_match_as_long_as_they_can(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (int round = 0; round < 4000; round++) {
        uint32_t a[MOST], b[MOST], match[MOST], size[2], pairs = 0, last = 0;
        uint32_t letters = 2 + (uint32_t)round % 5;
        for (int k = 0; k < 2; k++)
            size[k] = (uint32_t)((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 33) % MOST;
        for (uint32_t i = 0; i < MOST; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            a[i] = (uint32_t)(seed >> 33) % letters;
            b[i] = (uint32_t)(seed >> 45) % letters;
        }
        lcs_match(a, size[0], b, size[1], match);
        for (uint32_t i = 0; i < size[0]; i++) {
            if (match[i] == UINT32_MAX)
                continue;
            assert_true(match[i] < size[1]);
            assert_int_equal(a[i], b[match[i]]);
            assert_true(!pairs || match[i] > last);
            last = match[i];
            pairs++;
        }
        assert_int_equal(pairs, lcs_length(a, size[0], b, size[1]));
    }
}

static void sequences_with_nothing_in_common_end(void **state)
{
    enum { LONG = 40000 };
    uint32_t *a = malloc(LONG * sizeof *a), *b = malloc(LONG * sizeof *b), *match = malloc(LONG * sizeof *match);
    (void)state;
    for (uint32_t i = 0; i < LONG; i++) {
        a[i] = i;
        b[i] = i < 10 ? i : LONG + i;
    }
    lcs_match(a, LONG, b, LONG, match);
    for (uint32_t i = 0; i < LONG; i++)
        assert_int_equal(match[i], i < 10 ? i : UINT32_MAX);
    free(a);
    free(b);
    free(match);
}

/* ---- modules ------------------------------------------------------------------------------------------ */

static Module *parsed(const char *text)
{
    Diag *d = diag_new();
    Module *m = module_parse(d, "test", text, strlen(text));
    if (!m || !module_verify(m, d, false))
        diag_flush(d);
    assert_non_null(m);
    assert_int_equal(diag_errors(d), 0);
    diag_free(d);
    return m;
}

/* The listing of two texts; "" when they are equal. To be freed. */
static char *listing(const char *a, const char *b, DiffOptions o)
{
    Module *m = parsed(a), *n = parsed(b);
    Text t = {0};
    bool same = module_diff(m, n, &o, &t);
    assert_true(same == (t.n == 0));
    char *copy = strdup(t.n ? t.p : "");
    text_free(&t);
    module_free(m);
    module_free(n);
    return copy;
}

static void expect(const char *a, const char *b, const char *want)
{
    char *got = listing(a, b, (DiffOptions){0});
    assert_string_equal(got, want);
    free(got);
}

static const char base[] = "sym B = 1..8\n"
                           "param @w : f32[4,4] frozen\n"
                           "func @k kernel (%x : f32[B,4], %w : f32[4,4]) {\n"
                           "  %0 = matmul %x, %w : f32[B,4]\n"
                           "  %1 = relu %0 : f32[B,4]\n"
                           "  return %1 \"\"\n}\n"
                           "func @main entry (%x : f32[B,4]) {\n"
                           "  %0 = call %x, @w {func = @k} : f32[B,4]  !\"a\"\n"
                           "  %1 = neg %0 : f32[B,4]\n"
                           "  %2 = add %1, %0 : f32[B,4]\n"
                           "  %3 = abs %2 : f32[B,4]\n"
                           "  return %3 \"y\"\n}\n";

/* `base` with one text replaced by another. To be freed. */
static char *altered(const char *from, const char *to)
{
    const char *at = strstr(base, from);
    char *text = malloc(sizeof base + strlen(to));
    assert_non_null(at);
    memcpy(text, base, (size_t)(at - base));
    strcpy(text + (at - base), to);
    strcat(text, at + strlen(from));
    return text;
}

static void names_numbers_and_order_of_functions_are_no_difference(void **state)
{
    (void)state;
    expect(base, base, "");
    expect(base,
           "sym B = 1..8\n"
           "param @w : f32[4,4] frozen from \"elsewhere\"\n"
           "func @main entry (%x : f32[B,4]) {\n"
           "  %called = call %x, @w {func = @k_12} : f32[B,4]\n"
           "  %9 = neg %called : f32[B,4]  !\"b\"\n"
           "  %sum = add %9, %called : f32[B,4]\n"
           "  %0 = abs %sum : f32[B,4]\n"
           "  return %0 \"y\"\n}\n"
           "func @k_12 kernel (%in : f32[B,4], %weight : f32[4,4]) {\n"
           "  %p = matmul %in, %weight : f32[B,4]\n"
           "  %q = relu %p : f32[B,4]\n"
           "  return %q \"\"\n}\n",
           "");
}

static void what_is_changed_shows_and_nothing_that_depends_on_it(void **state)
{
    (void)state;
    char *other = altered("neg %0", "exp %0");
    expect(base, other,
           "@@ -1,6 +1,6 @@ func @main\n"
           " func @main entry (%x : f32[B,4]) {\n"
           "   %0 = call %x, @w {func = @k} : f32[B,4]  !\"a\"\n"
           "-  %1 = neg %0 : f32[B,4]\n"
           "+  %1 = exp %0 : f32[B,4]\n"
           "   %2 = add %1, %0 : f32[B,4]\n"
           "   %3 = abs %2 : f32[B,4]\n"
           "   return %3 \"y\"\n");
    free(other);
    other = altered("relu", "sigmoid"); /* in what is called: there alone */
    expect(base, other,
           "@@ -1,4 +1,4 @@ func @k\n"
           " func @k kernel (%x : f32[B,4], %w : f32[4,4]) {\n"
           "   %0 = matmul %x, %w : f32[B,4]\n"
           "-  %1 = relu %0 : f32[B,4]\n"
           "+  %1 = sigmoid %0 : f32[B,4]\n"
           "   return %1 \"\"\n");
    free(other);
}

static void another_operand_is_a_difference(void **state)
{
    (void)state;
    char *other = altered("add %1, %0", "add %0, %1");
    expect(base, other,
           "@@ -1,6 +1,6 @@ func @main\n"
           " func @main entry (%x : f32[B,4]) {\n"
           "   %0 = call %x, @w {func = @k} : f32[B,4]  !\"a\"\n"
           "   %1 = neg %0 : f32[B,4]\n"
           "-  %2 = add %1, %0 : f32[B,4]\n"
           "+  %2 = add %0, %1 : f32[B,4]\n"
           "   %3 = abs %2 : f32[B,4]\n"
           "   return %3 \"y\"\n");
    free(other);
    other = altered("return %3", "return %2");
    char *got = listing(base, other, (DiffOptions){0});
    assert_non_null(strstr(got, "\n-  return %3 \"y\"\n+  return %2 \"y\"\n"));
    free(got);
    free(other);
}

static void what_is_put_in_has_a_name_of_its_own(void **state)
{
    (void)state;
    char *other = altered("  %1 = neg %0 : f32[B,4]\n", "  %3 = sqrt %0 : f32[B,4]\n  %1 = neg %0 : f32[B,4]\n");
    char *more = malloc(strlen(other) + 1);
    strcpy(more, other);
    /* the last node is %4 there, %3 in base */
    char *at = strstr(more, "%3 = abs");
    memcpy(at, "%4", 2);
    memcpy(strstr(more, "return %3"), "return %4", 9);
    memcpy(strstr(more, "add %1, %0"), "add %1, %3", 10);
    expect(base, more,
           "@@ -1,6 +1,7 @@ func @main\n"
           " func @main entry (%x : f32[B,4]) {\n"
           "   %0 = call %x, @w {func = @k} : f32[B,4]  !\"a\"\n"
           "+  %1' = sqrt %0 : f32[B,4]\n"
           "   %1 = neg %0 : f32[B,4]\n"
           "-  %2 = add %1, %0 : f32[B,4]\n"
           "+  %2 = add %1, %1' : f32[B,4]\n"
           "   %3 = abs %2 : f32[B,4]\n"
           "   return %3 \"y\"\n");
    free(other);
    free(more);
}

static void symbols_parameters_and_functions_that_come_and_go(void **state)
{
    (void)state;
    char *other = altered("param @w : f32[4,4] frozen\n", "sym T = 2..3\nparam @w : f32[4,4] adapter\nparam @v : f32[2] const = [1, 2]\n");
    expect(base, other,
           "@@ -1,1 +1,2 @@ symbols\n"
           " sym B = 1..8\n"
           "+sym T = 2..3\n"
           "@@ -1,1 +1,2 @@ parameters\n"
           "-param @w : f32[4,4] frozen\n"
           "+param @w : f32[4,4] adapter\n"
           "+param @v : f32[2] const = [1, 2]\n");
    free(other);
    char *more = malloc(sizeof base + 200);
    strcpy(more, base);
    strcat(more, "func @other entry (%a : f32[]) {\n  return %a \"b\"\n}\n");
    expect(base, more, "@@ -0,0 +1,2 @@ func @other (added)\n+func @other entry (%a : f32[]) {\n+  return %a \"b\"\n");
    expect(more, base, "@@ -1,2 +0,0 @@ func @other (removed)\n-func @other entry (%a : f32[]) {\n-  return %a \"b\"\n");
    char *got = listing(base, more, (DiffOptions){.func = "main"});
    assert_string_equal(got, "");
    free(got);
    got = listing(base, more, (DiffOptions){.stat = true});
    assert_string_equal(got, "     0 -       2 +       0 =  func @other (added)\n");
    free(got);
    free(more);
}

static void data_that_both_know_are_compared(void **state)
{
    Text t = {0};
    (void)state;
    const char large[] = "param @w : f32[40] frozen\nfunc @f entry () {\n  return @w \"w\"\n}\n";
    float a[40] = {0}, b[40] = {0};
    b[39] = 1;
    Module *m = parsed(large), *n = parsed(large);
    m->param[0].data = a;
    assert_true(module_diff(m, n, &(DiffOptions){0}, &t)); /* unknown on one side */
    n->param[0].data = b;
    assert_false(module_diff(m, n, &(DiffOptions){0}, &t));
    assert_non_null(strstr(t.p, "+param @w : f32[40] frozen  # other data\n"));
    text_free(&t);
    module_free(m);
    module_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_match_as_long_as_they_can),
        cmocka_unit_test(sequences_with_nothing_in_common_end),
        cmocka_unit_test(names_numbers_and_order_of_functions_are_no_difference),
        cmocka_unit_test(what_is_changed_shows_and_nothing_that_depends_on_it),
        cmocka_unit_test(another_operand_is_a_difference),
        cmocka_unit_test(what_is_put_in_has_a_name_of_its_own),
        cmocka_unit_test(symbols_parameters_and_functions_that_come_and_go),
        cmocka_unit_test(data_that_both_know_are_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
