"""Windows of annotated recordings, and what is in each of them. Recordings are never in memory as a whole."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from datasets.truths import Truth
from pipeline.core.errors import MediaError
from pipeline.media.annotations import first_overlap
from pipeline.media.recording import Recording
from pipeline.media.sample import Sample, Span

REST = 0.1  # of a window: a shorter rest at the end of a recording belongs to the window before it
Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class AnnotatedRecording:
    """A recording and its truth: ``labels`` as numbers; ``spans (N, 3)``: start and end in samples, label; None if the
    times are not known.
    """

    recording: Recording
    truth: Truth
    labels: tuple[int, ...]
    spans: NDArray[np.int64] | None

    def within(self, start: int, count: int) -> tuple[tuple[int, ...], list[Span] | None]:
        """What is in a window: its labels, and its spans, cut at its edges. The labels are those of events of which it
        holds at least half, or which fill at least half of it; all of the recording, if times are not known.
        """
        if self.spans is None:
            return self.labels, None
        begins, ends, labels = self.spans.T
        first, last = np.maximum(begins - start, 0), np.minimum(ends - start, count)
        there = first < last
        enough = there & (2 * (last - first) >= np.minimum(ends - begins, count))
        found: list[Span] = [(a, b, c) for a, b, c in np.stack([first, last, labels], 1)[there].tolist()]
        return tuple(np.unique(labels[enough]).tolist()), found


class Windows(Dataset[Sample | None]):
    """Windows of one split: all recordings, cut into windows that follow one another, so that each second is in one of
    them. In training as many, but in each epoch others: anywhere in a recording, or around an event.

    Recordings whose times are not known are one window each; in training, a part of them.
    """

    def __init__(
        self, parts: Sequence[AnnotatedRecording], size: int, drawn: bool = False, events: float = 0.0
    ) -> None:
        """``size`` in samples. ``drawn``: for training; ``events``: which share of the windows of longer recordings is
        drawn so that it holds half of an event, or an event half of it.
        """
        self.parts, self.size, self.drawn, self.events = list(parts), size, drawn, events
        self.epoch, self.skipped = 0, 0
        self.places = [
            (number, start, count) for number, part in enumerate(parts) for start, count in self.cut(part)
        ]  # number of a part, first sample, and how many
        self.targets = [
            (number, begin, end)
            for number, part in enumerate(parts)
            if part.spans is not None and part.recording.samples > size
            for begin, end, _ in part.spans.tolist()
        ]
        if not drawn:
            self.classes = [parts[number].within(start, count)[0] for number, start, count in self.places]

    def cut(self, part: AnnotatedRecording) -> list[tuple[int, int]]:
        """The windows of a recording, by first sample and length."""
        samples = part.recording.samples
        if part.spans is None:
            return [(0, samples)]
        starts = range(0, max(1, samples - round(REST * self.size)), self.size)
        return [(start, (self.size if start != starts[-1] else samples - start)) for start in starts]

    @property
    def names(self) -> list[str]:
        """Which windows they are, and what is in them."""
        return [f"{self.name(place)} {self.parts[place[0]].within(*place[1:])}" for place in self.places]

    @property
    def groups(self) -> list[str]:
        """The group of each window: windows of one recording belong together."""
        return [self.group(number) for number, _, _ in self.places]

    @cached_property
    def overlap(self) -> str:
        """In words, where two labels are at the same time; '' if they never are."""
        for part in self.parts:
            if part.truth.events and (found := first_overlap(part.truth.events)):
                one, other = found
                times = f"{one.label!r} ({one.start:g} to {one.end:g} s) and {other.label!r} ({other.start:g} s)"
                return f"{times} overlap in {part.truth.path}, rows {one.row} and {other.row} of {part.truth.table}"
        return ""

    def name(self, place: tuple[int, int, int]) -> str:
        """A window's recording, and its part of it."""
        number, start, count = place
        recording = self.parts[number].recording
        seconds = f"@{start / recording.rate:.2f}-{(start + count) / recording.rate:.2f}"
        return recording.path + (seconds if count < recording.samples else "")

    def group(self, number: int) -> str:
        """What stands or falls together with a recording's windows."""
        truth = self.parts[number].truth
        return truth.group or (str(truth.path) if self.parts[number].recording.samples > self.size else "")

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample | None:
        place = self.places[index]
        moves = self.drawn and self.parts[place[0]].recording.samples > self.size
        if moves:
            place = self.draw(np.random.default_rng([self.epoch, index]), place[0])
        number, start, count = place
        name = self.name(place)
        try:
            wave = self.parts[number].recording.window(start, count)
        except MediaError as error:
            warnings.warn(f"skipped {name}: {error}", stacklevel=2)
            return None
        labels, spans = self.parts[number].within(start, count)
        return Sample((wave,), labels, spans, name, "" if moves else name, self.group(number))

    def draw(self, rng: Rng, number: int) -> tuple[int, int, int]:
        """A window of a recording, or around an event of any of them."""
        low, high = 0.0, float(self.parts[number].recording.samples - self.size)
        if self.targets and self.parts[number].spans is not None and rng.random() < self.events:
            number, begin, end = self.targets[rng.integers(len(self.targets))]
            half = min(end - begin, self.size) / 2
            last = self.parts[number].recording.samples - self.size
            low, high = (min(max(edge, 0.0), last) for edge in (begin + half - self.size, end - half))
        return number, int(rng.integers(int(np.ceil(low)), int(high) + 1)), self.size
