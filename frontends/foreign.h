/* Around calls of libraries that are not built for MemorySanitizer, which cannot see what they write: between foreign_begin() and
 * foreign_end() it does not check what they hand to libc; a text they made counts as written with foreign_text(). Other results
 * do where their memory does: mem_alloc's is zeroed, as is a variable with an initialiser. Nothing in other builds. */
#ifndef MOEC_FOREIGN_H
#define MOEC_FOREIGN_H

#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#include <sanitizer/msan_interface.h>
#define foreign_begin() __msan_scoped_disable_interceptor_checks()
#define foreign_end() __msan_scoped_enable_interceptor_checks()
#define foreign_text(s) __msan_unpoison_string(s)
#endif
#endif

#ifndef foreign_begin
#define foreign_begin() ((void)0)
#define foreign_end() ((void)0)
#define foreign_text(s) ((void)(s))
#endif

#endif
