/* Files: opened without trusting what lies under the name, read with pread or mapped, written under a temporary name.
 */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

/* open, again as long as a signal comes in between. */
static int open_again(const char *path, int flags) {
    int fd;
    do
        fd = open(path, flags, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

moec_status moec_file_open(const char *path, uint64_t limit, int *fd, uint64_t *size, moec_sink sink) {
    *fd = -1;
    /* A FIFO or a device must neither hang nor be read: decide on the descriptor. */
    int f = open_again(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (f < 0)
        return moec_fail(sink, MOEC_E_OPEN, path, "cannot be opened: %s", strerror(errno));
    struct stat st;
    moec_status s = MOEC_OK;
    if (fstat(f, &st) < 0)
        s = moec_fail(sink, MOEC_E_IO, path, "cannot be examined: %s", strerror(errno));
    else if (!S_ISREG(st.st_mode))
        s = moec_fail(sink, MOEC_E_OPEN, path, "is not a regular file");
    else if ((uint64_t)st.st_size > limit)
        s = moec_fail(sink, MOEC_E_FORMAT, path, "has %lld bytes, more than the %llu allowed",
                      (long long)st.st_size, (unsigned long long)limit);
    if (s) {
        close(f);
        return s;
    }
    *fd = f;
    *size = (uint64_t)st.st_size;
    return MOEC_OK;
}

void moec_file_close(int fd) {
    if (fd >= 0)
        close(fd);
}

moec_status moec_file_read(int fd, const char *path, uint64_t offset, void *to, uint64_t n, moec_sink sink) {
    unsigned char *p = to;
    while (n > 0) {
        size_t want = n < (1u << 30) ? (size_t)n : (size_t)1 << 30;
        ssize_t got = pread(fd, p, want, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return moec_fail(sink, MOEC_E_IO, path, "cannot be read: %s", strerror(errno));
        if (got == 0)
            return moec_fail(sink, MOEC_E_IO, path, "became shorter while it was read");
        p += got;
        offset += (uint64_t)got;
        n -= (uint64_t)got;
    }
    return MOEC_OK;
}

moec_status moec_file_map(int fd, const char *path, uint64_t n, unsigned char **at, moec_sink sink) {
    struct stat st;
    void *p = mmap(NULL, (size_t)n, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return moec_fail(sink, MOEC_E_MEMORY, path, "cannot be mapped: %s", strerror(errno));
    *at = p;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size >= n)
        return MOEC_OK;
    moec_file_unmap(p, n);
    return moec_fail(sink, MOEC_E_IO, path, "became shorter while it was mapped");
}

void moec_file_unmap(unsigned char *at, uint64_t n) {
    munmap(at, (size_t)n);
}

moec_status moec_file_load(const char *path, uint64_t limit, unsigned char **bytes, size_t *size,
                           moec_sink sink) {
    int fd;
    uint64_t n = 0;
    *bytes = NULL;
    moec_status s = moec_file_open(path, limit, &fd, &n, sink);
    if (s)
        return s;
    unsigned char *p = n < SIZE_MAX ? moec_mem_new((size_t)n + 1, 1) : NULL;
    if (!p)
        s = moec_fail(sink, MOEC_E_MEMORY, path, "out of memory");
    else
        s = moec_file_read(fd, path, 0, p, n, sink);
    moec_file_close(fd);
    if (s) {
        moec_mem_free(p);
        return s;
    }
    *bytes = p;
    *size = (size_t)n;
    return MOEC_OK;
}

uint64_t moec_fnv(uint64_t hash, const void *p, size_t n) {
    const unsigned char *at = p;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}

/* ---- output ---- */

static char *copy_string(const char *s, size_t n) {
    char *p = moec_mem_new(n + 1, 1);
    if (p)
        memcpy(p, s, n);
    return p;
}

/* 0, or what is wrong. What a file system cannot sync (EINVAL, EROFS) it has not kept back either. */
static int sync_error(int fd) {
    int bad;
    do
        bad = fsync(fd) < 0;
    while (bad && errno == EINTR);
    return bad && errno != EINVAL && errno != EROFS ? errno : 0;
}

/* A folder one may write but not read cannot be synced. */
static int folder_error(const char *path) {
    int fd = open_again(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int e = fd < 0 ? errno : sync_error(fd);
    if (fd >= 0)
        close(fd);
    return e == EACCES ? 0 : e;
}

moec_status moec_folder_sync(const char *path, moec_sink sink) {
    int e = folder_error(path);
    return e ? moec_fail(sink, MOEC_E_IO, path, "cannot be synced: %s", strerror(e)) : MOEC_OK;
}

/* Of the folder that a file is in, whose path is cut. */
static int parent_error(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash)
        return folder_error(".");
    slash[slash == path] = 0;
    return folder_error(path);
}

static void output_forget(moec_output *f) {
    moec_mem_free(f->path);
    moec_mem_free(f->temporary);
    moec_mem_free(f->aside);
    f->path = f->temporary = f->aside = NULL;
    f->fd = -1;
}

/* Pipes and devices as /dev/null are written to, not replaced. */
static int is_stream(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode));
}

static moec_status open_stream(const char *path, moec_output *f, moec_sink sink) {
    f->path = copy_string(path, strlen(path));
    f->fd = f->path ? open_again(path, O_WRONLY | O_CLOEXEC) : -1;
    if (f->fd >= 0)
        return MOEC_OK;
    int e = errno, none = !f->path;
    output_forget(f);
    return none ? moec_fail(sink, MOEC_E_MEMORY, path, "out of memory")
                : moec_fail(sink, MOEC_E_IO, path, "cannot be written: %s", strerror(e));
}

moec_status moec_output_open(const char *path, moec_output *f, moec_sink sink) {
    size_t n = strlen(path);
    *f = (moec_output){.fd = -1, .hash = MOEC_FNV_START};
    if (is_stream(path))
        return open_stream(path, f, sink);
    f->path = copy_string(path, n);
    f->temporary = moec_mem_new(n + 64, 1);
    f->aside = moec_mem_new(n + 64, 1);
    if (!f->path || !f->temporary || !f->aside) {
        output_forget(f);
        return moec_fail(sink, MOEC_E_MEMORY, path, "out of memory");
    }
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    for (int attempt = 0; attempt < 100; attempt++) {
        memcpy(f->temporary, path, folder);
        memcpy(f->aside, path, folder);
        snprintf(f->temporary + folder, 64, ".moec-%ld-%d.tmp", (long)getpid(), 2 * attempt);
        snprintf(f->aside + folder, 64, ".moec-%ld-%d.tmp", (long)getpid(), 2 * attempt + 1);
        f->fd = open_again(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC);
        if (f->fd >= 0 || errno != EEXIST)
            break;
    }
    if (f->fd >= 0)
        return MOEC_OK;
    int e = errno;
    output_forget(f);
    return moec_fail(sink, MOEC_E_IO, path, "cannot be written: %s", strerror(e));
}

moec_status moec_output_append(const char *path, moec_output *f, moec_sink sink) {
    struct stat st;
    *f = (moec_output){.fd = -1, .hash = MOEC_FNV_START};
    if (!(f->path = copy_string(path, strlen(path))))
        return moec_fail(sink, MOEC_E_MEMORY, path, "out of memory");
    f->fd = open_again(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (f->fd >= 0 && fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode))
        return MOEC_OK;
    int e = errno;
    moec_status s = f->fd < 0 ? moec_fail(sink, MOEC_E_IO, path, "cannot be written: %s", strerror(e))
                              : moec_fail(sink, MOEC_E_IO, path, "is not a regular file");
    moec_output_abandon(f);
    return s;
}

moec_status moec_output_sync(moec_output *f, moec_sink sink) {
    int e = sync_error(f->fd);
    return e ? moec_fail(sink, MOEC_E_IO, f->path, "cannot be synced: %s", strerror(e)) : MOEC_OK;
}

moec_status moec_output_write(moec_output *f, const void *p, uint64_t n, moec_sink sink) {
    const unsigned char *at = p;
    while (n > 0) {
        ssize_t put = write(f->fd, at, n < (1u << 30) ? (size_t)n : (size_t)1 << 30);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return moec_fail(sink, MOEC_E_IO, f->path, "cannot be written: %s", strerror(errno));
        f->hash = moec_fnv(f->hash, at, (size_t)put);
        f->bytes += (uint64_t)put;
        at += put;
        n -= (uint64_t)put;
    }
    return MOEC_OK;
}

/* What was there has a second name until the folder is synced, where the file system has links. */
static moec_status put_in_place(moec_output *f, moec_sink sink) {
    int kept = link(f->path, f->aside) == 0, none = !kept && errno == ENOENT;
    int e = rename(f->temporary, f->path) < 0 ? errno : 0, placed = !e;
    if (!placed) {
        unlink(f->temporary);
    } else {
        memcpy(f->temporary, f->path, strlen(f->path) + 1); /* the name is free, and has room */
        e = parent_error(f->temporary);
    }
    if (e && placed && none)
        unlink(f->path);
    if (e && placed && kept && rename(f->aside, f->path) < 0)
        return moec_fail(sink, MOEC_E_IO, f->path, "cannot be synced: %s; what was there could not be put back: it is '%s'", strerror(e),
                         f->aside);
    if (kept && !(e && placed))
        unlink(f->aside);
    return e ? moec_fail(sink, MOEC_E_IO, f->path, "cannot be %s: %s", placed ? "synced" : "written", strerror(e)) : MOEC_OK;
}

moec_status moec_output_commit(moec_output *f, moec_sink sink) {
    int stream = !f->temporary, e = stream ? 0 : sync_error(f->fd);
    if (close(f->fd) < 0 && !e && errno != EINTR) /* it is closed even then */
        e = errno;
    f->fd = -1;
    moec_status s = MOEC_OK;
    if (e)
        s = moec_fail(sink, MOEC_E_IO, f->path, "cannot be written: %s", strerror(e));
    if (e && !stream)
        unlink(f->temporary);
    else if (!stream)
        s = put_in_place(f, sink);
    output_forget(f);
    return s;
}

void moec_output_abandon(moec_output *f) {
    if (f->fd >= 0)
        close(f->fd);
    if (f->temporary)
        unlink(f->temporary);
    output_forget(f);
}
