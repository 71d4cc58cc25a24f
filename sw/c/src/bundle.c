/* A bundle's file: safetensors with a header of JSON, whose metadata holds the document and a hash over everything. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define LONGEST_HEADER (16u << 20)
#define LARGEST_FILE (SIZE_MAX / 4 < (3u << 30) ? SIZE_MAX / 4 : (size_t)(3u << 30))
#define MOST_TENSORS (2u + 2u * EMOE_MOST_PROGRAMS)
#define FORMAT_VERSION 2
#define METADATA "edgemoe_bundle"
#define AGAIN "copy it again, or compile it again with edgemoe compile"

bool emoe_fail(struct emoe_error *error, enum emoe_status status, const char *format, ...) {
    if (error == NULL) return false;
    va_list arguments;
    va_start(arguments, format);
    error->status = status;
    error->code = error->command = 0;
    (void)vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    for (char *c = error->text; *c != '\0'; c++) /* names in files go to terminals */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    return false;
}

void *emoe_take(struct emoe_bundle *bundle, size_t count, size_t size, struct emoe_error *error) {
    struct emoe_owned *block = NULL;
    if (count == 0) count = 1;
    if (count <= (SIZE_MAX - sizeof *block) / size) block = calloc(1, sizeof *block + count * size);
    if (block == NULL) {
        (void)emoe_fail(error, EMOE_NO_MEMORY, "the bundle is larger than the free memory");
        return NULL;
    }
    block->next = bundle->owned;
    bundle->owned = block;
    return block + 1;
}

void emoe_bundle_free(struct emoe_bundle *bundle) {
    for (struct emoe_owned *block = bundle->owned, *next; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
    memset(bundle, 0, sizeof *bundle);
}

/* An unsigned integer of a list of them. */
static bool list_item(const struct emoe_json *values, const struct emoe_json *list, uint32_t number, uint64_t *result) {
    const struct emoe_json *item = list + 1 + number;
    (void)values;
    if (item->kind != EMOE_INTEGER || item->integer < 0) return false;
    *result = (uint64_t)item->integer;
    return true;
}

static int by_begin(const void *one, const void *other) {
    const struct emoe_tensor *a = one, *b = other;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return (a->size > b->size) - (a->size < b->size);
}

static int by_name(const void *one, const void *other) {
    const struct emoe_tensor *a = one, *b = other;
    const uint32_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
    const int order = memcmp(a->name, b->name, shorter);
    return order != 0 ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

/* One tensor of the header: rows of bytes, inside the file. */
static bool read_tensor(const struct emoe_json *values, const struct emoe_json *entry, const uint8_t *begin,
                        uint64_t size, struct emoe_tensor *tensor, struct emoe_error *error) {
    static const char *const known[] = {"dtype", "shape", "data_offsets", NULL};
    const struct emoe_json *dtype = emoe_json_get(values, entry, "dtype"),
                           *shape = emoe_json_get(values, entry, "shape"),
                           *place = emoe_json_get(values, entry, "data_offsets");
    uint64_t length, from, to;
    const char *name = entry->key_length < 80 ? entry->key : "of a long name";
    if (dtype == NULL || shape == NULL || place == NULL || !emoe_only(values, entry, "a tensor", known, NULL))
        return emoe_fail(error, EMOE_BAD_FILE, "tensor %s lacks dtype, shape or data_offsets; " AGAIN, name);
    if (!emoe_json_is(dtype, "U8") || shape->kind != EMOE_LIST || shape->count != 1 ||
        !list_item(values, shape, 0, &length))
        return emoe_fail(error, EMOE_BAD_FILE, "tensor %s must be uint8 [N]; " AGAIN, name);
    if (place->kind != EMOE_LIST || place->count != 2 || !list_item(values, place, 0, &from) ||
        !list_item(values, place, 1, &to) || from > to || to > size || to - from != length)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "tensor %s does not lie inside the file, which is cut off or damaged; " AGAIN, name);
    tensor->name = entry->key;
    tensor->name_length = entry->key_length;
    tensor->bytes = begin + from;
    tensor->size = length;
    return true;
}

/* All tensors, sorted by name; no gap, no overlap, no byte that belongs to none. */
static bool read_tensors(const struct emoe_json *values, const uint8_t *begin, uint64_t size,
                         struct emoe_tensor *tensors, uint32_t *count, struct emoe_error *error) {
    const struct emoe_json *header = values;
    const uint8_t *place = begin;
    *count = 0;
    for (uint32_t i = 1; i < header->next; i = values[i].next) {
        if (strcmp(values[i].key, "__metadata__") == 0) continue;
        if (*count >= MOST_TENSORS) return emoe_fail(error, EMOE_BAD_FILE, "it has more tensors than a bundle; " AGAIN);
        if (!read_tensor(values, values + i, begin, size, tensors + *count, error)) return false;
        ++*count;
    }
    qsort(tensors, *count, sizeof *tensors, by_begin);
    for (uint32_t i = 0; i < *count; i++) {
        if (tensors[i].bytes != place)
            return emoe_fail(error, EMOE_BAD_FILE, "its tensors overlap, or have gaps between them; " AGAIN);
        place += tensors[i].size;
    }
    if (place != begin + size)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "it has %" PRIu64 " bytes of tensors, but its header tells of %" PRIu64 "; " AGAIN, size,
                         (uint64_t)(place - begin));
    qsort(tensors, *count, sizeof *tensors, by_name);
    return true;
}

