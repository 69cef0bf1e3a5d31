/* TensorProto -> Tensor, from every field that data may stand in, and Tensor -> Param.
 *
 * The data's size equals what type and extents ask for, and stands in one field only. External data never
 * leave the model's directory and are never reached through a symbolic link. Bytes are used where they are when
 * aligned for their type; else they are copied and the file's pages given back. */
#include "onnx_impl.h"

#include "file.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct TypeRow {
    int32_t onnx;
    const char *name;
    int dtype; /* -1: unsupported */
} type_rows[] = {
    {0, "UNDEFINED", -1},   {1, "FLOAT", DT_F32},      {2, "UINT8", DT_U8},         {3, "INT8", DT_I8},
    {4, "UINT16", DT_U16},  {5, "INT16", DT_I16},      {6, "INT32", DT_I32},        {7, "INT64", DT_I64},
    {8, "STRING", -1},      {9, "BOOL", DT_BOOL},      {10, "FLOAT16", DT_F16},     {11, "DOUBLE", DT_F64},
    {12, "UINT32", -1},     {13, "UINT64", -1},        {14, "COMPLEX64", -1},       {15, "COMPLEX128", -1},
    {16, "BFLOAT16", -1},   {17, "FLOAT8E4M3FN", -1},  {18, "FLOAT8E4M3FNUZ", -1},  {19, "FLOAT8E5M2", -1},
    {20, "FLOAT8E5M2FNUZ", -1}, {21, "UINT4", -1},     {22, "INT4", -1},            {23, "FLOAT4E2M1", -1},
    {24, "FLOAT8E8M0", -1}, {25, "UINT2", -1},         {26, "INT2", -1},
};
enum { N_TYPES = sizeof type_rows / sizeof type_rows[0] };

bool onnx_dtype(int32_t onnx, DType *out)
{
    for (int i = 0; i < N_TYPES; i++)
        if (type_rows[i].onnx == onnx && type_rows[i].dtype >= 0) {
            *out = (DType)type_rows[i].dtype;
            return true;
        }
    return false;
}

const char *onnx_dtype_name(int32_t onnx)
{
    for (int i = 0; i < N_TYPES; i++)
        if (type_rows[i].onnx == onnx)
            return type_rows[i].name;
    return "unknown to ONNX";
}

/* ---- data in numbers ------------------------------------------------------------------------------ */

static bool from_int32(const Onnx__TensorProto *t, Tensor *out, int64_t count, const char *file, Diag *d)
{
    static const struct {
        int64_t lo, hi;
    } range[DT_COUNT] = {
        [DT_BOOL] = {0, 1},
        [DT_U8] = {0, UINT8_MAX},
        [DT_I8] = {INT8_MIN, INT8_MAX},
        [DT_U16] = {0, UINT16_MAX},
        [DT_I16] = {INT16_MIN, INT16_MAX},
        [DT_I32] = {INT32_MIN, INT32_MAX},
        [DT_F16] = {0, UINT16_MAX},
    };
    for (int64_t i = 0; i < count; i++) {
        int32_t v = t->int32_data[i];
        if (v < range[out->dtype].lo || v > range[out->dtype].hi)
            return diag_error(d, DIAG_ONNX_TENSOR, file,
                              "element %" PRId64 " of int32_data, %" PRId32 ", is out of range for %s", i, v,
                              dtype_name(out->dtype));
        if (out->dtype == DT_F16)
            ((uint16_t *)out->data)[i] = (uint16_t)v;
        else
            tensor_set_i64(out, i, v);
    }
    return true;
}

/* The typed field that holds data of this type: how many elements it has and where they are. */
static size_t typed_field(const Onnx__TensorProto *t, DType dtype, const void **p)
{
    *p = NULL;
    switch (dtype) {
    case DT_F32:
        *p = t->float_data;
        return t->n_float_data;
    case DT_F64:
        *p = t->double_data;
        return t->n_double_data;
    case DT_I64:
        *p = t->int64_data;
        return t->n_int64_data;
    default:
        return t->n_int32_data;
    }
}

/* ---- data in bytes ---------------------------------------------------------------------------------- */

static bool digits(const char *s, int64_t *out)
{
    int64_t v = 0;
    if (*s == 0)
        return false;
    for (; *s != 0; s++)
        if (*s < '0' || *s > '9' || !mul_i64(v, 10, &v) || !add_i64(v, *s - '0', &v))
            return false;
    *out = v;
    return true;
}

