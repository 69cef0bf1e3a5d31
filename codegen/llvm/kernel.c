/* Kernels: expressions, statements, the parallel loop.
 *
 * A phase becomes a function PHASE and, where it has blocks, a task that calls it for one. A parallel loop becomes two functions, TASK with the signature of moec_task, and BODY, whose buffers are parameters that
 * do not alias: LLVM knows no restrict but that of parameters. */
#include "builder.h"

#include "../../runtime/moec_rt.h"

#include <math.h>

/* ---- expressions ------------------------------------------------------------------------------- */

/* What LLVM has an instruction for; everything else is a call of the vocabulary. */
typedef struct OpRule {
    LLVMOpcode f;                /* of floats; 0: none */
    LLVMOpcode bits;             /* of bool; 0: none */
    LLVMRealPredicate real;      /* a comparison; 0: none */
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
    if (lb_is_float(t))
        return LLVMBuildFCmp(x->b, LLVMRealUNE, v, LLVMConstNull(t), "");
    return LLVMBuildICmp(x->b, LLVMIntNE, v, LLVMConstNull(t), "");
}

static Val as_bool(Builder *x, Val v) {
    return LLVMBuildZExt(x->b, v, x->i8, "");
}

/* Products and sums may be contracted, as the C backend lets its compiler do. */
static Val contracted(Val v) {
    if (LLVMCanValueUseFastMathFlags(v))
        LLVMSetFastMathFlags(v, LLVMFastMathAllowContract);
    return v;
}

static Val compare(Builder *x, const LExpr *e, const OpRule *r) {
    DType t = e->a->type;
    Val a = expr(x, e->a), b = expr(x, e->b);
    bool same = LLVMTypeOf(a) == LLVMTypeOf(b) && lb_is_unsigned(t) == lb_is_unsigned(e->b->type);
    if (dtype_is_float(t))
        return as_bool(x, LLVMBuildFCmp(x->b, r->real, a, lb_convert(x, b, e->b->type, LLVMTypeOf(a)), ""));
    if (!same) { /* both as C promotes them */
        a = lb_convert(x, a, t, x->i64);
        b = lb_convert(x, b, e->b->type, x->i64);
    }
    return as_bool(x, LLVMBuildICmp(x->b, same && lb_is_unsigned(t) ? r->zero : r->sign, a, b, ""));
}

static Val is_inf(Builder *x, Val v) {
    Ty t = LLVMTypeOf(v);
    Val up = LLVMBuildFCmp(x->b, LLVMRealOEQ, v, LLVMConstReal(t, (double)INFINITY), "");
    Val down = LLVMBuildFCmp(x->b, LLVMRealOEQ, v, LLVMConstReal(t, (double)-INFINITY), "");
    return LLVMBuildOr(x->b, up, down, "");
}

static Val words_op(Builder *x, const LExpr *e) {
    const LExpr *from[] = {e->a, e->b, e->c};
    Val operand[] = {expr(x, e->a), expr(x, e->b), e->c ? expr(x, e->c) : NULL};
    if (e->lanes > 1)
        return lb_words_op(x, e, operand[0], operand[1], operand[2]);
    return lb_vocabulary(x, loop_op_name[e->op], dtype_name(e->type), from, operand, e->c ? 3 : 2);
}

static Val op(Builder *x, const LExpr *e) {
    const OpRule *r = &op_rule[e->op];
    if (loop_op_of_words(e->op))
        return words_op(x, e);
    if (r->real)
        return compare(x, e, r);
    Val a = expr(x, e->a);
    if (e->op == LO_NOT)
        return as_bool(x, LLVMBuildNot(x->b, truth(x, a), ""));
    if (e->op == LO_ISNAN)
        return as_bool(x, LLVMBuildFCmp(x->b, LLVMRealUNO, a, a, ""));
    if (e->op == LO_ISINF)
        return as_bool(x, is_inf(x, a));
    Ty type = lb_scalar(x, e->type);
    Val b = e->b ? expr(x, e->b) : NULL;
    if (r->bits) {
        CHECK(b);
        return LLVMBuildBinOp(x->b, r->bits, lb_convert(x, a, e->a->type, type),
                              lb_convert(x, b, e->b->type, type), "");
    }
    if (e->lanes > 1)
        return contracted(b ? LLVMBuildBinOp(x->b, r->f, a, b, "") : LLVMBuildFNeg(x->b, a, ""));
    if (r->f && dtype_is_float(e->type)) {
        a = lb_convert(x, a, e->a->type, type);
        return contracted(b ? LLVMBuildBinOp(x->b, r->f, a, lb_convert(x, b, e->b->type, type), "")
                            : LLVMBuildFNeg(x->b, a, ""));
    }
    Val operand[] = {a, b};
    const LExpr *from[] = {e->a, e->b};
    Val v = lb_vocabulary(x, loop_op_name[e->op], dtype_is_float(e->type) ? dtype_name(e->type) : "i64", from,
                          operand, b ? 2 : 1);
    return lb_convert(x, v, dtype_is_float(e->type) ? e->type : DT_I64, type);
}

