/* Checkpoints: writing one whole, finding the newest whole one. */
#define _POSIX_C_SOURCE 200809L

#include "checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 18, LINE = 1000 };

const char moec_state_name[] = "state.json";

static moec_status no_memory(const char *folder, moec_sink sink) {
    return moec_fail(sink, MOEC_E_MEMORY, folder, "out of memory");
}

/* ---- saving ---- */

static moec_status write_part(const moec_trainer *t, int k, const char *path, moec_part *part,
                              moec_sink sink) {
    const moec_program *p = t->m->program;
    const moec_optimizer_state *x = &t->optimizer;
    return k == 0 ? moec_tensors_write(p->tensor, p->n_tensors, p->spec, t->m->slot[0].adapter, path,
                                       &part->bytes, &part->hash, sink)
                  : moec_tensors_write(x->state_tensor, x->n_state_tensors, "", x->state, path, &part->bytes,
                                       &part->hash, sink);
}

/* Fills a new folder; every file is synced, and its name. */
static moec_status write_files(const moec_trainer *t, const moec_standing *p, const char *folder,
                               moec_sink sink) {
    moec_part part[MOEC_PARTS];
    moec_status s = MOEC_OK;
    for (int k = 0; k <= MOEC_PARTS && !s; k++) {
        char *path = moec_path_new(folder, "%s", k < MOEC_PARTS ? moec_part_names[k] : moec_state_name);
        if (!path)
            s = no_memory(folder, sink);
        else if (k < MOEC_PARTS)
            s = write_part(t, k, path, &part[k], sink);
        else
            s = moec_state_write(t, p, part, path, sink);
        moec_mem_free(path);
    }
    return s;
}

static moec_status make_half(const char *half, moec_sink sink) {
    if (mkdir(half, 0777) == 0)
        return MOEC_OK;
    if (errno == EEXIST) {
        moec_folder_remove(half);
        if (mkdir(half, 0777) == 0)
            return MOEC_OK;
    }
    return moec_fail(sink, MOEC_E_IO, half, "cannot be made: %s", strerror(errno));
}

/* Gives the half written folder its name. One that has the name already (damaged, or of the same step) steps
 * aside and is put back when the new one cannot take its place. */
static moec_status put_in_place(const char *half, const char *home, const char *aside, moec_sink sink) {
    moec_folder_remove(aside);
    int moved = rename(home, aside) == 0;
    if (!moved && errno != ENOENT)
        return moec_fail(sink, MOEC_E_IO, home, "cannot be replaced: %s", strerror(errno));
    if (rename(half, home) == 0)
        return MOEC_OK;
    int e = errno;
    if (moved)
        (void)rename(aside, home); /* where that fails, the next load puts it back */
    return moec_fail(sink, MOEC_E_IO, home, "cannot be written: %s", strerror(e));
}

/* Newer ones are damaged, or the run would have gone on from them: they are not counted. */
static void drop_older(const char *folder, int64_t step, int64_t keep) {
    moec_step_list l;
    moec_sink quiet = {NULL, 0};
    int64_t kept = 0;
    if (!moec_run_folder_list(folder, &l, quiet))
        for (size_t i = 0; i < l.n; i++)
            if (l.step[i] <= step && ++kept > keep)
                moec_run_folder_drop(folder, l.step[i]);
    moec_mem_free(l.step);
}

static moec_status save(const moec_trainer *t, const char *folder, const moec_standing *p,
                        char *const path[3], moec_sink sink) {
    const char *half = path[0], *home = path[1], *aside = path[2];
    moec_status s = make_half(half, sink);
    if (s)
        return s;
    if ((s = write_files(t, p, half, sink)) || (s = put_in_place(half, home, aside, sink))) {
        moec_folder_remove(half);
        return s;
    }
    if ((s = moec_folder_sync(folder, sink)))
        return s;
    moec_folder_remove(aside);
    return MOEC_OK;
}

moec_status moec_checkpoint_save(const moec_trainer *t, const char *folder, const moec_standing *p,
                                 int64_t keep, moec_sink sink) {
    if (!t || !folder || !p || t->batches)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: a checkpoint is made between two steps");
    long long step = t->steps;
    long pid = (long)getpid();
    moec_status s = moec_run_folder_make(folder, sink);
    if (s)
        return s;
    char *const path[3] = {moec_path_new(folder, ".checkpoint-%lld.%ld.tmp", step, pid),
                           moec_path_new(folder, "checkpoint-%lld", step),
                           moec_path_new(folder, ".checkpoint-%lld.%ld.old", step, pid)};
    s = path[0] && path[1] && path[2] ? save(t, folder, p, path, sink) : no_memory(folder, sink);
    for (int i = 0; i < 3; i++)
        moec_mem_free(path[i]);
    if (!s && keep > 0)
        drop_older(folder, t->steps, keep);
    return s;
}

