/* `gradient` in the interpreter: central differences, one element after another. Slow, and independent of every rule of
 * `grad`, which it is there to check. */
#include "interp.h"

#include <math.h>
#include <string.h>

/* Where truncation, which grows with h^2, and rounding, which grows with 1/h, are both small. */
static double step_size(DType t, double x) {
    return (t == DT_F64 ? 1e-4 : 1e-2) * fmax(1, fabs(x));
}

bool interp_gradient(Step *s) {
    ValueId loss = s->n->in[0], of = s->n->in[1];
    const Tensor *x = step_in(s, 1);
    int64_t count;
    size_t bytes;
    Tensor *out = step_out(s, 0, x->dtype, x->rank, x->dim);
    if (!out || !tensor_count(x, &count) || !tensor_bytes(x, &bytes))
        return false;
    Tensor moved = *x;
    moved.data = mem_alloc(bytes ? bytes : 1);
    if (bytes)
        memcpy(moved.data, x->data, bytes);
    bool ok = true;
    for (int64_t i = 0; ok && i < count; i++) {
        double at = tensor_get_f64(x, i), h = step_size(x->dtype, at), up = 0, down = 0;
        tensor_set_f64(&moved, i, at + h);
        double above = tensor_get_f64(&moved, i);
        ok = step_probe(s, loss, of, &moved, &up);
        tensor_set_f64(&moved, i, at - h);
        double below = tensor_get_f64(&moved, i);
        ok = ok && step_probe(s, loss, of, &moved, &down);
        tensor_set_f64(&moved, i, at);
        tensor_set_f64(out, i, (up - down) / (above - below));
    }
    mem_free(moved.data);
    return ok;
}
