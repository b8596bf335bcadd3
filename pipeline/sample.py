"""What training is fed: samples, batches, and what any dataset offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.media import Samples

Span = tuple[int, int, int]  # start and end in samples, class
IGNORE = -100  # target of a step whose class is not known (torch's ignore_index)


@dataclass(frozen=True)
class Sample:
    """A clip in memory: mono float32 ``wave (N,)``, its class ``label``, and where it stands in the clip if known."""

    wave: Samples
    label: int
    spans: list[Span] | None = None
    name: str = ""


@dataclass(frozen=True)
class Batch:
    """Right-padded clips: ``waves (B, N)``, ``lengths (B,)`` in samples, ``labels (B,)``; spans and names by row."""

    waves: Tensor
    lengths: Tensor
    labels: Tensor
    spans: list[list[Span] | None]
    names: list[str]

    def targets(self, steps: int, hop: int, delay: int, background: int | None) -> Tensor:
        """The class of every output step, ``(B, steps)``: ``background`` outside the spans, ``IGNORE`` if unknown.

        Step t answers for the ``hop`` samples that end ``delay`` steps before it.
        """
        target = torch.full((len(self.labels), steps), IGNORE)
        for row, spans in enumerate(self.spans):
            if spans is None:
                continue
            if background is not None:
                target[row, delay : delay + -(-int(self.lengths[row]) // hop)] = background
            for start, end, label in spans:
                target[row, delay + round(start / hop) : delay + round(end / hop)] = label
        return target


class Split(Protocol):
    """One split of a dataset. ``epoch`` chooses the random draws of a split that makes or cuts its sounds."""

    epoch: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample | None: ...


class Source(Protocol):
    """A dataset: its labels, the one that means "nothing" (if any), and its splits."""

    labels: list[str]
    background: str | None

    def split(self, name: str, rate: int) -> Split:
        """``train``, ``val`` or ``test`` at ``rate`` Hz; ``test`` may be empty."""
        ...


def collate(samples: Sequence[Sample | None]) -> Batch | None:
    """A batch of the samples that could be read; None if none could."""
    good = [sample for sample in samples if sample is not None]
    if not good:
        return None
    lengths = [len(sample.wave) for sample in good]
    waves = torch.zeros(len(good), max(lengths))
    for row, sample in enumerate(good):
        waves[row, : len(sample.wave)] = torch.from_numpy(sample.wave)
    labels = torch.tensor([sample.label for sample in good])
    return Batch(waves, torch.tensor(lengths), labels, [s.spans for s in good], [s.name for s in good])
