/* The program as an LLVM module, through LLVM's C API. A translation like print_c.c, of the same data: no decision but
 * the target's. The module starts as the vocabulary's bitcode, so that every scalar function is there to be called and
 * inlined; what stays unused is dropped by LLVM.
 *
 * A kernel's parallel loop becomes two functions, TASK with the signature of moec_task, and BODY, whose buffers are
 * parameters that do not alias: LLVM knows no restrict but that of parameters. */
#include "../llvm.h"

#include "../../runtime/moec_rt.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/BitReader.h>
#include <llvm-c/BitWriter.h>
#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef LLVMValueRef Val;
typedef LLVMTypeRef Ty;

typedef struct Builder {
    const Program *p;
    const LlvmOptions *o;
    Diag *d;
    Arena *arena;
    LLVMContextRef cx;
    LLVMModuleRef m;
    LLVMBuilderRef b;
    LLVMTargetMachineRef machine;
    Ty i1, i8, i16, i32, i64, f32, f64, ptr, nothing;
    /* of the function being built */
    const LoopKernel *k;
    Val fn, frame, pool;
    Val *buf;    /* address of each buffer of the kernel */
    Val *var;    /* slot of each variable */
    Val *table;  /* constants of the kernel */
    Val *symbol; /* run-time symbols, by DimTable number */
} Builder;

/* ---- types ---------------------------------------------------------------------------------------- */

static Ty scalar(const Builder *x, DType t) {
    switch (t) {
    case DT_F32: return x->f32;
    case DT_F64: return x->f64;
    case DT_I64: return x->i64;
    case DT_I32: return x->i32;
    case DT_I16:
    case DT_U16:
    case DT_F16: return x->i16;
    default: return x->i8;
    }
}

static bool is_unsigned(DType t) {
    return t == DT_BOOL || t == DT_U8 || t == DT_U16 || t == DT_F16;
}

static Val number(Ty t, int64_t v) {
    return LLVMConstInt(t, (unsigned long long)v, true);
}

static Val i64(const Builder *x, int64_t v) {
    return number(x->i64, v);
}

static bool is_float_type(Ty t) {
    LLVMTypeKind k = LLVMGetTypeKind(t);
    return k == LLVMFloatTypeKind || k == LLVMDoubleTypeKind;
}

/* v, of element type `from`, as C converts it to a parameter or variable of type `to`. */
static Val convert(Builder *x, Val v, DType from, Ty to) {
    Ty t = LLVMTypeOf(v);
    if (t == to) return v;
    if (is_float_type(t)) {
        if (is_float_type(to)) return LLVMBuildFPCast(x->b, v, to, "");
        return LLVMBuildFPToSI(x->b, v, to, "");
    }
    if (is_float_type(to)) return is_unsigned(from) ? LLVMBuildUIToFP(x->b, v, to, "") : LLVMBuildSIToFP(x->b, v, to, "");
    return LLVMBuildIntCast2(x->b, v, to, !is_unsigned(from), "");
}

/* ---- calls ------------------------------------------------------------------------------------------- */

static Val function(Builder *x, const char *name) {
    Val f = LLVMGetNamedFunction(x->m, name);
    if (!f) BUG("the vocabulary has no function '%s'", name);
    return f;
}

static Val call(Builder *x, Val f, Val *arg, unsigned n) {
    return LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, n, "");
}

/* moec_NAME_TYPE(a, b, c) of the vocabulary, operands converted as C does. */
static Val vocabulary(Builder *x, const char *name, const char *type, const LExpr *const *e, const Val *operand, unsigned n) {
    char full[64];
    Ty t[3];
    Val arg[3];
    snprintf(full, sizeof full, "moec_%s_%s", name, type);
    Val f = function(x, full);
    CHECK(n <= 3 && LLVMCountParams(f) == n);
    LLVMGetParamTypes(LLVMGlobalGetValueType(f), t);
    for (unsigned i = 0; i < n; i++) arg[i] = convert(x, operand[i], e ? e[i]->type : DT_I64, t[i]);
    return call(x, f, arg, n);
}

/* ---- sizes ---------------------------------------------------------------------------------------------- */

static void *size_constant(void *ctx, int64_t v) {
    return i64(ctx, v);
}

static void *size_symbol(void *ctx, uint32_t sym) {
    Builder *x = ctx;
    CHECK(x->symbol[sym] != NULL);
    return x->symbol[sym];
}

static Val least(Builder *x, LLVMIntPredicate p, Val a, Val b) {
    return LLVMBuildSelect(x->b, LLVMBuildICmp(x->b, p, a, b, ""), a, b, "");
}

static void *size_op(void *ctx, DimOp op, void *a, void *b) {
    Builder *x = ctx;
    switch (op) {
    case DIM_ADD: return LLVMBuildNSWAdd(x->b, a, b, "");
    case DIM_MUL: return LLVMBuildNSWMul(x->b, a, b, "");
    case DIM_FLOORDIV: return LLVMBuildSDiv(x->b, a, b, "");
    case DIM_MOD: return LLVMBuildSRem(x->b, a, b, "");
    case DIM_MIN: return least(x, LLVMIntSLT, a, b);
    default: return least(x, LLVMIntSGT, a, b);
    }
}

static Val size(Builder *x, Dim d) {
    static const DimAlgebra how = {size_constant, size_symbol, size_op};
    return dim_fold(x->p->m->dims, d, &how, x);
}

/* Loads the program's symbols from an array in their order. */
static void load_symbols(Builder *x, Val array) {
    for (uint32_t i = 0; i < x->p->n_symbols; i++) {
        Val at[] = {i64(x, i)}, where = LLVMBuildInBoundsGEP2(x->b, x->i64, array, at, 1, "");
        uint32_t sym = x->p->symbol[i];
        x->symbol[sym] = LLVMBuildLoad2(x->b, x->i64, where, "");
        Str name = dim_sym_at(x->p->m->dims, sym)->name;
        LLVMSetValueName2(x->symbol[sym], name.p, name.n);
    }
}

/* ---- expressions ------------------------------------------------------------------------------------------ */

