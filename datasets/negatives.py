"""Negatives: recordings of any length in which none of the classes is, such as an hour of a street. A model is trained,
and its thresholds are chosen, to stay silent on them.

They are read in windows. Each recording is shared out by time: most of it is for training, a part for validation, and
another for the thresholds. Where there are many recordings, whole ones are shared out instead. What a table beside a
recording lists (``NAME.csv``, ``start,end,label``) is cut out with some room around it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.errors import ConfigError, MediaError
from pipeline.media.annotations import beyond_end, find_truth, read_truth
from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays
from pipeline.media.recording import Recording
from pipeline.media.sample import Derived, Sample, Split
from pipeline.media.walk import tell

SHARES = {"train": 0.7, "val": 0.1, "thresholds": 0.2}
NAME = "negatives"  # of every window of them
MANY = 20  # recordings; from here on each of them is in one split
ROOM_SECONDS = 0.5  # around what is cut out
HARD_SHARE = 0.5
BLOCK = 1 << 18  # samples that are read at once
LEVELS = -10.0, 10.0  # dB by which windows are louder than they were
Rng = np.random.Generator


class Stretch(NamedTuple):
    """Samples ``start`` to ``end`` of a recording."""

    recording: Recording
    start: int
    end: int


@dataclass
class Negatives:
    """Stretches of recordings, of which windows are drawn: anywhere, or ``HARD_SHARE`` of them around the ``hard``
    places (number of a stretch, sample within its recording), where a model was wrong.
    """

    stretches: list[Stretch]
    hard: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ends = np.cumsum([one.end - one.start for one in self.stretches])

    @property
    def samples(self) -> int:
        """Of all stretches."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def __len__(self) -> int:
        return len(self.stretches)

    def chunks(self, number: int) -> tuple[str, int, Iterator[Arrays]]:
        """A stretch: its recording's name, its first sample there, and all of it in blocks."""
        recording, start, end = self.stretches[number]
        blocks = ((recording.window(at, min(BLOCK, end - at)),) for at in range(start, end, BLOCK))
        return Path(recording.path).name, start, blocks

    def draw(self, rng: Rng, count: int) -> Samples:
        """A window of ``count`` samples; where a stretch is shorter, all of it, repeated."""
        if self.hard and rng.random() < HARD_SHARE:
            place, start = self.hard[rng.integers(len(self.hard))]
            start -= int(rng.uniform(0.2, 0.8) * count)
        else:
            at = int(rng.integers(self.samples))
            place = int(np.searchsorted(self.ends, at, "right"))
            start = self.stretches[place].end + at - int(self.ends[place])
        recording, first, end = self.stretches[place]
        start = max(first, min(start, end - count))
        return np.resize(recording.window(start, min(count, end - start)), count)


class WithNegatives(Derived):
    """The clips of a split, and behind them windows of negatives, as long as some clip; in each epoch others, at other
    levels.
    """

    passed = ("skipped", "stream", "overlap")

    def __init__(
        self,
        clips: Split,
        negatives: Negatives,
        held_out: Negatives,
        label: int,
        alone: float,
        background: int,
    ) -> None:
        """``held_out``: what thresholds are chosen on; ``label``: the class of negatives; ``alone``: windows for each
        clip; ``background``: the class in which nothing is.
        """
        super().__init__(clips)
        self.negatives, self.held_out = negatives, held_out
        self.label, self.silent = label, label == background
        self.count = round(alone * len(clips)) if negatives.samples else 0

    def __len__(self) -> int:
        return len(self.split) + self.count

    def __getattr__(self, name: str) -> Any:
        added = {"classes": self.label, "names": NAME, "groups": ""}
        if name in added:
            return [*getattr(self.split, name), *[added[name]] * self.count]
        return super().__getattr__(name)

    def __getitem__(self, index: int) -> Sample | None:
        if index < len(self.split):
            return self.split[index]
        rng = np.random.default_rng([self.epoch, index])
        if (like := self.split[int(rng.integers(len(self.split)))]) is None:
            return None
        wave = self.negatives.draw(rng, len(like.x[0]))
        spans = [] if self.silent else [(0, len(wave), self.label)]
        return Sample((wave * np.float32(10 ** (rng.uniform(*LEVELS) / 20)),), (self.label,), spans, NAME)


def share_out(files: Sequence[Path], rate: int, keep: Path | None, seed: int = 0) -> dict[str, Negatives]:
    """The negatives of each split in ``SHARES``. What cannot be read is told; ConfigError if nothing is left."""
    found: dict[str, list[Stretch]] = {name: [] for name in SHARES}
    whole = len(files) >= MANY
    edges = np.cumsum([0.0, *SHARES.values()])
    order = np.random.default_rng(seed).permutation(len(files))
    for number, place in enumerate(order.tolist()):
        try:
            recording = Recording(files[place], rate, keep)
            free = free_stretches(recording)
        except MediaError as error:
            tell("dataset.negatives", f"skipped {files[place]}: {error}")
            continue
        for index, name in enumerate(SHARES):
            low, high = edges[index : index + 2]
            if whole and low <= (number + 0.5) / len(files) < high:
                found[name] += free
            elif not whole:
                first, last = (round(share * recording.samples) for share in (low, high))
                cut = [Stretch(recording, max(one.start, first), min(one.end, last)) for one in free]
                found[name] += [one for one in cut if one.end > one.start]
    if not found["train"]:
        raise ConfigError("dataset.negatives: none of the recordings can be read; see the warnings above")
    return {name: Negatives(stretches) for name, stretches in found.items()}


def free_stretches(recording: Recording) -> list[Stretch]:
    """All of a recording but the events of the table beside it."""
    truth, rate = find_truth(Path(recording.path)), recording.rate
    events = read_truth(truth, "dataset.negatives") if truth.exists() else []
    if late := beyond_end(events, recording.seconds):
        tell("dataset.negatives", f"{truth}: {late}")
    found, position = [], 0
    for begin, end, _ in [*sorted(events), (recording.seconds + ROOM_SECONDS, 0.0, "")]:
        start = min(round((begin - ROOM_SECONDS) * rate), recording.samples)
        if start > position:
            found.append(Stretch(recording, position, start))
        position = max(position, round((end + ROOM_SECONDS) * rate))
    return found
