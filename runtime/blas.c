/* OpenBLAS picks its kernels when it is loaded, by a list of the CPUs it knows; newer ones get slow kernels. Starting once
 * more with the choice in the environment is the only way to correct that. */
#define _DEFAULT_SOURCE /* setenv; MAP_ANONYMOUS elsewhere */
#include "moec_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Whether the first CPU has all of AVX-512 that OpenBLAS' SkylakeX kernels need, and the system lets programs use it. */
static int has_avx512(void) {
    static const char *const want[] = {" avx512f ", " avx512bw ", " avx512vl ", " avx512dq "};
    char line[8192];
    size_t found = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "flags", 5) != 0) continue;
        line[strcspn(line, "\n")] = ' ';
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) found += strstr(line, want[i]) != NULL;
        break;
    }
    if (f) fclose(f);
    return found == sizeof want / sizeof *want;
}

void moec_choose_blas(char **argv) {
    if (getenv("OPENBLAS_CORETYPE") || getenv("OPENBLAS_NUM_THREADS")) return;
    if (has_avx512() && setenv("OPENBLAS_CORETYPE", "SkylakeX", 1) != 0) return;
    if (setenv("OPENBLAS_NUM_THREADS", "1", 1) != 0) return; /* the model has its own threads; and no third start */
    execv("/proc/self/exe", argv);
}
