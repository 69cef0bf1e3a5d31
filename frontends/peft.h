/* Adapters of the PEFT library, in and out: adapter_config.json and adapter_model.safetensors of LoRA and IA3
 * on a T5. */
#ifndef MOEC_PEFT_H
#define MOEC_PEFT_H

#include "config.h"

/* What became of one tensor, for the table that accounts for all of them. */
typedef struct PeftRow {
    const char *from, *to; /* printable names; from is "" for what is made here, to "" for what is left out */
    const char *shape;     /* of `from`, and of `to` where it differs */
    const char *note;      /* "" when nothing else was done */
} PeftRow;

typedef struct PeftTable {
    PeftRow *row;
    size_t n, room; /* freed with peft_table_free */
} PeftTable;

void peft_table_free(PeftTable *t);
void peft_table_print(const PeftTable *t, Text *out);

/* What an import is asked for beside its directories. */
typedef struct PeftImport {
    const T5Config *config; /* NULL: unknown; then what needs a number of heads is refused unless `flat` */
    bool flat;              /* leave k and v vectors [h*kv]: the spec's field `peft` tells */
    uint64_t seed;          /* of routers */
} PeftImport;

/* Reads directories as PEFT's save_pretrained leaves them: one becomes plain lora or ia3; several of equal
 * type, sites and ranks the experts of molora or mov, with fresh routers [d_in,E] (mov's k and v: [kv,E]).
 * Tensors become f32 in the layout of adapter_site_tensors: lora_A (r,in) -> [in,r], lora_B (out,r) ->
 * [r,out], ia3_l -> [h,kv] or [f]. The scale alpha / r (alpha / sqrt(r) with rslora) is the spec's alpha /
 * rank; where an expert's differs from the first's the quotient is folded into its B. Symbolic links are
 * followed: a hub's cache is made of them. The spec's tensors are its values and live in `a`. NULL after
 * reporting; every tensor that has no place is reported. `table` may be NULL. */
AdapterSpec *peft_import(Arena *a, const char *const *dir, uint32_t n, const PeftImport *how,
                         PeftTable *table, Diag *d);

/* A loaded adapter as PEFT directories. Routers are left out, which is a warning. `c` may be NULL: then the sites are those of
 * the tensors, and `wi` is refused (its module's name needs the model). NULL after reporting; lives in `a`. */
typedef struct PeftExport PeftExport;
PeftExport *peft_export_plan(Arena *a, const AdapterSpec *spec, const T5Config *c, PeftTable *table, Diag *d);
/* Writes it as the new directory `out` (or an empty one): adapter_config.json and adapter_model.safetensors there, or with E > 1
 * experts in out/expert_0 .. out/expert_<E-1>. Nothing appears until everything is written. */
bool peft_export_write(const PeftExport *x, const char *out);

#endif
