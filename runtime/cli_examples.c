/* Inputs of a command: --ids, --text and --jsonl, all read and checked before any work begins. */
#include "cli.h"
#include "jsonl.h"

#include <string.h>

typedef struct Growing {
    int64_t *id;
    int64_t n, room;
} Growing;

static int push(Growing *g, int64_t v) {
    if (g->n == g->room) {
        int64_t room = g->room ? g->room * 2 : 32;
        int64_t *id = moec_mem_grow(g->id, (size_t)room * sizeof *id);
        if (!id)
            return 0;
        g->id = id;
        g->room = room;
    }
    g->id[g->n++] = v;
    return 1;
}

/* What an id list is called in messages, and where it stands. */
typedef struct Place {
    const char *file, *what;
    int64_t line;
} Place;

void moec_cli_range(const moec_cli *c, int symbol, int function, const char *input, int axis, int64_t *lo,
                    int64_t *hi) {
    const moec_program *p = c->program;
    *lo = *hi = 0;
    if (symbol >= 0) {
        *lo = p->symbol[symbol].lo;
        *hi = p->symbol[symbol].hi;
        return;
    }
    int v = function < 0 ? -1 : moec_find_input(&p->function[function], input);
    if (v < 0 || p->function[function].value[v].rank <= axis)
        return;
    int64_t e[MOEC_RANK], sym[MOEC_SYMBOLS];
    moec_symbols_low(p, sym);
    p->function[function].shape(sym, (uint32_t)v, e);
    *lo = *hi = e[axis];
}

static int check_ids(moec_cli *c, Place at, const Growing *g, int64_t most) {
    const moec_seq2seq *q = c->program->seq2seq;
    if (g->n == 0)
        return moec_cli_error(c, at.file, at.line, "%s holds no token", at.what);
    if (g->n > most)
        return moec_cli_error(c, at.file, at.line,
                              "%s holds %lld tokens, the model was compiled for at most %lld", at.what,
                              (long long)g->n, (long long)most);
    for (int64_t i = 0; i < g->n; i++)
        if (g->id[i] < 0 || g->id[i] >= q->vocab)
            return moec_cli_error(c, at.file, at.line, "%s: token id %lld is outside the vocabulary of %lld",
                                  at.what, (long long)g->id[i], (long long)q->vocab);
    return EXIT_DONE;
}

static int64_t most_input(const moec_cli *c) {
    int64_t lo, hi;
    moec_cli_range(c, c->program->seq2seq->source, c->program->seq2seq->encode, "input_ids", 1, &lo, &hi);
    return hi;
}

static int64_t most_target(const moec_cli *c) {
    int64_t lo, hi;
    moec_cli_range(c, c->program->seq2seq->target, c->program->seq2seq->score, "labels", 1, &lo, &hi);
    return hi;
}

/* "5 9, 12" */
static int parse_list(moec_cli *c, Place at, const char *s, Growing *g) {
    while (*s) {
        char word[32], shown[MOEC_SHOW];
        size_t n = strcspn(s, " ,\t\n");
        int64_t v = 0;
        if (n >= sizeof word)
            return moec_cli_error(c, at.file, at.line, "%s: '%s' is no token id", at.what,
                                  moec_show(shown, s, n));
        memcpy(word, s, n);
        word[n] = 0;
        if (n && !moec_cli_integer(word, &v))
            return moec_cli_error(c, at.file, at.line, "%s: '%s' is no token id", at.what,
                                  moec_show(shown, s, n));
        if (n && !push(g, v))
            return moec_cli_no_memory(c);
        s += n + (s[n] != 0);
    }
    return EXIT_DONE;
}

static int encode_text(moec_cli *c, Place at, const char *s, size_t n, Growing *g) {
    int code = moec_cli_open_text(c);
    if (code)
        return code;
    int64_t count = c->tokenizer->api->encode(c->text, s, n, NULL, 0);
    if (count < 0)
        return moec_cli_error(c, at.file, at.line, "%s is not UTF-8 or too long", at.what);
    g->id = moec_mem_new((size_t)count, sizeof *g->id);
    if (!g->id)
        return moec_cli_no_memory(c);
    g->n = g->room = count;
    c->tokenizer->api->encode(c->text, s, n, g->id, count);
    return EXIT_DONE;
}

