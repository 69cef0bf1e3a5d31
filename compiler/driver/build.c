/* Driving the C compiler. It is run with an argument vector, never through a shell; everything it makes appears in a
 * scratch folder first and reaches its place by an atomic rename, so a failed build leaves nothing behind. */
#include "build.h"
#include "tool.h"

#include "../../frontends/file.h"
#include "../../runtime/text.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

bool build_prefix_taken(const char *prefix) {
    return strcmp(prefix, "main") == 0 || strcmp(prefix, "moec") == 0;
}

const char *build_prefix(Arena *a, const char *output) {
    const char *base = strrchr(output, '/');
    base = base ? base + 1 : output;
    char *p = arena_printf(a, "m_%s", base);
    char *start = isalpha((unsigned char)base[0]) ? p + 2 : p;
    for (char *c = start; *c; c++) {
        if (*c == '.') {
            *c = 0;
            break;
        }
        if (!isalnum((unsigned char)*c)) *c = '_';
    }
    return build_prefix_taken(start) ? p : *start ? start : "model";
}

/* Options that only one backend reads, and what a text of LLVM's cannot hold. */
static bool check_backend(Build *b) {
    const Options *o = b->o;
    if (!b->llvm && (o->target || o->mcpu || o->linker))
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "--target, -mcpu and --linker need --backend=llvm; the C backend's compiler is chosen with --cc");
    if (o->mcpu && o->march && strcmp(o->mcpu, o->march) != 0)
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "-march and -mcpu name one CPU: leave one out");
    if (o->embed_weights && (o->emit == EMIT_LLVM || o->emit == EMIT_BC))
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "--embed-weights needs a form that holds them: LLVM's text and bitcode keep them in a file beside");
    return true;
}

void build_stage(Build *b) {
    b->staging = true;
}

void build_stage_file(Build *b, const OutFile *f) {
    vec_push(&b->staged, *f);
}

static bool finish(Build *b, OutFile *f) {
    if (!b->staging) return outfile_commit(f);
    build_stage_file(b, f);
    return true;
}

bool build_settle(Build *b) {
    b->staging = false;
    bool ok = outfiles_commit(b->staged.item, b->staged.count, b->d);
    vec_free(&b->staged);
    return ok;
}

bool build_open(Build *b, const Options *o, Model *model, const char *prefix, Diag *d) {
    *b = (Build){.o = o, .model = model, .d = d, .a = arena_new()};
    b->dir = scratch_open(b->a, d);
    if (!b->dir) return false;
    b->codegen.prefix = prefix;
    b->llvm = o->backend == BACKEND_LLVM || o->executor == EXECUTOR_LLVM || o->emit == EMIT_LLVM || o->emit == EMIT_BC;
    bool folder = o->emit == EMIT_C;
    if (!check_backend(b)) return false;
    if (!folder && !build_target(b)) return false;
    if (!build_check_dispatch(b)) return false;
    b->codegen.plain_matmul = !products_are_library(o);
    b->codegen.dispatch = o->dispatch;
    b->codegen.plain_c = !o->dispatch && o->march && strcmp(o->march, "generic") == 0;
    b->codegen.embed_weights = o->embed_weights;
    b->codegen.profile = o->profile;
    if (o->debug) b->codegen.ir_file = arena_printf(b->a, "%s.ir", prefix);
    for (uint32_t i = 0; i < model->m->n_params; i++) {
        const Param *p = &model->m->param[i];
        uint64_t n = 1;
        for (int k = 0; k < p->rank; k++) n *= (uint64_t)p->dim[k];
        if (p->kind == PK_ADAPTER) b->codegen.trainable += n;
    }
    bool own = model->spec && !adapter_is_full(model->spec); /* tensors that the base does not have */
    if (model->has_config)
        b->codegen.parameters = (uint64_t)config_base_count(&model->config) + (own ? b->codegen.trainable : 0);
    return image_plan(model->m, prefix, b->a, &b->image, d);
}

