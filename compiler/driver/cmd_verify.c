/* moec verify: the compiled model against stored reference outputs.
 *
 * A golden folder holds cases: KEY.input_ids.npy, KEY.attention_mask.npy, KEY.decoder_input_ids.npy, perhaps KEY.labels
 * and KEY.sentence, and what a float64 run made of them: encoder states, logits, label log probabilities, loss. Greedy
 * decoding has its tokens, logits of each step, and caches. What is compared is |difference| / |reference|, norms over
 * the whole array; encoder states at real tokens only. Where weights are in a format, differences are told, and what it
 * costs in all, unless a tolerance was given. What a program computes with padding and without is compared both
 * ways, and the worse told. */
#include "verify.h"
#include "../../frontends/json.h"
#include "../../frontends/npy.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- files ----------------------------------------------------------------------------------------- */

const char *verify_path(Verify *v, const char *key, const char *name) {
    return arena_printf(v->a, "%s/%s%s%s.npy", v->dir, key, *key ? "." : "", name);
}

/* An array of the case; false when there is none. */
bool verify_array(Verify *v, const char *key, const char *name, Tensor *out) {
    struct stat s;
    const char *path = verify_path(v, key, name);
    return stat(path, &s) == 0 && npy_read(path, v->a, out, v->d);
}

/* ---- comparing ---------------------------------------------------------------------------------------- */

void verify_add(VerifySum *s, double got, double want) {
    double d = got - want;
    if (!isfinite(got)) s->bad = true;
    s->diff += d * d;
    s->ref += want * want;
    if (fabs(d) > s->max) s->max = fabs(d);
}

void verify_report(Verify *v, const char *key, const char *what, const VerifySum *s) {
    double r = s->ref > 0 ? sqrt(s->diff / s->ref) : sqrt(s->diff);
    bool ok = !s->bad && (r <= v->tolerance || v->told);
    printf("%-10s %-22s %10.3g  max %9.3g  %s\n", key, what, r, s->max, !ok ? "FAILED" : r <= v->tolerance ? "ok" : "differs");
    if (r > v->worst) v->worst = r;
    v->compared++;
    v->failed += !ok;
}

static void report_equal(Verify *v, const char *key, const char *what, int64_t wrong) {
    printf("%-10s %-22s %s\n", key, what, !wrong ? "equal" : v->told ? "differ" : "FAILED");
    v->compared++;
    v->failed += wrong != 0 && !v->told;
}

static double larger(double a, double b) {
    return a > b || isnan(a) ? a : b;
}

/* Of logits, and of the steps' of greedy decoding. */
static void note_logits(Verify *v, const VerifySum *s) {
    v->cost.logits = larger(s->ref > 0 ? sqrt(s->diff / s->ref) : sqrt(s->diff), v->cost.logits);
    v->cost.logits_max = larger(s->max, v->cost.logits_max);
}

static void note_loss(Verify *v, const VerifySum *s) {
    v->cost.loss = larger(s->max, v->cost.loss);
    v->cost.loss_relative = larger(s->ref > 0 ? s->max / sqrt(s->ref) : s->max, v->cost.loss_relative);
}

static void tell_cost(const Verify *v) {
    const VerifyCost *c = &v->cost;
    printf("what the weights' format costs: logits %.3g of their norm, %.3g at most; loss %.3g (%.2g %%); %" PRId64 " of %" PRId64
           " greedy tokens differ\n",
           c->logits, c->logits_max, c->loss, 100 * c->loss_relative, c->tokens_wrong, c->tokens);
}

