/* Steps and their batches. A step is planned first: which examples it takes and where in its rows they lie;
 * the arrays of a micro-batch are filled when it is asked for.
 *
 * Padded: draws are planned by the window of several steps, within which examples of like length share a
 * micro-batch. Position: the cursor at the window's beginning, and the steps done in it.
 *
 * Packed: an example goes into the first row of the step that has room for it. One that fits nowhere waits,
 * at most until the next step, whose rows are empty, while LOOKAHEAD draws from the oldest one waiting are
 * tried. Position: the cursor at that one, and a mask of the draws behind it that are used. */
#include "dataset.h"

#include <string.h>

enum { WINDOW = 16, LOOKAHEAD = 62 };

/* Where an example lies in the rows of a step. */
typedef struct Place {
    int64_t example, next;  /* next: the row's next place, -1 at its end */
    int64_t source, target; /* first column */
} Place;

typedef struct Row {
    int64_t source, target; /* tokens so far */
    int64_t first, last;    /* places; -1: none */
} Row;

/* An example drawn, in the order of its length. */
typedef struct Drawn {
    int64_t example, source, target, draw;
} Drawn;

struct moec_data {
    const moec_dataset *set;
    moec_data_options o;
    moec_data_order order;
    moec_data_cursor base, ahead; /* what the position is; how far draws have got */
    int64_t window;               /* steps */
    Drawn *drawn;                 /* padded: [window * accumulation * rows], sorted, then in steps */
    int64_t drawn_count, done;    /* padded: in the window; its steps done */
    uint32_t *order_of;           /* padded: [window * accumulation] the micro-batches' order */
    int64_t waiting[LOOKAHEAD];   /* packed: draws from base on */
    int64_t waiting_count;
    uint64_t used; /* packed: a bit for each of them */
    Row *row;      /* [accumulation * rows] of the step */
    Place *place;
    int64_t rows, places, place_room;
    double mass;
    int64_t *array; /* of a micro-batch: two of [rows,source], three of [rows,target] */
    float *weight, *sentence;
    uint64_t array_bytes, weight_bytes, sentence_bytes, place_bytes;
};

