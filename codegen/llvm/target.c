/* The machine that code is for: which there are, what their CPUs may be, and the module made theirs. */
#include "builder.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Machines that the runtime and the weights file serve, all of them Linux, little-endian, of 64 bits. What every CPU of
 * the machine has, where LLVM takes less (of RISC-V the integer set alone); its calling convention; whether a caller
 * extends the sign of an int. */
typedef struct Machine {
    const char *name, *features, *abi;
    bool extends;
} Machine;

static const Machine machines[] = {
    {"x86_64", "", "", false},
    {"aarch64", "", "", false},
    {"riscv64", "+m,+a,+f,+d,+c", "lp64d", true},
};
enum { N_MACHINES = sizeof machines / sizeof *machines };

static const Machine *find_machine(const char *triple) {
    size_t n = strcspn(triple, "-");
    for (int i = 0; i < N_MACHINES; i++)
        if (strlen(machines[i].name) == n && strncmp(triple, machines[i].name, n) == 0)
            return strstr(triple, "-linux") && !strstr(triple, "x32") ? &machines[i] : NULL;
    return NULL;
}

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

typedef struct Target {
    LLVMTargetRef target;
    const Machine *machine;
    const char *triple, *cpu, *features;
    int level;
} Target;

static LLVMTargetMachineRef make_machine(const Target *t) {
    CHECK(t->machine);
    LLVMTargetMachineOptionsRef o = LLVMCreateTargetMachineOptions();
    LLVMTargetMachineOptionsSetCPU(o, t->cpu);
    LLVMTargetMachineOptionsSetFeatures(o, t->features);
    LLVMTargetMachineOptionsSetABI(o, t->machine->abi);
    LLVMTargetMachineOptionsSetCodeGenOptLevel(o, (LLVMCodeGenOptLevel)t->level);
    LLVMTargetMachineOptionsSetRelocMode(o, LLVMRelocPIC);
    LLVMTargetMachineRef m = LLVMCreateTargetMachineWithOptions(t->target, t->triple, o);
    LLVMDisposeTargetMachineOptions(o);
    return m;
}

/* Compiles nothing at all for the machine. */
static void try_machine(const Target *t) {
    char *why = NULL;
    LLVMMemoryBufferRef made;
    LLVMTargetMachineRef machine = make_machine(t);
    LLVMContextRef cx = LLVMContextCreate();
    LLVMModuleRef m = LLVMModuleCreateWithNameInContext("", cx);
    LLVMBuilderRef b = LLVMCreateBuilderInContext(cx);
    Val f = LLVMAddFunction(m, "f", LLVMFunctionType(LLVMVoidTypeInContext(cx), NULL, 0, false));
    LLVMSetTarget(m, t->triple);
    LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(cx, f, ""));
    LLVMBuildRetVoid(b);
    _exit(machine && !LLVMTargetMachineEmitToMemoryBuffer(machine, m, LLVMObjectFile, &why, &made) ? 0 : 1);
}

/* LLVM says of a CPU that it does not know it on stderr, in no other way, and ends the process over some: a child tries. */
static bool machine_works(const Target *t) {
    int ends[2], status = 1;
    char text[256];
    size_t said = 0;
    if (pipe(ends) != 0)
        return false;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        try_machine(t);
    }
    close(ends[1]);
    for (ssize_t n; child > 0 && ((n = read(ends[0], text, sizeof text)) > 0 || (n < 0 && errno == EINTR));)
        said += n > 0 ? (size_t)n : 0;
    close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && said == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- its vectors ----------------------------------------------------------------------------------------- */

/* What a function *p = body(*p) is made of. */
typedef Val ProbeBody(Builder *x, LLVMBuilderRef b, Val p);

