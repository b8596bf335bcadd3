"""A golden clip: half a second that anybody can make again, and what a model answered to it when it was saved.

Played again elsewhere, with other versions of libraries or another processor, it tells at once whether the same model
still gives the same answers, and if not, which stage was the first to differ.
"""

import math
from collections.abc import Mapping
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

SECONDS = 0.5
SEED = 20261125
TOLERANCE = 1e-4  # of a posterior
APART = 1e-3  # share by which a stage's mean size may differ
NAMES = "golden.posteriors", "golden.sizes"  # in a model's file
LIBRARIES = "torch", "torchvision", "numpy", "numba", "soxr", "librosa"


@dataclass(frozen=True)
class Golden:
    """``posteriors (T, K)``; ``sizes (S,)``: the mean of what each stage gave, without signs; ``versions`` of what
    computed them.
    """

    posteriors: NDArray[np.float32]
    sizes: NDArray[np.float32]
    versions: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """As they stand in a model's file."""
        return dict(zip(NAMES, (torch.from_numpy(self.posteriors), torch.from_numpy(self.sizes)), strict=True))


def pop_golden(
    weights: dict[str, Tensor], versions: dict[str, str], shapes: tuple[tuple[int, ...], ...]
) -> Golden | None:
    """The golden answers out of the tensors of a file; None if there are none. ValueError if they are none of that
    model's: posteriors and sizes of other ``shapes``, or not finite.
    """
    found = [weights.pop(name, None) for name in NAMES]
    there = [tensor for tensor in found if tensor is not None]
    if any(not tensor.is_floating_point() for tensor in there):
        raise ValueError("its golden answers are no floats")
    arrays = [tensor.float().numpy() for tensor in there]
    if not arrays:
        return None
    if tuple(array.shape for array in arrays) != shapes or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("its golden answers are not those of such a model")
    return Golden(arrays[0], arrays[1], versions)


def versions() -> dict[str, str]:
    """Of what computes here."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def noise(count: int) -> NDArray[np.float64]:
    """Evenly spread numbers from -1 to 1, the same for ever: the raw output of a generator never changes."""
    return np.random.PCG64(SEED).random_raw(count) / 2.0**63 - 1.0


def sound(rate: int, count: int | None = None) -> Samples:
    """A chirp over noise, ``(N,)``: half a second of it, or so many samples."""
    size = round(SECONDS * rate) if count is None else count
    t = np.arange(size) / rate
    chirp = np.sin(2 * np.pi * (100 * t + (0.2 * rate - 100) / (2 * SECONDS) * t**2))
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
    return math.ceil(SECONDS * spec.rate / grain) * grain


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
def sizes(chain: Chain, x: Any) -> NDArray[np.float32]:
    """The mean size of what each stage gives ``(S,)``."""
    found = []
    for stage in chain.stages:
        x, _ = stage(x, stage.initial(1))
        found.append(float(x.float().abs().mean()))
    return np.array(found, np.float32)


def culprit(chain: Chain, x: Any, golden: Golden) -> str:
    """What may be to blame for other answers: the first stage that differs, and versions that do."""
    stored = golden.sizes
    apart = np.abs(sizes(chain, x) - stored) > APART * np.abs(stored)
    first = "no stage differs much"
    if apart.any():
        first = f"the first stage to differ is {chain.names[int(apart.argmax())]!r}"
    return f"{first}; {changes(golden.versions)}"


def changes(before: Mapping[str, str]) -> str:
    """Which versions are others now."""
    now = versions()
    others = {name: before[name] for name in LIBRARIES if name in before and before[name] != now.get(name)}
    found = [f"{name} was {old!r:.40} and is {now.get(name)!r}" for name, old in others.items()]
    return ", ".join(found) or "the versions of the libraries are the same"
