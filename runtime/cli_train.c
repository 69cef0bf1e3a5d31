/* train: the adapter of the compiled model, on examples.
 *
 * A step, its line in metrics.jsonl, evaluation, checkpoint: in this order, so that what a checkpoint goes on
 * from has been told. Everything that decides a result is in the checkpoint, or has to agree with it;
 * interrupted at any moment and resumed, a run makes the bits of one that was not. */
#define _POSIX_C_SOURCE 200809L

#include "cli_train.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- signals: the step is finished, then the run is saved; a second one of the kind ends the process ----
 */

static volatile sig_atomic_t stopped_by;

static void stop(int signal) {
    stopped_by = signal;
}

int moec_train_stopped(void) {
    return stopped_by != 0;
}

static void watch_signals(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = stop;
    a.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&a.sa_mask);
    stopped_by = 0;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* ---- before ---- */

/* A folder that holds a run already is not overwritten. */
static int check_folder(moec_cli *c) {
    moec_step_list l;
    if (c->o.resume || c->o.dry_run)
        return EXIT_DONE;
    int code = moec_cli_status(c, moec_run_folder_list(c->o.out, &l, moec_cli_sink(c)));
    if (!code && l.n)
        code = moec_cli_error(
            c, c->o.out, 0,
            "holds a run, whose newest checkpoint is of step %lld: --resume goes on with it, or "
            "give another folder",
            (long long)l.step[0]);
    moec_mem_free(l.step);
    return code;
}

static int check_options(moec_cli *c) {
    if (c->program->seq2seq->train < 0)
        return moec_cli_error(c, NULL, 0,
                              "the program was compiled without training: compile it again with --train");
    if (!c->o.data.count)
        return moec_cli_usage(c, "no examples were given: --data");
    if (!c->o.train.steps)
        return moec_cli_usage(c, "how long to train was not given: --steps");
    if (!c->o.out && !c->o.dry_run)
        return moec_cli_usage(c, "train needs --out FOLDER");
    if (c->o.eval_every && !c->o.eval.count)
        return moec_cli_usage(c, "--eval-every has nothing to evaluate: --eval");
    if (c->o.router_metrics && c->program->seq2seq->routers < 0)
        return moec_cli_error(c, NULL, 0, "this model has no routers: --router-metrics is of no use");
    moec_sink sink = moec_cli_sink(c);
    if (moec_options_check(&c->o.train, sink))
        return moec_cli_usage(c, "%s", strncmp(c->message, "error: ", 7) ? c->message : c->message + 7);
    return check_folder(c);
}

/* Numbers that a run which goes on has to repeat; what the trainer's options hold is compared with them. */
static int open_standing(moec_train_run *r) {
    const moec_data_options *d = &r->data_options;
    const moec_cli_options *o = &r->c->o;
    uint64_t vectors = moec_fnv(MOEC_FNV_START, r->sentence.data, (size_t)r->sentence.bytes);
    const moec_agree agree[] = {{"batch", d->rows},
                                {"accumulate", d->accumulation},
                                {"pack", d->pack},
                                {"no-shuffle", !d->shuffle},
                                {"reduce-tokens", !d->per_example},
                                {"truncate", o->truncate},
                                {"input-eos", o->input_eos},
                                {"data-files", r->files},
                                {"examples", r->set.examples},
                                {"data-hash", (int64_t)(r->set.hash >> 1)},
                                {"sentence-hash", (int64_t)(vectors >> 1)}};
    enum { AGREE = sizeof agree / sizeof *agree };
    size_t n = (size_t)moec_data_position_count(r->data);
    r->agree = moec_mem_new(AGREE, sizeof *r->agree);
    r->standing = (moec_standing){r->agree, AGREE, moec_mem_new(n, sizeof *r->standing.position), n, n};
    if (!r->agree || !r->standing.position)
        return moec_cli_no_memory(r->c);
    memcpy(r->agree, agree, sizeof agree);
    return EXIT_DONE;
}

static int resume(moec_train_run *r) {
    moec_cli *c = r->c;
    int found = 0;
    if (!c->o.resume) {
        moec_run_folder_clean(c->o.out);
        return EXIT_DONE;
    }
    int code = moec_cli_status(c, moec_checkpoint_load(r->trainer, c->o.out, &r->standing, &found,
                                                       moec_cli_warn, NULL, moec_cli_sink(c)));
    if (!code && found)
        code = moec_cli_status(c, moec_data_position_set(r->data, r->standing.position,
                                                         (int64_t)r->standing.n_position, moec_cli_sink(c)));
    if (!code && found)
        r->saved = moec_trainer_steps(r->trainer);
    return code;
}

