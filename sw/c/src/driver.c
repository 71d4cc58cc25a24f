/* The driver: identity, memory, start, wait, errors; the rules are those of edgemoe.runtime.driver. Knows registers and
 * buffers, no platform. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define TIMEOUT 1.0 /* seconds, and MARGIN times the estimate: then a program is given up */
#define MARGIN 20
#define RESET_TIMEOUT 0.01
#define RESET_POLL 1e-5
#define RESET_POLLS 20 /* the fewest: a host may pause */
#define POLLS 50       /* a program's estimated time is divided into as many, within these limits */
#define SHORTEST_POLL 2e-5
#define LONGEST_POLL 1e-3
#define INTERRUPT_WAIT 0.05
#define WATCHDOG 1000000u

static bool get(struct emoe_device *d, uint32_t offset, uint32_t *value, struct emoe_error *error) {
    return d->platform->read(d->platform->context, offset, value, error);
}

static bool put(struct emoe_device *d, uint32_t offset, uint32_t value, struct emoe_error *error) {
    return d->platform->write(d->platform->context, offset, value, error);
}

/* A register of two words. */
static bool put_address(struct emoe_device *d, uint32_t offset, uint64_t value, struct emoe_error *error) {
    return put(d, offset, (uint32_t)value, error) && put(d, offset + 4, (uint32_t)(value >> 32), error);
}

static bool get_wide(struct emoe_device *d, uint32_t offset, uint64_t *value, struct emoe_error *error) {
    uint32_t low, high;
    if (!get(d, offset, &low, error) || !get(d, offset + 4, &high, error))
        return false; /* the low word latches the high one */
    *value = (uint64_t)high << 32 | low;
    return true;
}

static double now(struct emoe_device *d) { return d->platform->now(d->platform->context); }

static double clock_mhz(const struct emoe_device *d) {
    return d->platform->clock_mhz > 0 ? d->platform->clock_mhz : d->bundle->config.clock_mhz;
}

static const char *error_name(uint32_t code, const char **meaning) {
#define CASE(number, name, text) \
    if (code == (number)) {      \
        *meaning = text;         \
        return name;             \
    }
    EMOE_ERROR_CODES(CASE)
#undef CASE
    *meaning = "unknown; is the accelerator newer than this runtime?";
    return "UNKNOWN";
}

/* Refuse what is no accelerator, or not the bundle's. */
static bool check_identity(struct emoe_device *d, struct emoe_error *error) {
    const char *name = d->platform->name;
    uint32_t id, version, hash;
    if (!get(d, EMOE_REG_ID, &id, error)) return false;
    if (id != EMOE_ID)
        return emoe_fail(error, EMOE_DEVICE,
                         "device %s: register ID is 0x%08" PRIx32 ", not 0x%08" PRIx32
                         ": there is no edgemoe accelerator at this address; load its bitstream first",
                         name, id, (uint32_t)EMOE_ID);
    if (!get(d, EMOE_REG_ISA_VERSION, &version, error) || !get(d, EMOE_REG_CONFIG_HASH, &hash, error)) return false;
    if (version != EMOE_ISA_VERSION)
        return emoe_fail(error, EMOE_DEVICE,
                         "the bundle has ISA version %u, device %s has %" PRIu32
                         "; load the bitstream of this edgemoe, or compile the model with the device's",
                         EMOE_ISA_VERSION, name, version);
    if (hash != d->bundle->config.hash)
        return emoe_fail(error, EMOE_DEVICE,
                         "the bundle is for config %s (hash 0x%08" PRIx32 "), device %s has another (hash 0x%08" PRIx32
                         "); load the bundle's bitstream, or compile the model for the device",
                         d->bundle->config.name, d->bundle->config.hash, name, hash);
    return true;
}

bool emoe_device_reset(struct emoe_device *d, struct emoe_error *error) {
    uint32_t status;
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (!put(d, EMOE_REG_CONTROL, EMOE_CONTROL_SOFT_RESET, error)) return false;
    const double end = now(d) + RESET_TIMEOUT;
    for (int polls = 1;; polls++) {
        if (!get(d, EMOE_REG_STATUS, &status, error)) return false;
        if (!(status & EMOE_STATUS_BUSY)) break;
        if (polls > RESET_POLLS && now(d) >= end)
            return emoe_fail(error, EMOE_DEVICE,
                             "device %s is still busy %g s after a soft reset: memory does not answer its transfers; "
                             "load the bitstream again%s%.200s",
                             d->platform->name, RESET_TIMEOUT, d->failure[0] != '\0' ? "; the reset was because: " : "",
                             d->failure);
        if (!d->platform->wait(d->platform->context, RESET_POLL, false, error)) return false;
    }
    d->must_reset = false;
    d->failure[0] = '\0';
    return true;
}

