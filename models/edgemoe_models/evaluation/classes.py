"""Metrics of a classification, accumulated over pictures."""

from __future__ import annotations

from collections.abc import Sequence

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
        confusion: pictures, int64 [label, prediction]
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"classes must be at least 1, not {classes!r}")
        self.classes, self.hits = classes, 0
        self.confusion = np.zeros((classes, classes), np.int64)

    def update(self, best: Sequence[int], label: int) -> None:
        """The best five classes of a picture, the best first, and its class."""
        self.confusion[label, best[0]] += 1
        self.hits += label in best[:BEST]

    @property
    def class_accuracy(self) -> npt.NDArray[np.float64]:
        """Share of each class's pictures that are found [classes]; NaN where a class has none."""
        labelled = self.confusion.sum(1)
        return np.where(labelled > 0, np.diag(self.confusion) / np.maximum(labelled, 1), np.nan)

    def result(self) -> dict[str, float]:
        total = int(self.confusion.sum())
        found = {"top1": int(np.trace(self.confusion)) / total if total else float("nan")}
        if self.classes > BEST:
            found["top5"] = self.hits / total if total else float("nan")
        return found


def largest_confusions(confusion: npt.NDArray[np.int64], count: int) -> list[tuple[int, int, int]]:
    """Label, prediction and how often, the most frequent first, of a matrix [label, prediction] but its diagonal."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    flat = wrong.ravel()
    order = [int(place) for place in np.argsort(-flat, kind="stable")[:count] if flat[place]]
    return [(place // wrong.shape[1], place % wrong.shape[1], int(flat[place])) for place in order]
