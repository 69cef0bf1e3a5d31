/* What a T5 has to do, counted from its configuration: products with weights and the two of attention,
 * nothing else.
 *
 * It is the base model's for every variant, so that a ratio of one with an adapter is what the adapter costs
 * as well. Lengths: s source tokens, t target tokens. */
#include "bench.h"

static double inner(const T5Config *c) {
    return (double)(c->heads * c->d_kv);
}

/* Weights of a layer's products: attention with or without the cross attention's, feed-forward. */
static double layer_weights(const T5Config *c, bool cross) {
    double d = (double)c->d_model;
    return 4 * d * inner(c) * (cross ? 2 : 1) + (c->gated ? 3 : 2) * d * (double)c->d_ff;
}

static double cross_weights(const T5Config *c) {
    return 2 * (double)c->d_model * inner(c);
}

double work_encode(const T5Config *c, double length) {
    return (double)c->enc_layers * (2 * length * layer_weights(c, false) + 4 * length * length * inner(c));
}

static double layers(const T5Config *c, double s, double t) {
    double encoder = 2 * s * layer_weights(c, false), cross = 2 * s * cross_weights(c);
    double decoder = 2 * t * (layer_weights(c, true) - cross_weights(c));
    return (double)c->enc_layers * encoder + (double)c->dec_layers * (decoder + cross);
}

static double attention(const T5Config *c, double s, double t) {
    return 4 * inner(c) * ((double)c->enc_layers * s * s + (double)c->dec_layers * (t * t + t * s));
}

static double head(const T5Config *c, double t) {
    return 2 * t * (double)c->d_model * (double)c->vocab;
}

double work_forward(const T5Config *c, double s, double t) {
    return layers(c, s, t) + attention(c, s, t) + head(c, t);
}

/* The adjoint of every product's left side but those of q, k and v at the bottom of both stacks, and four
 * products for the two of attention. What is computed again does not count; gradients of frozen weights do
 * not exist. */
double work_backward(const T5Config *c, double s, double t) {
    double bottom = 2 * (s + t) * 3 * (double)c->d_model * inner(c);
    return layers(c, s, t) - bottom + 2 * attention(c, s, t) + head(c, t);
}

/* As the compiler puts them together: what reads one value is side by side. */
void work_products(const T5Config *c, Product p[PRODUCTS]) {
    int64_t d = c->d_model, i = c->heads * c->d_kv;
    const Product all[PRODUCTS] = {{"q k v", d, 3 * i}, {"o", i, d},
                                   {"cross q", d, i},   {"wi", d, (c->gated ? 2 : 1) * c->d_ff},
                                   {"wo", c->d_ff, d},  {"head", d, c->vocab}};
    for (int k = 0; k < PRODUCTS; k++)
        p[k] = all[k];
}