static Val product_and_sum(Builder *x, LLVMBuilderRef b, Val p) {
    Val v = LLVMBuildLoad2(b, LLVMVectorType(x->f32, 16), p, ""), product = LLVMBuildFMul(b, v, v, "");
    Val sum = LLVMBuildFAdd(b, product, v, "");
    LLVMSetFastMathFlags(product, LLVMFastMathAllowContract);
    LLVMSetFastMathFlags(sum, LLVMFastMathAllowContract);
    return sum;
}

static Val rounded_to_bf16(Builder *x, LLVMBuilderRef b, Val p) {
    Val v = LLVMBuildLoad2(b, LLVMVectorType(x->f32, 16), p, "");
    return LLVMBuildFPTrunc(b, v, LLVMVectorType(LLVMBFloatTypeInContext(x->cx), 16), "");
}

static Val product_of_halves(Builder *x, LLVMBuilderRef b, Val p) {
    Val v = LLVMBuildLoad2(b, LLVMVectorType(x->i16, 32), p, "");
    return LLVMBuildMul(b, v, v, "");
}

/* The sum of products of unsigned and signed bytes. */
static Val dot_of_bytes(Builder *x, LLVMBuilderRef b, Val p) {
    static const char name[] = "llvm.vector.reduce.add";
    Ty bytes = LLVMVectorType(x->i8, 64), words = LLVMVectorType(x->i32, 64);
    Val at = lb_i64(x, 64), q = LLVMBuildGEP2(b, x->i8, p, &at, 1, "");
    Val u = LLVMBuildZExt(b, LLVMBuildLoad2(b, bytes, p, ""), words, ""), s = LLVMBuildSExt(b, LLVMBuildLoad2(b, bytes, q, ""), words, "");
    Val product = LLVMBuildMul(b, u, s, "");
    Val f = LLVMGetIntrinsicDeclaration(x->m, LLVMLookupIntrinsicID(name, sizeof name - 1), &words, 1);
    return LLVMBuildCall2(b, LLVMGlobalGetValueType(f), f, &product, 1, "");
}

/* The machine's assembly of such a function: LLVM's C interface does not tell what a CPU has, its code does. */
static Str code_of(Builder *x, ProbeBody *body) {
    LLVMModuleRef m = LLVMModuleCreateWithNameInContext("probe", x->cx), kept = x->m;
    LLVMBuilderRef b = LLVMCreateBuilderInContext(x->cx);
    LLVMMemoryBufferRef made = NULL;
    char *why = NULL;
    Val f = LLVMAddFunction(m, "f", LLVMFunctionType(x->nothing, &x->ptr, 1, false)), p = LLVMGetParam(f, 0);
    LLVMPositionBuilderAtEnd(b, LLVMAppendBasicBlockInContext(x->cx, f, ""));
    x->m = m;
    LLVMSetAlignment(LLVMBuildStore(b, body(x, b, p), p), 1);
    LLVMBuildRetVoid(b);
    lb_retarget(x);
    x->m = kept;
    if (LLVMTargetMachineEmitToMemoryBuffer(x->machine, m, LLVMAssemblyFile, &why, &made))
        BUG("LLVM makes no code of a probe: %s", why);
    Str text = {arena_strndup(x->arena, LLVMGetBufferStart(made), LLVMGetBufferSize(made)), LLVMGetBufferSize(made)};
    LLVMDisposeMemoryBuffer(made);
    LLVMDisposeBuilder(b);
    LLVMDisposeModule(m);
    return text;
}

/* What the assembly of a product and a sum of 16 floats has for each of vector_kinds; NULL: any. */
static const char *const vector_signs[VECTOR_KINDS][2] = {{"vfm", "%zmm"}, {"vfm", "%ymm"}, {"mulps", "mm"}, {"fmla", ".4s"}, {NULL, NULL}};

static unsigned find_vectors(Builder *x) {
    Str text = code_of(x, product_and_sum);
    unsigned i = 0;
    while (vector_signs[i][0] && !(strstr(text.p, vector_signs[i][0]) && strstr(text.p, vector_signs[i][1])))
        i++;
    return i;
}

