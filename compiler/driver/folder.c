/* --emit=c: a folder of sources that `make` builds with a C99 compiler and nothing of ours but what is in it.
 *
 * All files are made in a folder beside the one asked for and moved when the last is complete, so a failed compile leaves
 * no half-written folder, and one that was there before stays as it was: where files cannot be moved, those that were are put
 * back. */
#include "folder.h"

#include "../replace.h"
#include "../undo.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A model's file of C is split by kind of layer where it would be longer, and none is ever longer than the second. */
enum { LARGE_SOURCE = 512 << 10, MOST_SOURCE = 1000000 };

typedef enum RuntimeSet { SET_ALWAYS, SET_TRAIN, SET_BLAS, SET_TEXT, SET_VARIANTS } RuntimeSet;

/* The runtime's files that a folder gets, in the order of its README. */
static const struct {
    RuntimeSet set;
    FileUse use;
    const char *name, *as, *what; /* as: the name in the folder, NULL: the same */
} runtime_files[] = {
    {SET_ALWAYS, USE_RUNTIME, "moec_rt.h", NULL, "what a program that embeds the model includes; its comments are the reference"},
    {SET_ALWAYS, USE_RUNTIME, "moec_kernel.h", NULL, "scalar functions and the matrix product of the generated kernels"},
    {SET_ALWAYS, USE_RUNTIME, "rt.c", NULL, "open, close, run"},
    {SET_ALWAYS, USE_RUNTIME, "weights_file.c", NULL, "the weights: read, mapped or linked in; whose they are"},
    {SET_ALWAYS, USE_RUNTIME, "adapters.c", NULL, "adapters: their slots, loading, saving"},
    {SET_ALWAYS, USE_RUNTIME, "sizes.c", NULL, "what the model takes in bytes"},
    {SET_ALWAYS, USE_RUNTIME, "generate.c", NULL, "greedy decoding"},
    {SET_ALWAYS, USE_RUNTIME, "packed.c", NULL, "batches without padding"},
    {SET_ALWAYS, USE_RUNTIME, "profile.c", NULL, "what kernels take, where the program measures them"},
    {SET_ALWAYS, USE_RUNTIME, "tables.c", NULL, "questions about the model's tables: names, extents, sizes"},
    {SET_ALWAYS, USE_RUNTIME, "pool.c", NULL, "threads and barriers"},
    {SET_ALWAYS, USE_RUNTIME, "atomic.h", NULL, "counters that threads share"},
    {SET_VARIANTS, USE_RUNTIME, "dispatch.c", NULL, "what this CPU runs of the model's variants"},
    {SET_ALWAYS, USE_RUNTIME, "safetensors.c", NULL, "adapter files"},
    {SET_ALWAYS, USE_RUNTIME, "safetensors_write.c", NULL, "adapter files, written"},
    {SET_ALWAYS, USE_RUNTIME, "json.c", NULL, "strict JSON reader"},
    {SET_ALWAYS, USE_RUNTIME, "file.c", NULL, "reading, mapping, writing of files"},
    {SET_ALWAYS, USE_RUNTIME, "mem.c", NULL, "the only calls of malloc and of anonymous mmap"},
    {SET_ALWAYS, USE_RUNTIME, "message.c", NULL, "one-line diagnostics, status texts"},
    {SET_ALWAYS, USE_RUNTIME, "chars.c", NULL, "text that grows; JSON strings"},
    {SET_ALWAYS, USE_RUNTIME, "internal.h", NULL, "what the runtime's files share"},
    {SET_TRAIN, USE_RUNTIME, "moec_train.h", NULL, "training: what a program that trains the model includes"},
    {SET_TRAIN, USE_RUNTIME, "trainer.c", NULL, "training: batches and steps"},
    {SET_TRAIN, USE_RUNTIME, "optimizer.c", NULL, "training: Adafactor, AdamW, SGD"},
    {SET_TRAIN, USE_RUNTIME, "train_options.c", NULL, "training: options, schedules"},
    {SET_TRAIN, USE_RUNTIME, "train_impl.h", NULL, "training: what its files share"},
    {SET_TRAIN, USE_RUNTIME, "checkpoint.h", NULL, "checkpoints of training"},
    {SET_TRAIN, USE_RUNTIME, "checkpoint.c", NULL, "checkpoints: saved whole, the newest whole one loaded"},
    {SET_TRAIN, USE_RUNTIME, "checkpoint_state.c", NULL, "checkpoints: state.json"},
    {SET_TRAIN, USE_RUNTIME, "run_folder.c", NULL, "checkpoints: names in a run's folder"},
    {SET_ALWAYS, USE_PROGRAM, "moec_main.h", NULL, "the command line: its entry"},
    {SET_BLAS, USE_PROGRAM, "blas.c", NULL, "OpenBLAS' choice of kernels"},
    {SET_ALWAYS, USE_PROGRAM, "main.c", "moec_main.c", "the command line: options, help"},
    {SET_ALWAYS, USE_PROGRAM, "cli.h", NULL, "what the files of the command line share"},
    {SET_ALWAYS, USE_PROGRAM, "cli_call.c", NULL, "its calls of the model's functions; progress"},
    {SET_ALWAYS, USE_PROGRAM, "cli_guard.c", NULL, "its option --map: what a weights file that is cut leads to"},
    {SET_ALWAYS, USE_PROGRAM, "cli_examples.c", NULL, "its inputs: ids, JSONL"},
    {SET_ALWAYS, USE_PROGRAM, "jsonl.h", NULL, "lines of JSON: their reader"},
    {SET_ALWAYS, USE_PROGRAM, "jsonl.c", NULL, "lines of JSON, read as a stream"},
    {SET_ALWAYS, USE_PROGRAM, "npy.c", NULL, ".npy files"},
    {SET_ALWAYS, USE_PROGRAM, "names.c", NULL, "byte strings and their numbers"},
    {SET_ALWAYS, USE_PROGRAM, "cli_inputs.c", NULL, "states of its inputs, without padding"},
    {SET_ALWAYS, USE_PROGRAM, "cli_seq2seq.c", NULL, "its commands generate, encode, score"},
    {SET_ALWAYS, USE_PROGRAM, "cli_eval.h", NULL, "what its command eval consists of"},
    {SET_ALWAYS, USE_PROGRAM, "cli_eval.c", NULL, "its command eval"},
    {SET_ALWAYS, USE_PROGRAM, "cli_eval_read.c", NULL, "the examples of eval"},
    {SET_ALWAYS, USE_PROGRAM, "cli_eval_window.c", NULL, "the scores of eval"},
    {SET_ALWAYS, USE_PROGRAM, "cli_eval_report.c", NULL, "the table and JSON of eval"},
    {SET_ALWAYS, USE_PROGRAM, "metrics.h", NULL, "metrics of evaluation: pure functions and counters"},
    {SET_ALWAYS, USE_PROGRAM, "metrics.c", NULL, "medians, exact matches, counters by task"},
    {SET_ALWAYS, USE_PROGRAM, "cli_run.c", NULL, "its commands run and info"},
    {SET_ALWAYS, USE_PROGRAM, "cli_export.c", NULL, "its command export"},
    {SET_ALWAYS, USE_PROGRAM, "cli_profile.h", NULL, "profiles as tables: for programs that print one"},
    {SET_ALWAYS, USE_PROGRAM, "cli_profile.c", NULL, "its options --profile, --profile-calls, --profile-json"},
    {SET_TRAIN, USE_PROGRAM, "cli_train.h", NULL, "what its command train consists of"},
    {SET_TRAIN, USE_PROGRAM, "cli_train.c", NULL, "its command train: a run"},
    {SET_TRAIN, USE_PROGRAM, "cli_train_data.c", NULL, "the data of a run"},
    {SET_TRAIN, USE_PROGRAM, "cli_train_eval.c", NULL, "evaluation within a run"},
    {SET_TRAIN, USE_PROGRAM, "cli_train_log.c", NULL, "metrics.jsonl, and what a person sees of a run"},
    {SET_TRAIN, USE_PROGRAM, "cli_train_memory.c", NULL, "the memory a run takes"},
    {SET_TRAIN, USE_PROGRAM, "dataset.h", NULL, "training data: examples, their order, batches"},
    {SET_TRAIN, USE_PROGRAM, "dataset.c", NULL, "training data: reading"},
    {SET_TRAIN, USE_PROGRAM, "data_order.c", NULL, "training data: which example comes next"},
    {SET_TRAIN, USE_PROGRAM, "data_batch.c", NULL, "training data: steps and batches"},
    {SET_ALWAYS, USE_PROGRAM, "text.h", NULL, "the face of a tokenizer"},
    {SET_TEXT, USE_PROGRAM, "spiece.c", NULL, "checks of a vocabulary"},
    {SET_TEXT, USE_PROGRAM, "text.cc", NULL, "the tokenizer: T5's rules over libsentencepiece"},
};
enum { N_RUNTIME = sizeof runtime_files / sizeof *runtime_files };

