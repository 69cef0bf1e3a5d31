/* Diagnostics: one line of printable ASCII whatever the input held. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *moec_show(char *out, const void *s, size_t n) {
    const unsigned char *p = s;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (used > 200) {
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\')
            out[used++] = (char)p[i];
        else
            used += (size_t)snprintf(out + used, 5, "\\%03o", p[i]);
    }
    out[used] = 0;
    return out;
}

const char *moec_show_c(char *out, const char *s) {
    return moec_show(out, s, strlen(s));
}

const char *moec_show_path(char *out, const char *path) {
    size_t n = strlen(path), cut = n > 180 ? n - 180 : 0;
    if (cut)
        memcpy(out, "...", 3);
    moec_show(out + (cut ? 3 : 0), path + cut, n - cut);
    return out;
}

static moec_status fail(moec_sink sink, moec_status s, const char *file, int64_t line, const char *fmt,
                        va_list args) {
    if (!sink.p || !sink.room || sink.p[0])
        return s;
    size_t used = 0;
    if (file) {
        char shown[MOEC_SHOW], number[32] = "";
        if (line)
            snprintf(number, sizeof number, ":%lld", (long long)line);
        int n = snprintf(sink.p, sink.room, "%s%s: error: ", moec_show_path(shown, file), number);
        used = n < 0 ? 0 : (size_t)n < sink.room ? (size_t)n : sink.room - 1;
    }
    vsnprintf(sink.p + used, sink.room - used, fmt, args);
    return s;
}

moec_status moec_fail(moec_sink sink, moec_status s, const char *file, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fail(sink, s, file, 0, fmt, args);
    va_end(args);
    return s;
}

void moec_fail_more(moec_sink sink, const char *fmt, ...) {
    size_t used = sink.p && sink.room ? strlen(sink.p) : 0;
    va_list args;
    if (!used || used >= sink.room)
        return;
    va_start(args, fmt);
    vsnprintf(sink.p + used, sink.room - used, fmt, args);
    va_end(args);
}

moec_status moec_fail_at(moec_sink sink, moec_status s, const char *file, int64_t line, const char *fmt,
                         ...) {
    va_list args;
    va_start(args, fmt);
    fail(sink, s, file, line, fmt, args);
    va_end(args);
    return s;
}

const char *moec_status_text(moec_status s) {
    static const char *const text[MOEC_E_STATUS_COUNT] = {
        "done",
        "a null pointer, or an unknown function or adapter slot",
        "an extent is outside the bounds the model was compiled for",
        "an index in the data (a token id, for instance) is outside its table",
        "a file cannot be opened or is no regular file",
        "a file is not what its name promises",
        "a file belongs to another model or adapter",
        "out of memory",
        "a file cannot be read or written",
        "the loss or a gradient is not a finite number",
    };
    return (int)s >= 0 && s < MOEC_E_STATUS_COUNT ? text[s] : "unknown status";
}
