/* A pool of threads with cheap barriers. The caller of moec_parallel is worker 0.
 *
 * A job is published under a new `round` and taken apart through the counter `next`. A worker enters a job by
 * raising `inside` and then looking whether the job is still `open`; the caller closes the job when no task
 * is left and waits until nobody is inside. So no thread has to wake for a job that others have finished, and
 * a job's fields change only while nobody can read them. Tasks are taken in their order, so the first that is not done waits for
 * nobody, and a task may wait until so many are. Waiting is a bounded spin, then a condition variable. Tasks must not call
 * moec_parallel themselves. */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"
#include "atomic.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { SPINS = 2000, MAX_THREADS = 1024 };

typedef struct Padded {
    moec_atomic a;
    char line[64];
} Padded; /* a cache line of its own */

typedef struct Worker {
    moec_pool *pool;
    pthread_t thread;
    int id;
} Worker;

struct moec_pool {
    int workers, started;
    Worker *worker;
    Padded round, next, inside, open, completed, waiters, sleepers, caller_sleeps, stop;
    moec_task *task;
    void *arg;
    int64_t n;
    pthread_mutex_t lock;
    pthread_cond_t work, done, progress;
};

static void relax(void) {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_ia32_pause();
#endif
}

static void take_tasks(moec_pool *p, int worker) {
    int64_t i;
    while ((i = moec_atomic_add(&p->next.a, 1)) < p->n) {
        p->task(p->arg, i, worker);
        moec_atomic_add(&p->completed.a, 1);
        if (moec_atomic_load(&p->waiters.a)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_broadcast(&p->progress);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

void moec_wait(moec_pool *p, int64_t n) {
    if (!p || p->workers == 1)
        return;
    for (int i = 0; i < SPINS; i++, relax())
        if (moec_atomic_load(&p->completed.a) >= n)
            return;
    pthread_mutex_lock(&p->lock);
    moec_atomic_add(&p->waiters.a, 1);
    while (moec_atomic_load(&p->completed.a) < n)
        pthread_cond_wait(&p->progress, &p->lock);
    moec_atomic_add(&p->waiters.a, -1);
    pthread_mutex_unlock(&p->lock);
}

/* Returns the round that differs from `seen`. */
static int64_t wait_round(moec_pool *p, int64_t seen) {
    int64_t now;
    for (int i = 0; i < SPINS; i++, relax())
        if ((now = moec_atomic_load(&p->round.a)) != seen)
            return now;
    pthread_mutex_lock(&p->lock);
    moec_atomic_add(&p->sleepers.a, 1);
    while ((now = moec_atomic_load(&p->round.a)) == seen)
        pthread_cond_wait(&p->work, &p->lock);
    moec_atomic_add(&p->sleepers.a, -1);
    pthread_mutex_unlock(&p->lock);
    return now;
}

static void *work(void *arg) {
    Worker *w = arg;
    moec_pool *p = w->pool;
    int64_t seen = 0;
    for (;;) {
        seen = wait_round(p, seen);
        if (moec_atomic_load(&p->stop.a))
            return NULL;
        moec_atomic_add(&p->inside.a, 1);
        if (moec_atomic_load(&p->open.a))
            take_tasks(p, w->id);
        if (moec_atomic_add(&p->inside.a, -1) == 1 && moec_atomic_load(&p->caller_sleeps.a)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void next_round(moec_pool *p) {
    moec_atomic_add(&p->round.a, 1);
    if (moec_atomic_load(&p->sleepers.a) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
}

void moec_parallel(moec_pool *p, int64_t n, moec_task *task, void *arg) {
    if (!p || p->workers == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++)
            task(arg, i, 0);
        return;
    }
    p->task = task;
    p->arg = arg;
    p->n = n;
    moec_atomic_store(&p->next.a, 0);
    moec_atomic_store(&p->completed.a, 0);
    moec_atomic_store(&p->open.a, 1);
    next_round(p);
    take_tasks(p, 0);
    moec_atomic_store(&p->open.a, 0);
    for (int i = 0; i < SPINS; i++, relax())
        if (!moec_atomic_load(&p->inside.a))
            return;
    pthread_mutex_lock(&p->lock);
    moec_atomic_store(&p->caller_sleeps.a, 1);
    while (moec_atomic_load(&p->inside.a))
        pthread_cond_wait(&p->done, &p->lock);
    moec_atomic_store(&p->caller_sleeps.a, 0);
    pthread_mutex_unlock(&p->lock);
}

static Padded *counter_at(moec_pool *p, int i) {
    Padded *all[] = {&p->round, &p->next, &p->inside, &p->open, &p->completed, &p->waiters, &p->sleepers, &p->caller_sleeps, &p->stop};
    return i < (int)(sizeof all / sizeof *all) ? all[i] : NULL;
}

int moec_pool_threads(int threads) {
    if (threads > 0)
        return threads;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : (int)cores;
}

moec_pool *moec_pool_new(int threads) {
    threads = moec_pool_threads(threads);
    moec_pool *p = moec_mem_new(1, sizeof *p);
    Worker *worker = moec_mem_new((size_t)threads, sizeof *worker);
    if (!p || !worker || threads > MAX_THREADS) {
        moec_mem_free(p);
        moec_mem_free(worker);
        return NULL;
    }
    p->workers = threads;
    p->worker = worker;
    Padded *c;
    for (int i = 0; (c = counter_at(p, i)); i++)
        moec_atomic_init(&c->a);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    pthread_cond_init(&p->progress, NULL);
    /* Signals are the program's business: let none arrive in a worker. */
    static const int own[] = {SIGBUS, SIGFPE, SIGILL, SIGSEGV}; /* a thread's own faults cannot wait */
    sigset_t all, old;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 1; i < threads; i++) {
        worker[i] = (Worker){.pool = p, .id = i};
        if (pthread_create(&worker[i].thread, NULL, work, &worker[i]))
            break;
        p->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (p->started != threads - 1) {
        moec_pool_free(p);
        return NULL;
    }
    return p;
}

void moec_pool_free(moec_pool *p) {
    if (!p)
        return;
    moec_atomic_store(&p->stop.a, 1);
    next_round(p);
    for (int i = 1; i <= p->started; i++)
        pthread_join(p->worker[i].thread, NULL);
    Padded *c;
    for (int i = 0; (c = counter_at(p, i)); i++)
        moec_atomic_drop(&c->a);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->progress);
    moec_mem_free(p->worker);
    moec_mem_free(p);
}

int moec_pool_workers(const moec_pool *p) {
    return p->workers;
}
