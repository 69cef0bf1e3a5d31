/* moec run: executes one function on given or seeded inputs, in the reference interpreter or as native code. */
#include "native.h"
#include "../../frontends/npy.h"

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

/* Symbols that given inputs decide take their values from them; the others are seeded, then the inputs left. */
static bool complete_inputs(Run *r)
{
    const Module *m = r->model.m;
    const Func *f = r->f;
    Tensor *seeded = arena_array(r->model.arena, f->n_inputs + 1u, sizeof *seeded);
    bool all = true;
    r->syms = arena_array(r->model.arena, dim_sym_count(m->dims) + 1, sizeof *r->syms);
    seed_symbols(m, &r->model.options, r->syms);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Type *t = &f->value[f->input[i]].type;
        uint32_t sym;
        all &= r->given[i];
        for (int k = 0; r->given[i] && k < t->rank && k < r->in[i].rank; k++)
            if (dim_as_sym(m->dims, t->dim[k], &sym))
                r->syms[sym] = r->in[i].dim[k];
    }
    if (!all && !seed_inputs(m, f, r->syms, r->model.options.seed, seeded, r->model.arena, r->d))
        return false;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (!r->given[i])
            r->in[i] = seeded[i];
        if (r->in[i].dtype == DT_F16 && v->type.dtype == DT_F32) { /* bind computes f16 models in f32 */
            Tensor wide = r->in[i];
            int64_t count = 0;
            wide.dtype = DT_F32;
            if (!tensor_count(&wide, &count) || !tensor_alloc(r->model.arena, &wide))
                return diag_error(r->d, DIAG_SHAPE_SIZE, NULL, "input %s is too large",
                                  diag_show(r->d, v->name));
            for (int64_t k = 0; k < count; k++)
                tensor_set_f64(&wide, k, tensor_get_f64(&r->in[i], k));
            r->in[i] = wide;
        }
    }
    return func_bind_dims(m, f, r->in, r->syms, r->d);
}

/* Text IR names large weights without carrying them: they get small seeded values, the same for the same name. */
static bool seed_weights(Run *r)
{
    Module *m = r->model.m;
    uint32_t n = 0;
    for (ParamId i = 0; i < m->n_params; i++) {
        Param *p = &m->param[i];
        int64_t count = 0;
        if (p->data || p->init != NONE)
            continue;
        Tensor t = {.dtype = p->dtype, .rank = p->rank};
        memcpy(t.dim, p->dim, sizeof t.dim);
        if (!tensor_count(&t, &count) || !tensor_alloc(m->arena, &t))
            return diag_error(r->d, DIAG_SHAPE_SIZE, r->o->model, "parameter @%s is too large",
                              diag_show(r->d, p->name));
        uint64_t state = hash_bytes(r->model.options.seed, p->name.p, p->name.n);
        for (int64_t k = 0; k < count; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
            tensor_set_f64(&t, k, dtype_is_float(t.dtype) ? ((double)(state >> 40) * 0x1p-24 - 0.5) * 0.25 : 0.0);
        }
        p->data = t.data;
        n++;
    }
    if (n)
        diag_warn(r->d, DIAG_RUN_NO_DATA, r->o->model,
                  "%u parameters come without data: seeded values stand for them", n);
    return true;
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
    printf("]  min %.6g  max %.6g  norm %.9g  first", low, high, shown(sqrt(squares)));
    for (int64_t k = 0; k < count && k < 8; k++)
        printf(" %.9g", shown(tensor_get_f64(t, k)));
    printf("\n");
}

static bool write_outputs(Run *r)
{
    const char *dir = r->o->out;
    if (dir && mkdir(dir, 0777) != 0 && errno != EEXIST)
        return diag_error(r->d, DIAG_FOLDER_MAKE, dir, "cannot be made: %s", strerror(errno));
    for (uint32_t i = 0; i < r->f->n_outputs; i++) {
        if (!dir)
            show_output(r, i);
        else if (!npy_write(arena_printf(r->model.arena, "%s/output_%u.npy", dir, i), &r->out[i], r->d))
            return false;
    }
    return true;
}

/* ---- native code ------------------------------------------------------------------------------------------ */

