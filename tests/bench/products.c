/* Matrix products of a model's shapes alone: compiled by moec, and by OpenBLAS with each of its core types.
 *
 * A program of these products is written as text IR with weights beside it: a function for each shape, in it
 * as many products by weights of their own as no cache holds, since in a model weights come from memory.
 * OpenBLAS chooses its kernels when it is loaded, so each core type is a child process (sgemm.c), which is
 * asked for a time over a pipe.
 *
 * A product is held against what binds it: multiply-adds, or reading its weights. */
#include "bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_COPIES = 64, LEAST_COLD_MIB = 96, MOST_COLD_MIB = 256, MAX_CHILDREN = 8 };

/* ---- the program that is compiled ------------------------------------------------------------------- */

/* Products of one shape: their weights are together larger than the caches. */
static int copies_of(const Product *p, int64_t read_mib) {
    long cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    int64_t mib = read_mib ? read_mib : 2 * (int64_t)cache / MIB,
            bytes = p->k * p->n * (int64_t)sizeof(float);
    mib = read_mib ? mib : mib < LEAST_COLD_MIB ? LEAST_COLD_MIB : mib > MOST_COLD_MIB ? MOST_COLD_MIB : mib;
    int64_t copies = (mib * MIB + bytes - 1) / bytes;
    return copies < 1 ? 1 : copies > MAX_COPIES ? MAX_COPIES : (int)copies;
}

static int64_t most_rows(const Options *o) {
    int64_t most = 1;
    for (int i = 0; i < o->rows.n; i++)
        most = o->rows.item[i].batch > most ? o->rows.item[i].batch : most;
    return most;
}

static void write_function(FILE *f, const Product *p, int k, int copies) {
    fprintf(f, "func @p%d entry (", k);
    for (int i = 0; i < copies; i++)
        fprintf(f, "%s%%x%d : f32[M,%lld]", i ? ", " : "", i, (long long)p->k);
    fprintf(f, ") {\n");
    for (int i = 0; i < copies; i++)
        fprintf(f, "  %%y%d = matmul %%x%d, @w%d.%d : f32[M,%lld]\n", i, i, k, i, (long long)p->n);
    fprintf(f, "  return ");
    for (int i = 0; i < copies; i++)
        fprintf(f, "%s%%y%d \"y%d\"", i ? ", " : "", i, i);
    fprintf(f, "\n}\n");
}

static void write_values(FILE *f, int64_t count, uint64_t *state) {
    static float block[1 << 14];
    enum { BLOCK = sizeof block / sizeof *block };
    while (count > 0) {
        int64_t n = count < BLOCK ? count : BLOCK;
        for (int64_t i = 0; i < n; i++) {
            *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            block[i] = (float)(int32_t)(*state >> 32) * 0x1p-36f;
        }
        if (fwrite(block, sizeof *block, (size_t)n, f) != (size_t)n)
            bench_fail("weights cannot be written");
        count -= n;
    }
}

static FILE *create(const Options *o, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", o->dir, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        bench_fail("%s: cannot be written", path);
    return f;
}

static void finish(FILE *f) {
    if (fclose(f) != 0)
        bench_fail("a file cannot be written");
}

int products_write(const Options *o) {
    enum { HEADER = 1 << 16 };
    Product p[PRODUCTS];
    char *header = bench_room(HEADER, 1);
    size_t at = 0;
    int64_t offset = 0;
    uint64_t state = 1;
    work_products(&o->config, p);
    FILE *ir = create(o, "products.ir"), *values = create(o, "products.safetensors");
    fprintf(ir, "sym M = 1..%lld\n", (long long)most_rows(o));
    for (int k = 0; k < PRODUCTS; k++)
        for (int i = 0; i < copies_of(&p[k], o->read_mib); i++) {
            long long rows = p[k].k, columns = p[k].n, bytes = rows * columns * (long long)sizeof(float);
            fprintf(ir, "param @w%d.%d : f32[%lld,%lld] frozen\n", k, i, rows, columns);
            at += (size_t)snprintf(
                header + at, HEADER - at,
                "%s\"w%d.%d\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[%lld,%lld]}",
                at ? "," : "{", k, i, rows, columns, (long long)offset, (long long)offset + bytes);
            offset += bytes;
        }
    header[at++] = '}';
    while (at % 8)
        header[at++] = ' ';
    uint64_t bytes = at; /* little-endian, as the machines that are measured */
    if (fwrite(&bytes, sizeof bytes, 1, values) != 1 || fwrite(header, 1, at, values) != at)
        bench_fail("weights cannot be written");
    write_values(values, offset / (int64_t)sizeof(float), &state);
    for (int k = 0; k < PRODUCTS; k++)
        write_function(ir, &p[k], k, copies_of(&p[k], o->read_mib));
    finish(ir);
    finish(values);
    free(header);
    return 0;
}

