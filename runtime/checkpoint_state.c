/* state.json of a checkpoint: step, options, the caller's numbers, sizes and hashes of the other files, and
 * at the end a checksum of everything before it. Written and read by one table of options; unknown keys are
 * errors. */
#include "checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 2, DIGITS = 16, STATE_LIMIT = 16 << 20 };

static const char end[] = "\"}\n"; /* behind the checksum's digits */

const char *const moec_part_names[MOEC_PARTS] = {"adapter.safetensors", "optimizer.safetensors"};

static const void *field_at(const moec_train_options *o, const moec_option_field *f) {
    return (const unsigned char *)o + f->offset;
}

/* The shortest text that reads back as the same number. */
static void put_real(moec_chars *c, double v) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    moec_chars_put(c, "%s", text);
}

/* A field's value as JSON. */
static void put_field(moec_chars *c, const moec_train_options *o, const moec_option_field *f) {
    double real;
    int64_t number;
    uint64_t bits;
    unsigned word;
    switch (f->kind) {
    case MOEC_OPT_REAL:
        memcpy(&real, field_at(o, f), sizeof real);
        put_real(c, real);
        return;
    case MOEC_OPT_COUNT:
        memcpy(&number, field_at(o, f), sizeof number);
        moec_chars_put(c, "%" PRId64, number);
        return;
    case MOEC_OPT_WORD:
        memcpy(&word, field_at(o, f), sizeof word);
        moec_chars_json(c, f->words[word]);
        return;
    case MOEC_OPT_BITS:
        memcpy(&bits, field_at(o, f), sizeof bits);
        moec_chars_put(c, "\"%016" PRIx64 "\"", bits);
        return;
    }
}

static void put_state(moec_chars *c, const moec_trainer *t, const moec_standing *p, const moec_part *part) {
    moec_chars_put(
        c, "{\"moec_checkpoint\":%d,\n\"step\":%" PRId64 ",\n\"model\":", VERSION, t->steps);
    moec_chars_json(c, t->m->program->name);
    moec_chars_put(c, ",\n\"program\":\"%016" PRIx64 "\",\n\"options\":{", t->m->program->weights_hash);
    for (size_t i = 0; i < moec_option_field_count; i++) {
        moec_chars_put(c, i ? ",\n\"%s\":" : "\n\"%s\":", moec_option_fields[i].name);
        put_field(c, &t->optimizer.o, &moec_option_fields[i]);
    }
    moec_chars_put(c, "},\n\"agree\":{");
    for (size_t i = 0; i < p->n_agree; i++) {
        moec_chars_put(c, i ? "," : "");
        moec_chars_json(c, p->agree[i].name);
        moec_chars_put(c, ":%" PRId64, p->agree[i].value);
    }
    moec_chars_put(c, "},\n\"position\":[");
    for (size_t i = 0; i < p->n_position; i++)
        moec_chars_put(c, i ? ",%" PRId64 : "%" PRId64, p->position[i]);
    moec_chars_put(c, "],\n\"files\":{");
    for (int i = 0; i < MOEC_PARTS; i++)
        moec_chars_put(c, "%s\n\"%s\":{\"bytes\":%" PRIu64 ",\"hash\":\"%016" PRIx64 "\"}", i ? "," : "",
                       moec_part_names[i], part[i].bytes, part[i].hash);
    moec_chars_put(c, "},\n\"checksum\":\"");
    if (!c->failed)
        moec_chars_put(c, "%016" PRIx64 "%s", moec_fnv(MOEC_FNV_START, c->p, c->n), end);
}

moec_status moec_state_write(const moec_trainer *t, const moec_standing *p, const moec_part *part,
                             const char *path, moec_sink sink) {
    moec_chars c = {0};
    moec_output f;
    put_state(&c, t, p, part);
    moec_status s =
        c.failed ? moec_fail(sink, MOEC_E_MEMORY, path, "out of memory") : moec_output_open(path, &f, sink);
    if (!s && (s = moec_output_write(&f, c.p, c.n, sink)))
        moec_output_abandon(&f);
    else if (!s)
        s = moec_output_commit(&f, sink);
    moec_mem_free(c.p);
    return s;
}

/* ---- reading ---- */

typedef struct Reader {
    const moec_trainer *t;
    moec_standing *p;
    int64_t step;
    moec_part *part;
    size_t agreed;
    const char *path;
    moec_sink other, sink;
    moec_json json;
    char model[MOEC_SHOW], shown[MOEC_SHOW];
} Reader;

static moec_status bad(Reader *r) {
    return moec_fail(r->sink, MOEC_E_FORMAT, r->path, "is no state of a checkpoint at byte %llu: %s",
                     (unsigned long long)r->json.at,
                     r->json.error ? r->json.error : "something else was expected");
}

