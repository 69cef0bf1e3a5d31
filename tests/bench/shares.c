/* Where the time of a compiled model goes, by what its kernels are: the fastest of some runs under the
 * profile.
 *
 * A kernel is known by its name (kN_WORDS_N, made of the site or op it begins with) and by the ONNX node or
 * adapter site it comes from. In training, what runs behind the loss is the backward pass. */
#include "bench.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first row that fits; a kernel that fits none is "other". */
static const struct {
    const char *name, *origin; /* patterns; NULL: any */
    const char *group;
} groups[] = {
    {"*_cross_entropy*", NULL, "loss"},
    {"*_attention_*", NULL, "attention"},
    {"*_argmax_*", NULL, "head"},
    {NULL, "*lm_head*", "head"},
    {"*_cross_[kv]_*", NULL, "cross k, v"},
    {"*_cross_q_*", NULL, "cross q"},
    {"*_self_[qkv]_*", NULL, "q, k, v"},
    {"*_self_o_*", NULL, "o"},
    {"*_cross_o_*", NULL, "o"},
    {"*_ffn_*", NULL, "ffn"},
    {NULL, "adapter: *", "adapter"},
    {NULL, "*EncDecAttention/[kv]/*", "cross k, v"},
    {NULL, "*EncDecAttention/q/*", "cross q"},
    {NULL, "*SelfAttention/[qkv]/*", "q, k, v"},
    {NULL, "*Attention/o/*", "o"},
    {NULL, "*DenseReluDense*", "ffn"},
    {"*_gather_*", NULL, "embedding"},
    {NULL, "*layer_norm*", "norm and what is with it"},
    {"*_prepare*", NULL, "prepare"},
};

static const char *group_of(const moec_profile_row *r) {
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if ((!groups[i].name || fnmatch(groups[i].name, r->kernel, 0) == 0) &&
            (!groups[i].origin || fnmatch(groups[i].origin, r->origin, 0) == 0))
            return groups[i].group;
    return "other";
}

/* ---- rows put together --------------------------------------------------------------------------------- */

typedef struct Share {
    const char *label, *origin;
    bool backward;
    double seconds, calls, flops, bytes;
} Share;

struct Profile {
    const Model *m;
    const char *function;
    moec_profile_row *row; /* of the function */
    bool *backward;
    uint32_t n;
    double seconds;
};

/* A row of the function, or of the one that does the same without padding. */
static bool is_of(const moec_profile_row *r, const char *function) {
    size_t n = strlen(function);
    return strncmp(r->function, function, n) == 0 && (!r->function[n] || strcmp(r->function + n, "_packed") == 0);
}

/* What was measured of the function; of p, all but its rows. */
static void take_rows(Profile *p) {
    bool loss = false;
    p->n = 0;
    for (uint32_t i = 0; i < p->m->profile_rows(p->m->program); i++) {
        moec_profile_row r;
        bench_check(p->m->profile_read(p->m->instance, i, &r), "profile");
        if (!r.calls || !is_of(&r, p->function))
            continue;
        p->backward[p->n] = loss;
        loss = loss || fnmatch("*_cross_entropy_[0-9]*", r.kernel, 0) == 0;
        p->row[p->n++] = r;
    }
}

static double measured(const Model *m, const char *function) {
    double seconds = 0;
    for (uint32_t i = 0; i < m->profile_rows(m->program); i++) {
        moec_profile_row r;
        bench_check(m->profile_read(m->instance, i, &r), "profile");
        seconds += is_of(&r, function) ? (double)r.nanoseconds * 1e-9 : 0;
    }
    return seconds;
}

