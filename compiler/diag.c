/* Diagnostics: collected messages with their codes, printed as lines of text or of JSON.
 *
 * A message keeps its parts until it is printed. Context and text are cleaned when they come in: printable
 * ASCII on one line. The file's name stays as it is, so that JSON can give it whole. */
#include "base.h"

#include "undo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_ERRORS = 8, LINE_BYTES = 1000, SHOW_BYTES = 200, CONTEXT_BYTES = 512, OUT_BYTES = 400 };

typedef struct Message {
    DiagCode code;
    bool error;
    DiagPlace at;
    const char **context;
    size_t n_context;
    const char *text;
} Message;

struct Diag {
    Arena *arena;
    Vec(Message) message;
    Vec(const char *) context;
    size_t errors;
    const char *file; /* of messages that name none */
};

Diag *diag_new(void) {
    Diag *d = mem_alloc(sizeof *d);
    d->arena = arena_new();
    return d;
}

void diag_free(Diag *d) {
    if (!d)
        return;
    vec_free(&d->message);
    vec_free(&d->context);
    arena_free(d->arena);
    mem_free(d);
}

/* ---- collecting -------------------------------------------------------------------------------- */

/* Printable ASCII: UTF-8 of a path or name is escaped with the rest. At most limit + 3 bytes. */
static char *clean(Arena *a, const char *s, size_t n, size_t limit) {
    char *p = arena_alloc(a, limit + 8);
    size_t at = 0, i = 0;
    for (; i < n && at + 4 <= limit; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 32 && c < 127)
            p[at++] = (char)c;
        else
            at += (size_t)snprintf(p + at, 5, "\\%03o", c);
    }
    if (i < n)
        memcpy(p + at, "...", 4);
    return p;
}

const char *diag_show(Diag *d, Str s) {
    return clean(d->arena, s.p ? s.p : "", s.n, SHOW_BYTES);
}

static const char *clean_format(Arena *a, size_t limit, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *all = mem_alloc((size_t)(n < 0 ? 0 : n) + 1);
    vsnprintf(all, (size_t)(n < 0 ? 0 : n) + 1, fmt, ap);
    const char *cleaned = clean(a, all, strlen(all), limit);
    mem_free(all);
    return cleaned;
}

static void report(Diag *d, bool error, DiagCode code, DiagPlace at, const char *fmt, va_list ap) {
    Message m = {.code = code, .error = error, .at = at, .n_context = d->context.count};
    m.at.file = at.file ? at.file : d->file;
    if (m.at.file)
        m.at.file = arena_strndup(d->arena, m.at.file, strlen(m.at.file));
    m.context = arena_copy(d->arena, d->context.item, d->context.count * sizeof *m.context);
    m.text = clean_format(d->arena, LINE_BYTES, fmt, ap);
    vec_push(&d->message, m);
    d->errors += error;
}

bool diag_error(Diag *d, DiagCode code, const char *file, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(d, true, code, (DiagPlace){.file = file}, fmt, ap);
    va_end(ap);
    return false;
}

bool diag_error_at(Diag *d, DiagCode code, DiagPlace at, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(d, true, code, at, fmt, ap);
    va_end(ap);
    return false;
}

void diag_warn(Diag *d, DiagCode code, const char *file, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    report(d, false, code, (DiagPlace){.file = file}, fmt, ap);
    va_end(ap);
}

void diag_default_file(Diag *d, const char *file) {
    d->file = file;
}

void diag_push(Diag *d, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = clean_format(d->arena, CONTEXT_BYTES, fmt, ap);
    va_end(ap);
    vec_push(&d->context, text);
}

void diag_pop(Diag *d) {
    CHECK(d->context.count > 0);
    d->context.count--;
}

size_t diag_errors(const Diag *d) {
    return d->errors;
}

/* ---- printing ------------------------------------------------------------------------------------ */

static DiagFormat format;

void diag_set_format(DiagFormat f) {
    format = f;
}

