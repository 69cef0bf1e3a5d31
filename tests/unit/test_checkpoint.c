/* Checkpoints of the training program written by hand: round trips, what is damaged, and every I/O call of a
 * save failing or being the last one. The calls are this program's own: the runtime's go through them. */
#include "train_fake.h"
#include "frontends/spec.h"
#include "runtime/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- faults ---- */

typedef enum Fault { FAULT_NONE, FAULT_ONCE, FAULT_FROM_HERE, FAULT_SHORT, FAULT_DEATH } Fault;

static Fault fault;
static long io_call, io_at, io_hits, data_lost;

static int io_fails(int error) {
    long k = io_call++;
    if (fault == FAULT_NONE || (fault == FAULT_FROM_HERE ? k < io_at : k != io_at))
        return 0;
    io_hits++;
    if (fault == FAULT_DEATH)
        _exit(99);
    errno = error;
    return fault != FAULT_SHORT;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return io_fails(EMFILE) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t write(int fd, const void *p, size_t n) {
    long before = io_hits;
    if (io_fails(ENOSPC)) {
        data_lost++;
        return -1;
    }
    if (fault == FAULT_SHORT && io_hits > before)
        n = (n + 1) / 2;
    return syscall(SYS_write, fd, p, n);
}

/* Nothing here outlives the machine. */
int fsync(int fd) {
    (void)fd;
    int bad = io_fails(EIO);
    data_lost += bad;
    return bad ? -1 : 0;
}

int close(int fd) {
    int bad = io_fails(EIO), e = errno;
    long r = syscall(SYS_close, fd);
    errno = bad ? e : errno;
    return bad ? -1 : (int)r;
}

int rename(const char *from, const char *to) {
    return io_fails(EIO) ? -1 : (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int mkdir(const char *path, mode_t mode) {
    return io_fails(ENOSPC) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int unlinkat(int fd, const char *path, int flags) {
    return io_fails(EIO) ? -1 : (int)syscall(SYS_unlinkat, fd, path, flags);
}

int rmdir(const char *path) {
    return io_fails(EIO) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- a run ---- */

static char folder[64];

static int clear(void **state) {
    (void)state;
    char command[128];
    fault = FAULT_NONE;
    snprintf(command, sizeof command, "rm -rf -- '%s'", folder);
    return folder[0] ? system(command) : 0;
}

static int set_up(void **state) {
    clear(state);
    strcpy(folder, "checkpoint-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static const char *path_of(const char *name) {
    static char path[4][300];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static const char *run_folder(void) {
    return path_of("run");
}

static int exists(const char *name) {
    struct stat st;
    return lstat(path_of(name), &st) == 0;
}

static moec_train_options options(moec_optimizer kind) {
    moec_train_options o;
    moec_train_defaults(&o);
    o.optimizer = kind;
    o.learning_rate = 1e-2;
    o.dropout = 0.5; /* makes the gradient depend on the seeds */
    o.seed = 0xfedcba9876543210u;
    return o;
}

typedef struct Run {
    moec_instance *m;
    moec_trainer *t;
    moec_agree agree[2];
    int64_t position[3];
    moec_standing p;
    char message[400], warning[1200];
    int warnings, found;
} Run;

static void run_open(Run *r, const moec_train_options *o) {
    memset(r, 0, sizeof *r);
    r->m = fake_open(1);
    r->t = fake_trainer(r->m, o);
    r->agree[0] = (moec_agree){"batch", 2};
    r->agree[1] = (moec_agree){"data \"x\"", INT64_MIN};
    r->p = (moec_standing){r->agree, 2, r->position, 3, 3};
}

static void run_close(Run *r) {
    moec_trainer_close(r->t);
    moec_close(r->m);
}

static void run_steps(Run *r, int64_t upto) {
    while (moec_trainer_steps(r->t) < upto) {
        fake_step(r->t, moec_trainer_steps(r->t));
        for (int k = 0; k < 3; k++)
            r->position[k] = (moec_trainer_steps(r->t) - 2) * (k + 1) * 1000000007;
    }
}

static moec_sink sink_of(Run *r) {
    r->message[0] = 0;
    return (moec_sink){r->message, sizeof r->message};
}

static void take_warning(void *ctx, const char *line) {
    Run *r = ctx;
    r->warnings++;
    snprintf(r->warning, sizeof r->warning, "%s", line);
    assert_null(strchr(line, '\n'));
}

static moec_status run_save(Run *r, int64_t keep) {
    return moec_checkpoint_save(r->t, run_folder(), &r->p, keep, sink_of(r));
}

static moec_status run_load(Run *r) {
    r->warnings = r->found = 0;
    r->p.n_position = 0;
    return moec_checkpoint_load(r->t, run_folder(), &r->p, &r->found, take_warning, r, sink_of(r));
}

static void must(Run *r, moec_status s) {
    if (s)
        fail_msg("%s (%s)", r->message, r->warning);
}

static void has(const char *text, const char *word) {
    if (!strstr(text, word))
        fail_msg("'%s' lacks '%s'", text, word);
}

static void assert_same(const Run *a, const Run *b) {
    assert_int_equal(moec_trainer_steps(a->t), moec_trainer_steps(b->t));
    assert_memory_equal(a->m->slot[0].adapter, b->m->slot[0].adapter, fake_program.adapter_bytes);
    assert_memory_equal(a->t->optimizer.state, b->t->optimizer.state,
                        moec_optimizer_state_bytes(&a->t->optimizer));
    assert_memory_equal(a->position, b->position, sizeof a->position);
    assert_memory_equal(a->m->slot[0].derived, b->m->slot[0].derived, sizeof(float));
}

/* Two checkpoints, of steps 1 and 2. */
static void two_checkpoints(const moec_train_options *o) {
    Run r;
    run_open(&r, o);
    for (int i = 1; i <= 2; i++) {
        run_steps(&r, i);
        must(&r, run_save(&r, 0));
    }
    run_close(&r);
}

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *p = malloc(1 << 20);
    assert_non_null(p);
    *n = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

static void spill(const char *path, const void *p, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

/* ---- files ---- */

static void writes_safetensors(void **state) {
    (void)state;
    static const char want[] =
        "{\"__metadata__\":{\"moec_adapter\":\"{\\\"moec_adapter\\\":1,\\\"method\\\":\\\"ia3\\\"}\"},"
        "\"c\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[8,20]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,20000],\"data_offsets\":[20,160020]}}";
    moec_sink none = {NULL, 0};
    moec_instance *m = fake_open(1);
    const char *path = path_of("x");
    assert_int_equal(moec_safetensors_write(&fake_program, m->slot[0].adapter, path, none), MOEC_OK);
    size_t n;
    char *bytes = slurp(path, &n), message[200];
    size_t header = (unsigned char)bytes[0] | (size_t)(unsigned char)bytes[1] << 8;
    assert_int_equal(header % 8, 0);
    assert_int_equal(n, 8 + header + 160020);
    assert_memory_equal(bytes + 8, want, sizeof want - 1);
    for (size_t i = sizeof want - 1; i < header; i++)
        assert_int_equal(bytes[8 + i], ' ');
    assert_memory_equal(bytes + 8 + header, m->slot[0].adapter + 64 + NB * 4, 8);
    memset(m->slot[0].adapter, 0, fake_program.adapter_bytes);
    assert_int_equal(moec_load_adapter(m, path, message, sizeof message), MOEC_OK);
    assert_int_equal(moec_safetensors_write(&fake_program, m->slot[0].adapter, path_of("y"), none), MOEC_OK);
    size_t again_n;
    char *again = slurp(path_of("y"), &again_n);
    assert_int_equal(n, again_n);
    assert_memory_equal(bytes, again, n);
    free(bytes);
    free(again);
    /* The compiler reads it, spec included. */
    Arena *a = arena_new();
    Diag *d = diag_new();
    AdapterSpec *spec = spec_load(a, path, d);
    assert_non_null(spec);
    assert_int_equal(spec->n_tensors, 3);
    assert_int_equal(spec->rule[0].method, AM_IA3);
    assert_true(str_is(spec->tensor[2].name, "b") && spec->tensor[2].dim[1] == NB / 2);
    spec_close(spec);
    diag_free(d);
    arena_free(a);
    moec_close(m);
}

static void goes_on_with_the_same_bits(void **state) {
    for (int kind = 0; kind < MOEC_OPTIMIZER_COUNT; kind++) {
        moec_train_options o = options((moec_optimizer)kind);
        Run straight, first, second;
        set_up(state);
        run_open(&straight, &o);
        run_steps(&straight, 7);
        run_open(&first, &o);
        run_steps(&first, 3);
        must(&first, run_save(&first, 0));
        run_steps(&first, 5); /* not in the checkpoint */
        run_open(&second, &o);
        must(&second, run_load(&second));
        assert_true(second.found && !second.warnings);
        assert_int_equal(moec_trainer_steps(second.t), 3);
        assert_int_equal(second.p.n_position, 3);
        assert_int_equal(second.position[2], 3 * 1000000007LL);
        run_steps(&second, 7);
        assert_same(&second, &straight);
        must(&second, moec_checkpoint_export(second.t, run_folder(), sink_of(&second)));
        must(&second, moec_load_adapter(first.m, path_of("run/adapter.safetensors"), second.message, 100));
        assert_memory_equal(first.m->slot[0].adapter, straight.m->slot[0].adapter, fake_program.adapter_bytes);
        run_close(&straight);
        run_close(&first);
        run_close(&second);
    }
}

static void finds_nothing(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    Run r;
    run_open(&r, &o);
    must(&r, run_load(&r));
    assert_false(r.found);
    assert_int_equal(mkdir(run_folder(), 0777), 0);
    must(&r, run_load(&r));
    assert_false(r.found);
    spill(path_of("run/checkpoint-07"), "", 0); /* not a name of ours */
    must(&r, run_load(&r));
    assert_false(r.found);
    assert_int_equal(fake_batch(r.t, 1, 1, 1, 1), MOEC_OK);
    assert_int_equal(run_save(&r, 0), MOEC_E_ARGUMENT); /* within a step */
    run_close(&r);
}

static void refuses_to_go_on(const moec_train_options *o, const char *word) {
    Run r;
    run_open(&r, o);
    assert_int_equal(run_load(&r), MOEC_E_MISMATCH);
    has(r.message, "checkpoint-2/state.json: error: ");
    has(r.message, word);
    run_close(&r);
}

static void options_have_to_agree(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAMW);
    two_checkpoints(&o);
#define CHANGED(field, value, word)                                                                          \
    do {                                                                                                     \
        moec_train_options other = o;                                                                        \
        other.field = value;                                                                                 \
        refuses_to_go_on(&other, word);                                                                      \
    } while (0)
    CHANGED(optimizer, MOEC_SGD, "optimizer \"adamw\", now it is \"sgd\"");
    CHANGED(learning_rate, 0.02, "learning_rate 0.01, now it is 0.02");
    CHANGED(warmup, 1, "warmup 0");
    CHANGED(dropout, 0.25, "dropout 0.5, now it is 0.25");
    CHANGED(seed, 1, "seed \"fedcba9876543210\"");
    CHANGED(beta2, 0.99, "beta2 0.999");
    Run r;
    moec_train_options longer = o;
    longer.steps = 100; /* nothing depends on it */
    run_open(&r, &longer);
    must(&r, run_load(&r));
    assert_true(r.found);
    r.agree[0].value = 3;
    assert_int_equal(run_load(&r), MOEC_E_MISMATCH);
    has(r.message, "batch 2, now it is 3");
    r.agree[0].name = "rows";
    assert_int_equal(run_load(&r), MOEC_E_MISMATCH);
    has(r.message, "batch 2, now it is not given");
    moec_program p = fake_program;
    p.weights_hash++;
    r.m->program = &p;
    assert_int_equal(run_load(&r), MOEC_E_MISMATCH);
    has(r.message, "another compilation: it is of 'fake', hash ");
    has(r.message, "; this program is 'fake', hash ");
    r.m->program = &fake_program;
    run_close(&r);
    clear(state);
    set_up(state);
    o.schedule = MOEC_LINEAR;
    o.steps = 50;
    two_checkpoints(&o);
    CHANGED(steps, 60, "steps 50, now it is 60");
}

/* ---- damage ---- */

static const char *const files[] = {"run/checkpoint-2/state.json", "run/checkpoint-2/adapter.safetensors",
                                    "run/checkpoint-2/optimizer.safetensors"};

/* The checkpoint of step 1 is what loads, and the warning names the file. */
static void falls_back(Run *r, const char *file) {
    must(r, run_load(r));
    assert_true(r->found);
    assert_int_equal(moec_trainer_steps(r->t), 1);
    assert_int_equal(r->position[0], -1000000007LL);
    assert_int_equal(r->warnings, 1);
    has(r->warning, file);
    has(r->warning, ": warning: ");
}

static void finds_every_changed_byte(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAFACTOR);
    two_checkpoints(&o);
    Run r;
    run_open(&r, &o);
    for (int k = 0; k < 3; k++) {
        size_t n, places = 0;
        char *bytes = slurp(path_of(files[k]), &n);
        int fd = open(path_of(files[k]), O_WRONLY);
        for (size_t i = 0; i < n; i += i < 400 || n - i < 40 ? 1 : n / 100 + 1, places++) {
            char changed = (char)(bytes[i] ^ 1 << i % 8);
            assert_int_equal(pwrite(fd, &changed, 1, (off_t)i), 1);
            falls_back(&r, files[k]);
            assert_int_equal(pwrite(fd, &bytes[i], 1, (off_t)i), 1);
        }
        assert_true(places > 400);
        close(fd);
        free(bytes);
    }
    must(&r, run_load(&r));
    assert_int_equal(moec_trainer_steps(r.t), 2);
    assert_int_equal(r.warnings, 0);
    run_close(&r);
}

static void finds_other_damage(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAMW);
    two_checkpoints(&o);
    Run r;
    run_open(&r, &o);
    for (int k = 0; k < 3; k++) {
        char path[300];
        size_t n;
        snprintf(path, sizeof path, "%s", path_of(files[k]));
        char *bytes = slurp(path, &n);
        const size_t length[] = {0, 1, 8, n / 2, n - 8, n - 1};
        for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
            assert_int_equal(truncate(path, (off_t)length[i]), 0);
            falls_back(&r, files[k]);
            spill(path, bytes, n);
        }
        assert_int_equal(truncate(path, (off_t)n + 1), 0);
        falls_back(&r, files[k]);
        unlink(path);
        falls_back(&r, files[k]);
        assert_int_equal(mkfifo(path, 0600), 0);
        falls_back(&r, files[k]);
        unlink(path);
        spill(path, bytes, n);
        free(bytes);
    }
    /* A state of another step is in the wrong folder. */
    assert_int_equal(rename(path_of("run/checkpoint-2"), path_of("run/checkpoint-3")), 0);
    falls_back(&r, "run/checkpoint-3/state.json");
    assert_int_equal(truncate(path_of("run/checkpoint-1/state.json"), 3), 0);
    assert_int_equal(run_load(&r), MOEC_E_FORMAT);
    has(r.message, "run: error: none of its 2 checkpoints is whole");
    assert_int_equal(r.warnings, 2);
    /* The run goes on from anew and replaces what is damaged. */
    run_close(&r);
    run_open(&r, &o);
    run_steps(&r, 1);
    must(&r, run_save(&r, 1));
    assert_true(exists("run/checkpoint-1"));
    assert_true(exists("run/checkpoint-3")); /* of a later step: not counted, not removed */
    run_steps(&r, 3);
    must(&r, run_save(&r, 1));
    assert_false(exists("run/checkpoint-1"));
    must(&r, run_load(&r));
    assert_int_equal(moec_trainer_steps(r.t), 3);
    assert_int_equal(r.warnings, 0);
    run_close(&r);
}

/* ---- other people's names ---- */

static int entries(const char *name) {
    DIR *d = opendir(path_of(name));
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n - 2;
}

static void keeps_the_newest(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    Run r;
    run_open(&r, &o);
    for (int i = 1; i <= 11; i++) {
        run_steps(&r, i);
        must(&r, run_save(&r, 3));
        must(&r, run_save(&r, 3)); /* the same once more */
        assert_int_equal(entries("run"), i < 3 ? i : 3);
    }
    assert_true(exists("run/checkpoint-9") && exists("run/checkpoint-10") && exists("run/checkpoint-11"));
    must(&r, run_load(&r));
    assert_int_equal(moec_trainer_steps(r.t), 11); /* by number, not by letter */
    run_close(&r);
}

static void cleans_up(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    two_checkpoints(&o);
    static const char *const dead[] = {"run/.checkpoint-3.2147483646.tmp",
                                       "run/.checkpoint-2.2147483646.old"};
    static const char *const stay[] = {"run/.checkpoint-03.5.tmp", "run/.checkpoint-3.x.tmp", "run/notes"};
    for (size_t i = 0; i < 2; i++) {
        char inside[200];
        assert_int_equal(mkdir(path_of(dead[i]), 0777), 0);
        snprintf(inside, sizeof inside, "%s/state.json", dead[i]);
        spill(path_of(inside), "x", 1);
    }
    spill(path_of("run/.moec-2147483646-0.tmp"), "x", 1);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(mkdir(path_of(stay[i]), 0777), 0);
    char alive[100];
    snprintf(alive, sizeof alive, "run/.checkpoint-3.%ld.tmp", (long)getppid());
    assert_int_equal(mkdir(path_of(alive), 0777), 0);
    /* Killed between the renames of a replacement: step 2 stepped aside. */
    Run r;
    run_open(&r, &o);
    must(&r, run_load(&r));
    assert_int_equal(moec_trainer_steps(r.t), 2);
    for (size_t i = 0; i < 2; i++)
        assert_false(exists(dead[i]));
    assert_false(exists("run/.moec-2147483646-0.tmp"));
    for (size_t i = 0; i < 3; i++)
        assert_true(exists(stay[i]));
    assert_true(exists(alive));
    assert_int_equal(rename(path_of("run/checkpoint-2"), path_of("run/.checkpoint-2.1.old")), 0);
    must(&r, run_load(&r));
    assert_int_equal(moec_trainer_steps(r.t), 2);
    assert_false(exists("run/.checkpoint-2.1.old"));
    run_close(&r);
}

/* ---- faults ---- */

/* One more step and its save, under the fault that is set. */
static moec_status save_another(const moec_train_options *o, Run *r) {
    fault = FAULT_NONE;
    run_open(r, o);
    must(r, run_load(r));
    int64_t from = moec_trainer_steps(r->t);
    run_steps(r, from + 1);
    return MOEC_OK;
}

static void check_generation(const moec_train_options *o, int64_t lo, int64_t hi) {
    Run r, straight;
    run_open(&r, o);
    run_open(&straight, o);
    must(&r, run_load(&r));
    int64_t got = moec_trainer_steps(r.t);
    if (got < lo || got > hi || r.warnings)
        fail_msg("call %ld: step %d loads", io_at, (int)got);
    run_steps(&straight, 3);
    run_steps(&r, 3);
    assert_same(&r, &straight);
    must(&r, run_save(&r, 2)); /* the folder is as good as before */
    run_close(&r);
    run_close(&straight);
}

static void half_written_is_gone(void) {
    DIR *d = opendir(run_folder());
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d)))
        if (e->d_name[0] == '.' && e->d_name[1] && strcmp(e->d_name, ".."))
            fail_msg("call %ld left %s", io_at, e->d_name);
    closedir(d);
}

static void every_call_may_fail(void **state) {
    moec_train_options o = options(MOEC_ADAFACTOR);
    static const Fault kinds[] = {FAULT_ONCE, FAULT_FROM_HERE, FAULT_SHORT};
    for (int k = 0; k < 3; k++) {
        long failures = 0;
        for (long at = 0;; at++) {
            Run r;
            set_up(state);
            two_checkpoints(&o);
            save_another(&o, &r);
            io_call = io_hits = data_lost = 0;
            io_at = at;
            fault = kinds[k];
            moec_status s = run_save(&r, 2);
            fault = FAULT_NONE;
            long hits = io_hits;
            assert_true(s || !data_lost);
            if (s) {
                failures++;
                assert_int_equal(s, MOEC_E_IO);
                has(r.message, "run");
                has(r.message, ": error: ");
                assert_null(strchr(r.message, '\n'));
                if (kinds[k] == FAULT_ONCE)
                    half_written_is_gone();
            }
            run_close(&r);
            /* A sync of the folder that fails comes after the rename. */
            check_generation(&o, s ? 2 : 3, 3);
            if (!hits)
                break;
        }
        assert_true(kinds[k] == FAULT_SHORT ? failures == 0 : failures > 20);
    }
}

/* A checkpoint that is being replaced is in its place again when its successor fails. */
static void replacing_may_fail(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_SGD);
    two_checkpoints(&o);
    Run r;
    run_open(&r, &o);
    must(&r, run_load(&r));
    long failures = 0;
    for (long at = 0;; at++) {
        io_call = io_hits = 0;
        io_at = at;
        fault = FAULT_ONCE;
        failures += run_save(&r, 0) != MOEC_OK;
        fault = FAULT_NONE;
        assert_true(exists("run/checkpoint-2/state.json"));
        if (!io_hits)
            break;
    }
    assert_true(failures > 20);
    run_close(&r);
    check_generation(&o, 2, 2);
}

