/* Writes a T5 of any size with random weights, as Hugging Face Optimum exports one: encoder_model.onnx,
 * decoder_model.onnx, their external data and config.json.
 *
 *   gen_t5 DIR [small|base|large] [KEY=VALUE ...]
 *
 *   KEY: d_model d_ff d_kv heads layers dec_layers vocab buckets distance gated tied seed
 *
 * The nodes are those of Optimum 1.13 with opset 13 (torch.onnx, TorchScript), in their order and with
 * their names. Weights are streamed to the data files, so that the model may exceed memory. A weight's
 * values depend on the seed and its name alone: the embedding of both files is the same. */
#include "onnx.pb-c.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { F32 = 1, I64 = 7 };
enum { INLINE_BYTES = 1024 }; /* smaller tensors stay in the .onnx file, as onnx.save_model leaves them */

typedef struct Shape {
    long d_model, d_ff, d_kv, heads, layers, dec_layers, vocab, buckets, distance, gated, tied, seed;
} Shape;

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "gen_t5: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* What `need` gave, names and messages: it lives until both models are written. */
typedef struct Block {
    struct Block *next;
    max_align_t bytes[];
} Block;

static Block *blocks;

static void *need(size_t bytes) {
    Block *b = calloc(1, sizeof *b + bytes);
    if (b == NULL)
        fail("memory");
    b->next = blocks;
    blocks = b;
    return b->bytes;
}

