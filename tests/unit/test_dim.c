/* Symbolic dimensions: equal expressions are one Dim, bounds hold, text is an exact inverse, size is bounded.
 */
#include "compiler/dim.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct Fixture {
    Arena *a;
    DimTable *t;
    Dim b, s, p; /* B = 1..8, S = 1..512, P = 0..unbounded */
} Fixture;

static int setup(void **state) {
    Fixture *x = calloc(1, sizeof *x);
    x->a = arena_new();
    x->t = dim_table_new(x->a);
    x->b = dim_sym(x->t, str_c("B"));
    x->s = dim_sym(x->t, str_c("S"));
    x->p = dim_sym(x->t, str_c("P"));
    *dim_sym_at(x->t, 0) = (DimSym){dim_sym_at(x->t, 0)->name, 1, 8};
    *dim_sym_at(x->t, 1) = (DimSym){dim_sym_at(x->t, 1)->name, 1, 512};
    *state = x;
    return 0;
}

static int teardown(void **state) {
    Fixture *x = *state;
    arena_free(x->a);
    free(x);
    return 0;
}

static Dim parsed(DimTable *t, const char *text) {
    const char *p = text;
    Dim d = DIM_BAD;
    if (!dim_parse(t, &p, text + strlen(text), &d) || *p)
        fail_msg("'%s' does not parse", text);
    return d;
}

static void equal_expressions_are_one(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    assert_int_equal(dim_const(t, 0), 0);
    assert_int_equal(dim_sym(t, str_c("S")), x->s);
    assert_int_equal(parsed(t, "S*B + P"), dim_add(t, x->p, dim_mul(t, x->b, x->s)));
    assert_int_equal(parsed(t, "S + B - S"), x->b);
    assert_int_equal(dim_sub(t, x->s, x->s), 0);
    assert_int_equal(parsed(t, "2*S + 3*S - 4*S"), x->s);
    assert_int_equal(dim_mul(t, parsed(t, "S + 1"), parsed(t, "S - 1")), parsed(t, "S*S - 1"));
    assert_true(dim_is(t, dim_mul(t, x->s, 0), 0));
}

