/* The IR's ground: arenas, arithmetic, element types, building and copying functions, result types. */
#include "compiler/ir.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const Str nowhere = {NULL, 0};

/* ---- base and tensor ------------------------------------------------------------------------------- */

static void arena_memory(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 64, 65, 1000, 20000, 65536, 200000, 3};
    Arena *a = arena_new();
    for (int round = 0; round < 50; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            unsigned char *p = arena_alloc(a, sizes[i]);
            assert_int_equal((uintptr_t)p % (sizes[i] > 64 ? 64 : 16), 0);
            assert_int_equal(p[0] | p[sizes[i] / 2] | p[sizes[i] - 1], 0);
            memset(p, 0xff, sizes[i]);
        }
    assert_string_equal(arena_printf(a, "%s %d", "a", 7), "a 7");
    arena_free(a);
    arena_free(NULL);
}

/* What is taken again after a rewind is zeroed; what was there before stays. */
static void arena_rewinds(void **state) {
    (void)state;
    for (int first = 0; first < 3; first++) {
        Arena *a = arena_new();
        char *kept = first ? arena_alloc(a, first == 1 ? 100 : 200000) : NULL;
        if (kept)
            strcpy(kept, "kept");
        ArenaMark outer = arena_mark(a);
        for (int round = 0; round < 3; round++) {
            size_t bytes = arena_bytes(a);
            ArenaMark mark = arena_mark(a);
            for (size_t n = 1; n < 500000; n *= 3) {
                unsigned char *p = arena_alloc(a, n);
                assert_int_equal(p[0] | p[n / 2] | p[n - 1], 0);
                memset(p, 0xff, n);
            }
            arena_rewind(a, mark);
            assert_int_equal(arena_bytes(a), bytes);
            memset(arena_alloc(a, 5000), 0xff, 5000);
        }
        arena_rewind(a, outer);
        assert_true(!kept || strcmp(kept, "kept") == 0);
        arena_free(a);
    }
}

static void checked_arithmetic(void **state) {
    (void)state;
    static const int64_t v[] = {0,          1,           -1,        2,         -2,
                                3037000500, -3037000500, INT64_MAX, INT64_MIN, INT64_MAX - 1};
    enum { N = sizeof v / sizeof *v };
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            int64_t r;
            __extension__ typedef __int128 wide;
            const wide sum = (wide)v[i] + v[j], difference = (wide)v[i] - v[j], product = (wide)v[i] * v[j];
            bool ok = add_i64(v[i], v[j], &r);
            assert_true(ok == (sum >= INT64_MIN && sum <= INT64_MAX) && (!ok || r == (int64_t)sum));
            ok = sub_i64(v[i], v[j], &r);
            assert_true(ok == (difference >= INT64_MIN && difference <= INT64_MAX) &&
                        (!ok || r == (int64_t)difference));
            ok = mul_i64(v[i], v[j], &r);
            assert_true(ok == (product >= INT64_MIN && product <= INT64_MAX) &&
                        (!ok || r == (int64_t)product));
        }
    size_t n;
    assert_false(mul_size(SIZE_MAX, 2, &n));
    assert_false(add_size(SIZE_MAX, 1, &n));
}

static void half_precision(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(f16_to_f32(f16_from_f32(f))));
            continue;
        }
        assert_int_equal(f16_from_f32(f), h);
        if ((h & 0x7fffu) >= 0x7bffu)
            continue;
        /* halfway to the next one in size: to the even; a little off halfway: to the nearer */
        float next = f16_to_f32((uint16_t)(h + 1)), middle = (f + next) / 2;
        assert_int_equal(f16_from_f32(middle), h & 1 ? h + 1 : h);
        assert_int_equal(f16_from_f32(nextafterf(middle, f)), h);
        assert_int_equal(f16_from_f32(nextafterf(middle, next)), h + 1);
    }
    assert_int_equal(f16_from_f32(65519.0f), 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f), 0x7c00);
}

