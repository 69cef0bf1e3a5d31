/* repeat.h on small functions: what is a layer, where it begins, what keeps groups apart. */
#include "compiler/repeat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The node's group, or `.`, one character a node; then `period x times` of each repeat, `!` behind those not chained. */
static void expect(const char *nodes, const char *want)
{
    Diag *d = diag_new();
    Text text = {0}, got = {0};
    text_printf(&text, "param @w1 : f32[4,4] frozen\nparam @w2 : f32[4,4] frozen\nparam @w3 : f32[4,4] frozen\n"
                       "param @w4 : f32[4,4] frozen\nfunc @f entry (%%x : f32[4,4], %%p : f32[4,4], %%q : f32[4,4]) {\n");
    text_printf(&text, "%s}\n", nodes);
    Module *m = module_parse(d, "test", text.p, text.n);
    if (!m || !module_verify(m, d, true))
        diag_flush(d);
    assert_non_null(m);
    Arena *a = arena_new();
    const Func *f = module_find(m, "f");
    Repeats r;
    repeats_find(m, f, func_likeness(m, a), a, &r);
    for (NodeId i = 0; i < f->n_nodes; i++) {
        text_printf(&got, r.run[i] == NONE ? "." : "%u", r.turn[i]);
        if (r.run[i] == NONE) {
            assert_int_equal(r.like[i], i);
            continue;
        }
        assert_int_equal(f->node[r.like[i]].op, f->node[i].op);
        assert_int_equal(r.turn[r.like[i]], 0);
        assert_int_equal(r.run[r.like[i]], r.run[i]);
    }
    for (uint32_t i = 0; i < r.n; i++)
        text_printf(&got, " %ux%u%s", r.item[i].period, r.item[i].times, r.item[i].chained ? "" : "!");
    assert_string_equal(got.p, want);
    text_free(&text);
    text_free(&got);
    arena_free(a);
    module_free(m);
    diag_free(d);
}

#define LAYER(n, from)                                                   \
    "%a" #n " = matmul %" from ", @w" #n " : f32[4,4]\n"                 \
    "%b" #n " = relu %a" #n " : f32[4,4]\n"                              \
    "%c" #n " = add %b" #n ", %" from " : f32[4,4]\n"

static void layers_are_found_with_their_own_weights(void **state)
{
    (void)state;
    expect(LAYER(1, "x") LAYER(2, "c1") LAYER(3, "c2") "return %c3 \"y\"\n", "000111222 3x3");
    expect("%e = exp %x : f32[4,4]\n" LAYER(1, "e") LAYER(2, "c1") "%g = neg %c2 : f32[4,4]\nreturn %g \"y\"\n", ".000111. 3x2");
}

static void what_only_the_first_layer_computes_stands_outside(void **state)
{
    (void)state;
    expect("%a1 = matmul %x, @w1 : f32[4,4]\n%m = exp %p : f32[4,4]\n%b1 = mul %a1, %m : f32[4,4]\n%c1 = add %b1, %x : f32[4,4]\n"
           "%a2 = matmul %c1, @w2 : f32[4,4]\n%b2 = mul %a2, %m : f32[4,4]\n%c2 = add %b2, %c1 : f32[4,4]\n"
           "%a3 = matmul %c2, @w3 : f32[4,4]\n%b3 = mul %a3, %m : f32[4,4]\n%c3 = add %b3, %c2 : f32[4,4]\n"
           "return %c3 \"y\"\n",
           "0.00111222 3x3");
}

static void a_layer_of_another_kind_ends_the_run(void **state)
{
    (void)state;
    expect(LAYER(1, "x") LAYER(2, "c1") "%a3 = matmul %c2, @w3 : f32[4,4]\n%b3 = tanh %a3 : f32[4,4]\n"
           "%c3 = add %b3, %c2 : f32[4,4]\n" LAYER(4, "c3") "return %c4 \"y\"\n",
           "000111...... 3x2");
}

static void other_wiring_is_no_layer(void **state)
{
    (void)state;
    expect(LAYER(1, "x") LAYER(2, "c1")
           "%a3 = matmul %c2, @w3 : f32[4,4]\n%b3 = relu %a3 : f32[4,4]\n%c3 = add %b3, %a3 : f32[4,4]\nreturn %c3 \"y\"\n",
           "000111... 3x2");
}

static void inputs_of_their_own_do_not_keep_layers_apart(void **state)
{
    (void)state;
    expect("%a1 = mul %x, %p : f32[4,4]\n%b1 = relu %a1 : f32[4,4]\n%c1 = add %b1, %x : f32[4,4]\n"
           "%a2 = mul %c1, %q : f32[4,4]\n%b2 = relu %a2 : f32[4,4]\n%c2 = add %b2, %c1 : f32[4,4]\nreturn %c2 \"y\"\n",
           "000111 3x2");
}

static void groups_that_do_not_depend_on_each_other_need_to_be_many(void **state)
{
    (void)state;
    expect("%a1 = matmul %x, @w1 : f32[4,4]\n%b1 = relu %a1 : f32[4,4]\n%c1 = neg %b1 : f32[4,4]\n"
           "%a2 = matmul %x, @w2 : f32[4,4]\n%b2 = relu %a2 : f32[4,4]\n%c2 = neg %b2 : f32[4,4]\n"
           "return %c1 \"1\", %c2 \"2\"\n", "......");
    expect("%a1 = matmul %x, @w1 : f32[4,4]\n%b1 = relu %a1 : f32[4,4]\n%a2 = matmul %x, @w2 : f32[4,4]\n%b2 = relu %a2 : f32[4,4]\n"
           "%a3 = matmul %x, @w3 : f32[4,4]\n%b3 = relu %a3 : f32[4,4]\n%a4 = matmul %x, @w4 : f32[4,4]\n%b4 = relu %a4 : f32[4,4]\n"
           "return %b1 \"1\", %b2 \"2\", %b3 \"3\", %b4 \"4\"\n", "00112233 2x4!");
}

/* A forward chain and one that goes back through it, as gradients do: the second reads what the first has made, last first. */
static void a_run_may_read_another_backwards(void **state)
{
    (void)state;
    expect("%f1 = tanh %x : f32[4,4]\n%g1 = mul %f1, %p : f32[4,4]\n%f2 = tanh %g1 : f32[4,4]\n%g2 = mul %f2, %p : f32[4,4]\n"
           "%f3 = tanh %g2 : f32[4,4]\n%g3 = mul %f3, %p : f32[4,4]\n"
           "%u3 = exp %g3 : f32[4,4]\n"
           "%d3 = sub %u3, %f3 : f32[4,4]\n%e3 = abs %d3 : f32[4,4]\n%d2 = sub %e3, %f2 : f32[4,4]\n%e2 = abs %d2 : f32[4,4]\n"
           "%d1 = sub %e2, %f1 : f32[4,4]\n%e1 = abs %d1 : f32[4,4]\nreturn %e1 \"y\"\n",
           "001122.001122 2x3 2x3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_are_found_with_their_own_weights),
        cmocka_unit_test(what_only_the_first_layer_computes_stands_outside),
        cmocka_unit_test(a_layer_of_another_kind_ends_the_run),
        cmocka_unit_test(other_wiring_is_no_layer),
        cmocka_unit_test(inputs_of_their_own_do_not_keep_layers_apart),
        cmocka_unit_test(groups_that_do_not_depend_on_each_other_need_to_be_many),
        cmocka_unit_test(a_run_may_read_another_backwards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
