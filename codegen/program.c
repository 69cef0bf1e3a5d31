/* model.c and model.h: what the compiled model is made of, in the order a reader wants it. Kernels first, each headed
 * by the graph it computes; then a function a graph function, which is a list of kernel calls; tables last. */
#include "codegen.h"

#include "../compiler/fuse_impl.h"
#include "../runtime/moec_rt.h"
#include "print_c.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Element types cross the boundary as numbers. */
_Static_assert((int)MOEC_BOOL == (int)DT_BOOL && (int)MOEC_F64 == (int)DT_F64, "element types agree");

enum { DEFAULT_TILE = 128 };

typedef struct Program {
    Module *m;
    const Image *im;
    const CodegenOptions *o;
    Arena *arena;
    Diag *d;
    Text *c;
    LoopKernel **kernel; /* by FuncId */
    FuncId *order;
    uint32_t n_kernels;
    FuncId *derive;      /* kernel of each derived parameter */
    int64_t scratch, arena_bytes;
    SymbolNames names;
    uint32_t *symbol; /* the symbols of the program, by their position in it */
    uint32_t n_symbols;
} Program;

static bool is_clean(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '_')) return false;
    return s.n > 0 && s.n < 48;
}

static bool lower_one(Program *p, FuncId id) {
    if (p->kernel[id]) return true;
    const Func *f = module_func(p->m, id);
    LowerOptions lo = {p->o->tile_rows ? p->o->tile_rows : DEFAULT_TILE};
    LoopKernel *k = lower_kernel(p->m, f, &lo, p->arena, p->d);
    if (!k) return false;
    k->name = str_c(is_clean(f->name) ? arena_printf(p->arena, "k%u_%.*s", p->n_kernels, (int)f->name.n, f->name.p)
                                      : arena_printf(p->arena, "k%u", p->n_kernels));
    p->kernel[id] = k;
    p->order[p->n_kernels++] = id;
    if (k->scratch > p->scratch) p->scratch = k->scratch;
    return true;
}

/* An init function whose parameters have become inputs, so that it lowers like any kernel. */
static FuncId derive_kernel(Program *p, ParamId param) {
    Module *m = p->m;
    const Func *init = module_func(m, m->param[param].init);
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, init);
    r.f->role = FR_KERNEL;
    r.f->name = str_c("prepare");
    for (ValueId v = 0; v < init->n_values; v++)
        if (init->value[v].kind == VK_PARAM) r.map[v] = func_input(m, r.f, init->value[v].name, init->value[v].type);
    for (uint32_t i = 0; i < init->n_nodes; i++) remap_node(&r, &init->node[i]);
    func_output(m, r.f, remap_value(&r, init->output[0]), init->output_name[0]);
    FuncId id = func_end(m, r.f, NONE);
    arena_free(scratch);
    return id;
}

static bool is_call(const Node *n, FuncId *callee) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    if (a) *callee = (FuncId)a->i;
    return a != NULL;
}

static bool lower_all(Program *p) {
    Module *m = p->m;
    uint32_t funcs = m->n_funcs + p->im->n_derived;
    p->kernel = arena_array(p->arena, funcs + 1, sizeof *p->kernel);
    p->order = arena_array(p->arena, funcs + 1, sizeof *p->order);
    p->derive = arena_array(p->arena, p->im->n_derived + 1, sizeof *p->derive);
    for (uint32_t i = 0; i < p->im->n_derived; i++) {
        p->derive[i] = derive_kernel(p, p->im->derived[i]);
        for (uint32_t j = 0; j < i; j++)
            if (func_same(module_func(m, p->derive[j]), module_func(m, p->derive[i]))) {
                p->derive[i] = p->derive[j]; /* layers of one kind share */
                break;
            }
        if (!lower_one(p, p->derive[i])) return false;
    }
    for (uint32_t i = 0; i < m->n_funcs; i++) {
        const Func *f = m->func[i];
        if (!f || f->role != FR_ENTRY) continue;
        for (uint32_t j = 0; j < f->n_nodes; j++) {
            FuncId callee;
            if (!is_call(&f->node[j], &callee)) BUG("'%s' outside a kernel", op_info(f->node[j].op)->name);
            if (!lower_one(p, callee)) return false;
            const Attr *place = node_attr(&f->node[j], AT_place);
            for (uint32_t k = 0; place && k < place->ints.n; k++) {
                if (place->ints.v[k] < 0) continue;
                Dim count = type_count(m->dims, &f->value[f->node[j].out + k].type);
                int64_t bytes, end;
                if (!mul_i64(dim_upper(m->dims, count), (int64_t)dtype_bytes(f->value[f->node[j].out + k].type.dtype), &bytes) ||
                    !add_i64(place->ints.v[k], bytes, &end) || end >= MOEC_MAX_TENSOR)
                    return diag_error(p->d, NULL, "the arena exceeds 2^47 bytes; lower the bounds with --dim");
                if (end > p->arena_bytes) p->arena_bytes = end;
            }
        }
    }
    return true;
}

