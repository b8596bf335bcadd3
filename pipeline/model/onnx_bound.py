"""Rows by a graph that reads and writes the same places again and again: to make arrays of all inputs and outputs takes
as long as a third of the graph of a small block.
"""

import math
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.stream_model import Bound, Memory

ALIGNED = 64  # bytes, as onnxruntime's own arrays


class OnnxBound(Bound):
    """See ``Bound``. A block is computed in pieces of the graph's own size."""

    model: Any

    def __init__(self, model: Any, rows: int, ticks: int) -> None:
        super().__init__(model, rows, ticks)
        self.block, self.several = Shelf(model.pieces(self.tracks)[0]), ticks > model.unit
        if not self.several:
            self.tracks = tuple(self.block.arrays)
        self.inputs = Shelf(self.before)
        self.before = tuple(self.inputs.arrays)
        self.outputs = Shelf((*self.before, np.zeros((rows, model.unit // model.hop, len(model.labels)), np.float32)))
        self.quick = all(array.dtype in (np.float32, np.int64) for array in self.before)
        self.start = [np.zeros((rows, 1), np.float32)] * model.has_start
        self.bindings, self.fine = dict[int, Any](), np.ones(rows, bool)

    def gather(self, memory: Memory, index: Any) -> None:
        for place, array in zip(self.before, memory, strict=True):
            np.take(array, index, 0, place[: len(index)], "clip")

    def run(self, count: int) -> None:
        binding = self.bindings.get(count) or self.bind(count)
        *after, y = self.outputs.arrays
        self.after, self.y = tuple(after), y
        if not self.several:
            self.model.session.run_with_iobinding(binding)
            return
        begin, found = self.inputs.bytes.copy(), []
        for piece in self.model.pieces(self.tracks):
            self.block.put(piece)
            self.model.session.run_with_iobinding(binding)
            found.append(y[:count].copy())
            self.accept()
        self.inputs.bytes[:], self.y = begin, np.concatenate(found, 1)

    def bind(self, count: int) -> Any:
        """What tells the graph of the places of the first ``count`` rows."""
        *after, y = self.outputs.arrays
        groups = (*self.block.arrays, *self.start, *self.before), (y, *after)
        binding = self.bindings[count] = self.model.bind(*([array[:count] for array in group] for group in groups))
        return binding

    def good(self, count: int) -> NDArray[np.bool_]:
        floats = self.outputs.floats  # faster than to look at each array
        whole = self.y is self.outputs.arrays[-1] and count == len(self.y) and self.quick
        return self.fine if whole and math.isfinite(floats @ floats) else super().good(count)

    def accept(self) -> None:
        self.inputs.bytes[:] = self.outputs.bytes[: len(self.inputs.bytes)]

    def memory(self) -> Memory:
        return tuple(array.copy() for array in self.before)


class Shelf:
    """Copies of arrays in one stretch of memory, ``bytes``; ``floats``, with zeros between them, come last."""

    def __init__(self, like: Memory) -> None:
        order = sorted(range(len(like)), key=lambda number: like[number].dtype == np.float32)
        ends = [*accumulate((-(-like[number].nbytes // ALIGNED) * ALIGNED for number in order), initial=0)]
        whole = np.zeros(ends[-1] + ALIGNED, np.uint8)
        self.bytes = whole[-whole.ctypes.data % ALIGNED :][: ends[-1]]
        self.arrays: list[NDArray[Any]] = [*like]
        for number, start in zip(order, ends, strict=False):
            one = like[number]
            self.arrays[number] = self.bytes[start : start + one.nbytes].view(one.dtype).reshape(one.shape)
        self.put(like)
        self.floats = self.bytes[ends[sum(one.dtype != np.float32 for one in like)] :].view(np.float32)

    def put(self, arrays: Memory) -> None:
        """Copy arrays into their places."""
        for place, array in zip(self.arrays, arrays, strict=True):
            place[...] = array
