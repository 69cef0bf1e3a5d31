/* derive: the functions a sequence-to-sequence model is run by, from its encoder and its decoder.
 *
 *   encode(input_ids, attention_mask) -> hidden
 *   cross(hidden) -> cross_kv               keys and values of every decoder layer, head by head
 *   step(token, cross_kv, attention_mask, self_k_0, self_v_0, ...) -> logits, token, self_k_0, ...
 *   score(decoder_input_ids, cross_kv, attention_mask, labels) -> logprob, logits
 *   train(...) -> losses, gradients         and `routers`, with --train: derive_train.c
 *
 * and the same without padding, where derive_packed.c finds that they can be, all tokens of a batch in one row:
 *
 *   encode_packed(packed_ids, spans) -> packed_hidden         cross_packed(packed_hidden, spans) -> packed_kv
 *   step_packed, score_packed: packed_kv, spans in the place of cross_kv, attention_mask
 *
 * An input `sentence` goes to every function that reads it. step is the decoder's body with one token: an
 * analysis proves that outside attention no value of one position depends on another, so the earlier
 * positions enter by their self-attention keys and values alone. Canonical symbols: B rows, S source tokens,
 * T target tokens, P past tokens, N source tokens of all rows together. */
#include "derive_impl.h"
#include "pass.h"

#include <string.h>

/* ---- canonical symbols ---- */

void rename_add(Renames *r, DimTable *t, Dim from, Dim to) {
    uint32_t sym;
    if (!dim_as_sym(t, from, &sym))
        return;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->from[i] == sym)
            return;
    if (r->n < MAX_RENAMES) {
        r->from[r->n] = sym;
        r->to[r->n++] = to;
    }
}

Dim rename_dim(const Renames *r, DimTable *t, Dim d) {
    for (uint32_t i = 0; i < r->n; i++)
        d = dim_subst(t, d, r->from[i], r->mid[i]);
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t mid;
        if (r->mid[i] != r->to[i] && dim_as_sym(t, r->mid[i], &mid))
            d = dim_subst(t, d, mid, r->to[i]);
    }
    return d;
}

/* A symbol that takes part on both sides is renamed by way of a third one. */
void rename_finish(Renames *r, DimTable *t) {
    for (uint32_t i = 0; i < r->n; i++) {
        r->mid[i] = r->to[i];
        for (uint32_t k = 0; k < r->n; k++) {
            uint32_t to;
            if (k != i && dim_as_sym(t, r->to[i], &to) && to == r->from[k]) {
                char name[32];
                Text text = {0};
                text_printf(&text, "\001%u", i);
                memcpy(name, text.p, text.n);
                Str s = {name, text.n};
                r->mid[i] = dim_sym(t, s);
                text_free(&text);
            }
        }
    }
}

/* The canonical symbol's bounds are those of every symbol it replaces. */
static void bound_symbol(DimTable *t, Dim canon, Dim replaced) {
    uint32_t c, s;
    if (!dim_as_sym(t, canon, &c) || !dim_as_sym(t, replaced, &s))
        return;
    DimSym *to = dim_sym_at(t, c);
    const DimSym *from = dim_sym_at(t, s);
    if (from->lo > to->lo)
        to->lo = from->lo;
    if (from->hi < to->hi)
        to->hi = from->hi;
}

/* ---- copying nodes ---- */

static bool states_type(Op op) {
    static const char *const rule[OP_COUNT] = {
#define OP(name, in_min, in_max, outs, attrs, klass, infer, interp, grad, doc) [OP_##name] = #infer,
#include "ops.def"
    };
    return strcmp(rule[op], "given") == 0;
}

Attr rename_attr(Deriver *dv, Attr a, const Renames *r) {
    DimTable *t = dv->m->dims;
    if (attr_kind(a.key) == AK_DIM)
        a.d = rename_dim(r, t, a.d);
    if (attr_kind(a.key) == AK_DIMS) {
        Dim *v = arena_array(dv->a, a.dims.n, sizeof *v);
        for (uint32_t i = 0; i < a.dims.n; i++)
            v[i] = rename_dim(r, t, a.dims.v[i]);
        a.dims.v = v;
    }
    return a;
}

