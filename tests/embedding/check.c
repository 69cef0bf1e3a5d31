/* A program that embeds a model and watches it: check WEIGHTS ADAPTER FOLDER TOLERANCE. malloc, its relatives
 * and mmap are this program's own, so that every call of them, by the model or by the C library for it, is
 * seen.
 *
 *   - what moec_open and moec_trainer_open map is what the sizes say; nothing is allocated between open and
 * close;
 *   - pages of the arena that a call touches are about what moec_activation_bytes says;
 *   - every row of a batch with mixed adapters has the numbers of that row alone with its adapter, to
 * TOLERANCE of the largest (0: the same bits);
 *   - functions without padding give its tokens the bits that those with it do, with any adapters;
 *   - instances in several threads at a time do what one does. */
#define _GNU_SOURCE
#include "t5.h"

#include "moec_train.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- watching ---- */

static long calls;
static unsigned long long mapped, watched; /* bytes; of the mapping whose address is kept */
static unsigned char *found;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);

static void saw(unsigned long long bytes) {
    __atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&mapped, bytes, __ATOMIC_RELAXED);
}
void *malloc(size_t n) {
    saw(0);
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    saw(0);
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    saw(0);
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    saw(0);
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    saw(0);
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : 12;
}
void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
    void *made = (void *)syscall(SYS_mmap, at, n, protection, flags, fd, offset);
    saw(n);
    if (n == watched)
        found = made;
    return made;
}

static double tolerance;
static int failed;

#define CHECK(x) ((x) ? (void)0 : (void)(failed = 1, printf("line %d: not %s\n", __LINE__, #x)))
/* x allocates nothing. OpenBLAS, for which there is a tolerance, has threads of its own that map buffers at
 * any time. */
