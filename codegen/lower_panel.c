/* Products by weights in panels (compiler/pack.h, tile.h).
 *
 * Such a product of a kernel by rows is streamed where a single loop reads it, element by element: it is computed a block of
 * columns at a time, into scratch that stays in cache, and the loop over those columns - the activation, the gate,
 * the residual, an adapter's factor - runs before the next block. The value that the loop stores is the product's sink. Any
 * other product is stored as a whole, panel by panel. */
#include "lower_panel.h"

#include "../compiler/remark.h"

#include <inttypes.h>
#include <string.h>

/* ---- products by panels ------------------------------------------------------------------------------ */

bool lower_by_panels(const Lower *l, const Node *n) {
    Panels p;
    return panels_of(l, n, &p);
}

bool lower_is_rounded(const Lower *l, ValueId v) {
    Panels p;
    for (uint32_t i = 0; i < l->f->n_nodes; i++)
        for (uint32_t j = 0; j < l->f->node[i].n_in; j++)
            if (l->f->node[i].in[j] == v && (j > 0 || !panels_of(l, &l->f->node[i], &p) || !p.rounded))
                return false;
    for (uint32_t i = 0; i < l->f->n_outputs; i++)
        if (l->f->output[i] == v)
            return false;
    return true;
}

/* v's storage with unit stride along its last axis, as a product's left operand. */
static bool left_operand(Lower *l, ValueId v, View *out) {
    if (!lower_stored(l, v, out))
        return false;
    return dim_is(l->t, out->stride[out->rank - 1], 1) || (lower_scratch(l, v, out) && lower_into(l, v, out));
}

/* A block of the phase has so many columns of each row of a matrix stored there. */
static void has_columns(Lower *l, LStmt *phase, const View *w, int64_t width) {
    if (w->rank == 2 && dim_is(l->t, w->stride[1], 1) && !w->run && !w->origin)
        ls_columns(l->k, phase, (LColumns){.buf = w->buf, .offset = w->offset, .row = w->stride[0], .width = width});
}

/* ---- stored as a whole -------------------------------------------------------------------------------- */

/* An axis of rows: extent and distances in the result, the left operand, and panels of the right one. */
typedef struct RowAxis {
    const LExpr *extent;
    Dim c, a;
    int64_t panels; /* from one to the next */
} RowAxis;

typedef struct Whole {
    Panels p;
    View a, c;
    RowAxis axis[MOEC_MAX_RANK];
    int n;
    int64_t room; /* columns that may be stored to: more than the result has in scratch */
} Whole;

static void whole_axes(Lower *l, const Node *n, Whole *x) {
    const Node *u = value_node(l->f, n->in[1]);
    const Type *b = &l->f->value[u->out].type;
    int rank = x->c.rank;
    x->n = rank - 1;
    int64_t step = x->p.panels;
    for (int i = rank - 2; i >= 0; i--) {
        int at = i - rank + x->a.rank, bt = i - rank + b->rank;
        Dim d = at < 0 ? DIM_BAD : lower_dim(l, n->in[0], at);
        bool repeats = at < 0 || (d != DIM_BAD && dim_is(l->t, d, 1)), moves = i < rank - 2 && bt >= 0 && !dim_is(l->t, b->dim[bt], 1);
        const LExpr *extent = lower_extent(l, n->out, i);
        x->axis[i] = (RowAxis){extent, x->c.stride[i], repeats ? dim_const(l->t, 0) : x->a.stride[at], moves ? step : 0};
        int64_t e;
        if (moves && dim_is_const(l->t, b->dim[bt], &e))
            step *= e;
    }
}

/* The rows of the products: an axis that shares its panels with all of them, and the one in front where that continues it.
 * Takes them away from the axes. */
static RowAxis take_rows(Lower *l, Whole *x) {
    int last = x->n - 1, first;
    while (last > 0 && (le_is_int(x->axis[last].extent, 1) || x->axis[last].panels))
        last--;
    if (x->axis[last].panels) /* each row has panels of its own */
        return (RowAxis){le_int(l->k, 1), dim_const(l->t, 0), dim_const(l->t, 0), 0};
    RowAxis rows = x->axis[last];
    first = last;
    if (last > 0 && !x->axis[last - 1].panels && rows.extent->kind == LE_INT) {
        const RowAxis *o = &x->axis[last - 1];
        Dim e = dim_const(l->t, rows.extent->i);
        if (o->c == dim_mul(l->t, rows.c, e) && o->a == dim_mul(l->t, rows.a, e)) {
            rows.extent = li_mul(l->k, o->extent, rows.extent);
            first--;
        }
    }
    for (int i = last + 1; i < x->n; i++)
        x->axis[i - (last + 1 - first)] = x->axis[i];
    x->n -= last + 1 - first;
    return rows;
}

