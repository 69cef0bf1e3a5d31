/* eval: rank classification over choices, and loss, exact match and token accuracy of pairs.
 *
 * Examples are taken a window at a time. Memory depends on the batch and on the longest line, not on the
 * file. The instance is used as it is: a trainer may have changed its adapter.
 *
 * A choice's score is the sum of the log-probabilities of its tokens; the largest wins, the first of equal
 * ones. Generation is greedy; a pair's gets room for its reference and the end of sequence, or, where the
 * reference is text, which other tokens may spell as well, for twice as much and 8 tokens. */
#include "cli_eval.h"

#include <stdio.h>
#include <string.h>

/* A window takes no more examples when their references hold so many tokens or choices together. */
enum { WINDOW_TOKENS = 1 << 20 };

typedef struct Eval {
    moec_cli *c;
    const moec_eval_options *o;
    moec_eval *total;
    moec_window w;
    int64_t generated; /* most tokens a generation may have */
} Eval;

/* ---- choices ---- */

/* The choice with the largest score. The first of those with its tokens: equal ones may differ by rounding.
 */
static int64_t choose(const moec_eval_example *x, double *score, int normalize) {
    for (int64_t k = 0; normalize && k < x->end.n; k++)
        score[k] /= (double)(x->end.at[k] - moec_eval_from(x, k));
    int64_t best = moec_rank(score, x->end.n);
    if (best < 0)
        return best;
    int64_t from = moec_eval_from(x, best), n = x->end.at[best] - from;
    for (int64_t k = 0; k < best; k++) {
        int64_t start = moec_eval_from(x, k);
        if (x->end.at[k] - start == n &&
            !memcmp(x->token.at + start, x->token.at + from, (size_t)n * sizeof(int64_t)))
            return k;
    }
    return best;
}

static moec_group *group_of(moec_tally *t, const moec_eval_example *x) {
    return moec_tally_at(t, x->task, x->task_n, x->prompt, x->prompt_n);
}

static int tell_full(const Eval *e, const moec_tally *t) {
    return t->groups < MOEC_TALLY_GROUPS
               ? moec_cli_no_memory(e->c)
               : moec_cli_error(e->c, NULL, 0, "more than %d pairs of task and prompt", MOEC_TALLY_GROUPS);
}

static int count_choices(Eval *e) {
    double *score = e->w.score;
    for (int64_t i = 0; i < e->w.count; i++) {
        const moec_eval_example *x = &e->w.x[i];
        moec_group *g = group_of(&e->total->choices, x);
        if (!g)
            return tell_full(e, &e->total->choices);
        g->examples++;
        g->right += choose(x, score, e->o->normalize) == x->label;
        score += x->end.n;
    }
    return EXIT_DONE;
}

/* ---- pairs ---- */

static int decode(moec_cli *c, const int64_t *token, int64_t n, char **text, int64_t *bytes) {
    *bytes = c->tokenizer->api->decode(c->text, token, n, NULL, 0);
    *text = *bytes < 0 ? NULL : moec_mem_new((size_t)*bytes + 1, 1);
    if (!*text)
        return moec_cli_no_memory(c);
    c->tokenizer->api->decode(c->text, token, n, *text, *bytes);
    return EXIT_DONE;
}

/* Both sides as the tokenizer spells them: what it does to white space and characters is no difference. */
static int compare_texts(moec_cli *c, const moec_made *m, const moec_eval_example *x, int *same) {
    char *a = NULL, *b = NULL;
    int64_t n = 0, k = 0;
    int code = decode(c, m->token, m->n, &a, &n);
    if (!code)
        code = decode(c, x->token.at, x->token.n, &b, &k);
    *same = !code && m->ended && moec_same_text(a, (size_t)n, b, (size_t)k);
    moec_mem_free(a);
    moec_mem_free(b);
    return code;
}

/* Most tokens made for an example. */
static int64_t room_for(const Eval *e, const moec_eval_example *x) {
    int64_t body = moec_body(x->token.at, x->token.n, e->c->program->seq2seq->eos);
    int64_t room = x->is_text ? 2 * body + 8 : body + 1;
    return room < e->generated ? room : e->generated;
}

static moec_made made_of(const Eval *e, const moec_eval_example *x, const int64_t *token, int64_t steps) {
    int64_t room = room_for(e, x), n = 0;
    room = room < steps ? room : steps;
    while (n < room && token[n] != e->c->program->seq2seq->eos)
        n++;
    return (moec_made){token, n, n < room || n == e->generated};
}

static int stops(const moec_eval_options *o) {
    return o->stop && o->stop();
}

