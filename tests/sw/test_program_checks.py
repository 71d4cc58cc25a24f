"""Whatever a program says: what goes beyond its buffers, its scratchpads or its model is one line at loading."""

import dataclasses

import numpy as np
import pytest

from edgemoe.bundle import BundleError
from edgemoe.compiler import build_bundle
from edgemoe.compiler.errors import CompilerOptions
from edgemoe_hw.spec.config import PRESETS
from edgemoe_hw.spec.isa import Base, End, LayerNorm, Load, MatMul, Memory, Mode, RowFactor, Source, Store
from support.bundles import parts_of
from support.programs import changed, find, forged
from support.random_graphs import random_graph, small_model

CONFIG = PRESETS["tiny"]
MODEL = small_model()  # 13 tokens of 40 channels, 5 experts, tasks segmentation and classification


@pytest.fixture(scope="module")
def bundle():
    return build_bundle(random_graph(MODEL), CONFIG)


@pytest.fixture(scope="module")
def parts(bundle, tmp_path_factory):
    return parts_of(bundle, tmp_path_factory.mktemp("bundle"))


def first(kind, **wanted):
    return lambda program: find(program, kind, **wanted)[0]


def last(kind, **wanted):
    return lambda program: find(program, kind, **wanted)[-1]


QUEUED = {"use_queue": True}
GATE, KEY, VALUE, SCORE = ({"mode": mode} for mode in (Mode.GATE, Mode.KEY, Mode.VALUE, Mode.SCORE))
CONTEXT = {"source": Source.SCORE}


