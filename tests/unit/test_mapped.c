/* Mapped files that change: overwritten, replaced, cut. */
#include "compiler/mapped.h"
#include "compiler/undo.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 3 << 16 };

static char name[] = "mapped-XXXXXX";
static int fd;

static int begin(void **state) {
    (void)state;
    fd = mkstemp(strcpy(name, "mapped-XXXXXX"));
    /* some time ago: a clock that ticks slowly would call the next change simultaneous */
    const struct timespec past[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    return fd < 0 || ftruncate(fd, BYTES) || futimens(fd, past);
}

static int end(void **state) {
    (void)state;
    close(fd);
    return unlink(name);
}

static void *map(const char *file, Diag *d) {
    void *at;
    assert_true(mapped_open(fd, BYTES, file, &at, d));
    assert_true(mapped_intact(d));
    return at;
}

static void notices_writing(void **state) {
    (void)state;
    Diag *d = diag_new();
    void *at = map(name, d), *same = map(name, d);
    assert_int_equal(pwrite(fd, "x", 1, 5), 1);
    assert_false(mapped_intact(d));
    assert_int_equal(diag_errors(d), 2);
    mapped_close(same);
    mapped_close(at);
    mapped_close(NULL);
    assert_true(mapped_intact(d));
    diag_free(d);
}

/* What has another file's name now stays what it was. */
static void keeps_what_is_replaced(void **state) {
    (void)state;
    Diag *d = diag_new();
    void *at = map(name, d);
    char other[] = "mapped-XXXXXX";
    int new = mkstemp(other);
    assert_int_equal(rename(other, name), 0);
    assert_true(mapped_intact(d));
    close(new);
    mapped_close(at);
    assert_false(mapped_open(fd, BYTES + 1, name, &at, d));
    assert_null(at);
    diag_free(d);
}

/* What a process that reads a mapped file says, and how it ends, when `change` came before. */
static int reads(void (*change)(const char *at), char *said, size_t room) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        signal(SIGBUS, SIG_DFL); /* cmocka has it */
        Diag *d = diag_new();
        volatile const char *at = map(name, d);
        undo_add("mapped-half-done");
        close(open("mapped-half-done", O_CREAT | O_WRONLY, 0600));
        change((const char *)(uintptr_t)at);
        _exit(at[BYTES - 1]);
    }
    close(ends[1]);
    ssize_t n, all = 0;
    while ((n = read(ends[0], said + all, room - 1 - (size_t)all)) > 0)
        all += n;
    said[all] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    int left = unlink("mapped-half-done") == 0;
    assert_int_equal(left, !WIFEXITED(status) || WEXITSTATUS(status) == 0);
    return status;
}

static void leave(const char *at) {
    (void)at;
}

static void shorten(const char *at) {
    (void)at;
    assert_int_equal(ftruncate(fd, BYTES / 2), 0);
}

/* Of another mapping, which is nobody's business. */
static void kill_otherwise(const char *at) {
    (void)at;
    raise(SIGBUS);
    raise(SIGBUS);
}

static void ends_with_a_diagnostic(void **state) {
    (void)state;
    char said[1000], want[200];
    int status = reads(leave, said, sizeof said);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(said, "");
    status = reads(shorten, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    snprintf(want, sizeof want, "%s: error: a part of it cannot be read any more: it was cut while it was mapped [M0101]\n", name);
    assert_string_equal(said, want);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    status = reads(kill_otherwise, said, sizeof said);
    assert_true(!WIFEXITED(status) || WEXITSTATUS(status) > 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(notices_writing, begin, end),
        cmocka_unit_test_setup_teardown(keeps_what_is_replaced, begin, end),
        cmocka_unit_test_setup_teardown(ends_with_a_diagnostic, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
