/* derive, for training: encoder and decoder in one function, with the loss and what its gradient is wanted of.
 *
 *   train(input_ids, encoder_segments, decoder_input_ids, decoder_segments, labels, weight, smoothing, z_loss, dropout,
 *         router_share, seed) -> loss, token_loss, balance_loss, router_z_loss, grad.TENSOR ...
 *   routers(input_ids, encoder_segments, decoder_input_ids, decoder_segments, labels) -> load.SITE, entropy.SITE ...
 *
 * and `sentence` where routers read one. Segments number the examples packed into a row; 0 is padding. A token sees its
 * own segment alone, in all three attentions; the decoder has no other padding mask. Dropout stands where T5 has it:
 * behind both embeddings, on attention probabilities, behind each block before the residual sum, in front of wo, behind
 * both final norms. Every mask is a function of a seed and a position, so the backward pass makes it again.
 *
 * The loss is sum(weight * token loss) + router_share * (balance losses + z losses of the routers, each a mean over real
 * tokens and heads, then over the sites that have a weight). */
#include "adapter.h"
#include "derive_impl.h"

#include <string.h>

static const Str no_origin = {0};

static ValueId binary(Deriver *dv, Copy *c, Op op, ValueId a, ValueId b) {
    return build_binary(dv->m, c->f, op, a, b, no_origin);
}

/* ---- noise ---- */

static ValueId random_like(Deriver *dv, Copy *c, ValueId x) {
    ValueId seed = c->train->seed++;
    return func_node_typed(dv->m, c->f, OP_random, &seed, 1, NULL, 0, &c->f->value[x].type, 1, no_origin);
}

/* x where a uniform number is at least the probability, scaled so that the mean stays, else 0. */
static ValueId drop_out(Deriver *dv, Copy *c, ValueId x, Str origin) {
    if (c->train->drop == NONE)
        return x;
    ValueId in[3] = {binary(dv, c, OP_ge, random_like(dv, c, x), c->train->drop), c->train->kept,
                     build_scalar(dv->m, c->f, DT_F32, 0)};
    return build_binary(dv->m, c->f, OP_mul, x, func_node(dv->m, c->f, OP_select, in, 3, NULL, 0, origin),
                        origin);
}

/* x (1 + eps (2u - 1)) */
static ValueId jitter(Deriver *dv, Copy *c, ValueId x, double eps, Str origin) {
    if (c->train->drop == NONE)
        return x;
    ValueId wide = binary(dv, c, OP_mul, random_like(dv, c, x), build_scalar(dv->m, c->f, DT_F32, 2 * eps));
    return build_binary(dv->m, c->f, OP_mul, x,
                        binary(dv, c, OP_add, wide, build_scalar(dv->m, c->f, DT_F32, 1 - eps)), origin);
}

ValueId train_noise(Deriver *dv, Copy *c, const Node *n, ValueId x) {
    return n->op == OP_dropout ? drop_out(dv, c, x, n->origin)
                               : jitter(dv, c, x, node_float(n, AT_eps, 0), n->origin);
}

/* Segments take the place of the mask. */
void train_attention(Deriver *dv, Copy *c, const Node *n, const ValueId *in) {
    enum { OPERANDS = 9 };
    Training *t = c->train;
    bool self = !c->decoder || c->tag[n->in[1]] >= 0;
    ValueId all[OPERANDS] = {in[0],
                             in[1],
                             in[2],
                             n->n_in > 3 ? in[3] : NONE,
                             NONE,
                             t->segments[c->decoder],
                             t->segments[c->decoder && self],
                             NONE,
                             NONE};
    uint32_t n_in = 7, n_attrs = 0;
    if (t->drop != NONE) {
        all[n_in++] = t->seed++;
        all[n_in++] = t->drop;
    }
    Attr attrs[12];
    CHECK(n->n_attrs <= 12);
    for (; n_attrs < n->n_attrs; n_attrs++)
        attrs[n_attrs] = rename_attr(dv, n->attrs[n_attrs], c->names);
    c->map[n->out] = func_node(dv->m, c->f, OP_attention, all, n_in, attrs, n_attrs, n->origin);
}

void train_node(Deriver *dv, Copy *c, const Node *n) {
    if (node_attr(n, AT_router)) {
        RouterValue v = {n, c->map[n->out], c->decoder && c->tag[n->out] >= 0};
        vec_push(&c->train->router, v);
    }
    if (c->dropped[n->out])
        c->map[n->out] = drop_out(dv, c, c->map[n->out], n->origin);
}

