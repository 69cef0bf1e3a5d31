/* One expert is no mixture: MoV with E = 1 is (IA)3 and MoLORA with E = 1 is LoRA, in the loss and in every gradient, and a
 * router with nothing to choose from gets a gradient of exactly zero. The tiny T5 of examples/t5-tiny, its training function
 * in the interpreter. */
#include "compiler/pass.h"
#include "frontends/config.h"
#include "frontends/onnx.h"
#include "frontends/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MODEL MOEC_SOURCE_DIR "/examples/t5-tiny"

typedef struct Trained {
    Arena *a;
    Diag *d;
    Module *m;
    OnnxFiles *files;
    Func *f;
    Tensor *out;
} Trained;

/* The same numbers under the same name, whatever the extents. */
static void fill(Str name, float *v, int64_t n, float mean) {
    uint64_t h = hash_bytes(7, name.p, name.n);
    for (int64_t i = 0; i < n; i++) {
        h = h * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        v[i] = mean + (float)(h >> 40) / (float)(1 << 24) * 0.5f - 0.25f;
    }
}

static void give_values(Trained *t, AdapterSpec *spec) {
    T5Config c;
    ModelSite *site;
    AdapterPlan plan;
    assert_true(config_load(t->a, MODEL "/config.json", &c, t->d));
    uint32_t n = config_sites(&c, t->a, &site);
    assert_true(adapter_resolve(spec, site, n, t->a, &plan, t->d));
    spec->tensor = arena_array(t->a, plan.n_sites * TR_COUNT, sizeof *spec->tensor);
    for (uint32_t i = 0; i < plan.n_sites; i++) {
        SiteTensor st[TR_COUNT];
        uint32_t k = adapter_site_tensors(&plan.site[i], st);
        for (uint32_t j = 0; j < k; j++) {
            AdapterTensor *x = &spec->tensor[spec->n_tensors++];
            *x = (AdapterTensor){.dtype = str_c("F32"), .kind = FK_F32, .rank = st[j].rank};
            x->name = str_c(arena_printf(t->a, "%s.%s", plan.site[i].at->name.p, adapter_tensor_suffix(st[j].role)));
            memcpy(x->dim, st[j].dim, (size_t)x->rank * sizeof *x->dim);
            float *v = arena_array(t->a, (size_t)st[j].count, sizeof *v);
            fill(x->name, v, st[j].count, st[j].role == TR_SCALE ? 1 : 0);
            x->data = v;
        }
    }
    spec->loaded = true;
    spec->tensor_file = "values";
}

static int64_t seeded(const char *name, int64_t i) {
    if (strcmp(name, "encoder_segments") == 0)
        return i % 6 != 5;
    return strcmp(name, "decoder_segments") == 0 ? 1 : 3 + (i * 37 + (int64_t)strlen(name) * 11) % 200;
}

/* Scalars are 0 but for the share of router losses; every token weighs the same. */
static Tensor input(Trained *t, const Value *v, const int64_t *syms) {
    Tensor x = {.dtype = v->type.dtype, .rank = v->type.rank};
    int64_t n;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)v->name.n, v->name.p);
    for (int i = 0; i < x.rank; i++)
        assert_true(dim_eval(t->m->dims, v->type.dim[i], syms, &x.dim[i]));
    assert_true(tensor_alloc(t->a, &x) && tensor_count(&x, &n));
    for (int64_t i = 0; i < n; i++)
        if (!dtype_is_float(x.dtype))
            tensor_set_i64(&x, i, seeded(name, i));
        else
            tensor_set_f64(&x, i, x.rank ? 1.0 / (double)n : strcmp(name, "router_share") == 0);
    return x;
}

