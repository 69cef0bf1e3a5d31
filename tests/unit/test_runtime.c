/* The runtime against a program written by hand (runtime_fake.h): opening and refusing, running, the pool, adapters,
 * decoding, and the command line in a child process. */
#include "runtime_fake.h"

/* ---- opening ---- */

static void refuse_weights(const char *path, const moec_program *p, moec_status want, const char *word) {
    char message[1000];
    moec_instance *m = (moec_instance *)&image;
    moec_options o = {.weights = path, .threads = 1, .message = message, .message_room = sizeof message};
    assert_int_equal(moec_open(p, &o, &m), want);
    assert_null(m);
    if (!strstr(message, word))
        fail_msg("'%s' lacks '%s'", message, word);
    assert_null(strchr(message, '\n'));
}

static void opens(void **state) {
    (void)state;
    moec_instance *m = open_good(2);
    assert_int_equal(moec_find_function(&program, "step"), 2);
    assert_int_equal(moec_find_function(&program, "none"), -1);
    assert_int_equal(moec_find_symbol(&program, "P"), P);
    moec_close(m);
    moec_close(NULL);
}

static void refuses_weights(void **state) {
    (void)state;
    refuse_weights(path_of("absent"), &program, MOEC_E_OPEN, "absent: error: cannot be opened");
    refuse_weights(folder, &program, MOEC_E_OPEN, "not a regular file");
    const char *fifo = path_of("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    refuse_weights(fifo, &program, MOEC_E_OPEN, "not a regular file");
    refuse_weights(write_file("short", &image, 20), &program, MOEC_E_FORMAT, "too short");
    refuse_weights(write_file("cut", &image, sizeof image - 1), &program, MOEC_E_FORMAT, "cut");
    refuse_weights(NULL, &program, MOEC_E_OPEN, "no weights");
    Image other = image;
    char words[512];
    other.h.hash++;
    strcpy(other.h.name, "theirs");
    snprintf(words, sizeof words,
             "another compilation: it is 'theirs', hash 000000000000004e, %d bytes, ABI %d, little-endian; this program is 'fake', "
             "hash 000000000000004d, %d bytes, ABI %d, little-endian: compile",
             (int)sizeof image, MOEC_ABI, (int)sizeof image, MOEC_ABI);
    refuse_weights(write_file("other", &other, sizeof other), &program, MOEC_E_MISMATCH, words);
    other.h.abi++;
    memset(other.h.name, '\n', sizeof other.h.name);
    snprintf(words, sizeof words, "ABI %d, little-endian; this program is 'fake', hash 000000000000004d, %d bytes, ABI %d",
             MOEC_ABI + 1, (int)sizeof image, MOEC_ABI);
    refuse_weights(write_file("abi", &other, sizeof other), &program, MOEC_E_MISMATCH, words);
    refuse_weights(path_of("abi"), &program, MOEC_E_MISMATCH, "another version: it is '\\012\\012");
    other = image;
    strcpy(other.h.name, "theirs");
    for (size_t i = 0; i < 4; i++) {
        ((unsigned char *)&other.h.order)[i] = ((const unsigned char *)&image.h.order)[3 - i];
        ((unsigned char *)&other.h.abi)[i] = ((const unsigned char *)&image.h.abi)[3 - i];
    }
    for (size_t i = 0; i < 8; i++)
        ((unsigned char *)&other.h.hash)[i] = ((const unsigned char *)&image.h.hash)[7 - i];
    snprintf(words, sizeof words, "another byte order: it is 'theirs', hash 000000000000004d");
    refuse_weights(write_file("order", &other, sizeof other), &program, MOEC_E_MISMATCH, words);
    refuse_weights(path_of("order"), &program, MOEC_E_MISMATCH, "big-endian; this program is 'fake'");
    other = image;
    other.h.order = 0;
    refuse_weights(write_file("order", &other, sizeof other), &program, MOEC_E_FORMAT, "byte order is 00000000, not 01020304");
    other = image;
    other.h.magic[0] = 'm';
    refuse_weights(write_file("magic", &other, sizeof other), &program, MOEC_E_FORMAT,
                   "not a moec weights file");
    moec_program p = program;
    p.abi++;
    refuse_weights(path_of("fake.weights"), &p, MOEC_E_MISMATCH, "ABI");
    p = program;
    p.adapter_init = sizeof image - 8;
    refuse_weights(path_of("fake.weights"), &p, MOEC_E_FORMAT, "adapter");
}

/* A program whose weights have the hash of their contents, and those. */
static moec_program hashed(Image *w) {
    moec_program p = program;
    *w = image;
    p.weights_hash = w->h.hash = moec_fnv(MOEC_FNV_START, (const unsigned char *)w + sizeof w->h, sizeof *w - sizeof w->h);
    return p;
}

static void hashes_weights(void **state) {
    (void)state;
    Image w;
    moec_program p = hashed(&w);
    char message[512] = "", words[128];
    moec_options o = {.threads = 1, .message = message, .message_room = sizeof message};
    moec_weights_header h;
    for (int how = 0; how < 6; how++) {
        const char *path = write_file("hashed", &w, sizeof w);
        int damaged = how >= 3;
        o.check = 1;
        o.map = how % 3 == 1;
        o.weights = how % 3 == 2 ? NULL : path;
        p.embedded = o.weights ? NULL : (const unsigned char *)&w;
        moec_instance *m = NULL;
        assert_int_equal(moec_open(&p, &o, &m), damaged ? MOEC_E_FORMAT : MOEC_OK);
        assert_int_equal(moec_weights_info(path, 1, &h, message, damaged ? 0 : sizeof message), damaged ? MOEC_E_FORMAT : MOEC_OK);
        moec_close(m);
        if (damaged) {
            snprintf(words, sizeof words, "%s: error: is damaged: its contents have hash ", o.weights ? "hashed" : "embedded weights");
            if (!strstr(message, words))
                fail_msg("'%s' lacks '%s'", message, words);
            snprintf(words, sizeof words, ", its header says %016llx", (unsigned long long)p.weights_hash);
            if (!strstr(message, words))
                fail_msg("'%s' lacks '%s'", message, words);
            o.check = 0; /* not asked for, not seen */
            assert_int_equal(moec_open(&p, &o, &m), MOEC_OK);
            moec_close(m);
        }
        if (how == 2)
            w.end[39] ^= 1;
    }
    assert_int_equal(moec_weights_info(path_of("hashed"), 0, &h, NULL, 0), MOEC_OK);
    assert_memory_equal(&h, &w.h, sizeof h);
    assert_int_equal(moec_weights_info(path_of("good"), 0, &h, NULL, 0), MOEC_E_FORMAT);
    assert_int_equal(moec_weights_info(NULL, 0, &h, NULL, 0), MOEC_E_ARGUMENT);
}

static void opens_embedded(void **state) {
    (void)state;
    moec_program p = program;
    p.embedded = (const unsigned char *)&image;
    moec_instance *m;
    assert_int_equal(moec_open(&p, NULL, &m), MOEC_OK);
    moec_close(m);
    p.weights_hash++;
    assert_int_equal(moec_open(&p, NULL, &m), MOEC_E_MISMATCH);
}

static void tells_statuses(void **state) {
    (void)state;
    for (int i = 0; i < MOEC_E_STATUS_COUNT; i++)
        assert_true(strlen(moec_status_text((moec_status)i)) > 3);
    assert_non_null(moec_status_text((moec_status)-1));
}

/* ---- running ---- */

static void runs_and_checks(void **state) {
    (void)state;
    moec_instance *m = open_good(2);
    int64_t sym[4] = {2, 3, 999, 999}; /* P and T play no part in encode */
    int64_t ids[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {1, 1, 1, 1, 0, 1};
    float hidden[12];
    void *arg[3] = {ids, mask, hidden};
    assert_int_equal(moec_run(m, 0, sym, arg), MOEC_OK);
    for (int i = 0; i < 6; i++)
        assert_true(hidden[2 * i] == (float)(ids[i] * mask[i]));
    ids[5] = VOCAB;
    assert_int_equal(moec_run(m, 0, sym, arg), MOEC_E_INDEX);
    ids[5] = 0;
    sym[S] = 9;
    assert_int_equal(moec_run(m, 0, sym, arg), MOEC_E_RANGE);
    sym[S] = 0;
    assert_int_equal(moec_run(m, 0, sym, arg), MOEC_E_RANGE);
    sym[S] = 3;
    arg[1] = NULL;
    assert_int_equal(moec_run(m, 0, sym, arg), MOEC_E_ARGUMENT);
    assert_int_equal(moec_run(m, 9, sym, arg), MOEC_E_ARGUMENT);
    assert_int_equal(moec_run(NULL, 0, sym, arg), MOEC_E_ARGUMENT);
    /* A grown output has to be its input's buffer. */
    int64_t step_sym[4] = {1, 1, 0, 1}, token[1] = {0}, next[1];
    float cross[1] = {5}, cache[CAPACITY], other[CAPACITY], logits[VOCAB];
    void *step_arg[7] = {token, cross, mask, cache, logits, next, other};
    assert_int_equal(moec_run(m, 2, step_sym, step_arg), MOEC_E_ARGUMENT);
    step_arg[6] = cache;
    assert_int_equal(moec_run(m, 2, step_sym, step_arg), MOEC_OK);
    assert_int_equal(next[0], 5);
    step_sym[P] = CAPACITY;
    assert_int_equal(moec_run(m, 2, step_sym, step_arg), MOEC_E_RANGE);
    moec_close(m);
}

static void reads_tables(void **state) {
    (void)state;
    moec_axis a = moec_axis_of(&program, &functions[2], 6, 1);
    assert_int_equal(a.symbol, P);
    assert_int_equal(a.scale, 1);
    assert_int_equal(a.base, 1);
    a = moec_axis_of(&program, &functions[2], 4, 2);
    assert_int_equal(a.symbol, -1);
    assert_int_equal(a.base, VOCAB);
    assert_int_equal(moec_symbols_used(&program, &functions[0]), 1u << B | 1u << S);
    assert_int_equal(moec_symbols_used(&program, &functions[2]), 1u << B | 1u << S | 1u << P);
}

/* ---- pool ---- */

typedef struct Sum {
    int64_t out[64];
    int worker_bad, workers;
} Sum;

static void square(void *arg, int64_t i, int worker) {
    Sum *s = arg;
    if (worker < 0 || worker >= s->workers)
        s->worker_bad = 1;
    s->out[i] += i * i;
}

static void pool_does_all_once(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        moec_pool *pool = moec_pool_new(threads);
        assert_non_null(pool);
        assert_int_equal(moec_pool_workers(pool), threads);
        Sum s = {.workers = threads};
        enum { ROUNDS = 3000 };
        for (int r = 0; r < ROUNDS; r++) {
            if (r % 1000 == 500)
                usleep(2000); /* let the workers fall asleep */
            moec_parallel(pool, r % 65, square, &s);
        }
        int64_t times[64] = {0};
        for (int r = 0; r < ROUNDS; r++)
            for (int i = 0; i < r % 65; i++)
                times[i]++;
        for (int i = 0; i < 64; i++)
            assert_int_equal(s.out[i], times[i] * i * i);
        assert_false(s.worker_bad);
        moec_pool_free(pool);
    }
    Sum s = {.workers = 1};
    moec_parallel(NULL, 3, square, &s);
    assert_int_equal(s.out[2], 4);
}

/* Stages of BLOCKS tasks: each task adds up what the stage before it left, but only behind its wait. */
enum { STAGES = 7, BLOCKS = 5 };
typedef struct Stages {
    moec_pool *pool;
    int64_t out[STAGES][BLOCKS];
} Stages;

static void add_stage(void *arg, int64_t i, int worker) {
    Stages *s = arg;
    int64_t stage = i / BLOCKS, sum = 1;
    (void)worker;
    if (i % 3 == 0)
        usleep(20); /* so that others come first to where they wait */
    moec_wait(s->pool, stage * BLOCKS);
    for (int k = 0; stage > 0 && k < BLOCKS; k++)
        sum += s->out[stage - 1][k];
    s->out[stage][i % BLOCKS] = sum;
}

static void tasks_wait_for_those_in_front(void **state) {
    (void)state;
    for (int threads = 0; threads <= 5; threads++) {
        Stages s = {.pool = threads ? moec_pool_new(threads) : NULL};
        for (int r = 0; r < 200; r++) {
            memset(s.out, 0, sizeof s.out);
            moec_parallel(s.pool, STAGES * BLOCKS, add_stage, &s);
            int64_t expected = 1;
            for (int stage = 0; stage < STAGES; stage++, expected = expected * BLOCKS + 1)
                for (int k = 0; k < BLOCKS; k++)
                    assert_int_equal(s.out[stage][k], expected);
        }
        moec_pool_free(s.pool);
    }
}

/* ---- adapters ---- */

static int64_t first_token(moec_instance *m) {
    int64_t ids[2] = {2, 3}, mask[2] = {1, 1}, tokens[1] = {-1}, steps;
    moec_generate_options o = {.max_length = 1, .eos = -1};
    assert_int_equal(moec_generate(m, 1, 2, ids, mask, NULL, &o, tokens, &steps, NULL, NULL), MOEC_OK);
    assert_int_equal(steps, 1);
    return tokens[0];
}

static void swaps_adapters(void **state) {
    (void)state;
    char message[1000];
    moec_instance *m = open_good(1);
    assert_int_equal(first_token(m), 5);
    assert_int_equal(moec_load_adapter(m, path_of("good"), message, sizeof message), MOEC_OK);
    assert_int_equal(first_token(m), 10);
    /* prepare refuses this one; the one before stays */
    static const float negative[8] = {0, 0, 0, 0, 0, 0, -1, 1};
    const char *bad = write_adapter("negative", "{" SCALE "," ROUTER "}", negative, 32);
    assert_int_equal(moec_load_adapter(m, bad, message, sizeof message), MOEC_E_RANGE);
    assert_int_equal(first_token(m), 10);
    moec_close(m);
    moec_options o = {.weights = path_of("fake.weights"), .adapter = path_of("good"), .threads = 1};
    assert_int_equal(moec_open(&program, &o, &m), MOEC_OK);
    assert_int_equal(first_token(m), 10);
    moec_close(m);
}

/* What is in force of the weights themselves. */
static float scale_in_weights(const moec_instance *m) {
    float scale;
    memcpy(&scale, m->weights + offsetof(Image, scale), sizeof scale);
    return scale;
}

static void needs_no_file_behind_open(void **state) {
    (void)state;
    const char *path = write_file("replaced", &image, sizeof image);
    moec_options o = {.weights = path, .threads = 1};
    moec_instance *m, *second, *mapped;
    assert_int_equal(moec_open(&program, &o, &m), MOEC_OK);
    o = (moec_options){.weights_of = m, .threads = 1};
    assert_int_equal(moec_open(&program, &o, &second), MOEC_OK);
    assert_int_equal(moec_open_bytes(&program, &o) + program.weights_bytes,
                     moec_open_bytes(&program, &(moec_options){.threads = 1}));
    assert_ptr_equal(second->weights, m->weights);
    o = (moec_options){.weights = path, .threads = 1, .map = 1};
    assert_int_equal(moec_open(&program, &o, &mapped), MOEC_OK);
    static const char zeros[sizeof image];
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, zeros, sizeof image - 64, 64), sizeof image - 64);
    assert_true(scale_in_weights(mapped) == 0); /* the file itself: as the option says */
    moec_close(mapped);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    assert_true(scale_in_weights(m) == 1);
    assert_int_equal(first_token(m), 5);
    moec_close(m);
    assert_true(scale_in_weights(second) == 1);
    assert_int_equal(first_token(second), 5);
    o = (moec_options){.weights_of = second, .threads = 1, .weights = path};
    assert_int_equal(moec_open(&program, &o, &m), MOEC_E_ARGUMENT);
    moec_program p = program;
    o.weights = NULL;
    assert_int_equal(moec_open(&p, &o, &m), MOEC_E_ARGUMENT);
    moec_close(second);
}

