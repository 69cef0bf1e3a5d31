/* A program as several files of C, none longer than a compiler or reader likes.
 *
 * A kernel stands in the file of the kind of layer whose function calls it first: of the encoder, of the decoder, of training
 * before and behind the loss, of any other function. Behind a kind's kernels come the functions, in parts where they are
 * long. A kind too large for one file has several, numbered. What files share is declared in PREFIX_kernels.h and global under
 * the prefix; PREFIX.c holds what is left: the functions as calls of their parts, and the tables. */
#include "print_program.h"

#include <string.h>

/* Function; the kind of what it does, up to the output `loss` and behind it. */
static const struct {
    const char *function, *kind, *behind;
} kinds[] = {
    {"encode", "encoder", NULL}, {"cross", "decoder", NULL}, {"step", "decoder", NULL},
    {"score", "decoder", NULL},  {"train", "train_forward", "train_backward"},
    {"encode_packed", "encoder", NULL}, {"cross_packed", "decoder", NULL},
    {"step_packed", "decoder", NULL},   {"score_packed", "decoder", NULL},
};

static const struct {
    const char *kind, *what;
} titles[] = {
    {"prepare", "what depends on the adapter alone"},
    {"encoder", "the encoder"},
    {"decoder", "the decoder: keys and values of the encoder's states, a step, a given target"},
    {"train_forward", "training: up to the loss"},
    {"train_backward", "training: the gradients"},
    {"tables", "tables: tensors, places, values, symbols"},
};

/* A kernel, a part of a function, or a table. */
typedef struct Piece {
    const char *kind;
    const char *name; /* for diagnostics */
    Text text;
    LineMarks marks; /* of the IR file, where there is one */
} Piece;

typedef struct Splitter {
    ProgramText w;
    Arena *a;
    Vec(Piece) piece;
    Vec(const char *) kind; /* in the order of their first piece */
    Vec(Source) file;
    Vec(const char *) global; /* names of parts and tables behind PREFIX_ */
    size_t large, most;
    bool refused;
    Diag *d;
} Splitter;

/* ---- kinds ------------------------------------------------------------------------------------------- */

static bool writes_loss(const KernelCall *call) {
    for (uint32_t j = 0; j < call->n_places; j++)
        if (call->place[j].where == PLACE_ARG && call->kernel->buf.item[j]->written && str_is(call->place[j].name, "loss")) return true;
    return false;
}

/* The first call behind the loss; all of them are in front of it where there is none. */
static uint32_t calls_to_loss(const CallList *l) {
    for (uint32_t i = 0; i < l->n_calls; i++)
        if (writes_loss(&l->call[i])) return i + 1;
    return l->n_calls;
}

static bool is_word(Str s) {
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9' && i) || (s.p[i] == '_' && i))) return false;
    return s.n > 0 && s.n < 48;
}

/* The same pointer for the same kind. */
static const char *add_kind(Splitter *s, const char *name) {
    for (size_t i = 0; i < s->kind.count; i++)
        if (strcmp(s->kind.item[i], name) == 0) return s->kind.item[i];
    vec_push(&s->kind, name);
    return name;
}

static const char *kind_of(Splitter *s, const CallList *l, bool behind) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (str_is(l->name, kinds[i].function)) return add_kind(s, behind && kinds[i].behind ? kinds[i].behind : kinds[i].kind);
    return add_kind(s, is_word(l->name) ? arena_strndup(s->a, l->name.p, l->name.n) : l->symbol);
}

static const char *title_of(Splitter *s, const char *kind) {
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (strcmp(titles[i].kind, kind) == 0) return titles[i].what;
    return arena_printf(s->a, "function `%s`", kind);
}

/* ---- pieces -------------------------------------------------------------------------------------------- */

static Piece *add_piece(Splitter *s, const char *kind, const char *name) {
    vec_push(&s->piece, ((Piece){.kind = kind, .name = name}));
    return &s->piece.item[s->piece.count - 1];
}

static void free_piece(Piece *q) {
    text_free(&q->text);
    vec_free(&q->marks);
}

/* Appends it to the text of a file that is called so. */
static void print_piece(const Splitter *s, const Piece *q, const char *file, Text *t) {
    const char *ir = s->w.p->o->ir_file;
    if (ir) c_print_lines(&q->text, &q->marks, ir, file, t);
    else text_add(t, q->text.p, q->text.n);
}

/* The bytes it takes in a file, whose name is about as long. */
static size_t piece_size(const Splitter *s, const Piece *q, const char *file) {
    Text t = {0};
    if (!s->w.p->o->ir_file) return q->text.n;
    print_piece(s, q, file, &t);
    size_t n = t.n;
    text_free(&t);
    return n;
}

