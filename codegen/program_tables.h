/* Between program.c and program_tables.c. */
#ifndef MOEC_PROGRAM_TABLES_H
#define MOEC_PROGRAM_TABLES_H

#include "program.h"

/* Size rules and tables, for the entry functions in the order of p->function. */
void program_fill_tables(Program *p, const Func **entry);

#endif
