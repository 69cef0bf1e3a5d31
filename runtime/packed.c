/* Batches of rows of different lengths as functions without padding take them: the tokens of all rows one behind the other,
 * and for each row the span of its own. */
#include "internal.h"

int moec_packs(const moec_program *p) {
    const moec_seq2seq *q = p->seq2seq;
    return q && q->tokens >= 0 && q->encode_packed >= 0 && q->cross_packed >= 0 && q->step_packed >= 0 &&
           q->score_packed >= 0;
}

/* Ones in front of zeros; 0: it is anything else, or has no ones. */
static int64_t length_of(const int64_t *mask, int64_t length) {
    int64_t n = 0;
    while (n < length && mask[n] == 1)
        n++;
    for (int64_t i = n; i < length; i++)
        if (mask[i] != 0)
            return 0;
    return n;
}

int64_t moec_pack(int64_t rows, int64_t length, const int64_t *ids, const int64_t *mask, int64_t *packed, int64_t *spans) {
    int64_t at = 0;
    for (int64_t i = 0; i < rows; i++) {
        int64_t n = length_of(mask + i * length, length);
        if (n == 0)
            return 0;
        spans[2 * i] = at;
        for (int64_t k = 0; k < n; k++)
            packed[at++] = ids[i * length + k];
        spans[2 * i + 1] = at;
    }
    return at;
}