/* ---- entry functions ------------------------------------------------------------------------------- */

static void print_param(Program *p, ParamId id) {
    static const char *const base[] = {[SLOT_WEIGHTS] = "WEIGHTS", [SLOT_ADAPTER] = "ADAPTER", [SLOT_DERIVED] = "DERIVED"};
    const Slot *s = &p->im->slot[id];
    text_printf(p->c, "%s(%s, %" PRIu64 ") /* ", base[s->where], c_type(p->m->param[id].dtype), s->offset);
    c_comment(p->c, p->m->param[id].name);
    text_printf(p->c, " */");
}

/* Where value v of entry function f lives: an argument, a parameter, or the arena. */
static void print_place(Program *p, const Func *f, ValueId v) {
    ParamId id;
    const char *type = c_type(f->value[v].type.dtype);
    if (value_param(f, v, &id)) {
        print_param(p, id);
        return;
    }
    uint32_t arg = NONE;
    if (f->value[v].kind == VK_INPUT) arg = f->value[v].def;
    for (uint32_t i = 0; i < f->n_outputs && arg == NONE; i++)
        if (f->output[i] == v) arg = f->n_inputs + i;
    if (arg != NONE) {
        text_printf(p->c, "ARG(%s, %u) /* ", type, arg);
        c_comment(p->c, arg < f->n_inputs ? f->value[v].name : f->output_name[arg - f->n_inputs]);
        text_printf(p->c, " */");
        return;
    }
    const Attr *place = node_attr(value_node(f, v), AT_place);
    int64_t at = place ? place->ints.v[f->value[v].index] : -1;
    if (at < 0) BUG("value %u of '%.*s' has no place", v, (int)f->name.n, f->name.p);
    text_printf(p->c, "ARENA(%s, %" PRId64 ")", type, at);
}

static void print_entry(Program *p, const Func *f, uint32_t index) {
    text_printf(p->c, "/* function ");
    c_comment(p->c, f->name);
    text_printf(p->c, " */\nstatic void run_%u(const moec_frame *f) {\n", index);
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        FuncId callee = NONE;
        is_call(n, &callee);
        LoopKernel *k = p->kernel[callee];
        if (n->origin.n) {
            text_printf(p->c, "    /* ");
            c_comment(p->c, n->origin);
            text_printf(p->c, " */\n");
        }
        text_printf(p->c, "    %.*s(f", (int)k->name.n, k->name.p);
        for (uint32_t j = 0; j < n->n_in; j++) {
            text_printf(p->c, ",\n        ");
            print_place(p, f, n->in[j]);
        }
        for (uint32_t j = 0; j < n->n_out; j++) {
            text_printf(p->c, ",\n        ");
            print_place(p, f, n->out + j);
        }
        text_printf(p->c, ");\n");
    }
    if (f->n_nodes == 0) text_printf(p->c, "    (void)f;\n");
    text_printf(p->c, "}\n\n");
}

static void print_prepare(Program *p) {
    if (!p->im->n_derived) return;
    text_printf(p->c, "/* what depends on the adapter alone, computed whenever one is loaded */\n"
                      "static void prepare(const moec_frame *f) {\n");
    for (uint32_t i = 0; i < p->im->n_derived; i++) {
        ParamId id = p->im->derived[i];
        const Func *init = module_func(p->m, p->m->param[id].init);
        LoopKernel *k = p->kernel[p->derive[i]];
        text_printf(p->c, "    %.*s(f", (int)k->name.n, k->name.p);
        for (ValueId v = 0; v < init->n_values; v++) {
            if (init->value[v].kind != VK_PARAM) continue;
            text_printf(p->c, ",\n        ");
            print_param(p, init->value[v].def);
        }
        text_printf(p->c, ",\n        ");
        print_param(p, id);
        text_printf(p->c, ");\n");
    }
    text_printf(p->c, "}\n\n");
}

