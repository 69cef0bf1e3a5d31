/* Compiled models as shared libraries, side by side in one process: each carries its runtime. */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names: ADAPTER/BACKEND[/...] ------------------------------------------------------------------------
 */

enum { MAX_PARTS = 4, MAX_NAME = 128 };

typedef struct Parts {
    char text[MAX_PARTS][MAX_NAME];
    int n;
} Parts;

static Parts parts_of(const char *name) {
    Parts p = {0};
    while (p.n < MAX_PARTS) {
        size_t length = strcspn(name, "/");
        if (length >= MAX_NAME)
            bench_fail("'%s': too long a name", name);
        memcpy(p.text[p.n++], name, length);
        if (!name[length])
            return p;
        name += length + 1;
    }
    bench_fail("'%s': more than %d parts", name, MAX_PARTS);
}

static bool parts_equal(const Parts *a, const Parts *b) {
    bool equal = a->n == b->n;
    for (int i = 0; equal && i < a->n; i++)
        equal = strcmp(a->text[i], b->text[i]) == 0;
    return equal;
}

/* The one that differs in its first other part alone, which is the first model's: an adapter is held against
 * the base model of the same backend. */
static int reference(const Model *m, int i) {
    Parts first = parts_of(m[0].name), want = parts_of(m[i].name);
    int k = 0;
    while (k < want.n && k < first.n && strcmp(want.text[k], first.text[k]) == 0)
        k++;
    if (k == want.n || k == first.n)
        return -1;
    memcpy(want.text[k], first.text[k], MAX_NAME);
    for (int j = 0; j < i; j++) {
        Parts other = parts_of(m[j].name);
        if (parts_equal(&want, &other))
            return j;
    }
    return -1;
}

double model_weight_bytes(const Model *m) {
    static const struct {
        const char *format;
        double bytes;
    } known[] = {{"f32", 4}, {"bf16", 2}, {"int8", 1 + 4.0 / 64}, {"int4", 0.5 + 4.0 / 32}};
    Parts p = parts_of(m->name);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        for (int i = 0; i < p.n; i++)
            if (strcmp(p.text[i], known[k].format) == 0)
                return known[k].bytes;
    return 4;
}

/* ---- libraries
 * ---------------------------------------------------------------------------------------------- */

void *model_find(const Model *m, const char *name) {
    void *p = dlsym(m->library, name);
    if (!p)
        bench_fail("%s: the library lacks %s", m->name, name);
    return p;
}

static char *joined(const char *a, const char *b) {
    char *s = bench_room(strlen(a) + strlen(b) + 1, 1);
    strcat(strcpy(s, a), b);
    return s;
}

/* What is written in PATH.read; 0 where nothing is. */
static double bytes_read(const char *path) {
    char *name = joined(path, ".read");
    FILE *f = fopen(name, "r");
    double bytes = 0;
    if (f && fscanf(f, "%lf", &bytes) != 1)
        bench_fail("%s: no number", name);
    if (f)
        fclose(f);
    free(name);
    return bytes;
}

static void model_open(Model *m, char *given, int threads) {
    char *path = strchr(given, '='), message[256] = "";
    if (!path)
        bench_fail("'%s': NAME=PATH was expected", given);
    *path++ = 0;
    m->name = given;
    m->read_by_step = bytes_read(path);
    char *library = joined(path, ".so"), *weights = joined(path, ".weights");
    if (!(m->library = dlopen(library, RTLD_NOW | RTLD_LOCAL)))
        bench_fail("%s", dlerror());
    const moec_program *(*program)(void);
    int (*abi)(void);
    moec_status (*open)(const moec_program *, const moec_options *, moec_instance **);
    *(void **)&program = model_find(m, "bench_program");
    *(void **)&abi = model_find(m, "moec_abi");
    *(void **)&open = model_find(m, "moec_open");
    *(void **)&m->run = model_find(m, "moec_run");
    *(void **)&m->profile_start = model_find(m, "moec_profile_start");
    *(void **)&m->profile_stop = model_find(m, "moec_profile_stop");
    *(void **)&m->profile_read = model_find(m, "moec_profile_read");
    *(void **)&m->profile_rows = model_find(m, "moec_profile_rows");
    if (abi() != MOEC_ABI)
        bench_fail("%s: compiled for another runtime", library);
    m->program = program();
    moec_options o = {
        .weights = weights, .threads = threads, .message = message, .message_room = sizeof message};
    if (open(m->program, &o, &m->instance) != MOEC_OK)
        bench_fail("%s", message);
    free(library);
    free(weights);
}

void models_open(Model *m, const Options *o) {
    if (o->n_models > MAX_MODELS)
        bench_fail("more than %d variants", MAX_MODELS);
    for (int i = 0; i < o->n_models; i++) {
        model_open(&m[i], o->model[i], (int)o->threads);
        m[i].against = reference(m, i);
    }
}

/* ---- symbols
 * --------------------------------------------------------------------------------------------------- */

int64_t *model_symbols(const Model *m) {
    int64_t *sym = bench_room(m->program->n_symbols + 1, sizeof *sym);
    for (uint32_t i = 0; i < m->program->n_symbols; i++)
        sym[i] = m->program->symbol[i].lo;
    return sym;
}

void model_symbol_set(const Model *m, int64_t *sym, int symbol, int64_t value, const char *what) {
    if (symbol < 0)
        return;
    if (value < m->program->symbol[symbol].lo || value > m->program->symbol[symbol].hi)
        bench_fail("%s: not compiled for %s %lld", m->name, what, (long long)value);
    sym[symbol] = value;
}
