/* From a planned module to the sources of a compiled model.
 *
 *   image    which parameters go where: the weights file, the adapter block, what `prepare` derives
 *   program  kernels, entry functions, tables of moec_rt.h: data that a printer turns into text or an object (program.h) */
#ifndef MOEC_CODEGEN_H
#define MOEC_CODEGEN_H

#include "../compiler/ir.h"
#include "../compiler/outfile.h"

typedef struct CodegenOptions {
    const char *prefix;      /* of every global symbol; [A-Za-z_][A-Za-z0-9_]* */
    bool plain_matmul;       /* no BLAS */
    bool plain_c;            /* no vectors of the C compiler's */
    bool embed_weights;      /* the object carries the weights file */
    int64_t tile_rows;       /* rows of a tile, 0: the default */
    uint64_t parameters, trainable; /* for reports */
    bool dispatch;           /* the text can be compiled as one of several variants */
    bool profile;            /* functions measure their kernels */
    const char *ir_file;     /* the name under which the driver writes Program.ir, for debuggers; NULL: nobody asks */
} CodegenOptions;

typedef enum SlotWhere { SLOT_UNUSED, SLOT_WEIGHTS, SLOT_ADAPTER, SLOT_DERIVED } SlotWhere;

typedef struct Slot {
    SlotWhere where;
    uint64_t offset, bytes;
} Slot;

typedef struct Image {
    Module *m;
    const char *name; /* of the program, for the weights file: whose it is */
    Slot *slot; /* by ParamId */
    ParamId *weight, *adapter, *derived; /* in the order of their offsets */
    uint32_t n_weights, n_adapters, n_derived;
    uint64_t weights_bytes, adapter_init, adapter_bytes, derived_bytes;
    uint64_t hash; /* of the weights file, set by image_write */
    int64_t scratch_bytes; /* a thread's, set by program_lower */
} Image;

/* Assigns slots to every parameter that entry functions or derived parameters use. */
bool image_plan(Module *m, const char *name, Arena *a, Image *out, Diag *d);
/* Writes the weights file into o, parameter by parameter, calling `progress` (may be NULL) with bytes done and total. */
bool image_write(Image *im, OutFile *o, void (*progress)(void *ctx, uint64_t done, uint64_t total), void *ctx, Diag *d);

#endif
