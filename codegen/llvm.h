/* The LLVM builder: a program as an LLVM module, and what LLVM makes of it.
 *
 * The scalar functions and the matrix product that kernels call are those of runtime/moec_kernel.h, which moec carries
 * compiled to bitcode: the C backend and this one share every definition. */
#ifndef MOEC_LLVM_H
#define MOEC_LLVM_H

#include "program.h"
#include "variant.h"

typedef enum LlvmForm { LLVM_FORM_IR, LLVM_FORM_BITCODE, LLVM_FORM_ASM, LLVM_FORM_OBJECT } LlvmForm;

typedef struct LlvmOptions {
    const char *triple; /* NULL: the host */
    const char *cpu;    /* a name LLVM knows, "native" (NULL) or "generic" */
    int level;          /* 0..3 */
    const CodeVariant *const *variant; /* all of which the module holds, the base last, which is `cpu`; NULL: that alone */
    uint32_t n_variants;
    LlvmForm form;
    Str vocabulary;         /* moec_kernel.h as bitcode */
    const char *source_dir; /* what debug information says of where the IR file is; NULL: "." */
    const char *weights;    /* file that an embedding program includes, NULL: none */
} LlvmOptions;

/* The object (or text) of a program: PREFIX_program is its one global symbol. False after reporting: an unknown
 * target or CPU. A module that LLVM refuses is a bug of moec: it is written to moec-bad-llvm.ll, exit code 70. */
bool llvm_emit(const Program *p, const LlvmOptions *o, Text *out, Diag *d);

/* An executable's main, which calls moec_main for program `prefix`; `text`: with the SentencePiece tokenizer; `blas`: OpenBLAS
 * is chosen well first. */
bool llvm_emit_main(const char *prefix, bool text, bool blas, const LlvmOptions *o, Text *out, Diag *d);

/* The host's triple, freed with mem_free; NULL when built without LLVM. */
char *llvm_host(void);
/* "LLVM 19.1.7", or NULL when built without it. */
const char *llvm_version(void);

#endif
