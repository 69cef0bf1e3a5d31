/* Dumps around passes. */
#include "dump.h"
#include "diff.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool dump_write(const char *path, const Text *text, Diag *d) {
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(text->p, 1, text->n, f) == text->n;
    int error = errno;
    if (f && fclose(f) != 0) {
        ok = false;
        error = errno;
    }
    return ok || diag_error(d, DIAG_FILE_WRITE, path, "cannot be written: %s", strerror(error));
}

/* To stdout, a blank line behind it, or to NN-WHEN-PASS.ENDING in the folder. */
static bool place(const Text *text, const PassRun *run, uint32_t number, const char *when, const char *pass,
                  const char *ending, Diag *d) {
    if (!run->dump_dir) {
        fwrite(text->p, 1, text->n, stdout);
        fputc('\n', stdout);
        return true;
    }
    Text path = {0};
    if (mkdir(run->dump_dir, 0777) != 0 && errno != EEXIST)
        return diag_error(d, DIAG_FOLDER_MAKE, run->dump_dir, "cannot be made: %s", strerror(errno));
    text_printf(&path, "%s/%02u-%s-%s.%s", run->dump_dir, number, when, pass, ending);
    bool ok = dump_write(path.p, text, d);
    text_free(&path);
    return ok;
}

bool dump_module(const Module *m, const PassRun *run, uint32_t number, const char *when, const char *pass,
                 Diag *d) {
    Text text = {0};
    text_printf(&text, "# %s %s\n", when, pass);
    module_print(m, &text);
    bool ok = place(&text, run, number, when, pass, "ir", d);
    text_free(&text);
    return ok;
}

/* Modules are changed in place: the one before is read back from its text. */
static bool dump_diff(const Module *m, const PassRun *run, uint32_t number, const char *pass,
                      const Text *last, Diag *d) {
    static const DiffOptions everything = {NULL, false};
    Module *before = module_parse(d, "<before>", last->p, last->n);
    Text text = {0};
    if (!before)
        return false;
    text_printf(&text, "# %s changed\n", pass);
    if (module_diff(before, m, &everything, &text))
        text_printf(&text, "# names, numbers or origins alone\n");
    bool ok = place(&text, run, number, "after", pass, "diff", d);
    text_free(&text);
    module_free(before);
    return ok;
}

bool dump_change(const Module *m, const PassRun *run, uint32_t number, const char *pass, Text *last,
                 bool dumped, Diag *d) {
    Text now = {0};
    bool ok = true;
    module_print(m, &now);
    if (now.n == last->n && (!now.n || memcmp(now.p, last->p, now.n) == 0))
        fprintf(run->dump_dir ? stderr : stdout, "# no change: %s\n%s", pass, run->dump_dir ? "" : "\n");
    else if (run->changed == CHANGED_DIFF)
        ok = dump_diff(m, run, number, pass, last, d);
    else if (!dumped)
        ok = dump_module(m, run, number, "after", pass, d);
    text_free(last);
    *last = now;
    return ok;
}