static void copy_tile(Lower *l, const LBuf *t, int64_t width, const LMatrix *c, const LExpr *rows,
                      const LExpr *columns, bool add) {
    LoopKernel *k = l->k;
    LStmt *i = ls_for(k, l->block, rows, "m"), *j = ls_lanes(k, &i->body, columns, "j");
    const LExpr *row = le_var(k, i->var), *column = le_var(k, j->var);
    const LExpr *at = li_add(k, li_add(k, c->offset, li_mul(k, row, c->ld)), column);
    const LExpr *e = le_load(k, t, li_add(k, li_mul(k, row, le_int(k, width)), column));
    ls_store(k, &j->body, c->buf, at, add ? le_op2(k, LO_ADD, DT_F32, le_load(k, c->buf, at), e) : e);
}

/* Rows that are multiplied at a time where the result has no room for all columns of a panel. */
enum { PIECE = 128 };

/* One panel of all rows into its columns of the result. */
static void store_panel(Lower *l, const Whole *x, LMatrix a, LMatrix c, const LExpr *panel, const LExpr *batch_panel,
                        const LExpr *rows, bool add) {
    LoopKernel *k = l->k;
    const Panels *p = &x->p;
    const LExpr *first = li_mul(k, panel, le_int(k, p->width)), *at = li_add(k, batch_panel, panel);
    c.offset = li_add(k, c.offset, first);
    if (p->panels * p->width <= x->room) {
        panel_multiply(l, p, &a, le_int(k, 0), at, le_int(k, 1), &c, rows, add);
        return;
    }
    LBlock *back = l->block;
    LStmt *s = ls_for(k, l->block, li_div(k, li_add(k, rows, le_int(k, PIECE - 1)), le_int(k, PIECE)), "piece");
    const LExpr *row = li_mul(k, le_var(k, s->var), le_int(k, PIECE));
    const LBuf *t = panel_scratch(l, PIECE, p->width);
    LMatrix tile = {t, le_int(k, 0), le_int(k, p->width), false};
    l->block = &s->body;
    rows = li_min(k, le_int(k, PIECE), li_sub(k, rows, row));
    a.offset = li_add(k, a.offset, li_mul(k, row, a.ld));
    c.offset = li_add(k, c.offset, li_mul(k, row, c.ld));
    panel_multiply(l, p, &a, row, at, le_int(k, 1), &tile, rows, false);
    copy_tile(l, t, p->width, &c, rows, li_min(k, le_int(k, p->width), li_sub(k, le_int(k, p->columns), first)), add);
    l->block = back;
}

static bool store_streams(Lower *l, ValueId v, const View *to, bool accumulate);

bool lower_panels(Lower *l, const Node *n, const View *to, bool accumulate) {
    LoopKernel *k = l->k;
    Whole x = {.c = *to};
    if (!panels_of(l, n, &x.p))
        BUG("no product by panels");
    if (x.p.transposed) {
        l->streamed[n->out] = true; /* into itself */
        bool ok = store_streams(l, n->out, to, accumulate);
        l->streamed[n->out] = false;
        return ok;
    }
    if (!left_operand(l, x.p.left, &x.a) || !panel_left_words(l, &x.p, &x.a))
        return false;
    whole_axes(l, n, &x);
    x.room = x.p.columns;
    int64_t row;
    if (to->buf->kind == LB_SCRATCH && to->rank > 1 && dim_is_const(l->t, to->stride[to->rank - 2], &row))
        x.room = row;
    RowAxis rows = take_rows(l, &x);
    LBlock *back = l->block;
    bool blocks = l->n_row && back == lower_serial(l) && x.n == 0;
    const LExpr *a = x.a.offset, *c = x.c.offset, *batch = le_int(k, 0), *panel;
    if (blocks) {
        LStmt *phase = lower_blocks(l, le_int(k, x.p.panels), &panel);
        l->block = &phase->body;
        has_columns(l, phase, to, x.p.width);
    }
    for (int i = 0; i < x.n; i++) {
        if (le_is_int(x.axis[i].extent, 1))
            continue;
        LStmt *s = ls_for(k, l->block, x.axis[i].extent, "h");
        const LExpr *v = le_var(k, s->var);
        l->block = &s->body;
        c = li_add(k, c, li_mul(k, v, le_dim(k, x.axis[i].c)));
        a = li_add(k, a, li_mul(k, v, le_dim(k, x.axis[i].a)));
        batch = li_add(k, batch, li_mul(k, v, le_int(k, x.axis[i].panels)));
    }
    if (!blocks) {
        LStmt *s = ls_for(k, l->block, le_int(k, x.p.panels), "panel");
        l->block = &s->body;
        panel = le_var(k, s->var);
    }
    LMatrix ma = {x.a.buf, a, le_dim(k, rows.a), false}, mc = {to->buf, c, le_dim(k, rows.c), false};
    store_panel(l, &x, ma, mc, panel, batch, rows.extent, accumulate);
    l->block = blocks ? lower_serial(l) : back;
    return true;
}

/* ---- streamed ------------------------------------------------------------------------------------------- */

/* Elements behind the row axes; DIM_BAD where they are not constant. */
static int64_t inner_count(const Lower *l, ValueId v) {
    int64_t n = 1, e;
    for (int a = 1; a < lower_rank(l, v); a++) {
        if (!dim_is_const(l->t, lower_dim(l, v, a), &e) || !mul_i64(n, e, &n))
            return -1;
    }
    return n;
}