static moec_example *add(moec_examples *e) {
    if (e->count == e->room) {
        size_t room = e->room ? e->room * 2 : 16;
        moec_example *item = moec_mem_grow(e->item, room * sizeof *item);
        if (!item)
            return NULL;
        e->item = item;
        e->room = room;
    }
    e->item[e->count] = (moec_example){.line = 0};
    return &e->item[e->count++];
}

static int add_argument(moec_cli *c, moec_examples *out, const char *value, int is_text, const char *target) {
    moec_example *x = add(out);
    if (!x)
        return moec_cli_no_memory(c);
    Growing input = {0}, wanted = {0};
    Place at = {NULL, is_text ? "--text" : "--ids", 0};
    int code = is_text ? encode_text(c, at, value, strlen(value), &input) : parse_list(c, at, value, &input);
    x->is_text = is_text;
    x->input = (moec_ids){input.id, input.n};
    if (!code)
        code = check_ids(c, at, &input, most_input(c));
    if (!code && target) {
        at.what = "--targets";
        code = parse_list(c, at, target, &wanted);
        x->target = (moec_ids){wanted.id, wanted.n};
        if (!code)
            code = check_ids(c, at, &wanted, most_target(c));
    }
    return code;
}

/* ---- JSON lines ---- */

static int read_json_ids(moec_cli *c, Place at, moec_json *j, Growing *g) {
    moec_json_event e = moec_json_next(j);
    if (e != MOEC_JSON_ARRAY && e != MOEC_JSON_ERROR)
        return moec_cli_error(c, at.file, at.line, "%s is not an array of token ids", at.what);
    while (e != MOEC_JSON_ERROR && (e = moec_json_next(j)) == MOEC_JSON_INTEGER)
        if (!push(g, j->integer))
            return moec_cli_no_memory(c);
    if (e == MOEC_JSON_ERROR)
        return moec_cli_error(c, at.file, at.line, "column %llu: %s", (unsigned long long)j->at + 1,
                              j->error);
    return e == MOEC_JSON_ARRAY_END
               ? EXIT_DONE
               : moec_cli_error(c, at.file, at.line, "%s holds something that is no token id", at.what);
}

static int read_json_text(moec_cli *c, Place at, moec_json *j, Growing *g) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return moec_cli_error(c, at.file, at.line, "column %llu: %s", (unsigned long long)j->at + 1,
                              j->error);
    return e == MOEC_JSON_STRING ? encode_text(c, at, j->string, j->length, g)
                                 : moec_cli_error(c, at.file, at.line, "%s is not a string", at.what);
}

static int key_is(const moec_json *j, const char *s) {
    return strlen(s) == j->length && !memcmp(s, j->string, j->length);
}

/* A place among --adapter, or one of its files. */
static int read_adapter(moec_cli *c, Place at, moec_json *j, int32_t *slot) {
    const moec_strings *given = &c->o.adapter;
    char shown[MOEC_SHOW];
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return EXIT_DONE; /* the caller's to tell */
    if (e == MOEC_JSON_STRING) {
        for (size_t i = 0; i < given->count; i++)
            if (strlen(given->item[i]) == j->length && !memcmp(given->item[i], j->string, j->length)) {
                *slot = (int32_t)i;
                return EXIT_DONE;
            }
        return moec_cli_error(c, at.file, at.line, "adapter '%s' is none that --adapter gives",
                              moec_show(shown, j->string, j->length));
    }
    if (e != MOEC_JSON_INTEGER)
        return moec_cli_error(c, at.file, at.line, "adapter is neither a number nor a file");
    if (j->integer < 0 || j->integer >= moec_larger((int64_t)given->count, 1))
        return moec_cli_error(c, at.file, at.line,
                              "adapter is %lld, --adapter is given %llu times, counted from 0",
                              (long long)j->integer, (unsigned long long)given->count);
    *slot = (int32_t)j->integer;
    return EXIT_DONE;
}

/* Training data may be scored too: labels of -100 at the end stand for padding. */
static void drop_ignored(Growing *g) {
    while (g->n > 0 && g->id[g->n - 1] == -100)
        g->n--;
}

