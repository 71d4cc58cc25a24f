"""Commands: every field of every opcode goes in and out, misuse is refused, and the layouts stay what they are."""

import dataclasses
import hashlib
import random
import typing
from pathlib import Path

import numpy as np
import pytest

from edgemoe_hw import layouts
from edgemoe_hw.spec import constants, isa, isa_docs
from edgemoe_hw.spec.config import ISA_VERSION, AcceleratorConfig
from edgemoe_hw.spec.fields import Record
from edgemoe_hw.spec.isa import (
    ENGINES,
    Engine,
    FieldError,
    Header,
    Load,
    MatMul,
    Memory,
    Opcode,
    Store,
    decode,
    decode_program,
    encode,
    waits,
)
from support.programs import forged

ROOT = Path(__file__).parents[2]
PAYLOADS = [pytest.param(payload, id=opcode.name) for opcode, payload in isa.PAYLOADS.items()]
ENUMERATIONS = (Memory, isa.Base, isa.Source, isa.Mode, isa.RowFactor)


def fields(record: type[Record]) -> dict[str, tuple[int, type[int]]]:
    """A record's fields that hold one number: their widths and types."""
    kinds = typing.get_type_hints(record)
    return {name: (width, kinds[name]) for name, width in record.members().items() if isinstance(width, int)}


def largest(width: int, kind: type[int]) -> int:
    """The largest value of a field."""
    return kind(max(kind) if kind in ENUMERATIONS else (1 << width) - 1)


def random_record(generator: random.Random, record: type[Record]) -> Record:
    """Random values, with every field's extremes among them."""
    chosen = {}
    for name, (width, kind) in fields(record).items():
        limit = largest(width, kind)
        chosen[name] = kind(generator.choice([0, limit, generator.randint(0, limit)]))
    if record is Header:
        chosen["waits"] = tuple(generator.choice([0, 65535, generator.randrange(65536)]) for _ in Engine)
    return record(**chosen)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_round_trip(payload, seed):
    generator = random.Random(seed)
    for _ in range(200):
        command = random_record(generator, Header), random_record(generator, payload)
        word = encode(command[1], command[0])
        assert len(word) == isa.COMMAND_BYTES
        decoded = decode(word)
        assert decoded == command and encode(decoded[1], decoded[0]) == word
        for name, (_, kind) in fields(payload).items():
            assert type(getattr(decoded[1], name)) is kind, name


@pytest.mark.parametrize("payload", PAYLOADS)
def test_absent_fields_are_zero(payload):
    assert decode(encode(payload())) == (Header(), payload())
    assert int.from_bytes(encode(payload()), "little") == payload.opcode


@pytest.mark.parametrize("payload", PAYLOADS)
def test_fields_do_not_overlap(payload):
    """One field at its largest value sets exactly its own bits, those that the documentation names."""
    places = {field.name: (field.offset, field.width) for field in isa.HEADER_FIELDS}
    places |= {field.name: (field.offset + isa.HEADER_BITS, field.width) for field in payload.fields()}
    taken = 0
    for name, (offset, width) in places.items():
        mask = ((1 << width) - 1) << offset
        assert not taken & mask, name
        taken |= mask
    for record in (Header, payload):
        for name, (width, kind) in fields(record).items():
            made = record(**{name: largest(width, kind)})
            word = encode(payload(), made) if record is Header else encode(made)
            assert int.from_bytes(word, "little") ^ payload.opcode == largest(width, kind) << places[name][0], name
    for engine in Engine:
        word = int.from_bytes(encode(payload(), Header(waits=waits({engine: 0xABCD}))), "little")
        assert word ^ payload.opcode == 0xABCD << places[f"wait_{engine.name.lower()}"][0]


@pytest.mark.parametrize("record", [Header, *isa.PAYLOADS.values()])
def test_values_that_do_not_fit_are_refused_where_they_are_written(record):
    for name, (width, _) in fields(record).items():
        for value in (-1, 1 << width, np.int64(1 << width)):
            expected = rf"{record.__name__}\.{name} must be between 0 and {(1 << width) - 1}, not {value}"
            with pytest.raises(FieldError, match=expected):
                record(**{name: value})
        with pytest.raises(FieldError, match=rf"{record.__name__}\.{name} must be an integer, not 1.5"):
            record(**{name: 1.5})


def test_values_without_a_meaning_are_refused():
    with pytest.raises(FieldError, match=r"Load.memory must be WEIGHT \(0\), ACT \(1\), .* ACTIVATION \(5\), not 6"):
        Load(memory=6)
    assert Load(memory=5).memory is Memory.ACTIVATION
    program = encode(Store())
    with pytest.raises(FieldError, match=r"Store.base must be .*, not 3"):
        decode(forged(program, 0, "base", 3))
    for bit in (isa.HEADER_BITS + Store.width(), 511):
        word = int.from_bytes(program, "little") | 1 << bit
        with pytest.raises(FieldError, match=f"Store: bits from {Store.width()} on must be 0"):
            decode(word.to_bytes(isa.COMMAND_BYTES, "little"))
    with pytest.raises(FieldError, match="Header.waits must have 4 values"):
        Header(waits=(1, 2, 3))
    with pytest.raises(FieldError, match="Header.wait_norm must be between 0 and 65535, not 65536"):
        Header(waits=waits({Engine.NORM: 65536}))