#define QUIET(x)                                                                                             \
    do {                                                                                                     \
        long seen_ = calls;                                                                                  \
        CHECK(x);                                                                                            \
        if (calls != seen_ && tolerance == 0)                                                                \
            failed = 1, printf("line %d: %s allocates %ld times\n", __LINE__, #x, calls - seen_);            \
    } while (0)

/* ---- a model ---- */

enum { ROWS = 8, SOURCE = 12, TARGET = 5, PAST = 3, MOST = 16, VALUES = 64 };

static const moec_program *p;
static int64_t ids[ROWS * SOURCE], mask[ROWS * SOURCE], decoder[ROWS * TARGET], labels[ROWS * TARGET];
static float weight[ROWS * TARGET];

static moec_instance *opened(const char *weights, int threads, int adapters) {
    char text[512] = "";
    moec_options o = {.weights = weights,
                      .threads = threads,
                      .message = text,
                      .message_room = sizeof text,
                      .adapters = adapters};
    moec_instance *m = NULL;
    unsigned long long before = mapped, want = moec_open_bytes(p, &o);
    long seen = calls;
    if (moec_open(p, &o, &m)) {
        printf("%s\n", text);
        exit(1);
    }
    CHECK(calls > seen);
    CHECK(tolerance > 0 || mapped - before == want);
    return m;
}

static void make_batch(void) {
    for (int b = 0; b < ROWS; b++) {
        int n = 5 + b % (SOURCE - 4);
        for (int s = 0; s < n; s++) {
            ids[b * SOURCE + s] = s + 1 < n ? 3 + (b * 31 + s * 17) % 240 : 1;
            mask[b * SOURCE + s] = 1;
        }
        for (int t = 0; t < TARGET; t++) {
            labels[b * TARGET + t] = 2 + (b * 7 + t * 5) % 200;
            decoder[b * TARGET + t] = t ? labels[b * TARGET + t - 1] : p->seq2seq->start;
            weight[b * TARGET + t] = 1.0f / (ROWS * TARGET);
        }
    }
}

/* ---- rows ---- */

/* Buffers of all calls of a batch: encode, cross, PAST steps, score. */
typedef struct Calls {
    const moec_function *f[4];
    int index[4];
    void *arg[4][VALUES];
    int64_t sym[8];
} Calls;

static void *buffer_named(Calls *c, const char *name, int output) {
    for (int k = 0; k < 4; k++)
        for (uint32_t i = 0; c->f[k] && i < c->f[k]->n_inputs + c->f[k]->n_outputs; i++)
            if (c->arg[k][i] && !strcmp(c->f[k]->value[i].name, name) && (i >= c->f[k]->n_inputs) == output)
                return c->arg[k][i];
    return NULL;
}

static void calls_make(Calls *c, int first, int rows) {
    const int index[4] = {p->seq2seq->encode, p->seq2seq->cross, p->seq2seq->step, p->seq2seq->score};
    memset(c, 0, sizeof *c);
    c->sym[p->seq2seq->batch] = rows;
    c->sym[p->seq2seq->source] = SOURCE;
    c->sym[p->seq2seq->target] = TARGET;
    for (int k = 0; k < 4; k++) {
        const moec_function *f = c->f[k] = &p->function[c->index[k] = index[k]];
        for (uint32_t i = 0; i < f->n_inputs + f->n_outputs; i++) {
            const char *name = f->value[i].name;
            int output = i >= f->n_inputs;
            void *given = NULL;
            if (f->value[i].alias >= 0)
                given = c->arg[k][f->value[i].alias];
            else if (!output)
                given = !strcmp(name, "input_ids")           ? ids + first * SOURCE
                        : !strcmp(name, "attention_mask")    ? mask + first * SOURCE
                        : !strcmp(name, "decoder_input_ids") ? decoder + first * TARGET
                        : !strcmp(name, "labels")            ? labels + first * TARGET
                                                             : buffer_named(c, name, 1);
            c->arg[k][i] = given ? given : calloc(1, moec_argument_bytes(p, (uint32_t)index[k], i, c->sym));
        }
    }
}

static void calls_run(moec_instance *m, Calls *c, const int32_t *slot) {
    int64_t *token = buffer_named(c, "token", 0), *made = buffer_named(c, "token", 1);
    QUIET(moec_run_rows(m, (uint32_t)c->index[0], c->sym, c->arg[0], slot) == MOEC_OK);
    QUIET(moec_run_rows(m, (uint32_t)c->index[1], c->sym, c->arg[1], slot) == MOEC_OK);
    for (int64_t b = 0; b < c->sym[p->seq2seq->batch]; b++)
        token[b] = p->seq2seq->start;
    for (int t = 0; t < PAST; t++) {
        c->sym[p->seq2seq->past] = t;
        QUIET(moec_run_rows(m, (uint32_t)c->index[2], c->sym, c->arg[2], slot) == MOEC_OK);
        memcpy(token, made, (size_t)c->sym[p->seq2seq->batch] * sizeof *token);
    }
    QUIET(moec_run_rows(m, (uint32_t)c->index[3], c->sym, c->arg[3], slot) == MOEC_OK);
}

/* Whether row b of a batch's outputs is the only row of `one`. */
static void compare(Calls *all, Calls *one, int b) {
    for (int k = 0; k < 4; k++)
        for (uint32_t i = all->f[k]->n_inputs; i < all->f[k]->n_inputs + all->f[k]->n_outputs; i++) {
            uint64_t bytes = moec_argument_bytes(p, (uint32_t)all->index[k], i, one->sym);
            const char *x = (const char *)all->arg[k][i] + (uint64_t)b * bytes, *y = one->arg[k][i];
            const float *u = (const float *)(const void *)x, *v = (const float *)(const void *)y;
            double most = 0, worst = 0;
            if (!memcmp(x, y, bytes))
                continue;
            for (uint64_t e = 0; e < bytes / sizeof *u; e++) {
                most = fmax(most, fabs((double)v[e]));
                worst = fmax(worst, fabs((double)u[e] - (double)v[e]));
            }
            if (all->f[k]->value[i].dtype != MOEC_F32 || !(worst <= tolerance * most))
                failed = 1, printf("row %d of %s, %s: %g of %g\n", b, all->f[k]->name,
                                   all->f[k]->value[i].name, worst, most);
        }
}

static void rows(moec_instance *m) {
    static const int32_t slots[][ROWS] = {
        {0, 1, 2, 0, 1, 2, 0, 1}, {1, 1, 0, 0, 0, 2, 2, 1}, {2, 2, 2, 2, 2, 2, 2, 2}};
    static Calls all, one, other;
    calls_make(&all, 0, ROWS);
    for (int k = 0; k < 3; k++) {
        calls_run(m, &all, slots[k]);
        for (int b = 0; b < ROWS; b++) {
            calls_make(&one, b, 1);
            calls_run(m, &one, &slots[k][b]);
            compare(&all, &one, b);
        }
    }
    /* Adapters make a difference. */
    static const int32_t second[1] = {1}, first[1] = {0};
    calls_make(&one, 0, 1);
    calls_make(&other, 0, 1);
    calls_run(m, &one, first);
    calls_run(m, &other, second);
    CHECK(
        memcmp(buffer_named(&one, "logprob", 1), buffer_named(&other, "logprob", 1), TARGET * sizeof(float)));
}

/* ---- without padding ---- */

static int64_t packed_ids[ROWS * SOURCE], spans[2 * ROWS];

/* One of the functions; its results stay in `made`, by name. */
static struct {
    const char *name;
    void *at;
} made[VALUES];
static int made_count;

static void *result(const char *name) {
    for (int i = made_count; i-- > 0;)
        if (!strcmp(made[i].name, name))
            return made[i].at;
    return NULL;
}

static void packed_run(moec_instance *m, int index, const int64_t *sym, const int32_t *slot) {
    const moec_function *f = &p->function[index];
    void *arg[VALUES];
    for (uint32_t i = 0; i < f->n_inputs + f->n_outputs; i++) {
        const char *name = f->value[i].name;
        int output = i >= f->n_inputs;
        arg[i] = f->value[i].alias >= 0                            ? arg[f->value[i].alias]
                 : output                                          ? NULL
                 : !strcmp(name, "packed_ids")                     ? packed_ids
                 : !strcmp(name, "spans")                          ? spans
                 : !strcmp(name, "decoder_input_ids")              ? decoder
                 : !strcmp(name, "labels")                         ? labels
                                                                   : result(name);
        if (!arg[i])
            arg[i] = calloc(1, moec_argument_bytes(p, (uint32_t)index, i, sym));
        if (output || !strncmp(name, "self_", 5))
            made[made_count].name = name, made[made_count++].at = arg[i];
    }
    if (index == p->seq2seq->step_packed && !sym[p->seq2seq->past])
        for (int b = 0; b < ROWS; b++)
            ((int64_t *)arg[0])[b] = p->seq2seq->start;
    QUIET(moec_run_rows(m, (uint32_t)index, sym, arg, slot) == MOEC_OK);
}

static void same(const char *what, const void *x, const void *y, size_t n) {
    const float *u = x, *v = y;
    double most = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)v[i]));
        worst = fmax(worst, fabs((double)u[i] - (double)v[i]));
    }
    if (memcmp(x, y, n * sizeof *u) && !(tolerance > 0 && worst <= tolerance * most))
        failed = 1, printf("without padding: %s differ: %g of %g\n", what, worst, most);
}