Type rename_type(Deriver *dv, Type t, const Renames *r) {
    for (int i = 0; i < t.rank; i++)
        t.dim[i] = rename_dim(r, dv->m->dims, t.dim[i]);
    return t;
}

/* Copies n with new operands in[]. `tag`: token axes by value; with `one` those have extent 1 in the copy. */
static void copy_node(Deriver *dv, Copy *c, const Node *n, const ValueId *in) {
    Attr attrs[12];
    CHECK(n->n_attrs <= 12);
    for (uint32_t i = 0; i < n->n_attrs; i++)
        attrs[i] = rename_attr(dv, n->attrs[i], c->names);
    ValueId out;
    if (states_type(n->op)) {
        Type t = rename_type(dv, c->old->value[n->out].type, c->names);
        if (c->one && c->tag[n->out] >= 0)
            t.dim[c->tag[n->out]] = dim_const(dv->m->dims, 1);
        out = func_node_typed(dv->m, c->f, n->op, in, n->n_in, attrs, n->n_attrs, &t, 1, n->origin);
    } else {
        out = func_node(dv->m, c->f, n->op, in, n->n_in, attrs, n->n_attrs, n->origin);
    }
    for (uint32_t k = 0; k < n->n_out; k++) {
        c->map[n->out + k] = out + k;
        c->f->value[out + k].name = c->old->value[n->out + k].name;
    }
}

ValueId copied(Deriver *dv, Copy *c, ValueId v) {
    if (v == NONE)
        return NONE;
    ParamId p;
    if (c->map[v] == NONE && value_param(c->old, v, &p))
        c->map[v] = func_param(dv->m, c->f, p);
    if (c->map[v] == NONE)
        BUG("derive: a value of %.*s is used before it is copied", (int)c->old->name.n, c->old->name.p);
    return c->map[v];
}

/* Spans say which keys there are: no mask. */
static bool is_packed(const Deriver *dv, const Copy *c, const Node *n) {
    return c->spans != NONE && n->op == OP_attention && (c->old == dv->enc || dv->tag[n->in[1]] < 0);
}

/* Marks what `out` needs, not looking behind values that are mapped already. */
bool *needed(Deriver *dv, const Copy *c, const ValueId *out, uint32_t n_out) {
    const Func *f = c->old;
    bool *mark = arena_array(dv->a, f->n_values + 1, sizeof *mark);
    for (uint32_t i = 0; i < n_out; i++)
        mark[out[i]] = true;
    for (NodeId i = f->n_nodes; i-- > 0;) {
        const Node *n = &f->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= mark[n->out + k] && c->map[n->out + k] == NONE;
        for (uint32_t k = 0; wanted && k < n->n_in; k++)
            if (n->in[k] != NONE && !(k == KEEP_OPERAND && is_packed(dv, c, n)))
                mark[n->in[k]] = true;
    }
    return mark;
}

Copy copy_into(Deriver *dv, const Func *old, Func *f, const Renames *names) {
    Copy c = {.old = old, .f = f, .names = names, .spans = NONE};
    c.map = arena_array(dv->a, old->n_values + 1, sizeof *c.map);
    for (uint32_t i = 0; i < old->n_values; i++)
        c.map[i] = NONE;
    return c;
}

Copy copy_begin(Deriver *dv, const Func *old, const char *name, const Renames *names) {
    return copy_into(dv, old, func_begin(dv->m, str_c(name), FR_ENTRY), names);
}

void copy_bind(Deriver *dv, Copy *c, ValueId v, ValueId now) {
    DType dtype = c->f->value[now].type.dtype;
    c->map[v] = build_cast(dv->m, c->f, now, c->old->value[v].type.dtype, (Str){0});
    for (NodeId i = 0; i < c->old->n_nodes; i++) { /* no rounding on the way to a wider type and back */
        const Node *n = &c->old->node[i];
        if (n->op == OP_cast && n->in[0] == v && c->old->value[n->out].type.dtype == dtype)
            c->map[n->out] = now;
    }
}

