"""Measures of quality, as pure functions on arrays. Clips are counted, frames are counted, events are matched."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Span = tuple[float, float, str]  # start and end in seconds, label


def confusion(truth: Sequence[int], answer: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Matrix ``(classes, classes)`` of counts; row: truth, column: answer."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(truth, dtype=int), np.asarray(answer, dtype=int)), 1)
    return matrix


def f1(hits: float, truths: float, answers: float) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; 0 where nothing could be counted."""
    precision = hits / answers if answers else 0.0
    recall = hits / truths if truths else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def classification(truth: Sequence[int], answer: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, per-class precision / recall / F1 / support and the confusion matrix, as plain values."""
    matrix = confusion(truth, answer, len(labels))
    hits, truths, answers = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    rows = {}
    for index, label in enumerate(labels):
        precision, recall, score = f1(hits[index], truths[index], answers[index])
        support = int(truths[index])
        rows[label] = {"precision": precision, "recall": recall, "f1": score, "support": support}
    present = [row["f1"] for row in rows.values() if row["support"]]
    return {
        "accuracy": float(hits.sum() / max(1, matrix.sum())),
        "macro_f1": float(np.mean(present)) if present else 0.0,
        "count": int(matrix.sum()),
        "classes": rows,
        "confusion": matrix.tolist(),
    }


def online(right: Sequence[Sequence[bool]]) -> list[float]:
    """Accuracy after 1, 2, ... steps, from whether each clip's answer was right after each of its steps; as far as at
    least half of the clips last.
    """
    longest = sorted((len(clip) for clip in right), reverse=True)
    steps = longest[(len(right) - 1) // 2] if right else 0
    return [float(np.mean([clip[step] for clip in right if len(clip) > step])) for step in range(steps)]


@dataclass(frozen=True)
class Matches:
    """Counts of an event comparison, for one label or for all."""

    hits: int
    truths: int
    answers: int

    @property
    def scores(self) -> tuple[float, float, float]:
        """Precision, recall, F1."""
        return f1(self.hits, self.truths, self.answers)


@dataclass(frozen=True)
class Alarms:
    """Of one class: how many of the true spans some answer touches, and how many answers touch none (``false``)."""

    hits: int
    truths: int
    false: int


def alarms(truth: NDArray[np.int64], answer: NDArray[np.int64]) -> Alarms:
    """Compare true spans ``(N, 2)`` with answers ``(M, 2)`` of one class; start and end, in any unit."""
    return Alarms(int(touched(truth, answer).sum()), len(truth), int((~touched(answer, truth)).sum()))


def touched(spans: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the spans ``(N, 2)`` have a part in common with any of the others ``(M, 2)``."""
    if not len(others):
        return np.zeros(len(spans), bool)
    starts = np.sort(others[:, 0])
    ends = np.maximum.accumulate(others[np.argsort(others[:, 0], kind="stable"), 1])
    before = np.searchsorted(starts, spans[:, 1])  # of the others begin before a span's end
    touches: NDArray[np.bool_] = (before > 0) & (ends[before - 1] > spans[:, 0])
    return touches


def match_events(
    truth: Sequence[Span], answer: Sequence[Span], collar: float = 0.2, offset_share: float = 0.5, offset: bool = True
) -> dict[str, Matches]:
    """Event-based matching as in sed_eval (Mesaros et al. 2016), per label and as ``micro`` over all.

    A hit has the right label, an onset within ``collar`` seconds, and (with ``offset``) an end within the greater of
    ``collar`` and ``offset_share`` of the true length. Each true event is hit at most once; the assignment is optimal.
    """
    labels = sorted({span[2] for span in truth} | {span[2] for span in answer})
    result = {}
    for label in labels:
        wanted = [span for span in truth if span[2] == label]
        found = [span for span in answer if span[2] == label]
        hits = pairs([[fits(w, f, collar, offset_share, offset) for f in found] for w in wanted])
        result[label] = Matches(hits, len(wanted), len(found))
    micro = [sum(getattr(part, name) for part in result.values()) for name in ("hits", "truths", "answers")]
    return result | {"micro": Matches(*micro)}


def fits(truth: Span, answer: Span, collar: float, offset_share: float, offset: bool) -> bool:
    """Whether an answer may count for a true event of the same label."""
    slack = max(collar, offset_share * (truth[1] - truth[0]))
    return abs(truth[0] - answer[0]) <= collar and (not offset or abs(truth[1] - answer[1]) <= slack)


def pairs(allowed: list[list[bool]]) -> int:
    """Size of the greatest matching of rows to columns (augmenting paths)."""
    taken: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, ok in enumerate(allowed[row]):
            if ok and column not in tried:
                tried.add(column)
                if column not in taken or place(taken[column], tried):
                    taken[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(allowed)))
