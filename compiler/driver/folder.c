/* --emit=c: a folder of sources that `make` builds with a C99 compiler and nothing of ours but what is in it.
 *
 * All files are made in a folder beside the one asked for and moved when the last is complete, so a failed compile leaves
 * no half-written folder, and one that was there before stays as it was. */
#include "build.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The runtime's files that a folder gets, in the order of its README. The tokenizer's are not among them. */
static const struct {
    const char *name, *what;
} runtime_files[] = {
    {"moec_rt.h", "what a program that embeds the model includes; its comments are the reference"},
    {"moec_kernel.h", "scalar functions and the matrix product of the generated kernels"},
    {"rt.c", "open, close, run"},
    {"adapters.c", "adapters: their slots, loading, saving"},
    {"sizes.c", "what the model takes in bytes"},
    {"generate.c", "greedy decoding"},
    {"profile.c", "what kernels take, where the program measures them"},
    {"tables.c", "questions about the model's tables: names, extents, sizes"},
    {"pool.c", "threads and barriers"},
    {"atomic.h", "counters that threads share"},
    {"safetensors.c", "adapter files"},
    {"json.c", "strict JSON reader"},
    {"jsonl.h", "lines of JSON: their reader"},
    {"jsonl.c", "lines of JSON, read as a stream"},
    {"file.c", "reading, mapping, writing of files"},
    {"mem.c", "the only calls of malloc and mmap"},
    {"message.c", "one-line diagnostics, status texts"},
    {"internal.h", "what the runtime's files share"},
    {"moec_main.h", "the command line: its entry"},
    {"blas.c", "OpenBLAS' choice of kernels"},
    {"main.c", NULL}, /* the runtime's: goes as moec_main.c, beside the generated one */
    {"cli.h", "what the files of the command line share"},
    {"cli_call.c", "its calls of the model's functions; progress"},
    {"cli_examples.c", "its inputs: ids, JSONL"},
    {"cli_seq2seq.c", "its commands generate, encode, score"},
    {"metrics.h", "metrics of evaluation: pure functions and counters"},
    {"metrics.c", "medians, exact matches, counters by task"},
    {"cli_eval.h", "what its command eval consists of"},
    {"cli_eval.c", "its command eval"},
    {"cli_eval_read.c", "the examples of eval"},
    {"cli_eval_window.c", "the scores of eval"},
    {"cli_eval_report.c", "the table and JSON of eval"},
    {"cli_run.c", "its commands run and info"},
    {"cli_train.h", "what its command train consists of"},
    {"cli_train.c", "its command train: a run"},
    {"cli_train_data.c", "the data of a run"},
    {"cli_train_eval.c", "evaluation within a run"},
    {"cli_train_log.c", "metrics.jsonl, and what a person sees of a run"},
    {"cli_train_memory.c", "the memory a run takes"},
    {"cli_export.c", "its command export"},
    {"cli_profile.h", "profiles as tables: for programs that print one"},
    {"cli_profile.c", "its options --profile, --profile-calls, --profile-json"},
    {"npy.c", ".npy files"},
    {"moec_train.h", "training: what a program that trains the model includes"},
    {"trainer.c", "training: batches and steps"},
    {"optimizer.c", "training: Adafactor, AdamW, SGD"},
    {"train_options.c", "training: options, schedules"},
    {"train_impl.h", "training: what its files share"},
    {"dataset.h", "training data: examples, their order, batches"},
    {"dataset.c", "training data: reading"},
    {"data_order.c", "training data: which example comes next"},
    {"data_batch.c", "training data: steps and batches"},
    {"checkpoint.h", "checkpoints of training"},
    {"checkpoint.c", "checkpoints: saved whole, the newest whole one loaded"},
    {"checkpoint_state.c", "checkpoints: state.json"},
    {"run_folder.c", "checkpoints: names in a run's folder"},
    {"safetensors_write.c", "adapter files, written"},
    {"chars.c", "text that grows; JSON strings"},
    {"names.c", "byte strings and their numbers"},
    {"text.h", "the face of a tokenizer; this folder has none, inputs are token ids"},
};
enum { N_RUNTIME = sizeof runtime_files / sizeof *runtime_files };
static const char cli_main[] = "moec_main.c";

