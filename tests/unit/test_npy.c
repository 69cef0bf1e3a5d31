/* .npy files: what is written reads back; headers that lie are refused. */
#include "frontends/npy.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void every_type_comes_back(void **state)
{
    (void)state;
    Arena *a = arena_new();
    Diag *d = diag_new();
    for (int type = 0; type < DT_COUNT; type++)
        for (int rank = 0; rank < 4; rank++) {
            Tensor t = {.dtype = (DType)type, .rank = rank, .dim = {3, 1, rank == 3 ? 0 : 5}}, back;
            int64_t count = 0;
            size_t bytes = 0;
            assert_true(tensor_alloc(a, &t) && tensor_count(&t, &count) && tensor_bytes(&t, &bytes));
            for (int64_t i = 0; i < count; i++)
                tensor_set_i64(&t, i, type == DT_BOOL ? i & 1 : i * 7);
            assert_true(npy_write("test_npy.npy", &t, d));
            assert_true(npy_read("test_npy.npy", a, &back, d));
            assert_int_equal(back.dtype, t.dtype);
            assert_int_equal(back.rank, t.rank);
            assert_memory_equal(back.dim, t.dim, (size_t)rank * sizeof *t.dim);
            if (bytes)
                assert_memory_equal(back.data, t.data, bytes);
        }
    assert_int_equal(diag_errors(d), 0);
    unlink("test_npy.npy");
    diag_free(d);
    arena_free(a);
}

static bool taken(const char *version, const char *header, size_t data)
{
    Arena *a = arena_new();
    Diag *d = diag_new();
    Tensor t;
    FILE *f = fopen("test_npy.npy", "wb");
    size_t n = strlen(header);
    assert_non_null(f);
    fprintf(f, "\x93NUMPY");
    fwrite(version, 1, 2, f);
    fputc((int)(n & 255), f);
    fputc((int)(n >> 8), f);
    if (version[0] != 1)
        fwrite("\0\0", 1, 2, f);
    fputs(header, f);
    for (size_t i = 0; i < data; i++)
        fputc(1, f);
    fclose(f);
    bool ok = npy_read("test_npy.npy", a, &t, d);
    assert_true(ok == (diag_errors(d) == 0));
    unlink("test_npy.npy");
    diag_free(d);
    arena_free(a);
    return ok;
}

static void headers(void **state)
{
    (void)state;
    assert_true(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8));
    assert_true(taken("\2\0", "{'shape': (2, 1), 'fortran_order': False, 'descr': '<i8'}   \n", 16));
    assert_true(taken("\1\0", "{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n", 1));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 9));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 7));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '<f4', 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }\n", 8));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n", 0));
    assert_false(taken("\1\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n", 0));
    assert_false(taken("\4\0", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", 8));
    assert_false(taken("\1\0", "", 0));
    assert_false(taken("\1\0", "{", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type_comes_back), cmocka_unit_test(headers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