moec_status moec_checkpoint_export(const moec_trainer *t, const char *folder, moec_sink sink) {
    if (!t || !folder)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    moec_status s = moec_run_folder_make(folder, sink);
    if (s)
        return s;
    char *path = moec_path_new(folder, "%s", moec_part_names[0]);
    s = path ? moec_safetensors_write(t->m->program, t->m->slot[0].adapter, path, sink)
             : no_memory(folder, sink);
    moec_mem_free(path);
    return s;
}

/* ---- loading ---- */

static moec_status check_part(const char *path, const moec_part *part, moec_sink sink) {
    int fd;
    uint64_t size = 0, hash = MOEC_FNV_START;
    moec_status s = moec_file_open(path, (uint64_t)1 << 62, &fd, &size, sink);
    if (s)
        return s;
    unsigned char *chunk = moec_mem_new(CHUNK, 1);
    if (!chunk)
        s = no_memory(path, sink);
    else if (size != part->bytes)
        s = moec_fail(sink, MOEC_E_FORMAT, path, "is damaged: it has %llu bytes where %llu belong",
                      (unsigned long long)size, (unsigned long long)part->bytes);
    for (uint64_t at = 0; at < size && !s;) {
        size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
        s = moec_file_read(fd, path, at, chunk, n, sink);
        if (!s)
            hash = moec_fnv(hash, chunk, n);
        at += n;
    }
    if (!s && hash != part->hash)
        s = moec_fail(sink, MOEC_E_FORMAT, path, "is damaged: its contents are not what was written");
    moec_mem_free(chunk);
    moec_file_close(fd);
    return s;
}

/* Paths of one checkpoint's files; the last is state.json. */
typedef struct Files {
    char *path[MOEC_PARTS + 1];
} Files;

/* step -1: the folder is the checkpoint. */
static int files_of(const char *folder, int64_t step, Files *f) {
    int whole = 1;
    for (int k = 0; k <= MOEC_PARTS; k++) {
        const char *name = k < MOEC_PARTS ? moec_part_names[k] : moec_state_name;
        f->path[k] = step < 0 ? moec_path_new(folder, "%s", name)
                              : moec_path_new(folder, "checkpoint-%lld/%s", (long long)step, name);
        whole &= f->path[k] != NULL;
    }
    return whole;
}

static void files_free(Files *f) {
    for (int k = 0; k <= MOEC_PARTS; k++)
        moec_mem_free(f->path[k]);
}

/* MOEC_OK: the checkpoint is whole; `other` says where it does not belong to this run. */
static moec_status examine(const moec_trainer *t, moec_standing *p, int64_t step, const Files *f,
                           moec_sink other, moec_sink sink) {
    moec_part part[MOEC_PARTS];
    int64_t inside = -1;
    moec_status s = moec_state_read(t, p, &inside, part, f->path[MOEC_PARTS], other, sink);
    if (!s && step >= 0 && inside != step)
        s = moec_fail(sink, MOEC_E_FORMAT, f->path[MOEC_PARTS], "is that of step %lld", (long long)inside);
    for (int k = 0; k < MOEC_PARTS && !s; k++)
        s = check_part(f->path[k], &part[k], sink);
    return s;
}

static moec_status read_state(const moec_optimizer_state *x, const char *path, moec_sink sink) {
    uint64_t bytes = moec_tensors_room(x->state_tensor, x->n_state_tensors, NULL);
    void *room = moec_mem_reserve(bytes);
    moec_status s = room ? moec_tensors_read(NULL, x->state_tensor, x->n_state_tensors, path, x->state, room, bytes,
                                             sink)
                         : no_memory(path, sink);
    moec_mem_release(room, bytes);
    return s;
}

static moec_status restore(moec_trainer *t, int64_t step, const Files *f, moec_sink sink) {
    moec_status s = read_state(&t->optimizer, f->path[1], sink);
    if (!s)
        s = moec_load_adapter(t->m, f->path[0], sink.p, sink.room);
    if (!s) {
        t->steps = step;
        t->batches = 0;
    }
    return s;
}

/* `FILE: error: why` as a warning. */
static void warn_of(moec_warn *warn, void *ctx, const char *line) {
    static const char mark[] = ": error: ";
    char out[LINE + 64];
    const char *at = strstr(line, mark);
    if (!warn)
        return;
    if (at)
        snprintf(out, sizeof out, "%.*s: warning: %s; this checkpoint is left out", (int)(at - line), line,
                 at + sizeof mark - 1);
    else
        snprintf(out, sizeof out, "warning: %s; this checkpoint is left out", line);
    warn(ctx, out);
}

