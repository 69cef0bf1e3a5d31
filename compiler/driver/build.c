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

static const char *const emit_names[EMIT_COUNT] = {"exe", "obj", "lib", "shared", "c", "header"};

bool emit_parse(const char *text, EmitKind *out) {
    *out = EMIT_EXE;
    for (int i = 0; text && i < EMIT_COUNT; i++)
        if (strcmp(text, emit_names[i]) == 0) {
            *out = (EmitKind)i;
            return true;
        }
    return text == NULL;
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
    return *start ? start : "model";
}

bool build_open(Build *b, const Options *o, Model *model, const char *prefix, Diag *d) {
    *b = (Build){.o = o, .model = model, .d = d, .a = arena_new()};
    b->dir = scratch_open(b->a, d);
    if (!b->dir) return false;
    b->codegen.prefix = prefix;
    b->codegen.plain_matmul = o->matmul && strcmp(o->matmul, "plain") == 0;
    b->codegen.embed_weights = o->embed_weights;
    for (uint32_t i = 0; i < model->m->n_params; i++) {
        const Param *p = &model->m->param[i];
        uint64_t n = 1;
        for (int k = 0; k < p->rank; k++) n *= (uint64_t)p->dim[k];
        if (p->kind == PK_ADAPTER) b->codegen.trainable += n;
    }
    bool own = model->spec && !adapter_is_full(model->spec); /* tensors that the base does not have */
    if (model->has_config)
        b->codegen.parameters = (uint64_t)config_base_count(&model->config) + (own ? b->codegen.trainable : 0);
    return image_plan(model->m, b->a, &b->image, d);
}

bool build_text(Build *b) {
    struct stat s;
    const Seq2Seq *s2s = &b->model->m->s2s;
    if (!b->model->dir || !s2s->present) return true;
    const char *path = arena_printf(b->a, "%s/spiece.model", b->model->dir);
    if (lstat(path, &s) != 0) return true;
    if (!file_read(b->a, path, MOEC_SPIECE_LIMIT, &b->text, b->d)) return false;
    b->text_model = path;
    char message[1024] = "";
    const unsigned char *bytes = (const unsigned char *)b->text.p;
    if (moec_spiece_check(bytes, b->text.n, "", s2s->vocab, message, sizeof message) == 0) return true;
    const char *text = strstr(message, "error: "); /* behind the file's name, left empty here */
    return diag_error(b->d, path, "%s", text ? text + strlen("error: ") : message);
}

bool build_install_text(Build *b, const char *to) {
    OutFile f;
    return outfile_open(&f, to, 0666, b->a, b->d) && outfile_write(&f, b->text.p, b->text.n) && outfile_commit(&f);
}

void build_close(Build *b) {
    scratch_close(b->dir);
    if (b->a) arena_free(b->a);
}

/* ---- weights ---------------------------------------------------------------------------------------- */

static void show_progress(void *ctx, uint64_t done, uint64_t total) {
    int *last = ctx, percent = total ? (int)(done * 100 / total) : 100;
    if (percent == *last) return;
    *last = percent;
    fprintf(stderr, "\rweights %3d%%%s", percent, done == total ? "\n" : "");
}

