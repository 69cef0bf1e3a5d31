/* Outlining: every node of an entry function ends up in a kernel.
 *
 * Groups are made in one walk. A node may join a group when none of its operands comes from a later group, so that
 * groups in order of their making are a valid execution order; it joins the latest one that takes it:
 *
 *   row group        nodes that are row-local over the group's rows. A value that a norm reads closes its group: the
 *                    residual stream is stored once, and a kernel starts from it
 *   attention group  the appends to a layer's caches and its attention
 *   single           anything else, alone
 *
 * A row group without products is moved, as it is, into the first one that reads it, if that is a row group as well:
 * what the backward pass computes again would have a kernel of its own otherwise, as nothing ties it to what was there
 * before.
 *
 * Views (reshape, transpose, slice, broadcast), literals and noise belong to no group: every kernel that needs one has a
 * copy. Noise is random numbers and what is computed from them and scalars alone: a mask is made again where it is used
 * again, not stored.
 * Kernels of equal graphs are one function; operands tell their calls apart. */
#include "fuse_impl.h"
#include "remark.h"
#include "rows.h"

#include <ctype.h>
#include <string.h>

typedef enum GroupKind { GROUP_ROWS, GROUP_ATTENTION, GROUP_SINGLE } GroupKind;

typedef struct Group {
    GroupKind kind;
    bool closed;
    bool adjoint; /* of the backward pass: what it computes again must not move into a kernel of the forward pass */
    Rows rows;
    Vec(uint32_t) node;
} Group;

typedef struct Outline {
    Module *m;
    const char *why; /* the last group asked did not take the node */
    const Func *f;
    Arena *a;
    Vec(Group *) group;
    uint32_t *of;   /* group of each node, NONE for views, literals and noise */
    uint8_t *noise; /* by value: 0, or over how many nodes it is made of noise */
    bool *is_output;
    uint32_t *uses;
} Outline;

enum { NOISE_DEPTH = 6 }; /* operands are walked without a memory of where one has been */

/* Operands come first, so theirs is known. */
static uint8_t noise_depth(const Outline *x, const Node *n) {
    if (n->op == OP_random) return 1;
    bool view = op_info(n->op)->klass == OC_MOVE && n->n_in == 1;
    if (n->n_out != 1 || (!view && op_info(n->op)->klass != OC_POINTWISE)) return 0;
    uint8_t depth = 0;
    for (uint32_t i = 0; i < n->n_in; i++) {
        uint8_t d = x->noise[n->in[i]];
        if (!d && x->f->value[n->in[i]].type.rank > 0) return 0;
        if (d > depth) depth = d;
    }
    return depth && depth < NOISE_DEPTH ? (uint8_t)(depth + 1) : 0;
}

static bool is_free(const Outline *x, const Node *n) {
    if (op_info(n->op)->klass == OC_SOURCE && n->op != OP_iota) return true;
    bool view = n->op == OP_reshape || n->op == OP_transpose || n->op == OP_slice || n->op == OP_broadcast;
    return (view || x->noise[n->out]) && !x->is_output[n->out];
}

static int64_t latest_source(const Outline *x, const Node *n);

/* The latest group that v depends on, through views and noise; -1 for inputs, parameters, literals. */
static int64_t source_group(const Outline *x, ValueId v) {
    const Node *n = v == NONE ? NULL : value_node(x->f, v);
    if (!n) return -1;
    uint32_t g = x->of[n - x->f->node];
    return g != NONE ? g : latest_source(x, n);
}

static int64_t latest_source(const Outline *x, const Node *n) {
    int64_t latest = -1;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int64_t g = source_group(x, n->in[i]);
        if (g > latest) latest = g;
    }
    return latest;
}

/* Marks v's rows for group g: what comes from outside carries rows when it leads with them. */
static void note_operand(Outline *x, Group *g, uint32_t index, ValueId v) {
    const Node *n = value_node(x->f, v);
    if (n && x->of[n - x->f->node] == index) return; /* marked when it joined */
    if (n && x->of[n - x->f->node] == NONE) {
        for (uint32_t i = 0; i < n->n_in; i++) note_operand(x, g, index, n->in[i]);
        if (n->n_in) {
            if (!rows_node(&g->rows, n)) g->rows.row[n->out] = rows_lead(&g->rows, n->out);
            return;
        }
        return;
    }
    g->rows.row[v] = x->f->value[v].kind != VK_PARAM && rows_lead(&g->rows, v);
}

