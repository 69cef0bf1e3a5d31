/* Reading training data: files of JSON lines into one block of tokens and a table of examples. A line is read
 * into three lists first and added when all of it is right. */
#include "dataset.h"
#include "jsonl.h"

#include <string.h>

/* Sums and quotients of weights stay far from overflow in double, single weights in float. */
static const double LEAST_WEIGHT = 1e-30, MOST_WEIGHT = 1e30;

/* ---- growing arrays ---- */

/* Room for `more` elements behind n; false when there is no memory. */
static int make_room(void *array, int64_t n, int64_t more, size_t size, int64_t *room) {
    void **p = array;
    int64_t want = *room ? *room : 64;
    if (more <= *room - n)
        return 1;
    while (want - n < more) {
        if (want > INT64_MAX / 4)
            return 0;
        want += want / 2;
    }
    if ((uint64_t)want > SIZE_MAX / size)
        return 0;
    void *grown = moec_mem_grow(*p, (size_t)want * size);
    if (!grown)
        return 0;
    *p = grown;
    *room = want;
    return 1;
}

typedef struct Ids {
    int64_t *id;
    int64_t n, room;
} Ids;

static int push(Ids *g, int64_t v) {
    if (!make_room(&g->id, g->n, 1, sizeof *g->id, &g->room))
        return 0;
    g->id[g->n++] = v;
    return 1;
}

/* ---- task names ---- */

int64_t moec_dataset_tasks(const moec_dataset *d) {
    return (int64_t)d->task.count;
}

const char *moec_dataset_task(const moec_dataset *d, int64_t task, size_t *n) {
    return moec_names_get(&d->task, (size_t)task, n);
}

/* ---- a line ---- */

typedef struct Line {
    moec_dataset *set;
    const moec_dataset_options *o;
    moec_sink sink;
    const char *file;
    int64_t number;
    Ids source, target, mask;
    const char *source_key, *target_key; /* where they came from; NULL: not met */
    int masked;
    double weight;
    const char *task; /* in the line */
    size_t task_length;
} Line;

#define REFUSE(l, ...) moec_fail_at((l)->sink, MOEC_E_FORMAT, (l)->file, (l)->number, __VA_ARGS__)

static moec_status no_memory(const Line *l) {
    return moec_fail(l->sink, MOEC_E_MEMORY, l->file, "out of memory");
}

static moec_status json_error(const Line *l, const moec_json *j) {
    if (!strcmp(j->error, "out of memory")) /* no fault of the line's: it must not be skipped */
        return no_memory(l);
    return REFUSE(l, "column %llu: %s", (unsigned long long)j->at + 1, j->error);
}

static moec_status read_ids(Line *l, moec_json *j, const char *key, Ids *g) {
    moec_json_event e = moec_json_next(j);
    if (e != MOEC_JSON_ARRAY && e != MOEC_JSON_ERROR)
        return REFUSE(l, "%s is not an array of integers", key);
    while (e != MOEC_JSON_ERROR && (e = moec_json_next(j)) == MOEC_JSON_INTEGER)
        if (!push(g, j->integer))
            return no_memory(l);
    if (e == MOEC_JSON_ERROR) /* a number, no memory is taken for it */
        return REFUSE(l, "%s: column %llu: %s", key, (unsigned long long)j->at + 1, j->error);
    return e == MOEC_JSON_ARRAY_END ? MOEC_OK : REFUSE(l, "%s holds something that is no integer", key);
}

static moec_status read_text(Line *l, moec_json *j, const char *key, Ids *g) {
    const moec_dataset_options *o = l->o;
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return json_error(l, j);
    if (e != MOEC_JSON_STRING)
        return REFUSE(l, "%s is not a string", key);
    if (!o->encode)
        return REFUSE(l, "%s is text, but there is no tokenizer: give input_ids and labels", key);
    int64_t n = o->encode(o->encode_ctx, j->string, j->length, g->id, g->room);
    if (n == MOEC_DATA_NO_TEXT)
        return MOEC_E_OPEN;
    if (n < 0)
        return REFUSE(l, "%s is not UTF-8 or too long", key);
    if (n > g->room) {
        if (!make_room(&g->id, 0, n, sizeof *g->id, &g->room))
            return no_memory(l);
        n = o->encode(o->encode_ctx, j->string, j->length, g->id, n);
    }
    g->n = n < g->room ? n : g->room;
    return MOEC_OK;
}

static moec_status read_source_ids(Line *l, moec_json *j, const char *key) {
    return read_ids(l, j, key, &l->source);
}

