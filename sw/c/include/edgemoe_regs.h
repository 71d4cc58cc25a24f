/* Generated from hw/edgemoe_hw/spec/regs.py; do not edit. */
#ifndef EDGEMOE_REGS_H
#define EDGEMOE_REGS_H

/* Registers of 32 bits on AXI4-Lite. One with a _WORDS of 2 has its high half 4 bytes above its low half;
   reading the low half latches the high one. */
#define EMOE_REG_ADDRESS_BITS 12u
#define EMOE_ID 0x454d4f45u /* ASCII EMOE */

/* 0x454d4f45, ASCII EMOE */
#define EMOE_REG_ID 0x000u

/* version of the command layouts */
#define EMOE_REG_ISA_VERSION 0x004u

/* AcceleratorConfig.hash32 */
#define EMOE_REG_CONFIG_HASH 0x008u

/* starts and stops */
#define EMOE_REG_CONTROL 0x010u
#define EMOE_CONTROL_START 0x1u /* strobe: start the program; ignored while busy */
#define EMOE_CONTROL_SOFT_RESET 0x2u /* strobe: stop, let outstanding bus transfers end, forget errors */
#define EMOE_CONTROL_IRQ_ENABLE 0x4u /* rw: drive the interrupt output */

/* what the accelerator does */
#define EMOE_REG_STATUS 0x014u
#define EMOE_STATUS_BUSY 0x1u /* ro: a program runs, or transfers of a stopped one are outstanding */
#define EMOE_STATUS_DONE 0x2u /* ro: the last program reached END; cleared by start */
#define EMOE_STATUS_ERROR 0x4u /* ro: the last program was stopped by an error; cleared by start and soft_reset */
#define EMOE_STATUS_IRQ 0x8u /* w1c: interrupt pending: done or error */

/* first error (ErrorCode) */
#define EMOE_REG_ERROR_CODE 0x018u

/* index of the command that caused it */
#define EMOE_REG_ERROR_COMMAND 0x01cu

/* byte address of the program, a multiple of 64 */
#define EMOE_REG_PROGRAM_ADDR 0x020u
#define EMOE_REG_PROGRAM_ADDR_WORDS 2u

/* commands of the program, BEGIN and END included */
#define EMOE_REG_PROGRAM_COMMANDS 0x028u

/* cycles without progress that stop a program; 0: never */
#define EMOE_REG_WATCHDOG 0x02cu

/* byte address of region WEIGHTS */
#define EMOE_REG_BASE_WEIGHTS 0x030u
#define EMOE_REG_BASE_WEIGHTS_WORDS 2u

/* byte address of region INPUT */
#define EMOE_REG_BASE_INPUT 0x038u
#define EMOE_REG_BASE_INPUT_WORDS 2u

/* byte address of region OUTPUT */
#define EMOE_REG_BASE_OUTPUT 0x040u
#define EMOE_REG_BASE_OUTPUT_WORDS 2u

/* MoE block that EXPERT_LOAD shows, in the program's order, from 0 */
#define EMOE_REG_MOE_BLOCK 0x048u

/* bytes of region WEIGHTS: LOADs stay inside */
#define EMOE_REG_SIZE_WEIGHTS 0x04cu

/* bytes of region INPUT: LOADs stay inside */
#define EMOE_REG_SIZE_INPUT 0x050u

/* bytes of region OUTPUT: LOADs stay inside, and STOREs, which write nowhere else */
#define EMOE_REG_SIZE_OUTPUT 0x054u

/* cycles from start to END; the sum of ARRAY_BUSY and all stalls */
#define EMOE_REG_CYCLES 0x100u
#define EMOE_REG_CYCLES_WORDS 2u

/* cycles in which the array took operands */
#define EMOE_REG_ARRAY_BUSY 0x108u
#define EMOE_REG_ARRAY_BUSY_WORDS 2u

/* the next MATMUL waited for a LOAD (weights or input) */
#define EMOE_REG_STALL_LOAD 0x110u
#define EMOE_REG_STALL_LOAD_WORDS 2u

/* the next MATMUL waited for an earlier one, or the pipeline filled */
#define EMOE_REG_STALL_MATMUL 0x118u
#define EMOE_REG_STALL_MATMUL_WORDS 2u

/* the next MATMUL waited for a LAYERNORM */
#define EMOE_REG_STALL_NORM 0x120u
#define EMOE_REG_STALL_NORM_WORDS 2u

