/* Expressions of loop IR as C. */
#include "print_c_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* The hint's words when it is made of [a-z0-9_], without a number at its end. */
static Str clean_hint(Str h) {
    for (size_t i = 0; i < h.n; i++)
        if (!islower((unsigned char)h.p[i]) && (i == 0 || (!isdigit((unsigned char)h.p[i]) && h.p[i] != '_'))) return (Str){NULL, 0};
    while (h.n && (isdigit((unsigned char)h.p[h.n - 1]) || h.p[h.n - 1] == '_')) h.n--;
    return h.n < 32 ? h : (Str){NULL, 0};
}

void c_buf_name(CPrinter *p, const LBuf *b) {
    static const char *const kind[] = {[LB_ARG] = "x", [LB_SCRATCH] = "t", [LB_LOCAL] = "acc", [LB_TABLE] = "table"};
    Str h = clean_hint(b->hint);
    if (b->kind == LB_ARG && b->written) h = str_c("y");
    if (!h.n) h = str_c(kind[b->kind]);
    text_printf(p->out, "%.*s_%u", (int)h.n, h.p, b->id);
}

void c_var_name(CPrinter *p, uint32_t v) {
    Str h = p->k->var.item[v].hint;
    bool digit = h.n && isdigit((unsigned char)h.p[h.n - 1]);
    text_printf(p->out, "%.*s%s%u", (int)h.n, h.p, digit ? "_" : "", v);
}

/* ---- expressions --------------------------------------------------------------------------------- */

/* What C has an operator for; everything else is a call. */
typedef struct OpText {
    const char *infix;     /* for floats; for bool where `boolean` */
    bool compare, boolean; /* a result of another type than its operands'; of truth values */
} OpText;

static const OpText op_text[LO_COUNT] = {
    [LO_ADD] = {"+", 0, 0}, [LO_SUB] = {"-", 0, 0}, [LO_MUL] = {"*", 0, 0}, [LO_DIV] = {"/", 0, 0},
    [LO_EQ] = {"==", 1, 0}, [LO_NE] = {"!=", 1, 0}, [LO_LT] = {"<", 1, 0},  [LO_LE] = {"<=", 1, 0},
    [LO_GT] = {">", 1, 0},  [LO_GE] = {">=", 1, 0}, [LO_AND] = {"&", 0, 1}, [LO_OR] = {"|", 0, 1},
    [LO_XOR] = {"^", 0, 1}, [LO_NOT] = {"!", 0, 1}, [LO_ISINF] = {NULL, 1, 0}, [LO_ISNAN] = {NULL, 1, 0},
};

static int op_binding(LOp op) {
    switch (op) {
    case LO_ADD:
    case LO_SUB: return BIND_SUM;
    case LO_MUL:
    case LO_DIV:
    case LO_MOD: return BIND_PRODUCT;
    case LO_AND:
    case LO_OR:
    case LO_XOR: return BIND_BITS;
    default: return BIND_COMPARE;
    }
}

static bool is_infix(const LExpr *e) {
    const OpText *o = &op_text[e->op];
    return o->infix && e->op != LO_NOT && (o->compare || o->boolean || dtype_is_float(e->type));
}

static int binding(const CPrinter *p, const LExpr *e) {
    switch (e->kind) {
    case LE_OP:
        if (loop_op_of_words(e->op)) return BIND_ATOM;
        return is_infix(e) ? op_binding(e->op) : e->op == LO_NOT ? BIND_COMPARE : e->op == LO_NEG || !dtype_is_float(e->type) ? BIND_UNARY : BIND_ATOM;
    case LE_INDEX: return e->op == LO_MIN || e->op == LO_MAX ? BIND_ATOM : op_binding(e->op);
    case LE_SELECT: return BIND_ATOM;
    case LE_DIM: {
        uint32_t sym;
        return dim_as_sym(p->k->m->dims, e->dim, &sym) ? BIND_ATOM : BIND_SUM;
    }
    case LE_CAST:
        if (e->lanes > 1 && !p->lane) return BIND_ATOM;
        return e->type == DT_BOOL ? BIND_COMPARE : BIND_UNARY;
    default: return BIND_ATOM;
    }
}

void c_print_operand(CPrinter *p, const LExpr *e, int least) {
    bool bracket = binding(p, e) < least;
    if (bracket) text_add(p->out, "(", 1);
    c_print_expr(p, e);
    if (bracket) text_add(p->out, ")", 1);
}

void c_print_int(Text *out, int64_t v) {
    if (v == INT64_MIN) text_printf(out, "(-INT64_C(9223372036854775807) - 1)");
    else if (v > INT32_MAX || v < INT32_MIN) text_printf(out, v < 0 ? "(-INT64_C(%" PRId64 "))" : "INT64_C(%" PRId64 ")", v < 0 ? -v : v);
    else text_printf(out, v < 0 ? "(%" PRId64 ")" : "%" PRId64, v);
}

