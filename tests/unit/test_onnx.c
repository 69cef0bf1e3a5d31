/* The ONNX importer: the scan of the wire format, tensors from every field, and graphs with their scopes. Messages
 * are made with protobuf-c, damaged where a test needs it, and read back from files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontends/onnx_impl.h"

static char dir[64];

static const char *file_put(const char *name, const void *p, size_t n)
{
    static char path[8][128];
    static int at;
    char *to = path[at++ % 8];
    snprintf(to, sizeof path[0], "%s/%s", dir, name);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
    return to;
}

static int files_setup(void **state)
{
    (void)state;
    strcpy(dir, "onnx_test_XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int files_teardown(void **state)
{
    (void)state;
    static const char *const names[] = {"t.pb", "m.onnx", "n.onnx", "w.bin", "link.bin", "secret"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

/* ---- scan ------------------------------------------------------------------------------------------- */

static bool scan(const void *p, size_t n, OnnxRoot root, Text *slim)
{
    Diag *d = diag_new();
    Text t = {0};
    size_t cost = 0;
    bool ok = onnx_scan(p, n, root, slim != NULL ? slim : &t, &cost, "x", d);
    assert_int_equal(ok, diag_errors(d) == 0);
    text_free(&t);
    diag_free(d);
    return ok;
}

static void raw_data_stays_behind(void **state)
{
    (void)state;
    /* dims 2, data_type 1, unknown field 100, raw_data of 8 bytes, doc_string */
    const uint8_t m[] = {0x08, 2, 0x10, 1, 0xa0, 6, 5, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x62, 1, 'x'};
    Text slim = {0};
    assert_true(scan(m, sizeof m, ONNX_TENSOR, &slim));
    Onnx__TensorProto *t = onnx__tensor_proto__unpack(NULL, slim.n, (const uint8_t *)slim.p);
    assert_non_null(t);
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->segment->begin, 9);
    assert_int_equal(t->segment->end, 17);
    assert_false(t->has_raw_data);
    assert_null(t->doc_string);
    assert_int_equal(t->base.n_unknown_fields, 0);
    onnx__tensor_proto__free_unpacked(t, NULL);
    text_free(&slim);
}