/* The kernels that no function before this one calls. */
static void add_kernels(Splitter *s, const CallList *l, bool *seen) {
    const Program *p = s->w.p;
    uint32_t loss = calls_to_loss(l);
    for (uint32_t i = 0; i < l->n_calls; i++) {
        uint32_t k = 0;
        while (p->kernel[k] != l->call[i].kernel) k++;
        if (seen[k]) continue;
        seen[k] = true;
        Str name = p->kernel[k]->name;
        Piece *q = add_piece(s, kind_of(s, l, i >= loss), arena_printf(s->a, "kernel '%.*s'", (int)name.n, name.p));
        c_print_kernel(p->kernel[k], &s->w.names, p->scratch, p->o->prefix, &q->marks, &q->text);
    }
}

/* Returns the number of parts; declares them. */
static uint32_t add_parts(Splitter *s, const CallList *l, Text *header) {
    uint32_t part = 0, loss = calls_to_loss(l);
    for (uint32_t i = 0; i < l->n_calls;) {
        Piece *q = add_piece(s, kind_of(s, l, i >= loss), arena_printf(s->a, "function '%.*s'", (int)l->name.n, l->name.p));
        i = print_calls_part(&s->w, l, ++part, i, i < loss ? loss : l->n_calls, s->large / 4, &q->marks, &q->text);
        text_printf(header, "void %s_%s_%u(const moec_frame *f);\n", s->w.p->o->prefix, l->symbol, part);
        vec_push(&s->global, arena_printf(s->a, "%s_%u", l->symbol, part));
    }
    return part;
}

