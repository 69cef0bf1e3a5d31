/* Longest common subsequence of two sequences of numbers: what a diff keeps. */
#ifndef MOEC_LCS_H
#define MOEC_LCS_H

#include "base.h"

/* match[i] (n entries): the index in b that a[i] is paired with, or UINT32_MAX; ascending where set, equal
 * numbers only. The most pairs there can be, unless the sequences differ in more than LCS_MOST places: then
 * what stands between the common head and tail may be left unpaired. */
enum { LCS_MOST = 1 << 13 };
void lcs_match(const uint32_t *a, uint32_t n, const uint32_t *b, uint32_t m, uint32_t *match);

#endif
