/* moec runtime: what a compiled model links, and how a program uses one.
 *
 * A compiled model is one constant, `const moec_program *PREFIX_program(void)`: tables that describe its functions
 * and pointers to the generated code. An instance joins a program with its weights, adapters, an arena
 * and a thread pool. The contract:
 *
 * - Instances are opaque. Every function that can fail returns a moec_status; none prints, exits, aborts or touches
 *   a standard stream. Text about a failure goes into the caller's buffer: one line, `FILE: error: why`, printable
 *   ASCII, always ended by a NUL, cut where the buffer ends. NULL where none is allowed gives MOEC_E_ARGUMENT.
 * - Memory: moec_open allocates everything (moec_open_bytes says how much), moec_close gives it back. In between
 *   nothing is allocated, but by moec_save_adapter while it writes and by the sizes marked so below. What is
 *   reserved takes memory only where it is touched. OpenBLAS, where the model was compiled for it, keeps buffers of
 *   its own, mapped at a thread's first product.
 * - Buffers: arguments, ids, tokens and paths are the caller's, before, during and after a call; the runtime keeps no
 *   pointer to them when a call has returned. They hold dense row-major arrays, aligned as their element type is in C,
 *   and must not overlap unless a value says it is stored in another.
 * - Threads: an instance serves one call at a time, from whichever thread; the caller sees to that. Instances are
 *   independent of each other, also those of one program, which may share its weights. Functions that take a
 *   program may run at any time. An instance's own threads block all signals and do not survive fork: open it in
 *   the process that uses it. Results do not depend on the number of threads.
 * - Versions: MOEC_ABI changes with every layout and meaning in this header and moec_train.h. moec_abi() is the number
 *   the runtime was built with: a program that loads a shared library compares them before anything else (moec_open
 *   does the same for program and weights file). Structures of options are for the caller to zero-initialise; new
 *   fields come at their ends, and 0 means what was done before there was the field: sources keep compiling.
 *
 * The first half is for users, the second half is what generated code and the runtime agree on. */
#ifndef MOEC_RT_H
#define MOEC_RT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOEC_ABI 5

int moec_abi(void); /* MOEC_ABI of the runtime that is linked or loaded */

typedef enum moec_status {
    MOEC_OK = 0,
    MOEC_E_ARGUMENT, /* a null pointer, an unknown function, name or adapter slot */
    MOEC_E_RANGE,    /* an extent outside the bounds the model was compiled for */
    MOEC_E_INDEX,    /* an index that is data (a token id) outside its table */
    MOEC_E_OPEN,     /* a file cannot be opened or is no regular file */
    MOEC_E_FORMAT,   /* a file is not what its name promises */
    MOEC_E_MISMATCH, /* a file belongs to another model, adapter shape or ABI */
    MOEC_E_MEMORY,
    MOEC_E_IO,
    MOEC_E_NUMERIC,  /* a loss or a gradient is infinite or no number */
    MOEC_E_STATUS_COUNT
} moec_status;

const char *moec_status_text(moec_status s); /* one lower-case line, never NULL */

typedef enum moec_dtype {
    MOEC_BOOL, MOEC_U8, MOEC_I8, MOEC_U16, MOEC_I16, MOEC_I32, MOEC_I64, MOEC_F16, MOEC_F32, MOEC_F64
} moec_dtype;

typedef struct moec_program moec_program;
typedef struct moec_instance moec_instance;

typedef struct moec_options {
    const char *weights; /* path of the weights file; NULL: the program's embedded weights */
    const char *adapter; /* safetensors to load over the compiled-in adapter, into slot 0; NULL: none */
    int threads;         /* 0: one a core */
    char *message;       /* where open explains a failure, message_room bytes; may be NULL */
    size_t message_room;
    int adapters;        /* slots: adapters held at a time, each its own tensors; 0: 1 */
    int map;             /* 1: the weights file is mapped, one copy for all processes, and must not change while it is:
                            one that is cut ends the process (SIGBUS). 0: it is read, and may do what it likes then */
    int check;           /* 1: the contents of the weights are hashed and compared, about a second a gigabyte */
    moec_instance *weights_of; /* an open instance of the same program, whose weights are used in place of a file; they last
                            as long as one instance has them. NULL: none */
} moec_options;

/* Reads and checks the weights, sizes the arena, starts the threads, loads and prepares the adapter; every slot starts
 * as the compiled-in one. o may be NULL: all fields 0. *out: NULL unless MOEC_OK. */
