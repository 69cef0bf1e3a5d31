/* The wire format of ONNX, walked before anything is unpacked.
 *
 * protobuf-c recurses as deep as a file says, merges repeated singular messages in quadratic time and takes up to
 * a hundred times a file's size in memory. So this walk, which needs only a stack of LIMIT_ONNX_NESTING frames,
 * comes first: it knows the schema as a table and refuses what a well-made file never has. What it writes is a
 * fresh message: minimal tags, no unknown fields, tensor bytes left behind in the file. */
#include "onnx_impl.h"

#include <stdio.h>
#include <string.h>

typedef enum Msg {
    M_MODEL,
    M_GRAPH,
    M_NODE,
    M_ATTR,
    M_TENSOR,
    M_SPARSE,
    M_VALUE,
    M_TYPE,
    M_TYPE_TENSOR,
    M_TYPE_SEQ,
    M_TYPE_MAP,
    M_TYPE_OPT,
    M_SHAPE,
    M_DIM,
    M_ENTRY,
    M_OPSET,
    M_FUNCTION,
    M_TRAINING,
    M_ANNOTATION,
    M_COUNT
} Msg;

/* Name for diagnostics, bytes an unpacked one takes, whether it counts against LIMIT_ONNX_ITEMS. */
static const struct MsgInfo {
    const char *name;
    uint32_t bytes;
    bool counted;
} msg_info[M_COUNT] = {
    [M_MODEL] = {"ModelProto", sizeof(Onnx__ModelProto), false},
    [M_GRAPH] = {"GraphProto", sizeof(Onnx__GraphProto), true},
    [M_NODE] = {"NodeProto", sizeof(Onnx__NodeProto), true},
    [M_ATTR] = {"AttributeProto", sizeof(Onnx__AttributeProto), false},
    [M_TENSOR] = {"TensorProto", sizeof(Onnx__TensorProto), true},
    [M_SPARSE] = {"SparseTensorProto", sizeof(Onnx__SparseTensorProto), true},
    [M_VALUE] = {"ValueInfoProto", sizeof(Onnx__ValueInfoProto), true},
    [M_TYPE] = {"TypeProto", sizeof(Onnx__TypeProto), false},
    [M_TYPE_TENSOR] = {"TypeProto.Tensor", sizeof(Onnx__TypeProto__Tensor), false},
    [M_TYPE_SEQ] = {"TypeProto.Sequence", sizeof(Onnx__TypeProto__Sequence), false},
    [M_TYPE_MAP] = {"TypeProto.Map", sizeof(Onnx__TypeProto__Map), false},
    [M_TYPE_OPT] = {"TypeProto.Optional", sizeof(Onnx__TypeProto__Optional), false},
    [M_SHAPE] = {"TensorShapeProto", sizeof(Onnx__TensorShapeProto), false},
    [M_DIM] = {"TensorShapeProto.Dimension", sizeof(Onnx__TensorShapeProto__Dimension), false},
    [M_ENTRY] = {"StringStringEntryProto", sizeof(Onnx__StringStringEntryProto), false},
    [M_OPSET] = {"OperatorSetIdProto", sizeof(Onnx__OperatorSetIdProto), false},
    [M_FUNCTION] = {"FunctionProto", sizeof(Onnx__FunctionProto), true},
    [M_TRAINING] = {"TrainingInfoProto", sizeof(Onnx__TrainingInfoProto), false},
    [M_ANNOTATION] = {"TensorAnnotation", sizeof(Onnx__TensorAnnotation), false},
};

typedef enum Kind {
    K_INT,  /* varint, 64 bits */
    K_I32,  /* varint that has to fit int32 */
    K_F32,
    K_F64,
    K_TEXT, /* a name: no NUL, which C strings would cut */
    K_BYTES,
    K_RAW,  /* replaced by its place */
    K_MSG
} Kind;

typedef enum Mode {
    ONE,    /* at most once */
    MANY,
    DROP,   /* checked, not written; any number */
    REFUSE  /* legal but unsupported */
} Mode;

typedef struct Field {
    uint8_t msg, number, kind, mode, sub;
} Field;

