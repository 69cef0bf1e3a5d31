/* Between folder.c and folder_texts.c: the files of a folder of sources, each listed once. */
#ifndef MOEC_FOLDER_H
#define MOEC_FOLDER_H

#include "build.h"

#include <string.h>

/* What a file is for: a program that embeds the model needs the first three. */
typedef enum FileUse { USE_MODEL, USE_VARIANT /* the model, compiled once a variant */, USE_RUNTIME, USE_PROGRAM, USE_OTHER } FileUse;

typedef struct FolderFile {
    const char *name, *what;
    FileUse use;
} FolderFile;

typedef struct Folder {
    Build *b;
    const char *dir;     /* where it is made */
    const char *weights; /* file names in it */
    const char *text;    /* of the vocabulary; NULL: the program takes token ids alone */
    Vec(FolderFile) file;
    const CodeVariant *variant[MOST_VARIANTS]; /* --dispatch */
    uint32_t n_variants;
} Folder;

static inline bool name_ends(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* The texts of Makefile, CMakeLists.txt and README.md. */
void folder_makefile(const Folder *f, Text *t);
void folder_cmake(const Folder *f, Text *t);
void folder_readme(const Folder *f, Text *t);

#endif