moec_status moec_open(const moec_program *p, const moec_options *o, moec_instance **out);
void moec_close(moec_instance *m); /* NULL: nothing */

/* Replaces the tensors of a slot (names, types and shapes must agree exactly) and prepares it, between two calls; on
 * failure the old ones stay in force. message: room bytes, may be NULL. moec_load_adapter: slot 0. */
moec_status moec_load_adapter(moec_instance *m, const char *path, char *message, size_t room);
moec_status moec_load_adapter_slot(moec_instance *m, int slot, const char *path, char *message, size_t room);
/* Writes a slot's tensors and the adapter's spec as safetensors; the file appears when it is complete. */
moec_status moec_save_adapter(moec_instance *m, int slot, const char *path, char *message, size_t room);

/* Runs one function with slot 0. sym: a value for each of the program's symbols (unused ones ignored). arg: a buffer
 * for each input, then each output, in the order of the function's values, of moec_argument_bytes each; a grown output
 * (alias >= 0) is its input's buffer. What outputs hold after a failure is undefined. */
moec_status moec_run(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg);
/* The same with the adapter of slot adapter_of_row[i] for row i of the batch; NULL: slot 0 for all. Rows are the
 * leading extent of every argument; neighbours of one slot run together as a batch of their own, so rows must not
 * depend on each other (they do not in encode, cross, step and score), sorted rows run fastest, and the bounds of the
 * batch have to include the length of each run (MOEC_E_RANGE). Of a function without padding a run has the tokens of its spans.
 * A function with an argument that has no such rows takes one slot for all, else MOEC_E_ARGUMENT. */
moec_status moec_run_rows(moec_instance *m, uint32_t function, const int64_t *sym, void *const *arg,
                          const int32_t *adapter_of_row);
/* Index of a function or symbol by name; -1 when there is none. */
int moec_find_function(const moec_program *p, const char *name);
int moec_find_symbol(const moec_program *p, const char *name);

/* ---- sequence to sequence models ------------------------------------------------------------- */

typedef struct moec_generate_options {
    int64_t max_length; /* tokens after the start token; 0: as many as the caches hold */
    int64_t eos;        /* -1: the model's */
    const int32_t *adapter_of_row; /* [batch], as for moec_run_rows; NULL: slot 0 */
} moec_generate_options;

/* Greedy decoding. ids, mask: [batch, length] right padded, which costs nothing where the program has functions without padding
 * (README.md); sentence: [batch, width] for routers that read one,
 * else NULL. tokens: [batch, max_length], pad after eos; *steps: tokens made. o may be NULL: all that fit, the model's
 * eos. `each` (may be NULL) is called after every step, in the caller's thread, with the batch's new tokens; returning
 * nonzero stops; it must not use the instance. Buffers of the whole decoding are allocated at moec_open for the bounds
 * of the program. MOEC_E_ARGUMENT for other models. */
moec_status moec_generate(moec_instance *m, int64_t batch, int64_t length, const int64_t *ids, const int64_t *mask,
                          const float *sentence, const moec_generate_options *o, int64_t *tokens, int64_t *steps,
                          int (*each)(void *ctx, int64_t step, const int64_t *token), void *ctx);

/* The most tokens moec_generate makes for one sequence: what the caches hold. 0 for other models. */
int64_t moec_generate_limit(const moec_program *p);

/* ---- profiles: of programs compiled with --profile --------------------------------------------- */

/* A call of a kernel in a function of the program, all times it was made since moec_profile_start. */
typedef struct moec_profile_row {
    const char *function, *kernel;
    const char *origin;     /* the ONNX node or adapter site it comes from, as the model's file spells it; "": none */
    uint32_t kernel_number; /* calls of one kernel have one */
    uint64_t calls, nanoseconds; /* wall time; the kernel's own threads work within it */
    double flops, bytes;    /* of products; of what is read and written, each counted once a call. 0: not known */
} moec_profile_row;

/* Rows that moec_profile_read gives, functions in their order, calls in theirs; 0: the program takes no profile. */
uint32_t moec_profile_rows(const moec_program *p);
/* Measures from now on, everything at zero. MOEC_E_ARGUMENT where the program takes no profile. */
moec_status moec_profile_start(moec_instance *m);
void moec_profile_stop(moec_instance *m);
moec_status moec_profile_read(const moec_instance *m, uint32_t row, moec_profile_row *out);
/* Nanoseconds from start to stop, or to now; 0 before the first start. */
uint64_t moec_profile_elapsed(const moec_instance *m);

