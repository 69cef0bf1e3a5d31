/* Memory of the runtime: the only file that calls malloc or reserves pages. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, MAP_NORESERVE, madvise */

#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define FORGET(p, bytes) __msan_poison(p, (size_t)(bytes))
#endif
#endif
#ifndef FORGET
#define FORGET(p, bytes) ((void)(p), (void)(bytes))
#endif

enum { LARGE = 16 << 20 }; /* from here on large pages are worth asking for */

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

static void *pages(uint64_t bytes, int flags) {
    if (bytes > (uint64_t)1 << 47 || (uint64_t)(size_t)bytes != bytes)
        return NULL;
    void *p = mmap(NULL, reserve_size(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *moec_mem_reserve(uint64_t bytes) {
#ifdef MAP_NORESERVE
    return pages(bytes, MAP_NORESERVE);
#else
    return pages(bytes, 0);
#endif
}

void *moec_mem_take(uint64_t bytes) {
    void *p = pages(bytes, 0);
#ifdef MADV_HUGEPAGE
    if (p && bytes >= (uint64_t)LARGE)
        (void)madvise(p, (size_t)bytes, MADV_HUGEPAGE); /* a system without them refuses */
#endif
    return p;
}

void moec_mem_protect(void *p, uint64_t bytes) {
    (void)mprotect(p, reserve_size(bytes), PROT_READ);
}

void moec_mem_release(void *p, uint64_t bytes) {
    if (p)
        munmap(p, reserve_size(bytes));
}

void moec_mem_forget(void *p, uint64_t bytes) {
    FORGET(p, bytes);
}
