/* moec verify --per-node: what departs first. The interpreter's results are compared around every pass; then
 * the module that is compiled returns, besides its outputs, the results of every kernel, and these are
 * compared with what the interpreter makes of the same module, in the order of execution.
 *
 * Inputs are those of the golden folder's cases, by name, outputs of functions that ran before (`hidden`,
 * `cross_kv`), and seeded values for the rest. */
#include "call.h"
#include "verify.h"
#include "../compare.h"
#include "../expose.h"
#include "../paranoid.h"
#include "../print.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A tensor that inputs of its name may be. */
typedef struct Pooled {
    Str name;
    Tensor t;
} Pooled;

typedef struct Nodes {
    Verify *v;
    const Options *o;
    Diag *d;
    Model model, against;
    const Module *reference; /* what the interpreter runs */
    Snapshot *before;
    Derived *derived;    /* of encoder and decoder, around `derive` alone */
    const char *departs; /* the first pass that changed results */
    int departed;        /* functions that did */
    const char *key;     /* of the case at hand, NULL when seeded */
    Arena *a;            /* of the case */
    Vec(Pooled) pool;
} Nodes;

/* ---- from pass to pass ----------------------------------------------------------------------- */

/* Passes that are there to change results: values given for an adapter. */
static bool may_change(const Nodes *n, PassId p) {
    return p == PASS_attach && n->model.options.adapter && n->model.options.adapter->loaded;
}

static bool around_pass(const Module *m, PassId p, bool done, void *context, Diag *d) {
    Nodes *n = context;
    uint32_t compared;
    if (!done) {
        n->before = snapshot_take(m, &n->model.options);
        n->derived = p == PASS_derive ? derived_before(m, &n->model.options) : NULL;
        return true;
    }
    Diag *found = diag_new();
    diag_push(found, "pass %s", pass_name(p));
    bool same = snapshot_compare(n->before, m, p == PASS_bind, &compared, found);
    if (n->derived) {
        uint32_t more;
        same = derived_after(n->derived, m, &n->model.options, n->v->tolerance, &more, found) && same;
        compared += more;
    }
    snapshot_free(n->before);
    derived_free(n->derived);
    n->before = NULL;
    n->derived = NULL;
    if (may_change(n, p))
        printf("pass %-7s attaches adapter values that were given: results differ as they should\n",
               pass_name(p));
    else if (same && !compared)
        printf("pass %-7s no function keeps its signature: nothing to compare\n", pass_name(p));
    else if (same)
        printf("pass %-7s %u functions compared, same results\n", pass_name(p), compared);
    else {
        printf("pass %-7s changes results\n", pass_name(p));
        if (!n->departs)
            n->departs = pass_name(p);
        diag_flush(found);
    }
    diag_free(found);
    (void)d;
    return true;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static bool pooled(Nodes *n, const Value *v, Tensor *out) {
    for (size_t i = n->pool.count; i-- > 0;) {
        const Pooled *p = &n->pool.item[i];
        if (str_eq(p->name, v->name) && p->t.dtype == v->type.dtype && p->t.rank == v->type.rank) {
            *out = p->t;
            return true;
        }
    }
    if (!n->key || memchr(v->name.p, '/', v->name.n))
        return false;
    return verify_array(n->v, n->key, arena_printf(n->a, "%.*s", (int)v->name.n, v->name.p), out) &&
           out->dtype == v->type.dtype && out->rank == v->type.rank;
}

/* False without a report when the case's extents are not for this function. */
static bool place_inputs(Nodes *n, const Func *f, Tensor *in, int64_t *syms) {
    bool *given = arena_array(n->a, f->n_inputs + 1u, sizeof *given), ok;
    Diag *quiet = diag_new();
    for (uint32_t i = 0; i < f->n_inputs; i++)
        given[i] = pooled(n, &f->value[f->input[i]], &in[i]);
    ok = complete_inputs(n->model.m, &n->model.options, f, given, in, syms, n->a, quiet);
    if (!ok && !n->key)
        diag_flush(quiet);
    diag_free(quiet);
    return ok;
}

/* ---- node by node ---------------------------------------------------------------------------- */

/* Which output a value is, n_outputs if it is none. */
static uint32_t output_of(const Func *f, ValueId v) {
    uint32_t i = 0;
    while (i < f->n_outputs && f->output[i] != v)
        i++;
    return i;
}

/* Results may be much smaller than what they are sums of, as gradients of routers are whose experts agree. */
#define CANCELS 0.05

/* A part of the largest operand's root mean square. */
static double least_rms(const Func *f, const Node *n, const Tensor *in, const Tensor *want) {
    double most = 0;
    for (uint32_t k = 0; k < n->n_in; k++) {
        if (n->in[k] == NONE)
            continue;
        const Value *v = &f->value[n->in[k]];
        uint32_t o = output_of(f, n->in[k]);
        double rms = v->kind == VK_INPUT ? tensor_rms(&in[v->def])
                     : o < f->n_outputs  ? tensor_rms(&want[o])
                                         : 0;
        if (rms > most)
            most = rms;
    }
    return CANCELS * most;
}

static void show_element(const Tensor *t, int64_t at) {
    int64_t index[MOEC_MAX_RANK] = {0};
    for (int k = t->rank; k-- > 0;) {
        index[k] = at % t->dim[k];
        at /= t->dim[k];
    }
    printf("[");
    for (int k = 0; k < t->rank; k++)
        printf("%s%lld", k ? "," : "", (long long)index[k]);
    printf("]");
}

static void show_departure(Nodes *n, const Func *f, const Node *node, const Tensor *t, Str name,
                           const Departure *x) {
    Text line = {0};
    node_print(n->model.m, f, node, &line);
    printf("  node %u departs at %s: %.3g > %g\n    %s\n", (unsigned)(node - f->node), diag_show(n->d, name),
           x->relative, n->v->tolerance, line.p);
    if (x->at < 0)
        printf("    types or extents differ\n");
    else {
        printf("    element ");
        show_element(t, x->at);
        printf(": compiled %.9g, interpreted %.9g\n", x->got, x->want);
    }
    text_free(&line);
}

static void compare_nodes(Nodes *n, const Func *f, const Tensor *in, const Tensor *got, const Tensor *want) {
    const Str *names = value_names(f, n->a);
    Departure worst = {.relative = -1};
    const Node *first = NULL;
    Str at = str_c("nothing"), first_name = at;
    Departure first_departure = {0};
    const Tensor *first_tensor = NULL;
    uint32_t nodes = 0;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        double least = least_rms(f, &f->node[i], in, want);
        bool seen = false;
        for (uint32_t k = 0; k < f->node[i].n_out; k++) {
            ValueId v = f->node[i].out + k;
            uint32_t o = output_of(f, v);
            if (o == f->n_outputs)
                continue;
            Departure x = tensors_depart(&got[o], &want[o], least);
            seen = true;
            if (x.relative > worst.relative) {
                worst = x;
                at = names[v];
            }
            if (first || x.relative <= n->v->tolerance)
                continue;
            first = &f->node[i];
            first_name = names[v];
            first_departure = x;
            first_tensor = &want[o];
        }
        nodes += seen;
    }
    printf("function %s: %u nodes", diag_show(n->d, f->name), nodes);
    if (nodes)
        printf(", worst %.3g at %s", worst.relative, diag_show(n->d, at));
    printf("%s%s\n", n->key ? ", case " : "", n->key ? n->key : "");
    if (!first)
        return;
    show_departure(n, f, first, first_tensor, first_name, &first_departure);
    n->departed++;
}

