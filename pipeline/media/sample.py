"""What training is fed: samples, batches, and what any dataset offers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.media.input_spec import Arrays, InputSpec

Span = tuple[int, int, int]  # start and end in ticks, class
IGNORE = -100  # target of a step whose class is not known (torch's ignore_index)


@dataclass(frozen=True)
class Sample:
    """A clip in memory: its tracks ``x`` (see ``input_spec.py``), its ``labels`` (the class; all that is in it; none:
    nothing), and where they stand. ``spans`` may overlap. None: not known; empty: it is known to hold nothing.
    ``values (N, Q)``: what is measured, of N equal parts of the clip one after another, or of it as a whole (N = 1);
    NaN is not known.
    """

    x: Arrays
    labels: tuple[int, ...]
    spans: list[Span] | None = None
    name: str = ""
    key: str = ""  # of a clip that is the same in every epoch
    group: str = ""  # whose clips are alike (a speaker, a place), if known
    copy: int | None = None  # of a clip that has fixed copies, all but 0 of which are changed: which of them it is
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class StepGrid:
    """The steps of a model's answers: how many there are, and the ticks of each. Step t answers for the ``hop`` ticks
    that end ``delay`` steps before it.
    """

    count: int
    hop: int
    delay: int

    def of(self, ticks: int) -> slice:
        """Those that answer for a clip of so many ticks."""
        return slice(self.delay, self.delay + -(-ticks // self.hop))


@dataclass(frozen=True)
class Batch:
    """Right-padded clips: ``x`` with ``(B, steps, ...)`` per track; ``lengths (B,)`` in ticks; labels, spans in ticks,
    names, keys, groups, copies and values by row.
    """

    x: tuple[Tensor, ...]
    lengths: Tensor
    labels: list[tuple[int, ...]]
    spans: list[list[Span] | None]
    names: list[str]
    keys: list[str]
    groups: list[str]
    copies: list[int | None] = field(default_factory=list)
    values: list[NDArray[np.float32] | None] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """Between processes as arrays: torch puts tensors into /dev/shm, of which containers have little."""
        return vars(self) | {"x": [track.numpy() for track in self.x], "lengths": self.lengths.numpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        tensors = {"x": tuple(map(torch.from_numpy, state["x"])), "lengths": torch.from_numpy(state["lengths"])}
        vars(self).update(state | tensors)

    def targets(self, steps: StepGrid, background: int | None) -> Tensor:
        """The class of every output step, ``(B, T)``: ``background`` outside the spans, ``IGNORE`` if unknown. Every
        event owns at least one step.
        """
        target = torch.full((len(self.labels), steps.count), IGNORE)
        for row, spans, length in zip(target, self.spans, self.lengths.tolist(), strict=True):
            if spans is not None:
                if background is not None:
                    row[steps.of(length)] = background
                own_steps(row, spans, steps, length)
        return target


def own_steps(target: Tensor, spans: Sequence[Span], steps: StepGrid, length: int) -> None:
    """Write the class of each event of a clip of ``length`` ticks into ``target (T,)``: of every step whose middle the
    event covers.

    An event that covers none has the step whose middle is nearest to its own; of events with a single step in common,
    the longest has it.
    """
    target, hop, count = target[steps.delay :], steps.hop, -(-length // steps.hop)
    brief, alone = [], dict[int, int]()  # alone: length of the event that has this step and no other
    for start, end, label in spans:
        first, last = round(start / hop), round(end / hop)
        target[first:last] = label
        if first == last:
            brief.append((min((start + end) // (2 * hop), count - 1), end - start, label))
        elif last - first == 1:
            alone[first] = end - start
    for step, ticks, label in brief:
        if ticks > alone.get(step, -1):
            target[step], alone[step] = label, ticks


class Split(Protocol):
    """One split of a dataset. ``epoch`` chooses the random draws of a split that makes or cuts its sounds: a clip
    depends on the epoch and its number alone, so that a training can go on anywhere. A split that knows the class of
    each clip in advance has them as ``classes`` (a tuple for a clip of several labels, or none); one in which labels
    overlap says where, as ``overlap``; one that reads files says which, as ``names``, of which ``groups`` ('' if
    unknown), and how many of them it has left out as they cannot be read, as ``skipped``.
    """

    epoch: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample | None: ...


def forwarded(name: str) -> Any:
    """An attribute that is that of ``self.split``, also when it is set. AttributeError if that has none."""
    return property(lambda self: getattr(self.split, name), lambda self, value: setattr(self.split, name, value))


class Derived:
    """Base of splits that are made of another one: they have its length, and know of it what is ``passed`` on. What a
    training sets, goes on to it: the epoch, and ``done`` (``datasets/copies.py``) if it asks for that.
    """

    passed: tuple[str, ...] = ("classes", "names", "groups", "skipped")
    epoch: int = forwarded("epoch")
    done: Any = forwarded("done")

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getattr__(self, name: str) -> Any:
        if name in self.passed:  # if the other one knows
            return getattr(self.split, name)
        raise AttributeError(name)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | None:
        raise NotImplementedError


class Dataset(Protocol):
    """A dataset: its labels, the one that means "nothing" (if any), and its splits."""

    labels: list[str]
    background: str | None

    def split(self, name: str, spec: InputSpec) -> Split:
        """``train``, ``val`` or ``test`` as a model takes it; ``test`` may be empty."""
        ...


def collate(samples: Sequence[Sample | None], spec: InputSpec) -> Batch | None:
    """A batch of the samples that could be read; None if none could."""
    good = [sample for sample in samples if sample is not None]
    if not good:
        return None
    lengths = torch.tensor([spec.ticks(sample.x) for sample in good])
    rows = tuple(map(torch.from_numpy, spec.stack([sample.x for sample in good])))
    texts = ([getattr(sample, name) for sample in good] for name in ("name", "key", "group", "copy", "values"))
    return Batch(rows, lengths, [sample.labels for sample in good], [sample.spans for sample in good], *texts)
