/* An adapter spec on a small T5, whose text IR seeds.sh has made; the spec's size chooses how it is compiled. */
#include "fuzz.h"

#include "compiler/adapter.h"
#include "frontends/file.h"
#include "frontends/spec.h"

#include <stdlib.h>

static Str base_text(void) {
    static Arena *a;
    static Str text;
    if (!a) {
        Diag *d = diag_new();
        const char *path = getenv("MOEC_FUZZ_T5");
        a = arena_new();
        fuzz_reported(d, file_read(a, path ? path : MOEC_SOURCE_DIR "/tests/fuzz/t5.ir", 1 << 20, &text, d));
    }
    return text;
}

void fuzz_adapter(const uint8_t *p, size_t n) {
    Str base = base_text();
    Diag *d = diag_new();
    Arena *a = arena_new();
    PassOptions o = {.seed = 7};
    Module *m = NULL;
    AdapterSpec *spec = spec_parse(a, "fuzz.json", fuzz_text(a, p, n), d);
    o.adapter = spec;
    bool ok = spec && (m = module_parse(d, "t5.ir", base.p, base.n)) && fuzz_compile(m, o, (unsigned)n, NULL, NULL, d);
    fuzz_reported(d, ok);
    module_free(m);
    arena_free(a);
}
