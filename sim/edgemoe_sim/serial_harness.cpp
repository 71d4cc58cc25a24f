// Drives a Verilated SerialSystem by its pins: clock, serial line, and an SDRAM chip that checks how it is used.
//
// A cycle: rise the clock, let the chip see the outputs at the falling edge, then set the inputs for the next rise.

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "Vedgemoe.h"
#include "verilated.h"

namespace {

constexpr int BANKS = 4, ROWS = 8192, COLUMNS = 512;
enum Command { SET_MODE = 0, WRITE = 1, PRECHARGE = 2, REFRESH = 4, READ = 5, ACTIVATE = 6 };  // others do nothing

// Least times between commands in ns, of a -7 grade chip; a refresh is due every 64 ms / 8192 on average.
constexpr double T_RCD = 20, T_RP = 20, T_RAS = 42, T_WR = 14, T_RFC = 63, REFRESH_GAP = 64e6 / 8192;

struct Chip {
    std::vector<uint16_t> words = std::vector<uint16_t>(size_t(BANKS) * ROWS * COLUMNS);
    double period;  // ns
    std::string violation;
    int64_t cycle = 0, closed = -100, refreshed = -100, opened[BANKS] = {}, written[BANKS] = {};
    int row[BANKS] = {-1, -1, -1, -1}, refreshes = 0;
    bool ready = false;
    uint16_t next = 0, data = 0;  // what READ fetched, and what is at the pins

    void violate(const char* what) {
        if (violation.empty()) violation = std::string(what) + " (cycle " + std::to_string(cycle) + ")";
    }
    void after(int64_t since, double least, const char* what) {
        if ((cycle - since) * period < least) violate(what);
    }
    bool idle() const { return row[0] < 0 && row[1] < 0 && row[2] < 0 && row[3] < 0; }

    uint16_t& word(int bank, int address) {
        if (row[bank] < 0) violate("a bank is used without an open row");
        if (address >= COLUMNS) violate("a column does not exist, or A10 is set");
        after(opened[bank], T_RCD, "tRCD");
        return words[(size_t(row[bank] < 0 ? 0 : row[bank]) * BANKS + bank) * COLUMNS + address % COLUMNS];
    }

    void clock(int command, int bank, int address, int mask, uint16_t value, bool driven) {
        cycle++;
        data = next;
        next = 0xDEAD;
        if (command != 7 && command != 3) after(refreshed, T_RFC, "tRFC");
        if (ready && (cycle - refreshed) * period > 4 * REFRESH_GAP) violate("a refresh is late");
        switch (command) {
            case SET_MODE:
                if (!idle() || refreshes < 2) violate("the mode is set too early");
                if (address != 0x220) violate("the mode is not CAS latency 2, single words");
                ready = true;
                break;
            case ACTIVATE:
                if (!ready) violate("a row is opened before the mode is set");
                if (row[bank] >= 0) violate("a second row is opened");
                after(closed, T_RP, "tRP");
                row[bank] = address;
                opened[bank] = cycle;
                break;
            case READ:
                if (driven) violate("the data pins are driven during a read");
                next = word(bank, address);
                break;
            case WRITE: {
                if (!driven) violate("written data are not driven");
                uint16_t& target = word(bank, address);
                const uint16_t keep = (mask & 1 ? 0x00FF : 0) | (mask & 2 ? 0xFF00 : 0);
                target = (target & keep) | (value & ~keep);
                written[bank] = cycle;
                break;
            }
            case PRECHARGE:
                for (int b = 0; b < BANKS; b++) {
                    if (!(address >> 10 & 1) && b != bank) continue;
                    if (row[b] >= 0) {
                        after(opened[b], T_RAS, "tRAS");
                        after(written[b], T_WR, "tWR");
                    }
                    row[b] = -1;
                }
                closed = cycle;
                break;
            case REFRESH:
                if (!idle()) violate("a refresh with an open row");
                after(closed, T_RP, "tRP before a refresh");
                refreshed = cycle;
                refreshes++;
                break;
        }
    }
};

struct System {
    VerilatedContext context;
    Vedgemoe model{&context};
    Chip chip;
    uint64_t cycle = 0;
    int divisor;
    std::deque<uint8_t> to_send, received;
    int sending = 0, send_left = 0, send_timer = 0;        // bits still to send, lowest first
    int receiving = 0, receive_left = 0, receive_timer = 0;
    uint64_t broken_until = 0;

    int line_in() {
        if (cycle < broken_until) return 0;
        if (!send_left) {
            if (to_send.empty()) return 1;
            sending = 1 << 9 | to_send.front() << 1;
            to_send.pop_front();
            send_left = 10;
            send_timer = divisor;
        }
        const int bit = sending & 1;
        if (--send_timer == 0) {
            sending >>= 1;
            send_left--;
            send_timer = divisor;
        }
        return bit;
    }

    void line_out(int bit) {
        if (!receive_left) {
            if (!bit) {
                receive_left = 9;
                receive_timer = divisor + divisor / 2;
            }
        } else if (--receive_timer == 0) {
            receive_timer = divisor;
            if (--receive_left) receiving = receiving >> 1 | bit << 7;
            else if (bit) received.push_back(uint8_t(receiving));
            else chip.violate("a frame from the system has no stop bit");
        }
    }

    void step() {
        model.clk = 1;
        model.eval();
        chip.clock(model.sdram_command, model.sdram_bank, model.sdram_address, model.sdram_mask,
                   uint16_t(model.sdram_write_data), model.sdram_drive);
        line_out(model.tx);
        model.clk = 0;
        model.rx = line_in();
        model.sdram_read_data = chip.data;
        model.eval();
        cycle++;
    }
};

}  // namespace

extern "C" {

System* ss_create(int divisor, double clock_hz) {
    auto* system = new System;
    system->divisor = divisor;
    system->chip.period = 1e9 / clock_hz;
    system->model.rx = 1;
    system->model.rst = 1;
    for (int i = 0; i < 4; i++) system->step();
    system->model.rst = 0;
    return system;
}

void ss_destroy(System* system) {
    system->model.final();
    delete system;
}

void ss_send(System* system, const uint8_t* bytes, uint64_t count) {
    system->to_send.insert(system->to_send.end(), bytes, bytes + count);
}

// A break of `cycles`; what was to be sent is lost.
void ss_break(System* system, uint64_t cycles) {
    system->to_send.clear();
    system->send_left = 0;
    system->broken_until = system->cycle + cycles;
}

// Runs until `count` bytes have been received, for at most `cycles`; returns how many there are.
uint64_t ss_run(System* system, uint64_t cycles, uint64_t count) {
    for (uint64_t end = system->cycle + cycles; system->cycle < end && system->received.size() < count;) {
        system->step();
        if (!system->chip.violation.empty()) break;
    }
    return system->received.size();
}

void ss_take(System* system, uint8_t* bytes, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        bytes[i] = system->received.front();
        system->received.pop_front();
    }
}

uint64_t ss_cycles(System* system) { return system->cycle; }
int ss_leds(System* system) { return system->model.led; }
const char* ss_violation(System* system) { return system->chip.violation.c_str(); }
}