@pytest.mark.parametrize(
    ("where", "fields", "message"),
    [
        (first(Store), {"offset": 0x2000000}, r"\(STORE\) writes bytes 33554432 to \d+ of the output, which has 576"),
        (first(Store), {"offset": 4}, "writes at 4, which is no multiple of 8"),
        (first(Store), {"base": Base.WEIGHTS}, "writes at base 0, which is not the output"),
        (first(Store), {"row": 65535}, r"reads rows 65535 to \d+ of memory RESIDUAL, which has 2048"),
        (first(Store), {"rows": 1}, r"outputs\[0\] is at bytes 0 to 576, which no STORE writes"),
        (first(Store), {"rows": 0}, "which no STORE writes"),
        (first(Load), {"offset": 0xFFFFFFF8}, r"\(LOAD\) reads bytes 4294967288 to \d+ of the weights, which have"),
        (first(Load, base=Base.INPUT), {"offset": 576}, "reads bytes 576 to .* of the input, which has 576"),
        (first(Load), {"base": Base.OUTPUT}, "reads at base 2, where there is nothing to read"),
        (first(Load), {"offset": 1}, "reads planes at 1, not all at multiples of 8"),
        (first(Load, memory=Memory.NORM), {"row": 65535}, "of memory NORM, which has"),
        (first(Load, memory=Memory.WEIGHT), {"row": 512}, "of memory WEIGHT, which has 512"),
        (first(Load, memory=Memory.WEIGHT), {"memory": Memory.ACT}, "load_bytes is"),
        (first(LayerNorm), {"dim": 39}, "has dim 39, but the model needs 40"),
        (first(LayerNorm), {"inv_dim": 1}, "has inv_dim 1, but the model needs"),
        (first(LayerNorm), {"log2_dim": 4}, "has log2_dim 4, but the model needs 5"),
        (first(LayerNorm), {"tokens": 0}, "is of 0 tokens, but there are 13"),
        (first(LayerNorm), {"tokens": 14}, "is of 14 tokens, but there are 13"),
        (first(LayerNorm), {"src_base": 65535}, "reads rows 65535 to .* of memory RESIDUAL"),
        (first(LayerNorm), {"dst_stride": 4095}, "writes rows .* of memory ACT, which has 8192"),
        (first(LayerNorm), {"param_base": 500}, "reads rows 500 to 519 of memory NORM"),
        (first(MatMul), {"k_steps": 0}, "has k_steps 0"),
        (first(MatMul), {"tiles": 0}, "has tiles 0"),
        (first(MatMul), {"tokens": 0}, "is of 0 tokens"),
        (first(MatMul), {"min_gap": 0}, "has min_gap 0, but the epilogue needs 1 cycles"),
        (first(MatMul), {"channels": 8191}, "has 8191 channels, but its tiles have"),
        (first(MatMul), {"src_base": 8192}, "reads rows 8192 to .* of memory ACT, which has 8192"),
        (first(MatMul), {"src_stride": 4095}, "of memory ACT"),
        (first(MatMul), {"weight_base": 511}, "reads rows 511 to .* of memory WEIGHT, which has 512"),
        (first(MatMul), {"param_base": 512}, "reads rows 512 to .* of memory PARAM, which has 512"),
        (first(MatMul, mode=Mode.RESIDUAL), {"dst_base": 2047}, "of memory RESIDUAL, which has 2048"),
        (first(MatMul, mode=Mode.ACT), {"dst_base": 8191, "dst_channel": 8}, "writes rows 8191 to .* of memory ACT"),
        (first(MatMul, **KEY), {"dst_base": 511}, "writes rows 511 to .* of memory WEIGHT"),
        (first(MatMul, **KEY), {"head_stride": 500}, "of memory WEIGHT"),
        (first(MatMul, **KEY), {"tile_stride": 65535}, "of memory WEIGHT"),
        (first(MatMul, **KEY), {"dst_base": 65535}, "of memory WEIGHT"),
        (first(MatMul, **KEY), {"head_dim": 0}, "has head_dim 0"),
        (first(MatMul, **KEY), {"token_rem": 8}, "has token_rem 8, but 8 lanes"),
        (first(MatMul, **VALUE), {"tile_stride": 500}, "of memory WEIGHT"),
        (first(MatMul, **SCORE), {"dst_base": 2048}, "writes rows 2048 to .* of memory SCORE"),
        (first(MatMul, **SCORE), {"max_base": 250}, "uses rows 250 to 262 of memory ROWMAX, which has 256"),
        (first(MatMul, **SCORE), {"keys": 0}, "has 0 keys, but 13 places for them"),
        (first(MatMul, **SCORE), {"keys": 14}, "has 14 keys, but 13 places for them"),
        (first(MatMul, **CONTEXT), {"src_base": 2048}, "reads rows 2048 to .* of memory SCORE"),
        (first(MatMul, **CONTEXT), {"keys": 2047}, "has 2047 keys, but 16 places for them"),
        (first(MatMul, **CONTEXT), {"mode": Mode.RESIDUAL}, "has source SCORE without mode ACT"),
        (first(MatMul, mode=Mode.RESIDUAL), {"activate": True}, "has activate without mode ACT"),
        (first(MatMul, mode=Mode.ACT), {"accumulate": True}, "has accumulate without mode RESIDUAL"),
        (first(MatMul, mode=Mode.ACT), {"gather": True}, "has gather without use_queue"),
        (first(MatMul, mode=Mode.ACT), {"scatter": True}, "has scatter without use_queue"),
        (first(MatMul, source=Source.ACT), {"row_factor": RowFactor.SOFTMAX}, "has row_factor SOFTMAX without source"),
        (first(MatMul), {"row_factor": RowFactor.GATE}, "looks at an expert's queue before any GATE"),
        (first(MatMul), QUEUED, "looks at an expert's queue before any GATE"),
        (first(MatMul, **QUEUED), {"src_stride": 4095}, "of memory ACT"),
        (first(MatMul, **GATE), {"gate_first": False}, "fills queues that nothing has emptied"),
        (first(MatMul, **GATE), {"num_experts": 6}, "has num_experts 6, but the model has 5"),
        (first(MatMul, **GATE), {"top_k": 3}, "has top_k 3, but the model has 2"),
        (first(MatMul, **GATE), {"channels": 4}, "has channels 4, but the model has 5"),
        (first(MatMul, **GATE), {"max_base": 1}, "queues tokens 1 to 13, but there are 13"),
        (first(MatMul, **GATE), {"min_gap": 1}, "sends tokens every 1 cycles, but the gate unit needs"),
    ],
)
def test_commands(parts, refused, bundle, where, fields, message):
    program = bundle.task("segmentation").program
    number = where(program)
    edited = np.frombuffer(changed(program, number, **fields), np.uint8)
    expected = message if "STORE writes" in message or "load_bytes" in message else rf"command {number} \(.*{message}"
    expected = expected.replace(r"\(STORE\) ", "STORE. ").replace(r"\(LOAD\) ", "LOAD. ")
    refused((parts[0], parts[1] | {"program.segmentation": edited}), expected)


