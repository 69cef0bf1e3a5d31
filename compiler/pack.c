/* pack: the weights of matrix products in panels of columns, the order in which kernels read them
 * (codegen/tile.h).
 *
 * An input of a kernel by rows that is the right operand of products and nothing else, or one that the loss multiplies by, and a
 * parameter in every call, becomes panels, and the kernel begins with `unpack`, which code generation looks through. The
 * panels are a parameter with an init function: written to the weights file once, or made whenever an adapter
 * is loaded. Widths depend on the number of columns alone, so one weights file serves machines of all vector
 * widths.
 *
 * Weights that no adapter changes may be stored in another format (--weights). Their panels are words then, and the scales of
 * blocks are a parameter beside them, which kernels take behind their other inputs. Where the formats of calls differ, a
 * kernel is made for each combination. A product of such a weight may take its left operand rounded (`quantize`),
 * for which machines have instructions. */
#include "pack.h"
#include "pass.h"
#include "pattern.h"
#include "remark.h"
#include "rows.h"

#include <string.h>

/* A kernel as it is for calls whose weights have these formats. */
typedef struct Variant {
    FuncId kernel, made;
    const WeightFormat *format; /* by input of the kernel as it was */
} Variant;

typedef struct Packer {
    Module *m;
    Arena *a;
    const PassOptions *o;
    Pattern **pattern; /* of each choice of the options; NULL: it is of all sites */
    ParamId *packed;   /* by ParamId: its panels; itself where it stays as it is; or NONE */
    ParamId *scales;   /* by ParamId: of its panels, or NONE */
    WeightFormat *format;
    uint32_t n_params, n_funcs;
    const Func **was;  /* by FuncId: functions as they were */
    const char ***why; /* by FuncId, by input: of kernels, why it is not in panels, or NULL */
    Vec(Variant) variant;
    bool changed;
} Packer;

static uint32_t *no_ids(const Packer *p, uint32_t n) {
    uint32_t *v = arena_array(p->a, n + 1, sizeof *v);
    memset(v, 0xff, (n + 1) * sizeof *v); /* NONE */
    return v;
}

/* ---- which ------------------------------------------------------------------------------------------- */

static bool constant_extents(const Module *m, const Type *t) {
    int64_t n;
    for (int i = 0; i < t->rank; i++)
        if (!dim_is_const(m->dims, t->dim[i], &n) || n < 1)
            return false;
    return true;
}

/* The loss and its gradients multiply by a weight [d,V] themselves, over whole tensors. */
static bool is_loss(const Node *n, uint32_t operand) {
    bool loss = n->op == OP_cross_entropy || n->op == OP_cross_entropy_dx || n->op == OP_cross_entropy_dw;
    return loss && operand == 1 && !node_int(n, AT_tb, 0);
}

static const char *why_no_use(const Func *f, const Node *n, uint32_t operand, int n_row) {
    if (is_loss(n, operand))
        return NULL;
    if (n->op != OP_matmul)
        return "something else reads the weight, too";
    if (!n_row)
        return "its kernel runs once over whole tensors";
    if (operand != 1 || n->in[0] == n->in[1])
        return "the weight is a left operand, too";
    if (node_int(n, AT_ta, 0))
        return "the left operand is read transposed";
    bool rows = f->value[n->in[1]].type.rank == 2 && f->value[n->in[0]].type.rank == n_row + 1;
    return node_int(n, AT_tb, 0) && !rows ? "the weight is read transposed, by several rows of a row" : NULL;
}

/* Why v is not the right operand of products, as it stands or transposed, and nothing else. */
static const char *why_no_weight(const Module *m, const Func *f, int n_row, ValueId v) {
    const Type *t = &f->value[v].type;
    bool used = false;
    if (t->dtype != DT_F32)
        return "the weight is not f32";
    if (t->rank < 2 || t->rank >= MOEC_MAX_RANK || !constant_extents(m, t))
        return "the weight has no constant extents of a matrix";
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; j < f->node[i].n_in; j++) {
            const char *why = f->node[i].in[j] == v ? why_no_use(f, &f->node[i], j, n_row) : NULL;
            used = used || f->node[i].in[j] == v;
            if (why)
                return why;
        }
    for (uint32_t i = 0; i < f->n_outputs; i++)
        if (f->output[i] == v)
            return "the kernel returns the weight";
    return used ? NULL : "nothing reads the weight";
}

