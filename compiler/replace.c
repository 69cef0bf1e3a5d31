/* What stands in a place gets a second name, as a link, so that the place is never empty; where the file system has no links, the
 * file itself steps aside. It goes when all files are in their places and the folders are synced. */
#include "replace.h"

#include "undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int folder_sync(const char *path) {
    int bad, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES ? 0 : errno; /* one may write there and not read: nothing can be done */
    do
        bad = fsync(fd) != 0 ? errno : 0;
    while (bad == EINTR);
    close(fd);
    return bad == EINVAL || bad == EROFS ? 0 : bad; /* a file system that syncs no folders keeps nothing back either */
}

static int keep(Replace *r) {
    struct stat s;
    if (lstat(r->to, &s) != 0)
        return errno == ENOENT ? 0 : errno;
    if (S_ISDIR(s.st_mode))
        return EISDIR;
    r->kept = link(r->to, r->aside) == 0;
    if (r->kept || errno == EEXIST)
        return r->kept ? 0 : EEXIST;
    r->gone = r->kept = rename(r->to, r->aside) == 0;
    return r->kept ? 0 : errno;
}

static int place(Replace *r) {
    int error = keep(r);
    if (error || rename(r->from, r->to) != 0)
        return error ? error : errno;
    r->gone = true;
    return 0;
}

/* Leaves `kept` where it cannot. */
static void put_back(Replace *r) {
    if (!r->kept && r->gone)
        unlink(r->to);
    if (r->kept && !r->gone)
        unlink(r->aside);
    r->kept = r->kept && r->gone && rename(r->aside, r->to) != 0;
}

static size_t folder_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static int sync_folder_of(const char *path) {
    char folder[4096] = ".";
    size_t n = folder_length(path);
    if (n >= sizeof folder)
        return ENAMETOOLONG;
    memcpy(folder, path, n);
    folder[n ? n : 1] = 0;
    return folder_sync(folder);
}

int folder_place(const char *from, const char *to) {
    struct stat s;
    bool empty = lstat(to, &s) == 0;
    if (rename(from, to) != 0)
        return errno;
    int error = sync_folder_of(to);
    if (error)
        undo_now(to);
    if (error && empty)
        (void)mkdir(to, s.st_mode & 07777); /* there was nothing in it */
    return error;
}

/* Each folder once, where files of one follow each other. */
static int sync_folders(const Replace *r, size_t n, size_t *at) {
    for (size_t i = 0; i < n; i++) {
        size_t length = folder_length(r[i].to);
        *at = i;
        if (i > 0 && folder_length(r[i - 1].to) == length && !memcmp(r[i - 1].to, r[i].to, length))
            continue;
        int error = sync_folder_of(r[i].to);
        if (error)
            return error;
    }
    return 0;
}

bool replace_all(Replace *r, size_t n, Diag *d) {
    int error = 0;
    size_t at = 0;
    const char *what = "rename into place";
    for (size_t i = 0; i < n; i++)
        r[i].kept = r[i].gone = false;
    for (size_t i = 0; i < n && !error; i++) {
        at = i;
        error = place(&r[i]);
    }
    if (!error) {
        what = "sync the folder";
        error = sync_folders(r, n, &at);
    }
    for (size_t i = n; i-- > 0;)
        if (error)
            put_back(&r[i]);
        else if (r[i].kept)
            unlink(r[i].aside);
    if (!error)
        return true;
    diag_error(d, DIAG_FILE_WRITE, r[at].to, "cannot %s: %s", what, strerror(error));
    for (size_t i = 0; i < n; i++)
        if (r[i].kept)
            diag_error(d, DIAG_FILE_WRITE, r[i].to, "what was there could not be put back: it is '%s'", diag_show(d, str_c(r[i].aside)));
    return false;
}
