"""The compiled engine: a cell's equations and their gradient as machine code, for float32 on a CPU.

What is left in the time loop is one matrix product per step (torch) and one pass over the gates (a kernel), where the
readable loop makes a dozen small torch calls. For a few rows without gradient the products join the kernel, which then
runs a whole chunk in one call. The kernels are written from the tape of the equations and compiled by numba, which
keeps them under ``~/.cache/rivulet`` (or where ``RIVULET_CACHE`` points). ``RIVULET_ENGINE=off`` turns it off.
"""

import hashlib
import importlib
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from pipeline.core.atomic import atomic_write
from pipeline.layers.lean import Array, array
from pipeline.layers.tape import record
from pipeline.layers.writer import NUMERICS, Writer

FEW_ROWS = 64  # rows up to which, without gradient, the products belong into the kernel (benchmarks/cells.py)
FEW_STEPS = 16  # rows times steps up to which the product with x belongs there, too


class Recurrent(Protocol):
    """What the engine needs to know of a cell."""

    inputs: tuple[str, ...]
    gates: tuple[str, ...]
    memory: tuple[str, ...]
    seen: tuple[str, ...]
    gate: str
    hidden: int
    names: tuple[str, ...]
    weight_ih: Parameter
    weight_hh: Parameter | None
    bias_ih: Parameter | None
    bias_hh: Parameter | None
    weight_ch: Parameter | None

    @property
    def weights(self) -> list[Tensor]:
        """All of them that there are."""

    @property
    def variant(self) -> tuple[Any, ...]:
        """The settings that change the equations."""

    def equations(self, m: Any, x: Any, *memory: Any) -> tuple[Any, ...]:
        """One time step in the vocabulary ``m``."""

    def project(self, x: Tensor) -> Tensor:
        """W_ih x + b_ih."""


def few(cell: Recurrent, x: Tensor, memory: list[Tensor]) -> bool:
    """Whether ``stream`` is the way: a few rows, and no gradient is asked for."""
    return x.shape[0] <= FEW_ROWS and not learning(cell, x, memory)


