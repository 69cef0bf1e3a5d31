// T5's tokenizer: libsentencepiece behind the C interface of text.h.
//
// Reproduces what Hugging Face's T5 tokenizer does around SentencePiece: special tokens (</s>, <pad>, <unk>,
// <extra_id_N>) are cut out of the text before it is tokenized, white space at the end of a stretch of text
// is kept as one lone meta symbol, </s> ends every sequence. The sentinels <extra_id_0..99> have no pieces:
// they are the hundred ids behind them, in descending order.
#include "text.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

struct moec_text {
    sentencepiece::SentencePieceProcessor model;
    int64_t rows = 0, pieces = 0, eos = -1, pad = -1, unk = -1, space = -1;
};

namespace {

const char kSpace[] = "\xe2\x96\x81"; // the meta symbol U+2581
const int kSentinels = 100;

bool ends_with(const std::string &s, const std::string &end) {
    return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

// The whole normalized text, as the pieces spell it.
std::string normalized(const moec_text &t, const std::string &s) {
    std::vector<std::string> pieces;
    std::string all;
    if (t.model.Encode(s, &pieces).ok())
        for (const std::string &p : pieces)
            all += p;
    return all;
}

// Ids of text without special tokens. SentencePiece strips white space at the end, the tokenizer to be
// reproduced keeps one symbol of it; what normalizes to white space is found by looking at the text with a
// letter on either side.
void encode_stretch(const moec_text &t, const std::string &s, std::vector<int64_t> *ids) {
    if (s.empty())
        return;
    std::vector<int> found;
    if (!t.model.Encode(s, &found).ok())
        throw std::bad_alloc();
    ids->insert(ids->end(), found.begin(), found.end());
    const std::string probe = normalized(t, "y" + s + "x");
    if (t.space >= 0 && ends_with(probe, std::string(kSpace) + "x"))
        ids->push_back(t.space);
}

// Length of the special token that begins at s[at], 0 when none does; its id in *id.
size_t special_at(const moec_text &t, const std::string &s, size_t at, int64_t *id) {
    const struct {
        const char *text;
        int64_t id;
    } plain[] = {{"</s>", t.eos}, {"<pad>", t.pad}, {"<unk>", t.unk}};
    for (const auto &p : plain)
        if (p.id >= 0 && s.compare(at, strlen(p.text), p.text) == 0)
            return *id = p.id, strlen(p.text);
    static const char head[] = "<extra_id_";
    if (s.compare(at, sizeof head - 1, head) != 0)
        return 0;
    size_t end = at + sizeof head - 1;
    int n = 0, digits = 0;
    for (; digits < 2 && end < s.size() && s[end] >= '0' && s[end] <= '9'; digits++, end++)
        n = n * 10 + (s[end] - '0');
    if (digits == 0 || (digits == 2 && n < 10) || end >= s.size() || s[end] != '>')
        return 0;
    *id = t.pieces + kSentinels - 1 - n;
    return *id < t.rows ? end + 1 - at : 0;
}

void encode_text(const moec_text &t, const std::string &s, std::vector<int64_t> *ids) {
    size_t start = 0;
    for (size_t at = 0; at < s.size();) {
        int64_t id = 0;
        size_t n = s[at] == '<' ? special_at(t, s, at, &id) : 0;
        if (!n) {
            at++;
            continue;
        }
        encode_stretch(t, s.substr(start, at - start), ids);
        ids->push_back(id);
        start = at += n;
    }
    encode_stretch(t, s.substr(start), ids);
    if (t.eos >= 0)
        ids->push_back(t.eos);
}

bool utf8_valid(const char *s, size_t n) {
    const unsigned char *p = reinterpret_cast<const unsigned char *>(s);
    for (size_t i = 0; i < n;) {
        unsigned c = p[i];
        size_t k = c < 0x80                ? 1
                   : c >= 0xC2 && c < 0xE0 ? 2
                   : c >= 0xE0 && c < 0xF0 ? 3
                   : c >= 0xF0 && c < 0xF5 ? 4
                                           : 0;
        if (!k || k > n - i)
            return false;
        for (size_t j = 1; j < k; j++)
            if ((p[i + j] & 0xC0) != 0x80)
                return false;
        if ((c == 0xE0 && p[i + 1] < 0xA0) || (c == 0xED && p[i + 1] > 0x9F) ||
            (c == 0xF0 && p[i + 1] < 0x90) || (c == 0xF4 && p[i + 1] > 0x8F))
            return false;
        i += k;
    }
    return true;
}

void replace_all(std::string *s, const std::string &from, const std::string &to) {
    std::string out;
    size_t at = 0, hit;
    while ((hit = s->find(from, at)) != std::string::npos) {
        out.append(*s, at, hit - at).append(to);
        at = hit + from.size();
    }
    *s = out.append(*s, at, std::string::npos);
}

std::string decode_ids(const moec_text &t, const int64_t *ids, int64_t n) {
    std::string out;
    bool first = true;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t.pieces)
            continue; // sentinels, and rows of the embedding without a piece
        int id = static_cast<int>(ids[i]);
        if (id == t.unk || id == t.eos || id == t.pad || t.model.IsControl(id) || t.model.IsUnknown(id))
            continue;
        std::string piece = t.model.IdToPiece(id);
        unsigned byte;
        if (t.model.IsByte(id) && std::sscanf(piece.c_str(), "<0x%2x>", &byte) == 1)
            piece = std::string(1, static_cast<char>(byte));
        else
            replace_all(&piece, kSpace, " ");
        if (first && !piece.empty() && piece[0] == ' ')
            piece.erase(0, 1);
        first = false;
        out += piece;
    }
    return out;
}

