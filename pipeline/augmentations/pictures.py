"""Random changes to moving pictures that leave the label true: in space, in light and in time."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipeline.augmentations.augmentation import Augmentation, draw_symmetric
from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch, Span

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(eq=False)
class AugmentPictures(Augmentation):
    """Each clip draws one place, size, light and speed for all its pictures.

    Attributes:
        where: ``pixels`` or ``features``: then an extractor that is slow and fixed (optical flow, a frozen network)
            runs only once for each clip, and its images are moved, scaled and played faster or slower instead.
        shift: up to this share of width and height aside.
        scale: larger or smaller by up to e to this power.
        brightness: up or down by this share of white, ``contrast`` of the differences (pixels; features are multiplied
            by it).
        speed: faster or slower.
        jitter: share of pictures in whose place a neighbour in time is seen.
        drop: share that are lost, so that the one before stands still.
        mixup: see ``Augmentation``.
        flip: left and right for half of the clips: only where no label depends on it, but for the pairs that ``swap``
            says become each other.
        offset, noise: for features that are vectors, what is added to each number of a clip as a whole, and at each
            step, normally distributed, in deviations of the training data.

    ValueError for ``swap`` without ``flip``.
    """

    where: Literal["pixels", "features"] = "pixels"
    shift: Share = 0.1
    scale: Share = 0.15
    brightness: Share = 0.2
    contrast: Share = 0.2
    speed: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    jitter: Share = 0.1
    drop: Share = 0.1
    mixup: NonNegativeFloat = 0.0
    flip: bool = False
    swap: list[tuple[str, str]] | None = None
    offset: NonNegativeFloat = 0.0
    noise: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        if self.swap and not self.flip:
            raise ValueError("augment.swap would never act: set augment.flip=true")
        self.turned = torch.zeros(0, dtype=torch.int64)  # the class that each class becomes
        self.raw = self.where == "pixels"

    def time_keys(self) -> list[str]:
        """The keys in use that act in time."""
        return [key for key in ("speed", "jitter", "drop") if getattr(self, key)]

    def setup(self, labels: list[str], extractor: Extractor) -> None:
        """What each class becomes when left and right change places. ConfigError for a model of sound alone."""
        if extractor.spec.picture is None:
            raise self.refuse("pictures", extractor.spec)
        self.turned = torch.arange(len(labels))
        for pair in self.swap or []:
            for label, other in (pair, pair[::-1]):
                if label not in labels:
                    raise ConfigError(f"augment.swap: no clip has the label {label!r}{nearest(label, labels)}")
                self.turned[labels.index(label)] = labels.index(other)

    def clips(self, batch: Batch, spec: InputSpec) -> Batch:
        """Pixels ``(B, T, H, W, 3)`` uint8, and the times with them. Together with sound, nothing changes in time."""
        if not self.raw:
            return batch
        number = 1 if spec.both else 0
        x = batch.x[number].permute(0, 1, 4, 2, 3)
        if not spec.both:
            x, batch = self.change_time(x, batch)
        x, batch = self.flip_clips(x, batch, lambda pictures: pictures.flip(-1))
        x = self.change_light(self.move_and_scale(x.float()))
        x = x.clamp(0, 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
        return replace(batch, x=(*batch.x[:number], x, *batch.x[number + 1 :]))

    def tracks(self, features: list[Tensor], batch: Batch, front: Extractor) -> tuple[list[Tensor], Batch]:
        """Images ``(B, T, C, H, W)`` of features in space and time, vectors ``(B, T, F)`` in time."""
        if self.raw:
            return features, batch
        x = features[-1]
        if len(features) == 1:
            x, batch = self.change_time(x, batch)
        x, batch = self.flip_clips(x, batch, front.mirror)
        return [*features[:-1], front.over_images(x, self.change_images)], batch

    def change_images(self, x: Tensor) -> Tensor:
        """Images of features elsewhere, larger or smaller, and stronger or weaker."""
        return self.move_and_scale(x) * (1 + self.contrast * draw_symmetric(len(x))).to(x.device).view(-1, 1, 1, 1, 1)

    def features(self, x: Tensor, step: float) -> Tensor:
        """Standardised vectors ``(B, T, F)`` somewhat aside, as in another place, and uneven."""
        if x.ndim == 3 and self.offset:
            x = x + self.offset * torch.randn(len(x), 1, x.shape[2]).to(x)
        if x.ndim == 3 and self.noise:
            x = x + self.noise * torch.randn(x.shape).to(x)
        return x

    def flip_clips(self, x: Tensor, batch: Batch, mirror: Callable[[Tensor], Tensor]) -> tuple[Tensor, Batch]:
        """Half of the clips turned left to right, and their labels with them."""
        if not self.flip:
            return x, batch
        chosen = torch.rand(len(x)) < 0.5
        x = torch.where(chosen.to(x.device).view(-1, *[1] * (x.ndim - 1)), mirror(x), x)
        same = list(range(len(self.turned)))
        becomes = [self.turned.tolist() if turned else same for turned in chosen.tolist()]
        labels = [tuple(new[label] for label in row) for row, new in zip(batch.labels, becomes, strict=True)]
        spans = [
            row and [(start, end, new[label]) for start, end, label in row]
            for row, new in zip(batch.spans, becomes, strict=True)
        ]
        return x, replace(batch, labels=labels, spans=spans)

    def change_time(self, x: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Each clip at its own speed, with neighbours for some pictures and the one before for others."""
        factor = 1 + self.speed * draw_symmetric(len(x))
        lengths = (batch.lengths / factor).long().clamp(min=1)
        longest = int(lengths.max())
        index = (torch.arange(longest)[None] * factor[:, None]).long()
        index = index + torch.where(torch.rand(index.shape) < self.jitter, torch.randint(-1, 2, index.shape), 0)
        lost = torch.rand(index.shape) < self.drop
        kept = torch.where(lost, 0, torch.arange(longest)[None]).cummax(1).values  # the last that was not lost
        index = index.gather(1, kept).clamp(min=0)
        index = torch.minimum(index, batch.lengths[:, None] - 1)
        rows = torch.arange(len(x))[:, None]
        spans = [rescale_spans(row, float(by)) for row, by in zip(batch.spans, factor, strict=True)]
        return x[rows.to(x.device), index.to(x.device)], replace(batch, lengths=lengths, spans=spans)

    def move_and_scale(self, x: Tensor) -> Tensor:
        """Moved and scaled; what comes in at the borders is the nearest there is."""
        rows = len(x)
        if not (self.shift or self.scale):
            return x
        size = (self.scale * draw_symmetric(rows)).exp()
        theta = torch.zeros(rows, 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = size, size
        theta[:, :, 2] = 2 * self.shift * draw_symmetric(rows, 2)
        flat = x.flatten(1, 2)
        grid = affine_grid(theta.to(x), list(flat.shape), align_corners=False)
        return grid_sample(flat, grid, padding_mode="border", align_corners=False).view(x.shape)

    def change_light(self, x: Tensor) -> Tensor:
        """Brighter or darker, with more or less contrast around middle grey."""
        contrast = (1 + self.contrast * draw_symmetric(len(x))).view(-1, 1, 1, 1, 1)
        brightness = (255 * self.brightness * draw_symmetric(len(x))).view(-1, 1, 1, 1, 1)
        return (x - 127.5) * contrast.to(x) + 127.5 + brightness.to(x)


def rescale_spans(spans: list[Span] | None, factor: float) -> list[Span] | None:
    """Spans of a clip that is played ``factor`` times as fast."""
    if spans is None:
        return None
    return [
        (round(start / factor), max(round(start / factor) + 1, round(end / factor)), label)
        for start, end, label in spans
    ]
