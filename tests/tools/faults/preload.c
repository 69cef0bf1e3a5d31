/* Makes calls of the system fail, as LD_PRELOAD in front of a program. The environment says which:
 *
 *   FAULT_KIND    memory: allocations, anonymous mappings, threads and processes that are started;
 *                 eio, enospc, eintr: calls on files; short: reads and writes, half of what was asked for;
 *                 cut: the file is cut to its half right before it is read, or right after it was mapped
 *   FAULT_AT      which call of the kind, from 0
 *   FAULT_ON      not empty: that one and every later one
 *   FAULT_DIR     files count that lie under it; relative names always do
 *   FAULT_COUNT   a file that gets the numbers of calls when the program ends: of memory, of files, of these that read
 *   FAULT_TRACE   the stack at the first failure, on standard error
 *
 * Reading folders works: cleaning up takes it. What a program starts is left alone. Calls that the C library makes for itself are
 * not seen: of streams, the functions that programs call fail. glibc's. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef enum FaultKind { FAULT_NONE, FAULT_MEMORY, FAULT_EIO, FAULT_ENOSPC, FAULT_EINTR, FAULT_SHORT, FAULT_CUT, FAULT_KINDS } FaultKind;

enum { FDS = 4096 };

static const char *const kinds[FAULT_KINDS] = {"none", "memory", "eio", "enospc", "eintr", "short", "cut"};
static FaultKind kind;
static long at;
static int on, trace;
static const char *dir, *count_file;
static atomic_long calls[3]; /* of memory, of files, of these that read */
static atomic_uchar ours[FDS]; /* descriptors of files that count */
static __thread int inside; /* what this file itself calls for */

/* ---- whether a call fails ---- */

static int fails(int is_file, int can_be_short) {
    if (inside)
        return 0;
    long n = atomic_fetch_add(&calls[is_file], 1);
    if (kind == FAULT_NONE || kind == FAULT_CUT || (kind != FAULT_MEMORY) != is_file || (n != at && !(on && n > at)) || (kind == FAULT_SHORT && !can_be_short))
        return 0;
    if (trace && n == at) {
        void *frame[24];
        inside = 1;
        backtrace_symbols_fd(frame, backtrace(frame, 24), 2);
        inside = 0;
    }
    errno = kind == FAULT_EIO ? EIO : kind == FAULT_ENOSPC ? ENOSPC : kind == FAULT_EINTR ? EINTR : ENOMEM;
    return 1;
}

static int memory_fails(void) {
    return fails(0, 0);
}

/* Of calls that have no part way. */
static int file_fails(int is_ours) {
    return is_ours && fails(1, 0);
}

/* 0: none of it; else the bytes to do of n. */
static size_t part(size_t n) {
    if (!fails(1, 1))
        return n;
    return kind == FAULT_SHORT ? (n > 1 ? n / 2 : n) : 0;
}

static int is_ours(int fd) {
    return fd >= 0 && fd < FDS && atomic_load(&ours[fd]);
}

/* A file that is read, or was mapped: somebody else cuts it. */
static void cut(int fd) {
    char name[64];
    struct stat s;
    if (inside || !is_ours(fd) || atomic_fetch_add(&calls[2], 1) != at || kind != FAULT_CUT)
        return;
    inside = 1;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (stat(name, &s) != 0 || truncate(name, s.st_size / 2) != 0)
        _exit(98);
    inside = 0;
}

static int path_is_ours(int folder, const char *path) {
    if (path[0] != '/')
        return folder == AT_FDCWD || is_ours(folder);
    return dir && !strncmp(path, dir, strlen(dir));
}

static int take(int fd, int is) {
    if (fd >= 0 && fd < FDS)
        atomic_store(&ours[fd], (unsigned char)is);
    return fd;
}

/* The function of the same name that this one stands in front of. */
#define NEXT(name)                                                                                           \
    static __typeof__(&name) next;                                                                           \
    if (!next) {                                                                                             \
        inside++;                                                                                            \
        void *p = dlsym(RTLD_NEXT, #name);                                                                   \
        memcpy(&next, &p, sizeof p);                                                                         \
        inside--;                                                                                            \
    }

/* ---- memory ---- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n) {
    return memory_fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    return memory_fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    return memory_fails() ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n) {
    return memory_fails() ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n) {
    if (memory_fails())
        return ENOMEM;
    *out = __libc_memalign(align, n);
    return *out ? 0 : ENOMEM;
}

void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 ? memory_fails() : is_ours(fd) && fails(1, 0))
        return MAP_FAILED;
    void *p = (void *)syscall(SYS_mmap, where, n, protection, flags, fd, offset);
    cut(fd);
    return p;
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*start)(void *), void *arg) {
    NEXT(pthread_create)
    return memory_fails() ? EAGAIN : next(t, a, start, arg);
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *acts, const posix_spawnattr_t *attr,
                 char *const argv[], char *const envp[]) {
    NEXT(posix_spawnp)
    return memory_fails() ? ENOMEM : next(pid, file, acts, attr, argv, envp);
}

/* ---- files ---- */

static int open_flags(int flags) {
    return flags & (O_CREAT | O_TMPFILE);
}

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        NEXT(name)                                                                                           \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode_t mode = open_flags(flags) ? va_arg(args, mode_t) : 0;                                          \
        va_end(args);                                                                                        \
        int is = path_is_ours(AT_FDCWD, path);                                                               \
        return file_fails(is) ? -1 : take(next(path, flags, mode), is);                                      \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                         \
    int name(int folder, const char *path, int flags, ...) {                                                 \
        NEXT(name)                                                                                           \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode_t mode = open_flags(flags) ? va_arg(args, mode_t) : 0;                                          \
        va_end(args);                                                                                        \
        int is = path_is_ours(folder, path);                                                                 \
        return file_fails(is) ? -1 : take(next(folder, path, flags, mode), is);                              \
    }
OPENAT(openat)
OPENAT(openat64)

/* openat2 has no function of its own. */
long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next) {
        inside++;
        void *p = dlsym(RTLD_NEXT, "syscall");
        memcpy(&next, &p, sizeof p);
        inside--;
    }
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(args, long);
    va_end(args);
    if (number != SYS_openat2)
        return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    int is = is_ours((int)a[0]);
    return file_fails(is) ? -1 : take((int)next(number, a[0], a[1], a[2], a[3], a[4], a[5]), is);
}

