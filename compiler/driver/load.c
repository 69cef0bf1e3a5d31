/* From the command line to a module: directories as exporters leave them, single .onnx files, text IR; the adapter
 * spec, bounds and constant inputs around them. */
#include "driver.h"
#include "../outfile.h"
#include "../../frontends/file.h"
#include "../../frontends/model_dir.h"
#include "../../frontends/npy.h"
#include "../../frontends/spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

/* ---- small things ---------------------------------------------------------------------------------- */

static bool ends_in(const char *path, const char *suffix)
{
    size_t n = strlen(path), k = strlen(suffix);
    return n > k && strcmp(path + n - k, suffix) == 0;
}

bool split_assignment(const char *text, Str *name, const char **rest)
{
    const char *eq = strchr(text, '=');
    if (!eq)
        return false;
    *name = (Str){text, (size_t)(eq - text)};
    *rest = eq + 1;
    return true;
}

bool tensor_load(const char *path, Arena *a, Tensor *out, Diag *d)
{
    return ends_in(path, ".npy") ? npy_read(path, a, out, d) : onnx_tensor_file(path, a, out, d);
}

bool pass_list_parse(const char *text, PassId *list, uint32_t room, uint32_t *n, Diag *d)
{
    *n = 0;
    while (*text) {
        size_t len = strcspn(text, ",");
        Str name = {text, len};
        if (*n == room)
            return diag_error(d, DIAG_USAGE_VALUE, NULL, "--passes: more than %u of them", room);
        CHECK(pass_find(name, &list[*n]));
        ++*n;
        text += len + (text[len] == ',');
    }
    return true;
}

int diag_finish(Diag *d, bool ok)
{
    ok = ok && diag_errors(d) == 0;
    diag_flush(d);
    diag_free(d);
    return ok ? EXIT_DONE : EXIT_INPUT;
}

