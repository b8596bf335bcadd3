"""Figures as SVG elements, which ``figure`` of ``templates/macros.html`` writes: lines, dots and bars on axes.

They are drawn 400 units wide, so that they can be read on a phone.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.report.page import format_count, format_number, format_percent, format_share
from pipeline.tasks.uncertainty import wilson

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 210, 44, 22, 12, 40  # of a figure, and of its margins, in units
TONES = "main", "bad", "good", "warn"
Points = Sequence[tuple[float, float]]
Ticks = Sequence[tuple[float, str]]


class Element(NamedTuple):
    """An SVG element. ``title`` is shown to those who point at it."""

    name: str
    attributes: Mapping[str, str | float]
    title: str = ""
    text: str = ""


@dataclass
class Drawing:
    """SVG elements with a ``label`` for those who cannot see them, and a legend: (name, tone)."""

    label: str
    width: int = WIDTH
    height: int = HEIGHT
    elements: list[Element] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, title: str = "", text: str = "", **attributes: str | float) -> None:
        """Add an element. ``class_`` loses its last ``_``; numbers are rounded."""
        values = {key: round(value, 2) if isinstance(value, float) else value for key, value in attributes.items()}
        self.elements.append(Element(name, {key.rstrip("_"): value for key, value in values.items()}, title, text))


class Plot(Drawing):
    """A drawing on a grid, with axes from ``x[0]`` to ``x[1]`` and from ``y[0]`` to ``y[1]``.

    ``axis`` is the name of the axis x, ``ticks`` its marks; ``number`` writes the values of the axis y.
    """

    def __init__(
        self, label: str, x: tuple[float, float], y: tuple[float, float], axis: str, ticks: Ticks,
        number: Callable[[float], str] = format_number, height: int = HEIGHT,
    ) -> None:  # fmt: skip
        super().__init__(label, height=height)
        self.limits, floor = (x, y), height - BOTTOM
        for value in round_ticks(*y, height // 50):
            if value > y[0]:
                self.line(x[0], value, x[1], value, "rule")
            self.add("text", text=number(value), x=LEFT - 6, y=self.y(value) + 4, class_="end")
        for value, text in ticks:
            self.add("text", text=text, x=self.x(value), y=floor + 16, class_="middle")
        self.add("text", text=axis, x=(LEFT + WIDTH - RIGHT) / 2, y=height - 5, class_="middle")
        self.line(x[0], y[0], x[1], y[0], "base")

    def x(self, value: float) -> float:
        """Units from the left."""
        (low, high), _ = self.limits
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Units from above."""
        _, (low, high) = self.limits
        floor = self.height - BOTTOM
        return floor - (value - low) / ((high - low) or 1) * (floor - TOP)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.add("line", x1=self.x(x1), y1=self.y(y1), x2=self.x(x2), y2=self.y(y2), class_=kind)

    def dot(self, x: float, y: float, title: str, tone: str = "main", radius: float = 2.5) -> None:
        self.add("circle", title, cx=self.x(x), cy=self.y(y), r=radius, class_=tone)

    def bar(self, left: float, right: float, low: float, high: float, title: str, tone: str = "main") -> None:
        x, y = self.x(left) + 0.75, self.y(high)
        self.add("rect", title, x=x, y=y, width=self.x(right) - 0.75 - x, height=self.y(low) - y, class_=tone)

    def path(self, points: Iterable[tuple[float, float]], kind: str, title: str = "") -> None:
        """A line through points, which begins anew behind one that is not finite."""
        steps, pen = [], "M"
        for x, y in points:
            there = math.isfinite(x) and math.isfinite(y)
            if there:
                steps.append(f"{pen}{self.x(x):.2f} {self.y(y):.2f}")
            pen = "L" if there else "M"
        self.add("path", title, d="".join(steps), class_=f"track {kind}")


def round_ticks(low: float, high: float, limit: int = 5, step: float = 0.0) -> list[float]:
    """About ``limit`` round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, at least ``step``
    apart.
    """
    rough = max(step, (high - low) / limit) if high > low else 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * rough)
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [round(number * apart, 12) for number in range(first, last + 1)]


def number_ticks(low: float, high: float, limit: int = 5, step: float = 0.0) -> Ticks:
    """``round_ticks`` with their texts; ``step`` 1: whole numbers, such as epochs."""
    return [(value, format_number(value)) for value in round_ticks(low, high, limit, step)]