static void release(void) {
    while (blocks != NULL) {
        Block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

static char *text(const char *fmt, ...) {
    char buffer[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(buffer, sizeof buffer, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof buffer) {
        errno = ENAMETOOLONG;
        fail(buffer);
    }
    char *s = need((size_t)n + 1);
    memcpy(s, buffer, (size_t)n);
    return s;
}

/* ---- a graph being written ----------------------------------------------------------------------- */

typedef struct Graph {
    Onnx__GraphProto g;
    size_t room_node, room_init, room_in, room_out;
    FILE *data;
    char *data_name;
    int64_t at;
    uint64_t seed;
    const char *scope; /* put before node names */
} Graph;

#define PUSH(list, count, room, item)                                                                        \
    do {                                                                                                     \
        if ((count) == (room)) {                                                                             \
            (room) = (room) ? 2 * (room) : 64;                                                               \
            (list) = realloc((list), (room) * sizeof *(list));                                               \
            if ((list) == NULL)                                                                              \
                fail("memory");                                                                              \
        }                                                                                                    \
        (list)[(count)++] = (item);                                                                          \
    } while (0)

static Onnx__AttributeProto *attr_new(const char *name, Onnx__AttributeProto__AttributeType type) {
    Onnx__AttributeProto *a = need(sizeof *a);
    onnx__attribute_proto__init(a);
    a->name = text("%s", name);
    a->has_type = 1;
    a->type = type;
    return a;
}

static Onnx__AttributeProto *attr_int(const char *name, int64_t v) {
    Onnx__AttributeProto *a = attr_new(name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    a->has_i = 1;
    a->i = v;
    return a;
}

static Onnx__AttributeProto *attr_ints(const char *name, int n, const int64_t *v) {
    Onnx__AttributeProto *a = attr_new(name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    a->n_ints = (size_t)n;
    a->ints = need(sizeof *v * (size_t)n);
    memcpy(a->ints, v, sizeof *v * (size_t)n);
    return a;
}

static Onnx__TensorProto *tensor_new(int type, int rank, const int64_t *dim, const void *raw, size_t bytes) {
    Onnx__TensorProto *t = need(sizeof *t);
    onnx__tensor_proto__init(t);
    t->n_dims = (size_t)rank;
    t->dims = need(sizeof *dim * (size_t)(rank + 1));
    memcpy(t->dims, dim, sizeof *dim * (size_t)rank);
    t->has_data_type = 1;
    t->data_type = type;
    if (raw != NULL) {
        t->has_raw_data = 1;
        t->raw_data.len = bytes;
        t->raw_data.data = need(bytes);
        memcpy(t->raw_data.data, raw, bytes);
    }
    return t;
}

static Onnx__AttributeProto *attr_tensor(Onnx__TensorProto *t) {
    Onnx__AttributeProto *a = attr_new("value", ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR);
    a->t = t;
    return a;
}

/* Appends a node named scope + name and returns its only output. NULL ends operands; a may be NULL. */
static char *node(Graph *g, const char *op, const char *name, Onnx__AttributeProto *a,
                  Onnx__AttributeProto *b, ...) {
    Onnx__NodeProto *n = need(sizeof *n);
    onnx__node_proto__init(n);
    n->op_type = text("%s", op);
    n->name = text("%s/%s", g->scope, name);
    n->input = need(8 * sizeof *n->input);
    va_list args;
    va_start(args, b);
    for (char *in = va_arg(args, char *); in != NULL; in = va_arg(args, char *))
        n->input[n->n_input++] = in;
    va_end(args);
    n->output = need(sizeof *n->output);
    n->n_output = 1;
    n->output[0] = text("%s_output_0", n->name);
    n->attribute = need(2 * sizeof *n->attribute);
    if (a != NULL)
        n->attribute[n->n_attribute++] = a;
    if (b != NULL)
        n->attribute[n->n_attribute++] = b;
    PUSH(g->g.node, g->g.n_node, g->room_node, n);
    return n->output[0];
}

/* The last node's output gets this name instead: it is an output of the graph. */
static char *rename_last(Graph *g, char *name) {
    g->g.node[g->g.n_node - 1]->output[0] = name;
    return name;
}

static char *constant_name(Graph *g) {
    return text("Constant_%zu", g->g.n_node);
}

static char *int_scalar(Graph *g, int64_t v) {
    return node(g, "Constant", constant_name(g), attr_tensor(tensor_new(I64, 0, &v, &v, sizeof v)), NULL,
                NULL);
}

static char *int_vector(Graph *g, int64_t v) {
    int64_t one = 1;
    return node(g, "Constant", constant_name(g), attr_tensor(tensor_new(I64, 1, &one, &v, sizeof v)), NULL,
                NULL);
}

static char *float_scalar(Graph *g, float v) {
    int64_t none = 0;
    return node(g, "Constant", constant_name(g), attr_tensor(tensor_new(F32, 0, &none, &v, sizeof v)), NULL,
                NULL);
}

static char *filled(Graph *g, const char *name, char *shape, int type, const void *v, size_t bytes) {
    int64_t one = 1;
    return node(g, "ConstantOfShape", name, attr_tensor(tensor_new(type, 1, &one, v, bytes)), NULL, shape,
                NULL);
}

static char *unsqueeze(Graph *g, const char *name, char *x, int64_t axis) {
    char *axes = int_vector(g, axis);
    return node(g, "Unsqueeze", name, NULL, NULL, x, axes, NULL);
}

static char *cast(Graph *g, const char *name, char *x, int to) {
    return node(g, "Cast", name, attr_int("to", to), NULL, x, NULL);
}

static char *shape_of(Graph *g, const char *suffix, char *x, int64_t axis) {
    char *shape = node(g, "Shape", text("Shape%s", suffix), NULL, NULL, x, NULL);
    char *index = int_scalar(g, axis);
    return node(g, "Gather", text("Gather%s", suffix), attr_int("axis", 0), NULL, shape, index, NULL);
}

/* ---- weights ------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform values of mean `mean` and standard deviation `deviation`; rows * cols of them, [rows] when cols is
 * 0. */
static void weight(Graph *g, const char *name, const char *key, long rows, long cols, double mean,
                   double deviation) {
    int64_t dim[2] = {rows, cols}, count = rows * (cols > 0 ? cols : 1), done = 0;
    uint64_t state = g->seed;
    for (const char *c = key; *c != 0; c++)
        state = mix(state + (unsigned char)*c + UINT64_C(0x9e3779b97f4a7c15));
    bool inside = (size_t)count * sizeof(float) < INLINE_BYTES;
    Onnx__TensorProto *t = tensor_new(F32, cols > 0 ? 2 : 1, dim, NULL, 0);
    t->name = text("%s", name);
    if (inside) {
        t->has_raw_data = 1;
        t->raw_data.len = (size_t)count * sizeof(float);
        t->raw_data.data = need(t->raw_data.len);
    }
    static float block[1 << 16];
    while (done < count) {
        int64_t n = count - done < (int64_t)(sizeof block / sizeof *block)
                        ? count - done
                        : (int64_t)(sizeof block / sizeof *block);
        for (int64_t i = 0; i < n; i++) {
            state += UINT64_C(0x9e3779b97f4a7c15);
            double unit = (double)(mix(state) >> 40) * 0x1p-23 - 1;
            block[i] = (float)(mean + deviation * 1.7320508075688772 * unit);
        }
        if (inside)
            memcpy(t->raw_data.data + done * (int64_t)sizeof(float), block, (size_t)n * sizeof(float));
        else if (fwrite(block, sizeof(float), (size_t)n, g->data) != (size_t)n)
            fail(g->data_name);
        done += n;
    }
    if (!inside) {
        const char *keys[3] = {"location", "offset", "length"};
        char *values[3] = {g->data_name, text("%lld", (long long)g->at),
                           text("%lld", (long long)count * (long long)sizeof(float))};
        t->external_data = need(3 * sizeof *t->external_data);
        t->n_external_data = 3;
        for (int i = 0; i < 3; i++) {
            t->external_data[i] = need(sizeof **t->external_data);
            onnx__string_string_entry_proto__init(t->external_data[i]);
            t->external_data[i]->key = text("%s", keys[i]);
            t->external_data[i]->value = values[i];
        }
        t->has_data_location = 1;
        t->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
        g->at += count * (int64_t)sizeof(float);
        static const char zeros[64];
        int64_t pad = -g->at & 63;
        if (pad > 0 && fwrite(zeros, 1, (size_t)pad, g->data) != (size_t)pad)
            fail(g->data_name);
        g->at += pad;
    }
    PUSH(g->g.initializer, g->g.n_initializer, g->room_init, t);
}

/* ---- inputs and outputs -------------------------------------------------------------------------- */

/* `dims` is space separated: a number is an extent, anything else a symbol ('+' stands for " + "). */
static Onnx__ValueInfoProto *value_info(const char *name, int type, const char *dims) {
    Onnx__ValueInfoProto *v = need(sizeof *v);
    onnx__value_info_proto__init(v);
    v->name = text("%s", name);
    v->type = need(sizeof *v->type);
    onnx__type_proto__init(v->type);
    v->type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    Onnx__TypeProto__Tensor *t = v->type->tensor_type = need(sizeof *t);
    onnx__type_proto__tensor__init(t);
    t->has_elem_type = 1;
    t->elem_type = type;
    t->shape = need(sizeof *t->shape);
    onnx__tensor_shape_proto__init(t->shape);
    t->shape->dim = need(8 * sizeof *t->shape->dim);
    char *copy = text("%s", dims);
    for (char *part = strtok(copy, " "); part != NULL; part = strtok(NULL, " ")) {
        Onnx__TensorShapeProto__Dimension *d = need(sizeof *d);
        onnx__tensor_shape_proto__dimension__init(d);
        if (*part >= '0' && *part <= '9') {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            d->dim_value = atoll(part);
        } else {
            char *plus = strchr(part, '+');
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            d->dim_param = plus == NULL ? part : text("%.*s + %s", (int)(plus - part), part, plus + 1);
        }
        t->shape->dim[t->shape->n_dim++] = d;
    }
    return v;
}

static void graph_input(Graph *g, const char *name, int type, const char *dims) {
    Onnx__ValueInfoProto *v = value_info(name, type, dims);
    PUSH(g->g.input, g->g.n_input, g->room_in, v);
}

static void graph_output(Graph *g, const char *name, int type, const char *dims) {
    Onnx__ValueInfoProto *v = value_info(name, type, dims);
    PUSH(g->g.output, g->g.n_output, g->room_out, v);
}

static void graph_open(Graph *g, const char *dir, const char *file, const Shape *s) {
    onnx__graph_proto__init(&g->g);
    g->g.name = "torch_jit";
    g->seed = (uint64_t)s->seed;
    g->scope = "";
    g->data_name = text("%s_data", file);
    g->data = fopen(text("%s/%s", dir, g->data_name), "wb");
    if (g->data == NULL)
        fail(g->data_name);
}

static void graph_close(Graph *g, const char *dir, const char *file) {
    Onnx__OperatorSetIdProto opset = ONNX__OPERATOR_SET_ID_PROTO__INIT, *opsets[1] = {&opset};
    Onnx__ModelProto m = ONNX__MODEL_PROTO__INIT;
    opset.domain = "";
    opset.has_version = 1;
    opset.version = 13;
    m.has_ir_version = 1;
    m.ir_version = 7;
    m.producer_name = "pytorch";
    m.producer_version = "1.13.0";
    m.graph = &g->g;
    m.n_opset_import = 1;
    m.opset_import = opsets;
    size_t bytes = onnx__model_proto__get_packed_size(&m);
    uint8_t *packed = need(bytes);
    onnx__model_proto__pack(&m, packed);
    FILE *f = fopen(text("%s/%s", dir, file), "wb");
    if (f == NULL || fwrite(packed, 1, bytes, f) != bytes || fclose(f) != 0)
        fail(file);
    if (fclose(g->data) != 0)
        fail(g->data_name);
    free(g->g.node);
    free(g->g.initializer);
    free(g->g.input);
    free(g->g.output);
}

/* ---- T5 ----------------------------------------------------------------------------------------- */

static char *rms_norm(Graph *g, const char *scope, const char *name, long width, char **x) {
    g->scope = scope;
    weight(g, name, name, width, 0, 1, 0.1);
    *x = cast(g, "layer_norm/Cast", *x, F32);
    char *two = float_scalar(g, 2);
    char *square = node(g, "Pow", "layer_norm/Pow", NULL, NULL, *x, two, NULL);
    int64_t last = -1;
    char *mean = node(g, "ReduceMean", "layer_norm/ReduceMean", attr_ints("axes", 1, &last),
                      attr_int("keepdims", 1), square, NULL);
    char *eps = float_scalar(g, 1e-6f);
    char *sum = node(g, "Add", "layer_norm/Add", NULL, NULL, mean, eps, NULL);
    char *root = node(g, "Sqrt", "layer_norm/Sqrt", NULL, NULL, sum, NULL);
    char *one = float_scalar(g, 1);
    char *factor = node(g, "Div", "layer_norm/Div", NULL, NULL, one, root, NULL);
    char *scaled = node(g, "Mul", "layer_norm/Mul", NULL, NULL, *x, factor, NULL);
    return node(g, "Mul", "layer_norm/Mul_1", NULL, NULL, text("%s", name), scaled, NULL);
}

static char *linear(Graph *g, const char *key, const char *name, char *x, long in, long out,
                    double deviation) {
    char *w = text("onnx::MatMul_%zu", g->g.n_node);
    weight(g, w, key, in, out, 0, deviation);
    return node(g, "MatMul", text("%s/MatMul", name), NULL, NULL, x, w, NULL);
}

static char *split_shape(Graph *g, const Shape *s, const char *suffix, char *batch) {
    char *b = unsqueeze(g, text("Unsqueeze%s", suffix), batch, 0);
    char *any = int_vector(g, -1), *heads = int_vector(g, s->heads), *width = int_vector(g, s->d_kv);
    return node(g, "Concat", text("Concat%s", suffix), attr_int("axis", 0), NULL, b, any, heads, width, NULL);
}

/* The bucket of every (query, key): T5Attention._relative_position_bucket, as it is traced. */
static char *position_bias(Graph *g, const Shape *s, const char *weight_name, char *length,
                           bool bidirectional) {
    long buckets = bidirectional ? s->buckets / 2 : s->buckets, exact = buckets / 2;
    char *limit = cast(g, "Cast", length, I64);
    char *zero = int_scalar(g, 0), *one = int_scalar(g, 1);
    char *range = node(g, "Range", "Range", NULL, NULL, zero, limit, one, NULL);
    char *query = unsqueeze(g, "Unsqueeze_3", range, 1), *key = unsqueeze(g, "Unsqueeze_4", range, 0);
    char *distance = node(g, "Sub", "Sub", NULL, NULL, key, query, NULL), *offset = NULL;
    if (bidirectional) {
        char *none = int_scalar(g, 0);
        char *later = node(g, "Greater", "Greater", NULL, NULL, distance, none, NULL);
        later = cast(g, "Cast_1", later, I64);
        char *half = int_scalar(g, buckets);
        offset = node(g, "Mul", "Mul", NULL, NULL, later, half, NULL);
        char *base = int_scalar(g, 0);
        offset = node(g, "Add", "Add", NULL, NULL, offset, base, NULL);
        distance = node(g, "Abs", "Abs", NULL, NULL, distance, NULL);
    } else {
        int64_t none = 0;
        char *shape = node(g, "Shape", "Shape_2", NULL, NULL, distance, NULL);
        char *zeros = filled(g, "ConstantOfShape", shape, I64, &none, sizeof none);
        distance = node(g, "Min", "Min", NULL, NULL, distance, zeros, NULL);
        distance = node(g, "Neg", "Neg", NULL, NULL, distance, NULL);
    }
    char *bound = int_scalar(g, exact);
    char *small = node(g, "Less", "Less", NULL, NULL, distance, bound, NULL);
    char *x = cast(g, "Cast_2", distance, F32);
    char *unit = float_scalar(g, (float)exact);
    x = node(g, "Div", "Div", NULL, NULL, x, unit, NULL);
    x = node(g, "Log", "Log", NULL, NULL, x, NULL);
    char *span = float_scalar(g, (float)log((double)s->distance / (double)exact));
    x = node(g, "Div", "Div_1", NULL, NULL, x, span, NULL);
    char *steps = float_scalar(g, (float)(buckets - exact));
    x = node(g, "Mul", "Mul_1", NULL, NULL, x, steps, NULL);
    x = cast(g, "Cast_3", x, I64);
    char *first = int_scalar(g, exact);
    x = node(g, "Add", "Add_1", NULL, NULL, x, first, NULL);
    int64_t top = buckets - 1;
    char *shape = node(g, "Shape", "Shape_3", NULL, NULL, x, NULL);
    char *tops = filled(g, "ConstantOfShape_1", shape, I64, &top, sizeof top);
    x = node(g, "Min", "Min_1", NULL, NULL, x, tops, NULL);
    x = node(g, "Where", "Where", NULL, NULL, small, distance, x, NULL);
    if (offset != NULL)
        x = node(g, "Add", "Add_2", NULL, NULL, offset, x, NULL);
    static const int64_t heads_first[] = {2, 0, 1};
    x = node(g, "Gather", "relative_attention_bias/Gather", NULL, NULL, text("%s", weight_name), x, NULL);
    x = node(g, "Transpose", "Transpose_3", attr_ints("perm", 3, heads_first), NULL, x, NULL);
    return unsqueeze(g, "Unsqueeze_5", x, 0);
}

typedef struct Attention {
    const char *scope; /* of nodes */
    const char *key;   /* of weights */
    const char *bias_weight;
    char *memory; /* encoder states for cross attention, else NULL */
    char *mask;   /* added to the position bias */
    bool bidirectional;
    char *bias; /* in: that of layer 0, out: the same */
    const char *present_key, *present_value;
} Attention;

static char *attention(Graph *g, const Shape *s, Attention *a, char *x) {
    static const int64_t heads_out[] = {0, 2, 1, 3}, keys_last[] = {0, 2, 3, 1};
    long inner = s->heads * s->d_kv;
    double d = (double)s->d_model;
    g->scope = a->scope;
    char *from = a->memory != NULL ? a->memory : x;
    char *batch = shape_of(g, "", x, 0), *length = NULL, *memory_length = NULL;
    if (a->bias == NULL)
        length = shape_of(g, "_1", x, 1);
    if (a->bias == NULL && a->memory != NULL)
        memory_length = shape_of(g, "_2", a->memory, 1);
    char *q = linear(g, text("%s.q", a->key), "q", x, s->d_model, inner, 1 / sqrt(d * (double)s->d_kv));
    char *shape0 = split_shape(g, s, "", batch), *shape1 = split_shape(g, s, "_1", batch);
    char *shape2 = split_shape(g, s, "_2", batch);
    q = node(g, "Reshape", "Reshape", NULL, NULL, q, shape0, NULL);
    q = node(g, "Transpose", "Transpose", attr_ints("perm", 4, heads_out), NULL, q, NULL);
    char *k = linear(g, text("%s.k", a->key), "k", from, s->d_model, inner, 1 / sqrt(d));
    k = node(g, "Reshape", "Reshape_1", NULL, NULL, k, shape1, NULL);
    if (a->present_key != NULL) {
        node(g, "Transpose", "Transpose_1", attr_ints("perm", 4, heads_out), NULL, k, NULL);
        rename_last(g, text("%s", a->present_key));
    }
    char *v = linear(g, text("%s.v", a->key), "v", from, s->d_model, inner, 1 / sqrt(d));
    v = node(g, "Reshape", "Reshape_2", NULL, NULL, v, shape2, NULL);
    v = node(g, "Transpose", "Transpose_2", attr_ints("perm", 4, heads_out), NULL, v, NULL);
    if (a->present_value != NULL)
        v = rename_last(g, text("%s", a->present_value));
    k = node(g, "Transpose", "Transpose_5", attr_ints("perm", 4, keys_last), NULL, k, NULL);
    char *scores = node(g, "MatMul", "MatMul", NULL, NULL, q, k, NULL);
    if (a->bias == NULL && a->memory == NULL) {
        weight(g, a->bias_weight, a->bias_weight, s->buckets, s->heads, 0, 1 / sqrt(d));
        char *bias = position_bias(g, s, a->bias_weight, length, a->bidirectional);
        a->bias = node(g, "Add", "Add_3", NULL, NULL, bias, a->mask, NULL);
    } else if (a->bias == NULL) {
        float zero = 0;
        char *t = unsqueeze(g, "Unsqueeze_3", length, 0), *m = unsqueeze(g, "Unsqueeze_4", memory_length, 0);
        char *one = int_vector(g, 1), *heads = int_vector(g, s->heads);
        char *shape = node(g, "Concat", "Concat_3", attr_int("axis", 0), NULL, one, heads, t, m, NULL);
        char *zeros = filled(g, "ConstantOfShape", shape, F32, &zero, sizeof zero);
        a->bias = node(g, "Add", "Add_3", NULL, NULL, zeros, a->mask, NULL);
    }
    scores = node(g, "Add", "Add_4", NULL, NULL, scores, a->bias, NULL);
    scores = cast(g, "Cast_4", scores, F32);
    char *p = node(g, "Softmax", "Softmax", attr_int("axis", -1), NULL, scores, NULL);
    char *out = node(g, "MatMul", "MatMul_1", NULL, NULL, p, v, NULL);
    out = node(g, "Transpose", "Transpose_4", attr_ints("perm", 4, heads_out), NULL, out, NULL);
    char *b = unsqueeze(g, "Unsqueeze_6", batch, 0), *any = int_vector(g, -1), *width = int_vector(g, inner);
    char *merged = node(g, "Concat", "Concat_4", attr_int("axis", 0), NULL, b, any, width, NULL);
    out = node(g, "Reshape", "Reshape_3", NULL, NULL, out, merged, NULL);
    return linear(g, text("%s.o", a->key), "o", out, inner, s->d_model, 1 / sqrt((double)inner));
}

/* transformers' NewGELUActivation. */
static char *gelu_new(Graph *g, char *x) {
    char *half = float_scalar(g, 0.5f), *halved = node(g, "Mul", "act/Mul", NULL, NULL, x, half, NULL);
    char *three = float_scalar(g, 3), *cube = node(g, "Pow", "act/Pow", NULL, NULL, x, three, NULL);
    char *c = float_scalar(g, 0.044715f), *y = node(g, "Mul", "act/Mul_1", NULL, NULL, cube, c, NULL);
    y = node(g, "Add", "act/Add", NULL, NULL, x, y, NULL);
    char *root = float_scalar(g, 0.7978845608028654f);
    y = node(g, "Mul", "act/Mul_2", NULL, NULL, y, root, NULL);
    y = node(g, "Tanh", "act/Tanh", NULL, NULL, y, NULL);
    char *one = float_scalar(g, 1);
    y = node(g, "Add", "act/Add_1", NULL, NULL, y, one, NULL);
    return node(g, "Mul", "act/Mul_3", NULL, NULL, halved, y, NULL);
}

static char *feed_forward(Graph *g, const Shape *s, const char *scope, const char *key, char *x) {
    double d = 1 / sqrt((double)s->d_model), f = 1 / sqrt((double)s->d_ff);
    g->scope = text("%s/DenseReluDense", scope);
    char *h;
    if (s->gated) {
        h = gelu_new(g, linear(g, text("%s.wi_0", key), "wi_0", x, s->d_model, s->d_ff, d));
        char *gate = linear(g, text("%s.wi_1", key), "wi_1", x, s->d_model, s->d_ff, d);
        h = node(g, "Mul", "Mul", NULL, NULL, h, gate, NULL);
    } else {
        h = linear(g, text("%s.wi", key), "wi", x, s->d_model, s->d_ff, d);
        h = node(g, "Relu", "act/Relu", NULL, NULL, h, NULL);
    }
    return linear(g, text("%s.wo", key), "wo", h, s->d_ff, s->d_model, f);
}

/* 1 - mask, times the lowest float. */
static char *mask_to_bias(Graph *g, const char *suffix, char *mask) {
    char *x = cast(g, text("Cast_mask%s", suffix), mask, F32), *one = float_scalar(g, 1);
    x = node(g, "Sub", text("Sub_mask%s", suffix), NULL, NULL, one, x, NULL);
    char *lowest = float_scalar(g, -3.4028234663852886e+38f);
    return node(g, "Mul", text("Mul_mask%s", suffix), NULL, NULL, x, lowest, NULL);
}

static char *padding_bias(Graph *g, char *mask) {
    char *x = unsqueeze(g, "Unsqueeze_pad", mask, 1);
    x = unsqueeze(g, "Unsqueeze_pad_1", x, 2);
    return mask_to_bias(g, "_pad", x);
}

static char *embedding(Graph *g, const Shape *s, const char *name, char *length) {
    weight(g, name, "shared", s->vocab, s->d_model, 0, 1);
    char *any = int_vector(g, -1), *n = unsqueeze(g, "Unsqueeze", length, 0);
    char *shape = node(g, "Concat", "Concat", attr_int("axis", 0), NULL, any, n, NULL);
    char *ids = node(g, "Reshape", "Reshape", NULL, NULL, "input_ids", shape, NULL);
    return node(g, "Gather", "embed_tokens/Gather", NULL, NULL, text("%s", name), ids, NULL);
}

static void encoder_write(const char *dir, const Shape *s) {
    Graph g = {0};
    graph_open(&g, dir, "encoder_model.onnx", s);
    graph_input(&g, "input_ids", I64, "batch_size encoder_sequence_length");
    graph_input(&g, "attention_mask", I64, "batch_size encoder_sequence_length");
    char *x = embedding(&g, s, "embed_tokens.weight", shape_of(&g, "", "input_ids", 1));
    char *mask = padding_bias(&g, "attention_mask"), *bias = NULL;
    for (long i = 0; i < s->layers; i++) {
        char *at = text("/block.%ld/layer.0", i);
        char *n = rms_norm(&g, at, text("block.%ld.layer.0.layer_norm.weight", i), s->d_model, &x);
        Attention a = {.scope = text("%s/SelfAttention", at),
                       .key = text("encoder.%ld.self", i),
                       .mask = mask,
                       .bias_weight = "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                       .bidirectional = true,
                       .bias = bias};
        char *y = attention(&g, s, &a, n);
        bias = a.bias;
        g.scope = at;
        x = node(&g, "Add", "Add", NULL, NULL, x, y, NULL);
        at = text("/block.%ld/layer.1", i);
        n = rms_norm(&g, at, text("block.%ld.layer.1.layer_norm.weight", i), s->d_model, &x);
        y = feed_forward(&g, s, at, text("encoder.%ld.ffn", i), n);
        g.scope = at;
        x = node(&g, "Add", "Add", NULL, NULL, x, y, NULL);
    }
    rms_norm(&g, "/final", "final_layer_norm.weight", s->d_model, &x);
    rename_last(&g, "last_hidden_state");
    graph_output(&g, "last_hidden_state", F32, text("batch_size encoder_sequence_length %ld", s->d_model));
    graph_close(&g, dir, "encoder_model.onnx");
}

/* The causal mask as T5Stack builds it: arange(T) tiled against arange(T), times a mask of ones. */
static char *causal_bias(Graph *g, char *batch, char *length) {
    float ones = 1;
    int64_t one = 1;
    char *b = unsqueeze(g, "Unsqueeze_1", batch, 0), *t = unsqueeze(g, "Unsqueeze_2", length, 0);
    char *shape = node(g, "Concat", "Concat_1", attr_int("axis", 0), NULL, b, t, NULL);
    char *real = filled(g, "ConstantOfShape", shape, F32, &ones, sizeof ones);
    char *limit = cast(g, "Cast", length, I64), *zero = int_scalar(g, 0), *step = int_scalar(g, 1);
    char *range = node(g, "Range", "Range", NULL, NULL, zero, limit, step, NULL);
    char *row = unsqueeze(g, "Unsqueeze_3", range, 0), *cell = unsqueeze(g, "Unsqueeze_4", row, 1);
    char *last = int_vector(g, 1);
    char *repeat = node(g, "Concat", "Concat_2", attr_int("axis", 0), NULL, b, t, last, NULL);
    char *rank = node(g, "Shape", "Shape_2", NULL, NULL, repeat, NULL);
    char *expand = filled(g, "ConstantOfShape_1", rank, I64, &one, sizeof one);
    cell = node(g, "Expand", "Expand", NULL, NULL, cell, expand, NULL);
    cell = node(g, "Tile", "Tile", NULL, NULL, cell, repeat, NULL);
    char *column = unsqueeze(g, "Unsqueeze_9", row, 2);
    char *seen = node(g, "LessOrEqual", "LessOrEqual", NULL, NULL, cell, column, NULL);
    seen = cast(g, "Cast_1", seen, F32);
    seen = unsqueeze(g, "Unsqueeze_10", seen, 1);
    real = unsqueeze(g, "Unsqueeze_11", real, 1);
    real = unsqueeze(g, "Unsqueeze_12", real, 2);
    seen = node(g, "Mul", "Mul", NULL, NULL, seen, real, NULL);
    return mask_to_bias(g, "_causal", seen);
}

static void decoder_head(Graph *g, const Shape *s, char *x) {
    static const int64_t swap[] = {1, 0};
    g->scope = "";
    if (s->tied) {
        char *scale = float_scalar(g, (float)(1 / sqrt((double)s->d_model)));
        x = node(g, "Mul", "Mul_head", NULL, NULL, x, scale, NULL);
        char *w =
            node(g, "Transpose", "Transpose_head", attr_ints("perm", 2, swap), NULL, "shared.weight", NULL);
        node(g, "MatMul", "lm_head/MatMul", NULL, NULL, x, w, NULL);
    } else {
        linear(g, "lm_head", "lm_head", x, s->d_model, s->vocab, 1 / sqrt((double)s->d_model));
    }
    rename_last(g, "logits");
}

static void decoder_write(const char *dir, const Shape *s) {
    Graph g = {0};
    graph_open(&g, dir, "decoder_model.onnx", s);
    graph_input(&g, "encoder_attention_mask", I64, "batch_size encoder_sequence_length");
    graph_input(&g, "input_ids", I64, "batch_size decoder_sequence_length");
    graph_input(&g, "encoder_hidden_states", F32, text("batch_size encoder_sequence_length %ld", s->d_model));
    graph_output(&g, "logits", F32, text("batch_size decoder_sequence_length %ld", s->vocab));
    char *batch = shape_of(&g, "", "input_ids", 0), *length = shape_of(&g, "_1", "input_ids", 1);
    char *x = embedding(&g, s, "shared.weight", length);
    char *causal = causal_bias(&g, batch, length), *padding = padding_bias(&g, "encoder_attention_mask");
    char *self_bias = NULL, *cross_bias = NULL;
    for (long i = 0; i < s->dec_layers; i++) {
        for (int cross = 0; cross < 2; cross++) {
            const char *what = cross ? "encoder" : "decoder";
            char *at = text("/decoder/block.%ld/layer.%d", i, cross);
            char *n = rms_norm(&g, at, text("decoder.block.%ld.layer.%d.layer_norm.weight", i, cross),
                               s->d_model, &x);
            Attention a = {.scope = text("%s/%s", at, cross ? "EncDecAttention" : "SelfAttention"),
                           .key = text("decoder.%ld.%s", i, cross ? "cross" : "self"),
                           .memory = cross ? "encoder_hidden_states" : NULL,
                           .mask = cross ? padding : causal,
                           .bias_weight =
                               "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                           .bias = cross ? cross_bias : self_bias,
                           .present_key = text("present.%ld.%s.key", i, what),
                           .present_value = text("present.%ld.%s.value", i, what)};
            char *y = attention(&g, s, &a, n);
            *(cross ? &cross_bias : &self_bias) = a.bias;
            g.scope = at;
            x = node(&g, "Add", "Add", NULL, NULL, x, y, NULL);
            const char *dims =
                text("batch_size %ld %s %ld", s->heads,
                     cross ? "encoder_sequence_length" : "past_decoder_sequence_length+1", s->d_kv);
            graph_output(&g, a.present_key, F32, dims);
            graph_output(&g, a.present_value, F32, dims);
        }
        char *at = text("/decoder/block.%ld/layer.2", i);
        char *n = rms_norm(&g, at, text("decoder.block.%ld.layer.2.layer_norm.weight", i), s->d_model, &x);
        char *y = feed_forward(&g, s, at, text("decoder.%ld.ffn", i), n);
        g.scope = at;
        x = node(&g, "Add", "Add", NULL, NULL, x, y, NULL);
    }
    x = rms_norm(&g, "/decoder/final", "decoder.final_layer_norm.weight", s->d_model, &x);
    decoder_head(&g, s, x);
    graph_close(&g, dir, "decoder_model.onnx");
}

static void config_write(const char *dir, const Shape *s) {
    FILE *f = fopen(text("%s/config.json", dir), "wb");
    if (f == NULL)
        fail("config.json");
    fprintf(f,
            "{\n  \"architectures\": [\"T5ForConditionalGeneration\"],\n  \"d_ff\": %ld,\n  \"d_kv\": %ld,\n"
            "  \"d_model\": %ld,\n  \"decoder_start_token_id\": 0,\n  \"eos_token_id\": 1,\n"
            "  \"feed_forward_proj\": \"%s\",\n  \"is_encoder_decoder\": true,\n  \"layer_norm_epsilon\": "
            "1e-06,\n"
            "  \"model_type\": \"t5\",\n  \"num_decoder_layers\": %ld,\n  \"num_heads\": %ld,\n  "
            "\"num_layers\": %ld,\n"
            "  \"pad_token_id\": 0,\n  \"relative_attention_max_distance\": %ld,\n"
            "  \"relative_attention_num_buckets\": %ld,\n  \"tie_word_embeddings\": %s,\n  \"vocab_size\": "
            "%ld\n}\n",
            s->d_ff, s->d_kv, s->d_model, s->gated ? "gated-gelu" : "relu", s->dec_layers, s->heads,
            s->layers, s->distance, s->buckets, s->tied ? "true" : "false", s->vocab);
    if (fclose(f) != 0)
        fail("config.json");
}

/* ---- command line -------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    Shape shape;
} presets[] = {
    {"small", {512, 1024, 64, 6, 8, 0, 32128, 32, 128, 1, 0, 1}},
    {"base", {768, 2048, 64, 12, 12, 0, 32128, 32, 128, 1, 0, 1}},
    {"large", {1024, 2816, 64, 16, 24, 0, 32128, 32, 128, 1, 0, 1}},
};

static bool option(Shape *s, const char *arg) {
    const struct {
        const char *name;
        long *value, lo, hi;
    } keys[] = {{"d_model", &s->d_model, 1, 1 << 16},
                {"d_ff", &s->d_ff, 1, 1 << 18},
                {"d_kv", &s->d_kv, 1, 4096},
                {"heads", &s->heads, 1, 4096},
                {"layers", &s->layers, 1, 1000},
                {"dec_layers", &s->dec_layers, 1, 1000},
                {"vocab", &s->vocab, 2, 1 << 22},
                {"buckets", &s->buckets, 4, 4096},
                {"distance", &s->distance, 2, 1 << 20},
                {"gated", &s->gated, 0, 1},
                {"tied", &s->tied, 0, 1},
                {"seed", &s->seed, 0, 1 << 30}};
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        if (strcmp(arg, presets[i].name) == 0) {
            *s = presets[i].shape;
            return true;
        }
    }
    const char *equals = strchr(arg, '=');
    for (size_t i = 0; equals != NULL && i < sizeof keys / sizeof keys[0]; i++) {
        if (strncmp(arg, keys[i].name, (size_t)(equals - arg)) != 0 || keys[i].name[equals - arg] != 0)
            continue;
        char *end;
        *keys[i].value = strtol(equals + 1, &end, 10);
        return *end == 0 && end > equals + 1 && *keys[i].value >= keys[i].lo && *keys[i].value <= keys[i].hi;
    }
    return false;
}

int main(int argc, char **argv) {
    Shape s = presets[0].shape;
    for (int i = 2; i < argc; i++) {
        if (!option(&s, argv[i])) {
            fprintf(stderr, "gen_t5: '%s': not a size, or out of range\n", argv[i]);
            return 2;
        }
    }
    if (argc < 2) {
        fprintf(stderr, "usage: gen_t5 DIR [small|base|large] [KEY=VALUE ...]\n");
        return 2;
    }
    if (s.dec_layers == 0)
        s.dec_layers = s.layers;
    if (mkdir(argv[1], 0777) != 0 && errno != EEXIST)
        fail(argv[1]);
    encoder_write(argv[1], &s);
    decoder_write(argv[1], &s);
    config_write(argv[1], &s);
    release();
    return 0;
}