/* What LLVM has an instruction for; everything else is a call of the vocabulary. */
typedef struct OpRule {
    LLVMOpcode f;           /* of floats; 0: none */
    LLVMOpcode bits;        /* of bool; 0: none */
    LLVMRealPredicate real; /* a comparison; 0: none */
    LLVMIntPredicate sign, zero; /* of signed and unsigned integers */
} OpRule;

static const OpRule op_rule[LO_COUNT] = {
    [LO_NEG] = {.f = LLVMFNeg},
    [LO_ADD] = {.f = LLVMFAdd},
    [LO_SUB] = {.f = LLVMFSub},
    [LO_MUL] = {.f = LLVMFMul},
    [LO_DIV] = {.f = LLVMFDiv},
    [LO_AND] = {.bits = LLVMAnd},
    [LO_OR] = {.bits = LLVMOr},
    [LO_XOR] = {.bits = LLVMXor},
    [LO_EQ] = {0, 0, LLVMRealOEQ, LLVMIntEQ, LLVMIntEQ},
    [LO_NE] = {0, 0, LLVMRealUNE, LLVMIntNE, LLVMIntNE},
    [LO_LT] = {0, 0, LLVMRealOLT, LLVMIntSLT, LLVMIntULT},
    [LO_LE] = {0, 0, LLVMRealOLE, LLVMIntSLE, LLVMIntULE},
    [LO_GT] = {0, 0, LLVMRealOGT, LLVMIntSGT, LLVMIntUGT},
    [LO_GE] = {0, 0, LLVMRealOGE, LLVMIntSGE, LLVMIntUGE},
};

static Val expr(Builder *x, const LExpr *e);

static Val truth(Builder *x, Val v) {
    Ty t = LLVMTypeOf(v);
    if (is_float_type(t)) return LLVMBuildFCmp(x->b, LLVMRealUNE, v, LLVMConstNull(t), "");
    return LLVMBuildICmp(x->b, LLVMIntNE, v, LLVMConstNull(t), "");
}

static Val as_bool(Builder *x, Val v) {
    return LLVMBuildZExt(x->b, v, x->i8, "");
}

/* Products and sums may be contracted, as the C backend lets its compiler do. */
static Val contracted(Val v) {
    if (LLVMCanValueUseFastMathFlags(v)) LLVMSetFastMathFlags(v, LLVMFastMathAllowContract);
    return v;
}

static Val compare(Builder *x, const LExpr *e, const OpRule *r) {
    DType t = e->a->type;
    Val a = expr(x, e->a), b = convert(x, expr(x, e->b), e->b->type, LLVMTypeOf(a));
    if (dtype_is_float(t)) return as_bool(x, LLVMBuildFCmp(x->b, r->real, a, b, ""));
    return as_bool(x, LLVMBuildICmp(x->b, is_unsigned(t) ? r->zero : r->sign, a, b, ""));
}

static Val is_inf(Builder *x, Val v) {
    Ty t = LLVMTypeOf(v);
    Val up = LLVMBuildFCmp(x->b, LLVMRealOEQ, v, LLVMConstReal(t, (double)INFINITY), "");
    Val down = LLVMBuildFCmp(x->b, LLVMRealOEQ, v, LLVMConstReal(t, (double)-INFINITY), "");
    return LLVMBuildOr(x->b, up, down, "");
}

static Val op(Builder *x, const LExpr *e) {
    const OpRule *r = &op_rule[e->op];
    if (r->real) return compare(x, e, r);
    Val a = expr(x, e->a);
    if (e->op == LO_NOT) return as_bool(x, LLVMBuildNot(x->b, truth(x, a), ""));
    if (e->op == LO_ISNAN) return as_bool(x, LLVMBuildFCmp(x->b, LLVMRealUNO, a, a, ""));
    if (e->op == LO_ISINF) return as_bool(x, is_inf(x, a));
    Ty type = scalar(x, e->type);
    Val b = e->b ? expr(x, e->b) : NULL;
    if (r->bits) return LLVMBuildBinOp(x->b, r->bits, convert(x, a, e->a->type, type), convert(x, b, e->b->type, type), "");
    if (r->f && dtype_is_float(e->type)) {
        a = convert(x, a, e->a->type, type);
        return contracted(b ? LLVMBuildBinOp(x->b, r->f, a, convert(x, b, e->b->type, type), "") : LLVMBuildFNeg(x->b, a, ""));
    }
    Val operand[] = {a, b};
    const LExpr *from[] = {e->a, e->b};
    Val v = vocabulary(x, loop_op_name[e->op], dtype_is_float(e->type) ? dtype_name(e->type) : "i64", from, operand, b ? 2 : 1);
    return convert(x, v, dtype_is_float(e->type) ? e->type : DT_I64, type);
}

static Val index_op(Builder *x, const LExpr *e) {
    Val a = convert(x, expr(x, e->a), e->a->type, x->i64), b = convert(x, expr(x, e->b), e->b->type, x->i64);
    switch (e->op) {
    case LO_ADD: return LLVMBuildNSWAdd(x->b, a, b, "");
    case LO_SUB: return LLVMBuildNSWSub(x->b, a, b, "");
    case LO_MUL: return LLVMBuildNSWMul(x->b, a, b, "");
    case LO_DIV: return LLVMBuildSDiv(x->b, a, b, "");
    case LO_MOD: return LLVMBuildSRem(x->b, a, b, "");
    case LO_MIN: return least(x, LLVMIntSLT, a, b);
    case LO_MAX: return least(x, LLVMIntSGT, a, b);
    default: BUG("index arithmetic with operation %d", (int)e->op);
    }
}

/* Ranges that floats saturate to. */
static const int64_t int_range[DT_COUNT][2] = {
    [DT_U8] = {0, 255}, [DT_I8] = {-128, 127}, [DT_U16] = {0, 65535}, [DT_I16] = {-32768, 32767}, [DT_I32] = {INT32_MIN, INT32_MAX},
};