/* An input of the new function standing for `v` of the old one; a cast where element types differ. */
static ValueId copy_input(Deriver *dv, Copy *c, ValueId v, const char *name, DType dtype) {
    Type t = rename_type(dv, c->old->value[v].type, c->names);
    t.dtype = dtype;
    if (c->one && c->tag[v] >= 0)
        t.dim[c->tag[v]] = dim_const(dv->m->dims, 1);
    ValueId in = func_input(dv->m, c->f, str_c(name), t);
    copy_bind(dv, c, v, in);
    return in;
}

static bool is_self(const Copy *c, const Node *n) {
    return n->op == OP_attention && c->tag && c->tag[n->in[1]] >= 0;
}

/* ---- keys and values that generation keeps: head by head, so that attention of one query reads each from end to end ---- */

static int64_t heads_of(const Node *attention) {
    return node_int(attention, AT_heads, 1);
}

/* v [B,S,heads*width] as [B,S,heads,width]. */
static ValueId heads_apart(Deriver *dv, Func *f, ValueId v, int64_t heads) {
    const Type *t = &f->value[v].type;
    Dim n = dim_const(dv->m->dims, heads), dim[4] = {t->dim[0], t->dim[1], n, dim_floordiv(dv->m->dims, t->dim[2], n)};
    return build_reshape(dv->m, f, v, 4, dim, (Str){0});
}

/* v [B,heads,S,width] as [B,S,heads*width]. */
static ValueId side_by_side(Deriver *dv, Func *f, ValueId v) {
    static const int64_t perm[4] = {0, 2, 1, 3};
    const Type *t = &f->value[v].type;
    Dim dim[3] = {t->dim[0], t->dim[2], dim_mul(dv->m->dims, t->dim[1], t->dim[3])};
    return build_reshape(dv->m, f, build_transpose(dv->m, f, v, perm, (Str){0}), 3, dim, (Str){0});
}

static Type type_by_heads(Deriver *dv, Type t, int64_t heads) {
    Dim n = dim_const(dv->m->dims, heads);
    Dim dim[4] = {t.dim[0], n, t.dim[1], dim_floordiv(dv->m->dims, t.dim[2], n)};
    return type_ranked(t.dtype, 4, dim);
}

/* Copies all nodes marked; in step self attentions read the past too. */
void copy_body(Deriver *dv, Copy *c, const bool *mark) {
    Module *m = dv->m;
    uint32_t layer = 0;
    for (NodeId i = 0; i < c->old->n_nodes; i++) {
        const Node *n = &c->old->node[i];
        bool wanted = false;
        for (uint32_t k = 0; k < n->n_out; k++)
            wanted |= mark[n->out + k] && c->map[n->out + k] == NONE;
        if (!wanted)
            continue;
        ValueId *in = arena_array(dv->a, n->n_in + 1, sizeof *in);
        bool packed = is_packed(dv, c, n);
        for (uint32_t k = 0; k < n->n_in; k++)
            in[k] = packed && k == KEEP_OPERAND ? NONE : copied(dv, c, n->in[k]);
        if (packed) {
            packed_attention(dv, c, n, in);
            continue;
        }
        if (n->op == OP_dropout || n->op == OP_jitter) {
            c->map[n->out] = c->train ? train_noise(dv, c, n, in[0]) : in[0];
            continue;
        }
        if (c->train && n->op == OP_attention) {
            train_attention(dv, c, n, in);
            continue;
        }
        if (!c->one || !is_self(c, n)) {
            copy_node(dv, c, n, in);
            if (c->train)
                train_node(dv, c, n);
            continue;
        }
        Attr axis = attr_i(AT_axis, 2);
        for (uint32_t k = 0; k < 2; k++) {
            Type t = type_by_heads(dv, c->f->value[in[1 + k]].type, heads_of(n));
            ValueId pair[2] = {c->past[layer * 2 + k], build_reshape(m, c->f, in[1 + k], 4, t.dim, (Str){0})}; /* of one token */
            c->grown[layer * 2 + k] = func_node(m, c->f, OP_append, pair, 2, &axis, 1, n->origin);
            in[1 + k] = side_by_side(dv, c->f, c->grown[layer * 2 + k]);
        }
        layer++;
        Attr attrs[8];
        uint32_t n_attrs = 0;
        for (uint32_t k = 0; k < n->n_attrs && n_attrs < 8; k++) {
            attrs[n_attrs] = rename_attr(dv, n->attrs[k], c->names);
            if (attrs[n_attrs].key == AT_causal)
                attrs[n_attrs].i = 0;
            if (attrs[n_attrs].key == AT_offset)
                attrs[n_attrs].d = dv->P;
            n_attrs++;
        }
        c->map[n->out] = func_node(m, c->f, OP_attention, in, n->n_in, attrs, n_attrs, n->origin);
    }
}

