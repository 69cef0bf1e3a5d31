/* Loop IR as C99. A translation only: every decision has been made. No byte of a model file reaches the text but
 * through c_comment and c_string, or as a word of [a-z0-9_] with a number behind it. */
#include "print_c_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *c_type(DType t) {
    static const char *const names[] = {
#define X(id, text, bytes, ctype) #ctype,
        DTYPES(X)
#undef X
    };
    return names[t];
}

void c_comment(Text *out, Str s) {
    static const char plain[] = " _.,:+-%@<>=()[]{}|;!#$&~^'";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch < 128 && isalnum(ch)) || (ch && strchr(plain, ch))) text_add(out, s.p + i, 1);
        else if (ch == '/' && (i == 0 || s.p[i - 1] != '*') && (i + 1 == s.n || s.p[i + 1] != '*')) text_add(out, "/", 1);
        else if (ch == '"') text_add(out, "\"", 1);
        else text_printf(out, "\\%03o", ch);
    }
}

/* C99 has no longer strings. */
enum { LONGEST_STRING = 4095, ACROSS = 40 };

static void c_long_string(Text *out, Str s) {
    text_printf(out, "(const char[]){");
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        text_printf(out, ch < 128 ? "%u,%s" : "'\\%03o',%s", ch, i % ACROSS == ACROSS - 1 ? "\n" : "");
    }
    text_printf(out, "0}");
}

void c_string(Text *out, Str s) {
    static const char plain[] = " _.,:+-{}[]()";
    if (s.n > LONGEST_STRING) {
        c_long_string(out, s);
        return;
    }
    text_add(out, "\"", 1);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch < 128 && isalnum(ch)) || (ch && strchr(plain, ch))) text_add(out, s.p + i, 1);
        else text_printf(out, "\\%03o", ch);
    }
    text_add(out, "\"", 1);
}

/* A symbol keeps its name when that is one capital letter (no keyword or macro is; I is <complex.h>'s). */
const char *c_symbol(void *ctx, uint32_t i) {
    SymbolNames *s = ctx;
    Str n = dim_sym_at(s->dims, i)->name;
    char *at = s->text[s->turn++ % 4];
    if (n.n == 1 && isupper((unsigned char)n.p[0]) && n.p[0] != 'I') snprintf(at, sizeof s->text[0], "%c", n.p[0]);
    else snprintf(at, sizeof s->text[0], "d%u", i);
    return at;
}

void c_mark(LineMarks *marks, const Text *out, uint32_t line) {
    if (marks->count && marks->item[marks->count - 1].line == line) return;
    LineMark m = {out->n, line};
    vec_push(marks, m);
}

/* A directive a line: between two of them lines would count on. */
void c_print_lines(const Text *text, const LineMarks *marks, const char *ir_file, const char *c_file, Text *out) {
    LineCount count = {0, 0};
    uint32_t line = 0;
    bool own = true;
    size_t mark = 0;
    for (size_t at = 0, end; at < text->n; at = end) {
        const char *newline = memchr(text->p + at, '\n', text->n - at);
        end = newline ? (size_t)(newline - text->p) + 1 : text->n;
        while (mark < marks->count && marks->item[mark].at <= at) line = marks->item[mark++].line;
        if (line || !own) {
            text_printf(out, "#line %u ", line ? line : text_line(&count, out) + 1);
            c_string(out, str_c(line ? ir_file : c_file));
            text_add(out, "\n", 1);
        }
        own = !line;
        text_add(out, text->p + at, end - at);
    }
}

static void line(CPrinter *p) {
    text_printf(p->out, "%*s", p->depth * 4, "");
}

/* ---- statements ------------------------------------------------------------------------------------- */

static void print_block(CPrinter *p, const LBlock *b);

static void print_for(CPrinter *p, const LStmt *s) {
    line(p);
    text_printf(p->out, "for (int64_t ");
    c_var_name(p, s->var);
    text_printf(p->out, " = 0; ");
    c_var_name(p, s->var);
    text_printf(p->out, " < ");
    c_print_expr(p, s->extent);
    text_printf(p->out, "; ");
    c_var_name(p, s->var);
    text_printf(p->out, "++) {\n");
    print_block(p, &s->body);
    c_mark(p->marks, p->out, s->line);
    line(p);
    text_printf(p->out, "}\n");
}

