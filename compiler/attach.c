/* attach: adapters enter as ordinary nodes at the sites that `match` named.
 *
 * A site is a node with the attribute `site`: a linear (matmul) or the activation of a feed-forward block.
 * The nodes put behind it compute what ADAPTERS' table of forward rules says, in primitive ops only, and
 * everything that read the site's value reads theirs. Every adapter tensor becomes one parameter of kind
 * PK_ADAPTER named `<site>.<suffix>`, shared by all functions that hold the site.
 *
 * For training, markers stand where T5 has dropout around its linears and where routers have jitter, and a
 * router's values carry the attributes that `derive` finds them by. */
#include "attach_impl.h"
#include "namemap.h"
#include "remark.h"

#include <float.h>
#include <inttypes.h>
#include <string.h>

typedef struct Attach {
    Module *m;
    const PassOptions *o;
    Diag *d;
    Arena *a;        /* scratch */
    NameMap by_name; /* site name -> index of the arrays below */
    Vec(ModelSite) site;
    AdapterPlan plan;
    uint32_t *planned;          /* by site: index in the plan, or NONE */
    ParamId (*param)[TR_COUNT]; /* by index in the plan */
    Remap r;                    /* of the function being rewritten */
    ValueId sentence;           /* its input, or NONE */
    Str origin;
} Attach;

/* ---- finding the sites -------------------------------------------------------------------------- */

static const Attr *node_site(const Node *n) {
    return n->n_out == 1 ? node_attr(n, AT_site) : NULL;
}

/* Heads of the attention that reads v as query, key or value; 0 when none does. */
static int64_t site_heads(const Attach *t, const Func *f, ValueId v) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t k = 0; n->op == OP_attention && k < 3; k++) {
            if (n->in[k] == v)
                return node_int(n, AT_heads, 0);
        }
    }
    return (int64_t)t->m->s2s.heads;
}

static bool last_extent(const Attach *t, const Type *type, int64_t *out) {
    return type->rank >= 2 && dim_is_const(t->m->dims, type->dim[type->rank - 1], out);
}

static bool site_add(Attach *t, const Func *f, const Node *n, Str name) {
    ModelSite s = {.name = name};
    const char *dot = name.n > 0 ? memrchr(name.p, '.', name.n) : NULL;
    Str last = dot != NULL ? (Str){dot + 1, name.n - (size_t)(dot + 1 - name.p)} : name;
    const Type *type = &f->value[n->out].type;
    const char *shown = diag_show(t->d, name);
    if (!site_role_parse(last, &s.role))
        return diag_error(t->d, DIAG_ADAPTER_SITE, NULL, "site '%s': its last part is no role of a site",
                          shown);
    if (type->dtype != DT_F32 || !last_extent(t, type, &s.d_out))
        return diag_error(t->d, DIAG_ADAPTER_SITE, NULL,
                          "site '%s': adapters need an f32 value of known width", shown);
    if (s.role == SR_ACT) {
        s.d_in = s.d_out;
    } else if (n->op != OP_matmul || !last_extent(t, &f->value[n->in[0]].type, &s.d_in)) {
        return diag_error(t->d, DIAG_ADAPTER_SITE, NULL, "site '%s': not a linear of known width", shown);
    }
    if (s.role <= SR_V) {
        s.heads = site_heads(t, f, n->out);
        if (s.heads <= 0 || s.d_out % s.heads != 0)
            return diag_error(t->d, DIAG_ADAPTER_SITE, NULL,
                              "site '%s': the number of attention heads is not known", shown);
    }
    uint32_t at = 0;
    if (namemap_find(&t->by_name, name, &at)) {
        const ModelSite *old = &t->site.item[at];
        if (old->d_in != s.d_in || old->d_out != s.d_out || old->heads != s.heads)
            return diag_error(t->d, DIAG_ADAPTER_SITE, NULL, "site '%s' differs between functions", shown);
        return true;
    }
    s.name = (Str){arena_strndup(t->a, name.p, name.n), name.n};
    namemap_add(&t->by_name, s.name, (uint32_t)t->site.count);
    vec_push(&t->site, s);
    return true;
}

