/* moec verify --train: gradients and training runs of the compiled model against stored ones.
 *
 * A case folder may hold grads.safetensors, the gradient of the loss of KEY (short, packed) with respect to every
 * adapter tensor, and runs of some steps: train.input_ids [steps,B,S] and so on, train.RUN.losses_f64 before each update,
 * train.RUN.after.safetensors. case.json tells the loss (reduce, label_smoothing, z_loss) and the optimiser of each run.
 *
 * A gradient passes when |got - want| <= 1e-4 |want| + 1e-6 G, G the norm of the whole gradient (some are zero but for
 * rounding); losses of a run within
 * 1e-4; trained tensors when |got - want| <= 0.02 |want - start| + 1e-6 |start|. Weights of a base that was trained
 * itself have other names in other files: theirs are matched by value. */
#include "verify.h"
#include "../../frontends/file.h"
#include "../../frontends/json.h"
#include "../../frontends/safetensors.h"
#include "../../runtime/moec_train.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GRADIENT_TOLERANCE 1e-4
#define NOISE              1e-6
#define LOSS_TOLERANCE     1e-4
#define STEP_TOLERANCE     0.02

typedef struct Trainers {
    void (*defaults)(moec_train_options *o);
    moec_status (*open)(moec_instance *m, const moec_train_options *o, moec_trainer **out, char *message,
                        size_t room);
    void (*close)(moec_trainer *t);
    moec_status (*batch)(moec_trainer *t, const moec_batch *b, double share);
    moec_status (*step)(moec_trainer *t, moec_step_report *r);
    const void *(*tensor)(const moec_trainer *t, uint32_t i);
} Trainers;

typedef struct Recipe {
    bool per_example;
    double smoothing, z_loss;
} Recipe;

/* One batch; arrays of rank 2. */
typedef struct Rows {
    Tensor ids, segments, decoder, decoder_segments, labels, weight, sentence;
} Rows;

typedef struct Trained {
    Verify *v;
    JsonDoc doc;
    Recipe recipe;
    Trainers api;
} Trained;

/* ---- batches ---- */

/* Array KEY.NAME [rows,columns], or where step >= 0 that step's of [steps,rows,columns]. False when there is none, or
 * after reporting. */
static bool read_matrix(Trained *x, const char *key, const char *name, int64_t step, DType dtype,
                        Tensor *out) {
    Verify *v = x->v;
    size_t bytes = 0;
    Tensor t;
    if (!verify_array(v, key, name, &t))
        return false;
    if (t.dtype != dtype || t.rank != (step < 0 ? 2 : 3) || (step >= 0 && step >= t.dim[0]))
        return diag_error(v->d, DIAG_GOLDEN_ARRAY, verify_path(v, key, name), "is no %s %s",
                          dtype_name(dtype),
                          step < 0 ? "[rows,columns]" : "[steps,rows,columns], or has too few steps");
    if (step >= 0) {
        t.rank--;
        memmove(t.dim, t.dim + 1, (size_t)t.rank * sizeof *t.dim);
        if (!tensor_bytes(&t, &bytes))
            return diag_error(v->d, DIAG_GOLDEN_ARRAY, verify_path(v, key, name), "is too large");
        t.data = (char *)t.data + (size_t)step * bytes;
    }
    *out = t;
    return true;
}

static bool same_extents(const Tensor *a, const Tensor *b) {
    return a->dim[0] == b->dim[0] && a->dim[1] == b->dim[1];
}

/* What each target token's loss counts for: an equal share of all of them, or of its example. */
static bool make_weight(Trained *x, Rows *r) {
    r->weight = (Tensor){.dtype = DT_F32, .rank = 2, .dim = {r->labels.dim[0], r->labels.dim[1]}};
    if (!tensor_alloc(x->v->a, &r->weight))
        return diag_error(x->v->d, DIAG_GOLDEN_ARRAY, x->v->dir, "an array is too large");
    int64_t n = r->labels.dim[0], width = r->labels.dim[1], examples = 0, tokens = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t b = 0; b < n; b++)
            for (int64_t i = 0; i < width; i++) {
                int64_t own = tensor_get_i64(&r->decoder_segments, b * width + i), length = 0, first = -1;
                if (tensor_get_i64(&r->labels, b * width + i) == -100)
                    continue;
                for (int64_t k = 0; k < width; k++)
                    if (tensor_get_i64(&r->decoder_segments, b * width + k) == own &&
                        tensor_get_i64(&r->labels, b * width + k) != -100) {
                        first = first < 0 ? k : first;
                        length++;
                    }
                if (pass == 0) {
                    tokens++;
                    examples += first == i;
                } else {
                    tensor_set_f64(&r->weight, b * width + i,
                                   x->recipe.per_example ? 1.0 / (double)(length * examples)
                                                         : 1.0 / (double)tokens);
                }
            }
    return true;
}

