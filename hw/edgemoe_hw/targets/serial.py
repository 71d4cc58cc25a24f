"""The accelerator with a serial line to its host and an SDRAM of its own, for boards without a processor."""

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from edgemoe_hw.spec.config import AcceleratorConfig, ConfigError
from edgemoe_hw.targets.bridge import Bridge
from edgemoe_hw.targets.memory import SharedMemory
from edgemoe_hw.targets.sdram import BEAT_BYTES, Sdram, SdramPins, SdramTiming
from edgemoe_hw.targets.uart import UartReceiver, UartTransmitter
from edgemoe_hw.top import Accelerator

__all__ = ["SerialSystem"]


class SerialSystem(wiring.Component):
    """Accelerator, bridge and memory. A break on the line resets everything but the receiver.

    Args:
        config: of the accelerator; one master of 8 bytes
        clock_hz: of the only clock
        baud: bits a second on the line; the nearest whole number of clock cycles a bit is used
        timing: of the SDRAM

    Members:
        rx, tx: the line, as the FPGA sees it
        sdram: the chip
        led: alive, a program has ended, receiving, sending
    """

    def __init__(self, config: AcceleratorConfig, *, clock_hz: float, baud: float, timing: SdramTiming | None = None):
        if config.axi_masters != 1 or config.axi_bytes != BEAT_BYTES:
            raise ConfigError(
                f"a serial system has one master of {BEAT_BYTES} bytes a beat, not {config.axi_masters} "
                f"of {config.axi_bytes}"
            )
        self._config, self._clock_hz, self._timing = config, clock_hz, timing
        self._divisor = round(clock_hz / baud)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "sdram": Out(SdramPins()), "led": Out(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self._divisor)
        transmitter, bridge = UartTransmitter(self._divisor), Bridge()
        accelerator = Accelerator(self._config)
        sdram = Sdram(self._clock_hz, self._timing)
        memory = SharedMemory(sdram, 2)
        board = Module()
        for name, part in (
            ("transmitter", transmitter),
            ("bridge", bridge),
            ("accelerator", accelerator),
            ("sdram", sdram),
            ("memory", memory),
        ):
            board.submodules[name] = part
        broken = Signal()  # a register: it resets half of all flip-flops
        m.d.sync += broken.eq(receiver.broken)
        m.submodules.board = ResetInserter(broken)(board)

        connect(m, receiver.bytes, bridge.received)
        connect(m, bridge.sent, transmitter.bytes)
        connect(m, bridge.registers, accelerator.s_axi)
        connect(m, bridge.memory, memory.axi[0])  # the host first: it asks seldom and for little
        connect(m, accelerator.m0_axi, memory.axi[1])
        connect(m, sdram.pins, flipped(self.sdram))
        alive = Signal(24)
        m.d.sync += alive.eq(alive + 1)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            self.led.eq(Cat(alive[-1], accelerator.irq, ~self.rx, ~self.tx)),
        ]
        return m
