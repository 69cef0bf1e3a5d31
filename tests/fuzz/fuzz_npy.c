/* .npy files, as the compiler and as programs read them.. */
#include "fuzz.h"

#include "frontends/npy.h"
#include "runtime/cli.h"

void fuzz_npy(const uint8_t *p, size_t n) {
    const char *path = fuzz_file(0, p, n);
    char message[512] = "";
    Diag *d = diag_new();
    Arena *a = arena_new();
    Tensor t;
    moec_npy array = {0};
    fuzz_reported(d, npy_read(path, a, &t, d));
    moec_status s = moec_npy_read(path, &array, (moec_sink){message, sizeof message});
    CHECK(!s == !message[0]);
    if (!s) moec_mem_free(array.file);
    arena_free(a);
}
