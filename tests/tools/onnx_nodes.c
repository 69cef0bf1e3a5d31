/* Runs ONNX operator tests through moec:
 *   onnx_nodes [--mode=direct|bound|compiled|llvm] [--passes=P,..] [--paranoid] [-v] DIR [TEST...]
 *
 *   DIR/<test>/model.onnx, DIR/<test>/test_data_set_<i>/input_<j>.pb, output_<j>.pb, DIR/manifest.json
 *
 * direct evaluates what the frontend makes, dynamic ops included. bound runs passes (all of them unless told)
 * first; inputs whose values decide shapes are given to bind as constants. compiled goes on to C, the C
 * compiler (warnings are errors) and the runtime. A test passes when types and extents agree exactly and
 * floats to 1e-4. It may be refused, with a diagnostic, unless the manifest says that all of its operators
 * occur in T5 exports. Every test runs in a process of its own: a crash is a failure. Prints a line a failure
 * and a last line of counts; exits 1 when anything failed. */
#include "codegen/llvm.h"
#include "compiler/pass.h"
#include "frontends/file.h"
#include "frontends/json.h"
#include "frontends/onnx.h"
#include "runtime/moec_rt.h"

#include <dlfcn.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PASSED, REFUSED, FAILED, VERDICTS };
enum { SETS_MAX = 16, LIST_MAX = 32, SECONDS = 30 };

typedef struct Settings {
    const char *dir;
    bool bound, compiled, llvm, verbose, paranoid;
    const char *scratch; /* folder for what is built */
    const char *runtime; /* there: the library of all compiled models */
    PassId list[LIST_MAX];
    uint32_t n_list;
} Settings;

typedef struct Case {
    const Settings *set;
    const char *name;
    json_t *about; /* its entry in the manifest, or NULL */
    const char *model, *data;
    Arena *a;
    Diag *d;
    Module *m;
    OnnxFiles *files;
    Tensor *in, *want;
    Str *in_name;
    uint32_t n_in, n_out;
    int64_t *syms;
    char why[400];
} Case;

static int failed(Case *c, const char *fmt, ...) MOEC_PRINTF(2, 3);

static int failed(Case *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->why, sizeof c->why, fmt, ap);
    va_end(ap);
    return FAILED;
}

static bool exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

/* ---- comparing --------------------------------------------------------------------------------------- */

static bool close_enough(DType t, double absolute, double got, double want) {
    if (got == want || (got != got && want != want))
        return true;
    double rel = t == DT_F16 ? 2e-3 : 1e-4;
    return fabs(got - want) <= rel * fabs(want) + absolute;
}

static int compare(Case *c, uint32_t i, const Tensor *got, const Tensor *want) {
    int64_t n;
    double absolute = fmax(1e-6, json_number_value(json_object_get(c->about, "atol")));
    if (got->dtype != want->dtype)
        return failed(c, "output %u is %s, expected %s", i, dtype_name(got->dtype), dtype_name(want->dtype));
    if (got->rank != want->rank)
        return failed(c, "output %u has %d axes, expected %d", i, got->rank, want->rank);
    for (int k = 0; k < got->rank; k++)
        if (got->dim[k] != want->dim[k])
            return failed(c, "extent %d of output %u is %lld, expected %lld", k, i, (long long)got->dim[k],
                          (long long)want->dim[k]);
    if (!tensor_count(got, &n))
        return failed(c, "output %u is too large", i);
    for (int64_t k = 0; k < n; k++) {
        double g = tensor_get_f64(got, k), w = tensor_get_f64(want, k);
        bool same = dtype_is_float(got->dtype) ? close_enough(got->dtype, absolute, g, w)
                                               : tensor_get_i64(got, k) == tensor_get_i64(want, k);
        if (!same)
            return failed(c, "element %lld of output %u is %.9g, expected %.9g", (long long)k, i, g, w);
    }
    return PASSED;
}

/* ---- one data set -------------------------------------------------------------------------------------- */

static bool load(Case *c, const char *kind, uint32_t n, Tensor *out) {
    for (uint32_t i = 0; i < n; i++)
        if (!onnx_tensor_file(arena_printf(c->a, "%s/%s_%u.pb", c->data, kind, i), c->a, &out[i], c->d))
            return false;
    return true;
}

