/* describe fish: one `complete` a command, verb, option and argument. */
#include "options.h"

#include <string.h>

static const char head[] =
    "# fish completion of moec, written by `moec describe fish`.\n\n"
    "# Words before the one at the cursor: none but moec, or a command, or a command and a verb.\n"
    "function __moec_at\n"
    "    set -l words (commandline -opc)\n"
    "    set -l n (math 1 + (count $argv))\n"
    "    if test $n -eq 1\n"
    "        test (count $words) -eq 1\n"
    "    else\n"
    "        test (count $words) -ge $n; and test \"$argv\" = \"$words[2..$n]\"\n"
    "    end\n"
    "end\n"
    "# The word behind a command is a verb of its.\n"
    "function __moec_verb\n"
    "    __moec_at $argv; and test (count (commandline -opc)) -eq 2\n"
    "end\n\n"
    "# The word at the cursor is an option with its value attached.\n"
    "function __moec_attached\n"
    "    string match -q -- '-*=*' (commandline -ct)\n"
    "end\n"
    "# Words behind those that are in the word at the cursor, separated by commas.\n"
    "function __moec_list\n"
    "    set -l before (commandline -ct | string replace -r '^--[a-z-]*=' '' | string match -r '.*,')\n"
    "    for word in $argv\n"
    "        echo \"$before$word\"\n"
    "    end\n"
    "end\n\n"
    "complete -c moec -f\n"
    "complete -c moec -n __moec_at -l help -d 'the commands'\n"
    "complete -c moec -n __moec_at -l version -d 'the version'\n";

static void add_quoted(Text *t, const char *s)
{
    text_printf(t, "'");
    for (; *s; s++)
        text_printf(t, "%s%c", strchr("'\\", *s) ? "\\" : "", *s);
    text_printf(t, "'");
}

/* What completes an argument, as options of `complete`; one of an option is required (-r), and no file (-x). */
static void add_values(Text *t, const char *argument, bool of_option)
{
    static const char *const offers[] = {
        [FORM_PATH] = " -F",
        [FORM_BINDING] = " -F",
        [FORM_ANY] = "",
        [FORM_DIR] = " -a '(__fish_complete_directories (commandline -ct))'",
        [FORM_PROGRAM] = " -a '(__fish_complete_command)'",
    };
    ValueForm f = {0};
    Text words = {0};
    value_form(argument, 0, &f);
    bool list = f.kind == FORM_PASSES, files = f.kind == FORM_PATH || f.kind == FORM_BINDING;
    if (of_option)
        text_printf(t, files ? " -r" : " -x");
    if (value_words(argument, " ", "", &words))
        text_printf(t, list ? " -a '(__moec_list%.*s)'" : " -a '%.*s'", (int)words.n - !list, words.p + !list);
    else {
        CHECK((size_t)f.kind < sizeof offers / sizeof *offers && offers[f.kind]);
        text_printf(t, "%s", offers[f.kind]);
    }
    text_free(&words);
}

/* An option as it is with a value or without. */
static void print_form(Text *t, Command c, const OptionRow *row, const char *condition, bool value)
{
    const char *s = row->spelling;
    text_printf(t, "complete -c moec -n '__moec_at %s%s' ", command_rows[c].name, condition);
    text_printf(t, option_is_letter(row) ? "-s %s" : s[1] == '-' ? "-l %s" : "-o %s", s + (s[1] == '-' ? 2 : 1));
    if (value)
        add_values(t, row->argument, true);
    text_printf(t, " -d ");
    add_quoted(t, row->doc);
    text_printf(t, "\n");
}

static void print_option(Text *t, Command c, const OptionRow *row)
{
    bool bare = row->kind == OPTION_BARE;
    if (bare)
        print_form(t, c, row, "; and not __moec_attached", false);
    print_form(t, c, row, bare ? "; and __moec_attached" : "", row->kind != OPTION_FLAG);
}

static void print_argument(Text *t, const char *command, const char *verb, const char *argument)
{
    text_printf(t, "complete -c moec -n '__moec_at %s%s%s'", command, *verb ? " " : "", verb);
    add_values(t, argument, false);
    text_printf(t, "\n");
}

void print_fish(Text *t)
{
    text_printf(t, "%s", head);
    for (int i = 0; i < COMMAND_COUNT; i++) {
        const char *name = command_rows[i].name;
        text_printf(t, "\ncomplete -c moec -n __moec_at -a %s -d ", name);
        add_quoted(t, command_rows[i].doc);
        text_printf(t, "\n");
        for (int k = 0; k < SUB_COUNT; k++)
            if (verb_rows[k].command == (Command)i) {
                text_printf(t, "complete -c moec -n '__moec_verb %s' -a %s -d ", name, verb_rows[k].name);
                add_quoted(t, verb_rows[k].doc);
                text_printf(t, "\n");
                print_argument(t, name, verb_rows[k].name, verb_rows[k].argument);
            }
        if (!command_has_verbs((Command)i))
            print_argument(t, name, "", command_rows[i].argument);
        for (size_t k = 0; k < option_count; k++)
            if (command_takes((Command)i, &option_rows[k]))
                print_option(t, (Command)i, &option_rows[k]);
    }
}
