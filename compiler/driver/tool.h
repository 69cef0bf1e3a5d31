/* Other people's programs: a scratch folder for what they read and write, and running them, never through a
 * shell. */
#ifndef MOEC_TOOL_H
#define MOEC_TOOL_H

#include "../base.h"

typedef Vec(const char *) Args;

/* A new folder under TMPDIR; NULL after reporting. */
char *scratch_open(Arena *a, Diag *d);
/* Removes the folder's files and the folder; NULL is fine. */
void scratch_close(const char *dir);
/* Runs args (a NULL is put behind them) and waits; `install`: what to say when there is no such program.
 * `environment` NULL: ours; `verbose` shows the command line on stderr. False after reporting, also when it fails. */
bool tool_run(Args *args, char *const *environment, bool verbose, const char *install, Diag *d);

#endif
