/* Remarks: the collector, its printers, and that passes give their reasons. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/pass.h"
#include "compiler/remark.h"

#include <stdio.h>
#include <string.h>

/* Node 0 of a function whose only node has this origin and site. */
static Module *with_node(Diag *d, const char *origin, const char *site) {
    Text t = {0};
    text_printf(&t,
                "func @main entry (%%x : f32[2]) {\n  %%y = exp %%x {site = \"%s\"} : f32[2]  !\"%s\"\n  "
                "return %%y \"y\"\n}\n",
                site, origin);
    Module *m = module_parse(d, "test.ir", t.p, t.n);
    text_free(&t);
    assert_non_null(m);
    return m;
}

static void nobody_asks(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = with_node(d, "n", "s.0.x");
    assert_null(m->remarks);
    remark(m, R_kernel, m->func[0], &m->func[0]->node[0], "%s", "not kept");
    m->remarks = remarks_new();
    assert_int_equal(remarks_count(m->remarks), 0);
    remark(m, R_kernel, m->func[0], &m->func[0]->node[0], "%s", "kept");
    assert_int_equal(remarks_count(m->remarks), 1);
    remarks_free(m->remarks);
    module_free(m);
    diag_free(d);
}

static void layers_are_one_line(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = with_node(d, "n", "s.0.x");
    const Func *f = m->func[0];
    Text out = {0};
    m->remarks = remarks_new();
    for (int i = 0; i < 12; i++) {
        char place[64];
        snprintf(place, sizeof place, "encoder.%d.self.q", i);
        remark_at(m, R_kernel, f, str_c(place), "reads \"w.%d\" of 4 axes", 40 + i);
    }
    remark_at(m, R_kernel, f, str_c("encoder.3.self.q"),
              "reads \"w.7\" of 5 axes"); /* another number outside of a name */
    remark_at(m, R_alone, f, str_c("encoder.0.self.o"), "why");
    remark_at(m, R_alone, f, str_c("encoder.2.self.o"), "why");
    remark_at(m, R_alone, f, str_c("encoder.2.self.o"), "why");
    remark_at(m, R_alone, f, str_c("layer.1.self.7"), "why");
    remark_at(m, R_alone, f, str_c("layer.1.self.8"), "why"); /* only the first number is a layer's */
    remark_at(m, R_folded, NULL, str_c(""), "of the module");
    remarks_text(m->remarks, &out);
    assert_string_equal(out.p, "# 0 applied, 5 missed, 14 notes\n\n"
                               "@main\n"
                               "  fuse   note     encoder.{0..11}.self.q: reads \"w.*\" of 4 axes\n"
                               "  fuse   note     encoder.3.self.q: reads \"w.7\" of 5 axes\n"
                               "  fuse   missed   encoder.{0,2}.self.o: why (3 times)\n"
                               "  fuse   missed   layer.1.self.7: why\n"
                               "  fuse   missed   layer.1.self.8: why\n"
                               "\nthe module\n"
                               "  fold   note     of the module\n");
    text_free(&out);
    remarks_free(m->remarks);
    module_free(m);
    diag_free(d);
}

static void names_are_escaped(void **state) {
    (void)state;
    Diag *d = diag_new();
    Module *m = with_node(d, "a\\012b\\042c\\377", "s.\\033[31m");
    Text out = {0};
    m->remarks = remarks_new();
    remark(m, R_kernel, m->func[0], &m->func[0]->node[0], "of \"%s\"", "x\ny\\");
    remarks_json(m->remarks, &out);
    assert_string_equal(
        out.p,
        "{\"pass\":\"fuse\",\"kind\":\"note\",\"name\":\"kernel\",\"function\":\"main\",\"place\":\"s."
        "\\u001b[31m\","
        "\"origin\":\"a\\u000ab\\\"c\\ufffd\",\"message\":\"of \\\"x\\u000ay\\\\\\\"\"}\n");
    out.n = 0;
    remarks_text(m->remarks, &out);
    assert_string_equal(
        out.p, "# 0 applied, 0 missed, 1 notes\n\n@main\n  fuse   note     s.\\033[31m: of \"x\\012y\\\"\n");
    text_free(&out);
    remarks_free(m->remarks);
    module_free(m);
    diag_free(d);
}

/* What the passes of `list` tell of a module, as text. */
static Text told(const char *text, const PassId *list, uint32_t n) {
    Diag *d = diag_new();
    Module *m = module_parse(d, "test.ir", text, strlen(text));
    PassOptions o = {.opt_level = 2, .plain = true};
    PassRun run = {.options = &o, .list = list, .n_list = n, .bound = true};
    Text out = {0};
    diag_flush(d);
    assert_non_null(m);
    m->remarks = remarks_new();
    assert_true(passes_run(m, &run, d));
    remarks_text(m->remarks, &out);
    remarks_free(m->remarks);
    module_free(m);
    diag_free(d);
    return out;
}

