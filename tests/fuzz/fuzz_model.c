/* An ONNX model through everything; its size chooses how. */
#include "fuzz.h"

#include "frontends/onnx.h"

static bool check_outputs(const Module *m, void *files, Diag *d) {
    return onnx_check_outputs(m, files, d);
}

void fuzz_model(const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    PassOptions plain = {.plain = true};
    bool ok = onnx_import(m, fuzz_file(0, p, n), "main", files, d) &&
              fuzz_compile(m, plain, (unsigned)n & ~(unsigned)FUZZ_TRAIN, check_outputs, files, d);
    fuzz_reported(d, ok);
    module_free(m);
    onnx_files_free(files);
}