static void packed(moec_instance *m) {
    static const int32_t slots[2][ROWS] = {{0, 1, 2, 0, 1, 2, 0, 1}, {1, 1, 1, 1, 1, 1, 1, 1}};
    const moec_seq2seq *q = p->seq2seq;
    static Calls all;
    CHECK(q->tokens >= 0 && q->encode_packed >= 0 && q->score_packed >= 0);
    calls_make(&all, 0, ROWS);
    int64_t n = 0;
    for (int b = 0; b < ROWS; b++) {
        spans[2 * b] = n;
        for (int s = 0; s < SOURCE && mask[b * SOURCE + s]; s++)
            packed_ids[n++] = ids[b * SOURCE + s];
        spans[2 * b + 1] = n;
    }
    for (int k = 0; k < 2; k++) {
        int64_t sym[8] = {0};
        memcpy(sym, all.sym, sizeof sym);
        sym[q->tokens] = n;
        made_count = 0;
        calls_run(m, &all, slots[k]);
        packed_run(m, q->encode_packed, sym, slots[k]);
        const float *hidden = result("packed_hidden"), *padded = buffer_named(&all, "hidden", 1);
        for (int b = 0; b < ROWS; b++)
            same("states", hidden + spans[2 * b] * q->width, padded + b * SOURCE * q->width,
                 (size_t)((spans[2 * b + 1] - spans[2 * b]) * q->width));
        packed_run(m, q->cross_packed, sym, slots[k]);
        for (sym[q->past] = 0; sym[q->past] < PAST; sym[q->past]++)
            packed_run(m, q->step_packed, sym, slots[k]);
        same("logits", result("logits"), buffer_named(&all, "logits", 1), (size_t)(ROWS * q->vocab));
        CHECK(!memcmp(result("token"), buffer_named(&all, "token", 1), ROWS * sizeof(int64_t)));
        packed_run(m, q->score_packed, sym, slots[k]);
        same("log-probabilities", result("logprob"), buffer_named(&all, "logprob", 1), ROWS * TARGET);
    }
    /* Spans that leave tokens out, or do not fit. */
    int64_t sym[8];
    void *arg[3] = {packed_ids, spans, result("packed_hidden")};
    memcpy(sym, all.sym, sizeof sym);
    sym[q->tokens] = n;
    spans[1]--;
    QUIET(moec_run(m, (uint32_t)q->encode_packed, sym, arg) == MOEC_E_INDEX);
    spans[1]++;
    spans[2 * ROWS - 1]++;
    QUIET(moec_run(m, (uint32_t)q->encode_packed, sym, arg) == MOEC_E_INDEX);
    spans[2 * ROWS - 1]--;
}

