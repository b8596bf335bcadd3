"""Motion between two pictures, and means over the cells of a grid: what extractors of motion share."""

from typing import Any

import numpy as np

from pipeline.extractors.pixels import Array, Rate, RowByRow, Size
from pipeline.media.picture import Fit

CELL = 4  # pixels a side, over which ``CellMotion`` averages
LEVELS, ITERATIONS, NEAR, SMOOTH = 3, 3, 5, 1.2  # Farnebäck's usual figures


def farneback(before: Array, now: Array, window: int) -> Array:
    """Motion of every pixel in pixels, right and down, ``(H, W, 2)``, between grey pictures ``(H, W)`` uint8.

    Polynomial expansion (Farnebäck, SCIA 2003), averaged over ``window`` pixels.
    """
    import cv2

    figures: Any = (None, 0.5, LEVELS, window, ITERATIONS, NEAR, SMOOTH, 0)
    flow: Array = cv2.calcOpticalFlowFarneback(before, now, *figures)
    return flow


def steady(flow: Array) -> Array:
    """Motion ``(H, W, 2)`` without that of the camera, which is the median of all pixels."""
    rest: Array = flow - np.median(flow.reshape(-1, 2), axis=0)
    return rest


def averaged(pixels: Array, rows: int, columns: int) -> Array:
    """``(H, W, ...)`` to means of cells ``(rows, columns, ...)`` that divide the picture."""
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    means: Array = pixels.reshape(rows, height, columns, width, *pixels.shape[2:]).mean((1, 3))
    return means


class CellMotion(RowByRow):
    """Base of what looks at motion, and at differences from a background, in cells of 4 x 4 pixels.

    A subclass sets ``window``, pixels over which Farnebäck averages, and writes ``row``. It looks back only.
    """

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

    def flow(self, before: Array, now: Array) -> Array:
        """Motion of every pixel, ``(H, W, 2)``, in picture heights per second, without the camera's."""
        motion: Array = steady(farneback(before, now, self.window)) * np.float32(self.rate / len(now))
        return motion

    @staticmethod
    def averaged(pixels: Array) -> Array:
        """``(H, W, ...)`` to ``(H/4, W/4, ...)``."""
        return averaged(pixels, pixels.shape[0] // CELL, pixels.shape[1] // CELL)


def blurred(image: Array) -> Array:
    """A picture ``(H, W, 3)`` uint8 as numbers in 0 ... 1, without the noise of single pixels."""
    import cv2

    picture: Array = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32) / 255
    return picture
