/* moec info: what a model is and what an adapter adds to it, from config.json alone. No weights are read but
 * the adapter's own, when its spec names some. */
#include "build.h"

#include "../../frontends/spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct Info {
    const Options *o;
    Arena *a;
    Diag *d;
    T5Config c;
    ModelSite *site;
    uint32_t n_sites;
    AdapterSpec *spec; /* NULL without --adapter */
    AdapterPlan plan;
    int64_t base, added, trained;
} Info;

/* 1234567 as 1,234,567. */
static const char *grouped(Arena *a, int64_t v) {
    char digits[32], out[48];
    int n = snprintf(digits, sizeof digits, "%" PRId64, v), k = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
            out[k++] = ',';
        out[k++] = digits[i];
    }
    return arena_strndup(a, out, (size_t)k);
}

static const char *router_name(const AdapterRule *r) {
    static const char *const names[] = {"site", "input", "sentence"};
    return adapter_method_routed(r->method) ? names[r->router.input] : "-";
}

/* The router's options that are not the defaults. */
static void router_text(const RouterOptions *r, Text *t) {
    if (r->top_k > 0)
        text_printf(t, " top %" PRId64 " (%s)", r->top_k, r->renormalise ? "renormalised" : "as they are");
    if (r->temperature != 1)
        text_printf(t, " temperature %g", r->temperature);
    if (r->bias)
        text_printf(t, " bias");
    if (r->jitter > 0)
        text_printf(t, " jitter %g", r->jitter);
    if (r->balance_loss > 0)
        text_printf(t, " balance %g", r->balance_loss);
    if (r->z_loss > 0)
        text_printf(t, " z %g", r->z_loss);
}

static void number_or_dash(Text *t, int width, int64_t v) {
    if (v > 0)
        text_printf(t, "  %*" PRId64, width, v);
    else
        text_printf(t, "  %*s", width, "-");
}

static void print_text(Info *f, Text *t) {
    const T5Config *c = &f->c;
    text_printf(t, "model       %s\n", diag_show(f->d, str_c(f->o->model)));
    text_printf(t, "kind        T5, %s%s feed-forward, %s head\n", c->gated ? "gated " : "", c->act.p,
                c->tied ? "tied" : "untied");
    text_printf(t,
                "widths      d_model %" PRId64 ", d_ff %" PRId64 ", %" PRId64 " heads x %" PRId64
                ", vocabulary %" PRId64 "\n",
                c->d_model, c->d_ff, c->heads, c->d_kv, c->vocab);
    text_printf(t, "layers      %" PRId64 " encoder, %" PRId64 " decoder\n", c->enc_layers, c->dec_layers);
    text_printf(t, "positions   %" PRId64 " buckets, distance %" PRId64 "\n", c->buckets, c->max_distance);
    text_printf(t, "parameters  %s\n", grouped(f->a, f->base));
    if (f->spec == NULL)
        return;
    text_printf(t, "\nadapter     %s\n", diag_show(f->d, str_c(f->o->adapter)));
    if (f->spec->loaded)
        text_printf(t, "weights     %s\n", diag_show(f->d, str_c(f->spec->tensor_file)));
    if (adapter_is_full(f->spec)) {
        text_printf(t, "trainable   %s: every weight of the base\n", grouped(f->a, f->trained));
        return;
    }
    text_printf(t, "\n%-22s  %-6s  %7s  %5s  %7s  %9s  %12s  %s\n", "site", "method", "experts", "rank",
                "alpha", "router in", "parameters", "router");
    for (uint32_t i = 0; i < f->plan.n_sites; i++) {
        const AdapterSite *s = &f->plan.site[i];
        text_printf(t, "%-22s  %-6s", s->at->name.p, adapter_method_name(s->rule->method));
        number_or_dash(t, 7, s->rule->experts);
        number_or_dash(t, 5, s->rule->rank);
        if (adapter_method_ranked(s->rule->method))
            text_printf(t, "  %7g", s->rule->alpha);
        else
            text_printf(t, "  %7s", "-");
        number_or_dash(t, 9, adapter_router_width(s));
        text_printf(t, "  %12s", grouped(f->a, adapter_site_count(f->spec, s, false)));
        if (adapter_method_routed(s->rule->method)) {
            text_printf(t, "  %s", router_name(s->rule));
            router_text(&s->rule->router, t);
        }
        text_printf(t, "\n");
    }
    text_printf(t, "\nsites       %" PRIu32 " of %" PRIu32 "\n", f->plan.n_sites, f->n_sites);
    text_printf(t, "added       %s\n", grouped(f->a, f->added));
    text_printf(t, "trainable   %s, %.4f%% of the model's\n", grouped(f->a, f->trained),
                100.0 * (double)f->trained / (double)f->base);
}

