/* The command line, from the table in options.def. */
#include "driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C(name) (1u << COMMAND_##name)
#define ALL_COMMANDS ((1u << COMMAND_COUNT) - 1)
#define MODEL_COMMANDS (ALL_COMMANDS & ~(C(adapter) | C(diff)))
#define PASS_COMMANDS (MODEL_COMMANDS & ~C(info))

typedef enum OptionKind { OPTION_FLAG, OPTION_TEXT, OPTION_WORD, OPTION_NUMBER, OPTION_LIST } OptionKind;

typedef struct OptionRow {
    OptionKind kind;
    size_t offset;
    const char *spelling, *argument;
    unsigned commands;
    const char *doc;
} OptionRow;

static const OptionRow option_rows[] = {
#define OPTION(kind, field, spelling, argument, commands, doc) \
    {OPTION_##kind, offsetof(Options, field), spelling, argument, commands, doc},
#include "options.def"
};
enum { N_OPTIONS = sizeof option_rows / sizeof *option_rows };

static const struct {
    const char *name, *argument;
    size_t most;
    const char *doc;
} command_rows[] = {
#define COMMAND(name, argument, most, doc) {#name, argument, most, doc},
#include "options.def"
};

static const struct {
    Command command;
    const char *name, *argument;
    size_t most;
    const char *doc;
} sub_rows[SUB_COUNT + 1] = {
#define SUBCOMMAND(command, name, argument, most, doc) {COMMAND_##command, #name, argument, most, doc},
#include "options.def"
};

static bool has_verbs(Command c)
{
    for (int i = 0; i < SUB_COUNT; i++)
        if (sub_rows[i].command == c)
            return true;
    return false;
}

/* " adapter import", as far as it is known. */
static void text_command(Text *t, const Options *o)
{
    if (o->command < COMMAND_COUNT)
        text_printf(t, " %s", command_rows[o->command].name);
    if (o->sub < SUB_COUNT)
        text_printf(t, " %s", sub_rows[o->sub].name);
    text_add(t, "", 0);
}

int usage_error(const Options *o, const char *fmt, ...)
{
    va_list args;
    Text command = {0};
    text_command(&command, o);
    va_start(args, fmt);
    fprintf(stderr, "moec%s: ", command.p);
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "; `moec%s --help` lists what there is\n", command.p);
    va_end(args);
    text_free(&command);
    return EXIT_USAGE;
}

static void show_general_help(void)
{
    printf("moec: from a T5 in ONNX and a mixture-of-experts adapter spec to native code\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        printf("  moec %-8s %-9s %s\n", command_rows[i].name, command_rows[i].argument, command_rows[i].doc);
    printf("\n`moec COMMAND --help` lists a command's options; `moec --version` tells the version.\n"
           "MODEL is a directory as exporters leave it, an .onnx file, or text IR (.ir).\n"
           "Exit codes: 0 done, 1 the input is at fault, 2 usage, 70 a bug in moec.\n");
}

static void show_command_help(Command c, SubCommand sub)
{
    if (sub < SUB_COUNT)
        printf("moec %s %s %s [options]: %s\n\n", command_rows[c].name, sub_rows[sub].name, sub_rows[sub].argument,
               sub_rows[sub].doc);
    else
        printf("moec %s %s [options]: %s\n\n", command_rows[c].name, command_rows[c].argument, command_rows[c].doc);
    for (int i = 0; i < SUB_COUNT && sub == SUB_COUNT; i++)
        if (sub_rows[i].command == c)
            printf("  %s %-19s %s\n", sub_rows[i].name, sub_rows[i].argument, sub_rows[i].doc);
    if (sub == SUB_COUNT && has_verbs(c))
        printf("\n");
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const OptionRow *row = &option_rows[i];
        if (!(row->commands & (1u << c)))
            continue;
        char head[64];
        bool attached = row->spelling[1] != '-' && row->spelling[2] == 0;
        bool may = row->kind == OPTION_WORD;
        snprintf(head, sizeof head, "%s%s%s%s", row->spelling, !row->argument[0] ? "" : attached ? " " : may ? "[=" : "=",
                 row->argument, may ? "]" : "");
        printf("  %-26s %s\n", head, row->doc);
    }
    if (c == COMMAND_opt || c == COMMAND_dump) {
        printf("\npasses, in order:\n");
        for (int p = 0; p < PASS_COUNT; p++)
            printf("  %-26s %s\n", pass_name((PassId)p), pass_doc((PassId)p));
    }
}

/* The row an argument spells; *value: what stands attached to it, or NULL. */
static const OptionRow *find_row(const char *arg, const char **value)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const OptionRow *row = &option_rows[i];
        size_t n = strlen(row->spelling);
        if (strncmp(arg, row->spelling, n) != 0)
            continue;
        bool one_letter = n == 2;
        *value = NULL;
        if (!arg[n])
            return row;
        if (row->kind != OPTION_FLAG && (arg[n] == '=' || one_letter)) {
            *value = arg + n + (arg[n] == '=');
            return row;
        }
    }
    return NULL;
}