/* ---- tables ------------------------------------------------------------------------------------------- */

static const Type *value_type(const Func *f, uint32_t i) {
    return &f->value[i < f->n_inputs ? f->input[i] : f->output[i - f->n_inputs]].type;
}

static void print_shape(Program *p, const Func *f, uint32_t index) {
    text_printf(p->c, "static void shape_%u(const int64_t *sym, uint32_t i, int64_t *extent) {\n", index);
    bool *used = arena_array(p->arena, dim_sym_count(p->m->dims) + 1, sizeof *used);
    Text body = {0};
    for (uint32_t i = 0; i < f->n_inputs + f->n_outputs; i++) {
        const Type *t = value_type(f, i);
        if (t->rank == 0) continue;
        text_printf(&body, "    case %u:", i);
        for (int a = 0; a < t->rank; a++) {
            text_printf(&body, " extent[%d] = ", a);
            dim_print_c(p->m->dims, t->dim[a], &body, c_symbol, &p->names);
            text_printf(&body, ";");
            for (uint32_t s = 0; s < dim_sym_count(p->m->dims); s++)
                if (!used[s] && dim_subst(p->m->dims, t->dim[a], s, dim_const(p->m->dims, 1)) != t->dim[a]) used[s] = true;
        }
        text_printf(&body, " break;\n");
    }
    for (uint32_t s = 0; s < p->n_symbols; s++)
        if (used[p->symbol[s]]) text_printf(p->c, "    const int64_t %s = sym[%u];\n", c_symbol(&p->names, p->symbol[s]), s);
    text_printf(p->c, "    (void)sym;\n    switch (i) {\n%s    default: (void)extent;\n    }\n}\n\n", body.p ? body.p : "");
    text_free(&body);
}

/* The append inside a kernel that turns its input `in` into its output `out`, if there is one. */
static const Node *append_between(const Func *k, uint32_t in, uint32_t out) {
    const Node *n = value_node(k, k->output[out]);
    return n && n->op == OP_append && n->in[0] == k->input[in] ? n : NULL;
}

/* Caches: an output that a kernel made by appending to an input shares that input's storage. */
static const Node *cache_append(const Program *p, const Func *f, uint32_t input, uint32_t *output, const Func **kernel) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        FuncId callee;
        if (!is_call(&f->node[i], &callee)) continue;
        const Func *k = module_func(p->m, callee);
        for (uint32_t a = 0; a < f->node[i].n_in; a++) {
            if (f->node[i].in[a] != f->input[input]) continue;
            for (uint32_t b = 0; b < k->n_outputs; b++) {
                const Node *n = append_between(k, a, b);
                if (!n) continue;
                for (*output = 0; *output < f->n_outputs; ++*output)
                    if (f->output[*output] == f->node[i].out + b) {
                        *kernel = k;
                        return n;
                    }
            }
        }
    }
    return NULL;
}

static void print_values(Program *p, const Func *f, uint32_t index) {
    uint32_t n = f->n_inputs + f->n_outputs;
    int *alias = arena_array(p->arena, n + 1, sizeof *alias), *axis = arena_array(p->arena, n + 1, sizeof *axis);
    int64_t *room = arena_array(p->arena, n + 1, sizeof *room);
    for (uint32_t i = 0; i < n; i++) alias[i] = axis[i] = -1;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        uint32_t out;
        const Func *k;
        const Node *a = cache_append(p, f, i, &out, &k);
        if (!a) continue;
        uint32_t o = f->n_inputs + out;
        alias[o] = (int)i;
        axis[i] = axis[o] = (int)node_int(a, AT_axis, 0);
        room[i] = room[o] = dim_upper(p->m->dims, k->value[a->out].type.dim[axis[i]]);
    }
    text_printf(p->c, "static const moec_value values_%u[] = {\n", index);
    for (uint32_t i = 0; i < n; i++) {
        const Type *t = value_type(f, i);
        text_printf(p->c, "    {");
        c_string(p->c, i < f->n_inputs ? f->value[f->input[i]].name : f->output_name[i - f->n_inputs]);
        text_printf(p->c, ", %d, %d, %d, %d, %" PRId64 "},\n", (int)t->dtype, t->rank, alias[i], axis[i], room[i]);
    }
    if (n == 0) text_printf(p->c, "    {\"\", 0, 0, -1, -1, 0},\n");
    text_printf(p->c, "};\n\n");
}

