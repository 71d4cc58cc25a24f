/* A board under Linux. Registers: an UIO device, or a physical address by /dev/mem. Memory: u-dma-buf, which is cached
 * and synchronised by hand, or memory that the kernel was told to leave alone, by /dev/mem and not cached. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* flock */
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define PAGE 4096u
#define REGISTER_BYTES ((size_t)1 << EMOE_REG_ADDRESS_BITS)

enum sync { SYNC_OFFSET, SYNC_SIZE, SYNC_DIRECTION, SYNC_FOR_CPU, SYNC_FOR_DEVICE, SYNC_FILES };

struct board {
    int registers_file, memory_file, sync[SYNC_FILES];
    bool is_uio, armed; /* armed: the interrupt controller lets the interrupt through */
    volatile uint32_t *registers;
    uint8_t *memory;
    uint64_t address;
    size_t size, used, map_bytes;
};

static void settle(void) { __sync_synchronize(); }

static bool board_read(void *context, uint32_t offset, uint32_t *value, struct emoe_error *error) {
    struct board *b = context;
    (void)error;
    *value = b->registers[offset / 4];
    settle();
    return true;
}

static bool board_write(void *context, uint32_t offset, uint32_t value, struct emoe_error *error) {
    struct board *b = context;
    (void)error;
    settle(); /* buffers before the start that makes the accelerator read them */
    b->registers[offset / 4] = value;
    settle();
    return true;
}

static bool board_allocate(void *context, size_t size, struct emoe_buffer *buffer, struct emoe_error *error) {
    struct board *b = context;
    if (size > b->size - b->used)
        return emoe_fail(error, EMOE_NO_MEMORY,
                         "the accelerator's memory of %zu bytes has no %zu bytes left; make it larger", b->size, size);
    buffer->bytes = b->memory + b->used;
    buffer->address = b->address + b->used;
    buffer->size = size;
    const size_t pages = (size + PAGE - 1) / PAGE * PAGE; /* no two buffers share a line of the cache */
    b->used = pages > b->size - b->used ? b->size : b->used + pages;
    return true;
}

static void board_release_all(void *context) { ((struct board *)context)->used = 0; }

static bool write_number(int file, size_t value) {
    char text[24];
    const int length = snprintf(text, sizeof text, "%zu\n", value);
    return pwrite(file, text, (size_t)length, 0) == length;
}

/* Directions are those of the kernel's DMA interface: 1 to the device, 2 from it. */
static bool synchronise(struct board *b, const struct emoe_buffer *buffer, unsigned direction, enum sync whom,
                        struct emoe_error *error) {
    settle();
    if (b->sync[0] < 0) return true; /* not cached */
    if (write_number(b->sync[SYNC_OFFSET], (size_t)(buffer->address - b->address)) &&
        write_number(b->sync[SYNC_SIZE], buffer->size) && write_number(b->sync[SYNC_DIRECTION], direction) &&
        write_number(b->sync[whom], 1))
        return true;
    return emoe_fail(error, EMOE_DEVICE, "u-dma-buf does not synchronise %zu bytes: %s", buffer->size, strerror(errno));
}

static bool board_flush(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    return synchronise(context, buffer, 1, SYNC_FOR_DEVICE, error);
}

static bool board_invalidate(void *context, const struct emoe_buffer *buffer, struct emoe_error *error) {
    return synchronise(context, buffer, 2, SYNC_FOR_CPU, error);
}

static bool board_wait(void *context, double seconds, bool interrupt, struct emoe_error *error) {
    struct board *b = context;
    if (!interrupt || !b->is_uio) {
        const struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
        (void)nanosleep(&time, NULL); /* a signal ends it early: perhaps less */
        return true;
    }
    const int32_t on =
        1; /* UIO switches an interrupt off when it comes; the level stays until STATUS is acknowledged */
    if (!b->armed && write(b->registers_file, &on, sizeof on) != (ssize_t)sizeof on)
        return emoe_fail(error, EMOE_DEVICE, "UIO does not enable the interrupt: %s", strerror(errno));
    b->armed = true;
    struct pollfd waiting = {b->registers_file, POLLIN, 0};
    const int found = poll(&waiting, 1, (int)(seconds * 1e3) + 1);
    if (found > 0) {
        int32_t count;
        b->armed = false;
        if (read(b->registers_file, &count, sizeof count) != (ssize_t)sizeof count)
            return emoe_fail(error, EMOE_DEVICE, "UIO does not give its interrupts: %s", strerror(errno));
    }
    return found >= 0 || errno == EINTR ||
           emoe_fail(error, EMOE_DEVICE, "UIO cannot be waited for: %s", strerror(errno));
}

