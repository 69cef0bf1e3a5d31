/* The order of training data. A draw is a function of the seed and of how often each file was drawn from, so
 * that a position is those counts and nothing else; a file's permutation is made anew for each epoch. */
#include "dataset.h"

#include <string.h>

/* Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014. */
uint64_t moec_data_bits(uint64_t key, uint64_t counter) {
    uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Fisher and Yates. */
void moec_data_permute(uint32_t *p, int64_t n, uint64_t key) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t at = (uint32_t)((moec_data_bits(key, (uint64_t)i) >> 32) * (uint64_t)(i + 1) >> 32);
        p[i] = p[at];
        p[at] = (uint32_t)i;
    }
}

static void set_shares(moec_data_order *o) {
    double sum = 0;
    for (int64_t f = 0; f < o->set->files; f++) {
        const moec_data_span *s = &o->set->file[f];
        sum += s->weight * (double)(s->cap && s->cap < s->count ? s->cap : s->count);
        o->upto[f] = sum;
    }
    for (int64_t f = 0; f < o->set->files; f++)
        o->upto[f] /= sum;
}

moec_status moec_data_order_open(const moec_dataset *set, int shuffle, int once, uint64_t seed,
                                 moec_data_order *o, moec_sink sink) {
    size_t files = (size_t)set->files;
    *o = (moec_data_order){.set = set, .shuffle = shuffle && !once, .once = once, .seed = seed};
    o->upto = moec_mem_new(files, sizeof *o->upto);
    o->permutation = moec_mem_new(files, sizeof *o->permutation);
    o->epoch = moec_mem_new(files, sizeof *o->epoch);
    int missing = !o->upto || !o->permutation || !o->epoch;
    for (size_t f = 0; f < files && o->shuffle && !missing; f++) {
        o->permutation[f] = moec_mem_new((size_t)set->file[f].count, sizeof *o->permutation[f]);
        missing = !o->permutation[f];
        o->epoch[f] = -1;
    }
    if (missing) {
        moec_data_order_close(o);
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    }
    set_shares(o);
    return MOEC_OK;
}

void moec_data_order_close(moec_data_order *o) {
    for (int64_t f = 0; o->permutation && f < o->set->files; f++)
        moec_mem_free(o->permutation[f]);
    moec_mem_free(o->permutation);
    moec_mem_free(o->upto);
    moec_mem_free(o->epoch);
    o->permutation = NULL;
    o->upto = NULL;
    o->epoch = NULL;
}

/* The file of the cursor's next draw, -1 when there is none. */
static int64_t next_file(const moec_data_order *o, const moec_data_cursor *c) {
    int64_t files = o->set->files, f = 0;
    if (o->once) {
        while (f < files && c->taken[f] == o->set->file[f].count)
            f++;
        return f < files ? f : -1;
    }
    if (files == 1)
        return 0;
    uint64_t bits = moec_data_bits(moec_data_bits(o->seed, MOEC_DATA_KEY_FILE), (uint64_t)c->draws);
    double u = (double)(bits >> 11) * 0x1p-53;
    while (f + 1 < files && u >= o->upto[f])
        f++;
    return f;
}

static void count(moec_data_cursor *c, int64_t f) {
    c->taken[f]++;
    c->draws++;
}

void moec_data_pass(const moec_data_order *o, moec_data_cursor *c) {
    int64_t f = next_file(o, c);
    if (f >= 0)
        count(c, f);
}

int64_t moec_data_draw(moec_data_order *o, moec_data_cursor *c) {
    int64_t f = next_file(o, c);
    if (f < 0)
        return -1;
    const moec_data_span *s = &o->set->file[f];
    int64_t epoch = c->taken[f] / s->count, at = c->taken[f] % s->count;
    if (o->shuffle) {
        if (o->epoch[f] != epoch) {
            uint64_t key = moec_data_bits(moec_data_bits(o->seed, MOEC_DATA_KEY_EPOCH), (uint64_t)f);
            moec_data_permute(o->permutation[f], s->count, moec_data_bits(key, (uint64_t)epoch));
            o->epoch[f] = epoch;
        }
        at = o->permutation[f][at];
    }
    count(c, f);
    return s->first + at;
}
