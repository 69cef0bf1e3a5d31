/* The limits: a register-only loop of multiply-adds, and a read of memory far larger than the caches.
 *
 * All threads begin together, and the time is that from the first to the last. A limit takes some hundredths
 * of a second, so that it can be measured again beside each figure that is held against it. */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const double CALM = 0.97; /* of the threads' time they had a processor */

enum { ATTEMPTS = 3, FMA_ROUNDS = 8000000, SLICE_MIB = 256 };

typedef struct Worker Worker;

struct Worker {
    pthread_t thread;
    pthread_barrier_t *begin;
    void (*work)(Worker *w);
    const char *data;
    size_t bytes;
    double start, end, cpu;
    float sink;
};

static double clock_now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *worker_main(void *arg) {
    Worker *w = arg;
    pthread_barrier_wait(w->begin);
    w->start = clock_now(CLOCK_MONOTONIC);
    w->cpu = -clock_now(CLOCK_THREAD_CPUTIME_ID);
    w->work(w);
    w->cpu += clock_now(CLOCK_THREAD_CPUTIME_ID);
    w->end = clock_now(CLOCK_MONOTONIC);
    return NULL;
}

/* What `amount` of work is a second. */
static Rate together(Worker *w, int n, double amount) {
    pthread_barrier_t begin;
    double start = 1e300, end = 0, cpu = 0;
    pthread_barrier_init(&begin, NULL, (unsigned)n);
    for (int i = 0; i < n; i++) {
        w[i].begin = &begin;
        if (pthread_create(&w[i].thread, NULL, worker_main, &w[i]) != 0)
            bench_fail("no thread");
    }
    for (int i = 0; i < n; i++) {
        pthread_join(w[i].thread, NULL);
        start = w[i].start < start ? w[i].start : start;
        end = w[i].end > end ? w[i].end : end;
        cpu += w[i].cpu;
    }
    pthread_barrier_destroy(&begin);
    return (Rate){amount / (end - start), amount / cpu, cpu >= CALM * n * (end - start)};
}

/* ---- multiply-adds ---------------------------------------------------------------------------------- */

typedef float Vec4 __attribute__((vector_size(16)));
#if defined(__x86_64__)
typedef float Vec8 __attribute__((vector_size(32)));
typedef float Vec16 __attribute__((vector_size(64)));
#define TARGET(name) __attribute__((target(name)))
#else
#define TARGET(name)
#endif

/* As many independent chains as hide the latency of two units, within the registers there are. */
#define FMA_LOOP(NAME, VECTOR, CHAINS, ...)                                                                  \
    __VA_ARGS__ static void NAME(Worker *w) {                                                                \
        enum { LANES = (int)(sizeof(VECTOR) / sizeof(float)) };                                              \
        VECTOR x[CHAINS], a = {0}, b = {0};                                                                  \
        for (int i = 0; i < LANES; i++)                                                                      \
            a[i] = 0.999f, b[i] = 1.0f + (float)w->bytes; /* from 0 it would sink into subnormal numbers */  \
        for (int i = 0; i < CHAINS; i++)                                                                     \
            x[i] = b + (float)i;                                                                             \
        for (int r = 0; r < FMA_ROUNDS; r++)                                                                 \
            _Pragma("GCC unroll 32") for (int i = 0; i < CHAINS; i++) x[i] = x[i] * a + b;                   \
        for (int i = 0; i < CHAINS; i++)                                                                     \
            for (int l = 0; l < LANES; l++)                                                                  \
                w->sink += x[i][l];                                                                          \
    }

#if defined(__x86_64__)
FMA_LOOP(fma_512, Vec16, 12, TARGET("avx512f"))
FMA_LOOP(fma_256, Vec8, 12, TARGET("avx2,fma"))
FMA_LOOP(fma_128, Vec4, 12)
#else
FMA_LOOP(fma_128, Vec4, 24)
#endif

typedef struct FmaLoop {
    const char *vectors;
    void (*work)(Worker *w);
    double flops;
} FmaLoop;

static FmaLoop fma_widest(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return (FmaLoop){"512-bit multiply-adds", fma_512, 2.0 * 12 * 16 * FMA_ROUNDS};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (FmaLoop){"256-bit multiply-adds", fma_256, 2.0 * 12 * 8 * FMA_ROUNDS};
    return (FmaLoop){"128-bit products and sums", fma_128, 2.0 * 12 * 4 * FMA_ROUNDS};
#else
    return (FmaLoop){"128-bit multiply-adds", fma_128, 2.0 * 24 * 4 * FMA_ROUNDS};
#endif
}

