/* What a program that embeds a model relies on: slots of adapters, rows with adapters of their own, sizes,
 * files of adapters read in room of fixed size. The program is written by hand (runtime_fake.h). */
#include "runtime_fake.h"

enum { ADAPTERS = 3 };

static const float tripled[8] = {0, 0, 0, 0, 0, 0, 3, 3}; /* router, then scale */

/* Slot k scales by k + 1. */
static moec_instance *open_slots(const moec_program *p, int threads) {
    char message[256] = "";
    moec_instance *m = NULL;
    moec_options o = {.weights = path_of("fake.weights"),
                      .threads = threads,
                      .message = message,
                      .message_room = sizeof message,
                      .adapters = ADAPTERS};
    const char *third = write_adapter("third", "{" SCALE "," ROUTER "}", tripled, 32);
    if (moec_open(p, &o, &m) || moec_load_adapter_slot(m, 1, path_of("good"), message, sizeof message) ||
        moec_load_adapter_slot(m, 2, third, message, sizeof message))
        fail_msg("%s", message);
    return m;
}

/* The function's own words: see runtime_fake.h. */
static int64_t simulate(const int64_t *ids, int64_t n, int scale, int64_t most, int64_t *out) {
    int64_t base = 0, history = 0, token = 0;
    for (int64_t i = 0; i < n; i++)
        base += ids[i] * scale;
    for (int64_t t = 0; t < most; t++) {
        history += token;
        token = (base + 3 * t + history) % VOCAB;
        out[t] = token;
        if (token == 1)
            return t + 1;
    }
    return most;
}

static void tells_abi(void **state) {
    (void)state;
    assert_int_equal(moec_abi(), MOEC_ABI);
}

/* ---- slots ---- */

static float scale_of(moec_instance *m, int slot) {
    const int64_t sym[4] = {1, 1, 0, 1};
    float hidden[2] = {1, 1}, cross = 0;
    void *arg[2] = {hidden, &cross};
    const int32_t adapter = slot;
    assert_int_equal(moec_run_rows(m, 1, sym, arg, &adapter), MOEC_OK);
    return cross;
}

static void slots_change_one_by_one(void **state) {
    (void)state;
    char message[256];
    moec_instance *m = open_slots(&program, 1);
    for (int k = 0; k < ADAPTERS; k++)
        assert_true(scale_of(m, k) == (float)(k + 1));
    assert_int_equal(moec_load_adapter(m, path_of("third"), NULL, 0), MOEC_OK);
    assert_true(scale_of(m, 0) == 3 && scale_of(m, 1) == 2 && scale_of(m, 2) == 3);
    /* Refused while it is prepared: the slot keeps what it had. */
    static const float negative[8] = {0, 0, 0, 0, 0, 0, -1, 1};
    const char *bad = write_adapter("negative", "{" SCALE "," ROUTER "}", negative, 32);
    assert_int_equal(moec_load_adapter_slot(m, 1, bad, message, sizeof message), MOEC_E_RANGE);
    assert_true(scale_of(m, 0) == 3 && scale_of(m, 1) == 2 && scale_of(m, 2) == 3);
    assert_int_equal(moec_load_adapter_slot(m, ADAPTERS, bad, message, sizeof message), MOEC_E_ARGUMENT);
    assert_int_equal(moec_load_adapter_slot(m, -1, bad, message, sizeof message), MOEC_E_ARGUMENT);
    assert_int_equal(moec_load_adapter_slot(m, 0, NULL, message, sizeof message), MOEC_E_ARGUMENT);
    assert_non_null(strstr(message, "error: "));
    moec_close(m);
}

