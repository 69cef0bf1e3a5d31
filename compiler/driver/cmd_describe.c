/* moec describe: the command line as the table has it, for a shell's completion or as a manual page. */
#include "options.h"

/* In the order of the command's words. */
static void (*const printers[])(Text *) = {print_bash, print_zsh, print_fish, print_man};

int cmd_describe(const Options *o)
{
    Diag *d = diag_new();
    Text t = {0};
    printers[value_word(command_rows[COMMAND_describe].argument, o->model)](&t);
    bool ok = text_write(o->output, &t, d);
    text_free(&t);
    return diag_finish(d, ok);
}
