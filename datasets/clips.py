"""What every dataset of files is made of: clips, their splits, and a cache.

A dataset (folder, manifest, a named corpus) lists its clips with label and split; ``Corpus`` checks the list, decodes
once into a cache, and hands out ``Clips`` for training.
"""

import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.utils.data import Dataset

from datasets.scenes import Recording, Scene, Scenes
from pipeline.core.atomic import atomic_write
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError, MediaError
from pipeline.core.progress import bar
from pipeline.core.text import clean
from pipeline.media.audio import Samples
from pipeline.media.chunks import read_chunk
from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.sample import Sample, Split

SPLITS = ("train", "val", "test")
OTHERS = {  # what to take for files of another kind
    "no_video": "they are sounds, and the model takes pictures: set extractor=logmel encoder=conv_recurrent "
    "augment=light",
    "no_audio": "they have no sound, and the model takes sound: set extractor=optical_flow encoder=image_recurrent "
    "augment=pictures",
}
FRAME = 512  # samples, about, in which the energy of a clip is summed
SHOWN = 3  # of the warnings, where not one clip can be read
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rivulet" / "clips"


@dataclass(frozen=True, slots=True)  # slots: there may be millions
class Clip:
    """A labelled recording, or its part from ``start`` to ``end`` seconds. Clips of a ``group`` share a split, where
    splits are drawn also those of one recording.
    """

    path: Path
    label: str
    split: str = ""
    start: float = 0.0
    end: float | None = None
    group: str = ""

    @property
    def name(self) -> str:
        """Which recording it is, for people and as a key."""
        return str(self.path)

    @property
    def kin(self) -> str:
        """What is drawn into one split with it: its group, or else its recording."""
        return self.group or self.name

    def stamp(self) -> str:
        """Which bytes they are: of another file, or of one that was changed, it is another. MediaError without any."""
        try:
            status = os.stat(self.path)
        except OSError:
            raise MediaError("not_found", "no such file") from None
        folder, name = os.path.split(os.path.abspath(self.path))
        place = os.path.realpath(self.path) if os.path.islink(self.path) else os.path.join(real(folder), name)
        return f"{place}|{status.st_size}|{status.st_mtime_ns}"

    def chunk(self, spec: InputSpec) -> Arrays:
        """Decoded, as a model takes it. MediaError if it cannot be read."""
        return read_chunk(self.path, spec, self.start, self.end)[0]


