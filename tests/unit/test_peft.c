/* PEFT adapters: those the library wrote against what PyTorch made of them, adapters out and in again, and
 * directories that are wrong in one respect each. */
#include "frontends/peft.h"
#include "frontends/safetensors.h"
#include "frontends/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURES MOEC_SOURCE_DIR "/tests/fixtures/peft"
#define BLOCK    "base_model.model.encoder.block.0.layer.0.SelfAttention."
#define FFN      "base_model.model.encoder.block.0.layer.1.DenseReluDense."
#define SEQ      "\"task_type\":\"SEQ_2_SEQ_LM\""
#define LORA     "{\"peft_type\":\"LORA\"," SEQ ",\"r\":2,\"lora_alpha\":8"
#define IA3      "{\"peft_type\":\"IA3\"," SEQ

static const T5Config tiny = {.file = "config.json",
                              .d_model = 64,
                              .d_ff = 128,
                              .d_kv = 16,
                              .heads = 4,
                              .enc_layers = 2,
                              .dec_layers = 2,
                              .vocab = 256,
                              .buckets = 32,
                              .gated = true};

typedef struct World {
    Arena *a;
    Diag *d;
    char dir[32]; /* scratch */
} World;

static World world_open(void) {
    World w = {arena_new(), diag_new(), "peft-XXXXXX"};
    assert_non_null(mkdtemp(w.dir));
    return w;
}

static void world_close(World *w) {
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    diag_free(w->d);
    arena_free(w->a);
}

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

/* ---- directories ---------------------------------------------------------------------------------- */

/* A tensor of [rows,cols], its values counted from `first`. */
typedef struct Given {
    const char *name;
    int64_t rows, cols;
    float first;
} Given;

static const char *dir_make(World *w, const char *name, const char *config, const Given *given) {
    const char *dir = arena_printf(w->a, "%s/%s", w->dir, name);
    mkdir(dir, 0777);
    FILE *f = fopen(arena_printf(w->a, "%s/adapter_config.json", dir), "w");
    assert_non_null(f);
    fputs(config, f);
    fclose(f);
    AdapterTensor t[16];
    uint32_t n = 0;
    for (; given[n].name != NULL; n++) {
        float *v = arena_array(w->a, (size_t)(given[n].rows * given[n].cols), sizeof *v);
        for (int64_t i = 0; i < given[n].rows * given[n].cols; i++)
            v[i] = given[n].first + (float)i;
        t[n] = (AdapterTensor){
            .name = str_c(given[n].name), .rank = 2, .dim = {given[n].rows, given[n].cols}, .data = v};
    }
    assert_true(safetensors_write(arena_printf(w->a, "%s/adapter_model.safetensors", dir), t, n,
                                  (Str){NULL, 0}, w->d));
    return dir;
}

static AdapterSpec *import(World *w, const char *const *dir, uint32_t n, const T5Config *c) {
    return peft_import(w->a, dir, n, &(PeftImport){.config = c, .seed = 3}, NULL, w->d);
}