static bool external_bytes(const OnnxFile *file, const Onnx__TensorProto *t, size_t want, const uint8_t **p, Diag *d)
{
    const char *location = NULL, *offset = NULL, *length = NULL;
    for (size_t i = 0; i < t->n_external_data; i++) {
        const Onnx__StringStringEntryProto *e = t->external_data[i];
        const char *key = e->key != NULL ? e->key : "", *value = e->value != NULL ? e->value : "";
        const char **slot = strcmp(key, "location") == 0 ? &location
                            : strcmp(key, "offset") == 0 ? &offset
                            : strcmp(key, "length") == 0 ? &length
                                                         : NULL;
        if (slot == NULL)
            continue;
        if (*slot != NULL)
            return diag_error(d, DIAG_ONNX_EXTERNAL, file->path, "external data: '%s' stands twice", key);
        *slot = value;
    }
    if (location == NULL)
        return diag_error(d, DIAG_ONNX_EXTERNAL, file->path, "external data without a location");
    int64_t at = 0, n = 0, size = 0;
    if (offset != NULL && !digits(offset, &at))
        return diag_error(d, DIAG_ONNX_EXTERNAL, file->path,
                          "external data: offset '%s' is not a decimal number", diag_show(d, str_c(offset)));
    if (length != NULL && !digits(length, &n))
        return diag_error(d, DIAG_ONNX_EXTERNAL, file->path,
                          "external data: length '%s' is not a decimal number", diag_show(d, str_c(length)));
    int fd = file_open_beneath(file->dir, str_c(location), &size, file->path, "external data file ", d);
    if (fd < 0)
        return false;
    const char *shown = diag_show(d, str_c(location));
    bool ok = false;
    if (at > size)
        diag_error(d, DIAG_ONNX_EXTERNAL, file->path,
                   "external data: offset %" PRId64 " is past the end of '%s' (%" PRId64 " bytes)", at, shown,
                   size);
    else if (length != NULL && n > size - at)
        diag_error(d, DIAG_ONNX_EXTERNAL, file->path,
                   "external data: offset + length is past the end of '%s' (%" PRId64 " bytes)", shown, size);
    else if ((length != NULL ? n : size - at) != (int64_t)want)
        diag_error(d, DIAG_ONNX_EXTERNAL, file->path,
                   "external data: '%s' holds %" PRId64 " bytes for it, its shape needs %zu", shown,
                   length != NULL ? n : size - at, want);
    else
        ok = true;
    if (!ok) {
        close(fd);
        return false;
    }
    OnnxMap map;
    const char *path = arena_printf(file->owner->arena, "%s/%s", file->dir, location);
    if (!onnx_map(file->owner, fd, size, path, &map, d))
        return false;
    *p = want > 0 ? map.p + at : NULL;
    return true;
}

static void give_back(const uint8_t *p, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)p + page - 1) / page * page, end = ((uintptr_t)p + n) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static void place_bytes(Tensor *out, const uint8_t *p, size_t n, Arena *a)
{
    if (n == 0) {
        out->data = arena_alloc(a, 1);
    } else if (out->dtype == DT_BOOL) {
        uint8_t *to = arena_alloc(a, n);
        for (size_t i = 0; i < n; i++)
            to[i] = p[i] != 0;
        out->data = to;
    } else if ((uintptr_t)p % dtype_bytes(out->dtype) == 0) {
        out->data = (void *)(uintptr_t)p;
    } else {
        out->data = arena_copy(a, p, n);
        give_back(p, n);
    }
}

/* ---- the tensor ---------------------------------------------------------------------------------------- */

