/* match and derive on small hand-written graphs: the interpreter's results are the same before and after, and
 * the nodes are those of the normal form. Every way of spelling masks and distances gets its own case. */
#include "compiler/pass.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { D = 6, H = 2, W = 4 };

static const char HEAD[] =
    "sym B = 1..4\nsym S = 1..9\nsym T = 1..9\n"
    "param @table : f32[5,2] frozen = [0.5, -1, 0.25, 2, 1.5, -0.75, 0.125, 1, -2, 3]\n";

static Module *parse(const char *text) {
    Diag *d = diag_new();
    Module *m = module_parse(d, "test", text, strlen(text));
    diag_flush(d);
    assert_non_null(m);
    assert_true(module_verify(m, d, true));
    diag_free(d);
    return m;
}

static uint32_t count_op(const Func *f, Op op) {
    uint32_t n = 0;
    for (NodeId i = 0; i < f->n_nodes; i++)
        n += f->node[i].op == op;
    return n;
}

static const Node *find_op(const Func *f, Op op) {
    for (NodeId i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == op)
            return &f->node[i];
    fail_msg("no %s", op_info(op)->name);
    return NULL;
}

static void fill(Tensor *t, unsigned seed) {
    int64_t n;
    assert_true(tensor_count(t, &n));
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1103515245u + 12345u;
        double v = (double)(seed >> 16 & 1023) / 512 - 1;
        if (dtype_is_float(t->dtype))
            tensor_set_f64(t, i, v);
        else
            tensor_set_i64(t, i, i % 4 != 2);
    }
}

/* Results of every function of both modules, function i of one against function i of the other. */
static void same_results(Module *before, Module *after, const char *name) {
    Arena *a = arena_new();
    Diag *d = diag_new();
    Func *f = module_find(before, name), *g = module_find(after, name);
    assert_non_null(f);
    assert_non_null(g);
    int64_t syms[8] = {3, 7, 7, 7, 7, 7, 7, 7};
    Tensor in[8] = {{0}}, x[4] = {{0}}, y[4] = {{0}};
    for (uint32_t i = 0; i < f->n_inputs; i++) {
        const Type *t = &f->value[f->input[i]].type;
        in[i].dtype = t->dtype;
        in[i].rank = t->rank;
        for (int k = 0; k < t->rank; k++)
            assert_true(dim_eval(before->dims, t->dim[k], syms, &in[i].dim[k]));
        assert_true(tensor_alloc(a, &in[i]));
        fill(&in[i], i + 1);
    }
    assert_true(func_eval(before, f->id, syms, in, x, a, d));
    assert_true(func_eval(after, g->id, syms, in, y, a, d));
    for (uint32_t k = 0; k < f->n_outputs; k++) {
        int64_t n = 0, m = 0;
        assert_true(tensor_count(&x[k], &n) && tensor_count(&y[k], &m));
        assert_int_equal(n, m);
        for (int64_t i = 0; i < n; i++)
            if (!(fabs(tensor_get_f64(&x[k], i) - tensor_get_f64(&y[k], i)) < 1e-5))
                fail_msg("%s: element %d: %g, then %g", name, (int)i, tensor_get_f64(&x[k], i),
                         tensor_get_f64(&y[k], i));
    }
    diag_flush(d);
    diag_free(d);
    arena_free(a);
}

static Module *matched(const char *text) {
    Module *m = parse(text);
    Diag *d = diag_new();
    PassOptions o = {0};
    bool ok = pass_match(m, &o, d);
    diag_flush(d);
    assert_true(ok);
    assert_true(module_verify(m, d, true));
    diag_flush(d);
    diag_free(d);
    return m;
}

/* ---- local patterns
 * ---------------------------------------------------------------------------------------- */

static void check_local(const char *body, Op op, uint32_t times) {
    char text[4096];
    snprintf(text, sizeof text,
             "%sparam @g : f32[6] frozen = [1, 2, 0.5, -1, 3, 1.5]\n"
             "func @main entry (%%x : f32[B,S,6]) {\n%s}\n",
             HEAD, body);
    Module *a = parse(text), *b = matched(text);
    assert_int_equal(count_op(module_find(b, "main"), op), times);
    same_results(a, b, "main");
    module_free(a);
    module_free(b);
}