static Val index_op(Builder *x, const LExpr *e) {
    Val a = lb_convert(x, expr(x, e->a), e->a->type, x->i64),
        b = lb_convert(x, expr(x, e->b), e->b->type, x->i64);
    switch (e->op) {
    case LO_ADD:
        return LLVMBuildNSWAdd(x->b, a, b, "");
    case LO_SUB:
        return LLVMBuildNSWSub(x->b, a, b, "");
    case LO_MUL:
        return LLVMBuildNSWMul(x->b, a, b, "");
    case LO_DIV:
        return LLVMBuildSDiv(x->b, a, b, "");
    case LO_MOD:
        return LLVMBuildSRem(x->b, a, b, "");
    case LO_MIN:
        return lb_least(x, LLVMIntSLT, a, b);
    case LO_MAX:
        return lb_least(x, LLVMIntSGT, a, b);
    default:
        BUG("index arithmetic with operation %d", (int)e->op);
    }
}

/* Ranges that floats saturate to. */
static const int64_t int_range[DT_COUNT][2] = {
    [DT_U8] = {0, 255},
    [DT_I8] = {-128, 127},
    [DT_U16] = {0, 65535},
    [DT_I16] = {-32768, 32767},
    [DT_I32] = {INT32_MIN, INT32_MAX},
};

static Val cast(Builder *x, const LExpr *e) {
    DType from = e->a->type, to = e->type;
    Val v = expr(x, e->a);
    if (e->lanes > 1) /* of sums of integers */
        return LLVMBuildSIToFP(x->b, v, LLVMVectorType(lb_scalar(x, to), e->lanes), "");
    if (to == DT_F16) {
        v = lb_convert(x, v, from, x->f32);
        return lb_vocabulary(x, "f16_from", "f32", NULL, &v, 1);
    }
    if (from == DT_F16) {
        v = lb_call(x, lb_function(x, "moec_f32_from_f16"), &v, 1);
        from = DT_F32;
    }
    if (to == DT_BOOL)
        return as_bool(x, truth(x, v));
    if (!dtype_is_float(from) || dtype_is_float(to))
        return lb_convert(x, v, from, lb_scalar(x, to));
    v = lb_convert(x, v, from, x->f64);
    v = lb_call(x, lb_function(x, "moec_i64_from_f64"), &v, 1);
    if (to == DT_I64)
        return v;
    Val clamp[] = {v, lb_i64(x, int_range[to][0]), lb_i64(x, int_range[to][1])};
    return lb_convert(x, lb_call(x, lb_function(x, "moec_clamp_i64"), clamp, 3), DT_I64, lb_scalar(x, to));
}

/* Of several lanes a vector. */
static Ty lanes_of(Builder *x, DType t, uint32_t lanes) {
    return lanes > 1 ? LLVMVectorType(lb_scalar(x, t), lanes) : lb_scalar(x, t);
}

static Val splat(Builder *x, const LExpr *e) {
    Ty t = lanes_of(x, e->type, e->lanes);
    Val mask = LLVMConstNull(LLVMVectorType(x->i32, e->lanes));
    Val one = LLVMBuildInsertElement(x->b, LLVMGetPoison(t), expr(x, e->a), lb_number(x->i32, 0), "");
    return LLVMBuildShuffleVector(x->b, one, LLVMGetPoison(t), mask, "");
}

static Val zip(Builder *x, const LExpr *e) {
    Val lane[MAX_LANES];
    CHECK(e->lanes <= MAX_LANES);
    for (uint32_t l = 0; l < e->lanes; l++)
        lane[l] = lb_number(x->i32, (l % 2 ? e->lanes : 0) + (e->i ? e->lanes / 2 : 0) + l / 2);
    return LLVMBuildShuffleVector(x->b, expr(x, e->a), expr(x, e->b), LLVMConstVector(lane, e->lanes), "");
}

static Val element(Builder *x, const LBuf *b, const LExpr *index) {
    Val at[] = {expr(x, index)};
    return LLVMBuildInBoundsGEP2(x->b, lb_scalar(x, b->dtype), x->buf[b->id], at, 1, "");
}

static Val literal(Builder *x, DType t, double v) {
    if (t == DT_F16)
        return lb_number(x->i16, f16_from_f32((float)v));
    return LLVMConstReal(lb_scalar(x, t), t == DT_F32 ? (float)v : v);
}

static Val expr(Builder *x, const LExpr *e) {
    switch (e->kind) {
    case LE_INT:
        return lb_number(lb_scalar(x, e->type), e->i);
    case LE_FLOAT:
        return literal(x, e->type, e->f);
    case LE_VAR:
        return LLVMBuildLoad2(x->b, lanes_of(x, e->type, e->lanes), x->var[e->var], "");
    case LE_SPLAT:
        return splat(x, e);
    case LE_ZIP:
        return zip(x, e);
    case LE_DIM:
        return lb_size(x, e->dim);
    case LE_DOTS:
        return lb_number(lb_scalar(x, e->type), x->dots.int8 != NULL);
    case LE_OP:
        return op(x, e);
    case LE_INDEX:
        return index_op(x, e);
    case LE_SELECT: {
        Val c = truth(x, expr(x, e->a)), a = expr(x, e->b), b = expr(x, e->c);
        Ty t = lb_scalar(x, e->type);
        return LLVMBuildSelect(x->b, c, lb_convert(x, a, e->b->type, t), lb_convert(x, b, e->c->type, t), "");
    }
    case LE_CAST:
        return cast(x, e);
    default: {
        Val v = LLVMBuildLoad2(x->b, lanes_of(x, e->buf->dtype, e->lanes), element(x, e->buf, e->a), "");
        LLVMSetAlignment(v, (unsigned)dtype_bytes(e->buf->dtype));
        return v;
    }
    }
}

