/* What the files of `moec verify` share: one folder of reference results, one compiled model. */
#ifndef MOEC_VERIFY_H
#define MOEC_VERIFY_H

#include "native.h"

/* What formats of weights cost, over all cases: largest |difference| / |reference| and difference of logits, and difference of
 * losses, alone and relative; greedy tokens that differ, of all. */
typedef struct VerifyCost {
    double logits, logits_max, loss, loss_relative;
    int64_t tokens_wrong, tokens;
} VerifyCost;

typedef struct Verify {
    const Options *o;
    Native n;
    Diag *d;
    Arena *a; /* of one case */
    const char *dir;
    double tolerance, worst;
    int compared, failed, skipped;
    bool told; /* differences are told, not judged: weights are in a format, and nobody gave a tolerance */
    VerifyCost cost;
    int64_t *sym;
} Verify;

const char *verify_path(Verify *v, const char *key, const char *name); /* DIR/KEY.NAME.npy */
/* An array of the case; false when there is none. */
bool verify_array(Verify *v, const char *key, const char *name, Tensor *out);

typedef struct VerifySum {
    double diff, ref, max; /* of squares; largest difference */
    bool bad;              /* something is not finite */
} VerifySum;

void verify_add(VerifySum *s, double got, double want);
/* Prints a line and counts: |difference| / |reference| against the tolerance. */
void verify_report(Verify *v, const char *key, const char *what, const VerifySum *s);

typedef struct VerifyInput {
    const char *name;
    Tensor *t;
} VerifyInput;

/* Runs a function whose inputs are found by name; outputs in its order. */
bool verify_call(Verify *v, const char *function, const VerifyInput *given, size_t n, Tensor *out);
/* verify_packed.c: what the functions without padding make of a case, as the others lay it out; no data where the program has
 * none or a mask has holes. */
typedef struct VerifyCase {
    Tensor *ids, *mask, *targets, *labels; /* targets NULL: encoded alone */
} VerifyCase;
typedef struct VerifyPacked {
    Tensor hidden, logits, logprob;
} VerifyPacked;
bool verify_packed(Verify *v, const VerifyCase *c, VerifyPacked *out);
/* Sets the symbols; whether the model's bounds, or the constants of a static export, take these extents. */
bool verify_fits(Verify *v, const Tensor *ids, int64_t targets);

/* Keys of the folder's cases, sorted, those of training batches left out: at most MAX_CASES, in `a`. */
enum { MAX_CASES = 256 };
bool verify_keys(Verify *v, Arena *a, const char **key, int *n);

/* verify_nodes.c: --per-node, on the cases of v->dir or, where that is NULL, on seeded inputs. The exit code. */
int verify_nodes(Verify *v);

/* verify_derive.c: the encoder and decoder in front of `derive`, on seeded inputs; NULL where there are none. Behind it: whether
 * what was made of them gives the same, relative to the norm within the tolerance; reports what does not. *compared: how many
 * functions could be. */
typedef struct Derived Derived;
Derived *derived_before(const Module *m, const PassOptions *o);
bool derived_after(Derived *x, const Module *m, const PassOptions *o, double tolerance, uint32_t *compared, Diag *d);
void derived_free(Derived *x);

/* verify_train.c: gradients and training runs. */
bool verify_train(Verify *v);

#endif
