/* What the runtime's sources share. */
#ifndef EDGEMOE_INTERNAL_H
#define EDGEMOE_INTERNAL_H

#include "edgemoe.h"
#include "edgemoe_isa.h"
#include "edgemoe_regs.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "edgemoe: bundles and the accelerator are little-endian, and so must the processor be"
#endif

#if defined(__GNUC__)
#define EMOE_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define EMOE_PRINTF(text, first)
#endif

#define EMOE_ALIGNMENT 64u

/* Set an error, where there is one to set; false. */
bool emoe_fail(struct emoe_error *error, enum emoe_status status, const char *format, ...) EMOE_PRINTF(3, 4);

/* JSON as a list of values in the order of their text. */
enum emoe_json_kind { EMOE_NULL, EMOE_FALSE, EMOE_TRUE, EMOE_INTEGER, EMOE_FLOAT, EMOE_STRING, EMOE_LIST, EMOE_OBJECT };

struct emoe_json {
    enum emoe_json_kind kind;
    uint32_t count, next;   /* values inside, and the number of the first value behind it */
    const char *key, *text; /* of a member of an object; of a string. Zeros may be inside, and one is behind */
    uint32_t key_length, length;
    int64_t integer;
    double number; /* of integers too */
};

/* Values of a text, which is decoded in place; NULL and `why` if it is not JSON within the limits, or memory is short.
 * The caller frees the list. */
struct emoe_json *emoe_json_parse(char *text, size_t length, const char **why);
/* A member of an object; NULL: it has none. */
const struct emoe_json *emoe_json_get(const struct emoe_json *values, const struct emoe_json *object, const char *key);
bool emoe_json_is(const struct emoe_json *value, const char *text);
/* Whether some UTF-8 is well-formed. */
bool emoe_is_utf8(const char *text, size_t length);

struct emoe_sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
};
void emoe_sha256_begin(struct emoe_sha256 *hash);
void emoe_sha256_add(struct emoe_sha256 *hash, const void *bytes, size_t size);
void emoe_sha256_end(struct emoe_sha256 *hash, char text[65]);

/* A tensor of a bundle's file. */
struct emoe_tensor {
    const char *name;
    uint32_t name_length;
    const uint8_t *bytes;
    uint64_t size;
};

/* What is taken for a bundle, given back together: before each block, the one before it. */
struct emoe_owned {
    struct emoe_owned *next;
    uint64_t alignment;
};

/* Zeroed memory for `count` items that lives as long as the bundle; NULL: `error` says so. */
void *emoe_take(struct emoe_bundle *bundle, size_t count, size_t size, struct emoe_error *error);

/* The bundle's fields from its document; programs have their commands then, unchecked. */
bool emoe_read_document(struct emoe_bundle *bundle, const struct emoe_json *values, const struct emoe_tensor *tensors,
                        uint32_t tensor_count, struct emoe_error *error);
bool emoe_read_programs(struct emoe_bundle *bundle, const struct emoe_json *values, const struct emoe_json *tasks,
                        const struct emoe_json *joint, const struct emoe_tensor *tensors, uint32_t tensor_count,
                        struct emoe_error *error);
bool emoe_check_program(const struct emoe_bundle *bundle, const struct emoe_program *program, const char *name,
                        struct emoe_error *error);
bool emoe_check_parts(const struct emoe_bundle *bundle, const struct emoe_program *program, const char *name,
                      struct emoe_error *error);

/* Members with their types and ranges; false: `error` names the member. */
bool emoe_get_integer(const struct emoe_json *values, const struct emoe_json *object, const char *name, int64_t least,
                      int64_t most, uint32_t *result, struct emoe_error *error);
bool emoe_get_name(const struct emoe_json *values, const struct emoe_json *object, const char *name, char result[65],
                   struct emoe_error *error);
bool emoe_get_number(const struct emoe_json *values, const struct emoe_json *object, const char *name, double *result,
                     struct emoe_error *error);
/* A member of a kind; NULL: `error` says what is wrong. */
const struct emoe_json *emoe_get(const struct emoe_json *values, const struct emoe_json *object, const char *name,
                                 enum emoe_json_kind kind, struct emoe_error *error);
/* Refuse an object that has members besides those named, which end with NULL. */
bool emoe_only(const struct emoe_json *values, const struct emoe_json *object, const char *what,
               const char *const *names, struct emoe_error *error);

/* How a row of a scratchpad is divided between masters (AcceleratorConfig.row_bytes and load_masters). */
uint32_t emoe_row_bytes(const struct emoe_config *config, uint32_t memory);
uint32_t emoe_load_masters(const struct emoe_config *config, uint32_t memory);

static inline uint64_t emoe_align(uint64_t value) {
    return (value + EMOE_ALIGNMENT - 1) / EMOE_ALIGNMENT * EMOE_ALIGNMENT;
}

#endif /* EDGEMOE_INTERNAL_H */
