/* What --paranoid checks around every pass: the text form round-trips, and the interpreter gives the same results
 * before and after. */
#ifndef MOEC_PARANOID_H
#define MOEC_PARANOID_H

#include "pass.h"

typedef struct Snapshot Snapshot;

/* Results of every entry function on seeded inputs. Functions that cannot be evaluated (unknown weights, extents
 * that do not go together) are left out. */
Snapshot *snapshot_take(const Module *m, const PassOptions *o);
void snapshot_free(Snapshot *s);
/* Evaluates the functions of the snapshot that still have the same name and signature, on the same inputs: integers
 * must be equal, floats agree to 1e-4 relative. `free_dims`: the pass may have narrowed the extents a function takes,
 * so inputs that no longer fit are passed over. *n: how many functions were compared. */
bool snapshot_compare(const Snapshot *s, const Module *m, bool free_dims, uint32_t *n, Diag *d);

/* print -> parse -> print gives the same bytes. */
bool roundtrip_check(const Module *m, Diag *d);

#endif
