/* Training from C: teach FILE [STEPS] shows the adapter a new task, 7: the smallest of some numbers, and writes it. */
#include "moec_train.h"
#include "t5.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 32, SOURCE = 8, TARGET = 2 };

static int64_t ids[ROWS][SOURCE], mask[ROWS][SOURCE];
static int64_t decoder[ROWS][TARGET], segment[ROWS][TARGET], labels[ROWS][TARGET];
static float weight[ROWS][TARGET];

static int64_t draw(int64_t n) {
    static int64_t state = 1;
    state = state * 16807 % 2147483647;
    return state % n;
}

/* 7, three to six numbers, 1: the smallest number, 1. */
static void make_batch(void) {
    for (int r = 0; r < ROWS; r++) {
        int64_t n = 3 + draw(4), least = 255;
        for (int64_t s = 0; s < SOURCE; s++) {
            ids[r][s] = s == 0 ? 7 : s <= n ? 10 + draw(240) : s == n + 1;
            mask[r][s] = s <= n + 1;
            if (s > 0 && s <= n && ids[r][s] < least)
                least = ids[r][s];
        }
        labels[r][0] = decoder[r][1] = least; /* the decoder reads what comes before, the start token first */
        labels[r][1] = 1;
        decoder[r][0] = t5_program()->seq2seq->start;
        for (int t = 0; t < TARGET; t++)
            segment[r][t] = 1, weight[r][t] = 1.0f / (ROWS * TARGET);
    }
}

static int fail(const char *message, moec_status status) {
    return fprintf(stderr, "%s\n", *message ? message : moec_status_text(status)), 1;
}

int main(int argc, char **argv) {
    char message[256] = "";
    moec_options options = {.message = message, .message_room = sizeof message};
    moec_train_options how;
    moec_instance *model;
    moec_trainer *trainer;
    moec_step_report did;
    moec_status status;
    moec_train_defaults(&how);
    how.optimizer = MOEC_ADAMW, how.learning_rate = 0.01, how.dropout = 0;
    if ((status = moec_open(t5_program(), &options, &model)) ||
        (status = moec_trainer_open(model, &how, &trainer, message, sizeof message)))
        return fail(message, status);
    const moec_batch batch = {ROWS, SOURCE, TARGET, *ids, *mask, *decoder, *segment, *labels, *weight, NULL};
    for (int64_t step = 1, last = argc > 2 ? atoi(argv[2]) : 300; step <= last; step++) {
        make_batch();
        if ((status = moec_trainer_batch(trainer, &batch, 1)) || (status = moec_trainer_step(trainer, &did)))
            return fail(message, status);
        if (step == 1 || step % 100 == 0)
            printf("step %d: loss %.3f\n", (int)step, did.loss);
    }
    if (argc > 1 && (status = moec_save_adapter(model, 0, argv[1], message, sizeof message)))
        return fail(message, status);
    moec_trainer_close(trainer);
    moec_close(model);
    return 0;
}