static void malformed_messages_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *why;
        uint8_t m[16];
        size_t n;
    } bad[] = {
        {"tag zero", {0x00, 0}, 2},
        {"group", {0x0b}, 1},
        {"no such wire type", {0x0e}, 1},
        {"varint of eleven bytes", {0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, 12},
        {"varint above 64 bits", {0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2}, 11},
        {"length past the end", {0x4a, 9, 1}, 3},
        {"length near 2^64", {0x4a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, 11},
        {"data_type above 32 bits", {0x10, 0x85, 0x80, 0x80, 0x80, 0x10}, 6},
        {"raw_data twice", {0x4a, 1, 1, 0x4a, 1, 1}, 6},
        {"wrong wire type of a known field", {0x4d, 0, 0, 0, 0}, 5},
        {"packed floats end inside one", {0x22, 3, 0, 0, 0}, 5},
        {"packed integers end inside one", {0x3a, 2, 1, 0x80}, 4},
        {"segment", {0x1a, 0}, 2},
        {"NUL in the name", {0x42, 2, 'a', 0}, 4},
        {"nothing", {0}, 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (scan(bad[i].m, bad[i].n, ONNX_TENSOR, NULL))
            fail_msg("accepted: %s", bad[i].why);
}

/* Sub-graphs in attributes of nodes, three messages a level. */
static void nesting_is_bounded(void **state)
{
    (void)state;
    enum { LEVELS = 2000, ROOM = 64 * LEVELS };
    uint8_t *m = malloc(ROOM);
    size_t at = ROOM;
    for (int i = 0; i < LEVELS; i++) {
        static const uint8_t tags[3] = {0x32, 0x2a, 0x0a}; /* g, attribute, node */
        for (int k = 0; k < 3; k++) {
            size_t n = ROOM - at;
            for (int b = 4; b >= 0; b--)
                m[--at] = (uint8_t)((n >> (7 * b) & 0x7f) | (b < 4 ? 0x80 : 0));
            m[--at] = tags[k];
        }
    }
    Text whole = {0};
    text_add(&whole, "\x3a", 1);
    for (size_t n = ROOM - at, b = 0; b < 5; b++) {
        char c = (char)((n >> (7 * b) & 0x7f) | (b < 4 ? 0x80 : 0));
        text_add(&whole, &c, 1);
    }
    text_add(&whole, (const char *)m + at, ROOM - at);
    assert_false(scan(whole.p, whole.n, ONNX_MODEL, NULL));
    text_free(&whole);
    free(m);
}

static void items_are_counted(void **state)
{
    (void)state;
    enum { N = LIMIT_ONNX_ITEMS + 1 };
    Text m = {0}; /* graph { initializer {} ... } */
    text_add(&m, "\x3a", 1);
    for (size_t n = 2 * (size_t)N, b = 0; b < 5; b++) {
        char c = (char)((n >> (7 * b) & 0x7f) | (b < 4 ? 0x80 : 0));
        text_add(&m, &c, 1);
    }
    for (int i = 0; i < N; i++)
        text_add(&m, "\x2a\0", 2);
    assert_false(scan(m.p, m.n, ONNX_MODEL, NULL));
    text_free(&m);
}

/* ---- tensors ------------------------------------------------------------------------------------------ */

static bool tensor_read(const Onnx__TensorProto *t, Arena *a, Tensor *out)
{
    size_t n = onnx__tensor_proto__get_packed_size(t);
    uint8_t *p = calloc(1, n + 1);
    onnx__tensor_proto__pack(t, p);
    const char *path = file_put("t.pb", p, n);
    free(p);
    Diag *d = diag_new();
    bool ok = onnx_tensor_file(path, a, out, d);
    assert_int_equal(ok, diag_errors(d) == 0);
    diag_free(d);
    return ok;
}

static void every_data_field_is_read(void **state)
{
    (void)state;
    Arena *a = arena_new();
    int64_t two = 2, i64[2] = {-5, INT64_MAX};
    float f32[2] = {0.5f, -3};
    double f64[2] = {0.25, 1e300};
    int32_t small[2] = {-7, 9}, half[2] = {0x3c00, 0xc000}, flags[2] = {0, 1};
    static const struct {
        int onnx;
        DType dtype;
    } ints[] = {{3, DT_I8}, {5, DT_I16}, {6, DT_I32}};
    Tensor t;
    Onnx__TensorProto x = ONNX__TENSOR_PROTO__INIT;
    x.n_dims = 1;
    x.dims = &two;
    x.has_data_type = 1;
    x.n_int32_data = 2;
    x.int32_data = small;
    for (size_t i = 0; i < 3; i++) {
        x.data_type = ints[i].onnx;
        assert_true(tensor_read(&x, a, &t));
        assert_int_equal(t.dtype, ints[i].dtype);
        assert_int_equal(tensor_get_i64(&t, 0), -7);
        assert_int_equal(tensor_get_i64(&t, 1), 9);
    }
    x.data_type = 2; /* UINT8: -7 is out of range */
    assert_false(tensor_read(&x, a, &t));
    x.int32_data = half;
    x.data_type = 10;
    assert_true(tensor_read(&x, a, &t));
    assert_true(tensor_get_f64(&t, 0) == 1 && tensor_get_f64(&t, 1) == -2);
    x.int32_data = flags;
    x.data_type = 9;
    assert_true(tensor_read(&x, a, &t));
    assert_int_equal(tensor_get_i64(&t, 1), 1);
    x.data_type = 1; /* FLOAT in int32_data */
    assert_false(tensor_read(&x, a, &t));
    x.n_float_data = 2;
    x.float_data = f32;
    assert_false(tensor_read(&x, a, &t)); /* two fields */
    x.n_int32_data = 0;
    assert_true(tensor_read(&x, a, &t));
    assert_true(tensor_get_f64(&t, 1) == -3);
    x.n_float_data = 1;
    assert_false(tensor_read(&x, a, &t)); /* one value short */
    x.n_float_data = 0;
    x.n_int64_data = 2;
    x.int64_data = i64;
    x.data_type = 7;
    assert_true(tensor_read(&x, a, &t));
    assert_true(tensor_get_i64(&t, 1) == INT64_MAX);
    x.n_int64_data = 0;
    x.n_double_data = 2;
    x.double_data = f64;
    x.data_type = 11;
    assert_true(tensor_read(&x, a, &t));
    assert_true(tensor_get_f64(&t, 1) == 1e300);
    arena_free(a);
}

static void raw_sizes_are_exact(void **state)
{
    (void)state;
    Arena *a = arena_new();
    uint8_t raw[16] = {0, 7, 255};
    int64_t dims[2] = {2, 2};
    Tensor t;
    Onnx__TensorProto x = ONNX__TENSOR_PROTO__INIT;
    x.n_dims = 2;
    x.dims = dims;
    x.has_data_type = 1;
    x.data_type = 1;
    x.has_raw_data = 1;
    for (size_t n = 0; n <= 16; n++) {
        x.raw_data = (ProtobufCBinaryData){n, raw};
        assert_int_equal(tensor_read(&x, a, &t), n == 16);
    }
    x.data_type = 9; /* bytes of bools become 0 and 1 */
    x.raw_data.len = 4;
    assert_true(tensor_read(&x, a, &t));
    assert_int_equal(tensor_get_i64(&t, 1), 1);
    assert_int_equal(tensor_get_i64(&t, 2), 1);
    dims[0] = dims[1] = -2; /* the product is right */
    assert_false(tensor_read(&x, a, &t));
    dims[0] = (int64_t)1 << 62;
    dims[1] = 4; /* wraps to 0 */
    assert_false(tensor_read(&x, a, &t));
    dims[0] = 0;
    assert_false(tensor_read(&x, a, &t)); /* bytes for no elements */
    x.raw_data.len = 0;
    assert_true(tensor_read(&x, a, &t));
    static const int unsupported[] = {0, 8, 12, 13, 14, 16, 999};
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        x.data_type = unsupported[i];
        assert_false(tensor_read(&x, a, &t));
    }
    arena_free(a);
}

static void external_data_stay_beneath(void **state)
{
    (void)state;
    float w[4] = {1, 2, 3, 4};
    file_put("w.bin", w, sizeof w);
    file_put("secret", w, sizeof w);
    char link[128];
    snprintf(link, sizeof link, "%s/link.bin", dir);
    assert_int_equal(symlink("secret", link), 0);
    static const struct {
        const char *location, *offset, *length;
        bool good;
    } cases[] = {
        {"w.bin", "8", "8", true},           {"w.bin", "8", NULL, true},       {"w.bin", NULL, NULL, false},
        {"w.bin", "8", "4", false},          {"w.bin", "12", "8", false},      {"w.bin", "17", NULL, false},
        {"w.bin", "", "8", false},           {"w.bin", "0x8", "8", false},     {"w.bin", "-8", "8", false},
        {"w.bin", "18446744073709551608", "8", false},                         {"", "0", "8", false},
        {"./w.bin", "0", "8", false},        {"../w.bin", "0", "8", false},    {"/etc/passwd", "0", "8", false},
        {"link.bin", "0", "8", false},       {"w.bin/", "0", "8", false},      {"..\\w.bin", "0", "8", false},
        {"absent", "0", "8", false},         {NULL, "0", "8", false},
    };
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Onnx__StringStringEntryProto entry[3], *list[3];
        const char *const keys[3] = {"location", "offset", "length"};
        const char *const values[3] = {cases[i].location, cases[i].offset, cases[i].length};
        int64_t two = 2;
        Onnx__TensorProto x = ONNX__TENSOR_PROTO__INIT;
        x.n_dims = 1;
        x.dims = &two;
        x.has_data_type = x.has_data_location = 1;
        x.data_type = 1;
        x.data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
        x.external_data = list;
        for (int k = 0; k < 3; k++) {
            onnx__string_string_entry_proto__init(&entry[k]);
            entry[k].key = (char *)(uintptr_t)keys[k];
            entry[k].value = (char *)(uintptr_t)values[k];
            if (values[k] != NULL)
                list[x.n_external_data++] = &entry[k];
        }
        Tensor t;
        bool ok = tensor_read(&x, a, &t);
        if (ok != cases[i].good)
            fail_msg("case %zu", i);
        if (ok)
            assert_true(tensor_get_f64(&t, 1) == 4);
    }
    arena_free(a);
}

/* ---- graphs ---------------------------------------------------------------------------------------------- */

/* Just enough of a builder: everything in one arena. */
typedef struct Graph {
    Arena *a;
    Onnx__GraphProto g;
    Onnx__NodeProto *node[8];
    Onnx__ValueInfoProto *input[4], *output[4];
    Onnx__TensorProto *initializer[4];
} Graph;

static char *word(Graph *x, const char *s, size_t n)
{
    return arena_strndup(x->a, s, n);
}

static void graph_init(Graph *x)
{
    memset(x, 0, sizeof *x);
    x->a = arena_new();
    onnx__graph_proto__init(&x->g);
    x->g.node = x->node;
    x->g.input = x->input;
    x->g.output = x->output;
    x->g.initializer = x->initializer;
}

/* Space-separated words; `_` is the empty name. */
static size_t words(Graph *x, const char *s, char ***out)
{
    size_t n = 0;
    *out = arena_array(x->a, 8, sizeof **out);
    while (*s != 0) {
        size_t len = strcspn(s, " ");
        (*out)[n++] = len == 1 && *s == '_' ? word(x, "", 0) : word(x, s, len);
        s += len + (s[len] == ' ');
    }
    return n;
}

static Onnx__NodeProto *graph_node(Graph *x, const char *op, const char *in, const char *out)
{
    Onnx__NodeProto *n = arena_alloc(x->a, sizeof *n);
    onnx__node_proto__init(n);
    n->op_type = word(x, op, strlen(op));
    n->n_input = words(x, in, &n->input);
    n->n_output = words(x, out, &n->output);
    x->node[x->g.n_node++] = n;
    return n;
}

static Onnx__AttributeProto *node_attr_add(Graph *x, Onnx__NodeProto *n, const char *name, int type)
{
    if (n->attribute == NULL)
        n->attribute = arena_array(x->a, 4, sizeof *n->attribute);
    Onnx__AttributeProto *a = n->attribute[n->n_attribute++] = arena_alloc(x->a, sizeof *a);
    onnx__attribute_proto__init(a);
    a->name = word(x, name, strlen(name));
    a->has_type = 1;
    a->type = (Onnx__AttributeProto__AttributeType)type;
    return a;
}

static Onnx__ValueInfoProto *value_info(Graph *x, const char *name, int type, const char *dim)
{
    Onnx__ValueInfoProto *v = arena_alloc(x->a, sizeof *v);
    Onnx__TypeProto *t = arena_alloc(x->a, sizeof *t);
    Onnx__TypeProto__Tensor *tensor = arena_alloc(x->a, sizeof *tensor);
    Onnx__TensorShapeProto *shape = arena_alloc(x->a, sizeof *shape);
    Onnx__TensorShapeProto__Dimension *d = arena_alloc(x->a, sizeof *d);
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(t);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    onnx__tensor_shape_proto__dimension__init(d);
    d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    d->dim_param = word(x, dim, strlen(dim));
    shape->dim = arena_copy(x->a, &d, sizeof d);
    shape->n_dim = 1;
    tensor->has_elem_type = 1;
    tensor->elem_type = type;
    tensor->shape = shape;
    t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    t->tensor_type = tensor;
    v->name = word(x, name, strlen(name));
    v->type = t;
    return v;
}

static void graph_initializer(Graph *x, const char *name, float first)
{
    static int64_t three = 3;
    Onnx__TensorProto *t = arena_alloc(x->a, sizeof *t);
    float *v = arena_array(x->a, 3, sizeof *v);
    onnx__tensor_proto__init(t);
    v[0] = first;
    t->name = word(x, name, strlen(name));
    t->n_dims = 1;
    t->dims = &three;
    t->has_data_type = 1;
    t->data_type = 1;
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){12, (uint8_t *)v};
    x->initializer[x->g.n_initializer++] = t;
}

