/* The window of examples that eval works on: its inputs are encoded together, once; then its references are
 * scored as rows that have, or where they are padded repeat, the keys and values of their input, so that rows of different inputs
 * share a batch. */
#include "cli_eval.h"

#include <string.h>

enum { DEFAULT_BATCH = 8 };

/* The references of one call of score: rows first .. first + count of the window's. */
typedef struct Rows {
    int64_t count, rows, targets; /* rows >= count */
    int64_t example, choice;      /* of the first row */
    int64_t *decoder, *labels;    /* [rows, targets] */
    int64_t *mask, *spans;        /* [rows, length] and NULL; packed: NULL and [rows, 2] */
    float *sentence;
    void *cross; /* NULL where it is packed: the window's */
} Rows;

static void set_symbol(moec_window *w, int symbol, int64_t value) {
    if (symbol >= 0)
        w->sym[symbol] = value;
}

/* ---- encoding a window ---- */

static int make_inputs(moec_window *w) {
    const moec_cli *c = w->c;
    const moec_seq2seq *q = c->program->seq2seq;
    const moec_eval_options *o = w->o;
    int64_t lo, hi, longest = 0;
    for (int64_t i = 0; i < w->count; i++)
        longest = moec_larger(w->x[i].input.n, longest);
    moec_cli_range(c, q->batch, q->encode, "input_ids", 0, &lo, &hi);
    w->rows = moec_larger(w->count, lo);
    moec_cli_range(c, q->source, q->encode, "input_ids", 1, &lo, &hi);
    w->length = moec_larger(longest, lo);
    w->ids = moec_cli_ids(w->rows, w->length, q->pad);
    w->mask = moec_cli_ids(w->rows, w->length, 0);
    w->sentence =
        o->sentence ? moec_mem_new((size_t)w->rows * (size_t)q->sentence_width, sizeof *w->sentence) : NULL;
    if (!w->ids || !w->mask || (o->sentence && !w->sentence))
        return moec_cli_no_memory(c);
    for (int64_t i = 0; i < w->rows; i++) {
        const moec_eval_example *x = &w->x[i < w->count ? i : 0]; /* rows beyond repeat the first */
        memcpy(w->ids + i * w->length, x->input.at, (size_t)x->input.n * sizeof *w->ids);
        memcpy(w->mask + i * w->length, x->mask.at, (size_t)x->input.n * sizeof *w->mask);
        if (w->sentence)
            memcpy(w->sentence + i * q->sentence_width,
                   (const char *)o->sentence + (size_t)(x->ordinal * q->sentence_width) * sizeof *w->sentence,
                   (size_t)q->sentence_width * sizeof *w->sentence);
    }
    moec_symbols_low(c->program, w->sym);
    set_symbol(w, q->batch, w->rows);
    set_symbol(w, q->source, w->length);
    return EXIT_DONE;
}

/* Bytes of a row of cross_kv, whose rows are inputs. */
static int find_row_bytes(moec_window *w) {
    const moec_function *f = &w->c->program->function[w->c->program->seq2seq->cross];
    int v = moec_find_output(f, "cross_kv");
    int64_t rows = -1;
    uint64_t bytes = 0;
    if (v >= 0 && f->value[v].rank > 0) {
        int64_t extent[MOEC_RANK];
        f->shape(w->sym, (uint32_t)v, extent);
        rows = extent[0];
    }
    if (rows != w->rows || !moec_value_bytes(f, (uint32_t)v, w->sym, &bytes))
        return moec_cli_error(w->c, NULL, 0,
                              "function 'cross' has no output 'cross_kv' with a row for each input");
    w->row_bytes = (size_t)(bytes / (uint64_t)w->rows);
    return EXIT_DONE;
}

static int encode(moec_window *w) {
    moec_cli *c = w->c;
    float *hidden = NULL;
    int code = make_inputs(w);
    w->in = (moec_inputs){
        .rows = w->rows, .length = w->length, .ids = w->ids, .mask = w->mask, .sentence = w->sentence, .sym = w->sym};
    if (!code)
        code = moec_inputs_make(c, &w->in);
    if (!code)
        code = moec_inputs_encode(c, &w->in, &hidden);
    if (!code)
        code = moec_inputs_cross(c, &w->in, hidden, &w->cross);
    moec_mem_free(hidden);
    return code || w->in.packed ? code : find_row_bytes(w);
}

