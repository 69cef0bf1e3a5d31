/* Weights in panels: a matrix [K,N] is stored as [P,K,width], P = ceil(N / width), zeros behind the last column, so that a
 * product reads a panel of columns from end to end. */
#ifndef MOEC_PACK_H
#define MOEC_PACK_H

/* Columns of a panel: a cache line of f32, or two where there are as many columns. */
enum { PANEL_NARROW = 16, PANEL_COLUMNS = 32 };

#endif