static void refuses_adapters(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        moec_status status;
        const char *word;
    } cases[] = {
        {"{" SCALE "}", 32, MOEC_E_MISMATCH, "'encoder.0.self.k.router' is missing"},
        {"{" SCALE "," ROUTER ",\"x\\n\\u001b\":{}}", 32, MOEC_E_MISMATCH,
         "tensor 'x\\012\\033' belongs to no site"},
        {"{" SCALE "," ROUTER "," SCALE "}", 32, MOEC_E_FORMAT, "twice"},
        {"{" SCALE "," ROUTER "} x", 32, MOEC_E_FORMAT, "follows"},
        {"[" SCALE "]", 32, MOEC_E_FORMAT, "'{'"},
        {"{" SCALE "," ROUTER "}", 40, MOEC_E_FORMAT, "8 bytes follow"},
        {"{" SCALE "," ROUTER "}", 31, MOEC_E_FORMAT, "encoder.0.self.k.scale"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[24,32]}," ROUTER "}",
         32, MOEC_E_MISMATCH, "has dtype F16"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F24\",\"shape\":[2],\"data_offsets\":[24,32]}," ROUTER "}",
         32, MOEC_E_FORMAT, "unknown dtype 'F24'"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[24,32]}," ROUTER
         "}",
         32, MOEC_E_MISMATCH, "has shape [2,1], the model needs [2]"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[24,32]}," ROUTER
         "}",
         32, MOEC_E_FORMAT, "negative"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[20,28]}," ROUTER "}",
         32, MOEC_E_FORMAT, "overlaps"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[28,36]}," ROUTER "}",
         36, MOEC_E_FORMAT, "hole"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,28]}," ROUTER "}",
         32, MOEC_E_FORMAT, "has 4 bytes"},
        {"{\"encoder.0.self.k.scale\":{\"dtype\":\"F32\",\"shape\":[2]}," ROUTER "}", 32, MOEC_E_FORMAT,
         "no data_offsets"},
        {"{\"encoder.0.self.k.scale\":null," ROUTER "}", 32, MOEC_E_FORMAT, "not an object"},
        {"{\"__metadata__\":{\"a\":1}," SCALE "," ROUTER "}", 32, MOEC_E_FORMAT, "not a string"},
        {"{" SCALE "}", 32, MOEC_E_MISMATCH, "is missing: the file does not say what it is; this program, 'fake', takes {}"},
        {"{\"__metadata__\":{\"moec_adapter\":\"{\\\"method\\\": \\\"mov\\\"}\"}," SCALE "}", 32, MOEC_E_MISMATCH,
         ": the file is {\"method\": \"mov\"}; this program, 'fake', takes {}"},
        {"{\"__metadata__\":{\"moec_adapter\":\"{\\\"method\\\":[1,{}],\\\"moec_adapter\\\": 2}\"}," SCALE "," ROUTER "}", 32,
         MOEC_E_MISMATCH, "is an adapter of version 2, {\"method\":[1,{}],\"moec_adapter\": 2}; this program reads version 1"},
    };
    static const char data[64];
    moec_instance *m = open_good(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char message[1000];
        const char *path = write_adapter("bad", cases[i].header, data, cases[i].data);
        assert_int_equal(moec_load_adapter(m, path, message, sizeof message), cases[i].status);
        if (!strstr(message, cases[i].word) || !strstr(message, "bad: error: "))
            fail_msg("'%s' lacks '%s'", message, cases[i].word);
    }
    char message[1000];
    unsigned char huge[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    assert_int_equal(moec_load_adapter(m, write_file("huge", huge, 8), message, sizeof message),
                     MOEC_E_FORMAT);
    assert_int_equal(moec_load_adapter(m, write_file("tiny", huge, 7), message, sizeof message),
                     MOEC_E_FORMAT);
    static const unsigned char backwards[12] = {0, 0, 0, 0, 0, 0, 0, 4, '{', ' ', ' ', '}'};
    assert_int_equal(moec_load_adapter(m, write_file("backwards", backwards, sizeof backwards), message, sizeof message),
                     MOEC_E_MISMATCH);
    assert_non_null(strstr(message, "big-endian"));
    assert_int_equal(moec_load_adapter(m, path_of("none"), NULL, 0), MOEC_E_OPEN);
    assert_int_equal(first_token(m), 5);
    moec_close(m);
}