int mkostemp(char *name, int flags) {
    NEXT(mkostemp)
    int is = path_is_ours(AT_FDCWD, name);
    return file_fails(is) ? -1 : take(next(name, flags), is);
}

char *mkdtemp(char *name) {
    NEXT(mkdtemp)
    return file_fails(path_is_ours(AT_FDCWD, name)) ? NULL : next(name);
}

#define TRANSFER(name, before, buffer, parameters, ...)                                                      \
    ssize_t name(int fd, buffer p, size_t n parameters) {                                                    \
        NEXT(name)                                                                                           \
        before                                                                                               \
        size_t m = is_ours(fd) ? part(n) : n;                                                                \
        return n > 0 && m == 0 ? -1 : next(fd, p, m __VA_ARGS__);                                            \
    }
#define COMMA ,
TRANSFER(read, cut(fd);, void *, )
TRANSFER(write, , const void *, )
TRANSFER(pread, cut(fd);, void *, COMMA off_t offset, , offset)
TRANSFER(pread64, cut(fd);, void *, COMMA off64_t offset, , offset)
TRANSFER(pwrite, , const void *, COMMA off_t offset, , offset)
TRANSFER(pwrite64, , const void *, COMMA off64_t offset, , offset)

#define ON_FD(name)                                                                                          \
    int name(int fd) {                                                                                       \
        NEXT(name)                                                                                           \
        return file_fails(is_ours(fd)) ? -1 : next(fd);                                                      \
    }
ON_FD(fsync)
ON_FD(fdatasync)

/* A descriptor is gone however close ends. */
int close(int fd) {
    NEXT(close)
    int bad = file_fails(is_ours(fd)), e = errno;
    take(fd, 0);
    if (!bad)
        return next(fd);
    next(fd);
    errno = e;
    return -1;
}

int ftruncate(int fd, off_t n) {
    NEXT(ftruncate)
    return file_fails(is_ours(fd)) ? -1 : next(fd, n);
}

int fstat(int fd, struct stat *s) {
    NEXT(fstat)
    return file_fails(is_ours(fd)) ? -1 : next(fd, s);
}

int fchmod(int fd, mode_t mode) {
    NEXT(fchmod)
    return file_fails(is_ours(fd)) ? -1 : next(fd, mode);
}

int rename(const char *from, const char *to) {
    NEXT(rename)
    return file_fails(path_is_ours(AT_FDCWD, to)) ? -1 : next(from, to);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir)
    return file_fails(path_is_ours(AT_FDCWD, path)) ? -1 : next(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
    NEXT(fopen)
    int is = path_is_ours(AT_FDCWD, path);
    if (file_fails(is))
        return NULL;
    FILE *f = next(path, mode);
    if (f)
        take(fileno(f), is);
    return f;
}

size_t fread(void *p, size_t size, size_t n, FILE *f) {
    NEXT(fread)
    cut(fileno(f));
    size_t m = is_ours(fileno(f)) ? part(n) : n;
    return n > 0 && m == 0 ? 0 : next(p, size, m, f);
}

int fclose(FILE *f) {
    NEXT(fclose)
    int bad = file_fails(is_ours(fileno(f)));
    take(fileno(f), 0);
    return next(f) || bad ? EOF : 0;
}

/* ---- as LD_PRELOAD ---- */

__attribute__((constructor)) static void begin(void) {
    const char *k = getenv("FAULT_KIND"), *n = getenv("FAULT_AT");
    for (int i = 0; k && i < FAULT_KINDS; i++)
        if (!strcmp(k, kinds[i]))
            kind = (FaultKind)i;
    at = n ? atol(n) : 0;
    on = getenv("FAULT_ON") && *getenv("FAULT_ON");
    trace = getenv("FAULT_TRACE") != NULL;
    dir = getenv("FAULT_DIR");
    count_file = getenv("FAULT_COUNT");
    if (k || count_file)
        unsetenv("LD_PRELOAD");
    atomic_store(&calls[0], 0);
    atomic_store(&calls[1], 0);
    atomic_store(&calls[2], 0);
}

__attribute__((destructor)) static void end(void) {
    char text[64];
    if (!count_file)
        return;
    inside = 1;
    int n = snprintf(text, sizeof text, "%ld %ld %ld\n", atomic_load(&calls[0]), atomic_load(&calls[1]), atomic_load(&calls[2]));
    int fd = open(count_file, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd >= 0 && write(fd, text, (size_t)n) != n)
        _exit(99);
}
