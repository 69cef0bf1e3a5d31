/* generate, encode, score: inputs are taken in order, some at a time, as right-padded batches. */
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* ---- batches ---- */

typedef struct Job {
    moec_cli *c;
    moec_examples all;
    moec_npy sentence; /* [inputs, width], data NULL without */
    size_t batch;      /* inputs at a time */
    moec_progress progress;
} Job;

/* The inputs first .. first + count, padded to what the program takes. */
typedef struct Batch {
    size_t first, count;
    int64_t rows, length, targets; /* extents; count <= rows */
    int64_t *ids, *mask, *decoder, *labels;
    float *sentence;
    int32_t *adapter; /* slot of each row */
    int64_t sym[MOEC_SYMBOLS];
    moec_inputs in; /* of encode and score, which make them */
} Batch;

static void batch_free(Batch *b) {
    moec_mem_free(b->ids);
    moec_mem_free(b->mask);
    moec_mem_free(b->decoder);
    moec_mem_free(b->labels);
    moec_mem_free(b->sentence);
    moec_mem_free(b->adapter);
    moec_inputs_free(&b->in);
}

int64_t *moec_cli_ids(int64_t rows, int64_t n, int64_t fill) {
    int64_t *p = moec_mem_new((size_t)rows * (size_t)n, sizeof *p);
    for (int64_t i = 0; p && i < rows * n; i++)
        p[i] = fill;
    return p;
}

/* Rows beyond the inputs, which a program of constant batch needs, repeat the first one. */
static int batch_make(Job *job, Batch *b, size_t first, int with_targets) {
    const moec_cli *c = job->c;
    const moec_program *p = c->program;
    const moec_seq2seq *q = p->seq2seq;
    int64_t lo, hi, longest = 0, target = 0;
    size_t left = job->all.count - first;
    *b = (Batch){.first = first, .count = left < job->batch ? left : job->batch};
    for (size_t i = 0; i < b->count; i++) {
        longest = moec_larger(longest, job->all.item[first + i].input.n);
        target = moec_larger(target, job->all.item[first + i].target.n);
    }
    moec_cli_range(c, q->batch, q->encode, "input_ids", 0, &lo, &hi);
    b->rows = moec_larger((int64_t)b->count, lo);
    moec_cli_range(c, q->source, q->encode, "input_ids", 1, &lo, &hi);
    b->length = moec_larger(longest, lo);
    b->ids = moec_cli_ids(b->rows, b->length, q->pad);
    b->mask = moec_cli_ids(b->rows, b->length, 0);
    b->adapter = moec_mem_new((size_t)b->rows, sizeof *b->adapter);
    if (with_targets) {
        moec_cli_range(c, q->target, q->score, "labels", 1, &lo, &hi);
        b->targets = moec_larger(target, lo);
        b->decoder = moec_cli_ids(b->rows, b->targets, q->pad);
        b->labels = moec_cli_ids(b->rows, b->targets, -100);
    }
    if (job->sentence.data)
        b->sentence = moec_mem_new((size_t)b->rows * (size_t)q->sentence_width, sizeof *b->sentence);
    if (!b->ids || !b->mask || !b->adapter || (with_targets && (!b->decoder || !b->labels)) ||
        (job->sentence.data && !b->sentence))
        return moec_cli_no_memory(c);
    for (int64_t i = 0; i < b->rows; i++) {
        size_t from = first + ((size_t)i < b->count ? (size_t)i : 0);
        const moec_example *x = &job->all.item[from];
        b->adapter[i] = x->adapter;
        memcpy(b->ids + i * b->length, x->input.id, (size_t)x->input.n * sizeof *b->ids);
        for (int64_t k = 0; k < x->input.n; k++)
            b->mask[i * b->length + k] = 1;
        for (int64_t k = 0; k < x->target.n; k++) {
            b->labels[i * b->targets + k] = x->target.id[k];
            b->decoder[i * b->targets + k] = k ? x->target.id[k - 1] : q->start;
        }
        if (b->sentence)
            memcpy(b->sentence + i * q->sentence_width,
                   job->sentence.data + from * (size_t)q->sentence_width * sizeof *b->sentence,
                   (size_t)q->sentence_width * sizeof *b->sentence);
    }
    moec_symbols_low(p, b->sym);
    if (q->batch >= 0)
        b->sym[q->batch] = b->rows;
    if (q->source >= 0)
        b->sym[q->source] = b->length;
    if (with_targets && q->target >= 0)
        b->sym[q->target] = b->targets;
    return EXIT_DONE;
}