/* The kernel as it was. */
static const Func *kernel_called(const Packer *p, const Node *n) {
    const Attr *a = n->op == OP_call ? node_attr(n, AT_func) : NULL;
    const Func *k = a && (FuncId)a->i < p->n_funcs ? p->was[a->i] : NULL;
    return k && k->role == FR_KERNEL ? k : NULL;
}

/* A function that names parameters and calls kernels. */
static bool is_caller(const Func *f) {
    return f && (f->role == FR_ENTRY || f->role == FR_BODY);
}

/* Visits every operand of every call of a kernel. */
typedef void Visit(Packer *p, const Func *f, const Node *call, const Func *kernel, uint32_t input);

static void visit_calls(Packer *p, Visit *visit) {
    for (uint32_t i = 0; i < p->n_funcs; i++) {
        const Func *f = p->was[i];
        for (uint32_t j = 0; is_caller(f) && j < f->n_nodes; j++) {
            const Func *k = kernel_called(p, &f->node[j]);
            for (uint32_t in = 0; k && in < k->n_inputs; in++)
                visit(p, f, &f->node[j], k, in);
        }
    }
}

static void must_be_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (!value_param(f, call->in[in], &id) && !p->why[k->id][in])
        p->why[k->id][in] = "it is no parameter in every call";
}

static void keep(Packer *p, const Func *f, ValueId v) {
    ParamId id;
    if (!value_param(f, v, &id) || p->packed[id] == id)
        return;
    p->packed[id] = id;
    p->changed = true;
}

/* What is read by other nodes than calls of kernels, and what a function returns. */
static void keep_read(Packer *p, const Func *f) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; !kernel_called(p, &f->node[i]) && j < f->node[i].n_in; j++)
            keep(p, f, f->node[i].in[j]);
    for (uint32_t i = 0; i < f->n_outputs; i++)
        keep(p, f, f->output[i]);
}

/* A parameter that somebody reads as it is stays as it is for all: it is stored once. */
static void keep_parameter(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    if (p->why[k->id][in])
        keep(p, f, call->in[in]);
}

static void keep_input(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (!value_param(f, call->in[in], &id) || p->packed[id] != id || p->why[k->id][in])
        return;
    p->why[k->id][in] = "something else reads the parameter as it is";
    p->changed = true;
}

static void choose_inputs(Packer *p, const Func *f) {
    const Node *node;
    const char *why;
    int rows = rows_choose(p->m, f, arena_array(p->a, f->n_values + 1, sizeof(bool)), &node, &why);
    p->why[f->id] = arena_array(p->a, f->n_inputs + 1, sizeof **p->why);
    for (uint32_t i = 0; i < f->n_inputs; i++)
        p->why[f->id][i] = why_no_weight(p->m, f, rows, f->input[i]);
}

static void choose(Packer *p) {
    p->why = arena_array(p->a, p->n_funcs + 1, sizeof *p->why);
    p->packed = no_ids(p, p->n_params);
    p->scales = no_ids(p, p->n_params);
    p->format = arena_array(p->a, p->n_params + 1, sizeof *p->format);
    for (uint32_t i = 0; i < p->n_funcs; i++) {
        const Func *f = p->was[i];
        if (f && f->role == FR_KERNEL)
            choose_inputs(p, f);
        else if (is_caller(f))
            keep_read(p, f);
    }
    visit_calls(p, must_be_parameter);
    do { /* as inputs fall out, parameters do, and with those other kernels' inputs */
        p->changed = false;
        visit_calls(p, keep_parameter);
        visit_calls(p, keep_input);
    } while (p->changed);
}

