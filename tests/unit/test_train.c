/* Training over a program written by hand: optimisers against numbers of an independent float64 computation,
 * schedules, micro-batches, clipping, what is refused. */
#include "train_fake.h"

#define near(x, y, tolerance)                                                                                \
    do {                                                                                                     \
        double x_ = (x), y_ = (y), most = (tolerance) * (fabs(y_) + 1e-3);                                   \
        if (!(fabs(x_ - y_) <= most))                                                                        \
            fail_msg("%s is %.9g, not %.9g", #x, x_, y_);                                                    \
    } while (0)

static moec_train_options options(moec_optimizer kind) {
    moec_train_options o;
    moec_train_defaults(&o);
    o.optimizer = kind;
    o.learning_rate = 1e-2;
    o.dropout = 0;
    return o;
}

/* ---- optimisers ---- */

/* After ten steps: a, some of b, the sum of |b|, the gradient's norm in the last step. */
typedef struct Reference {
    double a[NA], b[4], sum, norm;
} Reference;

static void check_run(const moec_train_options *o, const Reference *want) {
    static const int at[4] = {0, 1, 16384, NB - 1};
    moec_instance *m = fake_open(2);
    moec_trainer *t = fake_trainer(m, o);
    moec_step_report r = {0};
    for (int i = 0; i < 10; i++)
        r = fake_step(t, i);
    assert_int_equal(moec_trainer_steps(t), 10);
    for (int i = 0; i < NA; i++)
        near(fake_a(m)[i], want->a[i], 3e-6);
    for (int i = 0; i < 4; i++)
        near(fake_b(m)[at[i]], want->b[i], 3e-5); /* a near cancellation among them */
    double sum = 0;
    for (int j = 0; j < NB; j++)
        sum += fabs((double)fake_b(m)[j]);
    near(sum, want->sum, 1e-6);
    near(r.gradient_norm, want->norm, 1e-6);
    near(r.loss, 1 + 0.1 + 5, 1e-6);
    assert_true(*(float *)(void *)m->slot[0].derived == 2 * fake_a(m)[0]);   /* prepared */
    assert_true(fake_a(m)[16 + NB] == 5 && fake_a(m)[17 + NB] == 6); /* c is not trained */
    moec_trainer_close(t);
    moec_close(m);
}

static void adafactor(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAFACTOR);
    static const Reference plain = {{0.522012362, 1.01937213, 1.51842484},
                                    {-0.667296508, -0.542632735, 0.0407090787, -0.291623051},
                                    13606.801,
                                    569.703234};
    check_run(&o, &plain);
    o.step_offset = 1100000;
    static const Reference offset = {{0.528609744, 1.01815746, 1.51416347},
                                     {-0.668100023, -0.543547264, 0.0409701492, -0.292196867},
                                     13632.5903,
                                     569.686195};
    check_run(&o, &offset);
    o.step_offset = 0;
    o.clip_norm = 1;
    static const Reference clipped = {{0.500457716, 0.999307416, 1.49890999},
                                      {-0.670029799, -0.545968849, 0.0404748948, -0.293084027},
                                      13719.5915,
                                      569.722716};
    check_run(&o, &clipped);
}

/* A tensor of zeros (the B of LoRA) moves as if its root mean square were 1e-3. */
static void adafactor_from_zero(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAFACTOR);
    moec_instance *m = fake_open(1);
    moec_trainer *t = fake_trainer(m, &o);
    memset(m->slot[0].adapter, 0, fake_program.adapter_bytes);
    fake_step(t, 0); /* v = g^2, so u is the sign of g: that of -L (i+1)/10, of -L ((j mod 7) - 3) */
    for (int i = 0; i < NA; i++)
        near(fake_a(m)[i] * 1e5, 1, 1e-6);
    for (int j = 0; j < 7; j++)
        near(fake_b(m)[j] * 1e5, (j > 3) - (j < 3), 1e-6);
    moec_trainer_close(t);
    moec_close(m);
}