static int read_sentence(Job *job) {
    moec_cli *c = job->c;
    int64_t width = c->program->seq2seq->sentence_width;
    const char *path = c->o.sentence;
    if (!path)
        return width ? moec_cli_error(c, NULL, 0,
                                      "the adapter's routers read sentence vectors: give --sentence")
                     : EXIT_DONE;
    if (!width)
        return moec_cli_error(c, NULL, 0,
                              "no router of this model reads sentence vectors: --sentence is of no use");
    moec_npy *a = &job->sentence;
    int code = moec_cli_status(c, moec_npy_read(path, a, moec_cli_sink(c)));
    if (code)
        return code;
    if (a->dtype != MOEC_F32 || a->rank != 2 || a->extent[0] != (int64_t)job->all.count ||
        a->extent[1] != width)
        return moec_cli_error(c, path, 0, "must be f32 [%llu, %lld]: one vector for each input",
                              (unsigned long long)job->all.count, (long long)width);
    return EXIT_DONE;
}

static int job_start(Job *job, moec_cli *c, int with_targets) {
    int64_t lo, hi, wanted = c->o.batch ? c->o.batch : 8;
    *job = (Job){.c = c};
    int code = moec_examples_read(c, with_targets, &job->all);
    if (!code)
        code = read_sentence(job);
    if (code)
        return code;
    moec_cli_range(c, c->program->seq2seq->batch, c->program->seq2seq->encode, "input_ids", 0, &lo, &hi);
    if (c->o.batch > hi)
        return moec_cli_error(c, NULL, 0, "--batch is %lld, the model was compiled for at most %lld",
                              (long long)c->o.batch, (long long)hi);
    if (c->o.adapter.count > 1 && lo > 1)
        return moec_cli_error(c, NULL, 0,
                              "the model was compiled for batches of at least %lld: inputs of one batch cannot "
                              "have different adapters",
                              (long long)lo);
    job->batch = (size_t)(wanted < hi ? wanted : hi);
    moec_progress_start(&job->progress, job->all.count);
    return moec_cli_open(c);
}

static void job_end(Job *job) {
    moec_progress_clear(&job->progress);
    moec_examples_free(&job->all);
    moec_mem_free(job->sentence.file);
}

/* ---- generate ---- */

static int print_tokens(moec_cli *c, const moec_example *x, const int64_t *token, int64_t n) {
    if (!x->is_text) {
        for (int64_t i = 0; i < n; i++)
            printf(i ? " %lld" : "%lld", (long long)token[i]);
        printf("\n");
        return EXIT_DONE;
    }
    int64_t bytes = c->tokenizer->api->decode(c->text, token, n, NULL, 0);
    char *text = bytes < 0 ? NULL : moec_mem_new((size_t)bytes, 1);
    if (!text)
        return moec_cli_no_memory(c);
    c->tokenizer->api->decode(c->text, token, n, text, bytes);
    moec_cli_print_text(text, (size_t)bytes);
    printf("\n");
    moec_mem_free(text);
    return EXIT_DONE;
}

static int each_step(void *ctx, int64_t step, const int64_t *token) {
    (void)token;
    moec_progress_tell(ctx, step + 1);
    return 0;
}

