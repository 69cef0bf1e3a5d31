/* The vocabulary of generated kernels: scalar functions with the meaning of the graph ops, and the matrix product.
 * Included by generated code only. C99; every function is static inline and free of undefined behaviour whatever the
 * data. The float functions have no branches, so that compilers vectorise the loops they stand in. */
#ifndef MOEC_KERNEL_H
#define MOEC_KERNEL_H

#include "moec_rt.h"

#include <math.h>
#include <string.h>

/* Of functions whose only effect is what they store: gcc 12 takes an address that it computes without a pointer, as that of
 * every second element of scratch, for null, the function for one without effects, and drops its calls. */
#if defined(__GNUC__) && __GNUC__ >= 8 && !defined(__clang__)
#define MOEC_KEPT __attribute__((noipa))
#else
#define MOEC_KEPT
#endif

/* A hint: what is there will be read soon. */
#if defined(__GNUC__)
#define MOEC_PREFETCH(at) __builtin_prefetch(at)
#else
#define MOEC_PREFETCH(at) ((void)(at))
#endif

/* A model that is compiled several times, each time with -DMOEC_VARIANT=NAME: its global names end in that. */
#ifdef MOEC_VARIANT
#define MOEC_JOINED(name, variant) name##_##variant
#define MOEC_JOIN(name, variant) MOEC_JOINED(name, variant)
#define MOEC_QUOTED(name) #name
#define MOEC_QUOTE(name) MOEC_QUOTED(name)
#define MOEC_OF_VARIANT(name) MOEC_JOIN(name, MOEC_VARIANT)
#define MOEC_VARIANT_TEXT MOEC_QUOTE(MOEC_VARIANT)
#else
#define MOEC_OF_VARIANT(name) name
#define MOEC_VARIANT_TEXT ""
#endif

/* ---- float ----------------------------------------------------------------------------------------- */

static inline float moec_min_f32(float a, float b) { return a < b || a != a ? a : b; }
static inline float moec_max_f32(float a, float b) { return a > b || a != a ? a : b; }
static inline double moec_min_f64(double a, double b) { return a < b || a != a ? a : b; }
static inline double moec_max_f64(double a, double b) { return a > b || a != a ? a : b; }

