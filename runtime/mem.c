/* Memory of the runtime: the only file that calls malloc or reserves pages. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE */

#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>

void *moec_mem_new(size_t count, size_t size) {
    return calloc(count ? count : 1, size ? size : 1);
}

void *moec_mem_grow(void *p, size_t bytes) {
    return realloc(p, bytes ? bytes : 1);
}

void moec_mem_free(void *p) {
    free(p);
}

/* Nothing may be handed out for 0 bytes that release would not recognise. */
static size_t reserve_size(uint64_t bytes) {
    return bytes ? (size_t)bytes : 1;
}

void *moec_mem_reserve(uint64_t bytes) {
    if (bytes > (uint64_t)1 << 47 || (uint64_t)(size_t)bytes != bytes)
        return NULL;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    void *p = mmap(NULL, reserve_size(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void moec_mem_release(void *p, uint64_t bytes) {
    if (p)
        munmap(p, reserve_size(bytes));
}
