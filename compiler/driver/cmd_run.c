/* moec run: executes one function on given or seeded inputs, in the reference interpreter or as native code. */
#include "call.h"
#include "../undo.h"
#include "../../frontends/npy.h"
#include "../mapped.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LIST = 64 };

/* An input given on the command line. */
typedef struct Named {
    Str name;
    Type type; /* as declared */
    Tensor value;
} Named;

typedef struct Run {
    const Options *o;
    Model model;
    const Func *f;
    Tensor *in, *out;
    bool *given;
    Named *named;
    uint32_t n_named;
    int64_t *syms;
    Diag *d;
} Run;

/* --func, or main, or the only entry. */
static bool choose_func(Run *r)
{
    const Module *m = r->model.m;
    Text names = {0};
    uint32_t entries = 0;
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || (f->role != FR_ENTRY && !r->o->func))
            continue;
        if (r->o->func ? str_is(f->name, r->o->func) : str_is(f->name, "main")) {
            r->f = f;
            text_free(&names);
            return true;
        }
        if (f->role != FR_ENTRY)
            continue;
        if (!entries++)
            r->f = f;
        text_printf(&names, "%s%s", names.n ? ", " : "", diag_show(r->d, f->name));
    }
    bool ok = !r->o->func && entries == 1;
    if (!ok)
        diag_error(r->d, DIAG_RUN_FUNCTION, r->o->model, "%s: --func is one of: %s",
                   r->o->func ? "no such function" : "which function?", names.n ? names.p : "(none)");
    text_free(&names);
    return ok;
}

/* ---- inputs ------------------------------------------------------------------------------------------- */

/* Files named on the command line, by the names and positions the function's inputs have before any pass: bind drops
 * inputs it is given the value of. */
static bool set_input(Run *r, uint32_t i, const char *path)
{
    const Value *v = &r->f->value[r->f->input[i]];
    Named *n = &r->named[r->n_named++];
    n->name = v->name;
    n->type = v->type;
    return tensor_load(path, r->model.arena, &n->value, r->d);
}

static bool named_inputs(Run *r)
{
    for (size_t k = 0; k < r->o->input.count; k++) {
        Str name;
        const char *path;
        uint32_t i = 0;
        if (!split_assignment(r->o->input.item[k], &name, &path))
            return diag_error(r->d, DIAG_USAGE_VALUE, NULL, "--input '%s': NAME=FILE was expected",
                              diag_show(r->d, str_c(r->o->input.item[k])));
        while (i < r->f->n_inputs && !str_eq(r->f->value[r->f->input[i]].name, name))
            i++;
        if (i == r->f->n_inputs)
            return diag_error(r->d, DIAG_RUN_INPUT, r->o->model, "function @%s has no input '%s'",
                              diag_show(r->d, r->f->name), diag_show(r->d, name));
        if (!set_input(r, i, path))
            return false;
    }
    return true;
}

static bool numbered_inputs(Run *r)
{
    for (uint32_t i = 0; r->o->inputs && i < r->f->n_inputs; i++) {
        struct stat s;
        const char *pb = arena_printf(r->model.arena, "%s/input_%u.pb", r->o->inputs, i);
        const char *npy = arena_printf(r->model.arena, "%s/input_%u.npy", r->o->inputs, i);
        const char *path = stat(pb, &s) == 0 ? pb : stat(npy, &s) == 0 ? npy : NULL;
        if (path && !set_input(r, i, path))
            return false;
    }
    return true;
}

/* Values that an extent may depend on: operands of dynamic ops other than the data, and what those come from. */
static bool *deciding_values(const Func *f, Arena *a)
{
    bool *decides = arena_array(a, f->n_values + 1, sizeof *decides);
    for (uint32_t i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        bool dynamic = op_info(n->op)->klass == OC_DYNAMIC && n->op != OP_shape && n->op != OP_dyn_gather &&
                       n->op != OP_dyn_matmul && n->op != OP_dyn_concat && n->op != OP_dyn_axis;
        bool all = n->op == OP_dyn_fill || n->op == OP_dyn_range, result = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            result |= decides[n->out + k];
        for (uint32_t k = 0; k < n->n_in; k++)
            if (n->in[k] != NONE && ((result && n->op != OP_shape) || (dynamic && (k > 0 || all))))
                decides[n->in[k]] = true;
    }
    return decides;
}