/* ---- JSON ---- */

static moec_json_event last_event(const char *text) {
    char copy[256];
    moec_json j;
    moec_json_event e;
    size_t n = strlen(text);
    memcpy(copy, text, n);
    moec_json_open(&j, copy, n);
    do
        e = moec_json_next(&j);
    while (e != MOEC_JSON_END && e != MOEC_JSON_ERROR);
    moec_json_close(&j);
    return e;
}

static void json_is_strict(void **state) {
    (void)state;
    static const char *const good[] = {"1",
                                       " [ ] ",
                                       "{}",
                                       "[1,-0.5e3,true,null,\"\\u00e9\\ud83d\\ude00\"]",
                                       "{\"a\":{\"a\":[{}]},\"b\":\"\\\"\"}",
                                       "9223372036854775807"};
    static const char *const bad[] = {"",
                                      "[1,]",
                                      "{,}",
                                      "{\"a\":1,\"a\":2}",
                                      "01",
                                      "1.",
                                      "-",
                                      "+1",
                                      "[1 2]",
                                      "\"\x01\"",
                                      "\"\xff\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\\ud800\"",
                                      "\"\\x\"",
                                      "tru",
                                      "{\"a\"}",
                                      "{a:1}",
                                      "1 2",
                                      "[",
                                      "\"",
                                      "1e999",
                                      "nan",
                                      "{\"a\":1,\"\\u0061\":2}"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (last_event(good[i]) != MOEC_JSON_END)
            fail_msg("%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (last_event(bad[i]) != MOEC_JSON_ERROR)
            fail_msg("%s", bad[i]);
    char deep[200];
    memset(deep, '[', sizeof deep);
    deep[199] = 0;
    assert_int_equal(last_event(deep), MOEC_JSON_ERROR);
    char big[] = "[9223372036854775808]";
    moec_json j;
    moec_json_open(&j, big, strlen(big));
    moec_json_next(&j);
    assert_int_equal(moec_json_next(&j), MOEC_JSON_REAL);
    moec_json_close(&j);
    char least[] = "[-9223372036854775808,-9223372036854775809]";
    moec_json_open(&j, least, strlen(least));
    moec_json_next(&j);
    assert_int_equal(moec_json_next(&j), MOEC_JSON_INTEGER);
    assert_true(j.integer == INT64_MIN);
    assert_int_equal(moec_json_next(&j), MOEC_JSON_REAL);
    moec_json_close(&j);
}

/* ---- decoding ---- */

static int64_t simulate(const int64_t *ids, int64_t n, int64_t most, int64_t eos, int64_t *out) {
    int64_t base = 0, history = 0, token = 0;
    for (int64_t i = 0; i < n; i++)
        base += ids[i];
    for (int64_t t = 0; t < most; t++) {
        history += token;
        token = (base + 3 * t + history) % VOCAB;
        out[t] = token;
        if (token == eos)
            return t + 1;
    }
    return most;
}

static int count_calls(void *ctx, int64_t step, const int64_t *token) {
    (void)token;
    ++*(int *)ctx;
    return step == 2;
}

static void generates(void **state) {
    (void)state;
    int64_t ids[4 * 3] = {5, 0, 0, 2, 3, 0, 7, 7, 7, 11, 2, 9}, length[4] = {1, 2, 3, 3}, mask[12] = {0};
    for (int b = 0; b < 4; b++)
        for (int s = 0; s < length[b]; s++)
            mask[3 * b + s] = 1;
    for (int threads = 1; threads <= 3; threads++) {
        moec_instance *m = open_good(threads);
        int64_t tokens[4 * CAPACITY], steps = 0, longest = 0;
        assert_int_equal(moec_generate_limit(&program), CAPACITY);
        assert_int_equal(moec_generate(m, 4, 3, ids, mask, NULL, NULL, tokens, &steps, NULL, NULL), MOEC_OK);
        for (int b = 0; b < 4; b++) {
            int64_t want[CAPACITY] = {0};
            int64_t n = simulate(ids + 3 * b, length[b], CAPACITY, 1, want);
            longest = n > longest ? n : longest;
            assert_memory_equal(tokens + CAPACITY * b, want, sizeof want);
        }
        assert_int_equal(steps, longest);
        int calls = 0;
        moec_generate_options o = {.max_length = 6, .eos = 99};
        assert_int_equal(
            moec_generate(m, 1, 3, ids + 6, mask + 6, NULL, &o, tokens, &steps, count_calls, &calls),
            MOEC_OK);
        assert_int_equal(calls, 3);
        assert_int_equal(steps, 3);
        o.max_length = CAPACITY + 1;
        assert_int_equal(moec_generate(m, 1, 3, ids, mask, NULL, &o, tokens, &steps, NULL, NULL),
                         MOEC_E_RANGE);
        assert_int_equal(moec_generate(m, 5, 3, ids, mask, NULL, NULL, tokens, &steps, NULL, NULL),
                         MOEC_E_RANGE);
        assert_int_equal(moec_generate(m, 1, 9, ids, mask, NULL, NULL, tokens, &steps, NULL, NULL),
                         MOEC_E_RANGE);
        assert_int_equal(moec_generate(m, 1, 3, ids, NULL, NULL, NULL, tokens, &steps, NULL, NULL),
                         MOEC_E_ARGUMENT);
        ids[0] = -1;
        assert_int_equal(moec_generate(m, 1, 3, ids, mask, NULL, NULL, tokens, &steps, NULL, NULL),
                         MOEC_E_INDEX);
        ids[0] = 5;
        moec_close(m);
    }
}

/* ---- evaluation ---- */

static moec_eval_result evaluated(moec_instance *m, const moec_eval_options *o, const char *text) {
    moec_cli c = {.program = &program, .self = "fake", .name = "fake", .o = {.eos = -1}, .instance = m};
    moec_eval_result r;
    assert_int_equal(moec_eval_run(&c, o, write_file("eval.jsonl", text, strlen(text)), &r), 0);
    return r;
}

/* What the functions say of the fake program's scores, minus half the labels, and of its generations, with
 * the adapter that happens to be in force. */
static void evaluates(void **state) {
    (void)state;
    moec_instance *m = open_good(2);
    moec_eval_options o = {.batch = 3}, length = {.normalize = MOEC_NORMALIZE_LENGTH},
                      loss = {.loss_only = 1};
    const char *questions =
        "{\"input_ids\":[4],\"choices_ids\":[[3,1],[2,1],[1,1,1]],\"label\":1,\"task\":\"a\"}\n"
        "{\"input_ids\":[4,5],\"choices_ids\":[[3,1],[2,1],[1,1,1]],\"label\":2,\"task\":\"a\"}\n"
        "{\"input_ids\":[4],\"choices_ids\":[[3],[2],[2],[5]],\"label\":1,\"task\":\"b\"}\n";
    moec_eval_result r = evaluated(m, &o, questions);
    assert_int_equal(r.choices, 3);
    assert_int_equal(r.pairs, 0);
    assert_true(r.accuracy == 2. / 3 && r.median == 0.75 && r.mean == 0.75);
    r = evaluated(m, &length, questions);
    assert_true(r.accuracy == 2. / 3 && r.median == 0.75);
    o.limit = 1;
    assert_true(evaluated(m, &o, questions).choices == 1);
    o.limit = 0;

    int64_t id = 0, want[CAPACITY], n = 9;
    while (id < VOCAB && ((n = simulate(&id, 1, CAPACITY, 1, want)) > 6 || want[n - 1] != 1 || n < 3))
        id++;
    assert_true(id < VOCAB);
    char pairs[512];
    double sum = 0;
    int at = snprintf(pairs, sizeof pairs, "{\"input_ids\":[%d],\"labels\":[", (int)id);
    for (int64_t i = 0; i < n; i++) {
        at += snprintf(pairs + at, sizeof pairs - (size_t)at, i ? ",%d" : "%d", (int)want[i]);
        sum += (double)want[i] / 2;
    }
    snprintf(pairs + at, sizeof pairs - (size_t)at, ",-100]}\n{\"input_ids\":[%d],\"labels\":[%d,%d]}\n",
             (int)id, (int)want[0], (int)(want[1] + 1) % VOCAB);
    sum += (double)(want[0] + (want[1] + 1) % VOCAB) / 2;
    r = evaluated(m, &o, pairs);
    assert_int_equal(r.pairs, 2);
    assert_int_equal(r.tokens, n + 2);
    assert_true(r.loss == sum / (double)(n + 2));
    assert_true(r.exact_match == 0.5);
    assert_true(r.token_accuracy == (double)(n + 1) / (double)(n + 2));
    r = evaluated(m, &loss, pairs);
    assert_true(r.loss == sum / (double)(n + 2) && r.exact_match == 0);
    assert_int_equal(moec_load_adapter(m, path_of("good"), NULL, 0), MOEC_OK);
    assert_true(evaluated(m, &o, pairs).exact_match == 0);
    moec_close(m);
}

/* ---- command line ---- */

static char output[8192], errors[4096];

static void slurp(const char *path, char *to, size_t room) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, room - 1, f);
    to[n] = 0;
    fclose(f);
}