bool onnx_tensor(const OnnxFile *file, const Onnx__TensorProto *t, Arena *a, Tensor *out, Diag *d)
{
    const char *path = file->path;
    memset(out, 0, sizeof *out);
    if (!onnx_dtype(t->data_type, &out->dtype))
        return diag_error(d, DIAG_ONNX_ELEMENT_TYPE, path, "element type %s (%d) is not supported",
                          onnx_dtype_name(t->data_type), (int)t->data_type);
    if (t->n_dims > MOEC_MAX_RANK)
        return diag_error(d, DIAG_LIMIT, path, "rank %zu is above the limit of %d", t->n_dims, MOEC_MAX_RANK);
    out->rank = (int)t->n_dims;
    for (size_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] < 0)
            return diag_error(d, DIAG_ONNX_TENSOR, path, "extent %" PRId64 " is negative", t->dims[i]);
        out->dim[i] = t->dims[i];
    }
    int64_t count = 0;
    size_t bytes = 0;
    if (!tensor_count(out, &count) || !tensor_bytes(out, &bytes))
        return diag_error(d, DIAG_LIMIT, path, "its shape has 2^47 elements or bytes, or more");

    bool external = t->has_data_location && t->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    if (t->n_external_data > 0 && !external)
        return diag_error(d, DIAG_ONNX_EXTERNAL, path,
                          "has external_data entries but its data_location is not EXTERNAL");
    if (t->has_data_location && (int)t->data_location != 0 && !external)
        return diag_error(d, DIAG_ONNX_EXTERNAL, path, "data_location %d is unknown", (int)t->data_location);
    const uint8_t *raw = NULL;
    size_t raw_n = 0;
    if (t->segment != NULL) {
        raw = file->p + t->segment->begin;
        raw_n = (size_t)(t->segment->end - t->segment->begin);
    }
    int used = (raw_n > 0) + external + (t->n_float_data > 0) + (t->n_int32_data > 0) + (t->n_string_data > 0) +
               (t->n_int64_data > 0) + (t->n_double_data > 0) + (t->n_uint64_data > 0);
    if (used > 1)
        return diag_error(d, DIAG_ONNX_TENSOR, path, "has data in more than one field");
    if (external) {
        if (!external_bytes(file, t, bytes, &raw, d))
            return false;
        place_bytes(out, raw, bytes, a);
        return true;
    }
    if (raw_n > 0 || count == 0) {
        if (raw_n != bytes || (raw_n == 0 && used > 0))
            return diag_error(d, DIAG_ONNX_TENSOR, path, "has %zu bytes of raw data, its shape needs %zu",
                              raw_n, bytes);
        place_bytes(out, raw, raw_n, a);
        return true;
    }
    const void *values = NULL;
    size_t n = typed_field(t, out->dtype, &values);
    if (n == 0 && used > 0)
        return diag_error(d, DIAG_ONNX_TENSOR, path, "has its data in a field that does not go with type %s",
                          onnx_dtype_name(t->data_type));
    if (n != (size_t)count)
        return diag_error(d, DIAG_ONNX_TENSOR, path, "has %zu values, its shape needs %" PRId64, n, count);
    if (values != NULL) {
        out->data = arena_copy(a, values, bytes);
        return true;
    }
    return tensor_alloc(a, out) && from_int32(t, out, count, path, d);
}

bool onnx_tensor_file(const char *path, Arena *a, Tensor *out, Diag *d)
{
    OnnxFiles *files = onnx_files_new();
    OnnxFile f;
    bool ok = onnx_file_open(files, path, ONNX_TENSOR, &f, d);
    if (ok) {
        ok = onnx_tensor(&f, f.tensor, a, out, d);
        size_t bytes = 0;
        if (ok && tensor_bytes(out, &bytes) && bytes > 0)
            out->data = arena_copy(a, out->data, bytes); /* the mapping ends here */
        onnx_file_close(&f);
    }
    onnx_files_free(files);
    return ok;
}

/* ---- parameters ------------------------------------------------------------------------------------------ */

/* Of the bytes at both ends only: candidates are compared in full, and a gigabyte is not read for nothing. */
static uint64_t weight_hash(const Tensor *t, size_t bytes)
{
    enum { PART = 4096 };
    uint64_t h = hash_bytes(0, &t->dtype, sizeof t->dtype);
    h = hash_bytes(h, t->dim, sizeof t->dim[0] * (size_t)t->rank);
    h = hash_bytes(h, t->data, bytes < PART ? bytes : PART);
    if (bytes > PART)
        h = hash_bytes(h, (const uint8_t *)t->data + bytes - PART, PART);
    return h;
}

ParamId onnx_param(Module *m, OnnxFiles *files, const Tensor *t, Str name, ParamKind kind, Str origin)
{
    size_t bytes = 0;
    CHECK(tensor_bytes(t, &bytes));
    uint64_t h = weight_hash(t, bytes);
    Str key = {arena_copy(files->arena, &h, sizeof h), sizeof h};
    uint32_t first = NONE;
    bool known = namemap_find(&files->by_hash, key, &first);
    for (uint32_t i = first; i != NONE; i = files->weight.item[i].next) {
        const Param *p = &m->param[files->weight.item[i].param];
        if (p->kind == kind && p->dtype == t->dtype && p->rank == t->rank &&
            memcmp(p->dim, t->dim, sizeof t->dim[0] * (size_t)t->rank) == 0 && memcmp(p->data, t->data, bytes) == 0)
            return files->weight.item[i].param;
    }
    Param p = {.name = name, .kind = kind, .dtype = t->dtype, .rank = t->rank, .data = t->data, .init = NONE,
               .origin = origin};
    memcpy(p.dim, t->dim, sizeof p.dim);
    ParamId id = module_param(m, p);
    /* The head of a chain stays what it is: later weights with the same hash go behind it. */
    OnnxWeight w = {h, id, known ? files->weight.item[first].next : NONE};
    uint32_t at = (uint32_t)files->weight.count;
    if (known)
        files->weight.item[first].next = at;
    else
        namemap_add(&files->by_hash, key, at);
    vec_push(&files->weight, w);
    return id;
}
