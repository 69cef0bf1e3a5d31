/* moec info --train: the memory that training takes at the model's bounds, before anything is built. */
#include "build.h"

#include "../plan.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* Largest end of a value of `train` in the arena. */
static int64_t train_arena(const Module *m) {
    const Func *f = module_find(m, "train");
    int64_t most = 0;
    for (uint32_t i = 0; f && i < f->n_nodes; i++) {
        const Attr *place = node_attr(&f->node[i], AT_place);
        for (uint32_t k = 0; place && k < place->ints.n; k++) {
            const Type *t = &f->value[f->node[i].out + k].type;
            int64_t bytes = (int64_t)dtype_bytes(t->dtype), end;
            if (place->ints.v[k] >= 0 && mul_i64(bytes, dim_upper(m->dims, type_count(m->dims, t)), &bytes) &&
                add_i64(place->ints.v[k], bytes, &end) && end > most)
                most = end;
        }
    }
    return most;
}

/* Bytes of the tensors that `train` has a gradient of. */
static int64_t gradient_bytes(const Module *m) {
    const Func *f = module_find(m, "train");
    int64_t sum = 0;
    for (uint32_t i = 0; f && i < f->n_outputs; i++) {
        const Type *t = &f->value[f->output[i]].type;
        if (f->output_name[i].n > 5 && memcmp(f->output_name[i].p, "grad.", 5) == 0)
            sum += dim_upper(m->dims, type_count(m->dims, t)) * (int64_t)dtype_bytes(t->dtype);
    }
    return sum;
}

static void line(Text *t, const char *what, int64_t bytes, const char *note) {
    text_printf(t, "  %-16s %12.1f MiB  %s\n", what, (double)bytes / (1 << 20), note);
}

static void print_plan(const Build *b, Text *t) {
    const Module *m = b->model->m;
    const Image *im = &b->image;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t threads = b->o->threads > 0 ? b->o->threads : cores > 0 ? cores : 1;
    int64_t gradient = gradient_bytes(m), arena = train_arena(m), scratch = im->scratch_bytes * threads;
    int64_t weights = (int64_t)im->weights_bytes, adapter = (int64_t)(im->adapter_bytes + im->derived_bytes);
    text_printf(t, "\nmemory of training at the bounds");
    for (uint32_t i = 0; i < dim_sym_count(m->dims); i++) {
        const DimSym *s = dim_sym_at(m->dims, i);
        if (str_is(s->name, "B") || str_is(s->name, "S") || str_is(s->name, "T"))
            text_printf(t, " %.*s=%" PRId64, (int)s->name.n, s->name.p, s->hi);
    }
    text_printf(t, ", %" PRId64 " threads (--dim sets the bounds)\n", threads);
    line(t, "weights", weights, "mapped from the weights file");
    line(t, "adapter", adapter, "and what is derived from it");
    line(t, "gradients", gradient, "a second time where a step has several micro-batches");
    line(t, "optimiser state", gradient, "adafactor and sgd; adamw: twice that");
    line(t, "activations", arena, "of a batch at the bounds");
    line(t, "scratch", scratch, "of the threads");
    line(t, "total", weights + adapter + 2 * gradient + arena + scratch, "besides program and libraries");
}

bool info_train(const Options *o, Text *t, Diag *d) {
    Model model;
    Build b = {0};
    bool ok = model_load(o, &model, d) && model_passes(&model, o, NULL, NULL, 0, d) &&
              build_open(&b, o, &model, "model", d) && build_program(&b);
    if (ok)
        print_plan(&b, t);
    build_close(&b);
    model_close(&model);
    return ok;
}
