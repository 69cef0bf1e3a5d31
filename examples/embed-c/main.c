/* A model in a C program: ask IDS [ADAPTER] decodes one prompt, and shows each token when it is made. */
#include "t5.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 64 };

/* "6,90,80,70,1"; how many, 0 where the text is none or too long. */
static int64_t parse(const char *text, int64_t *ids) {
    char *end = NULL;
    for (int64_t n = 0; n < MOST; text = end + 1) {
        ids[n++] = strtoll(text, &end, 10);
        if (end == text || *end != ',')
            return end != text && !*end ? n : 0;
    }
    return 0;
}

static int show(void *ctx, int64_t step, const int64_t *token) {
    (void)ctx;
    printf(step ? " %d" : "%d", (int)token[0]);
    fflush(stdout);
    return 0; /* 1 would stop */
}

int main(int argc, char **argv) {
    const moec_program *program = t5_program();
    char message[256];
    moec_options options = {.message = message, .message_room = sizeof message};
    moec_instance *model;
    int64_t ids[MOST], mask[MOST], tokens[MOST], steps;
    int64_t n = argc > 1 ? parse(argv[1], ids) : 0;
    for (int64_t i = 0; i < n; i++)
        mask[i] = 1;
    if (n == 0) {
        fprintf(stderr, "usage: ask ID,ID,... [ADAPTER]\n");
        return 2;
    }
    fprintf(stderr, "memory: %.1f MiB at most\n", (double)moec_open_bytes(program, &options) / (1 << 20));
    if (moec_open(program, &options, &model) ||
        (argc > 2 && moec_load_adapter(model, argv[2], message, sizeof message))) {
        fprintf(stderr, "%s\n", message);
        return 1;
    }
    moec_status status = moec_generate(model, 1, n, ids, mask, NULL, NULL, tokens, &steps, show, NULL);
    printf("\n");
    if (status)
        fprintf(stderr, "ask: error: %s\n", moec_status_text(status));
    moec_close(model);
    return status != MOEC_OK;
}