static Val index_of(Builder *x, const LExpr *e) {
    return lb_convert(x, expr(x, e), e->type, x->i64);
}

/* ---- statements -------------------------------------------------------------------------------- */

static void block(Builder *x, const LBlock *b);

static void set(Builder *x, uint32_t var, const LExpr *a) {
    DType t = x->k->var.item[var].type;
    if (a->lanes > 1)
        LLVMBuildStore(x->b, expr(x, a), x->var[var]);
    else
        LLVMBuildStore(x->b, lb_convert(x, expr(x, a), a->type, lb_scalar(x, t)), x->var[var]);
}

/* while (i < extent): LLVM turns it around. */
static void for_loop(Builder *x, const LStmt *s) {
    Val slot = x->var[s->var], extent = index_of(x, s->extent);
    LLVMBuildStore(x->b, lb_i64(x, 0), slot);
    LLVMBasicBlockRef head = lb_new_block(x, "for"), body = lb_new_block(x, "do"),
                      after = lb_new_block(x, "done");
    LLVMBuildBr(x->b, head);
    lb_enter(x, head);
    Val i = LLVMBuildLoad2(x->b, x->i64, slot, "");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntSLT, i, extent, ""), body, after);
    lb_enter(x, body);
    block(x, &s->body);
    lb_line(x, s->line);
    i = LLVMBuildLoad2(x->b, x->i64, slot, "");
    LLVMBuildStore(x->b, LLVMBuildNSWAdd(x->b, i, lb_i64(x, 1), ""), slot);
    LLVMBuildBr(x->b, head);
    lb_enter(x, after);
}

static void branch(Builder *x, const LStmt *s) {
    LLVMBasicBlockRef yes = lb_new_block(x, "then"), no = s->other.first ? lb_new_block(x, "else") : NULL,
                      after = lb_new_block(x, "end");
    LLVMBuildCondBr(x->b, truth(x, expr(x, s->a)), yes, no ? no : after);
    lb_enter(x, yes);
    block(x, &s->body);
    LLVMBuildBr(x->b, after);
    if (no) {
        lb_enter(x, no);
        block(x, &s->other);
        LLVMBuildBr(x->b, after);
    }
    lb_enter(x, after);
}

static void matrix(Builder *x, const LMatrix *m, Val *address, Val *ld) {
    Val at[] = {index_of(x, m->offset)};
    *address = LLVMBuildInBoundsGEP2(x->b, lb_scalar(x, m->buf->dtype), x->buf[m->buf->id], at, 1, "");
    *ld = index_of(x, m->ld);
}

static void matmul(Builder *x, const LStmt *s) {
    Val a, lda, b, ldb, c, ldc;
    matrix(x, &s->ma, &a, &lda);
    matrix(x, &s->mb, &b, &ldb);
    matrix(x, &s->mc, &c, &ldc);
    Val arg[] = {x->pool,
                 index_of(x, s->m),
                 index_of(x, s->n),
                 index_of(x, s->k),
                 a,
                 lda,
                 lb_number(x->i32, s->ma.transposed),
                 b,
                 ldb,
                 lb_number(x->i32, s->mb.transposed),
                 c,
                 ldc,
                 lb_number(x->i32, s->accumulate)};
    lb_call(x, lb_function(x, "moec_matmul"), arg, sizeof arg / sizeof *arg);
}

static void call_routine(Builder *x, const LStmt *s) {
    uint32_t n = ls_arguments(s);
    Val *arg = arena_array(x->arena, n + 1, sizeof *arg);
    for (uint32_t i = 0; i < n; i++)
        arg[i] = s->arg[i].buf ? element(x, s->arg[i].buf, s->arg[i].at) : index_of(x, s->arg[i].at);
    lb_call_named(x, str_c(s->routine->name), arg, n);
}

static void prefetch(Builder *x, const LStmt *s) {
    unsigned id = LLVMLookupIntrinsicID("llvm.prefetch", 13);
    Val f = LLVMGetIntrinsicDeclaration(x->m, id, &x->ptr, 1), at[] = {expr(x, s->index)};
    Val address = LLVMBuildGEP2(x->b, lb_scalar(x, s->buf->dtype), x->buf[s->buf->id], at, 1, "");
    Val arg[] = {address, lb_number(x->i32, 0), lb_number(x->i32, 3), lb_number(x->i32, 1)}; /* read, keep, data */
    LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, 4, "");
}

/* moec_wait(pool, tasks) */
static void wait_for(Builder *x, Val tasks) {
    Ty param[] = {x->ptr, x->i64};
    Val arg[] = {lb_frame_field(x, offsetof(moec_frame, pool)), tasks};
    lb_call(x, lb_runtime(x, "moec_wait", x->nothing, param, 2), arg, 2);
}

