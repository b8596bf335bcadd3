"""What has changed since the picture before: the cheapest measure of motion."""

from typing import Any

import torch
from torch import Tensor

from pipeline.extractors.pixels import Pixels
from pipeline.layers.stage import State


class FrameDifference(Pixels):
    """y(t) = x(t) - x(t-1) on pixels in 0 ... 1, and 0 for the first: ``(B, T, 3, H, W)`` to ``(B, T, C, H, W)``.

    With ``keep``, the picture itself follows as more channels: ``(B, T, 2 C, H, W)``.
    """

    def __init__(self, *args: Any, keep: bool = False, **options: Any) -> None:
        """See ``Pixels``, but for the colour, which is grey."""
        super().__init__(*args, **{"colour": "grey"} | options)
        self.keep, self.compares = keep, not keep
        self.out_shape = (self.channels * (1 + keep), *self.in_shape[1:])

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
