"""Accuracy, confusions and calibration, as ``templates/accuracy.html`` shows them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.measures.accuracy import Accuracy
from pipeline.report.charts import plot_reliability
from pipeline.report.page import MAX_ROWS, format_share
from pipeline.tasks.calibration import calibration_error
from pipeline.tasks.classification import precision_recall_f1
from pipeline.tasks.uncertainty import wilson

MAX_MATRIX = 60  # classes of a confusion matrix that is shown as a whole
ClassRow = tuple[str, float, float, float, int]  # label, precision, recall, F1, support


def describe(
    rows: Iterable[ClassRow], labels: Sequence[str], pairs: NDArray[np.int64], counts: NDArray[np.int64],
    claims: NDArray[np.float64],
) -> dict[str, Any]:  # fmt: skip
    """Classes with the weakest first, confusions (how often each of the pairs, truth * classes + answer, occurs) and
    calibration, for the macros of the template.
    """
    ranked = sorted(rows, key=lambda row: (not row[4], row[3]))
    return {
        "classes": [(label, *(f"{value:.3f}" for value in scores), f"{count:,}") for label, *scores, count in ranked],
        "labels": labels,
        **confusions(labels, pairs, counts),
        "calibration": {
            "error": calibration_error(claims),
            "bins": claims.shape[1],
            "plot": plot_reliability(claims.T.tolist(), "score", "Share of right answers by score"),
        }
        if claims.any()
        else None,
    }


def confusions(labels: Sequence[str], pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> dict[str, Any]:
    """The whole matrix, or of many classes those most often taken for another."""
    classes = len(labels)
    if classes <= MAX_MATRIX:
        square = np.zeros(classes * classes, np.int64)
        square[pairs] = counts
        return {"matrix": square.reshape(classes, classes).tolist()}
    truths = np.zeros(classes, np.int64)
    np.add.at(truths, pairs // classes, counts)
    wrong = np.flatnonzero(pairs // classes != pairs % classes)
    most = wrong[np.argsort(-counts[wrong], kind="stable")[:MAX_ROWS]]
    rows = [
        (labels[truth], labels[answer], f"{count:,}", format_share(count, truths[truth]))
        for truth, answer, count in zip(*np.divmod(pairs[most], classes), counts[most].tolist(), strict=True)
    ]
    return {"matrix": None, "confused": rows}


def describe_files(found: Accuracy) -> dict[str, Any]:
    """The same of classified files, with their accuracy and what is left out of it."""
    hits, truths, answers = (counts.tolist() for counts in found.totals())
    counted = zip(found.labels, hits, truths, answers, strict=True)
    rows = [(label, *precision_recall_f1(*counts), counts[1]) for label, *counts in counted]
    count = sum(truths)
    return {
        "count": count,
        "hits": sum(hits),
        "interval": wilson(sum(hits), count) if count else None,
        "macro_f1": np.mean([row[3] for row in rows if row[4]] or [0.0]),
        "unanswered": found.unanswered,
        "unknown": found.unknown,
        "mistakes": list(found.mistakes),
        **describe(rows, found.labels, *found.counts(), found.claims),
    }
