/* Lines of an evaluation file: questions with choices, or pairs of an input and its reference.
 *
 *   {"inputs": text, "choices": [text, ...], "label": n}            or input_ids, choices_ids (or choices) as
 * arrays of ids
 *   {"inputs": text, "targets": text}                               or input_ids, labels; attention_mask
 *
 * each also "task" and "prompt", strings. Text is encoded with an end of sequence, which inputs lose unless
 * --input-eos asks for it; ids are taken as they are. Labels of -100 at the end are padding, elsewhere
 * ignored tokens. The first line that is an example decides what the file holds. Other keys are other
 * commands' columns. */
#include "cli_eval.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A line's fault that --skip-bad forgives; no exit code. */
enum { LINE_BAD = -1 };

enum { MASK_HOLE = 0, MASK_TOKEN = 1, KEPT = 1 << 16 /* numbers */ };

static int bad(moec_eval_reader *r, const char *fmt, ...) MOEC_FORMAT(2, 3);
static int bad(moec_eval_reader *r, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->why, sizeof r->why, fmt, args);
    va_end(args);
    return LINE_BAD;
}

static int bad_json(moec_eval_reader *r, const moec_json *j) {
    return bad(r, "column %llu: %s", (unsigned long long)j->at + 1, j->error);
}

/* ---- numbers ---- */

static int reserve(moec_numbers *g, int64_t more) {
    int64_t room = g->room ? g->room : 32;
    if (more <= g->room - g->n)
        return 1;
    while (room - g->n < more)
        room *= 2;
    int64_t *at = moec_mem_grow(g->at, (size_t)room * sizeof *at);
    if (!at)
        return 0;
    g->at = at;
    g->room = room;
    return 1;
}

/* One long line is no reason to keep its memory. */
static void empty(moec_numbers *g) {
    g->n = 0;
    if (g->room <= KEPT)
        return;
    moec_mem_free(g->at);
    *g = (moec_numbers){0};
}

static int push(moec_numbers *g, int64_t v) {
    if (!reserve(g, 1))
        return 0;
    g->at[g->n++] = v;
    return 1;
}

void moec_eval_example_free(moec_eval_example *x) {
    moec_mem_free(x->input.at);
    moec_mem_free(x->mask.at);
    moec_mem_free(x->token.at);
    moec_mem_free(x->end.at);
}

/* ---- values ---- */

/* Appends the ids of the array that has just begun. */
static int read_ids(moec_eval_reader *r, moec_json *j, const char *what, moec_numbers *to) {
    moec_json_event e;
    while ((e = moec_json_next(j)) == MOEC_JSON_INTEGER)
        if (!push(to, j->integer))
            return moec_cli_no_memory(r->c);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    return e == MOEC_JSON_ARRAY_END ? EXIT_DONE : bad(r, "%s holds something that is no token id", what);
}

static int too_long(moec_eval_reader *r, const char *what, int64_t n, int64_t most) {
    return bad(r, "%s holds %lld tokens, the model was compiled for at most %lld", what, (long long)n,
               (long long)most);
}

/* Appends the ids of the string that was read last. Whatever is too long even without its end of sequence is
 * not encoded a second time. */
static int read_text(moec_eval_reader *r, const moec_json *j, const char *what, int64_t most,
                     moec_numbers *to) {
    moec_cli *c = r->c;
    int code = moec_cli_open_text(c);
    if (code)
        return code;
    int64_t count = c->tokenizer->api->encode(c->text, j->string, j->length, NULL, 0);
    if (count < 0)
        return bad(r, "%s is not UTF-8 or too long", what);
    if (count - 1 > most)
        return too_long(r, what, count, most);
    if (!reserve(to, count))
        return moec_cli_no_memory(c);
    c->tokenizer->api->encode(c->text, j->string, j->length, to->at + to->n, count);
    to->n += count;
    return EXIT_DONE;
}

/* An array of ids where text is 0, else a string; 2: either, *text says which. */
static int read_sequence(moec_eval_reader *r, moec_json *j, moec_json_event e, const char *what, int *text,
                         int64_t most, moec_numbers *to) {
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    if (e == MOEC_JSON_STRING && *text) {
        *text = 1;
        return read_text(r, j, what, most, to);
    }
    if (e == MOEC_JSON_ARRAY && *text != 1) {
        *text = 0;
        return read_ids(r, j, what, to);
    }
    return bad(r, "%s is %s", what,
               *text == 1   ? "not a string"
               : *text == 0 ? "not an array of token ids"
                            : "neither a string nor an array of token ids");
}

