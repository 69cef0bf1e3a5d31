/* An adapter to PEFT directories.
 *
 * Sites come from the model's config, or from the tensors' names and shapes; from there on the spec and the
 * values are resolved as for compiling. All directories are made in one beside the result, which is renamed
 * when the last file is complete. The same adapter gives the same bytes. */
#include "peft_impl.h"

#include "../compiler/outfile.h"
#include "../compiler/replace.h"
#include "../compiler/undo.h"
#include "safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A site of the plan and its values, in the order of adapter_site_tensors. */
typedef struct Site {
    const AdapterSite *s;
    PeftPlace place;
    const char *module;
    SiteTensor tensor[TR_COUNT];
    const float *value[TR_COUNT];
    uint32_t n;
} Site;

struct PeftExport {
    Arena *a;
    Diag *d;
    const AdapterSpec *spec;
    PeftTable *table;
    ModelSite *site; /* the model's, or those the tensors name */
    uint32_t n_sites;
    Site *at; /* adapted ones */
    uint32_t n;
    bool exact;      /* site[] is the whole model's */
    bool lora;       /* else ia3 */
    int64_t experts; /* 0: plain */
    PeftFfn ffn;
};

/* ---- sites from tensors ----------------------------------------------------------------------------- */

/* One tensor's part in a site. */
typedef struct Named {
    PeftPlace place;
    TensorRole role;
    const AdapterTensor *t;
} Named;

static int named_order(const void *p, const void *q) {
    const Named *x = p, *y = q;
    int c = peft_place_order(&x->place, &y->place);
    return c != 0 ? c : (int)x->role - (int)y->role;
}

static bool tensor_name(const PeftExport *x, const AdapterTensor *t, Named *out) {
    *out = (Named){.t = t, .role = TR_COUNT};
    const char *dot = t->name.n > 0 ? memrchr(t->name.p, '.', t->name.n) : NULL;
    if (dot != NULL) {
        Str site = {t->name.p, (size_t)(dot - t->name.p)}, suffix = {dot + 1, t->name.n - site.n - 1};
        for (int r = 0; r < TR_COUNT && peft_site_parse(site, &out->place); r++) {
            if (str_is(suffix, adapter_tensor_suffix((TensorRole)r)))
                out->role = (TensorRole)r;
        }
    }
    if (out->role == TR_COUNT)
        return diag_error(x->d, DIAG_PEFT_EXPORT, x->spec->tensor_file,
                          "tensor '%s': is not named after a site of a T5", diag_show(x->d, t->name));
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 1)
            return diag_error(x->d, DIAG_PEFT_EXPORT, x->spec->tensor_file,
                              "tensor '%s': shape %s holds nothing", t->name.p,
                              peft_shape(x->a, t->rank, t->dim));
    }
    return true;
}

/* What a tensor's shape says of its site's widths; adapter_values checks whether the tensors agree. */
static void site_widths(ModelSite *m, const Named *w) {
    const AdapterTensor *t = w->t;
    bool headed = m->role == SR_K || m->role == SR_V;
    if (w->role == TR_SCALE && t->rank > 0) {
        m->d_out = t->dim[t->rank - 1];
        if (headed) {
            m->heads = t->rank > 1 ? t->dim[0] : 1;
            m->d_out *= m->heads;
        }
    } else if (w->role == TR_LORA_A && t->rank > 1) {
        m->d_in = t->dim[t->rank - 2];
    } else if (w->role == TR_LORA_B && t->rank > 0) {
        m->d_out = t->dim[t->rank - 1];
    } else if (w->role == TR_ROUTER && t->rank > 0 && m->d_in == 1) {
        m->d_in = t->dim[0];
    }
}

