/* adapter_config.json beside the good tensors of a LoRA and of an (IA)3 adapter: one directory alone, and two as experts. */
#include "fuzz.h"

#include "frontends/file.h"
#include "frontends/peft.h"
#include "frontends/spec.h"

static const T5Config base = {.d_model = 64, .d_ff = 128, .d_kv = 16, .heads = 3, .enc_layers = 2, .dec_layers = 2, .vocab = 256, .gated = true};

static const char *folder_of(const char *name, const char *adapter) {
    Arena *a = arena_new();
    fuzz_link(arena_printf(a, "%s/adapter_config.json", name), fuzz_file(0, "", 0));
    fuzz_link(arena_printf(a, "%s/adapter_model.safetensors", name),
              arena_printf(a, MOEC_SOURCE_DIR "/tests/fixtures/peft/%s/adapter_model.safetensors", adapter));
    const char *path = fuzz_link(arena_printf(a, "%s.peft", name), arena_printf(a, "%s/%s", fuzz_folder(), name));
    arena_free(a);
    return path;
}

static void import(const char *const *folder, uint32_t n, const PeftImport *how) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    PeftTable table = {0};
    Text text = {0};
    AdapterSpec *spec = peft_import(a, folder, n, how, &table, d);
    if (spec) peft_table_print(&table, &text);
    fuzz_reported(d, spec != NULL);
    text_free(&text);
    peft_table_free(&table);
    spec_close(spec);
    arena_free(a);
}

void fuzz_peft(const uint8_t *p, size_t n) {
    static const char *lora[2], *ia3;
    if (!ia3) {
        lora[0] = folder_of("a", "lora-mix3/peft_0");
        lora[1] = folder_of("b", "lora-mix3/peft_1");
        ia3 = folder_of("c", "ia3/peft");
    }
    fuzz_file(0, p, n);
    import(lora, 2, &(PeftImport){.flat = true, .seed = 7});
    import(&ia3, 1, &(PeftImport){.config = &base});
    import(&ia3, 1, &(PeftImport){.flat = true});
}
