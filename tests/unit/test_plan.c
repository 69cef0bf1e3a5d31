/* Places in the arena: nothing alive at the same time overlaps, memory is reused, views share their
 * operand's. */
#include "compiler/pass.h"
#include "compiler/plan.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static Module *parsed(const char *text, Diag *d) {
    Module *m = module_parse(d, "plan.ir", text, strlen(text));
    diag_flush(d);
    assert_non_null(m);
    return m;
}

static const char chain[] = "sym B = 1..4\n"
                            "func @main entry (%x : f32[B,16]) {\n"
                            "  %a = exp %x : f32[B,16]\n"
                            "  %b = neg %a : f32[B,16]\n"
                            "  %c = exp %b : f32[B,16]\n"
                            "  %d = add %c, %c : f32[B,16]\n"
                            "  return %d \"d\"\n"
                            "}\n";

static const int64_t *places(const Func *f, ValueId v) {
    const Attr *a = node_attr(value_node(f, v), AT_place);
    assert_non_null(a);
    assert_int_equal(a->ints.n, 1);
    return a->ints.v;
}

/* a and c are never alive together: two buffers serve three values, and the output has none. */
static void chain_takes_two_buffers(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = parsed(chain, d);
    PassOptions o = {0};
    assert_true(pass_plan(m, &o, d));
    assert_true(module_verify(m, d, true));
    const Func *f = module_find(m, "main");
    ValueId a = f->node[0].out, b = f->node[1].out, c = f->node[2].out;
    assert_int_equal(*places(f, a), 0);
    assert_int_equal(*places(f, b), 256);
    assert_int_equal(*places(f, c), 0);
    assert_int_equal(*places(f, f->output[0]), -1);
    int64_t bytes;
    assert_true(plan_arena_bytes(m, &bytes, d));
    assert_int_equal(bytes, 512);
    Text once = {0}, twice = {0};
    module_print(m, &once);
    assert_true(pass_plan(m, &o, d)); /* again: the same, and no second attribute */
    module_print(m, &twice);
    assert_string_equal(once.p, twice.p);
    text_free(&once);
    text_free(&twice);
    module_free(m);
    diag_free(d);
}

static void read_again(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = parsed(chain, d);
    Arena *a = arena_new();
    Plan plan, again;
    PassOptions o = {0};
    const Func *f = module_find(m, "main");
    assert_true(plan_func(m, f, a, &plan, d));
    assert_int_equal(plan.bytes, 512);
    assert_int_equal(plan.sum, 768);
    assert_int_equal(plan.peak, 512);
    assert_int_equal(plan.worst, 1);
    assert_false(plan_read(m, f, a, &again, d)); /* not planned yet */
    assert_int_equal(diag_errors(d), 1);
    assert_true(pass_plan(m, &o, d));
    assert_true(plan_read(m, module_find(m, "main"), a, &again, d));
    assert_int_equal(again.n_items, plan.n_items);
    for (uint32_t i = 0; i < plan.n_items; i++)
        assert_memory_equal(&again.item[i], &plan.item[i], sizeof plan.item[i]);
    assert_int_equal(again.bytes, plan.bytes);
    assert_int_equal(again.sum, plan.sum);
    assert_int_equal(again.peak, plan.peak);
    assert_int_equal(again.worst, plan.worst);
    arena_free(a);
    module_free(m);
    diag_free(d);
}

/* A reshaped or appended value keeps its operand's storage alive and may need more of it; a cache that came
 * in as an input stays outside the arena. */
