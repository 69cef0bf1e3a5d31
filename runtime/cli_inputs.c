/* The encoder's side of commands that work on batches: states of the inputs, keys and values of the states. Both without work on
 * padding, where the program can (packed.c). */
#include "cli.h"

int moec_inputs_make(const moec_cli *c, moec_inputs *in) {
    const moec_program *p = c->program;
    const moec_seq2seq *q = p->seq2seq;
    int64_t tokens = 0;
    in->packed = in->spans = NULL;
    if (moec_packs(p)) {
        in->packed = moec_mem_new((size_t)in->rows * (size_t)in->length, sizeof *in->packed);
        in->spans = moec_mem_new((size_t)in->rows, 2 * sizeof *in->spans);
        if (!in->packed || !in->spans)
            return moec_cli_no_memory(c);
        tokens = moec_pack(in->rows, in->length, in->ids, in->mask, in->packed, in->spans);
    }
    if (!tokens)
        moec_inputs_free(in);
    else
        in->sym[q->tokens] = tokens;
    in->encode = tokens ? q->encode_packed : q->encode;
    in->cross = tokens ? q->cross_packed : q->cross;
    in->score = tokens ? q->score_packed : q->score;
    return EXIT_DONE;
}

void moec_inputs_free(moec_inputs *in) {
    moec_mem_free(in->packed);
    moec_mem_free(in->spans);
    in->packed = in->spans = NULL;
}

int64_t moec_inputs_at(const moec_inputs *in, int64_t i) {
    return in->spans ? in->spans[2 * i] : i * in->length;
}

int moec_inputs_encode(moec_cli *c, const moec_inputs *in, float **hidden) {
    moec_bind bind[] = {{"input_ids", 0, in->ids},     {"attention_mask", 0, in->mask}, {"packed_ids", 0, in->packed},
                        {"spans", 0, in->spans},       {"sentence", 0, in->sentence},   {"hidden", 1, NULL},
                        {"packed_hidden", 1, NULL}};
    int code = moec_cli_call(c, in->encode, in->sym, bind, 7, in->adapter);
    *hidden = bind[in->packed ? 6 : 5].at;
    return code || *hidden ? code : moec_cli_error(c, NULL, 0, "function 'encode' has no output 'hidden'");
}

int moec_inputs_cross(moec_cli *c, const moec_inputs *in, float *hidden, void **cross) {
    moec_bind bind[] = {{"hidden", 0, hidden},       {"packed_hidden", 0, hidden}, {"attention_mask", 0, in->mask},
                        {"spans", 0, in->spans},     {"sentence", 0, in->sentence}, {"cross_kv", 1, NULL},
                        {"packed_kv", 1, NULL}};
    int code = moec_cli_call(c, in->cross, in->sym, bind, 7, in->adapter);
    *cross = bind[in->packed ? 6 : 5].at;
    return code;
}
