/* Which files make a model, and the token ids that only its configs tell.
 *
 * Files are looked for in the directory and in its `onnx` sub-directory, where some exporters put them. A name that
 * exists is what it is: a broken encoder_model.onnx is an error, not a reason to look further. */
#include "model_dir.h"

#include "file.h"
#include "json.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>


/* dir/sub/name when there is such a name, of whatever kind. */
static const char *present(Arena *a, const char *dir, const char *sub, const char *name)
{
    struct stat st;
    size_t n = strlen(dir);
    const char *slash = n > 0 && dir[n - 1] == '/' ? "" : "/";
    const char *path = arena_printf(a, "%s%s%s%s", dir, slash, sub, name);
    return lstat(path, &st) == 0 ? path : NULL;
}

static bool layout_find(Arena *a, ModelDir *o, Diag *d)
{
    static const char *const subs[] = {"", "onnx/"};
    for (int i = 0; i < 2; i++) {
        const char *sub = subs[i], *whole = present(a, o->dir, sub, "model.onnx");
        const char *merged = present(a, o->dir, sub, "decoder_model_merged.onnx");
        o->encoder = present(a, o->dir, sub, "encoder_model.onnx");
        o->decoder = present(a, o->dir, sub, "decoder_model.onnx");
        o->layout = o->decoder != NULL ? ML_PAIR : ML_MERGED;
        if (o->decoder == NULL)
            o->decoder = merged;
        if (o->encoder != NULL && o->decoder != NULL)
            return true;
        if (o->encoder != NULL || o->decoder != NULL)
            return diag_error(d, DIAG_MODEL_FILES, o->dir, "there is %s_model.onnx but no %s",
                              o->encoder != NULL ? "an encoder" : "a decoder",
                              o->encoder != NULL ? "decoder_model.onnx or decoder_model_merged.onnx"
                                                 : "encoder_model.onnx");
        if (whole != NULL) {
            o->layout = ML_WHOLE;
            o->encoder = whole;
            return true;
        }
    }
    return diag_error(d, DIAG_MODEL_FILES, o->dir,
                      "holds no model: encoder_model.onnx with decoder_model.onnx (or "
                      "decoder_model_merged.onnx), or model.onnx, is expected");
}

/* generation_config.json: an id, or a list of which the first counts. */
static bool id_override(const JsonDoc *doc, const char *key, int64_t *id)
{
    JsonPath root = {0};
    json_t *v = json_object_get(doc->root, key);
    if (v == NULL || json_is_null(v))
        return true;
    if (!json_is_array(v))
        return json_get_int(doc, &root, doc->root, key, 0, LIMIT_CONFIG_VOCAB, id);
    v = json_array_get(v, 0);
    JsonPath at = json_path_key(root, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > LIMIT_CONFIG_VOCAB)
        return json_error(doc, DIAG_JSON_VALUE, &at, "must be a token id or a list of them");
    *id = json_integer_value(v);
    return true;
}

static bool generation_config(Arena *a, const char *path, T5Config *c, Diag *d)
{
    JsonDoc doc;
    bool ok = json_open(a, path, LIMIT_JSON_FOREIGN_DEPTH, &doc, d);
    if (ok && !json_is_object(doc.root))
        ok = diag_error(d, DIAG_JSON_VALUE, path, "must be a JSON object");
    ok = ok && id_override(&doc, "pad_token_id", &c->pad) && id_override(&doc, "eos_token_id", &c->eos) &&
         id_override(&doc, "decoder_start_token_id", &c->start);
    json_close(&doc);
    return ok;
}

static bool id_check(const ModelDir *o, const char *key, int64_t id, Diag *d)
{
    if (id < 0)
        return diag_error(d, DIAG_JSON_MISSING, o->config.file,
                          "key '%s': is missing, and no generation_config.json has it", key);
    if (id >= o->config.vocab)
        return diag_error(d, DIAG_MODEL_CONFIG, o->config.file, "key '%s': %lld is not below vocab_size %lld",
                          key, (long long)id, (long long)o->config.vocab);
    return true;
}

