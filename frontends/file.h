/* Opening and reading files whose names or contents come from outside. */
#ifndef MOEC_FILE_H
#define MOEC_FILE_H

#include "../compiler/base.h"

/* Opens a regular file for reading and tells its size. Never blocks on a FIFO or device. -1 after reporting.
 */
int file_open(const char *path, int64_t *size, Diag *d);
/* Opens `location`, a name that stands inside another file, under directory `dir`: relative, no empty, `.` or
 * `..` component, no backslash, no symbolic link on the way. -1 after reporting; messages begin with `what`.
 */
int file_open_beneath(const char *dir, Str location, int64_t *size, const char *file, const char *what,
                      Diag *d);
/* Exactly n bytes from `offset`; false with errno set, or errno 0 when the file ends before. */
bool file_pread(int fd, void *to, size_t n, int64_t offset);
/* A whole regular file of at most `limit` bytes, NUL appended. */
bool file_read(Arena *a, const char *path, int64_t limit, Str *out, Diag *d);
/* The directory part of a path, "." without one. */
const char *path_dir(Arena *a, const char *path);

#endif
