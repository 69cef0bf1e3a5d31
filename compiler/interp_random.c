/* Numbers made from a counter: random, split_seed; and the places of such numbers outside training. */
#include "interp.h"
#include "random.h"

bool interp_random(Step *s) {
    int rank;
    int64_t dim[MOEC_MAX_RANK];
    if (!step_extents(s, 0, &rank, dim))
        return false;
    Tensor *out = step_out(s, 0, DT_F32, rank, dim);
    if (!out)
        return false;
    int64_t seed = tensor_get_i64(step_in(s, 0), 0), count = extents_count(dim, 0, rank);
    float *p = out->data;
    for (int64_t i = 0; i < count; i++)
        p[i] = uniform_f32(seed, i);
    return true;
}

bool interp_split_seed(Step *s) {
    int64_t seed = tensor_get_i64(step_in(s, 0), 0);
    for (uint32_t i = 0; i < s->n->n_out; i++) {
        Tensor *out = step_out(s, i, DT_I64, 0, NULL);
        if (!out)
            return false;
        tensor_set_i64(out, 0, split_seed_i64(seed, i));
    }
    return true;
}

bool interp_identity(Step *s) {
    const Tensor *a = step_in(s, 0);
    return step_alias(s, 0, 0, a->rank, a->dim);
}
