/* `grad`: every rule against central differences, which the interpreter takes for a `gradient` node; what is built and
 * what is not. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass_test.h"

/* A body that computes %y from inputs; the loss is sum(%y * %weight). `of`: what gradients are taken of. */
typedef struct Case {
    const char *name, *inputs, *y, *body, *of[4];
} Case;

#define X "%x : f64[2,3]"

static const Case cases[] = {
    {"neg", X, "f64[2,3]", "%y = neg %x : f64[2,3]\n", {"x"}},
    {"abs", X, "f64[2,3]", "%y = abs %x : f64[2,3]\n", {"x"}},
    {"sqrt", X, "f64[2,3]", "%e = exp %x : f64[2,3]\n%y = sqrt %e : f64[2,3]\n", {"x"}},
    {"rsqrt", X, "f64[2,3]", "%e = exp %x : f64[2,3]\n%y = rsqrt %e : f64[2,3]\n", {"x"}},
    {"recip", X, "f64[2,3]", "%e = exp %x : f64[2,3]\n%y = recip %e : f64[2,3]\n", {"x"}},
    {"log", X, "f64[2,3]", "%e = exp %x : f64[2,3]\n%a = add %e, %e : f64[2,3]\n%y = log %a : f64[2,3]\n", {"x"}},
    {"tanh", X, "f64[2,3]", "%y = tanh %x : f64[2,3]\n", {"x"}},
    {"erf", X, "f64[2,3]", "%y = erf %x : f64[2,3]\n", {"x"}},
    {"relu", X, "f64[2,3]", "%y = relu %x : f64[2,3]\n", {"x"}},
    {"sigmoid", X, "f64[2,3]", "%y = sigmoid %x : f64[2,3]\n", {"x"}},
    {"gelu", X, "f64[2,3]", "%y = gelu %x : f64[2,3]\n", {"x"}},
    {"cast", X, "f64[2,3]", "%e = exp %x : f64[2,3]\n%y = cast %e {to = f64} : f64[2,3]\n", {"x"}},
    {"add", X ", %b : f64[3]", "f64[2,3]", "%y = add %x, %b : f64[2,3]\n", {"x", "b"}},
    {"sub", X ", %b : f64[2,1]", "f64[2,3]", "%y = sub %x, %b : f64[2,3]\n", {"x", "b"}},
    {"mul", X ", %b : f64[]", "f64[2,3]", "%y = mul %x, %b : f64[2,3]\n", {"x", "b"}},
    {"square", X, "f64[2,3]", "%y = mul %x, %x : f64[2,3]\n", {"x"}},
    {"div", X ", %b : f64[3]", "f64[2,3]", "%e = exp %b : f64[3]\n%y = div %x, %e : f64[2,3]\n", {"x", "b"}},
    {"pow", X ", %b : f64[2,1]", "f64[2,3]", "%e = exp %x : f64[2,3]\n%y = pow %e, %b : f64[2,3]\n", {"x", "b"}},
    {"min", X ", %b : f64[2,3]", "f64[2,3]", "%y = min %x, %b : f64[2,3]\n", {"x", "b"}},
    {"max", X ", %b : f64[3]", "f64[2,3]", "%y = max %x, %b : f64[2,3]\n", {"x", "b"}},
    {"tie",
     X,
     "f64[2,3]",
     "%t = tanh %x : f64[2,3]\n%m = max %t, %t : f64[2,3]\n%y = min %m, %t : f64[2,3]\n",
     {"x"}},
    {"select",
     X ", %b : f64[3], %c : bool[2,3]",
     "f64[2,3]",
     "%y = select %c, %x, %b : f64[2,3]\n",
     {"x", "b"}},
    {"reshape", X, "f64[6]", "%y = reshape %x : f64[6]\n", {"x"}},
    {"broadcast", "%x : f64[2,1]", "f64[4,2,3]", "%y = broadcast %x : f64[4,2,3]\n", {"x"}},
    {"transpose",
     "%x : f64[2,3,4]",
     "f64[4,2,3]",
     "%y = transpose %x {perm = [2, 0, 1]} : f64[4,2,3]\n",
     {"x"}},
    {"slice",
     "%x : f64[4,5]",
     "f64[2,3]",
     "%y = slice %x {start = [1, 2], step = [1, 1]} : f64[2,3]\n",
     {"x"}},
    {"slice with steps",
     "%x : f64[7,5]",
     "f64[3,2]",
     "%y = slice %x {start = [1, 4], step = [2, -3]} : f64[3,2]\n",
     {"x"}},
    {"slice of one element", /* whatever its step */
     "%x : f64[7,5]",
     "f64[1,1]",
     "%y = slice %x {start = [1, 4], step = [9223372036854775807, -9223372036854775808]} : f64[1,1]\n",
     {"x"}},
    {"slice of symbols",
     "%x : f64[N,5]",
     "f64[N,2]",
     "%y = slice %x {start = [0, 3], step = [1, 1]} : f64[N,2]\n",
     {"x"}},
    {"concat",
     X ", %b : f64[2,2]",
     "f64[2,8]",
     "%y = concat %x, %b, %x {axis = 1} : f64[2,8]\n",
     {"x", "b"}},
    {"append", X ", %b : f64[1,3]", "f64[3,3]", "%y = append %x, %b {axis = 0} : f64[3,3]\n", {"x", "b"}},
    {"gather",
     "%x : f64[4,3]",
     "f64[2,3,3]",
     "%i = const {value = i64[2,3] [0, 3, 3, -1, 1, 0]} : i64[2,3]\n%y = gather %x, %i {axis = 0} : f64[2,3,3]\n",
     {"x"}},
    {"gather along axis 1",
     "%x : f64[2,4,3]",
     "f64[2,2,3]",
     "%i = const {value = i64[2] [2, 2]} : i64[2]\n%y = gather %x, %i {axis = 1} : f64[2,2,3]\n",
     {"x"}},
    {"gather_nd",
     "%x : f64[2,3,4]",
     "f64[2,3]",
     "%i = const {value = i64[2,3,1] [0, 3, 1, 1, 2, 0]} : i64[2,3,1]\n%y = gather_nd %x, %i {batch = 2} : f64[2,3]\n",
     {"x"}},
    {"scatter_nd",
     "%x : f64[4,2], %u : f64[2,2]",
     "f64[4,2]",
     "%i = const {value = i64[2,1] [2, 0]} : i64[2,1]\n%y = scatter_nd %x, %i, %u : f64[4,2]\n",
     {"x", "u"}},
    {"scatter_nd sum",
     "%x : f64[4,2], %u : f64[3,2]",
     "f64[4,2]",
     "%i = const {value = i64[3,1] [2, 0, 2]} : i64[3,1]\n%y = scatter_nd %x, %i, %u {kind = \"sum\"} : f64[4,2]\n",
     {"x", "u"}},
    {"reduce_sum",
     "%x : f64[2,3,4]",
     "f64[3]",
     "%y = reduce_sum %x {axes = [0, 2], keep = 0} : f64[3]\n",
     {"x"}},
    {"reduce_mean",
     "%x : f64[N,3,4]",
     "f64[1,3,1]",
     "%y = reduce_mean %x {axes = [0, 2], keep = 1} : f64[1,3,1]\n",
     {"x"}},
    {"reduce_max", X, "f64[2]", "%y = reduce_max %x {axes = [1], keep = 0} : f64[2]\n", {"x"}},
    {"reduce_min", X, "f64[1,3]", "%y = reduce_min %x {axes = [0], keep = 1} : f64[1,3]\n", {"x"}},
    {"softmax", "%x : f64[2,3,4]", "f64[2,3,4]", "%y = softmax %x {axis = 1} : f64[2,3,4]\n", {"x"}},
    {"log_softmax", X, "f64[2,3]", "%y = log_softmax %x {axis = 1} : f64[2,3]\n", {"x"}},
    {"cumsum", X, "f64[2,3]", "%y = cumsum %x {axis = 1, exclusive = 1, reverse = 0} : f64[2,3]\n", {"x"}},
    {"matmul", X ", %b : f64[3,4]", "f64[2,4]", "%y = matmul %x, %b : f64[2,4]\n", {"x", "b"}},
    {"matmul ta",
     "%x : f64[3,2], %b : f64[3,4]",
     "f64[2,4]",
     "%y = matmul %x, %b {ta = 1} : f64[2,4]\n",
     {"x", "b"}},
    {"matmul tb",
     X ", %b : f64[4,3]",
     "f64[2,4]",
     "%y = matmul %x, %b {tb = 1} : f64[2,4]\n",
     {"x", "b"}},
    {"matmul ta tb",
     "%x : f64[5,3,2], %b : f64[4,3]",
     "f64[5,2,4]",
     "%y = matmul %x, %b {ta = 1, tb = 1} : f64[5,2,4]\n",
     {"x", "b"}},
    {"matmul of rows",
     "%x : f64[N,2,3], %b : f64[3,4]",
     "f64[N,2,4]",
     "%y = matmul %x, %b : f64[N,2,4]\n",
     {"x", "b"}},
    {"matmul of rows tb",
     "%x : f64[N,2,3], %b : f64[4,3]",
     "f64[N,2,4]",
     "%y = matmul %x, %b {tb = 1} : f64[N,2,4]\n",
     {"x", "b"}},
    {"matmul by heads",
     "%x : f64[2,N,3,1,5], %b : f64[3,5,4]",
     "f64[2,N,3,1,4]",
     "%y = matmul %x, %b : f64[2,N,3,1,4]\n",
     {"x", "b"}},
    {"matmul repeated",
     "%x : f64[2,3], %b : f64[5,3,4]",
     "f64[5,2,4]",
     "%y = matmul %x, %b : f64[5,2,4]\n",
     {"x", "b"}},
    {"rms_norm",
     "%x : f64[2,2,3], %g : f64[3]",
     "f64[2,2,3]",
     "%y = rms_norm %x, %g {eps = 0.001} : f64[2,2,3]\n",
     {"x", "g"}},
    {"rms_factor", X, "f64[2,1]", "%y = rms_factor %x {eps = 0.001} : f64[2,1]\n", {"x"}},
    {"attention",
     "%q : f64[2,3,4], %k : f64[2,5,4], %v : f64[2,5,6], %b : f64[2,4]",
     "f64[2,3,6]",
     "%y = attention %q, %k, %v, %b {heads = 2, causal = 0, offset = 0, center = 1} : f64[2,3,6]\n",
     {"q", "k", "v", "b"}},
    {"attention, causal with an offset",
     "%q : f64[2,3,4], %k : f64[2,5,4], %v : f64[2,5,4], %b : f64[2,4]",
     "f64[2,3,4]",
     "%y = attention %q, %k, %v, %b {heads = 2, causal = 1, offset = 1, center = 2} : f64[2,3,4]\n",
     {"q", "k", "v", "b"}},
    {"attention with padding",
     "%q : f64[2,3,4], %k : f64[2,5,4], %v : f64[2,5,4], %m : bool[2,5]",
     "f64[2,3,4]",
     "%y = attention %q, %k, %v, _, %m {heads = 2, causal = 0, offset = 0, center = 0} : f64[2,3,4]\n",
     {"q", "k", "v"}},
    {"attention in segments with dropout",
     "%q : f64[2,3,4], %k : f64[2,5,4], %v : f64[2,5,4]",
     "f64[2,3,4]",
     "%s = const {value = i64[2,3] [1, 1, 2, 1, 2, 7]} : i64[2,3]\n"
     "%t = const {value = i64[2,5] [1, 2, 2, 1, 0, 1, 1, 2, 0, 0]} : i64[2,5]\n"
     "%seed = const {value = i64[] [12345678901]} : i64[]\n"
     "%drop = const {value = f32[] [0.25]} : f32[]\n"
     "%y = attention %q, %k, %v, _, _, %s, %t, %seed, %drop {heads = 2, causal = 0, offset = 0, center = 0} : f64[2,3,4]\n",
     {"q", "k", "v"}},
    {"cross_entropy",
     "%x : f64[2,3,4], %w : f64[4,7]",
     "f64[2,3]",
     "%l = const {value = i64[2,3] [0, 6, -100, 2, 2, 5]} : i64[2,3]\n"
     "%s = const {value = f64[] [0.125]} : f64[]\n%c = const {value = f64[] [0.01]} : f64[]\n"
     "%y, %log_z = cross_entropy %x, %w, %l, %s, %c : f64[2,3], f64[2,3]\n",
     {"x", "w"}},
    {"cross_entropy tb",
     "%x : f64[2,3,4], %w : f64[7,4]",
     "f64[2,3]",
     "%l = const {value = i64[2,3] [0, 6, -100, 2, 2, 5]} : i64[2,3]\n"
     "%s = const {value = f64[] [0]} : f64[]\n%c = const {value = f64[] [0]} : f64[]\n"
     "%y, %log_z = cross_entropy %x, %w, %l, %s, %c {tb = 1} : f64[2,3], f64[2,3]\n",
     {"x", "w"}},
    {"a value in the middle",
     X,
     "f64[2,3]",
     "%m = exp %x : f64[2,3]\n%t = tanh %m : f64[2,3]\n%y = mul %t, %m : f64[2,3]\n",
     {"m", "x"}},
    {"no path", X ", %b : f64[2]", "f64[2,3]", "%y = exp %x : f64[2,3]\n", {"b", "x"}},
};

