"""What a checkpoint does not say and an importer takes for granted: told in one line, with the options for it.

Nothing in a state dict tells the activation, LayerNorm's eps, the number of heads or what the head reads, and a wrong
guess computes something else without a word. What a config.json beside it says (``Facts``) is neither assumed nor
asked for, and an option that contradicts it is refused.
"""

from __future__ import annotations

from edgemoe_models.config import ACTIVATIONS
from edgemoe_models.importers.facts import NOTHING, Facts
from edgemoe_models.importers.options import HEAD_DIM, ImportOptions, ImportRefused

DEFAULT_EPS = 1e-6
#: Other names of activations: PyTorch's, timm's and Hugging Face's.
_ALSO = {"exact gelu": "gelu", "swish": "silu", "quickgelu": "quick-gelu"}
#: Widths of which all published plain ViTs have heads of 64 channels.
_USUAL_WIDTHS = (192, 320, 384, 512, 640, 768, 1024)
_POOLS = ("cls", "avg")


class Assumptions:
    """Answers from the options or the facts, or assumed; :meth:`note` says which were assumed."""

    def __init__(self, options: ImportOptions, facts: Facts = NOTHING) -> None:
        self.options, self.facts = options, facts
        self._assumed: list[str] = []

    def heads(self, dim: int) -> int:
        """The number of attention heads: as given or known, or heads of 64 where networks of this width have them.

        Raises:
            ImportRefused: it has to be given, contradicts what is known, or does not divide the width
        """
        given = self.options.heads
        if given is None and self.facts.heads is None:
            return self._usual_heads(dim)
        if given is not None and self.facts.heads not in (None, given):
            raise ImportRefused(
                f"{self.facts.source} says {self.facts.heads} heads, --heads {given}: leave --heads out"
            )
        heads = given or self.facts.heads or 0
        if heads < 1 or dim % heads:
            raise ImportRefused(f"--heads must divide the width {dim}, not be {heads}")
        return heads

    def _usual_heads(self, dim: int) -> int:
        if (known := self.facts.usual_heads.get(dim)) is not None:
            return known
        if dim % HEAD_DIM:
            raise ImportRefused(f"the width {dim} is no multiple of {HEAD_DIM}: give the number of heads (--heads)")
        if dim not in _USUAL_WIDTHS:
            raise ImportRefused(
                f"the file does not say how many attention heads there are, and networks of the width {dim} differ in "
                f"it: give --heads (timm: model.blocks[0].attn.num_heads; {dim // HEAD_DIM} would be heads of "
                f"{HEAD_DIM})"
            )
        self._assumed.append(f"{dim // HEAD_DIM} attention heads of {HEAD_DIM} (--heads)")
        return dim // HEAD_DIM

    def pool(self, usual: str, is_certain: bool) -> str:
        """What the head reads, ``cls`` or ``avg``.

        Args:
            usual: where nothing says it
            is_certain: whether the tensors allow nothing else
        """
        given = self.options.pool
        if given is not None and given not in _POOLS:
            raise ImportRefused(f"--pool must be {' or '.join(_POOLS)}, not {given!r}")
        pool = given or self.facts.pool
        if pool is None:
            if not is_certain:
                reads = {"cls": "the class token", "avg": "the average of the patch tokens"}[usual]
                self._assumed.append(f"a head that reads {reads} (--pool)")
            return usual
        if is_certain and pool != usual:
            raise ImportRefused(f"the tensors are of a head that reads {usual}, so --pool cannot be {pool}")
        return pool

    def activation(self) -> str:
        """Of the MLPs, one of ``edgemoe_models.config.ACTIVATIONS``.

        Raises:
            ImportRefused: it is another, or contradicts what is known
        """
        said, known = (_kind_of(name) for name in (self.options.activation, self.facts.activation))
        if said and known and said != known:
            raise ImportRefused(
                f"{self.facts.source} says that the activation is {ACTIVATIONS[known]}, --activation "
                f"{self.options.activation}: leave --activation out"
            )
        given = self.options.activation or self.facts.activation
        if given is None:
            self._assumed.append("the exact GELU (--activation)")
            return "gelu"
        if (kind := _kind_of(given)) is None:
            raise ImportRefused(
                f"the activation {given!r} is not the exact GELU, SiLU, ReLU or QuickGELU, which are those that can be "
                "computed: fine-tune the network with one of them (timm: act_layer='gelu')"
            )
        return kind

    def eps(self) -> float:
        """Of the LayerNorms."""
        given = self.options.eps if self.options.eps is not None else self.facts.eps
        if given is None:
            self._assumed.append(f"LayerNorm's eps {DEFAULT_EPS:g} (--eps)")
            return DEFAULT_EPS
        return given

    def note(self) -> tuple[str, ...]:
        """One line, or none."""
        return (f"assumed, because the file does not say: {', '.join(self._assumed)}",) if self._assumed else ()


def _kind_of(name: str | None) -> str | None:
    """The activation of a name, None for one that is none of ours."""
    plain = (name or "").strip().lower().replace("_", "-")
    kind = _ALSO.get(plain, plain)
    return kind if kind in ACTIVATIONS else None
