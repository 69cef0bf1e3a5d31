/* One command of which calls fail, one after the other, and what becomes of it: driver.c's command line is
 *
 *   driver [options] NAME COMMAND ARGUMENT...
 *
 *   -l FILE     the library that preload.c makes
 *   -w FOLDER   where it works: `before` is what is there before a run, `out` a run's folder, `tmp` its TMPDIR
 *   -o KEY      a member of lines of JSON that tells of the time: it does not count, nor what is printed
 *   -r          a run that goes on: whatever it left, the same command without a fault makes of it what it always makes
 *   -x PATTERN  what may be there besides
 *   -k FOLDER   what the command reads lies beside it as it lies here: it is cut as well, and made good again
 *   -n POINTS   calls of each kind that are tried; 0: each of them
 *   -m POINTS   the same of allocations that can be tried in a series
 *   -t          the program has threads: no series
 *   -p PART/OF  one part of all runs
 *
 * A run that ends with 0 has made what it makes undisturbed, and printed that. One that ends with 1 says why in a line, and
 * leaves what was there; where all later calls fail, too, files that could not be put back are beside their places. Nothing is left in
 * TMPDIR. Prints a line of sums, and one for each mistake; the exit status is 1 if there
 * was any. */
#define _GNU_SOURCE
#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH = 4096, SHOWN = 200, MOST_SHOWN = 20 };

static const char *const kind_names[FAULT_KINDS] = {"none", "memory", "eio", "enospc", "eintr", "short", "cut"};

static const char *library, *work, *kept, *volatile_key, *extra, *name;
static char **command;
static int goes_on, threads;
static long points, series_points, part, parts = 1;
static int to_server, from_server, err_fd, print_fd;
static long runs, refused, failed;
static struct {
    char *p;
    size_t n;
} printed; /* undisturbed */

static _Noreturn void broken(const char *what) {
    fprintf(stderr, "faults: %s: %s: %s\n", name ? name : "driver", what, strerror(errno));
    exit(2);
}

static const char *in_work(const char *file) {
    static char path[8][PATH];
    static int turn;
    char *p = path[turn++ % 8];
    snprintf(p, PATH, "%s/%s", work, file);
    return p;
}

/* ---- folders ---- */

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f) {
    (void)s, (void)flag, (void)f;
    return remove(path);
}

static void remove_tree(const char *path) {
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        broken(path);
}

static char *read_file(const char *path, size_t *n) {
    int fd = open(path, O_RDONLY);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) != 0)
        broken(path);
    char *p = malloc((size_t)s.st_size + 1);
    if (!p || read(fd, p, (size_t)s.st_size) != s.st_size)
        broken(path);
    close(fd);
    p[s.st_size] = 0;
    *n = (size_t)s.st_size;
    return p;
}

static int list(const char *path, struct dirent ***entry) {
    int n = scandir(path, entry, NULL, alphasort);
    if (n < 0)
        broken(path);
    int k = 0;
    for (int i = 0; i < n; i++)
        if (!strcmp((*entry)[i]->d_name, ".") || !strcmp((*entry)[i]->d_name, ".."))
            free((*entry)[i]);
        else
            (*entry)[k++] = (*entry)[i];
    return k;
}

static void list_free(struct dirent **entry, int n) {
    for (int i = 0; i < n; i++)
        free(entry[i]);
    free(entry);
}

static void copy_tree(const char *from, const char *to);

static void copy_one(const char *from, const char *to) {
    struct stat s;
    size_t size;
    if (stat(from, &s) != 0)
        broken(from);
    if (S_ISDIR(s.st_mode)) {
        copy_tree(from, to);
        return;
    }
    char *p = read_file(from, &size);
    int fd = open(to, O_WRONLY | O_CREAT | O_EXCL, s.st_mode & 0777);
    if (fd < 0 || write(fd, p, size) != (ssize_t)size || close(fd) != 0)
        broken(to);
    free(p);
}

static void copy_tree(const char *from, const char *to) {
    struct dirent **entry;
    if (mkdir(to, 0777) != 0)
        broken(to);
    int n = list(from, &entry);
    for (int i = 0; i < n; i++) {
        char a[PATH], b[PATH];
        snprintf(a, PATH, "%.2000s/%s", from, entry[i]->d_name);
        snprintf(b, PATH, "%.2000s/%s", to, entry[i]->d_name);
        copy_one(a, b);
    }
    list_free(entry, n);
}

/* Without what tells of the time, in place. */
static size_t strip(char *p, size_t n) {
    char key[64];
    size_t k = 0;
    if (!volatile_key)
        return n;
    int length = snprintf(key, sizeof key, "\"%s\":", volatile_key);
    for (size_t i = 0; i < n;)
        if (!strncmp(p + i, key, (size_t)length))
            i += strcspn(p + i, ",}\n");
        else
            p[k++] = p[i++];
    return k;
}