static const AdapterTensor *tensor_of(const AdapterSpec *s, const char *name) {
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        if (str_is(s->tensor[i].name, name))
            return &s->tensor[i];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static float value_of(const AdapterSpec *s, const char *name, int64_t i) {
    return ((const float *)tensor_of(s, name)->data)[i];
}

/* ---- the library's own ------------------------------------------------------------------------------ */

/* Both specs put the same on every site; all values but the routers' are the same bits. */
static void assert_same(World *w, const AdapterSpec *x, const AdapterSpec *y) {
    ModelSite *site;
    AdapterPlan p, q;
    const float **v, **u;
    uint32_t n = config_sites(&tiny, w->a, &site);
    assert_true(adapter_resolve(x, site, n, w->a, &p, w->d) && adapter_values(x, &p, 0, w->a, &v, w->d));
    assert_true(adapter_resolve(y, site, n, w->a, &q, w->d) && adapter_values(y, &q, 0, w->a, &u, w->d));
    assert_int_equal(p.n_sites, q.n_sites);
    for (uint32_t i = 0; i < p.n_sites; i++) {
        const AdapterRule *r = p.site[i].rule, *s = q.site[i].rule;
        assert_ptr_equal(p.site[i].at, q.site[i].at);
        assert_int_equal(r->method, s->method);
        assert_int_equal(r->rank, s->rank);
        assert_int_equal(r->experts, s->experts);
        assert_true(r->rank == 0 || r->alpha == s->alpha);
        SiteTensor t[TR_COUNT];
        uint32_t k = adapter_site_tensors(&p.site[i], t);
        for (uint32_t j = 0; j < k; j++, v++, u++) {
            if (t[j].role != TR_ROUTER)
                assert_memory_equal(*v, *u, (size_t)t[j].count * sizeof **v);
        }
    }
    assert_int_equal(diag_errors(w->d), 0);
}

static void test_library(void **state) {
    (void)state;
    static const char *const qv[] = {FIXTURES "/lora-qv/peft"}, *const ia3[] = {FIXTURES "/ia3/peft/"};
    static const char *const mix[] = {FIXTURES "/lora-mix3/peft_0", FIXTURES "/lora-mix3/peft_1",
                                      FIXTURES "/lora-mix3/peft_2"};
    static const struct {
        const char *name, *const *dir;
        uint32_t n, tensors;
    } cases[] = {{"lora-qv", qv, 1, 24}, {"ia3", ia3, 1, 16}, {"lora-mix3", mix, 3, 36}};
    World w = world_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *at = arena_printf(w.a, FIXTURES "/%s", cases[i].name);
        AdapterSpec *have = import(&w, cases[i].dir, cases[i].n, &tiny);
        AdapterSpec *want = spec_load(w.a, arena_printf(w.a, "%s/spec.json", at), w.d);
        assert_non_null(have);
        assert_non_null(want);
        assert_true(spec_load_weights(w.a, want, arena_printf(w.a, "%s/adapter.safetensors", at), w.d));
        assert_int_equal(have->n_tensors, cases[i].tensors);
        assert_same(&w, have, want);
        if (cases[i].n == 1) { /* as --adapter: no model at hand, heads not known */
            AdapterSpec *direct = spec_load(w.a, cases[i].dir[0], w.d);
            assert_non_null(direct);
            assert_same(&w, direct, want);
        }
        spec_close(want);
    }
    /* a mixture's routers are those of adapter_init */
    float router[3 * 64];
    AdapterSpec *s = import(&w, mix, 3, NULL);
    assert_non_null(s);
    adapter_init(3, str_c("decoder.1.cross.v.router"), TR_ROUTER, router, 3 * 64);
    assert_memory_equal(tensor_of(s, "decoder.1.cross.v.router")->data, router, sizeof router);
    world_close(&w);
}

/* ---- scales ------------------------------------------------------------------------------------------- */

static const Given lora_q[] = {
    {BLOCK "q.lora_A.weight", 2, 64, 1}, {BLOCK "q.lora_B.weight", 64, 2, 1}, {NULL, 0, 0, 0}};

static void test_scales(void **state) {
    (void)state;
    World w = world_open();
    const char *dir[3] = {
        dir_make(&w, "plain", LORA "}", lora_q),
        dir_make(&w, "rs", "{\"peft_type\":\"LORA\"," SEQ ",\"r\":2,\"lora_alpha\":8,\"use_rslora\":true}",
                 lora_q),
        dir_make(&w, "more", LORA ",\"alpha_pattern\":{\"x\":1,\"Self.*\\\\.q\":12,\"q\":5}}", lora_q)};
    AdapterSpec *s = import(&w, dir, 1, &tiny);
    assert_non_null(s);
    assert_int_equal(s->rule[0].method, AM_LORA);
    assert_true(s->rule[0].alpha == 8 && s->rule[0].rank == 2);
    /* (r,in) becomes [in,r], (out,r) becomes [r,out] */
    assert_true(value_of(s, "encoder.0.self.q.lora_A", 0) == 1 &&
                value_of(s, "encoder.0.self.q.lora_A", 1) == 65);
    assert_true(value_of(s, "encoder.0.self.q.lora_B", 1) == 3 &&
                value_of(s, "encoder.0.self.q.lora_B", 64) == 2);
    s = import(&w, dir + 1, 1, &tiny);
    assert_true(s->rule[0].alpha == 8 * sqrt(2.0));
    s = import(&w, dir + 2, 1, &tiny); /* the first pattern that matches */
    assert_true(s->rule[0].alpha == 12);
    /* the first expert's alpha; the others' B times the quotient */
    s = import(&w, dir, 3, &tiny);
    assert_non_null(s);
    assert_int_equal(s->rule[0].method, AM_MOLORA);
    assert_true(s->rule[0].alpha == 8 && s->rule[0].experts == 3);
    assert_true(value_of(s, "encoder.0.self.q.lora_A", 128) == 1);
    assert_true(value_of(s, "encoder.0.self.q.lora_B", 1) == 3);
    assert_true(value_of(s, "encoder.0.self.q.lora_B", 128 + 1) == (float)(3 * sqrt(2.0)));
    assert_true(value_of(s, "encoder.0.self.q.lora_B", 256 + 1) == 4.5f);
    world_close(&w);
}

