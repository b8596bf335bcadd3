"""The states of many streams in one tree of tensors, a row for each, and steps of a model from some of these rows.

A library may compute a row of a batch otherwise, by a rounding, in a batch of another size or at another place. So
there are few batch sizes, each filled up with spare rows, and every stage is tried with each of them: with full data,
the same in all rows. A stage whose rows do not all agree to the bit computes them one after another. Then an answer
does not depend on the rows that share its batch, on their number or on its place.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import NotFiniteError
from pipeline.layers.lean import row_by_row
from pipeline.layers.stage import Chain, Stage, State, detach, pick, tree
from pipeline.media.input_spec import Arrays
from pipeline.model.classifier import Classifier, on_device

FIRST_ROWS = 64  # twice as many when they are full
SPARE = 0  # the row that fills batches up: the initial state, which is never written to
VALUES = 200  # numbers of an answer that are compared in every row, at least


class StateBatch:
    """States of a model's streams, as rows, and the model's step on at most ``tile`` of them.

    Attributes:
        sizes: the batch sizes, in ascending order.
        serial: the stages that compute a batch row by row.
        rows: the states ``(rows, ...)``.
        free: the rows that belong to nobody.
    """

    def __init__(self, model: Classifier, size: int, tile: int, exact: bool) -> None:
        """``size``: ticks of a block. ``exact``: no answer depends on the others of its batch; the stages are tried
        here, with the threads set now.
        """
        self.model, self.tile = model, tile
        self.sizes, self.serial = independent(model, size, tile) if exact else ([*range(1, tile + 1)], frozenset())
        self.rows, self.count, self.free = own(model.initial(FIRST_ROWS)), FIRST_ROWS, [*range(FIRST_ROWS - 1, 0, -1)]

    def reserve(self) -> int:
        """A row for one more stream, which begins anew."""
        if not self.free:
            self.rows = tree(lambda old, new: torch.cat([old, new]), self.rows, own(self.model.initial(self.count)))
            self.free = [*range(2 * self.count - 1, self.count - 1, -1)]
            self.count *= 2
        row: int = self.free.pop()
        self.write(row, self.read(SPARE))
        return row

    def read(self, row: int) -> State:
        """The state of a row, as a value of its own."""
        return pick(self.rows, row)

    @torch.inference_mode()
    def write(self, row: int, state: State) -> None:
        """Copy a state, a batch of one, into a row."""
        tree(lambda whole, new: whole[row : row + 1].copy_(new), self.rows, state)

    @torch.inference_mode()
    def run(self, rows: Sequence[int], blocks: Sequence[Arrays]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A block from each of some rows: posteriors ``(B, T, K)``, and which of them are finite, as their new states
        are, ``(B,)``. Those states are in their rows now. The other rows are as they were, and their posteriors NaN.
        """
        try:
            y, state = self.batch(rows, blocks)
        except NotFiniteError:  # of a cell, which does not say in which row
            if len(rows) > 1:
                each = [self.run([row], [block]) for row, block in zip(rows, blocks, strict=True)]
                return np.concatenate([y for y, _ in each]), np.concatenate([good for _, good in each])
            steps = self.model.spec.ticks(blocks[0]) // self.model.hop
            return np.full((1, steps, len(self.model.labels)), np.nan, np.float32), np.zeros(1, bool)
        good = np.isfinite(y).all(axis=(1, 2)) & self.finite(state, len(rows))
        y[~good] = np.nan
        kept = np.flatnonzero(good).tolist()
        index = self.index([rows[row] for row in kept])
        if len(kept) < len(rows):
            chosen = self.index(kept)
            state = tree(lambda new: new.index_select(0, chosen), state)
        tree(lambda whole, new: whole.index_copy_(0, index, new[: len(kept)]), self.rows, state)
        return y, good

    def batch(self, rows: Sequence[int], blocks: Sequence[Arrays]) -> tuple[NDArray[np.float32], State]:
        """In a batch of one of the ``sizes``: posteriors of the blocks, and the next states of the whole batch."""
        spare = next(size for size in self.sizes if size >= len(rows)) - len(rows)
        index = self.index([*rows, *[SPARE] * spare])
        state = tree(lambda whole: whole.index_select(0, index), self.rows)
        x = self.model.spec.tensors(self.model.spec.stack([*blocks, *[blocks[0]] * spare]))
        with row_by_row(self.serial):
            y, state = self.model(on_device(x, self.model), state)
        return y[: len(rows)].float().cpu().numpy(), state

    def index(self, rows: Sequence[int]) -> Tensor:
        """Rows as a tensor where the states are."""
        return torch.tensor(rows, dtype=torch.int64, device=self.model.anchor.device)

    def finite(self, state: State, count: int) -> NDArray[np.bool_]:
        """Which of the first ``count`` rows have only finite numbers, or those that they begin with."""
        found = np.ones(count, bool)

        def look(tensor: Tensor, first: Tensor) -> Tensor:
            sums = tensor.flatten(1).sum(1)[:count].cpu().numpy()  # faster than to look at each number
            for row in np.flatnonzero(~np.isfinite(sums)):
                found[row] &= bool((tensor[row].isfinite() | (tensor[row] == first[SPARE])).all())
            return tensor

        tree(look, state, self.rows)
        return found


