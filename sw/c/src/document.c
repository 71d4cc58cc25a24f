/* A bundle's document: configuration, model and tasks, with exact types and ranges. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

#define MOST_TASKS 32
#define COMPILE "; compile it again with edgemoe compile"

const struct emoe_json *emoe_get(const struct emoe_json *values, const struct emoe_json *object, const char *name,
                                 enum emoe_json_kind kind, struct emoe_error *error) {
    static const char *const kinds[] = {"null",     "false",    "true",   "an integer",
                                        "a number", "a string", "a list", "an object"};
    const struct emoe_json *found = emoe_json_get(values, object, name);
    if (found != NULL && found->kind == kind) return found;
    (void)emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (%s %s%s)" COMPILE, name,
                    found == NULL ? "is missing" : "must be ", found == NULL ? "" : kinds[kind]);
    return NULL;
}

bool emoe_get_integer(const struct emoe_json *values, const struct emoe_json *object, const char *name, int64_t least,
                      int64_t most, uint32_t *result, struct emoe_error *error) {
    const struct emoe_json *found = emoe_get(values, object, name, EMOE_INTEGER, error);
    if (found == NULL) return false;
    if (found->integer < least || found->integer > most)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (%s must be %" PRId64 " to %" PRId64 ", not %" PRId64 ")" COMPILE,
                         name, least, most, found->integer);
    *result = (uint32_t)found->integer;
    return true;
}

bool emoe_get_number(const struct emoe_json *values, const struct emoe_json *object, const char *name, double *result,
                     struct emoe_error *error) {
    const struct emoe_json *found = emoe_json_get(values, object, name);
    if (found == NULL || (found->kind != EMOE_INTEGER && found->kind != EMOE_FLOAT))
        return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (%s must be a number)" COMPILE, name);
    *result = found->number;
    return true;
}

bool emoe_get_name(const struct emoe_json *values, const struct emoe_json *object, const char *name, char result[65],
                   struct emoe_error *error) {
    const struct emoe_json *found = emoe_get(values, object, name, EMOE_STRING, error);
    if (found == NULL) return false;
    bool good = found->length >= 1 && found->length <= 64;
    for (uint32_t i = 0; good && i < found->length; i++) {
        const char c = found->text[i];
        good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
               c == '.';
    }
    if (!good)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (%s must be letters, digits, '_', '.' and '-', 1 to 64)" COMPILE,
                         name);
    memcpy(result, found->text, found->length + (size_t)1);
    return true;
}

bool emoe_only(const struct emoe_json *values, const struct emoe_json *object, const char *what,
               const char *const *names, struct emoe_error *error) {
    if (object->kind != EMOE_OBJECT)
        return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (%s must be an object)" COMPILE, what);
    for (uint32_t i = (uint32_t)(object - values) + 1; i < object->next; i = values[i].next) {
        const char *const *name = names;
        while (*name != NULL &&
               (strlen(*name) != values[i].key_length || memcmp(*name, values[i].key, values[i].key_length) != 0))
            name++;
        if (*name == NULL)
            return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (%s has an unknown member)" COMPILE,
                             what);
    }
    return true;
}

uint32_t emoe_row_bytes(const struct emoe_config *config, uint32_t memory) {
    switch (memory) {
    case EMOE_MEMORY_WEIGHT: return config->lanes_n * config->lanes_k;
    case EMOE_MEMORY_ACT: return config->lanes_k;
    case EMOE_MEMORY_RESIDUAL: return 2 * config->epilogue_lanes;
    case EMOE_MEMORY_PARAM: return 8 * config->epilogue_lanes;
    case EMOE_MEMORY_NORM: return 8 * config->norm_lanes;
    default: return config->axi_bytes;
    }
}

uint32_t emoe_load_masters(const struct emoe_config *config, uint32_t memory) {
    const uint32_t beats = emoe_row_bytes(config, memory) / config->axi_bytes;
    if (memory == EMOE_MEMORY_NORM || memory == EMOE_MEMORY_ACTIVATION) return 1;
    return config->axi_masters < beats ? config->axi_masters : beats;
}

/* The shape is one that AcceleratorConfig takes, as far as anything here depends on it. */
static bool check_config(const struct emoe_config *c, struct emoe_error *error) {
    const bool lanes = c->lanes_k >= 8 && c->lanes_k <= 256 && (c->lanes_k & (c->lanes_k - 1)) == 0 &&
                       c->lanes_n >= 2 && c->lanes_n <= 256 && c->lanes_n % 2 == 0 && c->epilogue_lanes >= 1 &&
                       c->lanes_k % c->epilogue_lanes == 0 && c->lanes_n % c->epilogue_lanes == 0 &&
                       c->norm_lanes >= 1 && c->epilogue_lanes % c->norm_lanes == 0;
    const bool masters = (c->axi_bytes == 8 || c->axi_bytes == 16) &&
                         (c->axi_masters == 1 || c->axi_masters == 2 || c->axi_masters == 4) &&
                         c->lanes_k % c->axi_bytes == 0 && 2 * c->epilogue_lanes % c->axi_bytes == 0 &&
                         8 * c->norm_lanes % c->axi_bytes == 0 && c->lanes_n % c->axi_masters == 0;
    if (lanes && masters && c->max_experts <= EMOE_MAX_EXPERTS) return true;
    return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (no accelerator has its config)" COMPILE);
}