static void test_ia3_places(void **state) {
    (void)state;
    World w = world_open();
    const char *dir[2] = {
        dir_make(&w, "wo", IA3 ",\"feedforward_modules\":[\"wo\"]}",
                 (Given[]){{FFN "wo.ia3_l", 1, 128, 1}, {BLOCK "k.ia3_l", 64, 1, 1}, {NULL, 0, 0, 0}}),
        dir_make(
            &w, "wi_1", IA3 ",\"feedforward_modules\":[]}",
            (Given[]){{FFN "wi_1.ia3_l", 128, 1, 1000}, {BLOCK "k.ia3_l", 64, 1, 1000}, {NULL, 0, 0, 0}})};
    AdapterSpec *s = import(&w, dir, 1, &tiny), *t = import(&w, dir + 1, 1, &tiny);
    assert_non_null(s);
    assert_non_null(t);
    assert_true(value_of(s, "encoder.0.ffn.act.scale", 5) == 6 &&
                value_of(t, "encoder.0.ffn.act.scale", 5) == 1005);
    assert_int_equal(tensor_of(s, "encoder.0.self.k.scale")->dim[0], 4);
    /* two of them: [h,E,kv] and [E,f], routers [kv,E] and [f,E] */
    const char *two[2] = {
        dir[0],
        dir_make(&w, "second", IA3 "}",
                 (Given[]){{FFN "wo.ia3_l", 1, 128, 1000}, {BLOCK "k.ia3_l", 64, 1, 1000}, {NULL, 0, 0, 0}})};
    s = import(&w, two, 2, &tiny);
    assert_non_null(s);
    assert_int_equal(s->rule[0].method, AM_MOV);
    assert_true(value_of(s, "encoder.0.self.k.scale", 0) == 1 &&
                value_of(s, "encoder.0.self.k.scale", 16) == 1000);
    assert_true(value_of(s, "encoder.0.self.k.scale", 32) == 17 &&
                value_of(s, "encoder.0.self.k.scale", 48) == 1016);
    assert_true(value_of(s, "encoder.0.ffn.act.scale", 127) == 128 &&
                value_of(s, "encoder.0.ffn.act.scale", 128) == 1000);
    assert_int_equal(tensor_of(s, "encoder.0.self.k.router")->dim[0], 16);
    assert_int_equal(tensor_of(s, "encoder.0.ffn.act.router")->dim[0], 128);
    world_close(&w);
}

/* ---- round trip --------------------------------------------------------------------------------------- */

/* An adapter of the tiny model with values drawn for every tensor. */
static AdapterSpec *adapter_make(World *w, const char *json) {
    ModelSite *site;
    AdapterPlan plan;
    AdapterSpec *s = spec_parse(w->a, "s.json", str_c(json), w->d);
    assert_non_null(s);
    uint32_t n_sites = config_sites(&tiny, w->a, &site);
    assert_true(adapter_resolve(s, site, n_sites, w->a, &plan, w->d));
    s->tensor = arena_array(w->a, plan.n_sites * TR_COUNT, sizeof *s->tensor);
    for (uint32_t i = 0; i < plan.n_sites; i++) {
        SiteTensor t[TR_COUNT];
        uint32_t n = adapter_site_tensors(&plan.site[i], t);
        for (uint32_t k = 0; k < n; k++) {
            AdapterTensor *x = &s->tensor[s->n_tensors++];
            *x = (AdapterTensor){.name = str_c(arena_printf(w->a, "%s.%s", plan.site[i].at->name.p,
                                                            adapter_tensor_suffix(t[k].role))),
                                 .dtype = str_c("F32"),
                                 .kind = FK_F32,
                                 .rank = t[k].rank};
            memcpy(x->dim, t[k].dim, sizeof t[k].dim);
            float *data = arena_array(w->a, (size_t)t[k].count, sizeof *data);
            adapter_init(5, x->name, TR_ROUTER, data, t[k].count); /* normal values, whatever the role */
            x->data = data;
        }
    }
    s->loaded = true;
    s->tensor_file = "s.safetensors";
    return s;
}

