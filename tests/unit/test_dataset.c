/* Training data: what lines are taken and refused, that draws cover epochs and keep to their shares, that
 * batches hold every example once and whole with weights that add up, and that a position continues what was
 * interrupted. */
#include "runtime/dataset.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 100, EOS = 1, SOURCE = 16, TARGET = 12 };

#define FILE_A "test_dataset.a.jsonl"
#define FILE_B "test_dataset.b.jsonl"

static char message[1000];
static const moec_sink sink = {message, sizeof message};

/* A tokenizer: a byte is the token 2 + byte % 50, an end of sequence comes last; '!' is not UTF-8, '?' has no
 * tokenizer. */
static int64_t encode(void *ctx, const char *s, size_t n, int64_t *ids, int64_t room) {
    ++*(int *)ctx;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && s[i] == '!')
            return -1;
        if (i < n && s[i] == '?')
            return MOEC_DATA_NO_TEXT;
        if ((int64_t)i < room)
            ids[i] = i < n ? 2 + (unsigned char)s[i] % 50 : EOS;
    }
    return (int64_t)n + 1;
}

static int calls;
static moec_dataset_options usual(void) {
    return (moec_dataset_options){.vocab = VOCAB,
                                  .eos = EOS,
                                  .source = SOURCE,
                                  .target = TARGET,
                                  .encode = encode,
                                  .encode_ctx = &calls};
}

static void put(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    message[0] = 0;
}

static moec_dataset read_text(const char *text, const moec_dataset_options *o) {
    moec_dataset d;
    moec_data_file file = {FILE_A, 0, 0};
    put(FILE_A, text, strlen(text));
    moec_status s = moec_dataset_open(&file, 1, o, &d, sink);
    if (s)
        fail_msg("%s", message);
    return d;
}

static void refuse_bytes(const char *text, size_t n, const moec_dataset_options *o, const char *want) {
    moec_dataset d;
    moec_data_file file = {FILE_A, 0, 0};
    put(FILE_A, text, n);
    moec_status s = moec_dataset_open(&file, 1, o, &d, sink);
    if (!s || !strstr(message, want))
        fail_msg("'%s' is not the refusal wanted, '%s'", message, want);
    moec_dataset_close(&d);
}

static void refuse(const char *text, const char *want) {
    moec_dataset_options o = usual();
    refuse_bytes(text, strlen(text), &o, want);
}

static void expect_tokens(const moec_dataset *d, int64_t example, const int32_t *source, int32_t n_source,
                          const int32_t *target, int32_t n_target) {
    const moec_data_example *x = &d->example[example];
    assert_int_equal(x->source, n_source);
    assert_int_equal(x->target, n_target);
    assert_memory_equal(d->token + x->at, source, (size_t)n_source * sizeof *source);
    assert_memory_equal(d->token + x->at + n_source, target, (size_t)n_target * sizeof *target);
}
#define TOKENS(...) (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)

/* ---- reading ---- */

static void forms_of_a_line(void **state) {
    (void)state;
    moec_dataset_options o = usual();
    moec_dataset d = read_text(
        "{\"input_ids\":[5,9],\"labels\":[7,-100,1,-100,-100]}\n"
        "{\"targets\":\"b\",\"note\":[{\"labels\":3}],\"inputs\":\"a\\u0062\"}\r\n"
        "{\"labels\":[7],\"attention_mask\":[1,0,1,0,0],\"input_ids\":[5,6,7,0,0]}\n"
        "{\"input_ids\":[0],\"attention_mask\":[1],\"targets\":\"\",\"task\":\"x\\n\",\"weight\":2.5}\n"
        "{\"input_ids\":[99],\"labels\":[99],\"task\":\"y\"}\n"
        "{\"input_ids\":[1],\"labels\":[1],\"task\":\"x\\n\",\"weight\":3}\n \n\n",
        &o);
    assert_int_equal(d.examples, 6);
    expect_tokens(&d, 0, TOKENS(5, 9), TOKENS(7, -100, 1));
    expect_tokens(&d, 1, TOKENS(2 + 'a' % 50, 2 + 'b' % 50), TOKENS(2 + 'b' % 50, EOS));
    expect_tokens(&d, 2, TOKENS(5, -1 - 6, 7), TOKENS(7));
    expect_tokens(&d, 3, TOKENS(0), TOKENS(EOS));
    assert_int_equal(d.example[0].task, -1);
    assert_int_equal(d.example[3].task, 0);
    assert_int_equal(d.example[4].task, 1);
    assert_int_equal(d.example[5].task, 0);
    assert_int_equal(moec_dataset_tasks(&d), 2);
    size_t n;
    const char *name = moec_dataset_task(&d, 0, &n);
    assert_int_equal(n, 2);
    assert_memory_equal(name, "x\n", 2);
    assert_true(d.example[0].weight == 1 && d.example[3].weight == 2.5f && d.example[4].weight == 1 &&
                d.example[5].weight == 3);
    moec_dataset_close(&d);

    o.input_eos = 1;
    d = read_text("{\"inputs\":\"a\",\"targets\":\"b\"}", &o);
    expect_tokens(&d, 0, TOKENS(2 + 'a' % 50, EOS), TOKENS(2 + 'b' % 50, EOS));
    moec_dataset_close(&d);
}

