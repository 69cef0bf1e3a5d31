/* Profiles on a made-up program of one function that calls two kernels three times: what marks count, what starting and
 * stopping do, and that a name from a model breaks neither table nor JSON. */
#define _POSIX_C_SOURCE 200809L

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../../runtime/cli_profile.h"
#include "../../runtime/internal.h"

/* ---- the program: symbol N, function `main` of no values ---- */

static void wait(long nanoseconds) {
    struct timespec t = {0, nanoseconds};
    nanosleep(&t, NULL);
}

static void main_run(const moec_frame *f) {
    moec_profile_begin(f);
    wait(2000000);
    moec_profile_mark(f, 0);
    moec_profile_mark(f, 1);
    wait(1000000);
    moec_profile_mark(f, 2);
}

static void main_shape(const int64_t *sym, uint32_t i, int64_t *extent) {
    (void)sym, (void)i;
    extent[0] = 0;
}

static void work(const int64_t *sym, uint32_t kernel, int64_t *out) {
    out[0] = kernel ? 0 : 10 * sym[0];
    out[1] = 4 * sym[0];
}

static const moec_symbol symbols[] = {{"N", 1, 9}};
static const moec_function functions[] = {{"ma\"in\n", 0, 0, NULL, main_shape, main_run}};
static const moec_kernel kernels[] = {{"k0_product"}, {"k1"}};
static const moec_call calls[] = {{0, 0, "/block.0/MatMul"}, {0, 1, "\xff\"},\\\x1b[2J"}, {0, 0, "/block.1/MatMul"}};
static const moec_program program = {
    .abi = MOEC_ABI, .name = "fake", .n_symbols = 1, .n_functions = 1, .symbol = symbols, .function = functions, .spec = "",
    .n_kernels = 2, .n_calls = 3, .kernel = kernels, .call = calls, .work = work};

static moec_instance *open_program(const moec_program *p) {
    moec_options o = {.threads = 1};
    moec_instance *m = NULL;
    assert_int_equal(moec_open(p, &o, &m), MOEC_OK);
    return m;
}

static void run(moec_instance *m, int64_t n) {
    void *none = NULL;
    assert_int_equal(moec_run(m, 0, &n, &none), MOEC_OK);
}

/* ---- counting ---- */

static void counts(void **state) {
    (void)state;
    moec_instance *m = open_program(&program);
    moec_profile_row r;
    run(m, 3); /* before the start nothing counts */
    assert_int_equal(moec_profile_elapsed(m), 0);
    assert_int_equal(moec_profile_start(m), MOEC_OK);
    run(m, 3);
    run(m, 5);
    moec_profile_stop(m);
    run(m, 7); /* nor after the end */
    uint64_t total = 0, elapsed = moec_profile_elapsed(m);
    static const double flops[] = {80, 0, 80};
    for (uint32_t i = 0; i < moec_profile_rows(&program); i++) {
        assert_int_equal(moec_profile_read(m, i, &r), MOEC_OK);
        assert_int_equal(r.calls, 2);
        assert_string_equal(r.origin, calls[i].origin);
        assert_string_equal(r.kernel, kernels[calls[i].kernel].name);
        assert_int_equal(r.kernel_number, calls[i].kernel);
        assert_true(r.flops == flops[i] && r.bytes == 32);
        total += r.nanoseconds;
        if (i == 0)
            assert_true(r.nanoseconds >= 2 * 2000000);
    }
    assert_true(total >= 2 * 3000000 && total <= elapsed);
    assert_int_equal(moec_profile_elapsed(m), elapsed);
    assert_int_equal(moec_profile_start(m), MOEC_OK); /* again from zero */
    assert_int_equal(moec_profile_read(m, 0, &r), MOEC_OK);
    assert_true(r.calls == 0 && r.nanoseconds == 0 && r.flops == 0);
    assert_int_equal(moec_profile_read(m, 3, &r), MOEC_E_ARGUMENT);
    moec_close(m);
}

static void refuses(void **state) {
    (void)state;
    moec_program plain = program;
    moec_profile_row r;
    plain.n_calls = plain.n_kernels = 0;
    moec_instance *m = open_program(&plain);
    assert_int_equal(moec_profile_rows(&plain), 0);
    assert_int_equal(moec_profile_start(m), MOEC_E_ARGUMENT);
    assert_int_equal(moec_profile_read(m, 0, &r), MOEC_E_ARGUMENT);
    moec_profile_stop(m);
    assert_int_equal(moec_profile_elapsed(m), 0);
    moec_close(m);
}

/* ---- text ---- */

static void table(void **state) {
    (void)state;
    static char text[4096];
    moec_instance *m = open_program(&program);
    moec_profile_start(m);
    run(m, 3);
    for (int each = 0; each < 2; each++) {
        FILE *f = tmpfile();
        assert_non_null(f);
        assert_true(moec_profile_print(m, each, f));
        rewind(f);
        size_t n = fread(text, 1, sizeof text - 1, f);
        text[n] = 0;
        fclose(f);
        int lines = 0;
        for (size_t i = 0; i < n; i++) {
            lines += text[i] == '\n';
            assert_true(text[i] == '\n' || (text[i] >= ' ' && text[i] < 127));
        }
        assert_int_equal(lines, each ? 7 : 6); /* two heads, one function, kernels or calls */
        assert_true((strstr(text, "/block.0/MatMul x2") != NULL) == !each);
        assert_true((strstr(text, "/block.1/MatMul") != NULL) == each);
        assert_true(strstr(text, "k0_product") < strstr(text, "k1  ")); /* longest first */
    }
    moec_close(m);
}

static void json(void **state) {
    (void)state;
    moec_instance *m = open_program(&program);
    moec_chars text = {0};
    moec_profile_start(m);
    run(m, 3);
    moec_profile_json(m, &text);
    assert_false(text.failed);
    for (size_t i = 0; i < text.n; i++)
        assert_true((unsigned char)text.p[i] < 127);
    moec_json j;
    moec_json_event e;
    int calls_seen = 0;
    moec_json_open(&j, text.p, text.n);
    do {
        e = moec_json_next(&j);
        calls_seen += e == MOEC_JSON_KEY && j.length == 5 && !memcmp(j.string, "calls", 5);
    } while (e != MOEC_JSON_END && e != MOEC_JSON_ERROR);
    assert_int_equal(e, MOEC_JSON_END);
    assert_int_equal(calls_seen, 1 + 1 + 2 + 3); /* the list, and one of each function, kernel, call */
    moec_json_close(&j);
    moec_mem_free(text.p);
    moec_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(refuses),
        cmocka_unit_test(table),
        cmocka_unit_test(json),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