static const char *slurp(World *w, const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        fail_msg("no file %s", path);
    char *p = arena_alloc(w->a, 1 << 20);
    *n = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

static bool export_to(Arena *a, const AdapterSpec *s, const T5Config *c, const char *out, PeftTable *table, Diag *d) {
    PeftExport *x = peft_export_plan(a, s, c, table, d);
    return x && peft_export_write(x, out);
}

static void test_round_trip(void **state) {
    (void)state;
    static const struct {
        const char *json;
        uint32_t experts;
        bool needs_model;
    } cases[] = {
        {"{\"moec_adapter\":1,\"method\":\"ia3\"}", 1, false},
        {"{\"moec_adapter\":1,\"method\":\"lora\",\"rank\":3,\"alpha\":7.3}", 1, true},
        {"{\"moec_adapter\":1,\"method\":\"mov\",\"experts\":3}", 3, false},
        {"{\"moec_adapter\":1,\"method\":\"mov\",\"experts\":1}", 1, false},
        {"{\"moec_adapter\":1,\"method\":\"molora\",\"experts\":2,\"rank\":4,\"router\":{\"bias\":true,\"top_"
         "k\":1}}",
         2, true},
        {"{\"moec_adapter\":1,\"method\":\"molora\",\"experts\":2,\"rank\":4,\"sites\":[{\"match\":\"encoder."
         "1.*\"},"
         "{\"match\":\"decoder.*.cross.{k,o}\",\"rank\":2,\"alpha\":0.1},{\"match\":\"*.wi_1\",\"alpha\":3}]"
         "}",
         2, false},
    };
    World w = world_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        AdapterSpec *s = adapter_make(&w, cases[i].json);
        for (int with = 0; with < 2; with++) {
            const char *out = arena_printf(w.a, "%s/%zu.%d", w.dir, i, with), *dir[4] = {out};
            PeftTable table = {0};
            bool ok = export_to(w.a, s, with ? &tiny : NULL, out, &table, w.d);
            assert_int_equal(ok, with || !cases[i].needs_model);
            if (!ok) {
                assert_non_null(strstr(flushed(w.a, w.d), "--model"));
                assert_int_not_equal(access(out, F_OK), 0);
                continue;
            }
            assert_int_equal(table.n, s->n_tensors); /* every tensor has its row */
            peft_table_free(&table);
            for (uint32_t e = 0; cases[i].experts > 1 && e < cases[i].experts; e++)
                dir[e] = arena_printf(w.a, "%s/expert_%u", out, e);
            AdapterSpec *back = import(&w, dir, cases[i].experts, &tiny);
            if (back == NULL)
                fail_msg("%s: %s", cases[i].json, flushed(w.a, w.d));
            if (s->rule[0].experts == 1) { /* a plain one has no axis of experts */
                for (uint32_t k = 0, j = 0; k < s->n_tensors; k++) {
                    if (strstr(s->tensor[k].name.p, "router") != NULL)
                        continue;
                    assert_true(str_eq(s->tensor[k].name, back->tensor[j].name));
                    assert_memory_equal(s->tensor[k].data, back->tensor[j].data, 64 * sizeof(float));
                    j++;
                }
            } else {
                for (uint32_t k = 0; k < s->n_rules; k++)
                    s->rule[k].router = (RouterOptions){.temperature = 1, .bias = s->rule[k].router.bias};
                for (uint32_t k = 0; k < back->n_tensors; k++) {
                    const AdapterTensor *t = tensor_of(s, back->tensor[k].name.p);
                    int64_t count = 1;
                    for (int r = 0; r < t->rank; r++)
                        count *= t->dim[r];
                    assert_int_equal(t->rank, back->tensor[k].rank);
                    assert_memory_equal(t->dim, back->tensor[k].dim, (size_t)t->rank * sizeof t->dim[0]);
                    if (strstr(t->name.p, "router") == NULL)
                        assert_memory_equal(t->data, back->tensor[k].data, (size_t)count * sizeof(float));
                }
            }
            /* the same bytes again; a directory with files in it stays as it is */
            size_t n, m;
            const char *again = arena_printf(w.a, "%s.again", out);
            mkdir(again, 0777); /* an empty one is fine */
            assert_true(export_to(w.a, s, with ? &tiny : NULL, again, NULL, w.d));
            const char *sub = cases[i].experts > 1 ? "/expert_1" : "";
            for (int f = 0; f < 2; f++) {
                const char *name = f == 0 ? "adapter_config.json" : "adapter_model.safetensors";
                const char *x = slurp(&w, arena_printf(w.a, "%s%s/%s", out, sub, name), &n);
                const char *y = slurp(&w, arena_printf(w.a, "%s%s/%s", again, sub, name), &m);
                assert_int_equal(n, m);
                assert_memory_equal(x, y, n);
            }
            assert_int_equal(diag_errors(w.d), 0);
            flushed(w.a, w.d);
            assert_false(export_to(w.a, s, with ? &tiny : NULL, again, NULL, w.d));
            assert_non_null(strstr(flushed(w.a, w.d), "name a new one"));
        }
    }
    world_close(&w);
}

