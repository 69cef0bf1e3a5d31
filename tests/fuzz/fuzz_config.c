/* config.json: read, and the sites of such a model where it has few. */
#include "fuzz.h"

#include "frontends/config.h"

void fuzz_config(const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    T5Config c;
    ModelSite *site;
    bool ok = config_load(a, fuzz_file(0, p, n), &c, d);
    if (ok) {
        CHECK(config_base_count(&c) > 0);
        if (c.enc_layers + c.dec_layers < 8) config_sites(&c, a, &site);
    }
    fuzz_reported(d, ok);
    arena_free(a);
}