/* What stands between v and what the group stores or reads keeps rows apart. */
static bool views_local(Outline *x, Group *g, ValueId v) {
    const Node *n = value_node(x->f, v);
    if (!n || x->of[n - x->f->node] != NONE) return true;
    bool any = false;
    for (uint32_t i = 0; i < n->n_in; i++) any = any || g->rows.row[n->in[i]];
    if (any && !rows_node(&g->rows, n)) {
        x->why = g->rows.why;
        return false;
    }
    for (uint32_t i = 0; i < n->n_in; i++)
        if (!views_local(x, g, n->in[i])) return false;
    return true;
}

static bool row_takes(Outline *x, Group *g, uint32_t index, const Node *n) {
    x->why = "it has several results";
    if (n->n_out != 1) return false;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE) note_operand(x, g, index, n->in[i]);
    for (uint32_t i = 0; i < n->n_in; i++)
        if (n->in[i] != NONE && !views_local(x, g, n->in[i])) return false;
    if (n->op == OP_transpose && x->is_output[n->out] && x->uses[n->out] == 1 && x->uses[n->in[0]] == 1 &&
        value_node(x->f, n->in[0]) && rows_scatters(&g->rows, n))
        return true; /* as rows_output has it */
    bool local = rows_node(&g->rows, n);
    x->why = local ? "its value is the same for all rows" : g->rows.why;
    return local && g->rows.row[n->out];
}

/* A norm reads a stored value. */
static bool reads_norm(const Node *n) {
    return n->op == OP_rms_factor || n->op == OP_rms_norm;
}

/* n reads something that the group makes or reads itself. */
static bool connected(const Outline *x, uint32_t index, const Node *n) {
    const Group *g = x->group.item[index];
    for (uint32_t i = 0; i < n->n_in; i++) {
        if (n->in[i] == NONE || x->f->value[n->in[i]].kind == VK_PARAM) continue;
        if (source_group(x, n->in[i]) == index) return true;
        for (size_t j = 0; j < g->node.count; j++)
            for (uint32_t k = 0; k < x->f->node[g->node.item[j]].n_in; k++)
                if (x->f->node[g->node.item[j]].in[k] == n->in[i]) return true;
    }
    return false;
}

static bool takes(Outline *x, uint32_t index, const Node *n) {
    Group *g = x->group.item[index];
    bool attention = n->op == OP_append || n->op == OP_attention;
    x->why = g->kind == GROUP_ATTENTION ? "attention ends its kernel"
                                        : "a norm reads the value in front of it, which is stored once";
    if (g->closed)
        return false;
    x->why = "one is of the backward pass, the other of the forward pass";
    if (g->adjoint != (node_int(n, AT_adjoint, 0) != 0))
        return false;
    x->why = "attention and the appends to its caches have a kernel of their own";
    if (g->kind == GROUP_ATTENTION || (g->kind == GROUP_ROWS && attention))
        return g->kind == GROUP_ATTENTION && attention;
    x->why = "what it reads stands alone";
    if (g->kind != GROUP_ROWS)
        return false;
    x->why = "they have no operand in common";
    if (!connected(x, index, n))
        return false;
    x->why = "a norm reads a stored value";
    if (reads_norm(n) && source_group(x, n->in[0]) == index) return false;
    return row_takes(x, g, index, n);
}

/* Row axes of a group that starts with n: those of the groups it reads from, so that tokens stay tokens; else all axes of
 * the result but the last. */
static int row_axes(const Outline *x, const Node *n) {
    const Type *t = &x->f->value[n->out].type;
    int axes = t->rank - 1;
    for (uint32_t i = 0; i < n->n_in; i++) {
        int64_t from = source_group(x, n->in[i]);
        if (from < 0 || x->group.item[from]->kind != GROUP_ROWS) continue;
        const Rows *r = &x->group.item[from]->rows;
        if (r->n < axes && memcmp(r->dim, t->dim, (size_t)r->n * sizeof *r->dim) == 0) axes = r->n;
    }
    return axes;
}

