"""A page about what was classified: how much, how sure, how right, and what went wrong."""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import pipeline.report.charts as charts
import pipeline.report.page as page
import pipeline.sinks.items as items
from pipeline.core.errors import ConfigError
from pipeline.core.journal import Journal
from pipeline.measures.calibration import SCORES, score_bin
from pipeline.measures.uncertainty import wilson
from pipeline.report.accuracy import LISTED, Accuracy, Found, Least, known, listed, rest, sections
from pipeline.report.page import Html, Section
from pipeline.sinks.sink import Sink

FEW = 24  # classes that have a histogram each
FINE, FIRST, LENGTHS = 10, -2, 70  # bins of durations: in a decade, power of ten of the first, in all
MARKS = (0.01, 0.1, 1, 10, 60, 600, 3600, 36000)  # seconds on the axis of durations
NEAR = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1200, 3600, 7200, 18000, 36000)
EXAMPLES = 3  # files for each code


class Report(Sink):
    """Files, or the events of a stream, summed up in a page. What is held in memory grows with the number of classes,
    not with that of files. The page is written in the end: of files by ``finish``, of a stream by ``close``.

    Attributes:
        about: what else is to be said of the run (its model, its settings), as a small table.
    """

    files = True

    def __init__(self, path: str = "report.html", worst: Annotated[int, Field(ge=0, le=1000)] = 20) -> None:
        """``path`` of the page; ``worst`` files are listed: the least sure, and the surest mistakes. ConfigError if it
        is no regular file, OSError if it could not be written.
        """
        self.path = writable(path)
        self.outputs = (self.path,)
        self.about: dict[str, str] = {}
        self.name, self.worst, self.due = "", worst, False
        self.labels: list[str] = []
        self.began = datetime.now().astimezone()
        self.statuses: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.scores, self.lengths = [0] * SCORES, [0] * LENGTHS
        self.scores_of: dict[str, list[int]] = {}
        self.duration = 0.0  # seconds of all files
        self.unsure = Least(worst)
        self.doubts, self.errors = Troubles(), Troubles()
        self.accuracy: Accuracy | None = None
        self.events_of: Counter[str] = Counter()
        self.searched: float | None = None  # seconds in which events were looked for
        self.gaps, self.lost, self.heard = 0, 0.0, 0  # of a stream; seconds lost, steps heard

    def start(self, stream: items.StreamInfo) -> None:
        """There will be a page."""
        super().start(stream)
        self.name, self.labels, self.due = stream.name, stream.labels, True

    def write(self, item: items.Item) -> None:
        """Count files, or what a stream says."""
        match item:
            case items.Metadata():
                self.about |= item.facts
            case items.FileResult():
                self.file(item)
            case items.TimedEvent():
                self.events_of[item.label] += 1
            case items.Steps():
                self.heard = max(self.heard, item.first + len(item.posteriors))
            case items.TimedGap():
                self.gaps, self.lost = self.gaps + bool(item.length), self.lost + item.length
            case items.StreamWarning():
                self.doubts.add(item.code, f"{item.time:.2f} s", item.text)

    def file(self, result: items.FileResult) -> None:
        """Count a file."""
        self.due = False  # before all files are known
        self.labels = self.labels or list(result.posteriors)
        status, seconds, score, place = result.status, number(result.seconds), number(result.score), where(result)
        answer = result.label or None
        self.statuses[status] += 1
        if seconds is not None:
            self.duration += seconds
            self.lengths[length_bin(seconds)] += 1
        if answer is not None:
            self.answered(answer, score, place)
        if status != "ok":
            (self.doubts if status == "warning" else self.errors).add(result.code, place, result.reason)
        if result.truth:
            self.accuracy = self.accuracy or Accuracy(self.labels, self.worst)
            self.accuracy.add(result.truth, answer, score, place)
        if result.events is not None and answer is not None:
            self.searched = (self.searched or 0.0) + (seconds or 0.0)
            self.events_of.update(event.label for event in result.events)

    def answered(self, label: str, score: float | None, place: str) -> None:
        """Count an answer."""
        self.answers[label] += 1
        if score is not None:
            index = score_bin(score, SCORES)
            self.scores[index] += 1
            if len(self.labels) <= FEW:
                self.scores_of.setdefault(label, [0] * SCORES)[index] += 1
            self.unsure.add(score, Found(place, label, score))

    def finish(self) -> None:
        """Write the page: these were all files."""
        self.due = False
        page.save(self.path, written(self))

    def close(self) -> None:
        """Write the page of a stream."""
        if self.due and self.stream:
            self.searched = self.stream.seconds(self.heard * self.stream.hop)
            self.finish()


