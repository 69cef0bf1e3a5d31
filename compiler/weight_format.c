/* The formats of weights: the table of pack.h. */
#include "pack.h"

const WeightFormatInfo weight_formats[WEIGHT_FORMATS] = {
    [WEIGHT_F32] = {"f32", 0, 0, 0, 0},
    [WEIGHT_BF16] = {"bf16", 2, 0, 0, 0},
    [WEIGHT_INT8] = {"int8", 4, 64, 128, -127},
    [WEIGHT_INT4] = {"int4", 8, 32, 8, -8},
};

bool weight_format_parse(Str name, WeightFormat *out) {
    for (int i = 0; i < WEIGHT_FORMATS; i++)
        if (str_eq(name, str_c(weight_formats[i].name))) {
            *out = (WeightFormat)i;
            return true;
        }
    return false;
}

WeightFormat node_format(const Node *n) {
    const Attr *a = node_attr(n, AT_format);
    WeightFormat f = WEIGHT_F32;
    return a && weight_format_parse(a->s, &f) ? f : WEIGHT_F32;
}