def plot_lines(
    lines: Mapping[str, Points], axis: str, label: str, limits: tuple[float, float] | None = None, ticks: Ticks = (),
    number: Callable[[float], str] = format_number, dots: Points = (), whole: bool = False,
) -> Plot:  # fmt: skip
    """Up to four lines through points (x, y) by name; what is not finite leaves a hole.

    ``limits`` of the axis y (None: from 0, or the lowest value, to the highest); ``ticks`` of the axis x (none: round
    numbers, or with ``whole`` whole ones); ``dots``: points to be marked.
    """
    points = [point for line in lines.values() for point in line if all(map(math.isfinite, point))]
    xs = [x for x, _ in points] + [place for place, _ in ticks] or [0.0, 1.0]
    ys = [y for _, y in points] or [0.0, 1.0]
    ends = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 0.5, xs[0] + 0.5)
    ticks = ticks or number_ticks(min(xs), max(xs), 6, float(whole))
    plot = Plot(label, ends, limits or (min(0.0, *ys), max(ys)), axis, ticks, number)
    for (name, line), tone in zip(lines.items(), TONES, strict=False):
        plot.legend.append((name, tone))
        plot.path(line, tone)
        if len(line) == 1 and math.isfinite(line[0][1]):
            plot.dot(*line[0], number(line[0][1]), tone)
    for x, y in dots:
        plot.dot(x, y, number(y))
    return plot


def to_stairs(line: Points) -> list[tuple[float, float]]:
    """Points of a staircase, which holds its height up to the next point."""
    found: list[tuple[float, float]] = []
    for x, y in line:
        found += [(x, found[-1][1])] if found else []
        found.append((x, y))
    return found


def to_logarithmic(line: Points, low: float, high: float) -> tuple[list[tuple[float, float]], Ticks]:
    """Points with the logarithm of x, and ticks at powers of ten; x below ``low`` counts as ``low``, points above
    ``high`` are left out.
    """
    moved = [(math.log10(max(x, low)), y) for x, y in line if x <= high]
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return moved, [(float(power), format_number(10.0**power)) for power in range(first, last + 1)]


def plot_histogram(
    counts: Mapping[str, Sequence[int]], spans: Sequence[str], ticks: Ticks, axis: str, label: str
) -> Plot:
    """Counts by name in bins side by side, the second ones (red) on top of the first. ``spans`` are the names of the
    bins; a bin is 1 wide on the axis x.
    """
    columns = list(zip(*counts.values(), strict=True))
    plot = Plot(label, (0, len(columns)), (0, max(map(sum, columns), default=0) or 1), axis, ticks)
    plot.legend = list(zip(counts, TONES, strict=False)) if len(counts) > 1 else []
    for index, (column, span) in enumerate(zip(columns, spans, strict=True)):
        base = 0
        for count, name, tone in zip(column, counts, TONES, strict=False):
            if count:
                title = f"{span}{f', {name}' if len(counts) > 1 else ''}: {format_count(count)}"
                plot.bar(index, index + 1, base, base + count, title, tone)
            base += count
    return plot


def plot_scores(counts: Mapping[str, Sequence[int]], axis: str, label: str) -> Plot:
    """``plot_histogram`` of equal bins from 0 to 1."""
    bins = max(map(len, counts.values()))
    spans = [f"{index / bins:.2f} – {(index + 1) / bins:.2f}" for index in range(bins)]
    return plot_histogram(counts, spans, [(bins * value, f"{value:g}") for value in round_ticks(0, 1)], axis, label)


def draw_outlines(histograms: Sequence[Sequence[int]], label: str) -> Drawing:
    """Histograms from 0 to 1 so small that only their shapes are seen, each with its own scale; the first is on top."""
    drawing = Drawing(label, 160, 60)
    for counts, tone in reversed(list(zip(histograms, TONES, strict=False))):
        most, wide = max(counts, default=0) or 1, 160 / max(1, len(counts))
        points = to_stairs([(index * wide, 42 - 40 * count / most) for index, count in enumerate([*counts, 0])])
        drawing.add("path", d="M0 42" + "".join(f"L{x:.2f} {y:.2f}" for x, y in points), class_=f"track {tone}")
    drawing.add("line", x1=0, y1=42.5, x2=160, y2=42.5, class_="base")
    drawing.add("text", text="0", x=0, y=56)
    drawing.add("text", text="1", x=160, y=56, class_="end")
    return drawing


def plot_reliability(bins: Iterable[Sequence[float]], axis: str, label: str) -> Plot:
    """What was claimed against what came true, for bins of (answers, right ones, sum of scores). On the dashed line
    they agree; areas are counts, and whiskers show 95 % intervals.
    """
    filled = [one for one in bins if one[0]]
    total, most = sum(count for count, *_ in filled), max((count for count, *_ in filled), default=1)
    ticks = [(value, format_percent(value)) for value in round_ticks(0, 1)]
    plot = Plot(label, (0, 1), (0, 1), axis, ticks, format_percent, height=320)
    plot.line(0, 0, 1, 1, "dashed")
    for count, right, scores in filled:
        claimed, true, (low, high) = scores / count, right / count, wilson(right, count)
        shares = (format_share(value) for value in (claimed, true, count / total))
        plot.line(claimed, low, claimed, high, "whisker main")
        title = "claimed {}, true {}, {} of the answers".format(*shares)
        plot.dot(claimed, true, title, radius=2.5 + 6.5 * math.sqrt(count / most))
    return plot