static void train(Trained *t, const char *json) {
    *t = (Trained){.a = arena_new(), .d = diag_new(), .m = module_new(), .files = onnx_files_new()};
    AdapterSpec *spec = spec_parse(t->a, "spec", str_c(json), t->d);
    assert_non_null(spec);
    give_values(t, spec);
    PassOptions o = {.adapter = spec, .train = true, .opt_level = 2};
    PassRun run = {.options = &o, .stop_after = "remat"};
    bool ok = onnx_import(t->m, MODEL "/encoder_model.onnx", "encoder", t->files, t->d) &&
              onnx_import(t->m, MODEL "/decoder_model.onnx", "decoder", t->files, t->d) && passes_run(t->m, &run, t->d);
    diag_flush(t->d);
    assert_true(ok);
    t->f = module_find(t->m, "train");
    assert_non_null(t->f);
    int64_t *syms = arena_array(t->a, dim_sym_count(t->m->dims) + 1, sizeof *syms);
    for (uint32_t i = 0; i < dim_sym_count(t->m->dims); i++) {
        const DimSym *s = dim_sym_at(t->m->dims, i);
        syms[i] = str_is(s->name, "B") ? 2 : str_is(s->name, "S") ? 6 : str_is(s->name, "T") ? 4 : s->lo;
    }
    Tensor *in = arena_array(t->a, t->f->n_inputs, sizeof *in);
    t->out = arena_array(t->a, t->f->n_outputs, sizeof *t->out);
    for (uint32_t i = 0; i < t->f->n_inputs; i++)
        in[i] = input(t, &t->f->value[t->f->input[i]], syms);
    ok = func_eval(t->m, t->f->id, syms, in, t->out, t->a, t->d);
    diag_flush(t->d);
    assert_true(ok);
}

static void forget(Trained *t) {
    module_free(t->m);
    onnx_files_free(t->files);
    diag_free(t->d);
    arena_free(t->a);
}

static const Tensor *output(const Trained *t, Str name) {
    for (uint32_t i = 0; i < t->f->n_outputs; i++)
        if (str_eq(t->f->output_name[i], name))
            return &t->out[i];
    return NULL;
}

/* Norm of the difference over that of a. */
static double apart(const Tensor *a, const Tensor *b) {
    int64_t n, m;
    double diff = 0, ref = 0;
    assert_true(tensor_count(a, &n) && tensor_count(b, &m) && n == m && n > 0);
    for (int64_t i = 0; i < n; i++) {
        double x = tensor_get_f64(a, i), y = tensor_get_f64(b, i);
        diff += (x - y) * (x - y);
        ref += x * x;
    }
    assert_true(ref > 0);
    return sqrt(diff / ref);
}

static void compare(const char *plain, const char *mixture) {
    Trained a, b;
    train(&a, plain);
    train(&b, mixture);
    double worst = 0;
    uint32_t routers = 0, shared = 0;
    assert_memory_equal(a.out[0].data, b.out[0].data, sizeof(float)); /* the loss, bit for bit */
    for (uint32_t i = 4; i < b.f->n_outputs; i++) {
        Str name = b.f->output_name[i];
        const Tensor *x = output(&a, name);
        int64_t n;
        if (x) {
            worst = fmax(worst, apart(x, &b.out[i]));
            shared++;
            continue;
        }
        routers++;
        assert_true(tensor_count(&b.out[i], &n));
        for (int64_t k = 0; k < n; k++)
            assert_true(tensor_get_f64(&b.out[i], k) == 0);
    }
    assert_true(routers > 0);
    assert_int_equal(shared, a.f->n_outputs - 4);
    print_message("%u gradients, worst %.3g apart; %u routers at rest\n", shared, worst, routers);
    assert_true(worst < 1e-6);
    forget(&a);
    forget(&b);
}

static void mov_of_one_is_ia3(void **state) {
    (void)state;
    compare("{\"moec_adapter\": 1, \"method\": \"ia3\"}", "{\"moec_adapter\": 1, \"method\": \"mov\", \"experts\": 1}");
}

static void molora_of_one_is_lora(void **state) {
    (void)state;
    compare("{\"moec_adapter\": 1, \"method\": \"lora\", \"rank\": 3}",
            "{\"moec_adapter\": 1, \"method\": \"molora\", \"experts\": 1, \"rank\": 3}");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(mov_of_one_is_ia3), cmocka_unit_test(molora_of_one_is_lora)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
