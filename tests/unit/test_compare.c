/* compare.h: what departs, where and by how much. */
#include "compiler/compare.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { N = 6 };

static Tensor of_floats(float *v)
{
    return (Tensor){.dtype = DT_F32, .rank = 2, .dim = {2, 3}, .data = v};
}

static void equal_tensors_do_not_depart(void **state)
{
    float a[N] = {1, -2, NAN, INFINITY, -3.4e38f, 0};
    Tensor t = of_floats(a);
    Departure x = tensors_depart(&t, &t, 0);
    (void)state;
    assert_true(x.relative == 0);
    assert_int_equal(x.at, -1);
}

static void one_altered_element_is_named(void **state)
{
    float a[N] = {1, 2, 3, 4, 5, 6}, b[N] = {1, 2, 3, 4, 5.001f, 6};
    Tensor t = of_floats(a), u = of_floats(b);
    Departure x = tensors_depart(&u, &t, 0);
    (void)state;
    assert_int_equal(x.at, 4);
    assert_true(x.got == (double)5.001f && x.want == 5);
    assert_true(fabs(x.relative - 0.001 / sqrt(91)) < 1e-8);
}

static void a_mask_does_not_hide_the_rest(void **state)
{
    float a[N] = {1, 2, -3.4e38f, 4, 5, 6}, b[N] = {1, 2, -3.4e38f, 4, 5, 6.1f};
    Tensor t = of_floats(a), u = of_floats(b);
    (void)state;
    assert_true(tensors_depart(&u, &t, 0).relative > 1e-3);
    assert_int_equal(tensors_depart(&u, &t, 0).at, 5);
    assert_true(fabs(tensor_rms(&t) - sqrt((1 + 4 + 16 + 25 + 36) / 6.0)) < 1e-12);
}

static void what_is_not_finite_in_one_alone_departs(void **state)
{
    float a[N] = {1, 2, 3, 4, 5, 6}, b[N] = {1, 2, 3, NAN, 5, 6}, c[N] = {1, 2, 3, 4, 5, -INFINITY};
    Tensor t = of_floats(a), u = of_floats(b), w = of_floats(c);
    (void)state;
    assert_true(isinf(tensors_depart(&u, &t, 0).relative));
    assert_int_equal(tensors_depart(&u, &t, 0).at, 3);
    assert_true(isinf(tensors_depart(&t, &u, 0).relative));
    assert_true(isinf(tensors_depart(&w, &t, 0).relative));
    assert_int_equal(tensors_depart(&w, &t, 0).at, 5);
}

static void sums_that_cancel_are_as_exact_as_their_terms(void **state)
{
    float a[N] = {0}, b[N] = {1e-7f, -1e-7f, 1e-7f, 1e-7f, 1e-7f, -1e-7f};
    Tensor t = of_floats(a), u = of_floats(b);
    (void)state;
    assert_true(fabs(tensors_depart(&u, &t, 0).relative - 1e-7 * sqrt(6)) < 1e-10);
    assert_true(fabs(tensors_depart(&u, &t, 0.01).relative - 1e-5) < 1e-8);
    assert_true(tensors_depart(&u, &t, 1e-9).relative > 1);
}

static void integers_and_types_have_to_be_the_same(void **state)
{
    int64_t a[N] = {1, 2, 3, 4, 5, 6}, b[N] = {1, 2, 3, 4, 5, 7};
    Tensor t = {.dtype = DT_I64, .rank = 1, .dim = {N}, .data = a}, u = t, w = t;
    (void)state;
    u.data = b;
    w.dim[0] = N - 1;
    assert_true(tensors_depart(&t, &t, 0).relative == 0);
    assert_true(isinf(tensors_depart(&u, &t, 0).relative));
    assert_int_equal(tensors_depart(&u, &t, 0).at, 5);
    assert_true(isinf(tensors_depart(&w, &t, 0).relative));
    assert_int_equal(tensors_depart(&w, &t, 0).at, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_tensors_do_not_depart),
        cmocka_unit_test(one_altered_element_is_named),
        cmocka_unit_test(a_mask_does_not_hide_the_rest),
        cmocka_unit_test(what_is_not_finite_in_one_alone_departs),
        cmocka_unit_test(sums_that_cancel_are_as_exact_as_their_terms),
        cmocka_unit_test(integers_and_types_have_to_be_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
