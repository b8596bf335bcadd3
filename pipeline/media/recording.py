"""Windows of one long recording, anywhere in it, without the whole in memory.

A window holds the samples of the whole recording, decoded and resampled from its start: the same bits if the rates are
equal or the recording is kept, else within 1e-6. A recording is decoded once, into a file of plain samples (230 MB
an hour at 16 kHz), from which a second takes 0.15 ms. Without a place to keep it, one in which every
seek is exact (see ``seek.py``) is read where it lies (7 ms), and any other from its start for each window.
"""

import os
import warnings
from collections.abc import Iterable
from functools import cache
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0

from pipeline.core.atomic import atomic_write, cache_path
from pipeline.core.errors import MediaError
from pipeline.media.audio import Resampler, Samples, open_audio, open_blocks
from pipeline.media.part import PathLike
from pipeline.media.seek import seeks_everywhere

MARGIN = 512  # samples of the lower rate on both sides of a window; 160 were enough for every pair of rates tried
MAX_STEP = 1 << 10  # source samples from one common point of both rates to the next; beyond, soxr rounds its filters


class Recording:
    """A recording as mono float32 samples at one rate. It holds no file open, and can be pickled.

    Attributes:
        rate: in Hz, of the windows.
        samples: its length at this rate.
    """

    def __init__(self, path: PathLike, rate: int, keep: Path | None) -> None:
        """``keep``: a folder for the file of plain samples, or None. MediaError as of ``open_blocks``."""
        self.path, self.rate, self.keep = os.fspath(path), rate, keep
        self.length = 0  # samples at the source's rate, if windows are read where they lie
        if (kept := self.kept()) is not None:
            self.samples = len(kept)
            return
        info, sound = open_audio(self.path)
        self.source = info.rate  # Hz
        self.step = self.source // gcd(self.source, rate)
        if sound:
            with sound:
                if self.step <= MAX_STEP and seeks_everywhere(self.path, sound):
                    self.length = sound.frames
        if self.length:
            self.samples = (2 * self.length * rate + self.source) // (2 * self.source)  # soxr rounds so, too
        else:
            self.samples = sum(map(len, open_blocks(self.path, rate)[1]))

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def window(self, start: int, count: int) -> Samples:
        """Samples ``start`` to ``start + count`` at ``rate``, float32 ``(count,)``.

        ValueError if the recording does not hold them all; MediaError if it cannot be read any more.
        """
        if not 0 <= start < start + count <= self.samples:
            raise ValueError(f"{self.path}: got samples {start} to {start + count}; expected some of {self.samples}")
        if self.length:
            found = self.sought(start, count)
        elif (kept := self.kept()) is not None:
            found = np.array(kept[start : start + count])
        else:
            found = cut(open_blocks(self.path, self.rate)[1], start, count)
        if len(found) < count:
            raise MediaError("unreadable", f"{self.path}: has become shorter while it was used")
        return found

    def sought(self, start: int, count: int) -> Samples:
        """A window of a file in which every seek is exact.

        At another rate, resampling begins where both rates have a sample at the same time, so that it is in step.
        """
        source, rate = self.source, self.rate
        beside = MARGIN * max(1, source // rate) if source != rate else 0
        first = max(0, start * source // rate - beside) // self.step * self.step
        last = min(self.length, -(-(start + count) * source // rate) + beside)
        skipped = start - first * rate // source
        convert = Resampler(source, rate)
        blocks = open_blocks(self.path, source, first / source, last / source)[1]
        ready = [*map(convert, blocks), convert.close()]
        return np.concatenate(ready)[skipped : skipped + count]

    def kept(self) -> Samples | None:
        """All samples, left on the disk, in the file of plain samples; None if there can be none."""
        if self.keep is None:
            return None
        file = cache_path(self.keep, f"{fingerprint(self.path)}|{self.rate}", ".npy")
        try:
            return opened(file)
        except (OSError, ValueError, EOFError):  # not there yet, or half-written by a full disk
            pass
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file, cache=True) as place:
                write_plain(place, open_blocks(self.path, self.rate)[1])
            return opened(file)
        except OSError as error:
            text = f"samples of {self.path} not kept ({error}); windows take longer"
            warnings.warn(text, stacklevel=2)
            self.keep = None
            return None


def fingerprint(path: PathLike) -> str:
    """Which bytes a file has: another file, or a changed one, has another. MediaError without a file."""
    try:
        status = os.stat(path)
    except OSError:
        raise MediaError("not_found", f"{os.fspath(path)}: no such file") from None
    folder, name = os.path.split(os.path.abspath(path))
    place = os.path.realpath(path) if os.path.islink(path) else os.path.join(resolve(folder), name)
    return f"{place}|{status.st_size}|{status.st_mtime_ns}"


@cache
def resolve(folder: str) -> str:
    """A folder without links in its path. Looked up once: it takes longer than to read a cached clip."""
    return os.path.realpath(folder)


def opened(file: Path) -> Samples:
    """A file of NumPy, left on the disk. OSError, ValueError or EOFError if it is not there, or not all of it."""
    samples: Samples = np.load(file, mmap_mode="r")
    return samples


def write_plain(file: BinaryIO, blocks: Iterable[Samples]) -> None:
    """Blocks as a file of NumPy, whose header gets the length at the end."""
    total = 0
    write_header(file, total)
    for block in blocks:
        file.write(block.astype("<f4", copy=False).tobytes())
        total += len(block)
    file.seek(0)
    write_header(file, total)


def write_header(file: BinaryIO, length: int) -> None:
    """Of so many samples; NumPy leaves room for longer ones."""
    write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (length,)})


def cut(blocks: Iterable[Samples], start: int, count: int) -> Samples:
    """``count`` samples from ``start`` on."""
    position, found = 0, [np.zeros(0, np.float32)]
    for block in blocks:
        found.append(block[max(0, start - position) : max(0, start + count - position)])
        position += len(block)
        if position >= start + count:
            break
    return np.concatenate(found)
