/* ONNX: the walk over the wire format on exactly these bytes, then the file as a model and as a tensor. */
#include "fuzz.h"

#include "frontends/onnx_impl.h"

static void scan(OnnxRoot root, const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    Text slim = {0};
    size_t cost = 0;
    fuzz_reported(d, onnx_scan(p, n, root, &slim, &cost, "fuzz.onnx", d));
    text_free(&slim);
}

static bool check_outputs(const Module *m, void *files, Diag *d) {
    return onnx_check_outputs(m, files, d);
}

static void import(const char *path) {
    static const PassId bind[] = {PASS_bind};
    static const PassOptions plain = {.plain = true};
    Diag *d = diag_new();
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    PassRun run = {
        .options = &plain, .list = bind, .n_list = 1, .after_bind = check_outputs, .context = files, .bad_ir_dir = fuzz_folder()};
    fuzz_reported(d, onnx_import(m, path, "main", files, d) && passes_run(m, &run, d));
    module_free(m);
    onnx_files_free(files);
}

static void tensor(const char *path) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    Tensor t;
    fuzz_reported(d, onnx_tensor_file(path, a, &t, d));
    arena_free(a);
}

void fuzz_onnx(const uint8_t *p, size_t n) {
    scan(ONNX_MODEL, p, n);
    scan(ONNX_TENSOR, p, n);
    const char *path = fuzz_file(0, p, n);
    import(path);
    tensor(path);
}
