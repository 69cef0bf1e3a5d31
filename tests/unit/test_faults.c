/* Programs that embed a model go on when the runtime gets no memory: every allocation of an instance that decodes, of one that
 * trains and of one that resumes is refused in turn, alone and with all later ones. A refusal is an error with a message, or changes
 * nothing; nothing is leaked, and the next call works and gives the same bits. The linker puts these functions in front of the
 * C library's (--wrap). */
#define FAKE_B 4000
#include "runtime_fake.h"
#include "train_fake.h"

#include "runtime/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

/* ---- memory that is refused ---- */

static atomic_long asked, hits, blocks, mapped; /* blocks and bytes that are in use */
static long refuse_at = -1;
static int refuse_on;

static int refused(void) {
    long n = atomic_fetch_add(&asked, 1);
    if (refuse_at < 0 || (n != refuse_at && !(refuse_on && n > refuse_at)))
        return 0;
    hits++;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *p) {
    blocks += p != NULL;
    return p;
}

#define WRAP(type, name, ...)      \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t n) {
    return refused() ? NULL : counted(__real_malloc(n));
}

WRAP(void *, calloc, size_t n, size_t size) {
    return refused() ? NULL : counted(__real_calloc(n, size));
}

WRAP(void *, realloc, void *p, size_t n) {
    return refused() ? NULL : p ? __real_realloc(p, n) : counted(__real_realloc(p, n));
}

WRAP(void, free, void *p) {
    blocks -= p != NULL;
    __real_free(p);
}

WRAP(void *, mmap, void *where, size_t n, int protection, int flags, int fd, off_t offset) {
    void *p = refused() ? MAP_FAILED : __real_mmap(where, n, protection, flags, fd, offset);
    mapped += p == MAP_FAILED ? 0 : (long)n;
    return p;
}

WRAP(int, munmap, void *p, size_t n) {
    mapped -= (long)n;
    return __real_munmap(p, n);
}

WRAP(int, pthread_create, pthread_t *t, const pthread_attr_t *a, void *(*start)(void *), void *arg) {
    return refused() ? EAGAIN : __real_pthread_create(t, a, start, arg);
}

WRAP(DIR *, opendir, const char *path) {
    return refused() ? NULL : __real_opendir(path);
}

WRAP(DIR *, fdopendir, int fd) {
    return refused() ? NULL : __real_fdopendir(fd);
}

static int open_files(void) {
    int n = 0;
    DIR *d = __real_opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* ---- what programs do ---- */

static char message[256];

/* What a use of the runtime made, as bits. */
typedef struct Made {
    unsigned char byte[256];
    size_t n;
} Made;

static void keep(Made *made, const void *p, size_t n) {
    assert_true(made->n + n <= sizeof made->byte);
    memcpy(made->byte + made->n, p, n);
    made->n += n;
}

static const char *path_of_run, *path_of_adapter, *path_of_good, *path_of_weights;

static moec_status decode(Made *made) {
    static const int64_t ids[6] = {1, 2, 3, 4, 5, 6}, mask[6] = {1, 1, 1, 1, 1, 1};
    int64_t tokens[2 * CAPACITY], steps = 0;
    moec_instance *m = NULL;
    moec_options o = {.weights = path_of_weights, .threads = 2, .message = message, .message_room = sizeof message, .adapters = 2};
    moec_status s = moec_open(&program, &o, &m);
    assert_int_equal(s == MOEC_OK, m != NULL);
    if (!s)
        s = moec_load_adapter_slot(m, 1, path_of_good, message, sizeof message);
    if (!s)
        s = moec_generate(m, 2, 3, ids, mask, NULL, NULL, tokens, &steps, NULL, NULL);
    if (!s)
        keep(made, tokens, sizeof *tokens * 2 * (size_t)steps);
    if (!s)
        s = moec_save_adapter(m, 1, path_of_adapter, message, sizeof message);
    moec_close(m);
    return s;
}

static moec_status one_batch(moec_trainer *t, int64_t label) {
    static const int64_t zeros[SOURCE];
    int64_t labels[2] = {label, label};
    float weights[2] = {0.25f, 0.25f};
    moec_batch b = {1, 3, 2, zeros, zeros, zeros, zeros, labels, weights, NULL};
    moec_step_report r;
    moec_status s = moec_trainer_batch(t, &b, 1);
    return s ? s : moec_trainer_step(t, &r);
}

/* Up to step `last`, from a checkpoint where there is one. */
static moec_status train(int64_t last, Made *made) {
    moec_sink sink = {message, sizeof message};
    moec_train_options how;
    moec_instance *m = NULL;
    moec_trainer *t = NULL;
    moec_standing standing = {0};
    moec_options o = {.threads = 1, .message = message, .message_room = sizeof message};
    int found = 0;
    moec_train_defaults(&how);
    how.optimizer = MOEC_ADAMW;
    moec_status s = moec_open(&fake_program, &o, &m);
    if (!s)
        s = moec_trainer_open(m, &how, &t, message, sizeof message);
    assert_int_equal(s == MOEC_OK, t != NULL);
    if (!s)
        s = moec_checkpoint_load(t, path_of_run, &standing, &found, NULL, NULL, sink);
    while (!s && moec_trainer_steps(t) < last) {
        s = one_batch(t, moec_trainer_steps(t) + 1);
        if (!s)
            s = moec_checkpoint_save(t, path_of_run, &standing, 2, sink);
    }
    if (!s)
        s = moec_checkpoint_export(t, path_of_run, sink);
    if (!s)
        keep(made, fake_a(m), NA * sizeof(float));
    moec_trainer_close(t);
    moec_close(m);
    return s;
}

static moec_status train_new(Made *made) {
    return train(2, made);
}

static moec_status train_on(Made *made) {
    return train(3, made);
}

/* ---- each in turn ---- */

static void clear_run(void) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf -- '%s'", path_of_run);
    assert_int_equal(system(command), 0);
}

