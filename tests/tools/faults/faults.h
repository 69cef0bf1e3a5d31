/* What driver.c and preload.c tell each other. */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdint.h>

typedef enum FaultKind { FAULT_NONE, FAULT_MEMORY, FAULT_EIO, FAULT_ENOSPC, FAULT_EINTR, FAULT_SHORT, FAULT_CUT, FAULT_KINDS } FaultKind;

enum {
    FAULT_WHOLE = 250, /* exit status of a series' child: this one takes a run of its own */
    FAULT_BROKEN = 251 /* this test itself does not work */
};

typedef struct Request {
    int32_t kind, on;         /* on: the call and every later one */
    int64_t at, upto, step;   /* upto > 0: a series of allocations from `at` */
} Request;

/* A run's end: at -1. Before it, one for each of a series, which then waits for a byte. */
typedef struct Report {
    int64_t at, calls[4]; /* of memory, on files, reads and writes, reads and mappings */
    int32_t status, unused; /* as waitpid gives it */
} Report;

#endif