/* ---- the inputs and what they are for ---- */

/* The input behind reshapes, casts and comparisons. */
static ValueId input_behind(const Func *f, ValueId v) {
    for (const Node *n; v != NONE && (n = value_node(f, v));) {
        if (n->n_in == 0)
            return NONE;
        v = n->in[0];
    }
    return v != NONE && f->value[v].kind == VK_INPUT ? v : NONE;
}

static Inputs find_inputs(const Func *f) {
    Inputs in = {NONE, NONE, NONE, NONE};
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        if (n->op == OP_gather && f->value[n->in[0]].kind == VK_PARAM && in.ids == NONE) {
            ValueId v = input_behind(f, n->in[1]);
            if (v != NONE && !dtype_is_float(f->value[v].type.dtype) && f->value[v].type.rank == 2)
                in.ids = v;
        }
        if (n->op == OP_attention && n->n_in > 4 && n->in[4] != NONE && in.mask == NONE)
            in.mask = input_behind(f, n->in[4]);
    }
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Value *v = &f->value[f->input[i]];
        if (v->type.rank == 3 && dtype_is_float(v->type.dtype) && in.hidden == NONE)
            in.hidden = f->input[i];
        if (v->type.rank == 2 && v->type.dtype == DT_F32 && str_is(v->name, "sentence"))
            in.sentence = f->input[i];
    }
    return in;
}

static ValueId sentence_input(Deriver *dv, Copy *c, ValueId sentence, const bool *mark) {
    if (sentence == NONE || !mark[sentence])
        return NONE;
    return copy_input(dv, c, sentence, "sentence", DT_F32);
}

bool stray_input(Deriver *dv, const Copy *c, const bool *mark) {
    for (uint32_t i = 0; i < c->old->n_inputs; i++) {
        ValueId v = c->old->input[i];
        if (mark[v] && c->map[v] == NONE)
            return !diag_error(dv->d, DIAG_MATCH_T5, NULL, "function %s: input '%s' has no place in %.*s",
                               diag_show(dv->d, c->old->name), diag_show(dv->d, c->old->value[v].name),
                               (int)c->f->name.n, c->f->name.p);
    }
    return false;
}

/* The mask every function takes, used or not, so that all models are run the same way. */
static void mask_input(Deriver *dv, Copy *c, ValueId mask) {
    if (mask != NONE) {
        copy_input(dv, c, mask, "attention_mask", DT_I64);
        return;
    }
    Dim dim[2] = {dv->B, dv->S};
    func_input(dv->m, c->f, str_c("attention_mask"), type_ranked(DT_I64, 2, dim));
}

/* What tells the keys of a row: the mask, or its span of the packed ones. */
static void keys_input(Deriver *dv, Copy *c, ValueId mask, bool packed) {
    if (packed)
        c->spans = spans_input(dv, c->f);
    else
        mask_input(dv, c, mask);
}

static const char *named(bool packed, const char *plain, const char *other) {
    return packed ? other : plain;
}

/* ---- the four functions, each with padding and without ---- */

/* A result in f32, whatever the model's files round it to. */
ValueId unrounded(const Func *f, ValueId v) {
    const Node *n = value_node(f, v);
    return n && n->op == OP_cast && dtype_is_float(f->value[v].type.dtype) &&
                   f->value[n->in[0]].type.dtype == DT_F32
               ? n->in[0]
               : v;
}

