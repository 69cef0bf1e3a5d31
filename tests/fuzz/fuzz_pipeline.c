/* Text IR through everything. A first line `#` and a letter chooses how: the letter's low bits. */
#include "fuzz.h"

void fuzz_pipeline(const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    unsigned choice = n > 1 && p[0] == '#' ? p[1] : 0;
    Module *m = module_parse(d, "fuzz.ir", (const char *)p, n);
    fuzz_reported(d, m && module_verify(m, d, false) && fuzz_compile(m, (PassOptions){0}, choice, NULL, NULL, d));
    module_free(m);
}
