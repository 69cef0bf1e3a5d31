/* How far two tensors are from each other. */
#ifndef MOEC_COMPARE_H
#define MOEC_COMPARE_H

#include "tensor.h"

typedef struct Departure {
    double relative; /* |got - want| / |want|, norms over the tensor; INFINITY where integers differ, or one
                        is finite and the other not, or types or extents are not the same */
    int64_t at;      /* the element that is furthest off, -1 when all are equal or there is none to compare */
    double got, want; /* that element's */
} Departure;

/* `least`: the root mean square that `want` is taken to have at least, as sums that cancel are exact to their
 * terms; where both are 0, `relative` is |got - want|. Equal elements that stand for a mask (1e30 and more,
 * infinities, NaN) are left out of the norms. */
Departure tensors_depart(const Tensor *got, const Tensor *want, double least);
/* Root mean square without what stands for a mask; 0 of what is no float. */
double tensor_rms(const Tensor *t);

#endif
