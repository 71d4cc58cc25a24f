// Drives the Verilated accelerator: clock, AXI4-Lite master, DRAM behind every AXI4 master.
//
// A cycle is: settle the combinational outputs, look at every handshake, rise the clock, set the inputs of the next
// cycle. Inputs so change only after the edge, as registers in the same clock domain would drive them.
//
// memory_table.h is generated (build.py): MASTERS, AXI_BYTES, ENGINES, ENGINE_DONE(root), struct Memory, memory_table().

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

#include "Vedgemoe.h"
#include "Vedgemoe___024root.h"
#include "memory_table.h"
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

namespace {

using Model = Vedgemoe;
constexpr int OKAY = 0, SLVERR = 2, DECERR = 3;
constexpr size_t MAX_OUTSTANDING = 64;

struct Range {
    uint64_t begin = 0, end = 0;
    bool hits(uint64_t address) const { return address >= begin && address < end; }
};

struct Burst {
    uint64_t address, ready_cycle;
    int beats;
};

struct Sim;

// One master's DRAM. `Ports` gives the Verilated ports, so that each master compiles to direct accesses.
template <class Ports>
struct Dram {
    std::deque<Burst> reads, writes, answers;  // answers: `beats` holds the response
    uint64_t read_beats = 0, write_beats = 0;
    int written = 0, write_resp = OKAY;
    uint64_t held_ar = 0, held_aw = 0;  // address offered and not taken, for the stability check
    void observe(Sim& sim);
    void drive(Sim& sim);
    bool beat_taken = false, beat_written = false, answer_taken = false;
};

#define DEFINE_PORTS(N)                                                                   \
    struct Ports##N {                                                                     \
        static auto& arvalid(Model* m) { return m->m##N##_axi_arvalid; }                  \
        static auto& arready(Model* m) { return m->m##N##_axi_arready; }                  \
        static auto& araddr(Model* m) { return m->m##N##_axi_araddr; }                    \
        static auto& arlen(Model* m) { return m->m##N##_axi_arlen; }                      \
        static auto& arsize(Model* m) { return m->m##N##_axi_arsize; }                    \
        static auto& arburst(Model* m) { return m->m##N##_axi_arburst; }                  \
        static auto& rvalid(Model* m) { return m->m##N##_axi_rvalid; }                    \
        static auto& rready(Model* m) { return m->m##N##_axi_rready; }                    \
        static auto& rdata(Model* m) { return m->m##N##_axi_rdata; }                      \
        static auto& rresp(Model* m) { return m->m##N##_axi_rresp; }                      \
        static auto& rlast(Model* m) { return m->m##N##_axi_rlast; }                      \
        static auto& awvalid(Model* m) { return m->m##N##_axi_awvalid; }                  \
        static auto& awready(Model* m) { return m->m##N##_axi_awready; }                  \
        static auto& awaddr(Model* m) { return m->m##N##_axi_awaddr; }                    \
        static auto& awlen(Model* m) { return m->m##N##_axi_awlen; }                      \
        static auto& wvalid(Model* m) { return m->m##N##_axi_wvalid; }                    \
        static auto& wready(Model* m) { return m->m##N##_axi_wready; }                    \
        static auto& wdata(Model* m) { return m->m##N##_axi_wdata; }                      \
        static auto& wstrb(Model* m) { return m->m##N##_axi_wstrb; }                      \
        static auto& wlast(Model* m) { return m->m##N##_axi_wlast; }                      \
        static auto& bvalid(Model* m) { return m->m##N##_axi_bvalid; }                    \
        static auto& bready(Model* m) { return m->m##N##_axi_bready; }                    \
        static auto& bresp(Model* m) { return m->m##N##_axi_bresp; }                      \
    };

DEFINE_PORTS(0)
#if MASTERS > 1
DEFINE_PORTS(1)
#endif
#if MASTERS > 2
DEFINE_PORTS(2)
DEFINE_PORTS(3)
#endif

struct Sim {
    VerilatedContext context;
    Model model{&context};
    uint8_t* dram;
    uint64_t dram_bytes;
    uint64_t latency;
    uint32_t stall_threshold;  // of 2^32
    uint64_t random;
    uint64_t cycle = 0;
    Range read_error, write_error, hang;
    std::string violation;
    Dram<Ports0> master0;
#if MASTERS > 1
    Dram<Ports1> master1;
#endif
#if MASTERS > 2
    Dram<Ports2> master2;
    Dram<Ports3> master3;
#endif
#if VM_TRACE
    VerilatedVcdC* trace = nullptr;
#endif

    bool stalls() {
        if (!stall_threshold) return false;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return uint32_t(random >> 32) < stall_threshold;
    }

    void violate(const char* what, uint64_t address) {
        if (!violation.empty()) return;
        char text[160];
        std::snprintf(text, sizeof text, "%s (address 0x%llx, cycle %llu)", what, (unsigned long long)address,
                      (unsigned long long)cycle);
        violation = text;
    }

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
        if (trace) trace->dump(2 * cycle + high);
#endif
        (void)high;
    }

    // Settles the outputs, so that the caller sees this cycle's handshakes; `finish` ends the cycle.
    void settle() {
        model.clk = 0;
        model.eval();
        dump(false);
    }

    void finish() {
        each([&](auto& master) { master.observe(*this); });
        model.clk = 1;
        model.eval();
        dump(true);
        cycle++;
        each([&](auto& master) { master.drive(*this); });
    }

    void step() {
        settle();
        finish();
    }
};

template <class Ports>
void Dram<Ports>::observe(Sim& sim) {
    Model* m = &sim.model;
    if (held_ar && (!Ports::arvalid(m) || Ports::araddr(m) + 1 != held_ar)) sim.violate("AR was withdrawn", held_ar - 1);
    if (held_aw && (!Ports::awvalid(m) || Ports::awaddr(m) + 1 != held_aw)) sim.violate("AW was withdrawn", held_aw - 1);
    held_ar = held_aw = 0;
    if (Ports::arvalid(m)) {
        const uint64_t address = Ports::araddr(m);
        if (Ports::arready(m)) {
            const int beats = Ports::arlen(m) + 1;
            if ((address & 4095) + uint64_t(beats) * AXI_BYTES > 4096) sim.violate("a read crosses 4 KiB", address);
            if (address % AXI_BYTES) sim.violate("a read is not aligned to a beat", address);
            if ((1 << Ports::arsize(m)) != AXI_BYTES || Ports::arburst(m) != 1)
                sim.violate("a read is not INCR of whole beats", address);
            reads.push_back({address, sim.cycle + sim.latency, beats});
        } else {
            held_ar = address + 1;
        }
    }
    if (Ports::awvalid(m)) {
        const uint64_t address = Ports::awaddr(m);
        if (Ports::awready(m)) {
            const int beats = Ports::awlen(m) + 1;
            if ((address & 4095) + uint64_t(beats) * AXI_BYTES > 4096) sim.violate("a write crosses 4 KiB", address);
            if (address % AXI_BYTES) sim.violate("a write is not aligned to a beat", address);
            writes.push_back({address, sim.cycle, beats});
        } else {
            held_aw = address + 1;
        }
    }
    beat_taken = Ports::rvalid(m) && Ports::rready(m);
    if (beat_taken) {
        read_beats++;
        Burst& burst = reads.front();
        burst.address += AXI_BYTES;
        if (--burst.beats == 0) reads.pop_front();
    }
    beat_written = Ports::wvalid(m) && Ports::wready(m);
    if (beat_written) {
        write_beats++;
        Burst& burst = writes.front();
        const uint64_t address = burst.address;
        if (address + AXI_BYTES > sim.dram_bytes) {
            write_resp = DECERR;
        } else {
            if (sim.write_error.hits(address)) write_resp = SLVERR;
            const auto* data = reinterpret_cast<const uint8_t*>(&Ports::wdata(m));
            for (int i = 0; i < AXI_BYTES; i++)
                if (Ports::wstrb(m) >> i & 1) sim.dram[address + i] = data[i];
        }
        burst.address += AXI_BYTES;
        if (bool(Ports::wlast(m)) != (burst.beats == 1)) sim.violate("WLAST is at the wrong beat", address);
        if (--burst.beats == 0) {
            answers.push_back({address, sim.cycle + sim.latency, write_resp});
            write_resp = OKAY;
            writes.pop_front();
        }
    }
    answer_taken = Ports::bvalid(m) && Ports::bready(m);
    if (answer_taken) answers.pop_front();
}

template <class Ports>
void Dram<Ports>::drive(Sim& sim) {
    Model* m = &sim.model;
    Ports::arready(m) = reads.size() < MAX_OUTSTANDING && !sim.stalls();
    Ports::awready(m) = writes.size() < MAX_OUTSTANDING && !sim.stalls();
    // W beats are taken once their address is known; they use the same bandwidth as reads.
    Ports::wready(m) = !writes.empty() && !sim.stalls();
    if (!Ports::rvalid(m) || beat_taken) {
        Ports::rvalid(m) = 0;
        if (!reads.empty() && reads.front().ready_cycle <= sim.cycle && !beat_written && !sim.stalls() &&
            !sim.hang.hits(reads.front().address)) {
            const Burst& burst = reads.front();
            const bool exists = burst.address + AXI_BYTES <= sim.dram_bytes;
            Ports::rvalid(m) = 1;
            Ports::rlast(m) = burst.beats == 1;
            Ports::rresp(m) = !exists ? DECERR : sim.read_error.hits(burst.address) ? SLVERR : OKAY;
            if (exists) std::memcpy(&Ports::rdata(m), sim.dram + burst.address, AXI_BYTES);
            else std::memset(&Ports::rdata(m), 0, AXI_BYTES);
        }
    }
    if (!Ports::bvalid(m) || answer_taken) {
        Ports::bvalid(m) = 0;
        if (!answers.empty() && answers.front().ready_cycle <= sim.cycle && !sim.stalls() &&
            !sim.hang.hits(answers.front().address)) {
            Ports::bvalid(m) = 1;
            Ports::bresp(m) = answers.front().beats;
        }
    }
}

constexpr int LITE_LIMIT = 1000;  // cycles after which the register file counts as dead

}  // namespace

extern "C" {

Sim* em_create(uint8_t* dram, uint64_t dram_bytes, uint64_t latency, double stall, uint64_t seed) {
    auto* sim = new Sim;
    sim->dram = dram;
    sim->dram_bytes = dram_bytes;
    sim->latency = latency;
    sim->stall_threshold = uint32_t(stall * 4294967295.0);
    sim->random = (seed + 1) * 0x9E3779B97F4A7C15ull;
    sim->model.rst = 1;
    for (int i = 0; i < 4; i++) sim->step();
    sim->model.rst = 0;
    sim->step();
    return sim;
}

void em_destroy(Sim* sim) {
#if VM_TRACE
    if (sim->trace) sim->trace->close();
    delete sim->trace;
#endif
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
    for (uint64_t end = sim->cycle + cycles; sim->cycle < end;) {
        sim->step();
        if (watching) {
            const uint16_t done[] = ENGINE_DONE(root);
            for (int i = 0; i < ENGINES; i++)
                if (watch[i] && done[i] >= watch[i]) return 2;
        }
        if (sim->model.irq) return 1;
        if (!sim->violation.empty()) return 3;
    }
    return 0;
}

// Commands that each engine has finished, without taking a cycle.
void em_done(Sim* sim, uint16_t* done) {
    const auto* root = sim->model.rootp;
    const uint16_t counts[] = ENGINE_DONE(root);
    std::copy(counts, counts + ENGINES, done);
}

uint64_t em_cycles(Sim* sim) { return sim->cycle; }
const char* em_violation(Sim* sim) { return sim->violation.c_str(); }

void em_beats(Sim* sim, uint64_t* reads, uint64_t* writes) {
    sim->each([&](auto& master) {
        *reads++ = master.read_beats;
        *writes++ = master.write_beats;
    });
}

// kind: 0 read errors, 1 write errors, 2 no answer; an empty range switches it off.
void em_inject(Sim* sim, int kind, uint64_t begin, uint64_t end) {
    (kind == 0 ? sim->read_error : kind == 1 ? sim->write_error : sim->hang) = {begin, end};
}

int em_memories(Sim* sim, const Memory** table) { return memory_table(sim->model.rootp, table); }

int em_trace(Sim* sim, const char* path) {
#if VM_TRACE
    if (sim->trace) {
        sim->trace->close();
        delete sim->trace;
        sim->trace = nullptr;
    }
    if (!path) return 0;
    sim->context.traceEverOn(true);
    sim->trace = new VerilatedVcdC;
    sim->model.trace(sim->trace, 99);
    sim->trace->open(path);
    return sim->trace->isOpen() ? 0 : -1;
#else
    (void)sim;
    (void)path;
    return -1;
#endif
}
}
