/* Atomic creation of output files. */
#include "outfile.h"

#include "mapped.h"
#include "replace.h"
#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is written may lie in a mapping that is gone, which the system calls a bad address. */
static bool fails(OutFile *o, const char *what) {
    int error = errno;
    if (error != EFAULT || mapped_intact(o->d))
        diag_error(o->d, DIAG_FILE_WRITE, o->path, "cannot %s: %s", what, strerror(error));
    outfile_abandon(o);
    return false;
}

/* Pipes and devices as /dev/null are written to, not replaced. */
static bool is_stream(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && (S_ISFIFO(s.st_mode) || S_ISCHR(s.st_mode));
}

bool outfile_open(OutFile *o, const char *path, unsigned mode, Arena *a, Diag *d) {
    *o = (OutFile){.fd = -1, .d = d, .a = a};
    o->path = arena_strndup(a, path, strlen(path));
    if (is_stream(path)) {
        o->fd = open(path, O_WRONLY | O_CLOEXEC);
        return o->fd >= 0 || fails(o, "open");
    }
    o->temporary = arena_printf(a, "%s.XXXXXX", path);
    undo_add(o->temporary);
    o->fd = mkostemp(o->temporary, O_CLOEXEC);
    if (o->fd < 0) {
        undo_drop(o->temporary);
        o->temporary = NULL;
        return fails(o, "create");
    }
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(o->fd, mode & ~mask) != 0) return fails(o, "set the mode of");
    return true;
}

bool outfile_write(OutFile *o, const void *p, size_t n) {
    const char *s = p;
    while (n) {
        ssize_t w = write(o->fd, s, n);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return fails(o, "write");
        s += w;
        n -= (size_t)w;
        o->at += (uint64_t)w;
    }
    return true;
}

bool outfile_write_at(OutFile *o, const void *p, size_t n, uint64_t offset) {
    const char *s = p;
    while (n) {
        ssize_t w = pwrite(o->fd, s, n, (off_t)offset);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return fails(o, "write");
        s += w;
        n -= (size_t)w;
        offset += (uint64_t)w;
    }
    return true;
}

/* Written and closed; what is left is the name. */
static bool settle(OutFile *o) {
    if (o->temporary && fsync(o->fd) != 0) return fails(o, "sync");
    int fd = o->fd;
    o->fd = -1;
    return close(fd) == 0 || fails(o, "close");
}

bool outfiles_commit(OutFile *o, size_t n, Diag *d) {
    Arena *a = arena_new();
    Replace *r = arena_array(a, n, sizeof *r);
    size_t count = 0;
    bool ok = mapped_intact(d);
    for (size_t i = 0; i < n && ok; i++) {
        ok = settle(&o[i]);
        if (ok && o[i].temporary) r[count++] = (Replace){.from = o[i].temporary, .to = o[i].path, .aside = arena_printf(a, "%s.old", o[i].temporary)};
    }
    ok = ok && replace_all(r, count, d);
    for (size_t i = 0; i < n; i++) {
        if (!ok) outfile_abandon(&o[i]);
        undo_drop(o[i].temporary);
        o[i].temporary = NULL;
    }
    arena_free(a);
    return ok;
}

bool outfile_commit(OutFile *o) {
    return outfiles_commit(o, 1, o->d);
}

void outfile_abandon(OutFile *o) {
    if (o->fd >= 0) close(o->fd);
    if (o->temporary) unlink(o->temporary);
    undo_drop(o->temporary);
    o->fd = -1;
    o->temporary = NULL;
}

bool outfile_text(const char *path, const Text *t, Diag *d) {
    OutFile o;
    Arena *a = arena_new();
    bool ok = outfile_open(&o, path, 0666, a, d) && outfile_write(&o, t->p ? t->p : "", t->n) && outfile_commit(&o);
    arena_free(a);
    return ok;
}
