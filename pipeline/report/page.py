"""Pages for people: one HTML file with tables and figures, that needs no script, no network and no other file.

Everything is made by ``tag``, which escapes what it has not made itself; so a label or a file name is only ever text,
whatever is in it. A page is a list of ``Section``s, each a heading, a sentence that says what one sees, and blocks.
Figures are drawn 400 units wide, so that they can be read on a phone. Colours follow the reader's light or dark.
"""

import html
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from pipeline.core.atomic import atomic_write
from pipeline.core.text import clean

LONGEST = 300  # characters of a text that are shown; of a longer one the middle is left out
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 210, 44, 22, 12, 40  # of a figure, and of its margins
STRIP = "0 0 100 10"  # the view of a line that is stretched to the room there is
SAFE = "default-src 'none'; style-src 'unsafe-inline'; media-src data:"  # nothing is run and nothing fetched, ever

STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d1f23; --soft: #666b74; --line: #e3e4e6; --faint: #f1f1f0;
  --good: 46, 125, 90; --main: 55, 100, 165; --warn: 190, 125, 25; --bad: 185, 65, 55; --strong: #fff; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181b; --ink: #e6e7e9; --soft: #9a9fa8; --line: #33363b;
  --faint: #1f2125; --good: 105, 190, 145; --main: 125, 165, 225; --warn: 222, 170, 80; --bad: 228, 122, 110;
  --strong: #111; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "Noto Sans", sans-serif; -webkit-text-size-adjust: 100%; overflow-wrap: anywhere; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 0; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 0; }
