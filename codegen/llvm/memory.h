/* What LLVM does where it gets no memory. */
#ifndef MOEC_LLVM_MEMORY_H
#define MOEC_LLVM_MEMORY_H

#ifdef __cplusplus
extern "C" {
#endif

/* Calls f, which must not come back, from now on; once. */
void lb_on_no_memory(void (*f)(void));

#ifdef __cplusplus
}
#endif

#endif