/* Where the elements of v at columns `first` on go: into a sink whose column 0 is `first`. */
typedef struct Stream {
    ValueId sink; /* NONE: there is none */
    int64_t first;
    const char *why; /* there is none */
} Stream;

static Stream no_stream(const char *why) {
    return (Stream){NONE, 0, why};
}

/* Uses of v, through other views of it. */
uint32_t lower_reads(const Lower *l, ValueId v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->f->n_nodes; i++) {
        const Node *u = &l->f->node[i];
        for (uint32_t j = 0; j < u->n_in; j++) {
            if (u->in[j] != v)
                continue;
            bool view = u->op == OP_reshape || u->op == OP_slice || u->op == OP_transpose;
            n += view ? lower_reads(l, u->out) : 1;
        }
    }
    for (uint32_t i = 0; i < l->f->n_outputs; i++)
        n += l->f->output[i] == v;
    return n;
}

static const Node *reader(const Lower *l, ValueId v) {
    for (uint32_t i = 0; i < l->f->n_nodes; i++)
        for (uint32_t j = 0; j < l->f->node[i].n_in; j++)
            if (l->f->node[i].in[j] == v)
                return &l->f->node[i];
    return NULL;
}

static bool is_output(const Lower *l, ValueId v) {
    for (uint32_t i = 0; i < l->f->n_outputs; i++)
        if (l->f->output[i] == v)
            return true;
    return false;
}

/* The first column that a slice takes, where it takes them of the one axis behind the rows; -1: it does not. */
static int64_t slice_start(const Lower *l, const Node *n) {
    const Attr *start = node_attr(n, AT_start), *step = node_attr(n, AT_step);
    uint32_t last = start->dims.n - 1;
    int64_t first;
    bool one = lower_rank(l, n->in[0]) == 2 && (!step || step->ints.v[last] == 1);
    return one && dim_is_const(l->t, start->dims.v[last], &first) ? first : -1;
}

/* A product, or what its left operand is rounded by. */
static bool is_operand_of(const Node *u) {
    return u->op == OP_matmul || u->op == OP_quantize;
}

/* v is computed where its one reader is, element by element. */
static Stream stream(const Lower *l, ValueId v, int64_t first) {
    const Node *n = value_node(l->f, v), *u = reader(l, v);
    bool pointwise = op_info(n->op)->klass == OC_POINTWISE && !lower_is_cheap(n);
    const Stream here = {v, first, NULL};
    if (l->scattered[v])
        return here;
    if (is_output(l, v))
        return pointwise ? here : no_stream("the kernel returns it");
    if (lower_reads(l, v) > 1)
        return pointwise ? here : no_stream("it is read more than once");
    if (!u || !l->row[u->out])
        return no_stream("nothing reads it row by row");
    if (u->op == OP_slice) {
        int64_t start = slice_start(l, u);
        return start < 0 ? no_stream("a slice takes other than columns side by side") : stream(l, u->out, first + start);
    }
    if (u->op == OP_reshape) {
        const Node *next = reader(l, u->out);
        bool stored = is_output(l, u->out) || (next && is_operand_of(next));
        if (stored)
            return pointwise ? here : no_stream("it is stored in another shape");
        return stream(l, u->out, first);
    }
    if (is_operand_of(u))
        return pointwise ? here : no_stream("a product reads it");
    if (op_info(u->op)->klass != OC_POINTWISE)
        return no_stream(arena_printf(l->k->arena, "%s reads it", op_info(u->op)->name));
    if (l->f->value[u->out].type.dtype == DT_BOOL)
        return no_stream("a comparison reads it");
    if (inner_count(l, u->out) != inner_count(l, v)) /* stored, or computed again for each element */
        return pointwise ? here : no_stream("what reads it repeats its elements");
    return stream(l, u->out, first);
}

/* Columns of a sink that are computed together. */
static int64_t block_width(const Lower *l, ValueId sink) {
    int64_t heads, width;
    int rank = lower_rank(l, sink);
    if (rank == 2)
        return PANEL_COLUMNS;
    if (rank != 3 || !dim_is_const(l->t, lower_dim(l, sink, 1), &heads) || !dim_is_const(l->t, lower_dim(l, sink, 2), &width))
        return -1;
    return width;
}

static const char *why_no_blocks(const Lower *l, const Panels *p, Stream s) {
    if (s.sink == NONE)
        return s.why;
    int64_t width = block_width(l, s.sink);
    if (width <= 0)
        return "what is stored has more than two axes in a row";
    if (p->transposed)
        return NULL;
    if (width % p->width)
        return "the last axis of what is stored is no number of whole panels";
    if (s.first % p->width)
        return "what reads it begins inside a panel";
    return p->batch == 1 || p->columns % width == 0 ? NULL : "a block of columns would be of several matrices";
}

/* The axis of n's left operand that goes along with the batches of its right one; 0: it has none; -1: several do, or one
 * that repeats. */
