/* Backends: a planned module becomes a shared library, which is loaded and called. A backend is a row: how it makes an
 * object of the program. */
#include "graphs.h"

#include "codegen/llvm.h"
#include "frontends/file.h"
#include "runtime/moec_rt.h"

#include <dlfcn.h>
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

enum { GUARD = 64, GUARD_BYTE = 0xa5, WORDS = 64 };

struct Library {
    void *handle;
    const moec_program *program;
    moec_instance *instance;
    moec_status (*run)(moec_instance *, uint32_t, const int64_t *, void *const *);
    void (*close)(moec_instance *);
};

/* ---- C ---- */

static bool run_words(const char *text, Arena *a, Diag *d) {
    char *argv[WORDS], *words = arena_strndup(a, text, strlen(text));
    int n = 0, status;
    pid_t pid;
    for (char *w = strtok(words, " "); w && n < WORDS - 1; w = strtok(NULL, " ")) argv[n++] = w;
    argv[n] = NULL;
    int error = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (error) return diag_error(d, DIAG_TOOL_MISSING, NULL, "cannot start %s: %s", argv[0], strerror(error));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status == 0 || diag_error(d, DIAG_TOOL_FAILED, NULL, "what is generated does not compile: %s", text);
}

static bool c_object(const Program *p, const BuildOptions *o, const char *object, Arena *a, Diag *d) {
    static const char *const flags = "-std=c99 -fno-math-errno -fno-trapping-math -ffp-contract=fast -fPIC -Wall -Wextra -Wno-type-limits -Werror";
    Text code = {0}, header = {0};
    const char *source = arena_printf(a, "%s/model.c", o->dir);
    program_print_c(p, &code);
    program_print_header(p, &header);
    bool ok = outfile_text(source, &code, d) && outfile_text(arena_printf(a, "%s/model.h", o->dir), &header, d);
    text_free(&code);
    text_free(&header);
    return ok && run_words(arena_printf(a, "%s %s -O%d %s -I %s/runtime -I %s -c %s -o %s", o->cc, flags, o->level, o->flags,
                                        MOEC_SOURCE_DIR, o->dir, source, object), a, d);
}

/* ---- LLVM ---- */

static bool llvm_object(const Program *p, const BuildOptions *o, const char *object, Arena *a, Diag *d) {
    LlvmOptions how = {.level = o->level, .form = LLVM_FORM_OBJECT};
    Text code = {0};
    bool ok = file_read(a, MOEC_BUILD_DIR "/gen/vocabulary_plain.bc", 1 << 24, &how.vocabulary, d) && llvm_emit(p, &how, &code, d) &&
              outfile_text(object, &code, d);
    text_free(&code);
    return ok;
}

/* ---- the table ---- */

static const struct Backend {
    const char *name;
    bool (*object)(const Program *p, const BuildOptions *o, const char *object, Arena *a, Diag *d); /* the file `object` */
} backends[] = {{"c", c_object}, {"llvm", llvm_object}};

static const struct Backend *find(const char *name) {
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++)
        if (strcmp(backends[i].name, name) == 0) return &backends[i];
    return NULL;
}

bool backend_known(const char *name) {
    return find(name) != NULL;
}

bool lowering_check(Module *m, Diag *d) {
    Arena *a = arena_new();
    Image im;
    CodegenOptions o = {.prefix = "model", .plain_matmul = true};
    Program *p = image_plan(m, "model", a, &im, d) ? program_lower(m, &im, &o, d) : NULL;
    if (p) program_free(p);
    arena_free(a);
    return p != NULL;
}

static bool make_object(const char *backend, Module *m, Image *im, const BuildOptions *o, const char *object, Arena *a, Diag *d) {
    CodegenOptions how = {.prefix = "model", .plain_matmul = true};
    Program *p = program_lower(m, im, &how, d);
    bool ok = p && find(backend)->object(p, o, object, a, d);
    if (p) program_free(p);
    return ok;
}

static bool symbol(void *handle, const char *name, void *out, Diag *d) {
    void *p = dlsym(handle, name);
    memcpy(out, &p, sizeof p);
    return p || diag_error(d, DIAG_BUILD_LOAD, NULL, "the library lacks %s", name);
}

Library *backend_load(const char *backend, Module *m, const BuildOptions *o, Arena *a, Diag *d) {
    Library *l = arena_alloc(a, sizeof *l);
    const char *weights = arena_printf(a, "%s/weights", o->dir), *object = arena_printf(a, "%s/model.o", o->dir);
    const char *so = arena_printf(a, "%s/model.so", o->dir);
    Image im;
    OutFile file;
    const moec_program *(*program)(void);
    moec_status (*open)(const moec_program *, const moec_options *, moec_instance **);
    if (!image_plan(m, "model", a, &im, d) || !outfile_open(&file, weights, 0666, a, d)) return NULL;
    if (!image_write(&im, &file, NULL, NULL, d)) {
        outfile_abandon(&file);
        return NULL;
    }
    if (!outfile_commit(&file) || !make_object(backend, m, &im, o, object, a, d) ||
        !run_words(arena_printf(a, "%s %s -shared -o %s %s -Wl,--whole-archive %s/libmoec_rt.a -Wl,--no-whole-archive -lm -lpthread", o->cc,
                                o->flags, so, object, MOEC_BUILD_DIR), a, d))
        return NULL;
    l->handle = dlopen(so, RTLD_NOW | RTLD_LOCAL);
    if (!l->handle) return diag_error(d, DIAG_BUILD_LOAD, NULL, "%s", dlerror()), NULL;
    if (!symbol(l->handle, "model_program", &program, d) || !symbol(l->handle, "moec_open", &open, d) ||
        !symbol(l->handle, "moec_run", &l->run, d) || !symbol(l->handle, "moec_close", &l->close, d))
        return NULL;
    char message[200] = "";
    moec_options options = {.weights = weights, .threads = o->threads, .message = message, .message_room = sizeof message};
    l->program = program();
    if (open(l->program, &options, &l->instance) != MOEC_OK) return diag_error(d, DIAG_BUILD_LOAD, NULL, "it does not open: %s", message), NULL;
    return l;
}

