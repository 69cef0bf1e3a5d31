/* Which adapter sits where, its tensors, and their values.
 *
 * What a method is comes from the table below; nothing else in the compiler lists methods but the
 * nodes that attach.c builds. */
#include "adapter.h"

#include "pattern.h"
#include "random.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROLE(r) (1u << SR_##r)

static const struct {
    const char *name;
    uint32_t sits; /* roles it can sit on */
    uint32_t own;  /* roles it takes when the spec has no "sites": the paper's */
    bool routed, ranked;
} methods[AM_COUNT] = {
    [AM_IA3] = {"ia3", ROLE(K) | ROLE(V) | ROLE(ACT), ROLE(K) | ROLE(V) | ROLE(ACT), false, false},
    [AM_LORA] = {"lora", ROLE(Q) | ROLE(K) | ROLE(V) | ROLE(O) | ROLE(WI) | ROLE(WI_1) | ROLE(WO),
                 ROLE(Q) | ROLE(K) | ROLE(V) | ROLE(O) | ROLE(WI) | ROLE(WO), false, true},
    [AM_MOV] = {"mov", ROLE(K) | ROLE(V) | ROLE(ACT), ROLE(K) | ROLE(V) | ROLE(ACT), true, false},
    [AM_MOLORA] = {"molora", ROLE(Q) | ROLE(K) | ROLE(V) | ROLE(O) | ROLE(WI) | ROLE(WI_1) | ROLE(WO),
                   ROLE(Q) | ROLE(K) | ROLE(V) | ROLE(O) | ROLE(WI) | ROLE(WO), true, true},
    [AM_FULL] = {"full", 0, 0, false, false},
};

static const char *const role_names[SR_COUNT] = {"q", "k", "v", "o", "wi", "wi_1", "wo", "act"};
static const char *const suffixes[TR_COUNT] = {"scale", "lora_A", "lora_B", "router", "router_bias"};

const char *adapter_method_name(AdapterMethod m) {
    return methods[m].name;
}

const char *adapter_tensor_suffix(TensorRole r) {
    return suffixes[r];
}

const char *site_role_name(SiteRole r) {
    return role_names[r];
}

bool site_role_parse(Str s, SiteRole *out) {
    for (int r = 0; r < SR_COUNT; r++) {
        if (str_is(s, role_names[r])) {
            *out = (SiteRole)r;
            return true;
        }
    }
    return false;
}

bool adapter_method_sits(AdapterMethod m, SiteRole r) {
    return (methods[m].sits >> r & 1) != 0;
}

bool adapter_method_routed(AdapterMethod m) {
    return methods[m].routed;
}

bool adapter_is_full(const AdapterSpec *spec) {
    return spec->n_rules == 1 && spec->rule->method == AM_FULL;
}

bool adapter_method_ranked(AdapterMethod m) {
    return methods[m].ranked;
}

/* ---- resolving ---------------------------------------------------------------------------------- */

/* Patterns of one spec together: bounds the time of matching them all. */
enum { PATTERNS_MAX_BYTES = 256 * 1024 };

static DiagPlace rule_place(const AdapterSpec *spec, const AdapterRule *r) {
    return (DiagPlace){.file = spec->file, .line = r->line};
}

