"""The pictures themselves."""

from pydantic import PositiveFloat
from torch import Tensor

from pipeline.extractors.pixels import Colour, Pixels, Rate, Size
from pipeline.layers.stage import State
from pipeline.media.picture import Fit


class Frames(Pixels):
    """(pixel - mean) / std with fixed numbers: ``(B, T, 3, H, W)`` in 0 ... 255 to ``(B, T, C, H, W)``."""

    def __init__(
        self,
        rate: Rate = 10,
        height: Size = 112,
        width: Size = 112,
        how: Fit = "crop",
        colour: Colour = "rgb",
        mean: float = 0.45,
        std: PositiveFloat = 0.225,
    ) -> None:
        """``mean`` and ``std`` of pixels in 0 ... 1."""
        super().__init__(rate, height, width, how, colour)
        self.mean, self.std = mean, std
        self.out_shape = (self.channels, height, width)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return (self.scaled(x) - self.mean) / self.std, state
