/* Files take their places together: all of them, or what was there is there again. */
#ifndef MOEC_REPLACE_H
#define MOEC_REPLACE_H

#include "base.h"

typedef struct Replace {
    const char *from, *to;
    const char *aside; /* a name that nobody has, in the folder of `to`: what is there has it meanwhile */
    bool kept, gone; /* it has; it is no longer in its place */
} Replace;

/* Takes no memory before it is done, or has put back what was there. Then `from` of those that were placed is gone. */
bool replace_all(Replace *r, size_t n, Diag *d);
/* The names in a folder are on the disk. 0, or what is wrong. */
int folder_sync(const char *path);
/* A whole folder takes the place of nothing or of an empty one. 0; or what is wrong, ENOTEMPTY or EEXIST where files are there,
 * and all is as it was. */
int folder_place(const char *from, const char *to);

#endif
