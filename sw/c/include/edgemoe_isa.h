/* Generated from hw/edgemoe_hw/spec/isa.py and config.py; do not edit. */
#ifndef EDGEMOE_ISA_H
#define EDGEMOE_ISA_H

#define EMOE_ISA_VERSION 4u
#define EMOE_COMMAND_BYTES 64u /* bits count from the first byte's lowest */
#define EMOE_HEADER_BITS 96u
#define EMOE_MAX_BLOCKS 16u /* MoE blocks whose expert loads are kept */
#define EMOE_MAX_EXPERTS 32u
#define EMOE_ADDRESS_BITS 40u /* of a byte address in DRAM */

/* Opcodes, and the bits of each one's payload. */
#define EMOE_OPCODE_BEGIN 1u
#define EMOE_BEGIN_BITS 64u
#define EMOE_OPCODE_LOAD 2u
#define EMOE_LOAD_BITS 102u
#define EMOE_OPCODE_MATMUL 3u
#define EMOE_MATMUL_BITS 249u
#define EMOE_OPCODE_LAYERNORM 4u
#define EMOE_LAYERNORM_BITS 164u
#define EMOE_OPCODE_STORE 5u
#define EMOE_STORE_BITS 66u
#define EMOE_OPCODE_END 6u
#define EMOE_END_BITS 0u

/* X(name, opcode, bits) of all. */
#define EMOE_OPCODES(X) \
    X(BEGIN, 1u, 64u) \
    X(LOAD, 2u, 102u) \
    X(MATMUL, 3u, 249u) \
    X(LAYERNORM, 4u, 164u) \
    X(STORE, 5u, 66u) \
    X(END, 6u, 0u)

/* X(name, engine, opcode) of each engine and of the commands that it executes. */
#define EMOE_ENGINES(X) \
    X(LOAD, 0u, 2u) \
    X(MATMUL, 1u, 3u) \
    X(NORM, 2u, 4u) \
    X(STORE, 3u, 5u)

#define EMOE_ENGINE_LOAD 0u /* DRAM to scratchpads */
#define EMOE_ENGINE_MATMUL 1u /* array and epilogue */
#define EMOE_ENGINE_NORM 2u /* LayerNorm unit */
#define EMOE_ENGINE_STORE 3u /* scratchpad to DRAM */
#define EMOE_ENGINE_LARGEST 3u

#define EMOE_MEMORY_WEIGHT 0u /* stationary rows: weights, keys, values */
#define EMOE_MEMORY_ACT 1u /* activations, int8 or uint8 */
#define EMOE_MEMORY_RESIDUAL 2u /* residual stream, int16 */
#define EMOE_MEMORY_PARAM 3u /* bias, multiplier and shift of output channels */
#define EMOE_MEMORY_NORM 4u /* gamma and beta of LayerNorm; master 0 only */
#define EMOE_MEMORY_ACTIVATION 5u /* the activation function's table; master 0 only */
#define EMOE_MEMORY_LARGEST 5u

#define EMOE_BASE_WEIGHTS 0u /* BASE_WEIGHTS, SIZE_WEIGHTS */
#define EMOE_BASE_INPUT 1u /* BASE_INPUT, SIZE_INPUT */
#define EMOE_BASE_OUTPUT 2u /* BASE_OUTPUT, SIZE_OUTPUT */
#define EMOE_BASE_LARGEST 2u

#define EMOE_SOURCE_ACT 0u /* the activation scratchpad */
#define EMOE_SOURCE_SCORE 1u /* the score scratchpad, as exponentials: P.V */
#define EMOE_SOURCE_LARGEST 1u

#define EMOE_MODE_ACT 0u /* int8 into the activation scratchpad */
#define EMOE_MODE_RESIDUAL 1u /* int16 into the residual scratchpad */
#define EMOE_MODE_KEY 2u /* int8 into the weight scratchpad, a token a bank */
#define EMOE_MODE_VALUE 3u /* int8 into the weight scratchpad, a token a byte */
#define EMOE_MODE_SCORE 4u /* 12 bits into the score scratchpad, and the running maximum */
#define EMOE_MODE_GATE 5u /* logits to the gate unit */
#define EMOE_MODE_LARGEST 5u

#define EMOE_ROW_FACTOR_NONE 0u /* 1 */
#define EMOE_ROW_FACTOR_SOFTMAX 1u /* the reciprocal of the sum of the token's exponentials */
#define EMOE_ROW_FACTOR_GATE 2u /* the token's gate score, from the queue */
#define EMOE_ROW_FACTOR_LARGEST 2u