static uint32_t group_new(Outline *x, const Node *n) {
    Group *g = arena_alloc(x->a, sizeof *g);
    uint32_t index = (uint32_t)x->group.count;
    const Type *t = &x->f->value[n->out].type;
    g->kind = n->op == OP_append || n->op == OP_attention ? GROUP_ATTENTION : GROUP_ROWS;
    g->adjoint = node_int(n, AT_adjoint, 0) != 0;
    g->rows = (Rows){.m = x->m, .f = x->f, .n = row_axes(x, n)};
    g->rows.row = arena_array(x->a, x->f->n_values + 1, sizeof *g->rows.row);
    memcpy(g->rows.dim, t->dim, sizeof g->rows.dim);
    vec_push(&x->group, g);
    if (g->kind != GROUP_ROWS)
        return index;
    x->why = "its result has no axis besides that of the rows";
    if (t->rank < 2 || !row_takes(x, g, index, n)) {
        g->kind = GROUP_SINGLE;
        remark(x->m, R_alone, x->f, n, "%s: alone in its kernel: %s", op_info(n->op)->name, x->why);
    }
    return index;
}

/* The first site that the group has, else the place of its first node. */
static const Node *group_head(const Outline *x, const Group *g) {
    for (size_t i = 0; i < g->node.count; i++)
        if (node_attr(&x->f->node[g->node.item[i]], AT_site))
            return &x->f->node[g->node.item[i]];
    return &x->f->node[g->node.item[0]];
}

static Str group_place(const Outline *x, const Group *g) {
    return node_place(group_head(x, g));
}

static void assign(Outline *x, uint32_t i) {
    const Node *n = &x->f->node[i];
    x->of[i] = NONE;
    x->noise[n->out] = noise_depth(x, n);
    if (is_free(x, n)) return;
    int64_t from = latest_source(x, n);
    uint32_t home = NONE;
    const char *why = NULL; /* not in the kernel it reads from */
    for (int64_t c = (int64_t)x->group.count - 1; c >= 0 && c >= from && home == NONE; c--) {
        if (takes(x, (uint32_t)c, n)) home = (uint32_t)c;
        else if (c == from)
            why = x->why;
    }
    if (why) {
        Str at = group_place(x, x->group.item[from]);
        remark(x->m, R_not_joined, x->f, n, "%s: not in the kernel of \"%.*s\": %s", op_info(n->op)->name,
               (int)at.n, at.p, why);
    }
    if (home == NONE) {
        if (reads_norm(n))
            for (int64_t c = 0; c < (int64_t)x->group.count; c++) x->group.item[c]->closed = true;
        home = group_new(x, n);
    }
    x->of[i] = home;
    vec_push(&x->group.item[home]->node, i);
    if (n->op == OP_attention) x->group.item[home]->closed = true;
}

/* ---- groups without products ------------------------------------------------------------------------- */

static bool reads_group(const Outline *x, ValueId v, uint32_t index) {
    const Node *n = v == NONE ? NULL : value_node(x->f, v);
    if (!n) return false;
    uint32_t g = x->of[n - x->f->node];
    for (uint32_t i = 0; g == NONE && i < n->n_in; i++)
        if (reads_group(x, n->in[i], index)) return true;
    return g == index;
}

static uint32_t first_reader(const Outline *x, uint32_t index) {
    uint32_t first = NONE;
    for (uint32_t i = x->group.item[index]->node.item[0]; i < x->f->n_nodes; i++) {
        const Node *n = &x->f->node[i];
        if (x->of[i] == NONE || x->of[i] == index || x->of[i] >= first) continue;
        for (uint32_t j = 0; j < n->n_in; j++)
            if (reads_group(x, n->in[j], index)) first = x->of[i];
    }
    return first;
}

static bool has_product(const Outline *x, const Group *g) {
    for (size_t i = 0; i < g->node.count; i++)
        if (op_info(x->f->node[g->node.item[i]].op)->klass == OC_CONTRACT) return true;
    return false;
}

static void give_nodes(Outline *x, const Group *g, uint32_t index) {
    for (size_t i = 0; i < g->node.count; i++) x->of[g->node.item[i]] = index;
}

/* All nodes of the group, which are in order, work row by row, and no norm reads what it makes itself. */
static bool is_row_group(Outline *x, Group *g, uint32_t index) {
    for (size_t i = 0; i < g->node.count; i++) {
        const Node *n = &x->f->node[g->node.item[i]];
        if ((reads_norm(n) && reads_group(x, n->in[0], index)) || !row_takes(x, g, index, n)) return false;
    }
    return true;
}

