/* Running programs. */
#include "tool.h"

#include "../undo.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

char *scratch_open(Arena *a, Diag *d) {
    const char *tmp = getenv("TMPDIR");
    char *dir = arena_printf(a, "%s/moec.XXXXXX", tmp && *tmp ? tmp : "/tmp");
    undo_add(dir);
    if (mkdtemp(dir))
        return dir;
    undo_drop(dir);
    diag_error(d, DIAG_FOLDER_MAKE, dir, "cannot make a scratch folder: %s", strerror(errno));
    return NULL;
}

void scratch_close(const char *path) {
    undo_now(path);
}

static bool missing(const char *program, const char *install, Diag *d) {
    return diag_error(d, DIAG_TOOL_MISSING, NULL, "the program '%s' is not installed; %s", program, install);
}

bool tool_run(Args *args, char *const *environment, bool verbose, const char *install, Diag *d) {
    vec_push(args, NULL);
    if (verbose) {
        for (size_t i = 0; args->item[i]; i++)
            fprintf(stderr, "%s%s", i ? " " : "", args->item[i]);
        fputc('\n', stderr);
    }
    pid_t pid;
    int status, e = posix_spawnp(&pid, args->item[0], NULL, NULL, (char *const *)args->item,
                                 environment ? environment : environ);
    if (e == ENOENT)
        return missing(args->item[0], install, d);
    if (e)
        return diag_error(d, DIAG_TOOL_MISSING, NULL, "cannot start '%s': %s", args->item[0], strerror(e));
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return diag_error(d, DIAG_TOOL_FAILED, NULL, "waiting for '%s': %s", args->item[0], strerror(errno));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return missing(args->item[0], install, d);
    return (WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
           diag_error(d, DIAG_TOOL_FAILED, NULL, "'%s' failed; -v shows its command line", args->item[0]);
}