static const char *folder_name(size_t i) {
    return runtime_files[i].what ? runtime_files[i].name : cli_main;
}

static bool is_source(const char *name) {
    size_t n = strlen(name);
    return n > 2 && strcmp(name + n - 2, ".c") == 0;
}

static bool write_runtime(Build *b, const char *dir) {
    for (size_t i = 0; i < N_RUNTIME; i++) {
        const EmbeddedFile *e = embedded_find(runtime_files[i].name);
        if (!e) BUG("the runtime has no file '%s'", runtime_files[i].name);
        EmbeddedFile as = *e;
        as.name = folder_name(i);
        if (!build_embedded(b, dir, &as)) return false;
    }
    return true;
}

static bool write_makefile(Build *b, const char *dir) {
    const char *x = b->codegen.prefix;
    Text t = {0};
    text_printf(&t, "# Builds the program %s from the sources in this folder with any C99 compiler: make CC=clang CFLAGS=-O2\n", x);
    text_printf(&t, "CC ?= cc\nCFLAGS ?= %s-O3 -march=native -fno-math-errno -fno-trapping-math\n", b->codegen.ir_file ? "-g " : "");
    text_printf(&t, "LDLIBS = %s-lm -lpthread\n", b->codegen.plain_matmul ? "" : "-lopenblas ");
    text_printf(&t, "OBJECTS = %s.o main.o%s", x, b->codegen.embed_weights ? " weights.o" : "");
    for (size_t i = 0, n = 0; i < N_RUNTIME; i++) {
        const char *name = folder_name(i);
        if (is_source(name)) text_printf(&t, "%s %.*s.o", n++ % 8 ? "" : " \\\n   ", (int)strlen(name) - 2, name);
    }
    text_printf(&t, "\n\n%s: $(OBJECTS)\n\t$(CC) $(LDFLAGS) -o $@ $(OBJECTS) $(LDLIBS)\n\n", x);
    text_printf(&t, "%%.o: %%.c $(wildcard *.h)\n\t$(CC) -std=c99 $(CFLAGS) -c -o $@ $<\n\n");
    if (b->codegen.embed_weights) text_printf(&t, "weights.o: weights.S %s.weights\n\t$(CC) -c -o $@ weights.S\n\n", x);
    text_printf(&t, "clean:\n\trm -f $(OBJECTS) %s\n\n.PHONY: clean\n", x);
    bool ok = outfile_text(build_path(b, dir, "Makefile"), &t, b->d);
    text_free(&t);
    return ok;
}

static bool write_readme(Build *b, const char *dir) {
    const char *x = b->codegen.prefix;
    Text t = {0};
    text_printf(&t, "# %s\n\nA model compiled to C by moec. `make` builds the program `%s`%s; `make CC=clang` and any `CFLAGS` do.\n\n", x, x,
                b->codegen.plain_matmul ? ", with nothing but libc, libm and pthreads" : ", which needs OpenBLAS");
    text_printf(&t, "    make && ./%s info\n\n", x);
    if (b->model->m->s2s.present) text_printf(&t, "    ./%s generate --ids 4,60,70,80,1\n\n", x);
    text_printf(&t, "To use the model in another program, compile all files but `main.c` and the command line's with it, include\n"
                    "`%s.h`, and see `moec_rt.h`: `moec_open(%s_program(), &options, &instance)`, then `moec_run` or `moec_generate`.\n\n", x, x);
    text_printf(&t, "| file | what |\n|---|---|\n| `%s.c` | the model: kernels, functions, tables. Read its first lines, then the functions below the kernels |\n", x);
    text_printf(&t, "| `%s.h` | its entry point |\n| `%s.weights` | the weights, mapped when the model is opened%s |\n", x, x,
                b->codegen.embed_weights ? "; here part of the program" : "; keep it beside the program");
    if (b->codegen.embed_weights) text_printf(&t, "| `weights.S` | puts the weights into the program |\n");
    if (b->codegen.ir_file) text_printf(&t, "| `%s` | the IR that debuggers show in the place of `%s.c` |\n", b->codegen.ir_file, x);
    text_printf(&t, "| `main.c` | main of the program |\n| `Makefile` | builds it |\n");
    for (size_t i = 0; i < N_RUNTIME; i++)
        text_printf(&t, "| `%s` | %s |\n", folder_name(i), runtime_files[i].what ? runtime_files[i].what : "the command line: options, help");
    bool ok = outfile_text(build_path(b, dir, "README.md"), &t, b->d);
    text_free(&t);
    return ok;
}

