"""The likeliest string of steps, without torch: programs that compute models by their graphs need it, too."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray


def best_columns(posteriors: NDArray[np.float32], level: float) -> NDArray[np.int64]:
    """The best symbol of each step ``(..., K)``, if it reaches a level; else the blank, the last column."""
    blank = posteriors.shape[-1] - 1
    best: NDArray[np.int64] = posteriors[..., :blank].argmax(-1)
    return np.where(posteriors[..., :blank].max(-1) >= level, best, blank)


def collapse(best: Sequence[int], blank: int) -> list[int]:
    """The string of the best columns of steps ``(T,)``: repetitions are one symbol, and blanks are none."""
    return [column for column, _ in groupby(best) if column != blank]
