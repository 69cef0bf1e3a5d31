/* Across `derive` no function keeps its signature: what the encoder and the decoder as imported compute is
 * compared with what encode, cross and score make of the same inputs. */
#include "call.h"
#include "verify.h"
#include "../compare.h"

#include <string.h>

struct Derived {
    Arena *a;
    Tensor ids, mask, targets, hidden, logits; /* mask has no data where the encoder takes none */
};

static bool is_states(const Type *t) {
    return t->dtype == DT_F32 && t->rank == 3;
}

static bool is_mask(const Value *v) {
    return memmem(v->name.p, v->name.n, "mask", 4) != NULL;
}

/* Evaluates f on the inputs that are given; the rest is seeded. */
static bool evaluate(const Module *m, const PassOptions *o, const Func *f, const bool *given, Tensor *in,
                     Tensor *out, Arena *a) {
    int64_t *syms = arena_array(a, dim_sym_count(m->dims) + 1, sizeof *syms);
    Diag *quiet = diag_new();
    bool ok =
        complete_inputs(m, o, f, given, in, syms, a, quiet) && func_eval(m, f->id, syms, in, out, a, quiet);
    diag_free(quiet);
    return ok;
}

static bool first_states(const Func *f, const Tensor *out, Tensor *found) {
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (is_states(&f->value[f->output[i]].type)) {
            *found = out[i];
            return true;
        }
    return false;
}

static bool run_encoder(Derived *x, const Module *m, const PassOptions *o, const Func *f) {
    bool *given = arena_array(x->a, f->n_inputs + 1u, sizeof *given), ids = false;
    Tensor *in = arena_array(x->a, f->n_inputs + 1u, sizeof *in),
           *out = arena_array(x->a, f->n_outputs + 1u, sizeof *out);
    if (!evaluate(m, o, f, given, in, out, x->a))
        return false;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (is_mask(v))
            x->mask = in[i];
        else if (v->type.dtype == DT_I64 && v->type.rank == 2 && !ids) {
            x->ids = in[i];
            ids = true;
        }
    }
    return ids && first_states(f, out, &x->hidden);
}

static bool run_decoder(Derived *x, const Module *m, const PassOptions *o, const Func *f) {
    bool *given = arena_array(x->a, f->n_inputs + 1u, sizeof *given), targets = false;
    Tensor *in = arena_array(x->a, f->n_inputs + 1u, sizeof *in),
           *out = arena_array(x->a, f->n_outputs + 1u, sizeof *out);
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        given[i] = is_states(&v->type) || (is_mask(v) && x->mask.data);
        if (given[i])
            in[i] = is_mask(v) ? x->mask : x->hidden;
    }
    if (!evaluate(m, o, f, given, in, out, x->a))
        return false;
    for (uint32_t i = 0; i < f->n_inputs && !targets; i++)
        if (!given[i] && in[i].dtype == DT_I64 && in[i].rank == 2) {
            x->targets = in[i];
            targets = true;
        }
    return targets && first_states(f, out, &x->logits);
}

Derived *derived_before(const Module *m, const PassOptions *o) {
    const Func *encoder = module_find(m, "encoder"), *decoder = module_find(m, "decoder");
    if (!encoder || !decoder)
        return NULL;
    Arena *a = arena_new();
    Derived *x = arena_alloc(a, sizeof *x);
    x->a = a;
    if (run_encoder(x, m, o, encoder) && run_decoder(x, m, o, decoder))
        return x;
    arena_free(a);
    return NULL;
}

/* Runs a derived function on named tensors; its outputs by position. */
static bool run_derived(Derived *x, const Module *m, const PassOptions *o, const char *name,
                        const VerifyInput *known, size_t n, Tensor **out, const Func **f) {
    *f = module_find(m, name);
    if (!*f)
        return false;
    bool *given = arena_array(x->a, (*f)->n_inputs + 1u, sizeof *given);
    Tensor *in = arena_array(x->a, (*f)->n_inputs + 1u, sizeof *in);
    *out = arena_array(x->a, (*f)->n_outputs + 1u, sizeof **out);
    for (uint32_t i = 0; i < (*f)->n_inputs; i++)
        for (size_t k = 0; k < n; k++)
            if (str_is((*f)->value[(*f)->input[i]].name, known[k].name) && known[k].t->data) {
                in[i] = *known[k].t;
                given[i] = true;
            }
    return evaluate(m, o, *f, given, in, *out, x->a);
}

static bool same(const Tensor *got, const Tensor *want, const char *what, const char *was, double tolerance,
                 Diag *d) {
    Departure p = tensors_depart(got, want, 0);
    return p.relative <= tolerance ||
           diag_error(d, DIAG_PARANOID, NULL,
                      "%s departs from %s by %.3g: element %lld was %.9g and is %.9g", what, was, p.relative,
                      (long long)p.at, p.want, p.got);
}

bool derived_after(Derived *x, const Module *m, const PassOptions *o, double tolerance, uint32_t *compared,
                   Diag *d) {
    VerifyInput known[] = {{"input_ids", &x->ids},
                           {"attention_mask", &x->mask},
                           {"decoder_input_ids", &x->targets},
                           {"hidden", &x->hidden},
                           {"cross_kv", NULL}};
    size_t n = sizeof known / sizeof *known - 1;
    const Func *f;
    Tensor *out, *kv;
    *compared = 0;
    if (!run_derived(x, m, o, "encode", known, n, &out, &f))
        return true;
    ++*compared;
    if (!same(&out[0], &x->hidden, "encode", "the encoder", tolerance, d))
        return false;
    if (!run_derived(x, m, o, "cross", known, n, &kv, &f))
        return true;
    known[n].t = &kv[0];
    if (!run_derived(x, m, o, "score", known, n + 1, &out, &f))
        return true;
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (str_is(f->output_name[i], "logits")) {
            ++*compared;
            return same(&out[i], &x->logits, "score", "the decoder", tolerance, d);
        }
    return true;
}

void derived_free(Derived *x) {
    if (x)
        arena_free(x->a);
}
