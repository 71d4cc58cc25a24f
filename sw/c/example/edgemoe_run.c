/* Runs every program of a bundle on pictures: an example of the C runtime, and what its tests start.
 *
 *   edgemoe-run check BUNDLE...                     say of each whether it can be used
 *   edgemoe-run host BUNDLE PICTURE FOLDER          without an accelerator: FOLDER/input.bin from the picture, and
 *                                                   decoded outputs and values from FOLDER/<task>.raw
 *   edgemoe-run run BUNDLE PICTURE... OPTION...     see USAGE */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "edgemoe.h"

#define MOST_PICTURES 16
#define TOP 5
#define LONGEST_PATH 4096

static const char USAGE[] =
    "usage: edgemoe-run check BUNDLE...\n"
    "       edgemoe-run host BUNDLE PICTURE FOLDER\n"
    "       edgemoe-run run BUNDLE PICTURE... [options]\n"
    "  pictures: PPM (P6), or the bare bytes of RGB\n"
    "  --sim LIBRARY               the simulated accelerator, a library that edgemoe_sim has built\n"
    "  --uio /dev/uio0             registers by UIO, or\n"
    "  --registers ADDRESS         by /dev/mem\n"
    "  --udmabuf udmabuf0          memory by u-dma-buf, or\n"
    "  --memory ADDRESS:SIZE       by /dev/mem, where the kernel leaves it alone\n"
    "  --clock MHZ                 of the accelerator, for timeouts\n"
    "  --task NAME                 this task's own program only\n"
    "  --out FOLDER                write raw outputs, decoded outputs and values there\n"
    "  --interrupt                 wait for the interrupt instead of polling\n"
    "  --retries N, --timeout SECONDS\n";

struct arguments {
    const char *bundle, *pictures[MOST_PICTURES], *library, *task, *out;
    unsigned picture_count;
    struct emoe_linux_options board;
    struct emoe_options options;
};

/* All memory of the loop over the programs. */
struct space {
    uint8_t *pictures;
    int16_t *raw;
    float *decoded;
    uint8_t *values;
};

static int complain(const struct emoe_error *error) {
    (void)fprintf(stderr, "edgemoe: %s\n", error->text);
    return 1;
}

static bool fail(struct emoe_error *error, const char *what, const char *name) {
    error->status = EMOE_BAD_ARGUMENT;
    (void)snprintf(error->text, sizeof error->text, "%s%.200s", what, name);
    return false;
}

/* The path of a file in a folder; false: it would not be whole. */
static bool join(char path[LONGEST_PATH], const char *folder, const char *stem, const char *suffix) {
    const int length = snprintf(path, LONGEST_PATH, "%s/%s.%s", folder, stem, suffix);
    return length >= 0 && length < LONGEST_PATH;
}

/* Before anything runs: results need it. */
static bool make_folder(const char *folder, struct emoe_error *error) {
    if (folder == NULL || mkdir(folder, 0777) == 0 || errno == EEXIST) return true;
    if (errno == ENAMETOOLONG) return fail(error, "this path is too long: ", folder);
    (void)snprintf(error->text, sizeof error->text, "cannot make the folder %.300s: %s", folder, strerror(errno));
    error->status = EMOE_BAD_FILE;
    return false;
}

static bool write_file(const char *folder, const char *stem, const char *suffix, const void *bytes, size_t size,
                       struct emoe_error *error) {
    char path[LONGEST_PATH];
    if (folder == NULL) return true;
    if (!join(path, folder, stem, suffix)) return fail(error, "this path is too long: ", folder);
    FILE *file = fopen(path, "wb");
    const bool written = file != NULL && fwrite(bytes, 1, size, file) == size;
    const bool closed = file != NULL && fclose(file) == 0;
    if (written && closed) return true;
    (void)snprintf(error->text, sizeof error->text, "cannot write %.300s: %s", path, strerror(errno));
    error->status = EMOE_BAD_FILE;
    return false;
}