static bool decides_shape(const Case *c, Str name) {
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(c->about, "shape_inputs"), i,
                       v) if (json_is_string(v)
                                  ? str_is(name, json_string_value(v))
                                  : json_is_integer(v) &&
                                        str_eq(name, c->in_name[json_integer_value(v)])) return true;
    return false;
}

/* Bounds that hold the test's extents where the defaults do not; `exact`: every symbol has the test's value.
 */
static void give_bounds(Case *c, PassOptions *o, bool exact) {
    size_t n = dim_sym_count(c->m->dims);
    DimBound *b = arena_array(c->a, n + 1, sizeof *b);
    for (uint32_t s = 0; s < n; s++)
        if (exact && c->syms[s] >= 0)
            b[o->n_dims++] = (DimBound){dim_sym_at(c->m->dims, s)->name, c->syms[s], c->syms[s]};
        else if (c->syms[s] == 0 || c->syms[s] > 64)
            b[o->n_dims++] = (DimBound){dim_sym_at(c->m->dims, s)->name, 0, 4096};
    o->dim = b;
}

/* The manifest does not tell inputs that decide an axis. */
static bool may_decide(const Tensor *t) {
    return !dtype_is_float(t->dtype) && t->dtype != DT_BOOL && (t->rank == 0 || (t->rank == 1 && t->dim[0] <= 8));
}

static bool run_passes(Case *c, bool exact) {
    PassOptions o = {.plain = true, .opt_level = 2};
    InputValue *values = arena_array(c->a, c->n_in + 1, sizeof *values);
    give_bounds(c, &o, exact);
    for (uint32_t i = 0; i < c->n_in; i++)
        if (decides_shape(c, c->in_name[i]) || (exact && may_decide(&c->in[i])))
            values[o.n_values++] = (InputValue){.input = c->in_name[i], .value = c->in[i]};
    o.value = values;
    PassRun run = {.options = &o,
                   .list = c->set->n_list ? c->set->list : NULL,
                   .n_list = c->set->n_list,
                   .paranoid = c->set->paranoid};
    return passes_run(c->m, &run, c->d);
}

/* The bound function may have fewer inputs than the model: those given as values are gone. */
static void remaining_inputs(Case *c, const Func *f, Tensor *in) {
    for (uint32_t i = 0; i < f->n_inputs; i++)
        for (uint32_t k = 0; k < c->n_in; k++)
            if (str_eq(f->value[f->input[i]].name, c->in_name[k]))
                in[i] = c->in[k];
}

/* Imports the model and loads the data set; PASSED: go on. */
static int import(Case *c) {
    c->m = module_new();
    c->files = onnx_files_new();
    if (!onnx_import(c->m, c->model, "main", c->files, c->d))
        return REFUSED;
    const Func *f = module_find(c->m, "main");
    c->n_in = f->n_inputs;
    c->n_out = f->n_outputs;
    c->in = arena_array(c->a, c->n_in + 1, sizeof *c->in);
    c->want = arena_array(c->a, c->n_out + 1, sizeof *c->want);
    c->in_name = arena_array(c->a, c->n_in + 1, sizeof *c->in_name);
    for (uint32_t i = 0; i < c->n_in; i++)
        c->in_name[i] = f->value[f->input[i]].name;
    if (!load(c, "input", c->n_in, c->in) || !load(c, "output", c->n_out, c->want))
        return failed(c, "its data do not load");
    c->syms = arena_array(c->a, dim_sym_count(c->m->dims) + 1, sizeof *c->syms);
    if (!module_verify(c->m, c->d, false))
        return failed(c, "what is imported does not verify");
    if (!func_bind_dims(c->m, f, c->in, c->syms, c->d))
        return failed(c, "the inputs do not fit");
    return PASSED;
}

/* ---- compiling ----------------------------------------------------------------------------------- */

extern char **environ;

static bool run_cc(const char *const *argv) {
    pid_t pid;
    int status;
    if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
        return fprintf(stderr, "cannot start cc\n"), false;
    waitpid(pid, &status, 0);
    return status == 0;
}