static Val cast(Builder *x, const LExpr *e) {
    DType from = e->a->type, to = e->type;
    Val v = expr(x, e->a);
    if (to == DT_F16) {
        v = convert(x, v, from, x->f32);
        return vocabulary(x, "f16_from", "f32", NULL, &v, 1);
    }
    if (from == DT_F16) {
        v = call(x, function(x, "moec_f32_from_f16"), &v, 1);
        from = DT_F32;
    }
    if (to == DT_BOOL) return as_bool(x, truth(x, v));
    if (!dtype_is_float(from) || dtype_is_float(to)) return convert(x, v, from, scalar(x, to));
    v = convert(x, v, from, x->f64);
    v = call(x, function(x, "moec_i64_from_f64"), &v, 1);
    if (to == DT_I64) return v;
    Val clamp[] = {v, i64(x, int_range[to][0]), i64(x, int_range[to][1])};
    return convert(x, call(x, function(x, "moec_clamp_i64"), clamp, 3), DT_I64, scalar(x, to));
}

static Val element(Builder *x, const LBuf *b, const LExpr *index) {
    Val at[] = {expr(x, index)};
    return LLVMBuildInBoundsGEP2(x->b, scalar(x, b->dtype), x->buf[b->id], at, 1, "");
}

static Val literal(Builder *x, DType t, double v) {
    if (t == DT_F16) return number(x->i16, f16_from_f32((float)v));
    return LLVMConstReal(scalar(x, t), t == DT_F32 ? (float)v : v);
}

static Val expr(Builder *x, const LExpr *e) {
    switch (e->kind) {
    case LE_INT: return number(scalar(x, e->type), e->i);
    case LE_FLOAT: return literal(x, e->type, e->f);
    case LE_VAR: return LLVMBuildLoad2(x->b, scalar(x, x->k->var.item[e->var].type), x->var[e->var], "");
    case LE_DIM: return size(x, e->dim);
    case LE_OP: return op(x, e);
    case LE_INDEX: return index_op(x, e);
    case LE_SELECT: {
        Val c = truth(x, expr(x, e->a)), a = expr(x, e->b), b = expr(x, e->c);
        Ty t = scalar(x, e->type);
        return LLVMBuildSelect(x->b, c, convert(x, a, e->b->type, t), convert(x, b, e->c->type, t), "");
    }
    case LE_CAST: return cast(x, e);
    default: return LLVMBuildLoad2(x->b, scalar(x, e->buf->dtype), element(x, e->buf, e->a), "");
    }
}

static Val index_of(Builder *x, const LExpr *e) {
    return convert(x, expr(x, e), e->type, x->i64);
}

/* ---- statements ---------------------------------------------------------------------------------------------- */

static void block(Builder *x, const LBlock *b);

static LLVMBasicBlockRef new_block(Builder *x, const char *name) {
    return LLVMAppendBasicBlockInContext(x->cx, x->fn, name);
}

static void enter(Builder *x, LLVMBasicBlockRef b) {
    LLVMPositionBuilderAtEnd(x->b, b);
}

static void set(Builder *x, uint32_t var, const LExpr *a) {
    DType t = x->k->var.item[var].type;
    LLVMBuildStore(x->b, convert(x, expr(x, a), a->type, scalar(x, t)), x->var[var]);
}

/* while (i < extent): LLVM turns it around. */
static void for_loop(Builder *x, const LStmt *s) {
    Val slot = x->var[s->var], extent = index_of(x, s->extent);
    LLVMBuildStore(x->b, i64(x, 0), slot);
    LLVMBasicBlockRef head = new_block(x, "for"), body = new_block(x, "do"), after = new_block(x, "done");
    LLVMBuildBr(x->b, head);
    enter(x, head);
    Val i = LLVMBuildLoad2(x->b, x->i64, slot, "");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntSLT, i, extent, ""), body, after);
    enter(x, body);
    block(x, &s->body);
    i = LLVMBuildLoad2(x->b, x->i64, slot, "");
    LLVMBuildStore(x->b, LLVMBuildNSWAdd(x->b, i, i64(x, 1), ""), slot);
    LLVMBuildBr(x->b, head);
    enter(x, after);
}

static void branch(Builder *x, const LStmt *s) {
    LLVMBasicBlockRef yes = new_block(x, "then"), no = s->other.first ? new_block(x, "else") : NULL, after = new_block(x, "end");
    LLVMBuildCondBr(x->b, truth(x, expr(x, s->a)), yes, no ? no : after);
    enter(x, yes);
    block(x, &s->body);
    LLVMBuildBr(x->b, after);
    if (no) {
        enter(x, no);
        block(x, &s->other);
        LLVMBuildBr(x->b, after);
    }
    enter(x, after);
}

static void matrix(Builder *x, const LMatrix *m, Val *address, Val *ld) {
    Val at[] = {index_of(x, m->offset)};
    *address = LLVMBuildInBoundsGEP2(x->b, scalar(x, m->buf->dtype), x->buf[m->buf->id], at, 1, "");
    *ld = index_of(x, m->ld);
}

static void matmul(Builder *x, const LStmt *s) {
    Val a, lda, b, ldb, c, ldc;
    matrix(x, &s->ma, &a, &lda);
    matrix(x, &s->mb, &b, &ldb);
    matrix(x, &s->mc, &c, &ldc);
    Val arg[] = {x->pool, index_of(x, s->m), index_of(x, s->n), index_of(x, s->k),
                 a, lda, number(x->i32, s->ma.transposed), b, ldb, number(x->i32, s->mb.transposed),
                 c, ldc, number(x->i32, s->accumulate)};
    call(x, function(x, "moec_matmul"), arg, sizeof arg / sizeof *arg);
}

static void check(Builder *x, const LStmt *s) {
    Val v = index_of(x, s->a), extent = index_of(x, s->extent);
    LLVMBuildStore(x->b, v, x->var[s->var]);
    /* one comparison: a negative index is a large unsigned one */
    LLVMBasicBlockRef bad = new_block(x, "fault"), after = new_block(x, "sound");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntULT, v, extent, ""), after, bad);
    enter(x, bad);
    call(x, function(x, "moec_fault"), &x->frame, 1);
    LLVMBuildStore(x->b, i64(x, 0), x->var[s->var]);
    LLVMBuildBr(x->b, after);
    enter(x, after);
}

