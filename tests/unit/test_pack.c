/* The ops pack and unpack: types, what is refused; the pass: which weights it puts into panels, and what it
 * tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "compiler/remark.h"
#include "pass_test.h"

/* ---- ops ---- */

static Module *parse(const char *text, Diag *d) {
    Module *m = module_parse(d, "case", text, strlen(text));
    if (!m)
        diag_flush(d);
    assert_non_null(m);
    return m;
}

static bool verifies(const char *node) {
    Text text = {0};
    Diag *d = diag_new();
    text_printf(&text,
                "sym N = 1..8\n"
                "func @f entry (%%v : f32[4], %%a : f32[4,33], %%b : f32[2,4,N], %%p : f32[2,4,32], "
                "%%s : f32[N,4,8], %%r : f32[2,2,3,4,16], %%t : f32[72,33], %%w : i32[2,18,32], %%h : i32[2,9,32], "
                "%%d : i32[2,36,32], %%c : f32[2,2,32], %%e : f32[2,3,32]) {\n  %s\n  return %%y \"y\"\n}\n",
                node);
    text_add(&text, "", 1);
    Module *m = parse(text.p, d);
    bool ok = module_verify(m, d, true);
    module_free(m);
    diag_free(d);
    text_free(&text);
    return ok;
}

static void types(void **state) {
    (void)state;
    static const char *const right[] = {
        "%y = pack %a {width = 32} : f32[2,4,32]",
        "%y = pack %a {width = 33} : f32[1,4,33]",
        "%y = pack %a {width = 40} : f32[1,4,40]",
        "%y = pack %b {width = 2} : f32[2,floordiv(N + 1, 2),4,2]",
        "%y = unpack %p : f32[4,33]",
        "%y = unpack %p : f32[4,64]",
        "%y = unpack %s : f32[4,8*N]",
        "%y = unpack %s : f32[4,8*N - 7]",
        "%y = unpack %r : f32[2,2,4,48]",
        "%y = pack %t {width = 32, format = \"bf16\"} : i32[2,36,32]",
        "%y = pack %t {width = 32, format = \"int8\"} : i32[2,18,32]",
        "%y = pack %t {width = 32, format = \"int4\"} : i32[2,9,32]",
        "%y = pack_scales %t {width = 32, format = \"int8\"} : f32[2,2,32]",
        "%y = pack_scales %t {width = 32, format = \"int4\"} : f32[2,3,32]",
        "%y = unpack %d {format = \"bf16\"} : f32[72,33]",
        "%y = unpack %w, %c {format = \"int8\"} : f32[72,33]",
        "%y = unpack %h, %e {format = \"int4\"} : f32[72,33]",
        "%y = quantize %t {format = \"int8\"} : f32[72,33]",
    };
    static const char *const wrong[] = {
        "%y = pack %v {width = 2} : f32[2,2]",
        "%y = pack %a {width = 0} : f32[33,4,0]",
        "%y = pack %a {width = -1} : f32[33,4,1]",
        "%y = pack %a : f32[2,4,32]",
        "%y = pack %a {width = 32} : f32[1,4,32]",
        "%y = pack %a {width = 32} : f64[2,4,32]",
        "%y = unpack %a : f32[33]",
        "%y = unpack %p : f32[4,32]", /* a panel too many */
        "%y = unpack %p : f32[4,65]", /* one too few */
        "%y = unpack %p : f32[5,33]", /* other rows */
        "%y = unpack %p : f32[2,4,32]",
        "%y = unpack %p : i32[4,33]",
        "%y = unpack %s : f32[4,8]", /* panels that may be too many */
        "%y = unpack %s : f32[4,8*N - 8]",
        "%y = unpack %r : f32[2,3,4,48]",
        "%y = pack %t {width = 32, format = \"int7\"} : i32[2,18,32]",
        "%y = pack %w {width = 32, format = \"int8\"} : i32[2,1,5,32]",
        "%y = pack_scales %t {width = 32, format = \"bf16\"} : f32[2,2,32]",
        "%y = unpack %w {format = \"int8\"} : f32[72,33]", /* no scales */
        "%y = unpack %d, %c {format = \"bf16\"} : f32[72,33]",
        "%y = unpack %w, %e {format = \"int8\"} : f32[72,33]",
        "%y = unpack %w, %c {format = \"int8\"} : f32[80,33]",
        "%y = unpack %p, %c {format = \"int8\"} : f32[72,33]",
        "%y = unpack %p {format = \"int7\"} : f32[4,33]",
        "%y = quantize %t {format = \"int4\"} : f32[72,33]",
        "%y = quantize %t : f32[72,33]",
        "%y = quantize %w {format = \"int8\"} : i32[2,18,32]",
    };
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        if (!verifies(right[i]))
            fail_msg("refused: %s", right[i]);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (verifies(wrong[i]))
            fail_msg("taken: %s", wrong[i]);
}

