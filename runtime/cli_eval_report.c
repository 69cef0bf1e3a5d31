/* Results of eval as an aligned table and as JSON. Names of tasks and prompts come from files: the table
 * shows them as printable ASCII, JSON holds them escaped to ASCII. */
#include "cli_eval.h"

#include <stdio.h>
#include <string.h>

/* ---- table ---- */

static const char *shown(char *to, const moec_names *names, size_t number) {
    size_t n;
    const char *p = moec_names_get(names, number, &n);
    return n ? moec_show(to, p, n) : "-";
}

static int widest(const moec_names *names, int least) {
    char text[MOEC_SHOW];
    for (size_t i = 0; i < names->count; i++) {
        int n = (int)strlen(shown(text, names, i));
        least = n > least ? n : least;
    }
    return least;
}

/* A task's name stands in its first line only. */
static void choices_line(int w, int v, const char *task, const char *what, int64_t examples,
                         double accuracy) {
    printf("%-*s  %-*s  %8lld  %8.4f\n", w, task, v, what, (long long)examples, accuracy);
}

static void choices_table(const moec_tally *t, double *room) {
    char task[MOEC_SHOW], prompt[MOEC_SHOW];
    int w = widest(&t->task, 4), v = widest(&t->prompt, 15);
    printf("%-*s  %-*s  %8s  %8s\n", w, "task", v, "prompt", "examples", "accuracy");
    for (size_t i = 0; i < t->task.count; i++) {
        moec_summary s = moec_tally_task(t, i, room);
        const char *name = shown(task, &t->task, i);
        for (size_t g = t->first[i]; g; g = t->group[g - 1].next, name = "")
            choices_line(w, v, name, shown(prompt, &t->prompt, t->group[g - 1].prompt),
                         t->group[g - 1].examples, moec_accuracy(&t->group[g - 1]));
        choices_line(w, v, "", "median", s.sum.examples, s.median);
        choices_line(w, v, "", "mean", s.sum.examples, s.mean);
    }
    moec_summary all = moec_tally_all(t, room);
    choices_line(w, v, "all", "mean of medians", all.sum.examples, all.median);
    choices_line(w, v, "", "mean of means", all.sum.examples, all.mean);
}

static double per(double a, int64_t b) {
    return b ? a / (double)b : 0;
}

static void pairs_line(int w, const char *task, const moec_group *g, int generated) {
    printf("%-*s  %8lld  %8lld  %8.4f", w, task, (long long)g->examples, (long long)g->tokens,
           per(g->loss, g->tokens));
    if (generated)
        printf("  %11.4f  %14.4f", moec_accuracy(g), per((double)g->right_tokens, g->tokens));
    printf("\n");
}

static void pairs_table(const moec_tally *t, double *room, int generated) {
    char task[MOEC_SHOW];
    int w = widest(&t->task, 4);
    printf("%-*s  %8s  %8s  %8s", w, "task", "examples", "tokens", "loss");
    printf(generated ? "  %11s  %14s\n" : "\n", "exact match", "token accuracy");
    for (size_t i = 0; i < t->task.count; i++) {
        moec_summary s = moec_tally_task(t, i, room);
        pairs_line(w, shown(task, &t->task, i), &s.sum, generated);
    }
    moec_summary all = moec_tally_all(t, room);
    pairs_line(w, "all", &all.sum, generated);
}

/* ---- JSON ---- */

static unsigned code_point(const unsigned char *p, size_t n) {
    static const unsigned char lead[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    unsigned c = p[0] & lead[n];
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 63);
    return c;
}

/* s is UTF-8: it was read from JSON. */
static void put_string(moec_chars *t, const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    moec_chars_put(t, "\"");
    for (size_t i = 0, k; i < n; i += k) {
        k = moec_utf8_length(p + i, n - i);
        unsigned c = k ? code_point(p + i, k) : 0xFFFD;
        k = k ? k : 1;
        if (c >= 0x10000)
            moec_chars_put(t, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                           0xDC00 + ((c - 0x10000) & 0x3FF));
        else if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            moec_chars_put(t, "\\u%04x", c);
        else
            moec_chars_put(t, "%c", (int)c);
    }
    moec_chars_put(t, "\"");
}

static void put_name(moec_chars *t, const moec_names *names, size_t number) {
    size_t n;
    const char *p = moec_names_get(names, number, &n);
    put_string(t, p, n);
}

/* A number, or null where there is none. */
static void put_real(moec_chars *t, const char *key, double v) {
    if (v - v == 0)
        moec_chars_put(t, ", \"%s\": %.9g", key, v);
    else
        moec_chars_put(t, ", \"%s\": null", key);
}

