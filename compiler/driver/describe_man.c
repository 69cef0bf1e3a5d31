/* describe man: moec(1), in the man macros. Commands and options are the table's; the rest is here. */
#include "options.h"

#include <string.h>

static const char revised[] = "2026-11-25"; /* when the text here last changed */

static const char head[] =
    ".SH NAME\n"
    "moec \\- compile a T5 with mixture-of-experts adapters to native code\n"
    ".SH SYNOPSIS\n"
    ".B moec\n"
    ".I COMMAND ARGUMENT\n"
    ".RI [ options ]\n"
    ".br\n"
    ".B moec\n"
    ".I COMMAND\n"
    ".B \\-\\-help\n"
    ".br\n"
    ".B moec \\-\\-version\n"
    ".SH DESCRIPTION\n"
    ".B moec\n"
    "reads a T5 model as ONNX and an adapter spec, works the routers and experts\n"
    "of the adapter into the matrix products around them, and writes C that is\n"
    "specialised to both. A C compiler makes of it a program that generates,\n"
    "scores, evaluates and trains, or a library for other programs.\n"
    ".PP\n"
    ".I MODEL\n"
    "is a folder as exporters leave it (config.json, encoder_model.onnx,\n"
    "decoder_model.onnx or decoder_model_merged.onnx, spiece.model for text), an\n"
    ".B .onnx\n"
    "file of any graph, or text IR, a file ending in\n"
    ".BR .ir .\n"
    ".PP\n"
    "Options with a value are written\n"
    ".BI \\-\\-name= value\n"
    "or\n"
    ".BI \\-\\-name \" value\" ;\n"
    "those of one letter take the value attached or as the next word. Behind\n"
    ".B \\-\\-\n"
    "nothing is an option. Values in small letters are literal.\n";

static const char foot[] =
    ".SH EXIT STATUS\n"
    ".TP\n.B 0\ndone\n"
    ".TP\n.B 1\nthe input is at fault; a line on standard error says where and why\n"
    ".TP\n.B 2\nusage: an unknown command or option, or a value that an option does not take\n"
    ".TP\n.B 70\na bug in moec\n"
    ".SH ENVIRONMENT\n"
    ".TP\n.B TMPDIR\nwhere the folder is made in which the C compiler works (/tmp);\nit is removed afterwards\n"
    ".TP\n.B PATH\nis searched for\n.BR cc ,\nor what\n.B \\-\\-cc\nnames, and for\n.B ar\n"
    ".TP\n.BR OPENBLAS_CORETYPE \", \" OPENBLAS_NUM_THREADS\n"
    "tell OpenBLAS which kernels and how many threads to use. A compiled program\n"
    "sets both to what serves it and starts again, unless one of them is set; for\n"
    "a program that links a model they are set before it is started.\n"
    ".SH FILES\n"
    ".TP\n.IR NAME .weights\nthe weights, beside what was compiled; read at the start, or with\n.B \\-\\-map\nmapped, so that any number of processes share them\n"
    ".TP\n.IR NAME .spiece.model\nthe vocabulary, beside a program that handles text\n"
    ".TP\n.IR NAME .h\nthe header of an object or a library; with it, moec_rt.h\n"
    ".TP\n.I PREFIX/share/moec/adapter-spec.schema.json\nJSON Schema of adapter specs\n"
    ".TP\n.I PREFIX/lib/pkgconfig/moec.pc\nthe runtime for pkg-config\n"
    ".TP\n.I PREFIX/lib/cmake/moec\nthe package for find_package(moec), with the function moec_add_model\n"
    ".SH EXAMPLES\n"
    "A program with ten experts at every site, which also trains:\n"
    ".PP\n.EX\n"
    "$ cat mov10.json\n"
    "{ \"moec_adapter\": 1, \"method\": \"mov\", \"experts\": 10 }\n"
    "$ moec info t5/ \\-\\-adapter mov10.json\n"
    "$ moec compile t5/ \\-\\-adapter mov10.json \\-\\-train \\-\\-dim B=1..8 \\-\\-dim S=1..256 \\-\\-dim T=1..64 \\-o t5mov\n"
    "$ ./t5mov train \\-\\-data train.jsonl \\-\\-steps 1000 \\-\\-out run/\n"
    "$ ./t5mov generate \\-\\-ids \"5 9 12 1\" \\-\\-adapter run/adapter.safetensors\n"
    ".EE\n"
    ".PP\nSources for a machine that has only a C compiler:\n"
    ".PP\n.EX\n$ moec compile t5/ \\-\\-emit=c \\-\\-matmul=native \\-o out/\n.EE\n"
    ".PP\nThe IR after a pass, and a pass alone:\n"
    ".PP\n.EX\n"
    "$ moec dump t5/ \\-\\-stop\\-after=match \\-o t5.ir\n"
    "$ moec opt t5.ir \\-\\-passes=cse\n"
    ".EE\n"
    ".PP\nCompletion in the shell at hand:\n"
    ".PP\n.EX\n$ source <(moec describe bash)\n.EE\n"
    ".SH SEE ALSO\n"
    ".BR cc (1),\n.BR pkg\\-config (1),\n.BR cmake (1)\n";

