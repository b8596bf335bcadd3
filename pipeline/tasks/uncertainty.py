"""How far a figure can be trusted: what it might have been with other clips, or other people and places."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEVEL = 0.95

Interval = tuple[float, float]


def wilson(hits: float, count: float, level: float = LEVEL) -> Interval:
    """Where the true share may be if ``hits`` of ``count`` trials succeeded (Wilson 1927)."""
    z, part = NormalDist().inv_cdf((1 + level) / 2), hits / count
    middle, spread = part + z * z / (2 * count), math.sqrt(part * (1 - part) / count + z * z / (4 * count * count))
    low, high = ((middle + side * z * spread) / (1 + z * z / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def effective(hits: NDArray[Any], counts: NDArray[Any], level: float = LEVEL) -> float:
    """The effective sample size: so many clips, drawn one by one, would say as much of the share ``sum(hits) /
    sum(counts)`` as those of groups ``(G,)``, two at least (Korn & Graubard 1998; for Wilson's interval Dean & Pagano
    2015).

    It is smaller by how much more the groups differ than chance would have it (the variance of a ratio, Cochran 1977,
    chapter 6), and because few groups show that badly: Student's t of G - 1 degrees of freedom, not the normal.
    """
    groups, total = len(hits), counts.sum()
    share = hits.sum() / total
    alone = share * (1 - share) / total
    apart = groups / (groups - 1) * np.square(hits - share * counts).sum() / total**2
    worse = max(1.0, apart / alone) if alone else 1.0
    little = NormalDist().inv_cdf((1 + level) / 2) / stdtrit(groups - 1, (1 + level) / 2)
    return float(total / worse * little**2)


def interval(right: Sequence[float], groups: Sequence[str] = ()) -> tuple[Interval, str]:
    """Where the accuracy may be (95 %), and how that was found; of no clips, anywhere. ``right``: of each clip whether
    it was answered right, or in what share of several tries.

    ``groups``: whose clips stand or fall together, '' for a clip that stands for itself. It is Wilson's interval, with
    groups for the ``effective`` number of clips; so it is never narrower than that of single clips.
    """
    if not len(right):
        return (0.0, 1.0), "no clips"
    shares = np.asarray(right, np.float64)
    hits, count = float(shares.sum()), len(shares)
    names = [group or f"#{number}" for number, group in enumerate(groups)]
    if len(set(names)) in (0, count):
        return wilson(hits, count), "Wilson"
    if len(set(names)) == 1:
        return wilson(hits, count), "Wilson; what another group would do cannot be told from one"
    _, place = np.unique(names, return_inverse=True)
    worth = effective(np.bincount(place, shares), np.bincount(place))
    return wilson(hits / count * worth, worth), f"Wilson, effective sample size {worth:,.1f}"