/* Compiles for the inputs at hand: extents they have become constants, and so do inputs whose values decide extents. */
static void specialise(Run *r)
{
    const Module *m = r->model.m;
    PassOptions *o = &r->model.options;
    bool *decides = deciding_values(r->f, r->model.arena);
    DimBound *dim = arena_array(r->model.arena, o->n_dims + (size_t)r->n_named * MOEC_MAX_RANK + 1, sizeof *dim);
    InputValue *value = arena_array(r->model.arena, o->n_values + (size_t)r->n_named + 1, sizeof *value);
    for (uint32_t i = 0; i < o->n_dims; i++)
        dim[i] = o->dim[i];
    for (uint32_t i = 0; i < o->n_values; i++)
        value[i] = o->value[i];
    for (uint32_t i = 0; i < r->n_named; i++) {
        const Named *n = &r->named[i];
        uint32_t sym;
        for (int k = 0; k < n->type.rank && k < n->value.rank; k++)
            if (dim_as_sym(m->dims, n->type.dim[k], &sym))
                dim[o->n_dims++] = (DimBound){dim_sym_at(m->dims, sym)->name, n->value.dim[k], n->value.dim[k]};
        for (uint32_t k = 0; k < r->f->n_inputs; k++)
            if (decides[r->f->input[k]] && str_eq(r->f->value[r->f->input[k]].name, n->name))
                value[o->n_values++] = (InputValue){r->f->name, n->name, n->value};
    }
    o->dim = dim;
    o->value = value;
}

/* The inputs that are left after the passes. */
static void place_inputs(Run *r)
{
    for (uint32_t i = 0; i < r->f->n_inputs; i++)
        for (uint32_t k = 0; k < r->n_named; k++)
            if (str_eq(r->f->value[r->f->input[i]].name, r->named[k].name)) {
                r->in[i] = r->named[k].value;
                r->given[i] = true;
            }
}

/* ---- outputs -------------------------------------------------------------------------------------------- */

/* The sign of a NaN is nobody's business. */
static double shown(double v)
{
    return isnan(v) ? (double)NAN : v;
}

static void show_output(Run *r, uint32_t i)
{
    const Tensor *t = &r->out[i];
    int64_t count = 0;
    double low = INFINITY, high = -INFINITY, squares = 0;
    tensor_count(t, &count);
    printf("%s: %s[", diag_show(r->d, r->f->output_name[i]), dtype_name(t->dtype));
    for (int k = 0; k < t->rank; k++)
        printf("%s%" PRId64, k ? "," : "", t->dim[k]);
    for (int64_t k = 0; k < count; k++) {
        double v = tensor_get_f64(t, k);
        low = v < low ? v : low;
        high = v > high ? v : high;
        squares += v * v;
    }
    printf("]  min %.9g  max %.9g  norm %.9g  first", low, high, shown(sqrt(squares)));
    for (int64_t k = 0; k < count && k < 8; k++)
        printf(" %.9g", shown(tensor_get_f64(t, k)));
    printf("\n");
}

/* All files or none; a folder made for them goes with them. */
static bool write_files(Run *r, const char *dir)
{
    uint32_t n = r->f->n_outputs, i = 0;
    undo_add(dir);
    bool made = mkdir(dir, 0777) == 0, ok = true;
    if (!made)
        undo_drop(dir);
    if (!made && errno != EEXIST)
        return diag_error(r->d, DIAG_FOLDER_MAKE, dir, "cannot be made: %s", strerror(errno));
    OutFile *file = arena_array(r->model.arena, n + 1u, sizeof *file);
    while (ok && i < n) {
        ok = npy_open(&file[i], arena_printf(r->model.arena, "%s/output_%u.npy", dir, i), &r->out[i], r->model.arena, r->d);
        i += ok;
    }
    if (ok)
        ok = outfiles_commit(file, n, r->d);
    else
        while (i-- > 0)
            outfile_abandon(&file[i]);
    if (!ok && made)
        undo_now(dir);
    undo_drop(dir);
    return ok;
}

