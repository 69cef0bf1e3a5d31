/* The tables of a program: one row of cells for each struct of moec_rt.h that a compiled model carries. */
#include "program_tables.h"

#include "work.h"

#include "../runtime/moec_rt.h"

#include <stdlib.h>
#include <string.h>

/* Element types cross the boundary as numbers. */
_Static_assert((int)MOEC_BOOL == (int)DT_BOOL && (int)MOEC_F64 == (int)DT_F64, "element types agree");

/* ---- layouts -------------------------------------------------------------------------------------- */

#define LAYOUT(type)                                                                                         \
    { #type, type##_fields, sizeof type##_fields / sizeof *type##_fields, sizeof(type) }
#define F(type, member, kind)                                                                                \
    { #member, CELL_##kind, 1, offsetof(type, member) }

static const Field moec_symbol_fields[] = {
    F(moec_symbol, name, TEXT),
    F(moec_symbol, lo, I64),
    F(moec_symbol, hi, I64),
};
static const Field moec_value_fields[] = {
    F(moec_value, name, TEXT), F(moec_value, dtype, U8),      F(moec_value, rank, U8),
    F(moec_value, alias, I16), F(moec_value, grow_axis, I16), F(moec_value, capacity, I64),
};
static const Field moec_function_fields[] = {
    F(moec_function, name, TEXT), F(moec_function, n_inputs, U32), F(moec_function, n_outputs, U32),
    F(moec_function, value, REF), F(moec_function, shape, REF),    F(moec_function, run, REF),
};
static const Field moec_tensor_fields[] = {
    F(moec_tensor, name, TEXT),    F(moec_tensor, dtype, U8),
    F(moec_tensor, rank, U8),      {"extent", CELL_I64, 4, offsetof(moec_tensor, extent)},
    F(moec_tensor, offset, U64),   F(moec_tensor, bytes, U64),
    F(moec_tensor, gradient, I32),
};
static const Field moec_place_fields[] = {
    F(moec_place, offset, U64),
    F(moec_place, size, U32),
    F(moec_place, function, U32),
};
static const Field moec_kernel_fields[] = {
    F(moec_kernel, name, TEXT),
};
static const Field moec_call_fields[] = {
    F(moec_call, function, U32),
    F(moec_call, kernel, U32),
    F(moec_call, origin, TEXT),
};
static const Field moec_seq2seq_fields[] = {
    F(moec_seq2seq, pad, I64),    F(moec_seq2seq, eos, I64),    F(moec_seq2seq, start, I64),
    F(moec_seq2seq, vocab, I64),  F(moec_seq2seq, width, I64),  F(moec_seq2seq, sentence_width, I64),
    F(moec_seq2seq, encode, I32), F(moec_seq2seq, cross, I32),  F(moec_seq2seq, step, I32),
    F(moec_seq2seq, score, I32),  F(moec_seq2seq, train, I32),  F(moec_seq2seq, routers, I32),
    F(moec_seq2seq, batch, I32),  F(moec_seq2seq, source, I32), F(moec_seq2seq, target, I32),
    F(moec_seq2seq, past, I32),   F(moec_seq2seq, tokens, I32),
    F(moec_seq2seq, encode_packed, I32), F(moec_seq2seq, cross_packed, I32),
    F(moec_seq2seq, step_packed, I32),   F(moec_seq2seq, score_packed, I32),
};
static const Field moec_program_fields[] = {
    F(moec_program, abi, U32),           F(moec_program, name, TEXT),
    F(moec_program, weights_hash, HASH), F(moec_program, weights_bytes, U64),
    F(moec_program, adapter_init, U64),  F(moec_program, adapter_bytes, U64),
    F(moec_program, derived_bytes, U64), F(moec_program, arena_bytes, U64),
    F(moec_program, scratch_bytes, U64), F(moec_program, n_symbols, U32),
    F(moec_program, n_functions, U32),   F(moec_program, n_tensors, U32),
    F(moec_program, symbol, REF),        F(moec_program, function, REF),
    F(moec_program, tensor, REF),        F(moec_program, prepare, REF),
    F(moec_program, seq2seq, REF),       F(moec_program, embedded, REF),
    F(moec_program, spec, REF),          F(moec_program, parameters, U64),
    F(moec_program, trainable, U64),     F(moec_program, n_places, U32),
    F(moec_program, n_sizes, U32),       F(moec_program, place, REF),
    F(moec_program, place_sizes, REF),   F(moec_program, n_kernels, U32),
    F(moec_program, n_calls, U32),       F(moec_program, kernel, REF),
    F(moec_program, call, REF),          F(moec_program, work, REF),
    F(moec_program, variant, REF),
};

static const Record symbol_record = LAYOUT(moec_symbol), value_record = LAYOUT(moec_value),
                    function_record = LAYOUT(moec_function), tensor_record = LAYOUT(moec_tensor),
                    place_record = LAYOUT(moec_place), seq2seq_record = LAYOUT(moec_seq2seq),
                    kernel_record = LAYOUT(moec_kernel), call_record = LAYOUT(moec_call),
                    program_record = LAYOUT(moec_program);

/* ---- rows -------------------------------------------------------------------------------------------- */

static uint32_t cells_of(const Record *r) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n_fields; i++)
        n += r->field[i].count;
    return n;
}

