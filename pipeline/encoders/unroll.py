"""Ways to run a stage over time: in blocks, with rows of different lengths, with restarts, and feeding itself.

All follow from the law: a chunk of any length, and a state that goes in and comes out. So no sequence is ever packed,
sorted or masked inside a cell.
"""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.layers.stage import Stage, State, detach, pick, stack, tree


def truncated(stage: Stage, x: Tensor, state: State, size: int) -> Iterator[tuple[Tensor, State]]:
    """Blocks of ``size`` input steps, one ``(y, state)`` after the other: truncated back-propagation through time
    (Williams & Peng 1990).

    The gradient is cut between blocks. Call ``backward`` on the loss of each block before asking for the next, and the
    memory that training takes is that of one block, however long x is. ``y (B, T_block, ...)``; ``state`` is detached.
    """
    for block in torch.split(x, size, 1):
        y, state = stage(block, state)
        state = detach(state)
        yield y, state


def checkpointed(stage: Stage, x: Tensor, state: State, size: int) -> tuple[Tensor, State]:
    """The same as ``stage(x, state)``, gradient included, with less memory in training: only the states between blocks
    of ``size`` input steps are kept, and each block is computed again on the way back (Chen et al. 2016, arXiv
    1604.06174). Random draws are repeated; those made once per call are made once per block.
    """
    outputs = []
    for block in torch.split(x, size, 1):
        y, state = cast(tuple[Tensor, State], checkpoint(stage, block, state, use_reentrant=False))
        outputs.append(y)
    return torch.cat(outputs, 1), state


def ragged(stage: Stage, x: Tensor, lengths: Tensor, state: State) -> tuple[Tensor, State]:
    """Rows of different ``lengths`` (input steps, multiples of the hop, at most ``x.shape[1]``).

    Returns ``y (B, T, ...)``, zero after a row's end, and the state of each row at *its* end. A row that ends leaves
    the batch, so padding costs nothing. ValueError if a length does not fit.
    """
    lengths = lengths.to(x.device)
    if not len(x):
        return stage(x, state)
    if len(lengths) != len(x) or bool((lengths < 0).any()) or bool((lengths > x.shape[1]).any()):
        raise ValueError(f"lengths {lengths.tolist()} do not fit x {tuple(x.shape)}: expected one of 0 to T per row")
    if bool((lengths % stage.hop != 0).any()):
        raise ValueError(f"lengths {lengths.tolist()} are not multiples of the hop {stage.hop}")
    left = torch.arange(len(x), device=x.device)
    ended: dict[int, State] = {}
    outputs, begin = [], 0
    for end in [*torch.unique(lengths).tolist(), x.shape[1]]:
        y, state = stage(x[left, begin:end], state)
        whole = y.new_zeros(len(x), *y.shape[1:])
        outputs.append(whole.index_copy(0, left, y))
        stays = lengths[left] > end
        for place in (~stays).nonzero().flatten().tolist():
            ended[int(left[place])] = pick(state, place)
        left, begin = left[stays], end
        state = tree(lambda tensor, stays=stays: tensor[stays], state)
    return torch.cat(outputs, 1), stack(ended[row] for row in range(len(x)))


def at_end(y: Tensor, lengths: Tensor) -> Tensor:
    """``y (B, T, ...)`` at the last step of each row, ``(B, ...)``; thanks to causality padding does not reach it."""
    return y[torch.arange(len(y), device=y.device), lengths - 1]


def restarting(stage: Stage, x: Tensor, restart: Tensor, state: State) -> tuple[Tensor, State]:
    """``stage(x, state)`` where a row begins anew before each step at which ``restart (B, T)`` (bool) is true, as when
    streams of one batch end and begin at different times. T counts output steps.
    """
    if restart.shape[0] != x.shape[0] or restart.shape[1] * stage.hop != x.shape[1]:
        raise ValueError(f"restart {tuple(restart.shape)} does not fit x {tuple(x.shape)} at hop {stage.hop}")
    times = restart.any(0).nonzero().flatten().tolist()
    outputs = []
    for begin, end in zip([0, *times], [*times, restart.shape[1]], strict=True):
        if begin in times:
            state = replaced(state, stage.initial(len(x)), restart[:, begin])
        y, state = stage(x[:, begin * stage.hop : end * stage.hop], state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


def replaced(state: State, by: State, rows: Tensor) -> State:
    """``state`` with ``rows (B)`` (bool) taken from another one."""
    return tree(lambda old, new: torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old), state, by)


def repeat(x: Tensor, steps: int) -> Tensor:
    """One vector for every step, ``(B, ...) -> (B, steps, ...)``: one to many, told the same at each step."""
    return x[:, None].expand(-1, steps, *x.shape[1:])


def generate(
    stage: Stage, first: Tensor, state: State, steps: int, feed: Callable[[Tensor], Tensor] = lambda y: y
) -> tuple[Tensor, State]:
    """One to many, told its own last answer: ``first (B, *in_shape)`` begins, then ``x(t + 1) = feed(y(t))``.

    Returns ``y (B, steps, ...)`` and the state. ``feed`` makes the next input of an output, e.g. one-hot of a draw.
    """
    if steps < 1:
        raise ValueError(f"generate: steps is {steps}; expected at least 1")
    outputs, x = [], first
    for _ in range(steps):
        y, state = stage(x[:, None], state)
        outputs.append(y[:, 0])
        x = feed(y[:, 0])
    return torch.stack(outputs, 1), state
