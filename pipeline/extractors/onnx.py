"""Any other network, from an ONNX file, on windows of samples, of mel frames or of pictures."""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from pipeline.core.build import nearest
from pipeline.core.errors import ConfigError
from pipeline.extractors.extractor import Extractor
from pipeline.extractors.onnx_network import KEY, Array, Network, fit, locate, zeros
from pipeline.extractors.pixels import Rate, Size
from pipeline.layers.laws import check
from pipeline.layers.stage import State, left_context
from pipeline.media.input_spec import InputSpec
from pipeline.media.picture import Fit, Picture

INSIDE_BYTES = 8 << 20  # of a file that a model's file may hold


class Memory(BaseModel):
    """Where an input that is a memory comes out again, and on which axis its batch is."""

    model_config = ConfigDict(extra="forbid")
    out: str
    axis: NonNegativeInt = 0


class Found(BaseModel):
    """What a model's file keeps of a network: its file, what a call makes, and the shapes of its memories."""

    model_config = ConfigDict(extra="forbid")
    sha256: str
    size: PositiveInt
    origin: str  # PACKAGE==VERSION, or ""
    features: PositiveInt
    states: list[list[NonNegativeInt]]


class Onnx(Extractor):
    """Samples ``(B, T*hop)`` or pictures ``(B, T*hop, 3, H, W)`` to ``(B, T, F)``, whatever one call of the network
    makes of the last ``window`` of them, flat. With ``takes=mels`` these are frames of the extractor ``mels``.

    Each call has one row and one window: libraries give other last digits for other shapes. The state is what of the
    window comes again, and the memories of the network, which begin with zeros.
    """

    costly = uncounted = True
    file: Tensor

    def __init__(
        self,
        path: str,
        takes: Literal["samples", "mels", "pictures"] = "samples",
        rate: Rate | Annotated[int, Field(le=384000)] = 16000,
        mels: Extractor | None = None,
        height: Size = 112,
        width: Size = 112,
        how: Fit = "crop",
        window: PositiveInt = 16000,
        hop: PositiveInt = 16000,
        scale: float = 1.0,
        shift: float = 0.0,
        output: str | None = None,
        states: dict[str, Memory] | None = None,
        constants: dict[str, float] | None = None,
        delay: NonNegativeInt = 0,
        keep: Literal["reference", "inside"] = "reference",
        found: Found | None = None,
    ) -> None:
        """``path``: see ``locate``. ``window``, ``hop`` in steps of what it takes, which is multiplied by ``scale`` and
        to which ``shift`` is added. ``constants``: what else it takes. ``delay`` in calls, by which it answers late.
        ``found``: set by a model's file.

        ConfigError for a network that cannot be run so, that breaks a law, or that is not the one that was found.
        """
        super().__init__()
        if window < hop:
            raise ValueError(f"extractor.window: {window} is less than extractor.hop, {hop}")
        if (takes == "mels") != (mels is not None):
            raise ValueError("extractor.mels: expected an extractor's settings with extractor.takes=mels, else null")
        picture = Picture(rate, height, width, how) if takes == "pictures" else None
        self.spec = mels.spec if mels else InputSpec(None if picture else rate, picture)
        self.in_shape = (3, height, width) if picture else ()
        self.mels, self.seen = mels, mels.out_shape if mels else self.in_shape
        self.hop = hop * mels.hop if mels else hop
        self.window, self.step, self.delay = window, hop, delay
        self.scale, self.shift, self.constants, self.states = scale, shift, constants or {}, states or {}
        self.path, self.output, self.inside = path, output, keep == "inside"
        self.network: Network | None = None
        if not (self.inside and found):
            place, origin = locate(path, found.origin if found else "")
            self.network = Network(place.read_bytes(), path)
        self.found = found or self.look(origin)
        self.out_shape = (self.found.features,)
        self.register_buffer("file", torch.zeros(self.found.size if self.inside else 0, dtype=torch.uint8), self.inside)
        if self.network and self.inside:
            self.file.copy_(torch.frombuffer(bytearray(self.network.content), dtype=torch.uint8))
        if self.network:
            self.compare(self.network)
        if not found:
            self.try_laws()

    def look(self, origin: str) -> Found:
        """What the network makes of zeros. ConfigError if it cannot be run as it was set."""
        network = self.opened()
        if self.inside and len(network.content) > INSIDE_BYTES:
            raise ConfigError(
                f"extractor.keep: {self.path} has {len(network.content):,} bytes; expected at most {INSIDE_BYTES:,}; "
                "set extractor.keep=reference"
            )
        known = network.inputs()
        for key, names in (("states", self.states), ("constants", self.constants)):
            if strange := [name for name in names if name not in known]:
                raise ConfigError(f"extractor.{key}: {self.path} has no {strange[0]!r}{nearest(strange[0], [*known])}")
        memory = [zeros(known[name], one.axis) for name, one in self.states.items()]
        y, after = self.call(np.zeros((self.window, *self.seen), np.float32), memory)
        for (name, one), old, new in zip(self.states.items(), memory, after, strict=True):
            if new.shape != old.shape:
                raise ConfigError(f"extractor.states: {one.out!r} is {new.shape}; expected {old.shape}, as {name!r} is")
        shapes = [array.squeeze(one.axis).shape for array, one in zip(memory, self.states.values(), strict=True)]
        size = len(network.content)
        return Found(sha256=network.sha256, size=size, origin=origin, features=y.size, states=shapes)

    def opened(self) -> Network:
        """The network; that of a model's file is opened when it is first needed."""
        if self.network is None:
            self.network = Network(self.file.cpu().numpy().tobytes(), self.path)
            self.compare(self.network)
        return self.network

    def compare(self, network: Network) -> None:
        """ConfigError if it is not the one that was found when the model was trained."""
        if network.sha256 != self.found.sha256:
            how = f"pip install {self.found.origin}" if self.found.origin else "put the file of the training back"
            raise ConfigError(f"{KEY}: {self.path} has sha256 {network.sha256}; expected {self.found.sha256}: {how}")

    def try_laws(self) -> None:
        """ConfigError if what the network says depends on more than its past, as where it draws at random."""
        try:
            check(self, examples=1)
        except AssertionError as error:
            raise ConfigError(f"{KEY}: {self.path} cannot be used on streams: {error}") from None

    def recorded(self, config: dict[str, Any]) -> dict[str, Any]:
        """With what was found of the network."""
        return config | {"found": self.found.model_dump()}

    def initial(self, batch: int) -> State:
        """Of the mel spectrum, silence; zeros of what is seen again, and as memories."""
        past = self.zeros(batch, self.window - self.step, *self.seen)
        return (
            self.mels.initial(batch) if self.mels else (),
            past,
            tuple(self.zeros(batch, *shape) for shape in self.found.states),
        )

    @torch.no_grad()
    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Row by row and window by window, on the CPU."""
        before, past, memory = state
        if self.mels:
            x, before = self.mels(x, before)
        joined, past = left_context(past, x.to(past))
        windows = joined.cpu().unfold(1, self.window, self.step).movedim(-1, 2).numpy()
        axes = [one.axis for one in self.states.values()]
        rows, after = [], []
        for row, seen in enumerate(windows):
            own = [np.expand_dims(part[row].cpu().numpy(), axis) for part, axis in zip(memory, axes, strict=True)]
            found = []
            for window in seen:
                y, own = self.call(window, own)
                found.append(y)
            rows.append(np.stack(found))
            after.append([part.squeeze(axis) for part, axis in zip(own, axes, strict=True)])
        new = (torch.from_numpy(np.stack(parts)).to(self.anchor) for parts in zip(*after, strict=True))
        return torch.from_numpy(np.stack(rows)).to(self.anchor), (before, past, tuple(new))

    def call(self, window: Array, memory: list[Array]) -> tuple[Array, list[Array]]:
        """One window ``(window, ...)`` to the features ``(F,)``, and the memories ``(..., 1, ...)`` to the next."""
        network = self.opened()
        known, given = network.inputs(), dict(zip(self.states, memory, strict=True))
        given |= {name: np.full(known[name].shape, value) for name, value in self.constants.items()}
        free = [name for name in known if name not in given]
        if len(free) != 1:
            raise ConfigError(
                f"{KEY}: {self.path} takes {', '.join(free)}; expected one input, the others among extractor.states or "
                "extractor.constants"
            )
        how = fit(window.shape, known[free[0]].shape)
        if how is None:
            raise ConfigError(
                f"extractor.window: {self.path} takes {free[0]} {known[free[0]].shape}, which a window "
                f"{window.shape} does not fit"
            )
        order, shape = how
        given[free[0]] = (window * self.scale + self.shift).transpose(order).reshape(shape)
        names = [network.output(self.output), *(one.out for one in self.states.values())]
        y, *after = network.run(names, given)
        return y.astype(np.float32).reshape(-1), after
