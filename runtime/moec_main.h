/* The command line of a compiled model. A generated main is three lines:
 *
 *     int main(int argc, char **argv) { return moec_main(PREFIX_program(), tokenizer, argc, argv); }
 */
#ifndef MOEC_MAIN_H
#define MOEC_MAIN_H

#include "moec_rt.h"
#include "text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* tokenizer: NULL in executables built without one. Returns the exit status: 0 done, 1 the input is at fault,
 * 2 usage, 70 a defect of moec. */
int moec_main(const moec_program *p, const moec_tokenizer *tokenizer, int argc, char **argv);

/* The first call of an executable's main whose matrix products are OpenBLAS': makes OpenBLAS choose kernels that fit the CPU,
 * by starting the program once more with OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS set, unless the user has set one. */
void moec_choose_blas(char **argv);

#ifdef __cplusplus
}
#endif
#endif
