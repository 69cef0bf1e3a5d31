/* In the place of llvm.c where moec is built with -DMOEC_LLVM=OFF. */
#include "../llvm.h"

static bool refuse(Diag *d) {
    return diag_error(d, DIAG_TOOL_MISSING, NULL,
                      "this moec was built without LLVM (-DMOEC_LLVM=OFF); use --backend=c");
}

bool llvm_emit(const Program *p, const LlvmOptions *o, Text *out, Diag *d) {
    (void)p, (void)o, (void)out;
    return refuse(d);
}

bool llvm_emit_main(const char *prefix, bool text, bool blas, const LlvmOptions *o, Text *out, Diag *d) {
    (void)prefix, (void)text, (void)blas, (void)o, (void)out;
    return refuse(d);
}

char *llvm_host(void) {
    return NULL;
}

const char *llvm_version(void) {
    return NULL;
}
