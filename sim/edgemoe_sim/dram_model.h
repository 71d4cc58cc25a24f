// DRAM behind every AXI4 master: data and order, latency, bandwidth, the limits of a processing system's ports, errors.
//
// Needs MASTERS and AXI_BYTES (memory_table.h) and the Verilated model before it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

using Model = Vedgemoe;
constexpr int OKAY = 0, SLVERR = 2, DECERR = 3;
constexpr uint32_t MAX_OUTSTANDING = 64;
// What the DRAM can have ready while nobody takes it: its ports' FIFOs, so that a short pause costs nothing.
constexpr double MAX_CREDIT = 4 * MASTERS * AXI_BYTES;

struct DramOptions {  // as in dram.py
    uint64_t latency;        // cycles from an address to its first data
    double stall;            // probability that a channel pauses in a cycle
    uint64_t seed;           // of these pauses
    double bytes_per_cycle;  // of all masters, reads and writes; 0: what the ports take
    uint32_t burst_beats;    // longer bursts are split
    uint32_t outstanding;    // most bursts, or parts of split ones, that are unfinished, a master and direction
    double refresh_period;   // cycles between the starts of two pauses of everything; 0: none
    double refresh_cycles;   // length of these pauses
};

struct Range {
    uint64_t begin = 0, end = 0;
    bool hits(uint64_t address) const { return address >= begin && address < end; }
};

struct Burst {
    uint64_t address, ready_cycle;
    int beats;         // of an answer: the response
    bool last = true;  // of the parts of a split one
};

// What all masters share.
struct Dram {
    uint8_t* bytes;
    uint64_t size;
    DramOptions options;
    uint64_t cycle = 0;
    uint64_t random = (options.seed + 1) * 0x9E3779B97F4A7C15ull;
    uint32_t stall_threshold = uint32_t(options.stall * 4294967295.0);  // of 2^32
    double credit = 0;                       // bytes that may move now
    double phase = options.refresh_cycles;  // cycles since the last pause began
    Range read_error, write_error, hang;
    std::string violation;

    bool limited() const { return options.bytes_per_cycle > 0; }
    bool refreshing() const { return phase < options.refresh_cycles; }

    void tick() {
        cycle++;
        if (options.refresh_period > 0 && ++phase >= options.refresh_period) phase -= options.refresh_period;
        if (!refreshing()) credit = std::min(credit + options.bytes_per_cycle, MAX_CREDIT);
    }

    // Whether another beat can move in this cycle; it then does.
    bool move() {
        if (refreshing()) return false;
        if (!limited()) return true;
        if (credit < AXI_BYTES) return false;
        credit -= AXI_BYTES;
        return true;
    }

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
};