static Str sibling(Attach *t, Str name, const char *last) {
    const char *dot = memrchr(name.p, '.', name.n);
    return str_c(arena_printf(t->a, "%.*s.%s", (int)(dot - name.p), name.p, last));
}

static bool sites_find(Attach *t) {
    bool ok = true;
    for (FuncId id = 0; id < t->m->n_funcs; id++) {
        const Func *f = t->m->func[id];
        for (uint32_t i = 0; f != NULL && i < f->n_nodes; i++) {
            const Attr *site = node_site(&f->node[i]);
            ok = (site == NULL || site_add(t, f, &f->node[i], site->s)) && ok;
        }
    }
    for (size_t i = 0; ok && i < t->site.count; i++) {
        uint32_t wi;
        if (t->site.item[i].role == SR_ACT &&
            namemap_find(&t->by_name, sibling(t, t->site.item[i].name, "wi"), &wi))
            t->site.item[i].d_in = t->site.item[wi].d_in;
    }
    return ok;
}

/* ---- parameters --------------------------------------------------------------------------------- */

static bool params_make(Attach *t) {
    const AdapterSpec *spec = t->o->adapter;
    const float **value;
    if (!adapter_values(spec, &t->plan, t->o->seed, t->m->arena, &value, t->d))
        return false;
    t->param = arena_array(t->a, (size_t)t->plan.n_sites + 1, sizeof *t->param);
    for (uint32_t i = 0, k = 0; i < t->plan.n_sites; i++) {
        SiteTensor st[TR_COUNT];
        uint32_t n = adapter_site_tensors(&t->plan.site[i], st);
        for (int role = 0; role < TR_COUNT; role++)
            t->param[i][role] = NONE;
        for (uint32_t j = 0; j < n; j++, k++) {
            Str name = str_c(arena_printf(t->m->arena, "%s.%s", t->plan.site[i].at->name.p,
                                          adapter_tensor_suffix(st[j].role)));
            Param p = {
                .name = name, .kind = PK_ADAPTER, .dtype = DT_F32, .rank = st[j].rank, .data = value[k]};
            for (int r = 0; r < p.rank; r++)
                p.dim[r] = st[j].dim[r];
            p.init = NONE;
            p.origin = str_c(arena_printf(t->m->arena, "%s", spec->loaded ? spec->tensor_file : spec->file));
            ParamId taken;
            if (module_find_param(t->m, name, &taken))
                return diag_error(t->d, DIAG_ADAPTER_SITE, spec->file,
                                  "the model already has a parameter named '%s'", name.p);
            t->param[i][st[j].role] = module_param(t->m, p);
        }
    }
    return true;
}

/* ---- nodes --------------------------------------------------------------------------------------- */

static const Type *type_of(const Attach *t, ValueId v) {
    return &t->r.f->value[v].type;
}

static ValueId use(Attach *t, uint32_t site, TensorRole role) {
    CHECK(t->param[site][role] != NONE);
    return func_param(t->m, t->r.f, t->param[site][role]);
}

static ValueId add_node(Attach *t, Op op, ValueId a, ValueId b) {
    return build_binary(t->m, t->r.f, op, a, b, t->origin);
}

static ValueId multiply(Attach *t, ValueId a, ValueId b) {
    return build_matmul(t->m, t->r.f, a, b, t->origin);
}

static ValueId scale_by(Attach *t, ValueId v, double by) {
    return by == 1 ? v : add_node(t, OP_mul, v, build_scalar(t->m, t->r.f, DT_F32, by));
}

