/* Element types and access to single elements of host tensors, with the IR's rules for conversion. */
#include "tensor.h"

#include <math.h>
#include <string.h>

typedef struct DTypeInfo {
    const char *name;
    size_t bytes;
} DTypeInfo;

static const DTypeInfo infos[DT_COUNT] = {
#define X(id, text, bytes, ctype) {text, bytes},
    DTYPES(X)
#undef X
};

size_t dtype_bytes(DType t) {
    return infos[t].bytes;
}

const char *dtype_name(DType t) {
    return infos[t].name;
}

bool dtype_is_float(DType t) {
    return t == DT_F16 || t == DT_F32 || t == DT_F64;
}

bool dtype_parse(Str s, DType *out) {
    for (int t = 0; t < DT_COUNT; t++)
        if (str_is(s, infos[t].name)) {
            *out = (DType)t;
            return true;
        }
    return false;
}

bool tensor_count(const Tensor *t, int64_t *count) {
    int64_t n = 1;
    bool empty = false;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 0 || t->dim[i] >= MOEC_MAX_TENSOR)
            return false;
        if (t->dim[i] == 0)
            empty = true;
        else if (!mul_i64(n, t->dim[i], &n) || n >= MOEC_MAX_TENSOR)
            return false;
    }
    *count = empty ? 0 : n;
    return true;
}

bool tensor_bytes(const Tensor *t, size_t *bytes) {
    int64_t n;
    if (!tensor_count(t, &n) || !mul_i64(n, (int64_t)dtype_bytes(t->dtype), &n) || n >= MOEC_MAX_TENSOR)
        return false;
    *bytes = (size_t)n;
    return true;
}

bool tensor_alloc(Arena *a, Tensor *t) {
    size_t bytes;
    if (!tensor_bytes(t, &bytes))
        return false;
    t->data = arena_alloc(a, bytes ? bytes : 1);
    return true;
}

uint16_t f16_from_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (a < 0x38800000u) { /* below 2^-14: adding 1/2 leaves the rounded subnormal in the low bits */
        float t;
        memcpy(&t, &a, sizeof t);
        t += 0.5f;
        uint32_t b;
        memcpy(&b, &t, sizeof b);
        return (uint16_t)(sign | (b - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13));
}

float f16_to_f32(uint16_t h) {
    uint32_t e = (h >> 10) & 31u, m = h & 0x3ffu;
    float f;
    if (e == 31)
        f = m ? NAN : INFINITY;
    else
        f = e ? ldexpf((float)(m | 0x400u), (int)e - 25) : ldexpf((float)m, -24);
    return h & 0x8000u ? -f : f;
}

#define AT(type, i) (((type *)t->data)[i])

double tensor_get_f64(const Tensor *t, int64_t i) {
    switch (t->dtype) {
    case DT_BOOL:
    case DT_U8:
        return AT(uint8_t, i);
    case DT_I8:
        return AT(int8_t, i);
    case DT_U16:
        return AT(uint16_t, i);
    case DT_I16:
        return AT(int16_t, i);
    case DT_I32:
        return AT(int32_t, i);
    case DT_I64:
        return (double)AT(int64_t, i);
    case DT_F16:
        return f16_to_f32(AT(uint16_t, i));
    case DT_F32:
        return AT(float, i);
    case DT_F64:
        return AT(double, i);
    default:
        BUG("bad element type %d", t->dtype);
    }
}

static int64_t truncate_f64(double v) {
    if (isnan(v))
        return 0;
    if (v >= 9223372036854775808.0)
        return INT64_MAX;
    if (v <= -9223372036854775808.0)
        return INT64_MIN;
    return (int64_t)v;
}

int64_t tensor_get_i64(const Tensor *t, int64_t i) {
    if (t->dtype == DT_I64)
        return AT(int64_t, i);
    return truncate_f64(tensor_get_f64(t, i));
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

void tensor_set_f64(Tensor *t, int64_t i, double v) {
    switch (t->dtype) {
    case DT_BOOL:
        AT(uint8_t, i) = v != 0;
        break;
    case DT_U8:
        AT(uint8_t, i) = (uint8_t)clamp(truncate_f64(v), 0, UINT8_MAX);
        break;
    case DT_I8:
        AT(int8_t, i) = (int8_t)clamp(truncate_f64(v), INT8_MIN, INT8_MAX);
        break;
    case DT_U16:
        AT(uint16_t, i) = (uint16_t)clamp(truncate_f64(v), 0, UINT16_MAX);
        break;
    case DT_I16:
        AT(int16_t, i) = (int16_t)clamp(truncate_f64(v), INT16_MIN, INT16_MAX);
        break;
    case DT_I32:
        AT(int32_t, i) = (int32_t)clamp(truncate_f64(v), INT32_MIN, INT32_MAX);
        break;
    case DT_I64:
        AT(int64_t, i) = truncate_f64(v);
        break;
    case DT_F16:
        AT(uint16_t, i) = f16_from_f32((float)v);
        break;
    case DT_F32:
        AT(float, i) = (float)v;
        break;
    case DT_F64:
        AT(double, i) = v;
        break;
    default:
        BUG("bad element type %d", t->dtype);
    }
}

void tensor_set_i64(Tensor *t, int64_t i, int64_t v) {
    switch (t->dtype) {
    case DT_BOOL:
        AT(uint8_t, i) = v != 0;
        break;
    case DT_U8:
        AT(uint8_t, i) = (uint8_t)v;
        break;
    case DT_I8:
        AT(int8_t, i) = (int8_t)(uint8_t)v;
        break;
    case DT_U16:
        AT(uint16_t, i) = (uint16_t)v;
        break;
    case DT_I16:
        AT(int16_t, i) = (int16_t)(uint16_t)v;
        break;
    case DT_I32:
        AT(int32_t, i) = (int32_t)(uint32_t)v;
        break;
    case DT_I64:
        AT(int64_t, i) = v;
        break;
    default:
        tensor_set_f64(t, i, (double)v);
    }
}