/* Marks the sites `r` matches in `seen` (all it could have) and takes those still free. */
static bool rule_apply(const AdapterSpec *spec, const AdapterRule *r, const ModelSite *sites, uint32_t n,
                       const AdapterRule **taken, Arena *a, Diag *d) {
    Pattern *p = NULL;
    const char *why = NULL;
    if (spec->has_sites && (p = pattern_new(a, r->pattern, &why)) == NULL)
        return diag_error_at(d, DIAG_SPEC_SITES, rule_place(spec, r), "key 'match': pattern '%s': %s",
                             diag_show(d, r->pattern), why);
    uint32_t matched = 0, misfit = 0;
    for (uint32_t i = 0; i < n; i++) {
        const ModelSite *s = &sites[i];
        if (spec->has_sites ? !pattern_match(p, s->name) : (methods[r->method].own >> s->role & 1) == 0)
            continue;
        if (!adapter_method_sits(r->method, s->role)) {
            misfit++;
            continue;
        }
        matched++;
        if (taken[i] == NULL)
            taken[i] = r;
    }
    if (matched > 0)
        return true;
    DiagPlace where = rule_place(spec, r);
    if (!spec->has_sites)
        return diag_error_at(d, DIAG_SPEC_NO_SITE, where, "the model has no site for method %s",
                             methods[r->method].name);
    if (misfit > 0)
        return diag_error_at(d, DIAG_SPEC_NO_SITE, where,
                             "key 'match': pattern '%s' names only sites that %s cannot sit on (it takes %s)",
                             diag_show(d, r->pattern), methods[r->method].name,
                             methods[r->method].ranked ? "q, k, v, o, wi, wi_1 and wo" : "k, v and act");
    return diag_error_at(d, DIAG_SPEC_NO_SITE, where,
                         "key 'match': pattern '%s' matches no site of the model", diag_show(d, r->pattern));
}

/* Every product a later pass forms from a site and its rule stays within the limits of tensors. */
static bool site_check(const AdapterSpec *spec, const AdapterSite *s, Diag *d) {
    const AdapterRule *r = s->rule;
    const ModelSite *m = s->at;
    int64_t wide = m->d_in > m->d_out ? m->d_in : m->d_out, size;
    if (r->rank > wide)
        return diag_error_at(d, DIAG_SPEC_SIZE, rule_place(spec, r),
                             "key 'rank': %" PRId64 " is more than both widths of site %s (%" PRId64
                             " in, %" PRId64 " out)",
                             r->rank, m->name.p, m->d_in, m->d_out);
    int64_t experts = r->experts > 0 ? r->experts : 1, rank = r->rank > 0 ? r->rank : 1;
    if (!mul_i64(experts, rank, &size) || !mul_i64(size, wide, &size) || size > MOEC_MAX_TENSOR / 8)
        return diag_error_at(d, DIAG_SPEC_SIZE, rule_place(spec, r),
                             "keys 'experts', 'rank': the tensors of site %s are too large", m->name.p);
    return true;
}

/* Tensors made for wi_0 would fit a plain wi, and change another thing. */
static bool gate_check(const AdapterSpec *spec, const ModelSite *sites, uint32_t n, Diag *d) {
    int gated = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (sites[i].role == SR_WI && gated == 0)
            gated = -1;
        if (sites[i].role == SR_WI_1)
            gated = 1;
    }
    if (spec->gated == 0 || gated == 0 || spec->gated == gated)
        return true;
    return diag_error(d, DIAG_ADAPTER_SHAPE, spec->file,
                      "has tensors of %s; the model's feed-forward blocks have %s",
                      spec->gated > 0 ? "wi_0 or wi_1" : "wi", gated > 0 ? "wi_0 and wi_1" : "wi");
}

bool adapter_resolve(const AdapterSpec *spec, const ModelSite *sites, uint32_t n, Arena *a, AdapterPlan *out,
                     Diag *d) {
    *out = (AdapterPlan){0};
    size_t errors = diag_errors(d), bytes = 0;
    if (!gate_check(spec, sites, n, d))
        return false;
    for (uint32_t i = 0; i < spec->n_rules; i++)
        bytes += spec->rule[i].pattern.n < LIMIT_PATTERN ? spec->rule[i].pattern.n : 0;
    if (bytes > PATTERNS_MAX_BYTES)
        return diag_error(d, DIAG_SPEC_SITES, spec->file,
                          "key 'sites': the patterns are longer than %d bytes together", PATTERNS_MAX_BYTES);
    const AdapterRule **taken = arena_array(a, (size_t)n + 1, sizeof *taken);
    for (uint32_t i = 0; i < spec->n_rules && diag_errors(d) < errors + 8; i++)
        rule_apply(spec, &spec->rule[i], sites, n, taken, a, d);
    out->site = arena_array(a, (size_t)n + 1, sizeof *out->site);
    for (uint32_t i = 0; i < n && diag_errors(d) < errors + 8; i++) {
        if (taken[i] == NULL)
            continue;
        AdapterSite *s = &out->site[out->n_sites++];
        *s = (AdapterSite){&sites[i], taken[i]};
        site_check(spec, s, d);
        int64_t width = taken[i]->router.input == RI_SENTENCE ? taken[i]->router.sentence_dim : 0;
        if (width > 0 && out->sentence_dim > 0 && width != out->sentence_dim)
            diag_error_at(d, DIAG_SPEC_OPTIONS, rule_place(spec, taken[i]),
                          "key 'router.sentence_dim': %" PRId64 " here and %" PRId64
                          " elsewhere; a model takes one sentence vector",
                          width, out->sentence_dim);
        if (width > 0)
            out->sentence_dim = width;
    }
    return diag_errors(d) == errors;
}

