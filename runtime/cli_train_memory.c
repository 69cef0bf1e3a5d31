/* The memory a training run takes, planned before it runs, and what it took in the end.
 *
 * What is reserved costs memory only where it is touched, so the plan counts what the largest batch touches:
 * of the arena the places of values of the functions it calls, of evaluation what they take and give. */
#define _POSIX_C_SOURCE 200809L

#include "cli_train.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const char *const names[MOEC_MEMORY_KINDS] = {
    [MOEC_MEMORY_WEIGHTS] = "weights",
    [MOEC_MEMORY_ADAPTER] = "adapter and derived weights",
    [MOEC_MEMORY_ACTIVATIONS] = "activations",
    [MOEC_MEMORY_SCRATCH] = "scratch of the threads",
    [MOEC_MEMORY_GRADIENTS] = "gradients",
    [MOEC_MEMORY_OPTIMIZER] = "optimiser state",
    [MOEC_MEMORY_DATA] = "data",
    [MOEC_MEMORY_EVALUATION] = "evaluation",
    [MOEC_MEMORY_PROCESS] = "process",
};

/* ---- what it took ---- */

/* The number behind a name in a file of lines `NAME: NUMBER kB`. */
static uint64_t kilobytes(const char *path, const char *name) {
    char line[256];
    unsigned long long v = 0;
    size_t n = strlen(name);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, name, n) && sscanf(line + n, "%llu", &v) == 1)
            break;
    if (f)
        fclose(f);
    return (uint64_t)v << 10;
}