/* The runtime as one library that those of all models refer to. */
static bool make_runtime(const char *library) {
    const char *argv[] = {"cc", "-shared", "-o", library, "-Wl,--whole-archive", MOEC_BUILD_DIR "/libmoec_rt.a",
                          "-Wl,--no-whole-archive", "-lm", "-lpthread", NULL};
    return run_cc(argv) || (fprintf(stderr, "the runtime does not link\n"), false);
}

static bool link_library(Case *c, const char *source, const char *library) {
    const char *argv[] = {"cc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I",
                          MOEC_SOURCE_DIR "/runtime", "-o", library, source, "-Wl,--no-as-needed", c->set->runtime, NULL};
    return run_cc(argv) || (failed(c, "what was generated does not compile or link"), false);
}

static bool write_c(Case *c, const Program *p, const char *source) {
    Text code = {0}, header = {0};
    program_print_c(p, &code);
    program_print_header(p, &header);
    bool ok = outfile_text(source, &code, c->d) && outfile_text(arena_printf(c->a, "%s/model.h", c->set->scratch), &header, c->d);
    text_free(&code);
    text_free(&header);
    return ok;
}

static bool write_object(Case *c, const Program *p, const char *object) {
    LlvmOptions o = {.level = 1, .form = LLVM_FORM_OBJECT};
    Text code = {0};
    bool ok = file_read(c->a, MOEC_BUILD_DIR "/gen/vocabulary_plain.bc", 1 << 24, &o.vocabulary, c->d) &&
              llvm_emit(p, &o, &code, c->d) && outfile_text(object, &code, c->d);
    text_free(&code);
    return ok;
}

/* model.c or model.o, and the weights. */
static bool build(Case *c, const char *made, const char *weights) {
    Image image;
    OutFile file;
    CodegenOptions o = {.prefix = "model", .plain_matmul = true};
    if (!image_plan(c->m, "model", c->a, &image, c->d) || !outfile_open(&file, weights, 0666, c->a, c->d) ||
        !image_write(&image, &file, NULL, NULL, c->d) || !outfile_commit(&file))
        return false;
    Program *p = program_lower(c->m, &image, &o, c->d);
    bool ok = p && (c->set->llvm ? write_object(c, p, made) : write_c(c, p, made));
    if (p)
        program_free(p);
    return ok;
}

static bool symbol(void *library, const char *name, void *out) {
    void *p = dlsym(library, name);
    memcpy(out, &p, sizeof p);
    return p != NULL;
}

/* Builds the planned module, loads it and runs `main`. */
static int run_compiled(Case *c, const Tensor *in, uint32_t n_in, Tensor *out) {
    const char *weights = arena_printf(c->a, "%s/weights", c->set->scratch);
    const char *source = arena_printf(c->a, "%s/model.%c", c->set->scratch, c->set->llvm ? 'o' : 'c');
    const char *library = arena_printf(c->a, "%s/model.so", c->set->scratch);
    const moec_program *(*program)(void);
    moec_status (*open)(const moec_program *, const moec_options *, moec_instance **);
    moec_status (*run)(moec_instance *, uint32_t, const int64_t *, void *const *);
    if (!build(c, source, weights))
        return REFUSED;
    if (!link_library(c, source, library))
        return FAILED;
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!lib || !symbol(lib, "model_program", &program) || !symbol(lib, "moec_open", &open) ||
        !symbol(lib, "moec_run", &run))
        return failed(c, "it does not load: %s", lib ? "a symbol is missing" : dlerror());
    const moec_program *p = program();
    char message[200] = "";
    moec_options o = {.weights = weights, .threads = 2, .message = message, .message_room = sizeof message};
    moec_instance *instance;
    if (open(p, &o, &instance) != MOEC_OK)
        return failed(c, "it does not open: %s", message);
    int at = -1;
    for (uint32_t i = 0; i < p->n_functions; i++)
        at = strcmp(p->function[i].name, "main") == 0 ? (int)i : at;
    if (at < 0)
        return failed(c, "it has no function main");
    const moec_function *f = &p->function[at];
    if (f->n_inputs != n_in || f->n_outputs != c->n_out)
        return failed(c, "it has %u inputs and %u outputs", f->n_inputs, f->n_outputs);
    int64_t *syms = arena_array(c->a, p->n_symbols + 1, sizeof *syms);
    for (uint32_t i = 0; i < p->n_symbols; i++)
        for (uint32_t s = 0; s < dim_sym_count(c->m->dims); s++)
            if (str_is(dim_sym_at(c->m->dims, s)->name, p->symbol[i].name))
                syms[i] = c->syms[s];
    void **arg = arena_array(c->a, n_in + c->n_out + 1, sizeof *arg);
    for (uint32_t i = 0; i < n_in; i++)
        arg[i] = in[i].data;
    for (uint32_t i = 0; i < c->n_out; i++) {
        out[i].dtype = (DType)f->value[n_in + i].dtype;
        out[i].rank = f->value[n_in + i].rank;
        f->shape(syms, n_in + i, out[i].dim);
        if (!tensor_alloc(c->a, &out[i]))
            return failed(c, "output %u is too large", i);
        arg[n_in + i] = out[i].data;
    }
    moec_status status = run(instance, (uint32_t)at, syms, arg);
    return status == MOEC_OK ? PASSED : failed(c, "it does not run: %s", moec_status_text(status));
}

