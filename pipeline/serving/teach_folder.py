"""The folder that pages teach in: a folder for each class, as ``dataset=folder`` reads it.

``FOLDER/dog/kitchen-2_007.0.wav``: of what was recorded in the second take in the kitchen. Names that differ in such a
number alone count as cuts of one recording, so a take stays in one split, whatever its classes.

Nothing that a client says becomes a path: its clips are looked up in a list of what is there, names of classes and
places are made of letters, and links are not followed.
"""

import itertools
import re
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.core.atomic import atomic_write
from pipeline.core.errors import MediaError, UserError
from pipeline.core.text import NAME_BYTES, clean, is_plain
from pipeline.media.audio import probe
from pipeline.media.formats import AUDIO, VIDEO
from pipeline.media.picture import Image
from pipeline.media.video import probe_video
from pipeline.media.video_writer import VideoWriter

BACKGROUND, QUIET = "background", "quiet"  # the class in which nothing is; its takes
MAX_CLIPS, MAX_BYTES = 5_000, 4 << 30
WANTED = {"clips": 20, "takes": 3, "places": 2}  # of each class
LEAST = {"clips": 4, "takes": 2}  # to learn from some, and to measure with others
WANTED_SECONDS, LEAST_SECONDS = 30.0, 4.0  # of the background
NAME = re.compile(r"(?P<take>(?P<place>.+)-\d+)_\d+\.\d+")


class Clip(NamedTuple):
    """A recording in the folder. A file that has another name than ours is a take of its own, at no known place."""

    label: str
    name: str
    size: int  # bytes
    seconds: float  # 0 where its header does not tell
    pictures: bool

    @property
    def take(self) -> str:
        """What stays in one split."""
        found = NAME.fullmatch(Path(self.name).stem)
        return found["take"] if found else self.name

    @property
    def place(self) -> str:
        """Where it was recorded."""
        found = NAME.fullmatch(Path(self.name).stem)
        return found["place"] if found else ""


class TeachFolder:
    """The clips below ``root``, which is made if it is not there. Any thread may call it."""

    def __init__(self, root: Path, most: int = MAX_CLIPS, size: int = MAX_BYTES) -> None:
        """``most`` clips, and ``size`` bytes of them. OSError if it cannot be made."""
        self.root, self.most, self.size = root.expanduser().resolve(), most, size
        self.root.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()

    def clips(self) -> list[Clip]:
        """All of them, by label and name; no links, and nothing hidden."""
        found = []
        for folder in self.folders():
            for path in sorted(folder.iterdir()):
                ending = path.suffix.lower()
                if (
                    ending in AUDIO | VIDEO
                    and not path.name.startswith(".")
                    and path.is_file()
                    and not path.is_symlink()
                ):
                    status = path.stat()
                    length = seconds_of(path, ending in VIDEO, status.st_size, status.st_mtime_ns)
                    found.append(Clip(folder.name, path.name, status.st_size, length, ending in VIDEO))
        return found

    def folders(self) -> list[Path]:
        """Those of the classes."""
        there = (path for path in self.root.iterdir() if path.is_dir() and not path.is_symlink())
        return sorted(path for path in there if not path.name.startswith("."))

    def find(self, label: str, name: str) -> Path:
        """Where a clip is. UserError if there is none of that name."""
        for clip in self.clips():
            if (clip.label, clip.name) == (label, name):
                return self.root / label / name
        raise UserError(f"there is no clip {clean(f'{label}/{name}')}; it may have been moved or deleted")

    def add_sound(self, label: str, place: str, take: int, samples: NDArray[np.int16], rate: int) -> Path:
        """Keep samples ``(N,)`` as a WAV of 16 bits. UserError for a name without letters, or if the folder is full."""
        with self.lock:
            path = self.new_path(self.folder(label), place, take, ".wav", samples.nbytes)
            with atomic_write(path) as file:
                soundfile.write(file, samples, rate, subtype="PCM_16", format="WAV")
        return path

    def add_pictures(self, label: str, place: str, take: int, images: Iterable[Image], times: Sequence[float]) -> Path:
        """Keep pictures ``(H, W, 3)``, each at its time in seconds, as an mp4. UserError as of sounds; an error of
        ``images`` leaves nothing behind. While they are decoded and encoded, others may use the folder.
        """
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".") as hidden:
            part = Path(hidden) / "clip.mp4"
            try:
                writer = VideoWriter(part, max(1, round((len(times) - 1) / (times[-1] - times[0]))))
                for image, time in zip(images, times, strict=True):
                    writer.write(image, time - times[0])
                writer.close()
            except av.FFmpegError as error:
                raise UserError(f"these pictures cannot be kept as a video: {error}") from None
            with self.lock:
                return part.rename(self.new_path(self.folder(label), place, take, ".mp4", part.stat().st_size))

    def move(self, label: str, name: str, to: str) -> Path:
        """Give a clip another class. UserError as of ``find`` and ``add_sound``."""
        with self.lock:
            path = self.find(label, name)
            found = NAME.fullmatch(path.stem)
            return path.rename(free_path(self.folder(to), found["take"] if found else to_name(path.stem), path.suffix))

    def delete(self, label: str, name: str) -> None:
        """Remove a clip, and its class with its last one. UserError as of ``find``."""
        with self.lock:
            path = self.find(label, name)
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()

    def folder(self, label: str) -> Path:
        """The folder of a class, by its name in any case; a new one is made. UserError if it is a link."""
        label = to_name(label)
        there = [path.name for path in self.root.iterdir() if path.name.casefold() == label.casefold()]
        folder = self.root / (there[0] if there else BACKGROUND if label.casefold() == BACKGROUND else label)
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UserError(f"{folder.name}: is no folder in {self.root}, but a file or a link; choose another name")
        folder.mkdir(exist_ok=True)
        return folder

    def new_path(self, folder: Path, place: str, take: int, ending: str, size: int) -> Path:
        """Where a new clip of so many bytes goes. Takes of the background are of their own: a class shares none with
        what may be in training alone.
        """
        clips = self.clips()
        if len(clips) >= self.most:
            raise UserError(f"there are {len(clips)} clips, and {self.most} is the most; delete some")
        if sum(clip.size for clip in clips) + size > self.size:
            raise UserError(f"the clips are {self.size / 2**30:.2g} GiB, which is the most; delete some")
        where = f"{QUIET} {to_name(place)}" if folder.name == BACKGROUND else to_name(place)
        return free_path(folder, f"{where}-{take}", ending)


