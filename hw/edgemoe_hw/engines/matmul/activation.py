"""Activation functions that are ReLU minus a short, even table (docs/numerics.md, section 4)."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgemoe_hw.primitives.arithmetic import truncate
from edgemoe_hw.primitives.delay import delay
from edgemoe_hw.primitives.rounding import clamp, limit_of
from edgemoe_hw.spec.constants import GELU_ENTRIES

__all__ = ["Activation"]


class Activation(wiring.Component):
    """``relu(q) - table[|q|]`` of ``lanes`` values a cycle; no handshake, the result follows after ``LATENCY`` cycles.

    Which function that is, only the loaded table says. It can be any that differs from ReLU by an even function that
    soon vanishes: GELU, with x * (1 - Phi(x)) for x >= 0, or SiLU, with x * sigmoid(-x).

    Every lane has its own copy of the table in distributed RAM; a write goes to all of them. The table is read one
    cycle after the input, so a write and an input in the same cycle see the new entry.

    Args:
        lanes: values a cycle
        load_bytes: table entries of one write; a power of two

    Members:
        q: In(signed(11)).array(lanes), requantized to 11 bits
        shift: In(2), what divides the difference, with ``q``
        y: Out(signed(8)).array(lanes)
        write_valid: In(1), write_row: In(log2(512 / load_bytes)), write_data: In(8 * load_bytes);
            entry ``row * load_bytes + byte`` is byte ``byte`` of the data
    """

    LATENCY = 5

    def __init__(self, lanes: int, load_bytes: int) -> None:
        if not isinstance(lanes, int) or lanes < 1:
            raise ValueError(f"lanes must be a positive integer, not {lanes!r}")
        if load_bytes not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"load_bytes must be a power of two up to 32, not {load_bytes!r}")
        self._lanes = lanes
        self._load_bytes = load_bytes
        super().__init__(
            {
                "q": In(signed(11)).array(lanes),
                "shift": In(2),
                "y": Out(signed(8)).array(lanes),
                "write_valid": In(1),
                "write_row": In(range(GELU_ENTRIES // load_bytes)),
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
        shift = delay(m, self.shift, 3, "shift", reset_less=True)
        for i in range(self._lanes):
            m.d.comb += self.y[i].eq(self._lane(m, i, shift))
        return m

    def _lane(self, m: Module, i: int, shift: Signal) -> Signal:
        """The data path of lane ``i``; ``shift`` belongs to its fourth stage."""
        table = Memory(
            shape=8 * self._load_bytes,
            depth=GELU_ENTRIES // self._load_bytes,
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

        magnitude = Signal(10, name=f"magnitude_{i}", reset_less=True)
        relu_1 = Signal(10, name=f"relu_1_{i}", reset_less=True)
        m.d.sync += [  # -1024 never comes
            magnitude.eq(truncate(Mux(self.q[i] < 0, -self.q[i], self.q[i]), 10)),
            relu_1.eq(truncate(Mux(self.q[i] < 0, 0, self.q[i]), 10)),
        ]

        delta = Signal(8, name=f"delta_{i}", reset_less=True)
        relu_2 = Signal(10, name=f"relu_2_{i}", reset_less=True)
        select = (self._load_bytes - 1).bit_length()
        m.d.comb += read.addr.eq(magnitude[select:9])
        m.d.sync += [
            delta.eq(Mux(magnitude[9], 0, read.data.word_select(magnitude[:select], 8))),
            relu_2.eq(relu_1),
        ]

        # Rounding is choosing, a cycle after the difference, what is shifted and what is added.
        difference = Signal(signed(11), name=f"difference_{i}", reset_less=True)
        rounded = Signal(signed(11), name=f"rounded_{i}", reset_less=True)
        result = Signal(signed(8), name=f"result_{i}", reset_less=True)
        quotient = Array([difference >> g for g in range(4)])[shift]
        carry = Array([_rounds_up(difference, g) for g in range(4)])[shift]
        m.d.sync += [
            difference.eq(relu_2 - delta),
            rounded.eq(truncate(quotient + carry, 11)),  # at most 1023: nothing is added without a shift
            result.eq(clamp(rounded, limit_of(8))),
        ]
        return result


def _rounds_up(value: Signal, shift: int) -> Value:
    """Whether ``rhe(value, shift)`` is one more than ``value >> shift``, for a constant shift."""
    if shift == 0:
        return Const(0, 1)
    return value[shift - 1] & (value[: shift - 1].any() | value[shift])
