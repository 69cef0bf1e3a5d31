/* Calling one function of a module: values for what nobody gave, and compiled code on dense tensors. */
#ifndef MOEC_CALL_H
#define MOEC_CALL_H

#include "native.h"

/* Text IR names large weights without carrying them: they get small seeded values, the same for the same
 * name. `file` is for messages. */
bool seed_weights(Module *m, uint64_t seed, const char *file, Diag *d);
/* Symbols that given inputs decide take their values from them; the others are seeded, then the inputs that
 * are not given. f16 inputs of what is computed in f32 are widened. Fills in[] and syms[], data in `a`. */
bool complete_inputs(const Module *m, const PassOptions *o, const Func *f, const bool *given, Tensor *in,
                     int64_t *syms, Arena *a, Diag *d);
/* The compiled f of m, as func_eval; in[] of grown caches is replaced by storage with room. */
bool call_compiled(Native *n, const Module *m, const Func *f, const int64_t *syms, Tensor *in, Tensor *out,
                   Arena *a);

#endif