static void check(Builder *x, const LStmt *s) {
    Val v = index_of(x, s->a), extent = index_of(x, s->extent);
    LLVMBuildStore(x->b, v, x->var[s->var]);
    /* one comparison: a negative index is a large unsigned one */
    LLVMBasicBlockRef bad = lb_new_block(x, "fault"), after = lb_new_block(x, "sound");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntULT, v, extent, ""), after, bad);
    lb_enter(x, bad);
    lb_call(x, lb_function(x, "moec_fault"), &x->frame, 1);
    LLVMBuildStore(x->b, lb_i64(x, 0), x->var[s->var]);
    LLVMBuildBr(x->b, after);
    lb_enter(x, after);
}

static void statement(Builder *x, const LStmt *s) {
    lb_line(x, s->line);
    switch (s->kind) {
    case LS_FOR:
        for_loop(x, s);
        break;
    case LS_LET:
    case LS_SET:
        set(x, s->var, s->a);
        break;
    case LS_STORE:
        LLVMSetAlignment(LLVMBuildStore(x->b, expr(x, s->a), element(x, s->buf, s->index)),
                         (unsigned)dtype_bytes(s->buf->dtype));
        break;
    case LS_CALL:
        call_routine(x, s);
        break;
    case LS_PREFETCH:
        prefetch(x, s);
        break;
    case LS_WAIT:
        wait_for(x, index_of(x, s->a));
        break;
    case LS_IF:
        branch(x, s);
        break;
    case LS_MATMUL:
        matmul(x, s);
        break;
    case LS_CHECK:
        check(x, s);
        break;
    case LS_NOTE:
        break;
    case LS_PHASE:
    case LS_PARALLEL:
        BUG("a phase or a parallel loop inside another statement");
    }
}

static void block(Builder *x, const LBlock *b) {
    for (const LStmt *s = b->first; s; s = s->next)
        statement(x, s);
}

/* ---- kernels ----------------------------------------------------------------------------------- */

/* Slots of variables and local arrays, at the function's entry. */
static void open_kernel(Builder *x, Val fn) {
    const LoopKernel *k = x->k;
    lb_open(x, fn, k->func_line);
    for (size_t i = 0; i < k->var.count; i++)
        x->var[i] = LLVMBuildAlloca(x->b, lanes_of(x, k->var.item[i].type, k->var.item[i].lanes), "");
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->kind == LB_TABLE)
            x->buf[i] = x->table[i];
        if (b->kind != LB_LOCAL)
            continue;
        x->buf[i] = LLVMBuildAlloca(x->b, LLVMArrayType2(lb_scalar(x, b->dtype), (uint64_t)b->count), "");
        LLVMSetAlignment(x->buf[i], 64);
    }
}

static Val constant_element(Builder *x, const Tensor *t, int64_t i) {
    if (t->dtype == DT_F16)
        return lb_number(x->i16, ((const uint16_t *)t->data)[i]);
    if (dtype_is_float(t->dtype))
        return LLVMConstReal(lb_scalar(x, t->dtype), tensor_get_f64(t, i));
    return lb_number(lb_scalar(x, t->dtype), tensor_get_i64(t, i));
}

static void kernel_tables(Builder *x) {
    const LoopKernel *k = x->k;
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (b->kind != LB_TABLE)
            continue;
        Val *item = arena_array(x->arena, (size_t)b->count + 1, sizeof *item);
        for (int64_t j = 0; j < b->count; j++)
            item[j] = constant_element(x, b->data, j);
        Ty t = lb_scalar(x, b->dtype);
        x->table[i] = lb_constant(x, lb_text(x, "%.*s_table", k->name), LLVMArrayType2(t, (uint64_t)b->count),
                                  LLVMConstArray2(t, item, (uint64_t)b->count));
        LLVMSetAlignment(x->table[i], 64);
    }
}

static bool is_scratch(const LBuf *b) {
    return b->kind == LB_SCRATCH;
}

/* void NAME(frame, pool, numbers..., arguments and scratch...): buffers are parameters, the only ones LLVM takes not to
 * alias. */
static Val part_function(Builder *x, const char *name, unsigned numbers) {
    const LoopKernel *k = x->k;
    Ty *param = arena_array(x->arena, k->buf.count + 2 + numbers, sizeof *param);
    unsigned n = 0;
    param[n++] = x->ptr;
    param[n++] = x->ptr;
    for (unsigned i = 0; i < numbers; i++)
        param[n++] = x->i64;
    for (size_t i = 0; i < k->buf.count; i++)
        if (i < k->n_args || is_scratch(k->buf.item[i]))
            param[n++] = x->ptr;
    return lb_add_function(x, lb_text(x, name, k->name), x->nothing, param, n, k->func_line);
}

