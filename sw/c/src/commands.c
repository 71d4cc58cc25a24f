/* What a program must keep to, whoever wrote it: it is for this accelerator, its LOADs and STOREs stay in their
 * regions, and no command waits for what comes after it, so that it ends. The rows of scratchpads are the hardware's to
 * check. */
#include <inttypes.h>
#include <string.h>

#include "internal.h"

#define COMPILE "; compile it again with edgemoe compile"
#define FAIL(...) emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (" __VA_ARGS__)
#define ENGINES (EMOE_ENGINE_LARGEST + 1)
#define FIELD(command, name) field(command, name##_LSB, name##_WIDTH)
#define BITS (8 * EMOE_COMMAND_BYTES)

struct checker {
    const struct emoe_bundle *bundle;
    const struct emoe_program *program;
    const char *name;
    uint32_t before[ENGINES]; /* commands of each engine so far */
    struct emoe_error *error;
};

/* At most 32 bits of a command. */
static uint64_t field(const uint8_t *command, unsigned lsb, unsigned width) {
    uint64_t value = 0;
    for (unsigned byte = lsb / 8; byte <= (lsb + width - 1) / 8; byte++)
        value |= (uint64_t)command[byte] << 8 * (byte - lsb / 8);
    return value >> lsb % 8 & ((UINT64_C(1) << width) - 1);
}

static bool is_zero_from(const uint8_t *command, unsigned bit) {
    for (; bit < BITS; bit++)
        if (command[bit / 8] >> bit % 8 & 1) return false;
    return true;
}

static unsigned payload_bits(uint64_t opcode) {
#define CASE(name, code, bits) \
    if (opcode == (code)) return bits;
    EMOE_OPCODES(CASE)
#undef CASE
    return BITS;
}

static int engine_of(uint64_t opcode) {
#define CASE(name, engine, code) \
    if (opcode == (code)) return (int)(engine);
    EMOE_ENGINES(CASE)
#undef CASE
    return -1;
}

/* BEGIN first, END last, neither elsewhere; no opcode or bit without meaning; a phase that there is. */
static bool check_frame(const struct checker *c, const uint8_t *command, uint32_t number) {
    struct emoe_error *error = c->error;
    const uint64_t opcode = FIELD(command, EMOE_HEADER_OPCODE);
    const bool first = number == 0, last = number == c->program->command_count - 1;
    if (payload_bits(opcode) == BITS)
        return FAIL("program of %s: command %" PRIu32 " has the illegal opcode %" PRIu64 ")" COMPILE, c->name, number,
                    opcode);
    if ((opcode == EMOE_OPCODE_BEGIN) != first || (opcode == EMOE_OPCODE_END) != last)
        return FAIL("program of %s: command %" PRIu32 ": BEGIN is the first command, and END the last)" COMPILE,
                    c->name, number);
    if (FIELD(command, EMOE_HEADER_RESERVED) != 0 || !is_zero_from(command, EMOE_HEADER_BITS + payload_bits(opcode)))
        return FAIL("program of %s: command %" PRIu32 " has bits set that no field names)" COMPILE, c->name, number);
    if (FIELD(command, EMOE_HEADER_PHASE) >= 2 * c->bundle->model.depth + 2)
        return FAIL("program of %s: command %" PRIu32 " is of a phase that there is not)" COMPILE, c->name, number);
    return true;
}

static bool check_begin(const struct checker *c, const uint8_t *command) {
    struct emoe_error *error = c->error;
    if (FIELD(command, EMOE_BEGIN_ISA_VERSION) == EMOE_ISA_VERSION &&
        FIELD(command, EMOE_BEGIN_CONFIG_HASH) == c->bundle->config.hash &&
        FIELD(command, EMOE_BEGIN_COMMANDS) == c->program->command_count)
        return true;
    return FAIL("program of %s: BEGIN names another ISA version, configuration or number of commands)" COMPILE,
                c->name);
}