static void print_matrix(CPrinter *p, const LMatrix *m, bool result) {
    c_buf_name(p, m->buf);
    if (!le_is_int(m->offset, 0)) {
        text_printf(p->out, " + ");
        c_print_expr(p, m->offset);
    }
    text_printf(p->out, ", ");
    c_print_expr(p, m->ld);
    if (!result) text_printf(p->out, ", %d", m->transposed);
    text_printf(p->out, ", ");
}

static void print_matmul(CPrinter *p, const LStmt *s) {
    line(p);
    text_printf(p->out, "moec_matmul(pool, ");
    c_print_expr(p, s->m);
    text_printf(p->out, ", ");
    c_print_expr(p, s->n);
    text_printf(p->out, ", ");
    c_print_expr(p, s->k);
    text_printf(p->out, ", ");
    print_matrix(p, &s->ma, false);
    print_matrix(p, &s->mb, false);
    print_matrix(p, &s->mc, true);
    text_printf(p->out, "%d);\n", s->accumulate);
}

/* In front of a statement of several lanes where the compiler has no vectors: a loop over them. */
static void open_lanes(CPrinter *p, uint32_t lanes) {
    p->lane = lanes > 1 && !p->vectors;
    if (p->lane) text_printf(p->out, "for (int l = 0; l < %u; l++) ", lanes);
}

static void print_set(CPrinter *p, uint32_t var, const LExpr *a) {
    open_lanes(p, a->lanes);
    c_var_name(p, var);
    text_printf(p->out, p->lane ? "[l] = " : " = ");
    c_print_expr(p, a);
    text_printf(p->out, ";\n");
    p->lane = false;
}

static void print_let(CPrinter *p, const LStmt *s) {
    bool array = s->a->lanes > 1 && !p->vectors;
    line(p);
    if (s->a->lanes > 1 && p->vectors) c_vector_type(p, s->a);
    else text_printf(p->out, "%s", c_type(p->k->var.item[s->var].type));
    text_add(p->out, " ", 1);
    if (array) {
        c_var_name(p, s->var);
        text_printf(p->out, "[%u];\n", s->a->lanes);
        line(p);
    }
    print_set(p, s->var, s->a);
}

static void print_call_of_routine(CPrinter *p, const LStmt *s) {
    line(p);
    text_printf(p->out, "%s(", s->routine->name);
    for (uint32_t i = 0; i < ls_arguments(s); i++) {
        const LArg *a = &s->arg[i];
        if (i) text_add(p->out, ", ", 2);
        if (a->buf) c_buf_name(p, a->buf);
        if (a->buf && le_is_int(a->at, 0)) continue;
        if (a->buf) text_add(p->out, " + ", 3);
        c_print_operand(p, a->at, a->buf ? BIND_SUM : BIND_ANY);
    }
    text_printf(p->out, ");\n");
}

static void print_check(CPrinter *p, const LStmt *s) {
    line(p);
    text_printf(p->out, "int64_t ");
    c_var_name(p, s->var);
    text_printf(p->out, " = ");
    c_print_expr(p, s->a);
    text_printf(p->out, ";\n");
    line(p);
    text_printf(p->out, "if (");
    c_var_name(p, s->var);
    text_printf(p->out, " < 0 || ");
    c_var_name(p, s->var);
    text_printf(p->out, " >= ");
    c_print_expr(p, s->extent);
    text_printf(p->out, ") {\n");
    line(p);
    text_printf(p->out, "    moec_fault(f);\n");
    line(p);
    text_printf(p->out, "    ");
    c_var_name(p, s->var);
    text_printf(p->out, " = 0;\n");
    line(p);
    text_printf(p->out, "}\n");
}

static void print_prefetch(CPrinter *p, const LStmt *s) {
    line(p);
    text_printf(p->out, "MOEC_PREFETCH(");
    c_buf_name(p, s->buf);
    text_printf(p->out, " + ");
    c_print_operand(p, s->index, BIND_SUM);
    text_printf(p->out, ");\n");
}