static moec_status read_source_text(Line *l, moec_json *j, const char *key) {
    moec_status s = read_text(l, j, key, &l->source);
    if (!s && !l->o->input_eos && l->source.n && l->source.id[l->source.n - 1] == l->o->eos)
        l->source.n--;
    return s;
}

static moec_status read_target_ids(Line *l, moec_json *j, const char *key) {
    moec_status s = read_ids(l, j, key, &l->target);
    while (!s && l->target.n > 0 && l->target.id[l->target.n - 1] == MOEC_IGNORED)
        l->target.n--;
    return s;
}

static moec_status read_target_text(Line *l, moec_json *j, const char *key) {
    return read_text(l, j, key, &l->target);
}

static moec_status read_mask(Line *l, moec_json *j, const char *key) {
    l->masked = 1;
    moec_status s = read_ids(l, j, key, &l->mask);
    for (int64_t i = 0; i < l->mask.n && !s; i++)
        if (l->mask.id[i] != 0 && l->mask.id[i] != 1)
            s = REFUSE(l, "%s holds %lld: only 0 and 1 are allowed", key, (long long)l->mask.id[i]);
    return s;
}

static moec_status read_task(Line *l, moec_json *j, const char *key) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return json_error(l, j);
    if (e != MOEC_JSON_STRING)
        return REFUSE(l, "%s is not a string", key);
    l->task = j->string;
    l->task_length = j->length;
    return MOEC_OK;
}

static moec_status read_weight(Line *l, moec_json *j, const char *key) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return json_error(l, j);
    if (e != MOEC_JSON_INTEGER && e != MOEC_JSON_REAL)
        return REFUSE(l, "%s is not a number", key);
    if (!(j->real >= LEAST_WEIGHT && j->real <= MOST_WEIGHT))
        return REFUSE(l, "%s is %g: it must be a number from %g to %g", key, j->real, LEAST_WEIGHT,
                      MOST_WEIGHT);
    l->weight = j->real;
    return MOEC_OK;
}

typedef enum Role { SOURCE, TARGET, OTHER } Role;

static const struct Key {
    const char *name;
    Role role;
    moec_status (*read)(Line *l, moec_json *j, const char *key);
} keys[] = {{"input_ids", SOURCE, read_source_ids}, {"inputs", SOURCE, read_source_text},
            {"labels", TARGET, read_target_ids},    {"targets", TARGET, read_target_text},
            {"attention_mask", OTHER, read_mask},   {"task", OTHER, read_task},
            {"weight", OTHER, read_weight}};
enum { KEYS = sizeof keys / sizeof *keys };

static const struct Key *find_key(const moec_json *j) {
    for (int k = 0; k < KEYS; k++)
        if (strlen(keys[k].name) == j->length && !memcmp(keys[k].name, j->string, j->length))
            return &keys[k];
    return NULL;
}

static moec_status read_key(Line *l, moec_json *j, const struct Key *k) {
    if (k->role != OTHER) {
        const char **met = k->role == SOURCE ? &l->source_key : &l->target_key;
        if (*met)
            return REFUSE(l, "%s and %s exclude each other", *met, k->name);
        *met = k->name;
    }
    return k->read(l, j, k->name);
}

static moec_status read_object(Line *l, moec_json *j) {
    moec_json_event e = moec_json_next(j);
    if (e == MOEC_JSON_ERROR)
        return json_error(l, j);
    if (e != MOEC_JSON_OBJECT)
        return REFUSE(l, "is not a JSON object with input_ids and labels, or inputs and targets");
    while ((e = moec_json_next(j)) == MOEC_JSON_KEY) {
        const struct Key *k = find_key(j);
        moec_status s = MOEC_OK;
        if (k)
            s = read_key(l, j, k);
        else if (!moec_json_skip(j, moec_json_next(j)))
            e = MOEC_JSON_ERROR;
        if (s)
            return s;
        if (e == MOEC_JSON_ERROR)
            break;
    }
    return e == MOEC_JSON_ERROR || moec_json_next(j) == MOEC_JSON_ERROR ? json_error(l, j) : MOEC_OK;
}

/* ---- what a line must be ---- */

/* Joins the mask to the input: hidden tokens become negative, those at the end go. */
static moec_status apply_mask(Line *l) {
    Ids *g = &l->source;
    if (!l->masked)
        return MOEC_OK;
    if (strcmp(l->source_key, "input_ids") != 0)
        return REFUSE(l, "attention_mask goes with input_ids, not with %s", l->source_key);
    if (l->mask.n != g->n)
        return REFUSE(l, "attention_mask holds %lld entries, input_ids %lld tokens", (long long)l->mask.n,
                      (long long)g->n);
    for (int64_t i = 0; i < g->n; i++)
        if (!l->mask.id[i])
            g->id[i] = -1 - g->id[i];
    while (g->n > 0 && g->id[g->n - 1] < 0)
        g->n--;
    return MOEC_OK;
}