static bool make_encode(Deriver *dv, bool packed) {
    Module *m = dv->m;
    Copy c = copy_begin(dv, dv->enc, named(packed, "encode", "encode_packed"), packed ? &dv->enc_packed : &dv->enc_names);
    copy_input(dv, &c, dv->ein.ids, named(packed, "input_ids", "packed_ids"), DT_I64);
    keys_input(dv, &c, dv->ein.mask, packed);
    ValueId out = unrounded(dv->enc, dv->enc->output[0]);
    bool *mark = needed(dv, &c, &out, 1);
    sentence_input(dv, &c, dv->ein.sentence, mark);
    if (stray_input(dv, &c, mark))
        return false;
    copy_body(dv, &c, mark);
    func_output(m, c.f, copied(dv, &c, out), str_c(named(packed, "hidden", "packed_hidden")));
    func_end(m, c.f, NONE);
    return true;
}

/* Keys and values of all cross attentions, in layer order. NULL after reporting layers that differ in their heads, or none. */
static ValueId *cross_values(Deriver *dv, uint32_t *n) {
    const Func *f = dv->dec;
    ValueId *kv = arena_array(dv->a, (size_t)f->n_nodes * 2 + 1, sizeof *kv);
    bool alike = true;
    *n = 0;
    for (NodeId i = 0; i < f->n_nodes; i++) {
        const Node *at = &f->node[i];
        if (at->op != OP_attention || dv->tag[at->in[1]] >= 0)
            continue;
        if (*n == 0)
            dv->cross_heads = heads_of(at);
        alike = alike && heads_of(at) == dv->cross_heads;
        for (uint32_t k = 1; k < 3; k++) {
            kv[(*n)++] = at->in[k];
            alike = alike && f->value[at->in[k]].type.dim[2] == f->value[kv[0]].type.dim[2];
        }
    }
    if (*n > 0 && alike)
        return kv;
    diag_error(dv->d, DIAG_MATCH_T5, NULL, *n == 0 ? "the decoder has no cross attention" : "the decoder's layers differ in their heads");
    return NULL;
}

static bool make_cross(Deriver *dv, const ValueId *kv, uint32_t n, bool packed) {
    Module *m = dv->m;
    Copy c = copy_begin(dv, dv->dec, named(packed, "cross", "cross_packed"), packed ? &dv->dec_packed : &dv->dec_names);
    copy_input(dv, &c, dv->din.hidden, named(packed, "hidden", "packed_hidden"), DT_F32);
    if (packed)
        keys_input(dv, &c, NONE, true); /* whose tokens they are; nothing reads it */
    bool *mark = needed(dv, &c, kv, n);
    if (dv->din.mask != NONE && mark[dv->din.mask])
        mask_input(dv, &c, dv->din.mask);
    sentence_input(dv, &c, dv->din.sentence, mark);
    if (stray_input(dv, &c, mark))
        return false;
    copy_body(dv, &c, mark);
    ValueId *parts = arena_array(dv->a, n, sizeof *parts);
    for (uint32_t i = 0; i < n; i++)
        parts[i] = heads_apart(dv, c.f, copied(dv, &c, kv[i]), dv->cross_heads);
    static const int64_t by_heads[4] = {0, 2, 1, 3};
    ValueId all = build_transpose(m, c.f, build_concat(m, c.f, parts, n, 2, (Str){0}), by_heads, (Str){0});
    func_output(m, c.f, all, str_c(named(packed, "cross_kv", "packed_kv")));
    func_end(m, c.f, NONE);
    return true;
}

/* Input cross_kv, its slices in the place of the keys and values. */
static void cross_input(Deriver *dv, Copy *c, const ValueId *kv, uint32_t n, bool packed) {
    Module *m = dv->m;
    Type t = rename_type(dv, dv->dec->value[kv[0]].type, packed ? &dv->dec_packed : c->names);
    int64_t heads = dv->cross_heads;
    t.dim[2] = dim_mul(m->dims, t.dim[2], dim_const(m->dims, n));
    ValueId all = func_input(m, c->f, str_c(named(packed, "cross_kv", "packed_kv")), type_by_heads(dv, t, n * heads));
    for (uint32_t i = 0; i < n; i++)
        if (c->map[kv[i]] == NONE) {
            Dim first = dim_const(m->dims, i * heads), some = dim_const(m->dims, heads);
            c->map[kv[i]] = side_by_side(dv, c->f, build_slice(m, c->f, all, 1, first, some, (Str){0}));
        }
}

