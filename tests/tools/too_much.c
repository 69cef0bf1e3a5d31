/* too_much: ONNX files that have N of something, for the limits.
 *
 *   too_much WHAT N FILE      WHAT: a row of the table below; everything else about the model is small and right */
#include "wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void add_node(Text *graph, const char *op, const char *in, uint64_t n_in, const char *out, uint64_t n_attrs) {
    Text t = {0};
    for (uint64_t i = 0; i < n_in; i++) wire_text(&t, NODE_INPUT, in);
    wire_text(&t, NODE_OUTPUT, out);
    wire_text(&t, NODE_NAME, "it");
    wire_text(&t, NODE_OP, op);
    for (uint64_t i = 0; i < n_attrs; i++) {
        char name[32];
        Text attr = {0};
        snprintf(name, sizeof name, i ? "extra%llu" : "axis", (unsigned long long)i);
        wire_text(&attr, ATTR_NAME, name);
        wire_int(&attr, ATTR_INT, 0);
        wire_int(&attr, ATTR_TYPE, TYPE_INT);
        wire_message(&t, NODE_ATTR, &attr);
    }
    wire_message(graph, GRAPH_NODE, &t);
}

/* y = relu(x), x of the given rank. */
static void plain(Text *graph, int rank, int64_t extent) {
    int64_t dim[64];
    for (int i = 0; i < 64; i++) dim[i] = i ? 1 : extent;
    Text v = wire_value(str_c("x"), FLOAT32, dim, rank, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    v = wire_value(str_c("y"), FLOAT32, dim, rank, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_OUTPUT, &v);
    wire_text(graph, GRAPH_NAME, "g");
}

static void rank(Text *graph, uint64_t n) {
    plain(graph, n > 60 ? 60 : (int)n, 2);
    add_node(graph, "Relu", "x", 1, "y", 0);
}

static void extent(Text *graph, uint64_t n) {
    plain(graph, 1, (int64_t)n);
    add_node(graph, "Relu", "x", 1, "y", 0);
}

static void inputs(Text *graph, uint64_t n) {
    static const int64_t dim[] = {1}, all[] = {-1};
    Text v = wire_value(str_c("x"), FLOAT32, dim, 1, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    v = wire_value(str_c("y"), FLOAT32, all, 1, str_c("N"), (Str){0});
    wire_message(graph, GRAPH_OUTPUT, &v);
    wire_text(graph, GRAPH_NAME, "g");
    add_node(graph, "Max", "x", n, "y", 0);
}

static void attributes(Text *graph, uint64_t n) {
    plain(graph, 2, 2);
    add_node(graph, "Softmax", "x", 1, "y", n);
}

static void name(Text *graph, uint64_t n) {
    char *s = mem_alloc(n + 1);
    memset(s, 'n', n);
    plain(graph, 1, 2);
    add_node(graph, "Relu", "x", 1, s, 0);
    add_node(graph, "Relu", s, 1, "y", 0);
    mem_free(s);
}

/* The graph is one of them, as are the value infos of input and output and the node. */
static void items(Text *graph, uint64_t n) {
    plain(graph, 1, 2);
    add_node(graph, "Relu", "x", 1, "y", 0);
    for (uint64_t i = 4; i < n; i++) wire_bytes(graph, GRAPH_VALUE, (Str){0});
}

/* An attribute that nobody knows, with graphs in it. */
static void graphs(Text *graph, uint64_t n) {
    Text attr = {0}, node = {0};
    wire_text(&attr, ATTR_NAME, "graphs");
    for (uint64_t i = 1; i < n; i++) wire_bytes(&attr, 11, (Str){0});
    wire_message(&node, NODE_ATTR, &attr);
    wire_message(graph, GRAPH_NODE, &node);
    plain(graph, 1, 2);
}

/* Chains of `If`, each in the branch of the one before, the condition always the same. */
static void branches(Text *graph, uint64_t n) {
    static const int64_t none[1], dim[] = {2};
    Text inner = {0};
    for (uint64_t i = 0; i <= n; i++) {
        Text body = {0}, v = wire_value(str_c(i == n ? "y" : "r"), FLOAT32, dim, 1, str_c("B"), (Str){0});
        char out[32];
        snprintf(out, sizeof out, i == n ? "y" : "r");
        if (i == 0) add_node(&body, "Relu", "x", 1, out, 0);
        else {
            Text node = {0};
            wire_text(&node, NODE_INPUT, "c");
            wire_text(&node, NODE_OUTPUT, out);
            wire_text(&node, NODE_NAME, "it");
            wire_text(&node, NODE_OP, "If");
            for (int k = 0; k < 2; k++) {
                Text attr = {0}, other = {0}, r = wire_value(str_c("s"), FLOAT32, dim, 1, str_c("B"), (Str){0});
                add_node(&other, "Tanh", "x", 1, "s", 0);
                wire_message(&other, GRAPH_OUTPUT, &r);
                wire_text(&attr, ATTR_NAME, k ? "else_branch" : "then_branch");
                if (k) wire_bytes(&attr, ATTR_GRAPH, (Str){other.p, other.n});
                else wire_bytes(&attr, ATTR_GRAPH, (Str){inner.p, inner.n});
                wire_int(&attr, ATTR_TYPE, TYPE_GRAPH);
                wire_message(&node, NODE_ATTR, &attr);
                text_free(&other);
            }
            wire_message(&body, GRAPH_NODE, &node);
        }
        wire_message(&body, GRAPH_OUTPUT, &v);
        text_free(&inner);
        inner = body;
    }
    text_add(graph, inner.p, inner.n);
    text_free(&inner);
    Text v = wire_value(str_c("x"), FLOAT32, dim, 1, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    v = wire_value(str_c("c"), BOOL, none, 0, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    wire_text(graph, GRAPH_NAME, "g");
}

/* The model and the graph are two of them; then nodes, their attributes and graphs in these. */
static void nesting(Text *graph, uint64_t n) {
    static const unsigned place[] = {GRAPH_NODE, NODE_ATTR, ATTR_GRAPH};
    Text inner = {0};
    for (uint64_t i = n; i-- > 2;) {
        Text outer = {0};
        if (i % 3 == 0) wire_text(&outer, ATTR_NAME, "graph");
        wire_message(&outer, place[(i - 2) % 3], &inner);
        inner = outer;
    }
    text_add(graph, inner.p, inner.n);
    text_free(&inner);
    plain(graph, 1, 2);
}

/* y = x0 + x1 + ... + xn, each of an extent of its own; and inputs that nothing reads. */
static void sum(Text *graph, uint64_t n, uint64_t unread) {
    static const int64_t dim[] = {-1};
    char in[32], so_far[32], out[32];
    for (uint64_t i = 0; i <= n; i++) {
        snprintf(in, sizeof in, "x%llu", (unsigned long long)i);
        Text v = wire_value(str_c(in), FLOAT32, dim, 1, str_c(in), (Str){0}), node = {0};
        wire_message(graph, GRAPH_INPUT, &v);
        if (i == 0) continue;
        snprintf(so_far, sizeof so_far, i == 1 ? "x0" : "y%llu", (unsigned long long)i - 1);
        snprintf(out, sizeof out, "y%llu", (unsigned long long)i);
        wire_text(&node, NODE_INPUT, so_far);
        wire_text(&node, NODE_INPUT, in);
        wire_text(&node, NODE_OUTPUT, out);
        wire_text(&node, NODE_OP, "Add");
        wire_message(graph, GRAPH_NODE, &node);
    }
    Text v = wire_value(str_c(out), FLOAT32, dim, 1, str_c("x0"), (Str){0});
    wire_message(graph, GRAPH_OUTPUT, &v);
    for (uint64_t i = 0; i < unread; i++) {
        snprintf(in, sizeof in, "z%llu", (unsigned long long)i);
        v = wire_value(str_c(in), FLOAT32, (const int64_t[]){1}, 1, str_c("B"), (Str){0});
        wire_message(graph, GRAPH_INPUT, &v);
    }
    wire_text(graph, GRAPH_NAME, "g");
}

static void symbols(Text *graph, uint64_t n) {
    sum(graph, n, 0);
}

static void again(Text *graph, uint64_t n) {
    sum(graph, 500, n);
}

static void add_scalar(Text *graph, const char *name, int64_t value) {
    Text t = {0};
    wire_int(&t, TENSOR_TYPE, INT64);
    wire_text(&t, TENSOR_NAME, name);
    wire_bytes(&t, TENSOR_RAW, (Str){(const char *)&value, sizeof value});
    wire_message(graph, GRAPH_TENSOR, &t);
}

/* n constants, each made of the one before, the first of three numbers. */
static void sequence(Text *graph, uint64_t n, int64_t extent) {
    const int64_t dim[] = {2}, big[] = {extent};
    Text t = {0}, attr = {0}, v = wire_value(str_c("x"), FLOAT32, dim, 1, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    add_scalar(graph, "first", 0);
    add_scalar(graph, "step", 1);
    add_scalar(graph, "end", big[0]);
    wire_text(&t, NODE_INPUT, "first");
    wire_text(&t, NODE_INPUT, "end");
    wire_text(&t, NODE_INPUT, "step");
    wire_text(&t, NODE_OUTPUT, "range");
    wire_text(&t, NODE_OP, "Range");
    wire_message(graph, GRAPH_NODE, &t);
    wire_text(&attr, ATTR_NAME, "to");
    wire_int(&attr, ATTR_INT, FLOAT32);
    wire_int(&attr, ATTR_TYPE, TYPE_INT);
    wire_text(&t, NODE_INPUT, "range");
    wire_text(&t, NODE_OUTPUT, "k0");
    wire_text(&t, NODE_OP, "Cast");
    wire_message(&t, NODE_ATTR, &attr);
    wire_message(graph, GRAPH_NODE, &t);
    for (uint64_t i = 0; i < n; i++) {
        char from[32], to[32], out[32];
        snprintf(from, sizeof from, "k%llu", (unsigned long long)i);
        snprintf(to, sizeof to, "k%llu", (unsigned long long)i + 1);
        snprintf(out, sizeof out, "y%llu", (unsigned long long)i);
        Text sum = {0};
        add_node(graph, "Exp", from, 1, to, 0);
        wire_text(&sum, NODE_INPUT, to);
        wire_text(&sum, NODE_INPUT, "x0");
        wire_text(&sum, NODE_OUTPUT, out);
        wire_text(&sum, NODE_NAME, "it");
        wire_text(&sum, NODE_OP, "Add");
        wire_message(graph, GRAPH_NODE, &sum);
        v = wire_value(str_c(out), FLOAT32, big, 1, str_c("B"), (Str){0});
        wire_message(graph, GRAPH_OUTPUT, &v);
    }
    v = wire_value(str_c("x0"), FLOAT32, (const int64_t[]){1}, 1, str_c("B"), (Str){0});
    wire_message(graph, GRAPH_INPUT, &v);
    wire_text(graph, GRAPH_NAME, "g");
}

static void constant(Text *graph, uint64_t n) {
    sequence(graph, 1, (int64_t)n);
}

static void constants(Text *graph, uint64_t n) {
    sequence(graph, n, 1 << 22); /* 16 MiB */
}

static void small_constants(Text *graph, uint64_t n) {
    sequence(graph, n, 1 << 10);
}

static const struct {
    const char *what;
    void (*fill)(Text *graph, uint64_t n);
} kinds[] = {
    {"rank", rank}, {"extent", extent}, {"inputs", inputs}, {"attributes", attributes}, {"name", name},
    {"items", items}, {"graphs", graphs}, {"branches", branches}, {"constants", constants}, {"small_constants", small_constants},
    {"constant", constant}, {"nesting", nesting}, {"symbols", symbols}, {"again", again},
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 4 && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(argv[1], kinds[i].what) != 0) continue;
        Text graph = {0};
        kinds[i].fill(&graph, strtoull(argv[2], NULL, 10));
        Text model = wire_model(&graph);
        FILE *f = fopen(argv[3], "wb");
        if (f && fwrite(model.p, 1, model.n, f) == model.n && !fclose(f)) {
            text_free(&model);
            return 0;
        }
    }
    fprintf(stderr, "usage: too_much WHAT N FILE\n");
    return 2;
}