static int evaluate(Case *c) {
    const Func *f = module_find(c->m, "main");
    Tensor *in = c->in, *out = arena_array(c->a, c->n_out + 1, sizeof *out);
    int v = PASSED;
    if (c->set->bound) {
        in = arena_array(c->a, c->n_in + 1, sizeof *in);
        remaining_inputs(c, f, in);
        c->syms = arena_array(c->a, dim_sym_count(c->m->dims) + 1, sizeof *c->syms);
        if (!func_bind_dims(c->m, f, in, c->syms, c->d))
            return failed(c, "the inputs do not fit after the passes");
    }
    if (c->set->compiled)
        v = run_compiled(c, in, f->n_inputs, out);
    else if (!func_eval(c->m, f->id, c->syms, in, out, c->a, c->d))
        v = failed(c, "it does not evaluate");
    for (uint32_t i = 0; i < c->n_out && v == PASSED; i++)
        v = compare(c, i, &out[i], &c->want[i]);
    return v;
}

static void set_free(Case *c) {
    onnx_files_free(c->files);
    module_free(c->m);
    c->m = NULL;
    c->files = NULL;
}

/* Symbolic extents stay symbolic where the passes can do with that, else they take the test's values, and so do
 * small integer inputs. */
static int run_set(Case *c) {
    int v = import(c);
    if (v == PASSED && c->set->bound && !run_passes(c, false)) {
        diag_free(c->d);
        c->d = diag_new();
        set_free(c);
        v = import(c);
        if (v == PASSED && !run_passes(c, true))
            v = REFUSED;
    }
    if (v == PASSED)
        v = evaluate(c);
    set_free(c);
    return v;
}

/* ---- one test --------------------------------------------------------------------------------------------
 */

static bool must_pass(json_t *about) {
    return json_is_true(json_object_get(about, "t5_ops")) &&
           !json_is_true(json_object_get(about, "exotic_dtype"));
}

/* In the child: all data sets; the worst verdict counts. */
static int run_case(Case *c) {
    int worst = PASSED;
    c->model = arena_printf(c->a, "%s/%s/model.onnx", c->set->dir, c->name);
    for (int i = 0; i < SETS_MAX && worst == PASSED; i++) {
        c->data = arena_printf(c->a, "%s/%s/test_data_set_%d", c->set->dir, c->name, i);
        if (!exists(c->data)) {
            if (i == 0)
                worst = failed(c, "has no data");
            break;
        }
        worst = run_set(c);
    }
    if (worst == REFUSED && diag_errors(c->d) == 0)
        worst = failed(c, "refused without a diagnostic");
    else if (worst == REFUSED && must_pass(c->about))
        worst = failed(c, "refused, though T5 exports use its operators");
    if (worst == FAILED)
        printf("FAILED %s: %s\n", c->name, c->why);
    if (worst == REFUSED && c->set->verbose)
        printf("refused %s\n", c->name);
    fflush(stdout);
    if (worst == FAILED || c->set->verbose)
        diag_flush(c->d);
    return worst;
}

