/* Code for another machine than this one. For C compilers what is carried as an archive is compiled from its sources, too. */
#include "build.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* This machine in the words of a compiler's triple, VENDOR left out. */
#if defined(__x86_64__)
#define HOST_CPU "x86_64"
#elif defined(__aarch64__)
#define HOST_CPU "aarch64"
#elif defined(__riscv) && __riscv_xlen == 64
#define HOST_CPU "riscv64"
#else
#define HOST_CPU "" /* not known: every compiler is this machine's */
#endif
#if defined(__GLIBC__)
#define HOST_LIBC "gnu"
#else
#define HOST_LIBC "musl"
#endif

/* Starts the compiler, which prints to ends[1] and complains to nobody. 0, or what is wrong. */
static int start(const char *cc, const char *option, const int *ends, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    const char *arg[] = {cc, option, NULL};
    int e = posix_spawn_file_actions_init(&actions);
    if (e) return e;
    e = posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    if (!e) e = posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (!e) e = posix_spawn_file_actions_addclose(&actions, ends[1]);
    if (!e) e = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (!e) e = posix_spawnp(pid, cc, &actions, NULL, (char *const *)arg, environ);
    posix_spawn_file_actions_destroy(&actions);
    return e;
}

/* The first line that the compiler prints with the option; NULL when it does not know it, or cannot be started: whoever
 * calls it in earnest will say so. */
static const char *ask(Build *b, const char *option) {
    int ends[2];
    pid_t pid;
    char text[512];
    size_t n = 0;
    if (pipe(ends) != 0) return NULL;
    int status = 1, e = start(b->o->cc, option, ends, &pid);
    close(ends[1]);
    for (ssize_t k; e == 0 && (k = read(ends[0], text + n, sizeof text - n)) != 0 && n < sizeof text;) {
        if (k > 0) n += (size_t)k;
        else if (errno != EINTR) break;
    }
    close(ends[0]);
    while (e == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (e || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return NULL;
    char *line = arena_strndup(b->a, text, n);
    line[strcspn(line, "\n")] = 0;
    return *line ? line : NULL;
}

static bool is_host(const char *triple) {
    size_t n = strlen(HOST_CPU);
    const char *libc = strrchr(triple, '-');
    return !n || (strncmp(triple, HOST_CPU, n) == 0 && triple[n] == '-' && strstr(triple, "linux") && libc && strcmp(libc + 1, HOST_LIBC) == 0);
}

bool build_target(Build *b) {
    const char *triple = b->o->cc ? ask(b, "-dumpmachine") : NULL;
    bool foreign = triple && !is_host(triple);
    if (b->llvm) {
        b->target = b->o->target && !is_host(b->o->target) ? b->o->target : NULL;
        return !foreign || b->o->target ||
               diag_error(b->d, DIAG_USAGE_TOGETHER, NULL, "'%s' compiles for %s, but LLVM makes the code: name that machine with --target",
                          b->o->cc, triple);
    }
    b->target = foreign ? triple : NULL;
    return !foreign || strstr(triple, "linux") != NULL ||
           diag_error(b->d, DIAG_BUILD_MACHINE, NULL, "'%s' compiles for %s: compiled models run on Linux", b->o->cc, triple);
}

const char *build_ar(Build *b) {
    const char *ar = b->target ? ask(b, "-print-prog-name=ar") : NULL;
    return ar ? ar : "ar";
}

bool build_runtime(Build *b) {
    for (const EmbeddedFile *e = driver_embedded; e->name; e++) {
        size_t n = strlen(e->name);
        if (n < 2 || strcmp(e->name + n - 2, ".c") != 0) continue;
        EmbeddedFile as = *e;
        as.name = arena_printf(b->a, "moec_%s", e->name); /* main.c is the model's */
        if (!build_embedded(b, b->dir, &as)) return false;
        vec_push(&b->runtime, arena_printf(b->a, "%.*s.o", (int)strlen(as.name) - 2, as.name));
        if (!build_object(b, "-c", as.name, b->runtime.item[b->runtime.count - 1], NULL)) return false;
    }
    return true;
}