bool build_text(Build *b) {
    struct stat s;
    const Seq2Seq *s2s = &b->model->m->s2s;
    if (!b->model->dir || !s2s->present) return true;
    const char *path = arena_printf(b->a, "%s/spiece.model", b->model->dir);
    if (lstat(path, &s) != 0) return true;
    if (b->target) { /* whose libsentencepiece is not known */
        diag_warn(b->d, DIAG_BUILD_MACHINE, path, "a program for %s takes token ids alone; --emit=c --tokenizer gives sources that handle text", b->target);
        return true;
    }
    if (!file_read(b->a, path, MOEC_SPIECE_LIMIT, &b->text, b->d)) return false;
    b->text_model = path;
    char message[1024] = "";
    const unsigned char *bytes = (const unsigned char *)b->text.p;
    if (moec_spiece_check(bytes, b->text.n, "", s2s->vocab, message, sizeof message) == 0) return true;
    const char *text = strstr(message, "error: "); /* behind the file's name, left empty here */
    return diag_error(b->d, DIAG_TOKENIZER, path, "%s", text ? text + strlen("error: ") : message);
}

bool build_install_text(Build *b, const char *to) {
    OutFile f;
    return outfile_open(&f, to, 0666, b->a, b->d) && outfile_write(&f, b->text.p, b->text.n) && finish(b, &f);
}

void build_close(Build *b) {
    vec_free(&b->runtime);
    for (size_t i = 0; i < b->staged.count; i++) outfile_abandon(&b->staged.item[i]);
    vec_free(&b->staged);
    scratch_close(b->dir);
    if (b->program) program_free(b->program);
    if (b->a) arena_free(b->a);
}

/* ---- weights ---------------------------------------------------------------------------------------- */

/* Somebody watches, and will wait for some seconds. */
static bool takes_long(const Build *b) {
    return isatty(2) && b->image.weights_bytes > (64u << 20);
}

static void show_progress(void *ctx, uint64_t done, uint64_t total) {
    int *last = ctx, percent = total ? (int)(done * 100 / total) : 100;
    if (percent == *last) return;
    *last = percent;
    fprintf(stderr, "\rweights %3d%%%s", percent, done == total ? "\n" : "");
}

bool build_weights(Build *b, const char *path, OutFile *o) {
    int last = -1;
    mem_doing("file", path);
    if (!outfile_open(o, path, 0666, b->a, b->d)) return false;
    if (image_write(&b->image, o, takes_long(b) ? show_progress : NULL, &last, b->d)) return true;
    outfile_abandon(o);
    return false;
}

/* ---- sources ------------------------------------------------------------------------------------------ */

const char *build_path(Build *b, const char *dir, const char *name) {
    return arena_printf(b->a, "%s/%s", dir, name);
}

