/* Lines of a file: a window over the file that grows to the longest line met. */
#define _POSIX_C_SOURCE 200809L

#include "jsonl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 1 << 18 };

moec_status moec_jsonl_open(moec_jsonl *r, const char *path, moec_sink sink) {
    int standard = !strcmp(path, "-");
    uint64_t size;
    *r = (moec_jsonl){.name = standard ? "stdin" : path, .fd = STDIN_FILENO};
    moec_status s = standard ? MOEC_OK : moec_file_open(path, MOEC_JSONL_FILE, &r->fd, &size, sink);
    if (s)
        return s;
    r->p = moec_mem_new(WINDOW, 1);
    r->room = WINDOW;
    if (r->p)
        return MOEC_OK;
    moec_jsonl_close(r);
    return moec_fail(sink, MOEC_E_MEMORY, r->name, "out of memory");
}

void moec_jsonl_close(moec_jsonl *r) {
    if (r->fd != STDIN_FILENO)
        moec_file_close(r->fd);
    moec_mem_free(r->p);
    r->p = NULL;
    r->fd = STDIN_FILENO;
}

/* Reads more behind what is there; sets ended at the end of the file. */
static moec_status fill(moec_jsonl *r, moec_sink sink) {
    if (r->at > 0) {
        memmove(r->p, r->p + r->at, r->end - r->at);
        r->end -= r->at;
        r->at = 0;
    }
    if (r->end == r->room) {
        unsigned char *p = moec_mem_grow(r->p, r->room * 2);
        if (!p)
            return moec_fail(sink, MOEC_E_MEMORY, r->name, "out of memory");
        r->p = p;
        r->room *= 2;
    }
    ssize_t got;
    do
        got = read(r->fd, r->p + r->end, r->room - r->end);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return moec_fail(sink, MOEC_E_IO, r->name, "cannot be read: %s", strerror(errno));
    r->ended = got == 0;
    r->end += (size_t)got;
    r->read += (uint64_t)got;
    if (r->read > MOEC_JSONL_FILE)
        return moec_fail(sink, MOEC_E_IO, r->name, "has more than the %llu bytes allowed",
                         (unsigned long long)MOEC_JSONL_FILE);
    return MOEC_OK;
}

/* Finds the end of the line at r->at: *n bytes before it. More than a line may have: MOEC_JSONL_LINE + 1. */
static moec_status find_end(moec_jsonl *r, size_t *n, moec_sink sink) {
    size_t searched = 0;
    for (;;) {
        const unsigned char *line = r->p + r->at,
                            *end = memchr(line + searched, '\n', r->end - r->at - searched);
        searched = end ? (size_t)(end - line) : r->end - r->at;
        *n = searched > MOEC_JSONL_LINE ? MOEC_JSONL_LINE + 1 : searched;
        if (end || r->ended || searched > MOEC_JSONL_LINE)
            return MOEC_OK;
        moec_status s = fill(r, sink);
        if (s)
            return s;
    }
}

/* Drops what is left of a line that was too long. */
static moec_status drop_rest(moec_jsonl *r, moec_sink sink) {
    moec_status s = MOEC_OK;
    const unsigned char *end;
    while (!s && !(end = memchr(r->p + r->at, '\n', r->end - r->at)) && !r->ended) {
        r->at = r->end;
        s = fill(r, sink);
    }
    r->at = s || !end ? r->end : (size_t)(end - r->p) + 1;
    r->cut = 0;
    return s;
}

static int is_blank(const unsigned char *p, size_t n) {
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t' || p[n - 1] == '\r'))
        n--;
    return n == 0;
}

static moec_status check_line(const moec_jsonl *r, const unsigned char *p, size_t n, moec_sink sink) {
    if (n > MOEC_JSONL_LINE)
        return moec_fail_at(sink, MOEC_E_FORMAT, r->name, r->line, "the line has more than %d bytes",
                            MOEC_JSONL_LINE);
    if (r->line == 1 && n >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3))
        return moec_fail_at(sink, MOEC_E_FORMAT, r->name, r->line,
                            "begins with a byte order mark: save the file as UTF-8 without one");
    if (memchr(p, 0, n))
        return moec_fail_at(sink, MOEC_E_FORMAT, r->name, r->line, "the line holds a NUL byte");
    return MOEC_OK;
}

moec_status moec_jsonl_next(moec_jsonl *r, unsigned char **text, size_t *n, moec_sink sink) {
    *text = NULL;
    *n = 0;
    r->blank = 0;
    moec_status s = r->cut ? drop_rest(r, sink) : MOEC_OK;
    while (!s && !(s = find_end(r, n, sink)) && !(r->ended && r->at == r->end)) {
        unsigned char *line = r->p + r->at;
        r->line++;
        r->cut = *n > MOEC_JSONL_LINE;
        r->at += *n;
        r->at += !r->cut && r->at < r->end; /* the end of line */
        if (!is_blank(line, r->cut ? 0 : *n) || r->cut) {
            s = check_line(r, line, *n, sink);
            *text = s ? NULL : line;
            return s;
        }
        if (!r->blank)
            r->blank = r->line;
    }
    return s;
}
