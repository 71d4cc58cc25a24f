/* A bundle's programs: their commands, and what the document says of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MOST_JOINT 64
#define MOST_SEQUENCES 64
#define MOST_PARTS 65536
#define MOST_VALUES (1u << 27) /* of a sequence's raw outputs */
#define MOST_CYCLES (INT64_C(1) << 40)
#define COMPILE "; compile it again with edgemoe compile"
#define FAIL(...) emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (" __VA_ARGS__)

static const struct emoe_tensor *find_tensor(const struct emoe_tensor *tensors, uint32_t count, const char *name) {
    for (uint32_t i = 0; i < count; i++)
        if (tensors[i].name_length == strlen(name) && memcmp(tensors[i].name, name, tensors[i].name_length) == 0)
            return tensors + i;
    return NULL;
}

static bool read_part(const struct emoe_json *item, struct emoe_part *part) {
    static const int64_t least[6] = {0, 0, 1, 0, 1, 1};
    uint32_t *const places[6] = {NULL, &part->token, &part->tokens, &part->channel, &part->channels, &part->stride};
    if (item->kind != EMOE_LIST || item->count != 6) return false;
    for (unsigned i = 0; i < 6; i++) {
        const struct emoe_json *number = item + 1 + i;
        if (number->kind != EMOE_INTEGER || number->integer < least[i] || number->integer > UINT32_MAX) return false;
        if (i == 0)
            part->offset = (uint64_t)number->integer;
        else
            *places[i] = (uint32_t)number->integer;
    }
    return true;
}

/* Where one sequence's outputs lie. */
static bool read_parts(struct emoe_bundle *bundle, struct emoe_sequence *sequence, const struct emoe_json *values,
                       const struct emoe_json *list, const char *name, struct emoe_error *error) {
    if (list->kind != EMOE_LIST || list->count < 1 || list->count > MOST_PARTS)
        return FAIL("%s: outputs must be lists)" COMPILE, name);
    struct emoe_part *parts = emoe_take(bundle, list->count, sizeof *parts, error);
    if (parts == NULL) return false;
    sequence->parts = parts;
    for (uint32_t i = (uint32_t)(list - values) + 1; i < list->next; i = values[i].next)
        if (!read_part(values + i, parts + sequence->part_count++))
            return FAIL("%s: an output must be six numbers)" COMPILE, name);
    return true;
}

static bool read_phases(struct emoe_program *program, const struct emoe_model *model, const struct emoe_json *values,
                        const struct emoe_json *entry, const char *name, struct emoe_error *error) {
    const struct emoe_json *phases = emoe_get(values, entry, "phases", EMOE_LIST, error);
    if (phases == NULL) return false;
    if (phases->count != 2 * model->depth + 2)
        return FAIL("%s: phases must be %" PRIu32 ")" COMPILE, name, 2 * model->depth + 2);
    for (uint32_t i = (uint32_t)(phases - values) + 1; i < phases->next; i = values[i].next) {
        const struct emoe_json *cycles = emoe_get(values, values + i, "estimated_cycles", EMOE_INTEGER, error);
        if (cycles == NULL) return false;
        if (cycles->integer < 0 || cycles->integer > MOST_CYCLES)
            return FAIL("%s: estimated_cycles is out of range)" COMPILE, name);
        program->estimated_cycles += (uint64_t)cycles->integer;
    }
    return true;
}