/* ---- formats ------------------------------------------------------------------------------------------- */

static bool ends_in(Str s, const char *end) {
    size_t n = strlen(end);
    return s.n >= n && memcmp(s.p + s.n - n, end, n) == 0;
}

/* The head has no site of its own: it is what makes the vocabulary. */
static Str site_of(const Module *m, const Param *p) {
    bool head = m->s2s.present && p->rank == 2 && p->dim[0] == m->s2s.width && p->dim[1] == m->s2s.vocab;
    return p->site.n || !head ? p->site : str_c("lm_head");
}

/* A weight made of these has been quantised before. A T5's stay so; of other graphs nothing is known that would allow what
 * differs in the last bits. */
static bool is_bytes(const Param *p) {
    return p->dtype == DT_I8 || p->dtype == DT_U8;
}

/* What was asked for, the last choice that matches, else f. Where all weights were asked to be int4, two are int8 unless asked for
 * themselves: the ends of the feed forward layers, whose inputs have few large values, and the head. */
static WeightFormat asked(const Packer *p, Str site, WeightFormat f) {
    for (uint32_t i = 0; i < p->o->n_weights; i++) {
        const WeightChoice *c = &p->o->weights[i];
        if (p->pattern[i] ? site.n && pattern_match(p->pattern[i], site) : true)
            f = c->format == WEIGHT_INT4 && !p->pattern[i] && (ends_in(site, ".wo") || ends_in(site, "lm_head")) ? WEIGHT_INT8
                                                                                                                  : c->format;
    }
    return f;
}

static const char *why_f32(const Packer *p, ParamId id, WeightFormat f) {
    const Param *q = &p->m->param[id];
    if (param_adapts(p->m, id))
        return "adapters change it";
    if (q->dim[q->rank - 1] <= PANEL_NARROW)
        return "it has few columns";
    return q->dim[q->rank - 2] % weight_formats[f].per_word ? "its rows are no number of whole words" : NULL;
}

static WeightFormat choose_format(const Packer *p, ParamId id) {
    const Param *q = &p->m->param[id];
    bool quantized = p->m->s2s.present && param_made_of(p->m, id, is_bytes);
    WeightFormat f = asked(p, site_of(p->m, q), quantized ? WEIGHT_INT8 : WEIGHT_F32);
    const char *why = f ? why_f32(p, id, f) : NULL;
    if (why)
        remark(p->m, R_no_format, NULL, NULL, "weight %.*s is f32, not %s: %s", (int)q->name.n, q->name.p, weight_formats[f].name,
               why);
    return why ? WEIGHT_F32 : f;
}

/* What a weight's product rounds its left operand to. */
static WeightFormat activations_of(const Packer *p, WeightFormat f) {
    Activations a = p->o->activations;
    if (f == WEIGHT_BF16)
        return a == ACTIVATIONS_BF16 || (a == ACTIVATIONS_AUTO && !p->o->train) ? WEIGHT_BF16 : WEIGHT_F32;
    return f != WEIGHT_F32 && a == ACTIVATIONS_INT8 ? WEIGHT_INT8 : WEIGHT_F32;
}

/* ---- panels -------------------------------------------------------------------------------------------- */

/* A `pack` or `pack_scales` of w. */
static ValueId pack(Module *m, Func *f, Op op, ValueId w, WeightFormat format) {
    const Type *t = &f->value[w].type;
    int64_t columns = 0;
    dim_is_const(m->dims, t->dim[t->rank - 1], &columns);
    Attr attr[] = {attr_i(AT_width, columns <= PANEL_NARROW ? PANEL_NARROW : PANEL_COLUMNS),
                   attr_s(AT_format, str_c(weight_formats[format].name))};
    return func_node(m, f, op, &w, 1, attr, format ? 2 : 1, (Str){NULL, 0});
}