static void element_conversion(void **state) {
    (void)state;
    static const struct {
        DType dtype;
        double in;
        int64_t out;
    } cases[] = {{DT_U8, 300, 255},          {DT_U8, -1, 0},
                 {DT_I8, -129.9, -128},      {DT_I8, -1.9, -1},
                 {DT_I32, 1e30, INT32_MAX},  {DT_I64, 1e30, INT64_MAX},
                 {DT_I64, -1e30, INT64_MIN}, {DT_I32, NAN, 0},
                 {DT_BOOL, 0.5, 1},          {DT_F32, 2.75, 2}};
    Arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Tensor t = {.dtype = cases[i].dtype, .rank = 1, .dim = {3}};
        assert_true(tensor_alloc(a, &t));
        tensor_set_f64(&t, 1, cases[i].in);
        assert_int_equal(tensor_get_i64(&t, 1), cases[i].out);
        assert_int_equal(tensor_get_i64(&t, 0), 0);
        assert_int_equal(tensor_get_i64(&t, 2), 0);
    }
    Tensor wide = {.dtype = DT_F32, .rank = 3, .dim = {(int64_t)1 << 24, (int64_t)1 << 24, 2}};
    int64_t n;
    size_t bytes;
    assert_false(tensor_count(&wide, &n));
    wide.dim[1] = 0;
    assert_true(tensor_count(&wide, &n) && n == 0 && tensor_bytes(&wide, &bytes) && bytes == 0);
    wide.dim[0] = -1;
    assert_false(tensor_count(&wide, &n));
    arena_free(a);
}

static void shown_bytes(void **state) {
    (void)state;
    Diag *d = diag_new();
    char bytes[5000];
    memset(bytes, '\n', sizeof bytes);
    const char *s = diag_show(d, (Str){bytes, sizeof bytes});
    assert_true(strlen(s) <= 203 && !strchr(s, '\n'));
    assert_string_equal(diag_show(d, str_c("a\x1b")), "a\\033");
    assert_false(diag_error(d, DIAG_FILE_READ, "f", "x"));
    assert_int_equal(diag_errors(d), 1);
    Text t = {0};
    text_quoted(&t, (Str){"a\"?\\\0001", 6});
    assert_string_equal(t.p, "\"a\\042\\077\\134\\0001\"");
    text_free(&t);
    diag_free(d);
}

/* ---- functions ----------------------------------------------------------------------------------------- */

static Type ranked(Module *m, DType dtype, const char *extents) {
    Type t = {.dtype = dtype};
    const char *end = extents + strlen(extents);
    while (extents < end) {
        if (!dim_parse(m->dims, &extents, end, &t.dim[t.rank++]))
            fail_msg("bad extents");
        extents += strspn(extents, ", ");
    }
    return t;
}

static void tables(void **state) {
    (void)state;
    for (int i = 0; i < OP_COUNT; i++) {
        const OpInfo *o = op_info((Op)i);
        Op found;
        assert_true(op_find(str_c(o->name), &found) && (int)found == i);
        assert_true(o->in_max < 0 || o->in_min <= o->in_max);
    }
    assert_int_equal(op_info(OP_attention)->n_attrs, 4);
    assert_int_equal(op_info(OP_add)->n_attrs, 0);
    assert_int_equal(op_info(OP_slice)->attrs[1], AT_step);
    assert_int_equal(op_info(OP_iota)->klass, OC_SOURCE);
    AttrKey k;
    assert_true(attr_find(str_c("perm"), &k) && k == AT_perm && attr_kind(k) == AK_INTS);
    assert_false(attr_find(str_c("Perm"), &k));
}