void c_print_float(Text *out, DType t, double v) {
    const char *suffix = t == DT_F64 ? "" : "f";
    if (isnan(v)) text_printf(out, "NAN");
    else if (isinf(v)) text_printf(out, v < 0 ? "(-INFINITY)" : "INFINITY");
    else if (v == floor(v) && fabs(v) < 1e6 && !(v == 0 && signbit(v))) text_printf(out, v < 0 ? "(%d.0%s)" : "%d.0%s", (int)v, suffix);
    else text_printf(out, v < 0 || signbit(v) ? "(%a%s)" : "%a%s", v, suffix);
}

/* The type of several lanes: float elements side by side anywhere in memory. */
void c_vector_type(CPrinter *p, const LExpr *e) {
    text_printf(p->out, "moec_%sx%u", dtype_name(e->type), e->lanes);
}

static void print_splat(CPrinter *p, const LExpr *e) {
    if (p->lane) c_print_expr(p, e->a);
    else if (e->a->kind == LE_FLOAT && e->a->f == 0) {
        text_add(p->out, "(", 1);
        c_vector_type(p, e);
        text_printf(p->out, "){0}");
    } else { /* a scalar becomes a vector where it meets one */
        text_add(p->out, "(", 1);
        c_print_operand(p, e->a, BIND_SUM);
        text_printf(p->out, " + (");
        c_vector_type(p, e);
        text_printf(p->out, "){0})");
    }
}

static void print_zip(CPrinter *p, const LExpr *e) {
    CHECK(!p->lane);
    text_printf(p->out, "MOEC_SHUFFLE(%u, ", e->lanes);
    c_print_expr(p, e->a);
    text_printf(p->out, ", ");
    c_print_expr(p, e->b);
    for (uint32_t l = 0; l < e->lanes; l++)
        text_printf(p->out, ", %u", (l % 2 ? e->lanes : 0) + (e->i ? e->lanes / 2 : 0) + l / 2);
    text_add(p->out, ")", 1);
}

/* A splat as an operand beside a vector. */
static const LExpr *beside_vector(const LExpr *e, const LExpr *other) {
    return e->kind == LE_SPLAT && other->kind != LE_SPLAT ? e->a : e;
}

static void print_infix(CPrinter *p, LOp op, const char *text, const LExpr *a, const LExpr *b) {
    int own = op_binding(op);
    c_print_operand(p, a, own == BIND_BITS ? BIND_UNARY : own == BIND_COMPARE ? BIND_SUM : own);
    text_printf(p->out, " %s ", text);
    bool associative = op == LO_ADD && b->kind == LE_INDEX; /* index sums do not overflow */
    c_print_operand(p, b, own == BIND_BITS ? BIND_UNARY : associative ? own : own + 1);
}

static void print_call(CPrinter *p, const char *name, const char *type, const LExpr *a, const LExpr *b) {
    text_printf(p->out, "moec_%s_%s(", name, type);
    c_print_expr(p, a);
    if (b) {
        text_add(p->out, ", ", 2);
        c_print_expr(p, b);
    }
    text_add(p->out, ")", 1);
}

/* Of vectors these have functions of their own. */
static void print_words_op(CPrinter *p, const LExpr *e) {
    text_printf(p->out, "moec_%s_%s", loop_op_name[e->op], dtype_name(e->type));
    if (e->lanes > 1 && !p->lane) text_printf(p->out, "x%u", e->lanes);
    text_add(p->out, "(", 1);
    c_print_expr(p, e->a);
    text_add(p->out, ", ", 2);
    c_print_expr(p, e->b);
    if (e->c) {
        text_add(p->out, ", ", 2);
        c_print_expr(p, e->c);
    }
    text_add(p->out, ")", 1);
}

static void print_op(CPrinter *p, const LExpr *e) {
    const OpText *o = &op_text[e->op];
    DType t = o->compare ? e->a->type : e->type;
    if (loop_op_of_words(e->op))
        print_words_op(p, e);
    else if (e->op == LO_ISNAN || e->op == LO_ISINF) {
        text_printf(p->out, "(%s(", e->op == LO_ISNAN ? "isnan" : "isinf");
        c_print_expr(p, e->a);
        text_printf(p->out, ") != 0)");
    } else if (e->op == LO_NOT || (e->op == LO_NEG && dtype_is_float(t))) {
        text_add(p->out, e->op == LO_NOT ? "!" : "-", 1);
        c_print_operand(p, e->a, BIND_ATOM);
    } else if (is_infix(e))
        print_infix(p, e->op, o->infix, beside_vector(e->a, e->b), beside_vector(e->b, e->a));
    else if (dtype_is_float(t))
        print_call(p, loop_op_name[e->op], dtype_name(t), e->a, e->b);
    else {
        if (t != DT_I64) text_printf(p->out, "(%s)", c_type(t));
        print_call(p, loop_op_name[e->op], "i64", e->a, e->b);
    }
}

