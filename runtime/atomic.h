/* 64-bit counters that several threads use: C11 atomics, or a mutex each where a C99 compiler has none.
 * All operations are sequentially consistent. */
#ifndef MOEC_ATOMIC_H
#define MOEC_ATOMIC_H

#include <stdint.h>

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L && !defined(__STDC_NO_ATOMICS__)

#include <stdatomic.h>

typedef struct moec_atomic {
    atomic_int_least64_t v;
} moec_atomic;

static inline void moec_atomic_init(moec_atomic *a) {
    atomic_init(&a->v, 0);
}
static inline void moec_atomic_drop(moec_atomic *a) {
    (void)a;
}
static inline int64_t moec_atomic_load(moec_atomic *a) {
    return atomic_load(&a->v);
}
static inline void moec_atomic_store(moec_atomic *a, int64_t v) {
    atomic_store(&a->v, v);
}
/* Returns the value before. */
static inline int64_t moec_atomic_add(moec_atomic *a, int64_t v) {
    return atomic_fetch_add(&a->v, v);
}

#else

#include <pthread.h>

typedef struct moec_atomic {
    pthread_mutex_t lock;
    int64_t v;
} moec_atomic;

static inline void moec_atomic_init(moec_atomic *a) {
    pthread_mutex_init(&a->lock, NULL);
    a->v = 0;
}
static inline void moec_atomic_drop(moec_atomic *a) {
    pthread_mutex_destroy(&a->lock);
}
static inline int64_t moec_atomic_load(moec_atomic *a) {
    pthread_mutex_lock(&a->lock);
    int64_t v = a->v;
    pthread_mutex_unlock(&a->lock);
    return v;
}
static inline void moec_atomic_store(moec_atomic *a, int64_t v) {
    pthread_mutex_lock(&a->lock);
    a->v = v;
    pthread_mutex_unlock(&a->lock);
}
/* Returns the value before. */
static inline int64_t moec_atomic_add(moec_atomic *a, int64_t v) {
    pthread_mutex_lock(&a->lock);
    int64_t before = a->v;
    a->v = before + v;
    pthread_mutex_unlock(&a->lock);
    return before;
}

#endif
#endif
