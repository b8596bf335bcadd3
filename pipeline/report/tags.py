"""What a model of tags is good for, label by label, as ``templates/training.html`` shows it."""

from collections.abc import Mapping
from typing import Any

import pipeline.report.page as page
from pipeline.report.accuracy import MAX_MATRIX
from pipeline.report.charts import Plot, plot_lines

MAX_CURVES = 24  # labels that have a curve each
COLUMNS = ("label", "AP", "AP of steps", "threshold", "precision", "recall", "F1", "clips")


def describe_tags(row: Mapping[str, Any]) -> dict[str, Any]:
    """The labels with the weakest first, their precision-recall curves, and which labels are told where which are
    true; of a split as in metrics.json.
    """
    ranked = sorted(row["classes"].items(), key=lambda one: (not one[1]["support"], one[1]["ap"] or 0.0))
    labels = list(row["classes"])
    return {
        "columns": COLUMNS,
        "rows": [label_row(label, one, row["thresholds"][label]) for label, one in ranked],
        "curves": [(label, plot_curve(label, points)) for label, points in row["curves"].items() if points][
            :MAX_CURVES
        ],
        "labels": labels,
        "matrix": row["cooccurrence"] if len(labels) <= MAX_MATRIX else None,
    }


def label_row(label: str, one: Mapping[str, Any], threshold: float | None) -> tuple[str, ...]:
    """A label's figures as texts; '–' for what is not known."""
    scores = (one["ap"], one["frame_ap"], threshold, one["precision"], one["recall"], one["f1"])
    return label, *("–" if value is None else f"{value:.3f}" for value in scores), f"{one['support']:,}"


def plot_curve(label: str, points: list[list[float]]) -> Plot:
    """Precision over recall."""
    ticks = [(value, page.format_percent(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    line = {"precision": [(recall, precision) for recall, precision, _ in points]}
    return plot_lines(line, "recall", f"Precision over recall of {label}", (0, 1), ticks, page.format_percent)