static int same_file(const char *a, const char *b) {
    size_t n, m;
    struct stat s, t;
    if (stat(a, &s) != 0 || stat(b, &t) != 0 || s.st_mode != t.st_mode || !S_ISREG(s.st_mode))
        return 0;
    char *p = read_file(a, &n), *q = read_file(b, &m);
    if (volatile_key && strstr(a, ".jsonl")) {
        n = strip(p, n);
        m = strip(q, m);
    }
    int same = n == m && !memcmp(p, q, n);
    free(p);
    free(q);
    return same;
}

/* What the child of a series noted as removed. */
static char *removed;

static int is_removed(const char *path) {
    if (!removed)
        return 0;
    char line[PATH + 2];
    snprintf(line, sizeof line, "\n%s\n", path);
    return strstr(removed, line) != NULL;
}

static char different[PATH + 32]; /* the first file that is, and how */

static int differs(const char *how, const char *folder, const char *file) {
    snprintf(different, sizeof different, "%s %.2000s/%.255s", how, folder, file);
    return 0;
}

/* Whether `found` holds what `wanted` does. */
static int same_tree(const char *wanted, const char *found) {
    struct dirent **a, **b;
    int n = list(wanted, &a), m = list(found, &b), ok = 1;
    for (int i = 0, j = 0; ok && (i < n || j < m);) {
        char x[PATH], y[PATH];
        int order = i >= n ? 1 : j >= m ? -1 : strcmp(a[i]->d_name, b[j]->d_name);
        snprintf(x, PATH, "%.2000s/%s", wanted, i < n ? a[i]->d_name : "");
        snprintf(y, PATH, "%.2000s/%s", found, j < m ? b[j]->d_name : "");
        if (order > 0)
            ok = is_removed(y) || (extra && !fnmatch(extra, b[j]->d_name, 0)) || differs("there is", found, b[j]->d_name);
        else if (order < 0 || is_removed(y))
            ok = differs("there is no", found, a[i]->d_name);
        else if (a[i]->d_type == DT_DIR || b[j]->d_type == DT_DIR)
            ok = a[i]->d_type == b[j]->d_type ? same_tree(x, y) : differs("of another kind is", found, b[j]->d_name);
        else
            ok = same_file(x, y) || differs("another is", found, b[j]->d_name);
        i += order <= 0;
        j += order >= 0;
    }
    list_free(a, n);
    list_free(b, m);
    return ok;
}

/* Whether `found` still has all files of `wanted`, some of them as NAME.*.old or a temporary name: what can be done where renaming fails for good. */
static int held_tree(const char *wanted, const char *found) {
    struct dirent **a, **b;
    int n = list(wanted, &a), m = list(found, &b), ok = 1;
    for (int i = 0; ok && i < n; i++) {
        char x[PATH], y[PATH], pattern[PATH];
        snprintf(x, PATH, "%.2000s/%s", wanted, a[i]->d_name);
        snprintf(y, PATH, "%.2000s/%s", found, a[i]->d_name);
        snprintf(pattern, PATH, "%s.*.old", a[i]->d_name);
        int held = a[i]->d_type == DT_DIR ? held_tree(x, y) : same_file(x, y);
        for (int j = 0; j < m && !held; j++) {
            snprintf(y, PATH, "%.2000s/%s", found, b[j]->d_name);
            held = (!fnmatch(pattern, b[j]->d_name, 0) || !fnmatch(".moec-*.tmp", b[j]->d_name, 0)) && same_file(x, y);
        }
        ok = held || differs("lost is", found, a[i]->d_name);
    }
    list_free(a, n);
    list_free(b, m);
    return ok;
}

/* ---- runs ---- */

static void start_server(void) {
    int to[2], from[2];
    char server[32];
    if (pipe(to) != 0 || pipe(from) != 0)
        broken("pipe");
    pid_t pid = fork();
    if (pid < 0)
        broken("fork");
    if (pid == 0) {
        snprintf(server, sizeof server, "%d,%d", to[0], from[1]);
        close(to[1]);
        close(from[0]);
        int none = open("/dev/null", O_RDONLY);
        if (dup2(none, 0) < 0 || dup2(print_fd, 1) < 0 || dup2(err_fd, 2) < 0 || setenv("LD_PRELOAD", library, 1) || setenv("FAULT_DIR", work, 1) ||
            setenv("TMPDIR", in_work("tmp"), 1) || setenv("FAULT_SERVER", server, 1))
            broken("a server");
        execv(command[0], command);
        broken(command[0]);
    }
    close(to[0]);
    close(from[1]);
    to_server = to[1];
    from_server = from[0];
}

