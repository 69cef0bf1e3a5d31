/* --memory-report as one page that needs nothing else: a drawing for each function, time to the right, the
 * arena upwards, a rectangle a value; what a rectangle is shows under the pointer, a click leads to its row
 * in the table below. No script. All text of model files passes through `put_escaped`. */
#include "memory.h"

#include <inttypes.h>
#include <string.h>

enum { WIDTH = 1000, HEIGHT = 420, LEFT = 90, BOTTOM = 40, TOP = 12, RIGHT = 10 };

static void put_escaped(Text *t, Str s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '<' || c == '>' || c == '&' || c == '"' || c == '\'')
            text_printf(t, "&#%d;", c);
        else if (c >= 32 && c < 127)
            text_add(t, s.p + i, 1);
        else
            text_printf(t, "\\%03o", c);
    }
}

static void put_type(const Memory *x, const Func *f, ValueId v, Text *t) {
    Text type = {0};
    type_print(x->m, &f->value[v].type, &type);
    put_escaped(t, (Str){type.p, type.n});
    text_free(&type);
}

static void put_size(Text *t, int64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    text_printf(t, u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

static const char style_text[] =
    ":root{color-scheme:light dark;--ink:#1c1c1c;--paper:#fff;--faint:#777;--line:#d8d8d8;--mark:#fff3bf}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#17181a;--faint:#9a9a9a;--line:#3a3c40;--"
    "mark:#4a4320}}\n"
    "body{font:15px/1.45 "
    "system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1060px;margin:2em "
    "auto;padding:0 1em}\n"
    "h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2.2em;border-top:1px solid "
    "var(--line);padding-top:1em}\n"
    "svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--faint)}\n"
    "svg rect.v{stroke:var(--paper);stroke-width:.6}svg a:hover rect.v{stroke:var(--ink);stroke-width:1.6}\n"
    "svg text.on{fill:#fff;pointer-events:none}\n"
    ".axis{stroke:var(--faint);stroke-width:1}.tick{stroke:var(--line);stroke-width:1}\n"
    ".live{fill:none;stroke:var(--ink);stroke-width:1.4}.peak{stroke:var(--ink);stroke-width:1;stroke-"
    "dasharray:4 3}\n"
    "table{border-collapse:collapse;font-size:13px}th,td{text-align:left;padding:2px 10px 2px "
    "0;border-bottom:1px solid var(--line);vertical-align:top}\n"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.w{overflow-wrap:anywhere}tr:target{"
    "background:var(--mark)}\n"
    ".key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 .9em;vertical-align:-.05em}\n"
    "summary{cursor:pointer;margin:.6em 0}small{color:var(--faint)}\n";

static void put_style(Text *t) {
    text_printf(t, "<style>\n%s", style_text);
#define X(name, title, day, night) text_printf(t, ".k%d{fill:%s;background:%s}\n", KIND_##name, day, day);
    MEMORY_KIND_LIST(X)
#undef X
    text_printf(t, "@media(prefers-color-scheme:dark){\n");
#define X(name, title, day, night) text_printf(t, ".k%d{fill:%s;background:%s}\n", KIND_##name, night, night);
    MEMORY_KIND_LIST(X)
#undef X
    text_printf(t, "}\n</style>\n");
}

/* ---- the drawing ---------------------------------------------------------------------------------- */

static double at_x(const MemoryFunc *f, double step) {
    return LEFT + step * (WIDTH - LEFT - RIGHT) / (f->f->n_nodes ? f->f->n_nodes : 1);
}

static double at_y(const MemoryFunc *f, double bytes) {
    return HEIGHT - BOTTOM - bytes * (HEIGHT - BOTTOM - TOP) / (f->plan.bytes ? (double)f->plan.bytes : 1);
}

static void put_axes(const MemoryFunc *f, Text *t) {
    uint32_t steps = f->f->n_nodes, every = steps / 10 ? steps / 10 : 1;
    for (int i = 0; i <= 4; i++) {
        int64_t bytes = f->plan.bytes / 4 * i;
        double y = at_y(f, (double)bytes);
        text_printf(t,
                    "<line class=\"tick\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" "
                    "y=\"%.1f\" text-anchor=\"end\">",
                    LEFT, WIDTH - RIGHT, y, y, LEFT - 6, y + 4);
        put_size(t, bytes);
        text_printf(t, "</text>\n");
    }
    for (uint32_t i = 0; i < steps; i += every)
        text_printf(t, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%u</text>\n", at_x(f, i + .5),
                    HEIGHT - BOTTOM + 15, i);
    text_printf(t, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">step</text>\n", (WIDTH + LEFT) / 2,
                HEIGHT - 6);
    text_printf(t, "<path class=\"axis\" fill=\"none\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
                WIDTH - RIGHT);
}

static void put_about(const Memory *x, const MemoryFunc *f, const PlanItem *v, MemoryKind kind, Arena *a,
                      Text *t) {
    text_printf(t, "%%");
    put_escaped(t, memory_value_name(a, f->f, v->value));
    text_printf(t, " : ");
    put_type(x, f->f, v->value, t);
    text_printf(t, "\n%" PRId64 " bytes at %" PRId64 ", steps %u to %u\n%s\n", v->bytes, v->offset, v->first,
                v->last, memory_kind_name(kind));
    put_escaped(t, memory_value_place(x, f->f, v->value));
}

/* Where v comes from, as much of its end as its rectangle has room for. */
static void put_label(Str place, double left, double top, double width, double height, Text *t) {
    enum { LETTER = 6, LEAST = 8 }; /* wide; letters worth the ink */
    size_t fits = width > 8 ? (size_t)((width - 8) / LETTER) : 0;
    if (height < 14 || fits < LEAST)
        return;
    text_printf(t, "<text class=\"on\" x=\"%.1f\" y=\"%.1f\">", left + 4, top + height / 2 + 4);
    if (place.n > fits) {
        text_printf(t, "..");
        place = (Str){place.p + place.n - (fits - 2), fits - 2};
    }
    put_escaped(t, place);
    text_printf(t, "</text>\n");
}

/* Bytes alive at each step: what no plan could do without. */
static void put_live(const MemoryFunc *f, Arena *a, Text *t) {
    const Plan *p = &f->plan;
    int64_t *rise = arena_array(a, f->f->n_nodes + 2, sizeof *rise), alive = 0;
    for (uint32_t i = 0; i < p->n_items; i++) {
        rise[p->item[i].first] += p->item[i].bytes;
        rise[p->item[i].last + 1] -= p->item[i].bytes;
    }
    text_printf(t, "<polyline class=\"live\" points=\"");
    for (uint32_t i = 0; i < f->f->n_nodes; i++) {
        alive += rise[i];
        double y = at_y(f, (double)alive);
        text_printf(t, "%.1f,%.1f %.1f,%.1f ", at_x(f, i), y, at_x(f, i + 1), y);
    }
    text_printf(t, "\"/>\n<line class=\"peak\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n",
                at_x(f, p->worst + .5), at_x(f, p->worst + .5), TOP, HEIGHT - BOTTOM);
}

static void put_drawing(const Memory *x, uint32_t index, Arena *a, Text *t) {
    const MemoryFunc *f = &x->func[index];
    text_printf(t, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n", WIDTH, HEIGHT);
    put_axes(f, t);
    for (uint32_t i = 0; i < f->plan.n_items; i++) {
        const PlanItem *v = &f->plan.item[i];
        double left = at_x(f, v->first), right = at_x(f, v->last + 1.0);
        double top = at_y(f, (double)(v->offset + v->bytes)), low = at_y(f, (double)v->offset);
        text_printf(t,
                    "<a href=\"#f%uv%u\"><rect class=\"v k%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                    "height=\"%.1f\"><title>",
                    index, v->value, f->kind[i], left, top, right - left, low - top);
        put_about(x, f, v, (MemoryKind)f->kind[i], a, t);
        text_printf(t, "</title></rect></a>\n");
        put_label(memory_value_place(x, f->f, v->value), left, top, right - left, low - top, t);
    }
    put_live(f, a, t);
    text_printf(t, "</svg>\n<p>");
    for (int k = 0; k < KIND_COUNT; k++) {
        bool any = false;
        for (uint32_t i = 0; i < f->plan.n_items; i++)
            any = any || f->kind[i] == k;
        if (any)
            text_printf(t, "<span class=\"key k%d\"></span>%s", k, memory_kind_name(k));
    }
    text_printf(
        t, "</p>\n<p><small>Line: bytes alive at a step. Dashes: the step where most are.</small></p>\n");
}

/* ---- tables ------------------------------------------------------------------------------------------- */

static void put_values(const Memory *x, uint32_t index, Arena *a, Text *t) {
    const MemoryFunc *f = &x->func[index];
    uint32_t *order = arena_array(a, f->plan.n_items + 1, sizeof *order);
    memory_order(&f->plan, order);
    text_printf(t,
                "<details><summary>%u values</summary>\n<table>\n<tr><th>steps</th><th "
                "class=\"n\">offset</th><th class=\"n\">bytes</th><th>kind</th><th>value</th>"
                "<th>type</th><th>where</th><th>at the peak</th></tr>\n",
                f->plan.n_items);
    for (uint32_t i = 0; i < f->plan.n_items; i++) {
        const PlanItem *v = &f->plan.item[order[i]];
        text_printf(t,
                    "<tr id=\"f%uv%u\"><td>%u to %u</td><td class=\"n\">%" PRId64
                    "</td><td class=\"n\">%" PRId64 "</td><td>%s</td><td class=\"w\">%%",
                    index, v->value, v->first, v->last, v->offset, v->bytes,
                    memory_kind_name(f->kind[order[i]]));
        put_escaped(t, memory_value_name(a, f->f, v->value));
        text_printf(t, "</td><td>");
        put_type(x, f->f, v->value, t);
        text_printf(t, "</td><td class=\"w\">");
        put_escaped(t, memory_value_place(x, f->f, v->value));
        text_printf(t, "</td><td>%s</td></tr>\n", memory_at_peak(&f->plan, v) ? "yes" : "");
    }
    text_printf(t, "</table>\n</details>\n");
}

static void put_func(const Memory *x, uint32_t index, Text *t) {
    const MemoryFunc *f = &x->func[index];
    const Plan *p = &f->plan;
    Arena *a = arena_new();
    text_printf(t, "<h2>function ");
    put_escaped(t, f->f->name);
    text_printf(t, "</h2>\n<p>%u steps, arena ", f->f->n_nodes);
    put_size(t, p->bytes);
    if (p->n_items) {
        text_printf(t, "; ");
        put_size(t, p->peak);
        text_printf(t,
                    " alive at once, %.1f%% of it, at step %u: ", 100.0 * (double)p->peak / (double)p->bytes,
                    p->worst);
        put_escaped(t, memory_node_place(x, &f->f->node[p->worst]));
        text_printf(t, ". Without sharing ");
        put_size(t, p->sum);
    }
    text_printf(t, ". Of the caller: inputs ");
    put_size(t, f->inputs);
    text_printf(t, ", outputs ");
    put_size(t, f->outputs);
    text_printf(t, ", caches ");
    put_size(t, f->caches);
    text_printf(t, ".</p>\n");
    if (p->n_items) {
        put_drawing(x, index, a, t);
        put_values(x, index, a, t);
    }
    arena_free(a);
}

static void put_part(Text *t, const char *name, int64_t bytes, const char *note) {
    text_printf(t, "<tr><td>%s</td><td class=\"n\">", name);
    put_size(t, bytes);
    text_printf(t, "</td><td class=\"n\">%" PRId64 "</td><td>%s</td></tr>\n", bytes, note);
}

void memory_html(const Memory *x, Text *t) {
    text_printf(t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
                   "name=\"viewport\" content=\"width=device-width\"/>\n"
                   "<title>memory of a compiled model</title>\n");
    put_style(t);
    text_printf(t, "</head>\n<body>\n<h1>Memory of a compiled model</h1>\n<p>Sizes are those at the bounds");
    Text bounds = {0};
    memory_bounds(x, &bounds);
    put_escaped(t, (Str){bounds.p, bounds.n});
    text_free(&bounds);
    text_printf(t, ".</p>\n<table>\n");
    put_part(t, "weights", x->part[MEMORY_weights], memory_part_note(MEMORY_weights));
    if (x->part[MEMORY_adapter]) {
        put_part(t, "adapter", x->adapter_bytes, "loaded with the weights, or another in its place");
        put_part(t, "derived", x->derived_bytes, "computed of it when it is loaded");
    }
    for (int i = MEMORY_gradients; i <= MEMORY_optimiser; i++)
        if (x->part[i])
            put_part(t, memory_part_name(i), x->part[i], memory_part_note(i));
    put_part(t, "arena", x->part[MEMORY_activations],
             "one for all functions, the largest counts (of training: train)");
    put_part(t, "scratch", x->scratch_bytes, "a thread");
    text_printf(t, "</table>\n");
    for (uint32_t i = 0; i < x->n_funcs; i++)
        put_func(x, i, t);
    text_printf(t, "</body>\n</html>\n");
}
