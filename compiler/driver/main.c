/* moec: finds the command and runs it. */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int (*const commands[])(const Options *) = {
#define COMMAND(name, argument, most, doc) cmd_##name,
#include "options.def"
};

static bool limit_memory(const Options *o, char *option, size_t room, int *exit_code)
{
    int64_t most = 0;
    if (!o->max_compile_memory)
        return true;
    if (!size_parse(o->max_compile_memory, &most)) {
        *exit_code = usage_error(o, DIAG_USAGE_VALUE, "--max-compile-memory: a size as 6G, 500M or a number of bytes was expected");
        return false;
    }
    snprintf(option, room, "--max-compile-memory=%s", o->max_compile_memory);
    mem_limit(option, (size_t)most);
    return true;
}

/* What was printed has arrived. */
static int flush_output(int exit_code)
{
    errno = 0;
    if (exit_code != EXIT_DONE || (fflush(stdout) == 0 && !ferror(stdout)))
        return exit_code;
    Diag *d = diag_new();
    diag_error(d, DIAG_FILE_WRITE, "standard output", "cannot be written: %s", errno ? strerror(errno) : "a part of it is lost");
    return diag_finish(d, false);
}

int main(int argc, char **argv)
{
    Options o;
    int exit_code;
    char option[64];
    if (options_parse(argc, argv, &o, &exit_code) && limit_memory(&o, option, sizeof option, &exit_code))
        exit_code = commands[o.command](&o);
    options_free(&o);
    return flush_output(exit_code);
}