// An id whose piece is spelled so, -1 when there is none.
int64_t find_piece(const moec_text &t, const char *piece) {
    int id = t.model.PieceToId(piece);
    return id >= 0 && id < t.pieces && t.model.IdToPiece(id) == piece ? id : -1;
}

moec_text *text_open(const unsigned char *bytes, size_t size, const char *name, int64_t rows, char *message,
                     size_t room) {
    if (moec_spiece_check(bytes, size, name, rows, message, room))
        return nullptr;
    try {
        std::unique_ptr<moec_text> t(new moec_text);
        const auto status =
            t->model.LoadFromSerializedProto(std::string(reinterpret_cast<const char *>(bytes), size));
        if (!status.ok()) {
            if (message)
                std::snprintf(message, room, "%s: error: libsentencepiece refuses it (code %d)", name,
                              static_cast<int>(status.code()));
            return nullptr;
        }
        t->rows = rows;
        t->pieces = t->model.GetPieceSize();
        t->eos = find_piece(*t, "</s>");
        t->pad = find_piece(*t, "<pad>");
        t->unk = find_piece(*t, "<unk>");
        t->space = find_piece(*t, kSpace);
        return t.release();
    } catch (...) {
        if (message)
            std::snprintf(message, room, "%s: error: it cannot be loaded", name);
        return nullptr;
    }
}

int64_t text_encode(moec_text *t, const char *s, size_t n, int64_t *ids, int64_t room) {
    try {
        if (!utf8_valid(s, n))
            return -1;
        std::vector<int64_t> found;
        encode_text(*t, std::string(s, n), &found);
        int64_t count = static_cast<int64_t>(found.size());
        std::copy(found.begin(), found.begin() + std::min(count, room), ids);
        return count;
    } catch (...) {
        return -1;
    }
}

int64_t text_decode(moec_text *t, const int64_t *ids, int64_t n, char *out, int64_t room) {
    try {
        const std::string s = decode_ids(*t, ids, n);
        int64_t count = static_cast<int64_t>(s.size());
        std::copy(s.begin(), s.begin() + std::min(count, room), out);
        return count;
    } catch (...) {
        return -1;
    }
}

void text_close(moec_text *t) {
    delete t;
}

} // namespace

extern "C" const moec_text_api moec_text_sentencepiece = {text_open, text_encode, text_decode, text_close};
