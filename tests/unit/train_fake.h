/* A program written by hand whose training can be followed on paper. Adapter: a [3] and b [2,20000] (FAKE_B elements) are
 * trained, c [2] is not. With W the sum of a batch's weights and L the sum of weight * label:
 *
 *   loss = W + L/100 + router_share * 5 + dropout * noise, noise = (seed mod 1000) / 1000
 *   grad.a[i] = W a[i] - L (i+1)/10, and dropout * noise at i = 0
 *   grad.b[j] = W b[j] / 2 - L ((j mod 7) - 3) / 7
 *
 * Labels 666 and 667 make the loss and a gradient infinite; token 99 is outside the vocabulary. */
#ifndef TRAIN_FAKE_H
#define TRAIN_FAKE_H

#include "runtime/train_impl.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef FAKE_B
#define FAKE_B 40000 /* elements of b; an even number */
#endif

enum { NA = 3, NB = FAKE_B, ROWS = 4, SOURCE = 8, TARGET = 6 };

static const moec_symbol fake_symbols[] = {{"B", 1, ROWS}, {"S", 1, SOURCE}, {"T", 1, TARGET}};

/* Weights: header, then the adapter block. */
typedef struct FakeImage {
    moec_weights_header h;
    float a[NA];
    char gap[52];
    float b[NB];
    float c[2];
    char end[56];
} FakeImage;

static FakeImage fake_image = {.h = {.magic = {'M', 'O', 'E', 'C', 'W', 'T', 'S', '\n'},
                                     .abi = MOEC_ABI,
                                     .order = MOEC_ORDER,
                                     .hash = 7,
                                     .bytes = sizeof(FakeImage)},
                               .c = {5, 6}};

/* Value kinds: 0 [B,S], 1 [B,T], 2 scalar, 3 a, 4 b, 5 [B,T,2] read by nobody. */
static void fake_shape(const int64_t *sym, uint32_t i, int64_t *e) {
    static const char kind[] = "001111"
                               "22222"
                               "2322245"; /* batch, scalars, outputs */
    const int64_t table[][3] = {{sym[0], sym[1]}, {sym[0], sym[2]},   {0}, {NA},
                                {2, NB / 2},      {sym[0], sym[2], 2}};
    static const int rank[] = {2, 2, 0, 1, 2, 3};
    int k = kind[i] - '0';
    memcpy(e, table[k], (size_t)rank[k] * sizeof *e);
}

enum { FI_IDS, FI_DECODER_IDS = 2, FI_LABELS = 4, FI_WEIGHT, FI_DROPOUT = 8, FI_SHARE, FI_SEED, FI_END };

static const moec_value fake_values[] = {
    {"input_ids", MOEC_I64, 2, -1, -1, 0},
    {"encoder_segments", MOEC_I64, 2, -1, -1, 0},
    {"decoder_input_ids", MOEC_I64, 2, -1, -1, 0},
    {"decoder_segments", MOEC_I64, 2, -1, -1, 0},
    {"labels", MOEC_I64, 2, -1, -1, 0},
    {"weight", MOEC_F32, 2, -1, -1, 0},
    {"smoothing", MOEC_F32, 0, -1, -1, 0},
    {"z_loss", MOEC_F32, 0, -1, -1, 0},
    {"dropout", MOEC_F32, 0, -1, -1, 0},
    {"router_share", MOEC_F32, 0, -1, -1, 0},
    {"seed", MOEC_I64, 0, -1, -1, 0},
    {"loss", MOEC_F32, 0, -1, -1, 0},
    {"grad.a", MOEC_F32, 1, -1, -1, 0},
    {"token_loss", MOEC_F32, 0, -1, -1, 0},
    {"balance_loss", MOEC_F32, 0, -1, -1, 0},
    {"router_z_loss", MOEC_F32, 0, -1, -1, 0},
    {"grad.b", MOEC_F32, 2, -1, -1, 0},
    {"states", MOEC_F32, 3, -1, -1, 0},
};

static void fake_run(const moec_frame *f) {
    const int64_t *ids = f->arg[FI_IDS], *labels = f->arg[FI_LABELS], *seed = f->arg[FI_SEED];
    const float *weight = f->arg[FI_WEIGHT], *dropout = f->arg[FI_DROPOUT], *share = f->arg[FI_SHARE];
    const float *a = (const float *)(void *)f->adapter, *b = a + 16;
    float *loss = f->arg[11], *ga = f->arg[12], *gb = f->arg[16], *states = f->arg[17], w = 0, l = 0;
    for (int64_t i = 0; i < f->sym[0] * f->sym[1]; i++)
        if (ids[i] == 99)
            *f->fault = MOEC_E_INDEX;
    for (int64_t i = 0; i < f->sym[0] * f->sym[2]; i++) {
        w += weight[i];
        l += weight[i] * (float)labels[i];
        states[2 * i] = states[2 * i + 1] = 1;
    }
    float noise = *dropout * (float)((uint64_t)*seed % 1000) / 1000;
    *(float *)f->arg[13] = w + l / 100 + noise;
    *(float *)f->arg[14] = 2;
    *(float *)f->arg[15] = 3;
    *loss = w + l / 100 + *share * 5 + noise + (labels[0] == 666 ? INFINITY : 0);
    for (int i = 0; i < NA; i++)
        ga[i] = w * a[i] - l * (float)(i + 1) / 10 + (i ? 0 : noise);
    for (int j = 0; j < NB; j++)
        gb[j] = w * b[j] / 2 - l * (float)(j % 7 - 3) / 7;
    if (labels[0] == 667)
        gb[NB - 1] = -INFINITY;
}