static void prepare(void) {
    remove_tree(in_work("out"));
    remove_tree(in_work("tmp"));
    copy_tree(in_work("before"), in_work("out"));
    if (mkdir(in_work("tmp"), 0777) != 0 || ftruncate(err_fd, 0) != 0 || ftruncate(print_fd, 0) != 0)
        broken("a run's folder");
}

static void ask(const Request *r) {
    if (write(to_server, r, sizeof *r) != sizeof *r)
        broken("the server");
}

static Report answer(void) {
    Report r;
    if (read(from_server, &r, sizeof r) != sizeof r) {
        errno = 0;
        broken("the server has ended: does the program take LD_PRELOAD?");
    }
    return r;
}

static Report run(const Request *r) {
    ask(r);
    return answer();
}

/* ---- judging ---- */

__attribute__((format(printf, 2, 3))) static void complain(const Request *r, const char *fmt, ...) {
    va_list args;
    failed++;
    if (failed > MOST_SHOWN)
        return;
    printf("faults: %s: %s, call %lld%s: ", name, kind_names[r->kind], (long long)r->at, r->on ? " and all later ones" : "");
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    size_t n;
    char *err = read_file(in_work("err"), &n);
    printf("\n    %.*s\n", (int)(n < SHOWN ? n : SHOWN), err);
    free(err);
    fflush(stdout);
}

/* Lines of printable ASCII, one of them an error; NULL, or what is wrong. The C compiler may have had its say. */
static const char *judge_message(void) {
    size_t n;
    char *err = read_file(in_work("err"), &n);
    const char *bad = n == 0 ? "ends with 1 and no word" : !strstr(err, "error: ") ? "ends with 1 and no error" : NULL;
    for (size_t i = 0; i < n; i++)
        if (err[i] != '\n' && (err[i] < 32 || err[i] > 126))
            bad = "prints what is no line of ASCII";
    free(err);
    return bad;
}

static int says(const char *text) {
    size_t n;
    char *err = read_file(in_work("err"), &n);
    int found = strstr(err, text) != NULL;
    free(err);
    return found;
}

static int same_print(void) {
    size_t n;
    if (volatile_key)
        return 1;
    char *p = read_file(in_work("print"), &n);
    int same = n == printed.n && !memcmp(p, printed.p, n);
    free(p);
    return same;
}

