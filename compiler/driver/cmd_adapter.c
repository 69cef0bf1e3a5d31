#include "driver.h"
int cmd_adapter(const Options *o) { return usage_error(o, "x"); }
