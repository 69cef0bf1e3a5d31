/* Makes calls of the system fail, as LD_PRELOAD in front of a program. By hand, the environment says which:
 *
 *   FAULT_KIND    a row of `kinds`
 *   FAULT_AT      which call of the kind, from 0
 *   FAULT_ON      not empty: that one and every later one
 *   FAULT_DIR     files count that lie under it; relative names always do
 *   FAULT_TRACE   the stack at the first failure, on standard error
 *
 * FAULT_SERVER=IN,OUT, two descriptors: the program is started once and forks for each Request that it reads, in the folder `out` of
 * FAULT_DIR, so that neither starting nor the loader is paid again (driver.c).
 *
 * Of a program with one thread a series of allocations can be tried in one run: it forks at each of them, the child has it fail and
 * the parent goes on as if nothing were. The child must leave its parent's files alone: it only notes what it would remove, and
 * ends with FAULT_WHOLE where it would change or read any, which says that this one takes a run of its own.
 *
 * Reading and removing folders works: cleaning up takes it. What a program starts is left alone. Calls that the C library makes for
 * itself are not seen: of streams, the functions that programs call fail. Nothing is synced. glibc's. */
#define _GNU_SOURCE
#include "faults.h"

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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FDS = 4096, SECONDS = 60 };

/* A short call is one that has a part way; its number counts those alone. */
typedef enum Call { CALL_MEMORY, CALL_FILE, CALL_TRANSFER, CALL_READ, CALLS } Call;

static const struct {
    const char *name;
    Call call;
    int error;
} kinds[FAULT_KINDS] = {
    [FAULT_NONE] = {"none", CALLS, 0},
    [FAULT_MEMORY] = {"memory", CALL_MEMORY, ENOMEM}, /* allocations, anonymous mappings, threads and processes that are started */
    [FAULT_EIO] = {"eio", CALL_FILE, EIO},
    [FAULT_ENOSPC] = {"enospc", CALL_FILE, ENOSPC},
    [FAULT_EINTR] = {"eintr", CALL_FILE, EINTR},
    [FAULT_SHORT] = {"short", CALL_TRANSFER, 0}, /* half of what was asked for */
    [FAULT_CUT] = {"cut", CALL_READ, 0}, /* the file is cut to its half right before it is read, or right after it was mapped */
};

static FaultKind kind;
static int64_t at, upto, step; /* upto: behind the last of a series */
static int on, trace, apart; /* apart: the child of a series */
static int in_fd = -1, out_fd = -1;
static const char *dir;
static _Atomic int64_t own_counts[CALLS], *calls = own_counts; /* of a server's children: shared with it */
static atomic_uchar ours[FDS]; /* descriptors of files that count */
static __thread int inside; /* what this file itself calls for */

/* ---- whether a call fails ---- */

static void end_run(int status) {
    inside = 1;
    _exit(status);
}

static void limit_time(void) {
    struct rlimit r = {SECONDS, SECONDS};
    setrlimit(RLIMIT_CPU, &r);
    alarm(SECONDS);
}

/* In the parent, which waits until its child's end has been judged: 0. In the child, whose call n fails: 1. */
static int try_apart(int64_t n) {
    char go;
    inside++;
    if (ftruncate(2, 0) != 0)
        _exit(FAULT_BROKEN);
    pid_t pid = fork();
    if (pid == 0) {
        inside--;
        apart = 1;
        for (int i = 0; i < CALLS; i++)
            atomic_store(&own_counts[i], atomic_load(&calls[i]));
        calls = own_counts;
        at = n;
        kind = FAULT_MEMORY;
        limit_time();
        return 1;
    }
    Report r = {.at = n};
    if (pid < 0 || waitpid(pid, &r.status, 0) != pid || write(out_fd, &r, sizeof r) != sizeof r || read(in_fd, &go, 1) != 1)
        _exit(FAULT_BROKEN);
    inside--;
    return 0;
}

static int fails(Call c) {
    if (inside)
        return 0;
    int64_t n = atomic_fetch_add(&calls[c], 1);
    if (upto && !apart && c == CALL_MEMORY && n >= at && n < upto && (n - at) % step == 0 && try_apart(n))
        n = at;
    else if (kind == FAULT_NONE || kinds[kind].call != c || (n != at && !(on && n > at)))
        return 0;
    if (trace && n == at) {
        void *frame[24];
        inside++;
        backtrace_symbols_fd(frame, backtrace(frame, 24), 2);
        inside--;
    }
    errno = kinds[kind].error;
    return 1;
}

