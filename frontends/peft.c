/* PEFT directories to an adapter.
 *
 * Tensors are the truth: a directory's sites are those that its tensors name, each tensor has one place or is
 * an error, and the config must agree. Several directories are compared site by site before anything is
 * stacked. The spec is made as text and read like any other, so it is checked like any other. */
#include "peft_impl.h"

#include "file.h"
#include "safetensors.h"
#include "spec.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPORT_EACH = 4, ENTRY_LAYERS = 256 };

static const char prefix[] = "base_model.model.";

/* How the names of tensors end. */
static const struct {
    const char *suffix, *kind;
    PeftType type;
    int part;
} parts[] = {{".lora_A.weight", "LoRA", PT_LORA, 0},
             {".lora_B.weight", "LoRA", PT_LORA, 1},
             {".ia3_l", "IA3", PT_IA3, 0}};
enum { N_PARTS = sizeof parts / sizeof *parts };
static const char *const type_names[] = {"LORA", "IA3"};

/* A tensor whose name was understood. */
typedef struct PeftTensor {
    PeftPlace place;
    int part;
    Str module;
    const AdapterTensor *t;
} PeftTensor;

/* An adapted site as one directory has it: lora_A and lora_B, or ia3_l. */
typedef struct PeftSite {
    PeftPlace place;
    const AdapterTensor *part[2];
    int64_t rank;
    double alpha; /* the scale is alpha / rank */
} PeftSite;

typedef struct PeftDir {
    const char *file;
    PeftConfig c;
    SafeFile f;
    PeftFfn ffn;
    PeftSite *site;
    uint32_t n;
} PeftDir;

typedef struct Import {
    Arena *a;
    Diag *d;
    const PeftImport *how;
    PeftTable *table;
    PeftDir *dir;
    uint32_t n_dirs;
    AdapterTensor *tensor; /* the result's */
    uint32_t n_tensors;
} Import;

static bool tensor_error(const Import *im, DiagCode code, const PeftDir *x, const AdapterTensor *t,
                         const char *what) {
    return diag_error(im->d, code, x->file, "tensor '%s': %s", diag_show(im->d, t->name), what);
}

/* ---- one directory -------------------------------------------------------------------------------- */

static bool dir_open(Import *im, PeftDir *x, const char *dir) {
    if (!peft_config_read(im->a, dir, &x->c, im->d))
        return false;
    x->file = arena_printf(im->a, "%s/%s", dir, PEFT_WEIGHTS);
    struct stat st;
    if (stat(x->file, &st) != 0 && stat(arena_printf(im->a, "%s/adapter_model.bin", dir), &st) == 0)
        return diag_error(
            im->d, DIAG_PEFT_FILES, x->file,
            "is missing; adapter_model.bin is a pickle, which is not read: save the adapter with "
            "safe_serialization");
    int64_t size = 0;
    int fd = file_open(x->file, &size, im->d);
    if (fd < 0)
        return false;
    bool ok = safetensors_map(im->a, fd, size, x->file, &x->f, im->d);
    close(fd);
    return ok;
}

/* IA3 scales a linear's output [out,1] or, for feed-forward modules, its input [1,in]. What can be told from
 * the adapter's own sites: k and v, wo's input, which is the activation's output, and wi_1's output, which is
 * its equal in the product. */