/* Places of fields: the lowest bit in the command, and how many. */
#define EMOE_HEADER_OPCODE_LSB 0u /* what the command does (`Opcode`) */
#define EMOE_HEADER_OPCODE_WIDTH 4u
#define EMOE_HEADER_PREDICATED_LSB 4u /* skip (but count as finished) when the queue of `expert` is empty */
#define EMOE_HEADER_PREDICATED_WIDTH 1u
#define EMOE_HEADER_EXPERT_LSB 5u /* whose queue `predicated` and `use_queue` look at */
#define EMOE_HEADER_EXPERT_WIDTH 5u
#define EMOE_HEADER_PHASE_LSB 10u /* phase of the model this command belongs to, for profiling only */
#define EMOE_HEADER_PHASE_WIDTH 8u
#define EMOE_HEADER_RESERVED_LSB 18u /* 0 */
#define EMOE_HEADER_RESERVED_WIDTH 14u
#define EMOE_HEADER_WAIT_LOAD_LSB 32u /* LOADs that must have finished */
#define EMOE_HEADER_WAIT_LOAD_WIDTH 16u
#define EMOE_HEADER_WAIT_MATMUL_LSB 48u /* MATMULs that must have finished */
#define EMOE_HEADER_WAIT_MATMUL_WIDTH 16u
#define EMOE_HEADER_WAIT_NORM_LSB 64u /* LAYERNORMs that must have finished */
#define EMOE_HEADER_WAIT_NORM_WIDTH 16u
#define EMOE_HEADER_WAIT_STORE_LSB 80u /* STOREs that must have finished */
#define EMOE_HEADER_WAIT_STORE_WIDTH 16u

/* BEGIN */
#define EMOE_BEGIN_ISA_VERSION_LSB 96u /* must equal the ISA_VERSION register */
#define EMOE_BEGIN_ISA_VERSION_WIDTH 16u
#define EMOE_BEGIN_CONFIG_HASH_LSB 112u /* must equal the CONFIG_HASH register */
#define EMOE_BEGIN_CONFIG_HASH_WIDTH 32u
#define EMOE_BEGIN_COMMANDS_LSB 144u /* number of commands including BEGIN and END */
#define EMOE_BEGIN_COMMANDS_WIDTH 16u

/* LOAD */
#define EMOE_LOAD_MEMORY_LSB 96u /* destination (`Memory`) */
#define EMOE_LOAD_MEMORY_WIDTH 4u
#define EMOE_LOAD_BASE_LSB 100u /* region of DRAM (`Base`) */
#define EMOE_LOAD_BASE_WIDTH 2u
#define EMOE_LOAD_OFFSET_LSB 102u /* bytes from the region's base to the first row */
#define EMOE_LOAD_OFFSET_WIDTH 32u
#define EMOE_LOAD_PLANE_STRIDE_LSB 134u /* bytes between two masters' slices */
#define EMOE_LOAD_PLANE_STRIDE_WIDTH 32u
#define EMOE_LOAD_ROW_LSB 166u /* first row of the scratchpad */
#define EMOE_LOAD_ROW_WIDTH 16u
#define EMOE_LOAD_ROWS_LSB 182u /* number of rows */
#define EMOE_LOAD_ROWS_WIDTH 16u

