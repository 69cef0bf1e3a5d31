/* The text form of the IR: print and parse are exact inverses; errors name their place; hostile text is refused
 * without harm; the verifier catches what the parser lets through. */
#include "compiler/pass.h"
#include "compiler/paranoid.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *p = calloc(1, 1 << 20);
    *n = fread(p, 1, (1 << 20) - 1, f);
    fclose(f);
    return p;
}

static char *fixture(size_t *n)
{
    return slurp(MOEC_SOURCE_DIR "/tests/ir/roundtrip.ir", n);
}

static void print_parse_print(void **state)
{
    (void)state;
    size_t n;
    char *text = fixture(&n);
    Diag *d = diag_new();
    Module *m = module_parse(d, "roundtrip.ir", text, n);
    Text out = {0};
    diag_flush(d);
    assert_non_null(m);
    assert_true(module_verify(m, d, true));
    module_print(m, &out);
    assert_int_equal(out.n, n);
    assert_memory_equal(out.p, text, n);
    assert_true(roundtrip_check(m, d));
    text_free(&out);
    module_free(m);
    diag_free(d);
    free(text);
}

/* What reaches stderr when the text is parsed and verified: captured through a file. */
static char *complaint(const char *text, size_t n)
{
    static char buffer[4096];
    char name[] = "test_text_XXXXXX";
    int fd = mkstemp(name), saved = dup(2);
    assert_true(fd >= 0 && saved >= 0);
    fflush(stderr);
    dup2(fd, 2);
    Diag *d = diag_new();
    Module *m = module_parse(d, "x.ir", text, n);
    bool ok = m && module_verify(m, d, true);
    diag_flush(d);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    ssize_t got = pread(fd, buffer, sizeof buffer - 1, 0);
    buffer[got > 0 ? got : 0] = 0;
    close(fd);
    unlink(name);
    module_free(m);
    diag_free(d);
    assert_true(ok == (buffer[0] == 0));
    return buffer;
}

static void errors_name_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        {"hello", "x.ir:1:1: error: expected sym"},
        {"sym B = 4..1\n", "x.ir:1:"},
        {"sym B = 1..4\nsym B = 1..4\n", "x.ir:2:"},
        {"param @w : f32[2] frozen = [1]\n", "x.ir:1:"},
        {"param @w : f32[2] frozen = [1, x]\n", "expected a number"},
        {"param @w : i8[1] frozen = [300]\n", "does not fit i8"},
        {"param @w : f32[140737488355328,9] frozen\n", "too large"},
        {"param @w : f32[1000000000] const = splat 0\n", "too many bytes"},
        {"param @w : f32[2] frozen init @f\n", "there is no function f"},
        {"func @f entry (%a : f32[N]) {\n  return %a \"a\"\n}\n", "symbol N is not declared"},
        {"func @f entry (%a : f32[2]) {\n  %b = nop %a : f32[2]\n  return %b \"b\"\n}\n", "x.ir:2:11: error: there is no op nop"},
        {"func @f entry (%a : f32[2]) {\n  %b = neg %c : f32[2]\n  return %b \"b\"\n}\n", "value c is not defined"},
        {"func @f entry (%a : f32[2]) {\n  %a = neg %a : f32[2]\n  return %a \"b\"\n}\n", "defined twice"},
        {"func @f entry (%a : f32[2]) {\n  %b = neg %a {axis = 0, axis = 0} : f32[2]\n", "stands twice"},
        {"func @f entry (%a : f32[2]) {\n  %b = neg %a {axes = [1, 9223372036854775808]} : f32[2]\n", "out of range"},
        {"func @f entry (%a : f32[2]) {\n", "has no end"},
        /* the verifier */
        {"func @f entry (%a : f32[2]) {\n  %b = neg %a : f32[3]\n  return %b \"b\"\n}\n", "result 0 is stated as f32[3]"},
        {"func @f entry (%a : f32[2]) {\n  %b = neg %a {axis = 0} : f32[2]\n  return %b \"b\"\n}\n", "does not belong"},
        {"func @f entry (%a : f32[2]) {\n  %b = add %a : f32[2]\n  return %b \"b\"\n}\n", "1 operands"},
        {"func @f entry (%a : f32[2]) {\n  %b = neg _ : f32[2]\n  return %b \"b\"\n}\n", "may not be left out"},
        {"sym S = 1..9\nfunc @f entry (%a : f32[S,4]) {\n  %b = reshape %a : f32[S,5]\n  return %b \"b\"\n}\n",
         "element counts differ"},
        {"sym S = 1..9\nfunc @f entry (%a : f32[S]) {\n  %b = slice %a {start = [S], step = [1]} : f32[1]\n"
         "  return %b \"b\"\n}\n", "reaches outside"},
        {"func @f entry (%a : f32[*]) {\n  return %a \"b\"\n}\n", "unranked after bind"},
        {"func @f entry (%a : f32[2], %\"a\" : f32[2]) {\n  return %a \"b\"\n}\n", "defined twice"},
        {"func @f body (%a : f32[2]) {\n  %b = call %a {func = @f} : f32[2]\n  return %b \"b\"\n}\n", "calls itself"},
        {"param @w : f32[2] frozen\nfunc @k kernel (%a : f32[2]) {\n  %b = add %a, @w : f32[2]\n  return %b \"b\"\n}\n",
         "kernel names parameter"},
        {"param @w : f32[2] const init @g\nfunc @g init () {\n  %b = neg @w : f32[2]\n  return %b \"b\"\n}\n",
         "calls itself"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *said = complaint(cases[i].text, strlen(cases[i].text));
        if (!strstr(said, cases[i].wanted))
            fail_msg("case %zu: '%s' was expected in: %s", i, cases[i].wanted, said);
    }
}