static void division(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    static const struct {
        const char *a, *b, *quotient, *rest;
    } cases[] = {
        {"64*B*S", "64", "B*S", "0"},
        {"48*B*S", "S", "48*B", "0"},
        {"64*B*S + 128*B", "64*B", "S + 2", "0"},
        {"4*P + 4", "P + 1", "4", NULL},
        {"-7", "2", "-4", "1"},
        {"7", "-2", "-4", "-1"},
        {"S", "S", "1", "0"},
        {"S + 1", "2", "floordiv(S + 1, 2)", "mod(S + 1, 2)"},
        {"0", "S", "0", "0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dim a = parsed(t, cases[i].a), b = parsed(t, cases[i].b);
        assert_int_equal(dim_floordiv(t, a, b), parsed(t, cases[i].quotient));
        if (cases[i].rest)
            assert_int_equal(dim_mod(t, a, b), parsed(t, cases[i].rest));
    }
    assert_int_equal(dim_floordiv(t, x->s, 0), DIM_BAD);
    assert_int_equal(dim_mod(t, x->s, 0), DIM_BAD);
}

static void bounds(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    static const struct {
        const char *text;
        int64_t lo, hi;
    } cases[] = {
        {"S", 1, 512},
        {"P + 1", 1, DIM_UNBOUNDED},
        {"B*S", 1, 4096},
        {"10 - S", -502, 9},
        {"S - P", INT64_MIN, 512},
        {"floordiv(S, 2)", 0, 256},
        {"floordiv(0 - S, 2)", -256, -1},
        {"mod(P, 3)", 0, 2},
        {"max(P, S)", 1, DIM_UNBOUNDED},
        {"min(P, S)", 0, 512},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Dim d = parsed(t, cases[i].text);
        assert_int_equal(dim_lower(t, d), cases[i].lo);
        assert_int_equal(dim_upper(t, d), cases[i].hi);
    }
    /* what bounds decide is no atom */
    assert_int_equal(dim_max(t, x->s, dim_const(t, 1)), x->s);
    assert_int_equal(dim_min(t, x->b, dim_const(t, 8)), x->b);
    assert_int_equal(dim_max(t, x->p, dim_add(t, x->p, x->b)), dim_add(t, x->p, x->b));
    assert_int_equal(dim_min(t, x->s, x->p), dim_min(t, x->p, x->s));
}

/* Every expression has the value its parts give, within its bounds, before and after substitution. */
static void evaluation(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    static const char *const texts[] = {"2*B*S - 3", "floordiv(S - 9, B)", "mod(S - 9, B)",
                                        "max(S, P) - min(S, P)", "B*B*S + floordiv(P, B)*S"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Dim d = parsed(t, texts[i]), moved = dim_subst(t, d, 1, parsed(t, "P + 1"));
        for (int64_t b = 1; b <= 8; b += 3)
            for (int64_t p = 0; p < 30; p += 7) {
                int64_t syms[3] = {b, p + 1, p}, want, got;
                assert_true(dim_eval(t, d, syms, &want));
                assert_in_range(want - dim_lower(t, d), 0, INT64_MAX);
                syms[1] = -1; /* gone after the substitution */
                assert_true(dim_eval(t, moved, syms, &got));
                assert_int_equal(got, want);
            }
    }
    int64_t zero[3] = {0, 1, 1}, out;
    assert_false(dim_eval(t, parsed(t, "floordiv(S + 1, B)"), zero, &out));
    int64_t huge[3] = {INT64_MAX, 2, 0};
    assert_false(dim_eval(t, parsed(t, "B*S"), huge, &out));
}

static void overflow_spreads(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    Dim big = dim_const(t, INT64_MAX);
    assert_int_equal(dim_add(t, big, dim_const(t, 1)), DIM_BAD);
    assert_int_equal(dim_mul(t, big, x->s) == DIM_BAD, false);
    assert_int_equal(dim_mul(t, dim_mul(t, big, x->s), dim_const(t, 2)), DIM_BAD);
    assert_int_equal(dim_floordiv(t, dim_const(t, INT64_MIN), dim_const(t, -1)), DIM_BAD);
    assert_int_equal(dim_max(t, DIM_BAD, x->s), DIM_BAD);
    assert_int_equal(dim_upper(t, DIM_BAD), DIM_UNBOUNDED);
}

/* Sharing makes n atoms stand for 2^n symbols: refused long before any walk over them takes time. */
static void size_is_bounded(void **state) {
    Fixture *x = *state;
    DimTable *t = x->t;
    Dim d = x->p;
    int steps = 0;
    for (; d != DIM_BAD && steps < 100; steps++)
        d = dim_floordiv(t, dim_add(t, d, x->s), dim_add(t, d, x->b));
    assert_int_equal(d, DIM_BAD);
    for (d = x->s, steps = 0; d != DIM_BAD && steps < 100; steps++)
        d = dim_mul(t, d, x->p);
    assert_int_equal(d, DIM_BAD);
}

/* What is read into a table of another history prints the same. */
static void text_is_an_inverse(void **state) {
    Fixture *x = *state;
    static const char *const texts[] = {"0",         "512",
                                        "-3",        "B",
                                        "P + 1",     "2*B*S - 3",
                                        "-B + 4",    "\"odd \\012 name\" + 2",
                                        "B*B*S",     "floordiv(S, 2)*mod(P, 3) + 1",
                                        "max(S, P)", "floordiv(P, S) + mod(P, S) + min(S, P)"};
    enum { N = sizeof texts / sizeof *texts };
    Text out[N] = {0};
    dim_sym(x->t, str_c("odd \n name"));
    for (int i = 0; i < N; i++) {
        dim_print(x->t, parsed(x->t, texts[i]), &out[i]);
        if (i < 9)
            assert_string_equal(out[i].p, texts[i]);
    }
    Arena *a = arena_new();
    DimTable *other = dim_table_new(a);
    for (uint32_t i = 0; i < dim_sym_count(x->t); i++) {
        dim_sym(other, dim_sym_at(x->t, i)->name);
        *dim_sym_at(other, i) = *dim_sym_at(x->t, i);
    }
    for (int i = N; i-- > 0;) {
        Text again = {0};
        dim_print(other, parsed(other, out[i].p), &again);
        assert_string_equal(again.p, out[i].p);
        text_free(&again);
        text_free(&out[i]);
    }
    arena_free(a);
}

static void bad_text_is_refused(void **state) {
    Fixture *x = *state;
    static const char *const texts[] = {
        "",  "+", "2*", "max(S)", "max(S, ", "\"open", "\"\\9\"", "99999999999999999999", "floordiv(S, 0)",
        "*S"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *p = texts[i];
        Dim d;
        assert_false(dim_parse(x->t, &p, p + strlen(p), &d));
    }
    Text deep = {0};
    for (int i = 0; i < 100000; i++)
        text_printf(&deep, "max(P, ");
    const char *p = deep.p;
    Dim d;
    assert_false(dim_parse(x->t, &p, p + deep.n, &d));
    text_free(&deep);
}

static const char *spelled(void *ctx, uint32_t i) {
    static const char *const names[] = {"b", "s", "p"};
    (void)ctx;
    return names[i];
}

static void c_source(void **state) {
    Fixture *x = *state;
    Text out = {0};
    dim_print_c(x->t, parsed(x->t, "5000000000*B + floordiv(S, 2)"), &out, spelled, NULL);
    assert_string_equal(out.p, "INT64_C(5000000000)*b + ((s) / (2))");
    text_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(equal_expressions_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(division, setup, teardown),
        cmocka_unit_test_setup_teardown(bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(evaluation, setup, teardown),
        cmocka_unit_test_setup_teardown(overflow_spreads, setup, teardown),
        cmocka_unit_test_setup_teardown(size_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(text_is_an_inverse, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_text_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(c_source, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