/* Trained elements of the program: what the line that comes first counts. */
static unsigned long long trained(const moec_program *p) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        if (p->tensor[i].gradient >= 0)
            n += p->tensor[i].bytes / moec_dtype_bytes(p->tensor[i].dtype);
    return n;
}

static void introduce(const moec_train_run *r) {
    const moec_program *p = r->c->program;
    const moec_data_options *d = &r->data_options;
    unsigned long long n = trained(p), all = p->parameters;
    printf("%llu trainable / %llu total (%.4g %%)\n", n, all, all ? 100.0 * (double)n / (double)all : 0);
    printf("%lld examples, %lld tokens; a step is %lld x %lld rows\n", (long long)r->set.examples,
           (long long)r->set.tokens, (long long)d->accumulation, (long long)d->rows);
    fflush(stdout);
}

static int open_run(moec_train_run *r) {
    moec_cli *c = r->c;
    uint64_t process = moec_memory_now();
    int code = check_options(c);
    if (!code)
        code = moec_train_data_open(r);
    if (!code)
        code = moec_train_eval_open(r);
    if (!code)
        code = moec_cli_open(c);
    if (code)
        return code;
    moec_train_plan(r, process);
    introduce(r);
    if (c->o.dry_run)
        return EXIT_DONE;
    code = moec_cli_status(c, moec_run_folder_lock(c->o.out, &r->lock, moec_cli_sink(c)));
    if (!code)
        code = check_folder(c); /* again: another run may have ended meanwhile */
    if (code)
        return code;
    moec_cli_sink(c);
    code =
        moec_cli_status(c, moec_trainer_open(c->instance, r->o, &r->trainer, c->message, sizeof c->message));
    if (!code)
        code = open_standing(r);
    if (!code)
        code = resume(r);
    return code ? code : moec_train_log_open(r);
}

static void close_run(moec_train_run *r) {
    moec_train_log_close(r);
    if (r->lock >= 0)
        close(r->lock);
    moec_trainer_close(r->trainer);
    moec_mem_free(r->agree);
    moec_mem_free(r->standing.position);
    moec_mem_free(r->eval);
    moec_mem_free(r->eval_sentence.file);
    moec_train_data_close(r);
}

/* ---- steps ---- */

static int save(moec_train_run *r) {
    moec_cli *c = r->c;
    int64_t done = moec_trainer_steps(r->trainer);
    if (r->saved == done)
        return EXIT_DONE;
    moec_data_position_get(r->data, r->standing.position);
    moec_sink sink = moec_cli_sink(c);
    moec_status s = moec_output_sync(&r->log.metrics, sink);
    if (!s)
        s = moec_checkpoint_save(r->trainer, c->o.out, &r->standing, c->o.keep, sink);
    if (!s)
        r->saved = done;
    else
        moec_train_log_clear(r);
    return moec_cli_status(c, s);
}

/* The number of largest magnitude that the adapter holds, what is no number before all others, and its tensor. */
static float most_extreme(const moec_train_run *r, const char **tensor, long long *element) {
    const moec_program *p = r->c->program;
    float most = 0;
    *tensor = NULL;
    for (uint32_t i = 0; i < p->n_tensors && !isnan(most); i++) {
        const moec_tensor *t = &p->tensor[i];
        const float *v = moec_trainer_tensor(r->trainer, i);
        uint64_t n = t->dtype == MOEC_F32 ? t->bytes / sizeof *v : 0;
        for (uint64_t k = 0; k < n && !isnan(most); k++)
            if (!*tensor || !(fabsf(v[k]) <= fabsf(most))) {
                most = v[k];
                *tensor = t->name;
                *element = (long long)k;
            }
    }
    return most;
}

/* At the first step the adapter's file may be the reason: its values are not judged when it is read. */
static int tell_numeric(moec_train_run *r, const moec_step_report *s) {
    const moec_cli *c = r->c;
    char kept[64] = "no checkpoint was made yet", shown[MOEC_SHOW];
    const char *tensor;
    long long element = 0, done = (long long)moec_trainer_steps(r->trainer);
    float most = most_extreme(r, &tensor, &element);
    moec_train_log_clear(r);
    if (r->saved >= 0)
        snprintf(kept, sizeof kept, "the checkpoint of step %lld stays", (long long)r->saved);
    return moec_cli_error(
        c, done == 0 && c->o.adapter.count ? c->o.adapter.item[0] : NULL, 0,
        "step %lld: the loss is %g and the gradient's norm %g, which is no step to make; the adapter's most extreme value is %g, "
        "element %lld of tensor '%s': try a lower --lr (it was %g), or --clip; %s",
        done + 1, s->loss, s->gradient_norm, (double)most, element, tensor ? moec_show_c(shown, tensor) : "", s->learning_rate, kept);
}