static double board_now(void *context) {
    struct timespec time = {0, 0};
    (void)context;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void board_close(void *context) {
    struct board *b = context;
    if (b->registers != NULL) (void)munmap((void *)(uintptr_t)b->registers, REGISTER_BYTES);
    if (b->memory != NULL) (void)munmap(b->memory, b->map_bytes);
    for (unsigned i = 0; i < SYNC_FILES; i++)
        if (b->sync[i] >= 0) (void)close(b->sync[i]);
    if (b->registers_file >= 0) (void)close(b->registers_file);
    if (b->memory_file >= 0) (void)close(b->memory_file);
    free(b);
}

/* Open a file; one that only one driver may have is locked, until it is closed or the process ends. */
static bool open_file(const char *path, int flags, bool alone, int *file, struct emoe_error *error) {
    *file = open(path, flags | O_CLOEXEC);
    if (*file < 0)
        return emoe_fail(error, EMOE_DEVICE, "%.160s: %s%s", path, strerror(errno),
                         errno == EACCES || errno == EPERM ? "; run as root"
                         : errno == ENOENT                 ? "; is its driver loaded?"
                                                           : "");
    if (alone && flock(*file, LOCK_EX | LOCK_NB) != 0)
        return emoe_fail(error, EMOE_DEVICE, "%.160s: another driver has it", path);
    return true;
}

/* Behind the end of a plain file, which stands for a device in tests or by mistake, a mapping has nothing. */
static bool map(int file, size_t size, uint64_t offset, void *result, struct emoe_error *error) {
    struct stat about;
    if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) &&
        (uint64_t)about.st_size < (uint64_t)size + offset)
        return emoe_fail(error, EMOE_DEVICE, "%zu bytes at 0x%" PRIx64 " are not in this file, which is no device",
                         size, offset);
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)offset);
    if (found == MAP_FAILED)
        return emoe_fail(error, EMOE_DEVICE, "%zu bytes at 0x%" PRIx64 " cannot be mapped: %s", size, offset,
                         strerror(errno));
    memcpy(result, &found, sizeof found);
    return true;
}

/* A number in a file of sysfs. */
static bool read_number(const char *folder, const char *name, uint64_t *value, struct emoe_error *error) {
    char path[320], text[64] = "", *end;
    int file;
    (void)snprintf(path, sizeof path, "%.250s/%s", folder, name);
    if (!open_file(path, O_RDONLY, false, &file, error)) return false;
    const ssize_t length = read(file, text, sizeof text - 1);
    (void)close(file);
    *value = strtoull(text, &end, 0); /* phys_addr is hexadecimal, size is not */
    return (length > 0 && end != text) || emoe_fail(error, EMOE_DEVICE, "%.160s: there is no number in it", path);
}

static bool open_udmabuf(struct board *b, const struct emoe_linux_options *o, struct emoe_error *error) {
    static const char *const names[SYNC_FILES] = {"sync_offset", "sync_size", "sync_direction", "sync_for_cpu",
                                                  "sync_for_device"};
    const char *classes = o->classes != NULL ? o->classes : "/sys/class",
               *devices = o->devices != NULL ? o->devices : "/dev";
    char folder[256], path[320];
    uint64_t size;
    (void)snprintf(folder, sizeof folder, "%.120s/u-dma-buf/%.64s", classes, o->udmabuf);
    if (access(folder, F_OK) != 0)
        (void)snprintf(folder, sizeof folder, "%.120s/udmabuf/%.64s", classes, o->udmabuf); /* its older name */
    (void)snprintf(path, sizeof path, "%.120s/%.64s", devices, o->udmabuf);
    if (!read_number(folder, "phys_addr", &b->address, error) || !read_number(folder, "size", &size, error) ||
        !open_file(path, O_RDWR, true, &b->memory_file, error))
        return false;
    if (size == 0 || size > SIZE_MAX / 2)
        return emoe_fail(error, EMOE_DEVICE, "%.160s: its size cannot be %" PRIu64, folder, size);
    b->size = b->map_bytes = (size_t)size;
    for (unsigned i = 0; i < SYNC_FILES; i++) {
        (void)snprintf(path, sizeof path, "%.250s/%s", folder, names[i]);
        if (!open_file(path, O_WRONLY, false, b->sync + i, error)) return false;
    }
    return map(b->memory_file, b->size, 0, &b->memory, error);
}

static bool open_board(struct board *b, const struct emoe_linux_options *o, struct emoe_error *error) {
    const char *mem = o->mem != NULL ? o->mem : "/dev/mem";
    b->is_uio = o->uio != NULL;
    if (!open_file(b->is_uio ? o->uio : mem, O_RDWR | O_SYNC, b->is_uio, &b->registers_file, error) ||
        !map(b->registers_file, REGISTER_BYTES, b->is_uio ? 0 : o->registers, &b->registers, error))
        return false;
    if (o->udmabuf != NULL) return open_udmabuf(b, o, error);
    if (o->memory_size == 0 || o->memory_size > SIZE_MAX / 2 || o->memory % PAGE != 0 || o->memory_size % PAGE != 0)
        return emoe_fail(error, EMOE_BAD_ARGUMENT, "the accelerator's memory must be whole pages of %u bytes", PAGE);
    b->address = o->memory;
    b->size = b->map_bytes = (size_t)o->memory_size;
    return open_file(mem, O_RDWR | O_SYNC, false, &b->memory_file, error) &&
           map(b->memory_file, b->size, o->memory, &b->memory, error);
}

bool emoe_linux_open(struct emoe_platform *platform, const struct emoe_linux_options *options,
                     struct emoe_error *error) {
    struct board *b = calloc(1, sizeof *b);
    struct emoe_error own;
    if (error == NULL) error = &own;
    if (b == NULL) return emoe_fail(error, EMOE_NO_MEMORY, "there is no memory for a platform");
    b->registers_file = b->memory_file = -1;
    for (unsigned i = 0; i < SYNC_FILES; i++) b->sync[i] = -1;
    if (!open_board(b, options, error)) {
        board_close(b);
        return false;
    }
    const struct emoe_platform made = {b,
                                       options->uio != NULL ? "uio" : "mem",
                                       options->clock_mhz,
                                       b->is_uio,
                                       board_read,
                                       board_write,
                                       board_allocate,
                                       board_release_all,
                                       board_flush,
                                       board_invalidate,
                                       board_wait,
                                       board_now,
                                       board_close};
    *platform = made;
    return true;
}