static void bad_lines(void **state) {
    (void)state;
    static const char good[] = "{\"input_ids\":[5],\"labels\":[7,1]}\n";
    static const struct {
        const char *line, *want;
    } bad[] = {
        {"[5]", "is not a JSON object with input_ids and labels"},
        {"null", "is not a JSON object"},
        {"{\"input_ids\":[5],\"labels\":[7]", "column 30: the text ends too early"},
        {"{\"input_ids\":[5],\"labels\":[7],}", "a key was expected"},
        {"{\"input_ids\":[5],\"labels\":[7]} {}", "text follows the document"},
        {"{\"input_ids\":[5],\"labels\":[7],\"labels\":[7]}", "a key occurs twice"},
        {"{\"input_ids\":[5],\"labels\":[7],\"task\":\"\xFF\"}", "a string is not UTF-8"},
        {"{\"input_ids\":[5]}", "has neither labels nor targets"},
        {"{\"labels\":[5]}", "has neither input_ids nor inputs"},
        {"{}", "needs input_ids and labels, or inputs and targets"},
        {"{\"input_ids\":[5],\"inputs\":\"a\",\"labels\":[7]}", "input_ids and inputs exclude each other"},
        {"{\"input_ids\":[5],\"targets\":\"a\",\"labels\":[7]}", "targets and labels exclude each other"},
        {"{\"input_ids\":5,\"labels\":[7]}", "input_ids is not an array of integers"},
        {"{\"input_ids\":[\"5\"],\"labels\":[7]}", "input_ids holds something that is no integer"},
        {"{\"input_ids\":[[5]],\"labels\":[7]}", "input_ids holds something"},
        {"{\"input_ids\":[5.0],\"labels\":[7]}", "input_ids holds something"},
        {"{\"input_ids\":[100],\"labels\":[7]}", "input_ids: token id 100 is outside the vocabulary of 100"},
        {"{\"input_ids\":[-1],\"labels\":[7]}", "input_ids: token id -1 is outside"},
        {"{\"input_ids\":[-100],\"labels\":[7]}", "input_ids: token id -100 is outside"},
        {"{\"input_ids\":[4294967301],\"labels\":[7]}", "input_ids: token id 4294967301 is outside"},
        {"{\"input_ids\":[18446744073709551621],\"labels\":[7]}", "input_ids holds something"},
        {"{\"input_ids\":[5],\"labels\":[7,-1]}", "labels: token id -1 is outside"},
        {"{\"input_ids\":[5],\"labels\":[4294967196,7]}", "labels: token id 4294967196 is outside"},
        {"{\"input_ids\":[],\"labels\":[7]}", "input_ids holds no token"},
        {"{\"input_ids\":[5],\"labels\":[]}", "labels holds no token"},
        {"{\"input_ids\":[5],\"labels\":[-100,-100]}", "labels holds no token"},
        {"{\"inputs\":\"\",\"targets\":\"a\"}", "inputs holds no token"},
        {"{\"inputs\":5,\"targets\":\"a\"}", "inputs is not a string"},
        {"{\"inputs\":\"a\",\"targets\":null}", "targets is not a string"},
        {"{\"inputs\":\"!\",\"targets\":\"a\"}", "inputs is not UTF-8"},
        {"{\"input_ids\":[5],\"labels\":[7],\"task\":5}", "task is not a string"},
        {"{\"input_ids\":[5],\"labels\":[7],\"weight\":\"1\"}", "weight is not a number"},
        {"{\"input_ids\":[5],\"labels\":[7],\"weight\":0}", "weight is 0: it must be"},
        {"{\"input_ids\":[5],\"labels\":[7],\"weight\":-1}", "weight is -1"},
        {"{\"input_ids\":[5],\"labels\":[7],\"weight\":1e308}", "weight is 1e+308"},
        {"{\"input_ids\":[5],\"labels\":[7],\"weight\":1e999}", "a number is out of range"},
        {"{\"input_ids\":[5],\"attention_mask\":[1,1],\"labels\":[7]}",
         "attention_mask holds 2 entries, input_ids 1"},
        {"{\"input_ids\":[5],\"attention_mask\":[2],\"labels\":[7]}", "attention_mask holds 2: only 0 and 1"},
        {"{\"input_ids\":[5],\"attention_mask\":[0],\"labels\":[7]}", "input_ids holds no token"},
        {"{\"inputs\":\"a\",\"attention_mask\":[1],\"labels\":[7]}", "attention_mask goes with input_ids"},
        {"{\"input_ids\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17],\"labels\":[7]}",
         "input_ids holds 17 tokens, the model was compiled for at most 16"},
        {"{\"input_ids\":[5],\"labels\":[1,2,3,4,5,6,7,8,9,10,11,12,13]}", "labels holds 13 tokens"},
        {" ", "the line is empty, and it is not the last"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[1000], want[300];
        snprintf(text, sizeof text, "%s%s\n%s", good, bad[i].line, good);
        refuse(text, FILE_A ":2: error: ");
        refuse(text, bad[i].want);
        /* Alone, too: it is the file's last line. */
        snprintf(text, sizeof text, "%s%s", bad[i].line, bad[i].line[0] == ' ' ? "\n{" : "");
        snprintf(want, sizeof want, FILE_A ":1: error: ");
        refuse(text, want);
    }
    refuse("", FILE_A ": error: holds no example");
    refuse("\n \n\n", FILE_A ": error: holds no example");
    refuse("\xEF\xBB\xBF{\"input_ids\":[5],\"labels\":[7]}",
           FILE_A ":1: error: begins with a byte order mark");
    moec_dataset_options o = usual();
    refuse_bytes("{\"input_ids\":[5\0],\"labels\":[7]}\n", 32, &o,
                 FILE_A ":1: error: the line holds a NUL byte");
    o.encode = NULL;
    static const char words[] = "{\"inputs\":\"a\",\"targets\":\"b\"}\n";
    refuse_bytes(words, sizeof words - 1, &o, ":1: error: inputs is text, but there is no tokenizer");
    o = usual();
    moec_dataset d;
    moec_data_file missing = {"test_dataset.none", 0, 0},
                   odd[] = {{FILE_A, -1, 0}, {FILE_A, INFINITY, 0}, {FILE_A, 1, -1}};
    message[0] = 0;
    assert_int_equal(moec_dataset_open(&missing, 1, &o, &d, sink), MOEC_E_OPEN);
    assert_non_null(strstr(message, "test_dataset.none: error: cannot be opened"));
    moec_dataset_close(&d);
    put(FILE_A, good, sizeof good - 1);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(moec_dataset_open(&odd[i], 1, &o, &d, sink), MOEC_E_RANGE);
        moec_dataset_close(&d);
    }
}

