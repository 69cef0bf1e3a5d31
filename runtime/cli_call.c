/* What commands that work through many inputs share: progress on a terminal, and running one function of the
 * model with buffers bound by name. */
#define _POSIX_C_SOURCE 200809L

#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- progress ---- */

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void moec_progress_start(moec_progress *p, size_t total) {
    *p = (moec_progress){.tty = isatty(2), .total = total, .next = now_ms() + 1000};
}

void moec_progress_tell(moec_progress *p, int64_t tokens) {
    int64_t now = p && p->tty ? now_ms() : 0;
    if (!p || !p->tty || now < p->next)
        return;
    fprintf(stderr, "\r%llu ", (unsigned long long)p->done);
    if (p->total)
        fprintf(stderr, "of %llu ", (unsigned long long)p->total);
    fprintf(stderr, "inputs");
    if (tokens)
        fprintf(stderr, ", token %lld ", (long long)tokens);
    p->shown = 1;
    p->next = now + 1000;
}

void moec_progress_clear(moec_progress *p) {
    if (!p || !p->shown)
        return;
    fprintf(stderr, "\r%60s\r", "");
    p->shown = 0;
}

/* ---- calling one function with named buffers ---- */

static moec_bind *find(moec_bind *bind, int n, const char *name, int output) {
    for (int k = 0; k < n; k++)
        if (bind[k].output == output && !strcmp(bind[k].name, name))
            return &bind[k];
    return NULL;
}

int moec_cli_call(moec_cli *c, int index, const int64_t *sym, moec_bind *bind, int n,
                  const int32_t *adapter_of_row) {
    if (index < 0)
        return moec_cli_error(c, NULL, 0, "this model has no function for it");
    const moec_function *f = &c->program->function[index];
    uint32_t values = f->n_inputs + f->n_outputs;
    void **arg = moec_mem_new(values, sizeof *arg), **spare = moec_mem_new(values, sizeof *spare);
    if (!arg || !spare) {
        moec_mem_free(spare);
        moec_mem_free(arg);
        return moec_cli_no_memory(c);
    }
    int code = EXIT_DONE;
    for (uint32_t i = 0; !code && i < values; i++) {
        int output = i >= f->n_inputs;
        moec_bind *found = find(bind, n, f->value[i].name, output);
        if (!output) {
            if (!found || !found->at)
                code = moec_cli_error(c, NULL, 0,
                                      "function '%s' needs an input '%s' that this command does not know",
                                      f->name, f->value[i].name);
            else
                arg[i] = found->at;
            continue;
        }
        uint64_t bytes = 0;
        arg[i] = moec_value_bytes(f, i, sym, &bytes) ? moec_mem_new((size_t)bytes, 1) : NULL;
        if (!arg[i])
            code = moec_cli_no_memory(c);
        if (found)
            found->at = arg[i];
        else
            spare[i] = arg[i];
    }
    moec_cli_sink(c);
    if (!code)
        code = moec_cli_status(c, moec_run_rows(c->instance, (uint32_t)index, sym, arg, adapter_of_row));
    for (uint32_t i = 0; i < values; i++)
        moec_mem_free(spare[i]);
    moec_mem_free(spare);
    moec_mem_free(arg);
    return code;
}