static int64_t rounded(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

static int64_t within(int64_t n, int64_t lo, int64_t hi) {
    return n < lo ? lo : n > hi ? hi : n;
}

/* ---- opening ---- */

static moec_status check_options(const moec_dataset *set, const moec_data_options *o, moec_sink sink) {
    enum { MOST = INT32_MAX };
    const int64_t least[] = {o->rows,   o->accumulation,     o->source,
                             o->target, o->source_least + 1, o->target_least + 1};
    for (size_t i = 0; i < sizeof least / sizeof *least; i++)
        if (least[i] < 1 || least[i] > MOST)
            return MOEC_E_ARGUMENT;
    if (!set->examples || o->multiple < 0 || o->multiple > MOST || o->rows_least > o->rows ||
        o->source_least > o->source || o->target_least > o->target || (o->sentence && o->sentence_width < 1))
        return MOEC_E_ARGUMENT;
    if (o->sentence && o->pack)
        return moec_fail(sink, MOEC_E_RANGE, NULL,
                         "error: a router reads one sentence vector for a row: examples cannot share rows");
    for (int64_t i = 0; i < set->examples; i++)
        if (set->example[i].source > o->source || set->example[i].target > o->target)
            return MOEC_E_ARGUMENT;
    return MOEC_OK;
}

/* Products of numbers below 2^31, at most three of them and a small factor; false when they are no sizes. */
static int product(uint64_t a, uint64_t b, uint64_t c, uint64_t *out) {
    const uint64_t most = (uint64_t)1 << 46;
    if (b && a > most / b)
        return 0;
    if (c && a * b > most / c)
        return 0;
    *out = a * b * c;
    return 1;
}

static int allocate(moec_data *d) {
    const moec_data_options *o = &d->o;
    uint64_t rows, source, target, sentence, places, drawn, windows;
    uint64_t shorter = (uint64_t)(o->source < o->target ? o->source : o->target);
    if (!product((uint64_t)o->rows, (uint64_t)o->accumulation, 1, &rows) ||
        !product((uint64_t)o->rows, (uint64_t)o->source, 1, &source) ||
        !product((uint64_t)o->rows, (uint64_t)o->target, 1, &target) ||
        !product((uint64_t)o->rows, o->sentence ? (uint64_t)o->sentence_width : 0, sizeof(float),
                 &sentence) ||
        !product(rows, o->pack ? shorter : 1, sizeof *d->place, &places) ||
        !product(rows, (uint64_t)d->window, 1, &drawn) ||
        !product((uint64_t)o->accumulation, (uint64_t)d->window, 1, &windows))
        return 0;
    size_t files = (size_t)d->set->files;
    d->array_bytes = (2 * source + 3 * target) * sizeof *d->array;
    d->weight_bytes = target * sizeof *d->weight;
    d->sentence_bytes = sentence;
    d->place_bytes = places;
    d->place_room = (int64_t)(places / sizeof *d->place);
    d->base.taken = moec_mem_new(files, sizeof *d->base.taken);
    d->ahead.taken = moec_mem_new(files, sizeof *d->ahead.taken);
    d->row = moec_mem_new((size_t)rows, sizeof *d->row);
    d->drawn = moec_mem_new(o->pack ? 0 : (size_t)drawn, sizeof *d->drawn);
    d->order_of = moec_mem_new((size_t)windows, sizeof *d->order_of);
    d->array = moec_mem_reserve(d->array_bytes);
    d->weight = moec_mem_reserve(d->weight_bytes);
    d->sentence = moec_mem_reserve(d->sentence_bytes);
    d->place = moec_mem_reserve(d->place_bytes);
    return d->base.taken && d->ahead.taken && d->row && d->drawn && d->order_of && d->array && d->weight &&
           d->sentence && d->place;
}

moec_status moec_data_open(const moec_dataset *set, const moec_data_options *o, moec_data **out,
                           moec_sink sink) {
    *out = NULL;
    moec_status s = check_options(set, o, sink);
    if (s)
        return s;
    moec_data *d = moec_mem_new(1, sizeof *d);
    if (!d)
        return moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory");
    d->set = set;
    d->o = *o;
    if (!d->o.multiple)
        d->o.multiple = 8;
    /* A window longer than an epoch would put an example beside itself. */
    int64_t steps = set->examples / o->rows / o->accumulation;
    d->window = o->shuffle && !o->once && !o->pack ? within(steps, 1, WINDOW) : 1;
    s = moec_data_order_open(set, o->shuffle, o->once, o->seed, &d->order, sink);
    if (!s && !allocate(d))
        s = moec_fail(sink, MOEC_E_MEMORY, NULL, "error: out of memory for batches of %lld rows",
                      (long long)o->rows);
    if (s)
        moec_data_close(d);
    else
        *out = d;
    return s;
}

void moec_data_close(moec_data *d) {
    if (!d)
        return;
    moec_data_order_close(&d->order);
    moec_mem_free(d->base.taken);
    moec_mem_free(d->ahead.taken);
    moec_mem_free(d->row);
    moec_mem_free(d->drawn);
    moec_mem_free(d->order_of);
    moec_mem_release(d->array, d->array_bytes);
    moec_mem_release(d->weight, d->weight_bytes);
    moec_mem_release(d->sentence, d->sentence_bytes);
    moec_mem_release(d->place, d->place_bytes);
    moec_mem_free(d);
}

static void cursor_copy(const moec_data *d, moec_data_cursor *to, const moec_data_cursor *from) {
    to->draws = from->draws;
    memcpy(to->taken, from->taken, (size_t)d->set->files * sizeof *to->taken);
}

/* ---- rows of a step ---- */

static void clear_step(moec_data *d) {
    d->rows = d->places = 0;
    for (int64_t r = 0; r < d->o.rows * d->o.accumulation; r++)
        d->row[r] = (Row){0, 0, -1, -1};
}

static void place(moec_data *d, int64_t row, int64_t example) {
    Row *r = &d->row[row];
    const moec_data_example *x = &d->set->example[example];
    d->place[d->places] = (Place){example, -1, r->source, r->target};
    if (r->last < 0)
        r->first = d->places;
    else
        d->place[r->last].next = d->places;
    r->last = d->places++;
    r->source += x->source;
    r->target += x->target;
    if (row >= d->rows)
        d->rows = row + 1;
}

/* ---- padded ---- */

static int comes_before(const Drawn *a, const Drawn *b) {
    if (a->source != b->source)
        return a->source < b->source;
    return a->target != b->target ? a->target < b->target : a->draw < b->draw;
}

static void sift(Drawn *p, int64_t at, int64_t n) {
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && comes_before(&p[child], &p[child + 1]);
        if (!comes_before(&p[at], &p[child]))
            return;
        Drawn t = p[at];
        p[at] = p[child];
        p[child] = t;
    }
}

