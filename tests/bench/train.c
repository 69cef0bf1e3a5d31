/* A training step against the FMA peak: forward, backward and the optimiser's update.
 *
 * A pass's part of the time is that of the kernels in front of and behind the loss, measured in one step
 * more. Memory is what became resident in a variant's first step, beside what the program says it needs for
 * these extents. */
#include "../../runtime/moec_train.h"
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct Train {
    const Model *m;
    moec_trainer *trainer;
    moec_status (*batch)(moec_trainer *, const moec_batch *, double);
    moec_status (*step)(moec_trainer *, moec_step_report *);
    int64_t *sym;
    moec_batch data;
    double resident; /* bytes */
} Train;

/* ---- a batch ---------------------------------------------------------------------------------------------
 */

static int64_t *numbers(int64_t count, int64_t first, int64_t step, int64_t below) {
    int64_t *v = bench_room((size_t)count, sizeof *v);
    for (int64_t i = 0; i < count; i++)
        v[i] = first + (i * step) % below;
    return v;
}

static void batch_make(Train *t, const Item *item) {
    const moec_seq2seq *s = t->m->program->seq2seq;
    int64_t ns = item->batch * item->length, nt = item->batch * item->target, range = s->vocab - 3;
    float *weight = bench_room((size_t)nt, sizeof *weight);
    for (int64_t i = 0; i < nt; i++)
        weight[i] = 1.0f / (float)nt;
    t->data = (moec_batch){.rows = item->batch,
                           .source = item->length,
                           .target = item->target,
                           .weight = weight,
                           .input_ids = numbers(ns, 3, 7919, range),
                           .encoder_segments = numbers(ns, 1, 0, 1),
                           .decoder_input_ids = numbers(nt, 3, 104729, range),
                           .decoder_segments = numbers(nt, 1, 0, 1),
                           .labels = numbers(nt, 3, 1299709, range)};
    t->sym = model_symbols(t->m);
    model_symbol_set(t->m, t->sym, s->batch, item->batch, "batch");
    model_symbol_set(t->m, t->sym, s->source, item->length, "source");
    model_symbol_set(t->m, t->sym, s->target, item->target, "target");
}

static void batch_free(Train *t) {
    const void *all[] = {t->data.weight,
                         t->data.input_ids,
                         t->data.encoder_segments,
                         t->data.decoder_input_ids,
                         t->data.decoder_segments,
                         t->data.labels,
                         t->sym};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free((void *)(uintptr_t)all[i]);
}

/* ---- steps
 * --------------------------------------------------------------------------------------------------- */

