/* Minimum cuts of directed graphs with capacities: the blocking-flow algorithm of Dinic (1970). */
#ifndef MOEC_MINCUT_H
#define MOEC_MINCUT_H

#include "base.h"

typedef struct MinCut MinCut;

#define MINCUT_INFINITE ((int64_t)1 << 60)

MinCut *mincut_new(Arena *a, uint32_t vertices);
void mincut_edge(MinCut *c, uint32_t from, uint32_t to, int64_t capacity);
/* Marks the vertices from which `sink` can still be reached when the flow is as large as it can be: among all minimum
 * cuts, the one nearest to the sink consists of the edges that lead into this set. side[vertices]. */
void mincut_sink_side(MinCut *c, uint32_t source, uint32_t sink, bool *side);
void mincut_free(MinCut *c);

#endif
