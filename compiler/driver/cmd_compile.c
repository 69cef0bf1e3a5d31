/* moec compile: the whole way from a model to an executable, a library, an object or sources. */
#include "build.h"

#include <string.h>

typedef struct Target {
    const char *result, *header, *weights, *text;
    const char *folder, *ir; /* of all of them; a name in it */
} Target;

/* What stands beside the result: NAME.weights, NAME.h for what is linked into other programs, NAME.ir with -g. */
static Target target_of(Build *b, EmitKind kind, const char *output) {
    Target t = {.result = output};
    size_t n = strlen(output);
    const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
    if (dot && kind != EMIT_EXE && (!slash || dot > slash + 1)) n = (size_t)(dot - output);
    t.header = arena_printf(b->a, "%.*s.h", (int)n, output);
    t.weights = arena_printf(b->a, "%.*s.weights", (int)n, output);
    t.text = arena_printf(b->a, "%.*s.spiece.model", (int)n, output);
    size_t base = slash ? (size_t)(slash + 1 - output) : 0;
    t.folder = slash == output ? "/" : slash ? arena_printf(b->a, "%.*s", (int)(base - 1), output) : ".";
    t.ir = arena_printf(b->a, "%.*s.ir", (int)(n - base), output + base);
    return t;
}

/* NAME.h, the runtime's header that it includes, and that of training for models that train. */
static bool install_headers(Build *b, const Target *t) {
    if (!build_embedded(b, t->folder, embedded_find("moec_rt.h"))) return false;
    if (b->o->train && !build_embedded(b, t->folder, embedded_find("moec_train.h"))) return false;
    return build_install(b, build_path(b, b->dir, arena_printf(b->a, "%s.h", b->codegen.prefix)), t->header, 0666);
}

static bool emit_result(Build *b, EmitKind kind, const char *output) {
    Target t = target_of(b, kind, output);
    OutFile weights;
    const char *made;
    if (b->codegen.ir_file) b->codegen.ir_file = t.ir;
    const char *path = b->codegen.embed_weights ? arena_printf(b->a, "%s/weights.bin", b->dir) : t.weights;
    if (!build_spares_input(b, t.folder) || (kind == EMIT_EXE && !build_text(b)) || !build_weights(b, path, &weights)) return false;
    bool ok = !b->codegen.embed_weights || outfile_commit(&weights);
    if (!b->codegen.embed_weights) build_stage_file(b, &weights);
    ok = ok && build_sources(b, kind == EMIT_EXE) && build_compile(b, kind, &made);
    build_stage(b);
    if (ok && kind != EMIT_EXE) ok = install_headers(b, &t);
    if (ok && kind == EMIT_EXE && b->text_model) ok = build_install_text(b, t.text);
    return ok && build_ir(b, t.folder) && build_install(b, made, t.result, kind == EMIT_EXE || kind == EMIT_SHARED ? 0777 : 0666) &&
           build_settle(b);
}

static bool emit_header(Build *b, const char *output) {
    Target t = target_of(b, EMIT_HEADER, output);
    t.header = output;
    if (!build_model(b, b->dir)) return false;
    build_stage(b);
    return install_headers(b, &t) && build_settle(b);
}

static const char *default_output(EmitKind kind) {
    static const char *const names[EMIT_COUNT] = {"model", "model.o", "model.a", "model.so", "model-c", "model.h", "model.s", "model.ll", "model.bc"};
    return names[kind];
}

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"

static bool is_prefix(const char *s) {
    return *s && !strchr("0123456789", *s) && strspn(s, WORD) == strlen(s) && !build_prefix_taken(s);
}

/* What goes into Makefiles unquoted. */
static bool is_cpu(const char *s) {
    return *s && strspn(s, WORD ".+-=,") == strlen(s);
}

/* A folder may be named with a slash at its end. */
static const char *without_slash(const char *path, Arena *a) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    return arena_strndup(a, path, n);
}

int cmd_compile(const Options *o) {
    EmitKind kind = (EmitKind)o->emit;
    if (o->prefix && !is_prefix(o->prefix)) return usage_error(o, DIAG_USAGE_VALUE, "--prefix: a C identifier other than main and moec was expected");
    if (o->march && !is_cpu(o->march)) return usage_error(o, DIAG_USAGE_VALUE, "-march: a name of letters, digits and . _ + - = , was expected");
    if (o->tokenizer && kind != EMIT_C)
        return usage_error(o, DIAG_USAGE_TOGETHER, "--tokenizer goes with --emit=c; executables take text when there is a spiece.model beside the model");
    int exit_code;
    if (!reports_check(o, false, &exit_code)) return exit_code;
    const char *output = o->output ? o->output : default_output(kind);
    Diag *d = diag_new();
    Model model;
    Build b = {0};
    bool ok = model_load(o, &model, d) && model_passes(&model, o, NULL, NULL, 0, d);
    if (ok && !(o->stop_after)) {
        if (kind == EMIT_C) output = without_slash(output, model.arena);
        const char *prefix = o->prefix ? o->prefix : build_prefix(model.arena, output);
        ok = build_open(&b, o, &model, prefix, d);
        if (ok && kind == EMIT_C) ok = build_folder(&b, output);
        else if (ok && kind == EMIT_HEADER) ok = emit_header(&b, output);
        else if (ok)
            ok = emit_result(&b, kind, output);
    }
    ok = ok && reports_write(o, &model, b.dir ? &b : NULL, d);
    build_close(&b);
    int code = diag_finish(d, ok);
    model_close(&model);
    return code;
}
