"""Where a person's arms are, about the shoulders: the points of BlazePose, and how fast they move."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.extractors.blaze_pose import LOOKS, BlazePose
from pipeline.extractors.pixels import Array, Rate, RowByRow, Size
from pipeline.layers.stage import State
from pipeline.media.picture import Fit

POINTS = [0, 7, 8, *range(11, 25)]  # of BlazePose: nose and ears, from the shoulders to the fingers, and hips
SHOULDERS = [POINTS.index(11), POINTS.index(12)]
TURNED = [0, *(place + (1 if place % 2 else -1) for place in range(1, len(POINTS)))]  # left and right change places
NARROW = 1 / 15  # of the region: shoulders that are nearer to each other are seen from the side


class Pose(RowByRow):
    """Pictures ``(B, T, 3, H, W)`` to ``(B, T, 69)``: whether a person is seen; 17 points of theirs, right and down
    from the middle of the shoulders, in shoulder widths; and how fast they move, in widths per second. All are 0 while
    nobody is seen, and so is the motion at first.

    The state is the region that the last points gave, and these points. Of several persons, the surest one is followed
    until they are lost. While nobody is, each picture is searched in one of several ways in turn.
    """

    def __init__(
        self, rate: Rate = 10, height: Size = 120, width: Size = 160, how: Fit = "crop", path: str | None = None
    ) -> None:
        """``path``: a folder with the package's two files, where the package is not installed."""
        super().__init__(rate, height, width, how)
        self.path = path
        self.out_shape = (1 + 4 * len(POINTS),)

    def fetch(self) -> None:
        """ConfigError now, before a training, if the package or the runtime is missing."""
        _ = self.network.detector.runner, self.network.landmarks.runner

    @cached_property
    def network(self) -> BlazePose:
        """Not in a model's file, so opened where it is first needed."""
        return BlazePose(self.path)

    def initial(self, batch: int) -> State:
        """Nobody: the region, the points, and the next search plus 1, or 0 where somebody was seen."""
        return self.zeros(batch, 4), self.zeros(batch, len(POINTS), 2), self.zeros(batch, 1) + 1

    def mirror(self, features: Tensor) -> Tensor:
        """The left hand is a right one."""
        there, points = features[..., :1], features[..., 1:].view(*features.shape[:-1], 2, len(POINTS), 2)
        turned = points[..., TURNED, :] * points.new_tensor([-1.0, 1.0])
        return torch.cat([there, turned.flatten(-3)], -1)

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        """One row's pictures to its features, and its next state."""
        region, before, search = state
        features = np.zeros((len(images), *self.out_shape), np.float32)
        for image, feature in zip(images, features, strict=True):
            seen = not search[0]
            found = self.network.look(image, region) if seen else None
            if found is None:
                seen, way = False, max(0, int(search[0]) - 1)
                there = self.network.detect(image, way)
                found = None if there is None else self.network.look(image, there)
                search = np.full_like(search, 1 + (way + 1) % len(LOOKS))
            if found is not None:
                every, region = found
                points = about_shoulders(every[POINTS], float(region[2]))
                motion = (points - before) * np.float32(self.rate if seen else 0)
                feature[:] = [1, *points.flat, *motion.flat]
                before, search = points, np.zeros_like(search)
        return features, [region, before, search]


def about_shoulders(points: Array, side: float) -> Array:
    """Points ``(N, 2)`` in pixels, from the middle of the shoulders, in shoulder widths; ``side`` of their region."""
    left, right = points[SHOULDERS]
    width = max(float(np.hypot(*(left - right))), NARROW * side, 1.0)
    about: Array = (points - (left + right) / 2) / np.float32(width)
    return about
