"""A model's step on rows whose blocks and memories have places that stay."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays

if TYPE_CHECKING:
    from pipeline.model.stream_model import Memory, StreamModel


class Bound:
    """The step on at most ``rows`` rows.

    Attributes:
        tracks: where the blocks are put, ``(rows, steps, ...)`` each.
        before, after: the memory that is taken on, and the one that comes of it.
        y: posteriors ``(B, T, K)``; as ``after``, they may be written again by the next ``run``.
    """

    y: NDArray[np.float32]
    after: "Memory"

    def __init__(self, model: "StreamModel", rows: int, ticks: int) -> None:
        """``ticks``: of a block, a multiple of the model's unit."""
        self.model, self.ticks, self.first, self.before = model, ticks, model.begin(1), model.begin(rows)
        spec = model.spec
        self.tracks: Arrays = tuple(
            np.zeros((rows, ticks // spec.grain * track.steps, *track.shape), track.kind) for track in spec.tracks
        )

    def put(self, row: int, block: Arrays) -> None:
        """Put a block ``(steps, ...)`` per track into its row."""
        for place, part in zip(self.tracks, block, strict=True):
            place[row] = part

    def gather(self, memory: "Memory", index: Any) -> None:
        """Take these rows of a ``memory`` on."""
        self.before = tuple(array[index] for array in memory)

    def run(self, count: int) -> None:
        """The step on the first ``count`` rows: as many as were gathered."""
        self.y, self.after = self.model.advance(tuple(track[:count] for track in self.tracks), self.before)

    def good(self, count: int) -> NDArray[np.bool_]:
        """Which of the first ``count`` rows are finite, their posteriors and their new memory: ``(B,)``."""
        after = tuple(array[:count] for array in self.after)
        return np.isfinite(self.y[:count]).all(axis=(1, 2)) & finite(after, self.first)

    def accept(self) -> None:
        """The next step takes on the new memory."""
        self.before = self.after

    def memory(self) -> "Memory":
        """A copy of the memory before the next step."""
        return self.before


def finite(memory: "Memory", first: "Memory") -> NDArray[np.bool_]:
    """Which rows of a memory hold only finite numbers, or those with which it begins (``first``, one row), as a maximum
    of nothing is minus infinity: ``(B,)``.
    """
    found = np.ones(len(memory[0]) if memory else 1, bool)
    for array, one in zip(memory, first, strict=True):
        flat = array.reshape(-1)
        if to_numpy(flat[:1]).dtype.kind == "f" and not math.isfinite(flat @ flat):  # faster than to look at each
            rows = to_numpy(array).reshape(len(array), -1)
            found &= (np.isfinite(rows) | (rows == to_numpy(one).reshape(1, -1))).all(1)
    return found


def to_numpy(array: Any) -> NDArray[Any]:
    """An array, wherever it is, on the processor."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
