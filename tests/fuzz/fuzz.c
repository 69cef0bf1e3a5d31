/* Files that live in memory, and how executions end. */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES = 8, LINKS = 16 };

static char folder[4096];
static const char *made[2 * LINKS]; /* links and folders, in the order of their making */
static size_t n_made;

static _Noreturn void fail(const char *what) {
    perror(what);
    abort();
}

const char *fuzz_file(unsigned number, const void *p, size_t n) {
    static struct {
        int fd;
        char path[32];
    } file[FILES];
    CHECK(number < FILES);
    int *fd = &file[number].fd;
    if (!*fd) {
        *fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (*fd < 0) fail("memfd_create");
        snprintf(file[number].path, sizeof file[number].path, "/proc/self/fd/%d", *fd);
    }
    if (ftruncate(*fd, (off_t)n) != 0 || (n && pwrite(*fd, p, n, 0) != (ssize_t)n)) fail("writing a file in memory");
    return file[number].path;
}

static void clean_up(void) {
    while (n_made > 0) remove(made[--n_made]);
    rmdir(folder);
}

const char *fuzz_folder(void) {
    const char *tmp = getenv("TMPDIR");
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/moec-fuzz-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(folder)) fail(folder);
        atexit(clean_up);
    }
    return folder;
}

static const char *keep(const char *name, size_t n) {
    size_t room = strlen(fuzz_folder()) + n + 2;
    char *path = malloc(room);
    CHECK(path && n_made < 2 * LINKS);
    snprintf(path, room, "%s/%.*s", folder, (int)n, name);
    return made[n_made++] = path;
}

const char *fuzz_link(const char *name, const char *to) {
    const char *slash = strchr(name, '/');
    if (slash) mkdir(keep(name, (size_t)(slash - name)), 0777);
    const char *path = keep(name, strlen(name));
    if (symlink(to, path) != 0) fail(path);
    return path;
}

void fuzz_reported(Diag *d, bool ok) {
    CHECK(ok || diag_errors(d) > 0);
    diag_flush(d);
    diag_free(d);
}

Str fuzz_text(Arena *a, const uint8_t *p, size_t n) {
    return (Str){arena_strndup(a, (const char *)p, n), n};
}