static void statement(Builder *x, const LStmt *s) {
    switch (s->kind) {
    case LS_FOR: for_loop(x, s); break;
    case LS_LET:
    case LS_SET: set(x, s->var, s->a); break;
    case LS_STORE: LLVMBuildStore(x->b, expr(x, s->a), element(x, s->buf, s->index)); break;
    case LS_IF: branch(x, s); break;
    case LS_MATMUL: matmul(x, s); break;
    case LS_CHECK: check(x, s); break;
    case LS_NOTE: break;
    case LS_PARALLEL: BUG("a parallel loop inside another statement");
    }
}

static void block(Builder *x, const LBlock *b) {
    for (const LStmt *s = b->first; s; s = s->next) statement(x, s);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static Val frame_field(Builder *x, size_t offset) {
    Val at[] = {i64(x, (int64_t)offset)};
    return LLVMBuildLoad2(x->b, x->ptr, LLVMBuildInBoundsGEP2(x->b, x->i8, x->frame, at, 1, ""), "");
}

static Val bytes_from(Builder *x, Val base, int64_t offset) {
    Val at[] = {i64(x, offset)};
    return LLVMBuildInBoundsGEP2(x->b, x->i8, base, at, 1, "");
}

static const char *text_of(const Builder *x, const char *fmt, Str s) {
    return arena_printf(x->arena, fmt, (int)s.n, s.p);
}

static Val add_function(Builder *x, const char *name, Ty result, Ty *param, unsigned n) {
    Val f = LLVMAddFunction(x->m, name, LLVMFunctionType(result, param, n, false));
    LLVMSetLinkage(f, LLVMInternalLinkage);
    return f;
}

static void attribute(const Builder *x, Val f, unsigned where, const char *name, uint64_t value) {
    LLVMAddAttributeAtIndex(f, where, LLVMCreateEnumAttribute(x->cx, LLVMGetEnumAttributeKindForName(name, strlen(name)), value));
}

/* Slots of variables and local arrays, at the function's entry. */
static void open_function(Builder *x, Val fn) {
    const LoopKernel *k = x->k;
    x->fn = fn;
    enter(x, new_block(x, "entry"));
    for (size_t i = 0; i < k->var.count; i++) x->var[i] = LLVMBuildAlloca(x->b, scalar(x, k->var.item[i].type), "");
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->kind == LB_TABLE) x->buf[i] = x->table[i];
        if (b->kind != LB_LOCAL) continue;
        x->buf[i] = LLVMBuildAlloca(x->b, LLVMArrayType2(scalar(x, b->dtype), (uint64_t)b->count), "");
        LLVMSetAlignment(x->buf[i], 64);
    }
}

static Val constant_element(Builder *x, const Tensor *t, int64_t i) {
    if (t->dtype == DT_F16) return number(x->i16, ((const uint16_t *)t->data)[i]);
    if (dtype_is_float(t->dtype)) return LLVMConstReal(scalar(x, t->dtype), tensor_get_f64(t, i));
    return number(scalar(x, t->dtype), tensor_get_i64(t, i));
}

static Val constant(Builder *x, const char *name, Ty t, Val init) {
    Val g = LLVMAddGlobal(x->m, t, name);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, true);
    LLVMSetLinkage(g, LLVMInternalLinkage);
    return g;
}

static void kernel_tables(Builder *x) {
    const LoopKernel *k = x->k;
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->kind != LB_TABLE) continue;
        Val *item = arena_array(x->arena, (size_t)b->count + 1, sizeof *item);
        for (int64_t j = 0; j < b->count; j++) item[j] = constant_element(x, b->data, j);
        Ty t = scalar(x, b->dtype);
        x->table[i] = constant(x, text_of(x, "%.*s_table", k->name), LLVMArrayType2(t, (uint64_t)b->count),
                               LLVMConstArray2(t, item, (uint64_t)b->count));
        LLVMSetAlignment(x->table[i], 64);
    }
}

static bool is_scratch(const LBuf *b) {
    return b->kind == LB_SCRATCH;
}

/* void BODY(frame, pool, i, arguments and scratch...): what one iteration of the parallel loop does. */
static Val kernel_body(Builder *x, const LStmt *par) {
    const LoopKernel *k = x->k;
    Ty *param = arena_array(x->arena, k->buf.count + 4, sizeof *param);
    unsigned n = 3, first = n;
    param[0] = param[1] = x->ptr;
    param[2] = x->i64;
    for (size_t i = 0; i < k->buf.count; i++)
        if (i < k->n_args || is_scratch(k->buf.item[i])) param[n++] = x->ptr;
    Val fn = add_function(x, text_of(x, "%.*s_body", k->name), x->nothing, param, n);
    open_function(x, fn);
    x->frame = LLVMGetParam(fn, 0);
    x->pool = LLVMGetParam(fn, 1);
    n = first;
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (i >= k->n_args && !is_scratch(b)) continue;
        x->buf[i] = LLVMGetParam(fn, n++);
        attribute(x, fn, n, "noalias", 0); /* attributes count parameters from 1 */
        if (is_scratch(b)) attribute(x, fn, n, "align", 64);
        if (i < k->n_args && !b->written) attribute(x, fn, n, "readonly", 0);
    }
    load_symbols(x, frame_field(x, offsetof(moec_frame, sym)));
    LLVMBuildStore(x->b, LLVMGetParam(fn, 2), x->var[par->var]);
    block(x, &par->body);
    LLVMBuildRetVoid(x->b);
    return fn;
}

/* The struct that a kernel hands to its tasks: frame, pool, arguments. */
static Ty task_struct(Builder *x) {
    Ty *field = arena_array(x->arena, x->k->n_args + 2, sizeof *field);
    for (uint32_t i = 0; i < x->k->n_args + 2; i++) field[i] = x->ptr;
    return LLVMStructTypeInContext(x->cx, field, x->k->n_args + 2, false);
}

static Val task_field(Builder *x, Ty type, Val task, unsigned i) {
    return LLVMBuildLoad2(x->b, x->ptr, LLVMBuildStructGEP2(x->b, type, task, i, ""), "");
}