static bool make_space(const struct emoe_bundle *bundle, struct space *space, struct emoe_error *error) {
    size_t raw = 1, decoded = 1, values = 1;
    for (uint32_t i = 0; i < bundle->task_count; i++) {
        const struct emoe_task *task = bundle->tasks + i;
        if (emoe_raw_count(task) > raw) raw = emoe_raw_count(task);
        if (emoe_decoded_count(bundle, task) > decoded) decoded = emoe_decoded_count(bundle, task);
        if (emoe_value_bytes(bundle, task) > values) values = emoe_value_bytes(bundle, task);
    }
    space->pictures = calloc(MOST_PICTURES, emoe_picture_bytes(bundle));
    space->raw = calloc(raw, sizeof *space->raw);
    space->decoded = calloc(decoded, sizeof *space->decoded);
    space->values = calloc(values, 1);
    return (space->pictures != NULL && space->raw != NULL && space->decoded != NULL && space->values != NULL) ||
           fail(error, "there is no memory for pictures and outputs", "");
}

static void free_space(struct space *space) {
    free(space->pictures);
    free(space->raw);
    free(space->decoded);
    free(space->values);
}

/* The best classes, of equal ones the lower number first. */
static void print_classes(const struct emoe_task *task, const float *decoded) {
    uint32_t last = 0;
    for (unsigned place = 0; place < TOP && place < task->channels; place++) {
        uint32_t best = task->channels;
        for (uint32_t c = 0; c < task->channels; c++) {
            const bool later = place == 0 || decoded[c] < decoded[last] || (decoded[c] <= decoded[last] && c > last);
            if (later && (best == task->channels || decoded[c] > decoded[best])) best = c;
        }
        if (best == task->channels) break;
        if (task->labels != NULL)
            (void)printf("  %u. %s (%.4g)\n", place + 1, task->labels[best], (double)decoded[best]);
        else
            (void)printf("  %u. class %" PRIu32 " (%.4g)\n", place + 1, best, (double)decoded[best]);
        last = best;
    }
}

/* Raw outputs are there: decode them, print and write. */
static bool show(const struct emoe_bundle *bundle, const struct emoe_task *task, struct space *space, const char *stem,
                 const char *cost, const char *folder, bool has_raw_file, struct emoe_error *error) {
    char hash[65];
    const size_t raw = emoe_raw_count(task) * sizeof *space->raw;
    emoe_sha256_text(space->raw, raw, hash);
    (void)printf("%s: %ssha256 of raw %s\n", stem, cost, hash);
    if (!has_raw_file && !write_file(folder, stem, "raw", space->raw, raw, error)) return false;
    if (!emoe_decode(bundle, task, space->raw, space->decoded, error)) return false;
    emoe_values(bundle, task, space->raw, space->decoded, space->values);
    if (task->kind == EMOE_CLASSIFICATION) print_classes(task, space->decoded);
    return write_file(folder, stem, "decoded", space->decoded, emoe_decoded_count(bundle, task) * sizeof(float),
                      error) &&
           write_file(folder, stem, "values", space->values, emoe_value_bytes(bundle, task), error);
}