static int batch_axis(const Lower *l, const Node *n, int64_t batch) {
    int at = 0;
    int64_t e;
    for (int a = 1; a < lower_rank(l, n->in[0]) - 2; a++) {
        if (dim_is(l->t, lower_dim(l, n->in[0], a), 1))
            continue;
        if (at || !dim_is_const(l->t, lower_dim(l, n->in[0], a), &e) || e != batch)
            return -1;
        at = a;
    }
    return at;
}

/* Why a product by panels is not streamed: by one reader, or by several that read other columns each. */
static const char *why_whole(const Lower *l, const Node *n, const Panels *p) {
    ValueId v = n->out;
    if (is_output(l, v))
        return "the kernel returns it";
    if (!l->uses[v])
        return "nothing reads it";
    if (inner_count(l, v) != p->batch * p->columns)
        return "each row of the kernel has several of its rows";
    if (batch_axis(l, n, p->batch) < 0)
        return "its left operand repeats along some batches, or has several axes of them";
    if (lower_reads(l, v) == 1)
        return why_no_blocks(l, p, stream(l, v, 0));
    int64_t end = 0;
    for (uint32_t i = 0; i < l->f->n_nodes; i++) {
        const Node *u = &l->f->node[i];
        bool reads = false;
        for (uint32_t j = 0; j < u->n_in; j++)
            reads = reads || u->in[j] == v;
        if (!reads)
            continue;
        int64_t start = u->op == OP_slice && l->row[u->out] ? slice_start(l, u) : -1;
        if (start < end)
            return "it is read more than once";
        const char *why = why_no_blocks(l, p, stream(l, u->out, start));
        if (why)
            return why;
        end = start + inner_count(l, u->out);
    }
    return NULL;
}

/* A term of the sum v is a product that is added onto it as a whole. */
static bool has_whole_term(const Lower *l, ValueId v) {
    const Node *n = value_node(l->f, v);
    if (!n || l->uses[v] != 1)
        return false;
    if (n->op == OP_add)
        return has_whole_term(l, n->in[0]) || has_whole_term(l, n->in[1]);
    return lower_is_gemm(l, n) && !l->streamed[v];
}

/* What reads v, and what reads that, is a sum with such a term. */
static bool joins_whole_term(const Lower *l, ValueId v) {
    for (const Node *u = reader(l, v); u; u = reader(l, u->out))
        if (u->op == OP_add && (has_whole_term(l, u->in[0]) || has_whole_term(l, u->in[1])))
            return true;
    return false;
}

static void tell_whole(const Lower *l, const Node *n, const char *why) {
    Text t = {0};
    node_print(l->m, l->f, n, &t);
    remark(l->m, R_not_streamed, l->f, NULL, "stored as a whole, %s: %.*s", why, (int)t.n, t.p);
    text_free(&t);
}

void lower_find_streams(Lower *l) {
    const Func *f = l->f;
    const char **why = arena_array(l->k->arena, f->n_values + 1, sizeof *why);
    Panels p;
    l->streamed = arena_array(l->k->arena, f->n_values + 1, sizeof *l->streamed);
    l->left = arena_array(l->k->arena, f->n_values + 1, sizeof *l->left);
    for (int i = 0; i < WEIGHT_FORMATS; i++) {
        l->rounded[i] = arena_array(l->k->arena, f->n_values + 1, sizeof **l->rounded);
        l->digits[i] = arena_array(l->k->arena, f->n_values + 1, sizeof **l->digits);
    }
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        bool by_panels = panels_of(l, n, &p);
        if (by_panels)
            why[n->out] = why_whole(l, n, &p);
        l->streamed[n->out] = by_panels && !why[n->out];
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (ValueId v = 0; v < f->n_values; v++)
            if (l->streamed[v] && joins_whole_term(l, v)) {
                l->streamed[v] = false;
                why[v] = "a product stored as a whole is added onto what it is part of";
                changed = true;
            }
    }
    for (uint32_t i = 0; l->m->remarks && i < f->n_nodes; i++)
        if (why[f->node[i].out])
            tell_whole(l, &f->node[i], why[f->node[i].out]);
}

/* The streamed products that an element of v is made of. */
typedef struct Source {
    ValueId v, at;           /* the product; itself, or the slice of it that is read */
    int64_t first, at_first; /* their columns that are column 0 of the sink */
    Panels p;
    View a;
    const LBuf *tile;
    const LBuf *lanes; /* of a transposed product: its tile with rows as lanes; what it reads for so many columns */
    PanelRows rows;
    const LExpr *columns;
} Source;

/* s: NULL to count them. */
static uint32_t add_source(const Lower *l, ValueId v, int64_t first, ValueId at, int64_t at_first, Source *s, uint32_t count) {
    if (s) {
        s[count] = (Source){.v = v, .at = at, .first = first, .at_first = at_first};
        panels_of(l, value_node(l->f, v), &s[count].p);
    }
    return count + 1;
}

