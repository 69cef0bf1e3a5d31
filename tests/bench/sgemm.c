/* A child of products.c: times OpenBLAS with the core type its environment names. It says which one runs,
 * then answers each line `M K N COPIES` with what a product took (the numbers of Spent), over COPIES weights
 * one after the other. */
#include "bench.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* cblas.h's, which need not be installed where the library is */
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111 };

typedef void Sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                   const float *b, int ldb, float beta, float *c, int ldc);

typedef struct Matrices {
    int m, k, n, copies;
    float *x, *w, *y; /* [copies, m, k], [copies, k, n], [copies, m, n] */
} Matrices;

static float *matrix(size_t count) {
    float *p = bench_room(count, sizeof *p);
    for (size_t i = 0; i < count; i++)
        p[i] = (float)(i % 17) - 8;
    return p;
}

static void matrices_make(Matrices *a, int m, int k, int n, int copies) {
    if (a->m == m && a->k == k && a->n == n && a->copies == copies)
        return;
    free(a->x);
    free(a->w);
    free(a->y);
    *a = (Matrices){.m = m, .k = k, .n = n, .copies = copies};
    a->x = matrix((size_t)copies * (size_t)m * (size_t)k);
    a->w = matrix((size_t)copies * (size_t)k * (size_t)n);
    a->y = matrix((size_t)copies * (size_t)m * (size_t)n);
}

static Spent multiply(Sgemm *sgemm, const Matrices *a) {
    Spent start = spent_now();
    for (int i = 0; i < a->copies; i++)
        sgemm(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, a->m, a->n, a->k, 1,
              a->x + (size_t)i * (size_t)a->m * (size_t)a->k, a->k,
              a->w + (size_t)i * (size_t)a->k * (size_t)a->n, a->n, 0,
              a->y + (size_t)i * (size_t)a->m * (size_t)a->n, a->n);
    Spent s = spent_since(start);
    return spent_each(s, a->copies);
}

int sgemm_serve(void) {
    Matrices a = {0};
    int m, k, n, copies;
    const struct timespec calm = {0,
                                  60000000}; /* its threads go on looking for work for about half of that */
    void *library = dlopen("libopenblas.so.0", RTLD_NOW);
    Sgemm *sgemm = NULL;
    char *(*core)(void) = NULL;
    if (library) {
        *(void **)&sgemm = dlsym(library, "cblas_sgemm");
        *(void **)&core = dlsym(library, "openblas_get_corename");
    }
    if (!sgemm || !core)
        bench_fail("no OpenBLAS: libopenblas.so.0");
    printf("%s\n", core());
    fflush(stdout);
    while (scanf("%d %d %d %d", &m, &k, &n, &copies) == 4) {
        matrices_make(&a, m, k, n, copies);
        Spent s = multiply(sgemm, &a);
        nanosleep(&calm, NULL);
        printf("%.9g %.9g %.9g\n", s.wall, s.cpu, s.lost);
        fflush(stdout);
    }
    return 0;
}
