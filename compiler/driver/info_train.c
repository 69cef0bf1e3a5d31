/* moec info --train: the memory that training takes at the model's bounds, before anything is built. */
#include "memory.h"

#include <inttypes.h>

static void line(Text *t, const char *what, int64_t bytes, const char *note) {
    text_printf(t, "  %-16s %12.1f MiB  %s\n", what, (double)bytes / (1 << 20), note);
}

static void print_plan(const Memory *x, Text *t) {
    text_printf(t, "\nmemory of training at the bounds");
    for (uint32_t i = 0; i < x->n_bounds; i++)
        text_printf(t, " %.*s=%" PRId64, (int)x->bound[i].name.n, x->bound[i].name.p, x->bound[i].hi);
    text_printf(t, ", %" PRId64 " threads (--dim sets the bounds)\n", x->threads);
    for (int i = 0; i < MEMORY_PARTS; i++)
        line(t, memory_part_name(i), x->part[i], memory_part_note(i));
    line(t, "total", memory_total(x), "besides program and libraries");
}

bool info_train(const Options *o, Text *t, Diag *d) {
    Model model;
    Build b = {0};
    Memory memory;
    bool ok = model_load(o, &model, d) && model_passes(&model, o, NULL, NULL, 0, d) &&
              build_open(&b, o, &model, "model", d) && build_program(&b) && memory_read(&b, &memory, d);
    if (ok && o->train)
        print_plan(&memory, t);
    ok = ok && reports_write(o, &model, &b, d);
    build_close(&b);
    model_close(&model);
    return ok;
}