static int memory_fails(void) {
    return fails(CALL_MEMORY);
}

/* Of calls that have no part way. */
static int file_fails(int is_ours) {
    return is_ours && fails(CALL_FILE);
}

/* Of calls that change or read what a parent has. */
static int change_fails(int is_ours) {
    if (is_ours && apart && !inside)
        end_run(FAULT_WHOLE);
    return file_fails(is_ours);
}

/* 0: none of it; else the bytes to do of n. */
static size_t part(size_t n) {
    if (change_fails(1))
        return 0;
    return fails(CALL_TRANSFER) && n > 1 ? n / 2 : n;
}

static int is_ours(int fd) {
    return fd >= 0 && fd < FDS && atomic_load(&ours[fd]);
}

/* A file that is read, or was mapped: somebody else cuts it. */
static void cut(int fd) {
    char name[64];
    struct stat s;
    if (inside || !is_ours(fd) || atomic_fetch_add(&calls[CALL_READ], 1) != at || kind != FAULT_CUT)
        return;
    inside = 1;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    if (stat(name, &s) != 0 || truncate(name, s.st_size / 2) != 0)
        _exit(FAULT_BROKEN);
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

#ifndef FAULT_FILES_ALONE /* a sanitizer has these */
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
#endif

void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t offset) {
    if (fd < 0 ? memory_fails() : file_fails(is_ours(fd)))
        return MAP_FAILED;
    void *p = (void *)syscall(SYS_mmap, where, n, protection, flags, fd, offset);
    cut(fd);
    return p;
}

int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*start)(void *), void *arg) {
    NEXT(pthread_create)
    if (apart)
        end_run(FAULT_WHOLE);
    return memory_fails() ? EAGAIN : next(t, a, start, arg);
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *acts, const posix_spawnattr_t *attr,
                 char *const argv[], char *const envp[]) {
    NEXT(posix_spawnp)
    if (apart)
        end_run(FAULT_WHOLE);
    return memory_fails() ? ENOMEM : next(pid, file, acts, attr, argv, envp);
}

/* ---- files ---- */

static int open_flags(int flags) {
    return flags & (O_CREAT | O_TMPFILE);
}

static int open_fails(int is, int flags) {
    if ((flags & O_DIRECTORY) && (flags & O_NOFOLLOW))
        return 0; /* a folder, to be removed */
    return (flags & (O_ACCMODE | O_CREAT)) ? change_fails(is) : file_fails(is);
}

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        NEXT(name)                                                                                           \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode_t mode = open_flags(flags) ? va_arg(args, mode_t) : 0;                                          \
        va_end(args);                                                                                        \
        int is = path_is_ours(AT_FDCWD, path);                                                               \
        return open_fails(is, flags) ? -1 : take(next(path, flags, mode), is);                               \
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
        return open_fails(is, flags) ? -1 : take(next(folder, path, flags, mode), is);                       \
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
    return change_fails(is) ? -1 : take(next(name, flags), is);
}

char *mkdtemp(char *name) {
    NEXT(mkdtemp)
    return change_fails(path_is_ours(AT_FDCWD, name)) ? NULL : next(name);
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

int fsync(int fd) {
    return file_fails(is_ours(fd)) ? -1 : 0;
}

int fdatasync(int fd) {
    return fsync(fd);
}

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
    return change_fails(is_ours(fd)) ? -1 : next(fd, n);
}

int fstat(int fd, struct stat *s) {
    NEXT(fstat)
    return file_fails(is_ours(fd)) ? -1 : next(fd, s);
}

int fchmod(int fd, mode_t mode) {
    NEXT(fchmod)
    return change_fails(is_ours(fd)) ? -1 : next(fd, mode);
}

int rename(const char *from, const char *to) {
    NEXT(rename)
    return change_fails(path_is_ours(AT_FDCWD, to)) ? -1 : next(from, to);
}

int link(const char *from, const char *to) {
    NEXT(link)
    return change_fails(path_is_ours(AT_FDCWD, to)) ? -1 : next(from, to);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir)
    return change_fails(path_is_ours(AT_FDCWD, path)) ? -1 : next(path, mode);
}

