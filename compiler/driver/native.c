/* Building, loading and calling a model in the process of the compiler. */
#include "native.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool native_symbol_address(Native *n, const char *name, void *out) {
    void *p = dlsym(n->library, name);
    memcpy(out, &p, sizeof p);
    return p != NULL || diag_error(n->d, DIAG_BUILD_LOAD, NULL, "the built library lacks %s", name);
}

bool native_open(Native *n, const Options *o, Model *model, int threads, Diag *d) {
    *n = (Native){.d = d};
    if (!build_open(&n->build, o, model, "model", d)) return false;
    if (n->build.target) return diag_error(d, DIAG_BUILD_MACHINE, NULL, "'%s' compiles for %s, which this machine does not run", o->cc, n->build.target);
    const char *made, *weights = arena_printf(n->build.a, "%s/weights.bin", n->build.dir);
    OutFile w;
    n->build.codegen.embed_weights = false;
    n->build.source_dir = n->build.dir;
    if (!build_weights(&n->build, weights, &w) || !outfile_commit(&w) || !build_sources(&n->build, false) ||
        !build_ir(&n->build, n->build.dir) ||
        !build_compile(&n->build, EMIT_SHARED, &made))
        return false;
    n->library = dlopen(made, RTLD_NOW | RTLD_LOCAL);
    if (!n->library)
        return diag_error(d, DIAG_BUILD_LOAD, NULL, "cannot load what was built: %s", dlerror());
    const moec_program *(*program)(void);
    if (!native_symbol_address(n, "model_program", &program) || !native_symbol_address(n, "moec_open", &n->open) || !native_symbol_address(n, "moec_run", &n->run) ||
        !native_symbol_address(n, "moec_close", &n->close) || !native_symbol_address(n, "moec_status_text", &n->text))
        return false;
    n->program = program();
    n->weights = weights;
    n->threads = threads;
    return native_reopen(n);
}

bool native_reopen(Native *n) {
    char message[512] = "";
    moec_options opt = {.weights = n->weights, .threads = n->threads, .message = message, .message_room = sizeof message,
                        .map = 1}; /* a file of our own */
    if (n->instance) n->close(n->instance);
    n->instance = NULL;
    moec_status s = n->open(n->program, &opt, &n->instance);
    return s == MOEC_OK || diag_error(n->d, DIAG_BUILD_LOAD, NULL, "cannot open what was built: %s",
                                      message[0] ? message : n->text(s));
}

bool native_profile_start(Native *n) {
    moec_status (*start)(moec_instance *m);
    if (!native_symbol_address(n, "moec_profile_start", &start)) return false;
    moec_status s = start(n->instance);
    return s == MOEC_OK || diag_error(n->d, DIAG_USAGE_TOGETHER, NULL, "no kernel to measure: %s", n->text(s));
}

bool native_profile_print(Native *n) {
    int (*print)(const moec_instance *m, int each, FILE *f);
    return native_symbol_address(n, "moec_profile_print", &print) &&
           (print(n->instance, 0, stderr) || diag_error(n->d, DIAG_RUN_STATUS, NULL, "no memory for a profile"));
}

void native_close(Native *n) {
    if (n->instance) n->close(n->instance);
    if (n->library) dlclose(n->library);
    build_close(&n->build);
}

int native_function(const Native *n, const char *name) {
    for (uint32_t i = 0; i < n->program->n_functions; i++)
        if (strcmp(n->program->function[i].name, name) == 0) return (int)i;
    return -1;
}

int native_symbol(const Native *n, const char *name) {
    for (uint32_t i = 0; i < n->program->n_symbols; i++)
        if (strcmp(n->program->symbol[i].name, name) == 0) return (int)i;
    return -1;
}

Tensor native_shape(const Native *n, int function, uint32_t i, const int64_t *sym) {
    const moec_function *f = &n->program->function[function];
    Tensor t = {.dtype = (DType)f->value[i].dtype, .rank = f->value[i].rank};
    f->shape(sym, i, t.dim);
    return t;
}

bool native_run(Native *n, int function, const int64_t *sym, const Tensor *in, Tensor *out, Arena *a) {
    const moec_function *f = &n->program->function[function];
    void **arg = arena_array(a, f->n_inputs + f->n_outputs + 1, sizeof *arg);
    for (uint32_t i = 0; i < f->n_inputs; i++) arg[i] = in[i].data;
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        const moec_value *v = &f->value[f->n_inputs + i];
        out[i] = native_shape(n, function, f->n_inputs + i, sym);
        if (v->alias >= 0) out[i].data = arg[v->alias];
        else if (!tensor_alloc(a, &out[i]))
            return diag_error(n->d, DIAG_SHAPE_SIZE, NULL, "an output is too large");
        arg[f->n_inputs + i] = out[i].data;
    }
    moec_status s = n->run(n->instance, (uint32_t)function, sym, arg);
    return s == MOEC_OK || diag_error(n->d, DIAG_RUN_STATUS, NULL, "function '%s': %s", f->name, n->text(s));
}