/* Group `index` moves into its first reader where both are of the same rows. */
static void move_into_reader(Outline *x, uint32_t index) {
    Group *a = x->group.item[index], *b, *both;
    uint32_t reader = a->kind == GROUP_ROWS && !has_product(x, a) ? first_reader(x, index) : NONE;
    if (reader == NONE) return;
    b = x->group.item[reader];
    if (b->kind != GROUP_ROWS || a->adjoint != b->adjoint || a->rows.n != b->rows.n ||
        memcmp(a->rows.dim, b->rows.dim, (size_t)a->rows.n * sizeof *a->rows.dim) != 0)
        return;
    both = arena_alloc(x->a, sizeof *both);
    *both = *b;
    both->rows.row = arena_array(x->a, x->f->n_values + 1, sizeof *both->rows.row);
    memset(&both->node, 0, sizeof both->node);
    for (size_t i = 0, j = 0; i < a->node.count || j < b->node.count;) {
        bool first = j == b->node.count || (i < a->node.count && a->node.item[i] < b->node.item[j]);
        vec_push(&both->node, first ? a->node.item[i++] : b->node.item[j++]);
    }
    give_nodes(x, a, reader);
    if (!is_row_group(x, both, reader)) {
        give_nodes(x, a, index);
        vec_free(&both->node);
        return;
    }
    vec_free(&a->node);
    vec_free(&b->node);
    memset(&a->node, 0, sizeof a->node);
    x->group.item[reader] = both;
}

/* ---- kernels --------------------------------------------------------------------------------------- */

typedef struct Kernel {
    Func *f;
    ValueId *map;   /* entry value -> kernel value */
    Vec(ValueId) in; /* entry values that are its operands */
} Kernel;

/* What operands are called, by the op that reads them first; x without a row. */
static const struct {
    Op op;
    const char *operand[10];
} operand_names[] = {
    {OP_attention, {"q", "k", "v", "bias", "keep", "q_segment", "k_segment", "seed", "drop", "spans"}},
    {OP_attention_grad, {"dy", "q", "k", "v", "bias", "keep", "q_segment", "k_segment", "seed", "drop"}},
    {OP_append, {"cache", "row"}},
    {OP_gather, {"table", "index"}},
    {OP_matmul, {"x", "w"}},
    {OP_rms_norm, {"x", "gain"}},
    {OP_random, {"seed"}},
    {OP_split_seed, {"seed"}},
    {OP_cross_entropy, {"x", "w", "labels", "smoothing", "z"}},
    {OP_cross_entropy_dx, {"x", "w", "labels", "smoothing", "z", "log_z", "dloss"}},
    {OP_cross_entropy_dw, {"x", "w", "labels", "smoothing", "z", "log_z", "dloss"}},
};

/* role: what the reader of a view calls it; NULL when n is no view. */
static const char *operand_name(const Node *n, uint32_t i, const char *role) {
    for (size_t r = 0; r < sizeof operand_names / sizeof *operand_names; r++)
        if (operand_names[r].op == n->op && i < 10 && operand_names[r].operand[i]) return operand_names[r].operand[i];
    return role ? role : "x";
}

/* A name no other operand has: q, q2, q3. */
static Str operand_hint(const Outline *x, const Kernel *k, const char *wanted) {
    for (unsigned i = 1;; i++) {
        Str name = str_c(i == 1 ? wanted : arena_printf(x->m->arena, "%s%u", wanted, i));
        bool taken = false;
        for (uint32_t j = 0; j < k->f->n_inputs && !taken; j++) taken = str_eq(k->f->value[k->f->input[j]].name, name);
        if (!taken) return name;
    }
}

static ValueId kernel_value(Outline *x, Kernel *k, ValueId v, uint32_t index, const char *role);

