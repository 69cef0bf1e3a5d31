/* adapter_config.json.
 *
 * PEFT writes every field of its config classes, and its next version will write more. A key is therefore
 * read, or known to say nothing of what the tensors mean, or must be empty (null, false, 0, "", [], {}): an
 * unknown feature that is switched off does no harm, one that is on may change everything. */
#include "peft_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>


/* The spec's limits of alpha, which the factor sqrt(rank) of rslora does not leave. */
#define ALPHA_MIN 1e-25
#define ALPHA_MAX 1e25

typedef enum KeyUse { KU_READ, KU_FREE, KU_EMPTY } KeyUse;

static const struct {
    const char *name;
    KeyUse use;
    const char *why; /* KU_EMPTY: what it would mean */
} keys[] = {
    {"peft_type", KU_READ, NULL},
    {"task_type", KU_READ, NULL},
    {"r", KU_READ, NULL},
    {"lora_alpha", KU_READ, NULL},
    {"use_rslora", KU_READ, NULL},
    {"rank_pattern", KU_READ, NULL},
    {"alpha_pattern", KU_READ, NULL},
    {"bias", KU_READ, NULL},
    {"init_lora_weights", KU_READ, NULL},
    {"target_modules", KU_READ, NULL},
    {"feedforward_modules", KU_READ, NULL},
    {"auto_mapping", KU_FREE, NULL},
    {"base_model_name_or_path", KU_FREE, NULL},
    {"ensure_weight_tying", KU_FREE, NULL},
    {"eva_config", KU_FREE, NULL}, /* chooses initial values only */
    {"exclude_modules", KU_FREE, NULL},
    {"inference_mode", KU_FREE, NULL},
    {"init_ia3_weights", KU_FREE, NULL},
    {"layers_pattern", KU_FREE, NULL}, /* this and the next chose modules; the tensors show which */
    {"layers_to_transform", KU_FREE, NULL},
    {"lora_dropout", KU_FREE, NULL},
    {"megatron_core", KU_FREE, NULL},
    {"peft_version", KU_FREE, NULL},
    {"qalora_group_size", KU_FREE, NULL},
    {"revision", KU_FREE, NULL},
    {"runtime_config", KU_FREE, NULL},
    {"alora_invocation_tokens", KU_EMPTY, "an adapter that acts on some tokens only"},
    {"arrow_config", KU_EMPTY, "routing by Arrow"},
    {"corda_config", KU_EMPTY, "base weights that CorDA changed"},
    {"fan_in_fan_out", KU_EMPTY, "linears stored [in,out], which a T5 has not"},
    {"kasa_config", KU_EMPTY, "base weights that KaSA changed"},
    {"layer_replication", KU_EMPTY, "layers used several times"},
    {"loftq_config", KU_EMPTY, "base weights that LoftQ changed"},
    {"lora_bias", KU_EMPTY, "a bias beside lora_B"},
    {"lora_ga_config", KU_EMPTY, "base weights that LoRA-GA changed"},
    {"megatron_config", KU_EMPTY, "Megatron's parallel linears"},
    {"modules_to_save", KU_EMPTY, "base modules that were trained whole and belong to the adapter"},
    {"target_parameters", KU_EMPTY, "adapters of parameters that are no linear's weight"},
    {"trainable_token_indices", KU_EMPTY, "rows of the embedding that were trained"},
    {"use_bdlora", KU_EMPTY, "block-diagonal factors"},
    {"use_dora", KU_EMPTY, "DoRA, whose magnitudes are a third factor"},
    {"use_qalora", KU_EMPTY, "QA-LoRA, which pools its input"},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

/* Initialisations that move part of the base weights into the adapter: it fits the changed base only. */
static const char *const base_changing[] = {"pissa", "olora", "corda", "loftq", "lora_ga", NULL};
static const char *const harmless[] = {"gaussian", "eva", "orthogonal", NULL};

static bool is_empty(json_t *v) {
    return json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0);
}

/* The first name a value holds, for messages. */
static const char *first_name(const JsonDoc *doc, json_t *v) {
    json_t *first = json_is_array(v) ? json_array_get(v, 0) : v;
    if (!json_is_string(first))
        return "";
    return arena_printf(doc->arena, " ('%s')", diag_show(doc->d, str_c(json_string_value(first))));
}

static bool keys_check(const JsonDoc *doc) {
    const char *key;
    json_t *v;
    int bad = 0;
    json_object_foreach(doc->root, key, v) {
        int k = 0;
        while (k < N_KEYS && strcmp(keys[k].name, key) != 0)
            k++;
        if ((k < N_KEYS && keys[k].use != KU_EMPTY) || is_empty(v))
            continue;
        JsonPath at = json_path_key((JsonPath){0}, key);
        if (k == N_KEYS)
            json_error(doc, DIAG_PEFT_KEY, &at,
                       "an unknown key that is not empty: what it changes cannot be told");
        else
            json_error(doc, DIAG_PEFT_KEY, &at, "%s%s; not supported", keys[k].why, first_name(doc, v));
        if (++bad == 4)
            break;
    }
    return bad == 0;
}

