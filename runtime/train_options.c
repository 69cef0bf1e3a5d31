/* The options of training as a table, their bounds and defaults, and the learning rate's schedules. */
#include "train_impl.h"

#include <math.h>
#include <string.h>

static const char *const optimizer_words[MOEC_OPTIMIZER_COUNT] = {"adafactor", "adamw", "sgd"};
static const char *const schedule_words[MOEC_SCHEDULE_COUNT] = {"constant", "linear", "cosine",
                                                                "inverse_sqrt"};

#define AT(field) offsetof(moec_train_options, field)
#define MANY      9007199254740992.0 /* 2^53: counts are exact in double up to here */
#define UNBOUNDED 1e300
const moec_option_field moec_option_fields[] = {
    {"optimizer", MOEC_OPT_WORD, AT(optimizer), 0, MOEC_OPTIMIZER_COUNT, 1, optimizer_words},
    {"schedule", MOEC_OPT_WORD, AT(schedule), 0, MOEC_SCHEDULE_COUNT, 1, schedule_words},
    {"learning_rate", MOEC_OPT_REAL, AT(learning_rate), 0, UNBOUNDED, 0, NULL},
    {"warmup", MOEC_OPT_COUNT, AT(warmup), 0, MANY, 0, NULL},
    {"steps", MOEC_OPT_COUNT, AT(steps), 0, MANY, 0, NULL},
    {"beta1", MOEC_OPT_REAL, AT(beta1), 0, 1, 1, NULL},
    {"beta2", MOEC_OPT_REAL, AT(beta2), 0, 1, 1, NULL},
    {"epsilon", MOEC_OPT_REAL, AT(epsilon), 1e-37, UNBOUNDED, 0, NULL},
    {"momentum", MOEC_OPT_REAL, AT(momentum), 0, 1, 1, NULL},
    {"weight_decay", MOEC_OPT_REAL, AT(weight_decay), 0, UNBOUNDED, 0, NULL},
    {"step_offset", MOEC_OPT_COUNT, AT(step_offset), 0, MANY, 0, NULL},
    {"clip_norm", MOEC_OPT_REAL, AT(clip_norm), 0, UNBOUNDED, 0, NULL},
    {"dropout", MOEC_OPT_REAL, AT(dropout), 0, 1, 1, NULL},
    {"label_smoothing", MOEC_OPT_REAL, AT(label_smoothing), 0, 1, 1, NULL},
    {"z_loss", MOEC_OPT_REAL, AT(z_loss), 0, UNBOUNDED, 0, NULL},
    {"seed", MOEC_OPT_BITS, AT(seed), 0, 0, 0, NULL},
};
const size_t moec_option_field_count = sizeof moec_option_fields / sizeof *moec_option_fields;

void moec_train_defaults(moec_train_options *o) {
    *o = (moec_train_options){.optimizer = MOEC_ADAFACTOR,
                              .schedule = MOEC_CONSTANT,
                              .learning_rate = 3e-4,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .momentum = 0.9,
                              .dropout = 0.1,
                              .z_loss = 1e-4};
}

static double option_value(const moec_train_options *o, const moec_option_field *f) {
    const unsigned char *at = (const unsigned char *)o + f->offset;
    double real;
    int64_t count;
    unsigned word;
    switch (f->kind) {
    case MOEC_OPT_REAL:
        memcpy(&real, at, sizeof real);
        return real;
    case MOEC_OPT_COUNT:
        memcpy(&count, at, sizeof count);
        return (double)count;
    case MOEC_OPT_WORD:
        memcpy(&word, at, sizeof word);
        return word;
    default:
        return 0; /* any bits will do */
    }
}

moec_status moec_options_check(const moec_train_options *o, moec_sink sink) {
    for (size_t i = 0; i < moec_option_field_count; i++) {
        const moec_option_field *f = &moec_option_fields[i];
        double v = option_value(o, f);
        if (v >= f->lo && (f->below ? v < f->hi : v <= f->hi)) /* false for what is no number */
            continue;
        if (f->hi < MANY && f->kind == MOEC_OPT_REAL)
            return moec_fail(sink, MOEC_E_ARGUMENT, NULL,
                             "error: %s is %g, it has to be at least 0 and below %g", f->name, v, f->hi);
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s is %g, which it cannot be", f->name, v);
    }
    if (moec_schedule_ends(o->schedule) && o->steps < 1)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL,
                         "error: the schedule '%s' needs the number of steps of the run",
                         schedule_words[o->schedule]);
    if (o->optimizer == MOEC_ADAFACTOR && o->weight_decay > 0)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL,
                         "error: adafactor has no weight decay: use adamw or sgd");
    return MOEC_OK;
}

/* ---- schedules: the factor of the learning rate after `done` steps, behind the warm-up ---- */

static double constant(double done, double warmup, double steps) {
    (void)done, (void)warmup, (void)steps;
    return 1;
}

/* How much of what follows the warm-up is done, 0 to 1. */
static double progress(double done, double warmup, double steps) {
    double p = (done - warmup) / (steps - warmup > 1 ? steps - warmup : 1);
    return p < 1 ? p : 1;
}

static double linear(double done, double warmup, double steps) {
    return 1 - progress(done, warmup, steps);
}

static double cosine(double done, double warmup, double steps) {
    return 0.5 * (1 + cos(3.14159265358979323846 * progress(done, warmup, steps)));
}

static double inverse_sqrt(double done, double warmup, double steps) {
    (void)steps;
    double top = warmup > 1 ? warmup : 1;
    return done > top ? sqrt(top / done) : 1;
}

static const struct {
    double (*factor)(double done, double warmup, double steps);
    int ends;
} schedules[MOEC_SCHEDULE_COUNT] = {
    [MOEC_CONSTANT] = {constant, 0},
    [MOEC_LINEAR] = {linear, 1},
    [MOEC_COSINE] = {cosine, 1},
    [MOEC_INVERSE_SQRT] = {inverse_sqrt, 0},
};

int moec_schedule_ends(moec_schedule s) {
    return schedules[s].ends;
}

double moec_schedule_rate(const moec_train_options *o, int64_t done) {
    if (done < o->warmup)
        return o->learning_rate * ((double)done / (double)o->warmup);
    return o->learning_rate *
           schedules[o->schedule].factor((double)done, (double)o->warmup, (double)o->steps);
}