/* Whether a config of who knows what model says that it is a T5. */
static bool names_t5(Arena *a, const char *path)
{
    JsonDoc doc;
    Diag *quiet = diag_new();
    bool ok = json_open(a, path, LIMIT_JSON_FOREIGN_DEPTH, &doc, quiet) && json_is_object(doc.root);
    const char *type = ok ? json_string_value(json_object_get(doc.root, "model_type")) : NULL;
    ok = type != NULL && (strcmp(type, "t5") == 0 || strcmp(type, "mt5") == 0);
    json_close(&doc);
    diag_free(quiet);
    return ok;
}

static bool configs_load(Arena *a, ModelDir *o, const ModelHints *hints, Diag *d)
{
    bool pair = o->layout == ML_PAIR || o->layout == ML_MERGED;
    const char *path = hints->config, *more = NULL;
    if (path == NULL) {
        path = present(a, o->dir, "", "config.json");
        more = present(a, o->dir, "", "generation_config.json");
        if (path != NULL && !pair && !names_t5(a, path))
            return true; /* any graph, any architecture: nothing in its config is needed */
    }
    if ((path != NULL && !config_load(a, path, &o->config, d)) ||
        (more != NULL && !generation_config(a, more, &o->config, d)))
        return false;
    o->has_config = path != NULL;
    return true;
}

static bool ids_settle(ModelDir *o, const ModelHints *hints, Diag *d)
{
    const struct {
        const char *key;
        int64_t given, *id;
    } ids[] = {{"pad_token_id", hints->pad, &o->config.pad},
               {"eos_token_id", hints->eos, &o->config.eos},
               {"decoder_start_token_id", hints->start, &o->config.start}};
    bool ok = true;
    for (int i = 0; i < 3; i++) {
        if (ids[i].given >= 0)
            *ids[i].id = ids[i].given;
        else if (i == 2 && *ids[i].id < 0)
            *ids[i].id = o->config.pad; /* what T5 starts with */
        ok = ok && (!o->has_config || id_check(o, ids[i].key, *ids[i].id, d));
    }
    return ok;
}

bool model_dir_open(Arena *a, const char *path, const ModelHints *hints, ModelDir *out, Diag *d)
{
    struct stat st;
    *out = (ModelDir){.layout = ML_FILE, .dir = path, .config = {.pad = 0, .eos = 1, .start = 0}}; /* T5's own ids */
    if (stat(path, &st) != 0)
        return diag_error(d, DIAG_FILE_READ, path, "cannot be opened: %s", strerror(errno));
    if (S_ISDIR(st.st_mode))
        return layout_find(a, out, d) && configs_load(a, out, hints, d) && ids_settle(out, hints, d);
    out->dir = path_dir(a, path);
    out->encoder = path;
    const char *slash = strrchr(path, '/');
    if (hints->config == NULL && (!hints->whole || strcmp(slash != NULL ? slash + 1 : path, "model.onnx") != 0))
        return true;
    if (!configs_load(a, out, hints, d) || !ids_settle(out, hints, d))
        return false;
    out->layout = out->has_config ? ML_WHOLE : ML_FILE;
    return true;
}

bool model_dir_import(Module *m, const char *path, const ModelHints *hints, ModelDir *out, OnnxFiles *files, Diag *d)
{
    if (!model_dir_open(m->arena, path, hints, out, d))
        return false;
    m->s2s.pad = out->config.pad;
    m->s2s.eos = out->config.eos;
    m->s2s.start = out->config.start;
    if (out->layout == ML_FILE || out->layout == ML_WHOLE)
        return onnx_import(m, out->encoder, out->layout == ML_FILE ? "main" : "model", files, d);
    bool ok = onnx_import(m, out->encoder, "encoder", files, d);
    ok = onnx_import(m, out->decoder, "decoder", files, d) && ok;
    if (!ok)
        return false;
    bool chooses = onnx_branch_input(m, "decoder", &out->branch_input);
    if (out->layout == ML_MERGED && !chooses)
        return diag_error(d, DIAG_MODEL_FILES, out->decoder,
                          "a merged decoder chooses its branch by an input; this one does not");
    m->s2s.present = true;
    return true;
}