/* torch.nn.utils.clip_grad_norm_ divides by norm + 1e-6; a norm below the limit changes nothing. */
static void clips_as_torch(void **state) {
    (void)state;
    static const struct {
        float weight;
        double limit;
    } cases[] = {{1e-9f, 2e-8}, {1e-9f, 1}, {1, 1e-3}, {1, 1e6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        moec_train_options o = options(MOEC_SGD);
        moec_step_report r;
        o.clip_norm = cases[i].limit;
        moec_instance *m = fake_open(1);
        moec_trainer *t = fake_trainer(m, &o);
        assert_int_equal(fake_batch(t, 1, 1, cases[i].weight, 1), MOEC_OK);
        assert_int_equal(moec_trainer_step(t, &r), MOEC_OK);
        double scale = fmin(1, cases[i].limit / (r.gradient_norm + 1e-6));
        double velocity = moec_optimizer_norm(&t->optimizer, NULL, t->optimizer.state);
        near(velocity / r.gradient_norm, scale, 1e-6);
        moec_trainer_close(t);
        moec_close(m);
    }
}

static void adamw(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAMW);
    static const Reference plain = {{0.461419727, 0.958014049, 1.45684004},
                                    {-0.719766623, -0.593331935, 0.0985623987, -0.346756539},
                                    13203.8315,
                                    565.428066};
    check_run(&o, &plain);
    static const Reference scheduled = {{0.474739576, 0.974000864, 1.47375065},
                                        {-0.671760184, -0.546047014, 0.0488310651, -0.297816091},
                                        13454.3419,
                                        568.713255};
    o.schedule = MOEC_COSINE;
    o.warmup = 4;
    o.steps = 10;
    check_run(&o, &scheduled);
    static const Reference decayed = {{0.462060142, 0.95241821, 1.44556239},
                                      {-0.701947469, -0.567465483, 0.0702564061, -0.327923604},
                                      13306.356,
                                      566.580362};
    o = options(MOEC_ADAMW);
    o.weight_decay = 0.1;
    o.clip_norm = 1;
    o.beta1 = 0.8;
    o.beta2 = 0.99;
    o.epsilon = 1e-3;
    check_run(&o, &decayed);
}

static void sgd(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    static const Reference plain = {{0.478465568, 0.956931137, 1.43539671},
                                    {-1.2413052, -0.894367785, 0.246690933, -0.693874826},
                                    19456.7669,
                                    534.430953};
    check_run(&o, &plain);
    o.momentum = 0;
    o.weight_decay = 0.1;
    o.clip_norm = 1;
    static const Reference decayed = {{0.494956699, 0.989913399, 1.4848701},
                                      {-0.619355484, -0.495387836, 0.000241377763, -0.247935296},
                                      13499.2982,
                                      572.738162};
    check_run(&o, &decayed);
}

static void schedules(void **state) {
    (void)state;
    static const struct {
        moec_schedule schedule;
        int64_t done;
        double rate;
    } cases[] = {
        {MOEC_CONSTANT, 0, 0},        {MOEC_CONSTANT, 1, 0.5},   {MOEC_CONSTANT, 4, 2},
        {MOEC_CONSTANT, 1000, 2},     {MOEC_LINEAR, 3, 1.5},     {MOEC_LINEAR, 4, 2},
        {MOEC_LINEAR, 8, 1},          {MOEC_LINEAR, 11, 0.25},   {MOEC_LINEAR, 12, 0},
        {MOEC_LINEAR, 50, 0},         {MOEC_COSINE, 4, 2},       {MOEC_COSINE, 6, 1.7071067811865475},
        {MOEC_COSINE, 8, 1},          {MOEC_COSINE, 12, 0},      {MOEC_COSINE, 50, 0},
        {MOEC_INVERSE_SQRT, 2, 1},    {MOEC_INVERSE_SQRT, 4, 2}, {MOEC_INVERSE_SQRT, 16, 1},
        {MOEC_INVERSE_SQRT, 64, 0.5},
    };
    moec_train_options o = options(MOEC_SGD);
    o.learning_rate = 2;
    o.warmup = 4;
    o.steps = 12;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o.schedule = cases[i].schedule;
        if (fabs(moec_schedule_rate(&o, cases[i].done) - cases[i].rate) > 1e-15)
            fail_msg("case %zu: %g", i, moec_schedule_rate(&o, cases[i].done));
    }
    o.warmup = 0;
    o.schedule = MOEC_INVERSE_SQRT;
    assert_true(moec_schedule_rate(&o, 0) == 2 && moec_schedule_rate(&o, 1) == 2 &&
                moec_schedule_rate(&o, 4) == 1);
}

