/* moec adapter: PEFT directories to an adapter file, and back. Each prints a table that accounts for every tensor; it is made before
 * the result is, which is the last that can fail. */
#include "driver.h"
#include "../../frontends/peft.h"
#include "../../frontends/safetensors.h"
#include "../../frontends/spec.h"

#include <inttypes.h>

typedef struct Adapter {
    const Options *o;
    Arena *a;
    Diag *d;
    const T5Config *config; /* NULL without --model */
    AdapterSpec *spec;
    PeftTable table;
} Adapter;

static bool run_import(Adapter *x, Text *t) {
    const Options *o = x->o;
    const char *output = o->output ? o->output : "adapter.safetensors";
    PeftImport how = {.config = x->config, .seed = o->seed < 0 ? 0 : (uint64_t)o->seed};
    uint32_t n = (uint32_t)o->argument.count;
    x->spec = peft_import(x->a, o->argument.item, n, &how, &x->table, x->d);
    if (!x->spec) return false;
    const AdapterRule *r = &x->spec->rule[0];
    peft_table_print(&x->table, t);
    text_printf(t, "\n%s: %s", diag_show(x->d, str_c(output)), adapter_method_name(r->method));
    if (n > 1)
        text_printf(t, " of %" PRIu32 " experts; their routers are fresh (normal(0, 0.02), seed %" PRIu64 ") and to be trained", n, how.seed);
    text_printf(t, "\n");
    return safetensors_write(output, x->spec->tensor, x->spec->n_tensors, x->spec->json, x->d);
}

static bool run_export(Adapter *x, Text *t) {
    const Options *o = x->o;
    x->spec = spec_load(x->a, o->model, x->d);
    if (!x->spec || !spec_load_weights(x->a, x->spec, NULL, x->d)) return false;
    PeftExport *e = peft_export_plan(x->a, x->spec, x->config, &x->table, x->d);
    if (!e) return false;
    peft_table_print(&x->table, t);
    int64_t E = x->spec->rule[0].experts;
    text_printf(t, "\n%s: ", diag_show(x->d, str_c(o->output)));
    if (E > 1) text_printf(t, "expert_0 to expert_%" PRId64 ", each a PEFT directory\n", E - 1);
    else text_printf(t, "a PEFT directory\n");
    return peft_export_write(e, o->output);
}

static bool (*const verbs[SUB_COUNT])(Adapter *, Text *) = {
    [SUB_adapter_import] = run_import,
    [SUB_adapter_export] = run_export,
};

int cmd_adapter(const Options *o) {
    if (o->sub == SUB_adapter_export && !o->output)
        return usage_error(o, DIAG_USAGE_ARGUMENT, "no -o DIR given");
    Adapter x = {.o = o, .a = arena_new(), .d = diag_new()};
    T5Config config;
    Text t = {0};
    bool ok = !o->base || model_config(x.a, o->base, &config, x.d);
    x.config = o->base ? &config : NULL;
    ok = ok && verbs[o->sub](&x, &t) && text_write(NULL, &t, x.d);
    text_free(&t);
    peft_table_free(&x.table);
    spec_close(x.spec);
    int code = diag_finish(x.d, ok);
    arena_free(x.a);
    return code;
}
