"""Random changes to sound with pictures, and the loss of either."""

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from pipeline.augmentations.augmentation import Augmentation
from pipeline.augmentations.pictures import AugmentPictures
from pipeline.augmentations.sound import Augment
from pipeline.extractors.extractor import Extractor
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch

Share = Annotated[float, Field(ge=0, lt=1)]


class AugmentBoth(Augmentation):
    """Each track changed in its own way, but not in time; and a track taken away at random.

    Where one class has sound more often than another, its absence would be learnt as a label; a clip that may lose any
    track at any time teaches to work with what is there.
    """

    def __init__(
        self,
        sound: Augment,
        picture: AugmentPictures,
        lose_sound: Share = 0.3,
        lose_picture: Share = 0.15,
        mixup: NonNegativeFloat = 0.0,
    ) -> None:
        """Shares of the clips that lose a track; of those with both, none loses both. ValueError for settings that
        would take the tracks apart, or that cannot act.
        """
        apart = "sound and pictures would come apart"
        for keys, why in (
            ([f"picture.{key}" for key in picture.time_keys()], apart),
            ([f"picture.{key}" for key in ("offset", "noise") if getattr(picture, key)], "features are joined before"),
            ([f"sound.{key}" for key in sound.time_keys()], apart),
            (["sound.masks"] if sound.masks else [], "features are joined before they are masked"),
            (
                [] if picture.raw else [f"sound.{key}" for key in sound.sample_keys()],
                "augment.picture.where=features are computed only once",
            ),
        ):
            if keys:
                raise ValueError(f"{' and '.join(f'augment.{key}' for key in keys)} must be 0: {why}")
        if sound.mixup or picture.mixup:
            raise ValueError("augment.sound.mixup and augment.picture.mixup must be 0: set augment.mixup, for both")
        if lose_sound + lose_picture > 1:
            raise ValueError("augment.lose_sound and augment.lose_picture must not be more than 1 together")
        self.sound, self.picture, self.mixup = sound, picture, mixup
        self.lose_sound, self.lose_picture = lose_sound, lose_picture
        self.raw = picture.raw

    def clips(self, batch: Batch, spec: InputSpec) -> Batch:
        """Sound and pixels changed; marks of absence set."""
        batch = self.picture.clips(batch, spec)
        if self.raw:
            batch = self.sound.clips(batch, spec)
        samples, pictures, present = batch.x
        return replace(batch, x=(samples, pictures, self.drop_tracks(present)))

    def setup(self, labels: list[str], extractor: Extractor) -> None:
        """For flips and recordings. ConfigError for a model of one track."""
        if not extractor.spec.both:
            raise self.refuse("sound and pictures", extractor.spec)
        self.picture.setup(labels, extractor)
        self.sound.setup_sound(extractor.fronts()[0][0], "augment.sound")

    def tracks(self, features: list[Tensor], batch: Batch, front: Extractor) -> tuple[list[Tensor], Batch]:
        """The features of each changed."""
        return self.picture.tracks(*self.sound.tracks(features, batch, front), front)

    def drop_tracks(self, present: Tensor) -> Tensor:
        """Marks ``(B, T, 2)`` with a track less in some rows that have both."""
        both = present.amax(1).sum(1) > 1
        draw = torch.rand(len(present))
        lost = torch.stack([draw < self.lose_sound, draw > 1 - self.lose_picture], 1) & both[:, None]
        return present * (~lost[:, None]).to(present)
