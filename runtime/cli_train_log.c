/* What a training run tells: metrics.jsonl, a bar on a terminal, plain lines elsewhere.
 *
 * metrics.jsonl has a line for each step and each evaluation, every one beginning {"step":N. Lines of steps
 * beyond the checkpoint a run goes on from are dropped, so that no step is there twice. */
#define _POSIX_C_SOURCE 200809L

#include "cli_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 24 };
#define METRICS_LIMIT ((uint64_t)1 << 32)

static const char metrics_name[] = "metrics.jsonl", line_start[] = "{\"step\":", eval_key[] = ",\"eval\":";

double moec_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- metrics.jsonl ---- */

/* The step of a line that is whole, its end included; -1: it is not, or of a later one. */
static int64_t step_of(const unsigned char *line, size_t n, int64_t done) {
    const size_t start = sizeof line_start - 1;
    int64_t step = 0;
    if (n < start + 3 || memcmp(line, line_start, start) || line[n - 1] != '\n' || line[n - 2] != '}')
        return -1;
    for (size_t i = start; line[i] >= '0' && line[i] <= '9' && step <= done; i++)
        step = step * 10 + (line[i] - '0');
    return step <= done ? step : -1;
}

static int is_eval(const unsigned char *line, size_t n) {
    const unsigned char *comma = memchr(line, ',', n);
    size_t left = comma ? n - (size_t)(comma - line) : 0;
    return left >= sizeof eval_key && !memcmp(comma, eval_key, sizeof eval_key - 1);
}

/* *evaluated: evaluations after the last of the steps done. */
static moec_status keep_lines(const unsigned char *bytes, size_t n, const char *path, int64_t done,
                              size_t *evaluated, moec_sink sink) {
    moec_output f;
    moec_status s = moec_output_open(path, &f, sink);
    for (size_t at = 0, end; !s && at < n; at = end) {
        const unsigned char *stop = memchr(bytes + at, '\n', n - at);
        end = stop ? (size_t)(stop - bytes) + 1 : n;
        int64_t step = step_of(bytes + at, end - at, done);
        if (step >= 0)
            s = moec_output_write(&f, bytes + at, end - at, sink);
        *evaluated += step == done && is_eval(bytes + at, end - at);
    }
    if (!s)
        return moec_output_commit(&f, sink);
    if (f.path)
        moec_output_abandon(&f);
    return s;
}

/* Rewrites the file without what a run that went on further has left. */
static moec_status forget_later(const char *path, int64_t done, size_t *evaluated, moec_sink sink) {
    unsigned char *bytes;
    size_t n;
    if (access(path, F_OK))
        return MOEC_OK;
    moec_status s = moec_file_load(path, METRICS_LIMIT, &bytes, &n, sink);
    if (!s && n)
        s = keep_lines(bytes, n, path, done, evaluated, sink);
    moec_mem_free(bytes);
    return s;
}

int moec_train_log_open(moec_train_run *r) {
    moec_cli *c = r->c;
    moec_run_log *l = &r->log;
    char *path = moec_path_new(c->o.out, "%s", metrics_name);
    if (!path)
        return moec_cli_no_memory(c);
    moec_sink sink = moec_cli_sink(c);
    moec_status s = forget_later(path, moec_trainer_steps(r->trainer), &l->evaluated, sink);
    if (!s)
        s = moec_output_append(path, &l->metrics, sink);
    moec_mem_free(path);
    l->bar = isatty(2);
    l->lines = !l->bar || !isatty(1);
    l->first = moec_trainer_steps(r->trainer);
    l->start = moec_seconds();
    return moec_cli_status(c, s);
}

void moec_train_log_close(moec_train_run *r) {
    moec_train_log_clear(r);
    if (r->log.metrics.path)
        moec_output_abandon(&r->log.metrics);
    moec_mem_free(r->log.line.p);
}

