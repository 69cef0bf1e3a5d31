/* --memory-report as text. */
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void line(Text *t, const char *what, int64_t bytes, const char *note) {
    text_printf(t, "  %-16s %16" PRId64 " %10.1f MiB  %s\n", what, bytes, (double)bytes / (1 << 20), note);
}

void memory_order(const Plan *p, uint32_t *order) {
    for (uint32_t i = 0; i < p->n_items; i++) {
        uint32_t at = i;
        for (; at > 0 && p->item[order[at - 1]].first > p->item[i].first; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static void print_func(const Memory *x, const MemoryFunc *f, Text *t) {
    const Plan *p = &f->plan;
    Arena *a = arena_new();
    uint32_t *order = arena_array(a, p->n_items + 1, sizeof *order);
    memory_order(p, order);
    text_printf(t, "\nfunction ");
    text_shown(t, f->f->name);
    text_printf(t, ": %u steps, arena %" PRId64 " bytes\n", f->f->n_nodes, p->bytes);
    if (p->n_items) {
        text_printf(t, "  %" PRId64 " bytes alive at once, %.1f%% of the arena, at step %u (*), ", p->peak,
                    100.0 * (double)p->peak / (double)p->bytes, p->worst);
        text_shown(t, memory_node_place(x, &f->f->node[p->worst]));
        text_printf(t, "; %" PRId64 " bytes without sharing\n", p->sum);
    }
    text_printf(t,
                "  of the caller: %" PRId64 " bytes of inputs, %" PRId64 " of outputs, %" PRId64
                " of caches that grow in place\n",
                f->inputs, f->outputs, f->caches);
    if (p->n_items)
        text_printf(t, "    %14s %14s  %-11s  %-26s  value\n", "offset", "bytes", "steps", "kind");
    for (uint32_t i = 0; i < p->n_items; i++) {
        const PlanItem *v = &p->item[order[i]];
        char *steps = arena_printf(a, "%u..%u", v->first, v->last);
        text_printf(t, "  %c %14" PRId64 " %14" PRId64 "  %-11s  %-26s  %%", memory_at_peak(p, v) ? '*' : ' ',
                    v->offset, v->bytes, steps, memory_kind_name(f->kind[order[i]]));
        text_shown(t, memory_value_name(a, f->f, v->value));
        text_printf(t, " : ");
        Text type = {0};
        type_print(x->m, &f->f->value[v->value].type, &type);
        text_shown(t, (Str){type.p, type.n});
        text_free(&type);
        text_printf(t, "  ");
        text_shown(t, memory_value_place(x, f->f, v->value));
        text_printf(t, "\n");
    }
    arena_free(a);
}

void memory_bounds(const Memory *x, Text *t) {
    for (uint32_t i = 0; i < x->n_bounds; i++) {
        text_printf(t, " ");
        text_shown(t, x->bound[i].name);
        text_printf(t, "=%" PRId64, x->bound[i].hi);
    }
}

void memory_text(const Memory *x, Text *t) {
    text_printf(t, "memory at the bounds");
    memory_bounds(x, t);
    text_printf(t, "\n");
    line(t, "weights", x->part[MEMORY_weights], memory_part_note(MEMORY_weights));
    if (x->part[MEMORY_adapter]) {
        line(t, "adapter", x->adapter_bytes, "loaded with the weights, or another in its place");
        line(t, "derived", x->derived_bytes, "computed of it when it is loaded");
    }
    for (int i = MEMORY_gradients; i <= MEMORY_optimiser; i++)
        if (x->part[i])
            line(t, memory_part_name(i), x->part[i], memory_part_note(i));
    line(t, "arena", x->part[MEMORY_activations],
         "one for all functions, the largest counts (of training: train)");
    line(t, "scratch", x->scratch_bytes, "a thread");
    for (uint32_t i = 0; i < x->n_funcs; i++)
        print_func(x, &x->func[i], t);
}
