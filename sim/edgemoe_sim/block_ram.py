"""A model of the 7 series' block RAMs (AMD UG473), which Yosys' library of simulation models declares only.

What the mapped accelerator uses: one clock, no output register, no cascade, no error correction. A RAM that is used in
another way ends the simulation with a message.
"""

from __future__ import annotations

__all__ = ["block_ram"]

# Name, bytes, bits of an address, of a port's data.
_KINDS = {"RAMB36E1": (4096, 16, 32), "RAMB18E1": (2048, 14, 16)}


def block_ram(name: str) -> str:
    """Verilog of the primitive ``name``: RAMB18E1 or RAMB36E1.

    Bytes with their parity bits are rows of 9; a port of less than a byte reads and writes a part of one. Reads give
    what was there before the edge, but for a port's own write in WRITE_FIRST (its new value) and NO_CHANGE (nothing).
    """
    size, address_bits, width = _KINDS[name]
    lanes = width // 8
    wide = name == "RAMB36E1"
    initial = [f"{index:02X}" for index in range(size * 8 // 256)]
    parity = [f"{index:02X}" for index in range(size // 256)]
    top = (address_bits - 1 if wide else address_bits) - 1  # the highest of a 36E1 is for cascades
    lines = [f"  parameter [255:0] INIT_{one} = 256'h0;" for one in initial]
    lines += [f"  parameter [255:0] INITP_{one} = 256'h0;" for one in parity]
    for port in "AB":
        lines += [f"  parameter integer DO{port}_REG = 0;", f'  parameter WRITE_MODE_{port} = "WRITE_FIRST";']
        lines += [f"  parameter integer {kind}_WIDTH_{port} = 0;" for kind in ("READ", "WRITE")]
        lines += [f"  parameter [{9 * lanes - 1}:0] {kind}_{port} = 0;" for kind in ("INIT", "SRVAL")]
        lines += [f'  parameter RAM_EXTENSION_{port} = "NONE";', f'  parameter RSTREG_PRIORITY_{port} = "RSTREG";']
    for pin in ("CLKARDCLK", "CLKBWRCLK", "ENARDEN", "ENBWREN", "RSTRAMARSTRAM", "RSTRAMB", "RSTREGARSTREG", "RSTREGB"):
        lines.append(f"  parameter IS_{pin}_INVERTED = 1'b0;")
    values = {"RAM_MODE": "TDP", "RDADDR_COLLISION_HWCONFIG": "DELAYED_WRITE", "SIM_COLLISION_CHECK": "ALL"}
    values |= {"SIM_DEVICE": "7SERIES", "EN_ECC_READ": "FALSE", "EN_ECC_WRITE": "FALSE"}
    lines += [f'  parameter {key} = "{value}";' for key, value in values.items()]
    data = ", ".join(f"INIT_{one}" for one in reversed(initial))
    checks = ", ".join(f"INITP_{one}" for one in reversed(parity))
    inputs = ["CLKARDCLK", "CLKBWRCLK", "ENARDEN", "ENBWREN", "REGCEAREGCE", "REGCEB"]
    inputs += ["RSTRAMARSTRAM", "RSTRAMB", "RSTREGARSTREG", "RSTREGB"]
    more = ", input CASCADEINA, CASCADEINB, INJECTDBITERR, INJECTSBITERR" if wide else ""
    more += ", output CASCADEOUTA, CASCADEOUTB, SBITERR, DBITERR, output [7:0] ECCPARITY" if wide else ""
    more += ", output [8:0] RDADDRECC" if wide else ""
    return f"""
module {name} (
  input {", ".join(inputs)}{more},
  input [{address_bits - 1}:0] ADDRARDADDR, ADDRBWRADDR,
  input [{width - 1}:0] DIADI, DIBDI,
  input [{lanes - 1}:0] DIPADIP, DIPBDIP,
  input [{lanes - 1}:0] WEA,
  input [{2 * lanes - 1}:0] WEBWE,
  output [{width - 1}:0] DOADO, DOBDO,
  output [{lanes - 1}:0] DOPADOP, DOPBDOP
);
{chr(10).join(lines)}
  localparam [{8 * size - 1}:0] DATA = {{{data}}};
  localparam [{size - 1}:0] PARITY = {{{checks}}};
  localparam sdp = RAM_MODE == "SDP";
  localparam WIDEST = {18 * lanes};  // of both ports together
  reg [8:0] memory [0:{size - 1}];
  reg [{18 * lanes - 1}:0] read_a, read_b;  // as the ports of one RAM: bytes with their parity
  integer at;
  initial begin
    for (at = 0; at < {size}; at = at + 1) memory[at] = {{PARITY[at], DATA[8 * at +: 8]}};
    read_a = sdp && READ_WIDTH_A == WIDEST ? {{INIT_B, INIT_A}} : INIT_A;
    read_b = INIT_B;
    if (DOA_REG != 0 || DOB_REG != 0 || EN_ECC_READ != "FALSE" || EN_ECC_WRITE != "FALSE"
        || RAM_EXTENSION_A != "NONE" || RAM_EXTENSION_B != "NONE") begin
      $display("%m: this use of {name} is not modelled");
      $finish;
    end
  end

  // A word at a bit address: whole bytes from a multiple of their number, or a part of one.
  function automatic [{18 * lanes - 1}:0] word(input integer bits, input [{top}:0] address);
    integer lane, first;
    begin
      word = 0;
      if (bits >= 9) begin
        first = (address >> 3) & ~(bits / 9 - 1);
        for (lane = 0; lane < bits / 9; lane = lane + 1) word[9 * lane +: 9] = memory[first + lane];
      end else if (bits > 0)
        word[8:0] = (memory[address >> 3] >> (address & 7 & ~(bits - 1))) & ((1 << bits) - 1);
    end
  endfunction

  wire [{18 * lanes - 1}:0] in_a, in_b;
  genvar lane;
  generate
    for (lane = 0; lane < {lanes}; lane = lane + 1) begin
      assign in_a[9 * lane +: 9] = {{DIPADIP[lane], DIADI[8 * lane +: 8]}};
      // A port of both widths takes the lower half at A's pins; a narrower one has B's.
      assign in_b[9 * lane +: 9] = sdp && WRITE_WIDTH_B == WIDEST ? {{DIPADIP[lane], DIADI[8 * lane +: 8]}}
                                                                  : {{DIPBDIP[lane], DIBDI[8 * lane +: 8]}};
      assign in_b[{9 * lanes} + 9 * lane +: 9] = {{DIPBDIP[lane], DIBDI[8 * lane +: 8]}};
      assign {{DOPADOP[lane], DOADO[8 * lane +: 8]}} = read_a[9 * lane +: 9];
      assign {{DOPBDOP[lane], DOBDO[8 * lane +: 8]}} = sdp ? read_a[{9 * lanes} + 9 * lane +: 9]
                                                          : read_b[9 * lane +: 9];
    end
  endgenerate
  assign in_a[{18 * lanes - 1}:{9 * lanes}] = 0;

  wire on_a = ENARDEN ^ IS_ENARDEN_INVERTED, on_b = ENBWREN ^ IS_ENBWREN_INVERTED;
  wire zero_a = RSTRAMARSTRAM ^ IS_RSTRAMARSTRAM_INVERTED, zero_b = RSTRAMB ^ IS_RSTRAMB_INVERTED;
  wire writes_a = !sdp && WRITE_WIDTH_A != 0 && WEA != 0, writes_b = WRITE_WIDTH_B != 0 && WEBWE != 0;

  task automatic write(input integer bits, input [{top}:0] address, input [{18 * lanes - 1}:0] value,
                       input [{2 * lanes - 1}:0] enables);
    integer lane, first;
    reg [8:0] mask;
    begin
      if (bits >= 9) begin
        first = (address >> 3) & ~(bits / 9 - 1);
        for (lane = 0; lane < bits / 9; lane = lane + 1)
          if (enables[lane]) memory[first + lane] <= value[9 * lane +: 9];
      end else if (enables[0]) begin
        mask = ((1 << bits) - 1) << (address & 7 & ~(bits - 1));
        memory[address >> 3] <= (memory[address >> 3] & ~mask)
                                | ((value[8:0] << (address & 7 & ~(bits - 1))) & mask);
      end
    end
  endtask

  function automatic [{18 * lanes - 1}:0] merged(input integer bits, input [{18 * lanes - 1}:0] old, value,
                                              input [{2 * lanes - 1}:0] enables);
    integer lane;
    begin
      merged = old;
      if (bits < 9) merged = value & ((1 << bits) - 1);
      else
        for (lane = 0; lane < bits / 9; lane = lane + 1)
          if (enables[lane]) merged[9 * lane +: 9] = value[9 * lane +: 9];
    end
  endfunction

  always @(posedge (CLKARDCLK ^ IS_CLKARDCLK_INVERTED)) begin
    if (on_a) begin
      if (writes_a) write(WRITE_WIDTH_A, ADDRARDADDR[{top}:0], in_a, WEA);
      if (zero_a) read_a <= sdp && READ_WIDTH_A == WIDEST ? {{SRVAL_B, SRVAL_A}} : SRVAL_A;
      else if (READ_WIDTH_A != 0) begin
        if (!writes_a || WRITE_MODE_A == "READ_FIRST") read_a <= word(READ_WIDTH_A, ADDRARDADDR[{top}:0]);
        else if (WRITE_MODE_A == "WRITE_FIRST")
          read_a <= merged(READ_WIDTH_A, word(READ_WIDTH_A, ADDRARDADDR[{top}:0]), in_a, WEA);
      end
    end
    if (on_b) begin
      if (writes_b) write(WRITE_WIDTH_B, ADDRBWRADDR[{top}:0], in_b, WEBWE);
      if (zero_b) read_b <= SRVAL_B;
      else if (!sdp && READ_WIDTH_B != 0) begin
        if (!writes_b || WRITE_MODE_B == "READ_FIRST") read_b <= word(READ_WIDTH_B, ADDRBWRADDR[{top}:0]);
        else if (WRITE_MODE_B == "WRITE_FIRST")
          read_b <= merged(READ_WIDTH_B, word(READ_WIDTH_B, ADDRBWRADDR[{top}:0]), in_b, WEBWE);
      end
    end
  end
endmodule
"""