/* The hash of a configuration is of the JSON text of these fields, as Python writes it. */
static bool check_hash(const struct emoe_json *values, const struct emoe_json *config, const struct emoe_json *stated,
                       uint32_t *hash, struct emoe_error *error) {
    char text[2048], found[65];
    size_t used = 0;
    uint32_t isa_version = EMOE_ISA_VERSION, value;
#define ADD(name)                                                                                                 \
    value = isa_version;                                                                                          \
    if (strcmp(#name, "isa_version") != 0 && !emoe_get_integer(values, config, #name, 1, 1 << 20, &value, error)) \
        return false;                                                                                             \
    used +=                                                                                                       \
        (size_t)snprintf(text + used, sizeof text - used, "%s\"" #name "\": %" PRIu32, used > 0 ? ", " : "{", value);
    EMOE_CONFIG_HASHED(ADD)
#undef ADD
    text[used++] = '}';
    emoe_sha256_text(text, used, found);
    if (!emoe_json_is(stated, found))
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (its config has hash %.16s, but config_hash is another)" COMPILE,
                         found);
    *hash = 0;
    for (unsigned i = 0; i < 8; i++)
        *hash = *hash << 4 | (uint32_t)(found[i] <= '9' ? found[i] - '0' : found[i] - 'a' + 10);
    return true;
}

static bool read_config(struct emoe_config *c, const struct emoe_json *values, const struct emoe_json *stated,
                        struct emoe_error *error) {
#define NAME(name) #name,
    static const char *const known[] = {EMOE_CONFIG_HASHED(NAME) EMOE_CONFIG_FREE(NAME) NULL};
#undef NAME
    const struct emoe_json *config = emoe_get(values, values, "config", EMOE_OBJECT, error);
    if (config == NULL || !emoe_only(values, config, "config", known, error)) return false;
    if (emoe_json_get(values, config, "isa_version") != NULL)
        return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (config has an unknown member)" COMPILE);
    const struct emoe_json *bandwidth = emoe_json_get(values, config, "dram_gb_per_second");
    bool good = check_hash(values, config, stated, &c->hash, error) &&
                emoe_get_name(values, config, "name", c->name, error) &&
                emoe_get_number(values, config, "assumed_clock_mhz", &c->clock_mhz, error) &&
                emoe_get_integer(values, config, "dram_latency", 1, 100000, &c->dram_latency, error);
#define READ(name) good = good && emoe_get_integer(values, config, #name, 1, 1 << 20, &c->name, error)
    READ(lanes_k);
    READ(lanes_n);
    READ(epilogue_lanes);
    READ(norm_lanes);
    READ(axi_masters);
    READ(axi_bytes);
    READ(max_dim);
    READ(max_tokens);
    READ(max_experts);
    READ(max_top_k);
#undef READ
    c->dram_gb_per_second = 0;
    if (good && !(bandwidth != NULL && bandwidth->kind == EMOE_NULL))
        good = emoe_get_number(values, config, "dram_gb_per_second", &c->dram_gb_per_second, error);
    if (good &&
        !(c->clock_mhz > 0 && c->clock_mhz <= 10000 && c->dram_gb_per_second >= 0 && c->dram_gb_per_second <= 10000))
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (assumed_clock_mhz or dram_gb_per_second)" COMPILE);
    return good && check_config(c, error);
}

/* One of some words, by its number. */
static bool get_word(const struct emoe_json *values, const struct emoe_json *object, const char *name,
                     const char *const *words, unsigned count, unsigned *result, struct emoe_error *error) {
    const struct emoe_json *found = emoe_get(values, object, name, EMOE_STRING, error);
    if (found == NULL) return false;
    for (*result = 0; *result < count; ++*result)
        if (emoe_json_is(found, words[*result])) return true;
    return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (%s is unknown to this runtime)" COMPILE, name);
}

static bool read_labels(struct emoe_bundle *bundle, struct emoe_task *task, const struct emoe_json *values,
                        const struct emoe_json *entry, struct emoe_error *error) {
    if (emoe_json_get(values, entry, "labels") == NULL) return true;
    const struct emoe_json *labels = emoe_get(values, entry, "labels", EMOE_LIST, error);
    if (labels == NULL) return false;
    if (labels->count == 0) return true;
    bool good =
        labels->count == task->channels && (task->kind == EMOE_CLASSIFICATION || task->kind == EMOE_SEGMENTATION);
    const char **names = emoe_take(bundle, labels->count, sizeof *names, error);
    if (names == NULL) return false;
    for (uint32_t i = 0; good && i < labels->count; i++) {
        const struct emoe_json *label = labels + 1 + i;
        good = label->kind == EMOE_STRING && label->length >= 1 && label->length <= 1024;
        for (uint32_t k = 0; good && k < label->length; k++) { /* they go to terminals */
            const unsigned char c = (unsigned char)label->text[k];
            good = c >= 0x20 && c != 0x7f && !(c == 0xc2 && (unsigned char)label->text[k + 1] < 0xa0);
        }
        names[i] = label->text;
    }
    task->labels = names;
    return good ||
           emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (labels must name a task's classes)" COMPILE);
}

/* Rows and outputs of a task's head, as ModelConfig.device_outputs has them. */
static void find_shape(const struct emoe_model *model, struct emoe_task *task) {
    const uint32_t patches = (model->image_height / model->patch) * (model->image_width / model->patch);
    const bool whole = task->kind == EMOE_CLASSIFICATION || task->kind == EMOE_FEATURES;
    task->rows = patches;
    task->row_outputs = task->cells * task->cells * task->channels;
    if (!whole) return;
    if (task->pool == EMOE_POOL_CLS) task->rows = 1;
    if (task->pool == EMOE_POOL_CLS_DIST) task->rows = 2;
    if (task->pool == EMOE_POOL_CLS_AVG) task->rows = patches + model->prefix_tokens;
    if (task->pool == EMOE_POOL_CLS_DIST || task->pool == EMOE_POOL_CLS_AVG) task->row_outputs *= 2;
    if (task->pool == EMOE_POOL_AVG_NORM) task->row_outputs = model->dim;
}

static bool read_task(struct emoe_bundle *bundle, struct emoe_task *task, const struct emoe_json *values,
                      const struct emoe_json *entry, struct emoe_error *error) {
    static const char *const known[] = {"name", "kind", "channels", "head_hidden", "cells", "pool", "labels", NULL};
    static const char *const kinds[] = {"segmentation", "depth", "normals", "edges", "classification", "features"};
    static const char *const pools[] = {"cls", "avg", "avg-norm", "cls-dist", "cls-avg"};
    static const uint32_t fixed[] = {0, 1, 3, 1, 0, 0}, needed[] = {1, 0, 0, 2, 1};
    const struct emoe_model *model = &bundle->model;
    unsigned kind, pool = 0;
    uint32_t hidden;
    if (!emoe_only(values, entry, "a task of the model", known, error) ||
        !emoe_get_name(values, entry, "name", task->name, error) ||
        !get_word(values, entry, "kind", kinds, 6, &kind, error) ||
        !emoe_get_integer(values, entry, "channels", 1, 65536, &task->channels, error) ||
        !emoe_get_integer(values, entry, "head_hidden", 0, 65536, &hidden, error) ||
        !emoe_get_integer(values, entry, "cells", 1, model->patch < 256 ? model->patch : 256, &task->cells, error))
        return false;
    if (emoe_json_get(values, entry, "pool") != NULL && !get_word(values, entry, "pool", pools, 5, &pool, error))
        return false;
    task->kind = (enum emoe_kind)kind;
    task->pool = (enum emoe_pool)pool;
    const bool whole = kind >= EMOE_CLASSIFICATION;
    const uint64_t outputs = (uint64_t)task->cells * task->cells * task->channels;
    if ((fixed[kind] != 0 && task->channels != fixed[kind]) || (whole && task->cells != 1) || (!whole && pool != 0) ||
        (pool != 0 && hidden != 0) || (whole && model->prefix_tokens < needed[pool]) || outputs > 1 << 20)
        return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (no model has a head like task %s)" COMPILE,
                         task->name);
    find_shape(model, task);
    return read_labels(bundle, task, values, entry, error);
}

static bool read_tasks(struct emoe_bundle *bundle, const struct emoe_json *values, const struct emoe_json *model,
                       struct emoe_error *error) {
    const struct emoe_json *list = emoe_get(values, model, "tasks", EMOE_LIST, error);
    if (list == NULL) return false;
    if (list->count < 1 || list->count > MOST_TASKS)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (the model must have 1 to 32 tasks)" COMPILE);
    struct emoe_task *tasks = emoe_take(bundle, list->count, sizeof *tasks, error);
    if (tasks == NULL) return false;
    bundle->tasks = tasks;
    for (uint32_t i = (uint32_t)(list - values) + 1; i < list->next; i = values[i].next) {
        struct emoe_task *task = tasks + bundle->task_count;
        if (!read_task(bundle, task, values, values + i, error)) return false;
        if (emoe_find_task(bundle, task->name) >= 0)
            return emoe_fail(error, EMOE_BAD_FILE, "the bundle is inconsistent (two tasks are called %s)" COMPILE,
                             task->name);
        bundle->task_count++;
    }
    return true;
}

static bool read_model(struct emoe_bundle *bundle, const struct emoe_json *values, struct emoe_error *error) {
    static const char *const known[] = {
        "name",          "image_height", "image_width", "patch",         "dim",   "depth",     "heads",
        "mlp_hidden",    "num_experts",  "top_k",       "expert_hidden", "tasks", "moe_every", "eps",
        "prefix_tokens", "activation",   NULL};
    const struct emoe_json *model = emoe_get(values, values, "model", EMOE_OBJECT, error);
    struct emoe_model *m = &bundle->model;
    if (model == NULL || !emoe_only(values, model, "model", known, error) ||
        !emoe_get_name(values, model, "name", m->name, error))
        return false;
    bool good = true;
#define READ(name, least, most) good = good && emoe_get_integer(values, model, #name, least, most, &m->name, error)
    READ(image_height, 1, 8192);
    READ(image_width, 1, 8192);
    READ(patch, 1, 256);
    READ(dim, 1, 8192);
    READ(depth, 1, 256);
    READ(num_experts, 0, 256);
    READ(top_k, 0, 16);
    READ(moe_every, 1, 256);
    m->prefix_tokens = 1;
    if (good && emoe_json_get(values, model, "prefix_tokens") != NULL) READ(prefix_tokens, 0, 256);
#undef READ
    if (!good) return false;
    const uint64_t tokens = (uint64_t)(m->image_height / m->patch) * (m->image_width / m->patch) + m->prefix_tokens;
    const struct emoe_config *c = &bundle->config;
    if (m->image_height % m->patch != 0 || m->image_width % m->patch != 0 || tokens > c->max_tokens ||
        m->dim > c->max_dim || m->num_experts > c->max_experts || m->top_k > c->max_top_k || m->top_k > m->num_experts)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (model %s does not fit its config %s)" COMPILE, m->name, c->name);
    return read_tasks(bundle, values, model, error);
}

bool emoe_read_document(struct emoe_bundle *bundle, const struct emoe_json *values, const struct emoe_tensor *tensors,
                        uint32_t tensor_count, struct emoe_error *error) {
    static const char *const known[] = {"format_version", "isa_version", "config",  "config_hash", "model",
                                        "input_bytes",    "tasks",       "options", "joint",       NULL};
    const struct emoe_json *hash = emoe_get(values, values, "config_hash", EMOE_STRING, error);
    uint32_t input_bytes;
    if (hash == NULL || !emoe_only(values, values, "document", known, error) ||
        !read_config(&bundle->config, values, hash, error) || !read_model(bundle, values, error) ||
        !emoe_get_integer(values, values, "input_bytes", 1, UINT32_MAX, &input_bytes, error) ||
        emoe_get(values, values, "options", EMOE_OBJECT, error) == NULL)
        return false;
    const struct emoe_config *c = &bundle->config;
    const struct emoe_model *m = &bundle->model;
    const uint64_t patches = (uint64_t)(m->image_height / m->patch) * (m->image_width / m->patch);
    const uint64_t rows = patches * ((3 * m->patch * m->patch + c->lanes_k - 1) / c->lanes_k);
    const uint32_t masters = emoe_load_masters(c, EMOE_MEMORY_ACT);
    bundle->input_bytes = masters * emoe_align(rows * c->lanes_k / masters);
    if (bundle->input_bytes != input_bytes)
        return emoe_fail(error, EMOE_BAD_FILE,
                         "the bundle is inconsistent (input_bytes is %" PRIu32
                         ", but an image of the model needs %" PRIu64 ")" COMPILE,
                         input_bytes, bundle->input_bytes);
    const struct emoe_json *tasks = emoe_get(values, values, "tasks", EMOE_OBJECT, error);
    const struct emoe_json *joint = tasks == NULL ? NULL : emoe_get(values, values, "joint", EMOE_LIST, error);
    return joint != NULL && emoe_read_programs(bundle, values, tasks, joint, tensors, tensor_count, error);
}
