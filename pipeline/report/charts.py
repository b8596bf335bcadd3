"""Figures of a training: lines over time, errors over false alarms, scores of what is and what is not."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.report.page import TONES, Html, Plot, brief, short, tag, ticks, track

Line = Sequence[tuple[float, float]]


def lines(
    drawn: Mapping[str, Line],
    x: str,
    says: str,
    limits: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    told: Callable[[float], str] = brief,
    dots: Line = (),
) -> Html:
    """Up to four lines through points (x, y) by name; what is not finite leaves a hole.

    ``limits`` of the axis upwards (None: from 0, or the lowest, to the highest), ``marks`` on the axis ``x`` (none:
    round numbers), ``told``: how values upwards are written. ``dots``: points to be marked.
    """
    points = [point for line in drawn.values() for point in line if all(map(math.isfinite, point))]
    xs = [a for a, _ in points] + [place for place, _ in marks] or [0.0, 1.0]
    ys = [b for _, b in points] or [0.0, 1.0]
    ends = (min(xs), max(xs)) if max(xs) > min(xs) else (xs[0] - 0.5, xs[0] + 0.5)
    plot = Plot(ends, limits or (min(0.0, *ys), max(ys)))
    inside, keys = [], []
    for (name, line), tone in zip(drawn.items(), TONES, strict=False):
        inside.append(tag("path", d=track(line, plot), class_=f"track {tone}"))
        inside += [dot(plot, *line[0], told, tone) for _ in line if len(line) == 1 and math.isfinite(line[0][1])]
        keys.append(tag("span", short(name, 40), class_=f"key {tone}"))
    inside += [dot(plot, a, b, told) for a, b in dots if math.isfinite(a) and math.isfinite(b)]
    places = marks or [(value, brief(value)) for value in ticks(min(xs), max(xs), 6)]
    return tag("figure", tag("figcaption", *keys), plot.draw(inside, places, x, says, told))


def numbered(line: Iterable[float]) -> list[tuple[float, str]]:
    """Marks for the axis of what is counted, such as epochs: there is nothing between two of them."""
    found = list(line)
    return [(value, brief(value)) for value in ticks(min(found), max(found), 6, least=1)] if found else []


def dot(plot: Plot, x: float, y: float, told: Callable[[float], str], tone: str = "main") -> Html:
    """A point, with its value for those who point at it."""
    return tag("circle", tag("title", told(y)), cx=plot.x(x), cy=plot.y(y), r=2.5, class_=tone)


def stairs(line: Line) -> list[tuple[float, float]]:
    """Points of a staircase, which holds its height up to the next point."""
    found: list[tuple[float, float]] = []
    for x, y in line:
        found += [(x, found[-1][1])] if found else []
        found.append((x, y))
    return found


def logarithmic(line: Line, least: float, most: float) -> tuple[list[tuple[float, float]], list[tuple[float, str]]]:
    """Points with the logarithm of x, and marks for it at powers of ten; what is below ``least`` stands there, what is
    above ``most`` is left out.
    """
    moved = [(math.log10(max(x, least)), y) for x, y in line if x <= most]
    first, last = math.floor(math.log10(least) + 1e-9), math.ceil(math.log10(most) - 1e-9)
    return moved, [(float(power), brief(10.0**power)) for power in range(first, last + 1)]


def two_tones(first: Sequence[int], second: Sequence[int], names: tuple[str, str], x: str, says: str) -> Html:
    """Two histograms of equal bins from 0 to 1, the second on top of the first."""
    bins = len(first)
    plot = Plot((0, 1), (0, max((a + b for a, b in zip(first, second, strict=True)), default=0) or 1))
    drawn = []
    for index, counts in enumerate(zip(first, second, strict=True)):
        left, right, base = plot.x(index / bins) + 0.75, plot.x((index + 1) / bins) - 0.75, 0
        for count, name, tone in zip(counts, names, ("main", "bad"), strict=True):
            told = tag("title", f"{index / bins:.2f} – {(index + 1) / bins:.2f}, {name}: {count:,}")
            size = {"width": round(right - left, 2), "height": round(plot.y(base) - plot.y(base + count), 2)}
            if count:
                drawn.append(tag("rect", told, x=round(left, 2), y=plot.y(base + count), class_=tone, **size))
            base += count
    keys = (tag("span", name, class_=f"key {tone}") for name, tone in zip(names, ("main", "bad"), strict=True))
    marks = [(value, f"{value:g}") for value in ticks(0, 1)]
    return tag("figure", tag("figcaption", *keys), plot.draw(drawn, marks, x, says))


def outlines(histograms: Sequence[Sequence[int]], says: str) -> Html:
    """Histograms from 0 to 1 so small that only their shapes are seen, each as high as there is room; the first lies on
    top.
    """
    drawn = []
    for counts, tone in reversed(list(zip(histograms, TONES, strict=False))):
        most, wide = max(counts, default=0) or 1, 160 / max(1, len(counts))
        points = stairs([(index * wide, 42 - 40 * count / most) for index, count in enumerate([*counts, 0])])
        path = "M0 42" + "".join(f"L{round(x, 2)} {round(y, 2)}" for x, y in points)
        drawn.append(tag("path", d=path, class_=f"track {tone}"))
    base = tag("line", x1=0, y1=42.5, x2=160, y2=42.5, class_="base")
    texts = tag("text", "0", x=0, y=56), tag("text", "1", x=160, y=56, class_="end")
    return tag("svg", *drawn, base, *texts, viewBox="0 0 160 60", role="img", aria_label=says)