static int due(int64_t done, int64_t every) {
    return every && done % every == 0;
}

static int run_batches(moec_train_run *r, const moec_data_step_info *info, moec_chars *routers) {
    moec_cli *c = r->c;
    int code = EXIT_DONE;
    for (int64_t i = 0; !code && i < info->batches; i++) {
        moec_batch b = moec_data_batch(r->data, i);
        moec_cli_sink(c);
        code = moec_cli_status(c, moec_trainer_batch(r->trainer, &b, 1.0 / (double)info->batches));
        if (!code && !i && due(moec_trainer_steps(r->trainer) + 1, c->o.router_metrics))
            code = moec_train_routers(r, &b, routers);
    }
    return code;
}

static int step(moec_train_run *r) {
    double begin = moec_seconds();
    moec_step_report report;
    moec_chars routers = {0};
    moec_data_step_info info = moec_data_step(r->data);
    int code = run_batches(r, &info, &routers);
    if (!code) {
        moec_cli_sink(r->c);
        moec_status s = moec_trainer_step(r->trainer, &report);
        code = s == MOEC_E_NUMERIC ? tell_numeric(r, &report) : moec_cli_status(r->c, s);
    }
    if (!code && routers.failed)
        code = moec_cli_no_memory(r->c);
    if (!code)
        code = moec_train_log_step(r, &report, &info, moec_seconds() - begin, routers.p);
    moec_mem_free(routers.p);
    return code;
}

/* Evaluation and checkpoint, where they are due behind a step. */
static int between(moec_train_run *r) {
    const moec_cli_options *o = &r->c->o;
    int64_t done = moec_trainer_steps(r->trainer);
    int last = done == r->o->steps, code = EXIT_DONE;
    double begin = moec_seconds();
    if (last || due(done, o->eval_every))
        code = moec_train_eval(r, 0);
    if (!code && (last || stopped_by || due(done, o->save_every)))
        code = save(r);
    r->log.away += moec_seconds() - begin;
    return code;
}

/* Where the run was stopped within an evaluation, that comes first. */
static int go_on(moec_train_run *r) {
    int64_t done = moec_trainer_steps(r->trainer);
    int owed = done && (done >= r->o->steps || due(done, r->c->o.eval_every));
    return owed ? moec_train_eval(r, r->log.evaluated) : EXIT_DONE;
}

static int run_steps(moec_train_run *r) {
    int code = go_on(r);
    while (!code && !stopped_by && moec_trainer_steps(r->trainer) < r->o->steps) {
        code = step(r);
        if (!code)
            code = between(r);
    }
    return code;
}

/* ---- after ---- */

static int tell_stopped(moec_train_run *r) {
    moec_train_log_clear(r);
    fprintf(stderr, "%s: stopped after step %lld%s\n", r->c->name, (long long)moec_trainer_steps(r->trainer),
            r->saved >= 0 ? ", which is saved: --resume goes on" : ": nothing to save");
    return 128 + (int)stopped_by;
}

static int finish(moec_train_run *r) {
    moec_cli *c = r->c;
    char peak[MOEC_BYTES_TEXT], plan[MOEC_BYTES_TEXT];
    int code = moec_cli_status(c, moec_checkpoint_export(r->trainer, c->o.out, moec_cli_sink(c)));
    if (code)
        return code;
    moec_train_log_clear(r);
    printf("%s/%s: the adapter after %lld steps\n", c->o.out, moec_part_names[0],
           (long long)moec_trainer_steps(r->trainer));
    printf("peak memory %s, planned %s\n", moec_bytes_text(peak, moec_memory_peak()),
           moec_bytes_text(plan, r->plan.total));
    return EXIT_DONE;
}

static int train(moec_train_run *r) {
    int code = open_run(r);
    if (code)
        return code;
    if (r->c->o.dry_run) {
        moec_train_plan_print(&r->plan);
        return EXIT_DONE;
    }
    int64_t done = moec_trainer_steps(r->trainer);
    if (done >= r->o->steps)
        printf("all of %lld steps are done already\n", (long long)done);
    else if (done)
        printf("goes on from step %lld\n", (long long)done);
    fflush(stdout);
    watch_signals();
    code = run_steps(r);
    if (code)
        return code;
    return stopped_by && (r->cut || moec_trainer_steps(r->trainer) < r->o->steps) ? tell_stopped(r)
                                                                                  : finish(r);
}

int moec_cmd_train(moec_cli *c) {
    moec_train_run r = {.c = c, .o = &c->o.train, .lock = -1, .saved = -1, .log.metrics.fd = -1};
    int code = train(&r);
    close_run(&r);
    return code;
}
