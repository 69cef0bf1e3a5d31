/* A program as several files of C: which kernel stands where, what is shared, and that nothing is longer than allowed. */
#include "codegen/program.h"
#include "compiler/pass.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char text[] = "sym B = 1..4\n"
                           "func @encode entry (%x : f32[B,16]) {\n"
                           "  %a = exp %x : f32[B,16]\n"
                           "  return %a \"a\"\n"
                           "}\n"
                           "func @step entry (%x : f32[B,16]) {\n"
                           "  %a = exp %x : f32[B,16]\n"
                           "  %b = softmax %a {axis = 1} : f32[B,16]\n"
                           "  return %b \"b\"\n"
                           "}\n"
                           "func @train entry (%x : f32[B,16]) {\n"
                           "  %s = reduce_sum %x {axes = [0, 1]} : f32[]\n"
                           "  %t = tanh %s : f32[]\n"
                           "  return %s \"loss\", %t \"grad\"\n"
                           "}\n"
                           "func @\"odd name\" entry (%x : f32[16]) {\n"
                           "  %a = log %x : f32[16]\n"
                           "  return %a \"a\"\n"
                           "}\n";

typedef struct Fixture {
    Arena *a;
    Diag *d;
    Module *m;
    Image image;
    CodegenOptions o;
    Program *p;
} Fixture;

static int setup(void **state) {
    static Fixture f;
    PassId list[2];
    f = (Fixture){.a = arena_new(), .d = diag_new(), .o = {.prefix = "m", .plain_matmul = true}};
    assert_true(pass_find(str_c("fuse"), &list[0]) && pass_find(str_c("plan"), &list[1]));
    PassOptions none = {0};
    PassRun run = {.options = &none, .list = list, .n_list = 2, .bound = true};
    f.m = module_parse(f.d, "sources.ir", text, strlen(text));
    bool ok = f.m && passes_run(f.m, &run, f.d) && image_plan(f.m, "model", f.a, &f.image, f.d) &&
              (f.p = program_lower(f.m, &f.image, &f.o, f.d)) != NULL;
    diag_flush(f.d);
    assert_true(ok);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    Fixture *f = *state;
    program_free(f->p);
    module_free(f->m);
    diag_free(f->d);
    arena_free(f->a);
    return 0;
}

static const char *find(const Sources *s, const char *name) {
    for (uint32_t i = 0; i < s->count; i++)
        if (strcmp(s->item[i].name, name) == 0) return s->item[i].text.p;
    return NULL;
}

static void small_programs_are_one_file(void **state) {
    Fixture *f = *state;
    Sources s;
    Text whole = {0};
    program_print_c(f->p, &whole);
    assert_true(program_sources(f->p, f->a, whole.n, whole.n, &s, f->d));
    assert_int_equal(s.count, 2);
    assert_non_null(find(&s, "m.h"));
    assert_string_equal(find(&s, "m.c"), whole.p);
    sources_free(&s);
    assert_true(program_sources(f->p, f->a, whole.n - 1, whole.n, &s, f->d));
    assert_true(s.count > 2);
    sources_free(&s);
    text_free(&whole);
}

/* Kernels stand with the function that calls them first; those behind the loss apart. */
static void kernels_stand_by_kind(void **state) {
    static const char *const names[] = {"m.h", "m.c", "m_kernels.h", "m_encoder.c", "m_decoder.c", "m_train_forward.c",
                                        "m_train_backward.c", "m_run_3.c", "m_tables.c"};
    static const struct {
        const char *name, *has, *lacks;
    } wanted[] = {
        {"m_encoder.c", "exp", "softmax"},         {"m_decoder.c", "softmax", "void m_k0_"},
        {"m_train_forward.c", "run_2_1(", "tanh"}, {"m_train_backward.c", "tanh", "run_2_1("},
        {"m_run_3.c", "log", "exp"},               {"m_tables.c", "const moec_symbol m_symbols[]", "static"},
        {"m_kernels.h", "void m_run_2_2(", "{\n"}, {"m.c", "m_run_2_2(f);", "restrict"},
    };
    Fixture *f = *state;
    Sources s;
    assert_true(program_sources(f->p, f->a, 6000, 7000, &s, f->d));
    assert_int_equal(s.count, sizeof names / sizeof *names);
    for (uint32_t i = 0; i < s.count; i++) {
        assert_non_null(find(&s, names[i]));
        assert_non_null(s.item[i].what);
        assert_true(s.item[i].text.n <= 7000);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char *t = find(&s, wanted[i].name);
        if (!strstr(t, wanted[i].has) || strstr(t, wanted[i].lacks)) fail_msg("%s:\n%s", wanted[i].name, t);
    }
    sources_free(&s);
}

static void what_fits_no_file_is_refused(void **state) {
    Fixture *f = *state;
    Sources s;
    assert_false(program_sources(f->p, f->a, 100, 300, &s, f->d));
    assert_int_equal(s.count, 0);
    assert_true(diag_errors(f->d) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_programs_are_one_file, setup, teardown),
        cmocka_unit_test_setup_teardown(kernels_stand_by_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(what_fits_no_file_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