typedef struct SymbolUse {
    uint32_t *slot;
} SymbolUse;

static void use_symbol(void *ctx, uint32_t sym) {
    ((SymbolUse *)ctx)->slot[sym] = 0;
}

static void number_attrs(Program *p, const Node *n, SymbolUse *u) {
    for (uint32_t i = 0; i < n->n_attrs; i++) {
        const Attr *a = &n->attrs[i];
        if (attr_kind(a->key) == AK_DIM) dim_visit(p->m->dims, a->d, use_symbol, u);
        for (uint32_t k = 0; attr_kind(a->key) == AK_DIMS && k < a->dims.n; k++) dim_visit(p->m->dims, a->dims.v[k], use_symbol, u);
    }
}

/* Numbers the symbols that stand in a type or an attribute of an entry function or kernel; passes leave others behind. */
static void number_symbols(Program *p) {
    uint32_t n = (uint32_t)dim_sym_count(p->m->dims);
    SymbolUse u = {arena_array(p->arena, n + 1, sizeof *u.slot)};
    memset(u.slot, 0xff, (n + 1) * sizeof *u.slot);
    for (uint32_t i = 0; i < p->m->n_funcs; i++) {
        const Func *f = p->m->func[i];
        if (!f || (f->role != FR_ENTRY && !p->kernel[i])) continue;
        for (ValueId v = 0; v < f->n_values; v++)
            for (int a = 0; a < f->value[v].type.rank; a++) dim_visit(p->m->dims, f->value[v].type.dim[a], use_symbol, &u);
        for (uint32_t k = 0; k < f->n_nodes; k++) number_attrs(p, &f->node[k], &u);
    }
    p->symbol = arena_array(p->arena, n + 1, sizeof *p->symbol);
    for (uint32_t i = 0; i < n; i++)
        if (u.slot[i] == 0) {
            u.slot[i] = p->n_symbols;
            p->symbol[p->n_symbols++] = i;
        }
    p->names.slot = u.slot;
}

static void print_symbols(Program *p) {
    text_printf(p->c, "static const moec_symbol symbols[] = {\n");
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        const DimSym *s = dim_sym_at(p->m->dims, p->symbol[i]);
        text_printf(p->c, "    {");
        c_string(p->c, s->name);
        text_printf(p->c, ", %" PRId64 ", ", s->lo);
        if (s->hi == DIM_UNBOUNDED) text_printf(p->c, "INT64_MAX},\n");
        else text_printf(p->c, "INT64_C(%" PRId64 ")},\n", s->hi);
    }
    if (p->n_symbols == 0) text_printf(p->c, "    {\"\", 0, 0},\n");
    text_printf(p->c, "};\n\n");
}

/* Function `train` returns the gradient of tensor X as `grad.X`. */
static int gradient_output(const Func *train, Str tensor) {
    static const char prefix[] = "grad.";
    enum { N = sizeof prefix - 1 };
    for (uint32_t i = 0; train && i < train->n_outputs; i++) {
        Str s = train->output_name[i];
        if (s.n == tensor.n + N && memcmp(s.p, prefix, N) == 0 && memcmp(s.p + N, tensor.p, tensor.n) == 0) return (int)i;
    }
    return -1;
}

