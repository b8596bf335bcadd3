"""What a terminal shows of a stream while it runs: level, spectrogram, classes, open events. Pure drawing."""

import math
from collections import deque
from collections.abc import Sequence
from functools import cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

from pipeline.core.text import clean
from pipeline.media.audio import sanitize

COLUMN_SECONDS = 0.1  # of sound in a column of the spectrogram
BANDS, ROWS = 10, 5  # of the spectrogram; a character shows two bands
WINDOW_SAMPLES = 1024  # of which a column shows the spectrum
LOWEST_HERTZ = 60.0  # lower end of the lowest band
FLOOR_DBFS = -70.0  # what is black, and an empty meter
RAMP = " .:-=+*#%@"  # dark to bright without colours
SHADES = np.array([[0, 0, 20], [60, 0, 110], [180, 30, 100], [250, 130, 40], [255, 250, 190]], float)


def decibels(peak: float) -> float:
    """The greatest sample in dB of full scale, ``FLOOR_DBFS`` at least."""
    return max(FLOOR_DBFS, 20 * math.log10(peak)) if peak > 0 else FLOOR_DBFS


class Spectrogram:
    """Of the newest seconds, a column every ``COLUMN_SECONDS``."""

    def __init__(self, rate: int, columns: int = 120) -> None:
        """``rate`` in Hz; so many columns are kept."""
        self.every = round(COLUMN_SECONDS * rate)
        self.columns: deque[NDArray[np.float64]] = deque(maxlen=columns)
        self.window = np.hanning(WINDOW_SAMPLES)
        edges = np.geomspace(LOWEST_HERTZ, rate / 2, BANDS + 1) * WINDOW_SAMPLES / rate
        self.edges = np.unique(np.maximum(np.arange(BANDS + 1), np.round(edges)).astype(int))[: BANDS + 1]
        self.rest: NDArray[np.float32] = np.zeros(0, np.float32)
        self.level: float = FLOOR_DBFS  # of the newest column

    def add(self, samples: NDArray[np.float32]) -> None:
        """The next samples ``(N,)``; of many only those that will be seen are looked at."""
        samples = sanitize(samples[-self.every * (self.columns.maxlen or 1) :])
        self.rest = np.concatenate([self.rest, samples])
        while len(self.rest) >= self.every:
            part, self.rest = self.rest[: self.every], self.rest[self.every :]
            self.level = decibels(float(np.abs(part).max()))
            cut = np.zeros(WINDOW_SAMPLES)
            cut[: len(part[-WINDOW_SAMPLES:])] = part[-WINDOW_SAMPLES:]
            power = np.square(np.abs(np.fft.rfft(cut * self.window))) * (4 / self.window.sum() ** 2)
            bands = np.add.reduceat(power, self.edges[:-1]) / 2
            self.columns.append(10 * np.log10(np.maximum(bands, 1e-12)))

    def draw(self, width: int, colours: bool) -> list[Text]:
        """``ROWS`` lines of ``width`` characters, low tones at the bottom, the newest at the right."""
        newest = np.array(list(self.columns)[-width:]).reshape(-1, len(self.edges) - 1)
        shares = np.clip(1 - newest.T[::-1] / FLOOR_DBFS, 0, 1)  # (bands, columns), the highest first
        shares = np.pad(shares, ((0, 2 * ROWS - len(shares)), (width - len(newest), 0)))
        if colours:
            return [coloured(upper, lower) for upper, lower in zip(shares[::2], shares[1::2], strict=True)]
        both = np.maximum(shares[::2], shares[1::2])
        return [Text("".join(RAMP[round(float(share) * (len(RAMP) - 1))] for share in row)) for row in both]


def coloured(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> Text:
    """Two bands as one line: the halves of a character have two colours."""
    text = Text(no_wrap=True)
    shades = (np.round(row * 15).astype(int).tolist() for row in (upper, lower))
    for pair, run in groupby(zip(*shades, strict=True)):
        text.append("▀" * len(list(run)), style(*pair))
    return text


def shade(share: float) -> Color:
    """A colour from dark to bright."""
    place = np.arange(len(SHADES)) / (len(SHADES) - 1)
    red, green, blue = (round(float(np.interp(share, place, SHADES[:, part]))) for part in range(3))
    return Color.from_rgb(red, green, blue)


@cache
def style(upper: int, lower: int) -> Style:
    """Of a character whose halves have two of 16 shades."""
    return Style(color=shade(upper / 15), bgcolor=shade(lower / 15))


def bar(share: float, width: int, ascii_only: bool) -> str:
    """A bar of ``width`` characters at most."""
    return ("#" if ascii_only else "█") * round(min(1.0, max(0.0, share)) * width)


def meter(level: float, width: int, ascii_only: bool) -> str:
    """A level in dBFS as a bar with its number."""
    return f"{bar(1 - level / FLOOR_DBFS, width, ascii_only):<{width}} {level:4.0f} dBFS"


def class_bars(
    labels: Sequence[str], scores: NDArray[np.float32], count: int, width: int, ascii_only: bool
) -> list[str]:
    """The best classes as bars, in ``width`` characters."""
    name = max(6, min(20, width // 3))
    found = []
    for index in np.argsort(-scores, kind="stable")[:count]:
        share = float(scores[index]) if 0 <= scores[index] <= 1 else 0.0  # of other numbers no bar
        filled = bar(share, max(1, width - name - 8), ascii_only)
        found.append(f"  {fitted(labels[index], name)} {scores[index]:.2f} {filled}")
    return found


def fitted(label: str, width: int) -> str:
    """A label in exactly so many characters."""
    label = clean(label)
    return f"{label[: width - 1]}~" if len(label) > width else f"{label:<{width}}"