/* Bytes. */
static double resident_now(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%*d %ld", &pages) != 1)
        bench_fail("/proc/self/statm: unreadable");
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static Spent step_once(void *context) {
    Train *t = context;
    moec_step_report report;
    double before = resident_now();
    Spent start = spent_now();
    bench_check(t->batch(t->trainer, &t->data, 1), "batch");
    bench_check(t->step(t->trainer, &report), "step");
    Spent s = spent_since(start);
    if (t->resident == 0)
        t->resident = resident_now() - before;
    return s;
}

static void train_open(Train *t, const Model *m, const Options *o, const Item *item) {
    moec_train_options options;
    char message[256] = "";
    void (*defaults)(moec_train_options *);
    moec_status (*open)(moec_instance *, const moec_train_options *, moec_trainer **, char *, size_t);
    *t = (Train){.m = m};
    if (!m->program->seq2seq || m->program->seq2seq->train < 0)
        bench_fail("%s: compiled without --train", m->name);
    *(void **)&defaults = model_find(m, "moec_train_defaults");
    *(void **)&open = model_find(m, "moec_trainer_open");
    *(void **)&t->batch = model_find(m, "moec_trainer_batch");
    *(void **)&t->step = model_find(m, "moec_trainer_step");
    defaults(&options);
    options.dropout = (double)o->dropout / 100;
    if (open(m->instance, &options, &t->trainer, message, sizeof message) != MOEC_OK)
        bench_fail("%s: %s", m->name, message);
    batch_make(t, item);
}

static void train_close(Train *t) {
    void (*close)(moec_trainer *);
    *(void **)&close = model_find(t->m, "moec_trainer_close");
    close(t->trainer);
    batch_free(t);
}

/* ---- the table
 * --------------------------------------------------------------------------------------------------- */

static void print_memory(const Train *t, int threads) {
    const moec_program *p = t->m->program;
    uint64_t (*activations)(const moec_program *, const int64_t *const *);
    uint64_t (*gradients)(const moec_program *);
    uint64_t (*state)(const moec_program *, moec_optimizer);
    *(void **)&activations = model_find(t->m, "moec_arena_bytes");
    *(void **)&gradients = model_find(t->m, "moec_train_gradient_bytes");
    *(void **)&state = model_find(t->m, "moec_train_state_bytes");
    const int64_t **called = bench_room(p->n_functions, sizeof *called);
    called[p->seq2seq->train] = t->sym;
    double fixed = (double)(p->weights_bytes + p->adapter_bytes + p->derived_bytes),
           arena = (double)activations(p, called);
    double training = (double)(gradients(p) + state(p, MOEC_ADAFACTOR));
    double scratch = (double)p->scratch_bytes * threads;
    free(called);
    printf("  %-22s %.0f MiB became resident; planned: weights and adapter %.0f, gradients and state %.0f, "
           "activations %.0f, "
           "scratch %.0f: %.0f MiB\n",
           t->m->name, t->resident / MIB, fixed / MIB, training / MIB, arena / MIB, scratch / MIB,
           (fixed + training + arena + scratch) / MIB);
}

static void print_passes(const Options *o, const Profile *profile, const Item *item, const char *variant,
                         const Result *r) {
    double s = (double)item->length, t = (double)item->target, rows = (double)item->batch, part[2];
    const double flops[2] = {rows * work_forward(&o->config, s, t), rows * work_backward(&o->config, s, t)};
    static const char *const name[2] = {"  forward", "  backward"};
    profile_passes(profile, part);
    for (int i = 0; i < 2; i++)
        rounds_line(LIMIT_FMA, name[i], variant, part[i] * r->best.wall, flops[i], r->limit.wall);
}

static void bench_item(const Options *o, Machine *machine, const Model *m, const Item *item) {
    Train t[MAX_MODELS];
    Run run[MAX_MODELS];
    Result r[MAX_MODELS];
    Profile *profile[MAX_MODELS];
    char work[64];
    double s = (double)item->length, target = (double)item->target;
    double flops =
        (double)item->batch * (work_forward(&o->config, s, target) + work_backward(&o->config, s, target));
    for (int i = 0; i < o->n_models; i++) {
        train_open(&t[i], &m[i], o, item);
        run[i] = (Run){m[i].name, m[i].against, flops, step_once, &t[i]};
    }
    snprintf(work, sizeof work, "train %lldx%lld/%lld", (long long)item->batch, (long long)item->length,
             (long long)item->target);
    rounds_measure(machine, LIMIT_FMA, (int)o->rounds, run, o->n_models, r);
    rounds_print(machine, LIMIT_FMA, work, run, o->n_models, r);
    for (int i = 0; i < o->n_models; i++) {
        profile[i] = profile_open(&m[i], &run[i], "train");
        print_passes(o, profile[i], item, m[i].name, &r[i]);
    }
    for (int i = 0; i < o->n_models; i++)
        print_memory(&t[i], machine->threads);
    for (int i = 0; i < o->n_models; i++) {
        profile_print(profile[i], LIMIT_FMA, r[i].limit.wall, (SharesKind)o->shares);
        profile_close(profile[i]);
    }
    for (int i = 0; i < o->n_models; i++)
        train_close(&t[i]);
}

int train_main(const Options *o) {
    Machine machine;
    Model *m = bench_room(MAX_MODELS, sizeof *m);
    machine_open(&machine, o);
    machine_print(&machine);
    models_open(m, o);
    rounds_head();
    for (int k = 0; k < o->train.n; k++)
        bench_item(o, &machine, m, &o->train.item[k]);
    free(m);
    return 0;
}