def free_path(folder: Path, take: str, ending: str) -> Path:
    """The first name of a take that nothing has."""
    names = (folder / f"{take}_{number:03}.0{ending}" for number in itertools.count())
    return next(path for path in names if not (path.exists() or path.is_symlink()))


def to_name(text: str) -> str:
    """Text as the name of a class or a place: letters, digits, dashes and single blanks. UserError if none is left."""
    plain = "".join(char for char in unicodedata.normalize("NFC", text) if is_plain(char) or char == " ")
    name = " ".join(plain.split()).encode()[:NAME_BYTES].decode(errors="ignore").strip(" -_")
    if not name:
        raise UserError(f"the name {clean(text)[:NAME_BYTES]!r} has no letters or digits; choose another one")
    return name


@lru_cache(2 * MAX_CLIPS)
def seconds_of(path: Path, pictures: bool, size: int, changed: int) -> float:
    """A recording's length by its header, asked again once it has changed; 0 if that does not tell."""
    try:
        return (probe_video(path) if pictures else probe(path)).length or 0.0
    except MediaError:
        return 0.0


def count(clips: Sequence[Clip]) -> dict[str, Any]:
    """What there is of a class."""
    takes, places = {clip.take for clip in clips}, {clip.place for clip in clips} - {""}
    seconds = round(sum(clip.seconds for clip in clips), 1)
    return {"clips": len(clips), "takes": len(takes), "places": len(places), "seconds": seconds}


def missing(clips: Sequence[Clip]) -> str:
    """Why nothing can be learnt yet, in a sentence; '' if it can."""
    labels = sorted({clip.label for clip in clips} - {BACKGROUND})
    counts = {label: count([clip for clip in clips if clip.label == label]) for label in [BACKGROUND, *labels]}
    if counts[BACKGROUND]["seconds"] < LEAST_SECONDS:
        return f"Record the background first: {WANTED_SECONDS:g} seconds of it."
    if len({clip.pictures for clip in clips}) > 1:
        return "There are sounds and pictures in one folder: keep one kind."
    if not labels:
        return "Add a class."
    for label in labels:
        for what, least in LEAST.items():
            if counts[label][what] < least:
                return f"{label}: {counts[label][what]} {what}; at least {least} are needed."
    return ""
