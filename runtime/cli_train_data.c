/* The data of a training run: --data with weights and caps, sentence vectors, and the extents of its batches.
 */
#include "cli_train.h"

#include <stdio.h>
#include <string.h>

enum { DEFAULT_ROWS = 8 };

/* ---- FILE:WEIGHT:CAP ---- */

/* Cuts the text behind the last colon off where it is a number; NULL where it is none. */
static const char *cut_number(char *path) {
    char *colon = strrchr(path, ':');
    double v;
    if (!colon || colon == path || !moec_cli_real(colon + 1, &v))
        return NULL;
    *colon = 0;
    return colon + 1;
}

/* What stands behind a colon counts only when it is a number, so that paths may have colons. */
static int parse_file(moec_train_run *r, const char *argument, char **path, moec_data_file *f) {
    char shown[MOEC_SHOW];
    size_t n = strlen(argument);
    if (!(*path = moec_mem_new(n + 1, 1)))
        return moec_cli_no_memory(r->c);
    memcpy(*path, argument, n);
    *f = (moec_data_file){.path = *path};
    const char *last = cut_number(*path), *before = last ? cut_number(*path) : NULL;
    const char *weight = before ? before : last;
    if (weight && (!moec_cli_real(weight, &f->weight) || f->weight <= 0))
        return moec_cli_usage(r->c, "--data %s: the weight has to be above 0", moec_show_c(shown, argument));
    if (before && (!moec_cli_integer(last, &f->cap) || f->cap < 0))
        return moec_cli_usage(r->c, "--data %s: the cap is a number of examples",
                              moec_show_c(shown, argument));
    return EXIT_DONE;
}

static int parse_files(moec_train_run *r) {
    const moec_strings *data = &r->c->o.data;
    r->path = moec_mem_new(data->count, sizeof *r->path);
    r->file = moec_mem_new(data->count, sizeof *r->file);
    if (!r->path || !r->file)
        return moec_cli_no_memory(r->c);
    int code = EXIT_DONE;
    for (r->files = 0; !code && (size_t)r->files < data->count; r->files++)
        code = parse_file(r, data->item[r->files], &r->path[r->files], &r->file[r->files]);
    return code;
}

/* ---- examples ---- */

static int64_t encode(void *ctx, const char *s, size_t n, int64_t *ids, int64_t room) {
    moec_train_run *r = ctx;
    if (moec_cli_open_text(r->c)) {
        r->text_failed = 1;
        return MOEC_DATA_NO_TEXT;
    }
    return r->c->tokenizer->api->encode(r->c->text, s, n, ids, room);
}

static void tell_oddities(const moec_train_run *r) {
    const moec_cli *c = r->c;
    if (r->set.bad)
        fprintf(stderr, "%s: bad lines skipped: %lld; the first: %s\n", c->name, (long long)r->set.bad,
                r->set.first_bad);
    if (r->set.cut_inputs || r->set.cut_targets)
        fprintf(stderr, "%s: truncated: %lld inputs, %lld targets\n", c->name, (long long)r->set.cut_inputs,
                (long long)r->set.cut_targets);
}

static int read_examples(moec_train_run *r) {
    moec_cli *c = r->c;
    const moec_data_options *d = &r->data_options;
    moec_dataset_options o = {.vocab = c->program->seq2seq->vocab,
                              .eos = c->program->seq2seq->eos,
                              .source = d->source,
                              .target = d->target,
                              .truncate_inputs = c->o.truncate,
                              .truncate_targets = c->o.truncate,
                              .input_eos = c->o.input_eos,
                              .skip_bad = c->o.skip_bad,
                              .encode = c->tokenizer ? encode : NULL,
                              .encode_ctx = r};
    char text[MOEC_MESSAGE] = ""; /* opening the tokenizer uses the command's own */
    moec_status s = moec_dataset_open(r->file, r->files, &o, &r->set, (moec_sink){text, sizeof text});
    if (r->text_failed)
        return EXIT_INPUT;
    memcpy(c->message, text, sizeof text);
    if (!s)
        tell_oddities(r);
    return moec_cli_status(c, s);
}