static void test_rms_norm(void **state) {
    (void)state;
    check_local(
        "  %two = const {value = f32[] [2]} : f32[]\n  %e = const {value = f32[] [0.001]} : f32[]\n"
        "  %p = pow %x, %two : f32[B,S,6]\n  %m = reduce_mean %p {axes = [2], keep = 1} : f32[B,S,1]\n"
        "  %s = add %m, %e : f32[B,S,1]\n  %r = rsqrt %s : f32[B,S,1]\n  %y = mul %x, %r : f32[B,S,6]\n"
        "  %z = mul @g, %y : f32[B,S,6]\n  return %z \"y\"\n",
        OP_rms_norm, 1);
    check_local(
        "  %one = const {value = f32[] [1]} : f32[]\n  %e = const {value = f32[] [0.001]} : f32[]\n"
        "  %p = mul %x, %x : f32[B,S,6]\n  %m = reduce_mean %p {axes = [2], keep = 1} : f32[B,S,1]\n"
        "  %s = add %e, %m : f32[B,S,1]\n  %q = sqrt %s : f32[B,S,1]\n  %r = div %one, %q : f32[B,S,1]\n"
        "  %y = mul %r, %x : f32[B,S,6]\n  %z = mul %y, @g : f32[B,S,6]\n  return %z \"y\"\n",
        OP_rms_norm, 0);
    check_local(
        "  %e = const {value = f32[] [0.001]} : f32[]\n"
        "  %p = mul %x, %x : f32[B,S,6]\n  %m = reduce_mean %p {axes = [2], keep = 1} : f32[B,S,1]\n"
        "  %s = add %e, %m : f32[B,S,1]\n  %q = sqrt %s : f32[B,S,1]\n  %y = div %x, %q : f32[B,S,6]\n"
        "  %z = mul %y, @g : f32[B,S,6]\n  return %z \"y\"\n",
        OP_rms_norm, 1);
    check_local(
        "  %e = const {value = f32[] [0.001]} : f32[]\n"
        "  %p = mul %x, %x : f32[B,S,6]\n  %m = reduce_mean %p {axes = [2], keep = 1} : f32[B,S,1]\n"
        "  %s = add %e, %m : f32[B,S,1]\n  %q = rsqrt %s : f32[B,S,1]\n  %y = mul %x, %q : f32[B,S,6]\n"
        "  return %y \"y\"\n",
        OP_rms_factor, 1);
    /* the mean over another axis is another function */
    check_local(
        "  %e = const {value = f32[] [0.001]} : f32[]\n"
        "  %p = mul %x, %x : f32[B,S,6]\n  %m = reduce_mean %p {axes = [1], keep = 1} : f32[B,1,6]\n"
        "  %s = add %e, %m : f32[B,1,6]\n  %q = rsqrt %s : f32[B,1,6]\n  %y = mul %x, %q : f32[B,S,6]\n"
        "  %z = mul %y, @g : f32[B,S,6]\n  return %z \"y\"\n",
        OP_rms_norm, 0);
}

static void test_gelu(void **state) {
    (void)state;
#define GELU_CONSTS                                                                                          \
    "  %h = const {value = f32[] [0.5]} : f32[]\n  %three = const {value = f32[] [3]} : f32[]\n  %one = "    \
    "const {value = f32[] [1]} : f32[]\n"                                                                    \
    "  %a = const {value = f32[] [0.0447149985]} : f32[]\n  %c = const {value = f32[] [0.797884583]} : "     \
    "f32[]\n"
    check_local(
        GELU_CONSTS
        "  %x2 = mul %x, %h : f32[B,S,6]\n  %p = pow %x, %three : f32[B,S,6]\n"
        "  %q = mul %p, %a : f32[B,S,6]\n  %s = add %x, %q : f32[B,S,6]\n  %u = mul %s, %c : f32[B,S,6]\n"
        "  %t = tanh %u : f32[B,S,6]\n  %w = add %t, %one : f32[B,S,6]\n  %y = mul %x2, %w : f32[B,S,6]\n"
        "  return %y \"y\"\n",
        OP_gelu, 1);
    check_local(
        GELU_CONSTS
        "  %xx = mul %x, %x : f32[B,S,6]\n  %p = mul %xx, %x : f32[B,S,6]\n"
        "  %q = mul %a, %p : f32[B,S,6]\n  %s = add %q, %x : f32[B,S,6]\n  %u = mul %c, %s : f32[B,S,6]\n"
        "  %t = tanh %u : f32[B,S,6]\n  %w = add %one, %t : f32[B,S,6]\n  %v = mul %x, %w : f32[B,S,6]\n"
        "  %y = mul %h, %v : f32[B,S,6]\n  return %y \"y\"\n",
        OP_gelu, 1);
    /* another constant is another function */
    check_local(
        GELU_CONSTS
        "  %x2 = mul %x, %h : f32[B,S,6]\n  %p = pow %x, %three : f32[B,S,6]\n"
        "  %q = mul %p, %c : f32[B,S,6]\n  %s = add %x, %q : f32[B,S,6]\n  %u = mul %s, %c : f32[B,S,6]\n"
        "  %t = tanh %u : f32[B,S,6]\n  %w = add %t, %one : f32[B,S,6]\n  %y = mul %x2, %w : f32[B,S,6]\n"
        "  return %y \"y\"\n",
        OP_gelu, 0);
}