static bool make_step(Deriver *dv, const ValueId *kv, uint32_t n, ValueId logits, bool packed) {
    Module *m = dv->m;
    Copy c = copy_begin(dv, dv->dec, named(packed, "step", "step_packed"), &dv->dec_names);
    c.tag = dv->tag;
    c.one = true;
    copy_input(dv, &c, dv->din.ids, "token", DT_I64);
    cross_input(dv, &c, kv, n, packed);
    keys_input(dv, &c, dv->din.mask, packed);
    c.past = arena_array(dv->a, n, sizeof *c.past);
    c.grown = arena_array(dv->a, n, sizeof *c.grown);
    uint32_t layer = 0;
    for (NodeId i = 0; i < dv->dec->n_nodes; i++) {
        const Node *at = &dv->dec->node[i];
        if (!is_self(&c, at))
            continue;
        for (uint32_t k = 0; k < 2; k++) {
            Type t = rename_type(dv, dv->dec->value[at->in[1 + k]].type, c.names);
            t.dim[1] = dv->P;
            c.past[layer * 2 + k] = func_input(m, c.f, str_c(arena_printf(m->arena, "self_%c_%u", "kv"[k], layer)),
                                               type_by_heads(dv, t, heads_of(at)));
        }
        layer++;
    }
    bool *mark = needed(dv, &c, &logits, 1);
    sentence_input(dv, &c, dv->din.sentence, mark);
    if (stray_input(dv, &c, mark))
        return false;
    copy_body(dv, &c, mark);
    ValueId l = copied(dv, &c, logits);
    Attr axis[2] = {attr_i(AT_axis, 2), attr_i(AT_keep, 0)};
    func_output(m, c.f, l, str_c("logits"));
    func_output(m, c.f, func_node(m, c.f, OP_argmax, &l, 1, axis, 2, (Str){0}), str_c("token"));
    for (uint32_t i = 0; i < layer * 2; i++)
        func_output(m, c.f, c.grown[i], str_c(arena_printf(m->arena, "self_%c_%u", "kv"[i % 2], i / 2)));
    func_end(m, c.f, NONE);
    return true;
}

static bool make_score(Deriver *dv, const ValueId *kv, uint32_t n, ValueId logits, bool packed) {
    Module *m = dv->m;
    Str none = {0};
    Copy c = copy_begin(dv, dv->dec, named(packed, "score", "score_packed"), &dv->dec_names);
    copy_input(dv, &c, dv->din.ids, "decoder_input_ids", DT_I64);
    cross_input(dv, &c, kv, n, packed);
    keys_input(dv, &c, dv->din.mask, packed);
    Type t = rename_type(dv, dv->dec->value[dv->din.ids].type, c.names);
    t.dtype = DT_I64;
    ValueId labels = func_input(m, c.f, str_c("labels"), t);
    bool *mark = needed(dv, &c, &logits, 1);
    sentence_input(dv, &c, dv->din.sentence, mark);
    if (stray_input(dv, &c, mark))
        return false;
    copy_body(dv, &c, mark);
    ValueId l = copied(dv, &c, logits);
    Attr axis = attr_i(AT_axis, 2), batch = attr_i(AT_batch, 2);
    ValueId lp = func_node(m, c.f, OP_log_softmax, &l, 1, &axis, 1, none);
    ValueId real = build_binary(m, c.f, OP_ne, labels, build_scalar(m, c.f, DT_I64, -100), none);
    ValueId safe[3] = {real, labels, build_scalar(m, c.f, DT_I64, 0)};
    Dim dim[3] = {t.dim[0], t.dim[1], dim_const(m->dims, 1)};
    ValueId at = build_reshape(m, c.f, func_node(m, c.f, OP_select, safe, 3, NULL, 0, none), 3, dim, none);
    ValueId pick[2] = {lp, at};
    ValueId value = func_node(m, c.f, OP_gather_nd, pick, 2, &batch, 1, none);
    ValueId out[3] = {real, value, build_scalar(m, c.f, DT_F32, 0)};
    func_output(m, c.f, func_node(m, c.f, OP_select, out, 3, NULL, 0, none), str_c("logprob"));
    func_output(m, c.f, l, str_c("logits"));
    func_end(m, c.f, NONE);
    return true;
}