/* ---- its files ------------------------------------------------------------------------------------------- */

static void list_file(Folder *f, FileUse use, const char *name, const char *what) {
    vec_push(&f->file, ((FolderFile){name, what, use}));
}

static bool write_text(Folder *f, const char *name, const Text *t) {
    return outfile_text(build_path(f->b, f->dir, name), t, f->b->d);
}

static bool write_model(Folder *f) {
    Sources s;
    if (!build_program(f->b) || !program_sources(f->b->program, f->b->a, LARGE_SOURCE, MOST_SOURCE, &s, f->b->d)) return false;
    bool ok = true;
    for (uint32_t i = 0; i < s.count && ok; i++) {
        list_file(f, f->b->o->dispatch && name_ends(s.item[i].name, ".c") ? USE_VARIANT : USE_MODEL, s.item[i].name, s.item[i].what);
        ok = write_text(f, s.item[i].name, &s.item[i].text);
    }
    sources_free(&s);
    if (!ok || !f->b->o->dispatch) return ok;
    f->n_variants = build_variants(f->b, f->variant);
    list_file(f, USE_MODEL, build_variants_name(f->b), "which variant of the model runs");
    return build_variants_text(f->b, f->dir);
}

static bool write_weights_asm(Folder *f) {
    if (!f->b->codegen.embed_weights) return true;
    list_file(f, USE_MODEL, "weights.S", "puts the weights into the program");
    return build_weights_asm(f->b, f->dir, f->weights);
}