/* the next MATMUL, or END, waited for a STORE */
#define EMOE_REG_STALL_STORE 0x128u
#define EMOE_REG_STALL_STORE_WORDS 2u

/* the array waited for the vector unit */
#define EMOE_REG_STALL_EPILOGUE 0x130u
#define EMOE_REG_STALL_EPILOGUE_WORDS 2u

/* there was no MATMUL to do */
#define EMOE_REG_STALL_COMMAND 0x138u
#define EMOE_REG_STALL_COMMAND_WORDS 2u

/* bytes read by all masters, the program's own included */
#define EMOE_REG_BYTES_READ 0x140u
#define EMOE_REG_BYTES_READ_WORDS 2u

/* bytes written */
#define EMOE_REG_BYTES_WRITTEN 0x148u
#define EMOE_REG_BYTES_WRITTEN_WORDS 2u

/* commands finished by all engines */
#define EMOE_REG_COMMANDS_DONE 0x150u
#define EMOE_REG_COMMANDS_DONE_WORDS 2u

/* LOADs finished */
#define EMOE_REG_DONE_LOAD 0x180u

/* MATMULs finished */
#define EMOE_REG_DONE_MATMUL 0x184u

/* LAYERNORMs finished */
#define EMOE_REG_DONE_NORM 0x188u

/* STOREs finished */
#define EMOE_REG_DONE_STORE 0x18cu

/* MoE blocks whose EXPERT_LOAD is known: those begun, at most 16 */
#define EMOE_REG_MOE_BLOCKS 0x190u

/* tokens in each expert's queue */
#define EMOE_REG_EXPERT_COUNT 0x200u
#define EMOE_REG_EXPERT_COUNT_COUNT 32u /* 4 bytes apart */

/* tokens of each expert in block MOE_BLOCK */
#define EMOE_REG_EXPERT_LOAD 0x280u
#define EMOE_REG_EXPERT_LOAD_COUNT 32u /* 4 bytes apart */

/* Error codes */
#define EMOE_ERROR_NONE 0u /* no error */
#define EMOE_ERROR_ILLEGAL_OPCODE 1u /* a command's opcode is unknown, or the first command is not BEGIN */
#define EMOE_ERROR_ISA_VERSION 2u /* BEGIN names another ISA version */
#define EMOE_ERROR_CONFIG_HASH 3u /* BEGIN names another configuration */
#define EMOE_ERROR_PROGRAM_LENGTH 4u /* BEGIN, END and PROGRAM_COMMANDS disagree about the number of commands */
#define EMOE_ERROR_ADDRESS_RANGE 5u /* a command's memory, base or rows do not exist */
#define EMOE_ERROR_READ_BUS 6u /* a read was answered with an error response */
#define EMOE_ERROR_WRITE_BUS 7u /* a write was answered with an error response */
/* more tokens than an expert's queue holds, or tokens faster than the gate takes */
#define EMOE_ERROR_QUEUE_OVERFLOW 8u
#define EMOE_ERROR_WATCHDOG 9u /* WATCHDOG cycles passed without progress */
/* a LOAD or STORE leaves its region of DRAM, or a STORE is not to OUTPUT; nothing was transferred */
#define EMOE_ERROR_REGION 10u

/* X(code, name, meaning) of each. */
#define EMOE_ERROR_CODES(X) \
    X(0u, "NONE", \
      "no error") \
    X(1u, "ILLEGAL_OPCODE", \
      "a command's opcode is unknown, or the first command is not BEGIN") \
    X(2u, "ISA_VERSION", \
      "BEGIN names another ISA version") \
    X(3u, "CONFIG_HASH", \
      "BEGIN names another configuration") \
    X(4u, "PROGRAM_LENGTH", \
      "BEGIN, END and PROGRAM_COMMANDS disagree about the number of commands") \
    X(5u, "ADDRESS_RANGE", \
      "a command's memory, base or rows do not exist") \
    X(6u, "READ_BUS", \
      "a read was answered with an error response") \
    X(7u, "WRITE_BUS", \
      "a write was answered with an error response") \
    X(8u, "QUEUE_OVERFLOW", \
      "more tokens than an expert's queue holds, or tokens faster than the gate takes") \
    X(9u, "WATCHDOG", \
      "WATCHDOG cycles passed without progress") \
    X(10u, "REGION", \
      "a LOAD or STORE leaves its region of DRAM, or a STORE is not to OUTPUT; nothing was transferred")

#endif /* EDGEMOE_REGS_H */
