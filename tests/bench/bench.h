/* What the parts of the bench share: the machine's limits, rounds of measuring, compiled models and their
 * work. */
#ifndef MOEC_BENCH_H
#define MOEC_BENCH_H

#include "../../frontends/config.h"
#include "../../runtime/moec_rt.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_THREADS = 256, MAX_MODELS = 24, MAX_ITEMS = 16, MIB = 1 << 20 };

/* Ends the program with a line on standard error. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Zeroed, never NULL. */
void *bench_room(size_t count, size_t size);
void bench_check(moec_status s, const char *what);

/* ---- time ------------------------------------------------------------------------------------------- */

/* Seconds of the wall clock, of all processors in this process, and those its threads were ready to run and
 * had none, because others had them; 0 where the system does not tell. */
typedef struct Spent {
    double wall, cpu, lost;
} Spent;

Spent spent_now(void);
Spent spent_since(Spent start);
Spent spent_each(Spent s, double n); /* of n pieces of work */

/* ---- what is asked for -----------------------------------------------------------------------------------
 */

/* BATCHxLENGTH or BATCHx~LENGTH; BATCH; BATCHxSOURCE/TARGET */
typedef struct Item {
    int64_t batch, length, target;
    bool mixed; /* lengths up to it */
} Item;

typedef struct Items {
    Item item[MAX_ITEMS];
    int n;
} Items;

typedef struct Options {
    const char *config_file, *dir, *coretypes;
    T5Config config;
    int64_t threads, rounds, patience, read_mib; /* read_mib 0: by the caches */
    int64_t source, steps, dropout; /* of decode: tokens the encoder read, tokens made; per cent */
    Items encode, decode, train, rows;
    int64_t shares; /* SharesKind */
    char **model;   /* NAME=PATH */
    int n_models;
} Options;

/* ---- limits.c: what the machine can do ------------------------------------------------------------------
 */

typedef enum LimitKind { LIMIT_FMA, LIMIT_READ, LIMIT_KINDS } LimitKind;

typedef struct Machine {
    int threads; /* that models run with */
    const char *vectors;
    int patience;     /* attempts more where others have the machine */
    const char *data; /* read for the bandwidth, `bytes` of it, in slices */
    size_t bytes, slice, at;
} Machine;

void machine_open(Machine *m, const Options *o);
/* Operations or bytes a second of the wall clock, and of all processors' time. */
typedef struct Rate {
    double wall, cpu;
    bool calm; /* nobody else had the processors */
} Rate;

/* The best of some attempts of some hundredths of a second, of more where none was calm. */
Rate machine_limit(Machine *m, LimitKind kind, int threads);
Rate rate_better(Rate a, Rate b);
void machine_print(Machine *m);

const char *limit_unit(LimitKind kind); /* of 1e9 a second */

/* ---- rounds.c: variants take turns ------------------------------------------------------------------------
 */

/* One variant at one piece of work. `once` does it and says what it took; `amount` is in operations or bytes.
 */
typedef struct Run {
    const char *variant;
    int against; /* the run whose time this one's is compared with; -1: none */
    double amount;
    Spent (*once)(void *context);
    void *context;
} Run;

typedef struct Result {
    int calm;   /* rounds in which nobody else had the machine: if there are any, only these count */
    Spent best; /* the run that took least of the wall clock */
    Rate limit; /* the best beside this run */
    /* Medians over the rounds: rate by the limit beside it, by the clock and by the processors' time; time by
     * that of the run it is compared with. */
    double ratio, ratio_cpu, slower, slower_cpu;
    double slower_best; /* least time by least */
} Result;

/* Once each unmeasured, then `rounds` times in turn, the limit measured in between; again where others had
 * the machine. */
void rounds_measure(Machine *m, LimitKind kind, int rounds, const Run *run, int n, Result *out);
void rounds_head(void);
/* A row of one measurement, without a round. */
void rounds_line(LimitKind kind, const char *work, const char *variant, double seconds, double amount,
                 double limit);
void rounds_print(const Machine *m, LimitKind kind, const char *work, const Run *run, int n, const Result *r);

/* ---- model.c: compiled models
 * -------------------------------------------------------------------------------- */

typedef struct Model {
    const char *name; /* ADAPTER/BACKEND, with /FORMAT and /MATMUL where several were asked for */
    int against;      /* the model it is compared with; -1: none */
    double read_by_step; /* bytes of weights that a decoded token reads; 0: not known */
    void *library;
    const moec_program *program;
    moec_instance *instance;
    moec_status (*run)(moec_instance *, uint32_t, const int64_t *, void *const *);
    moec_status (*profile_start)(moec_instance *);
    void (*profile_stop)(moec_instance *);
    moec_status (*profile_read)(const moec_instance *, uint32_t, moec_profile_row *);
    uint32_t (*profile_rows)(const moec_program *);
} Model;

/* Function of the library by name; ends the program when it lacks it. */
void *model_find(const Model *m, const char *name);
/* NAME=PATH for each model of the options: PATH.so and PATH.weights, and PATH.read, where it decodes. */
void models_open(Model *m, const Options *o);
/* Values for the symbols of the program: lower bounds. */
int64_t *model_symbols(const Model *m);
/* symbol -1: an extent the model was compiled for alone. */
void model_symbol_set(const Model *m, int64_t *sym, int symbol, int64_t value, const char *what);
/* Bytes of a weight of the format in the name, its part of a scale included; 4 where it says nothing. */
double model_weight_bytes(const Model *m);

/* ---- work.c: what a T5 has to do, from its configuration
 * ------------------------------------------------------- */

double work_encode(const T5Config *c, double length);       /* operations of one sequence */
double work_forward(const T5Config *c, double s, double t); /* of one example in training */
double work_backward(const T5Config *c, double s, double t);

typedef struct Product {
    const char *name;
    int64_t k, n; /* x [M,K] by w [K,N] */
} Product;

enum { PRODUCTS = 6 };

void work_products(const T5Config *c, Product p[PRODUCTS]);

/* ---- shares.c: time by kernel
 * ------------------------------------------------------------------------------------ */

typedef enum SharesKind { SHARES_NONE, SHARES_GROUPS, SHARES_KERNELS } SharesKind;

typedef struct Profile Profile;

/* Does the run once more, and keeps what the kernels of `function` took; ends the program when it takes no
 * profile. */
Profile *profile_open(const Model *m, const Run *run, const char *function);
void profile_close(Profile *p);
void profile_print(const Profile *p, LimitKind kind, double limit, SharesKind shares);
/* Of training: parts of the time of the forward pass, which ends with the loss, and of the backward pass. */
void profile_passes(const Profile *p, double part[2]);

/* ---- commands
 * ---------------------------------------------------------------------------------------------------- */

int infer_main(const Options *o);
int train_main(const Options *o);
int products_main(const Options *o);
int products_write(const Options *o); /* DIR/products.ir and .safetensors */
int sgemm_serve(void);

#endif