bool build_embedded(Build *b, const char *dir, const EmbeddedFile *e) {
    const char *base = strrchr(e->name, '/');
    OutFile f;
    return outfile_open(&f, build_path(b, dir, base ? base + 1 : e->name), 0666, b->a, b->d) &&
           outfile_write(&f, e->data, e->size) && finish(b, &f);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static const char main_text[] =
    "/* The executable's main: everything is in moec_main. */\n"
    "#include \"%s.h\"\n#include \"moec_main.h\"\n\n%s"
    "int main(int argc, char **argv) {\n%s    return moec_main(%s_program(), %s, argc, argv);\n}\n";

static const char text_text[] =
    "static const moec_tokenizer tokenizer = {&moec_text_sentencepiece, 0, 0, 0};\n\n";

bool build_main(Build *b, const char *dir, bool with_text) {
    Text t = {0};
    text_printf(&t, main_text, b->codegen.prefix, with_text ? text_text : "",
                b->codegen.plain_matmul ? "" : "    moec_choose_blas(argv);\n", b->codegen.prefix, with_text ? "&tokenizer" : "0");
    bool ok = outfile_text(build_path(b, dir, "main.c"), &t, b->d);
    text_free(&t);
    return ok;
}

bool build_program(Build *b) {
    mem_doing("step", "code generation");
    if (!b->program) b->program = program_lower(b->model->m, &b->image, &b->codegen, b->d);
    return b->program != NULL;
}

bool build_spares_input(Build *b, const char *dir) {
    struct stat written, read;
    const char *path = b->codegen.ir_file ? build_path(b, dir, b->codegen.ir_file) : NULL;
    bool same = path && stat(path, &written) == 0 && stat(b->model->path, &read) == 0 && written.st_dev == read.st_dev &&
                written.st_ino == read.st_ino;
    return !same || diag_error(b->d, DIAG_USAGE_TOGETHER, path, "is the input, and -g would put the IR there: give the result another name");
}

bool build_ir(Build *b, const char *dir) {
    OutFile f;
    if (!b->codegen.ir_file) return true;
    return build_program(b) && outfile_open(&f, build_path(b, dir, b->codegen.ir_file), 0666, b->a, b->d) &&
           outfile_write(&f, b->program->ir.p, b->program->ir.n) && finish(b, &f);
}

bool build_model(Build *b, const char *dir) {
    Text c = {0}, h = {0};
    if (!build_program(b)) return false;
    program_print_c(b->program, &c);
    program_print_header(b->program, &h);
    bool ok = outfile_text(build_path(b, dir, arena_printf(b->a, "%s.c", b->codegen.prefix)), &c, b->d) &&
              outfile_text(build_path(b, dir, arena_printf(b->a, "%s.h", b->codegen.prefix)), &h, b->d);
    text_free(&c);
    text_free(&h);
    return ok;
}

bool build_weights_asm(Build *b, const char *dir, const char *weights) {
    Text t = {0};
    text_printf(&t, "    .section .rodata\n    .balign 64\n    .globl %s_weights\n%s_weights:\n    .incbin ", b->codegen.prefix, b->codegen.prefix);
    text_quoted(&t, str_c(weights));
    text_printf(&t, "\n    .section .note.GNU-stack,\"\",%%progbits\n");
    bool ok = outfile_text(build_path(b, dir, "weights.S"), &t, b->d);
    text_free(&t);
    return ok;
}

bool build_sources(Build *b, bool with_main) {
    for (const EmbeddedFile *e = driver_embedded; e->name; e++)
        if ((ends_with(e->name, ".h") || (ends_with(e->name, ".a") && !b->target)) && !build_embedded(b, b->dir, e)) return false;
    if (!build_model(b, b->dir)) return false;
    if (b->llvm) return true;
    if (b->codegen.embed_weights && !build_weights_asm(b, b->dir, build_path(b, b->dir, "weights.bin"))) return false;
    return !with_main || build_main(b, b->dir, b->text_model != NULL);
}

/* ---- the C compiler --------------------------------------------------------------------------------------- */

static const char cc_hint[] = "install gcc, name a C compiler with --cc, or use --backend=llvm, which needs none";

/* Debug information says in which folder the compiler ran. A name for it that is the same everywhere, which compilers take
 * because it is the folder. */
static const char any_folder[] = "/proc/self/cwd";

static char **tool_environment(Build *b) {
    if (!b->o->debug) return environ;
    size_t n = 0, k = 0;
    while (environ[n]) n++;
    char **e = arena_array(b->a, n + 2, sizeof *e);
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "PWD=", 4) != 0) e[k++] = environ[i];
    e[k] = arena_printf(b->a, "PWD=%s", any_folder);
    return e;
}

bool build_tool(Build *b, Args *args, const char *hint) {
    return tool_run(args, tool_environment(b), b->o->verbose, hint, b->d);
}

/* What a word of flags is made of. */
static void add_words(Build *b, Args *args, const char *text) {
    for (size_t n; *text; text += n + (text[n] == ' ')) {
        n = strcspn(text, " ");
        vec_push(args, arena_strndup(b->a, text, n));
    }
}

static void add_flags(Build *b, Args *args, const CodeVariant *v) {
    static const char *const common[] = {"-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-Wall"};
    const char *march = v && v->march ? v->march : b->o->march ? b->o->march : b->target || b->o->dispatch ? "generic" : "native";
    vec_push(args, b->o->level == 0 ? "-O0" : b->o->level == 1 ? "-O1" : "-O3");
    if (strcmp(march, "generic") != 0) vec_push(args, arena_printf(b->a, "-march=%s", march));
    vec_push(args, b->target ? "-std=c11" : "-std=c99"); /* the runtime, too: C11 has atomic counters */
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) vec_push(args, common[i]);
    if (v) vec_push(args, arena_printf(b->a, "-DMOEC_VARIANT=%s", v->name));
    if (v && v->flags) add_words(b, args, v->flags);
    vec_push(args, "-I");
    vec_push(args, b->dir);
}

