/* Site patterns, and adapter specs that must be refused with a message that helps. */
#include "compiler/adapter.h"
#include "compiler/pattern.h"
#include "frontends/config.h"
#include "frontends/json.h"
#include "frontends/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- patterns ------------------------------------------------------------------------------------ */

static void test_patterns(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool match;
    } cases[] = {
        {"encoder.*.self.{q,v}", "encoder.0.self.q", true},
        {"encoder.*.self.{q,v}", "encoder.12.self.v", true},
        {"encoder.*.self.{q,v}", "encoder.12.self.k", false},
        {"encoder.*.self.{q,v}", "decoder.12.self.v", false},
        {"*", "anything.at.all", true},
        {"*", "", true},
        {"*.ffn.wo", "decoder.3.ffn.wo", true},
        {"*.ffn.wo", "decoder.3.ffn.wo2", false},
        {"encoder.*", "encoder.0.ffn.act", true},
        {"a{b,c{d,e}}f", "abf", true},
        {"a{b,c{d,e}}f", "acef", true},
        {"a{b,c{d,e}}f", "acf", false},
        {"a{,b}c", "ac", true},
        {"a{,b}c", "abc", true},
        {"a{}c", "ac", true},
        {"{*.q,*.k}", "x.k", true},
        {"{*.q,*.k}", "x.v", false},
        {"a,b", "a,b", true},
        {"encoder.0.self.q", "encoder.0.self.q\n", false},
        {"**a**", "bab", true},
    };
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *why = NULL;
        Pattern *p = pattern_new(a, str_c(cases[i].pattern), &why);
        assert_non_null(p);
        if (pattern_match(p, str_c(cases[i].text)) != cases[i].match)
            fail_msg("'%s' against '%s'", cases[i].pattern, cases[i].text);
    }
    static const char *const bad[] = {"", "a}", "{a", "{a{b}", "}{"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *why = NULL;
        assert_null(pattern_new(a, str_c(bad[i]), &why));
        assert_non_null(why);
    }
    arena_free(a);
}

/* Patterns that a backtracking matcher or an expansion of braces would not survive. */
static void test_pattern_bombs(void **state) {
    (void)state;
    static const char *const unit[] = {"{a,b}", "*{e,n,c}", "*a", "{e,}{n,}", "*", "{a,{"};
    Arena *a = arena_new();
    char text[200];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < 5; i++) {
        size_t n = strlen(unit[i]), count = 4000 / n;
        char *s = arena_alloc(a, n * count + 2);
        for (size_t k = 0; k < count; k++)
            memcpy(s + k * n, unit[i], n);
        s[n * count] = '!';
        const char *why = NULL;
        Pattern *p = pattern_new(a, str_c(s), &why);
        assert_non_null(p);
        for (int round = 0; round < 50; round++)
            assert_false(pattern_match(p, (Str){text, sizeof text}));
    }
    arena_free(a);
}

/* ---- specs --------------------------------------------------------------------------------------- */

/* What diag_flush prints, caught in a file. */
static const char *flushed(Arena *a, Diag *d) {
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int keep = dup(2);
    dup2(fileno(file), 2);
    diag_flush(d);
    fflush(stderr);
    dup2(keep, 2);
    close(keep);
    rewind(file);
    char *text = arena_alloc(a, 20000);
    size_t n = fread(text, 1, 19999, file);
    text[n] = 0;
    fclose(file);
    return text;
}

static const T5Config tiny = {.file = "config.json",
                              .d_model = 64,
                              .d_ff = 128,
                              .d_kv = 16,
                              .heads = 3,
                              .enc_layers = 3,
                              .dec_layers = 2,
                              .vocab = 256,
                              .buckets = 32,
                              .gated = true};

static bool try_spec(Arena *a, const char *text, AdapterPlan *plan, Diag *d) {
    ModelSite *sites;
    uint32_t n = config_sites(&tiny, a, &sites);
    AdapterSpec *spec = spec_parse(a, "s.json", str_c(text), d);
    return spec != NULL && adapter_resolve(spec, sites, n, a, plan, d);
}

#define BODY "{\n\"moec_adapter\": 1, \"method\": \"molora\", \"experts\": 2, \"rank\": 4"

