"""What every extractor of pictures begins with: the model's pictures, as numbers from 0 to 1."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.extractors.extractor import Extractor
from pipeline.layers.stage import State
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Fit, Picture

Size = Annotated[int, Field(ge=1, le=4096)]
Rate = Annotated[int, Field(ge=1, le=1000)]
Colour = Literal["rgb", "grey"]
Array = NDArray[Any]


class Pixels(Extractor):
    """Base: takes pictures ``(B, T, 3, H, W)``, 0 ... 255, uint8 or float; one output step per picture.

    ``height``, ``width``, ``how`` and ``rate`` say what pictures, and are stored with the model (``picture.py``).
    """

    def __init__(
        self, rate: Rate = 10, height: Size = 112, width: Size = 112, how: Fit = "crop", colour: Colour = "rgb"
    ) -> None:
        """``rate`` in pictures a second, ``how`` other shapes are fitted, and ``colour`` or grey (Rec. 601 luma)."""
        super().__init__()
        self.spec = InputSpec(picture=Picture(rate, height, width, how))
        self.rate, self.in_shape = rate, (3, height, width)
        self.channels: PositiveInt = 3 if colour == "rgb" else 1

    def scaled(self, x: Tensor) -> Tensor:
        """``(B, T, 3, H, W)`` in 0 ... 255 to ``(B, T, channels, H, W)`` in 0 ... 1."""
        x = x.to(self.anchor.dtype) / 255
        return x if self.channels == 3 else grey(x)


class RowByRow(Pixels):
    """Base of what another library computes: row by row, on the CPU, and without gradients."""

    costly = compares = uncounted = True

    @torch.no_grad()
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Row by row, then ``finish``."""
        x = x.to("cpu", torch.float32)
        images, greys = (
            part.round().clamp(0, 255).to(torch.uint8).numpy() for part in (x.permute(0, 1, 3, 4, 2), grey(x)[:, :, 0])
        )
        memory = [part.to("cpu", torch.float32).numpy() for part in state]
        rows = [self.row(images[n], greys[n], [part[n] for part in memory]) for n in range(len(x))]
        *found, after = zip(*rows, strict=True)
        y = self.finish(*(torch.from_numpy(np.stack(part)) for part in found)).to(self.anchor)
        return y, tuple(torch.from_numpy(np.stack(part)).to(self.anchor) for part in zip(*after, strict=True))

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Any, ...]:
        """One row's pictures ``(T, H, W, 3)`` uint8, and in grey, to what ``finish`` takes, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} has no row")

    def finish(self, *found: Tensor) -> Tensor:
        """What the rows found, stacked, to the features."""
        return found[0]


def grey(x: Tensor) -> Tensor:
    """Luma of ``(..., 3, H, W)`` as ``(..., 1, H, W)``: ITU-R BT.601."""
    red, green, blue = x.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)
