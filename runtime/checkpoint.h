/* Checkpoints of a training run in its folder OUT:
 *
 *   OUT/checkpoint-STEP/     adapter.safetensors, optimizer.safetensors, state.json
 *   OUT/adapter.safetensors  what moec_checkpoint_export leaves
 *
 * A checkpoint is written under another name (.checkpoint-STEP.PID.tmp) and renamed when every byte of it is
 * on the disk; older ones go only after that. So whenever a run is killed, the newest whole checkpoint is the
 * one before or the new one. state.json holds sizes and hashes of the other files and its own checksum: a
 * byte that changed is found. A run that goes on from a checkpoint makes the same bits as one that was never
 * interrupted. One run a folder. */
#ifndef MOEC_CHECKPOINT_H
#define MOEC_CHECKPOINT_H

#include "train_impl.h"

/* A number of the caller's that a run which goes on has to repeat: the batch size, a hash of the data. */
typedef struct moec_agree {
    const char *name;
    int64_t value;
} moec_agree;

/* The caller's part of a checkpoint. */
typedef struct moec_standing {
    const moec_agree *agree;
    size_t n_agree;
    int64_t *position; /* where the data stands, any numbers: saved, and filled by load */
    size_t n_position, position_room;
} moec_standing;

/* Gets one line about a checkpoint that is left out. */
typedef void moec_warn(void *ctx, const char *line);

/* Writes the checkpoint of the steps done, between two steps, and keeps at most `keep` (0: all) of those up
 * to it. Creates the folder. MOEC_E_IO names the file and the reason, leaves no half of a checkpoint and all
 * older ones. */
moec_status moec_checkpoint_save(const moec_trainer *t, const char *folder, const moec_standing *p,
                                 int64_t keep, moec_sink sink);

/* Restores trainer and instance from the newest checkpoint that is whole. *found: 0 when there is none at
 * all, or no folder. MOEC_E_MISMATCH: it belongs to another program, or was made under other options;
 * MOEC_E_FORMAT: none of them is whole. The trainer is of no use after an error. Removes what dead runs left
 * half written. */
moec_status moec_checkpoint_load(moec_trainer *t, const char *folder, moec_standing *p, int *found,
                                 moec_warn *warn, void *ctx, moec_sink sink);

/* Loads into an instance the adapter of the newest whole checkpoint in a folder, or of the checkpoint that
 * the folder is. Options do not matter; MOEC_E_MISMATCH: it belongs to a program with other tensors. */
moec_status moec_checkpoint_adapter(moec_instance *m, const char *folder, moec_warn *warn, void *ctx,
                                    moec_sink sink);

/* OUT/adapter.safetensors with what has been learnt so far; creates the folder. */
moec_status moec_checkpoint_export(const moec_trainer *t, const char *folder, moec_sink sink);

/* ---- checkpoint_state.c ---- */

enum { MOEC_PARTS = 2 };
extern const char *const moec_part_names[MOEC_PARTS]; /* adapter.safetensors, optimizer.safetensors */
extern const char moec_state_name[]; /* what is beside them */

typedef struct moec_part {
    uint64_t bytes, hash;
} moec_part;

moec_status moec_state_write(const moec_trainer *t, const moec_standing *p, const moec_part *part,
                             const char *path, moec_sink sink);
/* Reads and checks state.json. What is right but belongs to other options is told in `other` alone, which
 * holds one line then; the position is filled. */
/* `t` may be one that was never opened, with instance and options: for a look at the state. */
moec_status moec_state_read(const moec_trainer *t, moec_standing *p, int64_t *step, moec_part *part,
                            const char *path, moec_sink other, moec_sink sink);

/* ---- run_folder.c ---- */

typedef struct moec_step_list {
    int64_t *step; /* the largest first; moec_mem_free it */
    size_t n, room;
} moec_step_list;

/* FOLDER/NAME, to free; NULL without memory. */
char *moec_path_new(const char *folder, const char *fmt, ...) MOEC_FORMAT(2, 3);
/* Makes the folder unless it is there. */
moec_status moec_run_folder_make(const char *folder, moec_sink sink);
/* Makes the folder unless it is there, and keeps other runs out of it until *lock is closed or the process
 * ends. On failure *lock is -1. */
moec_status moec_run_folder_lock(const char *folder, int *lock, moec_sink sink);
/* Steps of the checkpoints in a folder, whole or not; none where there is no folder. */
moec_status moec_run_folder_list(const char *folder, moec_step_list *out, moec_sink sink);
/* Removes what dead runs left, puts back a checkpoint that was being replaced. What fails stays. */
void moec_run_folder_clean(const char *folder);
/* Takes the checkpoint of a step out of sight, then removes it. What fails stays. */
void moec_run_folder_drop(const char *folder, int64_t step);
/* Removes a folder and the files in it. What fails stays. */
void moec_folder_remove(const char *path);

#endif
