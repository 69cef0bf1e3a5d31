/* Tensors into a safetensors file: 8 bytes of header length, the header padded with blanks to 8 bytes, then
 * the data in the order of the table without holes. */
#include "internal.h"

#include <string.h>

static void put_dtype(moec_chars *c, unsigned dtype) {
    char name[8] = "";
    const char *ours = moec_dtype_name(dtype);
    for (size_t i = 0; i < sizeof name - 1 && ours[i]; i++)
        name[i] = ours[i] >= 'a' && ours[i] <= 'z' ? (char)(ours[i] - 'a' + 'A') : ours[i];
    moec_chars_put(c, "\"%s\"", name);
}

static void put_header(moec_chars *c, const moec_tensor *tensor, uint32_t n, const char *spec) {
    uint64_t at = 0;
    const char *before = "";
    moec_chars_put(c, "{");
    if (spec && *spec) {
        moec_chars_put(c, "\"__metadata__\":{\"moec_adapter\":");
        moec_chars_json(c, spec);
        moec_chars_put(c, "}");
        before = ",";
    }
    for (uint32_t i = 0; i < n; i++) {
        const moec_tensor *t = &tensor[i];
        moec_chars_put(c, "%s", before);
        moec_chars_json(c, t->name);
        moec_chars_put(c, ":{\"dtype\":");
        put_dtype(c, t->dtype);
        moec_chars_put(c, ",\"shape\":[");
        for (int k = 0; k < t->rank; k++)
            moec_chars_put(c, k ? ",%lld" : "%lld", (long long)t->extent[k]);
        uint64_t end = at + t->bytes;
        moec_chars_put(c, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)end);
        at = end;
        before = ",";
    }
    moec_chars_put(c, "}");
    while (c->n % 8 && !c->failed)
        moec_chars_put(c, " ");
}

static moec_status write_body(moec_output *f, const moec_chars *header, const moec_tensor *tensor, uint32_t n,
                              const unsigned char *block, moec_sink sink) {
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header->n >> 8 * i);
    moec_status s = moec_output_write(f, length, 8, sink);
    if (!s)
        s = moec_output_write(f, header->p, header->n, sink);
    for (uint32_t i = 0; i < n && !s; i++)
        s = moec_output_write(f, block + tensor[i].offset, tensor[i].bytes, sink);
    return s;
}

moec_status moec_tensors_write(const moec_tensor *tensor, uint32_t n, const char *spec,
                               const unsigned char *block, const char *path, uint64_t *bytes, uint64_t *hash,
                               moec_sink sink) {
    moec_chars header = {0};
    moec_output f;
    put_header(&header, tensor, n, spec);
    moec_status s = header.failed ? moec_fail(sink, MOEC_E_MEMORY, path, "out of memory")
                                  : moec_output_open(path, &f, sink);
    if (!s) {
        s = write_body(&f, &header, tensor, n, block, sink);
        if (bytes)
            *bytes = f.bytes;
        if (hash)
            *hash = f.hash;
        if (s)
            moec_output_abandon(&f);
        else
            s = moec_output_commit(&f, sink);
    }
    moec_mem_free(header.p);
    return s;
}

moec_status moec_safetensors_write(const moec_program *p, const unsigned char *block, const char *path,
                                   moec_sink sink) {
    return moec_tensors_write(p->tensor, p->n_tensors, p->spec, block, path, NULL, NULL, sink);
}