static void dead_nodes_go(void **state) {
    (void)state;
    Module *m = module_new();
    ParamId w =
        module_param(m, (Param){.name = str_c("w"), .dtype = DT_F32, .rank = 1, .dim = {4}, .init = NONE});
    ParamId other =
        module_param(m, (Param){.name = str_c("w"), .dtype = DT_F32, .rank = 1, .dim = {4}, .init = NONE});
    assert_true(str_is(m->param[other].name, "w.1"));
    Func *f = func_begin(m, str_c("main"), FR_ENTRY);
    ValueId x = func_input(m, f, str_c("x"), ranked(m, DT_F32, "B, S, 4"));
    func_input(m, f, str_c("unused"), ranked(m, DT_F32, "S"));
    ValueId pw = func_param(m, f, w);
    assert_int_equal(func_param(m, f, w), pw);
    build_unary(m, f, OP_exp, func_param(m, f, other), nowhere); /* dead, and its parameter with it */
    ValueId y = build_binary(m, f, OP_mul, x, pw, str_c("here"));
    ValueId in[5] = {y, y, y, NONE, NONE};
    Attr heads = attr_i(AT_heads, 2);
    func_output(m, f, func_node(m, f, OP_attention, in, 5, &heads, 1, nowhere), str_c("y"));
    FuncId id = func_end(m, f, NONE);
    f = module_func(m, id);
    assert_int_equal(f->n_inputs, 2);
    assert_int_equal(f->n_nodes, 2);
    assert_int_equal(f->n_values, 5);
    const Node *a = value_node(f, f->output[0]);
    assert_true(a->op == OP_attention && a->in[3] == NONE && a->n_in == 5);
    assert_true(value_is(f, a->in[0], OP_mul) && str_is(value_node(f, a->in[0])->origin, "here"));
    ParamId p;
    assert_true(value_param(f, value_node(f, a->in[0])->in[1], &p) && p == w);
    Arena *scratch = arena_new();
    uint32_t *uses = func_uses(scratch, f);
    assert_int_equal(uses[a->in[0]], 3);
    assert_int_equal(uses[f->input[1]], 0);

    /* a copy with x * w replaced by x alone loses the multiplication and the parameter */
    Remap r = remap_begin(m, scratch, f);
    for (uint32_t i = 0; i < f->n_nodes; i++)
        if (f->node[i].op == OP_mul)
            remap_set(&r, f->node[i].out, remap_value(&r, f->node[i].in[0]));
        else
            remap_node(&r, &f->node[i]);
    assert_int_equal(remap_end(&r), id);
    f = module_func(m, id);
    assert_true(str_is(f->name, "main") && f->role == FR_ENTRY && f->n_nodes == 1 && f->n_values == 3);
    assert_int_equal(f->node[0].in[2], f->input[0]);
    assert_ptr_equal(module_find(m, "main"), f);
    arena_free(scratch);
    module_free(m);
}

static void short_forms(void **state) {
    (void)state;
    Module *m = module_new();
    Func *f = func_begin(m, str_c("main"), FR_ENTRY);
    ValueId x = func_input(m, f, str_c("x"), ranked(m, DT_F32, "B, S, 4"));
    const int64_t same[3] = {0, 1, 2}, swap[3] = {1, 0, 2};
    Dim zero = dim_const(m->dims, 0), four = dim_const(m->dims, 4);
    assert_int_equal(build_cast(m, f, x, DT_F32, nowhere), x);
    assert_int_equal(build_transpose(m, f, x, same, nowhere), x);
    assert_int_equal(build_reshape(m, f, x, 3, f->value[x].type.dim, nowhere), x);
    assert_int_equal(build_slice(m, f, x, 2, zero, four, nowhere), x);
    assert_int_equal(build_concat(m, f, &x, 1, 0, nowhere), x);
    Type want = ranked(m, DT_F32, "S, B, 4");
    ValueId t = build_transpose(m, f, x, swap, nowhere);
    assert_true(type_eq(&f->value[t].type, &want));
    double v;
    assert_true(value_scalar(m, f, build_scalar(m, f, DT_I32, -7), &v) && v == -7);
    assert_false(value_scalar(m, f, x, &v));
    module_free(m);
}

/* ---- result types -----------------------------------------------------------------------------------------
 */

