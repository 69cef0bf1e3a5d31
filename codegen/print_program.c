/* A program as C99: model.c and model.h, in the order a reader wants it. Kernels first, each headed by the graph it
 * computes; then a function a graph function, which is a list of kernel calls; tables last. */
#include "print_c.h"
#include "program.h"

#include <inttypes.h>

/* ---- entry functions ------------------------------------------------------------------------------- */

/* An argument, a parameter, or the arena; a comment names the first two. */
static void print_place(const Place *x, Text *c) {
    static const char *const base[] = {[PLACE_WEIGHTS] = "WEIGHTS", [PLACE_ADAPTER] = "ADAPTER", [PLACE_DERIVED] = "DERIVED",
                                       [PLACE_ARENA] = "ARENA",     [PLACE_ARG] = "ARG"};
    text_printf(c, "%s(%s, %" PRIu64 ")", base[x->where], c_type(x->dtype), x->at);
    if (x->where == PLACE_ARENA) return;
    text_printf(c, " /* ");
    c_comment(c, x->name);
    text_printf(c, " */");
}

static void print_calls(const Program *p, const CallList *l, const char *what, LineMarks *marks, Text *c) {
    text_printf(c, "/* %s", what);
    c_comment(c, l->name);
    text_printf(c, " */\n");
    c_mark(marks, c, l->line);
    text_printf(c, "static void %s(const moec_frame *f) {\n", l->symbol);
    if (p->o->profile) text_printf(c, "    moec_profile_begin(f);\n");
    for (uint32_t i = 0; i < l->n_calls; i++) {
        const KernelCall *call = &l->call[i];
        c_mark(marks, c, call->line);
        if (call->origin.n) {
            text_printf(c, "    /* ");
            c_comment(c, call->origin);
            text_printf(c, " */\n");
        }
        text_printf(c, "    %.*s(f", (int)call->kernel->name.n, call->kernel->name.p);
        for (uint32_t j = 0; j < call->n_places; j++) {
            text_printf(c, ",\n        ");
            print_place(&call->place[j], c);
        }
        text_printf(c, ");\n");
        if (p->o->profile) text_printf(c, "    moec_profile_mark(f, %u);\n", l->first + i);
    }
    c_mark(marks, c, l->line);
    if (l->n_calls == 0) text_printf(c, "    (void)f;\n");
    text_printf(c, "}\n");
    c_mark(marks, c, 0);
    text_printf(c, "\n");
}

/* ---- size rules ---------------------------------------------------------------------------------------- */

static bool uses_symbol(const Program *p, const SizeRule *r, uint32_t sym) {
    DimTable *t = p->m->dims;
    for (uint32_t i = 0; i < r->n_rows; i++)
        for (uint32_t k = 0; k < r->row[i].n; k++)
            if (dim_subst(t, r->row[i].dim[k], sym, dim_const(t, 1)) != r->row[i].dim[k]) return true;
    return false;
}

static void print_size_rule(const Program *p, SymbolNames *names, const SizeRule *r, Text *c) {
    const char *type = r->selects ? "int64_t" : "uint64_t", *out = r->selects ? "extent" : "bytes";
    text_printf(c, "static void %s(const int64_t *sym, %s%s *%s) {\n", r->symbol, r->selects ? "uint32_t i, " : "", type, out);
    for (uint32_t s = 0; s < p->n_symbols; s++)
        if (uses_symbol(p, r, p->symbol[s])) text_printf(c, "    const int64_t %s = sym[%u];\n", c_symbol(names, p->symbol[s]), s);
    text_printf(c, "    (void)sym;\n");
    if (r->selects) text_printf(c, "    switch (i) {\n");
    for (uint32_t i = 0; i < r->n_rows; i++) {
        if (!r->row[i].n) continue;
        if (r->selects) text_printf(c, "    case %u:", i);
        for (uint32_t k = 0; k < r->row[i].n; k++) {
            text_printf(c, r->selects ? " %s[%u] = " : "    %s[%u] = (uint64_t)(", out, k);
            dim_print_c(p->m->dims, r->row[i].dim[k], c, c_symbol, names);
            text_printf(c, r->selects ? ";" : ");\n");
        }
        if (r->selects) text_printf(c, " break;\n");
    }
    if (r->selects) text_printf(c, "    default: (void)%s;\n    }\n", out);
    text_printf(c, "}\n\n");
}

/* ---- tables ---------------------------------------------------------------------------------------------- */

static const Table *find_table(const Program *p, const char *symbol) {
    for (uint32_t i = 0; i < p->n_tables; i++)
        if (p->table[i].symbol == symbol) return &p->table[i];
    return NULL;
}

static void print_signed(int64_t v, Text *c) {
    if (v == INT64_MAX) text_printf(c, "INT64_MAX");
    else if (v > INT32_MAX || v < INT32_MIN) text_printf(c, "INT64_C(%" PRId64 ")", v);
    else text_printf(c, "%" PRId64, v);
}

static void print_cell(const Program *p, CellKind kind, const Cell *x, Text *c) {
    switch (kind) {
    case CELL_TEXT: c_string(c, x->text); break;
    case CELL_REF: {
        const Table *t = x->ref ? find_table(p, x->ref) : NULL;
        text_printf(c, "%s%s", t && t->single ? "&" : "", x->ref ? x->ref : "NULL");
        break;
    }
    case CELL_U64: text_printf(c, "UINT64_C(%" PRIu64 ")", (uint64_t)x->i); break;
    case CELL_HASH: text_printf(c, "UINT64_C(0x%016" PRIx64 ")", (uint64_t)x->i); break;
    default: print_signed(x->i, c);
    }
}