static ValueId unpack(Module *m, Func *f, ValueId panels, ValueId scales, const Type *t, WeightFormat format) {
    ValueId in[] = {panels, scales};
    Attr attr = attr_s(AT_format, str_c(weight_formats[format].name));
    return func_node_typed(m, f, OP_unpack, in, scales == NONE ? 1 : 2, &attr, format ? 1 : 0, t, 1, (Str){NULL, 0});
}

/* After the parameter it makes; a number behind that where a function has the name. */
static Str free_name(const Module *m, Str base) {
    Str name = base;
    for (uint32_t i = 0, n = 0; i < m->n_funcs; i++)
        if (m->func[i] && str_eq(m->func[i]->name, name)) {
            name = str_c(arena_printf(m->arena, "%.*s.%u", (int)base.n, base.p, ++n));
            i = UINT32_MAX; /* from the first one again */
        }
    return name;
}

/* The parameter that `op` makes of another. */
static ParamId made_of(Module *m, ParamId id, Op op, WeightFormat format, const char *suffix) {
    Func *init = func_begin(m, str_c("init"), FR_INIT);
    ValueId w = func_param(m, init, id), v = pack(m, init, op, w, format);
    const Type *t = &init->value[v].type;
    Param x = {.kind = PK_CONST, .dtype = t->dtype, .rank = t->rank, .site = m->param[id].site};
    for (int i = 0; i < x.rank; i++)
        dim_is_const(m->dims, t->dim[i], &x.dim[i]);
    func_output(m, init, v, str_c("value"));
    x.name = str_c(arena_printf(m->arena, "%.*s.%s", (int)m->param[id].name.n, m->param[id].name.p, suffix));
    init->name = free_name(m, x.name);
    x.init = func_end(m, init, NONE);
    return module_param(m, x);
}

static void make_panels(Packer *p, const Func *f, const Node *call, const Func *k, uint32_t in) {
    ParamId id;
    if (p->why[k->id][in] || !value_param(f, call->in[in], &id) || p->packed[id] != NONE)
        return;
    WeightFormat format = p->format[id] = choose_format(p, id);
    p->packed[id] = made_of(p->m, id, OP_pack, format, "panels");
    if (weight_formats[format].block)
        p->scales[id] = made_of(p->m, id, OP_pack_scales, format, "scales");
}

/* ---- kernels ------------------------------------------------------------------------------------------- */

/* A kernel while it is made again. */
typedef struct Remake {
    Remap r;
    const WeightFormat *format; /* by value: of weights in panels */
    ValueId *rounded[WEIGHT_FORMATS];
} Remake;

/* The type that `pack` or `pack_scales` gives an input. */
static Type packed_type(Module *m, Op op, const Type *t, WeightFormat format) {
    Func *probe = func_begin(m, str_c("pack"), FR_KERNEL);
    ValueId v = pack(m, probe, op, func_input(m, probe, (Str){NULL, 0}, *t), format);
    return probe->value[v].type;
}

static ValueId rounded(Remake *x, ValueId v, WeightFormat to) {
    ValueId *at = &x->rounded[to][v];
    Attr attr = attr_s(AT_format, str_c(weight_formats[to].name));
    if (*at == NONE) {
        ValueId now = remap_value(&x->r, v);
        *at = func_node(x->r.m, x->r.f, OP_quantize, &now, 1, &attr, 1, (Str){NULL, 0});
    }
    return *at;
}

static void remake_node(const Packer *p, Remake *x, const Node *n) {
    WeightFormat to = n->op == OP_matmul ? activations_of(p, x->format[n->in[1]]) : WEIGHT_F32;
    if (!to || node_int(n, AT_tb, 0)) {
        remap_node(&x->r, n);
        return;
    }
    ValueId in[] = {rounded(x, n->in[0], to), remap_value(&x->r, n->in[1])};
    remap_set(&x->r, n->out, func_node(x->r.m, x->r.f, OP_matmul, in, 2, n->attrs, n->n_attrs, n->origin));
}