static void open_part(Builder *x, Val fn, unsigned numbers) {
    const LoopKernel *k = x->k;
    unsigned n = 2 + numbers;
    x->frame = LLVMGetParam(fn, 0);
    x->pool = LLVMGetParam(fn, 1);
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (i >= k->n_args && !is_scratch(b))
            continue;
        x->buf[i] = LLVMGetParam(fn, n++);
        if (!b->awaited)
            lb_attribute(x, fn, n, "noalias", 0); /* attributes count parameters from 1 */
        if (is_scratch(b))
            lb_attribute(x, fn, n, "align", 64);
        if (i < k->n_args && !b->written)
            lb_attribute(x, fn, n, "readonly", 0);
    }
    lb_load_symbols(x, lb_frame_field(x, offsetof(moec_frame, sym)));
}

/* What one iteration of the parallel loop does. */
static Val kernel_body(Builder *x, const LStmt *par) {
    Val fn = part_function(x, "%.*s_body", 1);
    open_kernel(x, fn);
    open_part(x, fn, 1);
    LLVMBuildStore(x->b, LLVMGetParam(fn, 2), x->var[par->var]);
    block(x, &par->body);
    LLVMBuildRetVoid(x->b);
    return fn;
}

/* The struct that a kernel hands to its tasks: frame, pool, arguments. */
static Ty task_struct(Builder *x) {
    Ty *field = arena_array(x->arena, x->k->n_args + 2, sizeof *field);
    for (uint32_t i = 0; i < x->k->n_args + 2; i++)
        field[i] = x->ptr;
    return LLVMStructTypeInContext(x->cx, field, x->k->n_args + 2, false);
}

static Val task_field(Builder *x, Ty type, Val task, unsigned i) {
    return LLVMBuildLoad2(x->b, x->ptr, LLVMBuildStructGEP2(x->b, type, task, i, ""), "");
}

/* void TASK(void *arg, int64_t i, int worker) */
static Val kernel_task(Builder *x, Val body) {
    const LoopKernel *k = x->k;
    Ty param[] = {x->ptr, x->i64, x->i32}, type = task_struct(x);
    Val fn = lb_add_function(x, lb_text(x, "%.*s_task", k->name), x->nothing, param, 3, k->func_line);
    Val *arg = arena_array(x->arena, k->buf.count + 4, sizeof *arg);
    unsigned n = 0;
    lb_open(x, fn, k->func_line);
    x->frame = arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), 0);
    arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), 1);
    arg[n++] = LLVMGetParam(fn, 1);
    Val shared = lb_frame_field(x, offsetof(moec_frame, scratch)),
        worker = LLVMBuildSExt(x->b, LLVMGetParam(fn, 2), x->i64, "");
    Val at[] = {LLVMBuildMul(x->b, worker, lb_i64(x, x->p->scratch), "")},
        own = LLVMBuildInBoundsGEP2(x->b, x->i8, shared, at, 1, "");
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (i < k->n_args)
            arg[n++] = task_field(x, type, LLVMGetParam(fn, 0), (unsigned)i + 2);
        else if (is_scratch(b))
            arg[n++] = lb_bytes_from(x, b->shared ? shared : own, b->offset);
    }
    lb_call(x, body, arg, n);
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
    lb_enter(x, here);
    lb_line(x, par->line);
    Val one = LLVMBuildICmp(x->b, LLVMIntEQ, tasks, lb_i64(x, 1), "");
    LLVMBuildStore(x->b, x->frame, LLVMBuildStructGEP2(x->b, type, a, 0, ""));
    LLVMBuildStore(x->b, LLVMBuildSelect(x->b, one, x->pool, LLVMConstNull(x->ptr), ""),
                   LLVMBuildStructGEP2(x->b, type, a, 1, ""));
    for (uint32_t i = 0; i < x->k->n_args; i++)
        LLVMBuildStore(x->b, x->buf[i], LLVMBuildStructGEP2(x->b, type, a, i + 2, ""));
    LLVMBasicBlockRef alone = lb_new_block(x, "alone"), many = lb_new_block(x, "many"),
                      after = lb_new_block(x, "joined");
    LLVMBuildCondBr(x->b, one, alone, many);
    lb_enter(x, alone);
    Val direct[] = {a, lb_i64(x, 0), lb_number(x->i32, 0)};
    lb_call(x, task, direct, 3);
    LLVMBuildBr(x->b, after);
    lb_enter(x, many);
    Val pooled[] = {x->pool, tasks, task, a};
    lb_call(x, lb_function(x, "moec_parallel"), pooled, 4);
    LLVMBuildBr(x->b, after);
    lb_enter(x, after);
}

/* ---- kernels by rows ---------------------------------------------------------------------------- */

/* void PHASE(frame, pool, row0, rows, job, block, arguments and scratch...) */
static Val phase(Builder *x, const LStmt *s) {
    const LoopKernel *k = x->k;
    const uint32_t given[] = {k->rows.row0, k->rows.count, k->rows.job, s->var};
    Val fn = part_function(x, "%.*s_phase", 4);
    open_kernel(x, fn);
    open_part(x, fn, 4);
    for (unsigned i = 0; i < 4; i++)
        LLVMBuildStore(x->b, LLVMGetParam(fn, 2 + i), x->var[given[i]]);
    block(x, &s->body);
    LLVMBuildRetVoid(x->b);
    return fn;
}