static uint32_t find_sources(const Lower *l, ValueId v, int64_t first, Source *s, uint32_t count) {
    const Node *n = value_node(l->f, v);
    if (!n || l->view[v].buf)
        return count;
    if (l->streamed[v])
        return add_source(l, v, first, v, first, s, count);
    if (n->op == OP_slice && l->row[v]) {
        int64_t start = slice_start(l, n);
        if (start < 0)
            return count;
        if (l->streamed[n->in[0]])
            return add_source(l, n->in[0], first + start, v, first, s, count);
        return find_sources(l, n->in[0], first + start, s, count);
    }
    if (n->op == OP_reshape || op_info(n->op)->klass == OC_POINTWISE)
        for (uint32_t i = 0; i < n->n_in; i++)
            if (l->row[n->in[i]])
                count = find_sources(l, n->in[i], first, s, count);
    return count;
}

bool lower_has_sources(const Lower *l, ValueId v) {
    return l->n_row && find_sources(l, v, 0, NULL, 0) > 0;
}

/* Pointwise ops between v, which is one of them, and the products it is made of, in their order. */
static bool name_ops(const Lower *l, ValueId v, Text *t, uint32_t *count) {
    const Node *n = value_node(l->f, v);
    bool found = false;
    if (!n || l->view[v].buf || l->streamed[v])
        return n && !l->view[v].buf;
    for (uint32_t i = 0; i < n->n_in; i++)
        if (l->row[n->in[i]] && name_ops(l, n->in[i], t, count))
            found = true;
    if (found && op_info(n->op)->klass == OC_POINTWISE)
        text_printf(t, "%s%s", (*count)++ ? ", " : "", op_info(n->op)->name);
    return found;
}

static void tell_streamed(const Lower *l, ValueId v, const Source *s, uint32_t n, int64_t width) {
    Text ops = {0}, products = {0};
    uint32_t count = 0, made = 0;
    if (!l->m->remarks)
        return;
    name_ops(l, v, &ops, &count);
    for (uint32_t i = 0, k; i < n; i++) {
        for (k = 0; s[k].v != s[i].v;)
            k++;
        if (k < i) /* another window of it */
            continue;
        if (made++)
            text_add(&products, "; ", 2);
        node_print(l->m, l->f, value_node(l->f, s[i].v), &products);
    }
    remark(l->m, R_streamed, l->f, NULL, "%.*s run%s on blocks of %" PRId64 " columns of %u product%s before they are stored: %.*s",
           (int)ops.n, ops.p, count == 1 ? "s" : "", width, made, made == 1 ? "" : "s", (int)products.n, products.p);
    text_free(&ops);
    text_free(&products);
}

/* Rows that a block works on at a time: `count` from `first` on. */
typedef struct Band {
    const LExpr *first, *count;
} Band;

/* All rows at once, or by 32 where a source has them as lanes; what follows stands inside. */
static Band open_band(Lower *l, bool lanes) {
    LoopKernel *k = l->k;
    if (!lanes)
        return (Band){le_int(k, 0), l->tile};
    const LExpr *wide = le_int(k, PANEL_COLUMNS);
    LStmt *s = ls_for(k, l->block, li_div(k, li_add(k, l->tile, le_int(k, PANEL_COLUMNS - 1)), wide), "band");
    l->block = &s->body;
    const LExpr *first = le_var(k, ls_let(k, l->block, DT_I64, li_mul(k, le_var(k, s->var), wide), "first"));
    return (Band){first, le_var(k, ls_let(k, l->block, DT_I64, li_min(k, wide, li_sub(k, l->tile, first)), "count"))};
}

/* Zeros in lanes from `lane` on, of lines from `first` to `end`. */
static void clear_lanes(Lower *l, const LBuf *b, const LExpr *to, const LExpr *first, const LExpr *end, const LExpr *lane) {
    LoopKernel *k = l->k;
    const LExpr *wide = le_int(k, PANEL_COLUMNS);
    LStmt *some = ls_if(k, l->block, le_op2(k, LO_LT, DT_BOOL, lane, wide));
    LStmt *j = ls_for(k, &some->body, li_sub(k, end, first), "j"), *m = ls_lanes(k, &j->body, li_sub(k, wide, lane), "m");
    const LExpr *line = li_mul(k, li_add(k, first, le_var(k, j->var)), wide);
    ls_store(k, &m->body, b, li_add(k, li_add(k, li_add(k, to, line), lane), le_var(k, m->var)), le_num(k, DT_F32, 0));
}

enum { LINE = 16 /* f32 of a cache line */ };

/* Asks for the columns behind these: a line or two of each row, far apart, which the processor does not foresee. */
static void ask_for_rows(Lower *l, const LMatrix *a, const LExpr *rows, int64_t columns) {
    LoopKernel *k = l->k;
    LStmt *m = ls_for(k, l->block, rows, "m");
    const LExpr *next = li_add(k, li_add(k, a->offset, le_int(k, columns)), li_mul(k, le_var(k, m->var), a->ld));
    for (int64_t at = 0; at < columns; at += LINE)
        ls_prefetch(k, &m->body, a->buf, li_add(k, next, le_int(k, at)));
}