/* A paragraph of text, on lines of its own; none of them may look like a request. */
static void add_text(Text *t, const char *s)
{
    size_t start = t->n;
    for (const char *p = s; *p; p++) {
        if (*p == ' ' && t->n - start > 56) {
            text_printf(t, "\n");
            start = t->n;
            continue;
        }
        if (t->n == start && (*p == '.' || *p == '\''))
            text_printf(t, "\\&");
        text_printf(t, *p == '\\' ? "\\e" : *p == '-' ? "\\-" : *p == '\'' ? "\\(aq" : *p == '"' ? "\\(dq" : "%c", *p);
    }
}

/* What stands for an argument: words in bold, names in italics. */
static void add_argument(Text *t, const char *argument)
{
    ValueForm f;
    for (size_t i = 0; value_form(argument, i, &f); i++) {
        text_printf(t, "%s\\fB", i ? "|" : "");
        text_str(t, f.word);
        text_printf(t, "\\fI");
        text_str(t, f.name);
        text_printf(t, "\\fR");
    }
}

static void print_option(Text *t, const OptionRow *row)
{
    text_printf(t, ".TP\n\\fB");
    add_text(t, row->spelling);
    if (row->kind != OPTION_FLAG) {
        text_printf(t, row->kind == OPTION_BARE ? "\\fR[=" : option_is_letter(row) ? "\\fR " : "\\fR=");
        add_argument(t, row->argument);
        text_printf(t, row->kind == OPTION_BARE ? "]" : "");
    } else
        text_printf(t, "\\fR");
    text_printf(t, "\n");
    add_text(t, row->doc);
    if (row->kind == OPTION_LIST)
        text_printf(t, "; may be repeated");
    text_printf(t, "\n");
}

static void print_usage(Text *t, const char *command, const char *verb, const char *argument)
{
    text_printf(t, "\\fBmoec %s%s%s\\fR ", command, *verb ? " " : "", verb);
    add_argument(t, argument);
    text_printf(t, " [options]\n");
}

static void print_command(Text *t, Command c)
{
    const CommandRow *row = &command_rows[c];
    text_printf(t, ".SS moec %s\n", row->name);
    if (!command_has_verbs(c))
        print_usage(t, row->name, "", row->argument);
    for (int i = 0, n = 0; i < SUB_COUNT; i++)
        if (verb_rows[i].command == c) {
            text_printf(t, "%s", n++ ? ".br\n" : "");
            print_usage(t, row->name, verb_rows[i].name, verb_rows[i].argument);
        }
    text_printf(t, ".PP\n");
    add_text(t, row->doc);
    text_printf(t, ".\n");
    for (int i = 0; i < SUB_COUNT; i++)
        if (verb_rows[i].command == c) {
            text_printf(t, ".TP\n.B %s\n", verb_rows[i].name);
            add_text(t, verb_rows[i].doc);
            text_printf(t, "\n");
        }
    text_printf(t, ".PP\nOptions:\n");
    for (size_t i = 0; i < option_count; i++)
        if (command_takes(c, &option_rows[i]))
            print_option(t, &option_rows[i]);
}

void print_man(Text *t)
{
    text_printf(t, ".\\\" Written by `moec describe man`.\n.TH MOEC 1 %s \"moec %s\" \"User Commands\"\n%s.SH COMMANDS\n",
                revised, MOEC_VERSION, head);
    for (int i = 0; i < COMMAND_COUNT; i++)
        print_command(t, (Command)i);
    text_printf(t, ".SH PASSES\nIn the order of the pipeline:\n");
    for (int p = 0; p < PASS_COUNT; p++) {
        text_printf(t, ".TP\n.B %s\n", pass_name((PassId)p));
        add_text(t, pass_doc((PassId)p));
        text_printf(t, "\n");
    }
    text_printf(t, "%s", foot);
}
