"""Torch's own kernels (cuDNN on a GPU) for the cells that it knows, where they were measured to be the faster way."""

from typing import Any

import torch
from torch import Tensor

LONG_STEPS = 16  # from which torch's LSTM on a CPU pays for packing its weights, as it does in every call
MANY_ROWS = 5  # from which it then is faster than the engine; with a gradient, from one row on


def fused(kernel: str, cell: Any, x: Tensor, memory: list[Tensor]) -> list[Tensor] | None:
    """``[y, *memory]`` by ``torch.KERNEL`` (``lstm``, ``gru`` or ``rnn_tanh``); None where it does not serve, or the
    engine is faster: on a CPU for all but long LSTMs (benchmarks/cells.py).
    """
    if x.is_cpu and (kernel != "lstm" or x.shape[1] < LONG_STEPS or x.dtype != torch.float32):
        return None
    if x.is_cpu and torch.is_autocast_enabled("cpu"):
        return None
    if not cell.plain or cell.gate != "sigmoid" or cell.seen or x.ndim != 3 or not (x.is_cpu or x.is_cuda):
        return None
    if x.is_cpu and x.shape[0] < MANY_ROWS and not torch.is_grad_enabled():
        return None
    given = tuple(m[None].contiguous() for m in memory)
    run = getattr(torch, kernel)
    arguments = (cell.weights, cell.bias_ih is not None, 1, 0.0, cell.training or torch.is_grad_enabled(), False, True)
    y, *last = run(x, given if len(given) > 1 else given[0], *arguments)
    return [y, *(m[0] for m in last)]
