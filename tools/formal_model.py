"""A design in BTOR2, the word-level format that Yosys writes, unrolled cycle by cycle into terms of bitwuzla.

https://doi.org/10.1007/978-3-319-96145-3_32 (Niemetz, Preiner, Wolf, Biere: Btor2, BtorMC and Boolector 3.0). Only what
Yosys writes for designs without arrays is read: memories have become registers before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bitwuzla import Kind, Term, TermManager

__all__ = ["Frame", "Model", "Unrolling"]

Frame = dict[int, Term]
"""Terms of one cycle by their node's number."""

_BIT_VECTOR = {
    "add": Kind.BV_ADD,
    "and": Kind.BV_AND,
    "concat": Kind.BV_CONCAT,
    "mul": Kind.BV_MUL,
    "neg": Kind.BV_NEG,
    "not": Kind.BV_NOT,
    "or": Kind.BV_OR,
    "redand": Kind.BV_REDAND,
    "redor": Kind.BV_REDOR,
    "redxor": Kind.BV_REDXOR,
    "sll": Kind.BV_SHL,
    "sra": Kind.BV_ASHR,
    "srl": Kind.BV_SHR,
    "sub": Kind.BV_SUB,
    "xnor": Kind.BV_XNOR,
    "xor": Kind.BV_XOR,
}
_COMPARISON = {
    "eq": Kind.EQUAL,
    "neq": Kind.DISTINCT,
    "sgt": Kind.BV_SGT,
    "sgte": Kind.BV_SGE,
    "slt": Kind.BV_SLT,
    "slte": Kind.BV_SLE,
    "ugt": Kind.BV_UGT,
    "ugte": Kind.BV_UGE,
    "ult": Kind.BV_ULT,
    "ulte": Kind.BV_ULE,
}
_OPERANDS = {"ite": 3, "neg": 1, "not": 1, "redand": 1, "redor": 1, "redxor": 1}  # of the others: 2
_RESIZE = {"uext": Kind.BV_ZERO_EXTEND, "sext": Kind.BV_SIGN_EXTEND}


@dataclass
class Model:
    """The lines of a BTOR2 file.

    Attributes:
        widths: bits of each sort's number
        nodes: what computes a value, in an order in which operands come first: number, operator, arguments
        inputs, states: number of each node and its name (empty: Yosys gave it none)
        init, next: of states, by their numbers
        outputs: number of the node that each output port is, by name
    """

    widths: dict[int, int] = field(default_factory=dict)
    nodes: list[tuple[int, str, list[str]]] = field(default_factory=list)
    inputs: dict[int, str] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    init: dict[int, int] = field(default_factory=dict)
    next: dict[int, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Model:
        """Read a file.

        Raises:
            ValueError: it has a line of a kind that Yosys does not write for such designs
        """
        model = cls()
        for line in text.splitlines():
            words = line.partition(";")[0].split()
            if not words:
                continue
            number, operator, *rest = words
            if operator == "sort" and rest[0] == "bitvec":
                model.widths[int(number)] = int(rest[1])
            elif operator in ("init", "next"):
                getattr(model, operator)[int(rest[1])] = int(rest[2])
            elif operator == "output":
                model.outputs[rest[1]] = int(rest[0])
            elif operator in ("input", "state", "const", "slice", "ite", *_BIT_VECTOR, *_COMPARISON, *_RESIZE):
                if operator in ("input", "state"):
                    names = model.inputs if operator == "input" else model.states
                    names[int(number)] = rest[1] if len(rest) > 1 else ""
                model.nodes.append((int(number), operator, rest))
            else:
                raise ValueError(f"not read: {line}")
        return model


class Unrolling:
    """Cycles of a model, one after the other, as terms.

    Args:
        model: the design
        constants: inputs that have the same value in all cycles
        reset: begin in the initial state; else in any

    Attributes:
        tm: bitwuzla's manager of the terms
        frames: the cycles so far
    """

    def __init__(self, model: Model, constants: Iterable[str], *, reset: bool):
        self.tm = TermManager()
        self.frames: list[Frame] = []
        self._model = model
        self._constants: dict[str, Term | None] = dict.fromkeys(constants)
        self._reset = reset
        self._sorts = {number: self.tm.mk_bv_sort(width) for number, width in model.widths.items()}
        self._zero, self._one = (self.tm.mk_bv_value(self.tm.mk_bv_sort(1), bit) for bit in (0, 1))

    def is_one(self, bit: Term) -> Term:
        """The formula that ``bit``, a vector of one, is 1."""
        return self.tm.mk_term(Kind.EQUAL, [bit, self._one])

    def add_cycle(self) -> Frame:
        """One more cycle."""
        frame: Frame = {}
        for number, operator, arguments in self._model.nodes:
            frame[number] = self._term(frame, number, operator, arguments)
        self.frames.append(frame)
        return frame

    def _term(self, frame: Frame, number: int, operator: str, arguments: list[str]) -> Term:
        sort = self._sorts[int(arguments[0])]
        if operator == "input":
            return self._input(self._model.inputs[number], sort)
        if operator == "state":
            return self._state(frame, number, sort)
        if operator == "const":
            return self.tm.mk_bv_value(sort, arguments[1], 2)
        if operator in _RESIZE and arguments[1] == "-1":  # Yosys' operand of no bits, such as Amaranth's constant 0
            return self.tm.mk_bv_zero(sort)
        if operator in _RESIZE:
            value, more = frame[int(arguments[1])], int(arguments[2])
            return self.tm.mk_term(_RESIZE[operator], [value], [more]) if more else value
        if operator == "slice":
            whole = frame[int(arguments[1])]
            return self.tm.mk_term(Kind.BV_EXTRACT, [whole], [int(bit) for bit in arguments[2:4]])
        count = _OPERANDS.get(operator, 2)
        operands = [frame[int(argument)] for argument in arguments[1 : 1 + count]]
        if operator == "ite":
            return self.tm.mk_term(Kind.ITE, [self.is_one(operands[0]), *operands[1:]])
        if operator in _COMPARISON:
            holds = self.tm.mk_term(_COMPARISON[operator], operands)
            return self.tm.mk_term(Kind.ITE, [holds, self._one, self._zero])
        return self.tm.mk_term(_BIT_VECTOR[operator], operands)

    def _input(self, name: str, sort: object) -> Term:
        if name not in self._constants:
            return self.tm.mk_const(sort)
        if self._constants[name] is None:
            self._constants[name] = self.tm.mk_const(sort)
        return self._constants[name]

    def _state(self, frame: Frame, number: int, sort: object) -> Term:
        if self.frames and number in self._model.next:
            return self.frames[-1][self._model.next[number]]
        if self._reset and not self.frames and number in self._model.init:
            return frame[self._model.init[number]]
        return self.tm.mk_const(sort)