/* A buffer with something in it, flushed: a dirty line that is written back later would overwrite outputs. */
static bool fill(struct emoe_device *d, struct emoe_buffer *buffer, const void *content, uint64_t size,
                 struct emoe_error *error) {
    struct emoe_platform *p = d->platform;
    if (size > SIZE_MAX / 2)
        return emoe_fail(error, EMOE_NO_MEMORY, "device %s: a buffer of %" PRIu64 " bytes is too large", p->name, size);
    const size_t bytes = size > 0 ? (size_t)size : 1;
    if (!p->allocate(p->context, bytes, buffer, error)) return false;
    if (buffer->address % EMOE_ALIGNMENT != 0 || buffer->address > (UINT64_C(1) << EMOE_ADDRESS_BITS) - bytes)
        return emoe_fail(error, EMOE_DEVICE,
                         "device %s allocated %zu bytes at 0x%" PRIx64
                         "; the accelerator needs addresses that are multiples of %u, of %u bits",
                         p->name, bytes, buffer->address, EMOE_ALIGNMENT, EMOE_ADDRESS_BITS);
    if (content != NULL)
        memcpy(buffer->bytes, content, (size_t)size);
    else
        memset(buffer->bytes, 0, bytes);
    return p->flush(p->context, buffer, error);
}

static bool load(struct emoe_device *d, struct emoe_error *error) {
    const struct emoe_bundle *b = d->bundle;
    if (!fill(d, &d->weights, b->data, b->data_bytes, error)) return false;
    for (uint32_t i = 0; i < b->program_count; i++)
        if (!fill(d, d->programs + i, b->programs[i].commands,
                  (uint64_t)b->programs[i].command_count * EMOE_COMMAND_BYTES, error))
            return false;
    for (uint32_t i = 0; i < d->options.slots; i++)
        if (!fill(d, d->inputs + i, NULL, b->most_images * b->input_bytes, error) ||
            !fill(d, d->outputs + i, NULL, b->most_output_bytes, error))
            return false;
    return put(d, EMOE_REG_SIZE_WEIGHTS, (uint32_t)d->weights.size, error) &&
           put(d, EMOE_REG_SIZE_OUTPUT, (uint32_t)d->outputs[0].size, error);
}

bool emoe_device_open(struct emoe_device *d, struct emoe_platform *platform, const struct emoe_bundle *bundle,
                      const struct emoe_options *options, struct emoe_error *error) {
    struct emoe_error own;
    if (error == NULL) error = &own;
    memset(d, 0, sizeof *d);
    d->platform = platform;
    d->bundle = bundle;
    if (options != NULL) d->options = *options;
    if (d->options.slots == 0) d->options.slots = 1;
    if (d->options.watchdog == 0 && !d->options.no_watchdog) d->options.watchdog = WATCHDOG;
    if (d->options.slots > EMOE_MOST_SLOTS || !(d->options.timeout >= 0))
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "slots must be at most %d, and the timeout at least 0",
                         EMOE_MOST_SLOTS);
    if (d->options.interrupt && !platform->has_interrupt)
        return emoe_fail(error, EMOE_DEVICE, "device %s has no interrupt; open it without", platform->name);
    if (bundle->program_count == 0 || bundle->program_count > EMOE_MOST_PROGRAMS)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "the bundle has not been loaded");
    /* A program that a killed process has left must end before its memory is used again. */
    if (!check_identity(d, error) || !emoe_device_reset(d, error)) return false;
    d->is_open = load(d, error);
    if (!d->is_open) platform->release_all(platform->context);
    return d->is_open;
}

bool emoe_device_close(struct emoe_device *d, struct emoe_error *error) {
    uint32_t status;
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (!d->is_open) return true;
    d->is_open = false;
    if (!get(d, EMOE_REG_STATUS, &status, error)) return false;
    if ((status & EMOE_STATUS_BUSY) && !emoe_device_reset(d, error))
        return false; /* what it still writes to stays its own */
    d->platform->release_all(d->platform->context);
    return true;
}

