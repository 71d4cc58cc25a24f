/* Pictures: read, and laid out as the accelerator's LOADs expect them (edgemoe.layout.pack_patches). */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

size_t emoe_picture_bytes(const struct emoe_bundle *bundle) {
    return (size_t)3 * bundle->model.image_height * bundle->model.image_width;
}

void emoe_pack_picture(const struct emoe_bundle *bundle, const uint8_t *picture, uint8_t *memory) {
    const struct emoe_model *m = &bundle->model;
    const size_t lanes = bundle->config.lanes_k, patch = m->patch, width = m->image_width;
    const size_t inputs = 3 * patch * patch, rows_each = (inputs + lanes - 1) / lanes;
    const size_t across = width / patch, patches = across * (m->image_height / patch);
    const size_t masters = emoe_load_masters(&bundle->config, EMOE_MEMORY_ACT), slice = lanes / masters;
    const size_t stride = (size_t)emoe_align(patches * rows_each * slice);
    memset(memory, 0, (size_t)bundle->input_bytes);
    for (size_t p = 0; p < patches; p++) {
        const uint8_t *corner = picture + 3 * (p / across * patch * width + p % across * patch);
        for (size_t i = 0; i < inputs; i++) { /* (channel, y, x) */
            const size_t channel = i / (patch * patch), y = i / patch % patch, x = i % patch;
            const size_t row = p * rows_each + i / lanes, byte = i % lanes;
            memory[byte / slice * stride + row * slice + byte % slice] = corner[3 * (y * width + x) + channel];
        }
    }
}

/* The next number of a PPM file's head; -1: there is none. */
static long head_number(FILE *file) {
    int c = fgetc(file);
    long value = 0;
    while (c == '#' || isspace(c)) {
        if (c == '#')
            while (c != '\n' && c != EOF) c = fgetc(file);
        else
            c = fgetc(file);
    }
    if (!isdigit(c)) return -1;
    for (; isdigit(c); c = fgetc(file)) {
        value = 10 * value + (c - '0');
        if (value > 65535) return -1;
    }
    return isspace(c) ? value : -1; /* one space ends the head */
}

static bool read_picture(const struct emoe_model *m, FILE *file, const char *path, uint8_t *picture, size_t size,
                         struct emoe_error *error) {
    uint8_t magic[2] = {0, 0};
    if (fgetc(file) == EOF && ferror(file)) /* a folder */
        return emoe_fail(error, EMOE_BAD_FILE, "%.160s: %s", path, strerror(errno));
    if (fseek(file, 0, SEEK_END) != 0) return emoe_fail(error, EMOE_BAD_FILE, "%.160s: it is no regular file", path);
    const bool bare = ftell(file) == (long)size;
    rewind(file);
    if (!bare) {
        if (fread(magic, 1, 2, file) != 2 || magic[0] != 'P' || magic[1] != '6')
            return emoe_fail(error, EMOE_BAD_FILE,
                             "%.160s: a picture must be a PPM file (P6), or %zu bytes: RGB, %" PRIu32 " x %" PRIu32
                             " pixels",
                             path, size, m->image_width, m->image_height);
        const long width = head_number(file), height = head_number(file), white = head_number(file);
        if (width < 0 || height < 0 || white != 255)
            return emoe_fail(error, EMOE_BAD_FILE, "%.160s: the head of a PPM file must have width, height and 255",
                             path);
        if (width != (long)m->image_width || height != (long)m->image_height)
            return emoe_fail(error, EMOE_BAD_FILE,
                             "%.160s: the picture has %ld x %ld pixels, and the model %" PRIu32 " x %" PRIu32
                             "; resize it",
                             path, width, height, m->image_width, m->image_height);
    }
    if (fread(picture, 1, size, file) != size)
        return emoe_fail(error, EMOE_BAD_FILE, "%.160s: the picture is cut off", path);
    return true;
}

bool emoe_picture_read(const struct emoe_bundle *bundle, const char *path, uint8_t *picture, struct emoe_error *error) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return emoe_fail(error, EMOE_BAD_FILE, "%.160s: %s", path, strerror(errno));
    const bool good = read_picture(&bundle->model, file, path, picture, emoe_picture_bytes(bundle), error);
    (void)fclose(file);
    return good;
}
