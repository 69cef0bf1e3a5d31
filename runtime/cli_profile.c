/* --profile of the command line: what was measured, as a table on standard error and as JSON. */
#include "cli_profile.h"

#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Rows of the profile, or several put together. */
typedef struct Line {
    moec_profile_row r;
    uint32_t sites; /* calls in the program that it stands for */
    uint32_t at;    /* the first of them */
} Line;

typedef struct Lines {
    Line *item;
    uint32_t count;
    uint64_t total; /* nanoseconds */
} Lines;

/* ---- putting rows together ---- */

typedef int Same(const moec_profile_row *a, const moec_profile_row *b);

static int same_call(const moec_profile_row *a, const moec_profile_row *b) {
    (void)a, (void)b;
    return 0;
}

static int same_kernel(const moec_profile_row *a, const moec_profile_row *b) {
    return a->kernel_number == b->kernel_number;
}

static int same_function(const moec_profile_row *a, const moec_profile_row *b) {
    return a->function == b->function;
}

static void add(Line *l, const moec_profile_row *r) {
    l->sites++;
    l->r.calls += r->calls;
    l->r.nanoseconds += r->nanoseconds;
    l->r.flops += r->flops;
    l->r.bytes += r->bytes;
    if (!l->r.origin[0])
        l->r.origin = r->origin;
}

