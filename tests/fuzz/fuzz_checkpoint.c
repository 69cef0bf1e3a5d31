/* A checkpoint: state.json, a zero byte, adapter.safetensors after two bytes that are its length, optimizer.safetensors.
 *
 * Sizes, hashes and the checksum of state.json are made right where they are zeros: `"bytes":0`, sixteen digits `0`. */
#define FAKE_B 16
#include "fuzz.h"

#include "runtime/checkpoint.h"
#include "tests/unit/train_fake.h"

#include <inttypes.h>

typedef struct Part {
    const uint8_t *p;
    size_t n;
} Part;

static Part take(Part *left, size_t n) {
    Part x = {left->p, n < left->n ? n : left->n};
    left->p += x.n;
    left->n -= x.n;
    return x;
}

/* Puts `with` in the place of the first `what` from *at on; *at: behind it. */
static void patch(Text *t, size_t *at, const char *what, const char *with) {
    const char *found = t->n > *at ? memmem(t->p + *at, t->n - *at, what, strlen(what)) : NULL;
    if (!found) return;
    size_t from = (size_t)(found - t->p), behind = from + strlen(what);
    Text out = {0};
    text_add(&out, t->p, from);
    text_add(&out, with, strlen(with));
    *at = out.n;
    text_add(&out, t->p + behind, t->n - behind);
    text_free(t);
    *t = out;
}

static void complete(Text *state, const Part part[MOEC_PARTS]) {
    char number[64];
    size_t at = 0;
    for (int i = 0; i < MOEC_PARTS; i++) {
        snprintf(number, sizeof number, "\"bytes\":%zu,", part[i].n);
        patch(state, &at, "\"bytes\":0,", number);
        snprintf(number, sizeof number, "\"%016" PRIx64 "\"", moec_fnv(MOEC_FNV_START, part[i].p, part[i].n));
        patch(state, &at, "\"0000000000000000\"", number);
    }
    const char *zeros = state->n > at ? memmem(state->p + at, state->n - at, "0000000000000000\"}\n", 19) : NULL;
    if (!zeros) return;
    snprintf(number, sizeof number, "%016" PRIx64, moec_fnv(MOEC_FNV_START, state->p, (size_t)(zeros - state->p)));
    patch(state, &at, "0000000000000000", number);
}

static const char *run_folder(void) {
    static const char *folder;
    if (folder) return folder;
    fuzz_link("checkpoint-3/state.json", fuzz_file(0, "", 0));
    fuzz_link("checkpoint-3/adapter.safetensors", fuzz_file(1, "", 0));
    fuzz_link("checkpoint-3/optimizer.safetensors", fuzz_file(2, "", 0));
    return folder = fuzz_folder();
}

static void warn(void *ctx, const char *line) {
    ++*(int *)ctx;
    CHECK(strstr(line, "warning: "));
}

static void load(const char *folder) {
    char message[512] = "";
    moec_sink sink = {message, sizeof message};
    moec_instance *m = NULL;
    moec_trainer *t = NULL;
    moec_train_options o;
    int64_t position[4];
    const moec_agree agree[] = {{"batch", 4}};
    moec_standing standing = {agree, 1, position, 0, 4};
    int found, warnings = 0;
    moec_train_defaults(&o);
    CHECK(!moec_open(&fake_program, &(moec_options){.threads = 1}, &m) && !moec_trainer_open(m, &o, &t, message, sizeof message));
    moec_status s = moec_checkpoint_load(t, folder, &standing, &found, warn, &warnings, sink);
    CHECK(!s == !message[0]);
    message[0] = 0;
    s = moec_checkpoint_adapter(m, folder, warn, &warnings, sink);
    CHECK(!s == !message[0]);
    moec_trainer_close(t);
    moec_close(m);
}

void fuzz_checkpoint(const uint8_t *p, size_t n) {
    const uint8_t *zero = n ? memchr(p, 0, n) : NULL;
    const char *folder = run_folder();
    Part left = {p, n}, state = take(&left, zero ? (size_t)(zero - p) : n), part[MOEC_PARTS];
    take(&left, 1);
    Part length = take(&left, 2);
    part[0] = take(&left, length.n == 2 ? length.p[0] + 256u * length.p[1] : 0);
    part[1] = left;
    Text text = {0};
    text_add(&text, (const char *)state.p, state.n);
    complete(&text, part);
    fuzz_file(0, text.p, text.n);
    for (unsigned i = 0; i < MOEC_PARTS; i++) fuzz_file(i + 1, part[i].p, part[i].n);
    load(folder);
    text_free(&text);
}
