/* Random graphs over ops.def, the interpreter against compiled code:
 *
 *   random_graphs [--seed N] [--count M] [--backend c] [--op NAME] [--out DIR] [--stat] [-O N] [--jobs N] [--batch N]
 *                 [--cc PROGRAM] [--cflags "..."] [--threads N] [--shrink N] [--print SEED]
 *
 * --backend: names with commas between; none: `-`. --op puts the op into every graph (else each op has its turn). --out: where
 * graphs that fail go, made small (the first --shrink of them). --print shows one graph. Exits 1 when any graph failed. */
#include "graphs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- counts ---- */

typedef struct Counts {
    uint32_t op[OP_COUNT], type[DT_COUNT], rank[MOEC_MAX_RANK + 1], op_type[OP_COUNT];
} Counts;

static void count_func(Counts *c, const Func *f) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        const Type *t = &f->value[n->n_in && n->in[0] != NONE ? n->in[0] : n->out].type;
        c->op[n->op]++;
        c->type[t->dtype]++;
        c->rank[t->rank]++;
        c->op_type[n->op] |= 1u << t->dtype;
    }
}

static void count_graphs(const Settings *s, Counts *c) {
    for (uint32_t i = 0; i < s->count; i++) {
        Module *m = module_new();
        Graph g;
        symbols_declare(m);
        graph_make(&g, m, s->seed + i, focus_of(s, i));
        count_func(c, module_func(m, g.id));
        graph_free(&g);
        module_free(m);
    }
}

static void print_counts(const Counts *c) {
    printf("op, how often, on which types (of those the interpreter takes)\n");
    for (int op = 0; op < OP_COUNT; op++) {
        if (!op_generated((Op)op)) continue;
        printf("  %-18s %6u ", op_info((Op)op)->name, c->op[op]);
        for (int t = 0; t < DT_COUNT; t++)
            if (op_types((Op)op) >> t & 1) printf(" %s%s", c->op_type[op] >> t & 1 ? "" : "-", dtype_name((DType)t));
        printf("\n");
    }
    for (int t = 0; t < DT_COUNT; t++) printf("%s%s %u", t ? ", " : "types: ", dtype_name((DType)t), c->type[t]);
    for (int r = 0; r < 7; r++) printf("%s%d: %u", r ? ", " : "\nranks: ", r, c->rank[r]);
    printf("\n");
}

/* ---- results ---- */

static Products count_products(const Settings *s, const Result *result) {
    Products p = {0};
    for (uint32_t i = 0; i < s->count; i++) {
        p.all += result[i].products.all;
        p.panels += result[i].products.panels;
        p.streams += result[i].products.streams;
    }
    return p;
}

/* Reasons of refusals, each once with its count: numbers and names in quotes apart, they are alike. */
static void print_refused(const Settings *s, const Result *result) {
    bool *told = calloc(s->count, 1);
    for (uint32_t i = 0; i < s->count; i++) {
        if (result[i].verdict != V_REFUSED || told[i]) continue;
        uint32_t n = 0;
        for (uint32_t k = i; k < s->count; k++)
            if (result[k].verdict == V_REFUSED && strncmp(result[i].why, result[k].why, 60) == 0) told[k] = true, n++;
        printf("refused %u: %s (seed %" PRIu64 ")\n", n, result[i].why, s->seed + i);
    }
    free(told);
}

static int report(const Settings *s, const Result *result) {
    uint32_t n[4] = {0}, shrunk = 0;
    for (uint32_t i = 0; i < s->count; i++) n[result[i].verdict]++;
    print_refused(s, result);
    for (uint32_t i = 0; i < s->count; i++) {
        if (result[i].verdict != V_FAILED) continue;
        printf("FAILED seed %" PRIu64 " (%s): %s\n", s->seed + i, focus_of(s, i) < OP_COUNT ? op_info(focus_of(s, i))->name : "-", result[i].why);
        fflush(stdout);
        if (shrunk++ < s->shrink) shrink(s, i, result[i].why);
    }
    printf("%u graphs from seed %" PRIu64 ": %u agree, %u refused, %u failed\n", s->count, s->seed, n[V_OK], n[V_REFUSED], n[V_FAILED] + n[V_PENDING]);
    return n[V_OK] + n[V_REFUSED] == s->count && n[V_OK] > 0 ? 0 : 1;
}

/* ---- options ---- */

static bool usage(const char *what) {
    fprintf(stderr, "random_graphs: %s; see the head of main.c\n", what);
    return false;
}

