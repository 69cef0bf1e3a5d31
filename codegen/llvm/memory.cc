/* In C++, since LLVM's C interface has nothing for it: without a handler `operator new` throws through code that is built without
 * exceptions, and LLVM's own allocations abort. */
#include "memory.h"

#include <llvm/Support/ErrorHandling.h>

#include <new>

static void (*on_no_memory)();

static void llvm_has_none(void *, const char *, bool) {
    on_no_memory();
}

void lb_on_no_memory(void (*f)(void)) {
    on_no_memory = f;
    std::set_new_handler(f);
    llvm::install_bad_alloc_error_handler(llvm_has_none);
}
