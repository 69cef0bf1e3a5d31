/* Files are opened first and judged by their descriptor: a name may be a FIFO, a device, a directory or
 * a link to any of them. Names that stand inside files cannot leave their directory. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int file_judge(int fd, int64_t *size, const char *file, const char *what, Diag *d) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        diag_error(d, DIAG_FILE_READ, file, "%scannot be examined: %s", what, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        diag_error(d, DIAG_FILE_KIND, file, "%sis a directory, not a file", what);
    else if (!S_ISREG(st.st_mode))
        diag_error(d, DIAG_FILE_KIND, file, "%sis not a regular file", what);
    else {
        *size = (int64_t)st.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

int file_open(const char *path, int64_t *size, Diag *d) {
    mem_doing("file", path);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        diag_error(d, DIAG_FILE_READ, path, "cannot be opened: %s", strerror(errno));
        return -1;
    }
    return file_judge(fd, size, path, "", d);
}

static bool location_good(Str s) {
    if (s.n == 0 || s.n > 4096 || s.p[0] == '/' || memchr(s.p, 0, s.n) != NULL ||
        memchr(s.p, '\\', s.n) != NULL)
        return false;
    for (size_t i = 0, begin = 0; i <= s.n; i++) {
        if (i < s.n && s.p[i] != '/')
            continue;
        size_t len = i - begin;
        if (len == 0 || (len == 1 && s.p[begin] == '.') || (len == 2 && memcmp(s.p + begin, "..", 2) == 0))
            return false;
        begin = i + 1;
    }
    return true;
}

int file_open_beneath(const char *dir, Str location, int64_t *size, const char *file, const char *what,
                      Diag *d) {
    if (!location_good(location)) {
        diag_error(d, DIAG_FILE_ESCAPES, file,
                   "%s'%s': must be a plain relative path below the file's directory", what,
                   diag_show(d, location));
        return -1;
    }
    char part[4097];
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t begin = 0; at >= 0 && begin <= location.n;) {
        const char *slash = memchr(location.p + begin, '/', location.n - begin);
        size_t len = slash != NULL ? (size_t)(slash - location.p) - begin : location.n - begin;
        memcpy(part, location.p + begin, len);
        part[len] = 0;
        int next = openat(at, part,
                          O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY |
                              (slash != NULL ? O_DIRECTORY : 0));
        int error = errno;
        close(at);
        errno = error;
        at = next;
        begin += len + 1;
    }
    const char *shown = diag_show(d, location);
    if (at < 0) {
        diag_error(d, errno == ELOOP ? DIAG_FILE_ESCAPES : DIAG_FILE_READ, file, "%s'%s': %s", what, shown,
                   errno == ELOOP ? "symbolic links are not followed" : strerror(errno));
        return -1;
    }
    Text t = {0};
    text_printf(&t, "%s'%s' ", what, shown);
    text_add(&t, "", 1);
    at = file_judge(at, size, file, t.p, d);
    text_free(&t);
    return at;
}

bool file_pread(int fd, void *to, size_t n, int64_t offset) {
    char *p = to;
    while (n > 0) {
        size_t want = n < (size_t)1 << 30 ? n : (size_t)1 << 30;
        ssize_t got = pread(fd, p, want, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got == 0 ? 0 : errno;
            return false;
        }
        p += got;
        n -= (size_t)got;
        offset += got;
    }
    return true;
}

bool file_read(Arena *a, const char *path, int64_t limit, Str *out, Diag *d) {
    int64_t size = 0;
    int fd = file_open(path, &size, d);
    if (fd < 0)
        return false;
    bool ok = size <= limit;
    if (!ok) {
        diag_error(d, DIAG_FILE_SIZE, path, "has %" PRId64 " bytes; the limit is %" PRId64, size, limit);
    } else {
        char *p = arena_alloc(a, (size_t)size + 1);
        ok = file_pread(fd, p, (size_t)size, 0);
        if (!ok)
            diag_error(d, DIAG_FILE_READ, path, "cannot be read: %s",
                       errno != 0 ? strerror(errno) : "it ended while being read");
        *out = (Str){p, (size_t)size};
    }
    close(fd);
    return ok;
}

const char *path_dir(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return ".";
    return slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path));
}
