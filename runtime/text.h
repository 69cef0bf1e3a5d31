/* Text for compiled models: what moec_main needs of a tokenizer, and the SentencePiece one (spiece.c,
 * text.cc).
 *
 * The C API of a model works on token ids; only executables that handle text link text.cc and
 * libsentencepiece. */
#ifndef MOEC_TEXT_H
#define MOEC_TEXT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moec_text moec_text;

typedef struct moec_text_api {
    /* A tokenizer from the bytes of a spiece.model, which are checked first; vocab_rows: rows of the
     * embedding. `name` is the file's, for messages. NULL on failure, with one line in message. */
    moec_text *(*open)(const unsigned char *bytes, size_t size, const char *name, int64_t vocab_rows,
                       char *message, size_t room);
    /* Ids of UTF-8 text as Hugging Face's T5 tokenizer makes them, end of sequence appended if there is a piece `</s>`. Returns their
     * number, of which the first `room` are stored; -1 when there is no memory or the text is not UTF-8. */
    int64_t (*encode)(moec_text *t, const char *s, size_t n, int64_t *ids, int64_t room);
    /* Text of ids without special tokens. Returns its bytes, of which the first `room` are stored (no NUL
     * added); -1 when there is no memory. */
    int64_t (*decode)(moec_text *t, const int64_t *ids, int64_t n, char *out, int64_t room);
    void (*close)(moec_text *t);
} moec_text_api;

extern const moec_text_api moec_text_sentencepiece;

/* What an executable was built with: the vocabulary's bytes, or NULL to read it from the file
 * EXECUTABLE.spiece.model. */
typedef struct moec_tokenizer {
    const moec_text_api *api;
    const unsigned char *bytes;
    size_t size;
    const char *name;
} moec_tokenizer;

/* Checks a spiece.model so that libsentencepiece can be trusted with it: the wire format, pieces of 1 to 1024
 * bytes, valid UTF-8, distinct, at most vocab_rows of them, finite scores, one unknown piece, and character
 * maps whose trie never points outside itself. 0 when it is sound, else -1 with `NAME: error: ...` in
 * message. */
int moec_spiece_check(const unsigned char *bytes, size_t size, const char *name, int64_t vocab_rows,
                      char *message, size_t room);

enum {
    MOEC_SPIECE_LIMIT = 64 << 20,
    MOEC_SPIECE_PIECES = 1000000,
    MOEC_SPIECE_PIECE = 1024 /* bytes of one */
};

#ifdef __cplusplus
}
#endif
#endif
