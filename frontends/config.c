/* config.json of a T5: sizes with ranges, parameter count, site table.
 *
 * The ranges keep every product below 2^62, so that counts need no checks of their own. */
#include "config.h"

#include "json.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_HEADS = 1 << 12, MAX_KV = 1 << 14 };
enum { MAX_BUCKETS = 1 << 16, MAX_DISTANCE = 1 << 24 };

/* As json_get_int, but the key must be there. */
static bool need_int(const JsonDoc *doc, const char *key, int64_t lo, int64_t hi, int64_t *out) {
    JsonPath root = {0}, at = json_path_key(root, key);
    if (json_object_get(doc->root, key) == NULL)
        return json_error(doc, DIAG_JSON_MISSING, &at, "is missing");
    return json_get_int(doc, &root, doc->root, key, lo, hi, out);
}

/* Absent and null are the same here, as in the library. */
static bool want_int(const JsonDoc *doc, const char *key, int64_t lo, int64_t hi, int64_t otherwise,
                     int64_t *out) {
    JsonPath root = {0};
    json_t *v = json_object_get(doc->root, key);
    *out = otherwise;
    return v == NULL || json_is_null(v) || json_get_int(doc, &root, doc->root, key, lo, hi, out);
}

static bool want_bool(const JsonDoc *doc, const char *key, bool otherwise, bool *out) {
    JsonPath root = {0};
    json_t *v = json_object_get(doc->root, key);
    *out = otherwise;
    return v == NULL || json_is_null(v) || json_get_bool(doc, &root, doc->root, key, out);
}

/* feed_forward_proj is `{act}` or `gated-{act}`; "gated-gelu" means gelu_new, as the library's T5Config has
 * it. */
static bool config_act(const JsonDoc *doc, T5Config *c) {
    static const char *const known[] = {"relu", "gelu", "gelu_new", "silu", NULL};
    JsonPath root = {0}, at = json_path_key(root, "feed_forward_proj");
    Str proj = str_c("relu");
    if (!json_get_str(doc, &root, doc->root, "feed_forward_proj", &proj))
        return false;
    c->gated = proj.n > 6 && memcmp(proj.p, "gated-", 6) == 0;
    c->act = c->gated ? (Str){proj.p + 6, proj.n - 6} : proj;
    if (str_is(proj, "gated-gelu"))
        c->act = str_c("gelu_new");
    for (int i = 0; known[i] != NULL; i++) {
        if (str_is(c->act, known[i]))
            return true;
    }
    return json_error(doc, DIAG_MODEL_CONFIG, &at,
                      "'%s' is not known; it is relu, gelu, gelu_new or silu, possibly after 'gated-'",
                      diag_show(doc->d, proj));
}

static bool config_read(const JsonDoc *doc, T5Config *c) {
    static const char *const types[] = {"t5", "mt5", "umt5", "longt5", NULL};
    JsonPath root = {0};
    if (!json_is_object(doc->root))
        return diag_error(doc->d, DIAG_JSON_VALUE, doc->file, "a model's config is a JSON object");
    int type = 0;
    bool ok = json_get_choice(doc, &root, doc->root, "model_type", types, &type);
    if (ok && type > 1) {
        JsonPath at = json_path_key(root, "model_type");
        ok = json_error(doc, DIAG_MODEL_CONFIG, &at,
                        "%s differs from T5 in its attention and is not supported", types[type]);
    }
    ok &= need_int(doc, "d_model", 1, LIMIT_CONFIG_WIDTH, &c->d_model);
    ok &= need_int(doc, "d_ff", 1, LIMIT_CONFIG_WIDTH, &c->d_ff);
    ok &= need_int(doc, "d_kv", 1, MAX_KV, &c->d_kv);
    ok &= need_int(doc, "num_heads", 1, MAX_HEADS, &c->heads);
    ok &= need_int(doc, "num_layers", 1, LIMIT_CONFIG_LAYERS, &c->enc_layers);
    ok &= want_int(doc, "num_decoder_layers", 1, LIMIT_CONFIG_LAYERS, c->enc_layers, &c->dec_layers);
    ok &= need_int(doc, "vocab_size", 1, LIMIT_CONFIG_VOCAB, &c->vocab);
    ok &= want_int(doc, "relative_attention_num_buckets", 2, MAX_BUCKETS, 32, &c->buckets);
    ok &= want_int(doc, "relative_attention_max_distance", 1, MAX_DISTANCE, 128, &c->max_distance);
    ok &= want_int(doc, "pad_token_id", 0, LIMIT_CONFIG_VOCAB, -1, &c->pad);
    ok &= want_int(doc, "eos_token_id", 0, LIMIT_CONFIG_VOCAB, -1, &c->eos);
    ok &= want_int(doc, "decoder_start_token_id", 0, LIMIT_CONFIG_VOCAB, -1, &c->start);
    ok &= want_bool(doc, "tie_word_embeddings", true, &c->tied);
    c->eps = 1e-6;
    ok &= json_get_num(doc, &root, doc->root, "layer_norm_epsilon", 1e-30, 1, &c->eps);
    return config_act(doc, c) && ok;
}

