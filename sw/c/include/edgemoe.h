/* Runs bundles (.emoe) on the accelerator, without Python. C99; docs/c_runtime.md has the whole story.
 *
 * Memory is taken by emoe_bundle_load and emoe_device_open and given back by emoe_bundle_free and emoe_device_close;
 * nothing between them allocates. Functions that can fail return false and say why in `error`, which may be NULL.
 * One thread at a time may use a device; bundles do not change once they are loaded. */
#ifndef EDGEMOE_H
#define EDGEMOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum emoe_status {
    EMOE_OK = 0,
    EMOE_BAD_FILE,     /* a bundle or a picture that cannot be used */
    EMOE_BAD_ARGUMENT, /* the caller's mistake, or something that this runtime does not do */
    EMOE_NO_MEMORY,    /* of the host, or that the accelerator sees */
    EMOE_DEVICE,       /* there is no accelerator, it is another one, somebody else has it, or it does not answer */
    EMOE_STOPPED,      /* the accelerator stopped a program: code and command */
    EMOE_TIMEOUT       /* a program did not end in time */
};

struct emoe_error {
    enum emoe_status status;
    uint32_t code;    /* of EMOE_STOPPED: one of EMOE_ERROR_... (edgemoe_regs.h) */
    uint32_t command; /* of EMOE_STOPPED: number of the command in its program */
    char text[512];   /* one line */
};

/* What a bundle is for: the accelerator, by the names of AcceleratorConfig. */
struct emoe_config {
    char name[65];
    uint32_t lanes_k, lanes_n, epilogue_lanes, norm_lanes, axi_masters, axi_bytes;
    uint32_t max_dim, max_tokens, max_experts, max_top_k;
    uint32_t dram_latency;     /* cycles; what a simulation assumes */
    double clock_mhz;          /* assumed */
    double dram_gb_per_second; /* 0: as much as the masters take */
    uint32_t hash;             /* what register CONFIG_HASH must say */
};

struct emoe_model {
    char name[65];
    uint32_t image_height, image_width, patch; /* pixels */
    uint32_t dim, depth, num_experts, top_k, moe_every, prefix_tokens;
};

enum emoe_kind { EMOE_SEGMENTATION, EMOE_DEPTH, EMOE_NORMALS, EMOE_EDGES, EMOE_CLASSIFICATION, EMOE_FEATURES };

/* What the head of a whole picture reads; docs/models.md. */
enum emoe_pool { EMOE_POOL_CLS, EMOE_POOL_AVG, EMOE_POOL_AVG_NORM, EMOE_POOL_CLS_DIST, EMOE_POOL_CLS_AVG };

struct emoe_task {
    char name[65];
    enum emoe_kind kind;
    enum emoe_pool pool;
    uint32_t channels;          /* classes; 1 of depth and edges, 3 of normals */
    uint32_t cells;             /* outputs along a patch's side */
    uint32_t rows, row_outputs; /* of the raw outputs: int16 [rows, row_outputs] */
    double scale;               /* a unit of the raw outputs in the float model's */
    const char *const *labels;  /* names of the classes, UTF-8; NULL: they have none */
};

/* Where outputs lie in the OUTPUT memory: int16 [tokens, stride] at byte `offset`. */
struct emoe_part {
    uint64_t offset;
    uint32_t token, tokens, channel, channels, stride;
};

/* One task of one image of a program's input. */
struct emoe_sequence {
    uint32_t image, task; /* numbers, from 0 */
    const struct emoe_part *parts;
    uint32_t part_count;
};

struct emoe_program {
    const uint8_t *commands;
    uint32_t command_count;
    uint32_t images, task_count;
    const struct emoe_sequence *sequences; /* task by task: of each one for every image */
    uint32_t sequence_count;               /* images * task_count */
    uint64_t output_bytes;
    uint64_t estimated_cycles;
};

struct emoe_bundle {
    struct emoe_config config;
    struct emoe_model model;
    const uint8_t *data; /* weights and parameters */
    uint64_t data_bytes;
    uint64_t input_bytes; /* of one image in the INPUT memory */
    const struct emoe_task *tasks;
    uint32_t task_count;
    const struct emoe_program *programs; /* each task's own, in the order of the tasks, then those of several */
    uint32_t program_count;
    uint32_t most_images;       /* of a program */
    uint64_t most_output_bytes; /* of a program */
    void *owned;                /* what emoe_bundle_free gives back */
};

