"""Commands: every field of every opcode goes in and out, misuse is refused, and the layouts stay what they are."""

import dataclasses
import hashlib
import random
from pathlib import Path

import pytest

from edgemoe_hw.spec import isa, isa_docs
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.isa import ENGINES, Engine, Memory, Opcode, decode, encode

ROOT = Path(__file__).parents[2]
OPCODES = [pytest.param(opcode, id=opcode.name) for opcode in Opcode]


def fields(struct) -> dict[str, int]:
    """A struct's fields and their widths."""
    return {name: field.width for name, field in struct.as_shape()} if struct is not None else {}


def values(generator: random.Random, widths: dict[str, int]) -> dict[str, int]:
    """Random values, with every field's extremes among them."""
    return {
        name: generator.choice([0, (1 << width) - 1, generator.randrange(1 << width)]) for name, width in widths.items()
    }


@pytest.mark.parametrize("opcode", OPCODES)
def test_round_trip(opcode, seed):
    generator = random.Random(seed)
    header_widths = fields(isa.Header)
    del header_widths["opcode"]
    for _ in range(200):
        header = values(generator, header_widths)
        payload = values(generator, fields(isa.PAYLOADS[opcode]))
        command = encode(opcode, header, payload)
        assert len(command) == isa.COMMAND_BYTES
        assert decode(command) == (opcode, {"opcode": opcode, **header}, payload)


@pytest.mark.parametrize("opcode", OPCODES)
def test_absent_fields_are_zero(opcode):
    decoded, header, payload = decode(encode(opcode))
    assert decoded is opcode and header.pop("opcode") == opcode
    assert set(header.values()) <= {0} and set(payload.values()) <= {0}
    assert int.from_bytes(encode(opcode), "little") == opcode


@pytest.mark.parametrize("opcode", OPCODES)
def test_fields_do_not_overlap(opcode):
    """One field at its largest value sets exactly its own bits."""
    taken = 0
    for struct, part in ((isa.Header, "header"), (isa.PAYLOADS[opcode], "payload")):
        for name, width in fields(struct).items():
            if name == "opcode":
                continue
            word = int.from_bytes(encode(opcode, **{part: {name: (1 << width) - 1}}), "little") ^ opcode
            assert bin(word).count("1") == width and not word & taken and not word & 0xF, name
            taken |= word


@pytest.mark.parametrize("opcode", OPCODES)
def test_values_that_do_not_fit_are_refused(opcode):
    for struct, part in ((isa.Header, "header"), (isa.PAYLOADS[opcode], "payload")):
        for name, width in fields(struct).items():
            for value in (-1, 1 << width):
                with pytest.raises(
                    ValueError,
                    match=rf"{struct.__name__}\.{name} must be between 0 and "
                    rf"{(1 << width) - 1}, not {value}",
                ):
                    encode(opcode, **{part: {name: value}})


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="Header has no field colour"):
        encode(Opcode.LOAD, {"colour": 1})
    with pytest.raises(ValueError, match="Load has no field tiles, tokens"):
        encode(Opcode.LOAD, {}, {"tokens": 1, "tiles": 1, "rows": 1})
    with pytest.raises(ValueError, match="END has no payload"):
        encode(Opcode.END, {}, {"rows": 1})


@pytest.mark.parametrize("length", [0, isa.COMMAND_BYTES - 1, isa.COMMAND_BYTES + 1])
def test_wrong_length_is_refused(length):
    with pytest.raises(ValueError, match=f"a command must have 64 bytes, not {length}"):
        decode(bytes(length))


@pytest.mark.parametrize("opcode", sorted(set(range(16)) - set(Opcode)))
def test_illegal_opcode_is_refused(opcode):
    with pytest.raises(ValueError, match=f"illegal opcode {opcode}"):
        decode(bytes([opcode]) + bytes(isa.COMMAND_BYTES - 1))


