"""How the learning rate goes up and down."""

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["cosine", "one_cycle", "constant"]
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 25e4  # of one cycle: share of the time, and rates before and after


def rate(kind: Schedule, epoch: float, epochs: int, warmup: float, spent: float = 0.0) -> float:
    """Share of the greatest learning rate after ``epoch`` of ``epochs`` epochs, or ``spent`` of the time (0 ... 1).

    Where the clock decides, an epoch is so much of the time as of all epochs. ``cosine`` rises in a line for ``warmup``
    epochs (half of the training, if there are no more) and falls to zero (Loshchilov & Hutter 2017); ``constant`` stays
    up there; ``one_cycle`` rises for 30 % of the time from 1/25 and falls to almost nothing, both as a half cosine
    (Smith & Topin 2018, as torch's OneCycleLR, but for momentum).
    """
    done = min(1.0, max(epoch / epochs, spent))
    if kind == "one_cycle":
        if done < RISE:
            return between(FIRST, 1.0, done / RISE)
        return between(1.0, LAST, (done - RISE) / (1 - RISE))
    risen = warmup / epochs if warmup < epochs else 0.5
    if done < risen:
        return (done + 1e-3 / epochs) / risen
    return 1.0 if kind == "constant" else between(1.0, 0.0, (done - risen) / (1 - risen))


def between(start: float, end: float, done: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