static bool ia3_place(Import *im, PeftDir *x, PeftTensor *p) {
    const AdapterTensor *t = p->t;
    SiteRole role = p->place.role;
    if (t->rank != 2 || (t->dim[0] != 1 && t->dim[1] != 1) || t->dim[0] < 1 || t->dim[1] < 1)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, t,
                            arena_printf(im->a, "shape %s where a vector [out,1] or [1,in] is expected",
                                         peft_shape(im->a, t->rank, t->dim)));
    bool known = x->c.feedforward.given && !x->c.feedforward.all;
    bool one = t->dim[0] == 1 && t->dim[1] == 1,
         listed = known && peft_targets_have(&x->c, &x->c.feedforward, p->module);
    bool input = one ? (known ? listed : role == SR_WO) : t->dim[0] == 1;
    if (known && listed != input)
        return tensor_error(
            im, DIAG_PEFT_TENSOR, x, t,
            arena_printf(im->a,
                         "shape %s, but key 'feedforward_modules' of %s says that it scales the "
                         "%s",
                         peft_shape(im->a, t->rank, t->dim), PEFT_CONFIG, listed ? "input" : "output"));
    bool vector = (role == SR_K || role == SR_V) && !input;
    if (!vector && !(role == SR_WO && input) && !(role == SR_WI_1 && !input))
        return tensor_error(
            im, DIAG_PEFT_TENSOR, x, t,
            arena_printf(im->a,
                         "IA3 on the %s of %s; it can scale the outputs of k, v and wi_1 and the input "
                         "of wo",
                         input ? "input" : "output", peft_linear_name(role, x->ffn)));
    if (!vector)
        p->place.role = SR_ACT;
    return true;
}

static bool tensor_place(Import *im, PeftDir *x, const AdapterTensor *t, PeftTensor *out) {
    size_t k = 0, n = 0, head = sizeof prefix - 1;
    PeftFfn ffn = PF_UNKNOWN;
    for (; k < N_PARTS; k++) {
        n = strlen(parts[k].suffix);
        if (t->name.n > n + head && memcmp(t->name.p + t->name.n - n, parts[k].suffix, n) == 0)
            break;
    }
    *out = (PeftTensor){.t = t};
    if (k < N_PARTS && memcmp(t->name.p, prefix, head) == 0)
        out->module = (Str){t->name.p + head, t->name.n - n - head};
    if (out->module.n == 0 || !peft_module_parse(out->module, &out->place, &ffn))
        return tensor_error(
            im, DIAG_PEFT_TENSOR, x, t,
            "has no place: LoRA and IA3 of the linears in attention and feed-forward blocks are read, not "
            "of embeddings, norms or lm_head, and no whole modules");
    out->part = parts[k].part;
    if (parts[k].type != x->c.type)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, t,
                            arena_printf(im->a, "a tensor of %s; key 'peft_type' of %s is '%s'",
                                         parts[k].kind, PEFT_CONFIG, type_names[x->c.type]));
    if (!peft_targets_have(&x->c, &x->c.targets, out->module))
        return tensor_error(im, DIAG_PEFT_TENSOR, x, t,
                            "its module is not among the 'target_modules' of " PEFT_CONFIG);
    if (t->kind == FK_NONE)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, t,
                            arena_printf(im->a, "dtype %s; floating point is needed (F32, F16, BF16, F64)",
                                         diag_show(im->d, t->dtype)));
    if (ffn != PF_UNKNOWN && x->ffn != PF_UNKNOWN && ffn != x->ffn)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, t,
                            "a feed-forward block has wi, or wi_0 and wi_1, not both");
    x->ffn = ffn != PF_UNKNOWN ? ffn : x->ffn;
    return x->c.type == PT_LORA || ia3_place(im, x, out);
}

static int tensor_order(const void *p, const void *q) {
    const PeftTensor *x = p, *y = q;
    int c = peft_place_order(&x->place, &y->place);
    return c != 0 ? c : x->part != y->part ? x->part - y->part : (x->t > y->t) - (x->t < y->t);
}

