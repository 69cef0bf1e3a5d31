/* Parameter counts of T5 v1.1 base, large, xl and xxl, and of every method of the paper on them. The figures
 * are those of arXiv 2309.05444's released code. */
#include "compiler/adapter.h"
#include "frontends/config.h"
#include "frontends/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZES = 4 };

static const struct {
    int64_t d, f, heads, layers, base;
} size_of[SIZES] = {{768, 2048, 12, 12, 247577856},
                    {1024, 2816, 16, 24, 783150080},
                    {2048, 5120, 32, 24, 2849757184},
                    {4096, 10240, 64, 24, 11135332352}};

static const struct {
    const char *spec;
    int64_t count[SIZES];
} method[] = {
    {"\"method\":\"ia3\"", {104448, 282624, 540672, 1081344}},
    {"\"method\":\"lora\",\"rank\":4", {1425408, 3833856, 7471104, 14942208}},
    {"\"method\":\"lora\",\"rank\":16", {5701632, 15335424, 29884416, 59768832}},
    {"\"method\":\"mov\",\"experts\":10", {1582080, 4270080, 7956480, 15820800}},
    {"\"method\":\"mov\",\"experts\":30", {4746240, 12810240, 23869440, 47462400}},
    {"\"method\":\"mov\",\"experts\":60", {9492480, 25620480, 47738880, 94924800}},
    {"\"method\":\"molora\",\"experts\":10,\"rank\":4", {16035840, 43130880, 84049920, 168099840}},
    {"\"method\":\"molora\",\"experts\":15,\"rank\":4", {24053760, 64696320, 126074880, 252149760}},
};

static T5Config config_of(Arena *a, Diag *d, int size) {
    char name[] = "counts-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    fprintf(file,
            "{\"model_type\":\"t5\",\"d_model\":%lld,\"d_ff\":%lld,\"num_heads\":%lld,\"num_layers\":%lld,"
            "\"d_kv\":64,"
            "\"vocab_size\":32128,\"feed_forward_proj\":\"gated-gelu\",\"tie_word_embeddings\":false}",
            (long long)size_of[size].d, (long long)size_of[size].f, (long long)size_of[size].heads,
            (long long)size_of[size].layers);
    fclose(file);
    T5Config c;
    bool ok = config_load(a, name, &c, d);
    unlink(name);
    assert_true(ok);
    return c;
}

static void test_base(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new();
    for (int i = 0; i < SIZES; i++) {
        T5Config c = config_of(a, d, i);
        assert_int_equal(config_base_count(&c), size_of[i].base);
    }
    diag_free(d);
    arena_free(a);
}

static void test_methods(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new();
    for (int i = 0; i < SIZES; i++) {
        T5Config c = config_of(a, d, i);
        ModelSite *sites;
        uint32_t n = config_sites(&c, a, &sites);
        for (size_t k = 0; k < sizeof method / sizeof method[0]; k++) {
            const char *text = arena_printf(a, "{\"moec_adapter\":1,%s}", method[k].spec);
            AdapterSpec *spec = spec_parse(a, "spec", str_c(text), d);
            AdapterPlan plan;
            assert_non_null(spec);
            assert_true(adapter_resolve(spec, sites, n, a, &plan, d));
            int64_t sum = 0;
            for (uint32_t s = 0; s < plan.n_sites; s++)
                sum += adapter_site_count(spec, &plan.site[s], true);
            assert_int_equal(sum, method[k].count[i]);
        }
    }
    assert_int_equal(diag_errors(d), 0);
    diag_free(d);
    arena_free(a);
}

/* Shapes where heads * kv differs from the model's width. */
static void test_shapes(void **state) {
    (void)state;
    static const ModelSite k = {{"encoder.0.self.k", 16}, SR_K, 64, 48, 3},
                           act = {{"x.act", 5}, SR_ACT, 64, 128, 0};
    static const ModelSite o = {{"encoder.0.self.o", 16}, SR_O, 48, 64, 0};
    AdapterRule mov = {.method = AM_MOV, .experts = 5, .router = {.temperature = 1}};
    AdapterRule molora = {
        .method = AM_MOLORA, .experts = 5, .rank = 2, .router = {.temperature = 1, .bias = true}};
    SiteTensor t[TR_COUNT];
    assert_int_equal(adapter_site_tensors(&(AdapterSite){&k, &mov}, t), 2);
    assert_int_equal(t[0].dim[0], 3);
    assert_int_equal(t[0].dim[1], 5);
    assert_int_equal(t[0].dim[2], 16);
    assert_int_equal(t[1].dim[0], 16);
    assert_int_equal(adapter_site_tensors(&(AdapterSite){&act, &mov}, t), 2);
    assert_int_equal(t[0].dim[1], 128);
    assert_int_equal(t[1].dim[0], 128);
    mov.router.input = RI_INPUT;
    adapter_site_tensors(&(AdapterSite){&act, &mov}, t);
    assert_int_equal(t[1].dim[0], 64);
    assert_int_equal(adapter_site_tensors(&(AdapterSite){&o, &molora}, t), 4);
    assert_int_equal(t[0].dim[1], 48);
    assert_int_equal(t[1].dim[2], 64);
    assert_int_equal(t[2].dim[0], 48);
    assert_int_equal(t[3].count, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_base), cmocka_unit_test(test_methods),
                                       cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