/* Read a bundle and check it: file, hash, document, tables, and of the programs what can lead them out of their memory
 * or keep them from ending. What Python's Bundle.load checks beyond that is in docs/c_runtime.md. */
bool emoe_bundle_load(struct emoe_bundle *bundle, const char *path, struct emoe_error *error);
/* The same of a file's content, which is copied. */
bool emoe_bundle_parse(struct emoe_bundle *bundle, const uint8_t *bytes, size_t size, struct emoe_error *error);
void emoe_bundle_free(struct emoe_bundle *bundle);
/* Number of a task, or of the program of so many tasks (by number, ascending) of so many images; -1: there is none. */
int emoe_find_task(const struct emoe_bundle *bundle, const char *name);
int emoe_find_program(const struct emoe_bundle *bundle, const uint32_t *tasks, uint32_t task_count, uint32_t images);

/* Pictures are uint8 [image_height, image_width, 3], RGB, of the model's size. */
size_t emoe_picture_bytes(const struct emoe_bundle *bundle);
/* Read one: a PPM file (P6, 255) or the bare bytes. */
bool emoe_picture_read(const struct emoe_bundle *bundle, const char *path, uint8_t *picture, struct emoe_error *error);
/* A picture as it lies in the INPUT memory: input_bytes. */
void emoe_pack_picture(const struct emoe_bundle *bundle, const uint8_t *picture, uint8_t *memory);

/* Outputs. Sizes are numbers of values, and of the last one bytes. */
size_t emoe_raw_count(const struct emoe_task *task);
size_t emoe_decoded_count(const struct emoe_bundle *bundle, const struct emoe_task *task);
size_t emoe_value_bytes(const struct emoe_bundle *bundle, const struct emoe_task *task);
/* A sequence's raw outputs int16 [rows, row_outputs] from the OUTPUT memory. */
void emoe_gather(const struct emoe_bundle *bundle, const struct emoe_sequence *sequence, const uint8_t *memory,
                 int16_t *raw);
/* The float model's outputs, float [channels, h, w], or [channels] of the whole picture: Prediction.decoded in Python.
 * Fails where the host would have to compute a head (pool avg-norm). */
bool emoe_decode(const struct emoe_bundle *bundle, const struct emoe_task *task, const int16_t *raw, float *decoded,
                 struct emoe_error *error);
/* What Python calls Prediction.values, byte for byte: labels uint8 [H, W] (uint16 above 256 classes), metres float
 * [H, W], vectors float [H, W, 3], mask uint8 [H, W], vector float [channels]. Of a classification the decoded outputs
 * (logits): there is no softmax here. */
void emoe_values(const struct emoe_bundle *bundle, const struct emoe_task *task, const int16_t *raw,
                 const float *decoded, void *values);

/* Memory that host and accelerator see. */
struct emoe_buffer {
    uint8_t *bytes;   /* the host's view */
    uint64_t address; /* the accelerator's, a multiple of 64 */
    size_t size;
};

/* An accelerator: registers, memory, time, a way to wait. Functions that can fail return false after they have set
 * `error`, which is never NULL here. */
struct emoe_platform {
    void *context;
    const char *name;   /* for messages */
    double clock_mhz;   /* 0: what the bundle assumes */
    bool has_interrupt; /* `wait` returns at the accelerator's interrupt */
    bool (*read)(void *context, uint32_t offset, uint32_t *value, struct emoe_error *error);
    bool (*write)(void *context, uint32_t offset, uint32_t value, struct emoe_error *error);
    bool (*allocate)(void *context, size_t size, struct emoe_buffer *buffer, struct emoe_error *error);
    void (*release_all)(void *context); /* every buffer */
    /* Make what the host has written visible to the accelerator, and the other way round. */
    bool (*flush)(void *context, const struct emoe_buffer *buffer, struct emoe_error *error);
    bool (*invalidate)(void *context, const struct emoe_buffer *buffer, struct emoe_error *error);
    /* Let the accelerator work for at most so long, perhaps less; where its interrupt is enabled, until it is
     * pending.*/
    bool (*wait)(void *context, double seconds, bool interrupt, struct emoe_error *error);
    double (*now)(void *context); /* seconds */
    void (*close)(void *context);
};

