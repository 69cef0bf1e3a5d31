/* Vectors of words that hold several weights (compiler/pack.h): what moec_kernel.h has of one word, for all lanes, and the
 * machine's own instructions for products of them. */
#include "builder.h"

#include <string.h>

static Ty vector(const Builder *x, DType t, unsigned lanes) {
    return LLVMVectorType(lb_scalar(x, t), lanes);
}

static Val splat(Ty vector, int64_t v) {
    Val lane[64];
    unsigned n = LLVMGetVectorSize(vector);
    CHECK(n <= 64);
    for (unsigned i = 0; i < n; i++)
        lane[i] = lb_number(LLVMGetElementType(vector), v);
    return LLVMConstVector(lane, n);
}

/* (w >> shift) & mask */
static Val bits(Builder *x, Val w, int64_t shift, int64_t mask) {
    Ty t = LLVMTypeOf(w);
    Val v = shift ? LLVMBuildLShr(x->b, w, splat(t, shift), "") : w;
    return LLVMBuildAnd(x->b, v, splat(t, mask), "");
}

static Val number(Builder *x, Val w, int64_t shift, int64_t mask, int64_t zero) {
    Ty t = LLVMTypeOf(w);
    Val v = LLVMBuildSub(x->b, bits(x, w, shift, mask), splat(t, zero), "");
    return LLVMBuildSIToFP(x->b, v, vector(x, DT_F32, LLVMGetVectorSize(t)), "");
}

static Val bf16(Builder *x, Val w, int64_t i) {
    Ty t = LLVMTypeOf(w);
    Val v = i ? bits(x, w, 0, (int64_t)0xffff0000) : LLVMBuildShl(x->b, w, splat(t, 16), "");
    return LLVMBuildBitCast(x->b, v, vector(x, DT_F32, LLVMGetVectorSize(t)), "");
}

static Val fused(Builder *x, Val sum, Val a, Val b) {
    Val product = LLVMBuildFMul(x->b, a, b, "");
    LLVMSetFastMathFlags(product, LLVMFastMathAllowContract);
    Val v = LLVMBuildFAdd(x->b, sum, product, "");
    LLVMSetFastMathFlags(v, LLVMFastMathAllowContract);
    return v;
}

static Val call(Builder *x, const char *name, Val *arg, unsigned n) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    CHECK(id);
    Val f = LLVMGetIntrinsicDeclaration(x->m, id, NULL, 0);
    Ty *t = arena_array(x->arena, n, sizeof *t);
    LLVMGetParamTypes(LLVMGlobalGetValueType(f), t);
    for (unsigned i = 0; i < n; i++)
        arg[i] = LLVMBuildBitCast(x->b, arg[i], t[i], "");
    return LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, n, "");
}

static Val dot_bf16(Builder *x, Val sum, Val w, Val a) {
    Val arg[] = {sum, w, a};
    if (x->dots.bf16)
        return call(x, x->dots.bf16, arg, 3);
    sum = fused(x, sum, bf16(x, w, 1), bf16(x, a, 1));
    return fused(x, sum, bf16(x, w, 0), bf16(x, a, 0));
}

/* Even bytes and odd ones as halves of words, signed ones by shifts of halves. */
static Val dot_halves(Builder *x, Val sum, Val w, Val a) {
    Ty t = LLVMTypeOf(w), halves = vector(x, DT_I16, 2 * LLVMGetVectorSize(t));
    Val eight = splat(halves, 8), h = LLVMBuildBitCast(x->b, a, halves, "");
    Val even = LLVMBuildAShr(x->b, LLVMBuildShl(x->b, h, eight, ""), eight, ""), odd = LLVMBuildAShr(x->b, h, eight, "");
    Val evens[] = {bits(x, w, 0, 0x00ff00ff), even}, odds[] = {bits(x, w, 8, 0x00ff00ff), odd};
    sum = LLVMBuildAdd(x->b, sum, call(x, x->dots.halves, evens, 2), "");
    return LLVMBuildAdd(x->b, sum, call(x, x->dots.halves, odds, 2), "");
}

static Val dot_int8(Builder *x, Val sum, Val w, Val a) {
    Ty t = LLVMTypeOf(w);
    Val arg[] = {sum, w, a};
    if (x->dots.int8)
        return call(x, x->dots.int8, arg, 3);
    if (x->dots.halves)
        return dot_halves(x, sum, w, a);
    for (int64_t i = 0; i < 4; i++) {
        Val s = LLVMBuildAShr(x->b, LLVMBuildShl(x->b, a, splat(t, 24 - 8 * i), ""), splat(t, 24), "");
        sum = LLVMBuildAdd(x->b, sum, LLVMBuildMul(x->b, bits(x, w, 8 * i, 255), s, ""), "");
    }
    return sum;
}

Val lb_words_op(Builder *x, const LExpr *e, Val a, Val b, Val c) {
    int64_t i = e->b->i;
    switch (e->op) {
    case LO_OF_BF16:
        return bf16(x, a, i);
    case LO_OF_INT8:
        return number(x, a, 8 * i, 255, 128);
    case LO_OF_INT4:
        return number(x, a, 8 * (i & 3) + (i & 4), 15, 8);
    case LO_NIBBLES:
        return bits(x, a, 4 * i, 0x0f0f0f0f);
    case LO_DOT_BF16:
        return dot_bf16(x, a, b, c);
    case LO_DOT_INT8:
        return dot_int8(x, a, b, c);
    default:
        BUG("operation %d is not of words", (int)e->op);
    }
}
