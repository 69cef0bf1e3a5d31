/* run: one function on .npy files. info: what the tables of a program say. */
#define _POSIX_C_SOURCE 200809L

#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- extents ---- */

static void shape_text(char *out, size_t room, const int64_t *e, int rank) {
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < rank && n < room; i++)
        n += (size_t)snprintf(out + n, room - n, "%s%lld", i ? ", " : "", (long long)e[i]);
}

/* Takes a symbol's value from an extent of scale * symbol + base; 0 when it contradicts an earlier one. */
static int solve(const moec_axis *a, int64_t extent, int64_t *sym, unsigned char *known) {
    int64_t rest = extent - a->base;
    if (a->scale == 0 || rest % a->scale)
        return 0;
    int64_t v = rest / a->scale;
    if (known[a->symbol])
        return sym[a->symbol] == v;
    sym[a->symbol] = v;
    known[a->symbol] = 1;
    return 1;
}

/* ---- run ---- */

typedef struct Run {
    moec_cli *c;
    const moec_function *f;
    moec_npy *in;      /* n_inputs */
    const char **path; /* of each input */
    void **arg;
    int64_t sym[MOEC_SYMBOLS];
} Run;

static int read_inputs(Run *r) {
    moec_cli *c = r->c;
    for (size_t i = 0; i < c->o.in.count; i++) {
        const char *a = c->o.in.item[i], *equals;
        char name[256], shown[MOEC_SHOW];
        /* A name may hold '='; a path may too, so the first place that gives an input's name counts. */
        int v = -1;
        for (equals = strchr(a, '='); equals && v < 0; equals = v < 0 ? strchr(equals + 1, '=') : equals) {
            size_t n = (size_t)(equals - a);
            if (n >= sizeof name)
                break;
            memcpy(name, a, n);
            name[n] = 0;
            v = moec_find_input(r->f, name);
            if (v >= 0)
                break;
        }
        if (v < 0)
            return moec_cli_error(c, NULL, 0, "--in %s: function '%s' has no such input",
                                  moec_show_c(shown, a), r->f->name);
        if (r->path[v])
            return moec_cli_error(c, NULL, 0, "--in %s is given twice", moec_show_c(shown, name));
        r->path[v] = equals + 1;
        int code = moec_cli_status(c, moec_npy_read(equals + 1, &r->in[v], moec_cli_sink(c)));
        if (code)
            return code;
        const moec_value *value = &r->f->value[v];
        if (r->in[v].dtype != value->dtype || r->in[v].rank != value->rank)
            return moec_cli_error(c, r->path[v], 0, "holds %s of rank %d, input '%s' is %s of rank %d",
                                  moec_dtype_name(r->in[v].dtype), r->in[v].rank,
                                  moec_show_c(shown, value->name), moec_dtype_name(value->dtype),
                                  value->rank);
    }
    char shown[MOEC_SHOW];
    for (uint32_t v = 0; v < r->f->n_inputs; v++)
        if (!r->path[v])
            return moec_cli_error(c, NULL, 0, "input '%s' is missing: --in NAME=FILE",
                                  moec_show_c(shown, r->f->value[v].name));
    return EXIT_DONE;
}

static int find_symbols(Run *r) {
    const moec_program *p = r->c->program;
    unsigned char known[MOEC_SYMBOLS] = {0};
    char shown[MOEC_SHOW];
    moec_symbols_low(p, r->sym);
    for (uint32_t v = 0; v < r->f->n_inputs; v++)
        for (int axis = 0; axis < r->f->value[v].rank; axis++) {
            moec_axis a = moec_axis_of(p, r->f, v, axis);
            if (a.symbol < 0)
                continue;
            const moec_symbol *s = &p->symbol[a.symbol];
            if (!solve(&a, r->in[v].extent[axis], r->sym, known))
                return moec_cli_error(r->c, r->path[v], 0,
                                      "extent %lld of axis %d contradicts %s = %lld of another input",
                                      (long long)r->in[v].extent[axis], axis, moec_show_c(shown, s->name),
                                      (long long)r->sym[a.symbol]);
            if (r->sym[a.symbol] < s->lo || r->sym[a.symbol] > s->hi)
                return moec_cli_error(r->c, r->path[v], 0,
                                      "%s = %lld is outside %lld..%lld, what the model was compiled for",
                                      moec_show_c(shown, s->name), (long long)r->sym[a.symbol],
                                      (long long)s->lo, (long long)s->hi);
        }
    for (uint32_t v = 0; v < r->f->n_inputs; v++) {
        int64_t e[MOEC_RANK];
        char have[512], want[512];
        r->f->shape(r->sym, v, e);
        if (!memcmp(e, r->in[v].extent, (size_t)r->f->value[v].rank * sizeof *e))
            continue;
        shape_text(have, sizeof have, r->in[v].extent, r->f->value[v].rank);
        shape_text(want, sizeof want, e, r->f->value[v].rank);
        return moec_cli_error(r->c, r->path[v], 0, "has shape [%s], input '%s' needs [%s]", have,
                              moec_show_c(shown, r->f->value[v].name), want);
    }
    return EXIT_DONE;
}