/* The function the interpreter runs in the place of f. */
static const Func *reference_of(Nodes *n, const Func *f) {
    if (n->reference == n->model.m)
        return f;
    for (FuncId i = 0; i < n->reference->n_funcs; i++) {
        const Func *g = n->reference->func[i];
        if (!g || g->role != FR_ENTRY || !str_eq(g->name, f->name))
            continue;
        if (g->n_inputs == f->n_inputs && g->n_outputs == f->n_outputs)
            return g;
        diag_error(n->d, DIAG_RUN_FUNCTION, n->o->against, "function @%s does not make the calls that the one of %s does",
                   diag_show(n->d, f->name), n->o->model);
        return NULL;
    }
    diag_error(n->d, DIAG_RUN_FUNCTION, n->o->against, "no entry function @%s", diag_show(n->d, f->name));
    return NULL;
}

/* A module has symbols of its own. */
static bool interpret(Nodes *n, const Func *f, const Tensor *in, Tensor *out) {
    int64_t *syms = arena_array(n->a, dim_sym_count(n->reference->dims) + 1, sizeof *syms);
    return func_bind_dims(n->reference, f, in, syms, n->d) &&
           func_eval(n->reference, f->id, syms, in, out, n->a, n->d);
}

static bool verify_function(Nodes *n, const Func *f, uint32_t own_outputs) {
    Tensor *in = arena_array(n->a, f->n_inputs + 1u, sizeof *in),
           *got = arena_array(n->a, f->n_outputs + 1u, sizeof *got);
    Tensor *want = arena_array(n->a, f->n_outputs + 1u, sizeof *want);
    int64_t *syms = arena_array(n->a, dim_sym_count(n->model.m->dims) + 1, sizeof *syms);
    const Func *g = reference_of(n, f);
    if (!g)
        return false;
    if (!place_inputs(n, f, in, syms)) {
        printf("function %s: skipped, its inputs do not go together%s%s\n", diag_show(n->d, f->name),
               n->key ? " in case " : "", n->key ? n->key : "");
        return true;
    }
    if (!interpret(n, g, in, want) || !call_compiled(&n->v->n, n->model.m, f, syms, in, got, n->a))
        return false;
    compare_nodes(n, f, in, got, want);
    for (uint32_t i = 0; i < own_outputs; i++) {
        Pooled p = {f->output_name[i], want[i]};
        vec_push(&n->pool, p);
    }
    return true;
}

