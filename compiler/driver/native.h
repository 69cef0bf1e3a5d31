/* A compiled model inside moec: built as a shared library in the scratch folder and loaded. */
#ifndef MOEC_NATIVE_H
#define MOEC_NATIVE_H

#include "../../runtime/moec_rt.h"
#include "build.h"

typedef struct Native {
    Build build;
    void *library;
    const moec_program *program;
    moec_instance *instance;
    const char *weights;
    int threads;
    moec_status (*open)(const moec_program *p, const moec_options *o, moec_instance **out);
    moec_status (*run)(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg);
    void (*close)(moec_instance *m);
    const char *(*text)(moec_status s);
    Diag *d;
} Native;

/* Compiles the planned module and opens an instance. native_close is needed in either case. */
bool native_open(Native *n, const Options *o, Model *model, int threads, Diag *d);
void native_close(Native *n);
/* A fresh instance, with the adapter as compiled, in the place of the old one. */
bool native_reopen(Native *n);
/* Address of a function of the library into the pointer at `out`; false after reporting. */
bool native_symbol_address(Native *n, const char *name, void *out);
/* Of a model compiled with --profile: measures from here on; prints what was measured on stderr. False after reporting. */
bool native_profile_start(Native *n);
bool native_profile_print(Native *n);
/* Index of a function or symbol; -1. */
int native_function(const Native *n, const char *name);
int native_symbol(const Native *n, const char *name);
/* Runs a function on tensors in the order of its values. Outputs are allocated in `a` by the program's shapes; grown
 * outputs (alias >= 0) are left as views of nothing: their rows are in the input's storage. Inputs that grow must have
 * room for the capacity. */
bool native_run(Native *n, int function, const int64_t *sym, const Tensor *in, Tensor *out, Arena *a);
/* Extents of value i for the given symbols. */
Tensor native_shape(const Native *n, int function, uint32_t i, const int64_t *sym);

#endif