/* One program, on as many pictures as it takes. */
static bool run_program(struct emoe_device *device, uint32_t number, const struct arguments *a, struct space *space,
                        struct emoe_error *error) {
    const struct emoe_bundle *bundle = device->bundle;
    const struct emoe_program *program = bundle->programs + number;
    struct emoe_result result;
    for (uint32_t i = 0; i < program->images; i++)
        if (!emoe_device_pack(device, 0, i, space->pictures + i % a->picture_count * emoe_picture_bytes(bundle), error))
            return false;
    if (!emoe_device_run(device, number, 0, &result, error)) return false;
    for (uint32_t i = 0; i < program->sequence_count; i++) {
        const struct emoe_task *task = bundle->tasks + program->sequences[i].task;
        char stem[128], cost[96] = "";
        if (number < bundle->task_count)
            (void)snprintf(stem, sizeof stem, "%s", task->name);
        else
            (void)snprintf(stem, sizeof stem, "joint%" PRIu32 "-%" PRIu32 "-%s", number - bundle->task_count,
                           program->sequences[i].image, task->name);
        if (i == 0)
            (void)snprintf(cost, sizeof cost, "%" PRIu64 " cycles, %.3f ms, ", result.cycles, 1e3 * result.seconds);
        if (!emoe_device_read(device, number, 0, i, space->raw, error) ||
            !show(bundle, task, space, stem, cost, a->out, false, error))
            return false;
    }
    return true;
}

static bool run_all(struct emoe_platform *platform, const struct emoe_bundle *bundle, const struct arguments *a,
                    struct space *space, struct emoe_error *error) {
    struct emoe_device device;
    const int only = a->task == NULL ? 0 : emoe_find_task(bundle, a->task);
    if (only < 0) return fail(error, "the bundle has no task ", a->task);
    if (!emoe_device_open(&device, platform, bundle, &a->options, error)) return false;
    bool good = true;
    for (uint32_t i = 0; good && i < bundle->program_count; i++)
        if (a->task == NULL || i == (uint32_t)only) good = run_program(&device, i, a, space, error);
    return emoe_device_close(&device, good ? error : NULL) && good;
}

static bool open_platform(struct emoe_platform *platform, const struct emoe_bundle *bundle, const struct arguments *a,
                          struct emoe_error *error) {
    if (a->library != NULL) return emoe_sim_open(platform, a->library, bundle, error);
    if ((a->board.uio == NULL && a->board.registers == 0) || (a->board.udmabuf == NULL && a->board.memory_size == 0))
        return fail(error,
                    "say where the accelerator is: --sim, or registers (--uio, --registers) and memory "
                    "(--udmabuf, --memory)",
                    "");
    return emoe_linux_open(platform, &a->board, error);
}

static bool run(const struct arguments *a, struct emoe_error *error) {
    struct emoe_bundle bundle;
    struct emoe_platform platform;
    struct space space = {NULL, NULL, NULL, NULL};
    if (!emoe_bundle_load(&bundle, a->bundle, error)) return false;
    bool good = make_space(&bundle, &space, error);
    for (unsigned i = 0; good && i < a->picture_count; i++)
        good = emoe_picture_read(&bundle, a->pictures[i], space.pictures + i * emoe_picture_bytes(&bundle), error);
    if (good) good = open_platform(&platform, &bundle, a, error);
    if (good) {
        good = run_all(&platform, &bundle, a, &space, error);
        platform.close(platform.context);
    }
    free_space(&space);
    emoe_bundle_free(&bundle);
    return good;
}

/* What the host does before and after the accelerator. */
static bool host(const char *path, const char *picture, const char *folder, struct emoe_error *error) {
    struct emoe_bundle bundle;
    struct space space = {NULL, NULL, NULL, NULL};
    if (!emoe_bundle_load(&bundle, path, error)) return false;
    uint8_t *input = calloc(1, (size_t)bundle.input_bytes);
    bool good = make_space(&bundle, &space, error) && input != NULL &&
                emoe_picture_read(&bundle, picture, space.pictures, error);
    if (good) {
        emoe_pack_picture(&bundle, space.pictures, input);
        good = write_file(folder, "input", "bin", input, (size_t)bundle.input_bytes, error);
    }
    for (uint32_t i = 0; good && i < bundle.task_count; i++) {
        char name[LONGEST_PATH];
        FILE *file = join(name, folder, bundle.tasks[i].name, "raw") ? fopen(name, "rb") : NULL;
        if (file == NULL) continue;
        const size_t count = emoe_raw_count(bundle.tasks + i);
        good = fread(space.raw, sizeof *space.raw, count, file) == count || fail(error, "cut off: ", name);
        (void)fclose(file);
        good = good && show(&bundle, bundle.tasks + i, &space, bundle.tasks[i].name, "", folder, true, error);
    }
    free(input);
    free_space(&space);
    emoe_bundle_free(&bundle);
    return good;
}