/* A table being filled: cells follow each other in the order of the fields. */
typedef struct Filler {
    const Record *record;
    Cell *cell;
    size_t n, room;
} Filler;

static Filler filler(const Program *p, const Record *r, uint32_t rows) {
    size_t room = (size_t)rows * cells_of(r);
    return (Filler){r, arena_array(p->arena, room + 1, sizeof(Cell)), 0, room};
}

static Cell *next(Filler *t) {
    CHECK(t->n < t->room);
    return &t->cell[t->n++];
}

static void add_int(Filler *t, int64_t v) {
    next(t)->i = v;
}

static void add_text(Filler *t, Str s) {
    next(t)->text = s;
}

static void add_ref(Filler *t, const char *symbol) {
    next(t)->ref = symbol;
}

/* Tables without rows are left out, and what refers to them refers to nothing. */
static const char *finish(Program *p, const Filler *t, const char *symbol, bool single) {
    CHECK(t->n == t->room);
    if (t->n == 0)
        return NULL;
    p->table[p->n_tables++] =
        (Table){t->record, symbol, single, t->cell, (uint32_t)(t->room / cells_of(t->record))};
    return symbol;
}

/* ---- values ------------------------------------------------------------------------------------------- */

static const Type *value_type(const Func *f, uint32_t i) {
    return &f->value[i < f->n_inputs ? f->input[i] : f->output[i - f->n_inputs]].type;
}

static const char *fill_shape(Program *p, const Func *f, uint32_t index) {
    uint32_t n = f->n_inputs + f->n_outputs;
    SizeRow *row = arena_array(p->arena, n + 1, sizeof *row);
    for (uint32_t i = 0; i < n; i++) {
        const Type *t = value_type(f, i);
        row[i] = (SizeRow){t->dim, (uint32_t)t->rank};
    }
    const char *symbol = arena_printf(p->arena, "shape_%u", index);
    p->size_rule[p->n_size_rules++] = (SizeRule){symbol, true, row, n};
    return symbol;
}

/* The append inside a kernel that turns its input `in` into its output `out`, if there is one. */
static const Node *append_between(const Func *k, uint32_t in, uint32_t out) {
    const Node *n = value_node(k, k->output[out]);
    return n && n->op == OP_append && n->in[0] == k->input[in] ? n : NULL;
}