/* ---- attention
 * ------------------------------------------------------------------------------------------------ */

/* Self attention on x [B,S,8], two heads, with `added` defining %add : f32[B or 1, 2 or 1, S, S]. */
static char *attention_text(const char *added) {
    char *text = malloc(16384);
    snprintf(
        text, 16384,
        "%sfunc @main entry (%%q : f32[B,S,8], %%k : f32[B,S,8], %%v : f32[B,S,8], %%mask : i64[B,S]) {\n"
        "  %%q4 = reshape %%q : f32[B,S,2,4]\n  %%qt = transpose %%q4 {perm = [0, 2, 1, 3]} : f32[B,2,S,4]\n"
        "  %%k4 = reshape %%k : f32[B,S,2,4]\n  %%kt = transpose %%k4 {perm = [0, 2, 3, 1]} : f32[B,2,4,S]\n"
        "  %%v4 = reshape %%v : f32[B,S,2,4]\n  %%vt = transpose %%v4 {perm = [0, 2, 1, 3]} : f32[B,2,S,4]\n"
        "  %%p = matmul %%qt, %%kt : f32[B,2,S,S]\n"
        "  %%min = const {value = f32[] [-3.4028234663852886e+38]} : f32[]\n  %%f0 = const {value = f32[] "
        "[0]} : f32[]\n"
        "  %%f1 = const {value = f32[] [1]} : f32[]\n  %%i0 = const {value = i64[] [0]} : i64[]\n"
        "  %%ci = iota {axis = 0} : i64[S,1]\n  %%cj = iota {axis = 1} : i64[1,S]\n"
        "%s"
        "  %%s = add %%p, %%add : f32[B,2,S,S]\n  %%w = softmax %%s {axis = 3} : f32[B,2,S,S]\n"
        "  %%o = matmul %%w, %%vt : f32[B,2,S,4]\n  %%ot = transpose %%o {perm = [0, 2, 1, 3]} : "
        "f32[B,S,2,4]\n"
        "  %%y = reshape %%ot : f32[B,S,8]\n  return %%y \"y\"\n}\n",
        HEAD, added);
    return text;
}

static const Node *check_attention(const char *added, bool found, bool bias, bool keep, int64_t causal) {
    char *text = attention_text(added);
    Module *a = parse(text), *b = matched(text);
    Func *f = module_find(b, "main");
    assert_int_equal(count_op(f, OP_attention), found);
    assert_int_equal(count_op(f, OP_softmax), !found);
    if (found) {
        const Node *n = find_op(f, OP_attention);
        assert_int_equal(n->n_in > 3 && n->in[3] != NONE, bias);
        assert_int_equal(n->n_in > 4 && n->in[4] != NONE, keep);
        assert_int_equal(node_int(n, AT_causal, 0), causal);
    }
    same_results(a, b, "main");
    module_free(a);
    module_free(b);
    free(text);
    return NULL;
}