static inline float moec_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* e^x to 1 ulp: x = n ln 2 + r, a polynomial on |r| <= ln 2 / 2 (Cephes' coefficients), twice that times 2^(n-1). Results
 * below about 2^-125 are 0, beyond the largest float infinity; NaN passes through. */
static inline float moec_exp_f32(float x) {
    float c = -87.3f > x ? -87.3f : x;
    c = 89.0f < c ? 89.0f : c;
    float shifted = c * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: n lands in the low bits */
    float n = shifted - 12582912.0f;
    float r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (p + p) * moec_bits_f32((bits << 23) + (126u << 23));
}

/* A polynomial near 0, where 1 - 2/(e^2x + 1) would cancel (Cephes' coefficients). */
static inline float moec_tanh_f32(float x) {
    float a = fabsf(x), s = x * x;
    float big = 1.0f - 2.0f / (moec_exp_f32(2.0f * a) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * s + 2.06390887954e-2f;
    p = p * s - 5.37397155531e-2f;
    p = p * s + 1.33314422036e-1f;
    p = p * s - 3.33332819422e-1f;
    p = p * s * x + x;
    return a < 0.625f ? p : copysignf(big, x);
}

static inline float moec_sigmoid_f32(float x) { return 1.0f / (1.0f + moec_exp_f32(-x)); }
/* x/2 (1 + tanh u) = x / (1 + e^-2u) */
static inline float moec_gelu_f32(float x) {
    return x / (1.0f + moec_exp_f32(-1.5957691216f * (x + 0.044715f * x * x * x)));
}
/* Beyond 10 the derivative is 0 or 1 to the last bit, and x * x no longer overflows. */
static inline float moec_gelu_grad_f32(float x) {
    float c = x < -10.0f ? -10.0f : x;
    c = c > 10.0f ? 10.0f : c;
    float s = c * c, t = moec_tanh_f32(0.7978845608f * (c + 0.044715f * s * c));
    return 0.5f * (1.0f + t) + 0.5f * c * (1.0f - t * t) * (0.7978845608f + 0.1070322243f * s);
}
static inline float moec_relu_f32(float x) { return x < 0.0f ? 0.0f : x; }
static inline float moec_abs_f32(float x) { return fabsf(x); }
static inline float moec_sqrt_f32(float x) { return sqrtf(x); }
static inline float moec_rsqrt_f32(float x) { return 1.0f / sqrtf(x); }
static inline float moec_recip_f32(float x) { return 1.0f / x; }
static inline float moec_log_f32(float x) { return logf(x); }
static inline float moec_erf_f32(float x) { return erff(x); }
static inline float moec_floor_f32(float x) { return floorf(x); }
static inline float moec_ceil_f32(float x) { return ceilf(x); }
static inline float moec_round_f32(float x) { return rintf(x); }
static inline float moec_sign_f32(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }
static inline float moec_pow_f32(float a, float b) { return powf(a, b); }
static inline float moec_fmod_f32(float a, float b) { return fmodf(a, b); }
static inline float moec_mod_f32(float a, float b) {
    float r = fmodf(a, b);
    return r == 0.0f ? copysignf(0.0f, b) : (r < 0.0f) != (b < 0.0f) ? r + b : r;
}

static inline double moec_exp_f64(double x) { return exp(x); }
static inline double moec_tanh_f64(double x) { return tanh(x); }
static inline double moec_sigmoid_f64(double x) { return 1.0 / (1.0 + exp(-x)); }
static inline double moec_gelu_f64(double x) {
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}
static inline double moec_gelu_grad_f64(double x) {
    double c = x < -10.0 ? -10.0 : x > 10.0 ? 10.0 : x;
    double s = c * c, t = tanh(0.7978845608028654 * (c + 0.044715 * s * c));
    return 0.5 * (1.0 + t) + 0.5 * c * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * s);
}
static inline double moec_relu_f64(double x) { return x < 0.0 ? 0.0 : x; }
static inline double moec_abs_f64(double x) { return fabs(x); }
static inline double moec_sqrt_f64(double x) { return sqrt(x); }
static inline double moec_rsqrt_f64(double x) { return 1.0 / sqrt(x); }
static inline double moec_recip_f64(double x) { return 1.0 / x; }
static inline double moec_log_f64(double x) { return log(x); }
static inline double moec_erf_f64(double x) { return erf(x); }
static inline double moec_floor_f64(double x) { return floor(x); }
static inline double moec_ceil_f64(double x) { return ceil(x); }
static inline double moec_round_f64(double x) { return rint(x); }
static inline double moec_sign_f64(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x; }
static inline double moec_pow_f64(double a, double b) { return pow(a, b); }
static inline double moec_fmod_f64(double a, double b) { return fmod(a, b); }
static inline double moec_mod_f64(double a, double b) {
    double r = fmod(a, b);
    return r == 0.0 ? copysign(0.0, b) : (r < 0.0) != (b < 0.0) ? r + b : r;
}

/* ---- integers: arithmetic wraps, division by zero gives 0 ------------------------------------------- */

static inline int64_t moec_add_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static inline int64_t moec_sub_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t moec_mul_i64(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static inline int64_t moec_neg_i64(int64_t a) { return (int64_t)(0u - (uint64_t)a); }
static inline int64_t moec_abs_i64(int64_t a) { return a < 0 ? moec_neg_i64(a) : a; }
static inline int64_t moec_div_i64(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? moec_neg_i64(a) : a / b; }
static inline int64_t moec_fmod_i64(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline int64_t moec_mod_i64(int64_t a, int64_t b) {
    int64_t r = moec_fmod_i64(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static inline int64_t moec_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t moec_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t moec_relu_i64(int64_t a) { return a < 0 ? 0 : a; }
static inline int64_t moec_sign_i64(int64_t a) { return (a > 0) - (a < 0); }

static inline int64_t moec_i64_from_f64(double x) {
    if (!(x == x)) return 0;
    if (x >= 9223372036854775808.0) return INT64_MAX;
    if (x <= -9223372036854775808.0) return INT64_MIN;
    return (int64_t)x;
}
static inline int64_t moec_clamp_i64(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }
/* a ^ b by squaring, wrapping; negative exponents truncate as integer division does. */
static inline int64_t moec_pow_i64(int64_t a, int64_t b) {
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : 0;
    int64_t r = 1;
    for (; b > 0; b >>= 1) {
        if (b & 1) r = moec_mul_i64(r, a);
        a = moec_mul_i64(a, a);
    }
    return r;
}

/* ---- numbers made from a counter ------------------------------------------------------------------------ */

/* A bijection of 32-bit words: Wellons' lowbias32. */
static inline uint32_t moec_mix_u32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

/* A multiple of 2^-24 in [0, 1). */
static inline float moec_uniform_f32(int64_t seed, int64_t index) {
    uint32_t h = moec_mix_u32((uint32_t)index ^ (uint32_t)seed);
    h = moec_mix_u32(h ^ (uint32_t)((uint64_t)seed >> 32) ^ (uint32_t)((uint64_t)index >> 32));
    return (float)(h >> 8) * 5.9604644775390625e-8f; /* 2^-24 */
}

/* SplitMix64's finaliser (Steele, Lea, Flood 2014): the index-th seed made from `seed`. */
static inline int64_t moec_split_seed_i64(int64_t seed, int64_t index) {
    uint64_t z = (uint64_t)seed + ((uint64_t)index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (int64_t)(z ^ (z >> 31));
}

/* ---- half precision, stored as its bits -------------------------------------------------------------- */

static inline float moec_f32_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 31) return moec_bits_f32(sign | 0x7f800000u | (m << 13));
    if (e) return moec_bits_f32(sign | ((e + 112u) << 23) | (m << 13));
    float f = (float)m * 5.9604644775390625e-8f; /* 2^-24 */
    return sign ? -f : f;
}

static inline uint16_t moec_f16_from_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 2^16 or more */
    if (a < 0x38800000u) {                                    /* subnormal: the adder rounds */
        float t = moec_bits_f32(a) + 0.5f;
        uint32_t b;
        memcpy(&b, &t, sizeof b);
        return (uint16_t)(sign | (b - 0x3f000000u));
    }
    uint32_t r = a + 0xfffu + ((a >> 13) & 1u);
    return (uint16_t)(sign | ((r - 0x38000000u) >> 13));
}

/* ---- choice ------------------------------------------------------------------------------------------------ */

/* Both values are there before the choice: gcc 12 vectorises `c ? a[i] : b` over bytes c with masked loads whose masks are
 * those of other lanes. */
static inline uint8_t moec_select_bool(int c, uint8_t a, uint8_t b) { return c ? a : b; }
static inline uint8_t moec_select_u8(int c, uint8_t a, uint8_t b) { return c ? a : b; }
static inline int8_t moec_select_i8(int c, int8_t a, int8_t b) { return c ? a : b; }
static inline uint16_t moec_select_u16(int c, uint16_t a, uint16_t b) { return c ? a : b; }
static inline int16_t moec_select_i16(int c, int16_t a, int16_t b) { return c ? a : b; }
static inline int32_t moec_select_i32(int c, int32_t a, int32_t b) { return c ? a : b; }
static inline int64_t moec_select_i64(int c, int64_t a, int64_t b) { return c ? a : b; }
static inline uint16_t moec_select_f16(int c, uint16_t a, uint16_t b) { return c ? a : b; }
static inline float moec_select_f32(int c, float a, float b) { return c ? a : b; }
static inline double moec_select_f64(int c, double a, double b) { return c ? a : b; }

/* ---- words of weights ----------------------------------------------------------------------------------- */

/* i32 words hold several weights (compiler/pack.h says how). A weight before it is scaled, by its number in the word. */
static inline float moec_of_bf16_f32(int32_t w, int64_t i) { return moec_bits_f32(i ? (uint32_t)w & 0xffff0000u : (uint32_t)w << 16); }
static inline float moec_of_int8_f32(int32_t w, int64_t i) { return (float)((int32_t)((uint32_t)w >> (8 * i) & 255u) - 128); }
static inline float moec_of_int4_f32(int32_t w, int64_t i) { return (float)((int32_t)((uint32_t)w >> (8 * (i & 3) + (i & 4)) & 15u) - 8); }
static inline int32_t moec_nibbles_i32(int32_t w, int64_t half) { return (int32_t)((uint32_t)w >> (4 * half) & 0x0f0f0f0fu); }

/* Two products of bf16. */
static inline float moec_dot_bf16_f32(float sum, int32_t w, int32_t x) {
    sum = sum + moec_of_bf16_f32(w, 1) * moec_of_bf16_f32(x, 1);
    return sum + moec_of_bf16_f32(w, 0) * moec_of_bf16_f32(x, 0);
}

/* Four products of an unsigned and a signed byte. */
static inline int32_t moec_dot_int8_i32(int32_t sum, int32_t w, int32_t x) {
    for (int i = 0; i < 4; i++) {
        const int32_t b = (int32_t)((uint32_t)w >> (8 * i) & 255u), c = (int32_t)(((uint32_t)x >> (8 * i) & 255u) ^ 128u) - 128;
        sum = (int32_t)((uint32_t)sum + (uint32_t)(b * c));
    }
    return sum;
}

enum { MOEC_PANEL = 32 }; /* columns of a panel that is in words */

/* Rows of words of a panel, from `first` on, as f32. */
static inline void moec_expand_bf16(const int32_t *w, float *restrict to, int64_t first, int64_t words) {
    for (int64_t k = 0; k < words; k++)
        for (int64_t i = 0; i < 2; i++)
            for (int n = 0; n < MOEC_PANEL; n++) to[(2 * k + i) * MOEC_PANEL + n] = moec_of_bf16_f32(w[(first + k) * MOEC_PANEL + n], i);
}

static inline void moec_expand_int8(const int32_t *w, float *restrict to, const float *scale, int64_t first, int64_t words) {
    for (int64_t k = 0; k < words; k++)
        for (int64_t i = 0; i < 4; i++)
            for (int n = 0; n < MOEC_PANEL; n++)
                to[(4 * k + i) * MOEC_PANEL + n] =
                    moec_of_int8_f32(w[(first + k) * MOEC_PANEL + n], i) * scale[(first + k) / 16 * MOEC_PANEL + n];
}

static inline void moec_expand_int4(const int32_t *w, float *restrict to, const float *scale, int64_t first, int64_t words) {
    for (int64_t k = 0; k < words; k++)
        for (int64_t i = 0; i < 8; i++)
            for (int n = 0; n < MOEC_PANEL; n++)
                to[(8 * k + i) * MOEC_PANEL + n] =
                    moec_of_int4_f32(w[(first + k) * MOEC_PANEL + n], i) * scale[(first + k) / 4 * MOEC_PANEL + n];
}

/* The upper half of a float, to nearest even; NaN stays one. */
static inline uint32_t moec_bf16_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint32_t near = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, nan = u >> 16 | 64u;
    return (u & 0x7fffffffu) > 0x7f800000u ? nan : near;
}

/* Rows of `depth` floats, lda apart, in words of bf16; depth is even. */
static inline void moec_quantize_bf16(const float *a, int32_t *q, int64_t rows, int64_t depth, int64_t lda) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < depth / 2; k++)
            q[r * (depth / 2) + k] = (int32_t)(moec_bf16_bits(a[r * lda + 2 * k]) | moec_bf16_bits(a[r * lda + 2 * k + 1]) << 16);
}