uint64_t moec_memory_now(void) {
    unsigned long long all, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%llu %llu", &all, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* getrusage's also remembers what called this program before it was executed. */
uint64_t moec_memory_peak(void) {
    struct rusage u;
    uint64_t peak = kilobytes("/proc/self/status", "VmHWM:");
    if (peak || getrusage(RUSAGE_SELF, &u))
        return peak;
    return (uint64_t)u.ru_maxrss << 10;
}

const char *moec_bytes_text(char out[MOEC_BYTES_TEXT], uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes / 1024;
    size_t k = 0;
    for (; v >= 1024 && k + 1 < sizeof units / sizeof *units; k++)
        v /= 1024;
    snprintf(out, MOEC_BYTES_TEXT, "%.2f %s", v, units[k]);
    return out;
}

/* ---- the plan ---- */

/* Bytes of one function's outputs, or of one of them. */
static uint64_t outputs_of(const moec_program *p, int index, const char *name, const int64_t *sym) {
    uint64_t total = 0, bytes;
    if (index < 0)
        return 0;
    const moec_function *f = &p->function[index];
    for (uint32_t v = f->n_inputs; v < f->n_inputs + f->n_outputs; v++)
        if ((!name || !strcmp(f->value[v].name, name)) && f->value[v].alias < 0 &&
            moec_value_bytes(f, v, sym, &bytes))
            total += bytes;
    return total;
}

/* Of the caches of decoding: they have room for the program's bounds. Of each stretch along the axis that grows, the
 * pages of what is in use are touched. */
static uint64_t caches_of(const moec_program *p, const int64_t *sym, int64_t made) {
    const moec_function *f = &p->function[p->seq2seq->step];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t total = 0, bytes;
    for (uint32_t v = 0; v < f->n_inputs; v++) {
        const moec_value *x = &f->value[v];
        if (x->grow_axis < 0 || x->capacity <= 0 || !moec_value_bytes(f, v, sym, &bytes) || !bytes)
            continue;
        int64_t extent[MOEC_RANK];
        uint64_t stretch = (uint64_t)x->capacity * moec_dtype_bytes(x->dtype);
        f->shape(sym, v, extent);
        for (int a = x->grow_axis + 1; a < x->rank; a++)
            stretch *= (uint64_t)extent[a];
        uint64_t used = stretch / (uint64_t)x->capacity * (uint64_t)made;
        used = (used + page - 1) / page * page;
        total += bytes / stretch * (used < stretch ? used : stretch);
    }
    return total;
}

/* What evaluation calls: the functions without padding where there are such. */
typedef struct EvalCalls {
    int encode, cross, score, step;
    const char *hidden, *keys;
} EvalCalls;

static EvalCalls eval_calls(const moec_program *p) {
    const moec_seq2seq *q = p->seq2seq;
    return moec_packs(p) ? (EvalCalls){q->encode_packed, q->cross_packed, q->score_packed, q->step_packed, "packed_hidden", "packed_kv"}
                         : (EvalCalls){q->encode, q->cross, q->score, q->step, "hidden", "cross_kv"};
}

static void eval_symbols(const moec_train_run *r, const moec_eval_file *f, int64_t *sym) {
    const moec_program *p = r->c->program;
    int past = p->seq2seq->past;
    moec_symbols_of(p, r->data_options.rows, f->source, f->target, sym);
    if (moec_packs(p) && r->data_options.rows * f->source > 0)
        sym[p->seq2seq->tokens] = r->data_options.rows * f->source;
    if (past >= 0 && f->generated)
        sym[past] = f->generated;
}

/* Of the arena, by the functions that training and evaluation call. */
static uint64_t arena(const moec_train_run *r) {
    const moec_program *p = r->c->program;
    const moec_seq2seq *q = p->seq2seq;
    const EvalCalls e = eval_calls(p);
    moec_eval_file largest = {0};
    for (size_t i = 0; i < r->c->o.eval.count; i++) {
        const moec_eval_file *f = &r->eval[i];
        largest.source = f->source > largest.source ? f->source : largest.source;
        largest.target = f->target > largest.target ? f->target : largest.target;
        largest.generated = f->generated > largest.generated ? f->generated : largest.generated;
    }
    int64_t train[MOEC_SYMBOLS], eval[MOEC_SYMBOLS];
    moec_symbols_of(p, r->rows, r->source, r->target, train);
    eval_symbols(r, &largest, eval);
    const struct {
        int function, is_called;
        const int64_t *sym;
    } call[] = {{q->train, 1, train},
                {q->routers, r->c->o.router_metrics > 0, train},
                {e.encode, r->c->o.eval.count > 0, eval},
                {e.cross, r->c->o.eval.count > 0, eval},
                {e.score, r->c->o.eval.count > 0, eval},
                {e.step, largest.generated > 0, eval}};
    const int64_t **sym = moec_mem_new(p->n_functions, sizeof *sym);
    for (size_t i = 0; sym && i < sizeof call / sizeof *call; i++)
        if (call[i].function >= 0 && call[i].is_called)
            sym[call[i].function] = call[i].sym;
    uint64_t bytes = sym ? moec_arena_bytes(p, sym) : p->arena_bytes;
    moec_mem_free(sym);
    return bytes;
}

/* States of the inputs, twice where the references repeat them padded, and scores; then decoding. */
static uint64_t evaluation(const moec_train_run *r) {
    const moec_program *p = r->c->program;
    const EvalCalls e = eval_calls(p);
    uint64_t most = 0;
    for (size_t i = 0; i < r->c->o.eval.count; i++) {
        const moec_eval_file *f = &r->eval[i];
        int64_t sym[MOEC_SYMBOLS];
        eval_symbols(r, f, sym);
        uint64_t cross = outputs_of(p, e.cross, e.keys, sym), copies = moec_packs(p) ? 1 : 2;
        uint64_t score =
            outputs_of(p, e.encode, e.hidden, sym) + copies * cross + outputs_of(p, e.score, NULL, sym);
        if (f->generated && e.step >= 0)
            score += cross + outputs_of(p, e.step, NULL, sym) + caches_of(p, sym, f->generated);
        most = score > most ? score : most;
    }
    return most;
}

static uint64_t data_bytes(const moec_train_run *r) {
    const moec_dataset *d = &r->set;
    int64_t batch = r->rows * (2 * r->source + 3 * r->target) * (int64_t)sizeof(int64_t);
    return (uint64_t)(d->examples * (int64_t)(sizeof *d->example + sizeof(uint32_t)) +
                      d->tokens * (int64_t)sizeof *d->token + batch) +
           r->sentence.bytes + r->eval_sentence.bytes;
}

void moec_train_plan(moec_train_run *r, uint64_t process) {
    const moec_cli *c = r->c;
    const moec_program *p = c->program;
    moec_memory_plan *m = &r->plan;
    uint64_t blocks = c->o.adapter.count || c->o.resume ? 2 : 1; /* loading goes to a second one */
    *m = (moec_memory_plan){
        {[MOEC_MEMORY_WEIGHTS] = p->weights_bytes,
         [MOEC_MEMORY_ADAPTER] = blocks * p->adapter_bytes + p->derived_bytes,
         [MOEC_MEMORY_ACTIVATIONS] = arena(r),
         [MOEC_MEMORY_SCRATCH] = p->scratch_bytes * (uint64_t)moec_pool_workers(c->instance->pool),
         [MOEC_MEMORY_GRADIENTS] = moec_train_gradient_bytes(p) * (r->data_options.accumulation > 1 ? 2 : 1),
         [MOEC_MEMORY_OPTIMIZER] = moec_train_state_bytes(p, r->o->optimizer),
         [MOEC_MEMORY_DATA] = data_bytes(r),
         [MOEC_MEMORY_EVALUATION] = evaluation(r),
         [MOEC_MEMORY_PROCESS] = process},
        0};
    for (int i = 0; i < MOEC_MEMORY_KINDS; i++)
        m->total += m->bytes[i];
}

void moec_train_plan_print(const moec_memory_plan *p) {
    char text[MOEC_BYTES_TEXT];
    for (int i = 0; i < MOEC_MEMORY_KINDS; i++)
        printf("%-28s %12s\n", names[i], moec_bytes_text(text, p->bytes[i]));
    printf("%-28s %12s\n", "total", moec_bytes_text(text, p->total));
}
