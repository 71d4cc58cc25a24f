"""The supervisor: a program starts only when asked while idle; a stop holds the engines in reset until it is over."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Mux, Signal, Value

from edgemoe_hw.control_plane.supervisor import Supervisor
from edgemoe_hw.formal.check import Check, opened
from edgemoe_hw.spec.regs import ErrorCode

__all__ = ["supervisor_check"]

_SOURCES = 2
_RESET, _LAUNCH = 4, 9  # cycles after a start, from 1: of the reset, and the one of the launch
_DRAIN = 8  # cycles of a stop, at least


def supervisor_check(unit: type[Supervisor] = Supervisor) -> Check:
    """A supervisor among any strobes, errors and bus. What the register map promises is a machine of its own here."""
    check = Check("Supervisor", depth=24)
    dut = unit(sources=_SOURCES)
    inside = opened(dut)
    check.add(dut)

    stop, ended = _reports(check, dut, inside)

    # What the register map promises: a start counts only while idle, then come reset and launch; a stop lasts until
    # the engines have been in reset for long enough and the bus is idle.
    accepted = dut.start & ~dut.busy & ~dut.soft_reset
    starting, running = Signal(range(_LAUNCH + 1)), Signal()
    stopping, stopped_for = Signal(), Signal(range(_DRAIN))
    with check.m.If(dut.soft_reset):
        check.m.d.sync += starting.eq(0)
    with check.m.Elif(accepted | (starting != 0)):
        check.m.d.sync += starting.eq(Mux(starting == _LAUNCH, 0, starting + 1))
    stops = dut.soft_reset | (running & stop[0])
    with check.m.If(stops | (running & ended)):
        check.m.d.sync += running.eq(0)
    with check.m.Elif(starting == _LAUNCH):
        check.m.d.sync += running.eq(1)
    drained = (stopped_for == _DRAIN - 1) & dut.bus_idle
    with check.m.If(stopping):
        check.m.d.sync += [
            stopping.eq(~drained),
            stopped_for.eq(Mux(stopped_for == _DRAIN - 1, _DRAIN - 1, stopped_for + 1)),
        ]
    with check.m.Elif(stops):
        check.m.d.sync += [stopping.eq(1), stopped_for.eq(0)]
    for name, value in (("starting", starting), ("stopping", stopping), ("stopped_for", stopped_for)):
        check.show(name, value)
    check.invariant(~((starting != 0) | running) | ~(dut.done | dut.error))
    in_reset = (starting != 0) & (starting <= _RESET)
    check.invariant(starting <= _LAUNCH)
    check.invariant(inside.fsm.ongoing("PREPARE") == in_reset)
    check.invariant(inside.fsm.ongoing("SETTLE") == ((starting > _RESET) & (starting < _LAUNCH)))
    check.invariant(inside.fsm.ongoing("DRAIN") == stopping)
    check.invariant(inside.fsm.ongoing("IDLE") == ~((starting != 0) | running | stopping))
    check.invariant(~stopping | (inside.elapsed == stopped_for))
    check.invariant((starting == 0) | (starting == _LAUNCH) | (inside.elapsed == (starting - 1)[:2]))

    check.always(
        "engines in reset until nothing is outstanding",
        f"from a soft reset or error on, reset is 1 for {_DRAIN} cycles and until the bus is idle; else only before a "
        "launch",
        dut.reset == (stopping | in_reset),
    )
    check.always(
        "busy ends",
        "busy only while a program is started, runs or is being stopped",
        dut.busy == ((starting != 0) | running | stopping),
    )
    check.always(
        "start while busy is ignored",
        f"a launch comes {_LAUNCH} cycles after a start that found the accelerator idle, and never else",
        (dut.launch == (starting == _LAUNCH)) & (dut.running == running),
    )
    _results(check, dut, accepted, stop, ended)
    check.cover("a program ends", dut.done)
    check.cover("an error is drained", dut.error & ~dut.busy)
    check.cover("a stop waits for the bus", (check.cycles_since(~stopping, _DRAIN + 3) == _DRAIN + 3))
    check.cover("the watchdog stops a program", dut.error & (dut.error_code == ErrorCode.WATCHDOG))
    return check


def _reports(check: Check, dut: Supervisor, inside: SimpleNamespace) -> tuple[Value, Value]:
    """Errors and the end as the state machine gets them: two cycles, and one cycle, after their inputs.

    Of several errors in a cycle the first source's counts, and the watchdog's only without one.
    """
    caught = [check.past(error) for error in dut.errors]
    first = Mux(inside.late, Cat(Const(1, 1), Const(ErrorCode.WATCHDOG, 8), dut.index), 0)
    for error in reversed(caught):
        first = Mux(error[0], error, first)
    stop, ended = check.past(first), check.past(dut.finished)
    check.invariant(Value.cast(inside.first_report) == first)
    check.invariant(Value.cast(inside.report) == stop)
    check.invariant(inside.finished == ended)
    limit = dut.watchdog_limit
    quiet = Signal(32, name="cycles_without_progress")
    progress = check.past(dut.progress)
    check.m.d.sync += quiet.eq(Mux(dut.running & ~progress, quiet + 1, 0))
    check.invariant((quiet == inside.idle_cycles) & (progress == inside.progress))
    check.always(
        "watchdog",
        "it stops a program exactly when as many cycles as its limit, if that is not 0, have passed without progress",
        inside.late == check.past((limit != 0) & (quiet >= limit)),
    )
    return stop, ended


def _results(check: Check, dut: Supervisor, accepted: Value, stop: Value, ended: Value) -> None:
    """What the host reads."""
    failed, succeeded = dut.running & stop[0], dut.running & ~stop[0] & ended
    forgets = accepted | dut.soft_reset
    error = check.past(Mux(forgets, 0, dut.error | failed))
    done = check.past(Mux(forgets, 0, dut.done | succeeded))
    irq = check.past(Mux(forgets, 0, failed | succeeded | (dut.irq & ~dut.irq_clear)))
    reported = Cat(dut.error_code, dut.error_command)
    check.always("done and error never both", "at most one of done and error is 1", ~(dut.done & dut.error))
    check.always(
        "results stay",
        "done, error and irq are set by a program's end and forgotten only by a start that counts or a soft reset (irq "
        "by its clear, too)",
        (dut.done == done) & (dut.error == error) & (dut.irq == irq),
    )
    check.always(
        "the first error is kept",
        "ERROR_CODE and ERROR_COMMAND are those of the error that stopped the program",
        reported == check.past(Mux(forgets, 0, Mux(failed, stop[1:], reported))),
    )
