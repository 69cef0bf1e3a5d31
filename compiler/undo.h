/* What is half done: files and folders under temporary names. Those still listed when the process ends before its time
 * (no memory, a bug of moec) are removed by it. */
#ifndef MOEC_UNDO_H
#define MOEC_UNDO_H

/* `path` stays the caller's and has to live until undo_drop. Listed before it is made: removing nothing is no mistake. */
void undo_add(const char *path);
void undo_drop(const char *path); /* the same pointer; nothing happens where it is not listed */
/* Removes it and drops it from the list; NULL: nothing. */
void undo_now(const char *path);
/* Removes all that is listed, folders with what they hold. */
void undo_all(void);

#endif
