/* spiece.model: what the check admits, libsentencepiece has to take and to work with. */
#include "fuzz.h"

#include "runtime/text.h"

enum { ROWS = 512 };

static void use(const uint8_t *p, size_t n) {
    static const char *const texts[] = {"", "a b zq", "\xe2\x96\x81 \t\n<extra_id_7>", "\xc3\xa9\xef\xbc\xa1\xe3\x8e\x8f<pad></s>", "a\0b"};
    const moec_text_api *api = &moec_text_sentencepiece;
    char message[256] = "", out[64];
    int64_t ids[64];
    moec_text *t = api->open(p, n, "spiece.model", ROWS, message, sizeof message);
    CHECK(t || message[0]);
    for (size_t i = 0; t && i < sizeof texts / sizeof *texts; i++) {
        int64_t count = api->encode(t, texts[i], i == 4 ? 3 : str_c(texts[i]).n, ids, 64);
        CHECK(count >= 0); /* no end of sequence without a piece for it */
        api->decode(t, ids, count < 64 ? count : 64, out, sizeof out);
    }
    if (t) api->close(t);
}

void fuzz_spiece(const uint8_t *p, size_t n) {
    char message[256] = "";
    int bad = moec_spiece_check(p, n, "spiece.model", ROWS, message, sizeof message);
    CHECK(!bad == !message[0]);
    if (!bad) use(p, n);
}