static bool lora_site(Import *im, PeftDir *x, const PeftTensor *p, PeftSite *s) {
    const AdapterTensor *A = s->part[0], *B = s->part[1];
    if (A == NULL || B == NULL)
        return tensor_error(
            im, DIAG_PEFT_TENSOR, x, p->t,
            arena_printf(im->a, "there is no lora_%s for this module", A == NULL ? "A" : "B"));
    s->rank = peft_config_rank(&x->c, p->module);
    s->alpha = peft_config_alpha(&x->c, p->module, s->rank);
    if (A->rank != 2 || A->dim[0] != s->rank || A->dim[1] < 1)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, A,
                            arena_printf(im->a, "shape %s where the config makes it [%" PRId64 ",in]",
                                         peft_shape(im->a, A->rank, A->dim), s->rank));
    if (B->rank != 2 || B->dim[1] != s->rank || B->dim[0] < 1)
        return tensor_error(im, DIAG_PEFT_TENSOR, x, B,
                            arena_printf(im->a, "shape %s where the config makes it [out,%" PRId64 "]",
                                         peft_shape(im->a, B->rank, B->dim), s->rank));
    return true;
}

/* Tensors in order of places to sites. */
static bool sites_make(Import *im, PeftDir *x, const PeftTensor *p, uint32_t n) {
    x->site = arena_array(im->a, (size_t)n + 1, sizeof *x->site);
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n && bad < REPORT_EACH;) {
        PeftSite *s = &x->site[x->n++];
        s->place = p[i].place;
        uint32_t first = i;
        bool ok = true;
        for (; i < n && peft_place_order(&p[first].place, &p[i].place) == 0; i++) {
            if (s->part[p[i].part] != NULL)
                ok = tensor_error(im, DIAG_PEFT_TENSOR, x, p[i].t,
                                  arena_printf(im->a, "site %s has a tensor like this already, '%s'",
                                               peft_site_name(im->a, &s->place), s->part[p[i].part]->name.p));
            s->part[p[i].part] = p[i].t;
        }
        if (ok && x->c.type == PT_LORA)
            ok = lora_site(im, x, &p[first], s);
        bad += !ok;
    }
    return bad == 0;
}

static bool dir_read(Import *im, PeftDir *x, const char *dir) {
    if (!dir_open(im, x, dir))
        return false;
    PeftTensor *p = arena_array(im->a, (size_t)x->f.n + 1, sizeof *p);
    uint32_t bad = 0;
    for (uint32_t i = 0; i < x->f.n && bad < REPORT_EACH && x->c.steps >= 0; i++)
        bad += !tensor_place(im, x, &x->f.tensor[i], &p[i]);
    if (bad == REPORT_EACH)
        diag_error(im->d, DIAG_PEFT_TENSOR, x->file, "tensors after these were not looked at");
    if (bad == 0 && x->f.n == 0)
        return diag_error(im->d, DIAG_PEFT_FILES, x->file, "holds no tensor");
    qsort(p, x->f.n, sizeof *p, tensor_order);
    bool ok = bad == 0 && sites_make(im, x, p, x->f.n);
    if (x->c.steps < 0) /* whatever was found is not to be trusted */
        return diag_error(im->d, DIAG_PEFT_PATTERN, x->c.file,
                          "its patterns of modules take more than %d steps to match", LIMIT_PEFT_PATTERN_STEPS);
    return ok;
}

/* ---- several ------------------------------------------------------------------------------------------- */

static bool parts_equal(const AdapterTensor *x, const AdapterTensor *y) {
    return x == y || (x != NULL && y != NULL && x->rank == y->rank &&
                      memcmp(x->dim, y->dim, (size_t)x->rank * sizeof *x->dim) == 0);
}