/* Caches: an output that a kernel made by appending to an input shares that input's storage. */
static const Node *cache_append(const Program *p, const Func *f, uint32_t input, uint32_t *output,
                                const Func **kernel) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Func *k = module_func(p->m, (FuncId)node_int(&f->node[i], AT_func, 0));
        for (uint32_t a = 0; a < f->node[i].n_in; a++) {
            if (f->node[i].in[a] != f->input[input])
                continue;
            for (uint32_t b = 0; b < k->n_outputs; b++) {
                const Node *n = append_between(k, a, b);
                if (!n)
                    continue;
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

static const char *fill_values(Program *p, const Func *f, uint32_t index) {
    uint32_t n = f->n_inputs + f->n_outputs;
    int *alias = arena_array(p->arena, n + 1, sizeof *alias),
        *axis = arena_array(p->arena, n + 1, sizeof *axis);
    int64_t *room = arena_array(p->arena, n + 1, sizeof *room);
    for (uint32_t i = 0; i < n; i++)
        alias[i] = axis[i] = -1;
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        uint32_t out;
        const Func *k;
        const Node *a = cache_append(p, f, i, &out, &k);
        if (!a)
            continue;
        uint32_t o = f->n_inputs + out;
        alias[o] = (int)i;
        axis[i] = axis[o] = (int)node_int(a, AT_axis, 0);
        room[i] = room[o] = dim_upper(p->m->dims, k->value[a->out].type.dim[axis[i]]);
    }
    Filler t = filler(p, &value_record, n);
    for (uint32_t i = 0; i < n; i++) {
        const Type *type = value_type(f, i);
        add_text(&t, i < f->n_inputs ? f->value[f->input[i]].name : f->output_name[i - f->n_inputs]);
        add_int(&t, type->dtype);
        add_int(&t, type->rank);
        add_int(&t, alias[i]);
        add_int(&t, axis[i]);
        add_int(&t, room[i]);
    }
    return finish(p, &t, arena_printf(p->arena, "values_%u", index), false);
}

static const char *fill_functions(Program *p, const Func **entry) {
    Filler t = filler(p, &function_record, p->n_functions);
    for (uint32_t i = 0; i < p->n_functions; i++) {
        add_text(&t, entry[i]->name);
        add_int(&t, entry[i]->n_inputs);
        add_int(&t, entry[i]->n_outputs);
        add_ref(&t, fill_values(p, entry[i], i));
        add_ref(&t, fill_shape(p, entry[i], i));
        add_ref(&t, p->function[i].symbol);
    }
    return finish(p, &t, "functions", false);
}

static const char *fill_symbols(Program *p) {
    Filler t = filler(p, &symbol_record, p->n_symbols);
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        const DimSym *s = dim_sym_at(p->m->dims, p->symbol[i]);
        add_text(&t, s->name);
        add_int(&t, s->lo);
        add_int(&t, s->hi);
    }
    return finish(p, &t, "symbols", false);
}

/* Function `train` returns the gradient of tensor X as `grad.X`. */
static int gradient_output(const Func *train, Str tensor) {
    static const char prefix[] = "grad.";
    enum { N = sizeof prefix - 1 };
    for (uint32_t i = 0; train && i < train->n_outputs; i++) {
        Str s = train->output_name[i];
        if (s.n == tensor.n + N && memcmp(s.p, prefix, N) == 0 && memcmp(s.p + N, tensor.p, tensor.n) == 0)
            return (int)i;
    }
    return -1;
}

static const char *fill_tensors(Program *p) {
    const Func *train = module_find(p->m, "train");
    Filler t = filler(p, &tensor_record, p->im->n_adapters);
    for (uint32_t i = 0; i < p->im->n_adapters; i++) {
        const Param *q = &p->m->param[p->im->adapter[i]];
        const Slot *s = &p->im->slot[p->im->adapter[i]];
        add_text(&t, q->name);
        add_int(&t, q->dtype);
        add_int(&t, q->rank);
        for (int a = 0; a < 4; a++)
            add_int(&t, a < q->rank ? q->dim[a] : 0);
        add_int(&t, (int64_t)s->offset);
        add_int(&t, (int64_t)s->bytes);
        add_int(&t, gradient_output(train, q->name));
    }
    return finish(p, &t, "tensors", false);
}

/* ---- what training takes of the arena ------------------------------------------------------------------ */

typedef struct Spot {
    int64_t offset;
    Dim bytes;
    uint32_t function; /* of the program */
} Spot;

static int by_offset(const void *a, const void *b) {
    const Spot *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->function != y->function)
        return x->function < y->function ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Sizes are functions of the symbols, few of them different: places name theirs by number. */