static void views_share(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = parsed("sym B = 1..4\n"
                       "sym P = 0..7\n"
                       "func @grow kernel (%k : f32[B,P,8], %r : f32[B,1,8]) {\n"
                       "  %g = append %k, %r {axis = 1} : f32[B,P + 1,8]\n"
                       "  return %g \"g\"\n"
                       "}\n"
                       "func @main entry (%k : f32[B,P,8], %r : f32[B,1,8]) {\n"
                       "  %g = call %k, %r {func = @grow} : f32[B,P + 1,8]\n"
                       "  %c = exp %k : f32[B,P,8]\n"
                       "  %v = reshape %c : f32[8*B*P]\n"
                       "  %e = append %c, %r {axis = 1} : f32[B,P + 1,8]\n"
                       "  %x = neg %r : f32[B,1,8]\n"
                       "  %y = add %x, %r : f32[B,1,8]\n"
                       "  %z = add %e, %y : f32[B,P + 1,8]\n"
                       "  %w = exp %v : f32[8*B*P]\n"
                       "  return %g \"g\", %z \"z\", %w \"w\"\n"
                       "}\n",
                       d);
    Arena *a = arena_new();
    Plan plan;
    const Func *f = module_find(m, "main");
    assert_true(plan_func(m, f, a, &plan, d));
    const int64_t *at = plan.offset;
    ValueId c = f->node[1].out, v = f->node[2].out, e = f->node[3].out;
    assert_int_equal(at[f->node[0].out], -1);
    assert_int_equal(at[c], 0);
    assert_int_equal(at[v], 0);
    assert_int_equal(at[e], 0);
    assert_int_equal(plan.n_items, 3);
    assert_int_equal(plan.item[0].bytes, 4 * 8 * 8 * 4);
    assert_int_equal(plan.item[0].last, 7);
    assert_true(at[f->node[4].out] >= 4 * 8 * 8 * 4 && at[f->node[5].out] >= 4 * 8 * 8 * 4);
    arena_free(a);
    module_free(m);
    diag_free(d);
}

/* Seeded random graphs: no two storages that are alive together overlap, and everything is aligned and
 * inside. */
static void nothing_overlaps(void **state) {
    (void)state;
    for (uint32_t seed = 1; seed <= 60; seed++) {
        Diag *d = diag_new();
        Module *m = module_new();
        Func *f = func_begin(m, str_c("main"), FR_ENTRY);
        Type t = {.dtype = DT_F32, .rank = 2};
        t.dim[0] = dim_const(m->dims, 3);
        t.dim[1] = dim_const(m->dims, 1);
        ValueId v[80] = {func_input(m, f, str_c("x"), t)};
        uint32_t x = seed * 2654435761u, n = 1;
        while (n < 80) {
            x = x * 1664525u + 1013904223u;
            ValueId from = v[x >> 8 & 1 ? n - 1 : (x >> 9) % n];
            t.dim[1] = dim_const(m->dims, 1 + (x >> 20) % 97);
            if (x >> 28 & 1)
                v[n++] = build_unary(m, f, OP_exp, from, (Str){NULL, 0});
            else if (dim_is(m->dims, f->value[from].type.dim[1], 1))
                v[n++] = build_broadcast(m, f, from, 2, t.dim, (Str){NULL, 0});
            else
                v[n++] =
                    build_slice(m, f, from, 1, dim_const(m->dims, 0), dim_const(m->dims, 1), (Str){NULL, 0});
        }
        for (uint32_t i = 1; i < 80; i += 9)
            func_output(m, f, v[i], str_c("y"));
        f = module_func(m, func_end(m, f, NONE));
        Arena *a = arena_new();
        Plan plan;
        assert_true(plan_func(m, f, a, &plan, d));
        assert_true(plan.peak <= plan.bytes && plan.bytes <= plan.sum);
        for (uint32_t i = 0; i < plan.n_items; i++)
            for (uint32_t j = 0; j < i; j++) {
                const PlanItem *p = &plan.item[i], *q = &plan.item[j];
                assert_int_equal(p->offset % PLAN_ALIGN, 0);
                assert_true(p->offset + p->bytes <= plan.bytes);
                bool together = p->first <= q->last && q->first <= p->last;
                assert_true(!together || p->offset >= q->offset + q->bytes ||
                            q->offset >= p->offset + p->bytes);
            }
        arena_free(a);
        module_free(m);
        diag_free(d);
    }
}

static void no_bound_no_plan(void **state) {
    (void)state;
    static const char *const texts[] = {"sym B = 1..*\n", "sym B = 1..100000000000000\n"};
    for (int i = 0; i < 2; i++) {
        Diag *d = diag_new();
        Text text = {0};
        text_printf(&text, "%s%s", texts[i], strchr(chain, '\n') + 1);
        Module *m = parsed(text.p, d);
        PassOptions o = {0};
        assert_false(pass_plan(m, &o, d));
        assert_int_equal(diag_errors(d), 1);
        module_free(m);
        diag_free(d);
        text_free(&text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_takes_two_buffers),
        cmocka_unit_test(read_again),
        cmocka_unit_test(views_share),
        cmocka_unit_test(nothing_overlaps),
        cmocka_unit_test(no_bound_no_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
