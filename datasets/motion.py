"""What datasets of motions made on the fly share: clips in three splits, drawn from seeds, and a textured ground."""

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch.utils.data import Dataset

from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Images, Picture
from pipeline.media.sample import Sample, Span

Rng = np.random.Generator
Seen = tuple[Images, list[tuple[int, int, str]]]  # pictures, and (start, end, label) counted in pictures


class Motions:
    """Endless labelled motions: ``clips`` per epoch, new ones in each; validation and test are fixed sets.

    Subclasses set ``title`` (of the dataset's yaml), ``labels`` and ``background``, and write ``motion``.
    """

    title: str
    labels: list[str]
    background: str | None = None

    def __init__(
        self,
        clips: PositiveInt = 960,
        seconds: Annotated[float, Field(ge=1)] = 1.6,
        seed: int = 0,
        held_out: PositiveInt = 520,
        gap: Annotated[float, Field(ge=0)] = 0.4,
    ) -> None:
        """Each clip moves for ``seconds``, after up to ``gap`` seconds in which nothing does; ``held_out`` clips each
        for validation and test.
        """
        self.clips, self.seconds, self.seed, self.held_out, self.gap = clips, seconds, seed, held_out, gap

    def motion(self, rng: Rng, label: str, split: str, picture: Picture) -> Seen:
        """The pictures ``(T, H, W, 3)`` of one clip of ``label``, and where its motions stand."""
        raise NotImplementedError(f"{type(self).__name__} has no motion")

    def split(self, name: str, spec: InputSpec) -> "MotionSplit":
        """``train``, ``val`` or ``test`` for a model of pictures; their random draws have nothing in common."""
        spec.require_pictures(f"dataset={self.title}")
        return MotionSplit(self, name, spec)


class MotionSplit(Dataset[Sample]):
    """Clips of one split, the classes in turn."""

    def __init__(self, recipe: Motions, name: str, spec: InputSpec) -> None:
        self.recipe, self.name, self.spec = recipe, name, spec
        self.number = ("train", "val", "test").index(name)
        self.epoch = 0
        self.fixed = [self.make(index) for index in range(len(self))] if self.number else []

    def __len__(self) -> int:
        return self.recipe.held_out if self.number else self.recipe.clips

    def __getitem__(self, index: int) -> Sample:
        return self.fixed[index] if self.fixed else self.make(index)

    def make(self, index: int) -> Sample:
        """Clip ``index`` of this epoch."""
        recipe, picture = self.recipe, self.spec.require_pictures(f"dataset={self.recipe.title}")
        rng = np.random.default_rng([recipe.seed, self.number, 0 if self.number else self.epoch, index])
        label = recipe.labels[index % len(recipe.labels)]
        images, spans = recipe.motion(rng, label, self.name, picture)
        grain = self.spec.grain
        numbers: list[Span] = [(a * grain, b * grain, recipe.labels.index(name)) for a, b, name in spans]
        key = f"{recipe.title}/{recipe.seed}/{self.number}/{index}" if self.number else ""
        return Sample(self.spec.from_pictures(images), recipe.labels.index(label), numbers, f"{label}_{index}", key)


def texture(rng: Rng, height: int, width: int) -> NDArray[Any]:
    """Smooth waves of one brightness: the ground ``(H, W, 3)``."""
    y, x = np.mgrid[:height, :width] / height
    level = rng.choice([rng.uniform(25, 90), rng.uniform(165, 230)])
    waves = sum(
        rng.uniform(3, 9) * np.sin(2 * np.pi * (rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y + rng.random()))
        for _ in range(4)
    )
    ground: NDArray[Any] = (level + waves)[..., None] + rng.uniform(-15, 15, 3)
    return ground.astype(np.float32)


def colours(rng: Rng, ground: NDArray[Any]) -> NDArray[Any]:
    """Two colours ``(2, 3)`` that stand out from a ground."""
    return rng.uniform(*((150, 250) if ground.mean() < 128 else (5, 105)), (2, 3))


def filmed(rng: Rng, sight: NDArray[Any]) -> Images:
    """``sight (T, H, W, 3)`` as a camera gives it: with noise, in whole numbers."""
    sight += rng.uniform(0, 8) * rng.standard_normal(sight.shape, np.float32)
    return sight.clip(0, 255).astype(np.uint8)