static int generate_batch(Job *job, size_t first, int64_t most, int64_t *tokens) {
    moec_cli *c = job->c;
    int64_t eos = c->o.eos >= 0 ? c->o.eos : c->program->seq2seq->eos;
    Batch b;
    int code = batch_make(job, &b, first, 0);
    if (!code) {
        moec_generate_options o = {.max_length = most, .eos = eos, .adapter_of_row = b.adapter};
        int64_t steps = 0;
        moec_cli_sink(c);
        code = moec_cli_status(c, moec_generate(c->instance, b.rows, b.length, b.ids, b.mask, b.sentence, &o,
                                                tokens, &steps, each_step, &job->progress));
        moec_progress_clear(&job->progress);
        for (size_t i = 0; !code && i < b.count; i++) {
            const int64_t *row = tokens + (int64_t)i * most;
            int64_t n = 0;
            while (n < steps && row[n] != eos)
                n++;
            code = print_tokens(c, &job->all.item[first + i], row, n + (n < steps));
        }
        fflush(stdout);
    }
    batch_free(&b);
    return code;
}

static int generate_all(Job *job) {
    moec_cli *c = job->c;
    int64_t lo, hi, limit = moec_generate_limit(c->program);
    if (c->o.max_length > limit)
        return moec_cli_error(c, NULL, 0, "--max-length is %lld, the model was compiled for at most %lld",
                              (long long)c->o.max_length, (long long)limit);
    int64_t most = c->o.max_length ? c->o.max_length : limit;
    moec_cli_range(c, c->program->seq2seq->batch, c->program->seq2seq->encode, "input_ids", 0, &lo, &hi);
    int64_t *tokens =
        moec_mem_new((size_t)moec_larger((int64_t)job->batch, lo) * (size_t)most, sizeof *tokens);
    if (!tokens)
        return moec_cli_no_memory(c);
    int code = EXIT_DONE;
    for (size_t i = 0; !code && i < job->all.count; i += job->batch) {
        code = generate_batch(job, i, most, tokens);
        job->progress.done = i + job->batch;
    }
    moec_mem_free(tokens);
    return code;
}

int moec_cmd_generate(moec_cli *c) {
    Job job;
    int code = job_start(&job, c, 0);
    if (!code)
        code = generate_all(&job);
    job_end(&job);
    return code;
}

/* ---- encode ---- */

static int call_encode(moec_cli *c, Batch *b, float **hidden) {
    b->in = (moec_inputs){.rows = b->rows,
                          .length = b->length,
                          .ids = b->ids,
                          .mask = b->mask,
                          .sentence = b->sentence,
                          .adapter = b->adapter,
                          .sym = b->sym};
    int code = moec_inputs_make(c, &b->in);
    return code ? code : moec_inputs_encode(c, &b->in, hidden);
}

static int write_states(Job *job, moec_output *file, const Batch *b, const float *hidden, int64_t longest) {
    moec_cli *c = job->c;
    int64_t width = c->program->seq2seq->width;
    float *zero = file ? moec_mem_new((size_t)width, sizeof *zero) : NULL;
    if (file && !zero)
        return moec_cli_no_memory(c);
    moec_status s = MOEC_OK;
    moec_sink sink = moec_cli_sink(c);
    for (size_t i = 0; !s && i < b->count; i++) {
        const float *row = hidden + moec_inputs_at(&b->in, (int64_t)i) * width;
        int64_t n = job->all.item[b->first + i].input.n;
        if (file) {
            s = moec_output_write(file, row, (uint64_t)(n * width) * sizeof *row, sink);
            for (int64_t k = n; !s && k < longest; k++)
                s = moec_output_write(file, zero, (uint64_t)width * sizeof *zero, sink);
            continue;
        }
        for (int64_t k = 0; k < n * width; k++)
            printf("%.9g%c", (double)row[k], (k + 1) % width ? ' ' : '\n');
        printf(b->first + i + 1 < job->all.count ? "\n" : "");
    }
    moec_mem_free(zero);
    return moec_cli_status(c, s);
}