static bool write_ir(Folder *f) {
    if (f->b->codegen.ir_file) list_file(f, USE_OTHER, f->b->codegen.ir_file, "the IR that debuggers show in the place of the model's C");
    return build_ir(f->b, f->dir);
}

static bool write_vocabulary(Folder *f) {
    if (!f->text) return true;
    list_file(f, USE_OTHER, f->text, "the vocabulary, read by the program when it meets text");
    return build_install_text(f->b, build_path(f->b, f->dir, f->text));
}

static bool write_runtime(Folder *f) {
    bool take[] = {[SET_ALWAYS] = true, [SET_TRAIN] = f->b->o->train, [SET_BLAS] = !f->b->codegen.plain_matmul, [SET_TEXT] = f->text != NULL,
                   [SET_VARIANTS] = f->b->o->dispatch};
    for (size_t i = 0; i < N_RUNTIME; i++) {
        if (!take[runtime_files[i].set]) continue;
        const EmbeddedFile *e = embedded_find(runtime_files[i].name);
        if (!e) BUG("the runtime has no file '%s'", runtime_files[i].name);
        EmbeddedFile as = *e;
        if (runtime_files[i].as) as.name = runtime_files[i].as;
        list_file(f, runtime_files[i].use, as.name, runtime_files[i].what);
        if (!build_embedded(f->b, f->dir, &as)) return false;
    }
    return true;
}

static const struct {
    const char *name, *what;
    void (*print)(const Folder *f, Text *t);
} text_files[] = {
    {"Makefile", "builds the program with make", folder_makefile},
    {"CMakeLists.txt", "the same with CMake", folder_cmake},
    {"README.md", "this text", folder_readme},
};
enum { N_TEXTS = sizeof text_files / sizeof *text_files };

static bool write_texts(Folder *f) {
    bool ok = true;
    for (size_t i = 0; i < N_TEXTS; i++) list_file(f, USE_OTHER, text_files[i].name, text_files[i].what);
    for (size_t i = 0; i < N_TEXTS && ok; i++) {
        Text t = {0};
        text_files[i].print(f, &t);
        ok = write_text(f, text_files[i].name, &t);
        text_free(&t);
    }
    return ok;
}