static const char *fill_places(Program *p, const Func **entry, uint32_t *n_places, uint32_t *n_sizes,
                               const char **rule) {
    DimTable *dims = p->m->dims;
    Vec(Spot) list = {0};
    Vec(Dim) sizes = {0};
    for (uint32_t e = 0; e < p->n_functions && module_find(p->m, "train"); e++) {
        const Func *f = entry[e];
        for (uint32_t i = 0; i < f->n_nodes; i++) {
            const Attr *place = node_attr(&f->node[i], AT_place);
            for (uint32_t k = 0; place && k < place->ints.n; k++) {
                const Type *type = &f->value[f->node[i].out + k].type;
                Spot x = {
                    place->ints.v[k],
                    dim_mul(dims, type_count(dims, type), dim_const(dims, (int64_t)dtype_bytes(type->dtype))),
                    e};
                if (x.offset >= 0)
                    vec_push(&list, x);
            }
        }
    }
    if (list.count)
        qsort(list.item, list.count, sizeof *list.item, by_offset);
    Filler t = filler(p, &place_record, (uint32_t)list.count);
    for (size_t i = 0; i < list.count; i++) {
        size_t s = 0;
        while (s < sizes.count && sizes.item[s] != list.item[i].bytes)
            s++;
        if (s == sizes.count)
            vec_push(&sizes, list.item[i].bytes);
        add_int(&t, list.item[i].offset);
        add_int(&t, (int64_t)s);
        add_int(&t, list.item[i].function);
    }
    *n_places = (uint32_t)list.count;
    *n_sizes = (uint32_t)sizes.count;
    *rule = NULL;
    if (sizes.count) {
        SizeRow *row = arena_alloc(p->arena, sizeof *row);
        Dim *dim = arena_array(p->arena, sizes.count, sizeof *dim);
        memcpy(dim, sizes.item, sizes.count * sizeof *dim);
        *row = (SizeRow){dim, *n_sizes};
        *rule = "place_sizes";
        p->size_rule[p->n_size_rules++] = (SizeRule){*rule, false, row, 1};
    }
    vec_free(&list);
    vec_free(&sizes);
    return finish(p, &t, "places", false);
}

/* ---- what profiles are made of ------------------------------------------------------------------------------ */

typedef struct ProfileTables {
    uint32_t n_kernels, n_calls;
    const char *kernels, *calls, *work;
} ProfileTables;

static uint32_t kernel_number(const Program *p, const LoopKernel *k) {
    uint32_t i = 0;
    while (p->kernel[i] != k)
        i++;
    return i;
}

static void fill_calls(const Program *p, Filler *t, const CallList *l, uint32_t function) {
    for (uint32_t i = 0; i < l->n_calls; i++) {
        add_int(t, function);
        add_int(t, kernel_number(p, l->call[i].kernel));
        add_text(t, l->call[i].origin);
    }
}

static const char *fill_work(Program *p) {
    SizeRow *row = arena_array(p->arena, p->n_kernels + 1, sizeof *row);
    for (uint32_t i = 0; i < p->n_kernels; i++) {
        Dim *dim = arena_array(p->arena, 2, sizeof *dim);
        dim[0] = work_flops(p->m, p->kernel_func[i]);
        dim[1] = work_bytes(p->m, p->kernel_func[i]);
        row[i] = (SizeRow){dim, 2};
    }
    p->size_rule[p->n_size_rules++] = (SizeRule){"work", true, row, p->n_kernels};
    return "work";
}

static ProfileTables fill_profile(Program *p) {
    ProfileTables r = {0};
    const CallList *prepare = p->prepare;
    if (!p->o->profile || !p->n_kernels)
        return r;
    r.n_kernels = p->n_kernels;
    for (uint32_t i = 0; i < p->n_functions; i++)
        r.n_calls += p->function[i].n_calls;
    r.n_calls += prepare ? prepare->n_calls : 0;
    Filler k = filler(p, &kernel_record, r.n_kernels), c = filler(p, &call_record, r.n_calls);
    for (uint32_t i = 0; i < p->n_kernels; i++)
        add_text(&k, p->kernel[i]->name);
    for (uint32_t i = 0; i < p->n_functions; i++)
        fill_calls(p, &c, &p->function[i], i);
    if (prepare)
        fill_calls(p, &c, prepare, p->n_functions);
    r.kernels = finish(p, &k, "kernels", false);
    r.calls = finish(p, &c, "calls", false);
    r.work = fill_work(p);
    return r;
}

/* ---- the program ------------------------------------------------------------------------------------------ */

static int symbol_index(const Program *p, const char *name) {
    for (uint32_t i = 0; i < p->n_symbols; i++)
        if (str_is(dim_sym_at(p->m->dims, p->symbol[i])->name, name))
            return (int)i;
    return -1;
}

