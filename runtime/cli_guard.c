/* --map: a weights file that is cut, or whose disk fails, while it is mapped.
 *
 * The system tells of a page that is gone by SIGBUS, in the middle of whatever reads it. There is no way back from there,
 * so the handler says what it was and ends the program; other causes of the signal end it as they would have. Checkpoints
 * and files being written are left as a killed process leaves them: whole, or under a temporary name. */
#define _POSIX_C_SOURCE 200809L

#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const moec_cli *guarded;
static char line[MOEC_SHOW + 128];
static size_t length;

/* Until the weights are open it is not known where they lie. */
static int is_weights(const void *at) {
    const moec_instance *m = guarded->instance;
    return !m || (uintptr_t)at - (uintptr_t)m->weights < m->program->weights_bytes;
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code == BUS_ADRERR && is_weights(info->si_addr)) {
        ssize_t ignored = write(STDERR_FILENO, line, length);
        (void)ignored;
        _exit(EXIT_INPUT);
    }
    signal(number, SIG_DFL); /* what failed is tried again, and fails */
}

void moec_cli_guard(const moec_cli *c, const char *weights) {
    struct sigaction a = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    char shown[MOEC_SHOW];
    int n = snprintf(line, sizeof line, "%s: error: a part of it cannot be read any more: it was cut while it was mapped\n",
                     moec_show_path(shown, weights));
    length = n > 0 ? (size_t)n : 0;
    guarded = c;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}