/* ---- by moec ------------------------------------------------------------------------------------------- */

typedef struct Compiled {
    const Model *m;
    uint32_t function, copies;
    int64_t *sym;
    void **arg;
} Compiled;

static Spent compiled_once(void *context) {
    Compiled *c = context;
    Spent start = spent_now();
    bench_check(c->m->run(c->m->instance, c->function, c->sym, c->arg), "product");
    Spent s = spent_since(start);
    return spent_each(s, c->copies);
}

static void compiled_open(Compiled *c, const Model *m, const Product *p, int k, int64_t rows) {
    char name[16];
    int (*find_function)(const moec_program *, const char *);
    *(void **)&find_function = model_find(m, "moec_find_function");
    snprintf(name, sizeof name, "p%d", k);
    int function = find_function(m->program, name);
    if (function < 0)
        bench_fail("%s: no products", m->name);
    const moec_function *f = &m->program->function[function];
    *c = (Compiled){m, (uint32_t)function, f->n_inputs, model_symbols(m), NULL};
    model_symbol_set(m, c->sym, m->program->n_symbols ? 0 : -1, rows, "rows");
    c->arg = bench_room(2 * c->copies, sizeof *c->arg);
    for (uint32_t i = 0; i < 2 * c->copies; i++) {
        size_t count = (size_t)(rows * (i < c->copies ? p->k : p->n));
        float *x = bench_room(count, sizeof *x);
        for (size_t j = 0; j < count; j++)
            x[j] = (float)(j % 17) - 8;
        c->arg[i] = x;
    }
}

static void compiled_close(Compiled *c) {
    for (uint32_t i = 0; i < 2 * c->copies; i++)
        free(c->arg[i]);
    free(c->arg);
    free(c->sym);
}

/* ---- by OpenBLAS, in children
 * ------------------------------------------------------------------------------ */

typedef struct Child {
    char *name; /* its variant */
    pid_t pid;
    FILE *to, *from;
} Child;

typedef struct Asked {
    Child *child;
    const Product *p;
    int64_t rows;
    int copies;
} Asked;

static void child_start(Child *c, const char *coretype, int threads) {
    int to[2], from[2];
    char count[16];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
        bench_fail("no pipe");
    c->pid = fork();
    if (c->pid < 0)
        bench_fail("no process");
    if (c->pid == 0) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        snprintf(count, sizeof count, "%d", threads);
        setenv("OPENBLAS_CORETYPE", coretype, 1);
        setenv("OPENBLAS_NUM_THREADS", count, 1);
        execl("/proc/self/exe", "bench", "sgemm", (char *)NULL);
        _exit(1);
    }
    close(to[0]);
    close(from[1]);
    c->to = fdopen(to[1], "w");
    c->from = fdopen(from[0], "r");
}

static void child_stop(Child *c) {
    fclose(c->to);
    fclose(c->from);
    waitpid(c->pid, NULL, 0);
    free(c->name);
}

/* Its first line is the core type it runs. False: this machine has no such thing. */
static bool child_ready(Child *c, const char *coretype) {
    char line[128];
    bool ran = fgets(line, sizeof line, c->from) != NULL;
    line[ran ? strcspn(line, "\n") : 0] = 0;
    bool same = ran && strcasecmp(line, coretype) == 0;
    if (!same)
        printf("OpenBLAS %s: %s%s\n", coretype, ran ? "runs as " : "does not run here", ran ? line : "");
    c->name = bench_room(sizeof line, 1);
    snprintf(c->name, sizeof line, "openblas/%s", line);
    return same;
}