/* A member that is there and not null. */
static json_t *member(const JsonDoc *doc, const char *key) {
    json_t *v = json_object_get(doc->root, key);
    return json_is_null(v) ? NULL : v;
}

static bool missing(const JsonDoc *doc, const char *key) {
    JsonPath at = json_path_key((JsonPath){0}, key);
    return json_error(doc, DIAG_JSON_MISSING, &at, "is missing");
}

/* peft_type, task_type, bias, init_lora_weights. */
static bool words_read(const JsonDoc *doc, PeftConfig *c) {
    static const char *const types[] = {"LORA", "IA3", NULL}; /* PeftType */
    static const char *const tasks[] = {"SEQ_2_SEQ_LM", NULL}, *const biases[] = {"none", NULL};
    JsonPath root = {0};
    int type = 0, one = 0;
    bool ok = member(doc, "peft_type") != NULL || missing(doc, "peft_type");
    ok = ok && json_get_choice(doc, &root, doc->root, "peft_type", types, &type);
    ok = (member(doc, "task_type") == NULL ||
          json_get_choice(doc, &root, doc->root, "task_type", tasks, &one)) &&
         ok;
    ok = (member(doc, "bias") == NULL || json_get_choice(doc, &root, doc->root, "bias", biases, &one)) && ok;
    c->type = (PeftType)type;
    json_t *init = member(doc, "init_lora_weights");
    if (init == NULL || json_is_boolean(init))
        return ok;
    JsonPath at = json_path_key(root, "init_lora_weights");
    Str s = json_is_string(init) ? (Str){json_string_value(init), json_string_length(init)} : (Str){"", 0};
    for (const char *const *b = base_changing; *b != NULL; b++) {
        if (s.n >= strlen(*b) && memcmp(s.p, *b, strlen(*b)) == 0)
            return json_error(
                doc, DIAG_PEFT_KEY, &at,
                "'%s' changes the base weights, which are not in the adapter; save it converted to LoRA",
                diag_show(doc->d, s));
    }
    for (const char *const *h = harmless; *h != NULL; h++) {
        if (str_is(s, *h))
            return ok;
    }
    return json_error(doc, DIAG_PEFT_KEY, &at,
                      "'%s' is not known: whether it changes the base weights cannot be told",
                      diag_show(doc->d, s));
}

/* ---- patterns ----------------------------------------------------------------------------------- */

static bool pattern_read(const JsonDoc *doc, const JsonPath *at, const char *key, json_t *v, bool ranks,
                         PeftPattern *out) {
    const char *why = NULL;
    JsonPath p = json_path_key(*at, key);
    out->expr = regexp_new(doc->arena, str_c(key), &why);
    if (out->expr == NULL)
        return json_error(doc, DIAG_PEFT_PATTERN, &p, "an expression that is not understood: %s", why);
    out->value = json_number_value(v);
    if (ranks && (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > LIMIT_LORA_RANK))
        return json_error(doc, DIAG_JSON_VALUE, &p, "a rank is an integer from 1 to %d", LIMIT_LORA_RANK);
    if (!ranks && (!json_is_number(v) || !(out->value >= ALPHA_MIN && out->value <= ALPHA_MAX)))
        return json_error(doc, DIAG_JSON_VALUE, &p, "alpha is a number from %g to %g", ALPHA_MIN, ALPHA_MAX);
    return true;
}

static bool patterns_read(const JsonDoc *doc, const char *key, bool ranks, PeftPattern **out, uint32_t *n) {
    json_t *object = member(doc, key), *v;
    JsonPath at = json_path_key((JsonPath){0}, key);
    *n = 0;
    if (object == NULL)
        return true;
    if (!json_is_object(object))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be an object");
    size_t bytes = 0;
    const char *name;
    json_object_foreach(object, name, v) bytes += strlen(name);
    if (json_object_size(object) > LIMIT_PEFT_PATTERNS || bytes > LIMIT_PEFT_PATTERN_BYTES)
        return json_error(doc, DIAG_PEFT_PATTERN, &at,
                          "has %zu patterns of %zu bytes; the limits are %d and %d",
                          json_object_size(object), bytes, LIMIT_PEFT_PATTERNS, LIMIT_PEFT_PATTERN_BYTES);
    *out = arena_array(doc->arena, json_object_size(object) + 1, sizeof **out);
    json_object_foreach(object, name, v) {
        if (!pattern_read(doc, &at, name, v, ranks, &(*out)[(*n)++]))
            return false;
    }
    return true;
}

