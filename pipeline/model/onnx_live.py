"""One stream by a graph that reads and writes the same places again and again: to make arrays of all inputs and outputs
takes as long as a third of the graph of a small block.
"""

import math
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays
from pipeline.model.stream_model import Live, Memory, finite

ALIGNED = 64  # bytes, as onnxruntime's own arrays


class OnnxLive(Live):
    """See ``Live``; of a graph without ``start``. Its places are made with the first block."""

    model: Any
    kept: Memory | None = None  # what the next block begins with, if it is not in its place

    @property
    def state(self) -> Memory:
        """A copy of what is in its place."""
        return self.places[1].copies() if self.kept is None else self.kept

    @state.setter
    def state(self, state: Memory) -> None:
        self.kept = state

    @cached_property
    def places(self) -> tuple["Shelf", "Shelf", "Shelf", Any]:
        """Of a block, of the memory before it, of that after it with posteriors, and what tells the graph of them."""
        model = self.model
        block = model.spec.stack([model.spec.padding(model.spec.empty(), model.unit)])
        y = np.zeros((1, model.unit // model.hop, len(model.labels)), np.float32)
        tracks, before, after = Shelf(block), Shelf(self.first), Shelf((*self.first, y))
        return (
            tracks,
            before,
            after,
            model.bind((*tracks.arrays, *before.arrays), (after.arrays[-1], *after.arrays[:-1])),
        )

    def step(self, block: Arrays) -> tuple[NDArray[np.float32], bool]:
        """In its places, unless the block is several of the graph's own."""
        tracks, before, after, binding = self.places
        if block[0].shape != tracks.arrays[0].shape:
            return super().step(block)
        if self.kept is not None:
            before.put(self.kept)
            self.kept = None
        tracks.put(block)
        self.model.session.run_with_iobinding(binding)
        y: NDArray[np.float32] = after.arrays[-1][0].copy()
        good = math.isfinite(after.floats @ after.floats) or bool(
            np.isfinite(y).all() and finite(tuple(after.arrays[:-1]), self.first).all()
        )
        if good:
            before.bytes[:] = after.bytes[: len(before.bytes)]
        return y, good


class Shelf:
    """Arrays in one stretch of memory, ``bytes``: those of ``floats``, with zeros between them, come last."""

    def __init__(self, like: Memory) -> None:
        order = sorted(range(len(like)), key=lambda number: like[number].dtype == np.float32)
        ends = [*accumulate((-(-like[number].nbytes // ALIGNED) * ALIGNED for number in order), initial=0)]
        whole = np.zeros(ends[-1] + ALIGNED, np.uint8)
        self.bytes = whole[-whole.ctypes.data % ALIGNED :][: ends[-1]]
        self.arrays: list[NDArray[Any]] = [*like]
        for number, start in zip(order, ends, strict=False):
            one = like[number]
            self.arrays[number] = self.bytes[start : start + one.nbytes].view(one.dtype).reshape(one.shape)
        others = sum(one.dtype != np.float32 for one in like)
        self.floats = self.bytes[ends[others] :].view(np.float32)

    def put(self, arrays: Memory) -> None:
        """Copy arrays into their places."""
        for place, array in zip(self.arrays, arrays, strict=True):
            place[...] = array

    def copies(self) -> Memory:
        """Copies of the arrays."""
        return tuple(array.copy() for array in self.arrays)
