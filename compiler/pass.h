/* Passes: what they take besides the module, and their prototypes. A pass returns false after reporting. */
#ifndef MOEC_PASS_H
#define MOEC_PASS_H

#include "ir.h"

typedef struct DimBound { /* --dim NAME=lo..hi; lo == hi turns the symbol into a constant */
    Str name;
    int64_t lo, hi;
} DimBound;

typedef struct InputValue { /* --value INPUT=FILE; an empty func means any entry function */
    Str func, input;
    Tensor value;
} InputValue;

struct AdapterSpec;

typedef struct PassOptions {
    const DimBound *dim;
    uint32_t n_dims;
    const InputValue *value;
    uint32_t n_values;
    const struct AdapterSpec *adapter;
    uint64_t seed;
    int opt_level;
    bool plain; /* not a seq2seq model: one function */
} PassOptions;

bool pass_bind(Module *m, const PassOptions *o, Diag *d);
bool pass_fold(Module *m, const PassOptions *o, Diag *d);
bool pass_attach(Module *m, const PassOptions *o, Diag *d);
bool pass_cse(Module *m, const PassOptions *o, Diag *d);

#endif