/* The struct of such a kernel's tasks. */
enum { ROWS_FRAME, ROWS_ALL, ROWS_SIZE, ROWS_ARGUMENT };

static Ty rows_struct(Builder *x) {
    Ty *field = arena_array(x->arena, x->k->n_args + ROWS_ARGUMENT, sizeof *field);
    for (uint32_t i = 0; i < x->k->n_args + ROWS_ARGUMENT; i++)
        field[i] = i == ROWS_ALL || i == ROWS_SIZE ? x->i64 : x->ptr;
    return LLVMStructTypeInContext(x->cx, field, x->k->n_args + ROWS_ARGUMENT, false);
}

static Val rows_number(Builder *x, Ty type, Val task, unsigned i) {
    return LLVMBuildLoad2(x->b, x->i64, LLVMBuildStructGEP2(x->b, type, task, i, ""), "");
}

/* What a call of a phase needs beside its rows and block. */
typedef struct Rows {
    Ty type;
    Val task, pool, shared, own;
    bool job;
} Rows;

static void call_phase(Builder *x, const Rows *r, Val fn, Val row0, Val rows, Val at) {
    const LoopKernel *k = x->k;
    Val *arg = arena_array(x->arena, k->buf.count + 6, sizeof *arg);
    unsigned n = 0;
    arg[n++] = task_field(x, r->type, r->task, ROWS_FRAME);
    arg[n++] = r->pool;
    arg[n++] = row0;
    arg[n++] = rows;
    arg[n++] = lb_i64(x, r->job);
    arg[n++] = at;
    for (size_t i = 0; i < k->buf.count; i++) {
        const LBuf *b = k->buf.item[i];
        if (i < k->n_args)
            arg[n++] = task_field(x, r->type, r->task, (unsigned)i + ROWS_ARGUMENT);
        else if (is_scratch(b))
            arg[n++] = lb_bytes_from(x, b->own ? r->own : r->shared, b->offset);
    }
    lb_call(x, fn, arg, n);
}

/* A task of a kernel by rows; what follows belongs to it. */
static Val open_rows_task(Builder *x, const char *name, Rows *r) {
    Ty param[] = {x->ptr, x->i64, x->i32};
    Val fn = lb_add_function(x, lb_text(x, name, x->k->name), x->nothing, param, 3, x->k->func_line);
    lb_open(x, fn, x->k->func_line);
    *r = (Rows){.type = rows_struct(x), .task = LLVMGetParam(fn, 0), .pool = LLVMConstNull(x->ptr)};
    x->frame = task_field(x, r->type, r->task, ROWS_FRAME);
    r->shared = lb_frame_field(x, offsetof(moec_frame, scratch));
    Val worker = LLVMBuildSExt(x->b, LLVMGetParam(fn, 2), x->i64, "");
    Val at[] = {LLVMBuildMul(x->b, worker, lb_i64(x, x->p->scratch), "")};
    r->own = LLVMBuildInBoundsGEP2(x->b, x->i8, r->shared, at, 1, "");
    return fn;
}

/* A job for few rows: a task is a block of one of the phases fn[0], fn[1], ... from s to `end`. */
static Val job_task(Builder *x, const LStmt *s, const LStmt *end, const Val *fn) {
    Rows r;
    Val task = open_rows_task(x, "%.*s_job", &r), at = LLVMGetParam(task, 1), all = rows_number(x, r.type, r.task, ROWS_ALL);
    int64_t first = 0;
    r.job = true;
    for (; s != end; first += loop_blocks(s), s = s->next, fn++) {
        LLVMBasicBlockRef mine = lb_new_block(x, "mine"), others = s->next != end ? lb_new_block(x, "others") : NULL;
        if (others)
            LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntSLT, at, lb_i64(x, first + loop_blocks(s)), ""), mine, others);
        else
            LLVMBuildBr(x->b, mine);
        lb_enter(x, mine);
        if (s->done)
            wait_for(x, lb_i64(x, s->done));
        call_phase(x, &r, *fn, lb_i64(x, 0), all, LLVMBuildNSWSub(x->b, at, lb_i64(x, first), ""));
        LLVMBuildRetVoid(x->b);
        if (others)
            lb_enter(x, others);
    }
    return task;
}

/* for (block = 0; block < the phase's; block++) it. */
static void call_blocks(Builder *x, const Rows *r, Val fn, const LStmt *s, Val row0, Val rows) {
    Val zero = lb_i64(x, 0);
    if (loop_blocks(s) == 1) {
        call_phase(x, r, fn, row0, rows, zero);
        return;
    }
    LLVMBasicBlockRef before = LLVMGetInsertBlock(x->b), body = lb_new_block(x, "do"), after = lb_new_block(x, "done");
    LLVMBuildBr(x->b, body);
    lb_enter(x, body);
    Val at = LLVMBuildPhi(x->b, x->i64, "block");
    call_phase(x, r, fn, row0, rows, at);
    Val next = LLVMBuildNSWAdd(x->b, at, lb_i64(x, 1), "");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntSLT, next, lb_i64(x, loop_blocks(s)), ""), body, after);
    Val from[] = {zero, next};
    LLVMBasicBlockRef edge[] = {before, LLVMGetInsertBlock(x->b)};
    LLVMAddIncoming(at, from, edge, 2);
    lb_enter(x, after);
}

