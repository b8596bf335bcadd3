"""Pictures as a model takes them: one size, one rate, and the one routine that makes them so.

Training, batches of files and cameras all pass through ``Picture.fit``, so there is no gap between them. The settings
are those of the model's extractor, and are stored with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from math import ceil
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (H, W, 3), RGB
Images = NDArray[np.uint8]  # (T, H, W, 3)
Fit = Literal["crop", "pad", "stretch"]
T = TypeVar("T")
TRANSFORMS = "torchvision.transforms.v2"
MAX_PIXELS = 7680 * 4320  # of one picture of a file or a camera


@dataclass(frozen=True)
class Picture:
    """``rate`` pictures a second of ``height`` x ``width`` pixels.

    ``how`` pictures of another shape are fitted: ``crop`` cuts the middle out, ``pad`` sets them between black bars,
    ``stretch`` distorts them.
    """

    rate: int
    height: int
    width: int
    how: Fit = "crop"

    def __post_init__(self) -> None:
        import_module(TRANSFORMS)  # now, and not while a camera waits

    def fit(self, image: Image, aspect: float = 1.0) -> Image:
        """A picture ``(h, w, 3)`` whose pixels are ``aspect`` times as wide as high, as ``(height, width, 3)``.

        Antialiased bilinear (torchvision v2 on uint8). A picture that has the size already comes back as it is.
        """
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width) and (aspect == 1.0 or self.how == "stretch"):
            return image
        shape, target = width * aspect / height, self.width / self.height
        if self.how == "pad":
            narrow = shape < target
            inner_height = self.height if narrow else max(1, round(self.width / shape))
            inner_width = max(1, round(self.height * shape)) if narrow else self.width
            framed = np.zeros((self.height, self.width, 3), np.uint8)
            middle(framed, inner_height, inner_width)[:] = resized(image, inner_height, inner_width)
            return framed
        if self.how == "crop" and shape > target:
            image = middle(image, height, max(1, round(height * target / aspect)))
        elif self.how == "crop":
            image = middle(image, max(1, round(width * aspect / target)), width)
        return resized(image, self.height, self.width)


def middle(image: Image, height: int, width: int) -> Image:
    """The middle of a picture, not copied."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def resized(image: Image, height: int, width: int) -> Image:
    """Antialiased bilinear resize; on the channels-last view, which is several times faster than on planes."""
    import torch  # sound can do without

    functional = import_module(TRANSFORMS).functional
    view = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    small: torch.Tensor = functional.resize(view, [height, width], antialias=True)
    return np.ascontiguousarray(small.permute(1, 2, 0).numpy())


def on_grid(frames: Iterator[tuple[Fraction, Fraction, T]], rate: int) -> Iterator[tuple[T, int]]:
    """Frames ``(start, end, frame)`` in seconds to frames at ``rate`` a second, each with how often it is shown.

    The frame shown at time k / rate is the last one whose time stamp is at or before it; nothing is ever computed from
    an index and an average rate. Before the first frame, nothing is shown. The last one is shown until its end, and at
    least once if none was before it and it does not end before time 0.
    """
    shown, alone, last = 0, True, None
    for start, end, frame in frames:
        following = max(0, ceil(start * rate))  # the first grid point of this frame
        if last is None:
            shown = following
        elif following > shown:
            yield last[1], following - shown
            shown, alone = following, False
        last = end, frame
    if last is not None and last[0] > 0:
        count = max(ceil(last[0] * rate) - shown, int(alone))
        if count > 0:
            yield last[1], count


def to_fraction(seconds: float) -> Fraction:
    """Seconds as people write them: 0.3 is three tenths."""
    return Fraction(seconds).limit_denominator(1_000_000)