/* The experts of a mixture have the same sites, and the same shapes there. */
static bool dirs_agree(Import *im, const PeftDir *x, const PeftDir *y) {
    if (x->c.type != y->c.type)
        return diag_error(im->d, DIAG_PEFT_EXPERTS, y->c.file,
                          "peft_type is '%s', in %s '%s': experts of one mixture are alike",
                          type_names[y->c.type], x->c.file, type_names[x->c.type]);
    if (x->ffn != y->ffn)
        return diag_error(im->d, DIAG_PEFT_EXPERTS, y->file, "has other feed-forward modules than %s",
                          x->file);
    for (uint32_t i = 0, n = x->n > y->n ? x->n : y->n; i < n; i++) {
        int c = i == x->n ? 1 : i == y->n ? -1 : peft_place_order(&x->site[i].place, &y->site[i].place);
        if (c != 0)
            return diag_error(im->d, DIAG_PEFT_EXPERTS, y->file,
                              "site %s is adapted %s %s: the experts of a mixture have the same sites",
                              peft_site_name(im->a, c < 0 ? &x->site[i].place : &y->site[i].place),
                              c < 0 ? "not here, but in" : "here, but not in", x->file);
        const PeftSite *s = &x->site[i], *t = &y->site[i];
        for (int k = 0; k < 2; k++) {
            if (!parts_equal(s->part[k], t->part[k]))
                return tensor_error(
                    im, DIAG_PEFT_EXPERTS, y, t->part[k],
                    arena_printf(im->a,
                                 "shape %s, in %s %s: the experts of a mixture have equal ranks and widths",
                                 peft_shape(im->a, t->part[k]->rank, t->part[k]->dim), x->file,
                                 peft_shape(im->a, s->part[k]->rank, s->part[k]->dim)));
        }
    }
    return true;
}

/* ---- the spec -------------------------------------------------------------------------------------------
 */

/* Sites of one layer's block that share rank and alpha. */
typedef struct Run {
    PeftPlace place; /* of the first */
    uint32_t roles;
    int64_t rank;
    double alpha;
} Run;

static int run_order(const void *p, const void *q) {
    const Run *x = p, *y = q;
    if (x->place.stack != y->place.stack)
        return x->place.stack - y->place.stack;
    if (x->place.block != y->place.block)
        return x->place.block - y->place.block;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->alpha != y->alpha)
        return x->alpha < y->alpha ? -1 : 1;
    return x->roles != y->roles ? (x->roles < y->roles ? -1 : 1) : x->place.layer - y->place.layer;
}

static bool run_joins(const Run *x, const Run *y) {
    return x->place.stack == y->place.stack && x->place.block == y->place.block && x->rank == y->rank &&
           x->alpha == y->alpha;
}

static uint32_t runs_make(const PeftDir *x, Run *run) {
    uint32_t n = 0, first = 0; /* of the layer's block */
    for (uint32_t i = 0; i < x->n; i++) {
        const PeftSite *s = &x->site[i];
        Run r = {s->place, 1u << s->place.role, s->rank, s->alpha};
        uint32_t k = first;
        while (k < n && !(run[k].place.layer == r.place.layer && run_joins(&run[k], &r)))
            k++;
        if (k < n) {
            run[k].roles |= r.roles;
            continue;
        }
        if (n > 0 && (run[n - 1].place.layer != r.place.layer || run[n - 1].place.stack != r.place.stack ||
                      run[n - 1].place.block != r.place.block))
            first = n;
        run[n++] = r;
    }
    qsort(run, n, sizeof *run, run_order);
    return n;
}

/* "x", or "{x,y}". */
static void words_text(Text *t, const char *const *word, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        text_printf(t, "%s%s", i > 0 ? "," : n > 1 ? "{" : "", word[i]);
    text_printf(t, "%s", n > 1 ? "}" : "");
}

/* encoder.{0,1}.self.{q,v} */
static void entry_text(Import *im, Text *t, const Run *run, uint32_t n) {
    const char *word[ENTRY_LAYERS];
    uint32_t roles = 0;
    for (uint32_t i = 0; i < n; i++)
        word[i] = arena_printf(im->a, "%d", run[i].place.layer);
    text_printf(t, "{\"match\":\"%s.", peft_stack_name(&run->place));
    words_text(t, word, n);
    text_printf(t, ".%s.", peft_block_name(&run->place));
    for (SiteRole r = 0; r < SR_COUNT; r++) {
        if ((run->roles >> r & 1) != 0)
            word[roles++] = site_role_name(r);
    }
    words_text(t, word, roles);
    text_printf(t, "\"");
}

