"""Changed copies of each clip, the same in every epoch: what a costly extractor makes of them is computed once."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from datasets.negatives import NAME
from pipeline.media.sample import Sample, Split


class Copies(Dataset[Sample | None]):
    """The clips of a split, and ``count`` changed copies of all of them. Copy c shows a clip as the split would in its
    epoch c, cut or in a scene, and training changes it by its augmentation, always in the same way. The clip itself,
    copy 0, is in no scene. Windows of negatives are drawn again whenever hard ones were found.

    ``done(key, copy)``: whether the features of a copy are kept, so that its samples are not needed again.
    """

    done: Callable[[str, int], bool] | None = None

    def __init__(self, clips: Split, plain: Split, count: int, drawn: str) -> None:
        """``plain``: the clips in no scene. ``drawn``: names what their cuts and scenes are drawn from."""
        self.clips, self.plain, self.count, self.drawn, self.epoch = clips, plain, count, drawn, 0
        self.known: dict[int, Sample] = {}
        self.negatives = getattr(clips, "negatives", None)
        self.hard: list[tuple[int, int]] = []  # of the negatives when they were drawn

    def __len__(self) -> int:
        return len(self.clips) * (self.count + 1)

    def __getattr__(self, name: str) -> Any:
        if name in ("classes", "names", "groups"):  # if the clips know
            return getattr(self.clips, name) * (self.count + 1)
        if name == "skipped":
            return self.clips.skipped  # type: ignore[attr-defined]
        raise AttributeError(name)

    def __getitem__(self, index: int) -> Sample | None:
        if self.negatives and self.negatives.hard != self.hard:
            self.hard = self.negatives.hard
            self.known = {number: sample for number, sample in self.known.items() if sample.name != NAME}
        known = self.known.get(index)
        if known and self.done and self.done(known.key, known.copy or 0):
            return known
        self.clips.epoch, number = divmod(index, len(self.clips))
        if (sample := (self.clips if self.clips.epoch else self.plain)[number]) is None:
            return None
        key = sample.key or f"{self.drawn} {number}"
        if sample.name == NAME:
            key += f" {zlib.crc32(repr(self.hard).encode())}"
        sample = replace(sample, key=f"{key} copy {self.clips.epoch}", copy=self.clips.epoch)
        self.known[index] = replace(sample, x=tuple(track[:0].copy() for track in sample.x))
        return sample