static void digest(const struct emoe_json *document, const struct emoe_tensor *tensors, uint32_t count, char text[65]) {
    struct emoe_sha256 hash;
    emoe_sha256_begin(&hash);
    emoe_sha256_add(&hash, document->text, document->length);
    for (uint32_t i = 0; i < count; i++) {
        char shape[32];
        const int length = snprintf(shape, sizeof shape, " (%" PRIu64 ",)", tensors[i].size);
        emoe_sha256_add(&hash, tensors[i].name, tensors[i].name_length);
        emoe_sha256_add(&hash, shape, (size_t)length);
        emoe_sha256_add(&hash, tensors[i].bytes, (size_t)tensors[i].size);
    }
    emoe_sha256_end(&hash, text);
}

static bool check_version(const struct emoe_json *values, const char *key, int64_t own, const char *what,
                          struct emoe_error *error) {
    const struct emoe_json *found = emoe_json_get(values, values, key);
    if (found != NULL && found->kind == EMOE_INTEGER && found->integer == own) return true;
    return emoe_fail(error, EMOE_BAD_FILE,
                     "%s is not %d, which this runtime has; compile the model again with its edgemoe", what, (int)own);
}

/* The text of a string, decoded in our own copy of the header, for the next parser. */
static char *writable(const struct emoe_json *value) { return (char *)(uintptr_t)value->text; }

static bool read_document(struct emoe_bundle *bundle, const struct emoe_json *document,
                          const struct emoe_tensor *tensors, uint32_t count, struct emoe_error *error) {
    const char *why;
    struct emoe_json *values = emoe_json_parse(writable(document), document->length, &why);
    if (values == NULL) return emoe_fail(error, EMOE_BAD_FILE, "its document is damaged: %s; " AGAIN, why);
    const bool good = check_version(values, "format_version", FORMAT_VERSION, "its bundle format", error) &&
                      check_version(values, "isa_version", EMOE_ISA_VERSION, "its ISA version", error) &&
                      emoe_read_document(bundle, values, tensors, count, error);
    free(values);
    return good;
}

static bool read_stored(struct emoe_bundle *bundle, const struct emoe_json *stored, const struct emoe_tensor *tensors,
                        uint32_t count, struct emoe_error *error) {
    static const char *const known[] = {"document", "sha256", NULL};
    const char *why;
    char found[65];
    struct emoe_json *values = emoe_json_parse(writable(stored), stored->length, &why);
    if (values == NULL) return emoe_fail(error, EMOE_BAD_FILE, "its metadata is damaged: %s; " AGAIN, why);
    const struct emoe_json *document = emoe_get(values, values, "document", EMOE_STRING, error);
    const struct emoe_json *hash = document == NULL ? NULL : emoe_get(values, values, "sha256", EMOE_STRING, error);
    bool good = hash != NULL && emoe_only(values, values, "metadata", known, error);
    if (good) {
        digest(document, tensors, count, found);
        if (!emoe_json_is(hash, found))
            good = emoe_fail(error, EMOE_BAD_FILE,
                             "its contents have sha256 %.16s, but the file says another: it is damaged; " AGAIN, found);
    }
    good = good && read_document(bundle, document, tensors, count, error);
    free(values);
    return good;
}

