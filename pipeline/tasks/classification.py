"""Measures of classified clips, as pure functions on arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def precision_recall_f1(hits: float, truths: float, answers: float) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; 0 where nothing could be counted."""
    precision = hits / answers if answers else 0.0
    recall = hits / truths if truths else 0.0
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0


def label_figures(
    labels: Sequence[str], hits: NDArray[np.int64], truths: NDArray[np.int64], answers: NDArray[np.int64]
) -> tuple[dict[str, dict[str, Any]], float]:
    """Precision, recall, F1 and support of each label from counts ``(K,)``; and the mean F1 of those that are there."""
    rows: dict[str, dict[str, Any]] = {}
    for label, *counts in zip(labels, hits, truths, answers, strict=True):
        precision, recall, f1 = precision_recall_f1(*counts)
        rows[label] = {"precision": precision, "recall": recall, "f1": f1, "support": int(counts[1])}
    present = [row["f1"] for row in rows.values() if row["support"]]
    return rows, float(np.mean(present)) if present else 0.0


def classification_report(truth: Sequence[int], answer: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, macro F1, per-class precision / recall / F1 / support and the confusion matrix, as plain values."""
    matrix = np.zeros((len(labels), len(labels)), np.int64)  # row: truth, column: answer
    np.add.at(matrix, (np.asarray(truth, int), np.asarray(answer, int)), 1)
    rows, macro_f1 = label_figures(labels, matrix.diagonal(), matrix.sum(1), matrix.sum(0))
    return {
        "accuracy": float(matrix.trace() / max(1, matrix.sum())),
        "macro_f1": macro_f1,
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