/* ---- all together ---- */

static ValueId find_logits(const Func *f, const int *tag) {
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        ValueId v = unrounded(f, f->output[i]);
        if (f->value[v].type.rank == 3 && f->value[v].type.dtype == DT_F32 && tag[v] == 1)
            return v;
    }
    return NONE;
}

/* The canonical symbol within the bounds that --dim gives it, a constant when they leave one value. False after
 * reporting bounds the model does not have. */
static bool canonical_symbol(Deriver *dv, const PassOptions *o, const char *name, Dim *out) {
    DimTable *t = dv->m->dims;
    uint32_t s;
    *out = dim_sym(t, str_c(name));
    CHECK(dim_as_sym(t, *out, &s));
    for (uint32_t i = 0; i < o->n_dims; i++) {
        if (!str_is(o->dim[i].name, name))
            continue;
        DimSym *sym = dim_sym_at(t, s);
        if (o->dim[i].lo > sym->hi || o->dim[i].hi < sym->lo || o->dim[i].hi > sym->hi)
            return diag_error(dv->d, DIAG_DIM_BOUNDS, NULL, "--dim %s: the model's own bounds are %lld..%lld",
                              name, (long long)sym->lo, (long long)sym->hi);
        sym->lo = o->dim[i].lo > sym->lo ? o->dim[i].lo : sym->lo;
        sym->hi = o->dim[i].hi;
        if (sym->lo == sym->hi)
            *out = dim_const(t, sym->lo);
    }
    return true;
}

static bool canonical_symbols(Deriver *dv, const PassOptions *o) {
    DimTable *t = dv->m->dims;
    const Type *ids = &dv->enc->value[dv->ein.ids].type, *tgt = &dv->dec->value[dv->din.ids].type;
    const Type *hid = &dv->dec->value[dv->din.hidden].type;
    Dim B = dim_sym(t, str_c("B")), S = dim_sym(t, str_c("S")), T = dim_sym(t, str_c("T"));
    struct {
        Renames *r;
        Dim from, to;
    } pair[] = {
        {&dv->enc_names, ids->dim[0], B},
        {&dv->enc_names, ids->dim[1], S},
        {&dv->dec_names, tgt->dim[0], B},
        {&dv->dec_names, tgt->dim[1], T},
        {&dv->dec_names, hid->dim[0], B},
        {&dv->dec_names, hid->dim[1], S},
        {&dv->enc_names, dv->ein.mask == NONE ? ids->dim[0] : dv->enc->value[dv->ein.mask].type.dim[0], B},
        {&dv->enc_names, dv->ein.mask == NONE ? ids->dim[1] : dv->enc->value[dv->ein.mask].type.dim[1], S},
        {&dv->dec_names, dv->din.mask == NONE ? hid->dim[0] : dv->dec->value[dv->din.mask].type.dim[0], B},
        {&dv->dec_names, dv->din.mask == NONE ? hid->dim[1] : dv->dec->value[dv->din.mask].type.dim[1], S}};
    enum { PAIRS = sizeof pair / sizeof *pair };
    for (size_t i = 0; i < PAIRS; i++)
        bound_symbol(t, pair[i].to, pair[i].from);
    for (Dim *c = (Dim[]){B, S, T, DIM_BAD}; *c != DIM_BAD; c++) {
        uint32_t sym;
        CHECK(dim_as_sym(t, *c, &sym));
        DimSym *unused = dim_sym_at(t, sym);
        if (unused->hi == DIM_UNBOUNDED) /* an extent that is a constant in this model */
            unused->lo = unused->hi = 1;
    }
    Dim bounded[3];
    if (!canonical_symbol(dv, o, "B", &bounded[0]) || !canonical_symbol(dv, o, "S", &bounded[1]) ||
        !canonical_symbol(dv, o, "T", &bounded[2]))
        return false;
    for (size_t i = 0; i < PAIRS; i++)
        rename_add(pair[i].r, t, pair[i].from, bounded[pair[i].to == B ? 0 : pair[i].to == S ? 1 : 2]);
    rename_finish(&dv->enc_names, t);
    rename_finish(&dv->dec_names, t);
    dv->B = rename_dim(&dv->enc_names, t, ids->dim[0]);
    dv->S = rename_dim(&dv->enc_names, t, ids->dim[1]);
    dv->P = dim_sym(t, str_c("P"));
    uint32_t p;
    CHECK(dim_as_sym(t, dv->P, &p));
    int64_t hi = dim_upper(t, rename_dim(&dv->dec_names, t, tgt->dim[1]));
    dim_sym_at(t, p)->lo = 0;
    dim_sym_at(t, p)->hi = hi == DIM_UNBOUNDED || hi < 1 ? hi : hi - 1;
    return true;
}

