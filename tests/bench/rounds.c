/* Measuring: variants of one piece of work take turns, and the machine's limit is measured in between.
 *
 * Others may have the machine at any moment, so nothing is a quotient of figures taken minutes apart: a ratio
 * is formed in each round, of a run and the better of the limits before and behind it, and the median of the
 * rounds is told; so is that of two runs of one round. Every round begins with another variant. */
#include "bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of all threads: the second number of their schedstat. */
static double lost_now(void) {
    double sum = 0;
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[300];
        unsigned long long ran, waited;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", entry->d_name);
        FILE *f = entry->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (f && fscanf(f, "%llu %llu", &ran, &waited) == 2)
            sum += (double)waited * 1e-9;
        if (f)
            fclose(f);
    }
    if (dir)
        closedir(dir);
    return sum;
}

/* Looking at threads takes a while: it stays outside what the clocks see. */
Spent spent_now(void) {
    double lost = lost_now();
    return (Spent){seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID), lost};
}

Spent spent_since(Spent start) {
    double wall = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    return (Spent){wall - start.wall, cpu - start.cpu, lost_now() - start.lost};
}

Spent spent_each(Spent s, double n) {
    return (Spent){s.wall / n, s.cpu / n, s.lost / n};
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

typedef struct Sample {
    Spent spent;
    Rate limit;
    bool calm;
} Sample;

/* What of a sample and of the one it is compared with a median is taken of. */
static double ratio(const Run *run, Sample s, Sample other) {
    (void)other;
    return run->amount / s.spent.wall / s.limit.wall;
}

static double ratio_cpu(const Run *run, Sample s, Sample other) {
    (void)other;
    return run->amount / s.spent.cpu / s.limit.cpu;
}

static double slower(const Run *run, Sample s, Sample other) {
    (void)run;
    return s.spent.wall / other.spent.wall;
}

static double slower_cpu(const Run *run, Sample s, Sample other) {
    (void)run;
    return s.spent.cpu / other.spent.cpu;
}

/* `sample` and `other` are those of the first round, `n` apart from the next. Where any round was calm, only
 * such count. */
static double median_of(double (*value)(const Run *, Sample, Sample), const Run *run, const Sample *sample,
                        const Sample *other, int n, int rounds) {
    double *v = bench_room((size_t)rounds, sizeof *v);
    int calm = 0, count = 0;
    for (int k = 0; k < rounds; k++)
        calm += sample[k * n].calm && other[k * n].calm;
    for (int k = 0; k < rounds; k++)
        if (!calm || (sample[k * n].calm && other[k * n].calm))
            v[count++] = value(run, sample[k * n], other[k * n]);
    double m = median(v, count);
    free(v);
    return m;
}

static Result summarise(const Sample *sample, const Run *run, int i, int n, int rounds) {
    Result r = {.best = {1e300, 0, 0}};
    const Sample *own = sample + i, *other = sample + (run[i].against < 0 ? i : run[i].against);
    double least = 1e300;
    for (int k = 0; k < rounds; k++) {
        r.calm += own[k * n].calm;
        r.best = own[k * n].spent.wall < r.best.wall ? own[k * n].spent : r.best;
        r.limit = rate_better(r.limit, own[k * n].limit);
        least = other[k * n].spent.wall < least ? other[k * n].spent.wall : least;
    }
    r.ratio = median_of(ratio, &run[i], own, own, n, rounds);
    r.ratio_cpu = median_of(ratio_cpu, &run[i], own, own, n, rounds);
    r.slower = median_of(slower, &run[i], own, other, n, rounds);
    r.slower_cpu = median_of(slower_cpu, &run[i], own, other, n, rounds);
    r.slower_best = r.best.wall / least;
    return r;
}

/* *before: the limit in front of it, then behind it. */
static Sample take(Machine *m, LimitKind kind, const Run *run, Rate *before) {
    static const double lost = 0.03; /* of the threads' time: where it is more, others had the machine */
    Sample s;
    int attempt = 0;
    do {
        Spent spent = run->once(run->context);
        Rate behind = machine_limit(m, kind, m->threads);
        Rate limit = rate_better(*before, behind);
        s = (Sample){spent, limit, limit.calm && spent.lost <= lost * spent.wall * m->threads};
        *before = behind;
    } while (!s.calm && attempt++ < m->patience);
    return s;
}

void rounds_measure(Machine *m, LimitKind kind, int rounds, const Run *run, int n, Result *out) {
    Sample *sample = bench_room((size_t)(rounds * n), sizeof *sample);
    for (int i = 0; i < n; i++)
        run[i].once(run[i].context);
    Rate before = machine_limit(m, kind, m->threads);
    for (int k = 0; k < rounds; k++)
        for (int j = 0; j < n; j++)
            sample[k * n + (j + k) % n] = take(m, kind, &run[(j + k) % n], &before);
    for (int i = 0; i < n; i++)
        out[i] = summarise(sample, run, i, n, rounds);
    free(sample);
}

/* ---- the table -------------------------------------------------------------------------------------------
 */

void rounds_head(void) {
    printf("\n%-26s %-22s %11s %9s %-8s %9s %7s %7s %7s %6s %5s  %s\n", "work", "variant", "time ms", "rate",
           "", "limit", "ratio", "best", "cpu", "busy", "calm", "time, best, cpu against");
}

static void print_start(LimitKind kind, const char *work, const char *variant, double seconds, double amount,
                        double limit) {
    printf("%-26s %-22s %11.3f %9.2f %-8s %9.2f", work, variant, seconds * 1e3, amount / seconds / 1e9,
           limit_unit(kind), limit / 1e9);
}

void rounds_line(LimitKind kind, const char *work, const char *variant, double seconds, double amount,
                 double limit) {
    print_start(kind, work, variant, seconds, amount, limit);
    printf(" %6.1f%% %7s %7s %6s %5s\n", 100 * amount / seconds / limit, "-", "-", "-", "-");
}

void rounds_print(const Machine *m, LimitKind kind, const char *work, const Run *run, int n,
                  const Result *r) {
    for (int i = 0; i < n; i++) {
        double best = r[i].best.wall;
        print_start(kind, work, run[i].variant, best, run[i].amount, r[i].limit.wall);
        printf(" %6.1f%% %6.1f%% %6.1f%% %5.0f%% %5d", 100 * r[i].ratio,
               100 * run[i].amount / best / r[i].limit.wall, 100 * r[i].ratio_cpu,
               100 * r[i].best.cpu / best / m->threads, r[i].calm);
        if (run[i].against >= 0)
            printf("  %+.1f%% %+.1f%% %+.1f%% %s", 100 * (r[i].slower - 1), 100 * (r[i].slower_best - 1),
                   100 * (r[i].slower_cpu - 1), run[run[i].against].variant);
        printf("\n");
    }
    fflush(stdout);
}