/* v with its last `drop` axes replaced by `n` new ones; a symbolic extent stands for a whole axis. */
static ValueId reshape_tail(Attach *t, ValueId v, int drop, int n, const int64_t *tail) {
    Type type = *type_of(t, v);
    int rank = type.rank - drop;
    CHECK(rank >= 0 && rank + n <= MOEC_MAX_RANK);
    for (int i = 0; i < n; i++)
        type.dim[rank + i] = dim_const(t->m->dims, tail[i]);
    return build_reshape(t->m, t->r.f, v, rank + n, type.dim, t->origin);
}

/* v carries a name that `derive` finds it by. */
static ValueId tag(Attach *t, uint32_t site, ValueId v, const char *what) {
    const RouterOptions *o = &t->plan.site[site].rule->router;
    Node *n = &t->r.f->node[t->r.f->value[v].def];
    if (!t->o->train || node_attr(n, AT_router))
        return v;
    Attr *attrs = arena_array(t->m->arena, n->n_attrs + 4, sizeof *attrs);
    for (uint32_t i = 0; i < n->n_attrs; i++)
        attrs[i] = n->attrs[i];
    Str name = t->plan.site[site].at->name;
    attrs[n->n_attrs++] = attr_s(AT_site, (Str){arena_strndup(t->m->arena, name.p, name.n), name.n});
    attrs[n->n_attrs++] = attr_s(AT_router, str_c(what));
    if (o->balance_loss > 0 && strcmp(what, "logits") == 0)
        attrs[n->n_attrs++] = attr_f(AT_balance, o->balance_loss);
    if (o->z_loss > 0 && strcmp(what, "logits") == 0)
        attrs[n->n_attrs++] = attr_f(AT_z, o->z_loss);
    n->attrs = attrs;
    return v;
}

static ValueId softmax_last(Attach *t, ValueId v) {
    Attr axis = attr_i(AT_axis, type_of(t, v)->rank - 1);
    return func_node(t->m, t->r.f, OP_softmax, &v, 1, &axis, 1, t->origin);
}

/* p[.., E] from u[.., in]: softmax((u.R + b) / temperature), then the selection. */
static ValueId router(Attach *t, uint32_t site, ValueId u) {
    const AdapterRule *rule = t->plan.site[site].rule;
    const RouterOptions *o = &rule->router;
    Func *f = t->r.f;
    if (t->o->train && o->jitter > 0) {
        Attr eps = attr_f(AT_eps, o->jitter);
        u = func_node(t->m, f, OP_jitter, &u, 1, &eps, 1, t->origin);
    }
    ValueId logits = multiply(t, u, use(t, site, TR_ROUTER)), scaled;
    if (o->bias)
        logits = add_node(t, OP_add, logits, use(t, site, TR_ROUTER_BIAS));
    scaled = tag(t, site, logits, "logits");
    if (o->temperature != 1)
        scaled = tag(t, site, add_node(t, OP_div, logits, build_scalar(t->m, f, DT_F32, o->temperature)), "scaled");
    if (o->top_k == 0 || o->top_k == rule->experts)
        return tag(t, site, softmax_last(t, scaled), "weights");
    Attr k = attr_i(AT_k, o->top_k);
    ValueId in[3] = {tag(t, site, func_node(t->m, f, OP_top_k_mask, &logits, 1, &k, 1, t->origin), "mask")};
    /* The softmax over the kept logits: a dropped one weighs e^(lowest - max) = 0 exactly. */
    in[1] = o->renormalise ? scaled : softmax_last(t, scaled);
    in[2] = build_scalar(t->m, f, DT_F32, o->renormalise ? -(double)FLT_MAX : 0);
    ValueId kept = func_node(t->m, f, OP_select, in, 3, NULL, 0, t->origin);
    return tag(t, site, o->renormalise ? softmax_last(t, kept) : kept, "weights");
}

/* p of a sentence vector, [B,E], with axes of extent 1 put in so that it broadcasts against a value of
 * `rank`. */
