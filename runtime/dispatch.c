/* Programs in several variants: which one this CPU runs. What a variant takes is asked for bit by bit, and the operating
 * system has to keep the registers. */
#define _POSIX_C_SOURCE 200809L

#include "moec_rt.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

/* A bit of what cpuid tells: of leaf 1 in ecx, of leaf 7 in ebx and ecx, of its part 1 in eax, of leaf 0x80000001 in ecx. */
enum { L1_C, L7_B, L7_C, L71_A, LX_C, WORDS };

typedef struct Needs {
    const char *variant;
    unsigned word[WORDS];
    unsigned state; /* bits of xcr0 */
} Needs;

enum { YMM = 6, ZMM = 0xe6 };
#define V3_L1_C (1u << 0 | 1u << 9 | 1u << 12 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 22 | 1u << 23 | 1u << 28 | 1u << 29)
#define V3_L7_B (1u << 3 | 1u << 5 | 1u << 8)
#define V4_L7_B (V3_L7_B | 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31)
#define V3_LX_C (1u << 0 | 1u << 5)

/* The levels x86-64-v3 and v4 of the psABI; VNNI (leaf 7, ecx 11), BF16 and AVX-VNNI (its part 1, eax 5 and 4). */
static const Needs needs[] = {
    {"avx512_dot", {V3_L1_C, V4_L7_B, 1u << 11, 1u << 5, V3_LX_C}, ZMM},
    {"avx512", {V3_L1_C, V4_L7_B, 0, 0, V3_LX_C}, ZMM},
    {"avx2_dot", {V3_L1_C, V3_L7_B, 0, 1u << 4, V3_LX_C}, YMM},
    {"avx2", {V3_L1_C, V3_L7_B, 0, 0, V3_LX_C}, YMM},
};

static unsigned kept_state(unsigned leaf1_ecx) {
    unsigned low = 0, high = 0;
    if (leaf1_ecx & 1u << 27) /* OSXSAVE */
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has(const Needs *n) {
    unsigned a, b, c, d, word[WORDS] = {0};
    if (__get_cpuid(1, &a, &b, &c, &d))
        word[L1_C] = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        unsigned parts = a;
        word[L7_B] = b;
        word[L7_C] = c;
        if (parts >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d))
            word[L71_A] = a;
    }
    if (__get_cpuid(0x80000001u, &a, &b, &c, &d))
        word[LX_C] = c;
    for (int i = 0; i < WORDS; i++)
        if ((word[i] & n->word[i]) != n->word[i])
            return 0;
    return (kept_state(word[L1_C]) & n->state) == n->state;
}

/* A variant that is not in the table asks for nothing. */
static int runs(const char *variant) {
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (!strcmp(needs[i].variant, variant))
            return has(&needs[i]);
    return 1;
}
#else
static int runs(const char *variant) { return !strcmp(variant, "base"); }
#endif

const moec_program *moec_choose(const moec_variant *v, uint32_t n) {
    const char *wanted = getenv("MOEC_VARIANT");
    uint32_t best = 0;
    while (best + 1 < n && !runs(v[best].name))
        best++;
    for (uint32_t i = best; wanted && i < n; i++)
        if (!strcmp(v[i].name, wanted) && runs(v[i].name))
            best = i;
    return v[best].program();
}
