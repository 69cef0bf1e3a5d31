/* safetensors files: as the compiler maps them, as an adapter that explains itself, and as a program's runtime reads them. */
#include "fuzz.h"

#include "frontends/file.h"
#include "frontends/safetensors.h"
#include "frontends/spec.h"
#include "runtime/internal.h"
#include "tests/unit/fake_program.h"

#include <unistd.h>

static void map(const char *path) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    SafeFile f = {0};
    int64_t size;
    int fd = file_open(path, &size, d);
    bool ok = fd >= 0 && safetensors_map(a, fd, size, path, &f, d);
    for (uint32_t i = 0; ok && i < f.n; i++) {
        int64_t count = 1;
        for (int k = 0; k < f.tensor[i].rank; k++) count *= f.tensor[i].dim[k];
        if (f.tensor[i].kind != FK_NONE) adapter_tensor_floats(&f.tensor[i], count, a);
    }
    close(fd);
    fuzz_reported(d, ok);
    safetensors_unmap(&f);
    arena_free(a);
}

static void load(const char *path) {
    Diag *d = diag_new();
    Arena *a = arena_new();
    AdapterSpec *spec = spec_load(a, path, d);
    fuzz_reported(d, spec != NULL);
    spec_close(spec);
    arena_free(a);
}

static void read_tensors(const char *path) {
    char message[256] = "";
    moec_sink sink = {message, sizeof message};
    uint64_t bytes = moec_tensors_room(program.tensor, program.n_tensors, program.spec);
    unsigned char *block = moec_mem_reserve(program.adapter_bytes), *room = moec_mem_reserve(bytes);
    CHECK(block && room);
    moec_status s = moec_tensors_read(&program, program.tensor, program.n_tensors, path, block, room, bytes, sink);
    CHECK(!s || message[0]);
    moec_mem_release(block, program.adapter_bytes);
    moec_mem_release(room, bytes);
}

void fuzz_safetensors(const uint8_t *p, size_t n) {
    const char *path = fuzz_file(0, p, n);
    map(path);
    load(path);
    read_tensors(path);
}