/* Options of a device; all zero means the defaults. */
struct emoe_options {
    uint32_t slots;    /* input and output buffers each: 1 (default) to EMOE_MOST_SLOTS */
    uint32_t retries;  /* times that a program is started again after a bus error, the watchdog's stop or a timeout */
    double timeout;    /* seconds; default: 1, and 20 times the estimate */
    uint32_t watchdog; /* cycles without progress after which the accelerator stops a program; default: 1,000,000 */
    bool no_watchdog;
    bool interrupt; /* wait for the interrupt instead of polling */
};

#define EMOE_MOST_SLOTS 4
#define EMOE_MOST_PROGRAMS 96

struct emoe_device {
    struct emoe_platform *platform;
    const struct emoe_bundle *bundle;
    struct emoe_options options;
    struct emoe_buffer weights, programs[EMOE_MOST_PROGRAMS], inputs[EMOE_MOST_SLOTS], outputs[EMOE_MOST_SLOTS];
    bool is_open, must_reset;
    char failure[256]; /* of the last program, where it failed */
};

struct emoe_result {
    uint64_t cycles;   /* of the accelerator */
    double seconds;    /* from start to end, on the platform's clock */
    uint32_t attempts; /* 1, and 1 more for each retry */
};

/* Compare ID, ISA version and configuration with the bundle's, stop what may be running, and load weights and programs.
 * Platform and bundle must stay until emoe_device_close, which closes neither. */
bool emoe_device_open(struct emoe_device *device, struct emoe_platform *platform, const struct emoe_bundle *bundle,
                      const struct emoe_options *options, struct emoe_error *error);
/* False: the accelerator does not become idle, so its buffers stay allocated. */
bool emoe_device_close(struct emoe_device *device, struct emoe_error *error);
/* Put a picture into a place of an input slot: a slot has one for each image of the bundle's largest program. */
bool emoe_device_pack(struct emoe_device *device, uint32_t slot, uint32_t place, const uint8_t *picture,
                      struct emoe_error *error);
/* Start a program (by number) on a slot, and wait for its end. emoe_device_run does both, and retries. */
bool emoe_device_start(struct emoe_device *device, uint32_t program, uint32_t slot, struct emoe_error *error);
bool emoe_device_wait(struct emoe_device *device, uint32_t program, struct emoe_error *error);
bool emoe_device_run(struct emoe_device *device, uint32_t program, uint32_t slot, struct emoe_result *result,
                     struct emoe_error *error);
/* Raw outputs of one sequence of a program that has ended on a slot. */
bool emoe_device_read(struct emoe_device *device, uint32_t program, uint32_t slot, uint32_t sequence, int16_t *raw,
                      struct emoe_error *error);
/* Tokens of each expert (num_experts of them) in the last program's MoE block number `block`, counted from 0. */
bool emoe_device_expert_load(struct emoe_device *device, uint32_t block, uint32_t *tokens, struct emoe_error *error);
/* Stop whatever runs and forget errors. */
bool emoe_device_reset(struct emoe_device *device, struct emoe_error *error);

/* Linux: registers of an UIO device or at a physical address, memory of u-dma-buf or at a physical address. */
struct emoe_linux_options {
    const char *uio;      /* "/dev/uio0"; NULL: `registers` */
    uint64_t registers;   /* physical address, by `mem` */
    const char *udmabuf;  /* "udmabuf0"; NULL: `memory` */
    uint64_t memory;      /* physical address of memory that the kernel does not use, by `mem`: not cached */
    uint64_t memory_size; /* bytes of it */
    const char *mem;      /* default "/dev/mem" */
    const char *devices;  /* default "/dev" */
    const char *classes;  /* default "/sys/class" */
    double clock_mhz;     /* that the accelerator has */
};
bool emoe_linux_open(struct emoe_platform *platform, const struct emoe_linux_options *options,
                     struct emoe_error *error);

/* The simulated accelerator: a shared library that edgemoe_sim has built, for the bundle's configuration. */
bool emoe_sim_open(struct emoe_platform *platform, const char *library, const struct emoe_bundle *bundle,
                   struct emoe_error *error);

/* SHA-256 of some bytes as 64 hexadecimal digits and a zero. */
void emoe_sha256_text(const void *bytes, size_t size, char text[65]);

#ifdef __cplusplus
}
#endif

#endif /* EDGEMOE_H */