static Rate fma_once(Machine *m, int threads) {
    Worker w[MAX_THREADS] = {0};
    FmaLoop loop = fma_widest();
    (void)m;
    for (int i = 0; i < threads; i++)
        w[i].work = loop.work;
    return together(w, threads, loop.flops * threads);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

/* One stream does not reach what a core can draw from memory: four, each fetched a little ahead. */
enum { STREAMS = 4, LINE = 64, LINES = 8, AHEAD = 256 };

typedef uint64_t Words __attribute__((vector_size(LINE)));

static inline __attribute__((always_inline)) float read_streams(const char *p, size_t bytes) {
    Words s[LINES];
    memset(s, 0, sizeof s);
    size_t part = bytes / STREAMS / (LINE * LINES) * (LINE * LINES);
    for (size_t i = 0; i < part; i += LINE * LINES)
        for (size_t k = 0; k < STREAMS; k++)
            for (size_t l = 0; l < LINES; l++) {
                const char *at = p + k * part + i + l * LINE;
                __builtin_prefetch(at + AHEAD);
                s[l] ^= *(const Words *)(const void *)at;
            }
    uint64_t all = 0;
    for (size_t l = 0; l < LINES; l++)
        for (size_t i = 0; i < LINE / sizeof(uint64_t); i++)
            all ^= s[l][i];
    return (float)all;
}

#if defined(__x86_64__)
TARGET("avx512f") static void read_512(Worker *w) {
    w->sink = read_streams(w->data, w->bytes);
}
TARGET("avx2") static void read_256(Worker *w) {
    w->sink = read_streams(w->data, w->bytes);
}
#endif

static void read_any(Worker *w) {
    w->sink = read_streams(w->data, w->bytes);
}

static void (*read_widest(void))(Worker *) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return read_512;
    if (__builtin_cpu_supports("avx2"))
        return read_256;
#endif
    return read_any;
}

/* The next slice: by the time it comes again, the caches have forgotten it. */
static Rate read_once(Machine *m, int threads) {
    Worker w[MAX_THREADS] = {0};
    size_t each = m->slice / (size_t)threads / (STREAMS * LINE * LINES) * (STREAMS * LINE * LINES);
    for (int i = 0; i < threads; i++) {
        w[i].work = read_widest();
        w[i].data = m->data + m->at + (size_t)i * each;
        w[i].bytes = each;
    }
    m->at = m->at + 2 * m->slice <= m->bytes ? m->at + m->slice : 0;
    return together(w, threads, (double)each * threads);
}

/* ---- the machine --------------------------------------------------------------------------------------- */

static const struct {
    const char *unit;
    Rate (*once)(Machine *m, int threads);
} limits[LIMIT_KINDS] = {{"GFLOP/s", fma_once}, {"GB/s", read_once}};

const char *limit_unit(LimitKind kind) {
    return limits[kind].unit;
}

Rate rate_better(Rate a, Rate b) {
    return (Rate){a.wall > b.wall ? a.wall : b.wall, a.cpu > b.cpu ? a.cpu : b.cpu, a.calm || b.calm};
}

Rate machine_limit(Machine *m, LimitKind kind, int threads) {
    Rate best = {0, 0, false};
    for (int i = 0; i < ATTEMPTS || (!best.calm && i < ATTEMPTS + m->patience); i++)
        best = rate_better(best, limits[kind].once(m, threads));
    return best;
}

/* At least 512 MiB, at most an eighth of the memory. */
static size_t bytes_to_read(void) {
    long cache = 0, pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    size_t bytes = cache > 0 ? 4 * (size_t)cache : 0, most = (size_t)pages * (size_t)page / 8;
    bytes = bytes < (size_t)512 * MIB ? (size_t)512 * MIB : bytes;
    return bytes > most ? most : bytes;
}

void machine_open(Machine *m, const Options *o) {
    size_t slice = (size_t)SLICE_MIB * MIB, bytes = o->read_mib ? (size_t)o->read_mib * MIB : bytes_to_read();
    *m = (Machine){.threads = (int)o->threads,
                   .patience = (int)o->patience,
                   .vectors = fma_widest().vectors,
                   .slice = bytes < slice ? bytes : slice};
    m->bytes = bytes / m->slice * m->slice;
    void *data = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        bench_fail("no %zu MiB to read", m->bytes / MIB);
    madvise(data, m->bytes, MADV_HUGEPAGE);
    memset(data, 1, m->bytes);
    m->data = data;
}

void machine_print(Machine *m) {
    static const char *const name[LIMIT_KINDS] = {"peak", "memory read"};
    printf("%d threads of %ld cores, %s", m->threads, sysconf(_SC_NPROCESSORS_ONLN), m->vectors);
    for (int kind = 0; kind < LIMIT_KINDS; kind++) {
        Rate one = machine_limit(m, (LimitKind)kind, 1), all = machine_limit(m, (LimitKind)kind, m->threads);
        printf("\n%s %.1f %s, busy %.0f%%; one thread %.1f, busy %.0f%%", name[kind], all.wall / 1e9,
               limit_unit((LimitKind)kind), 100 * all.wall / all.cpu / m->threads, one.wall / 1e9,
               100 * one.wall / one.cpu);
    }
    printf("; of %zu MiB\n", m->bytes / MIB);
}