static void print_tensors(Program *p) {
    const Func *train = module_find(p->m, "train");
    text_printf(p->c, "static const moec_tensor tensors[] = {\n");
    for (uint32_t i = 0; i < p->im->n_adapters; i++) {
        const Param *q = &p->m->param[p->im->adapter[i]];
        const Slot *s = &p->im->slot[p->im->adapter[i]];
        text_printf(p->c, "    {");
        c_string(p->c, q->name);
        text_printf(p->c, ", %d, %d, {", (int)q->dtype, q->rank);
        for (int a = 0; a < 4; a++) text_printf(p->c, "%s%" PRId64, a ? ", " : "", a < q->rank ? q->dim[a] : 0);
        text_printf(p->c, "}, %" PRIu64 ", %" PRIu64 ", %d},\n", s->offset, s->bytes, gradient_output(train, q->name));
    }
    if (!p->im->n_adapters) text_printf(p->c, "    {\"\", 0, 0, {0, 0, 0, 0}, 0, 0, -1},\n");
    text_printf(p->c, "};\n\n");
}

/* ---- what training takes of the arena ------------------------------------------------------------------ */

typedef struct Place {
    int64_t offset;
    Dim bytes;
    uint32_t function; /* of the program */
} Place;

static int by_offset(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->function != y->function) return x->function < y->function ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Sizes are functions of the symbols, few of them different: places name theirs by number. */
static uint32_t print_places(Program *p, const Func **entry, uint32_t n_entries, uint32_t *n_sizes) {
    DimTable *t = p->m->dims;
    Vec(Place) list = {0};
    Vec(Dim) sizes = {0};
    for (uint32_t e = 0; e < n_entries && module_find(p->m, "train"); e++) {
        const Func *f = entry[e];
        for (uint32_t i = 0; i < f->n_nodes; i++) {
            const Attr *place = node_attr(&f->node[i], AT_place);
            for (uint32_t k = 0; place && k < place->ints.n; k++) {
                const Type *type = &f->value[f->node[i].out + k].type;
                Place x = {place->ints.v[k],
                           dim_mul(t, type_count(t, type), dim_const(t, (int64_t)dtype_bytes(type->dtype))), e};
                if (x.offset >= 0) vec_push(&list, x);
            }
        }
    }
    uint32_t n = (uint32_t)list.count;
    if (n) {
        qsort(list.item, n, sizeof *list.item, by_offset);
        text_printf(p->c, "static const moec_place places[] = {\n");
        for (uint32_t i = 0; i < n; i++) {
            size_t s = 0;
            while (s < sizes.count && sizes.item[s] != list.item[i].bytes) s++;
            if (s == sizes.count) vec_push(&sizes, list.item[i].bytes);
            text_printf(p->c, "    {UINT64_C(%" PRId64 "), %zu, %u},\n", list.item[i].offset, s, list.item[i].function);
        }
        text_printf(p->c, "};\n\nstatic void place_sizes(const int64_t *sym, uint64_t *bytes) {\n");
        for (uint32_t s = 0; s < p->n_symbols; s++) {
            bool used = false;
            for (size_t i = 0; i < sizes.count; i++) used |= dim_subst(t, sizes.item[i], p->symbol[s], dim_const(t, 1)) != sizes.item[i];
            if (used) text_printf(p->c, "    const int64_t %s = sym[%u];\n", c_symbol(&p->names, p->symbol[s]), s);
        }
        text_printf(p->c, "    (void)sym;\n");
        for (size_t i = 0; i < sizes.count; i++) {
            text_printf(p->c, "    bytes[%zu] = (uint64_t)(", i);
            dim_print_c(t, sizes.item[i], p->c, c_symbol, &p->names);
            text_printf(p->c, ");\n");
        }
        text_printf(p->c, "}\n\n");
    }
    *n_sizes = (uint32_t)sizes.count;
    vec_free(&list);
    vec_free(&sizes);
    return n;
}

static int symbol_index(const Program *p, const char *name) {
    for (uint32_t i = 0; i < p->n_symbols; i++)
        if (str_is(dim_sym_at(p->m->dims, p->symbol[i])->name, name)) return (int)i;
    return -1;
}

