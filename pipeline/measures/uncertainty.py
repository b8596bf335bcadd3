"""How far a figure can be trusted: what it might have been with other clips, or other people and places."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 2000
AT_ONCE = 1 << 22  # numbers drawn at a time

Interval = tuple[float, float]


def wilson(hits: float, count: float, level: float = LEVEL) -> Interval:
    """Where the true share may be if ``hits`` of ``count`` trials succeeded (Wilson 1927)."""
    z, part = NormalDist().inv_cdf((1 + level) / 2), hits / count
    middle, spread = part + z * z / (2 * count), math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    low, high = ((middle + side * z * spread) / (1 + z * z / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def bootstrap(
    hits: NDArray[np.int64], counts: NDArray[np.int64], draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Interval:
    """The share ``sum(hits) / sum(counts)`` if other groups had been met: whole groups ``(G,)`` are drawn with
    replacement, and the interval is that of the percentiles (Efron & Tibshirani 1993, chapter 13; Field & Welsh 2007).
    """
    rng, groups = np.random.default_rng(seed), len(hits)
    size = max(1, AT_ONCE // groups)
    found = []
    for first in range(0, draws, size):
        drawn = rng.multinomial(groups, np.full(groups, 1 / groups), min(size, draws - first))
        found.append((drawn @ hits) / (drawn @ counts))
    low, high = np.quantile(np.concatenate(found), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def interval(right: Sequence[bool], groups: Sequence[str] = ()) -> tuple[Interval, str]:
    """Where the accuracy may be (95 %), and how that was found; of no clips, anywhere.

    ``groups``: whose clips stand or fall together, '' for a clip that stands for itself. With them the bootstrap over
    groups; but never less than Wilson's interval of single clips, as resampling knows nothing of what it never saw: of
    few groups, or of a test without a mistake, it would promise too much.
    """
    if not len(right):
        return (0.0, 1.0), "no clips"
    low, high = wilson(sum(map(bool, right)), len(right))
    names = [group or f"#{number}" for number, group in enumerate(groups)]
    if len(set(names)) in (0, len(names)):
        return (low, high), "Wilson"
    if len(set(names)) == 1:
        return (low, high), "Wilson; what another group would do cannot be told from one"
    _, place = np.unique(names, return_inverse=True)
    counts = np.bincount(place)
    hits = np.bincount(place, np.asarray(right, bool)).astype(np.int64)
    least, most = bootstrap(hits, counts)
    return (min(low, least), max(high, most)), "bootstrap over groups"
