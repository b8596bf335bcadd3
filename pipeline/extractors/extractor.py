"""What an extractor is: the first Stage of a model, which says what the model takes in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.core.package import PackageFile
from pipeline.layers.stage import Stage
from pipeline.layers.standardize import Standardize
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch


class Extractor(Stage):
    """Base of all extractors.

    Attributes:
        spec: what it takes, and on which clock.
        costly: fixed and slow, so that a training does better to compute it once for each clip.
        uncounted: computed by another library, so that ``cost.py`` cannot count it.
        learning_share: at which share of the learning rate it learns.
        borrowed: the weights of others that it has, if any.
        compares: each picture with the one before, so that what it makes of the first after a loss means nothing.
    """

    spec: InputSpec
    costly = False
    compares = False
    uncounted = False
    learning_share = 1.0
    borrowed: PackageFile | None = None

    def fetch(self) -> None:
        """Read pretrained weights, if any; called once, before a training. Afterwards they are in the model's file."""

    def meet(self, batch: Batch) -> None:
        """Learn of a batch of training clips, before the training; those by which features are standardised."""

    def recorded(self, config: dict[str, Any]) -> dict[str, Any]:
        """Its settings as a model's file has them: with what it has found out itself."""
        return config

    def fronts(self) -> list[tuple["Extractor", Standardize | None]]:
        """The extractor of each track, with its own normalisation; None: the model's is enough."""
        return [(self, None)]

    def lasting(self) -> Tensor:
        """Which features ``(F,)``, or ``(1,)`` for all, have a mean that lasts, as training hardly changes it."""
        return torch.tensor([bool(self.borrowed) or not any(one.requires_grad for one in self.parameters())])

    def bands(self) -> Tensor | None:
        """Hz around which its features ``(F,)`` stand, rising; None if they are no axis of frequency."""
        return None

    def mirror(self, features: Tensor) -> Tensor:
        """What would have been made, ``(B, T, C, H, W)``, of pictures turned left to right. ConfigError for vectors."""
        if features.ndim != 5:
            raise ConfigError("augment.flip: vectors cannot be turned round; set augment.where=pixels")
        return features.flip(-1)

    def over_images(self, features: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Features of which ``change`` has changed the images ``(B, T, C, H, W)``, as they move and grow together."""
        return change(features) if features.ndim == 5 else features

    def join(self, features: list[Tensor], present: Tensor | None) -> Tensor:
        """Features of each track of whole clips, as ``fronts`` make them, to what the extractor as a whole makes."""
        return features[0]
