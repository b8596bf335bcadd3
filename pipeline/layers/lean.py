"""The fast path of short chunks, whose time goes into the calls of torch, not into numbers.

``Stage.lean`` computes on arrays of numpy, mostly by compiled kernels, what ``forward`` computes on tensors. This file
says when it may, and converts from tensors to arrays and back. ``RIVULET_ENGINE=off`` turns it and the kernels off.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules import module as hooks

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Any  # a state with an array in place of each tensor

KINDS = (torch.float32, torch.int64)
ON = os.environ.get("RIVULET_ENGINE") != "off"


class Mode(threading.local):
    """How this thread computes batches: ``serial`` are the stages that take one row after another."""

    serial: frozenset[torch.nn.Module] = frozenset()


MODE = Mode()


@contextmanager
def row_by_row(stages: frozenset[torch.nn.Module]) -> Iterator[None]:
    """Within this context, this thread computes a batch through these stages one row after another: as every row has
    the same shape, a library computes each alike, whatever rows share the batch.
    """
    before, MODE.serial = MODE.serial, stages
    try:
        yield
    finally:
        MODE.serial = before


# What torch does not promise to keep. Where it is missing, the fast path does not see such a transformation or hook.
interpreter = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None)
is_tracing = getattr(torch._C, "_is_tracing", lambda: False)
hooks_of_all = getattr(hooks, "_global_forward_hooks", {})
hooks_before_all = getattr(hooks, "_global_forward_pre_hooks", {})


def serves(x: Tensor, axes: int = 3) -> bool:
    """Whether compiled kernels can run this: plain float32 vectors ``(B, T, F)`` (images: five ``axes``) on a CPU, and
    not within tracing or a transformation (torch.func, forward-mode gradients).
    """
    return (
        ON
        and x.ndim == axes
        and type(x) is Tensor
        and x.dtype == torch.float32
        and x.is_cpu
        and not torch.compiler.is_compiling()
        and not is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and interpreter() is None
        and getattr(torch.autograd.forward_ad, "_current_level", -1) < 0
    )


def array(tensor: Tensor) -> Array:
    """The same memory for a kernel."""
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def arrays(state: Any) -> Arrays:
    """A state for ``Stage.lean``, in the same memory, or a copy where that is not in order. TypeError if it is not one
    of tensors as kernels take them.
    """
    if type(state) is tuple:
        return tuple([arrays(part) for part in state])
    if type(state) is not Tensor or not state.is_cpu or state.dtype not in KINDS:
        raise TypeError(f"got {type(state).__name__}; expected float32 or int64 on a CPU")
    return array(state.contiguous())


def tensors(state: Arrays) -> Any:
    """The way back."""
    if type(state) is tuple:
        return tuple([tensors(part) for part in state])
    return torch.from_numpy(state)


def fits(state: Arrays, *shapes: tuple[int, ...]) -> bool:
    """Whether a state is of these shapes: compiled code does not look."""
    parts: Sequence[Array] = state if type(state) is tuple else (state,)
    return [part.shape for part in parts] == [*shapes]


def unchanged(module: torch.nn.Module, kind: type[torch.nn.Module]) -> bool:
    """Whether a module is as torch made it: its weights are its own (no weight_norm, no pruning), without hooks."""
    return type(module) is kind and not hooked(module)


def hooked(module: torch.nn.Module) -> bool:
    """Whether forward hooks are registered, its own or global ones: then it must be called as a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or hooks_of_all or hooks_before_all)


# By identity, which is the fastest key. The arrays keep their memory alive, so an address cannot come to mean other
# numbers while it is known here.
KNOWN: dict[int, tuple[list[Any], list[Array]]] = {}


def kept(owner: torch.nn.Module, tensors: Sequence[Tensor], make: Callable[[], list[Array]]) -> list[Array]:
    """The arrays that ``make`` makes of a module's ``tensors``, in the same memory; made anew only when they moved."""
    places, known = [(tensor.data_ptr(), tensor.stride()) for tensor in tensors], KNOWN.get(id(owner))
    if known is None:
        weakref.finalize(owner, KNOWN.pop, id(owner), None)
    if known is None or known[0] != places:
        known = KNOWN[id(owner)] = places, make()
    return known[1]


def own(module: torch.nn.Module) -> list[Array]:
    """A module's own parameters and buffers as arrays that share their memory, in the order of their definition."""
    held = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    return kept(module, held, lambda: [array(tensor) for tensor in held])