/* The interpreter looks at extents where a dump before `bind` states none. */
static void evaluation(void **state) {
    (void)state;
    static const char text[] =
        "func @f entry () {\n  %a = const {value = i32[2,3] [1, 2, 3, 4, 5, 6]} : i32[2,3]\n"
        "  %p = pack %a {width = 2} : i32[2,2,2]\n  %u = unpack %p : i32[2,3]\n"
        "  return %p \"p\", %u \"u\"\n}\n";
    static const int64_t panels[] = {1, 2, 4, 5, 3, 0, 6, 0}, matrix[] = {1, 2, 3, 4, 5, 6};
    Diag *d = diag_new();
    Module *m = parse(text, d);
    Arena *a = arena_new();
    Tensor out[2];
    assert_true(module_verify(m, d, true));
    assert_true(func_eval(m, module_find(m, "f")->id, NULL, NULL, out, a, d));
    for (int64_t i = 0; i < 8; i++)
        assert_int_equal(tensor_get_i64(&out[0], i), panels[i]);
    for (int64_t i = 0; i < 6; i++)
        assert_int_equal(tensor_get_i64(&out[1], i), matrix[i]);
    arena_free(a);
    module_free(m);
    diag_free(d);
}

/* Words and scales of a column whose numbers are known: -127, 64 and 1 of 127ths; -8, 4 and 1 of eighths. */
static void formats(void **state) {
    (void)state;
    static const char text[] =
        "func @f entry () {\n  %a = const {value = f32[4,1] [-127, 64, 1, 0]} : f32[4,1]\n"
        "  %p = pack %a {width = 1, format = \"int8\"} : i32[1,1,1]\n"
        "  %s = pack_scales %a {width = 1, format = \"int8\"} : f32[1,1,1]\n"
        "  %u = unpack %p, %s {format = \"int8\"} : f32[4,1]\n"
        "  %b = const {value = f32[8,1] [-8, 7, 1, 0, 4, 0, 0, 0]} : f32[8,1]\n"
        "  %q = pack %b {width = 1, format = \"int4\"} : i32[1,1,1]\n"
        "  %t = pack_scales %b {width = 1, format = \"int4\"} : f32[1,1,1]\n"
        "  %v = unpack %q, %t {format = \"int4\"} : f32[8,1]\n"
        "  %c = const {value = f32[2,1] [1, -2]} : f32[2,1]\n"
        "  %w = pack %c {width = 1, format = \"bf16\"} : i32[1,1,1]\n"
        "  %x = const {value = f32[1,3] [-254, 3, 1]} : f32[1,3]\n"
        "  %y = quantize %x {format = \"int8\"} : f32[1,3]\n"
        "  return %p \"p\", %s \"s\", %u \"u\", %q \"q\", %t \"t\", %v \"v\", %w \"w\", %y \"y\"\n}\n";
    static const double numbers[] = {-127, 64, 1, 0}, nibbles[] = {-8, 7, 1, 0, 4, 0, 0, 0}, rounded[] = {-254, 4, 0};
    Diag *d = diag_new();
    Module *m = parse(text, d);
    Arena *a = arena_new();
    Tensor out[8];
    assert_true(module_verify(m, d, true));
    assert_true(func_eval(m, module_find(m, "f")->id, NULL, NULL, out, a, d));
    assert_int_equal((uint32_t)tensor_get_i64(&out[0], 0), 0x8081c001u);
    assert_float_equal(tensor_get_f64(&out[1], 0), 1, 0);
    for (int i = 0; i < 4; i++)
        assert_float_equal(tensor_get_f64(&out[2], i), numbers[i], 0);
    assert_int_equal((uint32_t)tensor_get_i64(&out[3], 0), 0x88898fc0u); /* 4..7 above 0..3 */
    assert_float_equal(tensor_get_f64(&out[4], 0), 1, 0);
    for (int i = 0; i < 8; i++)
        assert_float_equal(tensor_get_f64(&out[5], i), nibbles[i], 0);
    assert_int_equal((uint32_t)tensor_get_i64(&out[6], 0), 0xc0003f80u);
    for (int i = 0; i < 3; i++)
        assert_float_equal(tensor_get_f64(&out[7], i), rounded[i], 0);
    arena_free(a);
    module_free(m);
    diag_free(d);
}