static void saves_adapters(void **state) {
    (void)state;
    char message[256];
    moec_instance *m = open_slots(&program, 1);
    assert_int_equal(moec_save_adapter(m, 2, path_of("saved"), message, sizeof message), MOEC_OK);
    assert_int_equal(moec_load_adapter(m, path_of("saved"), message, sizeof message), MOEC_OK);
    assert_true(scale_of(m, 0) == 3);
    assert_int_equal(moec_save_adapter(m, 0, path_of("no/such/folder"), message, sizeof message), MOEC_E_IO);
    assert_non_null(strstr(message, "no/such/folder: error: cannot be written"));
    assert_int_equal(moec_save_adapter(m, 3, path_of("saved"), NULL, 0), MOEC_E_ARGUMENT);
    assert_int_equal(moec_save_adapter(NULL, 0, path_of("saved"), NULL, 0), MOEC_E_ARGUMENT);
    moec_close(m);
}

static void bounds_slots(void **state) {
    (void)state;
    char message[256];
    moec_instance *m;
    moec_options o = {.weights = path_of("fake.weights"),
                      .threads = 1,
                      .message = message,
                      .message_room = sizeof message,
                      .adapters = -1};
    assert_int_equal(moec_open(&program, &o, &m), MOEC_E_ARGUMENT);
    assert_non_null(strstr(message, "error: -1 adapters"));
    assert_int_equal(moec_open(NULL, &o, &m), MOEC_E_ARGUMENT);
    assert_string_equal(message, "error: a null pointer, or an unknown function or adapter slot");
    o.adapters = 1 << 30;
    assert_int_equal(moec_open(&program, &o, &m), MOEC_E_ARGUMENT);
    assert_true(moec_open_bytes(&program, &o) == UINT64_MAX);
    o.adapters = 0;
    assert_int_equal(moec_open(&program, &o, &m), MOEC_OK);
    assert_int_equal(moec_load_adapter_slot(m, 1, path_of("good"), NULL, 0), MOEC_E_ARGUMENT);
    moec_close(m);
}

/* ---- rows ---- */

/* Each row of cross and, over three tokens, of step, whose caches have room for more than is used. */
static void rows_have_adapters(void **state) {
    (void)state;
    static const int32_t slots[][4] = {{0, 1, 1, 2}, {2, 0, 2, 0}, {1, 1, 1, 1}, {0, 0, 2, 2}};
    for (size_t k = 0; k < sizeof slots / sizeof *slots; k++) {
        moec_instance *m = open_slots(&program, 1 + (int)k);
        int64_t sym[4] = {4, 3, 0, 1}, token[4] = {2, 3, 4, 5}, next[4], mask[12];
        float hidden[24], cross[12], cache[4 * CAPACITY], logits[4 * VOCAB], sum[4] = {0}, made[4] = {0};
        for (int i = 0; i < 24; i++)
            hidden[i] = (float)(i / 2 + 1);
        void *cross_arg[2] = {hidden, cross}, *step_arg[7] = {token, cross, mask, cache, logits, next, cache};
        assert_int_equal(moec_run_rows(m, 1, sym, cross_arg, slots[k]), MOEC_OK);
        for (int i = 0; i < 12; i++) {
            assert_true(cross[i] == (float)((i + 1) * (slots[k][i / 3] + 1)));
            sum[i / 3] += cross[i];
        }
        for (int t = 0; t < 3; t++) {
            sym[P] = t;
            assert_int_equal(moec_run_rows(m, 2, sym, step_arg, slots[k]), MOEC_OK);
            for (int b = 0; b < 4; b++) {
                made[b] += (float)token[b];
                assert_true(cache[b * CAPACITY + t] == (float)token[b]);
                assert_int_equal(next[b], (int64_t)(sum[b] + made[b] + (float)(3 * t)) % VOCAB);
                token[b] = next[b];
            }
        }
        moec_close(m);
    }
}

static void shape_turned(const int64_t *sym, uint32_t i, int64_t *e) {
    e[0] = sym[i ? B : S];
    e[1] = sym[i ? S : B];
    e[2] = i ? 1 : 2;
}