static AdapterSpec *spec_make(Import *im) {
    PeftDir *x = im->dir;
    bool lora = x->c.type == PT_LORA, mixed = im->n_dirs > 1;
    double alpha = x->c.alpha * (x->c.rslora ? sqrt((double)x->c.rank) : 1);
    Text t = {0};
    text_printf(&t, "{\"moec_adapter\":1,\"method\":\"%s\"",
                adapter_method_name(lora    ? (mixed ? AM_MOLORA : AM_LORA)
                                    : mixed ? AM_MOV
                                            : AM_IA3));
    if (mixed)
        text_printf(&t, ",\"experts\":%" PRIu32, im->n_dirs);
    if (lora)
        text_printf(&t, ",\"rank\":%" PRId64 ",\"alpha\":%.17g", x->c.rank, alpha);
    text_printf(&t, ",\"sites\":[");
    Run *run = arena_array(im->a, (size_t)x->n + 1, sizeof *run);
    for (uint32_t i = 0, n = runs_make(x, run), k; i < n; i = k) {
        for (k = i + 1;
             k < n && k - i < ENTRY_LAYERS && run_joins(&run[i], &run[k]) && run[i].roles == run[k].roles;)
            k++;
        text_printf(&t, "%s", i > 0 ? "," : "");
        entry_text(im, &t, &run[i], k - i);
        if (lora && run[i].rank != x->c.rank)
            text_printf(&t, ",\"rank\":%" PRId64, run[i].rank);
        if (lora && run[i].alpha != alpha)
            text_printf(&t, ",\"alpha\":%.17g", run[i].alpha);
        text_printf(&t, "}");
    }
    text_printf(&t, "]}");
    AdapterSpec *s = spec_parse(im->a, x->file, (Str){t.p, t.n}, im->d);
    text_free(&t);
    for (uint32_t i = 0; s != NULL && i < s->n_rules; i++)
        s->rule[i].line = 0; /* of a text that nobody wrote */
    return s;
}

/* ---- tensors --------------------------------------------------------------------------------------------
 */

static AdapterTensor *tensor_add(Import *im, const PeftSite *s, TensorRole role, int rank, int64_t d0,
                                 int64_t d1, int64_t d2) {
    AdapterTensor *t = &im->tensor[im->n_tensors++];
    int64_t count = d0 * (rank > 1 ? d1 : 1) * (rank > 2 ? d2 : 1);
    *t = (AdapterTensor){.name = str_c(arena_printf(im->a, "%s.%s", peft_site_name(im->a, &s->place),
                                                    adapter_tensor_suffix(role))),
                         .dtype = str_c("F32"),
                         .kind = FK_F32,
                         .rank = rank,
                         .dim = {d0, d1, d2},
                         .data = arena_array(im->a, (size_t)count, sizeof(float))};
    return t;
}

static void row_add(Import *im, uint32_t e, const AdapterTensor *from, const AdapterTensor *to,
                    const char *note) {
    if (im->table == NULL)
        return;
    Text t = {0};
    if (im->n_dirs > 1)
        text_printf(&t, "expert %" PRIu32, e);
    if (from->kind != FK_F32)
        text_printf(&t, "%sfrom %s", t.n > 0 ? ", " : "", from->dtype.p);
    if (note[0] != 0)
        text_printf(&t, "%s%s", t.n > 0 ? ", " : "", note);
    peft_table_add(im->table, from->name.p, to->name.p,
                   arena_printf(im->a, "%s -> %s", peft_shape(im->a, from->rank, from->dim),
                                peft_shape(im->a, to->rank, to->dim)),
                   arena_strndup(im->a, t.p, t.n));
    text_free(&t);
}

