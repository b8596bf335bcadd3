"""The memories of many streams as rows of arrays, and steps of a model from some of these rows.

A library may compute a row of a batch otherwise, by a rounding, in a batch of another size or at another place. So
there are few batch sizes, each filled up with spare rows, and the model is tried with each of them: with full data, the
same in all rows. Sizes whose rows do not all agree to the bit are not used; if only single rows are left, streams are
computed one after another. Then an answer does not depend on the rows that share its batch, on their number or on its
place.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays
from pipeline.model.stream_model import Memory, StreamModel, to_numpy

FIRST_ROWS = 64  # twice as many when they are full
LARGE = 32  # rows of a batch that are worth another between it and its half
SPARE = 0  # the row that fills batches up: the initial memory, which is never written to
VALUES = 200  # numbers of an answer that are compared in every row, at least


class StateBatch:
    """Memories of a model's streams, as rows, and the model's step on at most ``tile`` of them.

    Attributes:
        sizes: the batch sizes, in ascending order.
        bound: where the blocks are put that ``run`` computes.
        rows: the memories, arrays ``(rows, ...)``.
        free: the rows that belong to nobody.
    """

    def __init__(self, model: StreamModel, size: int, tile: int, exact: bool) -> None:
        """``size``: ticks of a block. ``exact``: no answer depends on the others of its batch; the model is tried here,
        with the threads set now.
        """
        model.check_block(size)
        self.model = model
        self.sizes = independent_sizes(model, size, tile) if exact else [*range(1, tile + 1)]
        self.tile = self.sizes[-1]
        self.bound = model.bound(self.tile, size)
        self.rows, self.free = model.begin(FIRST_ROWS), [*range(FIRST_ROWS - 1, SPARE, -1)]

    def reserve(self) -> int:
        """A row for one more stream, which begins anew."""
        if not self.free:
            count = len(self.rows[0]) if self.rows else FIRST_ROWS
            more = self.model.begin(2 * count)
            for new, old in zip(more, self.rows, strict=True):
                new[:count] = old
            self.rows, self.free = more, [*range(2 * count - 1, count - 1, -1)]
        row: int = self.free.pop()
        self.write(row, self.bound.first)
        return row

    def read(self, row: int) -> Memory:
        """The memory of a row, as a value of its own."""
        return tuple(array[[row]] for array in self.rows)

    def write(self, row: int, memory: Memory) -> None:
        """Copy a memory, a batch of one, into a row."""
        for array, new in zip(self.rows, memory, strict=True):
            array[row] = new[0] if type(new) is type(array) else array.new_tensor(new[0])

    def run(
        self, rows: Sequence[int], meanwhile: Callable[[], object] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A step of some rows, at most ``tile``, whose blocks stand in ``bound`` in this order: posteriors
        ``(B, T, K)``, and which of them are finite, as their new memories are, ``(B,)``. Those memories are in their
        rows now. The other rows are as they were, and their posteriors NaN.

        ``meanwhile`` is called while a thread computes.
        """
        count, bound = len(rows), self.bound
        size = next(size for size in self.sizes if size >= count)
        index = np.array([*rows, *[SPARE] * (size - count)])
        bound.gather(self.rows, index)
        if meanwhile is None:
            bound.run(size)
        else:
            self.run_beside(size, meanwhile)
        good = bound.good(size)[:count]
        if not good.any() and count > 1:  # perhaps one has spoilt the others
            blocks = [tuple(track[row].copy() for track in bound.tracks) for row in range(count)]
            return self.one_by_one(rows, blocks)
        whole = good.all()
        chosen = slice(count) if whole else np.flatnonzero(good)
        for array, new in zip(self.rows, bound.after, strict=True):
            array[index[:count][chosen]] = new[chosen]
        y = bound.y[:count].copy()
        if not whole:
            y[~good] = np.nan
        return y, good

    def run_beside(self, size: int, meanwhile: Callable[[], object]) -> None:
        """``bound.run`` in a thread, and ``meanwhile`` here, once the thread has begun: libraries compute without the
        interpreter's lock, which ``meanwhile`` would otherwise keep from it.
        """
        begun = threading.Event()

        def run() -> None:
            begun.set()
            self.bound.run(size)

        computed = self.thread.submit(run)
        begun.wait()
        try:
            meanwhile()
        finally:
            computed.result()

    @cached_property
    def thread(self) -> ThreadPoolExecutor:
        """The one in which batches are computed beside something else."""
        return ThreadPoolExecutor(1, "batch")

    def one_by_one(
        self, rows: Sequence[int], blocks: Sequence[Arrays]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As ``run``, each row alone."""
        found = []
        for row, block in zip(rows, blocks, strict=True):
            self.bound.put(0, block)
            found.append(self.run([row]))
        return np.concatenate([y for y, _ in found]), np.concatenate([good for _, good in found])


def independent_sizes(model: StreamModel, size: int, tile: int) -> list[int]:
    """The batch sizes (``tile``, halves of it, and what is between large ones, as spare rows are dear there) in which
    rows of ``size`` ticks are independent to the bit; single rows, if there are none.
    """
    random, sizes, compared = np.random.default_rng(0), [tile], 0
    while sizes[0] % 2 == 0:
        sizes.insert(0, sizes[0] // 2)
    between = {3 * large // 4 for large in sizes if large >= LARGE}
    sizes = sorted([*sizes, *between])
    memory = full_memory(model, size, random)
    while sizes and compared < VALUES:
        block = full_block(model, size, 1, random)
        expected = model.advance(repeated(block, sizes[-1]), repeated(memory, sizes[-1]))
        one = alone(expected)
        bad = {count for count in sizes if not agrees(model, block, memory, one, count, random)}
        sizes = [count for count in sizes if count > max(bad - between, default=0) and count not in bad]
        compared += one[0].size
    return sizes or [1]


def full_memory(model: StreamModel, size: int, random: np.random.Generator) -> Memory:
    """What a model remembers of two blocks; and of a voice, if it has a gate, which noise would not open."""
    memory = model.begin(1)
    for _ in range(2):
        _, memory = model.advance(full_block(model, size, 1, random), memory)
    return (*memory[:-1], 0 * memory[-1] + 1) if model.config.get("gate") else memory


def full_block(model: StreamModel, size: int, rows: int, random: np.random.Generator) -> Arrays:
    """Blocks ``(rows, steps, ...)`` in which every track is present all the time: noise, and marks that say so."""
    found: list[NDArray[Any]] = []
    for track in model.spec.tracks:
        shape = rows, size // model.spec.grain * track.steps, *track.shape
        if track.kind is not np.float32:
            found.append(random.integers(256, size=shape, dtype=np.uint8))
        else:
            found.append(
                np.ones(shape, np.float32) if len(found) == 2 else random.normal(0, 0.1, shape).astype(np.float32)
            )
    return tuple(found)


def agrees(
    model: StreamModel, block: Arrays, memory: Memory, one: Memory, count: int, random: np.random.Generator
) -> bool:
    """Whether a row gives the same bits at any place of a batch of ``count``, among equal rows and among others: those
    that it gives as ``one``. Shapes decide in which order a kernel adds up, not values.
    """
    equal_rows = model.advance(repeated(block, count), repeated(memory, count))
    if not all(same(array, first) for array, first in zip(flat(equal_rows), one, strict=True)):
        return False
    others = full_block(model, len(block[0][0]), count, random)
    for other, part in zip(others, block, strict=True):
        other[::2] = part
    among = model.advance(others, repeated(memory, count))
    return all(same(array[::2], first) for array, first in zip(flat(among), one, strict=True))


def flat(answer: tuple[NDArray[np.float32], Memory]) -> Memory:
    """Posteriors and memory as one tuple."""
    return answer[0], *answer[1]


def alone(answer: tuple[NDArray[np.float32], Memory]) -> Memory:
    """The first row of an answer."""
    return tuple(to_numpy(array[:1]) for array in flat(answer))


def same(rows: Any, one: NDArray[Any]) -> bool:
    """Whether all rows are ``one``, to the bit."""
    return np.array_equal(to_numpy(rows), np.broadcast_to(one, rows.shape), equal_nan=one.dtype.kind == "f")


def repeated(arrays: Memory, count: int) -> Memory:
    """A batch of one as one of ``count``."""
    return tuple(array[[0] * count] for array in arrays)