static void test_spec_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *want[3];
    } cases[] = {
        {"{", {"s.json:1", "JSON"}},
        {"null", {"s.json", "object"}},
        {"{\"moec_adapter\": 1}", {"method", "missing"}},
        {"{\"method\": \"ia3\"}", {"moec_adapter", "missing"}},
        {"{\"moec_adapter\": 2, \"method\": \"ia3\"}", {"moec_adapter"}},
        {"{\"moec_adapter\": 1, \"method\": \"moe\"}", {"method", "ia3, lora, mov, molora"}},
        {"{\"moec_adapter\": 1, \"method\": \"full\", \"rank\": 4}", {"rank", "full"}},
        {"{\"moec_adapter\": 1, \"method\": \"full\", \"sites\": [{\"match\": \"*\"}]}", {"sites", "full"}},
        {"{\"moec_adapter\": 1, \"method\": \"ia3\", \"sites\": [{\"match\": \"*\", \"method\": \"full\"}]}", {"full"}},
        {"{\"moec_adapter\": 1, \"method\": \"lora\"}", {"rank", "missing"}},
        {"{\"moec_adapter\": 1, \"method\": \"mov\"}", {"experts", "missing"}},
        {BODY ",\n\"aplha\": 3}", {"s.json:3", "aplha", "'alpha'"}},
        {BODY ", \"Rank\": 3}", {"Rank", "'rank'"}},
        {BODY ", \"rank\": 4}", {"duplicate"}},
        {BODY ", \"alpha\": 0}", {"alpha"}},
        {BODY ", \"alpha\": \"16\"}", {"alpha", "'16'"}},
        {BODY ", \"alpha\": 1e999}", {"s.json:2", "JSON"}},
        {BODY ",\n\"router\": {\n\"temprature\": 1}}", {"s.json:4", "router.temprature", "'temperature'"}},
        {BODY ", \"router\": {\"top_k\": 3}}", {"router.top_k", "2 experts"}},
        {BODY ", \"router\": {\"balance_loss\": 1}}", {"balance_loss", "top_k"}},
        {BODY ", \"router\": {\"temperature\": 0}}", {"router.temperature"}},
        {BODY ", \"router\": {\"input\": \"sentence\"}}", {"sentence_dim", "missing"}},
        {BODY ", \"sites\": []}", {"sites", "empty"}},
        {BODY ", \"sites\": [\n{\"match\": \"*.q\"},\n{\"match\": \"decoder.7.cross.q\"}]}",
         {"s.json:4", "decoder.7.cross.q", "no site"}},
        {BODY ", \"sites\": [{\"rank\": 3}]}", {"sites[0].match", "missing"}},
        {BODY ", \"sites\": [{\"match\": \"*\",\n\"rank\": -3}]}", {"s.json:3", "sites[0].rank", "-3"}},
        {BODY ", \"sites\": [{\"match\": \"*\", \"sites\": []}]}", {"sites[0].sites"}},
        {BODY ", \"sites\": [{\"match\": \"{q\"}]}", {"'{q'", "closed"}},
        {BODY ", \"sites\": [{\"match\": \"*.q\", \"method\": \"mov\", \"experts\": 2}]}",
         {"*.q", "cannot sit"}},
        {BODY ", \"sites\": [{\"match\": \"*.q\", \"rank\": 100}]}", {"rank", "100", "encoder.0.self.q"}},
        {BODY
         ", \"router\": {\"input\": \"sentence\", \"sentence_dim\": 8}, \"sites\": [{\"match\": \"*.q\"},"
         "{\"match\": \"*.k\", \"router\": {\"sentence_dim\": 9}}]}",
         {"sentence_dim", "9"}},
        {BODY ", \"weights\": \"\"}", {"weights"}},
        {BODY ", \"train\": {\"routers\": true}}", {"train.routers", "'router'"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Arena *a = arena_new();
        Diag *d = diag_new();
        AdapterPlan plan;
        assert_false(try_spec(a, cases[i].text, &plan, d));
        const char *said = flushed(a, d);
        for (int k = 0; k < 3 && cases[i].want[k] != NULL; k++) {
            if (strstr(said, cases[i].want[k]) == NULL)
                fail_msg("case %zu: no '%s' in: %s", i, cases[i].want[k], said);
        }
        diag_free(d);
        arena_free(a);
    }
}

static const AdapterSite *find(const AdapterPlan *plan, const char *name) {
    for (uint32_t i = 0; i < plan->n_sites; i++) {
        if (str_is(plan->site[i].at->name, name))
            return &plan->site[i];
    }
    return NULL;
}

static void test_spec_long(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new();
    AdapterPlan plan;
    assert_true(try_spec(
        a,
        "{\"moec_adapter\": 1, \"method\": \"mov\", \"experts\": 3, \"router\": {\"temperature\": 0.8},"
        " \"sites\": [{\"match\": \"encoder.0.self.k\", \"experts\": 5}, {\"match\": \"*.self.{k,v}\"},"
        "{\"match\": \"encoder.0.self.k\", \"experts\": 9},"
        "{\"match\": \"decoder.*.ffn.*\", \"router\": {\"bias\": true, \"top_k\": null}},"
        "{\"match\": \"*.wi_1\", \"method\": \"lora\", \"rank\": 6, \"alpha\": 2}]}",
        &plan, d));
    assert_int_equal(plan.n_sites, 2 * 5 + 2 + 5);
    assert_int_equal(find(&plan, "encoder.0.self.k")->rule->experts, 5);
    assert_int_equal(find(&plan, "encoder.1.self.k")->rule->experts, 3);
    const AdapterSite *act = find(&plan, "decoder.1.ffn.act");
    assert_true(act->rule->router.bias);
    assert_true(act->rule->router.temperature == 0.8);
    assert_int_equal(act->rule->method, AM_MOV);
    const AdapterSite *wi_1 = find(&plan, "encoder.2.ffn.wi_1");
    assert_int_equal(wi_1->rule->rank, 6);
    assert_true(wi_1->rule->alpha == 2);
    assert_null(find(&plan, "encoder.0.ffn.act"));
    assert_null(find(&plan, "decoder.0.cross.k"));
    diag_free(d);
    arena_free(a);
}

static void test_canonical(void **state) {
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new();
    AdapterSpec *s =
        spec_parse(a, "s", str_c("{ \"method\":\"ia3\", \"weights\":\"w\", \"moec_adapter\" : 1}"), d);
    assert_non_null(s);
    assert_true(str_is(s->json, "{\"method\":\"ia3\",\"moec_adapter\":1}"));
    assert_true(str_is(s->weights, "w"));
    diag_free(d);
    arena_free(a);
}

static void test_closest(void **state) {
    (void)state;
    static const char *const names[] = {"alpha", "rank", "experts", "router", NULL};
    assert_string_equal(closest_name(str_c("aplha"), names), "alpha");
    assert_string_equal(closest_name(str_c("RANK"), names), "rank");
    assert_string_equal(closest_name(str_c("expert"), names), "experts");
    assert_string_equal(closest_name(str_c("routers"), names), "router");
}

/* The same tensor whatever is drawn before it, another for another name or seed. */
static void test_init(void **state) {
    (void)state;
    float x[1000], y[1000];
    double sum = 0, squares = 0;
    adapter_init(1, str_c("a.lora_A"), TR_LORA_A, x, 1000);
    adapter_init(1, str_c("a.lora_A"), TR_LORA_A, y, 500);
    assert_memory_equal(x, y, 500 * sizeof *x);
    for (int i = 0; i < 1000; i++) {
        sum += x[i];
        squares += (double)x[i] * x[i];
    }
    assert_true(sum / 1000 < 0.002 && sum / 1000 > -0.002);
    assert_true(squares / 1000 > 0.00035 && squares / 1000 < 0.00045);
    adapter_init(2, str_c("a.lora_A"), TR_LORA_A, y, 1000);
    assert_memory_not_equal(x, y, sizeof x);
    adapter_init(1, str_c("a.scale"), TR_SCALE, y, 3);
    assert_true(y[2] == 1);
    adapter_init(1, str_c("a.lora_B"), TR_LORA_B, y, 3);
    assert_true(y[2] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),    cmocka_unit_test(test_pattern_bombs),
        cmocka_unit_test(test_spec_errors), cmocka_unit_test(test_spec_long),
        cmocka_unit_test(test_canonical),   cmocka_unit_test(test_closest),
        cmocka_unit_test(test_init),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