static int each_step(void *ctx, int64_t step, const int64_t *token) {
    const Eval *e = ctx;
    (void)token;
    moec_progress_tell(e->w.progress, step + 1);
    return stops(e->o);
}

static int count_pair(Eval *e, const moec_eval_example *x, double score, const moec_made *m) {
    int64_t eos = e->c->program->seq2seq->eos, of = 0;
    moec_group *g = group_of(&e->total->pairs, x);
    int exact = 0, code = EXIT_DONE;
    if (!g)
        return tell_full(e, &e->total->pairs);
    g->examples++;
    g->loss -= score;
    g->right_tokens += moec_token_hits(m, x->token.at, x->token.n, eos, &of);
    g->tokens += of;
    if (x->is_text)
        code = compare_texts(e->c, m, x, &exact);
    else
        exact = moec_exact(m, x->token.at, x->token.n, eos);
    g->right += exact;
    return code;
}

static int count_pairs(Eval *e) {
    moec_cli *c = e->c;
    int64_t most = 1, steps = 0;
    int code = EXIT_DONE;
    for (int64_t i = 0; i < e->w.count; i++)
        if (room_for(e, &e->w.x[i]) > most)
            most = room_for(e, &e->w.x[i]);
    int64_t *tokens = moec_mem_new((size_t)e->w.rows * (size_t)most, sizeof *tokens);
    if (!tokens)
        return moec_cli_no_memory(c);
    if (!e->o->loss_only) {
        moec_generate_options o = {.max_length = most, .eos = -1};
        moec_cli_sink(c);
        code = moec_cli_status(c, moec_generate(c->instance, e->w.rows, e->w.length, e->w.ids, e->w.mask,
                                                e->w.sentence, &o, tokens, &steps, each_step, e));
    }
    for (int64_t i = 0; !code && i < e->w.count; i++) {
        moec_made m = made_of(e, &e->w.x[i], tokens + i * most, steps);
        code = count_pair(e, &e->w.x[i], e->w.score[i], &m);
    }
    moec_mem_free(tokens);
    return code;
}

/* ---- files ---- */

static int window(Eval *e, moec_eval_kind kind) {
    int code = moec_window_score(&e->w);
    if (!code)
        code = kind == MOEC_EVAL_CHOICES ? count_choices(e) : count_pairs(e);
    moec_window_forget(&e->w);
    e->w.progress->done += (size_t)e->w.count;
    moec_progress_tell(e->w.progress, 0);
    return code;
}

/* Fills the window. */
static int collect(Eval *e, moec_eval_reader *r) {
    int64_t weight = 0;
    int got = 1, code = EXIT_DONE;
    e->w.count = 0;
    while (!code && got && e->w.count < e->w.batch && weight < WINDOW_TOKENS) {
        moec_eval_example *x = &e->w.x[e->w.count];
        code = moec_eval_reader_next(r, x, &got);
        if (code || !got)
            break;
        if (e->o->sentence && x->ordinal >= e->o->sentences)
            return moec_cli_error(e->c, r->lines.name, x->line,
                                  "no sentence vector is left for this line: there are %lld",
                                  (long long)e->o->sentences);
        weight += x->token.n + x->end.n;
        e->w.count++;
    }
    return code;
}

/* Adds the examples of one file to the counters. */
static int eval_file(moec_cli *c, const moec_eval_options *o, const char *path, moec_progress *progress,
                     moec_eval *total) {
    Eval e = {.c = c, .o = o, .total = total, .generated = moec_generate_limit(c->program)};
    moec_eval_reader r = {.c = c};
    int code = moec_window_open(&e.w, c, o, progress);
    if (!code)
        code = moec_eval_reader_open(&r, c, o, path);
    r.progress = progress;
    r.ordinal = total->ordinal;
    while (!code && !stops(o) && !(code = collect(&e, &r)) && e.w.count)
        code = window(&e, r.kind);
    if (!total->skipped)
        memcpy(total->first, r.first, sizeof total->first);
    total->skipped += r.skipped;
    total->ordinal = r.ordinal;
    moec_progress_clear(progress);
    moec_eval_reader_close(&r);
    moec_window_close(&e.w);
    return code;
}

static void eval_free(moec_eval *e) {
    moec_tally_free(&e->choices);
    moec_tally_free(&e->pairs);
}