/* Runs moec_main in a child with the arguments up to NULL; returns its exit status. */
static int command(const char *first, ...) {
    char *argv[24] = {(char *)(uintptr_t) "bin/fake"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *a = first; a; a = va_arg(args, const char *))
        argv[argc++] = (char *)(uintptr_t)a;
    va_end(args);
    const char *out = path_of("stdout"), *err = path_of("stderr");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (!freopen(out, "wb", stdout) || !freopen(err, "wb", stderr))
            _exit(99);
        int code = moec_main(&program, NULL, argc, argv);
        fflush(NULL);
        _exit(code);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    slurp(out, output, sizeof output);
    slurp(err, errors, sizeof errors);
    return WEXITSTATUS(status);
}

#define WEIGHTS "--weights", path_of("fake.weights"), "--threads", "1"

static void has(const char *text, const char *word) {
    if (!strstr(text, word))
        fail_msg("'%s' lacks '%s'", text, word);
}

static void line_commands(void **state) {
    (void)state;
    assert_int_equal(command("generate", WEIGHTS, "--ids", "5", "--ids=2,3", "--batch", "1", NULL), 0);
    char one[sizeof output];
    strcpy(one, output);
    assert_int_equal(command("generate", WEIGHTS, "--ids", "5", "--ids", "2 3", NULL), 0);
    assert_string_equal(one, output);
    int64_t want[CAPACITY];
    char text[256] = "";
    int64_t two[2][2] = {{5, 0}, {2, 3}};
    for (int k = 0; k < 2; k++) {
        int64_t n = simulate(two[k], k + 1, CAPACITY, 1, want);
        for (int64_t i = 0; i < n; i++)
            snprintf(text + strlen(text), 32, i ? " %d" : "%d", (int)want[i]);
        strcat(text, "\n");
    }
    assert_string_equal(output, text);
    assert_int_equal(
        command("generate", WEIGHTS, "--adapter", path_of("good"), "--max-length", "1", "--ids", "2 3", NULL),
        0);
    assert_string_equal(output, "10\n");
    assert_int_equal(command("encode", WEIGHTS, "--ids", "4 5", "--ids", "6", NULL), 0);
    assert_string_equal(output, "4 1\n5 1\n\n6 1\n");
    assert_int_equal(
        command("score", WEIGHTS, "--ids", "4 5", "--targets", "3 1", "--ids", "1", "--targets", "2", NULL),
        0);
    assert_string_equal(output, "-2 -1.5 -0.5\n-1 -1\n");
    const char lines[] = "{\"input_ids\":[4,5],\"labels\":[3,1,-100],\"id\":{\"x\":[1]}}\n\n{\"labels\":[2],"
                         "\"input_ids\":[1]}\n";
    assert_int_equal(
        command("score", WEIGHTS, "--jsonl", write_file("data.jsonl", lines, sizeof lines - 1), NULL), 0);
    assert_string_equal(output, "-2 -1.5 -0.5\n-1 -1\n");
    assert_int_equal(command("info", NULL), 0);
    has(output, "out self_k_0 : f32[B,P+1,1] in the storage of self_k_0 room for 8");
    has(output, "trainable 8 (8.0000 %)");
    has(output, "an adapter 128, derived from it 64");
    has(output, "function step, at most 4096 bytes of the arena");
    has(output, "encoder.0.self.k.router : f32[2, 3]");
    assert_int_equal(command("--help", NULL), 0);
    has(output, "--max-length N");
    assert_int_equal(command("--version", NULL), 0);
    has(output, "fake");
}