/* Width of the vector that routers read of a whole sentence; 0 where none does. */
static int64_t sentence_width(const Program *p, const Func **entry) {
    int64_t width = 0;
    for (uint32_t i = 0; i < p->n_functions; i++)
        for (uint32_t k = 0; k < entry[i]->n_inputs; k++) {
            const Value *v = &entry[i]->value[entry[i]->input[k]];
            if (str_is(v->name, "sentence") && v->type.rank == 2)
                dim_is_const(p->m->dims, v->type.dim[1], &width);
        }
    return width;
}

/* Single functions of a sequence-to-sequence model make a plain program. */
static bool can_decode(const Module *m) {
    return m->s2s.present && module_find(m, "encode") && module_find(m, "cross") && module_find(m, "step");
}

/* Which function has the name; -1: none. */
static void add_function(Filler *t, const Program *p, const Func **entry, const char *name) {
    int index = -1;
    for (uint32_t i = 0; i < p->n_functions; i++)
        if (str_is(entry[i]->name, name))
            index = (int)i;
    add_int(t, index);
}

static const char *fill_seq2seq(Program *p, const Func **entry) {
    static const char *const function[] = {"encode", "cross", "step", "score", "train", "routers"};
    static const char *const symbol[] = {"B", "S", "T", "P", "N"};
    static const char *const packed[] = {"encode_packed", "cross_packed", "step_packed", "score_packed"};
    const Seq2Seq *s = &p->m->s2s;
    Filler t = filler(p, &seq2seq_record, can_decode(p->m));
    if (!t.room)
        return NULL;
    add_int(&t, s->pad);
    add_int(&t, s->eos);
    add_int(&t, s->start);
    add_int(&t, s->vocab);
    add_int(&t, s->width);
    add_int(&t, sentence_width(p, entry));
    for (size_t j = 0; j < sizeof function / sizeof *function; j++)
        add_function(&t, p, entry, function[j]);
    for (size_t j = 0; j < sizeof symbol / sizeof *symbol; j++)
        add_int(&t, symbol_index(p, symbol[j]));
    for (size_t j = 0; j < sizeof packed / sizeof *packed; j++)
        add_function(&t, p, entry, packed[j]);
    return finish(p, &t, "seq2seq", true);
}

void program_fill_tables(Program *p, const Func **entry) {
    const Image *im = p->im;
    p->table = arena_array(p->arena, p->n_functions + 8, sizeof *p->table);
    p->size_rule = arena_array(p->arena, p->n_functions + 2, sizeof *p->size_rule);
    uint32_t n_places, n_sizes;
    const char *sizes, *symbols = fill_symbols(p), *functions = fill_functions(p, entry),
                       *tensors = fill_tensors(p), *seq2seq = fill_seq2seq(p, entry),
                       *places = fill_places(p, entry, &n_places, &n_sizes, &sizes);
    ProfileTables profile = fill_profile(p);
    Filler t = filler(p, &program_record, 1);
    add_int(&t, MOEC_ABI);
    add_text(&t, str_c(p->o->prefix));
    add_int(&t, (int64_t)im->hash);
    add_int(&t, (int64_t)im->weights_bytes);
    add_int(&t, (int64_t)im->adapter_init);
    add_int(&t, (int64_t)im->adapter_bytes);
    add_int(&t, (int64_t)im->derived_bytes);
    add_int(&t, p->arena_bytes);
    add_int(&t, p->scratch);
    add_int(&t, p->n_symbols);
    add_int(&t, p->n_functions);
    add_int(&t, im->n_adapters);
    add_ref(&t, symbols);
    add_ref(&t, functions);
    add_ref(&t, tensors);
    add_ref(&t, p->prepare ? p->prepare->symbol : NULL);
    add_ref(&t, seq2seq);
    add_ref(&t, p->weights);
    add_ref(&t, PROGRAM_SPEC);
    add_int(&t, (int64_t)p->o->parameters);
    add_int(&t, (int64_t)p->o->trainable);
    add_int(&t, n_places);
    add_int(&t, n_sizes);
    add_ref(&t, places);
    add_ref(&t, sizes);
    add_int(&t, profile.n_kernels);
    add_int(&t, profile.n_calls);
    add_ref(&t, profile.kernels);
    add_ref(&t, profile.calls);
    add_ref(&t, profile.work);
    add_ref(&t, p->o->dispatch ? PROGRAM_VARIANT : NULL);
    finish(p, &t, "program", true);
}