/* Dense data on one side, storage with room for `capacity` along the grown axis on the other. */
typedef struct Layout {
    size_t blocks, dense, stored; /* bytes of a block on either side */
} Layout;

static Layout layout_of(const moec_function *f, uint32_t v, const int64_t *sym) {
    int64_t e[MOEC_RANK];
    const moec_value *value = &f->value[v];
    int axis = value->grow_axis < 0 ? 0 : value->grow_axis;
    Layout l = {1, moec_dtype_bytes(value->dtype), 0};
    f->shape(sym, v, e);
    for (int i = 0; i < axis; i++)
        l.blocks *= (size_t)e[i];
    for (int i = axis + 1; i < value->rank; i++)
        l.dense *= (size_t)e[i];
    l.stored = l.dense * (value->grow_axis < 0 ? value->rank ? (size_t)e[axis] : 1 : (size_t)value->capacity);
    l.dense *= value->rank ? (size_t)e[axis] : 1;
    return l;
}

static int place_arguments(Run *r) {
    const moec_function *f = r->f;
    for (uint32_t v = 0; v < f->n_inputs + f->n_outputs; v++) {
        uint64_t bytes;
        if (f->value[v].alias >= 0) {
            r->arg[v] = r->arg[f->value[v].alias];
            continue;
        }
        if (!moec_value_bytes(f, v, r->sym, &bytes) || !(r->arg[v] = moec_mem_reserve(bytes)))
            return moec_cli_no_memory(r->c);
        if (v >= f->n_inputs)
            continue;
        Layout l = layout_of(f, v, r->sym);
        for (size_t i = 0; i < l.blocks; i++)
            memcpy((char *)r->arg[v] + i * l.stored, r->in[v].data + i * l.dense, l.dense);
    }
    return EXIT_DONE;
}

static void release_arguments(Run *r) {
    const moec_function *f = r->f;
    for (uint32_t v = 0; v < f->n_inputs + f->n_outputs; v++) {
        uint64_t bytes;
        if (f->value[v].alias < 0 && r->arg[v] && moec_value_bytes(f, v, r->sym, &bytes))
            moec_mem_release(r->arg[v], bytes);
    }
}

static int write_output(Run *r, uint32_t v) {
    moec_cli *c = r->c;
    const moec_value *value = &r->f->value[v];
    int64_t e[MOEC_RANK];
    char path[4096], name[128];
    size_t n = 0;
    /* The value's name comes from the model: only harmless characters become part of a path. */
    for (const char *s = value->name; *s && n < 100; s++) {
        int plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
                    *s == '_' || ((*s == '.' || *s == '-') && n);
        name[n++] = plain ? *s : '_';
    }
    name[n] = 0;
    int numbered = strcmp(name, value->name) != 0;
    for (uint32_t k = r->f->n_inputs; k < v; k++)
        numbered |= !strcmp(r->f->value[k].name, value->name);
    if (numbered || n == 0)
        snprintf(name + n, sizeof name - n, "%s%u", n ? "." : "output.", (unsigned)(v - r->f->n_inputs));
    if ((size_t)snprintf(path, sizeof path, "%s/%s.npy", c->o.out, name) >= sizeof path)
        return moec_cli_error(c, c->o.out, 0, "the path is too long");
    moec_output file;
    moec_sink sink = moec_cli_sink(c);
    moec_status s = moec_output_open(path, &file, sink);
    if (s)
        return moec_cli_status(c, s);
    r->f->shape(r->sym, v, e);
    s = moec_npy_begin(&file, value->dtype, value->rank, e, sink);
    Layout l = layout_of(r->f, v, r->sym);
    for (size_t i = 0; !s && i < l.blocks; i++)
        s = moec_output_write(&file, (char *)r->arg[v] + i * l.stored, l.dense, sink);
    if (s)
        moec_output_abandon(&file);
    else
        s = moec_output_commit(&file, sink);
    return moec_cli_status(c, s);
}

