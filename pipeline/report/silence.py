"""False alarms and misses, as ``templates/training.html`` shows them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pipeline.report.page as page
from pipeline.report.charts import Plot, Points, plot_lines, to_logarithmic, to_stairs

MAX_CURVES = 24  # labels that have a curve each
RATE_COLUMNS = "false alarms an hour, at most", "alarms", "expected an hour", "limit (95 %)", "found", "of", "missed"
Figures = Mapping[str, Any]
Table = tuple[list[str], list[tuple[str, ...]]]  # columns and rows


def plot_det(line: Points, hours: float, label: str) -> Plot:
    """Misses over false alarms an hour (none: at the left edge), counted in so many hours."""
    least = 1 / hours  # if there was one in all
    moved, marks = to_logarithmic(line, min(1.0, least), max(1000.0, 10 * least))
    title = f"Misses over false alarms, {label}"
    lines = {"missed": to_stairs(moved)}
    return plot_lines(lines, "false alarms an hour", title, (0, 1), marks, page.format_percent, moved)


def describe_silence(silence: Figures) -> Figures:
    """What was found in negatives (``operating_point.py``), with its tables and plots."""
    return {
        **silence,
        "rates": list_rates(silence["misses"]),
        "misses": list_misses(silence["misses"]),
        "trade_offs": list(plot_trade_offs(silence)),
        "suspects": [tuple(map(str, one)) for one in silence["suspects"]],
    }


def plot_trade_offs(silence: Figures) -> Iterator[tuple[str, Plot]]:
    """The DET of all labels and, of few, of each of them; of those that have events."""
    for number, (label, line) in enumerate(silence["det"].items()):
        if line and (not number or len(silence["det"]) <= MAX_CURVES):
            yield label, plot_det(line, silence["hours"], label)


def list_rates(rates: Sequence[Figures]) -> Table:
    """What thresholds bring that keep to some rates of false alarms an hour."""
    rows: list[tuple[str, ...]] = [
        (f"{one['wish']:g}", f"{one['false']:,}", f"{one['expected']:.2f}", f"{one['below']:.1f}", f"{one['found']:,}",
         f"{one['true']:,}", format_misses(one))
        for one in rates
    ]  # fmt: skip
    return [*RATE_COLUMNS], rows


def list_misses(rates: Sequence[Figures]) -> Table:
    """What is missed of each label with the thresholds for each rate."""
    rows = [
        (label, f"{row['true']:,}", *(format_misses(one["classes"][label]) for one in rates))
        for label, row in (rates[0]["classes"].items() if rates else ())
    ]
    return ["label", "events", *(f"at {one['wish']:g} an hour" for one in rates)], rows


def format_misses(row: Figures) -> str:
    """A share of events that are missed, and its interval."""
    if row["missed"] is None:
        return "–"
    low, high = row["interval"]
    return f"{row['missed']:.1%} ({100 * low:.0f} to {100 * high:.0f})"
