/* JSON files, read strictly: a thin layer over jansson that limits, locates and names what is wrong. */
#ifndef MOEC_JSON_H
#define MOEC_JSON_H

#include "../compiler/base.h"

#include <jansson.h>

typedef struct JsonDoc {
    Arena *arena;
    const char *file;
    Str text;
    json_t *root;
    Diag *d;
} JsonDoc;

/* A regular file holding one JSON value: no NUL byte, no duplicate key, UTF-8, at most max_depth deep. The
 * document is freed with json_close whatever the result. */
bool json_open(Arena *a, const char *path, int max_depth, JsonDoc *out, Diag *d);
/* The same of bytes in memory, which must outlive the document. */
bool json_open_text(Arena *a, const char *file, Str text, int max_depth, JsonDoc *out, Diag *d);
void json_close(JsonDoc *doc);

/* Where in a document one is: keys and indices from the root. */
typedef struct JsonPath {
    int n;
    struct {
        const char *key; /* NULL: the index counts */
        size_t index;
    } step[6];
} JsonPath;

JsonPath json_path_key(JsonPath p, const char *key);
JsonPath json_path_index(JsonPath p, size_t index);
/* Line of the key or element in the text, counted from 1; 0 when it cannot be told. */
uint32_t json_line(const JsonDoc *doc, const JsonPath *p);
/* The lines of an array's first n elements, in one go. */
void json_lines(const JsonDoc *doc, const JsonPath *array, uint32_t *lines, size_t n);

/* Reports `file:line: error: key 'a.b[1]': message [code]`; returns false. */
bool json_error(const JsonDoc *doc, DiagCode code, const JsonPath *p, const char *fmt, ...) MOEC_PRINTF(4, 5);

/* Every key of `object` is one of `known` (ended by NULL); else the closest known one is named. At most four
 * unknown keys are reported. */
bool json_known(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *const *known);

/* Optional members: true and *out untouched when absent, false after reporting a wrong type or range. */
bool json_get_int(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, int64_t lo,
                  int64_t hi, int64_t *out);
bool json_get_num(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, double lo,
                  double hi, double *out);
bool json_get_bool(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, bool *out);
bool json_get_str(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key, Str *out);
/* The text must be one of `names` (ended by NULL); *out is its index. */
bool json_get_choice(const JsonDoc *doc, const JsonPath *p, json_t *object, const char *key,
                     const char *const *names, int *out);

/* The name in `names` (ended by NULL) that differs least from s. */
const char *closest_name(Str s, const char *const *names);

#endif
