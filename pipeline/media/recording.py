"""Windows of one long recording."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from pipeline.media.audio import Samples, read


class Recording:
    """A recording of any length, as mono samples at ``rate`` Hz."""

    def __init__(self, path: str | os.PathLike[str], rate: int, keep: Path | None = None) -> None:
        self.path, self.rate, self.keep = Path(path), rate, keep

    @cached_property
    def wave(self) -> Samples:
        return read(self.path, self.rate)[0]

    @property
    def samples(self) -> int:
        """Its length at ``rate``."""
        return len(self.wave)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.samples / self.rate

    def window(self, start: int, count: int) -> Samples:
        """``count`` samples from ``start`` on."""
        return np.array(self.wave[start : start + count])