static int run_function(Run *r, uint32_t index) {
    moec_cli *c = r->c;
    int code = read_inputs(r);
    if (!code)
        code = find_symbols(r);
    if (!code)
        code = place_arguments(r);
    if (!code)
        code = moec_cli_open(c);
    if (code)
        return code;
    moec_cli_sink(c);
    code = moec_cli_status(c, moec_run(c->instance, index, r->sym, r->arg));
    if (code)
        return code;
    if (mkdir(c->o.out, 0777) < 0 && errno != EEXIST)
        return moec_cli_error(c, c->o.out, 0, "the folder cannot be made: %s", strerror(errno));
    for (uint32_t v = r->f->n_inputs; !code && v < r->f->n_inputs + r->f->n_outputs; v++)
        code = write_output(r, v);
    return code;
}

int moec_cmd_run(moec_cli *c) {
    char shown[MOEC_SHOW];
    int index = moec_find_function(c->program, c->o.positional.item[0]);
    if (index < 0)
        return moec_cli_error(c, NULL, 0, "no function '%s': see info",
                              moec_show_c(shown, c->o.positional.item[0]));
    if (!c->o.out)
        return moec_cli_usage(c, "run needs --out FOLDER");
    Run r = {.c = c, .f = &c->program->function[index]};
    size_t values = (size_t)r.f->n_inputs + r.f->n_outputs;
    r.in = moec_mem_new(r.f->n_inputs, sizeof *r.in);
    r.path = moec_mem_new(r.f->n_inputs, sizeof *r.path);
    r.arg = moec_mem_new(values, sizeof *r.arg);
    int code = r.in && r.path && r.arg ? run_function(&r, (uint32_t)index) : moec_cli_no_memory(c);
    if (r.arg)
        release_arguments(&r);
    for (uint32_t v = 0; r.in && v < r.f->n_inputs; v++)
        moec_mem_free(r.in[v].file);
    moec_mem_free(r.in);
    moec_mem_free(r.path);
    moec_mem_free(r.arg);
    return code;
}

/* ---- info ---- */

static void print_axis(const moec_program *p, const moec_axis *a) {
    char shown[MOEC_SHOW];
    if (a->symbol == -2) {
        printf("?");
        return;
    }
    if (a->symbol < 0) {
        printf("%lld", (long long)a->base);
        return;
    }
    if (a->scale != 1)
        printf("%lld*", (long long)a->scale);
    printf("%s", moec_show_c(shown, p->symbol[a->symbol].name));
    if (a->base)
        printf("%+lld", (long long)a->base);
}

static void print_value(const moec_program *p, const moec_function *f, uint32_t v) {
    char shown[MOEC_SHOW];
    const moec_value *value = &f->value[v];
    printf("    %s %s : %s[", v < f->n_inputs ? "in " : "out", moec_show_c(shown, value->name),
           moec_dtype_name(value->dtype));
    for (int axis = 0; axis < value->rank; axis++) {
        moec_axis a = moec_axis_of(p, f, v, axis);
        printf("%s", axis ? "," : "");
        print_axis(p, &a);
    }
    printf("]");
    if (value->alias >= 0)
        printf(" in the storage of %s", moec_show_c(shown, f->value[value->alias].name));
    if (value->grow_axis >= 0)
        printf(" room for %lld", (long long)value->capacity);
    printf("\n");
}

