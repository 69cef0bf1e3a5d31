/* What limits.def says, as numbers. */
#ifndef MOEC_LIMITS_H
#define MOEC_LIMITS_H

#include <stdint.h>

enum {
#define LIMIT(name, value, unit, of, what) LIMIT_##name = value,
#include "limits.def"
};

#define LIMIT_VALUE_BYTES ((int64_t)1 << 38)

#endif
