/* Profiles as text: tables for people, JSON for programs. */
#ifndef MOEC_CLI_PROFILE_H
#define MOEC_CLI_PROFILE_H

#include <stdio.h>

#include "moec_rt.h"

/* The functions and kernels of the instance's profile, longest time first; each: every call of a kernel has a line. 0: no
 * memory. */
int moec_profile_print(const moec_instance *m, int each, FILE *f);
/* The same as JSON, functions, kernels and calls, added to `out`; out->failed tells that there was no memory. */
struct moec_chars;
void moec_profile_json(const moec_instance *m, struct moec_chars *out);

#endif