/* bucket = min(|j - i|, 2) + 2 * (j > i), looked up in the table; the row is f32[2,5] */
#define BIAS                                                                                                 \
    "  %dist = sub %cj, %ci : i64[S,S]\n  %far = abs %dist : i64[S,S]\n  %two = const {value = i64[] [2]} "  \
    ": i64[]\n"                                                                                              \
    "  %near = min %far, %two : i64[S,S]\n  %right = gt %dist, %i0 : bool[S,S]\n  %ri = cast %right {to = "  \
    "i64} : i64[S,S]\n"                                                                                      \
    "  %r2 = mul %ri, %two : i64[S,S]\n  %bucket = add %near, %r2 : i64[S,S]\n"                              \
    "  %looked = gather @table, %bucket {axis = 0} : f32[S,S,2]\n"                                           \
    "  %heads = transpose %looked {perm = [2, 0, 1]} : f32[2,S,S]\n  %bias = reshape %heads : "              \
    "f32[1,2,S,S]\n"
#define KEYMASK                                                                                              \
    "  %m4 = reshape %mask : i64[B,1,1,S]\n  %mf = cast %m4 {to = f32} : f32[B,1,1,S]\n"                     \
    "  %inv = sub %f1, %mf : f32[B,1,1,S]\n  %km = mul %inv, %min : f32[B,1,1,S]\n"

static void test_bias_and_key_mask(void **state) {
    (void)state;
    check_attention(BIAS KEYMASK "  %add = add %bias, %km : f32[B,2,S,S]\n", true, true, true, 0);
    check_attention(KEYMASK "  %add = broadcast %km : f32[B,1,S,S]\n", true, false, true, 0);
    check_attention(BIAS "  %add = broadcast %bias : f32[1,2,S,S]\n", true, true, false, 0);
}

static void test_trimmed_row(void **state) {
    (void)state;
    char *text = attention_text(BIAS KEYMASK "  %add = add %bias, %km : f32[B,2,S,S]\n");
    Module *b = matched(text);
    Func *f = module_find(b, "main");
    const Node *n = find_op(f, OP_attention);
    const Type *row = &f->value[n->in[3]].type;
    assert_int_equal(row->rank, 2);
    assert_true(dim_is(b->dims, row->dim[0], 2));
    assert_true(dim_is(b->dims, row->dim[1], 5)); /* distances -2 .. 2 */
    assert_int_equal(node_int(n, AT_center, -1), 2);
    assert_int_equal(node_int(n, AT_heads, -1), 2);
    module_free(b);
    free(text);
}

static void test_causal_masks(void **state) {
    (void)state;
    check_attention("  %le = le %cj, %ci : bool[S,S]\n  %c = select %le, %f0, %min : f32[S,S]\n"
                    "  %add = reshape %c : f32[1,1,S,S]\n",
                    true, false, false, 1);
    check_attention("  %le = le %cj, %ci : bool[S,S]\n  %cf = cast %le {to = f32} : f32[S,S]\n"
                    "  %one = broadcast %f1 : f32[S,S]\n  %both = mul %cf, %one : f32[S,S]\n"
                    "  %inv = sub %f1, %both : f32[S,S]\n  %c = mul %inv, %min : f32[S,S]\n"
                    "  %add = reshape %c : f32[1,1,S,S]\n",
                    true, false, false, 1);
    check_attention("  %gt = gt %cj, %ci : bool[S,S]\n  %full = broadcast %min : f32[S,S]\n"
                    "  %tri = select %gt, %full, %f0 : f32[S,S]\n  %g = cast %gt {to = f32} : f32[S,S]\n"
                    "  %c = mul %tri, %g : f32[S,S]\n  %add = reshape %c : f32[1,1,S,S]\n",
                    true, false, false, 1);
    check_attention("  %ten = const {value = f32[] [-10000]} : f32[]\n  %le = le %cj, %ci : bool[S,S]\n"
                    "  %c = select %le, %f0, %ten : f32[S,S]\n  %add = reshape %c : f32[1,1,S,S]\n",
                    true, false, false, 1);
    /* both at once, with a bias */
    check_attention(BIAS
                    "  %le = le %cj, %ci : bool[S,S]\n  %mb = cast %mask {to = bool} : bool[B,S]\n"
                    "  %m4 = reshape %mb : bool[B,1,1,S]\n  %see = and %le, %m4 : bool[B,1,S,S]\n"
                    "  %km = select %see, %f0, %min : f32[B,1,S,S]\n  %add = add %bias, %km : f32[B,2,S,S]\n",
                    true, true, true, 1);
    /* a window is not a causal mask */
    check_attention("  %two = const {value = i64[] [2]} : i64[]\n  %cw = add %ci, %two : i64[S,1]\n  %le = "
                    "le %cj, %cw : bool[S,S]\n"
                    "  %c = select %le, %f0, %min : f32[S,S]\n  %add = reshape %c : f32[1,1,S,S]\n",
                    false, false, false, 0);
    /* absolute positions are not distances */
    check_attention("  %two = const {value = i64[] [2]} : i64[]\n  %le = le %cj, %two : bool[1,S]\n"
                    "  %c = select %le, %f0, %min : f32[1,S]\n  %add = reshape %c : f32[1,1,1,S]\n",
                    false, false, false, 0);
}

