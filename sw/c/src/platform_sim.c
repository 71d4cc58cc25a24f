/* The Verilated accelerator as a platform: the C interface of sim/edgemoe_sim/harness.cpp. Its memory has a cache that
 * is not coherent, as a board's: each buffer has a copy until it is flushed or invalidated. */
#define _POSIX_C_SOURCE 200809L

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define PAGE 4096u
#define FRAME_BYTES (32u << 20) /* for programs, inputs and outputs */
#define MOST_BUFFERS (1 + EMOE_MOST_PROGRAMS + 2 * EMOE_MOST_SLOTS)
#define LONGEST_RUN 50000

struct dram_options { /* DramOptions of dram_model.h */
    uint64_t latency;
    double stall;
    uint64_t seed;
    double bytes_per_cycle;
    uint32_t burst_beats, outstanding;
    double refresh_period, refresh_cycles;
};

struct simulation {
    void *library, *handle;
    uint8_t *dram;
    size_t size, used;
    double clock_mhz;
    uint8_t *copies[MOST_BUFFERS];
    uint32_t buffers;
    void *(*create)(uint8_t *bytes, uint64_t size, const struct dram_options *options);
    void (*destroy)(void *handle);
    int (*write)(void *handle, uint32_t address, uint32_t value);
    int (*read)(void *handle, uint32_t address, uint32_t *value);
    int (*run)(void *handle, uint64_t cycles, const uint16_t *watch);
    uint64_t (*cycles)(void *handle);
    const char *(*violation)(void *handle);
};

static bool check(struct simulation *s, int failed, struct emoe_error *error) {
    const char *violation = s->violation(s->handle);
    if (violation[0] != '\0') return emoe_fail(error, EMOE_DEVICE, "simulated accelerator: %.300s", violation);
    return !failed || emoe_fail(error, EMOE_DEVICE, "simulated accelerator: its registers do not answer");
}

static bool sim_read(void *context, uint32_t offset, uint32_t *value, struct emoe_error *error) {
    struct simulation *s = context;
    return check(s, s->read(s->handle, offset, value), error);
}

static bool sim_write(void *context, uint32_t offset, uint32_t value, struct emoe_error *error) {
    struct simulation *s = context;
    return check(s, s->write(s->handle, offset, value), error);
}

static bool sim_allocate(void *context, size_t size, struct emoe_buffer *buffer, struct emoe_error *error) {
    struct simulation *s = context;
    if (s->buffers >= MOST_BUFFERS || size > s->size - s->used)
        return emoe_fail(error, EMOE_NO_MEMORY, "the simulated DRAM of %zu bytes has no %zu bytes left", s->size, size);
    uint8_t *copy = calloc(size, 1);
    if (copy == NULL) return emoe_fail(error, EMOE_NO_MEMORY, "there is no memory for a buffer of %zu bytes", size);
    s->copies[s->buffers++] = copy;
    buffer->bytes = copy;
    buffer->address = s->used;
    buffer->size = size;
    s->used += (size + PAGE - 1) / PAGE * PAGE;
    if (s->used > s->size) s->used = s->size;
    return true;
}

static void sim_release_all(void *context) {
    struct simulation *s = context;
    while (s->buffers > 0) free(s->copies[--s->buffers]);
    s->used = 0;
}

static bool sim_flush(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    struct simulation *s = context;
    (void)error;
    memcpy(s->dram + buffer->address, buffer->bytes, buffer->size);
    return true;
}

static bool sim_invalidate(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    struct simulation *s = context;
    (void)error;
    memcpy(buffer->bytes, s->dram + buffer->address, buffer->size);
    return true;
}

static bool sim_wait(void *context, double seconds, bool interrupt, struct emoe_error *error) {
    static const uint16_t watch[EMOE_ENGINE_LARGEST + 1] = {0};
    struct simulation *s = context;
    const double cycles = seconds * s->clock_mhz * 1e6;
    (void)interrupt;
    (void)s->run(s->handle, cycles < 1 ? 1 : cycles > LONGEST_RUN ? LONGEST_RUN : (uint64_t)(cycles + 0.5), watch);
    return check(s, 0, error);
}

static double sim_now(void *context) {
    struct simulation *s = context;
    return (double)s->cycles(s->handle) / (s->clock_mhz * 1e6);
}

static void sim_close(void *context) {
    struct simulation *s = context;
    sim_release_all(s);
    if (s->handle != NULL) s->destroy(s->handle);
    if (s->library != NULL) (void)dlclose(s->library);
    free(s->dram);
    free(s);
}

/* A function of the library; POSIX lets a pointer to an object be one to a function. */
static bool find(struct simulation *s, const char *name, void *function, struct emoe_error *error) {
    void *found = dlsym(s->library, name);
    if (found == NULL)
        return emoe_fail(error, EMOE_DEVICE, "the simulator lacks %s: it is none of edgemoe_sim's", name);
    memcpy(function, &found, sizeof found);
    return true;
}

static bool start(struct simulation *s, const char *path, const struct emoe_config *config, struct emoe_error *error) {
    struct dram_options options = {0, 0, 0, 0, 256, 64, 0, 0};
    s->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (s->library == NULL) return emoe_fail(error, EMOE_DEVICE, "the simulator cannot be loaded: %.300s", dlerror());
    if (!find(s, "em_create", &s->create, error) || !find(s, "em_destroy", &s->destroy, error) ||
        !find(s, "em_write", &s->write, error) || !find(s, "em_read", &s->read, error) ||
        !find(s, "em_run", &s->run, error) || !find(s, "em_cycles", &s->cycles, error) ||
        !find(s, "em_violation", &s->violation, error))
        return false;
    const double ports = config->axi_masters * config->axi_bytes;
    const double dram = config->dram_gb_per_second * 1000 / config->clock_mhz;
    options.latency = config->dram_latency;
    options.bytes_per_cycle = config->dram_gb_per_second > 0 && dram < ports ? dram : 0;
    s->dram = calloc(s->size, 1);
    s->handle = s->dram == NULL ? NULL : s->create(s->dram, s->size, &options);
    return s->handle != NULL || emoe_fail(error, EMOE_NO_MEMORY, "there is no memory for a DRAM of %zu bytes", s->size);
}

bool emoe_sim_open(struct emoe_platform *platform, const char *library, const struct emoe_bundle *bundle,
                   struct emoe_error *error) {
    struct simulation *s = calloc(1, sizeof *s);
    if (s == NULL) return emoe_fail(error, EMOE_NO_MEMORY, "there is no memory for a simulation");
    s->size = (size_t)((bundle->data_bytes + FRAME_BYTES + PAGE - 1) / PAGE * PAGE);
    s->clock_mhz = bundle->config.clock_mhz;
    if (!start(s, library, &bundle->config, error)) {
        sim_close(s);
        return false;
    }
    const struct emoe_platform made = {s,         "sim",        s->clock_mhz,    true,      sim_read,
                                       sim_write, sim_allocate, sim_release_all, sim_flush, sim_invalidate,
                                       sim_wait,  sim_now,      sim_close};
    *platform = made;
    return true;
}
