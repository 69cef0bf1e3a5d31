/* describe bash: a completion function for bash, which needs nothing but bash.
 *
 * Readline breaks words at `=` and `:`, and replaces only what stands behind the last break: the function joins the words
 * again, completes the whole, and cuts what Readline keeps from every answer. */
#include "options.h"

#include <string.h>

static const char head[] =
    "# bash completion of moec, written by `moec describe bash`.\n\n"
    "# _moec_add CURRENT WORD...: the words that begin with what is there.\n"
    "_moec_add() {\n"
    "    local current=$1 word\n"
    "    shift\n"
    "    for word; do [[ $word == \"$current\"* ]] && COMPREPLY+=(\"$word\"); done\n"
    "}\n\n"
    "# _moec_files KIND BEFORE CURRENT: files (-f), folders (-d) or programs (-c), each behind BEFORE.\n"
    "_moec_files() {\n"
    "    local word\n"
    "    while IFS= read -r word; do COMPREPLY+=(\"$2$word\"); done < <(compgen \"$1\" -- \"$3\")\n"
    "    compopt -o filenames 2>/dev/null\n"
    "}\n\n"
    "# _moec_list BEFORE CURRENT WORD...: the last of some words that commas separate.\n"
    "_moec_list() {\n"
    "    local all=$1$2 before=$1\n"
    "    [[ $2 == *,* ]] && before+=${2%,*},\n"
    "    shift 2\n"
    "    _moec_add \"$all\" \"${@/#/$before}\"\n"
    "    compopt -o nospace 2>/dev/null\n"
    "}\n";

static const char body[] =
    "_moec() {\n"
    "    local words=() i word cur command= first= pending= over= glue= breaks= tail\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i <= COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        if ((${#words[@]})) && [[ -n $glue || $word == [=:]* ]]; then\n"
    "            words[${#words[@]} - 1]+=$word\n"
    "        else\n"
    "            words+=(\"$word\")\n"
    "        fi\n"
    "        [[ $word == [=:] ]] && glue=1 || glue=\n"
    "    done\n"
    "    cur=${words[${#words[@]} - 1]}\n"
    "    for word in \"${words[@]:0:${#words[@]} - 1}\"; do\n"
    "        if [[ -z $command ]]; then command=$word\n"
    "        elif [[ -n $pending ]]; then pending=\n"
    "        elif [[ -z $over && $word == -- ]]; then over=1\n"
    "        elif [[ -z $over && $word == -* ]]; then _moec_takes_value \"$word\" && pending=$word\n"
    "        elif [[ -z $first ]]; then first=$word\n"
    "        fi\n"
    "    done\n"
    "    if [[ -z $command ]]; then _moec_commands \"$cur\"\n"
    "    elif [[ -n $pending ]]; then _moec_value \"$pending\" '' \"$cur\"\n"
    "    elif [[ -z $over && $cur == -[a-zA-Z]?* ]] && _moec_takes_value \"${cur:0:2}\"; then\n"
    "        _moec_value \"${cur:0:2}\" \"${cur:0:2}\" \"${cur:2}\"\n"
    "    elif [[ -z $over && $cur == -*=* ]]; then _moec_value \"${cur%%=*}\" \"${cur%%=*}=\" \"${cur#*=}\"\n"
    "    elif [[ -z $over && $cur == -* ]]; then\n"
    "        _moec_options \"$command\" \"$cur\"\n"
    "        [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null\n"
    "    else _moec_argument \"$command\" \"$first\" \"$cur\"\n"
    "    fi\n"
    "    [[ $COMP_WORDBREAKS == *=* ]] && breaks+==\n"
    "    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:\n"
    "    tail=$cur\n"
    "    [[ -n $breaks ]] && tail=${cur##*[$breaks]}\n"
    "    COMPREPLY=(\"${COMPREPLY[@]#\"${cur%\"$tail\"}\"}\")\n"
    "}\n"
    "complete -F _moec moec\n";

/* Calls that complete a value: $2 stands before it in the word, $3 is what there is of it. */
static void print_value(Text *t, const char *argument)
{
    ValueForm f;
    Text words = {0};
    bool list = false;
    for (size_t i = 0; value_form(argument, i, &f); i++) {
        list |= f.kind == FORM_PASSES;
        if (f.kind == FORM_BINDING)
            text_printf(t, " [[ $3 == *=* ]] && _moec_files -f \"$2${3%%%%=*}=\" \"${3#*=}\";");
        else if (f.kind == FORM_PATH || f.kind == FORM_DIR || f.kind == FORM_PROGRAM)
            text_printf(t, " _moec_files %s \"$2\" \"$3\";",
                        f.kind == FORM_DIR ? "-d" : f.kind == FORM_PROGRAM ? "-c" : "-f");
    }
    if (value_words(argument, list ? " " : " \"$2\"", "", &words))
        text_printf(t, list ? " _moec_list \"$2\" \"$3\"%.*s;" : " _moec_add \"$2$3\"%.*s;", (int)words.n, words.p);
    text_free(&words);
}