/* Arrays have a row a line; single structs a field a line, those that are 0 left out. */
static void print_table(const Program *p, const Table *t, Text *c) {
    const Record *r = t->record;
    const Cell *x = t->cell;
    text_printf(c, "static const %s %s%s = {\n", r->type, t->symbol, t->single ? "" : "[]");
    for (uint32_t row = 0; row < t->n_rows; row++) {
        if (!t->single) text_printf(c, "    {");
        for (uint32_t i = 0; i < r->n_fields; x += r->field[i++].count) {
            const Field *f = &r->field[i];
            bool blank = f->count == 1 && !x->i && !x->ref && f->kind != CELL_TEXT;
            if (t->single && blank) continue;
            if (t->single) text_printf(c, "    .%s = ", f->name);
            else if (i) text_printf(c, ", ");
            for (uint32_t k = 0; k < f->count; k++) {
                text_printf(c, "%s", k ? ", " : f->count > 1 ? "{" : "");
                print_cell(p, f->kind, &x[k], c);
            }
            text_printf(c, "%s%s", f->count > 1 ? "}" : "", t->single ? ",\n" : "");
        }
        if (!t->single) text_printf(c, "},\n");
    }
    text_printf(c, "};\n\n");
}

/* C99 compilers need take no more than 4095 characters a literal: an array of bytes. */
static void print_spec(const Program *p, Text *c) {
    Str spec = p->m->spec;
    text_printf(c, "static const char " PROGRAM_SPEC "[] = {");
    for (size_t i = 0; i < spec.n; i++) text_printf(c, "%s%d,", i % 24 ? " " : "\n    ", (unsigned char)spec.p[i]);
    text_printf(c, "\n    0};\n\n");
}

/* ---- text ------------------------------------------------------------------------------------------------ */

static void print_banner(const Program *p, SymbolNames *names, Text *c) {
    text_printf(c, "/* A model compiled by moec. Weights file %016" PRIx64 ", %" PRIu64 " bytes. Adapter: ", p->im->hash, p->im->weights_bytes);
    if (p->m->spec.n) c_comment(c, p->m->spec);
    else text_printf(c, "none");
    text_printf(c, ".\n *\n * Run-time extents:\n");
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        const DimSym *s = dim_sym_at(p->m->dims, p->symbol[i]);
        text_printf(c, " *   %-4s ", c_symbol(names, p->symbol[i]));
        c_comment(c, s->name);
        text_printf(c, ", %" PRId64 " to %" PRId64 "\n", s->lo, s->hi);
    }
    text_printf(c, " *\n * Arena %" PRId64 " bytes, scratch %" PRId64 " bytes a thread. Buffers are NAME_3: y written, else read,\n * or scratch. Variables are name3. */\n",
                p->arena_bytes, p->scratch);
    if (!p->o->plain_matmul) text_printf(c, "#define MOEC_MATMUL_OPENBLAS 1\n");
    text_printf(c, "#include \"moec_kernel.h\"\n\n#include \"%s.h\"\n\n", p->o->prefix);
    text_printf(c, "/* Where values live: bytes into the weights file, the adapter, what `prepare` made of it, the arena; or an argument. */\n"
                   "#define WEIGHTS(type, at) ((const type *)(const void *)(f->weights + (at)))\n"
                   "#define ADAPTER(type, at) ((const type *)(const void *)(f->adapter + (at)))\n"
                   "#define DERIVED(type, at) ((type *)(void *)(f->derived + (at)))\n"
                   "#define ARENA(type, at) ((type *)(void *)(f->arena + (at)))\n"
                   "#define ARG(type, i) ((type *)f->arg[i])\n\n");
}

static void print_all(const Program *p, LineMarks *marks, Text *c) {
    SymbolNames names = {.dims = p->m->dims, .slot = p->slot};
    print_banner(p, &names, c);
    for (uint32_t i = 0; i < p->n_kernels; i++) c_print_kernel(p->kernel[i], &names, p->scratch, marks, c);
    if (p->prepare) print_calls(p, p->prepare, "what depends on the adapter alone, computed whenever one is loaded: ", marks, c);
    for (uint32_t i = 0; i < p->n_functions; i++) print_calls(p, &p->function[i], "function ", marks, c);
    for (uint32_t i = 0; i < p->n_size_rules; i++) print_size_rule(p, &names, &p->size_rule[i], c);
    if (p->weights) text_printf(c, "extern const unsigned char %s[];\n\n", p->weights);
    print_spec(p, c);
    for (uint32_t i = 0; i < p->n_tables; i++) print_table(p, &p->table[i], c);
    text_printf(c, "const moec_program *%s_program(void) {\n    return &program;\n}\n", p->o->prefix);
}

void program_print_c(const Program *p, Text *c) {
    LineMarks marks = {0};
    Text plain = {0};
    bool lines = p->o->ir_file != NULL;
    print_all(p, &marks, lines ? &plain : c);
    if (lines) c_print_lines(&plain, &marks, p->o->ir_file, arena_printf(p->arena, "%s.c", p->o->prefix), c);
    text_free(&plain);
    vec_free(&marks);
}

void program_print_header(const Program *p, Text *h) {
    const char *x = p->o->prefix;
    text_printf(h, "/* The compiled model %s: open it with moec_open(%s_program(), ...). See moec_rt.h. */\n", x, x);
    text_printf(h, "#ifndef %s_MODEL_H\n#define %s_MODEL_H\n\n#include \"moec_rt.h\"\n\n", x, x);
    text_printf(h, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\nconst moec_program *%s_program(void);\n\n", x);
    text_printf(h, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}