/* ---- steps ---- */

/* Four rows at once, then two micro-batches of the same weights: exact here, whatever the number of threads.
 */
static void micro_batches_add_up(void **state) {
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        moec_instance *m[2] = {fake_open(1), fake_open(threads)};
        moec_train_options o = options(MOEC_ADAFACTOR);
        moec_trainer *t[2] = {fake_trainer(m[0], &o), fake_trainer(m[1], &o)};
        for (int i = 0; i < 3; i++) {
            moec_step_report r[2];
            assert_int_equal(fake_batch(t[0], 4, 2, 0.125f, 1), MOEC_OK);
            assert_int_equal(fake_batch(t[1], 2, 2, 0.125f, 0.5), MOEC_OK);
            assert_int_equal(fake_batch(t[1], 2, 2, 0.125f, 0.5), MOEC_OK);
            for (int k = 0; k < 2; k++)
                assert_int_equal(moec_trainer_step(t[k], &r[k]), MOEC_OK);
            near(r[1].loss, 1 + 0.02 + 5, 1e-6);
            near(r[1].token_loss, 1.02, 1e-6);
            near(r[1].balance_loss, 2, 1e-12);
            near(r[1].router_z_loss, 3, 1e-12);
            near(r[1].gradient_norm, r[0].gradient_norm, 1e-6);
            for (int j = 0; j < NB; j++)
                near(fake_b(m[1])[j], fake_b(m[0])[j], 1e-5);
        }
        for (int k = 0; k < 2; k++) {
            moec_trainer_close(t[k]);
            moec_close(m[k]);
        }
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    for (int kind = 0; kind < MOEC_OPTIMIZER_COUNT; kind++) {
        moec_train_options o = options((moec_optimizer)kind);
        moec_instance *one = fake_open(1);
        moec_trainer *t = fake_trainer(one, &o);
        for (int i = 0; i < 4; i++)
            fake_step(t, i);
        for (int threads = 2; threads <= 5; threads++) {
            moec_instance *m = fake_open(threads);
            moec_trainer *u = fake_trainer(m, &o);
            for (int i = 0; i < 4; i++)
                fake_step(u, i);
            assert_memory_equal(m->slot[0].adapter, one->slot[0].adapter, fake_program.adapter_bytes);
            assert_memory_equal(u->optimizer.state, t->optimizer.state,
                                moec_optimizer_state_bytes(&t->optimizer));
            moec_trainer_close(u);
            moec_close(m);
        }
        moec_trainer_close(t);
        moec_close(one);
    }
}

/* Every micro-batch of every step has its own seed, and the same one in every run. */
static void seeds_differ(void **state) {
    (void)state;
    int64_t seen[2][12];
    for (int run = 0; run < 2; run++) {
        moec_instance *m = fake_open(1);
        moec_train_options o = options(MOEC_SGD);
        moec_step_report r;
        o.seed = 5;
        moec_trainer *t = fake_trainer(m, &o);
        for (int i = 0; i < 12; i++) {
            assert_int_equal(fake_batch(t, 1, 1, 1, 1), MOEC_OK);
            seen[run][i] = t->seed;
            for (int k = 0; k < i; k++)
                assert_true(seen[run][k] != t->seed);
            if (i % 3 == 2)
                assert_int_equal(moec_trainer_step(t, &r), MOEC_OK);
        }
        moec_trainer_close(t);
        moec_close(m);
    }
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
}

