/* The list of what is half done. It grows before the file is made, so that removing never takes memory for it. */
#include "undo.h"

#include "base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FOLDERS = 8 }; /* inside each other */

static Vec(const char *) half_done;

void undo_add(const char *path) {
    vec_push(&half_done, path);
}

void undo_drop(const char *path) {
    int error = errno; /* callers ask for it behind this */
    for (size_t i = half_done.count; path && i-- > 0;)
        if (half_done.item[i] == path) {
            half_done.item[i] = half_done.item[--half_done.count];
            break;
        }
    if (half_done.count == 0)
        vec_free(&half_done);
    errno = error;
}

static bool is_dots(const char *name) {
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* Removes what is in an open folder, which is read by the system's own call: opendir would take memory. */
static void empty_folder(int fd, int deep) {
    static _Alignas(struct dirent64) char room[FOLDERS][4096];
    long n, removed = 1;
    while (removed > 0 && lseek(fd, 0, SEEK_SET) == 0) {
        removed = 0;
        while ((n = syscall(SYS_getdents64, fd, room[deep], sizeof room[deep])) > 0)
            for (long at = 0; at < n;) {
                const struct dirent64 *e = (const struct dirent64 *)(const void *)(room[deep] + at);
                at += e->d_reclen;
                if (is_dots(e->d_name)) continue;
                int inner = deep + 1 < FOLDERS ? openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
                if (inner >= 0) {
                    empty_folder(inner, deep + 1);
                    close(inner);
                }
                removed += unlinkat(fd, e->d_name, inner >= 0 ? AT_REMOVEDIR : 0) == 0;
            }
    }
}

static void remove_all(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        empty_folder(fd, 0);
        close(fd);
    }
    (void)(fd >= 0 ? rmdir(path) : unlink(path)); /* there is nobody left to tell */
}

void undo_now(const char *path) {
    if (path) remove_all(path);
    undo_drop(path);
}

void undo_all(void) {
    while (half_done.count > 0)
        remove_all(half_done.item[--half_done.count]);
}
