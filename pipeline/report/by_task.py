"""What a model of values, tags, strings or groups is good for: a table, and figures for ``templates/training.html``."""

from collections.abc import Mapping
from typing import Any

import pipeline.report.page as page
from pipeline.report.accuracy import MAX_MATRIX
from pipeline.report.charts import Plot, number_ticks, plot_lines

VALUE_COLUMNS = ("quantity", "MAE", "RMSE", "R2", "guessing", "clips")
TAG_COLUMNS = ("label", "AP", "AP of steps", "threshold", "precision", "recall", "F1", "clips")
SYMBOL_COLUMNS = ("symbol", "said", "right", "swapped", "lost", "added", "precision", "recall")
GROUP_COLUMNS = ("group", "clips", "labels that are known in it")
MAX_CURVES = 24  # labels that have a curve each
MAX_GROUP_LABELS = 4  # of a group that are listed
NOTHING = "–"  # where a symbol is lost, or added
Figures = Mapping[str, Any]


def describe_task(row: Figures) -> dict[str, dict[str, Any] | None]:
    """``columns`` and ``rows``, and what else there is, under the name of the task; of a split as in metrics.json. None
    under the others.
    """
    kinds = {"values": ("mae", describe_values), "tags": ("map", describe_tags)}
    kinds |= {"strings": ("token_error", describe_strings), "groups": ("nmi", describe_groups)}
    return {name: describe(row) if figure in row else None for name, (figure, describe) in kinds.items()}


def describe_values(row: Figures) -> dict[str, Any]:
    """Figures of each quantity, told over true, and the error over time heard."""
    (label, spread), *others = zip(row["classes"], row["spread"], strict=True)
    scale, unit = (1.0, "error, in deviations") if others else (spread, f"error of {label}")
    step, errors = row["online"]["step"], row["online"]["error"]
    line = [((place + 1) * step, scale * error) for place, error in enumerate(errors)]
    return {
        "columns": VALUE_COLUMNS,
        "rows": [value_row(*one) for one in row["classes"].items()],
        "points": [plot_points(*one) for one in row["points"].items() if one[1]],
        "online": plot_lines({unit: line}, "seconds heard or seen", "Error over time") if len(line) > 1 else None,
    }


def value_row(label: str, one: Figures) -> tuple[str, ...]:
    """A quantity's figures as texts."""
    return label, *(f"{one[key]:.3g}" for key in ("mae", "rmse", "r2", "guess")), f"{one['support']:,}"


def plot_points(label: str, points: list[list[float]]) -> Plot:
    """A dot for each clip; on the dashed line it was told what is true."""
    numbers = [number for pair in points for number in pair]
    ends = min(numbers), max(numbers) if max(numbers) > min(numbers) else min(numbers) + 1
    plot = Plot(f"Told over true {label}", ends, ends, f"true {label}", number_ticks(*ends, 6), height=320)
    plot.line(ends[0], ends[0], ends[1], ends[1], "dashed")
    for true, told in points:
        plot.dot(true, told, f"true {true:.4g}, told {told:.4g}")
    return plot


def describe_tags(row: Figures) -> dict[str, Any]:
    """The labels with the weakest first, their precision-recall curves, and which are told where which are true."""
    ranked = sorted(row["classes"].items(), key=lambda one: (not one[1]["support"], one[1]["ap"] or 0.0))
    labels, curves = list(row["classes"]), [one for one in row["curves"].items() if one[1]]
    return {
        "columns": TAG_COLUMNS,
        "rows": [label_row(label, one, row["thresholds"][label]) for label, one in ranked],
        "curves": [(label, plot_curve(label, points)) for label, points in curves[:MAX_CURVES]],
        "labels": labels,
        "matrix": row["cooccurrence"] if len(labels) <= MAX_MATRIX else None,
    }


def label_row(label: str, one: Figures, threshold: float | None) -> tuple[str, ...]:
    """A label's figures as texts; '–' for what is not known."""
    scores = (one["ap"], one["frame_ap"], threshold, one["precision"], one["recall"], one["f1"])
    return label, *("–" if value is None else f"{value:.3f}" for value in scores), f"{one['support']:,}"


def plot_curve(label: str, points: list[list[float]]) -> Plot:
    """Precision over recall."""
    ticks = [(value, page.format_percent(value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    line = {"precision": [(recall, precision) for recall, precision, _ in points]}
    return plot_lines(line, "recall", f"Precision over recall of {label}", (0, 1), ticks, page.format_percent)


def describe_strings(row: Figures) -> dict[str, Any]:
    """The symbols with the weakest first, and which of them are told for which, nothing among them."""
    symbols = [(label, one) for label, one in row["classes"].items() if one["support"] or one["added"]]
    places = [[*row["classes"]].index(label) for label, _ in symbols]
    swaps = [[row["swaps"][place][other] for other in places] for place in places]
    matrix = [[*told, one["lost"]] for told, (_, one) in zip(swaps, symbols, strict=True)]
    matrix.append([*(one["added"] for _, one in symbols), 0])
    ranked = sorted(symbols, key=lambda one: one[1]["f1"])
    return {
        "columns": SYMBOL_COLUMNS,
        "rows": [symbol_row(label, one) for label, one in ranked],
        "labels": [*(label for label, _ in symbols), NOTHING],
        "matrix": matrix if len(matrix) <= MAX_MATRIX else None,
    }


def symbol_row(label: str, one: Figures) -> tuple[str, ...]:
    """A symbol's figures as texts."""
    right = one["support"] - one["swapped"] - one["lost"]
    counts = one["support"], right, one["swapped"], one["lost"], one["added"]
    return label, *(f"{count:,}" for count in counts), f"{one['precision']:.3f}", f"{one['recall']:.3f}"


def describe_groups(row: Figures) -> dict[str, Any]:
    """The groups, each with its size and its most frequent labels, and a map of the clips."""
    rows = []
    for (group, one), counts in zip(row["classes"].items(), row["table"], strict=True):
        ranked = sorted(zip(counts, row["known"], strict=False), reverse=True)
        labels = ", ".join(f"{label} {count}" for count, label in ranked[:MAX_GROUP_LABELS] if count)
        rows.append((group, f"{one['support']:,}", labels or "–"))
    return {"columns": GROUP_COLUMNS, "rows": rows, "map": draw_map(row["points"])}


def draw_map(points: list[list[Any]]) -> Plot:
    """Each clip as the number of its group, with its label as a tooltip."""
    axes = zip(*(point[:2] for point in points), strict=True) if points else [(0, 1), (0, 1)]
    x_ends, y_ends = ((min(axis), max(axis) + 1e-9) for axis in axes)
    plot = Plot("Map of the clips", x_ends, y_ends, "main axis of the distances from all groups", (), height=320)
    for x, y, group, label in points:
        number = group.removeprefix("group ")
        plot.add("text", f"{group} {label}", number, x=plot.x(x), y=plot.y(y), class_="middle")
    return plot