static moec_status check_vocabulary(const Line *l, const Ids *g, const char *key, int64_t also) {
    for (int64_t i = 0; i < g->n; i++)
        if ((g->id[i] < 0 || g->id[i] >= l->o->vocab) && g->id[i] != also)
            return REFUSE(l, "%s: token id %lld is outside the vocabulary of %lld", key, (long long)g->id[i],
                          (long long)l->o->vocab);
    return MOEC_OK;
}

/* Cuts to `most` tokens where that is wanted; keep: a token to keep at the end, -1: none. */
static moec_status fit(const Line *l, Ids *g, const char *key, int64_t most, int truncate, int64_t keep,
                       int64_t *cut) {
    if (g->n <= most)
        return MOEC_OK;
    if (!truncate)
        return REFUSE(
            l,
            "%s holds %lld tokens, the model was compiled for at most %lld: shorten it or let it be "
            "truncated",
            key, (long long)g->n, (long long)most);
    int64_t last = g->id[g->n - 1];
    g->n = most;
    if (last == keep)
        g->id[most - 1] = last;
    ++*cut;
    return MOEC_OK;
}

static moec_status check_line(Line *l, int64_t *cut_source, int64_t *cut_target) {
    const moec_dataset_options *o = l->o;
    if (!l->source_key || !l->target_key)
        return REFUSE(l, "has neither %s: a line needs input_ids and labels, or inputs and targets as text",
                      l->source_key ? "labels nor targets" : "input_ids nor inputs");
    moec_status s = check_vocabulary(l, &l->source, l->source_key, 0);
    if (!s)
        s = check_vocabulary(l, &l->target, l->target_key, MOEC_IGNORED);
    if (!s)
        s = apply_mask(l);
    if (!s)
        s = fit(l, &l->source, l->source_key, o->source, o->truncate_inputs, -1, cut_source);
    if (!s)
        s = fit(l, &l->target, l->target_key, o->target, o->truncate_targets, o->eos, cut_target);
    if (s)
        return s;
    int64_t real = 0, seen = 0;
    for (int64_t i = 0; i < l->target.n; i++)
        real += l->target.id[i] != MOEC_IGNORED;
    for (int64_t i = 0; i < l->source.n; i++)
        seen += l->source.id[i] >= 0;
    if (!seen || !real)
        return REFUSE(l, "%s holds no token%s", seen ? l->target_key : l->source_key,
                      (seen ? l->target.n : l->source.n) ? " that counts" : "");
    return MOEC_OK;
}

static moec_status add_example(const Line *l) {
    moec_dataset *d = l->set;
    int64_t n = l->source.n + l->target.n;
    if (!make_room(&d->example, d->examples, 1, sizeof *d->example, &d->example_room) ||
        !make_room(&d->token, d->tokens, n, sizeof *d->token, &d->token_room))
        return no_memory(l);
    size_t task = 0;
    if (l->task && (!moec_names_add(&d->task, l->task, l->task_length, &task) || task > INT32_MAX))
        return no_memory(l);
    moec_data_example x = {d->tokens, (int32_t)l->source.n, (int32_t)l->target.n, (float)l->weight,
                           l->task ? (int32_t)task : -1};
    int32_t *to = d->token + d->tokens;
    for (int64_t i = 0; i < l->source.n; i++)
        *to++ = (int32_t)l->source.id[i];
    for (int64_t i = 0; i < l->target.n; i++)
        *to++ = (int32_t)l->target.id[i];
    d->hash = moec_fnv(d->hash, &x, sizeof x);
    d->hash = moec_fnv(d->hash, d->token + d->tokens, (size_t)n * sizeof *d->token);
    d->example[d->examples++] = x;
    d->tokens += n;
    return MOEC_OK;
}

static moec_status read_line(Line *l, unsigned char *text, size_t n) {
    moec_json j;
    int64_t cut_source = 0, cut_target = 0;
    l->source.n = l->target.n = l->mask.n = 0;
    l->source_key = l->target_key = l->task = NULL;
    l->masked = 0;
    l->weight = 1;
    moec_json_open(&j, text, n);
    moec_status s = read_object(l, &j);
    moec_json_close(&j);
    if (!s)
        s = check_line(l, &cut_source, &cut_target);
    if (!s)
        s = add_example(l);
    l->set->cut_inputs += s ? 0 : cut_source;
    l->set->cut_targets += s ? 0 : cut_target;
    return s;
}

