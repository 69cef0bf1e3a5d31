/* moec: finds the command and runs it. */
#include "driver.h"

#include <stdio.h>

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

int main(int argc, char **argv)
{
    Options o;
    int exit_code;
    char option[64];
    if (options_parse(argc, argv, &o, &exit_code) && limit_memory(&o, option, sizeof option, &exit_code))
        exit_code = commands[o.command](&o);
    options_free(&o);
    return exit_code;
}
