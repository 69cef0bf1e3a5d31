/* The names in a run's folder: which are checkpoints, which are left over from runs that died.
 *
 * A checkpoint that is replaced by one of the same step steps aside first (.old) and comes back if its
 * successor never appeared. Names count only in the exact form written here: no leading zeros, no sign. */
#define _POSIX_C_SOURCE 200809L

#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

typedef enum Kind { KIND_CHECKPOINT, KIND_HALF, KIND_ASIDE, KIND_FILE, KIND_OTHER } Kind;

/* # is a number. */
static const char *const patterns[KIND_OTHER] = {
    [KIND_CHECKPOINT] = "checkpoint-#",
    [KIND_HALF] = ".checkpoint-#.#.tmp",
    [KIND_ASIDE] = ".checkpoint-#.#.old",
    [KIND_FILE] = ".moec-#-#.tmp", /* moec_output_open's */
};

/* Reads a decimal number as "%lld" writes it, at least 0. */
static int read_number(const char **s, int64_t *out) {
    const char *p = *s;
    int64_t v = 0;
    if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
        return 0;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v > (INT64_MAX - (*p - '0')) / 10)
            return 0;
        v = v * 10 + (*p - '0');
    }
    *s = p;
    *out = v;
    return 1;
}

static int matches(const char *pattern, const char *name, int64_t number[2]) {
    int k = 0;
    for (; *pattern; pattern++) {
        if (*pattern == '#') {
            if (!read_number(&name, &number[k++]))
                return 0;
        } else if (*name++ != *pattern) {
            return 0;
        }
    }
    return !*name;
}

static Kind kind_of(const char *name, int64_t number[2]) {
    int k = 0;
    while (k < KIND_OTHER && !matches(patterns[k], name, number))
        k++;
    return (Kind)k;
}

/* Of this process' own number: left by one that had it before. */
static int is_dead(int64_t pid) {
    if (pid < 1 || pid > INT32_MAX || pid == (int64_t)getpid())
        return 1;
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

char *moec_path_new(const char *folder, const char *fmt, ...) {
    char name[128];
    moec_chars c = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    moec_chars_put(&c, "%s/%s", folder, name);
    if (c.failed) {
        moec_mem_free(c.p);
        return NULL;
    }
    return c.p;
}

moec_status moec_run_folder_make(const char *folder, moec_sink sink) {
    struct stat st;
    if (mkdir(folder, 0777) == 0) {
        char *parent = moec_path_new(folder, "..");
        moec_status s =
            parent ? moec_folder_sync(parent, sink) : moec_fail(sink, MOEC_E_MEMORY, folder, "out of memory");
        moec_mem_free(parent);
        return s;
    }
    int e = errno;
    if (e == EEXIST && stat(folder, &st) == 0 && S_ISDIR(st.st_mode))
        return MOEC_OK;
    return moec_fail(sink, MOEC_E_IO, folder, "cannot be made: %s",
                     e == EEXIST ? "it is no folder" : strerror(e));
}

moec_status moec_run_folder_lock(const char *folder, int *lock, moec_sink sink) {
    *lock = -1;
    moec_status s = moec_run_folder_make(folder, sink);
    if (s)
        return s;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return moec_fail(sink, MOEC_E_IO, folder, "cannot be opened: %s", strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *lock = fd;
        return MOEC_OK;
    }
    int taken = errno == EWOULDBLOCK; /* else a file system without locks: a run goes on without */
    close(fd);
    return taken ? moec_fail(sink, MOEC_E_IO, folder,
                             "another run is at work here: wait for its end, or give another folder")
                 : MOEC_OK;
}

static int larger_first(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static int list_add(moec_step_list *l, int64_t step) {
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 16;
        int64_t *p = moec_mem_grow(l->step, room * sizeof *p);
        if (!p)
            return 0;
        l->step = p;
        l->room = room;
    }
    l->step[l->n++] = step;
    return 1;
}

moec_status moec_run_folder_list(const char *folder, moec_step_list *out, moec_sink sink) {
    *out = (moec_step_list){0};
    DIR *d = opendir(folder);
    if (!d && errno == ENOENT)
        return MOEC_OK;
    if (!d)
        return moec_fail(sink, MOEC_E_OPEN, folder, "cannot be opened: %s", strerror(errno));
    moec_status s = MOEC_OK;
    struct dirent *e;
    int64_t number[2];
    while (!s && (errno = 0, e = readdir(d)))
        if (kind_of(e->d_name, number) == KIND_CHECKPOINT && !list_add(out, number[0]))
            s = moec_fail(sink, MOEC_E_MEMORY, folder, "out of memory");
    if (!s && errno)
        s = moec_fail(sink, MOEC_E_IO, folder, "cannot be read: %s", strerror(errno));
    closedir(d);
    if (out->n)
        qsort(out->step, out->n, sizeof *out->step, larger_first);
    return s;
}

void moec_folder_remove(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d) {
        struct dirent *e;
        while ((e = readdir(d)))
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
                unlinkat(fd, e->d_name, 0);
        closedir(d);
    } else if (fd >= 0) { /* no memory to read it: what belongs into a checkpoint */
        for (int k = 0; k < MOEC_PARTS; k++)
            unlinkat(fd, moec_part_names[k], 0);
        unlinkat(fd, moec_state_name, 0);
        close(fd);
    }
    rmdir(path);
}

void moec_run_folder_drop(const char *folder, int64_t step) {
    char *path = moec_path_new(folder, "checkpoint-%lld", (long long)step);
    char *half = moec_path_new(folder, ".checkpoint-%lld.%ld.tmp", (long long)step, (long)getpid());
    if (path && half) {
        moec_folder_remove(half);
        if (rename(path, half) == 0)
            moec_folder_remove(half);
    }
    moec_mem_free(path);
    moec_mem_free(half);
}

static void put_back(const char *folder, const char *path, int64_t step) {
    char *home = moec_path_new(folder, "checkpoint-%lld", (long long)step);
    struct stat st;
    if (home && lstat(home, &st) < 0 && errno == ENOENT)
        rename(path, home);
    else if (home)
        moec_folder_remove(path);
    moec_mem_free(home);
}

static void clean_entry(const char *folder, const char *name) {
    int64_t number[2];
    Kind k = kind_of(name, number);
    char *path =
        k == KIND_HALF || k == KIND_ASIDE || k == KIND_FILE ? moec_path_new(folder, "%s", name) : NULL;
    if (!path)
        return;
    if (k == KIND_ASIDE)
        put_back(folder, path, number[0]);
    else if (k == KIND_HALF && is_dead(number[1]))
        moec_folder_remove(path);
    else if (k == KIND_FILE && is_dead(number[0]))
        unlink(path);
    moec_mem_free(path);
}

void moec_run_folder_clean(const char *folder) {
    DIR *d = opendir(folder);
    struct dirent *e;
    while (d && (e = readdir(d)))
        clean_entry(folder, e->d_name);
    if (d)
        closedir(d);
}