/* Heap sort: the C library's may allocate. */
static void sort(Drawn *p, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;)
        sift(p, i, n);
    for (int64_t i = n; i-- > 1;) {
        Drawn t = p[0];
        p[0] = p[i];
        p[i] = t;
        sift(p, 0, i);
    }
}

/* Draws a window's examples. By length only where order is free. */
static void fill_window(moec_data *d) {
    int64_t batches = d->window * d->o.accumulation, most = batches * d->o.rows, n = 0;
    cursor_copy(d, &d->base, &d->ahead);
    for (int64_t e; n < most && (e = moec_data_draw(&d->order, &d->ahead)) >= 0; n++) {
        const moec_data_example *x = &d->set->example[e];
        d->drawn[n] = (Drawn){e, rounded(x->source, d->o.multiple), x->target, n};
    }
    d->drawn_count = n;
    for (int64_t i = 0; i < batches; i++)
        d->order_of[i] = (uint32_t)i;
    if (d->order.shuffle) {
        sort(d->drawn, n);
        moec_data_permute(
            d->order_of, batches,
            moec_data_bits(moec_data_bits(d->o.seed, MOEC_DATA_KEY_BATCHES), (uint64_t)d->base.draws));
    }
}

static void plan_padded(moec_data *d) {
    if (!d->done)
        fill_window(d);
    for (int64_t i = 0; i < d->o.accumulation; i++) {
        int64_t from = d->order_of[d->done * d->o.accumulation + i] * d->o.rows;
        for (int64_t r = 0; r < d->o.rows && from + r < d->drawn_count; r++)
            place(d, i * d->o.rows + r, d->drawn[from + r].example);
    }
    if (++d->done == d->window) {
        d->done = 0;
        cursor_copy(d, &d->base, &d->ahead);
    }
}

/* ---- packed ---- */

static int place_packed(moec_data *d, int64_t example) {
    const moec_data_example *x = &d->set->example[example];
    for (int64_t r = 0; r < d->o.rows * d->o.accumulation; r++)
        if (d->row[r].source + x->source <= d->o.source && d->row[r].target + x->target <= d->o.target) {
            place(d, r, example);
            return 1;
        }
    return 0;
}

static void fill_waiting(moec_data *d) {
    for (int64_t e; d->waiting_count < LOOKAHEAD && (e = moec_data_draw(&d->order, &d->ahead)) >= 0;)
        d->waiting[d->waiting_count++] = e;
}

/* Forgets the used draws the position has passed; returns how many. */
static int64_t pass_used(moec_data *d) {
    int64_t n = 0;
    while (n < d->waiting_count && d->used >> n & 1) {
        moec_data_pass(&d->order, &d->base);
        n++;
    }
    d->waiting_count -= n;
    d->used = n < 64 ? d->used >> n : 0;
    memmove(d->waiting, d->waiting + n, (size_t)d->waiting_count * sizeof *d->waiting);
    return n;
}

static void plan_packed(moec_data *d) {
    int64_t tried = 0;
    for (;;) {
        fill_waiting(d);
        if (tried == d->waiting_count)
            return;
        for (; tried < d->waiting_count; tried++)
            if (!(d->used >> tried & 1) && place_packed(d, d->waiting[tried]))
                d->used |= (uint64_t)1 << tried;
        tried -= pass_used(d);
    }
}

/* ---- a step ---- */

static int64_t real_targets(const moec_dataset *set, int64_t example) {
    const moec_data_example *x = &set->example[example];
    const int32_t *label = set->token + x->at + x->source;
    int64_t n = 0;
    for (int32_t i = 0; i < x->target; i++)
        n += label[i] != MOEC_IGNORED;
    return n;
}

static int64_t real_sources(const moec_dataset *set, int64_t example) {
    const moec_data_example *x = &set->example[example];
    int64_t n = 0;
    for (int32_t i = 0; i < x->source; i++)
        n += set->token[x->at + i] >= 0;
    return n;
}

static int64_t draws_used(const moec_data *d) {
    int64_t n = d->base.draws + d->done * d->o.accumulation * d->o.rows;
    for (uint64_t m = d->used; m; m &= m - 1)
        n++;
    return n;
}