/* What is not finite stops before it reaches the adapter, and the run can go on. */
static void numbers_stay_finite(void **state) {
    (void)state;
    static const struct {
        int64_t label;
        float weight;
    } bad[] = {{666, 1}, {667, 1}, {1, NAN}, {1, 1e25f}};
    moec_instance *m = fake_open(2);
    moec_train_options o = options(MOEC_ADAMW);
    moec_trainer *t = fake_trainer(m, &o);
    fake_step(t, 0);
    size_t block = (size_t)fake_program.adapter_bytes,
           held = (size_t)moec_optimizer_state_bytes(&t->optimizer);
    unsigned char *before = malloc(block + held);
    assert_non_null(before);
    memcpy(before, m->slot[0].adapter, block);
    memcpy(before + block, t->optimizer.state, held);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        moec_step_report r;
        assert_int_equal(fake_batch(t, 1, 1, 1, 1), MOEC_OK);
        assert_int_equal(fake_batch(t, 1, bad[i].label, bad[i].weight, 1), MOEC_OK);
        assert_int_equal(moec_trainer_step(t, &r), MOEC_E_NUMERIC);
        assert_memory_equal(m->slot[0].adapter, before, block);
        assert_memory_equal(t->optimizer.state, before + block, held);
        assert_int_equal(moec_trainer_steps(t), 1);
        assert_int_equal(moec_trainer_step(t, &r), MOEC_E_ARGUMENT); /* its gradient is gone */
    }
    fake_step(t, 1);
    moec_instance *m2 = fake_open(1);
    moec_trainer *t2 = fake_trainer(m2, &o);
    fake_step(t2, 0);
    fake_step(t2, 1);
    assert_memory_equal(m->slot[0].adapter, m2->slot[0].adapter, block);
    free(before);
    moec_trainer_close(t);
    moec_trainer_close(t2);
    moec_close(m);
    moec_close(m2);
}

/* A batch that fails leaves the step's gradient as it was. */
static void batches_are_checked(void **state) {
    (void)state;
    static int64_t ids[ROWS * SOURCE], labels[ROWS * TARGET];
    static float weight[ROWS * TARGET];
    const moec_batch good = {2, 3, 2, ids, ids, ids, ids, labels, weight, NULL};
    moec_instance *m = fake_open(1);
    moec_train_options o = options(MOEC_SGD);
    moec_trainer *t = fake_trainer(m, &o);
    assert_int_equal(fake_batch(t, 2, 1, 0.25f, 1), MOEC_OK);
    moec_batch b = good;
    b.rows = ROWS + 1;
    assert_int_equal(moec_trainer_batch(t, &b, 1), MOEC_E_RANGE);
    b.rows = 0;
    assert_int_equal(moec_trainer_batch(t, &b, 1), MOEC_E_RANGE);
    b = good;
    b.source = SOURCE + 1;
    assert_int_equal(moec_trainer_batch(t, &b, 1), MOEC_E_RANGE);
    b = good;
    b.target = INT64_MAX;
    assert_int_equal(moec_trainer_batch(t, &b, 1), MOEC_E_RANGE);
    b = good;
    b.weight = NULL;
    assert_int_equal(moec_trainer_batch(t, &b, 1), MOEC_E_ARGUMENT);
    ids[3] = 99;
    assert_int_equal(moec_trainer_batch(t, &good, 1), MOEC_E_INDEX);
    moec_step_report r;
    assert_int_equal(moec_trainer_step(t, &r), MOEC_OK);
    near(r.loss, 6.01, 1e-6);
    assert_int_equal(moec_trainer_step(NULL, &r), MOEC_E_ARGUMENT);
    moec_trainer_close(t);
    moec_trainer_close(NULL);
    moec_close(m);
}

/* ---- opening ---- */

static void refuse(const moec_program *p, const moec_train_options *o, moec_status want, const char *word) {
    char message[256];
    moec_instance *m = fake_open(1);
    moec_trainer *t = (moec_trainer *)&message;
    m->program = p;
    assert_int_equal(moec_trainer_open(m, o, &t, message, sizeof message), want);
    assert_null(t);
    if (!strstr(message, word))
        fail_msg("'%s' lacks '%s'", message, word);
    m->program = &fake_program;
    moec_close(m);
}

static void refuses_options(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
#define REFUSE(field, value, word)                                                                           \
    do {                                                                                                     \
        moec_train_options bad = o;                                                                          \
        bad.field = value;                                                                                   \
        refuse(&fake_program, &bad, MOEC_E_ARGUMENT, word);                                                  \
    } while (0)
    REFUSE(dropout, 1, "dropout is 1");
    REFUSE(dropout, -0.1, "dropout is -0.1");
    REFUSE(label_smoothing, NAN, "label_smoothing is nan");
    REFUSE(learning_rate, INFINITY, "learning_rate is inf");
    REFUSE(learning_rate, -1, "learning_rate");
    REFUSE(beta2, 1, "beta2");
    REFUSE(epsilon, 0, "epsilon");
    REFUSE(warmup, -1, "warmup");
    REFUSE(step_offset, INT64_MAX, "step_offset");
    REFUSE(optimizer, MOEC_OPTIMIZER_COUNT, "optimizer");
    REFUSE(schedule, (moec_schedule)-1, "schedule");
    REFUSE(schedule, MOEC_LINEAR, "number of steps");
    o = options(MOEC_ADAFACTOR);
    REFUSE(weight_decay, 0.1, "no weight decay");
}