static bool read_header(struct emoe_bundle *bundle, const struct emoe_json *values, const uint8_t *begin, uint64_t size,
                        struct emoe_error *error) {
    struct emoe_tensor tensors[MOST_TENSORS];
    uint32_t count;
    if (values->kind != EMOE_OBJECT) return emoe_fail(error, EMOE_BAD_FILE, "its header is no JSON object; " AGAIN);
    const struct emoe_json *metadata = emoe_json_get(values, values, "__metadata__");
    const struct emoe_json *stored = metadata == NULL ? NULL : emoe_json_get(values, metadata, METADATA);
    if (stored == NULL || stored->kind != EMOE_STRING)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "it is no bundle (a safetensors file without " METADATA "); make one with edgemoe compile");
    return read_tensors(values, begin, size, tensors, &count, error) &&
           read_stored(bundle, stored, tensors, count, error);
}

/* `bytes` belongs to the bundle. */
static bool parse(struct emoe_bundle *bundle, const uint8_t *bytes, size_t size, struct emoe_error *error) {
    uint64_t length = 0;
    const char *why;
    for (unsigned i = 0; i < 8 && size >= 8; i++) length |= (uint64_t)bytes[i] << 8 * i;
    if (size < 8 || length > size - 8 || length > LONGEST_HEADER)
        return emoe_fail(error, EMOE_BAD_FILE, "it is no bundle, or cut off: its header is not there; " AGAIN);
    char *text = emoe_take(bundle, (size_t)length + 1, 1, error);
    if (text == NULL) return false;
    memcpy(text, bytes + 8, (size_t)length);
    struct emoe_json *values = emoe_json_parse(text, (size_t)length, &why);
    if (values == NULL)
        return emoe_fail(error, EMOE_BAD_FILE, "it is no bundle, or damaged: its header is wrong: %s; " AGAIN, why);
    const bool good = read_header(bundle, values, bytes + 8 + length, size - 8 - (size_t)length, error);
    free(values);
    return good;
}

bool emoe_bundle_parse(struct emoe_bundle *bundle, const uint8_t *bytes, size_t size, struct emoe_error *error) {
    memset(bundle, 0, sizeof *bundle);
    uint8_t *copy = emoe_take(bundle, size, 1, error);
    if (copy != NULL && size > 0) memcpy(copy, bytes, size);
    if (copy != NULL && parse(bundle, copy, size, error)) return true;
    emoe_bundle_free(bundle);
    return false;
}

/* Bytes of an opened file, once it is known how many. */
static bool read_file(struct emoe_bundle *bundle, FILE *file, struct emoe_error *error) {
    long size = -1;
    if (fgetc(file) == EOF && ferror(file)) /* a folder */
        return emoe_fail(error, EMOE_BAD_FILE, "%s", strerror(errno));
    if (fseek(file, 0, SEEK_END) == 0) size = ftell(file);
    if (size < 0 || fseek(file, 0, SEEK_SET) != 0) return emoe_fail(error, EMOE_BAD_FILE, "it is no regular file");
    if ((unsigned long)size > LARGEST_FILE)
        return emoe_fail(error, EMOE_BAD_FILE, "it has %ld bytes, more than this runtime reads", size);
    uint8_t *bytes = emoe_take(bundle, (size_t)size, 1, error);
    if (bytes == NULL) return false;
    if (fread(bytes, 1, (size_t)size, file) != (size_t)size)
        return emoe_fail(error, EMOE_BAD_FILE, "it cannot be read to its end");
    return parse(bundle, bytes, (size_t)size, error);
}

bool emoe_bundle_load(struct emoe_bundle *bundle, const char *path, struct emoe_error *error) {
    struct emoe_error inner = {EMOE_OK, 0, 0, ""};
    memset(bundle, 0, sizeof *bundle);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return emoe_fail(error, EMOE_BAD_FILE, "%.160s: %s", path, strerror(errno));
    const bool good = read_file(bundle, file, &inner);
    (void)fclose(file);
    if (good) return true;
    emoe_bundle_free(bundle);
    return emoe_fail(error, inner.status, "%.160s: %s", path, inner.text);
}

int emoe_find_task(const struct emoe_bundle *bundle, const char *name) {
    for (uint32_t i = 0; i < bundle->task_count; i++)
        if (strcmp(bundle->tasks[i].name, name) == 0) return (int)i;
    return -1;
}

int emoe_find_program(const struct emoe_bundle *bundle, const uint32_t *tasks, uint32_t task_count, uint32_t images) {
    for (uint32_t i = 0; i < bundle->program_count; i++) {
        const struct emoe_program *program = bundle->programs + i;
        bool same = program->task_count == task_count && program->images == images;
        for (uint32_t k = 0; same && k < task_count; k++) same = program->sequences[k * images].task == tasks[k];
        if (same) return (int)i;
    }
    return -1;
}