/* Storage of the caches of step, for the bounds of the program. */
static uint64_t cache_bytes(const moec_program *p) {
    int step = p->seq2seq ? p->seq2seq->step : -1;
    int cross = step < 0 ? -1 : moec_find_input(&p->function[step], "cross_kv");
    return (step < 0 ? 0 : moec_cache_bytes(p, (uint32_t)step, NULL)) +
           (cross < 0 ? 0 : moec_argument_bytes(p, (uint32_t)step, (uint32_t)cross, NULL));
}

static void print_sizes(const moec_program *p) {
    const moec_options one = {.threads = 1};
    printf("bytes: weights %llu%s, arena %llu, scratch %llu a thread, caches %llu\n",
           (unsigned long long)moec_weights_bytes(p), p->embedded ? " (embedded)" : "",
           (unsigned long long)p->arena_bytes, (unsigned long long)moec_scratch_bytes(p, 1),
           (unsigned long long)cache_bytes(p));
    printf("  opened with one thread %llu: of these buffers of decoding %llu, an adapter %llu, derived from "
           "it %llu\n",
           (unsigned long long)moec_open_bytes(p, &one), (unsigned long long)moec_generate_bytes(p),
           (unsigned long long)moec_adapter_bytes(p), (unsigned long long)moec_derived_bytes(p));
#ifndef MOEC_NO_TRAINING
    if (moec_train_gradient_bytes(p) > 0)
        printf("  training: gradients %llu, state of adafactor %llu, adamw %llu, sgd %llu\n",
               (unsigned long long)moec_train_gradient_bytes(p),
               (unsigned long long)moec_train_state_bytes(p, MOEC_ADAFACTOR),
               (unsigned long long)moec_train_state_bytes(p, MOEC_ADAMW),
               (unsigned long long)moec_train_state_bytes(p, MOEC_SGD));
#endif
}

static void print_adapter(const moec_program *p) {
    char shown[MOEC_SHOW];
    if (!p->n_tensors)
        return;
    printf("adapter: %u tensors, %llu bytes\n", (unsigned)p->n_tensors, (unsigned long long)p->adapter_bytes);
    if (p->spec && p->spec[0])
        printf("  spec %s\n", moec_show_c(shown, p->spec));
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const moec_tensor *t = &p->tensor[i];
        char shape[128];
        shape_text(shape, sizeof shape, t->extent, t->rank);
        printf("  %s : %s[%s]\n", moec_show_c(shown, t->name), moec_dtype_name(t->dtype), shape);
    }
}

int moec_cmd_info(moec_cli *c) {
    const moec_program *p = c->program;
    char shown[MOEC_SHOW];
    printf("model %s, hash %016llx\n", moec_show_c(shown, p->name), (unsigned long long)p->weights_hash);
    printf("parameters %llu, trainable %llu (%.4f %%)\n", (unsigned long long)p->parameters,
           (unsigned long long)p->trainable,
           p->parameters ? 100.0 * (double)p->trainable / (double)p->parameters : 0.0);
    print_sizes(p);
    if (p->seq2seq)
        printf("vocabulary %lld, width %lld, pad %lld, eos %lld, start %lld\n", (long long)p->seq2seq->vocab,
               (long long)p->seq2seq->width, (long long)p->seq2seq->pad, (long long)p->seq2seq->eos,
               (long long)p->seq2seq->start);
    if (p->variant && *p->variant)
        printf("variant: %s\n", p->variant);
    printf("tokenizer: %s\n", c->tokenizer ? "yes" : "no");
    for (uint32_t i = 0; i < p->n_symbols; i++)
        printf("symbol %s = %lld..%lld\n", moec_show_c(shown, p->symbol[i].name), (long long)p->symbol[i].lo,
               (long long)p->symbol[i].hi);
    for (uint32_t i = 0; i < p->n_functions; i++) {
        const moec_function *f = &p->function[i];
        uint64_t bytes = moec_activation_bytes(p, i, NULL);
        printf("function %s", moec_show_c(shown, f->name));
        if (bytes < UINT64_MAX)
            printf(", %s%llu bytes of the arena", p->n_places ? "" : "at most ", (unsigned long long)bytes);
        printf("\n");
        for (uint32_t v = 0; v < f->n_inputs + f->n_outputs; v++)
            print_value(p, f, v);
    }
    print_adapter(p);
    return EXIT_DONE;
}