/* What tasks' own programs and others have in common. */
static bool read_program(struct emoe_bundle *bundle, struct emoe_program *program, const struct emoe_json *values,
                         const struct emoe_json *entry, const struct emoe_tensor *tensor, const char *name,
                         struct emoe_error *error) {
    uint32_t bytes;
    if (!read_phases(program, &bundle->model, values, entry, name, error) ||
        !emoe_get_integer(values, entry, "output_bytes", 1, UINT32_MAX, &bytes, error))
        return false;
    program->output_bytes = bytes;
    program->commands = tensor->bytes;
    if (tensor->size % EMOE_COMMAND_BYTES != 0 || tensor->size < 2 * EMOE_COMMAND_BYTES ||
        tensor->size / EMOE_COMMAND_BYTES > 65535)
        return FAIL("%s: the program has %" PRIu64 " bytes, which are not 2 to 65535 commands of 64)" COMPILE, name,
                    tensor->size);
    program->command_count = (uint32_t)(tensor->size / EMOE_COMMAND_BYTES);
    if (program->images > bundle->most_images) bundle->most_images = program->images;
    if (bytes > bundle->most_output_bytes) bundle->most_output_bytes = bytes;
    return emoe_check_parts(bundle, program, name, error) && emoe_check_program(bundle, program, name, error);
}

static bool read_own(struct emoe_bundle *bundle, struct emoe_program *program, uint32_t number,
                     const struct emoe_json *values, const struct emoe_json *tasks, const struct emoe_tensor *tensors,
                     uint32_t tensor_count, struct emoe_error *error) {
    static const char *const known[] = {"outputs",      "output_bytes", "output_rows", "output_channels",
                                        "output_scale", "phases",       "load_bytes",  NULL};
    struct emoe_task *task = (struct emoe_task *)(uintptr_t)(bundle->tasks + number);
    char name[96], tensor[96];
    uint32_t rows, channels;
    (void)snprintf(name, sizeof name, "task %s", task->name);
    (void)snprintf(tensor, sizeof tensor, "program.%s", task->name);
    const struct emoe_json *entry = emoe_get(values, tasks, task->name, EMOE_OBJECT, error);
    const struct emoe_tensor *commands = find_tensor(tensors, tensor_count, tensor);
    if (entry == NULL) return false;
    (void)snprintf(tensor, sizeof tensor, "trace.%s", task->name);
    if (commands == NULL || find_tensor(tensors, tensor_count, tensor) == NULL)
        return FAIL("tensor program or trace of %s is missing)" COMPILE, name);
    const struct emoe_json *outputs = emoe_get(values, entry, "outputs", EMOE_LIST, error);
    struct emoe_sequence *sequence = outputs == NULL ? NULL : emoe_take(bundle, 1, sizeof *sequence, error);
    if (sequence == NULL || !emoe_only(values, entry, name, known, error) ||
        !emoe_get_integer(values, entry, "output_rows", 1, 65536, &rows, error) ||
        !emoe_get_integer(values, entry, "output_channels", 1, 1 << 20, &channels, error) ||
        !emoe_get_number(values, entry, "output_scale", &task->scale, error))
        return false;
    if (rows != task->rows || channels != task->row_outputs)
        return FAIL("%s: outputs are %" PRIu32 " x %" PRIu32 ", but the model's head has %" PRIu32 " x %" PRIu32
                    ")" COMPILE,
                    name, rows, channels, task->rows, task->row_outputs);
    sequence->task = number;
    program->images = program->task_count = program->sequence_count = 1;
    program->sequences = sequence;
    return read_parts(bundle, sequence, values, outputs, name, error) &&
           read_program(bundle, program, values, entry, commands, name, error);
}