@cache
def real(folder: str) -> str:
    """A folder without links in its path. Looked up once: it takes longer than to read a cached clip."""
    return os.path.realpath(folder)


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
        """``crop`` seconds are cut at random from longer clips (see ``sounding``); None keeps them whole.
        With a ``background`` label, the times of each clip's sound are found by its energy.
        """
        self.index = {label: number for number, label in enumerate(labels)}
        self.clips, self.spec, self.cache, self.background = list(clips), spec, cache, background
        self.crop = round(crop * spec.rate / spec.grain) * spec.grain if crop else None
        self.scene: Scene | None = None  # in which they are shown in training, and heard as a stream
        self.epoch = 0
        self.skipped = 0  # clips that ``prepare`` has dropped
        self.failed = ""  # why the last one was

    def stream(self) -> Split:
        """What a model listens to, of these clips: them in noise if there are scenes, else themselves."""
        return Recording(*self.shown()) if self.scene else self

    def shown(self) -> tuple[Split, Scene, int, int]:
        """What scenes are made of: clips, settings, the class of the background, and the rate."""
        assert self.scene is not None and self.background is not None
        return self, self.scene, self.index[self.background], self.spec.require_sound("dataset.scene")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def classes(self) -> list[int]:
        """The class of each clip."""
        return [self.index[clip.label] for clip in self.clips]

    @property
    def names(self) -> list[str]:
        """Which clips they are, as what."""
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
            warnings.warn(told(clip, str(error)), stacklevel=2)
            return None
        key = f"{clip.name}@{clip.start}-{clip.end}"
        spare = spec.ticks(x) - self.crop if self.crop else 0
        if self.crop and spare > 0:
            key = ""  # another cut each time
            rng = np.random.default_rng([self.epoch, index])
            if spec.sound and clip.label != self.background:
                start = sounding(rng, x[0], self.crop, spec.grain)
            else:
                start = int(rng.integers(spare // spec.grain + 1)) * spec.grain
            x = spec.cut(spec.cut(x, start)[1], self.crop)[0]
        label, spans = self.index[clip.label], None
        if self.background and spec.sound:
            quiet = clip.label == self.background or not x[0].any()
            spans = [] if quiet else [(*loud_part(x[0], spec.sound), label)]
        return Sample(x, label, spans, clip.name, key, clip.group)

    def load(self, clip: Clip) -> Arrays:
        """A clip's tracks, from the cache if they are there."""
        if self.cache is None:
            return clip.chunk(self.spec)
        file = self.cache_file(clip)
        try:
            tracks = load(file.read_bytes())
            return tuple(tracks[f"track{number}"] for number in range(len(self.spec.tracks)))
        except (OSError, SafetensorError, KeyError):  # not there yet, or half-written by a full disk
            x = clip.chunk(self.spec)
            store(file, x)
            return x

    def cache_file(self, clip: Clip) -> Path:
        """Where a clip is cached: another file, part or rate is another place."""
        assert self.cache is not None
        key = f"{clip.stamp()}|{clip.start}|{clip.end}|{self.spec}"
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        return self.cache / digest[:2] / f"{digest[2:34]}.safetensors"

    def prepare(self, title: str) -> None:
        """Decode everything once, with a progress bar, and drop what cannot be read."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(self.failure, self.clips)
            found = list(bar(results, f"reading {title}", len(self.clips)))
        failed = [told(clip, failure) for clip, failure in zip(self.clips, found, strict=True) if failure]
        for text in failed[:SHOWN] if len(failed) == len(found) else failed:  # all for one reason, most likely
            warnings.warn(text, stacklevel=2)
        self.clips = [clip for clip, failure in zip(self.clips, found, strict=True) if not failure]
        self.skipped += len(found) - len(self.clips)
        self.failed = failed[-1] if failed else ""

    def failure(self, clip: Clip) -> str | None:
        """Why a clip cannot be read, or None."""
        try:
            self.load(clip)
        except MediaError as error:
            return str(error)
        return None


def told(clip: Clip, failure: str) -> str:
    """That a clip is left out, and why; readers often name the file, too, and once is enough."""
    return f"skipped {clip.name}: {failure.replace(f'{clip.name}: ', '', 1)}"


def sounding(rng: np.random.Generator, wave: Samples, length: int, grain: int, depth: float = 40.0) -> int:
    """Where a random cut of ``length`` samples begins, a multiple of ``grain``: anywhere but where it would hold
    ``depth`` dB less than the cut that holds most. Many recordings are filled up with silence, which would be learnt as
    the dog that barks in them.
    """
    step = grain if grain > 1 else FRAME
    frames = wave[: len(wave) // step * step].reshape(-1, step)
    energy = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", frames, frames, dtype=np.float64))])
    span = min(length // step, len(frames))
    held = energy[span:] - energy[: len(energy) - span]
    held = held[: (len(wave) - length) // step + 1]
    start = int(rng.choice(np.flatnonzero(held >= held.max() * 10 ** (-depth / 10)))) * step
    return start if grain > 1 else start + int(rng.integers(min(step, len(wave) - length - start + 1)))


def loud_part(wave: Samples, rate: int, depth: float = 20.0, gap: float = 0.15) -> tuple[int, int]:
    """Where the sound stands in a clip, ``(start, end)`` in samples.

    The stretch around the loudest 20-ms frame whose frames are at most ``depth`` dB below it and 6 dB above the clip's
    quietest tenth, bridging pauses of up to ``gap`` seconds.
    """
    size = max(1, rate // 50)
    frames = np.pad(wave, (0, -len(wave) % size)).reshape(-1, size)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loudest = float(level.max())
    loud = np.flatnonzero(level >= max(loudest - depth, min(float(np.quantile(level, 0.1)) + 6, loudest - 6)))
    breaks = np.flatnonzero(np.diff(loud) > gap * 50) + 1
    part = next(part for part in np.split(loud, breaks) if part[0] <= level.argmax() <= part[-1])
    return int(part[0]) * size, min(len(wave), (int(part[-1]) + 1) * size)


def store(file: Path, x: Arrays) -> None:
    """Write a clip whole or not at all; a cache that cannot be written is only slower."""
    tracks = {f"track{number}": np.ascontiguousarray(track) for number, track in enumerate(x)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file, cache=True) as place:
            place.write(save(tracks))  # not npz: in training, unpacking that takes a tenth of the time of a small model
    except OSError as error:
        warnings.warn(f"clip cache not written ({error}); set dataset.cache=null to do without", stacklevel=2)


class Corpus:
    """A checked list of clips in three splits. Base of every dataset that reads files."""

    ahead = True  # whether all clips are decoded before training begins

    def __init__(
        self,
        clips: Sequence[Clip],
        cache: str | None = "default",
        crop: float | None = None,
        background: str | None = None,
        scene: Scene | None = None,
    ) -> None:
        """``cache``: a folder, ``default`` (the user's cache folder) or None; ``crop`` seconds for training clips.
        ``background``: the label that means "nothing"; with it, training learns where in a clip its sound stands.
        ``scene``: training clips are put into noise (see ``scenes.py``); then no clip needs to have that label.

        Raises ConfigError if a split is empty, a label is missing in train, or a group stands in two splits.
        """
        self.clips = list(clips)
        self.cache = None if cache is None else CACHE if cache == "default" else Path(cache)
        self.crop = crop
        self.labels = sorted({clip.label for clip in self.clips})
        check_splits(self.clips)
        self.background, self.scene = background, scene
        if scene and background is None:
            raise ConfigError("dataset.scene: needs dataset.background, the label of what is between the clips")
        if scene and background not in self.labels:
            self.labels = sorted([*self.labels, str(background)])
        if background is not None and background not in self.labels:
            hint = nearest(background, self.labels)
            raise ConfigError(f"dataset.background: no clip has the label {background!r}{hint}")

    def split(self, name: str, spec: InputSpec) -> Split:
        """The clips of ``train``, ``val`` or ``test`` as a model takes them; ConfigError if none can be read."""
        clips = [clip for clip in self.clips if clip.split == name]
        crop = self.crop if name == "train" else None
        part = Clips(clips, self.labels, spec, self.cache, crop, self.background)
        if self.ahead:
            part.prepare(name)
        if clips and not part.clips:
            better = next((hint for code, hint in OTHERS.items() if code in part.failed), "see the warnings above")
            raise ConfigError(f"dataset: none of the {len(clips)} {name} files can be read; {better}")
        part.scene = self.scene
        return Scenes(*part.shown()) if self.scene and name == "train" else part


def check_splits(clips: Sequence[Clip]) -> None:
    """What would make a result meaningless is an error now."""
    counts = Counter(clip.split for clip in clips)
    unknown = counts.keys() - {*SPLITS, ""}
    if unknown:
        raise ConfigError(
            f"dataset: split {sorted(unknown)[0]!r} is none of {', '.join(SPLITS)}; say with dataset.splits which it is"
        )
    for name in ("train", "val"):
        if not counts[name]:
            raise ConfigError(f"dataset: no clip in split {name!r}; found {dict(counts) or 'no clips at all'}")
    for label, named in {clip.label: clip.name for clip in clips}.items():
        if label != clean(label):
            raise ConfigError(f"dataset: label {label!r} ({named}): expected characters that can be shown; rename it")
    trained = {clip.label for clip in clips if clip.split == "train"}
    for clip in clips:
        if clip.label not in trained:
            raise ConfigError(
                f"dataset: label {clip.label!r} is in {clip.split} but has no clip in train ({clip.name})"
            )
    if len(trained) < 2:
        raise ConfigError(f"dataset: only one label ({', '.join(trained)}); expected at least two classes")
    places = defaultdict(set)
    for clip in clips:
        if clip.group:
            places[clip.group].add(clip.split)
    for group, found in places.items():
        if len(found) > 1:
            where = " and ".join(sorted(found))
            raise ConfigError(
                f"dataset.group: group {group!r} stands in {where}; its clips (in a folder, the cuts of a recording of "
                "that name) belong into one of them"
            )


def existing_root(root: str | None, what: str) -> Path:
    """The data's folder; ConfigError tells what to put there if it is missing."""
    if root is None:
        raise ConfigError(f"dataset.root: is not set; expected {what}. Set dataset.root=FOLDER")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise ConfigError(f"dataset.root: {root!r} is not a folder; expected {what}. Set dataset.root=FOLDER")
    return path