static int by_time(const void *a, const void *b) {
    const Line *x = a, *y = b;
    if (x->r.nanoseconds != y->r.nanoseconds)
        return x->r.nanoseconds < y->r.nanoseconds ? 1 : -1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* item NULL: no memory. */
static Lines lines_of(const moec_instance *m, Same *same) {
    uint32_t n = moec_profile_rows(m->program);
    Lines l = {moec_mem_new(n, sizeof *l.item), 0, 0};
    for (uint32_t i = 0; l.item && i < n; i++) {
        moec_profile_row r;
        uint32_t k = same == same_call ? l.count : 0;
        moec_profile_read(m, i, &r);
        l.total += r.nanoseconds;
        while (k < l.count && !same(&l.item[k].r, &r))
            k++;
        if (k < l.count) {
            add(&l.item[k], &r);
            continue;
        }
        l.item[l.count++] = (Line){r, 1, i};
    }
    if (l.item)
        qsort(l.item, l.count, sizeof *l.item, by_time);
    return l;
}

/* A function was called as often as its first kernel. */
static uint64_t function_calls(const moec_instance *m, const Line *l) {
    moec_profile_row r;
    moec_profile_read(m, l->at, &r);
    return r.calls;
}

/* ---- a table ---- */

static void print_times(FILE *f, uint64_t calls, uint64_t nanoseconds, uint64_t total) {
    fprintf(f, "%9llu  %11.3f  %6.1f  %11.1f", (unsigned long long)calls, (double)nanoseconds / 1e6,
            total ? 100.0 * (double)nanoseconds / (double)total : 0.0, calls ? (double)nanoseconds / 1e3 / (double)calls : 0.0);
}

/* Operations, or bytes, a nanosecond. */
static void print_rate(FILE *f, double work, uint64_t nanoseconds) {
    if (work > 0 && nanoseconds)
        fprintf(f, "  %8.2f", work / (double)nanoseconds);
    else
        fprintf(f, "  %8s", "-");
}

static int name_width(const Lines *l, int each) {
    int width = 8;
    for (uint32_t i = 0; i < l->count; i++) {
        char shown[MOEC_SHOW];
        int n = (int)strlen(l->item[i].r.kernel) + (each ? 1 + (int)strlen(moec_show_c(shown, l->item[i].r.function)) : 0);
        width = n > width ? n : width;
    }
    return width;
}

static void print_functions(const moec_instance *m, const Lines *l, int width, FILE *f) {
    char shown[MOEC_SHOW];
    fprintf(f, "%-*s  %9s  %11s  %6s  %11s\n", width, "function", "calls", "total ms", "%", "mean us");
    for (uint32_t i = 0; i < l->count; i++) {
        uint64_t calls = function_calls(m, &l->item[i]);
        if (!calls)
            continue;
        fprintf(f, "%-*s  ", width, moec_show_c(shown, l->item[i].r.function));
        print_times(f, calls, l->item[i].r.nanoseconds, l->total);
        fprintf(f, "\n");
    }
}

static void print_kernels(const Lines *l, int each, int width, FILE *f) {
    char shown[MOEC_SHOW];
    fprintf(f, "%-*s  %9s  %11s  %6s  %11s  %8s  %8s  %s\n", width, each ? "call" : "kernel", "calls", "total ms", "%",
            "mean us", "GFLOP/s", "GB/s", "origin");
    for (uint32_t i = 0; i < l->count; i++) {
        const moec_profile_row *r = &l->item[i].r;
        int used = 0;
        if (!r->calls)
            continue;
        if (each)
            used = fprintf(f, "%s ", moec_show_c(shown, r->function));
        fprintf(f, "%-*s  ", width - used, r->kernel);
        print_times(f, r->calls, r->nanoseconds, l->total);
        print_rate(f, r->flops, r->nanoseconds);
        print_rate(f, r->bytes, r->nanoseconds);
        fprintf(f, "  %s", r->origin[0] ? moec_show_c(shown, r->origin) : "-");
        if (l->item[i].sites > 1)
            fprintf(f, " x%u", (unsigned)l->item[i].sites);
        fprintf(f, "\n");
    }
}

int moec_profile_print(const moec_instance *m, int each, FILE *f) {
    uint64_t elapsed = moec_profile_elapsed(m);
    Lines functions = lines_of(m, same_function), kernels = lines_of(m, each ? same_call : same_kernel);
    int ok = functions.item && kernels.item;
    if (ok) {
        int width = name_width(&kernels, each);
        fprintf(f, "profile: %.3f ms, of which kernels %.3f ms\n", (double)elapsed / 1e6, (double)kernels.total / 1e6);
        print_functions(m, &functions, width, f);
        print_kernels(&kernels, each, width, f);
    }
    moec_mem_free(functions.item);
    moec_mem_free(kernels.item);
    return ok;
}

/* ---- JSON ---- */

/* A name as the table shows it: whatever bytes it has in the model, the text is JSON. */
static void put_name(moec_chars *c, const char *key, const char *name) {
    char shown[MOEC_SHOW];
    moec_chars_put(c, "\"%s\": ", key);
    moec_chars_json(c, moec_show_c(shown, name));
    moec_chars_put(c, ", ");
}

static void put_kernels(moec_chars *c, const char *key, const Lines *l, int each) {
    moec_chars_put(c, ",\n \"%s\": [", key);
    for (uint32_t i = 0; i < l->count; i++) {
        const moec_profile_row *r = &l->item[i].r;
        moec_chars_put(c, "%s\n  {", i ? "," : "");
        if (each)
            put_name(c, "function", r->function);
        put_name(c, "kernel", r->kernel);
        put_name(c, "origin", r->origin);
        if (!each)
            moec_chars_put(c, "\"sites\": %u, ", (unsigned)l->item[i].sites);
        moec_chars_put(c, "\"calls\": %llu, \"ns\": %llu, \"flops\": %.17g, \"bytes\": %.17g}", (unsigned long long)r->calls,
                       (unsigned long long)r->nanoseconds, r->flops, r->bytes);
    }
    moec_chars_put(c, "]");
}

static void put_all(moec_chars *c, const moec_instance *m, const Lines *functions, const Lines *kernels, const Lines *calls) {
    moec_chars_put(c, "{\"elapsed_ns\": %llu, \"kernels_ns\": %llu,\n \"functions\": [",
                   (unsigned long long)moec_profile_elapsed(m), (unsigned long long)calls->total);
    for (uint32_t i = 0; i < functions->count; i++) {
        const Line *l = &functions->item[i];
        moec_chars_put(c, "%s\n  {", i ? "," : "");
        put_name(c, "function", l->r.function);
        moec_chars_put(c, "\"calls\": %llu, \"ns\": %llu}", (unsigned long long)function_calls(m, l),
                       (unsigned long long)l->r.nanoseconds);
    }
    moec_chars_put(c, "]");
    put_kernels(c, "kernels", kernels, 0);
    put_kernels(c, "calls", calls, 1);
    moec_chars_put(c, "}\n");
}

void moec_profile_json(const moec_instance *m, moec_chars *out) {
    Lines functions = lines_of(m, same_function), kernels = lines_of(m, same_kernel), calls = lines_of(m, same_call);
    if (functions.item && kernels.item && calls.item)
        put_all(out, m, &functions, &kernels, &calls);
    else
        out->failed = 1;
    moec_mem_free(functions.item);
    moec_mem_free(kernels.item);
    moec_mem_free(calls.item);
}

static int write_json(moec_cli *c) {
    moec_chars text = {0};
    int code = EXIT_DONE;
    moec_profile_json(c->instance, &text);
    if (text.failed)
        code = moec_cli_no_memory(c);
    else if (!strcmp(c->o.profile_json, "-"))
        fwrite(text.p, 1, text.n, stdout);
    else
        code = moec_cli_status(c, moec_output_write(&c->profile_file, text.p, text.n, moec_cli_sink(c)));
    moec_mem_free(text.p);
    return code;
}

/* ---- the command line ---- */

static int wanted(const moec_cli *c) {
    return c->o.profile || c->o.profile_calls || c->o.profile_json;
}

int moec_cli_profile_check(const moec_cli *c) {
    if (!wanted(c) || moec_profile_rows(c->program))
        return EXIT_DONE;
    return moec_cli_error(c, NULL, 0, "this program takes no profile: compile it with --profile");
}

int moec_cli_profile_start(moec_cli *c) {
    int code = EXIT_DONE;
    if (!wanted(c))
        return code;
    if (c->o.profile_json && strcmp(c->o.profile_json, "-"))
        code = moec_cli_status(c, moec_output_open(c->o.profile_json, &c->profile_file, moec_cli_sink(c)));
    return code ? code : moec_cli_status(c, moec_profile_start(c->instance));
}

int moec_cli_profile_end(moec_cli *c, int code) {
    int failed = EXIT_DONE;
    if (c->instance && wanted(c) && (code == EXIT_DONE || code > EXIT_BUG)) { /* beyond: a signal asked for the end */
        moec_profile_stop(c->instance);
        fflush(stdout);
        if ((c->o.profile || c->o.profile_calls) && !moec_profile_print(c->instance, c->o.profile_calls, stderr))
            failed = moec_cli_no_memory(c);
        if (!failed && c->o.profile_json)
            failed = write_json(c);
        if (!failed && c->profile_file.path) {
            failed = moec_cli_status(c, moec_output_commit(&c->profile_file, moec_cli_sink(c)));
            c->profile_file.path = NULL;
        }
    }
    if (c->profile_file.path)
        moec_output_abandon(&c->profile_file);
    return code ? code : failed;
}
