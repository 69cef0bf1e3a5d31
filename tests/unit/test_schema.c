/* The JSON Schema of adapter specs and the reader know the same keys and words, and have the same bounds. */
#include "frontends/json.h"
#include "frontends/spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SCHEMA MOEC_SOURCE_DIR "/frontends/adapter-spec.schema.json"

static JsonDoc doc;
static Arena *arena;
static Diag *diag;

static int open_schema(void **state) {
    (void)state;
    arena = arena_new();
    diag = diag_new();
    return json_open(arena, SCHEMA, LIMIT_JSON_DEPTH, &doc, diag) ? 0 : -1;
}

static int close_schema(void **state) {
    (void)state;
    json_close(&doc);
    diag_free(diag);
    arena_free(arena);
    return 0;
}

/* The member that a path like "$defs/router/properties" leads to. */
static json_t *at(const char *path) {
    json_t *v = doc.root;
    for (const char *end; *path; path = end + (*end == '/')) {
        end = path + strcspn(path, "/");
        v = json_object_get(v, arena_strndup(arena, path, (size_t)(end - path)));
    }
    if (!v)
        fail_msg("the schema has no such place");
    return v;
}

static bool has_word(const char *const *list, const char *word) {
    while (*list && strcmp(*list, word) != 0)
        list++;
    return *list != NULL;
}

static const struct {
    SpecList list;
    const char *path;
} objects[] = {{SPEC_ROOT, "properties"},
               {SPEC_ENTRY, "$defs/entry/properties"},
               {SPEC_TRAIN, "properties/train/properties"},
               {SPEC_ROUTER, "$defs/router/properties"}},
  choices[] = {{SPEC_METHODS, "$defs/method/enum"},
               {SPEC_INPUTS, "$defs/router/properties/input/enum"},
               {SPEC_RENORMALISE, "$defs/router/properties/renormalise/enum"}};

static void test_keys(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        json_t *schema = at(objects[i].path), *value;
        const char *key, *const *known = spec_list(objects[i].list);
        json_object_foreach(schema, key, value)
            if (!has_word(known, key))
                fail_msg("%s: the reader does not know '%s'", objects[i].path, key);
        for (; *known; known++)
            if (!json_object_get(schema, *known))
                fail_msg("%s: the schema does not know '%s'", objects[i].path, *known);
    }
}

static void test_words(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        json_t *words = at(choices[i].path), *word;
        const char *const *known = spec_list(choices[i].list);
        size_t index, n = 0;
        json_array_foreach(words, index, word) if (!has_word(known, json_string_value(word)))
            fail_msg("%s: the reader does not know '%s'", choices[i].path, json_string_value(word));
        while (known[n])
            n++;
        assert_int_equal(n, json_array_size(words));
    }
}

/* Whether the reader takes a spec whose `key` is x, in the router or beside it; it must complain of nothing else. */
static bool takes(bool in_router, const char *key, double x) {
    const char *pair = arena_printf(arena, "\"%s\": %.17g", key, x);
    bool sentence = strcmp(key, "sentence_dim") == 0;
    bool experts = strcmp(key, "experts") == 0, rank = strcmp(key, "rank") == 0;
    const char *text = arena_printf(
        arena, "{\"moec_adapter\": 1, \"method\": \"molora\"%s%s%s%s, \"router\": {\"input\": \"%s\"%s%s%s}}",
        experts ? "" : ", \"experts\": 1024", rank ? "" : ", \"rank\": 4", in_router ? "" : ", ", in_router ? "" : pair,
        sentence ? "sentence" : "site", strcmp(key, "balance_loss") == 0 ? ", \"top_k\": 1" : "", in_router ? ", " : "",
        in_router ? pair : "");
    Diag *d = diag_new();
    AdapterSpec *s = spec_parse(arena, "spec.json", str_c(text), d);
    spec_close(s);
    diag_free(d);
    return s != NULL;
}

/* Both bounds are taken, and nothing beyond. */
static void check_bounds(const char *path, bool in_router) {
    json_t *schema = at(path), *value;
    const char *key;
    int checked = 0;
    json_object_foreach(schema, key, value) {
        json_t *lo = json_object_get(value, "minimum"), *hi = json_object_get(value, "maximum");
        if (!lo || !hi)
            continue;
        double low = json_number_value(lo), high = json_number_value(hi);
        const char *type = json_string_value(json_object_get(value, "type")); /* NULL: integer or null */
        bool whole = !type || strcmp(type, "number") != 0;
        double below = whole ? low - 1 : low > 0 ? low / 2 : -1e-9, above = whole ? high + 1 : high * 1.001;
        if (!takes(in_router, key, low) || !takes(in_router, key, high))
            fail_msg("the reader refuses '%s' within the schema's bounds", key);
        if (takes(in_router, key, below) || takes(in_router, key, above))
            fail_msg("the reader takes '%s' beyond the schema's bounds", key);
        checked++;
    }
    assert_true(checked >= 3);
}

static void test_bounds(void **state) {
    (void)state;
    check_bounds("$defs", false);
    check_bounds("$defs/router/properties", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_words),
                                       cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, open_schema, close_schema);
}