static int read_choices(moec_eval_reader *r, moec_json *j, const char *what, int text, moec_eval_example *x) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    if (e != MOEC_JSON_ARRAY)
        return bad(r, "%s is not an array", what);
    while ((e = moec_json_next(j)) != MOEC_JSON_ARRAY_END) {
        char name[64];
        snprintf(name, sizeof name, "%s[%lld]", what, (long long)x->end.n);
        int code = read_sequence(r, j, e, name, &text, r->target, &x->token);
        if (code)
            return code;
        if (!push(&x->end, x->token.n))
            return moec_cli_no_memory(r->c);
    }
    x->is_text = text == 1;
    return x->end.n ? EXIT_DONE : bad(r, "%s is empty", what);
}

static int read_name(moec_eval_reader *r, moec_json *j, const char *what, char *to, size_t *n) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    if (e != MOEC_JSON_STRING)
        return bad(r, "%s is not a string", what);
    if (j->length > MOEC_EVAL_NAME)
        return bad(r, "%s has more than %d bytes", what, MOEC_EVAL_NAME);
    memcpy(to, j->string, j->length);
    *n = j->length;
    return EXIT_DONE;
}

static int read_label(moec_eval_reader *r, moec_json *j, int64_t *label) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    *label = j->integer;
    return e == MOEC_JSON_INTEGER ? EXIT_DONE : bad(r, "label is not an integer");
}

/* ---- lines ---- */

typedef enum Key {
    INPUT_IDS,
    INPUTS,
    MASK,
    LABELS,
    TARGETS,
    CHOICES,
    CHOICES_IDS,
    LABEL,
    TASK,
    PROMPT,
    KEYS
} Key;

enum {
    IN_CHOICES = 1 << MOEC_EVAL_CHOICES,
    IN_PAIRS = 1 << MOEC_EVAL_PAIRS,
    IN_BOTH = IN_CHOICES | IN_PAIRS
};

/* Choices are read, to be refused, among pairs too. */
static const struct {
    const char *name;
    int kinds; /* where the key means something */
    Key rival; /* the key of the same meaning, or itself */
} keys[KEYS] = {
    [INPUT_IDS] = {"input_ids", IN_BOTH, INPUTS},
    [INPUTS] = {"inputs", IN_BOTH, INPUT_IDS},
    [MASK] = {"attention_mask", IN_BOTH, MASK},
    [LABELS] = {"labels", IN_PAIRS, TARGETS},
    [TARGETS] = {"targets", IN_PAIRS, LABELS},
    [CHOICES] = {"choices", IN_BOTH, CHOICES_IDS},
    [CHOICES_IDS] = {"choices_ids", IN_BOTH, CHOICES},
    [LABEL] = {"label", IN_CHOICES, LABEL},
    [TASK] = {"task", IN_BOTH, TASK},
    [PROMPT] = {"prompt", IN_BOTH, PROMPT},
};

static Key key_of(const moec_json *j) {
    int k = 0;
    while (k < KEYS && !(strlen(keys[k].name) == j->length && !memcmp(keys[k].name, j->string, j->length)))
        k++;
    return (Key)k;
}

static int read_value(moec_eval_reader *r, moec_json *j, Key k, moec_eval_kind kind, moec_eval_example *x) {
    int text = k == INPUTS || k == TARGETS, code;
    const char *name = keys[k].name;
    if (kind == MOEC_EVAL_PAIRS && (k == CHOICES || k == CHOICES_IDS))
        return bad(r, "%s: the lines before are pairs with targets, and a file holds one kind", name);
    switch (k) {
    case INPUT_IDS:
    case INPUTS:
        code = read_sequence(r, j, moec_json_next(j), name, &text, r->source, &x->input);
        if (!code && text && !r->o->input_eos)
            x->input.n = moec_body(x->input.at, x->input.n, r->c->program->seq2seq->eos);
        return code;
    case MASK:
        text = 0;
        return read_sequence(r, j, moec_json_next(j), name, &text, r->source, &x->mask);
    case LABELS:
    case TARGETS:
        x->is_text = text;
        return read_sequence(r, j, moec_json_next(j), name, &text, r->target, &x->token);
    case CHOICES:
    case CHOICES_IDS:
        return read_choices(r, j, name, k == CHOICES ? 2 : 0, x);
    case LABEL:
        return read_label(r, j, &x->label);
    case TASK:
        return read_name(r, j, name, x->task, &x->task_n);
    default:
        return read_name(r, j, name, x->prompt, &x->prompt_n);
    }
}

