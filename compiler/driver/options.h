/* The rows of options.def, for those who read them: the parser and help (options.c), and describe, which turns them into
 * completions and a manual page.
 *
 * What stands for an argument in a row is at once its documentation and a small grammar: forms that `|` separates, each a
 * word in small letters, a name in capitals, or a word and then a name. Words are literal. Names stand for what
 * value_names (values.c) says, any text where it says nothing. A value that no form takes is refused. */
#ifndef MOEC_OPTIONS_H
#define MOEC_OPTIONS_H

#include "driver.h"

typedef enum OptionKind { OPTION_FLAG, OPTION_TEXT, OPTION_WORD, OPTION_BARE, OPTION_NUMBER, OPTION_LIST } OptionKind;

typedef struct OptionRow {
    OptionKind kind;
    size_t offset; /* of the field in Options */
    const char *spelling, *argument;
    unsigned commands; /* a bit for each Command */
    const char *doc;
} OptionRow;

typedef struct CommandRow {
    const char *name, *argument;
    size_t most; /* arguments */
    const char *doc;
} CommandRow;

typedef struct VerbRow {
    Command command;
    const char *name, *argument;
    size_t most; /* arguments */
    const char *doc;
} VerbRow;

extern const OptionRow option_rows[];
extern const size_t option_count;
extern const CommandRow command_rows[COMMAND_COUNT];
extern const VerbRow verb_rows[SUB_COUNT + 1];

bool command_takes(Command c, const OptionRow *row);
bool command_has_verbs(Command c);
/* Whether the option is one letter, whose value is attached to it or the next word: -O2, -o PATH. */
bool option_is_letter(const OptionRow *row);
/* Whether the next word is the value where none is attached. */
bool option_takes_next(const OptionRow *row);

/* ---- values (values.c) ----------------------------------------------------------------------------- */

typedef enum FormKind {
    FORM_WORD,    /* a word alone */
    FORM_ANY,
    FORM_PATH,    /* a file or a folder */
    FORM_DIR,
    FORM_BINDING, /* NAME=, then a path */
    FORM_PROGRAM,
    FORM_PASS,
    FORM_PASSES,  /* separated by commas, perhaps none */
} FormKind;

typedef struct ValueForm {
    Str text; /* all of it */
    Str word; /* its beginning; may be empty */
    Str name; /* its end; empty of a word alone */
    FormKind kind;
} ValueForm;

/* Form i of an argument; false beyond the last. */
bool value_form(const char *argument, size_t i, ValueForm *out);
bool value_fits(const char *argument, const char *value);
/* The number of the form that is the word `value`, which fits. */
int value_word(const char *argument, const char *value);
/* "exe, obj or PASS", and what a PASS may be: for messages. */
void value_describe(const char *argument, Text *t);
/* The words that complete a value, each behind `before` and followed by `after`: words, and words with a pass in the
 * place of its name. False when there is none. */
bool value_words(const char *argument, const char *before, const char *after, Text *t);

/* ---- describe ---------------------------------------------------------------------------------------- */

void print_bash(Text *t);
void print_zsh(Text *t);
void print_fish(Text *t);
void print_man(Text *t);

#endif
