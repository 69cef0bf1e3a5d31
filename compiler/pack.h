/* Weights in panels: a matrix [K,N] is stored as [P,K,width], P = ceil(N / width), zeros behind the last column, so that a
 * product reads a panel of columns from end to end.
 *
 * In a format other than f32 a panel's rows are i32 words, each of as many weights that follow each other along K as it has
 * room for: [P,ceil(K / per_word),width]. What stands in a word, the lowest bits first:
 *
 *     bf16   two upper halves of f32
 *     int8   four bytes b, each the weight (b - 128) s
 *     int4   four bytes, b of its weights 0..3 in their lower halves and of 4..7 in the upper ones: (b - 8) s
 *
 * s is a scale of the weight's column and of a block of K, f32[P,ceil(K / block),width], a parameter of its own. */
#ifndef MOEC_PACK_H
#define MOEC_PACK_H

#include "ir.h"

typedef enum WeightFormat { WEIGHT_F32, WEIGHT_BF16, WEIGHT_INT8, WEIGHT_INT4, WEIGHT_FORMATS } WeightFormat;

typedef struct WeightFormatInfo {
    const char *name;
    int per_word; /* weights; 0: they are f32 */
    int block;    /* weights along K that share a scale; 0: there are none */
    int zero;     /* the number that means 0 */
    int lowest;   /* number less `zero` of the largest magnitude */
} WeightFormatInfo;

extern const WeightFormatInfo weight_formats[WEIGHT_FORMATS];
bool weight_format_parse(Str name, WeightFormat *out);
/* Of a `pack`, `pack_scales`, `unpack` or `quantize`: its attribute `format`; f32 without. */
WeightFormat node_format(const Node *n);

/* Columns of a panel: a cache line of f32, or two where there are as many columns. */
enum { PANEL_NARROW = 16, PANEL_COLUMNS = 32 };

#endif