static int fork_case(const Settings *set, json_t *about, const char *name) {
    fflush(stdout);
    FILE *said = set->verbose ? NULL : tmpfile(); /* what it says is shown when it fails */
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        alarm(SECONDS);
        if (said)
            dup2(fileno(said), STDERR_FILENO);
        Case c = {.set = set, .name = name, .about = about, .a = arena_new(), .d = diag_new()};
        int v = run_case(&c);
        fflush(NULL);
        _exit(v);
    }
    int status, v = FAILED;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) < VERDICTS)
        v = WEXITSTATUS(status);
    else if (WIFSIGNALED(status))
        printf("FAILED %s: %s\n", name, strsignal(WTERMSIG(status)));
    else
        printf("FAILED %s: exit code %d\n", name, WEXITSTATUS(status));
    if (said && v == FAILED) {
        char line[1024];
        rewind(said);
        while (fgets(line, sizeof line, said))
            printf("    %s", line);
    }
    if (said)
        fclose(said);
    return v;
}

static bool wanted(const char *name, char **only, int n_only) {
    for (int i = 0; i < n_only; i++)
        if (strcmp(only[i], name) == 0)
            return true;
    return n_only == 0;
}

static bool parse_passes(Settings *set, const char *text) {
    while (*text) {
        size_t n = strcspn(text, ",");
        if (set->n_list == LIST_MAX || !pass_find((Str){text, n}, &set->list[set->n_list++]))
            return false;
        text += n + (text[n] == ',');
    }
    return true;
}

static void remove_scratch(const char *dir) {
    static const char *const files[] = {"model.c", "model.o", "model.h", "model.so", "runtime.so", "weights"};
    char path[200];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

int main(int argc, char **argv) {
    Settings set = {0};
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        bool known = strcmp(argv[i], "--mode=direct") == 0;
        if (strcmp(argv[i], "--mode=bound") == 0)
            known = set.bound = true;
        if (strcmp(argv[i], "--mode=compiled") == 0)
            known = set.bound = set.compiled = true;
        if (strcmp(argv[i], "--mode=llvm") == 0)
            known = set.bound = set.compiled = set.llvm = true;
        if (strcmp(argv[i], "-v") == 0)
            known = set.verbose = true;
        if (strcmp(argv[i], "--paranoid") == 0)
            known = set.paranoid = true;
        if (strncmp(argv[i], "--passes=", 9) == 0)
            known = parse_passes(&set, argv[i] + 9);
        if (!known)
            break;
    }
    if (i >= argc || argv[i][0] == '-') {
        fprintf(stderr, "usage: onnx_nodes [--mode=direct|bound|compiled|llvm] [--passes=P,..] [--paranoid] [-v] "
                        "DIR [TEST...]\n");
        return 2;
    }
    set.dir = argv[i++];
    const char *tmp = getenv("TMPDIR");
    char scratch[4096];
    snprintf(scratch, sizeof scratch, "%s/onnx_nodes.XXXXXX", tmp && *tmp ? tmp : P_tmpdir);
    set.scratch = mkdtemp(scratch);
    if (!set.scratch) {
        perror("mkdtemp");
        return 1;
    }
    Diag *d = diag_new();
    Arena *a = arena_new();
    set.runtime = arena_printf(a, "%s/runtime.so", set.scratch);
    if (set.compiled && !make_runtime(set.runtime))
        return 1;
    JsonDoc manifest;
    int count[VERDICTS] = {0};
    if (!json_open(a, arena_printf(a, "%s/manifest.json", set.dir), JSON_MAX_DEPTH, &manifest, d)) {
        diag_flush(d);
        return 1;
    }
    size_t k;
    json_t *about;
    json_array_foreach(json_object_get(manifest.root, "tests"), k, about) {
        const char *name = json_string_value(json_object_get(about, "name"));
        if (name && wanted(name, argv + i, argc - i))
            count[fork_case(&set, about, name)]++;
    }
    remove_scratch(set.scratch);
    printf("%s: passed %d refused %d failed %d\n",
           set.llvm       ? "llvm"
           : set.compiled ? "compiled"
           : set.bound  ? "bound"
                        : "direct",
           count[PASSED], count[REFUSED], count[FAILED]);
    json_close(&manifest);
    arena_free(a);
    diag_free(d);
    return count[FAILED] > 0 || count[PASSED] == 0;
}
