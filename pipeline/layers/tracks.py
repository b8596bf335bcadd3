"""The tracks of a chunk as tensors: what a model is called with."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from pipeline.media.input_spec import InputSpec

Tensors: TypeAlias = Any  # a tensor, or a tuple of them, with the batch on axis 0


def to_tensors(spec: InputSpec, x: Sequence[Any], ticks: int = 0) -> Tensors:
    """Tracks ``(B, steps, ...)``, arrays or tensors, extended to ``ticks`` (a multiple of the grain) as clips are.

    Samples ``(B, N)``; pictures ``(B, T, 3, H, W)``, a view with the channels last in memory.
    """
    found = []
    for given, track in zip(x, spec.tracks, strict=True):
        tensor = torch.as_tensor(given)
        missing = ticks // spec.grain * track.steps - tensor.shape[1]
        if missing > 0:
            held = tensor[:, -1:] if track.hold else torch.zeros_like(tensor[:, :1])
            tensor = torch.cat([tensor, held.expand(-1, missing, *held.shape[2:])], 1)
        found.append(tensor.permute(0, 1, 4, 2, 3) if tensor.ndim == 5 else tensor)
    return tuple(found) if spec.both else found[0]