static bool store(Options *o, const OptionRow *row, const char *value, int *exit_code)
{
    void *field = (char *)o + row->offset;
    if (row->kind == OPTION_FLAG) {
        *(bool *)field = true;
    } else if (row->kind == OPTION_TEXT || row->kind == OPTION_WORD) {
        *(const char **)field = value ? value : "";
    } else if (row->kind == OPTION_LIST) {
        TextList *list = field;
        vec_push(list, value);
    } else {
        char *end;
        errno = 0;
        long long v = strtoll(value, &end, 10);
        if (errno || *end || end == value || v < 0) {
            *exit_code = usage_error(o, "%s wants a number, not '%s'", row->spelling, value);
            return false;
        }
        *(int64_t *)field = v;
    }
    return true;
}

static bool parse_option(int argc, char **argv, int *at, Options *o, int *exit_code)
{
    const char *value;
    const OptionRow *row = find_row(argv[*at], &value);
    if (!row || !(row->commands & (1u << o->command))) {
        *exit_code = usage_error(o, "unknown option '%s'", argv[*at]);
        return false;
    }
    if (row->kind != OPTION_FLAG && row->kind != OPTION_WORD && !value) {
        if (*at + 1 == argc) {
            *exit_code = usage_error(o, "%s wants a value", row->spelling);
            return false;
        }
        value = argv[++*at];
    }
    return store(o, row, value, exit_code);
}

static void set_defaults(Options *o)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (option_rows[i].kind == OPTION_NUMBER)
            *(int64_t *)((char *)o + option_rows[i].offset) = -1;
}

static bool parse_command(int argc, char **argv, Options *o, int *exit_code)
{
    *exit_code = EXIT_DONE;
    if (argc < 2) {
        *exit_code = usage_error(o, "no command");
        return false;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        show_general_help();
        return false;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("moec %s\n", MOEC_VERSION);
        return false;
    }
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(argv[1], command_rows[i].name)) {
            o->command = (Command)i;
            return true;
        }
    *exit_code = usage_error(o, "there is no command '%s'", argv[1]);
    return false;
}

/* The verb of a command that has some: the word after it. Help of all the verbs may stand there instead. */
static bool parse_verb(int argc, char **argv, int *at, Options *o, int *exit_code)
{
    if (!has_verbs(o->command) || (argc > *at && !strcmp(argv[*at], "--help")))
        return true;
    for (int i = 0; i < SUB_COUNT && argc > *at; i++)
        if (sub_rows[i].command == o->command && !strcmp(argv[*at], sub_rows[i].name)) {
            o->sub = (SubCommand)i;
            ++*at;
            return true;
        }
    *exit_code = argc > *at ? usage_error(o, "there is no verb '%s'", argv[*at])
                            : usage_error(o, "no verb given");
    return false;
}

static const char *argument_name(const Options *o)
{
    return o->sub < SUB_COUNT ? sub_rows[o->sub].argument : command_rows[o->command].argument;
}

static bool store_argument(Options *o, const char *value, int *exit_code)
{
    size_t most = o->sub < SUB_COUNT ? sub_rows[o->sub].most : command_rows[o->command].most;
    if (o->argument.count == most) {
        *exit_code = most > 1 ? usage_error(o, "more than %zu arguments", most)
                              : usage_error(o, "one %s at a time: '%s' is too much", argument_name(o), value);
        return false;
    }
    vec_push(&o->argument, value);
    o->model = o->argument.item[0];
    return true;
}

bool options_parse(int argc, char **argv, Options *o, int *exit_code)
{
    *o = (Options){.command = COMMAND_COUNT, .sub = SUB_COUNT, .program = argc ? argv[0] : "moec"};
    set_defaults(o);
    if (!parse_command(argc, argv, o, exit_code))
        return false;
    bool options_over = false;
    PassId pass;
    int first = 2;
    if (!parse_verb(argc, argv, &first, o, exit_code))
        return false;
    for (int i = first; i < argc; i++) {
        if (!options_over && !strcmp(argv[i], "--")) {
            options_over = true;
        } else if (!options_over && argv[i][0] == '-' && argv[i][1]) {
            if (!parse_option(argc, argv, &i, o, exit_code))
                return false;
        } else if (!store_argument(o, argv[i], exit_code)) {
            return false;
        }
    }
    if (o->help) {
        show_command_help(o->command, o->sub);
        return false;
    }
    if (!o->model) {
        *exit_code = usage_error(o, "no %s given", argument_name(o));
        return false;
    }
    if (o->stop_after && !pass_find(str_c(o->stop_after), &pass)) {
        *exit_code = usage_error(o, "there is no pass '%s'", o->stop_after);
        return false;
    }
    if (o->dump_changed && *o->dump_changed && strcmp(o->dump_changed, "diff")) {
        *exit_code = usage_error(o, "--dump-changed stands alone or is --dump-changed=diff");
        return false;
    }
    if (o->verify && strcmp(o->verify, "each") && strcmp(o->verify, "none")) {
        *exit_code = usage_error(o, "--verify is each or none");
        return false;
    }
    return true;
}

void options_free(Options *o)
{
    vec_free(&o->argument);
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (option_rows[i].kind == OPTION_LIST) {
            TextList *list = (TextList *)((char *)o + option_rows[i].offset);
            vec_free(list);
        }
}
