/* The safetensors reader against files that are wrong in one respect each; the writer against the reader. */
#include "frontends/safetensors.h"
#include "frontends/spec.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A file of the given header and `data` zero bytes; `length` >= 0 is the header length it claims. */
static bool try_file(const char *header, size_t data, long length) {
    char name[] = "safetensors-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    size_t n = strlen(header), claimed = length >= 0 ? (size_t)length : n;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((unsigned long long)claimed >> (8 * i));
    char *zeros = calloc(1, data + 1);
    assert_int_equal(write(fd, prefix, 8), 8);
    assert_int_equal(write(fd, header, n), (ssize_t)n);
    assert_int_equal(write(fd, zeros, data), (ssize_t)data);
    free(zeros);
    Arena *a = arena_new();
    Diag *d = diag_new();
    SafeFile f;
    bool ok = safetensors_map(a, fd, (int64_t)(8 + n + data), "x.safetensors", &f, d);
    assert_int_equal(ok, diag_errors(d) == 0);
    if (ok)
        safetensors_unmap(&f);
    close(fd);
    diag_free(d);
    arena_free(a);
    return ok;
}

#define T(name, dtype, shape, begin, end)                                                                    \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void test_reader(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        long length;
        bool good;
    } cases[] = {
        {"{}", 0, -1, true},
        {"{}    ", 0, -1, true},
        {"{" T("a", "F32", "[2,3]", 0, 24) "}", 24, -1, true},
        {"{" T("b", "F16", "[4]", 8, 16) "," T("a", "F32", "[2]", 0, 8) "}", 16, -1, true},
        {"{\"__metadata__\":{\"format\":\"pt\"}," T("a", "F32", "[]", 0, 4) "}", 4, -1, true},
        {"{" T("a", "F32", "[0]", 0, 0) "}", 0, -1, true},
        {"{}", 1, -1, false}, /* bytes after the last tensor */
        {"", 0, -1, false},
        {"[]", 0, -1, false},
        {" {}", 0, -1, false}, /* must begin with a brace */
        {"{} x", 0, -1, false},
        {"{}", 0, 3, false}, /* length over the file */
        {"{}", 0, 100000001, false},
        {"{" T("a", "F32", "[2,3]", 0, 24) "}", 23, -1, false},
        {"{" T("a", "F32", "[2,3]", 4, 28) "}", 28, -1, false}, /* hole at the start */
        {"{" T("a", "F32", "[2,3]", 0, 20) "}", 20, -1, false},
        {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", 12, -1, false},  /* overlap */
        {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 12, 20) "}", 20, -1, false}, /* hole */
        {"{" T("a", "F32", "[2]", 0, 8) "," T("a", "F32", "[2]", 8, 16) "}", 16, -1,
         false}, /* one name twice */
        {"{" T("a", "f32", "[2]", 0, 8) "}", 8, -1, false},
        {"{" T("a", "F24", "[2]", 0, 6) "}", 6, -1, false},
        {"{" T("a", "F32", "[-1,-2]", 0, 8) "}", 8, -1, false},
        {"{" T("a", "F32", "[4294967296,4294967296,4]", 0, 16) "}", 16, -1, false},
        {"{" T("a", "F32", "[4611686018427387905]", 0, 4) "}", 4, -1, false}, /* times 4 wraps to 4 */
        {"{" T("a", "F32", "[2.0]", 0, 8) "}", 8, -1, false},
        {"{" T("a", "F32", "2", 0, 8) "}", 8, -1, false},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", 0, 8) "}", 8, -1, false},
        {"{\"a\":null}", 0, -1, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, -1, false},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0.0,8.0]}}", 8, -1, false},
        {"{\"__metadata__\":{\"format\":1}}", 0, -1, false},
        {"{\"__metadata__\":[]}", 0, -1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (try_file(cases[i].header, cases[i].data, cases[i].length) != cases[i].good)
            fail_msg("case %zu: %s", i, cases[i].header);
    }
}

static void test_writer(void **state) {
    (void)state;
    static const float x[6] = {1, 2, 3, 4, 5, 6.5f}, y[1] = {-0.0f};
    AdapterTensor t[2] = {{.name = str_c("a \"quoted\" name"), .rank = 2, .dim = {2, 3}, .data = x},
                          {.name = str_c("b"), .rank = 1, .dim = {1}, .data = y}};
    Arena *a = arena_new();
    Diag *d = diag_new();
    assert_true(
        safetensors_write("out.safetensors", t, 2, str_c("{\"moec_adapter\":1,\"method\":\"ia3\"}"), d));
    AdapterSpec *s = spec_load(a, "out.safetensors", d);
    assert_non_null(s);
    assert_true(s->loaded);
    assert_int_equal(s->rule[0].method, AM_IA3);
    assert_int_equal(s->n_tensors, 2);
    assert_true(str_eq(s->tensor[0].name, t[0].name));
    assert_int_equal(s->tensor[0].dim[1], 3);
    assert_memory_equal(s->tensor[0].data, x, sizeof x);
    assert_memory_equal(s->tensor[1].data, y, sizeof y);
    spec_close(s);
    unlink("out.safetensors");
    assert_false(safetensors_write("no/such/directory/x", t, 2, str_c("{}"), d));
    assert_int_equal(diag_errors(d), 1);
    diag_free(d);
    arena_free(a);
}

/* Values reach the plan by name, converted; what is missing, surplus or of another shape is an error. */
static void test_values(void **state) {
    (void)state;
    static const unsigned short half[4] = {0x3c00, 0x4000, 0xc200, 0x0001};
    static const unsigned short brain[2] = {0x3f80, 0xc000};
    ModelSite site[2] = {{str_c("encoder.0.self.k"), SR_K, 8, 4, 2},
                         {str_c("encoder.0.ffn.act"), SR_ACT, 8, 2, 0}};
    AdapterTensor t[3] = {
        {str_c("encoder.0.ffn.act.scale"), str_c("BF16"), FK_BF16, 1, {2}, brain},
        {str_c("encoder.0.self.k.scale"), str_c("F16"), FK_F16, 2, {2, 2}, half},
        {str_c("encoder.00.self.k.scale"), str_c("F16"), FK_F16, 2, {2, 2}, half},
    };
    Arena *a = arena_new();
    Diag *d = diag_new();
    AdapterSpec *s = spec_parse(a, "s", str_c("{\"moec_adapter\":1,\"method\":\"ia3\"}"), d);
    AdapterPlan plan;
    const float **value;
    s->loaded = true;
    s->tensor_file = "t";
    s->tensor = t;
    s->n_tensors = 2;
    assert_true(adapter_resolve(s, site, 2, a, &plan, d));
    assert_true(adapter_values(s, &plan, 0, a, &value, d));
    assert_true(value[0][0] == 1 && value[0][1] == 2 && value[0][2] == -3 && value[0][3] == 0x1p-24f);
    assert_true(value[1][0] == 1 && value[1][1] == -2);
    assert_int_equal(diag_errors(d), 0);
    s->n_tensors = 3;
    assert_false(adapter_values(s, &plan, 0, a, &value, d));
    s->n_tensors = 1;
    assert_false(adapter_values(s, &plan, 0, a, &value, d));
    s->n_tensors = 2;
    t[1].dim[1] = 3;
    assert_false(adapter_values(s, &plan, 0, a, &value, d));
    t[1].dim[1] = 2;
    t[1].kind = FK_NONE;
    assert_false(adapter_values(s, &plan, 0, a, &value, d));
    diag_free(d);
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reader), cmocka_unit_test(test_writer),
                                       cmocka_unit_test(test_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
