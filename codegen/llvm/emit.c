/* What is public of the LLVM builder: the target, LLVM's passes, and the bytes that come out. The module starts as the
 * vocabulary's bitcode, so that every scalar function is there to be called and inlined; what stays unused is dropped. */
#include "../llvm.h"

#include "builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the target -------------------------------------------------------------------------------- */

static void add_targets(void) {
    static bool done;
    if (done)
        return;
    done = true;
    LLVMInitializeAllTargetInfos();
    LLVMInitializeAllTargets();
    LLVMInitializeAllTargetMCs();
    LLVMInitializeAllAsmPrinters();
    LLVMInitializeAllAsmParsers();
}

/* LLVM tells of a CPU that it does not know on stderr, in no other way: what it says while the machine is made is read
 * from a file in the place of stderr. */
static LLVMTargetMachineRef make_machine(LLVMTargetRef t, const char *triple, const char *cpu,
                                         const char *features, const char *abi, int level, bool *complained) {
    LLVMTargetMachineOptionsRef o = LLVMCreateTargetMachineOptions();
    LLVMTargetMachineOptionsSetCPU(o, cpu);
    LLVMTargetMachineOptionsSetFeatures(o, features);
    LLVMTargetMachineOptionsSetABI(o, abi);
    LLVMTargetMachineOptionsSetCodeGenOptLevel(o, (LLVMCodeGenOptLevel)level);
    LLVMTargetMachineOptionsSetRelocMode(o, LLVMRelocPIC);
    FILE *said = tmpfile();
    fflush(stderr);
    int saved = said ? dup(2) : -1;
    if (saved >= 0)
        dup2(fileno(said), 2);
    LLVMTargetMachineRef m = LLVMCreateTargetMachineWithOptions(t, triple, o);
    LLVMDisposeTargetMachineOptions(o);
    if (saved >= 0) {
        fflush(stderr);
        dup2(saved, 2);
        close(saved);
    }
    *complained = said && fseek(said, 0, SEEK_END) == 0 && ftell(said) > 0;
    if (said)
        fclose(said);
    return m;
}

/* What every Linux of a machine may use, where LLVM's default is less: of RISC-V it takes the integer set alone. */
typedef struct Baseline {
    const char *machine, *features, *abi;
} Baseline;

static const Baseline *baseline(const char *triple) {
    static const Baseline rows[] = {{"riscv64", "+m,+a,+f,+d,+c", "lp64d"}, {"", "", ""}};
    const Baseline *b = rows;
    while (strncmp(triple, b->machine, strlen(b->machine)) != 0)
        b++;
    return b;
}

static bool open_machine(Builder *x) {
    add_targets();
    char *host = LLVMGetDefaultTargetTriple(), *why = NULL;
    char *triple = LLVMNormalizeTargetTriple(x->o->triple ? x->o->triple : host);
    const Baseline *base = baseline(triple);
    bool native = !x->o->cpu || strcmp(x->o->cpu, "native") == 0, foreign = strcmp(triple, host) != 0;
    char *cpu = native && !foreign
                    ? LLVMGetHostCPUName()
                    : LLVMCreateMessage(native || strcmp(x->o->cpu, "generic") == 0 ? "" : x->o->cpu);
    char *features = native && !foreign ? LLVMGetHostCPUFeatures() : LLVMCreateMessage(base->features);
    LLVMTargetRef target;
    bool ok = true, complained = false;
    if (LLVMGetTargetFromTriple(triple, &target, &why))
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: LLVM has no target '%s'",
                        diag_show(x->d, str_c(x->o->triple)));
    else if (!(x->machine = make_machine(target, triple, cpu, features, base->abi, x->o->level, &complained)))
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: LLVM makes no code for '%s'",
                        diag_show(x->d, str_c(triple)));
    else if (complained)
        ok = diag_error(x->d, DIAG_USAGE_VALUE, NULL, "LLVM knows no CPU '%s' of target %s",
                        diag_show(x->d, str_c(cpu)), diag_show(x->d, str_c(triple)));
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
    LLVMAttributeRef own[] = {
        LLVMCreateStringAttribute(x->cx, "target-cpu", 10, cpu, (unsigned)strlen(cpu)),
        LLVMCreateStringAttribute(x->cx, "target-features", 15, features, (unsigned)strlen(features)),
        /* kernels are nothing but vector loops: whole registers */
        LLVMCreateStringAttribute(x->cx, "prefer-vector-width", 19, "512", 3)};
    for (Val f = LLVMGetFirstFunction(x->m); f; f = LLVMGetNextFunction(f)) {
        for (size_t i = 0; i < sizeof old / sizeof *old; i++)
            LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, old[i], (unsigned)strlen(old[i]));
        if (LLVMIsDeclaration(f))
            continue;
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            if (i == 2 || (i == 0 ? *cpu : *features))
                LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex, own[i]);
        lb_attribute(x, f, LLVMAttributeFunctionIndex, "nounwind", 0);
    }
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
}

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
    snprintf(pipeline, sizeof pipeline, "default<O%d>", x->o->level);
    LLVMPassBuilderOptionsRef how = LLVMCreatePassBuilderOptions();
    LLVMPassBuilderOptionsSetLoopVectorization(how, true);
    LLVMPassBuilderOptionsSetSLPVectorization(how, true);
    LLVMPassBuilderOptionsSetLoopInterleaving(how, true);
    LLVMPassBuilderOptionsSetLoopUnrolling(how, true);
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

static void open_builder(Builder *x) {
    x->arena = arena_new();
    x->cx = LLVMContextCreate();
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
static bool finish(Builder *x, const char *name, Text *out) {
    LLVMSetModuleIdentifier(x->m, name, strlen(name));
    LLVMSetSourceFileName(x->m, name, strlen(name));
    retarget(x);
    verify(x);
    optimise(x);
    return write_form(x, out);
}

static void load_vocabulary(Builder *x) {
    LLVMMemoryBufferRef b =
        LLVMCreateMemoryBufferWithMemoryRange(x->o->vocabulary.p, x->o->vocabulary.n, "vocabulary", false);
    if (LLVMParseBitcodeInContext2(x->cx, b, &x->m))
        BUG("the vocabulary is no bitcode");
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
        lb_debug_begin(&x);
        lb_program(&x);
        lb_debug_end(&x);
        ok = finish(&x, p->o->prefix, out);
    }
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
    bool ok = open_machine(&x);
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