int moec_train_sentences(moec_train_run *r, const char *path, int64_t rows, moec_npy *out) {
    moec_cli *c = r->c;
    int64_t width = c->program->seq2seq->sentence_width;
    int code = moec_cli_status(c, moec_npy_read(path, out, moec_cli_sink(c)));
    if (!code &&
        (out->dtype != MOEC_F32 || out->rank != 2 || out->extent[0] != rows || out->extent[1] != width))
        return moec_cli_error(c, path, 0, "must be f32 [%lld, %lld]: one vector for each example",
                              (long long)rows, (long long)width);
    return code;
}

static int read_sentences(moec_train_run *r) {
    moec_cli *c = r->c;
    int64_t width = c->program->seq2seq->sentence_width;
    if (!width && !c->o.sentence)
        return EXIT_DONE;
    if (!width)
        return moec_cli_error(c, NULL, 0,
                              "no router of this model reads sentence vectors: --sentence is of no use");
    if (!c->o.sentence)
        return moec_cli_error(c, NULL, 0, "the adapter's routers read sentence vectors: give --sentence");
    if (r->set.bad)
        return moec_cli_error(c, NULL, 0, "lines were skipped: sentence vectors would belong to others");
    int code = moec_train_sentences(r, c->o.sentence, r->set.examples, &r->sentence);
    r->data_options.sentence = code ? NULL : (const float *)(const void *)r->sentence.data;
    r->data_options.sentence_width = width;
    return code;
}

/* ---- batches ---- */

static int choose_bounds(moec_train_run *r) {
    moec_cli *c = r->c;
    const moec_seq2seq *q = c->program->seq2seq;
    moec_data_options *d = &r->data_options;
    int64_t hi;
    *d = (moec_data_options){.accumulation = c->o.accumulate,
                             .pad = q->pad,
                             .start = q->start,
                             .pack = c->o.pack,
                             .per_example = !c->o.reduce,
                             .shuffle = !c->o.no_shuffle,
                             .seed = r->o->seed};
    moec_cli_range(c, q->batch, q->train, "input_ids", 0, &d->rows_least, &hi);
    moec_cli_range(c, q->source, q->train, "input_ids", 1, &d->source_least, &d->source);
    moec_cli_range(c, q->target, q->train, "labels", 1, &d->target_least, &d->target);
    d->rows = c->o.batch ? c->o.batch : hi < DEFAULT_ROWS ? hi : DEFAULT_ROWS;
    if (!c->o.batch && d->rows < d->rows_least)
        d->rows = d->rows_least;
    if (d->rows > hi || d->rows < d->rows_least)
        return moec_cli_error(c, NULL, 0, "--batch is %lld, the model was compiled for %lld to %lld",
                              (long long)d->rows, (long long)d->rows_least, (long long)hi);
    return EXIT_DONE;
}

/* Goes through the run's batches, of one epoch at most, for their largest extents. */
static int find_extents(moec_train_run *r) {
    moec_cli *c = r->c;
    int64_t n = moec_data_position_count(r->data), *start = moec_mem_new((size_t)n, sizeof *start);
    if (!start)
        return moec_cli_no_memory(c);
    moec_data_position_get(r->data, start);
    for (int64_t k = 0; k < r->o->steps; k++) {
        moec_data_step_info info = moec_data_step(r->data);
        if (info.epoch > 1)
            break;
        for (int64_t i = 0; i < info.batches; i++) {
            moec_batch b = moec_data_batch(r->data, i);
            r->rows = moec_larger(r->rows, b.rows);
            r->source = moec_larger(r->source, b.source);
            r->target = moec_larger(r->target, b.target);
        }
    }
    int code = moec_cli_status(c, moec_data_position_set(r->data, start, n, moec_cli_sink(c)));
    moec_mem_free(start);
    return code;
}

int moec_train_data_open(moec_train_run *r) {
    moec_cli *c = r->c;
    int code = parse_files(r);
    if (!code)
        code = choose_bounds(r);
    if (!code)
        code = read_examples(r);
    if (!code)
        code = read_sentences(r);
    if (!code)
        code = moec_cli_status(c, moec_data_open(&r->set, &r->data_options, &r->data, moec_cli_sink(c)));
    return code ? code : find_extents(r);
}

void moec_train_data_close(moec_train_run *r) {
    moec_data_close(r->data);
    moec_dataset_close(&r->set);
    moec_mem_free(r->sentence.file);
    for (int64_t i = 0; r->path && i < r->files; i++)
        moec_mem_free(r->path[i]);
    moec_mem_free(r->path);
    moec_mem_free(r->file);
}