static void rows_are_checked(void **state) {
    (void)state;
    moec_instance *m = open_slots(&program, 1);
    int64_t sym[4] = {2, 1, 0, 1};
    float hidden[4] = {1, 1, 1, 1}, cross[2] = {-9, -9};
    void *arg[2] = {hidden, cross};
    static const int32_t beyond[] = {0, ADAPTERS}, below[] = {1, -1}, both[] = {1, 2}, last[] = {2, 2};
    assert_int_equal(moec_run_rows(m, 1, sym, arg, beyond), MOEC_E_ARGUMENT);
    assert_int_equal(moec_run_rows(m, 1, sym, arg, below), MOEC_E_ARGUMENT);
    assert_true(cross[0] == -9 && cross[1] == -9); /* before anything ran */
    assert_int_equal(moec_run_rows(NULL, 1, sym, arg, both), MOEC_E_ARGUMENT);
    sym[B] = 5;
    assert_int_equal(moec_run_rows(m, 1, sym, arg, both), MOEC_E_RANGE);
    sym[B] = 2;
    assert_int_equal(moec_run_rows(m, 1, sym, arg, NULL), MOEC_OK);
    assert_true(cross[0] == 1 && cross[1] == 1);
    moec_close(m);

    /* Runs shorter than the least batch. */
    moec_symbol bounds[4];
    memcpy(bounds, symbols, sizeof bounds);
    bounds[B].lo = 2;
    moec_program p = program;
    p.symbol = bounds;
    m = open_slots(&p, 1);
    assert_int_equal(moec_run_rows(m, 1, sym, arg, both), MOEC_E_RANGE);
    assert_int_equal(moec_run_rows(m, 1, sym, arg, last), MOEC_OK);
    assert_true(cross[0] == 3 && cross[1] == 3);
    moec_close(m);

    /* Rows that do not lead every argument. */
    moec_function turned[4];
    memcpy(turned, functions, sizeof turned);
    turned[1].shape = shape_turned;
    p = program;
    p.function = turned;
    p.seq2seq = NULL;
    m = open_slots(&p, 1);
    sym[B] = 1;
    sym[S] = 2;
    assert_int_equal(moec_run_rows(m, 1, sym, arg, both), MOEC_E_ARGUMENT);
    assert_int_equal(moec_run_rows(m, 1, sym, arg, last), MOEC_OK);
    assert_true(cross[0] == 3);
    moec_close(m);
}

static void finds_rows(void **state) {
    (void)state;
    for (uint32_t f = 0; f < program.n_functions; f++)
        assert_int_equal(moec_row_symbol(&program, &functions[f]), B);
    moec_function f = functions[1];
    f.shape = shape_turned;
    assert_int_equal(moec_row_symbol(&program, &f), -1);
    f = functions[1];
    moec_value values[2];
    memcpy(values, cross_values, sizeof values);
    values[1].rank = 0;
    f.value = values;
    assert_int_equal(moec_row_symbol(&program, &f), -1); /* a scalar has no rows */
    values[1] = cross_values[1];
    values[1].grow_axis = 0;
    assert_int_equal(moec_row_symbol(&program, &f), -1);
}

static void generates_rows(void **state) {
    (void)state;
    int64_t ids[4 * 3] = {5, 0, 0, 2, 3, 0, 7, 7, 7, 11, 2, 9},
                    mask[12] = {1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1};
    static const int32_t slots[][4] = {{0, 1, 2, 1}, {2, 2, 0, 0}, {1, 0, 1, 2}};
    for (size_t k = 0; k < sizeof slots / sizeof *slots; k++) {
        moec_instance *m = open_slots(&program, 1 + (int)k);
        moec_generate_options o = {.eos = -1, .adapter_of_row = slots[k]};
        int64_t tokens[4 * CAPACITY], one[CAPACITY], steps;
        assert_int_equal(moec_generate(m, 4, 3, ids, mask, NULL, &o, tokens, &steps, NULL, NULL), MOEC_OK);
        for (int b = 0; b < 4; b++) {
            int64_t want[CAPACITY] = {0};
            simulate(ids + 3 * b, 3, slots[k][b] + 1, CAPACITY, want);
            assert_memory_equal(tokens + CAPACITY * b, want, sizeof want);
            o.adapter_of_row = &slots[k][b];
            assert_int_equal(
                moec_generate(m, 1, 3, ids + 3 * b, mask + 3 * b, NULL, &o, one, &steps, NULL, NULL),
                MOEC_OK);
            assert_memory_equal(one, want, sizeof want);
            o.adapter_of_row = slots[k];
        }
        static const int32_t wrong[4] = {0, 1, 2, 3};
        o.adapter_of_row = wrong;
        assert_int_equal(moec_generate(m, 4, 3, ids, mask, NULL, &o, tokens, &steps, NULL, NULL),
                         MOEC_E_ARGUMENT);
        moec_close(m);
    }
}