/* A line begun. */
static moec_chars *begin_line(moec_train_run *r) {
    r->log.line.n = 0;
    moec_chars_put(&r->log.line, "%s%lld", line_start, (long long)moec_trainer_steps(r->trainer));
    return &r->log.line;
}

static int write_line(moec_train_run *r) {
    moec_cli *c = r->c;
    moec_chars *t = &r->log.line;
    moec_chars_put(t, "}\n");
    return t->failed ? moec_cli_no_memory(c)
                     : moec_cli_status(c, moec_output_write(&r->log.metrics, t->p, t->n, moec_cli_sink(c)));
}

/* A member of an object that has some; what is not finite is null in JSON. */
static void put(moec_chars *t, const char *name, double v) {
    moec_chars_put(t, isfinite(v) ? ",\"%s\":%.9g" : ",\"%s\":null", name, v);
}

/* ---- a person ---- */

static void put_time(char *out, size_t room, double seconds) {
    long long s = seconds < 1e9 ? (long long)(seconds + 0.5) : 999999999;
    if (s >= 3600)
        snprintf(out, room, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, room, "%lld:%02lld", s / 60, s % 60);
}

void moec_train_log_clear(moec_train_run *r) {
    if (r->log.shown)
        fprintf(stderr, "\r%78s\r", "");
    r->log.shown = 0;
}

static void show_bar(moec_train_run *r, const moec_step_report *s, int64_t done) {
    moec_run_log *l = &r->log;
    double now = moec_seconds(), spent = now - l->start - l->away, rate = 0;
    char bar[BAR + 1], left[32];
    if (now < l->next && done < r->o->steps)
        return;
    int full = (int)(BAR * (double)done / (double)r->o->steps);
    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = 0;
    if (spent > 0)
        rate = (double)l->tokens / spent;
    put_time(left, sizeof left, spent / (double)(done - l->first) * (double)(r->o->steps - done));
    fprintf(stderr, "\r[%s] %lld/%lld  loss %.4f  %.0f tokens/s  %s left  ", bar, (long long)done,
            (long long)r->o->steps, s->loss, rate, left);
    fflush(stderr);
    l->shown = 1;
    l->next = now + 0.1;
}

int moec_train_log_step(moec_train_run *r, const moec_step_report *s, const moec_data_step_info *info,
                        double seconds, const char *routers) {
    moec_run_log *l = &r->log;
    int64_t done = moec_trainer_steps(r->trainer), tokens = info->source_tokens + info->target_tokens;
    double rate = seconds > 0 ? (double)tokens / seconds : 0;
    moec_chars *t = begin_line(r);
    put(t, "epoch", info->epoch + (double)info->examples / (double)r->set.examples);
    put(t, "loss", s->loss);
    put(t, "token_loss", s->token_loss);
    if (s->balance_loss != 0)
        put(t, "balance_loss", s->balance_loss);
    if (s->router_z_loss != 0)
        put(t, "router_z_loss", s->router_z_loss);
    put(t, "learning_rate", s->learning_rate);
    put(t, "grad_norm", s->gradient_norm);
    put(t, "tokens_per_second", rate);
    if (routers)
        moec_chars_put(t, ",%s", routers);
    l->tokens += tokens;
    int code = write_line(r);
    if (l->bar)
        show_bar(r, s, done);
    if (l->lines && (done % r->c->o.log_every == 0 || done == r->o->steps)) {
        printf("step %lld/%lld  loss %.6g  lr %.4g  grad_norm %.4g  %.0f tokens/s\n", (long long)done,
               (long long)r->o->steps, s->loss, s->learning_rate, s->gradient_norm, rate);
        fflush(stdout);
    }
    return code;
}