/* [B,N,W] against a reference that may hold only some positions of axis 1; rows where mask is 0 are left out. */
static VerifySum sum_rows(const Tensor *got, const Tensor *want, const Tensor *positions, const Tensor *mask) {
    VerifySum s = {0};
    int64_t rows = want->dim[1], width = want->rank > 2 ? want->dim[2] : 1;
    for (int64_t b = 0; b < want->dim[0]; b++)
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = positions ? tensor_get_i64(positions, i) : i;
            if (at < 0 || at >= got->dim[1] || (mask && !tensor_get_i64(mask, b * mask->dim[1] + at))) continue;
            for (int64_t w = 0; w < width; w++)
                verify_add(&s, tensor_get_f64(got, (b * got->dim[1] + at) * width + w), tensor_get_f64(want, (b * rows + i) * width + w));
        }
    return s;
}

/* packed: the same, made without padding; no data: it was not. */
static void compare_rows(Verify *v, const char *key, const char *what, const Tensor *got, const Tensor *packed, const Tensor *want,
                         const Tensor *positions, const Tensor *mask) {
    VerifySum s = sum_rows(got, want, positions, mask), t = packed->data ? sum_rows(packed, want, positions, mask) : s;
    const VerifySum *worse = t.bad || t.diff > s.diff ? &t : &s;
    verify_report(v, key, what, worse);
    if (strcmp(what, "logits") == 0) note_logits(v, worse);
}

/* ---- running ---------------------------------------------------------------------------------------------- */

static void set_symbol(Verify *v, const char *name, int64_t value) {
    int i = native_symbol(&v->n, name);
    if (i >= 0) v->sym[i] = value;
}

/* Runs a function whose inputs are found by name; outputs in its order. */
bool verify_call(Verify *v, const char *function, const VerifyInput *given, size_t n, Tensor *out) {
    int f = native_function(&v->n, function);
    if (f < 0)
        return diag_error(v->d, DIAG_RUN_FUNCTION, v->o->model, "the model has no function '%s'", function);
    const moec_function *p = &v->n.program->function[f];
    Tensor *in = arena_array(v->a, p->n_inputs + 1, sizeof *in);
    for (uint32_t i = 0; i < p->n_inputs; i++) {
        size_t k = 0;
        while (k < n && strcmp(given[k].name, p->value[i].name) != 0) k++;
        if (k == n || !given[k].t->data)
            return diag_error(v->d, DIAG_GOLDEN_FILES, v->dir, "no array for input '%s' of '%s'",
                              p->value[i].name, function);
        Tensor want = native_shape(&v->n, f, i, v->sym);
        in[i] = *given[k].t;
        if (want.dtype != in[i].dtype || want.rank != in[i].rank || memcmp(want.dim, in[i].dim, (size_t)want.rank * sizeof *want.dim) != 0)
            return diag_error(v->d, DIAG_GOLDEN_ARRAY, v->dir,
                              "the array for input '%s' does not have the model's type and extents",
                              p->value[i].name);
    }
    return native_run(&v->n, f, v->sym, in, out, v->a);
}

static bool filled(Verify *v, Tensor *t, DType type, int64_t a, int64_t b, int64_t value) {
    *t = (Tensor){.dtype = type, .rank = 2, .dim = {a, b}};
    if (!tensor_alloc(v->a, t))
        return diag_error(v->d, DIAG_GOLDEN_ARRAY, v->dir, "an array is too large");
    for (int64_t i = 0; i < a * b; i++) tensor_set_i64(t, i, value);
    return true;
}

/* Whether the model's bounds, or the constants of a static export, take these extents. */
bool verify_fits(Verify *v, const Tensor *ids, int64_t targets) {
    static const char *const names[] = {"B", "S", "T"};
    int64_t want[3] = {ids->dim[0], ids->dim[1], targets}, axis[3] = {0, 1, 1};
    static const char *const functions[] = {"encode", "encode", "score"};
    for (int i = 0; i < 3; i++) {
        int s = native_symbol(&v->n, names[i]), f = native_function(&v->n, functions[i]);
        if (f < 0) return false;
        const moec_symbol *b = s >= 0 ? &v->n.program->symbol[s] : NULL;
        int64_t constant = native_shape(&v->n, f, 0, v->sym).dim[axis[i]];
        set_symbol(v, names[i], want[i]);
        int64_t extent = native_shape(&v->n, f, 0, v->sym).dim[axis[i]];
        if (extent != want[i]) return false;
        if (b && constant == extent && constant != b->lo) v->sym[s] = b->lo; /* a symbol nothing stands on */
        else if (b && (want[i] < b->lo || want[i] > b->hi)) return false;
    }
    return true;
}

