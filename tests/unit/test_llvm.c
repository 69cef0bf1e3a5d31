/* What the LLVM backend does with a module that LLVM refuses: a bug of moec, whose module is kept for the report; and where LLVM
 * ends the process: an error like any other. */
#include "codegen/llvm.h"
#include "compiler/pass.h"
#include "frontends/file.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char text[] = "sym B = 1..4\n"
                           "func @main entry (%x : f32[B,16], %y : f32[B,16]) {\n"
                           "  %a = add %x, %y : f32[B,16]\n"
                           "  return %a \"a\"\n"
                           "}\n";

typedef struct Built {
    Diag *d;
    Module *m;
    Arena *a;
    Image image;
    CodegenOptions options;
    Program *program;
    LlvmOptions llvm;
} Built;

static void build(Built *b) {
    static const PassId list[] = {PASS_fuse, PASS_plan};
    PassOptions o = {0};
    PassRun run = {.options = &o, .list = list, .n_list = 2, .bound = true};
    *b = (Built){.d = diag_new(), .a = arena_new()};
    b->m = module_parse(b->d, "add.ir", text, strlen(text));
    assert_non_null(b->m);
    assert_true(passes_run(b->m, &run, b->d));
    b->options = (CodegenOptions){.prefix = "model", .plain_matmul = true};
    assert_true(image_plan(b->m, "model", b->a, &b->image, b->d));
    b->program = program_lower(b->m, &b->image, &b->options, b->d);
    assert_non_null(b->program);
    b->llvm = (LlvmOptions){.level = 1, .form = LLVM_FORM_IR};
    if (llvm_version())
        assert_true(
            file_read(b->a, MOEC_BUILD_DIR "/gen/vocabulary_plain.bc", 1 << 24, &b->llvm.vocabulary, b->d));
}

static void finish(Built *b) {
    program_free(b->program);
    arena_free(b->a);
    module_free(b->m);
    diag_free(b->d);
}

/* The first store of a kernel, loops opened. */
static LStmt *first_store(LBlock *b) {
    for (LStmt *s = b->first; s; s = s->next) {
        LStmt *inner = s->kind == LS_STORE ? s : first_store(&s->body);
        if (inner)
            return inner;
    }
    return NULL;
}

static void sound_modules_pass(void **state) {
    (void)state;
    Built b;
    Text out = {0};
    if (!llvm_version())
        skip();
    build(&b);
    assert_true(llvm_emit(b.program, &b.llvm, &out, b.d));
    assert_non_null(strstr(out.p, "@model_program"));
    text_free(&out);
    finish(&b);
}

static void refused_modules_are_kept(void **state) {
    (void)state;
    Built b;
    char dir[] = "llvm_test_XXXXXX", path[64];
    if (!llvm_version())
        skip();
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/moec-bad-llvm.ll", dir);
    build(&b);
    /* logic of floats: no pass makes it, LLVM has no such instruction */
    LStmt *s = first_store(&b.program->kernel[0]->body);
    assert_non_null(s);
    s->a = le_op2(b.program->kernel[0], LO_AND, DT_F32, s->a, s->a);
    pid_t child = fork();
    if (child == 0) {
        Text out = {0};
        if (chdir(dir) != 0 || !freopen("/dev/null", "w", stderr))
            _exit(1);
        llvm_emit(b.program, &b.llvm, &out, b.d);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
    Str kept;
    assert_true(file_read(b.a, path, 1 << 24, &kept, b.d));
    assert_true(kept.n > 1000);
    unlink(path);
    rmdir(dir);
    finish(&b);
}

/* LLVM's function for what it cannot go on after, which nothing of its C interface calls as it is asked to. */
static void the_end_of_llvm_is_an_error(void **state) {
    (void)state;
    void (*report)(const char *, bool);
    *(void **)&report = dlsym(RTLD_DEFAULT, "_ZN4llvm18report_fatal_errorEPKcb");
    int fd[2], status;
    char said[256] = "";
    Built b;
    if (!llvm_version() || !report)
        skip();
    build(&b);
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    if (child == 0) {
        Text out = {0};
        dup2(fd[1], 2);
        llvm_emit(b.program, &b.llvm, &out, b.d);
        report("out of tea", true);
        _exit(0);
    }
    close(fd[1]);
    ssize_t n = read(fd[0], said, sizeof said - 1);
    close(fd[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_true(n > 0 && strstr(said, "error: ") && strstr(said, "out of tea [M"));
    finish(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sound_modules_pass), cmocka_unit_test(refused_modules_are_kept),
                                       cmocka_unit_test(the_end_of_llvm_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