static moec_status used(moec_status (*use)(Made *), long at, int on, Made *made) {
    *made = (Made){.n = 0};
    message[0] = 0;
    asked = hits = 0;
    refuse_on = on;
    refuse_at = at;
    moec_status s = use(made);
    refuse_at = -1;
    return s;
}

/* `before` makes what each use finds. Returns how many allocations there were. */
static long in_turn(moec_status (*use)(Made *), void (*before)(void), int on) {
    static Made made, again, expected;
    before();
    assert_int_equal(used(use, -1, 0, &expected), MOEC_OK);
    for (long at = 0;; at++) {
        before();
        long b = blocks, bytes = mapped, files = open_files();
        moec_status s = used(use, at, on, &made);
        long was_hit = hits;
        if (blocks != b || mapped != bytes || open_files() != files)
            fail_msg("allocation %ld%s: %ld blocks, %ld bytes, %ld files are left", at, on ? " and later ones" : "", blocks - b,
                     mapped - bytes, open_files() - files);
        if (s && !message[0] && s != MOEC_E_MEMORY)
            fail_msg("allocation %ld: status %d and no word", at, (int)s);
        if (!s)
            assert_memory_equal(&made, &expected, sizeof made);
        if (used(use, -1, 0, &again) != MOEC_OK)
            fail_msg("behind allocation %ld: %s", at, message);
        assert_memory_equal(&again, &expected, sizeof made);
        if (!was_hit)
            return at;
    }
}

static void nothing(void) {}

static void one_checkpoint(void) {
    static Made made;
    clear_run();
    made.n = 0;
    assert_int_equal(train(1, &made), MOEC_OK);
}

static void every_allocation(void **state) {
    (void)state;
    moec_close(open_good(1));
    static const struct {
        const char *name;
        moec_status (*use)(Made *);
        void (*before)(void);
    } uses[] = {{"decoding", decode, nothing}, {"training", train_new, clear_run}, {"resuming", train_on, one_checkpoint}};
    path_of_run = "runtime-faults-run";
    path_of_adapter = "runtime-faults-adapter";
    char good[128], weights[128];
    strcpy(good, path_of("good"));
    strcpy(weights, path_of("fake.weights"));
    path_of_good = good;
    path_of_weights = weights;
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        for (int on = 0; on < 2; on++) {
            long n = in_turn(uses[i].use, uses[i].before, on);
            assert_true(n > 5);
            print_message("%s: %ld allocations refused%s\n", uses[i].name, n, on ? ", each with all later ones" : "");
        }
    clear_run();
    unlink(path_of_adapter);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
