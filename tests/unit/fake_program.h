/* A program written by hand for tests of the runtime: vocabulary 16, width 2. encode gives (id * mask, mask);
 * cross scales the first by the adapter; step puts its token into the cache and makes the token (sum of cross
 * + 3 * past + sum of the cache) % 16; score gives -label/2. */
#ifndef FAKE_PROGRAM_H
#define FAKE_PROGRAM_H

#include "runtime/moec_main.h"

#include <string.h>

enum { VOCAB = 16, CAPACITY = 8, B = 0, S = 1, P = 2, T = 3 };

/* ---- the program ---- */

static const moec_symbol symbols[] = {{"B", 1, 4}, {"S", 1, 8}, {"P", 0, CAPACITY - 1}, {"T", 1, 6}};

enum { V_IDS, V_HIDDEN, V_CROSS, V_TOKEN, V_PAST, V_GROWN, V_LOGITS, V_TARGETS, V_LOGPROB };

static void shape_kind(int kind, const int64_t *s, int64_t *e) {
    const int64_t table[][3] = {
        [V_IDS] = {s[B], s[S], 0},     [V_HIDDEN] = {s[B], s[S], 2},  [V_CROSS] = {s[B], s[S], 1},
        [V_TOKEN] = {s[B], 1, 0},      [V_PAST] = {s[B], s[P], 1},    [V_GROWN] = {s[B], s[P] + 1, 1},
        [V_LOGITS] = {s[B], 1, VOCAB}, [V_TARGETS] = {s[B], s[T], 0}, [V_LOGPROB] = {s[B], s[T], 0},
    };
    int rank = kind == V_IDS || kind == V_TOKEN || kind == V_TARGETS || kind == V_LOGPROB ? 2 : 3;
    memcpy(e, table[kind], (size_t)rank * sizeof *e);
}

#define SHAPES(name, ...)                                                                                    \
    static void name(const int64_t *sym, uint32_t i, int64_t *e) {                                           \
        static const int kind[] = {__VA_ARGS__};                                                             \
        shape_kind(kind[i], sym, e);                                                                         \
    }
SHAPES(encode_shape, V_IDS, V_IDS, V_HIDDEN)
SHAPES(cross_shape, V_HIDDEN, V_CROSS)
SHAPES(step_shape, V_TOKEN, V_CROSS, V_IDS, V_PAST, V_LOGITS, V_TOKEN, V_GROWN)
SHAPES(score_shape, V_TARGETS, V_CROSS, V_IDS, V_TARGETS, V_LOGPROB, V_LOGITS)

typedef struct Row {
    const moec_frame *f;
} Row;

static void encode_row(void *arg, int64_t b, int worker) {
    const moec_frame *f = ((Row *)arg)->f;
    int64_t n = f->sym[S];
    const int64_t *ids = f->arg[0], *mask = f->arg[1];
    float *hidden = f->arg[2];
    f->scratch[(size_t)worker * 64] = 1; /* each worker has its own */
    for (int64_t s = b * n; s < (b + 1) * n; s++) {
        if (ids[s] < 0 || ids[s] >= VOCAB) {
            *f->fault = MOEC_E_INDEX;
            return;
        }
        hidden[2 * s] = (float)(ids[s] * mask[s]);
        hidden[2 * s + 1] = (float)mask[s];
    }
}

static void encode_run(const moec_frame *f) {
    Row r = {f};
    moec_parallel(f->pool, f->sym[B], encode_row, &r);
}

static void cross_run(const moec_frame *f) {
    const float *hidden = f->arg[0];
    float *cross = f->arg[1], scale = *(const float *)(const void *)f->derived;
    for (int64_t i = 0; i < f->sym[B] * f->sym[S]; i++)
        cross[i] = hidden[2 * i] * scale;
}

static void step_run(const moec_frame *f) {
    const int64_t *token = f->arg[0];
    const float *cross = f->arg[1];
    float *cache = f->arg[3], *logits = f->arg[4];
    int64_t *next = f->arg[5];
    for (int64_t b = 0; b < f->sym[B]; b++) {
        float *row = cache + b * CAPACITY, sum = (float)(3 * f->sym[P]);
        row[f->sym[P]] = (float)token[b];
        for (int64_t i = 0; i <= f->sym[P]; i++)
            sum += row[i];
        for (int64_t s = 0; s < f->sym[S]; s++)
            sum += cross[b * f->sym[S] + s];
        next[b] = (int64_t)sum % VOCAB;
        for (int64_t v = 0; v < VOCAB; v++)
            logits[b * VOCAB + v] = v == next[b];
    }
}

