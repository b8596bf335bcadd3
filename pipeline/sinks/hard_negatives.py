"""Sounds that the model took for something, cut out of recordings that hold nothing: what to train it on next."""

import csv
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import soundfile
from pydantic import Field, NonNegativeFloat, PositiveInt

from pipeline.core.atomic import atomic_write
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.journal import Journal
from pipeline.core.spreadsheet import unprotect
from pipeline.core.text import clean, slug
from pipeline.media.annotations import Times, beyond_end, find_truth, read_truth
from pipeline.media.audio import Samples, open_blocks, probe
from pipeline.sinks.items import FileResult, Item, StreamInfo, TimedEvent
from pipeline.sinks.sink import Sink
from pipeline.sinks.text import Table

TABLE = "hard_negatives.csv"
COLUMNS = ("path", "label", "group", "recording", "from", "to", "answer", "score")
BACKGROUND = "background"  # the label of nothing, where a model has none


class Cut(NamedTuple):
    """A part of a recording, in seconds, with the label and the score of the surest wrong answer in it."""

    start: float
    end: float
    answer: str
    score: float


@dataclass(eq=False)
class HardNegatives(Sink):
    """Cuts false alarms out of the recordings as they are on the disk: ``PATH/LABEL/RECORDING_SECONDS.wav``, at the
    recording's own rate, mono. ``PATH/hard_negatives.csv`` lists all that are in the folder, with those of earlier
    runs, as ``dataset=manifest`` reads it.

    An event is false if it has no part in common with a true one; no cut reaches into a true one, or into another. Of
    the sound, one cut is held in memory at a time; the recordings are read a second time, once they are answered.

    ``label``: the folder in ``path`` (None: the model's label of nothing, or else ``background``). Around an event
    ``context`` seconds are kept; what lasts more than ``longest`` seconds is cut into pieces. Of those of a recording,
    the ``most`` with the highest scores are taken. ``truth``: a table with start, end, label (seconds) of what is
    really there, or labels of Audacity; beside: NAME.csv or NAME.txt beside NAME.wav, if there is one; None: nothing is
    there.

    ConfigError if the list in ``path`` is another table, OSError if it could not be written.
    """

    path: str = "hard_negatives"
    label: str | None = None
    context: NonNegativeFloat = 0.5
    longest: Annotated[float, Field(ge=0.1)] = 5.0
    most: PositiveInt = 200
    truth: str | None = "beside"

    files = True

    def __post_init__(self) -> None:
        self.folder = Path(self.path).expanduser()
        if self.label is not None:
            check_folder_name(self.label)
        self.journal = Journal(str(self.folder / TABLE), None)
        self.journal.whole = True
        self.outputs = (self.folder / TABLE,)
        self.rows = {row["path"]: row for row in listed(self.folder / TABLE)}
        self.background = {BACKGROUND}
        self.events: list[TimedEvent] = []  # of a stream
        self.cuts, self.recordings, self.seconds_cut = 0, 0, 0.0

    def setup(self, labels: list[str], background: list[str]) -> None:
        """Which labels are background. ConfigError if the one of the cuts cannot be a folder."""
        self.background = {*background, BACKGROUND}
        self.label = self.label or next(iter(background), BACKGROUND)
        check_folder_name(self.label)
        if self.label not in labels:
            print(
                f"the model has no label {self.label!r}: trained with that folder it will have it, and make no events "
                "of it" + ("" if self.label == BACKGROUND else f" with decoder.background=[{self.label}]"),
                file=sys.stderr,
            )

    def start(self, stream: StreamInfo) -> None:
        """ConfigError if the stream is no file, which could not be cut, or its truth makes no sense."""
        if not Path(stream.name).is_file():
            raise ConfigError("sink.hard_negatives: cuts files; record first, then source=file source.path=RECORDING")
        truth_of(stream.name, self.truth)  # what is wrong with it shows now, not after the stream
        super().start(stream)

    def write(self, item: Item) -> None:
        """Keep the events of a stream, cut those of a file, unless its label is something: then it holds that."""
        match item:
            case TimedEvent():
                self.events.append(item)
            case FileResult() if item.status != "error" and item.truth in {"", *self.background}:
                self.mine(item.path, item.events or (), (item.start, item.end or np.inf))

    def mine(self, recording: str, events: Sequence[TimedEvent], bounds: tuple[float, float] = (0.0, np.inf)) -> None:
        """Cut the false ones of these events out of a recording, within ``bounds`` in seconds."""
        if self.truth not in (None, "beside") and self.recordings:
            raise ConfigError("sink.hard_negatives.truth: is of one recording; for more of them take beside, or null")
        cuts = false_alarms(events, truth_of(recording, self.truth), self.context, bounds)
        self.recordings += 1
        name = slug(Path(recording).stem, str(Path(recording).resolve()), only_ascii=True)
        assert self.label is not None
        parts = with_highest_scores([piece for one in cuts for piece in pieces(one, self.longest)], self.most)
        for cut, samples, rate in cut_out(recording, parts):
            place = Path(self.label) / f"{name}_{cut.start:08.2f}.wav"
            write_wav(self.folder / place, samples, rate)
            origin = {"group": name, "recording": recording, "from": f"{cut.start:.3f}", "to": f"{cut.end:.3f}"}
            answer = {"answer": clean(cut.answer), "score": f"{cut.score:.4f}"}
            self.rows[str(place)] = {"path": str(place), "label": self.label, **origin, **answer}
            self.cuts += 1
            self.seconds_cut += len(samples) / rate

    def finish(self) -> None:
        """Write the table, and a line for people."""
        table = Table(self.journal)
        table.head(COLUMNS)
        for row in self.rows.values():
            if (self.folder / row["path"]).is_file():
                table.write(row)
        self.journal.finish()
        place = self.folder / (self.label or BACKGROUND)
        cuts = f"hard negatives: {self.cuts} ({self.seconds_cut:.0f} s), of recordings: {self.recordings}; in {place}"
        print(cuts, file=sys.stderr)

    def close(self) -> None:
        """The end of a stream: what was found is cut out."""
        try:
            if self.stream:
                stream, self.stream = self.stream, None
                self.mine(stream.name, self.events)
                self.finish()
        finally:
            self.journal.close()