/* One candidate: *whole says whether it was the one. */
static moec_status try_load(moec_trainer *t, const char *folder, int64_t step, moec_standing *p, int *whole,
                            moec_warn *warn, void *ctx, moec_sink sink) {
    char why[LINE] = "", other[LINE] = "";
    Files f;
    *whole = 0;
    moec_status s = files_of(folder, step, &f) ? examine(t, p, step, &f, (moec_sink){other, sizeof other},
                                                         (moec_sink){why, sizeof why})
                                               : MOEC_E_MEMORY;
    if (!s) {
        *whole = 1;
        s = other[0] ? moec_fail(sink, MOEC_E_MISMATCH, NULL, "%s", other) : restore(t, step, &f, sink);
    } else if (s == MOEC_E_MEMORY) {
        s = no_memory(folder, sink);
    } else if (s == MOEC_E_MISMATCH) {
        s = moec_fail(sink, s, NULL, "%s", why);
    } else {
        warn_of(warn, ctx, why);
        s = MOEC_OK;
    }
    files_free(&f);
    return s;
}

moec_status moec_checkpoint_load(moec_trainer *t, const char *folder, moec_standing *p, int *found,
                                 moec_warn *warn, void *ctx, moec_sink sink) {
    if (!t || !folder || !p || !found)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    moec_step_list l;
    *found = 0;
    moec_run_folder_clean(folder);
    moec_status s = moec_run_folder_list(folder, &l, sink);
    for (size_t i = 0; i < l.n && !s && !*found; i++)
        s = try_load(t, folder, l.step[i], p, found, warn, ctx, sink);
    if (!s && l.n && !*found)
        s = moec_fail(sink, MOEC_E_FORMAT, folder, "none of its %llu checkpoints is whole",
                      (unsigned long long)l.n);
    moec_mem_free(l.step);
    return s;
}

/* ---- the adapter alone ---- */

/* The adapter of one checkpoint; *whole 0 and a reason in `why` where it is not whole. */
static moec_status take_adapter(moec_instance *m, const char *folder, int64_t step, int *whole, moec_sink why,
                                moec_sink sink) {
    enum { POSITION = 1 << 16 };
    moec_trainer look = {.m = m};
    moec_standing p = {.position = moec_mem_new(POSITION, sizeof *p.position), .position_room = POSITION};
    char other[LINE] = "";
    Files f;
    moec_status s = files_of(folder, step, &f) && p.position ? MOEC_OK : no_memory(folder, sink);
    moec_train_defaults(&look.optimizer.o);
    moec_status bad = s ? s : examine(&look, &p, step, &f, (moec_sink){other, sizeof other}, why);
    if (bad == MOEC_E_MISMATCH)
        s = moec_fail(sink, bad, NULL, "%s", why.p);
    *whole = !bad;
    if (!bad)
        s = moec_load_adapter(m, f.path[0], sink.p, sink.room);
    files_free(&f);
    moec_mem_free(p.position);
    return s;
}

static int is_checkpoint(const char *folder) {
    char *path = moec_path_new(folder, "%s", moec_state_name);
    int is = path && access(path, F_OK) == 0;
    moec_mem_free(path);
    return is;
}

moec_status moec_checkpoint_adapter(moec_instance *m, const char *folder, moec_warn *warn, void *ctx,
                                    moec_sink sink) {
    moec_step_list l = {0};
    int whole = 0;
    if (!m || !folder)
        return moec_fail(sink, MOEC_E_ARGUMENT, NULL, "error: %s", moec_status_text(MOEC_E_ARGUMENT));
    if (is_checkpoint(folder)) {
        moec_status one = take_adapter(m, folder, -1, &whole, sink, sink);
        return one || whole ? one : MOEC_E_FORMAT;
    }
    moec_status s = moec_run_folder_list(folder, &l, sink);
    for (size_t i = 0; i < l.n && !s && !whole; i++) {
        char why[LINE] = "";
        s = take_adapter(m, folder, l.step[i], &whole, (moec_sink){why, sizeof why}, sink);
        if (!s && !whole)
            warn_of(warn, ctx, why);
    }
    if (!s && !whole)
        s = moec_fail(sink, MOEC_E_FORMAT, folder,
                      l.n ? "none of its checkpoints is whole" : "holds no checkpoint");
    moec_mem_free(l.step);
    return s;
}