static void put_counts(moec_chars *t, const moec_group *g) {
    moec_chars_put(t, "\"examples\": %lld, \"correct\": %lld", (long long)g->examples, (long long)g->right);
    put_real(t, "accuracy", moec_accuracy(g));
}

static void choices_json(moec_chars *t, const moec_tally *y, double *room) {
    moec_summary all = moec_tally_all(y, room);
    moec_chars_put(t, ",\n  \"choices\": {");
    put_counts(t, &all.sum);
    put_real(t, "mean_of_medians", all.median);
    put_real(t, "mean_of_means", all.mean);
    moec_chars_put(t, ", \"tasks\": [");
    for (size_t i = 0; i < y->task.count; i++) {
        moec_summary s = moec_tally_task(y, i, room);
        moec_chars_put(t, i ? ",\n    {\"task\": " : "\n    {\"task\": ");
        put_name(t, &y->task, i);
        moec_chars_put(t, ", ");
        put_counts(t, &s.sum);
        put_real(t, "median", s.median);
        put_real(t, "mean", s.mean);
        moec_chars_put(t, ", \"prompts\": [");
        for (size_t g = y->first[i]; g; g = y->group[g - 1].next) {
            moec_chars_put(t, g == y->first[i] ? "\n      {\"prompt\": " : ",\n      {\"prompt\": ");
            put_name(t, &y->prompt, y->group[g - 1].prompt);
            moec_chars_put(t, ", ");
            put_counts(t, &y->group[g - 1]);
            moec_chars_put(t, "}");
        }
        moec_chars_put(t, "]}");
    }
    moec_chars_put(t, "]}");
}

static void put_pairs(moec_chars *t, const moec_group *g, int generated) {
    moec_chars_put(t, "\"examples\": %lld, \"tokens\": %lld", (long long)g->examples, (long long)g->tokens);
    put_real(t, "loss", per(g->loss, g->tokens));
    if (!generated)
        return;
    put_real(t, "exact_match", moec_accuracy(g));
    put_real(t, "token_accuracy", per((double)g->right_tokens, g->tokens));
}

static void pairs_json(moec_chars *t, const moec_tally *y, double *room, int generated) {
    moec_summary all = moec_tally_all(y, room);
    moec_chars_put(t, ",\n  \"pairs\": {");
    put_pairs(t, &all.sum, generated);
    moec_chars_put(t, ", \"tasks\": [");
    for (size_t i = 0; i < y->task.count; i++) {
        moec_summary s = moec_tally_task(y, i, room);
        moec_chars_put(t, i ? ",\n    {\"task\": " : "\n    {\"task\": ");
        put_name(t, &y->task, i);
        moec_chars_put(t, ", ");
        put_pairs(t, &s.sum, generated);
        moec_chars_put(t, "}");
    }
    moec_chars_put(t, "]}");
}

/* ---- both ---- */

static int report(moec_cli *c, const moec_eval *e, const moec_eval_options *o, moec_output *file,
                  double *room, moec_chars *t) {
    int to_stdout = c->o.json && !file, generated = !o->loss_only;
    if (c->o.json) {
        moec_chars_put(t, "{\n  \"normalize\": \"%s\", \"skipped\": %lld",
                       o->normalize == MOEC_NORMALIZE_LENGTH ? "length" : "none", (long long)e->skipped);
        if (e->choices.groups)
            choices_json(t, &e->choices, room);
        if (e->pairs.groups)
            pairs_json(t, &e->pairs, room, generated);
        moec_chars_put(t, "\n}\n");
        if (t->failed)
            return moec_cli_no_memory(c);
    }
    if (to_stdout) {
        fwrite(t->p, 1, t->n, stdout);
        return EXIT_DONE;
    }
    if (e->choices.groups)
        choices_table(&e->choices, room);
    if (e->choices.groups && e->pairs.groups)
        printf("\n");
    if (e->pairs.groups)
        pairs_table(&e->pairs, room, generated);
    return file ? moec_cli_status(c, moec_output_write(file, t->p, t->n, moec_cli_sink(c))) : EXIT_DONE;
}

int moec_eval_report(moec_cli *c, const moec_eval *e, const moec_eval_options *o, moec_output *file) {
    size_t groups = e->choices.groups > e->pairs.groups ? e->choices.groups : e->pairs.groups;
    double *room = moec_mem_new(groups, sizeof *room);
    moec_chars t = {0};
    int code = room ? report(c, e, o, file, room, &t) : moec_cli_no_memory(c);
    moec_mem_free(room);
    moec_mem_free(t.p);
    return code;
}
