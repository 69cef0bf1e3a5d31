/* Adapted models against stored float64 results: encoder states, logits and label log-probabilities of the
 * tiny T5 in examples/t5-tiny with the adapters in tests/fixtures/adapters, run by the interpreter after
 * derive.
 *
 * MOEC_ADAPTER_CASES=DIR runs every case folder in DIR instead; MOEC_T5=DIR is then where models of other
 * names are, as DIR/NAME/graphs/opt113-op13. */
#include "compiler/pass.h"
#include "frontends/json.h"
#include "frontends/npy.h"
#include "frontends/onnx.h"
#include "frontends/spec.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define TOLERANCE 2e-5 /* |difference| / |reference|, 2-norms */

typedef struct Run {
    Arena *a;
    Diag *d;
    Module *m;
    const char *dir, *batch;
    struct {
        const char *name;
        Tensor value;
    } known[16];
    int n_known;
    double worst;
} Run;

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

static const char *path_of(Run *r, const char *array) {
    return arena_printf(r->a, "%s/%s.%s.npy", r->dir, r->batch, array);
}

static void learn(Run *r, const char *name, Tensor value) {
    CHECK(r->n_known < 16);
    r->known[r->n_known].name = name;
    r->known[r->n_known++].value = value;
}

static bool read_array(Run *r, const char *array, Tensor *out) {
    return exists(path_of(r, array)) && npy_read(path_of(r, array), r->a, out, r->d);
}

/* Runs a function; inputs are found by name among what is known. */
static bool call(Run *r, const char *name, Tensor *out) {
    Func *f = module_find(r->m, name);
    if (f == NULL)
        return diag_error(r->d, DIAG_RUN_FUNCTION, r->dir, "no function %s", name);
    Tensor in[32];
    int64_t *syms = arena_array(r->a, dim_sym_count(r->m->dims) + 1, sizeof *syms);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        int k = r->n_known - 1;
        while (k >= 0 && !str_is(f->value[f->input[i]].name, r->known[k].name))
            k--;
        if (k < 0)
            return diag_error(r->d, DIAG_GOLDEN_FILES, r->dir, "%s: nothing known of input %s", name,
                              diag_show(r->d, f->value[f->input[i]].name));
        in[i] = r->known[k].value;
    }
    return func_bind_dims(r->m, f, in, syms, r->d) && func_eval(r->m, f->id, syms, in, out, r->a, r->d);
}

/* Rows of `have` [B,S,n] against `want` [B,P,n], position p of which is positions[p] when there are any; only
 * rows whose mask [B,S] is 1. */
static void compare(Run *r, const char *array, const Tensor *have, const Tensor *mask,
                    const char *positions_name) {
    Tensor want, positions;
    bool some = positions_name != NULL && read_array(r, positions_name, &positions);
    if (!read_array(r, array, &want))
        return;
    int64_t P = want.dim[1], S = have->dim[1], n = want.rank > 2 ? want.dim[2] : 1;
    double difference = 0, reference = 0;
    for (int64_t b = 0; b < want.dim[0]; b++) {
        for (int64_t p = 0; p < P; p++) {
            int64_t s = some ? tensor_get_i64(&positions, p) : p;
            if (mask != NULL && tensor_get_i64(mask, b * S + s) == 0)
                continue;
            for (int64_t i = 0; i < n; i++) {
                double x = tensor_get_f64(&want, (b * P + p) * n + i),
                       y = tensor_get_f64(have, (b * S + s) * n + i);
                difference += (x - y) * (x - y);
                reference += x * x;
            }
        }
    }
    double ratio = sqrt(difference / reference);
    if (!(ratio <= TOLERANCE))
        diag_error(r->d, DIAG_GOLDEN_ARRAY, r->dir, "%s.%s: off by %.3g", r->batch, array, ratio);
    r->worst = fmax(r->worst, ratio);
}