/* Copies between dense data and storage whose axis `axis` has room for more: outer * extent * inner elements. */
static void copy_grown(const Tensor *t, int axis, int64_t capacity, void *dense, void *storage, bool to_storage)
{
    size_t inner = dtype_bytes(t->dtype);
    int64_t outer = 1;
    for (int i = 0; i < t->rank; i++) {
        if (i < axis)
            outer *= t->dim[i];
        else if (i > axis)
            inner *= (size_t)t->dim[i];
    }
    size_t row = inner * (size_t)t->dim[axis], room = inner * (size_t)capacity;
    for (int64_t i = 0; i < outer; i++) {
        char *d = (char *)dense + (size_t)i * row, *s = (char *)storage + (size_t)i * room;
        memcpy(to_storage ? s : d, to_storage ? d : s, row);
    }
}

static bool grown_input(Run *r, const moec_value *v, Tensor *t)
{
    Tensor room = *t;
    room.dim[v->grow_axis] = v->capacity;
    if (t->dim[v->grow_axis] > v->capacity || !tensor_alloc(r->model.arena, &room))
        return diag_error(r->d, DIAG_SHAPE_SIZE, r->o->model, "input %s is too large", v->name);
    copy_grown(t, v->grow_axis, v->capacity, t->data, room.data, true);
    t->data = room.data;
    return true;
}

static bool call_native(Run *r, Native *n)
{
    const Module *m = r->model.m;
    int f = native_function(n, arena_printf(r->model.arena, "%.*s", (int)r->f->name.n, r->f->name.p));
    if (f < 0)
        return diag_error(r->d, DIAG_RUN_FUNCTION, r->o->model,
                          "function @%s is no entry of the compiled model", diag_show(r->d, r->f->name));
    const moec_function *p = &n->program->function[f];
    int64_t *sym = arena_array(r->model.arena, n->program->n_symbols + 1, sizeof *sym);
    for (size_t i = 0; i < dim_sym_count(m->dims); i++) {
        Str name = dim_sym_at(m->dims, (uint32_t)i)->name;
        int k = native_symbol(n, arena_printf(r->model.arena, "%.*s", (int)name.n, name.p));
        if (k >= 0)
            sym[k] = r->syms[i];
    }
    for (uint32_t i = 0; i < p->n_inputs; i++)
        if (p->value[i].grow_axis >= 0 && !grown_input(r, &p->value[i], &r->in[i]))
            return false;
    if (!native_run(n, f, sym, r->in, r->out, r->model.arena))
        return false;
    for (uint32_t i = 0; i < p->n_outputs; i++) {
        const moec_value *v = &p->value[p->n_inputs + i];
        if (v->alias < 0)
            continue;
        Tensor dense = r->out[i];
        int axis = p->value[v->alias].grow_axis;
        if (!tensor_alloc(r->model.arena, &dense))
            return diag_error(r->d, DIAG_SHAPE_SIZE, r->o->model, "output %s is too large", v->name);
        if (axis >= 0) {
            copy_grown(&dense, axis, p->value[v->alias].capacity, dense.data, r->out[i].data, false);
            r->out[i] = dense;
        }
    }
    return true;
}

static bool execute(Run *r)
{
    if (r->o->executor == EXECUTOR_INTERP)
        return func_eval(r->model.m, r->f->id, r->syms, r->in, r->out, r->model.arena, r->d);
    Native n;
    bool profile = r->o->profile, ok = native_open(&n, r->o, &r->model, r->o->threads < 0 ? 0 : (int)r->o->threads, r->d);
    ok = ok && (!profile || native_profile_start(&n)) && call_native(r, &n) && (!profile || native_profile_print(&n));
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
    if (!seed_weights(r) || (!seq2seq && !load_inputs(r)))
        return false;
    if (!seq2seq && n && list[0] == PASS_bind)
        specialise(r);
    if (!model_passes(&r->model, r->o, NULL, list, n, r->d) || (seq2seq ? !load_inputs(r) : !choose_func(r)))
        return false;
    r->in = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->in);
    r->out = arena_array(r->model.arena, r->f->n_outputs + 1u, sizeof *r->out);
    r->given = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->given);
    place_inputs(r);
    if (!complete_inputs(r))
        return false;
    return execute(r) && write_outputs(r);
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