static int summarize(moec_cli *c, const moec_eval *e, moec_eval_result *out) {
    size_t groups = e->choices.groups > e->pairs.groups ? e->choices.groups : e->pairs.groups;
    double *room = moec_mem_new(groups, sizeof *room);
    if (!room)
        return moec_cli_no_memory(c);
    moec_summary a = moec_tally_all(&e->choices, room), b = moec_tally_all(&e->pairs, room);
    moec_mem_free(room);
    double tokens = b.sum.tokens ? (double)b.sum.tokens : 1;
    *out = (moec_eval_result){.choices = a.sum.examples,
                              .pairs = b.sum.examples,
                              .tokens = b.sum.tokens,
                              .skipped = e->skipped,
                              .accuracy = moec_accuracy(&a.sum),
                              .median = a.median,
                              .mean = a.mean,
                              .loss = b.sum.loss / tokens,
                              .exact_match = moec_accuracy(&b.sum),
                              .token_accuracy = (double)b.sum.right_tokens / tokens};
    return EXIT_DONE;
}

int moec_eval_run(moec_cli *c, const moec_eval_options *o, const char *path, moec_eval_result *out) {
    moec_eval total = {0};
    moec_progress quiet = {0};
    int code = eval_file(c, o, path, &quiet, &total);
    if (!code)
        code = summarize(c, &total, out);
    if (!code)
        out->stopped = stops(o);
    eval_free(&total);
    return code;
}

/* ---- the command ---- */

static int read_sentences(moec_cli *c, moec_npy *a, moec_eval_options *o) {
    int64_t width = c->program->seq2seq->sentence_width;
    if (!c->o.sentence)
        return EXIT_DONE;
    if (o->limit && c->o.data.count > 1)
        return moec_cli_usage(c, "with --limit --sentence takes one --data");
    if (!width)
        return moec_cli_error(c, NULL, 0,
                              "no router of this model reads sentence vectors: --sentence is of no use");
    int code = moec_cli_status(c, moec_npy_read(c->o.sentence, a, moec_cli_sink(c)));
    if (!code && (a->dtype != MOEC_F32 || a->rank != 2 || a->extent[1] != width))
        return moec_cli_error(c, c->o.sentence, 0,
                              "must be f32 [lines, %lld]: one vector for each line of the data",
                              (long long)width);
    o->sentence = code ? NULL : (const void *)a->data;
    o->sentences = code ? 0 : a->extent[0];
    return code;
}

static int check_options(moec_cli *c, moec_eval_options *o) {
    static const char *const ways[] = {[MOEC_NORMALIZE_NONE] = "none", [MOEC_NORMALIZE_LENGTH] = "length"};
    char shown[MOEC_SHOW];
    *o = (moec_eval_options){
        .batch = c->o.batch, .limit = c->o.limit, .input_eos = c->o.input_eos, .skip_bad = c->o.skip_bad};
    if (!c->o.data.count)
        return moec_cli_usage(c, "no examples were given: --data");
    while (c->o.normalize && o->normalize < 2 && strcmp(ways[o->normalize], c->o.normalize))
        o->normalize++;
    return o->normalize < 2 ? EXIT_DONE
                            : moec_cli_usage(c, "--normalize is '%s', not none or length",
                                             moec_show_c(shown, c->o.normalize));
}

int moec_cmd_eval(moec_cli *c) {
    moec_eval total = {0};
    moec_eval_options o;
    moec_npy sentence = {0};
    moec_output file = {.fd = -1};
    moec_progress progress;
    const char *path = c->o.json && strcmp(c->o.json, "-") ? c->o.json : NULL;
    int code = check_options(c, &o);
    if (code)
        return code;
    code = read_sentences(c, &sentence, &o);
    if (!code)
        code = moec_cli_open(c);
    if (!code && path)
        code = moec_cli_status(c, moec_output_open(path, &file, moec_cli_sink(c)));
    moec_progress_start(&progress, 0);
    for (size_t i = 0; !code && i < c->o.data.count; i++)
        code = eval_file(c, &o, c->o.data.item[i], &progress, &total);
    if (!code && o.sentence && !o.limit && total.ordinal != o.sentences)
        code = moec_cli_error(c, c->o.sentence, 0, "holds %lld vectors for %lld lines",
                              (long long)o.sentences, (long long)total.ordinal);
    if (!code)
        code = moec_eval_report(c, &total, &o, path ? &file : NULL);
    if (!code && path)
        code = moec_cli_status(c, moec_output_commit(&file, moec_cli_sink(c)));
    else if (file.path)
        moec_output_abandon(&file);
    if (!code && total.skipped)
        fprintf(stderr, "%s: bad lines skipped: %lld; the first: %s\n", c->name, (long long)total.skipped,
                total.first);
    eval_free(&total);
    moec_mem_free(sentence.file);
    return code;
}
