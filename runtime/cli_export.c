/* export: the adapter in force, or a checkpoint's, as a safetensors file with its spec. */
#include "cli.h"
#ifndef MOEC_NO_TRAINING
#include "checkpoint.h"
#endif

#include <stdio.h>
#include <string.h>

/* Whether all weights of the model are what is trained: the spec's method, at its top level. */
static int is_full(const char *spec) {
    size_t n = strlen(spec);
    char *copy = moec_mem_new(n + 1, 1);
    int full = 0;
    moec_json j;
    if (!copy)
        return 0;
    memcpy(copy, spec, n);
    moec_json_open(&j, copy, n);
    if (moec_json_next(&j) == MOEC_JSON_OBJECT)
        while (moec_json_next(&j) == MOEC_JSON_KEY) {
            int method = j.length == 6 && !memcmp(j.string, "method", 6);
            moec_json_event e = moec_json_next(&j);
            if (method && e == MOEC_JSON_STRING)
                full = j.length == 4 && !memcmp(j.string, "full", 4);
            else if (!moec_json_skip(&j, e))
                break;
        }
    moec_json_close(&j);
    moec_mem_free(copy);
    return full;
}

static int check(moec_cli *c) {
    const moec_program *p = c->program;
    int full = p->spec && is_full(p->spec);
    if (!c->o.out)
        return moec_cli_usage(c, "export needs --out FILE");
    if (c->o.adapter.count && c->o.checkpoint)
        return moec_cli_usage(c, "--adapter and --checkpoint exclude each other");
    if (!p->n_tensors)
        return moec_cli_error(c, NULL, 0,
                              "the model was compiled without an adapter: there is nothing to export");
    if (full && !c->o.base)
        return moec_cli_usage(c, "this program trains all weights of its model: export --base writes them");
    if (!full && c->o.base)
        return moec_cli_usage(c, "this program has an adapter on a frozen base: leave out --base");
    return EXIT_DONE;
}

int moec_cmd_export(moec_cli *c) {
    int code = check(c);
    if (!code)
        code = moec_cli_open(c);
#ifndef MOEC_NO_TRAINING
    if (!code && c->o.checkpoint)
        code = moec_cli_status(
            c, moec_checkpoint_adapter(c->instance, c->o.checkpoint, moec_cli_warn, NULL, moec_cli_sink(c)));
#endif
    if (!code)
        code = moec_cli_status(
            c, moec_safetensors_write(c->program, c->instance->slot[0].adapter, c->o.out, moec_cli_sink(c)));
    return code;
}