/* ---- what is refused -------------------------------------------------------------------------------------
 */

#define A2                                                                                                   \
    { BLOCK "q.lora_A.weight", 2, 64, 1 }
#define B2                                                                                                   \
    { BLOCK "q.lora_B.weight", 64, 2, 1 }
#define END                                                                                                  \
    { NULL, 0, 0, 0 }

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *config;
        Given given[5];
        const char *want[3];
    } cases[] = {
        {"{", {A2, B2, END}, {"adapter_config.json:1", "JSON"}},
        {"[]", {A2, B2, END}, {"adapter_config.json: error", "object"}},
        {"{\"r\":2,\"lora_alpha\":8}", {A2, B2, END}, {"peft_type", "missing"}},
        {"{\"peft_type\":\"LOHA\"}", {A2, B2, END}, {"peft_type", "LORA, IA3"}},
        {"{\"peft_type\":\"LORA\",\n\"task_type\":\"CAUSAL_LM\",\"r\":2,\"lora_alpha\":8}",
         {A2, B2, END},
         {":2", "task_type", "SEQ_2_SEQ_LM"}},
        {"{\"peft_type\":\"LORA\",\"lora_alpha\":8}", {A2, B2, END}, {"'r'", "missing"}},
        {"{\"peft_type\":\"LORA\",\"r\":2}", {A2, B2, END}, {"'lora_alpha'", "missing"}},
        {LORA ",\"r\":2}", {A2, B2, END}, {"duplicate"}},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":0}", {A2, B2, END}, {"'lora_alpha'"}},
        {"{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":-8}", {A2, B2, END}, {"'lora_alpha'"}},
        {LORA ",\n\"use_dora\":true}", {A2, B2, END}, {":2", "use_dora", "DoRA"}},
        {LORA ",\"bias\":\"all\"}", {A2, B2, END}, {"'bias'", "none"}},
        {LORA ",\"lora_bias\":true}", {A2, B2, END}, {"'lora_bias'"}},
        {LORA ",\"fan_in_fan_out\":true}", {A2, B2, END}, {"'fan_in_fan_out'"}},
        {LORA ",\"modules_to_save\":[\"lm_head\"]}", {A2, B2, END}, {"'modules_to_save'", "lm_head"}},
        {LORA ",\"init_lora_weights\":\"pissa_niter_4\"}", {A2, B2, END}, {"'init_lora_weights'", "pissa"}},
        {LORA ",\"init_lora_weights\":\"new\"}", {A2, B2, END}, {"'init_lora_weights'", "not known"}},
        {LORA ",\"layer_replication\":[[0,1],[0,1]]}", {A2, B2, END}, {"'layer_replication'"}},
        {LORA ",\"trainable_token_indices\":[1]}", {A2, B2, END}, {"'trainable_token_indices'"}},
        {LORA ",\"a_new_thing\":{\"x\":1}}", {A2, B2, END}, {"'a_new_thing'", "unknown"}},
        {LORA ",\"use_rslora\":1}", {A2, B2, END}, {"'use_rslora'"}},
        {LORA ",\"rank_pattern\":{\"q\":0}}", {A2, B2, END}, {"rank_pattern", "'rank_pattern.q'"}},
        {LORA ",\"rank_pattern\":[2]}", {A2, B2, END}, {"rank_pattern", "object"}},
        {LORA ",\"rank_pattern\":{\"q\":3}}", {A2, B2, END}, {"q.lora_A.weight", "[2,64]", "[3,in]"}},
        {LORA ",\"alpha_pattern\":{\"(?!q)k\":3}}", {A2, B2, END}, {"alpha_pattern", "not understood"}},
        {LORA ",\"alpha_pattern\":{\"q\":\"3\"}}", {A2, B2, END}, {"alpha_pattern", "number"}},
        {LORA ",\"target_modules\":[\"k\",\"v\"]}", {A2, B2, END}, {"q.lora_A.weight", "target_modules"}},
        {LORA ",\"target_modules\":\".*decoder.*\"}", {A2, B2, END}, {"q.lora_A.weight", "target_modules"}},
        {LORA ",\"target_modules\":[3]}", {A2, B2, END}, {"'target_modules[0]'"}},
        {LORA "}", {END}, {"holds no tensor"}},
        {LORA "}", {A2, END}, {"q.lora_A.weight", "no lora_B"}},
        {LORA "}", {B2, END}, {"q.lora_B.weight", "no lora_A"}},
        {LORA "}", {{BLOCK "q.lora_A.weight", 64, 2, 1}, B2, END}, {"q.lora_A.weight", "[64,2]", "[2,in]"}},
        {LORA "}", {A2, {BLOCK "q.lora_B.weight", 64, 3, 1}, END}, {"q.lora_B.weight", "[64,3]", "[out,2]"}},
        {LORA "}",
         {A2, {BLOCK "q.lora_B.weight", 48, 2, 1}, END},
         {"encoder.0.self.q.lora_B", "[2,48]", "[2,64]"}},
        {LORA "}",
         {A2, B2, {BLOCK "q.lora_magnitude_vector", 64, 1, 1}, END},
         {"lora_magnitude_vector", "no place"}},
        {LORA "}",
         {A2, B2, {"base_model.model.lm_head.lora_A.weight", 2, 64, 1}, END},
         {"lm_head.lora_A.weight", "no place"}},
        {LORA "}",
         {A2, B2, {"base_model.model.shared.weight", 2, 64, 1}, END},
         {"shared.weight", "no place"}},
        {LORA "}",
         {A2, B2, {"encoder.block.0.layer.0.SelfAttention.k.lora_A.weight", 2, 64, 1}, END},
         {"k.lora_A.weight", "no place"}},
        {LORA "}", {A2, B2, {"base_model.model..lora_A.weight", 2, 64, 1}, END}, {"no place"}},
        {LORA "}",
         {A2, B2, {"base_model.model.encoder.block.00.layer.0.SelfAttention.q.lora_A.weight", 2, 64, 1}, END},
         {"block.00", "no place"}},
        {LORA "}",
         {A2,
          B2,
          {"base_model.model.encoder.block.0.layer.1.EncDecAttention.q.lora_A.weight", 2, 64, 1},
          END},
         {"EncDec", "no place"}},
        {LORA "}",
         {{"base_model.model.encoder.block.7.layer.0.SelfAttention.q.lora_A.weight", 2, 64, 1},
          {"base_model.model.encoder.block.7.layer.0.SelfAttention.q.lora_B.weight", 64, 2, 1},
          END},
         {"encoder.7.self.q", "no site"}},
        {LORA "}", {A2, B2, {BLOCK "q.ia3_l", 64, 1, 1}, END}, {"q.ia3_l", "IA3", "'LORA'"}},
        {LORA "}",
         {{FFN "wi.lora_A.weight", 2, 64, 1}, {FFN "wi.lora_B.weight", 128, 2, 1}, END},
         {"wi;", "wi_0 and wi_1"}},
        {LORA "}",
         {{FFN "wi.lora_A.weight", 2, 64, 1}, {FFN "wi_0.lora_B.weight", 128, 2, 1}, END},
         {"wi_0.lora_B", "not both"}},
        {IA3 "}", {A2, B2, END}, {"q.lora_A.weight", "LoRA", "'IA3'"}},
        {IA3 "}", {{BLOCK "q.ia3_l", 64, 1, 1}, END}, {"q.ia3_l", "output of q"}},
        {IA3 "}", {{BLOCK "k.ia3_l", 1, 64, 1}, END}, {"k.ia3_l", "input of k"}},
        {IA3 "}", {{BLOCK "k.ia3_l", 48, 1, 1}, END}, {"k.ia3_l", "[48,1]", "4 heads of 16"}},
        {IA3 "}", {{BLOCK "k.ia3_l", 32, 2, 1}, END}, {"k.ia3_l", "[32,2]"}},
        {IA3 "}", {{FFN "wi_0.ia3_l", 128, 1, 1}, END}, {"wi_0.ia3_l", "output of wi_0"}},
        {IA3 "}", {{FFN "wo.ia3_l", 64, 1, 1}, END}, {"wo.ia3_l", "output of wo"}},
        {IA3 ",\"feedforward_modules\":[\"k\"]}",
         {{BLOCK "k.ia3_l", 64, 1, 1}, END},
         {"k.ia3_l", "feedforward_modules"}},
        {IA3 ",\"feedforward_modules\":[]}",
         {{FFN "wo.ia3_l", 1, 128, 1}, END},
         {"wo.ia3_l", "feedforward_modules"}},
        {IA3 "}",
         {{FFN "wo.ia3_l", 1, 128, 1}, {FFN "wi_1.ia3_l", 128, 1, 1}, END},
         {"encoder.0.ffn.act", "already"}},
    };
    World w = world_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *dir = dir_make(&w, "x", cases[i].config, cases[i].given);
        if (import(&w, &dir, 1, &tiny) != NULL)
            fail_msg("case %zu is taken: %s", i, cases[i].config);
        const char *text = flushed(w.a, w.d);
        for (int k = 0; k < 3 && cases[i].want[k] != NULL; k++) {
            if (strstr(text, cases[i].want[k]) == NULL)
                fail_msg("case %zu: no '%s' in: %s", i, cases[i].want[k], text);
        }
    }
    world_close(&w);
}