static ValueId router_sentence(Attach *t, uint32_t site, int rank) {
    int64_t tail[MOEC_MAX_RANK];
    ValueId p = router(t, site, t->sentence);
    for (int i = 0; i < rank - 2; i++)
        tail[i] = 1;
    tail[rank - 2] = t->plan.site[site].rule->experts;
    return rank == 2 ? p : reshape_tail(t, p, 1, rank - 1, tail);
}

/* y * l */
static ValueId attach_ia3(Attach *t, uint32_t site, ValueId y) {
    const ModelSite *s = t->plan.site[site].at;
    ValueId scale = use(t, site, TR_SCALE);
    if (s->heads > 0)
        scale = reshape_tail(t, scale, 2, 1, &s->d_out);
    return add_node(t, OP_mul, y, scale);
}

/* y + (u.A).B alpha/r */
static ValueId attach_lora(Attach *t, uint32_t site, ValueId y, ValueId u) {
    const AdapterRule *rule = t->plan.site[site].rule;
    ValueId z = multiply(t, u, use(t, site, TR_LORA_A));
    z = scale_by(t, z, rule->alpha / (double)rule->rank);
    return add_node(t, OP_add, y, multiply(t, z, use(t, site, TR_LORA_B)));
}

/* y * sum_e p_e S_e. With the router on the site of k or v, every head is routed by itself. */
static ValueId attach_mov(Attach *t, uint32_t site, ValueId y, ValueId u) {
    const ModelSite *s = t->plan.site[site].at;
    const AdapterRule *rule = t->plan.site[site].rule;
    ValueId scale = use(t, site, TR_SCALE);
    RouterInput input = rule->router.input;
    if (s->heads > 0 && input == RI_SITE) {
        int64_t width = s->d_out / s->heads, split[2] = {s->heads, width}, row[2] = {1, rule->experts};
        ValueId heads = reshape_tail(t, y, 1, 2, split);
        ValueId p = reshape_tail(t, router(t, site, heads), 1, 2, row);
        ValueId merged = reshape_tail(t, multiply(t, p, scale), 2, 1, &width);
        return reshape_tail(t, add_node(t, OP_mul, heads, merged), 2, 1, &s->d_out);
    }
    if (s->heads > 0) {
        static const int64_t experts_first[] = {1, 0, 2};
        scale = build_transpose(t->m, t->r.f, scale, experts_first, t->origin);
        scale = reshape_tail(t, scale, 2, 1, &s->d_out);
    }
    ValueId p = input == RI_SENTENCE ? router_sentence(t, site, type_of(t, y)->rank)
                                     : router(t, site, input == RI_INPUT ? u : y);
    return add_node(t, OP_mul, y, multiply(t, p, scale));
}

/* y + sum_e p_e (u.A_e).B_e alpha/r, as one skinny matmul on each side of p: nothing of extents [.., E,
 * d_out]. */
static ValueId attach_molora(Attach *t, uint32_t site, ValueId y, ValueId u) {
    static const int64_t width_first[] = {1, 0, 2};
    const ModelSite *s = t->plan.site[site].at;
    const AdapterRule *rule = t->plan.site[site].rule;
    int64_t E = rule->experts, r = rule->rank, inner = E * r, pairs[2] = {E, r}, column[2] = {E, 1};
    int64_t last[2] = {inner, s->d_out};
    ValueId A = build_transpose(t->m, t->r.f, use(t, site, TR_LORA_A), width_first, t->origin);
    A = reshape_tail(t, A, 2, 1, &inner);
    ValueId B = reshape_tail(t, use(t, site, TR_LORA_B), 3, 2, last);
    ValueId p = rule->router.input == RI_SENTENCE ? router_sentence(t, site, type_of(t, y)->rank)
                                                  : router(t, site, u);
    p = scale_by(t, p, rule->alpha / (double)r);
    ValueId z = reshape_tail(t, multiply(t, u, A), 1, 2, pairs);
    z = add_node(t, OP_mul, z, reshape_tail(t, p, 1, 2, column));
    z = reshape_tail(t, z, 2, 1, &inner);
    return add_node(t, OP_add, y, multiply(t, z, B));
}

