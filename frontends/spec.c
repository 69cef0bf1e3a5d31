/* The adapter spec: every key is known, every value has its type and range, and what a method needs is
 * there before anything else looks at it. The common part is read into one rule; each entry of "sites"
 * begins as a copy of it and overrides key by key, the router's keys included. */
#include "spec.h"

#include "../compiler/mapped.h"

#include "file.h"
#include "foreign.h"
#include "json.h"
#include "peft.h"
#include "safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SENTENCE = 1 << 20 };

/* Factors that must stay finite and non-zero in f32, also when multiplied or divided once. */
#define FACTOR_MIN 1e-30
#define FACTOR_MAX 1e30

static const char *const root_keys[] = {"moec_adapter", "method", "experts", "rank",  "alpha",
                                        "router",       "sites",  "weights", "train", NULL};
static const char *const site_keys[] = {"match", "method", "experts", "rank", "alpha", "router", NULL};
static const char *const train_keys[] = {"experts", "router", NULL};
static const char *const router_keys[] = {"input",  "top_k",        "renormalise", "temperature",  "bias",
                                          "jitter", "balance_loss", "z_loss",      "sentence_dim", NULL};
static const char *const input_names[] = {"site", "input", "sentence", NULL}; /* RouterInput */
static const char *const renormalise_names[] = {"none", "sum", "softmax", NULL};
static const char *const method_names[] = {"ia3",    "lora", "mov",
                                           "molora", "full", NULL}; /* AdapterMethod */

const char *const *spec_list(SpecList which) {
    static const char *const *const lists[] = {
        [SPEC_ROOT] = root_keys,      [SPEC_ENTRY] = site_keys,       [SPEC_TRAIN] = train_keys,
        [SPEC_ROUTER] = router_keys,  [SPEC_METHODS] = method_names,  [SPEC_INPUTS] = input_names,
        [SPEC_RENORMALISE] = renormalise_names,
    };
    return lists[which];
}

static bool router_read(const JsonDoc *doc, const JsonPath *at, json_t *v, RouterOptions *r) {
    JsonPath p = json_path_key(*at, "router");
    if (!json_is_object(v))
        return json_error(doc, DIAG_JSON_VALUE, &p, "must be an object");
    int input = (int)r->input, renormalise = r->renormalise;
    bool ok = json_known(doc, &p, v, router_keys);
    ok &= json_get_choice(doc, &p, v, "input", input_names, &input);
    ok &= json_get_choice(doc, &p, v, "renormalise", renormalise_names, &renormalise);
    if (json_is_null(json_object_get(v, "top_k")))
        r->top_k = 0;
    else
        ok &= json_get_int(doc, &p, v, "top_k", 1, LIMIT_EXPERTS, &r->top_k);
    ok &= json_get_num(doc, &p, v, "temperature", FACTOR_MIN, FACTOR_MAX, &r->temperature);
    ok &= json_get_bool(doc, &p, v, "bias", &r->bias);
    ok &= json_get_num(doc, &p, v, "jitter", 0, 0.999, &r->jitter);
    ok &= json_get_num(doc, &p, v, "balance_loss", 0, FACTOR_MAX, &r->balance_loss);
    ok &= json_get_num(doc, &p, v, "z_loss", 0, FACTOR_MAX, &r->z_loss);
    ok &= json_get_int(doc, &p, v, "sentence_dim", 1, MAX_SENTENCE, &r->sentence_dim);
    r->input = (RouterInput)input;
    r->renormalise = renormalise != 0;
    return ok;
}

/* The keys that the root and the entries share. */
static bool rule_read(const JsonDoc *doc, const JsonPath *at, json_t *object, AdapterRule *r) {
    int method = (int)r->method;
    bool ok = json_get_choice(doc, at, object, "method", method_names, &method);
    r->method = (AdapterMethod)method;
    ok &= json_get_int(doc, at, object, "experts", 1, LIMIT_EXPERTS, &r->experts);
    ok &= json_get_int(doc, at, object, "rank", 1, LIMIT_LORA_RANK, &r->rank);
    ok &= json_get_num(doc, at, object, "alpha", FACTOR_MIN, FACTOR_MAX, &r->alpha);
    json_t *router = json_object_get(object, "router");
    return (router == NULL || router_read(doc, at, router, &r->router)) && ok;
}