/* Sequences of a program of several: of each task one for every image; tasks are the model's, in its order. */
static bool read_sequences(struct emoe_bundle *bundle, struct emoe_program *program, const struct emoe_json *values,
                           const struct emoe_json *entry, const char *name, struct emoe_error *error) {
    const struct emoe_json *tasks = emoe_get(values, entry, "tasks", EMOE_LIST, error);
    const struct emoe_json *outputs = tasks == NULL ? NULL : emoe_get(values, entry, "outputs", EMOE_LIST, error);
    if (outputs == NULL || !emoe_get_integer(values, entry, "images", 1, MOST_SEQUENCES, &program->images, error))
        return false;
    program->task_count = tasks->count;
    if (tasks->count < 1 || tasks->count > bundle->task_count ||
        (uint64_t)tasks->count * program->images > MOST_SEQUENCES || outputs->count != tasks->count * program->images ||
        outputs->count < 2)
        return FAIL("%s: tasks, images and outputs are not those of a program of several)" COMPILE, name);
    struct emoe_sequence *sequences = emoe_take(bundle, outputs->count, sizeof *sequences, error);
    if (sequences == NULL) return false;
    program->sequences = sequences;
    const struct emoe_json *parts = outputs + 1;
    int last = -1;
    for (uint32_t i = 0; i < tasks->count; i++) {
        const struct emoe_json *label = tasks + 1 + i;
        int number = -1;
        for (uint32_t k = 0; k < bundle->task_count && label->kind == EMOE_STRING; k++)
            if (emoe_json_is(label, bundle->tasks[k].name)) number = (int)k;
        if (number <= last) return FAIL("%s: tasks must be the model's, in its order)" COMPILE, name);
        last = number;
        for (uint32_t image = 0; image < program->images; image++) {
            struct emoe_sequence *sequence = sequences + program->sequence_count++;
            sequence->task = (uint32_t)number;
            sequence->image = image;
            if (!read_parts(bundle, sequence, values, parts, name, error)) return false;
            parts = values + parts->next;
        }
    }
    return true;
}

static bool read_joint(struct emoe_bundle *bundle, struct emoe_program *program, uint32_t number,
                       const struct emoe_json *values, const struct emoe_json *entry, const struct emoe_tensor *tensors,
                       uint32_t tensor_count, struct emoe_error *error) {
    static const char *const known[] = {"tasks", "images", "outputs", "output_bytes", "phases", "load_bytes", NULL};
    char name[96], tensor[96];
    uint32_t tasks[MOST_SEQUENCES];
    (void)snprintf(name, sizeof name, "joint[%" PRIu32 "]", number);
    (void)snprintf(tensor, sizeof tensor, "joint_program.%" PRIu32, number);
    const struct emoe_tensor *commands = find_tensor(tensors, tensor_count, tensor);
    (void)snprintf(tensor, sizeof tensor, "joint_trace.%" PRIu32, number);
    if (commands == NULL || find_tensor(tensors, tensor_count, tensor) == NULL)
        return FAIL("tensor joint_program or joint_trace of %s is missing)" COMPILE, name);
    if (!emoe_only(values, entry, name, known, error) || !read_sequences(bundle, program, values, entry, name, error))
        return false;
    for (uint32_t i = 0; i < program->task_count; i++) tasks[i] = program->sequences[i * program->images].task;
    if (emoe_find_program(bundle, tasks, program->task_count, program->images) != (int)(program - bundle->programs))
        return FAIL("%s: another program is of the same tasks and images)" COMPILE, name);
    return read_program(bundle, program, values, entry, commands, name, error);
}

bool emoe_read_programs(struct emoe_bundle *bundle, const struct emoe_json *values, const struct emoe_json *tasks,
                        const struct emoe_json *joint, const struct emoe_tensor *tensors, uint32_t tensor_count,
                        struct emoe_error *error) {
    const struct emoe_tensor *data = find_tensor(tensors, tensor_count, "data");
    if (data == NULL || find_tensor(tensors, tensor_count, "graph") == NULL)
        return FAIL("tensor data or graph is missing)" COMPILE);
    if (joint->count > MOST_JOINT || tasks->count != bundle->task_count || data->size > UINT32_MAX ||
        tensor_count != 2 + 2 * (bundle->task_count + joint->count))
        return FAIL("its tasks, programs and tensors are not as many as each other)" COMPILE);
    struct emoe_program *programs =
        emoe_take(bundle, (size_t)bundle->task_count + joint->count, sizeof *programs, error);
    if (programs == NULL) return false;
    bundle->programs = programs;
    bundle->data = data->bytes;
    bundle->data_bytes = data->size;
    for (uint32_t i = 0; i < bundle->task_count; i++) {
        struct emoe_program *program = programs + bundle->program_count++;
        if (!read_own(bundle, program, i, values, tasks, tensors, tensor_count, error)) return false;
    }
    uint32_t number = 0;
    for (uint32_t i = (uint32_t)(joint - values) + 1; i < joint->next; i = values[i].next) {
        struct emoe_program *program = programs + bundle->program_count++;
        if (!read_joint(bundle, program, number++, values, values + i, tensors, tensor_count, error)) return false;
    }
    return true;
}

