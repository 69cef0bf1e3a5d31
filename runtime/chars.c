/* Text that grows as it is written. One test of `failed` at the end is enough. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int make_room(moec_chars *c, size_t more) {
    if (c->room - c->n > more)
        return 1;
    size_t room = c->room ? c->room : 256;
    while (room - c->n <= more && room < SIZE_MAX / 4)
        room *= 2;
    char *p = room - c->n > more ? moec_mem_grow(c->p, room) : NULL;
    if (!p) {
        c->failed = 1;
        return 0;
    }
    c->p = p;
    c->room = room;
    return 1;
}

void moec_chars_put(moec_chars *c, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0)
        c->failed = 1;
    else if (!c->failed && make_room(c, (size_t)n))
        c->n += (size_t)vsnprintf(c->p + c->n, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
}

void moec_chars_json(moec_chars *c, const char *s) {
    size_t worst = strlen(s);
    if (c->failed || worst > SIZE_MAX / 8 || !make_room(c, 6 * worst + 2)) {
        c->failed = 1;
        return;
    }
    c->p[c->n++] = '"';
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            c->p[c->n++] = '\\';
        if ((unsigned char)*s < 0x20)
            c->n += (size_t)snprintf(c->p + c->n, 7, "\\u%04x", (unsigned char)*s);
        else
            c->p[c->n++] = *s;
    }
    c->p[c->n++] = '"';
    c->p[c->n] = 0;
}
