/* Where parameters live in a compiled model, and the weights file.
 *
 * Order is that of first use by the entry functions, so that execution walks the file forwards; nothing in the file
 * depends on where or when it was made. */
#include "codegen.h"

#include "../runtime/moec_rt.h"

#include <string.h>

enum { ALIGN = 64 };

typedef struct Planner {
    Module *m;
    Image *im;
    Diag *d;
    bool *from_adapter; /* depends on an adapter tensor */
    unsigned char *state; /* 0 new, 1 being visited, 2 done */
} Planner;

static bool param_bytes(const Module *m, ParamId p, uint64_t *bytes, Diag *d) {
    Tensor t = {.dtype = m->param[p].dtype, .rank = m->param[p].rank};
    memcpy(t.dim, m->param[p].dim, sizeof t.dim);
    size_t n;
    if (!tensor_bytes(&t, &n))
        return diag_error(d, DIAG_SHAPE_SIZE, NULL, "parameter '%s' is too large",
                          diag_show(d, m->param[p].name));
    *bytes = n;
    return true;
}

static bool place(Planner *x, ParamId p, SlotWhere where, uint64_t *end, ParamId *list, uint32_t *n) {
    Slot *s = &x->im->slot[p];
    if (s->where != SLOT_UNUSED) return true;
    if (!param_bytes(x->m, p, &s->bytes, x->d)) return false;
    s->where = where;
    s->offset = *end;
    uint64_t next;
    if (__builtin_add_overflow(*end, (s->bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1), &next) || next >= (uint64_t)MOEC_MAX_TENSOR)
        return diag_error(x->d, DIAG_SHAPE_SIZE, NULL, "the weights exceed 2^47 bytes");
    *end = next;
    list[(*n)++] = p;
    return true;
}

/* Whether p depends on the adapter; nesting of init functions is that of passes, a handful deep. */
static bool depends(Planner *x, ParamId p) {
    const Param *q = &x->m->param[p];
    if (q->kind == PK_ADAPTER) return true;
    if (q->data || q->init == NONE) return false;
    if (x->state[p] == 2) return x->from_adapter[p];
    if (x->state[p] == 1) BUG("parameter %u computes itself", p);
    x->state[p] = 1;
    const Func *f = module_func(x->m, q->init);
    bool any = false;
    for (ValueId v = 0; f && v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM) any = depends(x, f->value[v].def) || any;
    x->state[p] = 2;
    return x->from_adapter[p] = any;
}

static bool use_param(Planner *x, ParamId p) {
    Image *im = x->im;
    if (x->m->param[p].kind == PK_ADAPTER) return place(x, p, SLOT_ADAPTER, &im->adapter_bytes, im->adapter, &im->n_adapters);
    if (!depends(x, p)) return place(x, p, SLOT_WEIGHTS, &im->weights_bytes, im->weight, &im->n_weights);
    /* what it is derived from comes first */
    const Func *f = module_func(x->m, x->m->param[p].init);
    for (ValueId v = 0; v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM && !use_param(x, f->value[v].def)) return false;
    return place(x, p, SLOT_DERIVED, &im->derived_bytes, im->derived, &im->n_derived);
}

bool image_plan(Module *m, const char *name, Arena *a, Image *out, Diag *d) {
    *out = (Image){.m = m, .name = name, .weights_bytes = sizeof(moec_weights_header)};
    out->slot = arena_array(a, m->n_params + 1, sizeof *out->slot);
    out->weight = arena_array(a, m->n_params + 1, sizeof(ParamId));
    out->adapter = arena_array(a, m->n_params + 1, sizeof(ParamId));
    out->derived = arena_array(a, m->n_params + 1, sizeof(ParamId));
    Planner x = {.m = m, .im = out, .d = d};
    x.from_adapter = arena_array(a, m->n_params + 1, sizeof *x.from_adapter);
    x.state = arena_array(a, m->n_params + 1, 1);
    for (uint32_t i = 0; i < m->n_params; i++)
        if (m->param[i].kind == PK_ADAPTER && !use_param(&x, i)) return false;
    for (uint32_t i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY) continue;
        for (uint32_t j = 0; j < f->n_nodes; j++)
            for (uint32_t k = 0; k < f->node[j].n_in; k++) {
                ParamId p;
                if (value_param(f, f->node[j].in[k], &p) && !use_param(&x, p)) return false;
            }
    }
    out->adapter_init = out->weights_bytes;
    out->weights_bytes += out->adapter_bytes;
    return true;
}

/* ---- writing ------------------------------------------------------------------------------------ */

typedef struct Writer {
    Image *im;
    OutFile *o;
    Diag *d;
    uint64_t hash;
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
} Writer;

#define FNV_START 0xcbf29ce484222325u
#define FNV_PRIME 0x100000001b3u

static bool put(Writer *w, const void *p, size_t n) {
    const unsigned char *s = p;
    uint64_t h = w->hash;
    for (size_t i = 0; i < n; i++) h = (h ^ s[i]) * FNV_PRIME;
    w->hash = h;
    return outfile_write(w->o, p, n);
}

static bool put_params(Writer *w, const ParamId *list, uint32_t n, uint64_t base) {
    static const unsigned char zero[ALIGN];
    for (uint32_t i = 0; i < n; i++) {
        const Param *q = &w->im->m->param[list[i]];
        const Slot *s = &w->im->slot[list[i]];
        CHECK(w->o->at == base + s->offset);
        bool ok;
        if (q->data) ok = put(w, q->data, s->bytes);
        else {
            void *buffer = mem_alloc(s->bytes);
            ok = param_eval_into(w->im->m, list[i], buffer, s->bytes, w->d) && put(w, buffer, s->bytes);
            mem_free(buffer);
        }
        size_t pad = (size_t)(-s->bytes & (ALIGN - 1));
        if (!ok || !put(w, zero, pad)) return false;
        if (w->progress) w->progress(w->ctx, w->o->at, w->im->weights_bytes);
    }
    return true;
}

bool image_write(Image *im, OutFile *o, void (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx, Diag *d) {
    Writer w = {im, o, d, FNV_START, progress, ctx};
    moec_weights_header h = {.magic = "MOECWTS", .abi = MOEC_ABI, .order = MOEC_ORDER, .bytes = im->weights_bytes};
    size_t name = strlen(im->name);
    h.magic[7] = '\n';
    memcpy(h.name, im->name, name < sizeof h.name ? name : sizeof h.name - 1);
    if (!outfile_write(o, &h, sizeof h) || !put_params(&w, im->weight, im->n_weights, 0) ||
        !put_params(&w, im->adapter, im->n_adapters, im->adapter_init))
        return false;
    im->hash = h.hash = w.hash;
    return outfile_write_at(o, &h, sizeof h, 0);
}