static bool write_outputs(Run *r)
{
    if (r->o->out)
        return write_files(r, r->o->out);
    for (uint32_t i = 0; i < r->f->n_outputs; i++)
        show_output(r, i);
    return true;
}

static bool execute(Run *r)
{
    if (r->o->executor == EXECUTOR_INTERP)
        return func_eval(r->model.m, r->f->id, r->syms, r->in, r->out, r->model.arena, r->d);
    Native n;
    bool profile = r->o->profile, ok = native_open(&n, r->o, &r->model, r->o->threads < 0 ? 0 : (int)r->o->threads, r->d);
    ok = ok && (!profile || native_profile_start(&n)) &&
         call_compiled(&n, r->model.m, r->f, r->syms, r->in, r->out, r->model.arena) &&
         (!profile || native_profile_print(&n));
    native_close(&n);
    return ok;
}

/* ---- the command --------------------------------------------------------------------------------------------- */

static bool load_inputs(Run *r)
{
    if (!choose_func(r))
        return false;
    r->named = arena_array(r->model.arena, r->f->n_inputs + r->o->input.count + 1, sizeof *r->named);
    return numbered_inputs(r) && named_inputs(r);
}

/* Whether --func names what passes are about to make of an encoder and a decoder. */
static bool derives(const Module *m, const PassId *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == PASS_derive)
            return m->s2s.present && !module_find(m, "encode");
    return false;
}

static bool run(Run *r)
{
    PassId list[MAX_LIST];
    uint32_t n = 0;
    if (!pass_list_parse(r->o->passes ? r->o->passes : "", list, MAX_LIST, &n, r->d))
        return false;
    if (!r->o->passes && r->o->executor != EXECUTOR_INTERP)
        n = passes_left(r->model.m, list);
    bool seq2seq = r->model.dir != NULL || derives(r->model.m, list, n);
    if (!seed_weights(r->model.m, r->model.options.seed, r->o->model, r->d) || (!seq2seq && !load_inputs(r)))
        return false;
    if (!seq2seq && n && list[0] == PASS_bind)
        specialise(r);
    if (!model_passes(&r->model, r->o, NULL, list, n, r->d) || (seq2seq ? !load_inputs(r) : !choose_func(r)))
        return false;
    diag_default_file(r->d, r->o->model);
    r->in = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->in);
    r->out = arena_array(r->model.arena, r->f->n_outputs + 1u, sizeof *r->out);
    r->given = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->given);
    place_inputs(r);
    r->syms = arena_array(r->model.arena, dim_sym_count(r->model.m->dims) + 1, sizeof *r->syms);
    if (!complete_inputs(r->model.m, &r->model.options, r->f, r->given, r->in, r->syms, r->model.arena, r->d))
        return false;
    return execute(r) && onnx_check_results(r->model.files, r->f, r->out, r->d) && mapped_intact(r->d) && write_outputs(r);
}

int cmd_run(const Options *o)
{
    int exit_code;
    if (!reports_check(o, !o->out, &exit_code))
        return exit_code;
    if ((o->profile || o->debug) && o->executor == EXECUTOR_INTERP)
        return usage_error(o, DIAG_USAGE_TOGETHER, "%s goes with --backend=c or --backend=llvm", o->profile ? "--profile" : "-g");
    Run r = {.o = o, .d = diag_new()};
    bool ok = model_load(o, &r.model, r.d) && run(&r) && reports_write(o, &r.model, NULL, r.d);
    model_close(&r.model);
    return diag_finish(r.d, ok);
}