static int ends_with(int status, int code) {
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static void judge_end(const Request *r, int status) {
    if (!WIFEXITED(status))
        complain(r, "ends by signal %d", WTERMSIG(status));
    else if (WEXITSTATUS(status) > 1)
        complain(r, "ends with %d", WEXITSTATUS(status));
    else if (!same_tree(in_work("empty"), in_work("tmp")))
        complain(r, "leaves something in TMPDIR: %s", different);
    else if (WEXITSTATUS(status) == 0 && !same_tree(in_work("after"), in_work("out")))
        complain(r, "ends with 0 and another output: %s", different);
    else if (WEXITSTATUS(status) == 0 && !same_print())
        complain(r, "ends with 0 and prints something else");
    else if (WEXITSTATUS(status) == 1 && judge_message())
        complain(r, "%s", judge_message());
    else if (WEXITSTATUS(status) == 1 && !goes_on && !same_tree(in_work("before"), in_work("out")) &&
             !(r->on && says("could not be put back") && held_tree(in_work("before"), in_work("out"))))
        complain(r, "ends with 1 and leaves something: %s", different);
}

/* Whatever a run left, going on from it gives what an undisturbed one does. */
static void judge_going_on(const Request *r) {
    Request again = {.kind = FAULT_NONE};
    if (ftruncate(err_fd, 0) != 0)
        broken("err");
    Report report = run(&again);
    if (!ends_with(report.status, 0))
        complain(r, "cannot be gone on from: status %x", (unsigned)report.status);
    else if (!same_tree(in_work("after"), in_work("out")))
        complain(r, "gone on from it makes something else: %s", different);
}

static void judge(const Request *r, int status) {
    long was = failed;
    runs++;
    refused += ends_with(status, 1);
    judge_end(r, status);
    if (goes_on && failed == was)
        judge_going_on(r);
}

static void run_whole(const Request *r) {
    prepare();
    judge(r, run(r).status);
}

/* ---- which ---- */

static int is_mine(long k) {
    return k % parts == part;
}

static int64_t stride(int64_t calls, long n) {
    return n == 0 || calls <= n ? 1 : (calls + n - 1) / n;
}

/* Allocations in one run, each in a child of its own. */
static void try_series(int64_t calls, int on) {
    static int64_t whole[1 << 20];
    size_t n = 0;
    char go = 0;
    int64_t step = stride(calls, series_points);
    Request r = {.kind = FAULT_MEMORY, .on = on, .at = step * part, .upto = calls, .step = step * parts};
    if (r.at >= calls)
        return;
    prepare();
    unlink(in_work("removed"));
    ask(&r);
    for (Report x; (x = answer()).at >= 0;) {
        size_t size = 0;
        Request one = {.kind = FAULT_MEMORY, .on = on, .at = x.at};
        if (ends_with(x.status, 0) || ends_with(x.status, FAULT_WHOLE)) {
            if (n < sizeof whole / sizeof *whole)
                whole[n++] = x.at;
        } else {
            int any = access(in_work("removed"), F_OK) == 0;
            removed = NULL;
            if (any) {
                char *lines = read_file(in_work("removed"), &size);
                removed = malloc(size + 2);
                if (!removed)
                    broken("memory");
                removed[0] = '\n';
                memcpy(removed + 1, lines, size + 1);
                free(lines);
            }
            judge(&one, x.status);
            free(removed);
            removed = NULL;
            if (any)
                unlink(in_work("removed"));
        }
        if (write(to_server, &go, 1) != 1)
            broken("the server");
    }
    for (size_t i = 0; i < n; i++)
        run_whole(&(Request){.kind = FAULT_MEMORY, .on = on, .at = whole[i]});
}

static void try_kind(FaultKind kind, int on, int64_t calls) {
    int64_t step = stride(calls, points);
    for (int64_t at = 0; at < calls; at += step)
        if (is_mine((long)(at / step)))
            run_whole(&(Request){.kind = (int32_t)kind, .on = on, .at = at});
}

/* What the command reads, as it was. */
static void restore(void) {
    struct dirent **entry;
    int n = list(kept, &entry);
    for (int i = 0; i < n; i++) {
        char from[PATH];
        snprintf(from, PATH, "%.2000s/%s", kept, entry[i]->d_name);
        remove_tree(in_work(entry[i]->d_name));
        copy_one(from, in_work(entry[i]->d_name));
    }
    list_free(entry, n);
}

static void try_cuts(int64_t calls) {
    int64_t step = stride(calls, points);
    for (int64_t at = 0; kept && at < calls; at += step)
        if (is_mine((long)(at / step))) {
            run_whole(&(Request){.kind = FAULT_CUT, .at = at});
            restore();
        }
}

static void undisturbed(Report *r) {
    prepare();
    *r = run(&(Request){.kind = FAULT_NONE});
    if (!ends_with(r->status, 0)) {
        size_t n;
        printf("faults: %s does not work:\n%s\n", name, read_file(in_work("err"), &n));
        exit(1);
    }
    printed.p = read_file(in_work("print"), &printed.n);
    remove_tree(in_work("after"));
    if (rename(in_work("out"), in_work("after")) != 0)
        broken("after");
}

int main(int argc, char **argv) {
    Report r;
    int c;
    while ((c = getopt(argc, argv, "+l:w:k:o:x:rn:m:tp:")) >= 0)
        switch (c) {
        case 'l': library = optarg; break;
        case 'w': work = optarg; break;
        case 'k': kept = optarg; break;
        case 'o': volatile_key = optarg; break;
        case 'x': extra = optarg; break;
        case 'r': goes_on = 1; break;
        case 'n': points = atol(optarg); break;
        case 'm': series_points = atol(optarg); break;
        case 't': threads = 1; break;
        case 'p':
            if (sscanf(optarg, "%ld/%ld", &part, &parts) == 2 && parts > 0)
                break;
            return 2;
        default: return 2;
        }
    if (optind + 2 > argc || !library || !work)
        return 2;
    name = argv[optind];
    command = argv + optind + 1;
    err_fd = open(in_work("err"), O_RDWR | O_CREAT | O_APPEND, 0666);
    print_fd = open(in_work("print"), O_RDWR | O_CREAT | O_APPEND, 0666);
    remove_tree(in_work("empty"));
    if (err_fd < 0 || print_fd < 0 || mkdir(in_work("empty"), 0777) != 0)
        broken(work);
    start_server();
    undisturbed(&r);
    for (int on = 0; on < 2; on++) {
        if (threads || goes_on)
            try_kind(FAULT_MEMORY, on, r.calls[0]);
        else
            try_series(r.calls[0], on);
        try_kind(FAULT_EIO, on, r.calls[1]);
        try_kind(FAULT_ENOSPC, on, r.calls[1]);
        if (!on)
            try_kind(FAULT_EINTR, on, r.calls[1]); /* else it is tried again, and for ever */
        try_kind(FAULT_SHORT, on, r.calls[2]);
    }
    try_cuts(r.calls[3]);
    close(to_server);
    wait(NULL);
    printf("faults: %s: %lld allocations, %lld calls on files; %ld runs, %ld refused, %ld failures\n", name, (long long)r.calls[0],
           (long long)r.calls[1], runs, refused, failed);
    return failed > 0;
}
