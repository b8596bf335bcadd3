"""Motion and change in the region that moves, wherever it is and however large: what a gesture looks like to a camera.

Where something has changed, against a background that adapts (Wren et al., Pfinder, PAMI 1997), mean and spread of the
places say where a person acts and how large; so the one who stands far away fills the same grid as the one who is near.
Motion is Farnebäck's (SCIA 2003). Change shows what motion cannot: an arm that is held.
"""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from pipeline.extractors.flow import CELL, CellMotion, blurred
from pipeline.extractors.pixels import Array
from pipeline.layers.stage import State

SLOW = 0.04  # difference of a pixel in 0 ... 1 from the slow background that is noise
FAST = 0.02  # difference of a cell from the fast one
DRIFT = 0.01  # what the light may change beyond three quarters of all cells
SMALLEST = 0.12  # half the region's height, of half a picture's
FINE = 4  # samples a side for each cell of the region
POWER = 0.3  # of a cell's change, as a weight of its place: that anything has changed counts more than how much
CHANNELS = 6


class MovingRegion(CellMotion):
    """Motion and change on a grid over the region that moves: ``(B, T, 3, H, W)`` to ``(B, T, 6, cells, cells)``.

    The channels are motion to the right, to the left, downwards and upwards (picture heights per second), the camera's
    (the median) taken off, so that a hand that goes to and fro does not vanish in a mean; the difference from a
    background that follows in ``slow`` seconds, and from one that follows in ``fast`` seconds. They are means over the
    last ``smooth`` seconds (exponential), and square roots, so that small changes count beside large.

    The region is a square round the mean place of all change, ``reach`` times as high to each side as the places
    deviate; changes are forgotten in ``memory`` seconds, and at first it is more than the whole picture, whose outside
    is zeros.
    """

    def __init__(
        self,
        *args: Any,
        cells: PositiveInt = 10,
        reach: PositiveFloat = 2.5,
        window: Annotated[int, Field(ge=3)] = 7,
        slow: PositiveFloat = 4.0,
        fast: PositiveFloat = 0.3,
        memory: PositiveFloat = 10.0,
        smooth: PositiveFloat = 0.2,
        **options: Any,
    ) -> None:
        """``cells`` a side. ``window``: pixels over which Farnebäck averages. ``slow``, ``fast``, ``memory`` and
        ``smooth``: seconds, at least a picture's period.
        """
        super().__init__(*args, **options)
        self.cells, self.reach, self.window = cells, reach, window
        self.slow, self.fast = self.share("slow", slow), self.share("fast", fast)
        self.memory, self.smooth = self.share("memory", memory), self.share("smooth", smooth)
        self.out_shape = (CHANNELS, cells, cells)

    def initial(self, batch: int) -> State:
        """No picture yet: its place, two backgrounds, the last maps, weights of change, and whether one was seen."""
        height, width = self.in_shape[1:]
        grid, full = (height // CELL, width // CELL), (height, width, 3)
        shapes = (height, width), full, full, (CHANNELS, *grid), grid, (1,)
        return tuple(self.zeros(batch, *shape) for shape in shapes)

    def mirror(self, features: Tensor) -> Tensor:
        """What went to the right goes to the left."""
        return features.flip(-1)[..., [1, 0, 2, 3, 4, 5], :, :]

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Array, Array, list[Array]]:
        """One row's pictures to maps ``(T, 6, H/4, W/4)``, the weights of change till then, and the next state."""
        past, slow, fast, mean, weight, seen = state
        before, known = past.astype(np.uint8), bool(seen[0])
        maps, places = [], []
        for image, now in zip(images, greys, strict=True):
            picture = blurred(image)
            if not known:
                before, slow, fast, known = now, picture, picture, True
            held = self.averaged(np.maximum(np.abs(picture - slow).max(2) - SLOW, 0))
            held = np.maximum(held - np.quantile(held, 0.75).astype(np.float32) - DRIFT, 0)
            quick = np.maximum(self.averaged(np.abs(picture - fast).max(2)) - FAST, 0)
            slow, fast = slow + self.slow * (picture - slow), fast + self.fast * (picture - fast)
            mean = mean + self.smooth * (np.stack([*self.motion(before, now), held, quick]) - mean)
            weight = (1 - self.memory) * weight + held**POWER
            maps.append(mean)
            places.append(weight)
            before = now
        after = [before.astype(np.float32), slow, fast, mean, weight, np.ones_like(seen)]
        return np.stack(maps), np.stack(places), after

    def motion(self, before: Array, now: Array) -> list[Array]:
        """Motion of each cell between two pictures to the right, left, downwards, upwards: each ``(H/4, W/4)``."""
        across, down = self.averaged(self.flow(before, now)).transpose(2, 0, 1)
        return [np.maximum(part, 0) for part in (across, -across, down, -down)]

    def finish(self, maps: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
        """Maps ``(B, T, 6, H/4, W/4)`` to the regions that the weights ``(B, T, H/4, W/4)`` of change tell."""
        flat = maps.flatten(0, 1)
        across, down, half = region(weights.flatten(0, 1), self.reach)
        theta = flat.new_zeros(len(flat), 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = half * flat.shape[2] / flat.shape[3], across
        theta[:, 1, 1], theta[:, 1, 2] = half, down
        side = self.cells * FINE
        grid = affine_grid(theta, [len(flat), CHANNELS, side, side], align_corners=False)
        y = avg_pool2d(grid_sample(flat, grid, align_corners=False), FINE)
        return y.sqrt().view(*maps.shape[:2], *self.out_shape)


def region(weights: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where weights ``(N, rows, columns)`` lie: mean across and down, from -1 to 1, and ``reach`` root mean square
    deviations of both directions, in halves of the picture's height. A weight of 1, spread evenly, is added.
    """
    rows, columns = weights.shape[1:]
    down, across = (torch.linspace(1 / n - 1, 1 - 1 / n, n, dtype=torch.float64) for n in (rows, columns))
    weights = weights.double() + 1 / (rows * columns)
    weights = weights / weights.sum((1, 2), keepdim=True)
    x, y = weights.sum(1), weights.sum(2)
    middle, level = x @ across, y @ down
    wide = (x * (across - middle[:, None]).square()).sum(1) * (columns / rows) ** 2
    high = (y * (down - level[:, None]).square()).sum(1)
    half = reach * ((wide + high) / 2).sqrt()
    return middle.float(), level.float(), half.clamp(min=SMALLEST).float()
