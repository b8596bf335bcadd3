"""Motion and change in the region that moves, wherever it is and however large: what a gesture looks like to a camera.

Where something has changed, against a background that adapts (Wren et al., Pfinder, PAMI 1997), mean and spread of the
places say where a person acts and how large; so the one who stands far away fills the same grid as the one who is near.
Motion is Farnebäck's (SCIA 2003). Change shows what motion cannot: an arm that is held.
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from pipeline.extractors.flow import averaged, farneback, steady
from pipeline.extractors.pixels import Pixels, Rate, Size, grey
from pipeline.layers.lean import Array
from pipeline.layers.stage import State
from pipeline.media.picture import Fit

CELL = 4  # pixels a side, over which everything is averaged before the region is cut out
SLOW = 0.04  # difference of a pixel in 0 ... 1 from the slow background that is noise
FAST = 0.02  # difference of a cell from the fast one
DRIFT = 0.01  # what the light may change beyond three quarters of all cells
SMALLEST = 0.12  # half the region's height, of half a picture's
FINE = 4  # samples a side for each cell of the region
POWER = 0.3  # of a cell's change, as a weight of its place: that anything has changed counts more than how much
CHANNELS = 6


class MovingRegion(Pixels):
    """Motion and change on a grid over the region that moves: ``(B, T, 3, H, W)`` to ``(B, T, 6, cells, cells)``.

    The channels are motion to the right, to the left, downwards and upwards (picture heights per second), the camera's
    (the median) taken off, so that a hand that goes to and fro does not vanish in a mean; the difference from a
    background that follows in ``slow`` seconds, and from one that follows in ``fast`` seconds. They are means over the
    last ``smooth`` seconds (exponential), and square roots, so that small changes count beside large.

    The region is a square round the mean place of all change, ``reach`` times as high to each side as the places
    deviate; changes are forgotten in ``memory`` seconds, and at first it is more than the whole picture, whose outside
    is zeros. It looks back only. Not differentiable; computed on the CPU.
    """

    costly = compares = uncounted = True

    def __init__(
        self,
        rate: Rate = 10,
        height: Size = 120,
        width: Size = 160,
        how: Fit = "crop",
        cells: PositiveInt = 10,
        reach: PositiveFloat = 2.5,
        window: Annotated[int, Field(ge=3)] = 7,
        slow: PositiveFloat = 4.0,
        fast: PositiveFloat = 0.3,
        memory: PositiveFloat = 10.0,
        smooth: PositiveFloat = 0.2,
    ) -> None:
        """``cells`` a side. ``window``: pixels over which Farnebäck averages. ``slow``, ``fast``, ``memory`` and
        ``smooth``: seconds, at least a picture's period.

        ValueError if the picture is too small, or not a multiple of 4 pixels.
        """
        super().__init__(rate, height, width, how)
        if height % CELL or width % CELL or min(height, width) < 16:
            raise ValueError(
                f"extractor.height, extractor.width: {height}x{width}; expected multiples of {CELL}, at least 16x16"
            )
        for key, seconds in (("slow", slow), ("fast", fast), ("memory", memory), ("smooth", smooth)):
            if seconds * rate < 1:
                raise ValueError(f"extractor.{key}: {seconds} s is less than a picture's period, {1 / rate:.3g} s")
        self.cells, self.reach, self.window = cells, reach, window
        self.slow, self.fast, self.memory = 1 / (slow * rate), 1 / (fast * rate), 1 / (memory * rate)
        self.smooth = 1 / (smooth * rate)
        self.out_shape = (CHANNELS, cells, cells)

    def initial(self, batch: int) -> State:
        """No picture yet: its place, two backgrounds, the last maps, weights of change, and whether one was seen."""
        size = self.in_shape[1:]
        grid = size[0] // CELL, size[1] // CELL
        return (
            self.zeros(batch, *size),
            self.zeros(batch, *size, 3),
            self.zeros(batch, *size, 3),
            self.zeros(batch, CHANNELS, *grid),
            self.zeros(batch, *grid),
            self.zeros(batch, 1),
        )

    def mirror(self, features: Tensor) -> Tensor:
        """What went to the right goes to the left."""
        return features.flip(-1)[..., [1, 0, 2, 3, 4, 5], :, :]

    @torch.no_grad()
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The state is the last picture in grey, both backgrounds, the last maps, and the places of change."""
        images = x.permute(0, 1, 3, 4, 2).to("cpu", torch.float32).round().clamp(0, 255).to(torch.uint8).numpy()
        greys = grey(x.to("cpu", torch.float32))[:, :, 0].round().clamp(0, 255).to(torch.uint8).numpy()
        rows = [
            self.row(images[row], greys[row], [part[row].to("cpu", torch.float32).numpy() for part in state])
            for row in range(len(x))
        ]
        maps, places, after = zip(*rows, strict=True)
        y = self.cut(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(places)))
        return y.to(self.anchor), tuple(
            torch.from_numpy(np.stack(parts)).to(self.anchor) for parts in zip(*after, strict=True)
        )

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Array, Array, list[Array]]:
        """One row's pictures to maps ``(T, 6, H/4, W/4)``, the weights of change till then, and the next state."""
        import cv2

        past, slow, fast, mean, weight, seen = state
        before, known = past.astype(np.uint8), bool(seen[0])
        maps, places = [], []
        for image, now in zip(images, greys, strict=True):
            picture = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32) / 255
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
        flow = steady(farneback(before, now, self.window)) * np.float32(self.rate / len(now))
        across, down = self.averaged(flow).transpose(2, 0, 1)
        return [np.maximum(part, 0) for part in (across, -across, down, -down)]

    def averaged(self, pixels: Array) -> Array:
        """``(H, W, ...)`` to ``(H/4, W/4, ...)``."""
        return averaged(pixels, pixels.shape[0] // CELL, pixels.shape[1] // CELL)

    def cut(self, maps: Tensor, weights: Tensor) -> Tensor:
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