/* ---- sizes, in bytes ------------------------------------------------------------------------------
 *
 * Of a program, so that memory can be planned before anything is opened; moec_train.h adds those of training.
 * sym: a value for each symbol, NULL: their upper bounds. UINT64_MAX: the size fits no memory, a symbol is out of
 * its bounds, or there is no such function or argument. None is rounded up to pages. */

uint64_t moec_weights_bytes(const moec_program *p); /* the file's; once for all instances that share them */
uint64_t moec_adapter_bytes(const moec_program *p); /* a slot's tensors; moec_open reserves one more to load into */
uint64_t moec_derived_bytes(const moec_program *p); /* what is computed from a slot's tensors when they change */
uint64_t moec_scratch_bytes(const moec_program *p, int threads); /* of all threads; 0: one a core */
/* Storage of a function's argument i (inputs, then outputs); a grown one counts its capacity. */
uint64_t moec_argument_bytes(const moec_program *p, uint32_t function, uint32_t i, const int64_t *sym);
/* Of all caches of a function: its inputs that grow. */
uint64_t moec_cache_bytes(const moec_program *p, uint32_t function, const int64_t *sym);
/* What a call of a function touches of the arena. Known for programs compiled with --train; for others the whole
 * arena, an upper bound for all functions. Allocates while it counts. */
uint64_t moec_activation_bytes(const moec_program *p, uint32_t function, const int64_t *sym);
/* The same of several functions together, as a run that trains calls them: sym[i] are the symbols that function i is
 * called for, NULL where it is not. 0 for programs compiled without --train. Allocates while it counts. */
uint64_t moec_arena_bytes(const moec_program *p, const int64_t *const *sym);
/* Buffers of moec_generate: caches, encoder states and logits for the bounds; 0 for other models. */
uint64_t moec_generate_bytes(const moec_program *p);
/* All that moec_open maps with these options (NULL: all 0): weights unless they are embedded or another's, arena, scratch,
 * adapters, buffers of decoding. Tables of some KiB on the heap and the threads' stacks come on top. */
uint64_t moec_open_bytes(const moec_program *p, const moec_options *o);

/* ---- shared with generated code ---------------------------------------------------------------- */

typedef struct moec_pool moec_pool;
typedef struct moec_profile moec_profile;

/* Calls task(arg, i, worker) for every i in 0..n-1 on the pool's workers and returns when all are done. Which worker
 * takes which i is not fixed: tasks must not depend on it. */
typedef void moec_task(void *arg, int64_t i, int worker);
void moec_parallel(moec_pool *pool, int64_t n, moec_task *task, void *arg);
/* Inside a task: returns when `n` tasks of the same call of moec_parallel are done. Workers take tasks in the order of i; so a
 * task may wait for those in front of it, and for no other. */
void moec_wait(moec_pool *pool, int64_t n);
int moec_pool_workers(const moec_pool *pool);

/* What a running function sees. */
typedef struct moec_frame {
    moec_pool *pool;
    const unsigned char *weights; /* the file's bytes; tensors at the offsets in the program */
    unsigned char *adapter;       /* adapter tensors, at moec_tensor.offset */
    unsigned char *derived;       /* what `prepare` computed from them */
    unsigned char *arena;
    unsigned char *scratch;       /* scratch_bytes for each worker */
    const int64_t *sym;
    void *const *arg;
    int *fault;                   /* generated code stores a moec_status here when it meets a bad index */
    moec_profile *profile;        /* NULL: nothing is measured */
} moec_frame;

/* Functions of programs that take profiles call the first when they begin and the second after each kernel, with the
 * call's number in moec_program.call. */
void moec_profile_begin(const moec_frame *f);
void moec_profile_mark(const moec_frame *f, uint32_t call);

typedef struct moec_symbol {
    const char *name;
    int64_t lo, hi; /* inclusive */
} moec_symbol;

typedef struct moec_value {
    const char *name;
    uint8_t dtype; /* moec_dtype */
    uint8_t rank;
    int16_t alias;     /* outputs: the input whose storage this result takes, else -1 */
    int16_t grow_axis; /* an axis whose storage holds `capacity` elements whatever its extent is, else -1 */
    int64_t capacity;
} moec_value;

