/* Shared by the files of the LLVM builder, and the one place where headers of LLVM's C interface are included. A translation
 * like print_c.c, of the same data: no decision but the target's. */
#ifndef MOEC_LLVM_BUILDER_H
#define MOEC_LLVM_BUILDER_H

#include "../llvm.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/BitReader.h>
#include <llvm-c/BitWriter.h>
#include <llvm-c/Core.h>
#include <llvm-c/DebugInfo.h>
#include <llvm-c/Linker.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

typedef LLVMValueRef Val;
typedef LLVMTypeRef Ty;

/* Where machine code comes from: lines of the IR file. All NULL without one. */
typedef struct DebugLines {
    LLVMDIBuilderRef builder;
    LLVMMetadataRef file, unit, type; /* one type serves: functions are named, not called */
} DebugLines;

/* The machine's instructions for products of words, of as many lanes as its vectors have: names of LLVM's functions; NULL
 * where there is none. halves: pairs of 16 bits. */
typedef struct Dots {
    const char *bf16, *int8, *halves;
} Dots;

typedef struct Builder {
    const Program *p;
    const LlvmOptions *o;
    const CodeVariant *variant; /* that is built, of those of the options; NULL: what they say otherwise */
    Diag *d;
    Arena *arena;
    LLVMContextRef cx;
    LLVMModuleRef m;
    LLVMBuilderRef b;
    LLVMTargetMachineRef machine;
    DebugLines debug;
    bool failed; /* LLVM has reported an error */
    Ty i8, i16, i32, i64, f32, f64, ptr, nothing;
    unsigned vectors; /* the machine's kind of vectors: of vector_kinds */
    Dots dots;
    Val *symbol; /* run-time symbols, by DimTable number */
    /* of the function being built */
    const LoopKernel *k;
    Val fn, frame, pool;
    LLVMMetadataRef scope; /* its debug information */
    Val *buf;              /* address of each buffer of the kernel */
    Val *var;              /* slot of each variable */
    Val *table;            /* constants of the kernel */
} Builder;

/* ---- types and numbers (builder.c) ---------------------------------------------------------------- */

Ty lb_scalar(const Builder *x, DType t);
bool lb_is_unsigned(DType t);
bool lb_is_float(Ty t);
Val lb_number(Ty t, int64_t v);
Val lb_i64(const Builder *x, int64_t v);
/* v, of element type `from`, as C converts it to a parameter or variable of type `to`. */
Val lb_convert(Builder *x, Val v, DType from, Ty to);
Val lb_least(Builder *x, LLVMIntPredicate p, Val a, Val b); /* p: of the one that is taken */
/* d of the symbols that have been loaded. */
Val lb_size(Builder *x, Dim d);
/* Loads the program's symbols from an array in their order. */
void lb_load_symbols(Builder *x, Val array);

/* ---- calls ------------------------------------------------------------------------------------------ */

Val lb_function(Builder *x, const char *name); /* which is there */
/* The same, declared when it is not: of the runtime. */
Val lb_runtime(Builder *x, const char *name, Ty result, Ty *param, unsigned n);
Val lb_call(Builder *x, Val f, Val *arg, unsigned n);
/* moec_NAME_TYPE of the vocabulary, of n operands with the element types of e (i64 without), converted as C does. */
Val lb_vocabulary(Builder *x, const char *name, const char *type, const LExpr *const *e, const Val *operand,
                  unsigned n);

/* ---- functions --------------------------------------------------------------------------------------- */

/* An internal function, of a line of the IR file. */
Val lb_add_function(Builder *x, const char *name, Ty result, Ty *param, unsigned n, uint32_t line);
/* What is built from now on belongs to fn and stands at its end; its line is `line`, 0: none. */
void lb_open(Builder *x, Val fn, uint32_t line);
/* What is built from now on belongs to this line. */
void lb_line(Builder *x, uint32_t line);
LLVMBasicBlockRef lb_new_block(Builder *x, const char *name);
void lb_enter(Builder *x, LLVMBasicBlockRef b);
void lb_attribute(const Builder *x, Val f, unsigned where, const char *name, uint64_t value);
/* A call of a function that is there. */
Val lb_call_named(Builder *x, Str name, Val *arg, unsigned n);
Val lb_constant(Builder *x, const char *name, Ty t, Val init);
const char *lb_text(const Builder *x, const char *fmt, Str s); /* fmt has one %.*s */
/* The pointer at `offset` of the frame; the address some bytes behind another. */
Val lb_frame_field(Builder *x, size_t offset);
Val lb_bytes_from(Builder *x, Val base, int64_t offset);

/* ---- the target (target.c) ---------------------------------------------------------------------------- */

/* The machine of the options; false after reporting. */
bool lb_open_machine(Builder *x);
/* Sizes of types are the machine's from here on. */
void lb_set_layout(Builder *x);
/* All functions of the module are the machine's. */
void lb_retarget(Builder *x);

/* ---- debug information --------------------------------------------------------------------------------- */

void lb_debug_begin(Builder *x);
void lb_debug_end(Builder *x);

/* ---- words (words.c) ------------------------------------------------------------------------------------- */

/* An operation on words of several lanes; b of those that take a number is not looked at. */
Val lb_words_op(Builder *x, const LExpr *e, Val a, Val b, Val c);

/* ---- parts (kernel.c, program.c) ------------------------------------------------------------------------ */

/* A routine's version for the machine's vectors, as a function of its name. */
void lb_routine(Builder *x, const LRoutine *r);
/* A kernel as a function of its name. */
void lb_kernel(Builder *x, const LoopKernel *k);
/* All of the program into the module. */
void lb_program(Builder *x);
/* The function that gives a variant's program; NULL: that of all of them. */
const char *lb_program_name(Builder *x, const CodeVariant *v);
/* That of all: it asks moec_choose. */
void lb_chooser(Builder *x);
/* The weights file as it is, where the options name one. */
void lb_embed_weights(Builder *x);

#endif