/* ---- tensors ------------------------------------------------------------------------------------ */

int64_t adapter_router_width(const AdapterSite *s) {
    const RouterOptions *r = &s->rule->router;
    if (!methods[s->rule->method].routed)
        return 0;
    if (r->input == RI_SENTENCE)
        return r->sentence_dim;
    if (methods[s->rule->method].ranked || r->input == RI_INPUT)
        return s->at->d_in;
    return s->at->heads > 0 ? s->at->d_out / s->at->heads : s->at->d_out;
}

static SiteTensor site_tensor(TensorRole role, int rank, int64_t d0, int64_t d1, int64_t d2) {
    SiteTensor t = {role, rank, {d0, d1, d2}, 1};
    for (int i = 0; i < rank; i++)
        t.count *= t.dim[i];
    return t;
}

uint32_t adapter_site_tensors(const AdapterSite *s, SiteTensor out[TR_COUNT]) {
    const ModelSite *m = s->at;
    int64_t E = s->rule->experts, r = s->rule->rank, h = m->heads, D = h > 0 ? m->d_out / h : 0;
    uint32_t n = 0;
    switch (s->rule->method) {
    case AM_IA3:
        out[n++] = h > 0 ? site_tensor(TR_SCALE, 2, h, D, 0) : site_tensor(TR_SCALE, 1, m->d_out, 0, 0);
        break;
    case AM_MOV:
        out[n++] = h > 0 ? site_tensor(TR_SCALE, 3, h, E, D) : site_tensor(TR_SCALE, 2, E, m->d_out, 0);
        break;
    case AM_LORA:
        out[n++] = site_tensor(TR_LORA_A, 2, m->d_in, r, 0);
        out[n++] = site_tensor(TR_LORA_B, 2, r, m->d_out, 0);
        break;
    case AM_MOLORA:
        out[n++] = site_tensor(TR_LORA_A, 3, E, m->d_in, r);
        out[n++] = site_tensor(TR_LORA_B, 3, E, r, m->d_out);
        break;
    case AM_FULL:
        break;
    case AM_COUNT:
        BUG("not a method");
    }
    if (methods[s->rule->method].routed) {
        out[n++] = site_tensor(TR_ROUTER, 2, adapter_router_width(s), E, 0);
        if (s->rule->router.bias)
            out[n++] = site_tensor(TR_ROUTER_BIAS, 1, E, 0, 0);
    }
    return n;
}

int64_t adapter_site_count(const AdapterSpec *spec, const AdapterSite *s, bool trained) {
    SiteTensor t[TR_COUNT];
    uint32_t n = adapter_site_tensors(s, t);
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool router = t[i].role == TR_ROUTER || t[i].role == TR_ROUTER_BIAS;
        if (!trained || (router ? spec->train_router : spec->train_experts))
            sum += t[i].count;
    }
    return sum;
}

/* ---- values ------------------------------------------------------------------------------------- */