static void a_tokenizer_that_is_missing_ends_reading(void **state) {
    (void)state;
    static const char text[] = "{\"inputs\":\"?\",\"targets\":\"b\"}\n{\"inputs\":\"a\",\"targets\":\"b\"}\n";
    moec_dataset_options o = usual();
    moec_data_file file = {FILE_A, 0, 0};
    moec_dataset d;
    o.skip_bad = 1;
    put(FILE_A, text, sizeof text - 1);
    calls = 0;
    assert_int_equal(moec_dataset_open(&file, 1, &o, &d, sink), MOEC_E_OPEN);
    assert_string_equal(message, ""); /* the callback has told */
    assert_int_equal(calls, 1);
    moec_dataset_close(&d);
}

static void bad_lines_skipped(void **state) {
    (void)state;
    static const char text[] = "{\"input_ids\":[5],\"labels\":[7]}\n{\"input_ids\":[5]}\n\n[]\n"
                               "{\"input_ids\":[6],\"labels\":[7]}\n";
    moec_dataset_options o = usual();
    o.skip_bad = 1;
    moec_dataset d = read_text(text, &o);
    assert_int_equal(d.examples, 2);
    assert_int_equal(d.bad, 2);
    assert_string_equal(d.first_bad,
                        FILE_A ":2: error: has neither labels nor targets: a line needs input_ids and "
                               "labels, or inputs and targets as text");
    assert_string_equal(message, "");
    expect_tokens(&d, 1, TOKENS(6), TOKENS(7));
    moec_dataset_close(&d);
    refuse_bytes("[]\n[]\n", 6, &o, FILE_A ": error: holds no example: all of its 2 lines are bad");
}

static void long_examples_cut(void **state) {
    (void)state;
    moec_dataset_options o = usual();
    o.source = 3;
    o.target = 2;
    o.truncate_inputs = o.truncate_targets = 1;
    moec_dataset d = read_text("{\"input_ids\":[5,6,7,8,1],\"labels\":[7,8,9,1]}\n"
                               "{\"input_ids\":[5,6,7],\"labels\":[7,8,9]}\n",
                               &o);
    expect_tokens(&d, 0, TOKENS(5, 6, 7), TOKENS(7, 1));
    expect_tokens(&d, 1, TOKENS(5, 6, 7), TOKENS(7, 8));
    assert_int_equal(d.cut_inputs, 1);
    assert_int_equal(d.cut_targets, 2);
    moec_dataset_close(&d);
    o.truncate_targets = 0;
    static const char text[] = "{\"input_ids\":[5,6,7,8],\"labels\":[7,8,9]}";
    refuse_bytes(text, sizeof text - 1, &o, ":1: error: labels holds 3 tokens");
}

static void many_tasks(void **state) {
    (void)state;
    enum { TASKS = 1000, LINES = 3000 };
    char *text = malloc(LINES * 64);
    size_t n = 0;
    for (int i = 0; i < LINES; i++)
        n += (size_t)sprintf(text + n, "{\"input_ids\":[5],\"labels\":[7],\"task\":\"t%d\"}\n", i % TASKS);
    moec_dataset_options o = usual();
    moec_dataset d = read_text(text, &o);
    assert_int_equal(moec_dataset_tasks(&d), TASKS);
    for (int i = 0; i < LINES; i++) {
        char want[16];
        size_t length;
        const char *name = moec_dataset_task(&d, d.example[i].task, &length);
        assert_int_equal(length, sprintf(want, "t%d", i % TASKS));
        assert_memory_equal(name, want, length);
    }
    moec_dataset_close(&d);
    free(text);
}

/* ---- made-up data ---- */

/* n examples of lengths by the seed: the first two input tokens tell which one it is, weights are 1 to 2.5,
 * some labels inside are ignored. */
static void make_file(const char *path, int n, int first, uint64_t seed) {
    char *text = malloc((size_t)n * 300), *p = text;
    for (int i = 0; i < n; i++) {
        int id = first + i, source = 2 + (int)(moec_data_bits(seed, (uint64_t)i) % 9),
            target = 2 + (int)(moec_data_bits(seed + 1, (uint64_t)i) % 6);
        p += sprintf(p, "{\"input_ids\":[%d,%d", id / 90 + 2, id % 90 + 2);
        for (int k = 2; k < source; k++)
            p += sprintf(p, ",%d", 2 + (i + k) % 90);
        p += sprintf(p, "],\"labels\":[%d", id % 90 + 2);
        for (int k = 1; k < target; k++)
            p += sprintf(p, ",%d", k % 3 == 2 && k + 1 < target ? -100 : 2 + k);
        p += sprintf(p, "],\"weight\":%g}\n", 1 + i % 4 * 0.5);
    }
    put(path, text, (size_t)(p - text));
    free(text);
}

static moec_dataset one_file(int n) {
    make_file(FILE_A, n, 0, 7);
    moec_dataset_options o = usual();
    moec_data_file file = {FILE_A, 0, 0};
    moec_dataset d;
    if (moec_dataset_open(&file, 1, &o, &d, sink))
        fail_msg("%s", message);
    assert_int_equal(d.examples, n);
    return d;
}

