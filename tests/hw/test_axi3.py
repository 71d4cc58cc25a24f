"""``Axi3Slave`` on random bursts: bytes and order, which ``edgemoe_hw.formal.axi3`` says nothing of."""

import pytest
from amaranth.sim import Simulator

from edgemoe_hw.bus.axi3 import Axi3Slave

ADDRESS_BITS = 6
FIXED, INCREMENTING = 0, 1


def addresses(first, size, length, burst):
    """Of each beat, as AXI3 has them: only the first may be unaligned."""
    step = 1 << size
    aligned = first & -step
    return [first if number == 0 or burst == FIXED else aligned + number * step for number in range(length)]


def lanes(address, size):
    """Bytes of the bus that a beat at this address may use."""
    step = 1 << size
    return range(address % 4, (address & -step) % 4 + step)


def random_burst(rng):
    size, burst = int(rng.integers(0, 3)), int(rng.integers(0, 2))
    length = int(rng.integers(1, 17))
    # Some beyond the registers, some partly: AXI3's bursts stay within 4 KiB, and here the registers are less.
    first = int(rng.integers(0, (1 << ADDRESS_BITS) + 32))
    return {"id": int(rng.integers(0, 1 << 12)), "addr": first, "len": length - 1, "size": size, "burst": burst}


async def send(ctx, stream, payload, rng):
    """One transfer, at some time."""
    await ctx.tick().repeat(int(rng.integers(0, 4)) + 1)
    ctx.set(stream.valid, 1)
    ctx.set(stream.payload, payload)
    while not (await ctx.tick().sample(stream.ready))[2]:
        pass
    ctx.set(stream.valid, 0)


async def take(ctx, stream, rng):
    """One transfer's payload, some time after it is offered."""
    await ctx.tick().repeat(int(rng.integers(0, 4)) + 1)
    ctx.set(stream.ready, 1)
    while True:
        _, _, valid, payload = await ctx.tick().sample(stream.valid, stream.payload)
        if valid:
            ctx.set(stream.ready, 0)
            return payload


@pytest.mark.parametrize("count", [60])
def test_random_bursts(rng, count):
    dut = Axi3Slave(id_bits=12, address_bits=ADDRESS_BITS)
    memory, bursts = bytearray(rng.bytes(1 << ADDRESS_BITS)), [random_burst(rng) for _ in range(count)]
    is_write = [bool(rng.integers(0, 2)) for _ in bursts]

    async def registers_read(ctx):
        while True:
            at = (await take(ctx, dut.lite.ar, rng)).addr
            assert at % 4 == 0
            await send(ctx, dut.lite.r, {"data": int.from_bytes(memory[at : at + 4], "little"), "resp": 0}, rng)

    async def registers_write(ctx):
        while True:
            if rng.integers(0, 2):  # either may be taken first
                word, at = await take(ctx, dut.lite.w, rng), (await take(ctx, dut.lite.aw, rng)).addr
            else:
                at, word = (await take(ctx, dut.lite.aw, rng)).addr, await take(ctx, dut.lite.w, rng)
            for lane in range(4):
                if word.strb >> lane & 1:
                    memory[at + lane] = word.data >> 8 * lane & 255
            await send(ctx, dut.lite.b, {"resp": 0}, rng)

    async def processor(ctx):
        """The same bursts on the slave and on bytes of our own."""
        own = bytearray(memory)
        for request, writes in zip(bursts, is_write, strict=True):
            beats = addresses(request["addr"], request["size"], request["len"] + 1, request["burst"])
            if writes:
                await send(ctx, dut.bus.aw, request, rng)
                for number, address in enumerate(beats):
                    values = rng.bytes(4)
                    used = [lane for lane in lanes(address, request["size"]) if rng.integers(0, 4)]
                    for lane in used:
                        if (at := (address & ~3) + lane) < len(own):
                            own[at] = values[lane]
                    beat = {"id": request["id"], "data": int.from_bytes(values, "little")}
                    beat |= {"strb": sum(1 << lane for lane in used), "last": number == request["len"]}
                    await send(ctx, dut.bus.w, beat, rng)
                answer = await take(ctx, dut.bus.b, rng)
                assert (answer.id, answer.resp) == (request["id"], 0)
                assert memory == own
            else:
                await send(ctx, dut.bus.ar, request, rng)
                for number, address in enumerate(beats):
                    found = await take(ctx, dut.bus.r, rng)
                    assert (found.id, found.resp, found.last) == (request["id"], 0, number == request["len"])
                    for lane in lanes(address, request["size"]):
                        at = (address & ~3) + lane
                        assert found.data >> 8 * lane & 255 == (own[at] if at < len(own) else 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(processor)
    simulator.add_testbench(registers_read, background=True)
    simulator.add_testbench(registers_write, background=True)
    simulator.run()


def test_a_read_and_a_write_at_once_take_turns():
    """Neither waits for ever, whatever the other does; a reset in the middle of a burst leaves nothing behind."""
    from amaranth.hdl import ResetInserter, Signal

    slave, reset = Axi3Slave(id_bits=4, address_bits=ADDRESS_BITS), Signal()
    dut = ResetInserter(reset)(slave)
    request = {"addr": 0, "len": 1, "size": 2, "burst": INCREMENTING}

    async def both(ctx):
        ctx.set(slave.lite.ar.ready, 1)
        ctx.set(slave.lite.r.valid, 1)
        ctx.set(slave.lite.aw.ready, 1)
        ctx.set(slave.lite.w.ready, 1)
        ctx.set(slave.lite.b.valid, 1)
        ctx.set(slave.bus.ar.payload, request | {"id": 1})
        ctx.set(slave.bus.aw.payload, request | {"id": 2})
        for stream in (slave.bus.ar, slave.bus.aw, slave.bus.w):
            ctx.set(stream.valid, 1)
        ctx.set(slave.bus.r.ready, 1)
        ctx.set(slave.bus.b.ready, 1)
        for resets in (False, True):
            order = []
            while len(order) < 6:
                _, _, reads, writes = await ctx.tick().sample(slave.bus.ar.ready, slave.bus.aw.ready)
                order += ["read"] * reads + ["write"] * writes
            assert order in (["read", "write"] * 3, ["write", "read"] * 3)
            if not resets:
                ctx.set(reset, 1)
                await ctx.tick()
                ctx.set(reset, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(both)
    simulator.run()