const EmbeddedFile *embedded_find(const char *name)
{
    for (const EmbeddedFile *f = driver_embedded; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

bool text_write(const char *path, const Text *text, Diag *d)
{
    if (!path || !strcmp(path, "-")) {
        if (fwrite(text->p, 1, text->n, stdout) == text->n && fflush(stdout) == 0)
            return true;
        return diag_error(d, DIAG_FILE_WRITE, "standard output", "cannot be written: %s", strerror(errno));
    }
    return outfile_text(path, text, d);
}

/* ---- bounds and constant inputs ------------------------------------------------------------------------- */

static bool parse_number(const char **p, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(*p, &end, 10);
    if (errno || end == *p || v < 0)
        return false;
    *out = v;
    *p = end;
    return true;
}

static bool load_dims(const Options *o, Model *model, Diag *d)
{
    DimBound *bounds = arena_array(model->arena, o->dim.count + 1, sizeof *bounds);
    for (size_t i = 0; i < o->dim.count; i++) {
        const char *rest;
        DimBound *b = &bounds[i];
        bool ok = split_assignment(o->dim.item[i], &b->name, &rest) && b->name.n && parse_number(&rest, &b->lo);
        b->hi = b->lo;
        if (ok && rest[0] == '.' && rest[1] == '.') {
            rest += 2;
            ok = parse_number(&rest, &b->hi);
        }
        if (!ok || *rest || b->lo > b->hi)
            return diag_error(d, DIAG_USAGE_VALUE, NULL, "--dim '%s': NAME=LO..HI or NAME=N was expected",
                              diag_show(d, str_c(o->dim.item[i])));
    }
    model->options.dim = bounds;
    model->options.n_dims = (uint32_t)o->dim.count;
    return true;
}

bool size_parse(const char *p, int64_t *n)
{
    static const char units[] = "KMG";
    bool ok = parse_number(&p, n) && *n > 0;
    const char *unit = ok && *p ? strchr(units, *p) : NULL;
    for (ptrdiff_t k = unit ? unit - units : -1; k >= 0 && ok; k--)
        ok = mul_i64(*n, 1024, n);
    return ok && !p[unit != NULL];
}

static bool load_memory(const Options *o, Model *model, Diag *d)
{
    int64_t n = 0;
    if (!o->max_memory)
        return true;
    if (!size_parse(o->max_memory, &n))
        return diag_error(d, DIAG_USAGE_VALUE, NULL,
                          "--max-memory '%s': a size as 6G, 500M or a number of bytes was expected",
                          diag_show(d, str_c(o->max_memory)));
    model->options.max_memory = n;
    return o->train || diag_error(d, DIAG_USAGE_TOGETHER, NULL,
                                  "--max-memory plans the memory of training: give --train, too");
}

/* One more than the list: a merged decoder's branch is chosen by choose_branch. */
static bool load_values(const Options *o, Model *model, Diag *d)
{
    InputValue *values = arena_array(model->arena, o->value.count + 1, sizeof *values);
    for (size_t i = 0; i < o->value.count; i++) {
        const char *path;
        if (!split_assignment(o->value.item[i], &values[i].input, &path) || !values[i].input.n)
            return diag_error(d, DIAG_USAGE_VALUE, NULL, "--value '%s': INPUT=FILE was expected",
                              diag_show(d, str_c(o->value.item[i])));
        if (!tensor_load(path, model->arena, &values[i].value, d))
            return false;
    }
    model->options.value = values;
    model->options.n_values = (uint32_t)o->value.count;
    return true;
}

/* ---- the model itself -------------------------------------------------------------------------------------- */

static bool load_text(Model *model, Diag *d)
{
    Str text;
    if (!file_read(model->arena, model->path, LIMIT_IR_TEXT, &text, d))
        return false;
    model->text = true;
    model->m = module_parse(d, model->path, text.p, text.n);
    diag_default_file(d, model->path);
    bool ok = model->m && module_verify(model->m, d, false);
    diag_default_file(d, NULL);
    return ok;
}

/* A merged decoder holds two behind an `If`: the one without a cache has everything derive needs. */
static void choose_branch(Model *model, Str input)
{
    InputValue *v = (InputValue *)&model->options.value[model->options.n_values++];
    *v = (InputValue){str_c("decoder"), input, {.dtype = DT_BOOL, .rank = 1, .dim = {1}}};
    CHECK(tensor_alloc(model->arena, &v->value));
}

static bool load_onnx(const Options *o, Model *model, Diag *d)
{
    ModelDir dir;
    ModelHints hints = {o->config, o->pad, o->eos, o->start, o->command != COMMAND_run};
    model->m = module_new();
    model->files = onnx_files_new();
    if (!model_dir_import(model->m, model->path, &hints, &dir, model->files, d))
        return false;
    model->dir = dir.layout == ML_FILE ? NULL : dir.dir;
    model->has_config = dir.has_config;
    model->ids_given = dir.has_config || (o->pad >= 0 && o->eos >= 0 && o->start >= 0);
    model->config = dir.config;
    model->options.plain = dir.layout == ML_FILE;
    if (dir.branch_input.n)
        choose_branch(model, dir.branch_input);
    return true;
}

bool model_config(Arena *a, const char *path, T5Config *out, Diag *d)
{
    struct stat st;
    if (stat(path, &st) != 0 || S_ISDIR(st.st_mode))
        return config_load(a, arena_printf(a, "%s/config.json", path), out, d);
    if (!ends_in(path, ".json"))
        return diag_error(d, DIAG_MODEL_FILES, path,
                          "a model directory's config.json is read here: name the directory");
    return config_load(a, path, out, d);
}

static bool load_adapter(const Options *o, Model *model, Diag *d)
{
    if (!o->adapter) {
        if (o->adapter_weights)
            return diag_error(d, DIAG_USAGE_TOGETHER, o->adapter_weights,
                              "--adapter-weights needs --adapter");
        return true;
    }
    if (model->m->spec.n)
        return diag_error(d, DIAG_USAGE_TOGETHER, o->model,
                          "the adapter of this dump is attached already: there is no place for that of --adapter");
    model->spec = spec_load(model->arena, o->adapter, d);
    if (!model->spec)
        return false;
    model->options.adapter = model->spec;
    return (model->spec->loaded && !o->adapter_weights) ||
           spec_load_weights(model->arena, model->spec, o->adapter_weights, d);
}

/* Weights that a training run of the whole base has left. */
static bool load_base(const Options *o, Model *model, Diag *d)
{
    int64_t size;
    if (!o->base_weights)
        return true;
    int fd = file_open(o->base_weights, &size, d);
    if (fd < 0)
        return false;
    bool ok = safetensors_map(model->arena, fd, size, o->base_weights, &model->base, d);
    close(fd);
    for (uint32_t i = 0; ok && i < model->base.n; i++) {
        const AdapterTensor *t = &model->base.tensor[i];
        ParamId p;
        if (module_find_param(model->m, t->name, &p) && model->m->param[p].kind == PK_FROZEN)
            ok = param_take(&model->m->param[p], t, o->base_weights, model->arena, d);
        else
            ok = diag_error(d, DIAG_BASE_WEIGHT, o->base_weights,
                            "tensor '%s': the model has no weight of that name", diag_show(d, t->name));
    }
    return ok;
}

/* FORMAT or SITES=FORMAT. */
static bool load_weights(const Options *o, Model *model, Diag *d)
{
    WeightChoice *choice = arena_array(model->arena, o->weights.count + 1, sizeof *choice);
    for (size_t i = 0; i < o->weights.count; i++) {
        const char *text = o->weights.item[i], *format = strrchr(text, '=');
        if (format)
            choice[i].sites = (Str){text, (size_t)(format - text)};
        format = format ? format + 1 : text;
        if (!weight_format_parse(str_c(format), &choice[i].format) || (format > text && !choice[i].sites.n))
            return diag_error(d, DIAG_USAGE_VALUE, NULL, "--weights '%s': f32, bf16, int8 or int4 was expected, or SITES= in front of it",
                              diag_show(d, str_c(text)));
    }
    if (o->weights.count && products_are_library(o))
        return diag_error(d, DIAG_USAGE_TOGETHER, NULL, "--weights needs moec's own kernels: not with --matmul=openblas");
    if (o->train && o->activations > ACTIVATIONS_F32)
        return diag_error(d, DIAG_USAGE_TOGETHER, NULL, "--activations: with --train they are f32");
    model->options.weights = choice;
    model->options.n_weights = (uint32_t)o->weights.count;
    model->options.activations = (Activations)o->activations;
    return true;
}

bool products_are_library(const Options *o)
{
    return o->matmul == MATMUL_OPENBLAS;
}

bool model_load(const Options *o, Model *out, Diag *d)
{
    *out = (Model){.arena = arena_new(), .path = o->model};
    out->options.seed = o->seed < 0 ? 0 : (uint64_t)o->seed;
    out->options.opt_level = o->level < 0 ? 2 : (int)o->level;
    out->options.train = o->train;
    out->options.library = products_are_library(o);
    if (!load_dims(o, out, d) || !load_values(o, out, d) || !load_memory(o, out, d) ||
        !load_weights(o, out, d))
        return false;
    bool ok = (ends_in(o->model, ".ir") ? load_text(out, d) : load_onnx(o, out, d)) && load_base(o, out, d) &&
              load_adapter(o, out, d);
    if (ok && o->opt_report)
        out->m->remarks = out->remarks = remarks_new();
    return ok;
}

void model_close(Model *model)
{
    spec_close(model->spec);
    safetensors_unmap(&model->base);
    remarks_free(model->remarks);
    module_free(model->m);
    onnx_files_free(model->files);
    if (model->arena)
        arena_free(model->arena);
    *model = (Model){0};
}

/* ---- passes ------------------------------------------------------------------------------------------------ */

/* A --dump-ir, which the table has judged: all, before:PASS or after:PASS. */
static void add_dump(const char *text, PassRun *run)
{
    if (!strcmp(text, "all")) {
        for (int i = 0; i < PASS_COUNT; i++)
            run->dump[i] |= DUMP_AFTER;
        run->dump[0] |= DUMP_BEFORE;
        return;
    }
    PassId p;
    CHECK(pass_find(str_c(strchr(text, ':') + 1), &p));
    run->dump[p] |= text[0] == 'b' ? DUMP_BEFORE : DUMP_AFTER;
}

/* What the files say of their outputs is compared as soon as types are known: later passes replace the functions. */
static bool check_outputs(const Module *m, void *context, Diag *d)
{
    const Model *model = context;
    return onnx_check_outputs(m, model->files, d);
}

static bool call_around(const Module *m, PassId p, bool done, void *context, Diag *d)
{
    const Model *model = context;
    return model->around(m, p, done, model->around_context, d);
}

static bool check_ids(const Model *model, Diag *d)
{
    const Seq2Seq *s = &model->m->s2s;
    if (!s->present || s->vocab <= 0)
        return true;
    const struct {
        const char *what;
        int64_t id;
    } ids[] = {{"padding", s->pad}, {"end of sequence", s->eos}, {"start", s->start}};
    for (int i = 0; i < 3; i++)
        if (ids[i].id < 0 || ids[i].id >= s->vocab)
            return diag_error(d, DIAG_MODEL_CONFIG, model->config.file,
                              "the %s token %lld is not in the model's vocabulary of %lld", ids[i].what,
                              (long long)ids[i].id, (long long)s->vocab);
    if (!model->text && !model->ids_given)
        diag_warn(
            d, DIAG_TOKENS_ASSUMED, NULL,
            "no config.json of a T5 here: token ids pad %lld, eos %lld, start %lld are assumed; --config "
            "FILE or --pad, --eos and --start set them",
            (long long)s->pad, (long long)s->eos, (long long)s->start);
    return true;
}

bool model_passes(Model *model, const Options *o, const char *stop_after, const PassId *list, uint32_t n, Diag *d)
{
    PassRun run = {.options = &model->options,
                   .list = list,
                   .n_list = n,
                   .stop_after = o->stop_after ? o->stop_after : stop_after,
                   .dump_dir = o->dump_dir,
                   .changed = (DumpChanged)o->dump_changed,
                   .time_passes = o->time_passes,
                   .no_verify = o->verify == VERIFY_NONE,
                   .paranoid = o->paranoid,
                   .after_bind = model->files ? check_outputs : NULL,
                   .around = model->around ? call_around : NULL,
                   .context = model,
                   .bound = module_is_bound(model->m)};
    PassId left[PASS_COUNT];
    if (!list && model->text) {
        run.list = left;
        run.n_list = passes_left(model->m, left);
    }
    for (size_t i = 0; i < o->dump_ir.count; i++)
        add_dump(o->dump_ir.item[i], &run);
    diag_default_file(d, model->path);
    bool ok = passes_run(model->m, &run, d) && check_ids(model, d);
    diag_default_file(d, NULL);
    return ok;
}
