/* Harnesses without libFuzzer: fuzz NAME FILE|FOLDER..., or fuzz --list. A finding ends the process; the last line of
 * standard output then names the input. */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECONDS = 60 }; /* for one input, under any sanitizer */

typedef void Harness(const uint8_t *p, size_t n);

static const struct {
    const char *name, *what;
    Harness *run;
    int most, runs;
} harnesses[] = {
#define HARNESS(name, mutator, most, runs, what) {#name, what, fuzz_##name, most, runs},
#include "harnesses.def"
};

static int replay_file(Harness *run, const char *path) {
    FILE *f = fopen(path, "rb");
    Text t = {0};
    char piece[4096];
    size_t n;
    if (!f) {
        printf("fuzz: %s: %s\n", path, strerror(errno));
        exit(2);
    }
    while ((n = fread(piece, 1, sizeof piece, f)) > 0) text_add(&t, piece, n);
    fclose(f);
    printf("%s\n", path);
    fflush(stdout);
    alarm(SECONDS);
    run((const uint8_t *)(t.p ? t.p : ""), t.n);
    alarm(0);
    text_free(&t);
    return 1;
}

static int replay(Harness *run, const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return replay_file(run, path);
    int count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        Text t = {0};
        text_printf(&t, "%s/%s", path, e->d_name);
        count += replay_file(run, t.p);
        text_free(&t);
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv) {
    for (size_t i = 0; i < sizeof harnesses / sizeof *harnesses; i++) {
        if (argc == 2 && strcmp(argv[1], "--list") == 0) printf("%s %d %d %s\n", harnesses[i].name, harnesses[i].most, harnesses[i].runs, harnesses[i].what);
        if (argc < 3 || strcmp(argv[1], harnesses[i].name) != 0) continue;
        int count = 0;
        for (int k = 2; k < argc; k++) count += replay(harnesses[i].run, argv[k]);
        printf("%s: %d inputs\n", argv[1], count);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--list") == 0) return 0;
    fprintf(stderr, "usage: fuzz NAME FILE|FOLDER...; fuzz --list\n");
    return 2;
}
