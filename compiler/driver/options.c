/* The command line, from the table in options.def. */
#include "options.h"

#include "../../codegen/llvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C(name) (1u << COMMAND_##name)
#define ALL_COMMANDS ((1u << COMMAND_COUNT) - 1)
#define MODEL_COMMANDS (ALL_COMMANDS & ~(C(adapter) | C(diff) | C(describe) | C(explain)))
#define BUILD_COMMANDS (ALL_COMMANDS & ~(C(describe) | C(explain)))
#define PASS_COMMANDS (MODEL_COMMANDS & ~C(info))

const OptionRow option_rows[] = {
#define OPTION(kind, field, spelling, argument, commands, doc) \
    {OPTION_##kind, offsetof(Options, field), spelling, argument, commands, doc},
#include "options.def"
};
const size_t option_count = sizeof option_rows / sizeof *option_rows;

const CommandRow command_rows[COMMAND_COUNT] = {
#define COMMAND(name, argument, most, doc) {#name, argument, most, doc},
#include "options.def"
};

const VerbRow verb_rows[SUB_COUNT + 1] = {
#define SUBCOMMAND(command, name, argument, most, doc) {COMMAND_##command, #name, argument, most, doc},
#include "options.def"
};

bool command_takes(Command c, const OptionRow *row)
{
    return row->commands & (1u << c);
}

bool command_has_verbs(Command c)
{
    for (int i = 0; i < SUB_COUNT; i++)
        if (verb_rows[i].command == c)
            return true;
    return false;
}

bool option_is_letter(const OptionRow *row)
{
    return strlen(row->spelling) == 2;
}

bool option_takes_next(const OptionRow *row)
{
    return row->kind != OPTION_FLAG && row->kind != OPTION_BARE;
}

/* " adapter import", as far as it is known. */
static void text_command(Text *t, const Options *o)
{
    if (o->command < COMMAND_COUNT)
        text_printf(t, " %s", command_rows[o->command].name);
    if (o->sub < SUB_COUNT)
        text_printf(t, " %s", verb_rows[o->sub].name);
    text_add(t, "", 0);
}

static bool wants_json(const Options *o) {
    return o->diagnostics_format == DIAG_FORMAT_JSON;
}

int usage_error(const Options *o, DiagCode code, const char *fmt, ...)
{
    char message[600];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    Text command = {0};
    text_command(&command, o);
    if (wants_json(o)) {
        Diag *d = diag_new();
        diag_error(d, code, NULL, "%s; `moec%s --help` lists what there is", message, command.p);
        diag_flush(d);
        diag_free(d);
    } else {
        fprintf(stderr, "moec%s: %s; `moec%s --help` lists what there is [" DIAG_CODE "]\n", command.p,
                message, command.p, (int)code);
    }
    text_free(&command);
    return EXIT_USAGE;
}

static void show_general_help(void)
{
    printf("moec: from a T5 in ONNX and a mixture-of-experts adapter spec to native code\n\n");
    for (int i = 0; i < COMMAND_COUNT; i++)
        printf("  moec %-8s %-18s %s\n", command_rows[i].name, command_rows[i].argument, command_rows[i].doc);
    printf("\n`moec COMMAND --help` lists a command's options; `moec --version` tells the version.\n"
           "MODEL is a directory as exporters leave it, an .onnx file, or text IR (.ir).\n"
           "Exit codes: 0 done, 1 the input is at fault, 2 usage, 70 a bug in moec.\n");
}

static void show_command_help(Command c, SubCommand sub)
{
    if (sub < SUB_COUNT)
        printf("moec %s %s %s [options]: %s\n\n", command_rows[c].name, verb_rows[sub].name, verb_rows[sub].argument,
               verb_rows[sub].doc);
    else
        printf("moec %s %s [options]: %s\n\n", command_rows[c].name, command_rows[c].argument, command_rows[c].doc);
    for (int i = 0; i < SUB_COUNT && sub == SUB_COUNT; i++)
        if (verb_rows[i].command == c)
            printf("  %s %-19s %s\n", verb_rows[i].name, verb_rows[i].argument, verb_rows[i].doc);
    if (sub == SUB_COUNT && command_has_verbs(c))
        printf("\n");
    for (size_t i = 0; i < option_count; i++) {
        const OptionRow *row = &option_rows[i];
        if (!command_takes(c, row))
            continue;
        printf("  ");
        const char *between = row->kind == OPTION_FLAG   ? ""
                              : row->kind == OPTION_BARE ? "[="
                              : option_is_letter(row)    ? " "
                                                         : "=";
        int n = printf("%s%s%s%s", row->spelling, between, row->argument, row->kind == OPTION_BARE ? "]" : "");
        printf("%s%*s%s\n", n > 26 ? "\n" : "", n > 26 ? 29 : 27 - n, "", row->doc);
    }
    if (c == COMMAND_opt || c == COMMAND_dump) {
        printf("\npasses, in order:\n");
        for (int p = 0; p < PASS_COUNT; p++)
            printf("  %-26s %s\n", pass_name((PassId)p), pass_doc((PassId)p));
    }
}

/* The row an argument spells; *value: what stands attached to it, or NULL. */
static const OptionRow *find_row(Command c, const char *arg, const char **value)
{
    for (size_t i = 0; i < option_count; i++) {
        const OptionRow *row = &option_rows[i];
        size_t n = strlen(row->spelling);
        if (!command_takes(c, row) || strncmp(arg, row->spelling, n) != 0)
            continue;
        *value = NULL;
        if (!arg[n])
            return row;
        if (row->kind != OPTION_FLAG && (arg[n] == '=' || option_is_letter(row))) {
            *value = arg + n + (arg[n] == '=');
            return row;
        }
    }
    return NULL;
}

/* Reports what is expected of a value that does not fit. */
static bool check_value(const Options *o, const char *what, const char *argument, const char *value, int *exit_code)
{
    if (value_fits(argument, value))
        return true;
    Text t = {0};
    value_describe(argument, &t);
    *exit_code = usage_error(o, *what ? DIAG_USAGE_VALUE : DIAG_USAGE_ARGUMENT, "%s%swants %s, not '%s'", what, *what ? " " : "", t.p, value);
    text_free(&t);
    return false;
}

static bool store_number(Options *o, const OptionRow *row, const char *value, int64_t *field, int *exit_code)
{
    char *end;
    errno = 0;
    long long v = strtoll(value, &end, 10);
    if (errno || *end || end == value || v < 0) {
        *exit_code = usage_error(o, DIAG_USAGE_VALUE, "%s wants a number, not '%s'", row->spelling, value);
        return false;
    }
    *field = v;
    return true;
}

static bool store(Options *o, const OptionRow *row, const char *value, int *exit_code)
{
    void *field = (char *)o + row->offset;
    if (row->kind == OPTION_FLAG) {
        *(bool *)field = true;
        return true;
    }
    if (row->kind == OPTION_BARE && !value) {
        *(int *)field = 1;
        return true;
    }
    if (!check_value(o, row->spelling, row->argument, value, exit_code))
        return false;
    if (row->kind == OPTION_TEXT) {
        *(const char **)field = value;
    } else if (row->kind == OPTION_WORD) {
        *(int *)field = value_word(row->argument, value);
    } else if (row->kind == OPTION_BARE) {
        *(int *)field = 2 + value_word(row->argument, value);
    } else if (row->kind == OPTION_LIST) {
        TextList *list = field;
        vec_push(list, value);
    } else {
        return store_number(o, row, value, field, exit_code);
    }
    return true;
}

static bool parse_option(int argc, char **argv, int *at, Options *o, int *exit_code)
{
    const char *value;
    const OptionRow *row = find_row(o->command, argv[*at], &value);
    if (!row) {
        *exit_code = usage_error(o, DIAG_USAGE_OPTION, "unknown option '%s'", argv[*at]);
        return false;
    }
    if (!value && option_takes_next(row)) {
        if (*at + 1 == argc) {
            *exit_code = usage_error(o, DIAG_USAGE_VALUE, "%s wants a value", row->spelling);
            return false;
        }
        value = argv[++*at];
    }
    if (!store(o, row, value, exit_code))
        return false;
    diag_set_format((DiagFormat)o->diagnostics_format); /* at once: for what is wrong further on in the command line, too */
    return true;
}

static void set_defaults(Options *o)
{
    for (size_t i = 0; i < option_count; i++)
        if (option_rows[i].kind == OPTION_NUMBER)
            *(int64_t *)((char *)o + option_rows[i].offset) = -1;
}

static bool parse_command(int argc, char **argv, Options *o, int *exit_code)
{
    *exit_code = EXIT_DONE;
    if (argc < 2) {
        *exit_code = usage_error(o, DIAG_USAGE_ARGUMENT, "no command");
        return false;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        show_general_help();
        return false;
    }
    if (!strcmp(argv[1], "--version")) {
        const char *llvm = llvm_version();
        printf("moec %s%s%s\n", MOEC_VERSION, llvm ? ", " : "", llvm ? llvm : "");
        return false;
    }
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(argv[1], command_rows[i].name)) {
            o->command = (Command)i;
            return true;
        }
    *exit_code = usage_error(o, DIAG_USAGE_ARGUMENT, "there is no command '%s'", argv[1]);
    return false;
}

