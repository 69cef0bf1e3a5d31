/* Metrics of evaluation. A token of a generation counts as right when it stands in the reference's place;
 * what was not made is wrong, what was made too much does not count there, but is no exact match. */
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

/* ---- single examples ---- */

int64_t moec_rank(const double *score, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (score[i] == score[i] && (best < 0 || score[i] > score[best]))
            best = i;
    return best;
}

int64_t moec_body(const int64_t *reference, int64_t n, int64_t eos) {
    return n > 0 && reference[n - 1] == eos ? n - 1 : n;
}

static int is_hit(const moec_made *m, int64_t i, int64_t wanted, int64_t eos) {
    return i < m->n ? m->token[i] == wanted : i == m->n && m->ended && wanted == eos;
}

int moec_exact(const moec_made *m, const int64_t *reference, int64_t n, int64_t eos) {
    int64_t body = moec_body(reference, n, eos);
    if (!m->ended || m->n != body)
        return 0;
    for (int64_t i = 0; i < body; i++)
        if (reference[i] != MOEC_IGNORED && m->token[i] != reference[i])
            return 0;
    return 1;
}

int64_t moec_token_hits(const moec_made *m, const int64_t *reference, int64_t n, int64_t eos, int64_t *of) {
    int64_t hits = 0;
    *of = 0;
    for (int64_t i = 0; i < n; i++)
        if (reference[i] != MOEC_IGNORED) {
            ++*of;
            hits += is_hit(m, i, reference[i], eos);
        }
    return hits;
}

static int is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim(const char **s, size_t *n) {
    while (*n > 0 && is_blank(**s))
        ++*s, --*n;
    while (*n > 0 && is_blank((*s)[*n - 1]))
        --*n;
}

int moec_same_text(const char *a, size_t n, const char *b, size_t m) {
    trim(&a, &n);
    trim(&b, &m);
    return n == m && (n == 0 || !memcmp(a, b, n));
}

/* ---- averages ---- */

double moec_mean(const double *v, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    return n ? sum / (double)n : 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double moec_median(double *v, size_t n) {
    if (!n)
        return 0;
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ---- counters ---- */

/* Room for one more group and one more task. */
static int tally_grow(moec_tally *t) {
    if (t->groups == t->group_room) {
        size_t room = t->group_room ? t->group_room * 2 : 16;
        moec_group *group = moec_mem_grow(t->group, room * sizeof *group);
        if (!group)
            return 0;
        t->group = group;
        t->group_room = room;
    }
    if (t->task.count == t->task_room) {
        size_t room = t->task_room ? t->task_room * 2 : 16;
        size_t *first = moec_mem_grow(t->first, room * sizeof *first);
        t->first = first ? first : t->first;
        size_t *last = moec_mem_grow(t->last, room * sizeof *last);
        t->last = last ? last : t->last;
        if (!first || !last)
            return 0;
        memset(first + t->task_room, 0, (room - t->task_room) * sizeof *first);
        t->task_room = room;
    }
    return 1;
}

moec_group *moec_tally_at(moec_tally *t, const char *task, size_t task_n, const char *prompt,
                          size_t prompt_n) {
    size_t name[2], at; /* task, prompt */
    if (!tally_grow(t) || !moec_names_add(&t->task, task, task_n, &name[0]) ||
        !moec_names_add(&t->prompt, prompt, prompt_n, &name[1]) ||
        !moec_names_add(&t->key, name, sizeof name, &at) || at >= MOEC_TALLY_GROUPS)
        return NULL;
    if (at == t->groups) {
        t->group[t->groups++] = (moec_group){.task = name[0], .prompt = name[1]};
        if (t->first[name[0]])
            t->group[t->last[name[0]] - 1].next = at + 1;
        else
            t->first[name[0]] = at + 1;
        t->last[name[0]] = at + 1;
    }
    return &t->group[at];
}

void moec_tally_free(moec_tally *t) {
    moec_names_free(&t->task);
    moec_names_free(&t->prompt);
    moec_names_free(&t->key);
    moec_mem_free(t->group);
    moec_mem_free(t->first);
    moec_mem_free(t->last);
    *t = (moec_tally){0};
}

double moec_accuracy(const moec_group *g) {
    return g->examples ? (double)g->right / (double)g->examples : 0;
}

static void add(moec_group *sum, const moec_group *g) {
    sum->examples += g->examples;
    sum->right += g->right;
    sum->tokens += g->tokens;
    sum->right_tokens += g->right_tokens;
    sum->loss += g->loss;
}

moec_summary moec_tally_task(const moec_tally *t, size_t task, double *room) {
    moec_summary s = {.sum = {.task = task}};
    for (size_t g = t->first[task]; g; g = t->group[g - 1].next) {
        add(&s.sum, &t->group[g - 1]);
        room[s.members++] = moec_accuracy(&t->group[g - 1]);
    }
    s.mean = moec_mean(room, s.members);
    s.median = moec_median(room, s.members);
    return s;
}

moec_summary moec_tally_all(const moec_tally *t, double *room) {
    moec_summary s = {.members = t->task.count};
    for (size_t i = 0; i < t->task.count; i++) {
        moec_summary one = moec_tally_task(t, i, room);
        add(&s.sum, &one.sum);
        s.median += one.median;
        s.mean += one.mean;
    }
    s.median /= s.members ? (double)s.members : 1;
    s.mean /= s.members ? (double)s.members : 1;
    return s;
}