/* void TASK(void *arg, int64_t i, int worker) */
static Val kernel_task(Builder *x, Val body) {
    const LoopKernel *k = x->k;
    Ty param[] = {x->ptr, x->i64, x->i32}, type = task_struct(x);
    Val fn = add_function(x, text_of(x, "%.*s_task", k->name), x->nothing, param, 3);
    Val *arg = arena_array(x->arena, k->buf.count + 4, sizeof *arg);
    unsigned n = 0;
    x->fn = fn;
    enter(x, new_block(x, "entry"));
    x->frame = arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), 0);
    arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), 1);
    arg[n++] = LLVMGetParam(fn, 1);
    Val shared = frame_field(x, offsetof(moec_frame, scratch)), worker = LLVMBuildSExt(x->b, LLVMGetParam(fn, 2), x->i64, "");
    Val at[] = {LLVMBuildMul(x->b, worker, i64(x, x->p->scratch), "")}, own = LLVMBuildInBoundsGEP2(x->b, x->i8, shared, at, 1, "");
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (i < k->n_args) arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), (unsigned)i + 2);
        else if (is_scratch(b)) arg[n++] = bytes_from(x, b->shared ? shared : own, b->offset);
    }
    call(x, body, arg, n);
    LLVMBuildRetVoid(x->b);
    return fn;
}

/* Runs the tasks: one alone keeps the pool for its products. */
static void parallel(Builder *x, const LStmt *par, Val task) {
    Val tasks = index_of(x, par->extent);
    Ty type = task_struct(x);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(x->b), top = LLVMGetEntryBasicBlock(x->fn);
    LLVMPositionBuilderBefore(x->b, LLVMGetFirstInstruction(top));
    Val a = LLVMBuildAlloca(x->b, type, "");
    enter(x, here);
    Val one = LLVMBuildICmp(x->b, LLVMIntEQ, tasks, i64(x, 1), "");
    LLVMBuildStore(x->b, x->frame, LLVMBuildStructGEP2(x->b, type, a, 0, ""));
    LLVMBuildStore(x->b, LLVMBuildSelect(x->b, one, x->pool, LLVMConstNull(x->ptr), ""), LLVMBuildStructGEP2(x->b, type, a, 1, ""));
    for (uint32_t i = 0; i < x->k->n_args; i++) LLVMBuildStore(x->b, x->buf[i], LLVMBuildStructGEP2(x->b, type, a, i + 2, ""));
    LLVMBasicBlockRef alone = new_block(x, "alone"), many = new_block(x, "many"), after = new_block(x, "joined");
    LLVMBuildCondBr(x->b, one, alone, many);
    enter(x, alone);
    Val direct[] = {a, i64(x, 0), number(x->i32, 0)};
    call(x, task, direct, 3);
    LLVMBuildBr(x->b, after);
    enter(x, many);
    Val pooled[] = {x->pool, tasks, task, a};
    call(x, function(x, "moec_parallel"), pooled, 4);
    LLVMBuildBr(x->b, after);
    enter(x, after);
}

/* void KERNEL(frame, arguments...) */
static void kernel(Builder *x, const LoopKernel *k) {
    x->k = k;
    x->buf = arena_array(x->arena, k->buf.count + 1, sizeof *x->buf);
    x->table = arena_array(x->arena, k->buf.count + 1, sizeof *x->table);
    x->var = arena_array(x->arena, k->var.count + 1, sizeof *x->var);
    kernel_tables(x);
    Val task = NULL;
    for (const LStmt *s = k->body.first; s; s = s->next)
        if (s->kind == LS_PARALLEL) task = kernel_task(x, kernel_body(x, s));
    Ty *param = arena_array(x->arena, k->n_args + 1u, sizeof *param);
    for (uint32_t i = 0; i <= k->n_args; i++) param[i] = x->ptr;
    open_function(x, add_function(x, text_of(x, "%.*s", k->name), x->nothing, param, k->n_args + 1));
    x->frame = LLVMGetParam(x->fn, 0);
    x->pool = frame_field(x, offsetof(moec_frame, pool));
    Val scratch = frame_field(x, offsetof(moec_frame, scratch));
    for (size_t i = 0; i < k->buf.count; i++) {
        if (i < k->n_args) x->buf[i] = LLVMGetParam(x->fn, (unsigned)i + 1);
        else if (is_scratch(k->buf.item[i])) x->buf[i] = bytes_from(x, scratch, k->buf.item[i]->offset);
    }
    load_symbols(x, frame_field(x, offsetof(moec_frame, sym)));
    for (const LStmt *s = k->body.first; s; s = s->next) {
        if (s->kind == LS_PARALLEL) parallel(x, s, task);
        else statement(x, s);
    }
    LLVMBuildRetVoid(x->b);
}

/* ---- calls and sizes -------------------------------------------------------------------------------------------- */

static Val place(Builder *x, const Place *at) {
    static const size_t base[] = {
        [PLACE_WEIGHTS] = offsetof(moec_frame, weights), [PLACE_ADAPTER] = offsetof(moec_frame, adapter),
        [PLACE_DERIVED] = offsetof(moec_frame, derived), [PLACE_ARENA] = offsetof(moec_frame, arena),
        [PLACE_ARG] = offsetof(moec_frame, arg),
    };
    Val from = frame_field(x, base[at->where]);
    if (at->where != PLACE_ARG) return bytes_from(x, from, (int64_t)at->at);
    return LLVMBuildLoad2(x->b, x->ptr, bytes_from(x, from, (int64_t)(at->at * sizeof(void *))), "");
}

static void calls(Builder *x, const CallList *l) {
    x->fn = add_function(x, l->symbol, x->nothing, &x->ptr, 1);
    enter(x, new_block(x, "entry"));
    x->frame = LLVMGetParam(x->fn, 0);
    for (uint32_t i = 0; i < l->n_calls; i++) {
        const KernelCall *c = &l->call[i];
        Val *arg = arena_array(x->arena, c->n_places + 1, sizeof *arg);
        arg[0] = x->frame;
        for (uint32_t j = 0; j < c->n_places; j++) arg[j + 1] = place(x, &c->place[j]);
        call(x, function(x, text_of(x, "%.*s", c->kernel->name)), arg, c->n_places + 1);
    }
    LLVMBuildRetVoid(x->b);
}

