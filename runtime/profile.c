/* Profiles: what each call of a kernel took, told by marks that the functions of a program set between kernels.
 *
 * The calling thread takes the time, so that of a kernel is its wall time whatever its workers do. What a mark itself
 * takes belongs to no kernel. Nothing is allocated after the instance was opened. */
#define _POSIX_C_SOURCE 200809L

#include "internal.h"

#include <string.h>
#include <time.h>

typedef struct Slot {
    uint64_t calls, nanoseconds;
    double flops, bytes;
} Slot;

struct moec_profile {
    const moec_program *program;
    int running;
    uint64_t started, stopped, last; /* when; last: the newest mark */
    Slot slot[];                     /* n_calls */
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

moec_profile *moec_profile_new(const moec_program *p) {
    moec_profile *r = moec_mem_new(sizeof *r + p->n_calls * sizeof *r->slot, 1);
    if (r)
        r->program = p;
    return r;
}

void moec_profile_free(moec_profile *r) {
    moec_mem_free(r);
}

moec_profile *moec_profile_running(const moec_instance *m) {
    return m->profile && m->profile->running ? m->profile : NULL;
}

/* ---- marks ---- */

void moec_profile_begin(const moec_frame *f) {
    if (f->profile)
        f->profile->last = now();
}

void moec_profile_mark(const moec_frame *f, uint32_t call) {
    moec_profile *r = f->profile;
    int64_t work[2] = {0, 0};
    if (!r)
        return;
    Slot *s = &r->slot[call];
    s->nanoseconds += now() - r->last;
    s->calls++;
    r->program->work(f->sym, r->program->call[call].kernel, work);
    s->flops += (double)work[0];
    s->bytes += (double)work[1];
    r->last = now();
}

/* ---- questions ---- */

uint32_t moec_profile_rows(const moec_program *p) {
    return p ? p->n_calls : 0;
}

moec_status moec_profile_start(moec_instance *m) {
    if (!m || !m->profile)
        return MOEC_E_ARGUMENT;
    moec_profile *r = m->profile;
    memset(r->slot, 0, r->program->n_calls * sizeof *r->slot);
    r->running = 1;
    r->started = now();
    return MOEC_OK;
}

void moec_profile_stop(moec_instance *m) {
    moec_profile *r = m ? moec_profile_running(m) : NULL;
    if (!r)
        return;
    r->running = 0;
    r->stopped = now();
}

uint64_t moec_profile_elapsed(const moec_instance *m) {
    const moec_profile *r = m ? m->profile : NULL;
    return r ? (r->running ? now() : r->stopped) - r->started : 0;
}

moec_status moec_profile_read(const moec_instance *m, uint32_t row, moec_profile_row *out) {
    if (!m || !m->profile || row >= m->program->n_calls || !out)
        return MOEC_E_ARGUMENT;
    const moec_program *p = m->program;
    const moec_call *c = &p->call[row];
    const Slot *s = &m->profile->slot[row];
    *out = (moec_profile_row){.function = c->function < p->n_functions ? p->function[c->function].name : "prepare",
                              .kernel = p->kernel[c->kernel].name,
                              .origin = c->origin,
                              .kernel_number = c->kernel,
                              .calls = s->calls,
                              .nanoseconds = s->nanoseconds,
                              .flops = s->flops,
                              .bytes = s->bytes};
    return MOEC_OK;
}