/* The encoder's result is what the decoder reads. */
static bool same_states(Deriver *dv) {
    const Type *made = &dv->enc->value[dv->enc->output[0]].type, *read = &dv->dec->value[dv->din.hidden].type;
    bool same = made->rank == 3 && read->rank == 3;
    for (int i = 0; same && i < 3; i++)
        same = rename_dim(&dv->enc_names, dv->m->dims, made->dim[i]) ==
               rename_dim(&dv->dec_names, dv->m->dims, read->dim[i]);
    Str in = dv->dec->value[dv->din.hidden].name;
    return same || diag_error(dv->d, DIAG_SHAPE_MISFIT, dv->dec->file,
                              "input '%s' of the decoder and the encoder's output differ in extents",
                              diag_show(dv->d, in));
}

static bool derive_all(Deriver *dv, const PassOptions *o) {
    const char *missing = NULL;
    dv->ein = find_inputs(dv->enc);
    dv->din = find_inputs(dv->dec);
    if (dv->ein.ids == NONE || dv->din.ids == NONE)
        missing = "token ids";
    else if (dv->din.hidden == NONE)
        missing = "the encoder's output in the decoder";
    else if (dv->enc->n_outputs == 0 || dv->dec->n_outputs == 0)
        missing = "an output";
    if (missing)
        return diag_error(dv->d, DIAG_MATCH_T5, NULL,
                          "the model is not a T5 that can be generated from: no input was recognised for %s",
                          missing);
    if (!tokens_find(dv))
        return false;
    ValueId logits = find_logits(dv->dec, dv->tag);
    if (logits == NONE)
        return diag_error(dv->d, DIAG_MATCH_T5, NULL, "the decoder has no output [batch, token, vocabulary]");
    if (!canonical_symbols(dv, o) || !same_states(dv))
        return false;
    uint32_t n;
    ValueId *kv = cross_values(dv, &n);
    if (!kv)
        return false;
    int forms = packing_find(dv, kv, n, logits) ? 2 : 1;
    for (int packed = 0; packed < forms; packed++)
        if (!make_encode(dv, packed) || !make_cross(dv, kv, n, packed) || !make_step(dv, kv, n, logits, packed) ||
            !make_score(dv, kv, n, logits, packed))
            return false;
    return (!o->train || (make_train(dv, o, logits) && make_routers(dv, logits)));
}

bool pass_derive(Module *m, const PassOptions *o, Diag *d) {
    Deriver dv = {.m = m, .d = d, .enc = module_find(m, "encoder"), .dec = module_find(m, "decoder")};
    if (!dv.enc || !dv.dec || !m->s2s.present)
        return !o->train || module_find(m, "train") ||
               diag_error(d, DIAG_MATCH_T5, NULL,
                          "--train: not a T5 with encoder and decoder: there is no loss to train for");
    dv.a = arena_new();
    bool ok = derive_all(&dv, o);
    if (ok) {
        m->func[dv.enc->id] = NULL;
        m->func[dv.dec->id] = NULL;
    }
    arena_free(dv.a);
    return ok;
}
