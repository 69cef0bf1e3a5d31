/* What is public of the LLVM builder: the target, LLVM's passes, and the bytes that come out. The module starts as the
 * vocabulary's bitcode, so that every scalar function is there to be called and inlined; what stays unused is dropped. */
#include "../llvm.h"

#include "builder.h"
#include "memory.h"

#include <stdio.h>
#include <string.h>

/* ---- from a module to bytes -------------------------------------------------------------------- */

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
    bool much = x->o->level > 1; /* at 1 time counts: twice the code takes twice as long */
    snprintf(pipeline, sizeof pipeline, "default<O%d>", x->o->level);
    LLVMPassBuilderOptionsRef how = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(how, much);
    LLVMPassBuilderOptionsSetSLPVectorization(how, much);
    LLVMPassBuilderOptionsSetLoopInterleaving(how, much);
    LLVMPassBuilderOptionsSetLoopUnrolling(how, much);
    LLVMErrorRef e = LLVMRunPasses(x->m, pipeline, x->machine, how);
    if (e)
        BUG("LLVM's passes: %s", LLVMGetErrorMessage(e));
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
    if (x->o->form == LLVM_FORM_BITCODE)
        made = LLVMWriteBitcodeToMemoryBuffer(x->m);
    else if (LLVMTargetMachineEmitToMemoryBuffer(
                 x->machine, x->m, x->o->form == LLVM_FORM_ASM ? LLVMAssemblyFile : LLVMObjectFile, &why,
                 &made)) {
        diag_error(x->d, DIAG_TOOL_FAILED, NULL, "LLVM: %s", diag_show(x->d, str_c(why)));
        LLVMDisposeMessage(why);
        return false;
    }
    take_buffer(made, out);
    return true;
}

/* What LLVM has to say while it makes code: errors end the work, the first of them is told. */
static void take_message(LLVMDiagnosticInfoRef info, void *ctx) {
    Builder *x = ctx;
    if (LLVMGetDiagInfoSeverity(info) != LLVMDSError || x->failed)
        return;
    char *text = LLVMGetDiagInfoDescription(info);
    x->failed = true;
    diag_error(x->d, DIAG_TOOL_FAILED, NULL, "LLVM: %s", diag_show(x->d, str_c(text)));
    LLVMDisposeMessage(text);
}

static void end_fatal(const char *why) {
    diag_end(DIAG_TOOL_FAILED, "LLVM", why);
}

/* LLVM ends the process where it cannot go on: that is an error as any other, and leaves nothing half done. */
static void take_ends(void) {
    static bool taken;
    if (taken)
        return;
    taken = true;
    LLVMInstallFatalErrorHandler(end_fatal);
    lb_on_no_memory(mem_gone);
}

static void open_builder(Builder *x) {
    take_ends();
    x->arena = arena_new();
    x->cx = LLVMContextCreate();
    LLVMContextSetDiagnosticHandler(x->cx, take_message, x);
    x->b = LLVMCreateBuilderInContext(x->cx);
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
    if (x->m)
        LLVMDisposeModule(x->m);
    if (x->machine)
        LLVMDisposeTargetMachine(x->machine);
    LLVMContextDispose(x->cx);
    arena_free(x->arena);
}

/* The module is named after what it is made of: no path of the machine that built moec. */
static void finish(Builder *x, const char *name) {
    LLVMSetModuleIdentifier(x->m, name, strlen(name));
    LLVMSetSourceFileName(x->m, name, strlen(name));
    lb_retarget(x);
    verify(x);
    optimise(x);
}

static void load_vocabulary(Builder *x) {
    static const char *const kept[] = {"llvm.used", "llvm.compiler.used"};
    LLVMMemoryBufferRef b =
        LLVMCreateMemoryBufferWithMemoryRange(x->o->vocabulary.p, x->o->vocabulary.n, "vocabulary", false);
    if (LLVMParseBitcodeInContext2(x->cx, b, &x->m))
        BUG("the vocabulary is no bitcode");
    LLVMDisposeMemoryBuffer(b);
    /* what kept unused functions there */
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (LLVMGetNamedGlobal(x->m, kept[i]))
            LLVMDeleteGlobal(LLVMGetNamedGlobal(x->m, kept[i]));
}