/* The left operand of a transposed product as panels of rows, [rows / 32, its columns in whole panels, 32], zeros where there
 * is nothing: rows are lanes then, and the weight, read as it lies, is the routine's left operand. */
static bool pack_left(Lower *l, ValueId v, const Panels *p, const View *a) {
    LoopKernel *k = l->k;
    int64_t bands = (l->tile_max + PANEL_COLUMNS - 1) / PANEL_COLUMNS, depth = p->panels * p->width, columns;
    if (l->left[v])
        return true;
    if (!dim_is_const(l->t, lower_dim(l, v, 1), &columns))
        BUG("columns of a left operand are not constant");
    const LBuf *b = loop_scratch(k, DT_F32, bands * PANEL_COLUMNS * depth * 4, str_c("lanes"));
    if (!b)
        return diag_error(l->d, DIAG_SHAPE_SIZE, NULL, "the rows of a product are too large");
    const LExpr *block;
    LStmt *phase = lower_blocks(l, le_int(k, p->panels), &block);
    has_columns(l, phase, a, p->width);
    l->block = &phase->body;
    Band band = open_band(l, true);
    const LExpr *column = li_mul(k, block, le_int(k, p->width)), *some = le_int(k, p->width);
    if (columns < depth)
        some = le_var(k, ls_let(k, l->block, DT_I64, li_min(k, some, li_sub(k, le_int(k, columns), column)), "some"));
    const LExpr *to = li_add(k, li_mul(k, band.first, le_int(k, depth)), li_mul(k, column, le_int(k, PANEL_COLUMNS)));
    to = le_var(k, ls_let(k, l->block, DT_I64, to, "to"));
    const LExpr *corner[2] = {band.first, column};
    LMatrix rows = {a->buf, view_index(l, a, corner), le_dim(k, a->stride[0]), false}, lanes = {b, to, le_int(k, PANEL_COLUMNS), false};
    ask_for_rows(l, &rows, band.count, p->width);
    lower_turn(l, &rows, &lanes, band.count, some);
    clear_lanes(l, b, to, le_int(k, 0), some, band.count);
    if (columns < depth)
        clear_lanes(l, b, to, some, le_int(k, p->width), le_int(k, 0));
    l->block = lower_serial(l);
    l->left[v] = b;
    return true;
}

/* Columns of a sink that are computed together. Where it has one axis they may be those of several panels: few rows go down
 * these side by side, more take them one by one. */
typedef struct Columns {
    const LExpr *block, *first, *count; /* first, count: in whole panels */
    const LExpr *panels;                /* of PANEL_COLUMNS */
    int64_t most;
} Columns;

enum {
    STREAM_ROWS = 2,
    STREAM_STRIDE = PANEL_STREAMS * PANEL_COLUMNS + 16 /* of a tile: no power of two, whose lines would share places in a cache */
};

/* C^T[columns, rows] = W^T's rows by the rows as lanes. */
static void multiply_transposed(Lower *l, const Source *s, const Band *band, const PanelRows *w, const LExpr *columns, int64_t width) {
    LoopKernel *k = l->k;
    const Panels *p = &s->p;
    int64_t depth = p->panels * p->width;
    Left left = p->width == PANEL_NARROW ? LEFT_NARROW : LEFT_PANELS;
    const LRoutine *r = panel_routine(l->o->routines, (PanelProduct){PANEL_COLUMNS, left, WEIGHT_F32, false, 0});
    const LArg arg[] = {
        {w->buf, w->offset},
        {l->left[value_node(l->f, s->v)->in[0]], li_mul(k, band->first, le_int(k, depth))},
        {s->lanes, le_int(k, 0)},
        {NULL, columns},
        {NULL, le_int(k, p->panels)},
        {NULL, w->apart},
        {NULL, le_int(k, PANEL_COLUMNS)},
        {NULL, le_int(k, 0)},
        {NULL, le_int(k, 1)},
    };
    ls_call(k, l->block, r, arg);
    LMatrix lines = lower_lines(l, s->lanes, le_int(k, 0)), tile = {s->tile, le_int(k, 0), le_int(k, width), false};
    lower_turn(l, &lines, &tile, columns, le_int(k, PANEL_COLUMNS));
}

static void multiply_panels(Lower *l, const Source *s, const Columns *c, const Band *band, int64_t stride) {
    LoopKernel *k = l->k;
    const LExpr *a = li_add(k, s->a.offset, li_mul(k, band->first, le_dim(k, s->a.stride[0])));
    int64_t in_block = c->most / s->p.width < s->p.panels ? c->most / s->p.width : s->p.panels;
    const LExpr *panel = li_mul(k, c->block, le_int(k, in_block)), *count = le_int(k, in_block);
    if (c->panels && s->p.width == PANEL_COLUMNS) {
        panel = li_div(k, c->first, le_int(k, PANEL_COLUMNS));
        count = c->panels;
    }
    panel = li_add(k, panel, le_int(k, s->first / s->p.width));
    if (s->p.batch > 1) { /* whole blocks to a batch: panels count on, and so does the left operand's axis */
        int axis = batch_axis(l, value_node(l->f, s->v), s->p.batch);
        const LExpr *h = li_div(k, panel, le_int(k, s->p.panels));
        if (axis)
            a = li_add(k, a, li_mul(k, h, le_dim(k, s->a.stride[axis])));
    }
    LMatrix from = {s->a.buf, a, le_dim(k, s->a.stride[0]), false}, to = {s->tile, le_int(k, 0), le_int(k, stride), false};
    panel_multiply(l, &s->p, &from, band->first, panel, count, &to, band->count, false);
}