/* The bits of the largest magnitude: they are in the order of magnitudes, NaN the largest. */
static inline uint32_t moec_largest_bits(const float *a, int64_t n) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &a[i], sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

/* Rows of `depth` floats, lda apart, as signed bytes in words, a scale each, zeros up to whole blocks; sum: for each block
 * -zero times the sum of its bytes. */
static inline void moec_quantize_int8(const float *a, int32_t *q, float *scale, int32_t *sum, int64_t rows, int64_t depth, int64_t lda,
                                      int64_t block, int64_t zero) {
    const int64_t blocks = (depth + block - 1) / block;
    for (int64_t r = 0; r < rows; r++, a += lda) {
        unsigned char *byte = (unsigned char *)(q + r * (blocks * block / 4));
        const float most = moec_bits_f32(moec_largest_bits(a, depth)), inverse = most > 1e-30f ? 127.0f / most : 0.0f;
        scale[r] = most * (1.0f / 127.0f);
        for (int64_t k = 0; k < depth; k++) {
            const float shifted = a[k] * inverse + 12582912.0f; /* 1.5 * 2^23: the number lands in the low bits */
            uint32_t bits;
            memcpy(&bits, &shifted, sizeof bits);
            byte[k] = (unsigned char)bits;
        }
        for (int64_t k = depth; k < blocks * block; k++) byte[k] = 0;
        for (int64_t b = 0; b < blocks; b++) {
            int32_t s = 0;
            for (int64_t k = 0; k < block; k++) s += (int32_t)(byte[b * block + k] ^ 128u) - 128;
            sum[r * blocks + b] = (int32_t)(-zero * s);
        }
    }
}