/* The loss of a golden folder that says nothing else: mean over target tokens. Other reductions are training's. */
static bool plain_loss(Verify *v, const char *key) {
    struct stat s;
    const char *path = arena_printf(v->a, "%s/case.json", v->dir);
    if (stat(path, &s) != 0) return true;
    if (stat(verify_path(v, key, "loss_parts_f64"), &s) == 0) return false;
    JsonDoc doc;
    bool plain = false;
    if (json_open(v->a, path, LIMIT_JSON_FOREIGN_DEPTH, &doc, v->d)) {
        json_t *loss = json_object_get(doc.root, "loss"), *reduce = json_object_get(loss, "reduce");
        plain = json_is_string(reduce) && strcmp(json_string_value(reduce), "tokens") == 0 &&
                json_number_value(json_object_get(loss, "label_smoothing")) == 0 && json_number_value(json_object_get(loss, "z_loss")) == 0;
    }
    json_close(&doc);
    return plain;
}

static void compare_loss(Verify *v, const char *key, const Tensor *labels, const Tensor *logprob) {
    Tensor want;
    VerifySum s = {0};
    double sum = 0, count = 0;
    int64_t n = labels->dim[0] * labels->dim[1];
    if (!verify_array(v, key, "loss_f64", &want) || !plain_loss(v, key)) return;
    for (int64_t i = 0; i < n; i++)
        if (tensor_get_i64(labels, i) != -100) {
            sum -= tensor_get_f64(logprob, i);
            count++;
        }
    verify_add(&s, sum / count, tensor_get_f64(&want, 0));
    verify_report(v, key, "loss", &s);
    note_loss(v, &s);
}

static bool verify_case(Verify *v, const char *key) {
    Tensor ids, mask, dec, labels, sentence = {0}, want, at, out[2], kv, hidden;
    bool has_dec = verify_array(v, key, "decoder_input_ids", &dec), has_labels = verify_array(v, key, "labels", &labels);
    struct stat st;
    if (!verify_array(v, key, "input_ids", &ids) || !verify_array(v, key, "attention_mask", &mask) || ids.rank != 2) {
        bool packed = stat(verify_path(v, key, "encoder_segments"), &st) == 0;
        if (packed && v->o->train) return true; /* verify_train's */
        printf("%-10s skipped: %s\n", key, packed ? "packed rows belong to training (--train)" : "no attention mask");
        v->skipped++;
        return true;
    }
    verify_array(v, key, "sentence", &sentence);
    if (!verify_fits(v, &ids, has_dec ? dec.dim[1] : 1)) {
        printf("%-10s skipped: extents outside the model's\n", key);
        v->skipped++;
        return true;
    }
    VerifyInput enc[] = {{"input_ids", &ids}, {"attention_mask", &mask}, {"sentence", &sentence}};
    if (!verify_call(v, "encode", enc, 3, &hidden)) return false;
    if (has_dec && !has_labels && !filled(v, &labels, DT_I64, dec.dim[0], dec.dim[1], -100)) return false;
    VerifyPacked packed;
    if (!verify_packed(v, &(VerifyCase){&ids, &mask, has_dec ? &dec : NULL, &labels}, &packed)) return false;
    bool some = verify_array(v, key, "encoder_positions", &at);
    if (verify_array(v, key, "encoder_last_hidden_state_f64", &want) || verify_array(v, key, "encoder_f64", &want))
        compare_rows(v, key, "encoder states", &hidden, &packed.hidden, &want, some ? &at : NULL, &mask);
    if (!has_dec) return true;
    VerifyInput cross[] = {{"hidden", &hidden}, {"sentence", &sentence}};
    if (!verify_call(v, "cross", cross, 2, &kv)) return false;
    VerifyInput score[] = {{"decoder_input_ids", &dec}, {"cross_kv", &kv}, {"attention_mask", &mask}, {"labels", &labels}, {"sentence", &sentence}};
    if (!verify_call(v, "score", score, 5, out)) return false;
    some = verify_array(v, key, "decoder_positions", &at);
    if (verify_array(v, key, "logits_f64", &want)) compare_rows(v, key, "logits", &out[1], &packed.logits, &want, some ? &at : NULL, NULL);
    if (has_labels && verify_array(v, key, "label_logprobs_f64", &want)) compare_rows(v, key, "label log probs", &out[0], &packed.logprob, &want, NULL, NULL);
    if (has_labels) compare_loss(v, key, &labels, &out[0]);
    return true;
}