static bool check_use(const struct emoe_device *d, uint32_t program, uint32_t slot, struct emoe_error *error) {
    if (!d->is_open) return emoe_fail(error, EMOE_BAD_ARGUMENT, "the device is closed; open it again");
    if (slot >= d->options.slots)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "slot must be below %" PRIu32 ", not %" PRIu32, d->options.slots,
                         slot);
    if (program >= d->bundle->program_count)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "program must be below %" PRIu32 ", not %" PRIu32,
                         d->bundle->program_count, program);
    return true;
}

bool emoe_device_pack(struct emoe_device *d, uint32_t slot, uint32_t place, const uint8_t *picture,
                      struct emoe_error *error) {
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (!check_use(d, 0, slot, error)) return false;
    if (place >= d->bundle->most_images)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "place must be below %" PRIu32 ", not %" PRIu32,
                         d->bundle->most_images, place);
    emoe_pack_picture(d->bundle, picture, d->inputs[slot].bytes + place * d->bundle->input_bytes);
    return d->platform->flush(d->platform->context, d->inputs + slot, error);
}

bool emoe_device_start(struct emoe_device *d, uint32_t program, uint32_t slot, struct emoe_error *error) {
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (!check_use(d, program, slot, error)) return false;
    const struct emoe_program *p = d->bundle->programs + program;
    if (d->must_reset && !emoe_device_reset(d, error)) return false;
    d->must_reset = true; /* until it is known to have ended */
    return put_address(d, EMOE_REG_PROGRAM_ADDR, d->programs[program].address, error) &&
           put(d, EMOE_REG_PROGRAM_COMMANDS, p->command_count, error) &&
           put_address(d, EMOE_REG_BASE_WEIGHTS, d->weights.address, error) &&
           put_address(d, EMOE_REG_BASE_INPUT, d->inputs[slot].address, error) &&
           put(d, EMOE_REG_SIZE_INPUT, (uint32_t)(p->images * d->bundle->input_bytes), error) &&
           put_address(d, EMOE_REG_BASE_OUTPUT, d->outputs[slot].address, error) &&
           put(d, EMOE_REG_WATCHDOG, d->options.watchdog, error) &&
           put(d, EMOE_REG_CONTROL, EMOE_CONTROL_START | (d->options.interrupt ? EMOE_CONTROL_IRQ_ENABLE : 0), error);
}

