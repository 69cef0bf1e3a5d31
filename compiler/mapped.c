/* Files that stay mapped, and what happens when one of them is cut, or its disk fails, or it is written to.
 *
 * Weights are mapped because they may be larger than the memory there is: the system drops pages and reads them again. It
 * tells of a page that is gone by SIGBUS, in the middle of whatever reads it, a pass or the interpreter. There is no way
 * back from there: the handler says which file it was, removes what is half done and ends the process as after any file
 * that cannot be read. It does so for addresses of these mappings only. Of a page that is half gone, and of one that is
 * overwritten, nobody tells: mapped_intact compares size and time. */
#include "mapped.h"

#include "undo.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Mapping {
    char *at;
    size_t n;
    char *file;
    struct stat was;
} Mapping;

static Vec(Mapping) mapping;
static struct sigaction otherwise; /* what was done about the signal before */

/* The signal comes in the middle of a read of moec's own, never inside of malloc or of a stream: memory may be taken here. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    for (size_t i = 0; i < mapping.count; i++) {
        const Mapping *m = &mapping.item[i];
        if ((uintptr_t)info->si_addr - (uintptr_t)m->at >= m->n) continue;
        Diag *d = diag_new();
        diag_error(d, DIAG_FILE_READ, m->file, "a part of it cannot be read any more: it was cut while it was mapped");
        diag_flush(d);
        undo_all();
        _exit(1);
    }
    sigaction(number, &otherwise, NULL); /* what failed is tried again, and fails */
}

static void guard(void) {
    struct sigaction a = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, &otherwise);
}

bool mapped_open(int fd, size_t n, const char *file, void **at, Diag *d) {
    Mapping m = {.n = n};
    *at = NULL;
    if (fstat(fd, &m.was) != 0) return diag_error(d, DIAG_FILE_READ, file, "cannot be examined: %s", strerror(errno));
    if ((uint64_t)m.was.st_size != n) return diag_error(d, DIAG_FILE_READ, file, "changed while it was read");
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) return diag_error(d, DIAG_FILE_READ, file, "cannot be mapped: %s", strerror(errno));
    if (mapping.count == 0) guard();
    m.at = *at = p;
    m.file = mem_alloc(strlen(file) + 1);
    memcpy(m.file, file, strlen(file));
    vec_push(&mapping, m);
    return true;
}

void mapped_close(void *at) {
    for (size_t i = mapping.count; at && i-- > 0;) {
        if (mapping.item[i].at != at) continue;
        munmap(at, mapping.item[i].n);
        mem_free(mapping.item[i].file);
        mapping.item[i] = mapping.item[--mapping.count];
        if (mapping.count > 0) return;
        vec_free(&mapping);
        sigaction(SIGBUS, &otherwise, NULL);
        return;
    }
}

/* A name that leads elsewhere now says nothing of the file that is mapped, which stays. */
static bool is_changed(const Mapping *m) {
    struct stat now;
    return stat(m->file, &now) == 0 && now.st_dev == m->was.st_dev && now.st_ino == m->was.st_ino &&
           (now.st_size != m->was.st_size || now.st_mtim.tv_sec != m->was.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != m->was.st_mtim.tv_nsec);
}

bool mapped_intact(Diag *d) {
    bool ok = true;
    for (size_t i = 0; i < mapping.count; i++)
        if (is_changed(&mapping.item[i])) ok = diag_error(d, DIAG_FILE_READ, mapping.item[i].file, "changed while it was read");
    return ok;
}
