"""Recordings of what is normal: which clips they are, and what their steps have in common."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.media.sample import Derived, Sample, Split

LEAST_VARIANCE = 1e-6  # of standardised features: below, nothing moves
ROUNDS = 10  # of fitting and leaving out
FAR = 6.0  # robust deviations of log distances, from which on a step is no normal one
TOLD = 0.005  # share of such steps that is told
SHOWN = 3  # clips with the most of them, that are named


class NormalClips(Derived):
    """The clips of a split without any of its labels."""

    passed = (*Derived.passed, "negatives", "held_out")

    def __init__(self, split: Split, places: Sequence[int]) -> None:
        """``places`` of the clips in the split."""
        super().__init__(split)
        self.places = places

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return [found[place] for place in self.places] if name in ("classes", "names", "groups") else found

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample | None:
        return self.split[self.places[index]]


def fit_normal(steps: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean ``(F,)`` and covariance ``(F, F)`` of the steps ``(T, ...)`` of clips, in float64, without those that lie
    far from all others: normal recordings may hold what is not. Such are told.

    It begins with medians, which half of the steps cannot move, and then fits and leaves out by turns (the C-steps of
    Rousseeuw & Van Driessen 1999, with a limit on the distance instead of a number of steps). ConfigError for fewer
    steps than twice the numbers of each, and for such as are all the same.
    """
    x = torch.cat([one.flatten(1) for one in steps]).double() if steps else torch.zeros(0, 1)
    count, size = x.shape
    if count < 2 * size:
        raise ConfigError(
            f"dataset: the normal recordings make {count} steps of {size} numbers; expected {2 * size} steps at least; "
            "give more recordings, or let extractor make fewer numbers (mels, height, width)"
        )
    if float(x.var(0).max()) < LEAST_VARIANCE:
        raise ConfigError("dataset: the normal recordings are silent or constant, so there is nothing to learn of them")
    middle = x.median(0).values
    spread = (x - middle).abs().median(0).values.clamp_min(LEAST_VARIANCE**0.5)
    far = log_distances((x - middle) / spread)
    kept = torch.zeros(count, dtype=torch.bool)
    for _ in range(ROUNDS):
        middle = far.median()
        now = far <= middle + FAR * 1.4826 * (far - middle).abs().median()
        if bool((now == kept).all()):
            break
        kept = now
        mean, covariance = x[kept].mean(0), torch.cov(x[kept].T).reshape(size, size)
        variances, axes = torch.linalg.eigh(covariance)
        far = log_distances((x - mean) @ axes / variances.clamp_min(1e-4 * variances.max()).sqrt())
    if (share := 1 - float(kept.double().mean())) > TOLD:
        tell(share, [float((~part).double().mean()) for part in torch.split(kept, [len(one) for one in steps])], names)
    return mean, covariance


def log_distances(z: Tensor) -> Tensor:
    """Logarithms of the mean squares of steps ``(N, F)``."""
    return z.square().mean(1).clamp_min(1e-12).log()


def tell(share: float, shares: Sequence[float], names: Sequence[str]) -> None:
    """Warn of what is not normal, and where the most of it is."""
    worst = [place for place in np.argsort(shares)[::-1][:SHOWN] if shares[place]]
    places = ", ".join(f"{names[place] or f'clip {place}'} ({shares[place]:.0%})" for place in worst)
    warnings.warn(
        f"dataset: {share:.1%} of the steps of the normal recordings lie far from all others, and are left out; most "
        f"of them in {places}: listen to them",
        stacklevel=2,
    )
