/* `bind`: every dynamic op becomes static, contents pass through shape arithmetic, symbols that meet are made
 * one. Each run is checked by the interpreter too: results before and after are equal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pass_test.h"

typedef struct Case {
    const char *name, *inputs, *body, *wanted[6];
} Case;

#define X "%x : f32[B,S,8]"

static const Case cases[] = {
    {"shape vector with -1 and a product",
     X,
     "%s = shape %x {start = [0]} : i64[3]\n"
     "%i = const {value = i64[1] [0]} : i64[1]\n"
     "%b = dyn_gather %s, %i {axis = 0} : i64[*]\n"
     "%t = const {value = i64[3] [-1, 2, 4]} : i64[3]\n"
     "%to = dyn_concat %b, %t {axis = 0} : i64[*]\n"
     "%r = dyn_reshape %x, %to : f32[*]\n",
     {"reshape %x : f32[B,S,2,4]"}},
    {"copied extent",
     X,
     "%t = const {value = i64[2] [0, -1]} : i64[2]\n"
     "%r = dyn_reshape %x, %t : f32[*]\n",
     {"reshape %x : f32[B,8*S]"}},
    {"the guard of torch's expand",
     X,
     "%s = shape %x {start = [0]} : i64[3]\n"
     "%ss = shape %s {start = [0]} : i64[1]\n"
     "%ones = dyn_fill %ss {value = i64[1] [1]} : i64[*]\n"
     "%m1 = const {value = i64[] [-1]} : i64[]\n"
     "%neg = mul %ones, %m1 : i64[*]\n"
     "%eq = eq %s, %neg : bool[*]\n"
     "%to = select %eq, %ones, %s : i64[*]\n"
     "%one = const {value = f32[1] [2]} : f32[1]\n"
     "%r = dyn_broadcast %one, %to : f32[*]\n",
     {"broadcast", ": f32[B,S,8]"}},
    {"range to an extent, symbolic end of a slice",
     X,
     "%n = shape %x {start = [1], k = 1} : i64[1]\n"
     "%a0 = const {value = i64[1] [0]} : i64[1]\n"
     "%ns = dyn_squeeze %n, %a0 : i64[*]\n"
     "%z = const {value = i64[] [0]} : i64[]\n"
     "%o = const {value = i64[] [1]} : i64[]\n"
     "%g = dyn_range %z, %ns, %o : i64[*]\n"
     "%g2 = add %g, %ns : i64[*]\n"
     "%r = dyn_slice %g2, %a0, %n, %a0 : i64[*]\n",
     {"iota {axis = 0} : i64[S]", "dim {dim = S} : i64[]"}},
    {"range with a step and a start",
     X,
     "%n = shape %x {start = [1], k = 1} : i64[1]\n"
     "%ns = dyn_squeeze %n : i64[*]\n"
     "%z = const {value = i64[] [1]} : i64[]\n"
     "%o = const {value = i64[] [2]} : i64[]\n"
     "%r = dyn_range %z, %ns, %o : i64[*]\n",
     {"i64[floordiv(S, 2)]"}},
    {"last rows, and everything",
     X,
     "%m = const {value = i64[1] [-1]} : i64[1]\n"
     "%end = const {value = i64[1] [9223372036854775807]} : i64[1]\n"
     "%ax = const {value = i64[1] [1]} : i64[1]\n"
     "%l = dyn_slice %x, %m, %end, %ax : f32[*]\n"
     "%z = const {value = i64[1] [0]} : i64[1]\n"
     "%w = dyn_slice %x, %z, %end, %ax : f32[*]\n"
     "%r = add %l, %w : f32[*]\n",
     {"slice %x {start = [0, S - 1, 0], step = [1, 1, 1]} : f32[B,1,8]", "add %l, %x"}},
    {"backwards",
     X,
     "%m = const {value = i64[1] [-1]} : i64[1]\n"
     "%end = const {value = i64[1] [-9223372036854775807]} : i64[1]\n"
     "%ax = const {value = i64[1] [1]} : i64[1]\n"
     "%r = dyn_slice %x, %m, %end, %ax, %m : f32[*]\n",
     {"slice %x {start = [0, S - 1, 0], step = [1, -1, 1]} : f32[B,S,8]"}},
    {"tile",
     X,
     "%t = const {value = i64[3] [1, 3, 1]} : i64[3]\n"
     "%r = dyn_tile %x, %t : f32[*]\n",
     {"f32[B,1,S,8]", "f32[B,3,S,8]", "f32[B,3*S,8]"}},
    {"old softmax",
     X,
     "%r = dyn_softmax %x {axis = 1, keep = 1} : f32[*]\n",
     {"f32[B,8*S]", "softmax", "f32[B,S,8]"}},
    {"vector times matrix",
     "%x : f32[8], %y : f32[B,8,S]",
     "%r = dyn_matmul %x, %y : f32[*]\n",
     {"reshape %x : f32[1,8]", "f32[B,1,S]", "f32[B,S]"}},
    {"triangle", X, "%r = dyn_trilu %x {upper = 0} : f32[*]\n", {"le", "select"}},
    {"reductions of shapes",
     X,
     "%s = shape %x {start = [0]} : i64[3]\n"
     "%p = dyn_reduce %s {kind = \"prod\", keep = 1} : i64[*]\n"
     "%r = dyn_reshape %x, %p : f32[*]\n",
     {"reshape %x : f32[8*B*S]"}},
    {"extent through a float",
     X,
     "%s = shape %x {start = [1], k = 1} : i64[1]\n"
     "%f = cast %s {to = f32} : f32[1]\n"
     "%two = const {value = f32[1] [2]} : f32[1]\n"
     "%g = mul %f, %two : f32[1]\n"
     "%i = cast %g {to = i64} : i64[1]\n"
     "%four = const {value = i64[2] [-1, 4]} : i64[2]\n"
     "%to = dyn_concat %i, %four {axis = 0} : i64[*]\n"
     "%r = dyn_reshape %x, %to : f32[*]\n",
     {"reshape %x : f32[2*S,B,4]"}},
    {"split in parts",
     X,
     "%p, %q = dyn_split %x {axis = -1, k = 2} : f32[*], f32[*]\n"
     "%r = mul %p, %q : f32[*]\n",
     {"slice %x {start = [0, 0, 4]", "f32[B,S,4]"}},
    {"symbols that meet",
     "%x : f32[B,S,8], %y : f32[B,T,8]",
     "%r = add %x, %y : f32[*]\n",
     {"%y : f32[B,S,8]"}},
    {"symbols that meet in a product",
     "%x : f32[B,S,8], %y : f32[C,8,S]",
     "%r = dyn_matmul %x, %y : f32[*]\n",
     {"%y : f32[B,8,S]", "f32[B,S,S]"}},
    {"f16 inside is f32",
     "%x : f16[B,S]",
     "%c = const {value = f16[] [2]} : f16[]\n"
     "%m = mul %x, %c : f16[B,S]\n"
     "%w = cast %m {to = f32} : f32[B,S]\n"
     "%n = cast %w {to = f16} : f16[B,S]\n"
     "%r = add %n, %c : f16[B,S]\n",
     {"cast %x {to = f32}", "mul", "add", "{to = f16} : f16[B,S]"}},
    {"the f16 guard is dropped",
     "%x : f16[B,S]",
     "%h = add %x, %x : f16[B,S]\n"
     "%w = cast %h {to = f32} : f32[B,S]\n"
     "%i = isinf %w : bool[B,S]\n"
     "%c = cast %i {to = i64} : i64[B,S]\n"
     "%s = dyn_reduce %c {kind = \"sum\", keep = 0} : i64[*]\n"
     "%z = const {value = i64[] [0]} : i64[]\n"
     "%any = gt %s, %z : bool[*]\n"
     "%lo = const {value = f16[] [64504]} : f16[]\n"
     "%hi = const {value = f16[] [65504]} : f16[]\n"
     "%top = select %any, %lo, %hi : f16[*]\n"
     "%bot = neg %top : f16[*]\n"
     "%k = max %h, %bot : f16[*]\n"
     "%r = min %k, %top : f16[*]\n",
     {"cast %h {to = f16}"}},
};

static void bound(const Case *c) {
    static char text[8192];
    bool ok;
    snprintf(text, sizeof text,
             "sym B = 0..*\nsym S = 0..*\nsym T = 0..*\nsym C = 0..*\n\nfunc @main entry (%s) {\n%s  return "
             "%%r \"r\"\n}\n",
             c->inputs, c->body);
    char *out = pass_run("bind", text, NULL, &ok);
    if (!ok)
        fail_msg("%s: refused", c->name);
    for (int i = 0; i < 6 && c->wanted[i]; i++)
        if (!strstr(out, c->wanted[i]))
            fail_msg("%s: no `%s` in\n%s", c->name, c->wanted[i], out);
    free(out);
}

static void all_cases(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        bound(&cases[i]);
}

static void fixed_and_given(void **state) {
    (void)state;
    static const char text[] = "sym B = 0..*\nsym S = 0..*\n\n"
                               "func @main entry (%x : f32[B,S], %shape : i64[2]) {\n"
                               "  %r = dyn_reshape %x, %shape : f32[*]\n  return %r \"r\"\n}\n";
    int64_t shape[2] = {-1, 6};
    DimBound fixed = {str_c("S"), 12, 12};
    InputValue value = {{"", 0}, str_c("shape"), {.dtype = DT_I64, .rank = 1, .dim = {2}, .data = shape}};
    PassOptions o = {.dim = &fixed, .n_dims = 1, .value = &value, .n_values = 1};
    bool ok;
    char *out = pass_run("bind", text, &o, &ok);
    assert_true(ok);
    assert_non_null(strstr(out, "(%x : f32[B,12])"));
    assert_non_null(strstr(out, "f32[2*B,6]"));
    free(out);
    free(pass_run("bind", text, NULL, &ok)); /* input 'shape' decides a shape */
    assert_false(ok);
    fixed.name = str_c("nobody");
    free(pass_run("bind", text, &o, &ok));
    assert_false(ok);
}