static void kernel_node(Outline *x, Kernel *k, const Node *n, uint32_t index, const char *role) {
    ValueId *in = arena_array(x->a, n->n_in + 1, sizeof *in);
    Type *types = arena_array(x->a, n->n_out + 1, sizeof *types);
    Attr *attrs = arena_array(x->a, n->n_attrs + 1, sizeof *attrs);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->n_in; i++) in[i] = n->in[i] == NONE ? NONE : kernel_value(x, k, n->in[i], index, operand_name(n, i, role));
    for (uint32_t i = 0; i < n->n_out; i++) types[i] = x->f->value[n->out + i].type;
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!attr_annotates(n->attrs[i].key)) attrs[kept++] = n->attrs[i];
    ValueId v = func_node_typed(x->m, k->f, n->op, in, n->n_in, attrs, kept, types, n->n_out, (Str){NULL, 0});
    for (uint32_t i = 0; i < n->n_out; i++) k->map[n->out + i] = v + i;
}

/* v inside kernel k: already there, a view to copy, or a new operand. Views nest a handful deep. */
static ValueId kernel_value(Outline *x, Kernel *k, ValueId v, uint32_t index, const char *role) {
    if (k->map[v] != NONE) return k->map[v];
    const Node *n = value_node(x->f, v);
    if (n && x->of[n - x->f->node] == NONE) {
        kernel_node(x, k, n, index, role);
        return k->map[v];
    }
    vec_push(&k->in, v);
    return k->map[v] = func_input(x->m, k->f, operand_hint(x, k, role), x->f->value[v].type);
}

/* encoder.3.self.q -> encoder_self_q; without a site the last op's name. */
static Str kernel_name(Outline *x, const Group *g) {
    const Node *last = &x->f->node[g->node.item[g->node.count - 1]];
    const Attr *a = node_attr(group_head(x, g), AT_site);
    Str site = a ? a->s : str_c("");
    if (g->kind == GROUP_ATTENTION) return str_c("attention");
    if (!site.n) return str_c(op_info(last->op)->name);
    char *name = arena_alloc(x->m->arena, site.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < site.n; i++) {
        bool layer = site.p[i] == '.' && i + 1 < site.n && isdigit((unsigned char)site.p[i + 1]);
        if (layer)
            while (i + 1 < site.n && isdigit((unsigned char)site.p[i + 1])) i++;
        else name[n++] = site.p[i] == '.' ? '_' : site.p[i];
    }
    return (Str){name, n};
}

static FuncId shared_kernel(Module *m, Func *k) {
    FuncId id = func_end(m, k, NONE);
    k = module_func(m, id);
    for (FuncId i = 0; i < id; i++)
        if (m->func[i] && m->func[i]->role == FR_KERNEL && func_same(m->func[i], k)) {
            m->func[id] = NULL;
            return i;
        }
    Str base = k->name;
    FuncId n = id;
    do k->name = str_c(arena_printf(m->arena, "%.*s_%u", (int)base.n, base.p, n++)); /* text IR may have taken some */
    while (module_find(m, k->name.p) != k);
    return id;
}

/* ---- what is told of groups ---- */

/* The site of an adapter's node: `adapter: encoder.0.self.k mov`. */
static Str adapter_site(const Node *n) {
    static const char head[] = "adapter: ";
    if (n->origin.n < sizeof head || memcmp(n->origin.p, head, sizeof head - 1) != 0)
        return (Str){NULL, 0};
    Str s = {n->origin.p + sizeof head - 1, 0};
    while (s.p + s.n < n->origin.p + n->origin.n && s.p[s.n] != ' ')
        s.n++;
    return s;
}

/* Of the same site's adapter, and the same direction. */
static bool same_adapter(const Node *a, const Node *b) {
    return str_eq(adapter_site(a), adapter_site(b)) &&
           node_int(a, AT_adjoint, 0) == node_int(b, AT_adjoint, 0);
}

/* For each site whose adapter has nodes in this function: one kernel, or several. */
static void tell_adapters(const Outline *x) {
    for (uint32_t i = 0; i < x->f->n_nodes; i++) {
        const Node *a = &x->f->node[i];
        Str site = adapter_site(a);
        bool first = site.n && x->of[i] != NONE, spread = false;
        for (uint32_t j = 0; j < i && first; j++)
            first = x->of[j] == NONE || !same_adapter(&x->f->node[j], a);
        if (!first)
            continue;
        Text ops = {0};
        const Group *g = x->group.item[x->of[i]];
        for (uint32_t j = i; j < x->f->n_nodes; j++) {
            const Node *n = &x->f->node[j];
            if (x->of[j] == NONE || !same_adapter(n, a))
                continue;
            text_printf(&ops, "%s%s", ops.n ? ", " : "", op_info(n->op)->name);
            spread = spread || x->of[j] != x->of[i];
        }
        Str at = group_place(x, g);
        const char *what = node_int(a, AT_adjoint, 0) ? "the backward pass of its adapter" : "its adapter";
        if (spread)
            remark_at(x->m, R_adapter_spread, x->f, site,
                      "%s stands in several kernels, values between them are stored: %s", what, ops.p);
        else
            remark_at(x->m, R_adapter_inside, x->f, site, "%s is part of the kernel of \"%.*s\": %s", what,
                      (int)at.n, at.p, ops.p);
        text_free(&ops);
    }
}