static void standard_ports(Graph *x, int type)
{
    x->input[x->g.n_input++] = value_info(x, "x", type, "past + 1");
    x->output[x->g.n_output++] = value_info(x, "y", type, "?");
}

static bool graph_import(Graph *x, int opset, Module *m, const char *func, OnnxFiles *files)
{
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    Onnx__OperatorSetIdProto o = ONNX__OPERATOR_SET_ID_PROTO__INIT, *list = &o;
    o.has_version = 1;
    o.version = opset;
    model.opset_import = &list;
    model.n_opset_import = 1;
    model.graph = &x->g;
    size_t n = onnx__model_proto__get_packed_size(&model);
    uint8_t *p = calloc(1, n);
    onnx__model_proto__pack(&model, p);
    const char *path = file_put(strcmp(func, "second") == 0 ? "n.onnx" : "m.onnx", p, n);
    Diag *d = diag_new();
    bool ok = onnx_import(m, path, func, files, d);
    assert_int_equal(ok, diag_errors(d) == 0);
    /* Cut anywhere it is refused or, between fields of the model, still a model. */
    for (size_t cut = 0; cut < n; cut++) {
        Text slim = {0};
        size_t cost;
        onnx_scan(p, cut, ONNX_MODEL, &slim, &cost, "cut", d);
        text_free(&slim);
    }
    free(p);
    diag_free(d);
    return ok;
}

