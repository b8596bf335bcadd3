"""Measures of classified clips, as pure functions on arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_confusions(truth: Sequence[int], answer: Sequence[int], classes: int) -> NDArray[np.int64]:
    """Matrix ``(classes, classes)`` of counts; row: truth, column: answer."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(truth, dtype=int), np.asarray(answer, dtype=int)), 1)
    return matrix


def precision_recall_f1(hits: float, truths: float, answers: float) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; 0 where nothing could be counted."""
    precision = hits / answers if answers else 0.0
    recall = hits / truths if truths else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def classification_report(truth: Sequence[int], answer: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, per-class precision / recall / F1 / support and the confusion matrix, as plain values."""
    matrix = count_confusions(truth, answer, len(labels))
    hits, truths, answers = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    rows = {}
    for index, label in enumerate(labels):
        precision, recall, score = precision_recall_f1(hits[index], truths[index], answers[index])
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


def online_accuracy(right: Sequence[Sequence[bool]]) -> list[float]:
    """Accuracy after 1, 2, ... steps, from whether each clip's answer was right after each of its steps; as far as at
    least half of the clips last.
    """
    longest = sorted((len(clip) for clip in right), reverse=True)
    steps = longest[(len(right) - 1) // 2] if right else 0
    return [float(np.mean([clip[step] for clip in right if len(clip) > step])) for step in range(steps)]
