/* What the files of `attach` share. */
#ifndef MOEC_ATTACH_IMPL_H
#define MOEC_ATTACH_IMPL_H

#include "adapter.h"
#include "pass.h"

/* The base weights become what is trained. */
bool attach_full(Module *m, const PassOptions *o, Diag *d);

#endif
