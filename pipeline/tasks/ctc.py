"""Connectionist temporal classification: strings from steps, without the times of their symbols.

Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data with recurrent neural
networks", ICML 2006. Column ``blank`` says that a step adds nothing.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss
from torch.nn.utils.rnn import pad_sequence


def fewest_steps(string: Sequence[int]) -> int:
    """How many steps a string needs: one for each symbol, and a blank between two that are the same."""
    return len(string) + sum(one == other for one, other in pairwise(string))


def ctc_cost(scores: Tensor, steps: Tensor, strings: Sequence[Sequence[int]], blank: int) -> Tensor:
    """What strings cost, ``(B,)``: minus the log of their probability, by symbol. ``scores (B, T, K)``: logits, or logs
    of posteriors; of each row count ``steps (B,)``. A string for which these are too few costs nothing.
    """
    lengths = torch.tensor([len(string) for string in strings])
    logs = scores.float().log_softmax(-1).transpose(0, 1)
    costs = ctc_loss(
        logs, pad(strings, blank).to(scores.device), steps, lengths, blank, reduction="none", zero_infinity=True
    )
    return costs / lengths.clamp(min=1).to(costs.device)


def pad(strings: Sequence[Sequence[int]], value: int) -> Tensor:
    """Strings side by side ``(B, L)``, the shorter ones filled up."""
    return pad_sequence([torch.tensor(string, dtype=torch.long) for string in strings], True, value)


def warn_too_short(strings: Sequence[Sequence[int]], steps: Sequence[int], names: Sequence[str], step: float) -> None:
    """Tell of which clips the steps, of so many seconds, are too few for their strings."""
    for string, there, name in zip(strings, steps, names, strict=True):
        if (need := fewest_steps(string)) > there:
            warnings.warn(
                f"task: {name or 'a clip'} has {there} steps of {step:g} s for a string of {len(string)} symbols; "
                f"expected at least {need} steps, so it teaches nothing; lower extractor.hop or the strides of encoder",
                stacklevel=2,
            )
