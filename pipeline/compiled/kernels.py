"""The compiled engine: a cell's equations and their gradient as machine code, for float32 on a CPU.

What is left in the time loop is one matrix product per step (torch) and one pass over the gates (a kernel), where the
readable loop makes a dozen small torch calls. The kernels are written from the tape of the equations. Numba compiles
them and keeps them under ``~/.cache/rivulet``, or where ``RIVULET_CACHE`` points. ``RIVULET_ENGINE=off`` turns it off.
"""

import hashlib
import importlib
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.compiled.tape import Recorded, record
from pipeline.compiled.writer import Writer
from pipeline.core.atomic import atomic_write

ON = os.environ.get("RIVULET_ENGINE") != "off"
NUMERICS = Path(__file__).with_name("numerics.py")  # of which all kernels are made

Array: TypeAlias = NDArray[Any]
Program: TypeAlias = tuple[Recorded, Any]  # a cell's step, and the kernels of ``pipeline.compiled.writer``
PROGRAMS: dict[Any, Program] = {}


# What torch does not promise to keep. Where it is missing, the engine does not see such a transformation.
interpreter = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None)
is_tracing = getattr(torch._C, "_is_tracing", lambda: False)


def serves(x: Tensor) -> bool:
    """Whether compiled kernels can run this: plain float32 vectors ``(B, T, F)`` on a CPU, and
    not within tracing or a transformation (torch.func, forward-mode gradients).
    """
    return (
        ON
        and x.ndim == 3
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


def unroll(cell: Any, x: Tensor, memory: list[Tensor]) -> list[Tensor]:
    """``x (B, T, F)`` through a cell, step by step, with its gradient: ``[y (B, T, hidden), *memory]``."""
    weight = x.new_empty(0, cell.hidden) if cell.weight_hh is None else cell.weight_hh
    parts = cell.project(x.transpose(0, 1).contiguous())
    given = (program_of(cell), parts, weight, cell.bias_hh, cell.weight_ch, *memory)
    return list(Unrolled.apply(*given))  # type: ignore[no-untyped-call]


class Unrolled(torch.autograd.Function):
    """A cell over time with its gradient (back-propagation through time, Werbos 1990)."""

    @staticmethod
    def forward(
        ctx: Any, program: Program, x: Tensor, weight: Tensor, bias: Tensor | None, peep: Tensor | None, *memory: Tensor
    ) -> tuple[Tensor, ...]:
        """``x (T, B, blocks * H)``, the projected input, to y ``(B, T, H)`` and the last memory."""
        (recorded, kernels), (steps, rows, _), hidden = program, x.shape, weight.shape[1]
        states = [first.new_empty(steps + 1, *first.shape) for first in memory]
        for state, first in zip(states, memory, strict=True):
            state[0] = first
        products = x.new_empty(steps, rows, weight.shape[0])
        computed = {p: x.new_empty(steps, rows, hidden) for p in recorded.computed}
        ctx.program, ctx.biased, ctx.peeped = program, bias is not None, peep is not None
        peep = x.new_empty(0, hidden) if peep is None else peep
        before = [*map(array, (x, products, peep[:, None], *computed.values(), *(state[:-1] for state in states)))]
        after = [array(state[1:]) for state in states]
        plan = [
            (p, computed[p] if of is None else states[of], span, weight[span].t(),
             x.new_zeros(1) if bias is None else bias[span])
            for p, (of, span) in enumerate(zip(recorded.of, recorded.spans(hidden), strict=True))
        ]  # fmt: skip
        if not plan:
            kernels.after(0, steps, *before, *after)
        for t in range(steps if plan else 0):
            for p, operand, span, matrix, shift in plan:
                if p in computed:
                    getattr(kernels, f"before{p}")(t, t + 1, *before)
                torch.addmm(shift, operand[t], matrix, out=products[t, :, span])
            kernels.after(t, t + 1, *before, *after)
        ctx.save_for_backward(x, weight, peep, products, *computed.values(), *states)
        # A copy, so that the caller may write to y: the way back reads the states.
        y = states[0][1:].transpose(0, 1).clone(memory_format=torch.contiguous_format)
        return y, *(state[steps].clone() for state in states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *dlast: Tensor) -> tuple[Tensor | None, ...]:
        """Back through time: the kernel's gradients of a step, then the product's."""
        recorded, kernels = ctx.program
        x, weight, peep, products, *others = ctx.saved_tensors
        computed = dict(zip(recorded.computed, others, strict=False))
        states = [state[:-1] for state in others[len(computed) :]]
        (steps, rows, _), hidden = x.shape, weight.shape[1]
        dproducts = torch.empty_like(products)
        dx = dproducts if recorded.shared else torch.empty_like(x)
        dpeep = peep.new_zeros(steps, *peep.shape)
        doperands = {p: x.new_empty(rows, hidden) for p in computed}
        dmemory = [d.contiguous().clone() for d in dlast]
        spans = recorded.spans(hidden)
        tensors = [x, products, peep[:, None], *computed.values(), *states]
        tensors += [dy.transpose(0, 1).contiguous(), dx, dproducts, dpeep, *doperands.values(), *dmemory]
        given = [*map(array, tensors)]
        for t in range(steps - 1, -1, -1):
            for p in reversed(recorded.computed):
                getattr(kernels, f"back{p}")(t, t + 1, *given)
                torch.mm(dproducts[t, :, spans[p]], weight[spans[p]], out=doperands[p])
            kernels.back(t, t + 1, *given)
            for p, of in enumerate(recorded.of):
                if of is not None:
                    dmemory[of].addmm_(dproducts[t, :, spans[p]], weight[spans[p]])
        dweight, flat = torch.empty_like(weight), dproducts.view(steps * rows, -1) if spans else dproducts
        for p, (of, span) in enumerate(zip(recorded.of, spans, strict=True)):
            operand = computed[p] if of is None else states[of]
            torch.mm(flat[:, span].t(), operand.view(steps * rows, hidden), out=dweight[span])
        dbias = dproducts.sum((0, 1)) if ctx.biased else None
        return None, dx, dweight, dbias, dpeep.sum(0) if ctx.peeped else None, *dmemory


def program_of(cell: Any) -> Program:
    """The compiled cell; cells of the same equations share it."""
    key = (type(cell), cell.variant)
    if key not in PROGRAMS:
        recorded = record(cell)
        PROGRAMS[key] = recorded, load(Writer(recorded).source())
    return PROGRAMS[key]


@cache
def load(source: str) -> ModuleType:
    """The kernels as a module. What runs is ``source``; the file of the same text is where numba keeps machine code."""
    # A pass over the gates reads and writes many arrays; LLVM gives up on proving them apart after eight, unless told.
    importlib.import_module("llvmlite.binding").set_option("", "-runtime-memory-check-threshold=512")
    folder = Path(os.path.expanduser(os.environ.get("RIVULET_CACHE", "~/.cache/rivulet"))) / "kernels"
    name = f"rivulet_{hashlib.sha256((NUMERICS.read_text() + source).encode()).hexdigest()[:24]}"
    path, module = folder / f"{name}.py", ModuleType(name)
    sys.modules[name] = module  # where numba looks for what it kept
    kept_there = keep(path, source)
    exec(compile(source, str(path) if kept_there else name, "exec"), vars(module))
    for made in [*vars(module).values()] if kept_there else ():
        if getattr(made, "__module__", "") == name and hasattr(made, "enable_caching"):
            made.enable_caching()
    return module


def keep(path: Path, source: str) -> bool:
    """Whether the file is there and holds ``source``, in a folder that only we can write to: what numba keeps beside
    it is run as it is.
    """
    if path.parts[0].startswith("~"):  # a user without a home, as in some containers
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (path.parent, path.parent / "__pycache__"):
            found = folder.stat() if folder.exists() else None
            if found and hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
                return False
        if not path.exists() or path.read_text() != source:
            with atomic_write(path, cache=True) as file:
                file.write(source.encode())
    except OSError:
        return False
    return True