static void print_stmt(CPrinter *p, const LStmt *s) {
    c_mark(p->marks, p->out, s->line);
    switch (s->kind) {
    case LS_FOR: print_for(p, s); break;
    case LS_LET: print_let(p, s); break;
    case LS_SET:
        line(p);
        print_set(p, s->var, s->a);
        break;
    case LS_STORE:
        line(p);
        open_lanes(p, s->a->lanes);
        c_print_element(p, s->buf, s->index, s->a);
        text_printf(p->out, " = ");
        c_print_expr(p, s->a);
        text_printf(p->out, ";\n");
        p->lane = false;
        break;
    case LS_CALL: print_call_of_routine(p, s); break;
    case LS_PREFETCH: print_prefetch(p, s); break;
    case LS_WAIT:
        line(p);
        text_printf(p->out, "moec_wait(f->pool, ");
        c_print_expr(p, s->a);
        text_printf(p->out, ");\n");
        break;
    case LS_IF:
        line(p);
        text_printf(p->out, "if (");
        c_print_expr(p, s->a);
        text_printf(p->out, ") {\n");
        print_block(p, &s->body);
        c_mark(p->marks, p->out, s->line);
        line(p);
        if (s->other.first) {
            text_printf(p->out, "} else {\n");
            print_block(p, &s->other);
            c_mark(p->marks, p->out, s->line);
            line(p);
        }
        text_printf(p->out, "}\n");
        break;
    case LS_MATMUL: print_matmul(p, s); break;
    case LS_CHECK: print_check(p, s); break;
    case LS_NOTE:
        line(p);
        text_printf(p->out, "/* ");
        c_comment(p->out, s->note);
        text_printf(p->out, " */\n");
        break;
    case LS_PHASE:
    case LS_PARALLEL: BUG("a phase or a parallel loop inside another statement");
    }
}

/* A local array is declared in front of the loop that first fills it. */
static void declare_local(CPrinter *p, const LStmt *s) {
    const LStmt *x = s->kind == LS_FOR ? s->body.first : NULL;
    if (!x || x->kind != LS_STORE || x->buf->kind != LB_LOCAL || p->declared[x->buf->id]) return;
    p->declared[x->buf->id] = true;
    c_mark(p->marks, p->out, s->line);
    line(p);
    text_printf(p->out, "%s ", c_type(x->buf->dtype));
    c_buf_name(p, x->buf);
    text_printf(p->out, "[%" PRId64 "];\n", x->buf->count);
}

static void print_block(CPrinter *p, const LBlock *b) {
    p->depth++;
    for (const LStmt *s = b->first; s; s = s->next) {
        declare_local(p, s);
        print_stmt(p, s);
    }
    p->depth--;
}

/* ---- functions ------------------------------------------------------------------------------------------ */

typedef struct Used {
    bool pool, worker, *sym, *buf, *var;
} Used;

static void use_sym(void *ctx, uint32_t s) {
    ((Used *)ctx)->sym[s] = true;
}

static void used_expr(const LoopKernel *k, const LExpr *e, Used *u) {
    if (!e) return;
    if (e->kind == LE_DIM) dim_visit(k->m->dims, e->dim, use_sym, u);
    if (e->kind == LE_LOAD) u->buf[e->buf->id] = true;
    if (e->kind == LE_VAR) u->var[e->var] = true;
    used_expr(k, e->a, u);
    used_expr(k, e->b, u);
    used_expr(k, e->c, u);
}

static void used_matrix(const LoopKernel *k, const LMatrix *m, Used *u) {
    u->buf[m->buf->id] = true;
    used_expr(k, m->offset, u);
    used_expr(k, m->ld, u);
}

static void used_block(const LoopKernel *k, const LBlock *b, Used *u) {
    for (const LStmt *s = b->first; s; s = s->next) {
        used_expr(k, s->a, u);
        used_expr(k, s->index, u);
        used_expr(k, s->extent, u);
        if (s->kind == LS_STORE) u->buf[s->buf->id] = true;
        if (s->kind == LS_MATMUL) {
            u->pool = true;
            used_matrix(k, &s->ma, u);
            used_matrix(k, &s->mb, u);
            used_matrix(k, &s->mc, u);
            used_expr(k, s->m, u);
            used_expr(k, s->n, u);
            used_expr(k, s->k, u);
        }
        for (uint32_t i = 0; i < ls_arguments(s); i++) {
            used_expr(k, s->arg[i].at, u);
            if (s->arg[i].buf) u->buf[s->arg[i].buf->id] = true;
        }
        used_block(k, &s->body, u);
        used_block(k, &s->other, u);
    }
}