/* ---- sizes ---- */

static void counts_arguments(void **state) {
    (void)state;
    const int64_t sym[4] = {3, 2, 1, 999}; /* T plays no part */
    int64_t wrong[4] = {3, 2, CAPACITY, 1};
    assert_int_equal(moec_argument_bytes(&program, 0, 2, sym), 3 * 2 * 2 * 4);
    assert_int_equal(moec_argument_bytes(&program, 2, 0, sym), 3 * 8);
    assert_int_equal(moec_argument_bytes(&program, 2, 3, sym), 3 * CAPACITY * 4); /* whatever P is */
    assert_int_equal(moec_argument_bytes(&program, 2, 4, NULL), 4 * VOCAB * 4);
    assert_int_equal(moec_cache_bytes(&program, 2, sym), 3 * CAPACITY * 4);
    assert_int_equal(moec_cache_bytes(&program, 2, NULL), 4 * CAPACITY * 4);
    assert_int_equal(moec_cache_bytes(&program, 0, NULL), 0);
    assert_true(moec_argument_bytes(&program, 2, 3, wrong) == UINT64_MAX);
    assert_true(moec_argument_bytes(&program, 2, 7, sym) == UINT64_MAX);
    assert_true(moec_argument_bytes(&program, 4, 0, sym) == UINT64_MAX);
    assert_true(moec_argument_bytes(NULL, 0, 0, sym) == UINT64_MAX);
    assert_true(moec_cache_bytes(&program, 4, sym) == UINT64_MAX);
    assert_int_equal(moec_activation_bytes(&program, 0, NULL), program.arena_bytes); /* no table of places */
    assert_true(moec_activation_bytes(&program, 4, NULL) == UINT64_MAX);
    moec_symbol free_bounds[4];
    memcpy(free_bounds, symbols, sizeof free_bounds);
    free_bounds[B].hi = INT64_MAX;
    moec_program p = program;
    p.symbol = free_bounds;
    assert_true(moec_argument_bytes(&p, 0, 0, NULL) == UINT64_MAX);
    assert_int_equal(moec_argument_bytes(&p, 0, 0, sym), 3 * 2 * 8);
}

static void counts_instances(void **state) {
    (void)state;
    moec_options o = {.weights = "x", .threads = 1};
    uint64_t one = moec_open_bytes(&program, &o);
    assert_int_equal(moec_weights_bytes(&program), sizeof(Image));
    assert_int_equal(moec_adapter_bytes(&program), 128);
    assert_int_equal(moec_derived_bytes(&program), 64);
    assert_int_equal(moec_scratch_bytes(&program, 3), 3 * 64);
    assert_true(moec_scratch_bytes(&program, 0) >= 64);
    o.threads = 3;
    assert_int_equal(moec_open_bytes(&program, &o), one + 2 * 64);
    o.threads = 1;
    o.adapters = 4;
    assert_int_equal(moec_open_bytes(&program, &o), one + 3 * (128 + 64));
    moec_program p = program;
    p.embedded = (const unsigned char *)&image;
    o = (moec_options){.threads = 1};
    assert_int_equal(moec_open_bytes(&p, &o), one - sizeof(Image));
    p.seq2seq = NULL;
    assert_int_equal(moec_generate_bytes(&p), 0);
    assert_int_equal(moec_open_bytes(&p, &o), one - sizeof(Image) - moec_generate_bytes(&program));
    p = program;
    p.scratch_bytes = (uint64_t)1 << 62;
    assert_true(moec_scratch_bytes(&p, 8) == UINT64_MAX);
    o = (moec_options){.weights = path_of("fake.weights"), .threads = 8};
    assert_true(moec_open_bytes(&p, &o) == UINT64_MAX);
    moec_instance *m;
    assert_int_equal(moec_open(&p, &o, &m), MOEC_E_MEMORY);
    assert_null(m);
}

