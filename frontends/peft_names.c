/* Names of sites and of the library's modules, both ways, and the table of what became of tensors.
 *
 * A name is read by its parts and has one spelling only: numbers are decimal, without sign or leading zero.
 */
#include "peft_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>


static const char *const stacks[] = {"encoder", "decoder"};
static const char *const blocks[PEFT_BLOCKS] = {"self", "cross", "ffn"};

/* The sub-layers of a stack's block. */
static const struct {
    uint8_t stack, block;
    char layer;
    const char *name;
} modules[] = {{0, 0, '0', "SelfAttention"},
               {0, 2, '1', "DenseReluDense"},
               {1, 0, '0', "SelfAttention"},
               {1, 1, '1', "EncDecAttention"},
               {1, 2, '2', "DenseReluDense"}};
enum { N_MODULES = sizeof modules / sizeof *modules, BLOCK_FFN = 2 };

static const struct {
    const char *name;
    bool ffn;
    SiteRole role;
    PeftFfn says;
} linears[] = {{"q", false, SR_Q, PF_UNKNOWN},    {"k", false, SR_K, PF_UNKNOWN},
               {"v", false, SR_V, PF_UNKNOWN},    {"o", false, SR_O, PF_UNKNOWN},
               {"wi_0", true, SR_WI, PF_GATED},   {"wi", true, SR_WI, PF_PLAIN},
               {"wi_1", true, SR_WI_1, PF_GATED}, {"wo", true, SR_WO, PF_UNKNOWN}};
enum { N_LINEARS = sizeof linears / sizeof *linears };

/* Takes the part up to the next dot, or the rest, off s. */
static Str part_take(Str *s) {
    const char *dot = s->n > 0 ? memchr(s->p, '.', s->n) : NULL;
    size_t n = dot != NULL ? (size_t)(dot - s->p) : s->n, used = dot != NULL ? n + 1 : n;
    Str part = {s->p, n};
    s->p += used;
    s->n -= used;
    return part;
}

static bool number_read(Str s, uint16_t *out) {
    uint32_t v = 0;
    if (s.n == 0 || s.n > 4 || (s.n > 1 && s.p[0] == '0'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        v = 10 * v + (uint32_t)(s.p[i] - '0');
    }
    *out = (uint16_t)v;
    return v < LIMIT_CONFIG_LAYERS;
}

static bool word_find(Str s, const char *const *words, int n, uint8_t *out) {
    for (int i = 0; i < n; i++) {
        if (str_is(s, words[i])) {
            *out = (uint8_t)i;
            return true;
        }
    }
    return false;
}

bool peft_module_parse(Str module, PeftPlace *out, PeftFfn *ffn) {
    *out = (PeftPlace){0};
    Str rest = module;
    if (!word_find(part_take(&rest), stacks, 2, &out->stack) || !str_is(part_take(&rest), "block") ||
        !number_read(part_take(&rest), &out->layer) || !str_is(part_take(&rest), "layer"))
        return false;
    Str layer = part_take(&rest), name = part_take(&rest);
    int m = 0, k = 0;
    while (m < N_MODULES && !(modules[m].stack == out->stack && layer.n == 1 &&
                              layer.p[0] == modules[m].layer && str_is(name, modules[m].name)))
        m++;
    if (m == N_MODULES)
        return false;
    out->block = modules[m].block;
    while (k < N_LINEARS && !(linears[k].ffn == (out->block == BLOCK_FFN) && str_is(rest, linears[k].name)))
        k++;
    if (k == N_LINEARS)
        return false;
    out->role = linears[k].role;
    *ffn = linears[k].says;
    return true;
}

const char *peft_linear_name(SiteRole role, PeftFfn ffn) {
    role = role == SR_ACT ? SR_WO : role; /* where IA3 puts its feed-forward vector */
    for (int i = 0; i < N_LINEARS; i++) {
        if (linears[i].role == role && (role != SR_WI || linears[i].says == ffn))
            return linears[i].name;
    }
    BUG("a linear of an unknown feed-forward block");
}

const char *peft_module_name(Arena *a, const PeftPlace *p, PeftFfn ffn) {
    for (int m = 0; m < N_MODULES; m++) {
        if (modules[m].stack == p->stack && modules[m].block == p->block)
            return arena_printf(a, "%s.block.%d.layer.%c.%s.%s", stacks[p->stack], p->layer, modules[m].layer,
                                modules[m].name, peft_linear_name(p->role, ffn));
    }
    BUG("a block that the stack has not");
}

bool peft_site_parse(Str site, PeftPlace *out) {
    *out = (PeftPlace){0};
    Str rest = site;
    if (!word_find(part_take(&rest), stacks, 2, &out->stack) || !number_read(part_take(&rest), &out->layer) ||
        !word_find(part_take(&rest), blocks, PEFT_BLOCKS, &out->block) || !site_role_parse(rest, &out->role))
        return false;
    return (out->role >= SR_WI) == (out->block == BLOCK_FFN) && (out->stack == 1 || out->block != 1);
}

const char *peft_site_name(Arena *a, const PeftPlace *p) {
    return arena_printf(a, "%s.%d.%s.%s", stacks[p->stack], p->layer, blocks[p->block],
                        site_role_name(p->role));
}

const char *peft_stack_name(const PeftPlace *p) {
    return stacks[p->stack];
}

const char *peft_block_name(const PeftPlace *p) {
    return blocks[p->block];
}

int peft_place_order(const PeftPlace *x, const PeftPlace *y) {
    int c = x->stack - y->stack;
    c = c != 0 ? c : x->layer - y->layer;
    c = c != 0 ? c : x->block - y->block;
    return c != 0 ? c : (int)x->role - (int)y->role;
}

/* ---- table -------------------------------------------------------------------------------------- */

void peft_table_add(PeftTable *t, const char *from, const char *to, const char *shape, const char *note) {
    if (t == NULL)
        return;
    t->row = vec_room(t->row, &t->room, t->n + 1, sizeof *t->row);
    t->row[t->n++] = (PeftRow){from, to, shape, note};
}

void peft_table_free(PeftTable *t) {
    mem_free(t->row);
    *t = (PeftTable){0};
}

void peft_table_print(const PeftTable *t, Text *out) {
    int from = 6, to = 2, shape = 5;
    for (size_t i = 0; i < t->n; i++) {
        const PeftRow *r = &t->row[i];
        from = (int)strlen(r->from) > from ? (int)strlen(r->from) : from;
        to = (int)strlen(r->to) > to ? (int)strlen(r->to) : to;
        shape = (int)strlen(r->shape) > shape ? (int)strlen(r->shape) : shape;
    }
    text_printf(out, "%-*s  %-*s  %-*s  note\n", from, "tensor", to, "to", shape, "shape");
    for (size_t i = 0; i < t->n; i++) {
        const PeftRow *r = &t->row[i];
        text_printf(out, "%-*s  %-*s  %-*s  %s\n", from, r->from[0] ? r->from : "-", to,
                    r->to[0] ? r->to : "-", shape, r->shape, r->note[0] ? r->note : "-");
    }
}

const char *peft_shape(Arena *a, int rank, const int64_t *dim) {
    Text t = {0};
    text_printf(&t, "[");
    for (int i = 0; i < rank; i++)
        text_printf(&t, "%s%" PRId64, i > 0 ? "," : "", dim[i]);
    text_printf(&t, "]");
    char *s = arena_strndup(a, t.p, t.n);
    text_free(&t);
    return s;
}