static void differs(Reader *r, const char *name, const char *was, const char *is) {
    moec_fail(r->other, MOEC_E_MISMATCH, r->path,
              "the run had %s %s, now it is %s: go on with the same, or start another run from its adapter",
              name, was, is);
}

static moec_status next(Reader *r, moec_json_event want) {
    return moec_json_next(&r->json) == want ? MOEC_OK : bad(r);
}

static moec_status read_count(Reader *r, int64_t *v) {
    if (next(r, MOEC_JSON_INTEGER))
        return MOEC_E_FORMAT;
    *v = r->json.integer;
    return MOEC_OK;
}

static moec_status read_bits(Reader *r, uint64_t *v) {
    char again[DIGITS + 1];
    if (next(r, MOEC_JSON_STRING))
        return MOEC_E_FORMAT;
    *v = 0;
    for (size_t i = 0; i < r->json.length && i < DIGITS; i++) {
        unsigned char c = (unsigned char)r->json.string[i];
        *v = *v << 4 | (c <= '9' ? c - (unsigned)'0' : c - (unsigned)'a' + 10);
    }
    snprintf(again, sizeof again, "%016" PRIx64, *v);
    return r->json.length == DIGITS && !memcmp(again, r->json.string, DIGITS) ? MOEC_OK : bad(r);
}

/* The key of the next member, or end of the object (*key empty). */
static moec_status read_key(Reader *r, char key[MOEC_SHOW]) {
    moec_json_event e = moec_json_next(&r->json);
    key[0] = 0;
    if (e == MOEC_JSON_KEY && r->json.length > 0)
        moec_show(key, r->json.string, r->json.length);
    return key[0] || e == MOEC_JSON_OBJECT_END ? MOEC_OK : bad(r);
}

static moec_status read_model(Reader *r) {
    if (next(r, MOEC_JSON_STRING))
        return MOEC_E_FORMAT;
    moec_show(r->model, r->json.string, r->json.length);
    return MOEC_OK;
}

static moec_status read_program(Reader *r) {
    uint64_t hash;
    if (read_bits(r, &hash))
        return MOEC_E_FORMAT;
    const moec_program *p = r->t->m->program;
    if (hash != p->weights_hash)
        moec_fail(r->other, MOEC_E_MISMATCH, r->path,
                  "belongs to another compilation: it is of '%s', hash %016" PRIx64 "; this program is '%s', hash %016" PRIx64
                  ": go on with the program that made it, or start another run from its adapter",
                  r->model, hash, moec_show_c(r->shown, p->name), p->weights_hash);
    return MOEC_OK;
}

static moec_status read_step(Reader *r) {
    return read_count(r, &r->step) || r->step < 0 ? bad(r) : MOEC_OK;
}

static moec_status read_version(Reader *r) {
    int64_t v;
    if (read_count(r, &v))
        return MOEC_E_FORMAT;
    if (v != VERSION)
        return moec_fail(r->sink, MOEC_E_MISMATCH, r->path, "has version %lld, this program reads version %d",
                         (long long)v, VERSION);
    return MOEC_OK;
}

/* Compares a saved field with the run's, in the form in which it was written. */
static moec_status read_field(Reader *r, const moec_option_field *f) {
    const moec_train_options *o = &r->t->optimizer.o;
    size_t begin = r->json.at;
    moec_json_event e = moec_json_next(&r->json);
    if (e != MOEC_JSON_STRING && e != MOEC_JSON_INTEGER && e != MOEC_JSON_REAL)
        return bad(r);
    size_t n = r->json.at - begin;
    moec_chars now = {0};
    put_field(&now, o, f);
    moec_status s = now.failed ? moec_fail(r->sink, MOEC_E_MEMORY, r->path, "out of memory") : MOEC_OK;
    int free_to_change = f->offset == offsetof(moec_train_options, steps) && !moec_schedule_ends(o->schedule);
    if (!s && !free_to_change && (n != now.n || memcmp(r->json.p + begin, now.p, n)))
        differs(r, f->name, moec_show(r->shown, r->json.p + begin, n), now.p);
    moec_mem_free(now.p);
    return s;
}

static moec_status read_options(Reader *r) {
    char key[MOEC_SHOW];
    if (next(r, MOEC_JSON_OBJECT))
        return MOEC_E_FORMAT;
    for (size_t i = 0; i < moec_option_field_count; i++) {
        moec_status s = read_key(r, key);
        if (s || strcmp(key, moec_option_fields[i].name))
            return bad(r);
        if ((s = read_field(r, &moec_option_fields[i])))
            return s;
    }
    return next(r, MOEC_JSON_OBJECT_END);
}