/* The kernel for weights of these formats, in the place of the old one if it is the first. */
static FuncId remake_kernel(Packer *p, const Func *old, const WeightFormat *format, bool first) {
    Module *m = p->m;
    const char *const *why = p->why[old->id];
    Str name = first ? old->name : free_name(m, old->name);
    Remake x = {.r = {.m = m, .old = old, .f = func_begin(m, name, old->role), .map = no_ids(p, old->n_values)}};
    WeightFormat *of = arena_array(p->a, old->n_values + 1, sizeof *of);
    for (int i = 0; i < WEIGHT_FORMATS; i++)
        x.rounded[i] = no_ids(p, old->n_values);
    x.format = of;
    for (uint32_t i = 0; i < old->n_inputs; i++) {
        const Value *v = &old->value[old->input[i]];
        Type t = why[i] ? v->type : packed_type(m, OP_pack, &v->type, format[i]);
        x.r.map[old->input[i]] = func_input(m, x.r.f, v->name, t);
    }
    ValueId *scales = no_ids(p, old->n_inputs);
    for (uint32_t i = 0; i < old->n_inputs; i++) {
        const Value *v = &old->value[old->input[i]];
        Str hint = str_c(arena_printf(m->arena, "%.*s.scales", (int)v->name.n, v->name.p));
        if (!why[i] && weight_formats[format[i]].block)
            scales[i] = func_input(m, x.r.f, hint, packed_type(m, OP_pack_scales, &v->type, format[i]));
    }
    for (uint32_t i = 0; i < old->n_inputs; i++) {
        ValueId *at = &x.r.map[old->input[i]];
        if (why[i])
            continue;
        of[old->input[i]] = format[i];
        *at = unpack(m, x.r.f, *at, scales[i], &old->value[old->input[i]].type, format[i]);
    }
    for (uint32_t i = 0; i < old->n_nodes; i++)
        remake_node(p, &x, &old->node[i]);
    for (uint32_t i = 0; i < old->n_outputs; i++)
        func_output(m, x.r.f, remap_value(&x.r, old->output[i]), old->output_name[i]);
    return func_end(m, x.r.f, first ? old->id : NONE);
}

/* The kernel of a call whose weights have these formats. */
static FuncId variant(Packer *p, const Func *k, const WeightFormat *format) {
    bool first = true;
    for (size_t i = 0; i < p->variant.count; i++) {
        const Variant *v = &p->variant.item[i];
        if (v->kernel == k->id && memcmp(v->format, format, k->n_inputs * sizeof *format) == 0)
            return v->made;
        first = first && v->kernel != k->id;
    }
    Variant v = {k->id, remake_kernel(p, k, format, first), format};
    vec_push(&p->variant, v);
    return v.made;
}

static bool has_panels(const Packer *p, const Func *f) {
    for (uint32_t i = 0; i < f->n_inputs; i++)
        if (!p->why[f->id][i])
            return true;
    return false;
}

static void remake_call(Packer *p, Remap *r, const Node *n, const Func *k) {
    WeightFormat *format = arena_array(p->a, k->n_inputs + 1, sizeof *format);
    ValueId *in = arena_array(p->a, 2 * n->n_in + 1, sizeof *in);
    Attr *attr = arena_array(p->a, n->n_attrs, sizeof *attr);
    Type *type = arena_array(p->a, n->n_out + 1, sizeof *type);
    uint32_t n_in = n->n_in;
    ParamId id;
    for (uint32_t i = 0; i < n->n_in; i++) {
        bool panels = !p->why[k->id][i] && value_param(r->old, n->in[i], &id);
        in[i] = panels ? func_param(p->m, r->f, p->packed[id]) : remap_value(r, n->in[i]);
        format[i] = panels ? p->format[id] : WEIGHT_F32;
        if (panels && p->scales[id] != NONE)
            in[n_in++] = func_param(p->m, r->f, p->scales[id]);
    }
    for (uint32_t i = 0; i < n->n_attrs; i++)
        attr[i] = n->attrs[i].key == AT_func ? attr_i(AT_func, variant(p, k, format)) : n->attrs[i];
    for (uint32_t i = 0; i < n->n_out; i++)
        type[i] = r->old->value[n->out + i].type;
    ValueId v = func_node_typed(p->m, r->f, OP_call, in, n_in, attr, n->n_attrs, type, n->n_out, n->origin);
    for (uint32_t i = 0; i < n->n_out; i++)
        remap_set(r, n->out + i, v + i);
}