static bool sites_of_tensors(PeftExport *x) {
    const AdapterSpec *s = x->spec;
    Named *name = arena_array(x->a, (size_t)s->n_tensors + 1, sizeof *name);
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        if (!tensor_name(x, &s->tensor[i], &name[i]))
            return false;
    }
    qsort(name, s->n_tensors, sizeof *name, named_order);
    x->site = arena_array(x->a, (size_t)s->n_tensors + 1, sizeof *x->site);
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        if (i == 0 || peft_place_order(&name[i - 1].place, &name[i].place) != 0)
            x->site[x->n_sites++] =
                (ModelSite){str_c(peft_site_name(x->a, &name[i].place)), name[i].place.role, 1, 1, 0};
        site_widths(&x->site[x->n_sites - 1], &name[i]);
    }
    return true;
}

/* ---- what PEFT can hold ------------------------------------------------------------------------------- */

/* One kind and one number of experts: a PEFT directory has one type, and each becomes a directory. */
static bool sites_agree(PeftExport *x, const AdapterPlan *plan) {
    const AdapterRule *first = plan->site[0].rule;
    x->lora = adapter_method_ranked(first->method);
    x->experts = first->experts;
    for (uint32_t i = 1; i < plan->n_sites; i++) {
        const AdapterRule *r = plan->site[i].rule;
        if (adapter_method_ranked(r->method) != x->lora)
            return diag_error(x->d, DIAG_PEFT_EXPORT, x->spec->file,
                              "site %s has %s, site %s %s; a PEFT adapter is LoRA or IA3, not both",
                              plan->site[0].at->name.p, adapter_method_name(first->method),
                              plan->site[i].at->name.p, adapter_method_name(r->method));
        if (r->experts != x->experts)
            return diag_error(x->d, DIAG_PEFT_EXPORT, x->spec->file,
                              "site %s has %" PRId64 " experts, site %s %" PRId64
                              "; every expert becomes a PEFT adapter of all the sites",
                              plan->site[0].at->name.p, first->experts, plan->site[i].at->name.p, r->experts);
    }
    return true;
}

static bool ffn_settle(PeftExport *x, const T5Config *c, const AdapterPlan *plan) {
    const ModelSite *wi = NULL;
    x->ffn = c == NULL ? PF_UNKNOWN : c->gated ? PF_GATED : PF_PLAIN;
    if (x->spec->gated != 0)
        x->ffn = x->spec->gated > 0 ? PF_GATED : PF_PLAIN;
    for (uint32_t i = 0; i < plan->n_sites; i++) {
        if (plan->site[i].at->role == SR_WI)
            wi = plan->site[i].at;
        if (plan->site[i].at->role == SR_WI_1)
            x->ffn = PF_GATED;
    }
    if (wi != NULL && x->ffn == PF_UNKNOWN)
        return diag_error(x->d, DIAG_PEFT_MODEL, x->spec->tensor_file,
                          "site %s is module wi or wi_0, which the model tells: give its directory with "
                          "--model",
                          wi->name.p);
    return true;
}

static bool sites_resolve(PeftExport *x, const T5Config *c) {
    AdapterPlan plan;
    const float **value;
    x->exact = c != NULL;
    if (c != NULL)
        x->n_sites = config_sites(c, x->a, &x->site);
    else if (!sites_of_tensors(x))
        return false;
    if (!adapter_resolve(x->spec, x->site, x->n_sites, x->a, &plan, x->d) ||
        !adapter_values(x->spec, &plan, 0, x->a, &value, x->d) || !sites_agree(x, &plan) ||
        !ffn_settle(x, c, &plan))
        return false;
    x->at = arena_array(x->a, plan.n_sites, sizeof *x->at);
    x->n = plan.n_sites;
    for (uint32_t i = 0; i < x->n; i++) {
        Site *s = &x->at[i];
        s->s = &plan.site[i];
        CHECK(peft_site_parse(s->s->at->name, &s->place));
        s->module = peft_module_name(x->a, &s->place, x->ffn);
        s->n = adapter_site_tensors(s->s, s->tensor);
        for (uint32_t k = 0; k < s->n; k++)
            s->value[k] = *value++;
    }
    return true;
}

/* ---- config ----------------------------------------------------------------------------------------------
 */