void moec_window_forget(moec_window *w) {
    moec_mem_free(w->ids);
    moec_mem_free(w->mask);
    moec_mem_free(w->sentence);
    moec_mem_free(w->cross);
    moec_mem_free(w->score);
    moec_inputs_free(&w->in);
    w->ids = w->mask = NULL;
    w->sentence = NULL;
    w->cross = NULL;
    w->score = NULL;
}

/* ---- scoring references ---- */

int64_t moec_eval_from(const moec_eval_example *x, int64_t k) {
    return k ? x->end.at[k - 1] : 0;
}

/* Goes to the window's next reference. */
static void next_row(const moec_window *w, int64_t *example, int64_t *choice) {
    if (++*choice == w->x[*example].end.n) {
        *choice = 0;
        ++*example;
    }
}

static void rows_free(Rows *r) {
    moec_mem_free(r->decoder);
    moec_mem_free(r->labels);
    moec_mem_free(r->mask);
    moec_mem_free(r->spans);
    moec_mem_free(r->sentence);
    moec_mem_free(r->cross);
}

static void fill_target(Rows *r, int64_t row, const int64_t *token, int64_t n, const moec_seq2seq *q) {
    int64_t *labels = r->labels + row * r->targets, *decoder = r->decoder + row * r->targets;
    for (int64_t i = 0; i < n; i++) {
        labels[i] = token[i];
        decoder[i] = i == 0 ? q->start : token[i - 1] == MOEC_IGNORED ? q->pad : token[i - 1];
    }
}

static void repeat_input(const moec_window *w, Rows *r, int64_t row, int64_t input) {
    int64_t width = w->c->program->seq2seq->sentence_width;
    if (r->spans) {
        memcpy(r->spans + 2 * row, w->in.spans + 2 * input, 2 * sizeof *r->spans);
    } else {
        memcpy((char *)r->cross + (size_t)row * w->row_bytes,
               (const char *)w->cross + (size_t)input * w->row_bytes, w->row_bytes);
        memcpy(r->mask + row * w->length, w->mask + input * w->length, (size_t)w->length * sizeof *r->mask);
    }
    if (r->sentence && w->sentence)
        memcpy(r->sentence + row * width, w->sentence + input * width, (size_t)width * sizeof *r->sentence);
}

/* Room for what says which keys each row has; false without memory. */
static int rows_keys(const moec_window *w, Rows *r) {
    if (w->in.spans)
        return (r->spans = moec_cli_ids(r->rows, 2, 0)) != NULL;
    r->mask = moec_cli_ids(r->rows, w->length, 0);
    r->cross = moec_mem_new((size_t)r->rows, w->row_bytes);
    return r->mask && r->cross;
}

/* Up to `batch` references from r->example, r->choice on. */
static int rows_make(const moec_window *w, Rows *r, int64_t left) {
    const moec_cli *c = w->c;
    const moec_seq2seq *q = c->program->seq2seq;
    int64_t lo, hi, longest = 0, example = r->example, choice = r->choice;
    r->count = left < w->batch ? left : w->batch;
    for (int64_t i = 0; i < r->count; i++, next_row(w, &example, &choice))
        longest = moec_larger(w->x[example].end.at[choice] - moec_eval_from(&w->x[example], choice), longest);
    moec_cli_range(c, q->batch, q->score, "labels", 0, &lo, &hi);
    r->rows = moec_larger(r->count, lo);
    moec_cli_range(c, q->target, q->score, "labels", 1, &lo, &hi);
    r->targets = moec_larger(longest, lo);
    r->decoder = moec_cli_ids(r->rows, r->targets, q->pad);
    r->labels = moec_cli_ids(r->rows, r->targets, MOEC_IGNORED);
    int keys = rows_keys(w, r);
    if (w->sentence)
        r->sentence = moec_mem_new((size_t)r->rows * (size_t)q->sentence_width, sizeof *r->sentence);
    if (!r->decoder || !r->labels || !keys || (w->sentence && !r->sentence))
        return moec_cli_no_memory(c);
    example = r->example, choice = r->choice;
    for (int64_t i = 0; i < r->count; i++, next_row(w, &example, &choice)) {
        const moec_eval_example *x = &w->x[example];
        int64_t from = moec_eval_from(x, choice);
        fill_target(r, i, x->token.at + from, x->end.at[choice] - from, q);
        repeat_input(w, r, i, example);
    }
    for (int64_t i = r->count; i < r->rows;
         i++) { /* what a constant batch leaves over repeats the first row */
        memcpy(r->decoder + i * r->targets, r->decoder, (size_t)r->targets * sizeof *r->decoder);
        memcpy(r->labels + i * r->targets, r->labels, (size_t)r->targets * sizeof *r->labels);
        repeat_input(w, r, i, r->example);
    }
    return EXIT_DONE;
}

