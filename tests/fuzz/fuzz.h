/* What fuzzing harnesses share.
 *
 * A harness takes any bytes and leaves nothing behind: every arena, descriptor and mapping of an execution is gone when it
 * returns. What ends the process is a finding: a signal, a sanitizer's report, BUG(), and any other exit. */
#ifndef FUZZ_H
#define FUZZ_H

#include "compiler/pass.h"

#define HARNESS(name, mutator, most, runs, what) void fuzz_##name(const uint8_t *p, size_t n);
#include "harnesses.def"
#undef HARNESS

/* The path of a regular file with these bytes; the same file for every call with this number, 0 to 7. */
const char *fuzz_file(unsigned number, const void *p, size_t n);
/* The path DIR/NAME of a link to the path `to`, which stays as long as the process. Folders of NAME are made. */
const char *fuzz_link(const char *name, const char *to);
const char *fuzz_folder(void); /* DIR: an empty scratch folder */

/* Prints what was reported and frees d. What was refused without a word is a bug. */
void fuzz_reported(Diag *d, bool ok);

/* How a module is compiled: bits that an input chooses. */
typedef enum FuzzChoice {
    FUZZ_TRAIN = 1,
    FUZZ_PLAIN_C = 2,    /* also: no optimisation */
    FUZZ_LIBRARY = 4,    /* else weights in a format, where `train` does not forbid */
    FUZZ_PROFILE = 8,    /* also: sources in several files, for debuggers, for several CPUs */
    FUZZ_MEMORY = 16     /* a limit of memory */
} FuzzChoice;

/* Passes, planning, lowering, C text. `o` is completed by the choice; false: refused, which has been reported. */
bool fuzz_compile(Module *m, PassOptions o, unsigned choice, bool (*after_bind)(const Module *m, void *context, Diag *d),
                  void *context, Diag *d);

/* The C string that the harness's input is, in `a`. */
Str fuzz_text(Arena *a, const uint8_t *p, size_t n);

#endif