/* ---- the pass ---- */

/* What the pass tells of a module, as text; the module is compared before and after by the interpreter. */
static char *told(const char *text, const char *expected) {
    PassOptions none = {0};
    PassId list[] = {PASS_pack};
    PassRun run = {.options = &none, .list = list, .n_list = 1, .paranoid = true, .bound = true};
    Diag *d = diag_new();
    Module *m = parse(text, d);
    Remarks *remarks = m->remarks = remarks_new();
    Text out = {0}, after = {0};
    assert_true(passes_run(m, &run, d));
    module_print(m, &after);
    text_add(&after, "", 1);
    if (expected && !strstr(after.p, expected))
        fail_msg("%s\nlacks\n%s", after.p, expected);
    remarks_text(remarks, &out);
    char *copy = calloc(1, out.n + 1);
    memcpy(copy, out.p, out.n);
    text_free(&out);
    text_free(&after);
    module_free(m);
    remarks_free(remarks);
    diag_free(d);
    return copy;
}

#define WEIGHT(name, extents) "param @" name " : f32[" extents "] const init @" name "\n"
#define VALUES(name, extents)                                                                                \
    "func @" name " init () {\n  %s = const {value = i64[] [7]} : i64[]\n  %r = random %s : f32[" extents    \
    "]\n  return %r \"value\"\n}\n"

/* A kernel of a product and a function that calls it with @w. */
static void one_kernel(const char *kernel, const char *result, const char *say) {
    Text text = {0};
    text_printf(
        &text,
        "sym N = 1..9\n%s%sfunc @k kernel (%%x : f32[N,4], %%w : f32[4,5]) {\n%s}\n"
        "func @f entry (%%x : f32[N,4]) {\n  %%y = call %%x, @w {func = @k} : %s\n  return %%y \"y\"\n}\n",
        WEIGHT("w", "4,5"), VALUES("w", "4,5"), kernel, result);
    text_add(&text, "", 1);
    char *said = told(text.p, NULL);
    if (!strstr(said, say))
        fail_msg("%s\nlacks\n%s", said, say);
    free(said);
    text_free(&text);
}

static void reasons(void **state) {
    (void)state;
    one_kernel("  %y = matmul %x, %w : f32[N,5]\n  return %y \"\"\n", "f32[N,5]",
               "pack   applied  weight in panels of 16 columns, f32: %y = matmul %x, %0");
    one_kernel(
        "  %t = reshape %w : f32[5,4]\n  %y = matmul %x, %w : f32[N,5]\n  %z = matmul %y, %t : f32[N,4]\n"
        "  return %z \"\"\n",
        "f32[N,4]", "missed   weight not in panels, something else reads the weight, too: %y");
    one_kernel(
        "  %t = reshape %w : f32[5,4]\n  %y = matmul %x, %w : f32[N,5]\n  %z = matmul %y, %t : f32[N,4]\n"
        "  return %z \"\"\n",
        "f32[N,4]", "missed   weight not in panels, the weight is computed in the kernel: %z");
    one_kernel(
        "  %y = matmul %x, %w : f32[N,5]\n  %z = matmul %y, %w {tb = 1} : f32[N,4]\n  return %z \"\"\n",
        "f32[N,4]", "pack   applied  weight in panels of 16 columns, f32: %z = matmul %y, %0 {tb = 1}");
    one_kernel("  %y = matmul %x, %w : f32[N,5]\n  %m = reduce_sum %y {axes = [0], keep = 0} : f32[5]\n"
               "  return %m \"\"\n",
               "f32[5]", "missed   weight not in panels, its kernel runs once over whole tensors: %y");
}