/* Rows of `depth` floats, lda apart, as numbers of three signed bytes, the highest first, each in words of its own, zeros up to whole
 * blocks: numbers of a 127 * 65536th of the largest magnitude; a scale a row. sum: for each block and byte -zero times the sum
 * of these. The scale of a row with what is not finite is no number, and so is all that is made of it. */
static inline void moec_digits(const float *restrict a, int32_t *restrict q, float *restrict scale, int32_t *restrict sum, int64_t rows,
                               int64_t depth, int64_t lda, int64_t block, int64_t zero) {
    const int64_t blocks = (depth + block - 1) / block, wide = blocks * block;
    for (int64_t r = 0; r < rows; r++, a += lda) {
        unsigned char *restrict byte = (unsigned char *)(q + r * (3 * wide / 4));
        const uint32_t largest = moec_largest_bits(a, depth);
        const int finite = largest < 0x7f800000u;
        const float most = moec_bits_f32(finite ? largest : 0x7fc00000u), inverse = most > 1e-30f ? 8323072.0f / most : 0.0f;
        scale[r] = most * (1.0f / 8323072.0f);
        for (int64_t k = 0; finite && k < depth; k++) {
            const float v = a[k] * inverse;
            const uint32_t n = (uint32_t)((int32_t)(v < 0 ? v - 0.5f : v + 0.5f) + 0x808080) ^ 0x808080u; /* 128 more a digit, then less */
            byte[k] = (unsigned char)(n >> 16);
            byte[wide + k] = (unsigned char)(n >> 8);
            byte[2 * wide + k] = (unsigned char)n;
        }
        for (int64_t i = 0; i < 3; i++)
            for (int64_t k = finite ? depth : 0; k < wide; k++) byte[i * wide + k] = !finite;
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t i = 0; i < 3; i++) {
                int32_t s = 0;
                for (int64_t k = 0; k < block; k++) s += (int32_t)(byte[i * wide + b * block + k] ^ 128u) - 128;
                sum[(r * blocks + b) * 3 + i] = (int32_t)(-zero * s);
            }
    }
}