/* Arrays KEY.*; of one step when step >= 0. False when there are none, or after reporting. */
static bool read_rows(Trained *x, const char *key, int64_t step, Rows *r) {
    Verify *v = x->v;
    *r = (Rows){0};
    if (!read_matrix(x, key, "input_ids", step, DT_I64, &r->ids) ||
        (!read_matrix(x, key, "encoder_segments", step, DT_I64, &r->segments) &&
         !read_matrix(x, key, "attention_mask", step, DT_I64, &r->segments)) ||
        !read_matrix(x, key, "decoder_input_ids", step, DT_I64, &r->decoder) ||
        !read_matrix(x, key, "labels", step, DT_I64, &r->labels))
        return false;
    read_matrix(x, key, "sentence", step, DT_F32, &r->sentence);
    if (!read_matrix(x, key, "decoder_segments", step, DT_I64, &r->decoder_segments)) {
        r->decoder_segments =
            (Tensor){.dtype = DT_I64, .rank = 2, .dim = {r->labels.dim[0], r->labels.dim[1]}};
        if (!tensor_alloc(v->a, &r->decoder_segments))
            return diag_error(v->d, DIAG_GOLDEN_ARRAY, v->dir, "an array is too large");
        for (int64_t i = 0; i < r->labels.dim[0] * r->labels.dim[1]; i++)
            tensor_set_i64(&r->decoder_segments, i, 1);
    }
    if (!same_extents(&r->ids, &r->segments) || !same_extents(&r->labels, &r->decoder) ||
        !same_extents(&r->labels, &r->decoder_segments) || r->ids.dim[0] != r->labels.dim[0] ||
        (r->sentence.data && (r->sentence.dim[0] != r->ids.dim[0] ||
                              r->sentence.dim[1] != v->n.program->seq2seq->sentence_width)))
        return diag_error(v->d, DIAG_GOLDEN_ARRAY, v->dir, "%s.*: the extents of the arrays do not agree",
                          key);
    return make_weight(x, r);
}

/* Array KEY.NAME of at least n numbers. */
static bool read_numbers(Trained *x, const char *key, const char *name, int64_t n, Tensor *out) {
    int64_t count;
    return verify_array(x->v, key, name, out) &&
           ((tensor_count(out, &count) && count >= n) ||
            diag_error(x->v->d, DIAG_GOLDEN_ARRAY, verify_path(x->v, key, name), "has too few numbers"));
}

/* ---- gradients ---- */

static bool read_safetensors(Verify *v, const char *name, SafeFile *f) {
    const char *path = arena_printf(v->a, "%s/%s", v->dir, name);
    struct stat st;
    int64_t size;
    if (stat(path, &st) != 0)
        return false;
    int fd = file_open(path, &size, v->d);
    if (fd < 0)
        return false;
    bool ok = safetensors_map(v->a, fd, size, path, f, v->d);
    close(fd);
    for (uint32_t i = 0; ok && i < f->n; i++)
        if (f->tensor[i].kind != FK_F32 && f->tensor[i].kind != FK_F64)
            ok = diag_error(v->d, DIAG_GOLDEN_ARRAY, path, "tensor '%s' is neither F32 nor F64",
                            diag_show(v->d, f->tensor[i].name));
    if (!ok)
        safetensors_unmap(f);
    return ok;
}

static double value_at(const AdapterTensor *t, int64_t i) {
    double d;
    float f;
    if (t->kind == FK_F64) {
        memcpy(&d, (const char *)t->data + 8 * i, sizeof d);
        return d;
    }
    memcpy(&f, (const char *)t->data + 4 * i, sizeof f);
    return f;
}