static void print_arg_types(CPrinter *p, const char *separator, const char *end) {
    const LoopKernel *k = p->k;
    for (uint32_t i = 0; i < k->n_args; i++) {
        const LBuf *b = k->buf.item[i];
        text_printf(p->out, "%s%s%s *", i ? separator : "", b->written ? "" : "const ", c_type(b->dtype));
        c_buf_name(p, b);
    }
    text_printf(p->out, "%s", end);
}

static void print_symbols(CPrinter *p, const bool *sym) {
    for (uint32_t i = 0; i < dim_sym_count(p->k->m->dims); i++)
        if (sym[i]) text_printf(p->out, "    const int64_t %s = f->sym[%u];\n", c_symbol(p->names, i), p->names->slot[i]);
}

/* What a function needs before its statements: those of the kernel itself, of its parallel loop, of a phase. */
typedef enum Part { PART_WHOLE, PART_TASK, PART_PHASE } Part;

static void print_task_arguments(CPrinter *p, const Used *u) {
    const LoopKernel *k = p->k;
    for (uint32_t i = 0; i < k->n_args; i++) {
        const LBuf *b = k->buf.item[i];
        if (!u->buf[i]) continue;
        text_printf(p->out, "    %s%s *%s", b->written ? "" : "const ", c_type(b->dtype), b->awaited ? "" : "restrict ");
        c_buf_name(p, b);
        text_printf(p->out, " = a->");
        c_buf_name(p, b);
        text_printf(p->out, ";\n");
    }
}

/* Where a part finds a buffer of scratch. */
static const char *scratch_of(Part part, const LBuf *b) {
    if (part == PART_PHASE) return b->own ? "own" : "shared";
    return part == PART_TASK && b->shared ? "f->scratch" : "scratch";
}

static void print_scratch(CPrinter *p, const Used *u, Part part, int64_t stride) {
    const LoopKernel *k = p->k;
    bool own = false;
    for (size_t i = 0; i < k->buf.count; i++)
        own = own || (u->buf[i] && k->buf.item[i]->kind == LB_SCRATCH && strcmp(scratch_of(part, k->buf.item[i]), "scratch") == 0);
    if (own) text_printf(p->out, "    unsigned char *scratch = f->scratch%s", part == PART_TASK ? " + worker * " : ";\n");
    if (own && part == PART_TASK) text_printf(p->out, "(int64_t)%" PRId64 ";\n", stride);
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (!u->buf[i] || b->kind != LB_SCRATCH) continue;
        text_printf(p->out, "    %s *%s", c_type(b->dtype), b->awaited ? "" : "restrict ");
        c_buf_name(p, b);
        text_printf(p->out, " = (%s *)(void *)(%s + %" PRId64 ");\n", c_type(b->dtype), scratch_of(part, b), b->offset);
    }
}

/* Arguments, scratch and symbols a body needs; those of a task or phase out of the kernel's struct. */
static void print_prologue(CPrinter *p, const Used *u, Part part, int64_t stride) {
    const char *name = arena_printf(p->k->arena, "%.*s", (int)p->k->name.n, p->k->name.p);
    if (part == PART_TASK) text_printf(p->out, "    const struct %s *a = arg;\n", name);
    if (part != PART_WHOLE) text_printf(p->out, "    const moec_frame *f = a->f;\n");
    if (u->pool && part == PART_TASK) text_printf(p->out, "    moec_pool *pool = a->pool;\n");
    if (u->pool && part == PART_WHOLE) text_printf(p->out, "    moec_pool *pool = f->pool;\n");
    if (part != PART_WHOLE) print_task_arguments(p, u);
    print_scratch(p, u, part, stride);
    print_symbols(p, u->sym);
    text_printf(p->out, part == PART_TASK ? "    (void)worker, (void)f;\n" : "    (void)f;\n");
}

