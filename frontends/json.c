/* JSON through jansson. The text is scanned once before parsing (NUL bytes, which jansson swallows after a
 * number, and depth, since it recurses) and again only to find the line of something that is wrong. */
#include "json.h"

#include "file.h"
#include "foreign.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- reading ------------------------------------------------------------------------------------ */

static bool json_scan(const JsonDoc *doc, int max_depth) {
    const char *nul = memchr(doc->text.p, 0, doc->text.n);
    if (nul != NULL)
        return diag_error(doc->d, DIAG_JSON_SYNTAX, doc->file, "not JSON: a NUL byte at offset %zu",
                          (size_t)(nul - doc->text.p));
    int depth = 0;
    uint32_t line = 1;
    bool quoted = false;
    for (size_t i = 0; i < doc->text.n; i++) {
        char c = doc->text.p[i];
        line += c == '\n';
        if (quoted) {
            if (c == '\\' && i + 1 < doc->text.n)
                line += doc->text.p[++i] == '\n';
            else
                quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return diag_error_at(doc->d, DIAG_JSON_SYNTAX, (DiagPlace){.file = doc->file, .line = line},
                                     "JSON nested too deep: more than %d levels", max_depth);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

bool json_open_text(Arena *a, const char *file, Str text, int max_depth, JsonDoc *out, Diag *d) {
    *out = (JsonDoc){a, file, text, NULL, d};
    if (!json_scan(out, max_depth))
        return false;
    json_error_t e = {0};
    json_set_alloc_funcs(mem_alloc, mem_free); /* counted, and never NULL */
    foreign_begin();
    out->root = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    foreign_end();
    if (out->root != NULL)
        return true;
    DiagPlace at = {.file = file};
    if (e.line > 0) {
        at.line = (uint32_t)e.line;
        at.column = e.column > 0 ? (uint32_t)e.column : 1;
    }
    return diag_error_at(d, DIAG_JSON_SYNTAX, at, "not JSON: %s", diag_show(d, str_c(e.text)));
}

bool json_open(Arena *a, const char *path, int max_depth, JsonDoc *out, Diag *d) {
    Str text;
    *out = (JsonDoc){a, path, {"", 0}, NULL, d};
    return file_read(a, path, LIMIT_JSON_FILE, &text, d) && json_open_text(a, path, text, max_depth, out, d);
}

void json_close(JsonDoc *doc) {
    json_decref(doc->root);
    doc->root = NULL;
}

/* ---- places ------------------------------------------------------------------------------------- */

JsonPath json_path_key(JsonPath p, const char *key) {
    CHECK(p.n < (int)(sizeof p.step / sizeof p.step[0]));
    p.step[p.n].key = key;
    p.step[p.n++].index = 0;
    return p;
}

JsonPath json_path_index(JsonPath p, size_t index) {
    p = json_path_key(p, NULL);
    p.step[p.n - 1].index = index;
    return p;
}

/* Walks the text, which is known to be well-formed, keeping how many of the path's steps enclose the
 * position. `depth` counts open containers, of which the first `inside` + 1 lie on the path. With `lines` the
 * last step is an index that does not count: the lines of all the elements are stored. */
static uint32_t json_walk(const JsonDoc *doc, const JsonPath *p, uint32_t *lines, size_t n_lines) {
    const char *s = doc->text.p;
    size_t n = doc->text.n, index = 0;
    uint32_t line = 1;
    int depth = 0, inside = 0;
    bool is_key = false; /* the next string of the innermost container on the path is a key */
    bool hit = false;    /* the next value is that of step `inside` */
    if (p->n == 0)
        return 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        line += c == '\n';
        bool level = depth == inside + 1;
        if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
            continue;
        if (lines != NULL && level && inside == p->n - 1 && c != ',' && c != ']') {
            if (index < n_lines && lines[index] == 0)
                lines[index] = line;
        } else if (level && !hit && p->step[inside].key == NULL && c != ',' && c != ']' &&
                   index == p->step[inside].index)
            hit = true;
        if (lines == NULL && level && hit && p->step[inside].key == NULL && inside == p->n - 1)
            return line;
        if (c == '"') {
            size_t begin = i + 1;
            for (i++; i < n && s[i] != '"'; i++)
                i += s[i] == '\\';
            const char *key = p->step[inside].key;
            if (level && is_key && key != NULL && i - begin == strlen(key) &&
                memcmp(s + begin, key, i - begin) == 0) {
                if (inside == p->n - 1)
                    return line;
                hit = true;
            }
            is_key = false;
        } else if (c == '{' || c == '[') {
            depth++;
            if (level && hit)
                inside++;
            if (depth == inside + 1) {
                hit = false;
                index = 0;
                if ((c == '{') != (p->step[inside].key != NULL))
                    return 0;
            }
            is_key = c == '{';
        } else if (c == '}' || c == ']') {
            if (level)
                return 0;
            depth--;
        } else if (c == ',' && level) {
            index++;
            is_key = true;
            hit = false;
        }
    }
    return 0;
}

uint32_t json_line(const JsonDoc *doc, const JsonPath *p) {
    return json_walk(doc, p, NULL, 0);
}

void json_lines(const JsonDoc *doc, const JsonPath *array, uint32_t *lines, size_t n) {
    JsonPath first = json_path_index(*array, 0);
    memset(lines, 0, n * sizeof *lines);
    json_walk(doc, &first, lines, n);
}

static void path_print(const JsonPath *p, Diag *d, Text *t) {
    for (int i = 0; i < p->n; i++) {
        if (p->step[i].key == NULL)
            text_printf(t, "[%zu]", p->step[i].index);
        else
            text_printf(t, "%s%s", i > 0 ? "." : "", diag_show(d, str_c(p->step[i].key)));
    }
}

bool json_error(const JsonDoc *doc, DiagCode code, const JsonPath *p, const char *fmt, ...) {
    Text t = {0};
    uint32_t line = json_line(doc, p);
    if (p->n > 0) {
        text_printf(&t, "key '");
        path_print(p, doc->d, &t);
        text_printf(&t, "': ");
    }
    text_add(&t, "", 1);
    va_list args;
    va_start(args, fmt);
    char message[800];
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    diag_error_at(doc->d, code, (DiagPlace){.file = doc->file, .line = line}, "%s%s", t.p, message);
    text_free(&t);
    return false;
}

/* ---- names -------------------------------------------------------------------------------------- */

enum { NAME_CUT = 63 }; /* names are compared by their first bytes */

/* Insertions, deletions, replacements and swaps of neighbours (optimal string alignment); case counts half.
 */
static int name_distance(Str a, Str b) {
    int row[3][NAME_CUT + 1];
    size_t n = a.n < NAME_CUT ? a.n : NAME_CUT, m = b.n < NAME_CUT ? b.n : NAME_CUT;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (int)(2 * j);
    for (size_t i = 1; i <= n; i++) {
        int *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = (int)(2 * i);
        for (size_t j = 1; j <= m; j++) {
            char x = a.p[i - 1], y = b.p[j - 1];
            int best = up[j - 1] + (x == y ? 0 : (x ^ y) == 0x20 ? 1 : 2);
            best = up[j] + 2 < best ? up[j] + 2 : best;
            best = now[j - 1] + 2 < best ? now[j - 1] + 2 : best;
            if (i > 1 && j > 1 && x == b.p[j - 2] && a.p[i - 2] == y && up2[j - 2] + 2 < best)
                best = up2[j - 2] + 2;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *closest_name(Str s, const char *const *names) {
    const char *best = NULL;
    int least = 0;
    for (; *names != NULL; names++) {
        int distance = name_distance(s, str_c(*names));
        if (best == NULL || distance < least) {
            best = *names;
            least = distance;
        }
    }
    return best;
}

bool json_known(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *const *known) {
    int unknown = 0;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        bool found = false;
        for (const char *const *k = known; !found && *k != NULL; k++)
            found = strcmp(*k, key) == 0;
        if (found)
            continue;
        JsonPath at = json_path_key(*p, key);
        json_error(doc, DIAG_JSON_KEY, &at, "unknown key; the closest known one is '%s'",
                   closest_name(str_c(key), known));
        if (++unknown == 4)
            break;
    }
    return unknown == 0;
}

/* ---- members ------------------------------------------------------------------------------------ */

/* What stands there, for messages. */
static const char *json_show(const JsonDoc *doc, const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return diag_show(doc->d, str_c(arena_printf(doc->arena, "'%.100s'", json_string_value(v))));
    case JSON_INTEGER:
        return arena_printf(doc->arena, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    case JSON_REAL:
        return arena_printf(doc->arena, "%.17g", json_real_value(v));
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    default:
        return "null";
    }
}

bool json_get_int(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, int64_t lo,
                  int64_t hi, int64_t *out) {
    json_t *v = json_object_get(object, key);
    if (v == NULL)
        return true;
    JsonPath at = json_path_key(*p, key);
    if (!json_is_integer(v) || json_integer_value(v) < lo || json_integer_value(v) > hi)
        return json_error(doc, DIAG_JSON_VALUE, &at,
                          "must be an integer from %" PRId64 " to %" PRId64 ", not %s", lo, hi,
                          json_show(doc, v));
    *out = json_integer_value(v);
    return true;
}

bool json_get_num(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, double lo,
                  double hi, double *out) {
    json_t *v = json_object_get(object, key);
    if (v == NULL)
        return true;
    JsonPath at = json_path_key(*p, key);
    double x = json_number_value(v);
    if (!json_is_number(v) || !isfinite(x) || x < lo || x > hi)
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be a number from %g to %g, not %s", lo, hi,
                          json_show(doc, v));
    *out = x;
    return true;
}

bool json_get_bool(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, bool *out) {
    json_t *v = json_object_get(object, key);
    if (v == NULL)
        return true;
    JsonPath at = json_path_key(*p, key);
    if (!json_is_boolean(v))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be true or false, not %s", json_show(doc, v));
    *out = json_is_true(v);
    return true;
}

bool json_get_str(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, Str *out) {
    json_t *v = json_object_get(object, key);
    if (v == NULL)
        return true;
    JsonPath at = json_path_key(*p, key);
    if (!json_is_string(v))
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be a string, not %s", json_show(doc, v));
    *out =
        (Str){arena_strndup(doc->arena, json_string_value(v), json_string_length(v)), json_string_length(v)};
    return true;
}

bool json_get_choice(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key,
                     const char *const *names, int *out) {
    Str s = {NULL, 0};
    if (!json_get_str(doc, p, object, key, &s))
        return false;
    if (s.p == NULL)
        return true;
    Text t = {0};
    for (int i = 0; names[i] != NULL; i++) {
        if (str_is(s, names[i])) {
            *out = i;
            text_free(&t);
            return true;
        }
        text_printf(&t, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    text_add(&t, "", 1);
    JsonPath at = json_path_key(*p, key);
    json_error(doc, DIAG_JSON_VALUE, &at, "'%s' is none of %s", diag_show(doc->d, s), t.p);
    text_free(&t);
    return false;
}