bool build_weights(Build *b, const char *path, OutFile *o) {
    int last = -1;
    bool shows = isatty(2) && b->image.weights_bytes > (64u << 20);
    if (!outfile_open(o, path, 0666, b->a, b->d)) return false;
    if (image_write(&b->image, o, shows ? show_progress : NULL, &last, b->d)) return true;
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
           outfile_write(&f, e->data, e->size) && outfile_commit(&f);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static const char main_text[] =
    "/* The executable's main: everything is in moec_main. */\n"
    "#define _POSIX_C_SOURCE 200809L\n"
    "#include \"%s.h\"\n#include \"moec_main.h\"\n\n%s"
    "int main(int argc, char **argv) {\n%s    return moec_main(%s_program(), %s, argc, argv);\n}\n";

/* OpenBLAS chooses its kernels when it is loaded and does not know recent CPUs: the choice is made for it, unless the
 * user has made it, by starting once more with the environment set. */
static const char blas_text[] =
    "#include <stdlib.h>\n#include <unistd.h>\n\n"
    "/* OpenBLAS picks kernels when it is loaded, by a list of CPUs it knows; newer ones get slow kernels. Starting once\n"
    " * more with the choice in the environment is the only way to correct that. */\n"
    "static void choose_kernels(char **argv) {\n"
    "#if defined(__x86_64__) && defined(__GNUC__)\n"
    "    if (getenv(\"OPENBLAS_CORETYPE\") || getenv(\"OPENBLAS_NUM_THREADS\")) return;\n"
    "    setenv(\"OPENBLAS_NUM_THREADS\", \"1\", 1); /* the model has its own threads */\n"
    "    if (__builtin_cpu_supports(\"avx512f\") && __builtin_cpu_supports(\"avx512bw\") && __builtin_cpu_supports(\"avx512vl\"))\n"
    "        setenv(\"OPENBLAS_CORETYPE\", \"SkylakeX\", 1);\n"
    "    execv(\"/proc/self/exe\", argv);\n"
    "#endif\n    (void)argv;\n}\n\n";

static const char text_text[] =
    "static const moec_tokenizer tokenizer = {&moec_text_sentencepiece, 0, 0, 0};\n\n";

bool build_main(Build *b, const char *dir, bool with_text) {
    Text head = {0}, t = {0};
    if (with_text) text_printf(&head, "%s", text_text);
    if (!b->codegen.plain_matmul) text_printf(&head, "%s", blas_text);
    text_printf(&t, main_text, b->codegen.prefix, head.p ? head.p : "", b->codegen.plain_matmul ? "" : "    choose_kernels(argv);\n",
                b->codegen.prefix, with_text ? "&tokenizer" : "0");
    bool ok = outfile_text(build_path(b, dir, "main.c"), &t, b->d);
    text_free(&head);
    text_free(&t);
    return ok;
}

bool build_model(Build *b, const char *dir) {
    Text c = {0}, h = {0};
    bool ok = program_emit(b->model->m, &b->image, &b->codegen, &c, &h, b->d) &&
              outfile_text(build_path(b, dir, arena_printf(b->a, "%s.c", b->codegen.prefix)), &c, b->d) &&
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
        if ((ends_with(e->name, ".h") || ends_with(e->name, ".a")) && !build_embedded(b, b->dir, e)) return false;
    if (b->codegen.embed_weights && !build_weights_asm(b, b->dir, build_path(b, b->dir, "weights.bin"))) return false;
    return build_model(b, b->dir) && (!with_main || build_main(b, b->dir, b->text_model != NULL));
}

/* ---- the C compiler --------------------------------------------------------------------------------------- */

static bool run_tool(Build *b, Args *args) {
    return tool_run(args, b->o->verbose, "install gcc, or name a C compiler with --cc", b->d);
}

static void add_flags(Build *b, Args *args) {
    static const char *const common[] = {"-std=c99", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC", "-Wall"};
    const char *march = b->o->march ? b->o->march : "native";
    vec_push(args, b->o->level == 0 ? "-O0" : b->o->level == 1 ? "-O1" : "-O3");
    if (strcmp(march, "generic") != 0) vec_push(args, arena_printf(b->a, "-march=%s", march));
    for (size_t i = 0; i < sizeof common / sizeof *common; i++) vec_push(args, common[i]);
    vec_push(args, "-I");
    vec_push(args, b->dir);
}

static bool compile_object(Build *b, const char *source, const char *object) {
    Args args = {0};
    vec_push(&args, b->o->cc ? b->o->cc : "cc");
    add_flags(b, &args);
    vec_push(&args, "-c");
    vec_push(&args, build_path(b, b->dir, source));
    vec_push(&args, "-o");
    vec_push(&args, build_path(b, b->dir, object));
    bool ok = run_tool(b, &args);
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
    if (kind == EMIT_SHARED) vec_push(&args, "-Wl,--whole-archive");
    bool text = kind == EMIT_EXE && b->text_model;
    if (text) vec_push(&args, build_path(b, b->dir, "libmoec_text.a"));
    vec_push(&args, build_path(b, b->dir, "libmoec_rt.a"));
    if (kind == EMIT_SHARED) vec_push(&args, "-Wl,--no-whole-archive");
    if (!b->codegen.plain_matmul) vec_push(&args, "-lopenblas");
    if (text) vec_push(&args, "-lsentencepiece");
    if (text) vec_push(&args, "-lstdc++");
    vec_push(&args, "-lm");
    vec_push(&args, "-lpthread");
    bool ok = run_tool(b, &args);
    vec_free(&args);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The object and the runtime's members: all that a program needs to link the model. */
static bool archive(Build *b, const char *result) {
    Args args = {0};
    vec_push(&args, "ar");
    vec_push(&args, "x");
    vec_push(&args, "--output");
    vec_push(&args, b->dir);
    vec_push(&args, build_path(b, b->dir, "libmoec_rt.a"));
    bool ok = run_tool(b, &args);
    args.count = 0;
    vec_push(&args, "ar");
    vec_push(&args, "rcsD");
    vec_push(&args, result);
    size_t first = args.count;
    DIR *dir = ok ? opendir(b->dir) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (ends_with(e->d_name, ".o")) vec_push(&args, build_path(b, b->dir, arena_strndup(b->a, e->d_name, strlen(e->d_name))));
    if (dir) closedir(dir);
    if (args.count > first) qsort(args.item + first, args.count - first, sizeof *args.item, by_name); /* folders have no order */
    ok = ok && run_tool(b, &args);
    vec_free(&args);
    return ok;
}

bool build_compile(Build *b, EmitKind kind, const char **result) {
    if (!compile_object(b, arena_printf(b->a, "%s.c", b->codegen.prefix), "model.o")) return false;
    if (b->codegen.embed_weights && !compile_object(b, "weights.S", "weights.o")) return false;
    *result = build_path(b, b->dir, kind == EMIT_OBJ ? "model.o" : "result");
    if (kind == EMIT_OBJ) return true;
    if (kind == EMIT_LIB) return archive(b, *result);
    return (kind != EMIT_EXE || compile_object(b, "main.c", "main.o")) && link_result(b, kind, *result);
}

bool build_install(Build *b, const char *from, const char *to, unsigned mode) {
    OutFile f;
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return diag_error(b->d, from, "cannot open: %s", strerror(errno));
    bool ok = outfile_open(&f, to, mode, b->a, b->d);
    char *buffer = mem_alloc(1 << 20);
    for (ssize_t n; ok && (n = read(fd, buffer, 1 << 20)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            ok = diag_error(b->d, from, "cannot read: %s", strerror(errno));
            outfile_abandon(&f);
        } else
            ok = outfile_write(&f, buffer, (size_t)n);
    }
    mem_free(buffer);
    close(fd);
    return ok && outfile_commit(&f);
}
