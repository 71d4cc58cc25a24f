/* Runs every program of a bundle on an accelerator at the other end of a pipe: tests/support/pipe_platform.py. So the
 * C driver can run on another processor than the simulation, or on one that is emulated.
 *
 *   run-by-pipe BUNDLE PICTURE FOLDER 3<from 4>to */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edgemoe.h"

#define FROM 3
#define TO 4
#define MOST_BUFFERS 128

struct request {
    uint32_t what, offset;
    uint64_t address, size;
    double seconds;
};

static uint8_t *buffers[MOST_BUFFERS];
static unsigned buffer_count;

static bool transfer(int file, void *bytes, size_t size, bool out) {
    uint8_t *at = bytes;
    while (size > 0) {
        const ssize_t part = out ? write(file, at, size) : read(file, at, size);
        if (part <= 0) return false;
        at += part;
        size -= (size_t)part;
    }
    return true;
}

/* Send a request and some bytes, and get an answer. */
static bool ask(struct request request, const void *bytes, size_t size, void *answer, size_t answer_size,
                struct emoe_error *error) {
    if (transfer(TO, &request, sizeof request, true) &&
        (size == 0 || transfer(TO, (void *)(uintptr_t)bytes, size, true)) && transfer(FROM, answer, answer_size, false))
        return true;
    error->status = EMOE_DEVICE;
    (void)snprintf(error->text, sizeof error->text, "the other end of the pipe is gone");
    return false;
}

static bool pipe_read(void *context, uint32_t offset, uint32_t *value, struct emoe_error *error) {
    (void)context;
    return ask((struct request){'R', offset, 0, 0, 0}, NULL, 0, value, sizeof *value, error);
}

static bool pipe_write(void *context, uint32_t offset, uint32_t value, struct emoe_error *error) {
    uint32_t done;
    (void)context;
    return ask((struct request){'W', offset, value, 0, 0}, NULL, 0, &done, sizeof done, error);
}

static bool pipe_allocate(void *context, size_t size, struct emoe_buffer *buffer, struct emoe_error *error) {
    (void)context;
    if (buffer_count >= MOST_BUFFERS) return false;
    buffer->bytes = buffers[buffer_count++] = calloc(size, 1);
    buffer->size = size;
    return buffer->bytes != NULL &&
           ask((struct request){'A', 0, 0, size, 0}, NULL, 0, &buffer->address, sizeof buffer->address, error);
}

static void pipe_release_all(void *context) {
    (void)context;
    while (buffer_count > 0) free(buffers[--buffer_count]);
}

static bool pipe_flush(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    uint32_t done;
    (void)context;
    return ask((struct request){'F', 0, buffer->address, buffer->size, 0}, buffer->bytes, buffer->size, &done,
               sizeof done, error);
}

static bool pipe_invalidate(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    (void)context;
    return ask((struct request){'I', 0, buffer->address, buffer->size, 0}, NULL, 0, buffer->bytes, buffer->size, error);
}

static bool pipe_wait(void *context, double seconds, bool interrupt, struct emoe_error *error) {
    uint32_t done;
    (void)context;
    (void)interrupt;
    return ask((struct request){'T', 0, 0, 0, seconds}, NULL, 0, &done, sizeof done, error);
}

static double pipe_now(void *context) {
    struct emoe_error error;
    double now = 0;
    (void)context;
    (void)ask((struct request){'N', 0, 0, 0, 0}, NULL, 0, &now, sizeof now, &error);
    return now;
}

static void pipe_close(void *context) { (void)context; }

static bool run(struct emoe_device *device, const uint8_t *picture, const char *folder, struct emoe_error *error) {
    const struct emoe_bundle *bundle = device->bundle;
    struct emoe_result result;
    for (uint32_t place = 0; place < bundle->most_images; place++)
        if (!emoe_device_pack(device, 0, place, picture, error)) return false;
    for (uint32_t number = 0; number < bundle->program_count; number++) {
        const struct emoe_program *program = bundle->programs + number;
        if (!emoe_device_run(device, number, 0, &result, error)) return false;
        for (uint32_t i = 0; i < program->sequence_count; i++) {
            const struct emoe_task *task = bundle->tasks + program->sequences[i].task;
            int16_t *raw = calloc(emoe_raw_count(task), sizeof *raw);
            char path[512];
            (void)snprintf(path, sizeof path, "%s/%u-%u.raw", folder, (unsigned)number, (unsigned)i);
            FILE *file = fopen(path, "wb");
            const bool good = raw != NULL && file != NULL && emoe_device_read(device, number, 0, i, raw, error);
            if (good) (void)fwrite(raw, sizeof *raw, emoe_raw_count(task), file);
            if (file != NULL) (void)fclose(file);
            free(raw);
            if (!good) return false;
        }
        (void)printf("%u %llu", (unsigned)number, (unsigned long long)result.cycles);
        uint32_t tokens[256];
        if (bundle->model.num_experts > 0 && emoe_device_expert_load(device, 0, tokens, error))
            for (uint32_t expert = 0; expert < bundle->model.num_experts; expert++)
                (void)printf(" %u", (unsigned)tokens[expert]);
        (void)printf("\n");
    }
    return true;
}

int main(int argc, char **argv) {
    struct emoe_platform platform = {
        NULL,       "pipe",          0,         false,    pipe_read, pipe_write, pipe_allocate, pipe_release_all,
        pipe_flush, pipe_invalidate, pipe_wait, pipe_now, pipe_close};
    struct emoe_error error = {EMOE_OK, 0, 0, "no reason"};
    struct emoe_bundle bundle;
    struct emoe_device device;
    if (argc != 4) return 2;
    bool good = emoe_bundle_load(&bundle, argv[1], &error);
    uint8_t *picture = good ? calloc(1, emoe_picture_bytes(&bundle)) : NULL;
    good = picture != NULL && emoe_picture_read(&bundle, argv[2], picture, &error) &&
           emoe_device_open(&device, &platform, &bundle, NULL, &error) && run(&device, picture, argv[3], &error) &&
           emoe_device_close(&device, &error);
    free(picture);
    emoe_bundle_free(&bundle);
    if (!good) (void)fprintf(stderr, "edgemoe: %s\n", error.text);
    return !good;
}
