"""Motion, measured by OpenCV from the picture before to this one.

Farnebäck, SCIA 2003: polynomial expansion, which sees small limbs; or dense inverse search, Kroeger et al., ECCV 2016,
which is many times faster and misses them.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.extractors.flow import averaged, farneback, steady
from pipeline.extractors.pixels import Array, Rate, RowByRow, Size
from pipeline.layers.stage import State
from pipeline.media.picture import Fit

PRESETS = ("dis_ultrafast", "dis_fast", "dis_medium")


class OpticalFlow(RowByRow):
    """Mean motion of each cell of a grid: ``(B, T, 3, H, W)`` to ``(B, T, 3, rows, columns)``.

    The channels are the motion to the right, downwards (both in picture heights per second), and the mean absolute
    motion. ``steady`` takes the median motion of the whole picture off first, which is the camera's. ``root`` gives the
    square root with its sign, so that a small limb far away counts beside a large one. It looks back only; the first
    picture has no motion.
    """

    def __init__(
        self,
        rate: Rate = 10,
        height: Size = 112,
        width: Size = 112,
        how: Fit = "crop",
        rows: PositiveInt = 14,
        columns: PositiveInt = 14,
        method: Literal["farneback", "dis_ultrafast", "dis_fast", "dis_medium"] = "farneback",
        window: Annotated[int, Field(ge=3)] = 15,
        steady: bool = True,
        root: bool = True,
    ) -> None:
        """A grid of ``rows`` x ``columns`` that divides the picture. ``window``: pixels that Farnebäck averages."""
        super().__init__(rate, height, width, how, "grey")
        if height % rows or width % columns:
            raise ValueError(
                f"extractor.rows, extractor.columns: {rows}x{columns} cells do not divide {height}x{width} pixels"
            )
        if min(height, width) < 16:
            raise ValueError(f"extractor.height, extractor.width: {height}x{width}; expected at least 16x16 for motion")
        self.rows, self.columns, self.steady, self.root = rows, columns, steady, root
        self.method, self.window = method, window
        self.out_shape = (3, rows, columns)

    def initial(self, batch: int) -> State:
        """No picture yet: its place (grey, 0 ... 255), and whether there was one."""
        return self.zeros(batch, *self.in_shape[1:]), self.zeros(batch, 1)

    def mirror(self, features: Tensor) -> Tensor:
        """What went to the right goes to the left."""
        return features.flip(-1) * features.new_tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)

    def row(self, images: Array, greys: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        """The motion that each picture ends; the next state is the last one."""
        past, seen = state
        measure, y = self.estimator(), np.zeros((len(greys), *self.out_shape), np.float32)
        for step, pair in enumerate(pairwise([past.astype(np.uint8), *greys])):
            if step or seen[0]:
                y[step] = self.cells(measure(*pair))
        return y, [greys[-1].astype(np.float32), np.ones_like(seen)]

    def estimator(self) -> Callable[[Any, Any], Any]:
        """OpenCV's function of two pictures; it keeps nothing between calls that matters."""
        if self.method == "farneback":
            return lambda before, now: farneback(before, now, self.window)
        import cv2

        dis = cv2.DISOpticalFlow_create(PRESETS.index(self.method))  # type: ignore[attr-defined]
        return lambda before, now: dis.calc(before, now, None)

    def cells(self, flow: Any) -> Any:
        """Motion of every pixel ``(H, W, 2)`` to that of the cells ``(3, rows, columns)``."""
        if self.steady:
            flow = steady(flow)
        flow = flow * np.float32(self.rate / flow.shape[0])
        parts = np.concatenate([flow, np.hypot(flow[..., :1], flow[..., 1:])], axis=2)
        found = averaged(parts, self.rows, self.columns).transpose(2, 0, 1)
        return np.sign(found) * np.sqrt(np.abs(found)) if self.root else found