static char *text_of(const Case *c) {
    Text t = {0};
    int rank = 1;
    for (const char *p = c->y; *p; p++)
        rank += *p == ',';
    if (strstr(c->y, "[]"))
        rank = 0;
    text_printf(&t, "sym N = 2..3\nfunc @f entry (%s, %%weight : %s) {\n%s  %%z = mul %%y, %%weight : %s\n", c->inputs, c->y,
                c->body, c->y);
    text_printf(&t, "  %%loss = reduce_sum %%z {axes = [");
    for (int i = 0; i < rank; i++)
        text_printf(&t, "%s%d", i ? ", " : "", i);
    text_printf(&t, "], keep = 0} : f64[]\n");
    for (int i = 0; i < 4 && c->of[i]; i++) {
        char name[16];
        snprintf(name, sizeof name, "%%%s ", c->of[i]);
        const char *in = strstr(c->inputs, name), *type = in ? strchr(in, ':') + 2 : "f64[2,3]";
        size_t n = strcspn(type, "]") + 1;
        text_printf(&t, "  %%g%d = gradient %%loss, %%%s : %.*s\n", i, c->of[i], (int)n, type);
    }
    text_printf(&t, "  return %%loss \"loss\"");
    for (int i = 0; i < 4 && c->of[i]; i++)
        text_printf(&t, ", %%g%d \"g%d\"", i, i);
    text_printf(&t, "\n}\n");
    text_add(&t, "", 1);
    return t.p;
}