static void size_rule(Builder *x, const SizeRule *r) {
    Ty with_row[] = {x->ptr, x->i32, x->ptr}, alone[] = {x->ptr, x->ptr};
    x->fn = r->selects ? add_function(x, r->symbol, x->nothing, with_row, 3) : add_function(x, r->symbol, x->nothing, alone, 2);
    enter(x, new_block(x, "entry"));
    load_symbols(x, LLVMGetParam(x->fn, 0));
    Val out = LLVMGetParam(x->fn, r->selects ? 2 : 1);
    LLVMBasicBlockRef after = new_block(x, "end"), here = LLVMGetInsertBlock(x->b);
    Val which = r->selects ? LLVMBuildSwitch(x->b, LLVMGetParam(x->fn, 1), after, r->n_rows) : NULL;
    for (uint32_t i = 0; i < r->n_rows; i++) {
        LLVMBasicBlockRef row = which ? new_block(x, "row") : here;
        if (which) LLVMAddCase(which, number(x->i32, i), row);
        enter(x, row);
        for (uint32_t k = 0; k < r->row[i].n; k++)
            LLVMBuildStore(x->b, size(x, r->row[i].dim[k]), bytes_from(x, out, (int64_t)(k * sizeof(int64_t))));
        LLVMBuildBr(x->b, after);
    }
    enter(x, after);
    LLVMBuildRetVoid(x->b);
}

/* ---- tables --------------------------------------------------------------------------------------------------------- */

static Val text_constant(Builder *x, Str s) {
    Val init = LLVMConstStringInContext2(x->cx, s.p ? s.p : "", s.n, false);
    Val g = constant(x, "", LLVMTypeOf(init), init);
    LLVMSetLinkage(g, LLVMPrivateLinkage);
    LLVMSetUnnamedAddress(g, LLVMGlobalUnnamedAddr);
    return g;
}

static Val reference(Builder *x, const char *symbol) {
    if (!symbol) return LLVMConstNull(x->ptr);
    Val v = LLVMGetNamedGlobal(x->m, symbol);
    return v ? v : function(x, symbol);
}

static Val cell(Builder *x, CellKind kind, const Cell *c) {
    switch (kind) {
    case CELL_U8: return number(x->i8, c->i);
    case CELL_I16: return number(x->i16, c->i);
    case CELL_I32:
    case CELL_U32: return number(x->i32, c->i);
    case CELL_TEXT: return text_constant(x, c->text);
    case CELL_REF: return reference(x, c->ref);
    default: return i64(x, c->i);
    }
}

static Val table_row(Builder *x, const Record *r, const Cell *c) {
    Val *field = arena_array(x->arena, r->n_fields, sizeof *field);
    for (uint32_t i = 0; i < r->n_fields; i++) {
        const Field *f = &r->field[i];
        Val item[8];
        CHECK(f->count <= 8);
        for (uint32_t k = 0; k < f->count; k++) item[k] = cell(x, f->kind, c++);
        field[i] = f->count == 1 ? item[0] : LLVMConstArray2(LLVMTypeOf(item[0]), item, f->count);
    }
    return LLVMConstStructInContext(x->cx, field, r->n_fields, false);
}

/* The runtime's structs as C lays them out: natural alignment, no packing. */
static void check_layout(Builder *x, const Record *r, Ty type) {
    LLVMTargetDataRef layout = LLVMGetModuleDataLayout(x->m);
    for (uint32_t i = 0; i < r->n_fields; i++)
        if (LLVMOffsetOfElement(layout, type, i) != r->field[i].offset) BUG("%s.%s is elsewhere for the target", r->type, r->field[i].name);
    if (LLVMABISizeOfType(layout, type) != r->size) BUG("%s has another size for the target", r->type);
}

static void table(Builder *x, const Table *t) {
    Val *row = arena_array(x->arena, t->n_rows, sizeof *row);
    size_t each = 0;
    for (uint32_t i = 0; i < t->record->n_fields; i++) each += t->record->field[i].count;
    for (uint32_t i = 0; i < t->n_rows; i++) row[i] = table_row(x, t->record, t->cell + i * each);
    Ty type = LLVMTypeOf(row[0]);
    check_layout(x, t->record, type);
    Val init = t->single ? row[0] : LLVMConstArray2(type, row, t->n_rows);
    constant(x, t->symbol, LLVMTypeOf(init), init);
}

static void spec_bytes(Builder *x) {
    Str s = x->p->m->spec;
    Val init = LLVMConstStringInContext2(x->cx, s.p ? s.p : "", s.n, false);
    constant(x, PROGRAM_SPEC, LLVMTypeOf(init), init);
}

/* The weights file as it is: an assembler's include, or the constant would stand in memory several times. */
static void embed_weights(Builder *x) {
    Text t = {0};
    text_printf(&t, ".section .rodata\n.balign 64\n.globl %s\n.hidden %s\n%s:\n.incbin ", x->p->weights, x->p->weights, x->p->weights);
    text_quoted(&t, str_c(x->o->weights));
    text_printf(&t, "\n.text\n");
    LLVMAppendModuleInlineAsm(x->m, t.p, t.n);
    text_free(&t);
}

static void program(Builder *x) {
    const Program *p = x->p;
    x->symbol = arena_array(x->arena, dim_sym_count(p->m->dims) + 1, sizeof *x->symbol);
    for (uint32_t i = 0; i < p->n_kernels; i++) kernel(x, p->kernel[i]);
    if (p->prepare) calls(x, p->prepare);
    for (uint32_t i = 0; i < p->n_functions; i++) calls(x, &p->function[i]);
    for (uint32_t i = 0; i < p->n_size_rules; i++) size_rule(x, &p->size_rule[i]);
    if (p->weights) LLVMAddGlobal(x->m, x->i8, p->weights);
    if (p->weights && x->o->weights) embed_weights(x);
    spec_bytes(x);
    for (uint32_t i = 0; i < p->n_tables; i++) table(x, &p->table[i]);
    char *name = arena_printf(x->arena, "%s_program", p->o->prefix);
    x->fn = LLVMAddFunction(x->m, name, LLVMFunctionType(x->ptr, NULL, 0, false));
    enter(x, new_block(x, "entry"));
    LLVMBuildRet(x->b, reference(x, p->table[p->n_tables - 1].symbol));
}

/* ---- the target ------------------------------------------------------------------------------------------------------ */

