/* moec: finds the command and runs it. */
#include "driver.h"

static int (*const commands[])(const Options *) = {
#define COMMAND(name, argument, most, doc) cmd_##name,
#include "options.def"
};

int main(int argc, char **argv)
{
    Options o;
    int exit_code;
    if (options_parse(argc, argv, &o, &exit_code))
        exit_code = commands[o.command](&o);
    options_free(&o);
    return exit_code;
}