/* How far a program is that does not end. */
static bool fail_late(struct emoe_device *d, uint32_t program, double limit, struct emoe_error *error) {
    char done[160] = "";
    size_t used = 0;
    uint32_t count, code = 0;
    const char *meaning;
#define COUNT(name, engine, opcode)                                 \
    if (!get(d, EMOE_REG_DONE_##name, &count, error)) return false; \
    used += (size_t)snprintf(done + used, sizeof done - used, "%s%" PRIu32 " " #name, used > 0 ? ", " : "", count);
    EMOE_ENGINES(COUNT)
#undef COUNT
    if (!get(d, EMOE_REG_ERROR_CODE, &code, error)) return false;
    return emoe_fail(error, EMOE_TIMEOUT,
                     "device %s: program %" PRIu32 " did not end within %g s; error code %s; of its %" PRIu32
                     " commands these have finished: %s",
                     d->platform->name, program, limit, error_name(code, &meaning),
                     d->bundle->programs[program].command_count, done);
}

/* Clear the interrupt of a program that has ended; false if an error ended it. */
static bool acknowledge(struct emoe_device *d, uint32_t program, uint32_t status, struct emoe_error *error) {
    uint32_t code, command;
    const char *meaning;
    if (!put(d, EMOE_REG_STATUS, EMOE_STATUS_IRQ, error)) return false;
    if (status & EMOE_STATUS_ERROR) {
        if (!get(d, EMOE_REG_ERROR_CODE, &code, error) || !get(d, EMOE_REG_ERROR_COMMAND, &command, error))
            return false;
        const char *name = error_name(code, &meaning);
        (void)emoe_fail(error, EMOE_STOPPED, "device %s: program %" PRIu32 ", command %" PRIu32 ": %s, %s",
                        d->platform->name, program, command, name, meaning);
        error->code = code;
        error->command = command;
        return false;
    }
    if (!(status & EMOE_STATUS_DONE))
        return emoe_fail(error, EMOE_DEVICE,
                         "device %s: program %" PRIu32
                         " was not run: the accelerator was reset meanwhile, perhaps by another process",
                         d->platform->name, program);
    d->must_reset = false;
    return true;
}

static double least(double one, double other) { return one < other ? one : other; }

bool emoe_device_wait(struct emoe_device *d, uint32_t program, struct emoe_error *error) {
    struct emoe_error own;
    uint32_t status;
    if (error == NULL) error = &own;
    if (!check_use(d, program, 0, error)) return false;
    const double estimate = (double)d->bundle->programs[program].estimated_cycles / (clock_mhz(d) * 1e6);
    const double limit = d->options.timeout > 0 ? d->options.timeout : TIMEOUT + MARGIN * estimate;
    double pause = least(estimate / POLLS > SHORTEST_POLL ? estimate / POLLS : SHORTEST_POLL, LONGEST_POLL);
    if (d->options.interrupt) pause = INTERRUPT_WAIT;
    const double end = now(d) + limit;
    for (;;) {
        const bool late = now(d) >= end; /* before the status, so that a late host still sees a timely end */
        if (!get(d, EMOE_REG_STATUS, &status, error)) return false;
        /* Busy with an error: its transfers may never be answered. */
        if ((status & EMOE_STATUS_ERROR) || !(status & EMOE_STATUS_BUSY)) return acknowledge(d, program, status, error);
        if (late) return fail_late(d, program, limit, error);
        if (!d->platform->wait(d->platform->context, least(pause, limit), d->options.interrupt, error)) return false;
    }
}

bool emoe_device_run(struct emoe_device *d, uint32_t program, uint32_t slot, struct emoe_result *result,
                     struct emoe_error *error) {
    struct emoe_error own;
    if (error == NULL) error = &own;
    for (uint32_t attempt = 1;; attempt++) {
        const double begin = now(d);
        error->status = EMOE_OK;
        if (emoe_device_start(d, program, slot, error) && emoe_device_wait(d, program, error)) {
            result->seconds = now(d) - begin;
            result->attempts = attempt;
            return get_wide(d, EMOE_REG_CYCLES, &result->cycles, error);
        }
        const bool transient = error->status == EMOE_TIMEOUT ||
                               (error->status == EMOE_STOPPED &&
                                (error->code == EMOE_ERROR_READ_BUS || error->code == EMOE_ERROR_WRITE_BUS ||
                                 error->code == EMOE_ERROR_WATCHDOG));
        if (error->status == EMOE_TIMEOUT || error->status == EMOE_STOPPED)
            (void)snprintf(d->failure, sizeof d->failure, "%.250s", error->text);
        if (attempt > d->options.retries || !transient) return false;
    }
}

bool emoe_device_read(struct emoe_device *d, uint32_t program, uint32_t slot, uint32_t sequence, int16_t *raw,
                      struct emoe_error *error) {
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (!check_use(d, program, slot, error)) return false;
    const struct emoe_program *p = d->bundle->programs + program;
    if (sequence >= p->sequence_count)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "sequence must be below %" PRIu32 ", not %" PRIu32,
                         p->sequence_count, sequence);
    if (!d->platform->invalidate(d->platform->context, d->outputs + slot, error)) return false;
    emoe_gather(d->bundle, p->sequences + sequence, d->outputs[slot].bytes, raw);
    return true;
}

bool emoe_device_expert_load(struct emoe_device *d, uint32_t block, uint32_t *tokens, struct emoe_error *error) {
    struct emoe_error own;
    uint32_t known;
    if (error == NULL) error = &own;
    if (!check_use(d, 0, 0, error) || !get(d, EMOE_REG_MOE_BLOCKS, &known, error)) return false;
    if (block >= known)
        return emoe_fail(error, EMOE_BAD_ARGUMENT,
                         "block must be below %" PRIu32 ", the MoE blocks whose loads are known, not %" PRIu32, known,
                         block);
    if (!put(d, EMOE_REG_MOE_BLOCK, block, error)) return false;
    for (uint32_t expert = 0; expert < d->bundle->model.num_experts; expert++)
        if (!get(d, EMOE_REG_EXPERT_LOAD + 4 * expert, tokens + expert, error)) return false;
    return true;
}