/* A sum of a product made in the kernel with what comes from outside. */
static void tell_residual(const Outline *x, uint32_t index, const Node *n) {
    for (uint32_t k = 0; n->op == OP_add && k < 2; k++) {
        const Node *made = value_node(x->f, n->in[k]);
        if (!made || x->of[made - x->f->node] != index || made->op != OP_matmul)
            continue;
        if (source_group(x, n->in[1 - k]) == index || x->f->value[n->in[1 - k]].kind == VK_PARAM ||
            !type_eq(&x->f->value[n->in[1 - k]].type, &x->f->value[n->out].type))
            continue;
        Str at = node_place(made);
        remark(x->m, R_residual, x->f, n, "the sum stands in the kernel of \"%.*s\"", (int)at.n, at.p);
        return;
    }
}

static void tell_group(const Outline *x, uint32_t index, const Func *kernel) {
    const Group *g = x->group.item[index];
    Text ops = {0};
    uint32_t times = 0;
    for (size_t i = 0; i < g->node.count; i++) {
        const Node *n = &x->f->node[g->node.item[i]];
        tell_residual(x, index, n);
        times++;
        if (i + 1 < g->node.count && x->f->node[g->node.item[i + 1]].op == n->op)
            continue;
        if (times > 1)
            text_printf(&ops, "%s%u %s", ops.n ? ", " : "", times, op_info(n->op)->name);
        else
            text_printf(&ops, "%s%s", ops.n ? ", " : "", op_info(n->op)->name);
        times = 0;
    }
    remark(x->m, R_kernel, x->f, group_head(x, g), "kernel @%.*s: %s", (int)kernel->name.n, kernel->name.p,
           ops.p);
    text_free(&ops);
}

/* A weight remembers the first site whose product reads it: kernels are shared by sites. */
static void note_site(Outline *x, const Node *n) {
    const Attr *site = n->op == OP_matmul ? node_attr(n, AT_site) : NULL;
    ParamId id;
    if (site && value_param(x->f, n->in[1], &id) && !x->m->param[id].site.n)
        x->m->param[id].site = site->s;
}

/* func_end drops operands nothing reads; inputs stay in order, so calls pass what the kernel kept: all of them. */
static void emit_group(Outline *x, Remap *r, uint32_t index, const bool *escapes) {
    Group *g = x->group.item[index];
    Kernel k = {.f = func_begin(x->m, kernel_name(x, g), FR_KERNEL)};
    k.map = arena_array(x->a, x->f->n_values + 1, sizeof *k.map);
    memset(k.map, 0xff, (x->f->n_values + 1) * sizeof *k.map);
    Vec(ValueId) out = {0};
    Str origin = {NULL, 0};
    const Attr *site = node_attr(group_head(x, g), AT_site); /* the call keeps what it is a part of */
    for (size_t i = 0; i < g->node.count; i++) {
        const Node *n = &x->f->node[g->node.item[i]];
        kernel_node(x, &k, n, index, NULL);
        note_site(x, n);
        if (!origin.n) origin = n->origin;
        for (uint32_t j = 0; j < n->n_out; j++)
            if (escapes[n->out + j]) vec_push(&out, n->out + j);
    }
    for (size_t i = 0; i < out.count; i++) func_output(x->m, k.f, k.map[out.item[i]], (Str){NULL, 0});
    Attr attrs[3] = {attr_i(AT_func, shared_kernel(x->m, k.f))};
    uint32_t n_attrs = 1;
    if (x->m->remarks)
        tell_group(x, index, module_func(x->m, (FuncId)attrs[0].i));
    if (site)
        attrs[n_attrs++] = *site;
    if (g->adjoint)
        attrs[n_attrs++] = attr_i(AT_adjoint, 1);
    Vec(ValueId) in = {0};
    Vec(Type) types = {0};
    for (size_t i = 0; i < k.in.count; i++) vec_push(&in, remap_value(r, k.in.item[i]));
    for (size_t i = 0; i < out.count; i++) vec_push(&types, x->f->value[out.item[i]].type);
    ValueId v = func_node_typed(x->m, r->f, OP_call, in.item, (uint32_t)in.count, attrs, n_attrs, types.item,
                                (uint32_t)out.count, origin);
    for (size_t i = 0; i < out.count; i++) remap_set(r, out.item[i], v + (uint32_t)i);
    vec_free(&k.in);
    vec_free(&in);
    vec_free(&types);
    vec_free(&out);
}