static void tell_adapter(Attach *t, const AdapterSite *s) {
    static const char *const reads[] = {[RI_SITE] = "its value",
                                        [RI_INPUT] = "the input of its linear",
                                        [RI_SENTENCE] = "the sentence vector"};
    const AdapterRule *r = s->rule;
    bool routed = adapter_method_routed(r->method),
         heads = routed && s->at->heads > 0 && r->method == AM_MOV && r->router.input == RI_SITE;
    Text what = {0};
    text_printf(&what, "%s", adapter_method_name(r->method));
    if (routed)
        text_printf(&what, ", %" PRId64 " experts", r->experts);
    if (adapter_method_ranked(r->method))
        text_printf(&what, ", rank %" PRId64 ", alpha %g", r->rank, r->alpha);
    if (routed)
        text_printf(&what, ", router reads %s%s",
                    r->method == AM_MOLORA && r->router.input != RI_SENTENCE ? reads[RI_INPUT]
                                                                             : reads[r->router.input],
                    heads ? ", head by head" : "");
    if (routed && r->router.top_k > 0)
        text_printf(&what, ", top %" PRId64, r->router.top_k);
    remark_at(t->m, R_adapter, t->r.f, s->at->name, "%s", what.p);
    text_free(&what);
}

static ValueId attach_site(Attach *t, uint32_t site, ValueId y, ValueId u) {
    const AdapterSite *s = &t->plan.site[site];
    t->origin = str_c(
        arena_printf(t->m->arena, "adapter: %s %s", s->at->name.p, adapter_method_name(s->rule->method)));
    if (t->m->remarks)
        tell_adapter(t, s);
    switch (s->rule->method) {
    case AM_IA3:
        return attach_ia3(t, site, y);
    case AM_LORA:
        return attach_lora(t, site, y, u);
    case AM_MOV:
        return attach_mov(t, site, y, u);
    case AM_MOLORA:
        return attach_molora(t, site, y, u);
    case AM_FULL:
    case AM_COUNT:
        break;
    }
    BUG("not a method");
}

/* ---- functions ----------------------------------------------------------------------------------- */

/* Index in the plan of node n's site, or NONE. */
static uint32_t node_planned(const Attach *t, const Node *n) {
    const Attr *site = node_site(n);
    uint32_t at;
    return site != NULL && namemap_find(&t->by_name, site->s, &at) ? t->planned[at] : NONE;
}

/* The linear's input: of `act`, that of the wi before it; NONE when this function does not have it. */
static ValueId site_input(Attach *t, const Func *f, const Node *n) {
    Str name = node_site(n)->s;
    if (n->op == OP_matmul)
        return n->in[0];
    Str wi = sibling(t, name, "wi");
    for (const Node *k = f->node; k < n; k++) {
        if (node_site(k) != NULL && str_eq(node_site(k)->s, wi))
            return k->in[0];
    }
    return NONE;
}

/* Dropout stands in front of wo, and behind o and wo, before the sum with the residual stream. */
static ValueId dropped(Attach *t, ValueId v, Str origin) {
    return build_unary(t->m, t->r.f, OP_dropout, v, origin);
}

static bool site_is(const Node *n, SiteRole a, SiteRole b) {
    const Attr *site = node_site(n);
    const char *dot = site != NULL ? memrchr(site->s.p, '.', site->s.n) : NULL;
    SiteRole role;
    return dot != NULL && site_role_parse((Str){dot + 1, site->s.n - (size_t)(dot + 1 - site->s.p)}, &role) &&
           (role == a || role == b);
}

