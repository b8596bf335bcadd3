"""How strong, sudden and disordered motion is, wherever in the picture: what tells a fight from a walk.

After Hassner, Itcher & Kliper-Gross, Violent Flows (CVPR Workshops 2012), who look at how the strength of motion
changes from picture to picture; beside it, how its direction changes, differs between neighbours and agrees.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat
from torch import Tensor

from pipeline.extractors.flow import CELL, CellMotion, blurred
from pipeline.extractors.pixels import Array
from pipeline.layers.stage import State

DIRECTIONS = 8
LEVELS = (0.5, 0.9, 0.99)  # quantiles over cells
LITTLE = 1e-3  # motion of all cells together that has no direction, in picture heights per second


class MotionStatistics(CellMotion):
    """``(B, T, 3, H, W)`` to ``(B, T, 40)``, one vector a picture, without places.

    Mean, deviation and three quantiles over all cells, each of the square roots of: motion, its change since the
    picture before, the change of its strength, its differences to the right and downwards, and the difference of pixels
    from a background that follows in ``fast`` seconds. Then the share of motion that goes one way in each cell, the
    entropy of its places, and the shares of eight directions in rising order. Motion is in picture heights per second;
    the camera's (the median) is taken off.
    """

    def __init__(
        self, *args: Any, window: Annotated[int, Field(ge=3)] = 15, fast: PositiveFloat = 0.3, **options: Any
    ) -> None:
        """``window``: pixels over which Farnebäck averages. ``fast``: seconds, at least a picture's period."""
        super().__init__(*args, **options)
        self.window, self.fast = window, self.share("fast", fast)
        self.out_shape = (6 * (2 + len(LEVELS)) + 2 + DIRECTIONS,)

    def initial(self, batch: int) -> State:
        """No picture yet: its place, the background, the last motion, and how many pictures there were (2: or more)."""
        height, width = self.in_shape[1:]
        grid = self.zeros(batch, height // CELL, width // CELL, 3)
        return self.zeros(batch, height, width), self.zeros(batch, height, width, 3), grid, self.zeros(batch, 1)

    def mirror(self, features: Tensor) -> Tensor:
        """The same: nothing here has a side."""
        return features

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        """One row's pictures to vectors ``(T, 40)``, and the next state."""
        past, fast, last, seen = state
        before, count = past.astype(np.uint8), int(seen[0])
        found = []
        for image, now in zip(images, greys, strict=True):
            picture = blurred(image)
            if not count:
                before, fast = now, picture
            quick = self.averaged(np.abs(picture - fast).max(2))
            fast = fast + self.fast * (picture - fast)
            flow = self.flow(before, now)
            motion = self.averaged(np.concatenate([flow, np.hypot(flow[..., :1], flow[..., 1:])], 2))
            found.append(figures(motion, last if count > 1 else motion, quick))
            before, last, count = now, motion, min(count + 1, 2)
        return np.stack(found), [before.astype(np.float32), fast, last, np.full_like(seen, count)]


def figures(motion: Array, last: Array, quick: Array) -> Array:
    """The vector of one picture. ``motion``, and that before, ``(rows, columns, 3)``: right, down, strength.

    ``quick``: difference from the background ``(rows, columns)``.
    """
    across, down, strength = motion.transpose(2, 0, 1)
    change = np.abs(motion - last)
    aside = np.abs(np.diff(motion[..., :2], axis=1)).sum(2)
    below = np.abs(np.diff(motion[..., :2], axis=0)).sum(2)
    spread = [spread_of(part) for part in (strength, change[..., :2].sum(2), change[..., 2], aside, below, quick)]
    total = strength.sum() + LITTLE
    places = (strength + 1e-4) / (strength + 1e-4).sum()
    order = [np.hypot(across, down).sum() / total, -(places * np.log(places)).sum()]
    angle = np.arctan2(down, across)
    turns = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    shares = [(strength * np.maximum(np.cos(angle - turn), 0) ** 2).sum() / total for turn in turns]
    return np.concatenate([*spread, order, np.sort(shares)]).astype(np.float32)


def spread_of(part: Array) -> Array:
    """Mean, deviation and quantiles of the square roots over all cells."""
    roots = np.sqrt(part)
    return np.array([roots.mean(), roots.std(), *np.quantile(roots, LEVELS)])