static bool eval(const Module *m, Tensor *out, Arena *a, Diag *d) {
    const Func *f = module_find(m, "f");
    int64_t syms[8];
    Tensor in[8];
    seed_symbols(m, NULL, syms);
    return seed_inputs(m, f, syms, 7, in, a, d) && func_eval(m, f->id, syms, in, out, a, d);
}

static void check_case(const Case *c) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    char *text = text_of(c);
    Module *m = module_parse(d, c->name, text, strlen(text));
    PassOptions none = {0};
    PassId list[] = {PASS_grad, PASS_cse};
    PassRun run = {.options = &none, .list = list, .n_list = 2, .paranoid = true, .bound = true};
    Tensor want[5], have[5];
    bool ok = m && module_verify(m, d, true) && eval(m, want, a, d) && passes_run(m, &run, d) && eval(m, have, a, d);
    diag_flush(d);
    if (!ok)
        fail_msg("%s: cannot be run:\n%s", c->name, text);
    const Func *f = module_find(m, "f");
    for (uint32_t i = 0; i < f->n_nodes; i++)
        assert_int_not_equal(f->node[i].op, OP_gradient);
    for (uint32_t k = 0; k < f->n_outputs; k++) {
        int64_t n;
        assert_true(tensor_count(&want[k], &n) && n > 0);
        for (int64_t i = 0; i < n; i++) {
            double x = tensor_get_f64(&want[k], i), y = tensor_get_f64(&have[k], i);
            if (!(fabs(x - y) <= 1e-6 * (1 + fabs(x))))
                fail_msg("%s: output %u, element %lld: differences give %.9g, the rule %.9g", c->name, k, (long long)i, x, y);
        }
    }
    module_free(m);
    text_free(&(Text){.p = text});
    arena_free(a);
    diag_free(d);
}