/* seen: a bit for each key met. */
static int read_keys(moec_eval_reader *r, moec_json *j, moec_eval_kind kind, moec_eval_example *x,
                     unsigned *seen) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return bad_json(r, j);
    if (e != MOEC_JSON_OBJECT)
        return bad(r, "is not a JSON object");
    while ((e = moec_json_next(j)) == MOEC_JSON_KEY) {
        Key k = key_of(j);
        int code = EXIT_DONE;
        if (k == KEYS || !(keys[k].kinds >> kind & 1)) {
            if (!moec_json_skip(j, moec_json_next(j)))
                return bad_json(r, j);
            continue;
        }
        if (keys[k].rival != k && *seen >> keys[k].rival & 1)
            return bad(r, "%s and %s exclude each other", keys[k].name, keys[keys[k].rival].name);
        *seen |= 1u << k;
        if ((code = read_value(r, j, k, kind, x)))
            return code;
    }
    return e == MOEC_JSON_ERROR || moec_json_next(j) == MOEC_JSON_ERROR ? bad_json(r, j) : EXIT_DONE;
}

/* What a line is by its keys, read from a copy because reading changes it. A line that is no JSON is found
 * out later. */
static int find_kind(moec_eval_reader *r, const unsigned char *line, size_t n, moec_eval_kind *kind) {
    unsigned char *copy = moec_mem_new(n, 1);
    moec_json j;
    if (!copy)
        return moec_cli_no_memory(r->c);
    memcpy(copy, line, n);
    moec_json_open(&j, copy, n);
    *kind = MOEC_EVAL_PAIRS;
    moec_json_event e = moec_json_next(&j);
    while (e == MOEC_JSON_OBJECT && moec_json_next(&j) == MOEC_JSON_KEY) {
        Key k = key_of(&j);
        if (k == CHOICES || k == CHOICES_IDS)
            *kind = MOEC_EVAL_CHOICES;
        if (!moec_json_skip(&j, moec_json_next(&j)))
            break;
    }
    moec_json_close(&j);
    moec_mem_free(copy);
    return EXIT_DONE;
}

/* ---- checks ---- */

static int check_ids(moec_eval_reader *r, const char *what, const int64_t *id, int64_t n, int64_t most,
                     int ignored) {
    const moec_seq2seq *q = r->c->program->seq2seq;
    int64_t real = 0;
    for (int64_t i = 0; i < n; i++) {
        real += id[i] != MOEC_IGNORED;
        if ((id[i] < 0 || id[i] >= q->vocab) && !(ignored && id[i] == MOEC_IGNORED))
            return bad(r, "%s: token id %lld is outside the vocabulary of %lld", what, (long long)id[i],
                       (long long)q->vocab);
    }
    if (!real)
        return bad(r, "%s holds no token", what);
    if (n > most)
        return too_long(r, what, n, most);
    return EXIT_DONE;
}

static int check_mask(moec_eval_reader *r, const moec_eval_example *x) {
    int64_t real = 0;
    if (x->mask.n != x->input.n)
        return bad(r, "attention_mask has %lld entries for %lld tokens of input", (long long)x->mask.n,
                   (long long)x->input.n);
    for (int64_t i = 0; i < x->mask.n; i++) {
        if (x->mask.at[i] != MASK_HOLE && x->mask.at[i] != MASK_TOKEN)
            return bad(r, "attention_mask holds something that is neither 0 nor 1");
        real += x->mask.at[i];
    }
    return real ? EXIT_DONE : bad(r, "attention_mask leaves no token of the input");
}

static int check_choices(moec_eval_reader *r, const moec_eval_example *x, unsigned seen, int64_t most) {
    const char *what = keys[seen >> CHOICES_IDS & 1 ? CHOICES_IDS : CHOICES].name;
    if (!(seen >> LABEL & 1))
        return bad(r, "has no label: the place of the right choice, from 0");
    if (x->label < 0 || x->label >= x->end.n)
        return bad(r, "label is %lld of %lld %s", (long long)x->label, (long long)x->end.n, what);
    for (int64_t k = 0, from = 0; k < x->end.n; from = x->end.at[k++]) {
        char name[64];
        snprintf(name, sizeof name, "%s[%lld]", what, (long long)k);
        int64_t n = x->end.at[k] - from;
        int code = check_ids(r, name, n ? x->token.at + from : NULL, n, most, 0);
        if (code)
            return code;
    }
    return EXIT_DONE;
}