static void transposed_left(void **state) {
    (void)state;
    char *said =
        told("sym N = 1..9\n" WEIGHT("w", "4,5")
                 VALUES("w", "4,5") "func @k kernel (%x : f32[N,4,3], %w : f32[4,5]) {\n"
                                    "  %y = matmul %x, %w {ta = 1} : f32[N,3,5]\n  return %y \"\"\n}\n"
                                    "func @f entry (%x : f32[N,4,3]) {\n"
                                    "  %y = call %x, @w {func = @k} : f32[N,3,5]\n  return %y \"y\"\n}\n",
             "matmul %x, %w {ta = 1}");
    assert_non_null(strstr(said, "the left operand is read transposed"));
    free(said);
}

static void types_of_weights(void **state) {
    (void)state;
    char *said = told("sym N = 1..9\nparam @w : f64[2,2] frozen = [1, 2, 3, 4]\n"
                      "func @k kernel (%x : f64[N,2], %w : f64[2,2], %s : f64[2,N]) {\n"
                      "  %y = matmul %x, %w : f64[N,2]\n  return %y \"\"\n}\n"
                      "func @f entry (%x : f64[N,2], %s : f64[2,N]) {\n"
                      "  %y = call %x, @w, %s {func = @k} : f64[N,2]\n  return %y \"y\"\n}\n",
                      "param @w : f64[2,2] frozen");
    assert_non_null(strstr(said, "the weight is not f32"));
    free(said);
}

#define KERNEL                                                                                               \
    "func @k kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %y = matmul %x, %w : f32[N,4]\n  return %y "         \
    "\"\"\n}\n"
#define OTHER                                                                                                \
    "func @o kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %t = transpose %w {perm = [1, 0]} : f32[4,4]\n"       \
    "  %y = matmul %x, %t : f32[N,4]\n  return %y \"\"\n}\n"

/* What another kernel reads transposed is as it is for all that share a kernel with it, however far that
 * reaches. */
static void shared(void **state) {
    (void)state;
    static const char text[] = "sym N = 1..9\n" WEIGHT("w", "4,4") WEIGHT("w2", "4,4") WEIGHT("w3", "4,4")
        WEIGHT("w4", "4,4") VALUES("w", "4,4") VALUES("w2", "4,4") VALUES("w3", "4,4") VALUES("w4", "4,4")
            KERNEL OTHER "func @k2 kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %y = matmul %x, %w : "
                         "f32[N,4]\n  %z = neg %y : f32[N,4]\n"
                         "  return %z \"\"\n}\n"
                         "func @k3 kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %y = matmul %x, %w : "
                         "f32[N,4]\n  %z = abs %y : f32[N,4]\n"
                         "  return %z \"\"\n}\n"
                         "func @k4 kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %y = matmul %x, %w : "
                         "f32[N,4]\n  %z = relu %y : f32[N,4]\n"
                         "  return %z \"\"\n}\n"
                         "func @k5 kernel (%x : f32[N,4], %w : f32[4,4]) {\n  %y = matmul %x, %w : "
                         "f32[N,4]\n  %z = sqrt %y : f32[N,4]\n"
                         "  return %z \"\"\n}\n"
                         "func @f entry (%x : f32[N,4]) {\n"
                         "  %a = call %x, @w3 {func = @k3} : f32[N,4]\n"
                         "  %b = call %a, @w2 {func = @k3} : f32[N,4]\n"
                         "  %c = call %b, @w2 {func = @k2} : f32[N,4]\n"
                         "  %d = call %c, @w {func = @k2} : f32[N,4]\n"
                         "  %e = call %d, @w {func = @k} : f32[N,4]\n"
                         "  %g = call %e, @w {func = @o} : f32[N,4]\n"
                         "  %h = call %g, @w3 {func = @k4} : f32[N,4]\n"
                         "  %i = call %h, @w4 {func = @k5} : f32[N,4]\n"
                         "  return %i \"y\"\n}\n";
    char *said = told(text, "call %d, @w {func = @k}");
    for (const char *k = "k\0k2\0k3\0k4\0"; *k; k += strlen(k) + 1) {
        char head[16];
        snprintf(head, sizeof head, "@%s\n", k);
        assert_non_null(strstr(said, head));
        assert_ptr_equal(strstr(strstr(said, head),
                                "pack   missed   weight not in panels, something else reads the parameter"),
                         strstr(strstr(said, head), "pack   "));
    }
    assert_non_null(strstr(strstr(said, "@k5\n"), "pack   applied"));
    free(said);
}

