/* Text IR. What parses prints as text that parses, to the same text. */
#include "fuzz.h"

void fuzz_ir(const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    Module *m = module_parse(d, "fuzz.ir", (const char *)p, n), *again = NULL;
    bool ok = m != NULL;
    if (ok) {
        Text one = {0}, two = {0};
        bool good = module_verify(m, d, false);
        module_print(m, &one);
        again = module_parse(d, "again.ir", one.p, one.n);
        if (good) CHECK(again != NULL);
        if (again) module_print(again, &two);
        if (good) CHECK(str_eq((Str){one.p, one.n}, (Str){two.p, two.n}));
        text_free(&one);
        text_free(&two);
        ok = good;
    }
    module_free(m);
    module_free(again);
    fuzz_reported(d, ok);
}