static void add_targets(void) {
    static bool done;
    if (done) return;
    done = true;
    LLVMInitializeAllTargetInfos();
    LLVMInitializeAllTargets();
    LLVMInitializeAllTargetMCs();
    LLVMInitializeAllAsmPrinters();
    LLVMInitializeAllAsmParsers();
}

/* LLVM tells of a CPU that it does not know on stderr, in no other way: what it says while the machine is made is read
 * from a file in the place of stderr. */
static LLVMTargetMachineRef make_machine(LLVMTargetRef t, const char *triple, const char *cpu, const char *features, const char *abi,
                                         int level, bool *complained) {
    LLVMTargetMachineOptionsRef o = LLVMCreateTargetMachineOptions();
    LLVMTargetMachineOptionsSetCPU(o, cpu);
    LLVMTargetMachineOptionsSetFeatures(o, features);
    LLVMTargetMachineOptionsSetABI(o, abi);
    LLVMTargetMachineOptionsSetCodeGenOptLevel(o, (LLVMCodeGenOptLevel)level);
    LLVMTargetMachineOptionsSetRelocMode(o, LLVMRelocPIC);
    FILE *said = tmpfile();
    fflush(stderr);
    int saved = said ? dup(2) : -1;
    if (saved >= 0) dup2(fileno(said), 2);
    LLVMTargetMachineRef m = LLVMCreateTargetMachineWithOptions(t, triple, o);
    LLVMDisposeTargetMachineOptions(o);
    if (saved >= 0) {
        fflush(stderr);
        dup2(saved, 2);
        close(saved);
    }
    *complained = said && fseek(said, 0, SEEK_END) == 0 && ftell(said) > 0;
    if (said) fclose(said);
    return m;
}

/* What every Linux of a machine may use, where LLVM's default is less: of RISC-V it takes the integer set alone. */
typedef struct Baseline {
    const char *machine, *features, *abi;
} Baseline;

static const Baseline *baseline(const char *triple) {
    static const Baseline rows[] = {{"riscv64", "+m,+a,+f,+d,+c", "lp64d"}, {"", "", ""}};
    const Baseline *b = rows;
    while (strncmp(triple, b->machine, strlen(b->machine)) != 0) b++;
    return b;
}

static bool open_machine(Builder *x) {
    add_targets();
    char *host = LLVMGetDefaultTargetTriple(), *why = NULL;
    char *triple = LLVMNormalizeTargetTriple(x->o->triple ? x->o->triple : host);
    const Baseline *base = baseline(triple);
    bool native = !x->o->cpu || strcmp(x->o->cpu, "native") == 0, foreign = strcmp(triple, host) != 0;
    char *cpu = native && !foreign ? LLVMGetHostCPUName() : LLVMCreateMessage(native || strcmp(x->o->cpu, "generic") == 0 ? "" : x->o->cpu);
    char *features = native && !foreign ? LLVMGetHostCPUFeatures() : LLVMCreateMessage(base->features);
    LLVMTargetRef target;
    bool ok = true, complained = false;
    if (LLVMGetTargetFromTriple(triple, &target, &why))
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: LLVM has no target '%s'", diag_show(x->d, str_c(x->o->triple)));
    else if (!(x->machine = make_machine(target, triple, cpu, features, base->abi, x->o->level, &complained)))
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: LLVM makes no code for '%s'", diag_show(x->d, str_c(triple)));
    else if (complained)
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "LLVM knows no CPU '%s' of target %s", diag_show(x->d, str_c(cpu)), diag_show(x->d, str_c(triple)));
    LLVMDisposeMessage(why);
    LLVMDisposeMessage(host);
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
    return ok;
}

/* The bitcode was made for some machine; this is the one the code is for. */
static void retarget(Builder *x) {
    static const char *const old[] = {"target-cpu", "target-features", "tune-cpu", "min-legal-vector-width"};
    char *triple = LLVMGetTargetMachineTriple(x->machine), *cpu = LLVMGetTargetMachineCPU(x->machine),
         *features = LLVMGetTargetMachineFeatureString(x->machine);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(x->machine);
    LLVMSetTarget(x->m, triple);
    LLVMSetModuleDataLayout(x->m, layout);
    LLVMDisposeTargetData(layout);
    LLVMAttributeRef own[] = {LLVMCreateStringAttribute(x->cx, "target-cpu", 10, cpu, (unsigned)strlen(cpu)),
                              LLVMCreateStringAttribute(x->cx, "target-features", 15, features, (unsigned)strlen(features)),
                              /* kernels are nothing but vector loops: whole registers */
                              LLVMCreateStringAttribute(x->cx, "prefer-vector-width", 19, "512", 3)};
    for (Val f = LLVMGetFirstFunction(x->m); f; f = LLVMGetNextFunction(f)) {
        for (size_t i = 0; i < sizeof old / sizeof *old; i++)
            LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, old[i], (unsigned)strlen(old[i]));
        if (LLVMIsDeclaration(f)) continue;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            if (i == 2 || (i == 0 ? *cpu : *features)) LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex, own[i]);
        attribute(x, f, LLVMAttributeFunctionIndex, "nounwind", 0);
    }
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
}

/* ---- from a module to bytes --------------------------------------------------------------------------------------------- */

/* A module that does not verify is moec's bug; it stays for the report. */
static void verify(Builder *x) {
    char *why = NULL;
    if (!LLVMVerifyModule(x->m, LLVMReturnStatusAction, &why)) {
        LLVMDisposeMessage(why);
        return;
    }
    char *ignored = NULL;
    LLVMPrintModuleToFile(x->m, "moec-bad-llvm.ll", &ignored);
    BUG("LLVM refuses the module, which is in moec-bad-llvm.ll: %s", why);
}

static void optimise(Builder *x) {
    char pipeline[16];
    snprintf(pipeline, sizeof pipeline, "default<O%d>", x->o->level);
    LLVMPassBuilderOptionsRef how = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(how, true);
    LLVMPassBuilderOptionsSetSLPVectorization(how, true);
    LLVMPassBuilderOptionsSetLoopInterleaving(how, true);
    LLVMPassBuilderOptionsSetLoopUnrolling(how, true);
    LLVMErrorRef e = LLVMRunPasses(x->m, pipeline, x->machine, how);
    if (e) BUG("LLVM's passes: %s", LLVMGetErrorMessage(e));
    LLVMDisposePassBuilderOptions(how);
}

