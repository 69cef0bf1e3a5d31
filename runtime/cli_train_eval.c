/* Evaluation within a training run: the files looked through beforehand, then moec_eval_run on each. */
#include "cli_train.h"
#include "cli_eval.h"

#include <string.h>

static moec_eval_options options_of(const moec_train_run *r, int64_t first) {
    const moec_cli *c = r->c;
    moec_eval_options o = {.batch = c->o.batch,
                           .limit = c->o.limit,
                           .input_eos = c->o.input_eos,
                           .skip_bad = c->o.skip_bad,
                           .stop = moec_train_stopped};
    if (r->eval_sentence.data) {
        int64_t width = c->program->seq2seq->sentence_width;
        o.sentence = r->eval_sentence.data + (size_t)(first * width) * sizeof(float);
        o.sentences = r->eval_sentence.extent[0] - first;
    }
    return o;
}

/* Longest input and reference of a file, and the most tokens that are made for a pair of it: cli_eval.c's
 * room. */
static void measure(moec_eval_file *f, const moec_eval_reader *e, const moec_eval_example *x) {
    f->source = moec_larger(f->source, x->input.n);
    for (int64_t k = 0; k < x->end.n; k++)
        f->target = moec_larger(f->target, x->end.at[k] - moec_eval_from(x, k));
    if (e->kind == MOEC_EVAL_PAIRS)
        f->generated = moec_larger(f->generated, x->is_text ? 2 * x->token.n + 8 : x->token.n + 1);
}

static int look_through(moec_train_run *r, moec_eval_file *f, int64_t *lines) {
    moec_eval_options o = options_of(r, 0);
    moec_eval_reader e;
    moec_eval_example x = {0};
    int got = 1;
    if (!strcmp(f->path, "-"))
        return moec_cli_usage(r->c, "--eval reads its file more than once: standard input is none");
    int code = moec_eval_reader_open(&e, r->c, &o, f->path);
    while (!code && got && !(code = moec_eval_reader_next(&e, &x, &got)))
        if (got)
            measure(f, &e, &x);
    f->first = *lines;
    *lines += e.ordinal;
    moec_eval_reader_close(&e);
    moec_eval_example_free(&x);
    int64_t most = moec_generate_limit(r->c->program);
    f->generated = f->generated < most ? f->generated : most;
    return code;
}

static int read_sentences(moec_train_run *r, int64_t lines) {
    moec_cli *c = r->c;
    const char *path = c->o.eval_sentence;
    if (!path)
        return c->program->seq2seq->sentence_width
                   ? moec_cli_error(c, NULL, 0,
                                    "the adapter's routers read sentence vectors: give --eval-sentence")
                   : EXIT_DONE;
    if (!c->program->seq2seq->sentence_width)
        return moec_cli_error(c, NULL, 0,
                              "no router of this model reads sentence vectors: --eval-sentence is of no use");
    if (c->o.limit)
        return moec_cli_usage(c, "--eval-sentence takes whole files: leave out --eval-limit");
    return moec_train_sentences(r, path, lines, &r->eval_sentence);
}

int moec_train_eval_open(moec_train_run *r) {
    const moec_strings *eval = &r->c->o.eval;
    int64_t lines = 0;
    if (!eval->count)
        return r->c->o.eval_sentence ? moec_cli_usage(r->c, "--eval-sentence belongs to --eval") : EXIT_DONE;
    if (!(r->eval = moec_mem_new(eval->count, sizeof *r->eval)))
        return moec_cli_no_memory(r->c);
    int code = EXIT_DONE;
    for (size_t i = 0; !code && i < eval->count; i++) {
        r->eval[i].path = eval->item[i];
        code = look_through(r, &r->eval[i], &lines);
    }
    return code ? code : read_sentences(r, lines);
}

int moec_train_eval(moec_train_run *r, size_t first) {
    int code = EXIT_DONE;
    for (size_t i = first; !code && !r->cut && i < r->c->o.eval.count; i++) {
        moec_eval_options o = options_of(r, r->eval[i].first);
        moec_eval_result result;
        code = moec_eval_run(r->c, &o, r->eval[i].path, &result);
        r->cut = !code && result.stopped;
        if (!code && !r->cut)
            code = moec_train_log_eval(r, r->eval[i].path, &result);
    }
    return code;
}