static void test_indexed_masks(void **state) {
    (void)state;
    /* gather_nd with positions made of iotas */
    check_attention(
        "  %mb = cast %mask {to = bool} : bool[B,S]\n  %pb = iota {axis = 0} : i64[B,1,1,S,1]\n"
        "  %pj = iota {axis = 3} : i64[B,1,1,S,1]\n  %pos = concat %pb, %pj {axis = 4} : i64[B,1,1,S,2]\n"
        "  %m4 = gather_nd %mb, %pos {batch = 0} : bool[B,1,1,S]\n"
        "  %km = select %m4, %f0, %min : f32[B,1,1,S]\n  %add = broadcast %km : f32[B,1,S,S]\n",
        true, false, true, 0);
    /* a gather from the flattened mask */
    check_attention("  %mb = cast %mask {to = bool} : bool[B,S]\n  %flat = reshape %mb : bool[B*S]\n"
                    "  %pb = iota {axis = 0} : i64[B,1,1,1]\n  %pj = iota {axis = 3} : i64[1,1,1,S]\n"
                    "  %n = dim {dim = S} : i64[]\n  %row = mul %pb, %n : i64[B,1,1,1]\n  %at = add %pj, "
                    "%row : i64[B,1,1,S]\n"
                    "  %m4 = gather %flat, %at {axis = 0} : bool[B,1,1,S]\n"
                    "  %km = select %m4, %f0, %min : f32[B,1,1,S]\n  %add = broadcast %km : f32[B,1,S,S]\n",
                    true, false, true, 0);
    /* the other row of the mask is not this row's mask */
    check_attention(
        "  %mb = cast %mask {to = bool} : bool[B,S]\n  %pb0 = iota {axis = 0} : i64[B,1,1,S,1]\n"
        "  %z = mul %pb0, %i0 : i64[B,1,1,S,1]\n"
        "  %pj = iota {axis = 3} : i64[B,1,1,S,1]\n  %pos = concat %z, %pj {axis = 4} : i64[B,1,1,S,2]\n"
        "  %m4 = gather_nd %mb, %pos {batch = 0} : bool[B,1,1,S]\n"
        "  %km = select %m4, %f0, %min : f32[B,1,1,S]\n  %add = broadcast %km : f32[B,1,S,S]\n",
        false, false, false, 0);
    /* scatter_nd that writes every position by itself: mask where causal + mask is 0 */
    check_attention(
        "  %gt = gt %cj, %ci : bool[S,S]\n  %tri = select %gt, %min, %f0 : f32[S,S]\n"
        "  %t4 = reshape %tri : f32[1,1,S,S]\n  %data = broadcast %t4 : f32[B,1,S,S]\n"
        "  %ones = broadcast %f1 : f32[B,1,1,S]\n  %sum = add %data, %ones : f32[B,1,S,S]\n"
        "  %is0 = eq %sum, %f0 : bool[B,1,S,S]\n  %upd = select %is0, %min, %data : f32[B,1,S,S]\n"
        "  %p0 = iota {axis = 0} : i64[B,1,S,S,1]\n  %p1 = iota {axis = 1} : i64[B,1,S,S,1]\n"
        "  %p2 = iota {axis = 2} : i64[B,1,S,S,1]\n  %p3 = iota {axis = 3} : i64[B,1,S,S,1]\n"
        "  %pos = concat %p0, %p1, %p2, %p3 {axis = 4} : i64[B,1,S,S,4]\n"
        "  %add = scatter_nd %data, %pos, %upd : f32[B,1,S,S]\n",
        true, false, false, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),          cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_bias_and_key_mask), cmocka_unit_test(test_trimmed_row),
        cmocka_unit_test(test_causal_masks),      cmocka_unit_test(test_indexed_masks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