/* Box-Muller; u is in (0, 1], so the logarithm is finite. */
static double draw_normal(uint64_t key, uint64_t i) {
    const double pi = 3.14159265358979323846;
    double u = (double)((random_draw(key, 2 * i) >> 11) + 1) * 0x1p-53;
    double v = (double)(random_draw(key, 2 * i + 1) >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(2.0 * pi * v);
}

void adapter_init(uint64_t seed, Str name, TensorRole role, float *data, int64_t count) {
    uint64_t key = hash_bytes(random_draw(seed, 0), name.p, name.n);
    bool normal = role == TR_LORA_A || role == TR_ROUTER;
    for (int64_t i = 0; i < count; i++)
        data[i] = normal ? (float)(0.02 * draw_normal(key, (uint64_t)i)) : role == TR_SCALE ? 1.0f : 0.0f;
}

static int tensor_order(const void *a, const void *b) {
    const AdapterTensor *x = *(const AdapterTensor *const *)a, *y = *(const AdapterTensor *const *)b;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int c = n > 0 ? memcmp(x->name.p, y->name.p, n) : 0;
    return c != 0 ? c : (x->name.n > y->name.n) - (x->name.n < y->name.n);
}

static void shape_text(Text *t, int rank, const int64_t *dim) {
    text_printf(t, "[");
    for (int i = 0; i < rank; i++)
        text_printf(t, "%s%" PRId64, i > 0 ? "," : "", dim[i]);
    text_printf(t, "]");
}

static bool tensor_fits(const AdapterTensor *have, const SiteTensor *want, bool flat, const char *file, Diag *d) {
    bool same = have->rank == want->rank;
    for (int i = 0; same && i < want->rank; i++)
        same = have->dim[i] == want->dim[i];
    same = same || (flat && want->role == TR_SCALE && have->rank == 1 && have->dim[0] == want->count);
    if (same && have->kind != FK_NONE)
        return true;
    if (same)
        return diag_error(d, DIAG_ADAPTER_SHAPE, file,
                          "tensor '%s': dtype %s; floating point is needed (F32, F16, BF16, F64)",
                          diag_show(d, have->name), diag_show(d, have->dtype));
    Text t = {0};
    text_printf(&t, "shape ");
    shape_text(&t, have->rank, have->dim);
    text_printf(&t, " where the model has ");
    shape_text(&t, want->rank, want->dim);
    diag_error(d, DIAG_ADAPTER_SHAPE, file, "tensor '%s': %.*s", diag_show(d, have->name), (int)t.n, t.p);
    text_free(&t);
    return false;
}

/* Element by element through memcpy: the file's data need not be aligned. Hosts are little-endian. */
float *adapter_tensor_floats(const AdapterTensor *t, int64_t count, Arena *a) {
    float *out = arena_array(a, (size_t)count, sizeof *out);
    const unsigned char *p = t->data;
    for (int64_t i = 0; i < count && t->kind == FK_F64; i++) {
        double v;
        memcpy(&v, p + 8 * i, sizeof v);
        out[i] = (float)v;
    }
    for (int64_t i = 0; i < count && (t->kind == FK_F16 || t->kind == FK_BF16); i++) {
        uint16_t v;
        memcpy(&v, p + 2 * i, sizeof v);
        uint32_t wide = (uint32_t)v << 16;
        if (t->kind == FK_F16)
            out[i] = f16_to_f32(v);
        else
            memcpy(&out[i], &wide, sizeof wide);
    }
    if (t->kind == FK_F32 && count > 0)
        memcpy(out, p, (size_t)count * sizeof *out);
    return out;
}

bool param_take(Param *p, const AdapterTensor *t, const char *file, Arena *a, Diag *d) {
    SiteTensor want = {.rank = p->rank, .count = 1};
    enum { AXES = sizeof want.dim / sizeof *want.dim };
    if (p->rank > AXES)
        return diag_error(d, DIAG_BASE_WEIGHT, file,
                          "tensor '%s': the model's weight of that name has more than %d axes",
                          diag_show(d, t->name), AXES);
    for (int i = 0; i < p->rank; i++)
        want.count *= want.dim[i] = p->dim[i];
    if (p->dtype != DT_F32)
        return diag_error(d, DIAG_BASE_WEIGHT, file,
                          "tensor '%s': the model's weight of that name is %s, only f32 can be replaced",
                          diag_show(d, t->name), dtype_name(p->dtype));
    if (!tensor_fits(t, &want, false, file, d))
        return false;
    bool borrows = t->kind == FK_F32 && (uintptr_t)t->data % _Alignof(float) == 0;
    p->data = borrows ? t->data : adapter_tensor_floats(t, want.count, a);
    return true;
}

enum { REPORT_EACH = 4 }; /* missing, misfit and surplus tensors named one by one before only being counted */

static void report_rest(const char *file, DiagCode code, const char *what, uint32_t count, Diag *d) {
    if (count > REPORT_EACH)
        diag_error(d, code, file, "%" PRIu32 " more %s", count - REPORT_EACH, what);
}

static bool values_load(const AdapterSpec *spec, const AdapterPlan *plan, Arena *a, const float **value,
                        Diag *d) {
    const AdapterTensor **sorted = arena_array(a, (size_t)spec->n_tensors + 1, sizeof *sorted);
    const AdapterTensor **found = arena_array(a, (size_t)plan->n_sites * TR_COUNT + 1, sizeof *found);
    bool *used = arena_array(a, (size_t)spec->n_tensors + 1, sizeof *used);
    for (uint32_t i = 0; i < spec->n_tensors; i++)
        sorted[i] = &spec->tensor[i];
    qsort(sorted, spec->n_tensors, sizeof *sorted, tensor_order);
    uint32_t missing = 0, misfit = 0, surplus = 0;
    size_t k = 0;
    for (uint32_t i = 0; i < plan->n_sites; i++) {
        SiteTensor t[TR_COUNT];
        uint32_t n = adapter_site_tensors(&plan->site[i], t);
        for (uint32_t j = 0; j < n; j++, k++) {
            const char *name = arena_printf(a, "%s.%s", plan->site[i].at->name.p, suffixes[t[j].role]);
            AdapterTensor key = {.name = str_c(name)}, *probe = &key;
            const AdapterTensor **at = bsearch(&probe, sorted, spec->n_tensors, sizeof *sorted, tensor_order);
            if (at == NULL) {
                if (missing++ < REPORT_EACH)
                    diag_error(d, DIAG_ADAPTER_MISSING, spec->tensor_file, "tensor '%s' is missing", name);
                continue;
            }
            used[*at - spec->tensor] = true;
            if (misfit >= REPORT_EACH || !tensor_fits(*at, &t[j], spec->flat_heads, spec->tensor_file, d))
                misfit++;
            found[k] = *at;
        }
    }
    for (uint32_t i = 0; i < spec->n_tensors; i++) {
        if (!used[i] && surplus++ < REPORT_EACH)
            diag_error(d, DIAG_ADAPTER_SURPLUS, spec->tensor_file,
                       "tensor '%s' belongs to no site the spec adapts", diag_show(d, spec->tensor[i].name));
    }
    report_rest(spec->tensor_file, DIAG_ADAPTER_MISSING, "tensors are missing", missing, d);
    report_rest(spec->tensor_file, DIAG_ADAPTER_SHAPE, "tensors may not fit", misfit, d);
    report_rest(spec->tensor_file, DIAG_ADAPTER_SURPLUS, "tensors belong to no site the spec adapts", surplus,
                d);
    if (missing > 0 || misfit > 0 || surplus > 0)
        return false;
    while (k-- > 0) {
        int64_t count = 1;
        for (int i = 0; i < found[k]->rank; i++)
            count *= found[k]->dim[i];
        value[k] = adapter_tensor_floats(found[k], count, a);
    }
    return true;
}

bool adapter_values(const AdapterSpec *spec, const AdapterPlan *plan, uint64_t seed, Arena *a,
                    const float ***out, Diag *d) {
    const float **value = arena_array(a, (size_t)plan->n_sites * TR_COUNT + 1, sizeof *value);
    *out = value;
    if (spec->loaded)
        return values_load(spec, plan, a, value, d);
    size_t k = 0;
    for (uint32_t i = 0; i < plan->n_sites; i++) {
        SiteTensor t[TR_COUNT];
        uint32_t n = adapter_site_tensors(&plan->site[i], t);
        for (uint32_t j = 0; j < n; j++, k++) {
            const char *name = arena_printf(a, "%s.%s", plan->site[i].at->name.p, suffixes[t[j].role]);
            float *data = arena_array(a, (size_t)t[j].count, sizeof *data);
            adapter_init(seed, str_c(name), t[j].role, data, t[j].count);
            value[k] = data;
        }
    }
    return true;
}
