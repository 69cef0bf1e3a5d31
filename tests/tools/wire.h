/* Protocol buffers written field by field, for ONNX files that no exporter would write. */
#ifndef MOEC_WIRE_H
#define MOEC_WIRE_H

#include "compiler/base.h"

static inline void wire_varint(Text *t, uint64_t v) {
    for (; v >= 128; v >>= 7) text_add(t, &(char){(char)(v | 128)}, 1);
    text_add(t, &(char){(char)v}, 1);
}

static inline void wire_int(Text *t, unsigned field, uint64_t v) {
    wire_varint(t, field << 3);
    wire_varint(t, v);
}

static inline void wire_bytes(Text *t, unsigned field, Str s) {
    wire_varint(t, field << 3 | 2);
    wire_varint(t, s.n);
    text_add(t, s.p ? s.p : "", s.n);
}

static inline void wire_text(Text *t, unsigned field, const char *s) {
    wire_bytes(t, field, str_c(s));
}

/* `sub` as a message, emptied. */
static inline void wire_message(Text *t, unsigned field, Text *sub) {
    wire_bytes(t, field, (Str){sub->p, sub->n});
    text_free(sub);
}

/* What fields are called here, by the message they stand in. */
enum { MODEL_IR = 1, MODEL_PRODUCER = 2, MODEL_VERSION = 3, MODEL_DOMAIN = 4, MODEL_DOC = 6, MODEL_GRAPH = 7, MODEL_OPSET = 8, MODEL_METADATA = 14, MODEL_FUNCTION = 25 };
enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_TENSOR = 5, GRAPH_DOC = 10, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_VALUE = 13 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_NAME = 3, NODE_OP = 4, NODE_ATTR = 5, NODE_DOC = 6 };
enum { ATTR_NAME = 1, ATTR_INT = 3, ATTR_GRAPH = 6, ATTR_DOC = 13, ATTR_TYPE = 20, TYPE_INT = 2, TYPE_GRAPH = 5 };
enum { TENSOR_DIM = 1, TENSOR_TYPE = 2, TENSOR_FLOAT = 4, TENSOR_NAME = 8, TENSOR_RAW = 9, TENSOR_DOC = 12 };
enum { FLOAT32 = 1, INT64 = 7, BOOL = 9 };

/* A ValueInfoProto; an extent below 0 is the symbol `symbol`. */
static inline Text wire_value(Str name, int type, const int64_t *dim, int rank, Str symbol, Str doc) {
    Text shape = {0}, tensor = {0}, kind = {0}, value = {0};
    for (int i = 0; i < rank; i++) {
        Text d = {0};
        if (dim[i] < 0) wire_bytes(&d, 2, symbol);
        else wire_int(&d, 1, (uint64_t)dim[i]);
        wire_message(&shape, 1, &d);
    }
    wire_int(&tensor, 1, (uint64_t)type);
    wire_message(&tensor, 2, &shape);
    wire_message(&kind, 1, &tensor);
    wire_bytes(&value, 1, name);
    wire_message(&value, 2, &kind);
    if (doc.n) wire_bytes(&value, 3, doc);
    return value;
}

/* The model around a graph: opset 17. */
static inline Text wire_model(Text *graph) {
    Text model = {0}, opset = {0};
    wire_int(&model, MODEL_IR, 8);
    wire_text(&opset, 1, "");
    wire_int(&opset, 2, 17);
    wire_message(&model, MODEL_OPSET, &opset);
    wire_message(&model, MODEL_GRAPH, graph);
    return model;
}

#endif