static void rules_agree_with_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i]);
}

/* No rule is left out above. */
static void every_rule_has_a_case(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        char node[64];
        bool found = false;
        const OpInfo *info = op_info((Op)op);
        snprintf(node, sizeof node, "= %s %%", info->name);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            found = found || strstr(cases[i].body, node);
        if (info->grad == GRAD_vjp && !found)
            fail_msg("no case for the rule of %s", info->name);
    }
}

/* Through a frozen weight, but not to it. */
static void frozen_weights_have_no_gradient(void **state) {
    (void)state;
    bool ok;
    char *text = pass_run("grad",
                          "param @w : f32[64,8] frozen\nparam @a : f32[64] adapter\n"
                          "func @f entry (%x : f32[4,64]) {\n"
                          "  %s = mul %x, @a : f32[4,64]\n  %y = matmul %s, @w : f32[4,8]\n"
                          "  %loss = reduce_sum %y {axes = [0, 1], keep = 0} : f32[]\n"
                          "  %g = gradient %loss, @a : f32[64]\n  return %g \"grad.a\"\n}\n",
                          NULL, &ok);
    assert_true(ok);
    assert_non_null(strstr(text, "matmul"));
    assert_non_null(strstr(text, "tb = 1"));
    assert_null(strstr(text, "ta = 1")); /* x^T dy would be the weight's */
    assert_null(strstr(text, "gradient"));
    free(text);
}

