"""What a recurrent cell is: gates, memory and equations. Everything else is shared.

A cell writes its equations once, in ``equations``, in terms of a small vocabulary ``m``. Who speaks it decides how they
are run: ``Eager`` below runs them with torch (any device, any precision, autograd; the readable loop), and
``pipeline.compiled.tape`` records them, so that ``kernels`` beside it can derive their gradient and compile both.
"""

from types import SimpleNamespace
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import hardsigmoid, linear

from pipeline.compiled.kernels import serves, unroll
from pipeline.core.errors import NotFiniteError
from pipeline.layers.stage import Stage, State

Share = Annotated[float, Field(ge=0, lt=1)]

LONG_STEPS = 16  # from which torch's LSTM on a CPU pays for packing its weights, as it does in every call
MANY_ROWS = 5  # from which it then is faster than the engine; with a gradient, from one row on
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ch")


class Cell(Stage):
    """A recurrent cell as a Stage: ``x (B, T, F) -> y (B, T, hidden)``.

    A subclass names its parts and writes ``equations``:

    Attributes:
        inputs: names of the blocks of ``hidden`` rows in ``weight_ih``: what is computed from x, before the time loop.
        gates: names of the blocks in ``weight_hh``: what is computed from the memory, step by step.
        memory: names of the states, each ``(B, hidden)``. The first is the output y. One memory is passed on as a
            tensor, several as a tuple.
        seen: names of the gates with a peephole to c.
        remember: the gate that keeps the memory when it is large (+1) or small (-1); ``forget_bias`` sets it.
        torch_kernel: the kernel of torch for these equations (``lstm``, ``gru``, ``rnn_tanh``), if any.
        compiled: whether the engine may compile the equations. With False the readable loop runs them, which is
            slower, and they may call any function of torch.

    Weights are laid out and initialised as in ``torch.nn`` (uniform in +-1/sqrt(hidden)); ``pipeline.cells.layouts``
    copies trained ones in.
    """

    inputs: tuple[str, ...]
    gates: tuple[str, ...]
    memory: tuple[str, ...] = ("h",)
    seen: tuple[str, ...] = ()
    remember: tuple[str, int] | None = None
    torch_kernel: str | None = None
    compiled: bool = True

    def __init__(
        self,
        shape: tuple[int, ...],
        hidden: PositiveInt,
        bias: bool = True,
        layer_norm: bool = False,
        zoneout: Share = 0.0,
        recurrent_dropout: Share = 0.0,
        forget_bias: float | None = None,
        orthogonal: bool = False,
        learn_initial: bool = False,
        gate: Literal["sigmoid", "hard_sigmoid"] = "sigmoid",
    ) -> None:
        """``shape`` of a step of x; ValueError if it does not suit, or if a setting is out of range.

        ``layer_norm``: normalise W x, each recurrent product, and c before the output (Ba et al. 2016, arXiv
        1607.06450, eq. 20-22). ``zoneout``: share of the memory that keeps its old value, at random in training, in the
        mean otherwise (Krueger et al. 2017, arXiv 1606.01305). ``recurrent_dropout``: share of the memory hidden from
        the recurrent products, the same at all steps of a call (Gal & Ghahramani 2016, arXiv 1512.05287).
        ``forget_bias``: initial bias with which the gate ``remember`` keeps the memory (Jozefowicz et al. 2015).
        ``orthogonal``: each recurrent block begins orthogonal (Saxe et al. 2014). ``learn_initial``: the memory before
        the first step is a parameter. ``gate``: hard_sigmoid is clip(x / 6 + 1/2, 0, 1).
        """
        super().__init__()
        name = type(self).__name__
        if hidden < 1:
            raise ValueError(f"{name}: hidden is {hidden}; expected at least 1 (encoder.hidden)")
        if gate not in ("sigmoid", "hard_sigmoid"):
            raise ValueError(f"{name}: gate is {gate!r}; expected sigmoid or hard_sigmoid (cell.gate)")
        for key, share in (("zoneout", zoneout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= share < 1:
                raise ValueError(f"{name}: {key} is {share}; expected a share in [0, 1) (cell.{key})")
        if forget_bias is not None and not (bias and self.remember):
            why = "bias is false" if self.remember else "it has no gate that keeps its memory"
            raise ValueError(f"{name}: forget_bias needs a gate with a bias, but {why} (cell.forget_bias)")
        self.hidden, self.zoneout, self.recurrent_dropout = hidden, zoneout, recurrent_dropout
        self.gate: str = gate
        self.arrange(shape)
        self.bias_ih, self.bias_hh = (
            nn.Parameter(torch.empty(len(names) * hidden)) if bias and names else None
            for names in (self.inputs, self.gates)
        )
        self.weight_ch = nn.Parameter(torch.empty(len(self.seen), *self.out_shape)) if self.seen else None
        self.start = nn.Parameter(torch.zeros(len(self.memory), *self.out_shape)) if learn_initial else None
        self.names = tuple(name for name in WEIGHTS if getattr(self, name) is not None)
        self.fill(forget_bias, orthogonal)
        self.norms: nn.ParameterDict | None = None
        if layer_norm:
            gains = {"ih": len(self.inputs), "hh": len(self.gates), "c": 1 if "c" in self.memory else 0}
            gain = {key: nn.Parameter(torch.ones(n * hidden)) for key, n in gains.items() if n}
            shift = {"shift": nn.Parameter(torch.zeros(hidden))} if gains["c"] else {}
            self.norms = nn.ParameterDict(gain | shift)

    def arrange(self, shape: tuple[int, ...]) -> None:
        """Set the shapes of steps, ``weight_ih`` and ``weight_hh`` (None for a cell without recurrent products)."""
        if len(shape) != 1:
            raise ValueError(f"{type(self).__name__}: expected feature vectors, got steps of shape {shape}")
        self.in_shape, self.out_shape = shape, (self.hidden,)
        self.weight_ih = nn.Parameter(torch.empty(len(self.inputs) * self.hidden, shape[0]))
        self.weight_hh = nn.Parameter(torch.empty(len(self.gates) * self.hidden, self.hidden)) if self.gates else None

    def fill(self, forget_bias: float | None, orthogonal: bool) -> None:
        """Draw the initial weights."""
        bound = (self.weight_ih[0].numel() / self.in_shape[0] * self.hidden) ** -0.5
        for name, parameter in self.named_parameters():
            if name != "start":
                nn.init.uniform_(parameter, -bound, bound)
        if orthogonal and self.weight_hh is not None:
            for block in torch.split(self.weight_hh.detach(), self.hidden):
                nn.init.orthogonal_(block)
        if forget_bias is not None:
            name, sign = cast(tuple[str, int], self.remember)
            for bias, names, value in ((self.bias_ih, self.inputs, forget_bias), (self.bias_hh, self.gates, 0.0)):
                if bias is not None and name in names:
                    self.rows(bias.detach(), names, (name,)).fill_(sign * value)

    def rows(self, tensor: Tensor, among: tuple[str, ...], names: tuple[str, ...]) -> Tensor:
        """The blocks ``names`` (neighbours) of a tensor whose rows are the blocks ``among``."""
        if names == among:
            return tensor
        begin = among.index(names[0])
        return tensor[begin * self.hidden : (begin + len(names)) * self.hidden]

    def initial(self, batch: int) -> State:
        """The learned memory, or zeros."""
        if self.start is not None:
            states = [start.expand(batch, *self.out_shape) for start in self.start.unbind()]
        else:
            states = [self.zeros(batch, *self.out_shape) for _ in self.memory]
        return tuple(states) if len(states) > 1 else states[0]

    def equations(self, m: Any, x: Any, *memory: Any) -> tuple[Any, ...]:
        """One time step: ``x`` holds the blocks of W_ih x + b_ih by name; returns the new memory, y first.

        ``m`` offers ``gate`` (the sigmoid, unless the option ``gate`` says otherwise), ``tanh``; ``recur(v, *names)``:
        the blocks of W_hh v + b_hh; ``peep(name, c)``: the peephole's product (nothing if there is none); ``norm(c)``:
        layer normalisation, if it is on. Each gate belongs into one ``recur``, neighbours in their order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no equations")

    @property
    def variant(self) -> tuple[Any, ...]:
        """The settings that change the equations."""
        return (self.gate,)

    @property
    def weights(self) -> list[Tensor]:
        """The parameters of the equations, in the order in which torch's kernels take them."""
        try:  # ten times as fast as attributes
            return cast(list[Tensor], [self._parameters[name] for name in self.names])
        except KeyError:  # weight_norm, pruning and the like compute some of them
            return [getattr(self, name) for name in self.names]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Torch's kernel where it is the fastest, the compiled engine where it serves, or the readable loop.

        Raises ValueError for a state of another batch, shape, precision or device, and (on a CPU) for NaN or infinity.
        """
        given = memory = self.memory_of(state, x)
        run = self.fused(x, memory)
        if run is None:
            run = unroll(self, x, memory) if self.plain and serves(x) else self.loop(x, *memory)
        y, *memory = run
        finite = not x.is_cpu or torch.compiler.is_compiling() or all(map(self.finite, (x, *given)))
        if not finite:
            for name, tensor in (("x", x), *zip(self.memory, given, strict=True)):
                if not self.finite(tensor):
                    raise NotFiniteError(f"{type(self).__name__}: {name} {tuple(tensor.shape)} holds NaN or infinity")
        return y, memory[0] if len(memory) == 1 else tuple(memory)

    def fused(self, x: Tensor, memory: list[Tensor]) -> list[Tensor] | None:
        """``[y, *memory]`` by torch's kernel; None where there is none that serves, or the engine is faster: on a CPU
        for all but long LSTMs (benchmarks/cells.py).
        """
        if x.is_cpu and (self.torch_kernel != "lstm" or x.shape[1] < LONG_STEPS or x.dtype != torch.float32):
            return None
        if x.is_cpu and (torch.is_autocast_enabled("cpu") or (len(x) < MANY_ROWS and not torch.is_grad_enabled())):
            return None
        known = self.torch_kernel and self.plain and self.gate == "sigmoid" and not self.seen
        if not known or not (x.is_cpu or x.is_cuda):
            return None
        given = tuple(m[None].contiguous() for m in memory)
        settings = self.bias_ih is not None, 1, 0.0, self.training or torch.is_grad_enabled(), False, True
        y, *last = getattr(torch, str(self.torch_kernel))(
            x, given if len(given) > 1 else given[0], self.weights, *settings
        )
        return [y, *(m[0] for m in last)]

    @staticmethod
    def finite(x: Tensor) -> bool:
        """Whether all numbers are; a sum is the cheapest witness."""
        total = float(x.detach().sum())
        return total - total == 0

    def memory_of(self, state: State, x: Tensor) -> list[Tensor]:
        """The state as a list, if it is one of this cell for the rows of ``x``."""
        memory = [state] if isinstance(state, Tensor) else list(state)
        anchor = cast(Tensor, self._buffers["anchor"])  # weights can be of a lower precision than what is remembered
        expected, own, place = (x.shape[0], *self.out_shape), anchor.dtype, anchor.device
        mixed, name = place.type != "meta" and torch.is_autocast_enabled(place.type), type(self).__name__
        if len(memory) != len(self.memory):
            raise ValueError(f"{name}: the state has {len(memory)} tensors; expected {', '.join(self.memory)}")
        for part, tensor in zip(("x", *self.memory), (x, *memory), strict=True):
            what = part if tensor is x else f"state {part}"
            if tensor is not x and tensor.shape != expected:
                raise ValueError(
                    f"{name}: {what} has shape {tuple(tensor.shape)}; expected {expected} for x {tuple(x.shape)}"
                )
            if tensor.device != place or (tensor.dtype != own and not mixed):
                raise ValueError(f"{name}: {what} is {tensor.dtype} on {tensor.device}; expected {own} on {place}")
        return memory

    @property
    def plain(self) -> bool:
        """Whether the equations alone decide, and can be compiled: no normalisation, no zoneout, no dropout now."""
        return (
            self.compiled and self.norms is None and not self.zoneout and not (self.training and self.recurrent_dropout)
        )

    def loop(self, x: Tensor, *memory: Tensor) -> list[Tensor]:
        """The readable loop: ``[y, *memory]``."""
        m, outputs = Eager(self, x), []
        for step in self.project(x).unbind(1):
            new = self.equations(m, blocks(step, self.inputs), *memory)
            memory = m.zone_out(memory, new) if self.zoneout else new
            outputs.append(memory[0])
        return [torch.stack(outputs, 1), *memory]

    def project(self, x: Tensor) -> Tensor:
        """W_ih x + b_ih for all steps at once: ``(B, T, *in_shape) -> (B, T, blocks * hidden, ...)``."""
        if self.norms is None:
            return self.map_input(x, self.bias_ih)
        y = self.map_input(x, None)
        return self.normal(y.flatten(0, 1), self.norms["ih"], self.bias_ih).view(y.shape)

    def product(self, v: Tensor, names: tuple[str, ...]) -> Tensor:
        """W_hh v + b_hh, the blocks ``names``: ``(B, *out_shape) -> (B, blocks * hidden, ...)``."""
        weight = self.rows(cast(Tensor, self.weight_hh), self.gates, names)
        bias = None if self.bias_hh is None else self.rows(self.bias_hh, self.gates, names)
        if self.norms is None:
            return self.map_memory(v, weight, bias)
        return self.normal(self.map_memory(v, weight, None), self.rows(self.norms["hh"], self.gates, names), bias)

    def map_input(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map of all steps of x."""
        return linear(x, self.weight_ih, bias)

    def map_memory(self, v: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map of one step of memory."""
        return linear(v, weight, bias)

    @staticmethod
    def normal(y: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
        """Layer normalisation of ``(N, channels, ...)`` over all but N."""
        return torch.group_norm(y, 1, gain, shift, 1e-5, torch.backends.cudnn.enabled)


def blocks(y: Tensor, names: tuple[str, ...]) -> SimpleNamespace:
    """``(B, blocks * hidden, ...)`` cut into named blocks."""
    return SimpleNamespace(**dict(zip(names, y.chunk(len(names), 1), strict=True)))


class Nothing:
    """What a peephole adds where there is none."""

    def __radd__(self, other: Any) -> Any:
        return other


class Eager:
    """The vocabulary of the equations, spoken by torch, for one call of a cell."""

    def __init__(self, cell: Cell, x: Tensor) -> None:
        self.cell = cell
        self.gate = torch.sigmoid if cell.gate == "sigmoid" else hardsigmoid
        self.tanh = torch.tanh
        keep = 1 - cell.recurrent_dropout
        dropping = cell.training and cell.recurrent_dropout
        self.mask = x.new_empty(x.shape[0], *cell.out_shape).bernoulli_(keep) / keep if dropping else None

    def recur(self, v: Tensor, *names: str) -> SimpleNamespace:
        """The recurrent products of ``v``."""
        v = v if self.mask is None else v * self.mask
        return blocks(self.cell.product(v, names), names)

    def peep(self, name: str, c: Tensor) -> Any:
        """The peephole's product, one weight per unit (in images: per unit and pixel)."""
        if self.cell.weight_ch is None:
            return Nothing()
        return self.cell.weight_ch[self.cell.seen.index(name)] * c

    def norm(self, c: Tensor) -> Tensor:
        """Layer normalisation of the memory, if it is on."""
        norms = self.cell.norms
        return c if norms is None else self.cell.normal(c, norms["c"], norms["shift"])

    def zone_out(self, old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The new memory, of which a share stays as it was."""
        share = self.cell.zoneout
        if not self.cell.training:
            return tuple(share * a + (1 - share) * b for a, b in zip(old, new, strict=True))
        return tuple(
            torch.where(torch.empty_like(b).bernoulli_(share).bool(), a, b) for a, b in zip(old, new, strict=True)
        )