/* Paths of this machine stay out of what is made. */
static bool add_debug(Build *b, Args *args) {
    const char *to = b->source_dir ? b->source_dir : ".";
    if (strchr(b->dir, '='))
        return diag_error(b->d, DIAG_FOLDER_MAKE, b->dir, "the name of this scratch folder has a '=': with -g set TMPDIR to another");
    vec_push(args, "-g");
    vec_push(args, arena_printf(b->a, "-fdebug-prefix-map=%s=%s", b->dir, to));
    vec_push(args, arena_printf(b->a, "-fdebug-prefix-map=%s=%s", any_folder, to));
    return true;
}

bool build_object(Build *b, const char *how, const char *source, const char *object, const CodeVariant *v) {
    Args args = {0};
    vec_push(&args, b->o->cc ? b->o->cc : "cc");
    add_flags(b, &args, v);
    bool ok = !b->o->debug || !ends_with(source, ".c") || add_debug(b, &args);
    vec_push(&args, how);
    vec_push(&args, build_path(b, b->dir, source));
    vec_push(&args, "-o");
    vec_push(&args, build_path(b, b->dir, object));
    ok = ok && build_tool(b, &args, cc_hint);
    vec_free(&args);
    return ok;
}

static bool link_result(Build *b, EmitKind kind, const char *result) {
    Args args = {0};
    vec_push(&args, b->o->cc ? b->o->cc : "cc");
    if (kind == EMIT_SHARED) vec_push(&args, "-shared");
    vec_push(&args, "-o");
    vec_push(&args, result);
    vec_push(&args, build_path(b, b->dir, "model.o"));
    if (kind == EMIT_EXE) vec_push(&args, build_path(b, b->dir, "main.o"));
    if (b->codegen.embed_weights) vec_push(&args, build_path(b, b->dir, "weights.o"));
    for (size_t i = 0; i < b->runtime.count; i++) vec_push(&args, build_path(b, b->dir, b->runtime.item[i]));
    if (kind == EMIT_SHARED && !b->target) vec_push(&args, "-Wl,--whole-archive");
    bool text = kind == EMIT_EXE && b->text_model;
    if (text) vec_push(&args, build_path(b, b->dir, "libmoec_text.a"));
    if (!b->target) vec_push(&args, build_path(b, b->dir, "libmoec_rt.a"));
    if (kind == EMIT_SHARED && !b->target) vec_push(&args, "-Wl,--no-whole-archive");
    if (!b->codegen.plain_matmul) vec_push(&args, "-lopenblas");
    if (text) vec_push(&args, "-lsentencepiece");
    if (text) vec_push(&args, "-lstdc++");
    vec_push(&args, "-lm");
    vec_push(&args, "-lpthread");
    bool ok = build_tool(b, &args, cc_hint);
    vec_free(&args);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Adds the objects in the folder, by name: folders have no order. */
static bool add_objects(Build *b, Args *args) {
    size_t first = args->count;
    DIR *dir = opendir(b->dir);
    for (struct dirent *e; dir && (errno = 0, e = readdir(dir));)
        if (ends_with(e->d_name, ".o")) vec_push(args, build_path(b, b->dir, arena_strndup(b->a, e->d_name, strlen(e->d_name))));
    int why = errno;
    if (dir) closedir(dir);
    if (args->count > first) qsort(args->item + first, args->count - first, sizeof *args->item, by_name);
    return !why || diag_error(b->d, DIAG_FILE_READ, b->dir, "cannot read the folder: %s", strerror(why));
}

/* The object and the runtime's members: all that a program needs to link the model. */
static bool archive(Build *b, const char *result) {
    Args args = {0};
    static const char hint[] = "install binutils";
    bool ok = true;
    if (!b->target) {
        vec_push(&args, "ar");
        vec_push(&args, "x");
        vec_push(&args, "--output");
        vec_push(&args, b->dir);
        vec_push(&args, build_path(b, b->dir, "libmoec_rt.a"));
        ok = build_tool(b, &args, hint);
        args.count = 0;
    }
    vec_push(&args, build_ar(b));
    vec_push(&args, "rcsD");
    vec_push(&args, result);
    ok = ok && add_objects(b, &args) && build_tool(b, &args, hint);
    vec_free(&args);
    return ok;
}

bool build_join(Build *b, const char *const *object, uint32_t n, const char *name) {
    const char *joined = build_path(b, b->dir, "joined.o");
    Args args = {0};
    vec_push(&args, b->o->cc ? b->o->cc : "cc");
    vec_push(&args, "-r");
    vec_push(&args, "-nostdlib");
    vec_push(&args, "-o");
    vec_push(&args, joined);
    for (uint32_t i = 0; i < n; i++) vec_push(&args, build_path(b, b->dir, object[i]));
    bool ok = build_tool(b, &args, cc_hint);
    vec_free(&args);
    for (uint32_t i = 0; i < n && ok; i++) unlink(build_path(b, b->dir, object[i]));
    if (ok && rename(joined, build_path(b, b->dir, name)) != 0) ok = diag_error(b->d, DIAG_FILE_WRITE, joined, "cannot rename: %s", strerror(errno));
    return ok;
}

/* Objects of the C backend: model.o, and main.o and weights.o where they are needed; for assembly, model.s. */
static bool compile_objects(Build *b, EmitKind kind) {
    const char *model = arena_printf(b->a, "%s.c", b->codegen.prefix);
    static const char *const both[] = {"model.o", "weights.o"};
    if (kind == EMIT_ASM) return build_object(b, "-S", model, "model.s", NULL);
    if (!(b->o->dispatch ? build_variant_objects(b) : build_object(b, "-c", model, "model.o", NULL))) return false;
    if (b->codegen.embed_weights && !build_object(b, "-c", "weights.S", "weights.o", NULL)) return false;
    if (kind == EMIT_OBJ && b->codegen.embed_weights) return build_join(b, both, 2, "model.o");
    return kind != EMIT_EXE || build_object(b, "-c", "main.c", "main.o", NULL);
}

static const char *const made_names[EMIT_COUNT] = {
    [EMIT_EXE] = "result", [EMIT_OBJ] = "model.o", [EMIT_LIB] = "result",   [EMIT_SHARED] = "result",
    [EMIT_ASM] = "model.s", [EMIT_LLVM] = "model.ll", [EMIT_BC] = "model.bc",
};

bool build_compile(Build *b, EmitKind kind, const char **result) {
    *result = build_path(b, b->dir, made_names[kind]);
    if (takes_long(b)) fprintf(stderr, "compiling with %s\n", b->llvm ? "LLVM" : b->o->cc ? b->o->cc : "cc");
    if (!(b->llvm ? build_llvm_objects(b, kind) : compile_objects(b, kind))) return false;
    if (kind != EMIT_EXE && kind != EMIT_LIB && kind != EMIT_SHARED) return true;
    if (b->target && !build_runtime(b)) return false;
    if (kind == EMIT_LIB) return archive(b, *result);
    return b->llvm ? build_llvm_link(b, kind, *result) : link_result(b, kind, *result);
}

bool build_install(Build *b, const char *from, const char *to, unsigned mode) {
    OutFile f;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return diag_error(b->d, DIAG_FILE_READ, from, "cannot open: %s", strerror(errno));
    bool ok = outfile_open(&f, to, mode, b->a, b->d);
    char *buffer = mem_alloc(1 << 20);
    for (ssize_t n; ok && (n = read(fd, buffer, 1 << 20)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            ok = diag_error(b->d, DIAG_FILE_READ, from, "cannot read: %s", strerror(errno));
            outfile_abandon(&f);
        } else
            ok = outfile_write(&f, buffer, (size_t)n);
    }
    mem_free(buffer);
    close(fd);
    return ok && finish(b, &f);
}