def check_folder_name(label: str) -> None:
    """ConfigError for a label, perhaps a hostile model's, that cannot be the name of a folder."""
    if Path(label).name != label or label == ".." or "\0" in label:
        raise ConfigError(f"sink.hard_negatives.label: got {label!r}; expected the name of a folder")


def listed(path: Path) -> list[dict[str, str]]:
    """What a list names already. ConfigError if it is none of ours."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ConfigError(f"sink.hard_negatives.path: {path} is another table; choose another folder")
        rows = [{key: unprotect(value or "") for key, value in row.items() if key} for row in table]
    return [row for row in rows if not Path(row["path"]).is_absolute() and ".." not in Path(row["path"]).parts]


def truth_of(recording: str, truth: str | None) -> list[Times]:
    """What is really in a recording, in order of its start."""
    path = find_truth(Path(recording)) if truth == "beside" else truth
    if path is None or (truth == "beside" and not Path(path).is_file()):
        return []
    events = read_truth(path, "sink.hard_negatives.truth")
    with suppress(MediaError):
        if late := beyond_end(events, probe(recording).length):
            warnings.warn(f"sink.hard_negatives.truth: {path}: by the recording's header {late}", stacklevel=2)
    return sorted(events)


def false_alarms(
    events: Iterable[TimedEvent], truth: Sequence[Times], context: float, bounds: tuple[float, float]
) -> list[Cut]:
    """The false events with ``context`` seconds around them, as parts to cut out in order of time; those as one whose
    surroundings would meet. A part ends at the ``bounds``, at a true event, and at another part.
    """
    edges = np.array([span[:2] for span in truth], float).reshape(-1, 2)
    found: list[Cut] = []
    for event in sorted(events, key=lambda event: (event.start, event.end)):
        start, end = event.start, event.end
        if ((edges[:, 0] < end) & (edges[:, 1] > start)).any():
            continue
        cut = Cut(start, end, event.label, event.score)
        last = found[-1] if found else None
        between = last is not None and ((edges[:, 0] >= last.end) & (edges[:, 1] <= start)).any()
        if last is not None and start - last.end < 2 * context and not between:
            best = max(last, cut, key=lambda one: one.score)
            found[-1] = best._replace(start=last.start, end=max(last.end, end))
        else:
            found.append(cut)
    result = []
    for cut in found:
        low = max([bounds[0], cut.start - context, *edges[edges[:, 1] <= cut.start, 1]])
        high = min([bounds[1], cut.end + context, *edges[edges[:, 0] >= cut.end, 0]])
        result.append(cut._replace(start=float(low), end=float(high)))
    return result


def with_highest_scores(cuts: Sequence[Cut], most: int) -> list[Cut]:
    """The ``most`` cuts with the highest scores, of equal ones the first, in order of time."""
    return sorted(sorted(cuts, key=lambda cut: -cut.score)[:most])


def pieces(cut: Cut, longest: float) -> list[Cut]:
    """A part as equal parts of at most ``longest`` seconds."""
    count = max(1, int(np.ceil((cut.end - cut.start) / longest - 1e-9)))
    edges = np.linspace(cut.start, cut.end, count + 1).tolist()
    return [cut._replace(start=start, end=end) for start, end in pairwise(edges)]


def cut_out(recording: str, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, Samples, int]]:
    """Each cut with its samples ``(N,)`` and their rate, in one pass through the recording; nothing of one that lies
    behind its end. MediaError if it cannot be read.
    """
    if not cuts:
        return
    rate = probe(recording).rate
    _, blocks = open_blocks(recording, rate)
    held, first = np.zeros(0, np.float32), 0  # its first sample's number
    for cut in sorted(cuts):
        low, high = round(cut.start * rate), round(cut.end * rate)
        while first + len(held) < high and (block := next(blocks, None)) is not None:
            held = np.concatenate([held, block])
            passed = min(len(held), max(0, low - first))
            held, first = held[passed:], first + passed
        samples = held[max(0, low - first) : high - first]
        if len(samples) == high - low:
            yield cut, samples, rate
        elif len(samples):  # it ends with the recording
            yield cut._replace(end=cut.start + len(samples) / rate), samples, rate


def write_wav(path: Path, samples: Samples, rate: int) -> None:
    """A wav file of 16 bits, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        soundfile.write(file, samples, rate, subtype="PCM_16", format="WAV")