/* A block of a source's columns, of a band of rows, into its tile, which is the source's storage as long as they last. */
static void open_source(Lower *l, Source *s, const Columns *c, const Band *band, int64_t stride) {
    LoopKernel *k = l->k;
    const LExpr *column = li_add(k, c->first, le_int(k, s->at_first));
    View *w = &l->view[s->at];
    *w = lower_contiguous(l, s->at, s->tile, le_int(k, 0));
    uint32_t line = k->line;
    if (l->o->node_line)
        k->line = l->o->node_line[value_node(l->f, s->v) - l->f->node];
    if (s->p.transposed)
        multiply_transposed(l, s, band, &s->rows, s->columns, stride);
    else
        multiply_panels(l, s, c, band, stride);
    k->line = line;
    w->stride[0] = dim_const(l->t, stride);
    w->origin = li_add(k, li_mul(k, band->first, le_int(k, stride)), column);
}

/* The weight's rows that a transposed source reads for these columns. */
static void open_rows(Lower *l, Source *s, const Columns *c) {
    LoopKernel *k = l->k;
    const LExpr *first = li_add(k, c->first, le_int(k, s->first));
    s->columns = le_int(k, c->most);
    if (s->p.columns % c->most)
        s->columns = le_var(k, ls_let(k, l->block, DT_I64, li_min(k, s->columns, li_sub(k, le_int(k, s->p.columns), first)), "columns"));
    s->rows = panel_rows(l, &s->p, first, s->columns, c->most);
}

/* ---- what the next block reads is asked for ---- */

static bool reads_var(const LExpr *e, uint32_t var) {
    return e && ((e->kind == LE_VAR && e->var == var) || reads_var(e->a, var) || reads_var(e->b, var) || reads_var(e->c, var));
}

static bool is_asked_for(const LBlock *b, const LBuf *buf, const LExpr *index) {
    for (const LStmt *s = b->first; s; s = s->next)
        if (s->kind == LS_PREFETCH && s->buf == buf && loop_same_expr(s->index, index))
            return true;
    return false;
}

/* Asks for what e loads of row `row`, but for what products leave in their tiles. */
static void ask_for_loads(Lower *l, const LExpr *e, uint32_t row, const Source *s, uint32_t n) {
    bool tile = false;
    if (!e)
        return;
    for (uint32_t i = 0; i < n; i++)
        tile = tile || e->buf == s[i].tile;
    if (e->kind == LE_LOAD && !tile && e->type == DT_F32 && reads_var(e->a, row) && !is_asked_for(l->block, e->buf, e->a))
        ls_prefetch(l->k, l->block, e->buf, e->a);
    ask_for_loads(l, e->a, row, s, n);
    ask_for_loads(l, e->b, row, s, n);
    ask_for_loads(l, e->c, row, s, n);
}

/* The position in v of column `at` of a block. */
static void block_position(Lower *l, ValueId v, const LExpr *block, const LExpr *first, const LExpr *at, const LExpr **idx) {
    bool heads = lower_rank(l, v) == 3;
    idx[1] = heads ? block : li_add(l->k, first, at);
    idx[2] = heads ? at : NULL;
}

/* In front of a row's elements: asks for the lines that those of the next block read and are stored to. A block has a line or two
 * of each row, far apart: the processor foresees none of them, and what is asked for all at once it drops. */
static void ask_for_next(Lower *l, ValueId v, const View *to, const Columns *c, const LExpr **idx, uint32_t row, const Source *s,
                         uint32_t n) {
    LoopKernel *k = l->k;
    const LExpr *block = li_add(k, c->block, le_int(k, 1)), *first = li_add(k, c->first, le_int(k, c->most));
    for (int64_t at = 0; at < c->most; at += LINE) {
        LStmt *seen = l->block->last;
        block_position(l, v, block, first, le_int(k, at), idx);
        const LExpr *e = lower_pull(l, v, idx);
        for (LStmt *let = seen ? seen->next : l->block->first; let && let->kind == LS_LET; let = let->next)
            ask_for_loads(l, let->a, row, s, n);
        ask_for_loads(l, e, row, s, n);
        if (to->buf->dtype == DT_F32)
            ls_prefetch(k, l->block, to->buf, view_index(l, to, idx));
    }
}

