/* paranoid.h: results before and after a pass, where the pass is another text. */
#include "compiler/paranoid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static Module *parsed(const char *text)
{
    Diag *d = diag_new();
    Module *m = module_parse(d, "test", text, strlen(text));
    if (!m)
        diag_flush(d);
    assert_non_null(m);
    diag_free(d);
    return m;
}

/* Whether b passes for what became of a; *compared: on how many functions. */
static bool passes(const char *a, const char *b, uint32_t *compared, size_t *errors)
{
    Module *m = parsed(a), *n = parsed(b);
    Diag *d = diag_new();
    Snapshot *s = snapshot_take(m, NULL);
    bool ok = snapshot_compare(s, n, false, compared, d);
    *errors = diag_errors(d);
    snapshot_free(s);
    diag_free(d);
    module_free(m);
    module_free(n);
    return ok;
}

#define FUNC(op, name)                                                                        \
    "sym B = 1..8\nfunc @" name " entry (%x : f32[B,4]) {\n  %0 = " op " %x : f32[B,4]\n  " \
    "return %0 \"y\"\n}\n"

static void the_same_results_pass(void **state)
{
    uint32_t n;
    size_t errors;
    (void)state;
    assert_true(passes(FUNC("neg", "f"), FUNC("neg", "f"), &n, &errors));
    assert_int_equal(n, 1);
    assert_true(passes(FUNC("neg", "f"), "sym B = 1..8\nfunc @f entry (%x : f32[B,4]) {\n  %0 = neg %x : f32[B,4]\n"
                       "  %1 = neg %0 : f32[B,4]\n  %2 = neg %1 : f32[B,4]\n  return %2 \"y\"\n}\n", &n, &errors));
    assert_int_equal(n, 1);
}

static void other_results_do_not(void **state)
{
    uint32_t n;
    size_t errors;
    (void)state;
    assert_false(passes(FUNC("neg", "f"), FUNC("abs", "f"), &n, &errors));
    assert_int_equal(n, 1);
    assert_int_equal(errors, 1);
}

static void what_has_another_name_or_signature_is_not_compared(void **state)
{
    uint32_t n;
    size_t errors;
    (void)state;
    assert_true(passes(FUNC("neg", "f"), FUNC("abs", "g"), &n, &errors));
    assert_int_equal(n, 0);
    assert_true(passes(FUNC("neg", "f"), "func @f entry (%z : f32[4]) {\n  return %z \"y\"\n}\n", &n, &errors));
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_results_pass),
        cmocka_unit_test(other_results_do_not),
        cmocka_unit_test(what_has_another_name_or_signature_is_not_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
