/* Adapters as plain data: what a spec asks for, the sites of a model, and what sits on which.
 *
 *   AdapterSpec   what the user wrote, checked for itself; filled by frontends/spec.c
 *   ModelSite     a place of the model an adapter can sit on, with its widths
 *   AdapterPlan   the two brought together: one AdapterSite for each adapted site, in the model's order
 *
 * Methods, sites, tensor shapes and initial values are those of arXiv 2309.05444 and its released code:
 * E experts, r rank, h heads of width D, d the width of a site's input. */
#ifndef MOEC_ADAPTER_H
#define MOEC_ADAPTER_H

#include "ir.h"

/* AM_FULL trains the base itself: it sits on no site and has no tensors of its own. */
typedef enum AdapterMethod { AM_IA3, AM_LORA, AM_MOV, AM_MOLORA, AM_FULL, AM_COUNT } AdapterMethod;

/* Where on a layer: the linears q k v o wi wi_1 wo, and `act`, the output of the activation. */
typedef enum SiteRole { SR_Q, SR_K, SR_V, SR_O, SR_WI, SR_WI_1, SR_WO, SR_ACT, SR_COUNT } SiteRole;

typedef enum RouterInput {
    RI_SITE,    /* the site's output for mov, its input for molora: as the released code */
    RI_INPUT,   /* the linear's input, one p a token */
    RI_SENTENCE /* one external vector an example */
} RouterInput;

/* p = softmax((u.R + b) / temperature) over all experts, then the selection. */
typedef struct RouterOptions {
    RouterInput input;
    int64_t top_k;    /* 0: soft merging */
    bool renormalise; /* softmax over the kept logits instead of p * mask */
    bool bias;
    double temperature;
    double jitter, balance_loss, z_loss; /* training only */
    int64_t sentence_dim;                /* 0 unless input is RI_SENTENCE */
} RouterOptions;

/* One entry of "sites", or the whole of a spec without them (then pattern is empty). */
typedef struct AdapterRule {
    Str pattern;
    AdapterMethod method;
    int64_t experts, rank; /* 0 where the method has none */
    double alpha;
    RouterOptions router;
    uint32_t line; /* where it stands in the spec file; 0: unknown */
} AdapterRule;

/* A tensor somebody loaded; `data` holds little-endian values, at any alignment, and is borrowed. */
typedef enum FloatKind { FK_NONE, FK_F32, FK_F16, FK_BF16, FK_F64 } FloatKind;
typedef struct AdapterTensor {
    Str name;
    Str dtype;      /* as the file spells it */
    FloatKind kind; /* FK_NONE: not of a type an adapter can have */
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    const void *data;
} AdapterTensor;

typedef struct AdapterSpec {
    const char *file; /* for diagnostics */
    AdapterRule *rule;
    uint32_t n_rules;
    bool has_sites;
    bool train_experts, train_router;
    Str weights; /* the key's text, empty without it */
    Str json;    /* canonical: sorted keys, no blanks, without "weights" */
    bool loaded; /* tensors below are the values; else they are drawn from a seed */
    const char *tensor_file;
    AdapterTensor *tensor;
    uint32_t n_tensors;
    bool flat_heads; /* [h*kv] values may stand for [h,kv]: their file does not know the heads */
    int gated;       /* linears the tensors were made for: 1 wi_0 and wi_1, -1 wi, 0 either */
    void *map; /* the tensor file, mapped; frontends/spec.c unmaps it */
} AdapterSpec;

typedef struct ModelSite {
    Str name; /* encoder.0.self.k */
    SiteRole role;
    int64_t d_in;  /* width of the linear's input; for `act` that of wi */
    int64_t d_out; /* width of the value the adapter changes */
    int64_t heads; /* of q, k, v; 0 elsewhere */
} ModelSite;

typedef struct AdapterSite {
    const ModelSite *at;
    const AdapterRule *rule;
} AdapterSite;

typedef struct AdapterPlan {
    AdapterSite *site;
    uint32_t n_sites;
    int64_t sentence_dim; /* 0: nothing reads a sentence vector */
} AdapterPlan;

typedef enum TensorRole { TR_SCALE, TR_LORA_A, TR_LORA_B, TR_ROUTER, TR_ROUTER_BIAS, TR_COUNT } TensorRole;

/* One tensor of one adapted site: `<site>.<suffix>`. */
typedef struct SiteTensor {
    TensorRole role;
    int rank;
    int64_t dim[4];
    int64_t count;
} SiteTensor;

const char *adapter_method_name(AdapterMethod m);
const char *adapter_tensor_suffix(TensorRole r);
const char *site_role_name(SiteRole r);
bool site_role_parse(Str s, SiteRole *out);
/* Whether method m can sit on r at all. */
bool adapter_method_sits(AdapterMethod m, SiteRole r);
bool adapter_method_routed(AdapterMethod m); /* mov, molora */
bool adapter_method_ranked(AdapterMethod m); /* lora, molora */

/* Matches every rule against every site; the first rule that matches has it. A rule that sees no site, a site
 * too narrow for the rank, sentence widths that differ: reported, false. */
bool adapter_resolve(const AdapterSpec *spec, const ModelSite *sites, uint32_t n, Arena *a, AdapterPlan *out,
                     Diag *d);

/* The tensors of an adapted site, in the order of TensorRole; returns how many. Sizes have been checked. */
uint32_t adapter_site_tensors(const AdapterSite *s, SiteTensor out[TR_COUNT]);
/* Width of what the site's router reads; 0 without a router. */
int64_t adapter_router_width(const AdapterSite *s);
/* Parameters of a site; `trained`: only what the spec lets move. */
int64_t adapter_site_count(const AdapterSpec *spec, const AdapterSite *s, bool trained);

/* Whether the spec asks for method full. */
bool adapter_is_full(const AdapterSpec *spec);
/* A loaded tensor becomes the data of an f32 parameter of the same shape, which borrows them where it can (the file
 * stays mapped); false after reporting. */
bool param_take(Param *p, const AdapterTensor *t, const char *file, Arena *a, Diag *d);

/* Initial value number i of tensor `name`, whatever was drawn before: ones, zeros, or normal(0, 0.02). */
void adapter_init(uint64_t seed, Str name, TensorRole role, float *data, int64_t count);

/* `count` values of a tensor of any float kind, in `a`. */
float *adapter_tensor_floats(const AdapterTensor *t, int64_t count, Arena *a);

/* The values of every tensor of the plan, in the order of sites and adapter_site_tensors; arrays in `a`. From
 * the spec's loaded tensors, each of which must be used, or drawn from `seed`. */
bool adapter_values(const AdapterSpec *spec, const AdapterPlan *plan, uint64_t seed, Arena *a,
                    const float ***out, Diag *d);

#endif