static void number_text(Text *t, double v) {
    text_printf(t, "%.17g", v);
}

/* Modules by their last name where every such linear of the model is adapted, else each by its whole path. */
static void modules_text(const PeftExport *x, Text *t, const char *key, SiteRole only) {
    uint32_t all[SR_COUNT] = {0}, have[SR_COUNT] = {0}, n = 0;
    bool said[SR_COUNT] = {false};
    for (uint32_t i = 0; i < x->n_sites; i++)
        all[x->site[i].role]++;
    for (uint32_t i = 0; i < x->n; i++)
        have[x->at[i].place.role]++;
    text_printf(t, "  \"%s\": [", key);
    for (uint32_t i = 0; i < x->n; i++) {
        SiteRole role = x->at[i].place.role;
        bool whole = x->exact && have[role] == all[role];
        if ((only != SR_COUNT && role != only) || (whole && said[role]))
            continue;
        said[role] = true;
        text_printf(t, "%s\n    \"%s\"", n++ > 0 ? "," : "",
                    whole ? peft_linear_name(role, x->ffn) : x->at[i].module);
    }
    text_printf(t, "%s],\n", n > 0 ? "\n  " : "");
}

/* The rule whose rank and alpha most sites share, if more than half do (Boyer and Moore's vote), else some
 * site's. */
static const AdapterRule *rule_common(const PeftExport *x) {
    const AdapterRule *best = x->at[0].s->rule;
    int64_t votes = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        const AdapterRule *r = x->at[i].s->rule;
        bool same = r->rank == best->rank && r->alpha == best->alpha;
        if (!same && votes == 0)
            best = r;
        votes += same || votes == 0 ? 1 : -1;
    }
    return best;
}

/* Modules whose rank (or alpha) is not the common one. */
static void pattern_text(const PeftExport *x, Text *t, const char *key, bool ranks) {
    const AdapterRule *common = rule_common(x);
    uint32_t n = 0;
    text_printf(t, "  \"%s\": {", key);
    for (uint32_t i = 0; i < x->n; i++) {
        const AdapterRule *r = x->at[i].s->rule;
        if (ranks ? r->rank == common->rank : r->alpha == common->alpha)
            continue;
        text_printf(t, "%s\n    \"%s\": ", n++ > 0 ? "," : "", x->at[i].module);
        number_text(t, ranks ? (double)r->rank : r->alpha);
    }
    text_printf(t, "%s},\n", n > 0 ? "\n  " : "");
}

static void config_text(const PeftExport *x, Text *t) {
    text_printf(t, "{\n");
    if (x->lora)
        pattern_text(x, t, "alpha_pattern", false);
    text_printf(t, "  \"auto_mapping\": null,\n  \"base_model_name_or_path\": null,\n");
    if (x->lora)
        text_printf(t, "  \"bias\": \"none\",\n");
    text_printf(t, "  \"fan_in_fan_out\": false,\n");
    if (!x->lora)
        modules_text(x, t, "feedforward_modules", SR_ACT);
    text_printf(t, "  \"inference_mode\": true,\n  \"init_%s_weights\": true,\n", x->lora ? "lora" : "ia3");
    if (x->lora) {
        text_printf(t, "  \"lora_alpha\": ");
        number_text(t, rule_common(x)->alpha);
        text_printf(t, ",\n  \"lora_dropout\": 0.0,\n");
    }
    text_printf(t, "  \"modules_to_save\": null,\n  \"peft_type\": \"%s\",\n", x->lora ? "LORA" : "IA3");
    if (x->lora) {
        text_printf(t, "  \"r\": %" PRId64 ",\n", rule_common(x)->rank);
        pattern_text(x, t, "rank_pattern", true);
    }
    text_printf(t, "  \"revision\": null,\n");
    modules_text(x, t, "target_modules", SR_COUNT);
    text_printf(t, "  \"task_type\": \"SEQ_2_SEQ_LM\"");
    if (x->lora)
        text_printf(t, ",\n  \"use_dora\": false,\n  \"use_rslora\": false");
    text_printf(t, "\n}\n");
}