/* Every prefix and many one-byte changes: refused or taken, never a crash; what is taken round-trips. */
static void mutations(void **state)
{
    (void)state;
    size_t n;
    char *text = fixture(&n);
    uint64_t random = 1;
    for (size_t i = 0; i < n + 4000; i++) {
        char *copy = malloc(n + 1);
        size_t len = i < n ? i : n;
        memcpy(copy, text, len);
        if (i >= n)
            for (int k = 0; k < 3; k++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                copy[(random >> 33) % n] = (char)(random >> 20);
            }
        Diag *d = diag_new();
        Module *m = module_parse(d, "x.ir", copy, len);
        if (m && module_verify(m, d, false))
            assert_true(roundtrip_check(m, d));
        module_free(m);
        diag_free(d);
        free(copy);
    }
    free(text);
}

static void names_are_made_unique(void **state)
{
    (void)state;
    Module *m = module_new();
    Diag *d = diag_new();
    Func *f = func_begin(m, str_c("main"), FR_ENTRY);
    ValueId x = func_input(m, f, str_c("in put"), type_scalar(DT_F32));
    static const char *const hints[] = {"a/b", "a/b", "a_b.1", "", "7", "in put", ""};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        x = build_unary(m, f, OP_neg, x, str_c("odd \"origin\"\n"));
        f->value[x].name = str_c(hints[i]);
    }
    func_output(m, f, x, str_c("y"));
    func_end(m, f, NONE);
    assert_true(module_verify(m, d, true));
    assert_true(roundtrip_check(m, d));
    Text out = {0};
    module_print(m, &out);
    text_add(&out, "", 1);
    assert_non_null(strstr(out.p, "%a_b.1 = neg %a_b :"));
    assert_non_null(strstr(out.p, "%_7 = neg %0 :"));
    text_free(&out);
    diag_free(d);
    module_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(print_parse_print),
        cmocka_unit_test(errors_name_their_place),
        cmocka_unit_test(mutations),
        cmocka_unit_test(names_are_made_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