static uint64_t end_of(const struct emoe_part *part) {
    return part->offset + 2 * (uint64_t)part->tokens * part->stride;
}

static int by_offset(const void *one, const void *other) {
    const struct emoe_part *const *a = one, *const *b = other;
    return ((*a)->offset > (*b)->offset) - ((*a)->offset < (*b)->offset);
}

/* A head's values, each once. */
static bool check_cover(const struct emoe_sequence *sequence, const struct emoe_task *task, const char *name,
                        struct emoe_error *error) {
    const uint64_t size = (uint64_t)task->rows * task->row_outputs;
    uint64_t values = 0;
    for (uint32_t i = 0; i < sequence->part_count; i++) {
        const struct emoe_part *part = sequence->parts + i;
        if ((uint64_t)part->token + part->tokens > task->rows ||
            (uint64_t)part->channel + part->channels > task->row_outputs || part->stride < part->channels ||
            part->offset % 2 != 0)
            return FAIL("%s: outputs[%" PRIu32 "] is not inside its head)" COMPILE, name, i);
        values += (uint64_t)part->tokens * part->channels;
    }
    if (size > MOST_VALUES || values != size)
        return FAIL("%s: outputs are %" PRIu64 " values of %" PRIu64 ")" COMPILE, name, values, size);
    uint8_t *seen = calloc((size_t)(size / 8 + 1), 1);
    if (seen == NULL) return emoe_fail(error, EMOE_NO_MEMORY, "the bundle is larger than the free memory");
    bool good = true;
    for (uint32_t i = 0; good && i < sequence->part_count; i++)
        for (uint32_t token = 0; token < sequence->parts[i].tokens; token++)
            for (uint32_t channel = 0; channel < sequence->parts[i].channels; channel++) {
                const uint64_t place = (uint64_t)(sequence->parts[i].token + token) * task->row_outputs +
                                       sequence->parts[i].channel + channel;
                good = good && !(seen[place / 8] >> (place % 8) & 1);
                seen[place / 8] |= (uint8_t)(1u << (place % 8));
            }
    free(seen);
    return good || FAIL("%s: some outputs are there twice)" COMPILE, name);
}

bool emoe_check_parts(const struct emoe_bundle *bundle, const struct emoe_program *program, const char *name,
                      struct emoe_error *error) {
    size_t count = 0, used = 0;
    for (uint32_t i = 0; i < program->sequence_count; i++) {
        count += program->sequences[i].part_count;
        if (!check_cover(program->sequences + i, bundle->tasks + program->sequences[i].task, name, error)) return false;
    }
    const struct emoe_part **ordered = calloc(count, sizeof *ordered);
    if (ordered == NULL) return emoe_fail(error, EMOE_NO_MEMORY, "the bundle is larger than the free memory");
    for (uint32_t i = 0; i < program->sequence_count; i++)
        for (uint32_t k = 0; k < program->sequences[i].part_count; k++)
            ordered[used++] = program->sequences[i].parts + k;
    qsort(ordered, count, sizeof *ordered, by_offset);
    bool apart = true;
    for (size_t i = 1; i < count; i++) apart = apart && end_of(ordered[i - 1]) <= ordered[i]->offset;
    const uint64_t end = end_of(ordered[count - 1]);
    free(ordered);
    if (!apart) return FAIL("%s: outputs overlap)" COMPILE, name);
    return end == program->output_bytes ||
           FAIL("%s: output_bytes is %" PRIu64 ", but the outputs end at byte %" PRIu64 ")" COMPILE, name,
                program->output_bytes, end);
}