static void score_run(const moec_frame *f) {
    const int64_t *label = f->arg[3];
    float *logprob = f->arg[4];
    for (int64_t i = 0; i < f->sym[B] * f->sym[T]; i++)
        logprob[i] = label[i] == -100 ? 0 : -(float)label[i] / 2;
}

static void prepare_run(const moec_frame *f) {
    *(float *)(void *)f->derived = *(const float *)(const void *)f->adapter;
    if (*(const float *)(const void *)f->adapter < 0)
        *f->fault = MOEC_E_RANGE;
}

static const moec_value encode_values[] = {{"input_ids", MOEC_I64, 2, -1, -1, 0},
                                           {"attention_mask", MOEC_I64, 2, -1, -1, 0},
                                           {"hidden", MOEC_F32, 3, -1, -1, 0}};
static const moec_value cross_values[] = {{"hidden", MOEC_F32, 3, -1, -1, 0},
                                          {"cross_kv", MOEC_F32, 3, -1, -1, 0}};
static const moec_value step_values[] = {
    {"token", MOEC_I64, 2, -1, -1, 0},          {"cross_kv", MOEC_F32, 3, -1, -1, 0},
    {"attention_mask", MOEC_I64, 2, -1, -1, 0}, {"self_k_0", MOEC_F32, 3, -1, 1, CAPACITY},
    {"logits", MOEC_F32, 3, -1, -1, 0},         {"token", MOEC_I64, 2, -1, -1, 0},
    {"self_k_0", MOEC_F32, 3, 3, 1, CAPACITY},
};
static const moec_value score_values[] = {
    {"decoder_input_ids", MOEC_I64, 2, -1, -1, 0}, {"cross_kv", MOEC_F32, 3, -1, -1, 0},
    {"attention_mask", MOEC_I64, 2, -1, -1, 0},    {"labels", MOEC_I64, 2, -1, -1, 0},
    {"logprob", MOEC_F32, 2, -1, -1, 0},           {"logits", MOEC_F32, 3, -1, -1, 0},
};
static const moec_function functions[] = {
    {"encode", 2, 1, encode_values, encode_shape, encode_run},
    {"cross", 1, 1, cross_values, cross_shape, cross_run},
    {"step", 4, 3, step_values, step_shape, step_run},
    {"score", 4, 2, score_values, score_shape, score_run},
};
static const moec_tensor tensors[] = {
    {"encoder.0.self.k.scale", MOEC_F32, 1, {2, 0, 0, 0}, 0, 8, -1},
    {"encoder.0.self.k.router", MOEC_F32, 2, {2, 3, 0, 0}, 64, 24, -1},
};
static const moec_seq2seq sequence = {.pad = 0,
                                      .eos = 1,
                                      .start = 0,
                                      .vocab = VOCAB,
                                      .width = 2,
                                      .encode = 0,
                                      .cross = 1,
                                      .step = 2,
                                      .score = 3,
                                      .train = -1,
                                      .routers = -1,
                                      .tokens = -1,
                                      .encode_packed = -1,
                                      .cross_packed = -1,
                                      .step_packed = -1,
                                      .score_packed = -1,
                                      .batch = B,
                                      .source = S,
                                      .target = T,
                                      .past = P};

/* Weights: header, then the adapter block. */
typedef struct Image {
    moec_weights_header h;
    float scale[2];
    char gap[56];
    float router[6];
    char end[40];
} Image;

static const Image image = {.h = {.magic = {'M', 'O', 'E', 'C', 'W', 'T', 'S', '\n'},
                                  .abi = MOEC_ABI,
                                  .order = MOEC_ORDER,
                                  .hash = 77,
                                  .bytes = sizeof(Image)},
                            .scale = {1, 1}};

static const moec_program program = {
    .abi = MOEC_ABI,
    .name = "fake",
    .weights_hash = 77,
    .weights_bytes = sizeof(Image),
    .adapter_init = 64,
    .adapter_bytes = 128,
    .derived_bytes = 64,
    .arena_bytes = 4096,
    .scratch_bytes = 64,
    .n_symbols = 4,
    .n_functions = 4,
    .n_tensors = 2,
    .symbol = symbols,
    .function = functions,
    .tensor = tensors,
    .prepare = prepare_run,
    .seq2seq = &sequence,
    .spec = "{}",
    .parameters = 100,
    .trainable = 8,
};

#endif