static void death_at_every_call(void **state) {
    moec_train_options o = options(MOEC_ADAMW);
    long deaths = 0;
    for (long at = 0;; at++) {
        set_up(state);
        two_checkpoints(&o);
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            Run r;
            save_another(&o, &r);
            io_call = 0;
            io_at = at;
            fault = FAULT_DEATH;
            int bad = run_save(&r, 1);
            fault = FAULT_NONE;
            _exit(bad ? 1 : 0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        io_at = at;
        check_generation(&o, WEXITSTATUS(status) ? 2 : 3, 3);
        half_written_is_gone();
        if (WEXITSTATUS(status) == 0)
            break;
        deaths++;
    }
    assert_true(deaths > 30);
}

/* The same with the file system's own refusal, at some lengths of each file. */
static void disk_is_full(void **state) {
    (void)state;
    moec_train_options o = options(MOEC_ADAMW);
    two_checkpoints(&o);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    static const rlim_t size[] = {0, 1, 7, 8, 300, 20000, 160000, 200000, 320000};
    static const char *const file[] = {"adapter.safetensors", "optimizer.safetensors"};
    Run r;
    save_another(&o, &r);
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        low = old;
        low.rlim_cur = size[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        moec_status s = run_save(&r, 1);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(s, MOEC_E_IO);
        has(r.message, file[size[i] > 160500]);
        has(r.message, "cannot be written: File too large");
        assert_int_equal(entries("run"), 2);
    }
    run_close(&r);
    check_generation(&o, 2, 2);
    signal(SIGXFSZ, SIG_DFL);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, clear)
    const struct CMUnitTest tests[] = {
        TEST(writes_safetensors),
        TEST(goes_on_with_the_same_bits),
        TEST(finds_nothing),
        TEST(options_have_to_agree),
        TEST(finds_every_changed_byte),
        TEST(finds_other_damage),
        TEST(keeps_the_newest),
        TEST(cleans_up),
        TEST(every_call_may_fail),
        TEST(replacing_may_fail),
        TEST(death_at_every_call),
        TEST(disk_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
