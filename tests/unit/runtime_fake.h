/* The program of fake_program.h as tests of the runtime use it: files of a test are in a folder of its own. */
#ifndef RUNTIME_FAKE_H
#define RUNTIME_FAKE_H

#include "fake_program.h"
#include "runtime/cli.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- files ---- */

static char folder[64];

static const char *path_of(const char *name) {
    static char path[64][128];
    static int turn;
    char *p = path[turn++ % 64];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static const char *write_file(const char *name, const void *p, size_t n) {
    const char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
    return path;
}

static const char *write_adapter(const char *name, const char *header, const void *data, size_t n) {
    unsigned char all[4096];
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++)
        all[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(all + 8, header, length);
    memcpy(all + 8 + length, data, n);
    return write_file(name, all, 8 + length + n);
}

#define SCALE  "\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,32]}"
#define ROUTER "\"encoder.0.self.k.router\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"

static const float doubled[8] = {0, 0, 0, 0, 0, 0, 2, 2}; /* router, then scale */

static int set_up(void **state) {
    (void)state;
    strcpy(folder, "runtime-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    write_file("fake.weights", &image, sizeof image);
    write_adapter("good", "{\"__metadata__\":{\"a\":\"b\"}," SCALE "," ROUTER "}", doubled, 32);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf -- '%s'", folder);
    return system(command);
}

static moec_instance *open_good(int threads) {
    char message[256];
    moec_instance *m = NULL;
    moec_options o = {.weights = path_of("fake.weights"),
                      .threads = threads,
                      .message = message,
                      .message_room = sizeof message};
    if (moec_open(&program, &o, &m))
        fail_msg("%s", message);
    return m;
}

#endif
