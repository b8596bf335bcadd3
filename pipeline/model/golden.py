"""The golden clip: half a second of computed input, and the answers that a model gave to it when it was saved.

The same model is given the clip again elsewhere, with other versions of libraries or on another processor. That shows
whether its answers are still the same and, if not, which stage is the first to differ.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.layers.stage import Chain
from pipeline.media.audio import Samples
from pipeline.media.input_spec import Arrays, InputSpec

CLIP_SECONDS = 0.5
SEED = 20261125
TOLERANCE = 1e-4  # of a posterior
SIZE_TOLERANCE = 1e-3  # share by which a stage's mean size may differ
NAMES = "golden.posteriors", "golden.sizes"  # in a model's file
LIBRARIES = "torch", "torchvision", "numpy", "numba", "soxr", "librosa"


@dataclass(frozen=True)
class Golden:
    """``posteriors (T, K)``; ``sizes (S,)``: the mean absolute output of each stage; ``versions`` of the libraries that
    computed them.
    """

    posteriors: NDArray[np.float32]
    sizes: NDArray[np.float32]
    versions: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """The answers as they are stored in a model's file."""
        return dict(zip(NAMES, (torch.from_numpy(self.posteriors), torch.from_numpy(self.sizes)), strict=True))


def pop_golden(
    weights: dict[str, Tensor], versions: dict[str, str], shapes: tuple[tuple[int, ...], ...]
) -> Golden | None:
    """Take the golden answers out of the tensors of a file; None if there are none. ValueError for answers of other
    ``shapes`` or types, or that are not finite.
    """
    found = [tensor for name in NAMES if (tensor := weights.pop(name, None)) is not None]
    if not found:
        return None
    if tuple(tuple(tensor.shape) for tensor in found) != shapes or not all(
        tensor.is_floating_point() and bool(tensor.isfinite().all()) for tensor in found
    ):
        raise ValueError("its golden answers are not those of such a model")
    posteriors, sizes = (tensor.float().numpy() for tensor in found)
    return Golden(posteriors, sizes, versions)


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that compute answers."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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


def duration(spec: InputSpec, grain: int) -> int:
    """Ticks of the golden clip for what a model takes, whose smallest chunk has ``grain`` ticks."""
    return math.ceil(CLIP_SECONDS * spec.rate / grain) * grain


def clip(spec: InputSpec, grain: int) -> Arrays:
    """The golden clip itself."""
    count = duration(spec, grain)
    found: list[NDArray[Any]] = [sound(spec.rate, count)] if spec.sound else []
    if spec.picture:
        found.append(pictures(count // spec.grain, spec.picture.height, spec.picture.width))
    if spec.both:
        found.append(np.ones((count // spec.grain, 2), np.float32))
    return tuple(found)


@torch.inference_mode()
def offline(chain: Chain, x: Any) -> NDArray[np.float32]:
    """Posteriors ``(T, K)`` of one whole clip, a batch of one, without the steps of the delay."""
    y, _ = chain(x, chain.initial(1))
    answers: NDArray[np.float32] = y[0, chain.delay :].float().cpu().numpy()
    return answers


@torch.inference_mode()
def stage_sizes(chain: Chain, x: Any) -> NDArray[np.float32]:
    """The mean absolute output of each stage ``(S,)``."""
    found = []
    for stage in chain.stages:
        x, _ = stage(x, stage.initial(1))
        found.append(float(x.float().abs().mean()))
    return np.array(found, np.float32)


def explain_difference(chain: Chain, x: Any, golden: Golden) -> str:
    """Why answers may differ, in words: the first stage whose output differs, and versions that have changed."""
    stored = golden.sizes
    apart = np.abs(stage_sizes(chain, x) - stored) > SIZE_TOLERANCE * np.abs(stored)
    first = "no stage differs much"
    if apart.any():
        first = f"the first stage to differ is {chain.names[int(apart.argmax())]!r}"
    return f"{first}; {changed_versions(golden.versions)}"


def changed_versions(before: Mapping[str, str]) -> str:
    """Which versions have changed since, in words."""
    now = library_versions()
    others = {name: before[name] for name in LIBRARIES if name in before and before[name] != now.get(name)}
    found = [f"{name} was {old!r:.40} and is {now.get(name)!r}" for name, old in others.items()]
    return ", ".join(found) or "the versions of the libraries are the same"