def test_values_fit_their_fields():
    header, load, matmul = fields(isa.Header), fields(isa.Load), fields(isa.MatMul)
    for values_, width in (
        (Opcode, header["opcode"]),
        (Memory, load["memory"]),
        (isa.Base, load["base"]),
        (isa.Source, matmul["source"]),
        (isa.Mode, matmul["mode"]),
        (isa.RowFactor, matmul["row_factor"]),
    ):
        assert max(values_) < 1 << width, values_.__name__
    assert [name for name in header if name.startswith("wait_")] == [f"wait_{e.name.lower()}" for e in Engine]
    assert set(ENGINES.values()) == set(Engine)


def test_every_config_fits_the_fields():
    """The limits that a configuration may have are limits of the commands too."""
    norm, matmul = fields(isa.LayerNorm), fields(isa.MatMul)
    assert all(
        1024 < 1 << widths[name]
        for widths, name in ((norm, "tokens"), (norm, "dim"), (matmul, "tokens"), (matmul, "keys"))
    )
    assert all(
        65535 < 1 << fields(struct)[name]
        for struct, name in (
            (isa.Load, "row"),
            (isa.Store, "row"),
            (isa.LayerNorm, "dst_base"),
            (isa.MatMul, "weight_base"),
        )
    )
    assert 32 <= 1 << fields(isa.Header)["expert"] and 32 < 1 << matmul["num_experts"] and 4 < 1 << matmul["top_k"]


# A change of any of these makes existing bundles unusable: it needs a new ISA_VERSION.
LAYOUTS_SHA256 = "03ac4ee640728c2aa3332c43f3c6f996bf4bcfbe69c96df35358d33867f24ecf"
DEFAULT_CONFIG_SHA256 = "3e1436d83a65611a7c35ea3386cf492655880d3a6864ba3f11f1c139e0539bcc"


def test_layouts_are_those_of_this_version():
    structs = [isa.Header, *(struct for struct in isa.PAYLOADS.values() if struct is not None)]
    enums = [Opcode, Engine, Memory, isa.Base, isa.Source, isa.Mode, isa.RowFactor]
    layout = repr(
        [(s.__name__, [(name, f.offset, f.width) for name, f in s.as_shape()]) for s in structs]
        + [(e.__name__, [(v.name, v.value) for v in e]) for e in enums]
    )
    assert ISA_VERSION == 2
    assert hashlib.sha256(layout.encode()).hexdigest() == LAYOUTS_SHA256


def test_a_command_of_this_version():
    command = encode(Opcode.STORE, {"wait_matmul": 7, "phase": 3}, {"base": 2, "offset": 64, "row": 5, "rows": 9})
    assert command == bytes.fromhex("050c0000000007000000000002010000140024").ljust(isa.COMMAND_BYTES, b"\0")


def test_config_hash():
    """It depends on what changes hardware or bundles, and on nothing else."""
    default = AcceleratorConfig()
    assert default.content_hash == DEFAULT_CONFIG_SHA256
    assert default.hash32 == int(DEFAULT_CONFIG_SHA256[:8], 16)
    for free in ({"name": "other"}, {"dram_latency": 99}, {"assumed_clock_mhz": 1.0}):
        assert dataclasses.replace(default, **free).content_hash == DEFAULT_CONFIG_SHA256
    assert dataclasses.replace(default, weight_depth=513).content_hash != DEFAULT_CONFIG_SHA256
    assert AcceleratorConfig.from_json(default.to_json()).content_hash == DEFAULT_CONFIG_SHA256


def test_page_is_fresh():
    text = (ROOT / "docs" / "isa.md").read_text(encoding="utf-8")
    assert text == isa_docs.markdown(), "regenerate: python -m edgemoe_hw.spec.isa_docs > docs/isa.md"


def test_every_field_and_value_is_explained():
    structs = {struct: set(fields(struct)) for struct in (isa.Header, *filter(None, isa.PAYLOADS.values()))}
    enums = {e: {value.name for value in e} for e in (Engine, Memory, isa.Base, isa.Source, isa.Mode, isa.RowFactor)}
    for declared, names in (structs | enums).items():
        comments = isa_docs.member_comments(declared)
        assert set(comments) == names and all(comments.values()), declared.__name__
