/* Model files, mapped read-only, scanned and unpacked.
 *
 * Model files may be symbolic links (the hub's cache is made of them); external data files may not
 * (onnx_tensor.c). A mapping stays until onnx_files_free. */
#include "onnx_impl.h"

#include "../compiler/mapped.h"
#include "file.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

OnnxFiles *onnx_files_new(void)
{
    OnnxFiles *f = mem_alloc(sizeof *f);
    f->arena = arena_new();
    return f;
}

void onnx_files_free(OnnxFiles *files)
{
    if (files == NULL)
        return;
    for (size_t i = 0; i < files->map.count; i++)
        mapped_close((void *)(uintptr_t)files->map.item[i].p);
    vec_free(&files->map);
    vec_free(&files->weight);
    namemap_free(&files->by_hash);
    vec_free(&files->output);
    arena_free(files->arena);
    mem_free(files);
}

bool onnx_map(OnnxFiles *files, int fd, int64_t size, const char *file, OnnxMap *out, Diag *d)
{
    struct stat st;
    *out = (OnnxMap){0};
    if (fstat(fd, &st) == 0) {
        out->dev = st.st_dev;
        out->ino = st.st_ino;
        for (size_t i = 0; i < files->map.count; i++) {
            OnnxMap *m = &files->map.item[i];
            if (m->dev == st.st_dev && m->ino == st.st_ino && m->n == (size_t)size) {
                *out = *m;
                close(fd);
                return true;
            }
        }
    }
    out->n = (size_t)size;
    void *p = NULL;
    bool ok = size == 0 || mapped_open(fd, out->n, file, &p, d);
    close(fd);
    out->p = p;
    if (ok)
        vec_push(&files->map, *out);
    return ok;
}

/* ---- unpacking under a budget: the whole message lives in one arena --------------------------------- */

typedef struct Budget {
    Arena *arena;
    size_t left;
} Budget;

static void *budget_alloc(void *ctx, size_t n)
{
    Budget *b = ctx;
    if (n > b->left)
        return NULL;
    b->left -= n;
    return arena_alloc(b->arena, n > 0 ? n : 1);
}

static void budget_free(void *ctx, void *p)
{
    (void)ctx;
    (void)p;
}

bool onnx_file_open(OnnxFiles *files, const char *path, OnnxRoot root, OnnxFile *out, Diag *d)
{
    int64_t size = 0;
    *out = (OnnxFile){.owner = files};
    int fd = file_open(path, &size, d);
    if (fd < 0)
        return false;
    if (size > LIMIT_ONNX_FILE) {
        close(fd);
        return diag_error(d, DIAG_FILE_SIZE, path,
                          "is larger than 2^31 - 1 bytes, which no ONNX file can be");
    }
    OnnxMap map;
    if (!onnx_map(files, fd, size, path, &map, d))
        return false;
    out->path = arena_strndup(files->arena, path, strlen(path));
    out->dir = path_dir(files->arena, path);
    out->p = map.p;
    out->n = map.n;
    Text slim = {0};
    size_t cost = 0;
    bool ok = onnx_scan(map.p, map.n, root, &slim, &cost, out->path, d);
    if (ok) {
        out->arena = arena_new();
        /* Beside the message itself protobuf-c keeps one record a field of the messages it is inside of. */
        Budget budget = {out->arena, 2 * cost + 8 * slim.n + ((size_t)64 << 20)};
        ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
        static const uint8_t nothing[1];
        const uint8_t *p = slim.n > 0 ? (const uint8_t *)slim.p : nothing;
        if (root == ONNX_MODEL)
            out->model = onnx__model_proto__unpack(&allocator, slim.n, p);
        else
            out->tensor = onnx__tensor_proto__unpack(&allocator, slim.n, p);
        ok = out->model != NULL || out->tensor != NULL;
        if (!ok)
            diag_error(d, DIAG_ONNX_MALFORMED, out->path,
                       "not a well-formed ONNX file, or too large to unpack");
    }
    text_free(&slim);
    if (!ok)
        onnx_file_close(out);
    return ok;
}

void onnx_file_close(OnnxFile *f)
{
    arena_free(f->arena);
    f->arena = NULL;
    f->model = NULL;
    f->tensor = NULL;
}
