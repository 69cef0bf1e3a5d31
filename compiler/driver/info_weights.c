/* moec info FILE.weights: what a compiled model's weights file says of itself. */
#include "build.h"

#include "../../runtime/moec_rt.h"

#include <inttypes.h>
#include <string.h>

static void print_header(const moec_weights_header *h, bool json, bool checked, Diag *d, Text *t) {
    Str name = {h->name, strnlen(h->name, sizeof h->name)};
    if (!json) {
        text_printf(t, "weights     '%s'\nhash        %016" PRIx64 "%s\nbytes       %" PRIu64 "\nABI         %" PRIu32 "\n", diag_show(d, name),
                    h->hash, checked ? ", that of its contents" : "", h->bytes, h->abi);
        return;
    }
    text_printf(t, "{\"weights\":");
    text_json(t, name);
    text_printf(t, ",\"hash\":\"%016" PRIx64 "\",\"bytes\":%" PRIu64 ",\"abi\":%" PRIu32 ",\"checked\":%s}\n", h->hash, h->bytes, h->abi,
                checked ? "true" : "false");
}

int info_weights(const Options *o) {
    static const char mark[] = ": error: ";
    moec_weights_header h;
    char message[900] = "";
    Diag *d = diag_new();
    bool ok = moec_weights_info(o->model, o->check, &h, message, sizeof message) == MOEC_OK;
    if (!ok) {
        const char *why = strstr(message, mark);
        diag_error(d, DIAG_WEIGHTS_FILE, o->model, "%s", why ? why + strlen(mark) : message);
    }
    if (ok) {
        Text t = {0};
        print_header(&h, o->json, o->check, d, &t);
        ok = text_write(NULL, &t, d);
        text_free(&t);
    }
    return diag_finish(d, ok);
}