static void read_by_functions(void **state) {
    (void)state;
    char *said = told("sym N = 1..9\n" WEIGHT("w", "4,4") VALUES("w", "4,4") KERNEL
                      "func @f entry (%x : f32[N,4]) {\n  %y = call %x, @w {func = @k} : f32[N,4]\n"
                      "  return %y \"y\", @w \"w\"\n}\n",
                      "return %y \"y\", @w \"w\"");
    assert_non_null(strstr(said, "something else reads the parameter as it is"));
    free(said);
    said = told("sym N = 1..9\n" WEIGHT("w", "4,4") VALUES("w", "4,4") KERNEL
                "func @f entry (%x : f32[N,4], %v : f32[4,4]) {\n  %y = call %x, @w {func = @k} : f32[N,4]\n"
                "  %z = call %y, %v {func = @k} : f32[N,4]\n  return %z \"z\"\n}\n",
                "call %x, @w {func = @k}");
    assert_non_null(strstr(said, "it is no parameter in every call"));
    free(said);
}

/* A parameter is packed once, under a name that neither a parameter nor a function has. */
static void names(void **state) {
    (void)state;
    char *said = told("sym N = 1..9\n" WEIGHT("w", "4,4") "param @w.panels : f32[2] frozen = [1, 2]\n" VALUES(
                          "w", "4,4") VALUES("w.panels.1", "3") KERNEL
                      "func @f entry (%x : f32[N,4]) {\n  %y = call %x, @w {func = @k} : f32[N,4]\n"
                      "  %z = call %y, @w {func = @k} : f32[N,4]\n  return %z \"z\", @w.panels \"p\"\n}\n",
                      "call %y, @w.panels.1 {func = @k}");
    free(said);
}

/* 15 to 17 and 31 to 33 columns: panels, their width, and that the pass finds nothing to do a second time. */
static void widths(void **state) {
    (void)state;
    static const struct {
        int columns, panels, width;
    } all[] = {{1, 1, 16},  {15, 1, 16}, {16, 1, 16}, {17, 1, 32},
               {31, 1, 32}, {32, 1, 32}, {33, 2, 32}, {50, 2, 32}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        Text text = {0}, want = {0};
        bool ok, again;
        text_printf(&text,
                    "sym N = 1..9\nparam @w : f32[4,%d] frozen\n"
                    "func @k kernel (%%x : f32[N,4], %%w : f32[4,%d]) {\n  %%y = matmul %%x, %%w : "
                    "f32[N,%d]\n  return %%y \"\"\n}\n"
                    "func @f entry (%%x : f32[N,4]) {\n  %%y = call %%x, @w {func = @k} : f32[N,%d]\n  "
                    "return %%y \"y\"\n}\n",
                    all[i].columns, all[i].columns, all[i].columns, all[i].columns);
        text_add(&text, "", 1);
        text_printf(&want, "param @w.panels : f32[%d,4,%d] const init", all[i].panels, all[i].width);
        text_add(&want, "", 1);
        char *once = pass_run("pack", text.p, NULL, &ok),
             *twice = pass_run("pack pack", text.p, NULL, &again);
        assert_true(ok && again);
        assert_non_null(strstr(once, want.p));
        assert_string_equal(once, twice);
        free(once);
        free(twice);
        text_free(&text);
        text_free(&want);
    }
}

static void library(void **state) {
    (void)state;
    static const char text[] =
        "sym N = 1..9\nparam @w : f32[4,4] frozen\n" KERNEL
        "func @f entry (%x : f32[N,4]) {\n  %y = call %x, @w {func = @k} : f32[N,4]\n  return %y \"y\"\n}\n";
    PassOptions o = {.library = true};
    bool ok;
    char *out = pass_run("pack", text, &o, &ok);
    assert_true(ok);
    assert_null(strstr(out, "panels"));
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types),
        cmocka_unit_test(evaluation),
        cmocka_unit_test(formats),
        cmocka_unit_test(reasons),
        cmocka_unit_test(transposed_left),
        cmocka_unit_test(types_of_weights),
        cmocka_unit_test(shared),
        cmocka_unit_test(read_by_functions),
        cmocka_unit_test(names),
        cmocka_unit_test(widths),
        cmocka_unit_test(library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
