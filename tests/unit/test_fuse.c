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

/* What the backward pass computes again: the product of the forward pass stays as it is and is not kept, and gelu, which
 * nothing ties to a kernel when it comes, stands in the kernel that reads it. */
static void computed_again(void **state) {
    (void)state;
    bool ok;
    PassOptions o = {.opt_level = 2};
    char *text = pass_run("fuse",
                          "sym B = 1..64\nparam @s : f32[10,64] adapter\nparam @g : f32[64] frozen\n"
                          "func @f entry (%p : f32[B,10], %a : f32[B,64], %d : f32[B,64]) {\n"
                          "  %m = matmul %p, @s : f32[B,64]\n  %y = mul %a, %m : f32[B,64]\n"
                          "  %z = rms_norm %y, @g {eps = 1e-06} : f32[B,64]\n"
                          "  %h = gelu %a {adjoint = 1} : f32[B,64]\n"
                          "  %n = matmul %p, @s {adjoint = 1} : f32[B,64]\n"
                          "  %v = mul %n, %h {adjoint = 1} : f32[B,64]\n"
                          "  %u = mul %v, %d {adjoint = 1} : f32[B,64]\n  return %z \"z\", %u \"u\"\n}\n",
                          &o, &ok);
    assert_true(ok);
    assert_null(strstr(text, "concat"));
    assert_non_null(strstr(text, "%u = call %a, %p, @s, %d {func = @mul_3, adjoint = 1} : f32[B,64]"));
    const char *gelu = strstr(text, "gelu"), *kernel = strstr(text, "func @mul_3 ");
    assert_true(kernel && gelu > kernel);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(weights_of_literals), cmocka_unit_test(computed_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