/* A key that stands in `object` itself though its method has no use for it. */
static bool rule_spare(const JsonDoc *doc, const JsonPath *at, json_t *object, const char *key,
                       const char *method) {
    if (json_object_get(object, key) == NULL)
        return true;
    JsonPath p = json_path_key(*at, key);
    return json_error(doc, DIAG_SPEC_OPTIONS, &p, "means nothing to method %s", method);
}

/* A finished rule: what the method needs is there and fits together; what it has no use for is cleared.
 * `strict`: keys in this very object must be of use (common keys need be of use to some entry only). */
static bool rule_finish(const JsonDoc *doc, const JsonPath *at, json_t *object, bool strict, AdapterRule *r) {
    const char *method = adapter_method_name(r->method);
    bool routed = adapter_method_routed(r->method), ranked = adapter_method_ranked(r->method), ok = true;
    JsonPath experts = json_path_key(*at, "experts"), rank = json_path_key(*at, "rank");
    JsonPath router = json_path_key(*at, "router");
    if (strict && !routed)
        ok = rule_spare(doc, at, object, "experts", method) && rule_spare(doc, at, object, "router", method);
    if (strict && !ranked)
        ok =
            rule_spare(doc, at, object, "rank", method) && rule_spare(doc, at, object, "alpha", method) && ok;
    if (routed && r->experts == 0)
        ok = json_error(doc, DIAG_JSON_MISSING, &experts, "is missing; method %s needs it", method);
    if (ranked && r->rank == 0)
        ok = json_error(doc, DIAG_JSON_MISSING, &rank, "is missing; method %s needs it", method);
    RouterOptions *o = &r->router;
    if (!ranked)
        r->rank = 0;
    if (!routed) {
        r->experts = 0;
        *o = (RouterOptions){.temperature = 1};
        return ok;
    }
    JsonPath top_k = json_path_key(router, "top_k"), balance = json_path_key(router, "balance_loss");
    JsonPath sentence = json_path_key(router, "sentence_dim");
    if (ok && o->top_k > r->experts)
        ok = json_error(doc, DIAG_SPEC_OPTIONS, &top_k, "%" PRId64 " of only %" PRId64 " experts", o->top_k,
                        r->experts);
    if (o->balance_loss > 0 && o->top_k == 0)
        ok = json_error(doc, DIAG_SPEC_OPTIONS, &balance,
                        "needs top_k: without a selection there is no load to balance");
    if (o->input == RI_SENTENCE && o->sentence_dim == 0)
        ok = json_error(doc, DIAG_JSON_MISSING, &sentence,
                        "is missing; input 'sentence' needs the width of the vector");
    if (o->input != RI_SENTENCE && o->sentence_dim != 0 && strict &&
        json_object_get(json_object_get(object, "router"), "sentence_dim") != NULL)
        ok = json_error(doc, DIAG_SPEC_OPTIONS, &sentence, "means nothing unless input is 'sentence'");
    if (o->input != RI_SENTENCE)
        o->sentence_dim = 0;
    return ok;
}

static bool entry_read(const JsonDoc *doc, const JsonPath *sites, size_t index, json_t *v, AdapterRule *r) {
    JsonPath at = json_path_index(*sites, index), match = json_path_key(at, "match");
    if (!json_is_object(v))
        return json_error(doc, DIAG_JSON_VALUE, &at, "an entry of sites must be an object");
    bool ok = json_known(doc, &at, v, site_keys);
    ok &= json_get_str(doc, &at, v, "match", &r->pattern);
    if (json_object_get(v, "match") == NULL)
        ok = json_error(doc, DIAG_JSON_MISSING, &match, "is missing: the pattern of the sites meant");
    else if (ok && (r->pattern.n == 0 || r->pattern.n > 4096))
        ok = json_error(doc, DIAG_SPEC_SITES, &match, "a pattern has 1 to 4096 bytes");
    if (!rule_read(doc, &at, v, r) || !ok)
        return false;
    JsonPath method = json_path_key(at, "method");
    if (r->method == AM_FULL)
        return json_error(doc, DIAG_SPEC_OPTIONS, &method,
                          "full trains every weight of the base and sits on no site");
    return rule_finish(doc, &at, v, true, r);
}

