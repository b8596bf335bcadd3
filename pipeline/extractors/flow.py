"""Motion between two pictures, and means over the cells of a grid: what extractors of motion share."""

from typing import Any

import numpy as np

from pipeline.layers.lean import Array

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
