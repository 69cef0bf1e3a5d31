/* An adapter spec: read, then against the sites of a model, with the values it would start from. */
#include "fuzz.h"

#include "frontends/config.h"
#include "frontends/spec.h"

static const T5Config small = {.d_model = 8, .d_ff = 12, .d_kv = 4, .heads = 2, .enc_layers = 2, .dec_layers = 1, .vocab = 16, .gated = true};

static bool resolve(const AdapterSpec *spec, Arena *a, Diag *d) {
    ModelSite *site;
    AdapterPlan plan;
    const float **value;
    uint32_t n = config_sites(&small, a, &site);
    if (!adapter_resolve(spec, site, n, a, &plan, d)) return false;
    int64_t count = 0;
    for (uint32_t i = 0; i < plan.n_sites; i++) count += adapter_site_count(spec, &plan.site[i], true);
    return count > 1 << 16 || adapter_values(spec, &plan, 7, a, &value, d);
}

void fuzz_spec(const uint8_t *p, size_t n) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    AdapterSpec *spec = spec_parse(a, "fuzz.json", fuzz_text(a, p, n), d);
    fuzz_reported(d, spec && resolve(spec, a, d));
    arena_free(a);
}