/* ---- the two copies ---- */

/* The product that makes the logits, behind scalar factors; NULL when there is none. */
static const Node *logits_product(const Module *m, const Func *f, ValueId logits) {
    double by;
    for (const Node *n = value_node(f, logits); n; n = value_node(f, logits)) {
        if (n->op == OP_matmul)
            return n;
        if (n->op != OP_mul)
            break;
        if (value_scalar(m, f, n->in[1], &by))
            logits = n->in[0];
        else if (value_scalar(m, f, n->in[0], &by))
            logits = n->in[1];
        else
            break;
    }
    return NULL;
}

/* Rows of a table that the token ids pick. */
static bool is_embedding(const Func *f, const Inputs *in, const Node *n) {
    ValueId v = n->op == OP_gather && f->value[n->in[0]].kind == VK_PARAM ? n->in[1] : NONE;
    for (const Node *k; v != NONE && (k = value_node(f, v));)
        v = k->n_in ? k->in[0] : NONE;
    return v != NONE && v == in->ids && f->value[n->out].type.dtype == DT_F32;
}

/* Seeds one function needs: one for what its last product or output is dropped by. */
static uint32_t count_noise(const Func *f, const Inputs *in) {
    uint32_t n = 1;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *k = &f->node[i];
        n += k->op == OP_attention || k->op == OP_dropout || k->op == OP_jitter || is_embedding(f, in, k);
    }
    return n;
}

static ValueId train_input(Deriver *dv, Func *f, const char *name, DType dtype, const Type *like) {
    Type t = like ? *like : type_scalar(dtype);
    t.dtype = dtype;
    return func_input(dv->m, f, str_c(name), t);
}

static ValueId build_ne(Deriver *dv, Func *f, ValueId v, double than) {
    return build_binary(dv->m, f, OP_ne, v, build_scalar(dv->m, f, DT_I64, than), no_origin);
}

/* What both functions take, in this order. */
typedef struct TrainInputs {
    Func *f;
    ValueId ids[2], labels;
    Type source, target;
} TrainInputs;

static TrainInputs train_begin(Deriver *dv, const char *name, Training *t) {
    static const char *const ids[] = {"input_ids", "decoder_input_ids"};
    static const char *const segments[] = {"encoder_segments", "decoder_segments"};
    TrainInputs in = {.f = func_begin(dv->m, str_c(name), FR_ENTRY)};
    in.source = rename_type(dv, dv->enc->value[dv->ein.ids].type, &dv->enc_names);
    in.target = rename_type(dv, dv->dec->value[dv->din.ids].type, &dv->dec_names);
    for (int i = 0; i < 2; i++) {
        in.ids[i] = train_input(dv, in.f, ids[i], DT_I64, i ? &in.target : &in.source);
        t->segments[i] = train_input(dv, in.f, segments[i], DT_I64, i ? &in.target : &in.source);
    }
    in.labels = train_input(dv, in.f, "labels", DT_I64, &in.target);
    t->sentence = t->drop = t->kept = t->seed = NONE;
    ValueId sentence = dv->ein.sentence != NONE ? dv->ein.sentence : dv->din.sentence;
    if (sentence != NONE) {
        bool encoder = dv->ein.sentence != NONE;
        Type w = rename_type(dv, (encoder ? dv->enc : dv->dec)->value[sentence].type,
                             encoder ? &dv->enc_names : &dv->dec_names);
        t->sentence = train_input(dv, in.f, "sentence", DT_F32, &w);
    }
    return in;
}

static void count_real(Deriver *dv, TrainInputs *in, Training *t) {
    t->real[0] = build_cast(dv->m, in->f, build_ne(dv, in->f, t->segments[0], 0), DT_F32, no_origin);
    t->real[1] = build_cast(dv->m, in->f, build_ne(dv, in->f, in->labels, -100), DT_F32, no_origin);
}