/* ---- files ---- */

static moec_status next_line(Line *l, moec_jsonl *lines, int *done) {
    unsigned char *text;
    size_t n;
    moec_status s = moec_jsonl_next(lines, &text, &n, l->sink);
    *done = !s && !text;
    l->number = lines->line;
    if (s || *done)
        return s;
    if (lines->blank && !l->o->skip_bad) {
        l->number = lines->blank;
        return REFUSE(l, "the line is empty, and it is not the last");
    }
    return read_line(l, text, n);
}

static moec_status read_lines(Line *l, moec_jsonl *lines) {
    moec_dataset *d = l->set;
    int done = 0;
    while (!done) {
        char reason[sizeof d->first_bad] = "";
        moec_sink sink = l->sink;
        if (l->o->skip_bad)
            l->sink = (moec_sink){reason, sizeof reason};
        moec_status s = next_line(l, lines, &done);
        l->sink = sink;
        if (s && (s != MOEC_E_FORMAT || !l->o->skip_bad))
            return reason[0] ? moec_fail(sink, s, NULL, "%s", reason) : s;
        if (s && !d->bad++)
            memcpy(d->first_bad, reason, sizeof reason);
    }
    return MOEC_OK;
}

static moec_status read_file(moec_dataset *d, const moec_data_file *f, const moec_dataset_options *o,
                             moec_sink sink) {
    moec_jsonl lines;
    int64_t first = d->examples, bad = d->bad;
    moec_status s = moec_jsonl_open(&lines, f->path, sink);
    if (s)
        return s;
    Line l = {.set = d, .o = o, .sink = sink, .file = lines.name};
    s = read_lines(&l, &lines);
    moec_jsonl_close(&lines);
    moec_mem_free(l.source.id);
    moec_mem_free(l.target.id);
    moec_mem_free(l.mask.id);
    int64_t count = d->examples - first;
    if (!s && !count && d->bad > bad)
        s = moec_fail(sink, MOEC_E_FORMAT, lines.name, "holds no example: all of its %lld lines are bad",
                      (long long)(d->bad - bad));
    if (!s && !count)
        s = moec_fail(sink, MOEC_E_FORMAT, lines.name, "holds no example");
    if (!s && count > UINT32_MAX)
        s = moec_fail(sink, MOEC_E_RANGE, lines.name, "holds more than %lld examples", (long long)UINT32_MAX);
    d->file[d->files++] = (moec_data_span){first, count, f->weight > 0 ? f->weight : 1, f->cap};
    return s;
}

static moec_status check_request(const moec_data_file *file, int64_t files, const moec_dataset_options *o,
                                 moec_sink sink) {
    if (files < 1 || o->vocab < 1 || o->vocab > INT32_MAX || o->source < 1 || o->source > INT32_MAX ||
        o->target < 1 || o->target > INT32_MAX)
        return MOEC_E_ARGUMENT;
    for (int64_t f = 0; f < files; f++) {
        double w = file[f].weight;
        if (w != 0 && !(w >= LEAST_WEIGHT && w <= MOST_WEIGHT))
            return moec_fail(sink, MOEC_E_RANGE, file[f].path, "its weight %g is not a number from %g to %g",
                             w, LEAST_WEIGHT, MOST_WEIGHT);
        if (file[f].cap < 0)
            return moec_fail(sink, MOEC_E_RANGE, file[f].path, "its cap %lld is negative",
                             (long long)file[f].cap);
    }
    return MOEC_OK;
}

/* Gives back what the arrays grew too much; they stay where they are when that fails. */
static void trim(moec_dataset *d) {
    void *p = moec_mem_grow(d->token, (size_t)d->tokens * sizeof *d->token);
    if (p)
        d->token = p;
    p = moec_mem_grow(d->example, (size_t)d->examples * sizeof *d->example);
    if (p)
        d->example = p;
}

moec_status moec_dataset_open(const moec_data_file *file, int64_t files, const moec_dataset_options *o,
                              moec_dataset *d, moec_sink sink) {
    *d = (moec_dataset){.hash = MOEC_FNV_START};
    moec_status s = check_request(file, files, o, sink);
    if (s)
        return s;
    d->file = moec_mem_new((size_t)files, sizeof *d->file);
    if (!d->file)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    for (int64_t f = 0; f < files && !s; f++)
        s = read_file(d, &file[f], o, sink);
    if (!s)
        trim(d);
    return s;
}

void moec_dataset_close(moec_dataset *d) {
    moec_names_free(&d->task);
    moec_mem_free(d->example);
    moec_mem_free(d->token);
    moec_mem_free(d->file);
    *d = (moec_dataset){0};
}