/* The program as the machine's code: the only one, or a variant. The last of the variants has what they share. */
static bool build(Builder *x) {
    const LlvmOptions *o = x->o;
    if (!lb_open_machine(x))
        return false;
    load_vocabulary(x);
    lb_set_layout(x);
    lb_debug_begin(x);
    lb_program(x);
    if (!x->variant || x->variant == o->variant[o->n_variants - 1])
        lb_embed_weights(x);
    if (x->variant && x->variant == o->variant[o->n_variants - 1])
        lb_chooser(x);
    lb_debug_end(x);
    finish(x, x->p->o->prefix);
    return true;
}

/* All variants in one module: each function says what CPU it is for. The machine that makes the code is the base's. */
static bool build_variants(Builder *x) {
    LLVMModuleRef all = NULL;
    for (uint32_t i = 0; i < x->o->n_variants; i++) {
        if (x->machine)
            LLVMDisposeTargetMachine(x->machine);
        x->machine = NULL;
        x->m = NULL;
        x->dots = (Dots){0};
        x->variant = x->o->variant[i];
        bool ok = build(x);
        if (ok && all && LLVMLinkModules2(all, x->m))
            BUG("LLVM does not link variant %s", x->variant->name);
        all = all ? all : x->m;
        x->m = all;
        if (!ok)
            return false;
    }
    for (uint32_t i = 0; i < x->o->n_variants; i++)
        LLVMSetLinkage(LLVMGetNamedFunction(all, lb_program_name(x, x->o->variant[i])), LLVMInternalLinkage);
    return true;
}

bool llvm_emit(const Program *p, const LlvmOptions *o, Text *out, Diag *d) {
    Builder x = {.p = p, .o = o, .d = d};
    open_builder(&x);
    bool ok = (o->n_variants ? build_variants(&x) : build(&x)) && write_form(&x, out) && !x.failed;
    close_builder(&x);
    return ok;
}

/* static const moec_tokenizer tokenizer = {&moec_text_sentencepiece, NULL, 0, NULL} */
static Val tokenizer(Builder *x) {
    Val none = LLVMConstNull(x->ptr),
        field[] = {LLVMAddGlobal(x->m, x->ptr, "moec_text_sentencepiece"), none, lb_i64(x, 0), none};
    Val init = LLVMConstStructInContext(x->cx, field, 4, false);
    return lb_constant(x, "tokenizer", LLVMTypeOf(init), init);
}

bool llvm_emit_main(const char *prefix, bool text, bool blas, const LlvmOptions *o, Text *out, Diag *d) {
    Builder x = {.o = o, .d = d};
    open_builder(&x);
    bool ok = lb_open_machine(&x);
    if (ok) {
        x.m = LLVMModuleCreateWithNameInContext("main", x.cx);
        Ty two[] = {x.i32, x.ptr}, four[] = {x.ptr, x.ptr, x.i32, x.ptr};
        Val run = LLVMAddFunction(x.m, "moec_main", LLVMFunctionType(x.i32, four, 4, false));
        Val get = LLVMAddFunction(x.m, arena_printf(x.arena, "%s_program", prefix),
                                  LLVMFunctionType(x.ptr, NULL, 0, false));
        lb_open(&x, LLVMAddFunction(x.m, "main", LLVMFunctionType(x.i32, two, 2, false)), 0);
        Val argc = LLVMGetParam(x.fn, 0), argv = LLVMGetParam(x.fn, 1);
        if (blas)
            lb_call(&x,
                    LLVMAddFunction(x.m, "moec_choose_blas", LLVMFunctionType(x.nothing, &x.ptr, 1, false)),
                    &argv, 1);
        Val arg[] = {lb_call(&x, get, NULL, 0), text ? tokenizer(&x) : LLVMConstNull(x.ptr), argc, argv};
        LLVMBuildRet(x.b, lb_call(&x, run, arg, 4));
        finish(&x, "main");
        ok = write_form(&x, out) && !x.failed;
    }
    close_builder(&x);
    return ok;
}

char *llvm_host(void) {
    take_ends();
    char *t = LLVMGetDefaultTargetTriple();
    size_t size = strlen(t) + 1;
    char *copy = memcpy(mem_alloc(size), t, size);
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
