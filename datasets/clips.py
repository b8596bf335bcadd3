"""What every dataset of files is made of: clips, their splits, and a cache.

A dataset (folder, manifest, a named corpus) lists its clips with label and split; ``Corpus`` checks the list, decodes
once into a cache, and hands out ``Clips`` for training.
"""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveFloat
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.utils.data import Dataset

from datasets.copies import Copies
from datasets.energy import draw_start, find_sounds
from datasets.scenes import Scenes, SceneSettings, SceneStream
from datasets.strings import Composed
from datasets.surroundings import Surroundings
from pipeline.core.atomic import atomic_write, cache_path, digest
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.progress import bar
from pipeline.core.text import clean
from pipeline.media.annotations import SLACK_SECONDS
from pipeline.media.chunks import open_chunks, read_chunk
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.recording import fingerprint
from pipeline.media.sample import Sample, Split
from pipeline.media.walk import tell

SPLITS = ("train", "val", "test")
HINTS = {  # by the error's code: what to take for files of another kind
    "no_video": "they are sounds, and the model takes pictures: set extractor=logmel encoder=conv_recurrent "
    "augment=light",
    "no_audio": "they have no sound, and the model takes sound: set extractor=optical_flow encoder=image_recurrent "
    "augment=pictures",
}
MAX_WARNINGS = 3  # where not one clip can be read
Share = Annotated[float, Field(ge=0, lt=1)]
CACHE_FOLDER = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rivulet" / "clips"


@dataclass(frozen=True, slots=True)  # slots: there may be millions
class Clip:
    """A labelled recording, or its part from ``start`` to ``end`` seconds. Clips of a ``group`` share a split, where
    splits are drawn also those of one recording. A clip may have any number of labels instead: its ``words``.
    """

    path: Path
    label: str
    split: str = ""
    start: float = 0.0
    end: float | None = None
    group: str = ""
    speaker: str = ""  # whose clips are put together to strings, if not those of a group
    values: tuple[float, ...] | None = None  # of quantities that are measured
    words: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """All that it has."""
        return (self.label,) if self.words is None else self.words

    @property
    def name(self) -> str:
        """Which recording it is, for people and as a key."""
        return str(self.path)

    @property
    def unit(self) -> str:
        """What is never parted by splits: its group, or else its recording."""
        return self.group or self.name

    def fingerprint(self) -> str:
        """Which bytes they are: of another file, or a changed one, it is another. MediaError without a file."""
        return fingerprint(self.path)

    def check(self, spec: InputSpec) -> None:
        """MediaError if its header says that a model cannot take it. Nothing is decoded."""
        open_chunks(self.path, spec, self.start, self.end)

    def seconds(self, spec: InputSpec) -> float | None:
        """The recording's length by its header; None if that does not tell."""
        try:
            return open_chunks(self.path, spec)[0].length
        except MediaError:
            return None

    def read(self, spec: InputSpec) -> Arrays:
        """Decoded, as a model takes it. MediaError if it cannot be read."""
        return read_chunk(self.path, spec, self.start, self.end)[0]