/* An output that is an input, a parameter, a literal or listed before gets a kernel that copies it. */
static ValueId copied(Outline *x, Remap *r, ValueId v) {
    Module *m = x->m;
    const Type *t = &x->f->value[v].type;
    Kernel k = {.f = func_begin(m, str_c("copy"), FR_KERNEL)};
    k.map = arena_array(x->a, x->f->n_values + 1, sizeof *k.map);
    memset(k.map, 0xff, (x->f->n_values + 1) * sizeof *k.map);
    ValueId in = kernel_value(x, &k, v, NONE, "x");
    ValueId y = func_node_typed(m, k.f, OP_reshape, &in, 1, NULL, 0, t, 1, (Str){NULL, 0});
    func_output(m, k.f, y, (Str){NULL, 0});
    Attr callee = attr_i(AT_func, shared_kernel(m, k.f));
    ValueId arg = k.in.count ? remap_value(r, k.in.item[0]) : NONE;
    ValueId out = func_node_typed(m, r->f, OP_call, &arg, (uint32_t)k.in.count, &callee, 1, t, 1, (Str){NULL, 0});
    vec_free(&k.in);
    return out;
}

/* Values that live outside the group that makes them. */
static void mark_escape(const Outline *x, bool *escapes, ValueId v, uint32_t into) {
    const Node *n = v == NONE ? NULL : value_node(x->f, v);
    if (!n) return;
    uint32_t g = x->of[n - x->f->node];
    if (g == NONE)
        for (uint32_t i = 0; i < n->n_in; i++) mark_escape(x, escapes, n->in[i], into);
    else if (g != into) escapes[v] = true;
}

bool outline(Module *m, Func *f, Diag *d) {
    (void)d;
    Outline x = {.m = m, .f = f, .a = arena_new()};
    x.of = arena_array(x.a, f->n_nodes + 1, sizeof *x.of);
    x.noise = arena_array(x.a, f->n_values + 1, sizeof *x.noise);
    x.is_output = arena_array(x.a, f->n_values + 1, sizeof *x.is_output);
    x.uses = func_uses(x.a, f);
    bool *escapes = arena_array(x.a, f->n_values + 1, sizeof *escapes);
    for (uint32_t i = 0; i < f->n_outputs; i++) x.is_output[f->output[i]] = escapes[f->output[i]] = true;
    for (uint32_t i = 0; i < f->n_nodes; i++) assign(&x, i);
    for (uint32_t g = (uint32_t)x.group.count; g-- > 0;) move_into_reader(&x, g);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        for (uint32_t j = 0; x.of[i] != NONE && j < f->node[i].n_in; j++) mark_escape(&x, escapes, f->node[i].in[j], x.of[i]);
    if (m->remarks)
        tell_adapters(&x);
    Remap r = remap_begin(m, x.a, f);
    for (uint32_t g = 0; g < x.group.count; g++)
        if (x.group.item[g]->node.count) emit_group(&x, &r, g, escapes);
    for (uint32_t i = 0; i < f->n_outputs; i++) {
        ValueId v = f->output[i];
        bool before = false;
        for (uint32_t j = 0; j < i; j++) before = before || f->output[j] == v;
        const Node *n = value_node(f, v);
        bool made = n && x.of[n - f->node] != NONE;
        func_output(m, r.f, made && !before ? remap_value(&r, v) : copied(&x, &r, v), f->output_name[i]);
    }
    func_end(m, r.f, f->id);
    for (size_t i = 0; i < x.group.count; i++) vec_free(&x.group.item[i]->node);
    vec_free(&x.group);
    arena_free(x.a);
    return true;
}
