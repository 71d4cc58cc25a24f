// Drives the Verilated accelerator: clock, AXI4-Lite master, DRAM behind every AXI4 master.
//
// A cycle is: settle the combinational outputs, look at every handshake, rise the clock, set the inputs of the next
// cycle. Inputs so change only after the edge, as registers in the same clock domain would drive them.
//
// memory_table.h is generated (build.py): MASTERS, AXI_BYTES, ENGINES, ENGINE_DONE(root), struct Memory, memory_table().

#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "Vedgemoe.h"
#include "Vedgemoe___024root.h"
#include "memory_table.h"
#include "dram_model.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

struct Sim {
    VerilatedContext context;
    Model model{&context};
    Dram dram;
    Port<Ports0> master0;
#if MASTERS > 1
    Port<Ports1> master1;
#endif
#if MASTERS > 2
    Port<Ports2> master2;
    Port<Ports3> master3;
#endif
#if VM_TRACE
    VerilatedVcdC* trace = nullptr;
    std::string trace_path;
    uint64_t trace_limit = 0;  // bytes
#endif
    bool trace_full = false;

    template <class F>
    void each(F f) {
        f(master0);
#if MASTERS > 1
        f(master1);
#endif
#if MASTERS > 2
        f(master2);
        f(master3);
#endif
    }

    void dump(bool high) {
#if VM_TRACE
        if (!trace) return;
        trace->dump(2 * dram.cycle + high);
        struct stat file;  // which may grow by hundreds of kilobytes a cycle
        if (high && dram.cycle % 64 == 0 && !stat(trace_path.c_str(), &file)) {
            trace_full = uint64_t(file.st_size) >= trace_limit;
            if (trace_full) end_trace();
        }
#endif
        (void)high;
    }

    void end_trace() {
#if VM_TRACE
        if (trace) trace->close();
        delete trace;
        trace = nullptr;
#endif
    }

    // Settles the outputs, so that the caller sees this cycle's handshakes; `finish` ends the cycle.
    void settle() {
        model.clk = 0;
        model.eval();
        dump(false);
    }

    void finish() {
        each([&](auto& master) { master.observe(&model, dram); });
        model.clk = 1;
        model.eval();
        dump(true);
        dram.tick();
        // Who asks first gets what there is: everybody in turn, where it is less than all can take.
        const int first = dram.limited() ? int(dram.cycle % MASTERS) : 0;
        for (int turn = 0; turn < (first ? 2 : 1); turn++) {
            int index = 0;
            each([&](auto& master) {
                if ((index++ >= first) == !turn) master.drive(&model, dram);
            });
        }
    }

    void step() {
        settle();
        finish();
    }
};

constexpr int LITE_LIMIT = 1000;  // cycles after which the register file counts as dead

}  // namespace

extern "C" {

Sim* em_create(uint8_t* bytes, uint64_t size, const DramOptions* options) {
    auto* sim = new Sim{.dram = {.bytes = bytes, .size = size, .options = *options}};
    sim->model.rst = 1;
    for (int i = 0; i < 4; i++) sim->step();
    sim->model.rst = 0;
    sim->step();
    return sim;
}

void em_destroy(Sim* sim) {
    sim->end_trace();
    sim->model.final();
    Verilated::threadContextp(&sim->context);  // destructors use this thread's, which may be that of a model long gone
    delete sim;
}

// Both return 0, or -1 when the register file does not answer.
int em_write(Sim* sim, uint32_t address, uint32_t value) {
    Model& m = sim->model;
    m.s_axi_awaddr = address;
    m.s_axi_wdata = value;
    m.s_axi_wstrb = 15;
    m.s_axi_awvalid = m.s_axi_wvalid = m.s_axi_bready = 1;
    for (int i = 0; i < LITE_LIMIT; i++) {
        sim->settle();
        const bool aw = m.s_axi_awready, w = m.s_axi_wready, b = m.s_axi_bvalid;
        sim->finish();
        if (aw) m.s_axi_awvalid = 0;
        if (w) m.s_axi_wvalid = 0;
        if (b) return m.s_axi_bready = 0;
    }
    return -1;
}

int em_read(Sim* sim, uint32_t address, uint32_t* value) {
    Model& m = sim->model;
    m.s_axi_araddr = address;
    m.s_axi_arvalid = m.s_axi_rready = 1;
    for (int i = 0; i < LITE_LIMIT; i++) {
        sim->settle();
        const bool ar = m.s_axi_arready, r = m.s_axi_rvalid;
        *value = m.s_axi_rdata;
        sim->finish();
        if (ar) m.s_axi_arvalid = 0;
        if (r) return m.s_axi_rready = 0;
    }
    return -1;
}

// Runs until a completion counter reaches its watched value (2; 0 watches nothing), the interrupt (1), an AXI rule is
// broken (3), or `cycles` have passed (0).
int em_run(Sim* sim, uint64_t cycles, const uint16_t* watch) {
    const auto* root = sim->model.rootp;
    bool watching = false;
    for (int i = 0; i < ENGINES; i++) watching |= watch[i] != 0;
    for (uint64_t end = sim->dram.cycle + cycles; sim->dram.cycle < end;) {
        sim->step();
        if (watching) {
            const uint16_t done[] = ENGINE_DONE(root);
            for (int i = 0; i < ENGINES; i++)
                if (watch[i] && done[i] >= watch[i]) return 2;
        }
        if (sim->model.irq) return 1;
        if (!sim->dram.violation.empty()) return 3;
    }
    return 0;
}

// Commands that each engine has finished, without taking a cycle.
void em_done(Sim* sim, uint16_t* done) {
    const auto* root = sim->model.rootp;
    const uint16_t counts[] = ENGINE_DONE(root);
    std::copy(counts, counts + ENGINES, done);
}

uint64_t em_cycles(Sim* sim) { return sim->dram.cycle; }
const char* em_violation(Sim* sim) { return sim->dram.violation.c_str(); }

void em_beats(Sim* sim, uint64_t* reads, uint64_t* writes) {
    sim->each([&](auto& master) {
        *reads++ = master.read_beats;
        *writes++ = master.write_beats;
    });
}

// kind: 0 read errors, 1 write errors, 2 no answer; an empty range switches it off.
void em_inject(Sim* sim, int kind, uint64_t begin, uint64_t end) {
    (kind == 0 ? sim->dram.read_error : kind == 1 ? sim->dram.write_error : sim->dram.hang) = {begin, end};
}

int em_memories(Sim* sim, const Memory** table) { return memory_table(sim->model.rootp, table); }

// Ends at `limit` bytes, or soon after.
int em_trace(Sim* sim, const char* path, uint64_t limit) {
#if VM_TRACE
    sim->end_trace();
    if (!path) return 0;
    sim->trace_path = path;
    sim->trace_limit = limit;
    sim->trace_full = false;
    sim->context.traceEverOn(true);
    sim->trace = new VerilatedVcdC;
    sim->model.trace(sim->trace, 99);
    sim->trace->open(path);
    return sim->trace->isOpen() ? 0 : -1;
#else
    (void)sim;
    (void)path;
    (void)limit;
    return -1;
#endif
}

int em_trace_full(const Sim* sim) { return sim->trace_full; }
}