#define TELLS(text, pass, ...)                                                                               \
    do {                                                                                                     \
        Text out_ = told(text, (PassId[]){PASS_##pass}, 1);                                                  \
        const char *want_[] = {__VA_ARGS__};                                                                 \
        for (size_t i_ = 0; i_ < sizeof want_ / sizeof *want_; i_++)                                         \
            if (!strstr(out_.p, want_[i_]))                                                                  \
                fail_msg("'%s' is not in:\n%s", want_[i_], out_.p);                                          \
        text_free(&out_);                                                                                    \
    } while (0)

#define HEAD                                                                                                 \
    "sym B = 1..4\nparam @g : f32[8] frozen\nparam @v : f32[8,16] frozen\nparam @w : f32[8,16] "             \
    "frozen\nparam @u : f32[16,8] adapter\n"
#define NORM "func @f entry (%x : f32[B,8]) {\n  %n = rms_norm %x, @g {eps = 1e-06} : f32[B,8]  !\"norm\"\n"

static void norms(void **state) {
    (void)state;
    TELLS(HEAD NORM "  %a = matmul %n, @v : f32[B,16]  !\"a\"\n  %b = matmul %n, @w : f32[B,16]  !\"b\"\n  "
                    "%c = add %a, %b : f32[B,16]\n"
                    "  return %c \"c\"\n}\n",
          fuse, "applied  a: gain of \"norm\" in the weight", "applied  b: gain of \"norm\"",
          "applied  a: one product of 32 columns: \"a\" | \"b\"");
    TELLS(HEAD NORM "  %a = matmul %n, @v : f32[B,16]  !\"a\"\n  return %a \"a\", %n \"n\"\n}\n", fuse,
          "missed   a: the norm in front of it stays: it is an output as well");
    TELLS(HEAD NORM "  %a = matmul %n, @v : f32[B,16]  !\"a\"\n  %e = exp %n : f32[B,8]  !\"e\"\n  return %a "
                    "\"a\", %e \"e\"\n}\n",
          fuse, "missed   a: the norm in front of it stays: exp reads it as well (\"e\")");
    TELLS(HEAD NORM "  %a = matmul %n, @u {tb = 1} : f32[B,16]  !\"a\"\n  return %a \"a\"\n}\n", fuse,
          "missed   a: the norm in front of it stays: the product reads an operand transposed");
    TELLS(HEAD NORM "  %a = matmul %n, @v : f32[B,16]  !\"a\"\n  %k = matmul @v, @u : f32[8,8]\n  %t = "
                    "transpose @v {perm = [1, 0]} : f32[16,8]\n"
                    "  %b = matmul %a, %t : f32[B,8]\n  return %b \"b\", %k \"k\"\n}\n",
          fuse, "missed   a: the norm in front of it stays: something else reads the weight as it is");
}

static void apart(void **state) {
    (void)state;
    TELLS("param @v : f32[8,16] frozen\nparam @w : f32[8,4] adapter\nfunc @f entry (%x : f32[2,8]) {\n"
          "  %a = matmul %x, @v : f32[2,16]  !\"a\"\n  %b = matmul %x, @w : f32[2,4]  !\"b\"\n  return %a "
          "\"a\", %b \"b\"\n}\n",
          fuse,
          "missed   b: not beside \"a\", whose input it reads: its weight comes with the adapter, the other "
          "is frozen");
}

static void kernels(void **state) {
    (void)state;
    TELLS("sym B = 1..4\nparam @w : f32[8,8] frozen\nfunc @f entry (%x : f32[B,8]) {\n  %a = matmul %x, @w : "
          "f32[B,8]  !\"a\"\n"
          "  %s = add %a, %x : f32[B,8]  !\"s\"\n  %r = reduce_sum %s {axes = [0], keep = 0} : f32[8]  "
          "!\"r\"\n  return %r \"r\"\n}\n",
          fuse, "applied  s: the sum stands in the kernel of \"a\"", "note     a: kernel @add_",
          "missed   r: reduce_sum: not in the kernel of \"a\": it folds values of several rows into one",
          "missed   r: reduce_sum: alone in its kernel: its result has no axis besides that of the rows");
}

static void patterns(void **state) {
    (void)state;
    TELLS("func @f entry (%x : f32[2,8]) {\n  %s = softmax %x {axis = 1} : f32[2,8]  !\"s\"\n  %e = erf %s : "
          "f32[2,8]  !\"e\"\n  return %e \"e\"\n}\n",
          match, "missed   s: a softmax, but not between products",
          "missed   e: erf: the exact form of gelu");
    static const char norm[] =
        "param @g : f32[2,8] frozen\nfunc @f entry (%%x : f32[2,8], %%y : f32[2,8]) {\n"
        "  %%q = mul %%x, %%x : f32[2,8]\n  %%m = reduce_mean %%q {axes = [1], keep = 1} : f32[2,1]\n"
        "  %%c = const {value = f32[] [1e-06]} : f32[]\n  %%a = add %%m, %%c : f32[2,1]\n"
        "  %%r = rsqrt %%a : f32[2,1]  !\"root\"\n  %%n = mul %%%s, %%r : f32[2,8]  !\"n\"\n  return %%n "
        "\"n\"\n}\n";
    char text[1000];
    snprintf(text, sizeof text, norm, "x");
    TELLS(text, match, "applied  n: rms_factor: a norm without a gain");
    snprintf(text, sizeof text, norm, "y");
    TELLS(text, match, "missed   root: the product lacks the value whose mean square it is");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_asks),
        cmocka_unit_test(layers_are_one_line),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(norms),
        cmocka_unit_test(apart),
        cmocka_unit_test(kernels),
        cmocka_unit_test(patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