static bool parse_backends(Settings *s, char *text) {
    s->n_backends = 0;
    if (strcmp(text, "-") == 0) return true;
    for (char *w = strtok(text, ","); w; w = strtok(NULL, ",")) {
        if (!backend_known(w) || s->n_backends == 4) return usage("--backend names one that is not known");
        s->backend[s->n_backends++] = w;
    }
    return true;
}

static bool parse_op(Settings *s, const char *name) {
    return (op_find(str_c(name), &s->focus) && op_generated(s->focus)) || usage("--op names no op that graphs can have");
}

static bool parse(Settings *s, int argc, char **argv, uint64_t *print) {
    for (int i = 1; i < argc; i++) {
        const char *o = argv[i];
        if (strcmp(o, "--stat") == 0) {
            s->stat = true;
            continue;
        }
        if (i + 1 >= argc) return usage(o);
        char *v = argv[++i];
        unsigned long number = strtoul(v, NULL, 10);
        if (strcmp(o, "--seed") == 0) s->seed = strtoull(v, NULL, 10);
        else if (strcmp(o, "--count") == 0) s->count = (uint32_t)number;
        else if (strcmp(o, "--jobs") == 0) s->jobs = (uint32_t)number;
        else if (strcmp(o, "--batch") == 0) s->batch = (uint32_t)number;
        else if (strcmp(o, "--shrink") == 0) s->shrink = (uint32_t)number;
        else if (strcmp(o, "--threads") == 0) s->build.threads = (int)number;
        else if (strcmp(o, "-O") == 0) s->build.level = (int)number;
        else if (strcmp(o, "--cc") == 0) s->build.cc = v;
        else if (strcmp(o, "--cflags") == 0) s->build.flags = v;
        else if (strcmp(o, "--out") == 0) s->out = v;
        else if (strcmp(o, "--print") == 0) *print = strtoull(v, NULL, 10) + 1;
        else if (strcmp(o, "--backend") == 0) {
            if (!parse_backends(s, v)) return false;
        } else if (strcmp(o, "--op") == 0) {
            if (!parse_op(s, v)) return false;
        } else
            return usage(o);
    }
    return (s->count > 0 && s->jobs > 0 && s->batch > 0) || usage("--count, --jobs and --batch are above 0");
}

static void print_graph(const Settings *s, uint64_t seed) {
    Module *m = module_new();
    Graph g;
    Text text = {0};
    symbols_declare(m);
    graph_make(&g, m, seed, focus_of(s, (uint32_t)(seed - s->seed)));
    module_print(m, &text);
    fwrite(text.p, 1, text.n, stdout);
    text_free(&text);
    graph_free(&g);
    module_free(m);
}

static int remove_tree(const char *dir) {
    char command[400];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(int argc, char **argv) {
    Settings s = {.seed = 1, .count = 200, .batch = 64, .jobs = 2, .shrink = 8, .focus = OP_COUNT, .backend = {"c"}, .n_backends = 1,
                  .build = {.cc = "cc", .flags = "-march=native", .level = 1, .threads = 2}, .out = "."};
    uint64_t print = 0;
    const char *tmp = getenv("TMPDIR");
    char dir[256]; /* one cut short ends in no XXXXXX, which mkdtemp refuses */
    snprintf(dir, sizeof dir, "%s/random_graphs.XXXXXX", tmp && *tmp ? tmp : P_tmpdir);
    if (!parse(&s, argc, argv, &print)) return 2;
    if (!ops_probe()) return 1;
    if (print) {
        print_graph(&s, print - 1);
        return 0;
    }
    if ((mkdir(s.out, 0777) != 0 && errno != EEXIST) || !mkdtemp(dir)) {
        perror("random_graphs");
        return 1;
    }
    s.build.dir = dir;
    Counts counts = {0};
    count_graphs(&s, &counts);
    if (s.stat) print_counts(&counts);
    Result *result = mmap(NULL, s.count * sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (result == MAP_FAILED) {
        perror("random_graphs");
        return 1;
    }
    check_all(&s, result);
    int code = report(&s, result);
    Products p = count_products(&s, result);
    if (s.stat) printf("products: %u, by panels %u, streams of them %u\n", p.all, p.panels, p.streams);
    /* where every op had its turns, every one has to have come into some graph */
    for (int op = 0; op < OP_COUNT && s.focus == OP_COUNT && s.count >= 8 * OP_COUNT; op++)
        if (op_generated((Op)op) && !counts.op[op]) printf("FAILED: no graph has op '%s'\n", op_info((Op)op)->name), code = 1;
    if (s.focus == OP_COUNT && s.n_backends && s.count >= 8 * OP_COUNT && !p.streams) printf("FAILED: no graph streams a product\n"), code = 1;
    remove_tree(dir);
    return code;
}