static void print_table(CPrinter *p, const LBuf *b) {
    text_printf(p->out, "static const %s ", c_type(b->dtype));
    text_printf(p->out, "%.*s_", (int)p->k->name.n, p->k->name.p);
    c_buf_name(p, b);
    text_printf(p->out, "[%" PRId64 "] = {", b->count);
    for (int64_t i = 0; i < b->count; i++) {
        text_printf(p->out, i % 16 ? ", " : i ? ",\n    " : "\n    ");
        if (b->dtype == DT_F16) text_printf(p->out, "0x%04xu", ((const uint16_t *)b->data->data)[i]);
        else if (dtype_is_float(b->dtype)) c_print_float(p->out, b->dtype, tensor_get_f64(b->data, i));
        else c_print_int(p->out, tensor_get_i64(b->data, i));
    }
    text_printf(p->out, "\n};\n");
    text_printf(p->out, "#define ");
    c_buf_name(p, b);
    text_printf(p->out, " %.*s_", (int)p->k->name.n, p->k->name.p);
    c_buf_name(p, b);
    text_printf(p->out, "\n");
}

static Used used_new(const LoopKernel *k) {
    Used u = {0};
    u.sym = arena_array(k->arena, dim_sym_count(k->m->dims) + 1, sizeof *u.sym);
    u.buf = arena_array(k->arena, k->buf.count + 1, sizeof *u.buf);
    u.var = arena_array(k->arena, k->var.count + 1, sizeof *u.var);
    return u;
}

static void print_task(CPrinter *p, const LStmt *par, int64_t stride) {
    const LoopKernel *k = p->k;
    Used u = used_new(k);
    used_block(k, &par->body, &u);
    text_printf(p->out, "struct %.*s {\n    const moec_frame *f;\n    moec_pool *pool;\n    ", (int)k->name.n, k->name.p);
    print_arg_types(p, ";\n    ", ";\n};\n\n");
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out, "static void %.*s_task(void *arg, int64_t ", (int)k->name.n, k->name.p);
    c_var_name(p, par->var);
    text_printf(p->out, ", int worker) {\n");
    print_prologue(p, &u, PART_TASK, stride);
    if (!u.var[par->var]) {
        text_printf(p->out, "    (void)");
        c_var_name(p, par->var);
        text_printf(p->out, ";\n");
    }
    print_block(p, &par->body);
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out, "}\n");
    c_mark(p->marks, p->out, 0);
    text_printf(p->out, "\n");
}

static void print_parallel(CPrinter *p, const LStmt *par) {
    const LoopKernel *k = p->k;
    c_mark(p->marks, p->out, par->line);
    text_printf(p->out, "    const int64_t tasks = ");
    c_print_expr(p, par->extent);
    text_printf(p->out, ";\n    struct %.*s a = {f, tasks == 1 ? f->pool : NULL", (int)k->name.n, k->name.p);
    for (uint32_t i = 0; i < k->n_args; i++) {
        text_printf(p->out, ", ");
        c_buf_name(p, k->buf.item[i]);
    }
    text_printf(p->out, "};\n    if (tasks == 1) %.*s_task(&a, 0, 0);\n    else moec_parallel(f->pool, tasks, %.*s_task, &a);\n",
                (int)k->name.n, k->name.p, (int)k->name.n, k->name.p);
}

/* Up to the bracket that closes the list of arguments; any: of the function of any number of rows. */
static void print_head(CPrinter *p, const char *prefix, bool any) {
    const LoopKernel *k = p->k;
    text_printf(p->out, "MOEC_KEPT %svoid %s%s%.*s%s(const moec_frame *f, %s", prefix ? "" : "static ", prefix ? prefix : "",
                prefix ? "_" : "", (int)k->name.n, k->name.p, any ? "_any" : "", any ? "int64_t rows, " : "");
    print_arg_types(p, ", ", ")");
}

void c_print_prototype(const LoopKernel *k, const char *prefix, Text *out) {
    CPrinter p = {.k = k, .out = out};
    int forms = k->lent ? 2 : 1;
    for (int any = 0; any < forms; any++) {
        print_head(&p, prefix, any);
        text_printf(out, ";\n");
    }
}

