/* Graphviz' `dot`, run over files of a scratch folder. */
#include "svg.h"
#include "tool.h"
#include "../outfile.h"
#include "../../frontends/file.h"

#define MAX_SVG ((int64_t)1 << 30)

static bool run_dot(const char *from, const char *to, bool verbose, Diag *d) {
    Args args = {0};
    vec_push(&args, "dot");
    vec_push(&args, "-Tsvg");
    vec_push(&args, "-o");
    vec_push(&args, to);
    vec_push(&args, from);
    bool ok = tool_run(&args, NULL, verbose, "it is part of graphviz; --dot writes the graph for it", d);
    vec_free(&args);
    return ok;
}

bool svg_render(Text *graph, bool verbose, Diag *d) {
    Arena *a = arena_new();
    Str drawing;
    char *dir = scratch_open(a, d);
    const char *from = arena_printf(a, "%s/graph.dot", dir ? dir : ""),
               *to = arena_printf(a, "%s/graph.svg", dir ? dir : "");
    bool ok = dir && outfile_text(from, graph, d) && run_dot(from, to, verbose, d) &&
              file_read(a, to, MAX_SVG, &drawing, d);
    if (ok) {
        graph->n = 0;
        text_add(graph, drawing.p, drawing.n);
    }
    scratch_close(dir);
    arena_free(a);
    return ok;
}