static ValueId node_attach(Attach *t, const Node *n) {
    if (t->o->train && site_is(n, SR_WO, SR_WO))
        t->r.map[n->in[0]] = dropped(t, remap_value(&t->r, n->in[0]), n->origin);
    return remap_node(&t->r, n);
}

static bool func_attach(Attach *t, const Func *f) {
    bool any = t->o->train, sentence = false;
    Dim batch = 0;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        uint32_t site = node_planned(t, &f->node[i]);
        any |= site != NONE;
        if (site != NONE && t->plan.site[site].rule->router.input == RI_SENTENCE) {
            sentence = true;
            batch = f->value[f->node[i].out].type.dim[0];
        }
    }
    if (!any)
        return true;
    t->r = remap_begin(t->m, t->a, f);
    t->sentence = NONE;
    if (sentence) {
        Dim dim[2] = {batch, dim_const(t->m->dims, t->plan.sentence_dim)};
        t->sentence = func_input(t->m, t->r.f, str_c("sentence"), type_ranked(DT_F32, 2, dim));
    }
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        ValueId y = node_attach(t, n);
        uint32_t site = node_planned(t, n);
        if (site == NONE) {
            if (node_site(n) && !adapter_is_full(t->o->adapter))
                remark(t->m, R_no_adapter, t->r.f, n, "no adapter: the spec gives it none");
            if (t->o->train && site_is(n, SR_O, SR_WO))
                remap_set(&t->r, n->out, dropped(t, y, n->origin));
            continue;
        }
        const AdapterRule *rule = t->plan.site[site].rule;
        ValueId u = site_input(t, f, n);
        if (u == NONE && rule->method == AM_MOV && rule->router.input == RI_INPUT)
            return diag_error(t->d, DIAG_ADAPTER_SITE, t->o->adapter->file,
                              "site %s: the input of wi, which its router reads, was not found",
                              t->plan.site[site].at->name.p);
        y = attach_site(t, site, y, u == NONE ? NONE : remap_value(&t->r, u));
        if (t->o->train && site_is(n, SR_O, SR_WO))
            y = dropped(t, y, n->origin);
        remap_set(&t->r, n->out, y);
    }
    remap_end(&t->r);
    return true;
}

static void keep_spec(Module *m, const AdapterSpec *spec) {
    m->spec = (Str){arena_strndup(m->arena, spec->json.p, spec->json.n), spec->json.n};
}

static bool attach_run(Attach *t) {
    if (adapter_is_full(t->o->adapter) && !attach_full(t->m, t->o, t->d))
        return false;
    if (!sites_find(t))
        return false;
    uint32_t n = (uint32_t)t->site.count;
    if (n == 0)
        return diag_error(t->d, DIAG_ADAPTER_SITE, t->o->adapter->file,
                          "the model has no adapter sites: it is not a T5 that was recognised");
    bool full = adapter_is_full(t->o->adapter);
    if (!full && (!adapter_resolve(t->o->adapter, t->site.item, n, t->a, &t->plan, t->d) || !params_make(t)))
        return false;
    t->planned = arena_array(t->a, n, sizeof *t->planned);
    for (uint32_t i = 0; i < n; i++)
        t->planned[i] = NONE;
    for (uint32_t i = 0; i < t->plan.n_sites; i++)
        t->planned[t->plan.site[i].at - t->site.item] = i;
    for (FuncId id = 0; id < t->m->n_funcs; id++) {
        if (t->m->func[id] != NULL && !func_attach(t, t->m->func[id]))
            return false;
    }
    keep_spec(t->m, t->o->adapter);
    return true;
}

bool pass_attach(Module *m, const PassOptions *o, Diag *d) {
    if (o->adapter == NULL)
        return true;
    Attach t = {.m = m, .o = o, .d = d, .a = arena_new()};
    bool ok = attach_run(&t);
    namemap_free(&t.by_name);
    vec_free(&t.site);
    arena_free(t.a);
    return ok;
}