/* Bodies that no symbol values make right. */
static void refusals(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "%i = const {value = i64[] [9]} : i64[]\n%r = dyn_gather %x, %i {axis = 1} : f32[*]\n",
        "%s = const {value = i64[2] [-1, -1]} : i64[2]\n%r = dyn_reshape %x, %s : f32[*]\n",
        "%s = const {value = i64[2] [5, 7]} : i64[2]\n%r = dyn_reshape %x, %s : f32[*]\n",
        "%s = const {value = i64[1] [-3]} : i64[1]\n%r = dyn_fill %s : f32[*]\n",
        "%r = dyn_softmax %x {axis = 2} : f32[*]\n",
        "%r = dyn_transpose %x {perm = [0, 0]} : f32[*]\n",
        ("%a = const {value = i64[1] [0]} : i64[1]\n%e = const {value = i64[1] [3]} : i64[1]\n"
        "%r = dyn_slice %x, %a, %e, %a, %a : f32[*]\n"),
        "%s = const {value = i64[2] [-9223372036854775808, 4]} : i64[2]\n%r = dyn_tile %x, %s : f32[*]\n",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        static char text[2048];
        bool ok;
        snprintf(text, sizeof text,
                 "sym B = 2..*\n\nfunc @main entry (%%x : f32[B,8]) {\n%s  return %%r \"r\"\n}\n", bodies[i]);
        free(pass_run("bind", text, NULL, &ok));
        if (ok)
            fail_msg("accepted: %s", bodies[i]);
    }
}