/* No command waits for more than what comes before it, and END for all of that. */
static bool check_waits(const struct checker *c, const uint8_t *command, uint32_t number) {
#define PLACE(name, engine, code) EMOE_HEADER_WAIT_##name##_LSB,
    static const unsigned places[] = {EMOE_ENGINES(PLACE)};
#undef PLACE
    struct emoe_error *error = c->error;
    const bool last = number == c->program->command_count - 1;
    for (unsigned engine = 0; engine < ENGINES; engine++) {
        const uint64_t waits = field(command, places[engine], EMOE_HEADER_WAIT_LOAD_WIDTH);
        if (waits > c->before[engine] || (last && waits != c->before[engine]))
            return FAIL("program of %s: command %" PRIu32 " waits for %" PRIu64 " commands of engine %u, but %" PRIu32
                        " come before it)" COMPILE,
                        c->name, number, waits, engine, c->before[engine]);
    }
    return true;
}

static uint64_t region_bytes(const struct checker *c, uint64_t base) {
    if (base == EMOE_BASE_WEIGHTS) return c->bundle->data_bytes;
    if (base == EMOE_BASE_INPUT) return c->program->images * c->bundle->input_bytes;
    return c->program->output_bytes;
}

static bool check_load(const struct checker *c, const uint8_t *command, uint32_t number) {
    const struct emoe_config *config = &c->bundle->config;
    struct emoe_error *error = c->error;
    const uint64_t memory = FIELD(command, EMOE_LOAD_MEMORY), base = FIELD(command, EMOE_LOAD_BASE);
    const uint64_t most_base = c->program->task_count > 1 ? EMOE_BASE_OUTPUT : EMOE_BASE_INPUT;
    if (memory > EMOE_MEMORY_LARGEST || base > most_base)
        return FAIL("program of %s: command %" PRIu32 " (LOAD) names a memory or region that there is not)" COMPILE,
                    c->name, number);
    const uint64_t masters = emoe_load_masters(config, (uint32_t)memory), rows = FIELD(command, EMOE_LOAD_ROWS);
    const uint64_t offset = FIELD(command, EMOE_LOAD_OFFSET), stride = FIELD(command, EMOE_LOAD_PLANE_STRIDE);
    const uint64_t end = offset + (masters - 1) * stride + rows * (emoe_row_bytes(config, (uint32_t)memory) / masters);
    if (offset % config->axi_bytes != 0 || (masters > 1 && stride % config->axi_bytes != 0) ||
        (rows > 0 && end > region_bytes(c, base)))
        return FAIL("program of %s: command %" PRIu32 " (LOAD) reads bytes %" PRIu64 " to %" PRIu64
                    " of region %" PRIu64 ", which has %" PRIu64 ")" COMPILE,
                    c->name, number, offset, end, base, region_bytes(c, base));
    return true;
}

static bool check_store(const struct checker *c, const uint8_t *command, uint32_t number) {
    struct emoe_error *error = c->error;
    const uint64_t base = FIELD(command, EMOE_STORE_BASE), offset = FIELD(command, EMOE_STORE_OFFSET);
    const uint64_t end =
        offset + FIELD(command, EMOE_STORE_ROWS) * emoe_row_bytes(&c->bundle->config, EMOE_MEMORY_RESIDUAL);
    if (base != EMOE_BASE_OUTPUT || offset % c->bundle->config.axi_bytes != 0 || end > c->program->output_bytes)
        return FAIL("program of %s: command %" PRIu32 " (STORE) writes bytes %" PRIu64 " to %" PRIu64
                    " of region %" PRIu64 "; the output has %" PRIu64 ")" COMPILE,
                    c->name, number, offset, end, base, c->program->output_bytes);
    return true;
}

bool emoe_check_program(const struct emoe_bundle *bundle, const struct emoe_program *program, const char *name,
                        struct emoe_error *error) {
    struct checker c = {bundle, program, name, {0}, error};
    for (uint32_t number = 0; number < program->command_count; number++) {
        const uint8_t *command = program->commands + (size_t)number * EMOE_COMMAND_BYTES;
        if (!check_frame(&c, command, number) || !check_waits(&c, command, number)) return false;
        const uint64_t opcode = FIELD(command, EMOE_HEADER_OPCODE);
        if (opcode == EMOE_OPCODE_BEGIN && !check_begin(&c, command)) return false;
        if (opcode == EMOE_OPCODE_LOAD && !check_load(&c, command, number)) return false;
        if (opcode == EMOE_OPCODE_STORE && !check_store(&c, command, number)) return false;
        const int engine = engine_of(opcode);
        if (engine >= 0) c.before[engine]++;
    }
    return true;
}