/* Grouped by message in the order of Msg. */
static const Field fields[] = {
    {M_MODEL, 1, K_INT, ONE, 0},
    {M_MODEL, 2, K_BYTES, DROP, 0},
    {M_MODEL, 3, K_BYTES, DROP, 0},
    {M_MODEL, 4, K_BYTES, DROP, 0},
    {M_MODEL, 5, K_INT, DROP, 0},
    {M_MODEL, 6, K_BYTES, DROP, 0},
    {M_MODEL, 7, K_MSG, ONE, M_GRAPH},
    {M_MODEL, 8, K_MSG, MANY, M_OPSET},
    {M_MODEL, 14, K_MSG, DROP, M_ENTRY},
    {M_MODEL, 20, K_MSG, DROP, M_TRAINING},
    {M_MODEL, 25, K_MSG, MANY, M_FUNCTION},
    {M_GRAPH, 1, K_MSG, MANY, M_NODE},
    {M_GRAPH, 2, K_TEXT, ONE, 0},
    {M_GRAPH, 5, K_MSG, MANY, M_TENSOR},
    {M_GRAPH, 10, K_BYTES, DROP, 0},
    {M_GRAPH, 11, K_MSG, MANY, M_VALUE},
    {M_GRAPH, 12, K_MSG, MANY, M_VALUE},
    {M_GRAPH, 13, K_MSG, DROP, M_VALUE},
    {M_GRAPH, 14, K_MSG, DROP, M_ANNOTATION},
    {M_GRAPH, 15, K_MSG, MANY, M_SPARSE},
    {M_NODE, 1, K_TEXT, MANY, 0},
    {M_NODE, 2, K_TEXT, MANY, 0},
    {M_NODE, 3, K_TEXT, ONE, 0},
    {M_NODE, 4, K_TEXT, ONE, 0},
    {M_NODE, 5, K_MSG, MANY, M_ATTR},
    {M_NODE, 6, K_BYTES, DROP, 0},
    {M_NODE, 7, K_TEXT, ONE, 0},
    {M_ATTR, 1, K_TEXT, ONE, 0},
    {M_ATTR, 2, K_F32, ONE, 0},
    {M_ATTR, 3, K_INT, ONE, 0},
    {M_ATTR, 4, K_BYTES, ONE, 0},
    {M_ATTR, 5, K_MSG, ONE, M_TENSOR},
    {M_ATTR, 6, K_MSG, ONE, M_GRAPH},
    {M_ATTR, 7, K_F32, MANY, 0},
    {M_ATTR, 8, K_INT, MANY, 0},
    {M_ATTR, 9, K_BYTES, MANY, 0},
    {M_ATTR, 10, K_MSG, MANY, M_TENSOR},
    {M_ATTR, 11, K_MSG, MANY, M_GRAPH},
    {M_ATTR, 13, K_BYTES, DROP, 0},
    {M_ATTR, 14, K_MSG, ONE, M_TYPE},
    {M_ATTR, 15, K_MSG, MANY, M_TYPE},
    {M_ATTR, 20, K_I32, ONE, 0},
    {M_ATTR, 21, K_TEXT, ONE, 0},
    {M_ATTR, 22, K_MSG, ONE, M_SPARSE},
    {M_ATTR, 23, K_MSG, MANY, M_SPARSE},
    {M_TENSOR, 1, K_INT, MANY, 0},
    {M_TENSOR, 2, K_I32, ONE, 0},
    {M_TENSOR, 3, K_BYTES, REFUSE, 0},
    {M_TENSOR, 4, K_F32, MANY, 0},
    {M_TENSOR, 5, K_I32, MANY, 0},
    {M_TENSOR, 6, K_BYTES, MANY, 0},
    {M_TENSOR, 7, K_INT, MANY, 0},
    {M_TENSOR, 8, K_TEXT, ONE, 0},
    {M_TENSOR, 9, K_RAW, ONE, 0},
    {M_TENSOR, 10, K_F64, MANY, 0},
    {M_TENSOR, 11, K_INT, MANY, 0},
    {M_TENSOR, 12, K_BYTES, DROP, 0},
    {M_TENSOR, 13, K_MSG, MANY, M_ENTRY},
    {M_TENSOR, 14, K_I32, ONE, 0},
    {M_SPARSE, 1, K_MSG, ONE, M_TENSOR},
    {M_SPARSE, 2, K_MSG, ONE, M_TENSOR},
    {M_SPARSE, 3, K_INT, MANY, 0},
    {M_VALUE, 1, K_TEXT, ONE, 0},
    {M_VALUE, 2, K_MSG, ONE, M_TYPE},
    {M_VALUE, 3, K_BYTES, DROP, 0},
    {M_TYPE, 1, K_MSG, ONE, M_TYPE_TENSOR},
    {M_TYPE, 4, K_MSG, ONE, M_TYPE_SEQ},
    {M_TYPE, 5, K_MSG, ONE, M_TYPE_MAP},
    {M_TYPE, 6, K_BYTES, DROP, 0},
    {M_TYPE, 8, K_MSG, ONE, M_TYPE_TENSOR},
    {M_TYPE, 9, K_MSG, ONE, M_TYPE_OPT},
    {M_TYPE_TENSOR, 1, K_I32, ONE, 0},
    {M_TYPE_TENSOR, 2, K_MSG, ONE, M_SHAPE},
    {M_TYPE_SEQ, 1, K_MSG, ONE, M_TYPE},
    {M_TYPE_MAP, 1, K_I32, ONE, 0},
    {M_TYPE_MAP, 2, K_MSG, ONE, M_TYPE},
    {M_TYPE_OPT, 1, K_MSG, ONE, M_TYPE},
    {M_SHAPE, 1, K_MSG, MANY, M_DIM},
    {M_DIM, 1, K_INT, ONE, 0},
    {M_DIM, 2, K_TEXT, ONE, 0},
    {M_DIM, 3, K_BYTES, DROP, 0},
    {M_ENTRY, 1, K_TEXT, ONE, 0},
    {M_ENTRY, 2, K_TEXT, ONE, 0},
    {M_OPSET, 1, K_TEXT, ONE, 0},
    {M_OPSET, 2, K_INT, ONE, 0},
    {M_FUNCTION, 1, K_TEXT, ONE, 0},
    {M_FUNCTION, 4, K_BYTES, DROP, 0},
    {M_FUNCTION, 5, K_BYTES, DROP, 0},
    {M_FUNCTION, 6, K_BYTES, DROP, 0},
    {M_FUNCTION, 7, K_MSG, DROP, M_NODE},
    {M_FUNCTION, 8, K_BYTES, DROP, 0},
    {M_FUNCTION, 9, K_MSG, DROP, M_OPSET},
    {M_FUNCTION, 10, K_TEXT, ONE, 0},
    {M_TRAINING, 1, K_MSG, DROP, M_GRAPH},
    {M_TRAINING, 2, K_MSG, DROP, M_GRAPH},
    {M_TRAINING, 3, K_MSG, DROP, M_ENTRY},
    {M_TRAINING, 4, K_MSG, DROP, M_ENTRY},
    {M_ANNOTATION, 1, K_TEXT, ONE, 0},
    {M_ANNOTATION, 2, K_MSG, MANY, M_ENTRY},
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

enum { W_VARINT = 0, W_64 = 1, W_LEN = 2, W_GROUP = 3, W_GROUP_END = 4, W_32 = 5 };
enum { RAW_FIELD = 9, SEGMENT_FIELD = 3, NODE_NAME_FIELD = 3, LEN_BYTES = 5 };

typedef struct Frame {
    const uint8_t *end;
    size_t len_at;  /* where in the output its length goes */
    uint32_t seen;  /* singular fields met, by number */
    Msg msg;
    bool mute;
} Frame;

typedef struct Scan {
    const uint8_t *base, *p;
    Text *out;
    size_t cost, items, graphs;
    Frame stack[LIMIT_ONNX_NESTING];
    int depth;
    const char *file;
    Diag *d;
} Scan;

MOEC_PRINTF(3, 4)
static bool scan_error(Scan *s, DiagCode code, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return diag_error(s->d, code, s->file, "%sbyte %zu (%s): %s", code == DIAG_LIMIT ? "" : "not a well-formed ONNX file: ",
                      (size_t)(s->p - s->base), msg_info[s->stack[s->depth].msg].name, what);
}

static bool varint_read(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 10 && *p + i < end; i++) {
        uint64_t b = (*p)[i];
        if (i == 9 && b > 1)
            return false;
        v |= (b & 0x7f) << (7 * i);
        if (b < 0x80) {
            *p += i + 1;
            *out = v;
            return true;
        }
    }
    return false;
}

