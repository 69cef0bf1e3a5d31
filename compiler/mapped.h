/* Files that stay mapped for reading while a module's data lie in them. */
#ifndef MOEC_MAPPED_H
#define MOEC_MAPPED_H

#include "base.h"

/* n > 0 bytes of the open file, all of it, until mapped_close. When the file is cut meanwhile, or its disk fails, the
 * process ends with a diagnostic that names it, and nothing half done stays. */
bool mapped_open(int fd, size_t n, const char *file, void **at, Diag *d);
void mapped_close(void *at); /* NULL is fine */
/* Whether all of them still are what they were: asked before what was made of them gets its name. False after reporting. */
bool mapped_intact(Diag *d);

#endif