/* ---- greedy decoding ------------------------------------------------------------------------------------------ */

/* Reference caches are [B,H,N,D]; ours are [B,heads,room,D], from head `first` on. */
static void compare_cache(Verify *v, const char *what, const Tensor *want, const Tensor *ours, int64_t first) {
    VerifySum s = {0};
    int64_t heads = want->dim[1], rows = want->dim[2], width = want->dim[3];
    for (int64_t b = 0; b < want->dim[0]; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < rows; i++)
                for (int64_t w = 0; w < width; w++)
                    verify_add(&s, tensor_get_f64(ours, ((b * ours->dim[1] + first + h) * ours->dim[2] + i) * width + w),
                            tensor_get_f64(want, ((b * heads + h) * rows + i) * width + w));
    verify_report(v, "greedy", what, &s);
}

typedef struct Greedy {
    int f;
    const moec_function *p;
    Tensor *in, *out;
    Tensor kv, tokens;
    int64_t batch, steps;
    uint32_t first_cache;
} Greedy;

static void compare_step_caches(Verify *v, Greedy *g, int64_t step) {
    static const char *const side[] = {"key", "value"};
    for (uint32_t i = g->first_cache; i < g->p->n_inputs; i++) {
        uint32_t layer = (i - g->first_cache) / 2, kind = (i - g->first_cache) % 2;
        Tensor want;
        if (verify_array(v, "greedy", arena_printf(v->a, "step%d.present.%u.decoder.%s", (int)step, layer, side[kind]), &want))
            compare_cache(v, arena_printf(v->a, "step%d %s %u", (int)step, side[kind], layer), &want, &g->in[i], 0);
        if (verify_array(v, "greedy", arena_printf(v->a, "step%d.present.%u.encoder.%s", (int)step, layer, side[kind]), &want))
            compare_cache(v, arena_printf(v->a, "cross %s %u", side[kind], layer), &want, &g->kv,
                          (2 * layer + kind) * want.dim[1]);
    }
}

/* Feeds each step's tokens to the next; rows after their end of sequence emit and are fed pad. */
static bool greedy_steps(Verify *v, Greedy *g, Tensor *token, int64_t *wrong, VerifySum *logits, const Tensor *want_logits) {
    bool *ended = arena_array(v->a, (size_t)g->batch, sizeof *ended);
    const moec_seq2seq *s2s = v->n.program->seq2seq;
    for (int64_t step = 0; step < g->steps; step++) {
        set_symbol(v, "P", step);
        if (!native_run(&v->n, g->f, v->sym, g->in, g->out, v->a)) return false;
        for (int64_t b = 0; b < g->batch; b++) {
            int64_t t = ended[b] ? s2s->pad : tensor_get_i64(&g->out[1], b);
            v->cost.tokens++;
            if (t != tensor_get_i64(&g->tokens, b * (g->steps + 1) + step + 1)) ++*wrong;
            tensor_set_i64(token, b, t);
            ended[b] = ended[b] || t == s2s->eos;
            int64_t vocab = g->out[0].dim[2];
            if (want_logits && step < want_logits->dim[1])
                for (int64_t w = 0; w < vocab; w++)
                    verify_add(logits, tensor_get_f64(&g->out[0], b * vocab + w),
                            tensor_get_f64(want_logits, (b * want_logits->dim[1] + step) * vocab + w));
        }
        compare_step_caches(v, g, step);
    }
    return true;
}

