/* One function of a model by itself: `encode`, as a measure of how alike three inputs are (cosine of mean states). */
#include "t5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 3, LENGTH = 6 };

static const int64_t ids[ROWS][LENGTH] = {{6, 90, 80, 70, 1}, {6, 80, 90, 70, 1}, {3, 200, 11, 54, 33, 1}};
static const int64_t mask[ROWS][LENGTH] = {{1, 1, 1, 1, 1, 0}, {1, 1, 1, 1, 1, 0}, {1, 1, 1, 1, 1, 1}};

/* Mean of the states of a row's tokens, at one position of the state. */
static double mean(const float *state, int row, int64_t width, int64_t at) {
    double sum = 0, n = 0;
    for (int s = 0; s < LENGTH; s++)
        if (mask[row][s])
            sum += (double)state[(row * LENGTH + s) * width + at], n++;
    return sum / n;
}

static double cosine(const float *state, int a, int b, int64_t width) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < width; i++) {
        double x = mean(state, a, width, i), y = mean(state, b, width, i);
        ab += x * y, aa += x * x, bb += y * y;
    }
    return ab / sqrt(aa * bb);
}

int main(void) {
    const moec_program *program = t5_program();
    char message[256];
    moec_options options = {.weights = WEIGHTS, .message = message, .message_room = sizeof message};
    moec_instance *model;
    if (moec_open(program, &options, &model)) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    uint32_t encode = (uint32_t)moec_find_function(program, "encode");
    int64_t sym[16] = {0}; /* the program's symbols; encode reads two of them */
    sym[moec_find_symbol(program, "B")] = ROWS;
    sym[moec_find_symbol(program, "S")] = LENGTH;
    float *state = malloc(moec_argument_bytes(program, encode, 2, sym)); /* [B,S,width], behind two inputs */
    void *arg[] = {(void *)ids, (void *)mask, state};
    moec_status status = moec_run(model, encode, sym, arg);
    if (status)
        fprintf(stderr, "similar: error: %s\n", moec_status_text(status));
    for (int i = 1; i < ROWS && !status; i++)
        printf("0 and %d: %.3f\n", i, cosine(state, 0, i, program->seq2seq->width));
    free(state);
    moec_close(model);
    return status != MOEC_OK;
}