@pytest.mark.parametrize(
    ("where", "name", "value", "message"),
    [
        (first(MatMul), "opcode", 0, "has the illegal opcode 0"),
        (first(MatMul), "opcode", 15, "has the illegal opcode 15"),
        (first(MatMul), "opcode", 1, "is BEGIN; BEGIN is command 0 alone"),
        (first(MatMul), "opcode", 6, "is END; END is command"),
        (first(MatMul), "opcode", 2, "has bits set that no field names|"),
        (first(Load), "memory", 6, "loads memory 6, which there is not"),
        (first(Load), "base", 3, "reads at base 3"),
        (first(MatMul), "mode", 7, "has mode 7, which there is not"),
        (first(MatMul), "row_factor", 3, "has row_factor 3, which there is not"),
        (first(MatMul), "reserved", 1, "has bits set that no field names"),
        (first(MatMul), "phase", 6, "is of phase 6 of 6"),
        (first(Load), "phase", 255, "is of phase 255 of 6"),
        (first(MatMul), "expert", 16, "names expert 16, but looks at no queue"),
        (first(MatMul, **QUEUED), "expert", 5, "is for expert 5, but the model has 5"),
        (first(Load), "predicated", 1, "looks at an expert's queue before any GATE"),
        (last(Store), "predicated", 1, "which no STORE writes"),
        (first(MatMul), "wait_store", 1, "waits for 1 commands of engine STORE, but 0 come before it: it would never"),
        (first(MatMul), "wait_matmul", 1, "waits for 1 commands of engine MATMUL, but 0 come before it"),
        (last(Store), "wait_load", 65535, "waits for 65535 commands of engine LOAD"),
        (first(End), "wait_load", 0, "waits for 0 commands of engine LOAD, not for all"),
        (first(End), "phase", 1, "has a phase or an expert"),
    ],
)
def test_fields_without_meaning(parts, refused, bundle, where, name, value, message):
    program = bundle.task("segmentation").program
    edited = np.frombuffer(forged(program, where(program), name, value), np.uint8)
    refused((parts[0], parts[1] | {"program.segmentation": edited}), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda program: program[:-64], "command 0 .BEGIN. has commands|is .*; END is command"),
        (lambda program: program[64:], "BEGIN is command 0 alone"),
        (lambda program: program + program[-64:], "END is command"),
        (lambda program: program[:-1], "which are not 2 to 65535 commands of 64"),
        (lambda program: b"", "it has 0 bytes"),
        (lambda program: program[:64] * 70_000, "it has 4480000 bytes"),
        (lambda program: forged(program, 0, "isa_version", 9), "BEGIN. has isa_version 0x9, but the bundle has"),
        (lambda program: forged(program, 0, "config_hash", 9), "BEGIN. has config_hash 0x9, but the bundle has"),
        (lambda program: forged(program, 0, "commands", 9), "BEGIN. has commands 0x9, but the bundle has"),
        (lambda program: program[:-1] + b"\1", "has bits set that no field names"),
        (lambda program: bytes(len(program)), "command 0 has the illegal opcode 0"),
    ],
)
def test_programs(parts, refused, bundle, change, message):
    edited = np.frombuffer(change(bundle.task("segmentation").program), np.uint8)
    refused((parts[0], parts[1] | {"program.segmentation": edited}), message)


def test_two_queues_of_one_token(parts, refused):
    """Gates of two groups without emptying in between: the queues would hold more tokens than there are."""
    bundle = build_bundle(random_graph(MODEL), CONFIG, CompilerOptions(moe_group=7))
    program = bundle.task("segmentation").program
    second = find(program, MatMul, mode=Mode.GATE)[1]
    edited = changed(changed(program, second, gate_first=False), second, max_base=0, tokens=13)
    task = dataclasses.replace(bundle.task("segmentation"), program=edited)
    with pytest.raises(BundleError, match=rf"command {second} .* makes it 20 tokens in the queues"):
        dataclasses.replace(bundle, tasks={**bundle.tasks, "segmentation": task}).check()
