/* What a built model takes of memory, computed once for all that show it: `moec info --train`, the text and
 * the page of
 * --memory-report. Sizes are those at the symbols' upper bounds. */
#ifndef MOEC_MEMORY_H
#define MOEC_MEMORY_H

#include "build.h"

#include "../plan.h"

/* The parts of the whole: MEMORY_PART(name, what it is called, note). */
#define MEMORY_PART_LIST(X)                                                                                  \
    X(weights, "weights", "of the weights file")                                                    \
    X(adapter, "adapter", "and what is derived from it")                                                     \
    X(gradients, "gradients", "a second time where a step has several micro-batches")                        \
    X(optimiser, "optimiser state", "adafactor and sgd; adamw: twice that")                                  \
    X(activations, "activations", "of a batch at the bounds")                                                \
    X(scratch, "scratch", "of the threads")

enum {
#define X(name, title, note) MEMORY_##name,
    MEMORY_PART_LIST(X)
#undef X
        MEMORY_PARTS
};

/* What a value of the arena is: MEMORY_KIND(name, what it is called, colour by day, colour by night). */
#define MEMORY_KIND_LIST(X)                                                                                  \
    X(stream, "residual stream", "#4c78a8", "#6a9fd4")                                                       \
    X(projection, "projections of attention", "#f58518", "#f79b45")                                          \
    X(attention, "attention", "#54a24b", "#6fbf66")                                                          \
    X(ffn, "feed-forward", "#b279a2", "#c795b9")                                                             \
    X(kept, "kept for the backward pass", "#e45756", "#ee7b7a")                                              \
    X(backward, "backward pass", "#9d755d", "#b8927b")                                                       \
    X(other, "other", "#888888", "#999999")

typedef enum MemoryKind {
#define X(name, title, day, night) KIND_##name,
    MEMORY_KIND_LIST(X)
#undef X
        KIND_COUNT
} MemoryKind;

typedef struct MemoryFunc {
    const Func *f;
    Plan plan;
    unsigned char *kind;     /* MemoryKind by item of the plan */
    int64_t inputs, outputs; /* bytes of the caller's; what is a cache stands in neither */
    int64_t caches;          /* inputs that grow in place, as large as they can get */
} MemoryFunc;

typedef struct Memory {
    const Module *m;
    MemoryFunc *func; /* entry functions */
    uint32_t n_funcs;
    DimSym *bound; /* symbols that types of entry functions have */
    uint32_t n_bounds;
    int64_t threads, scratch_bytes; /* of a thread */
    int64_t adapter_bytes, derived_bytes;
    int64_t part[MEMORY_PARTS];
} Memory;

/* Of a module that was lowered: the image knows its scratch. Lives in b's arena. */
bool memory_read(const Build *b, Memory *out, Diag *d);
int64_t memory_total(const Memory *x);
const char *memory_part_name(int part);
const char *memory_part_note(int part);
const char *memory_kind_name(int kind);
/* A value's hint, or its number. Bytes of the model's files. */
Str memory_value_name(Arena *a, const Func *f, ValueId v);
/* A node's site, its origin, or the kernel it calls; v is a node's result. Bytes of the model's files. */
Str memory_node_place(const Memory *x, const Node *n);
Str memory_value_place(const Memory *x, const Func *f, ValueId v);
/* Alive where the arena is fullest. */
bool memory_at_peak(const Plan *p, const PlanItem *x);

/* Items in the order in which they are written: indices of p->item. */
void memory_order(const Plan *p, uint32_t *order);
/* " B=32 S=512", printable. */
void memory_bounds(const Memory *x, Text *t);

void memory_text(const Memory *x, Text *out);
void memory_html(const Memory *x, Text *out);

#endif