static int children_start(Child *c, const char *coretypes, int threads) {
    int n = 0;
    char *list = strdup(coretypes), *state = NULL;
    for (char *t = strtok_r(list, ",", &state); t && n < MAX_CHILDREN; t = strtok_r(NULL, ",", &state)) {
        child_start(&c[n], t, threads);
        if (child_ready(&c[n], t))
            n++;
        else
            child_stop(&c[n]);
    }
    free(list);
    return n;
}

static Spent asked_once(void *context) {
    const Asked *a = context;
    Spent s;
    fprintf(a->child->to, "%lld %lld %lld %d\n", (long long)a->rows, (long long)a->p->k, (long long)a->p->n,
            a->copies);
    fflush(a->child->to);
    if (fscanf(a->child->from, "%lf %lf %lf", &s.wall, &s.cpu, &s.lost) != 3)
        bench_fail("%s ended", a->child->name);
    return s;
}

/* ---- the table
 * ----------------------------------------------------------------------------------------------- */

typedef struct Products {
    const Options *o;
    Machine machine;
    double limit[LIMIT_KINDS];
    Model model[MAX_MODELS];
    Child child[MAX_CHILDREN];
    int n_models, n_children;
} Products;

static void bench_product(Products *b, const Product *p, int k, int64_t rows) {
    Compiled compiled[MAX_MODELS];
    Asked asked[MAX_CHILDREN];
    Run run[MAX_MODELS + MAX_CHILDREN];
    Result r[MAX_MODELS + MAX_CHILDREN];
    char work[64];
    int n = 0, last = b->n_children - 1;
    double flops = 2.0 * (double)rows * (double)p->k * (double)p->n, weights = (double)(p->k * p->n);
    LimitKind kind =
        flops / b->limit[LIMIT_FMA] > 4 * weights / b->limit[LIMIT_READ] ? LIMIT_FMA : LIMIT_READ;
    for (int i = 0; i < b->n_children; i++, n++) {
        asked[i] = (Asked){&b->child[i], p, rows, copies_of(p, b->o->read_mib)};
        run[n] = (Run){b->child[i].name, i < last ? last : -1, kind == LIMIT_FMA ? flops : 4 * weights,
                       asked_once, &asked[i]};
    }
    for (int i = 0; i < b->n_models; i++, n++) {
        compiled_open(&compiled[i], &b->model[i], p, k, rows);
        double bytes = weights * model_weight_bytes(&b->model[i]);
        run[n] =
            (Run){b->model[i].name, last, kind == LIMIT_FMA ? flops : bytes, compiled_once, &compiled[i]};
    }
    rounds_measure(&b->machine, kind, (int)b->o->rounds, run, n, r);
    snprintf(work, sizeof work, "%s %lldx%lld M=%lld", p->name, (long long)p->k, (long long)p->n,
             (long long)rows);
    rounds_print(&b->machine, kind, work, run, n, r);
    for (int i = 0; i < b->n_models; i++)
        compiled_close(&compiled[i]);
}

int products_main(const Options *o) {
    Products *b = bench_room(1, sizeof *b);
    Product p[PRODUCTS];
    signal(SIGPIPE, SIG_IGN); /* a child that ends is seen where its answer is missing */
    b->o = o;
    b->n_children = children_start(b->child, o->coretypes, (int)o->threads);
    b->n_models = o->n_models;
    machine_open(&b->machine, o);
    machine_print(&b->machine);
    for (int kind = 0; kind < LIMIT_KINDS; kind++)
        b->limit[kind] = machine_limit(&b->machine, (LimitKind)kind, b->machine.threads).wall;
    models_open(b->model, o);
    work_products(&o->config, p);
    rounds_head();
    for (int k = 0; k < PRODUCTS; k++)
        for (int i = 0; i < o->rows.n; i++)
            bench_product(b, &p[k], k, o->rows.item[i].batch);
    for (int i = 0; i < b->n_children; i++)
        child_stop(&b->child[i]);
    free(b);
    return 0;
}
