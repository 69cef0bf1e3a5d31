/* Native code without a C compiler: objects by LLVM, programs by the system's linker (`ld`, or --linker) from the objects, the
 * runtime's archive that moec carries, and libc's start files. */
#include "build.h"

#include "../../codegen/llvm.h"

#include <string.h>
#include <unistd.h>

static LlvmOptions options_of(const Build *b, LlvmForm form) {
    const EmbeddedFile *v =
        embedded_find(b->codegen.plain_matmul ? "vocabulary_plain.bc" : "vocabulary_openblas.bc");
    const char *cpu = b->o->mcpu ? b->o->mcpu : b->o->march ? b->o->march : b->o->dispatch ? "generic" : NULL;
    LlvmOptions o = {.triple = b->target, .cpu = cpu, .form = form};
    o.level = b->o->level == 0 || b->o->level == 1 ? (int)b->o->level : 3;
    o.source_dir = b->source_dir;
    if (v)
        o.vocabulary = (Str){(const char *)v->data, v->size};
    if (b->codegen.embed_weights)
        o.weights = build_path((Build *)b, b->dir, "weights.bin");
    return o;
}

static bool write_bytes(Build *b, const char *name, const Text *t) {
    OutFile f;
    return outfile_open(&f, build_path(b, b->dir, name), 0666, b->a, b->d) && outfile_write(&f, t->p, t->n) &&
           outfile_commit(&f);
}

bool build_llvm_objects(Build *b, EmitKind kind) {
    static const struct {
        LlvmForm form;
        const char *name;
    } result[EMIT_COUNT] = {
        [EMIT_EXE] = {LLVM_FORM_OBJECT, "model.o"},  [EMIT_OBJ] = {LLVM_FORM_OBJECT, "model.o"},
        [EMIT_LIB] = {LLVM_FORM_OBJECT, "model.o"},  [EMIT_SHARED] = {LLVM_FORM_OBJECT, "model.o"},
        [EMIT_ASM] = {LLVM_FORM_ASM, "model.s"},     [EMIT_LLVM] = {LLVM_FORM_IR, "model.ll"},
        [EMIT_BC] = {LLVM_FORM_BITCODE, "model.bc"},
    };
    if (b->target && (kind == EMIT_EXE || kind == EMIT_LIB || kind == EMIT_SHARED))
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL,
                          "the runtime that moec carries is this machine's: for %s use --emit=obj, and the "
                          "runtime's sources from --emit=c",
                          b->target);
    LlvmOptions o = options_of(b, result[kind].form), main = options_of(b, LLVM_FORM_OBJECT);
    Text t = {0};
    const CodeVariant *variant[MOST_VARIANTS];
    bool ok = build_program(b);
    o.variant = variant;
    o.n_variants = ok ? build_variants(b, variant) : 0;
    mem_doing("step", "LLVM");
    ok = ok && llvm_emit(b->program, &o, &t, b->d) && write_bytes(b, result[kind].name, &t);
    t.n = 0;
    if (ok && kind == EMIT_EXE)
        ok = llvm_emit_main(b->codegen.prefix, b->text_model != NULL, !b->codegen.plain_matmul, &main, &t,
                            b->d) &&
             write_bytes(b, "main.o", &t);
    text_free(&t);
    return ok;
}

/* ---- linking --------------------------------------------------------------------------------------------------------- */

/* What a linker has to know of a machine: the loader its programs name, and where Debian keeps its libraries. */
static const struct {
    const char *machine, *loader, *folder;
} machines[] = {
    {"x86_64", "/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"},
    {"aarch64", "/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"},
    {"riscv64", "/lib/ld-linux-riscv64-lp64d.so.1", "riscv64-linux-gnu"},
};
enum { N_MACHINES = sizeof machines / sizeof *machines };

static int host_machine(void) {
    char *host = llvm_host();
    int found = -1;
    for (int i = 0; i < N_MACHINES && host; i++)
        if (strncmp(host, machines[i].machine, strlen(machines[i].machine)) == 0)
            found = i;
    mem_free(host);
    return found;
}

/* The folder of crt1.o; NULL when libc's development files are missing. */
static const char *start_folder(Build *b, int machine) {
    const char *folder[] = {arena_printf(b->a, "/usr/lib/%s", machines[machine].folder), "/usr/lib64",
                            "/usr/lib"};
    for (size_t i = 0; i < sizeof folder / sizeof *folder; i++)
        if (access(build_path(b, folder[i], "Scrt1.o"), R_OK) == 0)
            return folder[i];
    return NULL;
}

static void add_program(Build *b, Args *args, int machine, const char *start) {
    static const char *const head[] = {"-pie", "-dynamic-linker"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        vec_push(args, head[i]);
    vec_push(args, machines[machine].loader);
    vec_push(args, build_path(b, start, "Scrt1.o"));
    vec_push(args, build_path(b, start, "crti.o"));
    vec_push(args, build_path(b, b->dir, "main.o"));
}

bool build_llvm_link(Build *b, EmitKind kind, const char *result) {
    static const char *const common[] = {
        "--build-id",
        "--eh-frame-hdr", "--hash-style=gnu", "-z", "relro", "-z", "now", "-z", "noexecstack"};
    int machine = host_machine();
    if (machine < 0)
        return diag_error(
            b->d, DIAG_TOOL_MISSING, NULL,
            "this machine's linker is not known to moec: use --emit=obj and link with a C compiler");
    const char *start = start_folder(b, machine);
    if (!start)
        return diag_error(b->d, DIAG_TOOL_MISSING, NULL,
                          "Scrt1.o is not installed, with which programs start; install libc6-dev");
    if (access(machines[machine].loader, X_OK) != 0)
        return diag_error(b->d, DIAG_TOOL_MISSING, NULL,
                          "%s is not there, which starts programs of the GNU C library: use --emit=obj and link with a C compiler",
                          machines[machine].loader);
    bool program = kind == EMIT_EXE, text = program && b->text_model;
    Args args = {0};
    vec_push(&args, b->o->linker ? b->o->linker : "ld");
    vec_push(&args, "-o");
    vec_push(&args, result);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        vec_push(&args, common[i]);
    if (program)
        add_program(b, &args, machine, start);
    else
        vec_push(&args, "-shared");
    /* where ld looks of itself; other linkers have no folders of their own */
    const char *folders[] = {start, arena_printf(b->a, "/lib/%s", machines[machine].folder)};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        vec_push(&args, arena_printf(b->a, "-L%s", folders[i]));
    vec_push(&args, build_path(b, b->dir, "model.o"));
    if (text)
        vec_push(&args, build_path(b, b->dir, "libmoec_text.a"));
    if (!program)
        vec_push(&args, "--whole-archive");
    vec_push(&args, build_path(b, b->dir, "libmoec_rt.a"));
    if (!program)
        vec_push(&args, "--no-whole-archive");
    if (!b->codegen.plain_matmul)
        vec_push(&args, "-lopenblas");
    if (text) {
        vec_push(&args, "-lsentencepiece");
        vec_push(&args, "-l:libstdc++.so.6");
        vec_push(&args, "-l:libgcc_s.so.1");
    }
    vec_push(&args, "-lm");
    vec_push(&args, "-lpthread");
    vec_push(&args, "-lc");
    if (program)
        vec_push(&args, build_path(b, start, "crtn.o"));
    bool ok = build_tool(b, &args, "install binutils, or name a linker with --linker");
    vec_free(&args);
    return ok;
}
