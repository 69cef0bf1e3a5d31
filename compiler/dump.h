/* What the pass runner writes of a module around a pass: to stdout, or as a numbered file of the dump folder.
 */
#ifndef MOEC_DUMP_H
#define MOEC_DUMP_H

#include "pass.h"

/* A whole file, in place: a dump is there for whoever looks into what goes wrong. */
bool dump_write(const char *path, const Text *text, Diag *d);
/* NN-WHEN-PASS.ir. */
bool dump_module(const Module *m, const PassRun *run, uint32_t number, const char *when, const char *pass,
                 Diag *d);
/* Compares m's text with *last, which becomes m's: dumps m (unless `dumped` already) or the difference,
 * NN-after-PASS.diff, or says that there is none: on stdout among the dumps, on stderr when they go to files.
 */
bool dump_change(const Module *m, const PassRun *run, uint32_t number, const char *pass, Text *last,
                 bool dumped, Diag *d);

#endif
