/* A program as C99: model.c and model.h, in the order a reader wants it. Kernels first, each headed by the graph it
 * computes; then a function a graph function, which is a list of kernel calls; tables last. sources.c makes several files
 * of the same pieces. */
#include "print_program.h"

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

static void print_call(const ProgramText *w, const CallList *l, uint32_t i, LineMarks *marks, Text *c) {
    const KernelCall *call = &l->call[i];
    c_mark(marks, c, call->line);
    if (call->origin.n) {
        text_printf(c, "    /* ");
        c_comment(c, call->origin);
        text_printf(c, " */\n");
    }
    text_printf(c, "    %s%s%.*s(f", w->shared ? w->p->o->prefix : "", w->shared ? "_" : "", (int)call->kernel->name.n,
                call->kernel->name.p);
    for (uint32_t j = 0; j < call->n_places; j++) {
        text_printf(c, ",\n        ");
        print_place(&call->place[j], c);
    }
    text_printf(c, ");\n");
    if (w->p->o->profile) text_printf(c, "    moec_profile_mark(f, %u);\n", l->first + i);
}

static void print_title(const ProgramText *w, const CallList *l, Text *c) {
    text_printf(c, "/* %s", w->p->prepare && l == w->p->prepare ? "what depends on the adapter alone, computed whenever one is loaded: " : "function ");
    c_comment(c, l->name);
}

static void print_head(const ProgramText *w, const CallList *l, LineMarks *marks, Text *c) {
    print_title(w, l, c);
    text_printf(c, " */\n");
    c_mark(marks, c, l->line);
    text_printf(c, "static void %s(const moec_frame *f) {\n", l->symbol);
    if (w->p->o->profile) text_printf(c, "    moec_profile_begin(f);\n");
}

static void print_end(const CallList *l, LineMarks *marks, Text *c) {
    c_mark(marks, c, l->line);
    text_printf(c, "}\n");
    c_mark(marks, c, 0);
    text_printf(c, "\n");
}

void print_calls(const ProgramText *w, const CallList *l, LineMarks *marks, Text *c) {
    print_head(w, l, marks, c);
    for (uint32_t i = 0; i < l->n_calls; i++) print_call(w, l, i, marks, c);
    if (l->n_calls == 0) text_printf(c, "    (void)f;\n");
    print_end(l, marks, c);
}

uint32_t print_calls_part(const ProgramText *w, const CallList *l, uint32_t part, uint32_t from, uint32_t to, size_t most,
                          LineMarks *marks, Text *c) {
    size_t start = c->n;
    print_title(w, l, c);
    text_printf(c, ", from call %u of %u on */\n", from + 1, l->n_calls);
    c_mark(marks, c, l->line);
    text_printf(c, "void %s_%s_%u(const moec_frame *f) {\n", w->p->o->prefix, l->symbol, part);
    uint32_t i = from;
    while (i < to && (i == from || c->n - start < most)) print_call(w, l, i++, marks, c);
    print_end(l, marks, c);
    return i;
}

void print_calls_parts(const ProgramText *w, const CallList *l, uint32_t parts, LineMarks *marks, Text *c) {
    print_head(w, l, marks, c);
    for (uint32_t i = 1; i <= parts; i++) text_printf(c, "    %s_%s_%u(f);\n", w->p->o->prefix, l->symbol, i);
    if (!parts) text_printf(c, "    (void)f;\n");
    print_end(l, marks, c);
}

/* ---- size rules ---------------------------------------------------------------------------------------- */

static bool uses_symbol(const Program *p, const SizeRule *r, uint32_t sym) {
    DimTable *t = p->m->dims;
    for (uint32_t i = 0; i < r->n_rows; i++)
        for (uint32_t k = 0; k < r->row[i].n; k++)
            if (dim_subst(t, r->row[i].dim[k], sym, dim_const(t, 1)) != r->row[i].dim[k]) return true;
    return false;
}