/* (rows,cols) of the file transposed to out[cols][rows], times a factor that is 1 but for folded scales. */
static void transpose_into(float *out, const AdapterTensor *t, double factor) {
    Arena *scratch = arena_new();
    int64_t rows = t->dim[0], cols = t->dim[1];
    const float *v = adapter_tensor_floats(t, rows * cols, scratch);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = 0; k < cols; k++)
            out[k * rows + i] = factor == 1 ? v[i * cols + k] : (float)(v[i * cols + k] * factor);
    }
    arena_free(scratch);
}

static void lora_tensors(Import *im, uint32_t i) {
    const PeftSite *first = &im->dir[0].site[i];
    int64_t E = im->n_dirs;
    for (int part = 0; part < 2; part++) {
        const AdapterTensor *like = first->part[part];
        TensorRole role = part == 0 ? TR_LORA_A : TR_LORA_B;
        int64_t rows = like->dim[1], cols = like->dim[0]; /* [in,r]; [r,out] */
        AdapterTensor *t = E > 1 ? tensor_add(im, first, role, 3, E, rows, cols)
                                 : tensor_add(im, first, role, 2, rows, cols, 0);
        for (uint32_t e = 0; e < im->n_dirs; e++) {
            const PeftSite *s = &im->dir[e].site[i];
            double factor = part == 1 ? s->alpha / first->alpha : 1;
            transpose_into((float *)t->data + e * rows * cols, s->part[part], factor);
            row_add(im, e, s->part[part], t,
                    factor == 1 ? ""
                                : arena_printf(im->a, "times %.9g: alpha %.9g where expert 0 has %.9g",
                                               factor, s->alpha, first->alpha));
        }
    }
}

/* [h,kv] of one, [h,E,kv] of several; [f], [E,f] where there are no heads. */
static bool ia3_tensors(Import *im, uint32_t i) {
    const PeftSite *first = &im->dir[0].site[i];
    const AdapterTensor *like = first->part[0];
    const T5Config *c = im->how->config;
    int64_t E = im->n_dirs, width = like->dim[0] * like->dim[1], heads = 1;
    bool headed = first->place.role != SR_ACT, flat = c == NULL && E == 1 && im->how->flat;
    if (headed && c == NULL && !flat)
        return tensor_error(im, DIAG_PEFT_MODEL, im->dir, like,
                            "to become [heads,width] it needs the model: give its directory with --model");
    if (headed && !flat) {
        heads = c->heads;
        if (c->heads * c->d_kv != width)
            return tensor_error(im, DIAG_PEFT_MODEL, im->dir, like,
                                arena_printf(im->a,
                                             "shape %s where the model has %" PRId64 " heads of %" PRId64,
                                             peft_shape(im->a, like->rank, like->dim), c->heads, c->d_kv));
    }
    int64_t inner = width / heads;
    AdapterTensor *t = !headed || flat ? (E > 1 ? tensor_add(im, first, TR_SCALE, 2, E, width, 0)
                                                : tensor_add(im, first, TR_SCALE, 1, width, 0, 0))
                       : E > 1         ? tensor_add(im, first, TR_SCALE, 3, heads, E, inner)
                                       : tensor_add(im, first, TR_SCALE, 2, heads, inner, 0);
    for (uint32_t e = 0; e < im->n_dirs; e++) {
        Arena *scratch = arena_new();
        const AdapterTensor *from = im->dir[e].site[i].part[0];
        const float *v = adapter_tensor_floats(from, width, scratch);
        for (int64_t h = 0; h < heads; h++)
            memcpy((float *)t->data + (h * E + e) * inner, v + h * inner, (size_t)inner * sizeof *v);
        arena_free(scratch);
        row_add(im, e, from, t, "");
    }
    return true;
}