static void generation(moec_instance *m) {
    static const int32_t slots[ROWS] = {2, 1, 0, 0, 1, 1, 2, 0};
    int64_t tokens[ROWS * MOST], one[MOST], steps, alone;
    moec_generate_options o = {.max_length = MOST, .eos = -1, .adapter_of_row = slots};
    QUIET(moec_generate(m, ROWS, SOURCE, ids, mask, NULL, &o, tokens, &steps, NULL, NULL) == MOEC_OK);
    for (int b = 0; b < ROWS; b++) {
        o.adapter_of_row = &slots[b];
        QUIET(moec_generate(m, 1, SOURCE, ids + b * SOURCE, mask + b * SOURCE, NULL, &o, one, &alone, NULL,
                            NULL) == MOEC_OK);
        CHECK(!memcmp(one, tokens + b * MOST, sizeof one));
    }
}

/* ---- the arena ---- */

static void arena(const char *weights) {
    static unsigned char resident[1 << 20];
    static Calls c;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (p->arena_bytes + page - 1) / page;
    size_t touched = 0;
    watched = p->arena_bytes;
    moec_instance *m = opened(weights, 1, 1);
    watched = 0;
    calls_make(&c, 0, ROWS);
    CHECK(moec_run(m, (uint32_t)c.index[0], c.sym, c.arg[0]) == MOEC_OK);
    CHECK(found && pages < sizeof resident && mincore(found, p->arena_bytes, resident) == 0);
    for (size_t i = 0; i < pages; i++)
        touched += resident[i] & 1;
    double said = (double)moec_activation_bytes(p, (uint32_t)c.index[0], c.sym) / (double)page;
    if (!((double)touched > 0.8 * said && (double)touched < 1.25 * said + 8))
        failed = 1, printf("encode touches %zu pages of the arena, not %.1f\n", touched, said);
    CHECK(said < 0.5 * (double)pages);
    moec_close(m);
}

/* ---- training ---- */