/* The loop over a block's elements. */
static void store_block(Lower *l, ValueId v, const View *to, const Columns *c, const Band *band, const Source *s, uint32_t n, bool add) {
    LoopKernel *k = l->k;
    const LExpr *idx[MOEC_MAX_RANK];
    LStmt *i = ls_for(k, l->block, band->count, "m");
    idx[0] = li_add(k, band->first, le_var(k, i->var));
    l->block = &i->body;
    ask_for_next(l, v, to, c, idx, i->var, s, n);
    LStmt *j = ls_lanes(k, l->block, c->count, "j");
    block_position(l, v, c->block, c->first, le_var(k, j->var), idx);
    l->block = &j->body;
    const LExpr *e = lower_pull(l, v, idx), *at = view_index(l, to, idx);
    ls_store(k, l->block, to->buf, at, add ? le_op2(k, LO_ADD, e->type, le_load(k, to->buf, at), e) : e);
}

/* The blocks of a sink of several axes, or by panels that stay alone. */
static Columns open_blocks(Lower *l, ValueId v, const View *to, int64_t width) {
    LoopKernel *k = l->k;
    int64_t n = inner_count(l, v);
    Columns c = {.most = width, .count = le_int(k, width)};
    LStmt *phase = lower_blocks(l, le_int(k, (n + width - 1) / width), &c.block);
    has_columns(l, phase, to, width);
    l->block = &phase->body;
    c.first = li_mul(k, c.block, c.count);
    if (lower_rank(l, v) == 2 && n % width)
        c.count = li_min(k, c.count, li_sub(k, le_int(k, n), c.first));
    return c;
}

/* Blocks of several panels: all of them at once, or one by one. */
static Columns open_streams(Lower *l, ValueId v) {
    LoopKernel *k = l->k;
    const LExpr *wide = le_int(k, PANEL_COLUMNS), *all = le_int(k, PANEL_STREAMS);
    int64_t n = inner_count(l, v), panels = (n + PANEL_COLUMNS - 1) / PANEL_COLUMNS;
    Columns c = {.most = PANEL_COLUMNS};
    l->block = &lower_blocks(l, le_int(k, (panels + PANEL_STREAMS - 1) / PANEL_STREAMS), &c.block)->body;
    const LExpr *panel = li_mul(k, c.block, all), *left = li_min(k, all, li_sub(k, le_int(k, panels), panel));
    const LExpr *few = le_op2(k, LO_LE, DT_BOOL, l->tile, le_int(k, STREAM_ROWS)), *one = le_int(k, 1);
    left = le_var(k, ls_let(k, l->block, DT_I64, left, "panels"));
    c.panels = le_var(k, ls_let(k, l->block, DT_I64, le_select(k, few, left, one), "together"));
    LStmt *s = ls_for(k, l->block, le_select(k, few, one, left), "part");
    l->block = &s->body;
    c.first = li_mul(k, li_add(k, panel, le_var(k, s->var)), wide);
    c.first = le_var(k, ls_let(k, l->block, DT_I64, c.first, "first"));
    c.count = li_min(k, li_mul(k, c.panels, wide), li_sub(k, le_int(k, n), c.first));
    return c;
}

static bool may_stream(const Lower *l, ValueId v, const Source *s, uint32_t n) {
    bool may = lower_rank(l, v) == 2;
    for (uint32_t i = 0; may && i < n; i++)
        may = !s[i].p.transposed && s[i].p.batch == 1;
    return may;
}

static bool store_streams(Lower *l, ValueId v, const View *to, bool accumulate) {
    LoopKernel *k = l->k;
    Source *s = arena_array(k->arena, find_sources(l, v, 0, NULL, 0), sizeof *s);
    uint32_t n = find_sources(l, v, 0, s, 0);
    bool lanes = false, several = may_stream(l, v, s, n);
    int64_t width = block_width(l, v), stride = several ? STREAM_STRIDE : width;
    if (!accumulate)
        tell_streamed(l, v, s, n, width);
    for (uint32_t i = 0; i < n; i++) {
        const Panels *p = &s[i].p;
        if (!left_operand(l, p->left, &s[i].a) || !panel_left_words(l, p, &s[i].a) ||
            (p->transposed && !pack_left(l, p->left, p, &s[i].a)))
            return false;
        lanes = lanes || p->transposed;
    }
    Columns c = several ? open_streams(l, v) : open_blocks(l, v, to, width);
    for (uint32_t i = 0; i < n; i++) {
        s[i].tile = panel_scratch(l, lanes ? PANEL_COLUMNS : l->tile_max, stride);
        if (s[i].p.transposed) {
            s[i].lanes = panel_scratch(l, PANEL_COLUMNS, width);
            open_rows(l, &s[i], &c);
        }
    }
    View *views = arena_array(k->arena, l->f->n_values, sizeof *views); /* those of tiles end with the block */
    memcpy(views, l->view, l->f->n_values * sizeof *views);
    Band band = open_band(l, lanes);
    for (uint32_t i = 0; i < n; i++)
        open_source(l, &s[i], &c, &band, stride);
    store_block(l, v, to, &c, &band, s, n, accumulate);
    memcpy(l->view, views, l->f->n_values * sizeof *views);
    l->block = lower_serial(l);
    return true;
}

bool lower_streams(Lower *l, ValueId v, const View *to) {
    return store_streams(l, v, to, false);
}
