/* moec_kernel.h as a unit of its own, compiled to bitcode when moec is built: what the LLVM builder calls. Every function
 * of it stays, used here or not. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define inline __attribute__((used))
#include "../../runtime/moec_kernel.h"
