/* `fold` and `cse`: rules fire, known values leave the program, and results stay what they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass_test.h"

typedef struct Case {
    const char *name, *passes, *inputs, *body, *wanted[5], *unwanted[3];
} Case;

#define X "%x : f32[B,S,8]"

static const Case cases[] = {
    {"identities",
     "fold",
     X,
     "%o = const {value = f32[] [1]} : f32[]\n"
     "%z = const {value = f32[1] [0]} : f32[1]\n"
     "%a = mul %x, %o : f32[B,S,8]\n"
     "%b = add %z, %a : f32[B,S,8]\n"
     "%c = div %b, %o : f32[B,S,8]\n"
     "%d = neg %c : f32[B,S,8]\n"
     "%e = neg %d : f32[B,S,8]\n"
     "%f = cast %e {to = f32} : f32[B,S,8]\n"
     "%t = transpose %f {perm = [1, 0, 2]} : f32[S,B,8]\n"
     "%r = transpose %t {perm = [1, 0, 2]} : f32[B,S,8]\n",
     {"return %x \"r\""},
     {"mul", "transpose", "const"}},
    {"norm forms",
     "fold",
     X,
     "%o = const {value = f32[] [1]} : f32[]\n"
     "%two = const {value = f32[] [2]} : f32[]\n"
     "%p = pow %x, %two : f32[B,S,8]\n"
     "%m = reduce_mean %p {axes = [2], keep = 1} : f32[B,S,1]\n"
     "%s = sqrt %m : f32[B,S,1]\n"
     "%i = div %o, %s : f32[B,S,1]\n"
     "%r = mul %x, %i : f32[B,S,8]\n",
     {"mul %x, %x", "rsqrt"},
     {"pow", "div", "recip"}},
    {"cube",
     "fold",
     X,
     "%three = const {value = f32[] [3]} : f32[]\n"
     "%r = pow %x, %three : f32[B,S,8]\n",
     {"mul %x, %x"},
     {"pow"}},
    {"reshapes",
     "fold",
     X,
     "%a = reshape %x : f32[B,S,4,2]\n"
     "%b = reshape %a : f32[B,S,2,4]\n"
     "%r = reshape %b : f32[B,8*S]\n",
     {"reshape %x : f32[B,8*S]"},
     {"f32[B,S,4,2]"}},
    {"broadcast under a pointwise op",
     "fold",
     X ", %v : f32[S,1]",
     "%w = broadcast %v : f32[B,S,8]\n"
     "%r = add %x, %w : f32[B,S,8]\n",
     {"add %x, %v : f32[B,S,8]"},
     {"broadcast"}},
    {"broadcasts sink",
     "fold",
     "%x : f32[S]",
     "%w = broadcast %x : f32[B,S]\n"
     "%e = exp %w : f32[B,S]\n"
     "%r = add %e, %w : f32[B,S]\n",
     {"exp %x : f32[S]", "f32[S]", "broadcast"},
     {"exp %w"}},
    {"known choice",
     "fold",
     X,
     "%c = const {value = bool[] [1]} : bool[]\n"
     "%n = neg %x : f32[B,S,8]\n"
     "%r = select %c, %n, %x : f32[B,S,8]\n",
     {"neg"},
     {"select"}},
    {"positions inside their extent",
     "fold",
     X,
     "%i = iota {axis = 0} : i64[S]\n"
     "%z = const {value = i64[] [0]} : i64[]\n"
     "%s = dim {dim = S} : i64[]\n"
     "%neg = lt %i, %z : bool[S]\n"
     "%up = add %i, %s : i64[S]\n"
     "%j = select %neg, %up, %i : i64[S]\n"
     "%k = max %j, %z : i64[S]\n"
     "%r = gather %x, %k {axis = 1} : f32[B,S,8]\n",
     {"return %x \"r\""},
     {"select", "gather"}},
    {"gather_nd at every position",
     "fold",
     "%x : bool[B,S]",
     "%b = iota {axis = 0} : i64[B,1,1,1,1]\n"
     "%s = iota {axis = 3} : i64[1,1,1,S,1]\n"
     "%bw = broadcast %b : i64[B,1,1,S,1]\n"
     "%sw = broadcast %s : i64[B,1,1,S,1]\n"
     "%i = concat %bw, %sw {axis = 4} : i64[B,1,1,S,2]\n"
     "%r = gather_nd %x, %i {batch = 0} : bool[B,1,1,S]\n",
     {"reshape %x : bool[B,1,1,S]"},
     {"gather_nd", "iota"}},
    {"scatter_nd over every position",
     "fold",
     "%x : f32[B,S], %u : f32[B,S]",
     "%b = iota {axis = 0} : i64[B]\n"
     "%s = iota {axis = 0} : i64[S]\n"
     "%b2 = reshape %b : i64[B,1]\n"
     "%bw = broadcast %b2 : i64[B,S]\n"
     "%sw = broadcast %s : i64[B,S]\n"
     "%b3 = reshape %bw : i64[B,S,1]\n"
     "%s3 = reshape %sw : i64[B,S,1]\n"
     "%i = concat %b3, %s3 {axis = 2} : i64[B,S,2]\n"
     "%r = scatter_nd %x, %i, %u : f32[B,S]\n",
     {"return %u \"r\""},
     {"scatter_nd"}},
    {"slices",
     "fold",
     X,
     "%a = slice %x {start = [0, 0, 2], step = [1, 1, 1]} : f32[B,S,6]\n"
     "%b = slice %a {start = [0, 0, 1], step = [1, 1, 1]} : f32[B,S,3]\n"
     "%c = concat %b, %a {axis = 2} : f32[B,S,9]\n"
     "%r = slice %c {start = [0, 0, 3], step = [1, 1, 1]} : f32[B,S,6]\n",
     {"start = [0, 0, 2]"},
     {"concat", "f32[B,S,3]"}},
    {"slices without steps",
     "fold",
     X ", %v : f32[3]",
     "%a = slice %x {start = [0, 0, 2]} : f32[B,S,6]\n"
     "%b = slice %a {start = [0, 0, 1]} : f32[B,S,3]\n"
     "%c = broadcast %v : f32[B,S,1,3]\n"
     "%d = slice %c {start = [0, 0, 0, 2]} : f32[B,S,1,1]\n"
     "%e = reshape %d : f32[B,S,1]\n"
     "%r = add %b, %e : f32[B,S,3]\n",
     {"slice %x {start = [0, 0, 3]}"},
     {"f32[B,S,6]", "f32[B,S,1,3]"}},
    {"literals are computed",
     "fold",
     X,
     "%i = iota {axis = 0} : i64[4]\n"
     "%c = cast %i {to = f32} : f32[4]\n"
     "%m = matmul %p, %q : f32[1,1]\n"
     "%s = reduce_sum %c {axes = [0], keep = 0} : f32[]\n"
     "%t = mul %s, %m : f32[1,1]\n"
     "%r = add %x, %t : f32[B,S,8]\n",
     {"[66]"},
     {"matmul", "iota", "reduce_sum"}},
    {"weights become parameters",
     "fold",
     X,
     "%w = transpose @w {perm = [1, 0]} : f32[8,16]\n"
     "%h = cast @h {to = f32} : f32[8]\n"
     "%m = matmul %x, %w : f32[B,S,16]\n"
     "%n = mul %x, %h : f32[B,S,8]\n"
     "%r = concat %m, %n {axis = 2} : f32[B,S,24]\n",
     {"param @w.transpose : f32[8,16] frozen init", "param @h.cast : f32[8] frozen init",
      "matmul %x, @w.transpose"},
     {"matmul %x, %w"}},
    {"equal nodes",
     "cse",
     X,
     "%a = exp %x : f32[B,S,8]\n"
     "%b = exp %x : f32[B,S,8]\n"
     "%d = neg %x : f32[B,S,8]\n"
     "%r = add %a, %b : f32[B,S,8]\n",
     {"add %a, %a"},
     {"%b", "neg"}},
};

static void folded(const Case *c) {
    static char text[8192];
    bool ok;
    snprintf(
        text, sizeof text,
        "sym B = 1..8\nsym S = 1..32\n"
        "param @w : f32[16,8] frozen = splat 0.5\nparam @h : f16[8] frozen = [1, 2, 3, 4, 5, 6, 7, 8]\n\n"
        "func @main entry (%s) {\n%s%s  return %%r \"r\"\n}\n",
        c->inputs,
        strstr(c->body, "%p, %q") ? "%p = const {value = f32[1,2] [1, 2]} : f32[1,2]\n"
                                    "%q = const {value = f32[2,1] [3, 4]} : f32[2,1]\n"
                                  : "",
        c->body);
    char *out = pass_run(c->passes, text, NULL, &ok);
    if (!ok)
        fail_msg("%s: refused", c->name);
    for (int i = 0; i < 5 && c->wanted[i]; i++)
        if (!strstr(out, c->wanted[i]))
            fail_msg("%s: no `%s` in\n%s", c->name, c->wanted[i], out);
    const char *main_text = strstr(out, "func @main");
    for (int i = 0; i < 3 && c->unwanted[i]; i++)
        if (strstr(main_text, c->unwanted[i]))
            fail_msg("%s: there is `%s` in\n%s", c->name, c->unwanted[i], out);
    char *again = pass_run(c->passes, out, NULL, &ok); /* nothing is left to do */
    if (!ok || strcmp(out, again) != 0)
        fail_msg("%s: a second run changes\n%s\nto\n%s", c->name, out, again);
    free(again);
    free(out);
}

static void all_cases(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        folded(&cases[i]);
}

/* Two values made of one parameter by one op: the functions that make them are told apart. */
static void names_of_functions(void **state) {
    (void)state;
    bool ok;
    char *text = pass_run("fold",
                          "param @p : f32[2,3] frozen\nfunc @main entry (%x : f32[2]) {\n"
                          "  %a = reduce_sum @p {axes = [0], keep = 0} : f32[3]\n"
                          "  %b = reduce_sum @p {axes = [1], keep = 0} : f32[2]\n"
                          "  return %a \"a\", %b \"b\", %x \"x\"\n}\n",
                          NULL, &ok);
    assert_true(ok);
    assert_non_null(strstr(text, "func @p.reduce_sum init"));
    assert_non_null(strstr(text, "func @p.reduce_sum.1 init"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_cases), cmocka_unit_test(names_of_functions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