static bool batch_run(Run *r) {
    static const char *const inputs[] = {"input_ids", "attention_mask", "decoder_input_ids", "labels",
                                         "sentence"};
    Tensor mask, out[64];
    r->n_known = 0;
    for (size_t i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        Tensor t;
        if (read_array(r, inputs[i], &t))
            learn(r, inputs[i], t);
    }
    if (!read_array(r, "attention_mask", &mask) || !call(r, "encode", out))
        return false;
    compare(r, "encoder_f64", &out[0], &mask, "encoder_positions");
    learn(r, "hidden", out[0]);
    if (!call(r, "cross", out))
        return false;
    learn(r, "cross_kv", out[0]);
    if (!call(r, "score", out))
        return false;
    compare(r, "label_logprobs_f64", &out[0], NULL, NULL);
    compare(r, "logits_f64", &out[1], NULL, "decoder_positions");
    return true;
}

/* The "model" of case.json; fixtures have none. */
static const char *case_model(Run *r) {
    const char *path = arena_printf(r->a, "%s/case.json", r->dir);
    JsonDoc doc;
    JsonPath root = {0};
    Str name = str_c("t5v11");
    if (exists(path) && json_open(r->a, path, LIMIT_JSON_FOREIGN_DEPTH, &doc, r->d)) {
        json_get_str(&doc, &root, doc.root, "model", &name);
        json_close(&doc);
    }
    if (str_is(name, "t5v11"))
        return MOEC_SOURCE_DIR "/examples/t5-tiny";
    return getenv("MOEC_T5") == NULL
               ? NULL
               : arena_printf(r->a, "%s/%s/graphs/opt113-op13", getenv("MOEC_T5"), name.p);
}

static bool model_make(Run *r, const char *model, const char *last, OnnxFiles *files, AdapterSpec *spec) {
    PassOptions options = {.adapter = spec, .opt_level = 2};
    PassRun run = {.options = &options, .stop_after = last};
    return onnx_import(r->m, arena_printf(r->a, "%s/encoder_model.onnx", model), "encoder", files, r->d) &&
           onnx_import(r->m, arena_printf(r->a, "%s/decoder_model.onnx", model), "decoder", files, r->d) &&
           passes_run(r->m, &run, r->d);
}

/* 1 passed, 0 failed, -1 not for this test. */
static int case_run(const char *dir, const char *last) {
    Run r = {.a = arena_new(), .d = diag_new(), .m = module_new(), .dir = dir};
    OnnxFiles *files = onnx_files_new();
    const char *weights = arena_printf(r.a, "%s/adapter.safetensors", dir), *model = case_model(&r);
    int result = -1;
    if (model != NULL && exists(weights) && exists(arena_printf(r.a, "%s/short.input_ids.npy", dir))) {
        AdapterSpec *spec = spec_load(r.a, arena_printf(r.a, "%s/spec.json", dir), r.d);
        bool ok = spec != NULL && spec_load_weights(r.a, spec, weights, r.d) &&
                  model_make(&r, model, last, files, spec);
        r.batch = "short";
        ok = ok && batch_run(&r);
        r.batch = "long";
        if (ok && getenv("MOEC_LONG") != NULL && exists(path_of(&r, "input_ids")))
            ok = batch_run(&r);
        result = ok && diag_errors(r.d) == 0;
        const char *name = strrchr(dir, '/');
        printf("%-8s %-40s after %-7s worst %.2g\n", result ? "ok" : "FAILED", name + 1, last, r.worst);
        spec_close(spec);
    }
    diag_flush(r.d);
    module_free(r.m);
    onnx_files_free(files);
    diag_free(r.d);
    arena_free(r.a);
    return result;
}

static void test_cases(void **state) {
    (void)state;
    const char *root = getenv("MOEC_ADAPTER_CASES");
    if (root == NULL)
        root = MOEC_SOURCE_DIR "/tests/fixtures/adapters";
    struct dirent **entry;
    int n = scandir(root, &entry, NULL, alphasort), count[3] = {0};
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", root, entry[i]->d_name);
        bool folder = strchr(entry[i]->d_name, '.') == NULL;
        for (int late = 0; folder && late < 2; late++)
            count[1 + case_run(path, late ? "fuse" : "derive")]++;
        free(entry[i]);
    }
    free(entry);
    printf("adapters: %d passed, %d failed, %d not for inference\n", count[2], count[1], count[0]);
    assert_int_equal(count[1], 0);
    assert_true(count[2] > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
