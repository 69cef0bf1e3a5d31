/* JSON lines: one JSON document a line, read as a stream. What train, eval and the commands that take --jsonl
 * share.
 *
 *   moec_jsonl_open -> { moec_jsonl_next until it gives no line } -> moec_jsonl_close
 *
 * A line that is bad as such (longer than MOEC_JSONL_LINE, a NUL, a byte order mark) is refused with
 * MOEC_E_FORMAT; reading may go on behind it. Every other failure is final. */
#ifndef MOEC_JSONL_H
#define MOEC_JSONL_H

#include "internal.h"

enum { MOEC_JSONL_LINE = 16 << 20 };        /* bytes of one line */
#define MOEC_JSONL_FILE ((uint64_t)1 << 33) /* bytes of a file */

typedef struct moec_jsonl {
    const char *name;    /* for messages: the path, borrowed, or stdin */
    int64_t line, blank; /* the line given last; the first of the blank lines right before it, 0: none */
    int fd, ended, cut;  /* cut: the rest of a line that was too long comes next */
    uint64_t read;       /* bytes so far */
    unsigned char *p;
    size_t room, at, end; /* p[at..end): read and not given yet */
} moec_jsonl;

/* `path` must outlive the reader; "-": standard input. */
moec_status moec_jsonl_open(moec_jsonl *r, const char *path, moec_sink sink);
void moec_jsonl_close(moec_jsonl *r);
/* The next line that is not blank, without its end, in *text, or NULL behind the last one. The bytes may be
 * changed (moec_json decodes in place) and last until the next call. */
moec_status moec_jsonl_next(moec_jsonl *r, unsigned char **text, size_t *n, moec_sink sink);

#endif