/* MATMUL */
#define EMOE_MATMUL_SOURCE_LSB 96u /* memory of the activations (`Source`) */
#define EMOE_MATMUL_SOURCE_WIDTH 1u
#define EMOE_MATMUL_UNSIGNED_LSB 97u /* activations are uint8 */
#define EMOE_MATMUL_UNSIGNED_WIDTH 1u
#define EMOE_MATMUL_USE_QUEUE_LSB 98u /* the token count is the length of the queue of header.expert */
#define EMOE_MATMUL_USE_QUEUE_WIDTH 1u
#define EMOE_MATMUL_GATHER_LSB 99u /* source row = src_base + token number in the queue * src_stride */
#define EMOE_MATMUL_GATHER_WIDTH 1u
#define EMOE_MATMUL_SCATTER_LSB 100u /* destination token = token number in the queue */
#define EMOE_MATMUL_SCATTER_WIDTH 1u
#define EMOE_MATMUL_SRC_BASE_LSB 101u /* source row of the first token */
#define EMOE_MATMUL_SRC_BASE_WIDTH 16u
#define EMOE_MATMUL_SRC_STRIDE_LSB 117u /* source rows between tokens */
#define EMOE_MATMUL_SRC_STRIDE_WIDTH 12u
#define EMOE_MATMUL_K_STEPS_LSB 129u /* steps of a tile: ceil(K / lanes_k) */
#define EMOE_MATMUL_K_STEPS_WIDTH 8u
#define EMOE_MATMUL_WEIGHT_BASE_LSB 137u /* weight row of (tile, step) = weight_base + tile * k_steps + step */
#define EMOE_MATMUL_WEIGHT_BASE_WIDTH 16u
/* int4 weights, row = weight_base + tile * ceil(k_steps / 2) + step // 2: odd steps in high nibbles */
#define EMOE_MATMUL_NIBBLES_LSB 153u
#define EMOE_MATMUL_NIBBLES_WIDTH 1u
#define EMOE_MATMUL_TILES_LSB 154u /* tiles of lanes_n output channels */
#define EMOE_MATMUL_TILES_WIDTH 10u
#define EMOE_MATMUL_TOKENS_LSB 164u /* number of tokens, unless `use_queue` */
#define EMOE_MATMUL_TOKENS_WIDTH 11u
#define EMOE_MATMUL_MIN_GAP_LSB 175u /* cycles between two tiles' starts, at least the epilogue's need */
#define EMOE_MATMUL_MIN_GAP_WIDTH 8u
#define EMOE_MATMUL_MODE_LSB 183u /* what becomes of the results (`Mode`) */
#define EMOE_MATMUL_MODE_WIDTH 3u
#define EMOE_MATMUL_CHANNELS_LSB 186u /* valid output channels over all tiles */
#define EMOE_MATMUL_CHANNELS_WIDTH 13u
#define EMOE_MATMUL_DST_BASE_LSB 199u /* destination row of the first token (KEY, VALUE: of its first channel) */
#define EMOE_MATMUL_DST_BASE_WIDTH 16u
#define EMOE_MATMUL_DST_STRIDE_LSB 215u /* destination rows between tokens */
#define EMOE_MATMUL_DST_STRIDE_WIDTH 12u
#define EMOE_MATMUL_DST_CHANNEL_LSB 227u /* first output channel's position in the destination row */
#define EMOE_MATMUL_DST_CHANNEL_WIDTH 13u
#define EMOE_MATMUL_PARAM_BASE_LSB 240u /* parameter row of the first epilogue_lanes channels */
#define EMOE_MATMUL_PARAM_BASE_WIDTH 16u
#define EMOE_MATMUL_PARAM_UNIFORM_LSB 256u /* all channels use the parameters of row param_base */
#define EMOE_MATMUL_PARAM_UNIFORM_WIDTH 1u
#define EMOE_MATMUL_ROW_FACTOR_LSB 257u /* a token's own multiplier (`RowFactor`) */
#define EMOE_MATMUL_ROW_FACTOR_WIDTH 2u
#define EMOE_MATMUL_ACTIVATE_LSB 259u /* requantize to 12 bits, then the activation function */
#define EMOE_MATMUL_ACTIVATE_WIDTH 1u
#define EMOE_MATMUL_ACCUMULATE_LSB 260u /* RESIDUAL: add to the row instead of overwriting it */
#define EMOE_MATMUL_ACCUMULATE_WIDTH 1u
#define EMOE_MATMUL_HEAD_DIM_LSB 261u /* KEY, VALUE: channels of one head (padded) */
#define EMOE_MATMUL_HEAD_DIM_WIDTH 10u
#define EMOE_MATMUL_HEAD_STRIDE_LSB 271u /* KEY, VALUE: weight rows between heads */
#define EMOE_MATMUL_HEAD_STRIDE_WIDTH 16u
/* KEY: weight rows between token tiles; VALUE: between channel tiles of a head */
#define EMOE_MATMUL_TILE_STRIDE_LSB 287u
#define EMOE_MATMUL_TILE_STRIDE_WIDTH 16u
#define EMOE_MATMUL_TOKEN_REM_LSB 303u /* KEY: first token % lanes_n; VALUE: first token % lanes_k */
#define EMOE_MATMUL_TOKEN_REM_WIDTH 8u
#define EMOE_MATMUL_KEYS_LSB 311u /* SCORE source and mode: number of valid keys */
#define EMOE_MATMUL_KEYS_WIDTH 11u
#define EMOE_MATMUL_SCORE_SHIFT_LSB 322u /* SCORE source: docs/numerics.md, section 6 */
#define EMOE_MATMUL_SCORE_SHIFT_WIDTH 2u
/* SCORE source and mode: first token's entry of the row-maximum memory; GATE: first token number */
#define EMOE_MATMUL_MAX_BASE_LSB 324u
#define EMOE_MATMUL_MAX_BASE_WIDTH 11u
#define EMOE_MATMUL_NUM_EXPERTS_LSB 335u /* GATE: experts of the layer */
#define EMOE_MATMUL_NUM_EXPERTS_WIDTH 6u
#define EMOE_MATMUL_TOP_K_LSB 341u /* GATE: experts a token */
#define EMOE_MATMUL_TOP_K_WIDTH 3u
#define EMOE_MATMUL_GATE_FIRST_LSB 344u /* GATE: empty all queues before the first token */
#define EMOE_MATMUL_GATE_FIRST_WIDTH 1u