/* Copies the encoder (decoder false) or the decoder up to `out`, whose inputs get their values first. */
static bool copy_half(Deriver *dv, Copy *c, const TrainInputs *in, ValueId hidden, ValueId out) {
    const Inputs *old = c->decoder ? &dv->din : &dv->ein;
    c->tag = c->decoder ? dv->tag : NULL;
    copy_bind(dv, c, old->ids, in->ids[c->decoder]);
    if (old->mask != NONE)
        copy_bind(dv, c, old->mask, build_ne(dv, c->f, c->train->segments[0], 0));
    if (old->sentence != NONE)
        copy_bind(dv, c, old->sentence, c->train->sentence);
    if (c->decoder)
        copy_bind(dv, c, old->hidden, hidden);
    bool *mark = needed(dv, c, &out, 1), *dropped = arena_array(dv->a, c->old->n_values + 1, sizeof *dropped);
    for (NodeId i = 0; i < c->old->n_nodes; i++)
        dropped[c->old->node[i].out] =
            mark[c->old->node[i].out] && is_embedding(c->old, old, &c->old->node[i]);
    const Node *product = c->decoder ? logits_product(dv->m, c->old, out) : NULL;
    if (product)
        dropped[product->in[0]] = true;
    if (!c->decoder)
        dropped[out] = true;
    c->dropped = dropped;
    if (stray_input(dv, c, mark))
        return false;
    copy_body(dv, c, mark);
    return true;
}

/* Both halves into in->f; *dec is the decoder's copy. */
static bool copy_halves(Deriver *dv, TrainInputs *in, Training *t, ValueId logits, Copy *dec) {
    Copy enc = copy_into(dv, dv->enc, in->f, &dv->enc_names);
    enc.train = t;
    ValueId hidden = unrounded(dv->enc, dv->enc->output[0]);
    if (!copy_half(dv, &enc, in, NONE, hidden))
        return false;
    *dec = copy_into(dv, dv->dec, in->f, &dv->dec_names);
    dec->train = t;
    dec->decoder = true;
    return copy_half(dv, dec, in, copied(dv, &enc, hidden), logits);
}

/* ---- losses ---- */

static ValueId sum_axes(Module *m, Func *f, ValueId v, int from, int to, bool keep) {
    int64_t axes[MOEC_MAX_RANK];
    uint32_t n = 0;
    for (int i = from; i < to; i++)
        axes[n++] = i;
    if (n == 0)
        return v;
    Attr attrs[2] = {attr_ints(AT_axes, axes, n), attr_i(AT_keep, keep)};
    return func_node(m, f, OP_reduce_sum, &v, 1, attrs, 2, no_origin);
}

static ValueId over_last(Module *m, Func *f, Op op, ValueId v) {
    Attr axis = attr_i(AT_axis, f->value[v].type.rank - 1);
    return func_node(m, f, op, &v, 1, &axis, 1, no_origin);
}

static ValueId mean_last(Module *m, Func *f, ValueId v) {
    int64_t last = f->value[v].type.rank - 1;
    Attr attrs[2] = {attr_ints(AT_axes, &last, 1), attr_i(AT_keep, 0)};
    return func_node(m, f, OP_reduce_mean, &v, 1, attrs, 2, no_origin);
}

/* Loss of each token where logits are not a plain product: from their log-softmax. */
static ValueId loss_of_logits(Deriver *dv, Copy *c, ValueId logits, ValueId labels, ValueId smoothing,
                              ValueId z_loss) {
    ValueId real = build_ne(dv, c->f, labels, -100), lp = over_last(dv->m, c->f, OP_log_softmax, logits);
    ValueId safe[3] = {real, labels, build_scalar(dv->m, c->f, DT_I64, 0)};
    Type t = c->f->value[labels].type;
    t.dim[t.rank++] = dim_const(dv->m->dims, 1);
    ValueId at = build_reshape(dv->m, c->f, func_node(dv->m, c->f, OP_select, safe, 3, NULL, 0, no_origin),
                               t.rank, t.dim, no_origin);
    ValueId pick[2] = {lp, at};
    Attr batch = attr_i(AT_batch, 2);
    ValueId own = func_node(dv->m, c->f, OP_gather_nd, pick, 2, &batch, 1, no_origin);
    ValueId log_z = mean_last(dv->m, c->f, binary(dv, c, OP_sub, logits, lp));
    ValueId plain =
        binary(dv, c, OP_mul, own, binary(dv, c, OP_sub, build_scalar(dv->m, c->f, DT_F32, 1), smoothing));
    ValueId nll = binary(dv, c, OP_add, plain, binary(dv, c, OP_mul, mean_last(dv->m, c->f, lp), smoothing));
    ValueId loss[3] = {
        real, binary(dv, c, OP_sub, binary(dv, c, OP_mul, z_loss, binary(dv, c, OP_mul, log_z, log_z)), nll),
        build_scalar(dv->m, c->f, DT_F32, 0)};
    return func_node(dv->m, c->f, OP_select, loss, 3, NULL, 0, no_origin);
}