def learning(cell: Recurrent, x: Tensor, memory: list[Tensor]) -> bool:
    """Whether a gradient is asked for."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in (x, *memory, *cell.weights))


def stream(cell: Recurrent, x: Array, memory: Sequence[Array]) -> tuple[list[Array], bool]:
    """A few rows without gradient, ``x (B, T, F)``, in one call for all steps: ``[y (B, T, hidden), *memory]``, and
    whether they are finite.
    """
    program = program_of(cell)
    rows, steps, _ = x.shape
    short = rows * steps <= FEW_STEPS
    width = program.inputs * cell.hidden
    parts = np.empty((rows, steps, width), np.float32) if short else array(cell.project(torch.from_numpy(x)))
    y = np.empty((rows, steps, cell.hidden), np.float32)
    last = [m.copy() for m in memory]
    total = program.kernels.stream(short, x, *program.views(cell), parts, y, *last)
    return [y, *last], bool(total - total == 0)


def unroll(cell: Recurrent, x: Tensor, memory: list[Tensor]) -> list[Tensor]:
    """``x (B, T, F)`` through a cell, step by step, with its gradient: ``[y (B, T, hidden), *memory]``."""
    x = x.transpose(0, 1).contiguous()
    weight = x.new_empty(0, cell.hidden) if cell.weight_hh is None else cell.weight_hh
    given: list[Any] = [program_of(cell), cell.project(x), weight, cell.bias_hh, cell.weight_ch, *memory]
    if not torch.is_grad_enabled():
        return advance(*given)[0]
    return list(Unrolled.apply(*given))  # type: ignore[no-untyped-call]


def advance(
    program: "Program", x: Tensor, weight: Tensor, bias: Tensor | None, peep: Tensor | None, *memory: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """``x (T, B, blocks * H)``, the projected input, to ``[y (B, T, H), *memory]``, and what the way back needs."""
    (steps, rows, _), hidden = x.shape, weight.shape[1]
    states = remember(steps, list(memory))
    products = x.new_empty(steps, rows, weight.shape[0])
    computed = [x.new_empty(steps, rows, hidden) for _ in program.computed]
    peep = x.new_empty(0, hidden) if peep is None else peep
    kernels, given = program.kernels, views_of(x, products, peep[:, None], *computed, *states)
    weight = weight.detach()
    plan = [
        (p, computed[program.computed.index(p)] if of is None else states[of], span, weight[span].t(),
         x.new_zeros(1) if bias is None else bias.detach()[span])
        for p, (of, span) in enumerate(zip(program.of, program.spans(hidden), strict=True))
    ]  # fmt: skip
    if not plan:
        kernels.after(0, steps, *given)
    for t in range(steps if plan else 0):
        for p, operand, span, matrix, shift in plan:
            if program.of[p] is None:
                getattr(kernels, f"before{p}")(t, t + 1, *given)
            torch.addmm(shift, operand[t], matrix, out=products[t, :, span])
        kernels.after(t, t + 1, *given)
    # A copy, so that the caller may write to y: the way back reads the states.
    answer = [
        states[0][1:].transpose(0, 1).clone(memory_format=torch.contiguous_format),
        *(state[steps].clone() for state in states),
    ]
    return answer, [x, weight, peep, products, *computed, *states]


class Program:
    """The kernels of one cell, and how they are called. Names of arrays: see ``pipeline.layers.writer``."""

    def __init__(self, cell: Recurrent) -> None:
        recorded = record(cell.equations, cell.inputs, cell.gates, cell.memory, cell.seen, cell.gate)
        self.inputs, self.gates = len(cell.inputs), len(cell.gates)
        # Where x and the products are only ever added, their gradients are one.
        self.shared = cell.inputs == cell.gates and all(
            recorded.dx[name].index == recorded.du[name].index for name in cell.inputs
        )
        self.kernels: Any = load(Writer(recorded, cell.inputs, cell.gates, cell.seen, self.shared).source())
        self.of = [product.of for product in recorded.products]  # the memory that each product takes
        self.blocks = [(cell.gates.index(p.names[0]), len(p.names)) for p in recorded.products]
        self.computed = [p for p, of in enumerate(self.of) if of is None]
        self.joint = self.shared and self.of == [0]  # W x and R h are only ever added: [W R] [x; h] is their sum

    def spans(self, hidden: int) -> list[slice]:
        """The rows of ``weight_hh`` of each product."""
        return [slice(begin * hidden, (begin + count) * hidden) for begin, count in self.blocks]

    def views(self, cell: Recurrent) -> list[Any]:
        """The weights for ``stream``, as arrays that share their memory; made anew only when they moved."""
        weights = cell.weights
        key, (known, views) = [(w.data_ptr(), w.stride()) for w in weights], VIEWS.get(id(cell), NONE)
        if known != key:
            empty = torch.empty(0, cell.hidden)
            zeros = torch.zeros(max(self.inputs, self.gates) * cell.hidden)
            found = dict(zip(cell.names, weights, strict=True))
            missing = {"weight_hh": empty, "weight_ch": empty, "bias_ih": zeros, "bias_hh": zeros}
            order = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_ch")
            *views, peep = views_of(*((missing | found)[name] for name in order))
            views.append(peep[:, None])
            VIEWS[id(cell)] = key, views
            if not known:
                weakref.finalize(cell, VIEWS.pop, id(cell), None)
        return views


# By identity, which is the fastest key. The arrays keep their memory alive, so an address cannot come to mean another
# weight while it is known here.
VIEWS: dict[int, tuple[list[Any], list[Any]]] = {}
NONE: tuple[list[Any], list[Any]] = [], []


def views_of(*tensors: Tensor) -> list[Array]:
    """The same memory for a kernel, each."""
    return [array(tensor) for tensor in tensors]


def remember(steps: int, memory: list[Tensor]) -> list[Tensor]:
    """Room for the memory of all steps, ``(T + 1, B, H)``, which begins with the given one."""
    states = [first.new_empty(steps + 1, *first.shape) for first in memory]
    for state, first in zip(states, memory, strict=True):
        state[0] = first.detach()
    return states


class Unrolled(torch.autograd.Function):
    """A cell over time with its gradient (back-propagation through time, Werbos 1990)."""

    @staticmethod
    def forward(
        ctx: Any, program: Program, x: Tensor, weight: Tensor, bias: Tensor | None, peep: Tensor | None, *memory: Tensor
    ) -> tuple[Tensor, ...]:
        """``x (T, B, blocks * H)``, the projected input, to y ``(B, T, H)`` and the last memory."""
        answer, needed = advance(program, x, weight, bias, peep, *memory)
        ctx.program, ctx.biased, ctx.peeped = program, bias is not None, peep is not None
        ctx.save_for_backward(*needed)
        return tuple(answer)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *dlast: Tensor) -> tuple[Tensor | None, ...]:
        """Back through time: the kernel's gradients of a step, then the product's."""
        program: Program = ctx.program
        x, weight, peep, products, *others = ctx.saved_tensors
        computed = dict(zip(program.computed, others, strict=False))
        states = others[len(computed) :]
        (steps, rows, _), hidden = x.shape, weight.shape[1]
        dproducts = torch.empty_like(products)
        dx = dproducts if program.shared else torch.empty_like(x)
        dpeep = peep.new_zeros(steps, *peep.shape)
        doperands = {p: x.new_empty(rows, hidden) for p in computed}
        dmemory = [d.contiguous().clone() for d in dlast]
        kernels = program.kernels
        given = views_of(x, products, peep[:, None], *computed.values(), *states)
        given += views_of(dy.transpose(0, 1).contiguous(), dx, dproducts, dpeep, *doperands.values(), *dmemory)
        spans = program.spans(hidden)
        if not spans:
            for t in range(steps - 1, -1, -1):
                kernels.back(t, t + 1, *given)
        for t in range(steps - 1 if spans else -1, -1, -1):
            for p in reversed(program.computed):
                getattr(kernels, f"back{p}")(t, t + 1, *given)
                torch.mm(dproducts[t, :, spans[p]], weight[spans[p]], out=doperands[p])
            kernels.back(t, t + 1, *given)
            for p, of in enumerate(program.of):
                if of is not None:
                    dmemory[of].addmm_(dproducts[t, :, spans[p]], weight[spans[p]])
        dweight, flat = torch.empty_like(weight), dproducts.view(steps * rows, -1) if spans else dproducts
        for p, span in enumerate(spans):
            operand = computed[p] if program.of[p] is None else states[cast(int, program.of[p])][:steps]
            torch.mm(flat[:, span].t(), operand.view(steps * rows, hidden), out=dweight[span])
        dbias = dproducts.sum((0, 1)) if ctx.biased else None
        return None, dx, dweight, dbias, dpeep.sum(0) if ctx.peeped else None, *dmemory


@cache
def passes() -> Any:
    """``pipeline.layers.passes``, compiled and kept."""
    module = load("\n\n".join(path.read_text() for path in (NUMERICS, NUMERICS.with_name("passes.py"))))
    for made in vars(module).values():
        if module.CACHE and getattr(made, "__module__", "") == module.__name__ and hasattr(made, "enable_caching"):
            made.enable_caching()
    return module


PROGRAMS: dict[Any, Program] = {}


def program_of(cell: Recurrent) -> Program:
    """The compiled cell; cells of the same equations share it."""
    key = (type(cell), cell.variant)
    if key not in PROGRAMS:
        PROGRAMS[key] = Program(cell)
    return PROGRAMS[key]


def load(source: str) -> ModuleType:
    """The kernels as a module. What runs is ``source``; the file of the same text is where numba keeps machine code."""
    # A pass over the gates reads and writes many arrays; LLVM gives up on proving them apart after eight, unless told.
    importlib.import_module("llvmlite.binding").set_option("", "-runtime-memory-check-threshold=512")
    folder = Path(os.path.expanduser(os.environ.get("RIVULET_CACHE", "~/.cache/rivulet"))) / "kernels"
    name = f"rivulet_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = folder / f"{name}.py"
    module = ModuleType(name)
    module.CACHE = keep(path, source)  # type: ignore[attr-defined]
    sys.modules[name] = module  # where numba looks for what it kept
    exec(compile(source, str(path) if module.CACHE else name, "exec"), vars(module))
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