static bool sites_read(const JsonDoc *doc, const JsonPath *root, json_t *sites, const AdapterRule *common,
                       AdapterSpec *s) {
    JsonPath at = json_path_key(*root, "sites");
    if (!json_is_array(sites))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be an array of objects");
    size_t n = json_array_size(sites);
    if (n == 0)
        return json_error(doc, DIAG_SPEC_SITES, &at, "is empty: nothing would be adapted");
    if (n > LIMIT_SPEC_SITES)
        return json_error(doc, DIAG_SPEC_SITES, &at,
                          "has %zu entries; the limit is %d (the first 'match' is that of %s)", n, LIMIT_SPEC_SITES,
                          "sites[0]");
    s->rule = arena_array(doc->arena, n, sizeof *s->rule);
    s->n_rules = (uint32_t)n;
    uint32_t *lines = arena_array(doc->arena, n, sizeof *lines);
    json_lines(doc, &at, lines, n);
    bool ok = true;
    int bad = 0;
    for (size_t i = 0; i < n && bad < 4; i++) {
        s->rule[i] = *common;
        s->rule[i].line = lines[i];
        if (!entry_read(doc, &at, i, json_array_get(sites, i), &s->rule[i])) {
            ok = false;
            bad++;
        }
    }
    return ok;
}

static bool train_read(const JsonDoc *doc, const JsonPath *root, json_t *train, AdapterSpec *s) {
    JsonPath at = json_path_key(*root, "train");
    if (!json_is_object(train))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be an object");
    bool ok = json_known(doc, &at, train, train_keys);
    ok &= json_get_bool(doc, &at, train, "experts", &s->train_experts);
    return json_get_bool(doc, &at, train, "router", &s->train_router) && ok;
}

static bool spec_read(const JsonDoc *doc, AdapterSpec *s) {
    JsonPath root = {0};
    json_t *o = doc->root, *part;
    if (!json_is_object(o))
        return diag_error(doc->d, DIAG_JSON_VALUE, doc->file, "an adapter spec is a JSON object");
    int64_t version = 0;
    bool ok = json_known(doc, &root, o, root_keys);
    ok &= json_get_int(doc, &root, o, "moec_adapter", 1, 1, &version);
    JsonPath at = json_path_key(root, "moec_adapter");
    if (json_object_get(o, "moec_adapter") == NULL)
        ok = json_error(doc, DIAG_JSON_MISSING, &at, "is missing: the format's version, 1");
    AdapterRule common = {.method = AM_IA3, .alpha = 16, .router = {.temperature = 1}};
    at = json_path_key(root, "method");
    if (json_object_get(o, "method") == NULL)
        ok = json_error(doc, DIAG_JSON_MISSING, &at, "is missing: ia3, lora, mov, molora or full");
    ok &= rule_read(doc, &root, o, &common);
    ok &= json_get_str(doc, &root, o, "weights", &s->weights);
    at = json_path_key(root, "weights");
    if (json_object_get(o, "weights") != NULL && s->weights.n == 0 && ok)
        ok = json_error(doc, DIAG_JSON_VALUE, &at, "is empty: name a safetensors file");
    if ((part = json_object_get(o, "train")) != NULL)
        ok &= train_read(doc, &root, part, s);
    if (!ok)
        return false;
    if ((part = json_object_get(o, "sites")) != NULL) {
        at = json_path_key(root, "sites");
        if (common.method == AM_FULL)
            return json_error(doc, DIAG_SPEC_OPTIONS, &at,
                              "means nothing to method full, which trains every weight of the base");
        s->has_sites = true;
        return sites_read(doc, &root, part, &common, s);
    }
    s->rule = arena_copy(doc->arena, &common, sizeof common);
    s->n_rules = 1;
    at = json_path_key(root, "method");
    s->rule->line = json_line(doc, &at);
    return rule_finish(doc, &root, o, true, s->rule);
}