def own(state: State) -> State:
    """A state that owns its memory, whole rows of it."""
    return tree(lambda tensor: tensor.clone(memory_format=torch.contiguous_format), detach(state))


@torch.inference_mode()
def independent(model: Classifier, size: int, tile: int) -> tuple[list[int], frozenset[Stage]]:
    """The batch sizes (``tile``, and halves of it) in which rows are independent to the bit in blocks of ``size``
    ticks, and the stages that must compute row by row for that.
    """
    generator = torch.Generator().manual_seed(0)
    sizes, serial = [tile], set[Stage]()
    while sizes[0] % 2 == 0:
        sizes.insert(0, sizes[0] // 2)
    block = x = on_device(model.spec.tensors(full(model, size, generator)), model)
    for stage in [*single_stages(model), *([model.gate] if model.gated and model.gate else [])]:
        if stage is model.gate:
            x = block[0] if isinstance(block, tuple) else block
        y, state = stage(x, stage.initial(1))
        found = agreeing(stage, x, state, sizes, generator)
        if found:
            sizes = found
        else:
            serial.add(stage)
        x = y
    return sizes, frozenset(serial)


def single_stages(chain: Chain) -> Iterator[Stage]:
    """The stages of a chain and of the chains within it, in order."""
    for stage in chain.stages:
        yield from single_stages(stage) if isinstance(stage, Chain) else [stage]


def full(model: Classifier, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A block in which every track is present all the time: noise, and marks that say so."""
    found = []
    for track in model.spec.tracks:
        shape = 1, size // model.spec.grain * track.steps, *track.shape
        if track.kind is not np.float32:
            found.append(torch.randint(256, shape, generator=generator, dtype=torch.uint8))
        else:
            found.append(torch.ones(shape) if track.shape else 0.1 * torch.randn(shape, generator=generator))
    return tuple(found)


def agreeing(stage: Stage, x: Any, state: State, sizes: list[int], generator: torch.Generator) -> list[int]:
    """The greatest of the ``sizes`` in which a stage gives the same bits for a row at any place, among equal rows and
    among others, from blocks like ``x`` (a batch of one) and a ``state``. Shapes decide in which order a kernel adds
    up, not values.
    """

    def varied(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return tensor * (0.5 + torch.rand(tensor.shape, generator=generator)).to(tensor)
        return torch.randint(256, tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    def among_others(tensor: Tensor) -> Tensor:
        others = varied(tensor)
        others[::2] = tensor[::2]
        return others

    def agree(size: int) -> bool:
        block, before, after = (repeated(value, size) for value in (given, state, expected))
        if not equal(stage(block, before), after):
            return False
        return equal(alternate(stage(tree(among_others, block), before)), alternate(after))

    compared = 0
    while sizes and compared < VALUES:
        given = tree(varied, x)
        expected = pick(stage(repeated(given, sizes[-1]), repeated(state, sizes[-1])), 0)
        bad = next((size for size in reversed(sizes) if not agree(size)), 0)
        sizes = [size for size in sizes if size > bad]
        compared += max(1, expected[0].numel())
    return sizes


def repeated(state: State, size: int) -> State:
    """A batch of one as one of ``size``."""
    return tree(lambda tensor: tensor.expand(size, *tensor.shape[1:]).contiguous(), state)


def alternate(state: State) -> State:
    """Every other row."""
    return tree(lambda tensor: tensor[::2], state)


def equal(one: State, other: State) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return all(map(equal, one, other))