static void print_index(CPrinter *p, const LExpr *e) {
    static const struct {
        LOp op;
        const char *text;
    } infix[] = {{LO_ADD, "+"}, {LO_SUB, "-"}, {LO_MUL, "*"}, {LO_DIV, "/"}, {LO_MOD, "%"}};
    for (size_t i = 0; i < sizeof infix / sizeof *infix; i++)
        if (infix[i].op == e->op) {
            print_infix(p, e->op, infix[i].text, e->a, e->b);
            return;
        }
    print_call(p, e->op == LO_MIN ? "min" : "max", "i64", e->a, e->b);
}

/* Ranges that floats saturate to. */
static const char *const int_range[DT_COUNT] = {
    [DT_U8] = "0, 255", [DT_I8] = "-128, 127", [DT_U16] = "0, 65535", [DT_I16] = "-32768, 32767",
    [DT_I32] = "-INT64_C(2147483648), 2147483647",
};

static void print_widened(CPrinter *p, const LExpr *e, int least) {
    if (e->type != DT_F16) {
        c_print_operand(p, e, least);
        return;
    }
    text_printf(p->out, "moec_f32_from_f16(");
    c_print_expr(p, e);
    text_add(p->out, ")", 1);
}

static void print_cast(CPrinter *p, const LExpr *e) {
    DType from = e->a->type, to = e->type;
    bool truncates = dtype_is_float(from) && !dtype_is_float(to);
    if (e->lanes > 1 && !p->lane) {
        text_printf(p->out, "__builtin_convertvector(");
        c_print_expr(p, e->a);
        text_add(p->out, ", ", 2);
        c_vector_type(p, e);
        text_add(p->out, ")", 1);
    } else if (to == DT_F16) {
        text_printf(p->out, "moec_f16_from_f32((float)");
        c_print_operand(p, e->a, BIND_UNARY);
        text_add(p->out, ")", 1);
    } else if (to == DT_BOOL) {
        print_widened(p, e->a, BIND_SUM);
        text_printf(p->out, " != 0");
    } else if (truncates) {
        if (to != DT_I64) text_printf(p->out, "(%s)moec_clamp_i64(", c_type(to));
        text_printf(p->out, "moec_i64_from_f64(");
        print_widened(p, e->a, BIND_ANY);
        text_add(p->out, ")", 1);
        if (to != DT_I64) text_printf(p->out, ", %s)", int_range[to]);
    } else {
        if (from != DT_F16 || to != DT_F32) text_printf(p->out, "(%s)", c_type(to));
        print_widened(p, e->a, BIND_UNARY);
    }
}

void c_print_element(CPrinter *p, const LBuf *b, const LExpr *index, const LExpr *e) {
    bool vector = e->lanes > 1 && !p->lane;
    if (vector) {
        text_printf(p->out, "*(%s", b->written ? "" : "const ");
        c_vector_type(p, e);
        text_printf(p->out, " *)(");
    }
    c_buf_name(p, b);
    text_printf(p->out, vector ? " + " : "[");
    c_print_operand(p, index, e->lanes > 1 ? BIND_SUM : BIND_ANY);
    if (e->lanes > 1 && p->lane) text_printf(p->out, " + l");
    text_add(p->out, vector ? ")" : "]", 1);
}

void c_print_expr(CPrinter *p, const LExpr *e) {
    switch (e->kind) {
    case LE_INT: c_print_int(p->out, e->i); break;
    case LE_FLOAT:
        if (e->type == DT_F16) text_printf(p->out, "0x%04xu", f16_from_f32((float)e->f));
        else c_print_float(p->out, e->type, e->f);
        break;
    case LE_VAR:
        c_var_name(p, e->var);
        if (p->lane && e->lanes > 1) text_printf(p->out, "[l]");
        break;
    case LE_SPLAT: print_splat(p, e); break;
    case LE_ZIP: print_zip(p, e); break;
    case LE_DIM: dim_print_c(p->k->m->dims, e->dim, p->out, c_symbol, p->names); break;
    case LE_DOTS: text_printf(p->out, "MOEC_HAS_DOTS"); break;
    case LE_OP: print_op(p, e); break;
    case LE_INDEX: print_index(p, e); break;
    case LE_SELECT:
        text_printf(p->out, "moec_select_%s(", dtype_name(e->type));
        c_print_expr(p, e->a);
        text_printf(p->out, ", ");
        c_print_expr(p, e->b);
        text_printf(p->out, ", ");
        c_print_expr(p, e->c);
        text_printf(p->out, ")");
        break;
    case LE_CAST: print_cast(p, e); break;
    case LE_LOAD: c_print_element(p, e->buf, e->a, e); break;
    }
}