int moec_train_log_eval(moec_train_run *r, const char *path, const moec_eval_result *e) {
    char shown[MOEC_SHOW];
    long long done = (long long)moec_trainer_steps(r->trainer);
    moec_chars *t = begin_line(r);
    moec_train_log_clear(r);
    moec_chars_put(t, "%s", eval_key);
    moec_chars_json(t, moec_show_path(shown, path));
    printf("step %lld  %s:", done, shown);
    if (e->choices) {
        put(t, "eval_accuracy", e->accuracy);
        put(t, "eval_mean_of_medians", e->median);
        put(t, "eval_mean_of_means", e->mean);
        printf(" accuracy %.4f, mean of medians %.4f, mean of means %.4f\n", e->accuracy, e->median, e->mean);
    } else {
        put(t, "eval_loss", e->loss);
        put(t, "eval_exact_match", e->exact_match);
        put(t, "eval_token_accuracy", e->token_accuracy);
        printf(" loss %.4f, exact match %.4f, token accuracy %.4f\n", e->loss, e->exact_match,
               e->token_accuracy);
    }
    fflush(stdout);
    return write_line(r);
}

/* ---- routers ---- */

static const char load_of[] = "load.", entropy_of[] = "entropy.";

static int has_prefix(const char *s, const char *prefix) {
    return !strncmp(s, prefix, strlen(prefix));
}

static void put_routers(const moec_function *f, const moec_bind *out, const int64_t *sym, moec_chars *t) {
    const char *before = "";
    moec_chars_put(t, "\"routers\":{");
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        if (!has_prefix(out[i].name, load_of))
            continue;
        const char *site = out[i].name + sizeof load_of - 1;
        int64_t e[MOEC_RANK] = {0};
        f->shape(sym, f->n_inputs + i, e);
        moec_chars_put(t, "%s", before);
        moec_chars_json(t, site);
        moec_chars_put(t, ":{\"load\":[");
        for (int64_t k = 0; k < e[0]; k++)
            moec_chars_put(t, k ? ",%.6g" : "%.6g", (double)((const float *)out[i].at)[k]);
        moec_chars_put(t, "]");
        for (uint32_t k = 0; k < f->n_outputs; k++)
            if (has_prefix(out[k].name, entropy_of) && !strcmp(out[k].name + sizeof entropy_of - 1, site))
                put(t, "entropy", (double)*(const float *)out[k].at);
        moec_chars_put(t, "}");
        before = ",";
    }
    moec_chars_put(t, "}");
}

int moec_train_routers(moec_train_run *r, const moec_batch *b, moec_chars *out) {
    enum { INPUTS = 6 };
    moec_cli *c = r->c;
    const moec_seq2seq *q = c->program->seq2seq;
    const moec_function *f = &c->program->function[q->routers];
    const moec_bind in[INPUTS] = {{"input_ids", 0, (void *)(uintptr_t)b->input_ids},
                                  {"encoder_segments", 0, (void *)(uintptr_t)b->encoder_segments},
                                  {"decoder_input_ids", 0, (void *)(uintptr_t)b->decoder_input_ids},
                                  {"decoder_segments", 0, (void *)(uintptr_t)b->decoder_segments},
                                  {"labels", 0, (void *)(uintptr_t)b->labels},
                                  {"sentence", 0, (void *)(uintptr_t)b->sentence}};
    moec_bind *bind = moec_mem_new(INPUTS + f->n_outputs, sizeof *bind);
    int64_t sym[MOEC_SYMBOLS];
    if (!bind)
        return moec_cli_no_memory(c);
    memcpy(bind, in, sizeof in);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        bind[INPUTS + i] = (moec_bind){f->value[f->n_inputs + i].name, 1, NULL};
    moec_symbols_of(c->program, b->rows, b->source, b->target, sym);
    int code = moec_cli_call(c, q->routers, sym, bind, INPUTS + (int)f->n_outputs, NULL);
    if (!code)
        put_routers(f, bind + INPUTS, sym, out);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        moec_mem_free(bind[INPUTS + i].at);
    moec_mem_free(bind);
    return code;
}