static moec_status read_agree(Reader *r) {
    char key[MOEC_SHOW], was[24], is[24];
    size_t i;
    if (next(r, MOEC_JSON_OBJECT))
        return MOEC_E_FORMAT;
    for (;;) {
        int64_t v;
        if (read_key(r, key))
            return MOEC_E_FORMAT;
        if (!key[0])
            break;
        if (read_count(r, &v))
            return MOEC_E_FORMAT;
        for (i = 0; i < r->p->n_agree && strcmp(r->p->agree[i].name, key); i++)
            ;
        r->agreed += i < r->p->n_agree;
        snprintf(was, sizeof was, "%" PRId64, v);
        snprintf(is, sizeof is, "%" PRId64, i < r->p->n_agree ? r->p->agree[i].value : 0);
        if (i == r->p->n_agree || r->p->agree[i].value != v)
            differs(r, key, was, i < r->p->n_agree ? is : "not given");
    }
    if (r->agreed != r->p->n_agree)
        moec_fail(r->other, MOEC_E_MISMATCH, r->path,
                  "was made by a run with other options: start another run from "
                  "its adapter");
    return MOEC_OK;
}

static moec_status read_position(Reader *r) {
    moec_json_event e;
    if (next(r, MOEC_JSON_ARRAY))
        return MOEC_E_FORMAT;
    for (r->p->n_position = 0; (e = moec_json_next(&r->json)) == MOEC_JSON_INTEGER; r->p->n_position++) {
        if (r->p->n_position == r->p->position_room)
            return bad(r);
        r->p->position[r->p->n_position] = r->json.integer;
    }
    return e == MOEC_JSON_ARRAY_END ? MOEC_OK : bad(r);
}

static moec_status read_files(Reader *r) {
    char key[MOEC_SHOW];
    int64_t bytes;
    if (next(r, MOEC_JSON_OBJECT))
        return MOEC_E_FORMAT;
    for (int i = 0; i < MOEC_PARTS; i++) {
        if (read_key(r, key) || strcmp(key, moec_part_names[i]) || next(r, MOEC_JSON_OBJECT) ||
            read_key(r, key) || strcmp(key, "bytes") || read_count(r, &bytes) || bytes < 0 ||
            read_key(r, key) || strcmp(key, "hash") || read_bits(r, &r->part[i].hash) ||
            next(r, MOEC_JSON_OBJECT_END))
            return bad(r);
        r->part[i].bytes = (uint64_t)bytes;
    }
    return next(r, MOEC_JSON_OBJECT_END);
}

static moec_status read_checksum(Reader *r) {
    return next(r, MOEC_JSON_STRING);
}

static const struct {
    const char *key;
    moec_status (*read)(Reader *r);
} members[] = {
    {"moec_checkpoint", read_version},
    {"step", read_step},
    {"model", read_model},
    {"program", read_program},
    {"options", read_options},
    {"agree", read_agree},
    {"position", read_position},
    {"files", read_files},
    {"checksum", read_checksum},
};

static moec_status read_members(Reader *r) {
    char key[MOEC_SHOW];
    if (next(r, MOEC_JSON_OBJECT))
        return MOEC_E_FORMAT;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        moec_status s = read_key(r, key);
        if (s || strcmp(key, members[i].key))
            return bad(r);
        if ((s = members[i].read(r)))
            return s;
    }
    return next(r, MOEC_JSON_OBJECT_END) || next(r, MOEC_JSON_END) ? MOEC_E_FORMAT : MOEC_OK;
}

static int checksum_holds(const unsigned char *p, size_t n) {
    char digits[DIGITS + sizeof end];
    if (n < sizeof digits - 1)
        return 0;
    size_t body = n - (sizeof digits - 1);
    snprintf(digits, sizeof digits, "%016" PRIx64 "%s", moec_fnv(MOEC_FNV_START, p, body), end);
    return !memcmp(p + body, digits, sizeof digits - 1);
}

moec_status moec_state_read(const moec_trainer *t, moec_standing *p, int64_t *step, moec_part *part,
                            const char *path, moec_sink other, moec_sink sink) {
    Reader r = {.t = t, .p = p, .part = part, .path = path, .other = other, .sink = sink};
    unsigned char *bytes;
    size_t n;
    moec_status s = moec_file_load(path, STATE_LIMIT, &bytes, &n, sink);
    if (s)
        return s;
    if (!checksum_holds(bytes, n)) {
        s = moec_fail(sink, MOEC_E_FORMAT, path, "is damaged: its checksum is another");
    } else {
        moec_json_open(&r.json, bytes, n);
        s = read_members(&r);
        if (s && r.json.no_memory)
            s = MOEC_E_MEMORY;
        moec_json_close(&r.json);
        *step = r.step;
    }
    moec_mem_free(bytes);
    return s;
}
