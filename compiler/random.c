/* Counter-based generators: hashes of seed and index, no state. */
#include "random.h"

/* A bijection of 32-bit words: Wellons' lowbias32. */
static uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= UINT32_C(0x7feb352d);
    x ^= x >> 15;
    x *= UINT32_C(0x846ca68b);
    x ^= x >> 16;
    return x;
}

float uniform_f32(int64_t seed, int64_t index) {
    uint64_t s = (uint64_t)seed, i = (uint64_t)index;
    uint32_t h = mix((uint32_t)i ^ (uint32_t)s);
    h = mix(h ^ (uint32_t)(s >> 32) ^ (uint32_t)(i >> 32));
    return (float)(h >> 8) * 0x1p-24f;
}

uint64_t random_draw(uint64_t key, uint64_t counter) {
    uint64_t z = key + (counter + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

int64_t split_seed_i64(int64_t seed, int64_t index) {
    return (int64_t)random_draw((uint64_t)seed, (uint64_t)index);
}