static ValueId token_losses(Deriver *dv, Copy *c, ValueId logits, ValueId labels, ValueId smoothing,
                            ValueId z_loss) {
    const Node *n = value_node(c->old, logits);
    if (!n || n->op != OP_matmul || node_int(n, AT_ta, 0) || c->old->value[n->in[1]].type.rank != 2)
        return loss_of_logits(dv, c, copied(dv, c, logits), labels, smoothing, z_loss);
    ValueId in[5] = {copied(dv, c, n->in[0]), copied(dv, c, n->in[1]), labels, smoothing, z_loss};
    const Attr *tb = node_attr(n, AT_tb);
    return func_node(dv->m, c->f, OP_cross_entropy, in, 5, tb, tb ? 1 : 0, n->origin);
}

/* ---- routers ---- */

/* The value of `what` at v's site, v's own when the site has none. */
static ValueId router_value(const Training *t, const RouterValue *v, const char *what) {
    Str site = node_attr(v->n, AT_site)->s;
    for (size_t i = 0; i < t->router.count; i++)
        if (str_eq(node_attr(t->router.item[i].n, AT_site)->s, site) &&
            str_is(node_attr(t->router.item[i].n, AT_router)->s, what))
            return t->router.item[i].now;
    return v->now;
}

/* How often each element of a router's value [B,(N),(H),E] counts, in extents it broadcasts from, and the sum of that
 * over tokens and heads. */
typedef struct Counted {
    ValueId weight, total;
} Counted;

static Counted count_tokens(Deriver *dv, Func *f, const Training *t, const RouterValue *v) {
    Module *m = dv->m;
    Type type = f->value[v->now].type;
    int64_t heads = 1;
    Counted r = {.weight = t->real[v->target]};
    if (type.rank == 2) /* one row for all tokens of an example */
        r.weight = sum_axes(m, f, r.weight, 1, 2, true);
    for (int i = 2; i + 1 < type.rank; i++) {
        int64_t n = 1;
        dim_is_const(m->dims, type.dim[i], &n);
        heads *= n;
    }
    r.total = build_binary(m, f, OP_mul, sum_axes(m, f, r.weight, 0, 2, false),
                           build_scalar(m, f, DT_F32, (double)heads), no_origin);
    r.total = build_binary(m, f, OP_max, r.total, build_scalar(m, f, DT_F32, 1), no_origin);
    if (type.rank > 2) {
        for (int i = 2; i < type.rank; i++)
            type.dim[i] = dim_const(m->dims, 1);
        r.weight = build_reshape(m, f, r.weight, type.rank, type.dim, no_origin);
    }
    return r;
}

/* Mean over real tokens and heads: of x [..,E] to [E], of x [..,1] to [1]. */
static ValueId mean_tokens(Deriver *dv, Func *f, Counted by, ValueId x) {
    ValueId all = build_binary(dv->m, f, OP_mul, x, by.weight, no_origin);
    return build_binary(dv->m, f, OP_div, sum_axes(dv->m, f, all, 0, f->value[all].type.rank - 1, false),
                        by.total, no_origin);
}

/* E sum_e f_e P_e: f from the selection, P the mean of the softmax over all experts. Switch Transformer's, arXiv
 * 2101.03961. */
static ValueId balance_of(Deriver *dv, Func *f, const Training *t, const RouterValue *v) {
    Module *m = dv->m;
    Counted by = count_tokens(dv, f, t, v);
    ValueId mask = build_cast(m, f, router_value(t, v, "mask"), DT_F32, no_origin);
    ValueId p = over_last(m, f, OP_softmax, router_value(t, v, "scaled"));
    ValueId both =
        build_binary(m, f, OP_mul, mean_tokens(dv, f, by, mask), mean_tokens(dv, f, by, p), no_origin);
    int64_t experts = 1;
    dim_is_const(m->dims, f->value[both].type.dim[0], &experts);
    return build_binary(m, f, OP_mul, sum_axes(m, f, both, 0, 1, false),
                        build_scalar(m, f, DT_F32, (double)experts), no_origin);
}

