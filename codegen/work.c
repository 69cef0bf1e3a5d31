/* What the nodes of a kernel cost, summed as extents are: exact for all lengths a program takes. */
#include "work.h"

/* What is too large for 64 bits at the upper bounds is not said. */
static Dim known(DimTable *t, Dim d) {
    return d == DIM_BAD || dim_upper(t, d) >= INT64_MAX / 2 ? dim_const(t, 0) : d;
}

/* ---- products ------------------------------------------------------------------------------------------ */

static const Type *operand(const Func *f, const Node *n, uint32_t i) {
    return &f->value[n->in[i]].type;
}

/* Elements of the result, each a sum over the inner extent. */
static Dim matmul_terms(DimTable *t, const Func *f, const Node *n) {
    const Type *a = operand(f, n, 0);
    return dim_mul(t, type_count(t, &f->value[n->out].type), a->dim[a->rank - (node_int(n, AT_ta, 0) ? 2 : 1)]);
}

/* Elements of the queries [B,T,H*D] with each of S keys; of packed keys with those of an example as long as the mean. */
static Dim attention_terms(DimTable *t, const Func *f, const Node *n) {
    uint32_t q = n->op == OP_attention_grad;
    Dim terms = dim_mul(t, type_count(t, operand(f, n, q)), operand(f, n, q + 1)->dim[1]);
    return !q && n->n_in > 9 && n->in[9] != NONE ? dim_floordiv(t, terms, operand(f, n, 9)->dim[0]) : terms;
}

/* Elements of x [B,T,d] with each word of the vocabulary. */
static Dim entropy_terms(DimTable *t, const Func *f, const Node *n) {
    return dim_mul(t, type_count(t, operand(f, n, 0)), operand(f, n, 1)->dim[node_int(n, AT_tb, 0) ? 0 : 1]);
}

/* A product is two operations a term. */
static const struct ProductRule {
    Op op;
    int64_t products; /* of as many terms; what a gradient computes again counts */
    Dim (*terms)(DimTable *t, const Func *f, const Node *n);
} product_rules[] = {
    {OP_matmul, 1, matmul_terms},         {OP_attention, 2, attention_terms},        {OP_attention_grad, 5, attention_terms},
    {OP_cross_entropy, 1, entropy_terms}, {OP_cross_entropy_dx, 2, entropy_terms},   {OP_cross_entropy_dw, 2, entropy_terms},
};

Dim work_flops(const Module *m, const Func *f) {
    DimTable *t = m->dims;
    Dim sum = dim_const(t, 0);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (size_t k = 0; k < sizeof product_rules / sizeof *product_rules; k++) {
            const struct ProductRule *r = &product_rules[k];
            if (r->op != f->node[i].op) continue;
            sum = dim_add(t, sum, dim_mul(t, dim_const(t, 2 * r->products), r->terms(t, f, &f->node[i])));
        }
    return known(t, sum);
}

/* ---- bytes ----------------------------------------------------------------------------------------------- */

static Dim bytes_of(DimTable *t, const Type *type) {
    return dim_mul(t, type_count(t, type), dim_const(t, (int64_t)dtype_bytes(type->dtype)));
}

static bool is_operand(const Func *f, ValueId v) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++)
            if (f->node[i].in[j] == v) return true;
    return false;
}

static Dim bytes_read(DimTable *t, const Func *f, ValueId v) {
    Dim gathered = dim_const(t, 0);
    bool whole = false;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t j = 0; j < n->n_in; j++) {
            if (n->in[j] != v) continue;
            if (j == 0 && (n->op == OP_gather || n->op == OP_gather_nd))
                gathered = dim_add(t, gathered, bytes_of(t, &f->value[n->out].type));
            else
                whole = whole || j > 0 || n->op != OP_append || is_operand(f, n->out);
        }
    }
    return whole ? bytes_of(t, &f->value[v].type) : gathered;
}

static Dim bytes_written(DimTable *t, const Func *f, ValueId v) {
    const Node *n = value_node(f, v);
    return bytes_of(t, n && n->op == OP_append ? operand(f, n, 1) : &f->value[v].type);
}

Dim work_bytes(const Module *m, const Func *f) {
    DimTable *t = m->dims;
    Dim sum = dim_const(t, 0);
    for (uint32_t i = 0; i < f->n_inputs; i++) sum = dim_add(t, sum, bytes_read(t, f, f->input[i]));
    for (uint32_t i = 0; i < f->n_outputs; i++) sum = dim_add(t, sum, bytes_written(t, f, f->output[i]));
    return known(t, sum);
}
