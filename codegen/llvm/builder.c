/* What every part of the LLVM builder uses: types, conversions, calls of the vocabulary, sizes, functions. */
#include "builder.h"

#include <stdio.h>
#include <string.h>

/* ---- types ------------------------------------------------------------------------------------- */

Ty lb_scalar(const Builder *x, DType t) {
    switch (t) {
    case DT_F32:
        return x->f32;
    case DT_F64:
        return x->f64;
    case DT_I64:
        return x->i64;
    case DT_I32:
        return x->i32;
    case DT_I16:
    case DT_U16:
    case DT_F16:
        return x->i16;
    default:
        return x->i8;
    }
}

bool lb_is_unsigned(DType t) {
    return t == DT_BOOL || t == DT_U8 || t == DT_U16 || t == DT_F16;
}

Val lb_number(Ty t, int64_t v) {
    return LLVMConstInt(t, (unsigned long long)v, true);
}

Val lb_i64(const Builder *x, int64_t v) {
    return lb_number(x->i64, v);
}

bool lb_is_float(Ty t) {
    LLVMTypeKind k = LLVMGetTypeKind(t);
    return k == LLVMFloatTypeKind || k == LLVMDoubleTypeKind;
}

Val lb_convert(Builder *x, Val v, DType from, Ty to) {
    Ty t = LLVMTypeOf(v);
    if (t == to)
        return v;
    if (lb_is_float(t)) {
        if (lb_is_float(to))
            return LLVMBuildFPCast(x->b, v, to, "");
        return LLVMBuildFPToSI(x->b, v, to, "");
    }
    if (lb_is_float(to))
        return lb_is_unsigned(from) ? LLVMBuildUIToFP(x->b, v, to, "") : LLVMBuildSIToFP(x->b, v, to, "");
    return LLVMBuildIntCast2(x->b, v, to, !lb_is_unsigned(from), "");
}

/* ---- calls ------------------------------------------------------------------------------------- */

Val lb_function(Builder *x, const char *name) {
    Val f = LLVMGetNamedFunction(x->m, name);
    if (!f)
        BUG("the vocabulary has no function '%s'", name);
    return f;
}

/* A call promises of its operands what the function takes for granted. */
Val lb_call(Builder *x, Val f, Val *arg, unsigned n) {
    Val call = LLVMBuildCall2(x->b, LLVMGlobalGetValueType(f), f, arg, n, "");
    for (unsigned i = 0; i <= n; i++) { /* 0: the result */
        LLVMAttributeRef of[16];
        unsigned count = LLVMGetAttributeCountAtIndex(f, i);
        CHECK(count <= sizeof of / sizeof *of);
        LLVMGetAttributesAtIndex(f, i, of);
        for (unsigned k = 0; k < count; k++) LLVMAddCallSiteAttribute(call, i, of[k]);
    }
    return call;
}

Val lb_call_named(Builder *x, Str name, Val *arg, unsigned n) {
    return lb_call(x, lb_function(x, lb_text(x, "%.*s", name)), arg, n);
}

Val lb_runtime(Builder *x, const char *name, Ty result, Ty *param, unsigned n) {
    Val f = LLVMGetNamedFunction(x->m, name);
    return f ? f : LLVMAddFunction(x->m, name, LLVMFunctionType(result, param, n, false));
}

Val lb_vocabulary(Builder *x, const char *name, const char *type, const LExpr *const *e, const Val *operand,
                  unsigned n) {
    char full[64];
    Ty t[3];
    Val arg[3];
    snprintf(full, sizeof full, "moec_%s_%s", name, type);
    Val f = lb_function(x, full);
    CHECK(n <= 3 && LLVMCountParams(f) == n);
    LLVMGetParamTypes(LLVMGlobalGetValueType(f), t);
    for (unsigned i = 0; i < n; i++)
        arg[i] = lb_convert(x, operand[i], e ? e[i]->type : DT_I64, t[i]);
    return lb_call(x, f, arg, n);
}

/* ---- sizes ------------------------------------------------------------------------------------- */

static void *size_constant(void *ctx, int64_t v) {
    return lb_i64(ctx, v);
}

static void *size_symbol(void *ctx, uint32_t sym) {
    Builder *x = ctx;
    CHECK(x->symbol[sym] != NULL);
    return x->symbol[sym];
}

Val lb_least(Builder *x, LLVMIntPredicate p, Val a, Val b) {
    return LLVMBuildSelect(x->b, LLVMBuildICmp(x->b, p, a, b, ""), a, b, "");
}

static void *size_op(void *ctx, DimOp op, void *a, void *b) {
    Builder *x = ctx;
    switch (op) {
    case DIM_ADD:
        return LLVMBuildNSWAdd(x->b, a, b, "");
    case DIM_MUL:
        return LLVMBuildNSWMul(x->b, a, b, "");
    case DIM_FLOORDIV:
        return LLVMBuildSDiv(x->b, a, b, "");
    case DIM_MOD:
        return LLVMBuildSRem(x->b, a, b, "");
    case DIM_MIN:
        return lb_least(x, LLVMIntSLT, a, b);
    default:
        return lb_least(x, LLVMIntSGT, a, b);
    }
}

