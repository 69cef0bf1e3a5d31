/* NumPy's .npy files (format versions 1 to 3): C order, little-endian, the element types of tensor.h. */
#ifndef MOEC_NPY_H
#define MOEC_NPY_H

#include "../compiler/outfile.h"
#include "../compiler/tensor.h"

/* Data live in `a`. The file's size has to be exactly what its header promises. */
bool npy_read(const char *path, Arena *a, Tensor *out, Diag *d);
/* Written but for outfile_commit; false after reporting and abandoning. */
bool npy_open(OutFile *o, const char *path, const Tensor *t, Arena *a, Diag *d);
/* The file appears whole or not at all. */
bool npy_write(const char *path, const Tensor *t, Diag *d);

#endif