/* LAYERNORM */
#define EMOE_LAYERNORM_SRC_BASE_LSB 96u /* residual scratchpad row of the first token */
#define EMOE_LAYERNORM_SRC_BASE_WIDTH 16u
#define EMOE_LAYERNORM_SRC_STRIDE_LSB 112u /* residual rows between tokens */
#define EMOE_LAYERNORM_SRC_STRIDE_WIDTH 12u
#define EMOE_LAYERNORM_SRC_ROWS_LSB 124u /* residual rows of a token: ceil(D / epilogue_lanes) */
#define EMOE_LAYERNORM_SRC_ROWS_WIDTH 12u
#define EMOE_LAYERNORM_TOKENS_LSB 136u /* number of tokens */
#define EMOE_LAYERNORM_TOKENS_WIDTH 11u
#define EMOE_LAYERNORM_DST_BASE_LSB 147u /* activation scratchpad row of the first token */
#define EMOE_LAYERNORM_DST_BASE_WIDTH 16u
#define EMOE_LAYERNORM_DST_STRIDE_LSB 163u /* activation rows between tokens */
#define EMOE_LAYERNORM_DST_STRIDE_WIDTH 12u
/* row of the norm-parameter memory (norm_lanes x {gamma int16, pad 16, beta int32}) */
#define EMOE_LAYERNORM_PARAM_BASE_LSB 175u
#define EMOE_LAYERNORM_PARAM_BASE_WIDTH 16u
#define EMOE_LAYERNORM_DIM_LSB 191u /* channels D */
#define EMOE_LAYERNORM_DIM_WIDTH 11u
#define EMOE_LAYERNORM_LOG2_DIM_LSB 202u /* floor_log2(D) */
#define EMOE_LAYERNORM_LOG2_DIM_WIDTH 4u
#define EMOE_LAYERNORM_INV_DIM_LSB 206u /* round_half_even(2**(log2_dim + 16) / D) */
#define EMOE_LAYERNORM_INV_DIM_WIDTH 17u
#define EMOE_LAYERNORM_EPS_LSB 223u /* added to D*Q - S*S */
#define EMOE_LAYERNORM_EPS_WIDTH 32u
#define EMOE_LAYERNORM_SHIFT_LSB 255u /* rounding shift of the outputs */
#define EMOE_LAYERNORM_SHIFT_WIDTH 5u

/* STORE */
#define EMOE_STORE_BASE_LSB 96u /* region of DRAM (`Base`), OUTPUT */
#define EMOE_STORE_BASE_WIDTH 2u
#define EMOE_STORE_OFFSET_LSB 98u /* bytes from the region's base to the first row */
#define EMOE_STORE_OFFSET_WIDTH 32u
#define EMOE_STORE_ROW_LSB 130u /* first row of the residual scratchpad */
#define EMOE_STORE_ROW_WIDTH 16u
#define EMOE_STORE_ROWS_LSB 146u /* number of rows */
#define EMOE_STORE_ROWS_WIDTH 16u

/* X(name) of the fields of a configuration that its hash is made of, in order, and the ISA's version. */
#define EMOE_CONFIG_HASHED(X) \
    X(act_depth) \
    X(axi_bytes) \
    X(axi_masters) \
    X(dsp_chain) \
    X(epilogue_lanes) \
    X(isa_version) \
    X(lanes_k) \
    X(lanes_n) \
    X(max_dim) \
    X(max_experts) \
    X(max_tokens) \
    X(max_top_k) \
    X(norm_lanes) \
    X(param_depth) \
    X(residual_depth) \
    X(score_depth) \
    X(weight_depth)

/* The other fields of a configuration. */
#define EMOE_CONFIG_FREE(X) \
    X(name) \
    X(ultra_ram) \
    X(dram_latency) \
    X(assumed_clock_mhz) \
    X(dram_gb_per_second)

#endif /* EDGEMOE_ISA_H */
