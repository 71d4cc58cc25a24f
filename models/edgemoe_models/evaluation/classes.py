"""Metrics of a classification, accumulated over pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BEST", "ClassificationMetrics", "best_of", "largest_confusions"]

BEST = 5  # classes of which one must be the right one


def best_of(logits: npt.NDArray[np.generic], count: int = BEST) -> list[int]:
    """Numbers of the largest of logits [classes], the largest first; of equal ones the lower number first."""
    order = np.argsort(-np.asarray(logits, np.float64), kind="stable")[:count]
    return [int(number) for number in order]


class ClassificationMetrics:
    """``top1`` and, of more than five classes, ``top5``: how often the right class is the best one, or of the best.

    Attributes:
        classes: their number
        pairs: pictures by label and prediction; there may be too many classes for a matrix
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes!r}")
        self.classes, self.pairs = classes, Counter[tuple[int, int]]()
        self._hits = 0

    def update(self, best: Sequence[int], label: int) -> None:
        """The best five classes of a picture, the best first, and its class."""
        self.pairs[label, best[0]] += 1
        self._hits += label in best[:BEST]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pictures of each class [classes]."""
        counts = np.zeros(self.classes, np.int64)
        for (label, _), count in self.pairs.items():
            counts[label] += count
        return counts

    @property
    def class_accuracy(self) -> npt.NDArray[np.float64]:
        """Share of each class's pictures that are found [classes]; NaN where a class has none."""
        counts, right = self.counts, np.array([self.pairs[number, number] for number in range(self.classes)])
        return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)

    def result(self) -> dict[str, float]:
        total = sum(self.pairs.values())
        right = sum(count for (label, found), count in self.pairs.items() if label == found)
        result = {"top1": right / total if total else float("nan")}
        if self.classes > BEST:
            result["top5"] = self._hits / total if total else float("nan")
        return result


def largest_confusions(pairs: Mapping[tuple[int, int], int], count: int) -> list[tuple[int, int, int]]:
    """Label, prediction and how often, of what is taken for something else, the most frequent first."""
    wrong = sorted((-often, label, found) for (label, found), often in pairs.items() if label != found and often)
    return [(label, found, -often) for often, label, found in wrong[:count]]
