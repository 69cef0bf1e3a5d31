/* Text IR of whole models: as `pipeline`, of other seeds and sizes. */
#include "fuzz.h"

void fuzz_seq2seq(const uint8_t *p, size_t n) {
    fuzz_pipeline(p, n);
}
