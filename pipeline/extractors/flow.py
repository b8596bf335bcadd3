"""Motion between two pictures, and means over the cells of a grid: what extractors of motion share."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.extractors.pixels import Pixels, Rate, Size, grey
from pipeline.layers.stage import State
from pipeline.media.picture import Fit

CELL = 4  # pixels a side, over which ``CellMotion`` averages
LEVELS, ITERATIONS, NEAR, SMOOTH = 3, 3, 5, 1.2  # Farnebäck's usual figures


def farneback(before: NDArray[Any], now: NDArray[Any], window: int) -> NDArray[Any]:
    """Motion of every pixel in pixels, right and down, ``(H, W, 2)``, between grey pictures ``(H, W)`` uint8.

    Polynomial expansion (Farnebäck, SCIA 2003), averaged over ``window`` pixels.
    """
    import cv2

    figures: Any = (None, 0.5, LEVELS, window, ITERATIONS, NEAR, SMOOTH, 0)
    flow: NDArray[Any] = cv2.calcOpticalFlowFarneback(before, now, *figures)
    return flow


def steady(flow: NDArray[Any]) -> NDArray[Any]:
    """Motion ``(H, W, 2)`` without that of the camera, which is the median of all pixels."""
    rest: NDArray[Any] = flow - np.median(flow.reshape(-1, 2), axis=0)
    return rest


def averaged(pixels: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """``(H, W, ...)`` to means of cells ``(rows, columns, ...)`` that divide the picture."""
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    means: NDArray[Any] = pixels.reshape(rows, height, columns, width, *pixels.shape[2:]).mean((1, 3))
    return means


class CellMotion(Pixels):
    """Base of what looks at motion, and at differences from a background, in cells of 4 x 4 pixels.

    A subclass sets ``window``, pixels over which Farnebäck averages, and writes ``row``. It looks back only, is not
    differentiable, and computed on the CPU.
    """

    costly = compares = uncounted = True
    window: int

    def __init__(self, rate: Rate = 10, height: Size = 120, width: Size = 160, how: Fit = "crop") -> None:
        """ValueError if the picture is too small, or not a multiple of 4 pixels."""
        super().__init__(rate, height, width, how)
        if height % CELL or width % CELL or min(height, width) < 16:
            raise ValueError(
                f"extractor.height, extractor.width: {height}x{width}; expected multiples of {CELL}, at least 16x16"
            )

    def share(self, key: str, seconds: float) -> float:
        """How much each picture counts in a mean over so many seconds; ValueError for less than a period."""
        if seconds * self.rate < 1:
            raise ValueError(f"extractor.{key}: {seconds} s is less than a picture's period, {1 / self.rate:.3g} s")
        return 1 / (seconds * self.rate)

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
        y = self.finish(*(torch.from_numpy(np.stack(part)) for part in found))
        return y.to(self.anchor), tuple(
            torch.from_numpy(np.stack(parts)).to(self.anchor) for parts in zip(*after, strict=True)
        )

    def row(self, images: NDArray[Any], greys: NDArray[Any], state: list[NDArray[Any]]) -> tuple[Any, ...]:
        """One row's pictures ``(T, H, W, 3)``, and in grey, to what ``finish`` takes, and the next state."""
        raise NotImplementedError(f"{type(self).__name__} has no row")

    def finish(self, *found: Tensor) -> Tensor:
        """What the rows found, stacked, to the features."""
        return found[0]

    def flow(self, before: NDArray[Any], now: NDArray[Any]) -> NDArray[Any]:
        """Motion of every pixel, ``(H, W, 2)``, in picture heights per second, without the camera's."""
        motion: NDArray[Any] = steady(farneback(before, now, self.window)) * np.float32(self.rate / len(now))
        return motion

    @staticmethod
    def averaged(pixels: NDArray[Any]) -> NDArray[Any]:
        """``(H, W, ...)`` to ``(H/4, W/4, ...)``."""
        return averaged(pixels, pixels.shape[0] // CELL, pixels.shape[1] // CELL)


def blurred(image: NDArray[Any]) -> NDArray[Any]:
    """A picture ``(H, W, 3)`` uint8 as numbers in 0 ... 1, without the noise of single pixels."""
    import cv2

    picture: NDArray[Any] = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32) / 255
    return picture