static int64_t count_of(const AdapterTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

static double norm_of(const AdapterTensor *t) {
    double s = 0;
    for (int64_t i = 0; i < count_of(t); i++)
        s += value_at(t, i) * value_at(t, i);
    return sqrt(s);
}

static double distance(const AdapterTensor *want, const float *got) {
    double s = 0;
    for (int64_t i = 0; i < count_of(want); i++) {
        double d = got[i] - value_at(want, i);
        s += d * d;
    }
    return isfinite(s) ? sqrt(s) : INFINITY;
}

static void report_worst(Verify *v, const char *key, const char *what, int n, double worst, double tolerance,
                         const char *name) {
    bool ok = worst <= tolerance && n > 0;
    printf("%-10s %-22s %10.3g  of %d, worst %s  %s\n", key, what, worst, n, name, ok ? "ok" : "FAILED");
    v->compared++;
    v->failed += !ok;
}

/* Outputs of `train` by position; our tensors in turn. */
static const float *our_gradient(const Verify *v, const Tensor *out, uint32_t i) {
    int at = v->n.program->tensor[i].gradient;
    return at < 0 ? NULL : out[at].data;
}

static bool same_shape(const AdapterTensor *t, const moec_tensor *m) {
    bool same = t->rank == m->rank;
    for (int i = 0; same && i < t->rank; i++)
        same = t->dim[i] == m->extent[i];
    return same;
}

static void compare_gradients(Trained *x, const char *key, const Tensor *out, const SafeFile *f) {
    Verify *v = x->v;
    const moec_program *p = v->n.program;
    double whole = 0, worst = 0;
    int n = 0, unnamed = 0;
    const char *name = "none";
    for (uint32_t k = 0; k < f->n; k++)
        whole += norm_of(&f->tensor[k]) * norm_of(&f->tensor[k]);
    whole = sqrt(whole);
    for (uint32_t k = 0; k < f->n; k++) {
        const AdapterTensor *want = &f->tensor[k];
        double best = INFINITY;
        bool named = false, trained = true;
        for (uint32_t i = 0; i < p->n_tensors && !named; i++) {
            const float *got = our_gradient(v, out, i);
            named = str_is(want->name, p->tensor[i].name);
            trained = !named || got;
            if (!got || !same_shape(want, &p->tensor[i]))
                continue;
            double r = distance(want, got) / (norm_of(want) + NOISE / GRADIENT_TOLERANCE * whole);
            best = named || r < best ? r : best;
        }
        if (!trained)
            continue;
        unnamed += !named;
        n++;
        if (best >= worst) {
            worst = best;
            name = diag_show(v->d, want->name);
        }
    }
    report_worst(v, key, unnamed ? "gradients, by value" : "gradients", n, worst, GRADIENT_TOLERANCE, name);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Norms of all gradients, whatever their names. */
static void compare_norms(Trained *x, const char *key, const Tensor *out) {
    Verify *v = x->v;
    json_t *norms = json_object_get(x->doc.root, "gradient_norms_f64"), *value;
    const char *name;
    size_t n = 0, m = 0;
    if (!json_is_object(norms))
        return;
    double *want = arena_array(v->a, json_object_size(norms) + 1, sizeof *want), worst = 0;
    double *got = arena_array(v->a, v->n.program->n_tensors + 1, sizeof *got);
    json_object_foreach(norms, name, value) want[n++] = json_number_value(value);
    for (uint32_t i = 0; i < v->n.program->n_tensors; i++) {
        const moec_tensor *t = &v->n.program->tensor[i];
        const float *g = our_gradient(v, out, i);
        double s = 0;
        for (uint64_t k = 0; g && k < t->bytes / 4; k++)
            s += (double)g[k] * (double)g[k];
        got[m++] = sqrt(s);
    }
    qsort(want, n, sizeof *want, by_size);
    qsort(got, m, sizeof *got, by_size);
    for (size_t i = 0; i < n && n == m; i++)
        worst = fmax(worst, fabs(want[i] - got[i]) / (want[i] + 1e-3));
    report_worst(v, key, "gradient norms", (int)m, n == m ? worst : INFINITY, GRADIENT_TOLERANCE, "-");
}

static Tensor scalar(Arena *a, DType type, double v) {
    Tensor t = {.dtype = type, .rank = 0};
    CHECK(tensor_alloc(a, &t));
    tensor_set_f64(&t, 0, v);
    return t;
}

static bool verify_gradients(Trained *x, const char *key) {
    Verify *v = x->v;
    Rows r;
    Tensor want;
    SafeFile f = {0};
    if (!read_numbers(x, key, "loss_f64", 1, &want) || !read_rows(x, key, -1, &r))
        return true;
    if (!verify_fits(v, &r.ids, r.labels.dim[1])) {
        printf("%-10s skipped: extents outside the model's\n", key);
        v->skipped++;
        return true;
    }
    Tensor smoothing = scalar(v->a, DT_F32, x->recipe.smoothing), z = scalar(v->a, DT_F32, x->recipe.z_loss);
    Tensor none = scalar(v->a, DT_F32, 0), one = scalar(v->a, DT_F32, 1), seed = scalar(v->a, DT_I64, 0);
    VerifyInput in[] = {{"input_ids", &r.ids},
                        {"encoder_segments", &r.segments},
                        {"decoder_input_ids", &r.decoder},
                        {"labels", &r.labels},
                        {"decoder_segments", &r.decoder_segments},
                        {"weight", &r.weight},
                        {"sentence", &r.sentence},
                        {"smoothing", &smoothing},
                        {"z_loss", &z},
                        {"dropout", &none},
                        {"router_share", &one},
                        {"seed", &seed}};
    Tensor *out = arena_array(v->a, v->n.program->n_tensors + 8, sizeof *out);
    if (!verify_call(v, "train", in, sizeof in / sizeof *in, out))
        return false;
    VerifySum s = {0};
    verify_add(&s, tensor_get_f64(&out[0], 0), tensor_get_f64(&want, 0));
    verify_report(v, key, "training loss", &s);
    static const char *const parts[] = {"token loss", "balance loss", "router z loss"};
    if (read_numbers(x, key, "loss_parts_f64", 3, &want))
        for (int i = 0; i < 3; i++) {
            VerifySum part = {0};
            verify_add(&part, tensor_get_f64(&out[1 + i], 0), tensor_get_f64(&want, i));
            verify_report(v, key, parts[i], &part);
        }
    if (strcmp(key, "unpacked") == 0 || strcmp(key, "long") == 0 ||
        !read_safetensors(v, "grads.safetensors", &f))
        return true;
    compare_gradients(x, key, out, &f);
    compare_norms(x, key, out);
    safetensors_unmap(&f);
    return true;
}

/* ---- runs ---- */

static bool run_options(Trained *x, json_t *run, moec_train_options *o) {
    static const char *const names[MOEC_OPTIMIZER_COUNT] = {"adafactor", "adamw", "sgd"};
    const char *optimizer = json_string_value(json_object_get(run, "optimizer"));
    x->api.defaults(o);
    o->optimizer = MOEC_OPTIMIZER_COUNT;
    for (int i = 0; optimizer && i < MOEC_OPTIMIZER_COUNT; i++)
        if (strcmp(names[i], optimizer) == 0)
            o->optimizer = (moec_optimizer)i;
    o->learning_rate = json_number_value(json_object_get(run, "lr"));
    o->step_offset = json_integer_value(json_object_get(run, "step_offset"));
    o->weight_decay = o->optimizer == MOEC_ADAMW ? 0.01 : 0; /* the runs' own */
    o->dropout = 0;
    o->label_smoothing = x->recipe.smoothing;
    o->z_loss = x->recipe.z_loss;
    return o->optimizer < MOEC_OPTIMIZER_COUNT ||
           diag_error(x->v->d, DIAG_GOLDEN_ARRAY, x->v->dir, "a run has no optimiser that is known");
}

static void compare_after(Trained *x, const char *name, moec_trainer *t, const float *const *start,
                          const SafeFile *f) {
    Verify *v = x->v;
    const moec_program *p = v->n.program;
    double worst = 0;
    int n = 0;
    const char *which = "none";
    for (uint32_t k = 0; k < f->n; k++)
        for (uint32_t i = 0; i < p->n_tensors; i++) {
            const AdapterTensor *want = &f->tensor[k];
            if (!str_is(want->name, p->tensor[i].name) || !same_shape(want, &p->tensor[i]))
                continue;
            AdapterTensor before = *want;
            before.kind = FK_F32;
            before.data = start[i];
            double moved = distance(want, start[i]), off = distance(want, x->api.tensor(t, i));
            double r = off / (STEP_TOLERANCE * moved + 1e-6 * norm_of(&before) + 1e-30) * STEP_TOLERANCE;
            n++;
            if (r >= worst) {
                worst = r;
                which = p->tensor[i].name;
            }
        }
    report_worst(v, name, "tensors after", n == (int)f->n ? n : 0, worst, STEP_TOLERANCE, which);
}

static bool run_steps(Trained *x, moec_trainer *t, int64_t steps, const Tensor *want, double *worst) {
    Verify *v = x->v;
    for (int64_t i = 0; i < steps; i++) {
        Rows r;
        moec_step_report report = {0};
        if (!read_rows(x, "train", i, &r))
            return diag_error(v->d, DIAG_GOLDEN_FILES, v->dir, "train.*: an array of the batches is missing");
        moec_batch b = {.rows = r.ids.dim[0],
                        .source = r.ids.dim[1],
                        .target = r.labels.dim[1],
                        .input_ids = r.ids.data,
                        .encoder_segments = r.segments.data,
                        .decoder_input_ids = r.decoder.data,
                        .decoder_segments = r.decoder_segments.data,
                        .labels = r.labels.data,
                        .weight = r.weight.data,
                        .sentence = r.sentence.data};
        moec_status s = x->api.batch(t, &b, 1);
        if (!s)
            s = x->api.step(t, &report);
        if (s)
            return diag_error(v->d, DIAG_RUN_STATUS, v->dir, "step %d: %s", (int)i + 1, v->n.text(s));
        double off = fabs(report.loss - tensor_get_f64(want, i));
        *worst = fmax(*worst, isfinite(off) ? off : INFINITY);
    }
    return true;
}

static bool verify_run(Trained *x, const char *name, json_t *run) {
    Verify *v = x->v;
    const moec_program *p = v->n.program;
    moec_train_options o;
    moec_trainer *t = NULL;
    char message[512] = "";
    Tensor want;
    SafeFile f = {0};
    double worst = 0;
    int64_t steps = 0;
    if (!verify_array(v, "train", arena_printf(v->a, "%s.losses_f64", name), &want) ||
        !tensor_count(&want, &steps) || !run_options(x, run, &o) || !native_reopen(&v->n))
        return diag_errors(v->d) == 0;
    moec_status s = x->api.open(v->n.instance, &o, &t, message, sizeof message);
    if (s)
        return diag_error(v->d, DIAG_RUN_STATUS, v->dir, "cannot train: %s",
                          message[0] ? message : v->n.text(s));
    const float **start = arena_array(v->a, p->n_tensors + 1, sizeof *start);
    for (uint32_t i = 0; i < p->n_tensors; i++)
        start[i] = arena_copy(v->a, x->api.tensor(t, i), p->tensor[i].bytes);
    bool ok = run_steps(x, t, steps, &want, &worst);
    if (ok) {
        report_worst(v, name, "losses of the run", (int)steps, worst, LOSS_TOLERANCE, "-");
        if (read_safetensors(v, arena_printf(v->a, "train.%s.after.safetensors", name), &f))
            compare_after(x, name, t, start, &f);
        safetensors_unmap(&f);
    }
    x->api.close(t);
    return ok;
}

/* ---- all together ---- */

static bool open_recipe(Trained *x) {
    const char *path = arena_printf(x->v->a, "%s/case.json", x->v->dir);
    struct stat st;
    if (stat(path, &st) != 0)
        return diag_error(x->v->d, DIAG_GOLDEN_FILES, path,
                          "--train needs this file, which tells the loss and the runs");
    if (!json_open(x->v->a, path, LIMIT_JSON_FOREIGN_DEPTH, &x->doc, x->v->d))
        return false;
    json_t *loss = json_object_get(x->doc.root, "loss");
    const char *reduce = json_string_value(json_object_get(loss, "reduce"));
    x->recipe = (Recipe){reduce && strcmp(reduce, "examples") == 0,
                         json_number_value(json_object_get(loss, "label_smoothing")),
                         json_number_value(json_object_get(loss, "z_loss"))};
    Native *n = &x->v->n;
    return native_symbol_address(n, "moec_train_defaults", &x->api.defaults) &&
           native_symbol_address(n, "moec_trainer_open", &x->api.open) &&
           native_symbol_address(n, "moec_trainer_close", &x->api.close) &&
           native_symbol_address(n, "moec_trainer_batch", &x->api.batch) &&
           native_symbol_address(n, "moec_trainer_step", &x->api.step) &&
           native_symbol_address(n, "moec_trainer_tensor", &x->api.tensor);
}

bool verify_train(Verify *v) {
    static const char *const keys[] = {"short", "long", "packed", "unpacked"};
    Trained x = {.v = v};
    bool ok = open_recipe(&x);
    for (size_t i = 0; ok && i < sizeof keys / sizeof *keys; i++)
        ok = verify_gradients(&x, keys[i]);
    json_t *runs = json_object_get(json_object_get(x.doc.root, "train"), "runs"), *run;
    const char *name;
    if (ok && json_is_object(runs))
        json_object_foreach(runs, name, run) ok = ok && verify_run(&x, name, run);
    json_close(&x.doc);
    return ok;
}