static int check(char **paths, int count) {
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        struct emoe_error error = {EMOE_OK, 0, 0, ""};
        struct emoe_bundle bundle;
        if (emoe_bundle_load(&bundle, paths[i], &error)) {
            (void)printf("%s: %s for config %s, %" PRIu32 " tasks, %" PRIu32 " programs\n", paths[i], bundle.model.name,
                         bundle.config.name, bundle.task_count, bundle.program_count);
            emoe_bundle_free(&bundle);
        } else {
            wrong += complain(&error);
        }
    }
    return wrong > 0;
}

static bool parse_number(const char *text, double *value) {
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= 0;
}

static bool parse_address(const char *text, char end_with, uint64_t *value, const char **rest) {
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 0);
    *rest = end + 1;
    return errno == 0 && end != text && *end == end_with && text[0] != '-';
}

static bool parse_option(struct arguments *a, const char *name, const char *value) {
    double number = 0;
    const char *rest;
    if (strcmp(name, "--sim") == 0) return a->library = value, true;
    if (strcmp(name, "--uio") == 0) return a->board.uio = value, true;
    if (strcmp(name, "--udmabuf") == 0) return a->board.udmabuf = value, true;
    if (strcmp(name, "--task") == 0) return a->task = value, true;
    if (strcmp(name, "--out") == 0) return a->out = value, true;
    if (strcmp(name, "--registers") == 0) return parse_address(value, '\0', &a->board.registers, &rest);
    if (strcmp(name, "--memory") == 0)
        return parse_address(value, ':', &a->board.memory, &rest) &&
               parse_address(rest, '\0', &a->board.memory_size, &rest);
    if (!parse_number(value, &number)) return false;
    if (strcmp(name, "--clock") == 0) return a->board.clock_mhz = number, number > 0;
    if (strcmp(name, "--timeout") == 0) return a->options.timeout = number, true;
    if (strcmp(name, "--retries") == 0 && number <= 1000) return a->options.retries = (uint32_t)number, true;
    return false;
}

static bool parse(struct arguments *a, int count, char **words) {
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--interrupt") == 0) {
            a->options.interrupt = true;
        } else if (strncmp(words[i], "--", 2) == 0) {
            if (i + 1 >= count || !parse_option(a, words[i], words[i + 1])) return false;
            i++;
        } else if (a->bundle == NULL) {
            a->bundle = words[i];
        } else if (a->picture_count < MOST_PICTURES) {
            a->pictures[a->picture_count++] = words[i];
        } else {
            return false;
        }
    }
    return a->picture_count > 0;
}

static int act(int argc, char **argv) {
    struct emoe_error error = {EMOE_OK, 0, 0, ""};
    struct arguments arguments;
    memset(&arguments, 0, sizeof arguments);
    if (argc >= 3 && strcmp(argv[1], "check") == 0) return check(argv + 2, argc - 2);
    if (argc == 5 && strcmp(argv[1], "host") == 0)
        return make_folder(argv[4], &error) && host(argv[2], argv[3], argv[4], &error) ? 0 : complain(&error);
    if (argc >= 4 && strcmp(argv[1], "run") == 0 && parse(&arguments, argc - 2, argv + 2))
        return make_folder(arguments.out, &error) && run(&arguments, &error) ? 0 : complain(&error);
    (void)fputs(USAGE, stderr);
    return 2;
}

int main(int argc, char **argv) {
    const int status = act(argc, argv);
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    (void)fprintf(stderr, "edgemoe: the output cannot be written: %s\n", strerror(errno));
    return 1;
}
