/* JSON lines, as `train` and as `eval` read them; the first line's length chooses how. */
#include "fuzz.h"

#include "runtime/cli_eval.h"
#include "runtime/dataset.h"
#include "tests/unit/fake_program.h"

enum { EOS = 1, SOURCE = 8, TARGET = 6, EXAMPLES = 64 };

/* A byte is a token; '!' is not UTF-8, '?' needs a tokenizer that is not there, which *ctx is told. */
static int64_t encode(void *ctx, const char *s, size_t n, int64_t *ids, int64_t room) {
    for (size_t i = 0; i <= n; i++) {
        if (i < n && s[i] == '!') return -1;
        if (i < n && s[i] == '?' && ctx) {
            *(bool *)ctx = true;
            return MOEC_DATA_NO_TEXT;
        }
        if ((int64_t)i < room) ids[i] = i < n ? 2 + (unsigned char)s[i] % 14 : EOS;
    }
    return (int64_t)n + 1;
}

static void batches(const moec_dataset *set, unsigned choice) {
    moec_data_options o = {.rows = 2, .accumulation = 1 + (choice >> 3 & 1), .source_least = 1, .source = SOURCE,
                           .target_least = 1, .target = TARGET, .pack = choice >> 4 & 1, .shuffle = choice >> 5 & 1, .once = choice >> 1 & 1};
    moec_data *data;
    char message[512] = "";
    moec_status s = moec_data_open(set, &o, &data, (moec_sink){message, sizeof message});
    CHECK(s ? message[0] : data != NULL);
    for (int i = 0; i < 4 && !s; i++) {
        moec_data_step_info info = moec_data_step(data);
        for (int64_t b = 0; b < info.batches; b++) {
            moec_batch batch = moec_data_batch(data, b);
            for (int64_t k = 0; k < batch.rows * batch.source; k++) CHECK(batch.input_ids[k] >= 0 && batch.input_ids[k] < VOCAB);
        }
    }
    if (!s) moec_data_close(data);
}

static void train(const char *path, unsigned choice) {
    bool told = false;
    moec_data_file file = {.path = path};
    moec_dataset_options o = {.vocab = VOCAB, .eos = EOS, .source = SOURCE, .target = TARGET, .truncate_inputs = choice & 1,
                              .truncate_targets = choice >> 1 & 1, .skip_bad = choice >> 2 & 1, .encode = choice & 64 ? NULL : encode, .encode_ctx = &told};
    moec_dataset set;
    char message[512] = "";
    moec_status s = moec_dataset_open(&file, 1, &o, &set, (moec_sink){message, sizeof message});
    CHECK(!s || message[0] || told);
    if (!s && set.examples < EXAMPLES) batches(&set, choice);
    moec_dataset_close(&set);
}

static int64_t text_encode(moec_text *t, const char *s, size_t n, int64_t *ids, int64_t room) {
    (void)t;
    return encode(NULL, s, n, ids, room);
}

static void eval(const char *path, unsigned choice) {
    static const moec_text_api api = {.encode = text_encode};
    static const moec_tokenizer tokenizer = {.api = &api};
    static moec_cli c;
    moec_eval_options o = {.skip_bad = choice >> 2 & 1, .input_eos = choice & 1, .limit = choice & 8 ? 3 : 0};
    moec_eval_example x = {0};
    moec_eval_reader r;
    int got = 1;
    c = (moec_cli){.program = &program, .tokenizer = &tokenizer, .text = (moec_text *)&c, .self = "fuzz", .name = "fuzz"};
    int code = moec_eval_reader_open(&r, &c, &o, path);
    while (!code && got) code = moec_eval_reader_next(&r, &x, &got);
    moec_eval_reader_close(&r);
    moec_eval_example_free(&x);
}

void fuzz_jsonl(const uint8_t *p, size_t n) {
    const uint8_t *line = n ? memchr(p, '\n', n) : NULL;
    unsigned choice = (unsigned)(line ? line - p : (ptrdiff_t)n);
    const char *path = fuzz_file(0, p, n);
    train(path, choice);
    eval(path, choice);
}
