"""What a checkpoint does not say and an importer takes for granted: told in one line, with the options for it.

Nothing in a state dict tells the activation, LayerNorm's eps, the number of heads or what the head reads, and a wrong
guess computes something else without a word.
"""

from __future__ import annotations

from edgemoe_models.importers.options import HEAD_DIM, ImportOptions, ImportRefused

DEFAULT_EPS = 1e-6
_GELU = ("gelu", "exact gelu")


class Assumptions:
    """Answers from the options, or assumed; :meth:`note` says which were assumed."""

    def __init__(self, options: ImportOptions) -> None:
        self.options = options
        self._assumed: list[str] = []

    def heads(self, dim: int) -> int:
        """The number of attention heads: as given, or heads of 64."""
        given = self.options.heads
        if given is None and dim % HEAD_DIM:
            raise ImportRefused(f"the width {dim} is no multiple of {HEAD_DIM}: give the number of heads (--heads)")
        heads = dim // HEAD_DIM if given is None else given
        if heads < 1 or dim % heads:
            raise ImportRefused(f"--heads must divide the width {dim}, not be {heads}")
        if given is None:
            self._assumed.append(f"{heads} attention heads of {HEAD_DIM} (--heads)")
        return heads

    def class_token(self) -> None:
        """Refuse a head that does not read the class token."""
        if self.options.pool is None:
            self._assumed.append("a head that reads the class token (--pool)")
        elif self.options.pool == "avg":
            raise ImportRefused(
                "the head reads the average of the patch tokens (--pool avg), and the accelerator has no operation "
                "that averages tokens: fine-tune the network with a head on the class token (timm: global_pool='token')"
            )
        elif self.options.pool != "cls":
            raise ImportRefused(f"--pool must be cls or avg, not {self.options.pool!r}")

    def activation(self) -> None:
        """Refuse another activation than the exact GELU."""
        given = self.options.activation
        if given is None:
            self._assumed.append("the exact GELU (--activation)")
        elif given.strip().lower() not in _GELU:
            raise ImportRefused(
                f"the activation {given!r} is not the exact GELU, which is what the accelerator computes: fine-tune "
                "the network with it (timm: act_layer='gelu')"
            )

    def eps(self) -> float:
        """Of the LayerNorms."""
        given = self.options.eps
        if given is None:
            self._assumed.append(f"LayerNorm's eps {DEFAULT_EPS:g} (--eps)")
            return DEFAULT_EPS
        return given

    def note(self) -> tuple[str, ...]:
        """One line, or none."""
        return (f"assumed, because the file does not say: {', '.join(self._assumed)}",) if self._assumed else ()