Profile *profile_open(const Model *m, const Run *run, const char *function) {
    enum { ATTEMPTS = 3 };
    uint32_t rows = m->profile_rows(m->program);
    Profile *p = bench_room(1, sizeof *p);
    *p = (Profile){.m = m, .function = function, .seconds = 1e300};
    p->row = bench_room(rows + 1, sizeof *p->row);
    p->backward = bench_room(rows + 1, sizeof *p->backward);
    if (!rows)
        bench_fail("%s: compiled without --profile", m->name);
    for (int i = 0; i < ATTEMPTS; i++) {
        bench_check(m->profile_start(m->instance), "profile");
        run->once(run->context);
        m->profile_stop(m->instance);
        double seconds = measured(m, function);
        if (seconds < p->seconds) {
            p->seconds = seconds;
            take_rows(p);
        }
    }
    return p;
}

void profile_close(Profile *p) {
    free(p->row);
    free(p->backward);
    free(p);
}

static Share share_of(const moec_profile_row *r, bool backward, bool each) {
    return (Share){.label = each ? r->kernel : group_of(r),
                   .origin = r->origin,
                   .backward = backward,
                   .seconds = (double)r->nanoseconds * 1e-9,
                   .calls = (double)r->calls,
                   .flops = r->flops,
                   .bytes = r->bytes};
}

static void share_add(Share *share, int *n, Share s) {
    int k = 0;
    while (k < *n && (share[k].backward != s.backward || strcmp(share[k].label, s.label) != 0))
        k++;
    if (k == *n)
        share[(*n)++] = (Share){.label = s.label, .origin = s.origin, .backward = s.backward};
    share[k].seconds += s.seconds;
    share[k].calls += s.calls;
    share[k].flops += s.flops;
    share[k].bytes += s.bytes;
}

static int by_time(const void *a, const void *b) {
    double x = ((const Share *)a)->seconds, y = ((const Share *)b)->seconds;
    return x > y ? -1 : x < y;
}

/* ---- tables
 * ------------------------------------------------------------------------------------------------ */

static void print_share(const Share *s, const Profile *p, LimitKind kind, double limit, bool each) {
    char label[96];
    double amount = kind == LIMIT_FMA ? s->flops : s->bytes;
    snprintf(label, sizeof label, "%s%s", s->label, s->backward ? ", backward" : "");
    printf("    %-36s %11.3f %6.1f%% %7.0f %9.2f %9.2f %6.1f%%", label, s->seconds * 1e3,
           100 * s->seconds / p->seconds, s->calls, s->flops / s->seconds / 1e9, s->bytes / s->seconds / 1e9,
           100 * amount / s->seconds / limit);
    printf(each ? "  %s\n" : "\n", s->origin);
}

static void print_table(const Profile *p, LimitKind kind, double limit, bool each) {
    Share *share = bench_room(p->n + 1, sizeof *share);
    int n = 0;
    for (uint32_t i = 0; i < p->n; i++)
        if (p->row[i].calls)
            share_add(share, &n, share_of(&p->row[i], p->backward[i], each));
    qsort(share, (size_t)n, sizeof *share, by_time);
    printf("    %-36s %11s %7s %7s %9s %9s %7s%s\n", each ? "kernel" : "group", "time ms", "share", "calls",
           "GFLOP/s", "GB/s", "ratio", each ? "  origin" : "");
    for (int i = 0; i < n; i++)
        print_share(&share[i], p, kind, limit, each);
    free(share);
}

void profile_print(const Profile *p, LimitKind kind, double limit, SharesKind shares) {
    double flops = 0;
    if (shares == SHARES_NONE)
        return;
    for (uint32_t i = 0; i < p->n; i++)
        flops += p->row[i].flops;
    printf("  %s: kernels of %s take %.3f ms, %.6g GFLOP counted by kernel\n", p->m->name, p->function,
           p->seconds * 1e3, flops / 1e9);
    print_table(p, kind, limit, false);
    if (shares == SHARES_KERNELS)
        print_table(p, kind, limit, true);
    fflush(stdout);
}

void profile_passes(const Profile *p, double part[2]) {
    part[0] = part[1] = 0;
    for (uint32_t i = 0; i < p->n; i++)
        part[p->backward[i]] += (double)p->row[i].nanoseconds * 1e-9 / p->seconds;
}
