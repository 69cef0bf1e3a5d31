/* Output files that appear together: each rename, link and sync fails in turn, alone or with all later ones, on file systems with and
 * without links. Either all files are new, or the old ones are there again, under the names that the message tells where nothing
 * can be renamed any more. The linker puts these functions in front of the C library's (--wrap). */
#include "compiler/outfile.h"
#include "compiler/replace.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static long calls, fail_at = -1, hits;
static bool fail_on, no_links;

static bool call_fails(void) {
    long n = calls++;
    if (fail_at < 0 || (n != fail_at && !(fail_on && n > fail_at)))
        return false;
    hits++;
    errno = EIO;
    return true;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __wrap_fsync(int fd);

int __wrap_rename(const char *from, const char *to) {
    return call_fails() ? -1 : __real_rename(from, to);
}

int __wrap_link(const char *from, const char *to) {
    if (no_links) {
        errno = EPERM;
        return -1;
    }
    return call_fails() ? -1 : __real_link(from, to);
}

int __wrap_fsync(int fd) {
    (void)fd;
    return call_fails() ? -1 : 0;
}

/* ---- a folder of files ---- */

enum { FILES = 4 };

static const char *const names[FILES] = {"a", "b", "new", "in/d"}; /* "new" is not there before */

static const char *path_of(const char *name) {
    static char path[8][256];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, sizeof path[0], "outfile-test/%s", name);
    return p;
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(path_of(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static bool holds(const char *path, const char *text) {
    char found[16] = "";
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    found[fread(found, 1, sizeof found - 1, f)] = 0;
    fclose(f);
    return strcmp(found, text) == 0;
}

static void start(void) {
    assert_int_equal(system("rm -rf outfile-test && mkdir outfile-test outfile-test/in"), 0);
    put("a", "old a");
    put("b", "old b");
    put("in/d", "old d");
}

static int entries(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Somewhere in the folder, under any name. */
static bool is_kept(const char *folder, const char *text) {
    bool kept = false;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) && !kept;) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        kept = e->d_type == DT_REG && holds(path, text);
    }
    closedir(d);
    return kept;
}

static bool write_new(Diag *d) {
    Arena *a = arena_new();
    OutFile o[FILES];
    for (int i = 0; i < FILES; i++)
        assert_true(outfile_open(&o[i], path_of(names[i]), 0666, a, d) && outfile_write(&o[i], "fresh", 5));
    bool ok = outfiles_commit(o, FILES, d);
    arena_free(a);
    return ok;
}

static void judge(bool ok) {
    if (ok) {
        for (int i = 0; i < FILES; i++)
            assert_true(holds(path_of(names[i]), "fresh"));
        assert_int_equal(entries("outfile-test"), 4);
    } else if (fail_on && !(holds(path_of("a"), "old a") && holds(path_of("b"), "old b") && holds(path_of("in/d"), "old d"))) {
        assert_true(is_kept("outfile-test", "old a") && is_kept("outfile-test", "old b") && is_kept("outfile-test/in", "old d"));
    } else {
        assert_true(holds(path_of("a"), "old a") && holds(path_of("b"), "old b") && holds(path_of("in/d"), "old d"));
        assert_int_equal(entries("outfile-test"), 3);
        assert_int_equal(entries("outfile-test/in"), 1);
    }
}

static void together(void **state) {
    (void)state;
    long tried = 0;
    for (int way = 0; way < 4; way++) {
        fail_on = way & 1;
        no_links = way & 2;
        hits = 1;
        for (long at = 0; hits > 0; at++, tried++) {
            Diag *d = diag_new();
            start();
            calls = hits = 0;
            fail_at = at;
            bool ok = write_new(d);
            fail_at = -1;
            assert_true(ok == (hits == 0) || (ok && !fail_on)); /* a link that fails once is done without */
            assert_int_equal(diag_errors(d) > 0, !ok);
            judge(ok);
            diag_free(d);
        }
    }
    print_message("%ld runs\n", tried);
}

/* A folder takes a place whole, or leaves what was there. */
static void folder(void **state) {
    (void)state;
    for (int empty = 0; empty < 2; empty++)
        for (int way = 0; way < 2; way++) {
            fail_on = way;
            hits = 1;
            for (long at = 0; hits > 0; at++) {
                start();
                if (empty)
                    assert_int_equal(mkdir(path_of("out"), 0755), 0);
                calls = hits = 0;
                fail_at = at;
                int error = folder_place(path_of("in"), path_of("out"));
                fail_at = -1;
                assert_int_equal(error != 0, hits > 0);
                assert_int_equal(holds(path_of("out/d"), "old d"), !error);
                assert_int_equal(access(path_of("out"), F_OK) == 0, !error || empty);
            }
        }
    start();
    assert_int_equal(mkdir(path_of("out"), 0755), 0);
    put("out/x", "own");
    assert_int_equal(folder_place(path_of("in"), path_of("out")), ENOTEMPTY);
    assert_true(holds(path_of("out/x"), "own") && holds(path_of("in/d"), "old d"));
    assert_int_equal(system("rm -rf outfile-test"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(together), cmocka_unit_test(folder)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