static void result_types(void **state) {
    (void)state;
    static const int64_t last[] = {2};
    static const struct {
        Op op;
        const char *a, *b, *result; /* NULL: unranked; a result of "!" is an error */
        DType dtype;
        AttrKey key;
        int64_t value;
    } cases[] = {
        {OP_add, "B, S, 4", "4", "B, S, 4", DT_F32, AT_COUNT, 0},
        {OP_add, "B, 1, 4", "S, 1", "B, S, 4", DT_F32, AT_COUNT, 0},
        {OP_add, "B, S, 4", "3", "!", DT_F32, AT_COUNT, 0},
        {OP_lt, "S", "1", "S", DT_BOOL, AT_COUNT, 0},
        {OP_lt, NULL, "1", NULL, DT_BOOL, AT_COUNT, 0},
        {OP_matmul, "B, S, 4", "4, 6", "B, S, 6", DT_F32, AT_COUNT, 0},
        {OP_matmul, "B, S, 4", "6, 4", "B, S, 6", DT_F32, AT_tb, 1},
        {OP_matmul, "4, S", "4, 6", "S, 6", DT_F32, AT_ta, 1},
        {OP_matmul, "B, S, 4", "5, 6", "!", DT_F32, AT_COUNT, 0},
        {OP_concat, "B, P, 4", "B, 1, 4", "B, P + 1, 4", DT_F32, AT_axis, 1},
        {OP_append, "B, P, 4", "B, 1, 4", "B, P + 1, 4", DT_F32, AT_axis, 1},
        {OP_concat, "B, P, 4", "B, 1, 5", "!", DT_F32, AT_axis, 1},
        {OP_concat, "B, P, 4", NULL, NULL, DT_F32, AT_axis, 1},
        {OP_concat, "9223372036854775807", "1", "!", DT_F32, AT_axis, 0},
        {OP_rms_norm, "B, S, 4", "4", "B, S, 4", DT_F32, AT_COUNT, 0},
        {OP_rms_norm, "B, S, 4", "5", "!", DT_F32, AT_COUNT, 0},
        {OP_argmax, "B, S, 4", "", "B, S", DT_I64, AT_axis, 2},
        {OP_argmax, "B, S, 4", "", "!", DT_I64, AT_axis, 3},
        {OP_reduce_sum, "B, S, 4", "", "B, S", DT_F32, AT_axes, 0},
        {OP_rms_factor, "B, S, 4", "", "B, S, 1", DT_F32, AT_COUNT, 0},
        {OP_cast, "B, S", "", "B, S", DT_I32, AT_to, DT_I32},
        {OP_shape, "B, S, 4", "", "3", DT_I64, AT_COUNT, 0},
        {OP_shape, "B, S, 4", "", "!", DT_I64, AT_k, 4},
        {OP_dyn_reshape, "B, S", "2", NULL, DT_F32, AT_COUNT, 0},
        {OP_iota, "", "", "!", DT_I64, AT_axis, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Module *m = module_new();
        Func *f = func_begin(m, str_c("main"), FR_ENTRY);
        const char *text[2] = {cases[i].a, cases[i].b};
        ValueId in[2];
        uint32_t n_in = op_info(cases[i].op)->in_max < 0 ? 2 : (uint32_t)op_info(cases[i].op)->in_max,
                 n_out = 0;
        for (uint32_t k = 0; k < n_in; k++)
            in[k] =
                func_input(m, f, str_c("x"), text[k] ? ranked(m, DT_F32, text[k]) : type_unranked(DT_F32));
        Attr attr =
            cases[i].key == AT_axes ? attr_ints(AT_axes, last, 1) : attr_i(cases[i].key, cases[i].value);
        Type out[8], want = cases[i].result
                                ? ranked(m, cases[i].dtype, cases[i].result[0] == '!' ? "" : cases[i].result)
                                : type_unranked(cases[i].dtype);
        const char *why = NULL;
        bool ok = node_infer(m, f, cases[i].op, in, n_in, &attr, cases[i].key != AT_COUNT, out, &n_out, &why);
        bool refused = cases[i].result && cases[i].result[0] == '!';
        if (ok == refused || (ok && (n_out != 1 || !type_eq(&out[0], &want))) || (refused && !why))
            fail_msg("case %zu: %s", i, why ? why : "another type");
        module_free(m);
    }
}

/* A first axis and a number of axes whose sum has no 64 bits. */
static void shape_of_too_many_axes(void **state) {
    (void)state;
    Module *m = module_new();
    Func *f = func_begin(m, str_c("main"), FR_ENTRY);
    ValueId x = func_input(m, f, str_c("x"), ranked(m, DT_F32, "B, S, 4"));
    Dim one = dim_const(m->dims, 1);
    Attr attrs[] = {attr_dims(AT_start, &one, 1), attr_i(AT_k, INT64_MAX)};
    Type out[8];
    uint32_t n_out = 0;
    const char *why = NULL;
    assert_false(node_infer(m, f, OP_shape, &x, 1, attrs, 2, out, &n_out, &why));
    assert_string_equal(why, "axes are out of range");
    module_free(m);
}

static FuncId with_results(Module *m, uint32_t n, const char *extents) {
    Func *f = func_begin(m, str_c("callee"), FR_BODY);
    ValueId x = func_input(m, f, str_c("x"), ranked(m, DT_F32, extents));
    for (uint32_t i = 0; i < n; i++)
        func_output(m, f, x, str_c("y"));
    return func_end(m, f, NONE);
}

/* Calls have as many results as the callee; what a caller has no room for is refused, not written. */
static void calls(void **state) {
    (void)state;
    Module *m = module_new();
    FuncId one = with_results(m, 1, "B"), many = with_results(m, 30, "B"), odd = with_results(m, 1, "S");
    Func *f = func_begin(m, str_c("main"), FR_ENTRY);
    ValueId in[2] = {func_input(m, f, str_c("c"), type_scalar(DT_BOOL)),
                     func_input(m, f, str_c("x"), ranked(m, DT_F32, "B"))};
    Attr callee = attr_i(AT_func, many);
    ValueId v = func_node(m, f, OP_call, in + 1, 1, &callee, 1, nowhere);
    assert_int_equal(value_node(f, v)->n_out, 30);
    assert_int_equal(f->value[v + 29].index, 29);
    Type out[8];
    uint32_t n_out = 0;
    const char *why = NULL;
    assert_false(node_infer(m, f, OP_call, in + 1, 1, &callee, 1, out, &n_out, &why));
    Attr branches[2] = {attr_i(AT_then_func, one), attr_i(AT_else_func, many)};
    n_out = 0;
    assert_false(node_infer(m, f, OP_if, in, 2, branches, 2, out, &n_out, &why));
    branches[1].i = odd;
    n_out = 0;
    assert_true(node_infer(m, f, OP_if, in, 2, branches, 2, out, &n_out, &why));
    assert_true(n_out == 1 && out[0].rank == UNRANKED && out[0].dtype == DT_F32);
    branches[1].i = one;
    n_out = 0;
    assert_true(node_infer(m, f, OP_if, in, 2, branches, 2, out, &n_out, &why) && out[0].rank == 1);
    Attr parts = attr_i(AT_k, INT64_MAX);
    assert_false(node_infer(m, f, OP_dyn_split, in + 1, 1, &parts, 1, out, &n_out, &why));
    module_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_memory),
        cmocka_unit_test(arena_rewinds),   cmocka_unit_test(checked_arithmetic),
        cmocka_unit_test(half_precision), cmocka_unit_test(element_conversion),
        cmocka_unit_test(shown_bytes),    cmocka_unit_test(tables),
        cmocka_unit_test(dead_nodes_go),  cmocka_unit_test(short_forms),
        cmocka_unit_test(result_types),   cmocka_unit_test(calls),
        cmocka_unit_test(shape_of_too_many_axes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