/* ---- kernels by rows ---------------------------------------------------------------------------------------- */

static void print_phase(CPrinter *p, const LStmt *s, uint32_t number, int64_t stride) {
    const LoopKernel *k = p->k;
    const uint32_t given[] = {k->rows.row0, k->rows.count, k->rows.job, s->var};
    Used u = used_new(k);
    used_block(k, &s->body, &u);
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out, "MOEC_KEPT static void %.*s_%u(const struct %.*s *a, moec_pool *pool, unsigned char *shared, unsigned char *own",
                (int)k->name.n, k->name.p, number, (int)k->name.n, k->name.p);
    for (size_t i = 0; i < 4; i++) {
        text_printf(p->out, ", int64_t ");
        c_var_name(p, given[i]);
    }
    text_printf(p->out, ") {\n");
    print_prologue(p, &u, PART_PHASE, stride);
    text_printf(p->out, "    (void)pool, (void)shared, (void)own");
    for (size_t i = 0; i < 4; i++) {
        if (u.var[given[i]]) continue;
        text_printf(p->out, ", (void)");
        c_var_name(p, given[i]);
    }
    text_printf(p->out, ";\n");
    print_block(p, &s->body);
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out, "}\n");
    c_mark(p->marks, p->out, 0);
    text_printf(p->out, "\n");
}

/* A job for few rows: task i, a block of one of the phases from s, which is the one of this number, to `end`. */
static void print_job(CPrinter *p, const LStmt *s, const LStmt *end, uint32_t number, int64_t stride) {
    const char *name = arena_printf(p->k->arena, "%.*s", (int)p->k->name.n, p->k->name.p);
    int64_t first = 0;
    c_mark(p->marks, p->out, p->k->func_line);
    text_printf(p->out,
                "static void %s_%u_job(void *arg, int64_t i, int worker) {\n    const struct %s *a = arg;\n"
                "    unsigned char *shared = a->f->scratch, *own = shared + worker * (int64_t)%" PRId64 ";\n",
                name, number, name, stride);
    for (; s != end; first += loop_blocks(s), s = s->next, number++) {
        const char *indent = s->next != end ? "        " : "    ";
        if (s->next != end) text_printf(p->out, "    if (i < %" PRId64 ") {\n", first + loop_blocks(s));
        if (s->done) text_printf(p->out, "%smoec_wait(a->f->pool, %" PRId64 ");\n", indent, s->done);
        text_printf(p->out, "%s%s_%u(a, NULL, shared, own, 0, a->rows, 1, i", indent, name, number);
        text_printf(p->out, first ? " - %" PRId64 ");\n" : ");\n", first);
        if (s->next != end) text_printf(p->out, "%sreturn;\n    }\n", indent);
    }
    text_printf(p->out, "}\n");
    c_mark(p->marks, p->out, 0);
    text_printf(p->out, "\n");
}

/* All phases for one tile of rows, as a task. */
static void print_rows_task(CPrinter *p, int64_t stride) {
    const LoopKernel *k = p->k;
    const char *name = arena_printf(k->arena, "%.*s", (int)k->name.n, k->name.p);
    uint32_t number = 0;
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out,
                "static void %s_rows(void *arg, int64_t i, int worker) {\n    const struct %s *a = arg;\n"
                "    unsigned char *own = a->f->scratch + worker * (int64_t)%" PRId64 ";\n"
                "    const int64_t row0 = i * a->size, rows = moec_min_i64(a->size, a->rows - row0);\n",
                name, name, stride);
    for (const LStmt *s = k->body.first; s; s = s->next) {
        const char *block = "0";
        text_printf(p->out, "    ");
        if (loop_blocks(s) != 1) text_printf(p->out, "for (int64_t block = 0; block < %" PRId64 "; block++) ", loop_blocks(s)), block = "block";
        text_printf(p->out, "%s_%u(a, NULL, own, own, row0, rows, 0, %s);\n", name, ++number, block);
    }
    text_printf(p->out, "}\n");
    c_mark(p->marks, p->out, 0);
    text_printf(p->out, "\n");
}

