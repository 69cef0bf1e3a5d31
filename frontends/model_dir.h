/* A model as exporters leave it: a directory of ONNX files and configs, or one ONNX file. */
#ifndef MOEC_MODEL_DIR_H
#define MOEC_MODEL_DIR_H

#include "config.h"
#include "onnx.h"

typedef enum ModelLayout {
    ML_PAIR,   /* functions `encoder` and `decoder` */
    ML_MERGED, /* the same; the decoder chooses by an `if` whether it has a cache */
    ML_WHOLE,  /* function `model`: a directory's model.onnx */
    ML_FILE    /* function `main`: a file given by name. With a config named too, or called model.onnx beside a T5's
                * config.json, it is ML_WHOLE */
} ModelLayout;

typedef struct ModelDir {
    ModelLayout layout;
    const char *dir;      /* where config.json, tokenizer and weights are */
    const char *encoder;  /* the file of `encoder`, `model` or `main` */
    const char *decoder;  /* NULL without one */
    bool has_config;      /* `config` was read; else only its token ids count */
    T5Config config;
    /* ML_MERGED: the bool input of `decoder` that chooses a branch; bind it to false, the branch without a cache. */
    Str branch_input;
} ModelDir;

/* What the user says of a model. */
typedef struct ModelHints {
    const char *config;      /* a file to read instead of the directory's config.json; NULL */
    int64_t pad, eos, start; /* token ids that outdo every config; -1: not given */
    bool whole;              /* a file called model.onnx is what its directory would be */
} ModelHints;

/* Imports what `path` names. Token ids (config.json, overridden by generation_config.json, overridden by hints) go
 * to m->s2s; without any they are T5's own. Strings live in m's arena. False after reporting. */
bool model_dir_import(Module *m, const char *path, const ModelHints *hints, ModelDir *out, OnnxFiles *files, Diag *d);

/* The file layout and config alone, without opening any graph. */
bool model_dir_open(Arena *a, const char *path, const ModelHints *hints, ModelDir *out, Diag *d);

#endif
