/* --dispatch: the model compiled several times, and what chooses among its variants. */
#include "build.h"

#include <string.h>

/* The least CPU that the result is for. */
static const char *base_of(const Build *b) {
    return b->o->mcpu ? b->o->mcpu : b->o->march ? b->o->march : "generic";
}

static bool is_x86(const Build *b) {
#if defined(__x86_64__)
    if (!b->target) return true;
#endif
    return b->target && strncmp(b->target, "x86_64-", 7) == 0;
}

bool build_check_dispatch(Build *b) {
    int level = variant_level(base_of(b));
    if (!b->o->dispatch) return true;
    if (!is_x86(b))
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "--dispatch chooses among variants for x86-64; for %s there is one: leave it out",
                          b->target ? b->target : "this machine");
    if (level < 1 || level > 3)
        return diag_error(b->d, DIAG_USAGE_TOGETHER, NULL,
                          "--dispatch makes variants for better CPUs than that of -march, which is generic, x86-64, x86-64-v2 or x86-64-v3, not '%s'",
                          diag_show(b->d, str_c(base_of(b))));
    return b->llvm || b->o->emit != EMIT_ASM ||
           diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "--emit=asm is one file of a C compiler, --dispatch takes several: choose one variant with -march, or --backend=llvm");
}

uint32_t build_variants(Build *b, const CodeVariant **out) {
    return b->o->dispatch ? variants_of(b->program, variant_level(base_of(b)), out) : 0;
}

const char *build_variants_name(Build *b) {
    return arena_printf(b->a, "%s_variants.c", b->codegen.prefix);
}

bool build_variants_text(Build *b, const char *dir) {
    const CodeVariant *v[MOST_VARIANTS];
    Text t = {0};
    print_variants(b->codegen.prefix, v, build_variants(b, v), &t);
    bool ok = outfile_text(build_path(b, dir, build_variants_name(b)), &t, b->d);
    text_free(&t);
    return ok;
}

bool build_variant_objects(Build *b) {
    const CodeVariant *v[MOST_VARIANTS];
    const char *object[MOST_VARIANTS + 1], *model = arena_printf(b->a, "%s.c", b->codegen.prefix);
    uint32_t n = build_variants(b, v);
    for (uint32_t i = 0; i < n; i++) {
        object[i] = arena_printf(b->a, "model_%s.o", v[i]->name);
        if (!build_object(b, "-c", model, object[i], v[i])) return false;
    }
    object[n] = "variants.o";
    return build_variants_text(b, b->dir) && build_object(b, "-c", build_variants_name(b), object[n], NULL) && build_join(b, object, n + 1, "model.o");
}