/* Keys that say nothing, or are empty, are no reason to refuse. */
static void test_tolerated(void **state) {
    (void)state;
    static const char *const configs[] = {
        LORA ",\"a_new_thing\":null,\"another\":false,\"third\":{},\"fourth\":[],\"fifth\":\"\",\"sixth\":0}",
        LORA ",\"base_model_name_or_path\":\"../../etc/"
             "passwd\",\"revision\":\"main\",\"lora_dropout\":0.1,\"peft_version\":\"9\"}",
        LORA ",\"init_lora_weights\":\"gaussian\",\"modules_to_save\":[],\"bias\":\"none\",\"layers_to_"
             "transform\":[0]}",
        LORA ",\"target_modules\":\"all-linear\"}",
        LORA ",\"target_modules\":[\"SelfAttention.q\"]}",
        LORA ",\"target_modules\":\".*(?<!x)q\"}",
        LORA ",\"target_modules\":\".*\\\\.(q|v)$\",\"exclude_modules\":[\"lm_head\"]}",
    };
    World w = world_open();
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        const char *dir = dir_make(&w, "x", configs[i], lora_q);
        if (import(&w, &dir, 1, NULL) == NULL)
            fail_msg("%s: %s", configs[i], flushed(w.a, w.d));
    }
    const char *dir =
        dir_make(&w, "x", "{\"peft_type\":\"LORA\",\"task_type\":null,\"r\":2,\"lora_alpha\":8}", lora_q);
    assert_non_null(import(&w, &dir, 1, NULL));
    world_close(&w);
}

