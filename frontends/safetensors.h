/* safetensors files: https://huggingface.co/docs/safetensors, the format word for word. */
#ifndef MOEC_SAFETENSORS_H
#define MOEC_SAFETENSORS_H

#include "../compiler/adapter.h"


typedef struct SafeFile {
    const char *file;
    AdapterTensor *tensor; /* in the header's order; data point into the mapping */
    uint32_t n;
    Str spec; /* metadata key moec_adapter; p is NULL without it */
    void *map;
} SafeFile;

/* Maps the file behind fd (of `size` bytes, closed by the caller) and checks everything but values: header
 * length, JSON without duplicates, dtypes, shapes against byte ranges, ranges that fill the data exactly. */
bool safetensors_map(Arena *a, int fd, int64_t size, const char *file, SafeFile *out, Diag *d);
void safetensors_unmap(SafeFile *f);

/* Writes f32 tensors and the spec as metadata key moec_adapter (where spec.p is NULL, key format "pt", as PyTorch's
 * libraries do), through a temporary name in the same directory. */
bool safetensors_write(const char *path, const AdapterTensor *tensor, uint32_t n, Str spec, Diag *d);

#endif