static void line_errors(void **state) {
    (void)state;
    static const struct {
        const char *args[4];
        int code;
        const char *word;
    } cases[] = {
        {{NULL}, 2, "no command"},
        {{"fly"}, 2, "unknown command 'fly'"},
        {{"generate"}, 2, "no input"},
        {{"generate", "--wings"}, 2, "unknown option '--wings'"},
        {{"generate", "--ids"}, 2, "needs a value"},
        {{"generate", "--targets", "1"}, 2, "takes no --targets"},
        {{"generate", "--batch", "x"}, 2, "needs an integer"},
        {{"generate", "--batch", "0"}, 2, "the least is 1"},
        {{"generate", "extra", "--ids", "1"}, 2, "usage"},
        {{"score", "--ids", "1"}, 2, "1 --ids but 0 --targets"},
        {{"generate", "--ids", "1 x"}, 1, "--ids: 'x' is no token id"},
        {{"generate", "--ids", ""}, 1, "no token"},
        {{"generate", "--ids", "16"}, 1, "outside the vocabulary of 16"},
        {{"generate", "--ids", "99999999999999999999"}, 1, "is no token id"},
        {{"generate", "--ids", "1 1 1 1 1 1 1 1 1"}, 1, "at most 8"},
        {{"generate", "--text", "hello"}, 1, "built without a tokenizer"},
        {{"run"}, 2, "usage"},
        {{"run", "encode"}, 2, "--out"},
        {{"run", "fly", "--out", "x"}, 1, "no function 'fly'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *a = cases[i].args;
        assert_int_equal(command(a[0], a[1], a[2], a[3], NULL), cases[i].code);
        has(errors, "fake: error: ");
        has(errors, cases[i].word);
        assert_string_equal(output, "");
        assert_ptr_equal(strchr(errors, '\n'), errors + strlen(errors) - 1);
    }
    static const struct {
        const char *line, *word;
    } lines[] = {
        {"{\"input_ids\":[1", ":2: error: column 16: the text ends too early"},
        {"[1]", ":2: error: is not a JSON object"},
        {"{\"input_ids\":[1.5]}", ":2: error: input_ids holds something"},
        {"{\"input_ids\":[77]}", ":2: error: input_ids: token id 77"},
        {"{}", ":2: error: input_ids holds no token"},
        {"{\"input_ids\":[1],\"input_ids\":[1]}", ":2: error: column"},
        {"{\"inputs\":\"a\"}", "without a tokenizer"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[256];
        int n = snprintf(text, sizeof text, "{\"input_ids\":[1]}\n%s\n", lines[i].line);
        assert_int_equal(
            command("generate", WEIGHTS, "--jsonl", write_file("bad.jsonl", text, (size_t)n), NULL), 1);
        has(errors, lines[i].word);
        assert_string_equal(output, "");
    }
    assert_int_equal(command("generate", "--weights", path_of("none"), "--ids", "1", NULL), 1);
    has(errors, "none: error: cannot be opened");
    assert_int_equal(command("generate", WEIGHTS, "--adapter", path_of("huge"), "--ids", "1", NULL), 1);
    has(errors, "huge: error: ");
    assert_int_equal(command("generate", "--ids", "1", NULL), 1); /* beside the executable: not there */
    has(errors, ".weights: error: cannot be opened");
    has(errors, "--weights names another place");
}

/* Inputs that choose among several --adapter, by place or by file; the good one doubles. */
static void line_adapters(void **state) {
    (void)state;
    char lines[512];
    snprintf(lines, sizeof lines,
             "{\"input_ids\":[2,3],\"labels\":[2],\"adapter\":1}\n{\"input_ids\":[2,3],\"labels\":[2]}\n"
             "{\"input_ids\":[2,3],\"labels\":[2],\"adapter\":\"%s\"}\n",
             path_of("good"));
    const char *file = write_file("chosen.jsonl", lines, strlen(lines));
    static const float quadrupled[8] = {0, 0, 0, 0, 0, 0, 4, 4};
    const char *four = write_adapter("four", "{" SCALE "," ROUTER "}", quadrupled, 32);
    for (int batch = 1; batch <= 3; batch++) {
        char size[8];
        snprintf(size, sizeof size, "%d", batch);
        assert_int_equal(command("generate", WEIGHTS, "--adapter", four, "--adapter", path_of("good"),
                                 "--max-length", "1", "--batch", size, "--jsonl", file, NULL),
                         0);
        assert_string_equal(output, "10\n4\n10\n");
    }
    assert_int_equal(
        command("score", WEIGHTS, "--adapter", four, "--adapter", path_of("good"), "--jsonl", file, NULL), 0);
    assert_string_equal(output, "-1 -1\n-1 -1\n-1 -1\n");
    assert_int_equal(command("generate", WEIGHTS, "--adapter", four, "--jsonl", file, NULL), 1);
    has(errors, "chosen.jsonl:1: error: adapter is 1, --adapter is given 1 times, counted from 0");
    static const struct {
        const char *value, *word;
    } cases[] = {{"-1", "adapter is -1"}, {"\"x\\n\"", "adapter 'x\\012' is none that --adapter gives"},
                 {"[0]", "neither a number nor a file"}, {"0.5", "neither a number nor a file"},
                 {"}", "a value was expected"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(lines, sizeof lines, "{\"input_ids\":[1],\"adapter\":%s}\n", cases[i].value);
        file = write_file("bad.jsonl", lines, strlen(lines));
        assert_int_equal(command("generate", WEIGHTS, "--jsonl", file, NULL), 1);
        has(errors, ":1: error: ");
        has(errors, cases[i].word);
        assert_string_equal(output, "");
    }
    assert_int_equal(
        command("export", WEIGHTS, "--adapter", four, "--adapter", four, "--out", path_of("x"), NULL), 2);
    has(errors, "export takes one --adapter");
    assert_int_equal(
        command("generate", WEIGHTS, "--adapter", four, "--adapter", path_of("huge"), "--ids", "1", NULL), 1);
    has(errors, "huge: error: ");
}

static const char *write_npy(const char *name, unsigned dtype, int rank, const int64_t *extent, const void *p,
                             size_t n) {
    const char *path = path_of(name);
    moec_sink none = {NULL, 0};
    moec_output f;
    assert_int_equal(moec_output_open(path, &f, none), MOEC_OK);
    /* A header as NumPy writes it. */
    char h[128];
    int k = snprintf(h + 10, 118, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                     dtype == MOEC_F32 ? "<f4" : "<i8");
    for (int i = 0; i < rank; i++)
        k += snprintf(h + 10 + k, 40, "%d,", (int)extent[i]);
    k += snprintf(h + 10 + k, 20, "), }\n");
    memcpy(h, "\x93NUMPY\x01\x00", 8);
    h[8] = (char)k;
    h[9] = 0;
    assert_int_equal(moec_output_write(&f, h, (uint64_t)k + 10, none), MOEC_OK);
    assert_int_equal(moec_output_write(&f, p, n, none), MOEC_OK);
    assert_int_equal(moec_output_commit(&f, none), MOEC_OK);
    return path;
}

static const char *in_option(char *to, const char *name, const char *path) {
    snprintf(to, 200, "%s=%s", name, path);
    return to;
}

static void line_runs_functions(void **state) {
    (void)state;
    char token_in[200], cross_in[200], mask_in[200], cache_in[200];
    int64_t token[2] = {3, 4}, mask[4] = {1, 1, 1, 1};
    float cross[4] = {1, 2, 3, 4}, cache[4] = {1, 1, 2, 2};
    int64_t token_extent[] = {2, 1}, cross_extent[] = {2, 2, 1}, mask_extent[] = {2, 2};
    in_option(token_in, "token", write_npy("t.npy", MOEC_I64, 2, token_extent, token, sizeof token));
    in_option(cross_in, "cross_kv", write_npy("c.npy", MOEC_F32, 3, cross_extent, cross, sizeof cross));
    in_option(mask_in, "attention_mask", write_npy("m.npy", MOEC_I64, 2, mask_extent, mask, sizeof mask));
    in_option(cache_in, "self_k_0", write_npy("k.npy", MOEC_F32, 3, cross_extent, cache, sizeof cache));
    const char *out = path_of("results");
    assert_int_equal(command("run", "step", WEIGHTS, "--in", token_in, "--in", cross_in, "--in", mask_in,
                             "--in", cache_in, "--out", out, NULL),
                     0);
    moec_npy a;
    moec_sink none = {NULL, 0};
    assert_int_equal(moec_npy_read(path_of("results/self_k_0.npy"), &a, none), MOEC_OK);
    const float grown[] = {1, 1, 3, 2, 2, 4};
    assert_int_equal(a.rank, 3);
    assert_int_equal(a.extent[1], 3);
    assert_memory_equal(a.data, grown, sizeof grown);
    moec_mem_free(a.file);
    assert_int_equal(moec_npy_read(path_of("results/token.npy"), &a, none), MOEC_OK);
    const int64_t next[] = {(3 + 6 + 5) % VOCAB, (7 + 6 + 8) % VOCAB};
    assert_memory_equal(a.data, next, sizeof next);
    moec_mem_free(a.file);
    int64_t three[] = {3, 2};
    int64_t long_mask[6] = {0};
    in_option(mask_in, "attention_mask", write_npy("m.npy", MOEC_I64, 2, three, long_mask, sizeof long_mask));
    assert_int_equal(command("run", "step", WEIGHTS, "--in", token_in, "--in", cross_in, "--in", mask_in,
                             "--in", cache_in, "--out", out, NULL),
                     1);
    has(errors, "m.npy: error: extent 3 of axis 0 contradicts B = 2");
    in_option(mask_in, "attention_mask", path_of("c.npy"));
    assert_int_equal(command("run", "step", WEIGHTS, "--in", mask_in, "--out", out, NULL), 1);
    has(errors, "c.npy: error: holds f32 of rank 3, input 'attention_mask' is i64 of rank 2");
    assert_int_equal(command("run", "step", WEIGHTS, "--in", token_in, "--out", out, NULL), 1);
    has(errors, "input 'cross_kv' is missing");
    assert_int_equal(
        command("encode", WEIGHTS, "--ids", "4 5", "--ids", "6", "--out", path_of("e.npy"), NULL), 0);
    assert_int_equal(moec_npy_read(path_of("e.npy"), &a, none), MOEC_OK);
    const float states[] = {4, 1, 5, 1, 6, 1, 0, 0};
    assert_int_equal(a.bytes, sizeof states);
    assert_memory_equal(a.data, states, sizeof states);
    moec_mem_free(a.file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens),
        cmocka_unit_test(refuses_weights),
        cmocka_unit_test(hashes_weights),
        cmocka_unit_test(needs_no_file_behind_open),
        cmocka_unit_test(opens_embedded),
        cmocka_unit_test(tells_statuses),
        cmocka_unit_test(runs_and_checks),
        cmocka_unit_test(reads_tables),
        cmocka_unit_test(pool_does_all_once),
        cmocka_unit_test(tasks_wait_for_those_in_front),
        cmocka_unit_test(swaps_adapters),
        cmocka_unit_test(refuses_adapters),
        cmocka_unit_test(json_is_strict),
        cmocka_unit_test(generates),
        cmocka_unit_test(evaluates),
        cmocka_unit_test(line_commands),
        cmocka_unit_test(line_errors),
        cmocka_unit_test(line_adapters),
        cmocka_unit_test(line_runs_functions),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
