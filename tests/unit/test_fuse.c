/* `fuse` on functions that are no T5's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass_test.h"

/* A weight that is computed from a view of a literal, as gradients have them, is computed in front of what
 * reads it. */
static void weights_of_literals(void **state) {
    (void)state;
    bool ok;
    PassOptions o = {.opt_level = 2};
    char *text = pass_run("fuse",
                          "param @g : f32[3] frozen\n"
                          "func @f entry (%x : f32[2,3]) {\n"
                          "  %c = const {value = f32[] [2]} : f32[]\n  %r = reshape %c : f32[1]\n"
                          "  %b = broadcast %r : f32[3]\n  %w = mul %b, @g : f32[3]\n"
                          "  %y = add %x, %w : f32[2,3]\n  return %y \"y\"\n}\n",
                          &o, &ok);
    assert_true(ok);
    assert_non_null(strstr(text, "kernel"));
    assert_non_null(strstr(text, "init"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_of_literals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
