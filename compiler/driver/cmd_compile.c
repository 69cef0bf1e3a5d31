/* moec compile: the whole way from a model to an executable, a library, an object or sources. */
#include "build.h"

#include <string.h>

typedef struct Target {
    const char *result, *header, *weights, *text;
} Target;

/* What stands beside the result: NAME.weights, and NAME.h for what is linked into other programs. */
static Target target_of(Build *b, EmitKind kind, const char *output) {
    Target t = {.result = output};
    size_t n = strlen(output);
    const char *slash = strrchr(output, '/'), *dot = strrchr(output, '.');
    if (dot && kind != EMIT_EXE && (!slash || dot > slash + 1)) n = (size_t)(dot - output);
    t.header = arena_printf(b->a, "%.*s.h", (int)n, output);
    t.weights = arena_printf(b->a, "%.*s.weights", (int)n, output);
    t.text = arena_printf(b->a, "%.*s.spiece.model", (int)n, output);
    return t;
}

/* NAME.h, and the runtime's header that it includes. */
static bool install_headers(Build *b, const char *header) {
    const char *slash = strrchr(header, '/');
    const char *dir = slash ? arena_printf(b->a, "%.*s", (int)(slash - header), header) : ".";
    if (!build_embedded(b, slash == header ? "/" : dir, embedded_find("moec_rt.h"))) return false;
    return build_install(b, build_path(b, b->dir, arena_printf(b->a, "%s.h", b->codegen.prefix)), header, 0666);
}

static bool emit_result(Build *b, EmitKind kind, const char *output) {
    Target t = target_of(b, kind, output);
    OutFile weights;
    const char *made;
    const char *path = b->codegen.embed_weights ? arena_printf(b->a, "%s/weights.bin", b->dir) : t.weights;
    if ((kind == EMIT_EXE && !build_text(b)) || !build_weights(b, path, &weights)) return false;
    bool ok = !b->codegen.embed_weights || outfile_commit(&weights);
    ok = ok && build_sources(b, kind == EMIT_EXE) && build_compile(b, kind, &made);
    if (ok && kind != EMIT_EXE) ok = install_headers(b, t.header);
    if (ok && kind == EMIT_EXE && b->text_model) ok = build_install_text(b, t.text);
    ok = ok && build_install(b, made, t.result, kind == EMIT_EXE || kind == EMIT_SHARED ? 0777 : 0666);
    if (b->codegen.embed_weights) return ok;
    if (ok) return outfile_commit(&weights);
    outfile_abandon(&weights);
    return false;
}

static bool emit_header(Build *b, const char *output) {
    return build_model(b, b->dir) && install_headers(b, output);
}

static const char *default_output(EmitKind kind) {
    static const char *const names[EMIT_COUNT] = {"model", "model.o", "model.a", "model.so", "model-c", "model.h"};
    return names[kind];
}

#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"

static bool is_prefix(const char *s) {
    return *s && !strchr("0123456789", *s) && strspn(s, WORD) == strlen(s);
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
    EmitKind kind;
    if (!emit_parse(o->emit, &kind)) return usage_error(o, "--emit: exe, obj, lib, shared, c or header was expected");
    if (o->matmul && strcmp(o->matmul, "plain") != 0 && strcmp(o->matmul, "openblas") != 0)
        return usage_error(o, "--matmul: openblas or plain was expected");
    if (o->prefix && !is_prefix(o->prefix)) return usage_error(o, "--prefix: a C identifier was expected");
    if (o->march && !is_cpu(o->march)) return usage_error(o, "-march: a name of letters, digits and . _ + - = , was expected");
    if (o->tokenizer && kind != EMIT_C)
        return usage_error(o, "--tokenizer goes with --emit=c; executables take text when there is a spiece.model beside the model");
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
        else if (ok) ok = emit_result(&b, kind, output);
        build_close(&b);
    }
    int code = diag_finish(d, ok);
    model_close(&model);
    return code;
}
