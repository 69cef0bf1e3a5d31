/* describe zsh: a function for _arguments, whose specs are SPELLING[what it does]:NAME:action. */
#include "options.h"

#include <string.h>

static const char head[] =
    "#compdef moec\n"
    "# zsh completion of moec, written by `moec describe zsh`.\n\n"
    "# NAME=FILE: a name that is the model's, then a file.\n"
    "_moec_binding() { compset -P '*=' && _files }\n\n";

/* Part of a spec, within single quotes of the shell. */
static void add_escaped(Text *t, const char *s)
{
    for (; *s; s++)
        if (*s == '\'')
            text_printf(t, "'\\''");
        else
            text_printf(t, "%s%c", strchr(":[]\\", *s) ? "\\" : "", *s);
}

/* :NAME:action of an argument. */
static void add_action(Text *t, const char *argument)
{
    static const char *const actions[] = {
        [FORM_PATH] = "_files",
        [FORM_DIR] = "_files -/",
        [FORM_BINDING] = "_moec_binding",
        [FORM_ANY] = " ",
        [FORM_PROGRAM] = "_command_names -e",
    };
    ValueForm f;
    Text words = {0};
    text_printf(t, ":");
    add_escaped(t, argument);
    text_printf(t, ":");
    value_form(argument, 0, &f);
    if (value_words(argument, " ", "", &words)) {
        text_add(&words, "", 1);
        text_printf(t, f.kind == FORM_PASSES ? "_values -s , pass" : "(");
        add_escaped(t, words.p);
        text_printf(t, f.kind == FORM_PASSES ? "" : " )");
    } else
        text_printf(t, "%s", actions[f.kind]);
    text_free(&words);
}

static void print_option(Text *t, const OptionRow *row)
{
    bool flag = row->kind == OPTION_FLAG;
    text_printf(t, " \\\n            '%s%s%s[", row->kind == OPTION_LIST ? "*" : "", row->spelling,
                flag ? "" : row->kind == OPTION_BARE ? "=-" : option_is_letter(row) ? "+" : "=");
    add_escaped(t, row->doc);
    text_printf(t, row->kind == OPTION_BARE ? "]:" : "]");
    if (!flag)
        add_action(t, row->argument);
    text_printf(t, "'");
}

/* What a verb, or a command without one, takes. */
static void print_arguments(Text *t, Command c, const char *argument, size_t most)
{
    text_printf(t, " _arguments -S");
    for (size_t i = 0; i < option_count; i++)
        if (command_takes(c, &option_rows[i]))
            print_option(t, &option_rows[i]);
    text_printf(t, " \\\n            '%s", most > 1 ? "*" : "1");
    add_action(t, argument);
    text_printf(t, "' && ret=0 ;;\n");
}

static void print_choice(Text *t, const char *name, const char *doc)
{
    text_printf(t, " '%s:", name);
    add_escaped(t, doc);
    text_printf(t, "'");
}

static void print_verbs(Text *t, Command c)
{
    text_printf(t, "\n            if ((CURRENT == 2)); then\n                choices=(");
    for (int i = 0; i < SUB_COUNT; i++)
        if (verb_rows[i].command == c)
            print_choice(t, verb_rows[i].name, verb_rows[i].doc);
    text_printf(t, " )\n                _describe verb choices && ret=0\n                return ret\n            fi\n"
                   "            case $words[2] in\n");
    for (int i = 0; i < SUB_COUNT; i++)
        if (verb_rows[i].command == c) {
            text_printf(t, "        %s) shift words; ((CURRENT--));", verb_rows[i].name);
            print_arguments(t, c, verb_rows[i].argument, verb_rows[i].most);
        }
    text_printf(t, "            esac ;;\n");
}

void print_zsh(Text *t)
{
    text_printf(t, "%s_moec() {\n    local ret=1 choices=(\n       ", head);
    for (int i = 0; i < COMMAND_COUNT; i++)
        print_choice(t, command_rows[i].name, command_rows[i].doc);
    text_printf(t, "\n    )\n    if ((CURRENT == 2)); then\n        _describe command choices && ret=0\n"
                   "        [[ $PREFIX == -* ]] && compadd -- --help --version && ret=0\n        return ret\n    fi\n"
                   "    shift words\n    ((CURRENT--))\n    case $words[1] in\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        text_printf(t, "        %s)", command_rows[i].name);
        if (command_has_verbs((Command)i))
            print_verbs(t, (Command)i);
        else
            print_arguments(t, (Command)i, command_rows[i].argument, command_rows[i].most);
    }
    text_printf(t, "    esac\n    return ret\n}\n\n"
                   "if [[ $funcstack[1] == _moec ]]; then _moec \"$@\"; else compdef _moec moec; fi\n");
}