static void add_tables(Splitter *s, Text *header) {
    const Program *p = s->w.p;
    const char *kind = add_kind(s, "tables");
    for (uint32_t i = 0; i < p->n_tables; i++) {
        if (!table_is_shared(&s->w, &p->table[i])) continue;
        print_table(&s->w, &p->table[i], &add_piece(s, kind, arena_printf(s->a, "table '%s'", p->table[i].symbol))->text);
        print_table_declaration(&s->w, &p->table[i], header);
        vec_push(&s->global, p->table[i].symbol);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static Text *add_file(Splitter *s, const char *name, const char *what) {
    vec_push(&s->file, ((Source){.name = name, .what = what}));
    return &s->file.item[s->file.count - 1].text;
}

static void print_file_head(const Splitter *s, const char *title, Text *t) {
    const char *x = s->w.p->o->prefix;
    text_printf(t, "/* Of the compiled model %s: %s. */\n#include \"%s_kernels.h\"\n\n", x, title, x);
}

/* How many files the pieces of one kind take, in order, as many a file as fit; which of them each piece goes to. */
static uint32_t place_pieces(const Splitter *s, const char *kind, const char *title, uint32_t *file) {
    Text head = {0};
    print_file_head(s, title, &head);
    size_t size = 0;
    uint32_t n = 0;
    for (size_t i = 0; i < s->piece.count; i++) {
        if (s->piece.item[i].kind != kind) continue;
        size_t own = piece_size(s, &s->piece.item[i], arena_printf(s->a, "%s_%s_%u.c", s->w.p->o->prefix, kind, n));
        if (!n || size + own > s->large) {
            size = head.n;
            n++;
        }
        size += own;
        file[i] = n;
    }
    text_free(&head);
    return n;
}

static void add_kind_files(Splitter *s, const char *kind) {
    const char *x = s->w.p->o->prefix, *title = title_of(s, kind);
    uint32_t *file = arena_array(s->a, s->piece.count + 1, sizeof *file), n = place_pieces(s, kind, title, file);
    for (uint32_t k = 1; k <= n; k++) {
        const char *name = n == 1 ? arena_printf(s->a, "%s_%s.c", x, kind) : arena_printf(s->a, "%s_%s_%u.c", x, kind, k);
        Text *t = add_file(s, name, title);
        print_file_head(s, title, t);
        for (size_t i = 0; i < s->piece.count; i++) {
            const Piece *q = &s->piece.item[i];
            if (q->kind != kind || file[i] != k) continue;
            size_t before = t->n;
            print_piece(s, q, name, t);
            if (t->n > s->most && !s->refused)
                s->refused = !diag_error(s->d, DIAG_LIMIT, NULL, "%s takes %zu bytes of C; a file may have %zu", q->name, t->n - before, s->most);
        }
    }
}

static void print_variant_name(const Splitter *s, const char *global, Text *h) {
    const char *name = arena_printf(s->a, "%s_%s", s->w.p->o->prefix, global);
    text_printf(h, "#define %s MOEC_OF_VARIANT(%s)\n", name, name);
}

/* What is global has a name of its own in each variant. */
static void print_variant_names(const Splitter *s, Text *h) {
    const Program *p = s->w.p;
    if (!p->o->dispatch) return;
    for (uint32_t i = 0; i < p->n_kernels; i++)
        for (int any = 0, forms = p->kernel[i]->lent ? 2 : 1; any < forms; any++) print_variant_name(s, arena_printf(s->a, any ? "%.*s_any" : "%.*s", (int)p->kernel[i]->name.n, p->kernel[i]->name.p), h);
    for (size_t i = 0; i < s->global.count; i++) print_variant_name(s, s->global.item[i], h);
    text_printf(h, "\n");
}

static void print_shared_header(Splitter *s, const Text *parts, const Text *tables) {
    const Program *p = s->w.p;
    const char *x = p->o->prefix;
    Text *h = add_file(s, arena_printf(s->a, "%s_kernels.h", x), "what the files of the model share");
    text_printf(h, "/* What the files of the compiled model %s share. */\n#ifndef %s_KERNELS_H\n#define %s_KERNELS_H\n\n", x, x, x);
    print_includes(&s->w, h);
    print_variant_names(s, h);
    for (uint32_t i = 0; i < p->n_kernels; i++) c_print_prototype(p->kernel[i], x, h);
    text_printf(h, "\n/* Parts of functions. */\n");
    text_add(h, parts->p, parts->n);
    text_printf(h, "\n");
    text_add(h, tables->p, tables->n);
    text_printf(h, "\n#endif\n");
}

static void split(Splitter *s) {
    const Program *p = s->w.p;
    const char *x = p->o->prefix;
    bool *seen = arena_array(s->a, p->n_kernels + 1, sizeof *seen);
    Text parts = {0}, tables = {0};
    if (p->prepare) add_kernels(s, p->prepare, seen);
    for (uint32_t i = 0; i < p->n_functions; i++) add_kernels(s, &p->function[i], seen);
    Piece main = {0};
    print_banner(&s->w, &main.text);
    text_printf(&main.text, "#include \"%s_kernels.h\"\n\n", x);
    if (p->prepare) print_calls_parts(&s->w, p->prepare, add_parts(s, p->prepare, &parts), &main.marks, &main.text);
    for (uint32_t i = 0; i < p->n_functions; i++)
        print_calls_parts(&s->w, &p->function[i], add_parts(s, &p->function[i], &parts), &main.marks, &main.text);
    print_tables(&s->w, &main.text);
    const char *name = arena_printf(s->a, "%s.c", x);
    Text *top = add_file(s, name, "the model: its functions as calls of their parts, sizes, tables");
    print_piece(s, &main, name, top);
    free_piece(&main);
    if (top->n > s->most) s->refused = !diag_error(s->d, DIAG_LIMIT, NULL, "%s would have %zu bytes; a file may have %zu", name, top->n, s->most);
    add_tables(s, &tables);
    print_shared_header(s, &parts, &tables);
    for (size_t i = 0; i < s->kind.count; i++) add_kind_files(s, s->kind.item[i]);
    text_free(&parts);
    text_free(&tables);
    for (size_t i = 0; i < s->piece.count; i++) free_piece(&s->piece.item[i]);
}

/* Bytes but those of #line directives: with -g a program is one file where it is one without. */
static size_t size_without_lines(const Text *t) {
    size_t n = t->n;
    for (size_t at = 0, end; at < t->n; at = end) {
        const char *newline = memchr(t->p + at, '\n', t->n - at);
        end = newline ? (size_t)(newline - t->p) + 1 : t->n;
        if (end - at > 6 && memcmp(t->p + at, "#line ", 6) == 0) n -= end - at;
    }
    return n;
}

bool program_sources(const Program *p, Arena *a, size_t large, size_t most, Sources *out, Diag *d) {
    Splitter s = {.a = a, .large = large, .most = most, .d = d};
    s.w = (ProgramText){.p = p, .names = {.dims = p->m->dims, .slot = p->slot}};
    const char *x = p->o->prefix;
    program_print_header(p, add_file(&s, arena_printf(a, "%s.h", x), "the model's entry point"));
    Text whole = {0};
    program_print_c(p, &whole);
    if (size_without_lines(&whole) <= large && whole.n <= most)
        *add_file(&s, arena_printf(a, "%s.c", x), "the model: kernels, functions, tables. Read its first lines, then the functions below the kernels") = whole;
    else {
        text_free(&whole);
        s.w.shared = true;
        split(&s);
    }
    *out = (Sources){arena_array(a, s.file.count, sizeof *out->item), (uint32_t)s.file.count};
    memcpy(out->item, s.file.item, s.file.count * sizeof *out->item);
    vec_free(&s.file);
    vec_free(&s.piece);
    vec_free(&s.global);
    vec_free(&s.kind);
    if (s.refused) sources_free(out);
    return !s.refused;
}

void sources_free(Sources *s) {
    for (uint32_t i = 0; i < s->count; i++) text_free(&s->item[i].text);
    s->count = 0;
}