static void print_json(Info *f, Text *t) {
    const T5Config *c = &f->c;
    text_printf(t,
                "{\"d_model\":%" PRId64 ",\"d_ff\":%" PRId64 ",\"heads\":%" PRId64 ",\"d_kv\":%" PRId64
                ",\"encoder_layers\":%" PRId64 ",\"decoder_layers\":%" PRId64 ",\"vocab\":%" PRId64 ",",
                c->d_model, c->d_ff, c->heads, c->d_kv, c->enc_layers, c->dec_layers, c->vocab);
    text_printf(
        t, "\"buckets\":%" PRId64 ",\"max_distance\":%" PRId64 ",\"gated\":%s,\"tied\":%s,\"activation\":",
        c->buckets, c->max_distance, c->gated ? "true" : "false", c->tied ? "true" : "false");
    text_json(t, c->act);
    text_printf(t, ",\"parameters\":%" PRId64, f->base);
    if (f->spec != NULL) {
        text_printf(t,
                    ",\"adapter\":{\"spec\":%.*s,\"added\":%" PRId64 ",\"trainable\":%" PRId64
                    ",\"trainable_percent\":%.17g,\"sites\":[",
                    (int)f->spec->json.n, f->spec->json.p, f->added, f->trained,
                    100.0 * (double)f->trained / (double)f->base);
        for (uint32_t i = 0; i < f->plan.n_sites; i++) {
            const AdapterSite *s = &f->plan.site[i];
            text_printf(t, "%s\n{\"site\":", i > 0 ? "," : "");
            text_json(t, s->at->name);
            text_printf(t, ",\"method\":\"%s\",\"experts\":%" PRId64 ",\"rank\":%" PRId64 ",\"alpha\":%.17g",
                        adapter_method_name(s->rule->method), s->rule->experts, s->rule->rank,
                        s->rule->alpha);
            text_printf(t,
                        ",\"router_input\":\"%s\",\"router_width\":%" PRId64 ",\"parameters\":%" PRId64
                        ",\"trainable\":%" PRId64 ",\"tensors\":{",
                        router_name(s->rule), adapter_router_width(s), adapter_site_count(f->spec, s, false),
                        adapter_site_count(f->spec, s, true));
            SiteTensor st[TR_COUNT];
            uint32_t n = adapter_site_tensors(s, st);
            for (uint32_t k = 0; k < n; k++) {
                text_printf(t, "%s\"%s\":[", k > 0 ? "," : "", adapter_tensor_suffix(st[k].role));
                for (int r = 0; r < st[k].rank; r++)
                    text_printf(t, "%s%" PRId64, r > 0 ? "," : "", st[k].dim[r]);
                text_printf(t, "]");
            }
            text_printf(t, "}}");
        }
        text_printf(t, "]}");
    }
    text_printf(t, "}\n");
}

static bool info_adapter(Info *f) {
    if (f->o->adapter == NULL)
        return true;
    f->spec = spec_load(f->a, f->o->adapter, f->d);
    if (f->spec == NULL || !spec_load_weights(f->a, f->spec, f->o->adapter_weights, f->d))
        return false;
    if (adapter_is_full(f->spec)) {
        f->trained = f->base;
        return true;
    }
    if (!adapter_resolve(f->spec, f->site, f->n_sites, f->a, &f->plan, f->d))
        return false;
    const float **value;
    if (f->spec->loaded && !adapter_values(f->spec, &f->plan, 0, f->a, &value, f->d))
        return false;
    for (uint32_t i = 0; i < f->plan.n_sites; i++) {
        f->added += adapter_site_count(f->spec, &f->plan.site[i], false);
        f->trained += adapter_site_count(f->spec, &f->plan.site[i], true);
    }
    return true;
}

int cmd_info(const Options *o) {
    int code;
    size_t n = strlen(o->model);
    if (n > 8 && strcmp(o->model + n - 8, ".weights") == 0)
        return info_weights(o);
    if (o->check)
        return usage_error(o, DIAG_USAGE_TOGETHER, "--check is for the weights file of a compiled model, NAME.weights");
    if (!reports_check(o, true, &code))
        return code;
    Info f = {.o = o, .a = arena_new(), .d = diag_new()};
    bool ok = o->config ? config_load(f.a, o->config, &f.c, f.d) : model_config(f.a, o->model, &f.c, f.d);
    if (ok) {
        f.base = config_base_count(&f.c);
        f.n_sites = config_sites(&f.c, f.a, &f.site);
        ok = info_adapter(&f);
    }
    if (ok) {
        Text t = {0};
        (o->json ? print_json : print_text)(&f, &t);
        if (o->train && o->json)
            ok = diag_error(f.d, DIAG_USAGE_TOGETHER, NULL, "--train tells the memory plan as text: leave --json out");
        bool plans = o->train || o->memory_report;
        ok = ok && (!plans || info_train(o, &t, f.d)) && text_write(NULL, &t, f.d);
        text_free(&t);
    }
    spec_close(f.spec);
    int exit_code = diag_finish(f.d, ok);
    arena_free(f.a);
    return exit_code;
}
