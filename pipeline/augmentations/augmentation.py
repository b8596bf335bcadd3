"""What changes training data so that their labels stay true. Three places where it can act; the base acts nowhere."""

import torch
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.media.input_spec import InputSpec
from pipeline.media.sample import Batch


class Augmentation:
    """Base of all augmentations. They draw from torch's global generator, so a seed repeats a run.

    ``raw`` says whether ``clips`` changes anything; if not, features that are slow to compute are computed once.
    ``mixup``: parameter of the Beta distribution of Zhang et al. (2018), by which pairs of clips are mixed; 0 is off.
    """

    raw = False
    mixup = 0.0

    def setup(self, labels: list[str], extractor: Extractor) -> None:
        """The classes in the order of their numbers, and what hears and sees; ConfigError for what does not suit.

        Called before data are read, and again before the training.
        """

    @staticmethod
    def refuse(what: str, spec: InputSpec) -> ConfigError:
        """The error that it changes ``what`` the model does not take; it names the augmentation to choose."""
        better = "both" if spec.both else "pictures" if spec.picture else "light" if spec.sound else "none"
        return ConfigError(f"augment: changes {what}, but the model takes {spec.what}; choose augment={better}")

    def clips(self, batch: Batch, spec: InputSpec) -> Batch:
        """A batch whose samples and pixels, lengths and times are changed alike."""
        return batch

    def tracks(self, features: list[Tensor], batch: Batch, front: Extractor) -> tuple[list[Tensor], Batch]:
        """The features of each track ``(B, T, ...)``, as the extractors make them, and the batch they belong to.

        ``front``: the extractor of the last track, which knows what is an image and what left to right is in it.
        """
        return features, batch

    def features(self, x: Tensor, step: float) -> Tensor:
        """Standardised features ``(B, T, F)``; ``step`` in seconds."""
        return x


def draw_symmetric(*shape: int) -> Tensor:
    """Uniform from -1 to 1."""
    return 2 * torch.rand(*shape) - 1