bool config_load(Arena *a, const char *path, T5Config *out, Diag *d) {
    *out = (T5Config){.file = path};
    JsonDoc doc;
    bool ok = json_open(a, path, LIMIT_JSON_FOREIGN_DEPTH, &doc, d) && config_read(&doc, out);
    json_close(&doc);
    return ok;
}

int64_t config_base_count(const T5Config *c) {
    int64_t inner = c->heads * c->d_kv, attention = 4 * c->d_model * inner;
    int64_t ffn = (c->gated ? 3 : 2) * c->d_model * c->d_ff;
    int64_t encoder = attention + ffn + 2 * c->d_model, decoder = 2 * attention + ffn + 3 * c->d_model;
    return (c->tied ? 1 : 2) * c->vocab * c->d_model + c->enc_layers * encoder + c->dec_layers * decoder +
           2 * c->d_model + 2 * c->buckets * c->heads;
}

static void site_add(Arena *a, ModelSite *sites, uint32_t *n, const T5Config *c, const char *stack,
                     int64_t layer, const char *block, SiteRole role) {
    int64_t inner = c->heads * c->d_kv, in = c->d_model, out = inner;
    if (role == SR_O || role == SR_WO)
        out = c->d_model;
    if (role == SR_O)
        in = inner;
    if (role == SR_WO)
        in = c->d_ff;
    if (role == SR_WI || role == SR_WI_1 || role == SR_ACT)
        out = c->d_ff;
    Str name = str_c(arena_printf(a, "%s.%" PRId64 ".%s.%s", stack, layer, block, site_role_name(role)));
    sites[(*n)++] = (ModelSite){name, role, in, out, role <= SR_V ? c->heads : 0};
}

uint32_t config_sites(const T5Config *c, Arena *a, ModelSite **out) {
    static const SiteRole attention[] = {SR_Q, SR_K, SR_V, SR_O}, ffn[] = {SR_WI, SR_ACT, SR_WI_1, SR_WO};
    uint32_t n = 0;
    ModelSite *s = arena_array(a, (size_t)(8 * c->enc_layers + 12 * c->dec_layers), sizeof *s);
    for (int stack = 0; stack < 2; stack++) {
        const char *name = stack == 0 ? "encoder" : "decoder";
        int64_t layers = stack == 0 ? c->enc_layers : c->dec_layers;
        for (int64_t layer = 0; layer < layers; layer++) {
            for (int i = 0; i < 4; i++)
                site_add(a, s, &n, c, name, layer, "self", attention[i]);
            for (int i = 0; stack == 1 && i < 4; i++)
                site_add(a, s, &n, c, name, layer, "cross", attention[i]);
            for (int i = 0; i < 4; i++) {
                if (ffn[i] != SR_WI_1 || c->gated)
                    site_add(a, s, &n, c, name, layer, "ffn", ffn[i]);
            }
        }
    }
    *out = s;
    return n;
}