Val lb_size(Builder *x, Dim d) {
    static const DimAlgebra how = {size_constant, size_symbol, size_op};
    return dim_fold(x->p->m->dims, d, &how, x);
}

void lb_load_symbols(Builder *x, Val array) {
    for (uint32_t i = 0; i < x->p->n_symbols; i++) {
        Val at[] = {lb_i64(x, i)}, where = LLVMBuildInBoundsGEP2(x->b, x->i64, array, at, 1, "");
        uint32_t sym = x->p->symbol[i];
        x->symbol[sym] = LLVMBuildLoad2(x->b, x->i64, where, "");
    }
}

/* ---- functions --------------------------------------------------------------------------------- */

LLVMBasicBlockRef lb_new_block(Builder *x, const char *name) {
    return LLVMAppendBasicBlockInContext(x->cx, x->fn, name);
}

void lb_enter(Builder *x, LLVMBasicBlockRef b) {
    LLVMPositionBuilderAtEnd(x->b, b);
}

const char *lb_text(const Builder *x, const char *fmt, Str s) {
    return arena_printf(x->arena, fmt, (int)s.n, s.p);
}

Val lb_add_function(Builder *x, const char *name, Ty result, Ty *param, unsigned n, uint32_t line) {
    Val f = LLVMAddFunction(x->m, name, LLVMFunctionType(result, param, n, false));
    const DebugLines *d = &x->debug;
    LLVMSetLinkage(f, LLVMInternalLinkage);
    if (d->builder)
        LLVMSetSubprogram(f, LLVMDIBuilderCreateFunction(d->builder, d->file, name, strlen(name), "", 0,
                                                         d->file, line, d->type, true, true, line,
                                                         LLVMDIFlagArtificial, x->o->level > 0));
    return f;
}

void lb_open(Builder *x, Val fn, uint32_t line) {
    x->fn = fn;
    x->scope = LLVMGetSubprogram(fn);
    lb_enter(x, lb_new_block(x, "entry"));
    lb_line(x, line);
}

void lb_line(Builder *x, uint32_t line) {
    if (x->scope)
        LLVMSetCurrentDebugLocation2(x->b, LLVMDIBuilderCreateDebugLocation(x->cx, line, 0, x->scope, NULL));
}

void lb_attribute(const Builder *x, Val f, unsigned where, const char *name, uint64_t value) {
    LLVMAddAttributeAtIndex(
        f, where, LLVMCreateEnumAttribute(x->cx, LLVMGetEnumAttributeKindForName(name, strlen(name)), value));
}

Val lb_constant(Builder *x, const char *name, Ty t, Val init) {
    Val g = LLVMAddGlobal(x->m, t, name);
    LLVMSetInitializer(g, init);
    LLVMSetGlobalConstant(g, true);
    LLVMSetLinkage(g, LLVMInternalLinkage);
    return g;
}

Val lb_frame_field(Builder *x, size_t offset) {
    Val at[] = {lb_i64(x, (int64_t)offset)};
    return LLVMBuildLoad2(x->b, x->ptr, LLVMBuildInBoundsGEP2(x->b, x->i8, x->frame, at, 1, ""), "");
}

Val lb_bytes_from(Builder *x, Val base, int64_t offset) {
    Val at[] = {lb_i64(x, offset)};
    return LLVMBuildInBoundsGEP2(x->b, x->i8, base, at, 1, "");
}

/* ---- debug information --------------------------------------------------------------------------------- */

static void module_flag(Builder *x, const char *name, unsigned value) {
    LLVMAddModuleFlag(x->m, LLVMModuleFlagBehaviorWarning, name, strlen(name),
                      LLVMValueAsMetadata(lb_number(x->i32, value)));
}

void lb_debug_begin(Builder *x) {
    static const char maker[] = "moec";
    enum { DWARF = 5 };
    DebugLines *d = &x->debug;
    const char *file = x->p->o->ir_file, *folder = x->o->source_dir ? x->o->source_dir : ".";
    if (!file)
        return;
    module_flag(x, "Debug Info Version", LLVMDebugMetadataVersion());
    module_flag(x, "Dwarf Version", DWARF);
    d->builder = LLVMCreateDIBuilder(x->m);
    d->file = LLVMDIBuilderCreateFile(d->builder, file, strlen(file), folder, strlen(folder));
    d->unit = LLVMDIBuilderCreateCompileUnit(d->builder, LLVMDWARFSourceLanguageC99, d->file, maker,
                                             sizeof maker - 1, x->o->level > 0, "", 0, 0, "", 0,
                                             LLVMDWARFEmissionFull, 0, true, false, "", 0, "", 0);
    d->type = LLVMDIBuilderCreateSubroutineType(d->builder, d->file, NULL, 0, LLVMDIFlagZero);
}

void lb_debug_end(Builder *x) {
    if (!x->debug.builder)
        return;
    LLVMDIBuilderFinalize(x->debug.builder);
    LLVMDisposeDIBuilder(x->debug.builder);
}
