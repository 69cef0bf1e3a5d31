/* The variants that there are, and the text that chooses among those of a program. */
#include "variant.h"

#include <string.h>

/* dots: it differs from the next one in instructions for DOT_ operations alone. */
static const struct {
    CodeVariant v;
    int level; /* of a base that has all this */
    bool dots;
} variants[] = {
    {{"avx512_dot", "x86-64-v4", "-mprefer-vector-width=512 -mavx512vnni -mavx512bf16", "+avx512vnni,+avx512bf16"}, 5, true},
    {{"avx512", "x86-64-v4", "-mprefer-vector-width=512", ""}, 4, false},
    {{"avx2_dot", "x86-64-v3", "-mavxvnni", "+avxvnni"}, 4, true},
    {{"avx2", "x86-64-v3", NULL, ""}, 3, false},
    {{"base", NULL, NULL, ""}, 0, false},
};

int variant_level(const char *march) {
    static const char *const levels[] = {"generic", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"};
    for (int i = 0; i < 5; i++)
        if (strcmp(march, levels[i]) == 0) return i ? i : 1;
    return 0;
}

bool program_uses_dots(const Program *p) {
    for (uint32_t i = 0; i < p->n_routines; i++)
        if (p->routine[i]->dots) return true;
    return false;
}

uint32_t variants_of(const Program *p, int level, const CodeVariant **out) {
    uint32_t n = 0;
    bool dots = program_uses_dots(p);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        if ((!variants[i].level || variants[i].level > level) && (dots || !variants[i].dots)) out[n++] = &variants[i].v;
    return n;
}

void print_variants(const char *prefix, const CodeVariant *const *v, uint32_t n, Text *c) {
    text_printf(c, "/* The model %s in several variants: which of them runs is decided when it is opened. */\n#include \"%s.h\"\n\n", prefix, prefix);
    for (uint32_t i = 0; i < n; i++) text_printf(c, "const moec_program *%s_program_%s(void);\n", prefix, v[i]->name);
    text_printf(c, "\nconst moec_program *%s_program(void) {\n    static const moec_variant variants[] = {\n", prefix);
    for (uint32_t i = 0; i < n; i++) text_printf(c, "        {\"%s\", %s_program_%s},\n", v[i]->name, prefix, v[i]->name);
    text_printf(c, "    };\n    return moec_choose(variants, %u);\n}\n", n);
}
