/* From the OUTPUT memory to values: gathered, dequantized, upsampled, in the same arithmetic as the Python host's
 * (edgemoe.layout, edgemoe_models.integer.postprocess). float is IEEE 754 and nothing is contracted: see the Makefile.
 */
#include <math.h>
#include <string.h>

#include "internal.h"

static bool is_dense(const struct emoe_task *task) {
    return task->kind != EMOE_CLASSIFICATION && task->kind != EMOE_FEATURES;
}

/* The head's own resolution. */
static size_t down(const struct emoe_bundle *b, const struct emoe_task *task) {
    return (size_t)(b->model.image_height / b->model.patch) * task->cells;
}
static size_t across(const struct emoe_bundle *b, const struct emoe_task *task) {
    return (size_t)(b->model.image_width / b->model.patch) * task->cells;
}

size_t emoe_raw_count(const struct emoe_task *task) { return (size_t)task->rows * task->row_outputs; }

size_t emoe_decoded_count(const struct emoe_bundle *bundle, const struct emoe_task *task) {
    return task->channels * (is_dense(task) ? down(bundle, task) * across(bundle, task) : 1);
}

size_t emoe_value_bytes(const struct emoe_bundle *bundle, const struct emoe_task *task) {
    const size_t pixels = (size_t)bundle->model.image_height * bundle->model.image_width;
    switch (task->kind) {
    case EMOE_SEGMENTATION: return task->channels <= 256 ? pixels : 2 * pixels;
    case EMOE_EDGES: return pixels;
    case EMOE_DEPTH: return pixels * sizeof(float);
    case EMOE_NORMALS: return 3 * pixels * sizeof(float);
    default: return task->channels * sizeof(float);
    }
}

void emoe_gather(const struct emoe_bundle *bundle, const struct emoe_sequence *sequence, const uint8_t *memory,
                 int16_t *raw) {
    const size_t width = bundle->tasks[sequence->task].row_outputs;
    for (uint32_t i = 0; i < sequence->part_count; i++) {
        const struct emoe_part *part = sequence->parts + i;
        for (size_t token = 0; token < part->tokens; token++)
            memcpy(raw + (part->token + token) * width + part->channel,
                   memory + part->offset + 2 * token * part->stride, 2 * (size_t)part->channels);
    }
}

/* Where channel c of the head's cell (y, x) is in the raw outputs, which are in the order (patch; cell_y, cell_x, c).
 */
static size_t place(const struct emoe_bundle *b, const struct emoe_task *task, size_t c, size_t y, size_t x) {
    const size_t cells = task->cells, patch = y / cells * (b->model.image_width / b->model.patch) + x / cells;
    return patch * task->row_outputs + (y % cells * cells + x % cells) * task->channels + c;
}

/* A whole picture's channel, pooled. Sums of int16 are exact in double, so their order does not matter. */
static double pooled(const struct emoe_bundle *b, const struct emoe_task *task, const int16_t *raw, size_t c) {
    const size_t n = task->channels, width = task->row_outputs, prefix = b->model.prefix_tokens;
    double sum = 0;
    switch (task->pool) {
    case EMOE_POOL_CLS_DIST: return ((double)raw[c] + (double)raw[width + n + c]) / 2;
    case EMOE_POOL_CLS_AVG:
        for (size_t row = prefix; row < task->rows; row++) sum += raw[row * width + n + c];
        return (double)raw[c] + sum / (double)(task->rows - prefix);
    default:
        for (size_t row = 0; row < task->rows; row++) sum += raw[row * width + c];
        return sum / (double)task->rows;
    }
}

bool emoe_decode(const struct emoe_bundle *bundle, const struct emoe_task *task, const int16_t *raw, float *decoded,
                 struct emoe_error *error) {
    const float scale = (float)task->scale;
    const size_t height = down(bundle, task), width = across(bundle, task);
    if (task->pool == EMOE_POOL_AVG_NORM)
        return emoe_fail(error, EMOE_BAD_ARGUMENT,
                         "task %s: its norm and head (pool avg-norm) are the host's to compute, which this runtime "
                         "does not do; use Python's",
                         task->name);
    if (!is_dense(task)) {
        for (size_t c = 0; c < task->channels; c++) decoded[c] = (float)pooled(bundle, task, raw, c) * scale;
        return true;
    }
    for (size_t c = 0; c < task->channels; c++)
        for (size_t y = 0; y < height; y++)
            for (size_t x = 0; x < width; x++) *decoded++ = (float)raw[place(bundle, task, c, y, x)] * scale;
    return true;
}