static void remake_calls(Packer *p, const Func *old) {
    Remap r = remap_begin(p->m, p->a, old);
    for (uint32_t i = 0; i < old->n_nodes; i++) {
        const Node *n = &old->node[i];
        const Func *k = kernel_called(p, n);
        if (k && has_panels(p, k))
            remake_call(p, &r, n, k);
        else
            remap_node(&r, n);
    }
    remap_end(&r);
}

/* ---- what is told -------------------------------------------------------------------------------------- */

/* Of a kernel as it is now; `why` is of its inputs. */
static void tell_product(const Module *m, const Func *f, const Node *n, const char *const *why) {
    const Node *u = value_node(f, n->in[1]);
    const char *reason = "the weight is computed in the kernel";
    int64_t width = 0;
    Text t = {0};
    node_print(m, f, n, &t);
    for (uint32_t i = 0; i < f->n_inputs; i++) /* scales stand behind the inputs that `why` is of, and no product reads them */
        if (f->input[i] == n->in[1])
            reason = why[i];
    if (u && u->op == OP_unpack) {
        const Type *panels = &f->value[u->in[0]].type;
        const char *format = weight_formats[node_format(u)].name;
        dim_is_const(m->dims, panels->dim[panels->rank - 1], &width);
        remark(m, R_panels, f, NULL, "weight in panels of %lld columns, %s: %.*s", (long long)width, format, (int)t.n, t.p);
    } else
        remark(m, R_no_panels, f, NULL, "weight not in panels, %s: %.*s", reason, (int)t.n, t.p);
    text_free(&t);
}

static void tell(const Packer *p, const Func *f, FuncId was) {
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_matmul)
            tell_product(p->m, f, &f->node[i], p->why[was]);
}

static void tell_all(const Packer *p) {
    for (uint32_t i = 0; i < p->n_funcs; i++)
        if (p->why[i] && !has_panels(p, p->was[i]))
            tell(p, p->was[i], i);
    for (size_t i = 0; i < p->variant.count; i++)
        tell(p, module_func(p->m, p->variant.item[i].made), p->variant.item[i].kernel);
}

static bool read_patterns(Packer *p, Diag *d) {
    const char *why;
    p->pattern = arena_array(p->a, p->o->n_weights + 1, sizeof *p->pattern);
    for (uint32_t i = 0; i < p->o->n_weights; i++) {
        Str s = p->o->weights[i].sites;
        if (s.n && !(p->pattern[i] = pattern_new(p->a, s, &why)))
            return diag_error(d, DIAG_USAGE_VALUE, NULL, "--weights: pattern '%s': %s", diag_show(d, s), why);
    }
    return true;
}

bool pass_pack(Module *m, const PassOptions *o, Diag *d) {
    if (o->library) {
        remark(m, R_no_panels, NULL, NULL, "no weight in panels, products are a library's");
        return true;
    }
    Packer p = {.m = m, .a = arena_new(), .o = o, .n_params = m->n_params, .n_funcs = m->n_funcs};
    p.was = arena_array(p.a, p.n_funcs + 1, sizeof *p.was);
    for (uint32_t i = 0; i < p.n_funcs; i++)
        p.was[i] = m->func[i];
    bool ok = read_patterns(&p, d);
    if (ok) {
        choose(&p);
        visit_calls(&p, make_panels);
    }
    for (uint32_t i = 0; ok && i < p.n_funcs; i++)
        if (is_caller(p.was[i]))
            remake_calls(&p, p.was[i]);
    if (ok && m->remarks)
        tell_all(&p);
    vec_free(&p.variant);
    arena_free(p.a);
    return ok;
}