/* ---- vectors --------------------------------------------------------------------------------------------- */

/* What routines in vectors of n lanes are made of: the types, and what words hold, for all lanes. */
#ifdef __GNUC__
#define MOEC_VECTOR_FUNCTION __attribute__((unused, always_inline)) static inline
/* Of lanes of a, then of b, those of the given numbers. */
#ifdef __clang__
#define MOEC_SHUFFLE(n, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MOEC_SHUFFLE(n, a, b, ...) __builtin_shuffle(a, b, (moec_i32x##n){__VA_ARGS__})
#endif
#define MOEC_VECTORS(n)                                                                                                        \
    typedef float moec_f32x##n __attribute__((vector_size(4 * (n)), aligned(4), may_alias));                                   \
    typedef int32_t moec_i32x##n __attribute__((vector_size(4 * (n)), aligned(4), may_alias));                                 \
    typedef uint32_t moec_u32x##n __attribute__((vector_size(4 * (n)), aligned(4), may_alias));                                \
    MOEC_VECTOR_FUNCTION moec_f32x##n moec_of_bf16_f32x##n(moec_i32x##n w, int i) {                                            \
        return (moec_f32x##n)((moec_u32x##n)w >> (16 * i) << 16);                                                              \
    }                                                                                                                          \
    MOEC_VECTOR_FUNCTION moec_f32x##n moec_of_int8_f32x##n(moec_i32x##n w, int i) {                                            \
        return __builtin_convertvector((moec_i32x##n)((moec_u32x##n)w >> (8 * i) & 255u) - 128, moec_f32x##n);                 \
    }                                                                                                                          \
    MOEC_VECTOR_FUNCTION moec_f32x##n moec_of_int4_f32x##n(moec_i32x##n w, int i) {                                            \
        return __builtin_convertvector((moec_i32x##n)((moec_u32x##n)w >> (8 * (i & 3) + (i & 4)) & 15u) - 8, moec_f32x##n);    \
    }                                                                                                                          \
    MOEC_VECTOR_FUNCTION moec_i32x##n moec_nibbles_i32x##n(moec_i32x##n w, int half) {                                         \
        return (moec_i32x##n)((moec_u32x##n)w >> (4 * half) & 0x0f0f0f0fu);                                                    \
    }                                                                                                                          \
    MOEC_VECTOR_FUNCTION moec_f32x##n moec_dot_bf16_f32x##n(moec_f32x##n sum, moec_i32x##n w, moec_i32x##n x) {                \
        return MOEC_DOT_BF16(n, sum, w, x);                                                                                    \
    }                                                                                                                          \
    MOEC_VECTOR_FUNCTION moec_i32x##n moec_dot_int8_i32x##n(moec_i32x##n sum, moec_i32x##n w, moec_i32x##n x) {                \
        return MOEC_DOT_INT8(n, sum, w, x);                                                                                    \
    }

#define MOEC_SIGNED_BYTE(n, x, i) ((moec_i32x##n)((moec_u32x##n)(x) << (24 - 8 * (i))) >> 24)
#define MOEC_BYTE(n, w, i) ((moec_i32x##n)((moec_u32x##n)(w) >> (8 * (i)) & 255u))
#define MOEC_BYTES(n, w, x, i) (MOEC_BYTE(n, w, i) * MOEC_SIGNED_BYTE(n, x, i))

