"""Activation functions that are ReLU plus a short, even table (docs/numerics.md, section 4)."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.spec.constants import ACTIVATION_BITS, ACTIVATION_ENTRIES

__all__ = ["Activation"]

_MAGNITUDE_BITS = ACTIVATION_BITS - 1
_INDEX_BITS = (ACTIVATION_ENTRIES - 1).bit_length()


class Activation(wiring.Component):
    """``relu(q) + table[|q|]``, shifted, of ``lanes`` values a cycle; no handshake, ``LATENCY`` cycles.

    Which function that is, only the loaded table says. It can be any that differs from ReLU by an even function that
    soon stays the same: GELU, whose table is a constant less x * (1 - Phi(x)), SiLU, or ReLU itself. The last entry
    goes on for what is larger.

    Every lane has its own copy of the table in distributed RAM; a write goes to all of them. The table is read one
    cycle after the input, so a write and an input in the same cycle see the new entry.

    Args:
        lanes: values a cycle
        load_bytes: table entries of one write; a power of two

    Members:
        q: In(signed(12)).array(lanes), requantized to 12 bits
        shift: In(2).array(lanes), what divides the sum, ``SHIFT_DELAY`` cycles after ``q``
        y: Out(signed(8)).array(lanes)
        write_valid: In(1), write_row: In(log2(512 / load_bytes)), write_data: In(8 * load_bytes);
            entry ``row * load_bytes + byte`` is byte ``byte`` of the data
    """

    LATENCY = 5
    SHIFT_DELAY = 3

    def __init__(self, lanes: int, load_bytes: int) -> None:
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"lanes must be a positive integer, not {lanes!r}")
        if load_bytes not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"load_bytes must be a power of two up to 32, not {load_bytes!r}")
        self._lanes = lanes
        self._load_bytes = load_bytes
        super().__init__(
            {
                "q": In(signed(ACTIVATION_BITS)).array(lanes),
                "shift": In(2).array(lanes),
                "y": Out(signed(8)).array(lanes),
                "write_valid": In(1),
                "write_row": In(range(ACTIVATION_ENTRIES // load_bytes)),
                "write_data": In(8 * load_bytes),
            }
        )

    @property
    def lanes(self) -> int:
        return self._lanes

    @property
    def load_bytes(self) -> int:
        return self._load_bytes

    def elaborate(self, platform: object) -> Module:
        m = Module()
        beyond = Signal(8, reset_less=True)
        with m.If(self.write_valid & (self.write_row == ACTIVATION_ENTRIES // self._load_bytes - 1)):
            m.d.sync += beyond.eq(self.write_data[-8:])
        for i in range(self._lanes):
            m.d.comb += self.y[i].eq(self._lane(m, i, beyond))
        return m

    def _lane(self, m: Module, i: int, beyond: Signal) -> Signal:
        """The data path of lane ``i``; ``beyond`` is the table's last entry."""
        table = Memory(
            shape=8 * self._load_bytes,
            depth=ACTIVATION_ENTRIES // self._load_bytes,
            init=[],
            attrs={"ram_style": "distributed"},
        )
        m.submodules[f"table_{i}"] = table
        write = table.write_port()
        read = table.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.write_valid),
            write.addr.eq(self.write_row),
            write.data.eq(self.write_data),
        ]

        magnitude = Signal(_MAGNITUDE_BITS, name=f"magnitude_{i}", reset_less=True)
        relu_1 = Signal(_MAGNITUDE_BITS, name=f"relu_1_{i}", reset_less=True)
        m.d.sync += [  # -2048 never comes
            magnitude.eq(truncate(Mux(self.q[i] < 0, -self.q[i], self.q[i]), _MAGNITUDE_BITS)),
            relu_1.eq(truncate(Mux(self.q[i] < 0, 0, self.q[i]), _MAGNITUDE_BITS)),
        ]

        entry = Signal(8, name=f"entry_{i}", reset_less=True)
        relu_2 = Signal(_MAGNITUDE_BITS, name=f"relu_2_{i}", reset_less=True)
        select = (self._load_bytes - 1).bit_length()
        m.d.comb += read.addr.eq(magnitude[select:_INDEX_BITS])
        found = read.data.word_select(magnitude[:select], 8)
        m.d.sync += [
            entry.eq(Mux(magnitude[_INDEX_BITS:].any(), beyond, found)),
            relu_2.eq(relu_1),
        ]

        # Rounding is choosing, a cycle after the sum, what is shifted and what is added.
        total = Signal(_MAGNITUDE_BITS + 1, name=f"total_{i}", reset_less=True)
        rounded = Signal(_MAGNITUDE_BITS + 1, name=f"rounded_{i}", reset_less=True)
        result = Signal(signed(8), name=f"result_{i}", reset_less=True)
        quotient = Array([total >> g for g in range(4)])[self.shift[i]]
        carry = Array([_rounds_up(total, g) for g in range(4)])[self.shift[i]]
        # Less 128 in int8 is the same with its highest bit inverted. -128 becomes -127, as all formats are symmetric.
        above = rounded[8:].any()
        lowest = ~rounded[:8].any()
        m.d.sync += [
            total.eq(relu_2 + entry),
            rounded.eq(truncate(quotient + carry, _MAGNITUDE_BITS + 1)),  # nothing is added without a shift
            result[1:7].eq(rounded[1:7] | above.replicate(6)),
            result[0].eq(rounded[0] | above | lowest),
            result[7].eq(~rounded[7] & ~above),
        ]
        return result


def _rounds_up(value: Signal, shift: int) -> Value:
    """Whether ``rhe(value, shift)`` is one more than ``value >> shift``, for a constant shift."""
    if shift == 0:
        return Const(0, 1)
    return value[shift - 1] & (value[: shift - 1].any() | value[shift])
