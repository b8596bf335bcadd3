"""A page about what was classified: how much, how sure, how right, and what went wrong."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated

from pydantic import Field

import pipeline.report.page as page
import pipeline.sinks.items as items
from pipeline.core.atomic import write_text
from pipeline.core.text import shorten
from pipeline.measures.accuracy import Accuracy, CappedCounter, Prediction, Smallest
from pipeline.report.accuracy import describe_files
from pipeline.report.charts import Drawing, Plot, draw_outlines, plot_histogram, plot_scores
from pipeline.sinks.sink import Sink, regular_file
from pipeline.tasks.calibration import HISTOGRAM_BINS, score_bin

MAX_HISTOGRAMS = 24  # classes that have a histogram each
BINS_PER_DECADE, FIRST_POWER, DURATION_BINS = 10, -2, 70  # of durations; power of ten of the first bin, in seconds
TICK_SECONDS = (0.01, 0.1, 1, 10, 60, 600, 3600, 36000)  # on the axis of durations
FINE_TICK_SECONDS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1200, 3600, 7200, 18000, 36000
)  # fmt: skip
NOTHING = "–"  # the answer for a file in which no label reaches its threshold
MAX_EXAMPLES = 3  # files for each code


class Report(Sink):
    """Files, or the events of a stream, summed up in a page. What is held in memory grows with the number of classes,
    not with that of files. The page is written in the end: of files by ``finish``, of a stream by ``close``.

    Attributes:
        about: what is known of the run (its model, its settings), a small table.
    """

    files = True

    def __init__(self, path: str = "report.html", worst: Annotated[int, Field(ge=0, le=1000)] = 20) -> None:
        """``path`` of the page; ``worst`` files are listed: the least sure, and the surest mistakes. ConfigError if it
        is no regular file, OSError if it could not be written.
        """
        self.path = regular_file(path, "sink.report.path", "a page")
        self.outputs = (self.path,)
        self.about: dict[str, str] = {}
        self.name, self.worst, self.unwritten = "", worst, False
        self.labels: list[str] = []
        self.began = datetime.now().astimezone()
        self.statuses: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.scores, self.duration_counts = [0] * HISTOGRAM_BINS, [0] * DURATION_BINS
        self.label_scores: dict[str, list[int]] = {}
        self.total_seconds = 0.0  # of all files
        self.unsure = Smallest[Prediction](worst)
        self.warnings, self.errors = Problems(), Problems()
        self.accuracy: Accuracy | None = None
        self.several = False  # whether a file was told to hold several labels, or none
        self.event_counts: Counter[str] = Counter()
        self.searched_seconds: float | None = None  # seconds in which events were looked for
        self.gap_count, self.lost_seconds, self.step_count = 0, 0.0, 0  # of a stream

    def start(self, stream: items.StreamInfo) -> None:
        """A page is due, even of a stream without answers."""
        super().start(stream)
        self.name, self.labels, self.unwritten = stream.name, stream.labels, True

    def write(self, item: items.Item) -> None:
        """Count files, or what a stream says."""
        match item:
            case items.Metadata():
                self.about |= item.facts
            case items.FileResult():
                self.file(item)
            case items.TimedEvent():
                self.event_counts[item.label] += 1
            case items.Steps():
                self.step_count = max(self.step_count, item.first + len(item.posteriors))
            case items.TimedGap():
                self.gap_count, self.lost_seconds = self.gap_count + bool(item.length), self.lost_seconds + item.length
            case items.StreamWarning():
                self.warnings.add(item.code, f"{item.time:.2f} s", item.text)

    def file(self, result: items.FileResult) -> None:
        self.unwritten = False  # before all files are known
        self.labels = self.labels or list(result.posteriors)
        status, seconds, score, place = result.status, result.seconds, result.score, place_of(result)
        answer = None if score is None else result.label or NOTHING
        self.statuses[status] += 1
        if seconds is not None:
            self.total_seconds += seconds
            self.duration_counts[duration_bin(seconds)] += 1
        if answer is not None:
            self.answers[answer] += 1
            self.several = self.several or answer not in self.labels
        if answer is not None and score is not None and 0 <= score <= 1:  # no other number says how sure
            index = score_bin(score, HISTOGRAM_BINS)
            self.scores[index] += 1
            if len(self.labels) <= MAX_HISTOGRAMS:
                self.label_scores.setdefault(answer, [0] * HISTOGRAM_BINS)[index] += 1
            self.unsure.add(score, Prediction(place, answer, score))
        if status != "ok":
            (self.warnings if status == "warning" else self.errors).add(result.code, place, result.reason)
        if result.truth:
            self.accuracy = self.accuracy or Accuracy(self.labels, self.worst)
            self.accuracy.add(result.truth, answer, score, place)
        if result.events is not None and answer is not None:
            self.searched_seconds = (self.searched_seconds or 0.0) + (seconds or 0.0)
            self.event_counts.update(event.label for event in result.events)

    def finish(self) -> None:
        """Write the page: these were all files."""
        self.unwritten = False
        write_text(self.path, self.render())

    def close(self) -> None:
        """Write the page of a stream."""
        if self.unwritten and self.stream:
            self.searched_seconds = self.stream.seconds(self.step_count * self.stream.hop)
            self.finish()

    def render(self) -> str:
        several = 1 < len(self.labels) <= MAX_HISTOGRAMS
        hours, answers = (self.searched_seconds or 0.0) / 3600, self.answers.most_common()
        return page.render(
            "files.html",
            report=self,
            took=(datetime.now().astimezone() - self.began).total_seconds(),
            about=({"name": self.name} if self.name else {}) | self.about,
            accuracy=describe_files(self.accuracy) if self.accuracy and not self.several else None,
            labels=[(n, count, f"{count:,}", page.format_share(count, self.answers.total())) for n, count in answers],
            scores=plot_scores({"": self.scores}, "score", "Number of files by score"),
            small=[(n, count, self.outlines(n)) for n, count in answers[: MAX_HISTOGRAMS * several]],
            unsure=list(self.unsure),
            durations=plot_durations(self.duration_counts),
            events=[
                (label, count, f"{count:,}", f"{count / hours:,.1f} / h" if hours else "")
                for label, count in self.event_counts.most_common()
            ],
        )

    def outlines(self, label: str) -> Drawing:
        """A small histogram of the scores of a label."""
        return draw_outlines([self.label_scores.get(label, [0] * HISTOGRAM_BINS)], f"Scores of {label}")


class Problems:
    """Files by the codes of what is wrong with them, and the first few of each."""

    def __init__(self) -> None:
        self.counts = CappedCounter()
        self.examples: dict[str, list[tuple[str, str]]] = {}

    def add(self, codes: str, place: str, reason: str) -> None:
        """Count a file under each of its codes, which are separated by spaces."""
        for code in codes.split() or ["unknown"]:
            first = self.examples.setdefault(self.counts.add(code), [])
            if len(first) < MAX_EXAMPLES:
                first.append((place, shorten(reason)))


def place_of(result: items.FileResult) -> str:
    """A file, or the part of it that was classified."""
    end = "end" if result.end is None else f"{result.end:.2f} s"
    part = f" [{result.start:.2f} – {end}]" if result.start or result.end is not None else ""
    return shorten(result.path) + part


def duration_bin(seconds: float) -> int:
    if seconds <= 0:
        return 0
    return min(DURATION_BINS - 1, max(0, math.floor(BINS_PER_DECADE * (math.log10(seconds) - FIRST_POWER))))


def plot_durations(counts: Sequence[int]) -> Plot:
    """Durations as far as there are any, but a decade at least."""
    there = [index for index, count in enumerate(counts) if count] or [-FIRST_POWER * BINS_PER_DECADE]
    first = max(0, min(there[0] - 1, (there[0] + there[-1] - BINS_PER_DECADE) // 2))
    last = min(DURATION_BINS, max(there[-1] + 2, first + BINS_PER_DECADE))
    edges = [10 ** (index / BINS_PER_DECADE + FIRST_POWER) for index in range(first, last + 1)]
    spans = [f"{page.format_duration(low)} – {page.format_duration(high)}" for low, high in pairwise(edges)]
    ticks = FINE_TICK_SECONDS if last - first <= 2 * BINS_PER_DECADE else TICK_SECONDS
    marks = [
        (BINS_PER_DECADE * (math.log10(tick) - FIRST_POWER) - first, page.format_duration(tick))
        for tick in ticks
        if edges[0] <= tick <= edges[-1]
    ]
    return plot_histogram({"": counts[first:last]}, spans, marks, "duration", "Number of files by duration")