static void refuses_programs(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    moec_seq2seq q = fake_sequence;
    moec_program p = fake_program;
    moec_tensor tensors[3];
    p.seq2seq = &q;
    q.train = -1;
    refuse(&p, &o, MOEC_E_MISMATCH, "compile it again with --train");
    q.train = 1; /* cross */
    refuse(&p, &o, MOEC_E_MISMATCH, "input 'hidden'");
    q.train = 3;
    p.tensor = tensors;
    memcpy(tensors, fake_tensors, sizeof tensors);
    tensors[1].gradient = 0;
    refuse(&p, &o, MOEC_E_MISMATCH, "no gradient of tensor 'a'");
    tensors[1].gradient = 99;
    refuse(&p, &o, MOEC_E_MISMATCH, "no gradient of tensor 'a'");
    tensors[1].gradient = 1;
    tensors[2].extent[1]++;
    refuse(&p, &o, MOEC_E_MISMATCH, "no gradient of tensor 'b'");
    tensors[2] = fake_tensors[2];
    tensors[2].dtype = MOEC_F16;
    refuse(&p, &o, MOEC_E_MISMATCH, "'b' cannot be trained");
    tensors[1].gradient = tensors[2].gradient = -1;
    refuse(&p, &o, MOEC_E_MISMATCH, "no tensor to train");
}

static void counts_bytes(void **state) {
    (void)state;
    assert_int_equal(moec_train_gradient_bytes(&fake_program), 64 + NB * 4);
    assert_int_equal(moec_train_state_bytes(&fake_program, MOEC_ADAFACTOR), 64 + NB * 4);
    assert_int_equal(moec_train_state_bytes(&fake_program, MOEC_ADAMW), 2 * (64 + NB * 4));
    assert_int_equal(moec_train_state_bytes(&fake_program, MOEC_SGD), 64 + NB * 4);
}

static void sizes_of(const int64_t *sym, uint64_t *bytes) {
    bytes[0] = 10 * (uint64_t)sym[0];
    bytes[1] = 64;
    bytes[2] = 0;
}

/* Places that overlap, lie within others, touch, leave holes; a size of nothing; two functions, called or not. */
static void counts_the_arena(void **state) {
    (void)state;
    static const moec_place place[] = {{0, 0, 0},    {0, 1, 0},    {0, 0, 1},    {16, 1, 0}, {80, 2, 0},
                                       {80, 1, 0},   {1000, 0, 0}, {1008, 1, 0}, {4000, 0, 1}};
    moec_program p = fake_program;
    const int64_t small = 1, large = 100;
    const int64_t *const one[] = {&small, NULL}, *const other[] = {&large, NULL}, *const both[] = {&small, &large},
                                                   *const none[] = {NULL, NULL};
    p.n_functions = 2;
    p.n_places = sizeof place / sizeof *place;
    p.n_sizes = 3;
    p.place = place;
    p.place_sizes = sizes_of;
    assert_int_equal(moec_arena_bytes(&p, one), 144 + 10 + 64 - 2);
    assert_int_equal(moec_arena_bytes(&p, other), 2000);
    assert_int_equal(moec_arena_bytes(&p, both), 1000 + 8 + 64 + 1000);
    assert_int_equal(moec_arena_bytes(&p, none), 0);
    p.n_places = 1;
    assert_int_equal(moec_arena_bytes(&p, other), 1000);
    assert_int_equal(moec_arena_bytes(&fake_program, other), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adafactor),
        cmocka_unit_test(adafactor_from_zero),
        cmocka_unit_test(clips_as_torch),
        cmocka_unit_test(adamw),
        cmocka_unit_test(sgd),
        cmocka_unit_test(schedules),
        cmocka_unit_test(micro_batches_add_up),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(numbers_stay_finite),
        cmocka_unit_test(batches_are_checked),
        cmocka_unit_test(refuses_options),
        cmocka_unit_test(refuses_programs),
        cmocka_unit_test(counts_bytes),
        cmocka_unit_test(counts_the_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