/* Mean of logsumexp(logits)^2: ST-MoE's, arXiv 2202.08906. Every logit less its log-softmax is log Z. */
static ValueId z_of(Deriver *dv, Func *f, const Training *t, const RouterValue *v) {
    Module *m = dv->m;
    int last = f->value[v->now].type.rank - 1;
    int64_t axis = last;
    ValueId each = build_binary(m, f, OP_sub, v->now, over_last(m, f, OP_log_softmax, v->now), no_origin);
    Attr attrs[2] = {attr_ints(AT_axes, &axis, 1), attr_i(AT_keep, 1)};
    ValueId log_z = func_node(m, f, OP_reduce_mean, &each, 1, attrs, 2, no_origin);
    ValueId square = build_binary(m, f, OP_mul, log_z, log_z, no_origin);
    ValueId mean = mean_tokens(dv, f, count_tokens(dv, f, t, v), square);
    return build_reshape(m, f, mean, 0, NULL, no_origin);
}

typedef ValueId RouterLoss(Deriver *dv, Func *f, const Training *t, const RouterValue *v);

/* Mean over the sites that carry a weight `key` of a loss, with the weights in *weighted and without them. */
static ValueId router_losses(Deriver *dv, Func *f, const Training *t, AttrKey key, RouterLoss *loss,
                             ValueId *weighted) {
    Module *m = dv->m;
    ValueId sum = NONE;
    uint32_t n = 0;
    *weighted = NONE;
    for (size_t i = 0; i < t->router.count; i++) {
        const RouterValue *v = &t->router.item[i];
        const Attr *weight = node_attr(v->n, key);
        if (!weight)
            continue;
        ValueId one = loss(dv, f, t, v),
                part = build_binary(m, f, OP_mul, one, build_scalar(m, f, DT_F32, weight->f), no_origin);
        sum = sum == NONE ? one : build_binary(m, f, OP_add, sum, one, no_origin);
        *weighted = *weighted == NONE ? part : build_binary(m, f, OP_add, *weighted, part, no_origin);
        n++;
    }
    if (n == 0)
        return build_scalar(m, f, DT_F32, 0);
    ValueId share = build_scalar(m, f, DT_F32, 1.0 / n);
    *weighted = build_binary(m, f, OP_mul, *weighted, share, no_origin);
    return build_binary(m, f, OP_mul, sum, share, no_origin);
}

/* ---- gradients ---- */

static bool ends_in(Str s, const char *suffix) {
    size_t n = strlen(suffix);
    return s.n > n && s.p[s.n - n - 1] == '.' && memcmp(s.p + s.n - n, suffix, n) == 0;
}

static bool is_trained(const PassOptions *o, const Param *p) {
    if (p->kind != PK_ADAPTER)
        return false;
    bool router = ends_in(p->name, adapter_tensor_suffix(TR_ROUTER)) ||
                  ends_in(p->name, adapter_tensor_suffix(TR_ROUTER_BIAS));
    return !o->adapter || (router ? o->adapter->train_router : o->adapter->train_experts);
}

static bool ask_gradients(Deriver *dv, const PassOptions *o, Func *f, ValueId loss) {
    bool any = false;
    bool *used = arena_array(dv->a, dv->m->n_params + 1, sizeof *used);
    for (ValueId v = 0; v < f->n_values; v++)
        if (f->value[v].kind == VK_PARAM)
            used[f->value[v].def] = true;
    for (ParamId p = 0; p < dv->m->n_params; p++) {
        const Param *x = &dv->m->param[p];
        if (!used[p] || !is_trained(o, x))
            continue;
        ValueId in[2] = {loss, func_param(dv->m, f, p)};
        ValueId g = func_node(dv->m, f, OP_gradient, in, 2, NULL, 0, x->name);
        func_output(dv->m, f, g, str_c(arena_printf(dv->m->arena, "grad.%.*s", (int)x->name.n, x->name.p)));
        any = true;
    }
    return any ||
           diag_error(dv->d, DIAG_TRAIN_NOTHING, o->adapter ? o->adapter->file : NULL,
                      "nothing would be trained: --train needs an adapter, with experts or router to train");
}

/* ---- the functions ---- */

