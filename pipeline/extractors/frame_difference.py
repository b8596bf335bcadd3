"""What has changed since the picture before: the cheapest measure of motion."""

import torch
from torch import Tensor

from pipeline.extractors.pixels import Colour, Pixels, Rate, Size
from pipeline.layers.stage import State
from pipeline.media.picture import Fit


class FrameDifference(Pixels):
    """y(t) = x(t) - x(t-1) on pixels in 0 ... 1, and 0 for the first: ``(B, T, 3, H, W)`` to ``(B, T, C, H, W)``.

    With ``keep``, the picture itself follows as more channels: ``(B, T, 2 C, H, W)``.
    """

    def __init__(
        self,
        rate: Rate = 10,
        height: Size = 112,
        width: Size = 112,
        how: Fit = "crop",
        colour: Colour = "grey",
        keep: bool = False,
    ) -> None:
        """See ``Pixels``."""
        super().__init__(rate, height, width, how, colour)
        self.keep, self.compares = keep, not keep
        self.out_shape = (self.channels * (1 + keep), height, width)

    def initial(self, batch: int) -> State:
        """No picture yet: its place, and whether there was one."""
        return self.zeros(batch, self.channels, *self.in_shape[1:]), self.zeros(batch, 1)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is the last picture."""
        past, seen = state
        x = self.scaled(x)
        first = torch.where(seen[:, :, None, None] > 0, past, x[:, 0])
        y = x - torch.cat([first[:, None], x[:, :-1]], 1)
        return (torch.cat([y, x], 2) if self.keep else y), (x[:, -1].clone(), torch.ones_like(seen))
