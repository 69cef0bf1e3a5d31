/* What a Hugging Face config.json says of a T5, without its weights. */
#ifndef MOEC_CONFIG_H
#define MOEC_CONFIG_H

#include "../compiler/adapter.h"

typedef struct T5Config {
    const char *file;
    int64_t d_model, d_ff, d_kv, heads, enc_layers, dec_layers, vocab;
    int64_t buckets, max_distance;
    int64_t pad, eos, start; /* token ids; -1: the file has none */
    double eps;
    bool gated; /* wi_0 and wi_1 */
    bool tied;  /* lm_head is the embedding */
    Str act;    /* relu, gelu_new, ... */
} T5Config;

/* Reads `path`; every size is checked, absent ones get T5Config's defaults where the library has any that are
 * not the model's very shape. */
bool config_load(Arena *a, const char *path, T5Config *out, Diag *d);

/* Parameters of the base model, shared tensors once: embedding, attention, feed-forward, norms, relative
 * bias, head. */
int64_t config_base_count(const T5Config *c);

/* The sites of such a model in order of layers; returns how many. */
uint32_t config_sites(const T5Config *c, Arena *a, ModelSite **out);

#endif
