/* `remat`: what the backward pass needs is kept or made again; results stay, memory falls under a budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/plan.h"
#include "pass_test.h"

/* Residual blocks x + gelu(norm(x) W) V a, a trained. All are inputs, so that the interpreter can compare. */
static char *blocks(int n) {
    Text t = {0};
    text_printf(&t, "func @train entry (%%x0 : f32[4,32,128]");
    for (int i = 0; i < n; i++)
        text_printf(&t, ", %%g%d : f32[128], %%w%d : f32[128,256], %%v%d : f32[256,128], %%a%d : f32[256]", i, i, i, i);
    text_printf(&t, ") {\n");
    for (int i = 0; i < n; i++)
        text_printf(&t,
                    "  %%n%d = rms_norm %%x%d, %%g%d {eps = 1e-06} : f32[4,32,128]\n"
                    "  %%h%d = matmul %%n%d, %%w%d : f32[4,32,256]\n  %%u%d = gelu %%h%d : f32[4,32,256]\n"
                    "  %%s%d = mul %%u%d, %%a%d : f32[4,32,256]\n  %%y%d = matmul %%s%d, %%v%d : f32[4,32,128]\n"
                    "  %%x%d = add %%x%d, %%y%d : f32[4,32,128]\n",
                    i, i, i, i, i, i, i, i, i, i, i, i, i, i, i + 1, i, i);
    text_printf(&t, "  %%q = mul %%x%d, %%x%d : f32[4,32,128]\n  %%loss = reduce_sum %%q {axes = [0, 1, 2], keep = 0} : f32[]\n", n, n);
    for (int i = 0; i < n; i++)
        text_printf(&t, "  %%d%d = gradient %%loss, %%a%d : f32[256]\n", i, i);
    text_printf(&t, "  return %%loss \"loss\"");
    for (int i = 0; i < n; i++)
        text_printf(&t, ", %%d%d \"grad.a%d\"", i, i);
    text_printf(&t, "\n}\n");
    text_add(&t, "", 1);
    return t.p;
}

/* Nodes of an op in the backward pass. */
static int count(const char *text, const char *op) {
    int n = 0;
    char word[32];
    snprintf(word, sizeof word, "= %s ", op);
    for (const char *p = text; (p = strstr(p, word)); p++) {
        const char *end = strchr(p, '\n'), *mark = strstr(p, "adjoint = 1");
        n += mark && mark < end;
    }
    return n;
}

static int64_t arena_of(const char *text, int64_t budget) {
    PassOptions o = {.max_memory = budget, .opt_level = 2};
    PassId list[] = {PASS_grad, PASS_cse, PASS_remat, PASS_fuse, PASS_plan};
    PassRun run = {.options = &o, .list = list, .n_list = 5, .bound = true};
    Diag *d = diag_new();
    Module *m = module_parse(d, "test.ir", text, strlen(text));
    int64_t bytes = -1;
    if (!passes_run(m, &run, d) || !plan_arena_bytes(m, &bytes, d))
        bytes = -1;
    diag_flush(d);
    module_free(m);
    diag_free(d);
    return bytes;
}

/* gelu is made again from the product before it, which its derivative needs anyway; not in the first block, where nothing
 * needs that derivative and either may be kept. */
static void cheap_values_are_made_again(void **state) {
    (void)state;
    bool ok;
    char *text = blocks(3), *out = pass_run("grad cse remat", text, NULL, &ok);
    assert_true(ok);
    assert_int_equal(count(out, "gelu"), 2);
    assert_int_equal(count(out, "rms_norm"), 0); /* products by frozen weights need no left side */
    assert_int_equal(count(out, "matmul"), 2 * 3 - 1); /* dy V^T of all blocks, dh W^T of all but the first */
    free(out);
    text_free(&(Text){.p = text});
}

/* Keys as attention has them stored are not made again, whatever they are reshaped by. */
static void operands_of_attention_are_kept(void **state) {
    (void)state;
    static const char text[] =
        "func @train entry (%x : f32[2,8,32], %w : f32[32,32], %a : f32[32]) {\n"
        "  %h = matmul %x, %w : f32[2,8,32]\n"
        "  %k = mul %h, %a : f32[2,8,32]\n"
        "  %k2 = reshape %k : f32[2,8,2,16]\n"
        "  %k3 = reshape %k2 : f32[2,8,32]\n"
        "  %y = attention %x, %k3, %h {heads = 2, causal = 0} : f32[2,8,32]\n"
        "  %q = mul %y, %y : f32[2,8,32]\n"
        "  %loss = reduce_sum %q {axes = [0, 1, 2], keep = 0} : f32[]\n"
        "  %da = gradient %loss, %a : f32[32]\n"
        "  return %loss \"loss\", %da \"grad.a\"\n}\n";
    bool ok;
    char *before = pass_run("grad cse", text, NULL, &ok), *out;
    assert_true(ok);
    int muls = count(before, "mul");
    out = pass_run("grad cse remat", text, NULL, &ok);
    assert_true(ok);
    assert_int_equal(count(out, "mul"), muls);
    assert_int_equal(count(out, "attention_grad"), 1);
    free(before);
    free(out);
}

static void a_budget_gives_up_products(void **state) {
    (void)state;
    char *text = blocks(12);
    int64_t all = arena_of(text, 0);
    assert_true(all > 0);
    int64_t budget = all * 3 / 4, less = arena_of(text, budget);
    assert_true(less > 0 && less <= budget);
    assert_int_equal(arena_of(text, all), all);     /* nothing is given up without need */
    assert_int_equal(arena_of(text, all / 20), -1); /* refused: the residual stream alone is more */
    bool ok;
    print_message("arena: %lld bytes, within the budget %lld\n", (long long)all, (long long)less);
    PassOptions o = {.max_memory = budget, .opt_level = 2};
    char *out = pass_run("grad cse remat fuse plan", text, &o, &ok); /* --paranoid: same results */
    assert_true(ok);
    free(out);
    text_free(&(Text){.p = text});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cheap_values_are_made_again),
        cmocka_unit_test(operands_of_attention_are_kept),
        cmocka_unit_test(a_budget_gives_up_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