static void spec_canonical(const JsonDoc *doc, AdapterSpec *s) {
    json_t *copy = json_copy(doc->root);
    json_object_del(copy, "weights");
    foreign_begin();
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
    foreign_end();
    if (text != NULL) {
        foreign_text(text);
        s->json = (Str){arena_strndup(doc->arena, text, strlen(text)), strlen(text)};
    }
    mem_free(text);
    json_decref(copy);
}

AdapterSpec *spec_parse(Arena *a, const char *file, Str text, Diag *d) {
    AdapterSpec *s = arena_alloc(a, sizeof *s);
    s->file = file;
    s->train_experts = s->train_router = true;
    JsonDoc doc;
    bool ok = json_open_text(a, file, text, LIMIT_JSON_DEPTH, &doc, d) && spec_read(&doc, s);
    if (ok)
        spec_canonical(&doc, s);
    json_close(&doc);
    return ok ? s : NULL;
}

/* ---- weights ------------------------------------------------------------------------------------ */

static bool weights_take(Arena *a, AdapterSpec *s, int fd, int64_t size, const char *file, Str *spec,
                         Diag *d) {
    SafeFile f;
    if (!safetensors_map(a, fd, size, file, &f, d))
        return false;
    spec_close(s);
    s->loaded = true;
    s->flat_heads = false;
    s->tensor_file = file;
    s->tensor = f.tensor;
    s->n_tensors = f.n;
    s->map = f.map;
    if (spec != NULL)
        *spec = f.spec;
    return true;
}

bool spec_load_weights(Arena *a, AdapterSpec *s, const char *path, Diag *d) {
    int64_t size = 0;
    const char *file = path;
    int fd;
    if (path != NULL) {
        fd = file_open(path, &size, d);
    } else if (s->weights.n == 0 || s->loaded) {
        return true;
    } else {
        const char *dir = path_dir(a, s->file);
        fd = file_open_beneath(dir, s->weights, &size, s->file, "key 'weights': ", d);
        file = strchr(s->file, '/') == NULL ? s->weights.p : arena_printf(a, "%s/%s", dir, s->weights.p);
    }
    if (fd < 0)
        return false;
    bool ok = weights_take(a, s, fd, size, file, NULL, d);
    close(fd);
    return ok;
}

/* An adapter file that explains itself. */
static AdapterSpec *spec_from_tensors(Arena *a, int fd, int64_t size, const char *path, Diag *d) {
    AdapterSpec holder = {0};
    Str text = {NULL, 0};
    if (!weights_take(a, &holder, fd, size, path, &text, d))
        return NULL;
    AdapterSpec *s = NULL;
    if (text.p == NULL)
        diag_error(d, DIAG_SPEC_ABSENT, path,
                   "has no metadata key 'moec_adapter' with the spec: give the spec file instead, with a key "
                   "'weights'");
    else
        s = spec_parse(a, path, text, d);
    if (s == NULL) {
        spec_close(&holder);
        return NULL;
    }
    s->weights = (Str){"", 0};
    s->loaded = true;
    s->tensor_file = path;
    s->tensor = holder.tensor;
    s->n_tensors = holder.n_tensors;
    s->map = holder.map;
    return s;
}

AdapterSpec *spec_load(Arena *a, const char *path, Diag *d) {
    int64_t size = 0;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return peft_import(a, &path, 1, &(PeftImport){.flat = true}, NULL, d);
    int fd = file_open(path, &size, d);
    if (fd < 0)
        return NULL;
    /* A safetensors file begins with a length below 10^8: its bytes 4 to 7 are zero, and byte 8 is '{'. */
    unsigned char head[9] = {0};
    bool tensors = size > 9 && file_pread(fd, head, sizeof head, 0) && memcmp(head + 4, "\0\0\0\0{", 5) == 0;
    AdapterSpec *s = NULL;
    if (tensors) {
        s = spec_from_tensors(a, fd, size, path, d);
    } else {
        Str text;
        if (file_read(a, path, LIMIT_JSON_FILE, &text, d))
            s = spec_parse(a, path, text, d);
    }
    close(fd);
    return s;
}

void spec_close(AdapterSpec *s) {
    if (s == NULL)
        return;
    mapped_close(s->map);
    s->map = NULL;
}