static bool graph_good(Graph *x, int opset)
{
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    bool ok = graph_import(x, opset, m, "main", files);
    Diag *d = diag_new();
    if (ok)
        assert_true(module_verify(m, d, false));
    diag_free(d);
    module_free(m);
    onnx_files_free(files);
    return ok;
}

static void equal_weights_are_stored_once(void **state)
{
    (void)state;
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    for (int i = 0; i < 2; i++) {
        Graph x;
        graph_init(&x);
        standard_ports(&x, 1);
        graph_initializer(&x, i == 0 ? "w" : "onnx::Add_7", 5);
        graph_initializer(&x, "other", (float)i);
        graph_node(&x, "Add", "x other", "t");
        graph_node(&x, "Add", i == 0 ? "t w" : "t onnx::Add_7", "y");
        assert_true(graph_import(&x, 13, m, i == 0 ? "first" : "second", files));
        arena_free(x.a);
    }
    assert_int_equal(m->n_params, 3);
    const Func *f = module_find(m, "first");
    uint32_t sym;
    assert_non_null(f);
    assert_true(dim_as_sym(m->dims, f->value[f->input[0]].type.dim[0], &sym));
    assert_true(str_is(dim_sym_at(m->dims, sym)->name, "past + 1"));
    assert_true(str_is(f->output_name[0], "y"));
    module_free(m);
    onnx_files_free(files);
}