moec_data_step_info moec_data_step(moec_data *d) {
    moec_data_step_info info = {.epoch = (double)draws_used(d) / (double)d->set->examples};
    clear_step(d);
    if (d->o.pack)
        plan_packed(d);
    else
        plan_padded(d);
    for (int64_t i = 0; i < d->places; i++) {
        int64_t e = d->place[i].example, real = real_targets(d->set, e);
        info.source_tokens += real_sources(d->set, e);
        info.target_tokens += real;
        info.mass += (double)d->set->example[e].weight * (d->o.per_example ? 1 : (double)real);
    }
    info.examples = d->places;
    info.batches = (d->rows + d->o.rows - 1) / d->o.rows;
    d->mass = info.mass;
    return info;
}

/* ---- a micro-batch ---- */

/* The arrays of a micro-batch, and how long their rows are. */
typedef struct Arrays {
    int64_t source, target;
    int64_t *input, *encoder, *decoder, *decoder_segments, *labels;
    float *weight;
} Arrays;

static void write_source(const moec_data *d, const Arrays *a, int64_t row, const Place *p, int64_t segment) {
    const moec_data_example *x = &d->set->example[p->example];
    const int32_t *token = d->set->token + x->at;
    int64_t at = row * a->source + p->source;
    for (int32_t i = 0; i < x->source; i++) {
        a->input[at + i] = token[i] < 0 ? -1 - token[i] : token[i];
        a->encoder[at + i] = token[i] < 0 ? 0 : segment;
    }
}

static void write_target(const moec_data *d, const Arrays *a, int64_t row, const Place *p, int64_t segment) {
    const moec_data_example *x = &d->set->example[p->example];
    const int32_t *label = d->set->token + x->at + x->source;
    int64_t at = row * a->target + p->target, previous = d->o.start;
    double each = x->weight / d->mass;
    if (d->o.per_example)
        each /= (double)real_targets(d->set, p->example);
    for (int32_t i = 0; i < x->target; i++) {
        a->labels[at + i] = label[i];
        a->decoder_segments[at + i] = segment;
        a->weight[at + i] = label[i] == MOEC_IGNORED ? 0 : (float)each;
        a->decoder[at + i] = previous;
        previous = label[i] == MOEC_IGNORED ? d->o.pad : label[i];
    }
    if (!d->o.pack && x->target < a->target)
        a->decoder[at + x->target] = previous; /* what shifting a padded row makes */
}

static void clear_row(const moec_data *d, const Arrays *a, int64_t row) {
    for (int64_t i = row * a->source; i < (row + 1) * a->source; i++) {
        a->input[i] = d->o.pad;
        a->encoder[i] = 0;
    }
    for (int64_t i = row * a->target; i < (row + 1) * a->target; i++) {
        a->decoder[i] = d->o.pad;
        a->decoder_segments[i] = !d->o.pack;
        a->labels[i] = MOEC_IGNORED;
        a->weight[i] = 0;
    }
}

static void write_row(const moec_data *d, const Arrays *a, int64_t row, const Row *from) {
    clear_row(d, a, row);
    int64_t segment = 1;
    for (int64_t p = from->first; p >= 0; p = d->place[p].next, segment++) {
        write_source(d, a, row, &d->place[p], segment);
        write_target(d, a, row, &d->place[p], segment);
    }
    if (d->o.sentence)
        memcpy(d->sentence + row * d->o.sentence_width,
               d->o.sentence + d->place[from->first].example * d->o.sentence_width,
               (size_t)d->o.sentence_width * sizeof *d->sentence);
}

/* A row beyond the last one is a copy of the first, so that nothing is computed of padding alone, and counts
 * nothing. */
static void write_spare_row(const moec_data *d, const Arrays *a, int64_t row, const Row *first) {
    write_row(d, a, row, first);
    for (int64_t i = row * a->target; i < (row + 1) * a->target; i++) {
        a->labels[i] = MOEC_IGNORED;
        a->weight[i] = 0;
    }
}

static int64_t rows_of(const moec_data *d, int64_t batch) {
    int64_t left = d->rows - batch * d->o.rows;
    return batch < 0 || left < 0 ? 0 : left < d->o.rows ? left : d->o.rows;
}