static void make_noise(Deriver *dv, TrainInputs *in, Training *t, ValueId drop, ValueId seed) {
    Module *m = dv->m;
    Attr k = attr_i(AT_k, count_noise(dv->enc, &dv->ein) + count_noise(dv->dec, &dv->din));
    ValueId one = build_scalar(m, in->f, DT_F32, 1);
    t->drop = drop;
    t->kept =
        build_binary(m, in->f, OP_div, one, build_binary(m, in->f, OP_sub, one, drop, no_origin), no_origin);
    t->seed = func_node(m, in->f, OP_split_seed, &seed, 1, &k, 1, no_origin);
}

static bool fill_train(Deriver *dv, const PassOptions *o, Training *t, ValueId logits) {
    Module *m = dv->m;
    TrainInputs in = train_begin(dv, "train", t);
    Func *f = in.f;
    ValueId weight = train_input(dv, f, "weight", DT_F32, &in.target);
    ValueId smoothing = train_input(dv, f, "smoothing", DT_F32, NULL),
            z_loss = train_input(dv, f, "z_loss", DT_F32, NULL);
    ValueId drop = train_input(dv, f, "dropout", DT_F32, NULL),
            share = train_input(dv, f, "router_share", DT_F32, NULL);
    ValueId seed = train_input(dv, f, "seed", DT_I64, NULL);
    Copy dec;
    count_real(dv, &in, t);
    make_noise(dv, &in, t, drop, seed);
    if (!copy_halves(dv, &in, t, logits, &dec))
        return false;
    ValueId each = token_losses(dv, &dec, logits, in.labels, smoothing, z_loss);
    ValueId token = sum_axes(m, f, build_binary(m, f, OP_mul, each, weight, no_origin), 0, 2, false);
    ValueId loss = token, part[2], weighted[2];
    part[0] = router_losses(dv, f, t, AT_balance, balance_of, &weighted[0]);
    part[1] = router_losses(dv, f, t, AT_z, z_of, &weighted[1]);
    for (int i = 0; i < 2; i++)
        if (weighted[i] != NONE)
            loss = build_binary(m, f, OP_add, loss, build_binary(m, f, OP_mul, weighted[i], share, no_origin),
                                no_origin);
    func_output(m, f, loss, str_c("loss"));
    func_output(m, f, token, str_c("token_loss"));
    func_output(m, f, part[0], str_c("balance_loss"));
    func_output(m, f, part[1], str_c("router_z_loss"));
    if (!ask_gradients(dv, o, f, loss))
        return false;
    func_end(m, f, NONE);
    return true;
}

bool make_train(Deriver *dv, const PassOptions *o, ValueId logits) {
    Training t = {0};
    bool ok = fill_train(dv, o, &t, logits);
    vec_free(&t.router);
    return ok;
}

/* Mean weight of every expert, and mean entropy of the softmax over all of them. */
static void router_outputs(Deriver *dv, Func *f, const Training *t, const RouterValue *v) {
    Module *m = dv->m;
    Str site = node_attr(v->n, AT_site)->s;
    Counted by = count_tokens(dv, f, t, v);
    ValueId load = mean_tokens(dv, f, by, router_value(t, v, "weights"));
    ValueId lp = over_last(m, f, OP_log_softmax, router_value(t, v, "scaled"));
    ValueId each = build_binary(m, f, OP_mul, build_unary(m, f, OP_exp, lp, no_origin), lp, no_origin);
    int last = f->value[each].type.rank - 1;
    ValueId entropy = build_unary(
        m, f, OP_neg, mean_tokens(dv, f, by, sum_axes(m, f, each, last, last + 1, true)), no_origin);
    func_output(m, f, load, str_c(arena_printf(m->arena, "load.%.*s", (int)site.n, site.p)));
    func_output(m, f, build_reshape(m, f, entropy, 0, NULL, no_origin),
                str_c(arena_printf(m->arena, "entropy.%.*s", (int)site.n, site.p)));
}

bool make_routers(Deriver *dv, ValueId logits) {
    Training t = {0};
    TrainInputs in = train_begin(dv, "routers", &t);
    Copy dec;
    count_real(dv, &in, &t);
    bool ok = copy_halves(dv, &in, &t, logits, &dec), any = false;
    for (size_t i = 0; ok && i < t.router.count; i++)
        if (str_is(node_attr(t.router.item[i].n, AT_router)->s, "logits")) {
            router_outputs(dv, in.f, &t, &t.router.item[i]);
            any = true;
        }
    if (any)
        func_end(dv->m, in.f, NONE);
    vec_free(&t.router);
    return ok;
}
