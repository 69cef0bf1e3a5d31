/* Files that appear under their name only when complete: written beside it under an unguessable temporary name, synced,
 * renamed, the folder synced. A failed one leaves nothing behind and whatever stood there untouched. A pipe or a character device
 * that stands there is written to as it is. */
#ifndef MOEC_OUTFILE_H
#define MOEC_OUTFILE_H

#include "base.h"

typedef struct OutFile {
    char *path, *temporary; /* temporary: NULL where the path itself is written to */
    int fd;
    uint64_t at;    /* bytes written so far */
    Diag *d;
    Arena *a;
} OutFile;

bool outfile_open(OutFile *o, const char *path, unsigned mode, Arena *a, Diag *d);
bool outfile_write(OutFile *o, const void *p, size_t n);
bool outfile_write_at(OutFile *o, const void *p, size_t n, uint64_t offset);
bool outfile_commit(OutFile *o); /* closes in any case */
/* All of them appear, or none. */
bool outfiles_commit(OutFile *o, size_t n, Diag *d);
void outfile_abandon(OutFile *o);
/* A whole text file. */
bool outfile_text(const char *path, const Text *t, Diag *d);

#endif
