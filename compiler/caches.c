/* Which appends are caches. The result of one lives in its operand's storage, whose rows lie further apart than its extents
 * say: only the caller, who is told, and the attention of the same kernel know how to read it. So the operand has to be an
 * input that nothing else reads, the result an output, and attention, perhaps through views, its only other reader. Any
 * other append becomes the concatenation it equals. */
#include "fuse_impl.h"

static uint32_t times_output(const Func *f, ValueId v) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_outputs; i++) n += f->output[i] == v;
    return n;
}

static bool is_view(const Node *n) {
    return n->op == OP_reshape || n->op == OP_transpose || n->op == OP_slice;
}

/* Every reader of v in the function is attention. Views nest a handful deep. */
static bool attention_only(const Func *f, ValueId v) {
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        const Node *n = &f->node[i];
        for (uint32_t k = 0; k < n->n_in; k++) {
            if (n->in[k] != v || n->op == OP_attention) continue;
            if (!is_view(n) || times_output(f, n->out) || !attention_only(f, n->out)) return false;
        }
    }
    return true;
}

static bool is_cache(const Func *f, const Node *n, const uint32_t *uses) {
    return f->value[n->in[0]].kind == VK_INPUT && uses[n->in[0]] == 1 && n->in[1] != n->in[0] && times_output(f, n->out) == 1 &&
           attention_only(f, n->out);
}

void keep_caches(Module *m, Func *f) {
    Arena *scratch = arena_new();
    const uint32_t *uses = func_uses(scratch, f);
    bool *other = arena_array(scratch, f->n_nodes + 1, sizeof *other), any = false;
    for (uint32_t i = 0; i < f->n_nodes; i++) {
        other[i] = f->node[i].op == OP_append && !is_cache(f, &f->node[i], uses);
        any = any || other[i];
    }
    if (any) {
        Remap r = remap_begin(m, scratch, f);
        for (uint32_t i = 0; i < f->n_nodes; i++) {
            Node n = f->node[i];
            if (other[i]) n.op = OP_concat;
            remap_node(&r, &n);
        }
        remap_end(&r);
    }
    arena_free(scratch);
}