static moec_dataset two_files(int a, int b, double weight_a, double weight_b, int64_t cap_b) {
    make_file(FILE_A, a, 0, 7);
    make_file(FILE_B, b, a, 9);
    moec_dataset_options o = usual();
    moec_data_file file[] = {{FILE_A, weight_a, 0}, {FILE_B, weight_b, cap_b}};
    moec_dataset d;
    if (moec_dataset_open(file, 2, &o, &d, sink))
        fail_msg("%s", message);
    assert_int_equal(d.examples, a + b);
    return d;
}

/* ---- order ---- */

static void epochs_are_permutations(void **state) {
    (void)state;
    enum { N = 37, EPOCHS = 5 };
    moec_dataset d = one_file(N);
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        moec_data_order o, other;
        int64_t taken = 0, taken_other = 0, seen[EPOCHS][N];
        moec_data_cursor c = {0, &taken}, c_other = {0, &taken_other};
        assert_int_equal(moec_data_order_open(&d, shuffle, 0, 5, &o, sink), MOEC_OK);
        assert_int_equal(moec_data_order_open(&d, shuffle, 0, 6, &other, sink), MOEC_OK);
        int differs = 0;
        for (int e = 0; e < EPOCHS; e++) {
            int count[N] = {0};
            for (int i = 0; i < N; i++) {
                seen[e][i] = moec_data_draw(&o, &c);
                assert_in_range(seen[e][i], 0, N - 1);
                count[seen[e][i]]++;
                differs |= seen[e][i] != moec_data_draw(&other, &c_other);
            }
            for (int i = 0; i < N; i++)
                assert_int_equal(count[i], 1);
        }
        assert_int_equal(differs, shuffle);
        assert_int_equal(memcmp(seen[0], seen[1], sizeof seen[0]) != 0, shuffle);
        /* A cursor put anywhere draws what was drawn there, backwards as well. */
        for (int64_t at = EPOCHS * N - 1; at >= 0; at -= 11) {
            c.draws = taken = at;
            assert_int_equal(moec_data_draw(&o, &c), seen[at / N][at % N]);
        }
        moec_data_order_close(&o);
        moec_data_order_close(&other);
    }
    moec_dataset_close(&d);
}

/* Where each of five lands in a shuffle, over many keys: 1/5 of them at each place. */
static void shuffles_are_fair(void **state) {
    (void)state;
    enum { N = 5, TRIALS = 20000 };
    int at[N][N] = {{0}};
    for (uint64_t key = 0; key < TRIALS; key++) {
        uint32_t p[N];
        moec_data_permute(p, N, moec_data_bits(3, key));
        for (int i = 0; i < N; i++)
            at[i][p[i]]++;
    }
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) /* six standard deviations */
            assert_in_range(at[i][k], TRIALS / N - 340, TRIALS / N + 340);
}

static double share_of_first(const moec_dataset *d) {
    enum { DRAWS = 20000 };
    moec_data_order o;
    int64_t taken[2] = {0}, first = 0;
    moec_data_cursor c = {0, taken};
    assert_int_equal(moec_data_order_open(d, 1, 0, 5, &o, sink), MOEC_OK);
    for (int i = 0; i < DRAWS; i++)
        first += moec_data_draw(&o, &c) < d->file[0].count;
    assert_int_equal(taken[0], first);
    assert_int_equal(taken[0] + taken[1], DRAWS);
    moec_data_order_close(&o);
    return (double)first / DRAWS;
}

static void mixtures_keep_their_shares(void **state) {
    (void)state;
    static const struct {
        double a, b;
        int64_t cap;
        double share;
    } mix[] = {
        {0, 0, 0, 20. / 80}, {3, 1, 0, 60. / 120}, {1, 1, 20, 0.5}, {1, 0.5, 40, 0.5}, {1, 1, 500, 0.25}};
    for (size_t i = 0; i < sizeof mix / sizeof *mix; i++) {
        moec_dataset d = two_files(20, 60, mix[i].a, mix[i].b, mix[i].cap);
        double share = share_of_first(&d);
        if (fabs(share - mix[i].share) > 0.02)
            fail_msg("mixture %d: %g instead of %g", (int)i, share, mix[i].share);
        moec_dataset_close(&d);
    }
}

/* Files of one size are not shuffled alike. */
static void files_have_orders_of_their_own(void **state) {
    (void)state;
    enum { N = 30 };
    moec_dataset d = two_files(N, N, 1, 1, 0);
    moec_data_order o;
    int64_t taken[2] = {0}, seen[2][N];
    moec_data_cursor c = {0, taken};
    assert_int_equal(moec_data_order_open(&d, 1, 0, 5, &o, sink), MOEC_OK);
    while (taken[0] < N || taken[1] < N) {
        int64_t e = moec_data_draw(&o, &c), f = e >= N;
        if (taken[f] <= N)
            seen[f][taken[f] - 1] = e - f * N;
    }
    assert_memory_not_equal(seen[0], seen[1], sizeof seen[0]);
    moec_data_order_close(&o);
    moec_dataset_close(&d);
}

/* ---- batches ---- */

static moec_data_options plain(int64_t rows, int64_t accumulation) {
    return (moec_data_options){.rows = rows,
                               .accumulation = accumulation,
                               .source = SOURCE,
                               .target = TARGET,
                               .source_least = 1,
                               .target_least = 1,
                               .multiple = 4,
                               .shuffle = 1,
                               .seed = 11};
}