/* Experts that are not alike; vectors whose heads nobody knows; patterns that would take for ever. */
static void test_mixtures_refused(void **state) {
    (void)state;
    World w = world_open();
    const char *q = dir_make(&w, "q", LORA "}", lora_q);
    const struct {
        const char *dir, *want[2];
    } cases[] = {
        {dir_make(&w, "more", LORA "}",
                  (Given[]){
                      A2, B2, {BLOCK "k.lora_A.weight", 2, 64, 1}, {BLOCK "k.lora_B.weight", 64, 2, 1}, END}),
         {"encoder.0.self.k", "here, but not in"}},
        {dir_make(&w, "other", LORA "}",
                  (Given[]){{BLOCK "k.lora_A.weight", 2, 64, 1}, {BLOCK "k.lora_B.weight", 64, 2, 1}, END}),
         {"encoder.0.self.", "same sites"}},
        {dir_make(&w, "rank", LORA ",\"rank_pattern\":{\"q\":3}}",
                  (Given[]){{BLOCK "q.lora_A.weight", 3, 64, 1}, {BLOCK "q.lora_B.weight", 64, 3, 1}, END}),
         {"q.lora_A.weight", "equal ranks"}},
        {dir_make(&w, "ia3", IA3 "}", (Given[]){{BLOCK "k.ia3_l", 64, 1, 1}, END}), {"peft_type", "alike"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_null(import(&w, (const char *[]){q, cases[i].dir}, 2, &tiny));
        const char *text = flushed(w.a, w.d);
        if (strstr(text, cases[i].want[0]) == NULL || strstr(text, cases[i].want[1]) == NULL)
            fail_msg("case %zu: %s", i, text);
    }
    assert_null(import(&w, &cases[3].dir, 1, NULL));
    assert_non_null(strstr(flushed(w.a, w.d), "--model"));
    assert_null(import(&w, (const char *[]){cases[3].dir, cases[3].dir}, 2, NULL));
    assert_non_null(strstr(flushed(w.a, w.d), "--model"));
    Text t = {0};
    text_printf(&t, LORA ",\"rank_pattern\":{");
    for (int i = 0; i < 255; i++) {
        text_printf(&t, "%s\"%d", i > 0 ? "," : "", i);
        for (int k = 0; k < 250; k++)
            text_printf(&t, "(.?)*");
        text_printf(&t, "\":3");
    }
    text_printf(&t, "}}");
    const char *slow = dir_make(&w, "slow", t.p, lora_q);
    text_free(&t);
    assert_null(import(&w, &slow, 1, NULL));
    assert_non_null(strstr(flushed(w.a, w.d), "patterns"));
    world_close(&w);
}

/* Adapters that PEFT has no form for. */
static void test_export_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *want[2];
    } cases[] = {
        {"{\"moec_adapter\":1,\"method\":\"lora\",\"rank\":2,\"sites\":[{\"match\":\"*.q\"},{\"match\":\"*."
         "k\",\"method\":\"ia3\"}]}",
         {"self.k", "not both"}},
        {"{\"moec_adapter\":1,\"method\":\"molora\",\"rank\":2,\"experts\":2,\"sites\":[{\"match\":\"*.q\"},{"
         "\"match\":\"*.k\",\"method\":"
         "\"lora\"}]}",
         {"self.k", "2 experts"}},
    };
    World w = world_open();
    const char *out = arena_printf(w.a, "%s/out", w.dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        AdapterSpec *s = adapter_make(&w, cases[i].json);
        assert_false(export_to(w.a, s, &tiny, out, NULL, w.d));
        const char *text = flushed(w.a, w.d);
        if (strstr(text, cases[i].want[0]) == NULL || strstr(text, cases[i].want[1]) == NULL)
            fail_msg("case %zu: %s", i, text);
    }
    AdapterSpec *s = adapter_make(&w, "{\"moec_adapter\":1,\"method\":\"ia3\"}");
    s->tensor[3].name = str_c("encoder.01.self.v.scale");
    assert_false(export_to(w.a, s, NULL, out, NULL, w.d));
    assert_non_null(strstr(flushed(w.a, w.d), "encoder.01.self.v.scale"));
    s->tensor[3].name = str_c("encoder.1.self.v.scale");
    s->tensor[3].dim[0] = 0;
    assert_false(export_to(w.a, s, NULL, out, NULL, w.d));
    assert_non_null(strstr(flushed(w.a, w.d), "[0,16]"));
    s->loaded = false;
    assert_false(export_to(w.a, s, NULL, out, NULL, w.d));
    assert_non_null(strstr(flushed(w.a, w.d), "no tensors"));
    assert_int_not_equal(access(out, F_OK), 0);
    s = adapter_make(&w, "{\"moec_adapter\":1,\"method\":\"ia3\"}");
    assert_false(export_to(w.a, s, NULL, arena_printf(w.a, "%s/no/such", w.dir), NULL, w.d));
    flushed(w.a, w.d);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library),          cmocka_unit_test(test_scales),
        cmocka_unit_test(test_ia3_places),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_refused),          cmocka_unit_test(test_tolerated),
        cmocka_unit_test(test_mixtures_refused), cmocka_unit_test(test_export_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