/* Instructions of machines with a kind of vectors: what the assembly of a probe has where they are there. Without a probe all of
 * that kind have them. */
static const struct {
    unsigned vectors; /* of vector_kinds */
    ProbeBody *probe;
    const char *sign, *registers;
    size_t field; /* of Dots */
    const char *function;
} dot_instructions[] = {
    {0, rounded_to_bf16, "vcvtneps2bf16", "%ymm", offsetof(Dots, bf16), "llvm.x86.avx512bf16.dpbf16ps.512"},
    {0, dot_of_bytes, "vpdpbusd", "%zmm", offsetof(Dots, int8), "llvm.x86.avx512.vpdpbusd.512"},
    {0, product_of_halves, "vpmullw", "%zmm", offsetof(Dots, halves), "llvm.x86.avx512.pmaddw.d.512"},
    {1, dot_of_bytes, "vpdpbusd", "%ymm", offsetof(Dots, int8), "llvm.x86.avx512.vpdpbusd.256"},
    {1, NULL, NULL, NULL, offsetof(Dots, halves), "llvm.x86.avx2.pmadd.wd"},
};

static void find_dots(Builder *x) {
    for (size_t i = 0; i < sizeof dot_instructions / sizeof *dot_instructions; i++) {
        const char **field = (const char **)((char *)&x->dots + dot_instructions[i].field);
        if (dot_instructions[i].vectors != x->vectors)
            continue;
        const char *code = dot_instructions[i].probe ? code_of(x, dot_instructions[i].probe).p : NULL;
        if (!code || (strstr(code, dot_instructions[i].sign) && strstr(code, dot_instructions[i].registers)))
            *field = dot_instructions[i].function;
    }
}

static bool find_target(Builder *x, Target *t) {
    char *why = NULL;
    t->machine = find_machine(t->triple);
    if (!t->machine)
        return diag_error(x->d, DIAG_USAGE_VALUE, NULL,
                          "--target: compiled models run on Linux on x86_64, aarch64 and riscv64, not '%s'",
                          diag_show(x->d, str_c(t->triple)));
    if (!LLVMGetTargetFromTriple(t->triple, &t->target, &why))
        return true;
    LLVMDisposeMessage(why);
    return diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: this LLVM has no target '%s'",
                      diag_show(x->d, str_c(t->triple)));
}

static bool choose_cpu(Builder *x, Target *t) {
    CHECK(t->machine);
    const char *variant = x->variant ? x->variant->march : NULL;
    const char *cpu = variant ? variant : x->o->cpu ? x->o->cpu : x->o->triple ? "generic" : "native";
    bool native = strcmp(cpu, "native") == 0;
    t->features = variant ? x->variant->features : t->machine->features;
    t->cpu = "";
    if (native && x->o->triple)
        return diag_error(x->d, DIAG_USAGE_TOGETHER, NULL, "native is this machine's CPU: name one of %s",
                          diag_show(x->d, str_c(t->triple)));
    if (native) {
        char *name = LLVMGetHostCPUName(), *has = LLVMGetHostCPUFeatures();
        t->cpu = arena_strndup(x->arena, name, strlen(name));
        t->features = arena_strndup(x->arena, has, strlen(has));
        LLVMDisposeMessage(name);
        LLVMDisposeMessage(has);
    } else if (strcmp(cpu, "generic") != 0) {
        t->cpu = cpu;
        if (!machine_works(t))
            return diag_error(x->d, DIAG_USAGE_VALUE, NULL, "LLVM knows no CPU '%s' of target %s",
                              diag_show(x->d, str_c(cpu)), diag_show(x->d, str_c(t->triple)));
    }
    return true;
}