moec_batch moec_data_batch(moec_data *d, int64_t i) {
    const moec_data_options *o = &d->o;
    int64_t rows = rows_of(d, i), source = 0, target = 0;
    if (!rows)
        return (moec_batch){0};
    const Row *from = d->row + i * o->rows;
    for (int64_t r = 0; r < rows; r++) {
        source = from[r].source > source ? from[r].source : source;
        target = from[r].target > target ? from[r].target : target;
    }
    Arrays a = {.source = within(rounded(source, o->multiple), o->source_least, o->source),
                .target = within(rounded(target, o->multiple), o->target_least, o->target),
                .weight = d->weight};
    int64_t all = rows > o->rows_least ? rows : o->rows_least;
    a.input = d->array;
    a.encoder = a.input + all * a.source;
    a.decoder = a.encoder + all * a.source;
    a.decoder_segments = a.decoder + all * a.target;
    a.labels = a.decoder_segments + all * a.target;
    for (int64_t r = 0; r < rows; r++)
        write_row(d, &a, r, &from[r]);
    for (int64_t r = rows; r < all; r++)
        write_spare_row(d, &a, r, from);
    return (moec_batch){.rows = all,
                        .source = a.source,
                        .target = a.target,
                        .input_ids = a.input,
                        .encoder_segments = a.encoder,
                        .decoder_input_ids = a.decoder,
                        .decoder_segments = a.decoder_segments,
                        .labels = a.labels,
                        .weight = a.weight,
                        .sentence = o->sentence ? d->sentence : NULL};
}

int64_t moec_data_batch_examples(const moec_data *d, int64_t i, int64_t *example, int64_t room) {
    int64_t n = 0, rows = rows_of(d, i);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t p = d->row[i * d->o.rows + r].first; p >= 0; p = d->place[p].next, n++)
            if (n < room)
                example[n] = d->place[p].example;
    return n;
}

/* ---- position ---- */

enum { HASH, INSIDE, TAKEN }; /* INSIDE: steps done in the window, or the mask of used draws */

/* Of everything a position means something for; not negative. */
static int64_t fingerprint(const moec_data *d) {
    const moec_data_options *o = &d->o;
    const int64_t part[] = {
        o->rows,    o->accumulation, o->pack ? o->source : 0, o->pack ? o->target : 0,  o->pack,
        o->shuffle, o->once,         (int64_t)o->seed,        o->pack ? 0 : o->multiple};
    uint64_t h = d->set->hash;
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        h = moec_data_bits(h, (uint64_t)part[i]);
    for (int64_t f = 0; f < d->set->files; f++) {
        uint64_t share;
        memcpy(&share, &d->order.upto[f], sizeof share);
        h = moec_data_bits(moec_data_bits(h, share), (uint64_t)d->set->file[f].count);
    }
    return (int64_t)(h >> 1);
}

int64_t moec_data_position_count(const moec_data *d) {
    return TAKEN + d->set->files;
}

void moec_data_position_get(const moec_data *d, int64_t *position) {
    position[HASH] = fingerprint(d);
    position[INSIDE] = d->o.pack ? (int64_t)d->used : d->done;
    memcpy(position + TAKEN, d->base.taken, (size_t)d->set->files * sizeof *position);
}

static int is_position(const moec_data *d, const int64_t *position) {
    int64_t draws = 0, inside = position[INSIDE];
    for (int64_t f = 0; f < d->set->files; f++) {
        int64_t n = position[TAKEN + f];
        if (n < 0 || n > ((int64_t)1 << 60) - draws || (d->o.once && n > d->set->file[f].count))
            return 0;
        draws += n;
    }
    return inside >= 0 && (d->o.pack ? inside >> LOOKAHEAD == 0 : inside < d->window);
}

moec_status moec_data_position_set(moec_data *d, const int64_t *position, int64_t n, moec_sink sink) {
    if (n != moec_data_position_count(d) || position[HASH] != fingerprint(d))
        return moec_fail(
            sink, MOEC_E_MISMATCH, NULL,
            "the data, their weights, the seed or the batch size are not those of the saved position");
    if (!is_position(d, position))
        return moec_fail(sink, MOEC_E_FORMAT, NULL, "error: the saved position in the data is none");
    d->base.draws = 0;
    for (int64_t f = 0; f < d->set->files; f++)
        d->base.draws += d->base.taken[f] = position[TAKEN + f];
    cursor_copy(d, &d->ahead, &d->base);
    d->waiting_count = 0;
    d->used = 0;
    d->done = 0;
    if (d->o.pack) {
        fill_waiting(d);
        d->used = (uint64_t)position[INSIDE] & (((uint64_t)1 << d->waiting_count) - 1);
        pass_used(d);
    } else if (position[INSIDE]) {
        fill_window(d);
        d->done = position[INSIDE];
    }
    return MOEC_OK;
}
