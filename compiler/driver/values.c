/* What may stand for an argument: the grammar of options.h. */
#include "options.h"

#include <ctype.h>
#include <string.h>

/* Names of a meaning; others stand for any text. */
static const struct {
    const char *name;
    FormKind kind;
} value_names[] = {
    {"FILE", FORM_PATH},        {"FILE.ir", FORM_PATH},     {"PATH", FORM_PATH},
    {"MODEL", FORM_PATH},       {"MODEL MODEL", FORM_PATH}, {"ADAPTER", FORM_PATH},
    {"DIR", FORM_DIR},          {"PEFT_DIR...", FORM_DIR},  {"PROGRAM", FORM_PROGRAM},
    {"NAME=FILE", FORM_BINDING}, {"PASS", FORM_PASS},       {"PASS,...", FORM_PASSES},
};

static FormKind name_kind(Str name)
{
    for (size_t i = 0; i < sizeof value_names / sizeof *value_names; i++)
        if (str_is(name, value_names[i].name))
            return value_names[i].kind;
    return FORM_ANY;
}

bool value_form(const char *argument, size_t i, ValueForm *out)
{
    for (; i; i--) {
        argument = strchr(argument, '|');
        if (!argument)
            return false;
        argument++;
    }
    size_t n = strcspn(argument, "|"), word = 0;
    while (word < n && !isupper((unsigned char)argument[word]))
        word++;
    *out = (ValueForm){.text = {argument, n}, .word = {argument, word}, .name = {argument + word, n - word}};
    out->kind = word == n ? FORM_WORD : name_kind(out->name);
    return true;
}

static bool are_passes(const char *list)
{
    PassId p;
    while (*list) {
        size_t n = strcspn(list, ",");
        if (!pass_find((Str){list, n}, &p))
            return false;
        list += n + (list[n] == ',');
    }
    return true;
}

static bool form_fits(const ValueForm *f, const char *value)
{
    PassId p;
    if (strncmp(value, f->word.p, f->word.n) != 0)
        return false;
    value += f->word.n;
    return f->kind == FORM_WORD     ? !*value
           : f->kind == FORM_PASS   ? pass_find(str_c(value), &p)
           : f->kind == FORM_PASSES ? are_passes(value)
                                     : true;
}

bool value_fits(const char *argument, const char *value)
{
    ValueForm f;
    for (size_t i = 0; value_form(argument, i, &f); i++)
        if (form_fits(&f, value))
            return true;
    return false;
}

int value_word(const char *argument, const char *value)
{
    ValueForm f;
    for (int i = 0; value_form(argument, (size_t)i, &f); i++)
        if (form_fits(&f, value))
            return i;
    BUG("'%s' is no word of %s", value, argument);
}

void value_describe(const char *argument, Text *t)
{
    ValueForm f, next;
    bool passes = false;
    for (size_t i = 0; value_form(argument, i, &f); i++) {
        passes |= f.kind == FORM_PASS || f.kind == FORM_PASSES;
        text_printf(t, "%s", !i ? "" : value_form(argument, i + 1, &next) ? ", " : " or ");
        text_str(t, f.text);
    }
    for (int p = 0; passes && p < PASS_COUNT; p++)
        text_printf(t, "%s%s", !p ? " (passes: " : ", ", pass_name((PassId)p));
    text_printf(t, passes ? ")" : "");
}

bool value_words(const char *argument, const char *before, const char *after, Text *t)
{
    ValueForm f;
    bool any = false;
    for (size_t i = 0; value_form(argument, i, &f); i++) {
        bool passes = f.kind == FORM_PASS || f.kind == FORM_PASSES;
        any |= passes || f.kind == FORM_WORD;
        if (f.kind == FORM_WORD)
            text_printf(t, "%s%.*s%s", before, (int)f.word.n, f.word.p, after);
        for (int p = 0; passes && p < PASS_COUNT; p++)
            text_printf(t, "%s%.*s%s%s", before, (int)f.word.n, f.word.p, pass_name((PassId)p), after);
    }
    return any;
}