section { margin-top: 2.75rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
p { margin: .3rem 0 1.1rem; color: var(--soft); max-width: 46rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { font-weight: 500; color: var(--soft); text-align: left; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
thead th { white-space: nowrap; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; margin: 0 0 1.25rem; }
.wide > table { min-width: min(100%, 32rem); }
.wide td { min-width: 6rem; } .wide td.number { min-width: 0; }
.name { font: .8125rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; unicode-bidi: isolate; display: block; min-width: 12rem; }
.command { white-space: pre-wrap; margin-bottom: 1.25rem; }
.remark { display: block; color: var(--soft); font-size: .8125rem; margin-bottom: .4rem; }
.remark:empty { display: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: 1.25rem 1.25rem;
  margin: 0 0 1.25rem; }
.tiles b { display: block; font-size: 1.65rem; line-height: 1.25; font-weight: 600; letter-spacing: -.01em;
  font-variant-numeric: tabular-nums; }
.tiles span { display: block; font-size: .8125rem; line-height: 1.4; color: var(--soft); }
.facts { width: 100%; max-width: 46rem; margin-bottom: 1.25rem; } .facts th { width: 11rem; }
.bars { width: 100%; margin-bottom: 1.25rem; }
.bars th { color: var(--ink); font-weight: 400; width: 28%; min-width: 6rem; } .bars td { vertical-align: middle; }
.bars th, .bars td { border: 0; padding-top: .15rem; padding-bottom: .15rem; line-height: 1.35; }
.bars .number { width: 1%; } .bars .number + .number { color: var(--soft); }
.bars svg { display: block; width: 100%; height: .7rem; border-radius: 2px; background: var(--faint); }
.parts { display: block; width: 100%; height: .6rem; border-radius: 3px; background: var(--faint);
  margin-bottom: 1.25rem; }
figure { margin: 0 0 1.25rem; max-width: 30rem; min-width: 0; }
figcaption { font-size: .875rem; margin-bottom: .25rem; } figcaption span { color: var(--soft); }
figure svg { display: block; width: 100%; height: auto; }
.abreast { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 2rem; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem 1.25rem; }
.small figure { margin-bottom: .5rem; }
audio { width: 16rem; max-width: 100%; } video { height: 8rem; max-width: 100%; }
svg text { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .rule { stroke: var(--line); } svg .base { stroke: var(--soft); } svg .dashed { stroke: var(--soft);
  stroke-dasharray: 4 4; } svg .track { fill: none; stroke-width: 2; stroke-linejoin: round; }
.main { --tone: var(--main); } .good { --tone: var(--good); } .warn { --tone: var(--warn); }
.bad { --tone: var(--bad); }
svg rect, svg circle { fill: rgb(var(--tone, var(--main))); } svg .track, svg .whisker { stroke: rgb(var(--tone)); }
.key { color: rgb(var(--tone)); margin-right: .9rem; } .key::before { content: "\\25CF\\00A0"; }
.matrix { margin: 0; border-collapse: separate; border-spacing: 1px; font-size: .75rem; }
.wide > .matrix { min-width: 0; }
.matrix td, .matrix th { border: 0; padding: .15rem .3rem; white-space: nowrap; }
.wide .matrix td { text-align: center; min-width: 1.85rem; height: 1.85rem; vertical-align: middle;
  background: var(--faint); }
.matrix td[style] { background: rgba(var(--tone), var(--share)); } .matrix .strong { color: var(--strong); }
.matrix tbody th { position: sticky; left: 0; background: var(--paper); text-align: right; vertical-align: middle;
  color: var(--ink); max-width: 11rem; overflow: hidden; text-overflow: ellipsis; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11rem; overflow: hidden;
  vertical-align: top; text-align: left; color: var(--ink); } .wide .matrix thead td { background: none; }
@media (max-width: 34rem) { main { padding: 1.5rem 1rem 3rem; } .facts th { width: 7rem; } .bars th { width: 36%; }
  th, td { padding-right: .6rem; } }
@media print { section { break-inside: avoid; } main { max-width: none; } }
"""


class Html(str):
    """Markup. Only ``tag`` and ``join`` make it."""


class Section(NamedTuple):
    """A part of a page: what it is called, what one sees in it, and its blocks, one below the other."""

    heading: str
    says: str
    blocks: Sequence[Html] = ()


def tag(name: str, /, *inside: str, **attributes: object) -> Html:
    """An element. What is inside is escaped unless it is ``Html``; ``class_`` and the like lose their last ``_``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"' for key, value in attributes.items()
    )
    if name == "meta":
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*inside)}</{name}>")


def join(*parts: str) -> Html:
    """Parts one behind the other, escaped where they are not ``Html``."""
    return Html("".join(part if isinstance(part, Html) else escaped(part) for part in parts))


def escaped(text: str) -> Html:
    """Text as it stands in markup, quotes included."""
    return Html(html.escape(clean(text)))


def short(text: str, most: int = LONGEST) -> str:
    """Text without its middle if it is longer than ``most`` characters: of a path, the end tells more."""
    head = most // 3
    return text if len(text) <= most else f"{text[:head]} … {text[len(text) - most + head + 3 :]}"


def page(title: str, says: str, sections: Iterable[Section], opening: Sequence[Html] = ()) -> str:
    """A whole page; ``opening`` blocks stand above all sections."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=SAFE),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", short(title)),
        tag("style", Html(STYLE)),
    )
    rest = (tag("section", tag("h2", one.heading), tag("p", one.says), *one.blocks) for one in sections)
    main = tag("main", tag("header", tag("h1", short(title)), tag("p", says), *opening), *rest)
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def save(path: Path, text: str) -> None:
    """Write a page whole or not at all. OSError leaves what was there."""
    with atomic_write(path) as file:
        file.write(text.encode())


# Numbers


def share(part: float, whole: float = 1.0) -> str:
    """A part of a whole in per cent."""
    return f"{100 * part / whole:.1f}\u00a0%" if whole else "–"


def brief(number: float) -> str:
    """A number for an axis: 0.25, 20, 1.5k, 3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def lasting(seconds: float) -> str:
    """A time in the unit that fits, to two digits or to the unit."""
    size, unit = next((pair for pair in ((3600, "h"), (60, "min")) if seconds >= pair[0]), (1, "s"))
    value = seconds / size
    return f"{value:,.0f}\u00a0{unit}" if value >= 10 else f"{value:.2g}\u00a0{unit}"


def ticks(low: float, high: float, most: int = 5, least: float = 0.0) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``, ``most`` at most, about; not less
    than ``least`` apart (1: whole numbers).
    """
    rough = max(least, (high - low) / most) if high > low else 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


# Blocks of text and numbers


def tiles(figures: Iterable[tuple[str, str, str]]) -> Html:
    """Large figures side by side: value, what it is, and a remark ("" if none)."""
    return tag("div", *(tag("div", tag("b", v), tag("span", n), tag("span", r)) for v, n, r in figures), class_="tiles")


def facts(pairs: Mapping[str, str]) -> Html:
    """Names and what they are set to."""
    rows = (tag("tr", tag("th", short(key), scope="row"), tag("td", short(value))) for key, value in pairs.items())
    return tag("table", tag("tbody", *rows), class_="facts")


def name(text: str) -> Html:
    """A path or another name that is to be read letter by letter."""
    return tag("span", short(text), class_="name")


def command(text: str) -> Html:
    """A command line to be copied: nothing of it is left out, nor blanks in its quotes."""
    return tag("span", text, class_="name command")


def code(text: str) -> Html:
    """A word of programs."""
    return tag("code", short(text, 80))


def examples(found: Iterable[tuple[str, str]]) -> Html:
    """Names, each with a remark below it ("" if none)."""
    return join(*(part for one, remark in found for part in (name(one), tag("span", remark, class_="remark"))))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()) -> Html:
    """Rows of text or ``Html``; the columns ``numbers`` stand flush right. It scrolls where it is too broad."""
    sides: list[dict[str, object]] = [{"class_": "number"} if column in numbers else {} for column in columns]
    head = (tag("th", column, scope="col", **side) for column, side in zip(columns, sides, strict=True))
    body = (tag("tr", *starmap(entry, zip(row, sides, strict=True))) for row in rows)
    return tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body)), class_="wide")


def entry(content: str, side: Mapping[str, object]) -> Html:
    """A cell of a table."""
    return tag("td", content if isinstance(content, Html) else short(content, 80), **side)


def bars(rows: Sequence[tuple[str, float, str, str]], tone: str = "main") -> Html:
    """A bar for each row: label, value (not negative), the value in words, and a remark behind it."""
    most = max((value for _, value, *_ in rows), default=0) or 1
    drawn = (bar(label, value / most, said, remark, tone) for label, value, said, remark in rows)
    return tag("table", tag("tbody", *drawn), class_="bars")


def bar(label: str, part: float, said: str, remark: str, tone: str) -> Html:
    """One of them, ``part`` of the longest."""
    drawn = tag("rect", width=round(100 * part, 2), height=10, class_=tone)
    line = tag("svg", drawn, viewBox=STRIP, preserveAspectRatio="none", aria_hidden="true")
    cells = (tag("td", text, class_="number") for text in (said, remark))
    return tag("tr", tag("th", short(label, 80), scope="row"), tag("td", line), *cells)


def parts(values: Sequence[tuple[str, float, str]]) -> Html:
    """A line cut into the shares of a whole: name, value, tone."""
    total, start, drawn = sum(value for _, value, _ in values) or 1, 0.0, []
    for label, value, tone in values:
        told = tag("title", f"{label}: {value:,} ({share(value, total)})")
        drawn.append(tag("rect", told, x=round(start, 3), width=round(100 * value / total, 3), height=10, class_=tone))
        start += 100 * value / total
    said = ", ".join(f"{label} {share(value, total)}" for label, value, _ in values)
    stretched = {"viewBox": STRIP, "preserveAspectRatio": "none"}
    return tag("svg", *drawn, class_="parts", role="img", aria_label=said, **stretched)


def abreast(*blocks: Html) -> Html:
    """Blocks side by side, where there is room."""
    return tag("div", *blocks, class_="abreast")


# Figures


class Plot:
    """A frame whose axes run from ``x[0]`` to ``x[1]`` and from ``y[0]`` to ``y[1]``."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT) -> None:
        self.limits, self.height = (x, y), height

    def x(self, value: float) -> float:
        """Where a value is, from the left."""
        (low, high), _ = self.limits
        return round(LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """Where a value is, from above."""
        _, (low, high) = self.limits
        floor = self.height - BOTTOM
        return round(floor - (value - low) / ((high - low) or 1) * (floor - TOP), 2)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
        """A straight line between two values."""
        return tag("line", x1=self.x(x1), y1=self.y(y1), x2=self.x(x2), y2=self.y(y2), class_=kind)

    def draw(
        self, inside: Iterable[Html], xs: Sequence[tuple[float, str]], x: str, says: str,
        told: Callable[[float], str] = brief,
    ) -> Html:  # fmt: skip
        """The figure: what is ``inside`` on a grid, ticks ``xs`` with their texts, the name ``x`` of that axis.

        ``says`` is what is read to those who cannot see it, ``told`` how values upwards are written.
        """
        (left, right), (low, high) = self.limits
        floor, ys = self.height - BOTTOM, ticks(low, high, self.height // 50)
        grid = [self.line(left, value, right, value, "rule") for value in ys if value > low]
        side = [tag("text", told(value), x=LEFT - 6, y=self.y(value) + 4, class_="end") for value in ys]
        below = [tag("text", text, x=self.x(value), y=floor + 16, class_="middle") for value, text in xs]
        middle = (LEFT + WIDTH - RIGHT) / 2
        named = tag("text", x, x=middle, y=self.height - 5, class_="middle")
        base = self.line(left, low, right, low, "base")
        view = f"0 0 {WIDTH} {self.height}"
        return tag("svg", *grid, *inside, base, *side, *below, named, viewBox=view, role="img", aria_label=says)


def figure(caption: str, drawn: Html, remark: str = "") -> Html:
    """A drawing with its name above."""
    return tag("figure", tag("figcaption", short(caption, 60), tag("span", f"  {remark}" if remark else "")), drawn)


def histogram(
    counts: Sequence[int], spans: Sequence[str], marks: Sequence[tuple[float, str]], x: str, says: str
) -> Html:
    """Counts in bins side by side; ``spans`` name the bins, ``marks`` are ticks in bins from the left (0: the edge)."""
    plot = Plot((0, len(counts)), (0, max(counts, default=0) or 1))
    drawn = []
    for index, (count, span) in enumerate(zip(counts, spans, strict=True)):
        left, right, top = plot.x(index) + 0.75, plot.x(index + 1) - 0.75, plot.y(count)
        told = tag("title", f"{span}: {count:,}")
        size = {"width": round(right - left, 2), "height": round(plot.y(0) - top, 2)}
        drawn.append(tag("rect", told, x=round(left, 2), y=top, **size))
    return plot.draw(drawn, marks, x, says)


def small(figures: Iterable[Html]) -> Html:
    """Many small figures, as many side by side as there is room for."""
    return tag("div", *figures, class_="small")


TONES = "main", "bad", "good", "warn"


def track(line: Iterable[tuple[float, float]], plot: Plot) -> str:
    """A line as a path; it begins anew behind a hole."""
    steps, pen = [], "M"
    for x, y in line:
        there = math.isfinite(x) and math.isfinite(y)
        if there:
            steps.append(f"{pen}{plot.x(x)} {plot.y(y)}")
        pen = "L" if there else "M"
    return "".join(steps)


class Dot(NamedTuple):
    """A point of a reliability diagram, all between 0 and 1: what was claimed, what came true, from where to where that
    may be by chance, and the share of the answers it stands for.
    """

    claimed: float
    true: float
    low: float
    high: float
    weight: float


def reliability(dots: Sequence[Dot], x: str, says: str) -> Html:
    """What was claimed against what came true, in per cent; on the dashed line they agree. Areas are weights."""
    plot = Plot((0, 1), (0, 1), height=320)
    most = max((dot.weight for dot in dots), default=1.0)
    drawn = [plot.line(0, 0, 1, 1, "dashed")]
    for dot in dots:
        told = tag("title", f"claimed {share(dot.claimed)}, true {share(dot.true)}, {share(dot.weight)} of the answers")
        drawn.append(plot.line(dot.claimed, dot.low, dot.claimed, dot.high, "whisker main"))
        size = round(2.5 + 6.5 * math.sqrt(dot.weight / most), 2)
        drawn.append(tag("circle", told, cx=plot.x(dot.claimed), cy=plot.y(dot.true), r=size))
    marks = [(value, percent(value)) for value in ticks(0, 1)]
    return plot.draw(drawn, marks, x, says, percent)


def percent(value: float) -> str:
    """For an axis of shares."""
    return f"{100 * value:.0f}\u00a0%"


def matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Html:
    """A confusion matrix (rows: truth, columns: answers) as a table, shaded by the share of its row."""
    names = [short(label, 40) for label in labels]
    head = tag("tr", tag("td"), *(tag("th", label, scope="col") for label in names))
    rows = []
    for index, row in enumerate(counts):
        total = sum(row) or 1
        cells = (
            cell(count, count / total, index == other, f"{names[index]} → {names[other]}: {count:,}")
            for other, count in enumerate(row)
        )
        rows.append(tag("tr", tag("th", names[index], scope="row"), *cells))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="matrix"), class_="wide")


def cell(count: int, part: float, right: bool, told: str) -> Html:
    """A count of a confusion matrix. Shades grow with the root of a share, so that rare mistakes are seen, too."""
    if not count:
        return tag("td")
    shade = 0.1 + 0.85 * math.sqrt(part)
    kind = ("main" if right else "bad") + (" strong" if shade > 0.6 else "")
    return tag("td", f"{count:,}", class_=kind, style=f"--share: {shade:.2f}", title=told)
