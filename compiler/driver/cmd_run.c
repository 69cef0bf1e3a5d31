/* moec run: executes one function on given or seeded inputs, in the reference interpreter. */
#include "driver.h"
#include "../../frontends/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LIST = 64 };

typedef struct Run {
    const Options *o;
    Model model;
    const Func *f;
    Tensor *in, *out;
    bool *given;
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
        diag_error(r->d, r->o->model, "%s: --func is one of: %s", r->o->func ? "no such function" : "which function?",
                   names.n ? names.p : "(none)");
    text_free(&names);
    return ok;
}

/* ---- inputs ------------------------------------------------------------------------------------------- */

static bool set_input(Run *r, uint32_t i, const char *path)
{
    r->given[i] = true;
    return tensor_load(path, r->model.arena, &r->in[i], r->d);
}

static bool named_inputs(Run *r)
{
    for (size_t k = 0; k < r->o->input.count; k++) {
        Str name;
        const char *path;
        uint32_t i = 0;
        if (!split_assignment(r->o->input.item[k], &name, &path))
            return diag_error(r->d, NULL, "--input '%s': NAME=FILE was expected",
                              diag_show(r->d, str_c(r->o->input.item[k])));
        while (i < r->f->n_inputs && !str_eq(r->f->value[r->f->input[i]].name, name))
            i++;
        if (i == r->f->n_inputs)
            return diag_error(r->d, r->o->model, "function @%s has no input '%s'", diag_show(r->d, r->f->name),
                              diag_show(r->d, name));
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
                return diag_error(r->d, NULL, "input %s is too large", diag_show(r->d, v->name));
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
            return diag_error(r->d, r->o->model, "parameter @%s is too large", diag_show(r->d, p->name));
        uint64_t state = hash_bytes(r->model.options.seed, p->name.p, p->name.n);
        for (int64_t k = 0; k < count; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
            tensor_set_f64(&t, k, dtype_is_float(t.dtype) ? ((double)(state >> 40) * 0x1p-24 - 0.5) * 0.25 : 0.0);
        }
        p->data = t.data;
        n++;
    }
    if (n)
        diag_warn(r->d, r->o->model, "%u parameters come without data: seeded values stand for them", n);
    return true;
}

/* ---- outputs -------------------------------------------------------------------------------------------- */

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
    printf("]  min %.6g  max %.6g  norm %.9g  first", low, high, sqrt(squares));
    for (int64_t k = 0; k < count && k < 8; k++)
        printf(" %.9g", tensor_get_f64(t, k));
    printf("\n");
}

static bool write_outputs(Run *r)
{
    const char *dir = r->o->out;
    if (dir && mkdir(dir, 0777) != 0 && errno != EEXIST)
        return diag_error(r->d, dir, "cannot be made: %s", strerror(errno));
    for (uint32_t i = 0; i < r->f->n_outputs; i++) {
        if (!dir)
            show_output(r, i);
        else if (!npy_write(arena_printf(r->model.arena, "%s/output_%u.npy", dir, i), &r->out[i], r->d))
            return false;
    }
    return true;
}

/* ---- the command --------------------------------------------------------------------------------------------- */

static bool run(Run *r)
{
    PassId list[MAX_LIST];
    uint32_t n = 0;
    if (!pass_list_parse(r->o->passes ? r->o->passes : "", list, MAX_LIST, &n, r->d))
        return false;
    if (!model_passes(&r->model, r->o, NULL, list, n, r->d) || !choose_func(r))
        return false;
    r->in = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->in);
    r->out = arena_array(r->model.arena, r->f->n_outputs + 1u, sizeof *r->out);
    r->given = arena_array(r->model.arena, r->f->n_inputs + 1u, sizeof *r->given);
    if (!numbered_inputs(r) || !named_inputs(r) || !seed_weights(r) || !complete_inputs(r))
        return false;
    return func_eval(r->model.m, r->f->id, r->syms, r->in, r->out, r->model.arena, r->d) && write_outputs(r);
}

int cmd_run(const Options *o)
{
    if (o->backend && strcmp(o->backend, "interp"))
        return usage_error(o, "--backend is interp");
    Run r = {.o = o, .d = diag_new()};
    bool ok = model_load(o, &r.model, r.d) && run(&r);
    model_close(&r.model);
    return diag_finish(r.d, ok);
}