static void print_case(Text *t, const char *pattern, const char *argument)
{
    Text calls = {0};
    print_value(&calls, argument);
    if (calls.n)
        text_printf(t, "    %s)%.*s ;;\n", pattern, (int)calls.n - 1, calls.p);
    text_free(&calls);
}

static void print_commands(Text *t)
{
    text_printf(t, "\n_moec_commands() { _moec_add \"$1\"");
    for (int i = 0; i < COMMAND_COUNT; i++)
        text_printf(t, " %s", command_rows[i].name);
    text_printf(t, " --help --version; }\n");
    text_printf(t, "\n# _moec_options COMMAND CURRENT\n_moec_options() {\n    case $1 in\n");
    for (int i = 0; i < COMMAND_COUNT; i++) {
        text_printf(t, "    %s) _moec_add \"$2\"", command_rows[i].name);
        for (size_t k = 0; k < option_count; k++)
            if (command_takes((Command)i, &option_rows[k]))
                text_printf(t, " %s%s", option_rows[k].spelling,
                            option_is_letter(&option_rows[k]) || !option_takes_next(&option_rows[k]) ? "" : "=");
        text_printf(t, " ;;\n");
    }
    text_printf(t, "    esac\n}\n");
}

/* COMMAND:OPTION as bash matches it; the command is named where other commands have another row of the same spelling. */
static void print_pattern(Text *t, const OptionRow *row)
{
    bool alone = true;
    for (size_t k = 0; k < option_count; k++)
        alone &= &option_rows[k] == row || strcmp(option_rows[k].spelling, row->spelling) != 0;
    if (alone)
        text_printf(t, "*:%s", row->spelling);
    for (int i = 0; i < COMMAND_COUNT && !alone; i++)
        if (command_takes((Command)i, row))
            text_printf(t, "%s%s:%s", t->n ? "|" : "", command_rows[i].name, row->spelling);
}

static void print_values(Text *t)
{
    text_printf(t, "\n_moec_takes_value() {\n    case $1 in\n    ");
    for (size_t i = 0, n = 0; i < option_count; i++)
        if (option_takes_next(&option_rows[i]))
            text_printf(t, "%s%s", n++ ? "|" : "", option_rows[i].spelling);
    text_printf(t, ") return 0 ;;\n    esac\n    return 1\n}\n");
    text_printf(t, "\n# _moec_value OPTION BEFORE CURRENT: of the caller's $command\n_moec_value() {\n    case $command:$1 in\n");
    for (size_t i = 0; i < option_count; i++) {
        Text pattern = {0};
        print_pattern(&pattern, &option_rows[i]);
        if (option_rows[i].kind != OPTION_FLAG)
            print_case(t, pattern.p, option_rows[i].argument);
        text_free(&pattern);
    }
    text_printf(t, "    esac\n}\n");
}

static void print_arguments(Text *t)
{
    text_printf(t, "\n# _moec_argument COMMAND FIRST CURRENT: FIRST is the first argument, empty where that is meant.\n"
                   "_moec_argument() {\n    set -- \"$1,$2\" '' \"$3\"\n    case $1 in\n");
    for (int i = 0; i < SUB_COUNT; i++) {
        Text name = {0};
        text_printf(&name, "%s,%s", command_rows[verb_rows[i].command].name, verb_rows[i].name);
        print_case(t, name.p, verb_rows[i].argument);
        text_free(&name);
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        Text name = {0}, verbs = {0};
        text_printf(&name, "%s,%s", command_rows[i].name, command_rows[i].most > 1 ? "*" : "");
        for (int k = 0; k < SUB_COUNT; k++)
            if (verb_rows[k].command == (Command)i)
                text_printf(&verbs, "%s%s", verbs.n ? "|" : "", verb_rows[k].name);
        print_case(t, name.p, verbs.n ? verbs.p : command_rows[i].argument);
        text_free(&name);
        text_free(&verbs);
    }
    text_printf(t, "    esac\n}\n\n");
}

void print_bash(Text *t)
{
    text_printf(t, "%s", head);
    print_commands(t);
    print_values(t);
    print_arguments(t);
    text_printf(t, "%s", body);
}