static const char branches[] = "sym B = 0..*\nsym P = 0..*\n\n"
                               "func @yes body (%a : f32[B,P], %u : f32[B,P]) {\n"
                               "  %s = add %a, %u : f32[B,P]\n  return %s \"s\"\n}\n\n"
                               "func @no body (%a : f32[B,P], %u : f32[B,P]) {\n"
                               "  %s = sub %a, %u : f32[B,P]\n  return %s \"s\"\n}\n\n"
                               "func @main entry (%x : f32[B,P], %y : f32[B,P], %use : bool[1]) {\n"
                               "  %r = if %use, %x, %y {then_func = @yes, else_func = @no} : f32[B,P]\n"
                               "  return %r \"r\"\n}\n";

static void branch_taken(void **state) {
    (void)state;
    uint8_t no = 0;
    InputValue value = {{"", 0}, str_c("use"), {.dtype = DT_BOOL, .rank = 1, .dim = {1}, .data = &no}};
    PassOptions o = {.value = &value, .n_values = 1};
    bool ok;
    char *out = pass_run("bind", branches, &o, &ok);
    assert_true(ok);
    assert_non_null(strstr(out, "sub %x, %y"));
    assert_null(strstr(out, "@yes"));
    free(out);
    out = pass_run("bind", branches, NULL, &ok); /* both are computed */
    assert_true(ok);
    assert_non_null(strstr(out, "= select"));
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_cases),
        cmocka_unit_test(fixed_and_given),
        cmocka_unit_test(refusals),
        cmocka_unit_test(branch_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
