/* Element types, host tensors, and the scalar arithmetic both the interpreter and folding use. */
#ifndef MOEC_TENSOR_H
#define MOEC_TENSOR_H

#include "base.h"

/* name in text, bytes per element, C type in generated code */
#define DTYPES(X)              \
    X(BOOL, "bool", 1, uint8_t) \
    X(U8, "u8", 1, uint8_t)     \
    X(I8, "i8", 1, int8_t)      \
    X(U16, "u16", 2, uint16_t)  \
    X(I16, "i16", 2, int16_t)   \
    X(I32, "i32", 4, int32_t)   \
    X(I64, "i64", 8, int64_t)   \
    X(F16, "f16", 2, uint16_t)  \
    X(F32, "f32", 4, float)     \
    X(F64, "f64", 8, double)

typedef enum DType {
#define X(id, text, bytes, ctype) DT_##id,
    DTYPES(X)
#undef X
        DT_COUNT
} DType;

size_t dtype_bytes(DType t);
const char *dtype_name(DType t);
bool dtype_is_float(DType t);
bool dtype_parse(Str s, DType *out);

/* A dense row-major array with concrete extents. `data` is borrowed or lives in some arena: whoever
 * made the tensor says. Element count and bytes have been checked against MOEC_MAX_TENSOR. */
typedef struct Tensor {
    DType dtype;
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    void *data;
} Tensor;

bool tensor_count(const Tensor *t, int64_t *count); /* false when out of limits */
bool tensor_bytes(const Tensor *t, size_t *bytes);
/* Zeroed data of the tensor's type and extents in `a`; false when out of limits. */
bool tensor_alloc(Arena *a, Tensor *t);

/* Element access with conversion. Floats to integers truncate toward zero, saturate, NaN gives 0.
 * f16 rounds to nearest even. f32 values are exact in double; i64 goes through its own pair. */
double tensor_get_f64(const Tensor *t, int64_t i);
int64_t tensor_get_i64(const Tensor *t, int64_t i);
void tensor_set_f64(Tensor *t, int64_t i, double v);
void tensor_set_i64(Tensor *t, int64_t i, int64_t v);

uint16_t f16_from_f32(float f);
float f16_to_f32(uint16_t h);

#endif