/* ---- tensors ---------------------------------------------------------------------------------------------
 */

static const char *const suffixes[TR_COUNT] = {"ia3_l", "lora_A.weight", "lora_B.weight", NULL, NULL};

/* The file's two extents: lora (columns, rows) of [rows,columns]; ia3 (out,1), or (1,in) of an activation. */
static void file_shape(const Site *s, uint32_t k, int64_t dim[2]) {
    const SiteTensor *t = &s->tensor[k];
    if (t->role != TR_SCALE) {
        dim[0] = t->dim[t->rank - 1];
        dim[1] = t->dim[t->rank - 2];
        return;
    }
    dim[0] = s->place.role == SR_ACT ? 1 : s->s->at->d_out;
    dim[1] = s->place.role == SR_ACT ? s->s->at->d_out : 1;
}

/* Expert e of a tensor, as the file has it. */
static void expert_values(const PeftExport *x, const Site *s, uint32_t k, int64_t e, float *out) {
    const SiteTensor *t = &s->tensor[k];
    const float *v = s->value[k];
    int64_t E = x->experts > 0 ? x->experts : 1, dim[2];
    file_shape(s, k, dim);
    if (t->role == TR_SCALE) {
        int64_t heads = s->place.role == SR_ACT ? 1 : s->s->at->heads, inner = dim[0] * dim[1] / heads;
        for (int64_t h = 0; h < heads; h++)
            memcpy(out + h * inner, v + (h * E + e) * inner, (size_t)inner * sizeof *v);
        return;
    }
    v += e * dim[0] * dim[1];
    for (int64_t i = 0; i < dim[0]; i++) {
        for (int64_t j = 0; j < dim[1]; j++)
            out[i * dim[1] + j] = v[j * dim[0] + i];
    }
}

static const char *tensor_key(const PeftExport *x, const Site *s, uint32_t k) {
    return arena_printf(x->a, "base_model.model.%s.%s", s->module, suffixes[s->tensor[k].role]);
}

static bool expert_write(const PeftExport *x, const char *dir, int64_t e) {
    Arena *a = arena_new();
    AdapterTensor *tensor = arena_array(a, (size_t)x->n * TR_COUNT, sizeof *tensor);
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        for (uint32_t k = 0; k < x->at[i].n; k++) {
            if (suffixes[x->at[i].tensor[k].role] == NULL)
                continue;
            AdapterTensor *t = &tensor[n++];
            *t = (AdapterTensor){.name = str_c(tensor_key(x, &x->at[i], k)), .rank = 2};
            file_shape(&x->at[i], k, t->dim);
            float *data = arena_array(a, (size_t)(t->dim[0] * t->dim[1]), sizeof *data);
            expert_values(x, &x->at[i], k, e, data);
            t->data = data;
        }
    }
    Text config = {0};
    config_text(x, &config);
    bool ok = outfile_text(arena_printf(a, "%s/%s", dir, PEFT_CONFIG), &config, x->d) &&
              safetensors_write(arena_printf(a, "%s/%s", dir, PEFT_WEIGHTS), tensor, n, (Str){NULL, 0}, x->d);
    text_free(&config);
    arena_free(a);
    return ok;
}