/* Bilinear upsampling, pixel centres aligned: which two of `size` give number `i` of `out`, and the second's share. */
struct taps {
    size_t low, high;
    float share;
};

static struct taps find_taps(size_t size, size_t out, size_t i) {
    double centre = ((double)i + 0.5) * ((double)size / (double)out) - 0.5;
    if (centre < 0) centre = 0;
    if (centre > (double)(size - 1)) centre = (double)(size - 1);
    const size_t low = (size_t)centre, high = low + 1 < size ? low + 1 : size - 1;
    const struct taps taps = {low, high, (float)(centre - (double)low)};
    return taps;
}

struct image {
    const float *values; /* [channels, h, w] */
    size_t h, w, height, width;
};

static float between(float one, float other, float share) {
    const float first = one * (1 - share), second = other * share;
    return first + second;
}

/* A channel at a pixel of the full picture. */
static float pixel(const struct image *image, size_t c, const struct taps *y, const struct taps *x) {
    const float *plane = image->values + c * image->h * image->w;
    const float *low = plane + y->low * image->w, *high = plane + y->high * image->w;
    if (image->h == image->height && image->w == image->width) return low[x->low];
    const float left = between(low[x->low], high[x->low], y->share),
                right = between(low[x->high], high[x->high], y->share);
    return between(left, right, x->share);
}

/* Of equal classes the lowest. The integers have the order of the floats, and where no pixel is between cells they are
 * what decides. */
static size_t best_class(const struct emoe_bundle *b, const struct emoe_task *task, const struct image *image,
                         const int16_t *raw, size_t row, size_t column, const struct taps *y, const struct taps *x) {
    const bool exact = image->h == image->height && image->w == image->width && task->scale > 0;
    size_t best = 0;
    float most = exact ? (float)raw[place(b, task, 0, row, column)] : pixel(image, 0, y, x);
    for (size_t c = 1; c < task->channels; c++) {
        const float value = exact ? (float)raw[place(b, task, c, row, column)] : pixel(image, c, y, x);
        if (value > most) most = value, best = c;
    }
    return best;
}

static void write_normal(const struct image *image, const struct taps *y, const struct taps *x, float *vector) {
    float squares = 0;
    for (size_t c = 0; c < 3; c++) {
        vector[c] = pixel(image, c, y, x);
        const float square = vector[c] * vector[c];
        squares = squares + square;
    }
    float length = sqrtf(squares);
    if (length < 1e-6f) length = 1e-6f;
    for (size_t c = 0; c < 3; c++) vector[c] = vector[c] / length;
}

void emoe_values(const struct emoe_bundle *bundle, const struct emoe_task *task, const int16_t *raw,
                 const float *decoded, void *values) {
    const struct image image = {decoded, down(bundle, task), across(bundle, task), bundle->model.image_height,
                                bundle->model.image_width};
    if (!is_dense(task)) {
        memcpy(values, decoded, task->channels * sizeof(float));
        return;
    }
    for (size_t row = 0, i = 0; row < image.height; row++) {
        const struct taps y = find_taps(image.h, image.height, row);
        for (size_t column = 0; column < image.width; column++, i++) {
            const struct taps x = find_taps(image.w, image.width, column);
            if (task->kind == EMOE_SEGMENTATION) {
                const size_t best = best_class(bundle, task, &image, raw, row, column, &y, &x);
                if (task->channels <= 256)
                    ((uint8_t *)values)[i] = (uint8_t)best;
                else
                    ((uint16_t *)values)[i] = (uint16_t)best;
            } else if (task->kind == EMOE_DEPTH) {
                ((float *)values)[i] = pixel(&image, 0, &y, &x) * 10.0f; /* metres a unit: DEPTH_SCALE */
            } else if (task->kind == EMOE_EDGES) {
                ((uint8_t *)values)[i] = pixel(&image, 0, &y, &x) > 0;
            } else {
                write_normal(&image, &y, &x, (float *)values + 3 * i);
            }
        }
    }
}