static int read_object(moec_cli *c, Place at, moec_json *j, int with_targets, moec_example *x) {
    Growing input = {0}, wanted = {0};
    int code = EXIT_DONE;
    moec_json_event e = moec_json_next(j);
    if (e != MOEC_JSON_ERROR && e != MOEC_JSON_OBJECT)
        return moec_cli_error(c, at.file, at.line, "is not a JSON object");
    while (!code && e != MOEC_JSON_ERROR && (e = moec_json_next(j)) == MOEC_JSON_KEY) {
        static const struct {
            const char *name;
            int target, text;
        } keys[] = {{"input_ids", 0, 0}, {"inputs", 0, 1}, {"labels", 1, 0}, {"targets", 1, 1}};
        size_t k = 0;
        if (key_is(j, "adapter")) {
            code = read_adapter(c, at, j, &x->adapter);
            continue;
        }
        while (k < 4 && !(key_is(j, keys[k].name) && keys[k].target <= with_targets))
            k++;
        if (k == 4) { /* data for other commands */
            if (!moec_json_skip(j, moec_json_next(j)))
                e = MOEC_JSON_ERROR;
            continue;
        }
        Growing *g = keys[k].target ? &wanted : &input;
        at.what = keys[k].name;
        if (g->id)
            code = moec_cli_error(c, at.file, at.line, "%s and %s exclude each other", keys[k].name,
                                  keys[k ^ 1].name);
        else
            code = keys[k].text ? read_json_text(c, at, j, g) : read_json_ids(c, at, j, g);
        x->is_text |= keys[k].text && !keys[k].target;
    }
    drop_ignored(&wanted);
    x->input = (moec_ids){input.id, input.n};
    x->target = (moec_ids){wanted.id, wanted.n};
    if (!code && (e == MOEC_JSON_ERROR || moec_json_next(j) == MOEC_JSON_ERROR))
        code =
            moec_cli_error(c, at.file, at.line, "column %llu: %s", (unsigned long long)j->at + 1, j->error);
    if (code)
        return code;
    at.what = x->is_text ? "inputs" : "input_ids";
    if ((code = check_ids(c, at, &input, most_input(c))) || !with_targets)
        return code;
    at.what = "labels";
    return check_ids(c, at, &wanted, most_target(c));
}

static int read_line(moec_cli *c, Place at, unsigned char *text, size_t n, int with_targets,
                     moec_examples *out) {
    moec_example *x = add(out);
    if (!x)
        return moec_cli_no_memory(c);
    x->line = at.line;
    moec_json j;
    moec_json_open(&j, text, n);
    int code = read_object(c, at, &j, with_targets, x);
    moec_json_close(&j);
    return code;
}

static int read_jsonl(moec_cli *c, int with_targets, moec_examples *out) {
    moec_jsonl lines;
    moec_sink sink = moec_cli_sink(c);
    int code = moec_cli_status(c, moec_jsonl_open(&lines, c->o.jsonl, sink));
    if (code)
        return code;
    for (;;) {
        unsigned char *text;
        size_t n;
        code = moec_cli_status(c, moec_jsonl_next(&lines, &text, &n, sink));
        if (code || !text)
            break;
        code = read_line(c, (Place){lines.name, NULL, lines.line}, text, n, with_targets, out);
        if (code)
            break;
    }
    if (!code && !out->count)
        code = moec_cli_error(c, lines.name, 0, "holds no input");
    moec_jsonl_close(&lines);
    return code;
}

int moec_examples_read(moec_cli *c, int with_targets, moec_examples *out) {
    const moec_cli_options *o = &c->o;
    *out = (moec_examples){0};
    if (!o->ids.count && !o->text.count && !o->jsonl)
        return moec_cli_usage(c, "no input was given: --ids%s or --jsonl", with_targets ? "" : ", --text");
    if (with_targets && o->ids.count != o->targets.count)
        return moec_cli_usage(c, "%llu --ids but %llu --targets", (unsigned long long)o->ids.count,
                              (unsigned long long)o->targets.count);
    for (size_t i = 0; i < o->ids.count; i++) {
        int code = add_argument(c, out, o->ids.item[i], 0, with_targets ? o->targets.item[i] : NULL);
        if (code)
            return code;
    }
    for (size_t i = 0; i < o->text.count; i++) {
        int code = add_argument(c, out, o->text.item[i], 1, NULL);
        if (code)
            return code;
    }
    return o->jsonl ? read_jsonl(c, with_targets, out) : EXIT_DONE;
}

void moec_examples_free(moec_examples *e) {
    for (size_t i = 0; i < e->count; i++) {
        moec_mem_free(e->item[i].input.id);
        moec_mem_free(e->item[i].target.id);
    }
    moec_mem_free(e->item);
}