/* A parameter may be a loss: its gradient is one. */
static void parameters_are_losses(void **state) {
    (void)state;
    bool ok;
    char *text = pass_run("grad",
                          "param @p : f32[] adapter\nfunc @f entry (%x : f32[3]) {\n"
                          "  %g = gradient @p, %x : f32[3]\n  %h = gradient @p, @p : f32[]\n"
                          "  return %g \"g\", %h \"h\"\n}\n",
                          NULL, &ok);
    assert_true(ok);
    assert_non_null(strstr(text, "value = f32[] [0]"));
    assert_non_null(strstr(text, "value = f32[] [1]"));
    free(text);
}

static void refuse(const char *text) {
    bool ok;
    char *out = pass_run("grad", text, NULL, &ok);
    assert_false(ok);
    free(out);
}

static void refuses_what_has_no_rule(void **state) {
    (void)state;
    refuse("func @f entry (%x : f32[4]) {\n"
           "  %y = reduce_prod %x {axes = [0], keep = 0} : f32[]  !\"the product\"\n"
           "  %g = gradient %y, %x : f32[4]\n  return %g \"g\"\n}\n");
}

#define ONES "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"

/* Their gradients need an axis more than there may be. */
static void refuses_too_many_axes(void **state) {
    (void)state;
    refuse("func @f entry (%x : f32[2], %i : i64[1," ONES "]) {\n"
           "  %y = gather %x, %i {axis = 0} : f32[1," ONES "]\n  %z = reshape %y : f32[]\n"
           "  %g = gradient %z, %x : f32[2]\n  return %g \"g\"\n}\n");
    refuse("func @f entry (%x : f32[8," ONES "]) {\n"
           "  %y = slice %x {start = [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0], step = [2," ONES "]} : f32[3," ONES "]\n"
           "  %z = reshape %y : f32[3]\n  %s = reduce_sum %z {axes = [0], keep = 0} : f32[]\n"
           "  %g = gradient %s, %x : f32[8," ONES "]\n  return %g \"g\"\n}\n");
}

/* What is computed behind a loss's first gradient cannot have led to it. */
static void later_values_have_no_gradient(void **state) {
    (void)state;
    bool ok;
    char *text = pass_run("grad",
                          "func @f entry (%x : f32[3]) {\n"
                          "  %s = reduce_sum %x {axes = [0], keep = 0} : f32[]\n"
                          "  %g = gradient %s, %x : f32[3]\n  %y = mul %g, %x : f32[3]\n"
                          "  %h = gradient %s, %y : f32[3]\n  return %h \"h\"\n}\n",
                          NULL, &ok);
    assert_true(ok);
    assert_non_null(strstr(text, "value = f32[] [0]"));
    assert_null(strstr(text, "mul"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_agree_with_differences),
        cmocka_unit_test(every_rule_has_a_case),
        cmocka_unit_test(frozen_weights_have_no_gradient),
        cmocka_unit_test(parameters_are_losses),
        cmocka_unit_test(refuses_what_has_no_rule),
        cmocka_unit_test(refuses_too_many_axes),
        cmocka_unit_test(later_values_have_no_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