static void print_seq2seq(Program *p, const Func **entry, uint32_t n) {
    static const char *const names[] = {"encode", "cross", "step", "score", "train", "routers"};
    enum { NAMES = sizeof names / sizeof *names };
    const Seq2Seq *s = &p->m->s2s;
    int index[NAMES];
    for (int j = 0; j < NAMES; j++) index[j] = -1;
    int64_t sentence = 0;
    for (uint32_t i = 0; i < n; i++) {
        for (int j = 0; j < NAMES; j++)
            if (str_is(entry[i]->name, names[j])) index[j] = (int)i;
        for (uint32_t k = 0; k < entry[i]->n_inputs; k++) {
            const Value *v = &entry[i]->value[entry[i]->input[k]];
            if (str_is(v->name, "sentence") && v->type.rank == 2) dim_is_const(p->m->dims, v->type.dim[1], &sentence);
        }
    }
    text_printf(p->c, "static const moec_seq2seq seq2seq = {%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 ", %u, %" PRId64
                      ", %d, %d, %d, %d, %d, %d, %d, %d, %d, %d};\n\n",
                s->pad, s->eos, s->start, s->vocab, s->width, sentence, index[0], index[1], index[2], index[3], index[4], index[5],
                symbol_index(p, "B"), symbol_index(p, "S"), symbol_index(p, "T"), symbol_index(p, "P"));
}

/* Single functions of a sequence-to-sequence model make a plain program. */
static bool can_decode(const Module *m) {
    return m->s2s.present && module_find(m, "encode") && module_find(m, "cross") && module_find(m, "step");
}

static void print_program(Program *p, const Func **entry, uint32_t n) {
    const Image *im = p->im;
    bool decodes = can_decode(p->m);
    const char *prefix = p->o->prefix;
    text_printf(p->c, "static const moec_function functions[] = {\n");
    for (uint32_t i = 0; i < n; i++) {
        text_printf(p->c, "    {");
        c_string(p->c, entry[i]->name);
        text_printf(p->c, ", %u, %u, values_%u, shape_%u, run_%u},\n", entry[i]->n_inputs, entry[i]->n_outputs, i, i, i);
    }
    text_printf(p->c, "};\n\n");
    if (decodes) print_seq2seq(p, entry, n);
    if (p->o->embed_weights) text_printf(p->c, "extern const unsigned char %s_weights[];\n\n", prefix);
    text_printf(p->c, "static const char spec[] = ");
    /* C99 compilers need take no more than 4095 characters a literal; this is an array initialiser of bytes */
    text_printf(p->c, "{");
    for (size_t i = 0; i < p->m->spec.n; i++) text_printf(p->c, "%s%d,", i % 24 ? " " : "\n    ", (unsigned char)p->m->spec.p[i]);
    text_printf(p->c, "\n    0};\n\n");
    uint32_t n_sizes, n_places = print_places(p, entry, n, &n_sizes);
    text_printf(p->c, "static const moec_program program = {\n    .abi = MOEC_ABI,\n    .name = \"%s\",\n", prefix);
    text_printf(p->c, "    .weights_hash = UINT64_C(0x%016" PRIx64 "),\n    .weights_bytes = UINT64_C(%" PRIu64 "),\n", im->hash, im->weights_bytes);
    text_printf(p->c, "    .adapter_init = UINT64_C(%" PRIu64 "),\n    .adapter_bytes = UINT64_C(%" PRIu64 "),\n", im->adapter_init, im->adapter_bytes);
    text_printf(p->c, "    .derived_bytes = UINT64_C(%" PRIu64 "),\n    .arena_bytes = UINT64_C(%" PRId64 "),\n", im->derived_bytes, p->arena_bytes);
    text_printf(p->c, "    .scratch_bytes = UINT64_C(%" PRId64 "),\n", p->scratch);
    text_printf(p->c, "    .n_symbols = %u,\n    .n_functions = %u,\n    .n_tensors = %u,\n", p->n_symbols, n, im->n_adapters);
    text_printf(p->c, "    .symbol = symbols,\n    .function = functions,\n    .tensor = tensors,\n");
    text_printf(p->c, "    .prepare = %s,\n    .seq2seq = %s,\n", im->n_derived ? "prepare" : "NULL", decodes ? "&seq2seq" : "NULL");
    if (p->o->embed_weights) text_printf(p->c, "    .embedded = %s_weights,\n", prefix);
    text_printf(p->c, "    .spec = spec,\n    .parameters = UINT64_C(%" PRIu64 "),\n    .trainable = UINT64_C(%" PRIu64 "),\n",
                p->o->parameters, p->o->trainable);
    if (n_places)
        text_printf(p->c, "    .n_places = %u,\n    .n_sizes = %u,\n    .place = places,\n    .place_sizes = place_sizes,\n", n_places, n_sizes);
    text_printf(p->c, "};\n\n");
    text_printf(p->c, "const moec_program *%s_program(void) {\n    return &program;\n}\n", prefix);
}