static void take_buffer(LLVMMemoryBufferRef b, Text *out) {
    text_add(out, LLVMGetBufferStart(b), LLVMGetBufferSize(b));
    LLVMDisposeMemoryBuffer(b);
}

static bool write_form(Builder *x, Text *out) {
    if (x->o->form == LLVM_FORM_IR) {
        char *text = LLVMPrintModuleToString(x->m);
        text_add(out, text, strlen(text));
        LLVMDisposeMessage(text);
        return true;
    }
    LLVMMemoryBufferRef made = NULL;
    char *why = NULL;
    if (x->o->form == LLVM_FORM_BITCODE) made = LLVMWriteBitcodeToMemoryBuffer(x->m);
    else if (LLVMTargetMachineEmitToMemoryBuffer(x->machine, x->m, x->o->form == LLVM_FORM_ASM ? LLVMAssemblyFile : LLVMObjectFile, &why, &made)) {
        diag_error(x->d, DIAG_TOOL_FAILED, NULL, "LLVM: %s", diag_show(x->d, str_c(why)));
        LLVMDisposeMessage(why);
        return false;
    }
    take_buffer(made, out);
    return true;
}

static void open_builder(Builder *x) {
    x->arena = arena_new();
    x->cx = LLVMContextCreate();
    x->b = LLVMCreateBuilderInContext(x->cx);
    x->i1 = LLVMInt1TypeInContext(x->cx);
    x->i8 = LLVMInt8TypeInContext(x->cx);
    x->i16 = LLVMInt16TypeInContext(x->cx);
    x->i32 = LLVMInt32TypeInContext(x->cx);
    x->i64 = LLVMInt64TypeInContext(x->cx);
    x->f32 = LLVMFloatTypeInContext(x->cx);
    x->f64 = LLVMDoubleTypeInContext(x->cx);
    x->ptr = LLVMPointerTypeInContext(x->cx, 0);
    x->nothing = LLVMVoidTypeInContext(x->cx);
}

static void close_builder(Builder *x) {
    LLVMDisposeBuilder(x->b);
    if (x->m) LLVMDisposeModule(x->m);
    if (x->machine) LLVMDisposeTargetMachine(x->machine);
    LLVMContextDispose(x->cx);
    arena_free(x->arena);
}

/* The module is named after what it is made of: no path of the machine that built moec. */
static bool finish(Builder *x, const char *name, Text *out) {
    LLVMSetModuleIdentifier(x->m, name, strlen(name));
    LLVMSetSourceFileName(x->m, name, strlen(name));
    retarget(x);
    verify(x);
    optimise(x);
    return write_form(x, out);
}

static void load_vocabulary(Builder *x) {
    LLVMMemoryBufferRef b = LLVMCreateMemoryBufferWithMemoryRange(x->o->vocabulary.p, x->o->vocabulary.n, "vocabulary", false);
    if (LLVMParseBitcodeInContext2(x->cx, b, &x->m)) BUG("the vocabulary is no bitcode");
    LLVMDisposeMemoryBuffer(b);
    LLVMDeleteGlobal(LLVMGetNamedGlobal(x->m, "llvm.compiler.used"));
}

bool llvm_emit(const Program *p, const LlvmOptions *o, Text *out, Diag *d) {
    Builder x = {.p = p, .o = o, .d = d};
    open_builder(&x);
    bool ok = open_machine(&x);
    if (ok) {
        load_vocabulary(&x);
        LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(x.machine);
        LLVMSetModuleDataLayout(x.m, layout);
        LLVMDisposeTargetData(layout);
        program(&x);
        ok = finish(&x, p->o->prefix, out);
    }
    close_builder(&x);
    return ok;
}

/* static const moec_tokenizer tokenizer = {&moec_text_sentencepiece, NULL, 0, NULL} */
static Val tokenizer(Builder *x) {
    Val none = LLVMConstNull(x->ptr), field[] = {LLVMAddGlobal(x->m, x->ptr, "moec_text_sentencepiece"), none, i64(x, 0), none};
    Val init = LLVMConstStructInContext(x->cx, field, 4, false);
    return constant(x, "tokenizer", LLVMTypeOf(init), init);
}

bool llvm_emit_main(const char *prefix, bool text, bool blas, const LlvmOptions *o, Text *out, Diag *d) {
    Builder x = {.o = o, .d = d};
    open_builder(&x);
    bool ok = open_machine(&x);
    if (ok) {
        x.m = LLVMModuleCreateWithNameInContext("main", x.cx);
        Ty two[] = {x.i32, x.ptr}, four[] = {x.ptr, x.ptr, x.i32, x.ptr};
        Val run = LLVMAddFunction(x.m, "moec_main", LLVMFunctionType(x.i32, four, 4, false));
        Val get = LLVMAddFunction(x.m, arena_printf(x.arena, "%s_program", prefix), LLVMFunctionType(x.ptr, NULL, 0, false));
        x.fn = LLVMAddFunction(x.m, "main", LLVMFunctionType(x.i32, two, 2, false));
        Val argc = LLVMGetParam(x.fn, 0), argv = LLVMGetParam(x.fn, 1);
        enter(&x, new_block(&x, "entry"));
        if (blas) call(&x, LLVMAddFunction(x.m, "moec_choose_blas", LLVMFunctionType(x.nothing, &x.ptr, 1, false)), &argv, 1);
        Val arg[] = {call(&x, get, NULL, 0), text ? tokenizer(&x) : LLVMConstNull(x.ptr), argc, argv};
        LLVMBuildRet(x.b, call(&x, run, arg, 4));
        ok = finish(&x, "main", out);
    }
    close_builder(&x);
    return ok;
}

char *llvm_host(void) {
    char *t = LLVMGetDefaultTargetTriple(), *copy = mem_alloc(strlen(t) + 1);
    strcpy(copy, t);
    LLVMDisposeMessage(t);
    return copy;
}

const char *llvm_version(void) {
    static char text[40];
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    snprintf(text, sizeof text, "LLVM %u.%u.%u", major, minor, patch);
    return text;
}