static void router_add(Import *im, uint32_t i) {
    const PeftSite *s = &im->dir[0].site[i];
    const AdapterTensor *like = s->part[0];
    int64_t width = like->dim[1]; /* lora_A (r,in) */
    if (im->dir[0].c.type == PT_IA3) {
        width = like->dim[0] * like->dim[1];
        if (s->place.role != SR_ACT)
            width /= im->how->config->heads;
    }
    AdapterTensor *t = tensor_add(im, s, TR_ROUTER, 2, width, im->n_dirs, 0);
    adapter_init(im->how->seed, t->name, TR_ROUTER, (float *)t->data, width * im->n_dirs);
    if (im->table != NULL)
        peft_table_add(im->table, "", t->name.p, peft_shape(im->a, 2, t->dim),
                       arena_printf(im->a, "fresh: normal(0, 0.02), seed %" PRIu64, im->how->seed));
}

/* What is stacked stays within the limits of tensors; files bound the rest. */
static bool sizes_check(Import *im, uint32_t i) {
    const PeftSite *s = &im->dir[0].site[i];
    for (int k = 0; k < 2 && s->part[k] != NULL; k++) {
        int64_t size = im->n_dirs,
                wide = s->part[k]->dim[0] > s->part[k]->dim[1] ? s->part[k]->dim[0] : s->part[k]->dim[1];
        if (!mul_i64(size, s->part[k]->dim[0], &size) || !mul_i64(size, s->part[k]->dim[1], &size) ||
            size > MOEC_MAX_TENSOR / 8 || wide > MOEC_MAX_TENSOR / 8 / im->n_dirs)
            return tensor_error(im, DIAG_PEFT_TENSOR, im->dir, s->part[k], "is too large");
    }
    return true;
}

static bool tensors_make(Import *im) {
    const PeftDir *x = im->dir;
    im->tensor = arena_array(im->a, 3 * (size_t)x->n + 1, sizeof *im->tensor);
    for (uint32_t i = 0; i < x->n; i++) {
        if (!sizes_check(im, i))
            return false;
        if (x->c.type == PT_LORA)
            lora_tensors(im, i);
        else if (!ia3_tensors(im, i))
            return false;
        if (im->n_dirs > 1)
            router_add(im, i);
    }
    return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------
 */

/* Against the model, where it is known: sites, shapes, nothing left over. */
static bool model_check(Import *im, const AdapterSpec *spec) {
    ModelSite *site;
    AdapterPlan plan;
    const float **value;
    if (im->how->config == NULL)
        return true;
    uint32_t n = config_sites(im->how->config, im->a, &site);
    return adapter_resolve(spec, site, n, im->a, &plan, im->d) &&
           adapter_values(spec, &plan, 0, im->a, &value, im->d);
}

static AdapterSpec *import_read(Import *im, const char *const *dir) {
    for (uint32_t e = 0; e < im->n_dirs; e++) {
        if (!dir_read(im, &im->dir[e], dir[e]) || (e > 0 && !dirs_agree(im, &im->dir[0], &im->dir[e])))
            return NULL;
    }
    AdapterSpec *s = spec_make(im);
    if (s == NULL || !tensors_make(im))
        return NULL;
    s->loaded = true;
    s->flat_heads = im->how->flat;
    s->gated = im->dir[0].ffn == PF_GATED ? 1 : im->dir[0].ffn == PF_PLAIN ? -1 : 0;
    s->tensor_file = im->dir[0].file;
    s->tensor = im->tensor;
    s->n_tensors = im->n_tensors;
    return model_check(im, s) ? s : NULL;
}

AdapterSpec *peft_import(Arena *a, const char *const *dir, uint32_t n, const PeftImport *how,
                         PeftTable *table, Diag *d) {
    Import im = {.a = a, .d = d, .how = how, .table = table, .n_dirs = n};
    im.dir = arena_array(a, (size_t)n + 1, sizeof *im.dir);
    AdapterSpec *s = import_read(&im, dir);
    for (uint32_t e = 0; e < n; e++) {
        safetensors_unmap(&im.dir[e].f);
        peft_config_free(&im.dir[e].c);
    }
    return s;
}