/* Scores the rows; score[i] is the sum over row i's tokens. */
static int rows_score(moec_window *w, const Rows *r, double *score) {
    moec_cli *c = w->c;
    const moec_seq2seq *q = c->program->seq2seq;
    moec_bind bind[] = {{"decoder_input_ids", 0, r->decoder}, {"cross_kv", 0, r->cross}, {"packed_kv", 0, w->cross},
                        {"attention_mask", 0, r->mask},       {"spans", 0, r->spans},    {"labels", 0, r->labels},
                        {"sentence", 0, r->sentence},         {"logprob", 1, NULL}};
    set_symbol(w, q->batch, r->rows);
    set_symbol(w, q->target, r->targets);
    int code = moec_cli_call(c, w->in.score, w->sym, bind, 8, NULL);
    const float *logprob = bind[7].at;
    if (!code && !logprob)
        code = moec_cli_error(c, NULL, 0, "function 'score' has no output 'logprob'");
    for (int64_t i = 0; !code && logprob && i < r->count; i++) {
        score[i] = 0;
        for (int64_t k = 0; k < r->targets; k++)
            if (r->labels[i * r->targets + k] != MOEC_IGNORED)
                score[i] += (double)logprob[i * r->targets + k];
    }
    moec_mem_free(bind[7].at);
    return code;
}

static int score_all(moec_window *w) {
    int64_t all = 0, example = 0, choice = 0;
    int code = EXIT_DONE;
    for (int64_t i = 0; i < w->count; i++)
        all += w->x[i].end.n;
    w->score = moec_mem_new((size_t)all, sizeof *w->score);
    if (!w->score)
        return moec_cli_no_memory(w->c);
    for (int64_t done = 0; !code && done < all; done += w->batch) {
        Rows r = {.example = example, .choice = choice};
        code = rows_make(w, &r, all - done);
        if (!code)
            code = rows_score(w, &r, w->score + done);
        for (int64_t i = 0; i < r.count; i++)
            next_row(w, &example, &choice);
        rows_free(&r);
        moec_progress_tell(w->progress, 0);
    }
    return code;
}

int moec_window_score(moec_window *w) {
    int code = encode(w);
    return code ? code : score_all(w);
}

/* ---- open and close ---- */

int moec_window_open(moec_window *w, moec_cli *c, const moec_eval_options *o, moec_progress *progress) {
    *w = (moec_window){.c = c, .o = o, .progress = progress};
    const moec_seq2seq *q = c->program->seq2seq;
    int64_t lo, hi;
    if (q->sentence_width && !w->o->sentence)
        return moec_cli_error(c, NULL, 0, "the adapter's routers read sentence vectors: give --sentence");
    moec_cli_range(c, q->batch, q->encode, "input_ids", 0, &lo, &hi);
    if (w->o->batch > hi)
        return moec_cli_error(c, NULL, 0, "--batch is %lld, the model was compiled for at most %lld",
                              (long long)w->o->batch, (long long)hi);
    w->batch = w->o->batch ? w->o->batch : DEFAULT_BATCH < hi ? DEFAULT_BATCH : hi;
    w->x = moec_mem_new((size_t)w->batch, sizeof *w->x);
    return w->x ? EXIT_DONE : moec_cli_no_memory(c);
}

void moec_window_close(moec_window *w) {
    for (int64_t i = 0; w->x && i < w->batch; i++)
        moec_eval_example_free(&w->x[i]);
    moec_mem_free(w->x);
    w->x = NULL;
}