def test_misspelt_fields_are_refused_where_they_are_written():
    with pytest.raises(TypeError, match="tokenz"):
        MatMul(tokenz=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        MatMul().tokens = 1


@pytest.mark.parametrize("length", [0, isa.COMMAND_BYTES - 1, isa.COMMAND_BYTES + 1])
def test_wrong_length_is_refused(length):
    with pytest.raises(ValueError, match=f"a command must have 64 bytes, not {length}"):
        decode(bytes(length))


@pytest.mark.parametrize("opcode", sorted(set(range(16)) - set(Opcode)))
def test_illegal_opcode_is_refused(opcode):
    word = bytes([opcode]) + bytes(isa.COMMAND_BYTES - 1)
    with pytest.raises(ValueError, match=f"illegal opcode {opcode}"):
        decode(word)
    with pytest.raises(ValueError, match=f"command 2: illegal opcode {opcode}"):
        list(decode_program(encode(Load()) * 2 + word))
    with pytest.raises(ValueError, match="a program must be a multiple of 64 bytes, not 65"):
        list(decode_program(encode(Load()) + b"x"))


def test_values_fit_their_fields():
    for record in (Header, *isa.PAYLOADS.values()):
        for name, (width, kind) in fields(record).items():
            assert kind not in ENUMERATIONS or max(kind) < 1 << width, name
            assert kind is not bool or width == 1, name
    assert max(Opcode) < 1 << isa.HEADER_FIELDS[0].width
    assert [f.name for f in Header.fields() if f.name.startswith("wait_")] == [f"wait_{e.name.lower()}" for e in Engine]
    assert set(ENGINES.values()) == set(Engine)
    assert all(isa.PAYLOADS[opcode]().engine is engine for opcode, engine in ENGINES.items())


def test_the_rtl_has_the_same_layouts():
    """Every field of every record, by its bits."""
    for record, layout, first in (
        (Header, layouts.Header, isa.HEADER_FIELDS[0].width),
        *((payload, layouts.layout(payload), 0) for payload in isa.PAYLOADS.values()),
    ):
        found = []
        for name, field in layout:
            if name == "opcode":
                continue
            shape = record.members()[name]
            count = shape[1] if isinstance(shape, tuple) else 1
            width = field.width // count
            found += [(field.offset - first + width * number, width) for number in range(count)]
        assert found == [(field.offset, field.width) for field in record.fields()], record


def test_every_config_fits_the_fields():
    """The limits that a configuration may have are limits of the commands too."""
    header, norm, matmul = fields(Header), fields(isa.LayerNorm), fields(MatMul)
    assert all(
        constants.MAX_TOKENS < 1 << widths[name][0]
        for widths, name in ((norm, "tokens"), (matmul, "tokens"), (matmul, "keys"))
    )
    assert constants.MAX_DIM < 1 << norm["dim"][0]
    assert all(
        constants.MAX_DEPTH - 1 < 1 << fields(record)[name][0]
        for record, name in ((Load, "row"), (Store, "row"), (isa.LayerNorm, "dst_base"), (MatMul, "weight_base"))
    )
    assert constants.MAX_EXPERTS <= 1 << header["expert"][0]
    assert constants.MAX_EXPERTS < 1 << matmul["num_experts"][0] and constants.MAX_TOP_K < 1 << matmul["top_k"][0]


def test_widths_follow_from_the_limits():
    """What docs/numerics.md and the engines build on: 1024 tokens, 255 * 1024 as the largest sum of exponentials."""
    assert (constants.TOKEN_BITS, constants.ROW_BITS, constants.ROW_COUNT_BITS) == (11, 16, 17)
    assert (constants.EXP_SUM_BITS, constants.ROW_SHIFT_BITS) == (18, 5)
    assert (255 * constants.MAX_TOKENS).bit_length() - 1 < 1 << constants.ROW_SHIFT_BITS


# A change of any of these makes existing bundles unusable: it needs a new ISA_VERSION.
LAYOUTS_SHA256 = "c008248fed9d575bca8d0b77f9cecd2d95b9ee3c78d6147c4a933b5daafda57b"
DEFAULT_CONFIG_SHA256 = "ce46be1ec2f4d21ee349ce01e0bff0e7bafe0afba857401f67cfb0fe5089a9a6"


def test_layouts_are_those_of_this_version():
    records = [("Header", isa.HEADER_FIELDS), *((p.__name__, p.fields()) for p in isa.PAYLOADS.values() if p.fields())]
    enums = [Opcode, Engine, *ENUMERATIONS]
    layout = repr(
        [(name, [(f.name, f.offset, f.width) for f in record]) for name, record in records]
        + [(e.__name__, [(v.name, v.value) for v in e]) for e in enums]
    )
    assert ISA_VERSION == 4
    assert hashlib.sha256(layout.encode()).hexdigest() == LAYOUTS_SHA256


def test_a_command_of_this_version():
    header = Header(waits=waits({Engine.MATMUL: 7}), phase=3)
    command = encode(Store(base=isa.Base.OUTPUT, offset=64, row=5, rows=9), header)
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
    for record in (Header, *isa.PAYLOADS.values()):
        assert all(field.meaning for field in record.fields()), record
    for declared in (Opcode, Engine, *ENUMERATIONS):
        comments = isa_docs.member_comments(declared)
        assert set(comments) == {value.name for value in declared}
        assert declared is Opcode or all(comments.values()), declared