static bool verify_functions(Nodes *n, const char *key, const uint32_t *own_outputs) {
    bool ok = true;
    n->key = key;
    n->v->a = n->a = arena_new();
    n->pool.count = 0;
    for (FuncId i = 0; ok && i < n->model.m->n_funcs; i++) {
        const Func *f = n->model.m->func[i];
        if (f && f->role == FR_ENTRY)
            ok = verify_function(n, f, own_outputs[i]);
    }
    arena_free(n->a);
    return ok;
}

/* ---- the command ----------------------------------------------------------------------------- */

/* What the module that is compiled knows of weights, the other knows, too. */
static void share_weights(const Module *from, Module *to) {
    for (ParamId i = 0; i < to->n_params; i++) {
        Param *p = &to->param[i];
        ParamId q;
        if (p->data || p->init != NONE || !module_find_param(from, p->name, &q))
            continue;
        const Param *x = &from->param[q];
        if (x->dtype == p->dtype && x->rank == p->rank &&
            memcmp(x->dim, p->dim, (size_t)p->rank * sizeof *p->dim) == 0)
            p->data = x->data;
    }
}

static bool load_against(Nodes *n) {
    Options other = *n->o;
    n->reference = n->model.m;
    if (!n->o->against)
        return true;
    other.model = n->o->against;
    other.adapter = other.adapter_weights = other.base_weights =
        NULL; /* what is in the file stands for itself */
    if (!model_load(&other, &n->against, n->d))
        return false;
    if (!n->against.text || !module_is_bound(n->against.m))
        return diag_error(n->d, DIAG_MODEL_FILES, n->o->against, "a dump of fused IR was expected");
    share_weights(n->model.m, n->against.m);
    expose_results(n->against.m);
    n->reference = n->against.m;
    return seed_weights(n->against.m, n->model.options.seed, n->o->against, n->d);
}

/* Up to fused IR; then what is fused, results exposed, is planned. */
static bool prepare(Nodes *n, uint32_t **own_outputs) {
    static const PassId plan[] = {PASS_plan};
    PassId list[PASS_COUNT];
    uint32_t count = PASS_COUNT;
    if (!model_load(n->o, &n->model, n->d) ||
        !seed_weights(n->model.m, n->model.options.seed, n->o->model, n->d))
        return false;
    for (int p = 0; p < PASS_COUNT; p++)
        list[p] = (PassId)p;
    if (n->model.text)
        count = passes_left(n->model.m, list);
    while (count && list[count - 1] >= PASS_plan)
        count--;
    n->model.around = around_pass;
    n->model.around_context = n;
    if (!model_passes(&n->model, n->o, NULL, list, count, n->d))
        return false;
    n->model.around = NULL;
    *own_outputs = arena_array(n->model.arena, n->model.m->n_funcs + 1u, sizeof **own_outputs);
    for (FuncId i = 0; i < n->model.m->n_funcs; i++)
        if (n->model.m->func[i])
            (*own_outputs)[i] = n->model.m->func[i]->n_outputs;
    expose_results(n->model.m);
    n->model.ids_given = true; /* said once */
    return model_passes(&n->model, n->o, NULL, plan, 1, n->d) && load_against(n);
}

static bool verify_cases(Nodes *n, const uint32_t *own_outputs) {
    const char *key[MAX_CASES];
    int count = 0;
    if (!n->v->dir)
        return verify_functions(n, NULL, own_outputs);
    bool ok = verify_keys(n->v, n->model.arena, key, &count);
    for (int i = 0; ok && i < count; i++)
        ok = verify_functions(n, key[i], own_outputs);
    return ok;
}

int verify_nodes(Verify *v) {
    Nodes n = {.v = v, .o = v->o, .d = v->d};
    uint32_t *own_outputs;
    bool ok = prepare(&n, &own_outputs);
    if (ok) {
        ok = native_open(&v->n, v->o, &n.model, v->o->threads > 0 ? (int)v->o->threads : 0, v->d) &&
             verify_cases(&n, own_outputs);
        native_close(&v->n);
    }
    if (ok && n.departs)
        printf("the interpreter's results change first in pass %s\n", n.departs);
    if (ok)
        printf("%s\n", n.departed || n.departs ? "FAILED" : "ok");
    snapshot_free(n.before);
    derived_free(n.derived);
    vec_free(&n.pool);
    int code = diag_finish(v->d, ok);
    model_close(&n.against);
    model_close(&n.model);
    return code == EXIT_DONE && (n.departed || n.departs) ? EXIT_INPUT : code;
}
