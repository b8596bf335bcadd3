"""How near the numbers are that a model tells, as ``templates/values.html`` shows it."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.charts import Plot, number_ticks, plot_lines

COLUMNS = ("quantity", "MAE", "RMSE", "R2", "guessing", "clips")


def describe_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of each quantity, told over true, and the error over time heard; of a split as in metrics.json."""
    (label, spread), *others = zip(row["classes"], row["spread"], strict=True)
    scale, unit = (1.0, "error, in deviations") if others else (spread, f"error of {label}")
    step, errors = row["online"]["step"], row["online"]["error"]
    line = [((place + 1) * step, scale * error) for place, error in enumerate(errors)]
    return {
        "columns": COLUMNS,
        "rows": [value_row(*one) for one in row["classes"].items()],
        "points": [plot_points(*one) for one in row["points"].items() if one[1]],
        "online": plot_lines({unit: line}, "seconds heard or seen", "Error over time") if len(line) > 1 else None,
    }


def value_row(label: str, one: Mapping[str, Any]) -> tuple[str, ...]:
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