static moec_data *opened(const moec_dataset *set, const moec_data_options *o) {
    moec_data *d;
    message[0] = 0;
    if (moec_data_open(set, o, &d, sink))
        fail_msg("cannot open: %s", message);
    return d;
}

/* The example's tokens in a row from the columns given, as segment `segment`. */
static void check_example(const moec_dataset *set, const moec_data_options *o, const moec_batch *b,
                          int64_t row, int64_t at_source, int64_t at_target, int64_t segment, int64_t example,
                          double each) {
    const moec_data_example *x = &set->example[example];
    const int32_t *token = set->token + x->at;
    for (int64_t i = 0; i < x->source; i++) {
        int64_t at = row * b->source + at_source + i;
        assert_int_equal(b->input_ids[at], token[i] < 0 ? -1 - token[i] : token[i]);
        assert_int_equal(b->encoder_segments[at], token[i] < 0 ? 0 : segment);
    }
    token += x->source;
    for (int64_t i = 0; i < x->target; i++) {
        int64_t at = row * b->target + at_target + i;
        assert_int_equal(b->labels[at], token[i]);
        assert_int_equal(b->decoder_segments[at], segment);
        assert_int_equal(b->decoder_input_ids[at], !i                     ? o->start
                                                   : token[i - 1] == -100 ? o->pad
                                                                          : token[i - 1]);
        assert_true(token[i] == -100 ? b->weight[at] == 0 : fabs(b->weight[at] / each - 1) < 1e-6);
    }
}

/* Checks a batch entry by entry, given its examples; returns the sum of its weights. */
static double check_batch(const moec_dataset *set, const moec_data_options *o, const moec_batch *b,
                          const moec_data_step_info *info, const int64_t *example, int64_t examples) {
    int64_t used = 0, longest_source = 0, longest_target = 0;
    double sum = 0;
    for (int64_t r = 0; r < b->rows && used < examples; r++) {
        int64_t source = 0, target = 0, segment = 1;
        do {
            const moec_data_example *x = &set->example[example[used]];
            int64_t real = 0;
            for (int64_t i = 0; i < x->target; i++)
                real += set->token[x->at + x->source + i] != -100;
            double each = x->weight / info->mass / (o->per_example ? (double)real : 1);
            check_example(set, o, b, r, source, target, segment++, example[used++], each);
            source += x->source;
            target += x->target;
        } while (o->pack && used < examples && b->encoder_segments[r * b->source + source] == segment &&
                 source < b->source);
        for (int64_t i = source; i < b->source; i++) {
            assert_int_equal(b->encoder_segments[r * b->source + i], 0);
            assert_int_equal(b->input_ids[r * b->source + i], o->pad);
        }
        for (int64_t i = target; i < b->target; i++) {
            assert_int_equal(b->labels[r * b->target + i], -100);
            assert_true(b->weight[r * b->target + i] == 0);
            assert_int_equal(b->decoder_segments[r * b->target + i], !o->pack);
        }
        longest_source = source > longest_source ? source : longest_source;
        longest_target = target > longest_target ? target : longest_target;
    }
    assert_int_equal(used, examples);
    for (int64_t i = 0; i < b->rows * b->target; i++)
        sum += (double)b->weight[i];
    assert_true(b->source >= longest_source && b->target >= longest_target);
    assert_true(b->source < longest_source + o->multiple && b->target < longest_target + o->multiple);
    assert_true(b->source <= o->source && b->target <= o->target && b->rows <= o->rows);
    return sum;
}

/* Runs steps, checks each, and counts how often each example came; returns the steps before the end. */
static int run_steps(const moec_dataset *set, const moec_data_options *o, moec_data *d, int steps, int *count,
                     double *fill) {
    enum { ROOM = 512 };
    int64_t example[ROOM], slots = 0, tokens = 0;
    for (int s = 0; s < steps; s++) {
        moec_data_step_info info = moec_data_step(d);
        if (!info.batches)
            return s;
        assert_in_range(info.batches, 1, o->accumulation);
        int64_t examples = 0;
        double sum = 0;
        for (int64_t i = 0; i < info.batches; i++) {
            moec_batch b = moec_data_batch(d, i);
            int64_t n = moec_data_batch_examples(d, i, example, ROOM);
            assert_in_range(n, 1, ROOM);
            sum += check_batch(set, o, &b, &info, example, n);
            for (int64_t k = 0; k < n; k++)
                count[example[k]]++;
            examples += n;
            slots += b.rows * (b.source + b.target);
        }
        assert_int_equal(examples, info.examples);
        assert_true(fabs(sum - 1) < 1e-5);
        tokens += info.source_tokens + info.target_tokens;
    }
    if (fill)
        *fill = (double)tokens / (double)slots;
    return steps;
}

static void padded_batches(void **state) {
    (void)state;
    enum { N = 96, ROWS = 4, MICRO = 2 };
    moec_dataset set = one_file(N);
    double fill[2];
    for (int per_example = 0; per_example < 2; per_example++)
        for (int shuffle = 0; shuffle < 2; shuffle++) {
            moec_data_options o = plain(ROWS, MICRO);
            int count[N] = {0};
            o.per_example = per_example;
            o.shuffle = shuffle;
            moec_data *d = opened(&set, &o);
            assert_int_equal(run_steps(&set, &o, d, N / ROWS / MICRO * 3, count, &fill[shuffle]), 36);
            for (int i = 0; i < N; i++) /* 12 steps an epoch, which is the window, too */
                assert_int_equal(count[i], 3);
            moec_data_close(d);
        }
    assert_true(fill[1] > fill[0] + 0.1); /* by length */
    moec_dataset_close(&set);
}

