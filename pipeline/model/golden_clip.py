"""The golden clip: half a second of computed input, the same everywhere, to which a model's answers are kept."""

import math
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.version import VERSION
from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays, InputSpec

CLIP_SECONDS = 0.5
SERIES_TICKS = 50  # of a series, whatever its rate
SEED = 20261125
TOLERANCE = 1e-4  # of a posterior
LIBRARIES = "torch", "torchvision", "numpy", "numba", "soxr", "librosa"


def noise(count: int) -> NDArray[np.float64]:
    """Uniform numbers from -1 to 1, always the same: the raw output of this generator is fixed."""
    return np.random.PCG64(SEED).random_raw(count) / 2.0**63 - 1.0


def sound(rate: int, count: int | None = None) -> Samples:
    """A chirp over noise, ``(N,)``: half a second of it, or so many samples."""
    size = round(CLIP_SECONDS * rate) if count is None else count
    t = np.arange(size) / rate
    chirp = np.sin(2 * np.pi * (100 * t + (0.2 * rate - 100) / (2 * CLIP_SECONDS) * t**2))
    wave: Samples = (0.3 * chirp + 0.05 * noise(size)).astype(np.float32)
    return wave


def pictures(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """A bright bar that moves over noise, ``(T, H, W, 3)``."""
    images = 64 + 64 * noise(count * height * width * 3).reshape(count, height, width, 3)
    for number, image in enumerate(images):
        image[:, (number * max(1, width // 8)) % width :][:, : max(1, width // 4)] += 110
    return images.astype(np.uint8)


def series(count: int, columns: int) -> NDArray[np.float32]:
    """Noise, in which every seventh value is missing, ``(T, C)``."""
    values = noise(count * columns)
    values[::7] = np.nan
    return values.reshape(count, columns).astype(np.float32)


def duration(spec: InputSpec, grain: int) -> int:
    """Ticks of the golden clip for what a model takes, whose smallest chunk has ``grain`` ticks."""
    ticks = SERIES_TICKS if spec.series else CLIP_SECONDS * spec.rate
    return math.ceil(ticks / grain) * grain


def clip(spec: InputSpec, grain: int) -> Arrays:
    """The golden clip itself."""
    count = duration(spec, grain)
    found: list[NDArray[Any]] = [sound(spec.rate, count)] if spec.sound else []
    if spec.series:
        found.append(series(count, len(spec.series.columns)))
    if spec.picture:
        found.append(pictures(count // spec.grain, spec.picture.height, spec.picture.width))
    if spec.both:
        found.append(np.ones((count // spec.grain, 2), np.float32))
    return tuple(found)


def library_versions() -> dict[str, str]:
    """Versions of Rivulet, and of the installed libraries that compute answers."""
    found = {"rivulet": VERSION}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The greatest difference of two arrays, as a share of the greatest number if that is above 1; infinite if they
    have other shapes or hold NaN.
    """
    if found.shape != expected.shape:
        return math.inf
    apart = float(np.abs(found - expected).max(initial=0.0)) / max(1.0, float(np.abs(expected).max(initial=0.0)))
    return apart if apart == apart else math.inf