/* ---- text ------------------------------------------------------------------------------------------------ */

static void print_banner(Program *p) {
    text_printf(p->c, "/* A model compiled by moec. Weights file %016" PRIx64 ", %" PRIu64 " bytes. Adapter: ", p->im->hash, p->im->weights_bytes);
    if (p->m->spec.n) c_comment(p->c, p->m->spec);
    else text_printf(p->c, "none");
    text_printf(p->c, ".\n *\n * Run-time extents:\n");
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        const DimSym *s = dim_sym_at(p->m->dims, p->symbol[i]);
        text_printf(p->c, " *   %-4s ", c_symbol(&p->names, p->symbol[i]));
        c_comment(p->c, s->name);
        text_printf(p->c, ", %" PRId64 " to %" PRId64 "\n", s->lo, s->hi);
    }
    text_printf(p->c, " *\n * Arena %" PRId64 " bytes, scratch %" PRId64 " bytes a thread. Buffers are NAME_3: y written, else read,\n * or scratch. Variables are name3. */\n",
                p->arena_bytes, p->scratch);
    if (!p->o->plain_matmul) text_printf(p->c, "#define MOEC_MATMUL_OPENBLAS 1\n");
    text_printf(p->c, "#include \"moec_kernel.h\"\n\n#include \"%s.h\"\n\n", p->o->prefix);
    text_printf(p->c, "/* Where values live: bytes into the weights file, the adapter, what `prepare` made of it, the arena; or an argument. */\n"
                      "#define WEIGHTS(type, at) ((const type *)(const void *)(f->weights + (at)))\n"
                      "#define ADAPTER(type, at) ((const type *)(const void *)(f->adapter + (at)))\n"
                      "#define DERIVED(type, at) ((type *)(void *)(f->derived + (at)))\n"
                      "#define ARENA(type, at) ((type *)(void *)(f->arena + (at)))\n"
                      "#define ARG(type, i) ((type *)f->arg[i])\n\n");
}

static void print_header(Program *p, Text *h) {
    const char *x = p->o->prefix;
    text_printf(h, "/* The compiled model %s: open it with moec_open(%s_program(), ...). See moec_rt.h. */\n", x, x);
    text_printf(h, "#ifndef %s_MODEL_H\n#define %s_MODEL_H\n\n#include \"moec_rt.h\"\n\n", x, x);
    text_printf(h, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\nconst moec_program *%s_program(void);\n\n", x);
    text_printf(h, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}

bool program_emit(Module *m, Image *im, const CodegenOptions *o, Text *c, Text *h, Diag *d) {
    Program p = {.m = m, .im = im, .o = o, .arena = arena_new(), .d = d, .c = c, .names = {.dims = m->dims}};
    bool ok = lower_all(&p);
    if (ok) {
        const Func **entry = arena_array(p.arena, m->n_funcs + 1, sizeof *entry);
        uint32_t n = 0;
        for (uint32_t i = 0; i < m->n_funcs; i++)
            if (m->func[i] && m->func[i]->role == FR_ENTRY) entry[n++] = m->func[i];
        im->scratch_bytes = p.scratch = (p.scratch + 63) & ~(int64_t)63;
        number_symbols(&p);
        print_banner(&p);
        for (uint32_t i = 0; i < p.n_kernels; i++) {
            c_print_kernel(p.kernel[p.order[i]], &p.names, p.scratch, c);
        }
        print_prepare(&p);
        for (uint32_t i = 0; i < n; i++) print_entry(&p, entry[i], i);
        for (uint32_t i = 0; i < n; i++) {
            print_shape(&p, entry[i], i);
            print_values(&p, entry[i], i);
        }
        print_symbols(&p);
        print_tensors(&p);
        print_program(&p, entry, n);
        print_header(&p, h);
        for (uint32_t i = 0; i < p.n_kernels; i++) {
            vec_free(&p.kernel[p.order[i]]->buf);
            vec_free(&p.kernel[p.order[i]]->var);
        }
    }
    arena_free(p.arena);
    return ok;
}