/* The model's files stand beside the runtime's. */
static bool name_is_free(Build *b) {
    size_t n = strlen(b->codegen.prefix);
    bool taken = strcmp(b->codegen.prefix, "main") == 0 || strcmp(b->codegen.prefix, "weights") == 0;
    for (size_t i = 0; i < N_RUNTIME && !taken; i++) {
        const char *name = folder_name(i);
        taken = strncmp(name, b->codegen.prefix, n) == 0 && name[n] == '.';
    }
    return !taken || diag_error(b->d, DIAG_FOLDER_MAKE, NULL,
                                "the folder has another file '%s.c' or '%s.h': choose a name with --prefix",
                                b->codegen.prefix, b->codegen.prefix);
}

/* ---- the folder as a whole --------------------------------------------------------------------------------- */

/* Calls f for each file of dir; false when a call is. */
static bool each_file(const char *dir, bool (*f)(Build *b, const char *dir, const char *name, const char *to), Build *b, const char *to) {
    DIR *d = opendir(dir);
    bool ok = d != NULL;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) ok = f(b, dir, e->d_name, to);
    if (d) closedir(d);
    return ok;
}

static bool remove_file(Build *b, const char *dir, const char *name, const char *to) {
    (void)to;
    unlink(build_path(b, dir, name));
    return true;
}

static bool move_file(Build *b, const char *dir, const char *name, const char *to) {
    const char *target = build_path(b, to, name);
    return rename(build_path(b, dir, name), target) == 0 ||
           diag_error(b->d, DIAG_FOLDER_MAKE, target, "cannot move into place: %s", strerror(errno));
}

static bool write_all(Build *b, const char *dir) {
    const char *x = b->codegen.prefix;
    const char *weights_name = arena_printf(b->a, "%s.weights", x);
    OutFile weights;
    if (!build_weights(b, build_path(b, dir, weights_name), &weights)) return false;
    if (write_runtime(b, dir) && build_model(b, dir) && build_ir(b, dir) && build_main(b, dir, false) &&
        write_makefile(b, dir) && write_readme(b, dir) && (!b->codegen.embed_weights || build_weights_asm(b, dir, weights_name)))
        return outfile_commit(&weights);
    outfile_abandon(&weights);
    return false;
}

/* One rename where nothing (or an empty folder) is in the way, else one a file. */
static bool put_in_place(Build *b, const char *dir, const char *out) {
    if (rename(dir, out) == 0) return true;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return diag_error(b->d, DIAG_FOLDER_MAKE, out, "cannot make the folder: %s", strerror(errno));
    return each_file(dir, move_file, b, out);
}

bool build_folder(Build *b, const char *out) {
    if (!name_is_free(b) || !build_spares_input(b, out)) return false;
    const char *dir = NULL;
    for (int i = 0; i < 100 && !dir; i++) {
        const char *candidate = arena_printf(b->a, "%s.%ld.%d", out, (long)getpid(), i);
        if (mkdir(candidate, 0777) == 0) dir = candidate;
        else if (errno != EEXIST)
            return diag_error(b->d, DIAG_FOLDER_MAKE, out, "cannot make the folder: %s", strerror(errno));
    }
    if (!dir)
        return diag_error(b->d, DIAG_FOLDER_MAKE, out, "cannot make a folder beside it");
    bool ok = write_all(b, dir) && put_in_place(b, dir, out);
    each_file(dir, remove_file, b, NULL); /* nothing is left to remove after a success in one rename */
    rmdir(dir);
    return ok;
}
