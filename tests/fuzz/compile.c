/* The way of `moec compile` from a module to C text, without files and C compiler. */
#include "fuzz.h"

#include "codegen/program.h"

enum { EVAL_BYTES = 1 << 16 }; /* larger parameters are not computed */

static void print_all(const Program *p, Arena *a, bool split, Diag *d) {
    Text c = {0}, h = {0};
    Sources files = {0};
    program_print_c(p, &c);
    program_print_header(p, &h);
    if (split && program_sources(p, a, 1 << 12, 1 << 18, &files, d)) sources_free(&files);
    text_free(&c);
    text_free(&h);
}

/* What image_write does, without the file. Values that text IR leaves out are no reason to stop. */
static void eval_params(const Image *im) {
    for (uint32_t i = 0; i < im->n_weights; i++) {
        const Slot *s = &im->slot[im->weight[i]];
        if (im->m->param[im->weight[i]].data || s->bytes > EVAL_BYTES) continue;
        Diag *d = diag_new();
        void *buffer = mem_alloc(s->bytes);
        fuzz_reported(d, param_eval_into(im->m, im->weight[i], buffer, s->bytes, d));
        mem_free(buffer);
    }
}

static bool generate(Module *m, unsigned choice, Diag *d) {
    CodegenOptions o = {.prefix = "model", .plain_matmul = !(choice & FUZZ_LIBRARY), .plain_c = choice & FUZZ_PLAIN_C};
    if (choice & FUZZ_PROFILE) {
        o.profile = o.dispatch = true;
        o.ir_file = "model.ir";
    }
    Image im;
    Arena *a = arena_new();
    bool ok = image_plan(m, o.prefix, a, &im, d);
    if (ok) eval_params(&im);
    Program *p = ok ? program_lower(m, &im, &o, d) : NULL;
    if (p) {
        print_all(p, a, choice & FUZZ_PROFILE, d);
        program_free(p);
    }
    arena_free(a);
    return p != NULL;
}

bool fuzz_compile(Module *m, PassOptions o, unsigned choice, bool (*after_bind)(const Module *m, void *context, Diag *d),
                  void *context, Diag *d) {
    PassId list[PASS_COUNT];
    WeightChoice weights = {.format = (WeightFormat)(choice % 3 + 1)};
    PassRun run = {.options = &o, .after_bind = after_bind, .context = context, .bad_ir_dir = fuzz_folder(), .list = list};
    o.train = choice & FUZZ_TRAIN;
    o.library = choice & FUZZ_LIBRARY;
    o.opt_level = choice & FUZZ_PLAIN_C ? 0 : 2;
    o.weights = &weights;
    o.n_weights = !o.library;
    o.max_memory = choice & FUZZ_MEMORY && o.train ? 1 << 20 : 0;
    run.n_list = passes_left(m, list);
    run.bound = module_is_bound(m);
    return passes_run(m, &run, d) && generate(m, choice, d);
}