static void rows_make(const PeftExport *x) {
    int64_t dropped = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        const Site *s = &x->at[i];
        for (uint32_t k = 0; k < s->n; k++) {
            const SiteTensor *t = &s->tensor[k];
            bool kept = suffixes[t->role] != NULL;
            int64_t dim[2];
            const char *name = arena_printf(x->a, "%s.%s", s->s->at->name.p, adapter_tensor_suffix(t->role));
            const char *shape = peft_shape(x->a, t->rank, t->dim);
            dropped += !kept;
            if (kept) {
                file_shape(s, k, dim);
                shape = x->experts > 1 ? arena_printf(x->a, "%s -> %" PRId64 " x %s", shape, x->experts,
                                                      peft_shape(x->a, 2, dim))
                                       : arena_printf(x->a, "%s -> %s", shape, peft_shape(x->a, 2, dim));
            }
            peft_table_add(x->table, name, kept ? tensor_key(x, s, k) : "", shape,
                           !kept             ? "dropped: router, not representable in PEFT"
                           : x->experts <= 1 ? ""
                                             : arena_printf(x->a, "experts 0 to %" PRId64, x->experts - 1));
        }
    }
    if (dropped > 0)
        diag_warn(x->d, DIAG_PEFT_ROUTERS, x->spec->tensor_file,
                  "%" PRId64 " router tensors are left out: PEFT has no place for routers or their options, "
                  "each expert stands alone",
                  dropped);
}

/* ---- directories
 * ------------------------------------------------------------------------------------------- */

static const char *expert_dir(const PeftExport *x, const char *dir, int64_t e) {
    return x->experts > 1 ? arena_printf(x->a, "%s/expert_%" PRId64, dir, e) : dir;
}

static bool dir_fails(const PeftExport *x, const char *out) {
    return diag_error(x->d, DIAG_FOLDER_MAKE, out, "cannot make the directory: %s", strerror(errno));
}

/* Nothing there, or an empty directory. */
static bool dir_free(const PeftExport *x, const char *out) {
    DIR *dir = opendir(out);
    if (dir == NULL)
        return errno == ENOENT || dir_fails(x, out);
    bool empty = true;
    for (struct dirent *f; empty && (errno = 0, f = readdir(dir)) != NULL;)
        empty = strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0;
    int why = errno;
    closedir(dir);
    if (empty && why)
        return diag_error(x->d, DIAG_FOLDER_MAKE, out, "cannot be read: %s", strerror(why));
    return empty ||
           diag_error(x->d, DIAG_FOLDER_MAKE, out, "is a directory with files in it: name a new one");
}

static bool dirs_write(const PeftExport *x, const char *dir) {
    for (int64_t e = 0; e < (x->experts > 1 ? x->experts : 1); e++) {
        const char *at = expert_dir(x, dir, e);
        if (at != dir && mkdir(at, 0777) != 0)
            return dir_fails(x, at);
        if (!expert_write(x, at, e))
            return false;
    }
    errno = folder_sync(dir); /* its folders' names; those of files are synced */
    return errno == 0 || dir_fails(x, dir);
}

static bool dirs_make(const PeftExport *x, const char *out) {
    const char *dir = NULL;
    if (!dir_free(x, out))
        return false;
    for (int i = 0; i < 100 && dir == NULL; i++) {
        const char *candidate = arena_printf(x->a, "%s.%ld.%d", out, (long)getpid(), i);
        undo_add(candidate);
        if (mkdir(candidate, 0777) == 0) {
            dir = candidate;
            break;
        }
        undo_drop(candidate);
        if (errno != EEXIST)
            return dir_fails(x, out);
    }
    if (dir == NULL)
        return dir_fails(x, out);
    bool ok = dirs_write(x, dir);
    if (ok && (errno = folder_place(dir, out)) != 0)
        ok = dir_fails(x, out);
    undo_now(dir);
    return ok;
}

PeftExport *peft_export_plan(Arena *a, const AdapterSpec *spec, const T5Config *c, PeftTable *table, Diag *d) {
    PeftExport *x = arena_alloc(a, sizeof *x);
    *x = (PeftExport){.a = a, .d = d, .spec = spec, .table = table};
    if (!spec->loaded) {
        diag_error(d, DIAG_SPEC_ABSENT, spec->file,
                   "has no tensors: name a safetensors file, or a spec with a key 'weights'");
        return NULL;
    }
    if (!sites_resolve(x, c))
        return NULL;
    rows_make(x);
    return x;
}

bool peft_export_write(const PeftExport *x, const char *out) {
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        n--;
    return dirs_make(x, arena_strndup(x->a, out, n));
}