static void print_few_rows(CPrinter *p, const char *indent) {
    const LoopKernel *k = p->k;
    const char *name = arena_printf(k->arena, "%.*s", (int)k->name.n, k->name.p);
    uint32_t number = 1;
    for (const LStmt *s = k->body.first, *end; s; s = end) {
        int64_t tasks;
        end = loop_job(s, &tasks);
        text_printf(p->out, "%s", indent);
        if (tasks == 1) text_printf(p->out, "%s_%u(&a, f->pool, f->scratch, f->scratch, 0, a.rows, 0, 0);\n", name, number);
        else text_printf(p->out, "moec_parallel(f->pool, %" PRId64 ", %s_%u_job, &a);\n", tasks, name, number);
        for (; s != end; s = s->next) number++;
    }
}

static void print_args(CPrinter *p, const char *end) {
    for (uint32_t i = 0; i < p->k->n_args; i++) {
        text_printf(p->out, ", ");
        c_buf_name(p, p->k->buf.item[i]);
    }
    text_printf(p->out, "%s", end);
}

static void print_row_symbols(CPrinter *p) {
    Used u = used_new(p->k);
    used_expr(p->k, p->k->rows.all, &u);
    print_symbols(p, u.sym);
}

/* The code of `as`, for these rows. */
static void print_rows_call(CPrinter *p, const LoopKernel *as, const char *prefix) {
    print_row_symbols(p);
    text_printf(p->out, "    %s%s%.*s_any(f, ", prefix ? prefix : "", prefix ? "_" : "", (int)as->name.n, as->name.p);
    c_print_expr(p, p->k->rows.all);
    print_args(p, ");\n");
}

/* any: the number of rows is an argument. */
static void print_rows_body(CPrinter *p, bool any) {
    const LoopKernel *k = p->k;
    if (!any) print_row_symbols(p);
    text_printf(p->out, "    struct %.*s a = {f, ", (int)k->name.n, k->name.p);
    if (any) text_printf(p->out, "rows");
    else c_print_expr(p, k->rows.all);
    text_printf(p->out, ", 0");
    print_args(p, "};\n");
    bool many = k->rows.most > k->rows.tile;
    if (many) text_printf(p->out, "    if (a.rows <= %" PRId64 ") {\n", k->rows.tile);
    print_few_rows(p, many ? "        " : "    ");
    if (!many) return;
    text_printf(p->out,
                "        return;\n    }\n    a.size = moec_tile_rows(f->pool, a.rows, %" PRId64 ");\n"
                "    moec_parallel(f->pool, (a.rows + a.size - 1) / a.size, %.*s_rows, &a);\n",
                k->rows.tile, (int)k->name.n, k->name.p);
}

static void print_phases(CPrinter *p, int64_t stride) {
    const LoopKernel *k = p->k;
    uint32_t number = 0;
    text_printf(p->out, "struct %.*s {\n    const moec_frame *f;\n    int64_t rows, size;\n    ", (int)k->name.n, k->name.p);
    print_arg_types(p, ";\n    ", ";\n};\n\n");
    for (const LStmt *s = k->body.first; s; s = s->next) print_phase(p, s, ++number, stride);
    number = 1;
    for (const LStmt *s = k->body.first, *end; s; s = end) {
        int64_t tasks;
        end = loop_job(s, &tasks);
        if (tasks > 1) print_job(p, s, end, number, stride);
        for (; s != end; s = s->next) number++;
    }
    if (k->rows.most > k->rows.tile) print_rows_task(p, stride);
}

/* ---- kernels over whole tensors ------------------------------------------------------------------------------- */

static void print_whole_body(CPrinter *p, bool parallel, int64_t stride) {
    const LoopKernel *k = p->k;
    Used u = used_new(k);
    for (const LStmt *s = k->body.first; s; s = s->next) {
        if (s->kind == LS_PARALLEL) {
            used_expr(k, s->extent, &u);
            continue;
        }
        LStmt one = *s;
        one.next = NULL;
        LBlock b = {&one, &one};
        used_block(k, &b, &u);
    }
    print_prologue(p, &u, PART_WHOLE, stride);
    for (uint32_t i = 0; i < k->n_args; i++) {
        if (u.buf[i] || parallel) continue;
        text_printf(p->out, "    (void)");
        c_buf_name(p, k->buf.item[i]);
        text_printf(p->out, ";\n");
    }
    for (const LStmt *s = k->body.first; s; s = s->next) {
        if (s->kind == LS_PARALLEL) {
            print_parallel(p, s);
            continue;
        }
        LStmt one = *s;
        one.next = NULL;
        LBlock b = {&one, &one};
        print_block(p, &b);
    }
}