static int check(moec_eval_reader *r, moec_eval_example *x, moec_eval_kind kind, unsigned seen) {
    int64_t most = r->target;
    int code;
    if (!(seen & (1u << INPUTS | 1u << INPUT_IDS)))
        return bad(r, "has neither inputs nor input_ids");
    if (kind == MOEC_EVAL_CHOICES && !(seen & (1u << CHOICES | 1u << CHOICES_IDS)))
        return bad(r, "has no choices: the lines before have them, and a file holds one kind");
    if (kind == MOEC_EVAL_PAIRS && !(seen & (1u << LABELS | 1u << TARGETS)))
        return bad(r, "has neither targets nor labels nor choices");
    code = check_ids(r, keys[seen >> INPUTS & 1 ? INPUTS : INPUT_IDS].name, x->input.at, x->input.n,
                     r->source, 0);
    if (!code && seen >> MASK & 1)
        code = check_mask(r, x);
    if (code || kind == MOEC_EVAL_CHOICES)
        return code ? code : check_choices(r, x, seen, most);
    while (x->token.n > 0 && x->token.at[x->token.n - 1] == MOEC_IGNORED)
        x->token.n--;
    code = check_ids(r, keys[seen >> TARGETS & 1 ? TARGETS : LABELS].name, x->token.at, x->token.n, most, 1);
    return !code && !push(&x->end, x->token.n) ? moec_cli_no_memory(r->c) : code;
}

/* ---- files ---- */

static int read_line(moec_eval_reader *r, unsigned char *line, size_t n, moec_eval_example *x) {
    moec_eval_kind kind = r->kind;
    int code = kind ? EXIT_DONE : find_kind(r, line, n, &kind);
    unsigned seen = 0;
    moec_json j;
    if (code)
        return code;
    moec_numbers *all[] = {&x->input, &x->mask, &x->token, &x->end};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        empty(all[i]);
    x->task_n = x->prompt_n = 0;
    x->is_text = 0;
    x->label = 0;
    moec_json_open(&j, line, n);
    code = read_keys(r, &j, kind, x, &seen);
    moec_json_close(&j);
    if (!code)
        code = check(r, x, kind, seen);
    while (!code && x->mask.n < x->input.n)
        if (!push(&x->mask, MASK_TOKEN))
            code = moec_cli_no_memory(r->c);
    if (!code)
        r->kind = kind;
    return code;
}

static int64_t most_of(const moec_cli *c, int symbol, int function, const char *input) {
    int64_t lo, hi;
    moec_cli_range(c, symbol, function, input, 1, &lo, &hi);
    return hi;
}

int moec_eval_reader_open(moec_eval_reader *r, moec_cli *c, const moec_eval_options *o, const char *path) {
    const moec_seq2seq *q = c->program->seq2seq;
    *r = (moec_eval_reader){.c = c, .o = o};
    r->source = most_of(c, q->source, q->encode, "input_ids");
    r->target = most_of(c, q->target, q->score, "labels");
    return moec_cli_status(c, moec_jsonl_open(&r->lines, path, moec_cli_sink(c)));
}

void moec_eval_reader_close(moec_eval_reader *r) {
    moec_jsonl_close(&r->lines);
}

/* Counts a line that is passed over, or reports it. message: the whole line to print, NULL: made of r->why.
 */
static int refuse(moec_eval_reader *r, const char *message) {
    if (!r->o->skip_bad) {
        moec_progress_clear(r->progress);
        return message ? moec_cli_status(r->c, MOEC_E_FORMAT)
                       : moec_cli_error(r->c, r->lines.name, r->lines.line, "%s", r->why);
    }
    if (!r->skipped++) {
        char shown[MOEC_SHOW];
        if (message)
            snprintf(r->first, sizeof r->first, "%.*s", (int)sizeof r->first - 1, message);
        else
            snprintf(r->first, sizeof r->first, "%s:%lld: %.600s", moec_show_path(shown, r->lines.name),
                     (long long)r->lines.line, r->why);
    }
    return EXIT_DONE;
}

int moec_eval_reader_next(moec_eval_reader *r, moec_eval_example *x, int *got) {
    int code = EXIT_DONE;
    *got = 0;
    while (!code && !*got && !(r->o->limit && r->taken == r->o->limit)) {
        unsigned char *line;
        size_t n;
        moec_status s = moec_jsonl_next(&r->lines, &line, &n, moec_cli_sink(r->c));
        if (s && s != MOEC_E_FORMAT)
            return moec_cli_status(r->c, s);
        if (!s && !line)
            break;
        x->line = r->lines.line;
        x->ordinal = r->ordinal++;
        if (s) {
            code = refuse(r, r->c->message);
            continue;
        }
        if (r->lines.blank && !r->o->skip_bad) {
            moec_progress_clear(r->progress);
            return moec_cli_error(r->c, r->lines.name, r->lines.blank,
                                  "the line is empty, and it is not the last");
        }
        code = read_line(r, line, n, x);
        if (code == LINE_BAD)
            code = refuse(r, NULL);
        else if (!code)
            *got = 1, r->taken++;
    }
    if (code || *got || r->taken)
        return code;
    return r->skipped ? moec_cli_error(r->c, r->lines.name, 0,
                                       "holds no example but bad ones; the first: %.700s", r->first)
                      : moec_cli_error(r->c, r->lines.name, 0, "holds no example");
}