static int encode_all(Job *job, moec_output *file) {
    moec_cli *c = job->c;
    int64_t longest = 0;
    for (size_t i = 0; i < job->all.count; i++)
        longest = moec_larger(longest, job->all.item[i].input.n);
    if (file) {
        int64_t extent[3] = {(int64_t)job->all.count, longest, c->program->seq2seq->width};
        int code = moec_cli_status(c, moec_npy_begin(file, MOEC_F32, 3, extent, moec_cli_sink(c)));
        if (code)
            return code;
    }
    int code = EXIT_DONE;
    for (size_t i = 0; !code && i < job->all.count; i += job->batch) {
        Batch b;
        float *hidden = NULL;
        code = batch_make(job, &b, i, 0);
        if (!code)
            code = call_encode(c, &b, &hidden);
        moec_progress_clear(&job->progress);
        if (!code)
            code = write_states(job, file, &b, hidden, longest);
        moec_mem_free(hidden);
        batch_free(&b);
        job->progress.done = i + job->batch;
        moec_progress_tell(&job->progress, 0);
    }
    return code;
}

int moec_cmd_encode(moec_cli *c) {
    Job job;
    moec_output file = {.fd = -1};
    int code = job_start(&job, c, 0);
    if (!code && c->o.out)
        code = moec_cli_status(c, moec_output_open(c->o.out, &file, moec_cli_sink(c)));
    if (!code)
        code = encode_all(&job, c->o.out ? &file : NULL);
    if (!code && c->o.out)
        code = moec_cli_status(c, moec_output_commit(&file, moec_cli_sink(c)));
    else if (file.path)
        moec_output_abandon(&file);
    job_end(&job);
    return code;
}

/* ---- score ---- */

static int call_score(moec_cli *c, Batch *b, void *cross, float **logprob) {
    moec_bind bind[] = {{"decoder_input_ids", 0, b->decoder}, {"cross_kv", 0, cross},    {"packed_kv", 0, cross},
                        {"attention_mask", 0, b->mask},       {"spans", 0, b->in.spans}, {"labels", 0, b->labels},
                        {"sentence", 0, b->sentence},         {"logprob", 1, NULL}};
    int code = moec_cli_call(c, b->in.score, b->sym, bind, 8, b->adapter);
    *logprob = bind[7].at;
    return code;
}

static int score_batch(Job *job, size_t first) {
    moec_cli *c = job->c;
    Batch b;
    float *hidden = NULL, *logprob = NULL;
    void *cross = NULL;
    int code = batch_make(job, &b, first, 1);
    if (!code)
        code = call_encode(c, &b, &hidden);
    if (!code)
        code = moec_inputs_cross(c, &b.in, hidden, &cross);
    if (!code)
        code = call_score(c, &b, cross, &logprob);
    moec_progress_clear(&job->progress);
    if (!code && !logprob)
        code = moec_cli_error(c, NULL, 0, "function 'score' has no output 'logprob'");
    for (size_t i = 0; !code && logprob && i < b.count; i++) {
        const float *row = logprob + (int64_t)i * b.targets;
        const int64_t n = job->all.item[first + i].target.n;
        double sum = 0;
        for (int64_t k = 0; k < n; k++)
            sum += (double)row[k];
        printf("%.9g", sum);
        for (int64_t k = 0; k < n; k++)
            printf(" %.9g", (double)row[k]);
        printf("\n");
    }
    fflush(stdout);
    moec_mem_free(logprob);
    moec_mem_free(cross);
    moec_mem_free(hidden);
    batch_free(&b);
    return code;
}

int moec_cmd_score(moec_cli *c) {
    Job job;
    int code = job_start(&job, c, 1);
    for (size_t i = 0; !code && i < job.all.count; i += job.batch) {
        code = score_batch(&job, i);
        job.progress.done = i + job.batch;
        moec_progress_tell(&job.progress, 0);
    }
    job_end(&job);
    return code;
}
