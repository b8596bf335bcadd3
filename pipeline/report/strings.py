"""What a model of strings takes for what, as ``templates/strings.html`` shows it."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.accuracy import MAX_MATRIX

COLUMNS = ("symbol", "said", "right", "swapped", "lost", "added", "precision", "recall")
NOTHING = "–"  # where a symbol is lost, or added


def describe_strings(row: Mapping[str, Any]) -> dict[str, Any]:
    """The symbols with the weakest first, and which of them are told for which, nothing among them; of a split as in
    metrics.json.
    """
    symbols = [(label, one) for label, one in row["classes"].items() if one["support"] or one["added"]]
    places = [[*row["classes"]].index(label) for label, _ in symbols]
    swaps = [[row["swaps"][place][other] for other in places] for place in places]
    matrix = [[*told, one["lost"]] for told, (_, one) in zip(swaps, symbols, strict=True)]
    matrix.append([*(one["added"] for _, one in symbols), 0])
    ranked = sorted(symbols, key=lambda one: one[1]["f1"])
    return {
        "columns": COLUMNS,
        "rows": [symbol_row(label, one) for label, one in ranked],
        "labels": [*(label for label, _ in symbols), NOTHING],
        "matrix": matrix if len(matrix) <= MAX_MATRIX else None,
    }


def symbol_row(label: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    """A symbol's figures as texts."""
    right = one["support"] - one["swapped"] - one["lost"]
    counts = one["support"], right, one["swapped"], one["lost"], one["added"]
    return label, *(f"{count:,}" for count in counts), f"{one['precision']:.3f}", f"{one['recall']:.3f}"
