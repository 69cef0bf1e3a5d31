/* The pass runner: the only place that prints, verifies and times passes. */
#include "pass.h"
#include "adapter.h"
#include "dump.h"
#include "paranoid.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

typedef bool PassFunc(Module *m, const PassOptions *o, Diag *d);

static const struct {
    const char *name, *doc;
    PassFunc *run;
} passes[] = {
#define PASS(name, function, doc) {#name, doc, function},
#include "passes.def"
};

const char *pass_name(PassId p)
{
    return passes[p].name;
}

const char *pass_doc(PassId p)
{
    return passes[p].doc;
}

bool pass_find(Str name, PassId *out)
{
    for (int i = 0; i < PASS_COUNT; i++)
        if (str_is(name, passes[i].name)) {
            *out = (PassId)i;
            return true;
        }
    return false;
}

/* ---- failures of moec itself --------------------------------------------------------------------------- */

_Noreturn static void pass_broke(const Module *m, const PassRun *run, PassId p, const char *what, Diag *d)
{
    Text text = {0}, path = {0};
    diag_flush(d);
    text_printf(&text, "# bad: %s after %s\n", what, passes[p].name);
    module_print(m, &text);
    text_printf(&path, "%s/moec-bad-%s.ir", run->bad_ir_dir ? run->bad_ir_dir : ".", passes[p].name);
    text_add(&path, "", 1);
    if (dump_write(path.p, &text, d))
        fprintf(stderr, "moec: the IR is in %s\n", path.p);
    diag_flush(d);
    BUG("pass %s: %s", passes[p].name, what);
}

/* ---- the loop --------------------------------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static uint32_t module_nodes(const Module *m)
{
    uint32_t n = 0;
    for (FuncId i = 0; i < m->n_funcs; i++)
        n += m->func[i] ? m->func[i]->n_nodes : 0;
    return n;
}

static void check_after(Module *m, const PassRun *run, PassId p, bool bound, const Snapshot *before, Diag *d)
{
    uint32_t compared;
    if (!run->no_verify && !module_verify(m, d, bound))
        pass_broke(m, run, p, "the IR does not verify", d);
    if (!run->paranoid)
        return;
    if (!roundtrip_check(m, d))
        pass_broke(m, run, p, "the IR's text does not round-trip", d);
    /* initial adapter values leave the model as it is; given ones are there to change it */
    if (p == PASS_attach && run->options->adapter && run->options->adapter->loaded) {
        fprintf(stderr, "paranoid: %-7s round trip ok; adapter values were given, results differ as they should\n", passes[p].name);
        return;
    }
    if (!snapshot_compare(before, m, p == PASS_bind, &compared, d))
        pass_broke(m, run, p, "results changed", d);
    fprintf(stderr, "paranoid: %-7s round trip ok, %u functions compared\n", passes[p].name, compared);
}

static bool run_one(Module *m, const PassRun *run, PassId p, uint32_t number, bool bound, Text *last, Diag *d)
{
    Snapshot *before = run->paranoid ? snapshot_take(m, run->options) : NULL;
    size_t errors = diag_errors(d);
    bool first = number == 1 && run->changed == CHANGED_TEXT;
    if (((run->dump[p] & DUMP_BEFORE) || first) && !dump_module(m, run, number, "before", passes[p].name, d))
        return false;
    mem_doing("pass", passes[p].name);
    double start = now_ms();
    bool ok = passes[p].run(m, run->options, d);
    double ms = now_ms() - start;
    if (!ok && diag_errors(d) == errors)
        pass_broke(m, run, p, "it failed without saying why", d);
    ok = ok && diag_errors(d) == errors;
    if (ok) {
        if (run->time_passes)
            fprintf(stderr, "time: %-7s %9.3f ms %8u nodes\n", passes[p].name, ms, module_nodes(m));
        bool dumped = run->dump[p] & DUMP_AFTER;
        if (dumped)
            ok = dump_module(m, run, number, "after", passes[p].name, d);
        if (run->changed)
            ok = ok && dump_change(m, run, number, passes[p].name, last, dumped, d);
        check_after(m, run, p, bound, before, d);
    }
    snapshot_free(before);
    return ok;
}

static bool run_list(Module *m, const PassRun *run, Text *last, Diag *d)
{
    bool bound = run->bound;
    uint32_t n = run->list ? run->n_list : PASS_COUNT;
    for (uint32_t i = 0; i < n; i++) {
        PassId p = run->list ? run->list[i] : (PassId)i;
        bound = bound || p == PASS_bind;
        if (!bound)
            return diag_error(d, DIAG_IR_UNBOUND, NULL,
                              "pass '%s' needs every extent known: run `bind` in front of it",
                              passes[p].name);
        if (run->around && !run->around(m, p, false, run->context, d))
            return false;
        if (!run_one(m, run, p, i + 1, bound, last, d))
            return false;
        if (run->around && !run->around(m, p, true, run->context, d))
            return false;
        if (p == PASS_bind && run->after_bind && !run->after_bind(m, run->context, d))
            return false;
        if (run->stop_after && strcmp(run->stop_after, passes[p].name) == 0)
            break;
    }
    return true;
}

bool passes_run(Module *m, const PassRun *run, Diag *d)
{
    Text last = {0};
    if (!run->no_verify && !module_verify(m, d, run->bound))
        return false;
    if (run->changed)
        module_print(m, &last);
    bool ok = run_list(m, run, &last, d);
    text_free(&last);
    return ok;
}

/* ---- text IR, which may stand anywhere in the pipeline ------------------------------------------------ */

bool module_is_bound(const Module *m)
{
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        for (uint32_t k = 0; f && k < f->n_nodes; k++)
            if (op_info(f->node[k].op)->klass == OC_DYNAMIC)
                return false;
        for (uint32_t k = 0; f && k < f->n_values; k++)
            if (f->value[k].type.rank == UNRANKED)
                return false;
    }
    return true;
}

/* `match` does not know its own results any more when adapters stand between them. */
uint32_t passes_left(const Module *m, PassId *list)
{
    bool placed = false, fused = false;
    uint32_t n = 0;
    for (FuncId i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        fused |= f && f->role == FR_KERNEL;
        for (uint32_t k = 0; f && k < f->n_nodes; k++)
            placed |= node_attr(&f->node[k], AT_place) != NULL;
    }
    for (int p = placed ? PASS_COUNT : fused ? PASS_fuse + 1 : m->spec.n ? PASS_derive : 0; p < PASS_COUNT; p++)
        list[n++] = (PassId)p;
    return n;
}