class Clips(Dataset[Sample | None]):
    """Clips of one split as a model takes them, decoded once and cached as plain arrays.

    A clip that cannot be read is reported by name and skipped; training goes on.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[str],
        spec: InputSpec,
        cache: Path | None = None,
        crop: float | None = None,
        background: str | None = None,
    ) -> None:
        """``crop`` seconds are cut at random from longer clips (see ``draw_start``); None keeps them whole.
        With a ``background`` label, the times of each clip's sound are found by its energy.
        """
        self.index = {label: number for number, label in enumerate(labels)}
        self.clips, self.spec, self.cache, self.background = list(clips), spec, cache, background
        self.crop = round(crop * spec.rate / spec.grain) * spec.grain if crop else None
        self.scene: SceneSettings | None = None  # in which they are shown in training, and heard as a stream
        self.epoch = 0
        self.skipped = 0  # clips that ``drop_unreadable`` has dropped
        self.last_failure = ""

    def stream(self) -> Split:
        """What a model listens to, of these clips: them in noise if there are scenes, else themselves."""
        return SceneStream(*self.scene_parts()) if self.scene else self

    def scene_parts(self) -> tuple[Split, SceneSettings, int, int]:
        """What scenes are made of: clips, settings, the class of the background, and the rate."""
        assert self.scene is not None and self.background is not None
        return self, self.scene, self.index[self.background], self.spec.require_sound("dataset.scene")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def classes(self) -> list[int | tuple[int, ...]]:
        return [self.index[clip.label] if clip.words is None else self.numbers(clip) for clip in self.clips]

    @property
    def names(self) -> list[str]:
        """Each clip's recording, part and label."""
        return [f"{clip.name}@{clip.start}-{clip.end} {clip.label}" for clip in self.clips]

    @property
    def groups(self) -> list[str]:
        """The group of each clip, '' where it is unknown."""
        return [clip.group for clip in self.clips]

    def __getitem__(self, index: int) -> Sample | None:
        clip, spec = self.clips[index], self.spec
        try:
            x = self.load(clip)
        except MediaError as error:
            warnings.warn(skip_message(clip, error), stacklevel=2)
            return None
        key = f"{clip.name}@{clip.start}-{clip.end}"
        spare = spec.ticks(x) - self.crop if self.crop else 0
        if self.crop and spare > 0:
            key = ""  # another cut each time
            rng = np.random.default_rng([self.epoch, index])
            if spec.sound and clip.label != self.background:
                start = draw_start(rng, x[0], self.crop, spec.grain)
            else:
                start = int(rng.integers(spare // spec.grain + 1)) * spec.grain
            x = spec.cut(spec.cut(x, start)[1], self.crop)[0]
        labels: tuple[int, ...] = self.numbers(clip)
        spans = None
        if self.background and spec.sound:
            quiet = clip.label == self.background or not labels or not x[0].any()
            several = bool(self.scene and (self.scene.together or self.scene.strings))
            spans = [] if quiet else [(*times, labels[0]) for times in find_sounds(x[0], spec.sound, several)]
        values = None if clip.values is None else np.array([clip.values], np.float32)
        return Sample(x, labels, spans, clip.name, key, clip.group, values=values)

    def numbers(self, clip: Clip) -> tuple[int, ...]:
        """The labels of a clip, in their order; a clip of which something is measured has none."""
        return tuple(self.index[label] for label in clip.labels if label in self.index)

    def load(self, clip: Clip) -> Arrays:
        """A clip's tracks, from the cache if they are there."""
        if self.cache is None:
            return clip.read(self.spec)
        file = self.cache_file(clip)
        try:
            tracks = load(file.read_bytes())
            return tuple(tracks[name] for name in self.track_names)
        except (OSError, SafetensorError, KeyError):  # not there yet, or half-written by a full disk
            x = clip.read(self.spec)
            write_cache(file, dict(zip(self.track_names, x, strict=True)))
            return x

    @property
    def track_names(self) -> list[str]:
        """The names of the tracks in the cache."""
        return [f"track{number}" for number in range(len(self.spec.tracks))]

    def cache_file(self, clip: Clip) -> Path:
        """Where a clip is cached: another file, part or rate is another place."""
        assert self.cache is not None
        return cache_path(self.cache, f"{clip.fingerprint()}|{clip.start}|{clip.end}|{self.spec}", ".safetensors")

    def drop_unreadable(self, title: str) -> None:
        """Fill the cache with what it lacks, with a progress bar, and drop what cannot be read. Without a cache, only
        the headers of the files are read.
        """
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(self.failure, self.clips)
            found = list(bar(results, f"reading {title}", len(self.clips)))
        failed = [skip_message(clip, error) for clip, error in zip(self.clips, found, strict=True) if error]
        for text in failed[:MAX_WARNINGS] if len(failed) == len(found) else failed:  # all for one reason, most likely
            warnings.warn(text, stacklevel=2)
        self.clips = [clip for clip, error in zip(self.clips, found, strict=True) if not error]
        self.skipped += len(failed)
        self.last_failure = failed[-1] if failed else ""
        self.tell_short(title)

    def tell_short(self, title: str) -> None:
        """Say how many parts end behind the end of their recordings, by their headers."""
        parts = {clip.path: clip for clip in self.clips if clip.end is not None}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            lengths = dict(zip(parts, pool.map(lambda clip: clip.seconds(self.spec), parts.values()), strict=True))
        ends = [(clip.end or 0.0, lengths.get(clip.path) or math.inf, clip.name) for clip in self.clips]
        if short := [f"{name} (to {end:g} of {most:.2f} s)" for end, most, name in ends if end > most + SLACK_SECONDS]:
            text = "clips that end behind the end of their recordings, by the headers"
            tell("dataset", f"{text}: {len(short)} of {title}, such as {short[0]}")

    def failure(self, clip: Clip) -> MediaError | None:
        """Why a clip cannot be read; None if it can."""
        try:
            if self.cache is None:
                clip.check(self.spec)
            elif not self.cache_file(clip).is_file():
                self.load(clip)
        except MediaError as error:
            return error
        return None


def skip_message(clip: Clip, error: MediaError) -> str:
    """That a clip is left out, and why; readers often name the file, too, and once is enough."""
    return f"skipped {clip.name}: {str(error).replace(f'{clip.name}: ', '', 1)}"


def write_cache(file: Path, tracks: dict[str, NDArray[Any]]) -> None:
    """Write a clip whole or not at all; a cache that cannot be written is only slower."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, cache=True) as place:  # not npz, which is slow to unpack
            place.write(save({name: np.ascontiguousarray(track) for name, track in tracks.items()}))
    except OSError as error:
        warnings.warn(f"clip cache not written ({error}); set dataset.cache=null to do without", stacklevel=2)


class Corpus:
    """A checked list of clips in three splits. Base of every dataset that reads files."""

    checks_files = True  # before training begins, see ``Clips.drop_unreadable``
    quantities: list[str] | None = None  # that are measured, and stand in the place of labels then

    def __init__(
        self,
        clips: Sequence[Clip],
        /,
        cache: str | None = "default",
        crop: PositiveFloat | None = None,
        background: str | None = None,
        scene: SceneSettings | None = None,
        negatives: str | list[str] | None = None,
        negatives_label: str | None = None,
        copies: NonNegativeInt = 0,
        lone: bool = False,
    ) -> None:
        """``cache``: a folder, ``default`` (the user's cache folder) or None; ``crop`` seconds for training clips.
        ``background``: the label that means "nothing"; with it, training learns where in a clip its sound stands.
        ``scene``: training clips are put into noise (see ``scenes.py``); then no clip needs to have that label.
        ``negatives``: recordings without any of the classes, or folders of them (see ``negatives.py``), which are of
        the class ``negatives_label`` (None: the background); they need scenes, and there are some then.
        ``copies``: of each training clip, see ``copies.py``. ``lone``: one label is enough to train on, and those of
        other splits may be others, as for what is unusual.

        Raises ConfigError if a split is empty, a label is missing in train, or a group stands in two splits.
        """
        self.clips = list(clips)
        self.cache, self.crop, self.copies = cache_folder(cache), crop, copies
        self.labels = sorted({label for clip in self.clips for label in clip.labels})
        check_splits(self.clips, lone)
        if self.quantities and (scene or negatives):
            raise ConfigError(
                "dataset.scene, dataset.negatives: are of labels; leave them out where numbers are learnt"
            )
        self.around = Surroundings(self.labels, background, scene, negatives, negatives_label)
        self.background = background = self.around.background
        if background is not None and background not in self.labels:
            if not self.around.scene:
                hint = nearest(background, self.labels)
                raise ConfigError(f"dataset.background: no clip has the label {background!r}{hint}")
            self.labels = sorted([*self.labels, background])
        if self.quantities:
            self.labels, self.background = list(self.quantities), None

    def split(self, name: str, spec: InputSpec) -> Split:
        """The clips of ``train``, ``val`` or ``test`` as a model takes them; ConfigError if none can be read."""
        if self.around.negatives:
            spec.require_sound("dataset.negatives")
        if self.copies and spec.both:
            raise ConfigError("dataset.copies: a model of sound and pictures takes none; set it to 0")
        clips = [clip for clip in self.clips if clip.split == name]
        crop = self.crop if name == "train" else None
        part = Clips(clips, self.labels, spec, self.cache, crop, self.background)
        if self.checks_files:
            part.drop_unreadable(name)
        if clips and not part.clips:
            hint = next((text for code, text in HINTS.items() if code in part.last_failure), "see the warnings above")
            raise ConfigError(f"dataset: none of the {len(clips)} {name} files can be read; {hint}")
        listed, read = ({label for clip in some for label in clip.labels} for some in (clips, part.clips))
        if lost := sorted(listed - read):
            text = f"none of the {name} files of the labels {', '.join(map(repr, lost))} can be read"
            if name == "train":
                raise ConfigError(f"dataset: {text}; repair them, or take these labels out")
            tell("dataset", f"{text}: nothing is measured of them")
        part.scene = self.around.scene
        shown = self.shown(part, name)
        if name != "train" or not self.copies:
            return shown
        drawn = digest(repr((part.names, self.crop, *self.around.settings)))
        plain = shown.split if isinstance(shown, Scenes) else shown
        return Copies(shown, plain, self.copies, drawn)

    def shown(self, part: Clips, name: str) -> Split:
        """The clips of a split in what surrounds them, if anything does."""
        if part.scene is None or (name == "test" and not part.scene.strings):
            return part
        clips, scene, background, rate = part.scene_parts()
        if scene.strings:
            speakers = [clip.speaker or clip.group for clip in part.clips]
            clips = Composed(clips, scene.strings, background, rate, speakers, drawn=name == "train")
            if name == "test":
                return clips
        return self.around.surround(clips, name, self.labels, rate, self.cache)


def cache_folder(given: str | None) -> Path | None:
    """The folder that ``dataset.cache`` means."""
    return None if given is None else CACHE_FOLDER if given == "default" else Path(given)


def check_splits(clips: Sequence[Clip], lone: bool = False) -> None:
    """What would make a result meaningless is an error now; with ``lone``, train need not know all labels."""
    counts = Counter(clip.split for clip in clips if clip.labels)
    if unknown := {clip.split for clip in clips} - {*SPLITS, ""}:
        raise ConfigError(f"dataset: split {min(unknown)!r} is none of {', '.join(SPLITS)}; name it in dataset.splits")
    for name in ("train", "val"):
        if not counts[name]:
            raise ConfigError(f"dataset: no clip in split {name!r} with a label; found {dict(counts) or 'none at all'}")
    trained = {label for clip in clips if clip.split == "train" for label in clip.labels}
    for label, one in {label: clip for clip in clips for label in clip.labels}.items():
        if label != clean(label):
            raise ConfigError(
                f"dataset: label {label!r} ({one.name}): expected characters that can be shown; rename it"
            )
        if label not in trained and not lone:
            raise ConfigError(f"dataset: label {label!r} is in {one.split} but no clip of train ({one.name})")
    homes: dict[str, str] = {}  # of groups
    for clip in clips:
        if clip.group and (home := homes.setdefault(clip.group, clip.split)) != clip.split:
            where = " and ".join(sorted((home, clip.split)))
            hint = "its clips (in a folder, the cuts of that recording) belong into one of them"
            raise ConfigError(f"dataset.group: group {clip.group!r} stands in {where}; {hint}")


def existing_root(root: str | None, what: str) -> Path:
    """The data's folder; ConfigError tells what to put there if it is missing."""
    if root is None:
        raise ConfigError(f"dataset.root: is not set; expected {what}. Set dataset.root=FOLDER")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ConfigError(f"dataset.root: {root!r} is not a folder; expected {what}. Set dataset.root=FOLDER")
    return path


def named_group(pattern: re.Pattern[str], path: Path) -> str:
    """What the first group of a ``pattern`` finds in a file's name; '' if it does not fit."""
    found = pattern.fullmatch(path.stem)
    return found[1] if found else ""


def required(path: Path, what: str) -> Path:
    """A part of the data's folder; ConfigError tells what to put there if it is missing."""
    if not path.exists():
        raise ConfigError(f"dataset.root: {path} is missing; expected {what}")
    return path
