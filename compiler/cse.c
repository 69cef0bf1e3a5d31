/* Pass `cse`: value numbering inside each function. Two nodes with the same op, operands, attributes and
 * result types become the first of them; nodes nobody uses are dropped by func_end. Ops have no effects, so
 * this is always right. */
#include "pass.h"
#include "remark.h"

#include <string.h>

typedef struct Seen {
    uint64_t hash;
    NodeId node; /* in the new function; NONE: a free slot */
} Seen;

typedef struct Table {
    Seen *slot;
    size_t room; /* a power of two */
} Table;

static uint64_t hash_attr(uint64_t h, const Attr *a) {
    size_t bytes = 0;
    h = hash_bytes(h, &a->key, sizeof a->key);
    switch (attr_kind(a->key)) {
    case AK_INT:
    case AK_DTYPE:
    case AK_FUNC:
        return hash_bytes(h, &a->i, sizeof a->i);
    case AK_FLOAT:
        return hash_bytes(h, &a->f, sizeof a->f);
    case AK_DIM:
        return hash_bytes(h, &a->d, sizeof a->d);
    case AK_STR:
        return hash_bytes(h, a->s.p, a->s.n);
    case AK_INTS:
        return hash_bytes(h, a->ints.v, a->ints.n * sizeof *a->ints.v);
    case AK_DIMS:
        return hash_bytes(h, a->dims.v, a->dims.n * sizeof *a->dims.v);
    case AK_TENSOR:
        tensor_bytes(&a->t, &bytes);
        h = hash_bytes(h, &a->t.dtype, sizeof a->t.dtype);
        h = hash_bytes(h, a->t.dim, (size_t)a->t.rank * sizeof a->t.dim[0]);
        return hash_bytes(h, a->t.data, bytes);
    }
    return h;
}

static bool attr_eq(const Attr *a, const Attr *b) {
    size_t x = 0, y = 0;
    if (a->key != b->key)
        return false;
    switch (attr_kind(a->key)) {
    case AK_INT:
    case AK_DTYPE:
    case AK_FUNC:
        return a->i == b->i;
    case AK_FLOAT:
        return memcmp(&a->f, &b->f, sizeof a->f) == 0;
    case AK_DIM:
        return a->d == b->d;
    case AK_STR:
        return str_eq(a->s, b->s);
    case AK_INTS:
        return a->ints.n == b->ints.n && !memcmp(a->ints.v, b->ints.v, a->ints.n * sizeof *a->ints.v);
    case AK_DIMS:
        return a->dims.n == b->dims.n && !memcmp(a->dims.v, b->dims.v, a->dims.n * sizeof *a->dims.v);
    case AK_TENSOR:
        return a->t.dtype == b->t.dtype && a->t.rank == b->t.rank &&
               !memcmp(a->t.dim, b->t.dim, (size_t)a->t.rank * sizeof a->t.dim[0]) &&
               tensor_bytes(&a->t, &x) && tensor_bytes(&b->t, &y) && x == y &&
               (x == 0 || !memcmp(a->t.data, b->t.data, x));
    }
    return false;
}

/* n as it would stand in the new function: operands mapped. */
static uint64_t hash_node(Remap *r, const Node *n, ValueId *in) {
    uint64_t h = hash_bytes(0, &n->op, sizeof n->op);
    for (uint32_t i = 0; i < n->n_in; i++)
        in[i] = remap_value(r, n->in[i]);
    h = hash_bytes(h, in, n->n_in * sizeof *in);
    for (uint32_t i = 0; i < n->n_attrs; i++)
        h = hash_attr(h, &n->attrs[i]);
    for (uint32_t i = 0; i < n->n_out; i++) {
        const Type *t = &r->old->value[n->out + i].type;
        h = hash_bytes(h, &t->dtype, sizeof t->dtype);
        h = hash_bytes(h, t->dim, (t->rank > 0 ? (size_t)t->rank : 0) * sizeof t->dim[0]);
    }
    return h;
}

static bool node_eq(Remap *r, const Node *n, const ValueId *in, const Node *now) {
    if (n->op != now->op || n->n_in != now->n_in || n->n_out != now->n_out || n->n_attrs != now->n_attrs ||
        (n->n_in && memcmp(in, now->in, n->n_in * sizeof *in)))
        return false;
    for (uint32_t i = 0; i < n->n_attrs; i++)
        if (!attr_eq(&n->attrs[i], &now->attrs[i]))
            return false;
    for (uint32_t i = 0; i < n->n_out; i++)
        if (!type_eq(&r->old->value[n->out + i].type, &r->f->value[now->out + i].type))
            return false;
    return true;
}

static void cse_func(Module *m, const Func *old) {
    Arena *scratch = arena_new();
    Remap r = remap_begin(m, scratch, old);
    Table t = {.room = 16};
    uint32_t widest = 1;
    for (uint32_t i = 0; i < old->n_nodes; i++)
        widest = old->node[i].n_in > widest ? old->node[i].n_in : widest;
    while (t.room < 2 * (size_t)old->n_nodes)
        t.room *= 2;
    t.slot = arena_array(scratch, t.room, sizeof *t.slot);
    for (size_t i = 0; i < t.room; i++)
        t.slot[i].node = NONE;
    ValueId *in = arena_array(scratch, widest, sizeof *in);

    for (uint32_t i = 0; i < old->n_nodes; i++) {
        const Node *n = &old->node[i];
        uint64_t h = hash_node(&r, n, in);
        size_t at = h & (t.room - 1);
        while (t.slot[at].node != NONE &&
               (t.slot[at].hash != h || !node_eq(&r, n, in, &r.f->node[t.slot[at].node])))
            at = (at + 1) & (t.room - 1);
        if (t.slot[at].node == NONE) {
            t.slot[at] = (Seen){h, r.f->n_nodes};
            remap_node(&r, n);
            continue;
        }
        const Node *same = &r.f->node[t.slot[at].node];
        if (old->role == FR_ENTRY && op_info(n->op)->klass != OC_SOURCE && op_info(n->op)->klass != OC_MOVE) {
            Str place = node_place(same);
            remark(m, R_equal, old, n, "%s: the same as \"%.*s\", computed once", op_info(n->op)->name,
                   (int)place.n, place.p);
        }
        for (uint32_t k = 0; k < n->n_out; k++)
            remap_set(&r, n->out + k, same->out + k);
    }
    remap_end(&r);
    arena_free(scratch);
}

bool pass_cse(Module *m, const PassOptions *o, Diag *d) {
    (void)o;
    (void)d;
    for (FuncId i = 0; i < m->n_funcs; i++)
        if (m->func[i])
            cse_func(m, m->func[i]);
    return true;
}
