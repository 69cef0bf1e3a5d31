/* The list of what is half done. It grows before the file is made, so that removing never takes memory for it. */
#define _XOPEN_SOURCE 700 /* nftw */

#include "undo.h"

#include "base.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>

enum { OPEN_FOLDERS = 8 };

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

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *where) {
    (void)s, (void)kind, (void)where;
    remove(path);
    return 0;
}

void undo_all(void) {
    while (half_done.count > 0)
        nftw(half_done.item[--half_done.count], remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
}
