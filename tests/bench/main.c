/* The bench: compiled models against the limits of the machine, all measured in one run. run.sh compiles what
 * it needs.
 *
 *     bench infer|train|products --config=CONFIG.json [options] NAME=PATH...      PATH.so and PATH.weights
 *     bench write --config=CONFIG.json --dir=DIR [options]                        what `products` is compiled
 * from bench sgemm                                                                 a child of `products`
 */
#include "bench.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bench_fail(const char *format, ...) {
    va_list args;
    fflush(stdout);
    fputs("bench: error: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

void *bench_room(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    if (!p)
        bench_fail("no memory");
    return p;
}

void bench_check(moec_status s, const char *what) {
    if (s != MOEC_OK)
        bench_fail("%s failed: status %d", what, (int)s);
}

/* ---- values of options ------------------------------------------------------------------------------------
 */

static _Noreturn void bad_value(const char *value) {
    fprintf(stderr, "bench: error: '%s': not a value of the option, or out of range\n", value);
    exit(2);
}

/* A number from `*p` on, which moves behind it. */
static int64_t number(const char **p, const char *whole, int64_t lo, int64_t hi) {
    char *end;
    errno = 0;
    long long v = strtoll(*p, &end, 10);
    if (errno || end == *p || v < lo || v > hi)
        bad_value(whole);
    *p = end;
    return v;
}

static int64_t whole_number(const char *text, int64_t lo, int64_t hi) {
    const char *p = text;
    int64_t v = number(&p, text, lo, hi);
    if (*p)
        bad_value(text);
    return v;
}

/* Items of up to three numbers, told apart by commas: `marks` are what stands between the numbers; a ~ in
 * them may. */
static Items items(const char *text, const char *marks) {
    enum { BATCH = 1 << 14, LENGTH = 1 << 20 };
    Items list = {0};
    const char *p = text;
    while (*p) {
        Item *it = &list.item[list.n];
        if (list.n++ == MAX_ITEMS)
            bad_value(text);
        it->batch = number(&p, text, 1, BATCH);
        int64_t *next = &it->length;
        for (const char *mark = marks; *mark; mark++) {
            if (*p++ != *mark)
                bad_value(text);
            if (mark[1] == '~') {
                mark++;
                it->mixed = *p == '~';
                p += it->mixed;
            }
            *next = number(&p, text, 1, LENGTH);
            next = &it->target;
        }
        if (*p && (*p++ != ',' || !*p))
            bad_value(text);
    }
    return list;
}

/* Index of one of the words. */
static int64_t word(const char *text, const char *const *words) {
    for (int i = 0; words[i]; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    bad_value(text);
}

/* ---- options
 * ------------------------------------------------------------------------------------------------ */

enum { MANY = 1 << 20 };
static const char *const shares_words[] = {"none", "groups", "kernels", NULL};

typedef enum Kind { TEXT, NUMBER, ITEMS, WORD } Kind;

static const struct {
    const char *name;
    Kind kind;
    size_t field;      /* const char *, int64_t, Items, int64_t */
    int64_t lo, hi;    /* of a number */
    const char *marks; /* of items */
    const char *const *words;
} known[] = {
    {"config", TEXT, offsetof(Options, config_file), 0, 0, NULL, NULL},
    {"dir", TEXT, offsetof(Options, dir), 0, 0, NULL, NULL},
    {"coretypes", TEXT, offsetof(Options, coretypes), 0, 0, NULL, NULL},
    {"threads", NUMBER, offsetof(Options, threads), 0, MAX_THREADS, NULL, NULL},
    {"rounds", NUMBER, offsetof(Options, rounds), 1, 1000, NULL, NULL},
    {"patience", NUMBER, offsetof(Options, patience), 0, 1000, NULL, NULL},
    {"read-mib", NUMBER, offsetof(Options, read_mib), 0, MANY, NULL, NULL},
    {"source", NUMBER, offsetof(Options, source), 1, MANY, NULL, NULL},
    {"steps", NUMBER, offsetof(Options, steps), 2, MANY, NULL, NULL},
    {"dropout", NUMBER, offsetof(Options, dropout), 0, 99, NULL, NULL},
    {"encode", ITEMS, offsetof(Options, encode), 0, 0, "x~", NULL},
    {"decode", ITEMS, offsetof(Options, decode), 0, 0, "", NULL},
    {"train", ITEMS, offsetof(Options, train), 0, 0, "x/", NULL},
    {"rows", ITEMS, offsetof(Options, rows), 0, 0, "", NULL},
    {"profile", WORD, offsetof(Options, shares), 0, 0, NULL, shares_words},
};

enum { KNOWN = sizeof known / sizeof *known };

static void set(Options *o, int k, const char *value) {
    void *field = (char *)o + known[k].field;
    if (known[k].kind == TEXT)
        *(const char **)field = value;
    else if (known[k].kind == ITEMS)
        *(Items *)field = items(value, known[k].marks);
    else if (known[k].kind == WORD)
        *(int64_t *)field = word(value, known[k].words);
    else
        *(int64_t *)field = whole_number(value, known[k].lo, known[k].hi);
}

static void read_options(Options *o, int argc, char **argv) {
    struct option list[KNOWN + 1] = {0};
    int k = -1;
    for (int i = 0; i < KNOWN; i++)
        list[i] = (struct option){known[i].name, required_argument, NULL, i};
    while ((k = getopt_long(argc, argv, "", list, NULL)) != -1) {
        if (k == '?')
            exit(2);
        set(o, k, optarg);
    }
    o->model = argv + optind;
    o->n_models = argc - optind;
    if (!o->threads)
        o->threads = sysconf(_SC_NPROCESSORS_ONLN);
    if (o->threads < 1 || o->threads > MAX_THREADS)
        o->threads = 1;
    if (!o->config_file)
        bench_fail("no --config");
}

/* ---- commands
 * ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int (*run)(const Options *o);
} commands[] = {
    {"infer", infer_main}, {"train", train_main}, {"products", products_main}, {"write", products_write}};

static int run_command(int k, int argc, char **argv) {
    Options o = {
        .rounds = 5, .patience = 3, .source = 32, .steps = 32, .dropout = 10, .coretypes = "", .dir = "."};
    Arena *a = arena_new();
    Diag *d = diag_new();
    read_options(&o, argc, argv);
    bool ok = config_load(a, o.config_file, &o.config, d);
    diag_flush(d);
    diag_free(d);
    int code = ok ? commands[k].run(&o) : 1;
    arena_free(a);
    return code;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "sgemm") == 0)
        return sgemm_serve();
    for (size_t k = 0; argc > 1 && k < sizeof commands / sizeof *commands; k++)
        if (strcmp(argv[1], commands[k].name) == 0)
            return run_command((int)k, argc - 1, argv + 1);
    fprintf(stderr,
            "usage: bench infer|train|products|write --config=CONFIG.json [options] [NAME=PATH...]\n");
    return 2;
}