static void fake_prepare(const moec_frame *f) {
    *(float *)(void *)f->derived = 2 * *(const float *)(void *)f->adapter;
}

/* Decoding has to be there, and is not called. */
static void decode_shape(const int64_t *sym, uint32_t i, int64_t *e) {
    (void)i;
    e[0] = sym[0];
    e[1] = sym[1];
}

static const moec_value decode_values[] = {
    {"input_ids", MOEC_I64, 2, -1, -1, 0}, {"hidden", MOEC_I64, 2, -1, -1, 0},
    {"cross_kv", MOEC_I64, 2, -1, -1, 0},  {"token", MOEC_I64, 2, -1, -1, 0},
    {"token", MOEC_I64, 2, -1, -1, 0},
};

static const moec_function fake_functions[] = {
    {"encode", 1, 1, decode_values, decode_shape, NULL},
    {"cross", 1, 1, decode_values + 1, decode_shape, NULL},
    {"step", 1, 1, decode_values + 3, decode_shape, NULL},
    {"train", FI_END, 7, fake_values, fake_shape, fake_run},
};
static const moec_tensor fake_tensors[] = {
    {"c", MOEC_F32, 1, {2}, 64 + NB * 4, 8, -1},
    {"a", MOEC_F32, 1, {NA}, 0, NA * 4, 1},
    {"b", MOEC_F32, 2, {2, NB / 2}, 64, NB * 4, 5},
};
static const moec_seq2seq fake_sequence = {.eos = 1,
                                           .vocab = 99,
                                           .width = 2,
                                           .encode = 0,
                                           .cross = 1,
                                           .step = 2,
                                           .score = -1,
                                           .train = 3,
                                           .routers = -1,
                                           .batch = 0,
                                           .source = 1,
                                           .target = 2,
                                           .past = -1,
                                           .tokens = -1,
                                           .encode_packed = -1,
                                           .cross_packed = -1,
                                           .step_packed = -1,
                                           .score_packed = -1};
static const moec_program fake_program = {
    .abi = MOEC_ABI,
    .name = "fake",
    .weights_hash = 7,
    .weights_bytes = sizeof(FakeImage),
    .adapter_init = 64,
    .adapter_bytes = sizeof(FakeImage) - 64,
    .derived_bytes = 64,
    .arena_bytes = 64,
    .n_symbols = 3,
    .n_functions = 4,
    .n_tensors = 3,
    .symbol = fake_symbols,
    .function = fake_functions,
    .tensor = fake_tensors,
    .prepare = fake_prepare,
    .seq2seq = &fake_sequence,
    .embedded = (const unsigned char *)&fake_image,
    .spec = "{\"moec_adapter\":1,\"method\":\"ia3\"}",
};

static inline moec_instance *fake_open(int threads) {
    char message[256];
    moec_instance *m = NULL;
    moec_options o = {.threads = threads, .message = message, .message_room = sizeof message};
    for (int i = 0; i < NA; i++)
        fake_image.a[i] = (float)(i + 1) / 2;
    for (int j = 0; j < NB; j++)
        fake_image.b[j] = (float)(j % 11 - 5) / 8;
    if (moec_open(&fake_program, &o, &m))
        fail_msg("%s", message);
    return m;
}

static inline moec_trainer *fake_trainer(moec_instance *m, const moec_train_options *o) {
    char message[256];
    moec_trainer *t = NULL;
    if (moec_trainer_open(m, o, &t, message, sizeof message))
        fail_msg("%s", message);
    return t;
}

static inline const float *fake_a(const moec_instance *m) {
    return (const float *)(void *)m->slot[0].adapter;
}

static inline const float *fake_b(const moec_instance *m) {
    return (const float *)(void *)(m->slot[0].adapter + 64);
}

/* A batch of `rows` rows that carries label `label` and weight `weight` in each of its two targets a row. */
static inline moec_status fake_batch(moec_trainer *t, int64_t rows, int64_t label, float weight,
                                     double share) {
    static const int64_t zeros[ROWS * SOURCE];
    int64_t labels[ROWS * 2];
    float weights[ROWS * 2];
    for (int i = 0; i < ROWS * 2; i++) {
        labels[i] = label;
        weights[i] = weight;
    }
    moec_batch b = {rows, 3, 2, zeros, zeros, zeros, zeros, labels, weights, NULL};
    return moec_trainer_batch(t, &b, share);
}

/* Step `i` of a run: one batch of 2 rows, W = 1, L = i + 1. */
static inline moec_step_report fake_step(moec_trainer *t, int64_t i) {
    moec_step_report r = {0};
    assert_int_equal(fake_batch(t, 2, i + 1, 0.25f, 1), MOEC_OK);
    assert_int_equal(moec_trainer_step(t, &r), MOEC_OK);
    return r;
}

#endif