void library_close(Library *l) {
    if (!l) return;
    l->close(l->instance);
    dlclose(l->handle);
}

/* ---- calls ---- */

/* Storage whose bytes behind the last one are known. */
static unsigned char *guarded(size_t bytes, Arena *a) {
    unsigned char *p = arena_alloc(a, bytes + GUARD);
    memset(p, GUARD_BYTE, bytes + GUARD);
    return p;
}

static bool intact(const unsigned char *p, size_t bytes) {
    for (int i = 0; i < GUARD; i++)
        if (p[bytes + (size_t)i] != GUARD_BYTE) return false;
    return true;
}

/* Between dense elements and storage whose axis `axis` has room for `capacity`. */
static void copy_grown(const Tensor *t, int axis, int64_t capacity, unsigned char *storage, bool into) {
    size_t inner = dtype_bytes(t->dtype), outer = 1;
    for (int i = 0; i < t->rank; i++) {
        if (i < axis) outer *= (size_t)t->dim[i];
        else if (i > axis) inner *= (size_t)t->dim[i];
    }
    size_t row = inner * (size_t)t->dim[axis], room = inner * (size_t)capacity;
    for (size_t i = 0; i < outer && row; i++) {
        unsigned char *dense = (unsigned char *)t->data + i * row, *s = storage + i * room;
        memcpy(into ? s : dense, into ? dense : s, row);
    }
}

static bool extents(const moec_function *f, uint32_t i, const int64_t *sym, Tensor *t, size_t *bytes) {
    *t = (Tensor){.dtype = (DType)f->value[i].dtype, .rank = f->value[i].rank};
    f->shape(sym, i, t->dim);
    Tensor room = *t;
    if (f->value[i].grow_axis >= 0) room.dim[f->value[i].grow_axis] = f->value[i].capacity;
    return tensor_bytes(&room, bytes);
}

static bool say(char *why, size_t room, const char *what, const char *name) {
    snprintf(why, room, "%s%s", what, name);
    return false;
}

static const moec_function *find_function(const Library *l, Str name, uint32_t *at) {
    for (uint32_t i = 0; i < l->program->n_functions; i++)
        if (str_is(name, l->program->function[i].name)) {
            *at = i;
            return &l->program->function[i];
        }
    return NULL;
}

bool library_run(Library *l, const Module *m, Str func, const int64_t *syms, const Tensor *in, Tensor *out, Arena *a, char *why,
                 size_t room) {
    uint32_t at = 0;
    const moec_function *f = find_function(l, func, &at);
    if (!f) return say(why, room, "the library lacks the function", "");
    int64_t *sym = arena_array(a, l->program->n_symbols + 1, sizeof *sym);
    for (uint32_t i = 0; i < l->program->n_symbols; i++)
        for (uint32_t s = 0; s < dim_sym_count(m->dims); s++)
            if (str_is(dim_sym_at(m->dims, s)->name, l->program->symbol[i].name)) sym[i] = syms[s];
    uint32_t n = f->n_inputs + f->n_outputs;
    unsigned char **arg = arena_array(a, n + 1, sizeof *arg);
    size_t *bytes = arena_array(a, n + 1, sizeof *bytes);
    for (uint32_t i = 0; i < n; i++) {
        const moec_value *v = &f->value[i];
        Tensor t;
        if (!extents(f, i, sym, &t, &bytes[i])) return say(why, room, "impossible extents of ", v->name);
        if (i >= f->n_inputs) out[i - f->n_inputs] = t;
        if (v->alias >= 0) {
            arg[i] = arg[v->alias];
            continue;
        }
        arg[i] = guarded(bytes[i], a);
        if (i >= f->n_inputs) continue;
        if (v->grow_axis >= 0) copy_grown(&in[i], v->grow_axis, v->capacity, arg[i], true);
        else if (bytes[i]) memcpy(arg[i], in[i].data, bytes[i]);
    }
    moec_status s = l->run(l->instance, at, sym, (void *const *)(uintptr_t)arg);
    if (s != MOEC_OK) return say(why, room, "it does not run: ", moec_status_text(s));
    for (uint32_t i = 0; i < n; i++) {
        const moec_value *v = &f->value[i];
        if (!intact(arg[i], bytes[i])) return say(why, room, "bytes behind the end are written: ", v->name);
        if (i < f->n_inputs) {
            if (v->grow_axis < 0 && bytes[i] && memcmp(arg[i], in[i].data, bytes[i])) return say(why, room, "an input is written: ", v->name);
            continue;
        }
        Tensor *t = &out[i - f->n_inputs];
        const moec_value *storage = v->alias >= 0 ? &f->value[v->alias] : v;
        if (!tensor_alloc(a, t)) return say(why, room, "impossible extents of ", v->name);
        if (storage->grow_axis >= 0) copy_grown(t, storage->grow_axis, storage->capacity, arg[i], false);
        else if (bytes[i]) memcpy(t->data, arg[i], bytes[i]);
    }
    return true;
}
