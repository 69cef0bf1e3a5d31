/* The weights file of a program: opened, and a function run where it is taken. */
#include "fuzz.h"

#include "tests/unit/fake_program.h"

void fuzz_weights(const uint8_t *p, size_t n) {
    char message[256] = "";
    moec_instance *m = NULL;
    moec_options o = {.weights = fuzz_file(0, p, n), .threads = 1, .map = n & 1, .message = message, .message_room = sizeof message};
    moec_status s = moec_open(&program, &o, &m);
    CHECK(s ? !m && message[0] : m && !message[0]);
    if (s) return;
    int64_t ids[2] = {3, 4}, mask[2] = {1, 1}, sym[4] = {1, 2, 0, 1};
    float hidden[4] = {0}, cross[2] = {0};
    CHECK(moec_run(m, 0, sym, (void *[]){ids, mask, hidden}) == MOEC_OK);
    CHECK(moec_run(m, 1, sym, (void *[]){hidden, cross}) == MOEC_OK);
    moec_close(m);
}