/* ---- files ---- */

/* A header with `keys` entries of metadata of `n` bytes each. */
static moec_status load_with_metadata(moec_instance *m, int keys, int n, char *message, size_t room) {
    static char header[300 << 10];
    static unsigned char file[sizeof header + 64];
    int at = snprintf(header, sizeof header, "{\"__metadata__\":{");
    for (int k = 0; k < keys; k++)
        at += snprintf(header + at, sizeof header - (size_t)at, "%s\"k%d\":\"%0*d\"", k ? "," : "", k, n, 0);
    at += snprintf(header + at, sizeof header - (size_t)at, "}," SCALE "," ROUTER "}");
    assert_true((size_t)at < sizeof header - 1);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)at >> 8 * i);
    memcpy(file + 8, header, (size_t)at);
    memcpy(file + 8 + at, tripled, sizeof tripled);
    return moec_load_adapter(m, write_file("metadata", file, 8 + (size_t)at + sizeof tripled), message, room);
}

static void headers_have_bounds(void **state) {
    (void)state;
    char message[256];
    moec_instance *m = open_good(1);
    assert_int_equal(load_with_metadata(m, 200, 100, message, sizeof message), MOEC_OK);
    assert_true(scale_of(m, 0) == 3);
    assert_int_equal(moec_load_adapter(m, path_of("good"), NULL, 0), MOEC_OK);
    assert_int_equal(load_with_metadata(m, 2000, 10, message, sizeof message), MOEC_E_FORMAT);
    assert_non_null(strstr(message, "too many keys"));
    assert_int_equal(load_with_metadata(m, 1, 200 << 10, message, sizeof message), MOEC_E_FORMAT);
    assert_non_null(strstr(message, "that these tensors need"));
    assert_true(scale_of(m, 0) == 2);
    moec_close(m);
}

/* Tables in every order find their tensors in a file of another order. */
static void order_is_free(void **state) {
    (void)state;
    enum { N = 211 };
    static moec_tensor written[N], wanted[N];
    static char name[N][8];
    static unsigned char from[N * 64], to[N * 64];
    moec_sink none = {NULL, 0};
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "t%d", i * 37 % N);
        written[i] = (moec_tensor){name[i], MOEC_F32, 1, {1, 0, 0, 0}, (uint64_t)i * 64, 4, -1};
        memcpy(from + i * 64, &i, sizeof i);
    }
    assert_int_equal(moec_tensors_write(written, N, "", from, path_of("many"), NULL, NULL, none), MOEC_OK);
    for (int turn = 1; turn < N; turn += 30) {
        for (int i = 0; i < N; i++) {
            wanted[i] = written[i * turn % N];
            wanted[i].offset = (uint64_t)i * 64;
        }
        uint64_t bytes = moec_tensors_room(wanted, N, NULL);
        void *room = moec_mem_reserve(bytes);
        assert_int_equal(moec_tensors_read(NULL, wanted, N, path_of("many"), to, room, bytes, none), MOEC_OK);
        moec_mem_release(room, bytes);
        for (int i = 0; i < N; i++) {
            int value;
            memcpy(&value, to + i * 64, sizeof value);
            assert_int_equal(value, i * turn % N);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_abi),           cmocka_unit_test(slots_change_one_by_one),
        cmocka_unit_test(saves_adapters),      cmocka_unit_test(bounds_slots),
        cmocka_unit_test(rows_have_adapters),  cmocka_unit_test(rows_are_checked),
        cmocka_unit_test(finds_rows),          cmocka_unit_test(generates_rows),
        cmocka_unit_test(counts_arguments),    cmocka_unit_test(counts_instances),
        cmocka_unit_test(headers_have_bounds), cmocka_unit_test(order_is_free),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