/* A list of names, or one expression. */
static bool targets_read(const JsonDoc *doc, const char *key, PeftTargets *t) {
    json_t *v = member(doc, key), *item;
    JsonPath at = json_path_key((JsonPath){0}, key);
    t->given = v != NULL;
    if (v == NULL)
        return true;
    if (json_is_string(v)) {
        const char *why = NULL;
        t->expr = regexp_new(doc->arena, str_c(json_string_value(v)), &why);
        t->all = t->expr == NULL || strcmp(json_string_value(v), "all-linear") == 0;
        return true;
    }
    if (!json_is_array(v))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be a list of module names, or an expression");
    size_t i;
    json_array_foreach(v, i, item) {
        JsonPath p = json_path_index(at, i);
        if (!json_is_string(item))
            return json_error(doc, DIAG_JSON_VALUE, &p, "must be a module's name");
        size_t n = json_string_length(item);
        namemap_add(&t->names, (Str){arena_strndup(doc->arena, json_string_value(item), n), n}, 0);
    }
    return true;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static bool lora_read(const JsonDoc *doc, PeftConfig *c) {
    JsonPath root = {0};
    bool ok = json_object_get(doc->root, "r") != NULL || missing(doc, "r");
    ok = json_get_int(doc, &root, doc->root, "r", 1, LIMIT_LORA_RANK, &c->rank) && ok;
    ok = (json_object_get(doc->root, "lora_alpha") != NULL || missing(doc, "lora_alpha")) && ok;
    ok = json_get_num(doc, &root, doc->root, "lora_alpha", ALPHA_MIN, ALPHA_MAX, &c->alpha) && ok;
    if (member(doc, "use_rslora") != NULL)
        ok = json_get_bool(doc, &root, doc->root, "use_rslora", &c->rslora) && ok;
    ok = patterns_read(doc, "rank_pattern", true, &c->rank_pattern, &c->n_ranks) && ok;
    return patterns_read(doc, "alpha_pattern", false, &c->alpha_pattern, &c->n_alphas) && ok;
}

bool peft_config_read(Arena *a, const char *dir, PeftConfig *out, Diag *d) {
    *out = (PeftConfig){.file = arena_printf(a, "%s/%s", dir, PEFT_CONFIG), .steps = LIMIT_PEFT_PATTERN_STEPS};
    JsonDoc doc;
    bool ok = json_open(a, out->file, LIMIT_JSON_DEPTH, &doc, d);
    if (ok && !json_is_object(doc.root))
        ok = diag_error(d, DIAG_JSON_VALUE, out->file, "an adapter's config is a JSON object");
    if (ok) {
        ok = words_read(&doc, out);
        ok = keys_check(&doc) && ok;
        ok = targets_read(&doc, "target_modules", &out->targets) && ok;
        if (out->type == PT_LORA)
            ok = lora_read(&doc, out) && ok;
        else
            ok = targets_read(&doc, "feedforward_modules", &out->feedforward) && ok;
    }
    json_close(&doc);
    return ok;
}

void peft_config_free(PeftConfig *c) {
    namemap_free(&c->targets.names);
    namemap_free(&c->feedforward.names);
}

/* The first pattern that matches the module, or its end behind a dot, as PEFT's get_pattern_key. */
static double pattern_value(PeftConfig *c, const PeftPattern *p, uint32_t n, Str module, double otherwise) {
    for (uint32_t i = 0; i < n; i++) {
        if (regexp_match(p[i].expr, module, true, &c->steps))
            return p[i].value;
    }
    return otherwise;
}

int64_t peft_config_rank(PeftConfig *c, Str module) {
    return (int64_t)pattern_value(c, c->rank_pattern, c->n_ranks, module, (double)c->rank);
}

double peft_config_alpha(PeftConfig *c, Str module, int64_t rank) {
    double alpha = pattern_value(c, c->alpha_pattern, c->n_alphas, module, c->alpha);
    return c->rslora ? alpha * sqrt((double)rank) : alpha;
}

bool peft_targets_have(PeftConfig *c, const PeftTargets *t, Str module) {
    if (!t->given || t->all)
        return true;
    if (t->expr != NULL)
        return regexp_match(t->expr, module, false, &c->steps);
    while (!namemap_find(&t->names, module, NULL)) {
        const char *dot = module.n > 0 ? memchr(module.p, '.', module.n) : NULL;
        if (dot == NULL)
            return false;
        module.n -= (size_t)(dot - module.p) + 1;
        module.p = dot + 1;
    }
    return true;
}