#ifdef MOEC_DOTS
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BF16__)
#define MOEC_DOT_BF16(n, sum, w, x) (moec_f32x##n)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(w), (__m512bh)(x))
#endif
#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#define MOEC_DOT_INT8(n, sum, w, x) (moec_i32x##n)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(w), (__m512i)(x))
#elif defined(__AVX512F__) && defined(__AVX512BW__)
#define MOEC_PAIRS(w, x) _mm512_madd_epi16((__m512i)(w), (__m512i)(x))
#define MOEC_SHIFTED(x, by) _mm512_srai_epi16((__m512i)(x), by)
#define MOEC_LIFTED(x) _mm512_slli_epi16((__m512i)(x), 8)
#elif !defined(__AVX512F__) && defined(__AVXVNNI__)
#define MOEC_DOT_INT8(n, sum, w, x) (moec_i32x##n)_mm256_dpbusd_avx_epi32((__m256i)(sum), (__m256i)(w), (__m256i)(x))
#elif !defined(__AVX512F__) && defined(__AVX2__)
#define MOEC_PAIRS(w, x) _mm256_madd_epi16((__m256i)(w), (__m256i)(x))
#define MOEC_SHIFTED(x, by) _mm256_srai_epi16((__m256i)(x), by)
#define MOEC_LIFTED(x) _mm256_slli_epi16((__m256i)(x), 8)
#endif
#ifdef MOEC_PAIRS /* even bytes and odd ones as halves of words */
#define MOEC_DOT_INT8(n, sum, w, x)                                                                                             \
    ((sum) + (moec_i32x##n)MOEC_PAIRS((moec_u32x##n)(w) & 0x00ff00ffu, MOEC_SHIFTED(MOEC_LIFTED(x), 8)) +                        \
     (moec_i32x##n)MOEC_PAIRS((moec_u32x##n)(w) >> 8 & 0x00ff00ffu, MOEC_SHIFTED(x, 8)))
#endif
#endif

#if defined(MOEC_DOT_INT8) && !defined(MOEC_PAIRS)
#define MOEC_HAS_DOTS 1 /* products of bytes are one instruction */
#endif

#ifndef MOEC_DOT_BF16
#define MOEC_DOT_BF16(n, sum, w, x)                                                                                             \
    ((sum) + moec_of_bf16_f32x##n(w, 1) * moec_of_bf16_f32x##n(x, 1) + moec_of_bf16_f32x##n(w, 0) * moec_of_bf16_f32x##n(x, 0))
#endif
#ifndef MOEC_DOT_INT8
#define MOEC_DOT_INT8(n, sum, w, x)                                                                                             \
    ((sum) + MOEC_BYTES(n, w, x, 0) + MOEC_BYTES(n, w, x, 1) + MOEC_BYTES(n, w, x, 2) + MOEC_BYTES(n, w, x, 3))
#endif
#endif
#ifndef MOEC_HAS_DOTS
#define MOEC_HAS_DOTS 0
#endif

/* ---- running kernels ----------------------------------------------------------------------------------- */

static inline void moec_fault(const moec_frame *f) { *f->fault = MOEC_E_INDEX; }

/* Rows of a tile, eights of them: at most `most`, and tiles enough for all workers. How rows are divided changes no bit but those
 * of a library's products, so for that it is the same for any number of workers. */
static inline int64_t moec_tile_rows(moec_pool *pool, int64_t rows, int64_t most) {
#ifdef MOEC_MATMUL_OPENBLAS
    (void)pool, (void)rows;
    return most;
#else
    const int64_t turn = 2 * (int64_t)(pool ? moec_pool_workers(pool) : 1);
    const int64_t tiles = turn * ((rows + turn * most - 1) / (turn * most));
    return ((rows + tiles - 1) / tiles + 7) / 8 * 8;
#endif
}

/* ---- matrix product -------------------------------------------------------------------------------------- */

typedef struct moec_gemm {
    int64_t m, n, k, lda, ldb, ldc;
    const float *a, *b;
    float *c;
    int ta, tb, add;
} moec_gemm;

/* Few rows are taken one by one: the general product would first copy the right side, and a worker's columns of it stay
 * in its cache from row to row. A sequence decodes to the same bits alone and in a batch this small. */
enum { MOEC_FEW_ROWS = 8 };

#ifdef MOEC_MATMUL_OPENBLAS
void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
                 int ldb, float beta, float *c, int ldc);
void cblas_sgemv(int order, int ta, int m, int n, float alpha, const float *a, int lda, const float *x, int incx, float beta,
                 float *y, int incy);
enum { MOEC_SMALL_MATMUL = 4096 };
#endif

/* C (+)= A B row by row, columns of C kept in accumulators; the order of additions along k never changes. */
static void moec_gemm_rows(const moec_gemm *g) {
    enum { COLS = 64 };
    for (int64_t i = 0; i < g->m; i++) {
        const float *a = g->a + (g->ta ? i : i * g->lda);
        const int64_t ak = g->ta ? g->lda : 1;
        float *c = g->c + i * g->ldc;
        if (g->tb) {
            for (int64_t j = 0; j < g->n; j++) {
                const float *b = g->b + j * g->ldb;
                float lane[16] = {0}, sum;
                const int64_t tail = g->k % 16, whole = g->k - tail;
                for (int64_t k = 0; k < whole; k += 16)
                    for (int l = 0; l < 16; l++) lane[l] += a[(k + l) * ak] * b[k + l];
                for (int64_t k = 0; k < tail; k++) lane[k] += a[(whole + k) * ak] * b[whole + k];
                for (int h = 8; h; h /= 2)
                    for (int l = 0; l < h; l++) lane[l] += lane[l + h];
                sum = lane[0];
                c[j] = g->add ? c[j] + sum : sum;
            }
            continue;
        }
        const int64_t rest = g->n % COLS, whole = g->n - rest;
        for (int64_t j = 0; j < whole; j += COLS) {
            float acc[COLS];
            for (int l = 0; l < COLS; l++) acc[l] = g->add ? c[j + l] : 0.0f;
            for (int64_t k = 0; k < g->k; k++) {
                const float x = a[k * ak], *b = g->b + k * g->ldb + j;
                for (int l = 0; l < COLS; l++) acc[l] += x * b[l];
            }
            for (int l = 0; l < COLS; l++) c[j + l] = acc[l];
        }
        float *last = c + whole;
        for (int64_t l = 0; l < rest && !g->add; l++) last[l] = 0.0f;
        for (int64_t k = 0; k < g->k && rest > 0; k++) {
            const float x = a[k * ak], *b = g->b + k * g->ldb + whole;
            for (int64_t l = 0; l < rest; l++) last[l] += x * b[l];
        }
    }
}

enum { MOEC_PANEL_COLS = 16, MOEC_PANEL_ROWS = 4, MOEC_PANEL_DEPTH = 256 };

/* Rows k0 on of columns j on of B side by side, zeros behind its last column. */
static void moec_panel_pack(const moec_gemm *g, int64_t j, int64_t k0, int64_t depth, float *p) {
    const int64_t down = g->tb ? 1 : g->ldb, across = g->tb ? g->ldb : 1;
    const int64_t cols = g->n - j < MOEC_PANEL_COLS ? g->n - j : MOEC_PANEL_COLS;
    const float *b = g->b + k0 * down + j * across;
    if (cols == MOEC_PANEL_COLS) {
        for (int64_t k = 0; k < depth; k++)
            for (int l = 0; l < MOEC_PANEL_COLS; l++) p[k * MOEC_PANEL_COLS + l] = b[k * down + l * across];
        return;
    }
    for (int64_t k = 0; k < depth; k++)
        for (int64_t l = 0; l < MOEC_PANEL_COLS; l++) p[k * MOEC_PANEL_COLS + l] = l < cols ? b[k * down + l * across] : 0.0f;
}

/* s[r] += row r of A times the panel. Four arrays of one block each, or compilers do not keep them in registers. */
static void moec_panel_rows(const float *a, const int64_t *row, int64_t ak, const float *p, int64_t depth,
                            float (*s)[MOEC_PANEL_COLS]) {
    enum { COLS = MOEC_PANEL_COLS };
    const float *a0 = a + row[0], *a1 = a + row[1], *a2 = a + row[2], *a3 = a + row[3];
    float s0[COLS], s1[COLS], s2[COLS], s3[COLS];
    for (int l = 0; l < COLS; l++) s0[l] = s[0][l], s1[l] = s[1][l], s2[l] = s[2][l], s3[l] = s[3][l];
    for (int64_t k = 0; k < depth; k++) {
        const float x0 = a0[k * ak], x1 = a1[k * ak], x2 = a2[k * ak], x3 = a3[k * ak], *b = p + k * COLS;
        for (int l = 0; l < COLS; l++) s0[l] += x0 * b[l], s1[l] += x1 * b[l], s2[l] += x2 * b[l], s3[l] += x3 * b[l];
    }
    for (int l = 0; l < COLS; l++) s[0][l] = s0[l], s[1][l] = s1[l], s[2][l] = s2[l], s[3][l] = s3[l];
}

/* C's rows i on, columns j on; `from`: the sums start from what C holds. */
static void moec_panel_store(const moec_gemm *g, int64_t i, int64_t j, int64_t k0, int64_t depth, int from, const float *p) {
    enum { COLS = MOEC_PANEL_COLS };
    const int64_t rows = g->m - i < MOEC_PANEL_ROWS ? g->m - i : MOEC_PANEL_ROWS, cols = g->n - j < COLS ? g->n - j : COLS;
    const int64_t ai = g->ta ? 1 : g->lda, ak = g->ta ? g->lda : 1;
    int64_t row[MOEC_PANEL_ROWS];
    float s[MOEC_PANEL_ROWS][COLS], *c = g->c + i * g->ldc + j;
    for (int64_t r = 0; r < MOEC_PANEL_ROWS; r++) row[r] = (r < rows ? r : 0) * ai; /* rows that are none repeat the first */
    memset(s, 0, sizeof s);
    for (int64_t r = 0; r < rows && from; r++)
        for (int64_t l = 0; l < cols; l++) s[r][l] = c[r * g->ldc + l];
    moec_panel_rows(g->a + i * ai + k0 * ak, row, ak, p, depth, s);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t l = 0; l < cols; l++) c[r * g->ldc + l] = s[r][l];
}

/* C (+)= A B by panels of B's columns; the order of additions along k never changes. */
static void moec_gemm_panels(const moec_gemm *g) {
    float p[MOEC_PANEL_DEPTH * MOEC_PANEL_COLS];
    for (int64_t j = 0; j < g->n; j += MOEC_PANEL_COLS)
        for (int64_t k0 = 0; k0 == 0 || k0 < g->k; k0 += MOEC_PANEL_DEPTH) {
            const int64_t depth = g->k - k0 < MOEC_PANEL_DEPTH ? g->k - k0 : MOEC_PANEL_DEPTH;
            moec_panel_pack(g, j, k0, depth, p);
            for (int64_t i = 0; i < g->m; i += MOEC_PANEL_ROWS) moec_panel_store(g, i, j, k0, depth, g->add || k0 > 0, p);
        }
}

static void moec_gemm_plain(const moec_gemm *g) {
    if (g->m <= MOEC_FEW_ROWS) moec_gemm_rows(g);
    else moec_gemm_panels(g);
}

static void moec_gemm_run(const moec_gemm *g) {
#ifdef MOEC_MATMUL_OPENBLAS
    if (g->m <= MOEC_FEW_ROWS && !g->ta && g->n * g->k >= MOEC_SMALL_MATMUL) {
        for (int64_t i = 0; i < g->m; i++)
            cblas_sgemv(101, g->tb ? 111 : 112, (int)(g->tb ? g->n : g->k), (int)(g->tb ? g->k : g->n), 1.0f, g->b,
                        (int)g->ldb, g->a + i * g->lda, 1, g->add ? 1.0f : 0.0f, g->c + i * g->ldc, 1);
        return;
    }
    if (g->m > 0 && g->n > 0 && g->k > 0 && g->n * g->k >= MOEC_SMALL_MATMUL) {
        cblas_sgemm(101, g->ta ? 112 : 111, g->tb ? 112 : 111, (int)g->m, (int)g->n, (int)g->k, 1.0f, g->a, (int)g->lda,
                    g->b, (int)g->ldb, g->add ? 1.0f : 0.0f, g->c, (int)g->ldc);
        return;
    }
#endif
    moec_gemm_plain(g);
}

/* How a product that has the pool to itself is split: by columns of C where there are many, else by rows where the work is
 * worth it. The shape alone decides, so results do not depend on the number of threads. */
enum { MOEC_GEMM_COLS = 256, MOEC_GEMM_ROWS = 16, MOEC_GEMM_PARTS = 16 };

static void moec_gemm_cols_task(void *arg, int64_t i, int worker) {
    moec_gemm g = *(const moec_gemm *)arg;
    const int64_t at = i * MOEC_GEMM_COLS;
    (void)worker;
    g.b += g.tb ? at * g.ldb : at;
    g.c += at;
    g.n = g.n - at < MOEC_GEMM_COLS ? g.n - at : MOEC_GEMM_COLS;
    moec_gemm_run(&g);
}

/* At most MOEC_GEMM_PARTS parts of some times MOEC_GEMM_ROWS rows. */
static int64_t moec_gemm_part(int64_t m) {
    const int64_t each = (m + MOEC_GEMM_PARTS - 1) / MOEC_GEMM_PARTS;
    return (each + MOEC_GEMM_ROWS - 1) / MOEC_GEMM_ROWS * MOEC_GEMM_ROWS;
}

static void moec_gemm_part_task(void *arg, int64_t i, int worker) {
    moec_gemm g = *(const moec_gemm *)arg;
    const int64_t each = moec_gemm_part(g.m), at = i * each;
    (void)worker;
    g.a += g.ta ? at : at * g.lda;
    g.c += at * g.ldc;
    g.m = g.m - at < each ? g.m - at : each;
    moec_gemm_run(&g);
}

/* C[m,n] (+)= A[m,k] B[k,n]; ta, tb: the stored array is the transpose. pool: NULL inside a parallel loop. */
static void moec_matmul(moec_pool *pool, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, int ta,
                        const float *b, int64_t ldb, int tb, float *c, int64_t ldc, int add) {
    moec_gemm g;
    g.m = m, g.n = n, g.k = k, g.lda = lda, g.ldb = ldb, g.ldc = ldc;
    g.a = a, g.b = b, g.c = c, g.ta = ta, g.tb = tb, g.add = add;
    if (pool && n > MOEC_GEMM_COLS && n * k >= 65536)
        moec_parallel(pool, (n + MOEC_GEMM_COLS - 1) / MOEC_GEMM_COLS, moec_gemm_cols_task, &g);
    else if (pool && m > MOEC_GEMM_ROWS && m * n * k >= 1 << 20)
        moec_parallel(pool, (m + moec_gemm_part(m) - 1) / moec_gemm_part(m), moec_gemm_part_task, &g);
    else
        moec_gemm_run(&g);
}

/* A unit that uses only part of this vocabulary compiles without warnings. */
static inline void moec_kernel_unused(void) { (void)moec_matmul; }

#endif