/* A graph of one or two nodes, and whether it is taken. */
static const struct OneNode {
    const char *why, *op, *in, *out, *op2, *in2, *out2;
    int opset, type;
    bool good;
} one_node[] = {
    {"plain", "Relu", "x", "y", NULL, NULL, NULL, 13, 1, true},
    {"unknown operator", "Loop", "x", "y", NULL, NULL, NULL, 13, 1, false},
    {"operator of a later opset", "Gelu", "x", "y", NULL, NULL, NULL, 13, 1, false},
    {"the same in its opset", "Gelu", "x", "y", NULL, NULL, NULL, 20, 1, true},
    {"opset from the future", "Relu", "x", "y", NULL, NULL, NULL, 999, 1, false},
    {"opset 0", "Relu", "x", "y", NULL, NULL, NULL, 0, 1, false},
    {"integer Min before opset 12", "Min", "x x", "y", NULL, NULL, NULL, 11, 7, false},
    {"integer Min", "Min", "x x", "y", NULL, NULL, NULL, 12, 7, true},
    {"float operator on integers", "Sqrt", "x", "y", NULL, NULL, NULL, 13, 7, false},
    {"reads itself", "Add", "x y", "y", NULL, NULL, NULL, 13, 1, false},
    {"undefined input", "Add", "x z", "y", NULL, NULL, NULL, 13, 1, false},
    {"too few inputs", "Add", "x", "y", NULL, NULL, NULL, 13, 1, false},
    {"required input left out", "Add", "x _", "y", NULL, NULL, NULL, 13, 1, false},
    {"optional input left out", "Clip", "x _ x", "y", NULL, NULL, NULL, 13, 1, true},
    {"no outputs", "Relu", "x", "", "Relu", "x", "y", 13, 1, false},
    {"name defined twice", "Relu", "x", "y", "Abs", "x", "y", 13, 1, false},
    {"output has an input's name", "Relu", "x", "x", "Relu", "x", "y", 13, 1, false},
    {"not in order", "Relu", "t", "y", "Relu", "x", "t", 13, 1, false},
    {"required attribute missing", "Cast", "x", "y", NULL, NULL, NULL, 13, 1, false},
    {"output of another type", "Shape", "x", "y", NULL, NULL, NULL, 13, 1, false},
    {"nobody makes the output", "Relu", "x", "t", NULL, NULL, NULL, 13, 1, false},
    {"mask of Dropout", "Dropout", "x", "y m", NULL, NULL, NULL, 13, 1, true},
};

