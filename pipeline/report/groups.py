"""Groups that nobody has named, as ``templates/groups.html`` shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.charts import Plot

COLUMNS = ("group", "clips", "labels that are known in it")
MAX_LABELS = 4  # of a group that are listed


def describe_groups(row: Mapping[str, Any]) -> dict[str, Any]:
    """The groups, and a map of the clips; of a split as in metrics.json."""
    return {"columns": COLUMNS, "rows": list(group_rows(row)), "map": draw_map(row["points"])}


def group_rows(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Each group, its size, and the most frequent labels in it."""
    for (group, one), counts in zip(row["classes"].items(), row["table"], strict=True):
        ranked = sorted(zip(counts, row["known"], strict=False), reverse=True)
        labels = ", ".join(f"{label} {count}" for count, label in ranked[:MAX_LABELS] if count)
        yield group, f"{one['support']:,}", labels or "–"


def draw_map(points: list[list[Any]]) -> Plot:
    """Each clip as the number of its group; who points at it is told its label."""
    ends = [(min(axis), max(axis) + 1e-9) for axis in zip(*(point[:2] for point in points), strict=True)] or [
        (0, 1)
    ] * 2
    plot = Plot("Map of the clips", ends[0], ends[1], "main axis of the distances from all groups", (), height=320)
    for x, y, group, label in points:
        number = group.removeprefix("group ")
        plot.add("text", f"{group} {label}", number, x=plot.x(x), y=plot.y(y), class_="middle")
    return plot
