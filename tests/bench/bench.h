/* What the benches share: the machine's limits, opening a compiled model's library, rows of the table.
 *
 * The limits: a register-only loop of multiply-adds (FMA peak) and a read of memory far larger than the caches. */
#ifndef MOEC_BENCH_H
#define MOEC_BENCH_H

#include "../../frontends/config.h"
#include "../../runtime/moec_rt.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 64, LANES = 16, CHAINS = 12 };

typedef float Vec16 __attribute__((vector_size(64)));

static inline double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double now(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

/* ---- limits ------------------------------------------------------------------------------------ */

typedef struct Worker {
    pthread_t thread;
    const float *data;
    size_t count;
    double seconds;
    float sink;
} Worker;

enum { FMA_ROUNDS = 20000000 };

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) static inline float fma_rounds(float start) {
    Vec16 x[CHAINS], a = {0}, b = {0};
    for (int i = 0; i < LANES; i++) a[i] = 0.999f, b[i] = start;
    for (int i = 0; i < CHAINS; i++) x[i] = b + (float)i;
    for (int r = 0; r < FMA_ROUNDS; r++)
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;
    float sum = 0;
    for (int i = 0; i < CHAINS; i++)
        for (int l = 0; l < LANES; l++) sum += x[i][l];
    return sum;
}

/* Its own time: what the core does while other programs have it is no limit. */
static inline void *fma_worker(void *arg) {
    Worker *w = arg;
    double t = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    w->sink = fma_rounds(1.0f + (float)w->count * 1e-9f); /* from 0 it would sink into subnormal numbers */
    w->seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - t;
    return NULL;
}

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) static inline float read_all(const float *p, size_t n) {
    Vec16 s[8];
    memset(s, 0, sizeof s);
    for (size_t i = 0; i + 8 * LANES <= n; i += 8 * LANES)
        for (int k = 0; k < 8; k++) s[k] += *(const Vec16 *)(const void *)(p + i + (size_t)k * LANES);
    float sum = 0;
    for (int k = 0; k < 8; k++)
        for (int l = 0; l < LANES; l++) sum += s[k][l];
    return sum;
}

static inline void *read_worker(void *arg) {
    Worker *w = arg;
    double t = now();
    w->sink = read_all(w->data, w->count);
    w->seconds = now() - t;
    return NULL;
}

static inline double slowest(Worker *w, int n, void *(*run)(void *)) {
    double s = 0;
    for (int i = 0; i < n; i++)
        if (pthread_create(&w[i].thread, NULL, run, &w[i]) != 0) exit(1);
    for (int i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        if (w[i].seconds > s) s = w[i].seconds;
    }
    return s;
}

static inline double fma_peak(int threads) {
    Worker w[MAX_THREADS] = {0};
    double best = 1e9;
    for (int r = 0; r < 3; r++) {
        double s = slowest(w, threads, fma_worker);
        if (s < best) best = s;
    }
    return 2.0 * FMA_ROUNDS * CHAINS * LANES * threads / best;
}

static inline double read_bandwidth(int threads) {
    Worker w[MAX_THREADS] = {0};
    size_t count = (size_t)1 << 28; /* 1 GiB of floats in all */
    float *data = aligned_alloc(64, count * sizeof *data);
    if (!data) exit(1);
    memset(data, 0, count * sizeof *data);
    for (int i = 0; i < threads; i++) {
        w[i].count = count / (size_t)threads;
        w[i].data = data + (size_t)i * w[i].count;
    }
    double best = 1e9;
    for (int r = 0; r < 3; r++) {
        double s = slowest(w, threads, read_worker);
        if (s < best) best = s;
    }
    free(data);
    return (double)count * sizeof(float) / best;
}

/* ---- work ------------------------------------------------------------------------------------------ */

/* Weights of a layer's products: attention with or without the cross attention's, feed-forward. */
static inline double layer_weights(const T5Config *c, bool cross) {
    double inner = (double)(c->heads * c->d_kv), d = (double)c->d_model;
    return 4 * d * inner * (cross ? 2 : 1) + (c->gated ? 3 : 2) * d * (double)c->d_ff;
}

/* ---- a compiled model ---------------------------------------------------------------------------------- */

typedef struct Bench {
    Arena *arena;
    T5Config config;
    int threads;
    const char *name; /* the backend's */
    void *library;
    const moec_program *program;
    moec_instance *instance;
} Bench;

static inline void *find(void *library, const char *name) {
    void *p = dlsym(library, name);
    if (p) return p;
    fprintf(stderr, "bench: error: the library lacks %s\n", name);
    exit(1);
}

/* NAME=MODEL.so */
static inline void bench_load(Bench *b, char *model, const char *weights, const char *prefix) {
    char *equals = strchr(model, '=');
    if (!equals) {
        fprintf(stderr, "bench: error: '%s': NAME=MODEL.so was expected\n", model);
        exit(2);
    }
    *equals = 0;
    b->name = model;
    b->library = dlopen(equals + 1, RTLD_NOW | RTLD_LOCAL);
    if (!b->library) {
        fprintf(stderr, "bench: error: %s\n", dlerror());
        exit(1);
    }
    const moec_program *(*program)(void);
    moec_status (*open)(const moec_program *, const moec_options *, moec_instance **);
    *(void **)&program = find(b->library, arena_printf(b->arena, "%s_program", prefix));
    *(void **)&open = find(b->library, "moec_open");
    b->program = program();
    char message[256] = "";
    moec_options o = {.weights = weights, .threads = b->threads, .message = message, .message_room = sizeof message};
    if (open(b->program, &o, &b->instance) != MOEC_OK) {
        fprintf(stderr, "bench: %s\n", message);
        exit(1);
    }
}

/* MODEL.weights PREFIX CONFIG.json THREADS NAME=MODEL.so...: one model by several backends, at most `most`; THREADS 0: one a
 * core. Returns how many; ends the program when something is amiss. They share one arena. */
static inline int bench_open(int argc, char **argv, Bench *b, int most) {
    int n = argc - 5;
    if (n < 1 || n > most) {
        fprintf(stderr, "usage: %s MODEL.weights PREFIX CONFIG.json THREADS NAME=MODEL.so...\n", argv[0]);
        exit(2);
    }
    Arena *a = arena_new();
    Diag *d = diag_new();
    T5Config config;
    bool ok = config_load(a, argv[3], &config, d);
    diag_flush(d);
    diag_free(d);
    if (!ok) exit(1);
    int threads = atoi(argv[4]) > 0 ? atoi(argv[4]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < n; i++) {
        b[i] = (Bench){.arena = a, .config = config, .threads = threads < 1 || threads > MAX_THREADS ? 1 : threads};
        bench_load(&b[i], argv[5 + i], argv[1], argv[2]);
    }
    return n;
}

static inline void head(const char *what) {
    printf("%-34s %12s %9s %-8s %9s %8s\n", what, "time", "rate", "", "limit", "ratio");
}

static inline void row(const char *work, const char *name, double seconds, double amount, double limit, const char *unit) {
    printf("%-28s %-5s %9.2f ms %9.1f %-8s %9.1f %6.1f %%", work, name, seconds * 1e3, amount / seconds / 1e9, unit, limit / 1e9,
           100 * amount / seconds / limit);
}

#endif
