"""Recordings of any length with the times of what is in them, which may overlap; or only with what is in them."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveFloat

from datasets.clips import Clip, Share, cache_folder, check_splits, existing_root
from datasets.labels import tell_alike
from datasets.scenes import SceneSettings
from datasets.splits import choose_splits
from datasets.surroundings import Surroundings
from datasets.truths import GROUP, Event, Truth, read_all, read_beside
from datasets.windows import AnnotatedRecording, Windows
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.progress import bar
from pipeline.media.annotations import SLACK_SECONDS
from pipeline.media.input_spec import InputSpec
from pipeline.media.recording import Recording
from pipeline.media.sample import Split
from pipeline.media.tables import to_label
from pipeline.media.walk import tell


class AnnotatedRecordings:
    """The recordings of a table, or those of a folder, each with a table beside it (see ``truths.py``)."""

    def __init__(
        self,
        root: str | None = None,
        file: str | None = None,
        group: str = GROUP,
        splits: dict[str, list[str]] | None = None,
        fold: str | None = None,
        val: Share = 0.15,
        test: Share = 0.15,
        seed: int = 0,
        crop: PositiveFloat = 10.0,
        events: Annotated[float, Field(ge=0, le=1)] = 0.7,
        cache: str | None = "default",
        background: str | None = None,
        scene: SceneSettings | None = None,
        negatives: str | list[str] | None = None,
        negatives_label: str | None = None,
    ) -> None:
        """``file``: a table, relative to ``root``; None: a table beside each recording. ``group`` (a column, used if it
        is there), ``splits``, ``fold``, ``val``, ``test`` and ``seed`` are those of ``Manifest``, but a recording is
        never parted. ``crop``: seconds of a window; ``events``: see ``Windows``. ``cache``: a folder where recordings
        are kept decoded (see ``Recording``), ``default`` or None. ``background``: the label that means nothing.
        ``scene``, ``negatives`` and ``negatives_label`` are those of ``Corpus``.

        ConfigError for truths that make no sense, and as of ``check_splits``.
        """
        folder = existing_root(root, "a folder of recordings, with a table of what is in them")
        quiet = to_label(background) if background else "background" if negatives else None
        self.key = "dataset.file" if file else "dataset.root"
        if file:
            truths = read_all(folder / file, folder, group, quiet)
        elif group != GROUP:
            raise ConfigError(f"dataset.group: {group!r} is a column of a table of all recordings; set dataset.file")
        else:
            truths = read_beside(folder, quiet)
        clips = [Clip(one.path, "", one.split, group=one.group, words=one.labels) for one in truths]
        drawn = choose_splits(clips, splits, fold, [clip.unit for clip in clips], val, test, seed, background="")
        check_splits(drawn)
        places = {clip.path: clip.split for clip in drawn}
        self.truths = [replace(one, split=places[one.path]) for one in truths if one.path in places]
        labels = {label for clip in drawn for label in clip.labels}
        self.around = Surroundings(sorted(labels), quiet, scene, negatives, negatives_label)
        self.background = self.around.background
        self.labels = sorted(labels | {self.background or ""} - {""})
        tell_alike(self.labels, self.key)
        self.crop, self.events, self.cache = crop, events, cache_folder(cache)

    def split(self, name: str, spec: InputSpec) -> Split:
        """The windows of ``train``, ``val`` or ``test``; ConfigError if none of its recordings, or of a label in train,
        can be read, or events begin behind the end of one.
        """
        rate = spec.require_sound("dataset=annotated")
        truths = [truth for truth in self.truths if truth.split == name]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda truth: self.open(truth, rate), truths)
            opened = list(bar(found, f"reading {name}", len(truths)))
        parts = [self.annotate(one, truth) for one, truth in zip(opened, truths, strict=True) if one is not None]
        if truths and not parts:
            raise ConfigError(f"{self.key}: none of the {len(truths)} {name} recordings can be read; see the warnings")
        listed, there = ({label for one in some for label in one.labels} for some in (truths, [p.truth for p in parts]))
        if name == "train" and (lost := sorted(listed - there)):
            raise ConfigError(f"{self.key}: no {name} recording of {', '.join(map(repr, lost))} can be read")
        size = round(self.crop * rate)
        windows = Windows(parts, size, name == "train", self.events)
        windows.skipped = len(truths) - len(parts)
        return windows if name == "test" else self.around.surround(windows, name, self.labels, rate, self.cache)

    def open(self, truth: Truth, rate: int) -> Recording | None:
        """A recording; None, which is told, if it cannot be read, or holds nothing."""
        try:
            if (found := Recording(truth.path, rate, self.cache)).samples:
                return found
            reason = "it holds no sound"
        except MediaError as error:
            reason = str(error)
        tell(self.key, f"skipped {truth.path}: {reason}")
        return None

    def annotate(self, recording: Recording, truth: Truth) -> AnnotatedRecording:
        """A recording with its truth in samples. What ends behind its end is told, and cut there."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        labels = tuple(sorted(numbers[label] for label in truth.labels))
        if truth.events is None:
            return AnnotatedRecording(recording, truth, labels, None)
        self.check_ends(truth.table, truth.events, truth.path, recording.seconds)
        rate, most = recording.rate, recording.samples
        edges = ((round(one.start * rate), min(round(one.end * rate), most), one.label) for one in truth.events)
        spans = [(begin, end, numbers[label]) for begin, end, label in edges if begin < end]
        return AnnotatedRecording(recording, truth, labels, np.array(spans, np.int64).reshape(-1, 3))

    def check_ends(self, table: Path, events: Sequence[Event], path: Path, seconds: float) -> None:
        """Tell which events end behind the recording's end; ConfigError if one begins there."""
        for event in events:
            if event.start >= seconds + SLACK_SECONDS:
                raise ConfigError(
                    f"{self.key}: {table} row {event.row}: {event.start:g} to {event.end:g} is behind the end of "
                    f"{path.name} ({seconds:.2f} s); expected seconds, not milliseconds or samples"
                )
        if late := [event for event in events if event.end > seconds + SLACK_SECONDS]:
            rows = ", ".join(str(event.row) for event in late[:5]) + (", ..." if len(late) > 5 else "")
            text = f"{table}: events that end behind the end of {path.name} ({seconds:.2f} s) are cut there: row {rows}"
            tell(self.key, text)