static void print_size_rule(ProgramText *w, const SizeRule *r, Text *c) {
    const Program *p = w->p;
    SymbolNames *names = &w->names;
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

bool table_is_shared(const ProgramText *w, const Table *t) {
    for (uint32_t i = 0; i < t->record->n_fields; i++)
        if (t->record->field[i].kind == CELL_REF) return false;
    return w->shared;
}

static void print_table_name(const ProgramText *w, const Table *t, Text *c) {
    bool shared = table_is_shared(w, t);
    text_printf(c, "%s%s%s", shared ? w->p->o->prefix : "", shared ? "_" : "", t->symbol);
}

static void print_signed(int64_t v, Text *c) {
    if (v == INT64_MAX) text_printf(c, "INT64_MAX");
    else if (v > INT32_MAX || v < INT32_MIN) text_printf(c, "INT64_C(%" PRId64 ")", v);
    else text_printf(c, "%" PRId64, v);
}

static void print_cell(const ProgramText *w, CellKind kind, const Cell *x, Text *c) {
    switch (kind) {
    case CELL_TEXT: c_string(c, x->text); break;
    case CELL_REF: {
        const Table *t = x->ref ? find_table(w->p, x->ref) : NULL;
        if (t && t->single) text_add(c, "&", 1);
        if (t) print_table_name(w, t, c);
        else text_printf(c, "%s", x->ref ? x->ref : "NULL");
        break;
    }
    case CELL_U64: text_printf(c, "UINT64_C(%" PRIu64 ")", (uint64_t)x->i); break;
    case CELL_HASH: text_printf(c, "UINT64_C(0x%016" PRIx64 ")", (uint64_t)x->i); break;
    default: print_signed(x->i, c);
    }
}

void print_table_declaration(const ProgramText *w, const Table *t, Text *c) {
    text_printf(c, "extern const %s ", t->record->type);
    print_table_name(w, t, c);
    text_printf(c, "%s;\n", t->single ? "" : "[]");
}

/* Arrays have a row a line; single structs a field a line, those that are 0 left out. */
void print_table(const ProgramText *w, const Table *t, Text *c) {
    const Record *r = t->record;
    const Cell *x = t->cell;
    text_printf(c, "%sconst %s ", table_is_shared(w, t) ? "" : "static ", r->type);
    print_table_name(w, t, c);
    text_printf(c, "%s = {\n", t->single ? "" : "[]");
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
                print_cell(w, f->kind, &x[k], c);
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

static void print_variant(const Program *p, Text *c) {
    const char *x = p->o->prefix;
    if (!p->o->dispatch) return;
    text_printf(c, "static const char " PROGRAM_VARIANT "[] = MOEC_VARIANT_TEXT;\n\n");
    text_printf(c, "#define %s_program MOEC_OF_VARIANT(%s_program)\nconst moec_program *%s_program(void);\n\n", x, x, x);
}

void print_tables(ProgramText *w, Text *c) {
    const Program *p = w->p;
    for (uint32_t i = 0; i < p->n_size_rules; i++) print_size_rule(w, &p->size_rule[i], c);
    if (p->weights) text_printf(c, "extern const unsigned char %s[];\n\n", p->weights);
    print_spec(p, c);
    print_variant(p, c);
    for (uint32_t i = 0; i < p->n_tables; i++)
        if (!table_is_shared(w, &p->table[i])) print_table(w, &p->table[i], c);
    text_printf(c, "const moec_program *%s_program(void) {\n    return &program;\n}\n", p->o->prefix);
}

/* ---- text ------------------------------------------------------------------------------------------------ */

void print_banner(ProgramText *w, Text *c) {
    const Program *p = w->p;
    text_printf(c, "/* A model compiled by moec. Weights file %016" PRIx64 ", %" PRIu64 " bytes. Adapter: ", p->im->hash, p->im->weights_bytes);
    if (p->m->spec.n) c_comment(c, p->m->spec);
    else text_printf(c, "none");
    text_printf(c, ".\n *\n * Run-time extents:\n");
    for (uint32_t i = 0; i < p->n_symbols; i++) {
        const DimSym *s = dim_sym_at(p->m->dims, p->symbol[i]);
        text_printf(c, " *   %-4s ", c_symbol(&w->names, p->symbol[i]));
        c_comment(c, s->name);
        text_printf(c, ", %" PRId64 " to %" PRId64 "\n", s->lo, s->hi);
    }
    text_printf(c, " *\n * Arena %" PRId64 " bytes, scratch %" PRId64 " bytes a thread. Buffers are NAME_3: y written, else read,\n * or scratch. Variables are name3. */\n",
                p->arena_bytes, p->scratch);
}

void print_includes(const ProgramText *w, Text *c) {
    if (!w->p->o->plain_matmul) text_printf(c, "#define MOEC_MATMUL_OPENBLAS 1\n");
    for (uint32_t i = 0; i < w->p->n_routines; i++)
        if (w->p->routine[i]->dots && !w->p->o->plain_c) {
            text_printf(c, "#define MOEC_DOTS 1 /* instructions for products of integers and bf16, where there are */\n");
            break;
        }
    text_printf(c, "#include \"moec_kernel.h\"\n\n#include \"%s.h\"\n\n", w->p->o->prefix);
    text_printf(c, "/* Where values live: bytes into the weights file, the adapter, what `prepare` made of it, the arena; or an argument. */\n"
                   "#define WEIGHTS(type, at) ((const type *)(const void *)(f->weights + (at)))\n"
                   "#define ADAPTER(type, at) ((const type *)(const void *)(f->adapter + (at)))\n"
                   "#define DERIVED(type, at) ((type *)(void *)(f->derived + (at)))\n"
                   "#define ARENA(type, at) ((type *)(void *)(f->arena + (at)))\n"
                   "#define ARG(type, i) ((type *)f->arg[i])\n\n");
    c_print_routines(w->p->routine, w->p->n_routines, !w->p->o->plain_c, c);
}

static void print_all(const Program *p, LineMarks *marks, Text *c) {
    ProgramText w = {.p = p, .names = {.dims = p->m->dims, .slot = p->slot}};
    print_banner(&w, c);
    print_includes(&w, c);
    for (uint32_t i = 0; i < p->n_kernels; i++) c_print_kernel(p->kernel[i], &w.names, p->scratch, NULL, marks, c);
    if (p->prepare) print_calls(&w, p->prepare, marks, c);
    for (uint32_t i = 0; i < p->n_functions; i++) print_calls(&w, &p->function[i], marks, c);
    print_tables(&w, c);
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