bool lb_open_machine(Builder *x) {
    add_targets();
    char *triple = x->o->triple ? LLVMNormalizeTargetTriple(x->o->triple) : LLVMGetDefaultTargetTriple();
    Target t = {.triple = arena_strndup(x->arena, triple, strlen(triple)), .level = x->o->level};
    LLVMDisposeMessage(triple);
    if (!find_target(x, &t) || !choose_cpu(x, &t))
        return false;
    x->machine = make_machine(&t);
    if (x->machine)
        x->vectors = find_vectors(x);
    if (x->machine && x->p && program_uses_dots(x->p))
        find_dots(x);
    return x->machine != NULL || diag_error(x->d, DIAG_USAGE_VALUE, NULL, "--target: LLVM makes no code for '%s'",
                                            diag_show(x->d, str_c(t.triple)));
}

/* ---- the module made the machine's ------------------------------------------------------------------ */

static void set_string(const Builder *x, Val f, const char *key, const char *value) {
    if (!*value)
        return;
    LLVMAddAttributeAtIndex(f, LLVMAttributeFunctionIndex,
                            LLVMCreateStringAttribute(x->cx, key, (unsigned)strlen(key), value,
                                                      (unsigned)strlen(value)));
}

/* ints of a call of f, and of f itself, go with their sign extended. */
static void extend_ints(const Builder *x, Val f) {
    unsigned kind = LLVMGetEnumAttributeKindForName("signext", 7);
    for (unsigned i = 0; i < LLVMCountParams(f); i++) {
        if (LLVMTypeOf(LLVMGetParam(f, i)) != x->i32)
            continue;
        lb_attribute(x, f, i + 1, "signext", 0);
        for (LLVMUseRef u = LLVMGetFirstUse(f); u; u = LLVMGetNextUse(u)) {
            Val user = LLVMGetUser(u);
            if (LLVMIsACallInst(user) && LLVMGetCalledValue(user) == f)
                LLVMAddCallSiteAttribute(user, i + 1, LLVMCreateEnumAttribute(x->cx, kind, 0));
        }
    }
}

/* The bitcode was made for some machine; this is the one the code is for. */
void lb_retarget(Builder *x) {
    static const char *const old[] = {"target-cpu", "target-features", "tune-cpu", "min-legal-vector-width"};
    enum { UNWIND_TABLES = 2 }; /* for debuggers, profilers and exceptions that pass through */
    char *triple = LLVMGetTargetMachineTriple(x->machine), *cpu = LLVMGetTargetMachineCPU(x->machine),
         *features = LLVMGetTargetMachineFeatureString(x->machine);
    const Machine *machine = find_machine(triple);
    CHECK(machine);
    lb_set_layout(x);
    LLVMSetTarget(x->m, triple);
    if (*machine->abi)
        LLVMAddModuleFlag(x->m, LLVMModuleFlagBehaviorError, "target-abi", 10,
                          LLVMMDStringInContext2(x->cx, machine->abi, strlen(machine->abi)));
    for (Val f = LLVMGetFirstFunction(x->m); f; f = LLVMGetNextFunction(f)) {
        for (size_t i = 0; i < sizeof old / sizeof *old; i++)
            LLVMRemoveStringAttributeAtIndex(f, LLVMAttributeFunctionIndex, old[i], (unsigned)strlen(old[i]));
        if (machine->extends && !LLVMGetIntrinsicID(f))
            extend_ints(x, f);
        if (LLVMIsDeclaration(f))
            continue;
        set_string(x, f, "target-cpu", cpu);
        set_string(x, f, "target-features", features);
        set_string(x, f, "prefer-vector-width", "512"); /* kernels are nothing but vector loops: whole registers */
        lb_attribute(x, f, LLVMAttributeFunctionIndex, "nounwind", 0);
        lb_attribute(x, f, LLVMAttributeFunctionIndex, "uwtable", UNWIND_TABLES);
    }
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(features);
}

void lb_set_layout(Builder *x) {
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(x->machine);
    LLVMSetModuleDataLayout(x->m, layout);
    LLVMDisposeTargetData(layout);
}
