/* ONNX files in, functions of a Module out.
 *
 * Weights are never copied where their place in the file allows it: parameters point into mappings that an
 * OnnxFiles owns, which therefore lives as long as the Module. Everything in a file is judged before it is
 * used: limits, sizes, types, names. Supported are the default domain's operators of opsets 7 to 28 that
 * are in the import tables (onnx_ops_*.c) and a few of com.microsoft. */
#ifndef MOEC_ONNX_H
#define MOEC_ONNX_H

#include "../compiler/ir.h"

/* Mappings, the table of parameters shared between files, and what the files declare of their outputs. */
typedef struct OnnxFiles OnnxFiles;

OnnxFiles *onnx_files_new(void);
void onnx_files_free(OnnxFiles *files); /* NULL is fine; after the Module */

/* Imports the graph of `path` as entry function `func_name`. Initializers become parameters, small constants
 * `const` nodes; a parameter that another imported file has too (type, extents and bytes) is not added again.
 * False after reporting every unsupported operator, or else every node that is at fault. */
bool onnx_import(Module *m, const char *path, const char *func_name, OnnxFiles *files, Diag *d);

/* Compares the bound functions' results with what their files declare: element type, rank, constant extents. */
bool onnx_check_outputs(const Module *m, const OnnxFiles *files, Diag *d);
/* The same of what a function has computed, bound or not; no files: nothing is declared. */
bool onnx_check_results(const OnnxFiles *files, const Func *f, const Tensor *out, Diag *d);

/* A file that holds one TensorProto, as test data does. Data live in `a`. */
bool onnx_tensor_file(const char *path, Arena *a, Tensor *out, Diag *d);

/* Names the input whose truth selects the branches of the function's first `if` that stands on an input;
 * false when there is none. */
bool onnx_branch_input(const Module *m, const char *func_name, Str *name);

#endif