/* All phases for one tile of rows. */
static Val rows_task(Builder *x, const Val *fn) {
    Rows r;
    Val task = open_rows_task(x, "%.*s_rows", &r);
    r.shared = r.own;
    Val size = rows_number(x, r.type, r.task, ROWS_SIZE), all = rows_number(x, r.type, r.task, ROWS_ALL);
    Val row0 = LLVMBuildNSWMul(x->b, LLVMGetParam(task, 1), size, "");
    Val rows = lb_least(x, LLVMIntSLT, size, LLVMBuildNSWSub(x->b, all, row0, ""));
    for (const LStmt *s = x->k->body.first; s; s = s->next, fn++)
        call_blocks(x, &r, *fn, s, row0, rows);
    LLVMBuildRetVoid(x->b);
    return task;
}

static void run_parallel(Builder *x, Val tasks, Val task, Val a) {
    Val arg[] = {x->pool, tasks, task, a};
    lb_call(x, lb_function(x, "moec_parallel"), arg, 4);
}

/* job[i]: the task of the job that begins with phase i. */
static void few_rows(Builder *x, const Rows *r, const Val *fn, const Val *job, Val all) {
    for (const LStmt *s = x->k->body.first, *end; s; s = end) {
        int64_t tasks;
        end = loop_job(s, &tasks);
        if (tasks == 1)
            call_phase(x, r, *fn, lb_i64(x, 0), all, lb_i64(x, 0));
        else
            run_parallel(x, lb_i64(x, tasks), *job, r->task);
        for (; s != end; s = s->next)
            fn++, job++;
    }
}

static void many_rows(Builder *x, const Rows *r, Val task, Val all) {
    Val arg[] = {x->pool, all, lb_i64(x, x->k->rows.tile)};
    Val size = lb_call(x, lb_function(x, "moec_tile_rows"), arg, 3);
    LLVMBuildStore(x->b, size, LLVMBuildStructGEP2(x->b, r->type, r->task, ROWS_SIZE, ""));
    Val up = LLVMBuildNSWSub(x->b, LLVMBuildNSWAdd(x->b, all, size, ""), lb_i64(x, 1), "");
    run_parallel(x, LLVMBuildSDiv(x->b, up, size, ""), task, r->task);
}

typedef struct RowsParts {
    Val *phase, *job, rows; /* functions of phases, tasks of jobs by their first phase; the task of tiles, or NULL */
} RowsParts;

static RowsParts rows_parts(Builder *x) {
    RowsParts p = {0};
    size_t n = 0, i = 0;
    for (const LStmt *s = x->k->body.first; s; s = s->next)
        n++;
    p.phase = arena_array(x->arena, n + 1, sizeof *p.phase);
    p.job = arena_array(x->arena, n + 1, sizeof *p.job);
    for (const LStmt *s = x->k->body.first; s; s = s->next)
        p.phase[i++] = phase(x, s);
    i = 0;
    for (const LStmt *s = x->k->body.first, *end; s; s = end) {
        int64_t tasks;
        end = loop_job(s, &tasks);
        if (tasks > 1)
            p.job[i] = job_task(x, s, end, &p.phase[i]);
        for (; s != end; s = s->next)
            i++;
    }
    if (x->k->rows.most > x->k->rows.tile)
        p.rows = rows_task(x, p.phase);
    return p;
}

/* What the kernel itself does for `all` rows: its frame, pool and arguments are there. */
static void run_rows(Builder *x, const RowsParts *p, Val all) {
    const LoopKernel *k = x->k;
    CHECK(p->phase && p->job);
    Rows r = {.type = rows_struct(x), .pool = x->pool};
    r.task = LLVMBuildAlloca(x->b, r.type, "");
    r.shared = r.own = lb_frame_field(x, offsetof(moec_frame, scratch));
    LLVMBuildStore(x->b, x->frame, LLVMBuildStructGEP2(x->b, r.type, r.task, ROWS_FRAME, ""));
    LLVMBuildStore(x->b, all, LLVMBuildStructGEP2(x->b, r.type, r.task, ROWS_ALL, ""));
    for (uint32_t i = 0; i < k->n_args; i++)
        LLVMBuildStore(x->b, x->buf[i], LLVMBuildStructGEP2(x->b, r.type, r.task, i + ROWS_ARGUMENT, ""));
    if (!p->rows) {
        few_rows(x, &r, p->phase, p->job, all);
        return;
    }
    LLVMBasicBlockRef few = lb_new_block(x, "few"), many = lb_new_block(x, "many"), after = lb_new_block(x, "joined");
    LLVMBuildCondBr(x->b, LLVMBuildICmp(x->b, LLVMIntSLE, all, lb_i64(x, k->rows.tile), ""), few, many);
    lb_enter(x, few);
    few_rows(x, &r, p->phase, p->job, all);
    LLVMBuildBr(x->b, after);
    lb_enter(x, many);
    many_rows(x, &r, p->rows, all);
    LLVMBuildBr(x->b, after);
    lb_enter(x, after);
}

