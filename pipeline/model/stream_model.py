"""What streams, batches and sinks need of a model: its step, and what its answers mean.

``Classifier`` computes the step with torch, ``OnnxModel`` with onnxruntime and without torch.
"""

import math
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.media.input_spec import Arrays, InputSpec
from pipeline.model.decoder import Decoder

# What a model remembers: arrays with the batch on axis 0, of numpy, or of torch on another device. A plain value: it
# goes in, another comes out, and what went in is never written to.
Memory: TypeAlias = tuple[Any, ...]
MAX_STATE_BYTES = 4_000_000_000  # of what one stream remembers


class StreamModel(Protocol):
    """A model for streams.

    Attributes:
        labels: what its posteriors are of.
        spec: what it takes, on a clock of ``rate`` ticks a second.
        hop, delay: ticks of a step; steps by which answers lag.
        grain: ticks of the smallest chunk that makes whole steps of every track.
        unit: ticks of the smallest block that it computes; others are multiples of it.
        config: the settings of its parts.
        link: ``softmax`` for one label at a time, ``sigmoid`` for any number of them.
        engine: what computes it, and where.
    """

    labels: list[str]
    spec: InputSpec
    config: dict[str, dict[str, Any]]
    rate: int
    hop: int
    delay: int
    grain: int

    @property
    def unit(self) -> int: ...

    @property
    def link(self) -> str: ...

    @property
    def engine(self) -> dict[str, str]: ...

    def begin(self, rows: int) -> Memory:
        """The memory before the first tick, for so many streams; the caller's own."""

    def advance(self, block: Arrays, memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """A block of each of B streams, ``(B, steps, ...)`` per track, to posteriors ``(B, T, K)`` and the next memory.
        A row whose memory is not finite gets NaN, and perhaps its neighbours do.
        """

    def live(self) -> "Live":
        """The memory of one stream, to be taken on."""

    def decoder(self, **settings: Any) -> Decoder:
        """A new decoder with the model's settings, changed by ``settings``."""

    def identity(self, window: bool = True) -> str:
        """A short hash of weights and settings: the same for the same answers. Without ``window``: whatever the head's
        window is.
        """

    def check_golden(self, parts: Arrays, found: NDArray[np.float32]) -> None:
        """ModelError if a stream's posteriors ``(T, K)`` of the golden clip are not what they should be."""

    def check_block(self, ticks: int) -> None:
        """ConfigError if it cannot compute blocks of so many ticks."""


class Live:
    """The memory of one stream, ``state``, and the model's step on it."""

    def __init__(self, model: StreamModel) -> None:
        self.model = model
        self.state = self.first = model.begin(1)

    def step(self, block: Arrays) -> tuple[NDArray[np.float32], bool]:
        """A block ``(1, steps, ...)`` per track to posteriors ``(T, K)``, and whether they and the memory after them
        are finite; else the memory stays as it was.
        """
        (y,), state = self.model.advance(block, self.state)
        good = bool(np.isfinite(y).all() and finite(state, self.first).all())
        if good:
            self.state = state
        return y, good


def finite(memory: Memory, first: Memory) -> NDArray[np.bool_]:
    """Which rows of a memory hold only finite numbers, or those with which it begins (``first``, one row), as a maximum
    of nothing is minus infinity: ``(B,)``.
    """
    found = np.ones(len(memory[0]) if memory else 1, bool)
    for array, one in zip(memory, first, strict=True):
        flat = array.reshape(-1)
        if to_numpy(flat[:1]).dtype.kind == "f" and not math.isfinite(flat @ flat):  # faster than to look at each
            rows = to_numpy(array).reshape(len(array), -1)
            found &= (np.isfinite(rows) | (rows == to_numpy(one).reshape(1, -1))).all(1)
    return found


def to_numpy(array: Any) -> NDArray[Any]:
    """An array, wherever it is, on the processor."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def block_ticks(model: StreamModel, seconds: float) -> int:
    """The ticks of a block of about so many seconds: whole steps, of every track."""
    steps = max(1, round(seconds * model.rate / model.hop))
    return -(-steps * model.hop // model.grain) * model.grain