static void fewer_examples_than_a_step(void **state) {
    (void)state;
    enum { N = 3 };
    moec_dataset set = one_file(N);
    for (int pack = 0; pack < 2; pack++) {
        moec_data_options o = plain(4, 2);
        int count[N] = {0};
        o.pack = pack;
        moec_data *d = opened(&set, &o);
        run_steps(&set, &o, d, 30, count, NULL);
        for (int i = 0; i < N; i++)
            assert_true(count[i] >= 80 && abs(count[i] - count[0]) <= 8);
        moec_data_close(d);
    }
    moec_dataset_close(&set);
}

static void constant_extents(void **state) {
    (void)state;
    enum { N = 5 };
    moec_dataset set = one_file(N);
    moec_data_options o = plain(4, 1);
    o.rows_least = 4;
    o.source_least = SOURCE;
    o.target_least = TARGET;
    o.once = 1;
    moec_data *d = opened(&set, &o);
    for (int s = 0; s < 2; s++) {
        moec_data_step_info info = moec_data_step(d);
        assert_int_equal(info.batches, 1);
        assert_int_equal(info.examples, s ? 1 : 4);
        moec_batch b = moec_data_batch(d, 0);
        assert_true(b.rows == 4 && b.source == SOURCE && b.target == TARGET);
        double sum = 0;
        for (int64_t i = 0; i < 4 * TARGET; i++) {
            sum += (double)b.weight[i];
            assert_true((b.labels[i] == -100 || i / TARGET < info.examples) &&
                        (b.labels[i] != -100 || b.weight[i] == 0));
        }
        for (int64_t r = 0; r < 4; r++)
            assert_int_equal(b.encoder_segments[r * SOURCE], 1); /* no row of padding alone */
        assert_true(fabs(sum - 1) < 1e-6);
    }
    assert_int_equal(moec_data_step(d).batches, 0);
    assert_int_equal(moec_data_step(d).batches, 0);
    moec_data_close(d);
    moec_dataset_close(&set);
}

static void evaluation_sees_all_once_in_order(void **state) {
    (void)state;
    enum { A = 13, B = 9 };
    moec_dataset set = two_files(A, B, 5, 1, 3);
    moec_data_options o = plain(4, 1);
    o.once = 1;
    moec_data *d = opened(&set, &o);
    int64_t next = 0;
    for (moec_data_step_info info; (info = moec_data_step(d)).batches;) {
        int64_t example[4], n = moec_data_batch_examples(d, 0, example, 4);
        assert_int_equal(n, A + B - next < 4 ? A + B - next : 4);
        for (int64_t i = 0; i < n; i++)
            assert_int_equal(example[i], next++);
        assert_int_equal(moec_data_batch(d, 0).rows, n);
    }
    assert_int_equal(next, A + B);
    moec_data_close(d);
    o.pack = 1;
    d = opened(&set, &o);
    int count[A + B] = {0};
    run_steps(&set, &o, d, 1000, count, NULL);
    for (int i = 0; i < A + B; i++)
        assert_int_equal(count[i], 1);
    moec_data_close(d);
    moec_dataset_close(&set);
}

static void packed_batches(void **state) {
    (void)state;
    enum { N = 200 };
    moec_dataset set = one_file(N);
    for (int per_example = 0; per_example < 2; per_example++) {
        moec_data_options o = plain(4, 3);
        int count[N] = {0}, sum = 0;
        double fill;
        o.pack = 1;
        o.per_example = per_example;
        moec_data *d = opened(&set, &o);
        run_steps(&set, &o, d, 100, count, &fill);
        int least = count[0], most = count[0];
        for (int i = 0; i < N; i++) {
            least = count[i] < least ? count[i] : least;
            most = count[i] > most ? count[i] : most;
            sum += count[i];
        }
        assert_true(sum > 100 * 4 * 3 * 3 / 2);     /* rows do hold several */
        assert_true(most - least <= 1 && most > 1); /* one waits at most until the next step */
        assert_true(fill > 0.75);
        moec_data_close(d);
    }
    moec_dataset_close(&set);
}

/* Every array of a packed batch, by hand: segments counted from 1 in each row, targets shifted behind the
 * start token in each segment, zeros and -100 behind the last. */
