"""From a dataset's labels to the columns of a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.media.sample import Derived, Sample, Split


class InColumns(Derived):
    """A split whose labels are those of a model's columns. What has no column means nothing."""

    passed = ("names", "groups", "skipped", "negatives", "held_out")

    def __init__(self, split: Split, places: Mapping[int, int], nothing: tuple[int, ...]) -> None:
        """``places``: the column of each label that has one; ``nothing``: the columns of a clip without labels."""
        super().__init__(split)
        self.places, self.nothing = places, nothing
        self.known = list[str]()  # names of labels, where they are not columns

    def __getattr__(self, name: str) -> Any:
        if name == "classes":
            known = ((one,) if isinstance(one, int) else one for one in self.split.classes)  # type: ignore[attr-defined]
            return [self.columns(labels) for labels in known]
        if name == "stream" and hasattr(self.split, name):
            return lambda: InColumns(self.split.stream(), self.places, self.nothing)  # type: ignore[attr-defined]
        return super().__getattr__(name)

    def columns(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """The columns of some labels."""
        return tuple(self.places[label] for label in labels if label in self.places) or self.nothing

    def __getitem__(self, index: int) -> Sample | None:
        sample = self.split[index]
        if sample is None:
            return None
        spans = sample.spans
        if spans is not None:
            spans = [(start, end, self.places[label]) for start, end, label in spans if label in self.places]
        return replace(sample, labels=self.columns(sample.labels), spans=spans)
