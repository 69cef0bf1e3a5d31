/* Adapter spec files: JSON to AdapterSpec. */
#ifndef MOEC_SPEC_H
#define MOEC_SPEC_H

#include "../compiler/adapter.h"

/* Reads a spec (JSON), or a safetensors file whose metadata carries one, or a PEFT directory; in the last two
 * cases the tensors are the values. Everything that can be checked without the model is. NULL after reporting. */
AdapterSpec *spec_load(Arena *a, const char *path, Diag *d);
/* The same of JSON text in memory; `file` is for messages. Nothing is loaded: "weights" stays a name. */
AdapterSpec *spec_parse(Arena *a, const char *file, Str text, Diag *d);
/* Loads the tensors of `path`, or, when it is NULL, of the file that the spec's "weights" names, if it does;
 * that one must lie below the spec's directory. The tensors stay mapped until spec_close. */
bool spec_load_weights(Arena *a, AdapterSpec *spec, const char *path, Diag *d);
void spec_close(AdapterSpec *spec); /* NULL is fine */

/* What the reader knows: the keys of the spec, of an entry of its sites, of train and of router, and the words of three of
 * their values. Each list ends with NULL. adapter-spec.schema.json says the same to other programs. */
typedef enum SpecList {
    SPEC_ROOT,
    SPEC_ENTRY,
    SPEC_TRAIN,
    SPEC_ROUTER,
    SPEC_METHODS,
    SPEC_INPUTS,
    SPEC_RENORMALISE
} SpecList;
const char *const *spec_list(SpecList which);

#endif
