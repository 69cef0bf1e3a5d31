/* Graphs drawn by Graphviz. */
#ifndef MOEC_SVG_H
#define MOEC_SVG_H

#include "driver.h"

/* Replaces a graph in Graphviz' language by its drawing. False after reporting that `dot` is missing or
 * fails. */
bool svg_render(Text *graph, bool verbose, Diag *d);

#endif
