/* Remarks: what passes and lowering decided, and why not something better, told where it is decided.
 *
 * A Module carries the collector (Module.remarks, NULL: nobody asks, and a remark costs one comparison).
 * Copies of a module that a pass makes to try something have none. The rows of remarks.def say what there is
 * to tell; names in messages stand in double quotes, as bytes of the model's files: the printers escape. */
#ifndef MOEC_REMARK_H
#define MOEC_REMARK_H

#include "ir.h"

typedef enum RemarkKind {
    REMARK_applied, /* done */
    REMARK_missed,  /* not done, and why */
    REMARK_note     /* how it is */
} RemarkKind;

typedef enum RemarkId {
#define REMARK(name, pass, kind, doc) R_##name,
#include "remarks.def"
    REMARK_COUNT
} RemarkId;

typedef struct Remarks Remarks;

Remarks *remarks_new(void);
void remarks_free(Remarks *r); /* NULL is fine */
size_t remarks_count(const Remarks *r);

/* f, n: what it is about; either may be NULL. The place is n's site, else its origin, else its op. */
void remark(const Module *m, RemarkId id, const Func *f, const Node *n, const char *fmt, ...)
    MOEC_PRINTF(5, 6);
void remark_at(const Module *m, RemarkId id, const Func *f, Str place, const char *fmt, ...)
    MOEC_PRINTF(5, 6);

/* By function, in order; remarks that differ in the first number of their place alone, and in numbers inside
 * quoted names, are one line: `encoder.{0..11}.self.q`. */
void remarks_text(const Remarks *r, Text *out);
/* One object a line: pass, kind, name, function, place, origin, message; nothing folded. */
void remarks_json(const Remarks *r, Text *out);

/* n's site, else its origin, else the name of its op. */
Str node_place(const Node *n);

#endif