/* ---- the kernel ----------------------------------------------------------------------------------- */

static Str any_name(Builder *x, const LoopKernel *k) {
    return str_c(lb_text(x, "%.*s_any", k->name));
}

/* The function's frame, and its arguments from parameter `first` on. */
static void take_arguments(Builder *x, unsigned first) {
    x->frame = LLVMGetParam(x->fn, 0);
    x->pool = lb_frame_field(x, offsetof(moec_frame, pool));
    for (uint32_t i = 0; i < x->k->n_args; i++)
        x->buf[i] = LLVMGetParam(x->fn, i + first);
}

/* void KERNEL_any(frame, rows, arguments...) */
static void lent(Builder *x, const RowsParts *parts) {
    const LoopKernel *k = x->k;
    Ty *param = arena_array(x->arena, k->n_args + 2u, sizeof *param);
    for (uint32_t i = 0; i < k->n_args + 2; i++)
        param[i] = i == 1 ? x->i64 : x->ptr;
    Val fn = lb_add_function(x, any_name(x, k).p, x->nothing, param, k->n_args + 2, k->func_line);
    open_kernel(x, fn);
    lb_attribute(x, fn, LLVMAttributeFunctionIndex, "noinline", 0);
    take_arguments(x, 2);
    run_rows(x, parts, LLVMGetParam(fn, 1));
    LLVMBuildRetVoid(x->b);
}

static void run_as(Builder *x, const LoopKernel *as) {
    const LoopKernel *k = x->k;
    Val *arg = arena_array(x->arena, k->n_args + 2u, sizeof *arg);
    arg[0] = x->frame;
    arg[1] = index_of(x, k->rows.all);
    for (uint32_t i = 0; i < k->n_args; i++)
        arg[i + 2] = x->buf[i];
    lb_call(x, lb_function(x, any_name(x, as).p), arg, k->n_args + 2);
}

/* void KERNEL(frame, arguments...) */
void lb_kernel(Builder *x, const LoopKernel *k) {
    x->k = k;
    x->buf = arena_array(x->arena, k->buf.count + 1, sizeof *x->buf);
    x->table = arena_array(x->arena, k->buf.count + 1, sizeof *x->table);
    x->var = arena_array(x->arena, k->var.count + 1, sizeof *x->var);
    kernel_tables(x);
    Val task = NULL;
    RowsParts parts = {0};
    if (k->rows.all && !k->as)
        parts = rows_parts(x);
    if (k->lent)
        lent(x, &parts);
    for (const LStmt *s = k->body.first; s; s = s->next)
        if (s->kind == LS_PARALLEL)
            task = kernel_task(x, kernel_body(x, s));
    Ty *param = arena_array(x->arena, k->n_args + 1u, sizeof *param);
    for (uint32_t i = 0; i <= k->n_args; i++)
        param[i] = x->ptr;
    open_kernel(
        x, lb_add_function(x, lb_text(x, "%.*s", k->name), x->nothing, param, k->n_args + 1, k->func_line));
    take_arguments(x, 1);
    Val scratch = lb_frame_field(x, offsetof(moec_frame, scratch));
    for (size_t i = k->n_args; i < k->buf.count; i++)
        if (is_scratch(k->buf.item[i]))
            x->buf[i] = lb_bytes_from(x, scratch, k->buf.item[i]->offset);
    lb_load_symbols(x, lb_frame_field(x, offsetof(moec_frame, sym)));
    if (k->as || k->lent)
        run_as(x, k->as ? k->as : k);
    else if (k->rows.all)
        run_rows(x, &parts, index_of(x, k->rows.all));
    for (const LStmt *s = k->rows.all ? NULL : k->body.first; s; s = s->next) {
        if (s->kind == LS_PARALLEL)
            parallel(x, s, task);
        else
            statement(x, s);
    }
    LLVMBuildRetVoid(x->b);
}

/* ---- routines ---------------------------------------------------------------------------------- */

void lb_routine(Builder *x, const LRoutine *r) {
    const LoopKernel *k = x->k = r->version[x->vectors];
    unsigned n = 0;
    Ty *param = arena_array(x->arena, k->n_args + k->n_params + 1u, sizeof *param);
    x->buf = arena_array(x->arena, k->buf.count + 1, sizeof *x->buf);
    x->var = arena_array(x->arena, k->var.count + 1, sizeof *x->var);
    for (; n < k->n_args; n++)
        param[n] = x->ptr;
    for (; n < k->n_args + k->n_params; n++)
        param[n] = x->i64;
    Val fn = lb_add_function(x, r->name, x->nothing, param, n, 0);
    open_kernel(x, fn);
    for (unsigned i = 0; i < k->n_args; i++) {
        x->buf[i] = LLVMGetParam(fn, i);
        lb_attribute(x, fn, i + 1, "noalias", 0);
        if (!k->buf.item[i]->written)
            lb_attribute(x, fn, i + 1, "readonly", 0);
    }
    for (unsigned i = 0; i < k->n_params; i++)
        LLVMBuildStore(x->b, LLVMGetParam(fn, k->n_args + i), x->var[i]);
    block(x, &k->body);
    LLVMBuildRetVoid(x->b);
}