static void nodes_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof one_node / sizeof one_node[0]; i++) {
        const struct OneNode *c = &one_node[i];
        Graph x;
        graph_init(&x);
        standard_ports(&x, c->type);
        graph_node(&x, c->op, c->in, c->out);
        if (c->op2 != NULL)
            graph_node(&x, c->op2, c->in2, c->out2);
        if (graph_good(&x, c->opset) != c->good)
            fail_msg("%s", c->why);
        arena_free(x.a);
    }
}

static void attributes_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int type;
        bool has_i, twice, good;
    } cases[] = {
        {"axis", 2, true, false, true},   {"axis", 2, true, true, false},  {"axis", 3, true, false, false},
        {"axis", 2, false, false, false}, {"axes", 2, true, false, false}, {"axis", 4, true, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Graph x;
        graph_init(&x);
        standard_ports(&x, 1);
        Onnx__NodeProto *n = graph_node(&x, "Softmax", "x", "y");
        for (int k = 0; k <= (int)cases[i].twice; k++) {
            Onnx__AttributeProto *a = node_attr_add(&x, n, cases[i].name, cases[i].type);
            a->has_i = cases[i].has_i;
        }
        if (graph_good(&x, 13) != cases[i].good)
            fail_msg("case %zu", i);
        arena_free(x.a);
    }
}

/* if (flag) relu(t) + w else t + w, where t is made outside; `inner` makes what a branch defines. */
static bool branches(const char *then_op, const char *then_out, bool second_output)
{
    Graph x, part[2];
    graph_init(&x);
    standard_ports(&x, 1);
    x.input[x.g.n_input++] = value_info(&x, "flag", 9, "one");
    graph_initializer(&x, "w", 1);
    graph_node(&x, "Neg", "x", "t");
    Onnx__NodeProto *n = graph_node(&x, "If", "flag", "y");
    for (int i = 0; i < 2; i++) {
        graph_init(&part[i]);
        graph_node(&part[i], i == 0 ? then_op : "Abs", "t", i == 0 ? then_out : "a");
        graph_node(&part[i], "Add", i == 0 ? "a w" : "a t", "b");
        part[i].output[part[i].g.n_output++] = value_info(&part[i], "b", 1, "?");
        if (second_output && i == 0)
            part[i].output[part[i].g.n_output++] = value_info(&part[i], "a", 1, "?");
        node_attr_add(&x, n, i == 0 ? "then_branch" : "else_branch", 5)->g = &part[i].g;
    }
    Module *m = module_new();
    OnnxFiles *files = onnx_files_new();
    bool ok = graph_import(&x, 13, m, "main", files);
    if (ok) {
        Diag *d = diag_new();
        Str flag;
        assert_true(module_verify(m, d, false));
        assert_true(onnx_branch_input(m, "main", &flag) && str_is(flag, "flag"));
        diag_free(d);
        const Func *f = module_find(m, "main");
        const Node *last = value_node(f, f->output[0]);
        assert_int_equal(last->op, OP_if);
        assert_int_equal(last->n_in, 2); /* the condition and t; w is a parameter of the branch's own */
    }
    module_free(m);
    onnx_files_free(files);
    arena_free(x.a);
    arena_free(part[0].a);
    arena_free(part[1].a);
    return ok;
}

static void branches_capture(void **state)
{
    (void)state;
    assert_true(branches("Relu", "a", false));
    assert_false(branches("Scan", "a", false)); /* found inside of a branch */
    assert_false(branches("Relu", "x", false)); /* an outer name */
    assert_false(branches("Relu", "a", true));  /* results differ in number */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_data_stays_behind),
        cmocka_unit_test(malformed_messages_are_refused),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(items_are_counted),
        cmocka_unit_test(every_data_field_is_read),
        cmocka_unit_test(raw_sizes_are_exact),
        cmocka_unit_test(external_data_stay_beneath),
        cmocka_unit_test(equal_weights_are_stored_once),
        cmocka_unit_test(nodes_are_checked),
        cmocka_unit_test(attributes_are_checked),
        cmocka_unit_test(branches_capture),
    };
    return cmocka_run_group_tests(tests, files_setup, files_teardown);
}