static void print_lent(CPrinter *p, const char *prefix) {
    const LoopKernel *k = p->k;
    c_mark(p->marks, p->out, k->func_line);
    print_head(p, prefix, true);
    text_printf(p->out, " {\n");
    print_rows_body(p, true);
    c_mark(p->marks, p->out, k->func_line);
    text_printf(p->out, "}\n");
    c_mark(p->marks, p->out, 0);
    text_printf(p->out, "\n");
}

void c_print_kernel(const LoopKernel *k, SymbolNames *names, int64_t scratch_stride, const char *prefix, LineMarks *marks, Text *out) {
    CPrinter p = {.k = k, .out = out, .names = names, .marks = marks};
    p.declared = arena_array(k->arena, k->buf.count + 1, sizeof *p.declared);
    const LStmt *par = NULL;
    for (const LStmt *s = k->body.first; s; s = s->next)
        if (s->kind == LS_PARALLEL) par = s;
    for (size_t i = 0; i < k->buf.count; i++)
        if (k->buf.item[i]->kind == LB_TABLE) print_table(&p, k->buf.item[i]);
    if (k->rows.all && !k->as) print_phases(&p, scratch_stride);
    if (k->lent) print_lent(&p, prefix);
    if (par) print_task(&p, par, scratch_stride);
    c_mark(marks, out, k->func_line);
    print_head(&p, prefix, false);
    text_printf(out, " {\n");
    if (k->as || k->lent) print_rows_call(&p, k->as ? k->as : k, prefix);
    else if (k->rows.all) print_rows_body(&p, false);
    else print_whole_body(&p, par != NULL, scratch_stride);
    c_mark(marks, out, k->func_line);
    text_printf(out, "}\n");
    c_mark(marks, out, 0);
    text_printf(out, "\n");
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->kind != LB_TABLE) continue;
        text_printf(out, "#undef ");
        c_buf_name(&p, b);
        text_printf(out, "\n");
    }
    text_printf(out, "\n");
}

/* ---- routines --------------------------------------------------------------------------------------------------- */

static void print_routine(const LRoutine *r, const LoopKernel *k, bool vectors, Text *out) {
    LineMarks none = {0};
    CPrinter p = {.k = k, .out = out, .marks = &none, .vectors = vectors};
    p.declared = arena_array(k->arena, k->buf.count + 1, sizeof *p.declared);
    text_printf(out, "/* %s. */\nstatic inline void %s(", r->what, r->name);
    for (uint32_t i = 0; i < k->n_args; i++) {
        const LBuf *b = k->buf.item[i];
        text_printf(out, "%s%s%s *restrict ", i ? ", " : "", b->written ? "" : "const ", c_type(b->dtype));
        c_buf_name(&p, b);
    }
    for (uint32_t i = 0; i < k->n_params; i++) {
        text_printf(out, ", int64_t ");
        c_var_name(&p, i);
    }
    text_printf(out, ") {\n");
    print_block(&p, &k->body);
    text_printf(out, "}\n\n");
    vec_free(&none);
}

void c_print_routines(LRoutine *const *r, uint32_t n, bool vectors, Text *out) {
    if (!n) return;
    for (uint32_t i = vectors ? 0 : VECTOR_KINDS - 1; i < VECTOR_KINDS; i++) {
        const VectorKind *v = &vector_kinds[i];
        if (v->condition)
            text_printf(out, "#%s %s /* %s: vectors of %u */\nMOEC_VECTORS(%u)\n\n", i ? "elif" : "if", v->condition, v->name, v->lanes, v->lanes);
        else if (vectors) text_printf(out, "#else /* %s */\n\n", v->name);
        for (uint32_t k = 0; k < n; k++) print_routine(r[k], r[k]->version[i], v->condition != NULL, out);
    }
    if (vectors) text_printf(out, "#endif\n\n");
}