typedef struct moec_function {
    const char *name;
    uint32_t n_inputs, n_outputs;
    const moec_value *value; /* inputs, then outputs */
    /* Extents of value i for the given symbols. */
    void (*shape)(const int64_t *sym, uint32_t i, int64_t *extent);
    void (*run)(const moec_frame *f);
} moec_function;

typedef struct moec_tensor {
    const char *name;
    uint8_t dtype, rank;
    int64_t extent[4];
    uint64_t offset, bytes; /* in the adapter block, 64-byte aligned */
    int gradient;           /* output of function `train` that is this tensor's gradient; -1: not trained */
} moec_tensor;

typedef struct moec_seq2seq {
    int64_t pad, eos, start, vocab, width, sentence_width; /* sentence_width 0: no sentence input */
    int encode, cross, step, score, train, routers;        /* function indices; -1: not compiled in */
    int batch, source, target, past, tokens;               /* symbol indices: B, S, T, P, N; -1 where constant */
    int encode_packed, cross_packed, step_packed, score_packed; /* without padding; -1: rows have to be padded */
} moec_seq2seq;

/* A value of a function in the arena; bytes[size] of what place_sizes fills in. */
typedef struct moec_place {
    uint64_t offset;
    uint32_t size, function;
} moec_place;

/* A call of a kernel, in programs that take profiles. */
typedef struct moec_call {
    uint32_t function, kernel; /* function n_functions is `prepare` */
    const char *origin;
} moec_call;

typedef struct moec_kernel {
    const char *name;
} moec_kernel;

struct moec_program {
    uint32_t abi; /* MOEC_ABI */
    const char *name;
    uint64_t weights_hash, weights_bytes; /* of the weights file, header included */
    uint64_t adapter_init;                /* offset in the weights file of the compiled-in adapter block */
    uint64_t adapter_bytes, derived_bytes, arena_bytes, scratch_bytes;
    uint32_t n_symbols, n_functions, n_tensors;
    const moec_symbol *symbol;
    const moec_function *function;
    const moec_tensor *tensor;            /* the adapter's tensors */
    void (*prepare)(const moec_frame *f); /* fills `derived`; NULL without an adapter */
    const moec_seq2seq *seq2seq;          /* NULL for other graphs */
    const unsigned char *embedded;        /* the weights file's bytes when linked in, else NULL */
    const char *spec;                     /* adapter spec as JSON, "" without one */
    uint64_t parameters, trainable;
    /* What functions touch of the arena, by rising offset; none in programs that do not train. */
    uint32_t n_places, n_sizes;
    const moec_place *place;
    void (*place_sizes)(const int64_t *sym, uint64_t *bytes);
    /* What profiles are made of; none in programs that take none. work: operations and bytes of a kernel. */
    uint32_t n_kernels, n_calls;
    const moec_kernel *kernel;
    const moec_call *call;
    void (*work)(const int64_t *sym, uint32_t kernel, int64_t *work);
    const char *variant;                  /* its name among several; NULL or empty when it is the only one */
};

/* A program that was compiled for several CPUs, in one of its variants. */
typedef struct moec_variant {
    const char *name;
    const moec_program *(*program)(void);
} moec_variant;

/* The first of them that this CPU runs; they stand best first, and any CPU runs the last. The environment's MOEC_VARIANT
 * names a later one, which is taken if this CPU runs it. */
const moec_program *moec_choose(const moec_variant *v, uint32_t n);

/* Weights file: this header, then data at 64-byte aligned offsets counted from the file's start. Numbers are in the byte
 * order of the machine it is for. */
typedef struct moec_weights_header {
    char magic[8]; /* "MOECWTS\n" */
    uint32_t abi;   /* MOEC_ABI */
    uint32_t order; /* MOEC_ORDER; machines of the other byte order read it backwards */
    uint64_t hash;  /* FNV-1a (64 bit) of everything after the header: what a program knows its weights by */
    uint64_t bytes; /* of the whole file */
    char name[32];  /* of the program it was written for, for people; cut, NUL behind it */
} moec_weights_header;

#define MOEC_ORDER 0x01020304u

/* What a weights file says of itself; check: whether its contents have the hash it names. MOEC_E_MISMATCH: of another ABI
 * or byte order. */
moec_status moec_weights_info(const char *path, int check, moec_weights_header *out, char *message, size_t room);

#ifdef __cplusplus
}
#endif
#endif