static void varint_write(Text *t, uint64_t v)
{
    char b[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        b[n++] = (char)(v | 0x80);
    b[n++] = (char)v;
    text_add(t, b, n);
}

static void tag_write(Text *t, unsigned number, unsigned wire)
{
    varint_write(t, number << 3 | wire);
}

static bool fits_i32(uint64_t v)
{
    int64_t s = (int64_t)v;
    return s >= INT32_MIN && s <= INT32_MAX;
}

static const Field *field_find(Msg msg, uint64_t number)
{
    for (int i = 0; i < N_FIELDS; i++)
        if (fields[i].msg == msg && fields[i].number == number)
            return &fields[i];
    return NULL;
}

/* Bytes an element takes unpacked, and on the wire (0: a varint). */
static size_t kind_bytes(Kind k)
{
    return k == K_F32 || k == K_I32 ? 4 : 8;
}

static bool scan_packed(Scan *s, const Field *f, size_t n)
{
    const uint8_t *end = s->p + n;
    const uint8_t *begin = s->p;
    size_t count = 0;
    if (f->kind == K_F32 || f->kind == K_F64) {
        if (n % kind_bytes(f->kind) != 0)
            return scan_error(s, DIAG_ONNX_MALFORMED, "packed numbers end inside one");
        count = n / kind_bytes(f->kind);
    } else {
        for (const uint8_t *p = begin; p < end; count++) {
            uint64_t v;
            if (!varint_read(&p, end, &v)) {
                s->p = p;
                return scan_error(s, DIAG_ONNX_MALFORMED, "packed numbers end inside one");
            }
            if (f->kind == K_I32 && !fits_i32(v)) {
                s->p = p;
                return scan_error(s, DIAG_ONNX_MALFORMED, "number does not fit 32 bits");
            }
        }
    }
    if (!s->stack[s->depth].mute) {
        s->cost += count * kind_bytes(f->kind);
        tag_write(s->out, f->number, W_LEN);
        varint_write(s->out, n);
        text_add(s->out, (const char *)begin, n);
    }
    s->p = end;
    return true;
}

static bool scan_open(Scan *s, const Field *f, size_t n)
{
    bool mute = s->stack[s->depth].mute || f->mode == DROP;
    if (s->depth + 1 >= LIMIT_ONNX_NESTING)
        return scan_error(s, DIAG_LIMIT, "messages are nested more than %d deep", LIMIT_ONNX_NESTING);
    const struct MsgInfo *info = &msg_info[f->sub];
    if (info->counted && ++s->items > LIMIT_ONNX_ITEMS)
        return scan_error(s, DIAG_LIMIT, "more than %d graphs, nodes, tensors, value infos and functions", LIMIT_ONNX_ITEMS);
    if ((f->sub == M_GRAPH || f->sub == M_FUNCTION) && ++s->graphs > LIMIT_ONNX_GRAPHS)
        return scan_error(s, DIAG_LIMIT, "more than %d graphs and functions", LIMIT_ONNX_GRAPHS);
    if (!mute) {
        s->cost += info->bytes + 32;
        tag_write(s->out, f->number, W_LEN);
    }
    Frame *top = &s->stack[++s->depth];
    *top = (Frame){s->p + n, s->out->n, 0, (Msg)f->sub, mute};
    if (!mute)
        text_add(s->out, "\0\0\0\0\0", LEN_BYTES);
    return true;
}

/* Lengths are patched in when a message ends: always five bytes, the form parsers accept for any value. */
static void scan_close(Scan *s)
{
    Frame *top = &s->stack[s->depth--];
    if (top->mute)
        return;
    uint64_t n = s->out->n - top->len_at - LEN_BYTES;
    for (int i = 0; i < LEN_BYTES; i++, n >>= 7)
        s->out->p[top->len_at + (size_t)i] = (char)((n & 0x7f) | (i + 1 < LEN_BYTES ? 0x80 : 0));
}

/* The bytes of s->p .. s->p + n as field f. */
static bool scan_bytes(Scan *s, const Field *f, size_t n)
{
    const char *p = (const char *)s->p;
    if (f->kind == K_TEXT && n > 0 && memchr(p, 0, n) != NULL)
        return scan_error(s, DIAG_ONNX_MALFORMED, "a name holds a NUL byte");
    bool later = f->msg == M_NODE && f->number == NODE_NAME_FIELD; /* when the operator is known to be one */
    if (f->kind == K_TEXT && n > LIMIT_NAME && !later)
        return scan_error(s, DIAG_LIMIT, "a name of %zu bytes; the limit is %d", n, LIMIT_NAME);
    if (!s->stack[s->depth].mute && f->mode != DROP) {
        if (f->kind == K_RAW) {
            Text seg = {0};
            tag_write(&seg, 1, W_VARINT);
            varint_write(&seg, (uint64_t)(s->p - s->base));
            tag_write(&seg, 2, W_VARINT);
            varint_write(&seg, (uint64_t)(s->p - s->base) + n);
            tag_write(s->out, SEGMENT_FIELD, W_LEN);
            varint_write(s->out, seg.n);
            text_add(s->out, seg.p, seg.n);
            text_free(&seg);
            s->cost += 64;
        } else {
            tag_write(s->out, f->number, W_LEN);
            varint_write(s->out, n);
            text_add(s->out, p, n);
            s->cost += n + 64;
        }
    }
    s->p += n;
    return true;
}

static bool scan_field(Scan *s)
{
    Frame *top = &s->stack[s->depth];
    uint64_t tag, v = 0;
    if (!varint_read(&s->p, top->end, &tag))
        return scan_error(s, DIAG_ONNX_MALFORMED, "ends inside a tag");
    uint64_t number = tag >> 3;
    unsigned wire = tag & 7;
    if (number == 0 || tag > UINT32_MAX)
        return scan_error(s, DIAG_ONNX_MALFORMED, "field number out of range");
    size_t left = (size_t)(top->end - s->p);
    const uint8_t *value = s->p;
    switch (wire) {
    case W_VARINT:
        if (!varint_read(&s->p, top->end, &v))
            return scan_error(s, DIAG_ONNX_MALFORMED, "malformed number");
        break;
    case W_64:
    case W_32:
        if (left < (wire == W_64 ? 8u : 4u))
            return scan_error(s, DIAG_ONNX_MALFORMED, "ends inside a number");
        s->p += wire == W_64 ? 8 : 4;
        break;
    case W_LEN:
        if (!varint_read(&s->p, top->end, &v) || v > (size_t)(top->end - s->p))
            return scan_error(s, DIAG_ONNX_MALFORMED,
                              "a length reaches past the end: the file is cut short or damaged");
        break;
    default:
        return scan_error(s, DIAG_ONNX_MALFORMED, "%s",
                          wire == W_GROUP || wire == W_GROUP_END ? "groups are not part of ONNX"
                                                                 : "no such wire type");
    }
    const Field *f = field_find(top->msg, number);
    if (f == NULL) {
        s->p += wire == W_LEN ? v : 0;
        return true;
    }
    if (f->mode == REFUSE)
        return scan_error(s, DIAG_ONNX_FEATURE, "a tensor in segments is not supported");
    if (f->mode == ONE) {
        if (top->seen >> f->number & 1)
            return scan_error(s, DIAG_ONNX_MALFORMED, "a field that may stand once stands twice");
        top->seen |= 1u << f->number;
    }
    static const uint8_t wires[] = {[K_INT] = W_VARINT, [K_I32] = W_VARINT, [K_F32] = W_32, [K_F64] = W_64,
                                    [K_TEXT] = W_LEN,   [K_BYTES] = W_LEN,  [K_RAW] = W_LEN, [K_MSG] = W_LEN};
    bool number_kind = f->kind <= K_F64;
    if (number_kind && wire == W_LEN && f->mode == MANY)
        return scan_packed(s, f, (size_t)v);
    if (wire != wires[f->kind])
        return scan_error(s, DIAG_ONNX_MALFORMED, "a known field has another wire type");
    if (f->kind == K_MSG)
        return scan_open(s, f, (size_t)v);
    if (!number_kind)
        return scan_bytes(s, f, (size_t)v);
    if (f->kind == K_I32 && !fits_i32(v))
        return scan_error(s, DIAG_ONNX_MALFORMED, "number does not fit 32 bits");
    if (!top->mute && f->mode != DROP) {
        s->cost += kind_bytes(f->kind);
        tag_write(s->out, f->number, wire);
        if (wire == W_VARINT)
            varint_write(s->out, v);
        else
            text_add(s->out, (const char *)value, wire == W_64 ? 8 : 4);
    }
    return true;
}

bool onnx_scan(const uint8_t *p, size_t n, OnnxRoot root, Text *slim, size_t *cost, const char *file, Diag *d)
{
    static const char lfs[] = "version https://git-lfs";
    if (n == 0)
        return diag_error(d, DIAG_ONNX_NOT_A_MODEL, file, "is empty");
    if (n >= sizeof lfs - 1 && memcmp(p, lfs, sizeof lfs - 1) == 0)
        return diag_error(d, DIAG_ONNX_NOT_A_MODEL, file,
                          "is a git-lfs pointer, not the model itself: run `git lfs pull`");
    Scan *s = mem_alloc(sizeof *s);
    s->base = s->p = p;
    s->out = slim;
    s->file = file;
    s->d = d;
    s->stack[0] = (Frame){p + n, 0, 0, root == ONNX_MODEL ? M_MODEL : M_TENSOR, false};
    size_t budget = ((size_t)256 << 20) + 4 * n;
    bool ok = true;
    while (ok) {
        while (s->depth > 0 && s->p == s->stack[s->depth].end)
            scan_close(s);
        if (s->depth == 0 && s->p == s->stack[0].end)
            break;
        ok = scan_field(s);
        if (ok && s->cost > budget)
            ok = scan_error(s, DIAG_LIMIT, "would take unreasonably much memory");
    }
    *cost = s->cost;
    mem_free(s);
    return ok;
}
