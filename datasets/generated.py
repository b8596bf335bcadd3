"""What datasets made on the fly share: clips in three splits, drawn from seeds; for pictures, a textured ground."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch.utils.data import Dataset

from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.media.picture import Images, Picture
from pipeline.media.sample import Sample, Span

Rng = np.random.Generator
Event = tuple[int, int, str]  # start and end in ticks (or pictures), label
Film = tuple[Images, list[Event]]  # pictures, and what happens in them


@dataclass(eq=False)
class Generated:
    """Endless labelled clips: ``clips`` per epoch, new ones in each; validation and test are fixed sets.

    Subclasses set ``title`` (of the dataset's yaml), ``labels`` and ``background``, and write ``check`` and ``make``.

    Attributes:
        seconds: in which something happens, after up to ``gap`` seconds in which nothing does.
        held_out: clips each for validation and test.
    """

    title: ClassVar[str]
    labels: list[str] = field(init=False)
    background: str | None = field(init=False, default=None)
    clips: PositiveInt = 960
    seconds: Annotated[float, Field(ge=1)] = 1.6
    seed: int = 0
    held_out: PositiveInt = 520
    gap: Annotated[float, Field(ge=0)] = 0.4

    def check(self, spec: InputSpec) -> None:
        """ConfigError for a model of other tracks."""
        raise NotImplementedError

    def make(self, rng: Rng, label: str, split: str, spec: InputSpec) -> tuple[Arrays, list[Event]]:
        """The tracks of one clip of ``label``, and what happens when in it, in ticks."""
        raise NotImplementedError

    def split(self, name: str, spec: InputSpec) -> "GeneratedSplit":
        """``train``, ``val`` or ``test``; their random draws have nothing in common."""
        self.check(spec)
        return GeneratedSplit(self, name, spec)


class GeneratedSplit(Dataset[Sample]):
    """Clips of one split, the classes in turn."""

    def __init__(self, recipe: Generated, name: str, spec: InputSpec) -> None:
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
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.number, 0 if self.number else self.epoch, index])
        label = recipe.labels[index % len(recipe.labels)]
        x, events = recipe.make(rng, label, self.name, self.spec)
        spans: list[Span] = [(start, end, recipe.labels.index(name)) for start, end, name in events]
        key = f"{recipe}/{self.number}/{index}" if self.number else ""
        return Sample(x, (recipe.labels.index(label),), spans, f"{label}_{index}", key)


class Motions(Generated):
    """Clips of motions. Subclasses write ``motion``."""

    def check(self, spec: InputSpec) -> None:
        """ConfigError for a model of sound."""
        spec.require_pictures(f"dataset={self.title}")

    def make(self, rng: Rng, label: str, split: str, spec: InputSpec) -> tuple[Arrays, list[Event]]:
        """As ``motion``, in ticks."""
        images, events = self.motion(rng, label, split, spec.require_pictures(f"dataset={self.title}"))
        return spec.from_pictures(images), [(start * spec.grain, end * spec.grain, name) for start, end, name in events]

    def motion(self, rng: Rng, label: str, split: str, picture: Picture) -> Film:
        """The pictures ``(T, H, W, 3)`` of one clip of ``label``, and its motions, counted in pictures."""
        raise NotImplementedError


def write_recordings(
    folder: Path, scene: NDArray[Any], events: Iterable[Event], clips: Iterable[Sample], rate: int,
    write: Callable[[Path, Any, int], None], ending: str,
) -> None:  # fmt: skip
    """``scene`` at ``rate``, a table of its ``events`` beside it, whose times are in units of 1 / ``rate`` seconds, and
    ``clips`` in a folder.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    write(folder / f"scene.{ending}", scene, rate)
    with open(folder / "scene.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["start", "end", "label"])
        rows.writerows([f"{start / rate:.3f}", f"{end / rate:.3f}", label] for start, end, label in events)
    for sample in clips:
        write(folder / "clips" / f"{sample.name}.{ending}", sample.x[0], rate)


def draw_ground(rng: Rng, height: int, width: int) -> NDArray[Any]:
    """Smooth waves of one brightness: the ground ``(H, W, 3)``."""
    y, x = np.mgrid[:height, :width] / height
    level = rng.choice([rng.uniform(25, 90), rng.uniform(165, 230)])
    waves = sum(
        rng.uniform(3, 9) * np.sin(2 * np.pi * (rng.uniform(-3, 3) * x + rng.uniform(-3, 3) * y + rng.random()))
        for _ in range(4)
    )
    ground: NDArray[Any] = (level + waves)[..., None] + rng.uniform(-15, 15, 3)
    return ground.astype(np.float32)


def draw_colours(rng: Rng, ground: NDArray[Any]) -> NDArray[Any]:
    """Two colours ``(2, 3)`` that stand out from a ground."""
    return rng.uniform(*((150, 250) if ground.mean() < 128 else (5, 105)), (2, 3))


def add_camera_noise(rng: Rng, sight: NDArray[Any]) -> Images:
    """``sight (T, H, W, 3)`` as a camera gives it, in whole numbers."""
    sight += rng.uniform(0, 8) * rng.standard_normal(sight.shape, np.float32)
    return sight.clip(0, 255).astype(np.uint8)