#define DEFINE_PORTS(N)                                                  \
    struct Ports##N {                                                    \
        static auto& arvalid(Model* m) { return m->m##N##_axi_arvalid; } \
        static auto& arready(Model* m) { return m->m##N##_axi_arready; } \
        static auto& araddr(Model* m) { return m->m##N##_axi_araddr; }   \
        static auto& arlen(Model* m) { return m->m##N##_axi_arlen; }     \
        static auto& arsize(Model* m) { return m->m##N##_axi_arsize; }   \
        static auto& arburst(Model* m) { return m->m##N##_axi_arburst; } \
        static auto& rvalid(Model* m) { return m->m##N##_axi_rvalid; }   \
        static auto& rready(Model* m) { return m->m##N##_axi_rready; }   \
        static auto& rdata(Model* m) { return m->m##N##_axi_rdata; }     \
        static auto& rresp(Model* m) { return m->m##N##_axi_rresp; }     \
        static auto& rlast(Model* m) { return m->m##N##_axi_rlast; }     \
        static auto& awvalid(Model* m) { return m->m##N##_axi_awvalid; } \
        static auto& awready(Model* m) { return m->m##N##_axi_awready; } \
        static auto& awaddr(Model* m) { return m->m##N##_axi_awaddr; }   \
        static auto& awlen(Model* m) { return m->m##N##_axi_awlen; }     \
        static auto& wvalid(Model* m) { return m->m##N##_axi_wvalid; }   \
        static auto& wready(Model* m) { return m->m##N##_axi_wready; }   \
        static auto& wdata(Model* m) { return m->m##N##_axi_wdata; }     \
        static auto& wstrb(Model* m) { return m->m##N##_axi_wstrb; }     \
        static auto& wlast(Model* m) { return m->m##N##_axi_wlast; }     \
        static auto& bvalid(Model* m) { return m->m##N##_axi_bvalid; }   \
        static auto& bready(Model* m) { return m->m##N##_axi_bready; }   \
        static auto& bresp(Model* m) { return m->m##N##_axi_bresp; }     \
    };

DEFINE_PORTS(0)
#if MASTERS > 1
DEFINE_PORTS(1)
#endif
#if MASTERS > 2
DEFINE_PORTS(2)
DEFINE_PORTS(3)
#endif

// One master's way to the DRAM. `Ports` gives the Verilated ports, so that each master compiles to direct accesses.
template <class Ports>
struct Port {
    std::deque<Burst> split, reads, writes, answers;  // split: read bursts, of which parts are still to be issued
    uint64_t read_beats = 0, write_beats = 0;
    int written = 0;  // beats of the write part that is going on
    int write_resp = OKAY;
    uint64_t held_ar = 0, held_aw = 0;  // address offered and not taken, for the stability check
    bool beat_taken = false, beat_written = false, answer_taken = false;

    // Looks at the handshakes of the cycle that ends.
    void observe(Model* m, Dram& dram) {
        check_stable(m, dram);
        if (Ports::arvalid(m)) take_ar(m, dram);
        issue(dram);
        if (Ports::awvalid(m)) take_aw(m, dram);
        beat_taken = Ports::rvalid(m) && Ports::rready(m);
        if (beat_taken) {
            read_beats++;
            Burst& burst = reads.front();
            burst.address += AXI_BYTES;
            if (--burst.beats == 0) reads.pop_front();
        }
        beat_written = Ports::wvalid(m) && Ports::wready(m);
        if (beat_written) take_w(m, dram);
        answer_taken = Ports::bvalid(m) && Ports::bready(m);
        if (answer_taken) answers.pop_front();
    }

    // Sets the inputs of the next cycle.
    void drive(Model* m, Dram& dram) {
        const size_t outstanding = dram.options.outstanding;
        Ports::arready(m) = split.empty() && reads.size() < outstanding && !dram.stalls();
        Ports::awready(m) = writes.size() < outstanding && !dram.stalls();
        drive_w(m, dram, outstanding);
        if (!Ports::rvalid(m) || beat_taken) {
            Ports::rvalid(m) = 0;
            if (!reads.empty() && reads.front().ready_cycle <= dram.cycle && !beat_written && !dram.stalls() &&
                !dram.hang.hits(reads.front().address) && dram.move()) {
                const Burst& burst = reads.front();
                const bool exists = burst.address + AXI_BYTES <= dram.size;
                Ports::rvalid(m) = 1;
                Ports::rlast(m) = burst.last && burst.beats == 1;
                Ports::rresp(m) = !exists ? DECERR : dram.read_error.hits(burst.address) ? SLVERR : OKAY;
                if (exists) std::memcpy(&Ports::rdata(m), dram.bytes + burst.address, AXI_BYTES);
                else std::memset(&Ports::rdata(m), 0, AXI_BYTES);
            }
        }
        if (!Ports::bvalid(m) || answer_taken) {
            Ports::bvalid(m) = 0;
            while (!answers.empty() && !answers.front().last && answers.front().ready_cycle <= dram.cycle)
                answers.pop_front();  // the port waits for a part's answer, the master only for the last one
            if (!answers.empty() && answers.front().last && answers.front().ready_cycle <= dram.cycle &&
                !dram.stalls() && !dram.hang.hits(answers.front().address)) {
                Ports::bvalid(m) = 1;
                Ports::bresp(m) = answers.front().beats;
            }
        }
    }

private:
    void check_stable(Model* m, Dram& dram) {
        if (held_ar && (!Ports::arvalid(m) || Ports::araddr(m) + 1 != held_ar))
            dram.violate("AR was withdrawn", held_ar - 1);
        if (held_aw && (!Ports::awvalid(m) || Ports::awaddr(m) + 1 != held_aw))
            dram.violate("AW was withdrawn", held_aw - 1);
        held_ar = Ports::arvalid(m) && !Ports::arready(m) ? Ports::araddr(m) + 1 : 0;
        held_aw = Ports::awvalid(m) && !Ports::awready(m) ? Ports::awaddr(m) + 1 : 0;
    }

    void take_ar(Model* m, Dram& dram) {
        if (!Ports::arready(m)) return;
        const uint64_t address = Ports::araddr(m);
        const int beats = Ports::arlen(m) + 1;
        if ((address & 4095) + uint64_t(beats) * AXI_BYTES > 4096) dram.violate("a read crosses 4 KiB", address);
        if (address % AXI_BYTES) dram.violate("a read is not aligned to a beat", address);
        if ((1 << Ports::arsize(m)) != AXI_BYTES || Ports::arburst(m) != 1)
            dram.violate("a read is not INCR of whole beats", address);
        split.push_back({address, 0, beats});
    }

    // One part of a split burst a cycle, if few enough are unfinished.
    void issue(Dram& dram) {
        if (split.empty() || reads.size() >= dram.options.outstanding) return;
        Burst& burst = split.front();
        const int beats = std::min(burst.beats, int(dram.options.burst_beats));
        reads.push_back({burst.address, dram.cycle + dram.options.latency, beats, beats == burst.beats});
        burst.address += uint64_t(beats) * AXI_BYTES;
        if ((burst.beats -= beats) == 0) split.pop_front();
    }

    void take_aw(Model* m, Dram& dram) {
        if (!Ports::awready(m)) return;
        const uint64_t address = Ports::awaddr(m);
        const int beats = Ports::awlen(m) + 1;
        if ((address & 4095) + uint64_t(beats) * AXI_BYTES > 4096) dram.violate("a write crosses 4 KiB", address);
        if (address % AXI_BYTES) dram.violate("a write is not aligned to a beat", address);
        writes.push_back({address, dram.cycle, beats});
    }

    void take_w(Model* m, Dram& dram) {
        write_beats++;
        Burst& burst = writes.front();
        const uint64_t address = burst.address;
        if (address + AXI_BYTES > dram.size) {
            write_resp = DECERR;
        } else {
            if (dram.write_error.hits(address)) write_resp = SLVERR;
            const auto* data = reinterpret_cast<const uint8_t*>(&Ports::wdata(m));
            for (int i = 0; i < AXI_BYTES; i++)
                if (Ports::wstrb(m) >> i & 1) dram.bytes[address + i] = data[i];
        }
        burst.address += AXI_BYTES;
        if (bool(Ports::wlast(m)) != (burst.beats == 1)) dram.violate("WLAST is at the wrong beat", address);
        const bool last = --burst.beats == 0;
        if (++written == int(dram.options.burst_beats) || last) {
            answers.push_back({address, dram.cycle + dram.options.latency, write_resp, last});
            written = 0;
        }
        if (last) {
            write_resp = OKAY;
            writes.pop_front();
        }
    }

    // W beats are taken once their address is known; they use the same bandwidth as reads.
    void drive_w(Model* m, Dram& dram, size_t outstanding) {
        const bool allowed = written || outstanding >= MAX_OUTSTANDING || answers.size() < outstanding;
        bool ready = !writes.empty() && allowed && !dram.stalls();
        if (dram.limited()) ready = ready && Ports::wvalid(m);  // credit is not spent on a beat that is not there
        Ports::wready(m) = ready && dram.move();
    }
};