static bool verify_greedy(Verify *v) {
    Tensor ids, mask, sentence = {0}, hidden, token, step_logits;
    Greedy g = {0};
    if (!verify_array(v, "greedy", "tokens", &g.tokens) && !verify_array(v, "short", "greedy_tokens", &g.tokens)) return true;
    if (!verify_array(v, "short", "input_ids", &ids) || !verify_array(v, "short", "attention_mask", &mask)) return true;
    verify_array(v, "short", "sentence", &sentence);
    if (!verify_fits(v, &ids, 1)) return true;
    g.f = native_function(&v->n, "step");
    g.p = &v->n.program->function[g.f];
    g.batch = ids.dim[0];
    g.steps = g.tokens.dim[1] - 1;
    VerifyInput enc[] = {{"input_ids", &ids}, {"attention_mask", &mask}, {"sentence", &sentence}};
    if (!verify_call(v, "encode", enc, 3, &hidden)) return false;
    VerifyInput cross[] = {{"hidden", &hidden}, {"sentence", &sentence}};
    if (!verify_call(v, "cross", cross, 2, &g.kv)) return false;
    if (!filled(v, &token, DT_I64, g.batch, 1, v->n.program->seq2seq->start)) return false;
    g.in = arena_array(v->a, g.p->n_inputs + 1, sizeof *g.in);
    g.out = arena_array(v->a, g.p->n_outputs + 1, sizeof *g.out);
    set_symbol(v, "P", 0);
    for (uint32_t i = 0; i < g.p->n_inputs; i++) {
        const char *name = g.p->value[i].name;
        if (strcmp(name, "token") == 0) g.in[i] = token;
        else if (strcmp(name, "cross_kv") == 0) g.in[i] = g.kv;
        else if (strcmp(name, "attention_mask") == 0) g.in[i] = mask;
        else if (strcmp(name, "sentence") == 0) g.in[i] = sentence;
        else {
            if (!g.first_cache) g.first_cache = i;
            g.in[i] = native_shape(&v->n, g.f, i, v->sym);
            g.in[i].dim[g.p->value[i].grow_axis] = g.p->value[i].capacity;
            if (!tensor_alloc(v->a, &g.in[i]))
                return diag_error(v->d, DIAG_SHAPE_SIZE, v->dir, "a cache is too large");
        }
    }
    bool has_logits = verify_array(v, "greedy", "step_logits_f64", &step_logits) && step_logits.rank == 3 && step_logits.dim[0] == g.batch;
    int64_t wrong = 0;
    VerifySum logits = {0};
    if (!greedy_steps(v, &g, &token, &wrong, &logits, has_logits ? &step_logits : NULL)) return false;
    report_equal(v, "greedy", "tokens", wrong);
    v->cost.tokens_wrong += wrong;
    if (!has_logits) return true;
    verify_report(v, "greedy", "step logits", &logits);
    note_logits(v, &logits);
    return true;
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool verify_keys(Verify *v, Arena *a, const char **key, int *n) {
    static const char tail[] = ".input_ids.npy";
    DIR *dir = opendir(v->dir);
    if (!dir)
        return diag_error(v->d, DIAG_FILE_READ, v->dir, "cannot open the folder: %s", strerror(errno));
    for (struct dirent *e; *n < MAX_CASES && (errno = 0, e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len <= sizeof tail - 1 || strcmp(e->d_name + len - (sizeof tail - 1), tail) != 0) continue;
        len -= sizeof tail - 1;
        if (len == 5 && strncmp(e->d_name, "train", 5) == 0) continue;
        if (memchr(e->d_name, '.', len)) continue;
        key[(*n)++] = arena_strndup(a, e->d_name, len);
    }
    int why = errno;
    closedir(dir);
    if (why && *n < MAX_CASES)
        return diag_error(v->d, DIAG_FILE_READ, v->dir, "cannot read the folder: %s", strerror(why));
    qsort(key, (size_t)*n, sizeof *key, by_name);
    return *n > 0 || v->o->train ||
           diag_error(v->d, DIAG_GOLDEN_FILES, v->dir,
                      "no cases here: files KEY.input_ids.npy were expected");
}

static bool verify_all(Verify *v) {
    Arena *names = arena_new();
    const char *key[MAX_CASES];
    int n = 0;
    bool ok = verify_keys(v, names, key, &n);
    for (int i = 0; i <= n + v->o->train && ok; i++) {
        v->a = arena_new();
        v->sym = arena_array(v->a, v->n.program->n_symbols + 1, sizeof *v->sym);
        for (uint32_t s = 0; s < v->n.program->n_symbols; s++) v->sym[s] = v->n.program->symbol[s].lo;
        ok = i < n ? verify_case(v, key[i]) : i == n ? verify_greedy(v) : verify_train(v);
        arena_free(v->a);
    }
    arena_free(names);
    return ok;
}

/* Weights are asked to be in a format. */
static bool in_format(const Options *o) {
    for (size_t i = 0; i < o->weights.count; i++) {
        size_t n = strlen(o->weights.item[i]);
        if (n < 3 || strcmp(o->weights.item[i] + n - 3, "f32") != 0) return true;
    }
    return false;
}

int cmd_verify(const Options *o) {
    if (!o->golden && !o->per_node)
        return usage_error(o, DIAG_USAGE_ARGUMENT, "--golden DIR is needed: stored inputs and outputs; or --per-node");
    if (o->against && !o->per_node)
        return usage_error(o, DIAG_USAGE_TOGETHER, "--against goes with --per-node");
    if (o->per_node && (o->opt_report || o->memory_report))
        return usage_error(o, DIAG_USAGE_TOGETHER,
                           "reports tell of the program as it is compiled: not with --per-node, which has all results in it");
    Verify v = {.o = o, .dir = o->golden, .tolerance = o->tolerance ? strtod(o->tolerance, NULL) : 2e-5};
    if (!(v.tolerance > 0))
        return usage_error(o, DIAG_USAGE_VALUE, "--tolerance: a positive number was expected");
    int exit_code;
    if (!reports_check(o, true, &exit_code))
        return exit_code;
    v.told = in_format(o) && !o->tolerance;
    v.d = diag_new();
    if (o->per_node) return verify_nodes(&v);
    Model model;
    bool ok = model_load(o, &model, v.d) && model_passes(&model, o, NULL, NULL, 0, v.d);
    if (ok && !model.m->s2s.present)
        ok = diag_error(v.d, DIAG_MATCH_T5, o->model,
                        "not a sequence to sequence model: verify has no cases for it");
    if (ok) {
        ok = native_open(&v.n, o, &model, o->threads > 0 ? (int)o->threads : 0, v.d) && verify_all(&v) &&
             reports_write(o, &model, &v.n.build, v.d);
        if (ok && in_format(o)) tell_cost(&v);
        if (ok) printf("%d compared, %d failed, %d cases skipped; worst %.3g (tolerance %g)\n", v.compared, v.failed, v.skipped, v.worst, v.tolerance);
        native_close(&v.n);
    }
    int code = diag_finish(v.d, ok);
    model_close(&model);
    return code == EXIT_DONE && v.failed ? EXIT_INPUT : code;
}
