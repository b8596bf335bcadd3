"""The pictures themselves."""

from typing import Any

from pydantic import PositiveFloat
from torch import Tensor

from pipeline.extractors.pixels import Pixels
from pipeline.layers.stage import State


class Frames(Pixels):
    """(pixel - mean) / std with fixed numbers: ``(B, T, 3, H, W)`` in 0 ... 255 to ``(B, T, C, H, W)``."""

    def __init__(self, *args: Any, mean: float = 0.45, std: PositiveFloat = 0.225, **options: Any) -> None:
        """``mean`` and ``std`` of pixels in 0 ... 1."""
        super().__init__(*args, **options)
        self.mean, self.std = mean, std
        self.out_shape = (self.channels, *self.in_shape[1:])

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Stateless."""
        return (self.scaled(x) - self.mean) / self.std, state