static void text_add_line(Diag *d, Text *line, const Message *m) {
    Text t = {0};
    text_printf(&t, "%s", m->at.file ? m->at.file : "moec");
    if (m->at.line > 0)
        text_printf(&t, ":%u", m->at.line);
    if (m->at.line > 0 && m->at.column > 0)
        text_printf(&t, ":%u", m->at.column);
    text_printf(&t, ": %s: ", m->error ? "error" : "warning");
    for (size_t i = 0; i < m->n_context; i++)
        text_printf(&t, "%s: ", m->context[i]);
    text_printf(&t, "%s", m->text);
    /* what is cut off is never the code: 3 bytes of dots, 8 of the code, the line's end */
    text_printf(line, "%s [" DIAG_CODE "]", clean(d->arena, t.p, t.n, LINE_BYTES - 3 - 8 - 1), (int)m->code);
    text_free(&t);
}

static void text_add_json(Text *t, const Message *m) {
    text_printf(t,
                "{\"severity\":\"%s\",\"code\":\"" DIAG_CODE "\",\"file\":", m->error ? "error" : "warning",
                (int)m->code);
    if (m->at.file)
        text_json(t, str_c(m->at.file));
    else
        text_printf(t, "null");
    if (m->at.line > 0)
        text_printf(t, ",\"line\":%u", m->at.line);
    if (m->at.line > 0 && m->at.column > 0)
        text_printf(t, ",\"column\":%u", m->at.column);
    for (size_t i = 0; i < m->n_context; i++) {
        text_printf(t, i == 0 ? ",\"context\":[" : ",");
        text_json(t, str_c(m->context[i]));
    }
    text_printf(t, m->n_context > 0 ? "],\"message\":" : ",\"message\":");
    text_json(t, str_c(m->text));
    text_printf(t, "}");
}

static void print(Diag *d, const Message *m) {
    Text t = {0};
    if (format == DIAG_FORMAT_JSON)
        text_add_json(&t, m);
    else
        text_add_line(d, &t, m);
    fprintf(stderr, "%s\n", t.p);
    text_free(&t);
}

void diag_flush(Diag *d) {
    size_t shown = 0;
    for (size_t i = 0; i < d->message.count; i++) {
        const Message *m = &d->message.item[i];
        /* the last line tells how many are left */
        if (m->error && ++shown >= SHOWN_ERRORS && d->errors > SHOWN_ERRORS) {
            char text[64];
            snprintf(text, sizeof text, "and %zu more errors", d->errors - (SHOWN_ERRORS - 1));
            print(d, &(Message){.code = DIAG_MORE_ERRORS, .error = true, .text = text});
            break;
        }
        print(d, m);
    }
    d->message.count = 0;
    d->errors = 0;
}

/* Printed without taking memory. */
_Noreturn static void end_with(int code, const char *text) {
    if (format == DIAG_FORMAT_JSON) {
        char quoted[2 * OUT_BYTES + 1], *to = quoted;
        for (const char *s = text; *s; *to++ = *s++)
            if (*s == '"' || *s == '\\')
                *to++ = '\\';
        *to = 0;
        fprintf(stderr, "{\"severity\":\"error\",\"code\":\"" DIAG_CODE "\",\"file\":null,\"message\":\"%s\"}\n", code, quoted);
    } else
        fprintf(stderr, "moec: error: %s [" DIAG_CODE "]\n", text, code);
    undo_all();
    exit(1);
}

void diag_out_of_memory(const char *doing, size_t wanted, size_t used, const char *option) {
    char text[OUT_BYTES] = "out of memory";
    size_t n = strlen(text);
    if (option)
        n = (size_t)snprintf(text, sizeof text, "%.60s", option);
    if (*doing)
        n += (size_t)snprintf(text + n, sizeof text - n, ": %s", doing);
    if (wanted < SIZE_MAX)
        snprintf(text + n, sizeof text - n, " wants %zu bytes more, %zu are in use", wanted, used);
    end_with(option ? DIAG_MEMORY_LIMIT : DIAG_NO_MEMORY, text);
}

void diag_end(DiagCode code, const char *what, const char *why) {
    char text[OUT_BYTES];
    snprintf(text, sizeof text, "%.40s: %.200s", what, why);
    for (char *s = text; *s; s++)
        if (*s < 32 || *s > 126)
            *s = '?';
    end_with(code, text);
}