static void training(moec_instance *m, const char *saved) {
    int64_t ones[ROWS * TARGET];
    for (int i = 0; i < ROWS * TARGET; i++)
        ones[i] = 1;
    const moec_batch b = {.rows = ROWS,
                          .source = SOURCE,
                          .target = TARGET,
                          .input_ids = ids,
                          .encoder_segments = mask,
                          .decoder_input_ids = decoder,
                          .decoder_segments = ones,
                          .labels = labels,
                          .weight = weight};
    char text[512] = "";
    moec_train_options o;
    moec_step_report r = {0}, first = {0};
    moec_trainer *t;
    moec_train_defaults(&o);
    o.optimizer = MOEC_ADAMW;
    o.learning_rate = 0.02;
    o.dropout = 0;
    unsigned long long before = mapped;
    CHECK(moec_trainer_open(m, &o, &t, text, sizeof text) == MOEC_OK);
    CHECK(tolerance > 0 || mapped - before == moec_trainer_bytes(p, o.optimizer));
    for (int i = 0; i < 6; i++) {
        QUIET(moec_trainer_batch(t, &b, 0.5) == MOEC_OK);
        QUIET(moec_trainer_batch(t, &b, 0.5) == MOEC_OK);
        QUIET(moec_trainer_step(t, &r) == MOEC_OK);
        if (i == 0)
            first = r;
    }
    CHECK(r.loss < 0.9 * first.loss);
    moec_trainer_close(t);
    CHECK(moec_save_adapter(m, 0, saved, text, sizeof text) == MOEC_OK);
}

/* ---- threads ---- */

static const char *weights_path;
static int64_t expected[ROWS * MOST];

static void *generate_often(void *arg) {
    moec_instance *m = arg;
    static const int64_t limit = 5;
    for (int i = 0; i < limit; i++) {
        int64_t tokens[ROWS * MOST], steps;
        moec_generate_options o = {.max_length = MOST, .eos = -1};
        if (moec_generate(m, ROWS, SOURCE, ids, mask, NULL, &o, tokens, &steps, NULL, NULL) ||
            memcmp(tokens, expected, sizeof tokens))
            return arg;
    }
    return NULL;
}

static void several(void) {
    enum { N = 3 };
    pthread_t thread[N];
    moec_instance *m[N];
    int64_t steps;
    moec_generate_options o = {.max_length = MOST, .eos = -1};
    for (int i = 0; i < N; i++)
        m[i] = opened(weights_path, 1 + i, 1);
    CHECK(moec_generate(m[0], ROWS, SOURCE, ids, mask, NULL, &o, expected, &steps, NULL, NULL) == MOEC_OK);
    for (int i = 0; i < N; i++)
        pthread_create(&thread[i], NULL, generate_often, m[i]);
    for (int i = 0; i < N; i++) {
        void *bad;
        pthread_join(thread[i], &bad);
        CHECK(!bad);
        moec_close(m[i]);
    }
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    char saved[4096], text[512] = "";
    snprintf(saved, sizeof saved, "%s/saved.safetensors", argv[3]);
    p = t5_program();
    weights_path = argv[1];
    tolerance = atof(argv[4]);
    CHECK(moec_abi() == MOEC_ABI);
    make_batch();
    moec_instance *m = opened(argv[1], 2, 3);
    QUIET(moec_load_adapter_slot(m, 1, argv[2], text, sizeof text) == MOEC_OK);
    QUIET(moec_load_adapter_slot(m, 1, argv[1], text, sizeof text) == MOEC_E_FORMAT);
    QUIET(moec_load_adapter_slot(m, 1, "no such file", text, sizeof text) == MOEC_E_OPEN);
    QUIET(moec_generate_limit(p) > MOST && moec_find_function(p, "step") >= 0 &&
          moec_find_symbol(p, "B") >= 0);
    QUIET(moec_cache_bytes(p, (uint32_t)p->seq2seq->step, NULL) > 0 && moec_open_bytes(p, NULL) > 0);
    training(m, saved);
    QUIET(moec_load_adapter_slot(m, 2, saved, text, sizeof text) == MOEC_OK);
    CHECK(moec_save_adapter(m, 2, saved, text, sizeof text) == MOEC_OK); /* in the folder, to be compared */
    rows(m);
    packed(m);
    generation(m);
    moec_close(m);
    m = opened(argv[1], 1, 0);
    moec_close(m);
    arena(argv[1]);
    several();
    printf(failed ? "embedding: FAILED\n" : "embedding: %ld allocations seen, none in a call\n", calls);
    return failed;
}
