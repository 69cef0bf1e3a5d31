/* Numbers made from a counter: the same seed and index give the same number anywhere, in any order. */
#ifndef MOEC_RANDOM_H
#define MOEC_RANDOM_H

#include <stdint.h>

/* A multiple of 2^-24 in [0, 1). moec_uniform_f32 of the runtime gives the same bits. */
float uniform_f32(int64_t seed, int64_t index);
/* The index-th seed made from `seed`; moec_split_seed_i64 of the runtime gives the same. */
int64_t split_seed_i64(int64_t seed, int64_t index);
/* SplitMix64's finaliser (Steele, Lea, Flood 2014) as a function of key and counter. */
uint64_t random_draw(uint64_t key, uint64_t counter);

#endif