/* Whether two files cannot stand in one folder, or would be built into one object. */
static bool clashes(const char *a, const char *b) {
    size_t n = strcspn(a, ".");
    return strcmp(a, b) == 0 || (name_ends(a, ".c") && (name_ends(b, ".S") || name_ends(b, ".cc")) && strncmp(a, b, n + 1) == 0);
}

/* The model's files and the program stand beside the runtime's, and the Makefile has a word of its own. */
static bool names_differ(Folder *f) {
    const char *x = f->b->codegen.prefix, *clash = strcmp(x, "clean") == 0 ? x : NULL;
    for (size_t i = 0; i < f->file.count && !clash; i++) {
        if (strcmp(f->file.item[i].name, x) == 0) clash = x;
        for (size_t j = 0; j < f->file.count && !clash; j++)
            if (i != j && clashes(f->file.item[i].name, f->file.item[j].name)) clash = f->file.item[i].name;
    }
    return !clash || diag_error(f->b->d, DIAG_FOLDER_MAKE, NULL, "the folder has another '%s': choose a name with --prefix", clash);
}

/* ---- the folder as a whole --------------------------------------------------------------------------------- */

static bool write_all(Folder *f) {
    Build *b = f->b;
    OutFile weights;
    if (!build_weights(b, build_path(b, f->dir, f->weights), &weights)) return false;
    bool ok = write_model(f) && write_weights_asm(f) && write_ir(f);
    list_file(f, USE_OTHER, f->weights, b->codegen.embed_weights ? "the weights, part of the program when it has been built"
                                                                 : "the weights, read when the model is opened");
    list_file(f, USE_PROGRAM, "main.c", "main of the program");
    ok = ok && write_vocabulary(f) && build_main(b, f->dir, f->text != NULL) && write_runtime(f) && write_texts(f) && names_differ(f);
    if (ok) return outfile_commit(&weights);
    outfile_abandon(&weights);
    return false;
}

/* Into a folder that has files: those of ours are replaced together, others stay. */
static bool replace_files(Folder *f, const char *out) {
    Build *b = f->b;
    size_t n = f->file.count;
    Replace *r = arena_array(b->a, n, sizeof *r);
    for (size_t i = 0; i < n; i++) {
        const char *name = f->file.item[i].name, *to = build_path(b, out, name);
        r[i] = (Replace){.from = build_path(b, f->dir, name), .to = to, .aside = arena_printf(b->a, "%s.%ld.old", to, (long)getpid())};
    }
    return replace_all(r, n, b->d);
}

/* One rename where nothing (or an empty folder) is in the way. */
static bool put_in_place(Folder *f, const char *out) {
    int error = folder_place(f->dir, out);
    if (error == ENOTEMPTY || error == EEXIST) return replace_files(f, out);
    return !error || diag_error(f->b->d, DIAG_FOLDER_MAKE, out, "cannot make the folder: %s", strerror(error));
}

bool build_folder(Build *b, const char *out) {
    if (!build_spares_input(b, out)) return false;
    Folder f = {.b = b, .weights = arena_printf(b->a, "%s.weights", b->codegen.prefix)};
    if (b->o->tokenizer) {
        if (!build_text(b)) return false;
        if (!b->text_model)
            return diag_error(b->d, DIAG_MODEL_FILES, b->model->path, "--tokenizer: there is no spiece.model beside the model, which text needs");
        f.text = arena_printf(b->a, "%s.spiece.model", b->codegen.prefix);
    }
    for (int i = 0; i < 100 && !f.dir; i++) {
        const char *candidate = arena_printf(b->a, "%s.%ld.%d", out, (long)getpid(), i);
        undo_add(candidate);
        if (mkdir(candidate, 0777) == 0) {
            f.dir = candidate;
            break;
        }
        undo_drop(candidate);
        if (errno != EEXIST) return diag_error(b->d, DIAG_FOLDER_MAKE, out, "cannot make the folder: %s", strerror(errno));
    }
    if (!f.dir) return diag_error(b->d, DIAG_FOLDER_MAKE, out, "cannot make a folder beside it");
    bool ok = write_all(&f) && put_in_place(&f, out);
    undo_now(f.dir); /* nothing is left to remove after a success in one rename */
    vec_free(&f.file);
    return ok;
}
