"""Batches whose rows do not feel each other: the states of many streams in one tree of tensors, a row for each.

A kernel may add up a row of 64 in another order than a row of 3. So batches have few sizes, which were seen to agree to
the bit, and what is missing is filled with a spare row. Then an answer does not depend on who shares its batch, on
which row it was, or on how many there were.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import NotFiniteError
from pipeline.layers.stage import State, detach, tree
from pipeline.media.input_spec import Arrays
from pipeline.model.classifier import Classifier, on_device

ROOM = 64  # rows at first; twice as many when they are full
TRIALS = 32  # of a batch size at most
SPARE = 0  # the row that fills batches up: the initial state, which is never written to


class Tiles:
    """Blocks of ``size`` ticks through a model, at most ``tile`` at a time, each from the state in its row.

    Attributes:
        sizes: the batch sizes, in ascending order.
        rows: the states ``(rows, ...)``.
    """

    def __init__(self, model: Classifier, size: int, tile: int, exact: bool) -> None:
        """``exact``: only sizes that agree to the bit, which is tried here, with the threads set now; ValueError if a
        row of a whole tile depends on its neighbours.
        """
        self.model, self.size, self.tile = model, size, tile
        self.sizes = alike(model, size, tile) if exact else list(range(1, tile + 1))
        steps = size // model.spec.grain
        self.input: Arrays = tuple(np.zeros((tile, steps * t.steps, *t.shape), t.kind) for t in model.spec.tracks)
        self.rows, self.count, self.free = own(model.initial(ROOM)), ROOM, list(range(ROOM - 1, SPARE, -1))

    def reserve(self) -> int:
        """A row for one more; if there was none left, ``rows`` are others now."""
        if not self.free:
            self.rows = tree(lambda old, new: torch.cat([old, new]), self.rows, own(self.model.initial(self.count)))
            self.free = list(range(2 * self.count - 1, self.count - 1, -1))
            self.count *= 2
        return self.free.pop()

    def view(self, row: int) -> State:
        """One row, as a batch of one that shares its memory."""
        return tree(lambda tensor: tensor[row : row + 1], self.rows)

    @torch.inference_mode()
    def run(
        self, rows: Sequence[int], blocks: Sequence[Arrays], fresh: Collection[int] = ()
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A block of each row: posteriors ``(B, T, K)``, and which rows are finite, ``(B,)``: their new states are in
        their rows now; the others keep what they had, and their posteriors are NaN. ``fresh`` rows begin anew.
        """
        try:
            y, state = self.batch([SPARE if row in fresh else row for row in rows], blocks)
        except NotFiniteError:  # a cell's, of some row; the others must not suffer
            if len(rows) > 1:
                each = [self.run([row], [block], fresh) for row, block in zip(rows, blocks, strict=True)]
                return np.concatenate([y for y, _ in each]), np.concatenate([good for _, good in each])
            steps = self.size // self.model.hop
            return np.full((1, steps, len(self.model.labels)), np.nan, np.float32), np.zeros(1, bool)
        good = np.isfinite(y).all(axis=(1, 2)) & self.sound(state, range(len(rows)))
        kept = np.flatnonzero(good).tolist()
        if len(kept) < len(rows):
            y[~good] = np.nan
            chosen = self.index(kept)
            state = tree(lambda new: new.index_select(0, chosen), state)
        places = self.index([rows[row] for row in kept])
        tree(lambda whole, new: whole.index_copy_(0, places, new[: len(kept)]), self.rows, state)
        return y, good

    def batch(self, rows: Sequence[int], blocks: Sequence[Arrays]) -> tuple[NDArray[np.float32], State]:
        """In a batch of one of the ``sizes``: posteriors of the blocks, and the next states of the whole batch."""
        count, size = len(rows), next(size for size in self.sizes if size >= len(rows))
        for whole, *parts in zip(self.input, *blocks, strict=True):
            for row, part in enumerate(parts):
                whole[row] = part
        index = self.index([*rows, *[SPARE] * (size - count)])
        state = tree(lambda whole: whole.index_select(0, index), self.rows)
        x = self.model.spec.tensors(tuple(torch.from_numpy(whole[:size]) for whole in self.input))
        y, state = self.model(on_device(x, self.model), state)
        return y[:count].float().cpu().numpy(), state

    def index(self, rows: Sequence[int]) -> Tensor:
        """Rows as a tensor where the states are."""
        return torch.tensor(rows, dtype=torch.int64, device=self.model.anchor.device)

    def sound(self, state: State, rows: Sequence[int]) -> NDArray[np.bool_]:
        """Whether all numbers of some rows of a state are finite, or as they were at first."""
        found = np.ones(len(rows), bool)

        def look(tensor: Tensor, first: Tensor) -> Tensor:
            sums = tensor.flatten(1).sum(1).cpu().numpy()  # a sum is the cheapest witness
            for number, row in enumerate(rows if not np.isfinite(sums).all() else ()):
                if not np.isfinite(sums[row]):
                    found[number] &= bool((tensor[row].isfinite() | (tensor[row] == first[SPARE])).all())
            return tensor

        tree(look, state, self.rows)
        return found


def own(state: State) -> State:
    """A state that owns its memory, whole rows of it."""
    return tree(lambda tensor: tensor.clone(memory_format=torch.contiguous_format), detach(state))


@torch.inference_mode()
def alike(model: Classifier, size: int, tile: int) -> list[int]:
    """The batch sizes up to ``tile`` (halves of it) whose answers and states agree to the bit with those of a whole
    tile, for blocks of ``size`` ticks, in whatever row they stand. In which order a kernel adds up depends on sizes
    alone, so random blocks will tell.

    ValueError if a row of a whole tile depends on its place or its neighbours.
    """
    generator = torch.Generator().manual_seed(0)

    def blocks() -> tuple[Tensor, ...]:
        found = []
        for track in model.spec.tracks:
            shape = tile, size // model.spec.grain * track.steps, *track.shape
            if track.kind is np.float32:
                found.append(0.1 * torch.randn(shape, generator=generator))
            else:
                found.append(torch.randint(256, shape, generator=generator, dtype=torch.uint8))
        return tuple(found)

    def answers(x: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        y, state = model(on_device(model.spec.tensors(x), model), state)
        return y, state

    def agree(count: int) -> bool:
        """Half of the rows of a batch of ``count`` are some of the tile's, in other places, among others."""
        rows = torch.randperm(tile, generator=generator)[:count]
        kept = torch.randperm(count, generator=generator)[: -(-count // 2)]
        other = tuple(track[rows].clone() for track in strange)
        for track, whole in zip(other, x, strict=True):
            track[kept] = whole[rows[kept]]
        here, kept, same = rows.to(model.anchor.device), kept.to(model.anchor.device), list[bool]()

        def compare(one: Tensor, tensor: Tensor) -> Tensor:
            same.append(torch.equal(one[kept], tensor[here[kept]]))
            return one

        tree(compare, answers(other, tree(lambda tensor: tensor[here], state)), expected)
        return all(same)

    def always(count: int) -> bool:
        """In so many trials that small batches, too, show all their rows often: some may agree by chance."""
        return all(agree(count) for _ in range(min(TRIALS, max(2, 2 * tile // count))))

    _, state = answers(blocks(), model.initial(tile))
    x, strange = blocks(), blocks()
    expected = answers(x, state)
    if not always(tile):
        raise ValueError(f"tile={tile}: a row of it depends on its neighbours here; try another tile, or exact=False")
    found = [tile]
    while found[0] > 1 and always(found[0] // 2):
        found.insert(0, found[0] // 2)
    return found
