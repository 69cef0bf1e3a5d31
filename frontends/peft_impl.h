/* What the files of the PEFT frontend share. */
#ifndef MOEC_PEFT_IMPL_H
#define MOEC_PEFT_IMPL_H

#include "json.h"
#include "../compiler/namemap.h"
#include "peft.h"
#include "regexp.h"

#define PEFT_CONFIG  "adapter_config.json"
#define PEFT_WEIGHTS "adapter_model.safetensors"

/* ---- names (peft_names.c) ---- */

typedef enum PeftFfn { PF_UNKNOWN, PF_PLAIN, PF_GATED } PeftFfn; /* wi, or wi_0 and wi_1 */

/* A site, or a linear, of any T5. */
typedef struct PeftPlace {
    uint16_t layer;
    uint8_t stack, block; /* encoder, decoder; self, cross, ffn */
    SiteRole role;
} PeftPlace;

enum { PEFT_BLOCKS = 3 };

/* "encoder.block.0.layer.0.SelfAttention.q" as PEFT and the library name it; *ffn is what the name says of
 * the block. */
bool peft_module_parse(Str module, PeftPlace *out, PeftFfn *ffn);
const char *peft_module_name(Arena *a, const PeftPlace *p, PeftFfn ffn);
/* The last part of a module's name: q, wi_0, ... */
const char *peft_linear_name(SiteRole role, PeftFfn ffn);
/* "encoder.0.self.q" */
bool peft_site_parse(Str site, PeftPlace *out);
const char *peft_site_name(Arena *a, const PeftPlace *p);
const char *peft_stack_name(const PeftPlace *p);
const char *peft_block_name(const PeftPlace *p);
/* A total order: stacks, layers, blocks, roles. */
int peft_place_order(const PeftPlace *x, const PeftPlace *y);

/* ---- config (peft_config.c) ---- */

typedef enum PeftType { PT_LORA, PT_IA3 } PeftType;

/* An entry of rank_pattern or alpha_pattern. */
typedef struct PeftPattern {
    Regexp *expr;
    double value;
} PeftPattern;

/* The modules that a list of names or one expression means. */
typedef struct PeftTargets {
    bool given, all; /* all: whatever there is, or an expression that is not understood */
    Regexp *expr;
    NameMap names;
} PeftTargets;

typedef struct PeftConfig {
    const char *file;
    PeftType type;
    int64_t rank;
    double alpha;
    bool rslora;
    PeftPattern *rank_pattern, *alpha_pattern;
    uint32_t n_ranks, n_alphas;
    PeftTargets targets, feedforward;
    int64_t steps; /* what may still be spent on matching */
} PeftConfig;

/* Every key is one that is understood, or that says nothing of what the tensors mean, or empty. */
bool peft_config_read(Arena *a, const char *dir, PeftConfig *out, Diag *d);
void peft_config_free(PeftConfig *c);
/* Rank and the numerator of the scale (rslora included: alpha sqrt(r)) of a module. */
int64_t peft_config_rank(PeftConfig *c, Str module);
double peft_config_alpha(PeftConfig *c, Str module, int64_t rank);
/* Whether a list of names (the last parts of a module, or all) or an expression has the module. */
bool peft_targets_have(PeftConfig *c, const PeftTargets *t, Str module);

/* ---- tables ---- */

void peft_table_add(PeftTable *t, const char *from, const char *to, const char *shape, const char *note);
/* "[4,64]" */
const char *peft_shape(Arena *a, int rank, const int64_t *dim);

#endif
