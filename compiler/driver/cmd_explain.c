/* moec explain: what a diagnostic's code or a status of the runtime means, from diag.def and status.def. */
#include "driver.h"

#include "../../runtime/jsonl.h"
#include "../../runtime/moec_rt.h"
#include "../../runtime/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS = 80 };

typedef struct Explanation {
    int number; /* of a diagnostic, or a status */
    const char *name; /* of a status */
    const char *summary, *means, *remedy, *wrong, *right;
} Explanation;

static const Explanation kinds[] = {
#define DIAG(number, name, summary, means, remedy, wrong, right) \
    {number, NULL, summary, means, remedy, wrong, right},
#include "../diag.def"
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const struct {
    int first;
    const char *title;
} groups[] = {
#define DIAG_GROUP(first, title) {first, title},
#include "../diag.def"
};
enum { N_GROUPS = sizeof groups / sizeof *groups };

static const Explanation statuses[] = {
#define STATUS(name, means, remedy, wrong, right) {name, #name, NULL, means, remedy, wrong, right},
#include "status.def"
};
enum { N_STATUSES = sizeof statuses / sizeof *statuses };
_Static_assert(N_STATUSES == MOEC_E_STATUS_COUNT - 1, "status.def has every status but MOEC_OK");

static void show_name(const Explanation *x, const char *behind)
{
    if (x->name)
        printf("%s%s%s\n", x->name, behind, moec_status_text((moec_status)x->number));
    else
        printf(DIAG_CODE "%s%s\n", x->number, behind, x->summary);
}

static void show_paragraph(const char *text)
{
    for (int column = 0; *text;) {
        int n = (int)strcspn(text, " ");
        if (column > 0 && column + 1 + n > COLUMNS) {
            putchar('\n');
            column = 0;
        }
        column += printf("%s%.*s", column > 0 ? " " : "", n, text);
        text += n;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void show_example(const char *title, const char *text)
{
    printf("\n%s\n", title);
    while (*text) {
        int n = (int)strcspn(text, "\n");
        printf("    %.*s\n", n, text);
        text += n + (text[n] == '\n');
    }
}

static void show(const Explanation *x)
{
    show_name(x, ": ");
    putchar('\n');
    show_paragraph(x->means);
    putchar('\n');
    show_paragraph(x->remedy);
    show_example("Wrong:", x->wrong);
    show_example("Right:", x->right);
}

static void show_list(void)
{
    size_t k = 0;
    for (size_t g = 0; g < N_GROUPS; g++) {
        printf("%s%s\n", g ? "\n" : "", groups[g].title);
        for (; k < N_KINDS && (g + 1 == N_GROUPS || kinds[k].number < groups[g + 1].first); k++)
            show_name(&kinds[k], "  ");
    }
    printf("\nstatuses of the runtime\n");
    for (size_t i = 0; i < N_STATUSES; i++)
        show_name(&statuses[i], "  ");
}

typedef enum LimitUnit { COUNT, BYTES } LimitUnit;

static const struct {
    int64_t value;
    LimitUnit unit;
    const char *of, *what;
} limits[] = {
#define LIMIT(name, value, unit, of, what) {value, unit, of, what},
#define LIMIT_STATED(value, unit, of, what) {value, unit, of, what},
#include "../limits.def"
};

/* Thousands apart; powers of 1024 of bytes by their names; what has no other name as a power of two. */
static void show_limit(int64_t value, LimitUnit unit)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB"};
    char digits[32];
    int power = 0, n;
    if (value >= (int64_t)1 << 40) {
        while (value >> power > 1)
            power++;
        printf("2^%d", power);
        return;
    }
    for (; unit == BYTES && power < 3 && value % 1024 == 0; power++)
        value /= 1024;
    n = snprintf(digits, sizeof digits, "%lld", (long long)value);
    for (int i = 0; i < n; i++)
        printf("%s%c", i > 0 && (n - i) % 3 == 0 ? "," : "", digits[i]);
    printf("%s%s", unit == BYTES ? " " : "", unit == BYTES ? units[power] : "");
}

/* As a table of Markdown, which compiler/README.md has. */
static void show_limits(void)
{
    printf("| of | limit | what |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        printf("| %s | ", limits[i].of);
        show_limit(limits[i].value, limits[i].unit);
        printf(" | %s |\n", limits[i].what);
    }
}

/* M0204, m0204, 0204 or 204; or a status by its name. */
static const Explanation *find(const char *text)
{
    for (size_t i = 0; i < N_STATUSES; i++)
        if (!strcasecmp(text, statuses[i].name))
            return &statuses[i];
    text += *text == 'M' || *text == 'm';
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 4)
        return NULL;
    int number = atoi(text);
    for (size_t i = 0; i < N_KINDS; i++)
        if (kinds[i].number == number)
            return &kinds[i];
    return NULL;
}

int cmd_explain(const Options *o)
{
    if (o->list) {
        show_list();
        return EXIT_DONE;
    }
    if (strcmp(o->model, "limits") == 0) {
        show_limits();
        return EXIT_DONE;
    }
    const Explanation *x = find(o->model);
    if (!x)
        return usage_error(o, DIAG_USAGE_ARGUMENT, "there is no code '%s': `moec explain --list` has them all",
                           o->model);
    show(x);
    return EXIT_DONE;
}