class Troubles:
    """Files by the codes of what is wrong with them, and the first few of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, codes: str, place: str, reason: str) -> None:
        """A file, its codes separated by spaces."""
        for code in codes.split() or ["unknown"]:
            key = known(self.counts, page.short(code))
            self.counts[key] += 1
            first = self.examples.setdefault(key, [])
            if len(first) < EXAMPLES:
                first.append((place, page.short(reason)))

    def section(self, heading: str, says: str) -> Section | None:
        """The most frequent ones, if there are any."""
        rows = [
            (page.code(key), f"{count:,}", page.examples(self.examples[key]))
            for key, count in self.counts.most_common(LISTED)
        ]
        shown = page.table(("code", "count", "for example"), rows, numbers=("count",))
        return Section(heading, says, [shown, rest(len(self.counts))]) if rows else None


def writable(path: str) -> Path:
    """The file that a page is to be; a link stays one."""
    whole = Path(path).expanduser().resolve()
    if whole.exists() and not whole.is_file():
        raise ConfigError(f"sink.report.path: {path} is no regular file, which a page must be")
    Journal(str(whole), None)  # whether it could be written
    return whole


def where(result: items.FileResult) -> str:
    """A file, or the part of it that was classified."""
    path = page.short(result.path)
    start, end = number(result.start) or 0.0, number(result.end)
    if not start and end is None:
        return path
    return f"{path} [{start:.2f} – {'end' if end is None else f'{end:.2f} s'}]"


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def length_bin(seconds: float) -> int:
    """Which bin a duration is in."""
    return min(LENGTHS - 1, max(0, math.floor(FINE * (math.log10(seconds) - FIRST)))) if seconds > 0 else 0


def written(report: Report) -> str:
    """The page."""
    ended, files = datetime.now().astimezone(), report.statuses.total()
    says = f"{ended:%Y-%m-%d %H:%M %z}, after {page.lasting((ended - report.began).total_seconds())}"
    opening = [page.tiles(tiles(report))]
    if files:
        tones = ("ok", "good"), ("warning", "warn"), ("error", "bad")
        opening.append(page.parts([(status, report.statuses[status], tone) for status, tone in tones]))
    if about := ({"name": report.name} if report.name else {}) | report.about:
        opening.append(page.facts(about))
    parts = [
        *(sections(report.accuracy) if report.accuracy else ()),
        *answers(report),
        events(report),
        report.doubts.section("Warnings", "Something is doubtful about these, but they have answers."),
        report.errors.section("Errors", "These have no answer, and this is why."),
    ]
    title = "Classified files" if files else "A classified stream" if report.heard else "Nothing was classified"
    return page.page(title, says, [part for part in parts if part], opening)


def tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """The main figures."""
    hits, truths, _ = (int(counts.sum()) for counts in report.accuracy.totals()) if report.accuracy else (0, 0, 0)
    if truths:
        low, high = (f"{100 * value:.1f}" for value in wilson(hits, truths))
        yield page.share(hits, truths), "accuracy", f"{low} – {high}"
    files = report.statuses.total()
    if files:
        yield f"{files:,}", "files", f"{page.lasting(report.duration)} in all"
        for status, name in (("ok", "without doubts"), ("warning", "with warnings"), ("error", "errors")):
            yield f"{report.statuses[status]:,}", name, page.share(report.statuses[status], files)
    if report.heard and report.searched:
        yield page.lasting(report.searched), "heard or seen", ""
        yield f"{report.gaps:,}", "gaps", f"{page.lasting(report.lost)} lost" if report.gaps else ""
    if report.searched is not None:
        yield f"{report.events_of.total():,}", "events", ""


def answers(report: Report) -> Iterator[Section]:
    """What the answers were, how sure, and how long the files are."""
    total = report.answers.total()
    if not total:
        return
    rows = [(label, count, f"{count:,}", page.share(count, total)) for label, count in report.answers.most_common()]
    yield Section(
        "Answers", f"How many of {total:,} files got each label.", [page.bars(rows[:LISTED]), rest(len(rows))]
    )
    spans = [f"{index / SCORES:.2f} – {(index + 1) / SCORES:.2f}" for index in range(SCORES)]
    marks = [(SCORES * value, f"{value:g}") for value in page.ticks(0, 1)]
    drawn = page.histogram(report.scores, spans, marks, "score", "Number of files by score")
    says = "How sure the answers are: 1 is certain, and many low scores mean that the files are not what was learnt."
    yield Section("Scores", says, [page.figure("All files", drawn), scores_by_label(report)])
    if any(report.unsure):
        yield Section("Least sure", "The files with the lowest scores.", [listed(report.unsure)])
    says = f"How long the files are, {page.lasting(report.duration)} in all. Bins grow with the duration."
    yield Section("Durations", says, [lengths(report.lengths)])


def scores_by_label(report: Report) -> Html:
    """A small histogram of scores for each label; of one label or too many, none."""
    if not 1 < len(report.labels) <= FEW:
        return Html()
    drawn = []
    for label, count in report.answers.most_common(FEW):
        counts = report.scores_of.get(label, [0] * SCORES)
        shape = charts.outlines([counts], f"Scores of {page.short(label, 80)}")
        drawn.append(page.figure(label, shape, f"{count:,}"))
    return page.small(drawn)


def lengths(counts: list[int]) -> Html:
    """Durations as far as there are any, but a decade at least."""
    there = [index for index, count in enumerate(counts) if count] or [-FIRST * FINE]
    first = max(0, min(there[0] - 1, (there[0] + there[-1] - FINE) // 2))
    last = min(LENGTHS, max(there[-1] + 2, first + FINE))
    edges = [10 ** (index / FINE + FIRST) for index in range(first, last + 1)]
    spans = [f"{page.lasting(low)} – {page.lasting(high)}" for low, high in pairwise(edges)]
    marks = [mark for mark in (NEAR if last - first <= 2 * FINE else MARKS) if edges[0] <= mark <= edges[-1]]
    places = [(FINE * (math.log10(mark) - FIRST) - first, page.lasting(mark)) for mark in marks]
    drawn = page.histogram(counts[first:last], spans, places, "duration", "Number of files by duration")
    return page.figure("All files", drawn)


def events(report: Report) -> Section | None:
    """Events by label, and how many there are in an hour."""
    if report.searched is None:
        return None
    hours, rows = report.searched / 3600, report.events_of.most_common(LISTED)
    shown = [(label, count, f"{count:,}", f"{count / hours:,.1f} / h" if hours else "") for label, count in rows]
    says = f"How many events of each label there are in {page.lasting(report.searched)}, and how many in an hour."
    return Section("Events", says, [page.bars(shown), rest(len(report.events_of))])