static void packed_arrays_by_hand(void **state) {
    (void)state;
    static const char text[] =
        "{\"input_ids\":[3,16,82,17,65,24,23,44],\"labels\":[16,82,17,65,24,23,44,1]}\n"
        "{\"input_ids\":[5,13,11,20,80,24,21],\"labels\":[13,11,21,81,24,-100,1]}\n"
        "{\"input_ids\":[3,93,75],\"labels\":[93,75,1]}\n"
        "{\"input_ids\":[6,25,23,39],\"attention_mask\":[1,0,1,1],\"labels\":[39,11]}\n";
    static const int64_t input[] = {3, 16, 82, 17, 65, 24, 23, 44, 5, 13, 11, 20, 80, 24, 21, 0,
                                    3, 93, 75, 6,  25, 23, 39, 0,  0, 0,  0,  0,  0,  0,  0,  0};
    static const int64_t encoder[] = {1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0,
                                      1, 1, 1, 2, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const int64_t decoder[] = {0, 16, 82, 17, 65, 24, 23, 44, 0, 13, 11, 21, 81, 24, 0, 0,
                                      0, 93, 75, 0,  39, 0,  0,  0,  0, 0,  0,  0,  0,  0,  0, 0};
    static const int64_t decoder_segments[] = {1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0,
                                               1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const int64_t labels[] = {16,   82,   17,   65,   24,   23,   44,   1,    13,   11,  21,
                                     81,   24,   -100, 1,    -100, 93,   75,   1,    39,   11,  -100,
                                     -100, -100, -100, -100, -100, -100, -100, -100, -100, -100};
    moec_dataset_options read = usual();
    read.target = SOURCE;
    moec_dataset set = read_text(text, &read);
    moec_data_options o = plain(2, 1);
    o.pack = o.once = o.per_example = 1;
    o.target = SOURCE;
    moec_data *d = opened(&set, &o);
    moec_data_step_info info = moec_data_step(d);
    moec_batch b = moec_data_batch(d, 0);
    assert_true(info.batches == 1 && info.examples == 4 && info.source_tokens == 21 &&
                info.target_tokens == 19);
    assert_true(b.rows == 2 && b.source == 16 && b.target == 16 && !b.sentence);
    assert_memory_equal(b.input_ids, input, sizeof input);
    assert_memory_equal(b.encoder_segments, encoder, sizeof encoder);
    assert_memory_equal(b.decoder_input_ids, decoder, sizeof decoder);
    assert_memory_equal(b.decoder_segments, decoder_segments, sizeof decoder_segments);
    assert_memory_equal(b.labels, labels, sizeof labels);
    for (int i = 0; i < 32; i++) { /* a quarter for each example, over its real tokens */
        int length = i < 8 ? 8 : i < 16 ? 6 : i < 19 ? 3 : 2;
        assert_true(b.weight[i] == (labels[i] == -100 ? 0 : 0.25f / (float)length));
    }
    moec_data_close(d);
    /* Unpacked, the decoder's input is the labels shifted along the whole row. */
    o.pack = 0;
    o.rows = 4;
    d = opened(&set, &o);
    moec_data_step(d);
    b = moec_data_batch(d, 0);
    assert_true(b.rows == 4 && b.source == 8 && b.target == 8);
    static const int64_t third[] = {0, 93, 75, 1, 0, 0, 0, 0}, fourth[] = {1, 0, 1, 1, 0, 0, 0, 0};
    assert_memory_equal(b.decoder_input_ids + 16, third, sizeof third);
    assert_memory_equal(b.encoder_segments + 24, fourth, sizeof fourth);
    moec_data_close(d);
    moec_dataset_close(&set);
}

static void sentence_vectors_follow(void **state) {
    (void)state;
    enum { N = 20, WIDTH = 3 };
    moec_dataset set = one_file(N);
    float sentence[N * WIDTH];
    for (int i = 0; i < N * WIDTH; i++)
        sentence[i] = (float)i;
    moec_data_options o = plain(4, 2);
    o.sentence = sentence;
    o.sentence_width = WIDTH;
    moec_data *d = opened(&set, &o);
    for (int s = 0; s < 5; s++) {
        moec_data_step_info info = moec_data_step(d);
        for (int64_t i = 0; i < info.batches; i++) {
            moec_batch b = moec_data_batch(d, i);
            int64_t example[4];
            moec_data_batch_examples(d, i, example, 4);
            for (int64_t k = 0; k < b.rows * WIDTH; k++)
                assert_true(b.sentence[k] == sentence[example[k / WIDTH] * WIDTH + k % WIDTH]);
        }
    }
    moec_data_close(d);
    o.pack = 1;
    message[0] = 0;
    assert_int_equal(moec_data_open(&set, &o, &d, sink), MOEC_E_RANGE);
    assert_non_null(strstr(message, "cannot share rows"));
    moec_dataset_close(&set);
}

static void bad_requests(void **state) {
    (void)state;
    moec_dataset set = one_file(20);
    moec_data *d;
    for (int i = 0; i < 8; i++) {
        moec_data_options o = plain(4, 2);
        int64_t *field[] = {&o.rows,         &o.accumulation, &o.source,  &o.target,
                            &o.source_least, &o.rows_least,   &o.multiple};
        if (i < 5)
            *field[i] = i == 4 ? SOURCE + 1 : 0;
        else if (i < 7)
            *field[i] = i == 5 ? 5 : -1;
        else
            o.source = 3; /* examples are longer */
        assert_int_equal(moec_data_open(&set, &o, &d, sink), MOEC_E_ARGUMENT);
        assert_null(d);
    }
    moec_data_options o = plain(INT32_MAX, INT32_MAX);
    o.source = o.target = INT32_MAX;
    assert_int_equal(moec_data_open(&set, &o, &d, sink), MOEC_E_MEMORY);
    moec_dataset_close(&set);
}

/* ---- position ---- */

enum { STEPS = 60 };

/* A number that depends on everything in a step. */
static uint64_t digest(moec_data *d) {
    moec_data_step_info info = moec_data_step(d);
    uint64_t h = moec_data_bits((uint64_t)info.batches, (uint64_t)(info.epoch * 1e6));
    for (int64_t i = 0; i < info.batches; i++) {
        moec_batch b = moec_data_batch(d, i);
        const int64_t *part[] = {b.input_ids, b.encoder_segments, b.decoder_input_ids, b.decoder_segments,
                                 b.labels};
        for (int p = 0; p < 5; p++)
            for (int64_t k = 0; k < b.rows * (p < 2 ? b.source : b.target); k++)
                h = moec_data_bits(h, (uint64_t)part[p][k]);
        for (int64_t k = 0; k < b.rows * b.target; k++) {
            uint32_t bits;
            memcpy(&bits, &b.weight[k], 4);
            h = moec_data_bits(h, bits);
        }
    }
    return h;
}

static void check_positions(const moec_dataset *set, const moec_data_options *o) {
    uint64_t whole[STEPS];
    int64_t position[STEPS][8];
    moec_data *d = opened(set, o);
    int64_t n = moec_data_position_count(d);
    assert_in_range(n, 3, 8);
    for (int s = 0; s < STEPS; s++) {
        moec_data_position_get(d, position[s]);
        whole[s] = digest(d);
    }
    moec_data_close(d);
    moec_data *used = opened(set, o); /* one that jumps about, beside fresh ones */
    for (int s = STEPS - 1; s >= 0; s -= 7) {
        moec_data *fresh = opened(set, o);
        assert_int_equal(moec_data_position_set(fresh, position[s], n, sink), MOEC_OK);
        assert_int_equal(moec_data_position_set(used, position[s], n, sink), MOEC_OK);
        for (int k = s; k < STEPS; k++) {
            int64_t now[8];
            moec_data_position_get(fresh, now);
            assert_memory_equal(now, position[k], (size_t)n * sizeof *now);
            assert_true(digest(fresh) == whole[k]);
            assert_true(digest(used) == whole[k]);
        }
        moec_data_close(fresh);
    }
    moec_data_close(used);
}

static void positions_continue(void **state) {
    (void)state;
    moec_dataset set[] = {one_file(100), two_files(23, 60, 1, 2, 30)};
    for (int i = 0; i < 2; i++)
        for (int mode = 0; mode < 8; mode++) {
            moec_data_options o = plain(3, 2);
            o.pack = mode & 1;
            o.shuffle = mode >> 1 & 1;
            o.once = mode >> 2;
            check_positions(&set[i], &o);
        }
    for (int i = 0; i < 2; i++)
        moec_dataset_close(&set[i]);
}

static void foreign_positions_refused(void **state) {
    (void)state;
    moec_dataset set = one_file(100), other = one_file(101);
    for (int pack = 0; pack < 2; pack++) {
        moec_data_options o = plain(3, 2), seed = o, rows = plain(4, 2);
        o.pack = seed.pack = rows.pack = pack;
        seed.seed++;
        moec_data *d = opened(&set, &o),
                  *strange[] = {opened(&set, &seed), opened(&set, &rows), opened(&other, &o)};
        int64_t position[3], bad[3];
        uint64_t want;
        digest(d);
        moec_data_position_get(d, position);
        for (int i = 0; i < 3; i++) {
            message[0] = 0;
            assert_int_equal(moec_data_position_set(strange[i], position, 3, sink), MOEC_E_MISMATCH);
            assert_non_null(strstr(message, "are not those of the saved position"));
            moec_data_close(strange[i]);
        }
        assert_int_equal(moec_data_position_set(d, position, 2, sink), MOEC_E_MISMATCH);
        static const int64_t value[] = {-1, INT64_MAX, INT64_MIN};
        for (int i = 0; i < 6; i++) {
            memcpy(bad, position, sizeof bad);
            bad[1 + i % 2] = value[i / 2];
            assert_int_equal(moec_data_position_set(d, bad, 3, sink), MOEC_E_FORMAT);
        }
        want = digest(d); /* a refusal changes nothing */
        assert_int_equal(moec_data_position_set(d, position, 3, sink), MOEC_OK);
        assert_true(digest(d) == want);
        moec_data_close(d);
    }
    moec_dataset_close(&set);
    moec_dataset_close(&other);
}

/* The numbers of lines, tokens and examples are the same; a label is not. */
static void changed_data_are_noticed(void **state) {
    (void)state;
    moec_dataset_options read = usual();
    moec_dataset set =
        read_text("{\"input_ids\":[5],\"labels\":[7]}\n{\"input_ids\":[5],\"labels\":[8]}\n", &read);
    moec_dataset other =
        read_text("{\"input_ids\":[5],\"labels\":[7]}\n{\"input_ids\":[5],\"labels\":[9]}\n", &read);
    moec_data_options o = plain(1, 1);
    moec_data *d = opened(&set, &o), *strange = opened(&other, &o);
    int64_t position[3];
    moec_data_position_get(d, position);
    assert_int_equal(moec_data_position_set(strange, position, 3, sink), MOEC_E_MISMATCH);
    moec_data_close(d);
    moec_data_close(strange);
    o.once = 1;
    d = opened(&set, &o);
    moec_data_position_get(d, position);
    position[2] = 3; /* of 2 */
    assert_int_equal(moec_data_position_set(d, position, 3, sink), MOEC_E_FORMAT);
    position[2] = 2;
    assert_int_equal(moec_data_position_set(d, position, 3, sink), MOEC_OK);
    assert_int_equal(moec_data_step(d).batches, 0);
    moec_data_close(d);
    moec_dataset_close(&set);
    moec_dataset_close(&other);
}

static int clean(void **state) {
    (void)state;
    unlink(FILE_A);
    unlink(FILE_B);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_a_line),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(a_tokenizer_that_is_missing_ends_reading),
        cmocka_unit_test(bad_lines_skipped),
        cmocka_unit_test(long_examples_cut),
        cmocka_unit_test(many_tasks),
        cmocka_unit_test(epochs_are_permutations),
        cmocka_unit_test(shuffles_are_fair),
        cmocka_unit_test(mixtures_keep_their_shares),
        cmocka_unit_test(files_have_orders_of_their_own),
        cmocka_unit_test(padded_batches),
        cmocka_unit_test(fewer_examples_than_a_step),
        cmocka_unit_test(constant_extents),
        cmocka_unit_test(evaluation_sees_all_once_in_order),
        cmocka_unit_test(packed_batches),
        cmocka_unit_test(packed_arrays_by_hand),
        cmocka_unit_test(sentence_vectors_follow),
        cmocka_unit_test(bad_requests),
        cmocka_unit_test(positions_continue),
        cmocka_unit_test(foreign_positions_refused),
        cmocka_unit_test(changed_data_are_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