/* The verb of a command that has some: the word after it. Help of all the verbs may stand there instead. */
static bool parse_verb(int argc, char **argv, int *at, Options *o, int *exit_code)
{
    if (!command_has_verbs(o->command) || (argc > *at && !strcmp(argv[*at], "--help")))
        return true;
    for (int i = 0; i < SUB_COUNT && argc > *at; i++)
        if (verb_rows[i].command == o->command && !strcmp(argv[*at], verb_rows[i].name)) {
            o->sub = (SubCommand)i;
            ++*at;
            return true;
        }
    *exit_code = argc > *at ? usage_error(o, DIAG_USAGE_ARGUMENT, "there is no verb '%s'", argv[*at])
                            : usage_error(o, DIAG_USAGE_ARGUMENT, "no verb given");
    return false;
}

static const char *argument_name(const Options *o)
{
    return o->sub < SUB_COUNT ? verb_rows[o->sub].argument : command_rows[o->command].argument;
}

static bool store_argument(Options *o, const char *value, int *exit_code)
{
    size_t most = o->sub < SUB_COUNT ? verb_rows[o->sub].most : command_rows[o->command].most;
    if (o->argument.count == most) {
        *exit_code = most > 1 ? usage_error(o, DIAG_USAGE_ARGUMENT, "more than %zu arguments", most)
                              : usage_error(o, DIAG_USAGE_ARGUMENT, "one %s at a time: '%s' is too much",
                                            argument_name(o), value);
        return false;
    }
    if (!check_value(o, "", argument_name(o), value, exit_code))
        return false;
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
    if (!o->model && !o->list) {
        *exit_code = usage_error(o, DIAG_USAGE_ARGUMENT, "no %s given", argument_name(o));
        return false;
    }
    return true;
}

void options_free(Options *o)
{
    vec_free(&o->argument);
    for (size_t i = 0; i < option_count; i++)
        if (option_rows[i].kind == OPTION_LIST) {
            TextList *list = (TextList *)((char *)o + option_rows[i].offset);
            vec_free(list);
        }
}