FILE *fopen(const char *path, const char *mode) {
    NEXT(fopen)
    int is = path_is_ours(AT_FDCWD, path);
    if (mode[0] == 'r' && mode[1] != '+' ? file_fails(is) : change_fails(is))
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

/* ---- removing, which works ---- */

/* In the child of a series: noted, once. */
static int note_removal(int folder, const char *name) {
    static char seen[1 << 17]; /* lines; the first is empty */
    static size_t n = 1;
    char line[4096] = "";
    size_t k = 0;
    inside++;
    if (name[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t got = readlink(link, line, sizeof line - 2);
        k = got > 0 ? (size_t)got : 0;
        line[k++] = '/';
    }
    snprintf(line + k, sizeof line - k - 1, "%s\n", name[0] == '.' && name[1] == '/' ? name + 2 : name);
    seen[0] = '\n';
    char *was = strstr(seen, line);
    k = strlen(line);
    int fresh = !was || was[-1] != '\n';
    if (fresh && n + k < sizeof seen) {
        static int fd = -1;
        if (fd < 0) {
            char list[4096];
            snprintf(list, sizeof list, "%s/removed", dir);
            fd = open(list, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
        }
        memcpy(seen + n, line, k + 1);
        n += k;
        fresh = write(fd, line, k) == (ssize_t)k;
    }
    inside--;
    errno = ENOENT;
    return fresh ? 0 : -1;
}

int unlink(const char *path) {
    NEXT(unlink)
    return apart ? note_removal(AT_FDCWD, path) : next(path);
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat)
    return apart ? note_removal(folder, path) : next(folder, path, flags);
}

int rmdir(const char *path) {
    NEXT(rmdir)
    return apart ? note_removal(AT_FDCWD, path) : next(path);
}

/* ---- as LD_PRELOAD ---- */

static void start_run(const Request *r) {
    char out[4096];
    kind = r->kind;
    at = r->at;
    upto = r->upto;
    step = r->step;
    on = r->on;
    if (upto)
        kind = FAULT_NONE;
    else
        limit_time();
    snprintf(out, sizeof out, "%s/out", dir);
    if (chdir(out) != 0)
        _exit(FAULT_BROKEN);
    for (int i = 0; i < CALLS; i++)
        atomic_store(&calls[i], 0);
}

/* Returns in the children, which are the runs; what they count is seen here. */
static void serve(void) {
    _Atomic int64_t *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Request r;
    if (seen == MAP_FAILED)
        _exit(FAULT_BROKEN);
    calls = seen;
    while (read(in_fd, &r, sizeof r) == sizeof r) {
        pid_t pid = fork();
        if (pid == 0) {
            start_run(&r);
            return;
        }
        Report report = {.at = -1};
        if (pid < 0 || waitpid(pid, &report.status, 0) != pid)
            _exit(FAULT_BROKEN);
        for (int i = 0; i < CALLS; i++)
            report.calls[i] = atomic_load(&seen[i]);
        if (write(out_fd, &report, sizeof report) != sizeof report)
            _exit(FAULT_BROKEN);
    }
    _exit(0);
}

static void begin_by_hand(void) {
    const char *k = getenv("FAULT_KIND"), *n = getenv("FAULT_AT");
    for (int i = 0; k && i < FAULT_KINDS; i++)
        if (!strcmp(k, kinds[i].name))
            kind = (FaultKind)i;
    at = n ? atol(n) : 0;
    on = getenv("FAULT_ON") && *getenv("FAULT_ON");
    trace = getenv("FAULT_TRACE") != NULL;
    for (int i = 0; i < CALLS; i++)
        atomic_store(&calls[i], 0);
}

__attribute__((constructor)) static void begin(void) {
    const char *server = getenv("FAULT_SERVER");
    dir = getenv("FAULT_DIR");
    inside = 1;
    if (server || getenv("FAULT_KIND"))
        unsetenv("LD_PRELOAD");
    if (server && sscanf(server, "%d,%d", &in_fd, &out_fd) == 2) {
        unsetenv("FAULT_SERVER");
        fcntl(in_fd, F_SETFD, FD_CLOEXEC);
        fcntl(out_fd, F_SETFD, FD_CLOEXEC);
        serve();
    } else {
        begin_by_hand();
    }
    inside = 0;
}
